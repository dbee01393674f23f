/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_move_extents.c - a file's data moves to the blocks of a donor: the file
 * reads as before, the donor as zero where both had blocks
 */
#include "tests/unit/unit.h"
#include "tests/unit/fs/memvol.h"

#include "fs/ext4.h"
#include "lib/thread.h"

#include <linux/falloc.h>
#include <stdatomic.h>

#define READ_WRITE (SL_OPEN_READ | SL_OPEN_WRITE)

static const struct sl_cred root_cred = { 0, 0, 022 };
static struct memvol mv;
static struct super_block *sb;
static struct inode *file, *donor;
static u32 bs;

static struct inode *get(const char *name)
{
	struct inode *root, *inode;

	assert_int_equal(sl_iget(sb, 2, &root), 0);
	if (sl_lookup(root, name, strlen(name), &inode))
		assert_int_equal(sl_mknod(root, name, strlen(name), S_IFREG | 0644, 0,
					  &root_cred, &inode), 0);
	sl_iput(root);
	return inode;
}

static void begin(const char *mkfs_args, const char *size)
{
	struct sl_options opts = { .cache_bytes = 32 << 20, .commit_ms = 1000000 };

	if (!mv.content)
		memvol_make(&mv, mkfs_args, size);
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	bs = sb->s_blocksize;
	file = get("file");
	donor = get("donor");
}

static void end(void)
{
	sl_iput(file);
	sl_iput(donor);
	assert_int_equal(sl_unmount(sb), 0);
}

static struct sl_file *open_file(struct inode *inode)
{
	struct sl_file *f;

	assert_int_equal(sl_open(inode, READ_WRITE, &f), 0);
	return f;
}

static void write_block(struct sl_file *f, u64 block, char c)
{
	u8 data[4096];

	memset(data, c, bs);
	assert_int_equal(sl_write(f, data, bs, block * bs, 0, &root_cred), bs);
}

/*
 * A file as the text says, a character a block: '.' a hole, 'u' unwritten, else bytes of that
 * character. On disk when this returns.
 */
static void make(struct inode *inode, const char *text)
{
	struct stat st = { .st_size = 0 };
	struct sl_file *f = open_file(inode);
	u64 n = strlen(text);

	assert_int_equal(sl_setattr(inode, &st, SL_SET_SIZE, &root_cred, NULL), 0);
	st.st_size = (off_t)(n * bs);
	assert_int_equal(sl_setattr(inode, &st, SL_SET_SIZE, &root_cred, NULL), 0);
	for (u64 i = 0; i < n; i++)
		if (text[i] == 'u')
			assert_int_equal(sl_fallocate(f, 0, i * bs, bs, &root_cred), 0);
		else if (text[i] != '.')
			write_block(f, i, text[i]);
	assert_int_equal(sl_fsync(f, false), 0);
	sl_release(f);
}

/* '0' for zeroes, '?' for bytes that differ. */
static void expect(struct inode *inode, const char *text)
{
	char got[128] = "";
	struct sl_file *f;
	u8 data[4096];

	assert_int_equal(sl_open(inode, SL_OPEN_READ, &f), 0);
	for (u32 i = 0; i < strlen(text); i++) {
		assert_int_equal(sl_read(f, data, bs, (u64)i * bs), bs);
		got[i] = (char)(data[0] ? data[0] : '0');
		for (u32 k = 1; k < bs; k++)
			if (data[k] != data[0])
				got[i] = '?';
	}
	sl_release(f);
	assert_string_equal(got, text);
}

/* Also when it comes from the device. */
static void expect_both(const char *files, const char *donors)
{
	expect(file, files);
	expect(donor, donors);
	sl_drop_caches(sb);
	expect(file, files);
	expect(donor, donors);
}

static pblk_t place(struct inode *inode, lblk_t lblk)
{
	struct ext4_map map = { .lblk = lblk, .len = 1 };

	assert_int_equal(ext4_map_blocks(EXT4_I(inode), &map), 0);
	return map.flags ? map.pblk : 0;
}

static bool is_unwritten(struct inode *inode, lblk_t lblk)
{
	struct ext4_map map = { .lblk = lblk, .len = 1 };

	assert_int_equal(ext4_map_blocks(EXT4_I(inode), &map), 0);
	return map.flags & EXT4_MAP_UNWRITTEN;
}

