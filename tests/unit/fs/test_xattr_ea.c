/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_xattr_ea.c - values of attributes in inodes of their own
 *
 * What the volume is worth is e2fsck's to say: references, hashes, and the blocks
 * that owners are charged.
 */
#include "tests/unit/fs/alloc_test.h"
#include "tests/unit/fs/memvol.h"

#include "fs/acl.h"
#include "fs/xattr_internal.h"

#include <stdatomic.h>
#include <sys/stat.h>

static const struct sl_cred root_cred;

#define VALUE_MAX 65536
static char value_buf[VALUE_MAX + 1];

/* The same bytes for the same n. */
static const char *value(unsigned n, size_t len)
{
	unsigned seed = n * 7919 + 1;

	for (size_t i = 0; i < len; i++)
		value_buf[i] = (char)rand_r(&seed);
	return value_buf;
}

static int set(struct inode *inode, const char *name, unsigned n, size_t len)
{
	return sl_setxattr(inode, name, value(n, len), len, 0, &root_cred);
}

static void check(struct inode *inode, const char *name, unsigned n, size_t len)
{
	static char buf[VALUE_MAX];

	assert_int_equal(sl_getxattr(inode, name, NULL, 0), len);
	assert_int_equal(sl_getxattr(inode, name, buf, sizeof(buf)), len);
	assert_memory_equal(buf, value(n, len), len);
	if (len > 1)
		assert_int_equal(sl_getxattr(inode, name, buf, len - 1), -ERANGE);
}

static struct inode *make(struct super_block *sb, const char *name)
{
	struct inode *root, *inode;

	assert_int_equal(sl_iget(sb, EXT4_ROOT_INO, &root), 0);
	assert_int_equal(sl_mknod(root, name, strlen(name), S_IFREG | 0644, 0, &root_cred,
				  &inode), 0);
	sl_iput(root);
	return inode;
}

static int look_up(struct super_block *sb, const char *name, struct inode **inode)
{
	struct inode *root;
	int err;

	assert_int_equal(sl_iget(sb, EXT4_ROOT_INO, &root), 0);
	err = sl_lookup(root, name, strlen(name), inode);
	sl_iput(root);
	return err;
}

static struct inode *get(struct super_block *sb, const char *name)
{
	struct inode *inode;

	assert_int_equal(look_up(sb, name, &inode), 0);
	return inode;
}

static int rm(struct super_block *sb, const char *name)
{
	struct inode *root;
	int err;

	assert_int_equal(sl_iget(sb, EXT4_ROOT_INO, &root), 0);
	err = sl_unlink(root, name, strlen(name));
	sl_iput(root);
	return err;
}

static void debugfs(struct at *t, const char *fmt, unsigned n)
{
	char command[128], cmd[512];

	snprintf(command, sizeof(command), fmt, n);
	snprintf(cmd, sizeof(cmd), "debugfs -w -R '%s' %s >/dev/null 2>&1", command,
		 t->v.image);
	assert_int_equal(system(cmd), 0);
}

static u64 free_inodes(struct at *t)
{
	return (u64)counter_sum(t->sbi->free_inodes);
}

/* The inode that has the value, by the list in the body or in the block; 0: none. */
static ino_nr value_ino(struct inode *inode, const char *full)
{
	struct ext4_inode *ei = EXT4_I(inode);
	struct ext4_sb *sbi = ext4_sb_of(ei);
	struct xattr_name name;
	struct xattr_list l;
	struct buffer *b;
	ino_nr ino = 0;
	u8 *raw;
	u32 at;

	assert_int_equal(xattr_parse_name(sbi, full, &name), 0);
	assert_int_equal(xattr_read_raw(ei, &raw), 0);
	if (xattr_body_list(sbi, raw, ei->i_extra_isize, &l)) {
		at = xattr_find(&l, &name);
		if (at)
			ino = le32_to_cpu(xattr_entry(&l, at)->e_value_inum);
	}
	free(raw);
	if (ino || !ei->i_file_acl)
		return ino;
	mutex_lock(&ei->xattr_sem);
	assert_int_equal(xattr_bread(ei, &b), 0);
	mutex_unlock(&ei->xattr_sem);
	l = xattr_block_list(sbi, b);
	at = xattr_find(&l, &name);
	if (at)
		ino = le32_to_cpu(xattr_entry(&l, at)->e_value_inum);
	buffer_put(b);
	return ino;
}

static u64 references(struct at *t, ino_nr ino)
{
	struct inode *inode;
	u64 n;

	assert_int_equal(icache_get(t->sb, ino, &inode), 0);
	n = (u64)(u32)inode->i_ctime.tv_sec << 32 | (u32)inode->i_version;
	assert_int_equal(inode->i_nlink, n ? 1 : 0);
	inode_put(inode);
	return n;
}

