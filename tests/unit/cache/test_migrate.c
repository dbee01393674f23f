/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/cache/test_migrate.c - folios move between pretended zones
 *
 * What moves, what stays and why, and that nobody notices: a hammer of readers,
 * writers, write-out, invalidation and reclaim over one file whose folios are moved about
 * all the time. HAMMER_MS sets how long, for each number of zones.
 */
#include "tests/unit/cache/cache_test.h"

#include "cache/mapping_internal.h"
#include "cache/migrate.h"
#include "cache/window.h"
#include "lib/counter.h"

#define BS 4096u
#define BLOCKS 2048u
#define LIMIT (64ull << 20)

static struct super_block sb;
static struct mapping m;

static void open_file(u32 zones)
{
	memset(&sb, 0, sizeof(sb));
	sb.s_blocksize = BS;
	sb.s_blocksize_bits = 12;
	sb.s_data_full = true;
	sb.s_dirty_bytes = counter_new(0, 1 << 20);
	assert_int_equal(budget_create(LIMIT, zones, &sb.s_budget), 0);
	assert_int_equal(mapping_cache_create(&sb, NULL), 0);
	mapping_init(&m, NULL, &sb);
	zone_set_home(0);
}

static void close_file(void)
{
	mapping_invalidate(&m, 0, LBLK_MAX);
	mapping_destroy(&m);
	mapping_cache_destroy(&sb);
	for (u32 z = 0; z < zone_count(sb.s_budget); z++)
		assert_int_equal(zone_used(sb.s_budget, z, BUDGET_FOLIO), 0);
	budget_destroy(sb.s_budget);
	counter_free(sb.s_dirty_bytes);
}

/* A block that says of each of its words which block it is, and which version. */
static void stamp(u64 *data, u32 block, u32 version)
{
	for (u32 i = 0; i < BS / sizeof(u64); i++)
		data[i] = (u64)version << 32 | block;
}

static void fill(u32 from, u32 nr, u32 version)
{
	u64 data[BS / sizeof(u64)], none[LEAF_WORDS] = { 0 };

	for (u32 b = from; b < from + nr; b++) {
		u32 reserved = 1;

		stamp(data, b, version);
		assert_int_equal(mapping_write(&m, (u64)b * BS, data, BS, none,
					       &reserved), BS);
	}
}

static void check(u32 from, u32 nr, u32 version)
{
	u64 data[BS / sizeof(u64)], want[BS / sizeof(u64)];

	for (u32 b = from; b < from + nr; b++) {
		stamp(want, b, version);
		assert_true(mapping_read_cached(&m, (u64)b * BS, data, BS));
		assert_memory_equal(data, want, BS);
	}
}

/* Bytes of folios in a zone, at least; the pool's rounding aside. */
static u64 in_zone(u32 zone)
{
	return zone_used(sb.s_budget, zone, BUDGET_FOLIO);
}

static void test_content_and_account_move(void **state)
{
	struct migration mig = { 0 };
	u64 all;

	open_file(3);
	fill(0, 700, 1);
	all = in_zone(0);
	assert_true(all >= 700 * BS);
	mapping_migrate(&m, 100, 600, 2, &mig);
	assert_int_equal(mig.moved, 500);
	assert_int_equal(mig.tried, 500);
	check(0, 700, 1);
	assert_int_equal(in_zone(0) + in_zone(2), all);
	assert_int_equal(in_zone(2), all / 700 * 500);
	/* Once more: all is there already. */
	mapping_migrate(&m, 100, 600, 2, &mig);
	assert_int_equal(mig.tried, 500);
	mapping_migrate(&m, 0, (u64)LBLK_MAX + 1, 1, &mig);
	assert_int_equal(in_zone(1), all);
	check(0, 700, 1);
	assert_int_equal(mapping_counter_read(&sb, MIGRATE_MOVED), 1200);
	close_file();
}

/* Folios of several blocks, some of which were dropped. */
static void test_large_folios(void **state)
{
	static u64 data[64 * 1024 / sizeof(u64)];
	u64 none[LEAF_WORDS] = { 0 };
	u32 reserved = 16;
	struct migration mig = { 0 };
	char back[BS];

	open_file(2);
	memset(data, 'x', sizeof(data));
	assert_int_equal(mapping_write(&m, 16 * BS, data, sizeof(data), none, &reserved),
			 sizeof(data));
	mapping_invalidate(&m, 20, 22);
	fill(20, 1, 9);
	/* Begins in the middle of the folio. */
	mapping_migrate(&m, 25, 26, 1, &mig);
	assert_int_equal(mig.moved, 1);
	check(20, 1, 9);
	assert_true(mapping_read_cached(&m, 31 * BS, back, BS));
	assert_memory_equal(back, data, BS);
	assert_false(mapping_read_cached(&m, 21 * BS, back, BS));
	mapping_migrate(&m, 0, BLOCKS, 1, &mig);
	assert_int_equal(mig.moved, 2);
	assert_int_equal(in_zone(0), 0);
	assert_int_equal(atomic_load(&m.m_nr_dirty), 15);
	close_file();
}

