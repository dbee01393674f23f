/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_balloc.c - groups, system zones and block allocation
 *
 * Volumes of many feature sets; e2fsck judges bitmaps, counters and checksums
 * after everything allocated has been freed.
 */
#include "tests/unit/fs/alloc_test.h"

#include <sys/stat.h>
#include <time.h>

#include "lib/bitmap.h"

#define THREADS 4
#define HELD 64
#define OWNED UINT32_MAX

/* ---- many threads ---- */

struct owned {
	pblk_t blk;
	u32 len;
};

struct churn {
	struct at *t;
	_Atomic u32 *owner; /* per block: OWNED, else transaction that freed it */
	unsigned seed;
	int rounds;
	bool failed;
};

#define CHURN_CHECK(c, cond)                                                   \
	do {                                                                   \
		if (!(cond)) {                                                 \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__,     \
				#cond);                                        \
			(c)->failed = true;                                    \
		}                                                              \
	} while (0)

static void churn_alloc(struct churn *c, struct owned *o)
{
	struct ext4_sb *sbi = c->t->sbi;
	unsigned r = (unsigned)rand_r(&c->seed);
	u32 len = r % 16 == 0 ? 2500 : 1 + r % 60;
	u32 asked = len;
	pblk_t goal = r & 0x100 ? (pblk_t)rand_r(&c->seed) % sbi->blocks_count : 0;
	struct handle *h;
	jtid_t tid;
	int err;

	CHURN_CHECK(c, !journal_start(sbi->journal, EXT4_ALLOC_CREDITS, 0, &h));
	tid = handle_tid(h);
	err = ext4_alloc_blocks(h, sbi, r >> 9, goal, EXT4_ALLOC_ROOT, &len,
				&o->blk);
	CHURN_CHECK(c, !handle_stop(h));
	if (err == -EAGAIN) {
		CHURN_CHECK(c, !journal_force_commit(sbi->journal));
		return;
	}
	if (err) {
		CHURN_CHECK(c, err == -ENOSPC);
		return;
	}
	CHURN_CHECK(c, len >= 1 && len <= asked);
	CHURN_CHECK(c, ext4_block_range_ok(sbi, o->blk, len));
	for (u32 i = 0; i < len; i++) {
		u32 was = atomic_exchange(&c->owner[o->blk + i], OWNED);

		CHURN_CHECK(c, was != OWNED);
		CHURN_CHECK(c, was != tid); /* freed, and not committed */
	}
	o->len = len;
}

static void churn_free(struct churn *c, struct owned *o)
{
	struct ext4_sb *sbi = c->t->sbi;
	struct handle *h;

	/* An extent may touch several groups, but not by our allocations. */
	CHURN_CHECK(c, !journal_start(sbi->journal, EXT4_ALLOC_CREDITS, 0, &h));
	for (u32 i = 0; i < o->len; i++)
		atomic_store(&c->owner[o->blk + i], handle_tid(h));
	CHURN_CHECK(c, !ext4_free_blocks(h, sbi, 12, o->blk, o->len));
	CHURN_CHECK(c, !handle_stop(h));
	o->len = 0;
}

static void churn_thread(void *arg)
{
	struct owned held[HELD] = { 0 };
	struct churn *c = arg;

	for (int i = 0; i < c->rounds && !c->failed; i++) {
		struct owned *o = &held[(unsigned)rand_r(&c->seed) % HELD];

		if (o->len)
			churn_free(c, o);
		else
			churn_alloc(c, o);
		if (rand_r(&c->seed) % 256 == 0)
			CHURN_CHECK(c, !journal_force_commit(c->t->sbi->journal));
	}
	for (int i = 0; i < HELD; i++)
		if (held[i].len)
			churn_free(c, &held[i]);
}

static void churn(const char *mkfs_args, const char *size, int rounds)
{
	struct churn c[THREADS];
	struct thread *th[THREADS];
	_Atomic u32 *owner;
	struct at t;
	u64 before;

	at_start(&t, mkfs_args, size);
	before = ext4_count_free_blocks(t.sbi);
	owner = calloc(t.sbi->blocks_count, sizeof(*owner));
	assert_non_null(owner);
	for (int i = 0; i < THREADS; i++) {
		c[i] = (struct churn){ &t, owner, (unsigned)i + 1, rounds, false };
		assert_int_equal(thread_create(&th[i], "churn", churn_thread, &c[i]), 0);
	}
	for (int i = 0; i < THREADS; i++)
		thread_join(th[i]);
	for (int i = 0; i < THREADS; i++)
		assert_false(c[i].failed);
	at_commit(&t);
	assert_int_equal(atomic_load(&t.sbi->alloc->pending_blocks), 0);
	assert_int_equal(ext4_count_free_blocks(t.sbi), before);
	assert_int_equal(counter_sum(t.sbi->alloc->avail), before);
	at_check(&t);
	at_drain(&t);
	at_check(&t);
	for (group_t g = 0; g < t.sbi->groups; g++) {
		assert_null(t.sbi->group_info[g].held_blocks);
		assert_int_equal(atomic_load(&t.sbi->alloc->group_blocks[g]),
				 ext4_gd_free_blocks(t.sbi, ext4_group_desc(t.sbi, g, NULL)));
	}
	free(owner);
	at_end(&t);
}

static void test_churn_default(void **state)
{
	(void)state;
	churn("", "600M", 3000);
}

static void test_churn_1k(void **state)
{
	(void)state;
	churn("-b 1024", "64M", 3000);
}

static void test_churn_uninit_bg(void **state)
{
	(void)state;
	churn("-O ^metadata_csum,uninit_bg", "600M", 2000);
}

static void test_churn_no_csum(void **state)
{
	(void)state;
	churn("-O ^metadata_csum,^uninit_bg", "64M", 2000);
}

static void test_churn_no_64bit(void **state)
{
	(void)state;
	churn("-O ^64bit", "600M", 2000);
}

static void test_churn_meta_bg(void **state)
{
	(void)state;
	churn("-b 1024 -O meta_bg,^resize_inode", "200M", 2000);
}

static void test_churn_no_flex_bg(void **state)
{
	(void)state;
	churn("-b 1024 -O ^flex_bg", "128M", 2000);
}

static void test_churn_tiny_groups(void **state)
{
	(void)state;
	churn("-b 1024 -g 256 -O ^resize_inode", "20M", 4000);
}

static void test_churn_sparse_super2(void **state)
{
	(void)state;
	churn("-b 1024 -O sparse_super2,^resize_inode", "128M", 2000);
}

static void test_churn_no_sparse_super(void **state)
{
	(void)state;
	churn("-b 1024 -O ^sparse_super,^resize_inode", "128M", 2000);
}

/* ---- single behaviours ---- */

