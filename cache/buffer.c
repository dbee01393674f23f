/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/buffer.c - metadata buffer cache: blocks of the volume by block number
 *
 * Life of a buffer. b_count counts its users; the cache itself has none, so a
 * cached buffer nobody uses has 0. Whoever turns 0 into BUFFER_DEAD by
 * compare-and-swap owns its end: takes it out of the hash and the LRU and
 * frees it a grace period later. That may be the LRU scan, or, for a detached
 * buffer, whoever drops the last reference.
 *
 *     add        put             scan, or put when detached
 *   ------> n>0 ----> 0 (LRU) ---------------------------> DEAD --> freed
 *            ^ get    |
 *            +--------+
 *
 * Lookup against reclaim: the lookup's increment fails on DEAD; it then takes
 * the dead buffer out of the hash itself (only one of those who try succeeds)
 * and looks again, so it never waits for the reclaimer.
 * Put against reclaim: once its decrement made 0, a putter has no right to the
 * buffer but its RCU section. It enters the buffer into the LRU under the LRU
 * lock, and not if dead; the killer takes it off under the same lock, after it
 * wrote DEAD. So no dead buffer stays on a list.
 * Put against detach: one stores DETACHED then looks at the count, the other
 * the count then DETACHED, all sequentially consistent: at least one sees both.
 *
 * Locks:   LRU list lock, a leaf. b_lock for the first (or another) verify().
 * Alive:   b_count, or an RCU read-side section.
 * Never:   I/O except through sb->s_backing_ops.
 */
#include "cache/buffer.h"
#include "cache/lru.h"
#include "cache/pool.h"
#include "cache/shrinker.h"
#include "cache/zone.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/thread.h"
#include "lib/wait.h"

#include <assert.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define BUFFER_DEAD (1u << 31)
#define READAHEAD_MAX 128u

struct bcache {
	struct super_block *sb;    /* [const] */
	struct cds_lfht *ht;       /* [rcu] by block number */
	struct mem_pool *pool;     /* [const] memory of the blocks */
	struct lru *lru;           /* [const] */
	struct shrinker shrinker;
	_Atomic u32 nr_readahead;  /* [atomic] in flight; its wait key */
};

/* One asynchronous read of consecutive blocks. */
struct readahead {
	struct bcache *bc;
	u32 nr;
	struct buffer *b[READAHEAD_MAX]; /* a reference on each */
};

static struct buffer *node_buffer(struct cds_lfht_node *node)
{
	return caa_container_of(node, struct buffer, b_node);
}

static unsigned long hash_block(pblk_t blk)
{
	blk *= 0x9E3779B97F4A7C15ull;
	return (unsigned long)(blk ^ blk >> 32);
}

static int match_block(struct cds_lfht_node *node, const void *key)
{
	return node_buffer(node)->b_blocknr == *(const pblk_t *)key;
}

static u32 buffer_zone(const struct buffer *b)
{
	return mem_chunk_zone(b->b_chunk);
}

static struct lru_list *buffer_lru(struct bcache *bc, const struct buffer *b)
{
	return lru_list_of(bc->lru, buffer_zone(b),
			   hash_block(b->b_blocknr) >> 7);
}

static s64 buffer_cost(const struct super_block *sb)
{
	return (s64)(sizeof(struct buffer) + sb->s_blocksize);
}

/* ---- memory ---- */

static void buffer_free_rcu(struct rcu_head *head)
{
	struct buffer *b = caa_container_of(head, struct buffer, b_rcu);

	mutex_destroy(&b->b_lock);
	spin_destroy(&b->b_jlock);
	mem_unit_free(b->b_chunk, b->b_data);
	free(b);
}

/* With one reference, not in the cache. Patient: half of a change may be made. */
static struct buffer *buffer_alloc(struct super_block *sb, pblk_t blk, u32 state)
{
	struct buffer *b = calloc_patient(1, sizeof(*b));
	u32 zone = zone_home(sb->s_budget);
	int tries = 0;

