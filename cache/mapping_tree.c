/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/mapping_tree.c - page cache of a file: the tree and its leaves
 *
 * m_root and the slots of nodes hold one of (low bits tell which)
 *
 *   0      nothing
 *   ..00   a leaf
 *   ...1   a node; one of shift s covers 64 << s leaves
 *   ..10   a value: a leaf without folios that knows one extent, at its start
 *
 * Walks run under RCU and end by locking the leaf: if it is dead by then, the
 * walk starts again. Slots change under m_lock, with memory allocated before.
 * A leaf is judged by who unlocks it: without folios it goes if it knows
 * nothing, becomes a value if one will do, and else gives up its slots for
 * folios (leaf_settle()). Nodes that become empty go along.
 *
 *   lookup   walk under RCU ---- lock ---- l_dead? -> again
 *   unlink   [leaf locked] slot = value or 0 under m_lock, l_dead = 1,
 *            unlock, RCU
 *   replace  [old leaf locked] copy to the new (locked) one, folios' f_leaf
 *            to the new one, slot = new under m_lock, old l_dead = 1
 *
 * n_obj of a node has a bit for each slot below which there is a leaf, so that
 * a search for leaves passes over values, of which a large file has many.
 *
 * Locks:  leaf lock -> m_lock; two leaf locks when a leaf grows (the new one
 *         is not linked yet).
 * Alive:  see mapping_internal.h. Who unlinks the last leaf may not touch the
 *         mapping after m_lock: its owner may be waiting to free it.
 * Never:  an allocation under a leaf lock or m_lock.
 * Threads: any
 */
#include "cache/mapping_internal.h"
#include "cache/window.h"
#include "lib/wait.h"
#include <stdlib.h>
#include <string.h>

struct map_node {
	struct rcu_head n_rcu;
	struct super_block *n_sb; /* [const] */
	u32 n_shift; /* of a leaf index: 0, 6, 12, 18 [const] */
	u32 n_count; /* slots in use [m_lock] */
	_Atomic u64 n_obj; /* slots with a leaf below [write m_lock] */
	_Atomic u64 n_slot[NODE_SLOTS]; /* [rcu, write m_lock] */
};

static inline bool is_node(u64 p)
{
	return (p & SLOT_NODE) != 0;
}

static inline struct map_node *to_node(u64 p)
{
	return (struct map_node *)(uintptr_t)(p & ~SLOT_NODE);
}

static inline u64 from_node(struct map_node *node)
{
	return (u64)(uintptr_t)node | SLOT_NODE;
}

static inline struct map_leaf *to_leaf(u64 p)
{
	return (struct map_leaf *)(uintptr_t)p;
}

static inline u64 from_leaf(struct map_leaf *leaf)
{
	return (u64)(uintptr_t)leaf;
}

static inline u64 slot_load(_Atomic u64 *slot)
{
	return atomic_load_explicit(slot, memory_order_acquire);
}

/* Pairs with slot_load(): who sees the pointer sees what it points to. */
static inline void slot_store(_Atomic u64 *slot, u64 p)
{
	atomic_store_explicit(slot, p, memory_order_release);
}

/* Number of leaf indexes below a node of this shift. */
static inline u64 node_span(u32 shift)
{
	return (u64)NODE_SLOTS << shift;
}

/* ---- leaves and nodes as memory ---- */

size_t leaf_bytes(u32 cap)
{
	size_t words = DIV_ROUND_UP(cap, 64u) * MARK_NR;

	return ALIGN_UP(sizeof(struct map_leaf) + words * sizeof(u64) +
				cap * sizeof(struct folio *), 64);
}

/* Room for block b of a leaf: leaf 0 starts small, the others are whole. */
static u32 leaf_cap_for(u32 index, u32 b)
{
	if (index || b >= 64)
		return LEAF_BLOCKS;
	return b < 16 ? 16 : 64;
}

/* sb: the mapping's, which may be gone. */
static struct map_leaf *leaf_alloc(struct mapping *m, struct super_block *sb,
				   u32 index, u32 cap)
{
	struct map_leaf *leaf = aligned_alloc(64, leaf_bytes(cap));

	if (!leaf)
		return NULL;
	memset(leaf, 0, leaf_bytes(cap));
	spin_init(&leaf->l_lock, RANK_LEAF);
	leaf->l_map = m;
	leaf->l_index = index;
	leaf->l_cap = (u16)cap;
	leaf->l_cap_ext = LEAF_INLINE_EXT;
	leaf->l_ext = leaf->l_inline;
	budget_charge(sb->s_budget, BUDGET_TREE, (s64)leaf_bytes(cap));
	return leaf;
}

