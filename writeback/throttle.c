/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * writeback/throttle.c - holds writers back as dirty data nears its limit
 *
 * The price of a MiB doubles with each eleventh of the way from the start mark
 * to the limit:
 *
 *   pause per MiB
 *   200 ms |                                      |
 *          |                                     .|
 *          |                                   .  |
 *          |                              .       |
 *   0.1 ms |_____________________. . .            |
 *          0     background    start            limit   dirty bytes
 *
 * No speed is measured. Dirty data grows until the price makes writers as slow
 * as the device is: 0.1 ms and 200 ms for a MiB are 10 GB/s and 5 MB/s for one
 * writer, and the more writers there are, the more each pays. A device of any speed
 * finds its place between the marks, and a writer is held back in proportion
 * to what it writes itself.
 *
 * A few KiB cost less than a sleep can be short. So prices are added up for
 * each inode, and paid once they make a pause worth the while.
 *
 * The limit is kept whatever the prices: at it, writers take a number. Only the
 * one whose turn it is looks whether there is room (in short steps: blocks
 * leave WRITEBACK without a word to us), so none is overtaken for ever.
 *
 * Locks:   none; waits by lib/wait.h
 * Alive:   from throttle_create() to throttle_free(), which comes after the
 *          last writer has left
 * Never:   a wait for a volume that is read-only
 * Threads: any
 */
#include "writeback/throttle.h"

#include "cache/icache.h"
#include "lib/counter.h"
#include "lib/thread.h"
#include "lib/wait.h"

#include <stdatomic.h>
#include <stdlib.h>

#define MS 1000000ull
#define PRICE_MIN_NS (MS / 10) /* of a MiB, at the start mark */
#define DOUBLINGS 11u          /* from there to the limit: 205 ms */
#define PAUSE_MIN_US 2000u     /* less is not worth a sleep */
#define STEP_MIN_MS 2u
#define STEP_MAX_MS 20u

struct throttle {
	struct super_block *sb;    /* [const] */
	_Atomic u64 start, limit;  /* bytes [atomic]; both new or not, while they change */
	void (*urge)(void *priv);  /* [const] */
	void *priv;                /* [const] */
	_Atomic bool stop;         /* [atomic] */
	_Atomic u64 progress;      /* [atomic] key of all who wait */
	_Atomic u64 tickets;       /* [atomic] numbers given out at the limit */
	_Atomic u64 turn;          /* [atomic] whose turn it is */
	_Atomic u64 pauses, at_limit, pause_ns, longest_ns; /* [atomic] */
};

void throttle_set_marks(struct throttle *t, u64 background, u64 limit)
{
	atomic_store(&t->start, background + (limit - background) / 2);
	atomic_store(&t->limit, limit);
	throttle_progress(t);
}

int throttle_create(struct super_block *sb, u64 background, u64 limit,
		    void (*urge)(void *priv), void *priv, struct throttle **out)
{
	struct throttle *t;

	if (!limit || background > limit)
		return -EINVAL;
	t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->sb = sb;
	throttle_set_marks(t, background, limit);
	t->urge = urge;
	t->priv = priv;
	*out = t;
	return 0;
}

void throttle_free(struct throttle *t)
{
	free(t);
}

void throttle_progress(struct throttle *t)
{
	atomic_fetch_add(&t->progress, 1);
	wake_up(&t->progress);
}

void throttle_stop(struct throttle *t)
{
	atomic_store(&t->stop, true);
	throttle_progress(t);
}

bool throttle_at_limit(const struct throttle *t)
{
	return atomic_load(&t->tickets) != atomic_load(&t->turn);
}

static bool is_over(const struct throttle *t)
{
	return atomic_load(&t->stop) || atomic_load(&t->sb->s_rdonly);
}

static u64 dirty_now(const struct throttle *t)
{
	s64 dirty = counter_read_fast(t->sb->s_dirty_bytes);

	return dirty > 0 ? (u64)dirty : 0;
}

static void account(struct throttle *t, _Atomic u64 *what, u64 since)
{
	u64 ns = clock_mono_ns() - since;
	u64 longest = atomic_load(&t->longest_ns);

	atomic_fetch_add(what, 1);
	atomic_fetch_add(&t->pause_ns, ns);
	while (longest < ns && !atomic_compare_exchange_weak(&t->longest_ns,
							     &longest, ns))
		;
}

