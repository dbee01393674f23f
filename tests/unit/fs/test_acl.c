/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_acl.c - access control lists: forms, modes, inheritance, damage, power cuts
 */
#include "tests/unit/fs/alloc_test.h"
#include "tests/unit/fs/memvol.h"

#include "fs/acl.h"
#include "fs/xattr_internal.h"

#include <sys/stat.h>

#define ACCESS "system.posix_acl_access"
#define DEFAULT "system.posix_acl_default"
#define LIST_MAX 16

static const struct sl_cred root_cred;

/* "u::rw- u:5:r-- g::r-- m::r-- o::---", octal permissions, into memory of its own. */
static struct acl *list(const char *text)
{
	struct acl *acl = calloc(1, sizeof(*acl) + LIST_MAX * sizeof(struct acl_entry));
	char kind;
	unsigned perm;
	int n, id;

	assert_non_null(acl);
	for (; sscanf(text, " %c%d=%o%n", &kind, &id, &perm, &n) == 3; text += n) {
		struct acl_entry *e = &acl->e[acl->nr++];

		*e = (struct acl_entry){
			.tag = kind == 'u' ? (id < 0 ? ACL_TAG_USER_OBJ : ACL_TAG_USER) :
			       kind == 'g' ? (id < 0 ? ACL_TAG_GROUP_OBJ : ACL_TAG_GROUP) :
			       kind == 'm' ? ACL_TAG_MASK : ACL_TAG_OTHER,
			.perm = (u16)perm,
			.id = id < 0 ? ACL_ID_NONE : (u32)id,
		};
	}
	return acl;
}

static void assert_list(const struct acl *got, const char *text)
{
	struct acl *want = list(text);

	assert_int_equal(got->nr, want->nr);
	assert_memory_equal(got->e, want->e, want->nr * sizeof(want->e[0]));
	free(want);
}

/* ---- without an inode ---- */

static void test_forms(void **state)
{
	static const char text[] = "u-1=7 u5=4 u70000=6 g-1=5 g9=1 m-1=7 o-1=0";
	struct acl *acl = list(text), *back;
	u8 buf[256];
	size_t n;

	(void)state;
	n = acl_to_disk(acl, buf);
	assert_int_equal(n, 4 + 4 * 4 + 3 * 8);
	assert_int_equal(acl_to_disk(acl, NULL), n);
	assert_int_equal(acl_from_disk(buf, n, &back), 0);
	assert_list(back, text);
	free(back);
	/* Cut anywhere it is none, but between two entries. */
	for (size_t i = 0; i < n; i++) {
		int err = acl_from_disk(buf, i, &back);

		if (err)
			assert_int_equal(err, -EINVAL);
		free(back);
	}
	assert_int_equal(acl_from_disk(buf, n - 2, &back), -EINVAL);
	assert_int_equal(acl_from_disk(buf, 4, &back), 0);
	assert_null(back);
	buf[4] = 3; /* two tags in one */
	assert_int_equal(acl_from_disk(buf, n, &back), -EINVAL);
	buf[4] = 1;
	buf[6] = 8;
	assert_int_equal(acl_from_disk(buf, n, &back), -EINVAL);
	buf[6] = 7;
	buf[0] = 2; /* version */
	assert_int_equal(acl_from_disk(buf, n, &back), -EINVAL);

	n = acl_to_user(acl, buf);
	assert_int_equal(n, 4 + 7 * 8);
	assert_int_equal(acl_to_user(acl, NULL), n);
	assert_int_equal(acl_from_user(buf, n, &back), 0);
	assert_list(back, text);
	free(back);
	assert_int_equal(acl_from_user(buf, n - 1, &back), -EINVAL);
	assert_int_equal(acl_from_user(buf, 3, &back), -EINVAL);
	assert_int_equal(acl_from_user(buf, 4, &back), 0);
	assert_null(back);
	buf[0] = 1;
	assert_int_equal(acl_from_user(buf, n, &back), -EINVAL);
	free(acl);
}

static int check(const char *text)
{
	struct acl *acl = list(text);
	int err = acl_check(acl);

	free(acl);
	return err;
}

