/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_windows.c - one file, used by all at once, on several zones
 *
 * Readers, writers, punching, truncation, migration, relocation, write-out and dropped caches over one
 * file, whose contents are checked all the time and at the end. HAMMER_MS sets how
 * long, for each number of zones: minutes find more than the second of a
 * normal run. HAMMER_ZONES chooses one of these numbers.
 */
#include "tests/unit/unit.h"
#include "tests/unit/fs/memvol.h"

#include "cache/zone.h"
#include "fs/ext4.h"
#include "lib/thread.h"
#include "lib/wait.h"

#include <linux/falloc.h>
#include <stdatomic.h>

#define BS 4096u
#define CHUNK_BLOCKS 8u
#define CHUNK (CHUNK_BLOCKS * BS)
#define CHUNKS 512u /* 16 MiB that only grow in version ... */
#define BODY ((u64)CHUNKS * CHUNK)
#define TAIL (4u << 20) /* ... and this much that comes and goes */
#define WRITERS 2u

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define HAMMER_DEFAULT 500
#else
#define HAMMER_DEFAULT 1200
#endif

static const struct sl_cred root_cred = { 0, 0, 022 };
static struct memvol mv;
static struct super_block *sb;
static struct inode *file;

static void begin(u32 zones)
{
	struct sl_options opts = { .cache_bytes = 32 << 20,
				   .commit_ms = 50,
				   .dirty_expire_ms = 20,
				   .datacache_full = true,
				   .zones = zones };
	struct inode *root;

	if (!mv.content)
		memvol_make(&mv, "-b 4096", "96M");
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	assert_int_equal(sl_iget(sb, 2, &root), 0);
	if (sl_lookup(root, "file", 4, &file))
		assert_int_equal(sl_mknod(root, "file", 4, S_IFREG | 0644, 0,
					  &root_cred, &file), 0);
	sl_iput(root);
}

static void end(void)
{
	sl_iput(file);
	assert_int_equal(sl_unmount(sb), 0);
}

static u64 stat_value(const char *name)
{
	static char text[32768];
	size_t len = strlen(name);
	char *at = text;

	text[sl_stats(sb, text, sizeof(text) - 1)] = '\0';
	while (strncmp(at, name, len) || at[len] != ' ') {
		at = strchr(at, '\n');
		assert_non_null(at);
		at++;
	}
	return strtoull(at + len, NULL, 10);
}

/* ---- the balancer ---- */

/* What is written from one zone and read from another comes there by itself. */
static void test_data_follows_its_reader(void **state)
{
	static char data[1 << 20], back[1 << 20];
	u64 until, folios;
	struct sl_file *f;

	begin(2);
	zone_set_home(0);
	assert_int_equal(sl_open(file, SL_OPEN_WRITE, &f), 0);
	for (u32 i = 0; i < 12; i++) {
		memset(data, 'a' + (int)i, sizeof(data));
		assert_int_equal(sl_write(f, data, sizeof(data), (u64)i << 20, 0,
					  &root_cred), sizeof(data));
	}
	assert_int_equal(sl_fsync(f, false), 0);
	folios = zone_used(sb->s_budget, 0, BUDGET_FOLIO);
	assert_true(folios >= 12 << 20);
	zone_set_home(1);
	until = clock_mono_ns() + 300000000000ull;
	/* It is counted when a piece is through. */
	while (zone_used(sb->s_budget, 1, BUDGET_FOLIO) < folios / 2 ||
	       !stat_value("migrate_moved")) {
		assert_true(clock_mono_ns() < until);
		for (u32 i = 0; i < 12; i++) {
			memset(data, 'a' + (int)i, sizeof(data));
			assert_int_equal(sl_read(f, back, sizeof(back), (u64)i << 20),
					 sizeof(back));
			assert_memory_equal(data, back, sizeof(data));
		}
	}
	assert_int_equal(sl_migrate(file, 0), 0);
	assert_int_equal(sl_migrate(file, 2), -EINVAL);
	zone_set_home(0);
	sl_release(f);
	end();
	memvol_end(&mv);
}

/* ---- everything at once ---- */

