/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/journal/transaction.c - handles: joining, credits, write access, forgetting
 *
 * Credits. A handle states how many blocks it may dirty and revoke; the first
 * dirtying of a buffer in a transaction (by any handle) uses one up, the rest
 * comes back at handle_stop(). transaction_need() turns dirty buffers and
 * outstanding credits into log blocks, with descriptors, revoke blocks, the
 * commit block and pre_commit's changes; that sum is bounded by max_trans (a
 * quarter of the log), and a handle is let in only if the log has room for
 *
 *     used by committed ones + bound of the committing one
 *       + need of the running one + reserved handles.
 *
 * So a commit never runs out of log. A handle that waits here holds nothing;
 * the thread makes room by committing, checkpointing and moving the tail, none of which
 * waits for a handle that is not open yet: reserved handles, too, may wait
 * here, since nothing the thread does depends on them.
 *
 * Write access and freezing. A buffer's content changes only by those who hold
 * an open handle with write access to it. When a transaction is committing its
 * handles are closed; so from then on its buffers change only through a handle
 * of the next transaction, whose first write access comes here and, under
 * b_jlock, sets the image aside if the thread hasn't taken it yet. The thread
 * takes an image under b_jlock too, and from the live buffer only if nobody of
 * the next transaction has access. Hence whoever copies, copies the content as
 * the committing transaction left it, with no lock on the content itself.
 *
 * Locks: b_jlock -> j_lock. Never both j_lock and an allocation.
 * Alive: an open handle keeps its transaction; membership keeps a journal_head.
 */
#include "fs/journal/journal_internal.h"
#include "fs/sim_mutation.h"
#include "lib/log.h"
#include "lib/mem.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Commit block, pre_commit's blocks, and the descriptor these may add. */
#define BASE_BLOCKS (1 + PRE_COMMIT_CREDITS + 1)

/* ---- accounting ---- */

u32 transaction_need(const struct journal *j, const struct transaction *t,
		     u32 blocks, u32 revokes)
{
	if (t) {
		blocks += t->nr_dirty + t->credits + t->commit_blocks;
		revokes += t->nr_revokes + t->rev_credits;
	}
	return BASE_BLOCKS + blocks + DIV_ROUND_UP(blocks, j->tags_per_block) +
	       DIV_ROUND_UP(revokes, j->revokes_per_block);
}

bool transaction_big(const struct journal *j, const struct transaction *t)
{
	return t->nr_dirty + t->commit_blocks + t->nr_revokes / j->revokes_per_block >
	       j->max_trans / 2;
}

/* Log blocks set aside for a reserved handle of this many. */
static u32 reserved_space(const struct journal *j, u32 blocks)
{
	return blocks + DIV_ROUND_UP(blocks, j->tags_per_block);
}

u32 journal_space(const struct journal *j)
{
	/* One block stays free: tail == head means empty. */
	u32 taken = ring_dist(j, j->tail, j->head) + j->commit_need + j->reserved + 1;

	return taken < j->ring ? j->ring - taken : 0;
}

u32 journal_max_credits(const struct journal *j)
{
	u32 room = j->max_trans - BASE_BLOCKS;

	room -= DIV_ROUND_UP(room, j->tags_per_block);
	return room > j->handle_extra ? room - j->handle_extra : 0;
}

bool journal_fits(const struct journal *j, u32 blocks, u32 revokes)
{
	/* The first two keep the sums from an overflow. */
	return blocks <= journal_max_credits(j) &&
	       revokes / j->revokes_per_block < j->max_trans &&
	       transaction_need(j, NULL, blocks + j->handle_extra, revokes) <=
		       j->max_trans;
}

/* ---- joining and leaving ---- */

static struct transaction *transaction_alloc(void)
{
	struct transaction *t = calloc_patient(1, sizeof(*t));

