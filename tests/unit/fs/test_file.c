/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_file.c - open files: errors told once, space accounted for
 */
#include "tests/unit/unit.h"
#include "tests/unit/fs/memvol.h"

#include "cache/region.h"
#include "fs/ext4.h"
#include "lib/wait.h"

#include <linux/falloc.h>

static const struct sl_cred root_cred = { 0, 0, 022 };
static const struct sl_cred user_cred = { 1000, 1000, 022 };
static const struct sl_options opts = { .cache_bytes = 16 << 20,
					.commit_ms = 600000,
					.dirty_expire_ms = 600000 };
static const struct sl_options busy_opts = { .cache_bytes = 16 << 20,
					     .commit_ms = 20,
					     .dirty_expire_ms = 20 };

static struct memvol mv;
static struct super_block *sb;

static struct sl_file *open_new(const char *name)
{
	struct inode *root, *inode;
	struct sl_file *f;

	assert_int_equal(sl_iget(sb, 2, &root), 0);
	assert_int_equal(sl_mknod(root, name, strlen(name), S_IFREG | 0644, 0,
				  &root_cred, &inode), 0);
	assert_int_equal(sl_open(inode, SL_OPEN_WRITE, &f), 0);
	sl_iput(inode);
	sl_iput(root);
	return f;
}

static void begin(const char *mkfs, const char *size, const struct sl_options *o)
{
	memvol_make(&mv, mkfs, size);
	assert_int_equal(memvol_mount(&mv, o, &sb), 0);
}

static void end(void)
{
	assert_int_equal(counter_sum(EXT4_SB(sb)->reserved), 0);
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(memvol_fsck(&mv), 0);
	memvol_free(&mv);
}

/* The next write fails, and no other. */
static void fail_next_write(void)
{
	mv.fd->fail_once = true;
	memvol_fail_writes(&mv, 0);
}

/* A counter of sl_stats(). */
static u64 stat_value(const char *name)
{
	char text[8192], *at = text;
	size_t len = strlen(name);

	text[sl_stats(sb, text, sizeof(text) - 1)] = '\0';
	while (strncmp(at, name, len) || at[len] != ' ') {
		at = strchr(at, '\n');
		assert_non_null(at);
		at++;
	}
	return strtoull(at + len, NULL, 10);
}

static struct sl_file *open_again(const char *name)
{
	struct inode *root, *inode;
	struct sl_file *f;

	assert_int_equal(sl_iget(sb, 2, &root), 0);
	assert_int_equal(sl_lookup(root, name, strlen(name), &inode), 0);
	assert_int_equal(sl_open(inode, SL_OPEN_WRITE, &f), 0);
	sl_iput(inode);
	sl_iput(root);
	return f;
}

/* A file of `bytes`, mounted anew, nothing of it in memory. */
static struct sl_file *cold_file(const struct sl_options *o, u8 *data, u32 bytes)
{
	struct sl_file *f;

	begin("-b 1024", "16M", o);
	f = open_new("file");
	for (u32 i = 0; i < bytes; i++)
		data[i] = (u8)(i / 1024 + i);
	assert_int_equal(sl_write(f, data, bytes, 0, 0, &root_cred), bytes);
	sl_release(f);
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(memvol_mount(&mv, o, &sb), 0);
	return open_again("file");
}

#define COLD_BYTES (2500u * 1024 + 77)

/* A range that was looked up once is read and overwritten without the tree. */
static void test_known_extents(void **state)
{
	static u8 data[COLD_BYTES], buf[COLD_BYTES];
	struct sl_file *f = cold_file(&opts, data, COLD_BYTES);
	u64 lookups, bytes;

	assert_int_equal(sl_read(f, buf, COLD_BYTES, 0), COLD_BYTES);
	assert_memory_equal(buf, data, COLD_BYTES);
	lookups = stat_value("extent_lookups");
	bytes = stat_value("read_bytes");
	for (u32 pos = 0; pos < COLD_BYTES; pos += 50000) {
		u32 n = min_of(COLD_BYTES - pos, 50000u);

		assert_int_equal(sl_read(f, buf, 50000, pos), n);
		assert_memory_equal(buf, data + pos, n);
	}
	/* Read once more from the device, but not looked up. */
	assert_true(stat_value("read_bytes") >= bytes + COLD_BYTES);
	memset(data + 1024, 'o', 1000000);
	assert_int_equal(sl_write(f, data + 1024, 1000000, 1024, 0, &root_cred), 1000000);
	assert_int_equal(sl_fsync(f, false), 0);
	assert_int_equal(stat_value("extent_lookups"), lookups);
	assert_int_equal(sl_read(f, buf, COLD_BYTES, 0), COLD_BYTES);
	assert_memory_equal(buf, data, COLD_BYTES);
	sl_release(f);
	end();
}

/* -o datacache=full: what was read is not read again; what changed is new. */
static void test_datacache_full(void **state)
{
	static const struct sl_options full = { .cache_bytes = 16 << 20,
						.datacache_full = true };
	static u8 data[COLD_BYTES], buf[COLD_BYTES];
	struct sl_file *f = cold_file(&full, data, COLD_BYTES);
	struct stat st = { .st_size = COLD_BYTES - 3000 };
	u64 bytes;

	/* Not at borders of blocks: the parts are read again, and then kept. */
	assert_int_equal(sl_read(f, buf, 10000, 100), 10000);
	assert_memory_equal(buf, data + 100, 10000);
	assert_int_equal(sl_read(f, buf, COLD_BYTES, 0), COLD_BYTES);
	assert_memory_equal(buf, data, COLD_BYTES);
	bytes = stat_value("read_bytes");
	assert_int_equal(sl_read(f, buf, COLD_BYTES, 0), COLD_BYTES);
	assert_memory_equal(buf, data, COLD_BYTES);
	assert_int_equal(sl_read(f, buf, 77, COLD_BYTES - 77), 77);
	assert_memory_equal(buf, data + COLD_BYTES - 77, 77);
	assert_int_equal(stat_value("read_bytes"), bytes);
	assert_int_equal(stat_value("dirty_bytes"), 0);

	/* A part of a kept block is overwritten; the end is cut and grows again. */
	memset(data + 5000, 'p', 3000);
	assert_int_equal(sl_write(f, data + 5000, 3000, 5000, 0, &root_cred), 3000);
	assert_int_equal(sl_setattr(sl_file_inode(f), &st, SL_SET_SIZE, NULL, NULL), 0);
	st.st_size = COLD_BYTES;
	assert_int_equal(sl_setattr(sl_file_inode(f), &st, SL_SET_SIZE, NULL, NULL), 0);
	memset(data + COLD_BYTES - 3000, 0, 3000);
	assert_int_equal(sl_read(f, buf, COLD_BYTES, 0), COLD_BYTES);
	assert_memory_equal(buf, data, COLD_BYTES);
	sl_drop_caches(sb);
	assert_int_equal(sl_read(f, buf, COLD_BYTES, 0), COLD_BYTES);
	assert_memory_equal(buf, data, COLD_BYTES);
	sl_release(f);
	end();
}

