/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lib/rcu_tsan.c - tells ThreadSanitizer what RCU orders (see lib/rcu_tsan.h)
 *
 * Empty but for builds with -fsanitize=thread. Tokens are addresses that the
 * tool hangs its clocks on; nothing is stored in them.
 *
 * Locks:   none
 * Threads: any
 */
#include "lib/rcu.h"

#ifdef SLUICE_TSAN

#include <stdlib.h>

#undef cds_lfht_lookup
#undef cds_lfht_next_duplicate
#undef cds_lfht_first
#undef cds_lfht_next
#undef cds_lfht_add
#undef cds_lfht_add_unique
#undef cds_lfht_add_replace
#undef cds_lfht_replace
#undef cds_lfht_del

/*
 * The tool asks for this by name at start. One line per library, each with its
 * reason; what our own functions do when a library calls them is still seen.
 *
 * liburcu, liburcu-cds: they pass memory between threads by assembly that the
 *	tool cannot see (the completion of rcu_barrier(), the work of a resize),
 *	so that its malloc() and free() inside them look like races.
 */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
	return "called_from_lib:liburcu.so\n"
	       "called_from_lib:liburcu-cds.so\n";
}

static char readers_token; /* released by readers */
static char callbacks_token; /* released by callbacks */

void rcu_tsan_read_unlock(void)
{
	__tsan_release(&readers_token);
	urcu_memb_read_unlock();
}

void rcu_tsan_synchronize(void)
{
	urcu_memb_synchronize_rcu();
	__tsan_acquire(&readers_token);
}

/*
 * Stands in for the caller's rcu_head, which keeps its place for the caller's
 * function but is not queued itself.
 */
struct tsan_call {
	struct rcu_head head;
	struct rcu_head *caller_head;
	void (*func)(struct rcu_head *head);
};

static void run_call(struct rcu_head *head)
{
	struct tsan_call *call = caa_container_of(head, struct tsan_call, head);
	void (*func)(struct rcu_head *);
	struct rcu_head *caller_head;

	__tsan_acquire(call);
	__tsan_acquire(&readers_token);
	func = call->func;
	caller_head = call->caller_head;
	free(call);
	func(caller_head);
	__tsan_release(&callbacks_token);
}

void rcu_tsan_call(struct rcu_head *head, void (*func)(struct rcu_head *))
{
	struct tsan_call *call = malloc(sizeof(*call));

	if (!call)
		abort(); /* a build for tests; call_rcu() cannot fail */
	call->caller_head = head;
	call->func = func;
	__tsan_release(call);
	urcu_memb_call_rcu(&call->head, run_call);
}

void rcu_tsan_barrier(void)
{
	urcu_memb_barrier();
	__tsan_acquire(&callbacks_token);
}

struct tsan_match {
	struct cds_lfht *ht;
	cds_lfht_match_fct match;
	const void *key;
};

static int run_match(struct cds_lfht_node *node, const void *key)
{
	const struct tsan_match *m = key;

	__tsan_acquire(m->ht);
	return m->match(node, m->key);
}

void rcu_tsan_lfht_lookup(struct cds_lfht *ht, unsigned long hash,
			  cds_lfht_match_fct match, const void *key,
			  struct cds_lfht_iter *iter)
{
	struct tsan_match m = { .ht = ht, .match = match, .key = key };

	cds_lfht_lookup(ht, hash, run_match, &m, iter);
	__tsan_acquire(ht);
}

void rcu_tsan_lfht_next_duplicate(struct cds_lfht *ht, cds_lfht_match_fct match,
				  const void *key, struct cds_lfht_iter *iter)
{
	struct tsan_match m = { .ht = ht, .match = match, .key = key };

	cds_lfht_next_duplicate(ht, run_match, &m, iter);
	__tsan_acquire(ht);
}

void rcu_tsan_lfht_first(struct cds_lfht *ht, struct cds_lfht_iter *iter)
{
	cds_lfht_first(ht, iter);
	__tsan_acquire(ht);
}

void rcu_tsan_lfht_next(struct cds_lfht *ht, struct cds_lfht_iter *iter)
{
	cds_lfht_next(ht, iter);
	__tsan_acquire(ht);
}

void rcu_tsan_lfht_add(struct cds_lfht *ht, unsigned long hash,
		       struct cds_lfht_node *node)
{
	__tsan_release(ht);
	cds_lfht_add(ht, hash, node);
}

struct cds_lfht_node *rcu_tsan_lfht_add_unique(struct cds_lfht *ht,
					       unsigned long hash,
					       cds_lfht_match_fct match,
					       const void *key,
					       struct cds_lfht_node *node)
{
	struct tsan_match m = { .ht = ht, .match = match, .key = key };
	struct cds_lfht_node *found;

	__tsan_release(ht);
	found = cds_lfht_add_unique(ht, hash, run_match, &m, node);
	__tsan_acquire(ht);
	return found;
}

struct cds_lfht_node *rcu_tsan_lfht_add_replace(struct cds_lfht *ht,
						unsigned long hash,
						cds_lfht_match_fct match,
						const void *key,
						struct cds_lfht_node *node)
{
	struct tsan_match m = { .ht = ht, .match = match, .key = key };
	struct cds_lfht_node *old;

	__tsan_release(ht);
	old = cds_lfht_add_replace(ht, hash, run_match, &m, node);
	__tsan_acquire(ht);
	return old;
}

int rcu_tsan_lfht_replace(struct cds_lfht *ht, struct cds_lfht_iter *old_iter,
			  unsigned long hash, cds_lfht_match_fct match,
			  const void *key, struct cds_lfht_node *node)
{
	struct tsan_match m = { .ht = ht, .match = match, .key = key };

	__tsan_release(ht);
	return cds_lfht_replace(ht, old_iter, hash, run_match, &m, node);
}

/* A lookup that no longer finds the node comes after what was done before. */
int rcu_tsan_lfht_del(struct cds_lfht *ht, struct cds_lfht_node *node)
{
	__tsan_release(ht);
	return cds_lfht_del(ht, node);
}

#endif
