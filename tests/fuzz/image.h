/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/fuzz/image.h - a volume's image in memory, to be damaged on purpose
 *
 * Opens an image made by mke2fs, finds its structures with a few lines of its
 * own (nothing of fs/ but the format headers, so that a bug there does not
 * hide here), and recomputes checksums after a change. What it parses is the
 * intact template: nothing here survives a damaged one, nor has to.
 *
 * The memory is shared with children: a child mounts it (mem_bdev) and the
 * parent looks at what it left.
 *
 * Locks: none. Threads: one, before the image is mounted and after.
 */
#ifndef SLUICE_TESTS_IMAGE_H
#define SLUICE_TESTS_IMAGE_H

#include "fs/ext4_format.h"
#include "fs/journal/jbd2_format.h"
#include "lib/crc.h"
#include "writeback/bdev.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct image {
	u8 *mem;
	size_t size;
	/* decoded from the template */
	u32 bs, groups, ipg, bpg, inode_size, desc_size, first_block;
	u32 seed;
	bool csum, gdt_csum;
};

static inline void image_die(const char *what)
{
	fprintf(stderr, "image: %s\n", what);
	abort();
}

static inline struct ext4_super_block *image_sb(const struct image *im)
{
	return (void *)(im->mem + EXT4_SUPER_OFFSET);
}

static inline u8 *image_block(const struct image *im, u64 blk)
{
	if ((blk + 1) * im->bs > im->size)
		image_die("block beyond the end");
	return im->mem + blk * im->bs;
}

static inline void image_decode(struct image *im)
{
	const struct ext4_super_block *es = image_sb(im);
	u32 ro = le32_to_cpu(es->s_feature_ro_compat);
	u32 incompat = le32_to_cpu(es->s_feature_incompat);

	im->bs = 1024u << le32_to_cpu(es->s_log_block_size);
	im->ipg = le32_to_cpu(es->s_inodes_per_group);
	im->bpg = le32_to_cpu(es->s_blocks_per_group);
	im->groups = le32_to_cpu(es->s_inodes_count) / im->ipg;
	im->inode_size = le16_to_cpu(es->s_inode_size);
	im->desc_size = incompat & EXT4_INCOMPAT_64BIT ? le16_to_cpu(es->s_desc_size) : 32;
	im->first_block = le32_to_cpu(es->s_first_data_block);
	im->csum = ro & EXT4_RO_COMPAT_METADATA_CSUM;
	im->gdt_csum = ro & EXT4_RO_COMPAT_GDT_CSUM;
	im->seed = incompat & EXT4_INCOMPAT_CSUM_SEED
			   ? le32_to_cpu(es->s_checksum_seed)
			   : crc32c(~0u, es->s_uuid, sizeof(es->s_uuid));
}

static inline void image_alloc(struct image *im, size_t size)
{
	im->size = size;
	im->mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (im->mem == MAP_FAILED)
		image_die("no memory");
}

static inline void image_free(struct image *im)
{
	munmap(im->mem, im->size);
	im->mem = NULL;
}

static inline void image_load(struct image *im, const char *path)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	memset(im, 0, sizeof(*im));
	if (fd < 0 || fstat(fd, &st))
		image_die("cannot open the template");
	image_alloc(im, (size_t)st.st_size);
	if (read(fd, im->mem, im->size) != (ssize_t)im->size)
		image_die("cannot read the template");
	close(fd);
	image_decode(im);
}

static inline void image_store(const struct image *im, const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	if (fd < 0 || write(fd, im->mem, im->size) != (ssize_t)im->size)
		image_die("cannot write the image");
	close(fd);
}

/*
 * TSan would note each of the megabytes that are copied and searched, in a
 * process that has one thread then. (Not there: no TSan.)
 */
extern void AnnotateIgnoreReadsBegin(const char *file, int line) __attribute__((weak));
extern void AnnotateIgnoreReadsEnd(const char *file, int line) __attribute__((weak));
extern void AnnotateIgnoreWritesBegin(const char *file, int line) __attribute__((weak));
extern void AnnotateIgnoreWritesEnd(const char *file, int line) __attribute__((weak));

