/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_falloc.c - holes punched, ranges zeroed, taken out, put in, copied
 *
 * The model is the content as an array of bytes. What the races leave is known
 * byte by byte: each position has one value that writers write there, and zero.
 */
#include "tests/unit/unit.h"
#include "tests/unit/fs/memvol.h"

#include "fs/ext4.h"

#include <linux/falloc.h>

#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define ZERO FALLOC_FL_ZERO_RANGE
#define KEEP FALLOC_FL_KEEP_SIZE
#define COLLAPSE FALLOC_FL_COLLAPSE_RANGE
#define INSERT FALLOC_FL_INSERT_RANGE

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
	assert_int_equal(sl_sync(sb), 0);
	assert_int_equal(counter_sum(EXT4_SB(sb)->reserved), 0);
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(memvol_fsck(&mv), 0);
	memvol_free(&mv);
}

static struct sl_file *open_file(const char *name, bool create, u32 flags)
{
	struct inode *root, *inode;
	struct sl_file *f;

	assert_int_equal(sl_iget(sb, 2, &root), 0);
	if (create)
		assert_int_equal(sl_mknod(root, name, strlen(name), S_IFREG | 0644, 0,
					  &root_cred, &inode), 0);
	else
		assert_int_equal(sl_lookup(root, name, strlen(name), &inode), 0);
	assert_int_equal(sl_open(inode, flags, &f), 0);
	sl_iput(inode);
	sl_iput(root);
	return f;
}

static struct sl_file *open_new(const char *name)
{
	return open_file(name, true, SL_OPEN_WRITE);
}

static struct stat stat_of(struct sl_file *f)
{
	struct stat st;

	sl_getattr(sl_file_inode(f), &st);
	return st;
}

static void put(struct sl_file *f, const void *data, size_t len, u64 pos)
{
	assert_int_equal(sl_write(f, data, len, pos, 0, &root_cred), len);
}

static int falloc(struct sl_file *f, int mode, u64 pos, u64 len)
{
	return sl_fallocate(f, mode, pos, len, &root_cred);
}

static void resize(struct sl_file *f, u64 size)
{
	struct stat st = { .st_size = (off_t)size };

	assert_int_equal(sl_setattr(sl_file_inode(f), &st, SL_SET_SIZE, &root_cred,
				    NULL), 0);
}

/* All unmounted and mounted again. */
static struct sl_file *again(struct sl_file *f, const char *name)
{
	sl_release(f);
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	return open_file(name, false, SL_OPEN_WRITE);
}

/* What a power cut now would leave, mounted. */
static struct sl_file *cut(struct sl_file *f, const char *name)
{
	u8 *image = malloc(mv.size);

	memvol_snapshot(&mv, image);
	sl_release(f);
	assert_int_equal(sl_unmount(sb), 0);
	memcpy(mv.content, image, mv.size);
	free(image);
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	return open_file(name, false, SL_OPEN_WRITE);
}

/* ---- the byte model ---- */

#define MODEL_MAX (600u * 1024)

static struct {
	u8 data[MODEL_MAX], buf[MODEL_MAX];
	u64 size;
	unsigned seed;
} m;

static u32 below(u32 n)
{
	return (u32)rand_r(&m.seed) % n;
}

static void check_range(struct sl_file *f, u64 pos, size_t len)
{
	u64 want = pos >= m.size ? 0 : min_of((u64)len, m.size - pos);

	assert_int_equal(sl_read(f, m.buf, len, pos), want);
	assert_memory_equal(m.buf, m.data + pos, want);
}

/* SEEK_DATA may call zeroes data, but no hole has anything. */
static void check_holes(struct sl_file *f)
{
	u64 pos = 0;

	while (pos < m.size) {
		s64 data = sl_lseek(f, pos, SEEK_DATA);
		u64 hole_end = data == -ENXIO ? m.size : (u64)data;

		assert_true(data >= 0 || data == -ENXIO);
		for (u64 i = pos; i < hole_end; i++)
			assert_int_equal(m.data[i], 0);
		if (data < 0)
			return;
		pos = (u64)sl_lseek(f, hole_end, SEEK_HOLE);
		assert_true(pos > hole_end && pos <= m.size);
	}
}