static int move(u64 start, u64 from, u64 len, u64 *moved)
{
	struct sl_file *f = open_file(file);
	int err = sl_move_extents(f, donor, start, from, len, moved);

	sl_release(f);
	return err;
}

static void expect_move(u64 start, u64 from, u64 len, int err, u64 blocks)
{
	u64 moved = 99;

	assert_int_equal(move(start, from, len, &moved), err);
	assert_int_equal(moved, blocks);
}

static void test_places_are_exchanged(void **state)
{
	struct stat before[2], after[2];
	pblk_t f, d;

	begin("-b 4096", "32M");
	make(file, "abcd");
	make(donor, "uuuu");
	f = place(file, 0);
	d = place(donor, 0);
	sl_getattr(file, &before[0]);
	sl_getattr(donor, &before[1]);
	expect_move(0, 0, 4, 0, 4);
	assert_int_equal(place(file, 0), d);
	assert_int_equal(place(donor, 0), f);
	assert_true(is_unwritten(donor, 3));
	expect_both("abcd", "0000");
	sl_getattr(file, &after[0]);
	sl_getattr(donor, &after[1]);
	for (u32 i = 0; i < 2; i++) {
		assert_int_equal(before[i].st_size, after[i].st_size);
		assert_int_equal(before[i].st_blocks, after[i].st_blocks);
		assert_int_equal(before[i].st_mtim.tv_nsec, after[i].st_mtim.tv_nsec);
		assert_int_equal(before[i].st_ctim.tv_nsec, after[i].st_ctim.tv_nsec);
	}
	/* And back. */
	expect_move(0, 0, 4, 0, 4);
	assert_int_equal(place(file, 0), f);
	end();
	begin(NULL, NULL);
	expect_both("abcd", "0000");
	end();
	memvol_end(&mv);
}

static void test_what_is_not_in_both_stays(void **state)
{
	static const struct {
		const char *file, *donor;
		u64 start, from, len;
		int err;
		u64 moved;
		const char *file_after, *donor_after;
	} t[] = {
		{ "abcd", "wxyz", 0, 0, 4, 0, 4, "abcd", "0000" },
		{ "aubu", "uuxy", 0, 0, 4, 0, 4, "a0b0", "0000" },
		{ "uuuu", "wxyz", 0, 0, 4, 0, 4, "0000", "0000" },
		{ "ab.d", "w.yz", 0, 0, 4, 0, 2, "ab0d", "00y0" },
		{ "....", "wxyz", 0, 0, 4, -ENODATA, 0, "0000", "wxyz" },
		{ "ab..", "wxyz", 0, 0, 4, -ENODATA, 2, "ab00", "00yz" },
		{ "ab.d", "wxyz", 0, 0, 3, 0, 2, "ab0d", "00yz" },
		{ "abcd", "....", 0, 0, 4, 0, 0, "abcd", "0000" },
		{ "abcd", "wxyz", 1, 0, 2, 0, 2, "abcd", "00yz" },
		{ "abcd", "wxyz", 1, 1, 2, 0, 2, "abcd", "w00z" },
		{ "abcd", "wx", 0, 0, 4, 0, 2, "abcd", "00" },
		{ "abcd", "wxyz", 2, 1, 9, 0, 2, "abcd", "w00z" },
		{ "abcd", "wxyz", 0, 0, UINT32_MAX - 1ull, 0, 4, "abcd", "0000" },
		{ "abcd", "wxyz", 4, 0, 1, -EINVAL, 0, "abcd", "wxyz" },
		{ "abcd", "wxyz", 0, 4, 1, -EINVAL, 0, "abcd", "wxyz" },
		{ "abcd", "wxyz", 0, 0, 0, -EINVAL, 0, "abcd", "wxyz" },
		{ "abcd", "wxyz", 0, 0, UINT32_MAX, -EINVAL, 0, "abcd", "wxyz" },
		{ "abcd", "wxyz", 1ull << 32, 0, 1, -EINVAL, 0, "abcd", "wxyz" },
		{ "abcd", "wxyz", 0, 1ull << 32, 1, -EINVAL, 0, "abcd", "wxyz" },
		{ "abcd", "wxyz", 0, 0, UINT64_MAX, -EINVAL, 0, "abcd", "wxyz" },
		{ "abcd", "", 0, 0, 4, -EINVAL, 0, "abcd", "" },
		{ "", "wxyz", 0, 0, 4, -EINVAL, 0, "", "wxyz" },
	};

	begin("-b 1024", "32M");
	for (u32 i = 0; i < ARRAY_SIZE(t); i++) {
		make(file, t[i].file);
		make(donor, t[i].donor);
		expect_move(t[i].start, t[i].from, t[i].len, t[i].err, t[i].moved);
		expect_both(t[i].file_after, t[i].donor_after);
	}
	end();
	memvol_end(&mv);
}

