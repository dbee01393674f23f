/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/budget.c - counts the memory of the caches and drives reclaim
 *
 * One per-CPU counter per kind and zone, each a part of the one of its kind: a
 * share that is folded counts in its zone and in the sum, so that a charge costs
 * the same however many zones there are, and looks at the sum only. What is of no
 * zone is added to the sum directly.
 *
 * A charge that finds the sum above the low mark wakes the threads of the zones
 * that have something to do about it (zone.c), which ask the shrinkers
 * (shrinker.c) until the sum is at the goal. A request above `min` does the same in
 * budget_throttle(), for itself and a bounded time: when all that is left is pinned
 * or dirty, it is write-out (balance_dirty()) that must hold writers back, not
 * the budget.
 *
 * Who has to free how much. A zone's load is what it uses and its part, 1/N, of
 * what is of no zone; so the loads add up to the sum. With the sum above a mark at
 * least one zone is above 1/N of the mark, and those that are have to free
 * what they are above it; the others nothing: what they use they have not
 * borrowed. If that frees nothing (it is in use, or dirty), `unfair` is set, and
 * each zone has to free its part, until the sum is at the goal.
 *
 * Memory that waits for a grace period is not counted any more: counting it
 * would make reclaimers free more and more while they wait for RCU.
 *
 * Locks:   none here; counters' own
 * Never:   sleeps in charge or uncharge.
 */
#include "cache/zone_internal.h"
#include "lib/log.h"
#include "lib/rcu.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define BUDGET_MIN (8ull << 20)
#define THROTTLE_PASSES 16u
#define THROTTLE_NAP_NS (20 * NS_PER_MS)
#define THROTTLE_MAX_NS (200 * NS_PER_MS)
#define COUNTER_BATCH_MIN 256u
#define COUNTER_BATCH_MAX (256u << 10)

const char *const budget_kind_names[BUDGET_KINDS] = {
	[BUDGET_INODE] = "inodes",
	[BUDGET_BUFFER] = "buffers",
	[BUDGET_FOLIO] = "folios",
	[BUDGET_TREE] = "tree nodes",
	[BUDGET_INDEX] = "inode index",
};

/* ---- counting ---- */

u64 budget_limit(const struct budget *b)
{
	return budget_mark(&b->limit);
}

static u64 at_least_0(s64 v)
{
	return v > 0 ? (u64)v : 0;
}

static s64 used_exactly(const struct budget *b, enum budget_kind kind)
{
	s64 sum = counter_sum(b->used[kind]);

	for (u32 i = 0; i < b->nr_zones; i++)
		sum += counter_unfolded(b->zones[i].used[kind]);
	return sum;
}

u64 budget_used(const struct budget *b, enum budget_kind kind)
{
	return at_least_0(used_exactly(b, kind));
}

u64 zone_used(const struct budget *b, u32 zone, enum budget_kind kind)
{
	return at_least_0(counter_sum(b->zones[zone].used[kind]));
}

u64 budget_used_total(const struct budget *b)
{
	s64 sum = 0;

	/* Shares not yet folded may make one kind negative: add, then clip. */
	for (int k = 0; k < BUDGET_KINDS; k++)
		sum += counter_read_fast(b->used[k]);
	return at_least_0(sum);
}

/*
 * What is held against the limit. Index memory above half of it is left out:
 * no pass could make up for it, and every request would wait in vain.
 */
u64 budget_load(const struct budget *b)
{
	u64 total = budget_used_total(b);
	s64 index;

	if (likely(total <= budget_mark(&b->goal)))
		return total;
	index = counter_read_fast(b->used[BUDGET_INDEX]) -
		(s64)(budget_mark(&b->limit) / 2);
	return index > 0 ? total - min_of((u64)index, total) : total;
}

static u64 zone_used_fast(const struct zone *z)
{
	s64 sum = 0;

	for (int k = 0; k < BUDGET_KINDS; k++)
		sum += counter_read_fast(z->used[k]);
	return at_least_0(sum);
}

