/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/loop.c - threads that read requests from a descriptor and carry them out
 *
 * A thread has one of three roles:
 *
 *              begins to wait in a request
 *     RECEIVER ---------------------------> WORKER
 *      ^    ^                                 |
 *      |    |   request done, receivers < N   |  request done
 *      |    +---------------------------------+
 *      |                                      v
 *      +----------------------------------- SPARE --(idle for long)--> ends
 *         a receiver begins to wait
 *
 * A RECEIVER is in read(2), or in a request that has not waited for anything:
 * cached operations run without a switch of threads. Never more than N
 * (CPUs) threads are receivers.
 *
 * A receiver that begins to wait is replaced at once only if nobody else is in
 * read(2): to wake a thread costs more than a short wait, and a client that
 * waits for its answer sends nothing meanwhile. Else whoever takes the next
 * request sees that he was the last reader and that receivers are missing, and
 * calls one up before he carries it out. So while a request waits to be read,
 * a thread is in read(2), or on its way there, or as many as are wanted are at
 * work, or none can be started. The two decide by two counters: the first lowers `nr_receivers`, then
 * looks at `readers`; the other lowers `readers`, then looks at
 * `nr_receivers` (all seq_cst), so at least one of them sees the other.
 *
 * Fewer receivers than N are wanted while many requests are such that nobody waits
 * for their end (a file is closed, an inode forgotten): their sender goes on
 * and sends the next at once, so that with two threads in read(2) both are woken,
 * and one could have done both. Every SAMPLE requests `wanted` is set by what
 * they were and by the CPU time they took (wanted_after()). One that
 * is too many becomes a SPARE after its request. What may take long is told
 * before (LOOP_LENGTHY), and is then done as if it were to wait.
 *
 * Called up is the spare that parked last (its stack and buffers are warm); a
 * thread is started only if there is none. A spare that is called up starts
 * its replacement itself, so that a thread that may hold locks of the file
 * system seldom has to.
 *
 * Locks:   loop->lock, a plain pthread mutex inside every ranked lock (the
 *          hook runs under any of them): nothing is called with it held but
 *          thread_create().
 * Alive:   struct worker from spawn to the join of its thread; on `workers`
 *          while its thread may be signalled
 * Never:   a thread in read(2) that is not counted in `receivers`
 * Threads: the loop's own; start, stop and free by one other
 */
#include "src/loop.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <urcu/list.h>

#include "cache/region.h"
#include "lib/log.h"
#include "lib/thread.h"
#include "lib/wait.h"

/* Gets a thread out of read(2); its handler does nothing. */
#define WAKE_SIGNAL SIGUSR2
#define WAKE_REPEAT_MS 5
/* Buffers used up to this are nobody's concern. */
#define BUFFERS_SMALL (64u << 10)
/* A spare that has been idle for so long gives its buffers back. */
#define SPARE_COLD_MS 500
/* Requests after which `wanted` is thought over; a thread tells of its own by
 * so many. */
#define SAMPLE 256
#define SAMPLE_PART 64

/* What becomes of a request that was read: it is carried out, waits, is rejected. */
enum gate { GATE_OPEN, GATE_PAUSED, GATE_CLOSED };

enum role { ROLE_RECEIVER, ROLE_WORKER, ROLE_SPARE };

/* What requests were like. */
struct sample {
	u32 requests;
	u32 unawaited;	/* of them: nobody waited for their end */
	u32 lengthy;	/* of them: told to be, or they waited */
	u64 ns;		/* from the first to the last, sum over threads */
	u64 cpu_ns;	/* CPU time in that */
};

