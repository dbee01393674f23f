/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/falloc.c - fallocate: preallocation, punching holes, zeroing ranges
 *
 * A range has up to two edges, parts of blocks that are zeroed in the page cache like
 * an ordinary write, and whole blocks in between:
 *
 *        off                                   off + len
 *   .......|xxxxx|.......|.......|.......|xxxx|......
 *           edge  first                   last edge
 *
 * Punching frees the blocks. Zeroing turns written extents to unwritten, in place,
 * and then allocates what is missing. Either way what the page cache has of the
 * whole blocks goes first: WRITEBACK ends, folios are dropped, dirty or not,
 * promised space is given back.
 *
 *   write-out holds no i_rwsem. It may be at a dirty block of the range, with or
 *   without a place for it; but WRITEBACK stands from before it looks at the
 *   extents until they are converted, and while i_rwsem is held exclusively blocks
 *   are made dirty only by who overwrites what is present, which after
 *   mapping_invalidate() nothing is. So after it nothing of the range is under
 *   way, and nothing will be.
 *   The size on disk may have been waiting for one of the blocks that are
 *   dropped: it is brought up to i_size first. What is not written yet below it is
 *   a hole or unwritten on disk, and reads as zero after a crash.
 *   Readers hold i_rwsem, unless they find all in the cache; they do not see
 *   the steps.
 *
 * After a crash each byte of the range is what it was, or zero: a range may take
 * several transactions, each of which leaves a valid tree, and the edges follow with
 * the write-out of their blocks. Freed blocks have no new owner before the commit, and
 * a block that was made unwritten is written anew before it is read.
 *
 * Collapsing and inserting ranges: shift.c. (The kernel's FUSE forwards neither: they
 * come by ioctls of our own.)
 *
 * Locks:   i_rwsem exclusive -> wb_lock, handle -> i_data_sem, leaf locks
 * Never:   a wait for WRITEBACK with a handle open: its end needs one
 * Source:  ext4-format brief 6, 12.3; fallocate(2)
 */
#include "cache/window.h"
#include "fs/ext4.h"
#include "fs/sim_mutation.h"

#include <linux/falloc.h>
#include <stdatomic.h>

/* Bytes [pos, end), end > pos; of which the blocks [first, last) are whole (first
 * >= last: none is). */
struct range {
	u64 pos, end;
	lblk_t first, last;
};

static struct range range_of(const struct ext4_inode *ei, u64 pos, u64 end)
{
	u32 bs = ext4_sb_of(ei)->s.s_blocksize;

	return (struct range){
		.pos = pos,
		.end = end,
		.first = (lblk_t)DIV_ROUND_UP(pos, (u64)bs),
		.last = (lblk_t)(end / bs),
	};
}

/* ------------------------------------------------------------ allocation */

int ext4_preallocate(struct ext4_inode *ei, lblk_t *lblk, lblk_t end, bool root)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	bool promise = !sbi->cluster_bits; /* nothing is delayed with bigalloc */
	u32 flags = EXT4_CREATE_UNWRITTEN | (promise ? EXT4_CREATE_DELAYED : 0) |
		    (root ? EXT4_CREATE_ROOT : 0);
	int tries = 0, err, err2;
	struct ext4_map m;
	struct handle *h;

	do {
		u32 reserved, taken = 0;

		m = (struct ext4_map){ .lblk = *lblk, .len = end - *lblk };
		err = ext4_map_blocks(ei, &m);
		if (err)
			return err;
		if (m.flags)
			break;
		/* Promised first, so that delayed data keeps its blocks. */
		m.len = min_of(m.len, 32767u);
		reserved = promise ? m.len : 0;
		/* Not for none: with bigalloc the cluster may be there, and little else. */
		if (promise)
			err = ext4_reserve_blocks(sbi, reserved, root);
		if (err == -ENOSPC && reserved > 1) {
			m.len = reserved = 1;
			err = ext4_reserve_blocks(sbi, 1, root);
		}
		if (err)
			continue;
		err = journal_start(sbi->journal,
				    ext4_ext_insert_credits(ei, 1) +
					    EXT4_INODE_CREDITS,
				    0, &h);
		if (err) {
			ext4_release_reserved(sbi, reserved);
			return err;
		}
		err = ext4_map_create(h, ei, &m, flags);
		/* A new extent took its share of what was promised, whatever
		 * happens next. */
		if (!err && m.flags & EXT4_MAP_NEW)
			taken = m.len;
		if (reserved > taken)
			ext4_release_reserved(sbi, reserved - taken);
		if (!err)
			err = ext4_mark_inode_datasync(h, ei);
		err2 = handle_stop(h);
		err = err ? err : err2;
	} while (ext4_should_retry(sbi, err, &tries));
	if (!err)
		*lblk += m.len;
	return err == -EAGAIN ? -ENOSPC : err;
}