	if (!t)
		return NULL;
	CDS_INIT_LIST_HEAD(&t->buffers);
	CDS_INIT_LIST_HEAD(&t->cbs);
	CDS_INIT_LIST_HEAD(&t->cp_buffers);
	return t;
}

void transaction_free(struct transaction *t)
{
	if (!t)
		return;
	assert(cds_list_empty(&t->buffers));
	assert(cds_list_empty(&t->cbs));
	assert(cds_list_empty(&t->cp_buffers));
	revoke_map_release(&t->revokes);
	free(t);
}

/* Makes `t` the running transaction. REQUIRES j_lock. */
static void transaction_begin(struct journal *j, struct transaction *t)
{
	t->tid = j->next_tid;
	t->slot = j->next_slot;
	t->state = T_RUNNING;
	t->expires_ns = clock_mono_ns() + j->commit_interval_ms * NSEC_PER_MSEC;
	j->next_tid = j->next_tid + 1 ?: 1;
	j->next_slot ^= 1;
	j->running = t;
}

enum join { JOINED, JOIN_WAIT, JOIN_NEW };

/*
 * Enters h into the running transaction if it may now. JOIN_NEW: there is none,
 * and *spare is NULL. REQUIRES j_lock.
 */
static enum join try_join(struct journal *j, struct handle *h, u32 blocks, u32 revokes,
			  struct transaction **spare)
{
	struct transaction *t = j->running;
	u32 all = blocks + j->handle_extra;
	/* A reserved handle's blocks are in j->reserved until it joins. */
	u32 more = h->rsv_space ? 0 : all, more_rev = h->rsv_space ? 0 : revokes;

	if (t && t->state != T_RUNNING)
		return JOIN_WAIT;
	if (t && !h->rsv_space &&
	    transaction_need(j, t, all, revokes) > j->max_trans) {
		if (!tid_geq(j->request, t->tid))
			j->request = t->tid;
		journal_kick(j);
		return JOIN_WAIT;
	}
	if ((!t || !h->rsv_space) &&
	    transaction_need(j, t, more, more_rev) > journal_space(j)) {
		j->space_wanted = true;
		journal_kick(j);
		return JOIN_WAIT;
	}
	if (!t) {
		if (!*spare)
			return JOIN_NEW;
		t = *spare;
		*spare = NULL;
		transaction_begin(j, t);
		journal_kick(j); /* the commit timer */
	}
	j->reserved -= h->rsv_space;
	h->rsv_space = 0;
	t->handles++;
	t->credits += all;
	t->rev_credits += revokes;
	h->t = t;
	h->blocks = blocks;
	h->extra = j->handle_extra;
	h->revokes = revokes;
	return JOINED;
}

/* Waits until h can join. On success h is open. */
static int handle_join(struct journal *j, struct handle *h, u32 blocks, u32 revokes)
{
	struct transaction *spare = NULL;
	enum join r;
	int err = 0;

	assert_rank_below(RANK_HANDLE);
	thread_might_block();
	for (;;) {
		u32 seen = jevent_read(&j->ev_start);

		spin_lock(&j->j_lock);
		if (journal_aborted(j) || !j->started) {
			spin_unlock(&j->j_lock);
			err = -EROFS;
			break;
		}
		r = try_join(j, h, blocks, revokes, &spare);
		spin_unlock(&j->j_lock);
		if (r == JOINED)
			break;
		if (r == JOIN_WAIT) {
			jstat_inc(j, handle_waits);
			jevent_wait(&j->ev_start, seen);
			continue;
		}
		spare = transaction_alloc();
		if (!spare)
			return -ENOMEM;
	}
	free(spare); /* somebody else was faster */
	if (err)
		return err;
	rank_enter(RANK_HANDLE);
	jstat_inc(j, handles);
	return 0;
}

