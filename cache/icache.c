/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/icache.c - inode cache: lookup by inode number, references, eviction
 *
 * The trees are in icache_tree.c. A slot holds nothing, an inode, or a shadow:
 *
 *     bit 0             1
 *     bit 1             was worth keeping before: had a second chance
 *     bits 2-9          zone
 *     bits 10-33        the kernel's lookups
 *     bits 34-63        eviction stamp
 *
 * Refault distance (Linux: mm/workingset.c). `age` of a zone counts its evictions
 * and second chances. A shadow has the age at its eviction, in 30 bits; at a miss that
 * finds it, the difference to the age of that zone now is how many inodes more it
 * would have had to hold. If it holds that many, the inode starts with a second
 * chance. If it had one before its eviction as well, that counts as thrashing.
 *
 * The life of an inode:
 *
 *   icache_get/insert   read, inode_unlock_new        last put, forget, scan
 *   ----------> I_NEW -----------------------> usable ----------> I_FREEING
 *                 | read failed                                      | evicted
 *                 v                                                  v
 *               I_BAD ------------------------------------------> I_UNHASHED
 *                                                      slot: shadow or nothing
 *
 * Races, and why they end well:
 * - Lookup, eviction. i_count leaves 0 under i_lock only, and I_FREEING is set
 *   under i_lock with i_count 0. So a lookup's increment from non-zero cannot
 *   hit a dying inode, and one under i_lock sees I_FREEING and waits.
 * - Two misses. Whoever stores into the empty slot under the run lock reads
 *   from disk; the other frees its object and waits for I_NEW to go.
 * - FORGET, eviction. The count moves from i_nlookup to the shadow under
 *   i_lock and run lock; FORGET subtracts under i_lock after seeing that the
 *   inode is still in its slot, or under the run lock from a shadow.
 * - Lookup without a reference, eviction or deletion. Whoever ends the inode first
 *   closes i_nlookup, by compare-and-swap with a value that allows it; a lookup
 *   is counted by compare-and-swap with a value that is not closed.
 * - Last put, unlink, FORGET. Each ends in inode_settle_locked() under i_lock;
 *   the one that sees all three at 0 sets I_FREEING and deletes.
 * - A waiter holds no reference and so must not trust the memory it waits on:
 *   its condition reads the slot again under RCU (slot_is_settled()), and the
 *   inode's address is only the wait key.
 *
 * Dirty inodes. A queue in the order of i_dirtied_when, and behind it, as the
 * kernel's writeback does, a batch being worked off and what a pass did not
 * finish: nothing is served twice before everything old enough was served
 * once. While I_SYNC is set the inode is on dl->syncing and on none of these.
 * All four exist DIRTY_LISTS times, each set with its lock and chosen by the
 * inode's number, so that those who make inodes dirty and clean seldom meet; a
 * pass takes the oldest of all batches, and refills all when all are empty.
 *
 * Tags. DIRTY goes on when the inode gets dirty, and off when it is clean and
 * nothing of it is under WRITEBACK; if that ends later, a walk takes it off.
 * RECLAIMABLE goes on at the last put and, like membership of the LRU, is not
 * taken off by those who use the inode again. So both may be there too long,
 * and never too short; a walk asks again under i_lock.
 *
 * Locks:   i_lock -> { run | LRU list | dirty list | list of sb_iter.c },
 *          leaves, one at a time.
 *          The LRU scan holds the LRU lock and trylocks i_lock.
 * Alive:   i_count, I_FREEING (its owner), or an RCU read-side section.
 * Never:   I/O or s_op with a lock held; an inode freed before a grace period.
 */
#include "cache/icache_internal.h"

#include "cache/lru.h"
#include "cache/pool.h"
#include "cache/sb_iter.h"
#include "cache/shrinker.h"
#include "cache/zone.h"
#include "lib/counter.h"
#include "lib/log.h"
#include "lib/thread.h"
#include "lib/wait.h"

#include <assert.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define SHADOW_WORKINGSET 2u
#define SHADOW_ZONE_SHIFT 2
#define SHADOW_ZONE_MASK 255u
#define SHADOW_NLOOKUP_SHIFT 10
#define SHADOW_NLOOKUP_MAX ((1u << 24) - 1)
#define SHADOW_STAMP_SHIFT 34
#define SHADOW_STAMP_BITS 30
#define SHADOW_STAMP_MASK ((1u << SHADOW_STAMP_BITS) - 1)
/* Slots looked at in one RCU section. */
#define TREE_STEPS 1024u

/* What one inode is charged: struct inode and what the file system adds. */
#define INODE_COST 1024
#define WRITERS_BATCH 32
/* More than there are CPUs to spare threads that wait for one that was preempted. */
#define DIRTY_LISTS 16u

_Static_assert(ZONES_MAX <= SHADOW_ZONE_MASK + 1, "a zone fits in a shadow");

struct ic_zone {
	_Atomic u64 age; /* [atomic] evictions and second chances */
} __cacheline_aligned;

struct dirty_list {
	struct spinlock lock;         /* RANK_CACHE_LIST */
	struct cds_list_head queue;   /* [lock] by i_dirtied_when */
	struct cds_list_head batch;   /* [lock] being worked off */
	struct cds_list_head more;    /* [lock] written, and dirty still */
	struct cds_list_head syncing; /* [lock] I_SYNC is set */
	_Atomic u32 nr;               /* on the first three [write lock] */
} __cacheline_aligned;

struct icache {
	struct super_block *sb;   /* [const] */
	struct lru *lru;          /* [const] */
	struct mem_pool *pool;    /* of inodes [const] NULL: malloc's */
	struct ic_tree tree;
	struct dirty_list dirty[DIRTY_LISTS];
	_Atomic u32 dirty_round;  /* refills of the batches [atomic] */
	struct shrinker shrinker;
	struct counter *inodes, *shadows, *hits, *misses, *evicted;
	_Atomic u64 refaults, refaults_near, thrashed; /* [atomic] */
	u32 stamp_shift;          /* [const] a stamp is age >> this */
	struct ic_zone zone[];
};

struct ic_tree *icache_tree(struct super_block *sb)
{
	return &sb->s_icache->tree;
}

/* ---- inodes: locks and memory ---- */

void inode_init_once(struct inode *inode)
{
	spin_init(&inode->i_lock, RANK_I_LOCK);
	rwsem_init(&inode->i_rwsem, RANK_I_RWSEM);
	CDS_INIT_LIST_HEAD(&inode->i_lru);
	CDS_INIT_LIST_HEAD(&inode->i_io_list);
	mapping_init(&inode->i_mapping, inode, inode->i_sb);
}

void inode_destroy_locks(struct inode *inode)
{
	rwsem_destroy(&inode->i_rwsem);
	spin_destroy(&inode->i_lock);
}

/* One zone has no need of a place for its own; and a sanitizer sees a use after
 * free of malloc's memory alone. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define OWN_MEMORY false
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define OWN_MEMORY false
#endif
#endif
#ifndef OWN_MEMORY
#define OWN_MEMORY true
#endif

static u32 unit_for(size_t bytes)
{
	u32 unit = POOL_UNIT_MIN;

	assert(bytes >= sizeof(struct inode) && bytes <= INODE_MEMORY_MAX);
	while (unit < bytes)
		unit *= 2;
	return unit;
}

struct inode *inode_alloc_memory(struct super_block *sb, size_t bytes)
{
	/* The journal's inode is read before there is a cache. */
	struct mem_pool *pool = sb->s_icache ? sb->s_icache->pool : NULL;
	struct mem_chunk *chunk;
	struct inode *inode;

	if (!pool)
		return calloc(1, bytes);
	inode = mem_unit_alloc(pool, unit_for(bytes), zone_home(sb->s_budget),
			       &chunk);
	if (!inode)
		return NULL;
	memset(inode, 0, bytes);
	inode->i_chunk = chunk;
	return inode;
}

void inode_free_memory(struct inode *inode)
{
	if (inode->i_chunk)
		mem_unit_free(inode->i_chunk, inode);
	else
		free(inode);
}

