/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/lib/test_rcu.c - RCU as the program uses it, under load
 *
 * Readers look objects up by hash and by pointer while writers replace and
 * free them. The tests fail on an object seen before it was filled or after it
 * was freed; under TSan and ASan they prove the annotations of lib/rcu_tsan.h
 * quiet, and the uses right.
 */
#include "tests/unit/unit.h"

#include <stdatomic.h>

#include "lib/lock.h"
#include "lib/rcu.h"
#include "lib/thread.h"

#define NR_READERS 3
#define NR_WRITERS 2
#define NR_KEYS 64
#define ROUNDS 4000
#define POISON 0xDEADDEADu

struct object {
	struct cds_lfht_node node; /* [rcu] */
	struct cds_list_head list; /* [rcu, write list_lock] */
	struct rcu_head rcu;
	u32 key;    /* [const] */
	u32 filled; /* [const] key ^ 0x5A5A5A5A until freed */
};

static struct cds_lfht *table;
static struct object *current;		     /* [rcu] */
static CDS_LIST_HEAD(list);		     /* [rcu, write list_lock] */
static struct spinlock list_lock;
static _Atomic bool stop;
static _Atomic unsigned nr_bad;
static _Atomic unsigned nr_seen;
static _Atomic unsigned nr_freed;

static struct object *object_new(u32 key)
{
	struct object *o = calloc(1, sizeof(*o));

	assert_non_null(o);
	o->key = key;
	o->filled = key ^ 0x5A5A5A5Au;
	cds_lfht_node_init(&o->node);
	return o;
}

static void object_check(const struct object *o)
{
	if (o->filled != (o->key ^ 0x5A5A5A5Au))
		atomic_fetch_add(&nr_bad, 1);
	atomic_fetch_add_explicit(&nr_seen, 1, memory_order_relaxed);
}

static void object_free_rcu(struct rcu_head *head)
{
	struct object *o = caa_container_of(head, struct object, rcu);

	o->filled = POISON;
	free(o);
	atomic_fetch_add(&nr_freed, 1);
}

static int object_match(struct cds_lfht_node *node, const void *key)
{
	return caa_container_of(node, struct object, node)->key ==
	       *(const u32 *)key;
}

static unsigned long hash_of(u32 key)
{
	return key * 0x9E3779B97F4A7C15ul;
}

static void lfht_reader(void *arg)
{
	u32 key = 0;

	while (!atomic_load(&stop)) {
		struct cds_lfht_iter iter;
		struct cds_lfht_node *node;

		key = (key + 7) % NR_KEYS;
		rcu_read_lock();
		cds_lfht_lookup(table, hash_of(key), object_match, &key, &iter);
		node = cds_lfht_iter_get_node(&iter);
		if (node)
			object_check(
				caa_container_of(node, struct object, node));
		if (key == 0)
			cds_lfht_for_each(table, &iter, node)
				object_check(caa_container_of(
					node, struct object, node));
		rcu_read_unlock();
	}
}

/* Alternately adds and removes; losing the race for a key is fine. */
static void lfht_writer(void *arg)
{
	for (u32 i = 0; i < ROUNDS; i++) {
		struct object *new = object_new(i * 13 % NR_KEYS);
		struct cds_lfht_node *found;

		rcu_read_lock();
		found = cds_lfht_add_unique(table, hash_of(new->key),
					    object_match, &new->key,
					    &new->node);
		if (found != &new->node) {
			free(new);
			new = caa_container_of(found, struct object, node);
			object_check(new);
			if (cds_lfht_del(table, found) == 0)
				call_rcu(&new->rcu, object_free_rcu);
		}
		rcu_read_unlock();
	}
}

