/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_mmp.c - multiple mount protection
 *
 * A second is a millisecond here. The other machine is a rule at the device: what is
 * in the block when it is read, so that nothing depends on who is faster.
 */
#include "../unit.h"

#include "fs/ext4.h"
#include "lib/crc.h"
#include "tests/unit/fs/memvol.h"

#include <errno.h>
#include <stdatomic.h>

static struct memvol mv;
static struct super_block *sb;
static const struct sl_options rw = { .cache_bytes = 16u << 20 };
static struct ext4_super_block es;
static u64 mmp_at; /* bytes */

/* ---- the device ---- */

static _Atomic u32 reads, writes; /* of the block */
static _Atomic u32 rival_from;    /* reads from this one on find the rival; 0: never */
static _Atomic bool fail_writes;

static struct ext4_mmp_struct *block_in(u8 *mem)
{
	return (void *)(mem + mmp_at);
}

static void seal(struct ext4_mmp_struct *mmp)
{
	u32 seed = crc32c(~0u, es.s_uuid, sizeof(es.s_uuid));

	mmp->mmp_checksum = cpu_to_le32(
		crc32c(seed, mmp, offsetof(struct ext4_mmp_struct, mmp_checksum)));
}

static void rival_counts(struct fake_bdev *fd)
{
	struct ext4_mmp_struct *mmp = block_in(fd->mem);

	pthread_mutex_lock(&fd->lock);
	mmp->mmp_seq = cpu_to_le32(le32_to_cpu(mmp->mmp_seq) + 7);
	memset(mmp->mmp_nodename, 0, sizeof(mmp->mmp_nodename));
	strcpy(mmp->mmp_nodename, "rival");
	seal(mmp);
	pthread_mutex_unlock(&fd->lock);
}

static void submit(struct bdev *bd, struct bio **bios, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct bio *bio = bios[i];
		bool mine = bio->bi_pos == mmp_at;

		if (mine && bio->bi_op == BIO_READ) {
			u32 nr = atomic_fetch_add(&reads, 1) + 1, from = atomic_load(&rival_from);

			if (from && nr >= from)
				rival_counts(fake_of(bd));
		} else if (mine && bio->bi_op == BIO_WRITE) {
			if (atomic_load(&fail_writes)) {
				bio->bi_error = -EIO;
				bio->bi_end_io(bio);
				continue;
			}
			atomic_fetch_add(&writes, 1);
		}
		fake_submit(bd, &bio, 1);
	}
}

static const struct bdev_ops rival_ops = {
	.submit = submit,
	.flush = fake_flush,
	.close = memvol_close,
};

/* ---- helpers ---- */

static void wait_for(const _Atomic u32 *count, u32 at_least)
{
	for (int i = 0; i < 60000 && atomic_load(count) < at_least; i++)
		usleep(1000);
	assert_true(atomic_load(count) >= at_least);
}

static int mount_it(const struct sl_options *o)
{
	struct bdev *bd = memvol_open(&mv);

	atomic_store(&reads, 0);
	atomic_store(&writes, 0);
	bd->bd_ops = &rival_ops;
	return sl_mount(bd, o, &sb);
}

static struct ext4_mmp_struct *on_disk(void)
{
	return block_in(mv.content);
}

static void set_seq(u32 seq)
{
	on_disk()->mmp_seq = cpu_to_le32(seq);
	seal(on_disk());
}

static void make(const char *features)
{
	memvol_make(&mv, features, "8M");
	memcpy(&es, mv.content + 1024, sizeof(es));
	mmp_at = le64_to_cpu(es.s_mmp_block) * (1024ull << le32_to_cpu(es.s_log_block_size));
	assert_int_equal(le32_to_cpu(on_disk()->mmp_magic), EXT4_MMP_MAGIC);
}

static void quiet(enum log_level level, const char *line, void *priv)
{
}

static int setup(void **state)
{
	ext4_mmp_second_ns = 1000000;
	atomic_store(&rival_from, 0);
	atomic_store(&fail_writes, false);
	make("-O mmp -b 1024");
	return 0;
}

