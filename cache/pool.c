/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/pool.c - memory for folios and buffers: aligned units out of chunks
 *
 * A chunk with a free unit is on its list; a full one is on none and is found
 * again through the unit's owner. One wholly free chunk per list is kept.
 *
 * Locks: the list's, RANK_CACHE_LIST. Next: cache/folio.c, cache/buffer.c
 */
#include "cache/pool.h"
#include "lib/bitmap.h"
#include "lib/lock.h"
#include "lib/rcu.h"
#include "lib/thread.h"

#include <assert.h>
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

struct mem_list {
	struct spinlock lock; /* RANK_CACHE_LIST */
	struct cds_list_head avail; /* chunks with a free unit [lock] */
	u32 nr_empty; /* of those, chunks with free units only [lock] */
	u32 unit;     /* bytes [const] */
};

struct mem_chunk {
	struct cds_list_head link;   /* [list lock] */
	struct mem_list *cls;        /* [const] */
	char *base;                  /* [const] */
	u32 nr_free;                 /* [list lock] */
	u64 free[CHUNK_BYTES / POOL_UNIT_MIN / 64]; /* [list lock] */
};

struct mem_pool {
	unsigned nr_cpu;             /* [const] */
	struct mem_cpu {
		struct mem_list list[NR_CLASSES];
	} __cacheline_aligned cpu[];
};

static u32 class_of(u32 bytes)
{
	return (u32)__builtin_ctz(bytes / POOL_UNIT_MIN);
}

static struct mem_chunk *chunk_new(struct mem_list *cls)
{
	u32 units = CHUNK_BYTES / cls->unit;
	struct mem_chunk *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->base = mmap(NULL, CHUNK_BYTES, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (c->base == MAP_FAILED) {
		free(c);
		return NULL;
	}
	poison(c->base, CHUNK_BYTES);
	c->cls = cls;
	c->nr_free = units;
	bm_set_range(c->free, 0, units);
	return c;
}

static void chunk_free(struct mem_chunk *c)
{
	unpoison(c->base, CHUNK_BYTES);
	munmap(c->base, CHUNK_BYTES);
	free(c);
}

void *mem_unit_alloc(struct mem_pool *pool, u32 bytes, struct mem_chunk **out)
{
	struct mem_list *cls = &pool->cpu[thread_cpu() % pool->nr_cpu]
				.list[class_of(bytes)];
	u32 units = CHUNK_BYTES / cls->unit;
	struct mem_chunk *c, *new = NULL;
	u32 i;
	void *p;

	spin_lock(&cls->lock);
	if (cds_list_empty(&cls->avail)) {
		spin_unlock(&cls->lock);
		new = chunk_new(cls);
		if (!new)
			return NULL;
		spin_lock(&cls->lock);
		cds_list_add_tail(&new->link, &cls->avail);
		cls->nr_empty++;
	}
	c = cds_list_entry(cls->avail.next, struct mem_chunk, link);
	i = bm_find_set(c->free, 0, units);
	assert(i < units);
	bm_clear(c->free, i);
	if (c->nr_free == units)
		cls->nr_empty--;
	if (--c->nr_free == 0)
		cds_list_del(&c->link);
	spin_unlock(&cls->lock);

	p = c->base + (size_t)i * cls->unit;
	unpoison(p, cls->unit);
	*out = c;
	return p;
}

/* One wholly free chunk per class is kept, against mmap at each turn. */
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
	if (c->nr_free++ == 0)
		cds_list_add(&c->link, &cls->avail);
	if (c->nr_free == units) {
		if (cls->nr_empty) {
			cds_list_del(&c->link);
			release = true;
		} else {
			cls->nr_empty = 1;
			/* last choice, so that it may stay empty */
			cds_list_del(&c->link);
			cds_list_add_tail(&c->link, &cls->avail);
		}
	}
	spin_unlock(&cls->lock);
	if (release)
		chunk_free(c);
}

u32 mem_unit_bytes(const struct mem_chunk *c)
{
	return c->cls->unit;
}

struct mem_pool *mem_pool_new(void)
{
	unsigned nr = min_of(thread_nr_cpus(), 16u);
	struct mem_pool *pool = aligned_alloc(
		64, ALIGN_UP(sizeof(*pool) + nr * sizeof(pool->cpu[0]), 64));

	if (!pool)
		return NULL;
	pool->nr_cpu = nr;
	for (unsigned i = 0; i < nr; i++) {
		for (unsigned k = 0; k < NR_CLASSES; k++) {
			struct mem_list *cls = &pool->cpu[i].list[k];

			spin_init(&cls->lock, RANK_CACHE_LIST);
			CDS_INIT_LIST_HEAD(&cls->avail);
			cls->nr_empty = 0;
			cls->unit = POOL_UNIT_MIN << k;
		}
	}
	return pool;
}

void mem_pool_free(struct mem_pool *pool)
{
	struct mem_chunk *c, *next;

	if (!pool)
		return;
	for (unsigned i = 0; i < pool->nr_cpu; i++) {
		for (unsigned k = 0; k < NR_CLASSES; k++) {
			struct mem_list *cls = &pool->cpu[i].list[k];

			cds_list_for_each_entry_safe(c, next, &cls->avail, link) {
				assert(c->nr_free == CHUNK_BYTES / cls->unit);
				chunk_free(c);
			}
			spin_destroy(&cls->lock);
		}
	}
	free(pool);
}