static void check_all(struct sl_file *f)
{
	assert_int_equal(stat_of(f).st_size, m.size);
	check_range(f, 0, MODEL_MAX);
	check_holes(f);
}

static void model_zero(u64 pos, u64 len)
{
	if (pos < m.size)
		memset(m.data + pos, 0, min_of(len, m.size - pos));
}

static void random_write(struct sl_file *f, u64 pos, u32 len)
{
	for (u32 i = 0; i < len; i++)
		m.buf[i] = (u8)(1 + below(255));
	put(f, m.buf, len, pos);
	memcpy(m.data + pos, m.buf, len);
	m.size = max_of(m.size, pos + len);
}

static void random_copy(struct sl_file *f, u64 from, u64 to, u32 len)
{
	u64 n = from < m.size ? min_of((u64)len, m.size - from) : 0;
	bool overlap = to + n > from && to < from + n;
	ssize_t got = sl_copy_file_range(f, from, f, to, len, &root_cred);

	if (n && overlap) {
		assert_int_equal(got, -EINVAL);
		return;
	}
	assert_int_equal(got, n);
	if (!n)
		return;
	memcpy(m.data + to, m.data + from, n);
	m.size = max_of(m.size, to + n);
}

static void random_shift(struct sl_file *f, u32 bs, u64 pos, u64 len, int mode)
{
	bool aligned = pos % bs == 0 && len % bs == 0;

	/* The file stays as large as the model is. */
	if (mode == INSERT && m.size + len > MODEL_MAX)
		mode = COLLAPSE;
	if (!aligned || (mode == COLLAPSE ? pos + len : pos) >= m.size) {
		assert_int_equal(falloc(f, mode, pos, len), -EINVAL);
		return;
	}
	assert_int_equal(falloc(f, mode, pos, len), 0);
	if (mode == COLLAPSE) {
		memmove(m.data + pos, m.data + pos + len, m.size - pos - len);
		memset(m.data + m.size - len, 0, len);
		m.size -= len;
	} else {
		memmove(m.data + pos + len, m.data + pos, m.size - pos);
		memset(m.data + pos, 0, len);
		m.size += len;
	}
}

static struct sl_file *random_step(struct sl_file *f, u32 bs)
{
	/* Often to the block, often across. */
	u64 pos = below(3) ? below(MODEL_MAX / 2) : (u64)below(MODEL_MAX / 2 / bs) * bs;
	u32 len = 1 + (below(3) ? below(12 * bs) : bs * below(60));

	if (below(4) == 0)
		len = ALIGN_UP(len, bs);
	len = min_of(len, (u32)(MODEL_MAX / 2));
	switch (below(24)) {
	case 20: case 21:
		random_shift(f, bs, pos, len, COLLAPSE);
		break;
	case 22: case 23:
		random_shift(f, bs, pos, len, INSERT);
		break;
	case 0: case 1: case 2: case 3: case 4: case 5:
		random_write(f, pos, len);
		break;
	case 6: case 7: case 8:
		assert_int_equal(falloc(f, PUNCH, pos, len), 0);
		model_zero(pos, len);
		break;
	case 9: case 10:
		assert_int_equal(falloc(f, ZERO | KEEP, pos, len), 0);
		model_zero(pos, len);
		break;
	case 11:
		assert_int_equal(falloc(f, ZERO, pos, len), 0);
		model_zero(pos, len);
		m.size = max_of(m.size, pos + len);
		break;
	case 12:
		assert_int_equal(falloc(f, below(2) ? KEEP : 0, pos, len), 0);
		m.size = max_of(m.size, (u64)stat_of(f).st_size);
		break;
	case 13:
		pos = below(3) ? pos : m.size / 2;
		if (pos < m.size)
			memset(m.data + pos, 0, m.size - pos);
		resize(f, pos);
		m.size = pos;
		break;
	case 14:
		assert_int_equal(sl_fsync(f, below(2)), 0);
		if (below(2))
			sl_drop_caches(sb);
		break;
	case 15:
		if (below(10) == 0)
			f = again(f, "file");
		break;
	case 16: case 17:
		random_copy(f, pos, below(MODEL_MAX / 2), len);
		break;
	default:
		check_range(f, pos, len);
	}
	return f;
}

