/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_journal_dev.c - volumes whose journal has a device of its own
 *
 * The volume and the log are two devices in memory. Whatever is wrong with the one that
 * should be the journal is an error with its reason; and where there is none, only who
 * asked to do without mounts. From read-only to read-write both go together, whatever
 * fails on the way.
 */
#include "tests/unit/unit.h"
#include "tests/unit/fs/memvol.h"

#include "fs/ext4.h"
#include "fs/journal/jbd2_format.h"
#include "lib/crc.h"

#define LOG_UUID "7d2c9a40-33b1-4f0e-8a6d-0c5b1e2f3a49"
#define LOG_BYTES (4u << 20)
#define ALL 0xFFFFFFFFu
#define LE32(f, v) ((f) = cpu_to_le32(v))
#define BE32(f, v) ((f) = cpu_to_be32(v))

static const struct sl_cred cred = { 0, 0, 022 };
/* The commits are the test's affair. */
static const struct sl_options base_opts = { .cache_bytes = 16 << 20, .commit_ms = 600000 };

static struct {
	struct memvol mv;
	u32 bs;
	char log_file[128];
	u8 *log;               /* while not mounted */
	u64 log_size;          /* of the device */
	struct fake_bdev *fd;  /* while mounted */
	int log_refuses;       /* to be opened for writing: the error, or 0 */
	_Atomic s64 cut_in;    /* writes and flushes of both until the power is cut; negative: never */
	char said[4096];
} fx;

static void note_line(enum log_level level, const char *line, void *priv)
{
	size_t len = strlen(fx.said);

	snprintf(fx.said + len, sizeof(fx.said) - len, "%s\n", line);
}

/* ---- the journal's device ---- */

static void log_close(struct bdev *bd)
{
	memcpy(fx.log, fake_of(bd)->mem, fx.log_size);
	fx.fd = NULL;
	fake_close(bd);
}

static bool power_is_cut(void)
{
	s64 left = atomic_load(&fx.cut_in);

	while (left > 0)
		if (atomic_compare_exchange_weak(&fx.cut_in, &left, left - 1))
			return false;
	return !left;
}

static void submit(struct bdev *bd, struct bio **bios, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct bio *bio = bios[i];

		if (bio->bi_op == BIO_WRITE && power_is_cut()) {
			bio->bi_error = -EIO;
			bio->bi_end_io(bio);
		} else {
			fake_submit(bd, &bio, 1);
		}
	}
}

static int flush(struct bdev *bd)
{
	return power_is_cut() ? -EIO : fake_flush(bd);
}

static int go_writable(struct bdev *bd, const char *own, const char **why)
{
	*why = "others read it, too";
	return fx.fd && bd == &fx.fd->bd ? fx.log_refuses : 0;
}

static void go_readonly(struct bdev *bd)
{
}

static struct bdev *log_open(bool readonly)
{
	static const struct bdev_ops ops = {
		.submit = submit,
		.flush = flush,
		.close = log_close,
		.go_writable = go_writable,
		.go_readonly = go_readonly,
	};

	fx.fd = fake_bdev_create(fx.log_size);
	memcpy(fx.fd->mem, fx.log, fx.log_size);
	fx.fd->bd.bd_ops = &ops;
	fx.fd->bd.bd_readonly = readonly;
	strcpy(fx.fd->bd.bd_name, "the-log");
	return &fx.fd->bd;
}

static struct bdev *volume_open(bool readonly)
{
	static const struct bdev_ops ops = {
		.submit = submit,
		.flush = flush,
		.close = memvol_close,
		.go_writable = go_writable,
		.go_readonly = go_readonly,
	};
	struct bdev *bd = memvol_open(&fx.mv);

	bd->bd_ops = &ops;
	bd->bd_readonly = readonly;
	return bd;
}

static struct ext4_super_block *volume_super(void)
{
	return (void *)(fx.mv.content + 1024);
}

static struct ext4_super_block *log_super(void)
{
	return (void *)(fx.log + 1024);
}

static struct jbd2_superblock *log_jsb(void)
{
	return (void *)(fx.log + (fx.bs == 1024 ? 2048 : fx.bs));
}

static void seal(struct ext4_super_block *es)
{
	if (le32_to_cpu(es->s_feature_ro_compat) & EXT4_RO_COMPAT_METADATA_CSUM)
		es->s_checksum = cpu_to_le32(
			crc32c(~0u, es, offsetof(struct ext4_super_block, s_checksum)));
}

static void log_io(bool out)
{
	FILE *f = fopen(fx.log_file, out ? "r+" : "r");
	size_t n = out ? fwrite(fx.log, 1, LOG_BYTES, f) : fread(fx.log, 1, LOG_BYTES, f);

	assert_int_equal(n, LOG_BYTES);
	fclose(f);
}

