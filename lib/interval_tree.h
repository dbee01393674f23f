/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lib/interval_tree.h - intervals of integers, found by what they overlap
 *
 * A balanced (AVL) search tree by start, each node of which also knows the
 * largest end below it; so that a search for what overlaps [start, last]
 * leaves out every subtree that ends before `start`. Nodes are embedded in
 * the caller's objects; nothing is allocated. Two intervals may be equal.
 *
 * Locks:   the caller's: shared for walks, exclusive for insert and remove
 */
#ifndef SLUICE_LIB_INTERVAL_TREE_H
#define SLUICE_LIB_INTERVAL_TREE_H

#include "lib/types.h"

struct itree_node {
	struct itree_node *it_left, *it_right;
	u64 it_start, it_last; /* inclusive; constant while in a tree */
	u64 it_max;            /* the largest it_last from here down */
	u32 it_height;
};

struct itree {
	struct itree_node *root; /* NULL: empty. Valid when zeroed. */
};

/* O(log n). it_start <= it_last are set by the caller; not in any tree. */
void itree_insert(struct itree *t, struct itree_node *node);
/* O(log n). The node is in this tree. */
void itree_remove(struct itree *t, struct itree_node *node);

/*
 * Calls fn for each node that overlaps [start, last], by ascending start, until
 * fn says false (then the result is false too). fn must not change the tree.
 * O(log n + number found).
 */
typedef bool (*itree_fn)(struct itree_node *node, void *priv);
bool itree_walk(const struct itree *t, u64 start, u64 last, itree_fn fn, void *priv);

/* Does anything overlap [start, last]? O(log n). */
bool itree_overlaps(const struct itree *t, u64 start, u64 last);

/* Aborts if the tree breaks its own rules; O(n), for tests. The number of nodes. */
u64 itree_check(const struct itree *t);

#endif
