/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lib/thread.h - threads: creation, RCU registration, and "I am about to wait"
 *
 * A thread that serves requests may be one of few receivers; before it waits
 * for something slow (I/O, a commit, throttling, reclaim) it says so, and the
 * session hands its receiver role over to a spare thread. The wait primitives
 * of lib/ do this by themselves; code above lib/ need not.
 */
#ifndef SLUICE_LIB_THREAD_H
#define SLUICE_LIB_THREAD_H

#include "lib/types.h"
#include <pthread.h>

struct thread;

/*
 * Starts fn(arg) in a thread named `name` (15 characters are shown), with all
 * signals blocked and registered with RCU. 0, or -EAGAIN/-ENOMEM.
 * thread_join() waits for it and frees *t.
 */
int __must_check thread_create(struct thread **t, const char *name,
			       void (*fn)(void *arg), void *arg);
void thread_join(struct thread *t);

/* For threads made elsewhere (main, tests, libraries). Idempotent. */
void thread_register(void);
void thread_unregister(void);

/*
 * Number of CPUs this process may run on, at least 1, fixed at the first call;
 * and a number for the present one, below that: two CPUs may share a number.
 */
unsigned thread_nr_cpus(void);
unsigned thread_cpu(void);

/*
 * Hand-over hooks. Called around each wait by a thread that set a hook with
 * thread_set_block_hook(); nested calls count, the outermost pair calls. Locks
 * of any rank may be held then: a hook takes no ranked lock itself
 * (wake_up() is all right).
 */
struct thread_block_hook {
	void (*begin)(void *priv);
	void (*end)(void *priv);
	void *priv;
};
void thread_set_block_hook(const struct thread_block_hook *hook); /* this thread */
void thread_blocks_begin(void);
void thread_blocks_end(void);

/* Debug: abort inside an RCU read-side section or under a no-sleep lock. */
void thread_might_block(void);

#endif
