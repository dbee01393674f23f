/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_hostile.c - damaged volumes, each damage by name
 *
 * A template with one of everything is damaged in one place, mounted in a
 * child process, walked, changed and unmounted (tests/fuzz/torment.h), once
 * read-write and once read-only. No damage may crash it, hang it, or make it
 * write file data over metadata; each row says what else must be seen:
 *   REFUSED   the mount fails, with a message
 *   REPORTED  it mounts, a call fails with corruption, the superblock says so
 *   HARMLESS  it mounts and nothing is reported
 *   SURVIVES  only the above
 * Most templates have no metadata checksums, so that the checks behind them
 * are reached; the others have the checksum made right again, or left wrong.
 */
#include "tests/unit/unit.h"

#include "tests/fuzz/template.h"

enum verdict { SURVIVES, REFUSED, REPORTED, HARMLESS };

enum base { PLAIN, CSUM, PLAIN_LOG, CSUM_LOG, NR_BASES };

struct damage {
	const char *name;
	void (*fn)(struct image *im);
	enum verdict verdict;
	enum base base;
	int err;      /* of a refused mount; 0: -EFSCORRUPTED */
	u64 device;   /* bytes, if not all */
};

static struct {
	struct workdir w;
	struct image base[NR_BASES], im;
	u8 *zones; /* one byte a block: metadata of the template PLAIN */
} fx;

#define ALL 0xFFFFFFFFu

/* ---- short ways to a field ---- */

#define SET16(field, v) ((field) = cpu_to_le16((u16)(v)))
#define SET32(field, v) ((field) = cpu_to_le32((u32)(v)))

static u32 ino_of(const struct image *im, const char *path)
{
	u32 ino = image_lookup(im, path);

	if (!ino)
		image_die(path);
	return ino;
}

static struct ext4_inode_disk *inode_of(const struct image *im, const char *path)
{
	return image_inode(im, ino_of(im, path));
}

static u8 *file_block(const struct image *im, const char *path, u32 lblk)
{
	u64 blk = image_map(im, ino_of(im, path), lblk);

	if (!blk)
		image_die(path);
	return image_block(im, blk);
}

static struct ext4_dir_entry *nth_entry(u8 *block, u32 n)
{
	u32 off = 0;

	while (n--)
		off += le16_to_cpu(((struct ext4_dir_entry *)(void *)(block + off))->rec_len);
	return (void *)(block + off);
}

static u32 itable(const struct image *im, u32 g)
{
	return le32_to_cpu(image_gd(im, g)->bg_inode_table_lo);
}

/* ---- superblock ---- */

#define SB(fname, stmt)                                                        \
	static void sb_##fname(struct image *im)                               \
	{                                                                      \
		struct ext4_super_block *es = image_sb(im);                    \
		stmt;                                                          \
		image_fix_sb(im);                                              \
	}

SB(magic, SET16(es->s_magic, 0xEF54))
SB(revision, SET32(es->s_rev_level, 7))
SB(block_size_7, SET32(es->s_log_block_size, 7))
SB(block_size_all, SET32(es->s_log_block_size, ALL))
SB(block_size_4k, SET32(es->s_log_block_size, 2))
SB(cluster_size, SET32(es->s_log_cluster_size, 5))
SB(inode_size_0, SET16(es->s_inode_size, 0))
SB(inode_size_64, SET16(es->s_inode_size, 64))
SB(inode_size_200, SET16(es->s_inode_size, 200))
SB(inode_size_big, SET16(es->s_inode_size, 2048))
SB(ipg_0, SET32(es->s_inodes_per_group, 0))
SB(ipg_all, SET32(es->s_inodes_per_group, ALL))
SB(ipg_odd, SET32(es->s_inodes_per_group, 7))
SB(bpg_0, SET32(es->s_blocks_per_group, 0))
SB(bpg_8, SET32(es->s_blocks_per_group, 8))
SB(bpg_big, SET32(es->s_blocks_per_group, 16384))
SB(first_block_0, SET32(es->s_first_data_block, 0))
SB(first_block_5, SET32(es->s_first_data_block, 5))
SB(first_block_all, SET32(es->s_first_data_block, ALL))
SB(blocks_0, SET32(es->s_blocks_count_lo, 0))
SB(blocks_1, SET32(es->s_blocks_count_lo, 1))
SB(blocks_all, SET32(es->s_blocks_count_lo, ALL))
SB(blocks_hi, SET32(es->s_blocks_count_hi, 1))
SB(inodes_0, SET32(es->s_inodes_count, 0))
SB(inodes_all, SET32(es->s_inodes_count, ALL))
SB(desc_0, SET16(es->s_desc_size, 0))
SB(desc_32, SET16(es->s_desc_size, 32))
SB(desc_48, SET16(es->s_desc_size, 48))
SB(desc_1024, SET16(es->s_desc_size, 1024))
SB(desc_big, SET16(es->s_desc_size, 0x8000))
SB(flex_255, es->s_log_groups_per_flex = 255)
SB(first_meta_bg, SET32(es->s_first_meta_bg, ALL);
   SET32(es->s_feature_incompat,
	 le32_to_cpu(es->s_feature_incompat) | EXT4_INCOMPAT_META_BG))
SB(meta_bg, SET32(es->s_feature_incompat,
		  le32_to_cpu(es->s_feature_incompat) | EXT4_INCOMPAT_META_BG))
SB(reserved_gdt, SET16(es->s_reserved_gdt_blocks, 0xFFFF))
SB(first_ino_0, SET32(es->s_first_ino, 0))
SB(first_ino_all, SET32(es->s_first_ino, ALL))
SB(hash_version, es->s_def_hash_version = 77)
SB(want_isize, SET16(es->s_want_extra_isize, 0xFFFF))
SB(reserved_blocks, SET32(es->s_r_blocks_count_lo, ALL))
SB(free_blocks, SET32(es->s_free_blocks_count_lo, ALL))
SB(overhead, SET32(es->s_overhead_clusters, ALL))
SB(incompat, SET32(es->s_feature_incompat, ALL))
SB(journal_0, SET32(es->s_journal_inum, 0))
SB(journal_beyond, SET32(es->s_journal_inum, ALL))
SB(journal_root, SET32(es->s_journal_inum, 2))
SB(journal_file, SET32(es->s_journal_inum, ino_of(im, "medium")))
SB(journal_free, SET32(es->s_journal_inum, 290))
SB(error_fs, SET16(es->s_state, EXT4_ERROR_FS))
SB(csum_type, es->s_checksum_type = 9)
SB(both_csums, SET32(es->s_feature_ro_compat,
		     le32_to_cpu(es->s_feature_ro_compat) | EXT4_RO_COMPAT_GDT_CSUM))

static void sb_csum(struct image *im)
{
	image_sb(im)->s_volume_name[0] ^= 1;
}

static void sb_zero(struct image *im)
{
	memset(image_sb(im), 0, 1024);
}

static void nothing(struct image *im)
{
}

/* ---- group descriptors ---- */

static void gd_zero_all(struct image *im)
{
	memset(image_gd(im, 0), 0, (size_t)im->groups * im->desc_size);
}

static void gd_zero_last(struct image *im)
{
	memset(image_gd(im, im->groups - 1), 0, im->desc_size);
}

static void gd_ones(struct image *im)
{
	memset(image_gd(im, 0), 0xFF, (size_t)im->groups * im->desc_size);
}

