/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/lib/test_lock.c - locks: exclusion, hand-over, and rank checks
 *
 * The rank checks abort, so each runs in a child process; they exist in builds
 * with debug_locks only.
 */
#include "tests/unit/unit.h"

#include <stdatomic.h>

#include "lib/lock.h"
#include "lib/log.h"
#include "lib/rcu.h"
#include "lib/thread.h"
#include "lib/wait.h"

#ifdef __clang__
/* One function takes here what another releases, or nobody does: the point. */
#pragma clang diagnostic ignored "-Wthread-safety-analysis"
#endif

#define NR_THREADS 4
#define ROUNDS 5000

static struct mutex m;
static struct spinlock s;
static struct rwsem rw;
static unsigned long counted; /* [m, s or rw, by test] plain on purpose */

static void run_threads(void (*fn)(void *))
{
	struct thread *t[NR_THREADS];

	counted = 0;
	for (int i = 0; i < NR_THREADS; i++)
		assert_int_equal(thread_create(&t[i], "locker", fn, NULL), 0);
	for (int i = 0; i < NR_THREADS; i++)
		thread_join(t[i]);
}

static void mutex_adder(void *arg)
{
	for (int i = 0; i < ROUNDS; i++) {
		if (i % 4 == 0) {
			while (!mutex_trylock(&m))
				;
		} else {
			mutex_lock(&m);
		}
		assert_mutex_held(&m);
		counted++;
		mutex_unlock(&m);
	}
}

static void test_mutex_excludes(void **state)
{
	mutex_init(&m, RANK_I_DATA);
	run_threads(mutex_adder);
	assert_int_equal(counted, NR_THREADS * ROUNDS);
	mutex_destroy(&m);
}

static void spin_adder(void *arg)
{
	for (int i = 0; i < ROUNDS; i++) {
		if (i % 4 == 0) {
			while (!spin_trylock(&s))
				;
		} else {
			spin_lock(&s);
		}
		assert_spin_held(&s);
		counted++;
		spin_unlock(&s);
	}
}

static void test_spinlock_excludes(void **state)
{
	spin_init(&s, RANK_I_LOCK);
	run_threads(spin_adder);
	assert_int_equal(counted, NR_THREADS * ROUNDS);
	spin_destroy(&s);
}

static void rwsem_adder(void *arg)
{
	unsigned long last = 0;

	for (int i = 0; i < ROUNDS; i++) {
		if (i % 4 == 0) {
			rwsem_down_write(&rw);
			assert_rwsem_held_write(&rw);
			counted++;
			rwsem_up_write(&rw);
		} else {
			rwsem_down_read(&rw);
			assert_rwsem_held(&rw);
			if (counted < last)
				abort();
			last = counted;
			rwsem_up_read(&rw);
		}
	}
}

static void test_rwsem_excludes(void **state)
{
	rwsem_init(&rw, RANK_I_RWSEM);
	run_threads(rwsem_adder);
	assert_int_equal(counted, NR_THREADS * ROUNDS / 4);
	rwsem_destroy(&rw);
}

static _Atomic int tried;

static void try_all_shared(void *arg)
{
	bool read = rwsem_down_read_trylock(&rw);

	if (read)
		rwsem_up_read(&rw);
	if (rwsem_down_write_trylock(&rw)) {
		rwsem_up_write(&rw);
		atomic_fetch_add(&tried, 10);
	}
	atomic_fetch_add(&tried, read);
}

static int try_in_thread(void)
{
	struct thread *t;

	atomic_store(&tried, 0);
	assert_int_equal(thread_create(&t, "try", try_all_shared, NULL), 0);
	thread_join(t);
	return atomic_load(&tried);
}

static void test_rwsem_readers_share_and_writers_do_not(void **state)
{
	rwsem_init(&rw, RANK_I_RWSEM);
	assert_int_equal(try_in_thread(), 11);
	rwsem_down_read(&rw);
	assert_int_equal(try_in_thread(), 1);
	rwsem_up_read(&rw);
	rwsem_down_write(&rw);
	assert_int_equal(try_in_thread(), 0);
	rwsem_up_write(&rw);
	assert_int_equal(try_in_thread(), 11);
	rwsem_destroy(&rw);
}