/* Everything there is, to the last block; the extents into o. */
static u32 alloc_all(struct at *t, struct owned *o, u32 max)
{
	u32 n = 0;

	for (;; n++) {
		struct handle *h = at_handle(t, EXT4_ALLOC_CREDITS);
		int err;

		assert_true(n < max);
		o[n].len = 32768;
		err = ext4_alloc_blocks(h, t->sbi, 0, 0, EXT4_ALLOC_META,
					&o[n].len, &o[n].blk);
		assert_int_equal(handle_stop(h), 0);
		if (err) {
			assert_int_equal(err, -ENOSPC);
			return n;
		}
	}
}

static void free_all(struct at *t, const struct owned *o, u32 n)
{
	for (u32 i = 0; i < n; i++) {
		struct handle *h = at_handle(t, EXT4_ALLOC_CREDITS);

		assert_int_equal(ext4_free_blocks(h, t->sbi, 12, o[i].blk, o[i].len), 0);
		assert_int_equal(handle_stop(h), 0);
	}
}

static void test_freed_blocks_wait_for_the_commit(void **state)
{
	struct owned *o = calloc(4096, sizeof(*o));
	struct handle *h;
	struct at t;
	pblk_t blk;
	u32 n, len;

	(void)state;
	at_start(&t, "-b 1024", "40M");
	n = alloc_all(&t, o, 4096);
	assert_int_equal(ext4_count_free_blocks(t.sbi), 0);

	h = at_handle(&t, EXT4_ALLOC_CREDITS * 2);
	assert_int_equal(ext4_free_blocks(h, t.sbi, 12, o[1].blk, o[1].len), 0);
	assert_int_equal(ext4_count_free_blocks(t.sbi), o[1].len);
	len = 1;
	assert_int_equal(ext4_alloc_blocks(h, t.sbi, 0, o[1].blk, EXT4_ALLOC_META,
					   &len, &blk), -EAGAIN);
	len = 1;
	assert_int_equal(ext4_alloc_blocks(h, t.sbi, 0, o[1].blk,
					   EXT4_ALLOC_META | EXT4_ALLOC_EXACT_GOAL,
					   &len, &blk), -ENOSPC);
	assert_int_equal(handle_stop(h), 0);
	at_commit(&t);

	h = at_handle(&t, EXT4_ALLOC_CREDITS);
	len = o[1].len + 5;
	assert_int_equal(ext4_alloc_blocks(h, t.sbi, 0, o[1].blk, EXT4_ALLOC_META,
					   &len, &blk), 0);
	assert_int_equal(blk, o[1].blk);
	assert_int_equal(len, o[1].len);
	assert_int_equal(handle_stop(h), 0);

	free_all(&t, o, n);
	free(o);
	at_end(&t);
}

static void test_all_blocks_are_found(void **state)
{
	struct owned *o = calloc(4096, sizeof(*o));
	struct at t;
	u64 before, sum = 0;
	u32 n;

	(void)state;
	at_start(&t, "-b 1024 -g 1024 -O ^resize_inode", "30M");
	before = ext4_count_free_blocks(t.sbi);
	n = alloc_all(&t, o, 4096);
	for (u32 i = 0; i < n; i++)
		sum += o[i].len;
	assert_int_equal(sum, before);
	free_all(&t, o, n);
	at_unmount_clean(&t);
	/* Freed, and so free, after another mount. */
	at_mount(&t);
	assert_int_equal(ext4_count_free_blocks(t.sbi), before);
	free(o);
	at_end(&t);
}

static void test_goal_is_met_exactly(void **state)
{
	struct handle *h;
	pblk_t a, b;
	struct at t;
	u32 len = 10;

	(void)state;
	at_start(&t, "", "200M");
	h = at_handle(&t, EXT4_ALLOC_CREDITS * 4);
	assert_int_equal(ext4_alloc_blocks(h, t.sbi, 0, 20000, 0, &len, &a), 0);
	assert_int_equal(a, 20000);
	assert_int_equal(len, 10);
	len = 7;
	assert_int_equal(ext4_alloc_blocks(h, t.sbi, 0, a + 10, EXT4_ALLOC_EXACT_GOAL,
					   &len, &b), 0);
	assert_int_equal(b, a + 10);
	len = 7;
	assert_int_equal(ext4_alloc_blocks(h, t.sbi, 0, a, EXT4_ALLOC_EXACT_GOAL,
					   &len, &b), -ENOSPC);
	/* A goal in use: right after it. */
	len = 7;
	assert_int_equal(ext4_alloc_blocks(h, t.sbi, 0, a, 0, &len, &b), 0);
	assert_int_equal(b, a + 17);
	assert_int_equal(ext4_free_blocks(h, t.sbi, 12, a, 24), 0);
	/* A goal that is pending counts as in use. */
	len = 7;
	assert_int_equal(ext4_alloc_blocks(h, t.sbi, 0, a + 4, 0, &len, &b), 0);
	assert_int_equal(b, a + 24);
	assert_int_equal(ext4_free_blocks(h, t.sbi, 12, b, len), 0);
	assert_int_equal(handle_stop(h), 0);
	at_end(&t);
}

static void test_reservations_are_kept(void **state)
{
	struct handle *h;
	struct at t;
	pblk_t blk;
	u64 avail;
	u32 len;

	(void)state;
	at_start(&t, "-b 1024 -m 5", "40M");
	avail = ext4_count_free_blocks(t.sbi) - t.sbi->meta_reserve;
	/* Others leave the root reserve alone, root the one for metadata. */
	assert_int_equal(ext4_reserve_blocks(t.sbi, (u32)(avail - t.sbi->r_blocks), false), 0);
	assert_int_equal(ext4_reserve_blocks(t.sbi, 1, false), -ENOSPC);
	assert_int_equal(ext4_reserve_blocks(t.sbi, (u32)t.sbi->r_blocks, true), 0);
	assert_int_equal(ext4_reserve_blocks(t.sbi, 1, true), -ENOSPC);
	assert_int_equal(ext4_count_free_blocks(t.sbi), t.sbi->meta_reserve);

	h = at_handle(&t, EXT4_ALLOC_CREDITS * 4);
	len = 1;
	assert_int_equal(ext4_alloc_blocks(h, t.sbi, 0, 0, EXT4_ALLOC_ROOT, &len, &blk),
			 -ENOSPC);
	len = 3;
	assert_int_equal(ext4_alloc_blocks(h, t.sbi, 0, 0, EXT4_ALLOC_META, &len, &blk), 0);
	assert_int_equal(ext4_free_blocks(h, t.sbi, 12, blk, len), 0);
	/* Who was promised blocks gets them. */
	len = 100;
	assert_int_equal(ext4_alloc_blocks(h, t.sbi, 0, 0, EXT4_ALLOC_DELAYED, &len, &blk), 0);
	assert_int_equal(len, 100);
	assert_int_equal(counter_sum(t.sbi->reserved), avail - 100);
	assert_int_equal(ext4_free_blocks(h, t.sbi, 12, blk, len), 0);
	assert_int_equal(handle_stop(h), 0);
	ext4_release_reserved(t.sbi, (u32)(avail - 100));
	assert_int_equal(counter_sum(t.sbi->reserved), 0);
	assert_int_equal(ext4_count_free_blocks(t.sbi), avail + t.sbi->meta_reserve);
	at_end(&t);
}