struct worker {
	struct loop *loop;	    /* [const] */
	struct thread *thread;	    /* [lock] */
	struct cds_list_head all;   /* [lock] on workers, then on dead */
	struct cds_list_head spare; /* [lock] on spares if ROLE_SPARE, parked */
	enum role role;		    /* [lock] to write; its thread may read */
	pthread_cond_t called;	    /* with lock: role changed, or stopping */
	pthread_t tid;		    /* [lock] */
	_Atomic bool reading;	    /* [atomic] about to read, or reading */
	_Atomic bool busy;	    /* [atomic] has a request */
	struct region *region;	    /* [own thread] receive buffer */
	struct region *next;	    /* [own thread] in its place if it is shared, or NULL */
	char *request;		    /* [own thread] in region */
	void *reply;		    /* [own thread] */
	size_t reply_size;	    /* [own thread] */
	size_t reply_used;	    /* bytes that may be in memory [own thread] */
	size_t kept;		    /* its part of loop->kept [own thread] */
	struct sample own;	    /* since it told of them last [own thread] */
	u64 own_since_ns;	    /* [own thread] */
	u64 own_cpu_ns;		    /* CPU time of the thread then [own thread] */
};

struct loop {
	struct loop_config cfg; /* [const] */
	pthread_mutex_t lock;
	pthread_cond_t changed;		/* busy ended in quiesce or pause; gate; thread ended */
	struct cds_list_head workers;	/* [lock] */
	struct cds_list_head spares;	/* [lock] the last parked first */
	struct cds_list_head dead;	/* [lock] to be joined */
	unsigned nr_threads;		/* [lock] on workers */
	_Atomic unsigned nr_receivers;	/* [atomic, write lock] */
	_Atomic unsigned wanted;	/* [atomic, write lock] receivers: 1 to cfg.receivers */
	struct sample sample;		/* [lock] */
	_Atomic unsigned readers;	/* [atomic] in read(2), or about to be */
	unsigned nr_spares;		/* [lock] on spares */
	_Atomic bool stopping;		/* [atomic, write lock] */
	_Atomic int gate;		/* [atomic] enum gate */
	_Atomic size_t kept;		/* [atomic] bytes of large buffers kept */
	_Atomic u64 dropped;		/* [atomic] */
	struct loop_stats stats;	/* [lock] the counters of it */
};

static _Thread_local struct worker *current;

static void *map_memory(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

void *loop_reply_buffer(size_t size)
{
	struct worker *w = current;

	assert(w);
	if (size > w->reply_size) {
		if (w->reply)
			munmap(w->reply, w->reply_size);
		w->reply = map_memory(size);
		w->reply_size = w->reply ? size : 0;
		w->reply_used = 0;
	}
	if (w->reply)
		w->reply_used = max_of(w->reply_used, size);
	return w->reply;
}

/* ---- memory of the buffers ---- */

/*
 * A buffer is 1 MiB or so of address space, and a request in work has as much
 * of it in memory as it is large. Between requests the memory stays, which spares
 * page faults; but not with every thread that was ever at work: all together
 * keep buffers_max.
 */
static void buffers_drop(struct worker *w)
{
	region_trim(w->region);
	if (w->reply)
		madvise(w->reply, w->reply_size, MADV_DONTNEED);
	w->reply_used = 0;
	atomic_fetch_sub(&w->loop->kept, w->kept);
	w->kept = 0;
	atomic_fetch_add(&w->loop->dropped, 1);
}

static void set_region(struct worker *w, struct region *r)
{
	w->region = r;
	w->request = (char *)region_memory(r) + REGION_PAGE -
		     w->loop->cfg.payload_shift;
}

struct region *loop_request_region(void)
{
	struct worker *w = current;

	/* As much will come next, most likely. */
	if (!w->next)
		w->next = region_get(w->loop->cfg.regions,
				     region_resident(w->region));
	return w->next ? w->region : NULL;
}

/* After a request: its buffer may be the page cache's now. */
static void exchange_region(struct worker *w)
{
	struct region *next = w->next;

	if (!next)
		return;
	w->next = NULL;
	if (!region_has_parts(w->region)) {
		region_put(next);
		return;
	}
	region_put(w->region);
	set_region(w, next);
}

/* After a request. */
static void buffers_settle(struct worker *w)
{
	struct loop *loop = w->loop;
	size_t used = region_resident(w->region) + w->reply_used, before = w->kept;

	if (used <= BUFFERS_SMALL)
		used = 0;
	if (used == before)
		return;
	w->kept = used;
	/* Also if it becomes less: then the sum wraps, as it should. */
	if (atomic_fetch_add(&loop->kept, used - before) + (used - before) >
		    loop->cfg.buffers_max &&
	    used > before)
		buffers_drop(w);
}

/* ---- beginning and end of threads ---- */

static void worker_main(void *arg);

static struct worker *worker_alloc(struct loop *loop, enum role role)
{
	struct worker *w = calloc(1, sizeof(*w));
	pthread_condattr_t attr;
	struct region *r;

	if (!w)
		return NULL;
	w->loop = loop;
	w->role = role;
	r = region_get(loop->cfg.regions, 0);
	if (!r) {
		free(w);
		return NULL;
	}
	set_region(w, r);
	CDS_INIT_LIST_HEAD(&w->spare);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&w->called, &attr);
	pthread_condattr_destroy(&attr);
	return w;
}