/* As mke2fs -J device= makes them, which wants block devices. */
static void begin_with(u32 bs, bool csum, const char *features)
{
	char cmd[512];

	fx.bs = bs;
	atomic_store(&fx.cut_in, -1);
	snprintf(cmd, sizeof(cmd), "-b %u -O ^has_journal,^orphan_file,%s%smetadata_csum", bs,
		 features, csum ? "" : "^");
	memvol_make(&fx.mv, cmd, "16M");
	memvol_debugfs(&fx.mv, "feature has_journal");
	memvol_debugfs(&fx.mv, "ssv journal_uuid " LOG_UUID);
	snprintf(fx.log_file, sizeof(fx.log_file), "%s.log", fx.mv.v.image);
	snprintf(cmd, sizeof(cmd), "mke2fs -q -F -b %u -U " LOG_UUID
		 " -O journal_dev,%smetadata_csum %s 4M >/dev/null", bs, csum ? "" : "^",
		 fx.log_file);
	if (system(cmd))
		abort();
	fx.log = malloc(LOG_BYTES);
	fx.log_size = LOG_BYTES;
	log_io(false);
	log_jsb()->s_nr_users = cpu_to_be32(1);
	memcpy(log_jsb()->s_users, volume_super()->s_uuid, 16);
}

static void begin(u32 bs, bool csum)
{
	begin_with(bs, csum, "");
}

static int fsck(void)
{
	char cmd[512];

	memvol_store(&fx.mv);
	log_io(true);
	snprintf(cmd, sizeof(cmd), "e2fsck -fn -j %s %s >/dev/null 2>&1", fx.log_file,
		 fx.mv.v.image);
	return system(cmd);
}

static void end(void)
{
	unlink(fx.log_file);
	free(fx.log);
	memvol_free(&fx.mv);
	memset(&fx, 0, sizeof(fx));
}

static int mount_with(const struct sl_options *opts, bool with_log, struct super_block **sb)
{
	struct sl_options o = *opts;
	int err;

	o.journal_bd = with_log ? log_open(o.readonly) : NULL;
	fx.said[0] = 0;
	log_set_sink(note_line, NULL);
	err = sl_mount(volume_open(o.readonly), &o, sb);
	log_set_sink(NULL, NULL);
	return err;
}

static int try_make(struct super_block *sb, const char *name)
{
	struct inode *root, *inode;
	int err;

	assert_int_equal(sl_iget(sb, 2, &root), 0);
	err = sl_mknod(root, name, strlen(name), S_IFREG | 0644, 0, &cred, &inode);
	if (!err)
		sl_iput(inode);
	sl_iput(root);
	return err;
}

static void make(struct super_block *sb, const char *name)
{
	assert_int_equal(try_make(sb, name), 0);
}

static int look(struct super_block *sb, const char *name)
{
	struct inode *root, *inode;
	int err;

	assert_int_equal(sl_iget(sb, 2, &root), 0);
	err = sl_lookup(root, name, strlen(name), &inode);
	if (!err)
		sl_iput(inode);
	sl_iput(root);
	return err;
}

/* A crash with a log to replay: "kept" is in the log, and nowhere else. */
static void make_dirty(void)
{
	u8 *volume = malloc(fx.mv.size), *log = malloc(LOG_BYTES);
	struct super_block *sb;

	assert_int_equal(mount_with(&base_opts, true, &sb), 0);
	make(sb, "kept");
	assert_int_equal(sl_sync(sb), 0);
	memvol_snapshot(&fx.mv, volume);
	pthread_mutex_lock(&fx.fd->lock);
	memcpy(log, fx.fd->mem, LOG_BYTES);
	pthread_mutex_unlock(&fx.fd->lock);
	assert_int_equal(sl_unmount(sb), 0);
	memcpy(fx.mv.content, volume, fx.mv.size);
	memcpy(fx.log, log, LOG_BYTES);
	free(volume);
	free(log);
	assert_int_not_equal(be32_to_cpu(log_jsb()->s_start), 0);
}

/* ---- what works ---- */

static const struct { u32 bs; bool csum; } kinds[] = {
	{ 1024, true }, { 1024, false }, { 4096, true }, { 4096, false },
};

static void test_mount_write_unmount(void **state)
{
	for (u32 i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct super_block *sb;
		struct statvfs st;
		char text[16384];

		begin(kinds[i].bs, kinds[i].csum);
		assert_int_equal(mount_with(&base_opts, true, &sb), 0);
		make(sb, "a");
		assert_int_equal(sl_statfs(sb, &st), 0);
		sl_stats(sb, text, sizeof(text));
		assert_non_null(strstr(text, "journal_device the-log\n"));
		assert_int_equal(sl_unmount(sb), 0);
		assert_int_equal(be32_to_cpu(log_jsb()->s_start), 0);
		assert_int_equal(fsck(), 0);
		assert_int_equal(mount_with(&base_opts, true, &sb), 0);
		assert_int_equal(look(sb, "a"), 0);
		assert_int_equal(sl_checkpoint(sb), 0);
		assert_int_equal(sl_erase_log(sb, false), 0);
		make(sb, "b");
		assert_int_equal(sl_unmount(sb), 0);
		assert_int_equal(fsck(), 0);
		end();
	}
}

