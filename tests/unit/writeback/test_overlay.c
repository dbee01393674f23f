/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/writeback/test_overlay.c - patched blocks over a device in memory
 *
 * Any write, flush or discard of the lower device fails the test.
 */
#include "../unit.h"

#include "lib/thread.h"
#include "writeback/bdev.h"

#include <errno.h>
#include <stdatomic.h>

#define BLK 4096u
#define BLOCKS 4000u

struct mem_dev {
	struct bdev bd;
	char *data;
	int fail;    /* error of each read */
	_Atomic u64 reads;
	bool closed;
};
static struct mem_dev lower;

static int mem_read(struct bdev *bd, u64 pos, const struct iovec *iov, int nr)
{
	atomic_fetch_add(&lower.reads, 1);
	if (lower.fail)
		return lower.fail;
	for (int i = 0; i < nr; pos += iov[i++].iov_len)
		memcpy(iov[i].iov_base, lower.data + pos, iov[i].iov_len);
	return 0;
}

static void mem_submit(struct bdev *bd, struct bio **bios, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct bio *bio = bios[i];

		assert_int_equal(bio->bi_op, BIO_READ);
		bdev_end_bio(bd, bio, mem_read(bd, bio->bi_pos, bio->bi_iov,
					       bio->bi_nr_iov));
	}
}

static int mem_flush(struct bdev *bd)
{
	fail_msg("the lower device was flushed");
	return 0;
}

static int mem_discard(struct bdev *bd, u64 pos, u64 len)
{
	fail_msg("the lower device was discarded");
	return 0;
}

static void mem_close(struct bdev *bd)
{
	lower.closed = true;
	free(lower.data);
	lower.data = NULL;
}

static const struct bdev_ops mem_ops = {
	.submit = mem_submit,
	.flush = mem_flush,
	.discard = mem_discard,
	.close = mem_close,
};

static char pattern(u64 pos)
{
	return (char)(pos / 512 * 7 + pos % 509);
}

static struct bdev *make(u32 blocksize)
{
	struct bdev *ov;

	memset(&lower, 0, sizeof(lower));
	lower.bd.bd_ops = &mem_ops;
	lower.bd.bd_size = (u64)BLOCKS * BLK;
	lower.bd.bd_sector = 512;
	lower.bd.bd_readonly = true;
	strcpy(lower.bd.bd_name, "mem");
	lower.data = malloc(lower.bd.bd_size);
	for (u64 i = 0; i < lower.bd.bd_size; i++)
		lower.data[i] = pattern(i);
	assert_int_equal(bdev_overlay_create(&lower.bd, blocksize, &ov), 0);
	return ov;
}

static void expect(const char *buf, u64 pos, size_t len, int patched)
{
	for (size_t i = 0; i < len; i++) {
		char want = patched >= 0 ? (char)patched : pattern(pos + i);

		if (buf[i] != want)
			fail_msg("byte %zu is %d, not %d", (size_t)pos + i, buf[i],
				 want);
	}
}

static void test_unpatched_blocks_come_from_below(void **state)
{
	struct bdev *ov = make(BLK);
	char *buf = io_alloc(1u << 20);

	assert_int_equal(ov->bd_size, lower.bd.bd_size);
	assert_int_equal(ov->bd_sector, 512);
	assert_false(ov->bd_readonly);
	assert_string_equal(ov->bd_name, "mem");
	assert_int_equal(bdev_read(ov, 8192, buf, 1u << 20), 0);
	expect(buf, 8192, 1u << 20, -1);
	io_free(buf);
	bdev_close(ov);
	assert_true(lower.closed);
}

static void test_mixed_range_is_merged(void **state)
{
	struct bdev *ov = make(BLK);
	char *buf = io_alloc(1u << 20), *blk = io_alloc(BLK);
	/* segments that do not match the blocks */
	struct iovec iov[3] = { { buf, 1024 }, { buf + 1024, 10 * 1024 },
				{ buf + 11264, 5 * BLK - 11264 } };

	memset(blk, 'A', BLK);
	assert_int_equal(bdev_overlay_put(ov, 3, blk), 0);
	memset(blk, 'B', BLK);
	assert_int_equal(bdev_overlay_put(ov, 4, blk), 0);
	assert_int_equal(bdev_overlay_put(ov, 6, blk), 0);
	for (int pass = 0; pass < 2; pass++) {
		memset(buf, 0, 1u << 20);
		if (!pass)
			assert_int_equal(bdev_rwv(ov, BIO_READ, 2 * BLK, iov, 3, 0), 0);
		else /* several bios: through submit */
			assert_int_equal(bdev_read(ov, 2 * BLK, buf, 1u << 20), 0);
		expect(buf, 2 * BLK, BLK, -1);
		expect(buf + BLK, 3 * BLK, BLK, 'A');
		expect(buf + 2 * BLK, 4 * BLK, BLK, 'B');
		expect(buf + 3 * BLK, 5 * BLK, BLK, -1);
		expect(buf + 4 * BLK, 6 * BLK, BLK, 'B');
	}
	expect(buf + 5 * BLK, 7 * BLK, (1u << 20) - 5 * BLK, -1);
	/* a range within a patched block, and one across its end */
	assert_int_equal(bdev_read(ov, 3 * BLK + 512, buf, 512), 0);
	expect(buf, 0, 512, 'A');
	assert_int_equal(bdev_read(ov, 5 * BLK - 512, buf, 1024), 0);
	expect(buf, 0, 512, 'B');
	expect(buf + 512, 5 * BLK, 512, -1);
	io_free(blk);
	io_free(buf);
	bdev_close(ov);
}

