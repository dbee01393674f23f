/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/lib/test_mem.c - patient allocations wait, and give up in the end
 */
#include "tests/unit/unit.h"

#include <stdlib.h>

#include "lib/mem.h"

/* The next calls fail (ld --wrap). */
static int failures;

void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__real_calloc(size_t n, size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes);

void *__wrap_malloc(size_t bytes)
{
	return failures && failures-- ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t n, size_t bytes)
{
	return failures && failures-- ? NULL : __real_calloc(n, bytes);
}

static void test_memory_comes_back(void **state)
{
	u8 *p;

	failures = 3;
	p = malloc_patient(100);
	assert_non_null(p);
	assert_int_equal(failures, 0);
	free(p);

	failures = 3;
	p = calloc_patient(10, 10);
	assert_non_null(p);
	assert_int_equal(failures, 0);
	for (int i = 0; i < 100; i++)
		assert_int_equal(p[i], 0);
	free(p);
}

static void test_gives_up(void **state)
{
	void *p;

	failures = 1000;
	p = malloc_patient(100);
	failures = 0;
	assert_null(p);
}

static void test_pauses_are_counted(void **state)
{
	int tries = 0, n = 0;

	while (mem_pause(&tries))
		n++;
	assert_int_equal(n, 10);
	assert_int_equal(tries, 10);
	assert_false(mem_pause(&tries));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_memory_comes_back),
		cmocka_unit_test(test_gives_up),
		cmocka_unit_test(test_pauses_are_counted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