static const char *const kinds[] = {
	"-b 1024 -O ea_inode",
	"-b 4096 -O ea_inode,^metadata_csum",
	"-b 1024 -I 128 -O ea_inode,^metadata_csum,^orphan_file",
	"-b 2048 -I 128 -O ea_inode,metadata_csum,^orphan_file",
};

/* ---- one owner ---- */

static void round_trip(const char *mkfs_args)
{
	static const size_t sizes[] = { 65536, 5, 1000, 0, 4097, 30000, 800, 4040, 4041 };
	struct inode *f;
	struct at t;
	u64 inodes, blocks;

	at_start(&t, mkfs_args, "16M");
	f = make(t.sb, "f");
	inodes = free_inodes(&t);
	at_commit(&t);
	blocks = ext4_count_free_blocks(t.sbi);
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		assert_int_equal(set(f, "user.v", i, sizes[i]), 0);
		check(f, "user.v", i, sizes[i]);
	}
	/* From a cold start, too. */
	assert_true(value_ino(f, "user.v") || t.sb->s_blocksize == 4096);
	sl_iput(f);
	at_unmount_clean(&t);
	at_mount(&t);
	f = get(t.sb, "f");
	check(f, "user.v", ARRAY_SIZE(sizes) - 1, sizes[ARRAY_SIZE(sizes) - 1]);
	assert_int_equal(sl_setxattr(f, "user.w", value_buf, VALUE_MAX + 1, 0, &root_cred),
			 -E2BIG);
	assert_int_equal(sl_setxattr(f, "user.v", value_buf, 5000, SL_XATTR_CREATE,
				     &root_cred), -EEXIST);
	assert_int_equal(sl_setxattr(f, "user.w", value_buf, 5000, SL_XATTR_REPLACE,
				     &root_cred), -ENODATA);
	assert_int_equal(sl_removexattr(f, "user.v"), 0);
	assert_int_equal(sl_removexattr(f, "user.v"), -ENODATA);
	assert_true(sl_has_no_xattrs(t.sb, sl_ino(f)));
	at_commit(&t);
	assert_int_equal(free_inodes(&t), inodes);
	assert_int_equal(ext4_count_free_blocks(t.sbi), blocks);
	sl_iput(f);
	at_end(&t);
}

static void test_round_trip(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		round_trip(kinds[i]);
}

/* What lies beside its name, and what does not, goes by the rule of the kernel's ext4. */
static void test_place(void **state)
{
	struct inode *f;
	struct at t;

	(void)state;
	at_start(&t, "-b 4096 -O ea_inode", "16M");
	f = make(t.sb, "f");
	/* It would fill the block: from 512 bytes on values do not take it all. */
	assert_int_equal(set(f, "user.v", 1, 4096 - 512), 0);
	assert_int_equal(value_ino(f, "user.v"), 0);
	assert_int_equal(set(f, "user.v", 1, 4096 - 512 + 1), 0);
	assert_int_not_equal(value_ino(f, "user.v"), 0);
	/* Back beside it. */
	assert_int_equal(set(f, "user.v", 2, 60), 0);
	assert_int_equal(value_ino(f, "user.v"), 0);
	check(f, "user.v", 2, 60);
	sl_iput(f);
	at_end(&t);
}

/* Names without end: the values have places, their entries at last have none. */
static void test_entries_fill_the_block(void **state)
{
	char name[64];
	struct inode *f;
	struct at t;
	u64 inodes;
	int n, err = 0;

	(void)state;
	at_start(&t, "-b 1024 -O ea_inode", "16M");
	f = make(t.sb, "f");
	for (n = 0; n < 100; n++) {
		snprintf(name, sizeof(name), "user.%028d", n);
		inodes = free_inodes(&t);
		err = set(f, name, (unsigned)n, 1500 + (size_t)n);
		if (err)
			break;
	}
	assert_int_equal(err, -ENOSPC);
	assert_in_range(n, 15, 30);
	at_commit(&t);
	/* Nothing was made for the one that did not fit. */
	assert_int_equal(free_inodes(&t), inodes);
	for (int i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "user.%028d", i);
		check(f, name, (unsigned)i, 1500 + (size_t)i);
	}
	sl_iput(f);
	at_unmount_clean(&t);
	/* They go with the file. */
	at_mount(&t);
	inodes = free_inodes(&t);
	assert_int_equal(rm(t.sb, "f"), 0);
	assert_int_equal(free_inodes(&t), inodes + 1 + (u64)n);
	at_end(&t);
}

