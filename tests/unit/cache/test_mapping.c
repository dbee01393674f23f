/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/cache/test_mapping.c - the page cache of a file
 *
 * Behaviour one by one; a random single-threaded run against a model (a flat
 * array with marks); and a hammer of writers, readers, write-out, shrinker and
 * invalidator over one file. The budget is a fake that only counts and keeps
 * the shrinker; memory failures come through the linker's --wrap.
 *
 * Usage: as a cmocka test; SEED=n repeats a random run, HAMMER_MS sets its length.
 */
#include "tests/unit/unit.h"

#include "cache/shrinker.h"
#include "cache/zone.h"
#include "cache/icache.h"
#include "cache/mapping.h"
#include "cache/region.h"
#include "cache/window.h"
#include "lib/bitmap.h"
#include "lib/counter.h"
#include "lib/thread.h"
#include "lib/wait.h"
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>

/* ---- a budget that counts; its zones take turns ---- */

struct budget {
	_Atomic s64 used[BUDGET_KINDS];
	_Atomic s64 in_zone[ZONES_MAX];
	_Atomic u32 next;
	struct shrinker *shrinker[BUDGET_KINDS];
};

void budget_charge(struct budget *b, enum budget_kind kind, s64 bytes)
{
	atomic_fetch_add(&b->used[kind], bytes);
}

void budget_uncharge(struct budget *b, enum budget_kind kind, s64 bytes)
{
	s64 old = atomic_fetch_sub(&b->used[kind], bytes);

	CHECK(old >= bytes);
}

u32 zone_count(const struct budget *b)
{
	const char *n = getenv("SLUICE_TEST_ZONES");

	return n ? (u32)atoi(n) : 1;
}

u32 zone_lists(const struct budget *b)
{
	return 2;
}

const int *zone_nodes(const struct budget *b)
{
	return NULL;
}

u32 zone_home(const struct budget *b)
{
	return atomic_fetch_add(&((struct budget *)b)->next, 1) % zone_count(b);
}

void zone_charge(struct budget *b, u32 zone, enum budget_kind kind, s64 bytes)
{
	CHECK(zone < zone_count(b));
	atomic_fetch_add(&b->in_zone[zone], bytes);
	budget_charge(b, kind, bytes);
}

void zone_uncharge(struct budget *b, u32 zone, enum budget_kind kind, s64 bytes)
{
	CHECK(atomic_fetch_sub(&b->in_zone[zone], bytes) >= bytes);
	budget_uncharge(b, kind, bytes);
}

void budget_register(struct budget *b, struct shrinker *s)
{
	CHECK(!b->shrinker[s->kind]);
	b->shrinker[s->kind] = s;
}

void budget_unregister(struct budget *b, struct shrinker *s)
{
	CHECK(b->shrinker[s->kind] == s);
	b->shrinker[s->kind] = NULL;
}

u64 budget_limit(const struct budget *b)
{
	return 64 << 20;
}

static u64 shrink_kind(struct budget *b, enum budget_kind kind, u64 bytes)
{
	struct shrink_control sc = { .bytes = bytes };
	u64 freed = 0;

	for (; sc.zone < zone_count(b) && freed < bytes; sc.zone++)
		freed += b->shrinker[kind]->scan(b->shrinker[kind], &sc);
	return freed;
}

static u64 shrink(struct budget *b, u64 bytes)
{
	return shrink_kind(b, BUDGET_FOLIO, bytes);
}

/* ---- allocations that fail on demand: those the cache uses (malloc() is
 * left alone for lib/rcu_tsan.c, which can't do without) ---- */

static _Thread_local long fail_after = -1; /* successes before each failure */

static bool alloc_fails(void)
{
	if (fail_after < 0)
		return false;
	if (fail_after == 0)
		return true;
	fail_after--;
	return false;
}

void *__real_calloc(size_t n, size_t size);
void *__real_aligned_alloc(size_t align, size_t n);
void *__real_mmap(void *addr, size_t n, int prot, int flags, int fd, off_t off);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_aligned_alloc(size_t align, size_t n);
void *__wrap_mmap(void *addr, size_t n, int prot, int flags, int fd, off_t off);