static void test_check(void **state)
{
	(void)state;
	assert_int_equal(check("u-1=7 g-1=5 o-1=1"), 0);
	assert_int_equal(check("u-1=7 g-1=5 m-1=5 o-1=1"), 0);
	assert_int_equal(check("u-1=7 u1=7 u1=6 u0=1 g-1=5 g1=1 m-1=5 o-1=1"), 0);
	assert_int_equal(check(""), -EINVAL);
	assert_int_equal(check("u-1=7"), -EINVAL);
	assert_int_equal(check("u-1=7 g-1=5"), -EINVAL);
	assert_int_equal(check("u-1=7 o-1=5"), -EINVAL);
	assert_int_equal(check("g-1=5 u-1=7 o-1=1"), -EINVAL);
	assert_int_equal(check("u-1=7 u-1=7 g-1=5 o-1=1"), -EINVAL);
	assert_int_equal(check("u-1=7 g-1=5 g-1=5 o-1=1"), -EINVAL);
	assert_int_equal(check("u-1=7 g-1=5 o-1=1 o-1=1"), -EINVAL);
	assert_int_equal(check("u-1=7 g-1=5 m-1=1 m-1=1 o-1=1"), -EINVAL);
	assert_int_equal(check("u-1=7 u1=7 g-1=5 o-1=1"), -EINVAL); /* no mask */
	assert_int_equal(check("u-1=7 g-1=5 g1=7 o-1=1"), -EINVAL);
	assert_int_equal(check("u-1=7 g-1=5 u1=7 m-1=1 o-1=1"), -EINVAL);
	assert_int_equal(check("u-1=17 g-1=5 o-1=1"), -EINVAL);
}

static void inherits(const char *def, u32 mode, const char *want, u32 want_mode,
		     bool want_is_mode)
{
	struct acl *acl = list(def);
	bool is_mode;

	assert_int_equal(acl_inherit(acl, &mode, &is_mode), 0);
	assert_list(acl, want);
	assert_int_equal(mode, want_mode);
	assert_int_equal(is_mode, want_is_mode);
	free(acl);
}

static void test_modes(void **state)
{
	struct acl *acl = list("u-1=6 u1=7 g-1=4 m-1=3 o-1=1");
	u32 mode = S_IFREG | 04777;

	(void)state;
	assert_false(acl_is_mode(acl, &mode));
	assert_int_equal(mode, S_IFREG | 04631);
	assert_int_equal(acl_chmod(acl, S_IFREG | 0752), 0);
	assert_list(acl, "u-1=7 u1=7 g-1=4 m-1=5 o-1=2");
	free(acl);
	acl = list("u-1=6 g-1=4 o-1=1");
	assert_true(acl_is_mode(acl, &mode));
	assert_int_equal(mode, S_IFREG | 04641);
	assert_int_equal(acl_chmod(acl, 0752), 0);
	assert_list(acl, "u-1=7 g-1=5 o-1=2");
	free(acl);
	inherits("u-1=7 u1=7 g-1=5 m-1=7 o-1=1", S_IFREG | 0666,
		 "u-1=6 u1=7 g-1=5 m-1=6 o-1=0", S_IFREG | 0660, false);
	inherits("u-1=7 g-1=5 o-1=1", S_IFDIR | 02777,
		 "u-1=7 g-1=5 o-1=1", S_IFDIR | 02751, true);
	inherits("u-1=0 g-1=7 m-1=0 o-1=7", 0777,
		 "u-1=0 g-1=7 m-1=0 o-1=7", 0007, false);
	acl = list("u-1=7 o-1=1");
	assert_int_equal(acl_chmod(acl, 0700), -EINVAL);
	free(acl);
}

/* ---- on a volume ---- */

static int set(struct inode *inode, const char *name, const char *text, u32 flags)
{
	struct acl *acl = list(text);
	u8 buf[256];
	size_t n = acl_to_user(acl, buf);

	free(acl);
	return sl_setxattr(inode, name, buf, n, flags, &root_cred);
}

static void assert_has(struct inode *inode, const char *name, const char *text)
{
	u8 buf[256];
	ssize_t n = sl_getxattr(inode, name, buf, sizeof(buf));
	struct acl *acl;

	if (!text) {
		assert_int_equal(n, -ENODATA);
		return;
	}
	assert_true(n > 0);
	assert_int_equal(sl_getxattr(inode, name, NULL, 0), n);
	assert_int_equal(sl_getxattr(inode, name, buf, (size_t)n - 1), -ERANGE);
	assert_int_equal(acl_from_user(buf, (size_t)n, &acl), 0);
	assert_list(acl, text);
	free(acl);
}