static void test_no_space(void **state)
{
	struct inode *f;
	char name[32];
	struct at t;
	int n, err = 0;

	(void)state;
	at_start(&t, "-b 1024 -J size=1 -m 0 -O ea_inode", "3M");
	for (n = 0; n < 100 && !err; n++) {
		snprintf(name, sizeof(name), "f%d", n);
		f = make(t.sb, name);
		err = set(f, "user.v", (unsigned)n, VALUE_MAX);
		if (!err)
			check(f, "user.v", (unsigned)n, VALUE_MAX);
		else
			assert_int_equal(sl_getxattr(f, "user.v", NULL, 0), -ENODATA);
		sl_iput(f);
	}
	assert_int_equal(err, -ENOSPC);
	assert_in_range(n, 5, 40);
	assert_int_equal(rm(t.sb, "f0"), 0);
	f = get(t.sb, name);
	assert_int_equal(set(f, "user.v", 1000, 60000), 0);
	check(f, "user.v", 1000, 60000);
	sl_iput(f);
	at_end(&t);
}

/* ---- several owners ---- */

static void test_equal_values_are_shared(void **state)
{
	struct inode *f0, *f1;
	struct at t;
	u64 inodes;
	ino_nr ino;

	(void)state;
	at_start(&t, kinds[0], "16M");
	f0 = make(t.sb, "f0");
	f1 = make(t.sb, "f1");
	inodes = free_inodes(&t);
	assert_int_equal(set(f0, "user.v", 1, 20000), 0);
	assert_int_equal(set(f1, "user.v", 1, 20000), 0);
	assert_int_equal(set(f1, "user.w", 1, 20000), 0);
	ino = value_ino(f0, "user.v");
	assert_int_equal(value_ino(f1, "user.v"), ino);
	assert_int_equal(references(&t, ino), 3);
	assert_int_equal(free_inodes(&t), inodes - 1);
	/* The same again is the same. */
	assert_int_equal(set(f0, "user.v", 1, 20000), 0);
	assert_int_equal(references(&t, ino), 3);
	sl_iput(f0);
	sl_iput(f1);
	at_unmount_clean(&t);

	at_mount(&t);
	f0 = get(t.sb, "f0");
	f1 = get(t.sb, "f1");
	/* Known by being read. */
	check(f0, "user.v", 1, 20000);
	assert_int_equal(set(f0, "user.x", 1, 20000), 0);
	assert_int_equal(references(&t, ino), 4);
	assert_int_equal(sl_removexattr(f0, "user.x"), 0);
	assert_int_equal(set(f1, "user.w", 2, 20000), 0);
	assert_int_equal(references(&t, ino), 2);
	assert_int_equal(rm(t.sb, "f0"), 0);
	sl_iput(f0);
	assert_int_equal(references(&t, ino), 1);
	check(f1, "user.v", 1, 20000);
	sl_iput(f1);
	assert_int_equal(rm(t.sb, "f1"), 0);
	at_commit(&t);
	assert_int_equal(free_inodes(&t), inodes + 2);
	at_end(&t);
}

static void test_nombcache(void **state)
{
	struct sl_options opts = { .nombcache = true };
	struct inode *f0, *f1;
	struct at t;

	(void)state;
	volume_make(&t.v, kinds[0], "16M");
	assert_int_equal(volume_mount(&t.v, &opts, &t.sb), 0);
	t.sbi = EXT4_SB(t.sb);
	f0 = make(t.sb, "f0");
	f1 = make(t.sb, "f1");
	assert_int_equal(set(f0, "user.v", 1, 20000), 0);
	assert_int_equal(set(f1, "user.v", 1, 20000), 0);
	assert_int_not_equal(value_ino(f0, "user.v"), value_ino(f1, "user.v"));
	sl_iput(f0);
	sl_iput(f1);
	at_end(&t);
}

/*
 * f0 and f1 share a block that names two inodes. No checksums, so that it can be made
 * by hand.
 */
static void shared_block(struct at *t)
{
	struct inode *f0, *f1;
	char cmd[64];
	pblk_t blk;
	u64 blocks;

	at_start(t, kinds[2], "16M");
	f0 = make(t->sb, "f0");
	f1 = make(t->sb, "f1");
	assert_int_equal(set(f0, "user.v", 1, 5000), 0);
	assert_int_equal(set(f0, "user.w", 2, 6000), 0);
	blk = EXT4_I(f0)->i_file_acl;
	blocks = f0->i_blocks;
	sl_iput(f0);
	sl_iput(f1);
	at_unmount_clean(t);
	snprintf(cmd, sizeof(cmd), "sif f1 file_acl %llu", (unsigned long long)blk);
	debugfs(t, cmd, 0);
	snprintf(cmd, sizeof(cmd), "sif f1 blocks %llu", (unsigned long long)blocks);
	debugfs(t, cmd, 0);
	at_damage(t, blk * 1024 + 4, 1 ^ 2); /* h_refcount: 2 */
	assert_int_equal(volume_fsck(&t->v), 0);
	at_mount(t);
}