static void gd_csum(struct image *im)
{
	image_gd(im, 1)->bg_used_dirs_count_lo.raw ^= 1;
}

static void gd_bitmap_in_table(struct image *im)
{
	SET32(image_gd(im, 1)->bg_block_bitmap_lo, itable(im, 0) + 2);
	image_fix_gd(im, 1);
}

static void gd_bitmaps_same(struct image *im)
{
	image_gd(im, 1)->bg_inode_bitmap_lo = image_gd(im, 1)->bg_block_bitmap_lo;
}

static void gd_table_beyond(struct image *im)
{
	SET32(image_gd(im, 1)->bg_inode_table_lo, im->size / im->bs - 1);
}

static void gd_table_hi(struct image *im)
{
	SET32(image_gd(im, 1)->bg_inode_table_hi, ALL);
}

static void gd_table_over_super(struct image *im)
{
	SET32(image_gd(im, 0)->bg_inode_table_lo, 1);
}

static void gd_counts(struct image *im)
{
	for (u32 g = 0; g < im->groups; g++) {
		SET16(image_gd(im, g)->bg_free_blocks_count_lo, 0xFFFF);
		SET16(image_gd(im, g)->bg_free_inodes_count_lo, 0xFFFF);
		SET16(image_gd(im, g)->bg_used_dirs_count_lo, 0xFFFF);
	}
}

static void gd_unused(struct image *im)
{
	for (u32 g = 0; g < im->groups; g++) {
		SET16(image_gd(im, g)->bg_itable_unused_lo, 0xFFFF);
		SET16(image_gd(im, g)->bg_itable_unused_hi, 0xFFFF);
		image_fix_gd(im, g);
	}
}

static void gd_uninit(struct image *im)
{
	for (u32 g = 0; g < im->groups; g++) {
		SET16(image_gd(im, g)->bg_flags, 7);
		image_fix_gd(im, g);
	}
}

/* ---- bitmaps ---- */

static void bitmap_fill(struct image *im, bool inodes, int with)
{
	unsigned seed = 99;

	for (u32 g = 0; g < im->groups; g++) {
		u8 *b = inodes ? image_inode_bitmap(im, g) : image_block_bitmap(im, g);
		u32 n = (inodes ? im->ipg : im->bpg) / 8;

		for (u32 i = 0; i < n; i++)
			b[i] = (u8)(with < 0 ? rand_r(&seed) : with);
		image_fix_bitmaps(im, g);
	}
}

static void bb_zero(struct image *im)
{
	bitmap_fill(im, false, 0);
}

static void bb_ones(struct image *im)
{
	bitmap_fill(im, false, 0xFF);
}

static void bb_random(struct image *im)
{
	bitmap_fill(im, false, -1);
}

static void bb_csum(struct image *im)
{
	image_block_bitmap(im, 0)[5] ^= 1;
	image_block_bitmap(im, 1)[5] ^= 1;
}

static void ib_zero(struct image *im)
{
	bitmap_fill(im, true, 0);
}

static void ib_ones(struct image *im)
{
	bitmap_fill(im, true, 0xFF);
}

static void ib_random(struct image *im)
{
	bitmap_fill(im, true, -1);
}

/* ---- inodes ---- */

#define INODE(fname, path, stmt)                                               \
	static void in_##fname(struct image *im)                               \
	{                                                                      \
		struct ext4_inode_disk *di = inode_of(im, path);               \
		u32 ino = ino_of(im, path);                                    \
		(void)di;                                                      \
		stmt;                                                          \
		image_fix_inode(im, ino);                                      \
	}

INODE(mode_0, "medium", SET16(di->i_mode, 0))
INODE(mode_all, "medium", SET16(di->i_mode, 0xFFFF))
INODE(mode_dir, "medium", SET16(di->i_mode, S_IFDIR | 0755))
INODE(mode_lnk, "medium", SET16(di->i_mode, S_IFLNK | 0777))
INODE(mode_dir_to_file, "linear", SET16(di->i_mode, S_IFREG | 0644))
INODE(size_all, "medium", SET32(di->i_size_lo, ALL); SET32(di->i_size_high, ALL))
INODE(size_big, "medium", SET32(di->i_size_high, 0x7FFFFFFF))
INODE(size_max, "medium", SET32(di->i_size_lo, ALL); SET32(di->i_size_high, 0x3FF))
INODE(extra_1, "medium", SET16(di->i_extra_isize, 1))
INODE(extra_big, "medium", SET16(di->i_extra_isize, 0xFFFC))
INODE(links_0, "medium", SET16(di->i_links_count, 0))
INODE(links_1, "medium", SET16(di->i_links_count, 1))
INODE(links_max, "medium", SET16(di->i_links_count, 0xFFFF))
INODE(blocks, "medium", SET32(di->i_blocks_lo, ALL))
INODE(blocks_0, "medium", SET32(di->i_blocks_lo, 0))
INODE(acl_beyond, "medium", SET32(di->i_file_acl_lo, ALL))
INODE(acl_super, "medium", SET32(di->i_file_acl_lo, 1))
INODE(acl_table, "medium", SET32(di->i_file_acl_lo, itable(im, 1)))
INODE(acl_data, "medium", SET32(di->i_file_acl_lo, image_map(im, ino, 0)))
INODE(flags_all, "medium", SET32(di->i_flags, ALL))
INODE(inline_data, "medium", SET32(di->i_flags, EXT4_INLINE_DATA_FL))
INODE(no_extents, "medium", SET32(di->i_flags, 0))
INODE(index_on_file, "medium", SET32(di->i_flags, EXT4_EXTENTS_FL | EXT4_INDEX_FL))
INODE(index_on_linear, "linear", SET32(di->i_flags, EXT4_EXTENTS_FL | EXT4_INDEX_FL))
INODE(dtime, "medium", SET32(di->i_dtime, 5))
INODE(dir_links_0, "a/b", SET16(di->i_links_count, 0))
INODE(dir_links_1, "a/b", SET16(di->i_links_count, 1))
INODE(dir_size_0, "linear", SET32(di->i_size_lo, 0))
INODE(dir_size_odd, "linear", SET32(di->i_size_lo, 1500))
INODE(dir_size_big, "linear", SET32(di->i_size_lo, 0x7FFFFC00))
INODE(dir_size_huge, "linear", SET32(di->i_size_high, 0xFFFF))
INODE(dir_hole, "linear", memset(di->i_block + 2, 0, 2))
INODE(dir_unwritten, "linear", di->i_block[17] |= 0x80)
INODE(body_attrs, "xattr", memset((u8 *)di + 160, 0xFF, im->inode_size - 160))
INODE(body_attr_size, "xattr", memset((u8 *)di + 160 + 4 + 8, 0xFF, 4))
INODE(root_mode, ".", SET16(image_inode(im, 2)->i_mode, S_IFREG); ino = 2)
INODE(root_links, ".", SET16(image_inode(im, 2)->i_links_count, 0); ino = 2)
INODE(root_extents, ".", memset(image_inode(im, 2)->i_block, 0, 60); ino = 2)
INODE(root_zero, ".", memset(image_inode(im, 2), 0, im->inode_size); ino = 2)
INODE(csum, "medium", image_fix_inode(im, ino); di->i_gid.raw ^= 1; return)
INODE(indirect_beyond, "indirect", memset(di->i_block + 48, 0xFF, 12))
INODE(indirect_self, "indirect", memcpy(di->i_block + 52, di->i_block + 48, 4);
      memcpy(di->i_block + 56, di->i_block + 48, 4); SET32(di->i_size_lo, 0x40000000))
