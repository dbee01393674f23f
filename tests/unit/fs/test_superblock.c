/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_superblock.c - mount and unmount, with devices that fail
 *
 * A mount that fails at any write or read frees everything (sanitizers see to
 * it) and leaves a volume that the next mount recovers.
 */
#include "tests/unit/unit.h"
#include "tests/unit/fs/memvol.h"

#include "fs/ext4.h"
#include "fs/journal/jbd2_format.h"

static const struct sl_cred cred = { 0, 0, 022 };
/* The commits are the test's affair. */
static const struct sl_options opts = { .cache_bytes = 16 << 20,
					.commit_ms = 600000 };

static struct inode *make_file(struct super_block *sb, const char *name)
{
	struct inode *root, *inode;

	assert_int_equal(sl_iget(sb, 2, &root), 0);
	assert_int_equal(sl_mknod(root, name, strlen(name), S_IFREG | 0644, 0,
				  &cred, &inode), 0);
	sl_iput(root);
	return inode;
}

static int look(struct super_block *sb, const char *name, struct stat *st)
{
	struct inode *root, *inode;
	int err;

	assert_int_equal(sl_iget(sb, 2, &root), 0);
	err = sl_lookup(root, name, strlen(name), &inode);
	if (!err) {
		sl_getattr(inode, st);
		sl_iput(inode);
	}
	sl_iput(root);
	return err;
}

/* A volume as a crash leaves it: a log to replay, and orphans. */
static void make_dirty(struct memvol *mv, const char *mkfs)
{
	struct super_block *sb;
	struct inode *root, *inode;
	u8 *crash;

	memvol_make(mv, mkfs, "16M");
	crash = malloc(mv->size);
	assert_int_equal(memvol_mount(mv, &opts, &sb), 0);
	sl_iput(make_file(sb, "kept"));
	inode = make_file(sb, "orphan");
	assert_int_equal(sl_iget(sb, 2, &root), 0);
	assert_int_equal(sl_unlink(root, "orphan", 6), 0);
	sl_iput(root);
	assert_int_equal(sl_sync(sb), 0);
	memvol_snapshot(mv, crash);
	sl_iput(inode);
	assert_int_equal(sl_unmount(sb), 0);
	memcpy(mv->content, crash, mv->size);
	free(crash);
}

static void check_recovers(struct memvol *mv)
{
	struct super_block *sb;
	struct stat st;

	assert_int_equal(memvol_mount(mv, &opts, &sb), 0);
	assert_int_equal(look(sb, "kept", &st), 0);
	assert_int_equal(look(sb, "orphan", &st), -ENOENT);
	assert_int_equal(sl_unmount(sb), 0);
	/* With an error on record orphans are left to e2fsck. */
	if (le16_to_cpu(((struct ext4_super_block *)(mv->content + 1024))->s_state) &
	    EXT4_ERROR_FS) {
		memvol_store(mv);
		assert_int_equal(WEXITSTATUS(volume_run("e2fsck -fy %s >/dev/null 2>&1",
							mv->v.image)), 1);
		memvol_load(mv);
	}
	assert_int_equal(memvol_fsck(mv), 0);
}

static void write_failures(const char *mkfs, bool once)
{
	struct memvol mv;
	u8 *dirty;
	int failed = 0, n;

	make_dirty(&mv, mkfs);
	dirty = malloc(mv.size);
	memcpy(dirty, mv.content, mv.size);
	for (n = 0;; n++) {
		struct bdev *bd = memvol_open(&mv);
		struct super_block *sb;
		bool hit;
		int err;

		mv.fd->fail_once = once;
		memvol_fail_writes(&mv, n);
		err = sl_mount(bd, &opts, &sb);
		hit = err;
		if (!err) {
			pthread_mutex_lock(&mv.fd->lock);
			hit = mv.fd->fail_write_in <= 0;
			mv.fd->fail_write_in = -1;
			pthread_mutex_unlock(&mv.fd->lock);
			(void)sl_unmount(sb);
		}
		failed += err != 0;
		if (hit)
			check_recovers(&mv);
		memcpy(mv.content, dirty, mv.size);
		if (!hit)
			break;
	}
	assert_true(failed >= 3);
	free(dirty);
	memvol_free(&mv);
}

static void test_write_failures(void **state)
{
	write_failures("-b 4096 -O ^metadata_csum", true);
	write_failures("-b 1024 -O orphan_file", false);
}

