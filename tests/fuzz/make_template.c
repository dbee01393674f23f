/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/fuzz/make_template.c - the volumes of tests/fuzz/templates
 *
 *   make-template DIR
 *
 * Writes each as an image into DIR, to be compressed with gzip -9n. Inputs that are
 * kept mean the templates they were found with: a new feature gets a template of
 * its own, and those that are there stay as they are.
 */
#include "tests/fuzz/template.h"

#define SMALL_NAMES 130

enum how { FILLED, LOGGED, AS_MADE, ATTRS };

static const struct {
	const char *name, *features, *size;
	enum how how;
	const char *after; /* a command for the image */
} templates[] = {
	{ "plain-1k", "-J size=1 -b 1024 -g 1024 -N 256 -O ^metadata_csum,^resize_inode", "3M",
	  FILLED },
	{ "csum-1k",
	  "-J size=1 -b 1024 -N 256 -E stride=1 -O orphan_file,metadata_csum_seed,^resize_inode",
	  "3M", FILLED },
	{ "log-1k", "-J size=1 -b 1024 -N 256 -O ^metadata_csum,^64bit", "3M", LOGGED },
	{ "log-csum-1k", "-J size=1 -b 1024 -g 1024 -N 256 -O orphan_file", "3M", LOGGED },
	{ "plain-4k", "-J size=4 -b 4096 -N 256 -I 128 -O uninit_bg,^metadata_csum,^64bit", "12M",
	  FILLED },
	{ "inline-4k", "-J size=4 -b 4096 -N 256 -O inline_data", "12M", AS_MADE },
	{ "eainode-1k", "-J size=1 -b 1024 -N 256 -O ea_inode,^metadata_csum", "3M", AS_MADE,
	  "head -c 9000 /dev/zero | tr '\\0' e > '%s.v';"
	  " debugfs -w -R 'ea_set -f %s.v xattr user.huge' '%s' >/dev/null 2>&1" },
	{ "indirect-1k", "-J size=1 -b 1024 -N 256 -O ^extents,^64bit,^metadata_csum", "3M",
	  AS_MADE },
	{ "bigalloc-4k", "-J size=4 -b 4096 -N 256 -C 16384 -O bigalloc", "12M", AS_MADE },
	{ "nojournal-1k", "-J size=1 -b 1024 -N 256 -O meta_bg,^resize_inode", "3M", FILLED,
	  "tune2fs -O ^has_journal '%s' >/dev/null; : '%s' '%s'" },
	{ "attrs-1k", "-J size=1 -b 1024 -N 256 -O ^metadata_csum", "3M", ATTRS },
};

static void fill(struct super_block *sb, struct torment_report *r)
{
	struct inode *root, *dir, *inode;
	struct statvfs st;
	struct sl_file *f;
	char name[256];
	int len;

	(void)r;
	MUST(sl_statfs(sb, &st));
	MUST(sl_iget(sb, 2, &root));
	template_fragments(root, "frag", (u32)st.f_bsize, 24);
	template_fragments(root, "deep", (u32)st.f_bsize, st.f_bsize == 1024 ? 100 : 60);
	MUST(sl_mkdir(root, "htree", 5, 0755, &torment_cred, &dir));
	inode = template_file(dir, "first");
	for (int i = 0; i < SMALL_NAMES; i++) {
		len = snprintf(name, sizeof(name), "%04d-", i);
		for (; len < 100; len++)
			name[len] = (char)('a' + (len + i) % 26);
		MUST(sl_link(inode, dir, name, (size_t)len));
	}
	sl_iput(inode);
	sl_iput(dir);
	inode = template_file(root, "sparse");
	MUST(sl_open(inode, SL_OPEN_WRITE, &f));
	MUST(sl_write(f, "abc", 3, 0, 0, &torment_cred));
	MUST(sl_write(f, "abc", 3, 3ull << 30, 0, &torment_cred));
	sl_release(f);
	sl_iput(inode);
	inode = template_file(root, "prealloc");
	MUST(sl_open(inode, SL_OPEN_WRITE, &f));
	MUST(sl_fallocate(f, 0, 0, 40000, &torment_cred));
	MUST(sl_write(f, "abc", 3, 20000, 0, &torment_cred));
	sl_release(f);
	sl_iput(inode);
	sl_iput(root);
	MUST(sl_sync(sb));
}