	if (!b)
		return NULL;
	do {
		b->b_data = mem_unit_alloc(sb->s_bcache->pool, sb->s_blocksize,
					   zone, &b->b_chunk);
	} while (!b->b_data && mem_pause(&tries));
	if (!b->b_data) {
		free(b);
		return NULL;
	}
	b->b_sb = sb;
	b->b_blocknr = blk;
	cds_lfht_node_init(&b->b_node);
	CDS_INIT_LIST_HEAD(&b->b_lru);
	mutex_init(&b->b_lock, RANK_BUFFER);
	spin_init(&b->b_jlock, RANK_JH);
	atomic_store_explicit(&b->b_state, state, memory_order_relaxed);
	/* Release: pairs with the acquire in buffer_tryget(). */
	atomic_store_explicit(&b->b_count, 1, memory_order_release);
	zone_charge(sb->s_budget, buffer_zone(b), BUDGET_BUFFER,
		    buffer_cost(sb));
	return b;
}

static void buffer_uncharge(const struct buffer *b)
{
	zone_uncharge(b->b_sb->s_budget, buffer_zone(b), BUDGET_BUFFER,
		      buffer_cost(b->b_sb));
}

/* Of a buffer that was never in the cache. */
static void buffer_free_new(struct buffer *b)
{
	buffer_uncharge(b);
	buffer_free_rcu(&b->b_rcu);
}

/* ---- references ---- */

/* RCU read side held. Fails on a dead buffer. */
static bool buffer_tryget(struct buffer *b)
{
	u32 n = atomic_load_explicit(&b->b_count, memory_order_acquire);

	while (n != BUFFER_DEAD) {
		if (atomic_compare_exchange_weak(&b->b_count, &n, n + 1))
			return true;
	}
	return false;
}

/* RCU read side held; count 0 -> DEAD. */
static bool buffer_kill(struct buffer *b)
{
	u32 zero = 0;

	return atomic_compare_exchange_strong(&b->b_count, &zero, BUFFER_DEAD);
}

/* Out of the hash. RCU read side held. Several may try. */
static void buffer_unhash(struct bcache *bc, struct buffer *b)
{
	(void)cds_lfht_del(bc->ht, &b->b_node);
}

/* After buffer_kill(), off the LRU. RCU read side held. */
static void buffer_bury(struct bcache *bc, struct buffer *b)
{
	assert(!b->b_jh);
	buffer_unhash(bc, b);
	buffer_uncharge(b);
	call_rcu(&b->b_rcu, buffer_free_rcu);
}

/* RCU read side held. Frees a detached buffer that nobody uses. */
static void buffer_reap(struct bcache *bc, struct buffer *b)
{
	struct lru_list *lru = buffer_lru(bc, b);

	if (!buffer_kill(b))
		return;
	lru_lock(lru);
	if (atomic_load(&b->b_state) & BUF_LRU) {
		atomic_fetch_and(&b->b_state, ~BUF_LRU);
		lru_del_locked(lru, &b->b_lru);
	}
	lru_unlock(lru);
	buffer_bury(bc, b);
}

/* RCU read side held; the count was seen 0. */
static void buffer_lru_add(struct bcache *bc, struct buffer *b)
{
	struct lru_list *lru = buffer_lru(bc, b);

	lru_lock(lru);
	if (!(atomic_load(&b->b_state) & BUF_LRU) &&
	    atomic_load(&b->b_count) != BUFFER_DEAD) {
		atomic_fetch_or(&b->b_state, BUF_LRU);
		lru_add_locked(lru, &b->b_lru);
	}
	lru_unlock(lru);
}

void buffer_get(struct buffer *b)
{
	u32 n = atomic_fetch_add(&b->b_count, 1);

	assert(n > 0 && n < BUFFER_DEAD - 1);
}