static void model_run(const char *mkfs, u32 bs, unsigned seed)
{
	struct sl_file *f;

	memset(&m, 0, sizeof(m));
	m.seed = seed;
	begin(mkfs, "24M", seed % 2 ? &opts : &busy_opts);
	f = open_new("file");
	for (u32 i = 0; i < 500; i++) {
		f = random_step(f, bs);
		if (i % 10 == 0)
			check_all(f);
	}
	check_all(f);
	f = again(f, "file");
	check_all(f);
	/* An empty file has nothing left. */
	resize(f, 0);
	assert_int_equal(stat_of(f).st_blocks, 0);
	random_write(f, 0, 1);
	m.size = 0;
	sl_release(f);
	end();
}

static void test_model_1k(void **state)
{
	model_run("-b 1024", 1024, 1);
	model_run("-b 1024", 1024, 2);
}
static void test_model_2k(void **state)
{
	model_run("-b 2048", 2048, 3);
	model_run("-b 2048 -O ^metadata_csum", 2048, 4);
}
static void test_model_4k(void **state)
{
	model_run("-b 4096", 4096, 5);
	model_run("-b 4096", 4096, 6);
}

/* ---- one rule at a time ---- */

static void test_what_is_refused(void **state)
{
	struct sl_file *f, *ro;
	struct inode *inode;
	u64 max;

	begin("-b 1024", "16M", &opts);
	f = open_new("file");
	inode = sl_file_inode(f);
	max = ext4_max_size(EXT4_I(inode));
	assert_int_equal(falloc(f, FALLOC_FL_PUNCH_HOLE, 0, 1), -EOPNOTSUPP);
	assert_int_equal(falloc(f, PUNCH | ZERO, 0, 1), -EOPNOTSUPP);
	assert_int_equal(falloc(f, COLLAPSE | KEEP, 0, 1024), -EOPNOTSUPP);
	assert_int_equal(falloc(f, INSERT | ZERO, 0, 1024), -EOPNOTSUPP);
	/* Only what has something behind it. */
	assert_int_equal(falloc(f, COLLAPSE, 0, 1024), -EINVAL);
	assert_int_equal(falloc(f, INSERT, 0, 1024), -EINVAL);
	assert_int_equal(falloc(f, FALLOC_FL_UNSHARE_RANGE, 0, 1024), -EOPNOTSUPP);
	assert_int_equal(falloc(f, PUNCH, 0, 0), -EINVAL);
	assert_int_equal(falloc(f, ZERO, max - 10, 11), -EFBIG);
	assert_int_equal(falloc(f, PUNCH, max, 1), -EFBIG);
	assert_int_equal(falloc(f, PUNCH, 1ull << 60, 1ull << 60), -EFBIG);
	assert_int_equal(falloc(f, PUNCH, max - 10, 10), 0); /* beyond the end */

	inode->i_flags |= EXT4_APPEND_FL;
	assert_int_equal(falloc(f, PUNCH, 0, 1), -EPERM);
	assert_int_equal(falloc(f, ZERO, 0, 1), -EPERM);
	assert_int_equal(falloc(f, KEEP, 0, 1), 0);
	inode->i_flags &= ~EXT4_APPEND_FL;
	inode->i_flags |= EXT4_IMMUTABLE_FL;
	assert_int_equal(falloc(f, PUNCH, 0, 1), -EPERM);
	inode->i_flags &= ~EXT4_IMMUTABLE_FL;
	assert_int_equal(stat_of(f).st_size, 0);

	ro = open_file("file", false, 0);
	put(f, "0123456789", 10, 0);
	assert_int_equal(sl_copy_file_range(f, 0, ro, 20, 5, &root_cred), -EBADF);
	sl_release(ro);
	ro = open_file("file", false, SL_OPEN_WRITE | SL_OPEN_APPEND);
	assert_int_equal(sl_copy_file_range(f, 0, ro, 20, 5, &root_cred), -EBADF);
	sl_release(ro);
	assert_int_equal(sl_copy_file_range(f, 0, f, 9, 10, &root_cred), -EINVAL);
	assert_int_equal(sl_copy_file_range(f, 4, f, 0, 6, &root_cred), -EINVAL);
	assert_int_equal(sl_copy_file_range(f, 1ull << 63, f, 0, 6, &root_cred),
			 -EOVERFLOW);
	assert_int_equal(sl_copy_file_range(f, 0, f, max, 6, &root_cred), -EFBIG);
	assert_int_equal(sl_copy_file_range(f, 10, f, 0, 100, &root_cred), 0);
	assert_int_equal(sl_copy_file_range(f, 5, f, 0, 5, &root_cred), 5);
	assert_int_equal(sl_read(f, m.buf, 20, 0), 10);
	assert_memory_equal(m.buf, "5678956789", 10);
	sl_release(f);
	end();
}

