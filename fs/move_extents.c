/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/move_extents.c - a file's data moves to the blocks of another one, the donor, and back
 *
 * What e4defrag(8) does: the donor has blocks in a better place, by fallocate(2) mostly.
 * Where both files have an extent, the data is copied to the donor's blocks, and then the
 * two change places:
 *
 *   file   [O: data]       copy O to X, exchange      [X: data]
 *   donor  [X: unwritten]                             [O: unwritten]
 *
 * So the file reads as before, and the donor as zeroes, as the kernel's ext4 leaves it. What is
 * a hole in either stays as it is in both; an unwritten extent changes places without a
 * copy. No block is allocated but for splits of extents, and each file keeps as many.
 *
 * A piece is up to 8 MiB of both files, with their i_rwsem held exclusively:
 *
 *   1. The donor's range leaves the page cache (i_shifting sends those who overwrite what
 *      is cached the long way): it is to read as zero, and what is dirty must not be
 *      written into blocks that are the file's by then.
 *   2. What the donor has written there becomes unwritten, and that is committed: a crash
 *      must not find the file's data in the donor.
 *   3. wb_lock of the file: after WRITEBACK has ended nobody else writes O. Who
 *      overwrites what is cached may go on: write-out finds X.
 *   4. Run by run: the copy, by the device, then a handle for each change of the trees: a
 *      split that makes an extent end where the run does, or the exchange, in both trees
 *      at once. The commit flushes before its commit block: the data is down then.
 *   5. The last exchange is committed before anybody may write to the donor. Else what he
 *      writes to O could be found in the file after a crash.
 *
 * So after a crash, wherever it happens, the file has its bytes, and of the donor's range
 * each block reads as before or as zero. The size on disk, the times and the quota are not
 * concerned. A piece that fails has moved the runs before the failure, and may leave
 * zeroes in the donor for those behind.
 *
 * Locks:   i_rwsem of both, the lower number first -> wb_lock of one of them -> handle ->
 *          i_data_sem of both, the lower number first -> leaf locks. Who has one
 *          i_data_sem only waits for no other, so that only two of us could meet
 * Never:   a copy to blocks that are written in the donor; a wait for WRITEBACK with
 *          a handle open
 * Source:  the kernel's ext4, EXT4_IOC_MOVE_EXT, as seen by its results
 */
#include "cache/window.h"
#include "fs/extents_internal.h"
#include "fs/sim_mutation.h"

#define PIECE_BYTES (8u << 20)
#define PIECE_RUNS 256u

struct move {
	struct ext4_inode *ei, *donor;
	lblk_t start, from; /* in the file, and in the donor */
	u64 len;            /* blocks that are asked for */
	u64 done;           /* ... and gone through */
	u64 moved;
	void *copy; /* EXT_COPY_BYTES */
	bool zeroed, exchanged; /* in this piece: to be committed */
};

/* Blocks of one state that follow each other on the volume, in both files; several extents if
 * one may not be as long. */
struct run {
	lblk_t at, from;
	u32 len;
	pblk_t old, new;
	bool written, donor_written;
};

/* One of the two in an exchange: block at is in the extent e, at the leaf's pos. */
struct side {
	struct ext4_inode *ei;
	lblk_t at;
	struct ext_path path;
	struct ext e;
};

static u64 blocks_of(const struct ext4_inode *ei)
{
	return DIV_ROUND_UP(atomic_load(&ei->vfs.i_size),
			    (u64)ext4_sb_of(ei)->s.s_blocksize);
}

/* ---- what there is ---- */

/* The next run in [*done, end) of the move; its len is 0 if there is none. */
static int next_run(const struct move *m, u64 *done, u64 end, struct run *r)
{
	r->len = 0;
	while (*done < end) {
		struct ext4_map f = { .lblk = (lblk_t)(m->start + *done),
				      .len = (u32)(end - *done) };
		struct ext4_map d = { .lblk = (lblk_t)(m->from + *done) };
		int err = ext4_map_blocks(m->ei, &f);

		d.len = f.len;
		if (!err && f.flags)
			err = ext4_map_blocks(m->donor, &d);
		if (err)
			return err;
		if (f.flags && d.flags) {
			*r = (struct run){
				.at = f.lblk,
				.from = d.lblk,
				.len = d.len,
				.old = f.pblk,
				.new = d.pblk,
				.written = f.flags & EXT4_MAP_MAPPED,
				.donor_written = d.flags & EXT4_MAP_MAPPED,
			};
			return 0;
		}
		*done += d.len;
	}
	return 0;
}

