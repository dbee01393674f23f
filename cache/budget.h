/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/budget.h - how much memory the caches of one mount may hold (-o cache=)
 *
 * Everything the caches keep is charged here: inodes, buffers, folios, tree
 * nodes. What is of a zone (cache/zone.h) is charged to that, the rest to none.
 * The bound is one for all. Three marks:
 *
 *     low    limit - 1/8    above it the zones' threads reclaim, through the
 *                           shrinkers (cache/shrinker.h), down to
 *     goal   low - 1/16
 *     min    limit - 1/32   above it a request reclaims by itself, in
 *                           budget_throttle(), called where no lock is held
 *
 * Charging never fails and never sleeps (a write-out must be able to go on);
 * the bound holds because every request throttles before it allocates, and what
 * those that are at work allocate fits between `min` and the limit.
 * It counts what is reachable; memory that waits for a grace period is not.
 *
 * Threads: any.
 */
#ifndef SLUICE_CACHE_BUDGET_H
#define SLUICE_CACHE_BUDGET_H

#include "lib/types.h"

struct budget;

/*
 * INDEX: the inode numbers that the kernel has looked up. The kernel decides
 * how many; nothing here can free them. So they take up to half of the limit
 * from the other kinds, and what is above that half is not held against it.
 */
enum budget_kind {
	BUDGET_INODE, BUDGET_BUFFER, BUDGET_FOLIO, BUDGET_TREE, BUDGET_INDEX,
	BUDGET_KINDS
};

/*
 * limit in bytes, at least 8 MiB. zones: so many pretended ones, up to ZONES_MAX;
 * 0: one for each NUMA node. Starts a reclaim thread for each.
 * 0, -ENOMEM, -EAGAIN (no thread).
 */
int __must_check budget_create(u64 limit, u32 zones, struct budget **out);
/*
 * Another limit from now on, at least 8 MiB; returns it. What is above is not waited
 * for: the threads begin to free it, and budget_throttle() helps. What others have
 * derived from the old limit stays as it is. One caller at a time.
 */
u64 budget_set_limit(struct budget *b, u64 limit);
void budget_destroy(struct budget *b); /* everything must be uncharged */

/* Memory that is of no zone; see zone_charge(). */
void budget_charge(struct budget *b, enum budget_kind kind, s64 bytes);
void budget_uncharge(struct budget *b, enum budget_kind kind, s64 bytes);

/*
 * Direct reclaim above `min`. May sleep; no lock held. Gives up after
 * 0.2 s without success: what is left is in use or dirty, and refusing service
 * would not change that (writers are held back by balance_dirty()).
 */
void budget_throttle(struct budget *b);
/* Frees all that can be freed now (drop_caches); returns bytes. */
u64 budget_drop_all(struct budget *b);
/* The same for one kind. */
u64 budget_drop(struct budget *b, enum budget_kind kind);

/* Has what was freed before given back to the system: waits for a grace period, and
 * trims heap and pools. Sleeps; no lock held. */
void budget_trim(struct budget *b);

u64 budget_limit(const struct budget *b);
u64 budget_used(const struct budget *b, enum budget_kind kind); /* exact */
u64 budget_used_total(const struct budget *b); /* fast; within 1/64 of the limit */
bool budget_is_full(const struct budget *b); /* requests throttle; as fast */

#endif
