/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/cache/test_zone.c - zones: accounts, borrowing, who is reclaimed from
 *
 * The shrinker here owns a number of bytes in each zone and frees what it is
 * asked for, of that zone.
 */
#include "tests/unit/cache/cache_test.h"
#include "cache/shrinker.h"

#define MIB (1u << 20)
#define LIMIT (16u * MIB)
#define LOW (LIMIT - LIMIT / 8)
#define GOAL (LOW - LIMIT / 16)
#define ZONES 4u
#define SHARE (LIMIT / ZONES)
#define OBJECT (16u << 10)

/* Key of all waits: a scan ended. */
static int pool_event;

/* This thread reclaims for itself. */
static _Thread_local bool is_request;

static struct pool {
	struct shrinker s;
	struct budget *b;
	_Atomic s64 left[ZONES_MAX]; /* bytes it can free; charged */
	_Atomic u32 scans[ZONES_MAX];
	_Atomic bool hold;           /* the zones' threads wait for this to go */
} pool, other;

static u64 pool_scan(struct shrinker *s, struct shrink_control *sc)
{
	struct pool *p = s->priv;
	s64 left = atomic_load(&p->left[sc->zone]), bytes;

	wait_event(&p->hold, is_request || !atomic_load(&p->hold));
	atomic_fetch_add(&p->scans[sc->zone], 1);
	do {
		bytes = sc->bytes > (u64)left ? left : (s64)sc->bytes;
	} while (!atomic_compare_exchange_weak(&p->left[sc->zone], &left,
					       left - bytes));
	if (bytes)
		zone_uncharge(p->b, sc->zone, s->kind, bytes);
	sc->scanned += (u64)bytes / OBJECT;
	sc->rotated++;
	wake_up(&pool_event);
	return (u64)bytes;
}

static u64 pool_count(const struct shrinker *s, u32 zone)
{
	const struct pool *p = s->priv;

	return (u64)atomic_load(&p->left[zone]) / OBJECT;
}

static void pool_init(struct pool *p, struct budget *b, enum budget_kind kind)
{
	memset(p, 0, sizeof(*p));
	p->b = b;
	p->s = (struct shrinker){
		.name = "pool", .kind = kind, .scan = pool_scan,
		.count = pool_count, .priv = p,
	};
	budget_register(b, &p->s);
}

static void pool_grow(struct pool *p, u32 zone, s64 bytes)
{
	atomic_fetch_add(&p->left[zone], bytes);
	zone_charge(p->b, zone, p->s.kind, bytes);
}

static u32 all_scans(const struct pool *p)
{
	u32 scans = 0;

	for (u32 zone = 0; zone < ZONES_MAX; zone++)
		scans += atomic_load(&p->scans[zone]);
	return scans;
}

static void pool_end(struct pool *p)
{
	budget_unregister(p->b, &p->s);
	for (u32 zone = 0; zone < zone_count(p->b); zone++)
		zone_uncharge(p->b, zone, p->s.kind,
			      atomic_exchange(&p->left[zone], 0));
}

static struct budget *budget_new(u32 zones)
{
	struct budget *b;

	test_log_begin();
	assert_int_equal(budget_create(LIMIT, zones, &b), 0);
	pool_init(&pool, b, BUDGET_INODE);
	return b;
}

static void budget_end(struct budget *b)
{
	pool_end(&pool);
	assert_int_equal(test_budget_used(b), 0);
	budget_destroy(b);
	assert_int_equal(atomic_load(&test_errors), 0);
}

/* Returns when the scans under way are through, and are counted. */
static void scans_end(struct budget *b)
{
	budget_unregister(b, &pool.s);
	budget_register(b, &pool.s);
}

/* ---- accounts ---- */