static void worker_free(struct worker *w)
{
	if (w->reply)
		munmap(w->reply, w->reply_size);
	region_put(w->region);
	pthread_cond_destroy(&w->called);
	free(w);
}

/*
 * [lock held] The new thread's first step takes the lock, so it finds
 * everything set here. A SPARE is counted once it parks.
 */
static int spawn_locked(struct loop *loop, enum role role)
{
	struct worker *w;
	int err;

	if (loop->nr_threads >= loop->cfg.max_threads)
		return -EAGAIN;
	w = worker_alloc(loop, role);
	if (!w)
		return -ENOMEM;
	err = thread_create(&w->thread, "sluice-fuse", worker_main, w);
	if (err) {
		worker_free(w);
		return err;
	}
	cds_list_add(&w->all, &loop->workers);
	loop->nr_threads++;
	if (role == ROLE_RECEIVER)
		atomic_fetch_add(&loop->nr_receivers, 1);
	loop->stats.threads_started++;
	loop->stats.threads_max =
		max_of(loop->stats.threads_max, loop->nr_threads);
	return 0;
}

static void join_dead(struct loop *loop)
{
	struct cds_list_head dead;
	struct worker *w, *next;

	CDS_INIT_LIST_HEAD(&dead);
	pthread_mutex_lock(&loop->lock);
	cds_list_splice(&loop->dead, &dead);
	CDS_INIT_LIST_HEAD(&loop->dead);
	pthread_mutex_unlock(&loop->lock);
	cds_list_for_each_entry_safe(w, next, &dead, all) {
		thread_join(w->thread);
		worker_free(w);
	}
}

static void wake_spares_locked(struct loop *loop)
{
	struct worker *w;

	cds_list_for_each_entry(w, &loop->spares, spare)
		pthread_cond_signal(&w->called);
}

/* The connection is gone: no thread reads again. */
static void stop_reading(struct loop *loop)
{
	pthread_mutex_lock(&loop->lock);
	atomic_store(&loop->stopping, true);
	wake_spares_locked(loop);
	pthread_mutex_unlock(&loop->lock);
}

/* Last step of a thread: it is put on `dead`, for another one to join. */
static void leave(struct worker *w)
{
	struct loop *loop = w->loop;
	u64 one = 1;

	join_dead(loop);
	pthread_mutex_lock(&loop->lock);
	if (w->role == ROLE_RECEIVER)
		atomic_fetch_sub(&loop->nr_receivers, 1);
	atomic_fetch_sub(&loop->kept, w->kept);
	cds_list_del(&w->all);
	cds_list_add(&w->all, &loop->dead);
	loop->nr_threads--;
	pthread_cond_broadcast(&loop->changed);
	/* Under the lock: loop_free() takes it before the loop goes away. */
	if (!loop->nr_threads &&
	    write(loop->cfg.end_event, &one, sizeof(one)) < 0)
		log_err("request loop: its end cannot be told: errno %d", errno);
	pthread_mutex_unlock(&loop->lock);
}

/* ---- roles ---- */

