/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_bulkstat.c - all inodes by number, against walks by name
 *
 * On volumes of each block size and feature set: quiet, then with threads that
 * create, remove, change and write, caches that are dropped, and checkpoints;
 * with one change at each moment of a scan; and with damage.
 */
#include "tests/unit/unit.h"
#include "tests/unit/fs/faulty_bdev.h"
#include "tests/unit/fs/volume.h"

#include "cache/icache.h"
#include "fs/ext4.h"
#include "lib/wait.h"

#include <stdatomic.h>
#include <sys/sysmacros.h>

static const struct sl_cred cred = { 0, 0, 022 };

/* ---- what there should be: a walk by name ---- */

struct seen {
	struct stat st;
	u32 generation;
};

struct walk {
	struct super_block *sb;
	struct seen *all; /* by inode number */
	u64 max, nr;
	bool settled; /* nothing is being written out */
	struct inode *dirs[4096];
	u32 nr_dirs;
};

static int walk_entry(void *priv, const struct sl_dirent *de)
{
	struct walk *w = priv;
	struct inode *inode;

	if (de->name[0] == '.' &&
	    (de->namelen == 1 || (de->namelen == 2 && de->name[1] == '.')))
		return 0;
	assert_true(de->ino < w->max);
	if (w->all[de->ino].st.st_ino)
		return 0;
	/* The directory is locked: an inode of it may not be its own. */
	assert_int_equal(sl_iget(w->sb, de->ino, &inode), 0);
	sl_getattr(inode, &w->all[de->ino].st);
	w->all[de->ino].generation = sl_generation(inode);
	w->nr++;
	if (S_ISDIR(w->all[de->ino].st.st_mode)) {
		assert_true(w->nr_dirs < ARRAY_SIZE(w->dirs));
		w->dirs[w->nr_dirs++] = inode;
		return 0;
	}
	sl_iput(inode);
	return 0;
}

static void walk(struct super_block *sb, struct walk *w)
{
	struct statvfs vfs;
	struct inode *root;

	memset(w, 0, sizeof(*w));
	assert_int_equal(sl_statfs(sb, &vfs), 0);
	w->sb = sb;
	w->max = vfs.f_files + 1;
	w->all = calloc(w->max, sizeof(*w->all));
	assert_non_null(w->all);
	assert_int_equal(sl_iget(sb, 2, &root), 0);
	sl_getattr(root, &w->all[2].st);
	w->all[2].generation = sl_generation(root);
	w->nr = 1;
	w->dirs[w->nr_dirs++] = root;
	while (w->nr_dirs) {
		struct inode *dir = w->dirs[--w->nr_dirs];
		struct sl_file *f;

		assert_int_equal(sl_opendir(dir, &f), 0);
		assert_int_equal(sl_readdir(f, 0, walk_entry, w), 0);
		sl_release(f);
		sl_iput(dir);
	}
}

static bool same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static void same_inode(const struct sl_bulkstat_rec *r, const struct seen *s,
		       bool settled)
{
	assert_int_equal(r->error, 0);
	assert_int_equal(r->lost, 0);
	assert_int_equal(r->ino, s->st.st_ino);
	assert_int_equal(r->generation, s->generation);
	assert_int_equal(r->mode, s->st.st_mode);
	assert_int_equal(r->nlink, s->st.st_nlink);
	assert_int_equal(r->uid, s->st.st_uid);
	assert_int_equal(r->gid, s->st.st_gid);
	assert_int_equal(r->size, s->st.st_size);
	/* While blocks are allocated they are promised, too, for a moment. */
	if (settled)
		assert_int_equal(r->blocks, s->st.st_blocks);
	assert_int_equal(r->rdev, s->st.st_rdev);
	/* The walk itself reads directories. */
	if (!S_ISDIR(s->st.st_mode))
		assert_true(same_time(r->atime, s->st.st_atim));
	assert_true(same_time(r->mtime, s->st.st_mtim));
	assert_true(same_time(r->ctime, s->st.st_ctim));
}

/* Scans [first, last] by `step` records and compares; number of records. */
static u64 scan_and_compare(const struct walk *w, u64 first, u64 last, u32 flags,
			    size_t step)
{
	struct sl_bulkstat_rec recs[300];
	struct sl_bulkstat *bs;
	u64 n = 0, prev = 0;
	size_t got;

	assert_int_equal(sl_bulkstat_open(w->sb, first, last, flags, &bs), 0);
	while ((got = sl_bulkstat_read(bs, recs, step)) > 0) {
		assert_true(got <= step);
		for (size_t i = 0; i < got; i++, n++) {
			assert_true(recs[i].ino > prev);
			assert_in_range(recs[i].ino, first, last);
			prev = recs[i].ino;
			assert_true(prev < w->max);
			same_inode(&recs[i], &w->all[prev], w->settled);
		}
		if (got == step)
			assert_int_equal(sl_bulkstat_cursor(bs), prev + 1);
	}
	assert_true(sl_bulkstat_cursor(bs) > prev);
	assert_int_equal(sl_bulkstat_read(bs, recs, step), 0);
	sl_bulkstat_close(bs);
	return n;
}

static u64 stat_of(struct super_block *sb, const char *name)
{
	char text[16384], key[64], *at;
	size_t len = sl_stats(sb, text + 1, sizeof(text) - 2);

	text[0] = '\n';
	text[len + 1] = '\0';
	snprintf(key, sizeof(key), "\n%s ", name);
	at = strstr(text, key);
	assert_non_null(at);
	return strtoull(at + strlen(key), NULL, 10);
}

/* ---- volumes ---- */

