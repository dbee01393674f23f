/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/volume.h - real volumes for tests: mke2fs, mount in process, e2fsck
 *
 * Images lie in a directory of the test's own below $TMPDIR, removed by
 * volume_free().
 */
#ifndef SLUICE_TESTS_VOLUME_H
#define SLUICE_TESTS_VOLUME_H

#include "fs/fs.h"
#include "lib/log.h"
#include "lib/thread.h"
#include "writeback/bdev.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct volume {
	char dir[64];
	char image[96];
};

static inline int volume_run(const char *fmt, const char *image)
{
	char cmd[1024];

	snprintf(cmd, sizeof(cmd), fmt, image);
	return system(cmd);
}

/* mke2fs with these arguments; size as mke2fs spells it. */
static inline void volume_make(struct volume *v, const char *mkfs_args, const char *size)
{
	char cmd[1024];

	snprintf(v->dir, sizeof(v->dir), "%s/sluice-vol-XXXXXX",
		 getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	if (!mkdtemp(v->dir))
		abort();
	snprintf(v->image, sizeof(v->image), "%s/img", v->dir);
	snprintf(cmd, sizeof(cmd), "mke2fs -q -t ext4 -F %s %s %s >/dev/null", mkfs_args,
		 v->image, size);
	if (system(cmd)) {
		fprintf(stderr, "failed: %s\n", cmd);
		abort();
	}
}

static inline void volume_free(struct volume *v)
{
	unlink(v->image);
	rmdir(v->dir);
}

static inline int volume_mount(const struct volume *v, const struct sl_options *opts,
			       struct super_block **sb)
{
	const char *why;
	struct bdev *bd;
	int err = bdev_open_aio(v->image, opts->readonly, 0, &bd, &why);

	if (err) {
		fprintf(stderr, "%s: %s\n", v->image, why);
		return err;
	}
	return sl_mount(bd, opts, sb);
}

/* Exit status of e2fsck -fn: 0 is clean. Prints what it says otherwise. */
static inline int volume_fsck(const struct volume *v)
{
	char out[128], cmd[512];
	int status;

	snprintf(out, sizeof(out), "%s/fsck", v->dir);
	snprintf(cmd, sizeof(cmd), "e2fsck -fn -E no_optimize_extents %s >%s 2>&1",
		 v->image, out);
	status = system(cmd);
	snprintf(cmd, sizeof(cmd), "grep -q 'Fix?\\|<y>\\|IGNORED' %s", out);
	if (status == 0 && system(cmd) == 0)
		status = 1;
	if (status) {
		snprintf(cmd, sizeof(cmd), "head -40 %s >&2", out);
		if (system(cmd))
			fprintf(stderr, "no output of e2fsck\n");
	}
	unlink(out);
	return status;
}

#endif
