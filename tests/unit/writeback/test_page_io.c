/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/writeback/test_page_io.c - gathering into bios, and completion
 *
 * The device is a list: bios wait there until the test, or threads, end them in
 * the order the test wants. Allocation is failed through ld --wrap=bio_alloc.
 */
#include "../unit.h"

#include "lib/counter.h"
#include "lib/thread.h"
#include "lib/wait.h"
#include "writeback/page_io.h"

#include <errno.h>
#include <stdatomic.h>

#define BLK 4096u
#define MAX_BIOS 4096

/* ---- allocation failures ---- */

static int allocs_left = -1; /* -1: no limit */

struct bio *__real_bio_alloc(int nr_iov);
struct bio *__wrap_bio_alloc(int nr_iov);

struct bio *__wrap_bio_alloc(int nr_iov)
{
	if (!allocs_left)
		return NULL;
	if (allocs_left > 0)
		allocs_left--;
	return __real_bio_alloc(nr_iov);
}

/* ---- the device ---- */

static struct {
	struct bdev bd;
	struct bio *bios[MAX_BIOS];
	_Atomic u32 nr;
	u32 batches;
	_Atomic u32 next; /* to be ended by the next thread that asks */
} dev;

static void list_submit(struct bdev *bd, struct bio **bios, unsigned n)
{
	dev.batches++;
	for (unsigned i = 0; i < n; i++) {
		assert_true(dev.nr < MAX_BIOS);
		dev.bios[dev.nr++] = bios[i];
	}
}

static const struct bdev_ops list_ops = { .submit = list_submit };

/* The same with a way to wait: what comes by it is counted, and ends. */
static u32 waited_for;
static int wait_result;

static int list_rw_now(struct bdev *bd, enum bio_op op, u64 pos,
		       const struct iovec *iov, int nr_iov, u32 bytes, u32 flags)
{
	waited_for++;
	return wait_result;
}

static const struct bdev_ops list_ops_now = {
	.submit = list_submit,
	.rw_now = list_rw_now,
};

static void finish(u32 i, int error)
{
	struct bio *bio = dev.bios[i];

	assert_non_null(bio);
	dev.bios[i] = NULL;
	bdev_end_bio(&dev.bd, bio, error);
}

/* ---- the io_ends ---- */

struct unit {
	struct io_end ioe;
	_Atomic u32 ended;
	_Atomic int error;
	pthread_t by;
};

static void unit_end(struct io_end *ioe)
{
	struct unit *u = container_of_type(ioe, struct unit, ioe);

	assert_int_equal(atomic_load(&ioe->refs), 0);
	atomic_store(&u->error, atomic_load(&ioe->error));
	u->by = pthread_self();
	atomic_fetch_add(&u->ended, 1);
	wake_up(u);
}

static void unit_init(struct unit *u, bool inline_end)
{
	memset(u, 0, sizeof(*u));
	io_end_init(&u->ioe, unit_end, inline_end);
}

static void unit_wait(struct unit *u)
{
	wait_event(u, atomic_load(&u->ended) > 0);
	assert_int_equal(u->ended, 1);
}

static char *mem; /* 4 MiB */
static int setup(void **state)
{
	memset(&dev, 0, sizeof(dev));
	dev.bd.bd_ops = &list_ops;
	dev.bd.bd_size = 1ull << 40;
	dev.bd.bd_sector = 512;
	allocs_left = -1;
	mem = io_alloc(4u << 20);
	return end_io_start();
}

static int teardown(void **state)
{
	end_io_stop();
	io_free(mem);
	counter_set_free(atomic_load(&dev.bd.bd_stats));
	for (u32 i = 0; i < dev.nr; i++)
		if (dev.bios[i])
			return -1;
	return 0;
}

static u64 split_by(enum page_io_split why)
{
	struct bdev_stats st;

	bdev_get_stats(&dev.bd, &st);
	return st.dir[BIO_READ].split[why] + st.dir[BIO_WRITE].split[why];
}

static void check_bio(u32 i, u64 pos, u32 bytes, int nr_iov)
{
	assert_int_equal(dev.bios[i]->bi_pos, pos);
	assert_int_equal(dev.bios[i]->bi_bytes, bytes);
	assert_int_equal(dev.bios[i]->bi_nr_iov, nr_iov);
}

/* ---- gathering ---- */