bool budget_is_full(const struct budget *b)
{
	return budget_load(b) > budget_mark(&b->min);
}

static void after_charge(struct budget *b, struct zone *z)
{
	if (unlikely(budget_load(b) > budget_mark(&b->low)))
		zones_kick(b, z);
}

static void after_uncharge(struct budget *b)
{
	/*
	 * A waiter that we miss here (it counts itself between the uncharge and
	 * this look) wakes by its deadline at the latest.
	 */
	if (unlikely(atomic_load(&b->waiters)) &&
	    budget_load(b) <= budget_mark(&b->min))
		wake_up(&b->waiters);
}

void budget_charge(struct budget *b, enum budget_kind kind, s64 bytes)
{
	counter_add(b->used[kind], bytes);
	after_charge(b, NULL);
}

void budget_uncharge(struct budget *b, enum budget_kind kind, s64 bytes)
{
	counter_add(b->used[kind], -bytes);
	after_uncharge(b);
}

void zone_charge(struct budget *b, u32 zone, enum budget_kind kind, s64 bytes)
{
	assert(zone < b->nr_zones);
	counter_add(b->zones[zone].used[kind], bytes);
	after_charge(b, &b->zones[zone]);
}

void zone_uncharge(struct budget *b, u32 zone, enum budget_kind kind, s64 bytes)
{
	assert(zone < b->nr_zones);
	counter_add(b->zones[zone].used[kind], -bytes);
	after_uncharge(b);
}

/* ---- who has to free how much ---- */

void budget_take_load(const struct budget *b, struct load *l)
{
	u64 of_zones = 0;

	l->sum = budget_load(b);
	for (u32 i = 0; i < b->nr_zones; i++)
		of_zones += zone_used_fast(&b->zones[i]);
	l->of_none = l->sum - min_of(l->sum, of_zones);
}

/* The head of the file says why. */
u64 zone_due(const struct zone *z, const struct load *l)
{
	const struct budget *b = z->budget;
	u64 goal = budget_mark(&b->goal);
	u64 share = goal / b->nr_zones;
	u64 mine;

	if (l->sum <= goal)
		return 0;
	mine = zone_used_fast(z) + l->of_none / b->nr_zones;
	/* relaxed: a hint, which every pass looks at anew */
	if (atomic_load_explicit(&b->unfair, memory_order_relaxed))
		return (u64)((unsigned __int128)(l->sum - goal) * mine / l->sum);
	return mine > share ? min_of(l->sum - goal, mine - share) : 0;
}

/*
 * One round of direct reclaim, of `need` bytes: from the zones that have to, our
 * own first; or, `all`, from every one. Returns what was freed.
 */
static u64 reclaim_round(struct budget *b, u64 need, bool all)
{
	u32 home = zone_home(b);
	u64 freed = 0;

	for (u32 i = 0; i < b->nr_zones && freed < need; i++) {
		struct zone *z = &b->zones[(home + i) % b->nr_zones];
		struct load l;

		budget_take_load(b, &l);
		if (all || zone_due(z, &l))
			freed += reclaim_pass(z, need - freed, BY_REQUEST);
	}
	return freed;
}

void budget_throttle(struct budget *b)
{
	u64 end;
	u32 fruitless = 0;

	if (likely(!budget_is_full(b)) || reclaim_is_nested())
		return;
	thread_might_block();
	zones_kick(b, NULL);
	end = clock_mono_ns() + THROTTLE_MAX_NS;
	for (u32 pass = 0; pass < THROTTLE_PASSES; pass++) {
		u64 used = budget_load(b), min = budget_mark(&b->min);
		u64 now;

		if (used <= min)
			return;
		/* A little more than is due, so that the next one passes. */
		if (reclaim_round(b, used - min + min / 64, fruitless > 0)) {
			fruitless = 0;
			continue;
		}
		if (++fruitless < FRUITLESS_PASSES)
			continue;
		now = clock_mono_ns();
		if (now >= end)
			break;
		atomic_fetch_add(&b->waiters, 1);
		(void)wait_event_deadline(&b->waiters,
					  budget_load(b) <= budget_mark(&b->min),
					  min_of(now + THROTTLE_NAP_NS, end));
		atomic_fetch_sub(&b->waiters, 1);
	}
	if (fruitless)
		log_ratelimited(LOG_LVL_DEBUG,
				"cache: %" PRIu64 " of %" PRIu64 " bytes used "
				"and nothing to free; request goes on",
				budget_used_total(b), budget_mark(&b->limit));
}

