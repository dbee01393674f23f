/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * writeback/flusher.h - background write-out, write-behind, and sync
 *
 * One thread per mounted volume wakes when dirty data passes the background
 * mark or is older than the expiry, takes dirty inodes in the order they were
 * dirtied and calls s_op->write_inode on each, a slice (8 MiB) at a time so
 * that none starves the others. What a stream has completed is written at
 * once (flusher_behind()), so that the device does not idle until the mark is
 * reached. Writers call balance_dirty() before they dirty more; see throttle.h.
 *
 * The flusher holds no lock across write_inode. Marks: limit and background
 * in bytes of sb->s_dirty_bytes.
 */
#ifndef SLUICE_WRITEBACK_FLUSHER_H
#define SLUICE_WRITEBACK_FLUSHER_H

#include "cache/super.h"
#include "writeback/throttle.h"

struct flusher;

struct flusher_params {
	u64 dirty_bytes;            /* no more than this is made dirty */
	u64 dirty_background_bytes; /* write-out starts above this */
	u32 dirty_expire_ms;        /* age at which dirty inodes are written */
};

struct flusher_stats {
	u64 slices;      /* slices of inodes written in the background */
	u64 behind;      /* pieces of streams written behind their writers */
	u64 behind_lost; /* pieces left to the other rules: too many at once */
	struct throttle_stats throttle;
};

int __must_check flusher_start(struct super_block *sb, const struct flusher_params *p,
			       struct flusher **out);
void flusher_stop(struct flusher *f); /* writes nothing more; waits for the thread */
/* Other marks, as in flusher_params, from now on; one caller at a time. */
void flusher_set_marks(struct flusher *f, u64 background, u64 limit);
/* Another dirty_expire_ms, from now on. */
void flusher_set_expire(struct flusher *f, u32 ms);
/* Before a writer dirties `bytes` more of the inode. No lock held. Sleeps. */
void balance_dirty(struct flusher *f, struct inode *inode, u64 bytes);
/*
 * A stream has completed the blocks [start, end) of the inode: they are written
 * soon, whatever the marks say. A hint; does not wait. The caller has a
 * reference on the inode; may hold sleeping locks.
 */
void flusher_behind(struct flusher *f, struct inode *inode, lblk_t start, lblk_t end);
/* Writes what is dirty now, whatever the marks say; does not wait. */
void flusher_kick(struct flusher *f);
/* Writes all inodes dirty at the time of the call and waits for them (sync(2)'s
 * first half; the caller commits the journal after). First error, all tried. */
int flusher_sync_all(struct flusher *f);
void flusher_get_stats(const struct flusher *f, struct flusher_stats *st);

#endif