static void test_contiguous_blocks_share_a_bio(void **state)
{
	struct page_io io;
	struct unit u;

	unit_init(&u, true);
	page_io_init(&io, &dev.bd, BIO_WRITE, BIO_META);
	/* adjacent in memory, then not */
	assert_int_equal(page_io_add(&io, 40960, mem, BLK, &u.ioe), 0);
	assert_int_equal(page_io_add(&io, 45056, mem + BLK, BLK, &u.ioe), 0);
	assert_int_equal(page_io_add(&io, 49152, mem + 8 * BLK, BLK, &u.ioe), 0);
	assert_int_equal(dev.nr, 0);
	page_io_submit(&io);
	assert_int_equal(dev.nr, 1);
	assert_int_equal(dev.batches, 1);
	check_bio(0, 40960, 3 * BLK, 2);
	assert_int_equal(dev.bios[0]->bi_op, BIO_WRITE);
	assert_int_equal(dev.bios[0]->bi_flags, BIO_META);
	assert_ptr_equal(dev.bios[0]->bi_iov[0].iov_base, mem);
	assert_int_equal(dev.bios[0]->bi_iov[0].iov_len, 2 * BLK);
	assert_int_equal(split_by(SPLIT_LAST), 1);
	finish(0, 0);
	assert_int_equal(u.ended, 0); /* the submitter's reference */
	io_end_put(&u.ioe);
	assert_int_equal(u.ended, 1);
	assert_int_equal(u.error, 0);
	page_io_submit(&io); /* nothing */
	assert_int_equal(dev.batches, 1);
}

static void test_gap_splits(void **state)
{
	struct page_io io;
	struct unit u;

	unit_init(&u, true);
	page_io_init(&io, &dev.bd, BIO_WRITE, 0);
	assert_int_equal(page_io_add(&io, 0, mem, BLK, &u.ioe), 0);
	assert_int_equal(page_io_add(&io, 2 * BLK, mem + BLK, BLK, &u.ioe), 0);
	assert_int_equal(page_io_add(&io, BLK, mem + 2 * BLK, BLK, &u.ioe), 0);
	page_io_submit(&io);
	assert_int_equal(dev.nr, 3);
	assert_int_equal(dev.batches, 1);
	assert_int_equal(split_by(SPLIT_DISCONTIG), 2);
	assert_int_equal(split_by(SPLIT_LAST), 1);
	for (u32 i = 0; i < 3; i++)
		finish(2 - i, 0);
	io_end_put(&u.ioe);
	unit_wait(&u);
}

static void test_gap_in_the_file_is_a_hole(void **state)
{
	struct page_io io;
	struct unit u;

	unit_init(&u, true);
	page_io_init(&io, &dev.bd, BIO_WRITE, 0);
	page_io_hole(&io);
	assert_int_equal(page_io_add(&io, 0, mem, BLK, &u.ioe), 0);
	page_io_hole(&io); /* not on the device: nothing is split */
	assert_int_equal(page_io_add(&io, BLK, mem + BLK, BLK, &u.ioe), 0);
	page_io_hole(&io);
	assert_int_equal(page_io_add(&io, 3 * BLK, mem, BLK, &u.ioe), 0);
	assert_int_equal(page_io_add(&io, 5 * BLK, mem, BLK, &u.ioe), 0);
	page_io_submit(&io);
	assert_int_equal(dev.nr, 3);
	assert_int_equal(split_by(SPLIT_HOLE), 1);
	assert_int_equal(split_by(SPLIT_DISCONTIG), 1);
	assert_int_equal(split_by(SPLIT_LAST), 1);
	for (u32 i = 0; i < 3; i++)
		finish(i, 0);
	io_end_put(&u.ioe);
	unit_wait(&u);
}

/* end() runs in the caller's thread, though it is one for the workers. */
static void test_one_bio_that_is_waited_for(void **state)
{
	struct page_io io;
	struct unit u;

	dev.bd.bd_ops = &list_ops_now;
	for (int err = 0; err >= -EIO; err -= EIO) {
		waited_for = 0;
		wait_result = err;
		unit_init(&u, false);
		page_io_init(&io, &dev.bd, BIO_WRITE, 0);
		assert_int_equal(page_io_add(&io, 0, mem, 2 * BLK, &u.ioe), 0);
		io_end_put(&u.ioe);
		assert_int_equal(u.ended, 0);
		page_io_submit_wait(&io);
		assert_int_equal(u.ended, 1);
		assert_int_equal(u.error, err);
		assert_int_equal(waited_for, 1);
		assert_int_equal(dev.nr, 0);
		page_io_submit_wait(&io); /* nothing */
		assert_int_equal(waited_for, 1);
	}
}

