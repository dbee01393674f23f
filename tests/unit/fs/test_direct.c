/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_direct.c - large direct writes: over holes, preallocated,
 * cached and written blocks; beside cached writes; at the end of the space
 *
 * The model is the content as an array of bytes.
 */
#include "tests/unit/unit.h"
#include "tests/unit/fs/memvol.h"

#include "fs/ext4.h"
#include "lib/thread.h"

#include <linux/falloc.h>
#include <sched.h>
#include <stdatomic.h>

#define MAX (2u << 20)
#define BLK 4096u

static const struct sl_cred root_cred = { 0, 0, 022 };
static const struct sl_options opts = { .cache_bytes = 16 << 20,
					.commit_ms = 600000,
					.dirty_expire_ms = 600000 };
static const struct sl_options busy_opts = { .cache_bytes = 16 << 20,
					     .commit_ms = 20,
					     .dirty_expire_ms = 5 };
static struct memvol mv;
static struct super_block *sb;
static u8 *buf, *model; /* MAX, aligned */
static u64 size;
static unsigned seed;

static u32 below(u32 n)
{
	return (u32)rand_r(&seed) % n;
}

static struct sl_file *open_file(bool create)
{
	struct inode *root, *inode;
	struct sl_file *f;

	assert_int_equal(sl_iget(sb, 2, &root), 0);
	if (create)
		assert_int_equal(sl_mknod(root, "f", 1, S_IFREG | 0644, 0,
					  &root_cred, &inode), 0);
	else
		assert_int_equal(sl_lookup(root, "f", 1, &inode), 0);
	assert_int_equal(sl_open(inode, SL_OPEN_WRITE, &f), 0);
	sl_iput(inode);
	sl_iput(root);
	return f;
}

static struct sl_file *begin(const char *mkfs, const char *bytes,
			     const struct sl_options *o)
{
	memvol_make(&mv, mkfs, bytes);
	assert_int_equal(memvol_mount(&mv, o, &sb), 0);
	buf = io_alloc(MAX);
	model = io_alloc(MAX);
	memset(model, 0, MAX);
	size = 0;
	return open_file(true);
}

static void end(struct sl_file *f)
{
	sl_release(f);
	assert_int_equal(sl_sync(sb), 0);
	assert_int_equal(counter_sum(EXT4_SB(sb)->reserved), 0);
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(memvol_fsck(&mv), 0);
	memvol_free(&mv);
	io_free(buf);
	io_free(model);
}

static u64 data_written(void)
{
	struct bdev_stats st;

	bdev_get_stats(EXT4_SB(sb)->bdev, &st);
	return st.dir[BIO_WRITE].bytes - st.dir[BIO_WRITE].meta_bytes;
}

static void write_model(struct sl_file *f, u64 pos, u32 len, u32 flags)
{
	for (u32 i = 0; i < len; i++)
		model[pos + i] = (u8)rand_r(&seed);
	memcpy(buf, model + pos, len);
	assert_int_equal(sl_write(f, buf, len, pos, flags, &root_cred), len);
	size = max_of(size, pos + len);
}

static void check_all(struct sl_file *f)
{
	struct stat st;

	sl_getattr(sl_file_inode(f), &st);
	assert_int_equal(st.st_size, size);
	assert_int_equal(sl_read(f, buf, MAX, 0), size);
	assert_memory_equal(buf, model, size);
}

static struct sl_file *remount(struct sl_file *f)
{
	sl_release(f);
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	return open_file(false);
}

