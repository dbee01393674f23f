/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/cache/test_region.c - buffers whose parts have owners
 */
#include "tests/unit/unit.h"

#include "cache/budget.h"
#include "cache/region.h"
#include "lib/thread.h"

#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>

#define PAGE REGION_PAGE
#define PAGES 70u /* more than one word of bits */
#define BYTES ((size_t)PAGES * PAGE)

static struct region_pool *pool;

static char *page_of(const struct region *r, u32 page)
{
	return (char *)region_memory(r) + (size_t)page * PAGE;
}

/* A region that is held, with every page written to. */
static struct region *get_full(void)
{
	struct region *r = region_get(pool, 0);

	assert_non_null(r);
	for (u32 i = 0; i < PAGES; i++)
		memset(page_of(r, i), (int)i + 1, PAGE);
	region_note(r, BYTES);
	assert_int_equal(region_resident(r), BYTES);
	return r;
}

/* Pages that are in memory now. */
static u32 in_memory(const void *base)
{
	unsigned char vec[PAGES];
	u32 n = 0;

	assert_int_equal(mincore((void *)base, BYTES, vec), 0);
	for (u32 i = 0; i < PAGES; i++)
		n += vec[i] & 1;
	return n;
}

static void release(struct region *r, u32 page, u32 nr)
{
	struct region *last = NULL;

	region_release(&last, r, page_of(r, page), (size_t)nr * PAGE);
	region_release_end(&last);
}

static void begin(u32 keep)
{
	pool = region_pool_new(BYTES - 100, (size_t)keep * PAGE);
	assert_non_null(pool);
}

static void end(void)
{
	region_pool_free(pool);
	pool = NULL;
}

static void test_what_is_put_back_is_warm(void **state)
{
	struct region *r, *other;
	char *base;

	begin(PAGES);
	r = get_full();
	base = region_memory(r);
	assert_false(region_has_parts(r));
	region_put(r);
	r = region_get(pool, 0);
	assert_ptr_equal(region_memory(r), base);
	assert_int_equal(region_resident(r), BYTES);
	assert_int_equal(in_memory(base), PAGES);
	region_trim(r);
	assert_int_equal(region_resident(r), 0);
	assert_int_equal(in_memory(base), 0);
	other = region_get(pool, 3 * PAGE + 1);
	assert_ptr_not_equal(region_memory(other), base);
	assert_int_equal(region_resident(other), 4 * PAGE);
	assert_int_equal(in_memory(region_memory(other)), 4);
	region_put(other);
	region_put(r);
	end();
}

/* What nobody owns gives its memory back once the holder has gone. */
static void test_a_part_costs_what_it_is(void **state)
{
	struct region *r;
	char *base;

	begin(PAGES);
	r = get_full();
	base = region_memory(r);
	region_take(r, page_of(r, 1), 2 * PAGE);
	region_take(r, page_of(r, 60), 10 * PAGE);
	assert_true(region_has_parts(r));
	assert_int_equal(in_memory(base), PAGES);
	/* Held: nothing happens to what was a part, it may be wanted still. */
	release(r, 1, 2);
	assert_int_equal(base[PAGE], 2);
	region_take(r, page_of(r, 2), PAGE);
	region_put(r);
	/* page 0 stays */
	assert_int_equal(in_memory(base), 1 + 1 + 10);
	assert_int_equal(base[2 * PAGE], 3);
	assert_int_equal(base[60 * PAGE], 61);
	release(r, 2, 1);
	assert_int_equal(in_memory(base), 1 + 10);
	assert_int_equal(base[69 * PAGE + PAGE - 1], 70);
	/* The last part: all that is left waits as it is. */
	release(r, 60, 10);
	assert_int_equal(in_memory(base), 1 + 10);
	r = region_get(pool, 0);
	assert_ptr_equal(region_memory(r), base);
	assert_int_equal(region_resident(r), 11 * PAGE);
	region_note(r, 3 * PAGE);
	assert_int_equal(region_resident(r), 13 * PAGE);
	region_put(r);
	end();
}

/* Parts that go in one go leave the region warm. */
static void test_parts_that_go_together(void **state)
{
	struct region *a, *b, *last = NULL;
	char *base;

	begin(2 * PAGES);
	a = get_full();
	b = get_full();
	base = region_memory(a);
	for (u32 i = 1; i < PAGES; i++)
		region_take(a, page_of(a, i), PAGE);
	region_take(b, page_of(b, 1), PAGE);
	region_take(b, page_of(b, 5), PAGE);
	region_put(a);
	region_put(b);
	for (u32 i = 1; i < PAGES; i++)
		region_release(&last, a, page_of(a, i), PAGE);
	region_release(&last, b, page_of(b, 1), PAGE);
	assert_int_equal(in_memory(base), PAGES);
	assert_int_equal(in_memory(region_memory(b)), 3);
	region_release_end(&last);
	assert_int_equal(in_memory(region_memory(b)), 2);
	release(b, 5, 1);
	end();
}

static void test_idle_memory_is_bounded(void **state)
{
	struct region *r[3];

	begin(PAGES + 1);
	for (u32 i = 0; i < 3; i++)
		r[i] = get_full();
	for (u32 i = 0; i < 3; i++)
		region_put(r[i]);
	/* Only one was kept. */
	r[0] = region_get(pool, 0);
	r[1] = region_get(pool, 0);
	assert_int_equal(region_resident(r[0]), BYTES);
	assert_int_equal(region_resident(r[1]), 0);
	region_put(r[0]);
	region_put(r[1]);
	end();
}

