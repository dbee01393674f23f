/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/folio.c - folios: their memory, the LRU and its shrinker
 *
 * Memory comes from cache/pool.c, as aligned as the folio is large; or it is part of a
 * region, where a writer's data came in (folio_adopt()).
 *
 * A folio belongs to the zone its memory is in, and to a list of that by the CPU
 * that allocated it. Folios enter the LRU when they become clean and stay when they
 * become dirty: the scan takes out what it finds dirty, and the end of
 * write-out puts it back. So a clean folio is on its list, always.
 *
 * How a scan meets invalidation and eviction:
 *   - Only a holder of the leaf lock puts a folio on the list or takes it off,
 *     so on the list means that slots still refer to it and that f_refs > 0.
 *     The scan gets its reference under the lock of the list.
 *   - It then reads f_leaf under RCU, which keeps the leaf's memory, and
 *     trylocks the leaf. Not dead, and f_leaf unchanged, under that lock: the
 *     folio is in its slots, and the mapping exists, since it cannot go before
 *     its leaves are dead. Else somebody dropped it (or the leaf grew): skip.
 *
 * Locks:  leaf lock -> list lock; the scan: list lock, dropped, leaf trylock,
 *         and under it a trylock of i_mmap_rwsem, shared (windows_ask()).
 * Threads: any
 */
#include "cache/mapping_internal.h"
#include "cache/window.h"
#include "lib/thread.h"
#include <stdlib.h>

#define POOL_KEEP_SHARE 64 /* of the budget, kept free outside of it */

/* ---- memory ---- */

u32 folio_size_for(const struct super_block *sb, u32 want)
{
	u32 max = max_of(FOLIO_MAX_BYTES >> sb->s_blocksize_bits, 1u);

	want = min_of(want, max);
	return 1u << (31 - __builtin_clz(want));
}

static size_t folio_bytes(const struct folio *f)
{
	return (size_t)f->f_nr << f->f_cache->sb->s_blocksize_bits;
}

static s64 folio_charge(const struct folio *f)
{
	if (f->f_region)
		return (s64)sizeof(*f) + (s64)folio_bytes(f);
	return (s64)sizeof(*f) + mem_unit_bytes(f->f_chunk);
}

/* Its memory and zone are the caller's matter, and folio_ready() after that. */
static struct folio *folio_new(struct mapping_cache *mc, lblk_t lblk, u32 nr)
{
	struct folio *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	atomic_init(&f->f_refs, 1);
	atomic_init(&f->f_referenced, false);
	atomic_init(&f->f_leaf, NULL);
	f->f_nr = (u16)nr;
	f->f_lblk = lblk;
	f->f_cache = mc;
	return f;
}

static void folio_ready(struct folio *f)
{
	f->f_list = lru_list_of(f->f_cache->lru, f->f_zone, thread_cpu());
	zone_charge(f->f_cache->sb->s_budget, f->f_zone, BUDGET_FOLIO,
		    folio_charge(f));
}

struct folio *folio_alloc(struct super_block *sb, lblk_t lblk, u32 nr)
{
	return folio_alloc_in(sb, lblk, nr, zone_home(sb->s_budget));
}

struct folio *folio_alloc_in(struct super_block *sb, lblk_t lblk, u32 nr, u32 zone)
{
	struct mapping_cache *mc = sb->s_mapping_cache;
	struct folio *f = folio_new(mc, lblk, nr);
	u32 bytes = nr * sb->s_blocksize;

	if (!f)
		return NULL;
	if (bytes & (bytes - 1)) /* the pool has powers of two */
		bytes = 1u << (32 - __builtin_clz(bytes));
	f->f_data = mem_unit_alloc(mc->pool, bytes, zone, &f->f_chunk);
	if (!f->f_data) {
		free(f);
		return NULL;
	}
	f->f_zone = (u8)mem_chunk_zone(f->f_chunk);
	folio_ready(f);
	return f;
}

struct folio *folio_adopt(struct super_block *sb, lblk_t lblk, u32 nr,
			  struct region *region, void *p)
{
	struct folio *f = folio_new(sb->s_mapping_cache, lblk, nr);

