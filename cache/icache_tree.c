/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/icache_tree.c - the trees of the inode cache and their tags
 *
 * What they look like stands in icache_internal.h.
 *
 * Locks:   the run lock (RANK_CACHE_LIST), taken here but for the _locked.
 * Never:   an allocation under it: nodes are made before, in a stock.
 */
#include "cache/icache_internal.h"

#include "cache/budget.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define NODE_BITS 6
#define NODE_SLOTS (1u << NODE_BITS)
#define NODE_MASK (NODE_SLOTS - 1)
#define RUN_SPAN (1u << 2 * NODE_BITS)
#define SHARD_BITS (3 * NODE_BITS)
#define SHARD_SPAN (1u << SHARD_BITS)

struct ic_node {
	_Atomic u64 slot[NODE_SLOTS];  /* [rcu, write run lock] */
	_Atomic u64 tagged[INODE_TAGS]; /* [rcu, write run lock] bit: slot */
	u32 nr;                        /* slots not 0 [run lock] */
	struct rcu_head rcu;
};

struct ic_run {
	struct spinlock lock;         /* RANK_CACHE_LIST */
	struct ic_node *_Atomic node; /* [rcu, write lock] */
} __cacheline_aligned;

struct ic_shard {
	struct ic_run run[NODE_SLOTS];
};

/* Nodes made before the run lock is taken. */
struct node_stock {
	struct ic_node *node[2];
	u32 nr;
};

static u32 run_index(ino_nr ino)
{
	return ino >> 2 * NODE_BITS & NODE_MASK;
}

static u32 node_index(ino_nr ino)
{
	return ino >> NODE_BITS & NODE_MASK;
}

static u32 leaf_index(ino_nr ino)
{
	return ino & NODE_MASK;
}

static struct ic_shard *shard_of(const struct ic_tree *t, ino_nr ino)
{
	return atomic_load_explicit(&t->shards[ino >> SHARD_BITS],
				    memory_order_acquire);
}

static struct ic_run *run_of(const struct ic_tree *t, ino_nr ino)
{
	struct ic_shard *shard = shard_of(t, ino);

	return shard ? &shard->run[run_index(ino)] : NULL;
}

/* RCU read side or run lock held. Acquire: pairs with node_set(). */
static u64 node_get(const struct ic_node *node, u32 i)
{
	return atomic_load_explicit(&node->slot[i], memory_order_acquire);
}

static struct ic_node *node_child(const struct ic_node *node, u32 i)
{
	return (struct ic_node *)(uintptr_t)node_get(node, i);
}

static struct ic_node *run_node(struct ic_run *run)
{
	return atomic_load_explicit(&run->node, memory_order_acquire);
}

/* Run lock held. */
static void node_set(struct ic_node *node, u32 i, u64 v)
{
	u64 old = atomic_load_explicit(&node->slot[i], memory_order_relaxed);

	node->nr += (v != 0);
	node->nr -= (old != 0);
	atomic_store_explicit(&node->slot[i], v, memory_order_release);
}

/* RCU read side or run lock held; NULL if there is none. */
static struct ic_node *tree_leaf(const struct ic_tree *t, ino_nr ino)
{
	struct ic_run *run = run_of(t, ino);
	struct ic_node *node = run ? run_node(run) : NULL;

	return node ? node_child(node, node_index(ino)) : NULL;
}

u64 ic_tree_get(const struct ic_tree *t, ino_nr ino)
{
	struct ic_node *leaf = tree_leaf(t, ino);

	return leaf ? node_get(leaf, leaf_index(ino)) : 0;
}

const _Atomic u64 *ic_tree_slots(const struct ic_tree *t, ino_nr ino)
{
	struct ic_node *leaf = tree_leaf(t, ino);

	return leaf ? leaf->slot : NULL;
}

struct spinlock *ic_tree_lock_of(struct ic_tree *t, ino_nr ino)
{
	return &run_of(t, ino)->lock;
}

/* ---- memory ---- */

