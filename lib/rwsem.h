/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lib/rwsem.h - the reader/writer lock below struct rwsem of lib/lock.h
 *
 * Many share it, or one has it alone. Who finds it free takes it, also past others
 * that wait, so that a lock is never idle because the next in line has no CPU.
 * But nobody waits long for that: once the first in line has waited for
 * RWSEM_PATIENCE_NS, nobody passes it any more, neither readers a writer nor
 * writers a reader. Readers that follow each other in line come in together.
 *
 * No recursion, no upgrade; released by any thread. Valid when zeroed. Who
 * releases it keeps it in memory until the call has returned.
 * Locks: a small one of its own. Threads: any. A wait calls thread_blocks_begin().
 */
#ifndef SLUICE_LIB_RWSEM_H
#define SLUICE_LIB_RWSEM_H

#include "lib/types.h"

#define RWSEM_PATIENCE_NS 2000000ull

struct rwsem_waiter;

struct rwsem_raw {
	_Atomic u32 word;  /* who has it, who wants it [atomic] */
	_Atomic u32 qlock; /* 0, 1: taken, 2: and wanted [atomic] */
	struct rwsem_waiter *head, *tail; /* [qlock] in line */
};

/* Never waits. */
bool rwsem_raw_try_read(struct rwsem_raw *rw);
bool rwsem_raw_try_write(struct rwsem_raw *rw);
/* Waits; for who has tried. */
void rwsem_raw_wait(struct rwsem_raw *rw, bool write);
void rwsem_raw_up_read(struct rwsem_raw *rw);
void rwsem_raw_up_write(struct rwsem_raw *rw);
/* Nobody has it or waits for it. */
bool rwsem_raw_is_idle(const struct rwsem_raw *rw);

#endif
