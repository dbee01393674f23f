/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/migrate.c - cached data moves to the zone that reads it
 *
 * A folio's zone is constant, so what moves is the content: a new folio takes the
 * place of the old one in its slots, under the leaf lock. Memory for it is allocated
 * before, without the lock; so the leaf is looked at twice: first for what lies
 * in the wrong zone, a few folios at a time, then for each, with its new memory at
 * hand, whether it is still that.
 *
 * What may hold a folio's memory without the leaf lock has a reference: write-out,
 * for each block under WRITEBACK, and a shrinker that looks at it. A folio with more
 * references than that of its slots is passed over. No new one can come while it
 * is off the LRU and its leaf is locked.
 *
 *   dirty         moves: the mark belongs to the slot, the bytes are copied
 *   WRITEBACK     stays: the device reads the old memory, and the end of the
 *                 write-out gives back references of the folio in the slot
 *   truncated, punched, reclaimed, written: before or after, by the leaf lock
 *
 * Locks:   i_mmap_rwsem, shared, by trylock (windows_read_from()), dropped;
 *          leaf lock -> LRU list lock; q_lock, a leaf
 * Alive:   the mapping, by the caller's reference on its inode, or the queue's
 * Never:   an allocation under a leaf lock
 * Threads: any; the balancer's own, one for each zone
 * Next:    cache/window.c (who reads where), cache/zone.h
 */
#include "cache/migrate.h"

#include "cache/icache.h"
#include "cache/mapping_internal.h"
#include "cache/window.h"
#include "lib/thread.h"
#include "lib/wait.h"
#include <stdlib.h>
#include <string.h>

#define BATCH 16
#define QUEUE_MAX 32

/* ---- moving ---- */

/* A folio that was seen in the wrong zone. */
struct candidate {
	lblk_t lblk;  /* of a block that it had */
	lblk_t first; /* f_lblk */
	u16 nr;       /* f_nr */
};

/*
 * Candidates among the blocks [*s, e) of a locked leaf; *s: where to go on.
 * Returns their number.
 */
static u32 collect(struct map_leaf *leaf, u32 *s, u32 e, u32 zone,
		   struct candidate *c)
{
	u32 n = 0, b;

	for (b = *s; b < e && n < BATCH; b++) {
		struct folio *f = leaf_folio(leaf, b);

		if (!f || folio_zone(f) == zone)
			continue;
		c[n++] = (struct candidate){ .lblk = (lblk_t)(leaf_base(leaf) + b),
					     .first = f->f_lblk,
					     .nr = f->f_nr };
		b = f->f_lblk % LEAF_BLOCKS + f->f_nr - 1;
	}
	*s = b;
	return n;
}

/* Blocks of a folio in its leaf: [s, e). */
static void folio_span(const struct map_leaf *leaf, const struct folio *f, u32 *s,
		       u32 *e)
{
	*s = f->f_lblk % LEAF_BLOCKS;
	*e = min_of(*s + f->f_nr, (u32)leaf->l_cap);
}

static bool is_on_its_way(struct map_leaf *leaf, struct folio *f)
{
	const u64 *wb = leaf_mark(leaf, MARK_WRITEBACK);
	u32 s, e, b;

	folio_span(leaf, f, &s, &e);
	for (b = bm_find_set(wb, s, e); b < e; b = bm_find_set(wb, b + 1, e))
		if (leaf_folio(leaf, b) == f)
			return true;
	return false;
}

/* new, of the same size, takes all slots of f, which is off the LRU and has no
 * reference but that of its slots. f goes to `dead`. Leaf locked. */
static void replace(struct map_leaf *leaf, struct folio *f, struct folio *new,
		    struct cds_list_head *dead)
{
	u32 bs = leaf->l_map->m_sb->s_blocksize, s, e, b;

	folio_span(leaf, f, &s, &e);
	for (b = s; b < e; b++) {
		lblk_t lblk = (lblk_t)(leaf_base(leaf) + b);

		if (leaf_folio(leaf, b) != f)
			continue;
		memcpy(folio_block(new, lblk, bs), folio_block(f, lblk, bs), bs);
		leaf_slots(leaf)[b] = new;
		f->f_live--;
		new->f_live++;
	}
	assert(f->f_live == 0);
	new->f_written = f->f_written;
	atomic_store_explicit(&new->f_referenced,
			      atomic_load_explicit(&f->f_referenced,
						   memory_order_relaxed),
			      memory_order_relaxed);
	/* Release: a scan that finds the leaf finds all that was done above.
	 * Pairs with the acquire in folio_reclaim(). */
	atomic_store_explicit(&new->f_leaf, leaf, memory_order_release);
	atomic_store_explicit(&f->f_leaf, NULL, memory_order_release);
	if (atomic_fetch_sub_explicit(&f->f_refs, 1, memory_order_acq_rel) != 1)
		assert(!"a folio got a reference without its leaf");
	cds_list_add(&f->f_lru, dead);
}

