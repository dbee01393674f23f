/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/fiemap.c - where the content of a file lies
 *
 * With i_rwsem shared nothing is cut or punched, but writes into holes and write-out
 * go on. So each extent is true for some moment during the call, in this way: first the
 * marks, then the extents. A block without a mark has what the extents say of it, for
 * write-out changes these before it takes the mark off. One that has a mark and no
 * extent was delayed: the other way round, it could have got both its extent and lost
 * its mark in between, and would look like a hole.
 *
 * Locks:   i_rwsem (shared) -> leaf locks; i_data_sem (shared); xattr_sem
 */
#include "fs/xattr_internal.h"

#include <linux/fiemap.h>

struct walk {
	struct ext4_inode *ei;
	struct sl_extent *out;
	u32 max, nr;
	bool full; /* one more would not fit */
};

static void emit(struct walk *w, lblk_t lblk, pblk_t pblk, u32 len, u32 flags)
{
	u8 bits = ext4_sb_of(w->ei)->s.s_blocksize_bits;
	struct sl_extent e = {
		.logical = (u64)lblk << bits,
		.physical = pblk << bits,
		.length = (u64)len << bits,
		.flags = flags,
	};
	struct sl_extent *last = w->nr ? &w->out[w->nr - 1] : NULL;

	if (last && last->flags == flags &&
	    last->logical + last->length == e.logical &&
	    (!pblk || last->physical + last->length == e.physical))
		last->length += e.length;
	else if (w->nr == w->max)
		w->full = true;
	else
		w->out[w->nr++] = e;
}

/* Of a hole of `len` blocks of which the first has a mark: how many have. */
static u32 delayed_run(struct ext4_inode *ei, lblk_t lblk, u32 len)
{
	u32 n = 1;

	while (n < len && mapping_next_dirty(&ei->vfs.i_mapping, lblk + n,
					     lblk + n + 1) == lblk + n)
		n++;
	return n;
}

static int walk_blocks(struct walk *w, lblk_t lblk, lblk_t end)
{
	struct ext4_inode *ei = w->ei;
	lblk_t dirty = 0;

	while (lblk < end && !w->full) {
		struct ext4_map m = { .lblk = lblk };
		int err;

		if (dirty <= lblk)
			dirty = mapping_next_dirty(&ei->vfs.i_mapping, lblk, end);
		m.len = (dirty > lblk ? dirty : end) - lblk;
		err = ext4_map_blocks(ei, &m);
		if (err)
			return err;
		if (m.flags & EXT4_MAP_MAPPED) {
			emit(w, lblk, m.pblk, m.len, 0);
		} else if (m.flags & EXT4_MAP_UNWRITTEN) {
			emit(w, lblk, m.pblk, m.len, FIEMAP_EXTENT_UNWRITTEN);
		} else if (dirty == lblk) {
			m.len = delayed_run(ei, lblk, m.len);
			emit(w, lblk, 0, m.len, FIEMAP_EXTENT_DELALLOC |
							FIEMAP_EXTENT_UNKNOWN);
		}
		lblk += m.len;
	}
	return 0;
}

/* The content is in the inode itself. */
static int walk_inline(struct walk *w)
{
	struct ext4_sb *sbi = ext4_sb_of(w->ei);
	struct buffer *b;
	u32 offset;
	int err = ext4_inode_buffer(sbi, w->ei->vfs.i_ino, false, &b, &offset);

	if (err)
		return err;
	w->out[w->nr++] = (struct sl_extent){
		.physical = (b->b_blocknr << sbi->s.s_blocksize_bits) + offset +
			    offsetof(struct ext4_inode_disk, i_block),
		.length = w->ei->vfs.i_size,
		.flags = FIEMAP_EXTENT_DATA_INLINE | FIEMAP_EXTENT_NOT_ALIGNED,
	};
	buffer_put(b);
	return 0;
}

static bool has_blocks(const struct inode *inode)
{
	return S_ISREG(inode->i_mode) || S_ISDIR(inode->i_mode);
}

s32 sl_fiemap(struct inode *inode, u64 start, u64 len, bool sync,
	      struct sl_extent *out, u32 max)
{
	struct ext4_inode *ei = EXT4_I(inode);
	u8 bits = inode->i_sb->s_blocksize_bits;
	struct walk w = { .ei = ei, .out = out, .max = max };
	u64 first = start >> bits, end;
	int err = 0;

	if (!len || !max || !has_blocks(inode))
		return -EINVAL;
	end = len > UINT64_MAX - start ? UINT64_MAX : start + len;
	end = DIV_ROUND_UP(min_of(end, (u64)EXT4_LBLK_END << bits), 1ull << bits);
	if (sync && S_ISREG(inode->i_mode))
		err = ext4_write_range(ei, 0, EXT4_LBLK_END);
	if (err)
		return err;
	rwsem_down_read(&inode->i_rwsem);
	if (ei->i_inline)
		err = start < inode->i_size ? walk_inline(&w) : 0;
	else if (first < end)
		err = walk_blocks(&w, (lblk_t)first, (lblk_t)end);
	rwsem_up_read(&inode->i_rwsem);
	if (err)
		return err;
	if (w.nr && !w.full && (ei->i_inline || end == EXT4_LBLK_END))
		out[w.nr - 1].flags |= FIEMAP_EXTENT_LAST;
	return (s32)w.nr;
}

/* Whether there is a list in the body; *at: where that is on the volume. xattr_sem held. */
static int body_list(struct ext4_inode *ei, bool *there, u64 *at)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	struct xattr_list l;
	struct buffer *b;
	u32 offset;
	u8 *raw;
	int err = xattr_read_raw(ei, &raw);

	if (err)
		return err;
	*there = xattr_body_list(sbi, raw, ei->i_extra_isize, &l);
	free(raw);
	err = ext4_inode_buffer(sbi, ei->vfs.i_ino, false, &b, &offset);
	if (err)
		return err;
	*at = (b->b_blocknr << sbi->s.s_blocksize_bits) + offset +
	      EXT4_GOOD_OLD_INODE_SIZE + ei->i_extra_isize;
	buffer_put(b);
	return 0;
}

s32 sl_fiemap_xattr(struct inode *inode, struct sl_extent *out)
{
	struct ext4_inode *ei = EXT4_I(inode);
	struct ext4_sb *sbi = ext4_sb_of(ei);
	bool in_body = false;
	u64 at = 0;
	int err;

	*out = (struct sl_extent){ .flags = FIEMAP_EXTENT_LAST };
	mutex_lock(&ei->xattr_sem);
	err = body_list(ei, &in_body, &at);
	if (in_body) {
		out->physical = at;
		out->length = sbi->inode_size - EXT4_GOOD_OLD_INODE_SIZE - ei->i_extra_isize;
		out->flags |= FIEMAP_EXTENT_DATA_INLINE | FIEMAP_EXTENT_NOT_ALIGNED;
	} else if (ei->i_file_acl) {
		out->physical = ei->i_file_acl << sbi->s.s_blocksize_bits;
		out->length = sbi->s.s_blocksize;
	}
	mutex_unlock(&ei->xattr_sem);
	if (err)
		return err;
	return out->length ? 1 : 0;
}
