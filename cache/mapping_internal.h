/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/mapping_internal.h - what the files of the page cache share
 *
 *   mapping.c       copying to and from folios
 *   mapping_tree.c  the tree and its leaves: locking, growing, freeing
 *   mapping_wb.c    marks: write-out, waiting, invalidation; errors
 *   folio.c         memory of folios, the LRU and its shrinker
 *
 * Locks:  leaf lock -> { m_lock | LRU shard lock | pool lock }, one of them.
 *         The shrinker comes the other way, from an LRU shard to a leaf: it
 *         drops the shard lock first and then only trylocks the leaf.
 * Alive:  a leaf: its lock, as long as l_dead is not set; or an RCU read-side
 *         section. A mapping: as long as one of its leaves is locked and not
 *         dead. A folio: f_refs; all its slots together hold one, each block
 *         under WRITEBACK one, a shrinker that looks at it one.
 * Never:  sleeping, I/O or memory allocation under a leaf lock.
 */
#ifndef SLUICE_CACHE_MAPPING_INTERNAL_H
#define SLUICE_CACHE_MAPPING_INTERNAL_H

#include "cache/budget.h"
#include "cache/mapping.h"
#include "cache/pool.h"
#include "lib/bitmap.h"
#include "lib/counter.h"
#include <assert.h>
#include <stdatomic.h>

#define LEAF_SHIFT 9
#define NODE_SHIFT 6
#define NODE_SLOTS (1u << NODE_SHIFT)
#define FOLIO_MAX_BYTES (64u << 10)
/* Most bytes that are copied in one hold of a leaf lock. */
#define COPY_MAX (64u << 10)

enum leaf_mark { MARK_DIRTY, MARK_WRITEBACK, MARK_DELAYED, MARK_MAPPED, MARK_NR };

/*
 * A leaf. Everything is [l_lock] but where noted. The lock and the counts are
 * in the first cache line; the marks (MARK_NR maps of l_cap bits, whole words)
 * and the slots follow the struct in one allocation of whole cache lines.
 * Extent records of the range will be one more array behind the slots.
 */
struct map_leaf {
	struct spinlock l_lock; /* RANK_LEAF */
	struct mapping *l_map;  /* [const] */
	u32 l_index;            /* first block / 512 [const] */
	u16 l_cap;              /* blocks it has room for: 16, 64, 512 [const] */
	u16 l_nr_folio;         /* slots in use */
	_Atomic u16 l_nr_dirty; /* DIRTY [write l_lock] */
	_Atomic u16 l_nr_wb;    /* WRITEBACK [write l_lock] */
	bool l_dead;            /* replaced or removed: walk again */
	struct rcu_head l_rcu;
	u64 l_words[] __cacheline_aligned;
};
#ifndef SLUICE_DEBUG_LOCKS
_Static_assert(offsetof(struct map_leaf, l_rcu) <= 64, "hot part of a leaf");
#endif

static inline u32 leaf_words(const struct map_leaf *leaf)
{
	return DIV_ROUND_UP(leaf->l_cap, 64u);
}

static inline u64 *leaf_mark(struct map_leaf *leaf, enum leaf_mark mark)
{
	return leaf->l_words + leaf_words(leaf) * (u32)mark;
}

static inline struct folio **leaf_slots(struct map_leaf *leaf)
{
	return (struct folio **)(leaf->l_words + leaf_words(leaf) * MARK_NR);
}

static inline u64 leaf_base(const struct map_leaf *leaf)
{
	return (u64)leaf->l_index << LEAF_SHIFT;
}

/* The folio at block b of the leaf; NULL also beyond a small leaf's end. */
static inline struct folio *leaf_folio(struct map_leaf *leaf, u32 b)
{
	return b < leaf->l_cap ? leaf_slots(leaf)[b] : NULL;
}