static void inode_free_rcu(struct rcu_head *head)
{
	struct inode *inode = caa_container_of(head, struct inode, i_rcu);

	inode->i_sb->s_op->free_inode(inode);
}

static void state_set_locked(struct inode *inode, u32 flags)
{
	assert_spin_held(&inode->i_lock);
	atomic_fetch_or(&inode->i_state, flags);
}

static void state_clear_locked(struct inode *inode, u32 flags)
{
	assert_spin_held(&inode->i_lock);
	atomic_fetch_and(&inode->i_state, ~flags);
}

/* ---- shadows ---- */

static u64 shadow_nlookup(u64 v)
{
	return v >> SHADOW_NLOOKUP_SHIFT & SHADOW_NLOOKUP_MAX;
}

static u64 shadow_set_nlookup(u64 v, u64 nlookup)
{
	assert(nlookup <= SHADOW_NLOOKUP_MAX);
	v &= ~((u64)SHADOW_NLOOKUP_MAX << SHADOW_NLOOKUP_SHIFT);
	return v | nlookup << SHADOW_NLOOKUP_SHIFT;
}

static u32 shadow_zone(u64 v)
{
	return v >> SHADOW_ZONE_SHIFT & SHADOW_ZONE_MASK;
}

static void zone_gets_older(struct icache *ic, u32 zone)
{
	atomic_fetch_add_explicit(&ic->zone[zone].age, 1, memory_order_relaxed);
}

static u64 stamp_now(const struct icache *ic, u32 zone)
{
	return atomic_load_explicit(&ic->zone[zone].age, memory_order_relaxed) >>
		       ic->stamp_shift & SHADOW_STAMP_MASK;
}

static u64 shadow_of(const struct icache *ic, const struct inode *inode)
{
	u64 v = SHADOW_TAG | (u64)inode->i_zone << SHADOW_ZONE_SHIFT |
		stamp_now(ic, inode->i_zone) << SHADOW_STAMP_SHIFT;

	if (inode_state(inode) & (I_REFERENCED | I_WORKINGSET))
		v |= SHADOW_WORKINGSET;
	return shadow_set_nlookup(v, inode_nlookup(inode));
}

/* ---- the tree ---- */

/* Under the run lock, before the inode is in its slot. */
static void take_over_shadow(void *priv, u64 old)
{
	struct inode *inode = priv;

	atomic_store(&inode->i_nlookup, is_shadow(old) ? shadow_nlookup(old) : 0);
}

/* The inode is I_NEW and ours; its slot had the shadow. */
static void note_refault(struct icache *ic, struct inode *inode, u64 shadow)
{
	u32 zone = shadow_zone(shadow);
	u64 distance = (stamp_now(ic, zone) - (shadow >> SHADOW_STAMP_SHIFT)) &
		       SHADOW_STAMP_MASK;
	u64 cached = zone_used(ic->sb->s_budget, zone, BUDGET_INODE) / INODE_COST;

	atomic_fetch_add_explicit(&ic->refaults, 1, memory_order_relaxed);
	if (!cached || distance << ic->stamp_shift > cached)
		return;
	atomic_fetch_add_explicit(&ic->refaults_near, 1, memory_order_relaxed);
	if (shadow & SHADOW_WORKINGSET)
		atomic_fetch_add_explicit(&ic->thrashed, 1, memory_order_relaxed);
	spin_lock(&inode->i_lock);
	state_set_locked(inode, I_REFERENCED | I_WORKINGSET);
	state_clear_locked(inode, I_DONTCACHE);
	spin_unlock(&inode->i_lock);
}

/*
 * Enters the inode, which nobody else sees yet. A shadow is replaced, its
 * count taken over, unless `fresh_number` forbids it.
 * 0, -ENOMEM, -EEXIST (an inode, or a forbidden shadow, is there).
 */
static int tree_insert(struct icache *ic, struct inode *inode, bool fresh_number)
{
	u64 old;
	int error;

	error = ic_tree_insert(&ic->tree, inode->i_ino, inode_slot(inode),
			       !fresh_number, &old, take_over_shadow, inode);
	if (error)
		return error;
	counter_add(ic->inodes, 1);
	if (is_shadow(old)) {
		counter_add(ic->shadows, -1);
		note_refault(ic, inode, old);
	}
	sb_iter_add(inode);
	return 0;
}

/* ---- tags ---- */

static void tag_locked(struct icache *ic, struct inode *inode,
		       enum inode_tag tag, bool on)
{
	u32 bit = I_TAG_DIRTY << tag;

	assert_spin_held(&inode->i_lock);
	if (!(inode_state(inode) & bit) == !on)
		return;
	ic_tree_tag(&ic->tree, inode->i_ino, tag, on);
	if (on)
		state_set_locked(inode, bit);
	else
		state_clear_locked(inode, bit);
}

/* Dirty, or not clean on the disk yet. */
static bool inode_is_unwritten(const struct inode *inode)
{
	return inode_state(inode) & (I_DIRTY | I_SYNC) ||
	       atomic_load(&inode->i_mapping.m_nr_writeback);
}

/* i_lock held, after it may have become clean. */
static void untag_if_written_locked(struct icache *ic, struct inode *inode)
{
	if (!inode_is_unwritten(inode))
		tag_locked(ic, inode, INODE_TAG_DIRTY, false);
}

/* ---- waiting ---- */

/*
 * Whether `seen`, found busy in the slot before, is no longer there or no
 * longer busy. Its memory is looked at only while the slot points to it.
 */
static bool slot_is_settled(struct icache *ic, ino_nr ino,
			    const struct inode *seen)
{
	bool settled;

	rcu_read_lock();
	settled = ic_tree_get(&ic->tree, ino) != inode_slot(seen) ||
		  !(inode_state(seen) & (I_NEW | I_FREEING));
	rcu_read_unlock();
	return settled;
}

/* `seen` may be freed already: an address only. */
static void slot_wait(struct icache *ic, ino_nr ino, const struct inode *seen)
{
	wait_event(seen, slot_is_settled(ic, ino, seen));
}

/* ---- LRU ---- */

static u32 ino_hash(ino_nr ino)
{
	return ino * 0x9E3779B1u >> 16;
}

static struct lru_list *inode_lru(struct icache *ic, const struct inode *inode)
{
	return lru_list_of(ic->lru, inode->i_zone, ino_hash(inode->i_ino));
}

static void lru_add_inode_locked(struct icache *ic, struct inode *inode)
{
	tag_locked(ic, inode, INODE_TAG_RECLAIMABLE, true);
	if (inode_state(inode) & I_LRU)
		return;
	lru_add(inode_lru(ic, inode), &inode->i_lru);
	state_set_locked(inode, I_LRU);
}

static void lru_del_inode_locked(struct icache *ic, struct inode *inode)
{
	if (!(inode_state(inode) & I_LRU))
		return;
	lru_del(inode_lru(ic, inode), &inode->i_lru);
	state_clear_locked(inode, I_LRU);
}

/* ---- dirty lists ---- */

static struct dirty_list *dirty_list_of(struct icache *ic,
					const struct inode *inode)
{
	return &ic->dirty[ino_hash(inode->i_ino) % DIRTY_LISTS];
}

/* relaxed: the lock orders; a bare reader need not see what happens just now */
static void dirty_count_locked(struct dirty_list *dl, s32 delta)
{
	u32 nr = atomic_load_explicit(&dl->nr, memory_order_relaxed);

	assert_spin_held(&dl->lock);
	atomic_store_explicit(&dl->nr, nr + (u32)delta, memory_order_relaxed);
}

/* i_lock held. As of now, at the end of the queue. */
static void dirty_queue_locked(struct icache *ic, struct inode *inode)
{
	struct dirty_list *dl = dirty_list_of(ic, inode);

	tag_locked(ic, inode, INODE_TAG_DIRTY, true);
	spin_lock(&dl->lock);
	if (cds_list_empty(&inode->i_io_list)) {
		/* The clock is read inside, so that the queue is in order. */
		inode->i_dirtied_when = clock_mono_ns();
		cds_list_add_tail(&inode->i_io_list, &dl->queue);
		dirty_count_locked(dl, 1);
	}
	spin_unlock(&dl->lock);
}