INODE(indirect_super, "indirect", memset(di->i_block, 0, 4); di->i_block[0] = 1)

static void in_indirect_garbage(struct image *im)
{
	le32 ind;

	memcpy(&ind, inode_of(im, "indirect")->i_block + 48, 4);
	memset(image_block(im, le32_to_cpu(ind)), 0xA7, im->bs);
}

static void in_table_garbage(struct image *im)
{
	unsigned seed = 3;

	/* Not the first block: the root and the journal are there. */
	for (u32 g = 0; g < im->groups; g++)
		for (u32 i = 4 * im->bs; i < 12 * im->bs; i++)
			image_block(im, itable(im, g))[i] = (u8)rand_r(&seed);
}

/* ---- extents ---- */

/* The root in the inode; n.ext[0] is the first entry. */
#define EXTENT(fname, path, stmt)                                              \
	static void ex_##fname(struct image *im)                               \
	{                                                                      \
		u32 ino = ino_of(im, path);                                    \
		struct ext4_inode_disk *di = image_inode(im, ino);             \
		struct ext_node n = image_root(di);                            \
		stmt;                                                          \
		image_fix_inode(im, ino);                                      \
	}

/* The first node below the root of "deep", and its first leaf. */
#define NODE(fname, stmt)                                                      \
	static void ex_##fname(struct image *im)                               \
	{                                                                      \
		u32 ino = ino_of(im, "deep");                                  \
		struct ext_node root = image_root(image_inode(im, ino));       \
		struct ext_node n = image_child(im, &root, 0), c;              \
		if (le16_to_cpu(root.eh->eh_depth) < 2)                        \
			image_die("the deep file is not deep");                \
		c = image_child(im, &n, 0);                                    \
		stmt;                                                          \
		image_fix_inode(im, ino);                                      \
		image_fix_extent_block(im, ino, n.blk);                        \
		image_fix_extent_block(im, ino, c.blk);                        \
	}

EXTENT(magic, "medium", SET16(n.eh->eh_magic, 0))
EXTENT(depth_6, "medium", SET16(n.eh->eh_depth, 6))
EXTENT(depth_1, "medium", SET16(n.eh->eh_depth, 1))
EXTENT(depth_all, "medium", SET16(n.eh->eh_depth, 0xFFFF))
EXTENT(entries, "medium", SET16(n.eh->eh_entries, 5))
EXTENT(entries_all, "medium", SET16(n.eh->eh_entries, 0xFFFF);
       SET16(n.eh->eh_max, 0xFFFF))
EXTENT(max_0, "medium", SET16(n.eh->eh_max, 0))
EXTENT(empty_deep, "deep", SET16(n.eh->eh_entries, 0))
EXTENT(len_0, "medium", SET16(n.ext[0].ee_len, 0))
EXTENT(len_all, "medium", SET16(n.ext[0].ee_len, 32768))
EXTENT(start_beyond, "medium", SET32(n.ext[0].ee_start_lo, ALL))
EXTENT(start_hi, "medium", SET16(n.ext[0].ee_start_hi, 0x7FFF))
EXTENT(start_0, "medium", SET32(n.ext[0].ee_start_lo, 0))
EXTENT(start_table, "medium", SET32(n.ext[0].ee_start_lo, itable(im, 1)))
EXTENT(start_super, "medium", SET32(n.ext[0].ee_start_lo, 1))
EXTENT(start_journal, "medium",
       SET32(n.ext[0].ee_start_lo, image_map(im, EXT4_JOURNAL_INO, 20)))
EXTENT(lblk_wraps, "medium", SET32(n.ext[0].ee_block, ALL))
EXTENT(overlap, "medium", SET16(n.eh->eh_entries, 2); n.ext[1] = n.ext[0])
EXTENT(order, "medium", SET16(n.eh->eh_entries, 2); n.ext[1] = n.ext[0];
       SET32(n.ext[0].ee_block, 5000))
EXTENT(child_beyond, "deep", SET32(n.idx[0].ei_leaf_lo, ALL))
EXTENT(child_super, "deep", SET32(n.idx[0].ei_leaf_lo, 1))
EXTENT(child_table, "deep", SET32(n.idx[0].ei_leaf_lo, itable(im, 0)))
EXTENT(child_dir, "deep", SET32(n.idx[0].ei_leaf_lo, image_map(im, 2, 0)))
EXTENT(child_other, "deep",
       struct ext_node o = image_root(inode_of(im, "frag"));
       n.idx[0].ei_leaf_lo = o.idx[0].ei_leaf_lo)
EXTENT(shared_tree, "deep",
       struct ext_node o = image_root(inode_of(im, "frag"));
       memcpy(o.eh, n.eh, 60))
EXTENT(shared_file, "medium",
       struct ext_node o = image_root(inode_of(im, "victim/f6"));
       memcpy(o.eh, n.eh, 60))
EXTENT(shared_dir, "medium", SET32(n.ext[0].ee_start_lo, image_map(im, 2, 0)))
EXTENT(dir_is_file, "linear", SET32(n.ext[0].ee_start_lo,
				    image_map(im, ino_of(im, "medium"), 0)))
EXTENT(dir_is_node, "linear",
       struct ext_node o = image_root(inode_of(im, "deep"));
       n.ext[0].ee_start_lo = o.idx[0].ei_leaf_lo)
NODE(node_magic, SET16(n.eh->eh_magic, 1))
NODE(node_loop, SET32(n.idx[0].ei_leaf_lo, n.blk))
NODE(node_loop_up, SET32(n.idx[0].ei_leaf_lo, n.blk); SET16(n.eh->eh_depth, 2))
NODE(node_depth, SET16(n.eh->eh_depth, 0))
NODE(node_max, SET16(n.eh->eh_max, 0xFFFF))
NODE(node_entries, SET16(n.eh->eh_entries, 0xFFFF))
NODE(node_empty, SET16(n.eh->eh_entries, 0))
NODE(node_first, SET32(n.idx[0].ei_block, 3))
NODE(node_same_child, n.idx[1].ei_leaf_lo = n.idx[0].ei_leaf_lo)
NODE(leaf_magic, SET16(c.eh->eh_magic, 0))
NODE(leaf_depth, SET16(c.eh->eh_depth, 1))
NODE(leaf_empty, SET16(c.eh->eh_entries, 0))
NODE(leaf_len_0, SET16(c.ext[3].ee_len, 0))
NODE(leaf_overlap, SET16(c.ext[3].ee_len, 4))
NODE(leaf_order, SET32(c.ext[3].ee_block, 0))
NODE(leaf_beyond, SET32(c.ext[3].ee_start_lo, ALL))
NODE(leaf_table, SET32(c.ext[3].ee_start_lo, itable(im, 2)))
NODE(leaf_past_parent, SET32(c.ext[le16_to_cpu(c.eh->eh_entries) - 1].ee_block, 5000))
NODE(leaf_zero, memset(c.eh, 0, im->bs))
NODE(leaf_csum, image_fix_extent_block(im, ino, c.blk); c.ext[3].ee_len.raw ^= 1; return)

/* ---- directories ---- */

