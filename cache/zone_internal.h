/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/zone_internal.h - what budget.c, zone.c and shrinker.c share
 *
 *   budget.c    counting, marks, who has to free how much; direct reclaim
 *   zone.c      which zones there are; their threads; statistics
 *   shrinker.c  the list of shrinkers, and passes over it
 */
#ifndef SLUICE_CACHE_ZONE_INTERNAL_H
#define SLUICE_CACHE_ZONE_INTERNAL_H

#include "cache/shrinker.h"
#include "cache/zone.h"
#include "lib/counter.h"
#include "lib/lock.h"
#include "lib/thread.h"
#include "lib/wait.h"

#include <stdatomic.h>

#define NS_PER_MS 1000000ull
/* The first fruitless pass may have taken away second chances only. */
#define FRUITLESS_PASSES 3u

enum reclaim_by { BY_THREAD, BY_REQUEST, RECLAIM_BY };

struct zone {
	struct budget *budget;  /* [const] */
	u32 nr;                 /* [const] */
	int node;               /* [const] NUMA node, -1: pretended */
	struct counter *used[BUDGET_KINDS]; /* [const] parts of the budget's */
	struct thread *thread;  /* [const] */
	_Atomic bool kicked;    /* [atomic] the thread has work; its wait key */
	/* statistics, written once in a pass [atomic] */
	_Atomic u64 reclaimed[RECLAIM_BY], passes, scanned, rotated;
} __cacheline_aligned;

struct budget {
	/* Bytes; see budget.h. While they are being changed a reader may see old
	 * and new ones together, and one pass more or less is made [atomic, relaxed]. */
	_Atomic u64 limit, min, low, goal;
	struct counter *used[BUDGET_KINDS]; /* of all zones and of none [const] */
	struct rwsem scan;          /* shared around passes; unranked, as scans
				       call upwards into evict_inode() */
	struct shrinker *shrinkers; /* [scan] */
	_Atomic bool stop;    /* [atomic] */
	_Atomic bool unfair;  /* [atomic] zones above their share have nothing to
				 free: all of them are to */
	_Atomic u32 awake;    /* [atomic] zones that are kicked */
	_Atomic u32 waiters;  /* [atomic] throttled requests asleep; their key */
	_Atomic u64 trimmed_ns; /* [atomic] when the heap was trimmed last */
	u32 nr_zones;         /* [const] */
	bool pretended;       /* [const] */
	u32 nr_cpus;          /* of cpu_zone [const] */
	u8 *cpu_zone;         /* zone of each CPU; NULL: there is one zone [const] */
	int *nodes;           /* see zone_nodes() [const] */
	struct zone zones[];
};

extern const char *const budget_kind_names[BUDGET_KINDS];

static inline u64 budget_mark(const _Atomic u64 *bytes)
{
	return atomic_load_explicit(bytes, memory_order_relaxed);
}

/* ---- budget.c ---- */

/* What is held against the marks. */
u64 budget_load(const struct budget *b);
struct load {
	u64 sum;     /* budget_load() */
	u64 of_none; /* of this, what is of no zone */
};
void budget_take_load(const struct budget *b, struct load *l);
/* What a zone has to free at that load so that the sum comes down to the goal: nothing,
 * if it is there, or if others are above their share and this one is not. */
u64 zone_due(const struct zone *z, const struct load *l);

/* ---- zone.c ---- */

/* How many zones there are to be, for budget_create(). */
u32 zones_plan(u32 asked);
/* The zones of a zeroed budget that has its counters: 0 or an error, with
 * nothing left. Then they are started; zones_stop() ends the threads. */
int __must_check zones_init(struct budget *b, u32 asked, s64 batch);
void zones_destroy(struct budget *b);
int __must_check zones_start(struct budget *b);
void zones_stop(struct budget *b);
/* The sum is above the low mark: starts who has to do something. z: where it
 * grew just now, or NULL. */
void zones_kick(struct budget *b, struct zone *z);

/* ---- shrinker.c ---- */

/* Asks the shrinkers for `need` bytes of a zone; returns what was freed. */
u64 reclaim_pass(struct zone *z, u64 need, enum reclaim_by by);
void shrinkers_trim(struct budget *b);
/* This thread is inside a pass: a pass in a pass is refused. */
bool reclaim_is_nested(void);

#endif
