/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/lib/test_interval_tree.c - interval trees against a plain array
 *
 * SEED=n repeats a random run.
 */
#include "tests/unit/unit.h"

#include <time.h>

#include "lib/interval_tree.h"

#define NODES 600
#define ROUNDS 30000

struct item {
	struct itree_node node;
	bool in;
};

static struct item items[NODES];
static u64 seed;

static u64 rnd(u64 n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (seed >> 20) % n;
}

struct found {
	struct itree_node *prev;
	u64 nr, stop_after;
	bool marked[NODES];
};

static bool note(struct itree_node *node, void *priv)
{
	struct found *f = priv;
	struct item *it = container_of_type(node, struct item, node);

	assert_false(f->marked[it - items]);
	f->marked[it - items] = true;
	if (f->prev)
		assert_true(f->prev->it_start <= node->it_start);
	f->prev = node;
	return ++f->nr != f->stop_after;
}

static void compare(const struct itree *t, u64 start, u64 last)
{
	struct found f = { 0 }, some = { .stop_after = 2 };
	u64 nr = 0;

	assert_true(itree_walk(t, start, last, note, &f));
	for (int i = 0; i < NODES; i++) {
		bool hit = items[i].in && items[i].node.it_start <= last &&
			   items[i].node.it_last >= start;

		assert_int_equal(hit, f.marked[i]);
		nr += hit;
	}
	assert_int_equal(itree_overlaps(t, start, last), nr > 0);
	assert_int_equal(itree_walk(t, start, last, note, &some), nr < 2);
	assert_int_equal(some.nr, min_of(nr, (u64)2));
}

/* Points, many that are equal, wide ones; dense and sparse. */
static void set_interval(struct itree_node *n, u64 space)
{
	static const u64 widths[] = { 1, 1, 8, 64, 1000 };

	n->it_start = rnd(space);
	n->it_last = n->it_start + rnd(widths[rnd(5)]);
}

static void run_space(u64 space)
{
	struct itree t = { NULL };
	u64 nr = 0;

	for (int r = 0; r < ROUNDS; r++) {
		struct item *it = &items[rnd(NODES)];
		u64 start = rnd(space + 10);

		if (it->in) {
			itree_remove(&t, &it->node);
			nr--;
		} else {
			set_interval(&it->node, space);
			itree_insert(&t, &it->node);
			nr++;
		}
		it->in = !it->in;
		if (r % 16 == 0) {
			assert_int_equal(itree_check(&t), nr);
			compare(&t, start, start + rnd(30));
		}
	}
	for (int i = 0; i < NODES; i++)
		if (items[i].in) {
			itree_remove(&t, &items[i].node);
			items[i].in = false;
			itree_check(&t);
		}
	assert_null(t.root);
	assert_false(itree_overlaps(&t, 0, UINT64_MAX));
}

static void test_random_runs_match_the_model(void **state)
{
	const char *given = getenv("SEED");

	seed = given ? strtoull(given, NULL, 0) : (u64)time(NULL) * 2 + 1;
	print_message("SEED=%llu\n", (unsigned long long)seed);
	run_space(20);
	run_space(1000);
	run_space(1000000);
}

/* Ascending and descending insertion, the bad cases of plain trees. */
static void test_depth_is_logarithmic(void **state)
{
	struct itree t = { NULL };

	for (u32 i = 0; i < NODES; i++) {
		struct itree_node *n = &items[i].node;

		n->it_start = n->it_last = i < NODES / 2 ? i : 10000 - i;
		itree_insert(&t, n);
		items[i].in = true;
	}
	assert_int_equal(itree_check(&t), NODES);
	assert_in_range(t.root->it_height, 10, 14);
	compare(&t, 0, UINT64_MAX);
	compare(&t, NODES / 2, NODES / 2 + 1);
	for (u32 i = 0; i < NODES; i++) {
		itree_remove(&t, &items[i].node);
		items[i].in = false;
	}
	assert_null(t.root);
}

static void test_ends_of_the_range(void **state)
{
	struct itree t = { NULL };

	items[0].node.it_start = 0;
	items[0].node.it_last = UINT64_MAX;
	items[1].node.it_start = items[1].node.it_last = UINT64_MAX;
	items[2].node.it_start = items[2].node.it_last = 0;
	for (int i = 0; i < 3; i++) {
		itree_insert(&t, &items[i].node);
		items[i].in = true;
	}
	compare(&t, 0, 0);
	compare(&t, 1, UINT64_MAX - 1);
	compare(&t, UINT64_MAX, UINT64_MAX);
	for (int i = 0; i < 3; i++) {
		itree_remove(&t, &items[i].node);
		items[i].in = false;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_runs_match_the_model),
		cmocka_unit_test(test_depth_is_logarithmic),
		cmocka_unit_test(test_ends_of_the_range),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
