/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_namei.c - rules of names: create, link, remove, rename
 */
#include "tests/unit/unit.h"
#include "tests/unit/fs/memvol.h"

#include "fs/ext4.h"

#include <linux/fs.h>

static const struct sl_cred cred = { 0, 0, 022 };
static const struct sl_options opts = { .cache_bytes = 16 << 20,
					.commit_ms = 600000,
					.dirty_expire_ms = 20 };

static struct memvol mv;
static struct super_block *sb;
static struct inode *root;

static void begin(const char *mkfs)
{
	memvol_make(&mv, mkfs, "16M");
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	assert_int_equal(sl_iget(sb, 2, &root), 0);
}

static void end(void)
{
	sl_iput(root);
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(memvol_fsck(&mv), 0);
	memvol_free(&mv);
}

static int make_in(struct inode *dir, const char *name, u32 mode, struct inode **out)
{
	if (S_ISDIR(mode))
		return sl_mkdir(dir, name, strlen(name), mode, &cred, out);
	return sl_mknod(dir, name, strlen(name), mode, 0, &cred, out);
}

static struct inode *make(struct inode *dir, const char *name, u32 mode)
{
	struct inode *inode;

	assert_int_equal(make_in(dir, name, mode, &inode), 0);
	return inode;
}

static int rename_to(struct inode *from, const char *a, struct inode *to, const char *b,
		     u32 flags)
{
	return sl_rename(from, a, strlen(a), to, b, strlen(b), flags);
}

/* Number that name stands for; 0: none. */
static u64 ino_at(struct inode *dir, const char *name)
{
	struct inode *inode;
	u64 ino;

	if (sl_lookup(dir, name, strlen(name), &inode))
		return 0;
	ino = sl_ino(inode);
	sl_iput(inode);
	return ino;
}

static u32 nlink_of(struct inode *inode)
{
	struct stat st;

	sl_getattr(inode, &st);
	return (u32)st.st_nlink;
}

#define DIR_MODE (S_IFDIR | 0755)
#define REG_MODE (S_IFREG | 0644)

static void symlink_length(size_t n, int expected)
{
	char target[5000], back[5000];
	struct inode *inode;

	memset(target, 't', n);
	target[n] = '\0';
	assert_int_equal(sl_symlink(root, "link", 4, target, &cred, &inode), expected);
	if (expected)
		return;
	assert_int_equal(sl_readlink(inode, back, sizeof(back)), n);
	assert_string_equal(back, target);
	assert_int_equal(sl_readlink(inode, back, 10), min_of(n, (size_t)9));
	sl_iput(inode);
	assert_int_equal(sl_unlink(root, "link", 4), 0);
}

static void test_lengths(void **state)
{
	char name[300];
	struct inode *inode;

	memset(name, 'n', sizeof(name));
	begin("-b 1024");
	name[255] = '\0';
	sl_iput(make(root, name, REG_MODE));
	assert_int_equal(make_in(root, name, REG_MODE, &inode), -EEXIST);
	name[255] = 'n';
	name[256] = '\0';
	assert_int_equal(make_in(root, name, REG_MODE, &inode), -ENAMETOOLONG);
	assert_int_equal(make_in(root, name, DIR_MODE, &inode), -ENAMETOOLONG);
	assert_int_equal(sl_lookup(root, name, 256, &inode), -ENAMETOOLONG);
	assert_int_equal(rename_to(root, name, root, "x", 0), -ENAMETOOLONG);
	assert_int_equal(make_in(root, ".", DIR_MODE, &inode), -EEXIST);
	assert_int_equal(sl_symlink(root, "link", 4, "", &cred, &inode), -ENOENT);
	symlink_length(1, 0);
	symlink_length(59, 0);
	symlink_length(60, 0);
	symlink_length(1023, 0);
	symlink_length(1024, -ENAMETOOLONG);
	end();
	begin("-b 4096");
	symlink_length(4095, 0);
	symlink_length(4096, -ENAMETOOLONG);
	end();
}

