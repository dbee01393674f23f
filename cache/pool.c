/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/pool.c - memory for objects of the caches: aligned units out of chunks
 *
 * A chunk with a free unit is on its list; a full one is on none and is found
 * again through the unit's owner. A few wholly free chunks per size are kept.
 *
 * Free units are memory that the caches' budget does not see. So before a list gets
 * a new chunk, the zone's other lists of the same size are looked at: else a thread
 * that moves, or CPUs that free what others allocate, would leave units free on
 * one list and map more for another. Other zones' lists are looked at when no chunk can
 * be had: memory of another node is better than none.
 *
 * Locks: the list's, RANK_CACHE_LIST, one at a time. Next: cache/folio.c,
 *        cache/buffer.c
 */
#include "cache/pool.h"
#include "lib/bitmap.h"
#include "lib/lock.h"
#include "lib/rcu.h"
#include "lib/thread.h"

#include <assert.h>
#include <numaif.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#define FOLIO_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FOLIO_ASAN 1
#endif
#endif
#ifdef FOLIO_ASAN
#include <sanitizer/asan_interface.h>
#define poison(p, n) ASAN_POISON_MEMORY_REGION(p, n)
#define unpoison(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define poison(p, n) ((void)(p), (void)(n))
#define unpoison(p, n) ((void)(p), (void)(n))
#endif

#define CHUNK_BYTES (256u << 10)
#define NR_CLASSES 7 /* 1 KiB << 0..6 */
#define PAGE_BYTES 4096u
_Static_assert(CHUNK_BYTES / PAGE_BYTES == 64, "a word for the pages of a chunk");

struct mem_list {
	struct spinlock lock; /* RANK_CACHE_LIST */
	struct cds_list_head avail; /* chunks with a free unit [lock] */
	_Atomic u32 nr_free;        /* units free in these [write lock] */
	_Atomic u32 *nr_empty; /* wholly free chunks of this size, on all lists [const] */
	u32 keep;              /* how many of these stay [const] */
	u32 unit;              /* bytes [const] */
	u32 zone;              /* [const] */
	int node;              /* NUMA node of the chunks; -1: any [const] */
};

struct mem_chunk {
	struct cds_list_head link;   /* [list lock] */
	struct mem_list *cls;        /* [const] */
	char *base;                  /* [const] */
	u32 nr_free;                 /* [list lock] */
	u64 touched;                 /* pages that may be in memory [list lock] */
	u64 free[CHUNK_BYTES / POOL_UNIT_MIN / 64]; /* [list lock] */
};

struct mem_pool {
	u32 zones;                   /* [const] */
	u32 lists;                   /* of each zone [const] */
	u32 keep;                    /* wholly free chunks of each size [const] */
	_Atomic u32 nr_empty[NR_CLASSES]; /* [atomic] changed under a list's lock */
	struct mem_set {
		struct mem_list list[NR_CLASSES];
	} __cacheline_aligned set[]; /* a zone's lists side by side */
};

static u32 class_of(u32 bytes)
{
	return (u32)__builtin_ctz(bytes / POOL_UNIT_MIN);
}

void mem_bind(void *base, size_t bytes, int node)
{
	unsigned long mask[16] = { 0 };
	const unsigned bits = 8 * sizeof(mask[0]);

	if ((unsigned)node >= ARRAY_SIZE(mask) * bits)
		return;
	mask[(unsigned)node / bits] = 1ul << ((unsigned)node % bits);
	/* Where that is not allowed, memory is where it is first touched. */
	(void)mbind(base, bytes, MPOL_PREFERRED, mask,
		    ARRAY_SIZE(mask) * bits, 0);
}

static struct mem_chunk *chunk_new(struct mem_list *cls)
{
	u32 units = CHUNK_BYTES / cls->unit;
	struct mem_chunk *c = calloc(1, sizeof(*c));
	int flags = MAP_PRIVATE | MAP_ANONYMOUS;

	if (!c)
		return NULL;
	/* Whoever takes a page of it takes most: one call costs less than a
	 * fault for each. */
	if (cls->unit >= 4096 && cls->node < 0)
		flags |= MAP_POPULATE;
	c->base = mmap(NULL, CHUNK_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0);
	if (c->base == MAP_FAILED) {
		free(c);
		return NULL;
	}
	if (cls->node >= 0) {
		mem_bind(c->base, CHUNK_BYTES, cls->node);
		/* An old kernel does not know it: then a fault for each. */
		if (cls->unit >= 4096)
			(void)madvise(c->base, CHUNK_BYTES, MADV_POPULATE_WRITE);
	}
	poison(c->base, CHUNK_BYTES);
	c->cls = cls;
	c->nr_free = units;
	c->touched = cls->unit >= PAGE_BYTES ? UINT64_MAX : 0;
	bm_set_range(c->free, 0, units);
	return c;
}

