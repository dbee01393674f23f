/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/ctl/shift.c - sluicectl collapse, insert: ranges taken out of a file, or put in
 *
 * Locks: none. Threads: one.
 */
#include "src/ctl/ctl.h"

#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <linux/falloc.h>

#include "src/options.h"
#include "src/sluice_ioctl.h"

bool ctl_shift_ok(struct call *c)
{
	return options_parse_size(c->arg, &c->offset) &&
	       options_parse_size(c->arg2, &c->bytes);
}

static int shift(const struct call *c, int fd, __u32 mode)
{
	struct sluice_shift a = {
		.version = SLUICE_IOC_VERSION,
		.size = sizeof(a),
		.offset = c->offset,
		.length = c->bytes,
		.mode = mode,
	};
	struct stat st;

	if (ioctl(fd, SLUICE_IOC_SHIFT, &a) < 0)
		return ctl_failed(c->mnt);
	/* So that the kernel learns of the new size. */
	return fstat(fd, &st) ? ctl_failed(c->mnt) : 0;
}

int ctl_collapse(const struct call *c, int fd)
{
	return shift(c, fd, FALLOC_FL_COLLAPSE_RANGE);
}

int ctl_insert(const struct call *c, int fd)
{
	return shift(c, fd, FALLOC_FL_INSERT_RANGE);
}