/*
 * Some threads have the lock all the time, in one mode, overlapping; one that
 * wants it in the other gets it all the same, each time. If it starved, the test
 * would not end.
 */
static _Atomic bool crowd_stop;
static _Atomic int crowd_in; /* readers in; -1: a writer */

static void hold_a_while(void)
{
	u64 until = clock_mono_ns() + 50000;

	while (clock_mono_ns() < until)
		;
}

static void enter_leave(bool write)
{
	if (write) {
		rwsem_down_write(&rw);
		if (atomic_exchange(&crowd_in, -1) != 0)
			abort();
	} else {
		rwsem_down_read(&rw);
		if (atomic_fetch_add(&crowd_in, 1) < 0)
			abort();
	}
	hold_a_while();
	if (write) {
		if (atomic_exchange(&crowd_in, 0) != -1)
			abort();
		rwsem_up_write(&rw);
	} else {
		atomic_fetch_sub(&crowd_in, 1);
		rwsem_up_read(&rw);
	}
}

static void crowd_member(void *arg)
{
	while (!atomic_load(&crowd_stop))
		enter_leave(arg != NULL);
}

static void against_a_crowd(bool crowd_writes)
{
	struct thread *t[6];

	rwsem_init(&rw, RANK_I_RWSEM);
	atomic_store(&crowd_stop, false);
	for (int i = 0; i < 6; i++)
		assert_int_equal(thread_create(&t[i], "crowd", crowd_member,
					       crowd_writes ? &rw : NULL), 0);
	for (int i = 0; i < 50; i++)
		enter_leave(!crowd_writes);
	atomic_store(&crowd_stop, true);
	for (int i = 0; i < 6; i++)
		thread_join(t[i]);
	rwsem_destroy(&rw);
}

static void test_rwsem_starves_no_writer(void **state)
{
	against_a_crowd(false);
}

static void test_rwsem_starves_no_reader(void **state)
{
	against_a_crowd(true);
}

/* More threads than CPUs, that sleep with it, and without: a wake-up that is lost
 * leaves them all asleep. HAMMER_MS sets how long. */
static void restless(void *arg)
{
	u64 seed = (uintptr_t)arg * 2654435761u + 1;

	while (!atomic_load(&crowd_stop)) {
		bool write;

		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		write = seed >> 20 & 1;
		if (seed >> 32 & 1 ? write ? rwsem_down_write_trylock(&rw)
					   : rwsem_down_read_trylock(&rw)
				   : false)
			goto in;
		if (write)
			rwsem_down_write(&rw);
		else
			rwsem_down_read(&rw);
in:
		if (write ? atomic_exchange(&crowd_in, -1) != 0
			  : atomic_fetch_add(&crowd_in, 1) < 0)
			abort();
		if ((seed >> 40) % 8 == 0)
			usleep(seed >> 44 & 127);
		if (write) {
			atomic_store(&crowd_in, 0);
			rwsem_up_write(&rw);
		} else {
			atomic_fetch_sub(&crowd_in, 1);
			rwsem_up_read(&rw);
		}
		if ((seed >> 50) % 8 == 0)
			usleep(seed >> 54 & 127);
	}
}

static void test_rwsem_loses_no_wake_up(void **state)
{
	const char *ms = getenv("HAMMER_MS");
	struct thread *t[16];

	rwsem_init(&rw, RANK_I_RWSEM);
	atomic_store(&crowd_stop, false);
	for (uintptr_t i = 0; i < 16; i++)
		assert_int_equal(thread_create(&t[i], "restless", restless,
					       (void *)(i + 1)), 0);
	usleep(ms ? (useconds_t)atoi(ms) * 1000 : 1000000);
	atomic_store(&crowd_stop, true);
	for (int i = 0; i < 16; i++)
		thread_join(t[i]);
	rwsem_destroy(&rw);
}