/* Each word of a block: version << 32 | block. Zero: a hole. */
static _Atomic u32 done[CHUNKS];   /* version of the last operation that is through */
static _Atomic u32 punched[CHUNKS]; /* ... of the last hole that was begun */
static _Atomic bool stop_all;
static _Atomic u64 nr_reads, nr_writes;

static u64 next_random(u64 *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s >> 16;
}

static void stamp(u64 *data, u32 block, u32 nr, u32 version)
{
	for (u32 i = 0; i < nr * BS / sizeof(u64); i++)
		data[i] = (u64)version << 32 | (block + i / (BS / sizeof(u64)));
}

static void writer(void *arg)
{
	u32 mine = (u32)(uintptr_t)arg % WRITERS;
	u64 seed = mine + 4711, *data = malloc(CHUNK);
	struct sl_file *f;

	CHECK(data);
	CHECK(!sl_open(file, SL_OPEN_WRITE, &f));
	while (!atomic_load(&stop_all)) {
		u32 c = (u32)(next_random(&seed) % (CHUNKS / WRITERS)) * WRITERS + mine;
		u32 v = atomic_load(&done[c]) + 1;
		u64 pos = (u64)c * CHUNK;

		if (next_random(&seed) % 8) {
			stamp(data, c * CHUNK_BLOCKS, CHUNK_BLOCKS, v);
			CHECK(sl_write(f, data, CHUNK, pos, 0, &root_cred) == CHUNK);
		} else {
			atomic_store(&punched[c], v);
			CHECK(!sl_fallocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					    pos, CHUNK, &root_cred));
		}
		atomic_store(&done[c], v);
		atomic_fetch_add(&nr_writes, 1);
		if (next_random(&seed) % 64 == 0)
			CHECK(!sl_fsync(f, true));
	}
	sl_release(f);
	free(data);
}

/* A block is whole, its own, and not older than what was through before. */
static void check_block(const u64 *data, u32 block, u32 least, u32 hole)
{
	u32 v = (u32)(data[0] >> 32);

	for (u32 i = 1; i < BS / sizeof(u64); i++)
		CHECK(data[i] == data[0]);
	if (!data[0]) {
		CHECK(!least || hole >= least);
		return;
	}
	CHECK((u32)data[0] == block);
	CHECK(v >= least);
}

static void reader(void *arg)
{
	u64 seed = (uintptr_t)arg * 977 + 1, at = 0, data[BS / sizeof(u64)];
	bool stream = (uintptr_t)arg % 2;
	struct sl_file *f;

	zone_set_home((u32)(uintptr_t)arg);
	CHECK(!sl_open(file, 0, &f));
	while (!atomic_load(&stop_all)) {
		u32 block = (u32)(stream ? at++ : next_random(&seed)) %
			    (CHUNKS * CHUNK_BLOCKS);
		u32 c = block / CHUNK_BLOCKS, least = atomic_load(&done[c]);

		CHECK(sl_read(f, data, BS, (u64)block * BS) == BS);
		check_block(data, block, least, atomic_load(&punched[c]));
		atomic_fetch_add(&nr_reads, 1);
		/* Of the tail: there or not, but nothing else. */
		if (next_random(&seed) % 8 == 0) {
			block = CHUNKS * CHUNK_BLOCKS + block % (TAIL / BS);
			if (sl_read(f, data, BS, (u64)block * BS) == BS)
				check_block(data, block, 0, 0);
		}
		if (next_random(&seed) % 4096 == 0) {
			sl_release(f);
			CHECK(!sl_open(file, 0, &f));
		}
	}
	sl_release(f);
}

static void truncater(void *arg)
{
	u64 seed = 99, data[4 * BS / sizeof(u64)];
	struct stat st = { 0 };
	struct sl_file *f;

	CHECK(!sl_open(file, SL_OPEN_WRITE, &f));
	while (!atomic_load(&stop_all)) {
		u32 block = CHUNKS * CHUNK_BLOCKS +
			    (u32)(next_random(&seed) % (TAIL / BS - 4));

		stamp(data, block, 4, 1);
		CHECK(sl_write(f, data, sizeof(data), (u64)block * BS, 0,
			       &root_cred) == sizeof(data));
		if (next_random(&seed) % 8)
			continue;
		/* Whole blocks, so that each stays whole. */
		st.st_size = (off_t)(BODY + next_random(&seed) % (TAIL / BS) * BS);
		CHECK(!sl_setattr(file, &st, SL_SET_SIZE, NULL, NULL));
	}
	sl_release(f);
}