/* i_lock held, I_SYNC not set. */
static void dirty_unqueue_locked(struct icache *ic, struct inode *inode)
{
	struct dirty_list *dl = dirty_list_of(ic, inode);

	spin_lock(&dl->lock);
	if (!cds_list_empty(&inode->i_io_list)) {
		cds_list_del_init(&inode->i_io_list);
		dirty_count_locked(dl, -1);
	}
	spin_unlock(&dl->lock);
}

/* ---- the end of an inode ---- */

enum verdict { INODE_KEEP, INODE_EVICT, INODE_DELETE };

/* No user, nothing to write, and its lookups fit in a shadow. i_lock held, or
 * an answer of the moment. */
static bool inode_is_evictable(const struct inode *inode)
{
	return atomic_load(&inode->i_count) == 0 && inode->i_nlink > 0 &&
	       !(inode_state(inode) & (I_BUSY | I_DIRTY | I_SYNC)) &&
	       inode_nlookup(inode) <= SHADOW_NLOOKUP_MAX &&
	       /* A shadow has no room for it: who opens the file next must hear. */
	       !mapping_error_unseen(&inode->i_mapping);
}

/*
 * i_lock held, i_count 0. True: the kernel's lookups are no more than max, and no
 * more will be counted.
 */
static bool nlookup_close_locked(struct inode *inode, u64 max)
{
	u64 n = atomic_load(&inode->i_nlookup);

	while (n <= max) {
		if (atomic_compare_exchange_weak(&inode->i_nlookup, &n,
						 n | NLOOKUP_CLOSED))
			return true;
	}
	return false;
}

/* i_lock held: from here on it belongs to the caller, who calls inode_evict(). */
static void inode_claim_locked(struct icache *ic, struct inode *inode)
{
	assert(atomic_load(&inode->i_count) == 0);
	assert(atomic_load(&inode->i_nlookup) & NLOOKUP_CLOSED);
	assert(!(inode_state(inode) & (I_NEW | I_FREEING | I_UNHASHED)));
	state_set_locked(inode, I_FREEING);
	lru_del_inode_locked(ic, inode);
	if (inode_state(inode) & I_DIRTY)
		dirty_unqueue_locked(ic, inode);
}

/*
 * The one place that decides what becomes of an inode whose i_count, i_nlookup
 * or i_nlink may just have become 0. With EVICT and DELETE it is claimed.
 */
static enum verdict inode_settle_locked(struct icache *ic, struct inode *inode)
{
	u32 state = inode_state(inode);

	assert_spin_held(&inode->i_lock);
	if (atomic_load(&inode->i_count) ||
	    state & I_BUSY)
		return INODE_KEEP;
	if (inode->i_nlink == 0) {
		/* An orphan on disk, and here, until the kernel lets go. */
		if (!nlookup_close_locked(inode, 0))
			return INODE_KEEP;
		inode_claim_locked(ic, inode);
		return INODE_DELETE;
	}
	/* The flusher's put will come here again. */
	if (state & (I_DIRTY | I_SYNC))
		return INODE_KEEP;
	/*
	 * Not what is under WRITEBACK: a sync passes by an inode that is torn
	 * down and would not wait for that data, and an error of it would be
	 * known to nobody. The LRU has it then.
	 */
	if (state & I_DONTCACHE && inode_is_evictable(inode) &&
	    !atomic_load(&inode->i_mapping.m_nr_writeback) &&
	    nlookup_close_locked(inode, SHADOW_NLOOKUP_MAX)) {
		inode_claim_locked(ic, inode);
		return INODE_EVICT;
	}
	lru_add_inode_locked(ic, inode);
	return INODE_KEEP;
}

/*
 * Takes a claimed or bad inode out of its slot, leaving its lookups there as a
 * shadow, and frees it a grace period later.
 */
static void inode_remove(struct icache *ic, struct inode *inode, u32 new_state)
{
	struct spinlock *lock = ic_tree_lock_of(&ic->tree, inode->i_ino);
	u64 left = 0;

	spin_lock(&inode->i_lock);
	/* From the list first: who reads the inode anew enters another. */
	sb_iter_del_locked(inode);
	if (inode_nlookup(inode))
		left = shadow_of(ic, inode);
	spin_lock(lock);
	ic_tree_set_locked(&ic->tree, inode->i_ino, left);
	spin_unlock(lock);
	state_set_locked(inode, I_UNHASHED | new_state);
	state_clear_locked(inode, I_NEW | I_TAGGED);
	spin_unlock(&inode->i_lock);

	wake_up(inode);
	counter_add(ic->inodes, -1);
	if (left)
		counter_add(ic->shadows, 1);
	zone_uncharge(ic->sb->s_budget, inode->i_zone, BUDGET_INODE, INODE_COST);
	call_rcu(&inode->i_rcu, inode_free_rcu);
}

/* After inode_claim_locked(). No lock held; sleeps. */
static void inode_evict(struct icache *ic, struct inode *inode, bool delete)
{
	thread_might_block();
	ic->sb->s_op->evict_inode(inode, delete);
	counter_add(ic->evicted, 1);
	if (!delete)
		zone_gets_older(ic, inode->i_zone);
	inode_remove(ic, inode, 0);
}

/* Carries out what inode_settle_locked() said; no lock held. */
static void inode_execute(struct icache *ic, struct inode *inode,
			  enum verdict verdict)
{
	if (verdict != INODE_KEEP)
		inode_evict(ic, inode, verdict == INODE_DELETE);
}

/* ---- references ---- */

void inode_get(struct inode *inode)
{
	u32 n = atomic_fetch_add(&inode->i_count, 1);

	assert(n > 0 && n < UINT32_MAX);
}

/* i_count + 1 unless it is 0. RCU read side held. */
static bool inode_get_nonzero(struct inode *inode)
{
	u32 n = atomic_load_explicit(&inode->i_count, memory_order_relaxed);

	while (n) {
		if (atomic_compare_exchange_weak(&inode->i_count, &n, n + 1))
			return true;
	}
	return false;
}

void inode_put(struct inode *inode)
{
	enum verdict verdict = INODE_KEEP;
	struct icache *ic;
	u32 n;

	if (!inode)
		return;
	ic = inode->i_sb->s_icache;
	n = atomic_load_explicit(&inode->i_count, memory_order_relaxed);
	assert(n > 0);
	while (n > 1) {
		/* Acquire-release: our work on it is before the last put. */
		if (atomic_compare_exchange_weak(&inode->i_count, &n, n - 1))
			return;
	}
	/*
	 * 1 -> 0 under i_lock only. Another may still raise it before we get
	 * there. After the unlock the inode may go at any time.
	 */
	spin_lock(&inode->i_lock);
	if (atomic_fetch_sub(&inode->i_count, 1) == 1)
		verdict = inode_settle_locked(ic, inode);
	spin_unlock(&inode->i_lock);
	inode_execute(ic, inode, verdict);
}

/*
 * A reference, if the inode is usable. RCU read side held; it was found in the
 * tree. (I_NEW never comes back, and with I_FREEING the count stays 0: no need
 * to look at the state again after the increment. The acquire pairs with the
 * clearing of I_NEW.)
 */
static bool inode_grab_used(struct inode *inode)
{
	return !(inode_state(inode) & I_BUSY) && inode_get_nonzero(inode);
}

/* i_lock held: wanted a second time, worth keeping after all. */
static void inode_touch_locked(struct icache *ic, struct inode *inode)
{
	u32 state = inode_state(inode);

	if (!(state & I_REFERENCED))
		state_set_locked(inode, I_REFERENCED);
	if (state & I_DONTCACHE) {
		state_clear_locked(inode, I_DONTCACHE);
		tag_locked(ic, inode, INODE_TAG_DONTCACHE, false);
	}
}

/* As inode_grab_used(), also if nobody has it. */
static bool inode_grab(struct icache *ic, struct inode *inode, bool touch)
{
	bool ok;

	if (inode_grab_used(inode))
		return true;
	spin_lock(&inode->i_lock);
	ok = !(inode_state(inode) & I_BUSY);
	if (ok) {
		atomic_fetch_add(&inode->i_count, 1);
		if (touch)
			inode_touch_locked(ic, inode);
	}
	spin_unlock(&inode->i_lock);
	return ok;
}

