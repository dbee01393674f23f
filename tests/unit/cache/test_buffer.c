/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/cache/test_buffer.c - metadata buffers over a device in memory
 *
 * Each block of the fake device starts with its own number and the seed it is
 * valid for. Reads can be made to fail, and to wait at a gate; asynchronous
 * ones are answered by an I/O thread in their order.
 */
#include "tests/unit/cache/cache_test.h"

#include "cache/budget.h"
#include "cache/buffer.h"

#define BLOCK_SIZE 1024u
#define NR_BLOCKS 16384u
#define NO_BLOCK UINT64_MAX
#define SEED 7u

struct disk_block {
	u64 blk;
	u32 seed;  /* 0: not valid for any */
	u32 tag;   /* what type it is */
	u64 fill[(BLOCK_SIZE - 16) / 8];
};
_Static_assert(sizeof(struct disk_block) == BLOCK_SIZE, "block size");

enum { TAG_ANY, TAG_A, TAG_B };

struct io {
	struct io *next;
	pblk_t blk;
	u32 nr;
	struct iovec iov[128];
	void (*done)(void *, int);
	void *priv;
};

static struct {
	struct disk_block *block;       /* [const while threads run] */
	_Atomic u32 reads[NR_BLOCKS];   /* of each block, either way */
	_Atomic u32 nr_reads;           /* calls of read */
	_Atomic u32 nr_async;           /* calls of read_async */
	_Atomic u64 bad_block;          /* -EIO */
	_Atomic bool gate_closed;       /* reads wait */
	_Atomic bool refuse_async;      /* submission fails */
	_Atomic u32 at_gate;
	struct spinlock lock;
	struct io *queue, **tail;       /* [lock] */
	_Atomic u32 queued;
	_Atomic u32 in_flight;          /* until it is told that it is done */
	_Atomic bool stop;
	struct thread *io_thread;
} disk;

static struct super_block sb;
static _Atomic u32 nr_verify;

static int disk_copy(pblk_t blk, u32 nr, const struct iovec *iov)
{
	int error = 0;

	test_wander();
	atomic_fetch_add(&disk.at_gate, 1);
	wake_up(&disk);
	wait_event(&disk, !atomic_load(&disk.gate_closed));
	atomic_fetch_sub(&disk.at_gate, 1);
	for (u32 i = 0; i < nr; i++) {
		if (blk + i >= NR_BLOCKS)
			return -ENXIO;
		atomic_fetch_add(&disk.reads[blk + i], 1);
		if (atomic_load(&disk.bad_block) == blk + i)
			error = -EIO;
		thread_check(iov[i].iov_len == BLOCK_SIZE);
		memcpy(iov[i].iov_base, &disk.block[blk + i], BLOCK_SIZE);
	}
	return error;
}

static int disk_read(void *backing, pblk_t blk, u32 nr, const struct iovec *iov,
		     int nr_iov)
{
	thread_check((u32)nr_iov == nr);
	atomic_fetch_add(&disk.nr_reads, 1);
	return disk_copy(blk, nr, iov);
}

static int disk_read_async(void *backing, pblk_t blk, u32 nr,
			   const struct iovec *iov, int nr_iov,
			   void (*done)(void *, int), void *priv)
{
	struct io *io;

	if (atomic_load(&disk.refuse_async))
		return -EIO;
	io = calloc(1, sizeof(*io));
	thread_check(io && (u32)nr_iov == nr && nr <= 128);
	io->blk = blk;
	io->nr = nr;
	memcpy(io->iov, iov, nr * sizeof(*iov));
	io->done = done;
	io->priv = priv;
	atomic_fetch_add(&disk.nr_async, 1);
	atomic_fetch_add(&disk.in_flight, 1);
	spin_lock(&disk.lock);
	*disk.tail = io;
	disk.tail = &io->next;
	spin_unlock(&disk.lock);
	atomic_fetch_add(&disk.queued, 1);
	wake_up(&disk);
	return 0;
}

