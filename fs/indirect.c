/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/indirect.c - the block maps of ext2 and ext3: lookup and removal
 *
 * i_block holds 12 block numbers of data, then one each of a single, a double
 * and a triple indirect block (trees of 1, 2 and 3 levels of blocks full of
 * le32 numbers). Number 0 is a hole, at any level. Files of this kind are
 * made where the volume has no extents, or were made by ext2 and ext3.
 *
 * The trees of a hostile image may be anything, a block that points to itself
 * included. Nothing here goes deeper than three levels, every number is
 * checked against the volume when its block is read, and a lookup reads one
 * block per level. A removal that comes to a block twice ends at the second
 * attempt to free it, which the allocator reports.
 *
 * Removal goes from the end backwards, clearing entries in runs. An indirect
 * block is freed when it has no entry left, so at each restart of the handle
 * the map is valid and i_blocks right. The recursion keeps its buffers over
 * restarts: with i_rwsem held exclusively by the caller nobody else removes
 * anything. Write-out may meanwhile enter blocks outside the range, into indirect
 * blocks that were made before for the data on its way (indirect_write.c): such a
 * one stays, though it is empty (ind_wanted()). None comes to be wanted while
 * i_rwsem is held.
 *
 * Locks:  i_data_sem, shared or exclusive, taken by extents*.c; dropped
 *         around restarts
 * Source: Documentation/filesystems/ext4/ifork.rst (direct/indirect blocks).
 *         Next: fs/indirect_alloc.c
 */
#include "fs/extents_internal.h"

static int indirect_verify(struct super_block *sb, const struct buffer *b,
			   const void *data, u32 seed)
{
	const struct ext4_sb *sbi = EXT4_SB(sb);
	const le32 *e = data;

	if (ext_block_claimed(b, &ext4_indirect_block_type, seed))
		return -EFSCORRUPTED;
	for (u32 i = 0; i < ind_per_block(sb); i++) {
		u32 blk = le32_to_cpu(e[i]);

		if (blk && !ext4_block_range_ok(sbi, blk, 1))
			return -EFSCORRUPTED;
	}
	return 0;
}

const struct buffer_type ext4_indirect_block_type = {
	.name = "indirect block",
	.verify = indirect_verify,
};

/* The tree with `levels` levels of indirect blocks. */
static struct ind_tree ind_tree(const struct super_block *sb, u32 levels)
{
	struct ind_tree t = { .span = IND_NDIR };

	for (t.levels = 0; t.levels < levels; t.levels++) {
		t.first += t.span;
		t.span = t.levels ? t.span * ind_per_block(sb) : ind_per_block(sb);
	}
	return t;
}

struct ind_tree ind_tree_of(const struct super_block *sb, u64 lblk)
{
	struct ind_tree t = ind_tree(sb, 0);

	while (lblk >= t.first + t.span && t.levels < IND_LEVELS)
		t = ind_tree(sb, t.levels + 1);
	return t;
}

int ind_bread(struct ext4_inode *ei, pblk_t blk, struct buffer **out)
{
	/* Nothing is summed up; the seed tells the owner. */
	return ext4_bread(ext4_sb_of(ei), blk, ei->vfs.i_ino, &ext4_indirect_block_type,
			  ei->i_csum_seed, out);
}

int ind_check(struct ext4_inode *ei, pblk_t blk, u32 len)
{
	if (ext4_block_range_ok(ext4_sb_of(ei), blk, len))
		return 0;
	return ext4_error(ext4_sb_of(ei), ei->vfs.i_ino, blk, -EFSCORRUPTED,
			  "block map: number outside the volume or on metadata");
}

/*
 * The run that begins at e[i] (n entries in all): consecutive blocks, or
 * zeroes; at most max entries.
 */
static u32 run_length(const le32 *e, u32 i, u32 n, u32 max)
{
	u32 first = le32_to_cpu(e[i]), len = 1;

	max = min_of(max, n - i);
	while (len < max && le32_to_cpu(e[i + len]) == (first ? first + len : 0))
		len++;
	return len;
}