/* -ENODATA, as from ext4: the file has nothing at the end of the range, nor behind it. */
static int expect_data(struct ext4_inode *ei, u64 end)
{
	lblk_t at = (lblk_t)end - 1;

	while (at < EXT4_LBLK_END) {
		struct ext4_map map = { .lblk = at, .len = EXT4_LBLK_END - at };
		int err = ext4_map_blocks(ei, &map);

		if (err || map.flags)
			return err;
		at += map.len;
	}
	return -ENODATA;
}

/* ---- the exchange ---- */

static NO_THREAD_SAFETY void lock_trees(struct move *m)
{
	bool swap = m->donor->vfs.i_ino < m->ei->vfs.i_ino;

	rwsem_down_write(swap ? &m->donor->i_data_sem : &m->ei->i_data_sem);
	rwsem_down_write(swap ? &m->ei->i_data_sem : &m->donor->i_data_sem);
}

static NO_THREAD_SAFETY void unlock_trees(struct move *m)
{
	rwsem_up_write(&m->ei->i_data_sem);
	rwsem_up_write(&m->donor->i_data_sem);
}

/* With an error there is no path to put. */
static int find_side(struct side *s, struct ext4_inode *ei, lblk_t at)
	REQUIRES(&ei->i_data_sem)
{
	const struct ext_node *leaf;
	int err = ext_find(ei, at, &s->path);

	if (err)
		return err;
	s->ei = ei;
	s->at = at;
	leaf = ext_path_leaf(&s->path);
	if (leaf->pos >= 0)
		s->e = ext_get(leaf->eh, (u32)leaf->pos);
	if (leaf->pos >= 0 && at < ext_end(&s->e))
		return 0;
	ext_path_put(&s->path);
	return ext4_error(ext4_sb_of(ei), ei->vfs.i_ino, 0, -EFSCORRUPTED,
			  "block %u lost its extent", at);
}

/* The extent is to be [at, at+len). 1: it was split, or the handle has no credits for that:
 * look again in another one. */
static int fit_side(struct handle *h, struct side *s, u32 len)
{
	u64 end = (u64)s->at + len;
	int err;

	if (s->e.lblk == s->at && ext_end(&s->e) == end)
		return 0;
	err = handle_ensure(h, ext_insert_step_credits(s->path.depth) + EXT_SLACK_CREDITS, 0);
	if (!err)
		err = ext_split(h, &s->path, &s->e, s->e.lblk < s->at ? s->at : end);
	return err ? err : 1;
}

/* There is access to the leaf. */
static void set_side(struct handle *h, struct side *s, pblk_t pblk, bool unwritten)
{
	struct ext_node *leaf = ext_path_leaf(&s->path);
	u32 i = (u32)leaf->pos;

	s->e.pblk = pblk;
	s->e.unwritten = unwritten;
	ext_set(leaf->eh, i, &s->e);
	ext_merge_pair(leaf->eh, i);
	if (i > 0)
		ext_merge_pair(leaf->eh, i - 1);
	ext_dirty(h, &s->path, s->path.depth);
}

/* Both extents begin and end with the blocks that change places. */
static int exchange_extents(struct handle *h, struct side *f, struct side *d)
{
	pblk_t old = f->e.pblk, new = d->e.pblk;
	int err;

	if (!d->e.unwritten)
		return ext4_error(ext4_sb_of(d->ei), d->ei->vfs.i_ino, 0, -EFSCORRUPTED,
				  "block %u is not unwritten any more", d->at);
	err = ext_access(h, &f->path, f->path.depth, f->path.depth);
	if (!err)
		err = ext_access(h, &d->path, d->path.depth, d->path.depth);
	if (err)
		return err;
	mapping_extent_forget(&f->ei->vfs.i_mapping, f->e.lblk, ext_end(&f->e));
	mapping_extent_forget(&d->ei->vfs.i_mapping, d->e.lblk, ext_end(&d->e));
	set_side(h, f, new, f->e.unwritten);
	set_side(h, d, old, true);
	return 0;
}

/*
 * One change of the trees, for the run's first blocks. 0: *len of them have changed places;
 * 1: look again, in another handle.
 */
