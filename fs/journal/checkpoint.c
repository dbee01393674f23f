/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/journal/checkpoint.c - writing committed blocks to their place
 *
 * A committed transaction keeps its part of the log until each of its buffers
 * has been written in place, has been committed again by a later transaction
 * (superseded: the later one has it on its list then), or was freed by a later
 * committed one. Oldest first, a batch at a time: pick up to an arena full of
 * buffers, sort by block, copy each under b_jlock, write, wait, take off the
 * list. Handles never wait for this: a buffer may be changed again while its
 * copy is being written.
 *
 * What is copied is what was last committed: a buffer that the running
 * transaction has (changed, about to be, or freed) is left alone and leaves
 * the list when that one commits. If only such are left and space is needed,
 * the thread commits first (cp_blocked).
 *
 * The tail moves in three steps: flush (in-place writes that ended are
 * durable; they are on the volume's device, the log's has nothing to do with it), journal
 * superblock with FUA on the log's device, and only then is the space free. To
 * save flushes it moves when a quarter of the log can be freed, or when
 * somebody waits and no more can be had.
 *
 * Locks: b_jlock, j_lock. Thread: the journal thread only.
 */
#include "fs/journal/journal_internal.h"
#include "fs/sim_mutation.h"
#include "lib/log.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct cp_item {
	pblk_t blk;
	struct journal_head *jh;
	bool taken; /* copied and written */
};

int checkpoint_alloc(struct journal *j)
{
	if (j->cp_items)
		return 0;
	j->cp_max = 2 * ARENA_HALF / j->blocksize;
	j->cp_items = calloc(j->cp_max, sizeof(*j->cp_items));
	return j->cp_items ? 0 : -ENOMEM;
}

void checkpoint_insert(struct journal *j, struct journal_head *jh, struct transaction *t)
{
	assert_spin_held(&jh->b->b_jlock);
	assert(!jh->cp_t);
	jh->cp_t = t;
	cds_list_add_tail(&jh->cp_link, &t->cp_buffers);
	j->nr_cp++;
}

void checkpoint_remove(struct journal *j, struct journal_head *jh)
{
	assert_spin_held(&jh->b->b_jlock);
	if (!jh->cp_t)
		return;
	cds_list_del(&jh->cp_link);
	jh->cp_t = NULL;
	j->nr_cp--;
}

/* Frees the transactions at the front that have nothing left. */
static void drop_finished(struct journal *j)
{
	while (!cds_list_empty(&j->j_cp)) {
		struct transaction *t =
			cds_list_first_entry(&j->j_cp, struct transaction, cp_link);

		if (!cds_list_empty(&t->cp_buffers))
			return;
		cds_list_del(&t->cp_link);
		transaction_free(t);
	}
}

/* Where the tail could be: the oldest transaction that still has buffers. */
static void tail_candidate(struct journal *j, u32 *start, u32 *seq)
{
	struct transaction *t;

	if (cds_list_empty(&j->j_cp)) {
		*start = j->head;
		*seq = j->next_seq;
		return;
	}
	t = cds_list_first_entry(&j->j_cp, struct transaction, cp_link);
	*start = t->log_start;
	*seq = t->log_seq;
}

static u32 reclaimable(struct journal *j)
{
	u32 start, seq;

	tail_candidate(j, &start, &seq);
	return ring_dist(j, j->tail, start);
}

bool checkpoint_asked_for(struct journal *j)
{
	struct transaction *t;

	if (j->cp_blocked || cds_list_empty(&j->j_cp) ||
	    j->place_asked == atomic_load(&j->place_done))
		return false;
	t = cds_list_first_entry(&j->j_cp, struct transaction, cp_link);
	return tid_geq(j->place_tid, t->tid);
}

bool checkpoint_wanted(struct journal *j)
{
	u32 used = ring_dist(j, j->tail, j->head);

	if (j->space_wanted)
		return !j->cp_blocked || !j->running;
	if (j->cp_blocked)
		return false;
	return used > j->ring / 2 || j->nr_cp > j->max_pinned ||
	       checkpoint_asked_for(j);
}

