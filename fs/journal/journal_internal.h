/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/journal/journal_internal.h - what the files of the journal share
 *
 * Who may touch what. A buffer in the journal has a journal_head with up to
 * three memberships: in the running transaction, in the committing one, and
 * on the checkpoint list of a committed one. Running and committing use the
 * two slots of own[]: a transaction's slot is fixed when it is made, the next
 * one gets the other slot, and a slot is empty again before a third
 * transaction can start. So a switch from running to committing moves nothing.
 *
 *   own[]        [b_jlock]; the list link inside: [j_lock] while the
 *                transaction is running, journal thread only afterwards
 *   cp_t         [b_jlock]; changed by the journal thread only
 *   cp_link      journal thread only
 *
 * A journal_head exists as long as it has a membership, and holds a reference
 * on its buffer. Only the journal thread ends memberships in a committing
 * transaction or on a checkpoint list: the heads it finds there stay.
 *
 * Locks: b_jlock (RANK_JH) -> j_lock (RANK_JOURNAL). No I/O, no call through
 *        an ops table, no wait under either; the one exception is
 *        buffer_type.freeze(), which is a pure computation.
 * Next:  transaction.c (handles), commit.c, checkpoint.c.
 */
#ifndef SLUICE_FS_JOURNAL_INTERNAL_H
#define SLUICE_FS_JOURNAL_INTERNAL_H

#include "fs/journal/jbd2_format.h"
#include "fs/journal/journal.h"
#include "lib/thread.h"
#include "lib/wait.h"
#include "writeback/page_io.h"

#include <stdatomic.h>

/* ---- revoke map: block -> transaction number; no locking of its own ---- */

struct revoke_entry {
	pblk_t blk;
	u32 tid;
	bool used;
};

struct revoke_map {
	struct revoke_entry *slot; /* NULL until the first insertion */
	u32 mask;                  /* number of slots - 1 */
	u32 nr;                    /* entries in use */
};

/* Memory for one entry more is not there: revoke_map_grow() first. */
bool revoke_map_full(const struct revoke_map *m);
/* Moves m's entries to `bigger` (made by revoke_map_alloc(revoke_map_next(m)))
 * and leaves the old memory in `bigger` for the caller to free. */
u32 revoke_map_next(const struct revoke_map *m);
struct revoke_entry *revoke_map_alloc(u32 slots);
struct revoke_entry *revoke_map_install(struct revoke_map *m,
					struct revoke_entry *bigger, u32 slots);
/* True: new; false: was there, its tid is now the newer of the two. */
bool revoke_map_set(struct revoke_map *m, pblk_t blk, u32 tid);
bool revoke_map_get(const struct revoke_map *m, pblk_t blk, u32 *tid);
bool revoke_map_remove(struct revoke_map *m, pblk_t blk);
void revoke_map_release(struct revoke_map *m);

/* ---- transactions ---- */

enum t_state {
	T_RUNNING,   /* takes handles */
	T_LOCKED,    /* takes no new ones; the thread waits for those open */
	T_COMMIT,    /* being written to the log */
	T_COMMITTED, /* durable in the log, not all in place */
};

struct transaction {
	jtid_t tid;          /* [const] as callers know it; never 0 */
	u8 slot;             /* [const] its index in journal_head.own */
	enum t_state state;  /* [j_lock] */
	u32 handles;         /* [j_lock] open ones */
	u32 credits;         /* [j_lock] blocks open handles may still dirty */
	u32 nr_dirty;        /* [j_lock] buffers that will be logged */
	u32 commit_blocks;   /* [j_lock] kept for pre_commit, by handle_add_commit_block() */
	u32 rev_credits;     /* [j_lock] revokes open handles may still make */
	u32 nr_revokes;      /* [j_lock] entries of `revokes` */
	u64 expires_ns;      /* [j_lock] commit at this time at the latest */
	struct cds_list_head buffers; /* [j_lock] running; then thread only */
	struct cds_list_head cbs;     /* [j_lock] running; then thread only */
	struct revoke_map revokes;    /* [j_lock] running; then thread only */

	/* journal thread only: */
	u32 log_start;                /* first block in the log */
	u32 log_seq;                  /* number in the log */
	struct cds_list_head cp_buffers;
	struct cds_list_head cp_link; /* j_cp */
};

struct journal_head {
	struct buffer *b; /* [const] referenced */
	struct jh_own {
		struct transaction *t;     /* NULL: not a member */
		struct cds_list_head link; /* t->buffers */
		bool dirty;     /* will be, or is, logged */
		bool forgotten; /* freed in t: leaves checkpoint lists with it */
		bool imaged;    /* committing: its image has been taken */
	} own[2];
	void *frozen; /* [b_jlock] image for the committing one, set aside */
	struct transaction *cp_t;
	struct cds_list_head cp_link;
};

/* An event counter: read, look at the state, wait for it to change. */
struct jevent {
	_Atomic u32 gen; /* [atomic] */
};

static inline u32 jevent_read(struct jevent *e)
{
	return atomic_load_explicit(&e->gen, memory_order_acquire);
}

