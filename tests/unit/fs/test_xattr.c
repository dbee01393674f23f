/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_xattr.c - extended attributes: checks, reading, setting, release with the inode
 *
 * debugfs makes the attributes; a shared block is made by hand on a volume
 * without checksums.
 */
#include "tests/unit/fs/alloc_test.h"
#include "tests/unit/fs/memvol.h"

#include <stdatomic.h>
#include <sys/stat.h>

static void debugfs(struct at *t, const char *command)
{
	char cmd[1024];

	snprintf(cmd, sizeof(cmd), "debugfs -w -R '%s' %s >/dev/null 2>&1", command,
		 t->v.image);
	assert_int_equal(system(cmd), 0);
}

static u64 debugfs_number(struct at *t, const char *command, const char *after)
{
	char out[4096], cmd[128], *at;

	snprintf(cmd, sizeof(cmd), "debugfs -R '%s' %%s 2>/dev/null", command);
	at_output(t, cmd, out, sizeof(out));
	at = strstr(out, after);
	assert_non_null(at);
	return strtoull(at + strlen(after), NULL, 10);
}

/* A volume with files f0, f1; f0 has an attribute too large for its body. */
static void start(struct at *t, const char *mkfs_args)
{
	char value[512], path[128], cmd[600];
	FILE *f;

	volume_make(&t->v, mkfs_args, "32M");
	snprintf(path, sizeof(path), "%s/value", t->v.dir);
	f = fopen(path, "w");
	memset(value, 'v', sizeof(value));
	assert_int_equal(fwrite(value, 1, sizeof(value), f), sizeof(value));
	fclose(f);
	snprintf(cmd, sizeof(cmd), "write %s f0", path);
	debugfs(t, cmd);
	snprintf(cmd, sizeof(cmd), "write %s f1", path);
	debugfs(t, cmd);
	snprintf(cmd, sizeof(cmd), "ea_set -f %s f0 user.large", path);
	debugfs(t, cmd);
	unlink(path);
	assert_int_equal(volume_fsck(&t->v), 0);
}

static int rm(struct at *t, const char *name)
{
	struct inode *root;
	int err;

	assert_int_equal(sl_iget(t->sb, EXT4_ROOT_INO, &root), 0);
	err = sl_unlink(root, name, strlen(name));
	sl_iput(root);
	return err;
}

static void own_block_is_freed(const char *mkfs_args)
{
	struct at t;
	u64 before;

	start(&t, mkfs_args);
	assert_true(debugfs_number(&t, "stat f0", "File ACL: ") > 0);
	at_mount(&t);
	before = ext4_count_free_blocks(t.sbi);
	assert_int_equal(rm(&t, "f0"), 0);
	assert_int_equal(ext4_count_free_blocks(t.sbi), before + 2);
	at_end(&t);
}

static void test_own_block_is_freed(void **state)
{
	(void)state;
	own_block_is_freed("-b 1024");
}

static void test_own_block_is_freed_no_csum(void **state)
{
	(void)state;
	own_block_is_freed("-b 4096 -O ^metadata_csum");
}

static void test_shared_block_goes_with_the_last(void **state)
{
	char cmd[128];
	struct at t;
	u64 blk, before;

	(void)state;
	start(&t, "-b 1024 -O ^metadata_csum");
	blk = debugfs_number(&t, "stat f0", "File ACL: ");
	snprintf(cmd, sizeof(cmd), "sif f1 file_acl %llu", (unsigned long long)blk);
	debugfs(&t, cmd);
	debugfs(&t, "sif f1 blocks 4");
	at_damage(&t, blk * 1024 + 4, 1 ^ 2); /* h_refcount: 2 */
	assert_int_equal(volume_fsck(&t.v), 0);

	at_mount(&t);
	before = ext4_count_free_blocks(t.sbi);
	assert_int_equal(rm(&t, "f0"), 0);
	assert_int_equal(ext4_count_free_blocks(t.sbi), before + 1);
	at_unmount_clean(&t);
	at_mount(&t);
	assert_int_equal(rm(&t, "f1"), 0);
	assert_int_equal(ext4_count_free_blocks(t.sbi), before + 3);
	at_end(&t);
}

/* The same in one transaction by two at a time is up to b_lock; here in a row. */
static void test_shared_block_in_one_transaction(void **state)
{
	char cmd[128];
	struct at t;
	u64 blk, before;

	(void)state;
	start(&t, "-b 1024 -O ^metadata_csum");
	blk = debugfs_number(&t, "stat f0", "File ACL: ");
	snprintf(cmd, sizeof(cmd), "sif f1 file_acl %llu", (unsigned long long)blk);
	debugfs(&t, cmd);
	debugfs(&t, "sif f1 blocks 4");
	at_damage(&t, blk * 1024 + 4, 1 ^ 2);
	at_mount(&t);
	before = ext4_count_free_blocks(t.sbi);
	assert_int_equal(rm(&t, "f0"), 0);
	assert_int_equal(rm(&t, "f1"), 0);
	assert_int_equal(ext4_count_free_blocks(t.sbi), before + 3);
	at_end(&t);
}

/* The inode stays an orphan; its blocks stay in use. */
static void damaged(const char *mkfs_args, u32 at, u8 mask)
{
	struct at t;
	int errors;
	u64 blk;

	start(&t, mkfs_args);
	blk = debugfs_number(&t, "stat f0", "File ACL: ");
	at_damage(&t, blk * 1024 + at, mask);
	at_mount(&t);
	at_quiet(&errors);
	assert_int_equal(rm(&t, "f0"), 0);
	assert_true(errors >= 1);
	(void)sl_unmount(t.sb);
	at_loud();
	volume_free(&t.v);
}

