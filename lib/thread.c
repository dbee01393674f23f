/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lib/thread.c - threads: creation, RCU registration, and "I am about to wait"
 *
 * Signals are for the main thread: a new thread inherits a full mask, set
 * around pthread_create(). All state besides `struct thread` is thread-local.
 *
 * Locks:   none
 * Alive:   struct thread from thread_create() to thread_join()
 * Threads: any; a struct thread is joined once, by one thread
 */
#include "lib/thread.h"

#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/lock.h"
#include "lib/log.h"
#include "lib/rcu.h"

#define THREAD_NAME_MAX 16 /* the kernel's, with the terminating 0 */

struct thread {
	pthread_t tid;		    /* [creator and joiner only] */
	void (*fn)(void *arg);	    /* [const] */
	void *arg;		    /* [const] */
	char name[THREAD_NAME_MAX]; /* [const] */
};

static _Thread_local bool rcu_registered;
static _Thread_local struct thread_block_hook block_hook;
static _Thread_local unsigned block_depth;

void thread_register(void)
{
	if (rcu_registered)
		return;
	rcu_register_thread();
	rcu_registered = true;
}

void thread_unregister(void)
{
	if (!rcu_registered)
		return;
	rcu_unregister_thread();
	rcu_registered = false;
}

static void *thread_main(void *data)
{
	struct thread *t = data;

	pthread_setname_np(pthread_self(), t->name);
	thread_register();
	t->fn(t->arg);
	thread_unregister();
	return NULL;
}

int thread_create(struct thread **t, const char *name, void (*fn)(void *arg),
		  void *arg)
{
	struct thread *new = calloc(1, sizeof(*new));
	sigset_t all;
	sigset_t old;
	int err;

	if (!new)
		return -ENOMEM;
	new->fn = fn;
	new->arg = arg;
	snprintf(new->name, sizeof(new->name), "%s", name);

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(&new->tid, NULL, thread_main, new);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (err) {
		free(new);
		return err == ENOMEM ? -ENOMEM : -EAGAIN;
	}
	*t = new;
	return 0;
}

void thread_join(struct thread *t)
{
	int err;

	/* A thread holds its caller up for as long as the other one runs. */
	thread_might_block();
	thread_blocks_begin();
	err = pthread_join(t->tid, NULL);
	thread_blocks_end();
	assert(err == 0);
	free(t);
}

static _Atomic unsigned nr_cpus; /* [atomic, set once] 0: not counted yet */

/*
 * The mask's size is not known beforehand on machines with more CPUs than
 * CPU_SETSIZE: EINVAL asks for a larger one.
 */
static void count_cpus(void)
{
	unsigned n = 0;

	for (int max = CPU_SETSIZE; max <= CPU_SETSIZE * 64; max *= 2) {
		cpu_set_t *set = CPU_ALLOC((size_t)max);
		size_t size = CPU_ALLOC_SIZE((size_t)max);
		int err;

		if (!set)
			break;
		err = sched_getaffinity(0, size, set) ? errno : 0;
		if (!err)
			n = (unsigned)CPU_COUNT_S(size, set);
		CPU_FREE(set);
		if (err != EINVAL)
			break;
	}
	atomic_store_explicit(&nr_cpus, max_of(n, 1u), memory_order_relaxed);
}

unsigned thread_nr_cpus(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	unsigned n = atomic_load_explicit(&nr_cpus, memory_order_relaxed);

	if (likely(n))
		return n;
	pthread_once(&once, count_cpus);
	return atomic_load_explicit(&nr_cpus, memory_order_relaxed);
}

unsigned thread_cpu(void)
{
	int cpu = sched_getcpu();
	unsigned nr = thread_nr_cpus();

	if (likely(cpu >= 0 && (unsigned)cpu < nr))
		return (unsigned)cpu;
	return cpu < 0 ? 0 : (unsigned)cpu % nr;
}

void thread_set_block_hook(const struct thread_block_hook *hook)
{
	assert(block_depth == 0);
	block_hook = hook ? *hook : (struct thread_block_hook){ 0 };
}

/*
 * The depth is raised before begin() and lowered after end(), so that a hook
 * which itself waits for a lock does not call itself.
 */
void thread_blocks_begin(void)
{
	if (block_depth++ == 0 && block_hook.begin)
		block_hook.begin(block_hook.priv);
}

void thread_blocks_end(void)
{
	assert(block_depth > 0);
	if (block_depth == 1 && block_hook.end)
		block_hook.end(block_hook.priv);
	block_depth--;
}

void thread_might_block(void)
{
#ifdef SLUICE_DEBUG_LOCKS
	if (rcu_read_ongoing()) {
		log_err("lock check: about to wait inside an RCU read-side section");
		abort();
	}
	assert_rank_below(RANK_NOSLEEP);
#endif
}
