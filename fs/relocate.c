/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/relocate.c - moves the blocks of a file together, while it is in use
 *
 * The file is gone through from its start, in pieces of up to 8 MiB:
 *
 *   [old, old, ...]  the written extents of a piece: copied to one run of new blocks
 *   [new]            behind the end of the piece before it, if that can be had
 *
 * One handle has all of a piece: the allocation, the copy by the device, the switch
 * of each extent in the tree, and the release of the old blocks. The data is on the
 * device before the handle ends, and the commit flushes before its commit block; freed
 * blocks have no new owner before the commit. So after a crash the file is in the one
 * place or in the other, with the same bytes, and no block is lost. Extents are
 * switched in place, one after the other: each step leaves a valid tree, and if one
 * fails the piece ends there and the rest of the new blocks is given back.
 *
 * i_rwsem exclusively keeps out who reads the device, writes, truncates and punches;
 * wb_lock keeps write-out from beginning, and what had begun is waited for. Who
 * overwrites what is cached needs neither, and may go on: his blocks become dirty, are
 * written after us, and find the new place. Both locks are let go of after each piece.
 *
 * A window in the file's tree (WINDOW_MOVE) says what is still to be moved: nobody
 * else moves the same blocks, and nothing is read ahead there.
 *
 * A piece stays where it is if moving it would not leave fewer pieces: an extent
 * alone that cannot be put right behind the one before it, or that fills a piece by
 * itself. Unwritten extents and what lies beyond the end stay, too.
 *
 * Locks:   i_rwsem exclusive -> wb_lock -> handle -> i_data_sem -> leaf locks
 * Never:   a handle restarted between allocation and switch; a wait for
 *          WRITEBACK with a handle open
 * Source:  the idea of EXT4_IOC_MOVE_EXT, without a second file
 */
#include "cache/window.h"
#include "fs/extents_internal.h"

#define PIECE_BYTES (8u << 20)
#define PIECE_EXTENTS 64u
#define PIECE_CREDITS 160u

struct old {
	lblk_t lblk;
	u32 len;
	pblk_t pblk;
};

struct piece {
	struct ext4_inode *ei;
	struct handle *h;
	void *copy; /* EXT_COPY_BYTES */
	struct old old[PIECE_EXTENTS];
	u32 nr;      /* of old[] */
	u32 runs;    /* of blocks that follow each other on the volume */
	u32 len;     /* blocks in all */
	u32 credits;
	pblk_t goal; /* behind the piece before; 0: there is none */
	pblk_t new;
	u32 got;
};

/* ---- what there is ---- */

static lblk_t end_of(const struct ext4_inode *ei)
{
	u64 bs = ext4_sb_of(ei)->s.s_blocksize;

	return (lblk_t)DIV_ROUND_UP(atomic_load(&ei->vfs.i_size), bs);
}

static u32 piece_max(const struct ext4_inode *ei)
{
	return PIECE_BYTES >> ext4_sb_of(ei)->s.s_blocksize_bits;
}

/* What moving [pblk, pblk+len) changes: its leaf, and bitmaps when it is freed. */
static u32 credits_for(const struct ext4_sb *sbi, pblk_t pblk, u32 len)
{
	return 1 + ext_groups_of(sbi, pblk, len) * EXT4_ALLOC_CREDITS;
}

/* The written extents from `at` on, which is mapped so, until the piece is full. */
static int gather(struct piece *p, lblk_t at, lblk_t end)
{
	struct ext4_sb *sbi = ext4_sb_of(p->ei);
	u32 most = journal_max_credits(sbi->journal) / 2;

	p->nr = p->runs = p->len = 0;
	/* the allocation, and a split at each end */
	p->credits = EXT4_ALLOC_CREDITS + EXT4_INODE_CREDITS + EXT_SLACK_CREDITS +
		     ext4_ext_insert_credits(p->ei, 2);
	end = (lblk_t)min_of((u64)end, (u64)at + piece_max(p->ei));
	while (at < end && p->nr < PIECE_EXTENTS) {
		struct ext4_map m = { .lblk = at, .len = end - at };
		const struct old *last = p->nr ? &p->old[p->nr - 1] : NULL;
		int err = ext4_map_blocks(p->ei, &m);
		u32 credits;

		if (err)
			return err;
		if (!(m.flags & EXT4_MAP_MAPPED))
			break;
		credits = credits_for(sbi, m.pblk, m.len);
		if (p->nr && p->credits + credits > min_of(PIECE_CREDITS, most))
			break;
		p->runs += !last || last->pblk + last->len != m.pblk;
		p->old[p->nr++] = (struct old){ at, m.len, m.pblk };
		p->credits += credits;
		p->len += m.len;
		at += m.len;
	}
	return 0;
}

