/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/src/test_handles.c - file handles: each file is released once,
 * by its close or by the end of all
 */
#include "tests/unit/unit.h"

#include <stdatomic.h>

#include "fs/fs.h"
#include "lib/thread.h"
#include "src/handles.h"

#define FILES 1000
#define THREADS 4

/* A file of ours is a count of its releases. */
struct sl_file {
	_Atomic int released;
};

static struct sl_file files[THREADS][FILES];
static struct handle_table table;

static _Atomic unsigned scans_closed;

void sl_bulkstat_close(struct sl_bulkstat *bs)
{
	if (bs)
		atomic_fetch_add(&scans_closed, 1);
}

void sl_release(struct sl_file *f)
{
	atomic_fetch_add(&f->released, 1);
}

static int setup(void **state)
{
	memset(files, 0, sizeof(files));
	handles_init(&table);
	return 0;
}

static int teardown(void **state)
{
	handles_destroy(&table); /* asserts that it is empty */
	return 0;
}

static void test_close_releases_the_file(void **state)
{
	struct handle *h = handle_open(&table, &files[0][0]);

	assert_non_null(h);
	assert_ptr_equal(h->file, &files[0][0]);
	assert_int_equal(files[0][0].released, 0);
	handle_close(h);
	assert_int_equal(files[0][0].released, 1);
	assert_int_equal(handles_close_all(&table), 0);
}

static void test_a_stream_has_no_file(void **state)
{
	struct sl_bulkstat *scan = (struct sl_bulkstat *)&files[0][0];
	struct handle *h = handle_open_stream(&table, 3, 9);
	unsigned before = scans_closed;

	assert_non_null(h);
	assert_null(h->file);
	assert_int_equal(h->stream->next, 3);
	assert_int_equal(h->stream->last, 9);
	handle_keep_scan(h, scan);
	assert_ptr_equal(handle_take_scan(h), scan);
	handle_keep_scan(h, scan);
	handle_close(h);
	assert_int_equal(scans_closed, before + 1);
	assert_non_null(handle_open_stream(&table, 1, ~0ull));
	assert_int_equal(handles_close_all(&table), 1);
}

/* Opens all, closes every other one. */
static void open_many(void *arg)
{
	struct sl_file *mine = arg;

	for (unsigned i = 0; i < FILES; i++) {
		struct handle *h = handle_open(&table, &mine[i]);

		if (i % 2)
			handle_close(h);
	}
}

static void test_close_all_releases_what_threads_left_open(void **state)
{
	struct thread *threads[THREADS];

	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(thread_create(&threads[i], "open", open_many,
					       files[i]), 0);
	for (unsigned i = 0; i < THREADS; i++)
		thread_join(threads[i]);
	assert_int_equal(handles_close_all(&table), THREADS * FILES / 2);
	for (unsigned i = 0; i < THREADS; i++)
		for (unsigned j = 0; j < FILES; j++)
			assert_int_equal(files[i][j].released, 1);
	assert_int_equal(handles_close_all(&table), 0);
}

static struct sl_bulkstat *scan_nr(unsigned n)
{
	static char scans[HANDLE_SCANS_MAX + 2];

	return (struct sl_bulkstat *)&scans[n];
}

/* So many scans are kept and no more; what is kept ends with its handle. */
static void test_scans_are_kept_up_to_a_limit(void **state)
{
	struct handle *h[HANDLE_SCANS_MAX + 1];

	atomic_store(&scans_closed, 0);
	for (unsigned i = 0; i <= HANDLE_SCANS_MAX; i++) {
		h[i] = handle_open(&table, &files[0][i]);
		assert_null(handle_take_scan(h[i]));
		handle_keep_scan(h[i], scan_nr(i));
	}
	assert_int_equal(scans_closed, 1);
	assert_null(handle_take_scan(h[HANDLE_SCANS_MAX]));
	assert_ptr_equal(handle_take_scan(h[0]), scan_nr(0));
	assert_null(handle_take_scan(h[0]));
	/* Place for one; a second one on the same handle is not kept. */
	handle_keep_scan(h[0], scan_nr(0));
	assert_ptr_equal(handle_take_scan(h[1]), scan_nr(1));
	handle_keep_scan(h[0], scan_nr(1));
	assert_int_equal(scans_closed, 2);
	handle_close(h[0]);
	assert_int_equal(scans_closed, 3);
	assert_int_equal(handles_close_all(&table), HANDLE_SCANS_MAX);
	assert_int_equal(scans_closed, HANDLE_SCANS_MAX + 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_close_releases_the_file,
						setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_close_all_releases_what_threads_left_open, setup,
			teardown),
		cmocka_unit_test_setup_teardown(test_a_stream_has_no_file,
						setup, teardown),
		cmocka_unit_test_setup_teardown(test_scans_are_kept_up_to_a_limit,
						setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