static int step(struct handle *h, struct move *m, const struct run *r, u32 *len)
	REQUIRES(&m->ei->i_data_sem, &m->donor->i_data_sem)
{
	struct side f, d;
	u64 rest;
	int err = find_side(&f, m->ei, r->at);

	if (err)
		return err;
	err = find_side(&d, m->donor, r->from);
	if (err)
		goto out_file;
	rest = min_of(ext_end(&f.e) - r->at, ext_end(&d.e) - r->from);
	*len = (u32)min_of((u64)r->len, rest);
	err = fit_side(h, &f, *len);
	if (!err)
		err = fit_side(h, &d, *len);
	if (!err)
		err = exchange_extents(h, &f, &d);
	ext_path_put(&d.path);
out_file:
	ext_path_put(&f.path);
	return err;
}

/* step() under its locks, and a root with little below takes that in. */
static NO_THREAD_SAFETY int step_locked(struct handle *h, struct move *m, struct run *r)
{
	int err, err2;
	u32 len;

	lock_trees(m);
	err = step(h, m, r, &len);
	if (!err) {
		m->exchanged = true;
		m->moved += len;
		m->done += len;
		r->at += len;
		r->from += len;
		r->len -= len;
		err = ext_fold(h, m->ei, UINT16_MAX);
		err2 = ext_fold(h, m->donor, UINT16_MAX);
		err = err ? err : err2;
	}
	unlock_trees(m);
	return err;
}

/* All of the run; what has changed places is taken from it. */
static int exchange(struct move *m, struct run *r)
{
	struct ext4_sb *sbi = ext4_sb_of(m->ei);
	int err, err2;

	do {
		struct handle *h;

		err = journal_start(sbi->journal,
				    ext4_ext_insert_credits(m->ei, 1) +
					    ext4_ext_insert_credits(m->donor, 1) +
					    2 * EXT_SLACK_CREDITS,
				    0, &h);
		if (err)
			return err;
		err = step_locked(h, m, r);
		/* The roots belong into this transaction, after an error too. */
		err2 = ext4_mark_inode_datasync(h, m->ei);
		err = err < 0 || !err2 ? err : err2;
		err2 = ext4_mark_inode_datasync(h, m->donor);
		err = err < 0 || !err2 ? err : err2;
		err2 = handle_stop(h);
		err = err < 0 || !err2 ? err : err2;
	} while (err == 1 || (!err && r->len));
	return err;
}

/* ---- a piece ---- */

/* What the donor has written in the piece reads as zero from now on, also after a crash. */
static int zero_donor(struct move *m, u64 end)
{
	struct journal *j = ext4_sb_of(m->ei)->journal;
	u64 done = m->done;
	struct handle *h;
	struct run r;
	int err, err2;

	for (;;) {
		err = next_run(m, &done, end, &r);
		if (err || !r.len)
			break;
		done += r.len;
		if (!r.donor_written)
			continue;
		err = journal_start(j, ext4_ext_insert_credits(m->donor, 1), 0, &h);
		if (err)
			break;
		m->zeroed = true;
		err = ext4_ext_convert_unwritten(h, m->donor, r.from, (u64)r.from + r.len);
		err2 = handle_stop(h);
		err = err ? err : err2;
		if (err)
			break;
	}
	err2 = m->zeroed && !SIM_MUTATION(SIM_MOVE_BEFORE_COMMIT) ? journal_force_commit(j) : 0;
	return err ? err : err2;
}

/* wb_lock of the file; the donor's range is unwritten and not in the cache. */
static int move_runs(struct move *m, u64 end)
{
	mapping_wait_writeback(&m->ei->vfs.i_mapping, (lblk_t)(m->start + m->done),
			       (lblk_t)(m->start + end));
	for (u32 runs = 0; runs < PIECE_RUNS; runs++) {
		struct run r;
		int err = next_run(m, &m->done, end, &r);

		if (err || !r.len)
			return err;
		if (r.written)
			err = ext_copy_blocks(ext4_sb_of(m->ei), r.old, r.new, r.len,
					      m->copy);
		if (!err)
			err = exchange(m, &r);
		if (err)
			return err;
	}
	return 0;
}

/* wb_lock as ext4_empty_cache() leaves it: beyond what clang can follow. */
static NO_THREAD_SAFETY int move_piece(struct move *m, u64 end)
{
	lblk_t from = (lblk_t)(m->from + m->done), to = (lblk_t)(m->from + end);
	int err;

	atomic_store(&m->donor->i_shifting, true);
	err = ext4_empty_cache(m->donor, from, to);
	if (!err) {
		/* i_rwsem is enough: all is absent. */
		mutex_unlock(&m->donor->wb_lock);
		err = zero_donor(m, end);
	}
	if (!err) {
		mutex_lock(&m->ei->wb_lock);
		err = move_runs(m, end);
		mutex_unlock(&m->ei->wb_lock);
	}
	if (m->exchanged && !SIM_MUTATION(SIM_NO_COMMIT_AFTER_MOVE)) {
		int err2 = journal_force_commit(ext4_sb_of(m->ei)->journal);

		err = err ? err : err2;
	}
	atomic_store(&m->donor->i_shifting, false);
	if (m->zeroed || m->exchanged)
		windows_cut(&m->donor->vfs.i_mapping, from, to);
	return err;
}

