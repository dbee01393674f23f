/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/region.c - buffers whose memory the page cache can take over
 *
 * Two maps with a bit for each page: `live`, pages that are somebody's part, and
 * `resident`, pages that may be in memory. Live ones are taken by the holder only; so once
 * nobody holds the region, pages that are not live stay so, and settle() may
 * zap those which are resident. It has a reference meanwhile, for the last one
 * gone the region is somebody else's.
 *
 * Holder and owners meet like this: the holder stores held = false, then
 * looks at `live`; who releases clears his bits of `live`, then looks at
 * `held` (all seq_cst). One of the two sees the other's, and zaps.
 *
 * Locks:   pool->lock for the list of those that wait, RANK_CACHE_LIST; a charge inside
 * Alive:   refs: the holder, each part, each settle() at work
 * Never:   a system call under the lock
 * Threads: any
 */
#include "cache/region.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "cache/budget.h"
#include "cache/pool.h"
#include "cache/zone.h"
#include "lib/lock.h"
#include "lib/rcu.h"

/* Part of the budget that those that wait may have. */
#define IDLE_SHARE 4

struct region {
	struct region_pool *pool;    /* [const] */
	u32 zone;                    /* its memory is there [const] */
	char *base;                  /* [const] */
	_Atomic u32 refs;            /* [atomic] */
	_Atomic bool held;           /* [atomic] */
	u32 nr_resident;             /* bits in resident, while held [holder] */
	u32 noted;                   /* pages from 0 on known to be in it [holder] */
	struct cds_list_head idle;   /* [pool->lock] */
	_Atomic u64 *live;           /* [atomic] nr_words each */
	_Atomic u64 *resident;       /* [atomic] */
	_Atomic u64 words[];
};

struct region_pool {
	struct spinlock lock;
	struct cds_list_head idle[ZONES_MAX]; /* the last one put first [lock] */
	size_t idle_bytes;           /* in memory, of these [lock] */
	struct budget *budget;       /* that they are charged to, or NULL [lock] */
	size_t keep;                 /* [const] without a budget */
	u32 nr_pages, nr_words;      /* of a region [const] */
	_Atomic u32 nr_out;          /* in use [atomic] */
};

struct region_pool *region_pool_new(size_t bytes, size_t keep)
{
	struct region_pool *pool = calloc(1, sizeof(*pool));

	if (!pool)
		return NULL;
	spin_init(&pool->lock, RANK_CACHE_LIST);
	for (u32 i = 0; i < ZONES_MAX; i++)
		CDS_INIT_LIST_HEAD(&pool->idle[i]);
	pool->keep = keep;
	pool->nr_pages = (u32)DIV_ROUND_UP(bytes, (size_t)REGION_PAGE);
	pool->nr_words = DIV_ROUND_UP(pool->nr_pages, 64u);
	return pool;
}

static size_t region_bytes(const struct region_pool *pool)
{
	return (size_t)pool->nr_pages * REGION_PAGE;
}

static void region_free(struct region *r)
{
	munmap(r->base, region_bytes(r->pool));
	free(r);
}

static struct region *region_new(struct region_pool *pool, u32 zone)
{
	struct region *r = calloc(1, sizeof(*r) +
					     2 * pool->nr_words * sizeof(u64));
	const int *nodes = NULL;
	int node;

	if (!r)
		return NULL;
	r->base = mmap(NULL, region_bytes(pool), PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (r->base == MAP_FAILED) {
		free(r);
		return NULL;
	}
	spin_lock(&pool->lock);
	if (pool->budget)
		nodes = zone_nodes(pool->budget);
	node = nodes ? nodes[zone] : -1;
	spin_unlock(&pool->lock);
	if (node >= 0)
		mem_bind(r->base, region_bytes(pool), node);
	r->pool = pool;
	r->zone = zone;
	r->live = r->words;
	r->resident = r->words + pool->nr_words;
	return r;
}

static u32 count_resident(const struct region *r)
{
	u32 n = 0;

	for (u32 w = 0; w < r->pool->nr_words; w++)
		n += (u32)__builtin_popcountll(atomic_load(&r->resident[w]));
	return n;
}

/* The one put last, or the one that has waited longest. */
static struct region *take_idle(struct region_pool *pool, u32 zone, bool last)
{
	struct cds_list_head *idle = &pool->idle[zone];
	struct region *r = NULL;