static void test_each_zone_has_its_account(void **state)
{
	struct budget *b = budget_new(ZONES);
	struct zone_stats st;

	assert_int_equal(zone_count(b), ZONES);
	assert_null(zone_nodes(b));
	zone_charge(b, 1, BUDGET_INODE, 3 * MIB);
	zone_charge(b, 3, BUDGET_INODE, 1000);
	zone_charge(b, 3, BUDGET_FOLIO, MIB);
	budget_charge(b, BUDGET_TREE, MIB);
	assert_int_equal(budget_used(b, BUDGET_INODE), 3 * MIB + 1000);
	assert_int_equal(zone_used(b, 0, BUDGET_INODE), 0);
	assert_int_equal(zone_used(b, 1, BUDGET_INODE), 3 * MIB);
	assert_int_equal(zone_used(b, 3, BUDGET_INODE), 1000);
	assert_int_equal(test_budget_used(b), 5 * MIB + 1000);
	zone_get_stats(b, 3, &st);
	assert_int_equal(st.used[BUDGET_FOLIO], MIB);
	assert_int_equal(st.node, -1);
	assert_int_equal(st.share, SHARE);
	assert_int_equal(st.borrowed, 0);
	/* Other batches: what was not folded is not lost. */
	budget_set_limit(b, 64 * MIB);
	assert_int_equal(zone_used(b, 3, BUDGET_INODE), 1000);
	assert_int_equal(budget_used(b, BUDGET_INODE), 3 * MIB + 1000);
	budget_uncharge(b, BUDGET_TREE, MIB);
	zone_uncharge(b, 3, BUDGET_FOLIO, MIB);
	zone_uncharge(b, 3, BUDGET_INODE, 1000);
	zone_uncharge(b, 1, BUDGET_INODE, 3 * MIB);
	budget_end(b);
}

static void test_a_leak_in_a_zone_is_told(void **state)
{
	struct budget *b = budget_new(ZONES);

	atomic_store(&test_quiet, 1);
	pool_end(&pool);
	zone_charge(b, 2, BUDGET_BUFFER, 1);
	budget_destroy(b);
	assert_int_equal(atomic_load(&test_errors), 1);
}

static void home_main(void *arg)
{
	*(u32 *)arg = zone_home(pool.b);
	thread_check(zone_home(pool.b) == *(u32 *)arg);
}

static void test_threads_have_homes(void **state)
{
	struct budget *b = budget_new(ZONES);
	u32 home[ZONES], seen = 0;

	for (u32 i = 0; i < ZONES; i++) {
		struct thread *t;

		assert_int_equal(thread_create(&t, "home", home_main, &home[i]),
				 0);
		thread_join(t);
		assert_true(home[i] < ZONES);
		seen |= 1u << home[i];
	}
	/* One after the other: each zone got one. */
	assert_int_equal(seen, (1u << ZONES) - 1);
	zone_set_home(2);
	assert_int_equal(zone_home(b), 2);
	zone_set_home(2 + ZONES);
	assert_int_equal(zone_home(b), 2);
	assert_in_range(zone_lists(b), 1, 16);
	budget_end(b);
}

static void test_the_machine_has_a_zone(void **state)
{
	struct budget *b = budget_new(0);
	u32 zones = zone_count(b);
	struct zone_stats st;

	assert_in_range(zones, 1, ZONES_MAX);
	assert_true(zone_home(b) < zones);
	assert_true(!zone_nodes(b) == (zones == 1));
	for (u32 zone = 0; zone < zones; zone++) {
		pool_grow(&pool, zone, MIB / zones);
		zone_get_stats(b, zone, &st);
		assert_int_equal(st.used[BUDGET_INODE], MIB / zones);
	}
	budget_drop_all(b);
	assert_int_equal(test_budget_used(b), 0);
	budget_end(b);
	/* More than there may be. */
	b = budget_new(1000);
	assert_int_equal(zone_count(b), ZONES_MAX);
	budget_end(b);
}

/* ---- reclaim ---- */

static void test_a_zone_borrows_what_others_leave(void **state)
{
	struct budget *b = budget_new(ZONES);
	struct zone_stats st;

	pool_grow(&pool, 1, 3 * SHARE);
	assert_false(budget_is_full(b));
	budget_throttle(b);
	zone_get_stats(b, 1, &st);
	assert_int_equal(st.borrowed, 2 * SHARE);
	assert_int_equal(st.lru[BUDGET_INODE], 3 * SHARE / OBJECT);
	assert_int_equal(st.passes, 0);
	zone_get_stats(b, 0, &st);
	assert_int_equal(st.borrowed, 0);
	assert_int_equal(all_scans(&pool), 0);
	budget_end(b);
}