static bool ino_is_valid(const struct icache *ic, ino_nr ino)
{
	return ino >= 1 && ino <= ic->tree.max_ino;
}

/* ---- attributes ---- */

/* One load of what may be changing; the counter says whether it was. */
#define RACY(x) (*(const volatile __typeof__(x) *)&(x))

/* The loads race with the stores, on purpose: what a thread checker can't know
 * is that nobody looks at the result then. */
#define NO_TSAN __attribute__((no_sanitize("thread")))

NO_TSAN static void copy_attrs(const struct inode *inode, struct inode_attrs *a)
{
	*a = (struct inode_attrs){
		.mode = atomic_load_explicit(&inode->i_mode, memory_order_relaxed),
		.nlink = atomic_load_explicit(&inode->i_nlink, memory_order_relaxed),
		.uid = RACY(inode->i_uid),
		.gid = RACY(inode->i_gid),
		.generation = RACY(inode->i_generation),
		.delayed = atomic_load_explicit(&inode->i_mapping.m_nr_delayed,
						memory_order_relaxed),
		.size = atomic_load_explicit(&inode->i_size, memory_order_relaxed),
		.blocks = RACY(inode->i_blocks),
		.rdev = RACY(inode->i_rdev),
		.atime = { RACY(inode->i_atime.tv_sec), RACY(inode->i_atime.tv_nsec) },
		.mtime = { RACY(inode->i_mtime.tv_sec), RACY(inode->i_mtime.tv_nsec) },
		.ctime = { RACY(inode->i_ctime.tv_sec), RACY(inode->i_ctime.tv_nsec) },
	};
}

/* False: they changed meanwhile. Acquire and fence: see inode_attrs_lock(). */
NO_TSAN static bool read_attrs(const struct inode *inode, struct inode_attrs *attrs)
{
	u32 seq = atomic_load_explicit(&inode->i_attr_seq, memory_order_acquire);

	if (seq & 1)
		return false;
	copy_attrs(inode, attrs);
	atomic_thread_fence(memory_order_acquire);
	return atomic_load_explicit(&inode->i_attr_seq,
				    memory_order_relaxed) == seq;
}

/* Tries in a row; a change takes a few dozen instructions. */
#define ATTR_TRIES 3

void inode_get_attrs(struct inode *inode, struct inode_attrs *attrs)
{
	for (int i = 0; i < ATTR_TRIES; i++) {
		if (read_attrs(inode, attrs))
			return;
	}
	spin_lock(&inode->i_lock);
	copy_attrs(inode, attrs);
	spin_unlock(&inode->i_lock);
}

/*
 * Whether inode_grab() would only count: then not looking for a reference
 * leaves nothing out.
 */
static bool inode_can_be_peeked(const struct inode *inode)
{
	u32 state = inode_state(inode);

	if (state & I_BUSY)
		return false;
	return (state & (I_REFERENCED | I_DONTCACHE)) == I_REFERENCED ||
	       atomic_load_explicit(&inode->i_count, memory_order_relaxed);
}

struct inode *icache_peek_rcu(struct super_block *sb, ino_nr ino)
{
	struct icache *ic = sb->s_icache;
	struct inode *inode;
	u64 v;

	if (!ino_is_valid(ic, ino))
		return NULL;
	v = ic_tree_get(&ic->tree, ino);
	if (!v || is_shadow(v))
		return NULL;
	inode = slot_inode(v);
	if (!inode_can_be_peeked(inode))
		return NULL;
	assert(inode->i_ino == ino);
	return inode;
}

bool inode_peek_attrs(const struct inode *inode, struct inode_attrs *attrs)
{
	/* It was usable before, and so whole; usable after, and so not an old
	 * one whose successor somebody has changed. */
	return read_attrs(inode, attrs) && !(inode_state(inode) & I_BUSY);
}

/*
 * Sequentially consistent on success, as all that decides on an inode's end: he
 * who closes the count sees this lookup, or this sees it closed.
 */
bool inode_lookup_inc_rcu(struct inode *inode)
{
	u64 n = atomic_load_explicit(&inode->i_nlookup, memory_order_relaxed);

	while (!(n & NLOOKUP_CLOSED)) {
		if (atomic_compare_exchange_weak(&inode->i_nlookup, &n, n + 1))
			return true;
	}
	return false;
}

void icache_note_hits(struct super_block *sb, u32 n)
{
	counter_add(sb->s_icache->hits, n);
}

int icache_peek_attrs(struct super_block *sb, ino_nr ino,
		      struct inode_attrs *attrs)
{
	const struct inode *inode;
	bool ok;

	rcu_read_lock();
	inode = icache_peek_rcu(sb, ino);
	ok = inode && inode_peek_attrs(inode, attrs);
	rcu_read_unlock();
	if (!ok)
		return -EAGAIN;
	icache_note_hits(sb, 1);
	return 0;
}

bool inode_fits_walk(const struct inode *inode, u32 flags)
{
	u32 state = inode_state(inode);

	if (state & I_BUSY)
		return false;
	if (flags & INO_ITER_F_REFERENCED && !atomic_load(&inode->i_count))
		return false;
	if (flags & INO_ITER_F_DIRTY && !inode_is_unwritten(inode))
		return false;
	if (flags & INO_ITER_F_RECLAIMABLE && !inode_is_evictable(inode))
		return false;
	return !(flags & INO_ITER_F_DONTCACHE) || state & I_DONTCACHE;
}

bool inode_grab_for_walk(struct inode *inode, u32 flags)
{
	struct icache *ic = inode->i_sb->s_icache;
	bool ok;

	if (!(flags & ~INO_ITER_F_REFERENCED) && inode_grab_used(inode))
		return true;
	spin_lock(&inode->i_lock);
	ok = inode_fits_walk(inode, flags);
	if (ok) {
		atomic_fetch_add(&inode->i_count, 1);
	} else if (!(inode_state(inode) & I_BUSY)) {
		untag_if_written_locked(ic, inode);
		if (!inode_is_evictable(inode))
			tag_locked(ic, inode, INODE_TAG_RECLAIMABLE, false);
	}
	spin_unlock(&inode->i_lock);
	return ok;
}

/* Cached and usable, referenced; NULL if not cached. Waits. */
static struct inode *icache_lookup(struct icache *ic, ino_nr ino, bool touch)
{
	for (;;) {
		struct inode *inode;
		bool ok;
		u64 v;

		rcu_read_lock();
		v = ic_tree_get(&ic->tree, ino);
		if (!v || is_shadow(v)) {
			rcu_read_unlock();
			return NULL;
		}
		inode = slot_inode(v);
		ok = inode_grab(ic, inode, touch);
		rcu_read_unlock();
		if (ok) {
			/* So that a pool of reused objects would be found. */
			assert(inode->i_ino == ino);
			return inode;
		}
		slot_wait(ic, ino, inode);
	}
}

static struct inode *find(struct super_block *sb, ino_nr ino, bool touch)
{
	struct icache *ic = sb->s_icache;
	struct inode *inode;

	if (!ino_is_valid(ic, ino))
		return NULL;
	inode = icache_lookup(ic, ino, touch);
	if (inode)
		counter_add(ic->hits, 1);
	return inode;
}

struct inode *icache_find(struct super_block *sb, ino_nr ino)
{
	return find(sb, ino, true);
}

struct inode *icache_find_scan(struct super_block *sb, ino_nr ino)
{
	return find(sb, ino, false);
}

/* Makes the inode ready to be entered: ours alone until then. */
static void inode_prepare(struct super_block *sb, struct inode *inode)
{
	inode->i_sb = sb;
	/* malloc's is local to this thread, which has just touched it. */
	inode->i_zone = (u8)(inode->i_chunk ? mem_chunk_zone(inode->i_chunk) :
					      zone_home(sb->s_budget));
	inode->i_mapping.m_inode = inode;
	inode->i_mapping.m_sb = sb;
	atomic_store_explicit(&inode->i_state, I_NEW, memory_order_relaxed);
	atomic_store_explicit(&inode->i_count, 1, memory_order_relaxed);
}

