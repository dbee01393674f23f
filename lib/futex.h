/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lib/futex.h - sleep as long as a word has a value; wake who sleeps there
 *
 * For locks only (wordlock.c, rwsem.c); everybody else waits by lib/wait.h.
 *
 * Locks: none. Threads: any, of this process.
 */
#ifndef SLUICE_LIB_FUTEX_H
#define SLUICE_LIB_FUTEX_H

#include "lib/types.h"

#include <linux/futex.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* timeout_ns 0: none. Returns early when it likes. */
static inline void futex_wait(_Atomic u32 *addr, u32 value, u64 timeout_ns)
{
	struct timespec ts = { .tv_sec = (time_t)(timeout_ns / 1000000000u),
			       .tv_nsec = (long)(timeout_ns % 1000000000u) };

	(void)syscall(SYS_futex, addr, FUTEX_WAIT_PRIVATE, value,
		      timeout_ns ? &ts : NULL, NULL, 0);
}

/* One of them. The word may be freed memory by now: who sleeps on what is there
 * since is woken for nothing, which he must bear. */
static inline void futex_wake(_Atomic u32 *addr)
{
	(void)syscall(SYS_futex, addr, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* In a loop that waits for another CPU. */
static inline void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#endif
}

#endif
