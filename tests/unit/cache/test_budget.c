/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/cache/test_budget.c - counting memory and driving reclaim
 *
 * The shrinker here owns a number of bytes and frees what it is asked for.
 */
#include "tests/unit/cache/cache_test.h"
#include "cache/shrinker.h"


#define MIB (1u << 20)
#define LIMIT (16u * MIB)

/* Key of all waits: a scan of any pool began or ended. */
static int pool_event;

/* Scans that this thread has made itself. */
static _Thread_local u32 own_scans;
static _Thread_local bool is_request; /* it is the test's */

struct pool {
	struct shrinker s;
	struct budget *b;
	_Atomic s64 left;   /* bytes it can free; charged */
	_Atomic u32 scans;
	_Atomic u64 asked;  /* by the last scan */
	_Atomic bool block; /* scans wait for this to go */
	_Atomic bool hold;  /* those of others than the test's thread do */
	_Atomic bool inside;
	bool nest;          /* scans throttle */
};

static u64 pool_scan(struct shrinker *s, struct shrink_control *sc)
{
	u64 bytes = sc->bytes;
	struct pool *p = s->priv;
	s64 left = atomic_load(&p->left);
	s64 take;

	own_scans++;
	atomic_fetch_add(&p->scans, 1);
	atomic_store(&p->asked, bytes);
	atomic_store(&p->inside, true);
	wake_up(&pool_event);
	wait_event(&pool_event, !atomic_load(&p->block));
	wait_event(&pool_event, is_request || !atomic_load(&p->hold));
	if (p->nest)
		budget_throttle(p->b);
	do {
		take = bytes > (u64)left ? left : (s64)bytes;
	} while (!atomic_compare_exchange_weak(&p->left, &left, left - take));
	if (take)
		budget_uncharge(p->b, s->kind, take);
	atomic_store(&p->inside, false);
	wake_up(&pool_event);
	return (u64)take;
}

static void pool_init(struct pool *p, struct budget *b, enum budget_kind kind)
{
	memset(p, 0, sizeof(*p));
	p->b = b;
	p->s = (struct shrinker){
		.name = "pool", .kind = kind, .scan = pool_scan, .priv = p,
	};
	budget_register(b, &p->s);
}

static void pool_grow(struct pool *p, s64 bytes)
{
	atomic_fetch_add(&p->left, bytes);
	budget_charge(p->b, p->s.kind, bytes);
}

/* Ends a pool, whatever it still holds. */
static void pool_end(struct pool *p)
{
	budget_unregister(p->b, &p->s);
	budget_uncharge(p->b, p->s.kind, atomic_exchange(&p->left, 0));
}

static struct budget *budget_new(u64 limit)
{
	struct budget *b;

	test_log_begin();
	assert_int_equal(budget_create(limit, 1, &b), 0);
	return b;
}

static void test_charges_are_counted_by_kind(void **state)
{
	struct budget *b = budget_new(LIMIT);

	assert_int_equal(budget_limit(b), LIMIT);
	budget_charge(b, BUDGET_INODE, 3 * MIB);
	budget_charge(b, BUDGET_TREE, 2 * MIB);
	assert_int_equal(budget_used(b, BUDGET_INODE), 3 * MIB);
	assert_int_equal(budget_used(b, BUDGET_TREE), 2 * MIB);
	assert_int_equal(budget_used(b, BUDGET_FOLIO), 0);
	assert_int_equal(test_budget_used(b), 5 * MIB);
	budget_uncharge(b, BUDGET_INODE, 3 * MIB);
	budget_uncharge(b, BUDGET_TREE, 2 * MIB);
	assert_int_equal(test_budget_used(b), 0);
	budget_destroy(b);
	assert_int_equal(atomic_load(&test_errors), 0);
}

static void test_limit_has_a_floor(void **state)
{
	struct budget *b = budget_new(1);

	assert_int_equal(budget_limit(b), 8 * MIB);
	budget_destroy(b);
}

