/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/umount.h - find our mounts, and take them away from inside the daemon
 *
 * For the daemon's end by a signal, and for sluicectl. From the daemon call with requests
 * being served: umount(2) waits for the kernel's caches to be written, through us. Locks: none.
 */
#ifndef SLUICE_SRC_UMOUNT_H
#define SLUICE_SRC_UMOUNT_H

#include "lib/types.h"
#include <sys/types.h>

/*
 * The device number of the topmost FUSE mount of `source` at `where`, or, if
 * NULL, anywhere (both as the kernel has them: absolute, without links). False
 * if there is none.
 */
bool __must_check mount_find(const char *where, const char *source, dev_t *dev);

/*
 * Unmounts every mount of the device number that this mount namespace has:
 * at once if it can be, else lazily, having written what is dirty. Returns the
 * number of those that are still in use; a mount that cannot be taken away is logged.
 */
unsigned umount_all(dev_t dev);

/* Does the kernel have the file system with this number as read-only? 1, 0, or a
 * negative errno; -ENOENT: it is mounted nowhere that we see. */
int __must_check mount_is_readonly(dev_t dev);
/* The source of the FUSE mount that lies on top at where, and its st_dev; to be freed.
 * NULL: there is none. */
char *mount_source(const char *where, dev_t *dev);
/* Where the last mount of the device is; to be freed. NULL: there is none. */
char *mount_last(dev_t dev);
/* For those who may not umount(2): by fusermount3, which says what is wrong unless
 * lazy. 0, -EPERM, or another negative errno. */
int umount_by_helper(const char *where, bool lazy);

#endif