static void chunk_free(struct mem_chunk *c)
{
	unpoison(c->base, CHUNK_BYTES);
	munmap(c->base, CHUNK_BYTES);
	free(c);
}

/* A unit of a chunk on the list; NULL: there is none. List locked. */
static void *take_unit(struct mem_list *cls, struct mem_chunk **out)
	REQUIRES(&cls->lock)
{
	u32 units = CHUNK_BYTES / cls->unit, i;
	struct mem_chunk *c;

	if (cds_list_empty(&cls->avail))
		return NULL;
	c = cds_list_entry(cls->avail.next, struct mem_chunk, link);
	i = bm_find_set(c->free, 0, units);
	assert(i < units);
	bm_clear(c->free, i);
	if (cls->unit < PAGE_BYTES)
		c->touched |= 1ull << (i * cls->unit / PAGE_BYTES);
	if (c->nr_free == units)
		atomic_fetch_sub(cls->nr_empty, 1);
	if (--c->nr_free == 0)
		cds_list_del(&c->link);
	atomic_fetch_sub(&cls->nr_free, 1);
	*out = c;
	return c->base + (size_t)i * cls->unit;
}

static void *take_from(struct mem_list *cls, struct mem_chunk **out)
{
	void *p;

	/* relaxed: a guess; what is missed here is allocated anew */
	if (!atomic_load_explicit(&cls->nr_free, memory_order_relaxed))
		return NULL;
	spin_lock(&cls->lock);
	p = take_unit(cls, out);
	spin_unlock(&cls->lock);
	return p;
}

static void *take_from_new(struct mem_list *cls, struct mem_chunk **out)
{
	struct mem_chunk *new = chunk_new(cls);
	void *p;

	if (!new)
		return NULL;
	spin_lock(&cls->lock);
	cds_list_add_tail(&new->link, &cls->avail);
	atomic_fetch_add(cls->nr_empty, 1);
	atomic_fetch_add(&cls->nr_free, new->nr_free);
	p = take_unit(cls, out);
	spin_unlock(&cls->lock);
	return p;
}

/* A unit that some list of the zone has free, those of the CPU first. */
static void *take_from_zone(struct mem_pool *pool, u32 zone, u32 first, u32 k,
			    struct mem_chunk **out)
{
	struct mem_set *set = &pool->set[zone * pool->lists];
	void *p = NULL;

	for (u32 i = 0; i < pool->lists && !p; i++)
		p = take_from(&set[(first + i) % pool->lists].list[k], out);
	return p;
}

void *mem_unit_alloc(struct mem_pool *pool, u32 bytes, u32 zone,
		     struct mem_chunk **out)
{
	/* A zone's CPUs may be neighbours, or every so many-th one. */
	u32 first = thread_cpu() / pool->zones % pool->lists;
	u32 k = class_of(bytes);
	void *p;

	assert(zone < pool->zones);
	p = take_from_zone(pool, zone, first, k, out);
	if (!p)
		p = take_from_new(&pool->set[zone * pool->lists + first].list[k],
				  out);
	for (u32 i = 1; i < pool->zones && !p; i++)
		p = take_from_zone(pool, (zone + i) % pool->zones, first, k, out);
	if (p)
		unpoison(p, POOL_UNIT_MIN << k);
	return p;
}

/* Some wholly free chunks per size are kept, against mmap at each turn. */
void mem_unit_free(struct mem_chunk *c, void *p)
{
	struct mem_list *cls = c->cls;
	u32 units = CHUNK_BYTES / cls->unit;
	u32 i = (u32)(((char *)p - c->base) / cls->unit);
	bool release = false;

	poison(p, cls->unit);
	spin_lock(&cls->lock);
	assert(!bm_test(c->free, i));
	bm_set(c->free, i);
	atomic_fetch_add(&cls->nr_free, 1);
	if (c->nr_free++ == 0)
		cds_list_add(&c->link, &cls->avail);
	if (c->nr_free == units) {
		cds_list_del(&c->link);
		release = atomic_fetch_add(cls->nr_empty, 1) >= cls->keep;
		if (release) {
			atomic_fetch_sub(cls->nr_empty, 1);
			atomic_fetch_sub(&cls->nr_free, units);
		} else {
			/* last choice, so that it may stay empty */
			cds_list_add_tail(&c->link, &cls->avail);
		}
	}
	spin_unlock(&cls->lock);
	if (release)
		chunk_free(c);
}

/* Pages, maybe in memory, all of whose units are free; units smaller than a page. */
static u64 idle_pages(const struct mem_chunk *c)
{
	u32 per_page = PAGE_BYTES / c->cls->unit;
	u64 pages = 0;

	for (u32 p = 0; p < 64; p++) {
		u32 at = p * per_page;

		if (c->touched >> p & 1 &&
		    bm_find_clear(c->free, at, at + per_page) == at + per_page)
			pages |= 1ull << p;
	}
	return pages;
}

