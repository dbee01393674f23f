/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_balloc.c - groups, system zones and block allocation
 *
 * Volumes of many feature sets; e2fsck judges bitmaps, counters and checksums
 * after everything allocated has been freed.
 */
#include "tests/unit/fs/alloc_test.h"

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

#define CHECK(c, cond)                                                         \
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

	CHECK(c, !journal_start(sbi->journal, EXT4_ALLOC_CREDITS, 0, &h));
	tid = handle_tid(h);
	err = ext4_alloc_blocks(h, sbi, r >> 9, goal, EXT4_ALLOC_ROOT, &len,
				&o->blk);
	CHECK(c, !handle_stop(h));
	if (err == -EAGAIN) {
		CHECK(c, !journal_force_commit(sbi->journal));
		return;
	}
	if (err) {
		CHECK(c, err == -ENOSPC);
		return;
	}
	CHECK(c, len >= 1 && len <= asked);
	CHECK(c, ext4_block_range_ok(sbi, o->blk, len));
	for (u32 i = 0; i < len; i++) {
		u32 was = atomic_exchange(&c->owner[o->blk + i], OWNED);

		CHECK(c, was != OWNED);
		CHECK(c, was != tid); /* freed, and not committed */
	}
	o->len = len;
}

static void churn_free(struct churn *c, struct owned *o)
{
	struct ext4_sb *sbi = c->t->sbi;
	struct handle *h;

	/* An extent may touch several groups, but not by our allocations. */
	CHECK(c, !journal_start(sbi->journal, EXT4_ALLOC_CREDITS, 0, &h));
	for (u32 i = 0; i < o->len; i++)
		atomic_store(&c->owner[o->blk + i], handle_tid(h));
	CHECK(c, !ext4_free_blocks(h, sbi, 12, o->blk, o->len));
	CHECK(c, !handle_stop(h));
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
			CHECK(c, !journal_force_commit(c->t->sbi->journal));
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
	for (group_t g = 0; g < t.sbi->groups; g++) {
		assert_null(t.sbi->group_info[g].pending_blocks);
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

/* Nothing leaks (the sanitizer looks), nothing is handed out any more. */
static void test_abort_drops_what_was_pending(void **state)
{
	struct handle *h;
	struct at t;
	pblk_t blk;
	u32 len = 100;
	int errors;

	(void)state;
	at_start(&t, "-b 1024", "40M");
	h = at_handle(&t, EXT4_ALLOC_CREDITS * 2);
	assert_int_equal(ext4_alloc_blocks(h, t.sbi, 2, 0, 0, &len, &blk), 0);
	assert_int_equal(ext4_free_blocks(h, t.sbi, 12, blk, 50), 0);
	assert_int_equal(handle_stop(h), 0);
	h = at_handle(&t, EXT4_ALLOC_CREDITS * 2);
	at_quiet(&errors);
	journal_abort(t.sbi->journal, -EIO);
	assert_int_equal(ext4_free_blocks(h, t.sbi, 12, blk + 50, 50), -EROFS);
	assert_int_equal(ext4_alloc_blocks(h, t.sbi, 2, 0, 0, &len, &blk), -EROFS);
	assert_int_equal(handle_stop(h), -EROFS);
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
		cmocka_unit_test(test_abort_drops_what_was_pending),
		cmocka_unit_test(test_bad_descriptor_is_refused),
		cmocka_unit_test(test_overlapping_structures_are_refused),
		cmocka_unit_test(test_zones_and_geometry_agree_with_mke2fs),
		cmocka_unit_test(test_zone_across_the_end_of_a_group),
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
