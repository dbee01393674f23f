/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/migrate.h - cached data moves to the zone that reads it
 *
 * mapping_migrate() moves folios of a file to another zone, under whatever use they
 * are in: readers and writers see the old memory or the new, with the same bytes.
 * The balancer does so for readers: when a handle's window has been moved from the
 * same zone twice, what lies in it follows, unless others read it from elsewhere.
 * It has a queue and a thread for each zone, the one that things move to.
 *
 * Inodes do not move: everything that knows one has its address.
 *
 * Locks: i_mmap_rwsem by trylock, then leaf locks. Threads: any.
 */
#ifndef SLUICE_CACHE_MIGRATE_H
#define SLUICE_CACHE_MIGRATE_H

#include "cache/mapping.h"

/* Folios; tried is the sum of all others. */
struct migration {
	u64 tried;
	u64 moved;
	u64 busy;    /* on their way to the device */
	u64 pinned;  /* somebody else has a reference */
	u64 changed; /* gone, or moved by others, before their turn came */
	u64 nomem;   /* the zone has no memory */
};

/*
 * Moves the folios of blocks [start, end) to the zone, which exists, where they are
 * elsewhere. Adds to what the volume's counters say, and, unless NULL, to *mig. Holds
 * one leaf lock for a copy of 64 KiB at most. No lock from RANK_LEAF inwards.
 */
void mapping_migrate(struct mapping *m, lblk_t start, u64 end, u32 zone,
		     struct migration *mig);

/* From now on sb->s_read_hint() is heard. No-op with one zone. 0, -ENOMEM, -EAGAIN. After
 * the caches of sb were made. */
int __must_check balancer_start(struct super_block *sb);
/* Gives back the inodes that stand in queues: while they can still be evicted.
 * Idempotent. */
void balancer_stop(struct super_block *sb);
#endif
