/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/loopdev.h - a loop device as the anchor of an image's mount
 *
 * umount(8) of a type fuseblk waits for the daemon, that of fuse does not, and
 * fuseblk wants a block device. So an image gets one: it carries no I/O of
 * ours, it is only mounted. The kernel frees it with its last user.
 * Locks: none.
 */
#ifndef SLUICE_SRC_LOOPDEV_H
#define SLUICE_SRC_LOOPDEV_H

#include "lib/types.h"

struct loopdev {
	int fd; /* keeps the device attached; -1: none */
	bool readonly; /* it is so for good: the image could not be opened for more */
	char path[32];
};

/*
 * Attaches the image, from `offset` bytes on, to a free loop device. -errno if
 * there is none to be had; *what (static) then says at which step.
 */
int __must_check loopdev_attach(struct loopdev *ld, const char *image,
				bool readonly, u64 offset, const char **what);
/* Our use ends; the mount's own keeps the device until it ends too. */
void loopdev_release(struct loopdev *ld);

#endif