	if (!f)
		return NULL;
	f->f_data = p;
	f->f_region = region;
	f->f_zone = (u8)region_zone(region);
	region_take(region, p, folio_bytes(f));
	folio_ready(f);
	return f;
}

static void folio_free(struct folio *f, struct region **last)
{
	zone_uncharge(f->f_cache->sb->s_budget, f->f_zone, BUDGET_FOLIO,
		      folio_charge(f));
	if (f->f_region)
		region_release(last, f->f_region, f->f_data, folio_bytes(f));
	else
		mem_unit_free(f->f_chunk, f->f_data);
	free(f);
}

void folio_free_list(struct cds_list_head *list)
{
	struct folio *f, *next;
	struct region *last = NULL;

	cds_list_for_each_entry_safe(f, next, list, f_lru)
		folio_free(f, &last);
	region_release_end(&last);
	CDS_INIT_LIST_HEAD(list);
}

/* ---- LRU ---- */

void folio_lru_add(struct folio *f)
{
	if (f->f_on_lru)
		return;
	f->f_on_lru = true;
	lru_add(f->f_list, &f->f_lru);
}

void folio_lru_del(struct folio *f)
{
	if (!f->f_on_lru)
		return;
	f->f_on_lru = false;
	lru_del(f->f_list, &f->f_lru);
}

bool folio_busy(struct map_leaf *leaf, const struct folio *f)
{
	const u64 *dirty = leaf_mark(leaf, MARK_DIRTY);
	const u64 *wb = leaf_mark(leaf, MARK_WRITEBACK);
	const u64 *delayed = leaf_mark(leaf, MARK_DELAYED);
	u32 b = f->f_lblk % LEAF_BLOCKS;
	u32 e = min_of(b + f->f_nr, (u32)leaf->l_cap);

	/* A block that it gave up may have another folio: that one's marks. */
	for (;; b++) {
		b = min_of(bm_find_set_or(dirty, wb, b, e),
			   bm_find_set(delayed, b, e));
		if (b >= e)
			return false;
		if (leaf_folio(leaf, b) == f)
			return true;
	}
}

u32 folio_drop(struct map_leaf *leaf, struct folio *f, struct cds_list_head *dead)
{
	u32 s = f->f_lblk % LEAF_BLOCKS, n = 0, b, run;
	u32 e = min_of(s + f->f_nr, (u32)leaf->l_cap);

	/*
	 * A reader may be on its way back from the device with what was there
	 * before this folio was written: tell mapping_fill_since(), before the
	 * slot is empty.
	 */
	if (f->f_written)
		atomic_fetch_add(&leaf->l_map->m_drop_gen, 1);
	for (b = s; b < e; b += run) {
		run = 1;
		if (leaf_folio(leaf, b) != f)
			continue;
		while (b + run < e && leaf_folio(leaf, b + run) == f)
			run++;
		n += leaf_drop_slots(leaf, b, b + run, dead);
	}
	return n;
}

/*
 * What the windows of the file make of a second chance: a folio that a stream
 * is about to reach is kept for it, one that all streams have passed has
 * had its use. Nobody there, or who reads now here, now there, or nobody can tell: as
 * its bit says. For if a reader of the whole file spared it all, each pass would look at
 * all of it, and find nothing that was used later than the rest. Leaf locked.
 */
static bool is_spared(struct mapping *m, const struct folio *f, bool referenced)
{
	switch (windows_ask(m, f->f_lblk, f->f_lblk + f->f_nr)) {
	case WINDOW_COMING:
		mapping_count(f->f_cache, WINDOW_SPARED, 1);
		return true;
	case WINDOW_PASSED:
		if (referenced)
			mapping_count(f->f_cache, WINDOW_PASSED_BY, 1);
		return false;
	case WINDOW_NOBODY:
	case WINDOW_AROUND:
	case WINDOW_BUSY:
		break;
	}
	return referenced;
}

/*
 * spare: what was used lately, or is about to be, is left alone. *rotated counts
 * what is left for that.
 * Drops a clean folio's blocks from its leaf. Records stay. Returns the bytes that come free. Collects in
 * `dead` what the drop itself freed; our own reference is the caller's.
 */