/* Fills the map from entry i of n entries of data block numbers. */
static int map_entries(struct ext4_inode *ei, struct ext4_map *map, const le32 *e,
		       u32 i, u32 n)
{
	map->pblk = le32_to_cpu(e[i]);
	map->flags = map->pblk ? EXT4_MAP_MAPPED : 0;
	map->len = run_length(e, i, n, map->len);
	return map->pblk ? ind_check(ei, map->pblk, map->len) : 0;
}

/* A hole of which `left` blocks from map->lblk on are known to be absent. */
static void map_hole(struct ext4_map *map, u64 left)
{
	map->flags = 0;
	map->pblk = 0;
	map->len = (u32)min_of((u64)map->len, left);
}

int ext4_ind_map_blocks(struct ext4_inode *ei, struct ext4_map *map)
{
	const struct super_block *sb = ei->vfs.i_sb;
	struct ind_tree t = ind_tree_of(sb, map->lblk);
	struct buffer *b = NULL;
	u64 off = map->lblk - t.first, span;
	u32 blk, level;
	int err = 0;

	if (off >= t.span) { /* beyond what a map can hold */
		map_hole(map, map->len);
		return 0;
	}
	if (t.levels == 0)
		return map_entries(ei, map, ind_slots(ei), (u32)off, IND_NDIR);

	blk = le32_to_cpu(ind_slots(ei)[IND_NDIR + t.levels - 1]);
	if (blk)
		err = ind_check(ei, blk, 1);
	/* span: what blk, a block of this level, stands for; off: inside it. */
	for (level = t.levels, span = t.span; !err; level--) {
		u32 i;

		if (!blk) {
			map_hole(map, span - off);
			break;
		}
		buffer_put(b);
		err = ind_bread(ei, blk, &b);
		if (err)
			return err;
		span /= ind_per_block(sb);
		i = (u32)(off / span);
		off %= span;
		if (level == 1) {
			err = map_entries(ei, map, (le32 *)(void *)b->b_data, i,
					  ind_per_block(sb));
			break;
		}
		blk = le32_to_cpu(((le32 *)(void *)b->b_data)[i]);
	}
	buffer_put(b);
	return err;
}

/* ---- removal ---- */

struct ind_rm {
	struct handle *h;
	u64 start, end;
	bool forget;
};

/* An array of numbers: i_block (b NULL) or an indirect block. */
struct ind_array {
	struct buffer *b;
	le32 *e;
};

static bool array_empty(const le32 *e, u32 n)
{
	for (u32 i = 0; i < n; i++)
		if (le32_to_cpu(e[i]))
			return false;
	return true;
}

/* Credits for clearing entries and freeing what they named; restarts if need be. */
static int ind_ensure(struct ext4_inode *ei, struct ind_rm *r, u32 groups,
		      u32 revokes)
	REQUIRES(&ei->i_data_sem)
{
	int err;

	do
		err = ext_ensure(r->h, ei, 1 + groups * EXT4_ALLOC_CREDITS, revokes);
	while (err == 1);
	/* i_data_sem is kept from here to the change: the leaves first. */
	if (!err)
		mapping_extent_forget(&ei->vfs.i_mapping, (lblk_t)r->start, r->end);
	return err;
}

/* Clears entries [i, i+nr). */
static int ind_clear(struct ext4_inode *ei, struct ind_rm *r, struct ind_array *a, u32 i, u32 nr)
{
	int err = a->b ? handle_get_write_access(r->h, a->b) :
			 ext4_inode_access(r->h, ei);

	if (err)
		return err;
	memset(&a->e[i], 0, nr * sizeof(le32));
	if (a->b)
		handle_dirty(r->h, a->b);
	return 0;
}

