/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/window.c - windows: where in a file its open handles are at work
 *
 * A handle begins without a window. Its operations are counted; when it has
 * done more than one and moved a MiB, or done many, it gets one, that is wider
 * than what it has touched. From then on an operation looks whether it lies
 * inside (one load, no lock) and is done; only one that leaves the window moves
 * it, under the lock, taken exclusively.
 *
 *   reader, sequential  [place - 1 MiB, place + ahead); ahead doubles with each
 *                       move, 2 to 16 MiB
 *   reader, strided     the next 8 strides, 64 MiB at most
 *   reader, random      all it has touched, growing by as much again
 *   writer              all it has written, growing by as much again
 *
 * So a stream of reads moves its window once in 16 MiB, and the others a number
 * of times that is logarithmic in the size of the file (W6). A writer's window
 * only grows: data may be written back, and fail, long after it was written,
 * and it is found by its window then.
 *
 * The set of windows of a mapping is made with the first one and stays as long
 * as the mapping: most files never have one.
 *
 * Locks:   i_mmap_rwsem (RANK_I_MMAP); inside: counters only
 * Never:   memory, a wait or a call upwards with it held (W4)
 * Threads: any
 * Source:  the idea is that of the kernel's i_mmap_rwsem (2014): who changes the
 *          tree excludes, who walks it shares. Next: lib/interval_tree.c
 */
#include "cache/window.h"

#include "cache/mapping_internal.h"
#include "lib/interval_tree.h"
#include "lib/wait.h"
#include <stdlib.h>

#define MIB (1ull << 20)
/* A stream is followed if it is out of order by no more than this. */
#define STREAM_GAP MIB
/* Of a stream of writes, pieces of about this size go to the flusher. */
#define STREAM_BYTES (4 * MIB)
#define AHEAD_MIN (2 * MIB)
#define AHEAD_MAX (16 * MIB)
#define STRIDES_AHEAD 8
#define STRIDED_MAX (64 * MIB)
/* Of a stream of requests no larger than AHEAD_SMALL so much is read ahead: larger
 * ones come from the kernel's own readahead. */
#define AHEAD_SMALL (64u << 10)
#define AHEAD_STREAM (512u << 10)
/* Operations of one pattern before it is believed that far. */
#define AHEAD_RUN 4
/* No window for less: files that are read or written once do not pay. */
#define LAZY_BYTES MIB
#define LAZY_OPS 64u
/* A pattern that fits so often is settled. */
#define SETTLED 16
#define RUN_MAX 32
/* A settled random handle is looked at once in so many operations. */
#define SAMPLE 16u
/* Of operations that are looked at, the balancer hears of one in so many. */
#define HINT_EVERY 64u

/* i_mmap_rwsem, or the mutex it is compared with (W7). */
struct CAPABILITY("i_mmap") window_lock {
	bool mutexed; /* [const] */
	union {
		struct rwsem rwsem;
		struct mutex mutex;
	};
};

struct window_set {
	struct window_lock lock;
	struct itree tree; /* [lock] */
};

struct window {
	struct itree_node w_node;   /* blocks [lock exclusively to change] */
	struct access *w_access;    /* [const] there as long as the window */
	bool w_linked;              /* in the tree [lock] */
	u64 w_ahead;                /* bytes [lock] */
	u32 w_zone;                 /* from which it was moved last [lock] */
	_Atomic u64 w_range;        /* w_node's bounds for who has no lock, first <<
				       32 | last; NO_RANGE [write lock] */
	_Atomic bool w_cut;         /* by walkers; the handle clears it [atomic] */
	_Atomic errseq_t w_err;     /* by walkers: an error that concerns it, 0: none
				       [atomic] */
};

/* Covers nothing. */
#define NO_RANGE (1ull << 32)

#ifdef SLUICE_WINDOW_MUTEX
#define ALWAYS_MUTEX true
#else
#define ALWAYS_MUTEX false
#endif

/* ---- the lock ---- */

static void count(struct mapping *m, enum mapping_counter which, u64 n)
{
	mapping_count(m->m_sb->s_mapping_cache, which, n);
}

static inline void check_rank(void)
{
#ifdef SLUICE_DEBUG_LOCKS
	assert_rank_below(RANK_I_MMAP); /* a trylock checks nothing */
#endif
}

static void count_wait(struct mapping *m, u64 start_ns)
{
	count(m, WINDOW_WAITS, 1);
	count(m, WINDOW_WAIT_NS, clock_mono_ns() - start_ns);
}