static void disk_io_thread(void *arg)
{
	for (;;) {
		struct io *io;
		int error;

		wait_event(&disk, atomic_load(&disk.queued) ||
					  atomic_load(&disk.stop));
		if (!atomic_load(&disk.queued))
			return;
		spin_lock(&disk.lock);
		io = disk.queue;
		disk.queue = io->next;
		if (!disk.queue)
			disk.tail = &disk.queue;
		spin_unlock(&disk.lock);
		atomic_fetch_sub(&disk.queued, 1);
		error = disk_copy(io->blk, io->nr, io->iov);
		atomic_fetch_sub(&disk.in_flight, 1);
		io->done(io->priv, error);
		free(io);
	}
}

static const struct backing_ops disk_ops = {
	.read = disk_read,
	.read_async = disk_read_async,
};

static int verify_tag(const struct buffer *b, const void *data, u32 seed, u32 tag)
{
	const struct disk_block *d = data;

	atomic_fetch_add(&nr_verify, 1);
	if (d->blk != b->b_blocknr || (d->tag != tag && d->tag != TAG_ANY))
		return -EFSCORRUPTED;
	return d->seed == seed ? 0 : -EFSBADCRC;
}

static int verify_a(struct super_block *s, const struct buffer *b,
		    const void *data, u32 seed)
{
	return verify_tag(b, data, seed, TAG_A);
}

static int verify_b(struct super_block *s, const struct buffer *b,
		    const void *data, u32 seed)
{
	return verify_tag(b, data, seed, TAG_B);
}

static const struct buffer_type type_a = { .name = "A", .verify = verify_a };
static const struct buffer_type type_b = { .name = "B", .verify = verify_b };
static const struct buffer_type type_free = { .name = "unchecked" };

static int setup(void **state)
{
	test_log_begin();
	memset(&disk, 0, sizeof(disk));
	memset(&sb, 0, sizeof(sb));
	disk.block = calloc(NR_BLOCKS, sizeof(*disk.block));
	assert_non_null(disk.block);
	for (u64 i = 0; i < NR_BLOCKS; i++) {
		disk.block[i].blk = i;
		disk.block[i].seed = SEED;
		disk.block[i].tag = TAG_A;
	}
	atomic_store(&disk.bad_block, NO_BLOCK);
	spin_init(&disk.lock, RANK_NONE);
	disk.tail = &disk.queue;
	assert_int_equal(thread_create(&disk.io_thread, "io", disk_io_thread,
				       NULL), 0);
	sb.s_blocksize = BLOCK_SIZE;
	sb.s_blocksize_bits = 10;
	sb.s_backing_ops = &disk_ops;
	strcpy(sb.s_id, "test");
	assert_int_equal(budget_create(8 << 20, test_zones(), &sb.s_budget), 0);
	assert_int_equal(bcache_create(&sb), 0);
	atomic_store(&nr_verify, 0);
	return 0;
}

/* Every test ends without a buffer in use, a charge, or an error logged. */
static int teardown(void **state)
{
	bcache_destroy(&sb);
	assert_int_equal(test_budget_used(sb.s_budget), 0);
	for (u32 zone = 0; zone < zone_count(sb.s_budget); zone++)
		assert_int_equal(zone_used(sb.s_budget, zone, BUDGET_BUFFER), 0);
	budget_destroy(sb.s_budget);
	atomic_store(&disk.stop, true);
	wake_up(&disk);
	thread_join(disk.io_thread);
	spin_destroy(&disk.lock);
	free(disk.block);
	if (!atomic_load(&test_quiet))
		assert_int_equal(atomic_load(&test_errors), 0);
	return 0;
}

static void gate_close(void)
{
	atomic_store(&disk.gate_closed, true);
}

static void gate_open(void)
{
	atomic_store(&disk.gate_closed, false);
	wake_up(&disk);
}

static struct buffer *must_read(pblk_t blk)
{
	struct buffer *b = NULL;

