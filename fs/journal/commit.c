/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/journal/commit.c - writing a transaction to the log
 *
 * The order is everything:
 *   1. no new handles; wait for those open; pre_commit; switch
 *   2. the very first transaction: journal superblock with s_start (FUA)
 *   3. revoke blocks, descriptors and images; wait for all of them
 *   4. flush: these, and all file data that ended before, are durable. With an external
 *      journal two devices are flushed: the log's for these, the volume's for the data;
 *      a commit block that is on its device before the data is on the other would make
 *      visible what is not there
 *   5. commit block with FUA: now the transaction counts
 *   6. its buffers go from older checkpoint lists to its own; freed ones off
 *      all lists; callbacks (freed blocks become allocatable); waiters
 * A transaction that changed nothing skips 2 to 5. Numbers in the log count
 * written transactions only and follow one another without a gap, as recovery
 * demands; the tids that callers wait for count all of them. That is why a
 * transaction has both.
 *
 * A volume without a journal has no log either (j->in_place): the images go to their
 * places in step 3, after a flush, or a file could be found in blocks that its data has
 * not reached; 2 and 5 are left out. What a transaction changed is durable
 * when it has ended, and nothing is left for a checkpoint; but a power cut in the middle
 * of it leaves a part, which is for e2fsck.
 *
 * Log blocks are gathered in two halves of an arena: one is filled while the
 * other is being written. A half is closed before a descriptor that wouldn't
 * fit in it with its images, so that every descriptor but the last is full
 * (transaction_need() counts on that).
 *
 * Locks: b_jlock -> j_lock. Thread: the journal thread only.
 * Alive: a committing transaction's members (see journal_internal.h).
 */
#include "fs/journal/journal_internal.h"
#include "fs/sim_mutation.h"
#include "lib/log.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- the log writer ---- */

struct log_writer {
	struct journal *j;
	struct page_io pio;
	u32 next;       /* log block of the next block taken */
	u32 half;       /* 0 or 1: being filled */
	u32 used;       /* blocks of it */
	u32 half_start; /* log block of its first */
	u32 half_blocks;
};

static u8 *half_block(const struct log_writer *w, u32 n)
{
	return w->j->arena + (size_t)w->half * ARENA_HALF + (size_t)n * w->j->blocksize;
}

static void log_writer_init(struct log_writer *w, struct journal *j)
{
	memset(w, 0, sizeof(*w));
	w->j = j;
	page_io_init(&w->pio, j->log_bd, BIO_WRITE, BIO_META);
	w->next = w->half_start = j->head;
	w->half_blocks = ARENA_HALF / j->blocksize;
}

static pblk_t *half_home(const struct log_writer *w, u32 n)
{
	return &w->j->homes[w->half * w->half_blocks + n];
}

/* The half being filled: images to their places. */
static int add_in_place(struct log_writer *w, struct jio *io)
{
	struct journal *j = w->j;
	int err = 0;

	for (u32 n = 0; n < w->used && !err; n++)
		if (*half_home(w, n) != PBLK_NONE)
			err = jio_add(j, j->bd, &w->pio, io, *half_home(w, n) * j->blocksize,
				      half_block(w, n), j->blocksize);
	return err;
}

static int add_to_log(struct log_writer *w, struct jio *io)
{
	struct journal *j = w->j;
	u32 at = w->half_start;
	int err = 0;

	for (u32 n = 0; n < w->used && !err;) {
		u32 run, len;
		pblk_t p = journal_map(j, at, &run);

		len = min_of(run, j->end - at);
		len = min_of(len, w->used - n);
		err = jio_add(j, j->log_bd, &w->pio, io, p * j->blocksize, half_block(w, n),
			      len * j->blocksize);
		n += len;
		at = ring_add(j, at, len);
	}
	return err;
}

/*
 * Sends the half being filled; on return the other half is free to fill. last:
 * there is nothing to fill it with, so a single bio may be written by this
 * thread: a small commit wakes no other.
 */