static NO_THREAD_SAFETY bool try_shared(struct window_lock *l)
	TRY_ACQUIRE_SHARED(true, l)
{
	return l->mutexed ? mutex_trylock(&l->mutex)
			  : rwsem_down_read_trylock(&l->rwsem);
}

static NO_THREAD_SAFETY void lock_shared(struct mapping *m, struct window_lock *l)
	ACQUIRE_SHARED(l)
{
	u64 start;

	check_rank();
	if (try_shared(l))
		return;
	start = clock_mono_ns();
	if (l->mutexed)
		mutex_lock(&l->mutex);
	else
		rwsem_down_read(&l->rwsem);
	count_wait(m, start);
}

static NO_THREAD_SAFETY void unlock_shared(struct window_lock *l) RELEASE_SHARED(l)
{
	if (l->mutexed)
		mutex_unlock(&l->mutex);
	else
		rwsem_up_read(&l->rwsem);
}

static NO_THREAD_SAFETY void lock_exclusive(struct mapping *m, struct window_lock *l)
	ACQUIRE(l)
{
	u64 start;

	check_rank();
	count(m, WINDOW_CHANGES, 1);
	if (l->mutexed ? mutex_trylock(&l->mutex) : rwsem_down_write_trylock(&l->rwsem))
		return;
	start = clock_mono_ns();
	if (l->mutexed)
		mutex_lock(&l->mutex);
	else
		rwsem_down_write(&l->rwsem);
	count_wait(m, start);
}

static NO_THREAD_SAFETY void unlock_exclusive(struct window_lock *l) RELEASE(l)
{
	if (l->mutexed)
		mutex_unlock(&l->mutex);
	else
		rwsem_up_write(&l->rwsem);
}

/* ---- sets ---- */

static struct window_set *set_of(struct mapping *m)
{
	return atomic_load_explicit(&m->m_windows, memory_order_acquire);
}

static void set_free(struct window_set *set)
{
	assert(!set->tree.root);
	if (set->lock.mutexed)
		mutex_destroy(&set->lock.mutex);
	else
		rwsem_destroy(&set->lock.rwsem);
	free(set);
}

/* NULL: no memory. */
static struct window_set *set_get(struct mapping *m)
{
	struct window_set *set = set_of(m), *other = NULL;

	if (set)
		return set;
	set = calloc(1, sizeof(*set));
	if (!set)
		return NULL;
	set->lock.mutexed = ALWAYS_MUTEX || m->m_sb->s_window_mutex;
	if (set->lock.mutexed)
		mutex_init(&set->lock.mutex, RANK_I_MMAP);
	else
		rwsem_init(&set->lock.rwsem, RANK_I_MMAP);
	if (!atomic_compare_exchange_strong(&m->m_windows, &other, set)) {
		set_free(set);
		return other;
	}
	budget_charge(m->m_sb->s_budget, BUDGET_TREE, sizeof(*set));
	return set;
}

void windows_destroy(struct mapping *m)
{
	struct window_set *set = set_of(m);

	if (!set)
		return;
	set_free(set);
	budget_uncharge(m->m_sb->s_budget, BUDGET_TREE, sizeof(*set));
	atomic_store_explicit(&m->m_windows, NULL, memory_order_relaxed);
}

/* ---- patterns ---- */

void access_init(struct access *a, enum window_kind kind)
{
	a->a_kind = (u8)kind;
	atomic_init(&a->a_pattern, ACCESS_NEW);
	atomic_init(&a->a_run, 0);
	atomic_init(&a->a_ops, 0);
	atomic_init(&a->a_bytes, 0);
	atomic_init(&a->a_lo, UINT64_MAX);
	atomic_init(&a->a_hi, 0);
	atomic_init(&a->a_last, 0);
	atomic_init(&a->a_next, 0);
	atomic_init(&a->a_stride, 0);
	atomic_init(&a->a_from, 0);
	atomic_init(&a->a_reach, 0);
	atomic_init(&a->a_asked, 0);
	atomic_init(&a->a_win, NULL);
}

#define GET(x) atomic_load_explicit(&(x), memory_order_relaxed)
#define SET(x, v) atomic_store_explicit(&(x), v, memory_order_relaxed)

/* What one operation looks like, after those before it. */
static enum access_pattern classify(struct access *a, u64 pos, u64 len)
{
	u64 next = GET(a->a_next), last = GET(a->a_last);
	/* Of writers several threads at once may begin, out of order. */
	bool stream = GET(a->a_pattern) == ACCESS_SEQUENTIAL ||
		      a->a_kind == WINDOW_WRITE;
	s64 stride = (s64)(pos - last);
	bool same = stride && stride == GET(a->a_stride);

