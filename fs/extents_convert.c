/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/extents_convert.c - extent tree: unwritten -> written after the data is
 * on the device, and back for what is to read as zero
 *
 * One step handles the part [s, e) of one extent [x, y), here of an unwritten one:
 *
 *   s == x, e == y   set written; merge with both neighbours
 *   s == x, e <  y   move the border if the extent before it is written and
 *                    contiguous (sequential writing); else insert [e, y)
 *   s >  x, e == y   the mirror image; else insert [s, y)
 *   s >  x, e <  y   split at e, then as above
 *
 * Each step inserts at most one entry and leaves a valid tree, so the handle
 * may be restarted between steps, and a failure leaves at worst an extent
 * split in two of the same state. Written extents beyond the size on disk are
 * an error there; so what has been converted is covered by i_disksize before
 * the transaction can end without the caller's own update of it, that is, at a
 * restart and after an error. It is data that is on the device.
 *
 * The way back is the same with the states exchanged, but that holes are passed
 * over, and that an unwritten extent may be one block shorter than a written one.
 * Which blocks hold what is on the device does not matter there: once a block is
 * unwritten nobody reads it before something new has been written to it. A crash
 * before the commit leaves the old content, or what was written since.
 *
 * If there is no space for a node, a small extent is written whole: zeroes
 * are put on the device where it has no data, then all of it is marked
 * written. That is safe only if nobody else is writing there: a block under
 * write-out has WRITEBACK set from before its extent is looked up until it is
 * converted. It is looked up in the records of its leaf, then under i_data_sem;
 * so with i_data_sem held exclusively, the records forgotten, and after that
 * no such mark in the page cache, whoever comes next finds no record, waits
 * for i_data_sem, sees the extent written, and writes after the zeroes. A
 * direct write has i_direct for that mark. The zeroes are durable before the
 * commit, which flushes the device before its commit block.
 *
 * Locks:  i_data_sem exclusively (RANK_I_DATA) -> leaf lock of the page cache
 * Never:  a handle restarted with i_data_sem held
 * Source: ext4-format brief 6, 12.1
 */
#include "fs/extents_internal.h"

#define ZEROOUT_BYTES (32u << 10)

/* One conversion: the extent at the leaf's pos, of which [s, end) changes state. */
struct conv {
	struct handle *h;
	struct ext_path *p;
	struct ext4_extent_header *leaf;
	u32 i;         /* its index in the leaf */
	struct ext e;
	lblk_t s;
	u64 end;
	bool to; /* the state that [s, end) is to have: unwritten? */
};

static struct ext conv_part(const struct conv *c, u64 from, u64 to, bool unwritten)
{
	return (struct ext){
		.lblk = (lblk_t)from,
		.len = (u32)(to - from),
		.pblk = c->e.pblk + (from - c->e.lblk),
		.unwritten = unwritten,
	};
}

/* Changes the state of the whole extent, in place. The leaf is accessible. */
static void conv_all(struct conv *c)
{
	c->e.unwritten = c->to;
	ext_set(c->leaf, c->i, &c->e);
	ext_merge_pair(c->leaf, c->i);
	if (c->i > 0)
		ext_merge_pair(c->leaf, c->i - 1);
	ext_dirty(c->h, c->p, c->p->depth);
}

/* [x, end) goes to the extent before it, if that is contiguous and in the state
 * that is wanted. */
static bool conv_into_left(struct conv *c)
{
	struct ext left, head = conv_part(c, c->e.lblk, c->end, c->to);
	struct ext tail = conv_part(c, c->end, ext_end(&c->e), !c->to);

	if (c->i == 0)
		return false;
	left = ext_get(c->leaf, c->i - 1);
	if (!ext_mergeable(&left, &head))
		return false;
	left.len += head.len;
	ext_set(c->leaf, c->i - 1, &left);
	ext_set(c->leaf, c->i, &tail);
	ext_dirty(c->h, c->p, c->p->depth);
	return true;
}

/* [s, y) goes to the extent after it. */
static bool conv_into_right(struct conv *c)
{
	struct ext right, tail = conv_part(c, c->s, ext_end(&c->e), c->to);
	struct ext head = conv_part(c, c->e.lblk, c->s, !c->to);

	if (c->i + 1 >= eh_entries(c->leaf))
		return false;
	right = ext_get(c->leaf, c->i + 1);
	if (!ext_mergeable(&tail, &right))
		return false;
	tail.len += right.len;
	ext_set(c->leaf, c->i + 1, &tail);
	ext_set(c->leaf, c->i, &head);
	ext_dirty(c->h, c->p, c->p->depth);
	return true;
}

/* The extent becomes [x, at) and [at, y), each in the given state. */
static int conv_split(struct conv *c, u64 at, bool first_unwritten, bool second_unwritten)
{
	struct ext a = conv_part(c, c->e.lblk, at, first_unwritten);
	struct ext b = conv_part(c, at, ext_end(&c->e), second_unwritten);
	struct ext_room room;
	int err = ext_insert_prepare(c->h, c->p, &room);

	if (err)
		return err;
	ext_set(c->leaf, c->i, &a);
	ext_insert(c->h, c->p, &b, &room);
	return 0;
}

