/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * writeback/flusher.c - writes dirty inodes in the background
 *
 * The thread works in passes. A pass asks the inode cache for the next dirty
 * inode again and again and writes a slice of each; the cache puts an inode it
 * hands out at the tail, so all get their turn. A slice begins where the last
 * one of that inode ended, so that a file whose beginning is written to all the
 * time gets to its end, too. There are three reasons for a
 * pass, and each says when it is over:
 *
 *   over the background mark   until below it again, and no writer is at the limit
 *   a kick                     until nothing dirtied before the kick is left
 *   every expiry/5             until nothing older than the expiry is left
 *
 * Write-behind is beside that: pieces that streams have completed stand in a
 * short queue, and one is written before each slice of a pass, or by itself.
 * So streams and the other dirty inodes take turns.
 *
 * What could make a pass spin: an inode whose write-out fails, or whose dirty
 * blocks are all under way already, comes back at once. So progress is
 * measured (bytes taken, or the inode is clean); once an inode comes round for the second
 * time with no progress in between, the pass ends and the thread rests. The rest
 * is not cut short by kicks, only by the stop. A pass also ends when it has taken
 * long (a file that is written to all the time never gets clean), so that what
 * has expired meanwhile is not left out.
 *
 * Locks:   behind_lock, a leaf; none held across s_op or cache calls
 * Alive:   an inode, by the reference that icache_next_dirty() or the
 *          iterator gives, or that of its piece in the queue; the flusher,
 *          until flusher_stop()
 * Never:   a wait without end for a volume that is read-only
 * Threads: the flusher; writers in balance_dirty() and flusher_behind(); sync in
 *          flusher_sync_all()
 * Next:    writeback/throttle.c
 */
#include "writeback/flusher.h"

#include "cache/icache.h"
#include "cache/sb_iter.h"
#include "lib/counter.h"
#include "lib/log.h"
#include "lib/thread.h"
#include "lib/wait.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define MS 1000000ull
#define SLICE_BYTES (8ull << 20)
#define PERIOD_MIN_MS 20u
#define PERIOD_MAX_MS 5000u
#define REST_BUSY_MS 5    /* all that is dirty is under way */
#define REST_ERROR_MS 200 /* what is left fails */
#define STREAK_MAX 4096   /* inodes in a row without progress */
#define BEHIND_MAX 32

/* Blocks [start, end) that a stream has completed. */
struct piece {
	struct inode *inode; /* referenced */
	lblk_t start, end;
};

struct flusher {
	struct super_block *sb;  /* [const] */
	_Atomic u32 dirty_expire_ms; /* [atomic] */
	_Atomic u64 background;  /* [atomic] bytes: write-out starts above */
	struct throttle *throttle;
	struct thread *thread;
	_Atomic u32 wake;  /* [atomic] writers and kicks raise it, the thread clears */
	_Atomic u64 kicked_at; /* [atomic] ns; 0: no kick; raised by anyone,
				  cleared by the thread */
	_Atomic bool stop; /* [atomic] */
	struct spinlock behind_lock; /* RANK_CACHE_LIST */
	struct piece behind[BEHIND_MAX]; /* [behind_lock] a ring */
	u32 behind_first;            /* [behind_lock] */
	_Atomic u32 behind_nr;       /* [write behind_lock] */
	_Atomic u64 nr_slices, nr_behind, nr_behind_lost; /* [atomic] */
};

static bool is_dead(const struct flusher *f)
{
	return atomic_load(&f->stop) || atomic_load(&f->sb->s_rdonly);
}

/*
 * While a writer is at the limit, the mark is 0: what it needs free may lie below
 * the mark (the two are close, or it writes much at once). Exact, as what the
 * writers look at is: else they could wait for a flusher that sees no need.
 */
static bool over_background(const struct flusher *f)
{
	s64 dirty = counter_sum(f->sb->s_dirty_bytes);

	if (dirty <= 0)
		return false;
	return throttle_at_limit(f->throttle) ||
	       (u64)dirty > atomic_load(&f->background);
}

/* ---- the thread ---- */

/* What a pass has seen since it last got anything done. */
struct pass {
	ino_nr first_stuck; /* 0: none */
	u32 streak;
	bool failed;
};

/*
 * Writes up to `bytes` of the inode from where the last slice ended, and when
 * that was before the end goes on at the beginning. i_wb_next is ours while
 * I_SYNC is set.
 */
