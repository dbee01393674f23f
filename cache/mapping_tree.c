/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/mapping_tree.c - page cache of a file: the tree and its leaves
 *
 * m_root is NULL, leaf 0, or (bit 0 set) a node. A node of shift s covers
 * 64 << s leaves. Walks run under RCU and end by locking the leaf: if it is
 * dead by then, the walk starts again. Leaves and nodes are linked under
 * m_lock, with memory allocated before; a leaf is unlinked by who finds it
 * without folios when it unlocks it, and takes nodes that become empty along.
 *
 *   lookup   walk under RCU ---- lock ---- l_dead? -> again
 *   unlink   [leaf locked] slot = NULL under m_lock, l_dead = 1, unlock, RCU
 *   grow     [old leaf locked] copy to the new (locked) one, folios' f_leaf
 *            to the new one, slot = new under m_lock, old l_dead = 1
 *
 * A leaf without folios has at most MAPPED marks, which may be forgotten (the
 * extent tree knows): so "no folios" is all that decides about freeing it.
 *
 * Locks:  leaf lock -> m_lock; two leaf locks when a leaf grows (the new one
 *         is not linked yet).
 * Alive:  see mapping_internal.h. Who unlinks the last leaf may not touch the
 *         mapping after m_lock: its owner may be waiting to free it.
 * Never:  an allocation under a leaf lock or m_lock.
 * Threads: any
 */
#include "cache/mapping_internal.h"
#include <stdlib.h>
#include <string.h>

#define NODE_TAG 1u

struct map_node {
	struct rcu_head n_rcu;
	struct super_block *n_sb; /* [const] */
	u32 n_shift; /* of a leaf index: 0, 6, 12, 18 [const] */
	u32 n_count; /* slots in use [m_lock] */
	void *_Atomic n_slot[NODE_SLOTS]; /* [rcu, write m_lock] */
};

static inline bool is_node(const void *p)
{
	return ((uintptr_t)p & NODE_TAG) != 0;
}

static inline struct map_node *to_node(void *p)
{
	return (struct map_node *)((uintptr_t)p & ~(uintptr_t)NODE_TAG);
}

static inline void *from_node(struct map_node *node)
{
	return (void *)((uintptr_t)node | NODE_TAG);
}

static inline void *slot_load(void *_Atomic *slot)
{
	return atomic_load_explicit(slot, memory_order_acquire);
}

/* Pairs with slot_load(): who sees the pointer sees what it points to. */
static inline void slot_store(void *_Atomic *slot, void *p)
{
	atomic_store_explicit(slot, p, memory_order_release);
}

/* Number of leaf indexes below a node of this shift. */
static inline u64 node_span(u32 shift)
{
	return (u64)NODE_SLOTS << shift;
}

/* ---- leaves and nodes as memory ---- */

static size_t leaf_bytes(u32 cap)
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

static struct map_leaf *leaf_alloc(struct mapping *m, u32 index, u32 cap)
{
	struct map_leaf *leaf = aligned_alloc(64, leaf_bytes(cap));

	if (!leaf)
		return NULL;
	memset(leaf, 0, leaf_bytes(cap));
	spin_init(&leaf->l_lock, RANK_LEAF);
	leaf->l_map = m;
	leaf->l_index = index;
	leaf->l_cap = (u16)cap;
	budget_charge(m->m_sb->s_budget, BUDGET_TREE, (s64)leaf_bytes(cap));
	return leaf;
}

static void leaf_free(struct map_leaf *leaf)
{
	spin_destroy(&leaf->l_lock);
	free(leaf);
}

static void leaf_free_rcu(struct rcu_head *head)
{
	leaf_free(container_of_type(head, struct map_leaf, l_rcu));
}