static void test_goes_past_the_cache(void **state)
{
	struct sl_file *f = begin("-b 4096", "32M", &opts);
	struct mapping *m = &sl_file_inode(f)->i_mapping;
	u64 before = data_written();

	write_model(f, 0, 1u << 20, SL_WRITE_DIRECT); /* new */
	assert_int_equal(data_written() - before, 1u << 20);
	assert_int_equal(atomic_load(&m->m_nr_folio_blocks), 0);
	write_model(f, 64 * BLK, 1u << 19, SL_WRITE_DIRECT); /* over it */
	assert_int_equal(data_written() - before, 3u << 19);
	assert_int_equal(atomic_load(&m->m_nr_folio_blocks), 0);
	/* Too small, or no place of a block: as all others. */
	write_model(f, 0, 32768, SL_WRITE_DIRECT);
	write_model(f, 100, 1u << 18, SL_WRITE_DIRECT);
	assert_int_equal(data_written() - before, 3u << 19);
	assert_true(atomic_load(&m->m_nr_dirty) > 0);
	check_all(f);
	/* The tail of a block after whole ones. */
	write_model(f, 1u << 20, (1u << 18) + 10, SL_WRITE_DIRECT);
	check_all(f);
	f = remount(f);
	check_all(f);
	end(f);
}

/* Whatever was there before, in the cache or below. */
static void run_model(u32 bs, unsigned s)
{
	char mkfs[32];
	struct sl_file *f;

	seed = s;
	snprintf(mkfs, sizeof(mkfs), "-b %u", bs);
	f = begin(mkfs, "32M", &opts);
	for (u32 i = 0; i < 120; i++) {
		u32 len = bs * (1 + below((1u << 19) / bs));
		u64 pos = (u64)bs * below((MAX - len) / bs + 1);
		struct stat st;

		switch (below(8)) {
		case 0: /* cached */
			write_model(f, pos + below(10), len - 10, 0);
			break;
		case 1:
			assert_int_equal(sl_fallocate(f, below(2) ? 0 : FALLOC_FL_KEEP_SIZE,
						      pos, len, &root_cred), 0);
			sl_getattr(sl_file_inode(f), &st);
			size = (u64)st.st_size;
			break;
		case 2:
			size = below(4) ? pos + below(bs) : size;
			st.st_size = (off_t)size;
			assert_int_equal(sl_setattr(sl_file_inode(f), &st, SL_SET_SIZE,
						    &root_cred, NULL), 0);
			memset(model + size, 0, MAX - size);
			break;
		case 3:
			assert_int_equal(sl_fsync(f, below(2)), 0);
			break;
		default:
			write_model(f, pos, len, SL_WRITE_DIRECT);
		}
		if (!below(8))
			check_all(f);
	}
	check_all(f);
	f = remount(f);
	check_all(f);
	end(f);
}

static void test_model(void **state)
{
	for (unsigned s = 1; s <= 4; s++) {
		run_model(1024, s);
		run_model(4096, s);
	}
}

/* What was synced outlives a power cut; what was not is old, or zero. */
static void test_power_cut(void **state)
{
	struct sl_file *f = begin("-b 4096", "32M", &opts);
	u8 *image;

	write_model(f, 0, 1u << 20, SL_WRITE_DIRECT);
	assert_int_equal(sl_fsync(f, true), 0);
	memset(buf, 0xee, 1u << 19);
	assert_int_equal(sl_write(f, buf, 1u << 19, 1u << 20, SL_WRITE_DIRECT,
				  &root_cred), 1u << 19);
	image = malloc(mv.size);
	memvol_snapshot(&mv, image);
	sl_release(f);
	assert_int_equal(sl_unmount(sb), 0);
	memcpy(mv.content, image, mv.size);
	free(image);
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	f = open_file(false);
	check_all(f);
	end(f);
}

static void test_failing_device_is_told(void **state)
{
	struct sl_file *f = begin("-b 4096", "32M", &opts);

	write_model(f, 0, 1u << 19, SL_WRITE_DIRECT);
	assert_int_equal(sl_sync(sb), 0);
	mv.fd->fail_once = true;
	memvol_fail_writes(&mv, 0);
	memset(buf, 1, 1u << 19);
	assert_int_equal(sl_write(f, buf, 1u << 19, 1u << 19, SL_WRITE_DIRECT,
				  &root_cred), -EIO);
	/* Nothing of it counts. */
	check_all(f);
	write_model(f, 1u << 19, 1u << 19, SL_WRITE_DIRECT);
	check_all(f);
	end(f);
}