static int log_writer_send(struct log_writer *w, bool last)
{
	struct journal *j = w->j;
	struct jio *io = &j->jio[w->half];
	int err, err2;

	if (!w->used)
		return 0;
	jio_begin(io);
	err = j->in_place ? add_in_place(w, io) : add_to_log(w, io);
	if (last)
		page_io_submit_wait(&w->pio);
	else
		page_io_submit(&w->pio);
	jio_end(io);
	w->half ^= 1;
	w->used = 0;
	w->half_start = w->next;
	err2 = jio_wait(&j->jio[w->half]);
	return err ?: err2;
}

/* Waits for everything sent, also after an error. */
static int log_writer_finish(struct log_writer *w)
{
	int err = log_writer_send(w, true), err0, err1;

	err0 = jio_wait(&w->j->jio[0]);
	err1 = jio_wait(&w->j->jio[1]);
	return err ?: err0 ?: err1;
}

/* Room for n blocks (n <= half_blocks) in one half. */
static int log_writer_room(struct log_writer *w, u32 n)
{
	assert(n <= w->half_blocks);
	return w->used + n > w->half_blocks ? log_writer_send(w, false) : 0;
}

/* The next log block; its memory holds rubbish. There must be room. */
static u8 *log_writer_take(struct log_writer *w)
{
	assert(w->used < w->half_blocks);
	w->next = ring_add(w->j, w->next, 1);
	if (w->j->in_place)
		*half_home(w, w->used) = PBLK_NONE;
	return half_block(w, w->used++);
}

static void header_init(struct journal *j, void *block, enum jbd2_blocktype type, u32 seq)
{
	struct jbd2_header *hdr = block;

	memset(block, 0, j->blocksize);
	hdr->h_magic = cpu_to_be32(JBD2_MAGIC);
	hdr->h_blocktype = cpu_to_be32(type);
	hdr->h_sequence = cpu_to_be32(seq);
}

static void tail_set(struct journal *j, u8 *block)
{
	struct jbd2_tail tail;

	if (!j->csum_v3)
		return;
	tail.t_checksum = cpu_to_be32(journal_block_csum(j, block));
	memcpy(block + j->blocksize - sizeof(tail), &tail, sizeof(tail));
}

/* ---- revoke blocks ---- */

static int write_revokes(struct log_writer *w, struct transaction *t)
{
	struct journal *j = w->j;
	bool wide = j->incompat & JBD2_INCOMPAT_64BIT;
	struct revoke_map *m = &t->revokes;
	u32 left = m->nr, in_block = 0, count = 0;
	u8 *block = NULL;
	int err;

	for (u32 i = 0; left; i++) {
		struct jbd2_revoke_header *rh;

		if (!m->slot[i].used)
			continue;
		if (!block) {
			err = log_writer_room(w, 1);
			if (err)
				return err;
			block = log_writer_take(w);
			header_init(j, block, JBD2_REVOKE, t->log_seq);
			count = sizeof(*rh);
			in_block = 0;
		}
		if (wide) {
			be64 blk = cpu_to_be64(m->slot[i].blk);

			memcpy(block + count, &blk, sizeof(blk));
			count += sizeof(blk);
		} else {
			be32 blk = cpu_to_be32((u32)m->slot[i].blk);

			memcpy(block + count, &blk, sizeof(blk));
			count += sizeof(blk);
		}
		left--;
		if (++in_block == j->revokes_per_block || !left) {
			rh = (struct jbd2_revoke_header *)block;
			rh->r_count = cpu_to_be32(count);
			tail_set(j, block);
			block = NULL;
		}
	}
	jstat_add(j, revokes, m->nr);
	return 0;
}

/* ---- images ---- */

/*
 * Copies the buffer's image for the committing transaction to dst and puts the
 * checksums there. The live buffer is not written: others may be reading it.
 * It needs none in memory; a checkpoint computes them in its own copy.
 */
