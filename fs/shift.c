/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/shift.c - fallocate: a range is taken out of a file, or a hole put in between
 *
 * What is behind the range gets other block numbers, and everything that knows a block
 * of the file by its number must let go of it first:
 *
 *   page cache       from the range's start on, dirty data is written, then all goes
 *   records          with the leaves of the extent tree, extents_shift.c
 *   windows          streams begin anew
 *   relocation       holds i_rwsem over each of its pieces, and looks anew in between
 *   swap             knows where blocks are on the volume, by number: -ETXTBSY
 *   kernel           its pages are the caller's matter (src/fuse_shift.c)
 *
 * i_rwsem exclusively keeps out who reads the device, writes, and fills the cache. But
 * blocks that are cached are overwritten without it, and such data must neither be
 * dropped nor stay under its old number: i_shifting sends the writers the long way. Those
 * who had looked at it before may each make blocks dirty once more, so it is written and
 * dropped until, with wb_lock held, all is clean: what is absent then stays so. wb_lock
 * is kept over the shift, so that the extent tree holds still.
 *
 * After a crash, if what changes fits into a transaction (each leaf behind the range, the
 * blocks that become free): the file is as before or as after. Else the kernel's ext4 is
 * no better: of a range that is taken out, or its end, zeroes, while the size is the old one;
 * and then, either way, all that was behind the range is there, in order, with a gap of zeroes
 * of the range's length somewhere in between. (To insert, the size grows first; to
 * collapse, it falls last.) The data itself was on the device before. An I/O error in the
 * middle leaves the same; so all leaves are read before anything changes.
 *
 * The shift is committed before i_rwsem is let go of. Else what is then written to a block
 * that has moved, in place, would be found after a crash where the block was before: bytes
 * that the file never had there.
 *
 * Locks:   i_rwsem exclusive (caller) -> wb_lock -> handle -> i_data_sem
 * Source:  fallocate(2). Next: fs/extents_shift.c
 */
#include "cache/window.h"
#include "fs/ext4.h"

#include <stdatomic.h>

struct job {
	struct ext4_inode *ei;
	lblk_t first;  /* of the range */
	u64 size;      /* to be */
	struct ext4_shift s;
	bool begun;    /* the range is empty; or there is an edge, and the size has grown.
			  The times are new */
};

static void set_sizes(struct ext4_inode *ei, u64 size)
{
	ext4_set_size(ei, size);
	rwsem_down_write(&ei->i_data_sem);
	ei->i_disksize = size;
	rwsem_up_write(&ei->i_data_sem);
}

int ext4_empty_cache(struct ext4_inode *ei, lblk_t start, lblk_t end) NO_THREAD_SAFETY
{
	struct mapping *m = &ei->vfs.i_mapping;
	errseq_t since = mapping_sample_error(m);

	for (;;) {
		int err = ext4_write_range(ei, start, end);

		/* What the device refused is in the cache alone. */
		if (!err)
			err = mapping_peek_error(m, since);
		if (err)
			return err;
		mutex_lock(&ei->wb_lock);
		mapping_wait_writeback(m, 0, EXT4_LBLK_END);
		/* Nobody begins write-out: what is dirty, or gets so, stays dirty. */
		mapping_drop_clean(m, start, end);
		if (mapping_next_dirty(m, start, end) == end)
			break;
		mutex_unlock(&ei->wb_lock);
	}
	return 0;
}

/* What the first transaction does before anything moves. */
static int begin(struct job *j, struct handle *h)
{
	int err = 0;

	if (j->s.right) {
		set_sizes(j->ei, j->size);
	} else {
		set_sizes(j->ei, j->ei->vfs.i_size);
		err = ext4_remove_blocks(h, j->ei, j->first, j->s.start, false);
	}
	if (err)
		return err;
	j->begun = true;
	ext4_touch(j->ei, EXT4_T_CTIME | EXT4_T_MTIME);
	return 0;
}

