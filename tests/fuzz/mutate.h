/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/fuzz/mutate.h - damages the metadata of an image at random
 *
 * All blocks that carry metadata are listed once from the intact template,
 * with what they are and whose. A mutation picks a kind first and then a
 * block of it, so that the few blocks of a kind (superblock, extent nodes)
 * are hit as often as the many (inode tables). Afterwards the checksums of
 * what was hit can be recomputed, from the same list.
 *
 * Locks: none.
 */
#ifndef SLUICE_TESTS_MUTATE_H
#define SLUICE_TESTS_MUTATE_H

#include "tests/fuzz/image.h"

enum meta_kind {
	META_SUPER,
	META_GDT,
	META_BLOCK_BITMAP,
	META_INODE_BITMAP,
	META_ITABLE,   /* owner: the inode */
	META_DIR,
	META_EXTENT,
	META_INDIRECT,
	META_XATTR,
	META_SYMLINK,
	META_JOURNAL_SB,
	META_JOURNAL,
	META_ORPHAN,
	META_KINDS,
};

struct meta_block {
	enum meta_kind kind;
	u32 owner; /* inode or group */
	bool root; /* block 0 of a directory */
	u64 pos;   /* bytes */
	u32 len;
};

struct meta_map {
	const struct image *im;
	u32 nr, max;
	u32 start[META_KINDS + 1]; /* sorted by kind */
	struct meta_block *at;
	u32 owner; /* while walking */
	enum meta_kind kind;
};

static inline void meta_add(struct meta_map *m, enum meta_kind kind, u32 owner, u64 pos,
			    u32 len, bool root)
{
	if (m->nr == m->max) {
		m->max = m->max ? m->max * 2 : 256;
		m->at = realloc(m->at, m->max * sizeof(*m->at));
		if (!m->at)
			image_die("no memory");
	}
	m->at[m->nr++] = (struct meta_block){ kind, owner, root, pos, len };
}

static inline void meta_one(void *priv, u64 blk, u32 lblk, bool node)
{
	struct meta_map *m = priv;
	u32 bs = m->im->bs;

	if (node)
		meta_add(m, META_EXTENT, m->owner, blk * bs, bs, false);
	else if (m->kind == META_JOURNAL)
		meta_add(m, lblk ? META_JOURNAL : META_JOURNAL_SB, m->owner, blk * bs,
			 bs, false);
	else if (m->kind != META_KINDS)
		meta_add(m, m->kind, m->owner, blk * bs, bs, lblk == 0);
}

static inline void meta_inode(struct meta_map *m, u32 ino)
{
	const struct image *im = m->im;
	struct ext4_inode_disk *di = image_inode(im, ino);
	u32 acl = le32_to_cpu(di->i_file_acl_lo);
	le32 ind;

	meta_add(m, META_ITABLE, ino, (u64)((u8 *)di - im->mem), im->inode_size, false);
	if (acl)
		meta_add(m, META_XATTR, ino, (u64)acl * im->bs, im->bs, false);
	m->owner = ino;
	m->kind = ino == EXT4_JOURNAL_INO	? META_JOURNAL
		  : S_ISDIR(image_mode(di))	? META_DIR
		  : S_ISLNK(image_mode(di))	? META_SYMLINK
		  : ino == le32_to_cpu(image_sb(im)->s_orphan_file_inum) ? META_ORPHAN
						: META_KINDS;
	image_walk_blocks(im, ino, meta_one, m);
	if (S_ISREG(image_mode(di)) && ino >= EXT4_GOOD_OLD_FIRST_INO &&
	    !(le32_to_cpu(di->i_flags) & (EXT4_EXTENTS_FL | EXT4_INLINE_DATA_FL))) {
		memcpy(&ind, di->i_block + 48, 4);
		if (le32_to_cpu(ind))
			meta_add(m, META_INDIRECT, ino, (u64)le32_to_cpu(ind) * im->bs,
				 im->bs, false);
	}
}

