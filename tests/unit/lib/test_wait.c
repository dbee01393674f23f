/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/lib/test_wait.c - waiting: no lost wake-ups, deadlines, hooks
 *
 * A lost wake-up shows as a test that does not end (meson's time limit).
 */
#include "tests/unit/unit.h"

#include <sched.h>
#include <stdatomic.h>

#include "lib/lock.h"
#include "lib/rcu.h"
#include "lib/thread.h"
#include "lib/wait.h"

#define ROUNDS 5000
#define NR_PAIRS 3

struct pair {
	_Atomic unsigned turn;
	struct thread *t;
};

static struct pair pairs[NR_PAIRS];

/* Waits for odd turns, makes them even. */
static void pong(void *arg)
{
	struct pair *p = arg;

	for (unsigned i = 0; i < ROUNDS; i++) {
		wait_event(&p->turn, atomic_load(&p->turn) == 2 * i + 1);
		atomic_store(&p->turn, 2 * i + 2);
		wake_up(&p->turn);
	}
}

static void ping(void *arg)
{
	struct pair *p = arg;
	struct thread *t;

	assert_int_equal(thread_create(&t, "pong", pong, p), 0);
	for (unsigned i = 0; i < ROUNDS; i++) {
		atomic_store(&p->turn, 2 * i + 1);
		wake_up(&p->turn);
		wait_event(&p->turn, atomic_load(&p->turn) == 2 * i + 2);
	}
	thread_join(t);
}

static void test_ping_pong_loses_no_wake_up(void **state)
{
	for (int i = 0; i < NR_PAIRS; i++) {
		atomic_store(&pairs[i].turn, 0);
		assert_int_equal(
			thread_create(&pairs[i].t, "ping", ping, &pairs[i]), 0);
	}
	for (int i = 0; i < NR_PAIRS; i++) {
		thread_join(pairs[i].t);
		assert_int_equal(atomic_load(&pairs[i].turn), 2 * ROUNDS);
	}
}

#define NR_WAITERS 6
static _Atomic bool gate;
static _Atomic int nr_through;

static void gate_waiter(void *arg)
{
	wait_event(&gate, atomic_load(&gate));
	atomic_fetch_add(&nr_through, 1);
	wake_up(&nr_through);
}

static void test_one_wake_up_wakes_all(void **state)
{
	struct thread *t[NR_WAITERS];

	for (int i = 0; i < NR_WAITERS; i++)
		assert_int_equal(
			thread_create(&t[i], "waiter", gate_waiter, NULL), 0);
	assert_int_equal(atomic_load(&nr_through), 0);
	atomic_store(&gate, true);
	wake_up(&gate);
	wait_event(&nr_through, atomic_load(&nr_through) == NR_WAITERS);
	for (int i = 0; i < NR_WAITERS; i++)
		thread_join(t[i]);
}

static void test_deadline_passes(void **state)
{
	int key;
	u64 deadline = clock_mono_ns() + 2000000;

	assert_false(wait_event_deadline(&key, false, deadline));
	assert_true(clock_mono_ns() >= deadline);
	/* A deadline in the past does not wait, and the condition counts. */
	assert_false(wait_event_deadline(&key, false, 1));
	assert_true(wait_event_deadline(&key, true, 1));
}

/* Wakes whoever waits, again and again, and for nothing. */
static void rouser(void *arg)
{
	_Atomic bool *stop = arg;

	while (!atomic_load(stop)) {
		wake_up(stop);
		sched_yield();
	}
}

static u64 deadline_of(int *asked)
{
	++*asked;
	return clock_mono_ns() + 60000000000ull;
}

/* Of a deadline that is so long from now: not from each time that we wake up. */
static void test_deadline_stays_what_it_was(void **state)
{
	_Atomic bool stop = false;
	int looks = 0, asked = 0;
	struct thread *t;

	assert_int_equal(thread_create(&t, "rouser", rouser, &stop), 0);
	assert_true(wait_event_deadline(&stop, ++looks == 10, deadline_of(&asked)));
	atomic_store(&stop, true);
	thread_join(t);
	assert_int_equal(asked, 1);
}

static void test_woken_before_the_deadline(void **state)
{
	struct pair p = { .turn = 0 };

	assert_int_equal(thread_create(&p.t, "pong", pong, &p), 0);
	for (unsigned i = 0; i < ROUNDS; i++) {
		u64 deadline = clock_mono_ns() + 60000000000ull;

		atomic_store(&p.turn, 2 * i + 1);
		wake_up(&p.turn);
		assert_true(wait_event_deadline(
			&p.turn, atomic_load(&p.turn) == 2 * i + 2, deadline));
	}
	thread_join(p.t);
}

struct hooked {
	_Atomic bool begun;
	_Atomic bool go;
	int begins; /* [hooked thread, then joiner] */
	int ends;
};

/* Wakes on the key waited for: deadlocks if the bucket were locked. */
static void hook_begin(void *priv)
{
	struct hooked *h = priv;

	h->begins++;
	atomic_store(&h->begun, true);
	wake_up(&h->go);
	wake_up(&h->begun);
}

static void hook_end(void *priv)
{
	struct hooked *h = priv;

	h->ends++;
	wake_up(&h->go);
}

static void hooked_waiter(void *arg)
{
	struct hooked *h = arg;
	const struct thread_block_hook hook = {
		.begin = hook_begin, .end = hook_end, .priv = h
	};

	thread_set_block_hook(&hook);
	wait_event(&h->go, atomic_load(&h->go));
	thread_set_block_hook(NULL);
}

static void test_hook_runs_around_the_sleep_without_the_bucket(void **state)
{
	struct hooked h = { 0 };
	struct thread *t;

	assert_int_equal(thread_create(&t, "hooked", hooked_waiter, &h), 0);
	wait_event(&h.begun, atomic_load(&h.begun));
	atomic_store(&h.go, true);
	wake_up(&h.go);
	thread_join(t);
	assert_true(h.begins >= 1);
	assert_int_equal(h.begins, h.ends);
}

static void test_no_hook_without_a_wait(void **state)
{
	struct hooked h = { .go = true };
	struct thread *t;

	assert_int_equal(thread_create(&t, "hooked", hooked_waiter, &h), 0);
	thread_join(t);
	assert_int_equal(h.begins, 0);
	assert_int_equal(h.ends, 0);
}

#ifdef SLUICE_DEBUG_LOCKS
static void sleep_under_leaf(void *arg)
{
	struct spinlock leaf;

	spin_init(&leaf, RANK_LEAF);
	spin_lock(&leaf);
	wait_event_deadline(&leaf, false, 1);
	spin_unlock(&leaf);
}

static void sleep_in_rcu_section(void *arg)
{
	rcu_read_lock();
	wait_event_deadline(&pairs, false, 1);
	rcu_read_unlock();
}

static void wait_under_statistics(void *arg)
{
	rank_enter(RANK_STATS);
	wake_up(&pairs); /* nobody waits: passes */
	wait_bucket_unlock(wait_bucket_lock(&pairs));
}

static void test_debug_build_aborts_on_a_forbidden_wait(void **state)
{
	expect_abort(sleep_under_leaf, NULL, "leaf (rank");
	expect_abort(sleep_in_rcu_section, NULL, "RCU read-side");
	expect_abort(wait_under_statistics, NULL, "while holding stats");
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
#ifdef SLUICE_DEBUG_LOCKS
		cmocka_unit_test(test_debug_build_aborts_on_a_forbidden_wait),
#endif
		cmocka_unit_test(test_ping_pong_loses_no_wake_up),
		cmocka_unit_test(test_one_wake_up_wakes_all),
		cmocka_unit_test(test_deadline_passes),
		cmocka_unit_test(test_deadline_stays_what_it_was),
		cmocka_unit_test(test_woken_before_the_deadline),
		cmocka_unit_test(
			test_hook_runs_around_the_sleep_without_the_bucket),
		cmocka_unit_test(test_no_hook_without_a_wait),
	};

	thread_register();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