/* As far as it goes, in one handle; in one transaction, if that can be. */
static int try_shift(struct job *j)
{
	struct ext4_inode *ei = j->ei;
	struct ext4_sb *sbi = ext4_sb_of(ei);
	u32 credits = j->s.right ? ext4_ext_insert_credits(ei, 1) : ext4_remove_credits(ei);
	u32 most = journal_max_credits(sbi->journal) / 2;
	u32 all = j->s.credits + EXT4_INODE_CREDITS;
	struct handle *h;
	int err = 0, err2;

	if (credits + all > most)
		all = EXT4_INODE_CREDITS;
	err = journal_start(sbi->journal, credits + all, 0, &h);
	if (err)
		return err;
	/* Not the first time only: without wb_lock, what is before the edge may have been
	 * written, and become one extent with what is behind. */
	if (j->s.right)
		err = ext4_shift_split(h, ei, &j->s);
	if (!err && !j->begun)
		err = begin(j, h);
	if (!err)
		err = handle_ensure(h, all, 0);
	if (err == 1) {
		err = ext4_mark_inode_datasync(h, ei);
		if (!err)
			err = handle_restart(h, all, 0);
	}
	if (!err)
		err = ext4_shift(h, ei, &j->s);
	if (!err && !j->s.right)
		set_sizes(ei, j->size);
	/* The root belongs into this transaction, after an error too. */
	err2 = ext4_mark_inode_datasync(h, ei);
	err = err ? err : err2;
	err2 = handle_stop(h);
	return err ? err : err2;
}

/* wb_lock as ext4_empty_cache() leaves it: beyond what clang can follow. */
static int run(struct job *j) NO_THREAD_SAFETY
{
	struct ext4_inode *ei = j->ei;
	struct ext4_sb *sbi = ext4_sb_of(ei);
	int err, tries = 0, pauses = 0;
	bool looked = false;

	do {
		err = ext4_empty_cache(ei, j->first, EXT4_LBLK_END);
		if (err)
			break;
		if (!looked)
			err = ext4_shift_look(ei, &j->s);
		looked = !err;
		if (!err)
			err = try_shift(j);
		mutex_unlock(&ei->wb_lock);
	} while (ext4_should_retry(sbi, err, &tries) || ext4_retry_nomem(err, &pauses));
	/* Before anybody writes to blocks where they are now: see above. */
	if (j->begun) {
		int err2 = journal_force_commit(sbi->journal);

		err = err ? err : err2;
	}
	windows_cut(&ei->vfs.i_mapping, j->first, EXT4_LBLK_END);
	return err == -EAGAIN ? -ENOSPC : err;
}

static int shift(struct ext4_inode *ei, u64 off, u64 len, u64 size, bool right)
{
	u8 bits = ext4_sb_of(ei)->s.s_blocksize_bits;
	struct job j = {
		.ei = ei,
		.first = (lblk_t)(off >> bits),
		.size = size,
		.s = { .by = (u32)(len >> bits), .right = right },
	};
	int err;

	assert_rwsem_held_write(&ei->vfs.i_rwsem);
	j.s.start = right ? j.first : j.first + j.s.by;
	atomic_store(&ei->i_shifting, true);
	err = run(&j);
	atomic_store(&ei->i_shifting, false);
	return err;
}

static int check(const struct ext4_inode *ei, u64 off, u64 len)
{
	u64 mask = ext4_sb_of(ei)->s.s_blocksize - 1;

	/* With bigalloc it would have to be whole clusters, which nobody knows. */
	if (!(ei->vfs.i_flags & EXT4_EXTENTS_FL) || ext4_sb_of(ei)->cluster_bits)
		return -EOPNOTSUPP;
	if ((off | len) & mask)
		return -EINVAL;
	/* The kernel may be swapping to its blocks, past us: see sl_bmap(). */
	return atomic_load(&ei->i_bmapped) ? -ETXTBSY : 0;
}

int ext4_collapse_range(struct ext4_inode *ei, u64 off, u64 len)
{
	u64 size = ei->vfs.i_size;
	int err = check(ei, off, len);

	if (err)
		return err;
	/* What reaches the end is truncate's. */
	if (off + len >= size)
		return -EINVAL;
	err = shift(ei, off, len, size - len, false);
	if (!err)
		windows_truncate(&ei->vfs.i_mapping,
				 (lblk_t)DIV_ROUND_UP(size - len,
						      (u64)ext4_sb_of(ei)->s.s_blocksize));
	return err;
}

int ext4_insert_range(struct ext4_inode *ei, u64 off, u64 len)
{
	u64 size = ei->vfs.i_size;
	int err = check(ei, off, len);

	if (err)
		return err;
	if (off >= size)
		return -EINVAL;
	if (len > ext4_max_size(ei) - size)
		return -EFBIG;
	return shift(ei, off, len, size + len, true);
}