static void test_what_is_on_its_way_stays(void **state)
{
	struct migration mig = { 0 };
	struct wb_run run;
	u64 data[BS / sizeof(u64)];

	open_file(2);
	fill(0, 32, 1);
	mapping_take_dirty(&m, 8, 12, 4, false, &run);
	assert_int_equal(run.nr, 4);
	mapping_migrate(&m, 0, 32, 1, &mig);
	assert_int_equal(mig.moved, 28);
	assert_int_equal(mig.busy, 4);
	/* Written again meanwhile; what the device reads is still there. */
	fill(8, 2, 2);
	stamp(data, 10, 1);
	assert_memory_equal(run.seg[2].data, data, BS);
	mapping_set_mapped(&m, run.lblk, run.nr);
	mapping_end_writeback(&m, run.lblk, run.nr, false);
	check(8, 2, 2);
	check(10, 22, 1);
	mapping_migrate(&m, 0, 32, 1, &mig);
	assert_int_equal(mig.moved, 32);
	assert_int_equal(in_zone(0), 0);
	/* Dirty is what it was. */
	assert_int_equal(atomic_load(&m.m_nr_dirty), 30);
	check(8, 2, 2);
	close_file();
}

static void test_what_is_pinned_stays(void **state)
{
	struct migration mig = { 0 };
	struct map_leaf *leaf;
	struct folio *f;

	open_file(2);
	fill(0, 4, 1);
	leaf = leaf_lock(&m, 0);
	f = leaf_folio(leaf, 2);
	atomic_fetch_add(&f->f_refs, 1);
	leaf_unlock(leaf);
	mapping_migrate(&m, 0, 4, 1, &mig);
	assert_int_equal(mig.moved, 3);
	assert_int_equal(mig.pinned, 1);
	atomic_fetch_sub(&f->f_refs, 1);
	mapping_migrate(&m, 0, 4, 1, &mig);
	assert_int_equal(mig.moved, 4);
	assert_int_equal(mapping_counter_read(&sb, MIGRATE_PINNED), 1);
	close_file();
}

/* A clean folio that moved is on the LRU of its new zone. */
static void test_reclaim_finds_what_moved(void **state)
{
	struct wb_run run;

	open_file(2);
	fill(0, 64, 1);
	do {
		mapping_take_dirty(&m, 0, 64, 64, false, &run);
		if (run.nr) {
			mapping_set_mapped(&m, run.lblk, run.nr);
			mapping_end_writeback(&m, run.lblk, run.nr, false);
		}
	} while (run.nr);
	mapping_migrate(&m, 0, 64, 1, NULL);
	assert_int_equal(in_zone(0), 0);
	check(0, 64, 1);
	budget_drop_all(sb.s_budget);
	assert_int_equal(in_zone(1), 0);
	assert_int_equal(atomic_load(&m.m_nr_folio_blocks), 0);
	close_file();
}

/* Who reads from where, as the balancer asks. */
static void test_windows_know_the_zone(void **state)
{
	struct access a, b;
	u32 here, elsewhere;

	open_file(3);
	access_init(&a, WINDOW_READ);
	access_init(&b, WINDOW_READ);
	zone_set_home(1);
	for (u64 i = 0; i < 4; i++)
		access_note(&a, &m, i << 20, 1 << 20);
	zone_set_home(2);
	for (u64 i = 0; i < 4; i++)
		access_note(&b, &m, i << 20, 1 << 20);
	assert_true(windows_read_from(&m, 512, 600, 1, &here, &elsewhere));
	assert_int_equal(here, 1);
	assert_int_equal(elsewhere, 1);
	access_end(&b, &m);
	assert_true(windows_read_from(&m, 512, 600, 1, &here, &elsewhere));
	assert_int_equal(here, 1);
	assert_int_equal(elsewhere, 0);
	access_end(&a, &m);
	assert_true(windows_read_from(&m, 0, UINT32_MAX, 1, &here, &elsewhere));
	assert_int_equal(here + elsewhere, 0);
	close_file();
}

/* ---- hammer ---- */

#define WRITERS 2u

static _Atomic bool stop_all;
static _Atomic u32 version[BLOCKS]; /* written last, at least */
static _Atomic u64 moved, reads;

