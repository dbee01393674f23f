/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_indirect_write.c - files of volumes without extents
 *
 * The model is the content of the file's windows: parts of it that lie in each region
 * of the block map. Each test ends with e2fsck.
 */
#include "tests/unit/unit.h"
#include "tests/unit/fs/memvol.h"

#include "fs/ext4.h"
#include "lib/thread.h"

#include <linux/falloc.h>

#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define EXT3_1K                                                                \
	"-b 1024 -O ^extent,^64bit,^flex_bg,^huge_file,^uninit_bg,^metadata_csum"
#define PER 256ull

static const struct sl_cred root_cred = { 0, 0, 022 };
static const struct sl_cred user_cred = { 1000, 1000, 022 };
static const struct sl_options opts = { .cache_bytes = 16 << 20,
					.commit_ms = 600000,
					.dirty_expire_ms = 600000 };
static const struct sl_options busy_opts = { .cache_bytes = 16 << 20,
					     .commit_ms = 20,
					     .dirty_expire_ms = 5 };

static struct memvol mv;
static struct super_block *sb;

static void begin(const char *mkfs, const char *size, const struct sl_options *o)
{
	memvol_make(&mv, mkfs, size);
	assert_int_equal(memvol_mount(&mv, o, &sb), 0);
}

static void end(void)
{
	(void)!sl_sync(sb);
	assert_int_equal(counter_sum(EXT4_SB(sb)->reserved), 0);
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(memvol_fsck(&mv), 0);
	memvol_free(&mv);
}

static struct sl_file *open_file(const char *name, bool create)
{
	struct inode *root, *inode;
	struct sl_file *f;

	assert_int_equal(sl_iget(sb, 2, &root), 0);
	if (create)
		assert_int_equal(sl_mknod(root, name, strlen(name), S_IFREG | 0666, 0,
					  &root_cred, &inode), 0);
	else
		assert_int_equal(sl_lookup(root, name, strlen(name), &inode), 0);
	assert_false(inode->i_flags & EXT4_EXTENTS_FL);
	assert_int_equal(sl_open(inode, SL_OPEN_WRITE, &f), 0);
	sl_iput(inode);
	sl_iput(root);
	return f;
}

static u64 blocks_of(struct sl_file *f)
{
	struct stat st;

	sl_getattr(sl_file_inode(f), &st);
	return (u64)st.st_blocks;
}

/* ---- the model ---- */

#define WINDOW (96u << 10)
/* Where direct blocks end, single, double and triple indirect ones begin. */
static const u64 window_at[] = {
	0, (12 + PER - 40) << 10, (12 + PER + PER * PER - 50) << 10, 4000000000ull >> 10 << 10,
};
#define WINDOWS ARRAY_SIZE(window_at)
static u8 *model[WINDOWS], *scratch;
static u32 rnd_state = 7;

static u32 rnd(u32 n)
{
	rnd_state = rnd_state * 1664525 + 1013904223;
	return (rnd_state >> 8) % n;
}

static void model_begin(void)
{
	for (u32 w = 0; w < WINDOWS; w++) {
		model[w] = io_alloc(WINDOW);
		memset(model[w], 0, WINDOW);
	}
	scratch = io_alloc(WINDOW);
}

static void model_end(void)
{
	for (u32 w = 0; w < WINDOWS; w++)
		io_free(model[w]);
	io_free(scratch);
}

static void check_windows(struct sl_file *f)
{
	for (u32 w = 0; w < WINDOWS; w++) {
		ssize_t n = sl_read(f, scratch, WINDOW, window_at[w]);

		assert_true(n >= 0);
		memset(scratch + n, 0, WINDOW - (size_t)n); /* beyond the end */
		assert_memory_equal(scratch, model[w], WINDOW);
	}
}

static void write_window(struct sl_file *f, u32 w, u32 off, u32 len, u32 flags)
{
	for (u32 i = 0; i < len; i++)
		model[w][off + i] = (u8)rnd(256);
	memcpy(scratch, model[w] + off, len);
	assert_int_equal(sl_write(f, scratch, len, window_at[w] + off, flags, &root_cred), len);
}

