/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/cache/test_window.c - windows: who is found where, and what it costs
 *
 * Handles are played by struct access alone, over a mapping without blocks.
 * The counters of the mapping's cache tell how often the tree changed. The
 * hammer runs with both kinds of lock.
 */
#include "tests/unit/cache/cache_test.h"

#include "cache/window.h"
#include "lib/counter.h"

#define BS 4096ull
#define MIB (1ull << 20)
#define GRAIN (WINDOW_GRAIN_BYTES / BS)
#define END ((lblk_t)UINT32_MAX)

static struct super_block sb;
static struct mapping m;

static int begin(void **state)
{
	memset(&sb, 0, sizeof(sb));
	sb.s_blocksize = BS;
	sb.s_blocksize_bits = 12;
	sb.s_dirty_bytes = counter_new(0, 1 << 20);
	assert_int_equal(budget_create(64 * MIB, 1, &sb.s_budget), 0);
	assert_int_equal(mapping_cache_create(&sb, NULL), 0);
	mapping_init(&m, NULL, &sb);
	return 0;
}

static int end(void **state)
{
	mapping_destroy(&m);
	assert_int_equal(mapping_counter_read(&sb, WINDOW_MADE),
			 mapping_counter_read(&sb, WINDOW_GONE));
	assert_int_equal(budget_used(sb.s_budget, BUDGET_TREE), 0);
	mapping_cache_destroy(&sb);
	budget_destroy(sb.s_budget);
	counter_free(sb.s_dirty_bytes);
	return 0;
}

static struct window_census census(u64 from, u64 to)
{
	struct window_census c;

	windows_count(&m, (lblk_t)(from / BS), (lblk_t)(to / BS), &c);
	return c;
}

static u64 changes(void)
{
	return mapping_counter_read(&sb, WINDOW_CHANGES);
}

static void test_who_does_little_has_no_window(void **state)
{
	struct access a;

	access_init(&a, WINDOW_READ);
	access_note(&a, &m, 0, 64 * MIB); /* one operation, however large */
	assert_null(atomic_load(&a.a_win));
	access_end(&a, &m);

	access_init(&a, WINDOW_READ);
	for (u64 i = 0; i < 60; i++) /* many, of a small file */
		access_note(&a, &m, i * BS, BS);
	assert_null(atomic_load(&a.a_win));
	assert_int_equal(changes(), 0);
	assert_null(atomic_load(&m.m_windows));
	for (u64 i = 60; i < 80; i++)
		access_note(&a, &m, i * BS, BS);
	assert_non_null(atomic_load(&a.a_win));
	assert_int_equal(census(0, BS).readers, 1);
	access_end(&a, &m);
	assert_int_equal(census(0, UINT32_MAX * BS).readers, 0);
}

/* 1 GiB in 128 KiB: a change of the tree for 16 MiB, and the window is about
 * the reader's place at all times. */
static void test_a_stream_of_reads(void **state)
{
	struct access a;
	u64 nr;

	access_init(&a, WINDOW_READ);
	for (u64 pos = 0; pos < 1024 * MIB; pos += 128 << 10) {
		access_note(&a, &m, pos, 128 << 10);
		if (pos < 2 * MIB)
			continue;
		assert_int_equal(census(pos, pos + BS).sequential, 1);
		assert_int_equal(census(pos + 64 * MIB, 4096 * MIB).readers, 0);
		if (pos > 64 * MIB)
			assert_int_equal(census(0, pos - 32 * MIB).readers, 0);
	}
	nr = changes();
	assert_in_range(nr, 1024 / 18, 1024 / 16 + 8);
	access_end(&a, &m);
	assert_int_equal(changes(), nr + 1);
}

/* Requests of a readahead that several threads serve come out of order. */
static void test_a_stream_out_of_order(void **state)
{
	static const u64 order[] = { 1, 0, 3, 2, 5, 7, 6, 4 };
	struct access a;

	access_init(&a, WINDOW_READ);
	access_note(&a, &m, 0, MIB);
	access_note(&a, &m, MIB, MIB);
	for (u64 pos = 2 * MIB; pos < 256 * MIB; pos += MIB)
		for (int i = 0; i < 8; i++)
			access_note(&a, &m, pos + order[i] * (MIB / 8), MIB / 8);
	assert_int_equal(atomic_load(&a.a_pattern), ACCESS_SEQUENTIAL);
	assert_true(changes() < 256 / 16 + 8);
	access_end(&a, &m);
}