/* Blocks for all of the range, edges too; the size follows as far as it went. */
static int allocate_range(struct ext4_inode *ei, const struct range *r, bool keep_size,
			  bool root)
{
	u32 bs = ext4_sb_of(ei)->s.s_blocksize;
	lblk_t lblk = (lblk_t)(r->pos / bs);
	lblk_t end = (lblk_t)DIV_ROUND_UP(r->end, (u64)bs);
	u64 reached;
	/* Delayed blocks of the range get their place the usual way. */
	int err = ext4_write_range(ei, lblk, end);

	while (!err && lblk < end)
		err = ext4_preallocate(ei, &lblk, end, root);
	reached = err ? min_of((u64)lblk * bs, r->end) : r->end;
	if (!keep_size && reached > ei->vfs.i_size && reached > r->pos) {
		int err2 = ext4_truncate(ei, reached);

		err = err ? err : err2;
	}
	return err;
}

/* ----------------------------------------------------- punching, zeroing */

static int zero_edges(struct ext4_inode *ei, const struct range *r)
{
	u64 bs = ext4_sb_of(ei)->s.s_blocksize;
	u64 head_end = min_of(ALIGN_UP(r->pos, bs), r->end);
	u64 tail = ALIGN_DOWN(r->end, bs);
	int err = 0;

	if (r->pos < head_end)
		err = ext4_zero_block(ei, r->pos, (u32)(head_end - r->pos));
	if (err >= 0 && tail >= head_end && tail < r->end)
		err = ext4_zero_block(ei, tail, (u32)(r->end - tail));
	return err < 0 ? err : 0;
}

/* The size on disk reaches i_size, if blocks that were to take it there go. */
static int settle_size(struct ext4_inode *ei, u64 end)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	u64 size = ei->vfs.i_size;
	struct handle *h;
	int err, err2;

	if (end < size || ei->i_disksize >= size || SIM_MUTATION(SIM_NO_SIZE_AT_PUNCH))
		return 0;
	err = journal_start(sbi->journal, EXT4_INODE_CREDITS, 0, &h);
	if (err)
		return err;
	rwsem_down_write(&ei->i_data_sem);
	if (ei->i_disksize < size)
		ei->i_disksize = size;
	rwsem_up_write(&ei->i_data_sem);
	err = ext4_mark_inode_datasync(h, ei);
	err2 = handle_stop(h);
	return err ? err : err2;
}

static void drop_cached(struct ext4_inode *ei, const struct range *r)
{
	struct mapping *m = &ei->vfs.i_mapping;
	u32 delayed;

	mapping_wait_writeback(m, r->first, r->last);
	delayed = mapping_invalidate(m, r->first, r->last);
	windows_cut(m, r->first, r->last);
	if (delayed)
		ext4_release_reserved(ext4_sb_of(ei), delayed);
}

/*
 * Frees the whole blocks of the range, or makes them unwritten. What was newer than
 * they are has been dropped: for want of memory or space it tries again.
 */
static int clear_blocks(struct ext4_inode *ei, const struct range *r, bool keep_blocks)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	int tries = 0, pauses = 0, err, err2;
	struct handle *h;

	do {
		u32 credits = keep_blocks ? ext4_ext_insert_credits(ei, 1)
					  : ext4_remove_credits(ei);

		err = journal_start(sbi->journal, credits + EXT4_INODE_CREDITS, 0, &h);
		if (err)
			continue;
		if (keep_blocks)
			err = ext4_ext_convert_unwritten(h, ei, r->first, r->last);
		else
			err = ext4_remove_blocks(h, ei, r->first, r->last, false);
		err2 = handle_stop(h);
		err = err ? err : err2;
	} while (ext4_should_retry(sbi, err, &tries) || ext4_retry_nomem(err, &pauses));
	return err == -EAGAIN ? -ENOSPC : err;
}