	SET(a->a_last, pos);
	SET(a->a_stride, stride);
	if (pos == next || (stream && !same && pos < next + STREAM_GAP &&
			    pos + STREAM_GAP > next)) {
		SET(a->a_next, max_of(pos + len, stream ? next : 0));
		return ACCESS_SEQUENTIAL;
	}
	SET(a->a_next, pos + len);
	return same ? ACCESS_STRIDED : ACCESS_RANDOM;
}

/* A pattern that was settled is not given up for one operation. */
static void learn(struct access *a, u64 pos, u64 len)
{
	enum access_pattern is = classify(a, pos, len);
	u8 run = GET(a->a_run);

	if (is == GET(a->a_pattern)) {
		if (run < RUN_MAX)
			SET(a->a_run, (u8)(run + 1));
		return;
	}
	if (run > 1) {
		SET(a->a_run, run / 2);
		return;
	}
	SET(a->a_pattern, (u8)is);
	SET(a->a_run, 1);
}

void access_resume(struct access *a, u64 from, u64 reach)
{
	if (from >= reach)
		return;
	atomic_init(&a->a_from, from);
	atomic_init(&a->a_reach, reach);
	/* So that the next write, if it is there, is one of a stream. */
	atomic_init(&a->a_pattern, ACCESS_SEQUENTIAL);
	atomic_init(&a->a_next, reach);
}

void access_leave(const struct access *a, u64 *from, u64 *reach)
{
	*from = atomic_load(&a->a_from);
	*reach = atomic_load(&a->a_reach);
}

/* A stream, or strides that come by all there is. The first write of a handle is at
 * random, as is one that goes back: what was complete before is not due. */
static bool goes_on(const struct access *a)
{
	u8 pattern = GET(a->a_pattern);

	return pattern == ACCESS_SEQUENTIAL ||
	       (pattern == ACCESS_STRIDED && GET(a->a_stride) > 0);
}

bool access_behind(struct access *a, const struct mapping *m, u64 pos, u64 len,
		   lblk_t *start, lblk_t *end)
{
	u64 leaf = (u64)LEAF_BLOCKS << m->m_sb->s_blocksize_bits;
	u64 from = atomic_load(&a->a_from), reach = atomic_load(&a->a_reach);
	u64 done;

	if (pos < from || pos > reach + STREAM_GAP) {
		atomic_store(&a->a_from, pos);
		atomic_store(&a->a_reach, pos + len);
		return false;
	}
	while (reach < pos + len &&
	       !atomic_compare_exchange_weak(&a->a_reach, &reach, pos + len))
		;
	reach = max_of(reach, pos + len);
	if (reach - from < STREAM_BYTES + STREAM_GAP || !goes_on(a))
		return false;
	done = ALIGN_DOWN(reach - STREAM_GAP, leaf);
	/* Of several threads that complete a piece one gives it away. */
	if (done <= from || !atomic_compare_exchange_strong(&a->a_from, &from, done))
		return false;
	*start = (lblk_t)(from >> m->m_sb->s_blocksize_bits);
	*end = (lblk_t)(done >> m->m_sb->s_blocksize_bits);
	return true;
}

/* ---- windows ---- */

/* Blocks [first, last], inclusive. */
struct range {
	u64 first, last;
};

static bool covers(const struct window *w, struct range r)
{
	u64 range = atomic_load_explicit(&w->w_range, memory_order_relaxed);

	return range >> 32 <= r.first && r.last <= (range & UINT32_MAX);
}

static struct range hull(struct range a, struct range b)
{
	return (struct range){ min_of(a.first, b.first), max_of(a.last, b.last) };
}

/* Grows `have` so that it holds r, by as much again on that side. */
static struct range grow(struct range have, struct range r)
{
	u64 nr = have.last - have.first + 1;

	if (r.first < have.first)
		r.first -= min_of(nr, r.first);
	if (r.last > have.last)
		r.last += nr;
	return hull(have, r);
}

/* Where a reader will be, by its pattern, after an operation on r. */
static struct range ahead_of(struct window *w, struct range r, u8 bits)
{
	struct access *a = w->w_access;
	u64 gap = STREAM_GAP >> bits, far;
	s64 stride = GET(a->a_stride);