/* A block names them once for all; who gets one of his own names them once more. */
static void test_leaving_a_shared_block(void **state)
{
	static const char *const ways[] = { "set", "replace", "remove", "delete" };
	struct inode *f0, *f1;
	struct at t;
	ino_nr v, w;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		shared_block(&t);
		f0 = get(t.sb, "f0");
		f1 = get(t.sb, "f1");
		v = value_ino(f1, "user.v");
		w = value_ino(f1, "user.w");
		assert_int_equal(references(&t, v), 1);
		if (i == 0)
			assert_int_equal(set(f1, "user.small", 3, 10), 0);
		else if (i == 1)
			assert_int_equal(set(f1, "user.v", 3, 7000), 0);
		else if (i == 2)
			assert_int_equal(sl_removexattr(f1, "user.v"), 0);
		else
			assert_int_equal(rm(t.sb, "f1"), 0);
		if (i < 3)
			check(f1, "user.w", 2, 6000);
		sl_iput(f1);
		assert_int_equal(references(&t, v), i == 0 ? 2 : 1);
		assert_int_equal(references(&t, w), i == 3 ? 1 : 2);
		check(f0, "user.v", 1, 5000);
		check(f0, "user.w", 2, 6000);
		sl_iput(f0);
		at_unmount_clean(&t);
		at_mount(&t);
		assert_int_equal(rm(t.sb, "f0"), 0);
		if (i < 3)
			assert_int_equal(rm(t.sb, "f1"), 0);
		at_end(&t);
	}
}

struct actor {
	struct super_block *sb;
	struct inode *inode;
	_Atomic bool *stop;
	unsigned n;
	int err;
};

static void leave(void *arg)
{
	struct actor *a = arg;

	switch (a->n % 3) {
	case 0:
		a->err = sl_removexattr(a->inode, "user.v");
		break;
	case 1:
		a->err = sl_setxattr(a->inode, "user.small", "abc", 3, 0, &root_cred);
		break;
	default:
		a->err = rm(a->sb, a->n & 1 ? "f1" : "f0");
		sl_iput(a->inode);
		a->inode = NULL;
	}
}

/* Both at the same time: whoever is the last accounts for what the block named. */
static void test_leaving_at_once(void **state)
{
	struct thread *thread[2];
	struct actor a[2];
	struct at t;

	(void)state;
	for (unsigned round = 0; round < 9; round++) {
		shared_block(&t);
		for (unsigned i = 0; i < 2; i++) {
			unsigned way = i ? round / 3 : round % 3;

			/* Even for f0, odd for f1. */
			a[i] = (struct actor){ .sb = t.sb, .n = way + 3 * ((way ^ i) & 1) };
			a[i].inode = get(t.sb, i ? "f1" : "f0");
		}
		for (int i = 0; i < 2; i++)
			assert_int_equal(thread_create(&thread[i], "leave", leave, &a[i]), 0);
		for (int i = 0; i < 2; i++) {
			thread_join(thread[i]);
			assert_int_equal(a[i].err, 0);
			if (a[i].inode)
				sl_iput(a[i].inode);
		}
		at_end(&t);
	}
}

#define STEPS 150

/* Two values, of two files, in any order: each is shared and let go all the time. */
static void churn(void *arg)
{
	struct actor *a = arg;
	static const size_t len[] = { 3000, 9000 };
	char *copy = malloc(VALUE_MAX);
	unsigned seed = a->n;

	for (int i = 0; i < STEPS && !a->err; i++) {
		unsigned which = (unsigned)rand_r(&seed) % 3;

		if (which == 2) {
			a->err = sl_removexattr(a->inode, "user.v");
			if (a->err == -ENODATA)
				a->err = 0;
			continue;
		}
		memset(copy, 'a' + (int)which, len[which]);
		a->err = sl_setxattr(a->inode, "user.v", copy, len[which], 0, &root_cred);
	}
	free(copy);
}