static group_t find_uninit(struct at *t)
{
	for (group_t g = 0; g < t->sbi->groups; g++)
		if (ext4_gd_flags(t->sbi, ext4_group_desc(t->sbi, g, NULL)) &
		    EXT4_BG_BLOCK_UNINIT)
			return g;
	fail_msg("no uninitialised group");
	return 0;
}

static void test_uninit_group_is_initialised(void **state)
{
	struct handle *h;
	struct at t;
	pblk_t blk;
	group_t g;
	u32 len = 5;

	(void)state;
	at_start(&t, "-b 1024 -E lazy_itable_init=1", "200M");
	g = find_uninit(&t);
	h = at_handle(&t, EXT4_ALLOC_CREDITS);
	assert_int_equal(ext4_alloc_blocks(h, t.sbi, g, 0, 0, &len, &blk), 0);
	assert_int_equal(handle_stop(h), 0);
	assert_int_equal(ext4_block_group(t.sbi, blk), g);
	assert_false(ext4_gd_flags(t.sbi, ext4_group_desc(t.sbi, g, NULL)) &
		     EXT4_BG_BLOCK_UNINIT);
	h = at_handle(&t, EXT4_ALLOC_CREDITS);
	assert_int_equal(ext4_free_blocks(h, t.sbi, 12, blk, len), 0);
	assert_int_equal(handle_stop(h), 0);
	at_end(&t);
}

static void test_double_free_is_corruption(void **state)
{
	struct handle *h;
	struct at t;
	pblk_t blk;
	group_t g;
	u32 len = 4;
	int errors;

	(void)state;
	at_start(&t, "", "200M");
	h = at_handle(&t, EXT4_ALLOC_CREDITS * 2);
	assert_int_equal(ext4_alloc_blocks(h, t.sbi, 0, 20000, 0, &len, &blk), 0);
	g = ext4_block_group(t.sbi, blk);
	assert_int_equal(ext4_free_blocks(h, t.sbi, 12, blk, 2), 0);
	at_quiet(&errors);
	assert_int_equal(ext4_free_blocks(h, t.sbi, 12, blk, 4), -EFSCORRUPTED);
	assert_int_equal(errors, 1);
	/* Told once; the group is out of use, the others are not. */
	assert_int_equal(ext4_free_blocks(h, t.sbi, 12, blk + 2, 2), 0);
	assert_int_equal(errors, 1);
	len = 4;
	assert_int_equal(ext4_alloc_blocks(h, t.sbi, g, 0, 0, &len, &blk), 0);
	assert_int_not_equal(ext4_block_group(t.sbi, blk), g);
	assert_int_equal(handle_stop(h), 0);
	at_loud();
	assert_int_equal(sl_unmount(t.sb), 0);
	volume_free(&t.v);
}

static void test_system_blocks_are_not_freed(void **state)
{
	struct ext4_group_desc *gd;
	struct handle *h;
	struct at t;
	int errors;

	(void)state;
	at_start(&t, "", "200M");
	gd = ext4_group_desc(t.sbi, 1, NULL);
	at_quiet(&errors);
	h = at_handle(&t, EXT4_ALLOC_CREDITS);
	assert_int_equal(ext4_free_blocks(h, t.sbi, 12, 0, 1), -EFSCORRUPTED);
	assert_int_equal(ext4_free_blocks(h, t.sbi, 12, ext4_gd_inode_table(t.sbi, gd), 1),
			 -EFSCORRUPTED);
	assert_int_equal(ext4_free_blocks(h, t.sbi, 12, t.sbi->blocks_count - 1, 2),
			 -EFSCORRUPTED);
	assert_int_equal(ext4_free_blocks(h, t.sbi, 12, UINT64_MAX, 2), -EFSCORRUPTED);
	assert_int_equal(errors, 4);
	assert_int_equal(handle_stop(h), 0);
	at_loud();
	assert_int_equal(sl_unmount(t.sb), 0);
	volume_free(&t.v);
}

/* A damaged bitmap (checksum, or without checksums: count) costs its group. */
static void damaged_bitmap(const char *mkfs_args)
{
	struct handle *h;
	struct at t;
	pblk_t blk, bb;
	u64 before, pos;
	u32 len, bs, lost;
	int errors;

	at_start(&t, mkfs_args, "200M");
	bs = t.sb->s_blocksize;
	bb = ext4_gd_block_bitmap(t.sbi, ext4_group_desc(t.sbi, 0, NULL));
	pos = bb * bs + t.sbi->blocks_per_group / 8 - 40;
	assert_int_equal(sl_unmount(t.sb), 0);
	at_damage(&t, pos, 0x10);
	at_mount(&t);
	before = ext4_count_free_blocks(t.sbi);
	lost = ext4_gd_free_blocks(t.sbi, ext4_group_desc(t.sbi, 0, NULL));
	at_quiet(&errors);
	for (int i = 0; i < 3; i++) {
		h = at_handle(&t, EXT4_ALLOC_CREDITS);
		len = 4;
		assert_int_equal(ext4_alloc_blocks(h, t.sbi, 0, 0, 0, &len, &blk), 0);
		assert_int_equal(handle_stop(h), 0);
		assert_int_not_equal(ext4_block_group(t.sbi, blk), 0);
	}
	assert_int_equal(errors, 1);
	assert_int_equal(ext4_count_free_blocks(t.sbi), before - lost - 12);
	at_loud();
	assert_int_equal(sl_unmount(t.sb), 0);
	volume_free(&t.v);
}

static void test_damaged_bitmap_csum(void **state)
{
	(void)state;
	damaged_bitmap("");
}

static void test_damaged_bitmap_count(void **state)
{
	(void)state;
	damaged_bitmap("-O ^metadata_csum,^uninit_bg");
}

static void test_unreadable_bitmap_costs_its_group(void **state)
{
	struct faulty_bdev *f;
	struct handle *h;
	struct at t;
	pblk_t blk, b;
	u32 len = 8;
	group_t g;
	int errors;

	(void)state;
	at_start(&t, "", "200M");
	at_unmount_clean(&t);
	f = at_mount_faulty(&t);
	h = at_handle(&t, EXT4_ALLOC_CREDITS);
	assert_int_equal(ext4_alloc_blocks(h, t.sbi, 0, 20000, 0, &len, &blk), 0);
	assert_int_equal(handle_stop(h), 0);
	g = ext4_block_group(t.sbi, blk);
	assert_int_equal(sl_unmount(t.sb), 0);

	f = at_mount_faulty(&t);
	atomic_store(&f->bad_pos, ext4_gd_block_bitmap(t.sbi, ext4_group_desc(t.sbi, g, NULL)) *
					  t.sb->s_blocksize);
	at_quiet(&errors);
	h = at_handle(&t, EXT4_ALLOC_CREDITS * 2);
	assert_int_equal(ext4_free_blocks(h, t.sbi, 12, blk, len), -EIO);
	assert_int_equal(errors, 1);
	assert_int_equal(ext4_free_blocks(h, t.sbi, 12, blk, len), 0);
	len = 8;
	assert_int_equal(ext4_alloc_blocks(h, t.sbi, 0, 20000, 0, &len, &b), 0);
	assert_int_not_equal(ext4_block_group(t.sbi, b), g);
	assert_int_equal(errors, 1);
	assert_int_equal(handle_stop(h), 0);
	at_loud();
	assert_int_equal(sl_unmount(t.sb), 0);
	volume_free(&t.v);
}