	if (atomic_load(&w->w_cut))
		w->w_ahead = 0;
	switch ((enum access_pattern)GET(a->a_pattern)) {
	case ACCESS_SEQUENTIAL:
		w->w_ahead = min_of(max_of(w->w_ahead * 2, AHEAD_MIN), AHEAD_MAX);
		r.first -= min_of(gap, r.first);
		r.last += w->w_ahead >> bits;
		return r;
	case ACCESS_STRIDED:
		far = stride < 0 ? (u64)-stride : (u64)stride;
		far = min_of(far, STRIDED_MAX / STRIDES_AHEAD);
		far = far * STRIDES_AHEAD >> bits;
		if (stride < 0)
			r.first -= min_of(far, r.first);
		else
			r.last += far;
		return r;
	case ACCESS_NEW:
	case ACCESS_RANDOM:
		break;
	}
	if (!w->w_linked || atomic_load(&w->w_cut))
		return r;
	return grow((struct range){ w->w_node.it_start, w->w_node.it_last }, r);
}

static void link_at(struct window_set *set, struct window *w, struct range r)
	REQUIRES(set->lock)
{
	if (w->w_linked)
		itree_remove(&set->tree, &w->w_node);
	w->w_linked = true;
	w->w_node.it_start = r.first;
	w->w_node.it_last = r.last;
	itree_insert(&set->tree, &w->w_node);
	/* A hint for who has no lock: what it says is judged by the handle alone,
	 * whose operations it covers. */
	atomic_store_explicit(&w->w_range, r.first << 32 | r.last,
			      memory_order_relaxed);
}

static struct range aligned(struct range r, u8 bits)
{
	u64 grain = WINDOW_GRAIN_BYTES >> bits;

	r.first = ALIGN_DOWN(r.first, grain);
	r.last = min_of(ALIGN_DOWN(r.last, grain) + grain - 1, (u64)UINT32_MAX);
	return r;
}

/*
 * Moves the window so that it covers r. Exclusively (W1): it changes bounds.
 * Another thread of the handle may have moved it since we looked (W5): for a
 * reader the last one wins, a writer's covers both.
 */
static void window_move(struct mapping *m, struct window_set *set, struct window *w,
			struct range r)
{
	struct access *a = w->w_access;
	u8 bits = m->m_sb->s_blocksize_bits;
	u32 zone = zone_home(m->m_sb->s_budget);
	bool settled;
	u64 lo, hi;

	lock_exclusive(m, &set->lock);
	settled = zone == w->w_zone;
	w->w_zone = zone;
	if (a->a_kind == WINDOW_READ) {
		r = ahead_of(w, r, bits);
	} else if (w->w_linked) {
		r = grow((struct range){ w->w_node.it_start, w->w_node.it_last }, r);
	} else {
		/* What was noted while there was no window: whoever noted it and
		 * saw none had entered it here before (access_note()). */
		lo = atomic_load(&a->a_lo);
		hi = atomic_load(&a->a_hi);
		if (lo < hi)
			r = hull(r, (struct range){ lo >> bits, (hi - 1) >> bits });
	}
	atomic_store(&w->w_cut, false);
	r = aligned(r, bits);
	link_at(set, w, r);
	unlock_exclusive(&set->lock);
	/* Twice from the same zone: what it reads may follow it (W4: unlocked). */
	if (settled && a->a_kind == WINDOW_READ && m->m_sb->s_read_hint)
		m->m_sb->s_read_hint(m, (lblk_t)r.first, r.last + 1, zone);
}

/* The handle's window, which another thread may be making too. NULL: no memory. */
static struct window *window_get(struct access *a, struct mapping *m)
{
	struct window *w = calloc(1, sizeof(*w)), *other = NULL;

	if (!w)
		return NULL;
	w->w_access = a;
	w->w_zone = UINT32_MAX;
	atomic_init(&w->w_range, NO_RANGE);
	if (!atomic_compare_exchange_strong(&a->a_win, &other, w)) {
		free(w);
		return other;
	}
	budget_charge(m->m_sb->s_budget, BUDGET_TREE, sizeof(*w));
	count(m, WINDOW_MADE, 1);
	return w;
}

/*
 * Notes an operation while there is no window. True: there should be one. Each
 * thread enters what it touches before it looks at a_win; who makes the window
 * sets a_win before he reads what was entered (all seq_cst): he sees it, or
 * we see the window, and see to it that it covers us.
 */