static int write_from_cursor(struct flusher *f, struct inode *inode, u64 bytes,
			     u64 *taken)
{
	lblk_t from = inode->i_wb_next;
	struct wb_control wbc = {
		.start = from,
		.end = LBLK_MAX + 1,
		.nr_to_write = bytes,
	};
	int err = f->sb->s_op->write_inode(inode, &wbc), err2;

	if (from && wbc.nr_to_write) {
		wbc.start = 0;
		wbc.end = from;
		err2 = f->sb->s_op->write_inode(inode, &wbc);
		err = err ? err : err2;
	}
	inode->i_wb_next = wbc.nr_to_write ? 0 : wbc.next;
	*taken = bytes - wbc.nr_to_write;
	return err;
}

/* Writes one slice of an inode; consumes the reference. took: some bytes were
 * taken for writing; clean: nothing is left to be taken. */
static int write_slice(struct flusher *f, struct inode *inode, u64 bytes,
		       bool *took, bool *clean)
{
	u64 taken;
	int err = write_from_cursor(f, inode, bytes, &taken);

	*took = taken != 0;
	*clean = !(atomic_load(&inode->i_state) & I_DIRTY);
	icache_written(inode);
	inode_put(inode);
	return err;
}

static void warn_failed(const struct flusher *f, ino_nr ino, int err)
{
	if (err)
		log_ratelimited(LOG_LVL_WARN,
				"%s: inode %u: background write-out failed: %s",
				f->sb->s_id, ino, strerror(-err));
}

/* ---- write-behind ---- */

static bool behind_pop(struct flusher *f, struct piece *p)
{
	bool found;

	if (!atomic_load(&f->behind_nr))
		return false;
	spin_lock(&f->behind_lock);
	found = atomic_load(&f->behind_nr) > 0;
	if (found) {
		*p = f->behind[f->behind_first];
		f->behind_first = (f->behind_first + 1) % BEHIND_MAX;
		atomic_fetch_sub(&f->behind_nr, 1);
	}
	spin_unlock(&f->behind_lock);
	return found;
}

/* Writes the piece that has waited longest; false: there is none. */
static bool write_behind(struct flusher *f)
{
	struct wb_control wbc;
	struct piece p;
	int err;

	if (!behind_pop(f, &p))
		return false;
	wbc = (struct wb_control){
		.start = p.start,
		.end = p.end,
		.nr_to_write = UINT64_MAX,
	};
	/* What is deleted already need not be written. */
	err = p.inode->i_nlink ? f->sb->s_op->write_inode(p.inode, &wbc) : 0;
	warn_failed(f, p.inode->i_ino, err);
	inode_put(p.inode);
	atomic_fetch_add(&f->nr_behind, 1);
	throttle_progress(f->throttle);
	return true;
}

/* ---- passes ---- */

/* Records one inode's outcome; true if the pass cannot get further now. */
static bool is_stuck(struct pass *pass, ino_nr ino, bool progress, int err)
{
	if (progress && !err) {
		memset(pass, 0, sizeof(*pass));
		return false;
	}
	if (err)
		pass->failed = true;
	if (pass->first_stuck == ino || ++pass->streak > STREAK_MAX)
		return true;
	if (!pass->first_stuck)
		pass->first_stuck = ino;
	return false;
}

static void rest(struct flusher *f, unsigned ms)
{
	wait_event_deadline(&f->stop, atomic_load(&f->stop),
			    clock_mono_ns() + ms * MS);
}

enum pass_end {
	PASS_DONE,   /* nothing that is due is left */
	PASS_AGAIN,  /* there is more, at once */
	PASS_FAILED, /* what is left fails: leave it to the next period */
};

/*
 * One pass over inodes dirtied at or before older_than, or over all of them
 * while the background mark is passed; ends at `deadline` at the latest.
 */
static enum pass_end run_pass(struct flusher *f, u64 older_than, u64 deadline)
{
	struct pass pass = { 0 };

	while (!is_dead(f)) {
		bool over = over_background(f), took, clean;
		struct inode *inode;
		ino_nr ino;
		int err;

		(void)write_behind(f);
		inode = icache_next_dirty(f->sb, over ? UINT64_MAX : older_than);
		if (!inode) {
			if (over)
				rest(f, REST_BUSY_MS);
			return over ? PASS_AGAIN : PASS_DONE;
		}
		ino = inode->i_ino;
		err = write_slice(f, inode, SLICE_BYTES, &took, &clean);
		warn_failed(f, ino, err);
		atomic_fetch_add(&f->nr_slices, 1);
		throttle_progress(f->throttle);
		if (is_stuck(&pass, ino, took || clean, err)) {
			rest(f, pass.failed ? REST_ERROR_MS : REST_BUSY_MS);
			return pass.failed ? PASS_FAILED : PASS_AGAIN;
		}
		if (clock_mono_ns() >= deadline)
			return PASS_AGAIN;
	}
	return PASS_DONE;
}