static void test_full_volume(void **state)
{
	struct sl_file *f = begin("-b 4096", "16M", &opts);
	u64 pos = 0;
	ssize_t n;

	memset(buf, 7, 1u << 20);
	do {
		n = sl_write(f, buf, 1u << 20, pos, SL_WRITE_DIRECT, &root_cred);
		pos += n > 0 ? (u64)n : 0;
	} while (n > 0);
	assert_int_equal(n, -ENOSPC);
	assert_true(pos > 8u << 20);
	/* Over what is there it goes on. */
	assert_int_equal(sl_write(f, buf, 1u << 20, 0, SL_WRITE_DIRECT, &root_cred),
			 1u << 20);
	end(f);
}

#define RACE_BYTES (1u << 19)

struct racer {
	struct thread *t;
	struct sl_file *f;
	u8 value;
	u32 flags;
};

static void race(void *arg)
{
	struct racer *r = arg;
	u8 *mem = io_alloc(RACE_BYTES);
	unsigned s = r->value;

	for (u32 i = 0; i < 60; i++) {
		u32 len = BLK * (16 + (u32)rand_r(&s) % 100);
		u64 pos = BLK * ((u32)rand_r(&s) % ((RACE_BYTES - len) / BLK));

		if (r->value < 3) {
			memset(mem, r->value, len);
			assert_int_equal(sl_write(r->f, mem, len, pos, r->flags,
						  &root_cred), len);
		} else {
			assert_int_equal(sl_read(r->f, mem, len, pos), len);
			for (u32 k = 0; k < len; k++)
				assert_true(mem[k] >= 1 && mem[k] <= 3);
		}
	}
	io_free(mem);
}

/* Cached and direct writes over each other: what reads see is what is on disk. */
static void test_cached_and_direct_agree(void **state)
{
	struct sl_file *f = begin("-b 4096", "32M", &busy_opts);
	struct racer r[4];

	memset(buf, 3, RACE_BYTES);
	assert_int_equal(sl_write(f, buf, RACE_BYTES, 0, 0, &root_cred), RACE_BYTES);
	for (u8 i = 0; i < 4; i++) {
		r[i] = (struct racer){ .f = f, .value = (u8)(i + 1),
				       .flags = i == 1 ? SL_WRITE_DIRECT : 0 };
		assert_int_equal(thread_create(&r[i].t, "race", race, &r[i]), 0);
	}
	for (u32 i = 0; i < 4; i++)
		thread_join(r[i].t);
	assert_int_equal(sl_read(f, model, RACE_BYTES, 0), RACE_BYTES);
	size = RACE_BYTES;
	f = remount(f);
	check_all(f);
	end(f);
}

#define PART (64u << 10)

struct direct_writer {
	struct thread *t;
	struct sl_file *f;
	u64 pos;
	u32 len;
	ssize_t result;
};

static void write_direct(void *arg)
{
	struct direct_writer *w = arg;
	u8 *mem = io_alloc(w->len);

	memset(mem, 0xdd, w->len);
	w->result = sl_write(w->f, mem, w->len, w->pos, SL_WRITE_DIRECT, &root_cred);
	io_free(mem);
}

/* Writes to the one extent of [pos, pos+len) are held back from now on. */
static void hold(struct sl_file *f, u64 pos, u32 len)
{
	struct ext4_map m = { .lblk = (lblk_t)(pos / BLK), .len = len / BLK };

	assert_int_equal(ext4_map_blocks(EXT4_I(sl_file_inode(f)), &m), 0);
	assert_true(m.flags != 0);
	assert_int_equal(m.len, len / BLK);
	pthread_mutex_lock(&mv.fd->lock);
	mv.fd->hold_pos = m.pblk * BLK;
	mv.fd->hold_len = len;
	pthread_mutex_unlock(&mv.fd->lock);
}

static void wait_held(u32 nr)
{
	bool held = false;

	while (!held) {
		pthread_mutex_lock(&mv.fd->lock);
		held = mv.fd->nr_held == nr;
		pthread_mutex_unlock(&mv.fd->lock);
		if (!held)
			sched_yield();
	}
}

