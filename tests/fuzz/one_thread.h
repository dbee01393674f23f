/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/fuzz/one_thread.h - the daemon's threads as fibers of one thread
 *
 * For programs that link one_thread.c; it replaces lib/thread.h's threads and all that
 * they wait for. Called by the first fiber, the program itself.
 */
#ifndef SLUICE_TESTS_ONE_THREAD_H
#define SLUICE_TESTS_ONE_THREAD_H

#include "lib/types.h"

/* Lets the others run until each of them waits. */
void one_thread_rest(void);
/* The same, with the clock that much further on: who waits for a time runs. */
void one_thread_later(u64 ns);

#endif