static bool receivers_missing(struct loop *loop)
{
	return atomic_load(&loop->nr_receivers) < atomic_load(&loop->wanted);
}

/* [lock held] Somebody has ceased to be a receiver: finds another one. */
static void call_up_locked(struct loop *loop)
{
	struct worker *w;

	if (!receivers_missing(loop) || atomic_load(&loop->stopping))
		return;
	if (!cds_list_empty(&loop->spares)) {
		w = cds_list_first_entry(&loop->spares, struct worker, spare);
		cds_list_del_init(&w->spare);
		loop->nr_spares--;
		atomic_fetch_add(&loop->nr_receivers, 1);
		w->role = ROLE_RECEIVER;
		pthread_cond_signal(&w->called);
		return;
	}
	if (spawn_locked(loop, ROLE_RECEIVER))
		loop->stats.short_of_threads++;
}

/*
 * The block hook: this thread is about to wait, perhaps for long. If no thread
 * can take its place, the next that ends its request will (finish_request).
 */
static void hand_over(void *priv)
{
	struct worker *w = priv;
	struct loop *loop = w->loop;
	int saved_errno = errno;

	if (w->role != ROLE_RECEIVER)
		return;
	w->own.lengthy++;
	pthread_mutex_lock(&loop->lock);
	w->role = ROLE_WORKER;
	atomic_fetch_sub(&loop->nr_receivers, 1);
	loop->stats.handovers++;
	if (!atomic_load(&loop->readers))
		call_up_locked(loop);
	pthread_mutex_unlock(&loop->lock);
	errno = saved_errno;
}

void loop_request_kind(enum loop_kind kind)
{
	struct worker *w = current;

	if (kind == LOOP_UNAWAITED) {
		w->own.unawaited++;
	} else if (atomic_load(&w->loop->wanted) < w->loop->cfg.receivers) {
		hand_over(w);
	} else {
		w->own.lengthy++;
	}
}

/*
 * [lock held] How many receivers are wanted after this sample. As many as
 * there may be, unless one request in 8 was not awaited and next to none took long;
 * then so many that each has some time left. It is CPU time that counts: where
 * the threads have to wait for a CPU, more of them only take it from the clients.
 */
static unsigned wanted_after(const struct loop *loop, const struct sample *s)
{
	unsigned most = loop->cfg.receivers, now = atomic_load(&loop->wanted);

	if (s->unawaited < s->requests / 8 || s->lengthy > s->requests / 32)
		return most;
	if (s->cpu_ns > s->ns / 8 * 7)
		return min_of(now + 1, most);
	/* One fewer would be at work for less than 4/5 of the time. */
	if (now > 1 && s->cpu_ns / 4 * now < s->ns / 5 * (now - 1))
		return now - 1;
	return now;
}

static u64 thread_cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (u64)ts.tv_sec * 1000000000 + (u64)ts.tv_nsec;
}

/* What passed since the last call, and begins anew. */
static void sample_end(struct worker *w)
{
	u64 now = clock_mono_ns(), cpu = thread_cpu_ns();

	w->own.ns = now - w->own_since_ns;
	w->own.cpu_ns = cpu - w->own_cpu_ns;
	w->own_since_ns = now;
	w->own_cpu_ns = cpu;
}

/*
 * After a request. More receivers that are wanted are called up by the last
 * reader when he leaves (last_reader_left); one too many goes by itself.
 */
static void adapt(struct worker *w)
{
	struct loop *loop = w->loop;

	if (++w->own.requests < SAMPLE_PART || loop->cfg.receivers == 1)
		return;
	sample_end(w);
	pthread_mutex_lock(&loop->lock);
	loop->sample.requests += w->own.requests;
	loop->sample.unawaited += w->own.unawaited;
	loop->sample.lengthy += w->own.lengthy;
	loop->sample.ns += w->own.ns;
	loop->sample.cpu_ns += w->own.cpu_ns;
	if (loop->sample.requests >= SAMPLE) {
		atomic_store(&loop->wanted, wanted_after(loop, &loop->sample));
		loop->sample = (struct sample){ 0 };
	}
	pthread_mutex_unlock(&loop->lock);
	w->own = (struct sample){ 0 };
}