/* Blocks come back, SEEK_HOLE sees the hole, the edges keep what is theirs. */
static void test_punch_frees(void **state)
{
	struct statvfs before, after;
	struct sl_file *f;

	begin("-b 1024", "16M", &opts);
	f = open_new("file");
	memset(m.buf, 'x', 64 << 10);
	put(f, m.buf, 64 << 10, 0);
	assert_int_equal(sl_fsync(f, false), 0);
	assert_int_equal(stat_of(f).st_blocks, 128);
	assert_int_equal(sl_statfs(sb, &before), 0);
	assert_int_equal(falloc(f, PUNCH, 10 * 1024 + 5, 20 * 1024), 0);
	assert_int_equal(stat_of(f).st_size, 64 << 10);
	assert_int_equal(stat_of(f).st_blocks, 128 - 2 * 19);
	assert_int_equal(sl_lseek(f, 0, SEEK_HOLE), 11 * 1024);
	assert_int_equal(sl_lseek(f, 11 * 1024, SEEK_DATA), 30 * 1024);
	assert_int_equal(sl_lseek(f, 30 * 1024, SEEK_HOLE), 64 << 10);
	assert_int_equal(sl_sync(sb), 0);
	assert_int_equal(sl_statfs(sb, &after), 0);
	assert_int_equal(after.f_bfree, before.f_bfree + 19);
	f = again(f, "file");
	assert_int_equal(sl_read(f, m.buf, 64 << 10, 0), 64 << 10);
	for (u32 i = 0; i < 64 << 10; i++)
		assert_int_equal(m.buf[i],
				 i >= 10 * 1024 + 5 && i < 30 * 1024 + 5 ? 0 : 'x');
	/* To the end and beyond: the last block too; not what was allocated behind. */
	resize(f, (64 << 10) - 100);
	assert_int_equal(falloc(f, KEEP, 64 << 10, 8 << 10), 0);
	assert_int_equal(stat_of(f).st_blocks, 90 + 16);
	assert_int_equal(falloc(f, PUNCH, 60 << 10, 1 << 20), 0);
	assert_int_equal(stat_of(f).st_blocks, 90 - 8 + 16);
	assert_int_equal(stat_of(f).st_size, (64 << 10) - 100);
	sl_release(f);
	end();
}

/*
 * Data that never was on disk: dropped with its promise, and the size that waited
 * for it gets there all the same, as a power cut shows.
 */
static void drop_delayed(int mode)
{
	struct sl_file *f;

	begin("-b 1024", "16M", &opts);
	f = open_new("file");
	memset(m.buf, 'x', 64 << 10);
	put(f, m.buf, 64 << 10, 0);
	assert_int_equal(counter_sum(EXT4_SB(sb)->reserved), 64);
	assert_int_equal(falloc(f, mode, 20 << 10, 100 << 10), 0);
	assert_int_equal(counter_sum(EXT4_SB(sb)->reserved), 20);
	assert_int_equal(stat_of(f).st_blocks, mode == PUNCH ? 40 : 240);
	assert_int_equal(sl_lseek(f, 0, SEEK_HOLE), 20 << 10);
	assert_int_equal(sl_fsync(f, true), 0);
	f = cut(f, "file");
	assert_int_equal(stat_of(f).st_size, 64 << 10);
	assert_int_equal(sl_read(f, m.buf, 64 << 10, 0), 64 << 10);
	for (u32 i = 0; i < 64 << 10; i++)
		assert_int_equal(m.buf[i], i < 20 << 10 ? 'x' : 0);
	sl_release(f);
	end();
}

static void test_delayed_data_is_dropped(void **state)
{
	drop_delayed(PUNCH);
	drop_delayed(ZERO | KEEP);
}

/* Zeroing keeps the blocks where they are, and what was written after a crash is
 * never the old content. */