static inline void image_ignore_begin(void)
{
	if (!AnnotateIgnoreReadsBegin)
		return;
	AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
	AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
}

static inline void image_ignore_end(void)
{
	if (!AnnotateIgnoreReadsBegin)
		return;
	AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
	AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
}

/* `to` has been allocated with the same size. */
static inline void image_copy(struct image *to, const struct image *from)
{
	u8 *mem = to->mem;

	image_ignore_begin();
	memcpy(mem, from->mem, from->size);
	image_ignore_end();
	*to = *from;
	to->mem = mem;
}

/* ---- structures ---- */

/* Behind the block with the superblock, which is not first_block with bigalloc. */
static inline struct ext4_group_desc *image_gd(const struct image *im, u32 g)
{
	return (void *)(image_block(im, EXT4_SUPER_OFFSET / im->bs + 1) +
			(size_t)g * im->desc_size);
}

static inline struct ext4_inode_disk *image_inode(const struct image *im, u32 ino)
{
	const struct ext4_group_desc *gd = image_gd(im, (ino - 1) / im->ipg);

	return (void *)(image_block(im, le32_to_cpu(gd->bg_inode_table_lo)) +
			(size_t)((ino - 1) % im->ipg) * im->inode_size);
}

static inline u8 *image_block_bitmap(const struct image *im, u32 g)
{
	return image_block(im, le32_to_cpu(image_gd(im, g)->bg_block_bitmap_lo));
}

static inline u8 *image_inode_bitmap(const struct image *im, u32 g)
{
	return image_block(im, le32_to_cpu(image_gd(im, g)->bg_inode_bitmap_lo));
}

static inline u64 image_size(const struct ext4_inode_disk *di)
{
	return le32_to_cpu(di->i_size_lo) | (u64)le32_to_cpu(di->i_size_high) << 32;
}

static inline u16 image_mode(const struct ext4_inode_disk *di)
{
	return le16_to_cpu(di->i_mode);
}

/* Is the inode one that debugging tools would list? */
static inline bool image_in_use(const struct image *im, u32 ino)
{
	const struct ext4_group_desc *gd = image_gd(im, (ino - 1) / im->ipg);
	u32 i = (ino - 1) % im->ipg;

	if ((im->csum || im->gdt_csum) &&
	    le16_to_cpu(gd->bg_flags) & EXT4_BG_INODE_UNINIT)
		return false;
	return image_inode_bitmap(im, (ino - 1) / im->ipg)[i / 8] >> (i % 8) & 1;
}

struct ext_node {
	struct ext4_extent_header *eh;
	union {
		struct ext4_extent *ext;
		struct ext4_extent_idx *idx;
	};
	u64 blk; /* 0: the root */
};

static inline struct ext_node image_root(struct ext4_inode_disk *di)
{
	struct ext_node n = { .eh = (void *)di->i_block };

	n.ext = (void *)(n.eh + 1);
	return n;
}

static inline struct ext_node image_child(const struct image *im, const struct ext_node *n,
					  u32 i)
{
	struct ext_node c = { .blk = le32_to_cpu(n->idx[i].ei_leaf_lo) };

	c.eh = (void *)image_block(im, c.blk);
	c.ext = (void *)(c.eh + 1);
	return c;
}

/* fn(priv, blk, lblk, is_node) for each block of an extent-mapped inode. */
typedef void (*image_block_fn)(void *priv, u64 blk, u32 lblk, bool node);