static u32 mode_of(struct inode *inode)
{
	struct stat st;

	sl_getattr(inode, &st);
	return st.st_mode & 07777;
}

static int chmod_to(struct inode *inode, u32 mode)
{
	struct stat st = { .st_mode = mode };

	return sl_setattr(inode, &st, SL_SET_MODE, &root_cred, NULL);
}

static struct inode *create(struct inode *dir, const char *name, u32 mode, u32 umask)
{
	struct sl_cred cred = { .umask = umask };
	struct inode *inode;
	int err = S_ISDIR(mode) ? sl_mkdir(dir, name, strlen(name), mode, &cred, &inode) :
				  sl_mknod(dir, name, strlen(name), mode, 0, &cred, &inode);

	assert_int_equal(err, 0);
	return inode;
}

static void set_on(const char *mkfs_args)
{
	struct inode *root, *f, *d;
	struct at t;
	char names[128];

	at_start(&t, mkfs_args, "32M");
	assert_int_equal(sl_iget(t.sb, EXT4_ROOT_INO, &root), 0);
	f = create(root, "f", S_IFREG | 0666, 022);
	d = create(root, "d", S_IFDIR | 0777, 027);
	assert_int_equal(mode_of(f), 0644);
	assert_int_equal(mode_of(d), 0750);
	assert_true(sl_lacks_xattr(t.sb, sl_ino(f), ACCESS));
	assert_has(f, ACCESS, NULL);
	assert_int_equal(sl_removexattr(f, ACCESS), 0);
	assert_int_equal(set(f, DEFAULT, "u-1=7 g-1=5 o-1=1", 0), -EACCES);
	assert_int_equal(sl_removexattr(f, DEFAULT), 0);
	assert_int_equal(set(f, ACCESS, "u-1=7 g-1=5", 0), -EINVAL);
	assert_int_equal(mode_of(f), 0644);

	/* It sets the mode, and is stored if it says more. */
	assert_int_equal(set(f, ACCESS, "u-1=7 g-1=5 o-1=1", 0), 0);
	assert_int_equal(mode_of(f), 0751);
	assert_has(f, ACCESS, NULL);
	assert_int_equal(set(f, ACCESS, "u-1=6 u1=7 g-1=4 m-1=5 o-1=0", 0), 0);
	assert_int_equal(mode_of(f), 0650);
	assert_has(f, ACCESS, "u-1=6 u1=7 g-1=4 m-1=5 o-1=0");
	assert_false(sl_lacks_xattr(t.sb, sl_ino(f), ACCESS));
	assert_true(sl_lacks_xattr(t.sb, sl_ino(d), ACCESS));
	assert_int_equal(sl_listxattr(f, false, names, sizeof(names)), sizeof(ACCESS));
	assert_string_equal(names, ACCESS);
	assert_int_equal(chmod_to(f, 06774), 0);
	assert_int_equal(mode_of(f), 06774);
	assert_has(f, ACCESS, "u-1=7 u1=7 g-1=4 m-1=7 o-1=4");
	assert_int_equal(set(f, ACCESS, "u-1=6 u1=7 g-1=4 m-1=5 o-1=0", 0), 0);
	assert_int_equal(mode_of(f), 06650);
	assert_int_equal(set(f, ACCESS, "u-1=6 u1=7 g-1=4 m-1=5 o-1=0",
			     SL_XATTR_KILL_SGID), 0);
	assert_int_equal(mode_of(f), 04650);
	assert_int_equal(set(f, ACCESS, "u-1=6 g-1=4 o-1=0", 0), 0);
	assert_has(f, ACCESS, NULL);
	assert_int_equal(mode_of(f), 04640);
	assert_int_equal(sl_listxattr(f, false, names, sizeof(names)), 0);

	/* The default list does not touch the mode, but those of new ones. */
	assert_int_equal(set(d, DEFAULT, "u-1=7 u1=7 g-1=5 m-1=7 o-1=1", 0), 0);
	assert_int_equal(mode_of(d), 0750);
	sl_iput(f);
	f = create(d, "f", S_IFREG | 0666, 077);
	assert_int_equal(mode_of(f), 0660);
	assert_has(f, ACCESS, "u-1=6 u1=7 g-1=5 m-1=6 o-1=0");
	assert_has(f, DEFAULT, NULL);
	sl_iput(f);
	f = create(d, "sub", S_IFDIR | 0755, 077);
	assert_int_equal(mode_of(f), 0751);
	assert_has(f, ACCESS, "u-1=7 u1=7 g-1=5 m-1=5 o-1=1");
	assert_has(f, DEFAULT, "u-1=7 u1=7 g-1=5 m-1=7 o-1=1");
	sl_iput(f);
	assert_int_equal(sl_removexattr(d, DEFAULT), 0);
	f = create(d, "after", S_IFREG | 0666, 077);
	assert_int_equal(mode_of(f), 0600);
	assert_has(f, ACCESS, NULL);
	sl_iput(f);
	sl_iput(d);
	sl_iput(root);
	at_end(&t);
}