static void test_flush_failures(void **state)
{
	struct memvol mv;
	u8 *dirty;

	make_dirty(&mv, "-b 1024");
	dirty = malloc(mv.size);
	memcpy(dirty, mv.content, mv.size);
	for (int n = 0; n < 4; n++) {
		struct bdev *bd = memvol_open(&mv);
		struct super_block *sb;

		mv.fd->fail_flush_in = n;
		if (!sl_mount(bd, &opts, &sb))
			(void)sl_unmount(sb);
		check_recovers(&mv);
		memcpy(mv.content, dirty, mv.size);
	}
	free(dirty);
	memvol_free(&mv);
}

/* Every place that mount reads: the error comes out, nothing is written. */
static void test_read_failures(void **state)
{
	struct memvol mv;
	u8 *before;
	int failed = 0;

	memvol_make(&mv, "-b 1024", "16M");
	before = malloc(mv.size);
	memcpy(before, mv.content, mv.size);
	for (u64 blk = 1; blk < 1200; blk += blk < 16 ? 1 : 61) {
		struct bdev *bd = memvol_open(&mv);
		struct super_block *sb;
		int err;

		mv.fd->fail_read_pos = blk * 1024;
		mv.fd->fail_read_len = 1024;
		err = sl_mount(bd, &opts, &sb);
		if (err) {
			failed++;
			assert_int_equal(err, -EIO);
		} else {
			mv.fd->fail_read_len = 0;
			assert_int_equal(sl_unmount(sb), 0);
		}
		memcpy(mv.content, before, mv.size);
	}
	assert_true(failed >= 2);
	free(before);
	memvol_free(&mv);
}

/* After an abort: unmount says so, and the last commit is what is there. */
static void test_unmount_after_abort(void **state)
{
	struct memvol mv;
	struct super_block *sb;
	struct inode *inode;
	struct stat st;

	memvol_make(&mv, "-b 1024", "16M");
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	sl_iput(make_file(sb, "kept"));
	assert_int_equal(sl_sync(sb), 0);
	inode = make_file(sb, "lost");
	memvol_fail_writes(&mv, 0);
	assert_int_not_equal(sl_sync(sb), 0);
	/* Whoever waits for a commit may hear of the abort first. */
	for (int i = 0; i < 60000 && !sl_is_readonly(sb); i++)
		usleep(1000);
	assert_true(sl_is_readonly(sb));
	sl_iput(inode);
	assert_int_not_equal(sl_unmount(sb), 0);

	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	assert_int_equal(look(sb, "kept", &st), 0);
	assert_int_equal(look(sb, "lost", &st), -ENOENT);
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(memvol_fsck(&mv), 0);
	memvol_free(&mv);
}

static u64 journal_block(struct memvol *mv)
{
	char cmd[256];
	unsigned long long blk = 0;
	FILE *f;

	snprintf(cmd, sizeof(cmd), "debugfs -R 'bmap <8> 0' %s 2>/dev/null",
		 mv->v.image);
	f = popen(cmd, "r");
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%llu", &blk), 1);
	pclose(f);
	return blk;
}

/* An error that only the journal knows of is in the superblock before it is
 * wiped off the journal. */
static void test_recorded_errno(void **state)
{
	struct memvol mv;
	struct super_block *sb;
	struct jbd2_superblock *jsb;
	bool in_super = false, wiped = false;
	u64 jpos;

	memvol_make(&mv, "-b 1024", "16M");
	jpos = journal_block(&mv) * 1024;
	jsb = (void *)(mv.content + jpos);
	jsb->s_errno = cpu_to_be32(5);
	struct bdev *bd = memvol_open(&mv);
	fake_record_start(mv.fd);
	assert_int_equal(sl_mount(bd, &opts, &sb), 0);
	for (u32 i = 0; i < mv.fd->nr; i++) {
		const struct fake_rec *r = &mv.fd->recs[i];

		if (r->len >= 1024 && r->pos == 1024) {
			const struct ext4_super_block *es = (void *)r->data;

			in_super |= le16_to_cpu(es->s_state) & EXT4_ERROR_FS;
		}
		if (r->len >= 1024 && r->pos == jpos) {
			jsb = (void *)r->data;
			wiped |= !be32_to_cpu(jsb->s_errno);
		}
		assert_true(in_super || !wiped);
	}
	assert_true(wiped);
	assert_int_equal(sl_unmount(sb), 0);
	assert_true(le16_to_cpu(((struct ext4_super_block *)(mv.content + 1024))->s_state) &
		    EXT4_ERROR_FS);
	memvol_free(&mv);
}

