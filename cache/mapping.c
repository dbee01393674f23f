/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/mapping.c - page cache of a file: the tree, its leaves, and copying
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
		/* Out of the tree before it was marked: we see the change. */
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

static void leaf_set_folio(struct map_leaf *leaf, u32 b, struct folio *f,
			   struct leaf_delta *d)
{
	leaf_slots(leaf)[b] = f;
	if (f->f_live++ == 0)
		atomic_store_explicit(&f->f_leaf, leaf, memory_order_release);
	d->folio++;
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

u64 mapping_generation(struct mapping *m)
{
	return atomic_load(&m->m_drop_gen);
}

/* ---- reading ---- */

/* Blocks and bytes of a request that lies in one leaf. */
struct span {
	u32 index;      /* of the leaf */
	u32 first;      /* block in the leaf */
	u32 offset;     /* in the first block, bytes */
};

static struct span span_of(const struct mapping *m, u64 pos)
{
	u32 bits = m->m_sb->s_blocksize_bits;

	return (struct span){
		.index = (u32)(pos >> (bits + LEAF_SHIFT)),
		.first = (u32)(pos >> bits) % LEAF_BLOCKS,
		.offset = (u32)(pos & (m->m_sb->s_blocksize - 1)),
	};
}

/* Bytes from pos to the end of its leaf. */
static u64 leaf_room(const struct mapping *m, u64 pos)
{
	u64 bytes = (u64)LEAF_BLOCKS << m->m_sb->s_blocksize_bits;

	return bytes - (pos & (bytes - 1));
}

/* Bytes of [pos, pos+len), in this leaf, before the first present block. */
static u32 absent_prefix(struct map_leaf *leaf, const struct span *sp,
			 u32 blocksize, u32 len)
{
	u32 n = blocksize - sp->offset;
	u32 b;

	for (b = sp->first + 1; n < len && !leaf_folio(leaf, b); b++)
		n += blocksize;
	return min_of(n, len);
}

/* Copies from the present blocks at the start of the span; returns bytes. */
static u32 copy_present(struct map_leaf *leaf, const struct span *sp,
			u32 blocksize, void *buf, u32 len)
{
	u32 done = 0, b = sp->first, off = sp->offset;
	struct folio *f;

	while (done < len && (f = leaf_folio(leaf, b))) {
		u32 n = min_of(blocksize - off, len - done);
		u32 lblk = (u32)leaf_base(leaf) + b;

		memcpy((char *)buf + done,
		       (char *)folio_block(f, lblk, blocksize) + off, n);
		folio_touch(f);
		done += n;
		off = 0;
		b++;
	}
	return done;
}

u32 mapping_read(struct mapping *m, u64 pos, void *buf, u32 len, bool *cached)
	NO_THREAD_SAFETY
{
	u32 blocksize = m->m_sb->s_blocksize;
	u32 done = 0;

	assert(len);
	len = (u32)min_of((u64)len, leaf_room(m, pos));
	while (done < len) {
		struct span sp = span_of(m, pos + done);
		struct map_leaf *leaf = leaf_lock(m, sp.index);
		u32 chunk = min_of(len - done, COPY_MAX), n;

		if (!leaf) {
			if (!done)
				goto absent;
			break;
		}
		if (!done && !leaf_folio(leaf, sp.first)) {
			len = absent_prefix(leaf, &sp, blocksize, len);
			leaf_unlock(leaf);
			goto absent;
		}
		n = copy_present(leaf, &sp, blocksize, (char *)buf + done,
				 chunk);
		leaf_unlock(leaf);
		done += n;
		if (n < chunk)
			break;
	}
	*cached = true;
	return done;
absent:
	*cached = false;
	return len;
}

u32 mapping_query(struct mapping *m, lblk_t lblk, u32 nr, u64 *unknown,
		  u64 *absent) NO_THREAD_SAFETY
{
	struct map_leaf *leaf = leaf_lock(m, lblk >> LEAF_SHIFT);
	u32 first = lblk % LEAF_BLOCKS;
	u32 n = 0, i;

	assert(nr && first + nr <= LEAF_BLOCKS);
	memset(unknown, 0, LEAF_WORDS * sizeof(u64));
	if (absent)
		memset(absent, 0, LEAF_WORDS * sizeof(u64));
	for (i = 0; i < nr; i++) {
		if (!leaf || !leaf_known(leaf, first + i)) {
			bm_set(unknown, i);
			n++;
		}
		if (absent && (!leaf || !leaf_folio(leaf, first + i)))
			bm_set(absent, i);
	}
	if (leaf)
		leaf_unlock(leaf);
	return n;
}

/* ---- filling and writing ---- */

/* gen: NULL for no check. */
static int fill_one(struct mapping *m, lblk_t lblk, const void *data,
		    bool mapped, const u64 *gen) NO_THREAD_SAFETY
{
	struct folio *f = folio_alloc(m->m_sb, lblk, 1);
	u32 b = lblk % LEAF_BLOCKS;
	struct leaf_delta d = { 0 };
	struct map_leaf *leaf;
	CDS_LIST_HEAD(spare);
	int ret;

	if (!f)
		return -ENOMEM;
	cds_list_add(&f->f_lru, &spare);
	memcpy(f->f_data, data, m->m_sb->s_blocksize);
	ret = leaf_lock_create(m, lblk, &leaf);
	if (ret)
		goto out_free;
	if (leaf_folio(leaf, b))
		goto out_unlock;
	/*
	 * The generation is raised before a slot is emptied, also where there
	 * was no leaf to be locked: the fence pairs with that of
	 * mapping_forget(). Either we see it raised, or it sees our leaf.
	 */
	atomic_thread_fence(memory_order_seq_cst);
	if (gen && atomic_load(&m->m_drop_gen) != *gen) {
		ret = -EAGAIN;
		goto out_unlock;
	}
	cds_list_del(&f->f_lru);
	leaf_set_folio(leaf, b, f, &d);
	if (mapped && !bm_test(leaf_mark(leaf, MARK_DELAYED), b))
		bm_set(leaf_mark(leaf, MARK_MAPPED), b);
	folio_lru_add(f);
	leaf_account(leaf, &d);
out_unlock:
	leaf_unlock(leaf);
out_free:
	folio_free_list(&spare);
	return ret;
}

int mapping_fill(struct mapping *m, lblk_t lblk, const void *data, bool mapped)
{
	return fill_one(m, lblk, data, mapped, NULL);
}

int mapping_fill_since(struct mapping *m, lblk_t lblk, const void *data,
		       bool mapped, u64 gen)
{
	return fill_one(m, lblk, data, mapped, &gen);
}

/*
 * One call of mapping_write(): how far it is, and the folios allocated for
 * blocks that were absent at the last look, in ascending order.
 */
struct write_op {
	struct mapping *m;
	u64 pos;             /* where the call began */
	const char *src;
	u32 len;             /* bytes in all */
	u32 done;            /* bytes copied */
	const u64 *mapped;
	lblk_t first_lblk;   /* bit 0 of mapped[] */
	u32 *reserved;
	struct cds_list_head spare;
};

enum write_step {
	STEP_OK,     /* copied up to the end of the chunk */
	STEP_STOP,   /* short count */
	STEP_FOLIOS, /* the next block needs a folio */
};

/* The spare folio that has memory for this block, or NULL. */
static struct folio *spare_for(struct write_op *op, lblk_t lblk)
{
	struct folio *f;

