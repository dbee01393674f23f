/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lib/lock.c - mutex, spinlock and rwsem with ranks
 *
 * Thin layers over lib/wordlock.c and lib/rwsem.c. A mutex or rwsem is tried first;
 * only a thread that has to wait tells its session so (thread_blocks_begin()).
 *
 * Debug builds keep what the thread holds in a thread-local stack, from which
 * locks may leave in any order. Taking a lock compares its rank with the
 * innermost one held: smaller is an inversion, equal is one unless the rank
 * allows several (rank_nests()). A trylock cannot deadlock, so it is pushed
 * without a check; what is taken later is compared with it all the same.
 * Taking a lock twice is found by its address, whatever its rank.
 *
 * Locks:   none of its own
 * Threads: any; a lock is released by the thread that took it
 */
#include "lib/lock.h"

#include <assert.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "lib/log.h"
#include "lib/thread.h"
#include "lib/wait.h"

#ifdef SLUICE_DEBUG_LOCKS

#define HELD_MAX 64

struct held_lock {
	const void *lock; /* NULL: a pseudo-lock */
	enum lock_rank rank;
};

static _Thread_local struct held_lock held[HELD_MAX];
static _Thread_local unsigned nr_held;

struct rank_stats {
	_Atomic u64 taken;	 /* [atomic] */
	_Atomic u64 contended;	 /* [atomic] */
	_Atomic u64 wait_ns;	 /* [atomic] */
	_Atomic u64 wait_max_ns; /* [atomic] */
} __cacheline_aligned;

static struct rank_stats stats[RANK_NR];

static const char *const rank_names[RANK_NR] = {
	[RANK_NONE] = "none",
	[RANK_S_UMOUNT] = "s_umount",
	[RANK_RENAME] = "rename",
	[RANK_I_RWSEM] = "i_rwsem",
	[RANK_WRITEBACK] = "writeback",
	[RANK_QUOTA] = "quota",
	[RANK_IO] = "io",
	[RANK_HANDLE] = "handle",
	[RANK_VALUE] = "value",
	[RANK_ORPHAN] = "orphan",
	[RANK_I_DATA] = "i_data",
	[RANK_XATTR] = "xattr",
	[RANK_BUFFER] = "buffer",
	[RANK_SB_FIELDS] = "sb_fields",
	[RANK_I_MMAP] = "i_mmap",
	[RANK_LEAF] = "leaf",
	[RANK_GROUP] = "group",
	[RANK_I_LOCK] = "i_lock",
	[RANK_CACHE_LIST] = "cache_list",
	[RANK_JH] = "jh",
	[RANK_JOURNAL] = "journal",
	[RANK_BIO] = "bio",
	[RANK_WAIT] = "wait",
	[RANK_STATS] = "stats",
};

static const char *rank_name(enum lock_rank rank)
{
	return (unsigned)rank < RANK_NR ? rank_names[rank] : "(bad rank)";
}

/* Ranks of which a thread may hold several; lock.h tells in which order. */
static bool rank_nests(enum lock_rank rank)
{
	return rank == RANK_NONE || rank == RANK_I_RWSEM || rank == RANK_I_DATA ||
	       rank == RANK_BUFFER || rank == RANK_LEAF;
}

static enum lock_rank innermost_rank(void)
{
	enum lock_rank max = RANK_NONE;

	for (unsigned i = 0; i < nr_held; i++)
		max = max_of(max, held[i].rank);
	return max;
}

static const struct held_lock *find_held(const void *lock)
{
	for (unsigned i = nr_held; i-- > 0;)
		if (held[i].lock == lock)
			return &held[i];
	return NULL;
}

static void check_order(const void *lock, enum lock_rank rank)
{
	enum lock_rank max = innermost_rank();

	if (lock && find_held(lock)) {
		log_err("lock check: %s lock %p taken twice by one thread",
			rank_name(rank), lock);
		abort();
	}
	if (rank == RANK_NONE || rank > max || (rank == max && rank_nests(rank)))
		return;
	log_err("lock check: %s (rank %d) taken while holding %s (rank %d)",
		rank_name(rank), (int)rank, rank_name(max), (int)max);
	abort();
}

static void push_held(const void *lock, enum lock_rank rank)
{
	if (nr_held == HELD_MAX) {
		log_err("lock check: one thread holds more than %d locks",
			HELD_MAX);
		abort();
	}
	held[nr_held++] = (struct held_lock){ .lock = lock, .rank = rank };
	atomic_fetch_add_explicit(&stats[rank].taken, 1, memory_order_relaxed);
}

/* A pseudo-lock (lock == NULL) is told by its rank. */
static void pop_held(const void *lock, enum lock_rank rank)
{
	for (unsigned i = nr_held; i-- > 0;) {
		if (held[i].lock != lock || held[i].rank != rank)
			continue;
		for (; i + 1 < nr_held; i++)
			held[i] = held[i + 1];
		nr_held--;
		return;
	}
	log_err("lock check: %s %p released by a thread that does not hold it",
		rank_name(rank), lock);
	abort();
}