#define PIECE (1u << 20)

/*
 * sl_write() of whole pages in a region, which is given up at once; `left`: of another
 * use, bytes of it that are in memory.
 */
static void write_region(struct region_pool *pool, struct sl_file *f, const u8 *data,
			 u32 len, u64 pos, u32 left)
{
	struct region *r = region_get(pool, 0);
	u8 *buf;

	assert_non_null(r);
	buf = (u8 *)region_memory(r) + REGION_PAGE;
	memset(buf, 'l', left);
	memcpy(buf, data, len);
	region_note(r, REGION_PAGE + max_of(len, left));
	assert_int_equal(sl_write_region(f, r, buf, len, pos, 0, &root_cred), len);
	region_put(r);
}

static void same_content(struct sl_file *f, const u8 *want, u32 len)
{
	static u8 buf[3 * PIECE] __attribute__((aligned(4096)));

	memset(buf, 'u', sizeof(buf));
	assert_int_equal(sl_read(f, buf, sizeof(buf), 0), len);
	assert_memory_equal(buf, want, len);
}

/*
 * What a large write leaves in the cache without a copy is like all else there: it is
 * overwritten, cut, punched, sought, written out, read again and reclaimed.
 */
static void adopted(const char *mkfs, u32 bs)
{
	static u8 data[3 * PIECE];
	/* So large that nothing is written out before it is asked for. */
	static const struct sl_options large = { .cache_bytes = 256 << 20,
						 .commit_ms = 600000,
						 .dirty_expire_ms = 600000 };
	/* One region only is kept: the next write comes in the memory of the last. */
	struct region_pool *pool = region_pool_new(2 * PIECE, PIECE);
	u64 copied, taken;
	struct sl_file *f;

	assert_non_null(pool);
	for (u32 i = 0; i < sizeof(data); i++)
		data[i] = (u8)(i / 512 + i);
	begin(mkfs, "32M", &large);
	f = open_new("file");
	write_region(pool, f, data, PIECE, 0, 0);
	write_region(pool, f, data + PIECE, PIECE, PIECE, 0);
	assert_int_equal(stat_value("write_bytes_adopted"), 2 * PIECE);
	assert_int_equal(stat_value("write_bytes_copied"), 0);
	assert_true(stat_value("cache_folio_bytes") >= 2 * PIECE);
	same_content(f, data, 2 * PIECE);
	/* Present already; small; most of the memory is something else's. */
	memset(data, 'o', PIECE);
	write_region(pool, f, data, PIECE, 0, 0);
	write_region(pool, f, data + 2 * PIECE, 8192, 2 * PIECE, 0);
	write_region(pool, f, data + 2 * PIECE + 8192, 128 << 10, 2 * PIECE + 8192,
		     512 << 10);
	assert_int_equal(stat_value("write_bytes_adopted"), 2 * PIECE);
	copied = stat_value("write_bytes_copied");
	assert_int_equal(copied, PIECE + 8192 + (128 << 10));
	same_content(f, data, 2 * PIECE + 8192 + (128 << 10));
	/* In part, inside a page; then its end goes, and a hole is made. */
	memset(data + PIECE + 5000, 'p', 3000);
	assert_int_equal(sl_write(f, data + PIECE + 5000, 3000, PIECE + 5000, 0,
				  &root_cred), 3000);
	assert_int_equal(sl_setattr(sl_file_inode(f),
				    &(struct stat){ .st_size = 2 * PIECE - 70000 },
				    SL_SET_SIZE, NULL, NULL), 0);
	same_content(f, data, 2 * PIECE - 70000);
	assert_int_equal(sl_fallocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				      PIECE + 100000, 200000, &root_cred), 0);
	memset(data + PIECE + 100000, 0, 200000);
	same_content(f, data, 2 * PIECE - 70000);
	assert_int_equal(sl_lseek(f, PIECE, SEEK_HOLE),
			 PIECE + ALIGN_UP(100000u, bs));
	assert_int_equal(sl_lseek(f, PIECE + 110000, SEEK_DATA),
			 PIECE + ALIGN_DOWN(300000u, bs));
	/* Into the hole (of a buffer warm with more) and beyond the end, not a whole number of pages. */
	memset(data + PIECE + 106496, 'h', 180000);
	write_region(pool, f, data + PIECE + 106496, 180000, PIECE + 106496, 0);
	memset(data + 2 * PIECE - 70000, 0, 70000);
	write_region(pool, f, data + 2 * PIECE, 700001, 2 * PIECE, 0);
	taken = stat_value("write_bytes_adopted") - 2 * PIECE;
	assert_int_equal(taken, ALIGN_DOWN(700001u, REGION_PAGE));
	same_content(f, data, 2 * PIECE + 700001);
	assert_int_equal(sl_fsync(f, false), 0);
	same_content(f, data, 2 * PIECE + 700001);
	sl_drop_caches(sb);
	same_content(f, data, 2 * PIECE + 700001);
	sl_release(f);
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(memvol_mount(&mv, &large, &sb), 0);
	f = open_again("file");
	same_content(f, data, 2 * PIECE + 700001);
	sl_release(f);
	end();
	region_pool_free(pool);
}

static void test_writes_without_copies(void **state)
{
	adopted("-b 1024", 1024);
	adopted("-b 4096", 4096);
}