	assert_int_equal(buffer_read(&sb, blk, &type_a, SEED, &b), 0);
	assert_non_null(b);
	assert_int_equal(((struct disk_block *)b->b_data)->blk, blk);
	return b;
}

/* ---- reading ---- */

static void test_second_read_is_a_hit(void **state)
{
	struct buffer *b = must_read(5);
	struct buffer *c = must_read(5);

	assert_ptr_equal(b, c);
	assert_int_equal(atomic_load(&disk.reads[5]), 1);
	assert_int_equal(atomic_load(&nr_verify), 1);
	assert_int_equal((uintptr_t)b->b_data % BLOCK_SIZE, 0);
	buffer_put(b);
	buffer_put(c);
	/* Without users it stays. */
	b = buffer_find(&sb, 5);
	assert_ptr_equal(b, c);
	buffer_put(b);
	assert_null(buffer_find(&sb, 6));
	buffer_put(NULL);
}

struct reader {
	struct thread *t;
	pblk_t blk;
	int error;
	struct buffer *b;
};

static void reader_main(void *arg)
{
	struct reader *r = arg;

	r->error = buffer_read(&sb, r->blk, &type_a, SEED, &r->b);
}

/* Four readers at once; the first waits at the gate, the others for it. */
static void read_at_once(struct reader r[4], pblk_t blk)
{
	struct buffer *seen;
	u64 end = clock_mono_ns() + TEST_PATIENCE_NS;

	memset(r, 0, 4 * sizeof(*r));
	gate_close();
	for (int i = 0; i < 4; i++) {
		r[i].blk = blk;
		assert_int_equal(thread_create(&r[i].t, "reader", reader_main,
					       &r[i]), 0);
	}
	test_wait(&disk, atomic_load(&disk.at_gate) == 1);
	/* No I/O: being read is not up to date. */
	seen = buffer_find(&sb, blk);
	assert_null(seen);
	/* Three waiters have no event to tell; their CPU time will do. */
	while (clock_mono_ns() < end - TEST_PATIENCE_NS + 50 * TEST_NS_PER_MS)
		sched_yield();
	gate_open();
	for (int i = 0; i < 4; i++)
		thread_join(r[i].t);
}

static void test_concurrent_reads_read_once(void **state)
{
	struct reader r[4];

	read_at_once(r, 9);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(r[i].error, 0);
		assert_ptr_equal(r[i].b, r[0].b);
	}
	assert_int_equal(atomic_load(&r[0].b->b_count), 4);
	for (int i = 0; i < 4; i++)
		buffer_put(r[i].b);
	assert_int_equal(atomic_load(&disk.reads[9]), 1);
	assert_int_equal(atomic_load(&nr_verify), 1);
}

static void test_read_error_goes_to_all_and_is_not_cached(void **state)
{
	struct reader r[4];
	struct buffer *b;

	atomic_store(&disk.bad_block, 9);
	read_at_once(r, 9);
	for (int i = 0; i < 4; i++)
		assert_int_equal(r[i].error, -EIO);
	assert_null(buffer_find(&sb, 9));
	atomic_store(&disk.bad_block, NO_BLOCK);
	b = must_read(9);
	buffer_put(b);
}

static void test_read_past_the_end(void **state)
{
	struct buffer *b;

	assert_int_equal(buffer_read(&sb, NR_BLOCKS, &type_a, SEED, &b), -ENXIO);
	assert_int_equal(buffer_read(&sb, UINT64_MAX, &type_a, SEED, &b), -ENXIO);
}

/* ---- verification ---- */

static void test_failed_check_drops_the_buffer(void **state)
{
	struct buffer *b;

	disk.block[3].seed = SEED + 1;
	assert_int_equal(buffer_read(&sb, 3, &type_a, SEED, &b), -EFSBADCRC);
	assert_null(buffer_find(&sb, 3));
	disk.block[3].seed = SEED;
	disk.block[3].tag = TAG_B;
	assert_int_equal(buffer_read(&sb, 3, &type_a, SEED, &b), -EFSCORRUPTED);
	assert_int_equal(atomic_load(&disk.reads[3]), 2);
	disk.block[3].tag = TAG_A;
	buffer_put(must_read(3));
	assert_int_equal(atomic_load(&disk.reads[3]), 3);
}