static void test_damaged_block_is_reported(void **state)
{
	(void)state;
	damaged("-b 1024", 600, 1);                             /* checksum */
	damaged("-b 1024 -O ^metadata_csum", 0, 1);             /* magic */
	damaged("-b 1024 -O ^metadata_csum", 4, 1);             /* no reference */
	damaged("-b 1024 -O ^metadata_csum", 8, 2);             /* blocks */
	damaged("-b 1024 -O ^metadata_csum", 32 + 8 + 3, 0x40); /* value size */
	damaged("-b 1024 -O ^metadata_csum", 32 + 3, 0x80);     /* value offset */
	damaged("-b 1024 -O ^metadata_csum", 32 + 4, 1);        /* value inode */
}

/* ---- reading ---- */

static struct inode *get_file(struct at *t, const char *name)
{
	struct inode *root, *inode;

	assert_int_equal(sl_iget(t->sb, EXT4_ROOT_INO, &root), 0);
	assert_int_equal(sl_lookup(root, name, strlen(name), &inode), 0);
	sl_iput(root);
	return inode;
}

static void test_values_and_names(void **state)
{
	struct inode *f0, *f1, *root;
	char buf[1024];
	struct at t;

	(void)state;
	start(&t, "-b 1024");
	debugfs(&t, "ea_set f0 user.small abc");
	debugfs(&t, "ea_set f0 trusted.t tt");
	debugfs(&t, "ea_set f0 security.s ss");
	at_mount(&t);
	f0 = get_file(&t, "f0");
	f1 = get_file(&t, "f1");
	assert_int_equal(sl_getxattr(f0, "user.small", buf, sizeof(buf)), 3);
	assert_memory_equal(buf, "abc", 3);
	assert_int_equal(sl_getxattr(f0, "user.small", NULL, 0), 3);
	assert_int_equal(sl_getxattr(f0, "user.small", buf, 3), 3);
	assert_int_equal(sl_getxattr(f0, "user.small", buf, 2), -ERANGE);
	assert_int_equal(sl_getxattr(f0, "user.large", buf, sizeof(buf)), 512);
	for (int i = 0; i < 512; i++)
		assert_int_equal(buf[i], 'v');
	assert_int_equal(sl_getxattr(f0, "user.large", buf, 511), -ERANGE);
	assert_int_equal(sl_getxattr(f0, "security.s", buf, sizeof(buf)), 2);
	assert_int_equal(sl_getxattr(f0, "user.smal", buf, sizeof(buf)), -ENODATA);
	assert_int_equal(sl_getxattr(f0, "user.small2", buf, sizeof(buf)), -ENODATA);
	assert_int_equal(sl_getxattr(f0, "trusted.small", buf, sizeof(buf)), -ENODATA);
	assert_int_equal(sl_getxattr(f0, "user.", buf, sizeof(buf)), -EINVAL);
	assert_int_equal(sl_getxattr(f0, "system.posix_acl_access", buf, 1), -ENODATA);
	assert_int_equal(sl_getxattr(f0, "system.posix_acl_accesses", buf, 1), -EOPNOTSUPP);
	assert_int_equal(sl_getxattr(f0, "small", buf, sizeof(buf)), -EOPNOTSUPP);

	/* user.small, user.large, security.s; and trusted.t for who asks. */
	assert_int_equal(sl_listxattr(f0, false, NULL, 0), 11 + 11 + 11);
	assert_int_equal(sl_listxattr(f0, true, NULL, 0), 11 + 11 + 11 + 10);
	assert_int_equal(sl_listxattr(f0, true, buf, 43), 43);
	assert_non_null(memmem(buf, 43, "user.large", 11));
	assert_non_null(memmem(buf, 43, "trusted.t", 10));
	assert_int_equal(sl_listxattr(f0, true, buf, 42), -ERANGE);

	/* f1 has none, and who looks at it in memory knows. */
	assert_int_equal(sl_getxattr(f1, "user.small", buf, sizeof(buf)), -ENODATA);
	assert_int_equal(sl_listxattr(f1, true, buf, sizeof(buf)), 0);
	assert_true(sl_has_no_xattrs(t.sb, sl_ino(f1)));
	assert_false(sl_has_no_xattrs(t.sb, sl_ino(f0)));
	assert_false(sl_has_no_xattrs(t.sb, 4000)); /* not in memory */
	assert_false(sl_has_no_xattrs(t.sb, 1));
	assert_false(sl_has_no_xattrs(t.sb, 1ull << 40));
	sl_iput(f0);
	sl_iput(f1);
	assert_int_equal(sl_iget(t.sb, EXT4_ROOT_INO, &root), 0);
	assert_int_equal(sl_mknod(root, "f2", 2, S_IFREG | 0644, 0,
				  &(struct sl_cred){ 0 }, &f1), 0);
	assert_true(sl_has_no_xattrs(t.sb, sl_ino(f1)));
	sl_iput(f1);
	sl_iput(root);
	at_end(&t);
}