static void watch(void *arg)
{
	struct actor *a = arg;
	char *copy = malloc(VALUE_MAX);

	while (!atomic_load(a->stop) && !a->err) {
		ssize_t n = sl_getxattr(a->inode, "user.v", copy, VALUE_MAX);

		if (n != -ENODATA && n != 3000 && n != 9000)
			a->err = n < 0 ? (int)n : -EINVAL;
		for (ssize_t i = 0; i < n; i++)
			if (copy[i] != (n == 3000 ? 'a' : 'b'))
				a->err = -EILSEQ;
	}
	free(copy);
}

static void test_owners_at_once(void **state)
{
	struct thread *thread[6];
	struct actor a[6];
	_Atomic bool stop = false;
	struct at t;
	char name[8];

	(void)state;
	at_start(&t, kinds[0], "16M");
	for (unsigned i = 0; i < 6; i++) {
		snprintf(name, sizeof(name), "f%u", i % 3);
		a[i] = (struct actor){ .sb = t.sb, .n = i, .stop = &stop };
		a[i].inode = i < 3 ? make(t.sb, name) : get(t.sb, name);
	}
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(thread_create(&thread[i], "owner", i < 3 ? churn : watch,
					       &a[i]), 0);
	for (unsigned i = 0; i < 6; i++) {
		if (i == 3)
			atomic_store(&stop, true);
		thread_join(thread[i]);
		assert_int_equal(a[i].err, 0);
		sl_iput(a[i].inode);
	}
	at_end(&t);
}

/* Blocks that it is charged for its values do not make a short link a long one. */
static void test_links(void **state)
{
	static const char target[] = "a/short/target";
	struct inode *root, *link;
	char buf[128];
	struct at t;

	(void)state;
	at_start(&t, kinds[0], "16M");
	assert_int_equal(sl_iget(t.sb, EXT4_ROOT_INO, &root), 0);
	assert_int_equal(sl_symlink(root, "l", 1, target, &root_cred, &link), 0);
	sl_iput(root);
	assert_int_equal(sl_setxattr(link, "trusted.v", value(1, 9000), 9000, 0, &root_cred),
			 0);
	assert_int_equal(sl_readlink(link, buf, sizeof(buf)), strlen(target));
	assert_string_equal(buf, target);
	sl_iput(link);
	at_unmount_clean(&t);
	at_mount(&t);
	assert_int_equal(rm(t.sb, "l"), 0);
	at_end(&t);
}

/* ---- access control lists ---- */

/* Of n users, in the form of system calls. */
static size_t long_list(u8 *buf, u32 n)
{
	u8 *p = buf + 4;

	memset(buf, 0, 4);
	buf[0] = 2;
	for (u32 i = 0; i < n + 4; i++, p += 8) {
		u16 tag = i == 0 ? 1 : i <= n ? 2 : i == n + 1 ? 4 : i == n + 2 ? 0x10 : 0x20;
		u16 perm = i == n + 3 ? 4 : 6;
		u32 id = tag == 2 ? 1000 + i : UINT32_MAX;

		memcpy(p, &tag, 2);
		memcpy(p + 2, &perm, 2);
		memcpy(p + 4, &id, 4);
	}
	return (size_t)(p - buf);
}

static void long_acls(const char *mkfs_args)
{
	static u8 list[VALUE_MAX], got[VALUE_MAX];
	struct stat st = { .st_mode = 0600 };
	struct inode *root, *dir, *f, *d;
	struct at t;
	size_t len = long_list(list, 700);
	u64 inodes;

	at_start(&t, mkfs_args, "16M");
	assert_int_equal(sl_iget(t.sb, EXT4_ROOT_INO, &root), 0);
	inodes = free_inodes(&t);
	assert_int_equal(sl_mkdir(root, "d", 1, 0755, &root_cred, &dir), 0);
	assert_int_equal(sl_setxattr(dir, "system.posix_acl_default", list, len, 0,
				     &root_cred), 0);
	assert_int_equal(sl_getxattr(dir, "system.posix_acl_default", got, sizeof(got)), len);
	assert_memory_equal(got, list, len);
	/* New ones get it: two lists for a directory, that no block has room for. */
	assert_int_equal(sl_mknod(dir, "f", 1, S_IFREG | 0666, 0, &root_cred, &f), 0);
	assert_int_equal(sl_mkdir(dir, "d", 1, 0777, &root_cred, &d), 0);
	assert_int_equal(sl_getxattr(f, "system.posix_acl_access", got, sizeof(got)), len);
	assert_int_equal(sl_getxattr(d, "system.posix_acl_access", got, sizeof(got)), len);
	assert_int_equal(sl_getxattr(d, "system.posix_acl_default", got, sizeof(got)), len);
	assert_int_equal(f->i_mode & 0777, 0664);
	assert_int_equal(sl_setattr(f, &st, SL_SET_MODE, &root_cred, NULL), 0);
	assert_int_equal(sl_getxattr(f, "system.posix_acl_access", got, sizeof(got)), len);
	assert_int_equal(f->i_mode & 0777, 0600);
	sl_iput(f);
	sl_iput(d);
	at_unmount_clean((sl_iput(dir), sl_iput(root), &t));
	at_mount(&t);
	assert_int_equal(sl_iget(t.sb, EXT4_ROOT_INO, &root), 0);
	dir = get(t.sb, "d");
	assert_int_equal(sl_unlink(dir, "f", 1), 0);
	assert_int_equal(sl_rmdir(dir, "d", 1), 0);
	sl_iput(dir);
	assert_int_equal(sl_rmdir(root, "d", 1), 0);
	sl_iput(root);
	at_commit(&t);
	assert_int_equal(free_inodes(&t), inodes);
	at_end(&t);
}