/* One candidate whose leaf is locked. new: what takes its place, if true: then it is
 * no longer ours. */
static bool move_locked(struct map_leaf *leaf, const struct candidate *c,
			struct folio *new, struct migration *mig,
			struct cds_list_head *dead)
{
	struct folio *f = leaf_folio(leaf, c->lblk % LEAF_BLOCKS);
	bool on_lru;

	if (!f || f->f_lblk != c->first || f->f_nr != c->nr ||
	    folio_zone(f) == folio_zone(new)) {
		mig->changed++;
		return false;
	}
	if (is_on_its_way(leaf, f)) {
		mig->busy++;
		return false;
	}
	/* Off the LRU, no scan can find it any more. */
	on_lru = f->f_on_lru;
	folio_lru_del(f);
	/* Acquire: who gave a reference back has done with the memory. */
	if (atomic_load_explicit(&f->f_refs, memory_order_acquire) != 1) {
		if (on_lru)
			folio_lru_add(f);
		mig->pinned++;
		return false;
	}
	replace(leaf, f, new, dead);
	if (on_lru)
		folio_lru_add(new);
	mig->moved++;
	return true;
}

static void move_one(struct mapping *m, const struct candidate *c, u32 zone,
		     struct migration *mig) NO_THREAD_SAFETY
{
	struct folio *new = folio_alloc_in(m->m_sb, c->first, c->nr, zone);
	struct map_leaf *leaf;
	bool taken = false;
	CDS_LIST_HEAD(dead);

	mig->tried++;
	if (new && folio_zone(new) == zone) {
		leaf = leaf_lock(m, c->lblk >> LEAF_SHIFT);
		if (leaf) {
			taken = move_locked(leaf, c, new, mig, &dead);
			leaf_unlock(leaf);
		} else {
			mig->changed++;
		}
	} else {
		mig->nomem++;
	}
	if (new && !taken)
		cds_list_add(&new->f_lru, &dead);
	folio_free_list(&dead);
}

static void migrate(struct mapping *m, lblk_t start, u64 end, u32 zone,
		    struct migration *mig) NO_THREAD_SAFETY
{
	struct candidate c[BATCH];
	struct map_leaf *leaf;
	u64 cur = start;

	while ((leaf = leaf_lock_next(m, cur, end, WANT_ANY))) {
		u64 base = leaf_base(leaf);
		u32 s = cur > base ? (u32)(cur - base) : 0;
		u32 e = (u32)min_of(end - base, (u64)leaf->l_cap);
		u32 n = s < e ? collect(leaf, &s, e, zone, c) : 0;

		leaf_unlock(leaf);
		for (u32 i = 0; i < n; i++)
			move_one(m, &c[i], zone, mig);
		cur = s < e ? base + s : base + LEAF_BLOCKS;
	}
}

void mapping_migrate(struct mapping *m, lblk_t start, u64 end, u32 zone,
		     struct migration *mig)
{
	struct mapping_cache *mc = m->m_sb->s_mapping_cache;
	struct migration own = { 0 };

	if (atomic_load_explicit(&m->m_nr_folio_blocks, memory_order_relaxed))
		migrate(m, start, end, zone, &own);
	mapping_count(mc, MIGRATE_TRIED, own.tried);
	mapping_count(mc, MIGRATE_MOVED, own.moved);
	mapping_count(mc, MIGRATE_BUSY, own.busy);
	mapping_count(mc, MIGRATE_PINNED, own.pinned);
	if (!mig)
		return;
	mig->tried += own.tried;
	mig->moved += own.moved;
	mig->busy += own.busy;
	mig->pinned += own.pinned;
	mig->changed += own.changed;
	mig->nomem += own.nomem;
}

/* ---- the balancer ---- */

struct hint {
	struct inode *inode; /* referenced */
	lblk_t start;
	u64 end;
};

/* What is to move to one zone. */
struct balancer_zone {
	struct balancer *b;
	u32 zone;
	struct thread *thread;
	struct spinlock q_lock;       /* RANK_CACHE_LIST */
	struct hint queue[QUEUE_MAX]; /* [q_lock] a ring */
	u32 first;                    /* [q_lock] */
	_Atomic u32 nr;               /* [write q_lock] */
	_Atomic u32 wake;             /* [atomic] raised by anyone, cleared by the thread */
};

