/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_bigalloc.c - clusters: which pieces of a file share one, when it
 * comes and when it goes, and volumes whose extents are at odds with them
 *
 * i_blocks and the free blocks say what is allocated; e2fsck counts both again at the end.
 */
#include "tests/unit/unit.h"
#include "tests/unit/fs/memvol.h"

#include "fs/alloc_internal.h"
#include "fs/extents_internal.h"

#include <linux/falloc.h>
#include <linux/fs.h>

#define BS 1024u
#define RATIO 16u /* blocks of a cluster */
#define CLUSTER (BS * RATIO)
#define MKFS "-b 1024 -C 16384 -m 0 -O bigalloc,^metadata_csum"

static const struct sl_cred cred = { 0, 0, 022 };
static const struct sl_options opts = { .cache_bytes = 16 << 20,
					.errors = SL_ERRORS_CONTINUE,
					.commit_ms = 600000,
					.dirty_expire_ms = 600000 };

static struct memvol mv;
static struct super_block *sb;
static struct sl_file *file;
static struct ext4_inode *ei;
static u64 free_at_first;

static u64 free_blocks(void)
{
	struct statvfs st;

	assert_int_equal(sl_statfs(sb, &st), 0);
	return st.f_bfree;
}

/* A new file, open. */
static void begin_on(const char *mkfs)
{
	struct inode *root, *inode;

	memvol_make(&mv, mkfs, "32M");
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	assert_int_equal(sl_iget(sb, 2, &root), 0);
	assert_int_equal(sl_mknod(root, "file", 4, S_IFREG | 0644, 0, &cred, &inode), 0);
	assert_int_equal(sl_open(inode, SL_OPEN_WRITE, &file), 0);
	ei = EXT4_I(inode);
	sl_iput(inode);
	sl_iput(root);
	free_at_first = free_blocks();
}

static void begin(void)
{
	begin_on(MKFS);
}

static void end(void)
{
	sl_release(file);
	assert_int_equal(sl_sync(sb), 0);
	assert_null(ext4_balloc_check(EXT4_SB(sb)));
	assert_int_equal(sl_unmount(sb), 0);
	memvol_end(&mv);
}

static ssize_t write_blocks(lblk_t lblk, u32 nr)
{
	u8 *data = malloc((size_t)nr * BS);
	ssize_t n;

	assert_non_null(data);
	memset(data, (int)(1 + lblk % 255), (size_t)nr * BS);
	n = sl_write(file, data, (size_t)nr * BS, (u64)lblk * BS, 0, &cred);
	free(data);
	return n;
}

static int punch(lblk_t lblk, u32 nr)
{
	return sl_fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			    (u64)lblk * BS, (u64)nr * BS, &cred);
}

static int truncate_to(u64 size)
{
	struct stat st = { .st_size = (off_t)size };

	return sl_setattr(sl_file_inode(file), &st, SL_SET_SIZE, NULL, NULL);
}

static pblk_t place_of(lblk_t lblk)
{
	struct ext4_map m = { .lblk = lblk, .len = 1 };

	assert_int_equal(ext4_map_blocks(ei, &m), 0);
	return m.flags ? m.pblk : 0;
}

/* The file has so many clusters, and the volume that much less. */
static void assert_clusters(u64 nr)
{
	struct stat st;

	sl_getattr(sl_file_inode(file), &st);
	assert_int_equal(st.st_blocks, nr * CLUSTER / 512);
	assert_int_equal(free_blocks(), free_at_first - nr * RATIO);
}

/* Pieces of one cluster come one by one, in any order, and go so. */
static void test_one_cluster(void **state)
{
	/* No more extents than an inode has room for. */
	static const lblk_t order[] = { 5, 2, 7, 6 };
	const struct sl_fileattr no_extents = { .flags = 0 };
	pblk_t base;

	begin();
	assert_int_equal(write_blocks(5, 1), BS);
	assert_int_equal(sl_fileattr_set(sl_file_inode(file), &no_extents, SL_FA_FLAGS,
					 FS_EXTENT_FL, SL_MAY_OWN, &cred),
			 -EOPNOTSUPP);
	base = place_of(5) - 5;
	assert_int_equal(base % RATIO, 0);
	assert_clusters(1);
	for (size_t i = 1; i < ARRAY_SIZE(order); i++) {
		assert_int_equal(write_blocks(order[i], 1), BS);
		assert_int_equal(place_of(order[i]), base + order[i]);
		assert_clusters(1);
	}
	assert_int_equal(place_of(1), 0);
	assert_int_equal(sl_fsync(file, false), 0);
	/* The first of them stays to the end. */
	for (size_t i = ARRAY_SIZE(order) - 1; i > 0; i--) {
		assert_int_equal(punch(order[i], 1), 0);
		assert_int_equal(place_of(order[i]), 0);
		assert_clusters(1);
		/* And back to its place, before and after a commit. */
		assert_int_equal(write_blocks(order[i], 1), BS);
		assert_int_equal(place_of(order[i]), base + order[i]);
		assert_int_equal(punch(order[i], 1), 0);
	}
	assert_int_equal(punch(0, RATIO), 0);
	assert_clusters(0);
	end();
}