/* The same with a mutex, or a spinlock: who sleeps for it is woken when it is
 * dropped, or by the one after. */
static _Atomic bool word_in;

static void restless_word(bool sleeping, u64 seed)
{
	while (!atomic_load(&crowd_stop)) {
		bool try, got = true;

		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		try = (seed >> 32 & 3) == 0;
		if (sleeping && try)
			got = mutex_trylock(&m);
		else if (sleeping)
			mutex_lock(&m);
		else if (try)
			got = spin_trylock(&s);
		else
			spin_lock(&s);
		if (!got)
			continue;
		if (atomic_exchange(&word_in, true))
			abort();
		counted++;
		if ((seed >> 40) % 8 == 0)
			usleep(seed >> 44 & 127);
		atomic_store(&word_in, false);
		if (sleeping)
			mutex_unlock(&m);
		else
			spin_unlock(&s);
		if ((seed >> 50) % 8 == 0)
			usleep(seed >> 54 & 127);
	}
}

static void restless_mutex(void *arg)
{
	restless_word(true, (uintptr_t)arg * 2654435761u + 1);
}

static void restless_spin(void *arg)
{
	restless_word(false, (uintptr_t)arg * 2654435761u + 1);
}

static void hammer_word(void (*fn)(void *))
{
	const char *ms = getenv("HAMMER_MS");
	struct thread *t[16];

	atomic_store(&crowd_stop, false);
	for (uintptr_t i = 0; i < 16; i++)
		assert_int_equal(thread_create(&t[i], "restless", fn,
					       (void *)(i + 1)), 0);
	usleep(ms ? (useconds_t)atoi(ms) * 1000 : 500000);
	atomic_store(&crowd_stop, true);
	for (int i = 0; i < 16; i++)
		thread_join(t[i]);
}

static void test_mutex_loses_no_wake_up(void **state)
{
	mutex_init(&m, RANK_I_DATA);
	hammer_word(restless_mutex);
	mutex_destroy(&m);
}

static void test_spinlock_loses_no_wake_up(void **state)
{
	spin_init(&s, RANK_I_LOCK);
	hammer_word(restless_spin);
	spin_destroy(&s);
}

struct waiter {
	void (*wait)(void);
	_Atomic bool waiting;
	int begins;
	int ends;
};

static void waiter_begin(void *priv)
{
	struct waiter *w = priv;

	w->begins++;
	atomic_store(&w->waiting, true);
	wake_up(&w->waiting);
}

static void waiter_end(void *priv)
{
	((struct waiter *)priv)->ends++;
}

static void waiter_main(void *arg)
{
	struct waiter *w = arg;
	const struct thread_block_hook hook = {
		.begin = waiter_begin, .end = waiter_end, .priv = w
	};

	thread_set_block_hook(&hook);
	w->wait();
	thread_set_block_hook(NULL);
}

static void wait_mutex(void)
{
	mutex_lock(&m);
	mutex_unlock(&m);
}

static void wait_read(void)
{
	rwsem_down_read(&rw);
	rwsem_up_read(&rw);
}

static void wait_write(void)
{
	rwsem_down_write(&rw);
	rwsem_up_write(&rw);
}

static void check_free(void (*wait)(void))
{
	struct waiter w = { .wait = wait };
	struct thread *t;

	assert_int_equal(thread_create(&t, "waiter", waiter_main, &w), 0);
	thread_join(t);
	assert_int_equal(w.begins, 0);
	assert_int_equal(w.ends, 0);
}

/* Called with the lock held; `release` drops it once the waiter waits. */
static void check_contended(void (*wait)(void), void (*release)(void))
{
	struct waiter w = { .wait = wait };
	struct thread *t;

	assert_int_equal(thread_create(&t, "waiter", waiter_main, &w), 0);
	wait_event(&w.waiting, atomic_load(&w.waiting));
	release();
	thread_join(t);
	assert_int_equal(w.begins, 1);
	assert_int_equal(w.ends, 1);
}

static void release_mutex(void)
{
	mutex_unlock(&m);
}