/* A miss: enters a new inode and reads it. -EEXIST: another did, look again. */
static int icache_instantiate(struct icache *ic, ino_nr ino, bool scan,
			      struct inode **out)
{
	struct super_block *sb = ic->sb;
	struct inode *inode;
	int error;

	inode = sb->s_op->alloc_inode(sb);
	if (!inode)
		return -ENOMEM;
	inode->i_ino = ino;
	inode_prepare(sb, inode);
	if (scan)
		atomic_fetch_or(&inode->i_state, I_DONTCACHE);
	error = tree_insert(ic, inode, false);
	if (error) {
		mapping_destroy(&inode->i_mapping);
		sb->s_op->free_inode(inode);
		return error;
	}
	zone_charge(sb->s_budget, inode->i_zone, BUDGET_INODE, INODE_COST);
	counter_add(ic->misses, 1);
	error = sb->s_op->read_inode(inode);
	if (error) {
		/* Nobody but us has a reference: it was I_NEW all the time. */
		mapping_destroy(&inode->i_mapping);
		inode_remove(ic, inode, I_BAD);
		return error;
	}
	inode_unlock_new(inode);
	*out = inode;
	return 0;
}

static int get(struct super_block *sb, ino_nr ino, bool scan, struct inode **out)
{
	struct icache *ic = sb->s_icache;
	int error;

	thread_might_block();
	if (!ino_is_valid(ic, ino))
		return -ESTALE;
	do {
		struct inode *inode = icache_lookup(ic, ino, !scan);

		if (inode) {
			counter_add(ic->hits, 1);
			*out = inode;
			return 0;
		}
		error = icache_instantiate(ic, ino, scan, out);
	} while (error == -EEXIST);
	return error;
}

int icache_get(struct super_block *sb, ino_nr ino, struct inode **out)
{
	return get(sb, ino, false, out);
}

int icache_get_scan(struct super_block *sb, ino_nr ino, struct inode **out)
{
	return get(sb, ino, true, out);
}

/*
 * Two that are busy in the slot may be innocent; wait for their end. One that
 * is being deleted stays a little longer than its bit in the bitmap does
 * (evict_inode() frees the number as its last journalled step, so our caller's
 * handle does not keep it from ending). And somebody with a stale number may
 * be about to find out, reading it, that it is not in use.
 */
int icache_insert(struct super_block *sb, struct inode *inode)
{
	struct icache *ic = sb->s_icache;
	ino_nr ino = inode->i_ino;
	int error;

	if (!ino_is_valid(ic, ino))
		return -EFSCORRUPTED;
	inode_prepare(sb, inode);
	for (;;) {
		struct inode *old;
		bool busy;
		u64 v;

		error = tree_insert(ic, inode, true);
		if (error != -EEXIST)
			break;
		rcu_read_lock();
		v = ic_tree_get(&ic->tree, ino);
		if (is_shadow(v)) {
			rcu_read_unlock();
			return -EFSCORRUPTED;
		}
		old = slot_inode(v);
		busy = !old || inode_state(old) & (I_NEW | I_FREEING | I_BAD);
		rcu_read_unlock();
		if (!busy)
			return -EFSCORRUPTED;
		if (old)
			slot_wait(ic, ino, old);
	}
	if (!error)
		zone_charge(sb->s_budget, inode->i_zone, BUDGET_INODE,
			    INODE_COST);
	return error;
}

void inode_unlock_new(struct inode *inode)
{
	struct icache *ic = inode->i_sb->s_icache;

	spin_lock(&inode->i_lock);
	assert(inode_state(inode) & I_NEW);
	state_clear_locked(inode, I_NEW);
	if (inode_state(inode) & I_DIRTY)
		dirty_queue_locked(ic, inode);
	if (inode_state(inode) & I_DONTCACHE)
		tag_locked(ic, inode, INODE_TAG_DONTCACHE, true);
	spin_unlock(&inode->i_lock);
	wake_up(inode);
}

/* ---- the kernel's lookups ---- */

/*
 * No lock: who looks at the count under i_lock to decide on the inode's end has
 * seen i_count 0, and the caller's reference is from before.
 */
void inode_lookup_inc(struct inode *inode)
{
	assert(atomic_load(&inode->i_count) > 0);
	atomic_fetch_add(&inode->i_nlookup, 1);
}

void inode_set_dontcache(struct inode *inode)
{
	struct icache *ic = inode->i_sb->s_icache;

	spin_lock(&inode->i_lock);
	state_set_locked(inode, I_DONTCACHE);
	if (!(inode_state(inode) & I_BUSY))
		tag_locked(ic, inode, INODE_TAG_DONTCACHE, true);
	spin_unlock(&inode->i_lock);
}

/* n less; a count below 0 is somebody's bug, and not worth dying for. */
static u64 nlookup_sub(struct icache *ic, ino_nr ino, u64 nlookup, u64 n)
{
	if (likely(n <= nlookup))
		return nlookup - n;
	log_ratelimited(LOG_LVL_WARN,
			"%s: inode %u: %" PRIu64 " lookups forgotten of %"
			PRIu64, ic->sb->s_id, ino, n, nlookup);
	return 0;
}

/* i_lock held. The count may grow meanwhile. */
static void inode_forget_locked(struct icache *ic, struct inode *inode, u64 n)
{
	u64 old = atomic_load(&inode->i_nlookup), had;

	do {
		had = old & ~NLOOKUP_CLOSED;
	} while (!atomic_compare_exchange_weak(
		&inode->i_nlookup, &old,
		(n <= had ? had - n : 0) | (old & NLOOKUP_CLOSED)));
	(void)nlookup_sub(ic, inode->i_ino, had, n);
}

/* False: there is no shadow (any more). */
static bool shadow_forget(struct icache *ic, ino_nr ino, u64 n)
{
	struct spinlock *lock = ic_tree_lock_of(&ic->tree, ino);
	bool gone = false;
	u64 v;

	spin_lock(lock);
	v = ic_tree_get(&ic->tree, ino);
	if (!is_shadow(v)) {
		spin_unlock(lock);
		return false;
	}
	n = nlookup_sub(ic, ino, shadow_nlookup(v), n);
	gone = n == 0;
	ic_tree_set_locked(&ic->tree, ino, gone ? 0 : shadow_set_nlookup(v, n));
	spin_unlock(lock);
	if (gone)
		counter_add(ic->shadows, -1);
	return true;
}

void icache_forget(struct super_block *sb, ino_nr ino, u64 n)
{
	struct icache *ic = sb->s_icache;

	if (!ino_is_valid(ic, ino) || n == 0)
		return;
	for (;;) {
		enum verdict verdict;
		struct inode *inode;
		u64 v;

		rcu_read_lock();
		v = ic_tree_get(&ic->tree, ino);
		if (!v || is_shadow(v)) {
			rcu_read_unlock();
			if (v && !shadow_forget(ic, ino, n))
				continue;
			if (!v)
				(void)nlookup_sub(ic, ino, 0, n);
			return;
		}
		inode = slot_inode(v);
		spin_lock(&inode->i_lock);
		if (inode_state(inode) & I_UNHASHED) {
			/* Its count has moved to the slot: look there. */
			spin_unlock(&inode->i_lock);
			rcu_read_unlock();
			continue;
		}
		inode_forget_locked(ic, inode, n);
		verdict = inode_settle_locked(ic, inode);
		spin_unlock(&inode->i_lock);
		rcu_read_unlock();
		/* Claimed or not ours: as in inode_put(). */
		inode_execute(ic, inode, verdict);
		return;
	}
}

/* ---- dirty inodes ---- */

