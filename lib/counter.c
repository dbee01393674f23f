/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lib/counter.c - counters that many CPUs change and few read
 *
 * value = total + the sum of the shares; each share stays in [-batch, batch],
 * on a cache line of its own with a lock that only a migrated or preempted
 * neighbour contends for. Any change is made under the lock of one share, or
 * of all of them.
 *
 * Why the fast path of counter_sub_unless_below() is exact. It holds its own
 * share and reads total >= floor + amount + slack. Before it subtracts, each
 * of the n - 1 other shares may complete operations that looked at total as
 * well; each such look saw total >= floor + slack, so below that total can be
 * carried only by one fold in flight per share, of 2 * batch at most (amount
 * <= batch). The shares hide n * batch at most. With slack = 3 * n * batch the
 * value cannot pass the floor. A plain counter_add() in between obeys no floor
 * and counts as coming after. Nearer to the floor all shares are locked.
 *
 * Locks:   share locks, without a rank (RANK_STATS in spirit):
 *          nothing is called inside; several ascending, all or one
 * Threads: any. Values, batch and floor stay within +-2^60.
 */
#include "lib/counter.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "lib/thread.h"
#include "lib/wordlock.h"

struct counter_share {
	struct word_lock lock;
	_Atomic s64 value; /* [write lock] */
} __cacheline_aligned;

struct counter {
	_Atomic s64 total; /* [write any share's lock, or a part's; by fetch_add] */
	struct counter *whole; /* [const] or NULL: what is folded counts there too */
	_Atomic s64 batch; /* [write all shares' locks] */
	_Atomic s64 slack; /* [write all shares' locks] see the top */
	unsigned nr;	   /* [const] shares */
	struct counter_share share[];
};

static void set_batch(struct counter *c, s64 batch)
{
	assert(batch >= 0);
	atomic_store_explicit(&c->batch, batch, memory_order_relaxed);
	atomic_store_explicit(&c->slack, 3 * batch * (s64)c->nr,
			      memory_order_relaxed);
}

struct counter *counter_new(s64 initial, s64 batch)
{
	unsigned nr = thread_nr_cpus();
	size_t size = sizeof(struct counter) +
		      nr * sizeof(struct counter_share);
	struct counter *c;

	size = ALIGN_UP(size, _Alignof(struct counter));
	c = aligned_alloc(_Alignof(struct counter), size);
	if (!c)
		return NULL;
	atomic_init(&c->total, initial);
	c->whole = NULL;
	c->nr = nr;
	set_batch(c, batch);
	for (unsigned i = 0; i < nr; i++)
		c->share[i] = (struct counter_share){ 0 };
	return c;
}

struct counter *counter_new_part(struct counter *whole, s64 batch)
{
	struct counter *c = counter_new(0, batch);

	if (c)
		c->whole = whole;
	return c;
}

void counter_free(struct counter *c)
{
	free(c);
}

static struct counter_share *share_lock(struct counter *c)
{
	struct counter_share *s = &c->share[thread_cpu()];

	word_lock_take(&s->lock);
	return s;
}

static void share_unlock(struct counter_share *s)
{
	word_lock_drop(&s->lock);
}

static void fold(struct counter *c, s64 v)
{
	atomic_fetch_add_explicit(&c->total, v, memory_order_relaxed);
	if (c->whole)
		atomic_fetch_add_explicit(&c->whole->total, v,
					  memory_order_relaxed);
}

/* Relaxed throughout: the share's lock orders; bare readers want a number. */
static void share_add_locked(struct counter *c, struct counter_share *s,
			     s64 delta)
{
	s64 v = atomic_load_explicit(&s->value, memory_order_relaxed) + delta;
	s64 batch = atomic_load_explicit(&c->batch, memory_order_relaxed);

	if (v > batch || v < -batch) {
		fold(c, v);
		v = 0;
	}
	atomic_store_explicit(&s->value, v, memory_order_relaxed);
}

void counter_add(struct counter *c, s64 delta)
{
	struct counter_share *s = share_lock(c);

	share_add_locked(c, s, delta);
	share_unlock(s);
}

