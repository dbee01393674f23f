/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lib/log.h - messages: to stderr until the daemon has detached, then to syslog
 *
 * A message says what happened, in which object (inode, block, group with
 * their numbers) and what is done about it. An error is logged once, where it
 * is understood. Each call is one line; no trailing newline.
 * Threads: any. Locks: none visible; never blocks on the file system.
 */
#ifndef SLUICE_LIB_LOG_H
#define SLUICE_LIB_LOG_H

#include "lib/types.h"

enum log_level { LOG_LVL_ERR, LOG_LVL_WARN, LOG_LVL_INFO, LOG_LVL_DEBUG };

/* Prefix of each line, usually "sluice"; copied. Call once at start. */
void log_init(const char *ident, enum log_level max_level);
void log_set_level(enum log_level max_level);
/* From now on to syslog(3) (facility daemon) in place of stderr. */
void log_use_syslog(void);
/*
 * Test hook: every line goes to sink(level, line, priv) in place of the
 * normal target; NULL restores the normal target. One call at a time; the
 * sink must not log. After the return the previous sink runs no more.
 */
void log_set_sink(void (*sink)(enum log_level, const char *line, void *priv),
		  void *priv);

/*
 * What this thread logs as an error or warning is put into buf, too, as lines with a final
 * '\0', until log_capture_end(): for who asked for what it is about. What does not fit
 * is left out. Not nested.
 */
void log_capture_begin(char *buf, size_t size);
void log_capture_end(void);

void log_msg(enum log_level level, const char *fmt, ...) __printf_like(2, 3);

/* Lines of LOG_LVL_ERR so far, in this process. Was a failure told by those
 * who know more? */
u64 log_error_lines(void);

#define log_err(...) log_msg(LOG_LVL_ERR, __VA_ARGS__)
#define log_warn(...) log_msg(LOG_LVL_WARN, __VA_ARGS__)
#define log_info(...) log_msg(LOG_LVL_INFO, __VA_ARGS__)
#define log_debug(...) log_msg(LOG_LVL_DEBUG, __VA_ARGS__)

/*
 * For messages a client or a hostile image can trigger again and again:
 * at most `burst` lines per window of `interval_s` seconds (it opens with the
 * first line after the last one closed) for one struct; the number suppressed
 * is told with the next line let through. Zero-initialised, static.
 */
struct log_ratelimit {
	_Atomic u64 window_start_s; /* [atomic] */
	_Atomic u32 printed;        /* [atomic] */
	_Atomic u32 missed;         /* [atomic] */
};
bool log_ratelimit_ok(struct log_ratelimit *rl, u32 burst, u32 interval_s);

#define log_ratelimited(level, ...)                                            \
	do {                                                                   \
		static struct log_ratelimit rl_;                               \
		if (log_ratelimit_ok(&rl_, 10, 5))                             \
			log_msg(level, __VA_ARGS__);                           \
	} while (0)

#endif