static void take_image(struct journal *j, struct transaction *t, struct journal_head *jh,
		       u8 *dst)
{
	struct buffer *b = jh->b;
	const struct buffer_type *type;
	void *frozen;

	spin_lock(&b->b_jlock);
	frozen = jh->frozen;
	jh->frozen = NULL;
	if (!frozen) {
		assert(!jh->own[!t->slot].t || jh->own[!t->slot].forgotten);
		memcpy(dst, b->b_data, j->blocksize);
	}
	jh->own[t->slot].imaged = true;
	spin_unlock(&b->b_jlock);
	if (frozen) {
		memcpy(dst, frozen, j->blocksize);
		free(frozen);
		return;
	}
	type = atomic_load(&b->b_type);
	if (type && type->freeze)
		type->freeze(j->sb, b->b_blocknr, dst, atomic_load(&b->b_seed));
}

/* Replaces a magic number at the start; true if there was one. */
static bool escape(u8 *image)
{
	be32 magic = cpu_to_be32(JBD2_MAGIC);

	if (memcmp(image, &magic, sizeof(magic)))
		return false;
	memset(image, 0, sizeof(magic));
	return true;
}

static void tag_put(struct journal *j, u8 *at, pblk_t blk, u32 flags, u32 csum)
{
	if (j->csum_v3) {
		struct jbd2_tag3 tag = {
			.t_blocknr = cpu_to_be32((u32)blk),
			.t_flags = cpu_to_be32(flags),
			.t_blocknr_high = cpu_to_be32((u32)(blk >> 32)),
			.t_checksum = cpu_to_be32(csum),
		};
		memcpy(at, &tag, sizeof(tag));
	} else {
		struct jbd2_tag tag = {
			.t_blocknr = cpu_to_be32((u32)blk),
			.t_flags = cpu_to_be16((u16)flags),
			.t_blocknr_high = cpu_to_be32((u32)(blk >> 32)),
		};
		memcpy(at, &tag, j->tag_bytes); /* 8 without 64BIT */
	}
}

/* The next member that is to be logged, after pos. */
static struct cds_list_head *next_dirty(struct transaction *t, struct cds_list_head *pos)
{
	struct jh_own *own;

	for (pos = pos->next; pos != &t->buffers; pos = pos->next) {
		own = cds_list_entry(pos, struct jh_own, link);
		/* Only handles of t change this, and they are closed. */
		if (own->dirty)
			return pos;
	}
	return NULL;
}

static struct journal_head *own_head(const struct transaction *t, struct cds_list_head *pos)
{
	struct jh_own *own = cds_list_entry(pos, struct jh_own, link);

	return container_of_type(own - t->slot, struct journal_head, own[0]);
}

/* One descriptor with nr images, from *pos on. */
static int write_descriptor(struct log_writer *w, struct transaction *t, u32 nr,
			    struct cds_list_head **pos)
{
	struct journal *j = w->j;
	const u8 *uuid = ((struct jbd2_superblock *)j->sb_buf)->s_uuid;
	u8 *desc, *at, *image;
	int err;

	err = log_writer_room(w, nr + 1);
	if (err)
		return err;
	desc = log_writer_take(w);
	header_init(j, desc, JBD2_DESCRIPTOR, t->log_seq);
	at = desc + sizeof(struct jbd2_header);
	for (u32 i = 0; i < nr; i++) {
		struct journal_head *jh = own_head(t, *pos);
		u32 flags = 0, csum = 0;

		image = log_writer_take(w);
		take_image(j, t, jh, image);
		if (SIM_MUTATION(SIM_METADATA_EARLY)) {
			err = bdev_write(j->bd, jh->b->b_blocknr * j->blocksize, image,
					 j->blocksize, BIO_META);
			if (err)
				return err;
		}
		if (j->in_place)
			*half_home(w, w->used - 1) = jh->b->b_blocknr;
		else if (escape(image))
			flags |= JBD2_TAG_ESCAPE;
		if (i)
			flags |= JBD2_TAG_SAME_UUID;
		if (i == nr - 1)
			flags |= JBD2_TAG_LAST;
		if (j->csum_v3)
			csum = journal_image_csum(j, t->log_seq, image);
		tag_put(j, at, jh->b->b_blocknr, flags, csum);
		at += j->tag_bytes;
		if (!i) {
			memcpy(at, uuid, JBD2_UUID_SIZE);
			at += JBD2_UUID_SIZE;
		}
		*pos = next_dirty(t, *pos);
	}
	tail_set(j, desc);
	return 0;
}