static void test_leak_is_logged(void **state)
{
	struct budget *b = budget_new(LIMIT);

	atomic_store(&test_quiet, 1);
	budget_charge(b, BUDGET_BUFFER, 4096);
	budget_destroy(b);
	assert_int_equal(atomic_load(&test_errors), 1);
}

static void test_thread_reclaims_from_low_mark(void **state)
{
	struct budget *b = budget_new(LIMIT);
	struct pool p;

	pool_init(&p, b, BUDGET_FOLIO);
	/* Up to the low mark, limit - 1/8: nothing happens. */
	pool_grow(&p, LIMIT - LIMIT / 8);
	assert_int_equal(atomic_load(&p.scans), 0);
	pool_grow(&p, MIB);
	test_wait(&pool_event, budget_used_total(b) < LIMIT - LIMIT / 8 - LIMIT / 32);
	/* It stops there: most is kept. */
	assert_true(budget_used_total(b) > LIMIT / 2);
	pool_end(&p);
	budget_destroy(b);
	assert_int_equal(atomic_load(&test_errors), 0);
}

static void test_shrinkers_are_asked_in_proportion(void **state)
{
	struct budget *b = budget_new(LIMIT);
	struct pool big, small;

	pool_init(&big, b, BUDGET_FOLIO);
	pool_init(&small, b, BUDGET_INODE);
	pool_grow(&big, 9 * MIB);
	pool_grow(&small, 3 * MIB);
	/* Without a shrinker: counts, but nobody is asked for it. */
	budget_charge(b, BUDGET_TREE, 4 * MIB);
	test_wait(&pool_event, budget_used_total(b) <= LIMIT - LIMIT / 8);
	test_wait(&pool_event, !atomic_load(&small.inside) &&
				  atomic_load(&small.left) < 3 * MIB);
	/* 3 to 1, or as near as the reclaim mark lets us see. */
	assert_true(9 * MIB - atomic_load(&big.left) >
		    2 * (3 * MIB - atomic_load(&small.left)));
	budget_uncharge(b, BUDGET_TREE, 4 * MIB);
	pool_end(&small);
	pool_end(&big);
	budget_destroy(b);
	assert_int_equal(atomic_load(&test_errors), 0);
}

/* As long as the first has something, the other is left alone. */
static void test_some_shrinkers_go_first(void **state)
{
	struct budget *b = budget_new(LIMIT);
	struct pool first, other;

	pool_init(&other, b, BUDGET_INODE);
	pool_init(&first, b, BUDGET_FOLIO);
	first.s.first = true;
	pool_grow(&other, 8 * MIB);
	pool_grow(&first, 7 * MIB);
	test_wait(&pool_event, budget_used_total(b) <= LIMIT - LIMIT / 8);
	assert_int_equal(atomic_load(&other.left), 8 * MIB);
	assert_true(atomic_load(&first.left) < 7 * MIB);
	/* It has no more than this: the other must help. */
	pool_grow(&other, 8 * MIB);
	test_wait(&pool_event, budget_used_total(b) <= LIMIT - LIMIT / 8);
	assert_true(atomic_load(&other.left) < 16 * MIB);
	pool_end(&first);
	pool_end(&other);
	budget_destroy(b);
	assert_int_equal(atomic_load(&test_errors), 0);
}

static void test_throttle_reclaims_above_limit(void **state)
{
	struct budget *b = budget_new(LIMIT);
	struct pool p;

	pool_init(&p, b, BUDGET_BUFFER);
	for (int i = 0; i < 200; i++) {
		pool_grow(&p, MIB);
		budget_throttle(b);
		assert_true(budget_used_total(b) <= LIMIT);
	}
	pool_end(&p);
	budget_destroy(b);
	assert_int_equal(atomic_load(&test_errors), 0);
}