static u32 period_ms(const struct flusher *f)
{
	u32 ms = f->dirty_expire_ms / 5;

	return min_of(max_of(ms, PERIOD_MIN_MS), PERIOD_MAX_MS);
}

/* Inodes dirtied before this are due. */
static u64 due_before(const struct flusher *f, u64 kicked, u64 now)
{
	u64 age = f->dirty_expire_ms * MS;
	u64 expired = now > age ? now - age : 0;

	return max_of(kicked, expired);
}

static bool pass_due(const struct flusher *f, u64 deadline)
{
	return atomic_load(&f->kicked_at) || clock_mono_ns() >= deadline ||
	       over_background(f);
}

/*
 * `wake` is cleared before the state is looked at, so a raise that comes
 * later finds it clear and is seen at the next wait. A kick stays in kicked_at
 * until a pass that covered it has ended; a later kick has replaced it then.
 */
static void flusher_main(void *arg)
{
	struct flusher *f = arg;
	u64 deadline = clock_mono_ns() + period_ms(f) * MS;

	while (!atomic_load(&f->stop)) {
		enum pass_end end;
		u64 kicked, now;

		wait_event_deadline(&f->wake, atomic_load(&f->wake), deadline);
		atomic_store(&f->wake, 0);
		/* Streams alone; else the pass takes them in between. */
		while (!is_dead(f) && !pass_due(f, deadline) && write_behind(f))
			;
		now = clock_mono_ns();
		kicked = atomic_load(&f->kicked_at);
		if (pass_due(f, deadline)) {
			end = run_pass(f, due_before(f, kicked, now),
				       now + period_ms(f) * MS);
			if (end == PASS_AGAIN)
				atomic_store(&f->wake, 1);
			else if (kicked)
				atomic_compare_exchange_strong(&f->kicked_at,
							       &kicked, 0);
			deadline = clock_mono_ns() + period_ms(f) * MS;
			/* It takes one piece for each slice; the rest, which
			 * hold their inodes, must not wait for the next. */
			if (atomic_load(&f->behind_nr) && !is_dead(f))
				atomic_store(&f->wake, 1);
		}
		/* Read-only: the writes above would only fail. */
		if (atomic_load(&f->sb->s_rdonly))
			rest(f, REST_ERROR_MS);
	}
}

/* Saves writers the bucket lock while the thread is awake anyway. */
static void wake_thread(struct flusher *f)
{
	if (!atomic_load(&f->wake) && !atomic_exchange(&f->wake, 1))
		wake_up(&f->wake);
}

static void urge(void *priv)
{
	wake_thread(priv);
}

int flusher_start(struct super_block *sb, const struct flusher_params *p,
		  struct flusher **out)
{
	struct flusher *f;
	int err;

	f = calloc(1, sizeof(*f));
	if (!f)
		return -ENOMEM;
	f->sb = sb;
	atomic_store(&f->dirty_expire_ms, p->dirty_expire_ms);
	f->background = p->dirty_background_bytes;
	spin_init(&f->behind_lock, RANK_CACHE_LIST);
	err = throttle_create(sb, p->dirty_background_bytes, p->dirty_bytes,
			      urge, f, &f->throttle);
	if (err)
		goto out_free;
	err = thread_create(&f->thread, "sl-flusher", flusher_main, f);
	if (err)
		goto out_throttle;
	*out = f;
	return 0;

out_throttle:
	throttle_free(f->throttle);
out_free:
	spin_destroy(&f->behind_lock);
	free(f);
	return err;
}

void flusher_stop(struct flusher *f)
{
	struct piece p;

	if (!f)
		return;
	atomic_store(&f->stop, true);
	wake_up(&f->stop);
	atomic_store(&f->wake, 1);
	wake_up(&f->wake);
	throttle_stop(f->throttle);
	thread_join(f->thread);
	while (behind_pop(f, &p))
		inode_put(p.inode);
	throttle_free(f->throttle);
	spin_destroy(&f->behind_lock);
	free(f);
}

void flusher_set_marks(struct flusher *f, u64 background, u64 limit)
{
	atomic_store(&f->background, background);
	throttle_set_marks(f->throttle, background, limit);
	wake_thread(f);
}

void flusher_set_expire(struct flusher *f, u32 ms)
{
	atomic_store(&f->dirty_expire_ms, ms);
	wake_thread(f);
}

void flusher_kick(struct flusher *f)
{
	u64 now = clock_mono_ns(), old = atomic_load(&f->kicked_at);

	while (old < now &&
	       !atomic_compare_exchange_weak(&f->kicked_at, &old, now))
		;
	wake_thread(f);
}

/* ---- writers ---- */