/* Leaves the transaction; its tid, or 0 if h was in none. */
static jtid_t handle_leave(struct handle *h)
{
	struct journal *j = h->j;
	struct transaction *t = h->t;
	bool last, big, waited;
	jtid_t tid;

	if (!t)
		return 0;
	spin_lock(&j->j_lock);
	tid = t->tid;
	t->credits -= h->blocks + h->extra;
	t->rev_credits -= h->revokes;
	assert(t->handles > 0);
	last = --t->handles == 0 && (t->state == T_LOCKED || journal_aborted(j));
	big = t->state == T_RUNNING && transaction_big(j, t);
	waited = j->space_wanted;
	spin_unlock(&j->j_lock);
	/* t may be gone from here on. */
	h->t = NULL;
	h->blocks = h->extra = h->revokes = 0;
	rank_exit(RANK_HANDLE);
	if (last)
		jevent_wake(&j->ev_drain);
	if (last || big)
		journal_kick(j);
	if (waited) /* credits came back: those who wait may fit in now */
		jevent_wake(&j->ev_start);
	return tid;
}

int journal_start(struct journal *j, u32 blocks, u32 revokes, struct handle **out)
{
	struct handle *h;
	int err;

	*out = NULL;
	if (journal_aborted(j))
		return -EROFS;
	if (!journal_fits(j, blocks, revokes)) {
		log_ratelimited(LOG_LVL_ERR,
				"%s: journal: a handle of %u blocks and %u revokes; the log takes %u",
				j->sb->s_id, blocks, revokes, journal_max_credits(j));
		return -ENOSPC;
	}
	h = calloc_patient(1, sizeof(*h));
	if (!h)
		return -ENOMEM;
	h->j = j;
	err = handle_join(j, h, blocks, revokes);
	if (err) {
		free(h);
		return err;
	}
	*out = h;
	return 0;
}

int handle_stop(struct handle *h)
{
	struct journal *j = h->j;
	bool sync = h->sync, aborted;
	jtid_t tid;
	int err = 0;

	assert(!h->internal);
	assert(!h->rsv_space); /* never started: handle_cancel_reserved() */
	/*
	 * Before it leaves: as long as the handle is open its transaction is not
	 * written, and after an abort never will be, so that who gets this error has
	 * changed nothing. After it, the commit may have failed at its last block,
	 * which may be on the disk all the same: that is an error of the commit, not ours.
	 */
	aborted = journal_aborted(j);
	tid = handle_leave(h);
	free(h);
	if (aborted)
		return -EROFS;
	if (sync && tid)
		err = journal_commit_wait(j, tid, NULL);
	return err ? -EROFS : 0;
}

void handle_set_sync(struct handle *h)
{
	h->sync = true;
}

int handle_ensure(struct handle *h, u32 blocks, u32 revokes)
{
	struct journal *j = h->j;
	struct transaction *t = h->t;
	u32 db, dr, grow;
	int ret = 1;

	if (journal_aborted(j) || !t)
		return -EROFS;
	if (h->blocks >= blocks && h->revokes >= revokes)
		return 0;
	if (!journal_fits(j, blocks, revokes))
		return -ENOSPC;
	db = blocks > h->blocks ? blocks - h->blocks : 0;
	dr = revokes > h->revokes ? revokes - h->revokes : 0;
	spin_lock(&j->j_lock);
	grow = transaction_need(j, t, db, dr);
	if (t->state == T_RUNNING && grow <= j->max_trans && grow <= journal_space(j)) {
		t->credits += db;
		t->rev_credits += dr;
		h->blocks += db;
		h->revokes += dr;
		ret = 0;
	}
	spin_unlock(&j->j_lock);
	return ret;
}

int handle_restart(struct handle *h, u32 blocks, u32 revokes)
{
	assert(!h->internal);
	handle_leave(h);
	if (journal_aborted(h->j))
		return -EROFS;
	if (!journal_fits(h->j, blocks, revokes))
		return -ENOSPC;
	return handle_join(h->j, h, blocks, revokes);
}

/* ---- reserved handles ---- */

