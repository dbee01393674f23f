/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lib/wordlock.h - a lock in one word: the core of struct mutex and struct spinlock
 *
 * Free, it is taken by one compare-and-swap and dropped by one exchange, in line:
 * a metadata operation takes dozens of locks that next to nobody else wants, and
 * the calls around those two instructions cost more than they do. Who must wait
 * sleeps on a futex. Not fair: who comes first when it is dropped has it.
 *
 *     FREE --take--> TAKEN --somebody waits--> WANTED --drop, wakes one--> FREE
 *
 * No wake-up is lost. Who waits makes the word WANTED himself, again before each
 * sleep, and sleeps only while it is; and whoever drops it then wakes one. Who
 * has waited takes it as WANTED, since others may sleep still: so it is dropped
 * with a wake-up again, and the next one comes up.
 *
 * No recursion, no ranks (lib/lock.h has those). Valid when zeroed. Dropped, its
 * memory may go at once: what then follows only names the address to the kernel.
 * Locks: it is one. Threads: any.
 */
#ifndef SLUICE_LIB_WORDLOCK_H
#define SLUICE_LIB_WORDLOCK_H

#include "lib/types.h"

#include <assert.h>
#include <stdatomic.h>

enum { WORD_FREE, WORD_TAKEN, WORD_WANTED };

struct word_lock {
	_Atomic u32 word; /* one of those [atomic] */
};

static inline bool word_lock_try(struct word_lock *l)
{
	u32 expected = WORD_FREE;

	/* Acquire, as in word_lock_wait(): pairs with the release of the drop. */
	return atomic_compare_exchange_strong_explicit(&l->word, &expected, WORD_TAKEN,
						       memory_order_acquire,
						       memory_order_relaxed);
}

/* Takes it, for who has tried; spin: looks for some microseconds before it sleeps. */
void word_lock_wait(struct word_lock *l, bool spin);
/* For the drop. */
void word_lock_wake(struct word_lock *l);

static inline void word_lock_take(struct word_lock *l)
{
	if (unlikely(!word_lock_try(l)))
		word_lock_wait(l, true);
}

static inline void word_lock_drop(struct word_lock *l)
{
	u32 was = atomic_exchange_explicit(&l->word, WORD_FREE, memory_order_release);

	assert(was != WORD_FREE);
	if (unlikely(was == WORD_WANTED))
		word_lock_wake(l);
}

static inline bool word_lock_is_free(const struct word_lock *l)
{
	return atomic_load_explicit(&l->word, memory_order_relaxed) == WORD_FREE;
}

#endif