static void put(struct super_block *sb, struct inode *dir, const char *name,
		u32 mode, u64 rdev, size_t size)
{
	static u8 data[70000];
	struct inode *inode;
	struct sl_file *f;

	assert_int_equal(sl_mknod(dir, name, strlen(name), mode, rdev, &cred,
				  &inode), 0);
	if (size) {
		assert_int_equal(sl_open(inode, SL_OPEN_WRITE, &f), 0);
		assert_int_equal(sl_write(f, data, size, 0, 0, &cred), size);
		sl_release(f);
	}
	sl_iput(inode);
}

static void populate(struct super_block *sb)
{
	struct inode *root, *dir, *inode;
	char name[64];

	assert_int_equal(sl_iget(sb, 2, &root), 0);
	for (int d = 0; d < 12; d++) {
		snprintf(name, sizeof(name), "dir%d", d);
		assert_int_equal(sl_mkdir(root, name, strlen(name), 0750, &cred,
					  &dir), 0);
		for (int i = 0; i < 60; i++) {
			snprintf(name, sizeof(name), "file%d", i);
			put(sb, dir, name, S_IFREG | (u32)(0400 | i), 0,
			    i % 4 ? 0 : (size_t)i * 1100);
		}
		for (int i = 0; i < 60; i += 3) {
			snprintf(name, sizeof(name), "file%d", i);
			if (i % 2)
				assert_int_equal(sl_unlink(dir, name, strlen(name)), 0);
		}
		put(sb, dir, "chr", S_IFCHR | 0600, makedev(300, 70000), 0);
		put(sb, dir, "fifo", S_IFIFO | 0600, 0, 0);
		assert_int_equal(sl_symlink(dir, "link", 4, "to/where", &cred,
					    &inode), 0);
		sl_iput(inode);
		assert_int_equal(sl_lookup(dir, "file2", 5, &inode), 0);
		assert_int_equal(sl_link(inode, dir, "hard", 4), 0);
		sl_iput(inode);
		sl_iput(dir);
	}
	sl_iput(root);
}

struct consumer {
	const struct walk *w;
	u64 first, last, n;
};

static void consume(void *arg)
{
	struct consumer *c = arg;

	c->n = scan_and_compare(c->w, c->first, c->last, 0, 50);
}

static void consumers(const struct walk *w)
{
	struct consumer c[3];
	struct thread *t[3];
	u64 n = 0;

	for (u32 i = 0; i < 3; i++) {
		c[i] = (struct consumer){ .w = w, .first = 1, .last = 1 };
		if (!sl_bulkstat_part(w->sb, i, 3, &c[i].first, &c[i].last))
			c[i].first = c[i].last = 1; /* never reported */
		assert_int_equal(thread_create(&t[i], "consumer", consume, &c[i]), 0);
	}
	for (u32 i = 0; i < 3; i++) {
		thread_join(t[i]);
		n += c[i].n;
	}
	assert_int_equal(n, w->nr);
}

static void all_ways(struct super_block *sb, bool settled)
{
	struct walk w;
	u64 mid, n;

	walk(sb, &w);
	w.settled = settled;
	assert_int_equal(scan_and_compare(&w, 1, UINT64_MAX, 0, 300), w.nr);
	assert_int_equal(scan_and_compare(&w, 0, w.max - 1, 0, 1), w.nr);
	assert_int_equal(scan_and_compare(&w, 1, UINT64_MAX, SL_BULKSTAT_SMALL, 7),
			 w.nr);
	mid = w.max / 3;
	n = scan_and_compare(&w, 1, mid, 0, 100);
	n += scan_and_compare(&w, mid + 1, mid + 1, 0, 100);
	n += scan_and_compare(&w, mid + 2, UINT64_MAX, 0, 100);
	assert_int_equal(n, w.nr);
	assert_int_equal(scan_and_compare(&w, w.max + 10, UINT64_MAX, 0, 1), 0);
	consumers(&w);
	free(w.all);
}

static void one_volume(const char *mkfs, const char *size)
{
	struct sl_options opts = { .cache_bytes = 16u << 20 };
	struct super_block *sb;
	struct volume v;
	struct walk w;

	volume_make(&v, mkfs, size);
	assert_int_equal(volume_mount(&v, &opts, &sb), 0);
	all_ways(sb, true);
	populate(sb);
	all_ways(sb, false); /* much of it is dirty, in memory only */
	assert_int_equal(sl_sync(sb), 0);
	sl_drop_caches(sb);
	all_ways(sb, true); /* waits for its checkpoint */
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(volume_mount(&v, &opts, &sb), 0);
	all_ways(sb, true);
	/* Cold: nothing is instantiated. */
	walk(sb, &w);
	assert_int_equal(sl_sync(sb), 0); /* the walk's access times */
	w.settled = true;
	sl_drop_caches(sb);
	assert_int_equal(stat_of(sb, "inodes"), 0);
	assert_int_equal(scan_and_compare(&w, 1, UINT64_MAX, 0, 300), w.nr);
	assert_int_equal(stat_of(sb, "inodes"), 0);
	free(w.all);
	assert_int_equal(sl_unmount(sb), 0);
	opts.readonly = true;
	assert_int_equal(volume_mount(&v, &opts, &sb), 0);
	all_ways(sb, true);
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(volume_fsck(&v), 0);
	volume_free(&v);
}

static void test_default_features(void **state)
{
	one_volume("-b 4096", "64M");
}

static void test_1k_blocks_small_groups(void **state)
{
	one_volume("-b 1024 -g 1024 -N 4096", "32M");
}

static void test_2k_blocks_big_inodes(void **state)
{
	one_volume("-b 2048 -I 1024 -O orphan_file", "64M");
}

static void test_no_checksums(void **state)
{
	one_volume("-b 1024 -O ^metadata_csum,^uninit_bg -I 128", "32M");
}

