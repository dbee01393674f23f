/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/cache/cache_test.h - what the tests of the cache share
 *
 * Counts the errors logged (a leak at unmount is only logged), and gives each
 * thread its own random numbers from a printed seed.
 */
#ifndef SLUICE_TESTS_CACHE_TEST_H
#define SLUICE_TESTS_CACHE_TEST_H

#include "tests/unit/unit.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "cache/zone.h"
#include "lib/log.h"
#include "lib/thread.h"
#include "lib/types.h"
#include "lib/wait.h"

#define TEST_NS_PER_MS 1000000ull
/* Far beyond any wait that ends well. */
#define TEST_PATIENCE_NS (60000 * TEST_NS_PER_MS)

static _Atomic u32 test_errors;
static _Atomic u32 test_quiet; /* the test expects errors: do not print them */

static inline void test_sink(enum log_level level, const char *line, void *priv)
{
	if (level != LOG_LVL_ERR)
		return;
	atomic_fetch_add(&test_errors, 1);
	if (!atomic_load(&test_quiet))
		print_message("log: %s\n", line);
}

static inline void test_log_begin(void)
{
	log_set_sink(test_sink, NULL);
	atomic_store(&test_errors, 0);
	atomic_store(&test_quiet, 0);
}

/* Sleeps until cond; whoever makes it true calls wake_up(key). */
#define test_wait(key, cond)                                                   \
	assert_true(wait_event_deadline(key, cond,                             \
					clock_mono_ns() + TEST_PATIENCE_NS))

/* The tests of the caches run with several numbers of zones: meson.build sets it. */
static inline u32 test_zones(void)
{
	const char *n = getenv("SLUICE_TEST_ZONES");

	return n ? (u32)atoi(n) : 1;
}

/* What this thread allocates next is in another zone. */
static inline void test_wander(void)
{
	static _Atomic u32 next;

	zone_set_home(atomic_fetch_add(&next, 1));
}

/* Exactly, which budget_used_total() is not. */
static inline u64 test_budget_used(const struct budget *b)
{
	u64 sum = 0;

	for (int k = 0; k < BUDGET_KINDS; k++)
		sum += budget_used(b, k);
	return sum;
}

/* xorshift64*; the state is never 0. */
static inline u64 test_random(u64 *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545F4914F6CDD1Dull;
}

/* Sanitizer builds do less of the same. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define TEST_LOAD(n) ((n) / 4)
#else
#define TEST_LOAD(n) (n)
#endif

/* Failures in threads: cmocka's assertions belong to the main thread. */
#define thread_check(x)                                                        \
	do {                                                                   \
		if (!(x)) {                                                    \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__,     \
				#x);                                           \
			abort();                                               \
		}                                                              \
	} while (0)

#endif