/* Blocks of the first run. */
static u32 first_run(const struct piece *p, pblk_t *end)
{
	u32 len = p->old[0].len;

	for (u32 i = 1; i < p->nr && p->old[i].pblk == p->old[i - 1].pblk + p->old[i - 1].len;
	     i++)
		len += p->old[i].len;
	*end = p->old[0].pblk + len;
	return len;
}

/* Would the file be in fewer places if the first p->got blocks were at p->new? */
static bool is_gain(const struct piece *p)
{
	u32 before = 0, after = p->new != p->goal, done = 0;

	for (u32 i = 0; i < p->nr && done < p->got; i++) {
		const struct old *o = &p->old[i];

		before += !i || p->old[i - 1].pblk + p->old[i - 1].len != o->pblk;
		done += o->len;
		if (done > p->got)
			after++; /* cut in two */
	}
	return after < before;
}

/* ---- the move ---- */

int ext_copy_blocks(struct ext4_sb *sbi, pblk_t from, pblk_t to, u32 len, void *buf)
{
	u8 bits = sbi->s.s_blocksize_bits;
	u32 step = EXT_COPY_BYTES >> bits;
	int err = 0;

	for (u32 i = 0; i < len && !err; i += step) {
		size_t bytes = (size_t)min_of(step, len - i) << bits;

		err = bdev_read(sbi->bdev, (from + i) << bits, buf, bytes);
		if (!err)
			err = bdev_write(sbi->bdev, (to + i) << bits, buf, bytes, 0);
	}
	return err;
}

static int copy_piece(const struct piece *p)
{
	u32 done = 0;
	int err = 0;

	for (u32 i = 0; i < p->nr && done < p->got && !err; i++) {
		u32 len = min_of(p->old[i].len, p->got - done);

		err = ext_copy_blocks(ext4_sb_of(p->ei), p->old[i].pblk, p->new + done,
				      len, p->copy);
		done += len;
	}
	return err;
}

/* The whole extent is at `to` now; what was its place is free. */
static int switch_whole(struct piece *p, struct ext_path *path, struct ext *e, pblk_t to)
{
	struct ext_node *leaf = ext_path_leaf(path);
	u32 i = (u32)leaf->pos;
	pblk_t from = e->pblk;
	int err = ext_access(p->h, path, path->depth, path->depth);

	if (err)
		return err;
	mapping_extent_forget(&p->ei->vfs.i_mapping, e->lblk, ext_end(e));
	e->pblk = to;
	ext_set(leaf->eh, i, e);
	ext_merge_pair(leaf->eh, i);
	if (i > 0)
		ext_merge_pair(leaf->eh, i - 1);
	ext_dirty(p->h, path, path->depth);
	ext4_inode_add_clusters(p->h, p->ei, e->len);
	return ext_free_data(p->h, p->ei, from, e->len, 0);
}

/*
 * One step for the blocks [*at, end), which are one after the other from `to` on: *at
 * moves on if an extent was switched. The handle has credits for all; if they do not
 * suffice after all, the piece ends here.
 */
static int switch_step(struct piece *p, lblk_t *at, lblk_t end, pblk_t to)
	REQUIRES(&p->ei->i_data_sem)
{
	struct ext4_inode *ei = p->ei;
	struct ext_path path;
	struct ext e = { 0 };
	int err = ext_find(p->ei, *at, &path);

	if (err)
		return err;
	if (ext_path_leaf(&path)->pos >= 0)
		e = ext_get(ext_path_leaf(&path)->eh, (u32)ext_path_leaf(&path)->pos);
	if (*at >= ext_end(&e) || e.unwritten) {
		err = ext4_error(ext4_sb_of(ei), ei->vfs.i_ino, 0, -EFSCORRUPTED,
				 "block %u lost its extent", *at);
		goto out_path;
	}
	err = handle_ensure(p->h, ext_insert_step_credits(path.depth) +
				  credits_for(ext4_sb_of(ei), e.pblk, e.len) +
				  EXT_SLACK_CREDITS, 0);
	if (err) {
		err = err < 0 ? err : -ENOSPC;
	} else if (e.lblk < *at) {
		err = ext_split(p->h, &path, &e, *at);
	} else if (ext_end(&e) > end) {
		err = ext_split(p->h, &path, &e, end);
	} else {
		lblk_t next = (lblk_t)ext_end(&e);

		err = switch_whole(p, &path, &e, to);
		/* Also if what was there could not be freed: it is lost then. */
		if (!err || e.pblk == to)
			*at = next;
	}
out_path:
	ext_path_put(&path);
	return err;
}