static bool note_early(struct access *a, u64 pos, u64 len)
{
	u64 lo, hi, bytes = GET(a->a_bytes) + len;
	u32 ops = GET(a->a_ops) + 1;

	SET(a->a_ops, ops);
	SET(a->a_bytes, bytes);
	if (a->a_kind == WINDOW_WRITE) {
		lo = atomic_load(&a->a_lo);
		hi = atomic_load(&a->a_hi);
		while (lo > pos && !atomic_compare_exchange_weak(&a->a_lo, &lo, pos))
			;
		while (hi < pos + len &&
		       !atomic_compare_exchange_weak(&a->a_hi, &hi, pos + len))
			;
	}
	return atomic_load(&a->a_win) ||
	       (ops > 1 && (bytes > LAZY_BYTES || ops > LAZY_OPS));
}

/* So far may bytes [pos, pos+len) be read ahead that they lie in the window. */
static bool in_window(const struct window *w, u64 pos, u64 len, u8 bits)
{
	return covers(w, (struct range){ pos >> bits, (pos + len - 1) >> bits });
}

static bool stream_wants(struct access *a, const struct window *w, u64 end, u64 size, u8 bits,
			 struct access_ahead *ahead)
{
	u64 asked = GET(a->a_asked), to;

	/* Elsewhere than what was asked for, or behind it: anew from here. */
	if (asked < end || asked > end + 2 * AHEAD_STREAM)
		asked = end;
	if (asked - end > AHEAD_STREAM / 2)
		return false;
	to = min_of(ALIGN_UP(end + AHEAD_STREAM, (u64)1 << bits), size);
	to = min_of(to, ((GET(w->w_range) & UINT32_MAX) + 1) << bits);
	if (to <= asked || !in_window(w, asked, to - asked, bits))
		return false;
	SET(a->a_asked, to);
	*ahead = (struct access_ahead){ asked, (u32)(to - asked), 1, 0 };
	return true;
}

/* a_asked: where the last of the strides that were asked for begins. */
static bool strides_want(struct access *a, const struct window *w, u64 pos, u64 len, u64 size,
			 u8 bits, struct access_ahead *ahead)
{
	s64 stride = GET(a->a_stride), left;
	u64 last = GET(a->a_asked), next;
	u32 nr = 0;

	if (!stride || len > AHEAD_STREAM)
		return false;
	left = (s64)(last - pos) / stride;
	if (left < 0 || left > STRIDES_AHEAD || (s64)(last - pos) % stride) {
		last = pos;
		left = 0;
	}
	if (left > STRIDES_AHEAD / 2)
		return false;
	next = last;
	while (left + nr < STRIDES_AHEAD &&
	       (stride > 0 ? next + (u64)stride + len <= size : next >= (u64)-stride) &&
	       in_window(w, next + (u64)stride, len, bits)) {
		next += (u64)stride;
		nr++;
	}
	if (!nr)
		return false;
	SET(a->a_asked, next);
	*ahead = (struct access_ahead){ last + (u64)stride, (u32)len, nr, stride };
	return true;
}

bool access_wants(struct access *a, const struct mapping *m, u64 pos, u64 len, u64 size,
		  struct access_ahead *ahead)
{
	const struct window *w = atomic_load_explicit(&a->a_win, memory_order_acquire);
	u8 bits = m->m_sb->s_blocksize_bits;

	/* Of several threads that come here at once two may ask for the same. */
	if (!w || GET(a->a_run) < AHEAD_RUN || GET(w->w_cut) || pos + len > size)
		return false;
	switch ((enum access_pattern)GET(a->a_pattern)) {
	case ACCESS_SEQUENTIAL:
		return len <= AHEAD_SMALL &&
		       stream_wants(a, w, pos + len, size, bits, ahead);
	case ACCESS_STRIDED:
		return strides_want(a, w, pos, len, size, bits, ahead);
	case ACCESS_NEW:
	case ACCESS_RANDOM:
		break;
	}
	return false;
}

/* A settled random reader or writer may have many threads, which would all
 * store to the handle: most of their operations are not looked at, but each that
 * goes on where one that was ended. */
static bool not_looked_at(const struct access *a, u64 pos)
{
	static _Thread_local u32 tick;

	return GET(a->a_pattern) == ACCESS_RANDOM && GET(a->a_run) >= SETTLED &&
	       pos != GET(a->a_next) && ++tick % SAMPLE;
}

/* Who stays in his window, and reads it again and again, is not forgotten. */
static void hint_sometimes(struct mapping *m, struct range r)
{
	static _Thread_local u32 tick;
	u64 grain = WINDOW_GRAIN_BYTES >> m->m_sb->s_blocksize_bits;

	if (++tick % HINT_EVERY)
		return;
	r.first = ALIGN_DOWN(r.first, grain);
	m->m_sb->s_read_hint(m, (lblk_t)r.first, r.first + grain,
			     zone_home(m->m_sb->s_budget));
}

