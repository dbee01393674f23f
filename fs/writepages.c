/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/writepages.c - file data from the page cache to the device
 *
 * A pass takes runs of dirty blocks off the mapping (they go under WRITEBACK
 * in the same step), gives those that have no place one, as *unwritten*
 * extents in a handle of their own, and hands them to page-io. When the data
 * is on the device an end-io worker converts the extents and moves the size on
 * disk forward, in one handle; only then does WRITEBACK end. So:
 *
 *   crash before the conversion commits: the blocks read as zero (unwritten),
 *   the size does not cover them; never another file's bytes
 *   commits never wait for data
 *   a reader that finds no folio finds converted extents
 *
 * In block maps, which know nothing of unwritten blocks, new blocks are allocated,
 * written and entered in one handle (indirect_write.c), run by run, and WRITEBACK ends
 * after it. A commit waits for such a run.
 *
 * The size put on disk is the smaller of what it was when the data was
 * submitted and what it is at the end (a truncate may have come between), cut at
 * the end of the blocks written.
 *
 * Locks:   wb_lock (one pass per inode), then handle -> i_data_sem. Never
 *          i_rwsem: a truncate waits for write-out with it held.
 * Source:  ext4-format brief 12; seeds: page-io, P1-P8.
 */
#include "cache/window.h"
#include "fs/ext4.h"
#include "fs/sim_mutation.h"
#include "lib/log.h"
#include "lib/wait.h"
#include "writeback/page_io.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Waits for memory at the end of a write-out, each longer than the last by
 * this much: 10 s in all. */
#define NOMEM_WAITS 100
#define NOMEM_STEP_NS 2000000ull

/* One contiguous piece of a file on its way to the device. */
struct data_io {
	struct io_end ioe;
	struct ext4_inode *ei; /* alive: truncate and evict wait for WRITEBACK */
	lblk_t lblk;
	u32 nr;
	bool unwritten;
	bool plain; /* see is_plain() */
	u64 size;   /* i_size when submitted */
};

static int convert_once(struct data_io *d, u64 disksize)
{
	struct ext4_inode *ei = d->ei;
	struct ext4_sb *sbi = ext4_sb_of(ei);
	struct handle *h;
	int err, err2;

	err = journal_start(sbi->journal,
			    ext4_ext_insert_credits(ei, 2) + EXT4_INODE_CREDITS,
			    0, &h);
	if (err)
		return err;
	if (d->unwritten)
		err = ext4_ext_convert_written(h, ei, d->lblk, d->nr);
	if (!err) {
		rwsem_down_write(&ei->i_data_sem);
		if (disksize > ei->i_disksize)
			ei->i_disksize = disksize;
		rwsem_up_write(&ei->i_data_sem);
		err = ext4_mark_inode_datasync(h, ei);
	}
	err2 = handle_stop(h);
	return err ? err : err2;
}

/*
 * Want of memory passes, and the data is on the device: not an error of the
 * file, but a reason to wait. Each attempt goes on where the last one stopped.
 * Not for ever, or nobody would ever learn of it.
 */
static int convert(struct data_io *d, u64 disksize)
{
	int tries = 0, waits = 0, err;

	do {
		err = convert_once(d, disksize);
		if (err == -ENOMEM && waits < NOMEM_WAITS)
			(void)wait_event_deadline(
				d, false,
				clock_mono_ns() + NOMEM_STEP_NS * ++waits);
		else if (!ext4_should_retry(ext4_sb_of(d->ei), err, &tries))
			break;
	} while (err);
	return err == -EAGAIN ? -ENOSPC : err;
}

int ext4_convert_written(struct ext4_inode *ei, lblk_t lblk, u32 nr, u64 disksize)
{
	struct data_io d = {
		.ei = ei,
		.lblk = lblk,
		.nr = nr,
		.unwritten = true,
	};

	return convert(&d, disksize);
}

/* For the next fsync of the file, and for the next sync of the volume. Returns for
 * how many handles it is known that it concerns them: close(2) tells those. */
static u32 data_lost(struct ext4_inode *ei, lblk_t lblk, u32 nr, int err)
{
	int none = 0;
	u32 told = windows_set_error(&ei->vfs.i_mapping, lblk, lblk + nr, err);

	atomic_compare_exchange_strong(&ext4_sb_of(ei)->wb_err, &none, err);
	return told;
}