int journal_reserve(struct journal *j, u32 blocks, struct handle **out)
{
	u32 all = min_of(blocks, j->max_trans) + j->handle_extra;
	u32 space = max_of(reserved_space(j, all), 1u);
	struct handle *h;

	*out = NULL;
	assert_rank_below(RANK_HANDLE);
	thread_might_block();
	if (blocks > journal_max_credits(j) || space > j->max_trans / 2)
		return -ENOSPC;
	h = calloc_patient(1, sizeof(*h));
	if (!h)
		return -ENOMEM;
	h->j = j;
	for (;;) {
		u32 seen = jevent_read(&j->ev_start);
		bool ok;

		spin_lock(&j->j_lock);
		if (journal_aborted(j) || !j->started) {
			spin_unlock(&j->j_lock);
			free(h);
			return -EROFS;
		}
		/* Others' reservations come back by themselves. */
		ok = j->reserved + space <= j->max_trans / 2;
		if (ok && transaction_need(j, j->running, 0, 0) + space > journal_space(j)) {
			ok = false;
			j->space_wanted = true;
			journal_kick(j);
		}
		if (ok) {
			j->reserved += space;
			h->rsv_space = space;
			h->blocks = blocks;
		}
		spin_unlock(&j->j_lock);
		if (ok)
			break;
		jstat_inc(j, handle_waits);
		jevent_wait(&j->ev_start, seen);
	}
	*out = h;
	return 0;
}

void handle_cancel_reserved(struct handle *h)
{
	struct journal *j;

	if (!h)
		return;
	j = h->j;
	assert(!h->t);
	spin_lock(&j->j_lock);
	assert(j->reserved >= h->rsv_space);
	j->reserved -= h->rsv_space;
	spin_unlock(&j->j_lock);
	jevent_wake(&j->ev_start);
	free(h);
}

int handle_start_reserved(struct handle *h)
{
	struct journal *j = h->j;
	int err;

	assert(h->rsv_space);
	err = handle_join(j, h, h->blocks, 0);
	if (err)
		handle_cancel_reserved(h);
	else
		jevent_wake(&j->ev_start); /* for others who want to reserve */
	return err;
}

/* ---- pre_commit's handle ---- */

void handle_open_internal(struct journal *j, struct transaction *t, struct handle *h)
{
	*h = (struct handle){ .j = j, .t = t, .internal = true };
	spin_lock(&j->j_lock);
	assert(t->state == T_LOCKED && !t->handles);
	t->handles = 1;
	h->blocks = PRE_COMMIT_CREDITS + t->commit_blocks;
	t->commit_blocks = 0;
	t->credits += h->blocks;
	spin_unlock(&j->j_lock);
	rank_enter(RANK_HANDLE);
}

void handle_close_internal(struct handle *h)
{
	rank_exit(RANK_HANDLE);
	spin_lock(&h->j->j_lock);
	h->t->handles--;
	h->t->credits -= h->blocks;
	spin_unlock(&h->j->j_lock);
}

void handle_add_commit_block(struct handle *h)
{
	struct transaction *t = h->t;

	assert(!h->internal);
	if (!t) /* a restart failed: nothing of the handle is written */
		return;
	if (h->extra) {
		h->extra--;
	} else {
		assert(h->blocks > 0);
		h->blocks--;
	}
	spin_lock(&h->j->j_lock);
	assert(t->credits > 0);
	t->credits--;
	t->commit_blocks++;
	spin_unlock(&h->j->j_lock);
}

/* ---- questions ---- */

struct journal *handle_journal(const struct handle *h)
{
	return h->j;
}

jtid_t handle_tid(const struct handle *h)
{
	return h->t ? h->t->tid : 0;
}

u32 handle_credits(const struct handle *h)
{
	return h->blocks;
}

void handle_set_privileged(struct handle *h)
{
	h->privileged = true;
}

bool handle_privileged(const struct handle *h)
{
	return h->privileged;
}