/* Access control lists in the inode, in a block, in a block of several; default ones. */
static void fill_attrs(struct super_block *sb, struct torment_report *r)
{
	static const u8 acl[] = {
		2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 6, 0, 5, 0, 0, 0,
		4, 0, 6, 0, 255, 255, 255, 255, 16, 0, 6, 0, 255, 255, 255, 255,
		32, 0, 4, 0, 255, 255, 255, 255,
	};
	struct inode *root, *dir, *inode;
	char big[300], name[16];

	(void)r;
	memset(big, 'v', sizeof(big));
	MUST(sl_iget(sb, 2, &root));
	MUST(sl_lookup(root, "victim", 6, &dir));
	MUST(sl_setxattr(dir, "system.posix_acl_default", acl, sizeof(acl), 0, &torment_cred));
	MUST(sl_setxattr(root, "system.posix_acl_default", acl, sizeof(acl), 0, &torment_cred));
	for (int i = 0; i < 6; i++) {
		snprintf(name, sizeof(name), "new%d", i);
		inode = template_file(dir, name);
		MUST(sl_setxattr(inode, "user.big", big, sizeof(big), 0, &torment_cred));
		if (i & 1)
			MUST(sl_setxattr(inode, "security.x", "x", 1, 0, &torment_cred));
		sl_iput(inode);
	}
	sl_iput(dir);
	sl_iput(root);
	MUST(sl_sync(sb));
}

/* Several transactions stay in the log, blocks that were revoked, and orphans. */
static void leave_log(struct super_block *sb, struct torment_report *r)
{
	struct inode *root, *dir, *inode;
	char name[32];

	(void)r;
	MUST(sl_iget(sb, 2, &root));
	MUST(sl_lookup(root, "victim", 6, &dir));
	MUST(sl_lookup(dir, "f6", 2, &inode));
	sl_lookup_inc(inode);
	MUST(sl_unlink(dir, "f6", 2));
	MUST(sl_rmdir(dir, "sub", 3));
	for (int i = 0; i < 12; i++) {
		snprintf(name, sizeof(name), "late-%d", i);
		sl_iput(template_file(dir, name));
		if (i % 3 == 0)
			MUST(sl_sync(sb));
		if (i == 4)
			MUST(sl_rmdir(dir, "sub2", 4));
		if (i == 6)
			MUST(sl_unlink(root, "bigxattr", 8));
	}
	MUST(sl_sync(sb));
}

int main(int argc, char **argv)
{
	struct torment filled = { .fn = fill }, attrs = { .fn = fill_attrs };
	struct torment logged = { .fn = leave_log, .crash = true };
	struct torment_report r;
	struct workdir w;
	struct image im;
	char path[512];

	if (argc != 2)
		return 2;
	for (size_t i = 0; i < ARRAY_SIZE(templates); i++) {
		workdir_make(&w);
		template_make_ro(&w, templates[i].features, templates[i].size, &im);
		if ((templates[i].how == FILLED || templates[i].how == LOGGED) &&
		    (torment(&filled, &im, w.log, &r) || r.mount_err || r.unmount_err))
			image_die(templates[i].name);
		if (templates[i].how == ATTRS &&
		    (torment(&attrs, &im, w.log, &r) || r.mount_err || r.unmount_err))
			image_die(templates[i].name);
		if (templates[i].how == LOGGED && torment(&logged, &im, w.log, &r))
			image_die(templates[i].name);
		snprintf(path, sizeof(path), "%s/%s", argv[1], templates[i].name);
		image_store(&im, path);
		if (templates[i].after)
			template_sh(templates[i].after, path, path, path);
		image_free(&im);
		workdir_remove(&w);
	}
	return 0;
}