static void test_zero_keeps_blocks(void **state)
{
	struct ext4_map map = { .lblk = 0, .len = 1 };
	struct sl_file *f;
	pblk_t first;

	begin("-b 4096", "16M", &opts);
	f = open_new("file");
	memset(m.buf, 'x', 256 << 10);
	put(f, m.buf, 256 << 10, 0);
	assert_int_equal(sl_fsync(f, false), 0);
	assert_int_equal(ext4_map_blocks(EXT4_I(sl_file_inode(f)), &map), 0);
	first = map.pblk;
	assert_int_equal(falloc(f, ZERO, 0, 300 << 10), 0);
	assert_int_equal(stat_of(f).st_size, 300 << 10);
	assert_int_equal(stat_of(f).st_blocks, 600);
	map.len = 1;
	assert_int_equal(ext4_map_blocks(EXT4_I(sl_file_inode(f)), &map), 0);
	assert_int_equal(map.flags, EXT4_MAP_UNWRITTEN);
	assert_int_equal(map.pblk, first);
	assert_int_equal(sl_lseek(f, 0, SEEK_DATA), -ENXIO);
	put(f, "new", 3, 8192);
	assert_int_equal(sl_fsync(f, false), 0);
	f = cut(f, "file");
	assert_int_equal(sl_read(f, m.buf, 300 << 10, 0), 300 << 10);
	assert_memory_equal(m.buf + 8192, "new", 3);
	for (u32 i = 0; i < 300 << 10; i++)
		if (i < 8192 || i >= 8195)
			assert_int_equal(m.buf[i], 0);
	sl_release(f);
	end();
}

/* Times move, suid goes when it is not root, and O_SYNC makes it durable. */
static void test_attributes(void **state)
{
	struct stat st = { .st_mode = 06755 };
	struct sl_file *f;

	begin("-b 1024", "16M", &opts);
	f = open_new("file");
	memset(m.buf, 'x', 8192);
	put(f, m.buf, 8192, 0);
	sl_release(f);
	f = open_file("file", false, SL_OPEN_WRITE | SL_OPEN_SYNC);
	assert_int_equal(sl_setattr(sl_file_inode(f), &st, SL_SET_MODE, &root_cred, NULL),
			 0);
	assert_int_equal(falloc(f, PUNCH, 0, 4096), 0);
	assert_int_equal(stat_of(f).st_mode & 07777, 06755);
	assert_int_equal(sl_fallocate(f, PUNCH, 0, 4096, &user_cred), 0);
	assert_int_equal(stat_of(f).st_mode & 07777, 0755);
	assert_int_equal(sl_setattr(sl_file_inode(f), &st, SL_SET_MODE, &root_cred, NULL),
			 0);
	assert_int_equal(sl_copy_file_range(f, 4096, f, 0, 100, &user_cred), 100);
	assert_int_equal(stat_of(f).st_mode & 07777, 0755);
	st = stat_of(f);
	assert_int_equal(falloc(f, ZERO, 100, 6000), 0);
	assert_true(stat_of(f).st_mtim.tv_sec > st.st_mtim.tv_sec ||
		    stat_of(f).st_mtim.tv_nsec > st.st_mtim.tv_nsec);
	f = cut(f, "file");
	assert_int_equal(sl_read(f, m.buf, 8192, 0), 8192);
	for (u32 i = 0; i < 8192; i++)
		assert_int_equal(m.buf[i], i < 100 || i >= 6100 ? 'x' : 0);
	sl_release(f);
	end();
}

/* ext3: holes can be made, nothing can be allocated. */
static void test_block_map(void **state)
{
	char path[128], command[256];
	struct sl_file *f;
	FILE *in;

	memvol_make(&mv, "-b 1024 -O ^extent,^64bit,^flex_bg", "16M");
	memset(m.data, 'x', 400 << 10);
	snprintf(path, sizeof(path), "%s/data", mv.v.dir);
	in = fopen(path, "w");
	assert_non_null(in);
	assert_int_equal(fwrite(m.data, 1, 400 << 10, in), 400 << 10);
	fclose(in);
	snprintf(command, sizeof(command), "write %s file", path);
	memvol_debugfs(&mv, command);
	unlink(path);
	memvol_debugfs(&mv, "feature extent"); /* read-write wants it */
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	f = open_file("file", false, SL_OPEN_WRITE);
	assert_int_equal(falloc(f, 0, 0, 1024), -EOPNOTSUPP);
	assert_int_equal(falloc(f, ZERO, 0, 1024), -EOPNOTSUPP);
	assert_int_equal(falloc(f, COLLAPSE, 0, 1024), -EOPNOTSUPP);
	assert_int_equal(falloc(f, INSERT, 0, 1024), -EOPNOTSUPP);
	assert_int_equal(falloc(f, PUNCH, 5000, 300 << 10), 0);
	memset(m.data + 5000, 0, 300 << 10);
	m.size = 400 << 10;
	check_all(f);
	f = again(f, "file");
	check_all(f);
	sl_release(f);
	end();
}