void inode_mark_dirty(struct inode *inode, u32 flags)
{
	struct icache *ic = inode->i_sb->s_icache;
	u32 old;

	assert(!(flags & ~I_DIRTY));
	/*
	 * Orders what the caller dirtied before the look at the flags. Pairs
	 * with the fence in inode_clear_dirty(): if we still see a flag that is
	 * being cleared, he who clears it sees our dirty blocks.
	 */
	atomic_thread_fence(memory_order_seq_cst);
	if ((atomic_load(&inode->i_state) & flags) == flags)
		return;
	spin_lock(&inode->i_lock);
	old = inode_state(inode);
	/*
	 * On its list before the flags say so: whoever finds the flags above need
	 * not wait for us, and a sync that he begins then must find the inode.
	 */
	if (!(old & I_DIRTY)) {
		if (old & I_SYNC)
			/* icache_written() queues it, as of now. */
			inode->i_dirtied_when = clock_mono_ns();
		else if (!(old & (I_NEW | I_FREEING)))
			dirty_queue_locked(ic, inode);
	}
	state_set_locked(inode, flags);
	spin_unlock(&inode->i_lock);
}

void inode_clear_dirty(struct inode *inode, u32 flags)
{
	u32 old, state;

	assert(!(flags & ~I_DIRTY));
	spin_lock(&inode->i_lock);
	old = inode_state(inode);
	state_clear_locked(inode, flags);
	atomic_thread_fence(memory_order_seq_cst); /* see inode_mark_dirty() */
	/*
	 * Only if it was set. If not, who dirtied the blocks has yet to say so:
	 * finding the flag set he would leave it at that, and the inode would be
	 * dirty but in no list, where neither the flusher nor sync finds it.
	 */
	if (flags & old & I_DIRTY_PAGES &&
	    atomic_load(&inode->i_mapping.m_nr_dirty) > 0)
		state_set_locked(inode, I_DIRTY_PAGES);
	state = inode_state(inode);
	if (!(state & (I_DIRTY | I_SYNC))) {
		dirty_unqueue_locked(inode->i_sb->s_icache, inode);
		untag_if_written_locked(inode->i_sb->s_icache, inode);
	}
	spin_unlock(&inode->i_lock);
}

/* First of a list that was dirtied at or before older_than; dl->lock held. */
static struct inode *dirty_first(struct cds_list_head *list, u64 older_than)
{
	struct inode *inode;

	cds_list_for_each_entry(inode, list, i_io_list) {
		if (inode->i_dirtied_when <= older_than)
			return inode;
	}
	return NULL;
}

static void list_splice_tail_init(struct cds_list_head *from,
				  struct cds_list_head *to)
{
	if (cds_list_empty(from))
		return;
	cds_list_splice(from, to->prev);
	CDS_INIT_LIST_HEAD(from);
}

/* No lock is taken of a list with nothing on it: what was made dirty before the
 * caller began to look is counted. */
static bool dirty_list_is_empty(const struct dirty_list *dl)
{
	return !atomic_load_explicit(&dl->nr, memory_order_relaxed);
}

/* Into the batch: what was not finished before, and what is old enough. */
static void dirty_refill(struct dirty_list *dl, u64 older_than)
{
	struct inode *inode, *next;

	if (dirty_list_is_empty(dl))
		return;
	spin_lock(&dl->lock);
	list_splice_tail_init(&dl->more, &dl->batch);
	cds_list_for_each_entry_safe(inode, next, &dl->queue, i_io_list) {
		if (inode->i_dirtied_when > older_than)
			break;
		cds_list_del(&inode->i_io_list);
		cds_list_add_tail(&inode->i_io_list, &dl->batch);
	}
	spin_unlock(&dl->lock);
}

/* Of the first ones of all batches the oldest; RCU read side held. */
static struct inode *dirty_oldest(struct icache *ic, u64 older_than)
{
	struct inode *oldest = NULL;
	u64 when = 0;

	for (u32 i = 0; i < DIRTY_LISTS; i++) {
		struct dirty_list *dl = &ic->dirty[i];
		struct inode *inode;

		if (dirty_list_is_empty(dl))
			continue;
		spin_lock(&dl->lock);
		inode = dirty_first(&dl->batch, older_than);
		if (inode && (!oldest || inode->i_dirtied_when < when)) {
			oldest = inode;
			when = inode->i_dirtied_when;
		}
		spin_unlock(&dl->lock);
	}
	return oldest;
}

/*
 * The next candidate. When no batch has one, all are filled, by one of those who
 * see that: who comes too late looks again. RCU read side held.
 */
static struct inode *dirty_pick(struct icache *ic, u64 older_than)
{
	for (;;) {
		u32 round = atomic_load(&ic->dirty_round);
		struct inode *inode = dirty_oldest(ic, older_than);

		if (inode)
			return inode;
		if (!atomic_compare_exchange_strong(&ic->dirty_round, &round,
						    round + 1))
			continue;
		for (u32 i = 0; i < DIRTY_LISTS; i++)
			dirty_refill(&ic->dirty[i], older_than);
		return dirty_oldest(ic, older_than);
	}
}

struct inode *icache_next_dirty(struct super_block *sb, u64 older_than)
{
	struct icache *ic = sb->s_icache;
	u32 busy = I_BUSY | I_SYNC;

	/*
	 * From the list to the inode against the lock order: RCU keeps the
	 * candidate while the list lock is dropped, and i_lock says whether
	 * it still is one. If not, somebody took it off the list.
	 */
	for (;;) {
		struct dirty_list *dl;
		struct inode *inode;
		u32 state;

		rcu_read_lock();
		inode = dirty_pick(ic, older_than);
		if (!inode) {
			rcu_read_unlock();
			return NULL;
		}
		spin_lock(&inode->i_lock);
		state = inode_state(inode);
		if (state & I_DIRTY && !(state & busy)) {
			atomic_fetch_add(&inode->i_count, 1);
			state_set_locked(inode, I_SYNC);
			dl = dirty_list_of(ic, inode);
			spin_lock(&dl->lock);
			cds_list_del(&inode->i_io_list);
			cds_list_add_tail(&inode->i_io_list, &dl->syncing);
			dirty_count_locked(dl, -1);
			spin_unlock(&dl->lock);
			spin_unlock(&inode->i_lock);
			rcu_read_unlock();
			return inode;
		}
		spin_unlock(&inode->i_lock);
		rcu_read_unlock();
	}
}

void icache_written(struct inode *inode)
{
	struct dirty_list *dl = dirty_list_of(inode->i_sb->s_icache, inode);

	spin_lock(&inode->i_lock);
	assert(inode_state(inode) & I_SYNC);
	state_clear_locked(inode, I_SYNC);
	spin_lock(&dl->lock);
	cds_list_del_init(&inode->i_io_list);
	if (inode_state(inode) & I_DIRTY) {
		cds_list_add_tail(&inode->i_io_list, &dl->more);
		dirty_count_locked(dl, 1);
	}
	spin_unlock(&dl->lock);
	untag_if_written_locked(inode->i_sb->s_icache, inode);
	spin_unlock(&inode->i_lock);
	wake_up(inode);
}

void inode_wait_sync(struct inode *inode)
{
	wait_event(inode, !(inode_state(inode) & I_SYNC));
}

/* Those of one list, referenced, as far as there is room. */
static u32 take_writers(struct dirty_list *dl, struct inode **found, u32 room)
{
	struct inode *inode;
	u32 nr = 0;

	/* Whoever set I_SYNC has a reference until after icache_written(). */
	spin_lock(&dl->lock);
	cds_list_for_each_entry(inode, &dl->syncing, i_io_list) {
		if (nr == room)
			break;
		inode_get(inode);
		found[nr++] = inode;
	}
	spin_unlock(&dl->lock);
	return nr;
}

bool icache_wait_writers(struct super_block *sb)
{
	struct inode *found[WRITERS_BATCH];
	u32 nr = 0;

	for (u32 i = 0; i < DIRTY_LISTS; i++)
		nr += take_writers(&sb->s_icache->dirty[i], found + nr,
				   WRITERS_BATCH - nr);
	for (u32 i = 0; i < nr; i++) {
		inode_wait_sync(found[i]);
		inode_put(found[i]);
	}
	return nr > 0;
}

/* ---- looking without touching ---- */

/* Slot i of a leaf, if that is an inode. RCU read side held. */
static struct inode *slot_of(const _Atomic u64 *slots, u32 i)
{
	u64 v = atomic_load_explicit(&slots[i], memory_order_acquire);

	return v && !is_shadow(v) ? slot_inode(v) : NULL;
}

