/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lib/wait.c - wait for a condition on any object, through hashed buckets
 *
 * A key hashes to one of 256 buckets: a mutex, a condition variable, the
 * number of threads inside (waiting or about to) and the number of wake-ups so
 * far. Keys that share a bucket wake each other for nothing; each waiter
 * evaluates its condition again.
 *
 * Why no wake-up is lost. The waker makes the condition true, then reads
 * `waiters` with a read-modify-write; the waiter raises `waiters`, then
 * evaluates the condition. The two RMWs of one variable are ordered:
 *  - the waker's first: the waiter's RMW reads from it (acquire from release),
 *    so the waiter sees the condition true and does not sleep;
 *  - the waiter's first: the waker sees it, takes the bucket and raises `seq`.
 *    The waiter has evaluated its condition with the bucket locked and sleeps
 *    until `seq` differs from what it was then.
 *
 * Locks:   the bucket's mutex, RANK_WAIT. Not held while a block hook runs: a
 *          hook wakes others itself. `seq` covers that gap.
 * Never:   a hook or a foreign lock under the bucket
 * Threads: any
 */
#include "lib/wait.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "lib/lock.h"
#include "lib/thread.h"

#define WAIT_BUCKETS_LOG2 8
#define NS_PER_S 1000000000ull

struct wait_bucket {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	u64 seq;	     /* [lock] wake-ups so far */
	_Atomic u32 waiters; /* [atomic] threads between lock and unlock */
} __cacheline_aligned;

static struct wait_bucket buckets[1 << WAIT_BUCKETS_LOG2];

/* Before main(): the clock of a condition has no static initialiser. */
__attribute__((constructor)) static void wait_init(void)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	for (size_t i = 0; i < ARRAY_SIZE(buckets); i++) {
		pthread_mutex_init(&buckets[i].lock, NULL);
		pthread_cond_init(&buckets[i].cond, &attr);
	}
	pthread_condattr_destroy(&attr);
}

static struct wait_bucket *bucket_of(const void *key)
{
	/* Fibonacci hashing: the top bits of the product are well mixed. */
	u64 h = (u64)(uintptr_t)key * 0x9E3779B97F4A7C15ull;

	return &buckets[h >> (64 - WAIT_BUCKETS_LOG2)];
}

static void bucket_lock(struct wait_bucket *b)
{
	int err = pthread_mutex_lock(&b->lock);

	assert(err == 0);
}

static void bucket_unlock(struct wait_bucket *b)
{
	int err = pthread_mutex_unlock(&b->lock);

	assert(err == 0);
}

struct wait_bucket *wait_bucket_lock(const void *key)
{
	struct wait_bucket *b = bucket_of(key);

	rank_enter(RANK_WAIT);
	bucket_lock(b);
	/* Pairs with the fetch_add in wake_up(); see the top. */
	atomic_fetch_add_explicit(&b->waiters, 1, memory_order_acq_rel);
	return b;
}

void wait_bucket_unlock(struct wait_bucket *b)
{
	atomic_fetch_sub_explicit(&b->waiters, 1, memory_order_acq_rel);
	bucket_unlock(b);
	rank_exit(RANK_WAIT);
}

/* Waits for seq to leave `seen`. False: the deadline passed first. */
static bool wait_for_seq(struct wait_bucket *b, u64 seen, u64 deadline_ns)
{
	struct timespec ts = {
		.tv_sec = (time_t)(deadline_ns / NS_PER_S),
		.tv_nsec = (long)(deadline_ns % NS_PER_S),
	};

	while (b->seq == seen) {
		int err;

		if (deadline_ns)
			err = pthread_cond_timedwait(&b->cond, &b->lock, &ts);
		else
			err = pthread_cond_wait(&b->cond, &b->lock);
		if (err == ETIMEDOUT)
			return b->seq != seen;
		assert(err == 0);
	}
	return true;
}

bool wait_bucket_sleep(struct wait_bucket *b, u64 deadline_ns)
{
	u64 seen = b->seq;
	bool woken;

	bucket_unlock(b);
	rank_exit(RANK_WAIT);
	thread_might_block();
	thread_blocks_begin();

	bucket_lock(b);
	woken = wait_for_seq(b, seen, deadline_ns);
	bucket_unlock(b);

	thread_blocks_end();
	rank_enter(RANK_WAIT);
	bucket_lock(b);
	return woken;
}

void wake_up(const void *key)
{
	struct wait_bucket *b = bucket_of(key);

	/* Pairs with the fetch_add in wait_bucket_lock(); see the top. */
	if (!atomic_fetch_add_explicit(&b->waiters, 0, memory_order_acq_rel))
		return;
	rank_enter(RANK_WAIT);
	bucket_lock(b);
	b->seq++;
	pthread_cond_broadcast(&b->cond);
	bucket_unlock(b);
	rank_exit(RANK_WAIT);
}

u64 clock_mono_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * NS_PER_S + (u64)ts.tv_nsec;
}