static void step(struct sl_file *f)
{
	u32 w = rnd(WINDOWS), off = rnd(WINDOW), len = 1 + rnd(min_of(WINDOW - off, 9000u));

	switch (rnd(8)) {
	case 0:
		assert_int_equal(sl_fallocate(f, PUNCH, window_at[w] + off, len, &root_cred), 0);
		memset(model[w] + off, 0, len);
		break;
	case 1: /* whole blocks, and enough of them to go directly */
		write_window(f, w, rnd(8) << 10, 64u << 10, SL_WRITE_DIRECT);
		break;
	case 2: {
		struct stat st = { .st_size = (off_t)(window_at[w] + off) };

		if (rnd(4))
			break;
		assert_int_equal(sl_setattr(sl_file_inode(f), &st, SL_SET_SIZE, &root_cred,
					    NULL), 0);
		memset(model[w] + off, 0, WINDOW - off);
		while (++w < WINDOWS)
			memset(model[w], 0, WINDOW);
		break;
	}
	case 3:
		assert_int_equal(sl_fsync(f, false), 0);
		break;
	default:
		write_window(f, w, off, len, 0);
	}
}

/* Random changes in every part of the map; all is given back in the end. */
static void changes(const struct sl_options *o, u32 rounds)
{
	struct inode *root;
	struct sl_file *f;
	u64 free_before;

	model_begin();
	begin(EXT3_1K, "16M", o);
	free_before = ext4_count_free_blocks(EXT4_SB(sb));
	f = open_file("file", true);
	for (u32 round = 0; round < rounds; round++) {
		for (u32 i = 0; i < 60; i++)
			step(f);
		check_windows(f);
		sl_release(f);
		assert_int_equal(sl_unmount(sb), 0);
		assert_int_equal(memvol_fsck(&mv), 0);
		memvol_load(&mv);
		assert_int_equal(memvol_mount(&mv, o, &sb), 0);
		f = open_file("file", false);
		check_windows(f);
	}
	assert_int_equal(sl_iget(sb, 2, &root), 0);
	assert_int_equal(sl_unlink(root, "file", 4), 0);
	sl_iput(root);
	sl_release(f);
	assert_int_equal(sl_sync(sb), 0);
	assert_int_equal(ext4_count_free_blocks(EXT4_SB(sb)), free_before);
	end();
	model_end();
}

static void test_changes(void **state)
{
	changes(&opts, 3);
}

static void test_changes_while_all_is_written_out(void **state)
{
	changes(&busy_opts, 4);
}

/* The option promises places at write(2); a block map has none to give. */
static void test_changes_without_delayed_allocation(void **state)
{
	struct sl_options o = busy_opts;

	o.nodelalloc = true;
	changes(&o, 2);
}

/* ---- space ---- */

/* Each block wants indirect blocks of its own: what write(2) took is written. */
static void test_what_was_accepted_finds_its_place(void **state)
{
	char block[1024];
	struct sl_file *f;
	u64 at = 0, n = 0;
	ssize_t got;

	begin(EXT3_1K " -m 0 -N 32", "4M", &opts);
	f = open_file("file", true);
	memset(block, 'x', sizeof(block));
	while ((got = sl_write(f, block, 1024, at << 10, 0, &root_cred)) == 1024) {
		at += PER + 3;
		n++;
	}
	assert_int_equal(got, -ENOSPC);
	assert_true(n > 500);
	assert_int_equal(sl_fsync(f, false), 0);
	for (u64 i = 0; i < n; i++) {
		assert_int_equal(sl_read(f, block, 1024, (i * (PER + 3)) << 10), 1024);
		for (u32 k = 0; k < 1024; k++)
			assert_int_equal(block[k], 'x');
	}
	assert_true(blocks_of(f) >= 4 * n); /* sectors: as many indirect blocks */
	/* There is room for others, once something has gone. */
	assert_int_equal(sl_fallocate(f, PUNCH, 0, (at / 2) << 10, &root_cred), 0);
	assert_int_equal(sl_write(f, block, 1024, 5 << 10, 0, &root_cred), 1024);
	assert_int_equal(sl_fsync(f, false), 0);
	sl_release(f);
	end();
}