/* What a file of a damaged block says; nothing is believed of it. */
static void unreadable(const char *mkfs_args, u32 at, u8 mask, int want)
{
	struct inode *f0;
	char buf[1024];
	struct at t;
	int errors;
	u64 blk;

	start(&t, mkfs_args);
	blk = debugfs_number(&t, "stat f0", "File ACL: ");
	at_damage(&t, blk * 1024 + at, mask);
	at_mount(&t);
	f0 = get_file(&t, "f0");
	at_quiet(&errors);
	assert_int_equal(sl_getxattr(f0, "user.large", buf, sizeof(buf)), want);
	assert_int_equal(sl_listxattr(f0, true, buf, sizeof(buf)), want);
	assert_true(errors >= 1);
	sl_iput(f0);
	(void)sl_unmount(t.sb);
	at_loud();
	volume_free(&t.v);
}

static void test_damaged_block_is_not_read(void **state)
{
	(void)state;
	unreadable("-b 1024", 600, 1, -EFSBADCRC);
	unreadable("-b 1024 -O ^metadata_csum", 32 + 8 + 3, 0x40, -EFSCORRUPTED);
}

/* ---- setting ---- */

static const struct sl_cred root_cred;

static int set(struct inode *inode, const char *name, char fill, size_t len, u32 flags)
{
	char value[4096];

	memset(value, fill, sizeof(value));
	return sl_setxattr(inode, name, value, len, flags, &root_cred);
}

static ssize_t length(struct inode *inode, const char *name)
{
	return sl_getxattr(inode, name, NULL, 0);
}

static void test_set_replace_remove(void **state)
{
	struct inode *f0, *f1;
	char buf[1024];
	struct at t;
	u64 free;

	(void)state;
	start(&t, "-b 1024");
	at_mount(&t);
	f0 = get_file(&t, "f0");
	f1 = get_file(&t, "f1");
	free = ext4_count_free_blocks(t.sbi);
	assert_int_equal(set(f1, "user.a", 'x', 10, SL_XATTR_REPLACE), -ENODATA);
	assert_int_equal(set(f1, "user.a", 'x', 10, SL_XATTR_CREATE), 0);
	assert_false(sl_has_no_xattrs(t.sb, sl_ino(f1)));
	assert_int_equal(set(f1, "user.a", 'x', 10, SL_XATTR_CREATE), -EEXIST);
	assert_int_equal(set(f1, "user.a", 'y', 10, 8), -EINVAL);
	assert_int_equal(ext4_count_free_blocks(t.sbi), free);
	/* Out of the body, back into it, and none of the blocks is lost. */
	assert_int_equal(set(f1, "user.a", 'z', 500, SL_XATTR_REPLACE), 0);
	assert_int_equal(ext4_count_free_blocks(t.sbi), free - 1);
	assert_int_equal(sl_getxattr(f1, "user.a", buf, sizeof(buf)), 500);
	assert_int_equal(buf[499], 'z');
	assert_int_equal(set(f1, "user.a", 'w', 20, 0), 0);
	assert_int_equal(length(f1, "user.a"), 20);
	assert_int_equal(ext4_count_free_blocks(t.sbi), free);
	assert_int_equal(sl_removexattr(f1, "user.a"), 0);
	assert_int_equal(sl_removexattr(f1, "user.a"), -ENODATA);
	assert_true(sl_has_no_xattrs(t.sb, sl_ino(f1)));
	/* Too large for a block; what is there stays. */
	assert_int_equal(set(f0, "user.large", 'q', 1024 - 32 - 16 - 8 - 4 + 1, 0), -ENOSPC);
	assert_int_equal(length(f0, "user.large"), 512);
	assert_int_equal(set(f0, "user.large", 'q', 1024 - 32 - 16 - 8 - 4, 0), 0);
	assert_int_equal(set(f0, "user.other", 'q', 300, 0), -ENOSPC);
	assert_int_equal(set(f0, "user.small", 'q', 30, 0), 0);
	assert_int_equal(sl_removexattr(f0, "user.large"), 0);
	assert_int_equal(length(f0, "user.small"), 30);
	sl_iput(f0);
	sl_iput(f1);
	at_end(&t);
}

/* The body's value is the one that is read; the block has the one that is set. */
static void test_set_what_is_in_both(void **state)
{
	struct inode *f1;
	char buf[1024], cmd[64];
	struct at t;
	u64 blk;

	(void)state;
	start(&t, "-b 1024 -I 256 -O ^metadata_csum");
	debugfs(&t, "ea_set f1 user.large abc");
	blk = debugfs_number(&t, "stat f0", "File ACL: ");
	snprintf(cmd, sizeof(cmd), "sif f1 file_acl %llu", (unsigned long long)blk);
	debugfs(&t, cmd);
	debugfs(&t, "sif f1 blocks 4");
	at_damage(&t, blk * 1024 + 4, 1 ^ 2); /* h_refcount: 2 */
	at_mount(&t);
	f1 = get_file(&t, "f1");
	assert_int_equal(length(f1, "user.large"), 3);
	assert_int_equal(set(f1, "user.large", 'v', 512, 0), 0);
	assert_int_equal(sl_getxattr(f1, "user.large", buf, sizeof(buf)), 512);
	assert_int_equal(buf[511], 'v');
	sl_iput(f1);
	at_end(&t);
}

static void set_flags(struct inode *inode, u32 flags)
{
	spin_lock(&inode->i_lock);
	inode->i_flags = (inode->i_flags & ~(EXT4_APPEND_FL | EXT4_IMMUTABLE_FL)) |
			 flags;
	spin_unlock(&inode->i_lock);
}

/* Of a file that can only grow, growing takes the capabilities away, and nobody else
 * any attribute. */