static void test_random_readers_settle(void **state)
{
	struct access a;
	u64 seed = 1;

	access_init(&a, WINDOW_READ);
	for (int i = 0; i < 5000; i++)
		access_note(&a, &m, test_random(&seed) % 262144 * BS, BS);
	assert_int_equal(atomic_load(&a.a_pattern), ACCESS_RANDOM);
	assert_in_range(changes(), 1, 12);
	assert_int_equal(census(512 * MIB, 513 * MIB).random, 1);
	/* It reads a stream now: found out, and its window is narrow again. */
	for (u64 pos = 60 * MIB; pos < 160 * MIB; pos += MIB)
		access_note(&a, &m, pos, MIB);
	assert_int_equal(atomic_load(&a.a_pattern), ACCESS_SEQUENTIAL);
	assert_int_equal(census(512 * MIB, 513 * MIB).readers, 0);
	assert_int_equal(census(159 * MIB, 160 * MIB).sequential, 1);
	access_end(&a, &m);
}

static void test_strides(void **state)
{
	struct access a;

	access_init(&a, WINDOW_READ);
	for (u64 i = 0; i < 100; i++)
		access_note(&a, &m, i * 3 * MIB, 64 << 10);
	assert_int_equal(atomic_load(&a.a_pattern), ACCESS_STRIDED);
	assert_int_equal(census(303 * MIB, 304 * MIB).strided, 1);
	assert_true(changes() < 25);
	for (u64 i = 99; i > 20; i--)
		access_note(&a, &m, i * 3 * MIB, 64 << 10);
	assert_int_equal(atomic_load(&a.a_pattern), ACCESS_STRIDED);
	assert_int_equal(census(58 * MIB, 59 * MIB).strided, 1);
	access_end(&a, &m);
}

static bool concerned(struct access *a, errseq_t *since)
{
	return access_error_concerns(a) && mapping_peek_error(&m, *since);
}

static int fsync_of(struct access *a, errseq_t *since)
{
	errseq_t told = access_error_begin(a);
	int err = mapping_check_error(&m, since);

	access_error_told(a, told);
	return err;
}

/* fsync tells each once; who may have lost something is told by others, too. */
static void test_a_lost_write_finds_its_writers(void **state)
{
	struct access a, b, small;
	errseq_t sa = mapping_sample_error(&m), sb_ = sa, ss = sa;

	access_init(&a, WINDOW_WRITE);
	access_init(&b, WINDOW_WRITE);
	access_init(&small, WINDOW_WRITE);
	for (u64 i = 0; i < 64; i++) {
		access_note(&a, &m, i * MIB, MIB);
		access_note(&b, &m, (512 + i) * MIB, MIB);
	}
	access_note(&small, &m, 0, 4096);
	/* a's first block, long after a was there */
	assert_int_equal(windows_set_error(&m, 0, 1, -EIO), 1);
	assert_true(concerned(&a, &sa));
	assert_false(concerned(&b, &sb_));
	assert_true(concerned(&small, &ss)); /* nobody can tell */
	assert_int_equal(fsync_of(&a, &sa), -EIO);
	assert_int_equal(fsync_of(&a, &sa), 0);
	assert_false(concerned(&a, &sa));
	/* The next is b's; a is told by fsync alone. */
	assert_int_equal(windows_set_error(&m, 520 * 256, 520 * 256 + 2, -EIO), 1);
	assert_false(concerned(&a, &sa));
	assert_true(concerned(&b, &sb_));
	assert_int_equal(fsync_of(&b, &sb_), -EIO);
	assert_int_equal(fsync_of(&b, &sb_), 0);
	assert_int_equal(fsync_of(&a, &sa), -EIO);
	assert_int_equal(fsync_of(&a, &sa), 0);
	assert_int_equal(fsync_of(&small, &ss), -EIO);
	assert_int_equal(mapping_counter_read(&sb, WINDOW_ERRORS), 2);
	access_end(&a, &m);
	access_end(&b, &m);
	access_end(&small, &m);
}