static bool receivers_too_many(struct loop *loop)
{
	return atomic_load(&loop->nr_receivers) > atomic_load(&loop->wanted);
}

/*
 * [lock held] At least `wanted` others are receivers when this one ceases to be, and one
 * of them reads. The rest may be at work for long: with what began before fewer
 * were wanted they are receivers still (loop_request_kind()). Who reads now will see
 * that fewer are wanted.
 */
static void step_down_locked(struct worker *w)
{
	struct loop *loop = w->loop;

	if (receivers_too_many(loop) && atomic_load(&loop->readers)) {
		w->role = ROLE_SPARE;
		atomic_fetch_sub(&loop->nr_receivers, 1);
	}
}

static void finish_request(struct worker *w)
{
	struct loop *loop = w->loop;

	if (w->role == ROLE_RECEIVER && !receivers_too_many(loop))
		return;
	pthread_mutex_lock(&loop->lock);
	if (w->role == ROLE_RECEIVER) {
		step_down_locked(w);
	} else if (receivers_missing(loop)) {
		w->role = ROLE_RECEIVER;
		atomic_fetch_add(&loop->nr_receivers, 1);
	} else {
		w->role = ROLE_SPARE;
	}
	pthread_mutex_unlock(&loop->lock);
}

static struct timespec deadline_in(u32 ms)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_sec += ms / 1000;
	ts.tv_nsec += (long)(ms % 1000) * 1000000;
	if (ts.tv_nsec >= 1000000000) {
		ts.tv_sec++;
		ts.tv_nsec -= 1000000000;
	}
	return ts;
}

/* Sleeps until called up (true), or until it is to end. */
static bool park(struct worker *w)
{
	struct loop *loop = w->loop;
	u32 idle_ms = loop->cfg.spare_idle_ms;
	bool warm = w->kept > 0, stay = true;
	struct timespec deadline =
		deadline_in(warm ? min_of(idle_ms, (u32)SPARE_COLD_MS) : idle_ms);

	pthread_mutex_lock(&loop->lock);
	/* A receiver may have gone missing since finish_request(). */
	if (receivers_missing(loop)) {
		w->role = ROLE_RECEIVER;
		atomic_fetch_add(&loop->nr_receivers, 1);
		pthread_mutex_unlock(&loop->lock);
		return true;
	}
	cds_list_add(&w->spare, &loop->spares);
	loop->nr_spares++;
	while (w->role == ROLE_SPARE && stay) {
		if (atomic_load(&loop->stopping)) {
			stay = false;
		} else if (pthread_cond_timedwait(&w->called, &loop->lock,
						  &deadline) == ETIMEDOUT &&
			   w->role == ROLE_SPARE) {
			stay = warm || loop->nr_spares <= loop->cfg.min_spares;
			deadline = deadline_in(idle_ms);
			/* It may be called up meanwhile, and looks again. */
			if (warm) {
				pthread_mutex_unlock(&loop->lock);
				buffers_drop(w);
				pthread_mutex_lock(&loop->lock);
			}
			warm = false;
		}
	}
	if (w->role == ROLE_SPARE) {
		cds_list_del_init(&w->spare);
		loop->nr_spares--;
	}
	pthread_mutex_unlock(&loop->lock);
	return w->role == ROLE_RECEIVER;
}

/* One that was called up sees that there is a spare for the next time. */
static void replenish(struct loop *loop)
{
	pthread_mutex_lock(&loop->lock);
	if (!loop->nr_spares && !atomic_load(&loop->stopping))
		(void)!spawn_locked(loop, ROLE_SPARE); /* else hand_over() tries */
	pthread_mutex_unlock(&loop->lock);
}

/* ---- requests ---- */

/* The last reader has a request: somebody else should read the next. */
static void last_reader_left(struct loop *loop)
{
	if (!receivers_missing(loop))
		return;
	pthread_mutex_lock(&loop->lock);
	call_up_locked(loop);
	pthread_mutex_unlock(&loop->lock);
}