static u64 folio_reclaim(struct folio *f, bool spare, u64 *rotated,
			 struct cds_list_head *dead) NO_THREAD_SAFETY
{
	bool referenced = atomic_exchange_explicit(&f->f_referenced, false,
						   memory_order_relaxed);
	struct map_leaf *leaf;
	struct leaf_delta d = { 0 };
	u64 freed = 0;

	if (referenced && !spare) {
		++*rotated;
		return 0;
	}
	rcu_read_lock();
	leaf = atomic_load_explicit(&f->f_leaf, memory_order_acquire);
	if (!leaf || !spin_trylock(&leaf->l_lock))
		goto out_rcu;
	if (leaf->l_dead ||
	    atomic_load_explicit(&f->f_leaf, memory_order_relaxed) != leaf) {
		spin_unlock(&leaf->l_lock);
		goto out_rcu;
	}
	if (folio_busy(leaf, f)) {
		folio_lru_del(f);
		spin_unlock(&leaf->l_lock);
		goto out_rcu;
	}
	if (spare && is_spared(leaf->l_map, f, referenced)) {
		++*rotated;
		spin_unlock(&leaf->l_lock);
		goto out_rcu;
	}

	freed = (u64)folio_charge(f);
	d.folio = -(s32)folio_drop(leaf, f, dead);
	leaf_account(leaf, &d);
	leaf_unlock(leaf);
out_rcu:
	rcu_read_unlock();
	return freed;
}

struct folio_scan {
	struct lru_scan scan;
	struct folio *batch[LRU_BATCH]; /* a reference to each */
	u32 nr;
	bool spare;                     /* see folio_reclaim() */
	u64 want, freed;                /* bytes */
};

/*
 * Not removed: it is the leaf lock's business who is on the list. The slots hold a
 * reference to each that is.
 */
static enum lru_verdict folio_isolate(struct cds_list_head *item,
				      struct lru_scan *scan)
{
	struct folio_scan *s = container_of_type(scan, struct folio_scan, scan);
	struct folio *f = container_of_type(item, struct folio, f_lru);

	atomic_fetch_add_explicit(&f->f_refs, 1, memory_order_relaxed);
	s->batch[s->nr++] = f;
	return LRU_BUSY;
}

static bool folio_dispose(struct lru_scan *scan)
{
	struct folio_scan *s = container_of_type(scan, struct folio_scan, scan);
	CDS_LIST_HEAD(dead);

	for (u32 i = 0; i < s->nr; i++) {
		struct folio *f = s->batch[i];

		if (s->freed < s->want)
			s->freed += folio_reclaim(f, s->spare, &s->scan.rotated,
						  &dead);
		if (atomic_fetch_sub_explicit(&f->f_refs, 1,
					      memory_order_acq_rel) == 1)
			cds_list_add(&f->f_lru, &dead);
	}
	s->nr = 0;
	folio_free_list(&dead);
	return s->freed < s->want;
}

/* The first round takes the referenced bits away, and spares what readers are
 * about to reach; the second takes the folios. */
static u64 folio_scan(struct shrinker *shrinker, struct shrink_control *sc)
{
	struct mapping_cache *mc = shrinker->priv;
	struct folio_scan s = {
		.scan = { .isolate = folio_isolate, .dispose = folio_dispose },
		.want = sc->bytes,
	};

	/* What waits to be used again is nobody's loss. */
	if (mc->regions)
		s.freed = region_pool_shrink(mc->regions, sc->zone, sc->bytes);
	for (int round = 0; round < 2 && s.freed < s.want; round++) {
		s.spare = round == 0;
		lru_shrink(mc->lru, sc->zone, &s.scan);
	}
	sc->scanned += s.scan.scanned;
	sc->rotated += s.scan.rotated;
	return s.freed;
}

static u64 folio_count(const struct shrinker *shrinker, u32 zone)
{
	const struct mapping_cache *mc = shrinker->priv;

	return lru_nr(mc->lru, zone);
}

/* ---- per super block ---- */