/* The size to be put on disk, as it looks now: cut at the end of the blocks. */
static u64 size_reached(const struct data_io *d)
{
	u64 end = (u64)(d->lblk + (u64)d->nr)
		  << ext4_sb_of(d->ei)->s.s_blocksize_bits;

	return min_of(d->size, end);
}

/* An overwrite of what is allocated, written and below the size on disk: its
 * end changes no metadata. (With data_err=abort it may have to end the journal.) */
static bool is_plain(const struct data_io *d)
{
	return !d->unwritten && size_reached(d) <= d->ei->i_disksize &&
	       !ext4_sb_of(d->ei)->opts.data_err_abort;
}

/* End-io worker, and may sleep; plain ones end on the thread that reaps them. */
static void data_io_end(struct io_end *ioe)
{
	struct data_io *d = container_of_type(ioe, struct data_io, ioe);
	struct ext4_inode *ei = d->ei;
	struct inode *inode = &ei->vfs;
	struct ext4_sb *sbi = ext4_sb_of(ei);
	int err = atomic_load(&ioe->error);

	if (err) {
		u32 told = data_lost(ei, d->lblk, d->nr, err);

		log_ratelimited(LOG_LVL_ERR,
				"%s: inode #%u: writing blocks %u-%u failed: %s; data may be lost (of %u open files that wrote there, at least)",
				sbi->s.s_id, inode->i_ino, d->lblk,
				d->lblk + d->nr - 1, strerror(-err), told);
		if (sbi->opts.data_err_abort)
			journal_abort(sbi->journal, err);
	} else if (!d->plain) {
		u64 size, on_disk;

		spin_lock(&inode->i_lock);
		size = min_of(size_reached(d), inode->i_size);
		spin_unlock(&inode->i_lock);
		on_disk = ei->i_disksize;
		if (d->unwritten || size > on_disk)
			err = convert(d, size);
		if (err)
			data_lost(ei, d->lblk, d->nr, err);
	}
	/* The inode may go as soon as this returns: last touch. */
	if (err)
		(void)mapping_fail_writeback(&inode->i_mapping, d->lblk, d->nr, false);
	else
		mapping_end_writeback(&inode->i_mapping, d->lblk, d->nr, false);
	free(d);
}

/* Blocks for [lblk, lblk+*nr), which are DELAYED: the first extent of them. */
static int allocate(struct ext4_inode *ei, lblk_t lblk, u32 *nr, pblk_t *pblk)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	struct ext4_map m;
	struct handle *h;
	int tries = 0, err, err2;
	bool placed;

	do {
		m = (struct ext4_map){ .lblk = lblk, .len = *nr };
		err = journal_start(sbi->journal,
				    ext4_ext_insert_credits(ei, 1) +
					    EXT4_INODE_CREDITS,
				    0, &h);
		if (err)
			return err;
		err = ext4_map_create(h, ei, &m,
				      (SIM_MUTATION(SIM_CONVERT_EARLY)
					       ? 0
					       : EXT4_CREATE_UNWRITTEN) |
					      EXT4_CREATE_DELAYED |
					      EXT4_CREATE_ROOT);
		placed = !err;
		if (!err)
			err = ext4_mark_inode_datasync(h, ei);
		err2 = handle_stop(h);
		err = err ? err : err2;
	} while (ext4_should_retry(sbi, err, &tries));
	/* Also if an error came after it: the reservation has been used. */
	if (placed) {
		mapping_set_mapped(&ei->vfs.i_mapping, m.lblk, m.len);
		/* What was mapped already (fallocate came between) was not
		 * taken from the reservation. */
		if (!(m.flags & EXT4_MAP_NEW))
			ext4_release_reserved(sbi, m.len);
	}
	if (err)
		return err == -EAGAIN ? -ENOSPC : err;
	*nr = m.len;
	*pblk = m.pblk;
	return m.flags & EXT4_MAP_UNWRITTEN ? 1 : 0;
}

/* Adds nr blocks of the run, from `skip` on, to the page-io. Returns how many
 * were added: fewer only if there is no memory. */
