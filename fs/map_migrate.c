/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/map_migrate.c - a file's block map becomes an extent tree, and the other way round
 *
 * As chattr(1) +e and -e ask for it. No block of data moves: what the map says is said
 * in the other way, in one handle, so that after a crash the file has the one or
 * the other.
 *
 *   +e  The map is read into a list of extents and one of its indirect blocks. The new
 *       tree is built from the list, full node by full node, then it takes the map's
 *       place in i_block, and the indirect blocks are freed. The handle has credits for
 *       all of this; a map that takes more than a transaction can hold, or has more than
 *       MAX_EXTENTS pieces, is refused (-EFBIG).
 *   -e  One written extent within the first 12 blocks at most, which needs no indirect
 *       block; all else is refused, as by the kernel's ext4 (-EOPNOTSUPP).
 *
 * What is DELAYED is written out first: it was promised blocks for the map that is there.
 * With i_rwsem held exclusively none comes after that, and with wb_lock held, once
 * WRITEBACK has ended, nobody else looks which of the two the file has: the write of a
 * block that has its place, which takes no lock of the file, does not. Flag and i_block
 * change together under i_data_sem, under which an inode is stored.
 *
 * Locks:  i_rwsem exclusively (callers) -> wb_lock -> handle -> i_data_sem
 * Source: chattr(1); Documentation/filesystems/ext4/ifork.rst
 */
#include "fs/extents_internal.h"

#include <stdlib.h>

/* 1.5 MiB of memory while it lasts. */
#define MAX_EXTENTS (1u << 16)
/* Entries of the root. */
#define ROOT_MAX 4u

struct migration {
	struct ext4_inode *ei;
	struct ext *ext; /* of the file, in order; neighbours that can be one are */
	u32 nr, room;
	u32 *node; /* the map's indirect blocks */
	u32 nr_nodes, node_room, max_nodes;
	u32 groups; /* that these lie in, each counted once for a run of them */
	u32 level_nodes[EXT_LEVELS]; /* of the new tree below the root: leaves first */
	u32 levels, tree_nodes;
	struct buffer **b; /* of the new nodes, with create access */
};

/* ---- what the map says ---- */

/* Room for one more in an array that may grow to max. */
static int make_room(void **array, u32 nr, u32 *room, size_t size, u32 max)
{
	u32 n = min_of(max_of(*room * 2, 64u), max);
	void *more;

	if (nr < *room)
		return 0;
	if (nr >= max)
		return -EFBIG;
	more = realloc(*array, n * size);
	if (!more)
		return -ENOMEM;
	*array = more;
	*room = n;
	return 0;
}

static int add_block(struct migration *m, lblk_t lblk, u32 blk)
{
	struct ext one = { .lblk = lblk, .len = 1, .pblk = blk };
	int err;

	if (m->nr && ext_mergeable(&m->ext[m->nr - 1], &one)) {
		m->ext[m->nr - 1].len++;
		return 0;
	}
	err = make_room((void **)&m->ext, m->nr, &m->room, sizeof(*m->ext), MAX_EXTENTS);
	if (!err)
		m->ext[m->nr++] = one;
	return err;
}

/* Block blk, from which `level` levels of blocks (itself one) lead to data from `first`
 * on. How many there are bounds what a damaged map can make of this. */
static int walk(struct migration *m, u32 blk, u32 level, u64 first, u64 span)
	REQUIRES(&m->ei->i_data_sem)
{
	u32 n = ind_per_block(m->ei->vfs.i_sb);
	struct buffer *b;
	int err = make_room((void **)&m->node, m->nr_nodes, &m->node_room,
			    sizeof(*m->node), m->max_nodes);

	if (err)
		return err;
	m->node[m->nr_nodes++] = blk;
	err = ind_bread(m->ei, blk, &b);
	if (err)
		return err;
	span /= n;
	for (u32 i = 0; i < n && !err; i++) {
		u32 e = le32_to_cpu(((le32 *)(void *)b->b_data)[i]);

		if (!e)
			continue;
		if (first + i * span > LBLK_MAX)
			err = ext4_error(ext4_sb_of(m->ei), m->ei->vfs.i_ino, blk,
					 -EFSCORRUPTED, "block map: beyond the largest file");
		else if (level > 1)
			err = walk(m, e, level - 1, first + i * span, span);
		else
			err = add_block(m, (lblk_t)(first + i), e);
	}
	buffer_put(b);
	return err;
}

