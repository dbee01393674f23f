/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/zone.h - parts of the cache by NUMA node: memory, LRUs, reclaim
 *
 * A budget has a zone for each NUMA node that has memory, or as many pretended ones
 * as it was told (-o zones=N), so that this runs, and is tested, on any machine.
 * Zones are numbers from 0. An object belongs to the zone its memory is in, all
 * its life: it is charged to that, on the LRUs of that, and reclaimed by the
 * thread of that, which runs on the node. A thread's home zone, where what it
 * allocates should lie, is that of its CPU; of a pretended zone, its number among
 * the threads, modulo zones.
 *
 * Borrowing. The budget's marks are for the sum of all zones. A zone may use what the
 * others do not; but once the sum is above a mark, those above their share of it (the
 * same for each zone) are reclaimed from first, down to their share, and the
 * others only if that frees nothing. What is of no zone counts in all alike.
 *
 * Locks: none. Threads: any.
 */
#ifndef SLUICE_CACHE_ZONE_H
#define SLUICE_CACHE_ZONE_H

#include "cache/budget.h"

#define ZONES_MAX 64u

u32 zone_count(const struct budget *b);
/* LRU lists and pool lists that each zone should have: 1 to 16. */
u32 zone_lists(const struct budget *b);
/*
 * The same for lists that are chosen by a hash and not by CPU: more than CPUs, for a
 * thread that is preempted with a list's lock stops those who come to the same list.
 */
u32 zone_hash_lists(const struct budget *b);
/* The home zone of this thread. Cheap: stores to nothing shared. */
u32 zone_home(const struct budget *b);
/* Of pretended zones, `nr` modulo zones is this thread's home from now on. */
void zone_set_home(u32 nr);
/* The NUMA nodes of the zones, an entry for each; NULL: they are pretended, or
 * there is one. */
const int *zone_nodes(const struct budget *b);

/* As budget_charge(), for memory in that zone. Uncharge it from the same one. */
void zone_charge(struct budget *b, u32 zone, enum budget_kind kind, s64 bytes);
void zone_uncharge(struct budget *b, u32 zone, enum budget_kind kind, s64 bytes);
u64 zone_used(const struct budget *b, u32 zone, enum budget_kind kind); /* exact */

struct zone_stats {
	int node;                /* NUMA node; -1: pretended */
	u64 used[BUDGET_KINDS];  /* bytes */
	u64 lru[BUDGET_KINDS];   /* objects on LRUs (lazy: some may be in use) */
	u64 share;               /* bytes: the zone's part of the limit */
	u64 borrowed;            /* bytes in use above it */
	/* since the mount: */
	u64 background, direct;  /* bytes reclaimed by the zone's thread, by requests */
	u64 passes;              /* of either */
	u64 scanned, rotated;    /* objects looked at; of these, second chances */
};
void zone_get_stats(struct budget *b, u32 zone, struct zone_stats *st);
/* All of them as lines "zone.N.NAME VALUE", after "zones N": as many whole lines as fit
 * with a 0 into len bytes. Returns their length. */
size_t zone_stats_text(struct budget *b, char *buf, size_t len);

#endif