/* A full one is as good; two go the usual way. */
static void test_full_bio_that_is_waited_for(void **state)
{
	struct page_io io;
	struct unit u;

	dev.bd.bd_ops = &list_ops_now;
	waited_for = 0;
	wait_result = 0;
	unit_init(&u, true);
	page_io_init(&io, &dev.bd, BIO_WRITE, 0);
	assert_int_equal(page_io_add(&io, 0, mem, BIO_MAX_BYTES, &u.ioe), 0);
	page_io_submit_wait(&io);
	assert_int_equal(waited_for, 1);
	assert_int_equal(page_io_add(&io, 0, mem, BIO_MAX_BYTES + BLK, &u.ioe), 0);
	page_io_submit_wait(&io);
	assert_int_equal(waited_for, 1);
	assert_int_equal(dev.nr, 2);
	finish(0, 0);
	finish(1, 0);
	assert_int_equal(u.ended, 0);
	io_end_put(&u.ioe);
	assert_int_equal(u.ended, 1);
}

/* Somebody else still has a reference: the end is his, or the workers'. */
static void test_shared_io_end_stays_with_the_workers(void **state)
{
	struct page_io io;
	struct unit u;

	dev.bd.bd_ops = &list_ops_now;
	waited_for = 0;
	wait_result = 0;
	unit_init(&u, false);
	page_io_init(&io, &dev.bd, BIO_WRITE, 0);
	assert_int_equal(page_io_add(&io, 0, mem, BLK, &u.ioe), 0);
	page_io_submit_wait(&io);
	assert_int_equal(waited_for, 1);
	assert_int_equal(u.ended, 0);
	assert_false(u.ioe.inline_end);
	io_end_put(&u.ioe);
	unit_wait(&u);
}

/* A device that ends bios on its own thread only: end() may block, so not there. */
static void test_end_does_not_run_on_a_device_thread(void **state)
{
	struct page_io io;
	struct unit u;

	unit_init(&u, false);
	page_io_init(&io, &dev.bd, BIO_WRITE, 0);
	assert_int_equal(page_io_add(&io, 0, mem, BLK, &u.ioe), 0);
	io_end_put(&u.ioe);
	page_io_submit_wait(&io);
	assert_int_equal(dev.nr, 1);
	assert_false(u.ioe.inline_end);
	finish(0, 0); /* as that thread */
	unit_wait(&u);
	assert_false(pthread_equal(u.by, pthread_self()));
}

static void test_large_run_is_cut_at_512k(void **state)
{
	struct page_io io;
	struct unit u;

	unit_init(&u, true);
	page_io_init(&io, &dev.bd, BIO_WRITE, 0);
	assert_int_equal(page_io_add(&io, 0, mem, BLK, &u.ioe), 0);
	assert_int_equal(page_io_add(&io, BLK, mem + BLK, (2u << 20) - BLK, &u.ioe), 0);
	assert_int_equal(page_io_add(&io, 2u << 20, mem + (2u << 20), BLK, &u.ioe), 0);
	page_io_submit(&io);
	assert_int_equal(dev.nr, 5);
	for (u32 i = 0; i < 4; i++)
		check_bio(i, (u64)i * BIO_MAX_BYTES, BIO_MAX_BYTES, 1);
	check_bio(4, 2u << 20, BLK, 1);
	assert_int_equal(split_by(SPLIT_FULL), 4);
	assert_int_equal(split_by(SPLIT_LAST), 1);
	io_end_put(&u.ioe);
	for (u32 i = 0; i < 5; i++) {
		assert_int_equal(u.ended, 0);
		finish(i, 0);
	}
	unit_wait(&u);
}

/* Scattered sectors: the vector is full before 512 KiB are reached. */
static void test_full_vector_splits(void **state)
{
	struct page_io io;
	struct unit u;

	unit_init(&u, true);
	page_io_init(&io, &dev.bd, BIO_READ, 0);
	for (u32 i = 0; i < BIO_MAX_VECS + 10; i++)
		assert_int_equal(page_io_add(&io, i * 512, mem + i * 1024, 512,
					     &u.ioe), 0);
	page_io_submit(&io);
	assert_int_equal(dev.nr, 2);
	check_bio(0, 0, BIO_MAX_VECS * 512, BIO_MAX_VECS);
	check_bio(1, BIO_MAX_VECS * 512, 10 * 512, 10);
	for (int i = 0; i < BIO_MAX_VECS; i++)
		assert_ptr_equal(dev.bios[0]->bi_iov[i].iov_base, mem + i * 1024);
	assert_int_equal(split_by(SPLIT_LIMIT), 1);
	finish(0, 0);
	finish(1, 0);
	io_end_put(&u.ioe);
	unit_wait(&u);
}