void buffer_put(struct buffer *b)
{
	struct bcache *bc;
	u32 n;
	u32 state;

	if (!b)
		return;
	bc = b->b_sb->s_bcache;
	rcu_read_lock();
	n = atomic_fetch_sub(&b->b_count, 1);
	assert(n > 0 && n < BUFFER_DEAD);
	if (n == 1) {
		/* From here on only RCU keeps b. */
		state = atomic_load(&b->b_state);
		if (state & BUF_DETACHED)
			buffer_reap(bc, b);
		else if (!(state & BUF_LRU))
			buffer_lru_add(bc, b);
	}
	rcu_read_unlock();
}

/* RCU read side held. */
static void buffer_detach_rcu(struct bcache *bc, struct buffer *b)
{
	if (atomic_fetch_or(&b->b_state, BUF_DETACHED) & BUF_DETACHED)
		return;
	buffer_unhash(bc, b);
	buffer_reap(bc, b); /* does nothing while it has users */
}

void buffer_detach(struct buffer *b)
{
	rcu_read_lock();
	buffer_detach_rcu(b->b_sb->s_bcache, b);
	rcu_read_unlock();
}

/* ---- lookup ---- */

/* What the hash has, in any state, referenced; or NULL. touch: it is wanted, and
 * gets a second chance. */
static struct buffer *bcache_lookup(struct bcache *bc, pblk_t blk, bool touch)
{
	struct buffer *b;

	rcu_read_lock();
	for (;;) {
		struct cds_lfht_iter iter;
		struct cds_lfht_node *node;

		cds_lfht_lookup(bc->ht, hash_block(blk), match_block, &blk,
				&iter);
		node = cds_lfht_iter_get_node(&iter);
		if (!node) {
			b = NULL;
			break;
		}
		b = node_buffer(node);
		if (buffer_tryget(b)) {
			u32 state = atomic_load(&b->b_state);

			if (touch && !(state & BUF_REFERENCED))
				atomic_fetch_or(&b->b_state, BUF_REFERENCED);
			if (!(state & BUF_DETACHED))
				break;
			buffer_put(b);
		}
		/* Dead or detached, on its way out of the hash: help it. */
		buffer_unhash(bc, b);
	}
	rcu_read_unlock();
	return b;
}

/*
 * Enters a new buffer unless the block is cached: NULL if it was entered, else
 * the one that is there, referenced.
 */
static struct buffer *bcache_add(struct bcache *bc, struct buffer *fresh)
{
	pblk_t blk = fresh->b_blocknr;
	struct buffer *b;

	rcu_read_lock();
	for (;;) {
		b = node_buffer(cds_lfht_add_unique(bc->ht, hash_block(blk),
						    match_block, &blk,
						    &fresh->b_node));
		if (b == fresh) {
			b = NULL;
			break;
		}
		if (buffer_tryget(b)) {
			if (!(atomic_load(&b->b_state) & BUF_DETACHED))
				break;
			buffer_put(b);
		}
		buffer_unhash(bc, b);
	}
	rcu_read_unlock();
	return b;
}

static struct buffer *find_uptodate(struct super_block *sb, pblk_t blk, bool touch)
{
	struct buffer *b = bcache_lookup(sb->s_bcache, blk, touch);
	u32 state;

	if (!b)
		return NULL;
	state = atomic_load(&b->b_state);
	if ((state & BUF_UPTODATE) && !(state & BUF_DETACHED))
		return b;
	buffer_put(b);
	return NULL;
}

struct buffer *buffer_find(struct super_block *sb, pblk_t blk)
{
	return find_uptodate(sb, blk, true);
}

struct buffer *buffer_peek(struct super_block *sb, pblk_t blk)
{
	return find_uptodate(sb, blk, false);
}

/* ---- reading ---- */

static bool buffer_was_verified(const struct buffer *b,
				const struct buffer_type *type, u32 seed);