static void test_set(void **state)
{
	(void)state;
	set_on("-b 4096");
	set_on("-b 1024 -I 128");
}

/* What is in a block is known after the first look; what others look at is true. */
static void test_known_from_a_block(void **state)
{
	struct inode *root, *d, *f;
	char value[700];
	struct at t;

	(void)state;
	at_start(&t, "-b 1024", "32M");
	assert_int_equal(sl_iget(t.sb, EXT4_ROOT_INO, &root), 0);
	d = create(root, "d", S_IFDIR | 0755, 0);
	memset(value, 'v', sizeof(value));
	assert_int_equal(sl_setxattr(d, "user.large", value, sizeof(value), 0, &root_cred), 0);
	/* Nobody knows before somebody has looked. */
	assert_false(sl_lacks_xattr(t.sb, sl_ino(d), DEFAULT));
	f = create(d, "f", S_IFREG | 0666, 022);
	assert_true(sl_lacks_xattr(t.sb, sl_ino(d), DEFAULT));
	assert_false(sl_lacks_xattr(t.sb, sl_ino(d), "user.other"));
	sl_iput(f);
	assert_int_equal(sl_setxattr(d, "user.x", value, 60, 0, &root_cred), 0);
	assert_int_equal(set(d, DEFAULT, "u-1=7 u1=7 g-1=5 m-1=7 o-1=1", 0), 0);
	f = create(d, "g", S_IFREG | 0666, 022);
	assert_has(f, ACCESS, "u-1=6 u1=7 g-1=5 m-1=6 o-1=0");
	sl_iput(f);
	assert_int_equal(sl_removexattr(d, DEFAULT), 0);
	assert_int_equal(sl_removexattr(d, "user.large"), 0);
	f = create(d, "h", S_IFREG | 0666, 022);
	assert_has(f, ACCESS, NULL);
	assert_int_equal(mode_of(f), 0644);
	sl_iput(f);
	sl_iput(d);
	sl_iput(root);
	at_end(&t);
}

static void test_noacl(void **state)
{
	struct sl_options opts = { .noacl = true };
	struct inode *root, *f;
	struct volume v;
	struct super_block *sb;
	char buf[64];

	(void)state;
	volume_make(&v, "-b 1024", "32M");
	assert_int_equal(volume_mount(&v, &(struct sl_options){ 0 }, &sb), 0);
	assert_int_equal(sl_iget(sb, EXT4_ROOT_INO, &root), 0);
	assert_int_equal(set(root, DEFAULT, "u-1=7 u1=7 g-1=5 m-1=7 o-1=1", 0), 0);
	sl_iput(root);
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(volume_mount(&v, &opts, &sb), 0);
	assert_int_equal(sl_iget(sb, EXT4_ROOT_INO, &root), 0);
	f = create(root, "f", S_IFREG | 0666, 022);
	assert_int_equal(mode_of(f), 0644);
	assert_int_equal(sl_getxattr(root, DEFAULT, buf, sizeof(buf)), -EOPNOTSUPP);
	assert_int_equal(set(f, ACCESS, "u-1=7 g-1=5 o-1=1", 0), -EOPNOTSUPP);
	assert_int_equal(sl_listxattr(root, true, buf, sizeof(buf)), 0);
	assert_false(sl_lacks_xattr(sb, sl_ino(f), ACCESS));
	sl_iput(f);
	sl_iput(root);
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(volume_fsck(&v), 0);
	volume_free(&v);
}

