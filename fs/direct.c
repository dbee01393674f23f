/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/direct.c - large writes of O_DIRECT: from the caller's memory to the device
 *
 * The client has said that it will not read this soon, so the data does not go
 * through the page cache: no copy, no memory, and no second thread. The order on
 * disk is that of write-out: blocks are allocated unwritten, the data
 * goes down, then a handle makes them written and moves the size. A crash before
 * its commit leaves holes or zeroes, never another file's bytes.
 *
 * What is written already, and below the size on disk, is overwritten with i_rwsem
 * shared: several at the same time, as the kernel cuts a large write into requests.
 * Nothing of the file changes but bytes, and who reads or writes the same ones at
 * the same time gets what he would get of any device. But no two answers:
 *
 *   in the cache before            written out, waited for, dropped: then the transfer
 *   written to the cache meanwhile dirty: goes over this one, later; on its way, or
 *                                  clean again: the device may have either, and the
 *                                  cache the other. So after the transfer what is on
 *                                  its way is waited for, and what is clean goes.
 *   read meanwhile                 not entered into the cache; where that is done (-o
 *                                  datacache=full) nothing is shared
 *   read ahead meanwhile           not begun; and while that is under way, nothing is
 *                                  shared (i_overwrites): it would be older than the
 *                                  transfer, and whoever wrote to a part of it would put
 *                                  the rest back on the device
 *   filled, to be written in part  with i_rwsem exclusively: not meanwhile
 *
 * All else holds i_rwsem exclusively, over the I/O too. So nobody reads or writes the
 * file but where it is cached, and nothing of the range gets into the page cache
 * once it is cleared (an overwrite of what was there came before this one):
 * what is not there is read from the device, which has it by then. An extent is
 * cleared when it has its place, right before the transfer: where this write does
 * not get to, for want of space, an overwrite that came meanwhile is kept. Small
 * direct writes are not worth that: they go through the cache as all others do.
 *
 * In a block map holes are filled in one handle that is open over the transfer
 * (indirect_write.c). What the cache has of them goes before: zeroes that were read.
 *
 * Blocks that may be unwritten are in i_direct from before they are looked up until
 * they are converted, as others are under WRITEBACK: the end of a write-out beside them
 * must not zero them on the device (extents_convert.c).
 *
 * Like any write, this one is durable with the next fsync, which flushes.
 *
 * Locks:   i_rwsem -> wb_lock, handles, i_data_sem, as for truncate
 * Source:  open(2) on O_DIRECT. Next: writepages.c
 */
#include "cache/window.h"
#include "fs/ext4.h"
#include "fs/fs.h"

#include <stdatomic.h>

/* Below this a copy is cheaper than to keep others out during the I/O. */
#define DIRECT_MIN (64u << 10)

/* Whole blocks at the front of [pos, pos+len) that can go directly, in bytes. */
static u64 direct_part(const struct ext4_inode *ei, const void *buf, u64 len,
		       u64 pos)
{
	const struct ext4_sb *sbi = ext4_sb_of(ei);
	u64 bs = sbi->s.s_blocksize;

	if (pos % bs || (uintptr_t)buf & (sbi->bdev->bd_sector - 1) || ei->i_inline)
		return 0;
	len = ALIGN_DOWN(len, bs);
	return len < DIRECT_MIN ? 0 : len;
}

/* What the cache has of the range is written. */
static int write_cache(struct ext4_inode *ei, lblk_t start, lblk_t end)
{
	if (mapping_is_clean(&ei->vfs.i_mapping))
		return 0;
	return ext4_write_range(ei, start, end);
}

/* What the cache has of an extent that is overwritten now. */
static void drop_cache(struct ext4_inode *ei, lblk_t start, lblk_t end)
{
	struct mapping *m = &ei->vfs.i_mapping;
	u32 n;

	/* Without i_rwsem nothing new comes, or what comes is dirty. */
	if (!atomic_load(&m->m_nr_folio_blocks))
		return;
	n = mapping_invalidate(m, start, end);
	if (n) /* promised to what had no place, and is overwritten now */
		ext4_release_reserved(ext4_sb_of(ei), n);
}