/* Each open file learns of a lost write once, by fsync; close(2) tells, too. */
static void test_errors_once(void **state)
{
	struct sl_file *a, *b, *c;
	char block[1024] = "x";

	begin("-b 1024", "16M", &opts);
	a = open_new("file");
	assert_int_equal(sl_open(sl_file_inode(a), SL_OPEN_WRITE, &b), 0);
	assert_int_equal(sl_write(a, block, 1024, 0, 0, &root_cred), 1024);
	fail_next_write();
	assert_int_equal(sl_fsync(a, false), -EIO);
	assert_int_equal(sl_fsync(a, false), 0);
	assert_int_equal(sl_flush(a), 0);
	assert_int_equal(sl_flush(b), -EIO); /* a child's close */
	assert_int_equal(sl_flush(b), -EIO);
	assert_int_equal(sl_fsync(b, true), -EIO);
	assert_int_equal(sl_fsync(b, true), 0);
	assert_int_equal(sl_flush(b), 0);
	/* All who were there have seen it. */
	assert_int_equal(sl_open(sl_file_inode(a), SL_OPEN_WRITE, &c), 0);
	assert_int_equal(sl_fsync(c, false), 0);
	/* Written again, all is well. */
	assert_int_equal(sl_write(c, block, 1024, 0, 0, &root_cred), 1024);
	assert_int_equal(sl_fsync(c, false), 0);

	/* Nobody has seen it: the next to open does; close is not seeing. */
	assert_int_equal(sl_write(c, block, 1024, 1024, 0, &root_cred), 1024);
	fail_next_write();
	assert_int_not_equal(ext4_sync_inode(EXT4_I(sl_file_inode(c)), false), 1);
	assert_int_equal(sl_flush(c), -EIO);
	sl_release(c);
	assert_int_equal(sl_open(sl_file_inode(a), 0, &c), 0);
	assert_int_equal(sl_fsync(c, false), -EIO);
	sl_release(c);
	sl_release(b);
	sl_release(a);
	end();
}

static void write_mib(struct sl_file *f, u64 pos, u64 end)
{
	static char data[64 << 10];

	for (; pos < end; pos += sizeof(data))
		assert_int_equal(sl_write(f, data, sizeof(data), pos, 0, &root_cred),
				 sizeof(data));
}

/*
 * A failed write in a range: fsync tells each who has the file open, once, and
 * of another file nobody; close(2) tells whom it concerns.
 */
static void test_errors_find_their_range(void **state)
{
	struct sl_file *low, *high, *reader, *idle, *other;
	static char block[4096] = "y";

	begin("-b 4096", "64M", &opts);
	low = open_new("file");
	other = open_new("other");
	assert_int_equal(sl_open(sl_file_inode(low), SL_OPEN_WRITE, &high), 0);
	assert_int_equal(sl_open(sl_file_inode(low), SL_OPEN_WRITE, &idle), 0);
	assert_int_equal(sl_open(sl_file_inode(low), 0, &reader), 0);
	write_mib(low, 0, 3 << 20);
	write_mib(high, 20 << 20, 23 << 20);
	write_mib(other, 0, 3 << 20);
	assert_int_equal(sl_sync(sb), 0);
	for (int i = 0; i < 2; i++) {
		struct sl_file *hit = i ? high : low, *spared = i ? low : high;
		u64 pos = i ? 22 << 20 : 1 << 20;

		assert_int_equal(sl_write(hit, block, sizeof(block), pos, 0, &root_cred),
				 sizeof(block));
		fail_next_write();
		assert_int_not_equal(ext4_sync_inode(EXT4_I(sl_file_inode(hit)), false), 1);
		assert_int_equal(stat_value("window_errors"), i + 1);
		assert_int_equal(sl_flush(hit), -EIO);
		assert_int_equal(sl_flush(spared), 0);
		assert_int_equal(sl_flush(idle), -EIO); /* nobody can tell */
		assert_int_equal(sl_flush(reader), 0);
		assert_int_equal(sl_fsync(spared, false), -EIO);
		assert_int_equal(sl_fsync(hit, true), -EIO);
		assert_int_equal(sl_fsync(idle, false), -EIO);
		assert_int_equal(sl_fsync(reader, false), -EIO);
		assert_int_equal(sl_flush(other), 0);
		assert_int_equal(sl_fsync(other, false), 0);
		assert_int_equal(sl_fsync(spared, false), 0);
		assert_int_equal(sl_fsync(hit, true), 0);
		assert_int_equal(sl_fsync(idle, false), 0);
		assert_int_equal(sl_fsync(reader, false), 0);
		assert_int_equal(sl_flush(hit), 0);
	}
	sl_release(low);
	sl_release(high);
	sl_release(idle);
	sl_release(reader);
	sl_release(other);
	end();
}

/* A lost write that nobody was told of outlives reclaim of the inode's memory. */
static void test_errors_outlive_reclaim(void **state)
{
	char block[1024] = "x";
	struct inode *inode;
	struct sl_file *f;
	u64 ino;

	begin("-b 1024", "16M", &opts);
	f = open_new("file");
	ino = sl_ino(sl_file_inode(f));
	assert_int_equal(sl_fsync(f, false), 0);
	assert_int_equal(sl_write(f, block, 1024, 0, 0, &root_cred), 1024);
	fail_next_write();
	assert_int_not_equal(ext4_sync_inode(EXT4_I(sl_file_inode(f)), false), 1);
	sl_release(f);
	for (int told = 0; told < 2; told++) {
		(void)!sl_sync(sb);
		sl_drop_caches(sb);
		sl_drop_caches(sb);
		assert_int_equal(sl_iget(sb, ino, &inode), 0);
		assert_int_equal(sl_open(inode, 0, &f), 0);
		sl_iput(inode);
		assert_int_equal(sl_fsync(f, false), told ? 0 : -EIO);
		sl_release(f);
	}
	end();
}