static void test_group_checksums_only(void **state)
{
	one_volume("-b 4096 -O ^metadata_csum,uninit_bg,^flex_bg,^64bit", "64M");
}

static void test_meta_bg(void **state)
{
	one_volume("-b 1024 -O meta_bg,^resize_inode,sparse_super2,large_dir", "48M");
}

/* ---- bigger than a window; groups never used ---- */

static u64 meta_bytes_read(struct bdev *bd)
{
	struct bdev_stats st;

	bdev_get_stats(bd, &st);
	return st.dir[BIO_READ].meta_bytes;
}

static void test_uninitialised_tables_are_not_read(void **state)
{
	struct sl_options opts = { .cache_bytes = 64u << 20 };
	struct super_block *sb;
	struct volume v;
	struct bdev *bd;
	const char *why;
	struct walk w;
	u64 before, tables;

	/* 32 groups of 8192 inodes: tables of 64 MiB. */
	volume_make(&v, "-b 4096 -g 2048 -N 65536", "256M");
	assert_int_equal(bdev_open_aio(v.image, false, 0, &bd, &why), 0);
	assert_int_equal(sl_mount(bd, &opts, &sb), 0);
	populate(sb);
	walk(sb, &w);
	assert_int_equal(sl_sync(sb), 0);
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(bdev_open_aio(v.image, false, 0, &bd, &why), 0);
	assert_int_equal(sl_mount(bd, &opts, &sb), 0);
	w.sb = sb;
	tables = (w.max - 1) * 256;
	before = meta_bytes_read(bd);
	assert_int_equal(scan_and_compare(&w, 1, UINT64_MAX, 0, 300), w.nr);
	assert_true(meta_bytes_read(bd) - before < tables / 4);
	assert_true(meta_bytes_read(bd) - before > w.nr * 256);
	assert_int_equal(sl_unmount(sb), 0);
	free(w.all);
	volume_free(&v);
}

/* ---- while others work ---- */

#define STABLE 96
#define VOLATILE 400

/*
 * A stable file's uid, gid, mode and mtime change together, by one setattr:
 * all say k. done: of the last change that has ended; begun: of the last begun.
 */
struct stable {
	u64 ino;
	_Atomic u32 begun, done;
};

struct storm {
	struct super_block *sb;
	struct stable s[STABLE];
	_Atomic bool stop;
	_Atomic bool failed;
};

static u32 mode_of(u32 k)
{
	return 0400 | (k & 0377);
}

static void change(struct storm *s, struct stable *f)
{
	u32 k = atomic_load(&f->done) + 1;
	struct inode *inode;
	struct stat st = {
		.st_mode = mode_of(k), .st_uid = k, .st_gid = ~k,
		.st_mtim = { .tv_sec = (time_t)k },
	};

	/* Not kept: so that it can leave the cache in between. */
	if (sl_iget(s->sb, f->ino, &inode)) {
		atomic_store(&s->failed, true);
		return;
	}
	atomic_store(&f->begun, k);
	if (sl_setattr(inode, &st, SL_SET_MODE | SL_SET_UID | SL_SET_GID |
				    SL_SET_MTIME, &cred, NULL))
		atomic_store(&s->failed, true);
	atomic_store(&f->done, k);
	sl_iput(inode);
}

static void changer(void *arg)
{
	struct storm *s = arg;
	unsigned seed = 7;

	while (!atomic_load(&s->stop))
		change(s, &s->s[(u32)rand_r(&seed) % STABLE]);
}

struct churn {
	struct storm *s;
	struct inode *dir;
	unsigned seed;
};

static void churner(void *arg)
{
	static const char data[3000] = "data";
	struct churn *c = arg;
	struct inode *inode;
	struct sl_file *f;
	char name[32];

	while (!atomic_load(&c->s->stop)) {
		size_t len = (size_t)snprintf(name, sizeof(name), "v%u",
					      (u32)rand_r(&c->seed) % VOLATILE);
		int err = sl_mknod(c->dir, name, len, S_IFREG | 0600, 0, &cred,
				   &inode);

		if (err == -EEXIST) {
			if (sl_unlink(c->dir, name, len))
				atomic_store(&c->s->failed, true);
			continue;
		}
		if (err) {
			atomic_store(&c->s->failed, true);
			continue;
		}
		if (!sl_open(inode, SL_OPEN_WRITE, &f)) {
			if (sl_write(f, data, sizeof(data), 0, 0, &cred) < 0)
				atomic_store(&c->s->failed, true);
			sl_release(f);
		}
		sl_iput(inode);
	}
}

/* Makes inodes and table blocks leave memory, and commits for checkpoints. */
static void dropper(void *arg)
{
	struct storm *s = arg;

	while (!atomic_load(&s->stop)) {
		sl_drop_caches(s->sb);
		if (sl_sync(s->sb))
			atomic_store(&s->failed, true);
	}
}

static void check_stable(const struct sl_bulkstat_rec *r, u32 from, u32 to)
{
	assert_int_equal(r->error, 0);
	assert_in_range(r->uid, from, to);
	assert_int_equal(r->gid, ~r->uid);
	assert_int_equal(r->mode, S_IFREG | mode_of(r->uid));
	assert_int_equal(r->mtime.tv_sec, r->uid);
	assert_int_equal(r->nlink, 1);
}