static void test_other_io_end_splits(void **state)
{
	struct page_io io;
	struct unit a, b;

	unit_init(&a, true);
	unit_init(&b, true);
	page_io_init(&io, &dev.bd, BIO_WRITE, 0);
	assert_int_equal(page_io_add(&io, 0, mem, BLK, &a.ioe), 0);
	assert_int_equal(page_io_add(&io, BLK, mem + BLK, BLK, &b.ioe), 0);
	page_io_submit(&io);
	assert_int_equal(dev.nr, 2);
	assert_int_equal(split_by(SPLIT_LIMIT), 1);
	io_end_put(&a.ioe);
	io_end_put(&b.ioe);
	finish(1, -EIO);
	assert_int_equal(a.ended, 0);
	assert_int_equal(b.ended, 1);
	assert_int_equal(b.error, -EIO);
	finish(0, 0);
	assert_int_equal(a.ended, 1);
	assert_int_equal(a.error, 0);
}

/* 64 closed bios are sent without waiting for page_io_submit(). */
static void test_many_bios_go_in_batches(void **state)
{
	struct page_io io;
	struct unit u;

	unit_init(&u, true);
	page_io_init(&io, &dev.bd, BIO_WRITE, 0);
	for (u32 i = 0; i < 200; i++)
		assert_int_equal(page_io_add(&io, 2ull * i * BLK, mem, BLK, &u.ioe), 0);
	page_io_submit(&io);
	assert_int_equal(dev.nr, 200);
	assert_int_equal(dev.batches, 4);
	io_end_put(&u.ioe);
	for (u32 i = 0; i < 200; i++)
		finish(i, 0);
	unit_wait(&u);
}

/* ---- errors ---- */

static void test_first_error_is_kept(void **state)
{
	struct page_io io;
	struct unit u;

	unit_init(&u, true);
	page_io_init(&io, &dev.bd, BIO_WRITE, 0);
	for (u32 i = 0; i < 4; i++)
		assert_int_equal(page_io_add(&io, 2 * i * BLK, mem, BLK, &u.ioe), 0);
	page_io_submit(&io);
	io_end_put(&u.ioe);
	finish(3, 0);
	finish(1, -ENOSPC);
	finish(2, -EIO);
	finish(0, 0);
	unit_wait(&u);
	assert_int_equal(u.error, -ENOSPC);
}

/* bdev_submit() itself refuses: the io_end hears of it, once. */
static void test_bio_beyond_the_device_ends_with_an_error(void **state)
{
	struct page_io io;
	struct unit u;

	unit_init(&u, true);
	page_io_init(&io, &dev.bd, BIO_WRITE, 0);
	assert_int_equal(page_io_add(&io, dev.bd.bd_size, mem, BLK, &u.ioe), 0);
	page_io_submit(&io);
	assert_int_equal(dev.nr, 0);
	io_end_put(&u.ioe);
	unit_wait(&u);
	assert_int_equal(u.error, -ENXIO);
}

/* Wherever memory ends, the call has added nothing, and what was there goes out. */
static void test_enomem_adds_nothing(void **state)
{
	for (int limit = 0; limit < 4; limit++) {
		struct page_io io;
		struct unit u;
		u32 base = dev.nr;

		unit_init(&u, true);
		page_io_init(&io, &dev.bd, BIO_WRITE, 0);
		assert_int_equal(page_io_add(&io, 0, mem, BLK, &u.ioe), 0);
		allocs_left = limit;
		assert_int_equal(page_io_add(&io, BLK, mem + BLK, 4u * BIO_MAX_BYTES,
					     &u.ioe), -ENOMEM);
		allocs_left = -1;
		assert_int_equal(u.ioe.refs, 2);
		assert_int_equal(page_io_add(&io, BLK, mem + BLK, BLK, &u.ioe), 0);
		page_io_submit(&io);
		assert_int_equal(dev.nr, base + 1);
		check_bio(base, 0, 2 * BLK, 1);
		finish(base, 0);
		io_end_put(&u.ioe);
		unit_wait(&u);
	}
}

/* The present bio cannot grow its vector. */
static void test_enomem_when_growing(void **state)
{
	struct page_io io;
	struct unit u;
	u32 n = 0;

	unit_init(&u, true);
	page_io_init(&io, &dev.bd, BIO_WRITE, 0);
	for (int err = 0; !err; n += !err) {
		allocs_left = n ? 0 : -1;
		err = page_io_add(&io, n * 512, mem + n * 1024, 512, &u.ioe);
		assert_true(!err || err == -ENOMEM);
	}
	assert_true(n > 1);
	allocs_left = -1;
	assert_int_equal(page_io_add(&io, n * 512, mem + n * 1024, 512, &u.ioe), 0);
	page_io_submit(&io);
	check_bio(0, 0, (n + 1) * 512, (int)n + 1);
	finish(0, 0);
	io_end_put(&u.ioe);
	unit_wait(&u);
}