static void test_long_acls(void **state)
{
	(void)state;
	long_acls(kinds[0]);
	long_acls(kinds[2]);
}

/* ---- power cuts ---- */

#define CUT_NAMES 3
#define CUT_STEPS 30

static const char *const cut_names[CUT_NAMES] = { "user.a", "trusted.bb", "security.c" };

struct cut_state {
	int len[2][CUT_NAMES]; /* -1: not there */
};

static void cut_look(struct inode *const *inode, struct cut_state *st)
{
	static char buf[VALUE_MAX];

	for (int f = 0; f < 2; f++)
		for (int i = 0; i < CUT_NAMES; i++) {
			ssize_t n = sl_getxattr(inode[f], cut_names[i], buf, sizeof(buf));

			st->len[f][i] = n < 0 ? -1 : (int)n;
			if (n < 0)
				assert_int_equal(n, -ENODATA);
			else
				assert_memory_equal(buf, value((unsigned)n, (size_t)n),
						    (size_t)n);
		}
}

static void cut_step(struct inode *const *inode, struct cut_state *st, unsigned *seed)
{
	static const int sizes[] = { 5, 300, 2000, 9000, 60000 };
	int f = rand_r(seed) % 2, i = rand_r(seed) % CUT_NAMES;
	int len = sizes[rand_r(seed) % 5], err;

	if (rand_r(seed) % 4 == 0) {
		err = sl_removexattr(inode[f], cut_names[i]);
		assert_int_equal(err, st->len[f][i] < 0 ? -ENODATA : 0);
		st->len[f][i] = -1;
		return;
	}
	assert_int_equal(set(inode[f], cut_names[i], (unsigned)len, (size_t)len), 0);
	st->len[f][i] = len;
}

/* After a power cut all attributes together are as after one of the steps, none before
 * the last sync; and e2fsck has nothing to say: nothing is left that nobody names. */
static void test_power_cut(void **state)
{
	static const struct sl_options opts = { .cache_bytes = 16 << 20, .commit_ms = 2 };
	static struct cut_state st[CUT_STEPS + 1], after;
	struct memvol mv;
	struct super_block *sb;
	struct inode *inode[2];
	unsigned seed = 11;
	u8 *image;

	(void)state;
	memvol_make(&mv, "-b 1024 -J size=1 -O ea_inode", "8M");
	image = malloc(mv.size);
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	inode[0] = make(sb, "f0");
	inode[1] = make(sb, "f1");
	cut_look(inode, &st[0]);
	assert_int_equal(sl_sync(sb), 0);
	for (int round = 0; round < 10; round++) {
		int synced = 0, steps = 3 + rand_r(&seed) % (CUT_STEPS - 3), found;

		for (int i = 0; i < steps; i++) {
			st[i + 1] = st[i];
			cut_step(inode, &st[i + 1], &seed);
			if (rand_r(&seed) % 12 == 0) {
				assert_int_equal(sl_sync(sb), 0);
				synced = i + 1;
			}
		}
		memvol_snapshot(&mv, image);
		cut_look(inode, &after);
		assert_memory_equal(&after, &st[steps], sizeof(after));
		sl_iput(inode[0]);
		sl_iput(inode[1]);
		assert_int_equal(sl_unmount(sb), 0);
		memcpy(mv.content, image, mv.size);
		for (int mounts = 0; mounts < 2; mounts++) {
			assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
			if (mounts)
				break;
			assert_int_equal(sl_unmount(sb), 0);
			assert_int_equal(memvol_fsck(&mv), 0);
		}
		inode[0] = get(sb, "f0");
		inode[1] = get(sb, "f1");
		cut_look(inode, &after);
		for (found = synced; found < steps; found++)
			if (!memcmp(&after, &st[found], sizeof(after)))
				break;
		assert_memory_equal(&after, &st[found], sizeof(after));
		st[0] = after;
	}
	sl_iput(inode[0]);
	sl_iput(inode[1]);
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(memvol_fsck(&mv), 0);
	memvol_free(&mv);
	free(image);
}

