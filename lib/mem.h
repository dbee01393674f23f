/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lib/mem.h - memory for those who must not fail half-way
 *
 * What is allocated before anything was changed returns -ENOMEM. What is
 * needed in the middle of a change to the volume would leave it half done, or
 * cost the journal: it waits for memory a while before it gives up.
 *
 * Locks: none; no spinlock may be held.
 */
#ifndef SLUICE_LIB_MEM_H
#define SLUICE_LIB_MEM_H

#include "lib/types.h"

/*
 * An allocation failed: waits (1, 2, 4, ... 512 ms), counts in *tries (0 at
 * first) and is true: try again. False, at once, after a second in all.
 */
bool mem_pause(int *tries);
/* As malloc(3) and calloc(3), with mem_pause() in between. */
void *malloc_patient(size_t bytes);
void *calloc_patient(size_t n, size_t bytes);

#endif