static void test_truncation_cuts_readers(void **state)
{
	struct access low, high, w;

	access_init(&low, WINDOW_READ);
	access_init(&high, WINDOW_READ);
	access_init(&w, WINDOW_WRITE);
	for (u64 i = 0; i < 8; i++) {
		access_note(&low, &m, i * MIB, MIB);
		access_note(&high, &m, (100 + i) * MIB, MIB);
		access_note(&w, &m, (100 + i) * MIB, MIB);
	}
	windows_truncate(&m, (lblk_t)(8 * MIB / BS));
	assert_int_equal(census(0, 8 * MIB).readers, 1);
	assert_int_equal(census(8 * MIB, 4096 * MIB).readers, 0);
	assert_int_equal(census(100 * MIB, 101 * MIB).writers, 1);
	assert_int_equal(atomic_load(&low.a_pattern), ACCESS_SEQUENTIAL);
	/* They are heard of again. */
	access_note(&low, &m, 8 * MIB, MIB);
	assert_int_equal(atomic_load(&low.a_run), 1);
	assert_int_equal(census(8 * MIB, 9 * MIB).readers, 1);
	for (u64 i = 9; i < 14; i++)
		access_note(&low, &m, i * MIB, MIB);
	access_note(&high, &m, 2 * MIB, MIB);
	assert_int_equal(census(2 * MIB, 3 * MIB).readers, 1);
	/* A hole: a stream begins anew, and no window moves before that. */
	assert_true(atomic_load(&low.a_run) > 1);
	windows_cut(&m, 0, END);
	assert_int_equal(census(12 * MIB, 13 * MIB).readers, 1);
	access_note(&low, &m, 14 * MIB, MIB);
	assert_int_equal(atomic_load(&low.a_run), 1);
	access_end(&low, &m);
	access_end(&high, &m);
	access_end(&w, &m);
}

static void test_reclaim_asks(void **state)
{
	struct access a, b;

	assert_int_equal(windows_ask(&m, 0, 1), WINDOW_NOBODY);
	access_init(&a, WINDOW_READ);
	access_init(&b, WINDOW_READ);
	for (u64 i = 0; i < 5; i++)
		access_note(&a, &m, i * MIB, MIB);
	assert_int_equal(windows_ask(&m, 512, 768), WINDOW_PASSED);
	assert_int_equal(windows_ask(&m, 5 * 256, 5 * 256 + 16), WINDOW_COMING);
	assert_int_equal(windows_ask(&m, 5 * 256 - 1, 5 * 256 + 1), WINDOW_COMING);
	assert_int_equal(windows_ask(&m, 1 << 20, (1 << 20) + 16), WINDOW_NOBODY);
	/* Another, behind, that jumps about. */
	for (u64 i = 0; i < 100; i++)
		access_note(&b, &m, i * 7919 % 1024 * BS, BS);
	assert_int_equal(windows_ask(&m, 512, 768), WINDOW_AROUND);
	assert_int_equal(windows_ask(&m, 5 * 256, 5 * 256 + 16), WINDOW_COMING);
	access_end(&b, &m);
	assert_int_equal(windows_ask(&m, 512, 768), WINDOW_PASSED);
	access_end(&a, &m);
	assert_int_equal(windows_ask(&m, 512, 768), WINDOW_NOBODY);
}

static void test_pieces_of_a_stream(void **state)
{
	struct access a;
	lblk_t start, stop, expect = 0;
	u64 pos;

	access_init(&a, WINDOW_WRITE);
	for (pos = 0; pos < 64 * MIB; pos += MIB / 4) {
		u64 at = pos % (MIB / 2) ? pos - MIB / 4 : pos + MIB / 4;

		access_note(&a, &m, at, MIB / 4);
		if (!access_behind(&a, &m, at, MIB / 4, &start, &stop))
			continue;
		assert_int_equal(start, expect);
		assert_int_equal(stop % LEAF_BLOCKS, 0);
		assert_true(stop > start);
		assert_true(stop * BS + MIB <= pos + MIB / 2);
		expect = stop;
	}
	assert_true(expect * BS >= 56 * MIB);
	/* A jump is another stream; random writes are none. */
	access_note(&a, &m, 500 * MIB, MIB);
	assert_false(access_behind(&a, &m, 500 * MIB, MIB, &start, &stop));
	for (u64 i = 0; i < 64; i++) {
		access_note(&a, &m, i * 13 % 64 * 4 * MIB, MIB);
		assert_false(access_behind(&a, &m, i * 13 % 64 * 4 * MIB, MIB, &start, &stop));
	}
	access_end(&a, &m);
}