struct buffer *buffer_find_checked(struct super_block *sb, pblk_t blk,
				   const struct buffer_type *type, u32 seed)
{
	struct buffer *b = find_uptodate(sb, blk, true);

	if (!b || buffer_was_verified(b, type, seed))
		return b;
	buffer_put(b);
	return NULL;
}

const struct buffer *buffer_peek_rcu(struct super_block *sb, pblk_t blk,
				     const struct buffer_type *type, u32 seed)
{
	const u32 wanted = BUF_UPTODATE | BUF_REFERENCED;
	struct cds_lfht_iter iter;
	struct cds_lfht_node *node;
	const struct buffer *b;

	cds_lfht_lookup(sb->s_bcache->ht, hash_block(blk), match_block, &blk,
			&iter);
	node = cds_lfht_iter_get_node(&iter);
	if (!node)
		return NULL;
	b = node_buffer(node);
	/* One that is dead is clean, and its content what it was. */
	if ((atomic_load(&b->b_state) & (wanted | BUF_DETACHED)) != wanted ||
	    !buffer_was_verified(b, type, seed))
		return NULL;
	return b;
}

/* Ends a read: everybody who waits sees the result. The caller has a reference. */
static void buffer_end_read(struct bcache *bc, struct buffer *b, int error)
{
	if (error) {
		/* Nobody new finds it; who waits already sees the error. */
		atomic_fetch_or(&b->b_state, BUF_IO_ERROR);
		buffer_detach(b);
	} else {
		atomic_fetch_or(&b->b_state, BUF_UPTODATE);
	}
	atomic_fetch_and(&b->b_state, ~BUF_READING);
	wake_up(b);
}

static int buffer_read_now(struct bcache *bc, struct buffer *b)
{
	struct super_block *sb = bc->sb;
	struct iovec iov = { .iov_base = b->b_data, .iov_len = sb->s_blocksize };
	int error;

	error = sb->s_backing_ops->read(sb->s_backing, b->b_blocknr, 1, &iov, 1);
	buffer_end_read(bc, b, error);
	return error;
}

static bool buffer_was_verified(const struct buffer *b,
				const struct buffer_type *type, u32 seed)
{
	u32 seq = atomic_load(&b->b_verify_seq);

	return !(seq & 1) && atomic_load(&b->b_type) == type &&
	       atomic_load(&b->b_seed) == seed &&
	       atomic_load(&b->b_verify_seq) == seq;
}

/*
 * Checks the content as `type` unless that was done. A buffer that never
 * passed any check is dropped from the cache when it fails. One that did pass
 * as another type stays: somebody may have changed it since, the journal may
 * have it, and only he who asked now is wrong about it.
 *
 * Type and seed are read without b_lock as a pair: b_verify_seq is odd while
 * they change.
 */
static int buffer_verify(struct buffer *b, const struct buffer_type *type,
			 u32 seed)
{
	bool never = false;
	int error = 0;

	if (buffer_was_verified(b, type, seed))
		return 0;
	mutex_lock(&b->b_lock);
	if (atomic_load(&b->b_type) == type && atomic_load(&b->b_seed) == seed)
		goto out_unlock;
	if (type && type->verify)
		error = type->verify(b->b_sb, b, b->b_data, seed);
	if (error) {
		never = !atomic_load(&b->b_type);
		goto out_unlock;
	}
	atomic_fetch_add(&b->b_verify_seq, 1);
	atomic_store(&b->b_type, type);
	atomic_store(&b->b_seed, seed);
	atomic_fetch_add(&b->b_verify_seq, 1);
out_unlock:
	mutex_unlock(&b->b_lock);
	if (never)
		buffer_detach(b);
	return error;
}

/*
 * Up to date, not verified. A reader that waited shares the error of the read
 * it waited for, so that many readers of a bad block read it once; but a
 * failed readahead may have failed for another of its blocks: read again.
 */