/* All of the piece; what cannot be switched gives its new blocks back. */
static int switch_piece(struct piece *p)
{
	struct ext4_inode *ei = p->ei;
	lblk_t start = p->old[0].lblk, at = start, end = start + p->got;
	int err = 0, err2;

	rwsem_down_write(&p->ei->i_data_sem);
	while (at < end && !err)
		err = switch_step(p, &at, end, p->new + (at - start));
	if (!err)
		err = ext_fold(p->h, p->ei, UINT16_MAX);
	rwsem_up_write(&p->ei->i_data_sem);
	if (at < end) {
		err2 = ext4_free_blocks(p->h, ext4_sb_of(ei), ei->vfs.i_ino,
					p->new + (at - start), end - at);
		err = err ? err : err2;
	}
	p->got = at - start;
	return err;
}

/* A place for the piece, behind the one before it if that can be. An extent alone has
 * nothing of any other place. */
static int find_place(struct piece *p)
{
	u32 flags = EXT4_ALLOC_DELAYED | EXT4_ALLOC_APPEND;
	int err;

	if (p->runs == 1)
		flags |= EXT4_ALLOC_EXACT_GOAL;
	p->got = p->len;
	rwsem_down_write(&p->ei->i_data_sem);
	err = ext4_alloc_data(p->h, p->ei, p->old[0].lblk, p->goal, flags, &p->got,
			      &p->new);
	rwsem_up_write(&p->ei->i_data_sem);
	if (err)
		p->got = 0;
	return err;
}

/* In one handle. p->got: how many blocks have moved. */
static int move_piece(struct piece *p)
{
	struct ext4_sb *sbi = ext4_sb_of(p->ei);
	ino_nr ino = p->ei->vfs.i_ino;
	int err, err2;

	err = ext4_reserve_blocks(sbi, p->len, true);
	if (err)
		return err;
	err = journal_start(sbi->journal, p->credits, 0, &p->h);
	if (err) {
		ext4_release_reserved(sbi, p->len);
		return err;
	}
	err = find_place(p);
	if (p->len > p->got)
		ext4_release_reserved(sbi, p->len - p->got);
	/* Alone, it stays where it is. */
	if (err == -ENOSPC && p->runs == 1)
		err = 0;
	if (!err && p->got) {
		bool gain = is_gain(p);

		if (gain)
			err = copy_piece(p);
		if (gain && !err) {
			err = switch_piece(p);
		} else {
			err2 = ext4_free_blocks(p->h, sbi, ino, p->new, p->got);
			err = err ? err : err2;
			p->got = 0;
		}
		/* The root belongs into this transaction, after an error too. */
		err2 = ext4_mark_inode_datasync(p->h, p->ei);
		err = err ? err : err2;
	}
	err2 = handle_stop(p->h);
	return err ? err : err2;
}

/* i_rwsem exclusively, wb_lock: what is at *at, which moves on unless there is an error. */
static int relocate_locked(struct piece *p, lblk_t *at, lblk_t end)
{
	struct ext4_inode *ei = p->ei;
	struct ext4_map m = { .lblk = *at, .len = end - *at };
	pblk_t run_end;
	u32 run;
	int err;

	p->got = 0;
	mapping_wait_writeback(&ei->vfs.i_mapping, *at,
			       (lblk_t)min_of((u64)end, (u64)*at + piece_max(ei)));
	err = ext4_map_blocks(ei, &m);
	if (err)
		return err;
	if (!(m.flags & EXT4_MAP_MAPPED) || m.pblk == p->goal || m.len >= piece_max(ei)) {
		if (m.flags)
			p->goal = m.pblk + m.len;
		*at += m.len;
		return 0;
	}
	err = gather(p, *at, end);
	if (err)
		return err;
	run = first_run(p, &run_end);
	if (p->runs > 1 || p->goal)
		err = move_piece(p);
	if (p->got) { /* also before an error */
		mapping_counter_add(ei->vfs.i_sb, RELOCATE_MOVED, p->got);
		*at += p->got;
		p->goal = p->new + p->got;
	} else if (!err) {
		*at += run;
		p->goal = run_end;
	}
	return err;
}