static void test_who_borrowed_gives_first(void **state)
{
	struct budget *b = budget_new(ZONES);
	struct zone_stats st;

	pool_grow(&pool, 0, 9 * MIB);
	pool_grow(&pool, 1, 2 * MIB);
	pool_grow(&pool, 2, MIB);
	assert_int_equal(all_scans(&pool), 0);
	/* Above the low mark, by a zone that is far below its share. */
	pool_grow(&pool, 3, 3 * MIB);
	test_wait(&pool_event, budget_used_total(b) <= GOAL + LIMIT / 64);
	assert_int_equal(atomic_load(&pool.left[1]), 2 * MIB);
	assert_int_equal(atomic_load(&pool.left[2]), MIB);
	assert_int_equal(atomic_load(&pool.left[3]), 3 * MIB);
	assert_true(atomic_load(&pool.left[0]) > 6 * (s64)MIB);
	scans_end(b);
	zone_get_stats(b, 0, &st);
	assert_true(st.background > 0 && st.scanned > 0 && st.rotated > 0);
	assert_int_equal(st.direct, 0);
	budget_end(b);
}

static void test_all_give_down_to_their_share(void **state)
{
	struct budget *b = budget_new(ZONES);

	for (u32 zone = 0; zone < ZONES; zone++)
		pool_grow(&pool, zone, 15 * MIB / ZONES);
	test_wait(&pool_event, budget_used_total(b) <= GOAL + LIMIT / 64);
	for (u32 zone = 0; zone < ZONES; zone++) {
		assert_true(atomic_load(&pool.left[zone]) < 15 * MIB / ZONES);
		assert_true(atomic_load(&pool.left[zone]) > (s64)SHARE / 2);
	}
	budget_end(b);
}

/* What is above its share and can't be freed is made up for by the others. */
static void test_others_give_for_who_cannot(void **state)
{
	struct budget *b = budget_new(ZONES);

	zone_charge(b, 0, BUDGET_INODE, 11 * MIB);
	for (u32 zone = 1; zone < ZONES; zone++)
		pool_grow(&pool, zone, 15 * MIB / 10);
	test_wait(&pool_event, budget_used_total(b) <= LOW);
	zone_uncharge(b, 0, BUDGET_INODE, 11 * MIB);
	budget_end(b);
}

/* Tree nodes, say: each zone has to give for them. */
static void test_memory_of_no_zone_counts_in_all(void **state)
{
	struct budget *b = budget_new(ZONES);

	budget_charge(b, BUDGET_TREE, 11 * MIB);
	pool_grow(&pool, 2, 4 * MIB);
	test_wait(&pool_event, budget_used_total(b) <= LOW);
	assert_true(atomic_load(&pool.left[2]) < 4 * (s64)MIB);
	budget_uncharge(b, BUDGET_TREE, 11 * MIB);
	budget_end(b);
}

static void test_who_goes_first_does_so_in_all_zones(void **state)
{
	struct budget *b = budget_new(ZONES);

	pool_init(&other, b, BUDGET_FOLIO);
	other.s.first = true;
	pool_grow(&other, 3, 3 * MIB);
	pool_grow(&pool, 0, 12 * MIB);
	test_wait(&pool_event, budget_used_total(b) <= LOW);
	/* As long as it is there, and has enough. */
	assert_int_equal(all_scans(&pool), 0);
	assert_int_equal(atomic_load(&pool.left[0]), 12 * MIB);
	pool_end(&other);
	budget_end(b);
}

/* The zones' threads are held up: the request has to do it. */
static void test_a_request_frees_what_was_borrowed(void **state)
{
	struct budget *b = budget_new(ZONES);
	struct zone_stats st;

	atomic_store(&pool.hold, true);
	is_request = true;
	zone_set_home(1);
	pool_grow(&pool, 1, 2 * MIB);
	pool_grow(&pool, 2, 14 * MIB);
	assert_true(budget_is_full(b));
	budget_throttle(b);
	assert_false(budget_is_full(b));
	assert_int_equal(atomic_load(&pool.left[1]), 2 * MIB);
	zone_get_stats(b, 2, &st);
	assert_true(st.direct > 0);
	is_request = false;
	atomic_store(&pool.hold, false);
	wake_up(&pool.hold);
	budget_end(b);
}