static inline void jevent_wake(struct jevent *e)
{
	/* Pairs with the acquire in jevent_read(). */
	atomic_fetch_add_explicit(&e->gen, 1, memory_order_release);
	wake_up(e);
}

static inline void jevent_wait(struct jevent *e, u32 seen)
{
	wait_event(e, jevent_read(e) != seen);
}

/* A group of writes and its end. */
struct jio {
	struct io_end ioe;
	_Atomic bool done; /* [atomic] */
	bool busy;         /* [owner thread] submitted, not waited for */
};

#define PBLK_NONE UINT64_MAX
#define ARENA_HALF (1u << 20) /* bytes; a descriptor and its images fit */
#define PRE_COMMIT_CREDITS 4u
#define MIN_RING_BLOCKS 64u
#define MIN_EXTERNAL_BLOCKS 1024u /* as mke2fs and kernels have it; of an inode: mount.c */
#define MAX_TRANS_BYTES (32u << 20)
#define MIN_TRANS_BLOCKS 256u    /* if the log has them, however small the cache */
#define MAX_CP_BYTES (32u << 20) /* pinned by checkpoint lists before we write */
#define DEFAULT_COMMIT_MS 5000u
#define NSEC_PER_MSEC 1000000ull

struct journal {
	struct super_block *sb;       /* [const] */
	struct bdev *bd;              /* [const] the volume's */
	struct bdev *log_bd;          /* [const] the log's; bd if that has no own */
	u32 sb_jblk;                  /* [const] log block of the journal superblock */
	const u8 *user;               /* see journal_params [while loading] */
	bool in_place;                /* see journal_params [const] */
	const struct journal_ops *ops; /* [const] */
	void *priv;                   /* [const] */
	bool want_64bit, want_v3;     /* [const] */
	u32 blocksize;                /* [const] */
	u32 nr_map;                   /* [const] */
	struct journal_extent *map;   /* [const] */

	/* The ring and what its features mean; [const] from journal_run() on. */
	u32 maxlen, first, end; /* ring is [first, end) */
	u32 ring;               /* end - first */
	u32 incompat, compat;
	bool csum_v2, csum_v3;
	u32 jseed;
	u32 tag_bytes;
	u32 tags_per_block;     /* that we put in a descriptor */
	u32 revokes_per_block;
	u32 max_trans;          /* log blocks one transaction may need */
	u32 handle_extra;       /* [const from the first handle on] of each, for pre_commit */
	_Atomic u32 max_pinned; /* buffers on checkpoint lists before we write [atomic] */

	/* Journal superblock: image and its writing. */
	struct mutex sb_lock;
	void *sb_buf;           /* [sb_lock] one block; thread or before run */

	struct spinlock j_lock; /* RANK_JOURNAL */
	struct transaction *running;    /* [j_lock] */
	struct transaction *committing; /* [j_lock] changed by the thread */
	jtid_t next_tid;        /* [j_lock] of the next transaction */
	u8 next_slot;           /* [j_lock] */
	jtid_t committed;       /* [j_lock] last one that is durable */
	jtid_t request;         /* [j_lock] commit up to this one */
	u32 commit_need;        /* [j_lock] bound of the committing one's blocks */
	u32 reserved;           /* [j_lock] log blocks of reserved handles */
	bool space_wanted;      /* [j_lock] set by waiters, cleared by the thread */
	bool stop;              /* [j_lock] */
	bool started;           /* [j_lock] thread runs */
	u64 place_asked;        /* [j_lock] calls of journal_write_back() */
	jtid_t place_tid;       /* [j_lock] they want what is up to this one in place */
	bool erase_asked;       /* [j_lock] by journal_erase(), one at a time */
	bool erase_discard;     /* [j_lock] how */
	bool erasing;           /* [j_lock] one is under way */
	u32 head;               /* [j_lock] next free log block */
	u32 tail;               /* [j_lock] first block still needed */
	u32 commit_interval_ms; /* [j_lock] */

	_Atomic int aborted;    /* [atomic] 0 or the error */
	_Atomic u64 flush_started, flush_done; /* [atomic] numbers of flushes of bd */
	_Atomic u64 place_done; /* [atomic, write: thread] of place_asked */

	int erase_error;        /* [thread, before ev_erased] */
	struct jevent ev_erased; /* what was asked for is done */
	struct jevent ev_start;  /* handles may start: unlocked, or space */
	struct jevent ev_commit; /* a commit ended, or abort */
	struct jevent ev_thread; /* something for the thread */
	struct jevent ev_drain;  /* last handle of a locked transaction gone */

	/* journal thread only (before: whoever loads, recovers, runs): */
	struct thread *thread;
	u32 next_seq;           /* number of the next transaction in the log */
	u64 last_commit_sec;
	u32 last_commit_nsec;
	struct cds_list_head j_cp; /* committed transactions, oldest first */
	u32 nr_cp;              /* buffers on checkpoint lists */
	_Atomic u64 place_seq;  /* odd while blocks are written to their places; wait key
				   [journal thread; atomic to read] */
	bool cp_blocked;        /* the last pass found only buffers in use */
	u8 *arena;              /* 2 * ARENA_HALF */
	pblk_t *homes;          /* in_place: where its blocks go, PBLK_NONE: nowhere */
	struct jio jio[2];
	struct cp_item *cp_items;
	u32 cp_max;

