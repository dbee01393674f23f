/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/alloc_test.h - mounted volumes for the allocator's tests
 *
 * The tests look below fs/fs.h: they hold handles and call the allocator as
 * the rest of fs/ does.
 */
#ifndef SLUICE_TESTS_ALLOC_TEST_H
#define SLUICE_TESTS_ALLOC_TEST_H

#include "tests/unit/unit.h"
#include "tests/unit/fs/faulty_bdev.h"
#include "tests/unit/fs/volume.h"

#include "fs/alloc_internal.h"

#include <fcntl.h>
#include <stdatomic.h>

struct at {
	struct volume v;
	struct super_block *sb;
	struct ext4_sb *sbi;
};

static inline void at_mount(struct at *t)
{
	struct sl_options opts = { .errors = SL_ERRORS_CONTINUE,
				   .commit_ms = 600000,
				   .dirty_expire_ms = 600000 };

	assert_int_equal(volume_mount(&t->v, &opts, &t->sb), 0);
	t->sbi = EXT4_SB(t->sb);
}

/* As at_mount(), on a device that can be made to fail. */
static inline struct faulty_bdev *at_mount_faulty(struct at *t)
{
	struct sl_options opts = { .errors = SL_ERRORS_CONTINUE,
				   .commit_ms = 600000,
				   .dirty_expire_ms = 600000 };
	struct faulty_bdev *f;
	struct bdev *bd;
	const char *why;

	assert_int_equal(bdev_open_aio(t->v.image, false, 0, &bd, &why), 0);
	f = faulty_bdev_new(bd);
	assert_int_equal(sl_mount(&f->bd, &opts, &t->sb), 0);
	t->sbi = EXT4_SB(t->sb);
	return f;
}

static inline void at_start(struct at *t, const char *mkfs_args, const char *size)
{
	volume_make(&t->v, mkfs_args, size);
	at_mount(t);
}

/* What memory knows of free space is what the bitmaps say; nobody else at work. */
static inline void at_check(struct at *t)
{
	const char *bad = ext4_balloc_check(t->sbi);

	if (bad)
		fail_msg("allocator: %s", bad);
}

/* Gives all claims back. */
static inline void at_drain(struct at *t)
{
	struct ext4_alloc *al = t->sbi->alloc;

	atomic_fetch_add(&al->drainers, 1);
	ext4_claims_drain(t->sbi);
	atomic_fetch_sub(&al->drainers, 1);
	assert_int_equal(atomic_load(&al->claimed), 0);
}

static inline u64 at_stat(struct at *t, enum ext4_alloc_stat what)
{
	return (u64)counter_sum(t->sbi->alloc->stat[what]);
}

/* Clean is the last word on every test that does not damage its volume. */
static inline void at_unmount_clean(struct at *t)
{
	assert_int_equal(sl_unmount(t->sb), 0);
	assert_int_equal(volume_fsck(&t->v), 0);
}

static inline void at_end(struct at *t)
{
	at_unmount_clean(t);
	volume_free(&t->v);
}

static inline struct handle *at_handle(struct at *t, u32 credits)
{
	struct handle *h;

	assert_int_equal(journal_start(t->sbi->journal, credits, 8, &h), 0);
	return h;
}

static inline void at_commit(struct at *t)
{
	assert_int_equal(journal_force_commit(t->sbi->journal), 0);
}

/* Output of a command with the image's name in it, at most len - 1 bytes. */
static inline void at_output(struct at *t, const char *fmt, char *buf, size_t len)
{
	char cmd[512];
	FILE *f;
	size_t n;

	snprintf(cmd, sizeof(cmd), fmt, t->v.image);
	f = popen(cmd, "r");
	assert_non_null(f);
	n = fread(buf, 1, len - 1, f);
	buf[n] = '\0';
	pclose(f);
}

/* XORs one byte of the image. */
static inline void at_damage(struct at *t, u64 pos, u8 mask)
{
	int fd = open(t->v.image, O_RDWR);
	u8 b;

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &b, 1, (off_t)pos), 1);
	b ^= mask;
	assert_int_equal(pwrite(fd, &b, 1, (off_t)pos), 1);
	close(fd);
}

static inline void quiet_sink(enum log_level level, const char *line, void *priv)
{
	(void)level;
	if (strstr(line, "error in") && priv)
		++*(int *)priv;
}

/* Counts reported errors in *errors instead of printing them. */
static inline void at_quiet(int *errors)
{
	*errors = 0;
	log_set_sink(quiet_sink, errors);
}

static inline void at_loud(void)
{
	log_set_sink(NULL, NULL);
}

#endif
