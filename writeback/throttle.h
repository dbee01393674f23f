/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * writeback/throttle.h - holds writers back as dirty data nears its limit
 *
 * Below the start mark (half-way between the background mark and the limit)
 * nobody waits. From there to the limit each writer pauses in proportion to
 * what it writes, the longer the nearer the limit is: so that writers come down
 * to the speed of the device little by little, and none stands still until all
 * is flushed. At the limit writers are let in one after the other, in the order
 * they came, as room is made.
 *
 * Locks: none. A pause is slept where the caller holds none. Threads: any.
 */
#ifndef SLUICE_WRITEBACK_THROTTLE_H
#define SLUICE_WRITEBACK_THROTTLE_H

#include "cache/super.h"

/* The longest that one pause lasts (not the wait at the limit). */
#define THROTTLE_PAUSE_MAX_MS 200u

struct throttle;

struct throttle_stats {
	u64 pauses;     /* pauses below the limit */
	u64 at_limit;   /* waits at the limit */
	u64 pause_ns;   /* time spent in both */
	u64 longest_ns; /* the longest of both */
	u64 waiting;    /* writers at the limit now */
};

/*
 * Marks in bytes of sb->s_dirty_bytes, 0 < limit, background <= limit. urge(priv)
 * is called, again and again, while a writer waits at the limit: it gets
 * write-out going. 0 or -ENOMEM.
 */
int __must_check throttle_create(struct super_block *sb, u64 background, u64 limit,
				 void (*urge)(void *priv), void *priv,
				 struct throttle **out);
/* Other marks, from now on. Who waits looks again. */
void throttle_set_marks(struct throttle *t, u64 background, u64 limit);
/* Nobody waits any more, now or later. */
void throttle_stop(struct throttle *t);
void throttle_free(struct throttle *t); /* NULL is allowed */

/*
 * Before a writer makes `bytes` of the inode dirty. Returns when it may go on; at
 * once if the volume is read-only or the throttle was stopped, for nothing
 * will be written then. One write of more than half the limit passes when half of it is
 * free. Sleeps; no lock held.
 */
void throttle_wait(struct throttle *t, struct inode *inode, u64 bytes);
/* Something was written: who waits looks again. */
void throttle_progress(struct throttle *t);
/* Does a writer wait at the limit? */
bool throttle_at_limit(const struct throttle *t);

/* The pause, in ns, that `bytes` cost while `dirty` bytes are dirty. */
u64 throttle_pause_ns(const struct throttle *t, u64 dirty, u64 bytes);
void throttle_get_stats(const struct throttle *t, struct throttle_stats *st);

#endif