static void fix_linear(struct image *im)
{
	u32 ino = ino_of(im, "linear");

	image_fix_dir_block(im, ino, image_map(im, ino, 0), true);
}

/* The fourth entry of the first block of "linear"; b is the block. */
#define ENTRY(fname, stmt)                                                     \
	static void di_##fname(struct image *im)                               \
	{                                                                      \
		u8 *b = file_block(im, "linear", 0);                           \
		struct ext4_dir_entry *de = nth_entry(b, 3);                   \
		(void)de;                                                      \
		stmt;                                                          \
		fix_linear(im);                                                \
	}

ENTRY(rec_len_0, SET16(de->rec_len, 0))
ENTRY(rec_len_4, SET16(de->rec_len, 4))
ENTRY(rec_len_odd, SET16(de->rec_len, le16_to_cpu(de->rec_len) + 1))
ENTRY(rec_len_long, SET16(de->rec_len, im->bs))
ENTRY(rec_len_all, SET16(de->rec_len, 0xFFFF))
ENTRY(rec_len_short, SET16(de->rec_len, 12))
ENTRY(name_len_0, de->name_len = 0)
ENTRY(name_len_255, de->name_len = 255)
ENTRY(name_slash, de->name[3] = '/')
ENTRY(name_nul, de->name[3] = 0)
ENTRY(name_dots, de->name_len = 2; memcpy(de->name, "..", 2))
ENTRY(inode_beyond, SET32(de->inode, ALL))
ENTRY(inode_journal, SET32(de->inode, EXT4_JOURNAL_INO))
ENTRY(inode_bad, SET32(de->inode, 1))
ENTRY(inode_root, SET32(de->inode, 2))
ENTRY(inode_self, SET32(de->inode, ino_of(im, "linear")))
ENTRY(inode_free, SET32(de->inode, 290))
ENTRY(ftype, de->file_type = 2)
ENTRY(ftype_99, de->file_type = 99)
ENTRY(dot_name, nth_entry(b, 0)->name[0] = 'x')
ENTRY(dot_inode, SET32(nth_entry(b, 0)->inode, 2))
ENTRY(dot_long, SET16(nth_entry(b, 0)->rec_len, im->bs))
ENTRY(dotdot_name, nth_entry(b, 1)->name[1] = 'x')
ENTRY(dotdot_self, nth_entry(b, 1)->inode = nth_entry(b, 0)->inode)
ENTRY(dotdot_file, SET32(nth_entry(b, 1)->inode, ino_of(im, "medium")))
ENTRY(dotdot_beyond, SET32(nth_entry(b, 1)->inode, ALL))
ENTRY(dotdot_0, SET32(nth_entry(b, 1)->inode, 0))
ENTRY(zero, memset(b, 0, im->bs))
ENTRY(ones, memset(b, 0xFF, im->bs))
ENTRY(csum, fix_linear(im); de->name[0] ^= 1; return)

static void di_second_block(struct image *im)
{
	memset(file_block(im, "linear", 1), 0x5A, im->bs);
}

/*
 * a/b/c/d/e/f/g/deepest becomes a second name of a. Looking finds nothing
 * wrong; that one of the names is left when a is deleted by the other does:
 * test_loop_removed. (torment(), as the row has it, removes neither.)
 */
static void di_loop(struct image *im)
{
	struct ext4_dir_entry *de = image_entry(im, ino_of(im, "a/b/c/d/e/f/g"), "deepest");

	SET32(de->inode, ino_of(im, "a"));
	de->file_type = EXT4_FT_DIR;
}

static void di_twice(struct image *im)
{
	struct ext4_dir_entry *de = image_entry(im, ino_of(im, "victim"), "sub2");

	SET32(de->inode, ino_of(im, "victim/sub"));
}

static void di_dotdot_below(struct image *im)
{
	struct ext4_dir_entry *de = image_entry(im, ino_of(im, "a/b"), "..");

	SET32(de->inode, ino_of(im, "a/b/c/d"));
}

static void di_root_zero(struct image *im)
{
	memset(image_block(im, image_map(im, 2, 0)), 0, im->bs);
}

/* The index's root (at), its first node (nd). */
#define INDEX(fname, stmt)                                                     \
	static void dx_##fname(struct image *im)                               \
	{                                                                      \
		u32 ino = ino_of(im, "htree");                                 \
		u64 rblk = image_map(im, ino, 0), nblk;                        \
		u8 *rb = image_block(im, rblk), *nb;                           \
		struct ext4_dx_root_info *info = (void *)(rb + 0x18);          \
		struct ext4_dx_entry *at = (void *)(rb + 0x20), *nd;           \
		struct ext4_dx_countlimit *cl = (void *)at, *ncl;              \
		if (info->indirect_levels != 1)                                \
			image_die("the index has not two levels");             \
		nblk = image_map(im, ino, le32_to_cpu(at[0].block));           \
		nb = image_block(im, nblk);                                    \
		nd = (void *)(nb + 8);                                         \
		ncl = (void *)nd;                                              \
		(void)cl; (void)ncl;                                           \
		stmt;                                                          \
		image_fix_dir_block(im, ino, rblk, true);                      \
		image_fix_dir_block(im, ino, nblk, false);                     \
	}

INDEX(limit_0, SET16(cl->limit, 0))
INDEX(limit_all, SET16(cl->limit, 0xFFFF))
INDEX(limit_1, SET16(cl->limit, le16_to_cpu(cl->limit) + 1))
INDEX(count_0, SET16(cl->count, 0))
INDEX(count_all, SET16(cl->count, 0xFFFF))
INDEX(hash_9, info->hash_version = 9)
INDEX(hash_other, info->hash_version ^= 1)
INDEX(info_len, info->info_length = 0)
INDEX(levels_0, info->indirect_levels = 0)
INDEX(levels_2, info->indirect_levels = 2)
INDEX(levels_255, info->indirect_levels = 255)
INDEX(flags, info->unused_flags = 0xFF)
INDEX(block_beyond, SET32(at[0].block, 0x0FFFFFFF))
INDEX(block_root, SET32(at[0].block, 0))
INDEX(block_leaf, at[0].block = nd[0].block)
INDEX(dotdot_len, SET16(nth_entry(rb, 1)->rec_len, 12))
INDEX(node_limit, SET16(ncl->limit, 0xFFFF))
INDEX(node_count_0, SET16(ncl->count, 0))
INDEX(node_count, SET16(ncl->count, 0xFFFF))
INDEX(node_loop, nd[1].block = at[0].block)
INDEX(node_root, SET32(nd[1].block, 0))
INDEX(node_beyond, SET32(nd[1].block, 0x0FFFFFFF))
INDEX(node_same_leaf, nd[2].block = nd[1].block)
INDEX(node_order, nd[2].hash = nd[4].hash)
INDEX(node_zero, memset(nb, 0, im->bs))
INDEX(node_is_leaf, memcpy(nb, image_block(im, image_map(im, ino,
						le32_to_cpu(nd[0].block))), im->bs))
INDEX(leaf_zero, memset(image_block(im, image_map(im, ino, le32_to_cpu(nd[1].block))), 0,
			im->bs))
INDEX(leaf_swap, le32 b = nd[1].block; nd[1].block = nd[3].block; nd[3].block = b)
INDEX(root_csum, image_fix_dir_block(im, ino, rblk, true); at[1].hash.raw ^= 2; return)

/* ---- links, attribute blocks ---- */