/* Full to the last block: a hole can still be punched, also where that takes a node. */
static void test_full_volume(void **state)
{
	struct sl_file *f, *g;
	u64 pos = 0;
	ssize_t n;

	begin("-b 1024 -m 0 -N 32", "8M", &opts);
	f = open_new("file");
	g = open_new("other");
	memset(m.buf, 'x', 64 << 10);
	while ((n = sl_write(f, m.buf, 64 << 10, pos, 0, &root_cred)) > 0)
		pos += (u64)n;
	assert_int_equal(n, -ENOSPC);
	assert_int_equal(sl_fsync(f, false), 0);
	for (u64 at = 1; at < 1200; at += 2)
		assert_int_equal(falloc(f, at % 3 ? PUNCH : ZERO | KEEP, at << 10, 1024), 0);
	assert_int_equal(sl_fsync(f, false), 0);
	/* What came free can be used, and zeroing into the holes fails at its end. */
	while ((n = sl_write(g, m.buf, 1024, (u64)stat_of(g).st_size, 0, &root_cred)) > 0)
		;
	assert_int_equal(n, -ENOSPC);
	assert_true(stat_of(g).st_size > 300 << 10);
	assert_int_equal(falloc(f, ZERO, 0, 1 << 20), -ENOSPC);
	for (u64 at = 0; at < 1 << 20; at += 64 << 10) {
		assert_int_equal(sl_read(f, m.buf, 64 << 10, at), 64 << 10);
		for (u32 i = 0; i < 64 << 10; i++)
			assert_int_equal(m.buf[i], 0);
	}
	sl_release(g);
	sl_release(f);
	end();
}

/* ---- races ---- */

#define RACE_BYTES (256u << 10)
#define RACERS 6

struct racer {
	struct sl_file *f, *to;
	u32 id;
	unsigned seed;
	bool bad;
};

static u8 byte_at(u64 pos)
{
	return (u8)(1 + pos * 31 % 251);
}

static void race_write(struct racer *r, u64 pos, u32 len)
{
	static _Thread_local u8 buf[20000];

	len = min_of(len, (u32)(RACE_BYTES - pos));
	for (u32 i = 0; i < len; i++)
		buf[i] = byte_at(pos + i);
	if (sl_write(r->f, buf, len, pos, 0, &root_cred) != len)
		r->bad = true;
}

static void race_read(struct racer *r, struct sl_file *f, u64 pos, u32 len)
{
	static _Thread_local u8 buf[20000];
	ssize_t n = sl_read(f, buf, len, pos);

	if (n < 0)
		r->bad = true;
	for (ssize_t i = 0; i < n; i++)
		if (buf[i] && buf[i] != byte_at(pos + (u64)i))
			r->bad = true;
}

static void race(void *arg)
{
	struct racer *r = arg;

	for (int i = 0; i < 150; i++) {
		u64 pos = (u64)rand_r(&r->seed) % (RACE_BYTES - 1);
		u32 len = 1 + (u32)rand_r(&r->seed) % 20000;
		struct stat st = { .st_size = (off_t)pos };
		int err = 0;

		switch (r->id) {
		case 0:
			err = falloc(r->f, PUNCH, pos, len);
			break;
		case 1:
			err = falloc(r->f, ZERO | KEEP, pos, len);
			break;
		case 2: case 3:
			race_write(r, pos, len);
			break;
		case 4:
			race_read(r, r->f, pos, len);
			race_read(r, r->to, pos, len);
			break;
		default:
			if (i % 10 == 0)
				err = sl_setattr(sl_file_inode(r->f), &st, SL_SET_SIZE,
						 &root_cred, NULL);
			else if (i % 4 == 0)
				sl_drop_caches(sb);
			else if (i % 4 == 1)
				err = sl_fsync(r->f, true);
			else if (sl_copy_file_range(r->f, pos, r->to, pos, len,
						    &root_cred) < 0)
				r->bad = true;
		}
		if (err)
			r->bad = true;
	}
}