/* The first bio that is held back, no longer held. */
static struct bio *held_bio(void)
{
	struct bio *bio;

	wait_held(1);
	pthread_mutex_lock(&mv.fd->lock);
	bio = mv.fd->held[0];
	mv.fd->nr_held = 0;
	pthread_mutex_unlock(&mv.fd->lock);
	return bio;
}

/*
 * A direct write that finds no space for its beginning leaves the rest alone,
 * also what is written there while it waits for what was in the cache.
 */
static void test_refused_write_loses_nothing(void **state)
{
	struct sl_file *f = begin("-b 4096", "16M", &opts);
	struct direct_writer w = { .f = f, .len = 2 * PART };
	u64 pos = 2 * PART;
	struct bio *bio;
	u32 piece;

	memset(buf, 7, 1u << 20);
	assert_int_equal(sl_write(f, buf, PART, PART, 0, &root_cred), PART);
	for (piece = 1u << 20; piece >= BLK; piece /= 4) {
		ssize_t n;

		do {
			n = sl_write(f, buf, piece, pos, 0, &root_cred);
			pos += n > 0 ? (u64)n : 0;
		} while (n > 0);
		assert_int_equal(n, -ENOSPC);
		assert_int_equal(sl_sync(sb), 0);
	}
	assert_int_equal(sl_write(f, buf, BLK, PART, 0, &root_cred), BLK);
	hold(f, PART, PART);
	assert_int_equal(thread_create(&w.t, "direct", write_direct, &w), 0);
	bio = held_bio();
	bio->bi_error = fake_one(mv.fd, bio);
	memset(buf, 8, BLK);
	assert_int_equal(sl_write(f, buf, BLK, PART, 0, &root_cred), BLK);
	fake_let_go(mv.fd);
	bio->bi_end_io(bio);
	thread_join(w.t);
	assert_int_equal(w.result, -ENOSPC);
	memset(buf, 0, BLK);
	assert_int_equal(sl_read(f, buf, BLK, PART), BLK);
	assert_int_equal(buf[0], 8);
	end(f);
}

/* Who converts a neighbour of blocks that a direct write is at can see it. */
static void test_blocks_on_their_way_are_known(void **state)
{
	struct sl_file *f = begin("-b 4096", "32M", &opts);
	struct direct_writer w = { .f = f, .len = 2 * PART };
	struct ext4_inode *ei = EXT4_I(sl_file_inode(f));
	struct bio *bio;

	assert_int_equal(sl_fallocate(f, 0, 0, 4 * PART, &root_cred), 0);
	hold(f, 0, 4 * PART);
	assert_int_equal(thread_create(&w.t, "direct", write_direct, &w), 0);
	bio = held_bio();
	assert_int_equal(atomic_load(&ei->i_direct), 2 * PART / BLK);
	fake_end(mv.fd, bio);
	thread_join(w.t);
	fake_let_go(mv.fd);
	assert_int_equal(w.result, 2 * PART);
	assert_int_equal(atomic_load(&ei->i_direct), 0);
	end(f);
}

struct syncer {
	struct thread *t;
	struct sl_file *f;
	int result;
};

static void sync_file(void *arg)
{
	struct syncer *s = arg;

	s->result = sl_fsync(s->f, false);
}

/*
 * A direct overwrite of written blocks, and a block of it that is written to the
 * cache and written out while the transfer is held back. cached_first: which of the
 * two the device carries out first. What is read then is what the device has.
 */