static void one_scan(struct storm *s, u32 flags, size_t step)
{
	struct sl_bulkstat_rec recs[64];
	struct sl_bulkstat *bs;
	bool found[STABLE] = { false };
	u32 from[STABLE];
	u64 prev = 0;
	size_t got;

	for (u32 i = 0; i < STABLE; i++)
		from[i] = atomic_load(&s->s[i].done);
	assert_int_equal(sl_bulkstat_open(s->sb, 1, UINT64_MAX, flags, &bs), 0);
	while ((got = sl_bulkstat_read(bs, recs, step)) > 0) {
		for (size_t j = 0; j < got; j++) {
			assert_int_equal(recs[j].error, 0);
			assert_true(recs[j].ino > prev);
			prev = recs[j].ino;
			assert_true(recs[j].nlink > 0);
			for (u32 i = 0; i < STABLE; i++) {
				if (s->s[i].ino != prev)
					continue;
				assert_false(found[i]);
				found[i] = true;
				check_stable(&recs[j], from[i],
					     atomic_load(&s->s[i].begun));
			}
		}
	}
	sl_bulkstat_close(bs);
	for (u32 i = 0; i < STABLE; i++)
		assert_true(found[i]);
}

static void scanner(void *arg)
{
	struct storm *s = arg;

	while (!atomic_load(&s->stop))
		one_scan(s, 0, 64);
}

static void storm(const char *mkfs, const char *size, u32 seconds)
{
	struct sl_options opts = { .cache_bytes = 8u << 20, .commit_ms = 20 };
	struct storm *s = calloc(1, sizeof(*s));
	struct thread *t[6];
	struct churn c[2];
	struct inode *root, *inode;
	struct volume v;
	char name[32];
	u64 end;
	u32 n = 0;

	volume_make(&v, mkfs, size);
	assert_int_equal(volume_mount(&v, &opts, &s->sb), 0);
	assert_int_equal(sl_iget(s->sb, 2, &root), 0);
	for (u32 i = 0; i < 2; i++) {
		snprintf(name, sizeof(name), "churn%u", i);
		assert_int_equal(sl_mkdir(root, name, strlen(name), 0700, &cred,
					  &c[i].dir), 0);
		c[i].s = s;
		c[i].seed = i + 1;
	}
	for (u32 i = 0; i < STABLE; i++) {
		snprintf(name, sizeof(name), "stable%u", i);
		/* Among the others: in the same table blocks. */
		assert_int_equal(sl_mknod(c[i % 2].dir, name, strlen(name),
					  S_IFREG | 0600, 0, &cred, &inode), 0);
		s->s[i].ino = sl_ino(inode);
		sl_iput(inode);
		change(s, &s->s[i]);
		for (u32 j = 0; j < 3; j++) {
			snprintf(name, sizeof(name), "v%u", i * 4 + j);
			put(s->sb, c[i % 2].dir, name, S_IFREG | 0600, 0, 0);
		}
	}
	assert_int_equal(thread_create(&t[n++], "changer", changer, s), 0);
	assert_int_equal(thread_create(&t[n++], "dropper", dropper, s), 0);
	assert_int_equal(thread_create(&t[n++], "churn", churner, &c[0]), 0);
	assert_int_equal(thread_create(&t[n++], "churn", churner, &c[1]), 0);
	assert_int_equal(thread_create(&t[n++], "scanner", scanner, s), 0);
	end = clock_mono_ns() + seconds * 1000000000ull;
	for (u32 i = 0; clock_mono_ns() < end || i < 3; i++)
		one_scan(s, i % 2 ? SL_BULKSTAT_SMALL : 0, i % 5 + 1);
	atomic_store(&s->stop, true);
	while (n)
		thread_join(t[--n]);
	assert_false(atomic_load(&s->failed));
	sl_iput(c[0].dir);
	sl_iput(c[1].dir);
	sl_iput(root);
	assert_int_equal(sl_unmount(s->sb), 0);
	assert_int_equal(volume_fsck(&v), 0);
	volume_free(&v);
	free(s);
}

static void test_exactly_once_while_others_work(void **state)
{
	storm("-b 4096 -J size=4", "48M", 1);
}

static void test_exactly_once_1k_without_checksums(void **state)
{
	storm("-b 1024 -J size=1 -O ^metadata_csum,^uninit_bg", "24M", 1);
}

/* ---- one change, at one moment ---- */

/*
 * The victim's version k is its size and its uid. The size is changed by a write that is
 * kept back, so it is in the inode cache alone at first; the uid goes to the table block
 * at once, and with the next commit to the log.
 */
enum before { /* what state the victim is in when the scan begins */
	ON_DISK,   /* in its place, no copy in memory */
	IN_LOG,    /* evicted; its block waits for its checkpoint */
	DIRTY,     /* in the inode cache, changed there; and its block, in memory */
	ALONE,     /* in the inode cache, changed there; its block is in its place */
	BEFORES,
};
enum action { /* what is done to it as its window passes a step */
	KEEP,      /* changed; stays in the cache, dirty */
	EVICT,     /* changed, written out, evicted; its block is in memory */
	TO_PLACE,  /* the same, and its block written to its place and dropped */
	WRITE_OUT, /* not changed: written out, evicted; its block is in memory */
	ALL_OUT,   /* the same, and its block written to its place and dropped */
	IN_TWO,    /* the first half of this at the step, the other after the read */
	REMOVE,
	REUSE,     /* removed, and the number given to another */
	ACTIONS,
};
/* After the steps of bulkstat.h: its neighbour was reported just now. */
#define NEIGHBOUR_REPORTED SL_BULKSTAT_STEPS

#define CROWD 400
#define VICTIM 200
#define OTHERS 100
#define OTHERS_STRIDE 8 /* inodes in a block, at least */
#define REUSED_SIZE 7777

struct moment {
	struct super_block *sb;
	struct inode *dir;
	struct sl_file *other; /* the first of others: its fsync writes no data but its own */
	u64 crowd[CROWD];
	u64 others[OTHERS]; /* each in a table block of its own */
	u64 victim;
	u32 version;     /* the newest */
	u32 names;       /* names made so far */
	char name[32];   /* the victim's */
	/* the case */
	enum before before;
	enum action action;
	u32 step;
	bool done, half, reused; /* half: the other is to come */
	struct inode *kept;
};