/* All is pinned: requests go on after a while, and nobody spins. */
static void test_nothing_to_free(void **state)
{
	struct budget *b = budget_new(LIMIT);
	struct pool p;
	u64 start, scans;

	pool_init(&p, b, BUDGET_FOLIO);
	budget_charge(b, BUDGET_FOLIO, 2 * LIMIT);
	start = clock_mono_ns();
	budget_throttle(b);
	assert_true(clock_mono_ns() - start > 50 * TEST_NS_PER_MS);
	/* One per nap in the throttle, and few of the thread: one a second in the end. */
	scans = atomic_load(&p.scans);
	assert_true(scans < 60 + (clock_mono_ns() - start) / (500 * TEST_NS_PER_MS));
	budget_uncharge(b, BUDGET_FOLIO, 2 * LIMIT);
	pool_end(&p);
	budget_destroy(b);
	assert_int_equal(atomic_load(&test_errors), 0);
}

/* The thread has backed off; when something can be freed it goes on. */
static void test_reclaim_resumes_after_back_off(void **state)
{
	struct budget *b = budget_new(LIMIT);
	struct pool p;

	pool_init(&p, b, BUDGET_FOLIO);
	budget_charge(b, BUDGET_FOLIO, LIMIT);
	test_wait(&pool_event, atomic_load(&p.scans) >= 5);
	atomic_store(&p.left, LIMIT);
	test_wait(&pool_event, budget_used_total(b) <= LIMIT - LIMIT / 8);
	pool_end(&p);
	budget_destroy(b);
	assert_int_equal(atomic_load(&test_errors), 0);
}

static void test_scan_may_throttle(void **state)
{
	struct budget *b = budget_new(LIMIT);
	struct pool p;

	pool_init(&p, b, BUDGET_FOLIO);
	p.nest = true;
	pool_grow(&p, 2 * LIMIT);
	budget_throttle(b);
	assert_true(budget_used_total(b) <= LIMIT);
	pool_end(&p);
	budget_destroy(b);
}

static void unblock(void *arg)
{
	struct pool *p = arg;

	wait_event(&pool_event, atomic_load(&p->inside));
	atomic_store(&p->block, false);
	wake_up(&pool_event);
}

static void drop(void *arg)
{
	struct pool *p = arg;

	budget_drop_all(p->b);
}

static void test_unregister_waits_for_scans(void **state)
{
	struct budget *b = budget_new(LIMIT);
	struct thread *scanner, *helper;
	struct pool p;

	pool_init(&p, b, BUDGET_FOLIO);
	pool_grow(&p, MIB);
	atomic_store(&p.block, true);
	assert_int_equal(thread_create(&scanner, "scan", drop, &p), 0);
	test_wait(&pool_event, atomic_load(&p.inside));
	assert_int_equal(thread_create(&helper, "unblock", unblock, &p), 0);
	budget_unregister(b, &p.s);
	assert_false(atomic_load(&p.inside));
	thread_join(helper);
	thread_join(scanner);
	budget_uncharge(b, BUDGET_FOLIO, atomic_load(&p.left));
	budget_destroy(b);
	assert_int_equal(atomic_load(&test_errors), 0);
}

static void test_drop_all_frees_everything(void **state)
{
	struct budget *b = budget_new(LIMIT);
	struct pool p, q;

	pool_init(&p, b, BUDGET_FOLIO);
	pool_init(&q, b, BUDGET_INODE);
	pool_grow(&p, 5 * MIB);
	pool_grow(&q, MIB);
	assert_int_equal(budget_drop_all(b), 6 * MIB);
	assert_int_equal(test_budget_used(b), 0);
	assert_int_equal(budget_drop_all(b), 0);
	pool_end(&q);
	pool_end(&p);
	budget_destroy(b);
	assert_int_equal(atomic_load(&test_errors), 0);
}

