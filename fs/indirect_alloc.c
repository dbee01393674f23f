/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/indirect_alloc.c - the block maps of ext2 and ext3: new blocks
 *
 * All that can fail comes first: the way to the entries, write access, blocks and
 * buffers of the indirect blocks that are missing, then the data blocks. Only then
 * are the new indirect blocks linked, from the lowest to the one that is there, so
 * that -ENOSPC leaves the map as it was. Numbers are 32 bits wide: nothing is taken
 * beyond block 2^32 (EXT4_ALLOC_LOW).
 *
 * A block map cannot say "allocated, but not written". For a directory or a symlink,
 * whose blocks are journalled with the change, the entry is made at once
 * (ext4_ind_create()); for the data of a file in a second step, after the data is on
 * the device (indirect_write.c).
 *
 * Goals: right behind what the same array has before; for the first of an array
 * behind what was allocated last. Indirect blocks likewise, so that they lie between
 * the data they stand for and what was before it.
 *
 * Locks:  i_data_sem exclusively, by the callers
 * Source: Documentation/filesystems/ext4/ifork.rst. Next: fs/indirect_write.c
 */
#include "fs/extents_internal.h"

/* The way from i_block to the array that has the entry for a block of the file. */
struct ind_path {
	u32 levels;              /* of indirect blocks, */
	u32 have;                /* and how many of them there are */
	u32 idx[IND_LEVELS + 1]; /* the entry: in i_block, and in the block of each level */
	struct buffer *b[IND_LEVELS + 1]; /* [1..have], referenced */
};

static void path_put(struct ind_path *p)
{
	for (u32 l = 1; l <= p->have; l++)
		buffer_put(p->b[l]);
	p->have = 0;
}

/* The array at `level` of the path: of i_block, or of a block. */
static le32 *path_array(struct ext4_inode *ei, const struct ind_path *p, u32 level)
{
	return level ? (le32 *)(void *)p->b[level]->b_data : ind_slots(ei);
}

/* How many entries an array of the last level has. */
static u32 path_entries(const struct ext4_inode *ei, const struct ind_path *p)
{
	return p->levels ? ind_per_block(ei->vfs.i_sb) : IND_NDIR;
}

/* From level `have` one further down, to block blk. */
static int path_descend(struct ext4_inode *ei, struct ind_path *p, u32 blk)
{
	struct buffer *b;
	int err;

	if (!p->have) {
		err = ind_check(ei, blk, 1);
		if (err)
			return err;
	}
	for (u32 l = 1; l <= p->have; l++)
		if (p->b[l]->b_blocknr == blk)
			return ext4_error(ext4_sb_of(ei), ei->vfs.i_ino, blk,
					  -EFSCORRUPTED,
					  "block map: an indirect block leads to itself");
	err = ind_bread(ei, blk, &b);
	if (!err)
		p->b[++p->have] = b;
	return err;
}

/* On error nothing is held. -EFBIG: beyond what a map can hold. */
static int path_find(struct ext4_inode *ei, lblk_t lblk, struct ind_path *p)
	REQUIRES_SHARED(&ei->i_data_sem)
{
	const struct super_block *sb = ei->vfs.i_sb;
	struct ind_tree t = ind_tree_of(sb, lblk);
	u64 off = lblk - t.first, span = t.span;

	*p = (struct ind_path){ .levels = t.levels };
	if (off >= span)
		return -EFBIG;
	p->idx[0] = t.levels ? IND_NDIR + t.levels - 1 : (u32)off;
	for (u32 l = 1; l <= t.levels; l++) {
		span /= ind_per_block(sb);
		p->idx[l] = (u32)(off / span);
		off %= span;
	}
	while (p->have < p->levels) {
		u32 blk = le32_to_cpu(path_array(ei, p, p->have)[p->idx[p->have]]);
		int err;

		if (!blk)
			break;
		err = path_descend(ei, p, blk);
		if (err) {
			path_put(p);
			return err;
		}
	}
	return 0;
}

int ind_exists(struct ext4_inode *ei, lblk_t lblk, u32 *nr, bool *exists)
{
	struct ind_path p;
	int err = path_find(ei, lblk, &p);

	if (err)
		return err;
	*nr = min_of(*nr, path_entries(ei, &p) - p.idx[p.levels]);
	*exists = p.have == p.levels;
	path_put(&p);
	return 0;
}