/* Both i_rwsem are held. */
static int check_files(const struct move *m)
{
	/* The kernel may be swapping to its blocks, past us: see sl_bmap(). */
	if (atomic_load(&m->ei->i_bmapped) || atomic_load(&m->donor->i_bmapped))
		return -ETXTBSY;
	if (m->ei->i_inline || m->donor->i_inline || !ext_inode_has_extents(m->ei) ||
	    !ext_inode_has_extents(m->donor))
		return -EOPNOTSUPP;
	if (m->donor->vfs.i_mode & (S_ISUID | S_ISGID))
		return -EINVAL;
	if (m->donor->vfs.i_flags & (EXT4_IMMUTABLE_FL | EXT4_APPEND_FL))
		return -EPERM;
	return 0;
}

/* As far as both files reach. */
static u64 end_of(const struct move *m)
{
	u64 file = blocks_of(m->ei), donor = blocks_of(m->donor), len;

	if (file <= m->start || donor <= m->from)
		return 0;
	len = min_of(file - m->start, donor - m->from);
	return min_of(m->len, len);
}

/* *more: the range goes on. */
static NO_THREAD_SAFETY int move_some(struct move *m, bool *more)
{
	u32 most = PIECE_BYTES >> ext4_sb_of(m->ei)->s.s_blocksize_bits;
	u64 end;
	int err;

	*more = false;
	m->zeroed = m->exchanged = false;
	ext4_lock_inodes(&m->ei->vfs, &m->donor->vfs);
	err = check_files(m);
	end = end_of(m);
	if (!err && !end)
		err = -EINVAL;
	if (!err && m->done < end)
		err = move_piece(m, min_of(end, m->done + most));
	*more = m->done < end;
	if (!err && !*more)
		err = expect_data(m->ei, m->start + end);
	ext4_unlock_inodes(&m->ei->vfs, &m->donor->vfs);
	return err;
}

static int move_all(struct move *m)
{
	struct ext4_sb *sbi = ext4_sb_of(m->ei);
	int err, tries = 0, pauses = 0;
	bool more;

	/* What has no place yet gets one now; of the donor what can be done without locks. */
	err = ext4_write_range(m->ei, m->start, (lblk_t)(m->start + m->len));
	if (!err)
		err = ext4_write_range(m->donor, m->from, (lblk_t)(m->from + m->len));
	if (err)
		return err;
	do {
		u64 was = m->done;

		budget_throttle(sbi->s.s_budget);
		err = move_some(m, &more);
		if (m->done > was)
			tries = pauses = 0;
	} while (err ? ext4_should_retry(sbi, err, &tries) || ext4_retry_nomem(err, &pauses)
		     : more);
	return err == -EAGAIN ? -ENOSPC : err;
}

int sl_move_extents(struct sl_file *f, struct inode *donor, u64 start, u64 donor_start,
		    u64 len, u64 *moved)
{
	struct inode *inode = sl_file_inode(f);
	struct move m = {
		.ei = EXT4_I(inode),
		.donor = EXT4_I(donor),
		.start = (lblk_t)start,
		.from = (lblk_t)donor_start,
		.len = len,
	};
	int err = ext4_may_write(ext4_sb_of(m.ei));

	*moved = 0;
	if (err)
		return err;
	if (~ext4_file_flags(f) & (SL_OPEN_READ | SL_OPEN_WRITE))
		return -EBADF;
	if (inode == donor || inode->i_sb != donor->i_sb || !S_ISREG(inode->i_mode) ||
	    !S_ISREG(donor->i_mode))
		return -EINVAL;
	/* It would have to be whole clusters, with nothing else in them. */
	if (ext4_sb_of(m.ei)->cluster_bits)
		return -EOPNOTSUPP;
	if (start >= EXT4_LBLK_END || donor_start >= EXT4_LBLK_END || !len ||
	    len >= EXT4_LBLK_END - max_of(start, donor_start))
		return -EINVAL;
	m.copy = io_alloc(EXT_COPY_BYTES);
	if (!m.copy)
		return -ENOMEM;
	err = move_all(&m);
	io_free(m.copy);
	*moved = m.moved;
	return err;
}