static int buffer_get_uptodate(struct bcache *bc, pblk_t blk, struct buffer **out)
{
	for (;;) {
		struct buffer *b = bcache_lookup(bc, blk, true);
		u32 state;
		int error;

		if (!b) {
			struct buffer *fresh;

			fresh = buffer_alloc(bc->sb, blk, BUF_READING);
			if (!fresh)
				return -ENOMEM;
			b = bcache_add(bc, fresh);
			if (!b) {
				error = buffer_read_now(bc, fresh);
				if (!error) {
					*out = fresh;
					return 0;
				}
				buffer_put(fresh);
				return error;
			}
			buffer_free_new(fresh);
		}
		wait_event(b, !(atomic_load(&b->b_state) & BUF_READING));
		state = atomic_load(&b->b_state);
		if (state & BUF_UPTODATE && !(state & BUF_DETACHED)) {
			*out = b;
			return 0;
		}
		buffer_put(b);
		if (state & BUF_IO_ERROR && !(state & BUF_READAHEAD))
			return -EIO;
	}
}

int buffer_read(struct super_block *sb, pblk_t blk,
		const struct buffer_type *type, u32 seed, struct buffer **out)
{
	struct buffer *b;
	int error;

	thread_might_block();
	error = buffer_get_uptodate(sb->s_bcache, blk, &b);
	if (error)
		return error;
	error = buffer_verify(b, type, seed);
	if (error) {
		buffer_put(b);
		return error;
	}
	*out = b;
	return 0;
}

/*
 * A new object in the place of the old one, never the old one zeroed: a reader
 * (the journal, a readahead still in flight) may be at work on the old memory.
 */
int buffer_get_zeroed(struct super_block *sb, pblk_t blk,
		      const struct buffer_type *type, u32 seed,
		      struct buffer **out)
{
	struct bcache *bc = sb->s_bcache;
	struct cds_lfht_node *old;
	struct buffer *b;

	b = buffer_alloc(sb, blk, BUF_UPTODATE);
	if (!b)
		return -ENOMEM;
	memset(b->b_data, 0, sb->s_blocksize);
	atomic_store(&b->b_type, type);
	atomic_store(&b->b_seed, seed);
	/* Again a release store for those who find it: the fields above. */
	atomic_store_explicit(&b->b_count, 1, memory_order_release);

	rcu_read_lock();
	old = cds_lfht_add_replace(bc->ht, hash_block(blk), match_block, &blk,
				   &b->b_node);
	/* Out of the hash: any who still has it sees it is detached. */
	if (old)
		buffer_detach_rcu(bc, node_buffer(old));
	rcu_read_unlock();
	*out = b;
	return 0;
}

/* ---- readahead ---- */

/* From an I/O thread, or from the submitter if submission failed. */
static void readahead_done(void *priv, int error)
{
	struct readahead *ra = priv;
	struct bcache *bc = ra->bc;

	for (u32 i = 0; i < ra->nr; i++) {
		buffer_end_read(bc, ra->b[i], error);
		buffer_put(ra->b[i]);
	}
	free(ra);
	/* bc may be gone once this is 0: only its address is used. */
	if (atomic_fetch_sub(&bc->nr_readahead, 1) == 1)
		wake_up(&bc->nr_readahead);
}

static void readahead_submit(struct bcache *bc, struct readahead *ra)
{
	struct super_block *sb = bc->sb;
	struct iovec iov[READAHEAD_MAX];
	int error;

	for (u32 i = 0; i < ra->nr; i++) {
		iov[i].iov_base = ra->b[i]->b_data;
		iov[i].iov_len = sb->s_blocksize;
	}
	atomic_fetch_add(&bc->nr_readahead, 1);
	error = sb->s_backing_ops->read_async(sb->s_backing,
					      ra->b[0]->b_blocknr, ra->nr, iov,
					      (int)ra->nr, readahead_done, ra);
	if (error)
		readahead_done(ra, error);
}

