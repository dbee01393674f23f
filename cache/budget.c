/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/budget.c - counts the memory of the caches and drives reclaim
 *
 * One per-CPU counter per kind. A charge that finds the sum above the low mark
 * wakes the reclaim thread, which asks the shrinkers, each in proportion to
 * what its kind uses, until the sum is a sixteenth of the limit below the low
 * mark. A request above the limit does the same in budget_throttle(), for
 * itself and a bounded time: when all that is left is pinned or dirty, it is
 * write-out (balance_dirty()) that must hold writers back, not the budget.
 *
 * Memory that waits for a grace period is not counted any more: counting it
 * would make reclaimers free more and more while they wait for RCU.
 *
 * Locks: b_scan, shared around each pass and exclusive to change the list of
 * shrinkers; unranked, as scans call upwards into evict_inode(). A pass inside
 * a pass (a scan whose callee throttles) is refused by reclaiming_.
 * Never: sleeps in charge or uncharge.
 */
#include "cache/budget.h"
#include "lib/counter.h"
#include "lib/lock.h"
#include "lib/log.h"
#include "lib/rcu.h"
#include "lib/thread.h"
#include "lib/wait.h"

#include <assert.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>

#define NS_PER_MS 1000000ull

#define BUDGET_MIN (8ull << 20)
#define SCAN_MIN 4096ull              /* least that a shrinker is asked for */
#define BACKOFF_MIN_NS (5 * NS_PER_MS)
#define BACKOFF_MAX_NS (1000 * NS_PER_MS)
#define THROTTLE_PASSES 16u
#define THROTTLE_NAP_NS (20 * NS_PER_MS)
#define THROTTLE_MAX_NS (200 * NS_PER_MS)
#define TRIM_LIMIT (256ull << 20)
#define TRIM_PERIOD_NS (1000 * NS_PER_MS)
/* The first fruitless pass may have taken away second chances only. */
#define FRUITLESS_PASSES 3u

struct budget {
	/* Bytes. While they are being changed a reader may see old and new ones
	 * together, and one pass more or less is made [atomic, relaxed]. */
	_Atomic u64 limit;
	_Atomic u64 low;  /* reclaim starts above */
	_Atomic u64 goal; /* and ends at */
	struct counter *used[BUDGET_KINDS];
	struct rwsem scan;          /* see the head of the file */
	struct shrinker *shrinkers; /* [scan] */
	struct thread *thread;
	_Atomic bool kicked;  /* [atomic] the thread has work; its wait key */
	_Atomic bool stop;    /* [atomic] */
	_Atomic u32 waiters;  /* [atomic] throttled requests asleep; their key */
};

static const char *const kind_names[BUDGET_KINDS] = {
	[BUDGET_INODE] = "inodes",
	[BUDGET_BUFFER] = "buffers",
	[BUDGET_FOLIO] = "folios",
	[BUDGET_TREE] = "tree nodes",
	[BUDGET_INDEX] = "inode index",
};

/* This thread is inside a pass. */
static _Thread_local bool reclaiming_;

static u64 mark(const _Atomic u64 *bytes)
{
	return atomic_load_explicit(bytes, memory_order_relaxed);
}

u64 budget_limit(const struct budget *b)
{
	return mark(&b->limit);
}

u64 budget_used(const struct budget *b, enum budget_kind kind)
{
	s64 v = counter_sum(b->used[kind]);

	return v > 0 ? (u64)v : 0;
}

u64 budget_used_total(const struct budget *b)
{
	s64 sum = 0;

	/* Shares not yet folded may make one kind negative: add, then clip. */
	for (int k = 0; k < BUDGET_KINDS; k++)
		sum += counter_read_fast(b->used[k]);
	return sum > 0 ? (u64)sum : 0;
}

/*
 * What is held against the limit. Index memory above half of it is left out:
 * no pass could make up for it, and every request would wait in vain.
 */
static u64 budget_load(const struct budget *b)
{
	u64 total = budget_used_total(b);
	s64 index;

	if (likely(total <= mark(&b->goal)))
		return total;
	index = counter_read_fast(b->used[BUDGET_INDEX]) - (s64)(mark(&b->limit) / 2);
	return index > 0 ? total - min_of((u64)index, total) : total;
}

bool budget_is_full(const struct budget *b)
{
	return budget_load(b) > mark(&b->limit);
}

static void budget_kick(struct budget *b)
{
	if (atomic_load_explicit(&b->kicked, memory_order_relaxed))
		return;
	if (!atomic_exchange(&b->kicked, true))
		wake_up(&b->kicked);
}

