/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/lib/test_thread.c - threads: what a new one finds, and the hooks
 */
#include "tests/unit/unit.h"

#include <pthread.h>

#include "lib/lock.h"
#include "lib/rcu.h"
#include "lib/thread.h"

struct seen {
	char name[32];
	sigset_t blocked;
	int rcu_ongoing;
	int ran;
};

static void look_around(void *arg)
{
	struct seen *s = arg;

	pthread_getname_np(pthread_self(), s->name, sizeof(s->name));
	pthread_sigmask(SIG_SETMASK, NULL, &s->blocked);
	rcu_read_lock();
	s->rcu_ongoing = rcu_read_ongoing();
	rcu_read_unlock();
	s->ran = 1;
}

static void test_new_thread_is_named_masked_and_registered(void **state)
{
	struct seen s = { .ran = 0 };
	struct thread *t;
	sigset_t before, mine;

	pthread_sigmask(SIG_SETMASK, NULL, &before);
	assert_int_equal(thread_create(&t, "look-around", look_around, &s), 0);
	thread_join(t);
	assert_int_equal(s.ran, 1);
	assert_string_equal(s.name, "look-around");
	assert_true(s.rcu_ongoing);
	assert_true(sigismember(&s.blocked, SIGTERM));
	assert_true(sigismember(&s.blocked, SIGHUP));
	/* The creator's own mask is as before. */
	pthread_sigmask(SIG_SETMASK, NULL, &mine);
	for (int sig = 1; sig < NSIG; sig++)
		assert_int_equal(sigismember(&mine, sig), sigismember(&before, sig));
}

static void test_long_name_is_cut(void **state)
{
	struct seen s = { .ran = 0 };
	struct thread *t;

	assert_int_equal(thread_create(&t, "a-name-of-more-than-15", look_around,
				       &s), 0);
	thread_join(t);
	assert_string_equal(s.name, "a-name-of-more-");
}

static void *foreign_thread(void *arg)
{
	struct seen *s = arg;

	thread_register();
	thread_register();
	look_around(s);
	thread_unregister();
	thread_unregister();
	return NULL;
}

static void test_registration_is_idempotent(void **state)
{
	struct seen s = { .ran = 0 };
	pthread_t t;

	assert_int_equal(pthread_create(&t, NULL, foreign_thread, &s), 0);
	pthread_join(t, NULL);
	assert_int_equal(s.ran, 1);
	assert_true(s.rcu_ongoing);
}

static void test_cpu_numbers_stay_below_their_count(void **state)
{
	unsigned nr = thread_nr_cpus();

	assert_true(nr >= 1);
	assert_int_equal(thread_nr_cpus(), nr);
	for (int i = 0; i < 1000; i++)
		assert_true(thread_cpu() < nr);
}

static char calls[64];

/* A hook that itself waits must not call itself. */
static void note_begin(void *priv)
{
	strcat(calls, priv);
	strcat(calls, "(");
	thread_blocks_begin();
	thread_blocks_end();
}

static void note_end(void *priv)
{
	thread_blocks_begin();
	thread_blocks_end();
	strcat(calls, ")");
}

static void test_only_the_outermost_wait_calls_the_hook(void **state)
{
	const struct thread_block_hook hook = {
		.begin = note_begin, .end = note_end, .priv = "a"
	};

	calls[0] = '\0';
	thread_blocks_begin();
	thread_blocks_end();
	assert_string_equal(calls, "");

	thread_set_block_hook(&hook);
	thread_blocks_begin();
	thread_blocks_begin();
	thread_blocks_end();
	assert_string_equal(calls, "a(");
	thread_blocks_end();
	assert_string_equal(calls, "a()");
	thread_blocks_begin();
	thread_blocks_end();
	assert_string_equal(calls, "a()a()");

	thread_set_block_hook(NULL);
	thread_blocks_begin();
	thread_blocks_end();
	assert_string_equal(calls, "a()a()");
}

static void test_a_hook_is_of_one_thread(void **state)
{
	const struct thread_block_hook hook = {
		.begin = note_begin, .end = note_end, .priv = "b"
	};
	struct seen s = { .ran = 0 };
	struct thread *t;

	calls[0] = '\0';
	assert_int_equal(thread_create(&t, "other", look_around, &s), 0);
	thread_set_block_hook(&hook);
	thread_join(t); /* a wait of this thread */
	thread_set_block_hook(NULL);
	assert_string_equal(calls, "b()");
}

static void test_might_block_allows_sleeping_locks(void **state)
{
	struct mutex m;

	mutex_init(&m, RANK_I_DATA);
	thread_might_block();
	mutex_lock(&m);
	thread_might_block();
	mutex_unlock(&m);
	mutex_destroy(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			test_new_thread_is_named_masked_and_registered),
		cmocka_unit_test(test_long_name_is_cut),
		cmocka_unit_test(test_registration_is_idempotent),
		cmocka_unit_test(test_cpu_numbers_stay_below_their_count),
		cmocka_unit_test(test_only_the_outermost_wait_calls_the_hook),
		cmocka_unit_test(test_a_hook_is_of_one_thread),
		cmocka_unit_test(test_might_block_allows_sleeping_locks),
	};

	thread_register();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