static void test_drop_empties_all_zones(void **state)
{
	struct budget *b = budget_new(ZONES);

	pool_init(&other, b, BUDGET_FOLIO);
	for (u32 zone = 0; zone < ZONES; zone++) {
		pool_grow(&pool, zone, MIB);
		pool_grow(&other, zone, 2 * MIB);
	}
	assert_int_equal(budget_drop(b, BUDGET_FOLIO), 2 * MIB * ZONES);
	for (u32 zone = 0; zone < ZONES; zone++)
		assert_int_equal(zone_used(b, zone, BUDGET_FOLIO), 0);
	assert_int_equal(budget_drop_all(b), MIB * ZONES);
	assert_int_equal(test_budget_used(b), 0);
	pool_end(&other);
	budget_end(b);
}

/* ---- threads of all zones ---- */

static _Atomic u64 highest;

static void note_sum(void)
{
	u64 used = test_budget_used(pool.b), seen = atomic_load(&highest);

	while (used > seen &&
	       !atomic_compare_exchange_weak(&highest, &seen, used))
		;
}

static void grow_main(void *arg)
{
	u32 zone = (u32)(uintptr_t)arg;

	zone_set_home(zone);
	for (u32 i = 0; i < TEST_LOAD(8000u); i++) {
		budget_throttle(pool.b);
		pool_grow(&pool, zone_home(pool.b), OBJECT);
		note_sum();
	}
}

static void test_the_sum_stays_below_the_limit(void **state)
{
	struct budget *b = budget_new(8);
	struct thread *t[8];

	atomic_store(&highest, 0);
	for (uintptr_t i = 0; i < 8; i++)
		assert_int_equal(thread_create(&t[i], "grow", grow_main,
					       (void *)i), 0);
	for (u32 i = 0; i < 8; i++)
		thread_join(t[i]);
	assert_true(atomic_load(&highest) > LIMIT / 2);
	assert_true(atomic_load(&highest) <= LIMIT);
	budget_end(b);
}

/* ---- statistics ---- */

static void test_statistics_as_text(void **state)
{
	struct budget *b = budget_new(2);
	char text[4096], small[64];
	size_t n;

	pool_grow(&pool, 1, 10 * MIB);
	n = zone_stats_text(b, text, sizeof(text));
	assert_int_equal(strlen(text), n);
	assert_ptr_equal(strstr(text, "zones 2\n"), text);
	assert_non_null(strstr(text, "\nzone.1.inode_bytes 10485760\n"));
	assert_non_null(strstr(text, "\nzone.1.borrowed 2097152\n"));
	assert_non_null(strstr(text, "\nzone.0.rotated 0\n"));
	/* Whole lines, as many as fit. */
	n = zone_stats_text(b, small, sizeof(small));
	assert_true(n > 8 && n < sizeof(small));
	assert_int_equal(small[n - 1], '\n');
	assert_memory_equal(small, text, n);
	assert_int_equal(zone_stats_text(b, small, 4), 0);
	budget_end(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_zone_has_its_account),
		cmocka_unit_test(test_a_leak_in_a_zone_is_told),
		cmocka_unit_test(test_threads_have_homes),
		cmocka_unit_test(test_the_machine_has_a_zone),
		cmocka_unit_test(test_a_zone_borrows_what_others_leave),
		cmocka_unit_test(test_who_borrowed_gives_first),
		cmocka_unit_test(test_all_give_down_to_their_share),
		cmocka_unit_test(test_others_give_for_who_cannot),
		cmocka_unit_test(test_memory_of_no_zone_counts_in_all),
		cmocka_unit_test(test_who_goes_first_does_so_in_all_zones),
		cmocka_unit_test(test_a_request_frees_what_was_borrowed),
		cmocka_unit_test(test_drop_empties_all_zones),
		cmocka_unit_test(test_the_sum_stays_below_the_limit),
		cmocka_unit_test(test_statistics_as_text),
	};

	thread_register();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