void access_note(struct access *a, struct mapping *m, u64 pos, u64 len)
{
	struct window *w = atomic_load_explicit(&a->a_win, memory_order_acquire);
	u8 bits = m->m_sb->s_blocksize_bits;
	struct range r = { pos >> bits, (pos + len - 1) >> bits };
	struct window_set *set;

	if (!len)
		return;
	if (w && covers(w, r) && !GET(w->w_cut)) {
		if (not_looked_at(a, pos))
			return;
		learn(a, pos, len);
		if (m->m_sb->s_read_hint && a->a_kind == WINDOW_READ)
			hint_sometimes(m, r);
		/* Inside; but the window of one who reads a stream now, and did not
		 * when it was made, is too wide to say anything. */
		if (a->a_kind == WINDOW_WRITE || GET(a->a_run) != SETTLED ||
		    GET(a->a_pattern) != ACCESS_SEQUENTIAL ||
		    GET(w->w_range) >> 32 == ALIGN_DOWN(r.first, WINDOW_GRAIN_BYTES >> bits))
			return;
	} else if (w && GET(w->w_cut)) {
		/* What it knew is of a file that is no more. */
		SET(a->a_pattern, ACCESS_NEW);
		SET(a->a_run, 0);
		learn(a, pos, len);
	} else {
		learn(a, pos, len);
		if (!w && !note_early(a, pos, len))
			return;
	}
	set = set_get(m);
	if (!w && set)
		w = window_get(a, m);
	if (w && set)
		window_move(m, set, w, r);
}

void access_end(struct access *a, struct mapping *m)
{
	struct window *w = atomic_load(&a->a_win);
	struct window_set *set = set_of(m);

	if (!w)
		return;
	/* Exclusively (W1); walkers that have seen the window have let go by then. */
	lock_exclusive(m, &set->lock);
	if (w->w_linked)
		itree_remove(&set->tree, &w->w_node);
	unlock_exclusive(&set->lock);
	budget_uncharge(m->m_sb->s_budget, BUDGET_TREE, sizeof(*w));
	count(m, WINDOW_GONE, 1);
	atomic_store(&a->a_win, NULL);
	free(w);
}

static struct window *to_window(struct itree_node *node)
{
	return container_of_type(node, struct window, w_node);
}

/* ---- relocation ---- */

static bool find_move(struct itree_node *node, void *priv)
{
	(void)priv;
	return to_window(node)->w_access->a_kind != WINDOW_MOVE;
}

/*
 * Exclusively (W1), the look and the insertion in one hold: of two who want to move
 * the same blocks one is refused, and no walker sees both.
 */
int windows_move_begin(struct mapping *m, struct access *a, lblk_t start, lblk_t end)
{
	struct window_set *set = set_get(m);
	struct window *w;
	bool alone;

	access_init(a, WINDOW_READ);
	a->a_kind = WINDOW_MOVE;
	w = set ? window_get(a, m) : NULL;
	if (!w)
		return -ENOMEM;
	lock_exclusive(m, &set->lock);
	alone = itree_walk(&set->tree, start, (u64)end - 1, find_move, NULL);
	if (alone)
		link_at(set, w, (struct range){ start, (u64)end - 1 });
	unlock_exclusive(&set->lock);
	if (alone)
		return 0;
	access_end(a, m);
	return -EBUSY;
}

/* Exclusively (W1): bounds change. */
void windows_moved(struct mapping *m, struct access *a, lblk_t next)
{
	struct window *w = atomic_load(&a->a_win);
	struct window_set *set = set_of(m);

	lock_exclusive(m, &set->lock);
	if (w->w_linked && next > w->w_node.it_start && next <= w->w_node.it_last)
		link_at(set, w, (struct range){ next, w->w_node.it_last });
	unlock_exclusive(&set->lock);
}

/* ---- walkers ---- */

/* Calls fn for the windows that meet [start, end), sharing the lock. */
static void walk(struct mapping *m, lblk_t start, u64 end, itree_fn fn, void *priv)
{
	struct window_set *set = set_of(m);

	if (!set || start >= end)
		return;
	lock_shared(m, &set->lock);
	itree_walk(&set->tree, start, end - 1, fn, priv);
	unlock_shared(&set->lock);
	count(m, WINDOW_WALKS, 1);
}