struct balancer {
	struct super_block *sb;
	_Atomic bool stop; /* [atomic] */
	u32 zones;         /* [const] */
	struct balancer_zone zone[];
};

static bool hint_pop(struct balancer_zone *z, struct hint *h)
{
	bool found;

	if (!atomic_load(&z->nr))
		return false;
	spin_lock(&z->q_lock);
	found = atomic_load(&z->nr) > 0;
	if (found) {
		*h = z->queue[z->first];
		z->first = (z->first + 1) % QUEUE_MAX;
		atomic_fetch_sub(&z->nr, 1);
	}
	spin_unlock(&z->q_lock);
	return found;
}

/*
 * Others may read there from other zones: asked under the windows' lock, shared
 * (W2: nothing is changed), and acted upon without it (W4). Should a reader come
 * or go in between, a folio lies in the wrong zone for a while: that is all.
 */
static void balance(struct balancer_zone *z, const struct hint *h)
{
	struct mapping *m = &h->inode->i_mapping;
	u32 here, elsewhere;

	if (!windows_read_from(m, h->start, h->end, z->zone, &here, &elsewhere))
		mapping_count(m->m_sb->s_mapping_cache, MIGRATE_CONTENDED, 1);
	else if (here > elsewhere)
		mapping_migrate(m, h->start, h->end, z->zone, NULL);
}

static void balancer_main(void *arg)
{
	struct balancer_zone *z = arg;
	struct hint h;

	while (!atomic_load(&z->b->stop)) {
		wait_event(&z->wake, atomic_load(&z->wake));
		atomic_store(&z->wake, 0);
		while (!atomic_load(&z->b->stop) && hint_pop(z, &h)) {
			balance(z, &h);
			inode_put(h.inode);
		}
	}
}

static void wake_zone(struct balancer_zone *z)
{
	if (!atomic_exchange(&z->wake, 1))
		wake_up(&z->wake);
}

/* The caller's handle has a reference on the inode. */
static void balancer_hint(struct mapping *m, lblk_t start, u64 end, u32 zone)
{
	struct balancer *b = m->m_sb->s_balancer;
	struct balancer_zone *z;
	bool queued = false;

	if (!b || !m->m_inode || zone >= b->zones || atomic_load(&b->stop) ||
	    !atomic_load_explicit(&m->m_nr_folio_blocks, memory_order_relaxed))
		return;
	z = &b->zone[zone];
	spin_lock(&z->q_lock);
	if (atomic_load(&z->nr) < QUEUE_MAX) {
		inode_get(m->m_inode);
		z->queue[(z->first + atomic_load(&z->nr)) % QUEUE_MAX] =
			(struct hint){ .inode = m->m_inode, .start = start, .end = end };
		atomic_fetch_add(&z->nr, 1);
		queued = true;
	}
	spin_unlock(&z->q_lock);
	if (queued)
		wake_zone(z);
}

int balancer_start(struct super_block *sb)
{
	u32 zones = zone_count(sb->s_budget);
	struct balancer *b;
	int err;

	if (zones == 1)
		return 0;
	b = calloc(1, sizeof(*b) + zones * sizeof(b->zone[0]));
	if (!b)
		return -ENOMEM;
	b->sb = sb;
	b->zones = zones;
	for (u32 i = 0; i < zones; i++) {
		b->zone[i].b = b;
		b->zone[i].zone = i;
		spin_init(&b->zone[i].q_lock, RANK_CACHE_LIST);
	}
	sb->s_balancer = b;
	sb->s_read_hint = balancer_hint;
	for (u32 i = 0; i < zones; i++) {
		err = thread_create(&b->zone[i].thread, "sl-balancer", balancer_main,
				    &b->zone[i]);
		if (err) {
			balancer_stop(sb);
			return err;
		}
	}
	return 0;
}

void balancer_stop(struct super_block *sb)
{
	struct balancer *b = sb->s_balancer;
	struct hint h;

	if (!b)
		return;
	atomic_store(&b->stop, true);
	for (u32 i = 0; i < b->zones; i++) {
		wake_zone(&b->zone[i]);
		if (b->zone[i].thread)
			thread_join(b->zone[i].thread);
		while (hint_pop(&b->zone[i], &h))
			inode_put(h.inode);
		spin_destroy(&b->zone[i].q_lock);
	}
	sb->s_read_hint = NULL;
	sb->s_balancer = NULL;
	free(b);
}
