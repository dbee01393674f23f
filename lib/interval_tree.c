/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lib/interval_tree.c - intervals of integers, found by what they overlap
 *
 * The order is (start, last, address of the node), so that every node has one
 * place, equal intervals too, and removal finds it from the root: no parent
 * pointers. Heights of siblings differ by one at most, so the depth, and with it
 * the recursion, is below 1.45 log2(n): 93 for as many nodes as there are numbers.
 *
 * Locks:   none of its own
 * Source:  the augmented tree of Cormen et al., Introduction to Algorithms,
 *          "Interval trees", over AVL trees
 */
#include "lib/interval_tree.h"

#include <assert.h>
#include <stdlib.h>

static u32 height(const struct itree_node *n)
{
	return n ? n->it_height : 0;
}

/* Height and largest end of a node whose children are right. */
static void update(struct itree_node *n)
{
	u64 max = n->it_last;

	if (n->it_left)
		max = max_of(max, n->it_left->it_max);
	if (n->it_right)
		max = max_of(max, n->it_right->it_max);
	n->it_max = max;
	n->it_height = max_of(height(n->it_left), height(n->it_right)) + 1;
}

static struct itree_node *rotate_right(struct itree_node *n)
{
	struct itree_node *up = n->it_left;

	n->it_left = up->it_right;
	up->it_right = n;
	update(n);
	update(up);
	return up;
}

static struct itree_node *rotate_left(struct itree_node *n)
{
	struct itree_node *up = n->it_right;

	n->it_right = up->it_left;
	up->it_left = n;
	update(n);
	update(up);
	return up;
}

/* A subtree whose halves are balanced and differ in height by two at most:
 * its root once it is balanced itself. */
static struct itree_node *balance(struct itree_node *n)
{
	u32 left = height(n->it_left), right = height(n->it_right);

	if (left > right + 1) {
		if (height(n->it_left->it_left) < height(n->it_left->it_right))
			n->it_left = rotate_left(n->it_left);
		return rotate_right(n);
	}
	if (right > left + 1) {
		if (height(n->it_right->it_right) < height(n->it_right->it_left))
			n->it_right = rotate_right(n->it_right);
		return rotate_left(n);
	}
	update(n);
	return n;
}

/* Is a before b? Never both ways, for two nodes. */
static bool before(const struct itree_node *a, const struct itree_node *b)
{
	if (a->it_start != b->it_start)
		return a->it_start < b->it_start;
	if (a->it_last != b->it_last)
		return a->it_last < b->it_last;
	return (uintptr_t)a < (uintptr_t)b;
}

static struct itree_node *insert_below(struct itree_node *n, struct itree_node *node)
{
	if (!n)
		return node;
	if (before(node, n))
		n->it_left = insert_below(n->it_left, node);
	else
		n->it_right = insert_below(n->it_right, node);
	return balance(n);
}

void itree_insert(struct itree *t, struct itree_node *node)
{
	assert(node->it_start <= node->it_last);
	node->it_left = node->it_right = NULL;
	update(node);
	t->root = insert_below(t->root, node);
}

/* Takes the first node out of a subtree. */
static struct itree_node *take_first(struct itree_node *n, struct itree_node **first)
{
	if (!n->it_left) {
		*first = n;
		return n->it_right;
	}
	n->it_left = take_first(n->it_left, first);
	return balance(n);
}

static struct itree_node *remove_below(struct itree_node *n, struct itree_node *node)
{
	struct itree_node *next;

	assert(n);
	if (n == node) {
		if (!n->it_left)
			return n->it_right;
		if (!n->it_right)
			return n->it_left;
		n->it_right = take_first(n->it_right, &next);
		next->it_left = n->it_left;
		next->it_right = n->it_right;
		return balance(next);
	}
	if (before(node, n))
		n->it_left = remove_below(n->it_left, node);
	else
		n->it_right = remove_below(n->it_right, node);
	return balance(n);
}

void itree_remove(struct itree *t, struct itree_node *node)
{
	t->root = remove_below(t->root, node);
}

static bool walk_below(struct itree_node *n, u64 start, u64 last, itree_fn fn, void *priv)
{
	/* Down to the right in the loop, to the left by recursion. */
	for (; n && n->it_max >= start; n = n->it_right) {
		if (!walk_below(n->it_left, start, last, fn, priv))
			return false;
		if (n->it_start > last)
			return true;
		if (n->it_last >= start && !fn(n, priv))
			return false;
	}
	return true;
}

bool itree_walk(const struct itree *t, u64 start, u64 last, itree_fn fn, void *priv)
{
	return walk_below(t->root, start, last, fn, priv);
}

/*
 * If the left half reaches to `start`, the answer is in it: a node of it that
 * ends there or later either overlaps, or begins after `last`, and then so does
 * all to the right.
 */
bool itree_overlaps(const struct itree *t, u64 start, u64 last)
{
	const struct itree_node *n = t->root;

	while (n) {
		if (n->it_start <= last && n->it_last >= start)
			return true;
		n = n->it_left && n->it_left->it_max >= start ? n->it_left
							      : n->it_right;
	}
	return false;
}

static u64 check_below(const struct itree_node *n)
{
	u32 left, right;
	u64 nr, max;

	if (!n)
		return 0;
	nr = check_below(n->it_left) + check_below(n->it_right) + 1;
	left = height(n->it_left);
	right = height(n->it_right);
	assert(n->it_height == max_of(left, right) + 1);
	assert(left <= right + 1);
	assert(right <= left + 1);
	max = n->it_last;
	if (n->it_left) {
		assert(before(n->it_left, n));
		max = max_of(max, n->it_left->it_max);
	}
	if (n->it_right) {
		assert(before(n, n->it_right));
		max = max_of(max, n->it_right->it_max);
	}
	assert(n->it_max == max);
	return nr;
}

u64 itree_check(const struct itree *t)
{
	return check_below(t->root);
}
