/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/cache/test_lru.c - lists of what can be reclaimed
 *
 * The objects here say what is to become of them.
 */
#include "tests/unit/cache/cache_test.h"
#include "cache/lru.h"

#include <unistd.h>

#define ZONES 3u
#define THREADS 4u
#define PER_THREAD 64u
#define ROUNDS TEST_LOAD(4000u)

struct obj {
	struct cds_list_head link;
	enum lru_verdict verdict;
	bool referenced; /* a second chance, once */
	u32 looks;
	u32 nr;          /* when it was removed, from 1 */
};

struct scan {
	struct lru_scan s;
	u32 removed, disposals, since, most, stop_after;
};

static enum lru_verdict isolate(struct cds_list_head *item, struct lru_scan *s)
{
	struct scan *scan = caa_container_of(s, struct scan, s);
	struct obj *o = caa_container_of(item, struct obj, link);

	o->looks++;
	scan->since++;
	if (o->referenced) {
		o->referenced = false;
		return LRU_ROTATED;
	}
	if (o->verdict == LRU_REMOVED)
		o->nr = ++scan->removed;
	return o->verdict;
}

static bool dispose(struct lru_scan *s)
{
	struct scan *scan = caa_container_of(s, struct scan, s);

	scan->disposals++;
	scan->most = max_of(scan->most, scan->since);
	scan->since = 0;
	return scan->removed < scan->stop_after;
}

static struct scan shrink(struct lru *lru, u32 zone, u32 stop_after)
{
	struct scan scan = {
		.s = { .isolate = isolate, .dispose = dispose },
		.stop_after = stop_after,
	};

	lru_shrink(lru, zone, &scan.s);
	return scan;
}

static struct lru *filled(struct obj *o, u32 nr, u32 zone)
{
	struct lru *lru = lru_new(ZONES, 1);

	assert_non_null(lru);
	for (u32 i = 0; i < nr; i++) {
		o[i] = (struct obj){ .verdict = LRU_REMOVED };
		lru_add(lru_list_of(lru, zone, i), &o[i].link);
	}
	assert_int_equal(lru_nr(lru, zone), nr);
	return lru;
}

static void test_the_oldest_goes_first(void **state)
{
	struct obj o[5];
	struct lru *lru = filled(o, 5, 1);
	struct scan scan = shrink(lru, 1, UINT32_MAX);

	for (u32 i = 0; i < 5; i++)
		assert_int_equal(o[i].nr, i + 1);
	assert_int_equal(scan.s.scanned, 5);
	assert_int_equal(scan.s.rotated, 0);
	assert_int_equal(lru_nr(lru, 1), 0);
	lru_free(lru);
	lru_free(NULL);
}

static void test_a_second_chance_is_one(void **state)
{
	struct obj o[4];
	struct lru *lru = filled(o, 4, 0);
	struct scan scan;

	o[1].referenced = true;
	scan = shrink(lru, 0, UINT32_MAX);
	assert_int_equal(scan.removed, 3);
	assert_int_equal(scan.s.rotated, 1);
	assert_int_equal(o[1].nr, 0);
	assert_int_equal(lru_nr(lru, 0), 1);
	scan = shrink(lru, 0, UINT32_MAX);
	assert_int_equal(scan.removed, 1);
	assert_int_equal(o[1].nr, 1);
	lru_free(lru);
}

/* However busy all are, each is looked at once. */
static void test_busy_ones_end_the_scan(void **state)
{
	struct obj o[100];
	struct lru *lru = filled(o, 100, 2);
	struct scan scan;

	for (u32 i = 0; i < 100; i++)
		o[i].verdict = LRU_BUSY;
	scan = shrink(lru, 2, UINT32_MAX);
	assert_int_equal(scan.s.scanned, 100);
	assert_int_equal(scan.removed, 0);
	assert_true(scan.most <= LRU_BATCH);
	assert_int_equal(scan.disposals, DIV_ROUND_UP(100, LRU_BATCH));
	for (u32 i = 0; i < 100; i++)
		assert_int_equal(o[i].looks, 1);
	assert_int_equal(lru_nr(lru, 2), 100);
	for (u32 i = 0; i < 100; i++)
		lru_del(lru_list_of(lru, 2, i), &o[i].link);
	assert_int_equal(lru_nr(lru, 2), 0);
	lru_free(lru);
}

static void test_a_scan_stops_when_told(void **state)
{
	struct obj o[100];
	struct lru *lru = filled(o, 100, 0);
	struct scan scan = shrink(lru, 0, 1);

	assert_int_equal(scan.removed, LRU_BATCH);
	assert_int_equal(scan.disposals, 1);
	assert_int_equal(o[LRU_BATCH].looks, 0);
	/* It goes on where that one stopped. */
	scan = shrink(lru, 0, UINT32_MAX);
	assert_int_equal(o[LRU_BATCH].nr, 1);
	assert_int_equal(lru_nr(lru, 0), 0);
	lru_free(lru);
}