	struct journal_stats stats;
};

struct handle {
	struct journal *j;
	struct transaction *t; /* NULL: reserved, or failed restart */
	u32 blocks, revokes;   /* left */
	u32 extra;             /* left for handle_add_commit_block() */
	u32 rsv_space;         /* reserved and not started: log blocks held */
	bool sync;
	bool internal;         /* pre_commit's */
	bool privileged;       /* for the file system: see handle_set_privileged() */
};

#define jstat_inc(j, f) \
	atomic_fetch_add_explicit(&(j)->stats.f, 1, memory_order_relaxed)
#define jstat_add(j, f, n) \
	atomic_fetch_add_explicit(&(j)->stats.f, (n), memory_order_relaxed)

/* ---- journal.c ---- */

/* Device block of log block jblk, and in *run how many follow it (>= 1). */
pblk_t journal_map(const struct journal *j, u32 jblk, u32 *run);
/* Log block n blocks after blk. */
u32 ring_add(const struct journal *j, u32 blk, u32 n);
/* Blocks from a forwards to b. */
u32 ring_dist(const struct journal *j, u32 a, u32 b);
/* Sets the geometry that follows from the feature bits. */
void journal_set_features(struct journal *j, u32 compat, u32 incompat);
/*
 * Writes the journal superblock with FUA: the log begins at start (0: empty)
 * with transaction seq. On an error the image in memory is as before.
 */
int __must_check journal_write_tail(struct journal *j, u32 start, u32 seq);
/* Flushes the volume's device, with the counts that journal_commit_wait() looks at. */
int __must_check journal_flush(struct journal *j);
/* Flushes the log's device, if it is another one. */
int __must_check journal_flush_log(struct journal *j);
void journal_kick(struct journal *j);

void jio_begin(struct jio *io);
void jio_end(struct jio *io); /* the submitter's reference; then wait */
int jio_wait(struct jio *io); /* first error of its writes */
/* One contiguous piece; falls back to a synchronous write without memory. */
int jio_add(struct journal *j, struct bdev *bd, struct page_io *pio, struct jio *io,
	    u64 pos, void *data, u32 bytes);

/* Checksum of a descriptor or revoke block with its tail field taken as 0. */
u32 journal_block_csum(const struct journal *j, const void *block);
/* Of a commit block, its checksum field taken as 0. */
u32 journal_commit_csum(const struct journal *j, const void *block);
/* Of an image as it lies in the log. */
u32 journal_image_csum(const struct journal *j, u32 seq, const void *image);

/* ---- transaction.c ---- */

/* Log blocks the transaction needs at most, with `blocks` and `revokes` more. */
u32 transaction_need(const struct journal *j, const struct transaction *t,
		     u32 blocks, u32 revokes);
/* Enough in it that it should be committed without being asked. [j_lock] */
bool transaction_big(const struct journal *j, const struct transaction *t);
/* Free log blocks, everything promised taken off but the running transaction. [j_lock] */
u32 journal_space(const struct journal *j);
/* Ends the head if nothing needs it; takes b_jlock off. REQUIRES b_jlock. */
void jh_put_unlock(struct buffer *b) RELEASE(b->b_jlock);
/* The private handle for ops->pre_commit; thread, transaction drained. */
void handle_open_internal(struct journal *j, struct transaction *t, struct handle *h);
void handle_close_internal(struct handle *h);

/* ---- commit.c ---- */
/* Commits the running transaction. Thread only. Errors abort the journal. */
void journal_commit_running(struct journal *j);
/* Drops a transaction that will never be durable. Thread only. */
void transaction_discard(struct journal *j, struct transaction *t, int error);
void transaction_free(struct transaction *t);

/* ---- checkpoint.c ---- */
int checkpoint_alloc(struct journal *j);
/* Is there a reason to write in place now? [j_lock], thread only */
bool checkpoint_wanted(struct journal *j);
/* Can something be done for who waits in journal_write_back()? [j_lock] */
bool checkpoint_asked_for(struct journal *j);
/* One batch and, if due, the tail. Thread only. Errors abort the journal. */
void checkpoint_step(struct journal *j);
/* Around writing to places, by the journal thread. False: after an abort, when nothing is to be
 * written any more; then without an end. */
bool journal_place_begin(struct journal *j);
void journal_place_end(struct journal *j);
/* Takes b off whatever checkpoint list it is on. REQUIRES b_jlock; thread. */
void checkpoint_remove(struct journal *j, struct journal_head *jh);
void checkpoint_insert(struct journal *j, struct journal_head *jh, struct transaction *t);
/* Everything in place, the tail at the head (all must be committed). */
void checkpoint_all(struct journal *j);
/* On the journal thread: journal_erase(), if nothing is on a checkpoint list. */
int checkpoint_erase(struct journal *j, bool discard);
/* After abort: empties the lists without writing. */
void checkpoint_discard(struct journal *j);

#endif
