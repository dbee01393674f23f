/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/cache/test_pool.c - units of memory out of chunks
 */
#include "tests/unit/unit.h"

#include "cache/pool.h"
#include "lib/thread.h"

#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#define CHUNK (256u << 10)
#define THREADS 4
#define ROUNDS 20000
#define HELD 64
#define ZONES 4u
#define LISTS 2u

static struct mem_pool *pool;

struct unit {
	void *p;
	struct mem_chunk *c;
	u32 bytes;
	unsigned char mark;
};

static struct unit take_in(u32 zone, u32 bytes, unsigned char mark)
{
	struct unit u = { .bytes = bytes, .mark = mark };

	u.p = mem_unit_alloc(pool, bytes, zone, &u.c);
	assert_non_null(u.p);
	assert_int_equal(mem_chunk_zone(u.c), zone);
	assert_int_equal((uintptr_t)u.p % min_of(bytes, 4096u), 0);
	assert_int_equal(mem_unit_bytes(u.c), bytes);
	memset(u.p, mark, bytes);
	return u;
}

static struct unit take(u32 bytes, unsigned char mark)
{
	return take_in(0, bytes, mark);
}

static void give(struct unit *u)
{
	const unsigned char *p = u->p;

	for (u32 i = 0; i < u->bytes; i += 512)
		assert_int_equal(p[i], u->mark);
	mem_unit_free(u->c, u->p);
	u->p = NULL;
}

static void test_units_do_not_overlap(void **state)
{
	struct unit u[3 * CHUNK / POOL_UNIT_MAX + 5];

	for (u32 bytes = POOL_UNIT_MIN; bytes <= POOL_UNIT_MAX; bytes *= 2) {
		for (u32 i = 0; i < ARRAY_SIZE(u); i++)
			u[i] = take(bytes, (unsigned char)(i + 1));
		for (u32 i = 0; i < ARRAY_SIZE(u); i += 2)
			give(&u[i]);
		for (u32 i = 0; i < ARRAY_SIZE(u); i += 2)
			u[i] = take(bytes, (unsigned char)(i + 101));
		for (u32 i = 0; i < ARRAY_SIZE(u); i++)
			give(&u[i]);
	}
}

static void run_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	assert_int_equal(sched_setaffinity(0, sizeof(set), &set), 0);
}

/* What is free on one CPU's list is used before another one's list grows. */
static void test_lists_help_each_other(void **state)
{
	const u32 n = CHUNK / POOL_UNIT_MAX;
	struct unit u[CHUNK / POOL_UNIT_MAX];
	int cpus[2], nr = 0;
	cpu_set_t all;

	assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
	for (int i = 0; i < CPU_SETSIZE && nr < 2; i++)
		if (CPU_ISSET(i, &all))
			cpus[nr++] = i;
	if (nr < 2)
		skip();
	run_on(cpus[0]);
	u[0] = take(POOL_UNIT_MAX, 1);
	run_on(cpus[1]);
	for (u32 i = 1; i < n; i++) {
		u[i] = take(POOL_UNIT_MAX, (unsigned char)(i + 1));
		assert_ptr_equal(u[i].c, u[0].c);
	}
	assert_int_equal(sched_setaffinity(0, sizeof(all), &all), 0);
	for (u32 i = 0; i < n; i++)
		give(&u[i]);
}

/* What is freed, by whomever, is free in the zone it came from. */
static void test_memory_stays_in_its_zone(void **state)
{
	struct unit u[ZONES], again;

	for (u32 zone = 0; zone < ZONES; zone++) {
		u[zone] = take_in(zone, 4096, 1);
		for (u32 i = 0; i < zone; i++)
			assert_ptr_not_equal(u[i].c, u[zone].c);
	}
	give(&u[3]);
	give(&u[1]);
	again = take_in(3, 4096, 2);
	assert_ptr_equal(again.c, u[3].c);
	u[1] = take_in(1, 4096, 2);
	give(&again);
	give(&u[0]);
	give(&u[1]);
	give(&u[2]);
}