/* Nothing of [from, to) is dirty or on its way to the device. */
static bool conv_quiet(struct ext4_inode *ei, u64 from, u64 to)
{
	u64 direct = atomic_load(&ei->i_direct);

	if (from >= to)
		return true;
	if (from < (lblk_t)direct && to > direct >> 32)
		return false;
	return mapping_next_dirty(&ei->vfs.i_mapping, (lblk_t)from, (lblk_t)to) == to;
}

static int zero_blocks(struct ext4_sb *sbi, const void *zeroes, const struct ext *e)
{
	if (e->len == 0)
		return 0;
	return bdev_write(sbi->bdev, e->pblk << sbi->s.s_blocksize_bits, zeroes,
			  (size_t)e->len << sbi->s.s_blocksize_bits, 0);
}

/*
 * Zeroes the rest of a small extent on the device, so that all of it can be
 * written (there is access to the leaf). -ENOSPC: not allowed: it is large,
 * reaches beyond what the size will cover, or somebody else is writing to it.
 */
static int conv_zeroout(struct conv *c)
{
	struct ext4_inode *ei = c->p->ei;
	struct ext4_sb *sbi = ext4_sb_of(ei);
	u32 bits = sbi->s.s_blocksize_bits;
	u64 y = ext_end(&c->e);
	u64 covered = max_of(DIV_ROUND_UP(ei->i_disksize, sbi->s.s_blocksize), c->end);
	struct ext head = conv_part(c, c->e.lblk, c->s, true);
	struct ext tail = conv_part(c, c->end, y, true);
	void *zeroes;
	int err;

	if ((u64)c->e.len << bits > ZEROOUT_BYTES || y > covered)
		return -ENOSPC;
	/* Before the look at the marks: see the top of this file. */
	mapping_extent_forget(&ei->vfs.i_mapping, c->e.lblk, y);
	if (!conv_quiet(ei, c->e.lblk, c->s) || !conv_quiet(ei, c->end, y))
		return -ENOSPC;
	zeroes = io_alloc(ZEROOUT_BYTES);
	if (!zeroes)
		return -ENOMEM;
	memset(zeroes, 0, ZEROOUT_BYTES);
	err = zero_blocks(sbi, zeroes, &head);
	if (!err)
		err = zero_blocks(sbi, zeroes, &tail);
	io_free(zeroes);
	if (!err)
		conv_all(c);
	return err;
}

/* 0: all of [s, end) is in its new state; 1: look again. */
static int conv_step(struct conv *c)
{
	u64 y = ext_end(&c->e);
	int err = ext_access(c->h, c->p, c->p->depth, c->p->depth);

	if (err)
		return err;
	if (c->s == c->e.lblk && c->end == y) {
		conv_all(c);
	} else if (c->s == c->e.lblk) {
		if (!conv_into_left(c))
			err = conv_split(c, c->end, c->to, !c->to);
	} else if (c->end == y) {
		if (!conv_into_right(c))
			err = conv_split(c, c->s, !c->to, c->to);
	} else {
		err = conv_split(c, c->end, !c->to, !c->to);
		if (!err)
			return 1; /* the next step finds [x, end) */
	}
	if (!c->to && (err == -ENOSPC || err == -EAGAIN)) {
		int zerr = conv_zeroout(c);

		if (zerr != -ENOSPC)
			err = zerr;
	}
	return err;
}

/* A range on its way: [start, cur) is written. */
struct conv_range {
	u64 start, cur, end;
};

/* The size on disk covers what was converted. */
static void cover_size(struct ext4_inode *ei, const struct conv_range *r)
	REQUIRES(&ei->i_data_sem)
{
	u64 size;

	if (r->cur == r->start)
		return;
	spin_lock(&ei->vfs.i_lock);
	size = min_of(ei->vfs.i_size, r->cur << ei->vfs.i_sb->s_blocksize_bits);
	spin_unlock(&ei->vfs.i_lock);
	ei->i_disksize = max_of(ei->i_disksize, size);
}

/* As ext_ensure(); a transaction that ends here has the size it needs. */
static int conv_ensure(struct handle *h, struct ext4_inode *ei, u32 blocks,
		       const struct conv_range *r) REQUIRES(&ei->i_data_sem)
{
	int err = handle_ensure(h, blocks + EXT_SLACK_CREDITS, 0);

	if (err != 1)
		return err;
	cover_size(ei, r);
	return ext_restart(h, ei, blocks, 0);
}

