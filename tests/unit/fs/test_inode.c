/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_inode.c - attributes, and what of an inode is durable when
 *
 * "Durable" is what a copy of the device's content shows when it is mounted.
 */
#include "tests/unit/unit.h"
#include "tests/unit/fs/memvol.h"

#include "fs/ext4.h"

#include <sys/sysmacros.h>

static const struct sl_cred cred = { 0, 0, 022 };
static const struct sl_options opts = { .cache_bytes = 16 << 20,
					.commit_ms = 600000,
					.dirty_expire_ms = 20 };

static struct inode *root_of(struct super_block *sb)
{
	struct inode *root;

	assert_int_equal(sl_iget(sb, 2, &root), 0);
	return root;
}

static struct inode *make(struct super_block *sb, const char *name, u32 mode, u64 rdev)
{
	struct inode *root = root_of(sb), *inode;

	if (S_ISDIR(mode))
		assert_int_equal(sl_mkdir(root, name, strlen(name), mode, &cred,
					  &inode), 0);
	else
		assert_int_equal(sl_mknod(root, name, strlen(name), mode, rdev,
					  &cred, &inode), 0);
	sl_iput(root);
	return inode;
}

static struct inode *find(struct super_block *sb, const char *name)
{
	struct inode *root = root_of(sb), *inode;

	assert_int_equal(sl_lookup(root, name, strlen(name), &inode), 0);
	sl_iput(root);
	return inode;
}

/* Mounts what a power cut now would leave. */
static void crash(struct memvol *mv, struct super_block *sb, struct super_block **out)
{
	u8 *copy = malloc(mv->size);

	memvol_snapshot(mv, copy);
	assert_int_equal(sl_unmount(sb), 0);
	memcpy(mv->content, copy, mv->size);
	free(copy);
	assert_int_equal(memvol_mount(mv, &opts, out), 0);
}

/* Also until the flusher has let go of it, or it could not be dropped. */
static void wait_clean(struct inode *inode)
{
	for (int i = 0; i < 60000; i++) {
		if (!(atomic_load(&inode->i_state) & I_DIRTY) &&
		    !atomic_load(&inode->i_mapping.m_nr_writeback) &&
		    atomic_load(&inode->i_count) == 1)
			return;
		usleep(1000);
	}
	fail_msg("the flusher does not come");
}

/* Written out by the flusher, dropped by reclaim, read again: fsync commits. */
static void fsync_reloaded(bool datasync)
{
	struct super_block *sb;
	struct inode *inode;
	struct sl_file *f;
	struct memvol mv;
	char buf[16] = "";
	u64 evicted;
	struct icache_stats ic;

	memvol_make(&mv, "-b 1024", "16M");
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	inode = make(sb, "file", S_IFREG | 0644, 0);
	assert_int_equal(sl_open(inode, SL_OPEN_WRITE, &f), 0);
	assert_int_equal(sl_write(f, "content", 8, 0, 0, &cred), 8);
	sl_release(f);
	wait_clean(inode);
	sl_iput(inode);
	icache_get_stats(sb, &ic);
	evicted = ic.evicted;
	sl_drop_caches(sb);
	icache_get_stats(sb, &ic);
	assert_true(ic.evicted > evicted);

	inode = find(sb, "file");
	assert_int_equal(sl_open(inode, SL_OPEN_WRITE, &f), 0);
	assert_int_equal(sl_fsync(f, datasync), 0);
	sl_release(f);
	sl_iput(inode);
	crash(&mv, sb, &sb);
	inode = find(sb, "file");
	assert_int_equal(sl_open(inode, 0, &f), 0);
	assert_int_equal(sl_read(f, buf, 16, 0), 8);
	assert_string_equal(buf, "content");
	sl_release(f);
	sl_iput(inode);
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(memvol_fsck(&mv), 0);
	memvol_free(&mv);
}

static void test_fsync_reloaded(void **state)
{
	fsync_reloaded(false);
	fsync_reloaded(true);
}

static void test_fdatasync_new(void **state)
{
	struct super_block *sb;
	struct inode *inode;
	struct sl_file *f;
	struct memvol mv;

	memvol_make(&mv, "-b 1024", "16M");
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	inode = make(sb, "empty", S_IFREG | 0644, 0);
	assert_int_equal(sl_open(inode, SL_OPEN_WRITE, &f), 0);
	assert_int_equal(sl_fsync(f, true), 0);
	sl_release(f);
	sl_iput(inode);
	crash(&mv, sb, &sb);
	sl_iput(find(sb, "empty"));

	sl_iput(make(sb, "entry", S_IFREG | 0644, 0));
	inode = root_of(sb);
	assert_int_equal(sl_opendir(inode, &f), 0);
	assert_int_equal(sl_fsync(f, true), 0);
	sl_release(f);
	sl_iput(inode);
	crash(&mv, sb, &sb);
	sl_iput(find(sb, "entry"));
	assert_int_equal(sl_unmount(sb), 0);
	memvol_free(&mv);
}