static u32 add_segments(struct page_io *io, const struct wb_run *run, u32 skip,
			u32 nr, u64 pos, u8 bits, struct io_end *ioe)
{
	u32 added = 0;

	for (u32 s = 0; s < run->nr_seg && added < nr; s++) {
		u32 n = run->seg[s].blocks;
		u8 *data = run->seg[s].data;

		if (skip >= n) {
			skip -= n;
			continue;
		}
		data += (size_t)skip << bits;
		n = min_of(n - skip, nr - added);
		skip = 0;
		if (page_io_add(io, pos, data, n << bits, ioe))
			break;
		pos += (u64)n << bits;
		added += n;
	}
	return added;
}

/*
 * The run can't be written: its data is lost, and fsync will say so. Not for
 * want of memory: then it stays dirty, and only this pass fails.
 */
static void fail_run(struct ext4_inode *ei, lblk_t lblk, u32 nr, bool delayed,
		     int err)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	struct mapping *m = &ei->vfs.i_mapping;
	u32 n;

	if (err == -ENOMEM) {
		mapping_end_writeback(m, lblk, nr, true);
		return;
	}
	log_ratelimited(LOG_LVL_ERR,
			"%s: inode #%u: blocks %u-%u can't be written: %s; data is lost",
			sbi->s.s_id, ei->vfs.i_ino, lblk, lblk + nr - 1,
			strerror(-err));
	data_lost(ei, lblk, nr, err);
	n = mapping_fail_writeback(m, lblk, nr, delayed);
	if (n)
		ext4_release_reserved(sbi, n);
}

/*
 * Hands blocks [done, done + *nr) of the run, which lie at pblk, to the page-io.
 * -ENOMEM: *nr says how many of them went all the same.
 */
static int submit_extent(struct ext4_inode *ei, struct page_io *io,
			 const struct wb_run *run, u32 done, u32 *nr, pblk_t pblk,
			 bool unwritten)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	struct data_io *d = calloc(1, sizeof(*d));
	u32 want = *nr;

	*nr = 0;
	if (!d)
		return -ENOMEM;
	d->ei = ei;
	d->lblk = run->lblk + done;
	d->unwritten = unwritten;
	spin_lock(&ei->vfs.i_lock);
	d->size = ei->vfs.i_size;
	spin_unlock(&ei->vfs.i_lock);
	d->nr = want;
	d->plain = is_plain(d);
	io_end_init(&d->ioe, data_io_end, d->plain);
	/* Our reference keeps the end away until nr is known. */
	*nr = add_segments(io, run, done, want, pblk << sbi->s.s_blocksize_bits,
			   sbi->s.s_blocksize_bits, &d->ioe);
	d->nr = *nr;
	if (*nr)
		io_end_put(&d->ioe);
	else
		free(d);
	return *nr < want ? -ENOMEM : 0;
}

/* A part of a run whose blocks have no place yet, for a block map. */
struct wb_part {
	struct ext4_inode *ei;
	const struct wb_run *run;
	u32 done; /* where it begins */
	struct io_end ioe;
	_Atomic bool ended; /* wait key */
};

static void part_end(struct io_end *ioe)
{
	struct wb_part *p = container_of_type(ioe, struct wb_part, ioe);

	/* It is on the stack of who waits: last touch, but as an address. */
	atomic_store(&p->ended, true);
	wake_up(&p->ended);
}

static int part_put(void *arg, pblk_t pblk, u32 nr)
{
	struct wb_part *p = arg;
	struct ext4_sb *sbi = ext4_sb_of(p->ei);
	u8 bits = sbi->s.s_blocksize_bits;
	struct page_io io;
	u32 added;
	int err;

	page_io_init(&io, sbi->bdev, BIO_WRITE, 0);
	atomic_store(&p->ended, false);
	io_end_init(&p->ioe, part_end, true);
	added = add_segments(&io, p->run, p->done, nr, pblk << bits, bits, &p->ioe);
	io_end_put(&p->ioe);
	page_io_submit_wait(&io);
	wait_event(&p->ended, atomic_load(&p->ended));
	err = added < nr ? -ENOMEM : atomic_load(&p->ioe.error);
	if (err && err != -ENOMEM && sbi->opts.data_err_abort)
		journal_abort(sbi->journal, err);
	return err;
}