static void next_version(struct moment *m, struct inode *inode)
{
	struct stat st = { .st_uid = ++m->version };
	struct sl_file *f;

	assert_int_equal(sl_setattr(inode, &st, SL_SET_UID, &cred, NULL), 0);
	assert_int_equal(sl_open(inode, SL_OPEN_WRITE, &f), 0);
	assert_int_equal(sl_write(f, "x", 1, m->version - 1, 0, NULL), 1);
	sl_release(f);
}

static bool is_cached(const struct moment *m)
{
	return icache_mask(m->sb, (ino_nr)m->victim) >> m->victim % 64 & 1;
}

/* Commits, and drops what is clean. */
static void settle(struct moment *m, bool write_out)
{
	if (write_out)
		assert_int_equal(sl_sync(m->sb), 0);
	else
		assert_int_equal(sl_fsync(m->other, false), 0);
	sl_drop_caches(m->sb);
	assert_int_equal(is_cached(m), !write_out);
}

/* Is the victim's block in the buffer cache? */
static bool has_block(const struct moment *m)
{
	struct ext4_sb *sbi = EXT4_SB(m->sb);
	group_t g = ext4_inode_group(sbi, (ino_nr)m->victim);
	u32 i = (u32)(m->victim - 1) % sbi->inodes_per_group;
	struct buffer *b =
		buffer_peek(m->sb, ext4_gd_inode_table(sbi, ext4_group_desc(sbi, g, NULL)) +
					   i / sbi->inodes_per_block);

	buffer_put(b);
	return b != NULL;
}

/*
 * Fills the log with others' changes until the victim's block has left memory: or, if
 * the scan keeps it there, need not stay.
 */
static void to_place(struct moment *m, bool write_out)
{
	u64 enough = stat_of(m->sb, "checkpoints") + 3;
	struct stat st = { .st_mode = 0600 };

	settle(m, write_out);
	for (int round = 0; has_block(m); round++) {
		if (stat_of(m->sb, "checkpoints") >= enough)
			return;
		assert_true(round < 200);
		for (u32 i = 0; i < OTHERS; i++) {
			struct inode *inode;

			assert_int_equal(sl_iget(m->sb, m->others[i], &inode), 0);
			assert_int_equal(sl_setattr(inode, &st, SL_SET_MODE, &cred, NULL),
					 0);
			sl_iput(inode);
		}
		settle(m, write_out);
	}
}

static struct inode *new_victim(struct moment *m, u32 mode)
{
	size_t len = (size_t)snprintf(m->name, sizeof(m->name), "victim%u", m->names++);
	struct inode *inode;

	assert_int_equal(sl_mknod(m->dir, m->name, len, mode, 0, &cred, &inode), 0);
	return inode;
}

/* The number is free for others when its deletion is committed. */
static void reuse(struct moment *m)
{
	struct stat st = { .st_uid = REUSED_SIZE };
	struct inode *inode;

	assert_int_equal(sl_sync(m->sb), 0);
	inode = new_victim(m, S_IFREG | 0640);
	assert_int_equal(sl_setattr(inode, &st, SL_SET_UID, &cred, NULL), 0);
	m->reused = sl_ino(inode) == m->victim;
	sl_iput(inode);
}

static void act(struct moment *m)
{
	struct inode *inode;

	m->done = true;
	if (m->action <= TO_PLACE) {
		assert_int_equal(sl_iget(m->sb, m->victim, &inode), 0);
		next_version(m, inode);
		if (m->action == KEEP) {
			m->kept = inode;
			return;
		}
		sl_iput(inode);
	}
	switch (m->action) {
	case IN_TWO:
		m->half = true;
		/* fall through */
	case EVICT:
	case WRITE_OUT:
		settle(m, true);
		break;
	case TO_PLACE:
	case ALL_OUT:
		to_place(m, true);
		break;
	default:
		assert_int_equal(sl_unlink(m->dir, m->name, strlen(m->name)), 0);
		if (m->action == REUSE)
			reuse(m);
	}
}

static void at_step(void *priv, enum sl_bulkstat_step step, u64 first, u64 last)
{
	struct moment *m = priv;

	if (first > m->victim || m->victim > last)
		return;
	if (step == m->step && !m->done)
		act(m);
	if (step == SL_BULKSTAT_READ && m->half) {
		m->half = false;
		to_place(m, true);
	}
}

static void prepare(struct moment *m)
{
	struct inode *inode;

	assert_int_equal(sl_iget(m->sb, m->victim, &inode), 0);
	next_version(m, inode);
	sl_iput(inode);
	if (m->before == ON_DISK || m->before == ALONE)
		to_place(m, m->before == ON_DISK);
	if (m->before == IN_LOG)
		settle(m, true);
	assert_int_equal(is_cached(m), m->before >= DIRTY);
	assert_int_equal(has_block(m), m->before == IN_LOG || m->before == DIRTY);
	m->done = m->half = m->reused = false;
	m->kept = NULL;
}

static void check_victim(const struct moment *m, const struct sl_bulkstat_rec *r,
			 u32 from)
{
	if (m->reused && r->mode == (S_IFREG | 0640)) {
		assert_in_range(r->uid, 0, REUSED_SIZE);
		assert_int_equal(r->size, 0);
		return;
	}
	assert_int_equal(r->mode, S_IFREG | 0600);
	assert_int_equal(r->uid, r->size);
	assert_in_range(r->uid, from, m->version);
	/* What is newer in memory wins. */
	if (m->kept)
		assert_int_equal(r->uid, m->version);
}

