/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/truncate.c - changing the size of a file
 *
 * Kept true on disk: bytes between i_size and the end of its block are zero
 * (brief 12.3), so that growing never shows old data, to us or to another
 * implementation. Shrinking therefore writes the zeroed tail block before
 * the transaction with the new size; growing repeats it, for volumes that
 * others wrote.
 *
 * Order of a shrink: the block with the new end into the cache (this may
 * fail) -> [wb_lock: wait for write-out -> size in memory -> drop folios] ->
 * zero the tail and write it -> handle: orphan, size on disk -> remove blocks
 * from the end, over as many transactions as needed -> off the orphan list.
 *
 * Readers and overwriters of cached blocks do not take i_rwsem; they look at
 * the size under the lock of each leaf. So the size falls before anything is
 * dropped or zeroed: who comes to a leaf after it was emptied sees the new
 * size, and what came before is dropped, or zeroed with the tail. Write-out
 * sees the size too: blocks that it takes must not be converted beyond the
 * size on disk, so none is taken between the fall and the drop, and what was
 * taken before has ended.
 *
 * Locks:   i_rwsem exclusive (caller) -> wb_lock -> handle
 */
#include "cache/window.h"
#include "fs/ext4.h"

#include <stdlib.h>
#include <string.h>

/* Reads one written block, with everything beyond i_size zeroed. */
static int read_block(struct ext4_inode *ei, lblk_t lblk, pblk_t pblk, u8 *data)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	u32 bs = sbi->s.s_blocksize;
	u64 pos = (u64)lblk * bs;
	int err = bdev_read(sbi->bdev, pblk * bs, data, bs);

	if (err)
		return err;
	if (pos >= ei->vfs.i_size)
		memset(data, 0, bs);
	else if (ei->vfs.i_size - pos < bs)
		memset(data + (ei->vfs.i_size - pos), 0,
		       bs - (size_t)(ei->vfs.i_size - pos));
	return 0;
}

int ext4_fill_block(struct ext4_inode *ei, lblk_t lblk)
{
	u32 bs = ext4_sb_of(ei)->s.s_blocksize;
	struct ext4_map m = { .lblk = lblk, .len = 1 };
	u64 unknown[LEAF_WORDS], absent[LEAF_WORDS];
	u8 *data;
	int err;

	mapping_query(&ei->vfs.i_mapping, lblk, 1, unknown, absent);
	if (!(absent[0] & 1))
		return 0;
	err = ext4_map_blocks(ei, &m);
	if (err)
		return err;
	data = io_alloc(bs);
	if (!data)
		return -ENOMEM;
	if (m.flags & EXT4_MAP_MAPPED)
		err = read_block(ei, lblk, m.pblk, data);
	else
		memset(data, 0, bs);
	if (!err)
		err = mapping_fill(&ei->vfs.i_mapping, lblk, data);
	io_free(data);
	return err;
}

/*
 * Another try if the folio goes in between: the shrinker may take a clean one
 * at any time, and write-out drops what found no place.
 */
int ext4_zero_block(struct ext4_inode *ei, u64 pos, u32 len)
{
	struct mapping *map = &ei->vfs.i_mapping;
	lblk_t lblk = (lblk_t)(pos / ext4_sb_of(ei)->s.s_blocksize);
	int err;

	do {
		struct ext4_map m = { .lblk = lblk, .len = 1 };
		u64 unknown[LEAF_WORDS], absent[LEAF_WORDS];

		mapping_query(map, lblk, 1, unknown, absent);
		if ((unknown[0] | absent[0]) & 1) {
			err = ext4_map_blocks(ei, &m);
			if (err)
				return err;
			if (!(m.flags & EXT4_MAP_MAPPED) && absent[0] & 1)
				return 0; /* reads as zero already */
			if (!m.flags) {
				/* A clean folio of zeroes over a hole. */
				mapping_drop_clean(map, lblk, lblk + 1);
				return 0;
			}
		}
		if (absent[0] & 1) {
			err = ext4_fill_block(ei, lblk);
			if (err)
				return err;
		}
		err = mapping_zero(map, pos, len, true);
	} while (err == -ENODATA);
	if (err)
		return err;
	inode_mark_dirty(&ei->vfs, I_DIRTY_PAGES);
	return 1;
}

/* [pos, end of its block), as ext4_zero_block(). */
static int zero_rest(struct ext4_inode *ei, u64 pos)
{
	u32 bs = ext4_sb_of(ei)->s.s_blocksize, off = (u32)(pos & (bs - 1));

	return off ? ext4_zero_block(ei, pos, bs - off) : 0;
}

int ext4_zero_tail(struct ext4_inode *ei, u64 old_size)
{
	int err = zero_rest(ei, old_size);

	return err < 0 ? err : 0;
}