bool handle_aborted(const struct handle *h)
{
	return journal_aborted(h->j) != 0 || !h->t;
}

void handle_on_commit(struct handle *h, struct commit_cb *cb)
{
	assert(h->t);
	spin_lock(&h->j->j_lock);
	cds_list_add_tail(&cb->link, &h->t->cbs);
	spin_unlock(&h->j->j_lock);
}

/* ---- buffers ---- */

void jh_put_unlock(struct buffer *b)
{
	struct journal_head *jh = b->b_jh;
	bool gone = jh && !jh->own[0].t && !jh->own[1].t && !jh->cp_t;

	if (gone) {
		assert(!jh->frozen);
		b->b_jh = NULL;
	}
	spin_unlock(&b->b_jlock);
	if (gone) {
		free(jh);
		buffer_put(b);
	}
}

/* Puts jh into t (running). REQUIRES b_jlock. */
static void jh_join(struct journal *j, struct journal_head *jh, struct transaction *t)
{
	struct jh_own *own = &jh->own[t->slot];

	assert(!own->t);
	own->dirty = own->forgotten = own->imaged = false;
	own->t = t;
	spin_lock(&j->j_lock);
	cds_list_add_tail(&own->link, &t->buffers);
	spin_unlock(&j->j_lock);
}

/*
 * One try under b_jlock. 0: access. 1: *jh_new or *image is needed and NULL;
 * the caller allocates and tries again.
 */
static int try_access(struct handle *h, struct buffer *b, struct journal_head **jh_new,
		      void **image)
{
	struct journal *j = h->j;
	struct transaction *t = h->t;
	struct journal_head *jh = b->b_jh;
	struct jh_own *own, *other;

	assert_spin_held(&b->b_jlock);
	if (!jh) {
		if (!*jh_new)
			return 1;
		jh = *jh_new;
		*jh_new = NULL;
		jh->b = b;
		buffer_get(b);
		b->b_jh = jh;
	}
	own = &jh->own[t->slot];
	assert(!own->t || own->t == t);
	if (own->t && !own->forgotten)
		return 0;
	other = &jh->own[!t->slot];
	if (other->t && other->dirty && !other->imaged && !jh->frozen) {
		const struct buffer_type *type = atomic_load(&b->b_type);

		if (!*image)
			return 1;
		/* See "Write access and freezing" above: nobody changes it now. */
		memcpy(*image, b->b_data, j->blocksize);
		if (type && type->freeze)
			type->freeze(j->sb, b->b_blocknr, *image, atomic_load(&b->b_seed));
		jh->frozen = *image;
		*image = NULL;
		jstat_inc(j, frozen_copies);
	}
	if (own->t)
		own->forgotten = false; /* freed and taken again */
	else
		jh_join(j, jh, t);
	return 0;
}

int handle_get_write_access(struct handle *h, struct buffer *b)
{
	struct journal_head *jh_new = NULL;
	struct journal *j = h->j;
	void *image = NULL;
	int r;

	if (journal_aborted(j) || !h->t)
		return -EROFS;
	for (;;) {
		spin_lock(&b->b_jlock);
		r = try_access(h, b, &jh_new, &image);
		if (!r)
			break;
		if (!b->b_jh && !jh_new) {
			spin_unlock(&b->b_jlock);
			jh_new = calloc_patient(1, sizeof(*jh_new));
			if (!jh_new)
				goto out_nomem;
		} else {
			spin_unlock(&b->b_jlock);
			image = malloc_patient(j->blocksize);
			if (!image)
				goto out_nomem;
		}
	}
	spin_unlock(&b->b_jlock);
	free(jh_new);
	free(image);
	return 0;
out_nomem:
	free(jh_new);
	free(image);
	return -ENOMEM;
}

int handle_get_create_access(struct handle *h, struct buffer *b)
{
	return handle_get_write_access(h, b);
}

