/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lib/wait.h - wait for a condition on any object, through hashed buckets
 *
 * No object carries a condition variable: a waiter sleeps in the bucket of
 * its key (any address). The waker first makes the condition true, then calls
 * wake_up(key). The condition is evaluated with the bucket locked, so a
 * wake-up is never lost; it must not take a lock that ranks outside RANK_WAIT
 * (read atomics).
 *
 * Waiters may hold sleeping locks (ranks before RANK_NOSLEEP) only.
 */
#ifndef SLUICE_LIB_WAIT_H
#define SLUICE_LIB_WAIT_H

#include "lib/types.h"

struct wait_bucket;
struct wait_bucket *wait_bucket_lock(const void *key);
/* Sleeps until woken or the deadline; bucket locked on entry and exit.
 * deadline_ns: CLOCK_MONOTONIC, 0 for none. false: the deadline passed. */
bool wait_bucket_sleep(struct wait_bucket *b, u64 deadline_ns);
void wait_bucket_unlock(struct wait_bucket *b);

/* Wakes all who wait on key. Any lock may be held that ranks before RANK_WAIT. */
void wake_up(const void *key);

/* Sleeps until cond holds. */
#define wait_event(key, cond)                                                  \
	do {                                                                   \
		if (cond)                                                      \
			break;                                                 \
		struct wait_bucket *wb_ = wait_bucket_lock(key);               \
		while (!(cond))                                                \
			wait_bucket_sleep(wb_, 0);                             \
		wait_bucket_unlock(wb_);                                       \
	} while (0)

/*
 * As wait_event(), at most until deadline_ns; the value tells whether cond held.
 * deadline_ns is evaluated once at most: "now and so long" is meant of the call, not
 * of each time that somebody else's wake-up came to the bucket.
 */
#define wait_event_deadline(key, cond, deadline_ns)                            \
	({                                                                     \
		bool ok_ = (cond);                                             \
		if (!ok_) {                                                    \
			u64 deadline_ = (deadline_ns);                         \
			struct wait_bucket *wb_ = wait_bucket_lock(key);       \
			while (!(ok_ = (cond)) &&                              \
			       wait_bucket_sleep(wb_, deadline_))              \
				;                                              \
			if (!ok_)                                              \
				ok_ = (cond);                                  \
			wait_bucket_unlock(wb_);                               \
		}                                                              \
		ok_;                                                           \
	})

/* CLOCK_MONOTONIC in ns. */
u64 clock_mono_ns(void);

#endif