/* ---- below the limit ---- */

u64 throttle_pause_ns(const struct throttle *t, u64 dirty, u64 bytes)
{
	u64 start = atomic_load(&t->start), limit = atomic_load(&t->limit);
	u64 way, at, price;

	if (dirty <= start || limit <= start)
		return 0;
	way = limit - start;
	/* In 256ths of a doubling; between two doublings a straight line. */
	at = min_of(dirty - start, way);
	at = (u64)((unsigned __int128)at * DOUBLINGS * 256 / way);
	price = PRICE_MIN_NS << (at / 256);
	price += price * (at % 256) / 256;
	/* 2^30 bytes at the highest price are well within 64 bits. */
	price = price * min_of(bytes, 1ul << 30) >> 20;
	return min_of(price, THROTTLE_PAUSE_MAX_MS * MS);
}

static void pause_for(struct throttle *t, u64 ns)
{
	u64 begin = clock_mono_ns();

	/* Over early when the pressure is gone. */
	(void)wait_event_deadline(&t->progress,
				  is_over(t) || dirty_now(t) <= t->start,
				  begin + ns);
	account(t, &t->pauses, begin);
}

static void pay(struct throttle *t, struct inode *inode, u64 bytes)
{
	u32 us = (u32)(throttle_pause_ns(t, dirty_now(t), bytes) / 1000);
	u64 due;

	if (!us)
		return;
	if (atomic_fetch_add(&inode->i_pause_us, us) + us < PAUSE_MIN_US)
		return;
	/* One of several writers of the inode pays for all. */
	due = atomic_exchange(&inode->i_pause_us, 0) * 1000ull;
	if (due)
		pause_for(t, min_of(due, THROTTLE_PAUSE_MAX_MS * MS));
}

/* ---- at the limit ---- */

/* Exact: what all the writers look at near the limit. */
static bool has_room(const struct throttle *t, u64 bytes)
{
	u64 limit = atomic_load(&t->limit);
	s64 dirty = counter_sum(t->sb->s_dirty_bytes);

	limit -= min_of(bytes, limit / 2);
	return dirty <= 0 || (u64)dirty <= limit;
}

static bool my_turn(const struct throttle *t, u64 ticket)
{
	return atomic_load(&t->turn) == ticket;
}

/* Every ticket is waited for in turn, also after the stop: then at once. */
static void wait_for_room(struct throttle *t, u64 bytes)
{
	u64 begin = clock_mono_ns(), ticket;
	u32 step_ms = STEP_MIN_MS;

	ticket = atomic_fetch_add(&t->tickets, 1);
	while (!my_turn(t, ticket))
		(void)wait_event_deadline(&t->progress, my_turn(t, ticket),
					  clock_mono_ns() +
						  THROTTLE_PAUSE_MAX_MS * MS);
	while (!is_over(t) && !has_room(t, bytes)) {
		u64 seen = atomic_load(&t->progress);

		t->urge(t->priv);
		(void)wait_event_deadline(&t->progress,
					  atomic_load(&t->progress) != seen,
					  clock_mono_ns() + step_ms * MS);
		step_ms = min_of(2 * step_ms, STEP_MAX_MS);
	}
	atomic_fetch_add(&t->turn, 1);
	throttle_progress(t);
	account(t, &t->at_limit, begin);
}

void throttle_wait(struct throttle *t, struct inode *inode, u64 bytes)
{
	u64 after = dirty_now(t) + bytes;

	if (likely(after <= t->start) || is_over(t))
		return;
	if (after > t->limit && (throttle_at_limit(t) || !has_room(t, bytes)))
		wait_for_room(t, bytes);
	else
		pay(t, inode, bytes);
}

void throttle_get_stats(const struct throttle *t, struct throttle_stats *st)
{
	st->pauses = atomic_load(&t->pauses);
	st->at_limit = atomic_load(&t->at_limit);
	st->pause_ns = atomic_load(&t->pause_ns);
	st->longest_ns = atomic_load(&t->longest_ns);
	st->waiting = atomic_load(&t->tickets) - atomic_load(&t->turn);
}