static void run_races(u32 blocksize, unsigned seed)
{
	struct racer r[RACERS];
	struct thread *t[RACERS];
	char mkfs[32];
	u8 *buf = malloc(RACE_BYTES);

	snprintf(mkfs, sizeof(mkfs), "-b %u", blocksize);
	begin(mkfs, "16M", &busy_opts);
	fake_async(mv.fd, seed);
	r[0].f = open_new("file");
	r[0].to = open_new("copy");
	resize(r[0].f, RACE_BYTES);
	for (u32 i = 0; i < RACERS; i++)
		r[i] = (struct racer){ .f = r[0].f, .to = r[0].to, .id = i,
				       .seed = seed * 100 + i };
	for (u32 i = 0; i < RACERS; i++)
		assert_int_equal(thread_create(&t[i], "racer", race, &r[i]), 0);
	for (u32 i = 0; i < RACERS; i++)
		thread_join(t[i]);
	for (int pass = 0; pass < 3; pass++) {
		for (u64 at = 0; at < RACE_BYTES; at += 16384)
			race_read(&r[0], r[0].f, at, 16384);
		assert_int_equal(sl_fsync(r[0].f, false), 0);
		sl_drop_caches(sb);
	}
	/* What is punched now is gone for good, whatever was on its way. */
	race_write(&r[2], 1000, 20000);
	assert_int_equal(falloc(r[0].f, PUNCH, 3000, 10000), 0);
	assert_int_equal(sl_fsync(r[0].f, false), 0);
	sl_drop_caches(sb);
	assert_int_equal(sl_read(r[0].f, buf, 20000, 1000), 20000);
	for (u32 i = 0; i < 20000; i++)
		assert_int_equal(buf[i], i >= 2000 && i < 12000 ? 0 : byte_at(1000 + i));
	for (u32 i = 0; i < RACERS; i++)
		assert_false(r[i].bad);
	free(buf);
	sl_release(r[0].to);
	sl_release(r[0].f);
	end();
}

static void test_races_1k(void **state)
{
	run_races(1024, 1);
}
static void test_races_4k(void **state)
{
	run_races(4096, 2);
}

/* Data is data while it is written out, too: between its blocks' being unwritten
 * and dirty, and their being written and clean, there is nothing. */
static void test_seek_beside_write_out(void **state)
{
	struct sl_file *f;

	begin("-b 1024", "16M", &busy_opts);
	fake_async(mv.fd, 3);
	f = open_new("file");
	memset(m.buf, 'x', 64 << 10);
	for (int i = 0; i < 100; i++) {
		struct wb_control wbc = { .start = 0, .end = EXT4_LBLK_END };

		put(f, m.buf, 64 << 10, 0);
		assert_int_equal(ext4_write_inode(sl_file_inode(f), &wbc), 0);
		do {
			assert_int_equal(sl_lseek(f, 0, SEEK_DATA), 0);
			assert_int_equal(sl_lseek(f, 0, SEEK_HOLE), 64 << 10);
		} while (atomic_load(&sl_file_inode(f)->i_mapping.m_nr_writeback));
		resize(f, 0);
	}
	sl_release(f);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model_1k),
		cmocka_unit_test(test_model_2k),
		cmocka_unit_test(test_model_4k),
		cmocka_unit_test(test_what_is_refused),
		cmocka_unit_test(test_punch_frees),
		cmocka_unit_test(test_delayed_data_is_dropped),
		cmocka_unit_test(test_zero_keeps_blocks),
		cmocka_unit_test(test_attributes),
		cmocka_unit_test(test_block_map),
		cmocka_unit_test(test_full_volume),
		cmocka_unit_test(test_seek_beside_write_out),
		cmocka_unit_test(test_races_1k),
		cmocka_unit_test(test_races_4k),
	};

	return cmocka_run_group_tests(tests, unit_setup, NULL);
}