static void test_other_type_is_checked_again(void **state)
{
	struct buffer *b = must_read(4);
	struct buffer *c = NULL;

	assert_int_equal(buffer_read(&sb, 4, &type_b, SEED, &c), -EFSCORRUPTED);
	assert_int_equal(atomic_load(&nr_verify), 2);
	/* It was good as what it was read for first: it stays, as that. */
	c = must_read(4);
	assert_ptr_equal(b, c);
	assert_int_equal(atomic_load(&nr_verify), 2);
	buffer_put(c);
	assert_int_equal(buffer_read(&sb, 4, &type_a, SEED + 1, &c), -EFSBADCRC);
	assert_int_equal(atomic_load(&nr_verify), 3);
	buffer_put(b);
	assert_int_equal(atomic_load(&disk.reads[4]), 1);
}

static void test_valid_as_two_types(void **state)
{
	struct buffer *b, *c;

	disk.block[4].tag = TAG_ANY;
	b = must_read(4);
	assert_int_equal(buffer_read(&sb, 4, &type_b, SEED, &c), 0);
	assert_ptr_equal(b, c);
	assert_ptr_equal(atomic_load(&b->b_type), &type_b);
	buffer_put(c);
	buffer_put(must_read(4));
	assert_int_equal(atomic_load(&nr_verify), 3);
	assert_int_equal(buffer_read(&sb, 4, &type_free, SEED, &c), 0);
	buffer_put(c);
	buffer_put(b);
}

/* ---- detach and replace ---- */

static void test_detached_is_not_found(void **state)
{
	struct buffer *b = must_read(8);
	struct buffer *c;

	buffer_get(b);
	buffer_detach(b);
	buffer_detach(b);
	assert_null(buffer_find(&sb, 8));
	c = must_read(8);
	assert_ptr_not_equal(b, c);
	assert_int_equal(atomic_load(&disk.reads[8]), 2);
	/* The old one is whole until its last user goes. */
	assert_int_equal(((struct disk_block *)b->b_data)->blk, 8);
	buffer_put(b);
	assert_int_equal(((struct disk_block *)b->b_data)->seed, SEED);
	buffer_put(b);
	assert_int_equal(budget_used(sb.s_budget, BUDGET_BUFFER),
			 sizeof(struct buffer) + BLOCK_SIZE);
	buffer_put(c);
}

static void test_get_zeroed_replaces(void **state)
{
	static const u8 zero[BLOCK_SIZE];
	struct buffer *b = must_read(8);
	struct buffer *c, *d;

	assert_int_equal(buffer_get_zeroed(&sb, 8, &type_b, 1, &c), 0);
	assert_ptr_not_equal(b, c);
	assert_memory_equal(c->b_data, zero, BLOCK_SIZE);
	assert_int_equal(((struct disk_block *)b->b_data)->blk, 8);
	d = buffer_find(&sb, 8);
	assert_ptr_equal(c, d);
	buffer_put(d);
	/* It is what it was made as: no check, no read. */
	assert_int_equal(buffer_read(&sb, 8, &type_b, 1, &d), 0);
	assert_ptr_equal(c, d);
	assert_int_equal(atomic_load(&nr_verify), 1);
	assert_int_equal(atomic_load(&disk.reads[8]), 1);
	buffer_put(d);
	buffer_put(c);
	buffer_put(b);
	/* Replacing one without users frees it at once. */
	assert_int_equal(buffer_get_zeroed(&sb, 8, &type_b, 1, &c), 0);
	assert_int_equal(budget_used(sb.s_budget, BUDGET_BUFFER),
			 sizeof(struct buffer) + BLOCK_SIZE);
	buffer_put(c);
}

