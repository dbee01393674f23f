/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/lib/test_bitmap.c - bit maps against a plain array of bools
 */
#include "tests/unit/unit.h"

#include "lib/bitmap.h"

#define NR_BITS 512u

static u64 map_a[NR_BITS / 64];
static u64 map_b[NR_BITS / 64];
static bool model_a[NR_BITS];
static bool model_b[NR_BITS];
static u32 seed;

static u32 next_random(void)
{
	seed = seed * 1664525u + 1013904223u;
	return seed >> 8;
}

static int clear_all(void **state)
{
	memset(map_a, 0, sizeof(map_a));
	memset(map_b, 0, sizeof(map_b));
	memset(model_a, 0, sizeof(model_a));
	memset(model_b, 0, sizeof(model_b));
	seed = 42;
	return 0;
}

static u32 model_find(bool want, bool with_b, u32 start, u32 end)
{
	for (u32 i = start; i < end; i++)
		if ((model_a[i] || (with_b && model_b[i])) == want)
			return i;
	return end;
}

static void compare_with_model(u32 start, u32 end)
{
	u32 weight = 0;

	for (u32 i = start; i < end; i++)
		weight += model_a[i];
	assert_int_equal(bm_weight(map_a, start, end), weight);
	assert_int_equal(bm_find_set(map_a, start, end),
			 model_find(true, false, start, end));
	assert_int_equal(bm_find_clear(map_a, start, end),
			 model_find(false, false, start, end));
	assert_int_equal(bm_find_set_or(map_a, map_b, start, end),
			 model_find(true, true, start, end));
	assert_int_equal(bm_find_clear_or(map_a, map_b, start, end),
			 model_find(false, true, start, end));
	assert_int_equal(bm_find_set_or(map_a, NULL, start, end),
			 model_find(true, false, start, end));
	assert_int_equal(bm_find_clear_or(map_a, NULL, start, end),
			 model_find(false, false, start, end));
}

static void test_bit_order_is_that_of_the_disk(void **state)
{
	const u8 *bytes = (const u8 *)map_a;

	bm_set(map_a, 0);
	bm_set(map_a, 9);
	bm_set(map_a, 71);
	assert_int_equal(bytes[0], 0x01);
	assert_int_equal(bytes[1], 0x02);
	assert_int_equal(bytes[8], 0x80);
	assert_true(bm_test(map_a, 71));
	assert_false(bm_test(map_a, 70));
	bm_clear(map_a, 71);
	assert_int_equal(bytes[8], 0);
	assert_int_equal(bm_find_set(map_a, 1, NR_BITS), 9);
}

static void test_every_range_of_three_words(void **state)
{
	for (u32 start = 0; start <= 192; start++) {
		for (u32 end = start; end <= 192; end++) {
			memset(map_a, 0, sizeof(map_a));
			bm_set_range(map_a, start, end - start);
			assert_int_equal(bm_weight(map_a, 0, NR_BITS),
					 end - start);
			assert_int_equal(bm_weight(map_a, start, end),
					 end - start);
			assert_int_equal(bm_find_clear(map_a, start, end), end);
			memset(map_a, 0xFF, sizeof(map_a));
			bm_clear_range(map_a, start, end - start);
			assert_int_equal(bm_weight(map_a, 0, NR_BITS),
					 NR_BITS - (end - start));
			assert_int_equal(bm_find_set(map_a, start, end), end);
		}
	}
}

static void test_random_changes_match_the_model(void **state)
{
	for (int round = 0; round < 5000; round++) {
		u32 start = next_random() % (NR_BITS + 1);
		u32 nr = next_random() % (NR_BITS + 1 - start);
		bool set = next_random() & 1;

		if (round % 3)
			nr = min_of(nr, 20u);
		if (set) {
			bm_set_range(map_a, start, nr);
			bm_set_range(map_b, (start + 100) % 256, nr % 40);
		} else {
			bm_clear_range(map_a, start, nr);
			bm_clear_range(map_b, (start + 100) % 256, nr % 40);
		}
		for (u32 i = 0; i < nr; i++)
			model_a[start + i] = set;
		for (u32 i = 0; i < nr % 40; i++)
			model_b[(start + 100) % 256 + i] = set;
		compare_with_model(0, NR_BITS);
		start = next_random() % NR_BITS;
		compare_with_model(start,
				   start + next_random() % (NR_BITS - start));
	}
}

static void test_an_empty_range_has_nothing(void **state)
{
	bm_set_range(map_a, 0, NR_BITS);
	bm_clear_range(map_a, 64, 0);
	assert_int_equal(bm_weight(map_a, 64, 64), 0);
	assert_int_equal(bm_find_set(map_a, 64, 64), 64);
	assert_int_equal(bm_find_clear(map_a, NR_BITS, NR_BITS), NR_BITS);
	assert_int_equal(bm_weight(map_a, 0, NR_BITS), NR_BITS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_bit_order_is_that_of_the_disk,
				       clear_all),
		cmocka_unit_test_setup(test_every_range_of_three_words,
				       clear_all),
		cmocka_unit_test_setup(test_random_changes_match_the_model,
				       clear_all),
		cmocka_unit_test_setup(test_an_empty_range_has_nothing,
				       clear_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
