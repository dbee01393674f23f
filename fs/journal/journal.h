/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/journal/journal.h - the jbd2-compatible journal: handles, commit, recovery
 *
 * A change of metadata is made inside a handle: journal_start() with an upper
 * bound of the blocks it will change, handle_get_write_access() on each buffer
 * *before* its content changes, handle_dirty() after, handle_stop(). All
 * handles open at the same time join one running transaction; the commit
 * thread closes it (waits for its handles), freezes images, writes them to the
 * log, and acknowledges when the commit block is durable. Buffers reach their
 * place later (checkpoint), by the same thread, in sorted 512 KiB bios.
 *
 * The log may have a device of its own (an external journal). Commits, revokes and the
 * journal's superblock go there; metadata and data have their places on the volume's. Each
 * of the two has a write cache, and a flush of one says nothing of the other:
 *
 *  - before a commit block is written, the log's device is flushed (descriptors, images)
 *    and the volume's (data that the transaction makes visible);
 *  - before the tail moves, the volume's is flushed (what was checkpointed); the log's
 *    superblock is then written with FUA on the log's;
 *  - a commit that is waited for has flushed the volume's, too; an fsync that finds
 *    nothing to commit flushes the volume's.
 *
 *   running -> locked (no new handles; drain) -> switched (a new running one
 *   may start) -> written (log blocks) -> flushes -> commit block (FUA) ->
 *   committed (callbacks run) -> checkpointed (log space free)
 *
 * Rules the callers keep:
 *  - No lock of rank RANK_HANDLE or inwards is held when a handle is started
 *    or restarted. A thread has one handle at a time.
 *  - Read and check everything that can fail before the first change; an error
 *    after a change is for ext4_error(), which aborts the journal.
 *  - After handle_get_write_access() the content may change until
 *    handle_stop(), under the content's own lock.
 *  - A freed metadata block is given to handle_forget() (revoke + drop).
 * After abort every call returns -EROFS and nothing reaches the disk.
 *
 * Memory: images are frozen into an I/O arena in slices; a buffer in the
 * journal holds a reference on it.
 * Locks: b_jlock (RANK_JH) -> journal lock (RANK_JOURNAL).
 * Source: ext4-format brief sections 10, 11; Documentation/filesystems/ext4/journal.rst.
 */
#ifndef SLUICE_FS_JOURNAL_H
#define SLUICE_FS_JOURNAL_H

#include "cache/buffer.h"
#include "lib/rcu.h"
#include "writeback/bdev.h"

struct journal;
struct handle;
typedef u32 jtid_t; /* transaction number; compare with tid_geq() */

static inline bool tid_geq(jtid_t a, jtid_t b) { return (s32)(a - b) >= 0; }

/* Where the journal lies: its blocks [jblk, jblk+len) are at pblk. Sorted, no gaps. */
struct journal_extent {
	u32 jblk;
	u32 len;
	pblk_t pblk;
};

struct journal_ops {
	/*
	 * Commit thread; the transaction's handles have drained, no new one has
	 * started: last changes, made through h (credits: 4 blocks, and those of
	 * handle_add_commit_block()).
	 */
	void (*pre_commit)(void *priv, struct handle *h);
	/* Once, when the journal aborts; any thread, no journal lock held. */
	void (*on_abort)(void *priv, int error);
	/* Recovery: may blk be written at all (inside the volume, not the journal)? */
	bool (*replay_ok)(void *priv, pblk_t blk);
	/* Recovery: last touch on an image before it is written (the superblock
	 * keeps its error fields). data is one block. */
	void (*replay_fixup)(void *priv, pblk_t blk, void *data);
};

struct journal_params {
	struct super_block *sb;     /* block size, buffer cache, name */
	struct bdev *bd;            /* device of the volume (and of an internal journal) */
	struct bdev *log_bd;        /* the external journal's; NULL: the log is on bd */
	u32 sb_jblk;                /* log block that is the journal's superblock: 0 of an
				       internal journal; what is before it is not the log's */
	const struct journal_extent *map; /* copied */
	u32 nr_map;
	u32 maxlen;                 /* blocks the map covers */
	const u8 *user;             /* 16 bytes: the one that an external journal must
				       have in its table of users; NULL: not looked for */
	bool in_place;              /* no log: no map; a commit writes all to its place,
				       and is no longer all or nothing */
	bool use_64bit;             /* the volume has feature 64bit */
	bool use_csum_v3;           /* the volume has metadata_csum */
	bool fast_commit;           /* the volume has compat fast_commit */
	u32 commit_interval_ms;     /* 0: 5000 */
	const struct journal_ops *ops;
	void *priv;                 /* for ops */
};