/* The extent at the front of [pos, pos+len), allocated if need be; in a block map a hole
 * stays one. */
static int place(struct ext4_inode *ei, u64 pos, u64 len, bool root,
		 struct ext4_map *m)
{
	u8 bits = ext4_sb_of(ei)->s.s_blocksize_bits;
	lblk_t lblk = (lblk_t)(pos >> bits), at = lblk;
	u32 nr = (u32)(len >> bits);
	int err;

	*m = (struct ext4_map){ .lblk = lblk, .len = nr };
	err = ext4_map_blocks(ei, m);
	if (err || m->flags || !(ei->vfs.i_flags & EXT4_EXTENTS_FL))
		return err;
	err = ext4_preallocate(ei, &at, lblk + m->len, root);
	if (err)
		return err;
	*m = (struct ext4_map){ .lblk = lblk, .len = nr };
	err = ext4_map_blocks(ei, m);
	if (!err && !m->flags)
		err = ext4_error(ext4_sb_of(ei), ei->vfs.i_ino, 0, -EFSCORRUPTED,
				 "block %u lost its extent", lblk);
	return err;
}

/* What the cache has of the range is newer than the transfer, or goes. */
static void settle_cache(struct ext4_inode *ei, lblk_t start, lblk_t end)
{
	struct mapping *m = &ei->vfs.i_mapping;

	if (!atomic_load(&m->m_nr_folio_blocks))
		return;
	mapping_wait_writeback(m, start, end);
	mapping_drop_clean(m, start, end);
}

/* [m->lblk, m->lblk + m->len) to its place on the device. */
static int transfer(struct ext4_inode *ei, const struct ext4_map *m, const void *buf)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	u8 bits = sbi->s.s_blocksize_bits;
	int err;

	drop_cache(ei, m->lblk, m->lblk + m->len);
	err = bdev_write(sbi->bdev, m->pblk << bits, buf, (u64)m->len << bits, 0);
	/* What the cache had may have been newer than the device. */
	if (err)
		windows_set_error(&ei->vfs.i_mapping, m->lblk, m->lblk + m->len,
				  err);
	return err;
}

struct put {
	struct ext4_inode *ei;
	const void *buf;
};

static int put_blocks(void *arg, pblk_t pblk, u32 nr)
{
	const struct put *p = arg;
	struct ext4_sb *sbi = ext4_sb_of(p->ei);
	u8 bits = sbi->s.s_blocksize_bits;

	return bdev_write(sbi->bdev, pblk << bits, p->buf, (u64)nr << bits, 0);
}

/* The front of a hole of m->len blocks in a block map. Bytes, or the error. */
static s64 fill_hole(struct ext4_inode *ei, const struct ext4_map *m, const void *buf,
		     bool root)
{
	u8 bits = ext4_sb_of(ei)->s.s_blocksize_bits;
	struct put p = { .ei = ei, .buf = buf };
	struct ext4_ind_write w = {
		.lblk = m->lblk,
		.flags = root ? EXT4_CREATE_ROOT : 0,
		.size = ((u64)m->lblk + m->len) << bits,
		.put = put_blocks,
		.arg = &p,
	};
	u32 nr = m->len;
	u64 end;
	int err;

	/* Not with the handle open: this may wait for WRITEBACK. */
	drop_cache(ei, m->lblk, m->lblk + m->len);
	err = ext4_ind_write(ei, &w, &nr);
	if (err)
		return err;
	end = ((u64)m->lblk + nr) << bits;
	if (end > ei->vfs.i_size)
		ext4_set_size(ei, end);
	return (s64)nr << bits;
}

/* Writes one extent's worth. Bytes, or the error. */
static s64 write_extent(struct ext4_inode *ei, const void *buf, u64 len, u64 pos,
			bool root)
{
	u8 bits = ext4_sb_of(ei)->s.s_blocksize_bits;
	struct ext4_map m;
	u64 bytes, end;
	int err = place(ei, pos, len, root, &m);

	if (err)
		return err;
	if (!m.flags)
		return fill_hole(ei, &m, buf, root);
	bytes = (u64)m.len << bits;
	end = pos + bytes;
	err = transfer(ei, &m, buf);
	if (!err && (m.flags & EXT4_MAP_UNWRITTEN || end > ei->i_disksize))
		err = ext4_convert_written(ei, m.lblk, m.len, end);
	if (err)
		return err;
	if (end > ei->vfs.i_size)
		ext4_set_size(ei, end);
	return (s64)bytes;
}