/* What may do I/O while it is held is never waited for in an RCU section. */
static void check_may_wait(enum lock_rank rank)
{
	if (rank != RANK_NONE && rank < RANK_NOSLEEP)
		thread_might_block();
}

static u64 contended_begin(enum lock_rank rank)
{
	atomic_fetch_add_explicit(&stats[rank].contended, 1,
				  memory_order_relaxed);
	return clock_mono_ns();
}

static void contended_end(enum lock_rank rank, u64 start_ns)
{
	struct rank_stats *s = &stats[rank];
	u64 ns = clock_mono_ns() - start_ns;
	u64 max = atomic_load_explicit(&s->wait_max_ns, memory_order_relaxed);

	atomic_fetch_add_explicit(&s->wait_ns, ns, memory_order_relaxed);
	while (ns > max && !atomic_compare_exchange_weak(&s->wait_max_ns, &max,
							 ns))
		;
}

static void assert_failed(const char *what, const void *lock,
			  enum lock_rank rank) __attribute__((noreturn));
static void assert_failed(const char *what, const void *lock,
			  enum lock_rank rank)
{
	log_err("lock check: %s lock %p is not held %s by this thread",
		rank_name(rank), lock, what);
	abort();
}

void rank_enter(enum lock_rank rank)
{
	check_order(NULL, rank);
	push_held(NULL, rank);
}

void rank_exit(enum lock_rank rank)
{
	pop_held(NULL, rank);
}

void assert_rank_below(enum lock_rank rank)
{
	enum lock_rank max = innermost_rank();

	if (max == RANK_NONE || max < rank)
		return;
	log_err("lock check: %s (rank %d) held where only ranks before %s (rank %d) may be",
		rank_name(max), (int)max, rank_name(rank), (int)rank);
	abort();
}

void lock_stats_dump(void)
{
	for (int i = 0; i < RANK_NR; i++) {
		u64 taken = atomic_load(&stats[i].taken);

		if (!taken)
			continue;
		log_info("lock %s: taken %" PRIu64 ", contended %" PRIu64
			 ", waited %" PRIu64 " ns, longest %" PRIu64 " ns",
			 rank_names[i], taken, atomic_load(&stats[i].contended),
			 atomic_load(&stats[i].wait_ns),
			 atomic_load(&stats[i].wait_max_ns));
	}
}

#define RANK_OF(l) ((l)->rank)
#define SET_RANK(l, r) ((l)->rank = (r))

/* `held` and `owner` are written by the holder only, between lock and unlock. */
#define SET_OWNER(l) ((l)->owner = pthread_self(), (l)->held = true)
#define CLEAR_OWNER(l) ((l)->held = false)

void assert_mutex_held(const struct mutex *m)
{
	if (!find_held(m))
		assert_failed("", m, m->rank);
}

void assert_spin_held(const struct spinlock *s)
{
	if (!find_held(s))
		assert_failed("", s, s->rank);
}

void assert_rwsem_held(const struct rwsem *rw)
{
	if (!find_held(rw))
		assert_failed("shared or exclusively", rw, rw->rank);
}

void assert_rwsem_held_write(const struct rwsem *rw)
{
	if (!find_held(rw) || atomic_load(&rw->state) != -1)
		assert_failed("exclusively", rw, rw->rank);
}

#else /* !SLUICE_DEBUG_LOCKS */

#define RANK_OF(l) RANK_NONE
#define SET_RANK(l, r) ((void)(l), (void)(r))

static inline void check_order(const void *lock, enum lock_rank rank)
{
}
static inline void check_may_wait(enum lock_rank rank)
{
}
static inline void push_held(const void *lock, enum lock_rank rank)
{
}
static inline void pop_held(const void *lock, enum lock_rank rank)
{
}
static inline u64 contended_begin(enum lock_rank rank)
{
	return 0;
}
static inline void contended_end(enum lock_rank rank, u64 start_ns)
{
}

void rank_enter(enum lock_rank rank)
{
}

void rank_exit(enum lock_rank rank)
{
}

void assert_rank_below(enum lock_rank rank)
{
}

void lock_stats_dump(void)
{
	log_info("lock statistics: only in builds with debug_locks");
}

#endif

/* ---- mutex and spinlock ---- */

#ifdef SLUICE_DEBUG_LOCKS

void mutex_init(struct mutex *m, enum lock_rank rank)
{
	*m = (struct mutex){ 0 };
	SET_RANK(m, rank);
}

void mutex_destroy(struct mutex *m)
{
	assert(word_lock_is_free(&m->l));
}