u64 icache_mask(struct super_block *sb, ino_nr ino)
{
	struct ic_tree *t = &sb->s_icache->tree;
	const _Atomic u64 *slots;
	u64 mask = 0;

	if (ino > t->max_ino)
		return 0;
	rcu_read_lock();
	slots = ic_tree_slots(t, ino);
	for (u32 i = 0; slots && i < 64; i++) {
		if (slot_of(slots, i))
			mask |= 1ull << i;
	}
	rcu_read_unlock();
	return mask;
}

static bool peek(struct inode *inode,
		 void (*fn)(const struct inode *inode, void *priv), void *priv)
{
	bool usable;

	/* RCU keeps the memory, i_lock the state. */
	spin_lock(&inode->i_lock);
	usable = !(inode_state(inode) & I_BUSY);
	if (usable)
		fn(inode, priv);
	spin_unlock(&inode->i_lock);
	return usable;
}

u64 icache_peek_run(struct super_block *sb, ino_nr ino, u64 wanted,
		    void (*fn)(const struct inode *inode, void *priv), void *priv)
{
	struct ic_tree *t = &sb->s_icache->tree;
	const _Atomic u64 *slots;
	u64 seen = 0;

	if (ino > t->max_ino)
		return 0;
	rcu_read_lock();
	slots = ic_tree_slots(t, ino);
	for (; slots && wanted; wanted &= wanted - 1) {
		u32 i = (u32)__builtin_ctzll(wanted);
		struct inode *inode = slot_of(slots, i);

		if (inode && peek(inode, fn, priv))
			seen |= 1ull << i;
	}
	rcu_read_unlock();
	return seen;
}

bool icache_peek(struct super_block *sb, ino_nr ino,
		 void (*fn)(const struct inode *inode, void *priv), void *priv)
{
	return icache_peek_run(sb, ino, 1ull << ino % 64, fn, priv) != 0;
}

/* RCU read side held. */
static bool slot_looked_up(u64 v)
{
	struct inode *inode;
	u64 nlookup;

	if (!v || is_shadow(v))
		return v != 0;
	inode = slot_inode(v);
	spin_lock(&inode->i_lock);
	nlookup = inode_nlookup(inode);
	spin_unlock(&inode->i_lock);
	return nlookup > 0;
}

u32 icache_looked_up(struct super_block *sb, u64 *ino, ino_nr *out, u32 max)
{
	struct ic_tree *t = &sb->s_icache->tree;
	u32 nr = 0;

	while (nr < max && *ino <= t->max_ino) {
		u32 steps = 64; /* as long as the read side lasts */
		u64 v;

		rcu_read_lock();
		while (nr < max &&
		       ic_tree_next(t, ino, INODE_TAG_NONE, &v, &steps)) {
			if (slot_looked_up(v))
				out[nr++] = (ino_nr)*ino;
			++*ino;
		}
		rcu_read_unlock();
	}
	return nr;
}

/* ---- reclaim ---- */

struct inode_scan {
	struct lru_scan scan;
	struct icache *ic;
	struct cds_list_head victims; /* claimed */
	u64 want, freed;              /* inodes */
};

/*
 * Claims what can go. Busy ones leave the list (their last put brings them back),
 * those with a second chance, or whose i_lock is taken, go to its end.
 */
static enum lru_verdict inode_isolate_locked(struct inode_scan *s,
					     struct inode *inode)
{
	if (inode_state(inode) & I_REFERENCED) {
		state_clear_locked(inode, I_REFERENCED);
		state_set_locked(inode, I_WORKINGSET);
		zone_gets_older(s->ic, inode->i_zone);
		return LRU_ROTATED;
	}
	/* Eviction would wait for its I/O. */
	if (atomic_load(&inode->i_mapping.m_nr_writeback))
		return LRU_BUSY;
	if (inode_is_evictable(inode) &&
	    nlookup_close_locked(inode, SHADOW_NLOOKUP_MAX)) {
		/* As inode_claim_locked(); clean, so on no dirty list. */
		state_set_locked(inode, I_FREEING);
		cds_list_add_tail(&inode->i_lru, &s->victims);
	} else if (inode_nlookup(inode) > SHADOW_NLOOKUP_MAX ||
		   mapping_error_unseen(&inode->i_mapping)) {
		/* No put may come: a FORGET makes it evictable, or that
		 * somebody is told. */
		return LRU_BUSY;
	}
	state_clear_locked(inode, I_LRU);
	return LRU_REMOVED;
}

/* i_lock against the order, by trylock. */
static enum lru_verdict inode_isolate(struct cds_list_head *item,
				      struct lru_scan *scan)
{
	struct inode_scan *s = caa_container_of(scan, struct inode_scan, scan);
	struct inode *inode = caa_container_of(item, struct inode, i_lru);
	enum lru_verdict verdict;

	if (!spin_trylock(&inode->i_lock))
		return LRU_BUSY;
	verdict = inode_isolate_locked(s, inode);
	spin_unlock(&inode->i_lock);
	return verdict;
}

static bool inode_dispose(struct lru_scan *scan)
{
	struct inode_scan *s = caa_container_of(scan, struct inode_scan, scan);
	struct inode *inode, *next;

	/* I_FREEING is ours: no lock needed to walk. */
	cds_list_for_each_entry_safe(inode, next, &s->victims, i_lru) {
		inode_evict(s->ic, inode, false);
		s->freed++;
	}
	CDS_INIT_LIST_HEAD(&s->victims);
	return s->freed < s->want;
}

static u64 icache_scan(struct shrinker *shrinker, struct shrink_control *sc)
{
	struct icache *ic = shrinker->priv;
	struct inode_scan s = {
		.scan = { .isolate = inode_isolate, .dispose = inode_dispose },
		.ic = ic,
		.want = sc->bytes / INODE_COST + 1,
	};

	CDS_INIT_LIST_HEAD(&s.victims);
	lru_shrink(ic->lru, sc->zone, &s.scan);
	sc->scanned += s.scan.scanned;
	sc->rotated += s.scan.rotated;
	return s.freed * INODE_COST;
}

static void icache_trim(struct shrinker *shrinker)
{
	struct icache *ic = shrinker->priv;

	if (ic->pool)
		mem_pool_trim(ic->pool);
}

static u64 icache_count(const struct shrinker *shrinker, u32 zone)
{
	const struct icache *ic = shrinker->priv;

	return lru_nr(ic->lru, zone);
}

/*
 * Found unused by the walk, which has the only reference: evicted when that is
 * put. Somebody who took one meanwhile may as well have used it before. What
 * is under WRITEBACK would be waited for.
 */
static int drop_one(struct inode *inode, void *priv)
{
	if (atomic_load(&inode->i_count) == 1 &&
	    !atomic_load(&inode->i_mapping.m_nr_writeback))
		inode_set_dontcache(inode);
	return INO_ITER_RET_CONT;
}

u64 icache_shrink_all(struct super_block *sb)
{
	struct icache *ic = sb->s_icache;
	s64 before = counter_sum(ic->evicted);

	(void)super_iter_inodes(sb, drop_one, NULL, INO_ITER_F_RECLAIMABLE);
	return (u64)(counter_sum(ic->evicted) - before);
}

/* ---- unmount ---- */

struct evict_pass {
	struct icache *ic;
	struct inode *victim;     /* claimed */
	const struct inode *busy; /* another is at this one; an address only */
	ino_nr busy_ino;
};

/* One inode of the pass; in an RCU section. One in use is left alone. */
static int claim_at_unmount(struct inode *inode, void *priv)
{
	struct evict_pass *pass = priv;
	u32 state;

	spin_lock(&inode->i_lock);
	state = inode_state(inode);
	atomic_fetch_and(&inode->i_nlookup, NLOOKUP_CLOSED);
	if (state & I_FREEING && !(state & I_UNHASHED)) {
		pass->busy = inode;
		pass->busy_ino = inode->i_ino;
	} else if (!atomic_load(&inode->i_count) && !(state & I_BUSY)) {
		if (inode->i_nlink && state & I_DIRTY)
			log_ratelimited(LOG_LVL_ERR,
					"%s: inode %u is dirty at unmount (state %#x): "
					"its changes are lost", pass->ic->sb->s_id,
					inode->i_ino, state);
		atomic_fetch_or(&inode->i_nlookup, NLOOKUP_CLOSED);
		inode_claim_locked(pass->ic, inode);
		state_clear_locked(inode, I_DIRTY);
		pass->victim = inode;
	}
	spin_unlock(&inode->i_lock);
	return pass->victim ? INO_ITER_RET_ABORT : INO_ITER_RET_CONT;
}