INODE(slow_size_0, "slow", SET32(di->i_size_lo, 0))
INODE(slow_size_30, "slow", SET32(di->i_size_lo, 30))
INODE(slow_size_big, "slow", SET32(di->i_size_lo, 5000))
INODE(slow_size_all, "slow", SET32(di->i_size_lo, ALL); SET32(di->i_size_high, ALL))
INODE(slow_hole, "slow", memset(di->i_block + 2, 0, 2))
INODE(fast_size_0, "fast", SET32(di->i_size_lo, 0))
INODE(fast_size_59, "fast", SET32(di->i_size_lo, 59))
INODE(fast_size_60, "fast", SET32(di->i_size_lo, 60))
INODE(fast_size_all, "fast", SET32(di->i_size_lo, ALL))
INODE(fast_blocks, "fast", SET32(di->i_blocks_lo, 2))

static void in_slow_nul(struct image *im)
{
	file_block(im, "slow", 0)[10] = 0;
}

static struct ext4_xattr_header *attr_block(const struct image *im)
{
	u32 acl = le32_to_cpu(inode_of(im, "bigxattr")->i_file_acl_lo);

	if (!acl)
		image_die("the big attribute has no block");
	return (void *)image_block(im, acl);
}

#define ATTR(fname, stmt)                                                      \
	static void xa_##fname(struct image *im)                               \
	{                                                                      \
		struct ext4_xattr_header *xh = attr_block(im);                 \
		stmt;                                                          \
		image_fix_xattr_block(im, le32_to_cpu(                         \
				inode_of(im, "bigxattr")->i_file_acl_lo));     \
	}

ATTR(magic, SET32(xh->h_magic, 0))
ATTR(refs_0, SET32(xh->h_refcount, 0))
ATTR(refs_2, SET32(xh->h_refcount, 2))
ATTR(refs_all, SET32(xh->h_refcount, ALL))
ATTR(blocks, SET32(xh->h_blocks, 9))
ATTR(entry, memset(xh + 1, 0xFF, 16))

/* ---- journal ---- */

static struct jbd2_superblock *jsb_of(const struct image *im)
{
	return (void *)image_journal(im, 0);
}

#define SETB(field, v) ((field) = cpu_to_be32(v))
#define JSB(fname, stmt)                                                       \
	static void js_##fname(struct image *im)                               \
	{                                                                      \
		struct jbd2_superblock *js = jsb_of(im);                       \
		stmt;                                                          \
	}

JSB(magic, SETB(js->s_header.h_magic, 0))
JSB(type, SETB(js->s_header.h_blocktype, 9))
JSB(zero, memset(js, 0, 1024))
JSB(blocksize, SETB(js->s_blocksize, 4096))
JSB(blocksize_0, SETB(js->s_blocksize, 0))
JSB(maxlen_0, SETB(js->s_maxlen, 0))
JSB(maxlen_all, SETB(js->s_maxlen, ALL))
JSB(maxlen_few, SETB(js->s_maxlen, 10))
JSB(first_0, SETB(js->s_first, 0))
JSB(first_all, SETB(js->s_first, ALL))
JSB(first_end, js->s_first = js->s_maxlen)
JSB(start_all, SETB(js->s_start, ALL))
JSB(start_end, js->s_start = js->s_maxlen)
JSB(start_set, SETB(js->s_start, 1))
JSB(sequence, SETB(js->s_sequence, ALL))
JSB(error, SETB(js->s_errno, (u32)-5))
JSB(incompat, SETB(js->s_feature_incompat, 0x1000))
JSB(ro_compat, SETB(js->s_feature_ro_compat, ALL))
JSB(csum_type, js->s_checksum_type = 77; SETB(js->s_feature_incompat, 0x12))
JSB(csum_both, SETB(js->s_feature_incompat, 0x1A))
JSB(fast_commit, SETB(js->s_feature_incompat, 0x20); SETB(js->s_num_fc_blks, ALL))
JSB(users, SETB(js->s_nr_users, ALL))
JSB(csum, js->s_padding[3] ^= 1)

static struct ext4_inode_disk *journal_inode(const struct image *im)
{
	return image_inode(im, EXT4_JOURNAL_INO);
}

static void ji_mode(struct image *im)
{
	SET16(journal_inode(im)->i_mode, S_IFDIR);
}

static void ji_zero(struct image *im)
{
	memset(journal_inode(im), 0, im->inode_size);
}

static void ji_short(struct image *im)
{
	SET32(journal_inode(im)->i_size_lo, 5 * im->bs);
}

static void ji_long(struct image *im)
{
	SET32(journal_inode(im)->i_size_lo, 8 << 20);
}

static void ji_table(struct image *im)
{
	struct ext_node n = image_root(journal_inode(im));

	SET32(n.ext[0].ee_start_lo, itable(im, 0));
}

static void ji_hole(struct image *im)
{
	struct ext_node n = image_root(journal_inode(im));

	SET32(n.ext[0].ee_block, 3);
}

/* Is on another file too: fine for the log, which is a system zone then. */
static void ji_shared(struct image *im)
{
	memcpy(inode_of(im, "medium")->i_block, journal_inode(im)->i_block, 60);
}

static void needs_recovery(struct image *im)
{
	struct ext4_super_block *es = image_sb(im);

	SET32(es->s_feature_incompat,
	      le32_to_cpu(es->s_feature_incompat) | EXT4_INCOMPAT_RECOVER);
	image_fix_sb(im);
}

static void recover_empty(struct image *im)
{
	needs_recovery(im);
}

static void recover_no_journal(struct image *im)
{
	struct ext4_super_block *es = image_sb(im);

	SET32(es->s_feature_compat,
	      le32_to_cpu(es->s_feature_compat) & ~(u32)EXT4_COMPAT_HAS_JOURNAL);
	needs_recovery(im);
}

static void recover_garbage(struct image *im)
{
	needs_recovery(im);
	memset(jsb_of(im), 0xC3, im->bs);
}

static void not_flagged(struct image *im)
{
	struct ext4_super_block *es = image_sb(im);

	SET32(es->s_feature_incompat,
	      le32_to_cpu(es->s_feature_incompat) & ~(u32)EXT4_INCOMPAT_RECOVER);
	image_fix_sb(im);
}

/* ---- logs to be replayed ---- */

/* The nth block of this type from the log's start on. */
static u8 *log_find(const struct image *im, u32 type, u32 n)
{
	u32 start = be32_to_cpu(jsb_of(im)->s_start);
	u32 max = be32_to_cpu(jsb_of(im)->s_maxlen);

	for (u32 i = start; i < max; i++) {
		struct jbd2_header *h = (void *)image_journal(im, i);

		if (be32_to_cpu(h->h_magic) == JBD2_MAGIC &&
		    be32_to_cpu(h->h_blocktype) == type && !n--)
			return (void *)h;
	}
	return NULL;
}

static u8 *log_must_find(const struct image *im, u32 type)
{
	u8 *b = log_find(im, type, 0);

	if (!b)
		image_die("the log has no such block");
	return b;
}

/* First tag of the first descriptor: be32 block after the header. */
#define LOG(fname, type, stmt)                                                 \
	static void lg_##fname(struct image *im)                               \
	{                                                                      \
		u8 *b = log_must_find(im, type);                               \
		be32 *w = (void *)b;                                           \
		(void)w;                                                       \
		stmt;                                                          \
	}