static void run_threads(void (*reader)(void *), void (*writer)(void *))
{
	struct thread *readers[NR_READERS];
	struct thread *writers[NR_WRITERS];

	atomic_store(&stop, false);
	atomic_store(&nr_bad, 0);
	atomic_store(&nr_seen, 0);
	atomic_store(&nr_freed, 0);
	for (int i = 0; i < NR_READERS; i++)
		assert_int_equal(thread_create(&readers[i], "reader", reader,
					       NULL), 0);
	for (int i = 0; i < NR_WRITERS; i++)
		assert_int_equal(thread_create(&writers[i], "writer", writer,
					       NULL), 0);
	for (int i = 0; i < NR_WRITERS; i++)
		thread_join(writers[i]);
	atomic_store(&stop, true);
	for (int i = 0; i < NR_READERS; i++)
		thread_join(readers[i]);
	rcu_barrier();
	assert_int_equal(atomic_load(&nr_bad), 0);
}

static void test_hash_table_lookup_against_free(void **state)
{
	struct cds_lfht_iter iter;
	struct cds_lfht_node *node;

	table = cds_lfht_new(8, 8, 0, CDS_LFHT_AUTO_RESIZE, NULL);
	assert_non_null(table);
	run_threads(lfht_reader, lfht_writer);
	assert_true(atomic_load(&nr_seen) > 0);
	assert_true(atomic_load(&nr_freed) > 0);

	rcu_read_lock();
	cds_lfht_for_each(table, &iter, node) {
		struct object *o = caa_container_of(node, struct object, node);

		assert_int_equal(cds_lfht_del(table, node), 0);
		call_rcu(&o->rcu, object_free_rcu);
	}
	rcu_read_unlock();
	rcu_barrier();
	assert_int_equal(cds_lfht_destroy(table, NULL), 0);
}

static void pointer_reader(void *arg)
{
	while (!atomic_load(&stop)) {
		struct object *o;

		rcu_read_lock();
		o = rcu_dereference(current);
		if (o)
			object_check(o);
		rcu_read_unlock();
	}
}

/* One writer frees by callback, the other by waiting. */
static void pointer_writer(void *arg)
{
	for (u32 i = 0; i < ROUNDS / 4; i++) {
		struct object *old = rcu_xchg_pointer(&current, object_new(i));

		if (!old)
			continue;
		if (i % 100 == 0) {
			synchronize_rcu();
			object_free_rcu(&old->rcu);
		} else {
			call_rcu(&old->rcu, object_free_rcu);
		}
	}
}

static void test_pointer_exchange_against_free(void **state)
{
	struct object *last;

	run_threads(pointer_reader, pointer_writer);
	last = current;
	rcu_assign_pointer(current, NULL);
	synchronize_rcu();
	free(last);
	/* Each exchange but the first frees what it took out. */
	assert_int_equal(atomic_load(&nr_freed),
			 NR_WRITERS * (ROUNDS / 4) - 1);
}

static void list_reader(void *arg)
{
	while (!atomic_load(&stop)) {
		struct object *o;

		rcu_read_lock();
		cds_list_for_each_entry_rcu(o, &list, list)
			object_check(o);
		rcu_read_unlock();
	}
}

/* Keeps some twenty objects: adds one at the tail, removes the oldest. */
static void list_writer(void *arg)
{
	for (u32 i = 0; i < ROUNDS; i++) {
		struct object *new = object_new(i);
		struct object *old = NULL;

		spin_lock(&list_lock);
		cds_list_add_tail_rcu(&new->list, &list);
		if (i >= 10) {
			old = cds_list_first_entry(&list, struct object, list);
			cds_list_del_rcu(&old->list);
		}
		spin_unlock(&list_lock);
		if (old)
			call_rcu(&old->rcu, object_free_rcu);
	}
}

static void test_list_walk_against_free(void **state)
{
	struct object *o;
	struct object *next;

	spin_init(&list_lock, RANK_CACHE_LIST);
	run_threads(list_reader, list_writer);
	assert_int_equal(atomic_load(&nr_freed), NR_WRITERS * (ROUNDS - 10));
	cds_list_for_each_entry_safe(o, next, &list, list) {
		cds_list_del(&o->list);
		free(o);
	}
	spin_destroy(&list_lock);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hash_table_lookup_against_free),
		cmocka_unit_test(test_pointer_exchange_against_free),
		cmocka_unit_test(test_list_walk_against_free),
	};

	thread_register();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