static void set_time(struct inode *inode, s64 sec, long nsec)
{
	struct stat st = { .st_atim = { sec, nsec }, .st_mtim = { sec, nsec } };
	struct stat after;

	assert_int_equal(sl_setattr(inode, &st, SL_SET_ATIME | SL_SET_MTIME,
				    &cred, &after), 0);
}

#define T_MIN (-2147483648ll) /* 1901 */
#define T_MAX ((3ll << 32) + 2147483647ll) /* 2446 */

/* Set, seen; unmounted and mounted; seen the same. */
static void attributes(const char *mkfs, bool extra)
{
	static const struct {
		s64 sec, wide, narrow;
	} times[] = {
		{ T_MIN, T_MIN, T_MIN }, { T_MIN - 1, T_MIN, T_MIN },
		{ -1, -1, -1 }, { 0, 0, 0 },
		{ 2147483647, 2147483647, 2147483647 },
		{ 2147483648, 2147483648, 2147483647 },
		{ 1ll << 32, 1ll << 32, 2147483647 },
		{ T_MAX, T_MAX, 2147483647 },
		{ T_MAX + 1, T_MAX, 2147483647 },
		{ 1ll << 40, T_MAX, 2147483647 },
	};
	static const u64 devs[] = { 0x0801, 0 };
	struct super_block *sb;
	struct stat st, want[ARRAY_SIZE(times)];
	struct memvol mv;
	char name[16];

	memvol_make(&mv, mkfs, "16M");
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	assert_int_equal(sl_nsec_times(sb), extra);
	for (size_t i = 0; i < ARRAY_SIZE(times); i++) {
		s64 sec = extra ? times[i].wide : times[i].narrow;
		struct inode *inode;

		snprintf(name, sizeof(name), "t%zu", i);
		inode = make(sb, name, S_IFREG | 0600, 0);
		set_time(inode, times[i].sec, 123456789);
		sl_getattr(inode, &want[i]);
		assert_int_equal(want[i].st_mtim.tv_sec, sec);
		assert_int_equal(want[i].st_atim.tv_sec, sec);
		assert_int_equal(want[i].st_mtim.tv_nsec,
				 extra && sec == times[i].sec ? 123456789 : 0);
		sl_iput(inode);
	}
	st = (struct stat){ .st_uid = 4000000001u, .st_gid = 70001 };
	struct inode *inode = make(sb, "owned", S_IFREG | 04755, 0);
	assert_int_equal(sl_setattr(inode, &st, SL_SET_UID | SL_SET_GID | SL_KILL_SUIDGID,
				    &cred, NULL), 0);
	sl_iput(inode);
	sl_iput(make(sb, "small", S_IFBLK | 0600, devs[0]));
	sl_iput(make(sb, "large", S_IFCHR | 0600, makedev(4095, 1048575)));
	sl_iput(make(sb, "mixed", S_IFCHR | 0600, makedev(8, 65536)));
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(memvol_fsck(&mv), 0);

	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	for (size_t i = 0; i < ARRAY_SIZE(times); i++) {
		snprintf(name, sizeof(name), "t%zu", i);
		inode = find(sb, name);
		sl_getattr(inode, &st);
		assert_memory_equal(&st.st_mtim, &want[i].st_mtim, sizeof(st.st_mtim));
		assert_memory_equal(&st.st_atim, &want[i].st_atim, sizeof(st.st_atim));
		assert_memory_equal(&st.st_ctim, &want[i].st_ctim, sizeof(st.st_ctim));
		sl_iput(inode);
	}
	inode = find(sb, "owned");
	sl_getattr(inode, &st);
	assert_int_equal(st.st_uid, 4000000001u);
	assert_int_equal(st.st_gid, 70001);
	assert_int_equal(st.st_mode, S_IFREG | 0755);
	sl_iput(inode);
	inode = find(sb, "small");
	sl_getattr(inode, &st);
	assert_int_equal(st.st_rdev, devs[0]);
	assert_int_equal(st.st_mode, S_IFBLK | 0600);
	sl_iput(inode);
	inode = find(sb, "large");
	sl_getattr(inode, &st);
	assert_int_equal(st.st_rdev, makedev(4095, 1048575));
	sl_iput(inode);
	inode = find(sb, "mixed");
	sl_getattr(inode, &st);
	assert_int_equal(st.st_rdev, makedev(8, 65536));
	sl_iput(inode);
	assert_int_equal(sl_unmount(sb), 0);
	memvol_free(&mv);
}