static void leaf_free(struct map_leaf *leaf)
{
	if (leaf->l_ext != leaf->l_inline)
		free(leaf->l_ext);
	spin_destroy(&leaf->l_lock);
	free(leaf);
}

static void leaf_free_rcu(struct rcu_head *head)
{
	leaf_free(container_of_type(head, struct map_leaf, l_rcu));
}

/* Never linked. */
static void leaf_discard(struct map_leaf *leaf, struct super_block *sb)
{
	budget_uncharge(sb->s_budget, BUDGET_TREE, (s64)leaf_bytes(leaf->l_cap));
	leaf_free(leaf);
}

static struct map_node *node_alloc(struct super_block *sb)
{
	struct map_node *node = calloc(1, sizeof(*node));

	if (!node)
		return NULL;
	node->n_sb = sb;
	budget_charge(sb->s_budget, BUDGET_TREE, sizeof(*node));
	return node;
}

static void node_discard(struct map_node *node)
{
	budget_uncharge(node->n_sb->s_budget, BUDGET_TREE, sizeof(*node));
	free(node);
}

static void node_free_rcu(struct rcu_head *head)
{
	free(container_of_type(head, struct map_node, n_rcu));
}

/* ---- the tree ---- */

/* The place of leaf `index`, or NULL if no node covers it. RCU, or m_lock. */
static _Atomic u64 *tree_slot(struct mapping *m, u32 index)
{
	_Atomic u64 *slot = &m->m_root;
	u64 p = slot_load(slot);

	if (!is_node(p))
		return index ? NULL : slot;
	if (index >= node_span(to_node(p)->n_shift))
		return NULL;
	while (is_node(p)) {
		struct map_node *node = to_node(p);

		slot = &node->n_slot[(index >> node->n_shift) % NODE_SLOTS];
		/* A slot of the lowest level; it never becomes a node. */
		if (!node->n_shift)
			return slot;
		p = slot_load(slot);
	}
	return NULL;
}

/* What is in the place of leaf `index`: 0, a leaf or a value. RCU, or m_lock. */
static u64 tree_find(struct mapping *m, u32 index)
{
	_Atomic u64 *slot;
	u64 p;

	/* m_root may become a node between two looks. */
	do {
		slot = tree_slot(m, index);
		p = slot ? slot_load(slot) : 0;
	} while (is_node(p));
	return p;
}

/*
 * The first leaf (or value, unless leaves) in [*index, last], and its index;
 * or 0. RCU.
 */
static u64 tree_next(struct mapping *m, u64 *index, u64 last, bool leaves)
{
	while (*index <= last) {
		u64 p = slot_load(&m->m_root);

		if (!is_node(p))
			return *index || (leaves && is_value(p)) ? 0 : p;
		if (*index >= node_span(to_node(p)->n_shift))
			return 0;
		while (is_node(p)) {
			struct map_node *node = to_node(p);
			u64 base = ALIGN_DOWN(*index, node_span(node->n_shift));
			u32 i = (u32)(*index >> node->n_shift) % NODE_SLOTS;
			u64 obj = UINT64_MAX;

			if (leaves)
				obj = atomic_load_explicit(
					&node->n_obj, memory_order_acquire);
			for (p = 0; i < NODE_SLOTS; i++) {
				obj &= UINT64_MAX << i;
				i = obj ? (u32)__builtin_ctzll(obj) : NODE_SLOTS;
				*index = max_of(*index,
						base + ((u64)i << node->n_shift));
				if (i == NODE_SLOTS || *index > last)
					break;
				p = slot_load(&node->n_slot[i]);
				if (leaves && is_value(p))
					p = 0;
				if (p)
					break;
			}
			if (i == NODE_SLOTS) {
				*index = max_of(*index,
						base + node_span(node->n_shift));
				p = 0;
			}
		}
		if (p)
			return p;
	}
	return 0;
}