static void test_append_only_and_immutable(void **state)
{
	static const char *const names[] = {
		"user.a", "security.a", "security.capabilit", "security.capability",
	};
	struct inode *f1;
	struct at t;

	(void)state;
	start(&t, "-b 1024");
	at_mount(&t);
	f1 = get_file(&t, "f1");
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		assert_int_equal(set(f1, names[i], 'x', 4, 0), 0);
	set_flags(f1, EXT4_IMMUTABLE_FL);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		assert_int_equal(sl_removexattr(f1, names[i]), -EPERM);
		assert_int_equal(set(f1, names[i], 'y', 4, 0), -EPERM);
	}
	set_flags(f1, EXT4_APPEND_FL);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		assert_int_equal(set(f1, names[i], 'y', 4, 0), -EPERM);
		assert_int_equal(sl_removexattr(f1, names[i]), i == 3 ? 0 : -EPERM);
	}
	set_flags(f1, 0);
	sl_iput(f1);
	at_end(&t);
}

struct sharer {
	struct at *t;
	struct inode *inode;
	_Atomic bool *stop;
	int n, err;
};

static void leave(void *arg)
{
	struct sharer *s = arg;

	s->err = s->n % 2 ? sl_removexattr(s->inode, "user.large")
			  : set(s->inode, "user.more", 'm', 200, 0);
}

/* All sharers of a block leave it at the same time: it is freed once, by the last. */
static void test_sharers_leave_at_once(void **state)
{
	struct thread *thread[2];
	struct sharer s[2];
	char cmd[128];
	struct at t;
	u64 blk, before;

	(void)state;
	for (int round = 0; round < 4; round++) {
		start(&t, "-b 1024 -O ^metadata_csum");
		blk = debugfs_number(&t, "stat f0", "File ACL: ");
		snprintf(cmd, sizeof(cmd), "sif f1 file_acl %llu",
			 (unsigned long long)blk);
		debugfs(&t, cmd);
		debugfs(&t, "sif f1 blocks 4");
		at_damage(&t, blk * 1024 + 4, 1 ^ 2);
		at_mount(&t);
		before = ext4_count_free_blocks(t.sbi);
		for (int i = 0; i < 2; i++) {
			s[i] = (struct sharer){
				.t = &t,
				.inode = get_file(&t, i ? "f1" : "f0"),
				.n = i + round,
			};
			assert_int_equal(thread_create(&thread[i], "sharer", leave,
						       &s[i]), 0);
		}
		for (int i = 0; i < 2; i++) {
			thread_join(thread[i]);
			assert_int_equal(s[i].err, 0);
			sl_iput(s[i].inode);
		}
		/* The block is gone; one of the two has a new one. */
		assert_int_equal(ext4_count_free_blocks(t.sbi), before);
		at_end(&t);
	}
}

static void look(void *arg)
{
	struct sharer *s = arg;
	char buf[1024];

	while (!atomic_load(s->stop) && !s->err) {
		ssize_t n = sl_getxattr(s->inode, "user.a", buf, sizeof(buf));

		if ((n != 10 && n != 400) || buf[0] != buf[n - 1])
			s->err = 1;
	}
}

/* It wanders from body to block and back: a reader always finds it, and whole. */
static void test_reader_beside_writer(void **state)
{
	_Atomic bool stop = false;
	struct thread *reader;
	struct sharer s;
	struct at t;

	(void)state;
	start(&t, "-b 1024");
	at_mount(&t);
	s = (struct sharer){ .t = &t, .inode = get_file(&t, "f1"), .stop = &stop };
	assert_int_equal(set(s.inode, "user.a", 'a', 10, 0), 0);
	assert_int_equal(thread_create(&reader, "reader", look, &s), 0);
	for (int i = 0; i < 200; i++)
		assert_int_equal(set(s.inode, "user.a", (char)('a' + i % 20),
				     i % 2 ? 400 : 10, SL_XATTR_REPLACE), 0);
	atomic_store(&stop, true);
	thread_join(reader);
	assert_int_equal(s.err, 0);
	sl_iput(s.inode);
	at_end(&t);
}

static void append(void *arg)
{
	static const struct sl_cred root = { 0 };
	struct sharer *s = arg;
	struct sl_file *f;

	s->err = sl_open(s->inode, SL_OPEN_WRITE, &f);
	if (s->err)
		return;
	while (!atomic_load(s->stop) && !s->err) {
		/* However long it lasts: the volume has room for these. */
		if (sl_write(f, "data", 4, 4096ull * ((u32)s->n % 4000), 0, &root) != 4)
			s->err = 1;
		else
			s->err = sl_fsync(f, true);
		s->n++;
	}
	sl_release(f);
}

/* A conversion stores the inode while its attributes move from body to block and back. */
static void test_change_beside_conversions(void **state)
{
	_Atomic bool stop = false;
	struct thread *writer;
	struct sharer s;
	struct at t;

	(void)state;
	start(&t, "-b 4096");
	at_mount(&t);
	s = (struct sharer){ .t = &t, .inode = get_file(&t, "f1"), .stop = &stop };
	assert_int_equal(set(s.inode, "user.a", 'a', 10, 0), 0);
	assert_int_equal(thread_create(&writer, "writer", append, &s), 0);
	for (int i = 0; i < 400; i++)
		assert_int_equal(set(s.inode, "user.a", (char)('a' + i % 20),
				     i % 2 ? 400 : 10, SL_XATTR_REPLACE), 0);
	atomic_store(&stop, true);
	thread_join(writer);
	assert_int_equal(s.err, 0);
	sl_iput(s.inode);
	at_end(&t);
}

/* ---- power cuts ---- */