	spin_lock(&pool->lock);
	if (!cds_list_empty(idle)) {
		r = cds_list_entry(last ? idle->next : idle->prev, struct region,
				   idle);
		cds_list_del(&r->idle);
		pool->idle_bytes -= region_resident(r);
		if (pool->budget)
			zone_uncharge(pool->budget, zone, BUDGET_FOLIO,
				      (s64)region_resident(r));
	}
	spin_unlock(&pool->lock);
	return r;
}

u64 region_pool_shrink(struct region_pool *pool, u32 zone, u64 bytes)
{
	struct region *r;
	u64 freed = 0;

	while (freed < bytes && (r = take_idle(pool, zone, false))) {
		freed += region_resident(r);
		region_free(r);
	}
	return freed;
}

static void shrink_all(struct region_pool *pool)
{
	for (u32 zone = 0; zone < ZONES_MAX; zone++)
		(void)region_pool_shrink(pool, zone, UINT64_MAX);
}

void region_pool_free(struct region_pool *pool)
{
	if (!pool)
		return;
	assert(!atomic_load(&pool->nr_out));
	shrink_all(pool);
	spin_destroy(&pool->lock);
	free(pool);
}

void region_pool_bind(struct region_pool *pool, struct budget *budget)
{
	shrink_all(pool);
	spin_lock(&pool->lock);
	assert(!pool->budget && !pool->idle_bytes);
	pool->budget = budget;
	spin_unlock(&pool->lock);
}

void region_pool_unbind(struct region_pool *pool)
{
	bool some = true;

	/* All of them, before somebody puts another one uncharged. */
	while (some) {
		shrink_all(pool);
		spin_lock(&pool->lock);
		some = pool->idle_bytes > 0;
		if (!some)
			pool->budget = NULL;
		spin_unlock(&pool->lock);
	}
}

/* The home zone of this thread. */
static u32 home_of(struct region_pool *pool)
{
	u32 zone = 0;

	spin_lock(&pool->lock);
	if (pool->budget)
		zone = zone_home(pool->budget);
	spin_unlock(&pool->lock);
	return zone;
}

struct region *region_get(struct region_pool *pool, size_t populate)
{
	u32 zone = home_of(pool);
	struct region *r = take_idle(pool, zone, true);