static void release_write(void)
{
	rwsem_up_write(&rw);
}

static void release_read(void)
{
	rwsem_up_read(&rw);
}

static void test_only_a_contended_lock_hands_over(void **state)
{
	mutex_init(&m, RANK_S_UMOUNT);
	rwsem_init(&rw, RANK_S_UMOUNT);
	check_free(wait_mutex);
	check_free(wait_read);
	check_free(wait_write);
	mutex_lock(&m);
	check_contended(wait_mutex, release_mutex);
	rwsem_down_write(&rw);
	check_contended(wait_read, release_write);
	rwsem_down_write(&rw);
	check_contended(wait_write, release_write);
	rwsem_down_read(&rw);
	check_contended(wait_write, release_read);
	mutex_destroy(&m);
	rwsem_destroy(&rw);
}

static void test_zeroed_locks_work_unranked(void **state)
{
	static struct mutex zm;
	static struct spinlock zs;
	static struct rwsem zr;

	spin_lock(&zs);
	mutex_lock(&zm);
	rwsem_down_write(&zr);
	spin_unlock(&zs);
	rwsem_up_write(&zr);
	mutex_unlock(&zm);
}

/* In order, siblings of the nesting ranks, released in any order. */
static void test_allowed_orders_pass(void **state)
{
	struct rwsem dir1;
	struct rwsem dir2;
	struct mutex buf1;
	struct mutex buf2;
	struct spinlock leaf1;
	struct spinlock leaf2;
	struct spinlock list;
	struct spinlock ilock;

	rwsem_init(&dir1, RANK_I_RWSEM);
	rwsem_init(&dir2, RANK_I_RWSEM);
	mutex_init(&buf1, RANK_BUFFER);
	mutex_init(&buf2, RANK_BUFFER);
	spin_init(&leaf1, RANK_LEAF);
	spin_init(&leaf2, RANK_LEAF);
	spin_init(&ilock, RANK_I_LOCK);
	spin_init(&list, RANK_CACHE_LIST);

	rwsem_down_write(&dir1);
	rwsem_down_read(&dir2);
	rank_enter(RANK_HANDLE);
	mutex_lock(&buf1);
	mutex_lock(&buf2);
	assert_rank_below(RANK_NOSLEEP);
	spin_lock(&leaf1);
	spin_lock(&leaf2);
	rank_exit(RANK_HANDLE);
	rwsem_up_write(&dir1);
	mutex_unlock(&buf1);
	spin_lock(&list);
	/* The LRU scan goes against the order, with a trylock. */
	assert_true(spin_trylock(&ilock));
	spin_unlock(&list);
	spin_unlock(&leaf2);
	rwsem_up_read(&dir2);
	mutex_unlock(&buf2);
	spin_unlock(&ilock);
	spin_unlock(&leaf1);
	assert_rank_below(RANK_S_UMOUNT);
	/* Nothing is left on the stack: the outermost may be taken again. */
	rwsem_down_write(&dir1);
	rwsem_up_write(&dir1);
}

static int nr_stat_lines;
static bool saw_group;

static void stat_line(enum log_level level, const char *line, void *priv)
{
	nr_stat_lines++;
	if (strstr(line, "lock group: taken 3, contended 0, waited 0 ns"))
		saw_group = true;
}

static void test_statistics_are_told(void **state)
{
	struct spinlock group;

	spin_init(&group, RANK_GROUP);
	for (int i = 0; i < 3; i++) {
		spin_lock(&group);
		spin_unlock(&group);
	}
	log_set_sink(stat_line, NULL);
	lock_stats_dump();
	log_set_sink(NULL, NULL);
#ifdef SLUICE_DEBUG_LOCKS
	assert_true(saw_group);
#else
	assert_int_equal(nr_stat_lines, 1);
#endif
	spin_destroy(&group);
}

#ifdef SLUICE_DEBUG_LOCKS
static struct mutex outer;
static struct spinlock inner;

static void invert(void *arg)
{
	spin_lock(&inner);
	mutex_lock(&outer);
}