/* Takes the units of some pages, all free. List locked. */
static void hold_pages(struct mem_chunk *c, u64 pages)
{
	u32 per_page = PAGE_BYTES / c->cls->unit;
	u32 n = (u32)__builtin_popcountll(pages) * per_page;

	assert_spin_held(&c->cls->lock);
	for (; pages; pages &= pages - 1)
		bm_clear_range(c->free, (u32)__builtin_ctzll(pages) * per_page,
			       per_page);
	c->nr_free -= n;
	if (!c->nr_free)
		cds_list_del(&c->link);
	atomic_fetch_sub(&c->cls->nr_free, n);
}

/*
 * The pages are held, as units in use are, while the lock is dropped for madvise(); so
 * the chunk stays. One that is wholly free is left as it is: it is kept for use.
 */
static void trim_chunk(struct mem_chunk *c) NO_THREAD_SAFETY
{
	struct mem_list *cls = c->cls;
	u32 per_page = PAGE_BYTES / cls->unit;
	u64 pages = 0;

	if (c->nr_free < CHUNK_BYTES / cls->unit)
		pages = idle_pages(c);
	if (!pages)
		return;
	hold_pages(c, pages);
	c->touched &= ~pages;
	spin_unlock(&cls->lock);
	for (u64 left = pages; left; left &= left - 1)
		(void)madvise(c->base + (size_t)__builtin_ctzll(left) * PAGE_BYTES,
			      PAGE_BYTES, MADV_DONTNEED);
	for (; pages; pages &= pages - 1) {
		char *page = c->base + (size_t)__builtin_ctzll(pages) * PAGE_BYTES;

		for (u32 i = 0; i < per_page; i++)
			mem_unit_free(c, page + (size_t)i * cls->unit);
	}
	spin_lock(&cls->lock);
}

static void trim_list(struct mem_list *cls)
{
	struct mem_chunk *c;
	u32 nr = 0;

	spin_lock(&cls->lock);
	cds_list_for_each_entry(c, &cls->avail, link)
		nr++;
	/* What changes meanwhile is met now or the next time. */
	while (nr-- && !cds_list_empty(&cls->avail)) {
		c = cds_list_first_entry(&cls->avail, struct mem_chunk, link);
		cds_list_del(&c->link);
		cds_list_add_tail(&c->link, &cls->avail);
		trim_chunk(c);
	}
	spin_unlock(&cls->lock);
}

void mem_pool_trim(struct mem_pool *pool)
{
	for (u32 i = 0; i < pool->zones * pool->lists; i++)
		for (u32 k = 0; POOL_UNIT_MIN << k < PAGE_BYTES; k++)
			trim_list(&pool->set[i].list[k]);
}

u32 mem_unit_bytes(const struct mem_chunk *c)
{
	return c->cls->unit;
}

u32 mem_chunk_zone(const struct mem_chunk *c)
{
	return c->cls->zone;
}

struct mem_pool *mem_pool_new(u64 keep, u32 zones, u32 lists, const int *nodes)
{
	u32 nr = zones * lists;
	struct mem_pool *pool = aligned_alloc(
		64, ALIGN_UP(sizeof(*pool) + nr * sizeof(pool->set[0]), 64));

	assert(nr);
	if (!pool)
		return NULL;
	pool->zones = zones;
	pool->lists = lists;
	pool->keep = (u32)max_of(keep / CHUNK_BYTES, (u64)1);
	for (u32 k = 0; k < NR_CLASSES; k++)
		atomic_init(&pool->nr_empty[k], 0);
	for (u32 i = 0; i < nr; i++) {
		for (u32 k = 0; k < NR_CLASSES; k++) {
			struct mem_list *cls = &pool->set[i].list[k];

			spin_init(&cls->lock, RANK_CACHE_LIST);
			CDS_INIT_LIST_HEAD(&cls->avail);
			atomic_init(&cls->nr_free, 0);
			cls->nr_empty = &pool->nr_empty[k];
			cls->keep = pool->keep;
			cls->unit = POOL_UNIT_MIN << k;
			cls->zone = i / lists;
			cls->node = nodes ? nodes[i / lists] : -1;
		}
	}
	return pool;
}

void mem_pool_free(struct mem_pool *pool)
{
	struct mem_chunk *c, *next;

	if (!pool)
		return;
	for (u32 i = 0; i < pool->zones * pool->lists; i++) {
		for (u32 k = 0; k < NR_CLASSES; k++) {
			struct mem_list *cls = &pool->set[i].list[k];

			cds_list_for_each_entry_safe(c, next, &cls->avail, link) {
				assert(c->nr_free == CHUNK_BYTES / cls->unit);
				chunk_free(c);
			}
			spin_destroy(&cls->lock);
		}
	}
	free(pool);
}