/* Something of it was written: times and version. */
static void wrote(struct ext4_inode *ei, bool keep_times)
{
	struct inode *inode = &ei->vfs;

	spin_lock(&inode->i_lock);
	inode->i_version++;
	spin_unlock(&inode->i_lock);
	ext4_touch(ei, keep_times ? 0 : EXT4_T_CTIME | EXT4_T_MTIME);
	inode_mark_dirty(inode, I_DIRTY_INODE);
}

/* False: what the device has is being read ahead. */
static bool overwrite_begin(struct ext4_inode *ei)
{
	s32 n = atomic_load(&ei->i_overwrites);

	while (n >= 0)
		if (atomic_compare_exchange_weak(&ei->i_overwrites, &n, n + 1))
			return true;
	return false;
}

/*
 * The front of [pos, pos+len) as far as it lies in written extents, with i_rwsem
 * shared. Bytes; less than len without an error: the rest is another's matter.
 */
static u64 overwrite(struct ext4_inode *ei, const u8 *buf, u64 len, u64 pos,
		     bool keep_times, int *err)
{
	struct inode *inode = &ei->vfs;
	u8 bits = inode->i_sb->s_blocksize_bits;
	lblk_t start = (lblk_t)(pos >> bits), end = (lblk_t)((pos + len) >> bits);
	u64 done = 0;

	if (inode->i_sb->s_data_full)
		return 0;
	rwsem_down_read(&inode->i_rwsem);
	if (pos + len > min_of(atomic_load(&inode->i_size),
			       atomic_load(&ei->i_disksize)) ||
	    !overwrite_begin(ei))
		goto out;
	*err = write_cache(ei, start, end);
	while (!*err && done < len) {
		struct ext4_map m = { .lblk = (lblk_t)((pos + done) >> bits),
				      .len = (u32)((len - done) >> bits) };

		*err = ext4_map_blocks(ei, &m);
		if (*err || !(m.flags & EXT4_MAP_MAPPED))
			break;
		*err = transfer(ei, &m, buf + done);
		settle_cache(ei, m.lblk, m.lblk + m.len);
		if (!*err)
			done += (u64)m.len << bits;
	}
	if (done)
		wrote(ei, keep_times);
	atomic_fetch_sub(&ei->i_overwrites, 1);
out:
	rwsem_up_read(&inode->i_rwsem);
	return done;
}

size_t ext4_direct_write(struct ext4_inode *ei, const void *buf, size_t len,
			 u64 pos, bool root, bool keep_times, int *err)
{
	struct inode *inode = &ei->vfs;
	u8 bits = inode->i_sb->s_blocksize_bits;
	u64 part = direct_part(ei, buf, len, pos), done, before;
	lblk_t start, end = (lblk_t)((pos + part) >> bits);

	*err = 0;
	if (!part)
		return 0;
	done = before = overwrite(ei, buf, part, pos, keep_times, err);
	if (*err || done == part)
		return (size_t)done;
	start = (lblk_t)((pos + done) >> bits);
	rwsem_down_write(&inode->i_rwsem);
	if (pos + done > inode->i_size)
		*err = ext4_zero_tail(ei, inode->i_size);
	if (!*err)
		*err = write_cache(ei, start, end);
	atomic_store(&ei->i_direct, (u64)start << 32 | end);
	while (!*err && done < part) {
		s64 n = write_extent(ei, (const char *)buf + done, part - done,
				     pos + done, root);

		if (n < 0)
			*err = (int)n;
		else
			done += (u64)n;
	}
	atomic_store(&ei->i_direct, 0);
	if (done > before)
		wrote(ei, keep_times);
	rwsem_up_write(&inode->i_rwsem);
	return (size_t)done;
}