static int write_images(struct log_writer *w, struct transaction *t)
{
	struct cds_list_head *pos = next_dirty(t, &t->buffers);
	u32 left = t->nr_dirty;

	while (left) {
		u32 nr = min_of(left, w->j->tags_per_block);
		int err;

		assert(pos);
		err = write_descriptor(w, t, nr, &pos);
		if (err)
			return err;
		left -= nr;
	}
	assert(!pos);
	jstat_add(w->j, blocks_logged, t->nr_dirty);
	return 0;
}

/* ---- the commit block ---- */

static void commit_time(struct journal *j)
{
	struct timespec ts;

	/* Never backwards: recovery tells stale blocks of an older log by it. */
	clock_gettime(CLOCK_REALTIME, &ts);
	if ((u64)ts.tv_sec > j->last_commit_sec ||
	    ((u64)ts.tv_sec == j->last_commit_sec && (u32)ts.tv_nsec > j->last_commit_nsec)) {
		j->last_commit_sec = (u64)ts.tv_sec;
		j->last_commit_nsec = (u32)ts.tv_nsec;
	}
}

static int write_commit_block(struct journal *j, u32 at, u32 seq)
{
	struct jbd2_commit_header *ch = (void *)j->arena;

	commit_time(j);
	header_init(j, ch, JBD2_COMMIT, seq);
	ch->h_commit_sec = cpu_to_be64(j->last_commit_sec);
	ch->h_commit_nsec = cpu_to_be32(j->last_commit_nsec);
	if (j->csum_v3)
		ch->h_chksum[0] = cpu_to_be32(journal_commit_csum(j, ch));
	return bdev_write(j->log_bd, journal_map(j, at, NULL) * j->blocksize, ch, j->blocksize,
			  (SIM_MUTATION(SIM_NO_COMMIT_FUA) ? 0 : BIO_FUA) | BIO_META);
}

/*
 * Zeroes the place of the first transaction's commit block. An older log may
 * have one there, with the very number this one will have. (For later ones
 * recovery can tell by the commit time.)
 */
static int write_gap(struct log_writer *w)
{
	int err = log_writer_room(w, 1);

	if (!err)
		memset(log_writer_take(w), 0, w->j->blocksize);
	return err;
}

/* Step 4. */
static int flush_before_commit(struct journal *j)
{
	int err = 0;

	if (SIM_MUTATION(SIM_NO_FLUSH_BEFORE_COMMIT))
		return 0;
	if (!SIM_MUTATION(SIM_NO_DATA_FLUSH_BEFORE_COMMIT) || j->log_bd == j->bd)
		err = journal_flush(j);
	return err ?: journal_flush_log(j);
}