/* Extents over several clusters: parts at both ends, and in the middle. */
static void test_ends(void **state)
{
	begin();
	/* 10..69: clusters 0 to 4 */
	assert_int_equal(write_blocks(10, 60), 60 * BS);
	assert_clusters(5);
	/* The rest of the last, and one more. */
	assert_int_equal(write_blocks(70, 20), 20 * BS);
	assert_clusters(6);
	assert_int_equal(place_of(70), place_of(69) + 1);
	/* A hole in front that ends in the first. */
	assert_int_equal(write_blocks(3, 7), 7 * BS);
	assert_clusters(6);
	/* Beyond, with the cluster between untouched. */
	assert_int_equal(write_blocks(120, 4), 4 * BS);
	assert_clusters(7);
	/* From a free cluster into one that is there. */
	assert_int_equal(write_blocks(100, 20), 20 * BS);
	assert_clusters(8);
	/* 20..60: clusters 2 goes, 1 and 3 stay in part */
	assert_int_equal(punch(20, 40), 0);
	assert_clusters(7);
	assert_int_equal(punch(16, 4), 0);
	assert_clusters(6);
	assert_int_equal(punch(60, 4), 0);
	assert_clusters(5);
	assert_int_equal(sl_fsync(file, false), 0);
	assert_int_equal(truncate_to(4 * CLUSTER + 1), 0);
	assert_clusters(2);
	assert_int_equal(truncate_to(5 * BS), 0);
	assert_clusters(1);
	assert_int_equal(truncate_to(0), 0);
	assert_clusters(0);
	end();
}

/* Pieces of a cluster in different leaves of the tree. */
static void test_leaves(void **state)
{
	const u32 nr = 40 * RATIO;
	struct stat st;

	begin();
	for (u32 i = 0; i < nr; i += 2)
		assert_int_equal(write_blocks(i, 1), BS);
	assert_true(eh_depth(ext_root(ei)) > 0);
	for (u32 i = 0; i < nr; i += 2)
		assert_int_equal(place_of(i) % RATIO, i % RATIO);
	sl_getattr(sl_file_inode(file), &st);
	/* 40 of data; a node has one to itself. */
	assert_in_range(st.st_blocks, 42 * CLUSTER / 512, 60 * CLUSTER / 512);
	assert_clusters((u64)st.st_blocks * 512 / CLUSTER);
	assert_int_equal(sl_fsync(file, false), 0);
	/* All but one piece of each cluster, the odd ones from the front. */
	for (u32 i = 0; i < nr; i += 2)
		if (i % RATIO != (i / RATIO % 8) * 2)
			assert_int_equal(punch(i, 1), 0);
	sl_getattr(sl_file_inode(file), &st);
	assert_in_range(st.st_blocks, 40 * CLUSTER / 512, 60 * CLUSTER / 512);
	assert_int_equal(punch(0, nr), 0);
	assert_clusters(0);
	end();
}

/* What is left of a cluster can be had on a full volume; nothing is promised. */
static void test_full(void **state)
{
	u64 pos = 64, kept;

	begin();
	kept = EXT4_SB(sb)->meta_reserve;
	assert_int_equal(write_blocks(3, 1), BS);
	while (write_blocks((lblk_t)pos, 64) == 64 * BS)
		pos += 64;
	assert_int_equal(write_blocks((lblk_t)pos + 4096, 1), -ENOSPC);
	/* Nodes of trees have been taken from what is kept for them. */
	EXT4_SB(sb)->meta_reserve = kept * 4;
	assert_int_equal(write_blocks(0, 3), 3 * BS);
	assert_int_equal(write_blocks(4, 12), 12 * BS);
	assert_int_equal(write_blocks(16, 1), -ENOSPC);
	EXT4_SB(sb)->meta_reserve = kept;
	assert_int_equal(counter_sum(EXT4_SB(sb)->reserved), 0);
	assert_int_equal(sl_fsync(file, false), 0);
	assert_int_equal(punch(64, 64), 0);
	assert_int_equal(sl_sync(sb), 0);
	assert_int_equal(write_blocks(20, 10), 10 * BS);
	assert_int_equal(truncate_to(0), 0);
	assert_clusters(0);
	end();
}

/* Moves the file's first extent by n blocks, in memory only. */
static void shift_extent(s64 n)
{
	struct ext e;

	rwsem_down_write(&ei->i_data_sem);
	e = ext_get(ext_root(ei), 0);
	e.pblk = (pblk_t)((s64)e.pblk + n);
	ext_set(ext_root(ei), 0, &e);
	mapping_extent_forget(&ei->vfs.i_mapping, 0, EXT4_LBLK_END);
	rwsem_up_write(&ei->i_data_sem);
}