	if (!r) {
		r = region_new(pool, zone);
		if (!r)
			return NULL;
		populate = min_of(ALIGN_UP(populate, (size_t)REGION_PAGE),
				  region_bytes(pool));
		/* Only sooner: what fails here is a fault later. */
		if (populate && !madvise(r->base, populate, MADV_POPULATE_WRITE))
			region_note(r, populate);
	}
	atomic_fetch_add(&pool->nr_out, 1);
	atomic_store(&r->refs, 1);
	atomic_store(&r->held, true);
	return r;
}

/* The last one has gone: it waits for the next, if there is room for its memory. */
static void region_idle(struct region *r)
{
	struct region_pool *pool = r->pool;
	size_t bytes, keep = pool->keep;
	bool stays;

	r->nr_resident = count_resident(r);
	r->noted = 0;
	bytes = (size_t)r->nr_resident * REGION_PAGE;
	spin_lock(&pool->lock);
	if (pool->budget)
		keep = (size_t)(budget_limit(pool->budget) / IDLE_SHARE);
	stays = pool->idle_bytes + bytes <= keep;
	if (stays) {
		pool->idle_bytes += bytes;
		cds_list_add(&r->idle, &pool->idle[r->zone]);
	}
	if (stays && pool->budget)
		zone_charge(pool->budget, r->zone, BUDGET_FOLIO, (s64)bytes);
	spin_unlock(&pool->lock);
	if (!stays)
		region_free(r);
	/* Last: the pool may go. */
	atomic_fetch_sub(&pool->nr_out, 1);
}

static void region_unref(struct region *r)
{
	if (atomic_fetch_sub(&r->refs, 1) == 1)
		region_idle(r);
}

/* ---- the holder ---- */

u32 region_zone(const struct region *r)
{
	return r->zone;
}

void *region_memory(const struct region *r)
{
	return r->base;
}

void region_note(struct region *r, size_t bytes)
{
	u32 end = (u32)DIV_ROUND_UP(bytes, (size_t)REGION_PAGE);

	assert(end <= r->pool->nr_pages);
	for (u32 p = r->noted; p < end; p++) {
		u64 bit = 1ull << (p % 64);

		if (!(atomic_fetch_or(&r->resident[p / 64], bit) & bit))
			r->nr_resident++;
	}
	r->noted = max_of(r->noted, end);
}

size_t region_resident(const struct region *r)
{
	return (size_t)r->nr_resident * REGION_PAGE;
}

void region_trim(struct region *r)
{
	assert(!region_has_parts(r));
	madvise(r->base, region_bytes(r->pool), MADV_DONTNEED);
	for (u32 w = 0; w < r->pool->nr_words; w++)
		atomic_store(&r->resident[w], 0);
	r->nr_resident = r->noted = 0;
}

bool region_has_parts(const struct region *r)
{
	return atomic_load(&r->refs) > 1;
}

/* ---- parts ---- */

/* The pages [p, p+bytes): the first of them; *end: after the last. */
static u32 pages_of(const struct region *r, const void *p, size_t bytes, u32 *end)
{
	size_t from = (size_t)((const char *)p - r->base);
	u32 page = (u32)(from / REGION_PAGE);

	*end = page + (u32)(bytes / REGION_PAGE);
	assert(from % REGION_PAGE == 0 && bytes % REGION_PAGE == 0);
	assert(page > 0 && page < *end && *end <= r->pool->nr_pages);
	return page;
}

/* Bits of the pages [page, end) in the word of the first; *nr: how many. */
static u64 word_mask(u32 page, u32 end, u32 *nr)
{
	u32 n = min_of(64 - page % 64, end - page);

	*nr = n;
	return (n == 64 ? ~0ull : (1ull << n) - 1) << (page % 64);
}

bool region_is_free(const struct region *r, const void *p, size_t bytes)
{
	u32 end, n, page = pages_of(r, p, bytes, &end);

	for (; page < end; page += n)
		if (atomic_load(&r->live[page / 64]) & word_mask(page, end, &n))
			return false;
	return true;
}

/* Changes the bits of the pages [p, p+bytes) in `live`. */
static void mark_live(struct region *r, const void *p, size_t bytes, bool live)
{
	u32 end, n, page = pages_of(r, p, bytes, &end);

	for (; page < end; page += n) {
		u64 mask = word_mask(page, end, &n);
		u64 old = live ? atomic_fetch_or(&r->live[page / 64], mask)
			       : atomic_fetch_and(&r->live[page / 64], ~mask);

		assert((old & mask) == (live ? 0 : mask));
	}
}

void region_take(struct region *r, const void *p, size_t bytes)
{
	mark_live(r, p, bytes, true);
	atomic_fetch_add(&r->refs, 1);
}

/* Gives the memory of pages 64*w + [i, ...) that have a bit in zap back. */
static void zap_word(struct region *r, u32 w, u64 zap)
{
	while (zap) {
		u32 i = (u32)__builtin_ctzll(zap), n = 1;

		while (i + n < 64 && zap >> (i + n) & 1)
			n++;
		madvise(r->base + ((size_t)w * 64 + i) * REGION_PAGE,
			(size_t)n * REGION_PAGE, MADV_DONTNEED);
		zap &= ~((n == 64 ? ~0ull : (1ull << n) - 1) << i);
	}
}

/*
 * Some parts of it have gone, or its holder. If others stay, what nobody needs
 * gives its memory back; else all of it is about to wait, and stays as it is.
 * The caller has a reference.
 */
static void settle(struct region *r)
{
	if (atomic_load(&r->held) || atomic_load(&r->refs) == 1)
		return;
	for (u32 w = 0; w < r->pool->nr_words; w++) {
		u64 zap = ~atomic_load(&r->live[w]);

		if (w == 0)
			zap &= ~1ull;
		/* Whoever clears a bit zaps the page. */
		zap &= atomic_fetch_and(&r->resident[w], ~zap);
		zap_word(r, w, zap);
	}
}

void region_put(struct region *r)
{
	atomic_store(&r->held, false);
	settle(r);
	region_unref(r);
}

void region_release(struct region **last, struct region *r, const void *p,
		    size_t bytes)
{
	mark_live(r, p, bytes, false);
	if (r == *last) {
		region_unref(r);
		return;
	}
	region_release_end(last);
	*last = r; /* with the part's reference */
}

void region_release_end(struct region **last)
{
	if (!*last)
		return;
	settle(*last);
	region_unref(*last);
	*last = NULL;
}
