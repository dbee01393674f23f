/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/dropper.h - drops caches, ours and the kernel's, by a thread of its own
 *
 * No request may tell the kernel to drop something: the kernel would wait for pages
 * and inodes that other requests have locked, perhaps for the very one that tells
 * it. So the requests ask this thread, and wait for it with nothing held.
 */
#ifndef SLUICE_SRC_DROPPER_H
#define SLUICE_SRC_DROPPER_H

#include "lib/types.h"
#include <sys/types.h>

struct dropper;
struct fuse_session;
struct super_block;

#define DROP_DATA 1u
#define DROP_METADATA 2u

/* Starts the thread. -ENOMEM, -EAGAIN. mountpoint stays the caller's. */
int __must_check dropper_start(struct fuse_session *se, const char *mountpoint,
			       struct dropper **out);
/* The device number of the mount, once it is known; names can be dropped then. */
void dropper_set_dev(struct dropper *d, dev_t dev);
/* That one, or 0. */
dev_t dropper_dev(const struct dropper *d);
/* From a request: drops `what` (DROP_*), and returns when that is done. -EINVAL;
 * -EBUSY: too many wait, or it is held; -ENODEV: the dropper has ended. */
int __must_check dropper_run(struct dropper *d, struct super_block *sb, u32 what);
/* On return nobody has entered, and nothing is being dropped; until dropper_release()
 * -EBUSY for who would. So requests may be held up meanwhile. Sleeps. */
void dropper_hold(struct dropper *d);
void dropper_release(struct dropper *d);
/*
 * From a request that will call dropper_inval(), more than once perhaps, until
 * dropper_leave(): so that none of them finds too many others. -EBUSY: there are, or it
 * is held.
 */
int __must_check dropper_enter(struct dropper *d);
void dropper_leave(struct dropper *d);
/*
 * The kernel writes what it has dirty of the inode `node` from byte off on, and drops its
 * pages of that; and asks for the attributes anew. Returns when that is done, with nothing
 * held: the writes are requests. -ENODEV as above.
 */
int __must_check dropper_inval(struct dropper *d, u64 node, u64 off);
/*
 * Ends the thread: who waits for it now, or asks later, gets -ENODEV. Before the
 * request loop is stopped with the connection standing: the kernel, told to drop
 * something, may wait for requests that nobody would read any more. Sleeps; by
 * the thread that calls dropper_stop().
 */
void dropper_end(struct dropper *d);
/* No request runs any more. NULL is allowed. */
void dropper_stop(struct dropper *d);

#endif