void budget_charge(struct budget *b, enum budget_kind kind, s64 bytes)
{
	counter_add(b->used[kind], bytes);
	if (unlikely(budget_load(b) > mark(&b->low)))
		budget_kick(b);
}

void budget_uncharge(struct budget *b, enum budget_kind kind, s64 bytes)
{
	counter_add(b->used[kind], -bytes);
	/*
	 * A waiter that we miss here (it counts itself between our two steps)
	 * wakes by its deadline at the latest.
	 */
	if (unlikely(atomic_load(&b->waiters)) &&
	    budget_load(b) <= mark(&b->limit))
		wake_up(&b->waiters);
}

/* part/whole of need, without overflow. */
static u64 proportion(u64 need, u64 part, u64 whole)
{
	if (need == UINT64_MAX || whole == 0)
		return need;
	return (u64)((unsigned __int128)need * part / whole);
}

/* Asks those who are to go first for all of `need`. */
static u64 reclaim_first(struct budget *b, u64 need)
{
	u64 freed = 0;

	for (struct shrinker *s = b->shrinkers; s && freed < need; s = s->next)
		if (s->first)
			freed += s->scan(s, need - freed);
	return freed;
}

/* Then every shrinker once for its share of the rest; returns what was freed. */
static u64 reclaim_pass(struct budget *b, u64 need)
{
	u64 use[BUDGET_KINDS] = { 0 };
	u32 nr[BUDGET_KINDS] = { 0 };
	u64 total = 0;
	u64 freed = 0;

	reclaiming_ = true;
	rwsem_down_read(&b->scan);
	for (struct shrinker *s = b->shrinkers; s; s = s->next)
		nr[s->kind]++;
	for (int k = 0; k < BUDGET_KINDS; k++) {
		if (nr[k])
			use[k] = budget_used(b, k);
		total += use[k];
	}
	freed = reclaim_first(b, need);
	if (freed >= need)
		goto out;
	if (need != UINT64_MAX)
		need -= freed;
	for (struct shrinker *s = b->shrinkers; s; s = s->next) {
		u64 share = proportion(need, use[s->kind], total);

		/* A kind's unfolded shares may hide the little it holds. */
		if (need != UINT64_MAX)
			share /= nr[s->kind];
		freed += s->scan(s, max_of(share, (u64)SCAN_MIN));
	}
out:
	rwsem_up_read(&b->scan);
	reclaiming_ = false;
	return freed;
}

/* Passes down to the goal. When they free nothing, sleeps longer and longer. */
static void reclaim_to_goal(struct budget *b)
{
	u64 backoff = BACKOFF_MIN_NS;
	u32 fruitless = 0;

	while (!atomic_load(&b->stop)) {
		u64 used = budget_load(b), goal = mark(&b->goal);

		if (used <= goal)
			return;
		if (reclaim_pass(b, used - goal)) {
			backoff = BACKOFF_MIN_NS;
			fruitless = 0;
			continue;
		}
		if (++fruitless < FRUITLESS_PASSES)
			continue;
		/* Between goal and low mark there is no hurry: wait for a kick. */
		if (used <= mark(&b->low))
			return;
		(void)wait_event_deadline(&b->kicked, atomic_load(&b->stop),
					  clock_mono_ns() + backoff);
		backoff = min_of(backoff * 2, (u64)BACKOFF_MAX_NS);
	}
}

/*
 * What the passes freed lies in pieces among what is still used, and malloc
 * does not give pages back to the system by itself but at the end of its heap. It takes
 * the locks of the heap for a moment, so not often; and with a large cache the
 * pieces weigh little beside it, and are many.
 */
static void trim_heap(const struct budget *b, u64 *last_ns)
{
	u64 now = clock_mono_ns();

	if (mark(&b->limit) > TRIM_LIMIT || now - *last_ns < TRIM_PERIOD_NS)
		return;
	*last_ns = now;
	(void)malloc_trim(0);
}

static void reclaim_thread(void *arg)
{
	struct budget *b = arg;
	u64 trimmed_ns = 0;

	for (;;) {
		wait_event(&b->kicked, atomic_load(&b->kicked) ||
					       atomic_load(&b->stop));
		if (atomic_load(&b->stop))
			return;
		reclaim_to_goal(b);
		trim_heap(b, &trimmed_ns);
		/*
		 * A charge between the end of the passes and this store saw
		 * kicked set and woke nobody: look once more.
		 */
		atomic_store(&b->kicked, false);
		if (budget_load(b) > mark(&b->low))
			atomic_store(&b->kicked, true);
	}
}