static void test_attributes(void **state)
{
	attributes("-b 1024 -I 128", false);
	attributes("-b 1024 -I 256", true);
	attributes("-b 4096 -I 512 -O ^metadata_csum", true);
	attributes("-b 1024 -I 1024", true);
}

/* A number out of a file handle: free, its place in the table full of garbage. */
static void test_free_numbers(void **state)
{
	struct super_block *sb;
	struct ext4_sb *sbi;
	struct inode *inode;
	struct memvol mv;
	u64 table;

	memvol_make(&mv, "-b 1024", "16M");
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	sbi = EXT4_SB(sb);
	table = ext4_gd_inode_table(sbi, ext4_group_desc(sbi, 1, NULL)) * 1024;
	assert_int_equal(sl_unmount(sb), 0);
	memset(mv.content + table, 0xA5, 1024);
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	sbi = EXT4_SB(sb);
	assert_int_equal(sl_iget(sb, sbi->inodes_per_group + 1, &inode), -ESTALE);
	assert_int_equal(sl_iget(sb, 20, &inode), -ESTALE);
	assert_int_equal(sl_iget(sb, 8, &inode), -ESTALE);
	assert_int_equal(sl_iget(sb, 0, &inode), -ESTALE);
	assert_int_equal(sl_iget(sb, 1ull << 32 | 2, &inode), -ESTALE);
	assert_false(sl_is_readonly(sb));
	assert_int_equal(sl_unmount(sb), 0);
	memvol_free(&mv);
}

/* With SL_SET_CTIME, "now" is a time like others; SL_SET_DELAYED has been allowed before. */
static void check_kept_times(struct inode *inode, int to_now)
{
	const u32 told = SL_SET_MTIME | SL_SET_CTIME, both = told | SL_SET_ATIME_NOW;
	struct stat st = { .st_mtim = { 1000, 1 }, .st_ctim = { 1000, 1 } }, after;

	assert_int_equal(sl_setattr(inode, &st, told, &cred, NULL), -EPERM);
	assert_int_equal(sl_setattr(inode, &st, both, &cred, NULL), to_now);
	st.st_ctim.tv_nsec++;
	assert_int_equal(sl_setattr(inode, &st, both, &cred, NULL), -EPERM);
	st.st_mtim.tv_sec = 7;
	assert_int_equal(sl_setattr(inode, &st, told | SL_SET_DELAYED, &cred, &after), 0);
	assert_int_equal(after.st_mtim.tv_sec, 7);
	assert_int_equal(after.st_ctim.tv_nsec, 2);
}

static void test_flags(void **state)
{
	struct super_block *sb;
	struct inode *inode, *root, *other;
	struct stat st = { 0 };
	struct memvol mv;
	struct sl_file *f;

	memvol_make(&mv, "-b 1024", "16M");
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	sl_iput(make(sb, "append", S_IFREG | 0644, 0));
	sl_iput(make(sb, "fixed", S_IFREG | 0644, 0));
	assert_int_equal(sl_unmount(sb), 0);
	memvol_debugfs(&mv, "sif append flags 0x80020");
	memvol_debugfs(&mv, "sif fixed flags 0x80010");
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	root = root_of(sb);

	inode = find(sb, "append");
	assert_int_equal(sl_setattr(inode, &st, SL_SET_MTIME_NOW | SL_SET_ATIME_NOW,
				    &cred, NULL), 0);
	assert_int_equal(sl_setattr(inode, &st, SL_SET_MTIME, &cred, NULL), -EPERM);
	assert_int_equal(sl_setattr(inode, &st, SL_SET_MTIME_NOW | SL_SET_ATIME,
				    &cred, NULL), -EPERM);
	check_kept_times(inode, 0);
	assert_int_equal(sl_setattr(inode, &st, SL_SET_SIZE, &cred, NULL), -EPERM);
	assert_int_equal(sl_setattr(inode, &st, SL_SET_MODE, &cred, NULL), -EPERM);
	assert_int_equal(sl_open(inode, SL_OPEN_WRITE, &f), -EPERM);
	assert_int_equal(sl_open(inode, SL_OPEN_WRITE | SL_OPEN_APPEND, &f), 0);
	assert_int_equal(sl_write(f, "x", 1, 0, 0, &cred), 1);
	sl_release(f);
	assert_int_equal(sl_link(inode, root, "l", 1), -EPERM);
	assert_int_equal(sl_unlink(root, "append", 6), -EPERM);
	assert_int_equal(sl_rename(root, "append", 6, root, "r", 1, 0), -EPERM);
	sl_iput(inode);

	inode = find(sb, "fixed");
	assert_int_equal(sl_setattr(inode, &st, SL_SET_MTIME_NOW, &cred, NULL), -EPERM);
	check_kept_times(inode, -EPERM);
	assert_int_equal(sl_open(inode, SL_OPEN_WRITE, &f), -EPERM);
	assert_int_equal(sl_link(inode, root, "l", 1), -EPERM);
	assert_int_equal(sl_unlink(root, "fixed", 5), -EPERM);
	other = make(sb, "other", S_IFREG | 0644, 0);
	assert_int_equal(sl_rename(root, "other", 5, root, "fixed", 5, 0), -EPERM);
	sl_iput(other);
	sl_iput(inode);
	sl_iput(root);
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(memvol_fsck(&mv), 0);
	memvol_free(&mv);
}

