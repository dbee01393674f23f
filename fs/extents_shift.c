/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/extents_shift.c - extent tree: everything behind a block moves, to the left or the right
 *
 * Only keys change: no block of data, and no node, moves or is freed. The tree is gone
 * through leaf by leaf, from the gap that there is: to the left from the first extent
 * behind it, to the right from the last of the file. So at each moment
 *
 *   left:   [before] [moved ...]  gap  [to be moved ...]
 *   right:  [before] [to be moved ...]  gap  [moved ...]
 *
 * keys are in order, whatever has moved, and each leaf is a step after which the handle
 * may be restarted. ext4_shift_look() counts what will change, so that a caller with
 * so many credits has all of it in one transaction: then a crash finds all or nothing.
 * A tree of which more changes than a transaction can have is shifted in several, and a
 * crash may find the gap anywhere in between, as it does with ext4 in the kernel.
 *
 * Records: those of what a step moves, of both its places, go before it.
 *
 * Locks:  i_rwsem and wb_lock, exclusively, over a whole shift (caller): nobody else
 *         changes the tree. i_data_sem exclusively, dropped around restarts
 * Never:  an entry moved onto its neighbour, whatever the disk says: looked at before
 * Source: ext4-format brief 6. Next: fs/shift.c
 */
#include "fs/extents_internal.h"

/* ---- what will change ---- */

/* Nodes of the path that were not in the one before. */
static u32 new_nodes(const struct ext_path *p, pblk_t *seen)
{
	u32 n = 0;

	for (u32 l = 1; l <= p->depth; l++) {
		n += seen[l] != p->n[l].b->b_blocknr;
		seen[l] = p->n[l].b->b_blocknr;
	}
	return n;
}

static int look_locked(struct ext4_inode *ei, struct ext4_shift *s)
	REQUIRES_SHARED(&ei->i_data_sem)
{
	pblk_t seen[EXT_LEVELS] = { 0 };
	u64 at = s->start, end = 0;
	struct ext_path p;

	s->credits = 2 * EXT_LEVELS + EXT_SLACK_CREDITS;
	while (at < EXT_LBLK_END) {
		const struct ext_node *leaf;
		int err = ext_find(ei, (lblk_t)at, &p);

		if (err)
			return err;
		s->credits += new_nodes(&p, seen);
		leaf = ext_path_leaf(&p);
		if (eh_entries(leaf->eh)) {
			struct ext e = ext_get(leaf->eh, eh_entries(leaf->eh) - 1);

			end = ext_end(&e);
		}
		at = leaf->bound;
		ext_path_put(&p);
	}
	if (s->right && end > s->start && end + s->by > EXT_LBLK_END)
		return -EINVAL;
	return 0;
}

int ext4_shift_look(struct ext4_inode *ei, struct ext4_shift *s)
{
	int err;

	rwsem_down_read(&ei->i_data_sem);
	err = look_locked(ei, s);
	rwsem_up_read(&ei->i_data_sem);
	s->at = s->right ? EXT_LBLK_END : s->start;
	return err;
}

/* ---- the shift ---- */

static int out_of_order(struct ext4_inode *ei, lblk_t lblk)
{
	return ext4_error(ext4_sb_of(ei), ei->vfs.i_ino, 0, -EFSCORRUPTED,
			  "block %u cannot be shifted: its extent is out of order", lblk);
}

/* Entries [from, to) of the leaf. The first key changes if from is 0. */
static int move_entries(struct handle *h, struct ext_path *p, const struct ext4_shift *s,
			u32 from, u32 to)
{
	struct ext_node *leaf = ext_path_leaf(p);
	u32 top = from == 0 ? ext_key_top(p, p->depth) : p->depth;
	struct ext first = ext_get(leaf->eh, from), last = ext_get(leaf->eh, to - 1);
	int err = ext_access(h, p, top, p->depth);

	if (err)
		return err;
	mapping_extent_forget(&p->ei->vfs.i_mapping,
			      s->right ? first.lblk : first.lblk - s->by,
			      s->right ? ext_end(&last) + s->by : ext_end(&last));
	for (u32 i = from; i < to; i++) {
		struct ext e = ext_get(leaf->eh, i);

		e.lblk = s->right ? e.lblk + s->by : e.lblk - s->by;
		ext_set(leaf->eh, i, &e);
	}
	if (from > 0)
		ext_merge_pair(leaf->eh, from - 1);
	ext_dirty(h, p, p->depth);
	if (from == 0)
		ext_fix_keys(h, p, p->depth);
	return 0;
}