static void scan_at_moment(struct moment *m)
{
	u32 from = m->version, found = 0, crowd = 0;
	struct sl_bulkstat_rec r;
	struct sl_bulkstat *bs;
	u64 prev = 0;

	assert_int_equal(sl_bulkstat_open(m->sb, 1, UINT64_MAX, 0, &bs), 0);
	sl_bulkstat_watch(bs, at_step, m);
	while (sl_bulkstat_read(bs, &r, 1)) {
		assert_int_equal(r.error, 0);
		assert_true(r.ino > prev);
		prev = r.ino;
		if (r.ino == m->victim) {
			found++;
			check_victim(m, &r, from);
		}
		if (crowd < CROWD && r.ino == m->crowd[crowd])
			crowd++;
		if (m->step == NEIGHBOUR_REPORTED && r.ino == m->victim - 1)
			act(m);
	}
	sl_bulkstat_close(bs);
	assert_true(m->done);
	assert_int_equal(crowd, CROWD);
	if (m->action < REMOVE)
		assert_int_equal(found, 1);
}

static void another_victim(struct moment *m)
{
	struct inode *inode;

	if (m->action == REUSE)
		assert_int_equal(sl_unlink(m->dir, m->name, strlen(m->name)), 0);
	assert_int_equal(sl_sync(m->sb), 0); /* its number is free */
	inode = new_victim(m, S_IFREG | 0600);
	m->victim = sl_ino(inode);
	m->version = 0;
	sl_iput(inode);
}

/* In the order of their numbers, with the victim among them. */
static void make_crowd(struct moment *m)
{
	struct inode *inode;
	char name[32];

	for (u32 i = 0; i < CROWD; i++) {
		size_t len = (size_t)snprintf(name, sizeof(name), "f%u", i);

		if (i == VICTIM) {
			inode = new_victim(m, S_IFREG | 0600);
			m->victim = sl_ino(inode);
			sl_iput(inode);
		}
		assert_int_equal(sl_mknod(m->dir, name, len, S_IFREG | 0600, 0, &cred,
					  &inode), 0);
		m->crowd[i] = sl_ino(inode);
		assert_true(!i || m->crowd[i] > m->crowd[i - 1]);
		sl_iput(inode);
	}
	assert_int_equal(m->crowd[VICTIM - 1], m->victim - 1);
}

static void make_others(struct moment *m)
{
	struct inode *inode;
	char name[32];

	for (u32 i = 0; i < OTHERS * OTHERS_STRIDE; i++) {
		size_t len = (size_t)snprintf(name, sizeof(name), "o%u", i);

		assert_int_equal(sl_mknod(m->dir, name, len, S_IFREG | 0600, 0, &cred,
					  &inode), 0);
		m->others[i / OTHERS_STRIDE] = sl_ino(inode);
		if (i == OTHERS_STRIDE - 1)
			assert_int_equal(sl_open(inode, 0, &m->other), 0);
		sl_iput(inode);
	}
}

static void every_moment(const char *mkfs)
{
	/* Nothing is written out or committed by itself. */
	struct sl_options opts = {
		.cache_bytes = 8u << 20, .commit_ms = 3600000,
		.dirty_expire_ms = 3600000,
	};
	struct moment *m = calloc(1, sizeof(*m));
	u32 reused = 0;
	struct inode *root;
	struct volume v;

	assert_non_null(m);
	volume_make(&v, mkfs, "24M");
	assert_int_equal(volume_mount(&v, &opts, &m->sb), 0);
	assert_int_equal(sl_iget(m->sb, 2, &root), 0);
	assert_int_equal(sl_mkdir(root, "d", 1, 0755, &cred, &m->dir), 0);
	make_crowd(m);
	make_others(m);
	for (u32 c = 0; c < BEFORES * ACTIONS * (NEIGHBOUR_REPORTED + 1); c++) {
		m->before = c % BEFORES;
		m->action = c / BEFORES % ACTIONS;
		m->step = c / BEFORES / ACTIONS;
		prepare(m);
		scan_at_moment(m);
		sl_iput(m->kept);
		reused += m->reused;
		if (m->action >= REMOVE)
			another_victim(m);
	}
	assert_true(reused > 0);
	sl_release(m->other);
	sl_iput(m->dir);
	sl_iput(root);
	assert_int_equal(sl_unmount(m->sb), 0);
	assert_int_equal(volume_fsck(&v), 0);
	volume_free(&v);
	free(m);
}

static void test_changed_at_every_moment(void **state)
{
	every_moment("-b 1024 -J size=1 -N 4096");
}

static void test_changed_at_every_moment_without_checksums(void **state)
{
	every_moment("-b 1024 -J size=1 -N 4096 -I 128 -O ^metadata_csum,^uninit_bg");
}

/* Deleted while open, and not yet deleted: not reported. */
static void test_unlinked_but_open_is_not_reported(void **state)
{
	struct sl_options opts = { 0 };
	struct super_block *sb;
	struct inode *root, *inode;
	struct volume v;
	struct walk w;

	volume_make(&v, "-b 1024", "16M");
	assert_int_equal(volume_mount(&v, &opts, &sb), 0);
	assert_int_equal(sl_iget(sb, 2, &root), 0);
	assert_int_equal(sl_mknod(root, "gone", 4, S_IFREG | 0600, 0, &cred,
				  &inode), 0);
	assert_int_equal(sl_unlink(root, "gone", 4), 0);
	walk(sb, &w);
	assert_int_equal(scan_and_compare(&w, 1, UINT64_MAX, 0, 10), w.nr);
	sl_iput(inode);
	sl_iput(root);
	assert_int_equal(scan_and_compare(&w, 1, UINT64_MAX, 0, 10), w.nr);
	free(w.all);
	assert_int_equal(sl_unmount(sb), 0);
	volume_free(&v);
}

