/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/extents_remove.c - extent tree: truncate and punch
 *
 * The range is emptied from its end backwards, one extent (or a part of one
 * that lies in few groups) per step. Each step looks the tree up anew, makes
 * sure of its credits, and leaves tree, bitmaps and i_blocks in agreement, so
 * that the handle can be restarted between any two. Memory does not depend on
 * the size of the file, credits neither.
 *
 * In a step the tree changes first and the blocks are freed after it: should
 * freeing fail, blocks are lost to the volume, but none has two owners.
 * A node that becomes empty goes with its index entry, and so on upwards; a
 * tree without extents has depth 0. At the end, what fits goes back into the root.
 *
 * With bigalloc a step frees the clusters that nothing of the file is left in. What
 * else is there (a piece of the same extent, or another) is looked up before
 * the tree changes, at both ends of the piece that goes: whoever takes out the last
 * piece, in whatever order, frees the cluster. A cluster that stays keeps its place in
 * i_blocks; what is written to its holes later goes back to the same blocks, also before
 * the commit: they are the file's in any case, and a crash shows the old
 * extents with what was there, or with what was written since, as after an overwrite.
 *
 * Locks:  i_data_sem exclusively, dropped around restarts and now and then
 * Never:  a restart with i_data_sem held; a path used after one
 * Source: ext4-format brief 6, 11.7
 */
#include "fs/extents_internal.h"

/* Steps between two chances for those who wait for i_data_sem. */
#define STEPS_PER_HOLD 64u

int ext_free_node(struct handle *h, struct ext4_inode *ei, struct buffer *b)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	pblk_t blk = b->b_blocknr;
	int err;

	ext4_inode_add_clusters(h, ei, -1);
	err = handle_forget(h, b, blk);
	if (err == -EROFS)
		return err;
	if (err) /* not revoked: must not be used again */
		return ext4_error(sbi, ei->vfs.i_ino, blk, err,
				  "cannot revoke a block of the block map");
	return ext4_free_blocks(h, sbi, ei->vfs.i_ino, blk, 1);
}

int ext_free_data(struct handle *h, struct ext4_inode *ei, pblk_t blk, u32 len,
		  u32 flags)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	u32 mask = (1u << sbi->cluster_bits) - 1;
	pblk_t first = blk, end = blk + len;

	/* Whole clusters; if both ends lie in one that stays, none. */
	first = flags & EXT_FREE_KEEP_FIRST ? (first | mask) + 1 : first & ~(pblk_t)mask;
	end = flags & EXT_FREE_KEEP_LAST ? end & ~(pblk_t)mask : ALIGN_UP(end, mask + 1ull);
	if (first < end)
		ext4_inode_add_clusters(h, ei, -(s64)((end - first) >> sbi->cluster_bits));
	for (u32 i = 0; flags & EXT_FREE_FORGET && i < len; i++) {
		int err = handle_forget(h, NULL, blk + i);

		if (err == -EROFS)
			return err;
		if (err)
			return ext4_error(sbi, ei->vfs.i_ino, blk + i, err,
					  "cannot revoke a block");
	}
	if (first >= end)
		return 0;
	return ext4_free_blocks(h, sbi, ei->vfs.i_ino, first, (u32)(end - first));
}

u32 ext_remove_cap(const struct ext4_sb *sbi, bool forget)
{
	/* Wherever it begins, it touches EXT_REMOVE_GROUPS groups at most. */
	u64 cap = (u64)(EXT_REMOVE_GROUPS - 1) * sbi->blocks_per_group;

	if (forget)
		cap = min_of(cap, (u64)EXT_REMOVE_REVOKES);
	return (u32)min_of(cap, (u64)EXT4_EXT_INIT_MAX_LEN);
}

/* One removal, and the part [s, e) of the extent at the leaf's pos to go next. */
struct rm {
	struct handle *h;
	struct ext4_inode *ei;
	lblk_t start;
	u64 end;
	bool forget;
	bool changed;
	bool done;
	struct ext_path p;
	struct ext x;
	u64 s, e;
	u32 free_flags; /* enum ext_free_flags */
	struct buffer *gone[EXT_LEVELS]; /* nodes cut off by the step, referenced */
	u32 nr_gone;
};

/*
 * Chooses [s, e): from the end of the range backwards, except that the head of
 * an extent whose tail stays goes forwards (backwards it would be split).
 */
static void rm_choose(struct rm *r)
{
	u32 cap = ext_remove_cap(ext4_sb_of(r->ei), r->forget);

	r->s = max_of((u64)r->start, (u64)r->x.lblk);
	r->e = min_of(r->end, ext_end(&r->x));
	if (r->e - r->s <= cap)
		return;
	if (r->s == r->x.lblk && r->e < ext_end(&r->x))
		r->e = r->s + cap;
	else
		r->s = r->e - cap;
}

u32 ext_key_top(const struct ext_path *p, u32 level)
{
	while (level > 0 && p->n[--level].pos == 0)
		;
	return level;
}