/* The leaf where *at is, or the next one; UINT64_MAX is the end. */
static int step_left(struct handle *h, struct ext4_inode *ei, struct ext4_shift *s,
		     struct ext_path *p)
{
	const struct ext_node *leaf = ext_path_leaf(p);
	u32 n = eh_entries(leaf->eh), i = (u32)(leaf->pos + 1);
	struct ext e = { 0 };
	int err;

	if (leaf->pos >= 0) {
		e = ext_get(leaf->eh, (u32)leaf->pos);
		if (e.lblk == s->at)
			i--;
		else if (ext_end(&e) > s->at)
			return out_of_order(ei, e.lblk);
	}
	if (i >= n) {
		s->at = leaf->bound;
		return 0;
	}
	if (i > 0) {
		e = ext_get(leaf->eh, i - 1);
		if (ext_end(&e) + s->by > ext_key(leaf->eh, i))
			return out_of_order(ei, ext_key(leaf->eh, i));
	}
	e = ext_get(leaf->eh, n - 1);
	err = move_entries(h, p, s, i, n);
	if (!err)
		s->at = ext_end(&e);
	return err;
}

/* The last leaf that begins before *at. */
static int step_right(struct handle *h, struct ext4_inode *ei, struct ext4_shift *s,
		      struct ext_path *p)
{
	const struct ext_node *leaf = ext_path_leaf(p);
	u32 to = (u32)(leaf->pos + 1), from = to;
	lblk_t key;
	int err;

	while (from > 0 && ext_key(leaf->eh, from - 1) >= s->start)
		from--;
	if (from == to) {
		s->at = 0;
		return 0;
	}
	key = ext_key(leaf->eh, from);
	if (to < eh_entries(leaf->eh))
		return out_of_order(ei, ext_key(leaf->eh, to));
	err = move_entries(h, p, s, from, to);
	if (!err)
		s->at = from ? 0 : key;
	return err;
}

static bool is_done(const struct ext4_shift *s)
{
	return s->right ? s->at <= s->start : s->at >= EXT_LBLK_END;
}

static int shift_step(struct handle *h, struct ext4_inode *ei, struct ext4_shift *s)
	REQUIRES(&ei->i_data_sem)
{
	struct ext_path p;
	int err = ext_find(ei, (lblk_t)(s->right ? s->at - 1 : s->at), &p);

	if (err)
		return err;
	err = ext_ensure(h, ei, p.depth + 1, 0);
	if (err == 0)
		err = s->right ? step_right(h, ei, s, &p) : step_left(h, ei, s, &p);
	else if (err == 1)
		err = 0; /* restarted: look again */
	ext_path_put(&p);
	return err;
}

/* To the right: an extent that reaches over the start becomes two. */
static int split_start(struct handle *h, struct ext4_inode *ei, const struct ext4_shift *s)
	REQUIRES(&ei->i_data_sem)
{
	struct ext_node *leaf;
	struct ext_path p;
	struct ext e;
	int err;

	err = ext_find(ei, s->start, &p);
	if (err)
		return err;
	leaf = ext_path_leaf(&p);
	if (leaf->pos >= 0) {
		e = ext_get(leaf->eh, (u32)leaf->pos);
		if (e.lblk < s->start && ext_end(&e) > s->start)
			err = ext_split(h, &p, &e, s->start);
	}
	ext_path_put(&p);
	return err;
}

int ext4_shift_split(struct handle *h, struct ext4_inode *ei, const struct ext4_shift *s)
{
	int err;

	rwsem_down_write(&ei->i_data_sem);
	err = split_start(h, ei, s);
	rwsem_up_write(&ei->i_data_sem);
	return err;
}

int ext4_shift(struct handle *h, struct ext4_inode *ei, struct ext4_shift *s)
{
	int err = 0;

	rwsem_down_write(&ei->i_data_sem);
	while (!err && !is_done(s))
		err = shift_step(h, ei, s);
	rwsem_up_write(&ei->i_data_sem);
	return err;
}