/*
 * Evicts one that is not in use; false if there is none and no other is at
 * any. One at a time: its end may need another, which must not have been
 * claimed by us. (The walk finds the next at once, for it is the first.)
 */
static bool evict_one(struct icache *ic)
{
	struct evict_pass pass = { .ic = ic };

	super_iter_inodes_unsafe(ic->sb, claim_at_unmount, &pass);
	if (pass.victim)
		inode_evict(ic, pass.victim, pass.victim->i_nlink == 0);
	else if (pass.busy)
		slot_wait(ic, pass.busy_ino, pass.busy);
	return pass.victim || pass.busy;
}

/* Erases a shadow whatever its count; false if it is none any more. */
static bool shadow_drop(struct icache *ic, ino_nr ino)
{
	struct spinlock *lock = ic_tree_lock_of(&ic->tree, ino);
	bool dropped;

	spin_lock(lock);
	dropped = is_shadow(ic_tree_get(&ic->tree, ino));
	if (dropped)
		ic_tree_set_locked(&ic->tree, ino, 0);
	spin_unlock(lock);
	if (dropped)
		counter_add(ic->shadows, -1);
	return dropped;
}

/* True if there were any. */
static bool drop_shadows(struct icache *ic)
{
	bool dropped = false;
	u64 ino = 1;

	while (ino <= ic->tree.max_ino) {
		u32 steps = TREE_STEPS;
		u64 v;

		rcu_read_lock();
		while (ic_tree_next(&ic->tree, &ino, INODE_TAG_NONE, &v, &steps)) {
			if (is_shadow(v))
				dropped |= shadow_drop(ic, (ino_nr)ino);
			ino++;
		}
		rcu_read_unlock();
	}
	return dropped;
}

static int log_referenced(struct inode *inode, void *priv)
{
	/* One reference is the walk's. */
	log_err("%s: inode %u still has %u users at unmount (state %#x)",
		inode->i_sb->s_id, inode->i_ino,
		atomic_load(&inode->i_count) - 1, inode_state(inode));
	return INO_ITER_RET_CONT;
}

void icache_evict_all(struct super_block *sb)
{
	struct icache *ic = sb->s_icache;

	/* First, or each walk would pass over them again. */
	(void)drop_shadows(ic);
	/* Evicting one may put, or even read, others: until all is quiet. */
	do {
		while (evict_one(ic))
			;
	} while (drop_shadows(ic));
	(void)super_iter_inodes(sb, log_referenced, NULL, INO_ITER_F_REFERENCED);
}

/* ---- mount ---- */

static void icache_free(struct icache *ic)
{
	if (!ic)
		return;
	/* Inodes that are still in use, a bug that was logged, keep theirs. */
	if (!ic->inodes || counter_sum(ic->inodes) == 0)
		mem_pool_free(ic->pool);
	counter_free(ic->inodes);
	counter_free(ic->shadows);
	counter_free(ic->hits);
	counter_free(ic->misses);
	counter_free(ic->evicted);
	lru_free(ic->lru);
	ic_tree_destroy(&ic->tree);
	free(ic);
}

static void dirty_list_init(struct dirty_list *dl)
{
	spin_init(&dl->lock, RANK_CACHE_LIST);
	CDS_INIT_LIST_HEAD(&dl->queue);
	CDS_INIT_LIST_HEAD(&dl->batch);
	CDS_INIT_LIST_HEAD(&dl->more);
	CDS_INIT_LIST_HEAD(&dl->syncing);
	atomic_init(&dl->nr, 0);
}

int icache_create(struct super_block *sb, ino_nr max_ino)
{
	u32 zones = zone_count(sb->s_budget);
	struct icache *ic;
	size_t size;

	size = sizeof(*ic) + zones * sizeof(ic->zone[0]);
	ic = aligned_alloc(_Alignof(struct icache),
			   ALIGN_UP(size, _Alignof(struct icache)));
	if (!ic)
		return -ENOMEM;
	memset(ic, 0, size);
	ic->sb = sb;
	ic->lru = lru_new(zones, zone_hash_lists(sb->s_budget));
	/* A stamp comes round after at least two turnovers of the cache. */
	while (budget_limit(sb->s_budget) / INODE_COST >> ic->stamp_shift >=
	       1ull << (SHADOW_STAMP_BITS - 1))
		ic->stamp_shift++;
	ic->inodes = counter_new(0, 32);
	ic->shadows = counter_new(0, 32);
	ic->hits = counter_new(0, 1024);
	ic->misses = counter_new(0, 1024);
	ic->evicted = counter_new(0, 1024);
	if (zones > 1 && OWN_MEMORY)
		ic->pool = mem_pool_new(0, zones, zone_lists(sb->s_budget),
					zone_nodes(sb->s_budget));
	if (ic_tree_init(&ic->tree, sb->s_budget, max_ino) || !ic->lru ||
	    (zones > 1 && OWN_MEMORY && !ic->pool) ||
	    !ic->inodes || !ic->shadows || !ic->hits || !ic->misses || !ic->evicted ||
	    sb_iter_create(sb)) {
		icache_free(ic);
		return -ENOMEM;
	}
	for (u32 i = 0; i < DIRTY_LISTS; i++)
		dirty_list_init(&ic->dirty[i]);
	ic->shrinker = (struct shrinker){
		.name = "inodes",
		.kind = BUDGET_INODE,
		.scan = icache_scan,
		.count = icache_count,
		.trim = icache_trim,
		.priv = ic,
	};
	sb->s_icache = ic;
	budget_register(sb->s_budget, &ic->shrinker);
	return 0;
}

void icache_destroy(struct super_block *sb)
{
	struct icache *ic = sb->s_icache;

	if (!ic)
		return;
	budget_unregister(sb->s_budget, &ic->shrinker);
	icache_evict_all(sb);
	/* What this queues for their mappings, mapping_cache_destroy() waits for. */
	rcu_barrier();
	for (u32 i = 0; i < DIRTY_LISTS; i++)
		spin_destroy(&ic->dirty[i].lock);
	sb_iter_destroy(sb);
	icache_free(ic);
	sb->s_icache = NULL;
}

static u64 counter_u64(const struct counter *c)
{
	s64 v = counter_sum(c);

	return v > 0 ? (u64)v : 0;
}

void icache_get_stats(struct super_block *sb, struct icache_stats *st)
{
	struct icache *ic = sb->s_icache;

	st->inodes = counter_u64(ic->inodes);
	st->shadows = counter_u64(ic->shadows);
	st->hits = counter_u64(ic->hits);
	st->misses = counter_u64(ic->misses);
	st->evicted = counter_u64(ic->evicted);
	st->refaults = atomic_load(&ic->refaults);
	st->refaults_near = atomic_load(&ic->refaults_near);
	st->thrashed = atomic_load(&ic->thrashed);
}

static int count_one(struct inode *inode, void *priv)
{
	struct icache_census *c = priv;
	u32 state = inode_state(inode);

	if (state & I_BUSY)
		return INO_ITER_RET_CONT;
	c->referenced += inode_fits_walk(inode, INO_ITER_F_REFERENCED);
	c->dirty += inode_fits_walk(inode, INO_ITER_F_DIRTY);
	c->reclaimable += inode_fits_walk(inode, INO_ITER_F_RECLAIMABLE);
	c->dontcache += inode_fits_walk(inode, INO_ITER_F_DONTCACHE);
	c->unlinked += atomic_load(&inode->i_nlink) == 0;
	return INO_ITER_RET_CONT;
}

void icache_take_census(struct super_block *sb, struct icache_census *census)
{
	*census = (struct icache_census){ 0 };
	super_iter_inodes_unsafe(sb, count_one, census);
}
