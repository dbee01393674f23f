/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_remount.c - a read-only volume becomes writable, and options change:
 * with a log to replay, with writes that fail, with a device that was changed meanwhile
 */
#include "tests/unit/unit.h"

#include "fs/ext4_format.h"
#include "tests/unit/fs/memvol.h"

#include <stdatomic.h>

static const struct sl_options rw = { .cache_bytes = 16 << 20 };
static const struct sl_options ro = { .cache_bytes = 16 << 20, .readonly = true };

static struct inode *root_of(struct super_block *sb)
{
	struct inode *root;

	assert_int_equal(sl_iget(sb, EXT4_ROOT_INO, &root), 0);
	return root;
}

static void make(struct super_block *sb, const char *name)
{
	const struct sl_cred cred = { 0 };
	struct inode *root = root_of(sb), *dir;

	assert_int_equal(sl_mkdir(root, name, strlen(name), 0755, &cred, &dir), 0);
	sl_iput(dir);
	sl_iput(root);
}

static bool has(struct super_block *sb, const char *name)
{
	struct inode *root = root_of(sb), *found;
	int err = sl_lookup(root, name, strlen(name), &found);

	if (!err)
		sl_iput(found);
	else
		assert_int_equal(err, -ENOENT);
	sl_iput(root);
	return !err;
}

/* Content with a log to replay, that makes the directory "logged", and an orphan. */
static void leave_log(struct memvol *mv)
{
	const struct sl_cred cred = { 0 };
	struct super_block *sb;
	struct inode *root, *f;
	u8 *cut = malloc(mv->size);

	assert_non_null(cut);
	assert_int_equal(memvol_mount(mv, &rw, &sb), 0);
	make(sb, "logged");
	root = root_of(sb);
	assert_int_equal(sl_mknod(root, "f", 1, S_IFREG | 0644, 0, &cred, &f), 0);
	sl_lookup_inc(f);
	assert_int_equal(sl_unlink(root, "f", 1), 0);
	assert_int_equal(sl_sync(sb), 0);
	memvol_snapshot(mv, cut);
	sl_forget(sb, sl_ino(f), 1);
	sl_iput(f);
	sl_iput(root);
	assert_int_equal(sl_unmount(sb), 0);
	memcpy(mv->content, cut, mv->size);
	free(cut);
}

static int make_writable(struct super_block *sb)
{
	int err = sl_writable_begin(sb, NULL);

	return err ? err : sl_writable_finish(sb);
}

static void test_log_is_replayed(void **state)
{
	struct memvol mv;
	struct super_block *sb;

	memvol_make(&mv, "", "16M");
	leave_log(&mv);
	assert_int_equal(memvol_mount(&mv, &ro, &sb), 0);
	assert_true(has(sb, "logged"));
	assert_int_equal(atomic_load(&mv.fd->nr_writes), 0);
	assert_true(sl_is_readonly(sb));
	assert_false(sl_holds_volume(sb));
	assert_int_equal(make_writable(sb), 0);
	assert_false(sl_is_readonly(sb));
	assert_true(sl_holds_volume(sb));
	make(sb, "new");
	/* Once more: nothing to do. */
	assert_int_equal(make_writable(sb), 0);
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(memvol_fsck(&mv), 0);
	assert_int_equal(memvol_mount(&mv, &ro, &sb), 0);
	assert_true(has(sb, "logged") && has(sb, "new"));
	assert_int_equal(sl_unmount(sb), 0);
	memvol_free(&mv);
}