/*
 * Length of a request, or 0 at the end. `reading` is up before `stopping` is
 * looked at: loop_stop() sets that first, then looks for readers, so either
 * this thread sees it or is signalled, again and again until it has left read(2).
 */
static size_t receive(struct worker *w)
{
	struct loop *loop = w->loop;
	ssize_t n = -1;
	int err = EINTR;

	atomic_fetch_add(&loop->readers, 1);
	atomic_store(&w->reading, true);
	while (n < 0 && !atomic_load(&loop->stopping)) {
		n = read(loop->cfg.fd, w->request, loop->cfg.request_max);
		err = n < 0 ? errno : 0;
		/* ENOENT: the request was taken back while it was read */
		if (err && err != EINTR && err != ENOENT && err != EAGAIN)
			break;
	}
	atomic_store(&w->reading, false);
	if (atomic_fetch_sub(&loop->readers, 1) == 1)
		last_reader_left(loop);
	if (n > 0) {
		region_note(w->region, REGION_PAGE - loop->cfg.payload_shift +
					       (size_t)n);
		return (size_t)n;
	}
	if (n < 0 && err != ENODEV && !atomic_load(&loop->stopping))
		log_err("cannot read requests from the kernel: %s; ending",
			strerror(err));
	return 0;
}

static void tell_changed(struct loop *loop)
{
	pthread_mutex_lock(&loop->lock);
	pthread_cond_broadcast(&loop->changed);
	pthread_mutex_unlock(&loop->lock);
}

/* With a request in hand, which nobody counts as begun. */
static void wait_at_gate(struct worker *w)
{
	struct loop *loop = w->loop;

	atomic_store(&w->busy, false);
	pthread_mutex_lock(&loop->lock);
	pthread_cond_broadcast(&loop->changed);
	while (atomic_load(&loop->gate) == GATE_PAUSED)
		pthread_cond_wait(&loop->changed, &loop->lock);
	pthread_mutex_unlock(&loop->lock);
}

/*
 * busy and gate: each side stores its own flag, then loads the other's
 * (both seq_cst). So either the request waits or is rejected, or loop_pause() or
 * loop_quiesce() sees it and waits; and if it waits, then the end of the request sees
 * the gate and takes the lock to wake it.
 */
static void carry_out(struct worker *w, size_t len)
{
	struct loop *loop = w->loop;
	int gate;

	atomic_store(&w->busy, true);
	while ((gate = atomic_load(&loop->gate)) == GATE_PAUSED) {
		wait_at_gate(w);
		atomic_store(&w->busy, true);
	}
	if (gate == GATE_CLOSED)
		loop->cfg.reject(loop->cfg.priv, w->request, len);
	else
		loop->cfg.process(loop->cfg.priv, w->request, len);
	atomic_store(&w->busy, false);
	if (atomic_load(&loop->gate) != GATE_OPEN)
		tell_changed(loop);
}

static bool others_busy_locked(struct loop *loop)
{
	struct worker *w;

	cds_list_for_each_entry(w, &loop->workers, all)
		if (w != current && atomic_load(&w->busy))
			return true;
	return false;
}

static void shut_gate(struct loop *loop, enum gate gate)
{
	thread_blocks_begin();
	pthread_mutex_lock(&loop->lock);
	atomic_store(&loop->gate, gate);
	while (others_busy_locked(loop))
		pthread_cond_wait(&loop->changed, &loop->lock);
	pthread_mutex_unlock(&loop->lock);
	thread_blocks_end();
}

void loop_quiesce(struct loop *loop)
{
	shut_gate(loop, GATE_CLOSED);
}

void loop_pause(struct loop *loop)
{
	shut_gate(loop, GATE_PAUSED);
}

/* The gate may have been closed for good, by who did not have to pass it. */
void loop_resume(struct loop *loop)
{
	int paused = GATE_PAUSED;

	atomic_compare_exchange_strong(&loop->gate, &paused, GATE_OPEN);
	tell_changed(loop);
}