static void same_rank(void *arg)
{
	struct spinlock other;

	spin_init(&other, RANK_I_LOCK);
	spin_lock(&inner);
	spin_lock(&other);
}

static void take_twice(void *arg)
{
	rwsem_down_read(&rw);
	rwsem_down_read(&rw);
}

static void unlock_foreign(void *arg)
{
	mutex_unlock(&outer);
}

static void pseudo_invert(void *arg)
{
	mutex_lock(&outer);
	rank_enter(RANK_HANDLE);
}

static void pseudo_exit_without_enter(void *arg)
{
	rank_exit(RANK_HANDLE);
}

static void after_trylock(void *arg)
{
	if (spin_trylock(&inner))
		mutex_lock(&outer);
}

static void assert_not_held(void *arg)
{
	assert_mutex_held(&outer);
}

static void assert_read_is_not_write(void *arg)
{
	rwsem_down_read(&rw);
	assert_rwsem_held(&rw);
	assert_rwsem_held_write(&rw);
}

static void rank_not_below(void *arg)
{
	spin_lock(&inner);
	assert_rank_below(RANK_NOSLEEP);
}

static void sleeping_lock_in_rcu(void *arg)
{
	rcu_read_lock();
	mutex_lock(&outer);
}

/* The message for a lock that is taken too late. */
static const char *taken_while(const char *name, int rank, const char *held, int held_rank)
{
	static char text[128];

	snprintf(text, sizeof(text), "%s (rank %d) taken while holding %s (rank %d)", name,
		 rank, held, held_rank);
	return text;
}

static void test_debug_build_aborts(void **state)
{
	char held[64];

	mutex_init(&outer, RANK_I_DATA);
	spin_init(&inner, RANK_I_LOCK);
	rwsem_init(&rw, RANK_I_RWSEM);
	expect_abort(invert, NULL,
		     taken_while("i_data", RANK_I_DATA, "i_lock", RANK_I_LOCK));
	expect_abort(same_rank, NULL,
		     taken_while("i_lock", RANK_I_LOCK, "i_lock", RANK_I_LOCK));
	expect_abort(take_twice, NULL, "taken twice");
	expect_abort(unlock_foreign, NULL, "does not hold it");
	expect_abort(pseudo_invert, NULL,
		     taken_while("handle", RANK_HANDLE, "i_data", RANK_I_DATA));
	expect_abort(pseudo_exit_without_enter, NULL, "does not hold it");
	expect_abort(after_trylock, NULL, "while holding i_lock");
	expect_abort(assert_not_held, NULL, "is not held");
	expect_abort(assert_read_is_not_write, NULL, "not held exclusively");
	snprintf(held, sizeof(held), "i_lock (rank %d) held where", RANK_I_LOCK);
	expect_abort(rank_not_below, NULL, held);
	expect_abort(sleeping_lock_in_rcu, NULL, "RCU read-side");
	mutex_destroy(&outer);
	spin_destroy(&inner);
	rwsem_destroy(&rw);
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
#ifdef SLUICE_DEBUG_LOCKS
		cmocka_unit_test(test_debug_build_aborts),
#endif
		cmocka_unit_test(test_mutex_excludes),
		cmocka_unit_test(test_spinlock_excludes),
		cmocka_unit_test(test_rwsem_excludes),
		cmocka_unit_test(test_rwsem_readers_share_and_writers_do_not),
		cmocka_unit_test(test_rwsem_starves_no_writer),
		cmocka_unit_test(test_rwsem_starves_no_reader),
		cmocka_unit_test(test_mutex_loses_no_wake_up),
		cmocka_unit_test(test_spinlock_loses_no_wake_up),
		cmocka_unit_test(test_rwsem_loses_no_wake_up),
		cmocka_unit_test(test_only_a_contended_lock_hands_over),
		cmocka_unit_test(test_zeroed_locks_work_unranked),
		cmocka_unit_test(test_allowed_orders_pass),
		cmocka_unit_test(test_statistics_are_told),
	};

	thread_register();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