/* Whichever write fails: what was there can be read, and a later mount is whole. */
static void test_failing_writes(void **state)
{
	struct memvol mv;
	struct super_block *sb;
	u8 *whole;
	int err = -EIO;

	memvol_make(&mv, "-O orphan_file", "16M");
	leave_log(&mv);
	whole = malloc(mv.size);
	assert_non_null(whole);
	memcpy(whole, mv.content, mv.size);
	for (s64 nr = 0; err; nr++) {
		assert_true(nr < 200);
		memcpy(mv.content, whole, mv.size);
		assert_int_equal(memvol_mount(&mv, &ro, &sb), 0);
		memvol_fail_writes(&mv, nr);
		err = make_writable(sb);
		assert_true(has(sb, "logged"));
		assert_int_equal(sl_is_readonly(sb), err != 0);
		memvol_fail_writes(&mv, -1);
		/* It can be tried again, unless it counts as an error of the volume. */
		if (err) {
			int again = make_writable(sb);

			assert_true(again == 0 || again == -EROFS);
		}
		(void)!sl_unmount(sb);
		assert_int_equal(memvol_mount(&mv, &rw, &sb), 0);
		assert_true(has(sb, "logged"));
		make(sb, "after");
		assert_int_equal(sl_unmount(sb), 0);
	}
	assert_int_equal(memvol_fsck(&mv), 0);
	free(whole);
	memvol_free(&mv);
}

static void test_refused(void **state)
{
	struct sl_options o = ro;
	struct memvol mv;
	struct super_block *sb;

	memvol_make(&mv, "", "16M");
	assert_int_equal(memvol_mount(&mv, &ro, &sb), 0);
	mv.fd->mem[EXT4_SUPER_OFFSET + offsetof(struct ext4_super_block, s_magic)] ^= 1;
	assert_int_equal(make_writable(sb), -EFSCORRUPTED);
	mv.fd->mem[EXT4_SUPER_OFFSET + offsetof(struct ext4_super_block, s_magic)] ^= 1;
	mv.fd->mem[EXT4_SUPER_OFFSET + offsetof(struct ext4_super_block, s_mnt_count)] ^= 1;
	assert_int_equal(make_writable(sb), -EFSCORRUPTED);
	mv.fd->mem[EXT4_SUPER_OFFSET + offsetof(struct ext4_super_block, s_mnt_count)] ^= 1;
	assert_int_equal(atomic_load(&mv.fd->nr_writes), 0);
	/* A device that is read-only, and stays it. */
	mv.fd->bd.bd_readonly = true;
	assert_int_equal(make_writable(sb), -EROFS);
	mv.fd->bd.bd_readonly = false;
	assert_int_equal(make_writable(sb), 0);
	assert_int_equal(sl_shutdown(sb, SL_SHUTDOWN_DEFAULT), 0);
	assert_int_equal(make_writable(sb), -EROFS);
	assert_int_equal(sl_unmount(sb), 0);

	leave_log(&mv);
	o.noload = true;
	assert_int_equal(memvol_mount(&mv, &o, &sb), 0);
	assert_int_equal(make_writable(sb), -EINVAL);
	assert_int_equal(atomic_load(&mv.fd->nr_writes), 0);
	assert_int_equal(sl_unmount(sb), 0);
	memvol_free(&mv);
}

static void test_options(void **state)
{
	struct sl_options to = rw;
	struct memvol mv;
	struct super_block *sb;
	struct statvfs all, less;

	memvol_make(&mv, "", "16M");
	assert_int_equal(memvol_mount(&mv, &rw, &sb), 0);
	assert_int_equal(sl_statfs(sb, &less), 0);
	to.minixdf = true;
	to.commit_ms = 9000;
	to.dirty_bytes = 1 << 20;
	to.dirty_expire_ms = 1000;
	to.discard = true;
	to.errors = SL_ERRORS_RO;
	to.cache_bytes = 32 << 20;
	assert_int_equal(sl_reconfigure(sb, &rw, &to), 0);
	assert_int_equal(sl_statfs(sb, &all), 0);
	assert_true(all.f_blocks > less.f_blocks);
	assert_int_equal(sl_cache_bytes(sb), 32 << 20);
	make(sb, "d");
	assert_int_equal(sl_reconfigure(sb, &to, &rw), 0);
	assert_int_equal(sl_statfs(sb, &all), 0);
	assert_int_equal(all.f_blocks, less.f_blocks);
	assert_int_equal(sl_cache_bytes(sb), 16 << 20);
	assert_int_equal(sl_unmount(sb), 0);
	memvol_end(&mv);
}

static int init(void **state)
{
	log_init("test", LOG_LVL_ERR);
	thread_register();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_log_is_replayed),
		cmocka_unit_test(test_failing_writes),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_options),
	};

	return cmocka_run_group_tests(tests, init, NULL);
}
