/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/daemonize.c - the parent waits until the mount stands, the child serves
 *
 * A pipe carries one byte, the exit code. Its end without a byte means that
 * the child died. If nothing was mounted the parent also waits for the child's
 * end, so that nothing of it is left when the command returns.
 *
 * Locks: none. Threads: the main thread, before any other exists (fork), or
 * any (report, detach).
 */
#include "src/daemonize.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/log.h"
#include "src/options.h"

static void __attribute__((noreturn)) wait_for_report(int fd, pid_t child)
{
	unsigned char code;
	int status = 0; /* where SIGCHLD is ignored there is none to be had */
	ssize_t n;

	do
		n = read(fd, &code, 1);
	while (n < 0 && errno == EINTR);
	if (n == 1 && code == EXIT_CODE_OK)
		_exit(code);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (n == 1)
		_exit(code);
	if (WIFSIGNALED(status))
		log_err("the daemon was killed by signal %d (%s)",
			WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		log_err("the daemon ended unexpectedly");
	_exit(EXIT_CODE_INTERNAL);
}

int daemonize_fork(int *report)
{
	int fds[2];
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	pid = fork();
	if (pid < 0) {
		int err = -errno;

		close(fds[0]);
		close(fds[1]);
		return err;
	}
	if (pid) {
		close(fds[1]);
		wait_for_report(fds[0], pid);
	}
	close(fds[0]);
	*report = fds[1];
	return 0;
}

void daemonize_report(int report, int code)
{
	unsigned char byte = (unsigned char)code;

	if (report < 0)
		return;
	/* A parent that was interrupted reads no more: SIGPIPE is ignored. */
	while (write(report, &byte, 1) < 0 && errno == EINTR)
		;
	close(report);
}

int daemonize_detach(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int err = 0;

	if (null < 0)
		return -errno;
	if (setsid() < 0 && errno != EPERM) /* EPERM: we lead one already */
		err = -errno;
	if (!err && chdir("/") < 0)
		err = -errno;
	for (int fd = 0; fd <= 2 && !err; fd++)
		if (dup2(null, fd) < 0)
			err = -errno;
	if (null > 2)
		close(null);
	return err;
}