static u64 ext_scan(struct shrinker *s, struct shrink_control *sc)
{
	return mapping_extent_scan(s->priv, sc->zone, sc->bytes);
}

u64 mapping_counter_read(struct super_block *sb, enum mapping_counter which)
{
	return (u64)counter_sum(sb->s_mapping_cache->count[which]);
}

void mapping_counter_add(struct super_block *sb, enum mapping_counter which, u64 n)
{
	mapping_count(sb->s_mapping_cache, which, n);
}

static void counters_free(struct mapping_cache *mc)
{
	unsigned i;

	for (i = 0; i < MAPPING_COUNTERS; i++)
		counter_free(mc->count[i]);
}

static bool counters_new(struct mapping_cache *mc)
{
	unsigned i;

	for (i = 0; i < MAPPING_COUNTERS; i++)
		mc->count[i] = counter_new(0, 1 << 20);
	for (i = 0; i < MAPPING_COUNTERS && mc->count[i]; i++)
		;
	return i == MAPPING_COUNTERS;
}

int mapping_cache_create(struct super_block *sb, struct region_pool *regions)
{
	u32 zones = zone_count(sb->s_budget), lists = zone_lists(sb->s_budget);
	u32 nr = zones * lists;
	struct mapping_cache *mc;
	size_t bytes = ALIGN_UP(sizeof(*mc) + nr * sizeof(mc->maps[0]), 64);

	assert(sb->s_blocksize >= POOL_UNIT_MIN);
	assert(sb->s_blocksize <= FOLIO_MAX_BYTES);
	mc = aligned_alloc(64, bytes);
	if (!mc)
		return -ENOMEM;
	/* What streams have written makes room for what they write next. */
	mc->pool = mem_pool_new(budget_limit(sb->s_budget) / POOL_KEEP_SHARE,
				zones, lists, zone_nodes(sb->s_budget));
	mc->lru = lru_new(zones, lists);
	if (!counters_new(mc) || !mc->pool || !mc->lru) {
		counters_free(mc);
		mem_pool_free(mc->pool);
		lru_free(mc->lru);
		free(mc);
		return -ENOMEM;
	}
	mc->sb = sb;
	mc->regions = regions;
	if (regions)
		region_pool_bind(regions, sb->s_budget);
	mc->zones = zones;
	mc->lists = lists;
	for (u32 i = 0; i < nr; i++) {
		spin_init(&mc->maps[i].lock, RANK_CACHE_LIST);
		CDS_INIT_LIST_HEAD(&mc->maps[i].list);
		mc->maps[i].nr = 0;
	}
	mc->shrinker = (struct shrinker){
		.name = "folios",
		.kind = BUDGET_FOLIO,
		.scan = folio_scan,
		.count = folio_count,
		.priv = mc,
		/* The kernel has these pages too. */
		.first = !sb->s_data_full,
	};
	mc->ext_shrinker = (struct shrinker){
		.name = "extent records",
		.kind = BUDGET_TREE,
		.scan = ext_scan,
		.priv = mc,
	};
	sb->s_mapping_cache = mc;
	budget_register(sb->s_budget, &mc->shrinker);
	budget_register(sb->s_budget, &mc->ext_shrinker);
	return 0;
}

void mapping_cache_destroy(struct super_block *sb)
{
	struct mapping_cache *mc = sb->s_mapping_cache;

	budget_unregister(sb->s_budget, &mc->ext_shrinker);
	budget_unregister(sb->s_budget, &mc->shrinker);
	rcu_barrier(); /* leaves and nodes on their way out */
	if (mc->regions)
		region_pool_unbind(mc->regions);
	for (u32 zone = 0; zone < mc->zones; zone++)
		assert(lru_nr(mc->lru, zone) == 0);
	lru_free(mc->lru);
	for (u32 i = 0; i < mc->zones * mc->lists; i++) {
		assert(mc->maps[i].nr == 0);
		spin_destroy(&mc->maps[i].lock);
	}
	mem_pool_free(mc->pool);
	counters_free(mc);
	free(mc);
	sb->s_mapping_cache = NULL;
}
