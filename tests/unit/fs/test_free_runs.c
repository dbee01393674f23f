/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_free_runs.c - free runs of a group against plain searches
 *
 * Random maps of several sizes and fragmentations, changed at random.
 */
#include "tests/unit/unit.h"

#include "fs/free_runs.h"
#include "lib/bitmap.h"

#include <stdlib.h>
#include <string.h>

#define NR_MAX (1u << 19)

struct model {
	struct free_runs fr;
	u32 nr;
	u8 *map, *held; /* held may be NULL */
	unsigned seed;
};

static bool is_free(const struct model *m, u32 i)
{
	return !bm_test(m->map, i) && !(m->held && bm_test(m->held, i));
}

static u32 model_longest(const struct model *m)
{
	u32 longest = 0, run = 0;

	for (u32 i = 0; i < m->nr; i++) {
		run = is_free(m, i) ? run + 1 : 0;
		longest = max_of(longest, run);
	}
	return longest;
}

static u32 model_find(const struct model *m, u32 from, u32 enough)
{
	u32 run = 0;

	for (u32 i = from; i < m->nr; i++) {
		run = is_free(m, i) ? run + 1 : 0;
		if (run == enough)
			return i + 1 - enough;
	}
	return m->nr;
}

static void model_init(struct model *m, u32 nr, bool held, unsigned seed)
{
	size_t bytes = ALIGN_UP((size_t)nr, 64) / 8;

	*m = (struct model){ .nr = nr, .seed = seed };
	m->map = calloc(1, bytes);
	m->held = held ? calloc(1, bytes) : NULL;
	assert_non_null(m->map);
	free_runs_init(&m->fr, nr);
}

static void model_free(struct model *m)
{
	free(m->map);
	free(m->held);
}

static u32 rnd(struct model *m, u32 below)
{
	return (u32)rand_r(&m->seed) % below;
}

/* Sets or clears a run of at most `most` in one of the maps. */
static void model_change(struct model *m, u32 most)
{
	u8 *map = m->held && rnd(m, 2) ? m->held : m->map;
	u32 off = rnd(m, m->nr);
	u32 len = 1 + rnd(m, min_of(most, m->nr - off));

	if (rnd(m, 2))
		bm_set_range(map, off, len);
	else
		bm_clear_range(map, off, len);
	free_runs_touch(&m->fr, off, len);
}

static void model_compare(struct model *m)
{
	assert_true(free_runs_check(&m->fr, m->map, m->held));
	free_runs_refresh(&m->fr, m->map, m->held);
	assert_true(free_runs_check(&m->fr, m->map, m->held));
	assert_int_equal(m->fr.longest, model_longest(m));
	for (int i = 0; i < 8; i++) {
		u32 from = rnd(m, m->nr);
		u32 enough = 1 + rnd(m, i < 4 ? 8 : m->fr.longest + 1);

		if (i == 7)
			enough = max_of(m->fr.longest, 1u);
		assert_int_equal(free_runs_find(&m->fr, m->map, m->held, from, enough),
				 model_find(m, from, enough));
	}
}

static void random_changes(u32 nr, bool held, u32 most, u32 rounds)
{
	struct model m;

	model_init(&m, nr, held, nr + most);
	for (u32 i = 0; i < rounds; i++) {
		for (u32 n = rnd(&m, 6); n; n--)
			model_change(&m, most);
		model_compare(&m);
	}
	model_free(&m);
}

static void test_random_maps(void **state)
{
	static const u32 sizes[] = { 1, 2, 63, 64, 65, 256, 511, 512, 513, 8192,
				     32760, 32768 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
		for (int held = 0; held < 2; held++) {
			random_changes(sizes[i], held, 4, 150);
			random_changes(sizes[i], held, 700, 150);
			random_changes(sizes[i], held, sizes[i], 50);
		}
}

static void test_largest_group(void **state)
{
	(void)state;
	random_changes(NR_MAX, false, 100000, 20);
}

static void test_all_free_all_used(void **state)
{
	struct model m;

	(void)state;
	model_init(&m, 32768, false, 1);
	free_runs_refresh(&m.fr, m.map, NULL);
	assert_int_equal(m.fr.longest, 32768);
	assert_int_equal(free_runs_find(&m.fr, m.map, NULL, 0, 32768), 0);
	assert_int_equal(free_runs_find(&m.fr, m.map, NULL, 1, 32768), 32768);
	assert_int_equal(free_runs_find(&m.fr, m.map, NULL, 5000, 1), 5000);
	bm_set_range(m.map, 0, 32768);
	free_runs_touch(&m.fr, 0, 32768);
	free_runs_refresh(&m.fr, m.map, NULL);
	assert_int_equal(m.fr.longest, 0);
	assert_int_equal(free_runs_find(&m.fr, m.map, NULL, 0, 1), 32768);
	model_free(&m);
}

/* The check is worth something: it sees a change that was not told. */
static void test_check_sees_a_missed_change(void **state)
{
	struct model m;

	(void)state;
	model_init(&m, 8192, false, 1);
	free_runs_refresh(&m.fr, m.map, NULL);
	bm_set(m.map, 700);
	assert_false(free_runs_check(&m.fr, m.map, NULL));
	free_runs_touch(&m.fr, 700, 1);
	assert_true(free_runs_check(&m.fr, m.map, NULL));
	model_free(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_maps),
		cmocka_unit_test(test_largest_group),
		cmocka_unit_test(test_all_free_all_used),
		cmocka_unit_test(test_check_sees_a_missed_change),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