s64 counter_read_fast(const struct counter *c)
{
	return atomic_load_explicit(&c->total, memory_order_relaxed);
}

s64 counter_unfolded(const struct counter *c)
{
	s64 sum = 0;

	for (unsigned i = 0; i < c->nr; i++)
		sum += atomic_load_explicit(&c->share[i].value,
					    memory_order_relaxed);
	return sum;
}

s64 counter_sum(const struct counter *c)
{
	return counter_read_fast(c) + counter_unfolded(c);
}

/* True: done. False: too near to the floor to say without the other shares. */
static bool sub_fast(struct counter *c, s64 amount, s64 floor)
{
	struct counter_share *s;
	bool ok;

	if (amount < 0)
		return false;
	s = share_lock(c);
	ok = amount <= atomic_load_explicit(&c->batch, memory_order_relaxed) &&
	     atomic_load_explicit(&c->total, memory_order_relaxed) >=
		     floor + amount +
		     atomic_load_explicit(&c->slack, memory_order_relaxed);
	if (ok)
		share_add_locked(c, s, -amount);
	share_unlock(s);
	return ok;
}

/* All shares' locks; all shares are 0 then. Returns the value. */
static s64 fold_and_lock_all(struct counter *c)
{
	for (unsigned i = 0; i < c->nr; i++)
		word_lock_take(&c->share[i].lock);
	fold(c, counter_unfolded(c));
	for (unsigned i = 0; i < c->nr; i++)
		atomic_store_explicit(&c->share[i].value, 0,
				      memory_order_relaxed);
	return counter_read_fast(c);
}

static void unlock_all(struct counter *c)
{
	for (unsigned i = 0; i < c->nr; i++)
		word_lock_drop(&c->share[i].lock);
}

bool counter_sub_unless_below(struct counter *c, s64 amount, s64 floor)
{
	s64 total;
	bool ok;

	assert(!c->whole);
	if (sub_fast(c, amount, floor))
		return true;

	total = fold_and_lock_all(c);
	ok = total - amount >= floor;
	if (ok)
		atomic_store_explicit(&c->total, total - amount,
				      memory_order_relaxed);
	unlock_all(c);
	return ok;
}

void counter_set_batch(struct counter *c, s64 batch)
{
	(void)fold_and_lock_all(c);
	set_batch(c, batch);
	unlock_all(c);
}

/* ---- sets ---- */

struct counter_set {
	unsigned nr;	 /* [const] counters */
	unsigned stride; /* [const] of one CPU's, with what fills its last line */
	_Atomic u64 value[] __cacheline_aligned; /* [atomic] */
};

struct counter_set *counter_set_new(unsigned nr)
{
	const unsigned line = _Alignof(struct counter_set) / sizeof(u64);
	unsigned stride = ALIGN_UP(max_of(nr, 1u), line);
	size_t size = sizeof(struct counter_set) +
		      (size_t)thread_nr_cpus() * stride * sizeof(u64);
	struct counter_set *set;

	size = ALIGN_UP(size, _Alignof(struct counter_set));
	set = aligned_alloc(_Alignof(struct counter_set), size);
	if (!set)
		return NULL;
	memset(set, 0, size);
	set->nr = nr;
	set->stride = stride;
	return set;
}

void counter_set_free(struct counter_set *set)
{
	free(set);
}

void counter_set_add(struct counter_set *set, unsigned i, u64 n)
{
	assert(i < set->nr);
	/* relaxed: statistics. Atomic, for the thread may be moved meanwhile. */
	atomic_fetch_add_explicit(&set->value[thread_cpu() * set->stride + i], n,
				  memory_order_relaxed);
}

void counter_set_read(const struct counter_set *set, u64 *sums)
{
	unsigned cpus = thread_nr_cpus();

	for (unsigned i = 0; i < set->nr; i++) {
		sums[i] = 0;
		for (unsigned cpu = 0; cpu < cpus; cpu++)
			sums[i] += atomic_load_explicit(
				&set->value[cpu * set->stride + i],
				memory_order_relaxed);
	}
}