/* What is cached and dirty of the file stays so, and finds its new place; of the donor it has
 * no place any more. */
static void test_dirty_data(void **state)
{
	struct sl_file *f, *d;
	u64 moved;

	begin("-b 4096", "32M");
	make(file, "abcd....");
	make(donor, "wxyz....");
	f = open_file(file);
	d = open_file(donor);
	write_block(f, 1, 'B');
	write_block(f, 5, 'F');
	write_block(d, 2, 'Y');
	write_block(d, 5, 'V');
	write_block(d, 6, 'W');
	assert_int_equal(sl_move_extents(f, donor, 0, 0, 8, &moved), -ENODATA);
	assert_int_equal(moved, 5);
	expect(file, "aBcd0F00");
	expect(donor, "000000W0");
	write_block(f, 2, 'C');
	write_block(d, 1, 'X');
	assert_int_equal(sl_fsync(f, false), 0);
	assert_int_equal(sl_fsync(d, false), 0);
	sl_release(f);
	sl_release(d);
	expect_both("aBCd0F00", "0X0000W0");
	end();
	begin(NULL, NULL);
	expect_both("aBCd0F00", "0X0000W0");
	end();
	memvol_end(&mv);
}

/* A run of more blocks than one extent can have. */
static void test_run_of_two_extents(void **state)
{
	const u64 blocks = 40000, at[] = { 0, 32766, 32767, 32768, 39999 };
	struct sl_file *f;
	pblk_t was[ARRAY_SIZE(at)];
	u8 data[1024];
	u64 moved;

	begin("-b 1024", "128M");
	f = open_file(file);
	assert_int_equal(sl_fallocate(f, 0, 0, blocks * bs, &root_cred), 0);
	sl_release(f);
	f = open_file(donor);
	assert_int_equal(sl_fallocate(f, 0, 0, blocks * bs, &root_cred), 0);
	sl_release(f);
	f = open_file(file);
	for (u32 i = 0; i < ARRAY_SIZE(at); i++)
		write_block(f, at[i], (char)('a' + i));
	assert_int_equal(sl_fsync(f, false), 0);
	for (u32 i = 0; i < ARRAY_SIZE(at); i++)
		was[i] = place(donor, (lblk_t)at[i]);
	assert_int_equal(sl_move_extents(f, donor, 0, 0, blocks, &moved), 0);
	assert_int_equal(moved, blocks);
	sl_drop_caches(sb);
	for (u32 i = 0; i < ARRAY_SIZE(at); i++) {
		assert_int_equal(place(file, (lblk_t)at[i]), was[i]);
		assert_int_equal(sl_read(f, data, bs, at[i] * bs), bs);
		assert_int_equal(data[5], 'a' + (int)i);
	}
	sl_release(f);
	end();
	memvol_end(&mv);
}