#define CUT_NAMES 3
#define CUT_STEPS 40

static const char *const cut_names[CUT_NAMES] = { "user.a", "trusted.bb", "security.c" };

struct cut_state {
	int len[CUT_NAMES]; /* -1: not there */
	char fill[CUT_NAMES];
};

static void cut_look(struct inode *inode, struct cut_state *st)
{
	char buf[1024];

	for (int i = 0; i < CUT_NAMES; i++) {
		ssize_t n = sl_getxattr(inode, cut_names[i], buf, sizeof(buf));

		st->len[i] = n < 0 ? -1 : (int)n;
		st->fill[i] = n > 0 ? buf[0] : 0;
		if (n < 0)
			assert_int_equal(n, -ENODATA);
		for (ssize_t k = 0; k < n; k++)
			assert_int_equal(buf[k], buf[0]);
	}
}

/* Bodies, blocks, and neither: what comes after `st`. */
static void cut_step(struct inode *inode, struct cut_state *st, unsigned *seed)
{
	static const int sizes[] = { 5, 30, 200, 400 };
	int i = rand_r(seed) % CUT_NAMES, len = sizes[rand_r(seed) % 4];
	char fill = (char)('a' + rand_r(seed) % 26);
	int err;

	if (rand_r(seed) % 4 == 0) {
		err = sl_removexattr(inode, cut_names[i]);
		assert_int_equal(err, st->len[i] < 0 ? -ENODATA : 0);
		st->len[i] = -1;
		st->fill[i] = 0;
		return;
	}
	err = set(inode, cut_names[i], fill, (size_t)len, 0);
	if (err == -ENOSPC)
		return;
	assert_int_equal(err, 0);
	st->len[i] = len;
	st->fill[i] = fill;
}

/* After a power cut all attributes together are as after one of the steps, and not one
 * before the last sync. */
static void test_power_cut(void **state)
{
	static const struct sl_options opts = { .cache_bytes = 16 << 20, .commit_ms = 2 };
	static struct cut_state st[CUT_STEPS + 1], after; /* static: no padding differs */
	struct memvol mv;
	struct super_block *sb;
	struct inode *root, *inode;
	unsigned seed = 7;
	u8 *image;

	(void)state;
	memvol_make(&mv, "-b 1024", "8M");
	image = malloc(mv.size);
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	assert_int_equal(sl_iget(sb, EXT4_ROOT_INO, &root), 0);
	assert_int_equal(sl_mknod(root, "f", 1, S_IFREG | 0644, 0, &root_cred, &inode), 0);
	sl_iput(root);
	cut_look(inode, &st[0]);
	assert_int_equal(sl_sync(sb), 0);
	for (int round = 0; round < 12; round++) {
		int synced = 0, steps = 5 + rand_r(&seed) % (CUT_STEPS - 5), found;

		for (int i = 0; i < steps; i++) {
			st[i + 1] = st[i];
			cut_step(inode, &st[i + 1], &seed);
			if (rand_r(&seed) % 16 == 0) {
				assert_int_equal(sl_sync(sb), 0);
				synced = i + 1;
			}
		}
		memvol_snapshot(&mv, image);
		cut_look(inode, &after);
		assert_memory_equal(&after, &st[steps], sizeof(after));
		sl_iput(inode);
		assert_int_equal(sl_unmount(sb), 0);
		memcpy(mv.content, image, mv.size);
		assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
		assert_int_equal(sl_iget(sb, EXT4_ROOT_INO, &root), 0);
		assert_int_equal(sl_lookup(root, "f", 1, &inode), 0);
		sl_iput(root);
		cut_look(inode, &after);
		for (found = synced; found < steps; found++)
			if (!memcmp(&after, &st[found], sizeof(after)))
				break;
		assert_memory_equal(&after, &st[found], sizeof(after));
		st[0] = after;
	}
	sl_iput(inode);
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(memvol_fsck(&mv), 0);
	memvol_free(&mv);
	free(image);
}

/* ---- equal blocks ---- */

static struct inode *new_file(struct at *t, const char *name)
{
	struct inode *root, *inode;

	assert_int_equal(sl_iget(t->sb, EXT4_ROOT_INO, &root), 0);
	assert_int_equal(sl_mknod(root, name, strlen(name), S_IFREG | 0644, 0, &root_cred,
				  &inode), 0);
	sl_iput(root);
	return inode;
}

static pblk_t block_of(struct inode *inode)
{
	return EXT4_I(inode)->i_file_acl;
}

