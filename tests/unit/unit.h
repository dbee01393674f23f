/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/unit.h - what every unit test includes first: cmocka and helpers
 *
 * cmocka.h wants four system headers before it. expect_abort() runs a function
 * in a child process, for the checks that end the program.
 */
#ifndef SLUICE_TESTS_UNIT_H
#define SLUICE_TESTS_UNIT_H

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "lib/log.h"
#include "lib/thread.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* cmocka's asserts jump, so they are for the thread of the test; this is for any. */
#define CHECK(cond)                                                            \
	do {                                                                   \
		if (!(cond)) {                                                 \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__,     \
				#cond);                                        \
			abort();                                               \
		}                                                              \
	} while (0)

/* The setup of a group whose tests mount volumes: what is logged shows up when it is an
 * error, or all of it with SL_DEBUG in the environment. */
static inline int unit_setup(void **state)
{
	(void)state;
	log_init("test", getenv("SL_DEBUG") ? LOG_LVL_DEBUG : LOG_LVL_ERR);
	thread_register();
	return 0;
}

/*
 * Runs fn(arg) in a child; fails the test unless that ends by abort() and has
 * written `message` to stderr. Call it before the test starts threads.
 */
static inline void expect_abort(void (*fn)(void *arg), void *arg,
				const char *message)
{
	char text[4096] = "";
	size_t len = 0;
	int fds[2];
	int status;
	ssize_t n;
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct rlimit no_core = { 0, 0 };

		setrlimit(RLIMIT_CORE, &no_core);
		signal(SIGABRT, SIG_DFL);
		dup2(fds[1], STDERR_FILENO);
		fn(arg);
		_exit(0);
	}
	close(fds[1]);
	while (len < sizeof(text) - 1 &&
	       (n = read(fds[0], text + len, sizeof(text) - 1 - len)) > 0)
		len += (size_t)n;
	text[len] = '\0';
	close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT ||
	    !strstr(text, message))
		fail_msg("status 0x%x, stderr: %s", (unsigned)status, text);
}

#endif
