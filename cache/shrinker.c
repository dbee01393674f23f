/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/shrinker.c - who can free memory of a budget, and asking them
 *
 * Locks: `scan` of the budget, shared around each pass and exclusive to change the
 * list; unranked, as scans call upwards into evict_inode(). A pass inside a pass
 * (a scan whose callee throttles) is refused: see reclaiming_.
 * Threads: any
 */
#include "cache/zone_internal.h"

#define SCAN_MIN 4096ull /* least that a shrinker is asked for */
#define DROP_PASSES 1000u

/* This thread is inside a pass. */
static _Thread_local bool reclaiming_;

bool reclaim_is_nested(void)
{
	return reclaiming_;
}

void budget_register(struct budget *b, struct shrinker *s)
{
	rwsem_down_write(&b->scan);
	s->next = b->shrinkers;
	b->shrinkers = s;
	rwsem_up_write(&b->scan);
}

void budget_unregister(struct budget *b, struct shrinker *s)
{
	rwsem_down_write(&b->scan);
	for (struct shrinker **p = &b->shrinkers; *p; p = &(*p)->next) {
		if (*p == s) {
			*p = s->next;
			break;
		}
	}
	s->next = NULL;
	rwsem_up_write(&b->scan);
}

/* part/whole of need, without overflow. */
static u64 proportion(u64 need, u64 part, u64 whole)
{
	if (need == UINT64_MAX || whole == 0)
		return need;
	return (u64)((unsigned __int128)need * part / whole);
}

static u64 scan_one(struct shrinker *s, struct zone *z, u64 bytes,
		    enum reclaim_by by)
{
	struct shrink_control sc = { .zone = z->nr, .bytes = bytes };
	u64 freed = s->scan(s, &sc);

	/* relaxed: statistics */
	atomic_fetch_add_explicit(&z->reclaimed[by], freed, memory_order_relaxed);
	atomic_fetch_add_explicit(&z->scanned, sc.scanned, memory_order_relaxed);
	atomic_fetch_add_explicit(&z->rotated, sc.rotated, memory_order_relaxed);
	return freed;
}

/*
 * Asks those who are to go first for all of `need`, this zone's before the
 * others': what they free costs nothing, wherever it is.
 */
static u64 reclaim_first(struct zone *z, u64 need, enum reclaim_by by)
{
	struct budget *b = z->budget;
	u64 freed = 0;

	for (u32 i = 0; i < b->nr_zones; i++) {
		struct zone *at = &b->zones[(z->nr + i) % b->nr_zones];

		for (struct shrinker *s = b->shrinkers; s && freed < need;
		     s = s->next)
			if (s->first)
				freed += scan_one(s, at, need - freed, by);
	}
	return freed;
}

/* What the zone has of each kind that somebody can free, with its part of what is
 * of no zone; returns the sum. nr: shrinkers of the kind. */
static u64 kinds_in_use(struct zone *z, u64 *use, u32 *nr)
{
	struct budget *b = z->budget;
	u64 total = 0;

	for (struct shrinker *s = b->shrinkers; s; s = s->next)
		nr[s->kind]++;
	for (int k = 0; k < BUDGET_KINDS; k++) {
		s64 of_none;

		if (!nr[k])
			continue;
		/* What zones have not folded is in neither sum. */
		of_none = counter_sum(b->used[k]);
		for (u32 i = 0; i < b->nr_zones; i++)
			of_none -= counter_read_fast(b->zones[i].used[k]);
		use[k] = zone_used(b, z->nr, k) +
			 (u64)max_of(of_none, (s64)0) / b->nr_zones;
		total += use[k];
	}
	return total;
}

/* Those who go first, then every shrinker once for its share of the rest. */
u64 reclaim_pass(struct zone *z, u64 need, enum reclaim_by by)
{
	struct budget *b = z->budget;
	u64 use[BUDGET_KINDS] = { 0 };
	u32 nr[BUDGET_KINDS] = { 0 };
	u64 total;
	u64 freed;

	reclaiming_ = true;
	rwsem_down_read(&b->scan);
	atomic_fetch_add_explicit(&z->passes, 1, memory_order_relaxed);
	total = kinds_in_use(z, use, nr);
	freed = reclaim_first(z, need, by);
	if (freed >= need)
		goto out;
	if (need != UINT64_MAX)
		need -= freed;
	for (struct shrinker *s = b->shrinkers; s; s = s->next) {
		u64 share = proportion(need, use[s->kind], total);

		/* A kind's unfolded shares may hide the little it holds. */
		if (need != UINT64_MAX)
			share /= nr[s->kind];
		freed += scan_one(s, z, max_of(share, (u64)SCAN_MIN), by);
	}
out:
	rwsem_up_read(&b->scan);
	reclaiming_ = false;
	return freed;
}

void shrinkers_trim(struct budget *b)
{
	rwsem_down_read(&b->scan);
	for (struct shrinker *s = b->shrinkers; s; s = s->next)
		if (s->trim)
			s->trim(s);
	rwsem_up_read(&b->scan);
}

/* ---- drop_caches ---- */

/* Every shrinker of the kind once in each zone; BUDGET_KINDS: of all kinds. */
static u64 drop_pass(struct budget *b, enum budget_kind kind)
{
	u64 freed = 0;

	reclaiming_ = true;
	rwsem_down_read(&b->scan);
	for (struct shrinker *s = b->shrinkers; s; s = s->next) {
		if (kind != BUDGET_KINDS && s->kind != kind)
			continue;
		for (u32 i = 0; i < b->nr_zones; i++)
			freed += scan_one(s, &b->zones[i], UINT64_MAX,
					  BY_REQUEST);
	}
	rwsem_up_read(&b->scan);
	reclaiming_ = false;
	return freed;
}

u64 budget_drop(struct budget *b, enum budget_kind kind)
{
	u64 freed = 0;

	if (reclaiming_)
		return 0;
	/* Twice without result: the first may only have taken second chances. */
	for (u32 fruitless = 0, pass = 0; fruitless < 2 && pass < DROP_PASSES;
	     pass++) {
		u64 n = drop_pass(b, kind);

		fruitless = n ? 0 : fruitless + 1;
		freed += n;
	}
	return freed;
}

u64 budget_drop_all(struct budget *b)
{
	return budget_drop(b, BUDGET_KINDS);
}