/* What is kept for the superuser is not used up by others' indirect blocks. */
static void test_reserved_blocks(void **state)
{
	char block[1024] = "x";
	struct sl_file *f;
	u64 at = 0;
	ssize_t got;

	begin(EXT3_1K " -m 10 -N 32", "4M", &opts);
	f = open_file("file", true);
	while ((got = sl_write(f, block, 1024, at << 10, 0, &user_cred)) == 1024)
		at += PER + 3;
	assert_int_equal(got, -ENOSPC);
	assert_true(ext4_count_free_blocks(EXT4_SB(sb)) > 300);
	assert_int_equal(sl_write(f, block, 1024, at << 10, 0, &root_cred), 1024);
	assert_int_equal(sl_fsync(f, false), 0);
	sl_release(f);
	end();
}

static void test_largest_size(void **state)
{
	/* By the map, and without huge_file by 2^32 sectors, those of the map too. */
	u64 max = (12 + PER + PER * PER + PER * PER * PER) << 10;
	char block[1024] = "x";
	struct sl_file *f;

	begin(EXT3_1K, "8M", &opts);
	f = open_file("file", true);
	assert_int_equal(ext4_max_size(EXT4_I(sl_file_inode(f))), max);
	assert_int_equal(sl_write(f, block, 1024, max, 0, &root_cred), -EFBIG);
	assert_int_equal(sl_write(f, block, 1024, max - 100, 0, &root_cred), 100);
	assert_int_equal(sl_fsync(f, false), 0);
	sl_release(f);
	end();
	begin("-b 4096 -O ^extent,^64bit,^huge_file", "32M", &opts);
	f = open_file("file", true);
	max = ext4_max_size(EXT4_I(sl_file_inode(f)));
	assert_true(max < 2ull << 40 && max > (2ull << 40) - (4ull << 30));
	assert_int_equal(sl_write(f, block, 1024, max - 1024, 0, &root_cred), 1024);
	assert_int_equal(sl_write(f, block, 1024, max, 0, &root_cred), -EFBIG);
	assert_int_equal(sl_fsync(f, false), 0);
	sl_release(f);
	end();
}

/* A file that lies in its inode gets a block map when it leaves it: no more than that. */
static void test_largest_size_of_an_inline_file(void **state)
{
	u64 max = (12 + PER + PER * PER + PER * PER * PER) << 10;
	struct stat st = { .st_size = (off_t)(max + 1) };
	char host[160], cmd[256], got[6] = "";
	struct sl_file *f;
	FILE *out;

	memvol_make(&mv, "-b 1024 -I 256 -O inline_data,^extent,^64bit,^metadata_csum", "8M");
	snprintf(host, sizeof(host), "%s/host", mv.v.dir);
	out = fopen(host, "w");
	assert_non_null(out);
	assert_int_equal(fwrite("inside", 1, 6, out), 6);
	assert_int_equal(fclose(out), 0);
	snprintf(cmd, sizeof(cmd), "write %s file", host);
	memvol_debugfs(&mv, cmd);
	assert_int_equal(unlink(host), 0);
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	f = open_file("file", false);
	assert_true(sl_file_inode(f)->i_flags & EXT4_INLINE_DATA_FL);
	assert_int_equal(ext4_max_size(EXT4_I(sl_file_inode(f))), max);
	assert_int_equal(sl_setattr(sl_file_inode(f), &st, SL_SET_SIZE, &root_cred, NULL),
			 -EFBIG);
	assert_int_equal(sl_write(f, "x", 1, max, 0, &root_cred), -EFBIG);
	assert_true(sl_file_inode(f)->i_flags & EXT4_INLINE_DATA_FL);
	st.st_size = (off_t)max;
	assert_int_equal(sl_setattr(sl_file_inode(f), &st, SL_SET_SIZE, &root_cred, NULL), 0);
	sl_release(f);
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(memvol_fsck(&mv), 0);
	memvol_load(&mv);
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	f = open_file("file", false);
	assert_int_equal(sl_read(f, got, 6, 0), 6);
	assert_memory_equal(got, "inside", 6);
	sl_release(f);
	end();
}

/* ---- errors ---- */

/* The device refuses the data: the map does not get the blocks, nor does anybody see
 * what they held before. */