/* Steps 2 to 5. */
static int write_transaction(struct journal *j, struct transaction *t)
{
	const struct jbd2_superblock *jsb = j->sb_buf;
	bool first = !j->in_place && !be32_to_cpu(jsb->s_start);
	struct log_writer w;
	u32 commit_at;
	int err, err2;

	t->log_start = j->head;
	t->log_seq = j->next_seq;
	if (first) {
		err = journal_write_tail(j, t->log_start, t->log_seq);
		if (err)
			return err;
	}
	log_writer_init(&w, j);
	if (j->in_place) {
		err = journal_flush(j);
		if (err)
			return err;
		if (!journal_place_begin(j))
			return -EROFS;
	}
	err = write_revokes(&w, t);
	if (!err)
		err = write_images(&w, t);
	commit_at = w.next;
	if (!err && first)
		err = write_gap(&w);
	err2 = log_writer_finish(&w);
	err = err ?: err2;
	if (j->in_place)
		journal_place_end(j);
	if (!err)
		err = flush_before_commit(j);
	if (err)
		return err;
	/* A change that went wrong aborts while its handle is open. */
	if (journal_aborted(j))
		return -EROFS;
	if (j->in_place)
		return 0;
	err = write_commit_block(j, commit_at, t->log_seq);
	if (err)
		return err;
	j->next_seq++;
	spin_lock(&j->j_lock);
	j->head = ring_add(j, commit_at, 1);
	assert(ring_dist(j, t->log_start, j->head) <= j->commit_need);
	spin_unlock(&j->j_lock);
	return 0;
}

/* ---- the end ---- */

/*
 * Takes all members out. durable: images now count, so each supersedes what
 * older checkpoint lists have of the buffer.
 */
static void release_members(struct journal *j, struct transaction *t, bool durable)
{
	struct cds_list_head *pos, *next;

	cds_list_for_each_safe(pos, next, &t->buffers) {
		struct jh_own *own = cds_list_entry(pos, struct jh_own, link);
		struct journal_head *jh = own_head(t, pos);
		struct buffer *b = jh->b;
		void *frozen = NULL;

		spin_lock(&b->b_jlock);
		cds_list_del(&own->link);
		own->t = NULL;
		if (!durable) {
			frozen = jh->frozen;
			jh->frozen = NULL;
		} else if (own->dirty && !j->in_place) {
			checkpoint_remove(j, jh);
			checkpoint_insert(j, jh, t);
		} else if (own->forgotten) {
			checkpoint_remove(j, jh);
		}
		jh_put_unlock(b);
		free(frozen);
	}
}

static void run_callbacks(struct transaction *t, int error)
{
	while (!cds_list_empty(&t->cbs)) {
		struct commit_cb *cb = cds_list_first_entry(&t->cbs, struct commit_cb, link);

		cds_list_del(&cb->link);
		cb->fn(cb, error);
	}
}

void transaction_discard(struct journal *j, struct transaction *t, int error)
{
	release_members(j, t, false);
	run_callbacks(t, error);
	transaction_free(t);
}

/* Step 1. The transaction, or NULL if there is none. */
static struct transaction *lock_and_drain(struct journal *j)
{
	struct transaction *t;

	spin_lock(&j->j_lock);
	t = j->running;
	if (t)
		t->state = T_LOCKED;
	spin_unlock(&j->j_lock);
	while (t) {
		u32 seen = jevent_read(&j->ev_drain);
		bool open;

		spin_lock(&j->j_lock);
		open = t->handles;
		spin_unlock(&j->j_lock);
		if (!open)
			break;
		jevent_wait(&j->ev_drain, seen);
	}
	return t;
}

static void switch_transactions(struct journal *j, struct transaction *t)
{
	spin_lock(&j->j_lock);
	assert(!t->handles && !t->credits && !t->rev_credits);
	assert(t->nr_revokes == t->revokes.nr);
	t->state = T_COMMIT;
	j->commit_need = transaction_need(j, t, 0, 0);
	j->committing = t;
	j->running = NULL;
	spin_unlock(&j->j_lock);
	jevent_wake(&j->ev_start);
}