/* The kernel knows many inodes: caches keep half, and no request waits. */
static void test_index_is_not_waited_for(void **state)
{
	struct budget *b = budget_new(LIMIT);
	u32 scans = own_scans;
	struct pool p;

	pool_init(&p, b, BUDGET_FOLIO);
	budget_charge(b, BUDGET_INDEX, 4 * (s64)LIMIT);
	assert_false(budget_is_full(b));
	pool_grow(&p, LIMIT / 4);
	for (int i = 0; i < 10; i++)
		budget_throttle(b);
	assert_int_equal(own_scans, scans);
	assert_int_equal(atomic_load(&p.left), LIMIT / 4);

	/* The thread alone. */
	pool_grow(&p, LIMIT);
	test_wait(&pool_event, !budget_is_full(b));
	assert_true(atomic_load(&p.left) <= LIMIT / 2 + LIMIT / 32);
	assert_true(atomic_load(&p.left) > LIMIT / 8);

	/* A request alone: both at once may free twice what is due. */
	atomic_store(&p.hold, true);
	is_request = true;
	pool_grow(&p, LIMIT);
	budget_throttle(b);
	assert_false(budget_is_full(b));
	assert_true(atomic_load(&p.left) <= LIMIT / 2 + LIMIT / 32);
	assert_true(atomic_load(&p.left) > LIMIT / 8);
	is_request = false;
	atomic_store(&p.hold, false);
	wake_up(&pool_event);
	budget_uncharge(b, BUDGET_INDEX, 4 * (s64)LIMIT);
	pool_end(&p);
	budget_destroy(b);
	assert_int_equal(atomic_load(&test_errors), 0);
}

static void test_limit_follows_the_user(void **state)
{
	struct budget *b = budget_new(4 * LIMIT);
	struct pool p;
	u32 scans;

	pool_init(&p, b, BUDGET_FOLIO);
	pool_grow(&p, 3 * LIMIT);
	assert_int_equal(budget_set_limit(b, LIMIT), LIMIT);
	assert_int_equal(budget_limit(b), LIMIT);
	/* The thread alone comes down to the new marks. */
	test_wait(&pool_event, budget_used_total(b) < LIMIT - LIMIT / 8);
	assert_true(budget_used_total(b) > LIMIT / 2);
	/* It has a floor, and requests keep below it. */
	assert_int_equal(budget_set_limit(b, 0), 8 * MIB);
	pool_grow(&p, LIMIT);
	budget_throttle(b);
	assert_true(budget_used_total(b) <= 8 * MIB);

	assert_int_equal(budget_set_limit(b, 2 * LIMIT), 2 * LIMIT);
	pool_grow(&p, LIMIT);
	assert_false(budget_is_full(b));
	/* The thread may still be at what it thought was due before. */
	scans = own_scans;
	budget_throttle(b);
	assert_int_equal(own_scans, scans);
	pool_end(&p);
	assert_int_equal(test_budget_used(b), 0);
	budget_destroy(b);
	assert_int_equal(atomic_load(&test_errors), 0);
}

static void hammer(void *arg)
{
	struct pool *p = arg;

	for (int i = 0; i < TEST_LOAD(4000); i++) {
		pool_grow(p, 64 << 10);
		budget_throttle(p->b);
	}
}

static void test_bound_holds_under_load(void **state)
{
	struct budget *b = budget_new(LIMIT);
	struct thread *t[4];
	struct pool p;

	pool_init(&p, b, BUDGET_FOLIO);
	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		assert_int_equal(thread_create(&t[i], "hammer", hammer, &p), 0);
	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		thread_join(t[i]);
	assert_true(budget_used_total(b) <= LIMIT + LIMIT / 16);
	pool_end(&p);
	assert_int_equal(test_budget_used(b), 0);
	budget_destroy(b);
	assert_int_equal(atomic_load(&test_errors), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_charges_are_counted_by_kind),
		cmocka_unit_test(test_limit_has_a_floor),
		cmocka_unit_test(test_leak_is_logged),
		cmocka_unit_test(test_thread_reclaims_from_low_mark),
		cmocka_unit_test(test_shrinkers_are_asked_in_proportion),
		cmocka_unit_test(test_some_shrinkers_go_first),
		cmocka_unit_test(test_throttle_reclaims_above_limit),
		cmocka_unit_test(test_nothing_to_free),
		cmocka_unit_test(test_reclaim_resumes_after_back_off),
		cmocka_unit_test(test_scan_may_throttle),
		cmocka_unit_test(test_unregister_waits_for_scans),
		cmocka_unit_test(test_drop_all_frees_everything),
		cmocka_unit_test(test_index_is_not_waited_for),
		cmocka_unit_test(test_limit_follows_the_user),
		cmocka_unit_test(test_bound_holds_under_load),
	};

	thread_register();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