/* As the kernel counts: mke2fs has put the overhead into the superblock. */
static void test_statfs(void **state)
{
	static const char *const mkfs[] = {
		"-b 4096", "-b 1024", "-b 1024 -O sparse_super2",
		"-b 2048 -O ^flex_bg,meta_bg,^resize_inode",
		"-b 1024 -g 1024 -O ^64bit,meta_bg,^resize_inode",
		"-b 4096 -N 5000 -m 20 -O ^resize_inode",
	};

	for (size_t i = 0; i < ARRAY_SIZE(mkfs); i++) {
		struct memvol mv;
		struct super_block *sb;
		struct ext4_sb *sbi;
		struct statvfs st;
		u64 kept;

		memvol_make(&mv, mkfs[i], "32M");
		assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
		sbi = EXT4_SB(sb);
		assert_int_equal(sl_statfs(sb, &st), 0);
		assert_int_equal(st.f_blocks,
				 sbi->blocks_count -
					 le32_to_cpu(sbi->es->s_overhead_clusters));
		kept = le32_to_cpu(sbi->es->s_r_blocks_count_lo) +
		       min_of(sbi->blocks_count / 50, (u64)4096);
		assert_int_equal(st.f_bavail, st.f_bfree - kept);
		assert_int_equal(st.f_files, le32_to_cpu(sbi->es->s_inodes_count));
		assert_int_equal(sl_unmount(sb), 0);
		memvol_free(&mv);
	}
}

/* Clusters begin with block 0, also where blocks of 1 KiB have the superblock in block 1. */
static void test_clusters(void **state)
{
	static const struct {
		const char *mkfs;
		u32 bits;
	} volumes[] = {
		{ "-b 1024 -O bigalloc -C 4096", 2 },
		{ "-b 1024 -O bigalloc,^metadata_csum -C 16384", 4 },
		{ "-b 4096 -O bigalloc -C 65536", 4 },
	};
	const struct sl_options ro = { .readonly = true };

	for (size_t i = 0; i < ARRAY_SIZE(volumes); i++) {
		struct ext4_super_block *es;
		struct super_block *sb;
		struct memvol mv;
		struct statvfs st;
		struct stat found;

		memvol_make(&mv, volumes[i].mkfs, "32M");
		es = (void *)(mv.content + 1024);
		assert_int_equal(memvol_mount(&mv, &ro, &sb), 0);
		assert_int_equal(EXT4_SB(sb)->cluster_bits, volumes[i].bits);
		assert_int_equal(sl_statfs(sb, &st), 0);
		assert_int_equal(st.f_bfree,
				 le32_to_cpu(es->s_free_blocks_count_lo));
		assert_int_equal(look(sb, "lost+found", &found), 0);
		assert_true(S_ISDIR(found.st_mode));
		assert_int_equal(sl_unmount(sb), 0);
		if (!(le32_to_cpu(es->s_feature_ro_compat) & EXT4_RO_COMPAT_METADATA_CSUM)) {
			es->s_first_data_block = cpu_to_le32(1);
			assert_int_equal(memvol_mount(&mv, &ro, &sb), -EFSCORRUPTED);
			es->s_first_data_block = cpu_to_le32(0);
			es->s_clusters_per_group = cpu_to_le32(8);
			assert_int_equal(memvol_mount(&mv, &ro, &sb), -EFSCORRUPTED);
		}
		memvol_free(&mv);
	}
}

/* sb= far outside, and so far that the sum wraps. */
static void test_super_outside(void **state)
{
	struct sl_options o = { .readonly = true };
	struct super_block *sb;
	struct memvol mv;

	memvol_make(&mv, "-b 1024", "16M");
	o.sb_block = 16384;
	assert_int_equal(memvol_mount(&mv, &o, &sb), -EINVAL);
	o.sb_block = (1ull << 54) - 1;
	assert_int_equal(memvol_mount(&mv, &o, &sb), -EINVAL);
	o.sb_block = 8193;
	assert_int_equal(memvol_mount(&mv, &o, &sb), 0);
	assert_int_equal(sl_unmount(sb), 0);
	memvol_free(&mv);
}