static int teardown(void **state)
{
	memvol_free(&mv);
	return 0;
}

/* The volume is as it was, to the byte. */
static void refused(int error, const struct sl_options *o)
{
	u8 *before = malloc(mv.size);

	memcpy(before, mv.content, mv.size);
	assert_int_equal(mount_it(o), error);
	assert_int_equal(atomic_load(&writes), 0);
	/* What the rival did aside. */
	memcpy(before + mmp_at, mv.content + mmp_at, sizeof(struct ext4_mmp_struct));
	assert_memory_equal(before, mv.content, mv.size);
	free(before);
}

/* ---- tests ---- */

static void test_counts_while_mounted_and_is_clean_after(void **state)
{
	u32 seq, nr;

	assert_int_equal(le32_to_cpu(on_disk()->mmp_seq), EXT4_MMP_SEQ_CLEAN);
	assert_int_equal(mount_it(&rw), 0);
	wait_for(&writes, 3);
	memvol_snapshot(&mv, mv.content);
	nr = atomic_load(&writes);
	seq = le32_to_cpu(on_disk()->mmp_seq);
	assert_true(seq && seq <= EXT4_MMP_SEQ_MAX);
	/* A write is counted before it is there, and the next one after it. */
	wait_for(&writes, nr + 2);
	memvol_snapshot(&mv, mv.content);
	assert_int_not_equal(le32_to_cpu(on_disk()->mmp_seq), seq);
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(le32_to_cpu(on_disk()->mmp_seq), EXT4_MMP_SEQ_CLEAN);
	assert_int_equal(memvol_fsck(&mv), 0);
}

/* The one before us died: its count stands still. */
static void test_taken_over_from_the_dead(void **state)
{
	set_seq(4711);
	assert_int_equal(mount_it(&rw), 0);
	assert_true(atomic_load(&reads) >= 3);
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(le32_to_cpu(on_disk()->mmp_seq), EXT4_MMP_SEQ_CLEAN);
}

static void test_refused_while_another_counts(void **state)
{
	struct sl_options ro = rw;

	set_seq(4711);
	atomic_store(&rival_from, 2);
	refused(-EBUSY, &rw);
	assert_string_equal(on_disk()->mmp_nodename, "rival");
	/* Reading disturbs nobody. */
	ro.readonly = true;
	assert_int_equal(mount_it(&ro), 0);
	assert_int_equal(atomic_load(&reads), 0);
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(atomic_load(&writes), 0);
}

/* Both found it clean, or dead; the rival wrote last. */
static void test_refused_if_another_starts_at_once(void **state)
{
	u8 *before = malloc(mv.size);

	memcpy(before, mv.content, mv.size);
	atomic_store(&rival_from, 2);
	assert_int_equal(mount_it(&rw), -EBUSY);
	assert_int_equal(atomic_load(&writes), 1);
	assert_string_equal(on_disk()->mmp_nodename, "rival");
	memcpy(before + mmp_at, mv.content + mmp_at, sizeof(struct ext4_mmp_struct));
	assert_memory_equal(before, mv.content, mv.size);
	free(before);
}

static void test_refused_beside_e2fsck_and_damage(void **state)
{
	struct ext4_mmp_struct good = *on_disk();
	struct ext4_super_block *s = (void *)(mv.content + 1024);

	set_seq(EXT4_MMP_SEQ_FSCK);
	refused(-EBUSY, &rw);
	*on_disk() = good;
	on_disk()->mmp_time = cpu_to_le64(1);
	refused(-EFSBADCRC, &rw);
	on_disk()->mmp_magic = cpu_to_le32(1);
	seal(on_disk());
	refused(-EFSCORRUPTED, &rw);
	*on_disk() = good;
	for (u32 i = 0; i < 3; i++) {
		static const u64 outside[] = { 0, 8192, UINT64_MAX };

		s->s_mmp_block = cpu_to_le64(outside[i]);
		s->s_checksum = cpu_to_le32(
			crc32c(~0u, s, offsetof(struct ext4_super_block, s_checksum)));
		refused(-EFSCORRUPTED, &rw);
	}
	/* A structure of the volume itself. */
	s->s_mmp_block = cpu_to_le64(2);
	s->s_checksum = cpu_to_le32(
		crc32c(~0u, s, offsetof(struct ext4_super_block, s_checksum)));
	refused(-EFSCORRUPTED, &rw);
}