static inline int meta_cmp(const void *a, const void *b)
{
	const struct meta_block *x = a, *y = b;

	if (x->kind != y->kind)
		return x->kind < y->kind ? -1 : 1;
	return x->pos < y->pos ? -1 : x->pos > y->pos;
}

static inline void meta_map_make(struct meta_map *m, const struct image *im)
{
	u32 kind = 0;

	*m = (struct meta_map){ .im = im };
	meta_add(m, META_SUPER, 0, EXT4_SUPER_OFFSET, 1024, false);
	for (u32 g = 0; g < im->groups; g++) {
		const struct ext4_group_desc *gd = image_gd(im, g);

		meta_add(m, META_GDT, g, (u64)((const u8 *)gd - im->mem), im->desc_size,
			 false);
		meta_add(m, META_BLOCK_BITMAP, g,
			 (u64)le32_to_cpu(gd->bg_block_bitmap_lo) * im->bs, im->bs, false);
		meta_add(m, META_INODE_BITMAP, g,
			 (u64)le32_to_cpu(gd->bg_inode_bitmap_lo) * im->bs, im->bs, false);
	}
	for (u32 ino = 1; ino <= im->groups * im->ipg; ino++)
		if (image_in_use(im, ino))
			meta_inode(m, ino);
	qsort(m->at, m->nr, sizeof(*m->at), meta_cmp);
	for (u32 i = 0; i < m->nr; i++)
		while (kind <= m->at[i].kind)
			m->start[kind++] = i;
	while (kind <= META_KINDS)
		m->start[kind++] = m->nr;
}

static inline void meta_map_free(struct meta_map *m)
{
	free(m->at);
}

/* ---- damage ---- */

static inline u32 mutate_value(const struct image *im, unsigned *seed, u32 old)
{
	static const u32 odd[] = { 0, 1, 2, 3, 4, 7, 8, 11, 12, 0x7F, 0x80, 0xFF, 0x100,
				   0x7FFF, 0x8000, 0x8001, 0xFFFF, 0x10000, 0x7FFFFFFF,
				   0x80000000, 0xFFFFFFFE, 0xFFFFFFFF };

	switch ((unsigned)rand_r(seed) % 5) {
	case 0:
		return odd[(unsigned)rand_r(seed) % ARRAY_SIZE(odd)];
	case 1:
		return old + (u32)rand_r(seed) % 9 - 4;
	case 2:
		return (u32)rand_r(seed) % (u32)(im->size / im->bs + 2);
	case 3:
		return old ^ 1u << (unsigned)rand_r(seed) % 32;
	default:
		return (u32)rand_r(seed) ^ (u32)rand_r(seed) << 16;
	}
}

/* Where in the block: near its start, or anywhere. */
static inline u32 mutate_offset(const struct meta_block *b, unsigned *seed)
{
	u32 len = b->kind == META_ITABLE ? min_of(b->len, 160u) : b->len;

	if (b->kind != META_ITABLE && b->kind != META_SUPER && (unsigned)rand_r(seed) % 2)
		len = min_of(len, 64u);
	return (u32)rand_r(seed) % len;
}