static void test_refused_data(void **state)
{
	u8 block[4096], zero[4096] = { 0 };
	u64 used, free_before;
	struct sl_file *f;

	begin(EXT3_1K, "8M", &opts);
	f = open_file("file", true);
	memset(block, 'x', sizeof(block));
	assert_int_equal(sl_write(f, block, 1024, 100 << 10, 0, &root_cred), 1024);
	assert_int_equal(sl_fsync(f, false), 0);
	used = blocks_of(f);
	free_before = ext4_count_free_blocks(EXT4_SB(sb));

	assert_int_equal(sl_write(f, block, 4096, 20 << 10, 0, &root_cred), 4096);
	mv.fd->fail_once = true;
	memvol_fail_writes(&mv, 0);
	assert_int_equal(sl_fsync(f, false), -EIO);
	assert_int_equal(blocks_of(f), used);
	assert_int_equal(sl_read(f, block, 4096, 20 << 10), 4096);
	assert_memory_equal(block, zero, 4096);
	assert_int_equal(sl_sync(sb), -EIO);
	assert_int_equal(ext4_count_free_blocks(EXT4_SB(sb)), free_before);

	/* The same, directly. */
	{
		u8 *big = io_alloc(64 << 10);

		memset(big, 'y', 64 << 10);
		mv.fd->fail_once = true;
		memvol_fail_writes(&mv, 0);
		assert_int_equal(sl_write(f, big, 64 << 10, 300 << 10, SL_WRITE_DIRECT,
					  &root_cred), -EIO);
		assert_int_equal(sl_sync(sb), 0);
		assert_int_equal(sl_read(f, block, 4096, 300 << 10), 0); /* beyond the end */
		io_free(big);
	}
	/* Written again, all is well. */
	memset(block, 'z', sizeof(block));
	assert_int_equal(sl_write(f, block, 4096, 20 << 10, 0, &root_cred), 4096);
	(void)!sl_fsync(f, false);
	assert_int_equal(sl_fsync(f, false), 0);
	/* And the two indirect blocks that the direct write would have needed. */
	assert_int_equal(blocks_of(f), used + 8 + 4);
	sl_release(f);
	end();
}

/* ---- several at a time ---- */

#define RACERS 4u
#define RACE_STEPS 250u

struct racer {
	struct sl_file *f;
	u32 n;
};

/* Blocks n, n + RACERS, ... of a part of the file are this one's. */
static void race(void *arg)
{
	const struct racer *r = arg;
	u32 state = r->n + 1;
	u8 block[1024], got[1024];

	for (u32 i = 0; i < RACE_STEPS; i++) {
		u64 at;

		state = state * 1664525 + 1013904223;
		at = (state >> 8) % 300 * RACERS + r->n;
		memset(block, (int)(1 + (state >> 20) % 250), sizeof(block));
		if (i % 5 == 4) {
			memset(block, 0, sizeof(block));
			CHECK(sl_fallocate(r->f, PUNCH, at << 10, 1024, &root_cred) == 0);
		} else {
			CHECK(sl_write(r->f, block, 1024, at << 10, 0, &root_cred) == 1024);
		}
		if (i % 40 == 39)
			CHECK(sl_fsync(r->f, false) == 0);
		CHECK(sl_read(r->f, got, 1024, at << 10) == 1024);
		CHECK(!memcmp(got, block, 1024));
	}
}

static void test_several_at_a_time(void **state)
{
	struct racer r[RACERS];
	struct thread *t[RACERS];
	struct sl_file *f;
	struct stat st = { .st_size = 300 * RACERS << 10 };

	begin(EXT3_1K, "8M", &busy_opts);
	f = open_file("file", true);
	assert_int_equal(sl_setattr(sl_file_inode(f), &st, SL_SET_SIZE, &root_cred, NULL), 0);
	for (u32 i = 0; i < RACERS; i++) {
		r[i] = (struct racer){ f, i };
		assert_int_equal(thread_create(&t[i], "racer", race, &r[i]), 0);
	}
	for (u32 i = 0; i < RACERS; i++)
		thread_join(t[i]);
	assert_int_equal(sl_fsync(f, false), 0);
	sl_release(f);
	end();
}

/* A writer found a hole, and before he came to the cache another's data for it had been
 * written, and was forgotten again: his block has a place when it is written out. */
