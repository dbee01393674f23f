/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/lru.h - lists of what can be reclaimed, by zone, the oldest first
 *
 * Inodes, folios and metadata buffers use the same. Each zone has a few lists
 * with a lock each (as many as it has CPUs, up to 16), so that neither zones
 * nor the CPUs of one wait for each other. An object stays with one list for its
 * life; whether it is on it just now its owner knows.
 *
 * Insertion is lazy: what is on a list may be in use again. The scan finds out,
 * and the owner's isolate() says what becomes of the object.
 *
 * Locks: one per list, RANK_CACHE_LIST. isolate() is called under it and may only
 * trylock. Threads: any.
 */
#ifndef SLUICE_CACHE_LRU_H
#define SLUICE_CACHE_LRU_H

#include "lib/lock.h"
#include "lib/rcu.h"

struct lru;

struct lru_list {
	struct spinlock lock;      /* RANK_CACHE_LIST */
	struct cds_list_head list; /* [lock] head: the oldest */
	_Atomic u64 nr;            /* [write lock] */
	u64 waits, wait_ns;        /* how often and how long for the lock [lock] */
} __cacheline_aligned;

/* zones, and lists of each, at least 1. NULL: no memory. */
struct lru *lru_new(u32 zones, u32 lists);
/* NULL is allowed. What is still on a list must not be taken off after that. */
void lru_free(struct lru *lru);

/* The list of an object of that zone; hash: any number that stays with it. */
struct lru_list *lru_list_of(struct lru *lru, u32 zone, u64 hash);

/* As spin_lock() and spin_unlock(), and it counts the waits. */
void lru_lock(struct lru_list *l) ACQUIRE(&l->lock);
void lru_unlock(struct lru_list *l) RELEASE(&l->lock);

/* At the young end. The item is on no list. */
void lru_add(struct lru_list *l, struct cds_list_head *item);
void lru_del(struct lru_list *l, struct cds_list_head *item);
/* The same for who holds the lock, to decide under it. */
void lru_add_locked(struct lru_list *l, struct cds_list_head *item)
	REQUIRES(&l->lock);
void lru_del_locked(struct lru_list *l, struct cds_list_head *item)
	REQUIRES(&l->lock);

/* Objects on the lists of a zone; exact while nobody changes them. */
u64 lru_nr(const struct lru *lru, u32 zone);

/* Times that somebody waited for a lock of the zone's lists; *ns: how long. */
u64 lru_waits(struct lru *lru, u32 zone, u64 *ns);

enum lru_verdict {
	LRU_REMOVED, /* off the list; `item` is the owner's */
	LRU_ROTATED, /* a second chance: to the young end */
	LRU_BUSY,    /* not now: to the young end */
};

struct lru_scan {
	/* What becomes of the item, which is off the list. List locked. */
	enum lru_verdict (*isolate)(struct cds_list_head *item,
				    struct lru_scan *s);
	/* After some calls of isolate(), no lock held. False: enough. */
	bool (*dispose)(struct lru_scan *s);
	u64 scanned, rotated; /* added to: objects looked at, second chances */
};

/* At most so many calls of isolate() between two of dispose(). */
#define LRU_BATCH 32u

/*
 * Looks at each object of the zone once, oldest first on each list, until
 * dispose() says so. Ends however busy the objects are: each look counts, whatever
 * comes of it.
 */
void lru_shrink(struct lru *lru, u32 zone, struct lru_scan *s);

#endif
