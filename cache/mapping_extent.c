/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/mapping_extent.c - page cache of a file: what it knows of extents
 *
 * The records of a leaf are found and changed under its lock; a value, which
 * is a leaf with one record from its start and no folios, is read under RCU
 * and changed under m_lock. A change tries the value first and makes a leaf
 * if a value will not do; that a leaf can be a value again is seen when it is
 * unlocked (mapping_tree.c).
 *
 *   value [0,100) written         8 bytes
 *     | [100,512) is a hole
 *     v
 *   leaf without slots, 2 records
 *     | a folio comes             | the hole is filled, behind the 100 blocks
 *     v                           v
 *   leaf with slots             value [0,512) written
 *
 * Room for more records is allocated with the leaf unlocked. To forget never
 * needs memory: if there is no room for what is left on the right of a gap,
 * that is forgotten too.
 *
 * The shrinker works through the mappings that have records, a part of each
 * at a time, and forgets what was not asked for since it came by last. A
 * mapping is on one list of its first reader's zone from its first record to its end, which
 * waits for scans that are at it (m_pins, raised under the list's lock).
 *
 * Locks:  leaf lock, or m_lock; lock of such a list
 * Never:  an allocation under one of them
 * Threads: any
 * Source: the idea is that of fs/ext4/extents_status.c, with the leaf lock in
 *         the place of a lock for each file
 */
#include "cache/mapping_internal.h"
#include "lib/thread.h"
#include "lib/wait.h"
#include <stdlib.h>
#include <string.h>

/* Leaves that one answer may span: an extent of 32768 blocks. */
#define GET_LEAVES 64u
/* Places of one mapping that a scan looks at before it goes on to the next. */
#define SCAN_PLACES 1024u

/* ---- records of one leaf, locked ---- */

static inline u32 ext_end(const struct leaf_ext *x)
{
	return x->start + (u32)x->len;
}

/* The physical block at b; holes have none. */
static inline pblk_t ext_pblk(const struct leaf_ext *x, u32 b)
{
	return x->state == EXTENT_HOLE ? 0 : x->pblk + (b - x->start);
}

/* Index of the first record that ends after b. */
static u32 ext_search(const struct map_leaf *leaf, u32 b)
{
	u32 lo = 0, hi = leaf->l_nr_ext;

	while (lo < hi) {
		u32 mid = (lo + hi) / 2;

		if (ext_end(&leaf->l_ext[mid]) <= b)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* The record that has block b, or NULL. */
static const struct leaf_ext *ext_at(const struct map_leaf *leaf, u32 b)
{
	u32 i = ext_search(leaf, b);

	return i < leaf->l_nr_ext && leaf->l_ext[i].start <= b ? &leaf->l_ext[i]
							       : NULL;
}

bool leaf_ext_mapped(const struct map_leaf *leaf, u32 b)
{
	const struct leaf_ext *x = ext_at(leaf, b);

	return x && x->state != EXTENT_HOLE;
}

static void ext_delete(struct map_leaf *leaf, u32 i, u32 n)
{
	memmove(leaf->l_ext + i, leaf->l_ext + i + n,
		(leaf->l_nr_ext - i - n) * sizeof(struct leaf_ext));
	leaf->l_nr_ext = (u16)(leaf->l_nr_ext - n);
}

static void ext_insert_at(struct map_leaf *leaf, u32 i, struct leaf_ext x)
{
	assert(leaf->l_nr_ext < leaf->l_cap_ext);
	memmove(leaf->l_ext + i + 1, leaf->l_ext + i,
		(leaf->l_nr_ext - i) * sizeof(struct leaf_ext));
	leaf->l_ext[i] = x;
	leaf->l_nr_ext++;
}

/* The part [s, e) of a record. */
static struct leaf_ext ext_part(const struct leaf_ext *x, u32 s, u32 e)
{
	return (struct leaf_ext){
		.start = (u16)s,
		.len = (u16)(e - s),
		.state = x->state,
		.pblk = ext_pblk(x, s),
	};
}

void leaf_ext_forget(struct map_leaf *leaf, u32 s, u32 e)
{
	u32 i = ext_search(leaf, s), n;
	struct leaf_ext *x = leaf->l_ext + i;

	if (s >= e)
		return;
	if (i < leaf->l_nr_ext && x->start < s) {
		struct leaf_ext right = { 0 };

		if (ext_end(x) > e)
			right = ext_part(x, e, ext_end(x));
		*x = ext_part(x, x->start, s);
		i++;
		if (right.len) {
			if (leaf->l_nr_ext < leaf->l_cap_ext)
				ext_insert_at(leaf, i, right);
			return;
		}
	}
	for (n = 0; i + n < leaf->l_nr_ext &&
		    ext_end(&leaf->l_ext[i + n]) <= e; n++)
		;
	if (n)
		ext_delete(leaf, i, n);
	x = leaf->l_ext + i;
	if (i < leaf->l_nr_ext && x->start < e)
		*x = ext_part(x, e, ext_end(x));
}

static bool ext_joins(const struct leaf_ext *a, const struct leaf_ext *b)
{
	return ext_end(a) == b->start && a->state == b->state &&
	       ext_pblk(a, b->start) == b->pblk;
}

/* Enters a record over what was there. False, nothing done: no room. */
static bool leaf_ext_set(struct map_leaf *leaf, struct leaf_ext x)
{
	const struct leaf_ext *old = ext_at(leaf, x.start);
	u32 i;

	if (old && ext_end(old) >= ext_end(&x) && old->state == x.state &&
	    ext_pblk(old, x.start) == x.pblk)
		return true;
	/* One more for it, and one for a record that it splits. */
	if (leaf->l_nr_ext + 2u > leaf->l_cap_ext)
		return false;
	leaf_ext_forget(leaf, x.start, ext_end(&x));
	i = ext_search(leaf, x.start);
	if (i < leaf->l_nr_ext && ext_joins(&x, &leaf->l_ext[i])) {
		x.len = (u16)(x.len + leaf->l_ext[i].len);
		ext_delete(leaf, i, 1);
	}
	if (i && ext_joins(&leaf->l_ext[i - 1], &x))
		leaf->l_ext[i - 1].len =
			(u16)(leaf->l_ext[i - 1].len + x.len);
	else
		ext_insert_at(leaf, i, x);
	return true;
}

void leaf_ext_move(struct map_leaf *old, struct map_leaf *new)
{
	assert(!new->l_nr_ext);
	new->l_nr_ext = old->l_nr_ext;
	new->l_referenced = old->l_referenced;
	if (old->l_nr_ext <= LEAF_INLINE_EXT) {
		/* An array of its own stays with the old one and goes with it. */
		memcpy(new->l_inline, old->l_ext,
		       old->l_nr_ext * sizeof(struct leaf_ext));
		return;
	}
	new->l_ext = old->l_ext;
	new->l_cap_ext = old->l_cap_ext;
	old->l_ext = old->l_inline;
	old->l_nr_ext = 0;
	old->l_cap_ext = LEAF_INLINE_EXT;
}

void leaf_ext_from_value(struct map_leaf *leaf, u64 value)
{
	assert(!leaf->l_nr_ext);
	leaf->l_ext[0] = (struct leaf_ext){
		.len = (u16)value_len(value),
		.state = (u16)value_state(value),
		.pblk = value_pblk(value),
	};
	leaf->l_nr_ext = 1;
	leaf->l_referenced = (value & VALUE_REFERENCED) != 0;
}

bool leaf_ext_value(const struct map_leaf *leaf, u64 *value)
{
	const struct leaf_ext *x = leaf->l_ext;

	if (leaf->l_nr_ext != 1 || x->start)
		return false;
	*value = value_make((enum extent_state)x->state, x->len, x->pblk);
	if (leaf->l_referenced)
		*value |= VALUE_REFERENCED;
	return true;
}

/* ---- asking ---- */

/* What one leaf knows of [s, e). False: nothing. */
static bool leaf_get(struct mapping *m, u32 index, u32 s, u32 e,
		     struct extent_status *es) NO_THREAD_SAFETY
{
	const struct leaf_ext *x;
	struct map_leaf *leaf;
	bool found = false;
	u64 v;

	leaf = leaf_lock_or_value(m, index, &v);
	if (leaf) {
		x = ext_at(leaf, s);
		if (x) {
			es->state = (enum extent_state)x->state;
			es->nr = min_of(ext_end(x), e) - s;
			es->pblk = ext_pblk(x, s);
			es->open = x + 1 == leaf->l_ext + leaf->l_nr_ext ||
				   x[1].start != ext_end(x);
			leaf->l_referenced = true;
			found = true;
		}
		leaf_unlock(leaf);
	} else if (v && value_len(v) > s) {
		es->state = value_state(v);
		es->nr = min_of(value_len(v), e) - s;
		es->pblk = es->state == EXTENT_HOLE ? 0 : value_pblk(v) + s;
		es->open = true;
		value_touch(m, index, v);
		found = true;
	}
	return found;
}

bool mapping_extent_get(struct mapping *m, lblk_t lblk, u32 nr,
			struct extent_status *es)
{
	u64 cur = lblk, end = cur + nr;
	struct extent_status part;
	u32 n;

	assert(nr);
	*es = (struct extent_status){ .state = EXTENT_UNKNOWN, .open = true };
	for (n = 0; cur < end && n < GET_LEAVES; n++) {
		u32 s = (u32)cur % LEAF_BLOCKS;
		u32 e = (u32)min_of(end - cur + s, (u64)LEAF_BLOCKS);

		if (!leaf_get(m, (u32)(cur >> LEAF_SHIFT), s, e, &part))
			return n > 0;
		if (!n) {
			*es = part;
		} else if (part.state != es->state ||
			   (part.state != EXTENT_HOLE &&
			    part.pblk != es->pblk + es->nr)) {
			es->open = false;
			return true;
		} else {
			es->nr += part.nr;
		}
		cur += part.nr;
		/* Does it end in this leaf? Then that knows what follows. */
		es->open = part.nr == e - s || part.open;
		if (part.nr < e - s)
			return true;
	}
	es->open = false;
	return true;
}

/* ---- changing ---- */

/* A value is to hold [s, e) too, or to forget it. */
struct value_op {
	u32 s, e;
	enum extent_state state;
	pblk_t pblk; /* of s */
};

static enum value_verdict value_set(u64 *value, void *priv)
{
	const struct value_op *op = priv;
	u64 v = *value;
	u32 len = v ? value_len(v) : 0;

	if (op->s == 0 && op->e >= len) {
		*value = value_make(op->state, op->e, op->pblk) |
			 (v & VALUE_REFERENCED);
		return VALUE_OK;
	}
	if (!v || op->s > len || value_state(v) != op->state ||
	    (op->state != EXTENT_HOLE && value_pblk(v) + op->s != op->pblk))
		return VALUE_NEEDS_LEAF;
	*value = value_make(op->state, max_of(len, op->e), value_pblk(v)) |
		 (v & VALUE_REFERENCED);
	return VALUE_OK;
}

/* Keeps what is before the gap. */
static enum value_verdict value_forget(u64 *value, void *priv)
{
	const struct value_op *op = priv;
	u64 v = *value;

	if (!v || op->s >= value_len(v))
		return VALUE_OK;
	*value = op->s ? value_make(value_state(v), op->s, value_pblk(v)) |
				 (v & VALUE_REFERENCED)
		       : 0;
	return VALUE_OK;
}

/* Room for more records, allocated before the leaf is locked. */
struct ext_room {
	struct leaf_ext *ext;
	u32 cap;
};

/* Gives a locked leaf the room, and takes what it had. */
static void leaf_ext_grow(struct map_leaf *leaf, struct ext_room *room)
{
	struct super_block *sb = leaf->l_map->m_sb;
	size_t before = leaf_ext_bytes(leaf);
	struct leaf_ext *old = leaf->l_ext;

	if (room->cap <= leaf->l_cap_ext)
		return;
	memcpy(room->ext, old, leaf->l_nr_ext * sizeof(*old));
	leaf->l_ext = room->ext;
	leaf->l_cap_ext = (u16)room->cap;
	budget_charge(sb->s_budget, BUDGET_TREE,
		      (s64)leaf_ext_bytes(leaf) - (s64)before);
	room->ext = old == leaf->l_inline ? NULL : old;
	room->cap = 0;
}

static int room_alloc(struct ext_room *room, u32 cap)
{
	free(room->ext);
	room->ext = calloc(cap, sizeof(*room->ext));
	room->cap = cap;
	return room->ext ? 0 : -ENOMEM;
}

/* One leaf's part of mapping_extent_set(). */
static int leaf_set(struct mapping *m, u32 index, struct value_op *op)
	NO_THREAD_SAFETY
{
	struct leaf_ext x = {
		.start = (u16)op->s,
		.len = (u16)(op->e - op->s),
		.state = (u16)op->state,
		.pblk = op->pblk,
	};
	struct ext_room room = { NULL, 0 };
	struct map_leaf *leaf;
	int ret;

	ret = value_change(m, index, value_set, op);
	if (ret != -EEXIST && ret != VALUE_NEEDS_LEAF)
		return ret;
	for (;;) {
		bool done;
		u32 cap;

		ret = leaf_lock_create_bare(m, index, &leaf);
		if (ret)
			break;
		if (room.ext)
			leaf_ext_grow(leaf, &room);
		done = leaf_ext_set(leaf, x);
		cap = 2u * leaf->l_cap_ext;
		leaf_unlock(leaf);
		if (done)
			break;
		ret = room_alloc(&room, cap);
		if (ret)
			break;
	}
	free(room.ext);
	return ret;
}

static void leaf_forget(struct mapping *m, u32 index, struct value_op *op)
	NO_THREAD_SAFETY
{
	struct map_leaf *leaf;

	for (;;) {
		leaf = leaf_lock(m, index);
		if (leaf) {
			leaf_ext_forget(leaf, op->s, op->e);
			leaf_unlock(leaf);
			return;
		}
		if (value_change(m, index, value_forget, op) != -EEXIST)
			return;
	}
}

/* The part of [cur, end) in the leaf where it begins. */
static struct value_op op_at(u64 cur, u64 end)
{
	u32 s = (u32)(cur % LEAF_BLOCKS);

	return (struct value_op){
		.s = s,
		.e = (u32)min_of(end - cur + s, (u64)LEAF_BLOCKS),
	};
}

void mapping_extent_set(struct mapping *m, lblk_t lblk, u64 end,
			enum extent_state state, pblk_t pblk)
{
	u64 cur = lblk;

	assert(state != EXTENT_UNKNOWN);
	end = min_of(end, EXTENT_END);
	if (!atomic_load_explicit(&m->m_maps, memory_order_relaxed))
		mapping_list(m);
	while (cur < end) {
		u32 index = (u32)(cur >> LEAF_SHIFT);
		struct value_op op = op_at(cur, end);

		op.state = state;
		op.pblk = state == EXTENT_HOLE ? 0 : pblk + (cur - lblk);
		/* No memory: what was there may be wrong now. */
		if (leaf_set(m, index, &op))
			leaf_forget(m, index, &op);
		cur += op.e - op.s;
	}
}

void mapping_extent_forget(struct mapping *m, lblk_t lblk, u64 end)
{
	u64 cur = lblk, index;

	end = min_of(end, EXTENT_END);
	while (cur < end) {
		struct value_op op;

		index = tree_next_index(m, cur >> LEAF_SHIFT,
					(end - 1) >> LEAF_SHIFT);
		if (index == UINT64_MAX)
			return;
		cur = max_of(cur, index << LEAF_SHIFT);
		op = op_at(cur, end);
		leaf_forget(m, (u32)index, &op);
		cur += op.e - op.s;
	}
}

void mapping_extent_written(struct mapping *m, lblk_t lblk, u64 end)
{
	u64 cur = lblk;

	while (cur < end) {
		struct extent_status es;
		u32 nr = (u32)min_of(end - cur, (u64)LEAF_BLOCKS -
							cur % LEAF_BLOCKS);

		if (!mapping_extent_get(m, (lblk_t)cur, nr, &es)) {
			/* Rather nothing than search for what is behind. */
			mapping_extent_forget(m, (lblk_t)cur, cur + nr);
			cur += nr;
			continue;
		}
		if (es.state == EXTENT_UNWRITTEN)
			mapping_extent_set(m, (lblk_t)cur, cur + es.nr,
					   EXTENT_WRITTEN, es.pblk);
		cur += es.nr;
	}
}

/* ---- the shrinker ---- */

void mapping_list(struct mapping *m)
{
	struct mapping_cache *mc = m->m_sb->s_mapping_cache;
	struct map_list *l = &mc->maps[zone_home(m->m_sb->s_budget) * mc->lists +
				       thread_cpu() % mc->lists];
	struct map_list *none = NULL;

	spin_lock(&l->lock);
	if (atomic_compare_exchange_strong(&m->m_maps, &none, l)) {
		cds_list_add_tail(&m->m_list, &l->list);
		l->nr++;
	}
	spin_unlock(&l->lock);
}

void mapping_unlist(struct mapping *m)
{
	struct map_list *l = atomic_load(&m->m_maps);

	if (!l)
		return;
	spin_lock(&l->lock);
	cds_list_del(&m->m_list);
	l->nr--;
	spin_unlock(&l->lock);
	wait_event(&m->m_pins, !atomic_load(&m->m_pins));
}

/* A value goes if it was not asked for. Bytes, if nodes went with it. */
struct value_scan {
	bool gone;
};

static enum value_verdict value_age(u64 *value, void *priv)
{
	struct value_scan *scan = priv;

	scan->gone = *value && !(*value & VALUE_REFERENCED);
	if (scan->gone)
		*value = 0;
	else
		*value &= ~VALUE_REFERENCED;
	return VALUE_OK;
}

/* The records of a locked leaf go, if nobody asked for them. Bytes. */
static u64 leaf_age(struct map_leaf *leaf, struct leaf_ext **heap)
{
	struct super_block *sb = leaf->l_map->m_sb;
	size_t bytes = leaf_ext_bytes(leaf);

	if (leaf->l_referenced) {
		leaf->l_referenced = false;
		return 0;
	}
	leaf->l_nr_ext = 0;
	if (bytes) {
		*heap = leaf->l_ext;
		leaf->l_ext = leaf->l_inline;
		leaf->l_cap_ext = LEAF_INLINE_EXT;
		budget_uncharge(sb->s_budget, BUDGET_TREE, (s64)bytes);
	}
	/* leaf_unlock() frees it. */
	return bytes + (leaf->l_nr_folio ? 0 : leaf_bytes(leaf->l_cap));
}

/* Looks at SCAN_PLACES places of a mapping, going round. */
static u64 mapping_age(struct mapping *m, u64 want) NO_THREAD_SAFETY
{
	u64 at = atomic_load(&m->m_scan_next), freed = 0, index;
	u32 n;

	for (n = 0; n < SCAN_PLACES && freed < want; n++) {
		struct value_scan scan = { false };
		struct leaf_ext *heap = NULL;
		struct map_leaf *leaf;

		index = tree_next_index(m, at, UINT32_MAX);
		if (index == UINT64_MAX) {
			at = 0;
			break;
		}
		at = index + 1;
		leaf = leaf_lock(m, (u32)index);
		if (leaf) {
			freed += leaf_age(leaf, &heap);
			leaf_unlock(leaf);
			free(heap);
		} else if (!value_change(m, (u32)index, value_age, &scan) &&
			   scan.gone) {
			freed += sizeof(u64);
		}
	}
	atomic_store(&m->m_scan_next, (u32)at);
	return freed;
}

static u64 list_age(struct map_list *l, u64 want)
{
	u64 freed = 0, todo;
	struct mapping *m;

	spin_lock(&l->lock);
	todo = l->nr;
	spin_unlock(&l->lock);
	while (todo-- && freed < want) {
		spin_lock(&l->lock);
		if (cds_list_empty(&l->list)) {
			spin_unlock(&l->lock);
			break;
		}
		m = cds_list_first_entry(&l->list, struct mapping, m_list);
		cds_list_del(&m->m_list);
		cds_list_add_tail(&m->m_list, &l->list);
		atomic_fetch_add(&m->m_pins, 1);
		spin_unlock(&l->lock);
		freed += mapping_age(m, want - freed);
		/* Only the address from here on: its owner may be waiting. */
		atomic_fetch_sub(&m->m_pins, 1);
		wake_up(&m->m_pins);
	}
	return freed;
}

u64 mapping_extent_scan(struct mapping_cache *mc, u32 zone, u64 bytes)
{
	struct map_list *maps = &mc->maps[zone * mc->lists];
	u64 freed = 0;

	for (int round = 0; round < 2; round++)
		for (u32 i = 0; i < mc->lists && freed < bytes; i++)
			freed += list_age(&maps[i], bytes - freed);
	return freed;
}