/* Who writes at random all over a file comes back to what he has written. */
static void test_random_writes_are_not_written_behind(void **state)
{
	struct access a;
	lblk_t start, stop;
	u64 seed = 88172645463325252ull;

	access_init(&a, WINDOW_WRITE);
	for (u64 i = 0; i < 4096; i++) {
		u64 at;

		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		at = seed % 65536 * BS;
		access_note(&a, &m, at, BS);
		assert_false(access_behind(&a, &m, at, BS, &start, &stop));
	}
	access_end(&a, &m);
}

/* Strides forwards are a stream with gaps; and another handle goes on where one ended. */
static void test_strides_are_written_behind(void **state)
{
	struct access a, b;
	lblk_t start, stop, expect = 0;
	u64 from, reach, pos;

	access_init(&a, WINDOW_WRITE);
	for (pos = 0; pos < 16 * MIB; pos += 8 * BS) {
		access_note(&a, &m, pos, BS);
		if (access_behind(&a, &m, pos, BS, &start, &stop)) {
			assert_int_equal(start, expect);
			expect = stop;
		}
	}
	assert_true(expect * BS >= 8 * MIB);
	access_leave(&a, &from, &reach);
	access_end(&a, &m);
	assert_int_equal(from, expect * BS);
	access_init(&b, WINDOW_WRITE);
	access_resume(&b, from, reach);
	for (; pos < 32 * MIB; pos += MIB) {
		access_note(&b, &m, pos, MIB);
		if (access_behind(&b, &m, pos, MIB, &start, &stop)) {
			assert_int_equal(start, expect);
			expect = stop;
		}
	}
	assert_true(expect * BS >= 24 * MIB);
	access_end(&b, &m);
}

/* The next strides are wanted as long as they lie in the window and in the file. */
static void test_wants_of_a_reader(void **state)
{
	const u64 size = 256 * MIB, stride = 16 * BS;
	struct access_ahead w;
	u64 pos, wanted = 0;
	struct access a;

	access_init(&a, WINDOW_READ);
	for (pos = 0; pos < 32 * MIB; pos += stride) {
		access_note(&a, &m, pos, BS);
		if (!access_wants(&a, &m, pos, BS, size, &w))
			continue;
		assert_int_equal(w.stride, stride);
		assert_int_equal(w.len, BS);
		assert_int_equal(w.pos % stride, 0);
		assert_true(w.pos > pos);
		/* Nothing is wanted twice. */
		assert_true(w.pos >= wanted);
		wanted = w.pos + w.nr * stride;
	}
	assert_true(wanted > 32 * MIB - 8 * stride);
	/* At random, nothing. */
	for (u64 i = 0; i < 64; i++) {
		pos = i * i * i % 4093 * 8 * BS;
		access_note(&a, &m, pos, BS);
	}
	assert_false(access_wants(&a, &m, pos, BS, size, &w));
	access_end(&a, &m);
	/* A stream of small requests, up to the end of the file; of large ones nothing. */
	access_init(&a, WINDOW_READ);
	wanted = 0;
	for (pos = 0; pos < 8 * MIB; pos += 4 * BS) {
		access_note(&a, &m, pos, 4 * BS);
		if (!access_wants(&a, &m, pos, 4 * BS, 8 * MIB, &w))
			continue;
		assert_int_equal(w.nr, 1);
		assert_true(w.pos >= wanted && w.pos >= pos + 4 * BS);
		wanted = w.pos + w.len;
		assert_true(wanted <= 8 * MIB);
	}
	assert_int_equal(wanted, 8 * MIB);
	for (pos = 0; pos < 8 * MIB; pos += MIB) {
		access_note(&a, &m, pos, MIB);
		assert_false(access_wants(&a, &m, pos, MIB, 8 * MIB, &w));
	}
	access_end(&a, &m);
}