static void node_free_rcu(struct rcu_head *head)
{
	free(caa_container_of(head, struct ic_node, rcu));
}

static void node_uncharge(struct ic_tree *t)
{
	budget_uncharge(t->budget, BUDGET_INDEX, sizeof(struct ic_node));
}

static void stock_free(struct ic_tree *t, struct node_stock *stock)
{
	while (stock->nr) {
		free(stock->node[--stock->nr]);
		node_uncharge(t);
	}
}

static int stock_fill(struct ic_tree *t, struct node_stock *stock)
{
	while (stock->nr < ARRAY_SIZE(stock->node)) {
		struct ic_node *node = calloc(1, sizeof(*node));

		if (!node)
			return -ENOMEM;
		budget_charge(t->budget, BUDGET_INDEX, sizeof(*node));
		stock->node[stock->nr++] = node;
	}
	return 0;
}

static void shard_free(struct ic_shard *shard)
{
	for (u32 i = 0; i < NODE_SLOTS; i++)
		spin_destroy(&shard->run[i].lock);
	free(shard);
}

/* The run, its shard made if need be; NULL: no memory. */
static struct ic_run *run_make(struct ic_tree *t, ino_nr ino)
{
	struct ic_shard *shard = shard_of(t, ino);
	struct ic_shard *other = NULL;

	if (!shard) {
		shard = aligned_alloc(_Alignof(struct ic_shard), sizeof(*shard));
		if (!shard)
			return NULL;
		memset(shard, 0, sizeof(*shard));
		for (u32 i = 0; i < NODE_SLOTS; i++)
			spin_init(&shard->run[i].lock, RANK_CACHE_LIST);
		if (!atomic_compare_exchange_strong(
			    &t->shards[ino >> SHARD_BITS], &other, shard)) {
			shard_free(shard);
			shard = other;
		}
	}
	return &shard->run[run_index(ino)];
}

/* ---- tags ---- */

static bool node_is_tagged(const struct ic_node *node, enum inode_tag tag, u32 i)
{
	return atomic_load_explicit(&node->tagged[tag], memory_order_relaxed) >>
		       i & 1;
}

/* Run lock held; true if the map was empty before, or is empty now. */
static bool node_tag(struct ic_node *node, enum inode_tag tag, u32 i, bool on)
{
	u64 old = atomic_load_explicit(&node->tagged[tag], memory_order_relaxed);
	u64 now = on ? old | 1ull << i : old & ~(1ull << i);

	/* Release: who finds the bit finds what was stored in the slot. */
	atomic_store_explicit(&node->tagged[tag], now, memory_order_release);
	return !(on ? old : now);
}

/* Run lock held. Other runs' bits of the word change at the same time. */
static void run_tag(struct ic_tree *t, enum inode_tag tag, ino_nr ino, bool on)
{
	_Atomic u64 *word = &t->tagged_runs[tag][ino >> SHARD_BITS];
	u64 bit = 1ull << run_index(ino);

	if (on)
		atomic_fetch_or(word, bit);
	else
		atomic_fetch_and(word, ~bit);
}

/* Run lock held. Upwards as far as anything changes. */
static void tag_locked(struct ic_tree *t, ino_nr ino, struct ic_node *node,
		       struct ic_node *leaf, enum inode_tag tag, bool on)
{
	if (node_is_tagged(leaf, tag, leaf_index(ino)) == on)
		return;
	if (node_tag(leaf, tag, leaf_index(ino), on) &&
	    node_tag(node, tag, node_index(ino), on))
		run_tag(t, tag, ino, on);
}

void ic_tree_tag(struct ic_tree *t, ino_nr ino, enum inode_tag tag, bool on)
{
	struct ic_run *run = run_of(t, ino);
	struct ic_node *node;

	spin_lock(&run->lock);
	node = run_node(run);
	tag_locked(t, ino, node, node_child(node, node_index(ino)), tag, on);
	spin_unlock(&run->lock);
}

/* ---- changes ---- */