struct error_walk {
	errseq_t err;
	u32 told;
};

static bool tell_error(struct itree_node *node, void *priv)
{
	struct window *w = to_window(node);
	struct error_walk *e = priv;

	if (w->w_access->a_kind == WINDOW_WRITE) {
		atomic_store(&w->w_err, e->err);
		e->told++;
	}
	return true;
}

/*
 * Shared: two failures may be reported at once, each stores a word that says
 * "not 0", and either will do (W2). No window can leave while we walk, and one
 * that came or grew before the lost data was in the cache is found.
 */
u32 windows_set_error(struct mapping *m, lblk_t start, lblk_t end, int error)
{
	struct error_walk e = { 0 };

	/* The floor first: who is concerned finds the error. */
	mapping_set_error(m, error);
	e.err = atomic_load(&m->m_wb_err);
	walk(m, start, end, tell_error, &e);
	count(m, WINDOW_ERRORS, e.told);
	return e.told;
}

bool access_error_concerns(const struct access *a)
{
	const struct window *w = atomic_load(&a->a_win);

	return !w || atomic_load(&w->w_err);
}

errseq_t access_error_begin(const struct access *a)
{
	const struct window *w = atomic_load(&a->a_win);

	return w ? atomic_load(&w->w_err) : 0;
}

/*
 * An error that came after access_error_begin() is another value, and stays,
 * unless nobody had seen the one before: then they are the same error, and
 * mapping_check_error() has reported it after it came.
 */
void access_error_told(struct access *a, errseq_t begin)
{
	struct window *w = atomic_load(&a->a_win);

	if (w && begin)
		atomic_compare_exchange_strong(&w->w_err, &begin, 0);
}

/* A stream goes on differently behind a hole; for the other readers a window is
 * no more than where they are, and a writer's says whose data it was. */
static bool mark_cut(struct itree_node *node, void *priv)
{
	struct window *w = to_window(node);

	if (w->w_access->a_kind == WINDOW_READ &&
	    GET(w->w_access->a_pattern) == ACCESS_SEQUENTIAL)
		atomic_store(&w->w_cut, true);
	return true;
}

/*
 * Shared: a mark is all that changes, two who set it agree (W2); the handle
 * finds it at its next operation. One that runs at this moment may be noted before or
 * after, as it might have come before or after the cut.
 */
void windows_cut(struct mapping *m, lblk_t start, lblk_t end)
{
	walk(m, start, end, mark_cut, NULL);
}

struct cut_list {
	struct window *next; /* a reader's that reaches beyond the end */
};

static bool find_reader_beyond(struct itree_node *node, void *priv)
{
	struct window *w = to_window(node);
	struct cut_list *l = priv;

	if (w->w_access->a_kind != WINDOW_READ)
		return true;
	atomic_store(&w->w_cut, true);
	l->next = w;
	return false;
}

/*
 * Whether anything is there is asked sharing the lock, for mostly nothing is;
 * then everything is done under one exclusive hold (W1, W5): no walker sees one
 * reader's window cut and another's not. A window that lies wholly beyond the end
 * leaves the tree until its handle is heard of again.
 */
void windows_truncate(struct mapping *m, lblk_t end)
{
	struct cut_list l = { NULL };
	struct window_set *set = set_of(m);

	walk(m, end, (u64)UINT32_MAX + 1, find_reader_beyond, &l);
	if (!l.next)
		return;
	lock_exclusive(m, &set->lock);
	for (;;) {
		struct window *w;

		l.next = NULL;
		itree_walk(&set->tree, end, UINT32_MAX, find_reader_beyond, &l);
		w = l.next;
		if (!w)
			break;
		if (w->w_node.it_start < end) {
			link_at(set, w, (struct range){ w->w_node.it_start, end - 1 });
			continue;
		}
		itree_remove(&set->tree, &w->w_node);
		w->w_linked = false;
		atomic_store_explicit(&w->w_range, NO_RANGE, memory_order_relaxed);
	}
	unlock_exclusive(&set->lock);
}

struct clip {
	u64 end;
};

static bool clip_at(struct itree_node *node, void *priv)
{
	struct clip *c = priv;

	if (to_window(node)->w_access->a_kind == WINDOW_READ)
		return true;
	c->end = node->it_start;
	return false; /* they come by where they start: all others start later */
}

/*
 * Shared: reads only. A hint, so by trylock (W3); a writer that comes a moment
 * later writes all the same, and wins (mapping_fill_run_since()).
 */