static void overtaken(bool cached_first)
{
	struct sl_file *f = begin("-b 4096", "32M", &opts);
	struct direct_writer w = { .f = f, .len = 2 * PART };
	struct syncer s = { .f = f };
	struct bio *direct, *cached;

	memset(buf, 1, 2 * PART);
	assert_int_equal(sl_write(f, buf, 2 * PART, 0, 0, &root_cred), 2 * PART);
	assert_int_equal(sl_fsync(f, false), 0);
	hold(f, 0, 2 * PART);
	assert_int_equal(thread_create(&w.t, "direct", write_direct, &w), 0);
	direct = held_bio();
	memset(buf, 8, BLK);
	assert_int_equal(sl_write(f, buf, BLK, PART, 0, &root_cred), BLK);
	assert_int_equal(thread_create(&s.t, "sync", sync_file, &s), 0);
	cached = held_bio();
	if (cached_first) {
		fake_end(mv.fd, cached);
		thread_join(s.t);
		fake_end(mv.fd, direct);
		thread_join(w.t);
	} else {
		fake_end(mv.fd, direct);
		fake_end(mv.fd, cached);
		thread_join(w.t);
		thread_join(s.t);
	}
	fake_let_go(mv.fd);
	assert_int_equal(w.result, 2 * PART);
	assert_int_equal(s.result, 0);
	size = 2 * PART;
	memset(model, 0xdd, size);
	if (!cached_first)
		memset(model + PART, 8, BLK);
	check_all(f);
	f = remount(f);
	check_all(f);
	end(f);
}

static void test_written_out_meanwhile(void **state)
{
	overtaken(true);
	overtaken(false);
}

/* What is dirty when the transfer ends is newer, and stays. */
static void test_dirty_meanwhile(void **state)
{
	struct sl_file *f = begin("-b 4096", "32M", &opts);
	struct direct_writer w = { .f = f, .len = 2 * PART };
	struct bio *direct;

	memset(buf, 1, 2 * PART);
	assert_int_equal(sl_write(f, buf, 2 * PART, 0, 0, &root_cred), 2 * PART);
	assert_int_equal(sl_fsync(f, false), 0);
	hold(f, 0, 2 * PART);
	assert_int_equal(thread_create(&w.t, "direct", write_direct, &w), 0);
	direct = held_bio();
	memset(buf, 8, BLK);
	assert_int_equal(sl_write(f, buf, BLK, PART, 0, &root_cred), BLK);
	fake_let_go(mv.fd);
	fake_end(mv.fd, direct);
	thread_join(w.t);
	assert_int_equal(w.result, 2 * PART);
	size = 2 * PART;
	memset(model, 0xdd, size);
	memset(model + PART, 8, BLK);
	check_all(f);
	f = remount(f);
	check_all(f);
	end(f);
}

#define BIG (1u << 20)

static struct inode *written_file(const char *name, u8 byte)
{
	struct inode *root, *inode;
	struct sl_file *f;

	assert_int_equal(sl_iget(sb, 2, &root), 0);
	if (sl_lookup(root, name, 1, &inode))
		assert_int_equal(sl_mknod(root, name, 1, S_IFREG | 0644, 0, &root_cred,
					  &inode), 0);
	sl_iput(root);
	assert_int_equal(sl_open(inode, SL_OPEN_WRITE, &f), 0);
	memset(buf, byte, BIG);
	assert_int_equal(sl_write(f, buf, BIG, 0, 0, &root_cred), BIG);
	assert_int_equal(sl_fsync(f, false), 0);
	sl_release(f);
	return inode;
}

/* In requests so small that what follows them is read ahead. */
static void read_small(struct inode *inode, u32 len)
{
	struct sl_file *f;
	u8 block[BLK];

	assert_int_equal(sl_open(inode, 0, &f), 0);
	for (u32 pos = 0; pos < len; pos += BLK)
		assert_int_equal(sl_read(f, block, BLK, pos), BLK);
	sl_release(f);
}

/*
 * What a reader wants ahead would be, of the blocks of an overwrite that is held back,
 * older than that. The thread that reads ahead has been through with it when it has
 * brought in something of another file.
 */