/* What waits is charged to a cache while there is one, and goes when that is short. */
static void test_idle_memory_is_charged(void **state)
{
	struct region *r[3], *late;
	struct budget *b;

	begin(0);
	assert_int_equal(budget_create(8 << 20, 1, &b), 0);
	region_pool_bind(pool, b);
	for (u32 i = 0; i < 3; i++)
		r[i] = get_full();
	assert_int_equal(budget_used(b, BUDGET_FOLIO), 0);
	for (u32 i = 0; i < 3; i++)
		region_put(r[i]);
	assert_int_equal(budget_used(b, BUDGET_FOLIO), 3 * BYTES);
	late = region_get(pool, 0);
	assert_ptr_equal(late, r[2]);
	assert_int_equal(budget_used(b, BUDGET_FOLIO), 2 * BYTES);
	/* In whole regions. */
	assert_int_equal(region_pool_shrink(pool, 0, 1), BYTES);
	assert_int_equal(budget_used(b, BUDGET_FOLIO), BYTES);
	region_put(late);
	assert_int_equal(region_pool_shrink(pool, 0, UINT64_MAX), 2 * BYTES);
	assert_int_equal(region_pool_shrink(pool, 0, 1), 0);
	/* No more than a quarter of the limit, and nothing when the cache has gone. */
	for (u32 i = 0; i < 3; i++)
		r[i] = get_full();
	late = get_full();
	for (u32 i = 0; i < 3; i++)
		region_put(r[i]);
	for (u32 i = 0; i < 8; i++)
		region_put(get_full());
	assert_in_range(budget_used(b, BUDGET_FOLIO), BYTES, 2 << 20);
	region_pool_unbind(pool);
	assert_int_equal(budget_used(b, BUDGET_FOLIO), 0);
	budget_destroy(b);
	region_put(late);
	end();
}

/* ---- many threads ---- */

#define SLOTS 64
#define ROUNDS 4000

struct part {
	struct region *r;
	u32 page, nr;
	unsigned char mark;
};

static struct part slots[SLOTS];
static _Atomic int slot_state[SLOTS]; /* 0 free, 1 being changed, 2 full */
static _Atomic unsigned holders, broken;

static bool intact(const struct part *p)
{
	for (u32 i = 0; i < p->nr; i++)
		if (*page_of(p->r, p->page + i) != (char)p->mark ||
		    page_of(p->r, p->page + i)[PAGE - 1] != (char)p->mark)
			return false;
	return true;
}

static bool change(u32 s, int from)
{
	return atomic_compare_exchange_strong(&slot_state[s], &from, 1);
}

/* Fills regions and leaves parts of them in the slots. */
static void holder_main(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;

	for (int n = 0; n < ROUNDS; n++) {
		unsigned char mark = (unsigned char)rand_r(&seed);
		struct region *r = region_get(pool, 0);

		if (!r)
			abort();
		memset(region_memory(r), mark, BYTES);
		region_note(r, BYTES);
		for (u32 page = 1; page < PAGES;) {
			u32 nr = 1 + (u32)rand_r(&seed) % 40;
			u32 s = (u32)rand_r(&seed) % SLOTS;

			nr = min_of(nr, PAGES - page);
			if (rand_r(&seed) % 4 && change(s, 0)) {
				region_take(r, page_of(r, page), (size_t)nr * PAGE);
				slots[s] = (struct part){ r, page, nr, mark };
				atomic_store(&slot_state[s], 2);
			}
			page += nr;
		}
		region_put(r);
	}
	atomic_fetch_sub(&holders, 1);
}

/* Takes parts out of the slots, sees that they are as they were, lets them go. */
static void owner_main(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;

	while (atomic_load(&holders)) {
		struct region *last = NULL;
		u32 s = (u32)rand_r(&seed) % SLOTS;

		for (u32 i = 0; i < 8; i++, s = (s + 1) % SLOTS) {
			struct part p;

			if (!change(s, 2))
				continue;
			p = slots[s];
			atomic_store(&slot_state[s], 0);
			if (!intact(&p))
				atomic_fetch_add(&broken, 1);
			region_release(&last, p.r, page_of(p.r, p.page),
				       (size_t)p.nr * PAGE);
		}
		region_release_end(&last);
		sched_yield();
	}
}

static void test_many_threads(void **state)
{
	struct thread *threads[5];
	u32 nr = ARRAY_SIZE(threads);

	begin(3 * PAGES);
	atomic_store(&holders, 2);
	for (u32 i = 0; i < nr; i++)
		assert_int_equal(thread_create(&threads[i], "region",
					       i < 2 ? holder_main : owner_main,
					       (void *)(uintptr_t)(i + 1)),
				 0);
	for (u32 i = 0; i < nr; i++)
		thread_join(threads[i]);
	for (u32 s = 0; s < SLOTS; s++) {
		if (atomic_load(&slot_state[s]) != 2)
			continue;
		assert_true(intact(&slots[s]));
		release(slots[s].r, slots[s].page, slots[s].nr);
		atomic_store(&slot_state[s], 0);
	}
	assert_int_equal(atomic_load(&broken), 0);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_put_back_is_warm),
		cmocka_unit_test(test_a_part_costs_what_it_is),
		cmocka_unit_test(test_parts_that_go_together),
		cmocka_unit_test(test_idle_memory_is_bounded),
		cmocka_unit_test(test_idle_memory_is_charged),
		cmocka_unit_test(test_many_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