/* All unfolded shares together: about a 64th of the limit. */
static s64 batch_for(u64 limit)
{
	u64 shares = (u64)thread_nr_cpus() * BUDGET_KINDS;

	return (s64)min_of(max_of(limit / 64 / shares, (u64)4096),
			   (u64)256 << 10);
}

static u64 set_marks(struct budget *b, u64 limit)
{
	limit = max_of(limit, (u64)BUDGET_MIN);
	atomic_store_explicit(&b->limit, limit, memory_order_relaxed);
	atomic_store_explicit(&b->low, limit - limit / 8, memory_order_relaxed);
	atomic_store_explicit(&b->goal, limit - limit / 8 - limit / 16,
			      memory_order_relaxed);
	return limit;
}

int budget_create(u64 limit, struct budget **out)
{
	struct budget *b;
	int k;
	int error = -ENOMEM;

	b = calloc(1, sizeof(*b));
	if (!b)
		return -ENOMEM;
	rwsem_init(&b->scan, RANK_NONE);
	limit = set_marks(b, limit);
	for (k = 0; k < BUDGET_KINDS; k++) {
		b->used[k] = counter_new(0, batch_for(limit));
		if (!b->used[k])
			goto out_counters;
	}
	error = thread_create(&b->thread, "reclaim", reclaim_thread, b);
	if (error)
		goto out_counters;
	*out = b;
	return 0;

out_counters:
	while (k-- > 0)
		counter_free(b->used[k]);
	rwsem_destroy(&b->scan);
	free(b);
	return error;
}

u64 budget_set_limit(struct budget *b, u64 limit)
{
	limit = set_marks(b, limit);
	for (int k = 0; k < BUDGET_KINDS; k++)
		counter_set_batch(b->used[k], batch_for(limit));
	if (budget_load(b) > mark(&b->low))
		budget_kick(b);
	if (atomic_load(&b->waiters))
		wake_up(&b->waiters);
	return limit;
}

void budget_destroy(struct budget *b)
{
	if (!b)
		return;
	atomic_store(&b->stop, true);
	wake_up(&b->kicked);
	thread_join(b->thread);
	assert(!b->shrinkers);

	rcu_barrier(); /* objects may be uncharged as they are freed */
	for (int k = 0; k < BUDGET_KINDS; k++) {
		s64 left = counter_sum(b->used[k]);

		if (left)
			log_err("cache: %" PRId64 " bytes of %s still charged "
				"at unmount: a leak", left, kind_names[k]);
		counter_free(b->used[k]);
	}
	rwsem_destroy(&b->scan);
	free(b);
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

void budget_throttle(struct budget *b)
{
	u64 end;
	u32 fruitless = 0;

	if (likely(!budget_is_full(b)) || reclaiming_)
		return;
	thread_might_block();
	budget_kick(b);
	end = clock_mono_ns() + THROTTLE_MAX_NS;
	for (u32 pass = 0; pass < THROTTLE_PASSES; pass++) {
		u64 used = budget_load(b), limit = mark(&b->limit);
		u64 now;

		if (used <= limit)
			return;
		/* A little more than is due, so that the next one passes. */
		if (reclaim_pass(b, used - limit + limit / 64)) {
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
					  budget_load(b) <= mark(&b->limit),
					  min_of(now + THROTTLE_NAP_NS, end));
		atomic_fetch_sub(&b->waiters, 1);
	}
	if (fruitless)
		log_ratelimited(LOG_LVL_DEBUG,
				"cache: %" PRIu64 " of %" PRIu64 " bytes used "
				"and nothing to free; request goes on",
				budget_used_total(b), mark(&b->limit));
}

u64 budget_drop_all(struct budget *b)
{
	u64 freed = 0;

	if (reclaiming_)
		return 0;
	for (u32 fruitless = 0, pass = 0; fruitless < 2 && pass < 1000;
	     pass++) {
		u64 n = reclaim_pass(b, UINT64_MAX);

		fruitless = n ? 0 : fruitless + 1;
		freed += n;
	}
	return freed;
}

/* Every shrinker of the kind once. */
static u64 drop_pass(struct budget *b, enum budget_kind kind)
{
	u64 freed = 0;

	reclaiming_ = true;
	rwsem_down_read(&b->scan);
	for (struct shrinker *s = b->shrinkers; s; s = s->next)
		if (s->kind == kind)
			freed += s->scan(s, UINT64_MAX);
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
	for (u32 fruitless = 0, pass = 0; fruitless < 2 && pass < 1000;
	     pass++) {
		u64 n = drop_pass(b, kind);

		fruitless = n ? 0 : fruitless + 1;
		freed += n;
	}
	return freed;
}