/* ---- mount and unmount ---- */

static void budget_free(struct budget *b)
{
	for (int k = 0; k < BUDGET_KINDS; k++)
		counter_free(b->used[k]);
	rwsem_destroy(&b->scan);
	free(b);
}

/* Each CPU may keep a batch of each counter to itself: all together about a 64th of
 * the limit. */
static s64 batch_for(const struct budget *b, u64 limit)
{
	u64 shares = (u64)thread_nr_cpus() * BUDGET_KINDS * (b->nr_zones + 1);

	return (s64)min_of(max_of(limit / 64 / shares, (u64)COUNTER_BATCH_MIN),
			   (u64)COUNTER_BATCH_MAX);
}

static void set_mark(_Atomic u64 *bytes, u64 value)
{
	atomic_store_explicit(bytes, value, memory_order_relaxed);
}

static u64 set_marks(struct budget *b, u64 limit)
{
	limit = max_of(limit, (u64)BUDGET_MIN);
	set_mark(&b->limit, limit);
	set_mark(&b->min, limit - limit / 32);
	set_mark(&b->low, limit - limit / 8);
	set_mark(&b->goal, limit - limit / 8 - limit / 16);
	return limit;
}

u64 budget_set_limit(struct budget *b, u64 limit)
{
	s64 batch;

	limit = set_marks(b, limit);
	batch = batch_for(b, limit);
	for (int k = 0; k < BUDGET_KINDS; k++) {
		counter_set_batch(b->used[k], batch);
		for (u32 i = 0; i < b->nr_zones; i++)
			counter_set_batch(b->zones[i].used[k], batch);
	}
	after_charge(b, NULL);
	if (atomic_load(&b->waiters))
		wake_up(&b->waiters);
	return limit;
}

int budget_create(u64 limit, u32 zones, struct budget **out)
{
	u32 nr = zones_plan(zones);
	size_t size = sizeof(struct budget) + nr * sizeof(struct zone);
	struct budget *b;
	s64 batch;
	int error = -ENOMEM;

	size = ALIGN_UP(size, _Alignof(struct budget));
	b = aligned_alloc(_Alignof(struct budget), size);
	if (!b)
		return -ENOMEM;
	memset(b, 0, size);
	limit = set_marks(b, limit);
	b->nr_zones = nr;
	rwsem_init(&b->scan, RANK_NONE);

	batch = batch_for(b, limit);
	for (int k = 0; k < BUDGET_KINDS; k++) {
		b->used[k] = counter_new(0, batch);
		if (!b->used[k])
			goto out_free;
	}
	error = zones_init(b, zones, batch);
	if (error)
		goto out_free;
	error = zones_start(b);
	if (error)
		goto out_zones;
	*out = b;
	return 0;

out_zones:
	zones_destroy(b);
out_free:
	budget_free(b);
	return error;
}

void budget_destroy(struct budget *b)
{
	if (!b)
		return;
	zones_stop(b);
	assert(!b->shrinkers);

	rcu_barrier(); /* objects may be uncharged as they are freed */
	for (int k = 0; k < BUDGET_KINDS; k++) {
		s64 left = used_exactly(b, k);

		if (left)
			log_err("cache: %" PRId64 " bytes of %s still charged "
				"at unmount: a leak", left,
				budget_kind_names[k]);
	}
	zones_destroy(b);
	budget_free(b);
}
