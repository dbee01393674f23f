/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lib/wordlock.c - a lock in one word: the core of struct mutex and struct spinlock
 *
 * The waiting; lib/wordlock.h has the rules.
 *
 * Locks:   none of its own
 * Threads: any
 * Source:  U. Drepper, "Futexes Are Tricky", mutex2
 */
#include "lib/wordlock.h"

#include "lib/futex.h"
#include "lib/thread.h"

#define SPINS 60

static bool spin_for(struct word_lock *l)
{
	if (thread_nr_cpus() == 1)
		return false;
	for (int i = 0; i < SPINS; i++) {
		if (word_lock_is_free(l) && word_lock_try(l))
			return true;
		cpu_relax();
	}
	return false;
}

void word_lock_wait(struct word_lock *l, bool spin)
{
	if (spin && spin_for(l))
		return;
	while (atomic_exchange_explicit(&l->word, WORD_WANTED,
					memory_order_acquire) != WORD_FREE)
		futex_wait(&l->word, WORD_WANTED, 0);
}

void word_lock_wake(struct word_lock *l)
{
	futex_wake(&l->word);
}