static void test_writes_stay_above(void **state)
{
	struct bdev *ov = make(BLK);
	char *buf = io_alloc(2u << 20), *before = malloc(lower.bd.bd_size);

	memcpy(before, lower.data, lower.bd.bd_size);
	memset(buf, 'W', 2u << 20);
	assert_int_equal(bdev_write(ov, BLK, buf, 2u << 20, BIO_FUA), 0);
	assert_int_equal(bdev_flush(ov), 0);
	assert_int_equal(bdev_discard(ov, 0, BLK), -EOPNOTSUPP);
	assert_memory_equal(before, lower.data, lower.bd.bd_size);
	assert_int_equal(bdev_read(ov, 0, buf, BLK), 0);
	expect(buf, 0, BLK, -1);
	lower.reads = 0;
	assert_int_equal(bdev_read(ov, BLK, buf, 2u << 20), 0);
	expect(buf, 0, 2u << 20, 'W');
	assert_int_equal(lower.reads, 0); /* wholly patched: not read */
	free(before);
	io_free(buf);
	bdev_close(ov);
}

/* Of a block written in part, the other sectors still come from below. */
static void test_partial_write_keeps_the_rest(void **state)
{
	struct bdev *ov = make(65536);
	char *buf = io_alloc(65536);

	memset(buf, 'P', 65536);
	assert_int_equal(bdev_write(ov, 65536 + 1024, buf, 512, 0), 0);
	assert_int_equal(bdev_write(ov, 65536 + 65024, buf, 1024, 0), 0);
	assert_int_equal(bdev_read(ov, 65536, buf, 65536), 0);
	expect(buf, 65536, 1024, -1);
	expect(buf + 1024, 0, 512, 'P');
	expect(buf + 1536, 65536 + 1536, 65024 - 1536, -1);
	expect(buf + 65024, 0, 512, 'P');
	assert_int_equal(bdev_read(ov, 2 * 65536, buf, 1024), 0);
	expect(buf, 0, 512, 'P');
	expect(buf + 512, 2 * 65536 + 512, 512, -1);
	io_free(buf);
	bdev_close(ov);
}

static void test_many_blocks(void **state)
{
	struct bdev *ov = make(BLK);
	char *blk = io_alloc(BLK);

	for (u32 i = 0; i < BLOCKS; i += 2) {
		memset(blk, (int)(i % 100), BLK);
		assert_int_equal(bdev_overlay_put(ov, i, blk), 0);
	}
	for (u32 i = 0; i < BLOCKS; i++) {
		assert_int_equal(bdev_read(ov, (u64)i * BLK, blk, BLK), 0);
		expect(blk, (u64)i * BLK, BLK, i % 2 ? -1 : (int)(i % 100));
	}
	io_free(blk);
	bdev_close(ov);
}

static void test_errors(void **state)
{
	struct bdev *ov = make(BLK), *none;
	char *buf = io_alloc(1u << 20);

	memset(buf, 'E', 1u << 20);
	assert_int_equal(bdev_overlay_put(ov, BLOCKS, buf), -ENXIO);
	assert_int_equal(bdev_overlay_put(ov, UINT64_MAX, buf), -ENXIO);
	assert_int_equal(bdev_overlay_put(ov, 1, buf), 0);
	lower.fail = -EIO;
	assert_int_equal(bdev_read(ov, 0, buf, 2 * BLK), -EIO);
	assert_int_equal(bdev_read(ov, 0, buf, 1u << 20), -EIO);
	assert_int_equal(bdev_read(ov, BLK, buf, BLK), 0);
	expect(buf, 0, BLK, 'E');
	assert_int_equal(bdev_overlay_create(&lower.bd, 256, &none), -EINVAL);
	assert_int_equal(bdev_overlay_create(&lower.bd, 5000, &none), -EINVAL);
	assert_int_equal(bdev_overlay_create(&lower.bd, 131072, &none), -EINVAL);
	io_free(buf);
	bdev_close(ov);
}

static struct bdev *shared;

static void hammer(void *arg)
{
	u32 id = (u32)(uintptr_t)arg;
	char *buf = io_alloc(4 * BLK);

	for (u32 i = 0; i < 400; i++) {
		u64 pos = (u64)(id * 8 + i % 4) * BLK;

		memset(buf, (int)('a' + id), BLK);
		assert_int_equal(bdev_write(shared, pos, buf, BLK, 0), 0);
		assert_int_equal(bdev_read(shared, pos, buf, 4 * BLK), 0);
		expect(buf, pos, BLK, (int)('a' + id));
	}
	io_free(buf);
}

static void test_threads(void **state)
{
	struct thread *t[4];

	shared = make(BLK);
	for (uintptr_t i = 0; i < 4; i++)
		assert_int_equal(thread_create(&t[i], "hammer", hammer, (void *)i), 0);
	for (int i = 0; i < 4; i++)
		thread_join(t[i]);
	bdev_close(shared);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_unpatched_blocks_come_from_below),
		cmocka_unit_test(test_mixed_range_is_merged),
		cmocka_unit_test(test_writes_stay_above),
		cmocka_unit_test(test_partial_write_keeps_the_rest),
		cmocka_unit_test(test_many_blocks),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_threads),
	};

	thread_register();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
