/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lib/log.c - messages: to stderr until the daemon has detached, then to syslog
 *
 * A line is made in a buffer on the stack and leaves in one write(2), so lines
 * of several threads do not mix. Control characters become '?': a name from a
 * hostile image can neither start a line of its own nor drive a terminal.
 *
 * Locks:   target_lock (a plain pthread mutex, inside every ranked lock, for
 *          lock.c itself logs): the sink; held while the sink runs.
 *          limit_lock: the windows of all rate limits; nothing is called in it.
 * Never:   memory allocation; a call into the rest of the program but the sink
 * Threads: any
 */
#include "lib/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#define LOG_LINE_MAX 1024
#define LOG_IDENT_MAX 32

static char log_ident[LOG_IDENT_MAX] = "sluice"; /* [const after log_init] */
static _Atomic int log_max_level = LOG_LVL_INFO; /* [atomic] */
static _Atomic bool log_to_syslog;		 /* [atomic] */
static _Atomic u64 nr_error_lines;		 /* [atomic] */

static pthread_mutex_t target_lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic bool log_has_sink; /* [write target_lock] */
/* [target_lock] */
static void (*log_sink)(enum log_level, const char *line, void *priv);
static void *log_sink_priv; /* [target_lock] */

/* Of this thread: see log_capture_begin(). */
static _Thread_local char *capture;
static _Thread_local size_t capture_left; /* bytes, with that for the final '\0' */

static pthread_mutex_t limit_lock = PTHREAD_MUTEX_INITIALIZER;

void log_init(const char *ident, enum log_level max_level)
{
	snprintf(log_ident, sizeof(log_ident), "%s", ident);
	log_set_level(max_level);
}

void log_set_level(enum log_level max_level)
{
	/* Relaxed: a filter only; nothing is ordered by it. */
	atomic_store_explicit(&log_max_level, (int)max_level,
			      memory_order_relaxed);
}

void log_use_syslog(void)
{
	openlog(log_ident, LOG_PID, LOG_DAEMON);
	atomic_store(&log_to_syslog, true);
}

void log_set_sink(void (*sink)(enum log_level, const char *line, void *priv),
		  void *priv)
{
	pthread_mutex_lock(&target_lock);
	log_sink = sink;
	log_sink_priv = priv;
	atomic_store(&log_has_sink, sink != NULL);
	pthread_mutex_unlock(&target_lock);
}

void log_capture_begin(char *buf, size_t size)
{
	buf[0] = '\0';
	capture = buf;
	capture_left = size;
}

void log_capture_end(void)
{
	capture = NULL;
}

static void add_to_capture(const char *line)
{
	size_t len = strlen(line);

	if (len + 2 > capture_left)
		return;
	memcpy(capture, line, len);
	memcpy(capture + len, "\n", 2);
	capture += len + 1;
	capture_left -= len + 1;
}

u64 log_error_lines(void)
{
	return atomic_load(&nr_error_lines);
}

static int syslog_priority(enum log_level level)
{
	switch (level) {
	case LOG_LVL_ERR:
		return LOG_ERR;
	case LOG_LVL_WARN:
		return LOG_WARNING;
	case LOG_LVL_INFO:
		return LOG_INFO;
	case LOG_LVL_DEBUG:
		return LOG_DEBUG;
	}
	return LOG_ERR;
}

/* Replaces what is not text; bytes from 0x80 on pass (UTF-8 names). */
static void clean_line(char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			*s = '?';
}

static void write_stderr(const char *line)
{
	char out[LOG_LINE_MAX + LOG_IDENT_MAX + 8];
	int len = snprintf(out, sizeof(out), "%s: %s\n", log_ident, line);
	const char *p = out;

	while (len > 0) {
		ssize_t n = write(STDERR_FILENO, p, (size_t)len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return; /* nowhere left to tell it */
		p += n;
		len -= (int)n;
	}
}

static bool give_to_sink(enum log_level level, const char *line)
{
	bool given = false;

	if (!atomic_load(&log_has_sink))
		return false;
	pthread_mutex_lock(&target_lock);
	if (log_sink) {
		log_sink(level, line, log_sink_priv);
		given = true;
	}
	pthread_mutex_unlock(&target_lock);
	return given;
}

void log_msg(enum log_level level, const char *fmt, ...)
{
	int saved_errno = errno;
	char line[LOG_LINE_MAX];
	va_list ap;
	int len;

	if ((int)level >
	    atomic_load_explicit(&log_max_level, memory_order_relaxed))
		return;
	if (level == LOG_LVL_ERR)
		atomic_fetch_add(&nr_error_lines, 1);
	va_start(ap, fmt);
	/* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): started above */
	len = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (len < 0)
		snprintf(line, sizeof(line), "(message not printable: %s)",
			 fmt);
	else if ((size_t)len >= sizeof(line))
		memcpy(line + sizeof(line) - 4, "...", 4);
	clean_line(line);
	if (capture && level <= LOG_LVL_WARN)
		add_to_capture(line);

	if (!give_to_sink(level, line)) {
		if (atomic_load(&log_to_syslog))
			syslog(syslog_priority(level), "%s", line);
		else
			write_stderr(line);
	}
	errno = saved_errno;
}

/* Seconds of CLOCK_MONOTONIC plus one: 0 means that no window was opened. */
static u64 limit_clock(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	return (u64)ts.tv_sec + 1;
}

static bool window_open(struct log_ratelimit *rl, u64 now, u32 interval_s)
{
	u64 start = atomic_load(&rl->window_start_s);

	return start && now - start < interval_s;
}

/*
 * The common case of a flood, an open window that is used up, takes no lock.
 * It may count a line as missed that a window opened at this moment would
 * have let through; it never lets one through that should be suppressed.
 */
bool log_ratelimit_ok(struct log_ratelimit *rl, u32 burst, u32 interval_s)
{
	u64 now = limit_clock();
	u32 missed = 0;
	bool ok;

	if (window_open(rl, now, interval_s) &&
	    atomic_load(&rl->printed) >= burst) {
		atomic_fetch_add(&rl->missed, 1);
		return false;
	}

	pthread_mutex_lock(&limit_lock);
	/* `now` may be older than a window opened by another thread. */
	if (now >= atomic_load(&rl->window_start_s) &&
	    !window_open(rl, now, interval_s)) {
		atomic_store(&rl->printed, 0);
		atomic_store(&rl->window_start_s, now);
	}
	ok = atomic_load(&rl->printed) < burst;
	if (ok) {
		atomic_fetch_add(&rl->printed, 1);
		missed = atomic_exchange(&rl->missed, 0);
	} else {
		atomic_fetch_add(&rl->missed, 1);
	}
	pthread_mutex_unlock(&limit_lock);

	if (missed)
		log_warn("%u messages suppressed before the next line", missed);
	return ok;
}