/* Many extents, in trees of more than one level, against one; and with split ones. */
static void test_deep_tree(void **state)
{
	const u32 blocks = 1200;
	struct sl_file *f, *d;
	u64 moved, nr;
	u8 data[1024];

	begin("-b 1024 -J size=4", "32M");
	f = open_file(file);
	d = open_file(donor);
	assert_int_equal(sl_fallocate(d, 0, 0, (u64)blocks * bs, &root_cred), 0);
	/* Backwards, then the holes in between. */
	for (u32 odd = 0; odd < 2; odd++)
		for (u32 i = blocks / 2; i-- > 0;) {
			write_block(f, 2 * i + odd, (char)(1 + (2 * i + odd) % 100));
			if (i % 8 == 0)
				assert_int_equal(sl_fsync(f, true), 0);
		}
	assert_int_equal(sl_fsync(f, true), 0);
	assert_int_equal(sl_extents(file, &nr), 0);
	assert_true(nr > 64);
	/* All odd parts first, of 5 blocks at 7. */
	for (u32 i = 0; i + 5 < blocks; i += 7) {
		assert_int_equal(sl_move_extents(f, donor, i, i, 5, &moved), 0);
		assert_int_equal(moved, 5);
	}
	for (u32 i = 5; i < blocks; i += 7) {
		assert_int_equal(sl_move_extents(f, donor, i, i, 2, &moved), 0);
		assert_int_equal(moved, min_of(2u, blocks - i));
	}
	if (place(file, blocks - 1) != place(file, 0) + blocks - 1)
		assert_int_equal(sl_move_extents(f, donor, blocks - 3, blocks - 3, 3, &moved),
				 0);
	sl_drop_caches(sb);
	assert_int_equal(sl_extents(file, &nr), 0);
	assert_true(nr < 4);
	for (u32 i = 0; i < blocks; i++) {
		assert_int_equal(sl_read(f, data, bs, (u64)i * bs), bs);
		assert_int_equal(data[i % bs], 1 + i % 100);
	}
	sl_release(f);
	sl_release(d);
	end();
	memvol_end(&mv);
}

static void test_refused(void **state)
{
	struct stat st = { .st_mode = S_ISUID | 0755 };
	struct sl_fileattr fa = { .flags = EXT4_EXTENTS_FL | EXT4_IMMUTABLE_FL };
	u32 may = SL_MAY_OWN | SL_MAY_IMMUTABLE;
	struct inode *root;
	struct sl_file *f;
	u64 moved, where;

	begin("-b 4096", "32M");
	make(file, "abcd");
	make(donor, "uuuu");
	assert_int_equal(sl_open(file, SL_OPEN_WRITE, &f), 0);
	assert_int_equal(sl_move_extents(f, donor, 0, 0, 4, &moved), -EBADF);
	sl_release(f);
	assert_int_equal(sl_open(file, SL_OPEN_READ, &f), 0);
	assert_int_equal(sl_move_extents(f, donor, 0, 0, 4, &moved), -EBADF);
	sl_release(f);
	f = open_file(file);
	assert_int_equal(sl_move_extents(f, file, 0, 0, 4, &moved), -EINVAL);
	assert_int_equal(sl_iget(sb, 2, &root), 0);
	assert_int_equal(sl_move_extents(f, root, 0, 0, 4, &moved), -EINVAL);
	sl_iput(root);
	assert_int_equal(sl_setattr(donor, &st, SL_SET_MODE, &root_cred, NULL), 0);
	assert_int_equal(sl_move_extents(f, donor, 0, 0, 4, &moved), -EINVAL);
	st.st_mode = 0644;
	assert_int_equal(sl_setattr(donor, &st, SL_SET_MODE, &root_cred, NULL), 0);
	assert_int_equal(sl_fileattr_set(donor, &fa, SL_FA_FLAGS, UINT32_MAX, may, NULL), 0);
	assert_int_equal(sl_move_extents(f, donor, 0, 0, 4, &moved), -EPERM);
	fa.flags = EXT4_EXTENTS_FL;
	assert_int_equal(sl_fileattr_set(donor, &fa, SL_FA_FLAGS, UINT32_MAX, may, NULL), 0);
	/* Somebody may be swapping to it. */
	assert_int_equal(sl_bmap(file, 0, bs, &where), 0);
	assert_int_equal(sl_move_extents(f, donor, 0, 0, 4, &moved), -ETXTBSY);
	sl_release(f);
	/* A block map. */
	make(donor, "wxyz");
	fa.flags = 0;
	assert_int_equal(sl_fileattr_set(donor, &fa, SL_FA_FLAGS, EXT4_EXTENTS_FL, may, NULL),
			 0);
	expect_move(0, 0, 4, -EOPNOTSUPP, 0);
	expect_both("abcd", "wxyz");
	end();
	memvol_end(&mv);
	begin("-b 4096 -O bigalloc -C 16384", "64M");
	make(file, "abcd");
	make(donor, "wxyz");
	expect_move(0, 0, 4, -EOPNOTSUPP, 0);
	expect_both("abcd", "wxyz");
	end();
	memvol_end(&mv);
}