/* The blocks of a file, of which there is one extent, are held back from now on. */
static void hold_file(struct sl_file *f, u64 bytes)
{
	struct ext4_map m = { .lblk = 0, .len = (u32)(bytes >> sb->s_blocksize_bits) };

	assert_int_equal(ext4_map_blocks(EXT4_I(sl_file_inode(f)), &m), 0);
	assert_true(m.flags != 0);
	assert_int_equal((u64)m.len << sb->s_blocksize_bits, bytes);
	pthread_mutex_lock(&mv.fd->lock);
	mv.fd->hold_pos = m.pblk << sb->s_blocksize_bits;
	mv.fd->hold_len = bytes;
	pthread_mutex_unlock(&mv.fd->lock);
}

/* The device has not written another file's data: no affair of this one's fsync. */
static void test_fsync_waits_for_its_file_alone(void **state)
{
	struct wb_control wbc = { .start = 0, .end = EXT4_LBLK_END };
	static char data[1 << 20];
	struct sl_file *a, *b;

	begin("-b 4096", "64M", &opts);
	a = open_new("a");
	b = open_new("b");
	assert_int_equal(sl_fallocate(a, 0, 0, sizeof(data), &root_cred), 0);
	assert_int_equal(sl_fsync(a, false), 0);
	hold_file(a, sizeof(data));
	memset(data, 'a', sizeof(data));
	assert_int_equal(sl_write(a, data, sizeof(data), 0, 0, &root_cred), sizeof(data));
	assert_int_equal(ext4_write_inode(sl_file_inode(a), &wbc), 0);
	assert_true(mv.fd->nr_held > 0);
	assert_int_equal(atomic_load(&sl_file_inode(a)->i_mapping.m_nr_writeback),
			 sizeof(data) / 4096);

	for (int i = 0; i < 3; i++) {
		assert_int_equal(sl_write(b, data, 100000, 100000u * (u64)i, 0, &root_cred),
				 100000);
		assert_int_equal(sl_fsync(b, i % 2), 0);
		assert_int_equal(atomic_load(&sl_file_inode(b)->i_mapping.m_nr_dirty), 0);
		assert_int_equal(atomic_load(&sl_file_inode(b)->i_mapping.m_nr_writeback), 0);
	}
	assert_true(mv.fd->nr_held > 0);
	assert_int_equal(atomic_load(&sl_file_inode(a)->i_mapping.m_nr_writeback),
			 sizeof(data) / 4096);
	fake_let_go(mv.fd);
	assert_int_equal(sl_fsync(a, false), 0);
	sl_release(a);
	sl_release(b);
	end();
}

static u64 stat_of(const char *name)
{
	static char text[16384];
	size_t n = sl_stats(sb, text, sizeof(text) - 1);
	char *p;

	text[n] = 0;
	p = strstr(text, name);
	assert_non_null(p);
	return strtoull(p + strlen(name), NULL, 10);
}

/* A stream is on the device before its writer is done, the marks being far
 * away; the same amount in random order is not. */
static void test_stream_is_written_behind(void **state)
{
	const struct sl_options big = { .cache_bytes = 256 << 20,
					.commit_ms = 600000,
					.dirty_expire_ms = 600000 };
	static char data[1 << 20];
	struct sl_file *f, *g;
	u64 end_ns;

	begin("-b 4096", "128M", &big);
	f = open_new("random");
	for (u64 i = 0; i < 12; i++)
		assert_int_equal(sl_write(f, data, sizeof(data), (i * 7 % 12) << 22, 0,
					  &root_cred), sizeof(data));
	assert_int_equal(stat_of("\nwritten_behind "), 0);
	assert_int_equal(stat_of("\nflusher_slices "), 0);
	g = open_new("stream");
	for (u64 i = 0; i < 12; i++)
		assert_int_equal(sl_write(g, data, sizeof(data), i << 20, 0, &root_cred),
				 sizeof(data));
	/* 2 times 4 MiB, perhaps in one piece */
	end_ns = clock_mono_ns() + 60000000000ull;
	while (atomic_load(&EXT4_I(sl_file_inode(g))->i_disksize) < 8u << 20 ||
	       !stat_of("\nwritten_behind ")) {
		assert_true(clock_mono_ns() < end_ns);
		usleep(1000);
	}
	assert_true(atomic_load(&sl_file_inode(g)->i_mapping.m_nr_dirty) >= 2u << 8);
	assert_int_equal(atomic_load(&sl_file_inode(f)->i_mapping.m_nr_dirty), 12u << 8);
	sl_release(f);
	sl_release(g);
	assert_int_equal(sl_sync(sb), 0);
	end();
}

/* A lower bound of the cache holds for what is dirty, too, when the call returns: also if
 * what is clean made room enough. */
static void test_lower_limit_is_for_dirty_data(void **state)
{
	const struct sl_options big = { .cache_bytes = 256 << 20,
					.commit_ms = 600000,
					.dirty_expire_ms = 600000,
					.datacache_full = true };
	const u64 lower = 24 << 20;
	static char data[1 << 20], back[1 << 20];
	struct sl_file *f, *g;

	begin("-b 4096", "64M", &big);
	f = open_new("clean");
	for (u64 i = 0; i < 20; i++)
		assert_int_equal(sl_write(f, data, sizeof(data), i << 20, 0, &root_cred),
				 sizeof(data));
	assert_int_equal(sl_fsync(f, false), 0);
	g = open_new("dirty");
	memset(data, 'd', sizeof(data));
	for (u64 i = 0; i < 12; i++) /* no stream: stays */
		assert_int_equal(sl_write(g, data, sizeof(data), (i * 7 % 12) << 22, 0,
					  &root_cred), sizeof(data));
	assert_int_equal(counter_sum(sb->s_dirty_bytes), 12 << 20);
	assert_int_equal(sl_set_cache_bytes(sb, lower), 0);
	assert_true(counter_sum(sb->s_dirty_bytes) <= (s64)(lower / 5 * 2));
	assert_int_equal(sl_read(g, back, sizeof(back), 11 << 22), sizeof(back));
	assert_memory_equal(back, data, sizeof(back));
	sl_release(f);
	sl_release(g);
	assert_int_equal(sl_sync(sb), 0);
	end();
}

/*
 * Small overwrites here and there are sent off every 4 MiB, if they are of what the
 * cache does not have. What it has may be written to as often as you like.
 */