static int by_number(const void *a, const void *b)
{
	u32 x = *(const u32 *)a, y = *(const u32 *)b;

	return x < y ? -1 : x > y;
}

/* In order, so that they are freed group by group; and each is there once. */
static int sort_nodes(struct migration *m)
{
	struct ext4_sb *sbi = ext4_sb_of(m->ei);

	if (m->nr_nodes)
		qsort(m->node, m->nr_nodes, sizeof(*m->node), by_number);
	for (u32 i = 0; i < m->nr_nodes; i++) {
		if (i && m->node[i] == m->node[i - 1])
			return ext4_error(sbi, m->ei->vfs.i_ino, m->node[i], -EFSCORRUPTED,
					  "block map: an indirect block is there twice");
		if (!i || ext4_block_group(sbi, m->node[i]) !=
				  ext4_block_group(sbi, m->node[i - 1]))
			m->groups++;
	}
	return 0;
}

/* Freed as a node, it would be both the file's and free. */
static int check_data(const struct migration *m)
{
	for (u32 i = 0; m->nr_nodes && i < m->nr; i++) {
		u32 lo = 0, hi = m->nr_nodes;

		while (lo < hi) { /* the first node that is not before it */
			u32 mid = lo + (hi - lo) / 2;

			if (m->node[mid] < m->ext[i].pblk)
				lo = mid + 1;
			else
				hi = mid;
		}
		if (lo < m->nr_nodes && m->node[lo] < m->ext[i].pblk + m->ext[i].len)
			return ext4_error(ext4_sb_of(m->ei), m->ei->vfs.i_ino, m->node[lo],
					  -EFSCORRUPTED,
					  "block map: an indirect block is data, too");
	}
	return 0;
}

static int read_map(struct migration *m) REQUIRES(&m->ei->i_data_sem)
{
	const struct super_block *sb = m->ei->vfs.i_sb;
	const le32 *slot = ind_slots(m->ei);
	u64 first = IND_NDIR;
	int err = 0;

	for (u32 i = 0; i < IND_NDIR && !err; i++) {
		if (!le32_to_cpu(slot[i]))
			continue;
		err = ind_check(m->ei, le32_to_cpu(slot[i]), 1);
		if (!err)
			err = add_block(m, i, le32_to_cpu(slot[i]));
	}
	for (u32 level = 1; level <= IND_LEVELS && !err; level++) {
		struct ind_tree t = ind_tree_of(sb, first);
		u32 blk = le32_to_cpu(slot[IND_NDIR + level - 1]);

		if (blk)
			err = ind_check(m->ei, blk, 1);
		if (blk && !err)
			err = walk(m, blk, level, t.first, t.span);
		first = t.first + t.span;
	}
	if (!err)
		err = sort_nodes(m);
	return err ? err : check_data(m);
}

/* ---- the tree ---- */

static void shape_tree(struct migration *m)
{
	u32 max = ext_block_max(m->ei->vfs.i_sb), n = m->nr;

	m->levels = m->tree_nodes = 0;
	while (n > ROOT_MAX) {
		n = DIV_ROUND_UP(n, max);
		m->level_nodes[m->levels++] = n;
		m->tree_nodes += n;
	}
}

static u32 credits_of(const struct migration *m)
{
	return EXT4_INODE_CREDITS + EXT_SLACK_CREDITS +
	       m->tree_nodes * (1 + EXT4_ALLOC_CREDITS) + m->groups * EXT4_ALLOC_CREDITS;
}

/* Never changed, and nobody has seen them: see ext_room_undo(). */
static void undo_nodes(struct handle *h, struct migration *m, u32 nr)
{
	for (u32 i = 0; i < nr; i++) {
		pblk_t blk = m->b[i]->b_blocknr;

		buffer_detach(m->b[i]);
		buffer_put(m->b[i]);
		m->b[i] = NULL;
		(void)!ext4_free_blocks(h, ext4_sb_of(m->ei), m->ei->vfs.i_ino, blk, 1);
	}
}

static int make_node(struct handle *h, struct migration *m, pblk_t goal, struct buffer **out)
{
	struct ext4_inode *ei = m->ei;
	struct ext4_sb *sbi = ext4_sb_of(ei);
	u32 one = 1;
	pblk_t blk;
	int err;

	err = ext4_alloc_blocks(h, sbi, ei->i_group, goal < sbi->blocks_count ? goal : 0,
				EXT4_ALLOC_META, &one, &blk);
	if (err)
		return err;
	err = buffer_get_zeroed(&sbi->s, blk, &ext4_extent_block_type, ei->i_csum_seed, out);
	if (!err) {
		err = handle_get_create_access(h, *out);
		if (!err)
			return 0;
		buffer_detach(*out);
		buffer_put(*out);
	}
	/* A failure is the allocator's to report; the block is lost at worst. */
	(void)!ext4_free_blocks(h, sbi, ei->vfs.i_ino, blk, 1);
	return err;
}