lblk_t windows_clip(struct mapping *m, lblk_t start, lblk_t end)
{
	struct clip c = { .end = end };
	struct window_set *set = set_of(m);

	if (!set || start >= end)
		return end;
	if (!try_shared(&set->lock))
		return start;
	itree_walk(&set->tree, start, (u64)end - 1, clip_at, &c);
	unlock_shared(&set->lock);
	count(m, WINDOW_WALKS, 1);
	return (lblk_t)max_of(c.end, (u64)start);
}

struct readers_by_zone {
	u32 zone, here, elsewhere;
};

static bool count_reader(struct itree_node *node, void *priv)
{
	struct window *w = to_window(node);
	struct readers_by_zone *r = priv;

	if (w->w_access->a_kind == WINDOW_READ) {
		r->here += w->w_zone == r->zone;
		r->elsewhere += w->w_zone != r->zone;
	}
	return true;
}

/* Shared: reads only. Background work, so by trylock (W3). */
bool windows_read_from(struct mapping *m, lblk_t start, u64 end, u32 zone, u32 *here,
		       u32 *elsewhere)
{
	struct readers_by_zone r = { .zone = zone };
	struct window_set *set = set_of(m);
	bool ok = true;

	if (set && start < end) {
		ok = try_shared(&set->lock);
		if (ok) {
			itree_walk(&set->tree, start, end - 1, count_reader, &r);
			unlock_shared(&set->lock);
			count(m, WINDOW_WALKS, 1);
		}
	}
	*here = r.here;
	*elsewhere = r.elsewhere;
	return ok;
}

struct question {
	u64 first, last; /* blocks */
	u8 bits;
	bool around;     /* somebody jumps about there */
	enum window_verdict verdict;
};

static bool ask(struct itree_node *node, void *priv)
{
	struct access *a = to_window(node)->w_access;
	struct question *q = priv;
	u64 place;

	if (a->a_kind != WINDOW_READ)
		return true;
	switch ((enum access_pattern)GET(a->a_pattern)) {
	case ACCESS_NEW:
	case ACCESS_RANDOM:
		q->around = true;
		return true;
	case ACCESS_SEQUENTIAL:
		place = GET(a->a_next) >> q->bits;
		q->verdict = q->last < place ? WINDOW_PASSED : WINDOW_COMING;
		break;
	case ACCESS_STRIDED: /* anywhere before it in its window, soon */
		place = GET(a->a_last) >> q->bits;
		if (GET(a->a_stride) < 0)
			q->verdict = q->first > place ? WINDOW_PASSED : WINDOW_COMING;
		else
			q->verdict = q->last < place ? WINDOW_PASSED : WINDOW_COMING;
		break;
	}
	return q->verdict == WINDOW_PASSED;
}

/*
 * From inside, against the order (W3): the caller has a leaf lock, which a holder
 * of ours may be waiting for. So by trylock, and no answer is an answer.
 */
enum window_verdict windows_ask(struct mapping *m, lblk_t start, lblk_t end)
{
	struct question q = { .first = start,
			      .last = (u64)end - 1,
			      .bits = m->m_sb->s_blocksize_bits,
			      .verdict = WINDOW_NOBODY };
	struct window_set *set = set_of(m);

	if (!set)
		return WINDOW_NOBODY;
	if (!try_shared(&set->lock)) {
		count(m, WINDOW_CONTENDED, 1);
		return WINDOW_BUSY;
	}
	itree_walk(&set->tree, q.first, q.last, ask, &q);
	unlock_shared(&set->lock);
	if (q.around && q.verdict != WINDOW_COMING)
		return WINDOW_AROUND;
	return q.verdict;
}

static bool add_to_census(struct itree_node *node, void *priv)
{
	struct access *a = to_window(node)->w_access;
	struct window_census *c = priv;

	if (a->a_kind != WINDOW_READ) {
		c->writers += a->a_kind == WINDOW_WRITE;
		c->moving += a->a_kind == WINDOW_MOVE;
		return true;
	}
	c->readers++;
	c->sequential += GET(a->a_pattern) == ACCESS_SEQUENTIAL;
	c->strided += GET(a->a_pattern) == ACCESS_STRIDED;
	c->random += GET(a->a_pattern) == ACCESS_RANDOM;
	return true;
}

/* Shared: reads only. */
void windows_count(struct mapping *m, lblk_t start, lblk_t end,
		   struct window_census *c)
{
	*c = (struct window_census){ 0 };
	walk(m, start, end, add_to_census, c);
}