/* ---- hostile volumes ---- */

/* f has a value in an inode of its own, of 5000 bytes, and an empty file is beside it. */
static ino_nr hostile_volume(struct at *t, ino_nr *f_ino, ino_nr *other)
{
	struct inode *f, *o;
	ino_nr ino;

	at_start(t, kinds[2], "16M");
	f = make(t->sb, "f");
	o = make(t->sb, "other");
	assert_int_equal(set(f, "user.v", 1, 5000), 0);
	ino = value_ino(f, "user.v");
	*f_ino = f->i_ino;
	*other = o->i_ino;
	sl_iput(f);
	sl_iput(o);
	at_unmount_clean(t);
	return ino;
}

/* The entry's word at `at` becomes n: the only entry of the only block. */
static void change_entry(struct at *t, u32 at, u32 n)
{
	char out[4096], *p;
	u64 blk;
	le32 word = cpu_to_le32(n);
	int fd;

	at_output(t, "debugfs -R 'stat f' %s 2>/dev/null", out, sizeof(out));
	p = strstr(out, "File ACL: ");
	assert_non_null(p);
	blk = strtoull(p + 10, NULL, 10);
	assert_true(blk > 0);
	fd = open(t->v.image, O_WRONLY);
	assert_int_equal(pwrite(fd, &word, 4, (off_t)(blk * 1024 + 32 + at)), 4);
	close(fd);
}

static void all_refused(struct at *t, int want_remove)
{
	static char buf[VALUE_MAX];
	struct inode *f;
	int errors, err;

	at_mount(t);
	f = get(t->sb, "f");
	at_quiet(&errors);
	assert_int_equal(sl_getxattr(f, "user.v", buf, sizeof(buf)), -EFSCORRUPTED);
	assert_true(atomic_load(&t->sbi->error_seen));
	err = set(f, "user.v", 2, 7000);
	assert_int_equal(err, want_remove);
	err = sl_removexattr(f, "user.v");
	assert_int_equal(err, want_remove);
	/* What goes with the file goes; the rest is e2fsck's. */
	sl_iput(f);
	assert_int_equal(rm(t->sb, "f"), 0);
	(void)sl_unmount(t->sb);
	at_loud();
	volume_free(&t->v);
}

static void test_hostile(void **state)
{
	ino_nr ino, f, other;
	struct at t;

	(void)state;
	ino = hostile_volume(&t, &f, &other);
	change_entry(&t, 4, f); /* itself */
	all_refused(&t, -EFSCORRUPTED);
	hostile_volume(&t, &f, &other);
	change_entry(&t, 4, other); /* a file */
	all_refused(&t, -EFSCORRUPTED);
	hostile_volume(&t, &f, &other);
	change_entry(&t, 4, EXT4_ROOT_INO);
	all_refused(&t, -EFSCORRUPTED);
	hostile_volume(&t, &f, &other);
	change_entry(&t, 4, 8); /* the journal */
	all_refused(&t, -EFSCORRUPTED);
	hostile_volume(&t, &f, &other);
	change_entry(&t, 4, 0xFFFFFFF0); /* none */
	all_refused(&t, -EFSCORRUPTED);
	hostile_volume(&t, &f, &other);
	change_entry(&t, 4, 1000); /* not in use */
	all_refused(&t, -EFSCORRUPTED);
	ino = hostile_volume(&t, &f, &other);
	debugfs(&t, "sif <%u> mode 0120777", ino);
	all_refused(&t, -EFSCORRUPTED);
	ino = hostile_volume(&t, &f, &other);
	debugfs(&t, "sif <%u> size 70000", ino); /* but it can be got rid of */
	all_refused(&t, 0);
	ino = hostile_volume(&t, &f, &other);
	debugfs(&t, "sif <%u> size 20000000", ino);
	all_refused(&t, -EFSCORRUPTED);
	ino = hostile_volume(&t, &f, &other);
	debugfs(&t, "ea_set <%u> user.w x", ino); /* attributes of attributes */
	all_refused(&t, -EFSCORRUPTED);
}