static inline void image_walk_node(const struct image *im, const struct ext_node *n,
				   image_block_fn fn, void *priv)
{
	for (u32 i = 0; i < le16_to_cpu(n->eh->eh_entries); i++) {
		if (le16_to_cpu(n->eh->eh_depth)) {
			struct ext_node c = image_child(im, n, i);

			fn(priv, c.blk, le32_to_cpu(n->idx[i].ei_block), true);
			image_walk_node(im, &c, fn, priv);
			continue;
		}
		u32 len = le16_to_cpu(n->ext[i].ee_len);

		if (len > EXT4_EXT_INIT_MAX_LEN)
			len -= EXT4_EXT_INIT_MAX_LEN;
		for (u32 k = 0; k < len; k++)
			fn(priv, le32_to_cpu(n->ext[i].ee_start_lo) + (u64)k,
			   le32_to_cpu(n->ext[i].ee_block) + k, false);
	}
}

static inline void image_walk_blocks(const struct image *im, u32 ino, image_block_fn fn,
				     void *priv)
{
	struct ext4_inode_disk *di = image_inode(im, ino);
	struct ext_node n = image_root(di);

	if (le32_to_cpu(di->i_flags) & EXT4_EXTENTS_FL)
		image_walk_node(im, &n, fn, priv);
}

struct image_find {
	u32 lblk;
	u64 blk;
};

static inline void image_find_one(void *priv, u64 blk, u32 lblk, bool node)
{
	struct image_find *f = priv;

	if (!node && lblk == f->lblk)
		f->blk = blk;
}

/* Block of the device that holds block lblk of the inode; 0 for none. */
static inline u64 image_map(const struct image *im, u32 ino, u32 lblk)
{
	struct image_find f = { .lblk = lblk };

	image_walk_blocks(im, ino, image_find_one, &f);
	return f.blk;
}

/* The entry `name` of a directory: by a look at every block. NULL for none. */
static inline struct ext4_dir_entry *image_entry(const struct image *im, u32 dir,
						 const char *name)
{
	u32 blocks = (u32)(image_size(image_inode(im, dir)) / im->bs);
	size_t len = strlen(name);

	for (u32 l = 0; l < blocks; l++) {
		u8 *b = image_block(im, image_map(im, dir, l));

		for (u32 off = 0; off < im->bs;) {
			struct ext4_dir_entry *de = (void *)(b + off);

			if (le32_to_cpu(de->inode) && de->name_len == len &&
			    !memcmp(de->name, name, len))
				return de;
			if (le16_to_cpu(de->rec_len) < 8)
				break;
			off += le16_to_cpu(de->rec_len);
		}
	}
	return NULL;
}

/* Inode of a path of the template, without a leading slash. 0 for none. */
static inline u32 image_lookup(const struct image *im, const char *path)
{
	char buf[256], *save = NULL;
	u32 ino = EXT4_ROOT_INO;

	snprintf(buf, sizeof(buf), "%s", path);
	for (char *p = strtok_r(buf, "/", &save); p; p = strtok_r(NULL, "/", &save)) {
		struct ext4_dir_entry *de = image_entry(im, ino, p);

		if (!de)
			return 0;
		ino = le32_to_cpu(de->inode);
	}
	return ino;
}

/* Block i of the journal. */
static inline u8 *image_journal(const struct image *im, u32 i)
{
	return image_block(im, image_map(im, EXT4_JOURNAL_INO, i));
}

/* ---- checksums: of the structure where it lies, as it is now ---- */

static inline void image_fix_sb(struct image *im)
{
	struct ext4_super_block *es = image_sb(im);

	if (im->csum)
		es->s_checksum = cpu_to_le32(
			crc32c(~0u, es, offsetof(struct ext4_super_block, s_checksum)));
}

