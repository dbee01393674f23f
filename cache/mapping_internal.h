/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/mapping_internal.h - what the files of the page cache share
 *
 *   mapping.c       copying to and from folios
 *   mapping_tree.c  the tree and its leaves: locking, growing, freeing
 *   mapping_extent.c  records of extents, values, their shrinker
 *   mapping_wb.c    marks: write-out, waiting, invalidation; errors
 *   folio.c         memory of folios, the LRU and its shrinker
 *
 * Locks:  leaf lock -> { m_lock | LRU list lock | pool lock }, one of them.
 *         The shrinker comes the other way, from an LRU list to a leaf: it
 *         drops the list's lock first and then only trylocks the leaf.
 * Alive:  a leaf: its lock, as long as l_dead is not set; or an RCU read-side
 *         section. A mapping: as long as one of its leaves is locked and not
 *         dead. A folio: f_refs; all its slots together hold one, each block
 *         under WRITEBACK one, a shrinker that looks at it one.
 * Never:  sleeping, I/O or memory allocation under a leaf lock.
 */
#ifndef SLUICE_CACHE_MAPPING_INTERNAL_H
#define SLUICE_CACHE_MAPPING_INTERNAL_H

#include "cache/lru.h"
#include "cache/mapping.h"
#include "cache/pool.h"
#include "cache/region.h"
#include "cache/shrinker.h"
#include "cache/zone.h"
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

enum leaf_mark { MARK_DIRTY, MARK_WRITEBACK, MARK_DELAYED, MARK_NR };

/* What the extent tree says of the blocks [start, start+len) of a leaf. */
struct leaf_ext {
	u16 start;
	u16 len;
	u16 state; /* enum extent_state, not UNKNOWN */
	u16 unused;
	pblk_t pblk; /* of start; 0 for a hole */
};
_Static_assert(sizeof(struct leaf_ext) == 16, "size of a record");
#define LEAF_INLINE_EXT 8u

/*
 * A leaf. Everything is [l_lock] but where noted. The lock and the counts are
 * in the first cache line; the marks (MARK_NR maps of l_cap bits, whole words)
 * and the slots follow the struct in one allocation of whole cache lines.
 * Records are sorted, do not overlap, and two that could be one are one; more
 * than fit into the leaf are in an array of their own.
 */
struct map_leaf {
	struct spinlock l_lock; /* RANK_LEAF */
	struct mapping *l_map;  /* [const] */
	u32 l_index;            /* first block / 512 [const] */
	u16 l_cap;              /* blocks it has slots for: 0, 16, 64, 512 [const] */
	u16 l_nr_folio;         /* slots in use */
	_Atomic u16 l_nr_dirty; /* DIRTY [write l_lock] */
	_Atomic u16 l_nr_wb;    /* WRITEBACK [write l_lock] */
	bool l_dead;            /* replaced or removed: walk again */
	bool l_referenced;      /* the records were asked since the last scan */
	struct rcu_head l_rcu;
	u16 l_nr_ext, l_cap_ext; /* records, and room for them */
	struct leaf_ext *l_ext;  /* l_inline, or memory of its own */
	struct leaf_ext l_inline[LEAF_INLINE_EXT];
	u64 l_words[] __cacheline_aligned;
};
#ifndef SLUICE_DEBUG_LOCKS
_Static_assert(offsetof(struct map_leaf, l_rcu) <= 64, "hot part of a leaf");
#endif

/*
 * What a slot of the tree may hold (mapping_tree.c). A value is the record
 * [0, len) of a leaf: tag, state (2 bits), referenced, len (10), pblk (48).
 */
#define SLOT_NODE 1ull
#define SLOT_VALUE 2ull
#define VALUE_REFERENCED (1ull << 4)
#define VALUE_STATE_SHIFT 2
#define VALUE_LEN_SHIFT 5
#define VALUE_PBLK_SHIFT 16

static inline bool is_value(u64 p)
{
	return (p & (SLOT_NODE | SLOT_VALUE)) == SLOT_VALUE;
}

static inline enum extent_state value_state(u64 v)
{
	return (enum extent_state)(v >> VALUE_STATE_SHIFT & 3);
}

static inline u32 value_len(u64 v)
{
	return (u32)(v >> VALUE_LEN_SHIFT) & 0x3ff;
}