static void test_links(void **state)
{
	struct inode *dir, *file, *gone, *inode;

	begin("-b 1024");
	dir = make(root, "dir", DIR_MODE);
	file = make(root, "a", REG_MODE);
	assert_int_equal(sl_link(dir, root, "d", 1), -EPERM);
	assert_int_equal(sl_link(file, root, "dir", 3), -EEXIST);
	assert_int_equal(sl_link(file, file, "x", 1), -ENOTDIR);
	assert_int_equal(sl_link(file, dir, "b", 1), 0);
	assert_int_equal(nlink_of(file), 2);
	assert_int_equal(ino_at(dir, "b"), sl_ino(file));
	/* Two names of one file: rename leaves both. */
	assert_int_equal(rename_to(root, "a", dir, "b", 0), 0);
	assert_int_equal(ino_at(root, "a"), sl_ino(file));
	assert_int_equal(ino_at(dir, "b"), sl_ino(file));
	assert_int_equal(nlink_of(file), 2);
	assert_int_equal(rename_to(root, "a", dir, "b", RENAME_NOREPLACE), -EEXIST);

	assert_int_equal(sl_unlink(root, "dir", 3), -EISDIR);
	assert_int_equal(sl_rmdir(root, "a", 1), -ENOTDIR);
	assert_int_equal(sl_rmdir(root, "dir", 3), -ENOTEMPTY);
	assert_int_equal(sl_rmdir(root, ".", 1), -EINVAL);
	assert_int_equal(sl_unlink(dir, "b", 1), 0);
	assert_int_equal(sl_rmdir(root, "dir", 3), 0);
	assert_int_equal(nlink_of(dir), 0);
	assert_int_equal(nlink_of(root), 3); /* lost+found */
	/* In a removed directory nothing can be made. */
	assert_int_equal(make_in(dir, "x", REG_MODE, &inode), -ENOENT);
	assert_int_equal(sl_link(file, dir, "x", 1), -ENOENT);
	assert_int_equal(rename_to(root, "a", dir, "x", 0), -ENOENT);
	/* What has no name gets none again. */
	gone = make(root, "gone", REG_MODE);
	assert_int_equal(sl_unlink(root, "gone", 4), 0);
	assert_int_equal(sl_link(gone, root, "again", 5), -ENOENT);
	sl_iput(gone);
	sl_iput(dir);
	sl_iput(file);
	end();
}

static void test_rename_dirs(void **state)
{
	struct inode *a, *b, *sub, *deep;

	begin("-b 1024");
	a = make(root, "a", DIR_MODE);
	b = make(root, "b", DIR_MODE);
	sub = make(a, "sub", DIR_MODE);
	deep = make(sub, "deep", DIR_MODE);
	sl_iput(make(root, "file", REG_MODE));
	assert_int_equal(nlink_of(a), 3);

	assert_int_equal(rename_to(root, "a", deep, "x", 0), -EINVAL);
	assert_int_equal(rename_to(root, "a", a, "x", 0), -EINVAL);
	assert_int_equal(rename_to(sub, "deep", root, "a", 0), -ENOTEMPTY);
	assert_int_equal(rename_to(sub, "deep", root, "a", RENAME_EXCHANGE), -EINVAL);
	assert_int_equal(rename_to(root, "file", root, "b", 0), -EISDIR);
	assert_int_equal(rename_to(root, "b", root, "file", 0), -ENOTDIR);
	assert_int_equal(rename_to(root, "b", root, "a", 0), -ENOTEMPTY);
	assert_int_equal(rename_to(root, "nil", root, "x", 0), -ENOENT);
	assert_int_equal(rename_to(root, "a", root, "nil", RENAME_EXCHANGE), -ENOENT);
	assert_int_equal(rename_to(root, "a", root, "x", RENAME_WHITEOUT), -EINVAL);

	/* "..", and the counts of both parents. */
	assert_int_equal(rename_to(a, "sub", b, "moved", 0), 0);
	assert_int_equal(ino_at(sub, ".."), sl_ino(b));
	assert_int_equal(ino_at(a, "sub"), 0);
	assert_int_equal(nlink_of(a), 2);
	assert_int_equal(nlink_of(b), 3);
	/* A directory and a file change places. */
	assert_int_equal(rename_to(b, "moved", root, "file", RENAME_EXCHANGE), 0);
	assert_int_equal(ino_at(root, "file"), sl_ino(sub));
	assert_int_equal(ino_at(sub, ".."), 2);
	assert_int_equal(nlink_of(b), 2);
	assert_int_equal(nlink_of(root), 6);
	/* Over an empty directory. */
	assert_int_equal(rename_to(root, "file", root, "a", 0), 0);
	assert_int_equal(nlink_of(a), 0);
	assert_int_equal(nlink_of(root), 5);
	sl_iput(a);
	sl_iput(b);
	sl_iput(sub);
	sl_iput(deep);
	end();
}