static int relocate_some(struct piece *p, lblk_t *at)
{
	struct ext4_inode *ei = p->ei;
	lblk_t end;
	int err = 0;

	rwsem_down_write(&ei->vfs.i_rwsem);
	mutex_lock(&ei->wb_lock);
	end = end_of(ei);
	/* The kernel may be swapping to its blocks, past us: see sl_bmap(). */
	if (atomic_load(&ei->i_bmapped))
		err = -ETXTBSY;
	else if (!ext_inode_has_extents(ei)) /* any more */
		err = -EOPNOTSUPP;
	else if (*at < end)
		err = relocate_locked(p, at, end);
	mutex_unlock(&ei->wb_lock);
	rwsem_up_write(&ei->vfs.i_rwsem);
	return err;
}

static int relocate(struct piece *p, struct access *window)
{
	struct ext4_inode *ei = p->ei;
	struct ext4_sb *sbi = ext4_sb_of(ei);
	int err = 0, tries = 0, pauses = 0;
	lblk_t at = 0;

	while (at < end_of(ei)) {
		lblk_t was = at;

		err = relocate_some(p, &at);
		windows_moved(&ei->vfs.i_mapping, window, at);
		if (at > was)
			tries = pauses = 0;
		if (err && !ext4_should_retry(sbi, err, &tries) &&
		    !ext4_retry_nomem(err, &pauses))
			break;
		err = 0;
	}
	if (!atomic_load(&ei->i_opens))
		ext4_release_window(sbi, ei->vfs.i_ino);
	return err == -EAGAIN ? -ENOSPC : err;
}

int sl_relocate(struct inode *inode)
{
	struct ext4_inode *ei = EXT4_I(inode);
	struct piece *p;
	struct access window;
	lblk_t end;
	int err = ext4_may_write(ext4_sb_of(ei));

	if (err)
		return err;
	if (!S_ISREG(inode->i_mode))
		return -EINVAL;
	if (inode->i_flags & (EXT4_IMMUTABLE_FL | EXT4_APPEND_FL))
		return -EPERM;
	/* A piece would have to begin and end where nothing else is in its clusters. */
	if (ei->i_inline || !ext_inode_has_extents(ei) || ext4_sb_of(ei)->cluster_bits)
		return -EOPNOTSUPP;
	end = end_of(ei);
	if (!end)
		return 0;
	/* What has no place yet gets one now, not among what is moved. */
	err = ext4_write_range(ei, 0, EXT4_LBLK_END);
	if (err)
		return err;
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->ei = ei;
	p->copy = io_alloc(EXT_COPY_BYTES);
	err = p->copy ? windows_move_begin(&inode->i_mapping, &window, 0, end) : -ENOMEM;
	if (!err) {
		err = relocate(p, &window);
		access_end(&window, &inode->i_mapping);
	}
	io_free(p->copy);
	free(p);
	return err;
}

int sl_extents(struct inode *inode, u64 *nr)
{
	struct ext4_inode *ei = EXT4_I(inode);
	lblk_t at = 0, end;
	pblk_t next = 0;
	int err = 0;

	*nr = 0;
	if (!S_ISREG(inode->i_mode))
		return -EINVAL;
	if (ei->i_inline)
		return 0;
	rwsem_down_read(&inode->i_rwsem);
	end = end_of(ei);
	while (at < end && !err) {
		struct ext4_map m = { .lblk = at, .len = end - at };

		err = ext4_map_blocks(ei, &m);
		if (err)
			break;
		if (m.flags) {
			*nr += m.pblk != next;
			next = m.pblk + m.len;
		}
		at += m.len;
	}
	rwsem_up_read(&inode->i_rwsem);
	return err;
}