static void test_zones_and_lists_are_apart(void **state)
{
	struct obj o[ZONES][8] = { 0 };
	struct lru *lru = lru_new(ZONES, 4);
	struct scan scan;

	assert_non_null(lru);
	for (u32 zone = 0; zone < ZONES; zone++)
		for (u32 i = 0; i < 8; i++)
			lru_add(lru_list_of(lru, zone, i), &o[zone][i].link);
	assert_ptr_equal(lru_list_of(lru, 1, 2), lru_list_of(lru, 1, 6));
	assert_ptr_not_equal(lru_list_of(lru, 1, 2), lru_list_of(lru, 1, 3));
	assert_ptr_not_equal(lru_list_of(lru, 1, 2), lru_list_of(lru, 2, 2));
	scan = shrink(lru, 1, UINT32_MAX);
	assert_int_equal(scan.removed, 8);
	assert_int_equal(lru_nr(lru, 0), 8);
	assert_int_equal(lru_nr(lru, 1), 0);
	assert_int_equal(lru_nr(lru, 2), 8);
	(void)shrink(lru, 0, UINT32_MAX);
	(void)shrink(lru, 2, UINT32_MAX);
	lru_free(lru);
}

/* ---- threads put on, take off and scan ---- */

enum place { OFF, ON, TAKEN };

static struct hammer {
	struct lru *lru;
	struct item {
		struct cds_list_head link;
		u32 zone;
		enum place place; /* [lock of its list] */
	} item[THREADS][PER_THREAD];
	_Atomic u64 added, taken;
} h;

struct taker {
	struct lru_scan s;
	u32 nr;
};

static enum lru_verdict take_some(struct cds_list_head *item, struct lru_scan *s)
{
	struct taker *t = caa_container_of(s, struct taker, s);
	struct item *i = caa_container_of(item, struct item, link);

	thread_check(i->place == ON);
	if (t->s.scanned % 3)
		return LRU_BUSY;
	i->place = TAKEN;
	t->nr++;
	return LRU_REMOVED;
}

static bool take_on(struct lru_scan *s)
{
	return true;
}

static void hammer(void *arg)
{
	u32 me = (u32)(uintptr_t)arg;
	u64 rng = 0x9E3779B97F4A7C15ull + me;

	for (u32 n = 0; n < ROUNDS; n++) {
		struct item *i = &h.item[me][test_random(&rng) % PER_THREAD];
		struct lru_list *l = lru_list_of(h.lru, i->zone, me);

		lru_lock(l);
		if (i->place == ON) {
			lru_del_locked(l, &i->link);
			i->place = OFF;
			atomic_fetch_add(&h.taken, 1);
		} else {
			lru_add_locked(l, &i->link);
			i->place = ON;
			atomic_fetch_add(&h.added, 1);
		}
		lru_unlock(l);
		if (n % 16 == 0) {
			struct taker t = { .s = { take_some, take_on, 0, 0 } };

			lru_shrink(h.lru, (u32)(test_random(&rng) % ZONES), &t.s);
			atomic_fetch_add(&h.taken, t.nr);
		}
	}
}

static void wait_main(void *arg)
{
	struct obj o = { .verdict = LRU_BUSY };

	lru_add(arg, &o.link);
	lru_del(arg, &o.link);
}

static void test_waits_are_counted(void **state)
{
	struct lru *lru = lru_new(ZONES, 1);
	struct lru_list *l = lru_list_of(lru, 1, 0);
	struct thread *t;
	u64 ns;

	assert_int_equal(lru_waits(lru, 1, &ns), 0);
	lru_lock(l);
	assert_int_equal(thread_create(&t, "wait", wait_main, l), 0);
	usleep(20000); /* the thread comes to the lock, or finds it free: */
	lru_unlock(l);
	thread_join(t);
	assert_true(lru_waits(lru, 1, &ns) <= 1);
	assert_true(!lru_waits(lru, 1, &ns) == !ns);
	assert_int_equal(lru_waits(lru, 0, &ns), 0);
	assert_int_equal(lru_nr(lru, 1), 0);
	lru_free(lru);
}

static void test_many_threads(void **state)
{
	struct thread *t[THREADS];
	u64 left = 0, on = 0;

	memset(&h, 0, sizeof(h));
	h.lru = lru_new(ZONES, 2);
	assert_non_null(h.lru);
	for (u32 i = 0; i < THREADS; i++)
		for (u32 j = 0; j < PER_THREAD; j++)
			h.item[i][j].zone = j % ZONES;
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(thread_create(&t[i], "lru", hammer, (void *)i),
				 0);
	for (u32 i = 0; i < THREADS; i++)
		thread_join(t[i]);
	for (u32 i = 0; i < THREADS; i++)
		for (u32 j = 0; j < PER_THREAD; j++)
			on += h.item[i][j].place == ON;
	for (u32 zone = 0; zone < ZONES; zone++)
		left += lru_nr(h.lru, zone);
	assert_int_equal(left, on);
	assert_int_equal(h.added - h.taken, on);
	lru_free(h.lru);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_oldest_goes_first),
		cmocka_unit_test(test_a_second_chance_is_one),
		cmocka_unit_test(test_busy_ones_end_the_scan),
		cmocka_unit_test(test_a_scan_stops_when_told),
		cmocka_unit_test(test_zones_and_lists_are_apart),
		cmocka_unit_test(test_waits_are_counted),
		cmocka_unit_test(test_many_threads),
	};

	thread_register();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