static void test_recovery(void **state)
{
	for (u32 i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct super_block *sb;
		struct sl_options ro = base_opts;
		u8 *before;

		ro.readonly = true;
		begin(kinds[i].bs, kinds[i].csum);
		make_dirty();
		/* Read-only: in memory, and nothing is written to either device. */
		before = malloc(LOG_BYTES);
		memcpy(before, fx.log, LOG_BYTES);
		assert_int_equal(mount_with(&ro, true, &sb), 0);
		assert_int_equal(look(sb, "kept"), 0);
		assert_int_equal(atomic_load(&fx.fd->nr_writes), 0);
		assert_int_equal(atomic_load(&fx.mv.fd->nr_writes), 0);
		assert_int_equal(sl_unmount(sb), 0);
		assert_memory_equal(before, fx.log, LOG_BYTES);
		free(before);
		/* e2fsck takes our log. */
		assert_int_equal(mount_with(&base_opts, true, &sb), 0);
		assert_int_equal(look(sb, "kept"), 0);
		assert_int_equal(sl_unmount(sb), 0);
		assert_int_equal(fsck(), 0);
		end();
	}
}

/* ---- a remount ---- */

static const struct sl_options ro_opts = { .cache_bytes = 16 << 20, .commit_ms = 600000,
					   .readonly = true };

static int make_writable(struct super_block *sb)
{
	int err;

	fx.said[0] = 0;
	log_set_sink(note_line, NULL);
	err = sl_writable_begin(sb, NULL);
	if (!err)
		err = sl_writable_finish(sb);
	log_set_sink(NULL, NULL);
	return err;
}

/* Both devices, or none. */
static void expect_devices(bool readonly)
{
	assert_int_equal(fx.mv.fd->bd.bd_readonly, readonly);
	assert_int_equal(fx.fd->bd.bd_readonly, readonly);
}

static void test_becomes_writable(void **state)
{
	for (u32 i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct super_block *sb;

		begin(kinds[i].bs, kinds[i].csum);
		for (u32 dirty = 0; dirty < 2; dirty++) {
			if (dirty)
				make_dirty();
			assert_int_equal(mount_with(&ro_opts, true, &sb), 0);
			assert_int_equal(look(sb, "kept"), dirty ? 0 : -ENOENT);
			expect_devices(true);
			assert_int_equal(make_writable(sb), 0);
			expect_devices(false);
			assert_false(sl_is_readonly(sb));
			assert_int_equal(look(sb, "kept"), dirty ? 0 : -ENOENT);
			make(sb, dirty ? "more" : "new");
			assert_int_equal(sl_sync(sb), 0);
			/* The log is used. */
			assert_int_not_equal(atomic_load(&fx.fd->nr_writes), 0);
			/* Once more: nothing to do. */
			assert_int_equal(make_writable(sb), 0);
			assert_int_equal(sl_unmount(sb), 0);
			assert_int_equal(fsck(), 0);
		}
		end();
	}
}

static void refuses(struct super_block *sb, int err, const char *said)
{
	assert_int_equal(make_writable(sb), err);
	if (!strstr(fx.said, said))
		fail_msg("not \"%s\": %s", said, fx.said);
	expect_devices(true);
	assert_true(sl_is_readonly(sb));
	assert_int_equal(look(sb, "kept"), 0);
	assert_int_equal(atomic_load(&fx.fd->nr_writes), 0);
	assert_int_equal(atomic_load(&fx.mv.fd->nr_writes), 0);
}

static void test_refuses_to_become_writable(void **state)
{
	for (u32 bs = 1024; bs <= 4096; bs *= 4) {
		struct ext4_super_block *es;
		struct jbd2_superblock *jsb;
		struct super_block *sb;

		begin(bs, true);
		make_dirty();
		assert_int_equal(mount_with(&ro_opts, true, &sb), 0);
		fx.log_refuses = -EBUSY;
		refuses(sb, -EBUSY, "external journal the-log: others read it, too");
		fx.log_refuses = -EROFS;
		refuses(sb, -EROFS, "external journal the-log: ");
		fx.log_refuses = 0;
		/* Somebody had it meanwhile. */
		es = (void *)(fx.fd->mem + 1024);
		jsb = (void *)(fx.fd->mem + (bs == 1024 ? 2048 : bs));
		BE32(jsb->s_sequence, be32_to_cpu(jsb->s_sequence) + 1);
		refuses(sb, -EFSCORRUPTED, "the-log: it was changed since the volume was mounted");
		BE32(jsb->s_sequence, be32_to_cpu(jsb->s_sequence) - 1);
		BE32(jsb->s_start, 0);
		refuses(sb, -EFSCORRUPTED, "the-log: it was changed since");
		BE32(jsb->s_start, be32_to_cpu(log_jsb()->s_start));
		BE32(jsb->s_nr_users, 2);
		jsb->s_users[16] = 1;
		refuses(sb, -EFSCORRUPTED, "the-log: it was changed since");
		BE32(jsb->s_nr_users, 1);
		jsb->s_users[16] = 0;
		es->s_uuid[0] ^= 1;
		seal(es);
		refuses(sb, -EINVAL, "the-log is the journal of another volume");
		es->s_uuid[0] ^= 1;
		seal(es);
		es->s_magic = cpu_to_le16(0);
		refuses(sb, -EINVAL, "the-log is no external journal");
		es->s_magic = cpu_to_le16(EXT4_SUPER_MAGIC);
		for (u32 k = 0; k < 2; k++) {
			fx.fd->fail_read_pos = k ? (u64)((u8 *)jsb - fx.fd->mem) : 1024;
			fx.fd->fail_read_len = 512;
			refuses(sb, -EIO, "the-log: superblock can't be read");
			fx.fd->fail_read_len = 0;
		}
		((struct ext4_super_block *)(fx.mv.fd->mem + 1024))->s_mnt_count.raw ^= 1;
		refuses(sb, -EFSCORRUPTED, "the superblock was changed since");
		((struct ext4_super_block *)(fx.mv.fd->mem + 1024))->s_mnt_count.raw ^= 1;
		/* After all of that. */
		assert_int_equal(make_writable(sb), 0);
		make(sb, "more");
		assert_int_equal(sl_unmount(sb), 0);
		assert_int_equal(fsck(), 0);
		end();
	}
}