/* All of the range reads as zero. */
static int clear_range(struct ext4_inode *ei, const struct range *r, bool keep_blocks)
{
	int err = zero_edges(ei, r);

	if (err || r->first >= r->last)
		return err;
	err = settle_size(ei, r->end);
	if (err)
		return err;
	drop_cached(ei, r);
	return clear_blocks(ei, r, keep_blocks);
}

static int punch(struct ext4_inode *ei, struct range *r)
{
	u64 size = ei->vfs.i_size;

	/* As the kernel's ext4: what lies beyond the end is not touched, the block of
	 * the end goes as a whole. */
	if (r->pos >= size)
		return 0;
	if (r->end >= size)
		*r = range_of(ei, r->pos,
			      ALIGN_UP(size, (u64)ext4_sb_of(ei)->s.s_blocksize));
	return clear_range(ei, r, false);
}

/* ------------------------------------------------------------- fallocate */

static int check_mode(const struct ext4_inode *ei, int mode)
{
	u32 flags = ei->vfs.i_flags;

	switch (mode) {
	case 0:
	case FALLOC_FL_KEEP_SIZE:
		return flags & EXT4_EXTENTS_FL ? 0 : -EOPNOTSUPP;
	case FALLOC_FL_ZERO_RANGE:
	case FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE:
		if (!(flags & EXT4_EXTENTS_FL))
			return -EOPNOTSUPP;
		break;
	case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
	case FALLOC_FL_COLLAPSE_RANGE:
	case FALLOC_FL_INSERT_RANGE:
		break;
	default:
		return -EOPNOTSUPP;
	}
	return flags & EXT4_APPEND_FL ? -EPERM : 0;
}

int sl_fallocate(struct sl_file *f, int mode, u64 off, u64 len,
		 const struct sl_cred *cred)
{
	struct inode *inode = sl_file_inode(f);
	struct ext4_inode *ei = EXT4_I(inode);
	struct ext4_sb *sbi = ext4_sb_of(ei);
	bool root = ext4_is_privileged(sbi, cred);
	struct range r;
	int err;

	if (!len)
		return -EINVAL;
	if (!(ext4_file_flags(f) & SL_OPEN_WRITE))
		return -EBADF;
	err = ext4_write_allowed(ei, off, len);
	if (!err && unlikely(ei->i_inline || ext4_extra_is_small(ei))) {
		rwsem_down_write(&inode->i_rwsem);
		err = ext4_inline_convert(ei);
		if (!err)
			ext4_extra_grow(ei);
		rwsem_up_write(&inode->i_rwsem);
	}
	if (!err)
		err = check_mode(ei, mode);
	if (err)
		return err;
	if (off + len > ext4_max_size(ei))
		return -EFBIG;
	/* FUSE has no word for it here, as it has for write. */
	if (cred && cred->uid) {
		err = ext4_kill_suidgid(ei, cred->gid != inode->i_gid &&
						    !cred->of_group);
		if (err)
			return err;
	}
	budget_throttle(sbi->s.s_budget);
	rwsem_down_write(&inode->i_rwsem);
	/* Again: it may have become a file with a block map, or the other way. */
	err = check_mode(ei, mode);
	if (!err && off + len > ext4_max_size(ei))
		err = -EFBIG;
	if (err)
		goto out_unlock;
	r = range_of(ei, off, off + len);
	if (mode & FALLOC_FL_PUNCH_HOLE) {
		err = punch(ei, &r);
	} else if (mode & FALLOC_FL_COLLAPSE_RANGE) {
		err = ext4_collapse_range(ei, off, len);
	} else if (mode & FALLOC_FL_INSERT_RANGE) {
		err = ext4_insert_range(ei, off, len);
	} else {
		if (mode & FALLOC_FL_ZERO_RANGE)
			err = clear_range(ei, &r, true);
		if (!err)
			err = allocate_range(ei, &r, mode & FALLOC_FL_KEEP_SIZE, root);
	}
	if (!(mode & (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE))) {
		ext4_touch(ei, EXT4_T_CTIME | EXT4_T_MTIME);
		inode_mark_dirty(inode, I_DIRTY_INODE);
	}
out_unlock:
	rwsem_up_write(&inode->i_rwsem);
	if (!err && ext4_file_syncs(f))
		err = sl_fsync(f, false);
	return err;
}