/* ---- damage ---- */

static const struct sl_options keep_going = {
	.errors = SL_ERRORS_CONTINUE, .cache_bytes = 16u << 20,
};

static void shell(const char *fmt, const char *image)
{
	assert_int_equal(volume_run(fmt, image), 0);
}

/* Number of the file, without mounting. */
static u64 some_ino(struct super_block *sb, const char *dir, const char *name)
{
	struct inode *root, *d, *inode;
	u64 ino;

	assert_int_equal(sl_iget(sb, 2, &root), 0);
	assert_int_equal(sl_lookup(root, dir, strlen(dir), &d), 0);
	assert_int_equal(sl_lookup(d, name, strlen(name), &inode), 0);
	ino = sl_ino(inode);
	sl_iput(inode);
	sl_iput(d);
	sl_iput(root);
	return ino;
}

/* Where the inode's table entry is, as debugfs says. */
static u64 inode_pos(const struct volume *v, u64 ino, u32 blocksize)
{
	unsigned long long blk;
	unsigned offset;
	char cmd[512], line[256];
	FILE *p;

	snprintf(cmd, sizeof(cmd), "debugfs -R 'imap <%llu>' %s 2>/dev/null | "
		 "grep located", (unsigned long long)ino, v->image);
	p = popen(cmd, "r");
	assert_non_null(p);
	assert_non_null(fgets(line, sizeof(line), p));
	pclose(p);
	assert_int_equal(sscanf(line, " located at block %llu, offset %x", &blk,
				&offset), 2);
	return blk * blocksize + offset;
}

static void poke(const struct volume *v, u64 pos, const void *data, size_t len)
{
	FILE *f = fopen(v->image, "r+b");

	assert_non_null(f);
	assert_int_equal(fseek(f, (long)pos, SEEK_SET), 0);
	assert_int_equal(fwrite(data, len, 1, f), 1);
	assert_int_equal(fclose(f), 0);
}

static struct volume populated(const char *mkfs, const char *size, const char *name,
			       u64 *ino, struct walk *w)
{
	struct super_block *sb;
	struct volume v;

	volume_make(&v, mkfs, size);
	assert_int_equal(volume_mount(&v, &keep_going, &sb), 0);
	populate(sb);
	assert_int_equal(sl_sync(sb), 0);
	*ino = some_ino(sb, "dir5", name);
	walk(sb, w);
	assert_int_equal(sl_unmount(sb), 0);
	return v;
}

/* Expects errors for [from, to] alone; records and lost inodes are all there are. */
static void scan_damaged(struct super_block *sb, const struct walk *w, u64 from,
			 u64 to, int error)
{
	struct sl_bulkstat_rec recs[40];
	struct sl_bulkstat *bs;
	u64 n = 0, prev = 0, errors = 0, expected = 0;
	size_t got;

	assert_int_equal(sl_bulkstat_open(sb, 1, UINT64_MAX, 0, &bs), 0);
	while ((got = sl_bulkstat_read(bs, recs, 40)) > 0) {
		for (size_t i = 0; i < got; i++) {
			struct sl_bulkstat_rec *r = &recs[i];

			assert_true(r->ino > prev);
			prev = r->ino + (r->lost ? r->lost - 1 : 0);
			if (r->error) {
				assert_int_equal(r->error, error);
				assert_true(r->lost >= 1);
				assert_in_range(r->ino, from, to);
				assert_in_range(prev, from, to);
				errors++;
				continue;
			}
			assert_false(r->ino >= from && r->ino <= to);
			same_inode(r, &w->all[r->ino], true);
			n++;
		}
	}
	sl_bulkstat_close(bs);
	for (u64 i = 1; i < w->max; i++)
		expected += w->all[i].st.st_ino && (i < from || i > to);
	assert_int_equal(n, expected);
	assert_true(errors > 0);
}

static void test_inode_with_wrong_checksum(void **state)
{
	struct super_block *sb;
	struct volume v;
	struct walk w;
	u64 ino;

	v = populated("-b 4096", "64M", "file8", &ino, &w);
	poke(&v, inode_pos(&v, ino, 4096) + 4, "\x55\x44", 2);
	assert_int_equal(volume_mount(&v, &keep_going, &sb), 0);
	for (int i = 0; i < 2; i++)
		scan_damaged(sb, &w, ino, ino, -EFSBADCRC);
	(void)!sl_unmount(sb);
	free(w.all);
	volume_free(&v);
}

static void test_garbage_without_checksums(void **state)
{
	struct super_block *sb;
	struct volume v;
	struct walk w;
	u64 ino;

	v = populated("-b 1024 -O ^metadata_csum,^uninit_bg", "32M", "file8", &ino,
		      &w);
	poke(&v, inode_pos(&v, ino, 1024), "\xff\xff", 2);
	assert_int_equal(volume_mount(&v, &keep_going, &sb), 0);
	scan_damaged(sb, &w, ino, ino, -EFSCORRUPTED);
	(void)!sl_unmount(sb);
	free(w.all);
	volume_free(&v);
}

