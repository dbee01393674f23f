/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/indirect_write.c - data for holes of files with block maps
 *
 * An extent is unwritten until its data is on the device; a block map has no such
 * state: what is in it is read. So the numbers must not get to the disk before the
 * data, and not without it: not after a crash, nor when the device refuses the data.
 * All is done in one handle, by the thread that writes out:
 *
 *     allocate (bitmap; what is missing of the map)
 *     write the data, and wait for it
 *     enter the numbers, i_blocks, the size on disk
 *
 * The transaction cannot commit while the handle is open, and its commit flushes the
 * device first; so a crash before leaves neither the bitmap nor the map with the
 * blocks, and one after finds data and numbers. If the data does not get there, the
 * blocks are given back in the same handle.
 *
 * Thus a commit may wait for data here, that is, for the run of one write-out for
 * each file under way (512 blocks at most, a request's size for direct I/O). It waits
 * for bios alone, which end on the thread of the device without handle or lock. Nobody
 * waits for WRITEBACK with a handle open: who writes out does not, and a direct write
 * has cleared the cache before. And no end-io worker is needed for what a commit
 * waits for, but for its own blocks; a worker may itself wait for that commit.
 *
 * Between the first and the last step nobody else fills these entries: write-out holds
 * wb_lock, a direct write i_rwsem exclusively with nothing of the range in the cache.
 * Nor does anybody remove the indirect block they stand in, which is empty perhaps:
 * who removes waits for WRITEBACK of his range, and lets an empty block be for which
 * data is on its way (ind_wanted()).
 *
 * A writer learns of ENOSPC at write(2): for its blocks by their reservation, and for
 * indirect blocks because they are made there and then (ext4_ind_prepare()), once in
 * 4 MiB of a file with blocks of 4 KiB. Empty ones are no damage; they go with the
 * next truncation or hole. So write-out finds them there, and what it needs was
 * promised to it.
 *
 * Locks:   handle -> i_data_sem; never i_data_sem over I/O
 * Source:  ext4-format brief 12; data=ordered of ext4(5)
 */
#include "fs/extents_internal.h"

/* The step, the inode, and room for what undoes it. */
#define WRITE_CREDITS (IND_STEP_CREDITS + 2 * EXT4_INODE_CREDITS)

/* ---- before: the indirect blocks ---- */

static int make_once(struct ext4_inode *ei, lblk_t lblk, bool root)
{
	struct handle *h;
	struct buffer *table;
	u32 offset;
	int err, err2;

	err = journal_start(ext4_sb_of(ei)->journal, WRITE_CREDITS, 0, &h);
	if (err)
		return err;
	err = ext4_inode_prepare(h, ei, &table, &offset);
	if (!err) {
		atomic_store(&ei->i_datasync_tid, handle_tid(h));
		rwsem_down_write(&ei->i_data_sem);
		err = ind_make(h, ei, lblk, root ? EXT4_ALLOC_ROOT : 0);
		rwsem_up_write(&ei->i_data_sem);
		ext4_inode_finish(h, ei, table, offset);
	}
	err2 = handle_stop(h);
	return err ? err : err2;
}

int ext4_ind_prepare(struct ext4_inode *ei, lblk_t lblk, u32 nr, bool root)
{
	while (nr) {
		int tries = 0, err;
		bool exists;
		u32 n = nr;

		rwsem_down_read(&ei->i_data_sem);
		err = ind_exists(ei, lblk, &n, &exists);
		rwsem_up_read(&ei->i_data_sem);
		if (err)
			return err;
		while (!exists) {
			err = make_once(ei, lblk, root);
			if (!ext4_should_retry(ext4_sb_of(ei), err, &tries))
				break;
		}
		if (err)
			return err == -EAGAIN ? -ENOSPC : err;
		lblk += n;
		nr -= n;
	}
	return 0;
}

/* ---- the data ---- */

/* The data is down. */
static int enter(struct handle *h, struct ext4_inode *ei, const struct ext4_ind_write *w,
		 const struct ind_slot *slot, pblk_t pblk, u32 n)
{
	u64 end = (u64)w->lblk + n;
	u64 size = min_of(w->size, end << ei->vfs.i_sb->s_blocksize_bits);
	int err;

	rwsem_down_write(&ei->i_data_sem);
	err = ind_enter(h, ei, slot, pblk, n);
	if (!err) {
		if (size > ei->i_disksize)
			ei->i_disksize = size;
		/* The map first, then the leaves. */
		mapping_extent_set(&ei->vfs.i_mapping, w->lblk, end, EXTENT_WRITTEN, pblk);
	}
	rwsem_up_write(&ei->i_data_sem);
	return err;
}

/* They were taken in this handle, and nothing refers to them. */
static void give_back(struct handle *h, struct ext4_inode *ei,
		      const struct ext4_ind_write *w, pblk_t pblk, u32 n)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);

	/* A failure is the allocator's to report; the blocks are lost at worst. */
	(void)!ext4_free_blocks(h, sbi, ei->vfs.i_ino, pblk, n);
	if (w->flags & EXT4_CREATE_DELAYED)
		ext4_restore_reserved(sbi, n);
}

static int write_in(struct handle *h, struct ext4_inode *ei,
		    const struct ext4_ind_write *w, u32 *nr)
{
	struct ind_slot slot;
	pblk_t pblk = 0;
	int err;

	rwsem_down_write(&ei->i_data_sem);
	err = ind_take(h, ei, w->lblk, w->flags, nr, &pblk, &slot);
	rwsem_up_write(&ei->i_data_sem);
	if (err)
		return err;
	err = w->put(w->arg, pblk, *nr);
	/* Of the device: not to be tried again. */
	if (err == -ENOSPC || err == -EAGAIN)
		err = -EIO;
	if (!err)
		err = enter(h, ei, w, &slot, pblk, *nr);
	if (err)
		give_back(h, ei, w, pblk, *nr);
	ind_slot_put(&slot);
	return err;
}

static int write_once(struct ext4_inode *ei, const struct ext4_ind_write *w, u32 *nr)
{
	struct handle *h;
	struct buffer *table;
	u32 offset;
	int err, err2;

	err = journal_start(ext4_sb_of(ei)->journal, WRITE_CREDITS, 0, &h);
	if (err)
		return err;
	/* In two steps: once the data is written nothing may fail. */
	err = ext4_inode_prepare(h, ei, &table, &offset);
	if (!err) {
		atomic_store(&ei->i_datasync_tid, handle_tid(h));
		err = write_in(h, ei, w, nr);
		ext4_inode_finish(h, ei, table, offset);
	}
	err2 = handle_stop(h);
	/* The journal was aborted meanwhile: who hears of an error has his promise yet. */
	if (!err && err2 && w->flags & EXT4_CREATE_DELAYED)
		ext4_restore_reserved(ext4_sb_of(ei), *nr);
	return err ? err : err2;
}

int ext4_ind_write(struct ext4_inode *ei, const struct ext4_ind_write *w, u32 *nr)
{
	u32 want = *nr;
	int tries = 0, err;

	do {
		*nr = want;
		err = write_once(ei, w, nr);
	} while (ext4_should_retry(ext4_sb_of(ei), err, &tries));
	return err == -EAGAIN ? -ENOSPC : err;
}