/* As of a mount: without the log, if there is nothing in it; and its device may stay. */
static void test_norecovery_becomes_writable(void **state)
{
	struct sl_options o = ro_opts;
	struct super_block *sb;

	o.noload = true;
	begin(1024, true);
	for (u32 with_log = 0; with_log < 2; with_log++) {
		assert_int_equal(mount_with(&o, with_log, &sb), 0);
		fx.log_refuses = -EROFS;
		assert_int_equal(make_writable(sb), 0);
		fx.log_refuses = 0;
		make(sb, with_log ? "with" : "without");
		if (with_log)
			assert_true(fx.fd->bd.bd_readonly);
		assert_int_equal(sl_unmount(sb), 0);
		assert_int_equal(fsck(), 0);
	}
	make_dirty();
	for (u32 with_log = 0; with_log < 2; with_log++) {
		assert_int_equal(mount_with(&o, with_log, &sb), 0);
		assert_int_equal(make_writable(sb), -EINVAL);
		assert_non_null(strstr(fx.said, "the journal was not replayed (norecovery)"));
		assert_true(fx.mv.fd->bd.bd_readonly);
		assert_int_equal(look(sb, "without"), 0);
		assert_int_equal(sl_unmount(sb), 0);
	}
	end();
}

/* Another host has the volume: the journal, too, is left alone. */
static void test_mmp_keeps_both(void **state)
{
	struct ext4_mmp_struct *mmp;
	struct super_block *sb;

	begin_with(1024, false, "mmp,");
	mmp = (void *)(fx.mv.content + le64_to_cpu(volume_super()->s_mmp_block) * 1024);
	assert_int_equal(le32_to_cpu(mmp->mmp_magic), EXT4_MMP_MAGIC);
	make_dirty();
	mmp->mmp_seq = cpu_to_le32(EXT4_MMP_SEQ_FSCK);
	assert_int_equal(mount_with(&ro_opts, true, &sb), 0);
	refuses(sb, -EBUSY, "e2fsck is running on the volume");
	mmp = (void *)(fx.mv.fd->mem + le64_to_cpu(volume_super()->s_mmp_block) * 1024);
	mmp->mmp_seq = cpu_to_le32(EXT4_MMP_SEQ_CLEAN);
	assert_int_equal(make_writable(sb), 0);
	make(sb, "more");
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(fsck(), 0);
	end();
}

struct contents {
	u8 *volume, *log;
};

static struct contents contents_keep(void)
{
	struct contents c = { malloc(fx.mv.size), malloc(LOG_BYTES) };

	memcpy(c.volume, fx.mv.content, fx.mv.size);
	memcpy(c.log, fx.log, LOG_BYTES);
	return c;
}

static void contents_put_back(const struct contents *c)
{
	memcpy(fx.mv.content, c->volume, fx.mv.size);
	memcpy(fx.log, c->log, LOG_BYTES);
}

static void contents_free(struct contents *c)
{
	free(c->volume);
	free(c->log);
}

static void expect_whole(bool check)
{
	struct super_block *sb;

	if (mount_with(&base_opts, true, &sb))
		fail_msg("%s", fx.said);
	assert_int_equal(look(sb, "kept"), 0);
	make(sb, "after");
	assert_int_equal(sl_unmount(sb), 0);
	assert_true(!check || !fsck());
}

