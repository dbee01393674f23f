/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/lru.c - lists of what can be reclaimed, by zone, the oldest first
 *
 * Locks:   one list at a time. isolate() may trylock what ranks outside of it.
 * Threads: any
 */
#include "cache/lru.h"
#include "lib/wait.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

struct lru {
	u32 zones;            /* [const] */
	u32 lists;            /* of each zone [const] */
	_Atomic u32 cursor;   /* list the next scan begins at [atomic] */
	struct lru_list list[];
};

struct lru *lru_new(u32 zones, u32 lists)
{
	size_t nr = (size_t)zones * lists;
	struct lru *lru = aligned_alloc(
		_Alignof(struct lru),
		ALIGN_UP(sizeof(*lru) + nr * sizeof(lru->list[0]),
			 _Alignof(struct lru)));

	assert(nr);
	if (!lru)
		return NULL;
	lru->zones = zones;
	lru->lists = lists;
	atomic_init(&lru->cursor, 0);
	for (size_t i = 0; i < nr; i++) {
		spin_init(&lru->list[i].lock, RANK_CACHE_LIST);
		CDS_INIT_LIST_HEAD(&lru->list[i].list);
		atomic_init(&lru->list[i].nr, 0);
		lru->list[i].waits = lru->list[i].wait_ns = 0;
	}
	return lru;
}

void lru_free(struct lru *lru)
{
	if (!lru)
		return;
	for (size_t i = 0; i < (size_t)lru->zones * lru->lists; i++)
		spin_destroy(&lru->list[i].lock);
	free(lru);
}

struct lru_list *lru_list_of(struct lru *lru, u32 zone, u64 hash)
{
	assert(zone < lru->zones);
	return &lru->list[zone * lru->lists + hash % lru->lists];
}

void lru_lock(struct lru_list *l)
{
	u64 start;

	assert_rank_below(RANK_CACHE_LIST); /* a trylock checks nothing */
	if (likely(spin_trylock(&l->lock)))
		return;
	start = clock_mono_ns();
	spin_lock(&l->lock);
	l->waits++;
	l->wait_ns += clock_mono_ns() - start;
}

void lru_unlock(struct lru_list *l)
{
	spin_unlock(&l->lock);
}

/* relaxed: the lock orders; bare readers want a number */
static void count(struct lru_list *l, s64 delta)
{
	u64 nr = atomic_load_explicit(&l->nr, memory_order_relaxed);

	atomic_store_explicit(&l->nr, nr + (u64)delta, memory_order_relaxed);
}

void lru_add_locked(struct lru_list *l, struct cds_list_head *item)
{
	assert_spin_held(&l->lock);
	cds_list_add_tail(item, &l->list);
	count(l, 1);
}

void lru_del_locked(struct lru_list *l, struct cds_list_head *item)
{
	assert_spin_held(&l->lock);
	cds_list_del(item);
	count(l, -1);
}

void lru_add(struct lru_list *l, struct cds_list_head *item)
{
	lru_lock(l);
	lru_add_locked(l, item);
	lru_unlock(l);
}

void lru_del(struct lru_list *l, struct cds_list_head *item)
{
	lru_lock(l);
	lru_del_locked(l, item);
	lru_unlock(l);
}

u64 lru_nr(const struct lru *lru, u32 zone)
{
	u64 nr = 0;

	for (u32 i = 0; i < lru->lists; i++)
		nr += atomic_load_explicit(&lru->list[zone * lru->lists + i].nr,
					   memory_order_relaxed);
	return nr;
}

u64 lru_waits(struct lru *lru, u32 zone, u64 *ns)
{
	u64 waits = 0;

	*ns = 0;
	for (u32 i = 0; i < lru->lists; i++) {
		struct lru_list *l = &lru->list[zone * lru->lists + i];

		spin_lock(&l->lock);
		waits += l->waits;
		*ns += l->wait_ns;
		spin_unlock(&l->lock);
	}
	return waits;
}

/* The `look` oldest of one list. */
static void isolate_some(struct lru_list *l, u32 look, struct lru_scan *s)
{
	enum lru_verdict verdict;

	lru_lock(l);
	while (look-- && !cds_list_empty(&l->list)) {
		struct cds_list_head *item = l->list.next;

		s->scanned++;
		lru_del_locked(l, item);
		verdict = s->isolate(item, s);
		s->rotated += verdict == LRU_ROTATED;
		if (verdict != LRU_REMOVED)
			lru_add_locked(l, item);
	}
	lru_unlock(l);
}

/* False: enough. */
static bool shrink_list(struct lru_list *l, struct lru_scan *s)
{
	u64 left = atomic_load_explicit(&l->nr, memory_order_relaxed);

	while (left) {
		u32 look = (u32)min_of(left, (u64)LRU_BATCH);

		left -= look;
		isolate_some(l, look, s);
		if (!s->dispose(s))
			return false;
	}
	return true;
}

void lru_shrink(struct lru *lru, u32 zone, struct lru_scan *s)
{
	u32 first = atomic_fetch_add_explicit(&lru->cursor, 1,
					      memory_order_relaxed);

	for (u32 i = 0; i < lru->lists; i++) {
		if (!shrink_list(lru_list_of(lru, zone, first % lru->lists + i), s))
			return;
	}
}