static void test_equal_blocks_are_one(void **state)
{
	struct inode *f[4];
	struct stat st;
	struct at t;
	u64 free;

	(void)state;
	start(&t, "-b 1024");
	at_mount(&t);
	f[0] = get_file(&t, "f0");
	/* debugfs gives blocks no hash; this one has one, and is from before the mount. */
	assert_int_equal(set(f[0], "user.large", 'w', 512, 0), 0);
	assert_int_equal(set(f[0], "user.large", 'v', 512, 0), 0);
	sl_iput(f[0]);
	at_unmount_clean(&t);
	at_mount(&t);
	f[0] = get_file(&t, "f0");
	for (u32 i = 1; i < 4; i++)
		f[i] = new_file(&t, (char[]){ (char)('a' + i), 0 });
	assert_int_equal(length(f[0], "user.large"), 512); /* known from here on */
	free = ext4_count_free_blocks(t.sbi);
	for (u32 i = 1; i < 4; i++) {
		assert_int_equal(set(f[i], "user.large", 'v', 512, 0), 0);
		assert_int_equal(block_of(f[i]), block_of(f[0]));
		sl_getattr(f[i], &st);
		assert_int_equal(st.st_blocks, 2);
	}
	assert_int_equal(ext4_count_free_blocks(t.sbi), free);
	/* Another value: a block of its own, and later the same again. */
	assert_int_equal(set(f[1], "user.large", 'w', 512, 0), 0);
	assert_int_not_equal(block_of(f[1]), block_of(f[0]));
	assert_int_equal(ext4_count_free_blocks(t.sbi), free - 1);
	assert_int_equal(set(f[2], "user.large", 'w', 512, 0), 0);
	assert_int_equal(block_of(f[2]), block_of(f[1]));
	assert_int_equal(set(f[1], "user.large", 'v', 512, 0), 0);
	assert_int_equal(block_of(f[1]), block_of(f[0]));
	/* f[2]'s is its own now: changed where it is, and found by its new content only. */
	assert_int_equal(set(f[2], "user.large", 'x', 512, 0), 0);
	assert_int_equal(set(f[3], "user.large", 'w', 512, 0), 0);
	assert_int_not_equal(block_of(f[3]), block_of(f[2]));
	assert_int_equal(set(f[3], "user.large", 'x', 512, 0), 0);
	assert_int_equal(block_of(f[3]), block_of(f[2]));
	for (u32 i = 0; i < 4; i++) {
		assert_int_equal(length(f[i], "user.large"), 512);
		assert_int_equal(sl_removexattr(f[i], "user.large"), 0);
		sl_iput(f[i]);
	}
	assert_int_equal(ext4_count_free_blocks(t.sbi), free + 1);
	/* The block that all have left is nobody's to join. */
	f[1] = new_file(&t, "last");
	assert_int_equal(set(f[1], "user.large", 'v', 512, 0), 0);
	sl_iput(f[1]);
	at_end(&t);
}

static void test_sharers_are_counted(void **state)
{
	struct inode *f, *first = NULL;
	char name[16];
	struct at t;

	(void)state;
	start(&t, "-b 1024 -N 1500");
	at_mount(&t);
	for (u32 i = 0; i <= EXT4_XATTR_REFCOUNT_MAX; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		f = new_file(&t, name);
		assert_int_equal(set(f, "user.a", 'a', 300, 0), 0);
		if (!first) {
			first = f;
			continue;
		}
		assert_int_equal(block_of(f) == block_of(first),
				 i < EXT4_XATTR_REFCOUNT_MAX);
		sl_iput(f);
	}
	sl_iput(first);
	at_end(&t);
}

static void test_equal_blocks_with_nombcache(void **state)
{
	struct sl_options opts = { .errors = SL_ERRORS_CONTINUE, .nombcache = true };
	struct inode *a, *b;
	struct at t;

	(void)state;
	start(&t, "-b 1024");
	assert_int_equal(volume_mount(&t.v, &opts, &t.sb), 0);
	t.sbi = EXT4_SB(t.sb);
	a = new_file(&t, "a");
	b = new_file(&t, "b");
	assert_int_equal(set(a, "user.a", 'a', 300, 0), 0);
	assert_int_equal(set(b, "user.a", 'a', 300, 0), 0);
	assert_int_not_equal(block_of(a), block_of(b));
	sl_iput(a);
	sl_iput(b);
	at_end(&t);
}

struct joiner {
	struct inode *f[3];
	unsigned seed;
	int err;
};

/* Joins, changes, leaves; what is read is what was set. */
static void join_and_leave(void *arg)
{
	struct joiner *j = arg;
	char buf[512];

	for (int i = 0; i < 250 && !j->err; i++) {
		struct inode *f = j->f[rand_r(&j->seed) % 3];
		char fill = (char)('a' + rand_r(&j->seed) % 2);

		if (rand_r(&j->seed) % 4 == 0) {
			j->err = sl_removexattr(f, "user.a");
			if (j->err == -ENODATA)
				j->err = 0;
			continue;
		}
		j->err = set(f, "user.a", fill, 300, 0);
		if (!j->err && (sl_getxattr(f, "user.a", buf, sizeof(buf)) != 300 ||
				buf[0] != fill || buf[299] != fill))
			j->err = 1;
	}
}

static void test_joining_beside_leaving(void **state)
{
	struct thread *thread[3];
	struct joiner j[3];
	char name[3] = "00";
	struct at t;
	u64 free;

	(void)state;
	start(&t, "-b 1024");
	at_mount(&t);
	for (u32 i = 0; i < 3; i++) {
		j[i] = (struct joiner){ .seed = i };
		for (u32 k = 0; k < 3; k++) {
			name[0] = (char)('0' + i);
			name[1] = (char)('a' + k);
			j[i].f[k] = new_file(&t, name);
		}
	}
	free = ext4_count_free_blocks(t.sbi);
	for (u32 i = 0; i < 3; i++)
		assert_int_equal(thread_create(&thread[i], "joiner", join_and_leave, &j[i]),
				 0);
	for (int i = 0; i < 20; i++)
		at_commit(&t);
	for (u32 i = 0; i < 3; i++) {
		thread_join(thread[i]);
		assert_int_equal(j[i].err, 0);
		for (u32 k = 0; k < 3; k++)
			sl_iput(j[i].f[k]);
	}
	at_unmount_clean(&t);
	at_mount(&t);
	for (u32 i = 0; i < 3; i++)
		for (u32 k = 0; k < 3; k++) {
			int err;

			name[0] = (char)('0' + i);
			name[1] = (char)('a' + k);
			j[i].f[k] = get_file(&t, name);
			err = sl_removexattr(j[i].f[k], "user.a");
			assert_true(!err || err == -ENODATA);
			sl_iput(j[i].f[k]);
		}
	assert_int_equal(ext4_count_free_blocks(t.sbi), free);
	at_end(&t);
}