/* Small blocks on large sectors: only if the device can do without direct I/O. */
static void test_blocks_below_sectors(void **state)
{
	struct super_block *sb;
	struct memvol mv;
	struct bdev *bd;

	memvol_make(&mv, "-b 1024", "16M");
	bd = memvol_open(&mv);
	bd->bd_sector = 4096;
	assert_int_equal(sl_mount(bd, &opts, &sb), -EOPNOTSUPP);
	bd = memvol_open(&mv);
	bd->bd_sector = 1024;
	assert_int_equal(sl_mount(bd, &opts, &sb), 0);
	assert_int_equal(sl_unmount(sb), 0);
	memvol_free(&mv);
}

/* A volume after a crash, whose log holds the superblock as `change` leaves it. */
static void super_in_log(struct memvol *mv, void (*change)(struct ext4_sb *sbi))
{
	struct ext4_super_block was;
	struct super_block *sb;
	struct ext4_sb *sbi;
	struct handle *h;
	u8 *crash;

	memvol_make(mv, "-b 1024", "16M");
	crash = malloc(mv->size);
	assert_int_equal(memvol_mount(mv, &opts, &sb), 0);
	sbi = EXT4_SB(sb);
	assert_int_equal(journal_start(sbi->journal, 4, 0, &h), 0);
	assert_int_equal(handle_get_write_access(h, sbi->sb_buf), 0);
	was = *sbi->es;
	change(sbi);
	handle_dirty(h, sbi->sb_buf);
	assert_int_equal(handle_stop(h), 0);
	assert_int_equal(journal_force_commit(sbi->journal), 0);
	memvol_snapshot(mv, crash);
	*sbi->es = was;
	assert_int_equal(sl_unmount(sb), 0);
	memcpy(mv->content, crash, mv->size);
	free(crash);
}

/* A feature that must not be written to. */
static void add_verity(struct ext4_sb *sbi)
{
	sbi->features_ro_compat |= EXT4_RO_COMPAT_VERITY;
	sbi->es->s_feature_ro_compat = cpu_to_le32(sbi->features_ro_compat);
}

static void test_log_changes_features(void **state)
{
	struct super_block *sb;
	struct memvol mv;

	super_in_log(&mv, add_verity);
	assert_int_equal(memvol_mount(&mv, &opts, &sb), -EROFS);
	memvol_free(&mv);
}

static void remove_journal(struct ext4_sb *sbi)
{
	sbi->es->s_feature_compat = cpu_to_le32(sbi->features_compat &
						~(u32)EXT4_COMPAT_HAS_JOURNAL);
}

static void move_journal(struct ext4_sb *sbi)
{
	sbi->es->s_journal_inum = cpu_to_le32(11);
}

/* What is said of the mounts that are refused. */
static void count_refusals(enum log_level level, const char *line, void *priv)
{
	if (strstr(line, "the log that was replayed says that the volume has"))
		++*(int *)priv;
}

static void test_log_takes_the_journal(void **state)
{
	static void (*const changes[])(struct ext4_sb *sbi) = { remove_journal, move_journal };
	const struct sl_options ro = { .readonly = true };

	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		struct super_block *sb;
		struct memvol mv;
		int said = 0;

		super_in_log(&mv, changes[i]);
		log_set_sink(count_refusals, &said);
		assert_int_equal(memvol_mount(&mv, &ro, &sb), -EFSCORRUPTED);
		assert_int_equal(memvol_mount(&mv, &opts, &sb), -EFSCORRUPTED);
		log_set_sink(NULL, NULL);
		assert_int_equal(said, 2);
		memvol_free(&mv);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_statfs),
		cmocka_unit_test(test_clusters),
		cmocka_unit_test(test_super_outside),
		cmocka_unit_test(test_blocks_below_sectors),
		cmocka_unit_test(test_recorded_errno),
		cmocka_unit_test(test_log_changes_features),
		cmocka_unit_test(test_log_takes_the_journal),
		cmocka_unit_test(test_unmount_after_abort),
		cmocka_unit_test(test_read_failures),
		cmocka_unit_test(test_flush_failures),
		cmocka_unit_test(test_write_failures),
	};

	return cmocka_run_group_tests(tests, unit_setup, NULL);
}