static inline void image_fix_gd(struct image *im, u32 g)
{
	struct ext4_group_desc *gd = image_gd(im, g);
	le32 nr = cpu_to_le32(g);
	le16 zero = cpu_to_le16(0);
	const u8 *raw = (const u8 *)gd;
	u32 at = offsetof(struct ext4_group_desc, bg_checksum);
	u32 crc;

	if (im->csum) {
		crc = crc32c(im->seed, &nr, sizeof(nr));
		crc = crc32c(crc, raw, at);
		crc = crc32c(crc, &zero, sizeof(zero));
		crc = crc32c(crc, raw + at + 2, im->desc_size - at - 2);
		gd->bg_checksum = cpu_to_le16((u16)crc);
	} else if (im->gdt_csum) {
		u16 c = crc16(0xFFFF, image_sb(im)->s_uuid, 16);

		c = crc16(c, &nr, sizeof(nr));
		c = crc16(c, raw, at);
		if (im->desc_size > 32)
			c = crc16(c, raw + at + 2, im->desc_size - at - 2);
		gd->bg_checksum = cpu_to_le16(c);
	}
}

/* Both bitmaps of group g, then its descriptor. */
static inline void image_fix_bitmaps(struct image *im, u32 g)
{
	struct ext4_group_desc *gd = image_gd(im, g);
	u32 crc;

	if (im->csum) {
		crc = crc32c(im->seed, image_block_bitmap(im, g), im->bpg / 8);
		gd->bg_block_bitmap_csum_lo = cpu_to_le16((u16)crc);
		if (im->desc_size > 32)
			gd->bg_block_bitmap_csum_hi = cpu_to_le16((u16)(crc >> 16));
		crc = crc32c(im->seed, image_inode_bitmap(im, g), im->ipg / 8);
		gd->bg_inode_bitmap_csum_lo = cpu_to_le16((u16)crc);
		if (im->desc_size > 32)
			gd->bg_inode_bitmap_csum_hi = cpu_to_le16((u16)(crc >> 16));
	}
	image_fix_gd(im, g);
}

static inline u32 image_iseed(const struct image *im, u32 ino)
{
	le32 nr = cpu_to_le32(ino);
	u32 crc = crc32c(im->seed, &nr, sizeof(nr));

	return crc32c(crc, &image_inode(im, ino)->i_generation, 4);
}

static inline void image_fix_inode(struct image *im, u32 ino)
{
	struct ext4_inode_disk *di = image_inode(im, ino);
	bool hi = im->inode_size > 128 && le16_to_cpu(di->i_extra_isize) >= 4;
	u32 crc;

	if (!im->csum)
		return;
	di->i_checksum_lo = cpu_to_le16(0);
	if (hi)
		di->i_checksum_hi = cpu_to_le16(0);
	crc = crc32c(image_iseed(im, ino), di, im->inode_size);
	di->i_checksum_lo = cpu_to_le16((u16)crc);
	if (hi)
		di->i_checksum_hi = cpu_to_le16((u16)(crc >> 16));
}

static inline void image_fix_extent_block(struct image *im, u32 ino, u64 blk)
{
	u8 *b = image_block(im, blk);
	u32 end = 12 + 12 * ((im->bs - 12) / 12);
	le32 crc = cpu_to_le32(crc32c(image_iseed(im, ino), b, end));

	if (im->csum && end + 4 <= im->bs)
		memcpy(b + end, &crc, 4);
}

/* Leaf, root or node of an index, by what it looks like. */
static inline void image_fix_dir_block(struct image *im, u32 ino, u64 blk, bool root)
{
	u8 *b = image_block(im, blk);
	const struct ext4_dir_entry *de = (const void *)b;
	struct ext4_dir_tail *tail = (void *)(b + im->bs - 12);
	u32 seed = image_iseed(im, ino), at, crc;
	bool indexed = le32_to_cpu(image_inode(im, ino)->i_flags) & EXT4_INDEX_FL;
	struct ext4_dx_countlimit cl;
	le32 zero = cpu_to_le32(0), out;

	if (!im->csum)
		return;
	if (indexed && root)
		at = 32;
	else if (indexed && le16_to_cpu(de->rec_len) == im->bs && !le32_to_cpu(de->inode))
		at = 8;
	else {
		tail->det_checksum = cpu_to_le32(crc32c(seed, b, im->bs - 12));
		return;
	}
	memcpy(&cl, b + at, 4);
	if (at + le16_to_cpu(cl.limit) * 8u + 8 > im->bs ||
	    le16_to_cpu(cl.count) > le16_to_cpu(cl.limit))
		return;
	crc = crc32c(seed, b, at + le16_to_cpu(cl.count) * 8u);
	crc = crc32c(crc, b + at + le16_to_cpu(cl.limit) * 8u, 4);
	out = cpu_to_le32(crc32c(crc, &zero, 4));
	memcpy(b + at + le16_to_cpu(cl.limit) * 8u + 4, &out, 4);
}