static void test_drop_spares_buffers_in_use(void **state)
{
	struct buffer *b = must_read(1);
	struct buffer *c;

	buffer_put(must_read(2));
	buffer_put(must_read(3));
	bcache_drop(&sb);
	assert_null(buffer_find(&sb, 2));
	assert_null(buffer_find(&sb, 3));
	c = buffer_find(&sb, 1);
	assert_ptr_equal(b, c);
	buffer_put(c);
	buffer_put(b);
	bcache_drop(&sb);
	assert_int_equal(budget_used(sb.s_budget, BUDGET_BUFFER), 0);
}

static void test_destroy_reports_a_leak(void **state)
{
	struct buffer *b = must_read(1);

	atomic_store(&test_quiet, 1);
	bcache_destroy(&sb);
	assert_int_equal(atomic_load(&test_errors), 1);
	(void)b;
	assert_int_equal(bcache_create(&sb), 0);
}

/* ---- readahead ---- */

static void test_readahead_reads_runs(void **state)
{
	buffer_put(must_read(17));
	buffer_readahead(&sb, 10, 20);
	/* [10, 17) and [18, 30). */
	assert_int_equal(atomic_load(&disk.nr_async), 2);
	for (pblk_t blk = 10; blk < 30; blk++)
		buffer_put(must_read(blk));
	for (pblk_t blk = 10; blk < 30; blk++)
		assert_int_equal(atomic_load(&disk.reads[blk]), 1);
	assert_int_equal(atomic_load(&disk.nr_reads), 1);
	/* All cached: nothing to do. */
	buffer_readahead(&sb, 10, 20);
	assert_int_equal(atomic_load(&disk.nr_async), 2);
	/* At most 128 at a time. */
	buffer_readahead(&sb, 1000, UINT32_MAX);
	assert_int_equal(atomic_load(&disk.nr_async), 3);
	buffer_put(must_read(1127));
	assert_int_equal(atomic_load(&disk.nr_reads), 1);
	buffer_put(must_read(1128));
	assert_int_equal(atomic_load(&disk.nr_reads), 2);
}

static void test_failed_readahead_is_forgotten(void **state)
{
	struct buffer *b;

	atomic_store(&disk.bad_block, 12);
	gate_close();
	buffer_readahead(&sb, 10, 8);
	gate_open();
	/* Waits for it if still under way, then reads the one block itself. */
	buffer_put(must_read(13));
	assert_int_equal(buffer_read(&sb, 12, &type_a, SEED, &b), -EIO);
	atomic_store(&disk.bad_block, NO_BLOCK);
	buffer_put(must_read(12));
}

static void test_refused_readahead_is_forgotten(void **state)
{
	atomic_store(&disk.refuse_async, true);
	buffer_readahead(&sb, 10, 8);
	assert_int_equal(budget_used(sb.s_budget, BUDGET_BUFFER), 0);
	buffer_put(must_read(13));
	atomic_store(&disk.refuse_async, false);
}

static void test_readahead_may_end_in_replaced_buffer(void **state)
{
	static const u8 zero[BLOCK_SIZE];
	struct buffer *b;

	gate_close();
	buffer_readahead(&sb, 10, 4);
	assert_int_equal(buffer_get_zeroed(&sb, 11, &type_b, 1, &b), 0);
	gate_open();
	buffer_put(must_read(12));
	assert_memory_equal(b->b_data, zero, BLOCK_SIZE);
	buffer_put(b);
}

static void test_destroy_waits_for_readahead(void **state)
{
	gate_close();
	buffer_readahead(&sb, 10, 100);
	assert_int_equal(atomic_load(&disk.in_flight), 1);
	gate_open();
	bcache_destroy(&sb);
	assert_int_equal(atomic_load(&disk.in_flight), 0);
	assert_int_equal(bcache_create(&sb), 0);
}

/* ---- reclaim and hammering ---- */