static void store_raw(struct at *t, struct inode *inode, u8 index, const void *value,
		      u32 len)
{
	struct xattr_name name = { .index = index, .text = "" };
	struct handle *h = at_handle(t, EXT4_XATTR_SET_CREDITS);

	assert_int_equal(xattr_set_in(h, EXT4_I(inode), &name, value, len, NULL), 0);
	assert_int_equal(handle_stop(h), 0);
}

/* A list that is none is told, and nothing is made of it. */
static void test_damaged_list(void **state)
{
	static const u8 odd[] = { 1, 0, 0, 0, 1, 0, 7 };
	static const u8 no_group[] = { 1, 0, 0, 0, 1, 0, 7, 0, 0x20, 0, 7, 0 };
	struct inode *root, *f, *d;
	struct sl_cred cred = { 0 };
	u8 buf[64];
	struct at t;
	int errors;

	(void)state;
	at_start(&t, "-b 1024", "32M");
	assert_int_equal(sl_iget(t.sb, EXT4_ROOT_INO, &root), 0);
	f = create(root, "f", S_IFREG | 0600, 0);
	d = create(root, "d", S_IFDIR | 0700, 0);
	store_raw(&t, f, XATTR_INDEX_ACL_ACCESS, odd, sizeof(odd));
	store_raw(&t, d, XATTR_INDEX_ACL_DEFAULT, no_group, sizeof(no_group));
	at_quiet(&errors);
	assert_int_equal(sl_getxattr(f, ACCESS, buf, sizeof(buf)), -EFSCORRUPTED);
	assert_int_equal(chmod_to(f, 0755), -EFSCORRUPTED);
	assert_int_equal(mode_of(f), 0600);
	sl_iput(f);
	assert_int_equal(sl_mknod(d, "x", 1, S_IFREG | 0644, 0, &cred, &f), -EFSCORRUPTED);
	assert_int_equal(sl_lookup(d, "x", 1, &f), -ENOENT);
	assert_true(errors >= 3);
	sl_iput(d);
	sl_iput(root);
	(void)sl_unmount(t.sb);
	at_loud();
	volume_free(&t.v);
}

/* With no block left for the list there is no file, and no trace of one. */
static void test_no_space_for_the_list(void **state)
{
	struct sl_cred nobody = { .uid = 1000, .gid = 1000 };
	struct inode *root, *d, *f;
	u32 len;
	pblk_t blk;
	struct handle *h;
	struct at t;
	int err;

	(void)state;
	at_start(&t, "-b 1024 -I 128 -m 0", "8M");
	assert_int_equal(sl_iget(t.sb, EXT4_ROOT_INO, &root), 0);
	d = create(root, "d", S_IFDIR | 0777, 0);
	assert_int_equal(set(d, DEFAULT, "u-1=7 u1=7 g-1=5 m-1=7 o-1=1", 0), 0);
	do {
		len = 1u << 20;
		h = at_handle(&t, EXT4_ALLOC_CREDITS);
		err = ext4_alloc_blocks(h, t.sbi, 0, 0, EXT4_ALLOC_ROOT, &len, &blk);
		assert_int_equal(handle_stop(h), 0);
	} while (!err);
	assert_int_equal(sl_mknod(d, "x", 1, S_IFREG | 0644, 0, &nobody, &f), -ENOSPC);
	assert_int_equal(sl_lookup(d, "x", 1, &f), -ENOENT);
	assert_int_equal(chmod_to(d, 0700), 0);
	sl_iput(d);
	sl_iput(root);
	assert_int_equal(sl_unmount(t.sb), 0); /* the blocks belong to nobody: no e2fsck */
	volume_free(&t.v);
}

/* ---- power cuts ---- */

#define CUT_FILES 60