/* Nothing leaks (the sanitizer looks), nothing is handed out any more: not even
 * in memory are the blocks free, as on disk they are not. */
static void test_abort_keeps_what_was_pending(void **state)
{
	u32 len = 100, held;
	struct handle *h;
	struct at t;
	pblk_t blk;
	group_t g;
	int errors;

	(void)state;
	at_start(&t, "-b 1024", "40M");
	h = at_handle(&t, EXT4_ALLOC_CREDITS * 2);
	assert_int_equal(ext4_alloc_blocks(h, t.sbi, 2, 0, 0, &len, &blk), 0);
	assert_int_equal(ext4_free_blocks(h, t.sbi, 12, blk, 50), 0);
	assert_int_equal(handle_stop(h), 0);
	g = ext4_block_group(t.sbi, blk);
	held = t.sbi->group_info[g].nr_held_blocks;
	assert_true(held >= 50);
	h = at_handle(&t, EXT4_ALLOC_CREDITS * 2);
	at_quiet(&errors);
	journal_abort(t.sbi->journal, -EIO);
	assert_int_equal(ext4_free_blocks(h, t.sbi, 12, blk + 50, 50), -EROFS);
	assert_int_equal(ext4_alloc_blocks(h, t.sbi, 2, 0, 0, &len, &blk), -EROFS);
	assert_int_equal(handle_stop(h), -EROFS);
	for (u32 i = 0; i < 100; i++) { /* its callbacks run meanwhile */
		ext4_group_lock(t.sbi, g);
		assert_int_equal(t.sbi->group_info[g].nr_held_blocks, held);
		ext4_group_unlock(t.sbi, g);
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
	(void)sl_unmount(t.sb);
	at_loud();
	volume_free(&t.v);
}

static void refuse_mount(struct at *t, int want)
{
	struct sl_options opts = { .errors = SL_ERRORS_CONTINUE };
	int errors, err;

	at_quiet(&errors);
	err = volume_mount(&t->v, &opts, &t->sb);
	at_loud();
	assert_int_equal(err, want);
}

static void test_bad_descriptor_is_refused(void **state)
{
	struct at t;
	u64 pos;

	(void)state;
	at_start(&t, "", "200M");
	pos = ext4_gdb_location(t.sbi, 0) * t.sb->s_blocksize + t.sbi->desc_size;
	at_unmount_clean(&t);
	at_damage(&t, pos + 0x0C, 1); /* free blocks of group 1 */
	refuse_mount(&t, -EFSBADCRC);
	volume_free(&t.v);
}

static void test_overlapping_structures_are_refused(void **state)
{
	u8 first[8];
	struct at t;
	u64 pos;
	int fd;

	(void)state;
	at_start(&t, "-O ^metadata_csum,^uninit_bg,^64bit", "200M");
	pos = ext4_gdb_location(t.sbi, 0) * t.sb->s_blocksize;
	at_unmount_clean(&t);
	/* group 1: the bitmaps of group 0 */
	fd = open(t.v.image, O_RDWR);
	assert_int_equal(pread(fd, first, 8, (off_t)pos), 8);
	assert_int_equal(pwrite(fd, first, 8, (off_t)pos + 32), 8);
	close(fd);
	refuse_mount(&t, -EFSCORRUPTED);
	volume_free(&t.v);
}

static void test_zones_and_geometry_agree_with_mke2fs(void **state)
{
	struct at t;
	u64 sum = 0;

	(void)state;
	at_start(&t, "-b 1024 -O ^flex_bg", "128M");
	/* Of a volume with nothing but lost+found all other blocks are
	 * structures or free. */
	for (pblk_t pos = t.sbi->first_data_block, zs, ze = 0;
	     ext4_syszone_next(t.sbi, pos, t.sbi->blocks_count, &zs, &ze); pos = ze)
		sum += ze - zs;
	/* root 1 block, lost+found 12, the resize inode's indirect block 1 */
	assert_in_range(t.sbi->blocks_count - t.sbi->first_data_block -
				ext4_count_free_blocks(t.sbi) - sum, 13, 16);
	at_end(&t);
}

/* ---- magazines and windows ---- */

static const struct sl_cred root_cred = { 0, 0, 022 };

static struct sl_file *create(struct at *t, const char *name)
{
	struct inode *dir, *inode;
	struct sl_file *f;

	assert_int_equal(sl_iget(t->sb, 2, &dir), 0);
	assert_int_equal(sl_mknod(dir, name, strlen(name), S_IFREG | 0644, 0,
				  &root_cred, &inode), 0);
	assert_int_equal(sl_open(inode, SL_OPEN_WRITE, &f), 0);
	sl_iput(inode);
	sl_iput(dir);
	return f;
}

static void append(struct sl_file *f, u64 pos, u32 len)
{
	static u8 data[1 << 20];

	assert_true(len <= sizeof(data));
	assert_int_equal(sl_write(f, data, len, pos, 0, &root_cred), len);
}

/* Contiguous pieces of the volume that the file lies in. */
static u32 nr_extents(struct sl_file *f)
{
	struct ext4_inode *ei = EXT4_I(sl_file_inode(f));
	u64 blocks = ei->vfs.i_size >> ei->vfs.i_sb->s_blocksize_bits;
	pblk_t next = 0;
	u32 n = 0;

	for (u64 at = 0; at < blocks;) {
		struct ext4_map m = { .lblk = (lblk_t)at, .len = (u32)(blocks - at) };

		assert_int_equal(ext4_map_blocks(ei, &m), 0);
		assert_true(m.flags & EXT4_MAP_MAPPED);
		n += m.pblk != next;
		next = m.pblk + m.len;
		at += m.len;
	}
	return n;
}

/* nr files, each written `piece` bytes at a time in turn, each piece at once. */
static void streams(const char *mkfs_args, const char *size, u32 nr, u32 piece,
		    u64 total, u32 max_extents)
{
	struct sl_file *f[8];
	struct at t;

	at_start(&t, mkfs_args, size);
	for (u32 i = 0; i < nr; i++) {
		char name[8];

		snprintf(name, sizeof(name), "f%u", i);
		f[i] = create(&t, name);
	}
	for (u64 pos = 0; pos < total; pos += piece)
		for (u32 i = 0; i < nr; i++) {
			append(f[i], pos, piece);
			assert_int_equal(sl_fsync(f[i], true), 0);
		}
	for (u32 i = 0; i < nr; i++)
		assert_in_range(nr_extents(f[i]), 1, max_extents);
	at_check(&t);
	assert_true(at_stat(&t, ALLOC_WINDOW) > at_stat(&t, ALLOC_SEARCH));
	assert_true(atomic_load(&t.sbi->alloc->claimed) > 0);
	for (u32 i = 0; i < nr; i++)
		sl_release(f[i]);
	/* No window outlives the last close. */
	for (u32 i = 0; i < EXT4_WINDOWS; i++)
		assert_int_equal(atomic_load(&t.sbi->alloc->window[i].owner), 0);
	at_check(&t);
	at_end(&t);
}

static void test_two_streams_have_few_extents(void **state)
{
	(void)state;
	streams("", "600M", 2, 256 << 10, 24 << 20, 12);
}

static void test_eight_streams_have_few_extents(void **state)
{
	(void)state;
	streams("", "600M", 8, 1 << 20, 8 << 20, 8);
}

static void test_streams_1k(void **state)
{
	(void)state;
	streams("-b 1024", "300M", 3, 128 << 10, 8 << 20, 12);
}

static void test_streams_no_flex_bg(void **state)
{
	(void)state;
	streams("-b 2048 -O ^flex_bg", "300M", 3, 128 << 10, 8 << 20, 12);
}

/* A small file that grows by a block at a time, with others in between. */
static void test_small_files_lie_together(void **state)
{
	struct sl_file *a, *b;
	struct ext4_map m = { .len = 1 };
	pblk_t first;
	struct at t;

	(void)state;
	at_start(&t, "-b 4096", "200M");
	a = create(&t, "a");
	append(a, 0, 4096);
	assert_int_equal(sl_fsync(a, true), 0);
	assert_int_equal(ext4_map_blocks(EXT4_I(sl_file_inode(a)), &m), 0);
	first = m.pblk;
	for (u64 pos = 4096; pos < 32768; pos += 4096) {
		append(a, pos, 4096);
		assert_int_equal(sl_fsync(a, true), 0);
	}
	assert_int_equal(nr_extents(a), 1);
	assert_true(at_stat(&t, ALLOC_MAGAZINE) >= 8);
	assert_int_equal(at_stat(&t, ALLOC_SEARCH), 0);
	/* Deleted, nothing of it is kept but the magazine. */
	b = create(&t, "b");
	append(b, 0, 8192);
	assert_int_equal(sl_fsync(b, true), 0);
	m = (struct ext4_map){ .len = 2 };
	assert_int_equal(ext4_map_blocks(EXT4_I(sl_file_inode(b)), &m), 0);
	assert_int_equal(m.len, 2);
	if (t.sbi->alloc->nr_magazines == EXT4_MAGAZINES_PER_CPU)
		assert_int_equal(m.pblk, first + 8);
	sl_release(a);
	sl_release(b);
	at_check(&t);
	at_end(&t);
}

/* Others do not take what is in a magazine, and its blocks count as free. */
static void test_claimed_blocks_count_as_free(void **state)
{
	u64 before, avail, held = 0;
	struct handle *h;
	struct at t;
	pblk_t blk, b;
	u32 len = 1;

	(void)state;
	at_start(&t, "", "200M");
	before = ext4_count_free_blocks(t.sbi);
	avail = (u64)counter_sum(t.sbi->alloc->avail);
	h = at_handle(&t, EXT4_ALLOC_CREDITS * 3);
	assert_int_equal(ext4_alloc_blocks(h, t.sbi, 0, 0, 0, &len, &blk), 0);
	held = atomic_load(&t.sbi->alloc->claimed);
	assert_in_range(held, 1, t.sbi->alloc->magazine_blocks - 1);
	assert_int_equal(ext4_count_free_blocks(t.sbi), before - 1);
	assert_int_equal(counter_sum(t.sbi->alloc->avail), avail - 1);
	at_check(&t);

	len = 20;
	assert_int_equal(ext4_alloc_blocks(h, t.sbi, 0, blk + 1,
					   EXT4_ALLOC_EXACT_GOAL, &len, &b), -ENOSPC);
	len = 20;
	assert_int_equal(ext4_alloc_blocks(h, t.sbi, 0, blk + 1, 0, &len, &b), 0);
	assert_true(b >= blk + 1 + held || b < blk);
	assert_int_equal(ext4_free_blocks(h, t.sbi, 12, b, 20), 0);
	assert_int_equal(ext4_free_blocks(h, t.sbi, 12, blk, 1), 0);
	assert_int_equal(handle_stop(h), 0);
	at_check(&t);
	at_drain(&t);
	at_check(&t);
	at_end(&t);
}

/* Whoever wants the last blocks gets those of the magazines. */
static void test_claims_are_drained_before_enospc(void **state)
{
	struct owned *o = calloc(4096, sizeof(*o));
	struct sl_file *f;
	u64 sum = 0, left;
	struct at t;
	pblk_t blk;
	u32 n, len;

	(void)state;
	at_start(&t, "-b 1024", "60M");
	f = create(&t, "f");
	append(f, 0, 1 << 20);
	assert_int_equal(sl_fsync(f, false), 0);
	for (group_t g = 0; g < t.sbi->groups; g++) {
		struct handle *h = at_handle(&t, EXT4_ALLOC_CREDITS);

		len = 1;
		assert_int_equal(ext4_alloc_blocks(h, t.sbi, g, 0, 0, &len, &blk), 0);
		assert_int_equal(ext4_free_blocks(h, t.sbi, 12, blk, len), 0);
		assert_int_equal(handle_stop(h), 0);
	}
	at_commit(&t);
	assert_in_range(atomic_load(&t.sbi->alloc->claimed), 600, 60 << 10);
	left = ext4_count_free_blocks(t.sbi);
	n = alloc_all(&t, o, 4096);
	for (u32 i = 0; i < n; i++)
		sum += o[i].len;
	assert_int_equal(sum, left);
	assert_int_equal(atomic_load(&t.sbi->alloc->claimed), 0);
	assert_true(at_stat(&t, ALLOC_DRAINS) > 0);
	at_check(&t);
	free_all(&t, o, n);
	sl_release(f);
	free(o);
	at_end(&t);
}

/* ---- many threads, to the last block ---- */

struct filler {
	struct at *t;
	_Atomic u8 *owner;
	struct ext4_inode *ei; /* for windows */
	unsigned seed;
	u64 got;
	struct owned o[20000];
	u32 n;
	bool failed;
};

static void fill_thread(void *arg)
{
	struct filler *c = arg;
	struct ext4_sb *sbi = c->t->sbi;
	lblk_t lblk = 0;
	pblk_t end = 0;

	for (;;) {
		u32 r = (u32)rand_r(&c->seed), len = 1 + r % 40;
		struct owned *o = &c->o[c->n];
		struct handle *h;
		int err;

		CHURN_CHECK(c, c->n < ARRAY_SIZE(c->o));
		CHURN_CHECK(c, !journal_start(sbi->journal, EXT4_ALLOC_CREDITS, 0, &h));
		o->len = len;
		if (r & 0x10000) {
			err = ext4_alloc_blocks(h, sbi, r >> 20, 0, EXT4_ALLOC_META,
						&o->len, &o->blk);
		} else {
			rwsem_down_write(&c->ei->i_data_sem);
			err = ext4_alloc_data(h, c->ei, lblk, end,
					      EXT4_ALLOC_META | EXT4_ALLOC_APPEND,
					      &o->len, &o->blk);
			rwsem_up_write(&c->ei->i_data_sem);
			lblk += o->len;
			end = o->blk + o->len;
		}
		CHURN_CHECK(c, !handle_stop(h));
		if (err) {
			CHURN_CHECK(c, err == -ENOSPC);
			return;
		}
		for (u32 i = 0; i < o->len; i++)
			CHURN_CHECK(c, !atomic_exchange(&c->owner[o->blk + i], 1));
		c->got += o->len;
		c->n++;
	}
}

static void fill(const char *mkfs_args, const char *size)
{
	struct filler *c[THREADS];
	struct thread *th[THREADS];
	struct sl_file *f[THREADS];
	_Atomic u8 *owner;
	u64 left, sum = 0;
	struct at t;

	at_start(&t, mkfs_args, size);
	for (int i = 0; i < THREADS; i++) {
		char name[8];

		snprintf(name, sizeof(name), "f%d", i);
		f[i] = create(&t, name);
	}
	at_commit(&t);
	owner = calloc(t.sbi->blocks_count, 1);
	assert_non_null(owner);
	left = ext4_count_free_blocks(t.sbi);
	for (int i = 0; i < THREADS; i++) {
		c[i] = calloc(1, sizeof(**c));
		assert_non_null(c[i]);
		c[i]->t = &t;
		c[i]->owner = owner;
		c[i]->ei = EXT4_I(sl_file_inode(f[i]));
		c[i]->seed = (unsigned)i + 1;
		assert_int_equal(thread_create(&th[i], "fill", fill_thread, c[i]), 0);
	}
	for (int i = 0; i < THREADS; i++) {
		thread_join(th[i]);
		assert_false(c[i]->failed);
		sum += c[i]->got;
	}
	assert_int_equal(sum, left);
	assert_int_equal(ext4_count_free_blocks(t.sbi), 0);
	at_check(&t);
	for (int i = 0; i < THREADS; i++) {
		free_all(&t, c[i]->o, c[i]->n);
		free(c[i]);
		sl_release(f[i]);
	}
	at_commit(&t);
	assert_int_equal(ext4_count_free_blocks(t.sbi), left);
	at_check(&t);
	free(owner);
	at_end(&t);
}

static void test_fill_to_the_last_block(void **state)
{
	(void)state;
	fill("", "250M");
}

static void test_fill_to_the_last_block_1k(void **state)
{
	(void)state;
	fill("-b 1024 -G 4", "60M");
}

static void test_fill_to_the_last_block_tiny_groups(void **state)
{
	(void)state;
	fill("-b 1024 -g 512 -O ^resize_inode,^flex_bg", "30M");
}

/* ---- one thread against a flat model ---- */

/* Random requests of every kind; memory is compared with the bitmaps on the way. */
static void model(const char *mkfs_args, const char *size, unsigned seed)
{
	enum { FILES = 6, OWNED_MAX = 3000 };
	struct owned *o = calloc(OWNED_MAX, sizeof(*o));
	struct sl_file *f[FILES];
	struct at t;
	u8 *used; /* 0 free, 1 ours, 2 freed and not committed */
	u64 before;
	u32 n = 0;

	at_start(&t, mkfs_args, size);
	for (int i = 0; i < FILES; i++) {
		char name[8];

		snprintf(name, sizeof(name), "f%d", i);
		f[i] = create(&t, name);
	}
	at_commit(&t);
	before = ext4_count_free_blocks(t.sbi);
	used = calloc(t.sbi->blocks_count, 1);
	for (int round = 0; round < 2500; round++) {
		u32 r = (u32)rand_r(&seed), what = r % 16;
		struct handle *h = at_handle(&t, EXT4_ALLOC_CREDITS);
		struct owned *a = &o[n];
		int err = 0;

		if (what < 9 && n < OWNED_MAX) {
			u32 asked = a->len = what < 8 ? 1 + (r >> 8) % 50 : 3000;
			pblk_t goal = n && r & 0x10000
					      ? o[r % n].blk + o[r % n].len
					      : 0;

			if (what < 4)
				err = ext4_alloc_blocks(h, t.sbi, r >> 20, goal, 0,
							&a->len, &a->blk);
			else
				err = ext4_alloc_data(h, EXT4_I(sl_file_inode(f[r % FILES])),
						      (r >> 10) % 5000, goal,
						      r & 0x20000 ? EXT4_ALLOC_APPEND : 0,
						      &a->len, &a->blk);
			assert_true(!err || err == -ENOSPC || err == -EAGAIN);
			for (u32 i = 0; !err && i < a->len; i++)
				assert_int_equal(used[a->blk + i]++, 0);
			assert_true(err || (a->len >= 1 && a->len <= asked));
			n += !err;
		} else if (n) {
			struct owned *x = &o[(r >> 8) % n];
			u32 k = min_of(x->len, 1 + (r >> 16) % 64);

			assert_int_equal(ext4_free_blocks(h, t.sbi, 12, x->blk, k), 0);
			memset(used + x->blk, 2, k);
			x->blk += k;
			x->len -= k;
			if (!x->len)
				*x = o[--n];
		}
		assert_int_equal(handle_stop(h), 0);
		if (err == -EAGAIN || what == 15) {
			at_commit(&t);
			for (pblk_t i = 0; i < t.sbi->blocks_count; i++)
				if (used[i] == 2)
					used[i] = 0;
		}
		if (r % 61 == 0)
			at_drain(&t);
		if (r % 47 == 0)
			ext4_release_window(t.sbi, sl_file_inode(f[r % FILES])->i_ino);
		if (r % 17 == 0)
			at_check(&t);
	}
	free_all(&t, o, n);
	at_commit(&t);
	at_check(&t);
	assert_int_equal(ext4_count_free_blocks(t.sbi), before);
	for (int i = 0; i < FILES; i++)
		sl_release(f[i]);
	free(used);
	free(o);
	at_end(&t);
}

static void test_model_4k(void **state)
{
	(void)state;
	model("", "200M", 1);
}

static void test_model_2k(void **state)
{
	(void)state;
	model("-b 2048 -O ^flex_bg", "60M", 2);
}

static void test_model_1k(void **state)
{
	(void)state;
	model("-b 1024 -G 2", "40M", 3);
}

static void test_model_tiny_groups(void **state)
{
	(void)state;
	model("-b 1024 -g 256 -O ^resize_inode", "20M", 4);
}

/* Summaries go when there are too many, and are made again. */
static void test_summaries_are_bounded(void **state)
{
	struct handle *h;
	struct at t;
	pblk_t blk;

	(void)state;
	at_start(&t, "-b 1024 -g 256 -O ^resize_inode", "20M");
	t.sbi->alloc->max_runs = 5;
	for (u32 i = 0; i < 3 * t.sbi->groups; i++) {
		u32 len = 20;

		h = at_handle(&t, EXT4_ALLOC_CREDITS * 2);
		assert_int_equal(ext4_alloc_blocks(h, t.sbi, i, 0, 0, &len, &blk), 0);
		assert_int_equal(ext4_free_blocks(h, t.sbi, 12, blk, len), 0);
		assert_int_equal(handle_stop(h), 0);
		assert_in_range(atomic_load(&t.sbi->alloc->nr_runs), 1, 5);
	}
	at_check(&t);
	at_end(&t);
}

/* The window of a file that was used longest ago makes room. */
static void test_windows_are_bounded(void **state)
{
	struct ext4_claim *c, *all[2 * EXT4_WINDOWS];
	struct at t;

	(void)state;
	at_start(&t, "", "200M");
	for (u32 i = 0; i < 2 * EXT4_WINDOWS; i++) {
		all[i] = ext4_window_get(t.sbi, 1000 + i);
		assert_non_null(all[i]);
		assert_ptr_equal(ext4_window_find(t.sbi, 1000 + i), all[i]);
	}
	for (u32 i = 0; i < 2 * EXT4_WINDOWS; i++) {
		c = ext4_window_find(t.sbi, 1000 + i);
		assert_true(!c || c == all[i]);
		ext4_release_window(t.sbi, 1000 + i);
		assert_null(ext4_window_find(t.sbi, 1000 + i));
	}
	at_end(&t);
}

/* Blocks of one file, to be freed at the end. */
struct data {
	struct at *t;
	struct ext4_inode *ei;
	struct owned o[128];
	u32 n;
};

static u32 take_data(struct data *d, lblk_t lblk, pblk_t goal, u32 flags, u32 len, pblk_t *blk)
{
	struct handle *h = at_handle(d->t, EXT4_ALLOC_CREDITS);

	rwsem_down_write(&d->ei->i_data_sem);
	assert_int_equal(ext4_alloc_data(h, d->ei, lblk, goal, flags, &len, blk), 0);
	rwsem_up_write(&d->ei->i_data_sem);
	assert_int_equal(handle_stop(h), 0);
	assert_true(d->n < ARRAY_SIZE(d->o));
	d->o[d->n++] = (struct owned){ .blk = *blk, .len = len };
	return len;
}

/* With blocks smaller than a page, runs of a page or more lie as in the file's pages. */
static void test_runs_lie_as_in_pages(void **state)
{
	struct data *d = calloc(1, sizeof(*d));
	struct sl_file *f;
	struct at t;
	pblk_t blk, at;
	u32 n;

	(void)state;
	at_start(&t, "-b 1024", "64M");
	f = create(&t, "f");
	d->t = &t;
	d->ei = EXT4_I(sl_file_inode(f));
	for (u32 lblk = 0; lblk < 12; lblk++) {
		/* What was taken before ends anywhere. */
		(void)take_data(d, 0, 0, 0, 1 + lblk % 3, &blk);
		assert_int_equal(take_data(d, lblk, 0, 0, 70 + lblk, &blk), 70 + lblk);
		assert_int_equal(blk % 4, lblk % 4);
	}
	/* Fewer than wanted end with a page, those at the goal too. */
	at = 0;
	for (n = 0; n < 20000;) {
		u32 got = take_data(d, 2 + n, at, EXT4_ALLOC_APPEND, 20000 - n, &blk);

		assert_int_equal(blk % 4, (2 + n) % 4);
		n += got;
		assert_true(n == 20000 || (2 + n) % 4 == 0);
		at = blk + got;
	}
	/* Room for two blocks at the goal is no place for a page; for two blocks it is. */
	assert_int_equal(take_data(d, 0, 0, 0, 300, &blk), 300);
	d->o[d->n - 1] = (struct owned){ .blk = blk + 100, .len = 2 };
	free_all(&t, &d->o[d->n - 1], 1);
	d->o[d->n - 1] = (struct owned){ .blk = blk, .len = 100 };
	d->o[d->n++] = (struct owned){ .blk = blk + 102, .len = 198 };
	at_commit(&t);
	(void)take_data(d, 100, blk + 100, 0, 80, &at);
	assert_int_not_equal(at, blk + 100);
	assert_int_equal(at % 4, 0);
	assert_int_equal(take_data(d, 100, blk + 100, 0, 2, &at), 2);
	assert_int_equal(at, blk + 100);
	free_all(&t, d->o, d->n);
	free(d);
	sl_release(f);
	at_end(&t);
}

/* Tables of a flex group reach from one small group into the next: a walk over
 * the zones of one group comes to an end all the same. */
static void test_zone_across_the_end_of_a_group(void **state)
{
	u32 crossing = 0;
	struct at t;

	(void)state;
	at_start(&t, "-b 1024 -g 256 -O ^resize_inode", "20M");
	for (group_t g = 0; g + 1 < t.sbi->groups; g++) {
		pblk_t first = ext4_group_first_block(t.sbi, g);
		pblk_t end = first + t.sbi->blocks_per_group, zs, ze;

		for (pblk_t pos = first; ext4_syszone_next(t.sbi, pos, end, &zs, &ze);
		     pos = ze) {
			assert_true(zs >= pos && zs < ze && ze <= end);
			if (ze == end && !ext4_block_range_ok(t.sbi, end, 1))
				crossing++;
		}
	}
	assert_true(crossing > 0);
	at_end(&t);
}

struct giver {
	struct ext4_sb *sbi;
	struct ext4_claim *c;
	group_t g;
	struct ext4_run r;
	_Atomic bool stop;
};

static void claim_and_give(void *arg)
{
	struct giver *w = arg;

	while (!atomic_load(&w->stop)) {
		u8 *spare = calloc(1, ext4_held_bytes(w->sbi));

		ext4_group_lock(w->sbi, w->g);
		ext4_claim_take(w->sbi, w->c, 0, w->g, w->r, &spare);
		ext4_group_unlock(w->sbi, w->g);
		ext4_claim_drop(w->sbi, w->c, 0);
		free(spare);
	}
}

/* A drain that meets a claim which another is giving back: what it finds gone
 * from there is in the group's count, which searches look at without a lock. */
static void test_drain_beside_who_gives_back(void **state)
{
	struct ext4_alloc *al;
	struct giver w = { 0 };
	struct thread *th;
	struct at t;
	u32 total;

	(void)state;
	at_start(&t, "", "2G");
	al = t.sbi->alloc;
	w.sbi = t.sbi;
	w.c = &al->magazine[0];
	w.g = t.sbi->groups - 2;
	w.r = (struct ext4_run){ 2000, 30000 };
	assert_true(ext4_block_range_ok(t.sbi, ext4_group_first_block(t.sbi, w.g) + w.r.off,
					w.r.len));
	total = atomic_load(&al->group_blocks[w.g]);
	assert_int_equal(thread_create(&th, "give", claim_and_give, &w), 0);
	for (u32 i = 0; i < 100000; i++) {
		atomic_fetch_add(&al->drainers, 1);
		ext4_claim_drop(t.sbi, w.c, EXT4_CLAIM_ANY);
		assert_int_equal(atomic_load(&al->group_blocks[w.g]), total);
		atomic_fetch_sub(&al->drainers, 1);
	}
	atomic_store(&w.stop, true);
	thread_join(th);
	at_check(&t);
	at_end(&t);
}

#ifndef SLUICE_DEBUG_LOCKS /* there the summary is compared with the map */
/* Without checksums a bitmap that is read again may say anything. */
static void test_bitmap_that_comes_back_full(void **state)
{
	struct handle *h;
	struct buffer *b;
	struct at t;
	pblk_t blk;
	u32 len;

	(void)state;
	at_start(&t, "-b 4096 -O ^metadata_csum,^uninit_bg", "200M");
	at_check(&t); /* reads the bitmap */
	b = buffer_find(t.sb, ext4_gd_block_bitmap(t.sbi, ext4_group_desc(t.sbi, 0, NULL)));
	assert_non_null(b);
	while (atomic_load(&t.sbi->alloc->group_blocks[0])) {
		pblk_t goal = bm_find_clear(b->b_data, 0, t.sbi->blocks_per_group);

		h = at_handle(&t, EXT4_ALLOC_CREDITS);
		len = t.sbi->blocks_per_group;
		assert_int_equal(ext4_alloc_blocks(h, t.sbi, 0, goal, EXT4_ALLOC_EXACT_GOAL,
						   &len, &blk), 0);
		assert_int_equal(handle_stop(h), 0);
	}
	/* The summary has all that is free in its last piece. */
	h = at_handle(&t, EXT4_ALLOC_CREDITS);
	assert_int_equal(ext4_free_blocks(h, t.sbi, 12, t.sbi->blocks_per_group - 300, 200), 0);
	assert_int_equal(handle_stop(h), 0);
	at_commit(&t);
	h = at_handle(&t, EXT4_ALLOC_CREDITS);
	len = 100;
	assert_int_equal(ext4_alloc_blocks(h, t.sbi, 0, 0, 0, &len, &blk), 0);
	assert_int_equal(blk, t.sbi->blocks_per_group - 300);
	assert_int_equal(handle_stop(h), 0);

	at_commit(&t);
	ext4_group_lock(t.sbi, 0);
	free_runs_refresh(t.sbi->group_info[0].runs, b->b_data,
			  t.sbi->group_info[0].held_blocks);
	memset(b->b_data, 0xff, t.sb->s_blocksize);
	ext4_group_unlock(t.sbi, 0);
	buffer_put(b);
	h = at_handle(&t, EXT4_ALLOC_CREDITS);
	len = 50;
	assert_int_equal(ext4_alloc_blocks(h, t.sbi, 0, 0, 0, &len, &blk), 0);
	assert_int_equal(ext4_block_group(t.sbi, blk), 1);
	assert_int_equal(handle_stop(h), 0);
	assert_int_equal(sl_unmount(t.sb), 0);
	volume_free(&t.v);
}
#endif

static int init(void **state)
{
	(void)state;
	log_init("test", LOG_LVL_WARN);
	thread_register();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_goal_is_met_exactly),
		cmocka_unit_test(test_freed_blocks_wait_for_the_commit),
		cmocka_unit_test(test_all_blocks_are_found),
		cmocka_unit_test(test_reservations_are_kept),
		cmocka_unit_test(test_uninit_group_is_initialised),
		cmocka_unit_test(test_double_free_is_corruption),
		cmocka_unit_test(test_system_blocks_are_not_freed),
		cmocka_unit_test(test_damaged_bitmap_csum),
		cmocka_unit_test(test_damaged_bitmap_count),
		cmocka_unit_test(test_unreadable_bitmap_costs_its_group),
		cmocka_unit_test(test_abort_keeps_what_was_pending),
		cmocka_unit_test(test_bad_descriptor_is_refused),
		cmocka_unit_test(test_overlapping_structures_are_refused),
		cmocka_unit_test(test_zones_and_geometry_agree_with_mke2fs),
		cmocka_unit_test(test_zone_across_the_end_of_a_group),
		cmocka_unit_test(test_two_streams_have_few_extents),
		cmocka_unit_test(test_eight_streams_have_few_extents),
		cmocka_unit_test(test_streams_1k),
		cmocka_unit_test(test_streams_no_flex_bg),
		cmocka_unit_test(test_small_files_lie_together),
		cmocka_unit_test(test_claimed_blocks_count_as_free),
		cmocka_unit_test(test_claims_are_drained_before_enospc),
		cmocka_unit_test(test_drain_beside_who_gives_back),
#ifndef SLUICE_DEBUG_LOCKS
		cmocka_unit_test(test_bitmap_that_comes_back_full),
#endif
		cmocka_unit_test(test_summaries_are_bounded),
		cmocka_unit_test(test_windows_are_bounded),
		cmocka_unit_test(test_runs_lie_as_in_pages),
		cmocka_unit_test(test_fill_to_the_last_block),
		cmocka_unit_test(test_fill_to_the_last_block_1k),
		cmocka_unit_test(test_fill_to_the_last_block_tiny_groups),
		cmocka_unit_test(test_model_4k),
		cmocka_unit_test(test_model_2k),
		cmocka_unit_test(test_model_1k),
		cmocka_unit_test(test_model_tiny_groups),
		cmocka_unit_test(test_churn_default),
		cmocka_unit_test(test_churn_1k),
		cmocka_unit_test(test_churn_uninit_bg),
		cmocka_unit_test(test_churn_no_csum),
		cmocka_unit_test(test_churn_no_64bit),
		cmocka_unit_test(test_churn_meta_bg),
		cmocka_unit_test(test_churn_no_flex_bg),
		cmocka_unit_test(test_churn_tiny_groups),
		cmocka_unit_test(test_churn_sparse_super2),
		cmocka_unit_test(test_churn_no_sparse_super),
	};

	return cmocka_run_group_tests(tests, init, NULL);
}