/*
 * Reads and checks the journal superblock. Starts nothing, writes nothing.
 * -EFSCORRUPTED, -EFSBADCRC, -EOPNOTSUPP (version 1, unknown features, fast
 * commits to replay), -EINVAL (an external journal of another volume, or of several),
 * -EIO, -ENOMEM; the reason is logged.
 */
int __must_check journal_load(const struct journal_params *p, struct journal **out);
void journal_free(struct journal *j); /* not started, or shut down */

bool journal_needs_recovery(const struct journal *j); /* s_start != 0 */
int journal_recorded_errno(const struct journal *j);  /* s_errno, negative or 0 */
u32 journal_blocks(const struct journal *j);

struct journal_recovery_stats {
	u32 transactions, blocks, revokes, revoke_hits;
};
/*
 * Replays the log into target: the device itself, or an overlay (read-only
 * mount: then nothing at all is written to the device and the log stays).
 * With the device of the volume: flushes it, then marks the log empty (next tid: last + 2). May be run again
 * after a crash. Errors: -EFSCORRUPTED, -EFSBADCRC (log damaged before its
 * end; nothing was written), -EIO, -ENOMEM.
 */
int __must_check journal_recover(struct journal *j, struct bdev *target,
				 struct journal_recovery_stats *st);

/* Read-write: feature bits, clears s_errno, empty log; flushes; starts the
 * commit thread. The log must be empty (recovered). */
int __must_check journal_run(struct journal *j);
/*
 * Commits, checkpoints everything, flushes, marks the log empty, stops the
 * thread. After abort only stops it; returns the abort's error then.
 */
int __must_check journal_shutdown(struct journal *j);

void journal_set_commit_interval(struct journal *j, u32 ms); /* 0: default */
/*
 * Returns when what was committed before is in its place, so that its buffers can
 * be reclaimed; but for those that are in use again, or if the journal is aborted.
 * Between journal_run() and journal_shutdown(). Sleeps; no lock, no handle.
 */
void journal_write_back(struct journal *j);
/*
 * The same, and then the whole log but its superblock is overwritten with zeros, or
 * discarded on the device. The log is empty then; commits wait meanwhile. -EBUSY: others
 * commit all the time, or do this just now; a block stays in use. -EOPNOTSUPP: there is
 * no log, or no discard. After an I/O error a part is erased, which does no harm.
 */
int __must_check journal_erase(struct journal *j, bool discard);
/* The budget has another limit: what waits for a checkpoint is kept to its share. The
 * size of a transaction stays what it was at the mount. */
void journal_set_cache_limit(struct journal *j, u64 limit);

/* ---- handles ---- */

/*
 * Opens a handle that may change up to `blocks` buffers and revoke up to
 * `revokes` blocks. Waits for log space and for a locked transaction to drain.
 * -EROFS (aborted), -ENOSPC (not journal_fits()), -ENOMEM.
 */
int __must_check journal_start(struct journal *j, u32 blocks, u32 revokes,
			       struct handle **out);
/* Closes it; the last handle of a locked transaction wakes the commit. With
 * handle_set_sync(), waits for the commit. 0, or -EROFS: aborted before, and nothing of
 * the handle will be on disk (without handle_set_sync()). */
int handle_stop(struct handle *h);
void handle_set_sync(struct handle *h);
/* The most that `blocks` can be. */
u32 journal_max_credits(const struct journal *j);
/* Can one transaction hold as much at all? */
bool journal_fits(const struct journal *j, u32 blocks, u32 revokes);

/*
 * Makes sure that at least this many are left, extending in place. 0: there
 * are; 1: the caller must make things consistent and handle_restart(); or
 * negative errno.
 */
int __must_check handle_ensure(struct handle *h, u32 blocks, u32 revokes);
/* Ends the handle and opens it again, perhaps in the next transaction: write
 * access is to be got anew. Same lock rule as journal_start(). On error the
 * handle is still to be stopped. */
int __must_check handle_restart(struct handle *h, u32 blocks, u32 revokes);

