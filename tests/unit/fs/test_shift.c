/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_shift.c - ranges collapsed and inserted: trees of many leaves, power
 * cuts in the middle, and others who write to the file at the same time
 *
 * (The content after random steps is test_falloc.c's.) The file has every second block, so
 * each is an extent, and each block has its number in it.
 */
#include "tests/unit/unit.h"
#include "tests/unit/fs/memvol.h"

#include "fs/ext4.h"

#include <linux/falloc.h>

#define COLLAPSE FALLOC_FL_COLLAPSE_RANGE
#define INSERT FALLOC_FL_INSERT_RANGE
#define BS 1024u

static const struct sl_cred root_cred = { 0, 0, 022 };
static const struct sl_options opts = { .cache_bytes = 32 << 20,
					.commit_ms = 600000,
					.dirty_expire_ms = 600000 };
static const struct sl_options hasty_opts = { .cache_bytes = 32 << 20,
					      .commit_ms = 1,
					      .dirty_expire_ms = 600000 };

static struct memvol mv;
static struct super_block *sb;

static struct sl_file *open_file(const char *name, bool create)
{
	struct inode *root, *inode;
	struct sl_file *f;

	assert_int_equal(sl_iget(sb, 2, &root), 0);
	if (create)
		assert_int_equal(sl_mknod(root, name, strlen(name), S_IFREG | 0644, 0,
					  &root_cred, &inode), 0);
	else
		assert_int_equal(sl_lookup(root, name, strlen(name), &inode), 0);
	assert_int_equal(sl_open(inode, SL_OPEN_WRITE, &f), 0);
	sl_iput(inode);
	sl_iput(root);
	return f;
}

static int falloc(struct sl_file *f, int mode, u64 pos, u64 len)
{
	return sl_fallocate(f, mode, pos, len, &root_cred);
}

static u64 size_of(struct sl_file *f)
{
	struct stat st;

	sl_getattr(sl_file_inode(f), &st);
	return (u64)st.st_size;
}

static void resize(struct sl_file *f, u64 size)
{
	struct stat st = { .st_size = (off_t)size };

	assert_int_equal(sl_setattr(sl_file_inode(f), &st, SL_SET_SIZE, &root_cred,
				    NULL), 0);
}

static void end_volume(void)
{
	assert_int_equal(sl_sync(sb), 0);
	assert_int_equal(counter_sum(EXT4_SB(sb)->reserved), 0);
	assert_int_equal(sl_unmount(sb), 0);
	memvol_end(&mv);
}

/* ---- contents: a number for each block, 0 for a hole ---- */

static void write_blocks(struct sl_file *f, u32 blocks)
{
	u32 data[BS / 4];

	for (u32 b = 0; b < blocks; b += 2) {
		for (u32 i = 0; i < BS / 4; i++)
			data[i] = b + 1;
		assert_int_equal(sl_write(f, data, BS, (u64)b * BS, 0, &root_cred), BS);
	}
	/* Ends with a hole, and in the middle of a block. */
	resize(f, (u64)blocks * BS - 10);
}

/* Numbers of at most max blocks; a block is of one number. Returns how many blocks the file
 * has. */
static u32 read_blocks(struct sl_file *f, u32 *nr, u32 max)
{
	u32 blocks = (u32)DIV_ROUND_UP(size_of(f), BS), data[64 * BS / 4];

	assert_true(blocks <= max);
	memset(nr, 0, max * sizeof(*nr));
	for (u32 b = 0; b < blocks; b += 64) {
		u32 n = min_of(64u, blocks - b);

		memset(data, 0, sizeof(data));
		assert_true(sl_read(f, data, n * BS, (u64)b * BS) > 0);
		for (u32 k = 0; k < n; k++) {
			const u32 *d = data + k * (BS / 4);

			nr[b + k] = d[0];
			assert_memory_equal(d, d + 1, BS - sizeof(*d));
		}
	}
	return blocks;
}

static void shift_model(u32 *nr, u32 *blocks, int mode, u32 first, u32 len)
{
	if (mode == COLLAPSE) {
		memmove(nr + first, nr + first + len,
			(*blocks - first - len) * sizeof(*nr));
		memset(nr + *blocks - len, 0, len * sizeof(*nr));
		*blocks -= len;
	} else {
		memmove(nr + first + len, nr + first, (*blocks - first) * sizeof(*nr));
		memset(nr + first, 0, len * sizeof(*nr));
		*blocks += len;
	}
}

static bool all_zero(const u32 *nr, u32 n)
{
	while (n--)
		if (nr[n])
			return false;
	return true;
}

/* Is it a up to some block, then a gap, then b? */
static bool has_gap(const u32 *nr, const u32 *a, const u32 *b, u32 max, u32 len)
{
	u32 head = 0, tail = max;

	while (head < max && nr[head] == a[head])
		head++;
	while (tail > 0 && nr[tail - 1] == b[tail - 1])
		tail--;
	for (u32 at = tail > len ? tail - len : 0; at <= head && at + len <= max; at++)
		if (all_zero(nr + at, len))
			return true;
	return false;
}

/* ---- power cuts ---- */

/* In more leaves than a transaction of the smallest journal can have. */
#define CUT_BLOCKS 48000u
#define CUT_MAX (CUT_BLOCKS + 64)
#define CUT_FIRST 1001u

static u32 before[CUT_MAX], after[CUT_MAX], found[CUT_MAX];
static u32 cut_len;
static bool cut_small; /* half a transaction has to do */

/* The volume with the file, clean: for each cut the same. */
static u8 *make_base(const char *mkfs)
{
	struct sl_file *f;
	u8 *base;

	memvol_make(&mv, mkfs, "40M");
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	f = open_file("file", true);
	write_blocks(f, CUT_BLOCKS);
	sl_release(f);
	assert_int_equal(sl_sync(sb), 0);
	assert_int_equal(sl_unmount(sb), 0);
	base = malloc(mv.size);
	memcpy(base, mv.content, mv.size);
	return base;
}

/* The shift, with the device gone after so many writes. Has it said that all is well? */
static bool shift_and_cut(const u8 *base, int mode, s64 writes)
{
	struct sl_file *f;
	int err;

	memcpy(mv.content, base, mv.size);
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	f = open_file("file", false);
	if (cut_small) {
		struct journal *j = EXT4_SB(sb)->journal;

		assert_int_equal(journal_force_commit(j), 0);
		journal_set_handle_extra(j, journal_max_credits(j) / 2);
	}
	memvol_fail_writes(&mv, writes);
	err = falloc(f, mode, (u64)CUT_FIRST * BS, cut_len * BS);
	if (!err)
		err = sl_fsync(f, false);
	sl_release(f);
	(void)!sl_unmount(sb);
	return !err;
}

/* Nothing has moved yet; the range is empty, or its end is. */
static bool is_emptied(void)
{
	u32 end = CUT_FIRST + cut_len, at = CUT_FIRST;

	while (at < end && found[at] == before[at])
		at++;
	return all_zero(found + at, end - at) &&
	       !memcmp(found, before, CUT_FIRST * sizeof(*found)) &&
	       !memcmp(found + end, before + end, (CUT_MAX - end) * sizeof(*found));
}

enum cut_state { CUT_BEFORE, CUT_EMPTIED, CUT_WITHIN, CUT_AFTER, CUT_STATES };

static enum cut_state check_cut(int mode, bool done)
{
	enum cut_state state = CUT_WITHIN;
	u32 blocks = CUT_BLOCKS, n;
	struct sl_file *f;

	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	f = open_file("file", false);
	n = read_blocks(f, found, CUT_MAX);
	memcpy(after, before, sizeof(after));
	shift_model(after, &blocks, mode, CUT_FIRST, cut_len);
	if (n == blocks && !memcmp(found, after, sizeof(found)))
		state = CUT_AFTER;
	else if (n == CUT_BLOCKS && !memcmp(found, before, sizeof(found)))
		state = CUT_BEFORE;
	else if (mode == COLLAPSE && n == CUT_BLOCKS && is_emptied())
		state = CUT_EMPTIED;
	else if (mode == COLLAPSE)
		assert_true(n == CUT_BLOCKS &&
			    has_gap(found, after, before, CUT_MAX, cut_len));
	else
		assert_true(n == blocks &&
			    has_gap(found, before, after, CUT_MAX, cut_len));
	assert_true(!done || state == CUT_AFTER);
	sl_release(f);
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(memvol_fsck(&mv), 0);
	return state;
}

static void cuts(const char *mkfs, int mode, u32 len)
{
	u32 seen[CUT_STATES] = { 0 };
	u8 *base = make_base(mkfs);
	bool done = false;

	cut_len = len;
	for (u32 b = 0; b < CUT_BLOCKS; b += 2)
		before[b] = b + 1;
	for (s64 writes = 0; !done; writes++) {
		done = shift_and_cut(base, mode, writes);
		seen[check_cut(mode, done)]++;
	}
	assert_true(seen[CUT_BEFORE] && seen[CUT_AFTER]);
	assert_true(cut_small ? seen[CUT_EMPTIED] : seen[CUT_WITHIN]);
	free(base);
	memvol_free(&mv);
}

static void test_collapse_cut(void **state)
{
	cuts("-b 1024 -J size=1", COLLAPSE, 7);
}

/* More goes, in more groups, than one transaction can free. */
static void test_collapse_much_cut(void **state)
{
	cut_small = true;
	cuts("-b 1024 -J size=1 -g 256 -N 4096", COLLAPSE, CUT_BLOCKS - CUT_FIRST - 100);
	cut_small = false;
}

static void test_insert_cut(void **state)
{
	cuts("-b 1024 -J size=1", INSERT, 7);
}

/* ---- rules ---- */

static void test_what_is_refused(void **state)
{
	struct inode *inode;
	struct sl_file *f;
	u64 max;

	memvol_make(&mv, "-b 1024", "16M");
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	f = open_file("file", true);
	write_blocks(f, 20);
	inode = sl_file_inode(f);
	max = ext4_max_size(EXT4_I(inode));
	assert_int_equal(falloc(f, COLLAPSE, 512, BS), -EINVAL);
	assert_int_equal(falloc(f, COLLAPSE, BS, 512), -EINVAL);
	assert_int_equal(falloc(f, INSERT, 512, BS), -EINVAL);
	assert_int_equal(falloc(f, INSERT, BS, 512), -EINVAL);
	/* To the end, also if that is no whole block. */
	assert_int_equal(falloc(f, COLLAPSE, 10 * BS, 10 * BS), -EINVAL);
	assert_int_equal(falloc(f, INSERT, 20 * BS, BS), -EINVAL);
	assert_int_equal(falloc(f, INSERT, 0, ALIGN_DOWN(max, BS)), -EFBIG);
	assert_int_equal(falloc(f, COLLAPSE, ALIGN_DOWN(max, BS), 2 * BS), -EFBIG);
	inode->i_flags |= EXT4_APPEND_FL;
	assert_int_equal(falloc(f, COLLAPSE, 0, BS), -EPERM);
	assert_int_equal(falloc(f, INSERT, 0, BS), -EPERM);
	inode->i_flags &= ~EXT4_APPEND_FL;
	atomic_store(&EXT4_I(inode)->i_bmapped, true);
	assert_int_equal(falloc(f, COLLAPSE, 0, BS), -ETXTBSY);
	assert_int_equal(falloc(f, INSERT, 0, BS), -ETXTBSY);
	atomic_store(&EXT4_I(inode)->i_bmapped, false);
	/* What is allocated behind the end would go beyond what blocks there are. */
	assert_int_equal(falloc(f, FALLOC_FL_KEEP_SIZE, ALIGN_DOWN(max, BS) - BS, BS), 0);
	assert_int_equal(falloc(f, INSERT, 0, 2 * BS), -EINVAL);
	assert_int_equal(size_of(f), 20 * BS - 10);
	assert_int_equal(read_blocks(f, found, CUT_MAX), 20);
	for (u32 b = 0; b < 20; b++)
		assert_int_equal(found[b], b % 2 ? 0 : b + 1);
	sl_release(f);
	end_volume();
}

/* What lies in the inode gets a block first; and too small it is, then. */
static void test_inline(void **state)
{
	struct sl_file *f;
	char buf[8];

	memvol_make(&mv, "-b 1024 -O inline_data", "16M");
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	f = open_file("file", true);
	assert_int_equal(sl_write(f, "small", 5, 0, 0, &root_cred), 5);
	assert_int_equal(falloc(f, COLLAPSE, 0, BS), -EINVAL);
	assert_int_equal(falloc(f, INSERT, 0, BS), 0);
	assert_int_equal(size_of(f), BS + 5);
	assert_int_equal(sl_read(f, buf, 5, BS), 5);
	assert_memory_equal(buf, "small", 5);
	sl_release(f);
	end_volume();
}

/* Data that the device refuses is all there is: nothing moves. */
static void test_lost_data(void **state)
{
	struct sl_file *f;

	memvol_make(&mv, "-b 1024", "16M");
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	f = open_file("file", true);
	write_blocks(f, 20);
	memvol_fail_writes(&mv, 0);
	assert_true(falloc(f, COLLAPSE, 0, BS) < 0);
	assert_int_equal(size_of(f), 20 * BS - 10);
	sl_release(f);
	(void)!sl_unmount(sb);
	memvol_free(&mv);
}

/* ---- want of memory ---- */

int __real_handle_ensure(struct handle *h, u32 blocks, u32 revokes);
int __wrap_handle_ensure(struct handle *h, u32 blocks, u32 revokes);
bool __real_ext4_retry_nomem(int err, int *tries);
bool __wrap_ext4_retry_nomem(int err, int *tries);

static struct ext4_inode *_Atomic nomem_once; /* in a shift of this file */

int __wrap_handle_ensure(struct handle *h, u32 blocks, u32 revokes)
{
	return atomic_load(&nomem_once) ? -ENOMEM : __real_handle_ensure(h, blocks, revokes);
}

/* Nothing but i_rwsem is held: the flusher's hour. */
bool __wrap_ext4_retry_nomem(int err, int *tries)
{
	struct ext4_inode *ei = atomic_load(&nomem_once);

	if (err != -ENOMEM || !ei)
		return __real_ext4_retry_nomem(err, tries);
	atomic_store(&nomem_once, NULL);
	assert_int_equal(ext4_write_range(ei, 0, 5), 0);
	return true;
}

/* While it waits for memory, what is before the edge is written, and joins what is behind. */
static void test_edge_goes_again(void **state)
{
	u32 data[BS / 4];
	struct sl_file *f;

	memvol_make(&mv, "-b 1024", "16M");
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	f = open_file("file", true);
	assert_int_equal(falloc(f, 0, 0, 10 * BS), 0);
	for (u32 b = 10; b-- > 4;) {
		/* Block 4 is dirty, as yet. */
		if (b == 4)
			assert_int_equal(sl_fsync(f, false), 0);
		for (u32 i = 0; i < BS / 4; i++)
			data[i] = b + 1;
		assert_int_equal(sl_write(f, data, BS, (u64)b * BS, 0, &root_cred), BS);
	}
	atomic_store(&nomem_once, EXT4_I(sl_file_inode(f)));
	assert_int_equal(falloc(f, INSERT, 5 * BS, 2 * BS), 0);
	assert_null(atomic_load(&nomem_once));
	assert_int_equal(read_blocks(f, found, CUT_MAX), 12);
	for (u32 b = 0; b < 12; b++)
		assert_int_equal(found[b], b == 4 ? 5 : b > 6 ? b - 1 : 0);
	sl_release(f);
	end_volume();
}

/* ---- races ---- */

/*
 * One thread collapses and inserts the same range again and again, with unit blocks of
 * zeroes in it; others overwrite and read what is behind. What a writer puts down may end a
 * range further to the right, but is never lost or torn: each block has a number of its
 * own or of the one `RANGE` before.
 */
#define RACE_BLOCKS 64u
#define RACE_RANGE 4u
#define RACERS 4

struct racer {
	struct sl_file *f;
	u32 id;
	unsigned seed;
	bool bad;
};

static _Atomic bool race_over;

static void race_shift(struct racer *r)
{
	for (u32 i = 0; i < 60; i++) {
		r->bad |= falloc(r->f, INSERT, 0, RACE_RANGE * BS) != 0;
		r->bad |= falloc(r->f, COLLAPSE, 0, RACE_RANGE * BS) != 0;
	}
	atomic_store(&race_over, true);
}

static void race_io(struct racer *r)
{
	u32 data[BS / 4];

	while (!atomic_load(&race_over)) {
		u32 b = RACE_RANGE + (u32)rand_r(&r->seed) % (RACE_BLOCKS - RACE_RANGE);
		ssize_t n;

		if (r->id == 1) {
			for (u32 i = 0; i < BS / 4; i++)
				data[i] = b + 1;
			r->bad |= sl_write(r->f, data, BS, (u64)b * BS, 0,
					   &root_cred) != BS;
		} else if (r->id == 2) {
			n = sl_read(r->f, data, BS, (u64)b * BS);
			r->bad |= n != BS;
			for (u32 i = 1; i < BS / 4; i++)
				r->bad |= data[i] != data[0];
		} else {
			r->bad |= sl_fsync(r->f, true) != 0;
			if (b % 4 == 0)
				sl_drop_caches(sb);
		}
	}
}

static void race(void *arg)
{
	struct racer *r = arg;

	if (r->id == 0)
		race_shift(r);
	else
		race_io(r);
}

static void test_races(void **state)
{
	struct racer r[RACERS];
	struct thread *t[RACERS];
	u32 data[BS / 4];
	struct sl_file *f;

	memvol_make(&mv, "-b 1024", "16M");
	assert_int_equal(memvol_mount(&mv, &hasty_opts, &sb), 0);
	fake_async(mv.fd, 5);
	f = open_file("file", true);
	memset(data, 0xff, sizeof(data));
	for (u32 b = 0; b < RACE_BLOCKS; b++)
		assert_int_equal(sl_write(f, data, BS, (u64)b * BS, 0, &root_cred), BS);
	atomic_store(&race_over, false);
	for (u32 i = 0; i < RACERS; i++)
		r[i] = (struct racer){ .f = f, .id = i, .seed = i };
	for (u32 i = 0; i < RACERS; i++)
		assert_int_equal(thread_create(&t[i], "racer", race, &r[i]), 0);
	for (u32 i = 0; i < RACERS; i++)
		thread_join(t[i]);
	for (u32 i = 0; i < RACERS; i++)
		assert_false(r[i].bad);
	/* The same, whether it is cached or comes from the device. */
	for (int pass = 0; pass < 2; pass++) {
		assert_int_equal(read_blocks(f, found, CUT_MAX), RACE_BLOCKS);
		for (u32 b = 0; b < RACE_BLOCKS; b++)
			assert_true(found[b] == UINT32_MAX || found[b] == b + 1 ||
				    found[b] == b + 1 + RACE_RANGE);
		if (!pass) {
			assert_int_equal(sl_fsync(f, false), 0);
			sl_drop_caches(sb);
			memcpy(before, found, sizeof(before));
		} else {
			assert_memory_equal(found, before, sizeof(before));
		}
	}
	sl_release(f);
	end_volume();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_refused),
		cmocka_unit_test(test_inline),
		cmocka_unit_test(test_lost_data),
		cmocka_unit_test(test_edge_goes_again),
		cmocka_unit_test(test_collapse_cut),
		cmocka_unit_test(test_collapse_much_cut),
		cmocka_unit_test(test_insert_cut),
		cmocka_unit_test(test_races),
	};

	return cmocka_run_group_tests(tests, unit_setup, NULL);
}