static bool goal_ok(const struct ext4_inode *ei, pblk_t goal)
{
	return goal < ext4_sb_of(ei)->blocks_count && goal <= UINT32_MAX;
}

/* Where blocks for the entry at the end of the path are best taken; 0: anywhere near
 * the inode. */
static pblk_t path_goal(struct ext4_inode *ei, const struct ind_path *p)
{
	const le32 *e = path_array(ei, p, p->have);
	u32 i = p->idx[p->have];
	pblk_t goal = atomic_load_explicit(&ei->i_alloc_goal, memory_order_relaxed);

	if (p->have == p->levels) {
		for (u32 k = i; k-- > 0;) {
			if (!le32_to_cpu(e[k]))
				continue;
			goal = (pblk_t)le32_to_cpu(e[k]) + (i - k);
			break;
		}
	}
	if (!goal && p->have)
		goal = p->b[p->have]->b_blocknr + 1;
	return goal_ok(ei, goal) ? goal : 0;
}

/* Blocks and buffers for what is missing on the path; on error none is held. */
static int chain_alloc(struct handle *h, struct ext4_inode *ei, const struct ind_path *p,
		       u32 alloc_flags, struct ext_room *room)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	pblk_t goal = path_goal(ei, p);
	int err = 0;

	memset(room, 0, sizeof(*room));
	while (!err && room->nr < p->levels - p->have) {
		u32 one = 1;

		err = ext4_alloc_blocks(h, sbi, ei->i_group, goal,
					alloc_flags | EXT4_ALLOC_LOW, &one,
					&room->blk[room->nr]);
		if (err)
			break;
		goal = room->blk[room->nr++] + 1;
		if (!goal_ok(ei, goal))
			goal = 0;
	}
	for (u32 i = 0; !err && i < room->nr; i++) {
		err = buffer_get_zeroed(ei->vfs.i_sb, room->blk[i],
					&ext4_indirect_block_type, ei->i_csum_seed,
					&room->b[i]);
		if (err)
			room->b[i] = NULL;
		else
			err = handle_get_create_access(h, room->b[i]);
	}
	if (err)
		ext_room_undo(h, ei, room);
	return err;
}

/* Links them; the path is whole then. There is access to its last block. */
static void chain_link(struct handle *h, struct ext4_inode *ei, struct ind_path *p,
		       struct ext_room *room)
{
	u32 have = p->have;

	if (!room->nr)
		return;
	for (u32 i = 0; i < room->nr; i++)
		p->b[have + 1 + i] = room->b[i];
	for (u32 l = p->levels; l-- > have;) {
		path_array(ei, p, l)[p->idx[l]] =
			cpu_to_le32((u32)p->b[l + 1]->b_blocknr);
		handle_dirty(h, p->b[l + 1]);
	}
	if (have)
		handle_dirty(h, p->b[have]);
	p->have = p->levels;
	ext4_inode_add_clusters(h, ei, room->nr);
}

/* Access to the last block there is: it will get an entry. */
static int path_access(struct handle *h, const struct ind_path *p)
{
	return p->have ? handle_get_write_access(h, p->b[p->have]) : 0;
}

int ind_make(struct handle *h, struct ext4_inode *ei, lblk_t lblk, u32 alloc_flags)
{
	struct ext_room room;
	struct ind_path p;
	int err = path_find(ei, lblk, &p);

	if (err)
		return err;
	err = path_access(h, &p);
	if (!err)
		err = chain_alloc(h, ei, &p, alloc_flags, &room);
	if (!err)
		chain_link(h, ei, &p, &room);
	path_put(&p);
	return err;
}

/* Free entries from the end of the path on, max at most; 0: that one is taken. */
static u32 path_hole(struct ext4_inode *ei, const struct ind_path *p, u32 max)
{
	u32 i = p->idx[p->levels], n;
	const le32 *e;

	max = min_of(max, path_entries(ei, p) - i);
	if (p->have < p->levels)
		return max;
	e = path_array(ei, p, p->levels) + i;
	for (n = 0; n < max && !le32_to_cpu(e[n]); n++)
		;
	return n;
}

