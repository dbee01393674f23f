/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * writeback/end_io.c - counts the bios of a write-out, then runs its end()
 *
 * An io_end is done when its submitter and all its bios have dropped their
 * references. What is to be done then (convert extents, in a journal handle)
 * may sleep, which an I/O thread must not: workers do it, from one queue.
 *
 * The pool is shared by all volumes of the process and counted: the first
 * end_io_start() makes the threads, the last end_io_stop() ends them. The queue
 * is FIFO and its items are numbered by the count of pops, so that a stop
 * can wait for "all that were queued before me" though others go on queueing.
 *
 * Locks:   users_lock -> queue lock. The queue lock is a plain pthread mutex,
 *          as condition variables need one; it is a leaf, held for a few
 *          instructions, and never with a call out.
 * Alive:   an io_end, by its references; end() frees what contains it, so
 *          nothing touches it after end() or after dropping a reference
 * Threads: io_end_put() on any; end() on workers, or inline
 */
#include "lib/lock.h"
#include "lib/thread.h"
#include "writeback/page_io.h"

#include <assert.h>
#include <stdatomic.h>

#define WORKERS_MIN 2
#define WORKERS_MAX 64

static struct {
	struct mutex users_lock;
	unsigned users;                   /* [users_lock] */
	unsigned nr_threads;              /* [users_lock] */
	struct thread *threads[WORKERS_MAX]; /* [users_lock] */

	pthread_mutex_t lock;
	pthread_cond_t more;  /* an item was queued, or stop */
	pthread_cond_t done;  /* an end() has returned */
	struct cds_list_head queue; /* [lock] */
	u64 queued, popped;   /* items so far [lock] */
	u64 busy[WORKERS_MAX]; /* number of the item in work, 0 none [lock] */
	bool stop;            /* [lock] */
	bool running;         /* [lock] */
} pool = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.more = PTHREAD_COND_INITIALIZER,
	.done = PTHREAD_COND_INITIALIZER,
};

/* ---- references ---- */

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
	/* relaxed: the caller has a reference, nothing is published */
	u32 old = atomic_fetch_add_explicit(&ioe->refs, 1, memory_order_relaxed);

	assert(old > 0);
	assert(old < UINT32_MAX);
}

void io_end_set_error(struct io_end *ioe, int error)
{
	int none = 0;

	if (error)
		atomic_compare_exchange_strong(&ioe->error, &none, error);
}

static void enqueue(struct io_end *ioe)
{
	pthread_mutex_lock(&pool.lock);
	assert(pool.running);
	cds_list_add_tail(&ioe->link, &pool.queue);
	pool.queued++;
	pthread_cond_signal(&pool.more);
	pthread_mutex_unlock(&pool.lock);
}

void io_end_put(struct io_end *ioe)
{
	/* acq_rel: end() sees what everybody did before their put */
	u32 old = atomic_fetch_sub_explicit(&ioe->refs, 1, memory_order_acq_rel);

	assert(old > 0);
	if (old != 1)
		return;
	if (ioe->inline_end)
		ioe->end(ioe);
	else
		enqueue(ioe);
}

/* ---- workers ---- */

static void worker_main(void *arg)
{
	u64 *busy = arg;

	pthread_mutex_lock(&pool.lock);
	for (;;) {
		struct io_end *ioe;

		while (cds_list_empty(&pool.queue) && !pool.stop)
			pthread_cond_wait(&pool.more, &pool.lock);
		if (cds_list_empty(&pool.queue))
			break;
		ioe = cds_list_first_entry(&pool.queue, struct io_end, link);
		cds_list_del(&ioe->link);
		*busy = ++pool.popped;
		pthread_mutex_unlock(&pool.lock);
		ioe->end(ioe);
		pthread_mutex_lock(&pool.lock);
		*busy = 0;
		pthread_cond_broadcast(&pool.done);
	}
	pthread_mutex_unlock(&pool.lock);
}

/* Have the first n items been popped and their end() returned? Locked. */
static bool drained(u64 n)
{
	if (pool.popped < n)
		return false;
	for (unsigned i = 0; i < WORKERS_MAX; i++)
		if (pool.busy[i] && pool.busy[i] <= n)
			return false;
	return true;
}

static void drain(void)
{
	u64 n;

	pthread_mutex_lock(&pool.lock);
	n = pool.queued;
	while (!drained(n))
		pthread_cond_wait(&pool.done, &pool.lock);
	pthread_mutex_unlock(&pool.lock);
}

static void join_workers(void)
{
	pthread_mutex_lock(&pool.lock);
	pool.stop = true;
	pthread_cond_broadcast(&pool.more);
	pthread_mutex_unlock(&pool.lock);
	while (pool.nr_threads)
		thread_join(pool.threads[--pool.nr_threads]);
	pthread_mutex_lock(&pool.lock);
	pool.running = false;
	pthread_mutex_unlock(&pool.lock);
}

static int start_workers(void)
{
	unsigned n = thread_nr_cpus();
	int err;

	n = max_of(n, (unsigned)WORKERS_MIN);
	n = min_of(n, (unsigned)WORKERS_MAX);
	pthread_mutex_lock(&pool.lock);
	CDS_INIT_LIST_HEAD(&pool.queue);
	pool.stop = false;
	pool.running = true;
	pthread_mutex_unlock(&pool.lock);
	while (pool.nr_threads < n) {
		err = thread_create(&pool.threads[pool.nr_threads], "sl-end-io",
				    worker_main, &pool.busy[pool.nr_threads]);
		if (err) {
			join_workers();
			return err;
		}
		pool.nr_threads++;
	}
	return 0;
}

int end_io_start(void)
{
	int err = 0;

	mutex_lock(&pool.users_lock);
	if (!pool.users)
		err = start_workers();
	if (!err)
		pool.users++;
	mutex_unlock(&pool.users_lock);
	return err;
}

void end_io_stop(void)
{
	drain();
	mutex_lock(&pool.users_lock);
	assert(pool.users > 0);
	if (!--pool.users)
		join_workers();
	mutex_unlock(&pool.users_lock);
}