/* An extent at the wrong place in its cluster is read, and not changed. */
static void test_misaligned(void **state)
{
	pblk_t blk;

	begin();
	assert_int_equal(write_blocks(4, 4), 4 * BS);
	assert_int_equal(sl_fsync(file, false), 0);
	blk = place_of(4);
	shift_extent(1);
	assert_int_equal(place_of(4), blk + 1);
	assert_int_equal(write_blocks(9, 1), -EFSCORRUPTED);
	assert_int_equal(write_blocks(0, 1), -EFSCORRUPTED);
	assert_int_equal(punch(5, 1), -EFSCORRUPTED);
	assert_int_equal(truncate_to(0), -EFSCORRUPTED);
	assert_int_equal(place_of(4), blk + 1);
	shift_extent(-1);
	assert_int_equal(truncate_to(0), 0);
	assert_clusters(0);
	end();
}

/* No file has a block map; no volume ends within a cluster. */
static void test_odd_volumes(void **state)
{
	const struct sl_options ro = { .readonly = true };
	struct ext4_super_block *es;
	struct inode *root, *inode;

	begin();
	assert_int_equal(write_blocks(0, 1), BS);
	sl_release(file);
	assert_int_equal(sl_iget(sb, 2, &root), 0);
	assert_int_equal(sl_mknod(root, "empty", 5, S_IFREG | 0644, 0, &cred, &inode), 0);
	sl_iput(inode);
	sl_iput(root);
	assert_int_equal(sl_unmount(sb), 0);
	memvol_debugfs(&mv, "sif /file flags 0");
	/* A map without blocks: nor is one to come. */
	memvol_debugfs(&mv, "sif /empty flags 0");
	memvol_debugfs(&mv, "sif /empty block[0] 0");
	memvol_debugfs(&mv, "sif /empty block[1] 0");
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	assert_int_equal(sl_iget(sb, 2, &root), 0);
	assert_int_equal(sl_lookup(root, "file", 4, &inode), -EFSCORRUPTED);
	assert_int_equal(sl_lookup(root, "empty", 5, &inode), -EFSCORRUPTED);
	sl_iput(root);
	assert_int_equal(sl_unmount(sb), 0);

	es = (void *)(mv.content + 1024);
	es->s_blocks_count_lo = cpu_to_le32(le32_to_cpu(es->s_blocks_count_lo) - 1);
	assert_int_equal(memvol_mount(&mv, &opts, &sb), -EROFS);
	assert_int_equal(memvol_mount(&mv, &ro, &sb), 0);
	assert_int_equal(sl_unmount(sb), 0);
	memvol_free(&mv);
}

/* ---- more than i_blocks can say ---- */

static void set_blocks(u64 sectors)
{
	spin_lock(&ei->vfs.i_lock);
	ei->vfs.i_blocks = sectors;
	spin_unlock(&ei->vfs.i_lock);
}

/* Of a file that has nearly 2^32 sectors: each way to give it more is refused, before
 * anything has changed. */
/* cluster: in sectors. */
static void full_count(const char *mkfs, u64 cluster)
{
	const u64 full = UINT32_MAX;
	char data[BS] = "x";

	begin_on(mkfs);
	assert_int_equal(sl_write(file, data, BS, 0, 0, &cred), BS);
	assert_int_equal(sl_fsync(file, false), 0);
	set_blocks(full - 8);
	assert_int_equal(sl_write(file, data, BS, 1 << 20, 0, &cred), -EFBIG);
	assert_int_equal(sl_fallocate(file, 0, 1 << 20, 100 * BS, &cred), -EFBIG);
	assert_int_equal(sl_write(file, data, BS, 0, 0, &cred), BS);
	assert_int_equal(sl_fsync(file, false), 0);
	assert_int_equal(ei->vfs.i_blocks, full - 8);
	set_blocks(full - 20 * cluster);
	assert_int_equal(sl_write(file, data, BS, 1 << 20, 0, &cred), BS);
	assert_int_equal(sl_fsync(file, false), 0);
	assert_int_equal(ei->vfs.i_blocks, full - 19 * cluster);
	set_blocks(2 * cluster);
	assert_int_equal(sl_write(file, data, BS, 0, 0, &cred), BS); /* stores it */
	end();
}

static void test_no_more_than_i_blocks_can_say(void **state)
{
	full_count(MKFS ",^huge_file", CLUSTER / 512);
	full_count("-b 1024 -m 0 -O ^huge_file,^metadata_csum", BS / 512);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_cluster),
		cmocka_unit_test(test_ends),
		cmocka_unit_test(test_leaves),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_misaligned),
		cmocka_unit_test(test_no_more_than_i_blocks_can_say),
		cmocka_unit_test(test_odd_volumes),
	};

	return cmocka_run_group_tests(tests, unit_setup, NULL);
}
