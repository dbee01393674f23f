/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/fuzz/one_thread.c - the daemon's threads as fibers of one thread
 *
 * A fuzzer mounts and unmounts thousands of volumes a second. Made, woken and
 * joined, the threads of a mount would be most of the work, and what they do
 * when would differ from run to run. So this file takes the place of
 * lib/thread.c, wait.c, lock.c, wordlock.c, rwsem.c and writeback/end_io.c: as it defines
 * all that they do, the linker takes none of them from the libraries. A
 * thread is a fiber with a stack of its own, which runs until it waits; then
 * the next one that can go on does. The clock is one that only counts, and
 * jumps to the next deadline when everybody waits. The same input gives the
 * same run.
 *
 * When nobody can ever go on, or the first fiber does not although the clock
 * has been moved a great many times, that is a hang: abort().
 *
 * The linker is told to --wrap what stands in one_thread_wraps of meson.build.
 *
 * RCU: fibers switch where they wait, which is never in a read-side section.
 * So a grace period has passed whenever a fiber switches; call_rcu() is a list
 * that is run then and by rcu_barrier().
 *
 * Locks:   those of lib/lock.h; their words are as in the daemon, the waits are here
 * Alive:   fibers are used again, and never freed
 * Threads: one
 */
#include "tests/fuzz/one_thread.h"
#include "lib/lock.h"
#include "lib/rcu.h"
#include "lib/thread.h"
#include "lib/wait.h"
#include "writeback/page_io.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#define STACK_BYTES (512u << 10)
#define JUMPS_MAX 100000u

#if defined(__SANITIZE_ADDRESS__)
#define FIBERS_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FIBERS_ASAN 1
#endif
#endif

#ifdef FIBERS_ASAN
void __sanitizer_start_switch_fiber(void **save, const void *bottom, size_t size);
void __sanitizer_finish_switch_fiber(void *save, const void **bottom, size_t *size);
#endif

struct wait_bucket {
	u64 seq;
	u32 waiters;
};

enum fiber_wait { CAN_RUN, ON_BUCKET, ON_LOCK, ON_READ, ON_WRITE, ON_END, IDLE };

/* A thread of the program, or one that waits to become one. */
struct thread {
	struct thread *next; /* all there are, in a ring */
	void (*fn)(void *arg);
	void *arg;
	char name[16];
	bool ended;
	enum fiber_wait wait;
	union {
		struct wait_bucket *bucket;
		const struct word_lock *lock;
		struct rwsem_raw *rw;
		struct thread *other;
	} on;
	u64 seen, deadline; /* of ON_BUCKET */
	ucontext_t context;
	void *stack;
	size_t stack_bytes;
	void *fake_stack;
};

static struct thread first = { .next = &first, .name = "first" };
static struct thread *now_running = &first;
static u64 clock_ns = 1000000000000;
static u32 jumps;
static struct wait_bucket buckets[256];

/* ---- RCU ---- */

static struct rcu_head *rcu_first, **rcu_last = &rcu_first;

void urcu_memb_call_rcu(struct rcu_head *head, void (*func)(struct rcu_head *head));
void urcu_memb_call_rcu(struct rcu_head *head, void (*func)(struct rcu_head *head))
{
	head->func = func;
	head->next.next = NULL;
	*rcu_last = head;
	rcu_last = (struct rcu_head **)&head->next.next;
}

static void rcu_run(void)
{
	while (rcu_first) {
		struct rcu_head *head = rcu_first;

		rcu_first = (struct rcu_head *)head->next.next;
		if (!rcu_first)
			rcu_last = &rcu_first;
		head->func(head);
	}
}

void urcu_memb_barrier(void);
void urcu_memb_barrier(void)
{
	rcu_run();
}

void urcu_memb_synchronize_rcu(void);
void urcu_memb_synchronize_rcu(void)
{
}

/* Would resize in a thread of its own: no volume here has so many blocks. */
struct cds_lfht *__real__cds_lfht_new(unsigned long size, unsigned long min, unsigned long max,
				      int flags, const struct cds_lfht_mm_type *mm,
				      const struct rcu_flavor_struct *flavor,
				      pthread_attr_t *attr);
struct cds_lfht *__wrap__cds_lfht_new(unsigned long size, unsigned long min, unsigned long max,
				      int flags, const struct cds_lfht_mm_type *mm,
				      const struct rcu_flavor_struct *flavor,
				      pthread_attr_t *attr);
struct cds_lfht *__wrap__cds_lfht_new(unsigned long size, unsigned long min, unsigned long max,
				      int flags, const struct cds_lfht_mm_type *mm,
				      const struct rcu_flavor_struct *flavor,
				      pthread_attr_t *attr)
{
	return __real__cds_lfht_new(128, 128, max, 0, mm, flavor, attr);
}