void handle_dirty(struct handle *h, struct buffer *b)
{
	struct transaction *t = h->t;
	struct journal_head *jh;
	struct jh_own *own;

	assert(t);
	spin_lock(&b->b_jlock);
	jh = b->b_jh;
	assert(jh);
	own = &jh->own[t->slot];
	assert(own->t == t);
	assert(!own->forgotten);
	if (!own->dirty) {
		assert(h->blocks > 0);
		own->dirty = true;
		h->blocks--;
		spin_lock(&h->j->j_lock);
		assert(t->credits > 0);
		t->credits--;
		t->nr_dirty++;
		/* A revoke of this transaction would suppress the image. */
		if (revoke_map_remove(&t->revokes, b->b_blocknr))
			t->nr_revokes--;
		spin_unlock(&h->j->j_lock);
	}
	spin_unlock(&b->b_jlock);
}

/* Records the revoke, unless it is there. Uses a credit. */
static int transaction_revoke(struct handle *h, pblk_t blk)
{
	struct journal *j = h->j;
	struct transaction *t = h->t;
	struct revoke_entry *mem = NULL;
	u32 slots = 0;
	int tries = 0;

	for (;;) {
		spin_lock(&j->j_lock);
		if (!revoke_map_full(&t->revokes))
			break;
		if (mem && slots == revoke_map_next(&t->revokes)) {
			mem = revoke_map_install(&t->revokes, mem, slots);
			break;
		}
		slots = revoke_map_next(&t->revokes);
		spin_unlock(&j->j_lock);
		free(mem);
		mem = revoke_map_alloc(slots);
		/* Patient: the block is free already, mostly. */
		if (!mem && !mem_pause(&tries))
			return -ENOMEM;
	}
	if (revoke_map_set(&t->revokes, blk, t->tid)) {
		assert(h->revokes > 0);
		assert(t->rev_credits > 0);
		h->revokes--;
		t->rev_credits--;
		t->nr_revokes++;
	}
	spin_unlock(&j->j_lock);
	free(mem);
	return 0;
}

/*
 * Takes b out of the running transaction's images. As long as an older
 * transaction has it (committing, or on a checkpoint list) it stays a member,
 * "forgotten": no checkpoint touches a member of the running transaction, and
 * the commit takes it off the lists before the block can be handed out again.
 */
static void buffer_forget(struct handle *h, struct buffer *b)
{
	struct journal *j = h->j;
	struct transaction *t = h->t;
	struct journal_head *jh;
	struct jh_own *own;

	spin_lock(&b->b_jlock);
	jh = b->b_jh;
	if (!jh) {
		spin_unlock(&b->b_jlock);
		return;
	}
	own = &jh->own[t->slot];
	if (own->t && own->dirty) {
		/* The credit goes back to this handle. */
		own->dirty = false;
		h->blocks++;
		spin_lock(&j->j_lock);
		t->nr_dirty--;
		t->credits++;
		spin_unlock(&j->j_lock);
	}
	if (jh->cp_t || jh->own[!t->slot].t) {
		if (!own->t)
			jh_join(j, jh, t);
		own->forgotten = true;
	} else if (own->t) {
		spin_lock(&j->j_lock);
		cds_list_del(&own->link);
		spin_unlock(&j->j_lock);
		own->t = NULL;
	}
	jh_put_unlock(b);
}

int handle_forget(struct handle *h, struct buffer *b, pblk_t blk)
{
	struct journal *j = h->j;
	int err;

	assert(!b || b->b_blocknr == blk);
	if (journal_aborted(j) || !h->t) {
		buffer_put(b);
		return -EROFS;
	}
	err = SIM_MUTATION(SIM_NO_REVOKE) ? 0 : transaction_revoke(h, blk);
	if (err) {
		buffer_put(b);
		return err;
	}
	if (!b)
		b = buffer_find(j->sb, blk);
	if (!b)
		return 0;
	buffer_forget(h, b);
	buffer_detach(b);
	buffer_put(b);
	return 0;
}