static void test_a_hole_that_was_filled_meanwhile(void **state)
{
	u64 mapped[LEAF_WORDS] = { 0 }, used;
	struct inode *inode;
	char block[3072], got[3072];
	struct mapping *m;
	struct sl_file *f;
	u32 reserved = 2;

	begin(EXT3_1K, "8M", &opts);
	f = open_file("file", true);
	inode = sl_file_inode(f);
	m = &inode->i_mapping;
	memset(block, 'a', sizeof(block));
	assert_int_equal(sl_write(f, block, 2048, 20 << 10, 0, &root_cred), 2048);
	assert_int_equal(sl_fsync(f, false), 0);
	used = blocks_of(f);
	mapping_drop_clean(m, 21, 22);
	/* One of them is there by now, the next is a hole yet. */
	assert_int_equal(ext4_reserve_blocks(EXT4_SB(sb), reserved, true), 0);
	memset(block + 1024, 'b', 2048);
	assert_int_equal(mapping_write(m, 21 << 10, block + 1024, 2048, mapped, &reserved), 2048);
	assert_int_equal(reserved, 0);
	inode_mark_dirty(inode, I_DIRTY_PAGES);
	assert_int_equal(sl_fsync(f, false), 0);
	assert_int_equal(blocks_of(f), used + 2);
	assert_int_equal(counter_sum(EXT4_SB(sb)->reserved), 0);
	sl_release(f);
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(memvol_fsck(&mv), 0);
	memvol_load(&mv);
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	f = open_file("file", false);
	assert_int_equal(sl_read(f, got, 3072, 20 << 10), 3072);
	assert_memory_equal(got, block, 3072);
	sl_release(f);
	end();
}

/* ---- names ---- */

/* Directories of many blocks, and symlinks of one. */
static void test_names(void **state)
{
	char name[64], target[1000], got[1001];
	struct inode *root, *dir, *inode;

	begin(EXT3_1K ",^dir_index", "16M", &opts);
	assert_int_equal(sl_iget(sb, 2, &root), 0);
	assert_int_equal(sl_mkdir(root, "dir", 3, 0755, &root_cred, &dir), 0);
	assert_false(dir->i_flags & EXT4_EXTENTS_FL);
	for (u32 i = 0; i < 700; i++) {
		snprintf(name, sizeof(name), "a-name-of-some-length-%08u", i);
		assert_int_equal(sl_mknod(dir, name, strlen(name), S_IFREG | 0644, 0, &root_cred,
					  &inode), 0);
		sl_iput(inode);
	}
	assert_true(dir->i_size > 24 << 10); /* beyond the direct blocks */
	memset(target, 't', sizeof(target));
	target[900] = '\0';
	assert_int_equal(sl_symlink(root, "link", 4, target, &root_cred, &inode), 0);
	assert_false(inode->i_flags & EXT4_EXTENTS_FL);
	sl_iput(inode);
	sl_iput(dir);
	sl_iput(root);
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(memvol_fsck(&mv), 0);
	memvol_load(&mv);
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	assert_int_equal(sl_iget(sb, 2, &root), 0);
	assert_int_equal(sl_lookup(root, "link", 4, &inode), 0);
	assert_int_equal(sl_readlink(inode, got, sizeof(got)), 900);
	assert_string_equal(got, target);
	sl_iput(inode);
	assert_int_equal(sl_unlink(root, "link", 4), 0);
	assert_int_equal(sl_lookup(root, "dir", 3, &dir), 0);
	for (u32 i = 0; i < 700; i++) {
		snprintf(name, sizeof(name), "a-name-of-some-length-%08u", i);
		assert_int_equal(sl_unlink(dir, name, strlen(name)), 0);
	}
	sl_iput(dir);
	assert_int_equal(sl_rmdir(root, "dir", 3), 0);
	sl_iput(root);
	end();
}

static int setup(void **state)
{
	thread_register();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_changes),
		cmocka_unit_test(test_changes_while_all_is_written_out),
		cmocka_unit_test(test_changes_without_delayed_allocation),
		cmocka_unit_test(test_what_was_accepted_finds_its_place),
		cmocka_unit_test(test_reserved_blocks),
		cmocka_unit_test(test_largest_size),
		cmocka_unit_test(test_largest_size_of_an_inline_file),
		cmocka_unit_test(test_refused_data),
		cmocka_unit_test(test_several_at_a_time),
		cmocka_unit_test(test_a_hole_that_was_filled_meanwhile),
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