/* Nodes that tree_insert() would take; m_lock held. */
static unsigned tree_nodes_needed(struct mapping *m, u32 index)
{
	u64 p = slot_load(&m->m_root);
	u32 shift = 0;
	unsigned nr = 0;

	if (!is_node(p)) {
		if (!index)
			return 0;
		nr = 1;
		while (index >= node_span(shift)) {
			shift += NODE_SHIFT;
			nr += p ? 1 : 0;
		}
		return nr + shift / NODE_SHIFT;
	}
	shift = to_node(p)->n_shift;
	if (index >= node_span(shift)) {
		while (index >= node_span(shift)) {
			shift += NODE_SHIFT;
			nr++;
		}
		return nr + shift / NODE_SHIFT;
	}
	while (is_node(p)) {
		struct map_node *node = to_node(p);

		shift = node->n_shift;
		p = slot_load(&node->n_slot[(index >> shift) % NODE_SLOTS]);
	}
	return p ? 0 : shift / NODE_SHIFT;
}

#define TREE_STOCK 8 /* 4 to grow, 3 to go down */
struct node_stock {
	struct map_node *node[TREE_STOCK];
	unsigned nr;
};

static struct map_node *stock_take(struct node_stock *stock, u32 shift)
{
	struct map_node *node;

	assert(stock->nr);
	node = stock->node[--stock->nr];
	node->n_shift = shift;
	return node;
}

/*
 * There is (or is no longer) a leaf at index: n_obj of the nodes above it.
 * m_lock held.
 */
static void tree_mark(struct mapping *m, u32 index, bool leaf)
{
	struct map_node *node[4 + 1];
	u64 p = slot_load(&m->m_root);
	unsigned depth = 0;

	while (is_node(p)) {
		node[depth] = to_node(p);
		p = slot_load(&node[depth]->n_slot[(index >>
						    node[depth]->n_shift) %
						   NODE_SLOTS]);
		depth++;
	}
	while (depth--) {
		struct map_node *n = node[depth];
		u64 bit = 1ull << ((index >> n->n_shift) % NODE_SLOTS);
		u64 obj = atomic_load_explicit(&n->n_obj, memory_order_relaxed);

		obj = leaf ? obj | bit : obj & ~bit;
		atomic_store_explicit(&n->n_obj, obj, memory_order_release);
		if (!leaf && obj)
			break;
	}
}

/*
 * Puts p, a leaf or a value, in the empty place of leaf `index`; m_lock held,
 * tree_nodes_needed() nodes in stock. A node is complete before it is linked,
 * except for the slots that are filled later in this call.
 */
static void tree_insert(struct mapping *m, u32 index, u64 new,
			struct node_stock *stock)
{
	u64 p = slot_load(&m->m_root);
	struct map_node *node;
	_Atomic u64 *slot;

	if (!p && !index) {
		slot_store(&m->m_root, new);
		return;
	}
	if (!p) {
		u32 shift = 0;

		while (index >= node_span(shift))
			shift += NODE_SHIFT;
		p = from_node(stock_take(stock, shift));
		slot_store(&m->m_root, p);
	}
	while (!is_node(p) || index >= node_span(to_node(p)->n_shift)) {
		bool obj = is_node(p) ? to_node(p)->n_obj != 0 : !is_value(p);

		node = stock_take(stock, is_node(p) ? to_node(p)->n_shift +
							      NODE_SHIFT
						    : 0);
		atomic_store_explicit(&node->n_slot[0], p,
				      memory_order_relaxed);
		atomic_store_explicit(&node->n_obj, obj, memory_order_relaxed);
		node->n_count = 1;
		p = from_node(node);
		slot_store(&m->m_root, p);
	}
	for (;;) {
		node = to_node(p);
		slot = &node->n_slot[(index >> node->n_shift) % NODE_SLOTS];
		if (!node->n_shift)
			break;
		p = slot_load(slot);
		if (!p) {
			p = from_node(stock_take(stock,
						 node->n_shift - NODE_SHIFT));
			node->n_count++;
			slot_store(slot, p);
		}
	}
	assert(!slot_load(slot));
	node->n_count++;
	slot_store(slot, new);
	if (!is_value(new))
		tree_mark(m, index, true);
}