static void leaf_discard(struct map_leaf *leaf) /* never linked */
{
	budget_uncharge(leaf->l_map->m_sb->s_budget, BUDGET_TREE,
			(s64)leaf_bytes(leaf->l_cap));
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

/* The leaf with this index, or NULL. RCU, or m_lock. */
static struct map_leaf *tree_find(struct mapping *m, u32 index)
{
	void *p = slot_load(&m->m_root);

	if (!is_node(p))
		return index ? NULL : p;
	if (index >= node_span(to_node(p)->n_shift))
		return NULL;
	while (is_node(p)) {
		struct map_node *node = to_node(p);

		p = slot_load(&node->n_slot[(index >> node->n_shift) %
					    NODE_SLOTS]);
	}
	return p;
}

/* The first leaf in [index, last], or NULL. RCU. */
static struct map_leaf *tree_find_next(struct mapping *m, u64 index, u64 last)
{
	while (index <= last) {
		void *p = slot_load(&m->m_root);

		if (!is_node(p))
			return index ? NULL : p;
		if (index >= node_span(to_node(p)->n_shift))
			return NULL;
		while (is_node(p)) {
			struct map_node *node = to_node(p);
			u64 unit = 1ull << node->n_shift;
			u64 end = ALIGN_DOWN(index, node_span(node->n_shift)) +
				  node_span(node->n_shift);

			p = slot_load(&node->n_slot[(index >> node->n_shift) %
						    NODE_SLOTS]);
			while (!p) {
				index = ALIGN_DOWN(index, unit) + unit;
				if (index >= end || index > last)
					break;
				p = slot_load(
					&node->n_slot[(index >> node->n_shift) %
						      NODE_SLOTS]);
			}
		}
		if (p)
			return p;
	}
	return NULL;
}

/* Nodes that tree_insert() would take; m_lock held. */
static unsigned tree_nodes_needed(struct mapping *m, u32 index)
{
	void *p = slot_load(&m->m_root);
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
 * Links a leaf; m_lock held, no leaf with this index in the tree, and
 * tree_nodes_needed() nodes in stock. A node is complete before it is linked,
 * except for the slots that are filled later in this call.
 */
static void tree_insert(struct mapping *m, struct map_leaf *leaf,
			struct node_stock *stock)
{
	void *p = slot_load(&m->m_root);
	u32 index = leaf->l_index;
	struct map_node *node;
	void *_Atomic *slot;

	if (!p && !index) {
		slot_store(&m->m_root, leaf);
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
		node = stock_take(stock, is_node(p) ? to_node(p)->n_shift +
							      NODE_SHIFT
						    : 0);
		atomic_store_explicit(&node->n_slot[0], p,
				      memory_order_relaxed);
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
	slot_store(slot, leaf);
}

/*
 * Puts `new` (or NULL) in the place of a leaf. m_lock held. Nodes that become
 * empty go too, up to the root; walkers in them find nothing and that is true.
 */
static void tree_replace(struct mapping *m, struct map_leaf *old,
			 struct map_leaf *new)
{
	void *_Atomic *slot[4 + 1] = { &m->m_root };
	struct map_node *node[4 + 1] = { NULL };
	void *p = slot_load(&m->m_root);
	unsigned depth = 0;

	while (is_node(p)) {
		node[depth + 1] = to_node(p);
		depth++;
		slot[depth] = &node[depth]->n_slot
			[(old->l_index >> node[depth]->n_shift) % NODE_SLOTS];
		p = slot_load(slot[depth]);
	}
	assert(p == old);
	slot_store(slot[depth], new);
	if (new)
		return;
	for (; depth && --node[depth]->n_count == 0; depth--) {
		slot_store(slot[depth - 1], NULL);
		budget_uncharge(m->m_sb->s_budget, BUDGET_TREE,
				sizeof(*node[depth]));
		call_rcu(&node[depth]->n_rcu, node_free_rcu);
	}
}

/* ---- locking a leaf ---- */

struct map_leaf *leaf_lock(struct mapping *m, u32 index)
{
	struct map_leaf *leaf;

	rcu_read_lock();
	while ((leaf = tree_find(m, index))) {
		spin_lock(&leaf->l_lock);
		if (likely(!leaf->l_dead))
			break;
		/* Marked and unlinked under its lock: the walk sees that now. */
		spin_unlock(&leaf->l_lock);
	}
	rcu_read_unlock();
	return leaf;
}

static bool leaf_wanted(struct map_leaf *leaf, enum leaf_want want)
{
	if (want == WANT_ANY)
		return true;
	if (want != WANT_WRITEBACK &&
	    atomic_load_explicit(&leaf->l_nr_dirty, memory_order_acquire))
		return true;
	return want != WANT_DIRTY &&
	       atomic_load_explicit(&leaf->l_nr_wb, memory_order_acquire);
}

struct map_leaf *leaf_lock_next(struct mapping *m, u64 start, u64 end,
				enum leaf_want want)
{
	struct map_leaf *leaf = NULL;
	u64 index = start >> LEAF_SHIFT;

	if (start >= end)
		return NULL;
	rcu_read_lock();
	while ((leaf = tree_find_next(m, index, (end - 1) >> LEAF_SHIFT))) {
		index = leaf->l_index;
		if (!leaf_wanted(leaf, want)) {
			index++;
			continue;
		}
		spin_lock(&leaf->l_lock);
		if (likely(!leaf->l_dead))
			break;
		spin_unlock(&leaf->l_lock);
	}
	rcu_read_unlock();
	return leaf;
}

/* Takes a locked leaf out of the tree. The caller unlocks it and frees it. */
static void leaf_unlink(struct map_leaf *leaf, struct map_leaf *new)
{
	struct mapping *m = leaf->l_map;

	assert_spin_held(&leaf->l_lock);
	budget_uncharge(m->m_sb->s_budget, BUDGET_TREE,
			(s64)leaf_bytes(leaf->l_cap));
	leaf->l_dead = true;
	spin_lock(&m->m_lock);
	tree_replace(m, leaf, new);
	spin_unlock(&m->m_lock);
	/* m may be gone if this was its last leaf: mapping_destroy() */
}

void leaf_unlock(struct map_leaf *leaf)
{
	bool empty = leaf->l_nr_folio == 0;

	if (empty)
		leaf_unlink(leaf, NULL);
	spin_unlock(&leaf->l_lock);
	/* Nobody but us frees it, so it outlives the unlock. */
	if (empty)
		call_rcu(&leaf->l_rcu, leaf_free_rcu);
}

/*
 * Replaces a small leaf, locked, by a larger one, new; returns the new one
 * locked. A shrinker that trylocked the old leaf's lock in vain, or comes
 * later, sees f_leaf changed or the old leaf dead.
 */
static void leaf_grow(struct map_leaf *old, struct map_leaf *new)
	NO_THREAD_SAFETY
{
	struct folio **from = leaf_slots(old), **to = leaf_slots(new);
	u32 b;
	int i;

	spin_lock(&new->l_lock);
	for (i = 0; i < MARK_NR; i++)
		memcpy(leaf_mark(new, i), leaf_mark(old, i),
		       leaf_words(old) * sizeof(u64));
	for (b = 0; b < old->l_cap; b++) {
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
	leaf_unlink(old, new);
	spin_unlock(&old->l_lock);
	call_rcu(&old->l_rcu, leaf_free_rcu);
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
 * Links the new leaf, locked, if nobody else has linked one meanwhile.
 * 0: linked. -EEXIST. -ENOMEM.
 */
static int leaf_link(struct mapping *m, struct map_leaf *new) NO_THREAD_SAFETY
{
	struct node_stock stock = { .nr = 0 };
	unsigned need;
	int ret = 0;

	spin_lock(&new->l_lock);
	spin_lock(&m->m_lock);
	for (;;) {
		if (tree_find(m, new->l_index)) {
			ret = -EEXIST;
			break;
		}
		need = tree_nodes_needed(m, new->l_index);
		if (need <= stock.nr) {
			tree_insert(m, new, &stock);
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

int leaf_lock_create(struct mapping *m, lblk_t lblk, struct map_leaf **out)
{
	u32 index = lblk >> LEAF_SHIFT, b = lblk % LEAF_BLOCKS;
	struct map_leaf *leaf, *new = NULL;
	int ret;

	for (;;) {
		leaf = leaf_lock(m, index);
		if (leaf && b < leaf->l_cap)
			break;
		if (leaf && new) {
			leaf_grow(leaf, new);
			*out = new;
			return 0;
		}
		if (leaf)
			leaf_unlock(leaf);
		if (!new) {
			new = leaf_alloc(m, index, leaf_cap_for(index, b));
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
			leaf_discard(new);
			return ret;
		}
	}
	if (new)
		leaf_discard(new);
	*out = leaf;
	return 0;
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
	atomic_init(&m->m_root, NULL);
	spin_init(&m->m_lock, RANK_CACHE_LIST);
	atomic_init(&m->m_nr_dirty, 0);
	atomic_init(&m->m_nr_writeback, 0);
	atomic_init(&m->m_nr_delayed, 0);
	atomic_init(&m->m_nr_folio_blocks, 0);
	atomic_init(&m->m_wb_seq, 0);
	atomic_init(&m->m_wb_err, 0);
	atomic_init(&m->m_drop_gen, 0);
}

/*
 * A shrinker may just be unlinking the last leaf: it does so, and touches the
 * mapping for the last time, under m_lock. With the lock taken here and the
 * tree empty it is through, and no leaf leads to the mapping any more.
 */
void mapping_destroy(struct mapping *m)
{
	void *root;

	spin_lock(&m->m_lock);
	root = slot_load(&m->m_root);
	spin_unlock(&m->m_lock);
	assert(!root);
	spin_destroy(&m->m_lock);
}
