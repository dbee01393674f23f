/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/extents_check.c - extent tree nodes: what is believed of the disk
 *
 * A node is checked in two parts. What can be said of the block alone
 * (magic, counts, order, lengths, block numbers, checksum) is the buffer
 * type's verify(), once per read. What depends on its place in the tree
 * (depth, first key, bound) is ext_check_child(), at each descent: it costs
 * three comparisons, and it is what makes loops impossible, since the depth
 * falls by one at each step, whatever a hostile image says.
 * The checksum is put in when the journal takes its image (freeze).
 *
 * Locks:  none taken; i_data_sem held where a tree is looked at
 * Never:  an assertion on anything that came from the disk
 * Source: ext4-format brief sections 3 and 6
 */
#include "fs/extents_internal.h"
#include "lib/crc.h"

/* An index or leaf that an older tool made may lack up to two slots of the
 * full number (room that e2fsprogs allows for). */
#define EXT_MAX_SLOP 2u

/* NULL if sound, else what is wrong. */
static const char *leaf_fault(const struct ext4_sb *sbi,
			      const struct ext4_extent_header *eh)
{
	u64 next = 0;

	for (u32 i = 0; i < eh_entries(eh); i++) {
		struct ext e = ext_get(eh, i);

		if (e.len == 0)
			return "empty extent";
		if (e.lblk < next)
			return "extents overlap or are out of order";
		if (ext_end(&e) > EXT_LBLK_END)
			return "extent ends beyond the last block";
		if (!ext4_block_range_ok(sbi, e.pblk, e.len))
			return "extent outside the volume or on metadata";
		next = ext_end(&e);
	}
	return NULL;
}

static const char *index_fault(const struct ext4_sb *sbi,
			       const struct ext4_extent_header *eh)
{
	u64 next = 0;

	for (u32 i = 0; i < eh_entries(eh); i++) {
		if (ext_key(eh, i) < next)
			return "index out of order";
		if (ext_key(eh, i) > LBLK_MAX)
			return "index beyond the last block";
		if (!ext4_block_range_ok(sbi, ext_idx_pblk(ext_idx(eh, i)), 1))
			return "index to outside the volume or to metadata";
		next = (u64)ext_key(eh, i) + 1;
	}
	return NULL;
}

/* min_max, max_max: the bounds of eh_max. */
static const char *header_fault(const struct ext4_extent_header *eh, u32 min_max,
				u32 max_max)
{
	if (le16_to_cpu(eh->eh_magic) != EXT4_EXT_MAGIC)
		return "no extent header";
	if (eh_max(eh) < min_max || eh_max(eh) > max_max)
		return "wrong capacity";
	if (eh_entries(eh) > eh_max(eh))
		return "more entries than capacity";
	return NULL;
}

static const char *entries_fault(const struct ext4_sb *sbi,
				 const struct ext4_extent_header *eh)
{
	return eh_depth(eh) ? index_fault(sbi, eh) : leaf_fault(sbi, eh);
}

static le32 *node_tail(const struct ext4_extent_header *eh)
{
	struct ext4_extent_tail *t =
		(struct ext4_extent_tail *)(void *)ext_leaf(eh, eh_max(eh));

	return &t->et_checksum;
}

static u32 node_csum(const struct ext4_extent_header *eh, u32 seed)
{
	return crc32c(seed, eh, sizeof(*eh) + eh_max(eh) * EXT_ENTRY_BYTES);
}

static int extent_block_verify(struct super_block *sb, const struct buffer *b,
			       const void *data, u32 seed)
{
	const struct ext4_sb *sbi = EXT4_SB(sb);
	const struct ext4_extent_header *eh = data;
	u32 max = ext_block_max(sb);

	if (ext_block_claimed(b, &ext4_extent_block_type, seed))
		return -EFSCORRUPTED;
	if (header_fault(eh, max - EXT_MAX_SLOP, max))
		return -EFSCORRUPTED;
	if (sbi->has_csum && le32_to_cpu(*node_tail(eh)) != node_csum(eh, seed))
		return -EFSBADCRC;
	/* Only the root may be empty, and only it may have the full depth. */
	if (eh_entries(eh) == 0 || eh_depth(eh) >= EXT4_EXT_MAX_DEPTH)
		return -EFSCORRUPTED;
	return entries_fault(sbi, eh) ? -EFSCORRUPTED : 0;
}

static void extent_block_freeze(struct super_block *sb, pblk_t blk, void *data, u32 seed)
{
	const struct ext4_extent_header *eh = data;

	/* Our own nodes and verified ones have a sound eh_max. */
	assert(eh_max(eh) <= ext_block_max(sb));
	if (EXT4_SB(sb)->has_csum)
		*node_tail(eh) = cpu_to_le32(node_csum(eh, seed));
}

const struct buffer_type ext4_extent_block_type = {
	.name = "extent tree",
	.verify = extent_block_verify,
	.freeze = extent_block_freeze,
};

int ext4_ext_check_root(struct ext4_inode *ei)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	const struct ext4_extent_header *eh = ext_root(ei);
	u32 max = (EXT4_I_BLOCK_BYTES - (u32)sizeof(*eh)) / EXT_ENTRY_BYTES;
	const char *fault = header_fault(eh, max - EXT_MAX_SLOP, max);

	if (!fault && eh_depth(eh) > EXT4_EXT_MAX_DEPTH)
		fault = "tree too deep";
	if (!fault && eh_depth(eh) && eh_entries(eh) == 0)
		fault = "empty index";
	if (!fault)
		fault = entries_fault(sbi, eh);
	if (!fault)
		return 0;
	return ext4_error(sbi, ei->vfs.i_ino, 0, -EFSCORRUPTED,
			  "extent root: %s (magic %#x, depth %u, %u entries of %u)",
			  fault, le16_to_cpu(eh->eh_magic), eh_depth(eh), eh_entries(eh),
			  eh_max(eh));
}

int ext_check_child(const struct ext_path *p, u32 level, const struct buffer *b,
		    lblk_t key)
{
	const struct ext4_extent_header *eh = ext_buffer_header(b);
	u32 last = eh_entries(eh) - 1;
	u64 bound = p->n[level].bound;
	const char *fault = NULL;
	u64 end;

	if (eh_depth(eh) != p->depth - level)
		fault = "wrong depth";
	else if (ext_key(eh, 0) != key)
		fault = "first key differs from the index";
	if (!fault) {
		struct ext e = ext_get(eh, last);

		end = eh_depth(eh) ? (u64)ext_key(eh, last) + 1 : ext_end(&e);
		if (end > bound)
			fault = "reaches into its neighbour";
	}
	if (!fault)
		return 0;
	return ext4_error(ext4_sb_of(p->ei), p->ei->vfs.i_ino, b->b_blocknr,
			  -EFSCORRUPTED,
			  "extent block: %s (depth %u of %u at level %u, key %u, index %u)",
			  fault, eh_depth(eh), p->depth, level, ext_key(eh, 0), key);
}