void *__wrap_calloc(size_t n, size_t size)
{
	return alloc_fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_aligned_alloc(size_t align, size_t n)
{
	return alloc_fails() ? NULL : __real_aligned_alloc(align, n);
}

void *__wrap_mmap(void *addr, size_t n, int prot, int flags, int fd, off_t off)
{
	return alloc_fails() ? MAP_FAILED
			     : __real_mmap(addr, n, prot, flags, fd, off);
}

/* ---- a volume with one file ---- */

struct vol {
	struct super_block sb;
	struct budget budget;
	struct mapping m;
};

static const u64 none_mapped[LEAF_WORDS];
static u64 all_mapped[LEAF_WORDS];

static void vol_open(struct vol *v, u32 blocksize)
{
	memset(v, 0, sizeof(*v));
	memset(all_mapped, 0xff, sizeof(all_mapped));
	v->sb.s_blocksize = blocksize;
	v->sb.s_blocksize_bits = (u8)__builtin_ctz(blocksize);
	v->sb.s_budget = &v->budget;
	v->sb.s_data_full = true; /* what was written stays */
	v->sb.s_dirty_bytes = counter_new(0, 1 << 20);
	CHECK(v->sb.s_dirty_bytes);
	CHECK(mapping_cache_create(&v->sb, NULL) == 0);
	mapping_init(&v->m, NULL, &v->sb);
}

/* Everything must be given back. */
static void vol_close(struct vol *v)
{
	int i;

	mapping_invalidate(&v->m, 0, LBLK_MAX + 1);
	CHECK(v->m.m_nr_dirty == 0);
	CHECK(v->m.m_nr_writeback == 0);
	CHECK(v->m.m_nr_delayed == 0);
	CHECK(v->m.m_nr_folio_blocks == 0);
	mapping_destroy(&v->m);
	mapping_cache_destroy(&v->sb);
	for (i = 0; i < BUDGET_KINDS; i++)
		CHECK(v->budget.used[i] == 0);
	for (i = 0; i < (int)zone_count(&v->budget); i++)
		CHECK(v->budget.in_zone[i] == 0);
	CHECK(counter_sum(v->sb.s_dirty_bytes) == 0);
	counter_free(v->sb.s_dirty_bytes);
}

/* Writes nr blocks filled with `byte`, with enough reserved. */
static void put_blocks(struct vol *v, lblk_t lblk, u32 nr, u8 byte)
{
	u32 bs = v->sb.s_blocksize, reserved = nr;
	u8 *buf = malloc((size_t)nr * bs);

	CHECK(buf);
	memset(buf, byte, (size_t)nr * bs);
	CHECK(mapping_write(&v->m, (u64)lblk * bs, buf, nr * bs, none_mapped,
			    &reserved) == (s64)nr * bs);
	free(buf);
}

/* Takes one run and ends it. Returns its length. */
static u32 flush_run(struct vol *v, lblk_t start, lblk_t end)
{
	struct wb_run run;

	mapping_take_dirty(&v->m, start, end, LEAF_BLOCKS, true, &run);
	if (!run.nr)
		return 0;
	mapping_set_mapped(&v->m, run.lblk, run.nr);
	mapping_end_writeback(&v->m, run.lblk, run.nr, false);
	return run.nr;
}

#define REGION_DATA (2u << 20) /* a leaf of 4 KiB blocks */

/* Few, so that one whose parts are gone too early is soon overwritten. */
static struct region_pool *regions;

/*
 * mapping_write(), or by chance of data that came in a region: the holder has done with
 * it after the call, whatever became of it.
 */
static s64 write_either_way(struct mapping *m, u64 pos, const void *src, u32 len,
			    const u64 *mapped, u32 *reserved, u32 chance)
{
	struct region *r = NULL;
	char *data;
	s64 ret;

	if (chance && len <= REGION_DATA)
		r = region_get(regions, 0);
	if (!r)
		return mapping_write(m, pos, src, len, mapped, reserved);
	data = (char *)region_memory(r) + REGION_PAGE + pos % REGION_PAGE;
	memcpy(data, src, len);
	region_note(r, REGION_PAGE + pos % REGION_PAGE + len);
	ret = mapping_write_region(m, pos, r, data, len, mapped, reserved);
	region_put(r);
	return ret;
}

static int byte_at(struct vol *v, u64 pos)
{
	bool cached;
	u8 c;

	CHECK(mapping_read(&v->m, pos, &c, 1, &cached) == 1);
	return cached ? c : -1;
}

/* ---- behaviour ---- */

static void test_read_of_absent_leaves_buffer(void **state)
{
	struct vol v;
	bool cached = true;
	char buf[64] = "as it was";

	(void)state;
	vol_open(&v, 4096);
	/* to the end of the leaf, not beyond */
	assert_int_equal(mapping_read(&v.m, (512 * 4096ull) - 10, buf, 64,
				      &cached), 10);
	assert_false(cached);
	assert_string_equal(buf, "as it was");
	put_blocks(&v, 3, 1, 'x');
	assert_int_equal(mapping_read(&v.m, 4096 * 2 + 7, buf, 4096, &cached),
			 4096 - 7);
	assert_false(cached);
	vol_close(&v);
}

static void test_read_stops_at_absent_block(void **state)
{
	struct vol v;
	char buf[5 * 1024];
	bool cached;

	(void)state;
	vol_open(&v, 1024);
	put_blocks(&v, 10, 2, 'a');
	assert_int_equal(mapping_read(&v.m, 10 * 1024 + 100, buf, sizeof(buf),
				      &cached), 2048 - 100);
	assert_true(cached);
	assert_int_equal(buf[0], 'a');
	assert_int_equal(buf[2048 - 101], 'a');
	vol_close(&v);
}

static void test_small_leaf_grows_with_contents(void **state)
{
	struct vol v;
	s64 small;
	u32 i;

	(void)state;
	vol_open(&v, 1024);
	put_blocks(&v, 0, 16, 1);
	small = v.budget.used[BUDGET_TREE];
	assert_true(small < 1024);
	put_blocks(&v, 40, 1, 2);
	assert_true(v.budget.used[BUDGET_TREE] > small);
	put_blocks(&v, 511, 1, 3);
	for (i = 0; i < 16; i++)
		assert_int_equal(byte_at(&v, i * 1024), 1);
	assert_int_equal(byte_at(&v, 40 * 1024), 2);
	assert_int_equal(byte_at(&v, 511 * 1024), 3);
	assert_int_equal(byte_at(&v, 41 * 1024), -1);
	assert_int_equal(v.m.m_nr_dirty, 18);
	/* the folios know their new leaf: they can be reclaimed */
	while (flush_run(&v, 0, LBLK_MAX + 1))
		;
	shrink(&v.budget, UINT64_MAX);
	assert_int_equal(v.m.m_nr_folio_blocks, 0);
	assert_int_equal(v.budget.used[BUDGET_TREE], 0);
	assert_int_equal(v.budget.used[BUDGET_FOLIO], 0);
	vol_close(&v);
}

static void test_sparse_file_frees_leaves_and_nodes(void **state)
{
	static const lblk_t at[] = { 5, 512, 64 * 512, 4096u * 512 + 3,
				     262144u * 512, LBLK_MAX };
	struct vol v;
	unsigned i, round;

	(void)state;
	vol_open(&v, 1024);
	for (round = 0; round < 2; round++) {
		/* upwards, then downwards: the tree grows, or starts high */
		for (i = 0; i < ARRAY_SIZE(at); i++) {
			unsigned k = round ? ARRAY_SIZE(at) - 1 - i : i;

			put_blocks(&v, at[k], 1, (u8)(k + 1));
		}
		for (i = 0; i < ARRAY_SIZE(at); i++)
			assert_int_equal(byte_at(&v, (u64)at[i] * 1024), i + 1);
		assert_int_equal(mapping_next_dirty(&v.m, 6, LBLK_MAX + 1), 512);
		assert_int_equal(mapping_next_dirty(&v.m, at[4] + 1,
						    LBLK_MAX + 1), LBLK_MAX);
		assert_int_equal(mapping_invalidate(&v.m, 6, LBLK_MAX + 1),
				 ARRAY_SIZE(at) - 1);
		assert_int_equal(byte_at(&v, 5 * 1024), 1);
		assert_int_equal(mapping_invalidate(&v.m, 0, LBLK_MAX + 1), 1);
		assert_int_equal(v.budget.used[BUDGET_TREE], 0);
		assert_int_equal(v.m.m_root, 0);
	}
	vol_close(&v);
}

static void test_write_stops_without_reservation(void **state)
{
	struct vol v;
	u64 mapped[LEAF_WORDS] = { 0 };
	u32 reserved = 1;
	char buf[4 * 4096];

	(void)state;
	vol_open(&v, 4096);
	memset(buf, 'w', sizeof(buf));
	bm_set(mapped, 1); /* block 21 has a place on disk */
	assert_int_equal(mapping_write(&v.m, 20 * 4096, buf, sizeof(buf),
				       mapped, &reserved), 2 * 4096);
	assert_int_equal(reserved, 0);
	assert_int_equal(v.m.m_nr_delayed, 1);
	assert_int_equal(v.m.m_nr_dirty, 2);
	/* nothing at all: an empty leaf must not stay */
	assert_int_equal(mapping_write(&v.m, 1024 * 4096, buf, 4096, none_mapped,
				       &reserved), 0);
	/* known blocks take no reservation */
	assert_int_equal(mapping_write(&v.m, 20 * 4096 + 1, buf, 8000,
				       none_mapped, &reserved), 8000);
	vol_close(&v);
}

static void test_partial_write_needs_block(void **state)
{
	struct vol v;
	u32 reserved = 9;
	char buf[3 * 1024], zero[1024] = { 0 };

	(void)state;
	vol_open(&v, 1024);
	memset(buf, 'p', sizeof(buf));
	assert_int_equal(mapping_write(&v.m, 100, buf, 3000, none_mapped,
				       &reserved), 0);
	assert_int_equal(mapping_fill(&v.m, 0, zero), 0);
	/* block 0 present, 1 whole, 2 partly and absent */
	assert_int_equal(mapping_write(&v.m, 100, buf, 2500, none_mapped,
				       &reserved), 2048 - 100);
	assert_int_equal(reserved, 7);
	assert_int_equal(byte_at(&v, 99), 0);
	assert_int_equal(byte_at(&v, 100), 'p');
	assert_int_equal(byte_at(&v, 2048), -1);
	/* and where there is no leaf at all */
	assert_int_equal(mapping_write(&v.m, 600 * 1024 + 1, buf, 1000,
				       none_mapped, &reserved), 0);
	vol_close(&v);
}

static void test_zero_in_block(void **state)
{
	struct vol v;
	char data[1024];

	(void)state;
	vol_open(&v, 1024);
	memset(data, 'z', sizeof(data));
	assert_int_equal(mapping_zero(&v.m, 5000, 10, true), -ENODATA);
	assert_int_equal(mapping_fill(&v.m, 4, data), 0);
	assert_int_equal(mapping_zero(&v.m, 5000, 10, false), -EAGAIN);
	assert_int_equal(v.m.m_nr_dirty, 0);
	assert_int_equal(byte_at(&v, 5000), 'z');
	assert_int_equal(mapping_zero(&v.m, 5000, 10, true), 0);
	assert_int_equal(v.m.m_nr_dirty, 1);
	assert_int_equal(byte_at(&v, 4999), 'z');
	assert_int_equal(byte_at(&v, 5000), 0);
	assert_int_equal(byte_at(&v, 5010), 'z');
	assert_int_equal(mapping_zero(&v.m, 4096, 1024, false), 0);
	assert_int_equal(counter_sum(v.sb.s_dirty_bytes), 1024);
	vol_close(&v);
}

static void test_large_write_has_few_segments(void **state)
{
	struct vol v;
	struct wb_run run;
	u32 i;

	(void)state;
	vol_open(&v, 4096);
	put_blocks(&v, 512, 512, 's');
	mapping_take_dirty(&v.m, 0, LBLK_MAX + 1, 500, false, &run);
	assert_int_equal(run.lblk, 512);
	assert_int_equal(run.nr, 500);
	assert_true(run.delayed);
	assert_int_equal(run.nr_seg, 32);
	for (i = 0; i < run.nr_seg; i++)
		assert_int_equal((uintptr_t)run.seg[i].data % 4096, 0);
	assert_int_equal(mapping_set_mapped(&v.m, 512, 500), 500);
	mapping_end_writeback(&v.m, 512, 100, false);
	mapping_end_writeback(&v.m, 612, 400, false);
	assert_int_equal(v.m.m_nr_dirty, 12);
	assert_int_equal(v.m.m_nr_delayed, 12);
	assert_int_equal(counter_sum(v.sb.s_dirty_bytes), 12 * 4096);
	vol_close(&v);
}

static void test_runs_split_at_delayed(void **state)
{
	struct vol v;
	struct wb_run run;
	u32 reserved = 0;
	char buf[4096] = { 1 };

	(void)state;
	vol_open(&v, 4096);
	put_blocks(&v, 0, 3, 1);
	assert_int_equal(mapping_write(&v.m, 3 * 4096, buf, 4096, all_mapped,
				       &reserved), 4096);
	mapping_take_dirty(&v.m, 0, 100, 100, false, &run);
	assert_int_equal(run.nr, 3);
	assert_true(run.delayed);
	mapping_take_dirty(&v.m, 0, 100, 100, false, &run);
	assert_int_equal(run.lblk, 3);
	assert_int_equal(run.nr, 1);
	assert_false(run.delayed);
	mapping_end_writeback(&v.m, 3, 1, true);
	assert_int_equal(v.m.m_nr_dirty, 1);
	mapping_end_writeback(&v.m, 0, 3, false);
	/* no place was found: not dirty, still delayed, never reclaimed */
	assert_int_equal(v.m.m_nr_delayed, 3);
	shrink(&v.budget, UINT64_MAX);
	assert_int_equal(v.m.m_nr_folio_blocks, 4);
	mapping_drop_clean(&v.m, 0, 100);
	assert_int_equal(v.m.m_nr_folio_blocks, 4);
	assert_int_equal(mapping_invalidate(&v.m, 0, 100), 3);
	vol_close(&v);
}

static void test_write_under_writeback(void **state)
{
	struct vol v;
	struct wb_run run, again;

	(void)state;
	vol_open(&v, 4096);
	put_blocks(&v, 7, 1, 'a');
	mapping_take_dirty(&v.m, 0, 100, 100, false, &run);
	put_blocks(&v, 7, 1, 'b');
	assert_int_equal(*(char *)run.seg[0].data, 'b');
	assert_int_equal(v.m.m_nr_dirty, 1);
	assert_int_equal(v.m.m_nr_writeback, 1);
	assert_int_equal(counter_sum(v.sb.s_dirty_bytes), 4096);
	mapping_take_dirty(&v.m, 0, 100, 100, false, &again);
	assert_int_equal(again.nr, 0);
	mapping_set_mapped(&v.m, 7, 1);
	mapping_end_writeback(&v.m, 7, 1, false);
	assert_int_equal(counter_sum(v.sb.s_dirty_bytes), 4096);
	mapping_take_dirty(&v.m, 0, 100, 100, false, &again);
	assert_int_equal(again.nr, 1);
	assert_false(again.delayed);
	mapping_end_writeback(&v.m, 7, 1, false);
	vol_close(&v);
}

static void test_fill_leaves_present_block(void **state)
{
	struct vol v;
	char data[4096];

	(void)state;
	vol_open(&v, 4096);
	put_blocks(&v, 7, 1, 'a');
	memset(data, 'd', sizeof(data));
	assert_int_equal(mapping_fill(&v.m, 7, data), 0);
	assert_int_equal(byte_at(&v, 7 * 4096), 'a');
	assert_int_equal(v.m.m_nr_delayed, 1);
	vol_close(&v);
}

/* A reader comes back from the device after a write, write-out and reclaim. */
static void test_fill_since_refuses_stale_data(void **state)
{
	struct vol v;
	char old[4096];
	u64 gen;

	(void)state;
	vol_open(&v, 4096);
	memset(old, 'o', sizeof(old));
	gen = mapping_generation(&v.m);
	put_blocks(&v, 7, 1, 'n');
	flush_run(&v, 0, 100);
	shrink(&v.budget, UINT64_MAX);
	assert_int_equal(byte_at(&v, 7 * 4096), -1);
	assert_int_equal(mapping_fill_since(&v.m, 7, old, gen), -EAGAIN);
	assert_int_equal(byte_at(&v, 7 * 4096), -1);
	assert_int_equal(v.budget.used[BUDGET_TREE], 0);
	gen = mapping_generation(&v.m);
	assert_int_equal(mapping_fill_since(&v.m, 7, old, gen), 0);
	assert_int_equal(byte_at(&v, 7 * 4096), 'o');
	/* what was only read may be dropped without making others read again */
	shrink(&v.budget, UINT64_MAX);
	assert_int_equal(v.m.m_nr_folio_blocks, 0);
	assert_int_equal(mapping_fill_since(&v.m, 7, old, gen), 0);
	mapping_invalidate(&v.m, 100, 200);
	assert_int_equal(mapping_fill_since(&v.m, 8, old, gen), -EAGAIN);
	vol_close(&v);
}

/* Runs of a read: present blocks stay, the rest of the last becomes zero. */
static void test_fill_of_a_run(void **state)
{
	static char data[100 * 1024];
	struct vol v;
	u32 len, done = 0;
	u64 gen;

	(void)state;
	vol_open(&v, 1024);
	memset(data, 'd', sizeof(data));
	put_blocks(&v, 3, 1, 'w');
	gen = mapping_generation(&v.m);
	while (done < 40 * 1024 + 5) {
		len = 40 * 1024 + 5 - done;
		assert_int_equal(mapping_fill_run_since(&v.m, done / 1024, data,
							&len, gen), 0);
		assert_true(len > 0);
		done += len;
	}
	assert_int_equal(v.m.m_nr_folio_blocks, 41);
	assert_int_equal(v.m.m_nr_dirty, 1);
	assert_int_equal(byte_at(&v, 3 * 1024), 'w');
	assert_int_equal(byte_at(&v, 40 * 1024 + 4), 'd');
	assert_int_equal(byte_at(&v, 40 * 1024 + 5), 0);
	/* to the end of its leaf, and not since something was dropped */
	len = sizeof(data);
	assert_int_equal(mapping_fill_run_since(&v.m, 510, data, &len, gen), 0);
	assert_int_equal(len, 2048);
	mapping_invalidate(&v.m, 510, 512);
	assert_int_equal(mapping_fill_run_since(&v.m, 510, data, &len, gen),
			 -EAGAIN);
	assert_int_equal(byte_at(&v, 510 * 1024), -1);
	assert_int_equal(mapping_counter_read(&v.sb, MAPPING_RETRIES), 1);
	vol_close(&v);
}

static void test_query_and_forgetting(void **state)
{
	struct vol v;
	u64 unknown[LEAF_WORDS], absent[LEAF_WORDS];
	char data[1024] = { 0 };

	(void)state;
	vol_open(&v, 1024);
	assert_int_equal(mapping_query(&v.m, 500, 12, unknown, absent), 12);
	assert_int_equal(bm_weight(absent, 0, 512), 12);
	put_blocks(&v, 3, 2, 1);
	assert_int_equal(mapping_fill(&v.m, 5, data), 0);
	assert_int_equal(mapping_fill(&v.m, 6, data), 0);
	/* beyond the end of the small leaf, too */
	assert_int_equal(mapping_query(&v.m, 2, 30, unknown, absent), 28);
	assert_int_equal(unknown[0], 0x3ffffff9);
	assert_int_equal(absent[0], 0x3fffffe1);
	mapping_extent_set(&v.m, 5, 6, EXTENT_UNWRITTEN, 100);
	mapping_extent_set(&v.m, 6, 7, EXTENT_HOLE, 0);
	assert_int_equal(mapping_query(&v.m, 2, 30, unknown, absent), 27);
	assert_int_equal(unknown[0], 0x3ffffff1);
	mapping_drop_clean(&v.m, 0, LBLK_MAX + 1);
	assert_int_equal(mapping_query(&v.m, 2, 30, unknown, absent), 28);
	assert_int_equal(absent[0], 0x3ffffff9);
	vol_close(&v);
}

static void test_shrinker_gives_second_chance(void **state)
{
	struct vol v;
	u64 one;

	(void)state;
	vol_open(&v, 4096);
	put_blocks(&v, 0, 1, 1);
	while (flush_run(&v, 0, 1000))
		;
	one = (u64)v.budget.used[BUDGET_FOLIO];
	put_blocks(&v, 1, 15, 1);
	while (flush_run(&v, 0, 1000))
		;
	assert_true(shrink(&v.budget, 1) >= one);
	assert_true(v.m.m_nr_folio_blocks < 16);
	assert_true(v.m.m_nr_folio_blocks > 0);
	shrink(&v.budget, UINT64_MAX);
	assert_int_equal(v.m.m_nr_folio_blocks, 0);
	vol_close(&v);
}

/* A folio leaves the LRU when it is found dirty; what is left of it returns. */
static void test_rest_of_dirty_folio_is_reclaimed(void **state)
{
	struct vol v;

	(void)state;
	vol_open(&v, 4096);
	put_blocks(&v, 0, 16, 1);
	assert_int_equal(flush_run(&v, 0, 15), 15);
	shrink(&v.budget, UINT64_MAX);
	assert_int_equal(v.m.m_nr_folio_blocks, 16);
	assert_int_equal(mapping_invalidate(&v.m, 15, 16), 1);
	assert_int_equal(v.m.m_nr_folio_blocks, 15);
	shrink(&v.budget, UINT64_MAX);
	assert_int_equal(v.m.m_nr_folio_blocks, 0);
	vol_close(&v);
}

/* A block in the middle has a folio of its own, which is dirty: the one around
 * it is clean for all that, and goes. */
static void test_folio_around_dirty_block_is_reclaimed(void **state)
{
	struct vol v;

	(void)state;
	vol_open(&v, 4096);
	put_blocks(&v, 0, 16, 1);
	assert_int_equal(flush_run(&v, 0, 16), 16);
	assert_int_equal(mapping_invalidate(&v.m, 7, 8), 0);
	put_blocks(&v, 7, 1, 2);
	shrink(&v.budget, UINT64_MAX);
	assert_int_equal(v.m.m_nr_folio_blocks, 1);
	assert_int_equal(flush_run(&v, 7, 8), 1);
	shrink(&v.budget, UINT64_MAX);
	assert_int_equal(v.m.m_nr_folio_blocks, 0);
	vol_close(&v);
}

/* Data that came in a region stays where it is; each part goes by itself. */
static void test_memory_is_taken_over(void **state)
{
	const u32 len = 300 << 10;
	u32 reserved = 1000;
	struct wb_run run;
	struct region *r;
	struct vol v;
	char *data;

	(void)state;
	vol_open(&v, 4096);
	put_blocks(&v, 20, 1, 'p');
	r = region_get(regions, 0);
	assert_non_null(r);
	data = (char *)region_memory(r) + REGION_PAGE;
	memset(data, 'a', len + 100);
	region_note(r, REGION_PAGE + len + 100);
	/* The rest of the last block is missing: it stops there. */
	assert_int_equal(mapping_write_region(&v.m, 0, r, data, len + 100,
					      none_mapped, &reserved), len);
	assert_int_equal(reserved, 1000 - len / 4096 + 1);
	assert_int_equal(mapping_counter_read(&v.sb, MAPPING_ADOPTED), len - 4096);
	assert_int_equal(mapping_counter_read(&v.sb, MAPPING_COPIED), 2 * 4096);
	assert_true((u64)v.budget.used[BUDGET_FOLIO] >= len);
	assert_true(region_has_parts(r));
	region_put(r);
	mapping_take_dirty(&v.m, 21, LBLK_MAX, LEAF_BLOCKS, true, &run);
	assert_int_equal(run.lblk, 21);
	assert_ptr_equal(run.seg[0].data, data + 21 * 4096);
	mapping_end_writeback(&v.m, run.lblk, run.nr, true);
	/* Overwritten in part, zeroed, reclaimed and invalidated like any other. */
	reserved = 0;
	assert_int_equal(mapping_write(&v.m, 5000, "bb", 2, none_mapped,
				       &reserved), 2);
	assert_int_equal(mapping_zero(&v.m, 40 * 4096, 100, false), 0);
	assert_int_equal(mapping_invalidate(&v.m, 3, 5), 2);
	while (flush_run(&v, 0, 64))
		;
	shrink(&v.budget, UINT64_MAX);
	assert_int_equal(v.m.m_nr_folio_blocks, len / 4096 - 64);
	assert_int_equal(byte_at(&v, 70 * 4096), 'a');
	assert_int_equal(byte_at(&v, 20 * 4096), -1);
	vol_close(&v);
}

/*
 * The reservation runs out inside of what is one folio (a record that said where blocks
 * lie was forgotten after it was asked): the rest is written by another call, from
 * the same memory, which partly is that folio's by then.
 */
static void test_memory_is_taken_over_once(void **state)
{
	const u32 len = 128 << 10;
	u32 reserved = 5;
	struct region *r;
	struct vol v;
	char *data;

	(void)state;
	vol_open(&v, 4096);
	r = region_get(regions, 0);
	assert_non_null(r);
	data = (char *)region_memory(r) + REGION_PAGE;
	for (u32 b = 0; b < len / 4096; b++)
		memset(data + b * 4096, 'a' + (int)b, 4096);
	region_note(r, REGION_PAGE + len);
	assert_true(region_is_free(r, data, len));
	assert_int_equal(mapping_write_region(&v.m, 0, r, data, len, none_mapped,
					      &reserved), 5 * 4096);
	assert_false(region_is_free(r, data, len));
	assert_false(region_is_free(r, data + 5 * 4096, 4096));
	assert_true(region_is_free(r, data + 16 * 4096, len - 16 * 4096));
	reserved = 100;
	assert_int_equal(mapping_write_region(&v.m, 5 * 4096, r, data + 5 * 4096,
					      len - 5 * 4096, none_mapped, &reserved),
			 len - 5 * 4096);
	assert_int_equal(reserved, 100 - len / 4096 + 5);
	assert_int_equal(mapping_counter_read(&v.sb, MAPPING_COPIED), 11 * 4096);
	assert_int_equal(mapping_counter_read(&v.sb, MAPPING_ADOPTED), len - 11 * 4096);
	/* The first folio goes, and with it what it had of the others' source. */
	region_put(r);
	assert_int_equal(mapping_invalidate(&v.m, 0, 5), 5);
	for (u32 b = 5; b < len / 4096; b++)
		assert_int_equal(byte_at(&v, b * 4096), 'a' + b);
	while (flush_run(&v, 0, 64))
		;
	vol_close(&v);
}

/* Who reads all over a file keeps what he reads, not all of it. */
static void test_a_random_reader_keeps_what_he_reads(void **state)
{
	u64 unknown[LEAF_WORDS], absent[LEAF_WORDS];
	u8 page[4096] = { 1 };
	struct access a;
	struct vol v;

	(void)state;
	vol_open(&v, 4096);
	for (lblk_t b = 0; b < 64; b++)
		assert_int_equal(mapping_fill(&v.m, b, page), 0);
	access_init(&a, WINDOW_READ);
	for (u64 i = 0; i < 200; i++)
		access_note(&a, &v.m, i * 7919 % 1024 * 4096, 4096);
	assert_int_equal(windows_ask(&v.m, 0, 64), WINDOW_AROUND);
	/* The older half. */
	for (lblk_t b = 0; b < 32; b++)
		assert_int_equal(byte_at(&v, b * 4096ull), 1);
	shrink(&v.budget, 2 * 4096);
	mapping_query(&v.m, 0, 64, unknown, absent);
	assert_int_equal(bm_find_set(absent, 0, 32), 32);
	assert_in_range(bm_weight(absent, 32, 64), 1, 31);
	access_end(&a, &v.m);
	assert_int_equal(mapping_invalidate(&v.m, 0, 64), 0);
	vol_close(&v);
}

static void test_errors_are_told_once_to_each(void **state)
{
	struct vol v;
	errseq_t a, b, c;

	(void)state;
	vol_open(&v, 4096);
	a = mapping_sample_error(&v.m);
	b = mapping_sample_error(&v.m);
	assert_int_equal(mapping_check_error(&v.m, &a), 0);
	mapping_set_error(&v.m, -EIO);
	/* nobody has been told: a descriptor opened now is */
	c = mapping_sample_error(&v.m);
	assert_int_equal(mapping_check_error(&v.m, &a), -EIO);
	assert_int_equal(mapping_check_error(&v.m, &a), 0);
	assert_int_equal(mapping_check_error(&v.m, &c), -EIO);
	c = mapping_sample_error(&v.m);
	assert_int_equal(mapping_check_error(&v.m, &c), 0);
	/* the same error again, after it was seen, is a new one */
	mapping_set_error(&v.m, -EIO);
	assert_int_equal(mapping_check_error(&v.m, &a), -EIO);
	mapping_set_error(&v.m, -ENOSPC);
	assert_int_equal(mapping_check_error(&v.m, &a), -ENOSPC);
	assert_int_equal(mapping_check_error(&v.m, &b), -ENOSPC);
	assert_int_equal(mapping_check_error(&v.m, &b), 0);
	vol_close(&v);
}

/* Fails the nth allocation and all after it, until the call succeeds. */
static void test_no_memory(void **state)
{
	struct vol v;
	char data[8 * 1024] = { 7 };
	u32 reserved = 100;
	s64 ret;
	long n;
	int failures = 0;

	(void)state;
	vol_open(&v, 1024);
	put_blocks(&v, 1, 1, 1); /* leaf 0 exists and is small */
	for (n = 0;; n++) {
		fail_after = n;
		ret = mapping_write(&v.m, 300ull * 512 * 1024, data,
				    sizeof(data), none_mapped, &reserved);
		fail_after = -1;
		if (ret > 0)
			break;
		assert_int_equal(ret, -ENOMEM);
		failures++;
	}
	assert_int_equal(ret, sizeof(data));
	assert_true(failures >= 5); /* folio, chunk, leaf, nodes */
	assert_int_equal(reserved, 92);
	for (n = 0, failures = 0;; n++) {
		fail_after = n;
		ret = mapping_fill(&v.m, 100, data);
		fail_after = -1;
		if (!ret)
			break;
		assert_int_equal(ret, -ENOMEM);
		failures++;
	}
	assert_true(failures >= 2);
	assert_int_equal(byte_at(&v, 1024), 1);
	assert_int_equal(byte_at(&v, 100 * 1024), 7);
	vol_close(&v);
}

/* ---- records ---- */

static struct extent_status get(struct vol *v, lblk_t lblk, u32 nr)
{
	struct extent_status es;

	(void)mapping_extent_get(&v->m, lblk, nr, &es);
	return es;
}

static void test_uniform_leaves_cost_eight_bytes(void **state)
{
	struct extent_status es;
	struct vol v;
	s64 one_node;

	(void)state;
	vol_open(&v, 4096);
	/* a small file: a value in the root, no memory at all */
	mapping_extent_set(&v.m, 0, 30, EXTENT_WRITTEN, 5000);
	assert_int_equal(v.budget.used[BUDGET_TREE], 0);
	es = get(&v, 7, 100);
	assert_int_equal(es.state, EXTENT_WRITTEN);
	assert_int_equal(es.nr, 23);
	assert_int_equal(es.pblk, 5007);
	assert_true(es.open);
	/* 64 leaves and all of a node */
	mapping_extent_set(&v.m, 0, 64 * LEAF_BLOCKS, EXTENT_WRITTEN, 5000);
	one_node = v.budget.used[BUDGET_TREE];
	assert_true(one_node > 0);
	assert_true(one_node <= 1024);
	es = get(&v, 100, 64 * LEAF_BLOCKS - 100);
	assert_int_equal(es.nr, 64 * LEAF_BLOCKS - 100);
	assert_int_equal(es.pblk, 5100);
	/* the last leaf of a file of 2^32 blocks, and a hole to its very end */
	mapping_extent_set(&v.m, LBLK_MAX - 510, 1ull << 32, EXTENT_HOLE, 0);
	assert_int_equal(get(&v, LBLK_MAX, 1).state, EXTENT_HOLE);
	mapping_invalidate(&v.m, 64 * LEAF_BLOCKS, LBLK_MAX + 1);
	assert_int_equal(v.budget.used[BUDGET_TREE] > one_node, 1); /* grown */
	mapping_invalidate(&v.m, 0, LBLK_MAX + 1);
	assert_int_equal(v.budget.used[BUDGET_TREE], 0);
	vol_close(&v);
}

/* value -> leaf with slots -> leaf without -> value */
static void test_leaf_keeps_what_it_knows(void **state)
{
	struct vol v;
	s64 bare;

	(void)state;
	vol_open(&v, 4096);
	mapping_extent_set(&v.m, 512, 1024, EXTENT_WRITTEN, 9000);
	put_blocks(&v, 600, 1, 'x');
	assert_int_equal(v.m.m_nr_delayed, 0); /* known to be mapped */
	assert_int_equal(get(&v, 600, 1).pblk, 9088);
	while (flush_run(&v, 0, LBLK_MAX + 1))
		;
	shrink(&v.budget, UINT64_MAX);
	assert_int_equal(v.m.m_nr_folio_blocks, 0);
	assert_int_equal(get(&v, 512, 512).nr, 512);
	bare = v.budget.used[BUDGET_TREE]; /* nodes only */
	assert_true(bare <= 1024);

	/* two records need a leaf, but no slots once the folios are gone */
	mapping_extent_set(&v.m, 700, 701, EXTENT_UNWRITTEN, 1);
	put_blocks(&v, 700, 1, 'y');
	while (flush_run(&v, 0, LBLK_MAX + 1))
		;
	shrink(&v.budget, UINT64_MAX);
	assert_int_equal(get(&v, 700, 5).state, EXTENT_UNWRITTEN);
	assert_int_equal(get(&v, 701, 5).pblk, 9189);
	assert_true(v.budget.used[BUDGET_TREE] > bare);
	assert_true(v.budget.used[BUDGET_TREE] < bare + 1024);
	mapping_extent_set(&v.m, 700, 701, EXTENT_WRITTEN, 9188);
	assert_int_equal(v.budget.used[BUDGET_TREE], bare);
	assert_int_equal(get(&v, 512, 512).nr, 512);
	vol_close(&v);
}

static void test_many_records_of_one_leaf(void **state)
{
	struct vol v;
	u32 b;

	(void)state;
	vol_open(&v, 4096);
	for (b = 0; b < 512; b++)
		mapping_extent_set(&v.m, b, b + 1, EXTENT_WRITTEN, 10 + 2 * b);
	for (b = 0; b < 512; b++) {
		assert_int_equal(get(&v, b, 512 - b).nr, 1);
		assert_int_equal(get(&v, b, 1).pblk, 10 + 2 * b);
	}
	assert_true(v.budget.used[BUDGET_TREE] >= 512 * 16);
	mapping_extent_forget(&v.m, 1, 511);
	assert_int_equal(get(&v, 0, 1).nr, 1);
	assert_int_equal(get(&v, 1, 1).state, EXTENT_UNKNOWN);
	assert_int_equal(get(&v, 511, 1).pblk, 10 + 2 * 511);
	mapping_extent_set(&v.m, 0, 512, EXTENT_HOLE, 0);
	assert_int_equal(v.budget.used[BUDGET_TREE], 0);
	vol_close(&v);
}

static void test_conversion_in_records(void **state)
{
	struct vol v;

	(void)state;
	vol_open(&v, 4096);
	mapping_extent_set(&v.m, 500, 600, EXTENT_UNWRITTEN, 100);
	mapping_extent_set(&v.m, 600, 700, EXTENT_HOLE, 0);
	mapping_extent_written(&v.m, 510, 520);
	assert_int_equal(get(&v, 500, 200).nr, 10);
	assert_int_equal(get(&v, 510, 200).state, EXTENT_WRITTEN);
	assert_int_equal(get(&v, 510, 200).nr, 10);
	assert_int_equal(get(&v, 510, 200).pblk, 110);
	assert_int_equal(get(&v, 520, 200).state, EXTENT_UNWRITTEN);
	mapping_extent_written(&v.m, 400, 600); /* unknown before 500 */
	assert_int_equal(get(&v, 610, 9).state, EXTENT_HOLE);
	assert_int_equal(get(&v, 530, 200).state, EXTENT_WRITTEN);
	vol_close(&v);
}

/* No memory: what was there may be wrong now, and is forgotten. */
static void test_records_without_memory(void **state)
{
	struct vol v;
	long n;

	(void)state;
	vol_open(&v, 4096);
	for (n = 0; n < 8; n++) {
		mapping_extent_set(&v.m, 512, 1024, EXTENT_UNWRITTEN, 100);
		fail_after = n;
		mapping_extent_written(&v.m, 600, 610);
		fail_after = -1;
		assert_int_not_equal(get(&v, 605, 1).state, EXTENT_UNWRITTEN);
		assert_int_equal(get(&v, 599, 1).state, EXTENT_UNWRITTEN);
		mapping_invalidate(&v.m, 0, LBLK_MAX + 1);
	}
	vol_close(&v);
}

static void test_records_are_reclaimed(void **state)
{
	struct vol v;
	u32 i;

	(void)state;
	vol_open(&v, 4096);
	put_blocks(&v, 3, 1, 'd');
	for (i = 0; i < 300; i++) {
		mapping_extent_set(&v.m, i * 512, i * 512 + 200, EXTENT_WRITTEN,
				   7);
		if (i % 2)
			mapping_extent_set(&v.m, i * 512 + 300, i * 512 + 301,
					   EXTENT_HOLE, 0);
	}
	/* what is asked for all the time stays longer than the rest */
	(void)get(&v, 512, 1);
	shrink_kind(&v.budget, BUDGET_TREE, 1000);
	assert_int_equal(get(&v, 512, 1).state, EXTENT_WRITTEN);
	for (i = 0; i < 20; i++)
		shrink_kind(&v.budget, BUDGET_TREE, UINT64_MAX);
	assert_int_equal(get(&v, 512, 1).state, EXTENT_UNKNOWN);
	assert_int_equal(v.m.m_nr_delayed, 1); /* never */
	assert_int_equal(byte_at(&v, 3 * 4096), 'd');
	mapping_invalidate(&v.m, 0, LBLK_MAX + 1);
	assert_int_equal(v.budget.used[BUDGET_TREE], 0);
	vol_close(&v);
}

/* ---- without i_rwsem: each line of the table at mapping_overwrite() ---- */

struct fast {
	struct vol v;
	struct inode inode; /* its size only */
	char buf[4096];
};

/* 8 blocks 'a', written out, and a size that ends in the last. */
static void fast_open(struct fast *f)
{
	vol_open(&f->v, 1024);
	memset(&f->inode, 0, sizeof(f->inode));
	spin_init(&f->inode.i_lock, RANK_I_LOCK);
	f->v.m.m_inode = &f->inode;
	put_blocks(&f->v, 0, 8, 'a');
	assert_int_equal(flush_run(&f->v, 0, 8), 8);
	mapping_extent_set(&f->v.m, 0, 8, EXTENT_WRITTEN, 100);
	atomic_store(&f->inode.i_size, 8 * 1024 - 24);
	memset(f->buf, 'b', sizeof(f->buf));
}

static void fast_close(struct fast *f)
{
	vol_close(&f->v);
	spin_destroy(&f->inode.i_lock);
}

static u32 fast_write(struct fast *f, u64 pos, u32 len)
{
	return mapping_overwrite(&f->v.m, pos, f->buf, len, pos + len);
}

static void test_overwrite_of_cached_blocks(void **state)
{
	struct fast f;

	(void)state;
	fast_open(&f);
	assert_int_equal(fast_write(&f, 1000, 100), 100);
	assert_int_equal(f.v.m.m_nr_dirty, 2);
	assert_int_equal(byte_at(&f.v, 999), 'a');
	assert_int_equal(byte_at(&f.v, 1000), 'b');
	/* to the end, and not beyond it */
	assert_int_equal(fast_write(&f, 8000, 168), 168);
	assert_int_equal(fast_write(&f, 8000, 169), 0);
	assert_int_equal(f.v.m.m_nr_delayed, 0);
	/* under WRITEBACK, and after it */
	struct wb_run run;

	mapping_take_dirty(&f.v.m, 0, 2, 2, false, &run);
	assert_int_equal(fast_write(&f, 0, 1024), 1024);
	mapping_end_writeback(&f.v.m, run.lblk, run.nr, false);
	assert_int_equal(f.v.m.m_nr_dirty, 2);
	fast_close(&f);
}

/* Without datacache=full, the kernel alone keeps what streams have written. */
static void test_streams_leave(void **state)
{
	struct fast f;
	u64 gen;

	(void)state;
	fast_open(&f);
	f.v.sb.s_data_full = false;
	/* a short run stays */
	put_blocks(&f.v, 512, 63, 'c');
	assert_int_equal(flush_run(&f.v, 512, 1024), 63);
	assert_int_equal(byte_at(&f.v, 512 * 1024), 'c');
	mapping_invalidate(&f.v.m, 512, 1024);
	/* a long one goes, as far as it is clean; whoever read the device before
	 * the write is told */
	put_blocks(&f.v, 512, 489, 'd');
	atomic_store(&f.inode.i_size, 1000 * 1024 + 5);
	gen = mapping_generation(&f.v.m);
	struct wb_run run;

	mapping_take_dirty(&f.v.m, 512, 1024, LEAF_BLOCKS, true, &run);
	assert_int_equal(run.nr, 489);
	mapping_set_mapped(&f.v.m, run.lblk, run.nr);
	mapping_extent_set(&f.v.m, 512, 489, EXTENT_WRITTEN, 1000);
	assert_int_equal(fast_write(&f, 600 * 1024, 1024), 1024);
	mapping_end_writeback(&f.v.m, run.lblk, run.nr, false);
	assert_int_equal(byte_at(&f.v, 512 * 1024), -1);
	assert_int_equal(byte_at(&f.v, 900 * 1024), -1);
	assert_int_not_equal(mapping_generation(&f.v.m), gen);
	/* the block written again, and the one the file ends in */
	assert_int_equal(byte_at(&f.v, 600 * 1024), 'b');
	assert_int_equal(byte_at(&f.v, 1000 * 1024), 'd');
	assert_int_equal(f.v.m.m_nr_dirty, 1);
	assert_int_equal(flush_run(&f.v, 600, 601), 1);
	/* what did not get there stays, though fsync has told of it already */
	errseq_t since = mapping_sample_error(&f.v.m);

	put_blocks(&f.v, 512, 64, 'e');
	mapping_take_dirty(&f.v.m, 512, 576, LEAF_BLOCKS, true, &run);
	assert_int_equal(run.nr, 64);
	mapping_set_mapped(&f.v.m, run.lblk, run.nr);
	mapping_set_error(&f.v.m, -EIO);
	assert_int_equal(mapping_check_error(&f.v.m, &since), -EIO);
	assert_int_equal(mapping_fail_writeback(&f.v.m, run.lblk, run.nr, false), 0);
	assert_int_equal(f.v.m.m_nr_dirty + f.v.m.m_nr_writeback, 0);
	assert_int_equal(byte_at(&f.v, 512 * 1024), 'e');
	/* and goes when it has been written again */
	put_blocks(&f.v, 512, 64, 'f');
	assert_int_equal(flush_run(&f.v, 512, 576), 64);
	assert_int_equal(byte_at(&f.v, 512 * 1024), -1);
	fast_close(&f);
}

/* Blocks for which there is no place: they go with the end of the write-out, but for
 * those that were written to meanwhile. */
static void test_lost_blocks_leave(void **state)
{
	struct wb_run run;
	struct vol v;
	u64 gen;

	(void)state;
	vol_open(&v, 1024);
	put_blocks(&v, 500, 12, 'a');
	put_blocks(&v, 512, 20, 'a');
	gen = mapping_generation(&v.m);
	mapping_take_dirty(&v.m, 500, 530, 100, true, &run);
	assert_int_equal(run.nr, 12);
	put_blocks(&v, 503, 2, 'b');
	put_blocks(&v, 511, 1, 'b');
	assert_int_equal(mapping_fail_writeback(&v.m, run.lblk, run.nr, true), 12 - 3);
	assert_int_not_equal(mapping_generation(&v.m), gen);
	assert_int_equal(v.m.m_nr_writeback, 0);
	assert_int_equal(v.m.m_nr_dirty, 18 + 2 + 3);
	assert_int_equal(v.m.m_nr_delayed, 18 + 2 + 3);
	for (u32 b = 500; b < 512; b++)
		assert_int_equal(byte_at(&v, b * 1024),
				 b == 503 || b == 504 || b == 511 ? 'b' : -1);
	assert_int_equal(byte_at(&v, 512 * 1024), 'a');
	/* the second part of a run, the first having a place */
	mapping_take_dirty(&v.m, 512, 600, 100, true, &run);
	assert_int_equal(run.nr, 20);
	mapping_set_mapped(&v.m, 512, 5);
	assert_int_equal(mapping_fail_writeback(&v.m, 515, 17, true), 15);
	assert_int_equal(v.m.m_nr_writeback, 3);
	mapping_end_writeback(&v.m, 512, 3, false);
	assert_int_equal(byte_at(&v, 514 * 1024), 'a');
	assert_int_equal(byte_at(&v, 515 * 1024), -1);
	/* what stayed is tried again */
	assert_int_equal(flush_run(&v, 500, 600), 2);
	assert_int_equal(flush_run(&v, 500, 600), 1);
	assert_int_equal(byte_at(&v, 504 * 1024), 'b');
	vol_close(&v);
}

static void test_overwrite_against_truncate(void **state)
{
	struct fast f;
	char buf[16];

	(void)state;
	/* the size fell before the look: nothing is written */
	fast_open(&f);
	atomic_store(&f.inode.i_size, 1500);
	assert_int_equal(fast_write(&f, 1400, 200), 0);
	assert_false(mapping_read_cached(&f.v.m, 1490, buf, 16));
	assert_true(mapping_read_cached(&f.v.m, 1484, buf, 16));
	assert_int_equal(f.v.m.m_nr_dirty, 0);
	fast_close(&f);

	/* the look came before: what was written goes with the leaf, and the
	 * part of the tail behind the end is zeroed */
	fast_open(&f);
	assert_int_equal(fast_write(&f, 1400, 2000), 2000);
	atomic_store(&f.inode.i_size, 1500);
	mapping_invalidate(&f.v.m, 2, LBLK_MAX + 1);
	assert_int_equal(mapping_zero(&f.v.m, 1500, 548, true), 0);
	assert_int_equal(byte_at(&f.v, 1499), 'b');
	assert_int_equal(byte_at(&f.v, 1500), 0);
	assert_int_equal(byte_at(&f.v, 2048), -1);
	assert_int_equal(f.v.m.m_nr_dirty, 1);
	fast_close(&f);

	/* between the fall and the drop: the blocks are there still */
	fast_open(&f);
	atomic_store(&f.inode.i_size, 1500);
	assert_int_equal(fast_write(&f, 3000, 10), 0);
	assert_false(mapping_read_cached(&f.v.m, 3000, buf, 10));
	fast_close(&f);
}

static void test_overwrite_against_punch(void **state)
{
	struct fast f;
	char buf[16];

	(void)state;
	fast_open(&f);
	assert_int_equal(fast_write(&f, 2048, 1024), 1024);
	mapping_invalidate(&f.v.m, 2, 4);
	assert_int_equal(f.v.m.m_nr_dirty, 0);
	/* after: absent, also with a record that was learnt again */
	mapping_extent_set(&f.v.m, 0, 8, EXTENT_WRITTEN, 100);
	assert_int_equal(fast_write(&f, 2048, 1024), 0);
	assert_int_equal(fast_write(&f, 1024, 2048), 1024);
	assert_false(mapping_read_cached(&f.v.m, 2040, buf, 16));
	fast_close(&f);
}

static void test_overwrite_against_shrinkers(void **state)
{
	struct fast f;

	(void)state;
	/* the record is forgotten */
	fast_open(&f);
	assert_int_equal(fast_write(&f, 0, 10), 10);
	mapping_extent_forget(&f.v.m, 0, 8);
	assert_int_equal(fast_write(&f, 0, 10), 10); /* DIRTY */
	assert_int_equal(fast_write(&f, 1024, 10), 0);
	/* a clean zero block over a hole may not become dirty without space */
	mapping_extent_set(&f.v.m, 1, 2, EXTENT_HOLE, 0);
	assert_int_equal(fast_write(&f, 1024, 10), 0);
	fast_close(&f);

	/* the folio is taken */
	fast_open(&f);
	shrink(&f.v.budget, UINT64_MAX);
	assert_int_equal(fast_write(&f, 0, 10), 0);
	fast_close(&f);
}

/* ---- waits ---- */

struct waiter {
	struct vol *v;
	int what;
	_Atomic bool done;
	u32 result;
};

static void waiter_fn(void *arg)
{
	struct waiter *w = arg;
	struct wb_run run;

	switch (w->what) {
	case 0:
		mapping_wait_writeback(&w->v->m, 0, 10);
		break;
	case 1:
		w->result = mapping_invalidate(&w->v->m, 0, 10);
		break;
	case 2:
		mapping_take_dirty(&w->v->m, 0, 10, 10, true, &run);
		w->result = run.nr;
		mapping_end_writeback(&w->v->m, run.lblk, run.nr, false);
		break;
	}
	w->done = true;
	wake_up(w);
}

static void test_waits_for_writeback(void **state)
{
	int what;

	(void)state;
	for (what = 0; what < 3; what++) {
		struct waiter w = { .what = what };
		struct wb_run run;
		struct thread *t;
		struct vol v;

		vol_open(&v, 4096);
		w.v = &v;
		put_blocks(&v, 2, 4, 1);
		put_blocks(&v, 20, 1, 1);
		mapping_take_dirty(&v.m, 0, 10, 10, false, &run);
		assert_int_equal(run.nr, 4);
		if (what == 2)
			put_blocks(&v, 2, 2, 2);
		CHECK(thread_create(&t, "waiter", waiter_fn, &w) == 0);
		/* part of it, and what it need not wait for, end first */
		mapping_take_dirty(&v.m, 20, 30, 10, false, &run);
		mapping_end_writeback(&v.m, 20, 1, false);
		mapping_set_mapped(&v.m, 2, 4);
		mapping_end_writeback(&v.m, 4, 2, false);
		assert_false(wait_event_deadline(&w, w.done, clock_mono_ns() +
							     20000000ull));
		mapping_end_writeback(&v.m, 2, 2, false);
		thread_join(t);
		assert_true(w.done);
		assert_int_equal(w.result, what == 2 ? 2 : 0);
		if (what == 1)
			assert_int_equal(byte_at(&v, 2 * 4096), -1);
		vol_close(&v);
	}
}

/* A block that goes to and fro between DIRTY and WRITEBACK is never clean. */
struct to_and_fro {
	struct vol v;
	pthread_t looker;
	_Atomic bool stop;
};

static void to_and_fro_fn(void *arg)
{
	struct to_and_fro *tf = arg;
	struct wb_run run;

	while (!atomic_load(&tf->stop)) {
		mapping_take_dirty(&tf->v.m, 0, 8, 8, false, &run);
		CHECK(run.nr == 1);
		mapping_end_writeback(&tf->v.m, run.lblk, run.nr, true);
	}
}

/* Between any two instructions of the thread that looks: time for the other. */
static void linger(int sig)
{
	(void)sig;
	for (volatile int i = 0; i < 20000; i++)
		;
}

static void interrupt_fn(void *arg)
{
	const struct timespec pause = { .tv_nsec = 100 * 1000 };
	struct to_and_fro *tf = arg;

	for (u32 i = 0; i < 3000; i++) {
		pthread_kill(tf->looker, SIGALRM);
		nanosleep(&pause, NULL);
	}
	atomic_store(&tf->stop, true);
}

static void test_never_clean_in_between(void **state)
{
	const struct sigaction act = { .sa_handler = linger };
	struct to_and_fro tf = { .looker = pthread_self() };
	struct thread *mover, *interrupter;
	u32 clean = 0, skipped = 0;

	(void)state;
	vol_open(&tf.v, 4096);
	put_blocks(&tf.v, 3, 1, 'x');
	CHECK(sigaction(SIGALRM, &act, NULL) == 0);
	CHECK(thread_create(&mover, "to-and-fro", to_and_fro_fn, &tf) == 0);
	CHECK(thread_create(&interrupter, "interrupter", interrupt_fn, &tf) == 0);
	for (u32 i = 0; !atomic_load(&tf.stop); i++) {
		clean += mapping_is_clean(&tf.v.m);
		skipped += i % 64 == 0 && mapping_next_dirty(&tf.v.m, 0, 8) != 3;
	}
	thread_join(interrupter);
	thread_join(mover);
	assert_int_equal(clean, 0);
	assert_int_equal(skipped, 0);
	assert_int_equal(flush_run(&tf.v, 0, 8), 1);
	assert_true(mapping_is_clean(&tf.v.m));
	vol_close(&tf.v);
}

/* ---- random run against a model ---- */

static u64 rng_next(u64 *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

static u32 rnd(u64 *s, u32 n)
{
	return (u32)(rng_next(s) >> 33) % n;
}

static u64 seed_get(void)
{
	const char *e = getenv("SEED");

	return e ? strtoull(e, NULL, 0) : clock_mono_ns() | 1;
}

/* Four leaves, apart; the model's blocks are numbered through. */
#define MODEL_BLOCKS (4 * LEAF_BLOCKS)
static const u32 model_leaf[4] = { 0, 1, 77, LBLK_MAX >> 9 };

struct mblock {
	bool present, dirty, wb, delayed;
	enum extent_state state; /* the record */
	pblk_t pblk;
};

struct model {
	struct vol v;
	u64 seed;
	u32 bs;
	struct mblock b[MODEL_BLOCKS];
	u8 *data; /* of present blocks */
	u32 nr_runs;
	struct wb_run runs[6];
};

static lblk_t m_lblk(u32 i)
{
	return model_leaf[i / LEAF_BLOCKS] * LEAF_BLOCKS + i % LEAF_BLOCKS;
}

static u8 *m_data(struct model *md, u32 i)
{
	return md->data + (size_t)i * md->bs;
}

/* Often near the starts of leaves, so that things meet. */
static u32 m_pick(struct model *md)
{
	u32 leaf = rnd(&md->seed, 4) * LEAF_BLOCKS;
	u32 b;

	switch (rnd(&md->seed, 4)) {
	case 0:
		b = leaf + rnd(&md->seed, 24);
		break;
	case 1:
		b = leaf + rnd(&md->seed, 100);
		break;
	case 2:
		b = leaf + LEAF_BLOCKS - 1 - rnd(&md->seed, 40);
		break;
	default:
		b = leaf + rnd(&md->seed, LEAF_BLOCKS);
		break;
	}
	return min_of(b, MODEL_BLOCKS - 2); /* 0xFFFFFFFF is not usable */
}

static bool m_known(const struct mblock *b)
{
	return b->delayed || b->dirty || b->wb ||
	       b->state == EXTENT_UNWRITTEN || b->state == EXTENT_WRITTEN;
}

static void m_query(struct model *md, u32 i, u32 nr)
{
	u64 unknown[LEAF_WORDS], absent[LEAF_WORDS];
	u32 k, n = mapping_query(&md->v.m, m_lblk(i), nr, unknown, absent);

	CHECK(n == bm_weight(unknown, 0, nr));
	CHECK(bm_weight(absent, nr, LEAF_BLOCKS) == 0);
	for (k = 0; k < nr; k++) {
		struct mblock *b = &md->b[i + k];

		CHECK(bm_test(absent, k) == !b->present);
		CHECK(bm_test(unknown, k) == !m_known(b));
	}
}

static u32 m_leaf_left(u32 i)
{
	u32 left = LEAF_BLOCKS - i % LEAF_BLOCKS;

	return i >= MODEL_BLOCKS - LEAF_BLOCKS ? left - 1 : left;
}

static void m_write(struct model *md)
{
	u32 i = m_pick(md), bs = md->bs;
	u32 off = rnd(&md->seed, 3) ? 0 : rnd(&md->seed, bs);
	u32 room = m_leaf_left(i) * bs - off;
	u32 len = 1 + rnd(&md->seed, rnd(&md->seed, 4) ? 6 * bs : 200 << 10);
	u32 reserved = rnd(&md->seed, 3) ? 1000 : rnd(&md->seed, 4), left;
	u64 mapped[LEAF_WORDS];
	u32 expect = 0, k, nr;
	u8 *buf;

	if (!off && rnd(&md->seed, 2))
		len = ALIGN_UP(len, bs);
	len = min_of(len, room);
	nr = (off + len + bs - 1) / bs;
	m_query(md, i, nr);
	for (k = 0; k < LEAF_WORDS; k++)
		mapped[k] = rng_next(&md->seed) & rng_next(&md->seed);
	buf = malloc(len);
	CHECK(buf);
	for (k = 0; k < len; k++)
		buf[k] = (u8)rnd(&md->seed, 256);

	left = reserved;
	for (k = 0; k < nr; k++) {
		struct mblock *b = &md->b[i + k];
		u32 o = k ? 0 : off, n = min_of(bs - o, len - expect);

		if (!b->present && n < bs)
			break;
		if (!m_known(b) && !bm_test(mapped, k)) {
			if (!left)
				break;
			left--;
			b->delayed = true;
		}
		b->present = b->dirty = true;
		memcpy(m_data(md, i + k) + o, buf + expect, n);
		expect += n;
	}
	CHECK(write_either_way(&md->v.m, (u64)m_lblk(i) * bs + off, buf, len,
			       mapped, &reserved, rnd(&md->seed, 2)) == expect);
	CHECK(reserved == left);
	free(buf);
}

static void m_fill(struct model *md)
{
	u32 i = m_pick(md), k;
	u8 buf[4096];

	m_query(md, i, 1);
	for (k = 0; k < md->bs; k++)
		buf[k] = (u8)rnd(&md->seed, 256);
	CHECK(mapping_fill_since(&md->v.m, m_lblk(i), buf,
				 mapping_generation(&md->v.m)) == 0);
	if (md->b[i].present)
		return;
	md->b[i].present = true;
	memcpy(m_data(md, i), buf, md->bs);
}

static void m_zero(struct model *md)
{
	u32 i = m_pick(md), off = rnd(&md->seed, md->bs);
	u32 len = 1 + rnd(&md->seed, md->bs - off);
	bool mapped = rnd(&md->seed, 2);
	struct mblock *b = &md->b[i];
	int ret = mapping_zero(&md->v.m, (u64)m_lblk(i) * md->bs + off, len,
			       mapped);

	if (!b->present) {
		CHECK(ret == -ENODATA);
	} else if (!m_known(b) && !mapped) {
		CHECK(ret == -EAGAIN);
	} else {
		CHECK(ret == 0);
		b->dirty = true;
		memset(m_data(md, i) + off, 0, len);
	}
}

static void m_read(struct model *md)
{
	u32 i = m_pick(md), bs = md->bs, off = rnd(&md->seed, bs);
	u32 room = m_leaf_left(i) * bs - off;
	u32 len = min_of(1 + rnd(&md->seed, 300 << 10), room), got, n, k;
	u8 *buf = malloc(len);
	bool cached;

	CHECK(buf);
	got = mapping_read(&md->v.m, (u64)m_lblk(i) * bs + off, buf, len,
			   &cached);
	n = bs - off;
	for (k = 1; n < len && md->b[i + k].present == md->b[i].present; k++)
		n += bs;
	CHECK(got == min_of(n, len));
	CHECK(cached == md->b[i].present);
	if (cached)
		CHECK(!memcmp(buf, m_data(md, i) + off, got));
	memset(buf, 0, len);
	cached = mapping_read_cached(&md->v.m, (u64)m_lblk(i) * bs + off, buf,
				     len);
	CHECK(cached == (md->b[i].present && got == len));
	if (cached)
		CHECK(!memcmp(buf, m_data(md, i) + off, len));
	free(buf);
}

/* A random range of the model [*i, *j), and of the file [*start, *end). */
static void m_range(struct model *md, u32 *i, u32 *j, lblk_t *start, lblk_t *end)
{
	u32 a = m_pick(md), b = m_pick(md);

	*i = min_of(a, b);
	*j = max_of(a, b);
	if (rnd(&md->seed, 2) && *j > *i + 40)
		*j = *i + 1 + rnd(&md->seed, 40);
	if (*j == *i)
		++*j;
	*start = m_lblk(*i);
	*end = m_lblk(*j - 1) + 1;
}

static void m_take(struct model *md)
{
	struct wb_run *run = &md->runs[md->nr_runs];
	u32 i, j, b, n, k, s, max = 1 + rnd(&md->seed, 100);
	bool sync = rnd(&md->seed, 2);
	lblk_t start, end;

	if (md->nr_runs == ARRAY_SIZE(md->runs))
		return;
	m_range(md, &i, &j, &start, &end);
	for (b = i; b < j; b++)
		if (md->b[b].dirty && (sync || !md->b[b].wb))
			break;
	if (b < j && md->b[b].wb)
		return; /* would wait for ourselves */
	mapping_take_dirty(&md->v.m, start, end, max, sync, run);
	if (b == j) {
		CHECK(run->nr == 0);
		return;
	}
	for (n = 1; n < max && b + n < j && (b + n) % LEAF_BLOCKS; n++) {
		struct mblock *x = &md->b[b + n];

		if (!x->dirty || x->wb || x->delayed != md->b[b].delayed)
			break;
	}
	CHECK(run->lblk == m_lblk(b));
	CHECK(run->nr == n);
	CHECK(run->delayed == md->b[b].delayed);
	for (k = 0, s = 0; s < run->nr_seg; s++) {
		CHECK(run->seg[s].blocks);
		CHECK(!memcmp(run->seg[s].data, m_data(md, b + k),
			      (size_t)run->seg[s].blocks * md->bs));
		k += run->seg[s].blocks;
	}
	CHECK(k == n);
	for (k = 0; k < n; k++) {
		md->b[b + k].dirty = false;
		md->b[b + k].wb = true;
	}
	md->nr_runs++;
}

static u32 m_index(lblk_t lblk)
{
	u32 k;

	for (k = 0; model_leaf[k] != lblk / LEAF_BLOCKS; k++)
		;
	return k * LEAF_BLOCKS + lblk % LEAF_BLOCKS;
}

static void m_end_part(struct model *md, lblk_t lblk, u32 nr, bool redirty)
{
	u32 i = m_index(lblk), k;

	mapping_end_writeback(&md->v.m, lblk, nr, redirty);
	for (k = 0; k < nr; k++) {
		md->b[i + k].wb = false;
		md->b[i + k].dirty |= redirty;
	}
}

static void m_end(struct model *md)
{
	u32 r, i, k, cut, delayed = 0;
	struct wb_run *run;

	if (!md->nr_runs)
		return;
	r = rnd(&md->seed, md->nr_runs);
	run = &md->runs[r];
	i = m_index(run->lblk);
	if (rnd(&md->seed, 8)) {
		for (k = 0; k < run->nr; k++) {
			delayed += md->b[i + k].delayed;
			md->b[i + k].delayed = false;
		}
		CHECK(mapping_set_mapped(&md->v.m, run->lblk, run->nr) ==
		      delayed);
	}
	cut = rnd(&md->seed, run->nr + 1);
	if (cut)
		m_end_part(md, run->lblk, cut, !rnd(&md->seed, 4));
	if (cut < run->nr)
		m_end_part(md, run->lblk + cut, run->nr - cut,
			   !rnd(&md->seed, 4));
	md->runs[r] = md->runs[--md->nr_runs];
}

static bool m_clean(const struct mblock *b)
{
	return !b->dirty && !b->wb && !b->delayed;
}

/* Does block k + 1 of the model go on where block k ends? */
static bool m_joins(const struct model *md, u32 k)
{
	const struct mblock *a = &md->b[k], *b = a + 1;

	if (k + 1 == MODEL_BLOCKS || m_lblk(k + 1) != m_lblk(k) + 1)
		return false;
	return a->state == b->state && a->state != EXTENT_UNKNOWN &&
	       (a->state == EXTENT_HOLE || a->pblk + 1 == b->pblk);
}

/* What is known of one place, to the end of what was asked for. */
static void m_get(struct model *md)
{
	u32 i = m_pick(md), nr = 1 + rnd(&md->seed, 700), n;
	struct extent_status es;
	bool found = mapping_extent_get(&md->v.m, m_lblk(i), nr, &es);
	const struct mblock *b = &md->b[i];

	CHECK(found == (b->state != EXTENT_UNKNOWN));
	CHECK(es.state == b->state);
	if (!found)
		return;
	for (n = 1; n < nr && m_joins(md, i + n - 1); n++)
		;
	CHECK(es.nr == n);
	CHECK(es.pblk == (b->state == EXTENT_HOLE ? 0 : b->pblk));
	if (n == nr)
		return;
	/* Beyond the four leaves nothing is known. */
	b = &md->b[i + n];
	CHECK(es.open == (i + n == MODEL_BLOCKS ||
			  m_lblk(i + n) != m_lblk(i) + n ||
			  b->state == EXTENT_UNKNOWN));
}

/* More may have been forgotten than was asked, but nothing may be wrong. */
static void m_forgotten(struct model *md)
{
	u32 k;

	for (k = 0; k < MODEL_BLOCKS; k++) {
		struct extent_status es;

		if (!mapping_extent_get(&md->v.m, m_lblk(k), 1, &es)) {
			CHECK(es.state == EXTENT_UNKNOWN);
			md->b[k].state = EXTENT_UNKNOWN;
			continue;
		}
		CHECK(es.state == md->b[k].state);
		CHECK(es.state == EXTENT_HOLE || es.pblk == md->b[k].pblk);
	}
}

/* Sets, forgets, converts, or has the shrinker forget, inside one or two
 * adjacent leaves, now and then without memory. */
static void m_extent(struct model *md)
{
	u32 i = m_pick(md), k, n, what = rnd(&md->seed, 8);
	enum extent_state state = 1 + rnd(&md->seed, 3);
	pblk_t pblk = 1 + i + (rnd(&md->seed, 3) ? 0 : rnd(&md->seed, 9));
	bool poor = !rnd(&md->seed, 6);

	n = rnd(&md->seed, 3) ? 1 + rnd(&md->seed, 9) : 1 + rnd(&md->seed, 600);
	if (!rnd(&md->seed, 6)) {
		i -= i % LEAF_BLOCKS;
		n = LEAF_BLOCKS;
	}
	for (k = 1; k < n && i + k < MODEL_BLOCKS - 1 &&
		    m_lblk(i + k) == m_lblk(i) + k; k++)
		;
	n = k;
	fail_after = poor ? (long)rnd(&md->seed, 3) : -1;
	if (what < 5)
		mapping_extent_set(&md->v.m, m_lblk(i), (u64)m_lblk(i) + n, state,
				   state == EXTENT_HOLE ? 0 : pblk);
	else if (what == 5)
		mapping_extent_forget(&md->v.m, m_lblk(i), (u64)m_lblk(i) + n);
	else if (what == 6)
		mapping_extent_written(&md->v.m, m_lblk(i), (u64)m_lblk(i) + n);
	else
		shrink_kind(&md->v.budget, BUDGET_TREE,
			    rnd(&md->seed, 2) ? UINT64_MAX : 300);
	fail_after = -1;
	for (k = i; k < i + n && what < 7; k++) {
		struct mblock *b = &md->b[k];

		if (what < 5) {
			b->state = state;
			b->pblk = pblk + (k - i);
		} else if (what == 5) {
			b->state = EXTENT_UNKNOWN;
		} else if (b->state == EXTENT_UNWRITTEN) {
			b->state = EXTENT_WRITTEN;
		}
	}
	if (what >= 5 || poor)
		m_forgotten(md);
}

/* Without i_rwsem: wholly present and known, or nothing is changed there. */
static void m_overwrite(struct model *md)
{
	u32 i = m_pick(md), bs = md->bs, off = rnd(&md->seed, bs);
	u32 room = m_leaf_left(i) * bs - off, expect = 0, k;
	u32 len = min_of(1 + rnd(&md->seed, 5 * bs), room);
	u8 *buf = malloc(len);

	CHECK(buf);
	for (k = 0; k < len; k++)
		buf[k] = (u8)rnd(&md->seed, 256);
	for (k = i; expect < len; k++) {
		struct mblock *b = &md->b[k];
		u32 o = k == i ? off : 0, n = min_of(bs - o, len - expect);

		if (!b->present || !m_known(b))
			break;
		b->dirty = true;
		memcpy(m_data(md, k) + o, buf + expect, n);
		expect += n;
	}
	CHECK(mapping_overwrite(&md->v.m, (u64)m_lblk(i) * bs + off, buf, len,
				0) == expect);
	free(buf);
}

static void m_invalidate(struct model *md)
{
	u32 i, j, k, delayed = 0;
	lblk_t start, end;

	m_range(md, &i, &j, &start, &end);
	for (k = i; k < j; k++)
		if (md->b[k].wb)
			return;
	for (k = i; k < j; k++) {
		delayed += md->b[k].delayed;
		memset(&md->b[k], 0, sizeof(md->b[k]));
	}
	CHECK(mapping_invalidate(&md->v.m, start, end) == delayed);
	m_forgotten(md);
}

static void m_drop_clean(struct model *md)
{
	u32 i, j, k;
	lblk_t start, end;

	m_range(md, &i, &j, &start, &end);
	mapping_drop_clean(&md->v.m, start, end);
	for (k = i; k < j; k++) {
		md->b[k].state = EXTENT_UNKNOWN;
		if (m_clean(&md->b[k]))
			memset(&md->b[k], 0, sizeof(md->b[k]));
	}
	m_forgotten(md);
}

/* What it dropped is told by the map; it must have been clean. */
static void m_shrink(struct model *md)
{
	bool all = !rnd(&md->seed, 4);
	u32 leaf, k;

	shrink(&md->v.budget, all ? UINT64_MAX : rnd(&md->seed, 400 << 10));
	for (leaf = 0; leaf < 4; leaf++) {
		u64 unknown[LEAF_WORDS], absent[LEAF_WORDS];

		mapping_query(&md->v.m, model_leaf[leaf] * LEAF_BLOCKS,
			      LEAF_BLOCKS, unknown, absent);
		for (k = 0; k < LEAF_BLOCKS; k++) {
			struct mblock *b = &md->b[leaf * LEAF_BLOCKS + k];

			if (!b->present || !bm_test(absent, k))
				continue;
			CHECK(m_clean(b));
			b->present = false;
		}
	}
}

static void m_next_dirty(struct model *md)
{
	u32 i, j, k;
	lblk_t start, end;

	m_range(md, &i, &j, &start, &end);
	for (k = i; k < j && !md->b[k].dirty && !md->b[k].wb; k++)
		;
	CHECK(mapping_next_dirty(&md->v.m, start, end) ==
	      (k < j ? m_lblk(k) : end));
}

static void m_check_counts(struct model *md)
{
	u32 dirty = 0, wb = 0, delayed = 0, present = 0, unclean = 0, k;

	for (k = 0; k < MODEL_BLOCKS; k++) {
		const struct mblock *b = &md->b[k];

		dirty += b->dirty;
		wb += b->wb;
		delayed += b->delayed;
		present += b->present;
		unclean += b->dirty || b->wb;
	}
	CHECK(md->v.m.m_nr_dirty == dirty);
	CHECK(md->v.m.m_nr_writeback == wb);
	CHECK(md->v.m.m_nr_delayed == delayed);
	CHECK(md->v.m.m_nr_folio_blocks == present);
	CHECK(counter_sum(md->v.sb.s_dirty_bytes) == (s64)unclean * md->bs);
	CHECK(md->v.budget.used[BUDGET_FOLIO] >= (s64)present * md->bs);
}

static void model_run(u32 blocksize, u32 steps)
{
	struct model *md = calloc(1, sizeof(*md));
	u32 n;

	CHECK(md);
	md->bs = blocksize;
	md->seed = seed_get();
	print_message("block size %u, SEED=%llu\n", blocksize,
		      (unsigned long long)md->seed);
	md->data = malloc((size_t)MODEL_BLOCKS * blocksize);
	CHECK(md->data);
	vol_open(&md->v, blocksize);
	for (n = 0; n < steps; n++) {
		switch (rnd(&md->seed, 36)) {
		case 0 ... 5:
			m_write(md);
			break;
		case 6 ... 8:
			m_fill(md);
			break;
		case 9 ... 10:
			m_zero(md);
			break;
		case 11 ... 13:
			m_take(md);
			break;
		case 14 ... 16:
			m_end(md);
			break;
		case 17:
			m_invalidate(md);
			break;
		case 18:
			m_drop_clean(md);
			break;
		case 19:
			m_shrink(md);
			break;
		case 20:
			m_next_dirty(md);
			break;
		case 21 ... 25:
			m_extent(md);
			break;
		case 26 ... 29:
			m_get(md);
			break;
		case 30 ... 31:
			m_overwrite(md);
			break;
		default:
			m_read(md);
			break;
		}
		m_check_counts(md);
	}
	while (md->nr_runs)
		m_end(md);
	vol_close(&md->v);
	free(md->data);
	free(md);
}

static void test_model_1k(void **state)
{
	(void)state;
	model_run(1024, 8000);
}

static void test_model_4k(void **state)
{
	(void)state;
	model_run(4096, 8000);
}

/* ---- hammer ---- */

#if defined(SLUICE_TSAN)
#define NO_TSAN __attribute__((no_sanitize("thread"), noinline))
#else
#define NO_TSAN
#endif

/*
 * One file of HB blocks over three leaves; a "device" of HB blocks. Each block
 * holds one stamp, repeated: its number and a version. Writers of a block are
 * serialised by its mutex and raise the version that must be seen from then
 * on (`floor`); a reader must see a version not below the floor it read before.
 * The invalidator holds i_rwsem exclusively, empties a range, and zeroes the
 * device and the floors: version 0 from there.
 */
#define HB 1100u
#define HBS 1024u
#define HWORDS (HBS / 8)

struct hammer {
	struct vol v;
	struct rwsem i_rwsem;
	struct mutex wb_lock; /* one write-out pass at a time */
	struct mutex dev_lock[HB];
	u64 dev[HB][HWORDS];
	bool mapped[HB];      /* the extent tree [dev_lock] */
	struct mutex wlock[HB];
	_Atomic u64 floor[HB];
	_Atomic s64 reserved; /* the file system's reservations */
	_Atomic bool stop;
	_Atomic u64 trunc_seq; /* odd: the invalidator is at work */
	_Atomic u64 writes, reads, misses, refused, runs, freed, truncates;
	_Atomic u64 fast_writes, fast_reads;
};

/* The device copies from memory that writers may be changing: as real I/O. */
static NO_TSAN void dma(u64 *to, const u64 *from)
{
	u32 i;

	for (i = 0; i < HWORDS; i++)
		to[i] = ((const volatile u64 *)from)[i];
}

static u64 stamp(u32 block, u64 version)
{
	return version << 16 | block;
}

static void h_check(struct hammer *h, u32 block, const u64 *data, u64 floor)
{
	u32 i;

	(void)h;
	for (i = 1; i < HWORDS; i++)
		CHECK(data[i] == data[0]);
	if (floor) {
		CHECK((data[0] & 0xffff) == block);
		CHECK(data[0] >> 16 >= floor);
	} else {
		CHECK(!data[0] || (data[0] & 0xffff) == block);
	}
}

/* The record agrees with the extent tree, or there is none and now is: as
 * a lookup does. dev_lock, which is this tree's lock. */
static void h_learn(struct hammer *h, u32 block)
{
	struct extent_status es;

	if (!mapping_extent_get(&h->v.m, block, 1, &es)) {
		mapping_extent_set(&h->v.m, block, block + 1ull,
				   h->mapped[block] ? EXTENT_WRITTEN : EXTENT_HOLE,
				   h->mapped[block] ? 1000 + block : 0);
		return;
	}
	CHECK(es.state == (h->mapped[block] ? EXTENT_WRITTEN : EXTENT_HOLE));
	CHECK(es.state == EXTENT_HOLE || es.pblk == 1000 + block);
}

/* The block into the cache and the buffer. Caller holds i_rwsem. */
static void h_read_block(struct hammer *h, u32 block, u64 *data)
{
	for (;;) {
		u64 gen = mapping_generation(&h->v.m);
		bool cached;
		int ret;

		CHECK(mapping_read(&h->v.m, (u64)block * HBS, data, HBS,
				   &cached) == HBS);
		if (cached)
			return;
		atomic_fetch_add(&h->misses, 1);
		mutex_lock(&h->dev_lock[block]);
		h_learn(h, block);
		dma(data, h->dev[block]);
		mutex_unlock(&h->dev_lock[block]);
		ret = mapping_fill_since(&h->v.m, block, data, gen);
		CHECK(ret == 0 || ret == -EAGAIN);
		if (ret)
			atomic_fetch_add(&h->refused, 1);
	}
}

static void h_reader(void *arg)
{
	struct hammer *h = arg;
	u64 seed = clock_mono_ns() | 1, data[HWORDS];

	while (!h->stop) {
		u32 block = rnd(&seed, HB);
		u64 floor, seq = h->trunc_seq;

		/* Without i_rwsem. The floor holds if nothing was emptied. */
		floor = h->floor[block];
		if (mapping_read_cached(&h->v.m, (u64)block * HBS, data, HBS)) {
			h_check(h, block, data,
				seq % 2 || h->trunc_seq != seq ? 0 : floor);
			atomic_fetch_add(&h->fast_reads, 1);
		}
		rwsem_down_read(&h->i_rwsem);
		floor = h->floor[block];
		h_read_block(h, block, data);
		h_check(h, block, data, floor);
		rwsem_up_read(&h->i_rwsem);
		atomic_fetch_add(&h->reads, 1);
	}
}

/* Writes a range of bytes, as fs/file.c would: query, reserve, fill, write. */
static void h_write(struct hammer *h, u64 pos, const char *src, u32 len)
{
	u64 unknown[LEAF_WORDS], absent[LEAF_WORDS], mapped[LEAF_WORDS];
	u64 data[HWORDS];
	u32 done = 0;

	while (done < len) {
		u64 at = pos + done;
		u32 first = (u32)(at / HBS);
		u32 room = (LEAF_BLOCKS - first % LEAF_BLOCKS) * HBS -
			   (u32)(at % HBS);
		u32 n = min_of(len - done, room);
		u32 nr = (u32)((at % HBS + n + HBS - 1) / HBS), i;
		u32 reserved = 0, used;
		s64 ret;

		mapping_query(&h->v.m, first, nr, unknown, absent);
		memset(mapped, 0, sizeof(mapped));
		for (i = 0; i < nr; i++) {
			bool partial = (i == 0 && at % HBS) ||
				       (i == nr - 1 && (at + n) % HBS);

			if (partial && bm_test(absent, i))
				h_read_block(h, first + i, data);
			if (!bm_test(unknown, i))
				continue;
			mutex_lock(&h->dev_lock[first + i]);
			if (h->mapped[first + i])
				bm_set(mapped, i);
			else
				reserved++;
			mutex_unlock(&h->dev_lock[first + i]);
		}
		used = reserved;
		atomic_fetch_add(&h->reserved, reserved);
		ret = write_either_way(&h->v.m, at, src + done, n, mapped,
				       &reserved, (u32)(at / HBS) & 1);
		CHECK(ret >= 0);
		used -= reserved;
		(void)used;
		atomic_fetch_sub(&h->reserved, reserved);
		done += (u32)ret;
	}
}

/* At most MANY blocks: a thread may hold 64 locks in debug builds. */
#define MANY 56u

static void h_writer(void *arg) NO_THREAD_SAFETY
{
	struct hammer *h = arg;
	u64 seed = clock_mono_ns() | 1;
	static _Thread_local u64 buf[MANY][HWORDS];

	while (!h->stop) {
		u32 block = rnd(&seed, HB);
		u32 nr = 1 + rnd(&seed, rnd(&seed, 8) ? 4 : MANY), i, k;
		u64 version[MANY];

		/* Without i_rwsem. If the range is emptied meanwhile, the floor
		 * has become 0 and stays so, as the write came before. */
		mutex_lock(&h->wlock[block]);
		version[0] = h->floor[block];
		for (k = 0; k < HWORDS; k++)
			buf[0][k] = stamp(block, version[0] + 1);
		if (mapping_overwrite(&h->v.m, (u64)block * HBS, buf, HBS, 0) ==
		    HBS) {
			atomic_compare_exchange_strong(&h->floor[block],
						       &version[0],
						       version[0] + 1);
			atomic_fetch_add(&h->fast_writes, 1);
		}
		mutex_unlock(&h->wlock[block]);

		nr = min_of(nr, HB - block);
		rwsem_down_read(&h->i_rwsem);
		for (i = 0; i < nr; i++) {
			mutex_lock(&h->wlock[block + i]);
			version[i] = h->floor[block + i] + 1;
			for (k = 0; k < HWORDS; k++)
				buf[i][k] = stamp(block + i, version[i]);
		}
		h_write(h, (u64)block * HBS, (char *)buf, nr * HBS);
		for (i = 0; i < nr; i++) {
			h->floor[block + i] = version[i];
			mutex_unlock(&h->wlock[block + i]);
		}
		/* the same bytes over a part, which needs the block present */
		if (!rnd(&seed, 3)) {
			mutex_lock(&h->wlock[block]);
			for (k = 0; k < HWORDS; k++)
				buf[0][k] = stamp(block, h->floor[block]);
			if (h->floor[block])
				h_write(h, (u64)block * HBS + 16,
					(char *)buf[0], 496);
			mutex_unlock(&h->wlock[block]);
		}
		rwsem_up_read(&h->i_rwsem);
		atomic_fetch_add(&h->writes, nr);
	}
}

static void h_flush(struct hammer *h, u64 *seed, bool sync)
{
	static _Thread_local struct wb_run run;
	lblk_t next = sync ? 0 : rnd(seed, HB);

	for (;;) {
		u32 s, k, b, n = 0;
		bool redirty = !sync && !rnd(seed, 10);

		mapping_take_dirty(&h->v.m, next, HB, 1 + rnd(seed, 64), sync,
				   &run);
		if (!run.nr)
			return;
		b = run.lblk;
		for (s = 0; s < run.nr_seg; s++) {
			for (k = 0; k < run.seg[s].blocks; k++, b++) {
				const u64 *from = (u64 *)run.seg[s].data +
						  k * HWORDS;

				mutex_lock(&h->dev_lock[b]);
				dma(h->dev[b], from);
				h->mapped[b] = true;
				mapping_extent_set(&h->v.m, b, b + 1ull,
						   EXTENT_WRITTEN, 1000 + b);
				mutex_unlock(&h->dev_lock[b]);
			}
		}
		CHECK(b == run.lblk + run.nr);
		n = mapping_set_mapped(&h->v.m, run.lblk, run.nr);
		CHECK(n == (run.delayed ? run.nr : 0));
		atomic_fetch_sub(&h->reserved, n);
		mapping_end_writeback(&h->v.m, run.lblk, run.nr, redirty);
		atomic_fetch_add(&h->runs, 1);
		next = run.lblk + run.nr;
	}
}

static void h_flusher(void *arg)
{
	struct hammer *h = arg;
	u64 seed = clock_mono_ns() | 1;

	while (!h->stop) {
		mutex_lock(&h->wb_lock);
		h_flush(h, &seed, rnd(&seed, 2));
		mutex_unlock(&h->wb_lock);
	}
}

static void h_shrinker(void *arg)
{
	struct hammer *h = arg;
	u64 seed = clock_mono_ns() | 1;

	while (!h->stop) {
		u64 freed = shrink(&h->v.budget, rnd(&seed, 8)
							 ? rnd(&seed, 100 << 10)
							 : UINT64_MAX);

		shrink_kind(&h->v.budget, BUDGET_TREE, rnd(&seed, 2000));
		atomic_fetch_add(&h->freed, freed);
		if (!freed)
			usleep(100);
	}
}

static void h_truncate(struct hammer *h, u32 s, u32 e)
{
	u32 b, n;

	rwsem_down_write(&h->i_rwsem);
	atomic_fetch_add(&h->trunc_seq, 1);
	mapping_wait_writeback(&h->v.m, s, e);
	n = mapping_invalidate(&h->v.m, s, e);
	atomic_fetch_sub(&h->reserved, n);
	for (b = s; b < e; b++) {
		mutex_lock(&h->dev_lock[b]);
		mapping_extent_forget(&h->v.m, b, b + 1ull);
		memset(h->dev[b], 0, HBS);
		h->mapped[b] = false;
		mutex_unlock(&h->dev_lock[b]);
		h->floor[b] = 0;
	}
	atomic_fetch_add(&h->trunc_seq, 1);
	rwsem_up_write(&h->i_rwsem);
	atomic_fetch_add(&h->truncates, 1);
}

static void h_invalidator(void *arg)
{
	struct hammer *h = arg;
	u64 seed = clock_mono_ns() | 1;

	while (!h->stop) {
		u32 s = rnd(&seed, HB), e = s + 1 + rnd(&seed, 200);

		if (!rnd(&seed, 16)) {
			s = 0;
			e = HB;
		}
		h_truncate(h, s, min_of(e, HB));
		usleep(rnd(&seed, 3000));
	}
}

static void test_hammer(void **state)
{
	static void (*const fns[])(void *) = { h_writer, h_writer, h_reader,
					       h_reader, h_flusher, h_shrinker,
					       h_shrinker, h_invalidator };
	struct thread *t[ARRAY_SIZE(fns)];
	struct hammer *h = calloc(1, sizeof(*h));
	const char *ms = getenv("HAMMER_MS");
	u64 data[HWORDS], seed = 1;
	u32 i;

	(void)state;
	CHECK(h);
	vol_open(&h->v, HBS);
	rwsem_init(&h->i_rwsem, RANK_I_RWSEM);
	mutex_init(&h->wb_lock, RANK_WRITEBACK);
	for (i = 0; i < HB; i++) {
		mutex_init(&h->dev_lock[i], RANK_NONE);
		mutex_init(&h->wlock[i], RANK_NONE);
	}
	for (i = 0; i < ARRAY_SIZE(fns); i++)
		CHECK(thread_create(&t[i], "hammer", fns[i], h) == 0);
	usleep((ms ? (unsigned)atoi(ms) : 1500) * 1000);
	h->stop = true;
	for (i = 0; i < ARRAY_SIZE(fns); i++)
		thread_join(t[i]);
	print_message("writes %llu reads %llu misses %llu refused %llu "
		      "runs %llu freed %llu truncates %llu, without i_rwsem: "
		      "writes %llu reads %llu\n",
		      (unsigned long long)h->writes,
		      (unsigned long long)h->reads,
		      (unsigned long long)h->misses,
		      (unsigned long long)h->refused,
		      (unsigned long long)h->runs,
		      (unsigned long long)h->freed,
		      (unsigned long long)h->truncates,
		      (unsigned long long)h->fast_writes,
		      (unsigned long long)h->fast_reads);

	for (i = 0; i < HB; i++) {
		h_read_block(h, i, data);
		h_check(h, i, data, h->floor[i]);
		CHECK(data[0] >> 16 == h->floor[i]);
	}
	h_flush(h, &seed, true);
	assert_int_equal(h->v.m.m_nr_dirty, 0);
	assert_int_equal(h->v.m.m_nr_writeback, 0);
	assert_int_equal(h->v.m.m_nr_delayed, 0);
	assert_int_equal(h->reserved, 0);
	assert_int_equal(counter_sum(h->v.sb.s_dirty_bytes), 0);
	for (i = 0; i < HB; i++) {
		CHECK(h->dev[i][0] >> 16 == h->floor[i]);
		h_check(h, i, h->dev[i], h->floor[i]);
	}
	shrink(&h->v.budget, UINT64_MAX);
	assert_int_equal(h->v.m.m_nr_folio_blocks, 0);
	assert_int_equal(h->v.budget.used[BUDGET_FOLIO], 0);
	for (i = 0; i < 4; i++)
		shrink_kind(&h->v.budget, BUDGET_TREE, UINT64_MAX);
	assert_int_equal(h->v.budget.used[BUDGET_TREE], 0);
	vol_close(&h->v);
	for (i = 0; i < HB; i++) {
		mutex_destroy(&h->dev_lock[i]);
		mutex_destroy(&h->wlock[i]);
	}
	mutex_destroy(&h->wb_lock);
	rwsem_destroy(&h->i_rwsem);
	free(h);
}

/* Files come, are written out, and are evicted while shrinkers work on them. */
struct evict {
	struct vol v;
	_Atomic bool stop;
	_Atomic u64 rounds;
};

static void ev_shrinker(void *arg)
{
	struct evict *ev = arg;

	while (!ev->stop) {
		u64 freed = shrink_kind(&ev->v.budget, BUDGET_TREE, 5000);

		if (!shrink(&ev->v.budget, UINT64_MAX) && !freed)
			usleep(50);
	}
}

static void ev_owner(void *arg)
{
	struct evict *ev = arg;
	u64 seed = clock_mono_ns() | 1;
	char data[HBS] = { 0 };

	while (!ev->stop) {
		struct mapping *m = malloc(sizeof(*m));
		u32 nr = 1 + rnd(&seed, 40), i;

		CHECK(m);
		mapping_init(m, NULL, &ev->v.sb);
		for (i = 0; i < nr; i++)
			CHECK(!mapping_fill(m, i * (rnd(&seed, 3) ? 1 : 700),
					    data));
		if (rnd(&seed, 2))
			sched_yield();
		mapping_extent_set(m, rnd(&seed, 2) ? 0 : 5, nr * 100,
				   EXTENT_WRITTEN, 77);
		mapping_invalidate(m, 0, LBLK_MAX + 1);
		if (rnd(&seed, 2))
			mapping_extent_set(m, 512, 5000, EXTENT_HOLE, 0);
		mapping_destroy(m);
		memset(m, 0x5a, sizeof(*m));
		free(m);
		atomic_fetch_add(&ev->rounds, 1);
	}
}

static void test_eviction_against_shrinkers(void **state)
{
	static void (*const fns[])(void *) = { ev_owner, ev_owner, ev_shrinker,
					       ev_shrinker };
	struct thread *t[ARRAY_SIZE(fns)];
	struct evict *ev = calloc(1, sizeof(*ev));
	u32 i;

	(void)state;
	CHECK(ev);
	vol_open(&ev->v, HBS);
	for (i = 0; i < ARRAY_SIZE(fns); i++)
		CHECK(thread_create(&t[i], "evict", fns[i], ev) == 0);
	usleep(1000000);
	while (ev->rounds <= 10) /* however little of that they ran */
		sched_yield();
	ev->stop = true;
	for (i = 0; i < ARRAY_SIZE(fns); i++)
		thread_join(t[i]);
	vol_close(&ev->v);
	free(ev);
}

/* What a stream has written leaves at the end of its write-out, on another
 * thread, while the owner evicts the file and shrinkers are at work. */
struct streams {
	struct evict ev; /* first: ev_shrinker() */
	struct stream_io {
		struct mapping *_Atomic m; /* of the owner: to be ended */
		struct wb_run run;
	} io[2];
	_Atomic u32 nr_owners, nr_ended;
};

static void st_owner(void *arg)
{
	struct streams *st = arg;
	struct stream_io *io = &st->io[atomic_fetch_add(&st->nr_owners, 1)];
	u64 seed = clock_mono_ns() | 1;
	char *data = calloc(LEAF_BLOCKS, HBS);

	CHECK(data);
	while (!st->ev.stop) {
		struct mapping *m = malloc(sizeof(*m));
		struct inode *inode = calloc(1, sizeof(*inode));
		u32 nr = 40 + rnd(&seed, 400), base = rnd(&seed, 2) * 512;
		u32 reserved = 0;

		CHECK(m && inode);
		mapping_init(m, inode, &st->ev.v.sb);
		atomic_store(&inode->i_size, (u64)(base + 512) * HBS);
		CHECK(write_either_way(m, (u64)base * HBS, data, nr * HBS,
				       all_mapped, &reserved,
				       rnd(&seed, 2)) == nr * HBS);
		if (rnd(&seed, 2))
			mapping_extent_set(m, 5, nr * 3, EXTENT_WRITTEN, 77);
		mapping_take_dirty(m, 0, LBLK_MAX, LEAF_BLOCKS, true, &io->run);
		CHECK(io->run.nr == nr);
		atomic_store(&io->m, m);
		if (rnd(&seed, 2))
			sched_yield();
		mapping_wait_writeback(m, 0, LBLK_MAX + 1);
		CHECK(mapping_invalidate(m, 0, LBLK_MAX + 1) == 0);
		mapping_destroy(m);
		memset(m, 0x5a, sizeof(*m));
		free(m);
		free(inode);
		/* The other is done with our slot too. */
		while (atomic_load(&io->m))
			sched_yield();
		atomic_fetch_add(&st->ev.rounds, 1);
	}
	free(data);
	atomic_fetch_add(&st->nr_ended, 1);
}

static void st_device(void *arg)
{
	struct streams *st = arg;

	while (atomic_load(&st->nr_ended) < ARRAY_SIZE(st->io)) {
		for (u32 i = 0; i < ARRAY_SIZE(st->io); i++) {
			struct mapping *m = atomic_load(&st->io[i].m);

			if (!m)
				continue;
			mapping_end_writeback(m, st->io[i].run.lblk,
					      st->io[i].run.nr, false);
			atomic_store(&st->io[i].m, NULL);
		}
		sched_yield();
	}
}

static void test_streams_against_eviction(void **state)
{
	static void (*const fns[])(void *) = { st_owner, st_owner, st_device,
					       ev_shrinker };
	struct thread *t[ARRAY_SIZE(fns)];
	struct streams *st = calloc(1, sizeof(*st));
	u32 i;

	(void)state;
	CHECK(st);
	vol_open(&st->ev.v, HBS);
	st->ev.v.sb.s_data_full = false;
	for (i = 0; i < ARRAY_SIZE(fns); i++)
		CHECK(thread_create(&t[i], "streams", fns[i], st) == 0);
	usleep(1000000);
	while (st->ev.rounds <= 10)
		sched_yield();
	st->ev.stop = true;
	for (i = 0; i < ARRAY_SIZE(fns); i++)
		thread_join(t[i]);
	vol_close(&st->ev.v);
	free(st);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_read_of_absent_leaves_buffer),
		cmocka_unit_test(test_read_stops_at_absent_block),
		cmocka_unit_test(test_small_leaf_grows_with_contents),
		cmocka_unit_test(test_sparse_file_frees_leaves_and_nodes),
		cmocka_unit_test(test_write_stops_without_reservation),
		cmocka_unit_test(test_partial_write_needs_block),
		cmocka_unit_test(test_zero_in_block),
		cmocka_unit_test(test_large_write_has_few_segments),
		cmocka_unit_test(test_runs_split_at_delayed),
		cmocka_unit_test(test_write_under_writeback),
		cmocka_unit_test(test_fill_leaves_present_block),
		cmocka_unit_test(test_fill_since_refuses_stale_data),
		cmocka_unit_test(test_fill_of_a_run),
		cmocka_unit_test(test_query_and_forgetting),
		cmocka_unit_test(test_shrinker_gives_second_chance),
		cmocka_unit_test(test_rest_of_dirty_folio_is_reclaimed),
		cmocka_unit_test(test_folio_around_dirty_block_is_reclaimed),
		cmocka_unit_test(test_memory_is_taken_over),
		cmocka_unit_test(test_memory_is_taken_over_once),
		cmocka_unit_test(test_a_random_reader_keeps_what_he_reads),
		cmocka_unit_test(test_errors_are_told_once_to_each),
		cmocka_unit_test(test_no_memory),
		cmocka_unit_test(test_uniform_leaves_cost_eight_bytes),
		cmocka_unit_test(test_leaf_keeps_what_it_knows),
		cmocka_unit_test(test_many_records_of_one_leaf),
		cmocka_unit_test(test_conversion_in_records),
		cmocka_unit_test(test_records_without_memory),
		cmocka_unit_test(test_records_are_reclaimed),
		cmocka_unit_test(test_overwrite_of_cached_blocks),
		cmocka_unit_test(test_overwrite_against_truncate),
		cmocka_unit_test(test_streams_leave),
		cmocka_unit_test(test_lost_blocks_leave),
		cmocka_unit_test(test_overwrite_against_punch),
		cmocka_unit_test(test_overwrite_against_shrinkers),
		cmocka_unit_test(test_waits_for_writeback),
		cmocka_unit_test(test_never_clean_in_between),
		cmocka_unit_test(test_model_1k),
		cmocka_unit_test(test_model_4k),
		cmocka_unit_test(test_hammer),
		cmocka_unit_test(test_eviction_against_shrinkers),
		cmocka_unit_test(test_streams_against_eviction),
	};
	int ret;

	thread_register();
	regions = region_pool_new(2 * REGION_PAGE + REGION_DATA, REGION_DATA);
	CHECK(regions);
	ret = cmocka_run_group_tests(tests, NULL, NULL);
	region_pool_free(regions);
	thread_unregister();
	return ret;
}
