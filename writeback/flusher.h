/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * writeback/flusher.h - background write-out and the throttling of writers
 *
 * One thread per mounted volume wakes when dirty data passes the background
 * mark or is older than the expiry, takes dirty inodes in the order they were
 * dirtied and calls s_op->write_inode on each, a slice (8 MiB) at a time so
 * that none starves the others. Writers call balance_dirty() before they
 * dirty more; above the limit they wait until write-out has caught up.
 *
 * The flusher holds no lock across write_inode. Marks: limit and background
 * in bytes of sb->s_dirty_bytes.
 */
#ifndef SLUICE_WRITEBACK_FLUSHER_H
#define SLUICE_WRITEBACK_FLUSHER_H

#include "cache/super.h"

struct flusher;

struct flusher_params {
	u64 dirty_bytes;            /* writers wait above this */
	u64 dirty_background_bytes; /* write-out starts above this */
	u32 dirty_expire_ms;        /* age at which dirty inodes are written */
};

int __must_check flusher_start(struct super_block *sb, const struct flusher_params *p,
			       struct flusher **out);
void flusher_stop(struct flusher *f); /* writes nothing more; waits for the thread */
/* Before a writer dirties `bytes` more. No lock held. Sleeps. */
void balance_dirty(struct flusher *f, u64 bytes);
/* Writes what is dirty now, whatever the marks say; does not wait. */
void flusher_kick(struct flusher *f);
/* Writes all inodes dirty at the time of the call and waits for them (sync(2)'s
 * first half; the caller commits the journal after). First error, all tried. */
int flusher_sync_all(struct flusher *f);

#endif