/*
 * A handle whose log space is set aside now, to be started later even when the
 * log is being drained (conversions at end of I/O). Both calls wait, and have
 * the lock rule of journal_start(): no handle is open. All reserved handles
 * together take at most half of a transaction; more wait for those. -ENOSPC,
 * -EROFS, -ENOMEM.
 */
int __must_check journal_reserve(struct journal *j, u32 blocks, struct handle **out);
int __must_check handle_start_reserved(struct handle *h); /* on error h is freed */
void handle_cancel_reserved(struct handle *h);

/*
 * Each handle has so many blocks beyond those it asked for, for
 * handle_add_commit_block() alone. Before the first handle; 0 at first.
 */
void journal_set_handle_extra(struct journal *j, u32 blocks);
/* One of them is kept for pre_commit of this transaction; once they are used up, one of
 * the handle's own. Any lock that ranks before RANK_JOURNAL may be held. */
void handle_add_commit_block(struct handle *h);

struct journal *handle_journal(const struct handle *h);
jtid_t handle_tid(const struct handle *h);
u32 handle_credits(const struct handle *h); /* blocks left */
/* A mark that the journal only carries: what is allocated in h may come from
 * the blocks reserved for the superuser. */
void handle_set_privileged(struct handle *h);
bool handle_privileged(const struct handle *h);
bool handle_aborted(const struct handle *h);

/*
 * Before changing b's content. If b belongs to the committing transaction and
 * its image is not in the log yet, that image is set aside. Never does I/O.
 * -EROFS, -ENOMEM.
 */
int __must_check handle_get_write_access(struct handle *h, struct buffer *b);
/* The same for a buffer from buffer_get_zeroed(): a block just allocated. */
int __must_check handle_get_create_access(struct handle *h, struct buffer *b);
/* After a change; b then belongs to the handle's transaction. Asserts access
 * and credits. Cancels a revoke of this block by the same transaction. */
void handle_dirty(struct handle *h, struct buffer *b);
/*
 * The metadata block blk is being freed: revoke it, drop its buffer from the
 * running transaction, from checkpoint lists when this transaction commits, and from the
 * cache (buffer_detach). b: its buffer if the caller has it (one reference is
 * consumed), or NULL. Call it before or after the bitmap change, same handle.
 */
int __must_check handle_forget(struct handle *h, struct buffer *b, pblk_t blk);
/* Called once after the handle's transaction is durable (error 0), or has been
 * lost to an abort (error < 0). On the commit thread; may take ranks from
 * RANK_GROUP inwards; must not start handles or do I/O. */
struct commit_cb {
	void (*fn)(struct commit_cb *cb, int error);
	struct cds_list_head link; /* [journal lock] */
};
void handle_on_commit(struct handle *h, struct commit_cb *cb);

/* ---- commit ---- */

jtid_t journal_running_tid(struct journal *j); /* of the running or the next one */
/* Starts committing everything up to tid, waits until it is durable. *flushed (may be
 * NULL): whether a flush of the volume's device happened after the call. 0, -EIO/-EROFS after abort. */
int __must_check journal_commit_wait(struct journal *j, jtid_t tid, bool *flushed);
/* As above without waiting. */
void journal_commit_start(struct journal *j, jtid_t tid);
/* Commits whatever is running and waits. */
int __must_check journal_force_commit(struct journal *j);

/* No more changes reach the disk; error (negative) is recorded in the journal
 * superblock, unless it is -ESHUTDOWN, which is none. Idempotent. Any thread; may sleep for I/O. */
void journal_abort(struct journal *j, int error);
int journal_aborted(const struct journal *j); /* 0 or the error */
/* After an abort: returns when nothing that was committed is on its way to its place, and
 * nothing will be. Any thread; sleeps for I/O. */
void journal_wait_places(struct journal *j);

/*
 * Tells whether metadata was being written to its place: odd while it is, and
 * another number each time. What was read from the device past the buffer
 * cache may be torn unless the number is even before, and the same after.
 */
u64 journal_place_seq(const struct journal *j);

struct journal_stats { /* [atomic each] */
	_Atomic u64 commits, handles, blocks_logged, revokes, checkpoints,
		checkpoint_blocks, frozen_copies, handle_waits, fsync_joins, tail_updates;
};
const struct journal_stats *journal_stats(const struct journal *j);

#endif