static void test_random_overwrites_are_written_behind(void **state)
{
	const struct sl_options big = { .cache_bytes = 256 << 20,
					.commit_ms = 600000,
					.dirty_expire_ms = 600000 };
	static char data[1 << 20];
	struct mapping *m;
	struct sl_file *f;

	begin("-b 4096", "128M", &big);
	f = open_new("file");
	for (u64 i = 0; i < 24; i++)
		assert_int_equal(sl_write(f, data, sizeof(data), i << 20, 0, &root_cred),
				 sizeof(data));
	sl_release(f);
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(memvol_mount(&mv, &big, &sb), 0);
	f = open_again("file");
	m = &sl_file_inode(f)->i_mapping;
	memset(data, 'r', 4096);
	for (u32 times = 0; times < 4; times++) {
		for (u64 i = 0; i < 1024; i++)
			assert_int_equal(sl_write(f, data, 4096,
						  (i * 401 % 1024 * 6 + 3) << 12, 0,
						  &root_cred), 4096);
		while (!times && (atomic_load(&m->m_nr_dirty) ||
				  atomic_load(&m->m_nr_writeback) ||
				  !stat_of("\nwritten_behind ")))
			usleep(1000);
	}
	assert_int_equal(stat_of("\nwritten_behind "), 1);
	assert_int_equal(stat_of("\nflusher_slices "), 0);
	assert_int_equal(atomic_load(&m->m_nr_dirty), 1024);
	assert_int_equal(sl_read(f, data, 4096, 9 << 12), 4096);
	assert_int_equal(data[4095], 'r');
	sl_release(f);
	assert_int_equal(sl_sync(sb), 0);
	end();
}

/* -o nodelalloc: nothing is promised, the place is there when write returns; what
 * is in it is not visible before it is written. */
static void test_nodelalloc(void **state)
{
	const struct sl_options now = { .cache_bytes = 16 << 20,
					.commit_ms = 600000,
					.dirty_expire_ms = 600000,
					.nodelalloc = true };
	struct ext4_map m = { .lblk = 0, .len = 1000 };
	static char data[300000], back[300000];
	struct statvfs st;
	struct sl_file *f;
	u64 pos = 0;
	ssize_t n;

	begin("-b 1024 -m 0", "16M", &now);
	f = open_new("file");
	memset(data, 'd', sizeof(data));
	assert_int_equal(sl_write(f, data, sizeof(data), 100, 0, &root_cred), sizeof(data));
	assert_int_equal(counter_sum(EXT4_SB(sb)->reserved), 0);
	assert_int_equal(atomic_load(&sl_file_inode(f)->i_mapping.m_nr_delayed), 0);
	assert_int_equal(ext4_map_blocks(EXT4_I(sl_file_inode(f)), &m), 0);
	assert_int_equal(m.flags, EXT4_MAP_UNWRITTEN);
	assert_int_equal(m.len, 294);
	assert_int_equal(EXT4_I(sl_file_inode(f))->i_disksize, 0);
	assert_int_equal(sl_read(f, back, sizeof(back), 100), sizeof(back));
	assert_memory_equal(back, data, sizeof(data));
	assert_int_equal(sl_fsync(f, false), 0);
	m = (struct ext4_map){ .lblk = 0, .len = 1000 };
	assert_int_equal(ext4_map_blocks(EXT4_I(sl_file_inode(f)), &m), 0);
	assert_int_equal(m.flags, EXT4_MAP_MAPPED);
	sl_drop_caches(sb);
	assert_int_equal(sl_read(f, back, sizeof(back), 100), sizeof(back));
	assert_memory_equal(back, data, sizeof(data));
	/* An overwrite allocates nothing; a hole between is filled alone. */
	assert_int_equal(sl_write(f, data, 5000, 300000, 0, &root_cred), 5000);
	assert_int_equal(sl_write(f, data, 1024, 1 << 20, 0, &root_cred), 1024);
	m = (struct ext4_map){ .lblk = 298, .len = 1000 };
	assert_int_equal(ext4_map_blocks(EXT4_I(sl_file_inode(f)), &m), 0);
	assert_int_equal(m.flags, 0);
	/* To the end, but for what is kept for the tree (a fiftieth). */
	pos = 2 << 20;
	while ((n = sl_write(f, data, sizeof(data), pos, 0, &root_cred)) > 0)
		pos += (u64)n;
	assert_int_equal(n, -ENOSPC);
	assert_int_equal(sl_statfs(sb, &st), 0);
	assert_in_range(st.f_bfree, 0, st.f_blocks / 40);
	assert_int_equal(sl_fsync(f, false), 0);
	sl_release(f);
	end();
}

static u64 blocks_of(struct sl_file *f)
{
	struct stat st;

	sl_getattr(sl_file_inode(f), &st);
	return (u64)st.st_blocks;
}

static void test_delayed_blocks_count(void **state)
{
	char data[8192] = "";
	struct statvfs before, after;
	struct sl_file *f;

	begin("-b 1024", "16M", &opts);
	f = open_new("file");
	assert_int_equal(sl_statfs(sb, &before), 0);
	assert_int_equal(sl_write(f, data, 8192, 0, 0, &root_cred), 8192);
	assert_int_equal(blocks_of(f), 16);
	assert_int_equal(sl_statfs(sb, &after), 0);
	assert_int_equal(after.f_bfree, before.f_bfree - 8);
	assert_int_equal(counter_sum(EXT4_SB(sb)->reserved), 8);
	assert_int_equal(sl_fsync(f, false), 0);
	assert_int_equal(blocks_of(f), 16);
	assert_int_equal(counter_sum(EXT4_SB(sb)->reserved), 0);
	/* Dropped before it was written: the promise is given back. */
	assert_int_equal(sl_write(f, data, 4096, 8192, 0, &root_cred), 4096);
	assert_int_equal(counter_sum(EXT4_SB(sb)->reserved), 4);
	struct stat st = { .st_size = 0 };
	assert_int_equal(sl_setattr(sl_file_inode(f), &st, SL_SET_SIZE, &root_cred,
				    NULL), 0);
	assert_int_equal(counter_sum(EXT4_SB(sb)->reserved), 0);
	assert_int_equal(blocks_of(f), 0);
	assert_int_equal(sl_statfs(sb, &after), 0);
	assert_int_equal(after.f_bfree, before.f_bfree);
	sl_release(f);
	end();
}

