/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/sim/oom.h - one allocation of the file system fails, on demand
 *
 * The simulator is linked with --wrap for malloc, calloc, realloc and
 * posix_memalign. While armed, calls of all threads that are not exempt are
 * counted, and the nth fails once. The harness exempts its own code.
 * Locks: none (an atomic counter).
 */
#ifndef SLUICE_SIM_OOM_H
#define SLUICE_SIM_OOM_H

#include "lib/types.h"

/* n: counted from 1; 0 disarms. */
void oom_arm(u32 n);
bool oom_hit(void);
/* Nest. This thread only. */
void oom_exempt_begin(void);
void oom_exempt_end(void);

#endif
