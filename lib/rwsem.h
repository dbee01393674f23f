/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lib/rwsem.h - the reader/writer lock below struct rwsem of lib/lock.h
 *
 * Many share it, or one has it alone. Who finds it free takes it, also past others
 * that wait, so that a lock is never idle because the next in line has no CPU.
 * But nobody waits long for that: once the first in line has waited for
 * RWSEM_PATIENCE_NS, nobody passes it any more, neither readers a writer nor
 * writers a reader. Readers that follow each other in line come in together.
 *
 * No recursion, no upgrade; released by any thread. Valid when zeroed. Who
 * releases it keeps it in memory until the call has returned.
 * Locks: a small one of its own. Threads: any. A wait calls thread_blocks_begin().
 */
#ifndef SLUICE_LIB_RWSEM_H
#define SLUICE_LIB_RWSEM_H

#include "lib/types.h"
#include "lib/wordlock.h"

#include <assert.h>
#include <stdatomic.h>

#define RWSEM_PATIENCE_NS 2000000ull

struct rwsem_waiter;

struct rwsem_raw {
	_Atomic u32 word;  /* who has it, who wants it [atomic] */
	struct word_lock qlock;
	struct rwsem_waiter *head, *tail; /* [qlock] in line */
};

/* Bits of the word; see rwsem.c. */
#define RWSEM_WRITER 1u
#define RWSEM_WAITERS 2u
#define RWSEM_HANDOFF 4u
#define RWSEM_WOKEN 8u
#define RWSEM_READER 16u /* one of them; so many fit that no program has them */

/*
 * Never waits. Acquire, where it succeeds, in these and in take_from_line(): pairs
 * with the release of the drops.
 */
static inline bool rwsem_raw_try_read(struct rwsem_raw *rw)
{
	u32 w = atomic_load_explicit(&rw->word, memory_order_relaxed);

	while (!(w & (RWSEM_WRITER | RWSEM_HANDOFF)))
		if (atomic_compare_exchange_weak_explicit(&rw->word, &w,
							  w + RWSEM_READER,
							  memory_order_acquire,
							  memory_order_relaxed))
			return true;
	return false;
}

static inline bool rwsem_raw_try_write(struct rwsem_raw *rw)
{
	u32 w = atomic_load_explicit(&rw->word, memory_order_relaxed);

	while (!(w & (RWSEM_WRITER | RWSEM_HANDOFF)) && w < RWSEM_READER)
		if (atomic_compare_exchange_weak_explicit(&rw->word, &w,
							  w | RWSEM_WRITER,
							  memory_order_acquire,
							  memory_order_relaxed))
			return true;
	return false;
}

/* Waits; for who has tried. */
void rwsem_raw_wait(struct rwsem_raw *rw, bool write);
/* For the drops: wakes the first in line. */
void rwsem_raw_wake(struct rwsem_raw *rw);

static inline void rwsem_raw_up_read(struct rwsem_raw *rw)
{
	u32 w = atomic_fetch_sub_explicit(&rw->word, RWSEM_READER,
					  memory_order_release) - RWSEM_READER;

	if (unlikely(w < RWSEM_READER &&
		     (w & (RWSEM_WAITERS | RWSEM_WOKEN)) == RWSEM_WAITERS))
		rwsem_raw_wake(rw);
}

static inline void rwsem_raw_up_write(struct rwsem_raw *rw)
{
	/* Nobody else sets or clears the bit as long as we have the lock. */
	u32 w = atomic_fetch_sub_explicit(&rw->word, RWSEM_WRITER,
					  memory_order_release);

	assert(w & RWSEM_WRITER);
	if (unlikely((w & (RWSEM_WAITERS | RWSEM_WOKEN)) == RWSEM_WAITERS))
		rwsem_raw_wake(rw);
}

/* Nobody has it or waits for it. */
bool rwsem_raw_is_idle(const struct rwsem_raw *rw);

#endif