/* Flush, superblock, and only then the space. */
static void move_tail(struct journal *j)
{
	u32 start, seq;
	int err;

	tail_candidate(j, &start, &seq);
	err = SIM_MUTATION(SIM_NO_FLUSH_AT_TAIL) ? 0 : journal_flush(j);
	if (!err)
		err = journal_write_tail(j, start, seq);
	if (err) {
		log_err("%s: journal: cannot move the log's tail: error %d", j->sb->s_id, -err);
		journal_abort(j, err);
		return;
	}
	jstat_inc(j, tail_updates);
	spin_lock(&j->j_lock);
	j->tail = start;
	j->space_wanted = false;
	spin_unlock(&j->j_lock);
	jevent_wake(&j->ev_start);
}

static int cp_item_cmp(const void *a, const void *b)
{
	const struct cp_item *x = a, *y = b;

	return x->blk < y->blk ? -1 : x->blk > y->blk;
}

static bool jh_in_use(struct journal_head *jh)
{
	bool used;

	spin_lock(&jh->b->b_jlock);
	used = jh->own[0].t || jh->own[1].t;
	spin_unlock(&jh->b->b_jlock);
	return used;
}

/* Fills cp_items from the oldest transactions on; sorted by block. */
static u32 pick(struct journal *j)
{
	struct transaction *t;
	struct journal_head *jh;
	u32 n = 0;

	cds_list_for_each_entry(t, &j->j_cp, cp_link) {
		cds_list_for_each_entry(jh, &t->cp_buffers, cp_link) {
			if (jh_in_use(jh))
				continue;
			j->cp_items[n++] = (struct cp_item){ .blk = jh->b->b_blocknr,
							     .jh = jh };
			if (n == j->cp_max)
				goto out_sort;
		}
	}
out_sort:
	qsort(j->cp_items, n, sizeof(*j->cp_items), cp_item_cmp);
	return n;
}

/*
 * Copies the buffer unless a handle got access since it was picked. Checksums
 * go into the copy: the live buffer has none.
 */
static bool copy_out(struct journal *j, struct journal_head *jh, u8 *dst)
{
	struct buffer *b = jh->b;
	const struct buffer_type *type;
	bool ok;

	spin_lock(&b->b_jlock);
	ok = !jh->own[0].t && !jh->own[1].t;
	if (ok)
		memcpy(dst, b->b_data, j->blocksize);
	spin_unlock(&b->b_jlock);
	if (!ok)
		return false;
	type = atomic_load(&b->b_type);
	if (type && type->freeze)
		type->freeze(j->sb, b->b_blocknr, dst, atomic_load(&b->b_seed));
	return true;
}

bool journal_place_begin(struct journal *j)
{
	atomic_fetch_add(&j->place_seq, 1);
	/* In this order: who aborts and then waits, in journal_wait_places(), sees the odd
	 * number, or this sees the abort. */
	if (!atomic_load(&j->aborted))
		return true;
	journal_place_end(j);
	return false;
}

void journal_place_end(struct journal *j)
{
	atomic_fetch_add(&j->place_seq, 1);
	wake_up(&j->place_seq);
}

void journal_wait_places(struct journal *j)
{
	wait_event(&j->place_seq, atomic_load(&j->place_seq) % 2 == 0);
}

/* Writes what was picked; number written, or -errno. */
static int write_batch(struct journal *j, u32 n)
{
	struct page_io pio;
	struct jio *io = &j->jio[0];
	u8 *at = j->arena;
	int err = 0, err2, written = 0;

	if (!journal_place_begin(j))
		return -EROFS;
	page_io_init(&pio, j->bd, BIO_WRITE, BIO_META);
	jio_begin(io);
	for (u32 i = 0; i < n && !err; i++) {
		struct cp_item *it = &j->cp_items[i];

		it->taken = copy_out(j, it->jh, at);
		if (!it->taken)
			continue;
		err = jio_add(j, j->bd, &pio, io, it->blk * j->blocksize, at, j->blocksize);
		at += j->blocksize;
		written++;
	}
	page_io_submit_wait(&pio);
	jio_end(io);
	err2 = jio_wait(io);
	journal_place_end(j);
	return err ?: err2 ?: written;
}

u64 journal_place_seq(const struct journal *j)
{
	return atomic_load(&j->place_seq);
}