static void mover(void *arg)
{
	u64 seed = 31;

	while (!atomic_load(&stop_all)) {
		CHECK(!sl_migrate(file, (u32)(next_random(&seed) %
					      zone_count(sb->s_budget))));
		if (next_random(&seed) % 16 == 0)
			sl_drop_caches(sb);
		usleep(200);
	}
}

/* Blocks change their places; holes and writes in between break the file up again. */
static void relocater(void *arg)
{
	(void)arg;
	while (!atomic_load(&stop_all)) {
		int err = sl_relocate(file);

		CHECK(!err || err == -ENOSPC);
		usleep(1000);
	}
}

static void check_all(void)
{
	u64 data[BS / sizeof(u64)];
	struct sl_file *f;

	assert_int_equal(sl_open(file, 0, &f), 0);
	for (u32 b = 0; b < CHUNKS * CHUNK_BLOCKS; b++) {
		u32 c = b / CHUNK_BLOCKS, v = atomic_load(&done[c]);

		assert_int_equal(sl_read(f, data, BS, (u64)b * BS), BS);
		check_block(data, b, v, atomic_load(&punched[c]));
		if (v && atomic_load(&punched[c]) != v)
			assert_int_equal(data[0], (u64)v << 32 | b);
	}
	sl_release(f);
}

static void hammer(u32 zones)
{
	static void (*const fn[])(void *) = { writer, writer, reader, reader,
					      reader, truncater, mover, relocater };
	const char *given = getenv("HAMMER_MS"), *only = getenv("HAMMER_ZONES");
	u64 ms = given ? strtoull(given, NULL, 0) : HAMMER_DEFAULT, until;
	struct stat st = { .st_size = (off_t)BODY };
	struct thread *t[ARRAY_SIZE(fn)];

	if (only && strtoull(only, NULL, 0) != zones)
		skip();
	begin(zones);
	memset(done, 0, sizeof(done));
	memset(punched, 0, sizeof(punched));
	assert_int_equal(sl_setattr(file, &st, SL_SET_SIZE, NULL, NULL), 0);
	atomic_store(&stop_all, false);
	atomic_store(&nr_reads, 0);
	atomic_store(&nr_writes, 0);
	until = clock_mono_ns() + ms * 1000000;
	for (uintptr_t i = 0; i < ARRAY_SIZE(fn); i++)
		assert_int_equal(thread_create(&t[i], "hammer", fn[i], (void *)i), 0);
	while (clock_mono_ns() < until)
		(void)wait_event_deadline(&until, false, until);
	atomic_store(&stop_all, true);
	for (u32 i = 0; i < ARRAY_SIZE(fn); i++)
		thread_join(t[i]);
	print_message("%u zones: %llu reads, %llu writes and holes, %llu folios and %llu blocks moved\n",
		      zones, (unsigned long long)atomic_load(&nr_reads),
		      (unsigned long long)atomic_load(&nr_writes),
		      (unsigned long long)stat_value("migrate_moved"),
		      (unsigned long long)stat_value("relocate_moved"));
	check_all();
	end();
	begin(zones);
	check_all();
	end();
	memvol_end(&mv);
}

static void test_hammer_one_zone(void **state)
{
	hammer(1);
}

static void test_hammer_two_zones(void **state)
{
	hammer(2);
}

static void test_hammer_eight_zones(void **state)
{
	hammer(8);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_data_follows_its_reader),
		cmocka_unit_test(test_hammer_one_zone),
		cmocka_unit_test(test_hammer_two_zones),
		cmocka_unit_test(test_hammer_eight_zones),
	};
	int ret;

	thread_register();
	ret = cmocka_run_group_tests(tests, NULL, NULL);
	thread_unregister();
	return ret;
}
