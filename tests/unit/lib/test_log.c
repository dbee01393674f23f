/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/lib/test_log.c - messages: filter, shape of a line, rate limit
 */
#include "tests/unit/unit.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>

#include "lib/log.h"
#include "lib/thread.h"

struct record {
	int lines;
	enum log_level level;
	char last[4096];
	char before_last[4096];
};

static struct record rec;

static void keep(enum log_level level, const char *line, void *priv)
{
	struct record *r = priv;

	r->lines++;
	r->level = level;
	memcpy(r->before_last, r->last, sizeof(r->last));
	snprintf(r->last, sizeof(r->last), "%s", line);
}

static int with_sink(void **state)
{
	memset(&rec, 0, sizeof(rec));
	log_init("test", LOG_LVL_INFO);
	log_set_sink(keep, &rec);
	return 0;
}

static int without_sink(void **state)
{
	log_set_sink(NULL, NULL);
	return 0;
}

static void test_level_filters(void **state)
{
	log_debug("not seen");
	assert_int_equal(rec.lines, 0);
	log_info("inode %d", 12);
	assert_int_equal(rec.lines, 1);
	assert_string_equal(rec.last, "inode 12");
	assert_int_equal(rec.level, LOG_LVL_INFO);
	log_set_level(LOG_LVL_ERR);
	log_warn("not seen");
	assert_int_equal(rec.lines, 1);
	log_err("seen");
	assert_int_equal(rec.lines, 2);
	assert_int_equal(rec.level, LOG_LVL_ERR);
	log_set_level(LOG_LVL_DEBUG);
	log_debug("seen too");
	assert_string_equal(rec.last, "seen too");
}

static void test_control_characters_cannot_forge_a_line(void **state)
{
	log_info("name '%s'", "a\nsluice: b\r\x1b[2J\x7f");
	assert_string_equal(rec.last, "name 'a?sluice: b??[2J?'");
	log_info("%s", "gr\xc3\xbc\xc3\x9f");
	assert_string_equal(rec.last, "gr\xc3\xbc\xc3\x9f");
}

static void test_long_line_is_cut_with_a_mark(void **state)
{
	char text[3000];
	size_t len;

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	log_info("%s", text);
	len = strlen(rec.last);
	assert_true(len > 500);
	assert_true(len < 2000);
	assert_string_equal(rec.last + len - 4, "x...");
}

static void test_errno_survives(void **state)
{
	errno = ENOTDIR;
	log_info("anything");
	assert_int_equal(errno, ENOTDIR);
}

static void test_stderr_gets_prefix_and_newline(void **state)
{
	char text[256] = "";
	int fds[2];
	int saved;

	log_set_sink(NULL, NULL);
	assert_int_equal(pipe(fds), 0);
	saved = dup(STDERR_FILENO);
	dup2(fds[1], STDERR_FILENO);
	log_warn("group %u", 7u);
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(fds[1]);
	assert_true(read(fds[0], text, sizeof(text) - 1) > 0);
	close(fds[0]);
	assert_string_equal(text, "test: group 7\n");
}

static void test_rate_limit_lets_a_burst_through_and_tells_the_rest(void **state)
{
	static struct log_ratelimit rl;

	for (int i = 0; i < 10; i++)
		assert_true(log_ratelimit_ok(&rl, 10, 3600));
	for (int i = 0; i < 25; i++)
		assert_false(log_ratelimit_ok(&rl, 10, 3600));
	assert_int_equal(rec.lines, 0);
	/* Interval 0: the window is over, at once. */
	assert_true(log_ratelimit_ok(&rl, 10, 0));
	assert_int_equal(rec.lines, 1);
	assert_non_null(strstr(rec.last, "25 messages suppressed"));
	assert_true(log_ratelimit_ok(&rl, 10, 3600));
	assert_int_equal(rec.lines, 1);
}

static void test_ratelimited_macro_limits_its_own_place(void **state)
{
	for (int i = 0; i < 100; i++)
		log_ratelimited(LOG_LVL_WARN, "line %d", i);
	/* Two windows at most, if the five seconds end just here. */
	assert_in_range(rec.lines, 10, 21);
	assert_int_equal(rec.level, LOG_LVL_WARN);
	log_ratelimited(LOG_LVL_WARN, "elsewhere");
	assert_string_equal(rec.last, "elsewhere");
}

static struct log_ratelimit shared_limit;
static _Atomic int nr_ok;

static void test_error_lines_are_counted(void **state)
{
	u64 before = log_error_lines();

	log_warn("not one");
	assert_int_equal(log_error_lines() - before, 0);
	log_err("one");
	log_err("another");
	assert_int_equal(log_error_lines() - before, 2);
}

static void limited_thread(void *arg)
{
	for (int i = 0; i < 1000; i++)
		if (log_ratelimit_ok(&shared_limit, 50, 3600))
			atomic_fetch_add(&nr_ok, 1);
}

static void test_rate_limit_is_exact_among_threads(void **state)
{
	struct thread *t[4];

	for (int i = 0; i < 4; i++)
		assert_int_equal(thread_create(&t[i], "limited", limited_thread,
					       NULL), 0);
	for (int i = 0; i < 4; i++)
		thread_join(t[i]);
	/* Missed lines told later are none of these. */
	assert_int_equal(atomic_load(&nr_ok), 50);
	assert_int_equal(atomic_load(&shared_limit.missed), 3950);
}

static void chatty_thread(void *arg)
{
	for (int i = 0; i < 500; i++)
		log_info("%s", "0123456789");
}

static void test_lines_of_threads_do_not_mix(void **state)
{
	struct thread *t[4];

	for (int i = 0; i < 4; i++)
		assert_int_equal(thread_create(&t[i], "chatty", chatty_thread,
					       NULL), 0);
	for (int i = 0; i < 4; i++)
		thread_join(t[i]);
	assert_int_equal(rec.lines, 2000);
	assert_string_equal(rec.last, "0123456789");
	assert_string_equal(rec.before_last, "0123456789");
}

#define LOG_TEST(f) cmocka_unit_test_setup_teardown(f, with_sink, without_sink)

int main(void)
{
	const struct CMUnitTest tests[] = {
		LOG_TEST(test_level_filters),
		LOG_TEST(test_control_characters_cannot_forge_a_line),
		LOG_TEST(test_long_line_is_cut_with_a_mark),
		LOG_TEST(test_errno_survives),
		LOG_TEST(test_error_lines_are_counted),
		LOG_TEST(test_stderr_gets_prefix_and_newline),
		LOG_TEST(test_rate_limit_lets_a_burst_through_and_tells_the_rest),
		LOG_TEST(test_ratelimited_macro_limits_its_own_place),
		LOG_TEST(test_rate_limit_is_exact_among_threads),
		LOG_TEST(test_lines_of_threads_do_not_mix),
	};

	thread_register();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