/* Blocks beyond the end: kept, written into, zero elsewhere, gone by truncate. */
static void test_fallocate_beyond(void **state)
{
	char buf[8192];
	struct sl_file *f;
	struct stat st = { 0 };

	begin("-b 1024", "16M", &opts);
	f = open_new("file");
	assert_int_equal(sl_fallocate(f, FALLOC_FL_KEEP_SIZE, 0, 32768, &root_cred), 0);
	sl_getattr(sl_file_inode(f), &st);
	assert_int_equal(st.st_size, 0);
	assert_int_equal(st.st_blocks, 64);
	assert_int_equal(sl_read(f, buf, 8192, 0), 0);
	assert_int_equal(sl_lseek(f, 0, SEEK_DATA), -ENXIO);
	assert_int_equal(sl_write(f, "data", 4, 5000, 0, &root_cred), 4);
	assert_int_equal(blocks_of(f), 64);
	assert_int_equal(counter_sum(EXT4_SB(sb)->reserved), 0);
	assert_int_equal(sl_lseek(f, 0, SEEK_DATA), 4096);
	assert_int_equal(sl_lseek(f, 4096, SEEK_HOLE), 5004);
	assert_int_equal(sl_fsync(f, true), 0);
	sl_drop_caches(sb);
	assert_int_equal(sl_read(f, buf, 8192, 0), 5004);
	for (int i = 0; i < 5000; i++)
		assert_int_equal(buf[i], 0);
	assert_memory_equal(buf + 5000, "data", 4);
	/* At the same size: what lies beyond the end goes. */
	st.st_size = 5004;
	assert_int_equal(sl_setattr(sl_file_inode(f), &st, SL_SET_SIZE, &root_cred,
				    NULL), 0);
	assert_int_equal(blocks_of(f), 10);
	sl_release(f);
	end();
}

/* The reserve is the superuser's; ENOSPC comes with write(2), not later. */
static void test_full(void **state)
{
	static char data[65536];
	struct statvfs st;
	struct sl_file *f;
	u64 pos = 0;
	ssize_t n;

	begin("-b 1024 -m 10", "16M", &opts);
	f = open_new("file");
	/* Twice: beside the first round write-out claims blocks, and gives some back. */
	for (int i = 0; i < 2; i++) {
		while ((n = sl_write(f, data, sizeof(data), pos, 0, &user_cred)) > 0)
			pos += (u64)n;
		assert_int_equal(n, -ENOSPC);
		assert_int_equal(sl_fsync(f, false), 0);
	}
	assert_int_equal(sl_statfs(sb, &st), 0);
	assert_int_equal(st.f_bavail, 0);
	assert_true(st.f_bfree >= EXT4_SB(sb)->r_blocks);
	assert_int_equal(sl_fallocate(f, 0, pos, 1024, &user_cred), -ENOSPC);
	/* What is handed on by the superuser, for whoever has opened the file. */
	sl_file_set_opener(f, &user_cred);
	n = sl_write(f, data, sizeof(data), pos, SL_WRITE_DELAYED, &root_cred);
	assert_int_equal(n, -ENOSPC);
	n = sl_write(f, data, sizeof(data), pos, 0, &root_cred);
	assert_int_equal(n, sizeof(data));
	sl_file_set_opener(f, &root_cred);
	pos += (u64)n;
	n = sl_write(f, data, sizeof(data), pos, SL_WRITE_DELAYED, &user_cred);
	assert_int_equal(n, sizeof(data));
	assert_int_equal(sl_fsync(f, false), 0);
	assert_int_equal(counter_sum(EXT4_SB(sb)->reserved), 0);
	/* As root, to the very end: no promise is broken at write-out. */
	pos += (u64)n;
	while ((n = sl_write(f, data, sizeof(data), pos, 0, &root_cred)) > 0)
		pos += (u64)n;
	assert_int_equal(n, -ENOSPC);
	assert_int_equal(sl_fsync(f, false), 0);
	sl_release(f);
	end();
}

/* ---- many at once ---- */

#define THREADS 4
#define BYTES (48 * 1024)

struct racer {
	struct sl_file *f;
	unsigned seed;
	u32 id;
	bool bad;
};

/* Byte i of the file is thread i % THREADS's: all write into the same blocks,
 * which nobody has allocated yet, while the flusher is at it. */
static void write_mine(void *arg)
{
	struct racer *r = arg;

	for (u32 i = r->id; i < BYTES; i += THREADS) {
		u8 c = (u8)(i * 31 + 7);

		if (sl_write(r->f, &c, 1, i, 0, &root_cred) != 1)
			r->bad = true;
		if (i % 4096 == r->id) {
			u8 back;

			if (sl_read(r->f, &back, 1, i) != 1 || back != c)
				r->bad = true;
		}
	}
}

static void run_threads(struct racer *r, void (*fn)(void *))
{
	struct thread *t[THREADS];

	for (u32 i = 0; i < THREADS; i++)
		assert_int_equal(thread_create(&t[i], "racer", fn, &r[i]), 0);
	for (u32 i = 0; i < THREADS; i++)
		thread_join(t[i]);
}

static void test_same_blocks(void **state)
{
	struct racer r[THREADS];
	struct stat st = { .st_size = BYTES };
	u8 *buf = malloc(BYTES);

	begin("-b 1024", "16M", &busy_opts);
	fake_async(mv.fd, 1);
	r[0].f = open_new("file");
	/* Inside the size, so that the lock is shared. */
	assert_int_equal(sl_setattr(sl_file_inode(r[0].f), &st, SL_SET_SIZE, &root_cred,
				    NULL), 0);
	for (u32 i = 0; i < THREADS; i++)
		r[i] = (struct racer){ .f = r[0].f, .id = i };
	run_threads(r, write_mine);
	for (int pass = 0; pass < 2; pass++) {
		assert_int_equal(sl_read(r[0].f, buf, BYTES, 0), BYTES);
		for (u32 i = 0; i < BYTES; i++)
			assert_int_equal(buf[i], (u8)(i * 31 + 7));
		assert_int_equal(sl_fsync(r[0].f, false), 0);
		sl_drop_caches(sb);
	}
	for (u32 i = 0; i < THREADS; i++)
		assert_false(r[i].bad);
	free(buf);
	sl_release(r[0].f);
	end();
}

