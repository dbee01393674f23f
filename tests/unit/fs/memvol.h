/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/memvol.h - a real volume (mke2fs) on the fake device
 *
 * The content outlives the device: when the mount closes it, what a power cut
 * would have left (all that was written) is kept in the memvol, to be mounted again or
 * checked. Failures are asked of mv->fd while it is mounted.
 */
#ifndef SLUICE_TESTS_MEMVOL_H
#define SLUICE_TESTS_MEMVOL_H

#include "tests/unit/fs/fake_bdev.h"
#include "tests/unit/fs/volume.h"

#include <fcntl.h>
#include <sys/stat.h>

struct memvol {
	struct volume v;
	u64 size;
	u8 *content;           /* while not mounted */
	struct fake_bdev *fd;  /* while mounted */
};

static struct memvol *memvol_closing; /* one at a time */

static void memvol_close(struct bdev *bd)
{
	struct memvol *mv = memvol_closing;

	memcpy(mv->content, fake_of(bd)->mem, mv->size);
	mv->fd = NULL;
	fake_close(bd);
}

static const struct bdev_ops memvol_ops = {
	.submit = fake_submit,
	.flush = fake_flush,
	.close = memvol_close,
};

/* From the image, after mke2fs or a change by debugfs. */
static inline void memvol_load(struct memvol *mv)
{
	int fd = open(mv->v.image, O_RDONLY);

	if (fd < 0 || read(fd, mv->content, mv->size) != (ssize_t)mv->size)
		abort();
	close(fd);
}

/* To the image, for e2fsck and debugfs. */
static inline void memvol_store(struct memvol *mv)
{
	int fd = open(mv->v.image, O_WRONLY);

	if (fd < 0 || write(fd, mv->content, mv->size) != (ssize_t)mv->size)
		abort();
	close(fd);
}

static inline void memvol_make(struct memvol *mv, const char *mkfs_args, const char *size)
{
	struct stat st;

	volume_make(&mv->v, mkfs_args, size);
	if (stat(mv->v.image, &st))
		abort();
	mv->size = (u64)st.st_size;
	mv->content = malloc(mv->size);
	mv->fd = NULL;
	memvol_load(mv);
}

static inline void memvol_free(struct memvol *mv)
{
	volume_free(&mv->v);
	free(mv->content);
}

/* A device with the content, for sl_mount(). */
static inline struct bdev *memvol_open(struct memvol *mv)
{
	mv->fd = fake_bdev_create(mv->size);
	memcpy(mv->fd->mem, mv->content, mv->size);
	mv->fd->bd.bd_ops = &memvol_ops;
	memvol_closing = mv;
	return &mv->fd->bd;
}

static inline int memvol_mount(struct memvol *mv, const struct sl_options *opts,
			       struct super_block **sb)
{
	return sl_mount(memvol_open(mv), opts, sb);
}

/* What a power cut now would leave, if the device had no cache, in `out`. */
static inline void memvol_snapshot(struct memvol *mv, u8 *out)
{
	pthread_mutex_lock(&mv->fd->lock);
	memcpy(out, mv->fd->mem, mv->size);
	pthread_mutex_unlock(&mv->fd->lock);
}

static inline void memvol_fail_writes(struct memvol *mv, s64 after)
{
	pthread_mutex_lock(&mv->fd->lock);
	mv->fd->fail_write_in = after;
	pthread_mutex_unlock(&mv->fd->lock);
}

static inline int memvol_fsck(struct memvol *mv)
{
	memvol_store(mv);
	return volume_fsck(&mv->v);
}

/* The volume's end: whole for e2fsck, and *mv as before memvol_make(). */
static inline void memvol_end(struct memvol *mv)
{
	assert_int_equal(memvol_fsck(mv), 0);
	memvol_free(mv);
	memset(mv, 0, sizeof(*mv));
}

/* debugfs -w with this command, on the volume while it is not mounted. */
static inline void memvol_debugfs(struct memvol *mv, const char *command)
{
	char cmd[512];

	memvol_store(mv);
	snprintf(cmd, sizeof(cmd), "debugfs -w -R '%s' %s >/dev/null 2>&1",
		 command, mv->v.image);
	if (system(cmd))
		abort();
	memvol_load(mv);
}

#endif