/*
 * Puts `new` (a leaf, a value, or 0) in the place of what is at index. m_lock
 * held. Nodes that become empty go too, up to the root; walkers in them find
 * nothing and that is true. Returns the bytes that came free.
 */
static u64 tree_replace(struct mapping *m, u32 index, u64 new)
{
	_Atomic u64 *slot[4 + 1] = { &m->m_root };
	struct map_node *node[4 + 1] = { NULL };
	u64 p = slot_load(&m->m_root), freed = 0;
	unsigned depth = 0;

	while (is_node(p)) {
		node[depth + 1] = to_node(p);
		depth++;
		slot[depth] = &node[depth]->n_slot
			[(index >> node[depth]->n_shift) % NODE_SLOTS];
		p = slot_load(slot[depth]);
	}
	assert(p);
	slot_store(slot[depth], new);
	if (is_value(p) != (!new || is_value(new)))
		tree_mark(m, index, new && !is_value(new));
	if (new)
		return 0;
	for (; depth && --node[depth]->n_count == 0; depth--) {
		slot_store(slot[depth - 1], 0);
		budget_uncharge(m->m_sb->s_budget, BUDGET_TREE,
				sizeof(*node[depth]));
		freed += sizeof(*node[depth]);
		call_rcu(&node[depth]->n_rcu, node_free_rcu);
	}
	return freed;
}

/* ---- locking a leaf ---- */

/* Someone else has it: counted, and timed, since that is what leaf locks are
 * there to avoid. */
static NO_THREAD_SAFETY void leaf_spin_contended(struct mapping *m,
						 struct map_leaf *leaf)
{
	struct mapping_cache *mc = m->m_sb->s_mapping_cache;
	u64 start = clock_mono_ns();

	spin_lock(&leaf->l_lock);
	mapping_count(mc, MAPPING_LEAF_WAITS, 1);
	mapping_count(mc, MAPPING_LEAF_WAIT_NS, clock_mono_ns() - start);
}

static NO_THREAD_SAFETY inline void leaf_spin(struct mapping *m,
					      struct map_leaf *leaf)
{
#ifdef SLUICE_DEBUG_LOCKS
	assert_rank_below(RANK_LEAF); /* a trylock checks nothing */
#endif
	if (unlikely(!spin_trylock(&leaf->l_lock)))
		leaf_spin_contended(m, leaf);
}

struct map_leaf *leaf_lock_or_value(struct mapping *m, u32 index, u64 *value)
{
	struct map_leaf *leaf = NULL;
	u64 p;

	rcu_read_lock();
	while ((p = tree_find(m, index)) && !is_value(p)) {
		leaf = to_leaf(p);
		leaf_spin(m, leaf);
		if (likely(!leaf->l_dead))
			break;
		/* Marked and unlinked under its lock: the walk sees that now. */
		spin_unlock(&leaf->l_lock);
		leaf = NULL;
	}
	rcu_read_unlock();
	*value = leaf ? 0 : p;
	return leaf;
}

struct map_leaf *leaf_lock(struct mapping *m, u32 index)
{
	u64 value;

	return leaf_lock_or_value(m, index, &value);
}

static bool leaf_wanted(struct map_leaf *leaf, enum leaf_want want)
{
	switch (want) {
	case WANT_DIRTY:
		return atomic_load_explicit(&leaf->l_nr_dirty,
					    memory_order_acquire);
	case WANT_WRITEBACK:
		return atomic_load_explicit(&leaf->l_nr_wb,
					    memory_order_acquire);
	case WANT_ANY:
		break;
	}
	return true;
}

struct map_leaf *leaf_lock_next(struct mapping *m, u64 start, u64 end,
				enum leaf_want want)
{
	struct map_leaf *leaf = NULL;
	u64 index = start >> LEAF_SHIFT, p;

	if (start >= end)
		return NULL;
	rcu_read_lock();
	while ((p = tree_next(m, &index, (end - 1) >> LEAF_SHIFT, true))) {
		leaf = to_leaf(p);
		if (!leaf_wanted(leaf, want)) {
			leaf = NULL;
			index++;
			continue;
		}
		leaf_spin(m, leaf);
		if (likely(!leaf->l_dead))
			break;
		spin_unlock(&leaf->l_lock);
		leaf = NULL;
	}
	rcu_read_unlock();
	return leaf;
}

