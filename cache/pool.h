/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/pool.h - memory for objects of the caches: aligned units out of chunks
 *
 * Chunks of 256 KiB come straight from mmap and are cut into units of one
 * size (a power of two from 1 KiB to 64 KiB), so that a unit is as aligned as
 * its size (direct I/O wants that; malloc would waste as much again on it)
 * and freed memory goes back to the system. Each zone (cache/zone.h) has lists of
 * chunks, a few for each size; a unit goes back to the list it came from, and an empty
 * list takes from the others of its zone before it grows. Chunks of a zone lie on
 * its NUMA node, as far as that has memory.
 *
 * Locks: one per list, RANK_CACHE_LIST, with nothing inside. Threads: any.
 */
#ifndef SLUICE_CACHE_POOL_H
#define SLUICE_CACHE_POOL_H

#include "lib/types.h"

#define POOL_UNIT_MIN 1024u
#define POOL_UNIT_MAX (64u << 10)

struct mem_pool;
struct mem_chunk;

/*
 * keep: bytes of wholly free chunks that are kept of each size, one chunk at
 * least. zones, and lists of each for a size, at least 1. nodes: the NUMA node of each
 * zone, which the pool's user keeps; NULL: anywhere. NULL: no memory
 */
struct mem_pool *mem_pool_new(u64 keep, u32 zones, u32 lists, const int *nodes);
/* Every unit must have been freed. NULL is allowed. */
void mem_pool_free(struct mem_pool *pool);

/* bytes: a power of two in range. Not cleared. *chunk is to be given back with
 * the unit, and says in which zone it lies: in the one asked for, unless only
 * others have memory. NULL: no memory. */
void *mem_unit_alloc(struct mem_pool *pool, u32 bytes, u32 zone,
		     struct mem_chunk **chunk);
u32 mem_chunk_zone(const struct mem_chunk *chunk);
void mem_unit_free(struct mem_chunk *chunk, void *unit);
/* Gives the system back what it can of chunks in use: pages of units, smaller than a
 * page, that are all free. */
void mem_pool_trim(struct mem_pool *pool);
u32 mem_unit_bytes(const struct mem_chunk *chunk);

/* Pages of mapped memory that are not yet touched come from that NUMA node from now
 * on, if it has some. */
void mem_bind(void *base, size_t bytes, int node);

#endif