/* Write or flush nr of a device fails, and all after it: 0 if there are not so many. */
static int fail_on_the_way(bool of_log, bool flushes, s64 nr)
{
	struct super_block *sb;
	struct fake_bdev *fd;
	int err;

	assert_int_equal(mount_with(&ro_opts, true, &sb), 0);
	fd = of_log ? fx.fd : fx.mv.fd;
	pthread_mutex_lock(&fd->lock);
	*(flushes ? &fd->fail_flush_in : &fd->fail_write_in) = nr;
	pthread_mutex_unlock(&fd->lock);
	err = make_writable(sb);
	pthread_mutex_lock(&fd->lock);
	fd->fail_flush_in = fd->fail_write_in = -1;
	pthread_mutex_unlock(&fd->lock);
	assert_int_equal(look(sb, "kept"), 0);
	assert_int_equal(sl_is_readonly(sb), err != 0);
	if (err && !sl_holds_volume(sb))
		expect_devices(true);
	/* Unless it counts as an error of the volume. */
	if (err) {
		int again = make_writable(sb);

		assert_true(again == 0 || again == -EROFS);
	}
	log_set_sink(note_line, NULL);
	(void)!sl_unmount(sb);
	log_set_sink(NULL, NULL);
	return err;
}

static void test_failures_on_the_way(void **state)
{
	struct contents c;

	begin(1024, true);
	make_dirty();
	c = contents_keep();
	for (u32 kind = 0; kind < 4; kind++) {
		int err = -EIO;

		for (s64 nr = 0; err; nr++) {
			assert_true(nr < 100);
			contents_put_back(&c);
			err = fail_on_the_way(kind & 1, kind & 2, nr);
			expect_whole(true);
		}
	}
	contents_free(&c);
	end();
}

/* What is left of a device; keep as of fake_crash_image(). */
static void crash_image(struct fake_bdev *fd, unsigned keep, unsigned *seed, u8 *to)
{
	struct fake_crash c;

	fake_crash_init(&c, fd);
	while (fake_crash_step(&c))
		;
	fake_crash_image(&c, to, fx.bs, keep, false, seed);
	fake_crash_release(&c);
}

/* Of both at once, after each of their writes and flushes. */
static void test_power_cut_on_the_way(void **state)
{
	static const unsigned keep[] = { 1000, 0, 500 };
	struct contents before, cut;
	unsigned seed = 1;
	int err = -EIO;

	begin(1024, true);
	make_dirty();
	before = contents_keep();
	cut = contents_keep();
	for (s64 nr = 0; err; nr++) {
		assert_true(nr < 200);
		for (u32 i = 0; i < ARRAY_SIZE(keep); i++) {
			struct super_block *sb;

			contents_put_back(&before);
			assert_int_equal(mount_with(&ro_opts, true, &sb), 0);
			fake_record_start(fx.fd);
			fake_record_start(fx.mv.fd);
			atomic_store(&fx.cut_in, nr);
			err = make_writable(sb);
			pthread_mutex_lock(&fx.fd->lock);
			crash_image(fx.fd, keep[i], &seed, cut.log);
			pthread_mutex_unlock(&fx.fd->lock);
			pthread_mutex_lock(&fx.mv.fd->lock);
			crash_image(fx.mv.fd, keep[i], &seed, cut.volume);
			pthread_mutex_unlock(&fx.mv.fd->lock);
			/* Of what else there is nothing arrives. */
			atomic_store(&fx.cut_in, 0);
			log_set_sink(note_line, NULL);
			(void)!sl_unmount(sb);
			log_set_sink(NULL, NULL);
			atomic_store(&fx.cut_in, -1);
			contents_put_back(&cut);
			expect_whole(i == 2);
		}
	}
	contents_free(&before);
	contents_free(&cut);
	end();
}

/* Data that no transaction carries is in the cache of the volume's device. */
static void test_fsync_flushes_the_volume(void **state)
{
	struct super_block *sb;
	struct inode *root, *inode;
	struct sl_file *f;
	u64 volume, log;
	char data[4096];

	begin(4096, true);
	assert_int_equal(mount_with(&base_opts, true, &sb), 0);
	assert_int_equal(sl_iget(sb, 2, &root), 0);
	assert_int_equal(sl_mknod(root, "f", 1, S_IFREG | 0644, 0, &cred, &inode), 0);
	assert_int_equal(sl_open(inode, SL_OPEN_WRITE, &f), 0);
	memset(data, 'x', sizeof(data));
	assert_int_equal(sl_write(f, data, sizeof(data), 0, 0, &cred), sizeof(data));
	volume = atomic_load(&fx.mv.fd->nr_flushes);
	log = atomic_load(&fx.fd->nr_flushes);
	assert_int_equal(sl_fsync(f, false), 0);
	/* A commit: both. */
	assert_true(atomic_load(&fx.mv.fd->nr_flushes) > volume);
	assert_true(atomic_load(&fx.fd->nr_flushes) > log);
	memset(data, 'y', sizeof(data));
	assert_int_equal(sl_write(f, data, sizeof(data), 0, 0, &cred), sizeof(data));
	volume = atomic_load(&fx.mv.fd->nr_flushes);
	assert_int_equal(sl_fsync(f, true), 0);
	assert_true(atomic_load(&fx.mv.fd->nr_flushes) > volume);
	sl_release(f);
	sl_iput(inode);
	sl_iput(root);
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(fsck(), 0);
	end();
}

