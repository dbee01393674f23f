/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/fuzz/template.h - a small volume with one of everything, to be damaged
 *
 * debugfs puts in a tree and attributes, sluice itself what that cannot make:
 * an indexed directory of two levels, fragmented and sparse files,
 * preallocated space. One file is then mapped by indirect blocks by hand. The
 * template is a volume that e2fsck finds clean, and each run's has the same
 * names, inode numbers and hash seed.
 */
#ifndef SLUICE_TESTS_TEMPLATE_H
#define SLUICE_TESTS_TEMPLATE_H

#include "tests/fuzz/torment.h"

#define TEMPLATE_HTREE_NAMES 1500

/*
 * Listings come in hash order, and what torment does to a name depends on its
 * place in the listing. So with a seed of its own each run's template would
 * have other things done to it by the same torment.seed.
 */
#define TEMPLATE_HASH_SEED "7a3e9d10-52c4-4b8f-a6d1-0f4c8e2b9574"

struct workdir {
	char dir[64], image[96], log[96];
};

static inline void workdir_make(struct workdir *w)
{
	snprintf(w->dir, sizeof(w->dir), "%s/sluice-hostile-XXXXXX",
		 getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	if (!mkdtemp(w->dir))
		image_die("no temporary directory");
	snprintf(w->image, sizeof(w->image), "%s/img", w->dir);
	snprintf(w->log, sizeof(w->log), "%s/log", w->dir);
}

static inline void workdir_remove(struct workdir *w)
{
	char cmd[128];

	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", w->dir);
	if (system(cmd))
		fprintf(stderr, "failed: %s\n", cmd);
}

static inline void template_sh(const char *fmt, ...)
{
	char cmd[2048];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(cmd, sizeof(cmd), fmt, ap);
	va_end(ap);
	if (system(cmd)) {
		fprintf(stderr, "failed: %s\n", cmd);
		abort();
	}
}

#define MUST(call)                                                             \
	do {                                                                   \
		s64 res_ = (call);                                             \
		if (res_ < 0) {                                                \
			fprintf(stderr, "%s: %s\n", #call, strerror((int)-res_)); \
			abort();                                               \
		}                                                              \
	} while (0)

static inline struct inode *template_file(struct inode *dir, const char *name)
{
	struct inode *inode;

	MUST(sl_mknod(dir, name, strlen(name), S_IFREG | 0644, 0, &torment_cred, &inode));
	return inode;
}

/* One block at every second place: n extents. */
static inline void template_fragments(struct inode *root, const char *name, u32 bs, u32 n)
{
	struct inode *inode = template_file(root, name);
	struct sl_file *f;
	char data[4096];

	memset(data, 'f', sizeof(data));
	MUST(sl_open(inode, SL_OPEN_WRITE, &f));
	for (u32 i = 0; i < n; i++)
		MUST(sl_write(f, data, bs, (u64)i * 2 * bs, 0, &torment_cred));
	MUST(sl_fsync(f, false));
	sl_release(f);
	sl_iput(inode);
}

static inline void template_fill(struct super_block *sb, struct torment_report *r)
{
	struct inode *root, *dir, *inode;
	struct statvfs st;
	struct sl_file *f;
	char name[256];

	MUST(sl_statfs(sb, &st));
	MUST(sl_iget(sb, 2, &root));
	template_fragments(root, "frag", (u32)st.f_bsize, 200);
	template_fragments(root, "deep", (u32)st.f_bsize, st.f_bsize == 1024 ? 450 : 400);
	MUST(sl_mkdir(root, "htree", 5, 0755, &torment_cred, &dir));
	inode = template_file(dir, "first");
	for (int i = 0; i < TEMPLATE_HTREE_NAMES; i++) {
		int len = snprintf(name, sizeof(name), "%04d-", i);

		for (; len < 100; len++)
			name[len] = (char)('a' + (len + i) % 26);
		MUST(sl_link(inode, dir, name, (size_t)len));
	}
	sl_iput(inode);
	sl_iput(dir);
	inode = template_file(root, "sparse");
	MUST(sl_open(inode, SL_OPEN_WRITE, &f));
	MUST(sl_write(f, "abc", 3, 0, 0, &torment_cred));
	MUST(sl_write(f, "abc", 3, 10 << 20, 0, &torment_cred));
	MUST(sl_write(f, "abc", 3, 3ull << 30, 0, &torment_cred));
	sl_release(f);
	sl_iput(inode);
	inode = template_file(root, "prealloc");
	MUST(sl_open(inode, SL_OPEN_WRITE, &f));
	MUST(sl_fallocate(f, 0, 0, 100000, &torment_cred));
	MUST(sl_write(f, "abc", 3, 50000, 0, &torment_cred));
	sl_release(f);
	sl_iput(inode);
	sl_iput(root);
	MUST(sl_sync(sb));
}

/* The same file, its blocks found by i_block and one indirect block. */
static inline void template_make_indirect(struct image *im, const char *path)
{
	u32 ino = image_lookup(im, path), n;
	struct ext4_inode_disk *di = image_inode(im, ino);
	le32 slots[EXT4_N_BLOCKS] = { 0 };
	struct ext_node root = image_root(di);
	u64 last;
	u8 *ind;

	n = (u32)((image_size(di) + im->bs - 1) / im->bs);
	last = image_map(im, ino, n - 1);
	if (!last || n < 16 || n > 12 + im->bs / 4 || le16_to_cpu(root.eh->eh_depth))
		image_die("the file to be mapped indirectly is not as expected");
	/* The last block becomes the indirect block. */
	ind = image_block(im, last);
	memset(ind, 0, im->bs);
	for (u32 i = 0; i < n - 1; i++) {
		le32 b = cpu_to_le32((u32)image_map(im, ino, i));

		if (i < 12)
			slots[i] = b;
		else
			memcpy(ind + (i - 12) * 4, &b, 4);
	}
	slots[12] = cpu_to_le32((u32)last);
	memcpy(di->i_block, slots, sizeof(slots));
	di->i_size_lo = cpu_to_le32((n - 1) * im->bs);
	di->i_flags = cpu_to_le32(le32_to_cpu(di->i_flags) & ~(u32)EXT4_EXTENTS_FL);
	image_fix_inode(im, ino);
}

/*
 * The commands that make the tree, for debugfs, in a fixed order: mke2fs -d
 * would take the names as the host's readdir() has them, and with the numbers
 * of the inodes what is done to the volume would differ from host to host.
 */
static inline void template_make_tree(const struct workdir *w)
{
	template_sh("set -e; mkdir '%s/from' && cd '%s/from';"
		    " for i in $(seq 1 60); do echo file $i > l$i; done;"
		    " for i in 1 2 3 4 5 6; do head -c ${i}000 /dev/zero | tr '\\0' x > f$i; done;"
		    " echo x > deepest; echo small > small; : > empty-file;"
		    " head -c 150000 /dev/zero | tr '\\0' m > medium;"
		    " head -c 90000 /dev/zero | tr '\\0' i > indirect;"
		    " { for d in a a/b a/b/c a/b/c/d a/b/c/d/e a/b/c/d/e/f a/b/c/d/e/f/g"
		    "     linear victim victim/sub victim/sub2 empty; do echo mkdir $d; done;"
		    "   echo cd /linear;"
		    "   for i in $(seq 1 60); do echo write l$i file-with-a-longer-name-$i; done;"
		    "   echo cd /victim; for i in 1 2 3 4 5 6; do echo write f$i f$i; done;"
		    "   echo cd /a/b/c/d/e/f/g; echo write deepest deepest; echo cd /;"
		    "   for f in medium indirect empty-file; do echo write $f $f; done;"
		    "   echo write small xattr; echo write small bigxattr;"
		    "   echo symlink fast short;"
		    "   echo symlink slow $(head -c 200 /dev/zero | tr '\\0' s);"
		    "   echo mknod fifo p; echo ln medium hard; echo sif medium links_count 2;"
		    " } > commands",
		    w->dir, w->dir);
}

/*
 * What mke2fs and debugfs can make, for volumes that are only read. im:
 * allocated here. features: mke2fs's, e.g. "-b 1024 -O ^metadata_csum".
 */
static inline void template_make_ro(struct workdir *w, const char *features,
				    const char *size, struct image *im)
{
	template_make_tree(w);
	template_sh("mke2fs -q -t ext4 -F -J size=4 -U 1c0d54a2-3b7e-4f16-9a88-6e2f90b1d7c3"
		    " -E hash_seed=" TEMPLATE_HASH_SEED
		    " %s '%s' %s >/dev/null",
		    features, w->image, size);
	template_sh("cd '%s/from' && debugfs -w -f commands '%s' >/dev/null 2>&1", w->dir,
		    w->image);
	template_sh("rm -rf '%s/from'", w->dir);
	template_sh("head -c 500 /dev/zero | tr '\\0' v > '%s/value' &&"
		    " debugfs -w -R 'ea_set xattr user.small value' '%s' >/dev/null 2>&1 &&"
		    " debugfs -w -R 'ea_set -f %s/value bigxattr user.big' '%s' >/dev/null 2>&1",
		    w->dir, w->image, w->dir, w->image);
	image_load(im, w->image);
}

/* As above, with the rest: a volume that can be mounted read-write. */
static inline void template_make(struct workdir *w, const char *features, const char *size,
				 struct image *im)
{
	struct torment fill = { .fn = template_fill };
	struct torment_report r;

	template_make_ro(w, features, size, im);
	if (torment(&fill, im, w->log, &r) || r.mount_err || r.unmount_err)
		image_die("the template could not be filled");
	template_make_indirect(im, "indirect");
	image_store(im, w->image);
	template_sh("e2fsck -fn '%s' >'%s' 2>&1 || { cat '%s' >&2; false; }", w->image, w->log,
		    w->log);
}

#endif