static void remove_written(struct journal *j, u32 n)
{
	for (u32 i = 0; i < n; i++) {
		struct journal_head *jh = j->cp_items[i].jh;
		struct buffer *b = jh->b;

		if (!j->cp_items[i].taken)
			continue;
		spin_lock(&b->b_jlock);
		checkpoint_remove(j, jh);
		jh_put_unlock(b);
	}
}

/* One batch. False: there was nothing that could be written. */
static bool checkpoint_batch(struct journal *j)
{
	u32 n = pick(j);
	int written;

	if (!n)
		return false;
	written = write_batch(j, n);
	if (written < 0) {
		if (written != -EROFS)
			log_err("%s: journal: cannot write metadata to its place: error %d",
				j->sb->s_id, -written);
		journal_abort(j, written);
		return false;
	}
	remove_written(j, n);
	jstat_inc(j, checkpoints);
	jstat_add(j, checkpoint_blocks, (u32)written);
	return written > 0;
}

void checkpoint_step(struct journal *j)
{
	bool wanted, more;
	u32 free_now;

	more = checkpoint_batch(j);
	if (journal_aborted(j))
		return;
	drop_finished(j);
	free_now = reclaimable(j);
	spin_lock(&j->j_lock);
	wanted = j->space_wanted;
	spin_unlock(&j->j_lock);
	if (free_now >= j->ring / 4 || (wanted && free_now && !more)) {
		move_tail(j);
		return;
	}
	if (more)
		return;
	/* Nothing to write and nothing to free: only a commit can help, of a
	 * transaction that is there, or of those who would start one. */
	j->cp_blocked = true;
	if (!wanted)
		return;
	spin_lock(&j->j_lock);
	if (!j->running)
		j->space_wanted = false;
	spin_unlock(&j->j_lock);
	jevent_wake(&j->ev_start);
}

void checkpoint_all(struct journal *j)
{
	drop_finished(j);
	while (!cds_list_empty(&j->j_cp)) {
		bool more = checkpoint_batch(j);

		if (journal_aborted(j))
			return;
		assert(more); /* no transaction is running */
		drop_finished(j);
	}
	move_tail(j);
}

/* [from, end) of the log, which is empty. */
static int erase_blocks(struct journal *j, u32 from, bool discard)
{
	u32 most = 2 * ARENA_HALF / j->blocksize, n;
	int err = 0;

	memset(j->arena, 0, 2 * ARENA_HALF);
	for (; !err && from < j->maxlen; from += n) {
		u64 pos = journal_map(j, from, &n) * j->blocksize;

		if (!discard)
			n = min_of(n, most);
		err = discard ? bdev_discard(j->log_bd, pos, (u64)n * j->blocksize) :
				bdev_write(j->log_bd, pos, j->arena,
					   (size_t)n * j->blocksize, BIO_META);
	}
	return err ?: bdev_flush(j->log_bd);
}

int checkpoint_erase(struct journal *j, bool discard)
{
	int err = journal_aborted(j);

	if (err)
		return err;
	drop_finished(j);
	if (!cds_list_empty(&j->j_cp))
		return -EBUSY;
	/* All is in place; from now on nothing on disk asks for what is erased. */
	err = journal_flush(j);
	if (!err)
		err = journal_write_tail(j, 0, j->next_seq - 1);
	if (err) {
		log_err("%s: journal: cannot empty the log: error %d", j->sb->s_id, -err);
		journal_abort(j, err);
		return err;
	}
	spin_lock(&j->j_lock);
	j->tail = j->head;
	j->space_wanted = false;
	spin_unlock(&j->j_lock);
	jevent_wake(&j->ev_start);
	return erase_blocks(j, j->first, discard);
}

void checkpoint_discard(struct journal *j)
{
	struct transaction *t, *next;
	struct journal_head *jh, *next_jh;

	cds_list_for_each_entry_safe(t, next, &j->j_cp, cp_link) {
		cds_list_for_each_entry_safe(jh, next_jh, &t->cp_buffers, cp_link) {
			struct buffer *b = jh->b;

			spin_lock(&b->b_jlock);
			checkpoint_remove(j, jh);
			jh_put_unlock(b);
		}
		cds_list_del(&t->cp_link);
		transaction_free(t);
	}
}