void ic_tree_set_locked(struct ic_tree *t, ino_nr ino, u64 v)
{
	struct ic_run *run = run_of(t, ino);
	struct ic_node *node = run_node(run);
	struct ic_node *leaf = node_child(node, node_index(ino));

	assert_spin_held(&run->lock);
	for (u32 tag = 0; tag < INODE_TAGS; tag++)
		tag_locked(t, ino, node, leaf, tag, false);
	node_set(leaf, leaf_index(ino), v);
	if (leaf->nr)
		return;
	node_set(node, node_index(ino), 0);
	node_uncharge(t);
	call_rcu(&leaf->rcu, node_free_rcu);
	if (node->nr)
		return;
	atomic_store_explicit(&run->node, NULL, memory_order_release);
	node_uncharge(t);
	call_rcu(&node->rcu, node_free_rcu);
}

/*
 * The leaf, made from the stock if need be; NULL if the stock runs out: then
 * nothing was linked in, for a leaf needs one node or two, and the stock has
 * none or two.
 */
static struct ic_node *make_leaf_locked(struct ic_run *run, ino_nr ino,
					struct node_stock *stock)
{
	struct ic_node *node = run_node(run);
	struct ic_node *leaf = node ? node_child(node, node_index(ino)) : NULL;

	if (leaf)
		return leaf;
	if (!stock->nr)
		return NULL;
	if (!node) {
		node = stock->node[--stock->nr];
		atomic_store_explicit(&run->node, node, memory_order_release);
	}
	leaf = stock->node[--stock->nr];
	node_set(node, node_index(ino), (u64)(uintptr_t)leaf);
	return leaf;
}

int ic_tree_insert(struct ic_tree *t, ino_nr ino, u64 v, bool replace_shadow,
		   u64 *old, void (*before)(void *priv, u64 old), void *priv)
{
	struct node_stock stock = { .nr = 0 };
	struct ic_run *run = run_make(t, ino);
	int error = 0;

	if (!run)
		return -ENOMEM;
	for (;;) {
		struct ic_node *leaf;

		spin_lock(&run->lock);
		leaf = make_leaf_locked(run, ino, &stock);
		if (leaf) {
			*old = node_get(leaf, leaf_index(ino));
			if (*old && !(is_shadow(*old) && replace_shadow)) {
				error = -EEXIST;
			} else {
				before(priv, *old);
				node_set(leaf, leaf_index(ino), v);
			}
		}
		spin_unlock(&run->lock);
		if (leaf)
			break;
		error = stock_fill(t, &stock);
		if (error)
			break;
	}
	stock_free(t, &stock);
	return error;
}

/* ---- walking ---- */

/* First bit at or after `from`, NODE_SLOTS if there is none. */
static u32 first_bit(u64 map, u32 from)
{
	map &= from < NODE_SLOTS ? ~0ull << from : 0;
	return map ? (u32)__builtin_ctzll(map) : NODE_SLOTS;
}

/* First slot at or after `from` with the tag, or not empty; or NODE_SLOTS. */
static u32 node_next(const struct ic_node *node, enum inode_tag tag, u32 from)
{
	if (tag != INODE_TAG_NONE)
		return first_bit(atomic_load_explicit(&node->tagged[tag],
						      memory_order_acquire),
				 from);
	while (from < NODE_SLOTS && !node_get(node, from))
		from++;
	return from;
}

/* The same for the runs of a shard. */
static u32 shard_next(const struct ic_tree *t, ino_nr ino, enum inode_tag tag)
{
	u32 i = run_index(ino);
	struct ic_shard *shard;

	if (tag != INODE_TAG_NONE)
		return first_bit(atomic_load(&t->tagged_runs[tag][ino >> SHARD_BITS]), i);
	shard = shard_of(t, ino);
	if (!shard)
		return NODE_SLOTS;
	while (i < NODE_SLOTS && !run_node(&shard->run[i]))
		i++;
	return i;
}