/* True if some state of the block is cached. */
static bool bcache_has(struct bcache *bc, pblk_t blk)
{
	struct cds_lfht_iter iter;
	bool has;

	rcu_read_lock();
	cds_lfht_lookup(bc->ht, hash_block(blk), match_block, &blk, &iter);
	has = cds_lfht_iter_get_node(&iter);
	rcu_read_unlock();
	return has;
}

/* A buffer to be read ahead, entered; NULL if there is one, or no memory. */
static struct buffer *readahead_add(struct bcache *bc, pblk_t blk)
{
	struct buffer *fresh;
	struct buffer *b;

	if (bcache_has(bc, blk))
		return NULL;
	fresh = buffer_alloc(bc->sb, blk, BUF_READING | BUF_READAHEAD);
	if (!fresh)
		return NULL;
	b = bcache_add(bc, fresh);
	if (!b)
		return fresh;
	buffer_free_new(fresh);
	buffer_put(b);
	return NULL;
}

void buffer_readahead(struct super_block *sb, pblk_t blk, u32 nr)
{
	struct bcache *bc = sb->s_bcache;
	struct readahead *ra = NULL;
	pblk_t end;

	if (!sb->s_backing_ops->read_async ||
	    budget_is_full(sb->s_budget))
		return;
	end = blk + min_of(nr, READAHEAD_MAX);
	for (; blk < end; blk++) {
		struct buffer *b;

		if (!ra) {
			ra = malloc(sizeof(*ra));
			if (!ra)
				return;
			ra->bc = bc;
			ra->nr = 0;
		}
		b = readahead_add(bc, blk);
		if (b) {
			ra->b[ra->nr++] = b;
			continue;
		}
		if (ra->nr) {
			readahead_submit(bc, ra);
			ra = NULL;
		}
	}
	if (ra && ra->nr)
		readahead_submit(bc, ra);
	else
		free(ra);
}

/* ---- reclaim ---- */

struct buffer_scan {
	struct lru_scan scan;
	struct bcache *bc;
	struct cds_list_head victims; /* dead */
	bool force;                   /* no second chances */
	u64 want, freed;              /* buffers */
};

/* Those in use and those with a second chance go to the end. */
static enum lru_verdict buffer_isolate(struct cds_list_head *item,
				       struct lru_scan *scan)
{
	struct buffer_scan *s = caa_container_of(scan, struct buffer_scan, scan);
	struct buffer *b = caa_container_of(item, struct buffer, b_lru);

	if (atomic_load(&b->b_state) & BUF_REFERENCED && !s->force) {
		atomic_fetch_and(&b->b_state, ~BUF_REFERENCED);
		return LRU_ROTATED;
	}
	if (!buffer_kill(b))
		return LRU_BUSY;
	atomic_fetch_and(&b->b_state, ~BUF_LRU);
	cds_list_add_tail(&b->b_lru, &s->victims);
	return LRU_REMOVED;
}

static bool buffer_dispose(struct lru_scan *scan)
{
	struct buffer_scan *s = caa_container_of(scan, struct buffer_scan, scan);
	struct buffer *b, *next;

	/* Dead by our hand: they are ours until call_rcu(). */
	rcu_read_lock();
	cds_list_for_each_entry_safe(b, next, &s->victims, b_lru) {
		buffer_bury(s->bc, b);
		s->freed++;
	}
	rcu_read_unlock();
	CDS_INIT_LIST_HEAD(&s->victims);
	return s->freed < s->want;
}

static struct buffer_scan buffer_scan_of(struct bcache *bc, u64 want, bool force)
{
	return (struct buffer_scan){
		.scan = { .isolate = buffer_isolate, .dispose = buffer_dispose },
		.bc = bc,
		.force = force,
		.want = want,
	};
}