void journal_commit_running(struct journal *j)
{
	struct transaction *t = lock_and_drain(j);
	jtid_t tid;
	bool empty;
	int err = 0;

	if (!t)
		return;
	if (!journal_aborted(j) && j->ops && j->ops->pre_commit) {
		struct handle h;

		handle_open_internal(j, t, &h);
		j->ops->pre_commit(j->priv, &h);
		handle_close_internal(&h);
	}
	switch_transactions(j, t);
	tid = t->tid;
	empty = !t->nr_dirty && !t->nr_revokes;
	if (journal_aborted(j))
		err = -EROFS;
	else if (!empty)
		err = write_transaction(j, t);
	if (err) {
		if (err != -EROFS)
			log_err("%s: journal: cannot write transaction %u: error %d",
				j->sb->s_id, t->log_seq, -err);
		journal_abort(j, err);
		spin_lock(&j->j_lock);
		j->committing = NULL;
		j->commit_need = 0;
		spin_unlock(&j->j_lock);
		transaction_discard(j, t, -EIO);
		jevent_wake(&j->ev_commit);
		return;
	}
	/* Before the callbacks: from these on freed blocks have new owners. */
	release_members(j, t, true);
	run_callbacks(t, 0);
	revoke_map_release(&t->revokes);
	jstat_inc(j, commits); /* who has waited for it finds it counted */
	spin_lock(&j->j_lock);
	t->state = T_COMMITTED;
	j->committing = NULL;
	j->commit_need = 0;
	j->committed = tid;
	if (!tid_geq(j->request, tid))
		j->request = tid; /* so that it never lags half the numbers behind */
	if (j->in_place)
		j->space_wanted = false; /* what it had is free: no tail will move */
	spin_unlock(&j->j_lock);
	if (empty || j->in_place)
		transaction_free(t);
	else
		cds_list_add_tail(&t->cp_link, &j->j_cp);
	j->cp_blocked = false;
	jevent_wake(&j->ev_commit);
	jevent_wake(&j->ev_start);
}

/* ---- asking for commits ---- */

jtid_t journal_running_tid(struct journal *j)
{
	jtid_t tid;

	spin_lock(&j->j_lock);
	tid = j->running ? j->running->tid : j->next_tid;
	spin_unlock(&j->j_lock);
	return tid;
}

/*
 * Asks for tid and returns in *tid the transaction to wait for: one that is
 * there. false: nothing to wait for. *joined: it had been asked for already.
 */
static bool request_commit(struct journal *j, jtid_t *tid, bool *joined)
{
	bool wait = true;

	*joined = false;
	spin_lock(&j->j_lock);
	if (j->running && tid_geq(*tid, j->running->tid)) {
		*tid = j->running->tid;
		*joined = tid_geq(j->request, *tid);
		if (!*joined)
			j->request = *tid;
	} else if (j->committing && tid_geq(*tid, j->committing->tid)) {
		*tid = j->committing->tid;
		*joined = true;
	} else {
		wait = false;
	}
	spin_unlock(&j->j_lock);
	if (wait && !*joined)
		journal_kick(j);
	return wait;
}

void journal_commit_start(struct journal *j, jtid_t tid)
{
	bool joined;

	request_commit(j, &tid, &joined);
}

int journal_commit_wait(struct journal *j, jtid_t tid, bool *flushed)
{
	/* A flush counts if it began after this. */
	u64 before = atomic_load(&j->flush_started);
	bool joined, done;
	jtid_t want = tid;

	if (flushed)
		*flushed = false;
	assert_rank_below(RANK_HANDLE);
	if (!request_commit(j, &want, &joined)) {
		/* Durable, unless it went with the abort. */
		spin_lock(&j->j_lock);
		done = tid_geq(j->committed, tid) || !journal_aborted(j);
		spin_unlock(&j->j_lock);
		return done ? 0 : -EIO;
	}
	if (joined)
		jstat_inc(j, fsync_joins);
	for (;;) {
		u32 seen = jevent_read(&j->ev_commit);

		spin_lock(&j->j_lock);
		done = tid_geq(j->committed, want);
		spin_unlock(&j->j_lock);
		if (done)
			break;
		if (journal_aborted(j))
			return -EIO;
		jevent_wait(&j->ev_commit, seen);
	}
	if (flushed)
		*flushed = atomic_load(&j->flush_done) > before;
	return 0;
}

int journal_force_commit(struct journal *j)
{
	return journal_commit_wait(j, journal_running_tid(j), NULL);
}