/* Frees the data of entries [lo, hi), from the end backwards, run by run. */
static int ind_remove_data(struct ext4_inode *ei, struct ind_rm *r,
			   struct ind_array *a, u32 lo, u32 hi)
	REQUIRES(&ei->i_data_sem)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	u32 cap = ext_remove_cap(sbi, r->forget);

	while (hi > lo) {
		u32 nr = 1, i = hi - 1, blk = le32_to_cpu(a->e[i]);
		int err;

		if (!blk) {
			hi--;
			continue;
		}
		while (i > lo && nr < cap && blk > 1 && le32_to_cpu(a->e[i - 1]) == blk - 1) {
			i--;
			blk--;
			nr++;
		}
		err = ind_check(ei, blk, nr);
		if (!err)
			err = ind_ensure(ei, r, ext_groups_of(sbi, blk, nr),
					 r->forget ? nr : 0);
		if (!err)
			err = ind_clear(ei, r, a, i, nr);
		if (!err)
			err = ext_free_data(r->h, ei, blk, nr,
					    r->forget ? EXT_FREE_FORGET : 0);
		if (err)
			return err;
		hi = i;
	}
	return 0;
}

/* Is data on its way for which the block that stands for [first, first+span), now
 * empty, was made? */
static bool ind_wanted(struct ext4_inode *ei, u32 level, u64 first, u64 span)
{
	u64 end = min_of(first + span, EXT_LBLK_END);

	if (level > 1) /* the block below it would be there */
		return false;
	return mapping_next_dirty(&ei->vfs.i_mapping, (lblk_t)first, (lblk_t)end) < end;
}

/*
 * Removes what lies in the range below entry i of `up`, which stands for
 * [first, first+span) and has `level` levels of blocks below it (1..3).
 */
static int ind_remove_tree(struct ext4_inode *ei, struct ind_rm *r,
			   struct ind_array *up, u32 i, u32 level,
			   u64 first, u64 span) REQUIRES(&ei->i_data_sem)
{
	u32 n = ind_per_block(ei->vfs.i_sb), blk = le32_to_cpu(up->e[i]);
	u64 sub = span / n, from = max_of(r->start, first) - first;
	u64 to = min_of(r->end, first + span) - first;
	struct ind_array a;
	int err;

	if (!blk)
		return 0;
	err = ind_bread(ei, blk, &a.b);
	if (err)
		return err;
	a.e = (le32 *)(void *)a.b->b_data;
	if (level == 1)
		err = ind_remove_data(ei, r, &a, (u32)from, (u32)to);
	for (u64 k = DIV_ROUND_UP(to, sub); level > 1 && !err && k-- > from / sub;)
		err = ind_remove_tree(ei, r, &a, (u32)k, level - 1, first + k * sub, sub);
	if (!err && array_empty(a.e, n) && !ind_wanted(ei, level, first, span)) {
		err = ind_ensure(ei, r, 1, 1);
		if (!err)
			err = ind_clear(ei, r, up, i, 1);
		if (!err)
			return ext_free_node(r->h, ei, a.b);
	}
	buffer_put(a.b);
	return err;
}

int ext4_ind_remove(struct handle *h, struct ext4_inode *ei, lblk_t start, u64 end,
		    bool forget)
{
	struct ind_rm r = { .h = h, .start = start, .end = end, .forget = forget };
	struct ind_array root = { .e = ind_slots(ei) };
	int err = 0;

	for (u32 levels = IND_LEVELS; levels > 0 && !err; levels--) {
		struct ind_tree t = ind_tree(ei->vfs.i_sb, levels);
		u32 slot = IND_NDIR + levels - 1, blk = le32_to_cpu(root.e[slot]);

		if (!blk || start >= t.first + t.span || end <= t.first)
			continue;
		err = ind_check(ei, blk, 1);
		if (!err)
			err = ind_remove_tree(ei, &r, &root, slot, levels, t.first, t.span);
	}
	if (!err && start < IND_NDIR)
		err = ind_remove_data(ei, &r, &root, start, (u32)min_of(end, (u64)IND_NDIR));
	return err;
}