/* ---- inodes that get more fields ---- */

static void touch_mode(struct inode *inode)
{
	struct stat st = { .st_mode = 0600 };

	assert_int_equal(sl_setattr(inode, &st, SL_SET_MODE, &root_cred, NULL), 0);
}

/* Attributes of a file with `nr` of them in its body, and the block filled but for 28 bytes
 * if full, when the extra part is to have 64 bytes and at least min; 32 bytes are each. */
static void grows(const char *mkfs_args, u32 nr, bool full, u32 min, u32 want_extra,
		  bool want_block)
{
	static const char *const names[] = { "user.a", "user.b", "user.c" };
	struct inode *f1;
	struct at t;
	char buf[16], out[2048];

	start(&t, mkfs_args);
	at_mount(&t);
	f1 = get_file(&t, "f1");
	assert_int_equal(EXT4_I(f1)->i_extra_isize, 32);
	for (u32 i = 0; i < nr; i++)
		assert_int_equal(set(f1, names[i], (char)('a' + i), 10, 0), 0);
	if (full)
		assert_int_equal(set(f1, "user.z", 'z', 940, 0), 0);
	t.sbi->want_extra_isize = 64;
	t.sbi->min_extra_isize = (u16)min;
	touch_mode(f1);
	assert_int_equal(EXT4_I(f1)->i_extra_isize, want_extra);
	assert_int_equal(EXT4_I(f1)->i_extra_stays, want_extra == 32);
	assert_int_equal(EXT4_I(f1)->i_file_acl != 0, want_block);
	touch_mode(f1); /* nothing more comes of it */
	for (int again = 0; again < 2; again++) {
		for (u32 i = 0; i < nr; i++) {
			assert_int_equal(sl_getxattr(f1, names[i], buf, sizeof(buf)), 10);
			assert_int_equal(buf[9], 'a' + i);
		}
		if (full)
			assert_int_equal(length(f1, "user.z"), 940);
		if (again)
			break;
		sl_iput(f1);
		at_unmount_clean(&t);
		snprintf(buf, sizeof(buf), ": %u", want_extra);
		at_output(&t, "debugfs -R 'stat f1' %s 2>/dev/null | grep 'extra inode'",
			  out, sizeof(out));
		assert_non_null(strstr(out, buf));
		at_mount(&t);
		f1 = get_file(&t, "f1");
		assert_int_equal(EXT4_I(f1)->i_extra_isize, want_extra);
	}
	assert_int_equal(sl_removexattr(f1, "user.a"), nr ? 0 : -ENODATA);
	sl_iput(f1);
	at_end(&t);
}

static void test_more_fields(void **state)
{
	(void)state;
	grows("-b 1024 -I 256", 0, false, 0, 64, false);
	grows("-b 1024 -I 256", 1, false, 0, 64, false);
	grows("-b 1024 -I 256 -O ^metadata_csum", 1, false, 0, 64, false);
}

static void test_more_fields_need_the_block(void **state)
{
	(void)state;
	grows("-b 1024 -I 256", 2, false, 0, 64, true);
	grows("-b 1024 -I 256 -O ea_inode", 2, false, 0, 64, true);
	grows("-b 1024 -I 256", 1, true, 0, 64, true);
}

static void test_more_fields_have_no_room(void **state)
{
	(void)state;
	grows("-b 1024 -I 256", 2, true, 0, 32, true);
	grows("-b 1024 -I 256", 2, true, 48, 48, true);
}

/* What was never an attribute does not become one where the list is to begin. */
static void test_more_fields_over_garbage(void **state)
{
	struct inode *f1;
	struct at t;
	struct buffer *b;
	le32 magic = cpu_to_le32(EXT4_XATTR_MAGIC);
	u32 offset;

	(void)state;
	start(&t, "-b 1024 -I 256 -O ^metadata_csum");
	at_mount(&t);
	f1 = get_file(&t, "f1");
	assert_int_equal(ext4_inode_buffer(t.sbi, f1->i_ino, false, &b, &offset), 0);
	memset(b->b_data + offset + 164, 0x55, 92);
	memcpy(b->b_data + offset + 192, &magic, sizeof(magic));
	buffer_put(b);
	t.sbi->want_extra_isize = 64;
	touch_mode(f1);
	assert_int_equal(EXT4_I(f1)->i_extra_isize, 64);
	assert_true(sl_has_no_xattrs(t.sb, sl_ino(f1)));
	assert_int_equal(sl_listxattr(f1, true, NULL, 0), 0);
	assert_int_equal(set(f1, "user.a", 'a', 10, 0), 0);
	sl_iput(f1);
	at_end(&t);
}

static void read_all(void *arg)
{
	struct sharer *s = arg;
	char buf[16];
	struct stat st;

	while (!atomic_load(s->stop) && !s->err) {
		if (sl_getxattr(s->inode, "user.a", buf, sizeof(buf)) != 10 ||
		    sl_getxattr(s->inode, "user.b", buf, sizeof(buf)) != 10)
			s->err = 1;
		sl_getattr(s->inode, &st);
	}
}

