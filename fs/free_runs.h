/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/free_runs.h - the free runs of one group, by place and by length
 *
 * A summary over two bit maps, the block bitmap and the map of what is held
 * back (pending frees, claims; may be NULL): a block is free if its bit is
 * clear in both. The maps stay the truth. The summary cuts the group into at
 * most 64 slices and knows of each how many blocks are free at its start, at
 * its end, and in its longest run; so its size does not depend on how badly
 * the group is fragmented.
 *
 *     slice    |....XX..X.|XXXXXXXXXX|..........|...
 *     head       4          0          10
 *     tail       1          0          10
 *     best       4          0          10
 *
 * Whoever changes one of the maps says where (free_runs_touch()); slices are
 * read again when somebody next asks. Ranges are half open, in blocks of the
 * group.
 *
 * Locks: none; the caller holds the lock of the maps (group lock)
 */
#ifndef SLUICE_FS_FREE_RUNS_H
#define SLUICE_FS_FREE_RUNS_H

#include "lib/types.h"

#define FREE_RUNS_SLICES 64u

struct free_slice {
	u16 head, tail, best;
};

struct free_runs {
	u64 stale;   /* a bit per slice: to be read again */
	u32 nr;      /* blocks in the group */
	u32 longest; /* run, while nothing is stale */
	u8 shift;    /* blocks of a slice: 1 << shift */
	struct free_slice s[FREE_RUNS_SLICES];
};

/* nr: blocks in the group, at least 1, at most 2^19. Everything is stale. */
void free_runs_init(struct free_runs *fr, u32 nr);

/* Bits of [off, off + len), not empty, have changed in one of the maps. */
void free_runs_touch(struct free_runs *fr, u32 off, u32 len);

/* Reads what is stale. The functions below want this done. */
void free_runs_refresh(struct free_runs *fr, const void *map, const void *held);

/*
 * Start of the first run of at least `enough` (> 0) that begins at or after
 * `from`; a run that contains `from` counts as beginning there. nr: none.
 */
u32 free_runs_find(const struct free_runs *fr, const void *map, const void *held,
		   u32 from, u32 enough);

/* Does the summary say what the maps say? Reads all of them. */
bool free_runs_check(const struct free_runs *fr, const void *map,
		     const void *held);

#endif