static inline void image_fix_xattr_block(struct image *im, u64 blk)
{
	struct ext4_xattr_header *h = (void *)image_block(im, blk);
	le64 nr = cpu_to_le64(blk);

	if (!im->csum)
		return;
	h->h_checksum = cpu_to_le32(0);
	h->h_checksum = cpu_to_le32(crc32c(crc32c(im->seed, &nr, 8), h, im->bs));
}

/* ---- the image as a device; ends with the process, or bdev_close() ---- */

struct mem_bdev {
	struct bdev bd;
	u8 *mem;
	/* Bad places, chosen by a hash of seed and position: per 10000 blocks of
	 * 1 KiB that cannot be read, and that cannot be written. */
	unsigned seed, bad_read, bad_write;
};

static inline bool mem_is_bad(const struct mem_bdev *md, const struct bio *bio)
{
	unsigned limit = bio->bi_op == BIO_READ ? md->bad_read : md->bad_write;

	for (u64 pos = bio->bi_pos; limit && pos < bio->bi_pos + bio->bi_bytes; pos += 1024) {
		u32 h = (u32)(pos / 1024) * 2654435761u ^ md->seed * 0x9E3779B1u;

		h = (h ^ h >> 15) * 0x85EBCA6Bu;
		if ((h ^ h >> 13) % 10000 < limit)
			return true;
	}
	return false;
}

/*
 * A device's DMA: file data may be overwritten while it is being written out
 * (and is then dirty again), which TSan would call a race of this copy; it
 * sees none of a real device. Lengths and places are multiples of a sector.
 */
static __attribute__((noinline, no_sanitize("thread"))) void mem_dma(void *to, const void *from,
								     size_t len)
{
	volatile u64 *t = to;
	const volatile u64 *f = from;

	for (size_t i = 0; i < len / sizeof(u64); i++)
		t[i] = f[i];
}

static inline void mem_submit(struct bdev *bd, struct bio **bios, unsigned n)
{
	struct mem_bdev *md = container_of_type(bd, struct mem_bdev, bd);

	for (unsigned i = 0; i < n; i++) {
		u8 *at = md->mem + bios[i]->bi_pos;

		if (mem_is_bad(md, bios[i])) {
			bdev_end_bio(bd, bios[i], -EIO);
			continue;
		}
		for (int k = 0; k < bios[i]->bi_nr_iov; k++) {
			struct iovec *v = &bios[i]->bi_iov[k];

			if (bios[i]->bi_op == BIO_READ)
				mem_dma(v->iov_base, at, v->iov_len);
			else
				mem_dma(at, v->iov_base, v->iov_len);
			at += v->iov_len;
		}
		bios[i]->bi_end_io(bios[i]);
	}
}

static inline int mem_flush(struct bdev *bd)
{
	return 0;
}

static inline void mem_close(struct bdev *bd)
{
	free(container_of_type(bd, struct mem_bdev, bd));
}

/* bytes: of the device, which may end before the image does. */
static inline struct bdev *mem_bdev_create(const struct image *im, u64 bytes)
{
	static const struct bdev_ops ops = {
		.submit = mem_submit,
		.flush = mem_flush,
		.close = mem_close,
	};
	struct mem_bdev *md = calloc(1, sizeof(*md));

	md->bd.bd_ops = &ops;
	md->bd.bd_size = bytes;
	md->bd.bd_sector = 512;
	strcpy(md->bd.bd_name, "image");
	md->mem = im->mem;
	return &md->bd;
}

#endif