/* Sizes: the limits of the format, and the feature for what exceeds 2 GiB. */
static void test_sizes(void **state)
{
	struct super_block *sb;
	struct inode *inode;
	struct stat st;
	struct sl_file *f;
	struct memvol mv;
	u64 max = (u64)UINT32_MAX * 1024;

	memvol_make(&mv, "-b 1024 -O ^large_file", "16M");
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	inode = make(sb, "file", S_IFREG | 0644, 0);
	st.st_size = INT32_MAX;
	assert_int_equal(sl_setattr(inode, &st, SL_SET_SIZE, &cred, NULL), 0);
	assert_false(ext4_has_ro_compat(EXT4_SB(sb), LARGE_FILE));
	st.st_size = INT32_MAX + 1ll;
	assert_int_equal(sl_setattr(inode, &st, SL_SET_SIZE, &cred, NULL), 0);
	st.st_size = (off_t)max;
	assert_int_equal(sl_setattr(inode, &st, SL_SET_SIZE, &cred, NULL), 0);
	st.st_size = (off_t)max + 1;
	assert_int_equal(sl_setattr(inode, &st, SL_SET_SIZE, &cred, NULL), -EFBIG);
	st.st_size = -1;
	assert_int_equal(sl_setattr(inode, &st, SL_SET_SIZE, &cred, NULL), -EINVAL);
	assert_int_equal(sl_open(inode, SL_OPEN_WRITE, &f), 0);
	assert_int_equal(sl_write(f, "xy", 2, max - 1, 0, &cred), 1);
	assert_int_equal(sl_write(f, "xy", 2, max, 0, &cred), -EFBIG);
	assert_int_equal(sl_fallocate(f, 0, max - 10, 11, &cred), -EFBIG);
	assert_int_equal(sl_fsync(f, false), 0);
	sl_release(f);
	sl_iput(inode);
	crash(&mv, sb, &sb); /* the feature came with the transaction */
	assert_true(ext4_has_ro_compat(EXT4_SB(sb), LARGE_FILE));
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(memvol_fsck(&mv), 0);
	memvol_free(&mv);

	/* i_blocks of 32 bits: 2 TiB and no more. */
	memvol_make(&mv, "-b 4096 -O ^huge_file", "16M");
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	inode = make(sb, "file", S_IFREG | 0644, 0);
	st.st_size = (off_t)((2ull << 40) - 4096);
	assert_int_equal(sl_setattr(inode, &st, SL_SET_SIZE, &cred, NULL), 0);
	st.st_size++;
	assert_int_equal(sl_setattr(inode, &st, SL_SET_SIZE, &cred, NULL), -EFBIG);
	sl_iput(inode);
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(memvol_fsck(&mv), 0);
	memvol_free(&mv);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fsync_reloaded),
		cmocka_unit_test(test_fdatasync_new),
		cmocka_unit_test(test_attributes),
		cmocka_unit_test(test_free_numbers),
		cmocka_unit_test(test_flags),
		cmocka_unit_test(test_sizes),
	};

	return cmocka_run_group_tests(tests, unit_setup, NULL);
}