static inline pblk_t value_pblk(u64 v)
{
	return v >> VALUE_PBLK_SHIFT;
}

static inline u64 value_make(enum extent_state state, u32 len, pblk_t pblk)
{
	return SLOT_VALUE | (u64)state << VALUE_STATE_SHIFT |
	       (u64)len << VALUE_LEN_SHIFT | pblk << VALUE_PBLK_SHIFT;
}

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

/* ---- records (mapping_extent.c); the leaf is locked ---- */

/* Is block b known to have a place on disk? Beyond a small leaf's end too. */
bool leaf_ext_mapped(const struct map_leaf *leaf, u32 b);
void leaf_ext_forget(struct map_leaf *leaf, u32 s, u32 e);
/* A new leaf, linked by the caller, gets the records of an old one. */
void leaf_ext_move(struct map_leaf *old, struct map_leaf *new);
void leaf_ext_from_value(struct map_leaf *leaf, u64 value);
/* The records as a value, if that is possible. */
bool leaf_ext_value(const struct map_leaf *leaf, u64 *value);
/* Memory of records outside of the leaf, bytes. */
static inline size_t leaf_ext_bytes(const struct map_leaf *leaf)
{
	return leaf->l_ext == leaf->l_inline
		       ? 0
		       : leaf->l_cap_ext * sizeof(struct leaf_ext);
}

/*
 * Reserved, or on disk. What is newer than the disk and has no reservation has
 * a place: it was looked up when it was written, and nobody takes it away from
 * under a block that is DIRTY or WRITEBACK.
 */
static inline bool leaf_known(struct map_leaf *leaf, u32 b)
{
	return (b < leaf->l_cap && (bm_test(leaf_mark(leaf, MARK_DELAYED), b) ||
				    bm_test(leaf_mark(leaf, MARK_DIRTY), b) ||
				    bm_test(leaf_mark(leaf, MARK_WRITEBACK), b))) ||
	       leaf_ext_mapped(leaf, b);
}

/* Which leaves leaf_lock_next() stops at. */
enum leaf_want { WANT_ANY, WANT_DIRTY, WANT_WRITEBACK };

/* The leaf with this index, locked; NULL if there is none. */
struct map_leaf *leaf_lock(struct mapping *m, u32 index) NO_THREAD_SAFETY;
/* The same; *value: the value in the place of a leaf, or 0. */
struct map_leaf *leaf_lock_or_value(struct mapping *m, u32 index,
				    u64 *value) NO_THREAD_SAFETY;
/* The first leaf that meets [start, end) and `want` (judged without the
 * lock, as things were at some time during the call), locked; or NULL. */
struct map_leaf *leaf_lock_next(struct mapping *m, u64 start, u64 end,
				enum leaf_want want) NO_THREAD_SAFETY;
/* The leaf that has room for block lblk, locked; made or grown if need be. */
int __must_check leaf_lock_create(struct mapping *m, lblk_t lblk,
				  struct map_leaf **out) NO_THREAD_SAFETY;
/* The same without room for folios: for its records. */
int __must_check leaf_lock_create_bare(struct mapping *m, u32 index,
				       struct map_leaf **out) NO_THREAD_SAFETY;
/* A leaf without folios and records also goes, and one whose records a value
 * can hold becomes that. The mapping may go at any time after that. */
void leaf_unlock(struct map_leaf *leaf) NO_THREAD_SAFETY;

size_t leaf_bytes(u32 cap);

/*
 * Changes the value of a place that has no leaf: fn, under m_lock, gets what
 * is there (0: nothing) and changes it. 0, fn's verdict, -EEXIST: there is a
 * leaf. -ENOMEM.
 */
enum value_verdict {
	VALUE_OK = 0,
	VALUE_NEEDS_LEAF = 1, /* nothing is changed */
};
int value_change(struct mapping *m, u32 index,
		 enum value_verdict (*fn)(u64 *value, void *priv), void *priv);
/* Second chance for a value that was read. */
void value_touch(struct mapping *m, u32 index, u64 value);
/* The first index in [index, last] with a leaf or value; UINT64_MAX: none. */
u64 tree_next_index(struct mapping *m, u64 index, u64 last);