static int grow(struct ext4_inode *ei, u64 size)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	struct handle *h;
	int err, err2;

	err = ext4_zero_tail(ei, ei->vfs.i_size);
	if (err)
		return err;
	err = journal_start(sbi->journal, EXT4_INODE_CREDITS, 0, &h);
	if (err)
		return err;
	ext4_set_size(ei, size);
	rwsem_down_write(&ei->i_data_sem);
	ei->i_disksize = size;
	rwsem_up_write(&ei->i_data_sem);
	err = ext4_mark_inode_datasync(h, ei);
	err2 = handle_stop(h);
	return err ? err : err2;
}

/* What zero_rest() will need, as long as nothing has changed yet. */
static int prepare_tail(struct ext4_inode *ei, u64 size)
{
	u32 bs = ext4_sb_of(ei)->s.s_blocksize;
	lblk_t lblk = (lblk_t)(size / bs);
	struct ext4_map m = { .lblk = lblk, .len = 1 };
	u64 unknown[LEAF_WORDS], absent[LEAF_WORDS];
	int err;

	if (!(size & (bs - 1)))
		return 0;
	mapping_query(&ei->vfs.i_mapping, lblk, 1, unknown, absent);
	if (!(absent[0] & 1))
		return 0;
	err = ext4_map_blocks(ei, &m);
	if (!err && m.flags & EXT4_MAP_MAPPED)
		err = ext4_fill_block(ei, lblk);
	return err;
}

static int try_remove_tail(struct ext4_inode *ei, u64 size, lblk_t keep)
{
	const u32 last = EXT4_ORPHAN_CREDITS + EXT4_INODE_CREDITS;
	struct ext4_sb *sbi = ext4_sb_of(ei);
	struct handle *h;
	int err, err2;

	err = journal_start(sbi->journal, ext4_remove_credits(ei) + last, 0, &h);
	if (err)
		return err;
	err = ext4_orphan_add(h, ei);
	if (err)
		goto stop;
	rwsem_down_write(&ei->i_data_sem);
	/* Also up: what is not written yet below it is a hole on disk. */
	ei->i_disksize = size;
	rwsem_up_write(&ei->i_data_sem);
	err = ext4_mark_inode_datasync(h, ei);
	if (!err)
		err = ext4_remove_blocks(h, ei, keep, (u64)LBLK_MAX + 1, false);
	if (!err)
		err = handle_ensure(h, last, 0);
	if (err == 1)
		err = handle_restart(h, last, 0);
	/* An unlinked file stays an orphan. */
	if (!err && ei->vfs.i_nlink)
		err = ext4_orphan_del(h, ei);
	if (!err)
		err = ext4_mark_inode_datasync(h, ei);
stop:
	err2 = handle_stop(h);
	return err ? err : err2;
}

/* The file is shorter in memory already: what is cut off is to go. */
static int remove_tail(struct ext4_inode *ei, u64 size, lblk_t keep)
{
	int err, tries = 0;

	do {
		err = try_remove_tail(ei, size, keep);
	} while (ext4_retry_nomem(err, &tries));
	return err;
}

static int shrink(struct ext4_inode *ei, u64 size)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	struct mapping *m = &ei->vfs.i_mapping;
	u32 bs = sbi->s.s_blocksize;
	lblk_t keep = (lblk_t)DIV_ROUND_UP(size, (u64)bs);
	u32 delayed;
	int err, tries = 0;

	err = prepare_tail(ei, size);
	if (err)
		return err;
	mutex_lock(&ei->wb_lock);
	/* With indirect maps too: removal is from the end only. */
	mapping_wait_writeback(m, keep ? keep - 1 : 0, EXT4_LBLK_END);
	ext4_set_size(ei, size);
	windows_truncate(m, keep);
	delayed = mapping_invalidate(m, keep, EXT4_LBLK_END);
	mutex_unlock(&ei->wb_lock);
	if (delayed)
		ext4_release_reserved(sbi, delayed);
	/*
	 * There is no way back. Should the zeroes not get to the device, then
	 * as with any data the next fsync says so; growing zeroes again.
	 */
	do {
		err = zero_rest(ei, size);
		if (err == 1)
			err = ext4_write_range(ei, keep - 1, keep);
	} while (ext4_retry_nomem(err, &tries));
	if (!size && !sbi->opts.noauto_da_alloc)
		ei->i_flush_on_close = true;
	return remove_tail(ei, size, keep);
}

int ext4_truncate(struct ext4_inode *ei, u64 size)
{
	int err;

	assert_rwsem_held_write(&ei->vfs.i_rwsem);
	err = ext4_inline_convert(ei);
	if (err)
		return err;
	if (size > ei->vfs.i_size)
		return grow(ei, size);
	/* At equal size too: blocks preallocated beyond the end go. */
	return shrink(ei, size);
}
