/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_relocate.c - blocks of a file are moved together: the same bytes
 * before and after, also if the device fails, or the power
 */
#include "tests/unit/unit.h"
#include "tests/unit/fs/memvol.h"

#include "cache/window.h"
#include "fs/ext4.h"
#include "lib/thread.h"

#include <linux/falloc.h>

#define BS 4096u
#define BLOCKS 96u

static const struct sl_cred root_cred = { 0, 0, 022 };
static struct memvol mv;
static struct super_block *sb;
static struct inode *file;

static void begin(const char *mkfs_args)
{
	struct sl_options opts = { .cache_bytes = 32 << 20, .commit_ms = 1000000 };
	struct inode *root;

	if (!mv.content)
		memvol_make(&mv, mkfs_args, "32M");
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

static void fill(u8 *data, u32 block)
{
	for (u32 i = 0; i < BS; i++)
		data[i] = (u8)(block * 7 + i / 64);
}

static void write_block(struct sl_file *f, u32 block)
{
	u8 data[BS];

	fill(data, block);
	assert_int_equal(sl_write(f, data, BS, (u64)block * BS, 0, &root_cred), BS);
}

/* Each block gets its place by itself, in an order that is not that of the file. Every
 * 16th is a hole. */
static void write_scattered(void)
{
	struct sl_file *f;

	assert_int_equal(sl_open(file, SL_OPEN_WRITE, &f), 0);
	for (u32 i = 0; i < BLOCKS; i++) {
		u32 block = i * 37 % BLOCKS;

		if (block % 16 == 5)
			continue;
		write_block(f, block);
		assert_int_equal(sl_fsync(f, true), 0);
	}
	sl_release(f);
}

static void check(void)
{
	u8 want[BS], got[BS];
	struct sl_file *f;

	sl_drop_caches(sb);
	assert_int_equal(sl_open(file, 0, &f), 0);
	for (u32 b = 0; b < BLOCKS; b++) {
		memset(want, 0, sizeof(want));
		if (b % 16 != 5)
			fill(want, b);
		assert_int_equal(sl_read(f, got, BS, (u64)b * BS), BS);
		assert_memory_equal(want, got, BS);
	}
	sl_release(f);
}

static u64 places(void)
{
	u64 nr;

	assert_int_equal(sl_extents(file, &nr), 0);
	return nr;
}

static void test_scattered_file_becomes_one_run(void **state)
{
	u64 free_before, blocks_before;
	struct statvfs st;
	struct stat a;

	begin("-b 4096");
	write_scattered();
	assert_int_equal(sl_sync(sb), 0);
	assert_true(places() > 8);
	assert_int_equal(sl_statfs(sb, &st), 0);
	free_before = st.f_bfree;
	sl_getattr(file, &a);
	blocks_before = (u64)a.st_blocks;
	assert_int_equal(sl_relocate(file), 0);
	assert_int_equal(places(), 1);
	check();
	assert_int_equal(sl_sync(sb), 0);
	assert_int_equal(sl_statfs(sb, &st), 0);
	assert_true(st.f_bfree >= free_before);
	sl_getattr(file, &a);
	assert_true((u64)a.st_blocks <= blocks_before);
	/* Nothing is left to do. */
	assert_int_equal(sl_relocate(file), 0);
	assert_int_equal(places(), 1);
	end();
	begin(NULL);
	assert_int_equal(places(), 1);
	check();
	end();
	memvol_end(&mv);
}

/* What is dirty and cached stays so, and finds its new place. */
static void test_dirty_data_follows(void **state)
{
	struct sl_file *f;

	begin("-b 4096");
	write_scattered();
	assert_int_equal(sl_open(file, SL_OPEN_WRITE, &f), 0);
	for (u32 b = 0; b < BLOCKS; b += 3)
		if (b % 16 != 5)
			write_block(f, b);
	assert_int_equal(sl_relocate(file), 0);
	for (u32 b = 1; b < BLOCKS; b += 3)
		if (b % 16 != 5)
			write_block(f, b);
	assert_int_equal(sl_fsync(f, false), 0);
	assert_int_equal(places(), 1);
	sl_release(f);
	check();
	end();
	memvol_end(&mv);
}

/* The copy fails: all stays where it was, and no block is lost. */
static void test_failed_copy_changes_nothing(void **state)
{
	u64 before;

	begin("-b 4096");
	write_scattered();
	assert_int_equal(sl_sync(sb), 0);
	before = places();
	mv.fd->fail_once = true;
	memvol_fail_writes(&mv, 1);
	assert_int_equal(sl_relocate(file), -EIO);
	mv.fd->fail_once = false;
	memvol_fail_writes(&mv, -1);
	assert_int_equal(places(), before);
	check();
	assert_int_equal(sl_relocate(file), 0);
	assert_int_equal(places(), 1);
	end();
	memvol_end(&mv);
}

/* Cut before the commit, and after it: the bytes are there, and e2fsck finds nothing. */
static void test_power_cut(void **state)
{
	for (int committed = 0; committed < 2; committed++) {
		u64 before;
		u8 *left;

		begin("-b 4096");
		write_scattered();
		assert_int_equal(sl_sync(sb), 0);
		before = places();
		assert_int_equal(sl_relocate(file), 0);
		if (committed)
			assert_int_equal(sl_sync(sb), 0);
		left = malloc(mv.size);
		assert_non_null(left);
		memvol_snapshot(&mv, left);
		end();
		memcpy(mv.content, left, mv.size);
		free(left);
		begin(NULL);
		assert_int_equal(places(), committed ? 1 : before);
		check();
		end();
		memvol_end(&mv);
	}
}

static void test_refused(void **state)
{
	struct access a;
	struct inode *root;
	u64 nr;

	begin("-b 4096");
	assert_int_equal(sl_relocate(file), 0);
	assert_int_equal(sl_extents(file, &nr), 0);
	assert_int_equal(nr, 0);
	write_scattered();
	assert_int_equal(sl_iget(sb, 2, &root), 0);
	assert_int_equal(sl_relocate(root), -EINVAL);
	assert_int_equal(sl_extents(root, &nr), -EINVAL);
	sl_iput(root);
	/* Somebody else is at it. */
	assert_int_equal(windows_move_begin(&file->i_mapping, &a, 3, 5), 0);
	assert_int_equal(sl_relocate(file), -EBUSY);
	access_end(&a, &file->i_mapping);
	assert_int_equal(sl_relocate(file), 0);
	end();
	memvol_end(&mv);
}

/* Who has asked where its blocks are may swap to them until he closes the file. */
static void test_not_while_swapped_to(void **state)
{
	struct sl_file *f, *g;
	u64 where, before;

	begin("-b 4096");
	write_scattered();
	assert_int_equal(sl_sync(sb), 0);
	before = places();
	assert_int_equal(sl_open(file, SL_OPEN_WRITE, &f), 0);
	assert_int_equal(sl_bmap(file, 0, BS, &where), 0);
	assert_true(where > 0);
	assert_int_equal(sl_relocate(file), -ETXTBSY);
	assert_int_equal(places(), before);
	/* Another one closes it. */
	assert_int_equal(sl_open(file, 0, &g), 0);
	sl_release(g);
	assert_int_equal(sl_relocate(file), -ETXTBSY);
	sl_release(f);
	assert_int_equal(sl_relocate(file), 0);
	assert_int_equal(places(), 1);
	check();
	end();
	memvol_end(&mv);
}

/* Many extents, in a tree of more than one level, in several pieces. */
static void test_deep_tree(void **state)
{
	static u8 data[2 * BS];
	struct sl_file *f;
	u64 before;

	begin("-b 1024 -O ^has_journal -O has_journal -J size=4");
	assert_int_equal(sl_open(file, SL_OPEN_WRITE, &f), 0);
	/* Backwards, each with a hole before it, then the holes. */
	for (int odd = 0; odd < 2; odd++)
		for (u32 i = 600; i-- > 0;) {
			u64 pos = (2 * i + (u32)odd) * 1024;

			memset(data, (int)(i * 3 + (u32)odd), 1024);
			assert_int_equal(sl_write(f, data, 1024, pos, 0, &root_cred), 1024);
			if (i % 8 == 0)
				assert_int_equal(sl_fsync(f, true), 0);
		}
	sl_release(f);
	assert_int_equal(sl_sync(sb), 0);
	before = places();
	assert_true(before > 64);
	assert_int_equal(sl_relocate(file), 0);
	assert_true(places() < before / 8);
	sl_drop_caches(sb);
	assert_int_equal(sl_open(file, 0, &f), 0);
	for (u32 b = 0; b < 1200; b++) {
		assert_int_equal(sl_read(f, data, 1024, (u64)b * 1024), 1024);
		for (u32 k = 0; k < 1024; k++)
			assert_int_equal(data[k], (u8)(b / 2 * 3 + b % 2));
	}
	sl_release(f);
	end();
	memvol_end(&mv);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_scattered_file_becomes_one_run),
		cmocka_unit_test(test_dirty_data_follows),
		cmocka_unit_test(test_failed_copy_changes_nothing),
		cmocka_unit_test(test_power_cut),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_not_while_swapped_to),
		cmocka_unit_test(test_deep_tree),
	};
	int ret;

	thread_register();
	ret = cmocka_run_group_tests(tests, NULL, NULL);
	thread_unregister();
	return ret;
}