/* Silent for too long, and another took the volume: not one byte more is written. */
static void test_stops_when_it_lost_the_volume(void **state)
{
	assert_int_equal(mount_it(&rw), 0);
	wait_for(&writes, 2);
	atomic_store(&rival_from, 1);
	atomic_store(&fail_writes, true);
	for (int i = 0; i < 60000 && !sl_is_readonly(sb); i++)
		usleep(1000);
	assert_true(sl_is_readonly(sb));
	atomic_store(&fail_writes, false);
	(void)!sl_unmount(sb);
	assert_string_equal(on_disk()->mmp_nodename, "rival");
	assert_int_not_equal(le32_to_cpu(on_disk()->mmp_seq), EXT4_MMP_SEQ_CLEAN);
	/* The journal was aborted, so nothing but the error in the superblock. */
	assert_true(le16_to_cpu(((struct ext4_super_block *)(mv.content + 1024))->s_state) &
		    EXT4_ERROR_FS);
}

/* A device that fails for a while is still ours. */
static void test_goes_on_after_failed_writes(void **state)
{
	u32 nr;

	assert_int_equal(mount_it(&rw), 0);
	wait_for(&writes, 2);
	nr = atomic_load(&reads);
	atomic_store(&fail_writes, true);
	wait_for(&reads, nr + 1);
	atomic_store(&fail_writes, false);
	wait_for(&writes, atomic_load(&writes) + 2);
	assert_false(sl_is_readonly(sb));
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(le32_to_cpu(on_disk()->mmp_seq), EXT4_MMP_SEQ_CLEAN);
	assert_int_equal(memvol_fsck(&mv), 0);
}

/* Shut down it is silent, and leaves alone what another has written since. */
static void test_silent_after_a_shutdown(void **state)
{
	for (int taken = 0; taken < 2; taken++) {
		u32 nr;

		/* Its time never comes. */
		ext4_mmp_second_ns = 1000000000000ull;
		assert_int_equal(mount_it(&rw), 0);
		nr = atomic_load(&writes);
		assert_int_equal(sl_shutdown(sb, SL_SHUTDOWN_NOLOGFLUSH), 0);
		if (taken)
			rival_counts(mv.fd);
		assert_int_equal(sl_unmount(sb), 0);
		assert_int_equal(atomic_load(&writes), nr + !taken);
		if (taken)
			assert_string_equal(on_disk()->mmp_nodename, "rival");
		else
			assert_int_equal(le32_to_cpu(on_disk()->mmp_seq),
					 EXT4_MMP_SEQ_CLEAN);
	}
	/* ... or comes at once. */
	set_seq(EXT4_MMP_SEQ_CLEAN);
	ext4_mmp_second_ns = 1000000;
	assert_int_equal(mount_it(&rw), 0);
	assert_int_equal(sl_shutdown(sb, SL_SHUTDOWN_NOLOGFLUSH), 0);
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(le32_to_cpu(on_disk()->mmp_seq), EXT4_MMP_SEQ_CLEAN);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_counts_while_mounted_and_is_clean_after),
		T(test_taken_over_from_the_dead),
		T(test_refused_while_another_counts),
		T(test_refused_if_another_starts_at_once),
		T(test_refused_beside_e2fsck_and_damage),
		T(test_stops_when_it_lost_the_volume),
		T(test_goes_on_after_failed_writes),
		T(test_silent_after_a_shutdown),
	};

	thread_register();
	log_set_sink(quiet, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