/* What is read ahead ends before who writes, and before what moves. */
static void test_clip(void **state)
{
	struct access r, w, mv, other;

	assert_int_equal(windows_clip(&m, 10, 5000), 5000);
	access_init(&r, WINDOW_READ);
	access_init(&w, WINDOW_WRITE);
	for (int i = 0; i < 2; i++) {
		access_note(&r, &m, 0, 2 * MIB);
		access_note(&w, &m, 8 * MIB, 2 * MIB);
	}
	assert_int_equal(windows_clip(&m, 10, 5000), 8 * MIB / BS);
	assert_int_equal(windows_clip(&m, 8 * MIB / BS + 3, 5000), 8 * MIB / BS + 3);
	assert_int_equal(windows_move_begin(&m, &mv, 1000, 1500), 0);
	assert_int_equal(windows_clip(&m, 10, 5000), 1000);
	assert_int_equal(windows_move_begin(&m, &other, 1499, 1600), -EBUSY);
	windows_moved(&m, &mv, 1200);
	assert_int_equal(windows_clip(&m, 10, 5000), 1200);
	assert_int_equal(windows_move_begin(&m, &other, 1000, 1200), 0);
	access_end(&other, &m);
	access_end(&mv, &m);
	assert_int_equal(windows_clip(&m, 10, 5000), 8 * MIB / BS);
	access_end(&w, &m);
	access_end(&r, &m);
}

static void test_no_memory_no_window(void **state)
{
	/* Nothing to be seen from here but that it works without: no window is
	 * what a handle begins with. The tree of a mapping that never had one: */
	windows_truncate(&m, 0);
	windows_cut(&m, 0, END);
	assert_int_equal(windows_set_error(&m, 0, END, -EIO), 0);
	assert_int_equal(census(0, 4096 * MIB).readers, 0);
	assert_null(atomic_load(&m.m_windows));
}

/* ---- hammer ---- */

#define SHARED_HANDLES 2
#define FILE_BLOCKS 65536u

static struct access shared[SHARED_HANDLES];
static _Atomic bool stop_all;
static _Atomic u64 nr_ops;

/*
 * What is noted is found: by who looks for the writers of a block, at any time
 * after, whatever others do; and by nobody once the handle is gone.
 */
static void handle_user(void *arg)
{
	u64 seed = (uintptr_t)arg * 7919 + 12345;

	while (!atomic_load(&stop_all)) {
		struct access own[WINDOW_KINDS];
		errseq_t since = mapping_sample_error(&m);
		u32 nr = (u32)(test_random(&seed) % 200);

		access_init(&own[0], WINDOW_READ);
		access_init(&own[1], WINDOW_WRITE);
		for (u32 i = 0; i < nr; i++) {
			struct access *w = test_random(&seed) % 4
						   ? &own[1]
						   : &shared[test_random(&seed) %
							     SHARED_HANDLES];
			u64 blk = i % 50 < 25 ? i * 64
					      : test_random(&seed) % FILE_BLOCKS;

			/* One that came since may not be in the tree yet. */
			bool had = atomic_load(&w->a_win);

			access_note(w, &m, blk * BS, 64 * BS);
			access_note(&own[0], &m, blk * BS, 32 * BS);
			atomic_fetch_add(&nr_ops, 1);
			if (test_random(&seed) % 8)
				continue;
			windows_set_error(&m, (lblk_t)blk, (lblk_t)blk + 64,
					  test_random(&seed) % 2 ? -EIO : -ENOSPC);
			if (w == &own[1]) {
				thread_check(access_error_concerns(w));
				thread_check(fsync_of(w, &since) < 0);
			} else if (had) {
				struct window_census c;

				windows_count(&m, (lblk_t)blk, (lblk_t)blk + 1, &c);
				thread_check(c.writers > 0);
			}
		}
		access_end(&own[0], &m);
		access_end(&own[1], &m);
	}
}

