/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lib/rwsem.c - the reader/writer lock below struct rwsem of lib/lock.h
 *
 * One word says who has the lock: WRITER, or a number of readers. To take it free, or
 * to share it, is one compare-and-swap, to drop it one subtraction. Who cannot
 * have it spins a moment, then stands in line and sleeps on a futex of its own.
 *
 *   WAITERS   somebody is in line: who drops the lock wakes the first
 *   WOKEN     ... has woken it, and it has not looked since: no need to again
 *   HANDOFF   the first has waited too long: only it may take the lock
 *
 * The first in line tries when it is woken. It may lose to somebody on a CPU, and
 * sleeps again, with a time limit; then it sets HANDOFF and is woken by the
 * drop that makes it possible. A reader who came in from the line wakes the next:
 * a reader follows it, a writer starts its clock.
 *
 * No wake-up is lost. The first in line clears WOKEN, or is new and sets
 * WAITERS, and only then looks whether it can have the lock. A drop is a change of the
 * same word: either it comes before, and is seen by that look; or after, and
 * finds WAITERS without WOKEN, and wakes.
 *
 * Locks:   qlock, for a few instructions; a thread that has it does not sleep
 *          but for another's qlock
 * Alive:   a waiter, on its stack, until it has left the line under qlock
 * Source:  the hand-off after a time is that of the kernel's rwsem
 */
#include "lib/rwsem.h"

#include "lib/futex.h"
#include "lib/thread.h"
#include "lib/wait.h"

#define WRITER RWSEM_WRITER
#define WAITERS RWSEM_WAITERS
#define HANDOFF RWSEM_HANDOFF
#define WOKEN RWSEM_WOKEN
#define READER RWSEM_READER

/* Looks at the word before it sleeps: some microseconds. */
#define SPINS 60

enum waiter_state { ASLEEP, AWAKE };

struct rwsem_waiter {
	struct rwsem_waiter *prev, *next; /* [qlock] */
	bool write;                       /* [const] */
	_Atomic u32 state; /* enum waiter_state; the futex [atomic] */
};

/* ---- taking it ---- */

static bool try_either(struct rwsem_raw *rw, bool write)
{
	return write ? rwsem_raw_try_write(rw) : rwsem_raw_try_read(rw);
}

static bool spin(struct rwsem_raw *rw, bool write)
{
	if (thread_nr_cpus() == 1)
		return false;
	for (int i = 0; i < SPINS; i++) {
		if (try_either(rw, write))
			return true;
		if (atomic_load_explicit(&rw->word, memory_order_relaxed) & HANDOFF)
			return false;
		cpu_relax();
	}
	return false;
}

/* ---- the line; qlock is held ---- */

static void line_enter(struct rwsem_raw *rw, struct rwsem_waiter *me)
{
	me->prev = rw->tail;
	me->next = NULL;
	if (rw->tail)
		rw->tail->next = me;
	else
		rw->head = me;
	rw->tail = me;
	atomic_fetch_or(&rw->word, WAITERS);
}

static void line_leave(struct rwsem_raw *rw, struct rwsem_waiter *me)
{
	if (me->prev)
		me->prev->next = me->next;
	else
		rw->head = me->next;
	if (me->next)
		me->next->prev = me->prev;
	else
		rw->tail = me->prev;
}

static void wake_first(struct rwsem_raw *rw)
{
	struct rwsem_waiter *w = rw->head;

	if (!w)
		return;
	atomic_fetch_or(&rw->word, WOKEN);
	if (atomic_exchange(&w->state, AWAKE) == ASLEEP)
		futex_wake(&w->state);
}

/* Takes the lock and leaves the line, if that can be. */
static bool take_from_line(struct rwsem_raw *rw, struct rwsem_waiter *me)
{
	bool first = rw->head == me, alone = first && rw->tail == me;
	u32 w = atomic_load(&rw->word), new;

	do {
		if (w & WRITER || (me->write && w >= READER) ||
		    (w & HANDOFF && !first))
			return false;
		new = me->write ? w | WRITER : w + READER;
		if (first)
			new &= ~(HANDOFF | WOKEN);
		if (alone)
			new &= ~WAITERS;
	} while (!atomic_compare_exchange_weak(&rw->word, &w, new));
	line_leave(rw, me);
	if (first && !me->write)
		wake_first(rw);
	return true;
}

void rwsem_raw_wait(struct rwsem_raw *rw, bool write)
{
	struct rwsem_waiter me = { .write = write };
	u64 start, waited, limit;

	if (spin(rw, write))
		return;
	start = clock_mono_ns();
	thread_blocks_begin();
	word_lock_take(&rw->qlock);
	line_enter(rw, &me);
	for (;;) {
		limit = 0;
		atomic_store(&me.state, ASLEEP);
		if (rw->head == &me)
			atomic_fetch_and(&rw->word, ~WOKEN);
		if (take_from_line(rw, &me))
			break;
		if (rw->head == &me && !(atomic_load(&rw->word) & HANDOFF)) {
			waited = clock_mono_ns() - start;
			if (waited >= RWSEM_PATIENCE_NS) {
				atomic_fetch_or(&rw->word, HANDOFF);
				if (take_from_line(rw, &me))
					break;
			} else {
				limit = RWSEM_PATIENCE_NS - waited;
			}
		}
		word_lock_drop(&rw->qlock);
		futex_wait(&me.state, ASLEEP, limit);
		word_lock_take(&rw->qlock);
	}
	word_lock_drop(&rw->qlock);
	thread_blocks_end();
}

/* ---- dropping it ---- */

void rwsem_raw_wake(struct rwsem_raw *rw)
{
	word_lock_take(&rw->qlock);
	wake_first(rw);
	word_lock_drop(&rw->qlock);
}

bool rwsem_raw_is_idle(const struct rwsem_raw *rw)
{
	return atomic_load(&rw->word) == 0;
}