/* The extent goes whole: its entry, and every node that is empty then. */
static int rm_entry(struct rm *r)
{
	struct ext_path *p = &r->p;
	u32 level = p->depth;
	struct ext_node *n;
	bool new_key;
	int err;

	while (level > 0 && eh_entries(p->n[level].eh) == 1)
		level--;
	n = &p->n[level];
	new_key = n->pos == 0 && level > 0;
	err = ext_access(r->h, p, new_key ? ext_key_top(p, level) : level, level);
	if (err)
		return err;

	r->changed = true;
	ext_cut(n->eh, (u32)n->pos, 1);
	ext_dirty(r->h, p, level);
	if (new_key)
		ext_fix_keys(r->h, p, level);
	if (eh_entries(n->eh) == 0)
		n->eh->eh_depth = cpu_to_le16(0); /* the root: the tree is empty */
	for (u32 l = level + 1; l <= p->depth; l++) {
		r->gone[r->nr_gone++] = p->n[l].b;
		p->n[l].b = NULL;
	}
	return 0;
}

/* [s, y) goes. */
static int rm_tail(struct rm *r)
{
	struct ext_node *leaf = ext_path_leaf(&r->p);
	struct ext left = r->x;
	int err = ext_access(r->h, &r->p, r->p.depth, r->p.depth);

	if (err)
		return err;
	r->changed = true;
	left.len = (u32)(r->s - left.lblk);
	ext_set(leaf->eh, (u32)leaf->pos, &left);
	ext_dirty(r->h, &r->p, r->p.depth);
	return 0;
}

static struct ext rm_right_part(const struct rm *r)
{
	struct ext right = r->x;
	u32 off = (u32)(r->e - right.lblk);

	right.lblk += off;
	right.pblk += off;
	right.len -= off;
	return right;
}

/* [x, e) goes. */
static int rm_head(struct rm *r)
{
	struct ext_path *p = &r->p;
	struct ext_node *leaf = ext_path_leaf(p);
	struct ext right = rm_right_part(r);
	u32 top = leaf->pos == 0 ? ext_key_top(p, p->depth) : p->depth;
	int err = ext_access(r->h, p, top, p->depth);

	if (err)
		return err;
	r->changed = true;
	ext_set(leaf->eh, (u32)leaf->pos, &right);
	ext_dirty(r->h, p, p->depth);
	if (leaf->pos == 0)
		ext_fix_keys(r->h, p, p->depth);
	return 0;
}

/* [s, e) goes from the middle: what is right of it becomes an extent of its own. */
static int rm_middle(struct rm *r)
{
	struct ext_node *leaf = ext_path_leaf(&r->p);
	struct ext left = r->x, right = rm_right_part(r);
	struct ext_room room;
	int err = ext_insert_prepare(r->h, &r->p, &room);

	if (err)
		return err;
	r->changed = true;
	left.len = (u32)(r->s - left.lblk);
	ext_set(leaf->eh, (u32)leaf->pos, &left);
	ext_insert(r->h, &r->p, &right, &room);
	return 0;
}

/* Is there anything of the file in [from, to)? */
static int rm_mapped(struct rm *r, u64 from, u64 to, bool *mapped)
	REQUIRES(&r->ei->i_data_sem)
{
	struct ext e = { 0 };
	int err = from < to ? ext_last_in(r->ei, from, to, &e) : 0;

	*mapped = e.len > 0;
	return err;
}

/* Which of the clusters at the ends of [s, e) are not to be freed with it. */
static int rm_clusters(struct rm *r) REQUIRES(&r->ei->i_data_sem)
{
	u64 mask = ((u64)1 << ext4_sb_of(r->ei)->cluster_bits) - 1;
	bool before, behind;
	int err;

	r->free_flags = r->forget ? EXT_FREE_FORGET : 0;
	if (!mask)
		return 0;
	err = ext_check_aligned(r->ei, r->x.lblk, r->x.pblk);
	if (!err)
		err = rm_mapped(r, r->s & ~mask, r->s, &before);
	if (!err)
		err = rm_mapped(r, r->e, ALIGN_UP(r->e, mask + 1), &behind);
	if (err)
		return err;
	/* The one cluster is both the first and the last. */
	if ((r->s & ~mask) == ((r->e - 1) & ~mask))
		before = behind = before || behind;
	if (before)
		r->free_flags |= EXT_FREE_KEEP_FIRST;
	if (behind)
		r->free_flags |= EXT_FREE_KEEP_LAST;
	return 0;
}