static void walker(void *arg)
{
	u64 seed = (uintptr_t)arg * 104729 + 99;

	while (!atomic_load(&stop_all)) {
		lblk_t at = (lblk_t)(test_random(&seed) % FILE_BLOCKS);
		struct window_census c;

		switch (test_random(&seed) % 8) {
		case 0:
			windows_truncate(&m, at);
			break;
		case 1:
			windows_cut(&m, at, at + 1000);
			break;
		case 2:
			windows_count(&m, at, at + 5000, &c);
			thread_check(c.readers >= c.sequential + c.strided ||
				     c.readers + c.writers < 1000);
			break;
		default:
			(void)windows_ask(&m, at, at + 16);
		}
	}
}

static void hammer(bool mutexed)
{
	struct thread *t[8];
	u64 until = clock_mono_ns() + TEST_LOAD(2000) * TEST_NS_PER_MS;

	sb.s_window_mutex = mutexed;
	for (int i = 0; i < SHARED_HANDLES; i++)
		access_init(&shared[i], WINDOW_WRITE);
	atomic_store(&stop_all, false);
	atomic_store(&nr_ops, 0);
	for (uintptr_t i = 0; i < 8; i++)
		assert_int_equal(thread_create(&t[i], "hammer",
					       i < 5 ? handle_user : walker,
					       (void *)(i + 1)), 0);
	while (clock_mono_ns() < until)
		(void)wait_event_deadline(&until, false, until);
	/* However little of that they ran. */
	while (atomic_load(&nr_ops) < 1000)
		sched_yield();
	atomic_store(&stop_all, true);
	for (int i = 0; i < 8; i++)
		thread_join(t[i]);
	for (int i = 0; i < SHARED_HANDLES; i++)
		access_end(&shared[i], &m);
	assert_int_equal(census(0, UINT32_MAX * BS).writers, 0);
}

static void test_hammer_rwsem(void **state)
{
	hammer(false);
}

static void test_hammer_mutex(void **state)
{
	hammer(true);
}

/* One thread that wants the lock exclusively, among some that always share it:
 * it comes through as often as it likes. */
static void always_walking(void *arg)
{
	struct window_census c;

	while (!atomic_load(&stop_all))
		windows_count(&m, 0, END, &c);
}

static void test_writers_are_not_starved(void **state)
{
	struct access many[64], a;
	struct thread *t[6];

	for (u64 i = 0; i < 64; i++) { /* walks take a while */
		access_init(&many[i], WINDOW_READ);
		for (u64 k = 0; k < 4; k++)
			access_note(&many[i], &m, (i * 100 + k) * MIB, MIB);
	}
	access_init(&a, WINDOW_READ);
	atomic_store(&stop_all, false);
	for (int i = 0; i < 6; i++)
		assert_int_equal(thread_create(&t[i], "walk", always_walking, NULL), 0);
	/* Each of these leaves the window behind. Were one starved, the test would
	 * not end. */
	for (u64 i = 0; i < TEST_LOAD(2000); i++)
		access_note(&a, &m, i % 2 * 1000000 * MIB + i * 97 * MIB, MIB);
	atomic_store(&stop_all, true);
	for (int i = 0; i < 6; i++)
		thread_join(t[i]);
	assert_true(changes() > 64);
	access_end(&a, &m);
	for (int i = 0; i < 64; i++)
		access_end(&many[i], &m);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, begin, end)
	const struct CMUnitTest tests[] = {
		T(test_who_does_little_has_no_window),
		T(test_a_stream_of_reads),
		T(test_a_stream_out_of_order),
		T(test_random_readers_settle),
		T(test_strides),
		T(test_a_lost_write_finds_its_writers),
		T(test_truncation_cuts_readers),
		T(test_reclaim_asks),
		T(test_pieces_of_a_stream),
		T(test_random_writes_are_not_written_behind),
		T(test_strides_are_written_behind),
		T(test_wants_of_a_reader),
		T(test_clip),
		T(test_no_memory_no_window),
		T(test_hammer_rwsem),
		T(test_hammer_mutex),
		T(test_writers_are_not_starved),
	};
	int ret;

	thread_register();
	ret = cmocka_run_group_tests(tests, NULL, NULL);
	thread_unregister();
	return ret;
}