/* Takes a locked leaf out of the tree. The caller unlocks it and frees it. */
static void leaf_unlink(struct map_leaf *leaf, u64 new)
{
	struct mapping *m = leaf->l_map;

	assert_spin_held(&leaf->l_lock);
	budget_uncharge(m->m_sb->s_budget, BUDGET_TREE,
			(s64)(leaf_bytes(leaf->l_cap) + leaf_ext_bytes(leaf)));
	leaf->l_dead = true;
	spin_lock(&m->m_lock);
	tree_replace(m, leaf->l_index, new);
	spin_unlock(&m->m_lock);
	/* m may be gone if this was its last leaf: mapping_destroy() */
}

/*
 * Replaces a leaf, locked, by another one with more room, or, if it has no
 * folios, with less; returns with the new one locked. A shrinker that
 * trylocked the old leaf's lock in vain, or comes later, sees f_leaf changed
 * or the old leaf dead.
 */
static void leaf_replace(struct map_leaf *old, struct map_leaf *new)
	NO_THREAD_SAFETY
{
	struct folio **from = leaf_slots(old), **to = leaf_slots(new);
	u32 b;
	int i;

	assert(new->l_cap >= old->l_cap || !old->l_nr_folio);
	spin_lock(&new->l_lock);
	for (i = 0; i < MARK_NR && old->l_nr_folio; i++)
		memcpy(leaf_mark(new, i), leaf_mark(old, i),
		       leaf_words(old) * sizeof(u64));
	for (b = 0; b < old->l_cap && old->l_nr_folio; b++) {
		to[b] = from[b];
		if (to[b])
			atomic_store_explicit(&to[b]->f_leaf, new,
					      memory_order_release);
	}
	new->l_nr_folio = old->l_nr_folio;
	atomic_store_explicit(&new->l_nr_dirty, old->l_nr_dirty,
			      memory_order_release);
	atomic_store_explicit(&new->l_nr_wb, old->l_nr_wb,
			      memory_order_release);
	leaf_ext_move(old, new);
	leaf_unlink(old, from_leaf(new));
	spin_unlock(&old->l_lock);
	call_rcu(&old->l_rcu, leaf_free_rcu);
}

/*
 * A leaf whose last folio has gone, but which knows more than a value can say,
 * locked: gives up its slots. Unlocks it. In between the leaf may die, and
 * then the mapping may be gone too: only the leaf says so.
 */
static NO_THREAD_SAFETY void leaf_slim(struct map_leaf *leaf)
{
	struct mapping *m = leaf->l_map;
	struct super_block *sb = m->m_sb;
	u32 index = leaf->l_index;
	struct map_leaf *new;

	rcu_read_lock();
	spin_unlock(&leaf->l_lock);
	new = leaf_alloc(m, sb, index, 0);
	if (new) {
		spin_lock(&leaf->l_lock);
		if (!leaf->l_dead && !leaf->l_nr_folio) {
			leaf_replace(leaf, new);
			spin_unlock(&new->l_lock);
		} else {
			spin_unlock(&leaf->l_lock);
			leaf_discard(new, sb);
		}
	}
	rcu_read_unlock();
}

void leaf_unlock(struct map_leaf *leaf)
{
	u64 value = 0;

	if (leaf->l_nr_folio || (leaf->l_nr_ext && !leaf_ext_value(leaf, &value))) {
		if (leaf->l_nr_folio || !leaf->l_cap)
			spin_unlock(&leaf->l_lock);
		else
			leaf_slim(leaf);
		return;
	}
	leaf_unlink(leaf, value);
	spin_unlock(&leaf->l_lock);
	/* Nobody but us frees it, so it outlives the unlock. */
	call_rcu(&leaf->l_rcu, leaf_free_rcu);
}

/* Fills the stock with what an insertion at index needs now. */
static int stock_fill(struct node_stock *stock, struct super_block *sb,
		      unsigned nr)
{
	assert(nr <= TREE_STOCK);
	while (stock->nr < nr) {
		struct map_node *node = node_alloc(sb);

		if (!node)
			return -ENOMEM;
		stock->node[stock->nr++] = node;
	}
	return 0;
}

/*
 * Links the new leaf, locked, if nobody else has linked one meanwhile. It
 * takes over what a value in its place knows. 0: linked. -EEXIST. -ENOMEM.
 */