static inline void mutate_block(struct image *im, const struct meta_map *m,
				const struct meta_block *b, unsigned *seed)
{
	u8 *p = im->mem + b->pos;
	u32 off = mutate_offset(b, seed), n, v = 0;
	const struct meta_block *other;

	switch ((unsigned)rand_r(seed) % 16) {
	case 0: /* random bytes */
		n = 1 + (u32)rand_r(seed) % min_of(b->len - off, 64u);
		for (u32 i = 0; i < n; i++)
			p[off + i] = (u8)rand_r(seed);
		break;
	case 1:
		memset(p + off, rand_r(seed) % 2 ? 0 : 0xFF, b->len - off);
		break;
	case 2: /* another block's content */
		other = &m->at[(u32)rand_r(seed) % m->nr];
		memmove(p, im->mem + other->pos, min_of(b->len, other->len));
		break;
	case 3:
		p[off] ^= (u8)(1u << (unsigned)rand_r(seed) % 8);
		break;
	case 4:
	case 5:
	case 6:
		p[off] = (u8)rand_r(seed);
		break;
	case 7:
	case 8:
	case 9:
	case 10: /* 16 bits, aligned */
		off &= ~1u;
		memcpy(&v, p + off, 2);
		v = mutate_value(im, seed, v);
		memcpy(p + off, &v, 2);
		break;
	default: /* 32 bits, aligned */
		off &= ~3u;
		if (off + 4 > b->len)
			break;
		memcpy(&v, p + off, 4);
		v = mutate_value(im, seed, v);
		/* The journal's are big-endian. */
		if ((b->kind == META_JOURNAL || b->kind == META_JOURNAL_SB) &&
		    rand_r(seed) % 2)
			v = __builtin_bswap32(v);
		memcpy(p + off, &v, 4);
		break;
	}
}

static inline void mutate_fix(struct image *im, const struct meta_block *b)
{
	u64 blk = b->pos / im->bs;

	switch (b->kind) {
	case META_GDT:
		image_fix_gd(im, b->owner);
		break;
	case META_BLOCK_BITMAP:
	case META_INODE_BITMAP:
		image_fix_bitmaps(im, b->owner);
		break;
	case META_ITABLE:
		image_fix_inode(im, b->owner);
		break;
	case META_DIR:
		image_fix_dir_block(im, b->owner, blk, b->root);
		break;
	case META_EXTENT:
		image_fix_extent_block(im, b->owner, blk);
		break;
	case META_XATTR:
		image_fix_xattr_block(im, blk);
		break;
	default:
		break;
	}
}

/*
 * A few mutations. im has the content of the template that m describes. fix:
 * the checksums of what was hit are made right again. Prints what it did to
 * `say`, if that is not NULL.
 */
static inline void mutate(struct image *im, const struct meta_map *m, unsigned *seed, bool fix,
			  FILE *say)
{
	static const char *const names[] = {
		"super", "descriptor", "block bitmap", "inode bitmap", "inode",
		"directory", "extents", "indirect", "xattr", "symlink",
		"journal superblock", "journal", "orphan file",
	};
	const struct meta_block *hit[8];
	struct image geo = *im;
	u32 n = 1 + (u32)rand_r(seed) % ARRAY_SIZE(hit);

	for (u32 i = 0; i < n; i++) {
		u32 kind, count;

		do {
			kind = (u32)rand_r(seed) % META_KINDS;
			/* Most volumes with a bad superblock do not mount. */
			if (kind == META_SUPER && rand_r(seed) % 4)
				kind = META_DIR;
			count = m->start[kind + 1] - m->start[kind];
		} while (!count);
		/* A log has a used part, at its start. */
		if (kind == META_JOURNAL && rand_r(seed) % 4)
			count = min_of(count, 64u);
		hit[i] = &m->at[m->start[kind] + (u32)rand_r(seed) % count];
		mutate_block(im, m, hit[i], seed);
		if (say)
			fprintf(say, "  %s of %u at byte %llu\n", names[kind], hit[i]->owner,
				(unsigned long long)hit[i]->pos);
	}
	if (!fix)
		return;
	/* Descriptors lead to bitmaps and tables: only while they are intact. */
	for (u32 i = 0; i < n; i++)
		if (hit[i]->kind == META_GDT || hit[i]->kind == META_SUPER)
			geo.csum = geo.gdt_csum = false;
	if (geo.csum)
		for (u32 i = 0; i < n; i++)
			mutate_fix(im, hit[i]);
	for (u32 i = 0; i < n; i++)
		if (hit[i]->kind == META_GDT)
			image_fix_gd(im, hit[i]->owner);
	image_fix_sb(im);
}

#endif