static void test_setgid(void **state)
{
	struct stat st = { .st_gid = 3000, .st_mode = 02777 };
	struct inode *dir, *inode;

	begin("-b 1024");
	dir = make(root, "dir", DIR_MODE);
	assert_int_equal(sl_setattr(dir, &st, SL_SET_GID | SL_SET_MODE, &cred, NULL), 0);
	inode = make(dir, "file", REG_MODE);
	sl_getattr(inode, &st);
	assert_int_equal(st.st_gid, 3000);
	assert_int_equal(st.st_mode, REG_MODE);
	sl_iput(inode);
	inode = make(dir, "sub", DIR_MODE);
	sl_getattr(inode, &st);
	assert_int_equal(st.st_gid, 3000);
	assert_int_equal(st.st_mode, S_IFDIR | 02755);
	sl_iput(inode);
	sl_iput(dir);
	end();
}

/* Around 65000 subdirectories the count turns into 1, for good. */
static void test_many_subdirs(void **state)
{
	struct inode *dir;
	char name[32];

	begin("-b 1024");
	dir = make(root, "dir", DIR_MODE);
	for (int i = 0; i < 60; i++) { /* so that it has an index */
		snprintf(name, sizeof(name), "a-name-of-some-length-%d", i);
		sl_iput(make(dir, name, REG_MODE));
	}
	assert_true(ext4_dir_is_indexed(EXT4_I(dir)));
	sl_iput(dir);
	sl_iput(root);
	assert_int_equal(sl_unmount(sb), 0);
	memvol_debugfs(&mv, "sif dir links_count 64999");
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	assert_int_equal(sl_iget(sb, 2, &root), 0);
	assert_int_equal(sl_lookup(root, "dir", 3, &dir), 0);
	sl_iput(make(dir, "s1", DIR_MODE));
	assert_int_equal(nlink_of(dir), 65000);
	sl_iput(make(dir, "s2", DIR_MODE));
	assert_int_equal(nlink_of(dir), 1);
	sl_iput(make(dir, "s3", DIR_MODE));
	assert_int_equal(sl_rmdir(dir, "s1", 2), 0);
	assert_int_equal(nlink_of(dir), 1);
	sl_iput(dir);
	sl_iput(root);
	assert_int_equal(sl_unmount(sb), 0);
	memvol_free(&mv);
}

/* ---- data on its way when its file replaces another ---- */

static _Atomic bool slow;

static void slow_submit(struct bdev *bd, struct bio **bios, unsigned n)
{
	if (atomic_load(&slow) && bios[0]->bi_op == BIO_WRITE)
		usleep(200000);
	fake_submit(bd, bios, n);
}

static void test_rename_waits(void **state)
{
	static const struct bdev_ops slow_ops = {
		.submit = slow_submit,
		.flush = fake_flush,
		.close = memvol_close,
	};
	struct inode *inode;
	struct sl_file *f;
	struct bdev *bd;

	memvol_make(&mv, "-b 1024", "16M");
	bd = memvol_open(&mv);
	bd->bd_ops = &slow_ops;
	assert_int_equal(sl_mount(bd, &opts, &sb), 0);
	assert_int_equal(sl_iget(sb, 2, &root), 0);
	sl_iput(make(root, "old", REG_MODE));
	inode = make(root, "new", REG_MODE);
	assert_int_equal(sl_open(inode, SL_OPEN_WRITE, &f), 0);
	atomic_store(&slow, true);
	assert_int_equal(sl_write(f, "content", 7, 0, 0, &cred), 7);
	/* Until the flusher has given it blocks. */
	for (int i = 0; i < 60000 && atomic_load(&inode->i_mapping.m_nr_delayed); i++)
		usleep(1000);
	assert_int_equal(atomic_load(&inode->i_mapping.m_nr_delayed), 0);
	assert_int_equal(rename_to(root, "new", root, "old", 0), 0);
	assert_int_equal(atomic_load(&inode->i_mapping.m_nr_writeback), 0);
	assert_int_equal(EXT4_I(inode)->i_disksize, 7);
	atomic_store(&slow, false);
	sl_release(f);
	sl_iput(inode);
	end();
}

/* ---- lookups without a lock ---- */

/* What sl_lookup_cached() says once all of it was used by other ways. */
static int cached(struct inode *dir, const char *name, struct sl_entry *e)
{
	(void)ino_at(dir, name);
	(void)ino_at(dir, name);
	return sl_lookup_cached(sb, sl_ino(dir), name, strlen(name), e);
}

static u64 lookups_of(u64 ino)
{
	struct inode *inode;
	u64 n;

	assert_int_equal(sl_iget(sb, ino, &inode), 0);
	n = inode_nlookup(inode);
	sl_iput(inode);
	return n;
}

