/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lib/lock.h - mutex, spinlock and rwsem with ranks
 *
 * Each lock has a rank, fixed when it is initialised. A thread takes locks in
 * the order of their ranks, outermost (smallest) first. Debug builds
 * (SLUICE_DEBUG_LOCKS) keep a per-thread stack of what is held and abort on an
 * inversion, with both names (equal ranks are one too, but for I_RWSEM, BUFFER,
 * LEAF and NONE); they also count, per rank, acquisitions,
 * contended acquisitions and nanoseconds waited (lock_stats_dump()).
 *
 * The order is that of "Lock order" in ARCHITECTURE.md; change both.
 *
 * A mutex or rwsem is a sleeping lock: waiting for one calls
 * thread_blocks_begin()/end(). A spinlock is for short sections: no I/O, no
 * wait, no call through an ops table under it.
 * All are valid when zeroed except for their rank (then unranked, unchecked).
 */
#ifndef SLUICE_LIB_LOCK_H
#define SLUICE_LIB_LOCK_H

#include "lib/rwsem.h"
#include "lib/types.h"
#include "lib/wordlock.h"

#include <assert.h>
#ifdef SLUICE_DEBUG_LOCKS
#include <pthread.h>
#endif

enum lock_rank {
	RANK_NONE = 0,   /* not checked */
	RANK_S_UMOUNT,   /* super_block: mount, unmount, remount */
	RANK_RENAME,     /* super_block: one cross-directory rename at a time */
	RANK_I_RWSEM,    /* inode: operations; several may nest (ancestors first,
			    directories before files, else lower number) */
	RANK_WRITEBACK,  /* inode: one write-out pass at a time */
	RANK_QUOTA,      /* volume: one new record of a quota file at a time */
	RANK_IO,         /* pseudo: a folio or buffer locked for I/O */
	RANK_HANDLE,     /* pseudo: an open journal handle */
	RANK_VALUE,      /* references of inodes that hold an attribute's value; one at a time */
	RANK_ORPHAN,     /* ext4 orphan list, in memory and on disk */
	RANK_I_DATA,     /* inode: extent tree (i_data_sem); two may nest, lower inode first */
	RANK_XATTR,      /* inode: extended attributes */
	RANK_BUFFER,     /* buffer: content; two may nest, lower block first */
	RANK_SB_FIELDS,  /* ext4 superblock fields */
	RANK_I_MMAP,     /* mapping: windows */
	RANK_LEAF,       /* mapping: leaf; two may nest, ascending */
	RANK_GROUP,      /* block group: bitmaps and descriptor */
	RANK_I_LOCK,     /* inode: whole cache state */
	RANK_CACHE_LIST, /* tree shard, LRU, dirty list, orphan slot: one only */
	RANK_JH,         /* buffer: its journal state */
	RANK_JOURNAL,    /* journal: state and lists */
	RANK_BIO,        /* writeback: queues of bios */
	RANK_WAIT,       /* buckets of lib/wait.h */
	RANK_STATS,      /* statistics, log, memory counters */
	RANK_NR
};

/* From RANK_I_MMAP inwards nothing may sleep on I/O or start a handle. */
#define RANK_NOSLEEP RANK_I_MMAP

/* Clang's thread-safety analysis (style.md 5). */
#if defined(__clang__)
#define TSA(x) __attribute__((x))
#else
#define TSA(x)
#endif
#define CAPABILITY(n) TSA(capability(n))
#define ACQUIRE(...) TSA(acquire_capability(__VA_ARGS__))
#define ACQUIRE_SHARED(...) TSA(acquire_shared_capability(__VA_ARGS__))
#define TRY_ACQUIRE(...) TSA(try_acquire_capability(__VA_ARGS__))
#define TRY_ACQUIRE_SHARED(...) TSA(try_acquire_shared_capability(__VA_ARGS__))
#define RELEASE(...) TSA(release_capability(__VA_ARGS__))
#define RELEASE_SHARED(...) TSA(release_shared_capability(__VA_ARGS__))
#define REQUIRES(...) TSA(requires_capability(__VA_ARGS__))
#define REQUIRES_SHARED(...) TSA(requires_shared_capability(__VA_ARGS__))
#define NO_THREAD_SAFETY TSA(no_thread_safety_analysis)

struct CAPABILITY("mutex") mutex {
	struct word_lock l;
#ifdef SLUICE_DEBUG_LOCKS
	pthread_t owner; /* [the lock itself] valid while held */
	bool held;
	enum lock_rank rank;
#endif
};

struct CAPABILITY("spinlock") spinlock {
	struct word_lock l; /* spins a little, then sleeps */
#ifdef SLUICE_DEBUG_LOCKS
	pthread_t owner;
	bool held;
	enum lock_rank rank;
#endif
};