static inline bool leaf_known(struct map_leaf *leaf, u32 b)
{
	return b < leaf->l_cap && (bm_test(leaf_mark(leaf, MARK_DELAYED), b) ||
				   bm_test(leaf_mark(leaf, MARK_MAPPED), b));
}

/* Which leaves leaf_lock_next() stops at. */
enum leaf_want { WANT_ANY, WANT_DIRTY, WANT_WRITEBACK, WANT_EITHER };

/* The leaf with this index, locked; NULL if there is none. */
struct map_leaf *leaf_lock(struct mapping *m, u32 index) NO_THREAD_SAFETY;
/* The first leaf that meets [start, end) and `want` (judged without the
 * lock, as things were at some time during the call), locked; or NULL. */
struct map_leaf *leaf_lock_next(struct mapping *m, u64 start, u64 end,
				enum leaf_want want) NO_THREAD_SAFETY;
/* The leaf that has room for block lblk, locked; made or grown if need be. */
int __must_check leaf_lock_create(struct mapping *m, lblk_t lblk,
				  struct map_leaf **out) NO_THREAD_SAFETY;
/* Also takes a leaf without folios out of the tree and frees it. The mapping
 * may go at any time after that. */
void leaf_unlock(struct map_leaf *leaf) NO_THREAD_SAFETY;

/* Changes of the counts of one leaf and its mapping, applied in one go. */
struct leaf_delta {
	s32 dirty, wb, delayed, folio;
	s32 unclean; /* blocks that are DIRTY or WRITEBACK */
};
void leaf_account(struct map_leaf *leaf, const struct leaf_delta *d);

/*
 * Empties the slots [s, e) of a locked leaf; the marks are the caller's
 * matter. Folios that lost their last reference are appended to `dead`, for
 * folio_free_list() after the unlock. Returns the number of slots emptied.
 */
u32 leaf_drop_slots(struct map_leaf *leaf, u32 s, u32 e,
		    struct cds_list_head *dead);

/* ---- folio.c ---- */

struct folio {
	_Atomic u32 f_refs;                 /* [atomic] */
	_Atomic bool f_referenced;          /* second chance on the LRU [atomic] */
	bool f_written;                     /* newer than the device at some time [leaf lock] */
	bool f_on_lru;                      /* [write leaf lock and shard lock] */
	u16 f_nr;                           /* blocks it has memory for [const] */
	u16 f_live;                         /* slots that point here [leaf lock] */
	lblk_t f_lblk;                      /* block at f_data [const] */
	void *f_data;                       /* [const] content: leaf lock, and I/O */
	struct map_leaf *_Atomic f_leaf;    /* [rcu, write leaf lock] NULL: no slots */
	struct folio_shard *f_shard;        /* [const] */
	struct mem_chunk *f_chunk;        /* [const] */
	struct mapping_cache *f_cache;      /* [const] */
	struct cds_list_head f_lru;         /* [shard lock]; off the LRU: owner's */
};

static inline void *folio_block(const struct folio *f, lblk_t lblk, u32 blocksize)
{
	return (char *)f->f_data + (size_t)(lblk - f->f_lblk) * blocksize;
}

static inline void folio_touch(struct folio *f)
{
	if (!atomic_load_explicit(&f->f_referenced, memory_order_relaxed))
		atomic_store_explicit(&f->f_referenced, true,
				      memory_order_relaxed);
}

/* Memory for nr blocks (a power of two, at most 64 KiB) with one reference,
 * charged; not zeroed. May allocate: no leaf lock. NULL: no memory. */
struct folio *folio_alloc(struct super_block *sb, lblk_t lblk, u32 nr);
/* The largest nr <= want that folio_alloc() takes. want > 0. */
u32 folio_size_for(const struct super_block *sb, u32 want);
void folio_free_list(struct cds_list_head *list);
/* Leaf lock held; a folio with live slots. No-ops if it is there (is not). */
void folio_lru_add(struct folio *f);
void folio_lru_del(struct folio *f);

#endif