static u32 data_flags(const struct ext4_inode *ei, lblk_t lblk, u32 flags)
{
	u32 alloc = EXT4_ALLOC_LOW;

	if (flags & EXT4_CREATE_ROOT)
		alloc |= EXT4_ALLOC_ROOT;
	if (flags & EXT4_CREATE_DELAYED)
		alloc |= EXT4_ALLOC_DELAYED;
	if ((u64)lblk << ei->vfs.i_sb->s_blocksize_bits >= ei->i_disksize)
		alloc |= EXT4_ALLOC_APPEND;
	return alloc;
}

int ind_take(struct handle *h, struct ext4_inode *ei, lblk_t lblk, u32 flags, u32 *len,
	     pblk_t *pblk, struct ind_slot *slot)
{
	/* What was promised to the data is no use without a place for its numbers. */
	u32 chain = (flags & EXT4_CREATE_ROOT ? EXT4_ALLOC_ROOT : 0) |
		    (flags & EXT4_CREATE_DELAYED ? EXT4_ALLOC_META : 0);
	struct ext_room room;
	struct ind_path p;
	pblk_t goal;
	int err = path_find(ei, lblk, &p);

	if (err)
		return err;
	*len = path_hole(ei, &p, *len);
	if (!*len) {
		err = ext4_error(ext4_sb_of(ei), ei->vfs.i_ino, 0, -EFSCORRUPTED,
				 "block %u is mapped already", lblk);
		goto out_path;
	}
	err = path_access(h, &p);
	if (!err)
		err = chain_alloc(h, ei, &p, chain, &room);
	if (err)
		goto out_path;
	goal = room.nr ? room.blk[room.nr - 1] + 1 : path_goal(ei, &p);
	err = ext4_alloc_data(h, ei, lblk, goal_ok(ei, goal) ? goal : 0,
			      data_flags(ei, lblk, flags), len, pblk);
	if (err) {
		ext_room_undo(h, ei, &room);
		goto out_path;
	}
	assert(*pblk + *len - 1 <= UINT32_MAX);
	chain_link(h, ei, &p, &room);
	slot->b = NULL;
	slot->e = path_array(ei, &p, p.levels) + p.idx[p.levels];
	if (p.levels) {
		slot->b = p.b[p.levels];
		buffer_get(slot->b);
	}
out_path:
	path_put(&p);
	return err;
}

int ind_enter(struct handle *h, struct ext4_inode *ei, const struct ind_slot *slot,
	      pblk_t pblk, u32 len)
{
	for (u32 i = 0; i < len; i++)
		if (le32_to_cpu(slot->e[i]))
			return ext4_error(ext4_sb_of(ei), ei->vfs.i_ino, pblk + i,
					  -EFSCORRUPTED,
					  "block map: a part of it is there twice");
	for (u32 i = 0; i < len; i++)
		slot->e[i] = cpu_to_le32((u32)pblk + i);
	if (slot->b)
		handle_dirty(h, slot->b);
	ext4_inode_add_clusters(h, ei, len);
	atomic_store_explicit(&ei->i_alloc_goal, pblk + len, memory_order_relaxed);
	return 0;
}

void ind_slot_put(struct ind_slot *slot)
{
	if (slot->b)
		buffer_put(slot->b);
}

int ext4_ind_create(struct handle *h, struct ext4_inode *ei, struct ext4_map *map,
		    u32 flags)
{
	struct ind_slot slot;
	pblk_t pblk;
	int err = ext4_ind_map_blocks(ei, map);

	if (err || map->flags)
		return err;
	if (flags & EXT4_CREATE_UNWRITTEN)
		return -EOPNOTSUPP;
	err = handle_ensure(h, IND_STEP_CREDITS, 0);
	if (err)
		return err < 0 ? err : -EAGAIN;
	err = ind_take(h, ei, map->lblk, flags, &map->len, &pblk, &slot);
	if (err)
		return err;
	err = ind_enter(h, ei, &slot, pblk, map->len);
	/* A failure to free is reported; the blocks are lost at worst. */
	if (err)
		(void)!ext4_free_blocks(h, ext4_sb_of(ei), ei->vfs.i_ino, pblk, map->len);
	ind_slot_put(&slot);
	map->pblk = pblk;
	map->flags = EXT4_MAP_NEW | EXT4_MAP_MAPPED;
	return err;
}