/* Writes, truncates, preallocates, whatever the results. */
static void disturb(void *arg)
{
	static const char data[20000];
	struct racer *r = arg;

	for (int i = 0; i < 300; i++) {
		u64 pos = (u64)rand_r(&r->seed) % 200000;
		size_t len = 1 + (size_t)rand_r(&r->seed) % sizeof(data);
		struct stat st = { .st_size = (off_t)pos };

		switch (rand_r(&r->seed) % 8) {
		case 0:
			(void)!sl_setattr(sl_file_inode(r->f), &st, SL_SET_SIZE,
					  &root_cred, NULL);
			break;
		case 1:
			(void)!sl_fallocate(r->f, i % 2, pos, len, &root_cred);
			break;
		case 2:
			(void)!sl_fsync(r->f, i % 2);
			break;
		default:
			(void)!sl_write(r->f, data, len, pos, 0, &root_cred);
		}
	}
}

/*
 * The device goes bad in the middle, once in between and then for good. What
 * was promised to delayed data comes back to the last block, and the next
 * mount recovers.
 */
static void test_reservations_survive_failures(void **state)
{
	for (int round = 0; round < 6; round++) {
		struct racer r[THREADS];

		begin("-b 1024", "16M", &busy_opts);
		for (u32 i = 0; i < THREADS; i++) {
			char name[8];

			snprintf(name, sizeof(name), "f%u", i / 2);
			r[i] = (struct racer){ .id = i, .seed = i + 100u * (u32)round };
			if (i % 2)
				assert_int_equal(sl_open(sl_file_inode(r[i - 1].f),
							 SL_OPEN_WRITE, &r[i].f), 0);
			else
				r[i].f = open_new(name);
		}
		mv.fd->fail_once = round % 2;
		memvol_fail_writes(&mv, 5 + round * 9);
		run_threads(r, disturb);
		(void)!sl_sync(sb);
		(void)flusher_sync_all(EXT4_SB(sb)->flusher);
		for (u32 i = 0; i < THREADS; i++)
			(void)flusher_sync_all(EXT4_SB(sb)->flusher);
		assert_int_equal(counter_sum(EXT4_SB(sb)->reserved), 0);
		for (u32 i = 0; i < THREADS; i++)
			sl_release(r[i].f);
		memvol_fail_writes(&mv, -1);
		(void)sl_unmount(sb);
		assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
		assert_int_equal(sl_unmount(sb), 0);
		/* Orphans of an aborted mount are e2fsck's. */
		memvol_store(&mv);
		assert_in_range(WEXITSTATUS(volume_run("e2fsck -fy %s >/dev/null 2>&1",
						       mv.v.image)), 0, 1);
		assert_int_equal(volume_fsck(&mv.v), 0);
		memvol_free(&mv);
	}
}

/* The kernel forgets a removed file once somebody waits for its space. */
struct forgetter {
	u64 ino;
	_Atomic bool waited;
};

static void somebody_waits(void *priv)
{
	struct forgetter *fg = priv;

	atomic_store(&fg->waited, true);
	wake_up(&fg->waited);
}

static void nothing(void *priv)
{
}

static void forget(void *arg)
{
	struct forgetter *fg = arg;

	wait_event(&fg->waited, atomic_load(&fg->waited));
	sl_forget(sb, fg->ino, 1);
}

/* fallocate of most of the volume, right after a file as large was removed. */
static int allocate_after_unlink(void)
{
	struct sl_file *old = open_new("old"), *new = open_new("new");
	struct forgetter fg = { .ino = sl_ino(sl_file_inode(old)) };
	const struct thread_block_hook hook = { somebody_waits, nothing, &fg };
	struct inode *root;
	struct thread *t;
	int err;

	assert_int_equal(sl_fallocate(old, 0, 0, 10 << 20, &root_cred), 0);
	sl_lookup_inc(sl_file_inode(old));
	sl_release(old);
	assert_int_equal(sl_iget(sb, 2, &root), 0);
	assert_int_equal(sl_unlink(root, "old", 3), 0);
	assert_int_equal(thread_create(&t, "forget", forget, &fg), 0);
	thread_set_block_hook(&hook);
	err = sl_fallocate(new, 0, 0, 10 << 20, &root_cred);
	thread_set_block_hook(NULL);
	somebody_waits(&fg);
	thread_join(t);
	sl_release(new);
	assert_int_equal(sl_unlink(root, "new", 3), 0);
	sl_iput(root);
	return err;
}

/* The space of a removed file is there for who comes next. A try may fail, if
 * the thread that forgets does not run for long. */
static void test_space_of_removed_file(void **state)
{
	int tries = 0;

	begin("-b 1024", "16M", &opts);
	while (allocate_after_unlink())
		assert_true(++tries < 100);
	end();
}

static void forget_now(void *arg)
{
	struct forgetter *fg = arg;

	sl_forget(sb, fg->ino, 1);
}

static void let_go(void *arg)
{
	struct forgetter *fg = arg;

	wait_event(&fg->waited, atomic_load(&fg->waited));
	fake_let_go(mv.fd);
}

/* A removed file whose data is being written: that is a part of its deletion, which
 * who finds no space waits for, however long ago it was removed. */