static int make_nodes(struct handle *h, struct migration *m)
{
	pblk_t goal = 0;

	for (u32 i = 0; i < m->tree_nodes; i++) {
		int err = make_node(h, m, goal, &m->b[i]);

		if (err) {
			undo_nodes(h, m, i);
			return err;
		}
		goal = m->b[i]->b_blocknr + 1;
	}
	return 0;
}

/* Entries [from, from+n) of what is below: extents (depth 0), or the nodes from `below` on. */
static void fill_node(const struct migration *m, struct ext4_extent_header *eh, u32 depth,
		      u32 max, u32 from, u32 n, u32 below)
{
	eh->eh_magic = cpu_to_le16(EXT4_EXT_MAGIC);
	eh->eh_max = cpu_to_le16((u16)max);
	eh->eh_depth = cpu_to_le16((u16)depth);
	eh_set_entries(eh, n);
	for (u32 i = 0; i < n; i++) {
		const struct buffer *child;
		struct ext4_extent_idx *ix = ext_idx(eh, i);

		if (!depth) {
			ext_set(eh, i, &m->ext[from + i]);
			continue;
		}
		child = m->b[below + from + i];
		*ix = (struct ext4_extent_idx){
			.ei_block = cpu_to_le32(ext_key(ext_buffer_header(child), 0)),
			.ei_leaf_lo = cpu_to_le32((u32)child->b_blocknr),
			.ei_leaf_hi = cpu_to_le16((u16)(child->b_blocknr >> 32)),
		};
	}
}

/* The tree in the nodes and in i_block, of which nothing is left of the map. */
static void build_tree(struct handle *h, struct migration *m) REQUIRES(&m->ei->i_data_sem)
{
	u32 max = ext_block_max(m->ei->vfs.i_sb), n = m->nr, at = 0, below = 0;

	for (u32 level = 0; level < m->levels; level++) {
		u32 nodes = m->level_nodes[level];

		for (u32 i = 0; i < nodes; i++) {
			fill_node(m, ext_buffer_header(m->b[at + i]), level, max, i * max,
				  min_of(max, n - i * max), below);
			handle_dirty(h, m->b[at + i]);
		}
		below = at;
		at += nodes;
		n = nodes;
	}
	memset(m->ei->i_block, 0, sizeof(m->ei->i_block));
	fill_node(m, ext_root(m->ei), m->levels, ROOT_MAX, 0, n, below);
	for (u32 i = 0; i < m->tree_nodes; i++)
		buffer_put(m->b[i]);
}

static void set_flag(struct ext4_inode *ei, bool extents)
{
	inode_attrs_lock(&ei->vfs);
	if (extents)
		ei->vfs.i_flags |= EXT4_EXTENTS_FL;
	else
		ei->vfs.i_flags &= ~(u32)EXT4_EXTENTS_FL;
	inode_attrs_unlock(&ei->vfs);
}

/* Consumes the reference on the inode's table buffer. */
static void store(struct handle *h, struct ext4_inode *ei, struct buffer *table, u32 offset)
{
	atomic_store(&ei->i_datasync_tid, handle_tid(h));
	ext4_inode_finish(h, ei, table, offset);
}

static int switch_to_tree(struct handle *h, struct migration *m)
{
	struct ext4_inode *ei = m->ei;
	struct buffer *table;
	u32 offset;
	int err = ext4_inode_prepare(h, ei, &table, &offset);

	if (err)
		return err;
	rwsem_down_write(&m->ei->i_data_sem);
	err = make_nodes(h, m);
	if (err) {
		rwsem_up_write(&m->ei->i_data_sem);
		buffer_put(table);
		return err;
	}
	mapping_extent_forget(&ei->vfs.i_mapping, 0, EXT_LBLK_END);
	build_tree(h, m);
	set_flag(ei, true);
	ext4_inode_add_clusters(h, ei, m->tree_nodes);
	/* The map has gone: what cannot be freed is lost, and no more than that. */
	for (u32 i = 0; i < m->nr_nodes; i++) {
		int err2 = ext_free_data(h, ei, m->node[i], 1, EXT_FREE_FORGET);

		err = err ? err : err2;
	}
	rwsem_up_write(&m->ei->i_data_sem);
	store(h, ei, table, offset);
	return err;
}