LOG(tag_beyond, JBD2_DESCRIPTOR, SETB(w[3], 0x00FFFFFF))
LOG(tag_all, JBD2_DESCRIPTOR, SETB(w[3], ALL))
LOG(tag_0, JBD2_DESCRIPTOR, SETB(w[3], 0))
LOG(tag_journal, JBD2_DESCRIPTOR,
    SETB(w[3], (u32)image_map(im, EXT4_JOURNAL_INO, 0)))
LOG(tag_log, JBD2_DESCRIPTOR,
    SETB(w[3], (u32)image_map(im, EXT4_JOURNAL_INO, 9)))
LOG(tag_super, JBD2_DESCRIPTOR, SETB(w[3], 1))
LOG(tag_table, JBD2_DESCRIPTOR, SETB(w[3], itable(im, 0)))
LOG(tags_zero, JBD2_DESCRIPTOR, memset(b + 12, 0, im->bs - 12))
LOG(tags_ones, JBD2_DESCRIPTOR, memset(b + 12, 0xFF, im->bs - 12))
LOG(tags_no_last, JBD2_DESCRIPTOR,
    for (u32 i = 12; i + 1 < im->bs; i += 2) b[i + 1] |= 2)
LOG(sequence, JBD2_DESCRIPTOR, SETB(w[2], 0))
LOG(type, JBD2_DESCRIPTOR, SETB(w[1], 77))
LOG(commit_gone, JBD2_COMMIT, memset(b, 0, im->bs))
LOG(commit_ones, JBD2_COMMIT, memset(b + 12, 0xFF, im->bs - 12))
LOG(commit_early, JBD2_DESCRIPTOR, SETB(w[1], JBD2_COMMIT))

/* The log's first transaction consists of a revoke block of `bytes`. */
static void log_revoke(struct image *im, u32 bytes)
{
	u32 start = be32_to_cpu(jsb_of(im)->s_start);
	be32 *w = (void *)image_journal(im, start);
	u8 commit[4096];

	memcpy(commit, log_must_find(im, JBD2_COMMIT), im->bs);
	memcpy(image_journal(im, start + 1), commit, im->bs);
	SETB(w[1], JBD2_REVOKE);
	SETB(w[3], bytes);
	for (u32 i = 4; i < im->bs / 4; i++)
		SETB(w[i], i * 7919);
}

static void lg_revoke_huge(struct image *im)
{
	log_revoke(im, 0x7FFFFFFF);
}

static void lg_revoke_short(struct image *im)
{
	log_revoke(im, 3);
}

static void lg_revoke_past(struct image *im)
{
	log_revoke(im, im->bs + 4);
}

static void lg_revoke_full(struct image *im)
{
	log_revoke(im, im->bs);
}

static void lg_garbage(struct image *im)
{
	unsigned seed = 5;
	u32 start = be32_to_cpu(jsb_of(im)->s_start);

	for (u32 i = start; i < start + 30; i++)
		for (u32 k = 0; k < im->bs; k++)
			image_journal(im, i)[k] = (u8)rand_r(&seed);
}

/* The log holds nothing but its first descriptor, over and over. */
static void lg_descriptors(struct image *im)
{
	u8 *b = log_must_find(im, JBD2_DESCRIPTOR);
	u32 max = be32_to_cpu(jsb_of(im)->s_maxlen);

	for (u32 i = 1; i < max; i++)
		if (image_journal(im, i) != b)
			memcpy(image_journal(im, i), b, im->bs);
}

/* One transaction's number after the other, all around: no end. */
static void lg_commits(struct image *im)
{
	u8 *b = log_must_find(im, JBD2_COMMIT);
	u32 start = be32_to_cpu(jsb_of(im)->s_start);
	u32 max = be32_to_cpu(jsb_of(im)->s_maxlen), seq;
	u32 first = be32_to_cpu(jsb_of(im)->s_first);
	u8 copy[4096];

	memcpy(copy, b, im->bs);
	seq = be32_to_cpu(jsb_of(im)->s_sequence);
	for (u32 n = 0; n < max - first; n++) {
		be32 s = cpu_to_be32(seq + n);
		u8 *to = image_journal(im, first + (start - first + n) % (max - first));

		memcpy(to, copy, im->bs);
		memcpy(to + 8, &s, 4);
	}
}

/* The log's first image: of the first transaction, with a later one behind it. */
static void lg_image(struct image *im)
{
	log_must_find(im, JBD2_DESCRIPTOR)[im->bs + 100] ^= 1;
}

static void lg_desc_csum(struct image *im)
{
	log_must_find(im, JBD2_DESCRIPTOR)[20] ^= 1;
}

static void lg_commit_csum(struct image *im)
{
	log_must_find(im, JBD2_COMMIT)[0x11] ^= 1;
}

/* ---- orphans ---- */

#define ORPHAN(fname, nr)                                                      \
	static void or_##fname(struct image *im)                               \
	{                                                                      \
		SET32(image_sb(im)->s_last_orphan, nr);                        \
		image_fix_sb(im);                                              \
	}

ORPHAN(root, 2)
ORPHAN(journal, 8)
ORPHAN(beyond, ALL)
ORPHAN(free_inode, 290)
ORPHAN(linked, ino_of(im, "medium"))
ORPHAN(dir, ino_of(im, "a"))
ORPHAN(orphan_file, le32_to_cpu(image_sb(im)->s_orphan_file_inum))

static void or_loop(struct image *im)
{
	struct ext4_inode_disk *a = inode_of(im, "victim/f5"), *b = inode_of(im, "victim/f6");
	u32 ia = ino_of(im, "victim/f5"), ib = ino_of(im, "victim/f6");

	SET32(a->i_dtime, ib);
	SET32(b->i_dtime, ia);
	SET32(image_sb(im)->s_last_orphan, ia);
}

static void or_loop_deleted(struct image *im)
{
	SET16(inode_of(im, "victim/f5")->i_links_count, 0);
	SET16(inode_of(im, "victim/f6")->i_links_count, 0);
	or_loop(im);
}

static void or_self(struct image *im)
{
	u32 ino = ino_of(im, "victim/f5");

	SET32(image_inode(im, ino)->i_dtime, ino);
	SET32(image_sb(im)->s_last_orphan, ino);
}

static le32 *orphan_block(const struct image *im, u32 lblk)
{
	u32 ino = le32_to_cpu(image_sb(im)->s_orphan_file_inum);

	return (void *)image_block(im, image_map(im, ino, lblk));
}

static void of_magic(struct image *im)
{
	memset(orphan_block(im, 0), 0, im->bs);
}

static void of_garbage(struct image *im)
{
	memset(orphan_block(im, 0), 0x77, im->bs - 8);
}

static void of_root(struct image *im)
{
	SET32(orphan_block(im, 0)[0], 2);
	SET32(orphan_block(im, 0)[1], 8);
}

static void of_twice(struct image *im)
{
	SET16(inode_of(im, "victim/f5")->i_links_count, 0);
	SET32(orphan_block(im, 0)[3], ino_of(im, "victim/f5"));
	SET32(orphan_block(im, 1)[4], ino_of(im, "victim/f5"));
}

/* A name still leads to the inode that is deleted at mount. */
static void of_named(struct image *im)
{
	SET16(inode_of(im, "victim/f5")->i_links_count, 0);
	SET32(orphan_block(im, 0)[3], ino_of(im, "victim/f5"));
}