static void test_space_of_file_in_write_out(void **state)
{
	struct wb_control wbc = { .start = 0, .end = EXT4_LBLK_END };
	static char data[1 << 20];
	struct forgetter fg = { 0 };
	const struct thread_block_hook hook = { somebody_waits, nothing, &fg };
	struct thread *forgets, *lets_go;
	struct ext4_sb *sbi;
	struct inode *root;
	struct sl_file *f;

	begin("-b 4096", "64M", &opts);
	sbi = EXT4_SB(sb);
	f = open_new("file");
	fg.ino = sl_ino(sl_file_inode(f));
	assert_int_equal(sl_fallocate(f, 0, 0, sizeof(data), &root_cred), 0);
	assert_int_equal(sl_fsync(f, false), 0);
	hold_file(f, sizeof(data));
	assert_int_equal(sl_write(f, data, sizeof(data), 0, 0, &root_cred), sizeof(data));
	assert_int_equal(ext4_write_inode(sl_file_inode(f), &wbc), 0);
	assert_true(mv.fd->nr_held > 0);
	sl_lookup_inc(sl_file_inode(f));
	sl_release(f);
	assert_int_equal(sl_iget(sb, 2, &root), 0);
	assert_int_equal(sl_unlink(root, "file", 4), 0);
	sl_iput(root);
	assert_int_equal(thread_create(&forgets, "forget", forget_now, &fg), 0);
	assert_int_equal(thread_create(&lets_go, "let go", let_go, &fg), 0);
	for (int i = 0; i < 60000 && !atomic_load(&sbi->nr_deleting); i++)
		usleep(1000);
	assert_int_equal(atomic_load(&sbi->nr_deleting), 1);
	assert_int_equal(atomic_load(&sbi->nr_dying), 1);
	atomic_store(&sbi->noted_at, 1);
	thread_set_block_hook(&hook);
	(void)ext4_wait_deletions(sbi); /* until it is gone, or for long enough */
	thread_set_block_hook(NULL);
	assert_true(atomic_load(&fg.waited));
	thread_join(forgets);
	thread_join(lets_go);
	assert_int_equal(atomic_load(&sbi->nr_deleting), 0);
	assert_int_equal(atomic_load(&sbi->nr_dying), 0);
	end();
}

static void count(void *priv)
{
	++*(u32 *)priv;
}

/* A removed file that somebody keeps: who finds no space waits for it at first, not
 * every time. One that went while he was looking is worth another look, once. */
static void test_kept_and_gone(void **state)
{
	struct sl_file *f;
	struct inode *root;
	struct ext4_sb *sbi;
	u32 waits = 0;
	const struct thread_block_hook hook = { count, nothing, &waits };
	int tries, n = 0;
	ino_nr ino;

	begin("-b 1024", "16M", &opts);
	sbi = EXT4_SB(sb);
	f = open_new("kept");
	ino = (ino_nr)sl_ino(sl_file_inode(f));
	sl_lookup_inc(sl_file_inode(f));
	sl_release(f);
	assert_int_equal(sl_iget(sb, 2, &root), 0);
	assert_int_equal(sl_unlink(root, "kept", 4), 0);
	sl_iput(root);
	assert_int_equal(atomic_load(&sbi->nr_dying), 1);
	thread_set_block_hook(&hook);
	for (; !waits && n < 10; n++) { /* a second may pass in between, once */
		atomic_store(&sbi->noted_at, clock_mono_ns());
		assert_false(ext4_wait_deletions(sbi));
	}
	assert_int_equal(waits, 1);
	atomic_store(&sbi->noted_at, 1);
	assert_false(ext4_wait_deletions(sbi));
	tries = 0;
	assert_false(ext4_should_retry(sbi, -ENOSPC, &tries));
	assert_int_equal(waits, 1);
	thread_set_block_hook(NULL);

	sl_forget(sb, ino, 1);
	assert_int_equal(atomic_load(&sbi->nr_dying), 0);
	for (n = 0, tries = 0; n < 10 && tries != 1; n++) {
		tries = 0;
		atomic_store(&sbi->dead_at, clock_mono_ns());
		if (!ext4_should_retry(sbi, -ENOSPC, &tries))
			tries = 0;
	}
	assert_int_equal(tries, 1);
	assert_false(ext4_should_retry(sbi, -ENOSPC, &tries));
	end();
}

/* Without a log, too, data is durable before anything refers to its blocks. */
static void test_data_before_its_place(void **state)
{
	const struct sl_options no_journal = { .cache_bytes = 16 << 20,
					       .no_journal = true,
					       .commit_ms = 600000,
					       .dirty_expire_ms = 600000 };
	enum { LEN = 64 << 10 };
	u8 *buf = malloc(LEN);
	bool data = false, flushed = false;
	struct sl_file *f;
	u32 after = 0;

	begin("-b 4096 -O ^has_journal", "32M", &no_journal);
	f = open_new("f");
	assert_int_equal(sl_sync(sb), 0);
	memset(buf, 0xA5, LEN);
	assert_int_equal(sl_write(f, buf, LEN, 0, 0, &root_cred), LEN);
	mv.fd->record = true;
	assert_int_equal(sl_fsync(f, false), 0);
	for (unsigned i = 0; i < mv.fd->nr; i++) {
		const struct fake_rec *r = &mv.fd->recs[i];

		if (r->kind == FAKE_FLUSH) {
			flushed = data;
		} else if (r->len && !memcmp(r->data, buf, min_of(r->len, 4096u))) {
			assert_false(flushed);
			data = true;
		} else if (data) {
			assert_true(flushed);
			after++;
		}
	}
	assert_true(after > 0);
	free(buf);
	sl_release(f);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_known_extents),
		cmocka_unit_test(test_datacache_full),
		cmocka_unit_test(test_writes_without_copies),
		cmocka_unit_test(test_errors_once),
		cmocka_unit_test(test_errors_find_their_range),
		cmocka_unit_test(test_errors_outlive_reclaim),
		cmocka_unit_test(test_fsync_waits_for_its_file_alone),
		cmocka_unit_test(test_stream_is_written_behind),
		cmocka_unit_test(test_lower_limit_is_for_dirty_data),
		cmocka_unit_test(test_random_overwrites_are_written_behind),
		cmocka_unit_test(test_nodelalloc),
		cmocka_unit_test(test_delayed_blocks_count),
		cmocka_unit_test(test_fallocate_beyond),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_space_of_removed_file),
		cmocka_unit_test(test_space_of_file_in_write_out),
		cmocka_unit_test(test_kept_and_gone),
		cmocka_unit_test(test_same_blocks),
		cmocka_unit_test(test_reservations_survive_failures),
		cmocka_unit_test(test_data_before_its_place),
	};

	return cmocka_run_group_tests(tests, unit_setup, NULL);
}
