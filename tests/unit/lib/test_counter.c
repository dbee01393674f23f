/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/lib/test_counter.c - counters: exact sums, and never past a floor
 */
#include "tests/unit/unit.h"

#include <stdatomic.h>

#include "lib/counter.h"
#include "lib/thread.h"

#define NR_THREADS 4
#define ROUNDS 20000

static struct counter *c;
static _Atomic s64 taken;

static void run_threads(void (*fn)(void *))
{
	struct thread *t[NR_THREADS];

	for (int i = 0; i < NR_THREADS; i++)
		assert_int_equal(thread_create(&t[i], "counter", fn, NULL), 0);
	for (int i = 0; i < NR_THREADS; i++)
		thread_join(t[i]);
}

static void adder(void *arg)
{
	for (int i = 0; i < ROUNDS; i++)
		counter_add(c, i % 3 ? 2 : -1);
}

static void test_sum_is_exact_and_fast_read_is_near(void **state)
{
	s64 per_thread = 0;
	s64 off;

	for (int i = 0; i < ROUNDS; i++)
		per_thread += i % 3 ? 2 : -1;
	c = counter_new(1000, 32);
	assert_non_null(c);
	run_threads(adder);
	assert_true(counter_sum(c) == 1000 + NR_THREADS * per_thread);
	off = counter_sum(c) - counter_read_fast(c);
	assert_true(off <= 32 * (s64)thread_nr_cpus());
	assert_true(off >= -32 * (s64)thread_nr_cpus());
	counter_free(c);
}

static void taker(void *arg)
{
	s64 got = 0;

	while (counter_sub_unless_below(c, 1, 500))
		got++;
	atomic_fetch_add(&taken, got);
}

static void test_takers_empty_it_to_the_floor_exactly(void **state)
{
	c = counter_new(60500, 64);
	assert_non_null(c);
	atomic_store(&taken, 0);
	run_threads(taker);
	assert_true(atomic_load(&taken) == 60000);
	assert_true(counter_sum(c) == 500);
	counter_free(c);
}

/* Amounts around the batch, given back half the time. */
static void mixed_taker(void *arg)
{
	for (int i = 0; i < ROUNDS; i++) {
		s64 amount = i % 41;

		if (!counter_sub_unless_below(c, amount, 0))
			continue;
		/* What is held is at least `amount`, so nothing is below 0. */
		if (i & 1)
			counter_add(c, amount);
		else
			atomic_fetch_add(&taken, amount);
	}
}

static void test_mixed_amounts_never_pass_the_floor(void **state)
{
	c = counter_new(300000, 16);
	assert_non_null(c);
	atomic_store(&taken, 0);
	run_threads(mixed_taker);
	assert_true(counter_sum(c) >= 0);
	assert_true(counter_sum(c) + atomic_load(&taken) == 300000);
	counter_free(c);
}

static void test_refusal_changes_nothing(void **state)
{
	c = counter_new(10, 4);
	assert_non_null(c);
	counter_add(c, 3);
	assert_false(counter_sub_unless_below(c, 14, 0));
	assert_false(counter_sub_unless_below(c, 4, 10));
	assert_true(counter_sum(c) == 13);
	assert_true(counter_sub_unless_below(c, 3, 10));
	assert_true(counter_sum(c) == 10);
	assert_true(counter_sub_unless_below(c, 0, 10));
	assert_false(counter_sub_unless_below(c, 0, 11));
	counter_free(c);
}

static void test_batch_zero_and_negative_values(void **state)
{
	c = counter_new(-5, 0);
	assert_non_null(c);
	counter_add(c, -3);
	assert_true(counter_read_fast(c) == -8);
	assert_true(counter_sub_unless_below(c, 2, -10));
	assert_false(counter_sub_unless_below(c, 1, -10));
	assert_true(counter_sum(c) == -10);
	counter_free(c);
	counter_free(NULL);
}

static void batch_changer(void *arg)
{
	for (int i = 0; i < ROUNDS / 10; i++)
		counter_set_batch(c, i % 2 ? 3 : 300);
}

/* Takers beside one who changes the batch: no more than what is there. */
static void test_batch_changes_under_load(void **state)
{
	struct thread *changer;

	c = counter_new(60500, 64);
	assert_non_null(c);
	atomic_store(&taken, 0);
	assert_int_equal(thread_create(&changer, "batch", batch_changer, NULL),
			 0);
	run_threads(taker);
	thread_join(changer);
	assert_true(atomic_load(&taken) == 60000);
	assert_true(counter_sum(c) == 500);
	counter_add(c, 200);
	counter_set_batch(c, 0);
	assert_true(counter_read_fast(c) == 700);
	counter_add(c, 1);
	assert_true(counter_read_fast(c) == 701);
	counter_free(c);
}

#define SET_THREADS 4
#define SET_ROUNDS 20000u

static struct counter_set *set;

static void add_to_set(void *arg)
{
	for (u32 i = 0; i < SET_ROUNDS; i++) {
		counter_set_add(set, 0, 1);
		counter_set_add(set, 12, 3);
	}
}

static void test_set_loses_nothing(void **state)
{
	struct thread *t[SET_THREADS];
	u64 sums[13];

	set = counter_set_new(13);
	assert_non_null(set);
	counter_set_read(set, sums);
	for (u32 i = 0; i < 13; i++)
		assert_int_equal(sums[i], 0);
	for (u32 i = 0; i < SET_THREADS; i++)
		assert_int_equal(thread_create(&t[i], "add", add_to_set, NULL), 0);
	for (u32 i = 0; i < SET_THREADS; i++)
		thread_join(t[i]);
	counter_set_add(set, 5, UINT32_MAX + 1ull);
	counter_set_read(set, sums);
	for (u32 i = 0; i < 13; i++)
		assert_int_equal(sums[i], i == 0 ? SET_THREADS * SET_ROUNDS :
					  i == 12 ? 3 * SET_THREADS * SET_ROUNDS :
					  i == 5 ? UINT32_MAX + 1ull : 0);
	counter_set_free(set);
	counter_set_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_set_loses_nothing),
		cmocka_unit_test(test_sum_is_exact_and_fast_read_is_near),
		cmocka_unit_test(test_takers_empty_it_to_the_floor_exactly),
		cmocka_unit_test(test_mixed_amounts_never_pass_the_floor),
		cmocka_unit_test(test_refusal_changes_nothing),
		cmocka_unit_test(test_batch_zero_and_negative_values),
		cmocka_unit_test(test_batch_changes_under_load),
	};

	thread_register();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