static void test_group_with_bad_bitmap(void **state)
{
	const u32 ipg = 128;
	struct super_block *sb;
	unsigned long long blk;
	struct volume v;
	struct walk w;
	char cmd[512], line[256];
	u64 ino, group;
	FILE *p;

	v = populated("-b 1024 -g 1024 -N 4096 -O ^flex_bg", "32M", "file8", &ino, &w);
	group = (ino - 1) / ipg;
	assert_int_not_equal(group, 0);
	snprintf(cmd, sizeof(cmd), "dumpe2fs %s 2>/dev/null | grep -A9 '^Group %llu:'"
		 " | grep -o 'Inode bitmap at [0-9]*'", v.image,
		 (unsigned long long)group);
	p = popen(cmd, "r");
	assert_non_null(p);
	assert_non_null(fgets(line, sizeof(line), p));
	pclose(p);
	assert_int_equal(sscanf(line, "Inode bitmap at %llu", &blk), 1);
	poke(&v, blk * 1024 + 3, "\x13\x37", 2);
	assert_int_equal(volume_mount(&v, &keep_going, &sb), 0);
	scan_damaged(sb, &w, group * ipg + 1, (group + 1) * ipg, -EFSBADCRC);
	/* The second time the group is known to be bad. */
	scan_damaged(sb, &w, group * ipg + 1, (group + 1) * ipg, -EFSCORRUPTED);
	(void)!sl_unmount(sb);
	free(w.all);
	volume_free(&v);
}

static void test_unreadable_table_block(void **state)
{
	struct faulty_bdev *faulty;
	struct super_block *sb;
	struct bdev *bd;
	const char *why;
	struct volume v;
	struct walk w;
	u64 ino, pos, first;

	v = populated("-b 1024", "32M", "file8", &ino, &w);
	pos = inode_pos(&v, ino, 1024) / 1024 * 1024;
	first = (ino - 1) / 4 * 4 + 1; /* 4 inodes of 256 bytes in the block */
	assert_int_equal(bdev_open_aio(v.image, true, 0, &bd, &why), 0);
	faulty = faulty_bdev_new(bd);
	faulty->bd.bd_readonly = true;
	assert_int_equal(sl_mount(&faulty->bd, &(struct sl_options){
			.readonly = true, .errors = SL_ERRORS_CONTINUE }, &sb), 0);
	atomic_store(&faulty->bad_pos, pos + 100);
	scan_damaged(sb, &w, first, first + 3, -EIO);
	/* And then it can be read again. */
	atomic_store(&faulty->bad_pos, 0);
	w.sb = sb;
	assert_int_equal(scan_and_compare(&w, 1, UINT64_MAX, 0, 30), w.nr);
	(void)!sl_unmount(sb);
	free(w.all);
	volume_free(&v);
}

/* Attributes that only the disk has. */
static void test_project_and_flags(void **state)
{
	struct sl_options opts = { .readonly = true };
	struct sl_bulkstat_rec r;
	struct sl_bulkstat *bs;
	struct super_block *sb;
	struct inode *inode;
	struct volume v;
	struct walk w;
	u64 ino;

	v = populated("-b 4096 -O project", "64M", "file8", &ino, &w);
	shell("debugfs -w -R 'sif /dir5/file8 projid 4711' %s 2>/dev/null", v.image);
	shell("debugfs -w -R 'sif /dir5/file8 flags 0x80080' %s 2>/dev/null", v.image);
	assert_int_equal(volume_mount(&v, &opts, &sb), 0);
	for (int cached = 0; cached < 2; cached++) {
		if (cached)
			assert_int_equal(sl_iget(sb, ino, &inode), 0);
		assert_int_equal(sl_bulkstat_open(sb, ino, ino, 0, &bs), 0);
		assert_int_equal(sl_bulkstat_read(bs, &r, 1), 1);
		assert_int_equal(r.projid, 4711);
		assert_int_equal(r.flags, 0x80080);
		assert_true(r.crtime.tv_sec > 1000000000);
		assert_int_equal(sl_bulkstat_read(bs, &r, 1), 0);
		sl_bulkstat_close(bs);
	}
	sl_iput(inode);
	assert_int_equal(sl_unmount(sb), 0);
	free(w.all);
	volume_free(&v);
}

static void test_arguments(void **state)
{
	struct sl_options opts = { 0 };
	struct sl_bulkstat *bs;
	struct super_block *sb;
	struct volume v;

	volume_make(&v, "-b 1024", "16M");
	assert_int_equal(volume_mount(&v, &opts, &sb), 0);
	assert_int_equal(sl_bulkstat_open(sb, 5, 4, 0, &bs), -EINVAL);
	assert_int_equal(sl_bulkstat_open(sb, 1, 4, 1u << 31, &bs), -EINVAL);
	/* Closed with reads in flight. */
	assert_int_equal(sl_bulkstat_open(sb, 1, UINT64_MAX, 0, &bs), 0);
	assert_int_equal(sl_bulkstat_read(bs, &(struct sl_bulkstat_rec){ 0 }, 1), 1);
	sl_bulkstat_close(bs);
	sl_bulkstat_close(NULL);
	assert_int_equal(sl_unmount(sb), 0);
	volume_free(&v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_default_features),
		cmocka_unit_test(test_1k_blocks_small_groups),
		cmocka_unit_test(test_2k_blocks_big_inodes),
		cmocka_unit_test(test_no_checksums),
		cmocka_unit_test(test_group_checksums_only),
		cmocka_unit_test(test_meta_bg),
		cmocka_unit_test(test_uninitialised_tables_are_not_read),
		cmocka_unit_test(test_exactly_once_while_others_work),
		cmocka_unit_test(test_exactly_once_1k_without_checksums),
		cmocka_unit_test(test_changed_at_every_moment),
		cmocka_unit_test(test_changed_at_every_moment_without_checksums),
		cmocka_unit_test(test_unlinked_but_open_is_not_reported),
		cmocka_unit_test(test_inode_with_wrong_checksum),
		cmocka_unit_test(test_garbage_without_checksums),
		cmocka_unit_test(test_group_with_bad_bitmap),
		cmocka_unit_test(test_unreadable_table_block),
		cmocka_unit_test(test_project_and_flags),
		cmocka_unit_test(test_arguments),
	};

	return cmocka_run_group_tests(tests, unit_setup, NULL);
}