/* The copy fails, or what comes before it: the file is as it was, and no block is lost. */
static void test_device_fails(void **state)
{
	for (s64 after = 0; after < 6; after++) {
		u64 moved;
		int err;

		begin("-b 4096", "32M");
		make(file, "abcdefgh");
		make(donor, "wuywuywu");
		mv.fd->fail_once = true;
		memvol_fail_writes(&mv, after);
		err = move(0, 0, 8, &moved);
		mv.fd->fail_once = false;
		memvol_fail_writes(&mv, -1);
		assert_true(err < 0 ? moved < 8 : moved == 8);
		expect(file, "abcdefgh");
		sl_drop_caches(sb);
		expect(file, "abcdefgh");
		sl_iput(file);
		sl_iput(donor);
		/* The journal may be the one that failed. */
		(void)!sl_unmount(sb);
		begin(NULL, NULL);
		expect(file, "abcdefgh");
		end();
		memvol_end(&mv);
	}
}

/* Cut right after it: it is durable when it returns. */
static void test_power_cut(void **state)
{
	pblk_t f, d;
	u8 *left;

	begin("-b 4096", "32M");
	make(file, "abcd");
	make(donor, "wxuz");
	f = place(file, 0);
	d = place(donor, 0);
	expect_move(0, 0, 4, 0, 4);
	left = malloc(mv.size);
	assert_non_null(left);
	memvol_snapshot(&mv, left);
	end();
	memcpy(mv.content, left, mv.size);
	free(left);
	begin(NULL, NULL);
	assert_int_equal(place(file, 0), d);
	assert_int_equal(place(donor, 0), f);
	expect_both("abcd", "0000");
	end();
	memvol_end(&mv);
}

/* Each block of the donor is as it was, or zero: nothing of the file. */
static void expect_cut_donor(const char *was)
{
	struct sl_file *f;
	u8 data[4096];

	assert_int_equal(sl_open(donor, SL_OPEN_READ, &f), 0);
	for (u32 i = 0; i < strlen(was); i++) {
		assert_int_equal(sl_read(f, data, bs, (u64)i * bs), bs);
		for (u32 k = 0; k < bs; k++)
			assert_true(!data[k] || data[k] == (u8)was[i]);
	}
	sl_release(f);
}

/* Cut after any write of it, whatever of those since the last flush has reached the disk. */
static void test_power_cut_on_its_way(void **state)
{
	static const unsigned keep[] = { 1000, 0, 500 };
	struct fake_bdev recorded;
	struct fake_crash c;
	unsigned seed = 1;

	begin("-b 4096 -J size=4", "16M");
	make(file, "abcdefgh");
	make(donor, "stwuxyzv");
	assert_int_equal(sl_sync(sb), 0);
	fake_record_start(mv.fd);
	expect_move(0, 0, 8, 0, 8);
	/* The rest of the mount is not wanted, and the device goes with it. */
	pthread_mutex_lock(&mv.fd->lock);
	recorded = (struct fake_bdev){ .bd.bd_size = mv.size, .base = mv.fd->base,
				       .recs = mv.fd->recs, .nr = mv.fd->nr };
	mv.fd->record = false;
	mv.fd->base = NULL;
	mv.fd->recs = NULL;
	mv.fd->nr = mv.fd->max = 0;
	pthread_mutex_unlock(&mv.fd->lock);
	end();
	fake_crash_init(&c, &recorded);
	do {
		for (u32 i = 0; i < ARRAY_SIZE(keep); i++) {
			fake_crash_image(&c, mv.content, 4096, keep[i], false, &seed);
			begin(NULL, NULL);
			expect(file, "abcdefgh");
			expect_cut_donor("stwuxyzv");
			end();
		}
	} while (fake_crash_step(&c));
	fake_crash_release(&c);
	for (u32 i = 0; i < recorded.nr; i++)
		free(recorded.recs[i].data);
	free(recorded.recs);
	free(recorded.base);
	memvol_end(&mv);
}