static u64 bcache_scan(struct shrinker *shrinker, struct shrink_control *sc)
{
	struct bcache *bc = shrinker->priv;
	u64 cost = (u64)buffer_cost(bc->sb);
	struct buffer_scan s = buffer_scan_of(bc, sc->bytes / cost + 1, false);

	CDS_INIT_LIST_HEAD(&s.victims);
	lru_shrink(bc->lru, sc->zone, &s.scan);
	sc->scanned += s.scan.scanned;
	sc->rotated += s.scan.rotated;
	return s.freed * cost;
}

static u64 bcache_count(const struct shrinker *shrinker, u32 zone)
{
	const struct bcache *bc = shrinker->priv;

	return lru_nr(bc->lru, zone);
}

void bcache_drop(struct super_block *sb)
{
	struct bcache *bc = sb->s_bcache;

	for (u32 zone = 0; zone < zone_count(sb->s_budget); zone++) {
		struct buffer_scan s = buffer_scan_of(bc, UINT64_MAX, true);

		CDS_INIT_LIST_HEAD(&s.victims);
		lru_shrink(bc->lru, zone, &s.scan);
	}
}

/* ---- mount and unmount ---- */

int bcache_create(struct super_block *sb)
{
	u32 zones = zone_count(sb->s_budget), lists = zone_lists(sb->s_budget);
	struct bcache *bc = calloc(1, sizeof(*bc));

	if (!bc)
		return -ENOMEM;
	bc->ht = cds_lfht_new(1024, 1024, 0,
			      CDS_LFHT_AUTO_RESIZE | CDS_LFHT_ACCOUNTING, NULL);
	bc->pool = mem_pool_new(0, zones, lists, zone_nodes(sb->s_budget));
	bc->lru = lru_new(zones, zone_hash_lists(sb->s_budget));
	if (!bc->ht || !bc->pool || !bc->lru) {
		if (bc->ht)
			cds_lfht_destroy(bc->ht, NULL);
		mem_pool_free(bc->pool);
		lru_free(bc->lru);
		free(bc);
		return -ENOMEM;
	}
	bc->sb = sb;
	bc->shrinker = (struct shrinker){
		.name = "buffers",
		.kind = BUDGET_BUFFER,
		.scan = bcache_scan,
		.count = bcache_count,
		.priv = bc,
	};
	sb->s_bcache = bc;
	budget_register(sb->s_budget, &bc->shrinker);
	return 0;
}

/* What is left after bcache_drop() is in use: a bug of its user. */
static void bcache_free_leaked(struct bcache *bc)
{
	struct cds_lfht_iter iter;
	struct cds_lfht_node *node;

	rcu_read_lock();
	cds_lfht_for_each(bc->ht, &iter, node) {
		struct buffer *b = caa_container_of(node, struct buffer, b_node);

		log_err("%s: block %" PRIu64 " (%s) still has %u users at "
			"unmount", bc->sb->s_id, b->b_blocknr,
			atomic_load(&b->b_type) ?
				atomic_load(&b->b_type)->name : "unverified",
			atomic_load(&b->b_count));
		atomic_store(&b->b_count, 0);
		b->b_jh = NULL;
		buffer_reap(bc, b);
	}
	rcu_read_unlock();
}

void bcache_destroy(struct super_block *sb)
{
	struct bcache *bc = sb->s_bcache;

	if (!bc)
		return;
	wait_event(&bc->nr_readahead, atomic_load(&bc->nr_readahead) == 0);
	budget_unregister(sb->s_budget, &bc->shrinker);
	bcache_drop(sb);
	bcache_free_leaked(bc);
	/* All frees done: nobody looks at the table any more. */
	rcu_barrier();
	if (cds_lfht_destroy(bc->ht, NULL))
		log_err("%s: buffer hash not empty at unmount", sb->s_id);
	lru_free(bc->lru);
	mem_pool_free(bc->pool);
	free(bc);
	sb->s_bcache = NULL;
}