static void worker_main(void *arg)
{
	struct worker *w = arg;
	struct loop *loop = w->loop;
	struct thread_block_hook hook = { .begin = hand_over, .priv = w };
	sigset_t wake;
	size_t len;

	sample_end(w);
	pthread_mutex_lock(&loop->lock);
	w->tid = pthread_self();
	pthread_mutex_unlock(&loop->lock);
	current = w;
	thread_set_block_hook(&hook);
	sigemptyset(&wake);
	sigaddset(&wake, WAKE_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &wake, NULL);

	for (;;) {
		if (w->role == ROLE_SPARE) {
			if (!park(w))
				break;
			replenish(loop);
		}
		len = receive(w);
		if (!len) {
			stop_reading(loop);
			break;
		}
		carry_out(w, len);
		exchange_region(w);
		buffers_settle(w);
		adapt(w);
		finish_request(w);
	}
	thread_set_block_hook(NULL);
	current = NULL;
	leave(w);
}

/* ---- start and stop ---- */

static void wake_handler(int sig)
{
	(void)sig;
}

int loop_start(const struct loop_config *config, struct loop **out)
{
	/* no SA_RESTART: read(2) shall end */
	struct sigaction sa = { .sa_handler = wake_handler };
	struct loop *loop = calloc(1, sizeof(*loop));
	pthread_condattr_t attr;
	int err = 0;

	if (!loop)
		return -ENOMEM;
	assert(config->receivers > 0);
	assert(config->max_threads >= config->receivers);
	loop->cfg = *config;
	atomic_store(&loop->wanted, config->receivers);
	CDS_INIT_LIST_HEAD(&loop->workers);
	CDS_INIT_LIST_HEAD(&loop->spares);
	CDS_INIT_LIST_HEAD(&loop->dead);
	pthread_mutex_init(&loop->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&loop->changed, &attr);
	pthread_condattr_destroy(&attr);
	sigaction(WAKE_SIGNAL, &sa, NULL);

	*out = loop; /* requests may want it at once */
	pthread_mutex_lock(&loop->lock);
	for (unsigned i = 0; i < config->receivers && !err; i++)
		err = spawn_locked(loop, ROLE_RECEIVER);
	for (unsigned i = 0; i < config->min_spares && !err; i++)
		err = spawn_locked(loop, ROLE_SPARE);
	pthread_mutex_unlock(&loop->lock);
	if (err) {
		loop_stop(loop);
		loop_free(loop);
		*out = NULL;
		return err;
	}
	return 0;
}

void loop_stop(struct loop *loop)
{
	struct timespec deadline;
	struct worker *w;

	pthread_mutex_lock(&loop->lock);
	atomic_store(&loop->stopping, true);
	wake_spares_locked(loop);
	while (loop->nr_threads) {
		/* Not yet started threads (tid unset) are not reading. */
		cds_list_for_each_entry(w, &loop->workers, all)
			if (atomic_load(&w->reading))
				pthread_kill(w->tid, WAKE_SIGNAL);
		deadline = deadline_in(WAKE_REPEAT_MS);
		pthread_cond_timedwait(&loop->changed, &loop->lock, &deadline);
	}
	pthread_mutex_unlock(&loop->lock);
}

void loop_free(struct loop *loop)
{
	if (!loop)
		return;
	join_dead(loop);
	assert(!loop->nr_threads);
	pthread_cond_destroy(&loop->changed);
	pthread_mutex_destroy(&loop->lock);
	free(loop);
}

void loop_get_stats(struct loop *loop, struct loop_stats *st)
{
	pthread_mutex_lock(&loop->lock);
	*st = loop->stats;
	st->threads = loop->nr_threads;
	st->receivers = atomic_load(&loop->nr_receivers);
	st->spares = loop->nr_spares;
	st->buffers_kept = atomic_load(&loop->kept);
	st->buffers_dropped = atomic_load(&loop->dropped);
	pthread_mutex_unlock(&loop->lock);
}