static int leaf_link(struct mapping *m, struct map_leaf *new) NO_THREAD_SAFETY
{
	struct node_stock stock = { .nr = 0 };
	u32 index = new->l_index;
	unsigned need;
	int ret = 0;
	u64 p;

	spin_lock(&new->l_lock);
	spin_lock(&m->m_lock);
	for (;;) {
		p = tree_find(m, index);
		if (p && !is_value(p)) {
			ret = -EEXIST;
			break;
		}
		if (p) {
			leaf_ext_from_value(new, p);
			tree_replace(m, index, from_leaf(new));
			break;
		}
		need = tree_nodes_needed(m, index);
		if (need <= stock.nr) {
			tree_insert(m, index, from_leaf(new), &stock);
			break;
		}
		spin_unlock(&m->m_lock);
		spin_unlock(&new->l_lock);
		ret = stock_fill(&stock, m->m_sb, need);
		spin_lock(&new->l_lock);
		spin_lock(&m->m_lock);
		if (ret)
			break;
	}
	spin_unlock(&m->m_lock);
	if (ret)
		spin_unlock(&new->l_lock);
	while (stock.nr)
		node_discard(stock.node[--stock.nr]);
	return ret;
}

/* cap: slots that it needs to have. */
static int lock_create(struct mapping *m, u32 index, u32 cap,
		       struct map_leaf **out) NO_THREAD_SAFETY
{
	struct map_leaf *leaf, *new = NULL;
	int ret;

	for (;;) {
		leaf = leaf_lock(m, index);
		if (leaf && cap <= leaf->l_cap)
			break;
		if (leaf && new) {
			leaf_replace(leaf, new);
			*out = new;
			return 0;
		}
		if (leaf)
			leaf_unlock(leaf);
		if (!new) {
			new = leaf_alloc(m, m->m_sb, index, cap);
			if (!new)
				return -ENOMEM;
			if (leaf)
				continue;
		}
		ret = leaf_link(m, new);
		if (!ret) {
			*out = new;
			return 0;
		}
		if (ret != -EEXIST) {
			leaf_discard(new, m->m_sb);
			return ret;
		}
	}
	if (new)
		leaf_discard(new, m->m_sb);
	*out = leaf;
	return 0;
}

int leaf_lock_create(struct mapping *m, lblk_t lblk, struct map_leaf **out)
{
	u32 index = lblk >> LEAF_SHIFT;

	return lock_create(m, index, leaf_cap_for(index, lblk % LEAF_BLOCKS),
			   out);
}

int leaf_lock_create_bare(struct mapping *m, u32 index, struct map_leaf **out)
{
	return lock_create(m, index, 0, out);
}

/* ---- values ---- */

int value_change(struct mapping *m, u32 index,
		 enum value_verdict (*fn)(u64 *value, void *priv), void *priv)
{
	struct node_stock stock = { .nr = 0 };
	unsigned need;
	int ret = 0;

	spin_lock(&m->m_lock);
	for (;;) {
		u64 old = tree_find(m, index), new = old;

		if (old && !is_value(old)) {
			ret = -EEXIST;
			break;
		}
		ret = fn(&new, priv);
		if (ret || new == old)
			break;
		if (old) {
			tree_replace(m, index, new);
			break;
		}
		need = tree_nodes_needed(m, index);
		if (need <= stock.nr) {
			tree_insert(m, index, new, &stock);
			break;
		}
		spin_unlock(&m->m_lock);
		ret = stock_fill(&stock, m->m_sb, need);
		spin_lock(&m->m_lock);
		if (ret)
			break;
	}
	spin_unlock(&m->m_lock);
	while (stock.nr)
		node_discard(stock.node[--stock.nr]);
	return ret;
}

void value_touch(struct mapping *m, u32 index, u64 value)
{
	_Atomic u64 *slot;

	if (value & VALUE_REFERENCED)
		return;
	rcu_read_lock();
	slot = tree_slot(m, index);
	/* If it fails something else is there by now. */
	if (slot)
		atomic_compare_exchange_strong_explicit(
			slot, &value, value | VALUE_REFERENCED,
			memory_order_relaxed, memory_order_relaxed);
	rcu_read_unlock();
}