/* A flush that fails of either of them: the commit is none. */
static void test_failed_flushes(void **state)
{
	for (int which = 0; which < 2; which++) {
		struct super_block *sb;
		struct fake_bdev *fd;

		begin(1024, true);
		assert_int_equal(mount_with(&base_opts, true, &sb), 0);
		make(sb, "a");
		fd = which ? fx.fd : fx.mv.fd;
		pthread_mutex_lock(&fd->lock);
		fd->fail_once = true;
		fd->fail_flush_in = 0;
		pthread_mutex_unlock(&fd->lock);
		log_set_sink(note_line, NULL);
		assert_int_not_equal(sl_sync(sb), 0);
		/* From then on; that the volume is read-only follows in a moment. */
		assert_int_equal(try_make(sb, "b"), -EROFS);
		(void)!sl_unmount(sb);
		log_set_sink(NULL, NULL);
		/* Not acknowledged, but whole. */
		assert_int_equal(mount_with(&base_opts, true, &sb), 0);
		assert_int_equal(sl_unmount(sb), 0);
		end();
	}
}

static void test_device_number(void **state)
{
	struct sl_options o = base_opts;
	struct super_block *sb;

	begin(1024, true);
	volume_super()->s_journal_dev = cpu_to_le32(0x811);
	seal(volume_super());
	assert_int_equal(mount_with(&o, true, &sb), 0);
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(le32_to_cpu(volume_super()->s_journal_dev), 0x811);
	o.journal_devno = 0x701;
	assert_int_equal(mount_with(&o, true, &sb), 0);
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(le32_to_cpu(volume_super()->s_journal_dev), 0x701);
	assert_int_equal(fsck(), 0);
	end();
}

/* Given to a volume that has no journal, it is not noted as its own. */
static void test_no_journal(void **state)
{
	struct sl_options o = base_opts;
	struct super_block *sb;

	begin(1024, true);
	volume_super()->s_feature_compat =
		cpu_to_le32(le32_to_cpu(volume_super()->s_feature_compat) &
			    ~(u32)EXT4_COMPAT_HAS_JOURNAL);
	memset(volume_super()->s_journal_uuid, 0, 16);
	seal(volume_super());
	o.journal_devno = 0x701;
	o.no_journal = true;
	assert_int_equal(mount_with(&o, true, &sb), 0);
	make(sb, "a");
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(le32_to_cpu(volume_super()->s_journal_dev), 0);
	assert_int_equal(memvol_fsck(&fx.mv), 0);
	end();
}

static void test_superblock_tells(void **state)
{
	struct sl_external_journal ext;
	struct bdev *bd;

	begin(1024, true);
	bd = memvol_open(&fx.mv);
	assert_int_equal(sl_superblock_journal(bd, 0, &ext), 0);
	assert_true(ext.external);
	assert_string_equal(ext.uuid, LOG_UUID);
	bdev_close(bd);
	end();
}

/* ---- without the device ---- */

static void test_no_device(void **state)
{
	struct sl_options rw = base_opts, ro = base_opts, no_rw = base_opts, no_ro = base_opts;
	struct super_block *sb;

	ro.readonly = no_ro.readonly = true;
	no_rw.noload = no_ro.noload = true;
	begin(1024, true);
	assert_int_equal(mount_with(&rw, false, &sb), -EINVAL);
	assert_non_null(strstr(fx.said, "journal is external (UUID " LOG_UUID ")"));
	assert_int_equal(mount_with(&ro, false, &sb), -EINVAL);
	assert_int_equal(mount_with(&no_ro, false, &sb), 0);
	assert_int_equal(sl_unmount(sb), 0);
	/* It is empty: like the kernel, without it. */
	assert_int_equal(mount_with(&no_rw, false, &sb), 0);
	make(sb, "without");
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(fsck(), 0);

	make_dirty();
	assert_int_equal(mount_with(&rw, false, &sb), -EINVAL);
	assert_int_equal(mount_with(&ro, false, &sb), -EINVAL);
	assert_int_equal(mount_with(&no_rw, false, &sb), -EINVAL);
	assert_int_equal(mount_with(&no_rw, true, &sb), -EINVAL);
	assert_int_equal(mount_with(&no_ro, false, &sb), 0);
	assert_int_equal(look(sb, "without"), 0);
	assert_int_equal(look(sb, "kept"), -ENOENT);
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(mount_with(&rw, true, &sb), 0);
	assert_int_equal(look(sb, "kept"), 0);
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(fsck(), 0);
	end();
}

/* One that the volume does not ask for. */
static void test_device_too_many(void **state)
{
	struct super_block *sb;

	begin(1024, true);
	volume_super()->s_journal_inum = cpu_to_le32(8);
	seal(volume_super());
	assert_int_equal(mount_with(&base_opts, true, &sb), -EINVAL);
	assert_non_null(strstr(fx.said, "there is no external one"));
	assert_null(fx.fd);
	volume_super()->s_journal_inum = cpu_to_le32(0);
	memset(volume_super()->s_journal_uuid, 0, 16);
	seal(volume_super());
	assert_int_equal(mount_with(&base_opts, true, &sb), -EFSCORRUPTED);
	assert_null(fx.fd);
	/* The journal is no volume. */
	memcpy(fx.mv.content, fx.log, LOG_BYTES);
	assert_int_equal(mount_with(&base_opts, false, &sb), -EOPNOTSUPP);
	assert_non_null(strstr(fx.said, "an external journal (feature journal_dev)"));
	end();
}