/*
 * Buffers of I/O are large, and each mount has some: kept for the next one, or an
 * execution would mostly be page faults. A page that cannot be touched follows each.
 */
#define KEPT_MIN (64u << 10)
#define KEPT_MAX 64u

void *__real_io_alloc(size_t bytes);
void __real_io_free(void *p);
void *__wrap_io_alloc(size_t bytes);
void __wrap_io_free(void *p);

static struct {
	u8 *at;
	size_t bytes;
	bool used;
} kept[KEPT_MAX];

void *__wrap_io_alloc(size_t bytes)
{
	size_t all = ALIGN_UP(bytes, (size_t)4096);
	u32 i;

	if (bytes < KEPT_MIN || bytes > 4u << 20)
		return __real_io_alloc(bytes);
	for (i = 0; i < KEPT_MAX && kept[i].at; i++)
		if (!kept[i].used && kept[i].bytes == all)
			break;
	if (i == KEPT_MAX)
		return __real_io_alloc(bytes);
	if (!kept[i].at) {
		kept[i].at = mmap(NULL, all + 4096, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (kept[i].at == MAP_FAILED || mprotect(kept[i].at + all, 4096, PROT_NONE))
			abort();
		kept[i].bytes = all;
	}
	kept[i].used = true;
	return kept[i].at;
}

void __wrap_io_free(void *p)
{
	for (u32 i = 0; i < KEPT_MAX && kept[i].at; i++)
		if (kept[i].at == p) {
			assert(kept[i].used);
			kept[i].used = false;
			return;
		}
	__real_io_free(p);
}

/* ---- fibers ---- */

static void say_all(const char *what)
{
	struct thread *t = &first;

	fprintf(stderr, "HANG: %s\n", what);
	do {
		if (t->wait != IDLE)
			fprintf(stderr, "  %s: %s\n", t->name,
				t->wait == CAN_RUN     ? "could run"
				: t->wait == ON_BUCKET ? "waits for an event"
				: t->wait == ON_LOCK   ? "waits for a lock"
				: t->wait == ON_END    ? "waits for another's end"
						       : "waits for an rwsem");
		t = t->next;
	} while (t != &first);
	abort();
}

static bool can_run(struct thread *t)
{
	switch (t->wait) {
	case CAN_RUN:
		return true;
	case ON_BUCKET:
		return t->on.bucket->seq != t->seen || (t->deadline && clock_ns >= t->deadline);
	case ON_LOCK:
		return word_lock_is_free(t->on.lock);
	case ON_READ:
		return !(atomic_load(&t->on.rw->word) & RWSEM_WRITER);
	case ON_WRITE:
		return !atomic_load(&t->on.rw->word);
	case ON_END:
		return t->on.other->ended;
	default:
		return false;
	}
}

/* The next in the ring that can go on; the present one is asked last. */
static struct thread *find_next(void)
{
	for (;;) {
		struct thread *t = now_running;
		u64 soon = UINT64_MAX;

		do {
			t = t->next;
			if (can_run(t))
				return t;
			if (t->wait == ON_BUCKET && t->deadline)
				soon = min_of(soon, t->deadline);
		} while (t != now_running);
		if (soon == UINT64_MAX)
			say_all("nobody can go on");
		if (++jumps > JUMPS_MAX)
			say_all("the first does not go on");
		clock_ns = max_of(clock_ns, soon);
	}
}

static void arrive(void)
{
#ifdef FIBERS_ASAN
	const void *bottom;
	size_t size;

	/* Nobody else knows where the program's own stack is. */
	__sanitizer_finish_switch_fiber(now_running->fake_stack, &bottom, &size);
	if (!first.stack) {
		first.stack = (void *)(uintptr_t)bottom;
		first.stack_bytes = size;
	}
#endif
	now_running->wait = CAN_RUN;
	if (now_running == &first)
		jumps = 0;
}

static void switch_to(struct thread *to)
{
	struct thread *from = now_running;

	if (to == from) {
		from->wait = CAN_RUN;
		return;
	}
	now_running = to;
#ifdef FIBERS_ASAN
	__sanitizer_start_switch_fiber(&from->fake_stack, to->stack, to->stack_bytes);
#endif
	if (swapcontext(&from->context, &to->context))
		abort();
	arrive();
}

/* The state says what for. */
static void fiber_wait(void)
{
	rcu_run();
	switch_to(find_next());
}

static void fiber_main(void)
{
	arrive();
	for (;;) {
		now_running->fn(now_running->arg);
		now_running->ended = true;
		now_running->wait = IDLE;
		fiber_wait();
	}
}

static struct thread *fiber_new(void)
{
	struct thread *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->stack_bytes = STACK_BYTES;
	t->stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	if (t->stack == MAP_FAILED || mprotect(t->stack, 4096, PROT_NONE) ||
	    getcontext(&t->context))
		abort();
	t->context.uc_stack.ss_sp = t->stack;
	t->context.uc_stack.ss_size = STACK_BYTES;
	makecontext(&t->context, fiber_main, 0);
	/* ASan would take what stands on it for gone at each switch. */
	t->context.uc_stack.ss_size = 0;
	t->wait = IDLE;
	t->next = first.next;
	first.next = t;
	return t;
}

int thread_create(struct thread **out, const char *name, void (*fn)(void *arg), void *arg)
{
	struct thread *t = first.next;

	/* fn: a thread that ended and was joined has none. */
	while (t != &first && t->fn)
		t = t->next;
	if (t == &first)
		t = fiber_new();
	if (!t)
		return -ENOMEM;
	t->fn = fn;
	t->arg = arg;
	t->ended = false;
	t->wait = CAN_RUN;
	snprintf(t->name, sizeof(t->name), "%s", name);
	*out = t;
	return 0;
}

void thread_join(struct thread *t)
{
	now_running->wait = ON_END;
	now_running->on.other = t;
	fiber_wait();
	t->fn = NULL;
}

void one_thread_rest(void)
{
	struct thread *t;
	u32 rounds = 0;

	assert(now_running == &first);
	for (;;) {
		if (++rounds > JUMPS_MAX)
			say_all("the others do not come to rest");
		rcu_run();
		for (t = first.next; t != &first && !can_run(t); t = t->next)
			;
		if (t == &first)
			return;
		first.wait = CAN_RUN;
		switch_to(t);
	}
}

void one_thread_later(u64 ns)
{
	clock_ns += ns;
	one_thread_rest();
}

/* ---- lib/thread.h: the rest ---- */

void thread_register(void)
{
	static bool done;

	if (!done) {
		extern void urcu_memb_register_thread(void);
		urcu_memb_register_thread();
	}
	done = true;
}

void thread_unregister(void)
{
}

unsigned thread_nr_cpus(void)
{
	return 1;
}

unsigned thread_cpu(void)
{
	return 0;
}

void thread_set_block_hook(const struct thread_block_hook *hook)
{
	assert(!hook);
}

void thread_blocks_begin(void)
{
}

void thread_blocks_end(void)
{
}

void thread_might_block(void)
{
}

/* ---- lib/wait.h ---- */

static struct wait_bucket *bucket_of(const void *key)
{
	return &buckets[((u64)(uintptr_t)key * 0x9E3779B97F4A7C15ull) >> 56];
}

struct wait_bucket *wait_bucket_lock(const void *key)
{
	struct wait_bucket *b = bucket_of(key);

	b->waiters++;
	return b;
}

void wait_bucket_unlock(struct wait_bucket *b)
{
	b->waiters--;
}

bool wait_bucket_sleep(struct wait_bucket *b, u64 deadline_ns)
{
	u64 seen = b->seq;

	now_running->wait = ON_BUCKET;
	now_running->on.bucket = b;
	now_running->seen = seen;
	now_running->deadline = deadline_ns;
	fiber_wait();
	return b->seq != seen;
}

void wake_up(const void *key)
{
	struct wait_bucket *b = bucket_of(key);

	if (b->waiters)
		b->seq++;
}

u64 clock_mono_ns(void)
{
	return clock_ns += 1000;
}

/* ---- lib/lock.h ---- */

void word_lock_wait(struct word_lock *l, bool spin)
{
	if (spin)
		say_all("somebody waits with a spinlock held");
	do {
		now_running->wait = ON_LOCK;
		now_running->on.lock = l;
		fiber_wait();
	} while (!word_lock_try(l));
}

/* Nobody makes it WANTED. */
void word_lock_wake(struct word_lock *l)
{
}

#ifdef SLUICE_DEBUG_LOCKS
void mutex_init(struct mutex *m, enum lock_rank rank)
{
	memset(m, 0, sizeof(*m));
}

void mutex_destroy(struct mutex *m)
{
	assert(word_lock_is_free(&m->l));
}

NO_THREAD_SAFETY void mutex_lock(struct mutex *m)
{
	if (!word_lock_try(&m->l))
		word_lock_wait(&m->l, false);
}

NO_THREAD_SAFETY bool mutex_trylock(struct mutex *m)
{
	return word_lock_try(&m->l);
}

NO_THREAD_SAFETY void mutex_unlock(struct mutex *m)
{
	word_lock_drop(&m->l);
}

void spin_init(struct spinlock *s, enum lock_rank rank)
{
	memset(s, 0, sizeof(*s));
}

void spin_destroy(struct spinlock *s)
{
	assert(word_lock_is_free(&s->l));
}

NO_THREAD_SAFETY void spin_lock(struct spinlock *s)
{
	word_lock_take(&s->l);
}

NO_THREAD_SAFETY bool spin_trylock(struct spinlock *s)
{
	return word_lock_try(&s->l);
}

NO_THREAD_SAFETY void spin_unlock(struct spinlock *s)
{
	word_lock_drop(&s->l);
}
#else
void mutex_wait(struct mutex *m)
{
	word_lock_wait(&m->l, false);
}
#endif

void rwsem_init(struct rwsem *rw, enum lock_rank rank)
{
	memset(rw, 0, sizeof(*rw));
}

void rwsem_destroy(struct rwsem *rw)
{
	assert(rwsem_raw_is_idle(&rw->raw));
}

NO_THREAD_SAFETY void rwsem_down_read(struct rwsem *rw)
{
	if (!rwsem_raw_try_read(&rw->raw))
		rwsem_raw_wait(&rw->raw, false);
}

NO_THREAD_SAFETY bool rwsem_down_read_trylock(struct rwsem *rw)
{
	return rwsem_raw_try_read(&rw->raw);
}

NO_THREAD_SAFETY void rwsem_up_read(struct rwsem *rw)
{
	rwsem_raw_up_read(&rw->raw);
}

NO_THREAD_SAFETY void rwsem_down_write(struct rwsem *rw)
{
	if (!rwsem_raw_try_write(&rw->raw))
		rwsem_raw_wait(&rw->raw, true);
}

NO_THREAD_SAFETY bool rwsem_down_write_trylock(struct rwsem *rw)
{
	return rwsem_raw_try_write(&rw->raw);
}

NO_THREAD_SAFETY void rwsem_up_write(struct rwsem *rw)
{
	rwsem_raw_up_write(&rw->raw);
}

void rwsem_raw_wait(struct rwsem_raw *rw, bool write)
{
	do {
		now_running->wait = write ? ON_WRITE : ON_READ;
		now_running->on.rw = rw;
		fiber_wait();
	} while (!(write ? rwsem_raw_try_write(rw) : rwsem_raw_try_read(rw)));
}

void rwsem_raw_wake(struct rwsem_raw *rw)
{
}

bool rwsem_raw_is_idle(const struct rwsem_raw *rw)
{
	return atomic_load(&rw->word) == 0;
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
}

#ifdef SLUICE_DEBUG_LOCKS
void assert_mutex_held(const struct mutex *m)
{
	assert(!word_lock_is_free(&m->l));
}

void assert_spin_held(const struct spinlock *s)
{
	assert(!word_lock_is_free(&s->l));
}

void assert_rwsem_held(const struct rwsem *rw)
{
	assert(!rwsem_raw_is_idle(&rw->raw));
}

void assert_rwsem_held_write(const struct rwsem *rw)
{
	assert(atomic_load(&rw->raw.word) & RWSEM_WRITER);
}
#endif

/* ---- end_io.c: one worker ---- */

static struct {
	struct thread *worker;
	unsigned users;
	struct cds_list_head queue;
	u64 queued, done;
	bool stop;
} pool = { .queue = CDS_LIST_HEAD_INIT(pool.queue) };

void io_end_init(struct io_end *ioe, void (*end)(struct io_end *), bool inline_end)
{
	atomic_init(&ioe->refs, 1);
	atomic_init(&ioe->error, 0);
	ioe->end = end;
	ioe->inline_end = inline_end;
	CDS_INIT_LIST_HEAD(&ioe->link);
}

void io_end_get(struct io_end *ioe)
{
	assert(atomic_fetch_add(&ioe->refs, 1) > 0);
}

void io_end_set_error(struct io_end *ioe, int error)
{
	if (error && !atomic_load(&ioe->error))
		atomic_store(&ioe->error, error);
}

void io_end_put(struct io_end *ioe)
{
	u32 old = atomic_fetch_sub(&ioe->refs, 1);

	assert(old > 0);
	if (old != 1)
		return;
	if (ioe->inline_end) {
		ioe->end(ioe);
		return;
	}
	cds_list_add_tail(&ioe->link, &pool.queue);
	pool.queued++;
	wake_up(&pool);
}

static void worker_main(void *arg)
{
	for (;;) {
		struct io_end *ioe;

		wait_event(&pool, !cds_list_empty(&pool.queue) || pool.stop);
		if (cds_list_empty(&pool.queue))
			return;
		ioe = cds_list_first_entry(&pool.queue, struct io_end, link);
		cds_list_del(&ioe->link);
		ioe->end(ioe);
		pool.done++;
		wake_up(&pool);
	}
}

int end_io_start(void)
{
	pool.stop = false;
	if (!pool.users++)
		return thread_create(&pool.worker, "sl-end-io", worker_main, NULL);
	return 0;
}

void end_io_stop(void)
{
	wait_event(&pool, pool.done == pool.queued);
	if (--pool.users)
		return;
	pool.stop = true;
	wake_up(&pool);
	thread_join(pool.worker);
}