static void of_inode(struct image *im)
{
	memset(image_inode(im, le32_to_cpu(image_sb(im)->s_orphan_file_inum)), 0,
	       im->inode_size);
}

static void of_inum(struct image *im)
{
	SET32(image_sb(im)->s_orphan_file_inum, ALL);
}

static void of_inum_dir(struct image *im)
{
	SET32(image_sb(im)->s_orphan_file_inum, 2);
}

static void of_inum_file(struct image *im)
{
	SET32(image_sb(im)->s_orphan_file_inum, ino_of(im, "medium"));
}

static void of_hole(struct image *im)
{
	struct ext_node n = image_root(image_inode(
		im, le32_to_cpu(image_sb(im)->s_orphan_file_inum)));

	SET16(n.eh->eh_entries, 0);
}

#include "tests/unit/fs/hostile_table.h"

/* ---- running a row ---- */

static void mark_zones(const struct image *im)
{
	u32 itable_blocks = im->ipg * im->inode_size / im->bs;

	fx.zones = calloc(1, im->size / im->bs);
	for (u32 b = 0; b <= im->first_block + 1; b++)
		fx.zones[b] = 1;
	for (u32 g = 0; g < im->groups; g++) {
		const struct ext4_group_desc *gd = image_gd(im, g);

		fx.zones[le32_to_cpu(gd->bg_block_bitmap_lo)] = 1;
		fx.zones[le32_to_cpu(gd->bg_inode_bitmap_lo)] = 1;
		memset(fx.zones + itable(im, g), 1, itable_blocks);
	}
	for (u32 i = 0; i < be32_to_cpu(jsb_of(im)->s_maxlen); i++)
		fx.zones[image_map(im, EXT4_JOURNAL_INO, i)] = 1;
}

/* File data lies in no block that was metadata. */
static bool zones_intact(const struct image *im)
{
	bool intact = true;

	image_ignore_begin();
	for (u64 b = 0; b < im->size / im->bs && intact; b++)
		if (fx.zones[b] && memmem(image_block(im, b), im->bs, TORMENT_DATA TORMENT_DATA,
					  2 * strlen(TORMENT_DATA))) {
			fprintf(stderr, "file data in metadata block %llu\n",
				(unsigned long long)b);
			intact = false;
		}
	image_ignore_end();
	return intact;
}

static bool has_error_flag(const struct image *im)
{
	const struct ext4_super_block *es = image_sb(im);

	return le16_to_cpu(es->s_state) & EXT4_ERROR_FS;
}

static bool log_is_empty(void)
{
	struct stat st;

	return stat(fx.w.log, &st) || !st.st_size;
}

static bool mount_verdict_ok(const struct damage *d, const struct torment_report *r)
{
	if (d->verdict != REFUSED)
		return !r->mount_err || d->verdict == SURVIVES;
	if (r->mount_err != (d->err ? d->err : -EFSCORRUPTED))
		return false;
	return !log_is_empty();
}

/* Empty: as expected. */
static const char *judge(const struct damage *d, const struct torment *t,
			 const struct torment_report *r)
{
	bool known = d->fn == sb_error_fs;

	if (!mount_verdict_ok(d, r))
		return "the mount ended otherwise than expected";
	if (r->mount_err)
		return NULL;
	if (!zones_intact(&fx.im) && d->base == PLAIN)
		return "file data over metadata";
	if (d->verdict == REPORTED && !r->corrupt)
		return "no call reported the damage";
	if (d->verdict == HARMLESS && r->corrupt)
		return "damage was reported";
	if (!t->readonly && r->corrupt && !has_error_flag(&fx.im))
		return "the superblock does not say that there was an error";
	if (!r->corrupt && !r->eio && !known && !t->readonly &&
	    d->base < PLAIN_LOG && has_error_flag(&fx.im) && d->verdict == HARMLESS)
		return "the superblock says there was an error";
	return NULL;
}

static int run_row(const struct damage *d, const struct torment *t, const char *how)
{
	struct torment_report r;
	const char *why;

	image_copy(&fx.im, &fx.base[d->base]);
	d->fn(&fx.im);
	if (torment(t, &fx.im, fx.w.log, &r)) {
		fprintf(stderr, "FAILED: %s, %s\n", d->name, how);
		return 1;
	}
	if (getenv("HOSTILE_TABLE"))
		printf("%-24s %-8s mount %4d corrupt %4u eio %3u erofs %4u nospc %3u flag %d\n",
		       d->name, how, r.mount_err, r.corrupt, r.eio, r.erofs, r.nospc,
		       has_error_flag(&fx.im));
	why = judge(d, t, &r);
	if (!why)
		return 0;
	torment_print_log(fx.w.log);
	fprintf(stderr, "FAILED: %s, %s: %s (mount %d, %u corrupt)\n", d->name, how, why,
		r.mount_err, r.corrupt);
	return 1;
}

static void run_table(const struct damage *d, size_t n)
{
	int failed = 0;

	for (size_t i = 0; i < n; i++) {
		struct torment rw = { .errors = SL_ERRORS_CONTINUE, .seed = 1,
				      .device_bytes = d[i].device };
		struct torment ro = { .readonly = true, .seed = 2,
				      .device_bytes = d[i].device };
		struct torment stop = { .errors = SL_ERRORS_RO, .seed = 3,
					.device_bytes = d[i].device };

		struct damage any = d[i];

		failed += run_row(&d[i], &rw, "rw");
		/* Has the same threads or none: not worth the time there. */
		if (TORMENT_TSAN)
			continue;
		/* What is refused may be readable all the same. */
		if (any.verdict == REFUSED)
			any.verdict = SURVIVES;
		failed += i % 2 ? run_row(&any, &ro, "ro") : run_row(&any, &stop, "stop");
	}
	assert_int_equal(failed, 0);
}

