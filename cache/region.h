/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/region.h - buffers whose memory the page cache can take over
 *
 * A region is a range of pages. Somebody holds it and lets data come in there;
 * whole pages of it may then become folios without a copy, each owning
 * its part. It lives until the holder and all owners of parts are done with it,
 * then it waits, its memory still warm, for the next holder.
 *
 *   holder:  region_get ... region_note ... region_put
 *   parts:   region_take (while it is held) ... region_release, region_release_end
 *
 * Page 0 is the holder's alone (what precedes the data). Of the others those that are
 * in memory and nobody's part give their memory back as soon as the region has parts
 * and no holder: so a part costs the memory it is charged for, however long it
 * keeps the region. Page 0 stays, and is charged to nobody.
 *
 * Alive: a pool outlives its regions. Locks: the pool's, RANK_CACHE_LIST, with
 * nothing inside. Threads: any; what says "holder" is for one at a time.
 */
#ifndef SLUICE_CACHE_REGION_H
#define SLUICE_CACHE_REGION_H

#include "lib/types.h"

#define REGION_PAGE 4096u

struct budget;
struct region;
struct region_pool;

/* Regions of `bytes` bytes, rounded up to pages; those that wait keep `keep` bytes in
 * memory at most, all together. NULL: no memory. */
struct region_pool *region_pool_new(size_t bytes, size_t keep);
/* Every region must have come back. NULL is allowed. */
void region_pool_free(struct region_pool *pool);
/*
 * Once: regions are of the zones of that budget (cache/zone.h), of which none was made
 * before but in zone 0, and the memory of those that wait is charged, as BUDGET_FOLIO: it is the next
 * folios'; up to a quarter of the limit of it is kept. Until
 * region_pool_unbind(), which also gives that memory back.
 */
void region_pool_bind(struct region_pool *pool, struct budget *budget);
void region_pool_unbind(struct region_pool *pool);
/* Gives `bytes` of that memory of a zone back, if there is so much; returns how much. */
u64 region_pool_shrink(struct region_pool *pool, u32 zone, u64 bytes);

/* A region, held. populate: if it has to be made, so many bytes of it are in memory
 * at once, which is cheaper than a fault for each page. NULL: no memory. */
struct region *region_get(struct region_pool *pool, size_t populate);
/* Holder: has done with it. */
void region_put(struct region *r);
u32 region_zone(const struct region *r);
/* Holder: its memory, page-aligned. */
void *region_memory(const struct region *r);
/* Holder: the first `bytes` bytes may be in memory now. */
void region_note(struct region *r, size_t bytes);
/* Holder: bytes that may be in memory. */
size_t region_resident(const struct region *r);
/* Holder: gives the memory of all pages back; it has no parts. */
void region_trim(struct region *r);
/* Holder: has it parts now, or had it any a moment ago? */
bool region_has_parts(const struct region *r);

/* Holder: are whole pages of it, not page 0, nobody's part? They stay so until he
 * makes them one. */
bool region_is_free(const struct region *r, const void *p, size_t bytes);
/* While it is held: whole pages of it, not page 0, which are nobody's, become
 * somebody's part. */
void region_take(struct region *r, const void *p, size_t bytes);
/*
 * The part's owner has done with it. To be called for several parts in a row with the
 * same *last, NULL at first, and then region_release_end(): what goes
 * together then stays together.
 */
void region_release(struct region **last, struct region *r, const void *p,
		    size_t bytes);
void region_release_end(struct region **last);

#endif