/* ---- completion ---- */

static void test_end_runs_on_a_worker(void **state)
{
	struct page_io io;
	struct unit u;

	unit_init(&u, false);
	page_io_init(&io, &dev.bd, BIO_WRITE, 0);
	assert_int_equal(page_io_add(&io, 0, mem, BLK, &u.ioe), 0);
	page_io_submit(&io);
	io_end_put(&u.ioe);
	finish(0, -EIO);
	unit_wait(&u);
	assert_int_equal(u.error, -EIO);
}

#define ENDERS 4
#define UNITS 200
#define BIOS_PER_UNIT 5

static void ender(void *arg)
{
	for (;;) {
		u32 i = atomic_fetch_add(&dev.next, 1);
		/* a permutation of the bios: 1009 is a prime */
		u32 at = (u32)((u64)i * 1009 % (UNITS * BIOS_PER_UNIT));

		if (i >= UNITS * BIOS_PER_UNIT)
			return;
		finish(at, at % 7 ? 0 : -EIO);
	}
}

/* Threads end the bios out of order; each io_end ends once, with its error. */
static void test_out_of_order_completion(void **state)
{
	struct unit *u = calloc(UNITS, sizeof(*u));
	struct thread *t[ENDERS];
	struct page_io io;

	page_io_init(&io, &dev.bd, BIO_WRITE, 0);
	for (u32 i = 0; i < UNITS; i++) {
		unit_init(&u[i], i % 3 == 0);
		for (u32 j = 0; j < BIOS_PER_UNIT; j++)
			assert_int_equal(page_io_add(&io, (i * 100ull + 2 * j) * BLK,
						     mem, BLK, &u[i].ioe), 0);
	}
	page_io_submit(&io);
	assert_int_equal(dev.nr, UNITS * BIOS_PER_UNIT);
	for (u32 i = 0; i < ENDERS; i++)
		assert_int_equal(thread_create(&t[i], "ender", ender, NULL), 0);
	for (u32 i = 0; i < UNITS; i++)
		io_end_put(&u[i].ioe);
	for (u32 i = 0; i < ENDERS; i++)
		thread_join(t[i]);
	for (u32 i = 0; i < UNITS; i++) {
		int want = 0;

		unit_wait(&u[i]);
		for (u32 j = 0; j < BIOS_PER_UNIT; j++)
			if ((i * BIOS_PER_UNIT + j) % 7 == 0)
				want = -EIO;
		assert_int_equal(u[i].error, want);
	}
	free(u);
}

/* A second user's stop waits for what was queued, and the pool goes on. */
static void test_stop_drains(void **state)
{
	struct unit *u = calloc(100, sizeof(*u));

	assert_int_equal(end_io_start(), 0);
	for (int i = 0; i < 100; i++) {
		unit_init(&u[i], false);
		io_end_put(&u[i].ioe);
	}
	end_io_stop();
	for (int i = 0; i < 100; i++)
		assert_int_equal(u[i].ended, 1);
	unit_init(&u[0], false);
	io_end_put(&u[0].ioe);
	unit_wait(&u[0]);
	end_io_stop(); /* the last user's */
	assert_int_equal(end_io_start(), 0);
	unit_init(&u[0], false);
	io_end_put(&u[0].ioe);
	end_io_stop();
	assert_int_equal(u[0].ended, 1);
	assert_int_equal(end_io_start(), 0);
	free(u);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_contiguous_blocks_share_a_bio),
		T(test_gap_splits),
		T(test_gap_in_the_file_is_a_hole),
		T(test_one_bio_that_is_waited_for),
		T(test_full_bio_that_is_waited_for),
		T(test_shared_io_end_stays_with_the_workers),
		T(test_end_does_not_run_on_a_device_thread),
		T(test_large_run_is_cut_at_512k),
		T(test_full_vector_splits),
		T(test_other_io_end_splits),
		T(test_many_bios_go_in_batches),
		T(test_first_error_is_kept),
		T(test_bio_beyond_the_device_ends_with_an_error),
		T(test_enomem_adds_nothing),
		T(test_enomem_when_growing),
		T(test_end_runs_on_a_worker),
		T(test_out_of_order_completion),
		T(test_stop_drains),
	};

	thread_register();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