/* Each has its blocks: versions only grow. */
static void writer(void *arg)
{
	u32 mine = (u32)(uintptr_t)arg % WRITERS, v = 1;
	u64 seed = mine + 77, data[BS / sizeof(u64)], none[LEAF_WORDS] = { 0 };

	while (!atomic_load(&stop_all)) {
		u32 b = (u32)(test_random(&seed) % (BLOCKS / WRITERS)) * WRITERS + mine;
		u32 reserved = 1;
		s64 n;

		stamp(data, b, ++v);
		n = mapping_overwrite(&m, (u64)b * BS, data, BS, 0);
		if (n != BS)
			n = mapping_write(&m, (u64)b * BS, data, BS, none, &reserved);
		thread_check(n == BS);
		atomic_store(&version[b], v);
	}
}

/* A block is of one version, not older than one that was there before. */
static void reader(void *arg)
{
	u64 seed = (uintptr_t)arg + 999, data[BS / sizeof(u64)];

	zone_set_home((u32)(uintptr_t)arg);
	while (!atomic_load(&stop_all)) {
		u32 b = (u32)(test_random(&seed) % BLOCKS);
		u32 least = atomic_load(&version[b]);

		if (!mapping_read_cached(&m, (u64)b * BS, data, BS))
			continue;
		atomic_fetch_add(&reads, 1);
		for (u32 i = 0; i < BS / sizeof(u64); i++)
			thread_check(data[i] == data[0]);
		thread_check((u32)data[0] == b);
		thread_check((u32)(data[0] >> 32) >= least);
	}
}

static void mover(void *arg)
{
	u64 seed = (uintptr_t)arg + 31;

	while (!atomic_load(&stop_all)) {
		lblk_t at = (lblk_t)(test_random(&seed) % BLOCKS);
		struct migration mig = { 0 };

		mapping_migrate(&m, at, at + 256,
				(u32)(test_random(&seed) % zone_count(sb.s_budget)), &mig);
		thread_check(mig.tried == mig.moved + mig.busy + mig.pinned +
						  mig.changed + mig.nomem);
		atomic_fetch_add(&moved, mig.moved);
	}
}

/* Write-out, reclaim, and a range that is taken away now and then. */
static void rest(void *arg)
{
	u64 seed = 5;

	while (!atomic_load(&stop_all)) {
		lblk_t at = (lblk_t)(test_random(&seed) % BLOCKS);
		struct wb_run run;

		mapping_take_dirty(&m, at, BLOCKS, 64, false, &run);
		if (run.nr) {
			mapping_set_mapped(&m, run.lblk, run.nr);
			mapping_end_writeback(&m, run.lblk, run.nr,
					      test_random(&seed) % 8 == 0);
		}
		if (test_random(&seed) % 16 == 0)
			mapping_invalidate(&m, at, at + 20);
		if (test_random(&seed) % 64 == 0)
			budget_drop_all(sb.s_budget);
	}
}

static void hammer(u32 zones)
{
	static void (*const fn[])(void *) = { writer, writer, reader, reader,
					      mover,  mover,  rest };
	const char *given = getenv("HAMMER_MS");
	u64 ms = given ? strtoull(given, NULL, 0) : TEST_LOAD(1200);
	u64 until = clock_mono_ns() + ms * TEST_NS_PER_MS;
	struct thread *t[ARRAY_SIZE(fn)];

	open_file(zones);
	memset(version, 0, sizeof(version));
	atomic_store(&stop_all, false);
	atomic_store(&moved, 0);
	atomic_store(&reads, 0);
	for (uintptr_t i = 0; i < ARRAY_SIZE(fn); i++)
		assert_int_equal(thread_create(&t[i], "hammer", fn[i], (void *)i), 0);
	while (clock_mono_ns() < until)
		(void)wait_event_deadline(&until, false, until);
	/* However little of that they ran. */
	while (zones > 1 && !atomic_load(&moved))
		sched_yield();
	atomic_store(&stop_all, true);
	for (u32 i = 0; i < ARRAY_SIZE(fn); i++)
		thread_join(t[i]);
	print_message("%u zones: %llu reads, %llu folios moved\n", zones,
		      (unsigned long long)atomic_load(&reads),
		      (unsigned long long)atomic_load(&moved));
	assert_int_equal(atomic_load(&moved) > 0, zones > 1);
	close_file();
}

static void test_hammer(void **state)
{
	hammer(1);
	hammer(2);
	hammer(8);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_content_and_account_move),
		cmocka_unit_test(test_large_folios),
		cmocka_unit_test(test_what_is_on_its_way_stays),
		cmocka_unit_test(test_what_is_pinned_stays),
		cmocka_unit_test(test_reclaim_finds_what_moved),
		cmocka_unit_test(test_windows_know_the_zone),
		cmocka_unit_test(test_hammer),
	};
	int ret;

	thread_register();
	ret = cmocka_run_group_tests(tests, NULL, NULL);
	thread_unregister();
	return ret;
}