/* What the system has got comes back as zeros. */
static void test_idle_pages_go_back(void **state)
{
	static struct unit u[CHUNK / 1024];
	struct unit again;

	for (u32 i = 0; i < ARRAY_SIZE(u); i++) {
		u[i] = take(1024, 7);
		assert_ptr_equal(u[i].c, u[0].c);
	}
	mem_pool_trim(pool); /* all in use */
	for (u32 i = 3; i < ARRAY_SIZE(u); i++)
		if (i != 9)
			give(&u[i]);
	mem_pool_trim(pool);
	/* Nothing is held. All but the pages of units 0 to 2, and of 9, went. */
	for (u32 i = 3; i < ARRAY_SIZE(u); i++) {
		struct mem_chunk *c;
		char *p;

		if (i == 9)
			continue;
		p = mem_unit_alloc(pool, 1024, 0, &c);
		assert_ptr_equal(c, u[0].c);
		assert_ptr_equal(p, (char *)u[0].p + i * 1024);
		assert_int_equal(*p, i == 3 || i / 4 == 9 / 4 ? 7 : 0);
		memset(p, 5, 1024);
		u[i] = (struct unit){ .p = p, .c = c, .bytes = 1024, .mark = 5 };
	}
	again = take(1024, 6);
	assert_ptr_not_equal(again.c, u[0].c);
	give(&again);
	for (u32 i = 0; i < ARRAY_SIZE(u); i++)
		give(&u[i]);
	mem_pool_trim(pool);
}

/* Node 0 is on every machine; where memory can't be bound it comes all the same. */
static void test_zones_on_a_node(void **state)
{
	const int nodes[] = { 0, 0 };
	struct mem_pool *plain = pool;
	struct unit u[2];

	pool = mem_pool_new(0, ARRAY_SIZE(nodes), 1, nodes);
	assert_non_null(pool);
	for (u32 zone = 0; zone < ARRAY_SIZE(nodes); zone++)
		u[zone] = take_in(zone, zone ? POOL_UNIT_MIN : POOL_UNIT_MAX, 7);
	give(&u[0]);
	give(&u[1]);
	mem_pool_free(pool);
	pool = plain;
}

/* Units are freed by other threads than those that took them. */
static struct {
	_Atomic u64 p;
	struct unit u;
} slot[HELD];

static void hammer(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;

	for (u32 i = 0; i < ROUNDS; i++) {
		u32 k = (u32)rand_r(&seed) % HELD;

		if (i % 512 == 0)
			mem_pool_trim(pool);
		u64 busy = 1, full = 2, empty = 0;

		if (atomic_compare_exchange_strong(&slot[k].p, &full, busy)) {
			give(&slot[k].u);
			atomic_store(&slot[k].p, 0);
		} else if (atomic_compare_exchange_strong(&slot[k].p, &empty,
							  busy)) {
			slot[k].u = take_in(i % ZONES, POOL_UNIT_MIN << (k % 7),
					 (unsigned char)(1 + i % 250));
			atomic_store(&slot[k].p, 2);
		}
	}
}

static void test_many_threads(void **state)
{
	struct thread *t[THREADS];

	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(thread_create(&t[i], "pool", hammer,
					       (void *)(i + 1)), 0);
	for (u32 i = 0; i < THREADS; i++)
		thread_join(t[i]);
	for (u32 k = 0; k < HELD; k++)
		if (atomic_load(&slot[k].p) == 2)
			give(&slot[k].u);
}

static int setup(void **state)
{
	pool = mem_pool_new(0, ZONES, LISTS, NULL);
	return pool ? 0 : -1;
}

/* Asserts that every unit came back. */
static int teardown(void **state)
{
	mem_pool_free(pool);
	mem_pool_free(NULL);
	return 0;
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_units_do_not_overlap),
		T(test_lists_help_each_other),
		T(test_memory_stays_in_its_zone),
		T(test_idle_pages_go_back),
		T(test_zones_on_a_node),
		T(test_many_threads),
	};

	thread_register();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