/* Allocates, writes and enters up to *nr blocks of the run; their WRITEBACK ends. */
static int write_part(struct ext4_inode *ei, const struct wb_run *run, u32 done, u32 *nr)
{
	struct mapping *m = &ei->vfs.i_mapping;
	struct wb_part p = { .ei = ei, .run = run, .done = done };
	struct ext4_ind_write w = {
		.lblk = run->lblk + done,
		.flags = EXT4_CREATE_DELAYED | EXT4_CREATE_ROOT,
		.put = part_put,
		.arg = &p,
	};
	int err;

	/* It does not fall meanwhile: truncation wants wb_lock. */
	spin_lock(&ei->vfs.i_lock);
	w.size = ei->vfs.i_size;
	spin_unlock(&ei->vfs.i_lock);
	err = ext4_ind_write(ei, &w, nr);
	if (err) {
		*nr = 0;
		return err;
	}
	mapping_set_mapped(m, w.lblk, *nr);
	mapping_end_writeback(m, w.lblk, *nr, false);
	return 0;
}

/*
 * The front of a delayed run of a file with a block map: 1 if it has a place. A writer who
 * found a hole may come to the cache after another's data for it was written, and what the
 * leaf knew of it was reclaimed: his block became DELAYED, though it is mapped. It does not
 * become mapped from here on: only who holds wb_lock enters what the cache has.
 */
static int find_place(struct ext4_inode *ei, lblk_t lblk, u32 *nr, pblk_t *pblk)
{
	struct ext4_map m = { .lblk = lblk, .len = *nr };
	int err = ext4_map_blocks(ei, &m);
	u32 n;

	if (err)
		return err;
	*nr = m.len;
	if (!m.flags)
		return 0;
	*pblk = m.pblk;
	n = mapping_set_mapped(&ei->vfs.i_mapping, lblk, m.len);
	if (n)
		ext4_release_reserved(ext4_sb_of(ei), n);
	return 1;
}

/* Places and submits one run; every block of it ends its WRITEBACK. */
static int write_run(struct ext4_inode *ei, struct page_io *io, const struct wb_run *run)
{
	u32 done = 0;
	int first = 0;

	while (done < run->nr) {
		lblk_t lblk = run->lblk + done;
		u32 nr = run->nr - done;
		bool unwritten;
		pblk_t pblk = 0;
		int err;

		if (unlikely(atomic_load(&ext4_sb_of(ei)->shut_down))) {
			err = -EIO;
		} else if (run->delayed && !(ei->vfs.i_flags & EXT4_EXTENTS_FL)) {
			err = find_place(ei, lblk, &nr, &pblk);
			if (!err) {
				err = write_part(ei, run, done, &nr);
				if (!err) {
					done += nr;
					continue;
				}
			}
			unwritten = false;
			if (err > 0)
				err = 0;
		} else if (run->delayed) {
			err = allocate(ei, lblk, &nr, &pblk);
			unwritten = err == 1;
			if (err > 0)
				err = 0;
		} else {
			struct ext4_map m = { .lblk = lblk, .len = nr };

			err = ext4_map_blocks(ei, &m);
			if (!err && !m.flags)
				err = ext4_error(ext4_sb_of(ei), ei->vfs.i_ino,
						 0, -EFSCORRUPTED,
						 "block %u lost its extent",
						 lblk);
			nr = m.len;
			pblk = m.pblk;
			unwritten = (m.flags & EXT4_MAP_UNWRITTEN) != 0;
		}
		if (!err) {
			err = submit_extent(ei, io, run, done, &nr, pblk,
					    unwritten);
			done += nr;
		}
		if (err) {
			fail_run(ei, run->lblk + done, run->nr - done,
				 run->delayed, err);
			first = err;
			break;
		}
	}
	return first;
}

/* One pass over the dirty runs of the range. sync: also over those which are
 * still being written as they were before. *next: where it ended. */
static int write_runs(struct ext4_inode *ei, struct page_io *io, bool sync,
		      const struct wb_control *wbc, u64 *budget,
		      struct wb_run *run, lblk_t *next)
{
	struct mapping *m = &ei->vfs.i_mapping;
	u8 bits = ext4_sb_of(ei)->s.s_blocksize_bits;
	lblk_t at = wbc->start;
	int err = 0, err2;