/* wb_lock held, nothing DELAYED or under WRITEBACK. */
static int to_extents(struct ext4_inode *ei)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	struct migration m = { .ei = ei, .max_nodes = journal_max_credits(sbi->journal) };
	struct handle *h;
	int err, err2;

	rwsem_down_write(&m.ei->i_data_sem);
	err = read_map(&m);
	rwsem_up_write(&m.ei->i_data_sem);
	if (err)
		goto out;
	shape_tree(&m);
	err = -EFBIG;
	if (!journal_fits(sbi->journal, credits_of(&m), m.nr_nodes))
		goto out;
	m.b = calloc(max_of(m.tree_nodes, 1u), sizeof(struct buffer *));
	err = m.b ? journal_start(sbi->journal, credits_of(&m), m.nr_nodes, &h) : -ENOMEM;
	if (err)
		goto out;
	err = switch_to_tree(h, &m);
	err2 = ext4_stop_sync(h, err, ei, NULL);
	err = err ? err : err2;
out:
	free(m.b);
	free(m.node);
	free(m.ext);
	return err;
}

/* The tree as a map that needs no indirect block. -EOPNOTSUPP: it has none. */
static int map_of_tree(struct ext4_inode *ei, le32 *slot) REQUIRES(&ei->i_data_sem)
{
	const struct ext4_extent_header *eh = ext_root(ei);
	struct ext e;

	if (eh_depth(eh) || eh_entries(eh) > 1)
		return -EOPNOTSUPP;
	memset(slot, 0, EXT4_I_BLOCK_BYTES);
	if (!eh_entries(eh))
		return 0;
	e = ext_get(eh, 0);
	if (e.unwritten || ext_end(&e) > IND_NDIR || e.pblk + e.len - 1 > UINT32_MAX)
		return -EOPNOTSUPP;
	for (u32 i = 0; i < e.len; i++)
		slot[e.lblk + i] = cpu_to_le32((u32)e.pblk + i);
	return 0;
}

/* As to_extents(). */
static int to_map(struct ext4_inode *ei)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	le32 slot[EXT4_I_BLOCK_BYTES / sizeof(le32)];
	struct buffer *table;
	struct handle *h;
	u32 offset;
	int err;

	/* Later blocks would have numbers that are too large. */
	if (sbi->blocks_count > UINT32_MAX || ei->vfs.i_size > ext4_map_max_size(sbi))
		return -EOPNOTSUPP;
	err = journal_start(sbi->journal, EXT4_INODE_CREDITS + EXT_SLACK_CREDITS, 0, &h);
	if (err)
		return err;
	err = ext4_inode_prepare(h, ei, &table, &offset);
	if (err)
		goto out_stop;
	rwsem_down_write(&ei->i_data_sem);
	err = map_of_tree(ei, slot);
	if (!err) {
		mapping_extent_forget(&ei->vfs.i_mapping, 0, EXT_LBLK_END);
		memcpy(ei->i_block, slot, sizeof(slot));
		set_flag(ei, false);
	}
	rwsem_up_write(&ei->i_data_sem);
	if (err)
		buffer_put(table);
	else
		store(h, ei, table, offset);
out_stop:
	return ext4_stop_sync(h, err, ei, NULL);
}

int ext4_map_migrate(struct ext4_inode *ei, bool extents)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	int err, tries = 0;

	assert_rwsem_held_write(&ei->vfs.i_rwsem);
	if (!ext4_has_incompat(sbi, EXTENTS) || ei->i_inline ||
	    (!S_ISREG(ei->vfs.i_mode) && !S_ISDIR(ei->vfs.i_mode)))
		return -EINVAL;
	if (ext_inode_has_extents(ei) == extents)
		return 0;
	if (sbi->cluster_bits) /* no file has a block map there */
		return -EOPNOTSUPP;
	do {
		err = S_ISREG(ei->vfs.i_mode) ? ext4_write_range(ei, 0, EXT4_LBLK_END) : 0;
		if (err)
			break;
		mutex_lock(&ei->wb_lock);
		mapping_wait_writeback(&ei->vfs.i_mapping, 0, EXT4_LBLK_END);
		err = extents ? to_extents(ei) : to_map(ei);
		mutex_unlock(&ei->wb_lock);
	} while (ext4_should_retry(sbi, err, &tries));
	return err == -EAGAIN ? -ENOSPC : err;
}