/* Readers share; nobody is passed by others for long (lib/rwsem.h); no recursion,
 * no upgrade. Who releases it keeps it in memory until the call has returned. */
struct CAPABILITY("rwsem") rwsem {
	struct rwsem_raw raw;
#ifdef SLUICE_DEBUG_LOCKS
	pthread_t writer;
	_Atomic int state; /* -1 written, n read: for assert_ only */
	enum lock_rank rank;
#endif
};

#ifdef SLUICE_DEBUG_LOCKS

void mutex_init(struct mutex *m, enum lock_rank rank);
void mutex_destroy(struct mutex *m);
void mutex_lock(struct mutex *m) ACQUIRE(m);
bool mutex_trylock(struct mutex *m) TRY_ACQUIRE(true, m);
void mutex_unlock(struct mutex *m) RELEASE(m);

void spin_init(struct spinlock *s, enum lock_rank rank);
void spin_destroy(struct spinlock *s);
void spin_lock(struct spinlock *s) ACQUIRE(s);
/* A trylock may go against the ranks: nothing is checked. */
bool spin_trylock(struct spinlock *s) TRY_ACQUIRE(true, s);
void spin_unlock(struct spinlock *s) RELEASE(s);

#else /* the same, in line */

/* For mutex_lock(), which has tried. */
void mutex_wait(struct mutex *m);

static inline void mutex_init(struct mutex *m, enum lock_rank rank)
{
	*m = (struct mutex){ 0 };
}

static inline void mutex_destroy(struct mutex *m)
{
	assert(word_lock_is_free(&m->l));
}

NO_THREAD_SAFETY static inline void mutex_lock(struct mutex *m) ACQUIRE(m)
{
	if (unlikely(!word_lock_try(&m->l)))
		mutex_wait(m);
}

NO_THREAD_SAFETY static inline bool mutex_trylock(struct mutex *m) TRY_ACQUIRE(true, m)
{
	return word_lock_try(&m->l);
}

NO_THREAD_SAFETY static inline void mutex_unlock(struct mutex *m) RELEASE(m)
{
	word_lock_drop(&m->l);
}

static inline void spin_init(struct spinlock *s, enum lock_rank rank)
{
	*s = (struct spinlock){ 0 };
}

static inline void spin_destroy(struct spinlock *s)
{
	assert(word_lock_is_free(&s->l));
}

NO_THREAD_SAFETY static inline void spin_lock(struct spinlock *s) ACQUIRE(s)
{
	word_lock_take(&s->l);
}

NO_THREAD_SAFETY static inline bool spin_trylock(struct spinlock *s) TRY_ACQUIRE(true, s)
{
	return word_lock_try(&s->l);
}

NO_THREAD_SAFETY static inline void spin_unlock(struct spinlock *s) RELEASE(s)
{
	word_lock_drop(&s->l);
}

#endif

void rwsem_init(struct rwsem *rw, enum lock_rank rank);
void rwsem_destroy(struct rwsem *rw);
void rwsem_down_read(struct rwsem *rw) ACQUIRE_SHARED(rw);
bool rwsem_down_read_trylock(struct rwsem *rw) TRY_ACQUIRE_SHARED(true, rw);
void rwsem_up_read(struct rwsem *rw) RELEASE_SHARED(rw);
void rwsem_down_write(struct rwsem *rw) ACQUIRE(rw);
bool rwsem_down_write_trylock(struct rwsem *rw) TRY_ACQUIRE(true, rw);
void rwsem_up_write(struct rwsem *rw) RELEASE(rw);

/*
 * Pseudo-locks: a place in the order without a lock word, for an open journal
 * handle or an object locked by a flag. Checked like a lock in debug builds.
 */
void rank_enter(enum lock_rank rank);
void rank_exit(enum lock_rank rank);
/* Debug: abort unless every lock held by this thread ranks below `rank`. */
void assert_rank_below(enum lock_rank rank);

#ifdef SLUICE_DEBUG_LOCKS
void assert_mutex_held(const struct mutex *m);
void assert_spin_held(const struct spinlock *s);
/* By this thread; rwsem: shared or exclusively. */
void assert_rwsem_held(const struct rwsem *rw);
void assert_rwsem_held_write(const struct rwsem *rw);
#else
static inline void assert_mutex_held(const struct mutex *m) { (void)m; }
static inline void assert_spin_held(const struct spinlock *s) { (void)s; }
static inline void assert_rwsem_held(const struct rwsem *rw) { (void)rw; }
static inline void assert_rwsem_held_write(const struct rwsem *rw) { (void)rw; }
#endif

/*
 * One log line per rank that was taken: name, acquisitions, contended, total
 * and longest wait in ns. Debug builds only (otherwise says so).
 */
void lock_stats_dump(void);

#endif