/* What is there has its lists and its mode, whatever moment the power went. */
static void look_after_cut(struct super_block *sb, int least)
{
	struct inode *root, *d, *f;
	char name[16];
	int found = 0;

	assert_int_equal(sl_iget(sb, EXT4_ROOT_INO, &root), 0);
	assert_int_equal(sl_lookup(root, "d", 1, &d), 0);
	for (int i = 0; i < CUT_FILES; i++) {
		int err;

		snprintf(name, sizeof(name), "n%d", i);
		err = sl_lookup(d, name, strlen(name), &f);
		if (err) {
			assert_int_equal(err, -ENOENT);
			assert_true(i >= least);
			continue;
		}
		assert_int_equal(i, found++); /* in order */
		if (i % 3 == 0) {
			assert_has(f, DEFAULT, "u-1=7 u1=7 g-1=5 m-1=7 o-1=1");
			assert_int_equal(mode_of(f), 0751);
		} else if (mode_of(f) == 0640) {
			assert_has(f, ACCESS, "u-1=6 u1=7 g-1=5 m-1=4 o-1=0");
		} else if (mode_of(f) == 0604) {
			assert_has(f, ACCESS, "u-1=6 u1=7 g-1=5 m-1=0 o-1=4");
		} else {
			assert_int_equal(mode_of(f), 0660);
			assert_has(f, ACCESS, "u-1=6 u2=7 g-1=5 m-1=6 o-1=0");
		}
		sl_iput(f);
	}
	sl_iput(d);
	sl_iput(root);
}

static void cut(const char *mkfs_args)
{
	static const struct sl_options opts = { .cache_bytes = 16 << 20, .commit_ms = 2 };
	struct memvol mv;
	struct super_block *sb;
	struct inode *root, *d, *f;
	char name[16];
	u8 *image, *now;
	int least = 0;

	memvol_make(&mv, mkfs_args, "8M");
	image = malloc(mv.size);
	now = malloc(mv.size);
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	assert_int_equal(sl_iget(sb, EXT4_ROOT_INO, &root), 0);
	d = create(root, "d", S_IFDIR | 0777, 0);
	assert_int_equal(set(d, DEFAULT, "u-1=7 u1=7 g-1=5 m-1=7 o-1=1", 0), 0);
	assert_int_equal(sl_sync(sb), 0);
	for (int i = 0; i < CUT_FILES; i++) {
		snprintf(name, sizeof(name), "n%d", i);
		f = create(d, name, i % 3 ? S_IFREG | 0644 : S_IFDIR | 0755, 077);
		if (i % 3 == 1)
			assert_int_equal(chmod_to(f, 0604), 0);
		else if (i % 3 == 2)
			assert_int_equal(set(f, ACCESS, "u-1=6 u2=7 g-1=5 m-1=6 o-1=0", 0), 0);
		sl_iput(f);
		if (i % 20 == 11) {
			assert_int_equal(sl_sync(sb), 0);
			least = i + 1;
		}
		if (i % 10 != 9)
			continue;
		memvol_snapshot(&mv, image);
		sl_iput(d);
		sl_iput(root);
		assert_int_equal(sl_unmount(sb), 0);
		memcpy(now, mv.content, mv.size);
		memcpy(mv.content, image, mv.size);
		assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
		look_after_cut(sb, least);
		assert_int_equal(sl_unmount(sb), 0);
		assert_int_equal(memvol_fsck(&mv), 0);
		/* On with what there was before the cut. */
		memcpy(mv.content, now, mv.size);
		assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
		look_after_cut(sb, i + 1);
		assert_int_equal(sl_iget(sb, EXT4_ROOT_INO, &root), 0);
		assert_int_equal(sl_lookup(root, "d", 1, &d), 0);
	}
	sl_iput(d);
	sl_iput(root);
	assert_int_equal(sl_unmount(sb), 0);
	memvol_free(&mv);
	free(image);
	free(now);
}

static void test_power_cut(void **state)
{
	(void)state;
	cut("-b 1024");
	cut("-b 1024 -I 128");
}

static int init(void **state)
{
	log_init("test", LOG_LVL_WARN);
	thread_register();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forms),
		cmocka_unit_test(test_check),
		cmocka_unit_test(test_modes),
		cmocka_unit_test(test_set),
		cmocka_unit_test(test_known_from_a_block),
		cmocka_unit_test(test_noacl),
		cmocka_unit_test(test_damaged_list),
		cmocka_unit_test(test_no_space_for_the_list),
		cmocka_unit_test(test_power_cut),
	};

	return cmocka_run_group_tests(tests, init, NULL);
}
