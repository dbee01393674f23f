/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/sim/resource.h - one request for memory or space fails, on demand
 *
 * The simulator is linked with --wrap for what the file system asks for memory
 * (the malloc family, mmap for its pools, hash tables, threads) and for space
 * (blocks, reservations, inodes). While armed, calls of all threads that are
 * not exempt are counted, and the nth fails once, without having changed
 * anything. The harness exempts its own code.
 *
 * Locks: none (atomic counters).
 */
#ifndef SLUICE_SIM_RESOURCE_H
#define SLUICE_SIM_RESOURCE_H

#include "lib/types.h"

enum resource { RES_MEMORY, RES_SPACE, RES_NR };

#define RES_COUNT_ONLY UINT32_MAX

/* Where the call was that fails, on stderr. [const while armed] */
extern bool resource_trace;

/* The nth call from now on fails, counted from 1; 0 disarms and keeps count and hit. */
void resource_arm(enum resource res, u32 n);
/* Calls while armed. */
u32 resource_count(enum resource res);
/* Has a call failed since it was armed? */
bool resource_hit(enum resource res);
/* Nest. This thread only. */
void resource_exempt_begin(void);
void resource_exempt_end(void);

#endif
