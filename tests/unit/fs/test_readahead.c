/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_readahead.c - strides and small requests find their data in the
 * cache, brought there before; large and random ones cause nothing
 */
#include "tests/unit/unit.h"
#include "tests/unit/fs/memvol.h"

#include "fs/ext4.h"
#include "lib/thread.h"
#include "lib/wait.h"

#define BS 4096u
#define SIZE (16u << 20)
#define SMALL (4u * BS)

static const struct sl_cred root_cred = { 0, 0, 022 };
static struct memvol mv;
static struct super_block *sb;
static struct inode *file;

static u8 byte_at(u64 pos)
{
	return (u8)(pos / 512 * 31 + pos % 512);
}

static void fill(u8 *data, u64 pos, u32 len)
{
	for (u32 i = 0; i < len; i++)
		data[i] = byte_at(pos + i);
}

static int setup(void **state)
{
	struct sl_options opts = { .cache_bytes = 32 << 20 };
	static u8 data[1 << 20];
	struct inode *root;
	struct sl_file *f;

	memvol_make(&mv, "-b 4096", "48M");
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	assert_int_equal(sl_iget(sb, 2, &root), 0);
	assert_int_equal(sl_mknod(root, "file", 4, S_IFREG | 0644, 0, &root_cred, &file), 0);
	sl_iput(root);
	assert_int_equal(sl_open(file, SL_OPEN_WRITE, &f), 0);
	for (u64 pos = 0; pos < SIZE; pos += sizeof(data)) {
		fill(data, pos, sizeof(data));
		assert_int_equal(sl_write(f, data, sizeof(data), pos, 0, &root_cred),
				 sizeof(data));
	}
	assert_int_equal(sl_fsync(f, false), 0);
	sl_release(f);
	sl_drop_caches(sb);
	return 0;
}

static int teardown(void **state)
{
	sl_iput(file);
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(memvol_fsck(&mv), 0);
	memvol_free(&mv);
	memset(&mv, 0, sizeof(mv));
	return 0;
}

static u64 brought(void)
{
	return mapping_counter_read(sb, READAHEAD_BLOCKS);
}

static void read_at(struct sl_file *f, u64 pos, u32 len)
{
	static u8 want[1 << 20], got[1 << 20];

	fill(want, pos, len);
	assert_int_equal(sl_read(f, got, len, pos), len);
	assert_memory_equal(want, got, len);
}

/* Goes through the file again and again until something was brought in. */
static void read_until_brought(u64 from, s64 step, u32 len)
{
	u64 until = clock_mono_ns() + 300000000000ull;
	struct sl_file *f;

	assert_int_equal(sl_open(file, 0, &f), 0);
	while (!brought()) {
		u64 pos = from;

		assert_true(clock_mono_ns() < until);
		sl_drop_caches(sb);
		for (; pos < SIZE && pos + len <= SIZE; pos += (u64)step)
			read_at(f, pos, len);
	}
	sl_release(f);
}

static void test_strides(void **state)
{
	read_until_brought(0, 16 * BS, BS);
}

static void test_strides_backwards(void **state)
{
	read_until_brought(SIZE - BS, -(s64)(16 * BS), BS);
}

static void test_small_requests_of_a_stream(void **state)
{
	read_until_brought(0, SMALL, SMALL);
}

/* Everybody else fetches by himself. */
static void test_nothing_for_others(void **state)
{
	u64 seed = 88172645463325252ull;
	struct sl_file *f;

	assert_int_equal(sl_open(file, 0, &f), 0);
	for (u64 pos = 0; pos < SIZE; pos += 1 << 20)
		read_at(f, pos, 1 << 20);
	sl_release(f);
	assert_int_equal(sl_open(file, 0, &f), 0);
	for (u32 i = 0; i < 2000; i++) {
		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		read_at(f, seed % (SIZE / BS) * BS, BS);
	}
	sl_release(f);
	/* What may have been asked for is through when the thread has ended. */
	ext4_readahead_stop(EXT4_SB(sb));
	assert_int_equal(brought(), 0);
}

/* A device that fails costs the reader what he asks for himself, no more. */
static void test_errors_are_the_readers(void **state)
{
	struct sl_file *f;
	u8 buf[BS];

	fake_fail_reads(mv.fd, 0, mv.size);
	assert_int_equal(sl_open(file, 0, &f), 0);
	for (u64 pos = 0; pos < SIZE; pos += 16 * BS)
		assert_int_equal(sl_read(f, buf, BS, pos), -EIO);
	fake_fail_reads(mv.fd, 0, 0);
	for (u64 pos = 0; pos < SIZE; pos += 16 * BS)
		read_at(f, pos, BS);
	sl_release(f);
}

/* A writer and a truncation in between: what is read is never older than they are. */
static void test_beside_a_writer(void **state)
{
	struct stat st = { .st_size = SIZE / 2 };
	struct sl_file *f, *w;
	u8 buf[BS], zero[BS] = { 0 };

	assert_int_equal(sl_open(file, 0, &f), 0);
	assert_int_equal(sl_open(file, SL_OPEN_WRITE, &w), 0);
	for (u64 pos = 0; pos + 32 * BS < SIZE / 2; pos += 16 * BS) {
		read_at(f, pos, BS);
		memset(buf, 0xee, BS);
		assert_int_equal(sl_write(w, buf, BS, pos + 32 * BS, 0, &root_cred), BS);
		if (pos % (256 * BS) == 0)
			assert_int_equal(sl_fsync(w, true), 0);
		assert_int_equal(sl_read(f, buf, BS, pos + 32 * BS), BS);
		for (u32 i = 0; i < BS; i++)
			assert_int_equal(buf[i], 0xee);
		fill(buf, pos + 32 * BS, BS);
		assert_int_equal(sl_write(w, buf, BS, pos + 32 * BS, 0, &root_cred), BS);
	}
	assert_int_equal(sl_setattr(file, &st, SL_SET_SIZE, NULL, NULL), 0);
	st.st_size = SIZE;
	assert_int_equal(sl_setattr(file, &st, SL_SET_SIZE, NULL, NULL), 0);
	for (u64 pos = SIZE / 2; pos < SIZE; pos += 16 * BS) {
		assert_int_equal(sl_read(f, buf, BS, pos), BS);
		assert_memory_equal(buf, zero, BS);
	}
	sl_release(w);
	sl_release(f);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_strides),
		T(test_strides_backwards),
		T(test_small_requests_of_a_stream),
		T(test_nothing_for_others),
		T(test_errors_are_the_readers),
		T(test_beside_a_writer),
	};
	int ret;

	thread_register();
	ret = cmocka_run_group_tests(tests, NULL, NULL);
	thread_unregister();
	return ret;
}