	while (at < wbc->end && *budget) {
		/* What waits for I/O below must not wait for what is still here. */
		if (sync)
			page_io_submit(io);
		mapping_take_dirty(m, at, wbc->end, LEAF_BLOCKS, sync, run);
		if (!run->nr)
			break;
		if (run->lblk != at)
			page_io_hole(io);
		err2 = write_run(ei, io, run);
		err = err ? err : err2;
		at = run->lblk + run->nr;
		*budget -= min_of(*budget, (u64)run->nr << bits);
	}
	*next = at;
	return err;
}

/*
 * What is only dirty goes out first, gathered; a block that was under WRITEBACK
 * and is dirty again has its turn, for sync, when that has ended.
 */
static int write_pages(struct ext4_inode *ei, struct wb_control *wbc)
{
	struct mapping *m = &ei->vfs.i_mapping;
	u64 budget = wbc->nr_to_write ? wbc->nr_to_write : UINT64_MAX;
	struct wb_run run; /* 12 KiB; malloc() would give and take memory each time */
	struct page_io io;
	lblk_t at;
	int err, err2;

	if (!atomic_load(&m->m_nr_dirty))
		return 0;
	page_io_init(&io, ext4_sb_of(ei)->bdev, BIO_WRITE, 0);
	err = write_runs(ei, &io, false, wbc, &budget, &run, &at);
	if (wbc->sync)
		page_io_submit_wait(&io);
	if (wbc->sync && atomic_load(&m->m_nr_dirty)) {
		err2 = write_runs(ei, &io, true, wbc, &budget, &run, &at);
		err = err ? err : err2;
	}
	page_io_submit(&io);
	if (wbc->nr_to_write) {
		wbc->nr_to_write = budget;
		wbc->next = at;
	}
	return err;
}

static int write_attributes(struct ext4_inode *ei)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	struct handle *h;
	int err, err2;

	if (!(atomic_load(&ei->vfs.i_state) & I_DIRTY_INODE))
		return 0;
	err = journal_start(sbi->journal, EXT4_INODE_CREDITS, 0, &h);
	if (err)
		return err;
	err = ext4_mark_inode_dirty(h, ei);
	err2 = handle_stop(h);
	return err ? err : err2;
}

int ext4_write_inode(struct inode *inode, struct wb_control *wbc)
{
	struct ext4_sb *sbi = EXT4_SB(inode->i_sb);
	struct ext4_inode *ei = EXT4_I(inode);
	int err, err2;

	if (!sbi->journal)
		return 0;
	mutex_lock(&ei->wb_lock);
	/* Cleared first: a writer that comes now sets it again. */
	if (wbc->start == 0 && wbc->end >= LBLK_MAX && !wbc->nr_to_write)
		inode_clear_dirty(inode, I_DIRTY_PAGES);
	err = write_pages(ei, wbc);
	if (atomic_load(&inode->i_mapping.m_nr_dirty))
		inode_mark_dirty(inode, I_DIRTY_PAGES);
	else if (wbc->nr_to_write)
		inode_clear_dirty(inode, I_DIRTY_PAGES);
	/* A writer between the test and the clear. */
	if (atomic_load(&inode->i_mapping.m_nr_dirty))
		inode_mark_dirty(inode, I_DIRTY_PAGES);
	if (wbc->sync)
		mapping_wait_writeback(&inode->i_mapping, wbc->start, wbc->end);
	err2 = write_attributes(ei);
	mutex_unlock(&ei->wb_lock);
	return err ? err : err2;
}

int ext4_write_range(struct ext4_inode *ei, lblk_t start, lblk_t end)
{
	struct wb_control wbc = { .sync = true, .start = start, .end = end };
	int err;

	if (!ext4_sb_of(ei)->journal)
		return 0;
	mutex_lock(&ei->wb_lock);
	err = write_pages(ei, &wbc);
	mapping_wait_writeback(&ei->vfs.i_mapping, start, end);
	mutex_unlock(&ei->wb_lock);
	return err;
}

int ext4_sync_inode(struct ext4_inode *ei, bool datasync)
{
	struct wb_control wbc = { .sync = true,
				  .start = 0,
				  .end = EXT4_LBLK_END };

	(void)datasync; /* times alone are cheap: the handle joins the commit */
	return ext4_write_inode(&ei->vfs, &wbc);
}