static void load_main(void *arg)
{
	u64 rnd = (u64)(uintptr_t)arg | 1;

	for (u32 i = 0; i < TEST_LOAD(60000); i++) {
		pblk_t blk = i % 8 ? test_random(&rnd) % NR_BLOCKS : 42;
		struct buffer *b;

		budget_throttle(sb.s_budget);
		thread_check(!buffer_read(&sb, blk, &type_a, SEED, &b));
		thread_check(b->b_blocknr == blk);
		thread_check(((struct disk_block *)b->b_data)->blk == blk);
		buffer_put(b);
	}
}

/* Twice as many blocks as memory: bounded, right, and the hot one stays. */
static void test_reclaim_under_load(void **state)
{
	struct thread *t[3];

	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		assert_int_equal(thread_create(&t[i], "load", load_main,
					       (void *)(uintptr_t)(1000 + 77 * i)),
				 0);
	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		thread_join(t[i]);
	assert_true(budget_used_total(sb.s_budget) <=
		    budget_limit(sb.s_budget) + (1 << 20));
	assert_true(atomic_load(&disk.reads[42]) < 10);
	/* The zone's thread may be at some still: it frees them, or puts them back. */
	do
		bcache_drop(&sb);
	while (budget_used(sb.s_budget, BUDGET_BUFFER) && !usleep(1000));
}

/* A block is either as on disk or zeroed; nothing else is ever seen. */
static bool content_ok(const struct buffer *b)
{
	const struct disk_block *d = (const void *)b->b_data;

	return (d->blk == b->b_blocknr && d->seed == SEED) ||
	       (d->blk == 0 && d->seed == 0);
}

static void hammer_main(void *arg)
{
	u64 rnd = (u64)(uintptr_t)arg | 1;

	for (u32 i = 0; i < TEST_LOAD(60000); i++) {
		u64 r = test_random(&rnd) >> 20;
		pblk_t blk = 100 + r % 8;
		struct buffer *b = NULL;
		int error = 0;

		switch (r / 8 % 16) {
		case 0:
			error = buffer_get_zeroed(&sb, blk, &type_free, 0, &b);
			break;
		case 1:
			b = buffer_find(&sb, blk);
			if (b)
				buffer_detach(b);
			break;
		case 2:
			buffer_readahead(&sb, 96, 16);
			continue;
		case 3:
			bcache_drop(&sb);
			continue;
		case 4:
			budget_drop_all(sb.s_budget);
			continue;
		case 5:
			/* A zeroed one fails this check; that is no reason to go. */
			if (buffer_read(&sb, blk, &type_a, SEED, &b))
				continue;
			break;
		default:
			error = buffer_read(&sb, blk, &type_free, 0, &b);
			break;
		}
		thread_check(!error);
		if (!b)
			continue;
		thread_check(b->b_blocknr == blk);
		thread_check(content_ok(b));
		buffer_put(b);
	}
}

static void test_hammer_few_blocks(void **state)
{
	struct thread *t[4];

	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		assert_int_equal(thread_create(&t[i], "hammer", hammer_main,
					       (void *)(uintptr_t)(500 + 33 * i)),
				 0);
	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		thread_join(t[i]);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_second_read_is_a_hit),
		T(test_concurrent_reads_read_once),
		T(test_read_error_goes_to_all_and_is_not_cached),
		T(test_read_past_the_end),
		T(test_failed_check_drops_the_buffer),
		T(test_other_type_is_checked_again),
		T(test_valid_as_two_types),
		T(test_detached_is_not_found),
		T(test_get_zeroed_replaces),
		T(test_drop_spares_buffers_in_use),
		T(test_destroy_reports_a_leak),
		T(test_readahead_reads_runs),
		T(test_failed_readahead_is_forgotten),
		T(test_refused_readahead_is_forgotten),
		T(test_readahead_may_end_in_replaced_buffer),
		T(test_destroy_waits_for_readahead),
		T(test_reclaim_under_load),
		T(test_hammer_few_blocks),
	};

	thread_register();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