/* Nobody who reads sees a list that is between its places. */
static void test_more_fields_beside_readers(void **state)
{
	_Atomic bool stop = false;
	struct thread *reader;
	struct sharer s;
	struct at t;

	(void)state;
	start(&t, "-b 1024 -I 512");
	at_mount(&t);
	s = (struct sharer){ .t = &t, .inode = get_file(&t, "f1"), .stop = &stop };
	assert_int_equal(set(s.inode, "user.a", 'a', 10, 0), 0);
	assert_int_equal(set(s.inode, "user.b", 'b', 10, 0), 0);
	assert_int_equal(thread_create(&reader, "reader", read_all, &s), 0);
	for (u16 want = 36; want <= 384; want = (u16)(want + 4)) {
		t.sbi->want_extra_isize = want;
		touch_mode(s.inode);
		assert_int_equal(EXT4_I(s.inode)->i_extra_isize, want);
	}
	atomic_store(&stop, true);
	thread_join(reader);
	assert_int_equal(s.err, 0);
	sl_iput(s.inode);
	at_end(&t);
}

/* ---- in the inode's body ---- */

struct body {
	u8 raw[256];
	struct ext4_xattr_ibody_header *hdr;
	struct ext4_xattr_entry *e;
};

static void body_init(struct body *b)
{
	memset(b, 0, sizeof(*b));
	b->hdr = (void *)(b->raw + 160);
	b->hdr->h_magic = cpu_to_le32(EXT4_XATTR_MAGIC);
	b->e = (void *)(b->raw + 164);
	b->e->e_name_len = 4;
	b->e->e_name_index = 1;
	b->e->e_value_size = cpu_to_le32(8);
	b->e->e_value_offs = cpu_to_le16(256 - 164 - 8);
}

static void test_ibody_bounds(void **state)
{
	struct ext4_sb sbi = { 0 };
	struct body b;

	(void)state;
	body_init(&b);
	assert_int_equal(ext4_xattr_check_ibody(&sbi, b.raw, 256, 32), 0);
	b.e->e_value_offs = cpu_to_le16(256 - 164 - 7);
	assert_int_equal(ext4_xattr_check_ibody(&sbi, b.raw, 256, 32), -EFSCORRUPTED);
	body_init(&b);
	b.e->e_value_offs = cpu_to_le16(20); /* in the terminator */
	assert_int_equal(ext4_xattr_check_ibody(&sbi, b.raw, 256, 32), -EFSCORRUPTED);
	body_init(&b);
	b.e->e_value_size = cpu_to_le32(UINT32_MAX);
	assert_int_equal(ext4_xattr_check_ibody(&sbi, b.raw, 256, 32), -EFSCORRUPTED);
	body_init(&b);
	b.e->e_name_len = 80; /* no room for the end */
	assert_int_equal(ext4_xattr_check_ibody(&sbi, b.raw, 256, 32), -EFSCORRUPTED);
	body_init(&b);
	memset(b.raw + 164, 0xFF, 92);
	assert_int_equal(ext4_xattr_check_ibody(&sbi, b.raw, 256, 32), -EFSCORRUPTED);
	body_init(&b); /* nothing but an offset, so that it is not yet the end */
	b.e->e_name_len = b.e->e_name_index = 0;
	assert_int_equal(ext4_xattr_check_ibody(&sbi, b.raw, 256, 32), -EFSCORRUPTED);
	memset(b.raw + 164, 0xFF, 92);
	/* No magic: no attributes, whatever is there. */
	b.hdr->h_magic = cpu_to_le32(0);
	assert_int_equal(ext4_xattr_check_ibody(&sbi, b.raw, 256, 32), 0);
	/* No room for any. */
	assert_int_equal(ext4_xattr_check_ibody(&sbi, b.raw, 256, 128), 0);
	assert_int_equal(ext4_xattr_check_ibody(&sbi, b.raw, 256, 132), -EFSCORRUPTED);
	assert_int_equal(ext4_xattr_check_ibody(&sbi, b.raw, 256, 33), -EFSCORRUPTED);
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
		cmocka_unit_test(test_ibody_bounds),
		cmocka_unit_test(test_own_block_is_freed),
		cmocka_unit_test(test_own_block_is_freed_no_csum),
		cmocka_unit_test(test_shared_block_goes_with_the_last),
		cmocka_unit_test(test_shared_block_in_one_transaction),
		cmocka_unit_test(test_damaged_block_is_reported),
		cmocka_unit_test(test_values_and_names),
		cmocka_unit_test(test_damaged_block_is_not_read),
		cmocka_unit_test(test_set_replace_remove),
		cmocka_unit_test(test_set_what_is_in_both),
		cmocka_unit_test(test_append_only_and_immutable),
		cmocka_unit_test(test_sharers_leave_at_once),
		cmocka_unit_test(test_reader_beside_writer),
		cmocka_unit_test(test_change_beside_conversions),
		cmocka_unit_test(test_power_cut),
		cmocka_unit_test(test_equal_blocks_are_one),
		cmocka_unit_test(test_sharers_are_counted),
		cmocka_unit_test(test_equal_blocks_with_nombcache),
		cmocka_unit_test(test_joining_beside_leaving),
		cmocka_unit_test(test_more_fields),
		cmocka_unit_test(test_more_fields_need_the_block),
		cmocka_unit_test(test_more_fields_have_no_room),
		cmocka_unit_test(test_more_fields_over_garbage),
		cmocka_unit_test(test_more_fields_beside_readers),
	};

	return cmocka_run_group_tests(tests, init, NULL);
}