u64 tree_next_index(struct mapping *m, u64 index, u64 last)
{
	u64 p;

	rcu_read_lock();
	p = tree_next(m, &index, last, false);
	rcu_read_unlock();
	return p ? index : UINT64_MAX;
}

/* ---- slots ---- */

static void add_u32(_Atomic u32 *counter, s32 delta)
{
	if (delta)
		atomic_fetch_add(counter, (u32)delta);
}

static void add_u16(_Atomic u16 *counter, s32 delta)
{
	u16 old = atomic_load_explicit(counter, memory_order_relaxed);

	if (delta)
		atomic_store_explicit(counter, (u16)(old + delta),
				      memory_order_release);
}

/*
 * Counts go up in one class before they go down in the other, so that who
 * reads "no dirty" and then "no writeback" was told the truth.
 */
void leaf_account(struct map_leaf *leaf, const struct leaf_delta *d)
{
	struct mapping *m = leaf->l_map;

	assert_spin_held(&leaf->l_lock);
	leaf->l_nr_folio = (u16)(leaf->l_nr_folio + d->folio);
	if (d->dirty > 0) {
		add_u16(&leaf->l_nr_dirty, d->dirty);
		add_u32(&m->m_nr_dirty, d->dirty);
	}
	add_u16(&leaf->l_nr_wb, d->wb);
	add_u32(&m->m_nr_writeback, d->wb);
	if (d->dirty < 0) {
		add_u16(&leaf->l_nr_dirty, d->dirty);
		add_u32(&m->m_nr_dirty, d->dirty);
	}
	add_u32(&m->m_nr_delayed, d->delayed);
	add_u32(&m->m_nr_folio_blocks, d->folio);
	if (d->unclean)
		counter_add(m->m_sb->s_dirty_bytes,
			    (s64)d->unclean * m->m_sb->s_blocksize);
}

u32 leaf_drop_slots(struct map_leaf *leaf, u32 s, u32 e,
		    struct cds_list_head *dead)
{
	struct folio **slots = leaf_slots(leaf);
	u32 n = 0, b;

	assert_spin_held(&leaf->l_lock);
	for (b = s; b < e; b++) {
		struct folio *f = slots[b];

		if (!f)
			continue;
		slots[b] = NULL;
		n++;
		if (--f->f_live == 0) {
			folio_lru_del(f);
			atomic_store_explicit(&f->f_leaf, NULL,
					      memory_order_release);
			if (atomic_fetch_sub_explicit(&f->f_refs, 1,
						      memory_order_acq_rel) == 1)
				cds_list_add(&f->f_lru, dead);
		} else if (b + 1 == e || slots[b + 1] != f) {
			/* Perhaps only what was dropped was dirty. */
			folio_lru_add(f);
		}
	}
	return n;
}

/* ---- life of a mapping ---- */

void mapping_init(struct mapping *m, struct inode *inode,
		  struct super_block *sb)
{
	m->m_inode = inode;
	m->m_sb = sb;
	atomic_init(&m->m_root, 0);
	spin_init(&m->m_lock, RANK_CACHE_LIST);
	atomic_init(&m->m_nr_dirty, 0);
	atomic_init(&m->m_nr_writeback, 0);
	atomic_init(&m->m_nr_delayed, 0);
	atomic_init(&m->m_nr_folio_blocks, 0);
	atomic_init(&m->m_wb_seq, 0);
	atomic_init(&m->m_wb_err, 0);
	atomic_init(&m->m_drop_gen, 0);
	atomic_init(&m->m_pins, 0);
	atomic_init(&m->m_scan_next, 0);
	atomic_init(&m->m_maps, NULL);
	atomic_init(&m->m_windows, NULL);
}

/*
 * A shrinker may just be unlinking the last leaf: it does so, and touches the
 * mapping for the last time, under m_lock. With the lock taken here and the
 * tree empty it is through, and no leaf leads to the mapping any more.
 */
void mapping_destroy(struct mapping *m)
{
	u64 root;

	mapping_unlist(m);
	mapping_extent_forget(m, 0, EXTENT_END);
	spin_lock(&m->m_lock);
	root = slot_load(&m->m_root);
	spin_unlock(&m->m_lock);
	assert(!root);
	windows_destroy(m);
	spin_destroy(&m->m_lock);
}