/* ---- what may be wrong with it ---- */

#define ES(fname, stmt)                                                        \
	static void es_##fname(void)                                           \
	{                                                                      \
		struct ext4_super_block *es = log_super();                     \
		stmt;                                                          \
		seal(es);                                                      \
	}
#define JSB(fname, stmt)                                                       \
	static void jsb_##fname(void)                                          \
	{                                                                      \
		struct jbd2_superblock *jsb = log_jsb();                       \
		stmt;                                                          \
	}
ES(magic, es->s_magic = cpu_to_le16(0))
ES(no_feature, LE32(es->s_feature_incompat, 0))
ES(uuid, es->s_uuid[15] ^= 1)
ES(block_size, LE32(es->s_log_block_size, le32_to_cpu(es->s_log_block_size) + 1))
ES(block_size_all, LE32(es->s_log_block_size, ALL))
ES(csum_type, es->s_checksum_type = 9)
ES(blocks_0, LE32(es->s_blocks_count_lo, 0))
ES(blocks_1023, LE32(es->s_blocks_count_lo, 1023))
ES(blocks_more, LE32(es->s_blocks_count_lo, le32_to_cpu(es->s_blocks_count_lo) + 1))
ES(blocks_all, LE32(es->s_blocks_count_lo, ALL))
ES(blocks_hi, LE32(es->s_blocks_count_hi, ALL);
   LE32(es->s_feature_incompat,
	le32_to_cpu(es->s_feature_incompat) | EXT4_INCOMPAT_64BIT))
JSB(magic, BE32(jsb->s_header.h_magic, 1))
JSB(v1, BE32(jsb->s_header.h_blocktype, JBD2_SB_V1))
JSB(type, BE32(jsb->s_header.h_blocktype, 77))
JSB(block_size, BE32(jsb->s_blocksize, 512))
JSB(maxlen_0, BE32(jsb->s_maxlen, 0))
JSB(maxlen_10, BE32(jsb->s_maxlen, 10))
JSB(maxlen_1023, BE32(jsb->s_maxlen, 1023))
JSB(maxlen_all, BE32(jsb->s_maxlen, ALL))
JSB(first_0, BE32(jsb->s_first, 0))
JSB(first_super, BE32(jsb->s_first, fx.bs == 1024 ? 2 : 1))
JSB(first_all, BE32(jsb->s_first, ALL))
JSB(start_super, BE32(jsb->s_start, 1))
JSB(start_all, BE32(jsb->s_start, ALL))
JSB(features, BE32(jsb->s_feature_incompat, 0x8000))
JSB(no_user, BE32(jsb->s_nr_users, 0))
JSB(users_2, BE32(jsb->s_nr_users, 2))
JSB(users_all, BE32(jsb->s_nr_users, ALL))
JSB(user, jsb->s_users[3] ^= 1)

static void es_csum(void)
{
	log_super()->s_checksum = cpu_to_le32(le32_to_cpu(log_super()->s_checksum) + 1);
}

static void dev_garbage(void)
{
	memset(fx.log, 0x5A, LOG_BYTES);
}

static void dev_small(void)
{
	fx.log_size = 1024;
}

static void dev_cut(void)
{
	fx.log_size = LOG_BYTES / 2;
}

static void dev_volume(void)
{
	memcpy(fx.log, fx.mv.content, LOG_BYTES);
}