/* End of all blocks that a leaf can have, for the functions below. */
#define EXTENT_END (1ull << 32)
/* Off the list that the shrinker of records works on; waits for it. */
void mapping_unlist(struct mapping *m);
void mapping_list(struct mapping *m);
/* Forgets records that were not asked for lately; bytes freed. */
u64 mapping_extent_scan(struct mapping_cache *mc, u32 zone, u64 bytes);

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

/* Mappings with records, for the shrinker of those: lists by zone. */
struct map_list {
	struct spinlock lock;        /* RANK_CACHE_LIST */
	struct cds_list_head list;   /* [lock] */
	u64 nr;                      /* [lock] */
} __cacheline_aligned;

struct mapping_cache {
	struct super_block *sb;      /* [const] */
	struct shrinker shrinker;    /* of folios */
	struct shrinker ext_shrinker; /* of records */
	struct mem_pool *pool;       /* [const] */
	struct lru *lru;             /* of folios [const] */
	struct region_pool *regions; /* [const] or NULL */
	struct counter *count[MAPPING_COUNTERS]; /* [const] */
	u32 zones, lists;            /* lists of each zone [const] */
	struct map_list maps[];
};

static inline void mapping_count(struct mapping_cache *mc,
				 enum mapping_counter which, u64 n)
{
	counter_add(mc->count[which], (s64)n);
}

struct folio {
	_Atomic u32 f_refs;                 /* [atomic] */
	_Atomic bool f_referenced;          /* second chance on the LRU [atomic] */
	bool f_written;                     /* newer than the device at some time [leaf lock] */
	bool f_on_lru;                      /* [leaf lock] */
	u8 f_zone;                          /* zone of f_data [const] */
	u16 f_nr;                           /* blocks it has memory for [const] */
	u16 f_live;                         /* slots that point here [leaf lock] */
	lblk_t f_lblk;                      /* block at f_data [const] */
	void *f_data;                       /* [const] content: leaf lock, and I/O */
	struct map_leaf *_Atomic f_leaf;    /* [rcu, write leaf lock] NULL: no slots */
	struct lru_list *f_list;            /* of the zone [const] */
	struct mem_chunk *f_chunk;          /* [const] the memory's owner, or NULL and ... */
	struct region *f_region;            /* [const] ... it is part of this */
	struct mapping_cache *f_cache;      /* [const] */
	struct cds_list_head f_lru;         /* [list lock]; off the LRU: owner's */
};

static inline void *folio_block(const struct folio *f, lblk_t lblk, u32 blocksize)
{
	return (char *)f->f_data + (size_t)(lblk - f->f_lblk) * blocksize;
}

/* The zone (cache/zone.h) that a folio's memory is in. */
static inline u32 folio_zone(const struct folio *f)
{
	return f->f_zone;
}

static inline void folio_touch(struct folio *f)
{
	if (!atomic_load_explicit(&f->f_referenced, memory_order_relaxed))
		atomic_store_explicit(&f->f_referenced, true,
				      memory_order_relaxed);
}

/* Memory for nr blocks (at most 64 KiB, rounded up to a power of two) with one
 * reference, charged; not zeroed. May allocate: no leaf lock. NULL: no memory. */
struct folio *folio_alloc(struct super_block *sb, lblk_t lblk, u32 nr);
/* The same, in that zone if it has memory, else in another. */
struct folio *folio_alloc_in(struct super_block *sb, lblk_t lblk, u32 nr, u32 zone);
/* Of nr blocks of memory that somebody holds the region of: whole pages at
 * p, 64 KiB at most, which are there already. NULL: no memory for the folio. */
struct folio *folio_adopt(struct super_block *sb, lblk_t lblk, u32 nr,
			  struct region *region, void *p);
/* The largest nr <= want that folio_alloc() takes. want > 0. */
u32 folio_size_for(const struct super_block *sb, u32 want);
void folio_free_list(struct cds_list_head *list);
/* Leaf lock held; a folio with live slots. No-ops if it is there (is not). */
void folio_lru_add(struct folio *f);
void folio_lru_del(struct folio *f);
/* Is a block of the folio dirty, on its way, or holding a reservation? Leaf locked. */
bool folio_busy(struct map_leaf *leaf, const struct folio *f);
/* Empties the slots of a folio that is not busy; returns how many, to be
 * accounted. dead: as leaf_drop_slots(). Leaf locked. */
u32 folio_drop(struct map_leaf *leaf, struct folio *f, struct cds_list_head *dead);

#endif