static void test_lookup_cached(void **state)
{
	struct inode *dir, *file;
	struct sl_entry e;
	struct stat st;
	u64 ino;

	begin("-b 1024");
	dir = make(root, "dir", DIR_MODE);
	file = make(dir, "file", REG_MODE);
	ino = sl_ino(file);
	assert_int_equal(cached(dir, "file", &e), 0);
	assert_int_equal(e.ino, ino);
	assert_int_equal(e.generation, sl_generation(file));
	sl_getattr(file, &st);
	assert_memory_equal(&st, &e.st, sizeof(st));
	assert_int_equal(lookups_of(ino), 1);
	assert_int_equal(cached(dir, "none", &e), -ENOENT);
	/* A new name, and one that is gone, are known at once. */
	assert_int_equal(sl_link(file, dir, "none", 4), 0);
	assert_int_equal(cached(dir, "none", &e), 0);
	assert_int_equal(lookups_of(ino), 2);
	assert_int_equal(sl_unlink(dir, "file", 4), 0);
	assert_int_equal(cached(dir, "file", &e), -ENOENT);
	/* Not its business. */
	assert_int_equal(cached(dir, "..", &e), -EAGAIN);
	assert_int_equal(cached(file, "x", &e), -EAGAIN);
	assert_int_equal(sl_lookup_cached(sb, 1ull << 40, "x", 1, &e), -EAGAIN);
	assert_int_equal(sl_lookup_cached(sb, 1, "x", 1, &e), -EAGAIN);
	/* What it counted keeps an inode without a name. */
	assert_int_equal(sl_unlink(dir, "none", 4), 0);
	sl_iput(file);
	assert_int_equal(lookups_of(ino), 2);
	sl_forget(sb, ino, 2);
	assert_int_equal(sl_iget(sb, ino, &file), -ESTALE);
	/* From the disk: only by the ordinary way. */
	sl_iput(dir);
	sl_drop_caches(sb);
	assert_int_equal(sl_lookup_cached(sb, 2, "dir", 3, &e), -EAGAIN);
	end();
}

/*
 * Threads look up names without a lock while others remove and make them: an
 * inode that was counted is there until it is forgotten, and all counts are
 * right in the end (unmount and e2fsck would tell).
 */
#define RACE_NAMES 8

/* cmocka's own belong to the main thread. */
#define race_check(cond)                                                       \
	do {                                                                   \
		if (!(cond)) {                                                 \
			print_error("reader: %s\n", #cond);                    \
			abort();                                               \
		}                                                              \
	} while (0)

static _Atomic bool race_stop;
static _Atomic u64 race_found, race_none;
static struct inode *race_dir;

static void race_reader(void *arg)
{
	u32 n = (u32)(uintptr_t)arg;
	struct sl_entry e;
	char name[2] = "a";

	while (!atomic_load(&race_stop)) {
		struct inode *inode;
		int err;

		name[0] = (char)('a' + n++ % RACE_NAMES);
		err = sl_lookup_cached(sb, sl_ino(race_dir), name, 1, &e);
		if (err == -ENOENT)
			atomic_fetch_add(&race_none, 1);
		if (err == -EAGAIN && !sl_lookup(race_dir, name, 1, &inode))
			sl_iput(inode);
		if (err)
			continue;
		atomic_fetch_add(&race_found, 1);
		race_check(!sl_iget(sb, e.ino, &inode));
		race_check(sl_generation(inode) == e.generation);
		sl_iput(inode);
		sl_forget(sb, e.ino, 1);
	}
}

static void test_lookup_cached_beside_changes(void **state)
{
	struct thread *t[2];

	begin("-b 1024");
	race_dir = make(root, "dir", DIR_MODE);
	atomic_store(&race_stop, false);
	for (uintptr_t i = 0; i < 2; i++)
		assert_int_equal(thread_create(&t[i], "reader", race_reader,
					       (void *)(i * 3)), 0);
	for (u32 i = 0; i < 3000 || !atomic_load(&race_found) ||
			!atomic_load(&race_none); i++) {
		char name[2] = { (char)('a' + i % RACE_NAMES), '\0' };
		int err = sl_unlink(race_dir, name, 1);

		assert_true(!err || err == -ENOENT);
		if (i % 3)
			sl_iput(make(race_dir, name, REG_MODE));
		if (i % 500 == 0)
			sl_drop_caches(sb);
	}
	atomic_store(&race_stop, true);
	for (int i = 0; i < 2; i++)
		thread_join(t[i]);
	sl_iput(race_dir);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_links),
		cmocka_unit_test(test_rename_dirs),
		cmocka_unit_test(test_setgid),
		cmocka_unit_test(test_many_subdirs),
		cmocka_unit_test(test_rename_waits),
		cmocka_unit_test(test_lookup_cached),
		cmocka_unit_test(test_lookup_cached_beside_changes),
	};

	return cmocka_run_group_tests(tests, unit_setup, NULL);
}