/* Off by the shares of the CPUs, which only moves the mark a little. */
void balance_dirty(struct flusher *f, struct inode *inode, u64 bytes)
{
	s64 dirty = counter_read_fast(f->sb->s_dirty_bytes);

	if ((dirty > 0 ? (u64)dirty : 0) + bytes <= atomic_load(&f->background))
		return;
	wake_thread(f);
	throttle_wait(f->throttle, inode, bytes);
}

/* Has the queue a piece with all of this one, or one that this continues? That
 * grows, to a slice. */
static bool behind_extend(struct flusher *f, const struct inode *inode,
			  lblk_t start, lblk_t end)
{
	u32 slice = (u32)(SLICE_BYTES >> f->sb->s_blocksize_bits);
	u32 nr = atomic_load(&f->behind_nr);

	for (u32 i = 0; i < nr; i++) {
		struct piece *p = &f->behind[(f->behind_first + i) % BEHIND_MAX];

		if (p->inode == inode && p->start <= start && p->end >= end)
			return true;
		if (p->inode == inode && p->end == start &&
		    end - p->start <= slice) {
			p->end = end;
			return true;
		}
	}
	return false;
}

void flusher_behind(struct flusher *f, struct inode *inode, lblk_t start, lblk_t end)
{
	bool lost = false;

	assert(start < end);
	spin_lock(&f->behind_lock);
	if (!behind_extend(f, inode, start, end)) {
		u32 nr = atomic_load(&f->behind_nr);

		lost = nr == BEHIND_MAX;
		if (!lost) {
			inode_get(inode);
			f->behind[(f->behind_first + nr) % BEHIND_MAX] =
				(struct piece){ inode, start, end };
			atomic_store(&f->behind_nr, nr + 1);
		}
	}
	spin_unlock(&f->behind_lock);
	if (lost)
		atomic_fetch_add(&f->nr_behind_lost, 1);
	else
		wake_thread(f);
}

void flusher_get_stats(const struct flusher *f, struct flusher_stats *st)
{
	st->slices = atomic_load(&f->nr_slices);
	st->behind = atomic_load(&f->nr_behind);
	st->behind_lost = atomic_load(&f->nr_behind_lost);
	throttle_get_stats(f->throttle, &st->throttle);
}

/* ---- sync ---- */

/*
 * Starts write-out of all that is dirty, one inode after the other, without
 * waiting: the device gets its queue full before sync_one() waits for each. It only
 * saves time, so it stops when what is left does not get clean. An error is met
 * again, and reported, by sync_one(). It ends: an inode that got clean and is dirtied
 * anew counts as of then, so is no longer among those before `before`.
 */
static void start_all(struct flusher *f, u64 before)
{
	struct pass pass = { 0 };
	struct inode *inode;
	bool took, clean;
	ino_nr ino;
	int err;

	do {
		inode = icache_next_dirty(f->sb, before);
		if (!inode)
			return;
		ino = inode->i_ino;
		err = write_slice(f, inode, UINT64_MAX, &took, &clean);
	} while (!is_stuck(&pass, ino, clean, err));
}

struct sync_state {
	struct flusher *f;
	int error;
};

/*
 * An inode needs work if it is dirty, if the flusher is at it (its bits may be
 * clear while the write-out is still to be submitted), or if blocks are under
 * WRITEBACK: these were dirty before the call, perhaps, and are no longer on the dirty
 * list. The walk's INO_ITER_F_DIRTY finds all three kinds.
 */
static int sync_one(struct inode *inode, void *priv)
{
	struct sync_state *s = priv;
	struct wb_control wbc = {
		.sync = true,
		.start = 0,
		.end = LBLK_MAX + 1,
		.nr_to_write = UINT64_MAX,
	};
	int err = 0;

	if (atomic_load(&inode->i_state) & I_SYNC)
		inode_wait_sync(inode);
	if (atomic_load(&inode->i_state) & I_DIRTY)
		err = s->f->sb->s_op->write_inode(inode, &wbc);
	if (atomic_load(&inode->i_mapping.m_nr_writeback))
		mapping_wait_writeback(&inode->i_mapping, 0, LBLK_MAX + 1);
	if (err && !s->error)
		s->error = err;
	return INO_ITER_RET_CONT;
}

/*
 * The walk meets each inode once, so it ends however fast others write, and one
 * that was dirty at the start is in memory, and tagged, until it is clean.
 */
int flusher_sync_all(struct flusher *f)
{
	struct sync_state s = { .f = f };
	int err;

	start_all(f, clock_mono_ns());
	err = super_iter_inodes(f->sb, sync_one, &s, INO_ITER_F_DIRTY);
	return s.error ? s.error : err;
}