#define TABLE_TEST(name)                                                       \
	static void test_##name(void **state)                                  \
	{                                                                      \
		run_table(name##_rows, ARRAY_SIZE(name##_rows));               \
	}

TABLE_TEST(superblock)
TABLE_TEST(group)
TABLE_TEST(bitmap)
TABLE_TEST(inode)
TABLE_TEST(extent)
TABLE_TEST(directory)
TABLE_TEST(index)
TABLE_TEST(link_and_attr)
TABLE_TEST(journal)
TABLE_TEST(log)
TABLE_TEST(orphan)

/* ---- a directory with two names, one of them below itself ---- */

static struct inode *look_up(struct inode *dir, const char *name)
{
	struct inode *inode;

	MUST(sl_lookup(dir, name, strlen(name), &inode));
	return inode;
}

/* Empties a, removes it by its name in g, and looks for it in the root. */
static void remove_by_second_name(struct super_block *sb, struct torment_report *r)
{
	static const char *const below[] = { "c", "d", "e", "f", "g" };
	struct inode *root, *dir, *next, *inode;

	MUST(sl_iget(sb, 2, &root));
	dir = look_up(root, "a");
	MUST(sl_rename(dir, "b", 1, root, "b", 1, 0));
	sl_iput(dir);
	dir = look_up(root, "b");
	for (u32 i = 0; i < ARRAY_SIZE(below); i++) {
		next = look_up(dir, below[i]);
		sl_iput(dir);
		dir = next;
	}
	MUST(sl_rmdir(dir, "deepest", 7));
	sl_iput(dir);
	torment_note(r, sl_lookup(root, "a", 1, &inode));
	sl_iput(root);
}

static void test_loop_removed(void **state)
{
	struct torment t = { .errors = SL_ERRORS_CONTINUE, .fn = remove_by_second_name };
	struct torment_report r;

	image_copy(&fx.im, &fx.base[PLAIN]);
	di_loop(&fx.im);
	assert_int_equal(torment(&t, &fx.im, fx.w.log, &r), 0);
	assert_int_equal(r.mount_err, 0);
	assert_int_equal(r.corrupt, 1);
	assert_true(has_error_flag(&fx.im));
}

/* ---- the errors= policy ---- */

static int try_create(struct super_block *sb, const char *name)
{
	struct inode *root, *inode;
	int err = sl_iget(sb, 2, &root);

	if (err)
		return err;
	err = sl_mknod(root, name, strlen(name), S_IFREG | 0644, 0, &torment_cred, &inode);
	if (!err)
		sl_iput(inode);
	sl_iput(root);
	return err;
}

/* Creates, meets the damage in "linear", creates again: results in r. */
static void meet_damage(struct super_block *sb, struct torment_report *r)
{
	struct inode *root, *dir, *inode;
	int err;

	MUST(try_create(sb, "before"));
	MUST(sl_sync(sb));
	MUST(sl_iget(sb, 2, &root));
	MUST(sl_lookup(root, "linear", 6, &dir));
	err = sl_lookup(dir, "not there", 9, &inode);
	r->corrupt = err == -EFSCORRUPTED;
	err = try_create(sb, "after");
	r->erofs = err == -EROFS;
	if (err && err != -EROFS)
		torment_complain(r, "create: %s", strerror(-err));
	sl_iput(dir);
	sl_iput(root);
}

static int error_fields(const char *image, const char *what)
{
	char cmd[512];

	snprintf(cmd, sizeof(cmd), "dumpe2fs -h '%s' 2>/dev/null | grep -q '%s'", image, what);
	return system(cmd);
}

static void policy(enum sl_errors errors, bool stops)
{
	struct torment t = { .errors = errors, .fn = meet_damage };
	struct torment_report r;

	image_copy(&fx.im, &fx.base[PLAIN]);
	di_rec_len_0(&fx.im);
	assert_int_equal(torment(&t, &fx.im, fx.w.log, &r), 0);
	assert_int_equal(r.mount_err, 0);
	assert_true(r.corrupt);
	assert_int_equal(r.erofs > 0, stops);
	assert_int_equal(r.readonly, stops);
	image_store(&fx.im, fx.w.image);
	assert_int_equal(error_fields(fx.w.image, "Filesystem state:.*with errors"), 0);
	assert_int_equal(error_fields(fx.w.image, "FS Error count: *1"), 0);
	assert_int_equal(error_fields(fx.w.image, "First error inode #: *[1-9]"), 0);
	/* What was durable before it is there; what came after as the policy says. */
	template_sh("e2fsck -y -E journal_only '%s' >/dev/null 2>&1 || true", fx.w.image);
	image_free(&fx.im);
	image_load(&fx.im, fx.w.image);
	assert_true(image_entry(&fx.im, 2, "before"));
	assert_int_equal(image_entry(&fx.im, 2, "after") == NULL, stops);
}

static void test_policy_remount_ro(void **state)
{
	policy(SL_ERRORS_RO, true);
}

static void test_policy_continue(void **state)
{
	policy(SL_ERRORS_CONTINUE, false);
}

/* The superblock's own policy counts when no option is given. */
static void test_policy_of_superblock(void **state)
{
	SET16(image_sb(&fx.base[PLAIN])->s_errors, EXT4_ERRORS_RO);
	policy(SL_ERRORS_DEFAULT, true);
	SET16(image_sb(&fx.base[PLAIN])->s_errors, EXT4_ERRORS_CONTINUE);
	policy(SL_ERRORS_DEFAULT, false);
}

static void policy_panic_child(void *arg)
{
	struct sl_options opts = { .errors = SL_ERRORS_PANIC, .cache_bytes = 16 << 20 };
	struct torment_report r = { 0 };
	struct super_block *sb;

	log_init("hostile", LOG_LVL_ERR);
	thread_register();
	MUST(sl_mount(mem_bdev_create(&fx.im, fx.im.size), &opts, &sb));
	meet_damage(sb, &r);
}

static void test_policy_panic(void **state)
{
	int status;
	pid_t pid;

	image_copy(&fx.im, &fx.base[PLAIN]);
	di_rec_len_0(&fx.im);
	pid = fork();
	if (!pid) {
		int fd = open("/dev/null", O_WRONLY);

		dup2(fd, 2);
		policy_panic_child(NULL);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 70);
	assert_true(has_error_flag(&fx.im));
}

/* ---- templates ---- */

/* Changes that stay in the log, one transaction after the other. */
static void leave_log(struct super_block *sb, struct torment_report *r)
{
	struct inode *root, *dir;
	char name[32];

	MUST(sl_iget(sb, 2, &root));
	MUST(sl_lookup(root, "victim", 6, &dir));
	MUST(sl_rmdir(dir, "sub2", 4));
	MUST(sl_sync(sb));
	for (int i = 0; i < 12; i++) {
		snprintf(name, sizeof(name), "late-%d", i);
		sl_iput(template_file(dir, name));
		MUST(sl_sync(sb));
	}
}

static void make_log(struct image *from, struct image *to)
{
	struct torment t = { .fn = leave_log, .crash = true };
	struct torment_report r;

	image_alloc(to, from->size);
	image_copy(to, from);
	if (torment(&t, to, fx.w.log, &r))
		image_die("no log was left");
	if (!be32_to_cpu(jsb_of(to)->s_start))
		image_die("the log is empty");
}

static int setup(void **state)
{
	workdir_make(&fx.w);
	template_make(&fx.w, "-b 1024 -g 2048 -N 1200 -O ^metadata_csum,orphan_file", "12M",
		      &fx.base[PLAIN]);
	template_make(&fx.w, "-b 1024 -g 2048 -N 1200 -O orphan_file,metadata_csum_seed",
		      "12M", &fx.base[CSUM]);
	make_log(&fx.base[PLAIN], &fx.base[PLAIN_LOG]);
	make_log(&fx.base[CSUM], &fx.base[CSUM_LOG]);
	image_alloc(&fx.im, fx.base[PLAIN].size);
	mark_zones(&fx.base[PLAIN]);
	return 0;
}

static int teardown(void **state)
{
	for (int i = 0; i < NR_BASES; i++)
		image_free(&fx.base[i]);
	image_free(&fx.im);
	free(fx.zones);
	workdir_remove(&fx.w);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_superblock),
		cmocka_unit_test(test_group),
		cmocka_unit_test(test_bitmap),
		cmocka_unit_test(test_inode),
		cmocka_unit_test(test_extent),
		cmocka_unit_test(test_directory),
		cmocka_unit_test(test_index),
		cmocka_unit_test(test_link_and_attr),
		cmocka_unit_test(test_journal),
		cmocka_unit_test(test_log),
		cmocka_unit_test(test_orphan),
		cmocka_unit_test(test_loop_removed),
		cmocka_unit_test(test_policy_remount_ro),
		cmocka_unit_test(test_policy_continue),
		cmocka_unit_test(test_policy_of_superblock),
		cmocka_unit_test(test_policy_panic),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