static const struct {
	const char *name;
	void (*damage)(void);
	int err;
	const char *said;
	bool with_csum;
} damages[] = {
	{ "garbage", dev_garbage, -EINVAL, "it has no superblock" },
	{ "a volume", dev_volume, -EINVAL, "is that of a file system" },
	{ "1 KiB", dev_small, -EINVAL, "no superblock at 1024" },
	{ "half", dev_cut, -EFSCORRUPTED, "the device only" },
	{ "magic", es_magic, -EINVAL, "is no external journal" },
	{ "feature", es_no_feature, -EINVAL, "is that of a file system" },
	{ "uuid", es_uuid, -EINVAL, "journal of another volume" },
	{ "block size", es_block_size, -EINVAL, "its blocks are of" },
	{ "block size 2^32", es_block_size_all, -EINVAL, "its blocks are of" },
	{ "checksum type", es_csum_type, -EFSCORRUPTED, "unknown checksum type 9", true },
	{ "checksum", es_csum, -EFSBADCRC, "checksum of its superblock", true },
	{ "0 blocks", es_blocks_0, -EFSCORRUPTED, "too few" },
	{ "1023 blocks", es_blocks_1023, -EFSCORRUPTED, "too few" },
	{ "a block more", es_blocks_more, -EFSCORRUPTED, "the device only" },
	{ "2^32 blocks", es_blocks_all, -EFSCORRUPTED, "the device only" },
	{ "2^64 blocks", es_blocks_hi, -EFSCORRUPTED, "the device only" },
	{ "jsb magic", jsb_magic, -EFSCORRUPTED, "no superblock" },
	{ "jsb v1", jsb_v1, -EOPNOTSUPP, "version 1" },
	{ "jsb type", jsb_type, -EFSCORRUPTED, "unknown superblock type" },
	{ "jsb block size", jsb_block_size, -EFSCORRUPTED, "block size" },
	{ "jsb maxlen 0", jsb_maxlen_0, -EFSCORRUPTED, "the device has" },
	{ "jsb maxlen 10", jsb_maxlen_10, -EFSCORRUPTED, "too small" },
	{ "jsb maxlen 1023", jsb_maxlen_1023, -EFSCORRUPTED, "too small" },
	{ "jsb maxlen all", jsb_maxlen_all, -EFSCORRUPTED, "the device has" },
	{ "jsb first 0", jsb_first_0, -EFSCORRUPTED, "the device has" },
	{ "jsb first is super", jsb_first_super, -EFSCORRUPTED, "the device has" },
	{ "jsb first all", jsb_first_all, -EFSCORRUPTED, "the device has" },
	{ "jsb start is super", jsb_start_super, -EFSCORRUPTED, "outside of" },
	{ "jsb start all", jsb_start_all, -EFSCORRUPTED, "outside of" },
	{ "jsb features", jsb_features, -EOPNOTSUPP, "unknown features" },
	{ "no user", jsb_no_user, -EINVAL, "not among its users (it has none)" },
	{ "2 users", jsb_users_2, -EINVAL, "2 users" },
	{ "2^32 users", jsb_users_all, -EINVAL, "users" },
	{ "another user", jsb_user, -EINVAL, "not among its users (it has another one)" },
};

static void test_damages(void **state)
{
	for (u32 k = 0; k < 2; k++) {
		u8 *whole = malloc(LOG_BYTES);
		struct super_block *sb;

		begin(k ? 4096 : 1024, !k);
		memcpy(whole, fx.log, LOG_BYTES);
		for (u32 i = 0; i < ARRAY_SIZE(damages); i++) {
			int err;

			/* Of the second kind a third will do. */
			if (k && (damages[i].with_csum || i % 3))
				continue;
			damages[i].damage();
			err = mount_with(&base_opts, true, &sb);
			if (err != damages[i].err || !strstr(fx.said, damages[i].said))
				fail_msg("%s: error %d, not %d: %s", damages[i].name, err,
					 damages[i].err, fx.said);
			/* Nobody has kept it. */
			assert_null(fx.fd);
			fx.log_size = LOG_BYTES;
			memcpy(fx.log, whole, LOG_BYTES);
		}
		assert_int_equal(mount_with(&base_opts, true, &sb), 0);
		assert_int_equal(sl_unmount(sb), 0);
		assert_int_equal(fsck(), 0);
		free(whole);
		end();
	}
}

/* Bytes of a dirty log, at random: an error or a mount, and never a crash. */
static void test_random_damage(void **state)
{
	struct sl_options o = base_opts;
	unsigned seed = 42;
	u8 *volume, *log;

	begin(1024, true);
	make_dirty();
	volume = malloc(fx.mv.size);
	log = malloc(LOG_BYTES);
	memcpy(volume, fx.mv.content, fx.mv.size);
	memcpy(log, fx.log, LOG_BYTES);
	for (int i = 0; i < 24; i++) {
		struct super_block *sb;

		o.readonly = i % 2;
		for (int k = 0; k < 3; k++)
			fx.log[1024 + (u32)rand_r(&seed) % (i % 3 ? 2048 : 16384)] ^=
				(u8)(1u << rand_r(&seed) % 8);
		if (i % 4)
			seal(log_super());
		if (!mount_with(&o, true, &sb))
			(void)!sl_unmount(sb);
		assert_null(fx.fd);
		memcpy(fx.mv.content, volume, fx.mv.size);
		memcpy(fx.log, log, LOG_BYTES);
	}
	free(volume);
	free(log);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mount_write_unmount),
		cmocka_unit_test(test_recovery),
		cmocka_unit_test(test_becomes_writable),
		cmocka_unit_test(test_refuses_to_become_writable),
		cmocka_unit_test(test_norecovery_becomes_writable),
		cmocka_unit_test(test_mmp_keeps_both),
		cmocka_unit_test(test_failures_on_the_way),
		cmocka_unit_test(test_power_cut_on_the_way),
		cmocka_unit_test(test_fsync_flushes_the_volume),
		cmocka_unit_test(test_failed_flushes),
		cmocka_unit_test(test_device_number),
		cmocka_unit_test(test_no_journal),
		cmocka_unit_test(test_superblock_tells),
		cmocka_unit_test(test_no_device),
		cmocka_unit_test(test_device_too_many),
		cmocka_unit_test(test_damages),
		cmocka_unit_test(test_random_damage),
	};

	return cmocka_run_group_tests(tests, unit_setup, NULL);
}