/* A step at r->cur; moves it on when there is nothing (more) to do there. */
static int convert_at(struct handle *h, struct ext4_inode *ei, struct conv_range *r)
	REQUIRES(&ei->i_data_sem)
{
	struct ext_path p;
	struct conv c = { .h = h, .p = &p };
	int err = ext_find(ei, (lblk_t)r->cur, &p);

	if (err)
		return err;
	c.leaf = ext_path_leaf(&p)->eh;
	if (ext_path_leaf(&p)->pos >= 0) {
		c.i = (u32)ext_path_leaf(&p)->pos;
		c.e = ext_get(c.leaf, c.i);
	}
	if (r->cur >= ext_end(&c.e)) {
		err = ext4_error(ext4_sb_of(ei), ei->vfs.i_ino, 0, -EFSCORRUPTED,
				 "block %u was written but is not mapped", (u32)r->cur);
		goto out_path;
	}
	c.s = (lblk_t)r->cur;
	c.end = min_of(r->end, ext_end(&c.e));
	if (!c.e.unwritten) {
		r->cur = c.end;
		goto out_path;
	}
	err = conv_ensure(h, ei, ext_insert_step_credits(p.depth), r);
	if (err == 0)
		err = conv_step(&c);
	if (err == 0)
		r->cur = c.end;
out_path:
	ext_path_put(&p);
	return err < 0 ? err : 0; /* 1: once more from r->cur */
}

int ext4_ext_convert_written(struct handle *h, struct ext4_inode *ei, lblk_t lblk, u32 len)
{
	struct conv_range r = { lblk, lblk, min_of((u64)lblk + len, EXT_LBLK_END) };
	int err = 0, werr = 0;

	if (!ext_inode_has_extents(ei))
		return 0; /* block maps have no unwritten state */
	rwsem_down_write(&ei->i_data_sem);
	while (!err && r.cur < r.end)
		err = convert_at(h, ei, &r);
	/* Half of what fits, so that the next insertion need not grow the tree again. */
	if (!err)
		err = ext_fold(h, ei, 2);
	if (err)
		cover_size(ei, &r);
	/* Before WRITEBACK ends: until then readers find the data in the cache.
	 * After an error some of it may be written. */
	if (err)
		mapping_extent_forget(&ei->vfs.i_mapping, lblk, r.end);
	else
		mapping_extent_written(&ei->vfs.i_mapping, lblk, r.end);
	rwsem_up_write(&ei->i_data_sem);
	/* After an error the caller may not do it, but the root may be new. */
	if (err)
		werr = ext4_mark_inode_datasync(h, ei);
	return err ? err : werr;
}

/* ---- written -> unwritten ---- */

/* Steps between two chances for those who wait for i_data_sem. */
#define STEPS_PER_HOLD 64u

/* Of the leaf where the path ends: the first block after its pos that may be mapped. */
static u64 next_mapped(struct ext_path *p)
{
	const struct ext_node *leaf = ext_path_leaf(p);
	u32 next = (u32)(leaf->pos + 1);

	return next < eh_entries(leaf->eh) ? ext_key(leaf->eh, next) : leaf->bound;
}

/* A step at *cur, which it moves on; not moved: once more. */
static int zero_at(struct handle *h, struct ext4_inode *ei, u64 *cur, u64 end)
	REQUIRES(&ei->i_data_sem)
{
	struct ext_path p;
	struct conv c = { .h = h, .p = &p, .to = true };
	int err = ext_find(ei, (lblk_t)*cur, &p);

	if (err)
		return err;
	c.leaf = ext_path_leaf(&p)->eh;
	if (ext_path_leaf(&p)->pos >= 0) {
		c.i = (u32)ext_path_leaf(&p)->pos;
		c.e = ext_get(c.leaf, c.i);
	}
	if (*cur >= ext_end(&c.e)) { /* a hole */
		*cur = next_mapped(&p);
		goto out_path;
	}
	c.s = (lblk_t)*cur;
	c.end = min_of(end, ext_end(&c.e));
	if (c.e.unwritten) {
		*cur = c.end;
		goto out_path;
	}
	c.end = min_of(c.end, (u64)c.s + EXT4_EXT_UNWRITTEN_MAX_LEN);
	err = ext_ensure(h, ei, ext_insert_step_credits(p.depth), 0);
	if (err == 0) {
		/* A record must not say "written" any more: who believed it
		 * would not convert what he wrote. */
		mapping_extent_forget(&ei->vfs.i_mapping, c.e.lblk, ext_end(&c.e));
		err = conv_step(&c);
	}
	if (err == 0)
		*cur = c.end;
out_path:
	ext_path_put(&p);
	return err < 0 ? err : 0;
}

int ext4_ext_convert_unwritten(struct handle *h, struct ext4_inode *ei, lblk_t start,
			       u64 end)
{
	u64 cur = start;
	int err = 0, werr;

	end = min_of(end, EXT_LBLK_END);
	assert(ext_inode_has_extents(ei));
	rwsem_down_write(&ei->i_data_sem);
	for (u32 steps = 1; !err && cur < end; steps++) {
		err = zero_at(h, ei, &cur, end);
		if (steps % STEPS_PER_HOLD == 0) {
			rwsem_up_write(&ei->i_data_sem);
			rwsem_down_write(&ei->i_data_sem);
		}
	}
	if (!err)
		err = ext_fold(h, ei, 2);
	rwsem_up_write(&ei->i_data_sem);
	/* The root belongs into this transaction, after an error too. */
	werr = ext4_mark_inode_datasync(h, ei);
	return err ? err : werr;
}