	cds_list_for_each_entry(f, &op->spare, f_lru)
		if (lblk >= f->f_lblk && lblk < f->f_lblk + f->f_nr)
			return f;
	return NULL;
}

/* Gives an unknown block its mark. False: no reservation left. */
static bool mark_known(struct map_leaf *leaf, u32 b, bool mapped,
		       u32 *reserved, struct leaf_delta *d)
{
	if (leaf_known(leaf, b))
		return true;
	if (mapped) {
		bm_set(leaf_mark(leaf, MARK_MAPPED), b);
		return true;
	}
	if (!*reserved)
		return false;
	(*reserved)--;
	bm_set(leaf_mark(leaf, MARK_DELAYED), b);
	d->delayed++;
	return true;
}

static void mark_dirty(struct map_leaf *leaf, u32 b, struct leaf_delta *d)
{
	u64 *dirty = leaf_mark(leaf, MARK_DIRTY);

	leaf_slots(leaf)[b]->f_written = true;
	if (bm_test(dirty, b))
		return;
	bm_set(dirty, b);
	d->dirty++;
	if (!bm_test(leaf_mark(leaf, MARK_WRITEBACK), b))
		d->unclean++;
}

/*
 * Copies up to byte `end` of the request (in one leaf), leaf locked. A block
 * gets its folio from the spare ones; a spare folio that is used moves from
 * the list to the slots, where its first reference then belongs.
 */
static enum write_step write_chunk(struct write_op *op, struct map_leaf *leaf,
				   u32 end, struct leaf_delta *d)
{
	u32 blocksize = op->m->m_sb->s_blocksize;

	while (op->done < end) {
		struct span sp = span_of(op->m, op->pos + op->done);
		lblk_t lblk = (lblk_t)leaf_base(leaf) + sp.first;
		u32 n = min_of(blocksize - sp.offset, end - op->done);
		struct folio *f = leaf_folio(leaf, sp.first);

		if (!f) {
			if (n < blocksize)
				return STEP_STOP;
			f = sp.first < leaf->l_cap ? spare_for(op, lblk) : NULL;
			if (!f)
				return STEP_FOLIOS;
		}
		if (!mark_known(leaf, sp.first,
				bm_test(op->mapped, lblk - op->first_lblk),
				op->reserved, d))
			return STEP_STOP;
		/* Written once is no reason to stay: touched when found here. */
		if (leaf_folio(leaf, sp.first))
			folio_touch(f);
		else
			leaf_set_folio(leaf, sp.first, f, d);
		memcpy((char *)folio_block(f, lblk, blocksize) + sp.offset,
		       op->src + op->done, n);
		mark_dirty(leaf, sp.first, d);
		op->done += n;
	}
	return STEP_OK;
}

/* Takes the spare folios that the slots refer to off the list. Leaf locked. */
static void spare_settle(struct write_op *op)
{
	struct folio *f, *next;

	cds_list_for_each_entry_safe(f, next, &op->spare, f_lru)
		if (f->f_live)
			cds_list_del(&f->f_lru);
}

/* A run of absent blocks. In 64 KiB of 1 KiB blocks at most every second one
 * begins one. */
struct absent_run {
	lblk_t lblk;
	u32 nr;
};
#define MAX_RUNS (COPY_MAX / 1024 / 2 + 2)

/*
 * Finds the runs of absent blocks that bytes [done, end) cover wholly. leaf:
 * locked, or NULL if there is none. Returns their number.
 */
static u32 absent_runs(const struct write_op *op, struct map_leaf *leaf,
		       u32 end, struct absent_run *runs)
{
	u32 bits = op->m->m_sb->s_blocksize_bits;
	u64 from = op->pos + op->done, to = op->pos + end;
	u64 s = ALIGN_UP(from, 1ull << bits) >> bits, e = to >> bits, b;
	u32 n = 0;

	for (b = s; b < e; b++) {
		if (leaf && leaf_folio(leaf, (u32)b % LEAF_BLOCKS))
			continue;
		if (n && runs[n - 1].lblk + runs[n - 1].nr == b) {
			runs[n - 1].nr++;
			continue;
		}
		assert(n < MAX_RUNS);
		runs[n++] = (struct absent_run){ .lblk = (lblk_t)b, .nr = 1 };
	}
	return n;
}

static int spare_fill(struct write_op *op, const struct absent_run *runs, u32 n)
{
	struct super_block *sb = op->m->m_sb;
	u32 i;

	folio_free_list(&op->spare);
	for (i = 0; i < n; i++) {
		lblk_t lblk = runs[i].lblk;
		u32 left = runs[i].nr;

		while (left) {
			u32 nr = folio_size_for(sb, left);
			struct folio *f = folio_alloc(sb, lblk, nr);

			if (!f && nr > 1)
				f = folio_alloc(sb, lblk, nr = 1);
			if (!f)
				return -ENOMEM;
			cds_list_add_tail(&f->f_lru, &op->spare);
			lblk += nr;
			left -= nr;
		}
	}
	return 0;
}

/*
 * Bytes [op->done, end) of the request, 64 KiB at most: tries with what is
 * there, and if folios are missing allocates them without the lock and tries
 * again. Blocks may come and go in between; each turn looks afresh.
 */
static int write_one_chunk(struct write_op *op, u32 end, bool *stop)
	NO_THREAD_SAFETY
{
	u32 bits = op->m->m_sb->s_blocksize_bits;
	lblk_t last = (lblk_t)((op->pos + end - 1) >> bits);
	struct absent_run runs[MAX_RUNS];
	enum write_step step;
	struct map_leaf *leaf;
	u32 nr_runs;
	int ret;

	for (;;) {
		struct leaf_delta d = { 0 };

		if (cds_list_empty(&op->spare)) {
			leaf = leaf_lock(op->m, last >> LEAF_SHIFT);
		} else {
			ret = leaf_lock_create(op->m, last, &leaf);
			if (ret)
				return ret;
		}
		step = STEP_FOLIOS;
		if (leaf) {
			step = write_chunk(op, leaf, end, &d);
			leaf_account(leaf, &d);
			spare_settle(op);
		}
		nr_runs = 0;
		if (step == STEP_FOLIOS)
			nr_runs = absent_runs(op, leaf, end, runs);
		if (leaf)
			leaf_unlock(leaf);
		if (step == STEP_OK)
			return 0;
		/* No leaf, and nothing wholly covered: partly covered, absent. */
		if (step == STEP_STOP || !nr_runs ||
		    (u64)runs[0].lblk << bits > op->pos + op->done) {
			*stop = true;
			return 0;
		}
		ret = spare_fill(op, runs, nr_runs);
		if (ret)
			return ret;
	}
}

s64 mapping_write(struct mapping *m, u64 pos, const void *src, u32 len,
		  const u64 *mapped, u32 *reserved)
{
	struct write_op op = {
		.m = m,
		.pos = pos,
		.src = src,
		.len = len,
		.mapped = mapped,
		.first_lblk = (lblk_t)(pos >> m->m_sb->s_blocksize_bits),
		.reserved = reserved,
	};
	bool stop = false;
	int ret = 0;

	assert(len && len <= leaf_room(m, pos));
	CDS_INIT_LIST_HEAD(&op.spare);
	while (op.done < len && !stop && !ret) {
		u64 at = pos + op.done;
		u32 chunk = COPY_MAX - (u32)(at % COPY_MAX);

		ret = write_one_chunk(&op, op.done + min_of(chunk, len - op.done),
				      &stop);
	}
	folio_free_list(&op.spare);
	return op.done ? (s64)op.done : ret;
}

int mapping_zero(struct mapping *m, u64 pos, u32 len, bool mapped)
	NO_THREAD_SAFETY
{
	u32 blocksize = m->m_sb->s_blocksize;
	struct span sp = span_of(m, pos);
	struct leaf_delta d = { 0 };
	u32 none = 0;
	struct map_leaf *leaf;
	struct folio *f;
	int ret = 0;

	assert(len && sp.offset + len <= blocksize);
	leaf = leaf_lock(m, sp.index);
	if (!leaf)
		return -ENODATA;
	f = leaf_folio(leaf, sp.first);
	if (!f) {
		ret = -ENODATA;
	} else if (!mark_known(leaf, sp.first, mapped, &none, &d)) {
		ret = -EAGAIN;
	} else {
		lblk_t lblk = (lblk_t)leaf_base(leaf) + sp.first;

		memset((char *)folio_block(f, lblk, blocksize) + sp.offset, 0,
		       len);
		folio_touch(f);
		mark_dirty(leaf, sp.first, &d);
		leaf_account(leaf, &d);
	}
	leaf_unlock(leaf);
	return ret;
}