NO_THREAD_SAFETY void mutex_lock(struct mutex *m)
{
	check_order(m, RANK_OF(m));
	check_may_wait(RANK_OF(m));
	if (!word_lock_try(&m->l)) {
		u64 start = contended_begin(RANK_OF(m));

		thread_blocks_begin();
		word_lock_wait(&m->l, false);
		thread_blocks_end();
		contended_end(RANK_OF(m), start);
	}
	SET_OWNER(m);
	push_held(m, RANK_OF(m));
}

NO_THREAD_SAFETY bool mutex_trylock(struct mutex *m)
{
	if (!word_lock_try(&m->l))
		return false;
	SET_OWNER(m);
	push_held(m, RANK_OF(m));
	return true;
}

NO_THREAD_SAFETY void mutex_unlock(struct mutex *m)
{
	pop_held(m, RANK_OF(m));
	CLEAR_OWNER(m);
	word_lock_drop(&m->l);
}

void spin_init(struct spinlock *s, enum lock_rank rank)
{
	*s = (struct spinlock){ 0 };
	SET_RANK(s, rank);
}

void spin_destroy(struct spinlock *s)
{
	assert(word_lock_is_free(&s->l));
}

NO_THREAD_SAFETY void spin_lock(struct spinlock *s)
{
	check_order(s, RANK_OF(s));
	if (!word_lock_try(&s->l)) {
		u64 start = contended_begin(RANK_OF(s));

		word_lock_wait(&s->l, true);
		contended_end(RANK_OF(s), start);
	}
	SET_OWNER(s);
	push_held(s, RANK_OF(s));
}

NO_THREAD_SAFETY bool spin_trylock(struct spinlock *s)
{
	if (!word_lock_try(&s->l))
		return false;
	SET_OWNER(s);
	push_held(s, RANK_OF(s));
	return true;
}

NO_THREAD_SAFETY void spin_unlock(struct spinlock *s)
{
	pop_held(s, RANK_OF(s));
	CLEAR_OWNER(s);
	word_lock_drop(&s->l);
}

#else

void mutex_wait(struct mutex *m)
{
	thread_blocks_begin();
	word_lock_wait(&m->l, false);
	thread_blocks_end();
}

#endif

/* ---- rwsem ---- */

/* The bookkeeping of an rwsem that this thread has just got. */
static void rwsem_got_read(struct rwsem *rw)
{
#ifdef SLUICE_DEBUG_LOCKS
	atomic_fetch_add(&rw->state, 1);
#endif
	push_held(rw, RANK_OF(rw));
}

static void rwsem_got_write(struct rwsem *rw)
{
#ifdef SLUICE_DEBUG_LOCKS
	rw->writer = pthread_self();
	atomic_store(&rw->state, -1);
#endif
	push_held(rw, RANK_OF(rw));
}

void rwsem_init(struct rwsem *rw, enum lock_rank rank)
{
	*rw = (struct rwsem){ 0 };
	SET_RANK(rw, rank);
}

void rwsem_destroy(struct rwsem *rw)
{
	assert(rwsem_raw_is_idle(&rw->raw));
}

NO_THREAD_SAFETY void rwsem_down_read(struct rwsem *rw)
{
	check_order(rw, RANK_OF(rw));
	check_may_wait(RANK_OF(rw));
	if (!rwsem_raw_try_read(&rw->raw)) {
		u64 start = contended_begin(RANK_OF(rw));

		rwsem_raw_wait(&rw->raw, false);
		contended_end(RANK_OF(rw), start);
	}
	rwsem_got_read(rw);
}

NO_THREAD_SAFETY bool rwsem_down_read_trylock(struct rwsem *rw)
{
	if (!rwsem_raw_try_read(&rw->raw))
		return false;
	rwsem_got_read(rw);
	return true;
}

NO_THREAD_SAFETY void rwsem_up_read(struct rwsem *rw)
{
	pop_held(rw, RANK_OF(rw));
#ifdef SLUICE_DEBUG_LOCKS
	atomic_fetch_sub(&rw->state, 1);
#endif
	rwsem_raw_up_read(&rw->raw);
}

NO_THREAD_SAFETY void rwsem_down_write(struct rwsem *rw)
{
	check_order(rw, RANK_OF(rw));
	check_may_wait(RANK_OF(rw));
	if (!rwsem_raw_try_write(&rw->raw)) {
		u64 start = contended_begin(RANK_OF(rw));

		rwsem_raw_wait(&rw->raw, true);
		contended_end(RANK_OF(rw), start);
	}
	rwsem_got_write(rw);
}

NO_THREAD_SAFETY bool rwsem_down_write_trylock(struct rwsem *rw)
{
	if (!rwsem_raw_try_write(&rw->raw))
		return false;
	rwsem_got_write(rw);
	return true;
}

NO_THREAD_SAFETY void rwsem_up_write(struct rwsem *rw)
{
	pop_held(rw, RANK_OF(rw));
#ifdef SLUICE_DEBUG_LOCKS
	atomic_store(&rw->state, 0);
#endif
	rwsem_raw_up_write(&rw->raw);
}