/* Its content is not believed, but it can be got rid of. */
static void test_wrong_checksum(void **state)
{
	static char buf[VALUE_MAX];
	ino_nr ino, f, other;
	struct inode *inode;
	struct at t;
	int errors;

	(void)state;
	ino = hostile_volume(&t, &f, &other);
	debugfs(&t, "sif <%u> atime 77", ino);
	at_mount(&t);
	inode = get(t.sb, "f");
	at_quiet(&errors);
	assert_int_equal(sl_getxattr(inode, "user.v", buf, sizeof(buf)), -EFSCORRUPTED);
	assert_true(atomic_load(&t.sbi->error_seen));
	assert_int_equal(set(inode, "user.v", 2, 7000), 0);
	check(inode, "user.v", 2, 7000);
	sl_iput(inode);
	(void)sl_unmount(t.sb);
	at_loud();
	volume_free(&t.v);
}

static void test_no_references(void **state)
{
	ino_nr ino, f, other;
	struct inode *inode;
	struct at t;
	int errors;

	(void)state;
	ino = hostile_volume(&t, &f, &other);
	debugfs(&t, "sif <%u> version 0", ino);
	at_mount(&t);
	inode = get(t.sb, "f");
	check(inode, "user.v", 1, 5000);
	at_quiet(&errors);
	assert_int_equal(set(inode, "user.v", 2, 7000), -EFSCORRUPTED);
	assert_int_equal(sl_removexattr(inode, "user.v"), -EFSCORRUPTED);
	assert_true(atomic_load(&t.sbi->error_seen));
	sl_iput(inode);
	assert_int_equal(rm(t.sb, "f"), 0);
	(void)sl_unmount(t.sb);
	at_loud();
	volume_free(&t.v);
}

/* A chain of them, all to be deleted: it is not followed. */
static void test_chain(void **state)
{
	ino_nr ino, f, other;
	struct at t;
	int errors;

	(void)state;
	ino = hostile_volume(&t, &f, &other);
	/* f's block becomes that of its value, too, which so is a value of its own. */
	{
		char out[4096], cmd[64], *p;

		at_output(&t, "debugfs -R 'stat f' %s 2>/dev/null", out, sizeof(out));
		p = strstr(out, "File ACL: ");
		assert_non_null(p);
		snprintf(cmd, sizeof(cmd), "sif <%%u> file_acl %llu", strtoull(p + 10, NULL, 10));
		debugfs(&t, cmd, ino);
		debugfs(&t, "sif <%u> links_count 0", ino);
	}
	debugfs(&t, "ssv last_orphan %u", ino);
	at_quiet(&errors);
	at_mount(&t);
	assert_int_equal(rm(t.sb, "f"), 0);
	(void)sl_unmount(t.sb);
	at_loud();
	volume_free(&t.v);
}

/* Names, handles and scans do not find them. */
static void test_hidden(void **state)
{
	struct inode *inode, *root;
	struct sl_entry entry;
	ino_nr ino, f, other;
	struct at t;
	int errors;

	(void)state;
	ino = hostile_volume(&t, &f, &other);
	debugfs(&t, "link <%u> name", ino);
	at_mount(&t);
	assert_int_equal(sl_iget(t.sb, ino, &inode), -ESTALE);
	inode = get(t.sb, "f");
	check(inode, "user.v", 1, 5000);
	sl_iput(inode);
	assert_int_equal(sl_iget(t.sb, ino, &inode), -ESTALE);
	at_quiet(&errors);
	assert_int_equal(look_up(t.sb, "name", &inode), -EFSCORRUPTED);
	assert_true(atomic_load(&t.sbi->error_seen));
	assert_int_equal(sl_iget(t.sb, EXT4_ROOT_INO, &root), 0);
	assert_int_equal(sl_lookup_cached(t.sb, EXT4_ROOT_INO, "name", 4, &entry), -EAGAIN);
	assert_int_equal(sl_unlink(root, "name", 4), -EFSCORRUPTED);
	sl_iput(root);
	(void)sl_unmount(t.sb);
	at_loud();
	volume_free(&t.v);
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
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_place),
		cmocka_unit_test(test_entries_fill_the_block),
		cmocka_unit_test(test_no_space),
		cmocka_unit_test(test_equal_values_are_shared),
		cmocka_unit_test(test_nombcache),
		cmocka_unit_test(test_leaving_a_shared_block),
		cmocka_unit_test(test_leaving_at_once),
		cmocka_unit_test(test_owners_at_once),
		cmocka_unit_test(test_links),
		cmocka_unit_test(test_long_acls),
		cmocka_unit_test(test_power_cut),
		cmocka_unit_test(test_hostile),
		cmocka_unit_test(test_wrong_checksum),
		cmocka_unit_test(test_no_references),
		cmocka_unit_test(test_chain),
		cmocka_unit_test(test_hidden),
	};

	return cmocka_run_group_tests(tests, init, NULL);
}