/* Moves *ino to slot i of the level where a slot spans 2^bits numbers. */
static bool go_to(u64 *ino, u32 i, u32 bits)
{
	u64 base = *ino & ~(((u64)NODE_SLOTS << bits) - 1);
	u64 to = base + ((u64)i << bits);

	if (to > *ino)
		*ino = to;
	return i < NODE_SLOTS;
}

/* The leaf of the slot that ic_tree_next() is to find; NULL: none, or no steps. */
static const struct ic_node *next_leaf(const struct ic_tree *t, u64 *ino,
				       enum inode_tag tag, u32 *steps)
{
	for (; *ino <= t->max_ino && *steps; --*steps) {
		struct ic_run *run;
		struct ic_node *node, *leaf;

		if (!go_to(ino, shard_next(t, (ino_nr)*ino, tag), 2 * NODE_BITS))
			continue;
		run = run_of(t, (ino_nr)*ino);
		node = run ? run_node(run) : NULL;
		if (!go_to(ino, node ? node_next(node, tag, node_index((ino_nr)*ino)) :
				       NODE_SLOTS, NODE_BITS))
			continue;
		leaf = node_child(node, node_index((ino_nr)*ino));
		if (!go_to(ino, leaf ? node_next(leaf, tag, leaf_index((ino_nr)*ino)) :
				       NODE_SLOTS, 0))
			continue;
		if (*ino > t->max_ino)
			break;
		--*steps;
		return leaf;
	}
	return NULL;
}

bool ic_tree_next(const struct ic_tree *t, u64 *ino, enum inode_tag tag, u64 *v,
		  u32 *steps)
{
	const struct ic_node *leaf = next_leaf(t, ino, tag, steps);

	if (!leaf)
		return false;
	*v = node_get(leaf, leaf_index((ino_nr)*ino));
	return true;
}

u32 ic_tree_next_many(const struct ic_tree *t, u64 *ino, enum inode_tag tag, u64 *v,
		      u32 max, u32 *steps)
{
	const struct ic_node *leaf = next_leaf(t, ino, tag, steps);
	u64 first;
	u32 i, nr = 0;

	if (!leaf)
		return 0;
	i = leaf_index((ino_nr)*ino);
	first = *ino - i;
	while (i < NODE_SLOTS && nr < max) {
		v[nr] = node_get(leaf, i);
		nr += v[nr] != 0;
		i = node_next(leaf, tag, i + 1);
	}
	*ino = first + i;
	/* One step was counted. */
	*steps -= min_of(*steps, nr ? nr - 1 : 0);
	return nr;
}

/* ---- mount, unmount ---- */

int ic_tree_init(struct ic_tree *t, struct budget *budget, ino_nr max_ino)
{
	bool ok;

	t->budget = budget;
	t->max_ino = max_ino;
	t->nr_shards = (max_ino >> SHARD_BITS) + 1;
	t->shards = calloc(t->nr_shards, sizeof(t->shards[0]));
	ok = t->shards;
	for (u32 tag = 0; tag < INODE_TAGS; tag++) {
		t->tagged_runs[tag] = calloc(t->nr_shards, sizeof(u64));
		ok = ok && t->tagged_runs[tag];
	}
	return ok ? 0 : -ENOMEM;
}

static void run_free_nodes(struct ic_tree *t, struct ic_run *run)
{
	struct ic_node *node = run_node(run);

	for (u32 i = 0; node && i < NODE_SLOTS; i++) {
		struct ic_node *leaf = node_child(node, i);

		if (leaf) {
			free(leaf);
			node_uncharge(t);
		}
	}
	if (node) {
		free(node);
		node_uncharge(t);
	}
}

void ic_tree_destroy(struct ic_tree *t)
{
	for (u32 i = 0; t->shards && i < t->nr_shards; i++) {
		struct ic_shard *shard = atomic_load(&t->shards[i]);

		if (!shard)
			continue;
		for (u32 j = 0; j < NODE_SLOTS; j++)
			run_free_nodes(t, &shard->run[j]);
		shard_free(shard);
	}
	free(t->shards);
	for (u32 tag = 0; tag < INODE_TAGS; tag++)
		free(t->tagged_runs[tag]);
}