/* ---- at the same time ---- */

#define BLOCKS 24u
static _Atomic bool stop;

static void overwrite(void *arg)
{
	struct inode *inode = arg;
	struct sl_file *f = open_file(inode);

	for (u32 round = 0; !atomic_load(&stop); round++) {
		for (u32 b = 0; b < BLOCKS; b++)
			write_block(f, b, (char)('a' + b));
		if (round % 3 == 0)
			assert_int_equal(sl_fsync(f, true), 0);
	}
	sl_release(f);
}

static void read_all(void *arg)
{
	struct sl_file *f = open_file(file);
	u8 data[4096];

	while (!atomic_load(&stop))
		for (u32 b = 0; b < BLOCKS; b++) {
			assert_int_equal(sl_read(f, data, bs, (u64)b * bs), bs);
			assert_int_equal(data[0], 'a' + b);
			assert_int_equal(data[bs - 1], 'a' + b);
		}
	sl_release(f);
}

/* Both are written to, and the file read, while data moves one way and the other. */
static void test_while_written(void **state)
{
	static const char all[] = "abcdefghijklmnopqrstuvwx";
	struct thread *t[3];
	struct sl_file *f, *d;
	u64 moved;

	begin("-b 4096", "32M");
	make(file, all);
	make(donor, all);
	f = open_file(file);
	d = open_file(donor);
	atomic_store(&stop, false);
	assert_int_equal(thread_create(&t[0], "file", overwrite, file), 0);
	assert_int_equal(thread_create(&t[1], "donor", overwrite, donor), 0);
	assert_int_equal(thread_create(&t[2], "read", read_all, NULL), 0);
	for (u32 i = 0; i < 60; i++) {
		u32 at = i % 5 * 4;

		assert_int_equal(sl_move_extents(f, donor, at, at, 8, &moved), 0);
		assert_int_equal(moved, min_of(8u, BLOCKS - at));
		if (i % 10 == 0)
			sl_drop_caches(sb);
	}
	atomic_store(&stop, true);
	for (u32 i = 0; i < 3; i++)
		thread_join(t[i]);
	expect(file, all);
	/* Its turn, from the device. */
	for (u32 b = 0; b < BLOCKS; b++)
		write_block(d, b, all[b]);
	assert_int_equal(sl_fsync(f, false), 0);
	assert_int_equal(sl_fsync(d, false), 0);
	sl_release(f);
	sl_release(d);
	expect_both(all, all);
	end();
	memvol_end(&mv);
}

static void move_often(void *arg)
{
	struct inode *to = arg, *from = to == donor ? file : donor;
	struct sl_file *f = open_file(from);
	u64 moved;

	for (u32 i = 0; i < 40; i++)
		assert_int_equal(sl_move_extents(f, to, 0, 0, BLOCKS, &moved), 0);
	sl_release(f);
}

/* Each is the other's donor: neither waits for the other for ever. What is left of it is zero
 * in both. */
static void test_both_ways_at_once(void **state)
{
	struct thread *t[2];

	begin("-b 4096", "32M");
	make(file, "abcdefghijklmnopqrstuvwx");
	make(donor, "abcdefghijklmnopqrstuvwx");
	assert_int_equal(thread_create(&t[0], "one", move_often, donor), 0);
	assert_int_equal(thread_create(&t[1], "other", move_often, file), 0);
	thread_join(t[0]);
	thread_join(t[1]);
	expect_both("000000000000000000000000", "000000000000000000000000");
	end();
	memvol_end(&mv);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_places_are_exchanged),
		cmocka_unit_test(test_what_is_not_in_both_stays),
		cmocka_unit_test(test_dirty_data),
		cmocka_unit_test(test_run_of_two_extents),
		cmocka_unit_test(test_deep_tree),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_device_fails),
		cmocka_unit_test(test_power_cut),
		cmocka_unit_test(test_power_cut_on_its_way),
		cmocka_unit_test(test_while_written),
		cmocka_unit_test(test_both_ways_at_once),
	};
	int ret;

	thread_register();
	ret = cmocka_run_group_tests(tests, NULL, NULL);
	thread_unregister();
	return ret;
}