static void test_read_ahead_meanwhile(void **state)
{
	struct sl_file *f = begin("-b 4096", "32M", &opts);
	struct direct_writer w = { .f = f, .len = 2 * PART, .pos = BIG - 4 * PART };
	struct inode *inode = written_file("f", 1), *other = written_file("g", 2);
	struct bio *direct;

	sl_drop_caches(sb);
	hold(f, w.pos, w.len);
	assert_int_equal(thread_create(&w.t, "direct", write_direct, &w), 0);
	direct = held_bio();
	read_small(inode, BIG - 6 * PART);
	while (!atomic_load(&other->i_mapping.m_nr_folio_blocks))
		read_small(other, BIG / 2);
	fake_let_go(mv.fd);
	fake_end(mv.fd, direct);
	thread_join(w.t);
	assert_int_equal(w.result, w.len);
	size = BIG;
	memset(model, 1, size);
	memset(model + w.pos, 0xdd, w.len);
	check_all(f);
	/* Nor is anything overwritten beside what is being read ahead. */
	atomic_store(&EXT4_I(inode)->i_overwrites, -1);
	assert_int_equal(thread_create(&w.t, "direct", write_direct, &w), 0);
	thread_join(w.t);
	assert_int_equal(w.result, w.len);
	assert_int_equal(atomic_load(&EXT4_I(inode)->i_overwrites), -1);
	atomic_store(&EXT4_I(inode)->i_overwrites, 0);
	sl_iput(other);
	sl_iput(inode);
	f = remount(f);
	check_all(f);
	end(f);
}

/* Two parts of one large write, as the kernel sends them, at the same time. */
static void test_two_at_a_time(void **state)
{
	struct sl_file *f = begin("-b 4096", "32M", &opts);
	struct direct_writer w[2] = {
		{ .f = f, .len = PART, .pos = 0 },
		{ .f = f, .len = PART, .pos = PART },
	};

	memset(buf, 1, 2 * PART);
	assert_int_equal(sl_write(f, buf, 2 * PART, 0, 0, &root_cred), 2 * PART);
	assert_int_equal(sl_fsync(f, false), 0);
	hold(f, 0, 2 * PART);
	for (u32 i = 0; i < 2; i++)
		assert_int_equal(thread_create(&w[i].t, "direct", write_direct,
					       &w[i]), 0);
	wait_held(2); /* both are on their way */
	fake_let_go(mv.fd);
	for (u32 i = 0; i < 2; i++) {
		thread_join(w[i].t);
		assert_int_equal(w[i].result, PART);
	}
	size = 2 * PART;
	memset(model, 0xdd, size);
	check_all(f);
	end(f);
}

/* Its beginning is written, the rest is not, or lies behind the end. */
static void test_overwrite_that_goes_on(void **state)
{
	struct sl_file *f = begin("-b 4096", "32M", &opts);
	struct direct_writer w = { .f = f, .len = 4 * PART };

	memset(buf, 1, PART);
	assert_int_equal(sl_write(f, buf, PART, 0, 0, &root_cred), PART);
	assert_int_equal(sl_fsync(f, false), 0);
	assert_int_equal(sl_fallocate(f, 0, 2 * PART, PART, &root_cred), 0);
	size = 4 * PART;
	memset(buf, 2, BLK);
	assert_int_equal(sl_write(f, buf, BLK, size - BLK, 0, &root_cred), BLK);
	assert_int_equal(sl_fsync(f, false), 0);
	assert_int_equal(thread_create(&w.t, "direct", write_direct, &w), 0);
	thread_join(w.t);
	assert_int_equal(w.result, 4 * PART);
	memset(model, 0xdd, size);
	check_all(f);
	f = remount(f);
	check_all(f);
	end(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_goes_past_the_cache),
		cmocka_unit_test(test_model),
		cmocka_unit_test(test_power_cut),
		cmocka_unit_test(test_failing_device_is_told),
		cmocka_unit_test(test_full_volume),
		cmocka_unit_test(test_cached_and_direct_agree),
		cmocka_unit_test(test_refused_write_loses_nothing),
		cmocka_unit_test(test_blocks_on_their_way_are_known),
		cmocka_unit_test(test_written_out_meanwhile),
		cmocka_unit_test(test_dirty_meanwhile),
		cmocka_unit_test(test_read_ahead_meanwhile),
		cmocka_unit_test(test_two_at_a_time),
		cmocka_unit_test(test_overwrite_that_goes_on),
	};

	return cmocka_run_group_tests(tests, unit_setup, NULL);
}