static int rm_apply(struct rm *r)
{
	pblk_t blk = r->x.pblk + (r->s - r->x.lblk);
	bool head = r->s == r->x.lblk, tail = r->e == ext_end(&r->x);
	int err;

	/* The leaves first. Piece by piece: i_data_sem is dropped between them,
	 * and what is there still may be learnt again. */
	mapping_extent_forget(&r->ei->vfs.i_mapping, (lblk_t)r->s, r->e);
	r->nr_gone = 0;
	if (head && tail)
		err = rm_entry(r);
	else if (tail)
		err = rm_tail(r);
	else if (head)
		err = rm_head(r);
	else
		err = rm_middle(r);
	if (err)
		return err; /* nothing has changed */
	err = ext_free_data(r->h, r->ei, blk, (u32)(r->e - r->s), r->free_flags);
	for (u32 i = 0; i < r->nr_gone; i++) {
		int node_err = ext_free_node(r->h, r->ei, r->gone[i]);

		if (!err)
			err = node_err;
	}
	return err;
}

static int rm_ensure(struct rm *r) REQUIRES(&r->ei->i_data_sem)
{
	struct ext4_sb *sbi = ext4_sb_of(r->ei);
	pblk_t blk = r->x.pblk + (r->s - r->x.lblk);
	u32 len = (u32)(r->e - r->s), depth = r->p.depth;
	u32 blocks = ext_groups_of(sbi, blk, len) * EXT4_ALLOC_CREDITS;

	if (r->s > r->x.lblk && r->e < ext_end(&r->x))
		blocks += ext_insert_step_credits(depth);
	else
		blocks += depth * (1 + EXT4_ALLOC_CREDITS);
	return ext_ensure(r->h, r->ei, blocks, depth + (r->forget ? len : 0));
}

/* Removes one piece; r->done if there is none left. */
static int rm_step(struct rm *r) REQUIRES(&r->ei->i_data_sem)
{
	struct ext_node *leaf;
	int err = ext_find(r->ei, (lblk_t)(r->end - 1), &r->p);

	if (err)
		return err;
	leaf = ext_path_leaf(&r->p);
	r->done = leaf->pos < 0;
	if (r->done)
		goto out_path;
	r->x = ext_get(leaf->eh, (u32)leaf->pos);
	r->done = ext_end(&r->x) <= r->start;
	if (r->done)
		goto out_path;
	rm_choose(r);
	err = rm_ensure(r);
	if (err == 0)
		err = rm_clusters(r);
	if (err == 0)
		err = rm_apply(r);
	else if (err == 1)
		err = 0; /* restarted: look again */
out_path:
	ext_path_put(&r->p);
	return err;
}

int ext_fold(struct handle *h, struct ext4_inode *ei, u32 most)
{
	struct ext4_extent_header *root = ext_root(ei);
	int err = 0;

	while (!err && eh_depth(root) > 0 && eh_entries(root) == 1) {
		struct ext_path p;
		struct buffer *b;
		struct ext4_extent_header *eh;
		u32 n;

		err = ext_find(ei, ext_key(root, 0), &p);
		if (err)
			return err;
		eh = p.n[1].eh;
		n = eh_entries(eh);
		if (n > most || n > eh_max(root)) {
			ext_path_put(&p);
			return 0;
		}
		err = handle_ensure(h, EXT4_ALLOC_CREDITS + EXT_SLACK_CREDITS, 1);
		if (!err)
			err = ext4_inode_access(h, ei);
		if (err) {
			ext_path_put(&p);
			return err < 0 ? err : 0;
		}
		memcpy(ext_leaf(root, 0), ext_leaf(eh, 0), n * EXT_ENTRY_BYTES);
		eh_set_entries(root, n);
		root->eh_depth = eh->eh_depth;
		b = p.n[1].b;
		p.n[1].b = NULL;
		ext_path_put(&p);
		err = ext_free_node(h, ei, b);
	}
	return err;
}

static int rm_extents(struct rm *r) REQUIRES(&r->ei->i_data_sem)
{
	int err = 0;

	for (u32 steps = 1; !err; steps++) {
		err = rm_step(r);
		if (err || r->done)
			break;
		if (steps % STEPS_PER_HOLD == 0) {
			rwsem_up_write(&r->ei->i_data_sem);
			rwsem_down_write(&r->ei->i_data_sem);
		}
	}
	if (!err && r->changed)
		err = ext_fold(r->h, r->ei, UINT16_MAX);
	return err;
}

int ext4_remove_blocks(struct handle *h, struct ext4_inode *ei, lblk_t start, u64 end,
		       bool forget)
{
	struct rm r = {
		.h = h, .ei = ei, .start = start, .end = min_of(end, EXT_LBLK_END),
		.forget = forget,
	};
	int err, werr;

	/* By the flag: a conversion that fails takes back what it has mapped. */
	if (r.start >= r.end || ei->vfs.i_flags & EXT4_INLINE_DATA_FL)
		return 0;
	rwsem_down_write(&r.ei->i_data_sem);
	if (ext_inode_has_extents(ei))
		err = rm_extents(&r);
	else
		err = ext4_ind_remove(h, r.ei, start, r.end, forget);
	rwsem_up_write(&r.ei->i_data_sem);
	/* Root and i_blocks belong into this transaction, after an error too. */
	werr = ext4_mark_inode_datasync(h, ei);
	return err ? err : werr;
}
