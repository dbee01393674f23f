/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/writeback/test_bdev.c - the aio back end on an image file, and on
 * a loop device where there is one
 *
 * System calls that the back end makes are wrapped (ld --wrap), to be refused,
 * cut short or failed on request. A second process is this program again,
 * with arguments.
 */
#include "../unit.h"

#include "lib/log.h"
#include "lib/thread.h"
#include "lib/wait.h"
#include "writeback/bdev.h"

#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#define IMAGE_BYTES (8u << 20)
#define BLK 4096u

static char image[] = "/tmp/sluice-test-bdev-XXXXXX";

/* ---- wrapped system calls ---- */

static struct {
	_Atomic int submit_max;     /* 0: no limit; else iocbs taken per call */
	_Atomic int submit_eagain;  /* refuse that many calls */
	_Atomic int submit_no_dsync; /* EINVAL for RWF_DSYNC, here and below */
	_Atomic int short_events;   /* report that many events as cut short */
	_Atomic int error_events;   /* report that many events as failed */
	_Atomic int dsync_events;   /* report that many events as EOPNOTSUPP */
	_Atomic int flush_error;    /* errno for fdatasync, once */
	_Atomic int syncs;          /* fdatasync calls */
	_Atomic int dsync_writes;   /* RWF_DSYNC writes, both ways */
	_Atomic bool no_direct;     /* EINVAL for open with O_DIRECT */
	_Atomic int no_bio;         /* bio_alloc calls that find no memory */
	int bios_left;              /* not 0: that many calls less one, then one such */
	_Atomic int looked;         /* tells TSan: iocbs looked at, then reaped */
} fault;

int __real_io_submit(io_context_t ctx, long nr, struct iocb *ios[]);
int __wrap_io_submit(io_context_t ctx, long nr, struct iocb *ios[]);
int __real_io_getevents(io_context_t ctx, long min, long nr, struct io_event *ev,
			struct timespec *ts);
int __wrap_io_getevents(io_context_t ctx, long min, long nr, struct io_event *ev,
			struct timespec *ts);
ssize_t __real_pwritev64v2(int fd, const struct iovec *iov, int nr, off_t pos, int flags);
ssize_t __wrap_pwritev64v2(int fd, const struct iovec *iov, int nr, off_t pos, int flags);
int __real_open64(const char *path, int flags, mode_t mode);
int __wrap_open64(const char *path, int flags, mode_t mode);
int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
struct bio *__real_bio_alloc(int nr_iov);
struct bio *__wrap_bio_alloc(int nr_iov);

static bool take_one(_Atomic int *n)
{
	int old = atomic_load(n);

	while (old > 0)
		if (atomic_compare_exchange_weak(n, &old, old - 1))
			return true;
	return false;
}

static bool is_dsync(const struct iocb *io)
{
	return io->aio_lio_opcode == IO_CMD_PWRITEV &&
	       (io->aio_rw_flags & RWF_DSYNC);
}

struct bio *__wrap_bio_alloc(int nr_iov)
{
	bool none = take_one(&fault.no_bio);

	if (fault.bios_left && !--fault.bios_left)
		none = true;
	return none ? NULL : __real_bio_alloc(nr_iov);
}

int __wrap_io_submit(io_context_t ctx, long nr, struct iocb *ios[])
{
	int max = atomic_load(&fault.submit_max);
	int dsync = 0, rc;

	if (take_one(&fault.submit_eagain))
		return -EAGAIN;
	if (max && nr > max)
		nr = max;
	for (long i = 0; i < nr; i++) {
		if (!is_dsync(ios[i]))
			continue;
		dsync++;
		if (!atomic_load(&fault.submit_no_dsync))
			continue;
		if (!i)
			return -EINVAL;
		nr = i;
	}
	atomic_fetch_add(&fault.looked, 1);
	rc = __real_io_submit(ctx, nr, ios);
	atomic_fetch_add(&fault.dsync_writes, dsync);
	return rc;
}

/* The stop event carries no result of interest; a whole bio has res > 512. */
int __wrap_io_getevents(io_context_t ctx, long min, long nr, struct io_event *ev,
			struct timespec *ts)
{
	int n = __real_io_getevents(ctx, min, nr, ev, ts);

	(void)atomic_load(&fault.looked);
	for (int i = 0; i < n; i++) {
		if ((long)ev[i].res <= 512)
			continue;
		if (take_one(&fault.short_events))
			ev[i].res = 512;
		else if (take_one(&fault.error_events))
			ev[i].res = (unsigned long)-EIO;
		else if (take_one(&fault.dsync_events))
			ev[i].res = (unsigned long)-EOPNOTSUPP;
	}
	return n;
}

ssize_t __wrap_pwritev64v2(int fd, const struct iovec *iov, int nr, off_t pos, int flags)
{
	if (flags & RWF_DSYNC) {
		if (atomic_load(&fault.submit_no_dsync)) {
			errno = EOPNOTSUPP;
			return -1;
		}
		atomic_fetch_add(&fault.dsync_writes, 1);
	}
	return __real_pwritev64v2(fd, iov, nr, pos, flags);
}

int __wrap_open64(const char *path, int flags, mode_t mode)
{
	if (atomic_load(&fault.no_direct) && (flags & O_DIRECT)) {
		errno = EINVAL;
		return -1;
	}
	return __real_open64(path, flags, mode);
}

int __wrap_fdatasync(int fd)
{
	int err = atomic_exchange(&fault.flush_error, 0);

	atomic_fetch_add(&fault.syncs, 1);
	if (err) {
		errno = err;
		return -1;
	}
	return __real_fdatasync(fd);
}

/* ---- helpers ---- */

static void quiet(enum log_level level, const char *line, void *priv)
{
}

static int setup(void **state)
{
	int fd;

	memset(&fault, 0, sizeof(fault));
	strcpy(image + strlen(image) - 6, "XXXXXX");
	fd = mkstemp(image);
	if (fd < 0 || ftruncate(fd, IMAGE_BYTES) < 0)
		return -1;
	return close(fd);
}

static int loop_fd = -1;

static int teardown(void **state)
{
	if (loop_fd >= 0)
		close(loop_fd);
	loop_fd = -1;
	return unlink(image);
}

static struct bdev *open_ok(const char *path, bool readonly, u64 offset)
{
	struct bdev *bd = NULL;
	const char *why = NULL;
	int err = bdev_open_aio(path, readonly, offset, &bd, &why);

	if (err)
		fail_msg("open %s: %d %s", path, err, why);
	assert_null(why);
	return bd;
}

static void open_fails(const char *path, bool readonly, u64 offset, int error,
		       const char *text)
{
	struct bdev *bd;
	const char *why = NULL;

	assert_int_equal(bdev_open_aio(path, readonly, offset, &bd, &why), error);
	assert_non_null(why);
	if (!strstr(why, text))
		fail_msg("'%s' lacks '%s'", why, text);
	if (strstr(why, path))
		fail_msg("'%s' names what the caller names: '%s'", why, path);
}

/* A pattern that tells position and seed. */
static void fill(void *buf, size_t len, u64 pos, u32 seed)
{
	u64 *p = buf;

	for (size_t i = 0; i < len / 8; i++)
		p[i] = (pos + 8 * i) * 0x9E3779B97F4A7C15u ^ seed;
}

static void check(const void *buf, size_t len, u64 pos, u32 seed)
{
	const u64 *p = buf;

	for (size_t i = 0; i < len / 8; i++)
		if (p[i] != ((pos + 8 * i) * 0x9E3779B97F4A7C15u ^ seed))
			fail_msg("wrong content at byte %zu", (size_t)pos + 8 * i);
}

struct done {
	_Atomic u32 ended;
	_Atomic u32 failed;
	_Atomic int error;
};

static void count_end(struct bio *bio)
{
	struct done *d = bio->bi_private;

	if (bio->bi_error) {
		atomic_fetch_add(&d->failed, 1);
		atomic_store(&d->error, bio->bi_error);
	}
	bio_free(bio);
	atomic_fetch_add(&d->ended, 1);
	wake_up(d);
}

static struct bio *make_bio(enum bio_op op, u64 pos, void *buf, u32 len, u32 flags,
			    struct done *d)
{
	struct bio *bio = bio_alloc(1);

	assert_non_null(bio);
	bio->bi_op = op;
	bio->bi_flags = flags;
	bio->bi_pos = pos;
	bio->bi_bytes = len;
	bio->bi_iov[0].iov_base = buf;
	bio->bi_iov[0].iov_len = len;
	bio->bi_nr_iov = 1;
	bio->bi_end_io = count_end;
	bio->bi_private = d;
	return bio;
}

/* Submits one bio and waits; its error. */
static int one_bio(struct bdev *bd, enum bio_op op, u64 pos, void *buf, u32 len,
		   u32 flags)
{
	struct done d = { 0 };
	struct bio *bio = make_bio(op, pos, buf, len, flags, &d);

	bdev_submit(bd, &bio, 1);
	wait_event(&d, atomic_load(&d.ended) == 1);
	return atomic_load(&d.error);
}

/* ---- transfers ---- */

static void test_write_then_read_of_many_sizes(void **state)
{
	static const size_t size[] = { 512, 4096, 4096 + 512, 65536, 512u << 10,
				       (512u << 10) + 512, (3u << 20) + 1024 };
	struct bdev *bd = open_ok(image, false, 0);
	char *buf = io_alloc(4u << 20);
	u32 s = bd->bd_sector;

	assert_int_equal(bd->bd_size, IMAGE_BYTES);
	assert_false(bd->bd_is_block);
	assert_string_equal(bd->bd_name, image);
	for (u32 i = 0; i < ARRAY_SIZE(size); i++) {
		size_t len = ALIGN_UP(size[i], (size_t)s);

		fill(buf, len, 4 * s, i);
		assert_int_equal(bdev_write(bd, 4 * s, buf, len, 0), 0);
		memset(buf, 0, len);
		assert_int_equal(bdev_read(bd, 4 * s, buf, len), 0);
		check(buf, len, 4 * s, i);
	}
	assert_int_equal(bdev_read(bd, 0, buf, 0), 0);
	io_free(buf);
	bdev_close(bd);
}

static struct bdev_stats stats_of(struct bdev *bd)
{
	struct bdev_stats st;

	bdev_get_stats(bd, &st);
	return st;
}

static void test_statistics_count_bios_by_size(void **state)
{
	struct bdev *bd = open_ok(image, false, 0);
	char *buf = io_alloc(2u << 20), text[4096], few[40];
	struct bdev_stats st = stats_of(bd);
	size_t len;

	assert_int_equal(st.dir[BIO_WRITE].bios, 0);
	memset(buf, 0, 2u << 20);
	/* Too much for one call: four bios of 512 KiB, in one batch. */
	assert_int_equal(bdev_write(bd, 0, buf, 2u << 20, BIO_META), 0);
	/* One call, without bios. */
	assert_int_equal(bdev_write(bd, 0, buf, 1u << 20, 0), 0);
	assert_int_equal(bdev_read(bd, 0, buf, 4096), 0);
	assert_int_equal(bdev_read(bd, 0, buf, 8192), 0);
	assert_int_equal(bdev_read(bd, 0, buf, 12288), 0);
	assert_int_equal(bdev_flush(bd), 0);
	st = stats_of(bd);
	assert_int_equal(st.dir[BIO_WRITE].bios, 5);
	assert_int_equal(st.dir[BIO_WRITE].bytes, 3u << 20);
	assert_int_equal(st.dir[BIO_WRITE].meta_bios, 4);
	assert_int_equal(st.dir[BIO_WRITE].meta_bytes, 2u << 20);
	assert_int_equal(st.dir[BIO_WRITE].meta_hist[10], 4);
	assert_int_equal(st.dir[BIO_WRITE].hist[11], 1);
	assert_int_equal(st.dir[BIO_WRITE].inline_calls, 1);
	assert_int_equal(st.dir[BIO_READ].bios, 3);
	assert_int_equal(st.dir[BIO_READ].bytes, 24576);
	assert_int_equal(st.dir[BIO_READ].hist[3], 1);
	assert_int_equal(st.dir[BIO_READ].hist[4], 1);
	assert_int_equal(st.dir[BIO_READ].hist[5], 1);
	assert_int_equal(st.dir[BIO_READ].inline_calls, 3);
	assert_int_equal(st.batches, 1);
	assert_int_equal(st.io_submits, 1);
	assert_int_equal(st.flushes, 1);
	assert_int_equal(st.errors, 0);

	len = bdev_stats_text(bd, text, sizeof(text));
	assert_int_equal(len, strlen(text));
	assert_non_null(strstr(text, "write_bios 5\n"));
	assert_non_null(strstr(text, "write_meta_sizes 524288 4\n"));
	assert_non_null(strstr(text, "read_data_sizes 4096 1 8192 1 16384 1\n"));
	assert_non_null(strstr(text, "io_submits 1\n"));
	/* What does not fit is cut off. */
	assert_int_equal(bdev_stats_text(bd, few, sizeof(few)), sizeof(few) - 1);
	assert_memory_equal(few, text, sizeof(few) - 1);
	assert_int_equal(few[sizeof(few) - 1], 0);
	assert_int_equal(bdev_stats_text(bd, few, 0), 0);
	io_free(buf);
	bdev_close(bd);
}

static void ended_here(struct bio *bio)
{
	*(pthread_t *)bio->bi_private = pthread_self();
}

static void test_submit_wait_ends_on_the_callers_thread(void **state)
{
	struct bdev *bd = open_ok(image, false, 0);
	char *buf = io_alloc(BLK), *back = io_alloc(BLK);
	struct bio *bio = bio_alloc(1);
	pthread_t who = 0;

	fill(buf, BLK, 2 * BLK, 5);
	bio->bi_op = BIO_WRITE;
	bio->bi_pos = 2 * BLK;
	bio->bi_bytes = BLK;
	bio->bi_nr_iov = 1;
	bio->bi_iov[0] = (struct iovec){ buf, BLK };
	bio->bi_end_io = ended_here;
	bio->bi_private = &who;
	bio->bi_error = -1;
	bdev_submit_wait(bd, bio);
	assert_true(pthread_equal(who, pthread_self()));
	assert_int_equal(bio->bi_error, 0);
	assert_int_equal(bdev_read(bd, 2 * BLK, back, BLK), 0);
	assert_memory_equal(back, buf, BLK);
	/* What is wrong with it is told in the same way. */
	who = 0;
	bio->bi_pos = IMAGE_BYTES;
	bdev_submit_wait(bd, bio);
	assert_true(pthread_equal(who, pthread_self()));
	assert_int_equal(bio->bi_error, -ENXIO);
	assert_int_equal(stats_of(bd).errors, 1);
	assert_int_equal(stats_of(bd).dir[BIO_WRITE].inline_calls, 1);
	assert_int_equal(stats_of(bd).io_submits, 0);
	bio_free(bio);
	io_free(back);
	io_free(buf);
	bdev_close(bd);
}

/* More segments than a bio takes, scattered in memory. */
static void test_long_vector_is_split(void **state)
{
	enum { NR = 1500 };
	struct bdev *bd = open_ok(image, false, 0);
	u32 s = bd->bd_sector;
	char *buf = io_alloc(2u * NR * s), *back = io_alloc(NR * s);
	struct iovec *iov = calloc(NR, sizeof(*iov));

	for (u32 i = 0; i < NR; i++) {
		iov[i].iov_base = buf + 2 * (size_t)i * s;
		iov[i].iov_len = s;
		fill(iov[i].iov_base, s, (u64)i * s, 7);
	}
	assert_int_equal(bdev_rwv(bd, BIO_WRITE, 0, iov, NR, 0), 0);
	assert_int_equal(bdev_read(bd, 0, back, NR * s), 0);
	check(back, NR * s, 0, 7);
	memset(buf, 0, 2u * NR * s);
	assert_int_equal(bdev_rwv(bd, BIO_READ, 0, iov, NR, 0), 0);
	for (u32 i = 0; i < NR; i++)
		check(iov[i].iov_base, s, (u64)i * s, 7);
	free(iov);
	io_free(back);
	io_free(buf);
	bdev_close(bd);
}

static void test_unaligned_memory_is_bounced(void **state)
{
	struct bdev *bd = open_ok(image, false, 0);
	size_t len = (1u << 20) + 8192;
	char *good = io_alloc(len), *mem = malloc(len + 64), *back = malloc(len + 64);
	struct iovec iov[4] = {
		{ mem + 1, 100 },
		{ NULL, 0 },
		{ mem + 101, 4000 },
		{ mem + 4101, len - 4100 },
	};

	fill(good, len, 0, 3);
	memcpy(mem + 1, good, len);
	assert_int_equal(bdev_rwv(bd, BIO_WRITE, 0, iov, 4, 0), 0);
	assert_int_equal(bdev_read(bd, 0, back + 3, len), 0);
	assert_memory_equal(back + 3, good, len);
	memset(mem, 0, len + 64);
	assert_int_equal(bdev_rwv(bd, BIO_READ, 0, iov, 4, 0), 0);
	assert_memory_equal(mem + 1, good, len);
	/* the inline way: one bio */
	assert_int_equal(bdev_read(bd, 8192, back + 5, 4096), 0);
	assert_memory_equal(back + 5, good + 8192, 4096);
	free(back);
	free(mem);
	io_free(good);
	bdev_close(bd);
}

static void test_offset_shifts_the_volume(void **state)
{
	struct bdev *bd = open_ok(image, false, 1u << 20);
	char *buf = io_alloc(BLK), raw[BLK];
	int fd;

	assert_int_equal(bd->bd_size, IMAGE_BYTES - (1u << 20));
	fill(buf, BLK, 0, 9);
	assert_int_equal(bdev_write(bd, BLK, buf, BLK, 0), 0);
	assert_int_equal(one_bio(bd, BIO_WRITE, 3 * BLK, buf, BLK, 0), 0);
	fd = open(image, O_RDONLY);
	assert_int_equal(pread(fd, raw, BLK, (1u << 20) + BLK), BLK);
	assert_memory_equal(raw, buf, BLK);
	assert_int_equal(pread(fd, raw, BLK, (1u << 20) + 3 * BLK), BLK);
	assert_memory_equal(raw, buf, BLK);
	close(fd);
	io_free(buf);
	bdev_close(bd);
}

static void test_range_and_alignment_are_checked(void **state)
{
	struct bdev *bd = open_ok(image, false, 0);
	char *buf = io_alloc(2 * BLK);

	memset(buf, 0, 2 * BLK);
	assert_int_equal(bdev_read(bd, IMAGE_BYTES, buf, BLK), -ENXIO);
	assert_int_equal(bdev_read(bd, IMAGE_BYTES - BLK, buf, 2 * BLK), -ENXIO);
	assert_int_equal(bdev_read(bd, UINT64_MAX - BLK + 1, buf, BLK), -ENXIO);
	assert_int_equal(bdev_read(bd, 1, buf, BLK), -EINVAL);
	assert_int_equal(bdev_read(bd, 0, buf, BLK - 1), -EINVAL);
	assert_int_equal(one_bio(bd, BIO_WRITE, IMAGE_BYTES, buf, BLK, 0), -ENXIO);
	assert_int_equal(bdev_discard(bd, IMAGE_BYTES, BLK), -ENXIO);
	assert_int_equal(stats_of(bd).errors, 1);
	io_free(buf);
	bdev_close(bd);
}

/* Good bios around a bad one are carried out. */
static void test_bad_bio_in_a_batch_ends_alone(void **state)
{
	struct bdev *bd = open_ok(image, false, 0);
	char *buf = io_alloc(BLK);
	struct done d = { 0 };
	struct bio *bios[3];

	memset(buf, 0, BLK);
	bios[0] = make_bio(BIO_READ, 0, buf, 512, 0, &d);
	bios[1] = make_bio(BIO_READ, IMAGE_BYTES, buf + 512, 512, 0, &d);
	bios[2] = make_bio(BIO_READ, BLK, buf + 1024, 512, 0, &d);
	bdev_submit(bd, bios, 3);
	wait_event(&d, atomic_load(&d.ended) == 3);
	assert_int_equal(d.failed, 1);
	assert_int_equal(d.error, -ENXIO);
	io_free(buf);
	bdev_close(bd);
}

/* The image shrinks under us: inline, by bio, and in the middle of a bio. */
static void test_read_past_the_end_of_the_file_is_eio(void **state)
{
	struct bdev *bd = open_ok(image, false, 0);
	char *buf = io_alloc(16 * BLK);

	assert_int_equal(truncate(image, 8 * BLK), 0);
	assert_int_equal(bdev_read(bd, 8 * BLK, buf, BLK), -EIO);
	assert_int_equal(one_bio(bd, BIO_READ, 8 * BLK, buf, BLK, 0), -EIO);
	assert_int_equal(bdev_read(bd, 4 * BLK, buf, 8 * BLK), -EIO);
	assert_int_equal(one_bio(bd, BIO_READ, 4 * BLK, buf, 8 * BLK, 0), -EIO);
	assert_int_equal(truncate(image, 8 * BLK + 100), 0);
	assert_int_equal(one_bio(bd, BIO_READ, 4 * BLK, buf, 8 * BLK, 0), -EIO);
	assert_int_equal(bdev_read(bd, 8 * BLK, buf, BLK), -EIO);
	assert_int_equal(bdev_read(bd, 4 * BLK, buf, 4 * BLK), 0);
	io_free(buf);
	bdev_close(bd);
}

/* ---- many at once ---- */

#define SUBMITTERS 4
#define ROUNDS 12
#define SLOT_BLOCKS 64u

struct submitter {
	struct bdev *bd;
	u32 nr;
	struct thread *t;
};

static void submit_main(void *arg)
{
	struct submitter *s = arg;
	char *buf = io_alloc(SLOT_BLOCKS * BLK);
	u64 base = (u64)s->nr * SLOT_BLOCKS * BLK;

	for (u32 round = 0; round < ROUNDS; round++) {
		for (int op = BIO_WRITE; op >= BIO_READ; op--) {
			struct bio *bios[SLOT_BLOCKS];
			struct done d = { 0 };

			if (op == BIO_WRITE)
				fill(buf, SLOT_BLOCKS * BLK, base, round);
			else
				memset(buf, 0, SLOT_BLOCKS * BLK);
			for (u32 i = 0; i < SLOT_BLOCKS; i++)
				bios[i] = make_bio((enum bio_op)op, base + i * BLK,
						   buf + i * BLK, BLK, 0, &d);
			bdev_submit(s->bd, bios, SLOT_BLOCKS);
			wait_event(&d, atomic_load(&d.ended) == SLOT_BLOCKS);
			assert_int_equal(d.failed, 0);
		}
		check(buf, SLOT_BLOCKS * BLK, base, round);
		assert_int_equal(bdev_read(s->bd, base, buf, SLOT_BLOCKS * BLK), 0);
		check(buf, SLOT_BLOCKS * BLK, base, round);
	}
	io_free(buf);
}

static void run_submitters(void)
{
	struct bdev *bd = open_ok(image, false, 0);
	struct submitter s[SUBMITTERS];

	for (u32 i = 0; i < SUBMITTERS; i++) {
		s[i] = (struct submitter){ .bd = bd, .nr = i };
		assert_int_equal(thread_create(&s[i].t, "sub", submit_main, &s[i]), 0);
	}
	for (u32 i = 0; i < SUBMITTERS; i++)
		thread_join(s[i].t);
	bdev_close(bd);
}

static void test_concurrent_submitters(void **state)
{
	run_submitters();
}

static void test_partial_and_refused_submissions(void **state)
{
	atomic_store(&fault.submit_max, 3);
	atomic_store(&fault.submit_eagain, 30);
	atomic_store(&fault.short_events, 30);
	run_submitters();
	assert_int_equal(fault.submit_eagain, 0);
	assert_int_equal(fault.short_events, 0);
}

/* io_submit that refuses for good: the helper does the work. */
static void test_submission_refused_for_long(void **state)
{
	struct bdev *bd = open_ok(image, false, 0);
	char *buf = io_alloc(BLK);

	fill(buf, BLK, 0, 1);
	atomic_store(&fault.submit_eagain, 8);
	assert_int_equal(one_bio(bd, BIO_WRITE, 0, buf, BLK, 0), 0);
	assert_int_equal(fault.submit_eagain, 0);
	assert_int_equal(stats_of(bd).retries, 8);
	memset(buf, 0, BLK);
	assert_int_equal(bdev_read(bd, 0, buf, BLK), 0);
	check(buf, BLK, 0, 1);
	io_free(buf);
	bdev_close(bd);
}

/* A transfer that is waited for needs no memory if its pieces are few. */
static void test_few_pieces_need_no_memory(void **state)
{
	const size_t len = 3 * BIO_MAX_BYTES + BLK;
	struct bdev *bd = open_ok(image, false, 0);
	struct iovec iov[24];
	char *buf = io_alloc(len);

	fill(buf, len, 0, 11);
	atomic_store(&fault.no_bio, 1000);
	assert_int_equal(bdev_write(bd, 0, buf, len, 0), 0);
	memset(buf, 0, len);
	assert_int_equal(bdev_read(bd, 0, buf, len), 0);
	check(buf, len, 0, 11);
	/* one by one, and each time a try for a second one but at the end */
	assert_int_equal(fault.no_bio, 1000 - 2 * (4 + 3));

	/* Some memory: what was got goes, then the rest. */
	atomic_store(&fault.no_bio, 0);
	fill(buf, len, 0, 12);
	fault.bios_left = 2;
	assert_int_equal(bdev_write(bd, 0, buf, len, 0), 0);
	fault.bios_left = 0;
	memset(buf, 0, len);
	assert_int_equal(bdev_read(bd, 0, buf, len), 0);
	check(buf, len, 0, 12);

	/* Many, and too long to be done by the caller. */
	_Static_assert(24 * BIO_MAX_BYTES / 8 > BDEV_INLINE_MAX, "it goes inline");
	for (u32 i = 0; i < ARRAY_SIZE(iov); i++)
		iov[i] = (struct iovec){ buf + i % 2 * BIO_MAX_BYTES,
					 BIO_MAX_BYTES / 8 };
	atomic_store(&fault.no_bio, 1);
	assert_int_equal(bdev_rwv(bd, BIO_WRITE, 0, iov, ARRAY_SIZE(iov), 0), -ENOMEM);
	atomic_store(&fault.no_bio, 1);
	assert_int_equal(bdev_write(bd, 0, buf + 8, BLK, 0), -ENOMEM);
	assert_int_equal(fault.no_bio, 0);
	io_free(buf);
	bdev_close(bd);
}

static void test_more_bios_than_slots(void **state)
{
	enum { NR = 700 };
	struct bdev *bd = open_ok(image, false, 0);
	struct bio *bios[NR];
	char *buf = io_alloc(NR * BLK);
	struct done d = { 0 };

	fill(buf, NR * BLK, 0, 5);
	for (u32 i = 0; i < NR; i++)
		bios[i] = make_bio(BIO_WRITE, i * BLK, buf + i * BLK, BLK, 0, &d);
	bdev_submit(bd, bios, NR);
	wait_event(&d, atomic_load(&d.ended) == NR);
	assert_int_equal(d.failed, 0);
	memset(buf, 0, NR * BLK);
	assert_int_equal(bdev_read(bd, 0, buf, NR * BLK), 0);
	check(buf, NR * BLK, 0, 5);
	io_free(buf);
	bdev_close(bd);
}

static void test_failed_event_reaches_the_bio(void **state)
{
	struct bdev *bd = open_ok(image, false, 0);
	char *buf = io_alloc(2u << 20);

	memset(buf, 0, 2u << 20);
	atomic_store(&fault.error_events, 1);
	assert_int_equal(one_bio(bd, BIO_WRITE, 0, buf, BLK, 0), -EIO);
	atomic_store(&fault.error_events, 1);
	assert_int_equal(bdev_write(bd, 0, buf, 2u << 20, 0), -EIO);
	assert_int_equal(stats_of(bd).errors, 2);
	assert_int_equal(bdev_write(bd, 0, buf, 2u << 20, 0), 0);
	io_free(buf);
	bdev_close(bd);
}

/* ---- durability ---- */

static void test_fua_uses_dsync(void **state)
{
	struct bdev *bd = open_ok(image, false, 0);
	char *buf = io_alloc(BLK);

	memset(buf, 1, BLK);
	assert_int_equal(bdev_write(bd, 0, buf, BLK, BIO_FUA), 0);
	assert_int_equal(fault.dsync_writes, 1);
	assert_int_equal(one_bio(bd, BIO_WRITE, 0, buf, BLK, BIO_FUA), 0);
	assert_int_equal(fault.dsync_writes, 2);
	assert_int_equal(fault.syncs, 0);
	io_free(buf);
	bdev_close(bd);
}

static void test_fua_without_dsync_flushes(void **state)
{
	struct bdev *bd = open_ok(image, false, 0);
	char *buf = io_alloc(BLK);

	fill(buf, BLK, 0, 2);
	atomic_store(&fault.submit_no_dsync, 1);
	for (int i = 1; i <= 3; i++) {
		assert_int_equal(one_bio(bd, BIO_WRITE, 0, buf, BLK, BIO_FUA), 0);
		assert_int_equal(fault.syncs, i);
	}
	assert_int_equal(bdev_write(bd, BLK, buf, BLK, BIO_FUA), 0);
	assert_int_equal(fault.syncs, 4);
	assert_int_equal(fault.dsync_writes, 0);
	assert_int_equal(bdev_read(bd, 0, buf, BLK), 0);
	check(buf, BLK, 0, 2);
	io_free(buf);
	bdev_close(bd);
}

/* Several were under way when the first told that the kernel can't do it. */
static void test_fua_without_dsync_found_late(void **state)
{
	struct bdev *bd = open_ok(image, false, 0);
	char *buf = io_alloc(4 * BLK);
	struct bio *bios[4];
	struct done d = { 0 };

	fill(buf, 4 * BLK, 0, 5);
	for (u32 i = 0; i < ARRAY_SIZE(bios); i++)
		bios[i] = make_bio(BIO_WRITE, i * BLK, buf + i * BLK, BLK,
				   BIO_FUA, &d);
	atomic_store(&fault.dsync_events, ARRAY_SIZE(bios));
	bdev_submit(bd, bios, ARRAY_SIZE(bios));
	wait_event(&d, atomic_load(&d.ended) == ARRAY_SIZE(bios));
	assert_int_equal(d.failed, 0);
	assert_int_equal(fault.dsync_events, 0);
	assert_int_equal(fault.syncs, ARRAY_SIZE(bios));
	io_free(buf);
	bdev_close(bd);
}

static void test_fua_without_dsync_found_inline(void **state)
{
	struct bdev *bd = open_ok(image, false, 0);
	char *buf = io_alloc(BLK);

	memset(buf, 1, BLK);
	atomic_store(&fault.submit_no_dsync, 1);
	assert_int_equal(bdev_write(bd, 0, buf, BLK, BIO_FUA), 0);
	assert_int_equal(fault.syncs, 1);
	io_free(buf);
	bdev_close(bd);
}

static void test_failed_flush_is_never_forgotten(void **state)
{
	struct bdev *bd = open_ok(image, false, 0);

	assert_int_equal(bdev_flush(bd), 0);
	assert_int_equal(fault.syncs, 1);
	atomic_store(&fault.flush_error, EIO);
	assert_int_equal(bdev_flush(bd), -EIO);
	assert_int_equal(bdev_flush(bd), -EIO);
	assert_int_equal(stats_of(bd).errors, 2);
	bdev_close(bd);
}

static void test_discard_of_an_image_punches(void **state)
{
	struct bdev *bd = open_ok(image, false, 0);
	char *buf = io_alloc(4 * BLK), zero[BLK] = { 0 };
	int err;

	memset(buf, 1, 4 * BLK);
	assert_int_equal(bdev_write(bd, 0, buf, 4 * BLK, 0), 0);
	err = bdev_discard(bd, BLK, BLK);
	if (err != -EOPNOTSUPP) {
		assert_int_equal(err, 0);
		assert_int_equal(bdev_read(bd, BLK, buf, BLK), 0);
		assert_memory_equal(buf, zero, BLK);
	}
	assert_int_equal(bdev_read(bd, 2 * BLK, buf, BLK), 0);
	assert_int_equal(buf[0], 1);
	io_free(buf);
	bdev_close(bd);
}

/* A file system without O_DIRECT: all works, a flush makes it durable. */
static void test_buffered_fallback(void **state)
{
	struct bdev *bd;
	char *buf = io_alloc(1u << 20);

	atomic_store(&fault.no_direct, true);
	bd = open_ok(image, false, 512);
	atomic_store(&fault.no_direct, false);
	assert_int_equal(bd->bd_sector, 512);
	fill(buf, 1u << 20, 0, 8);
	assert_int_equal(bdev_write(bd, 512, buf, 1u << 20, 0), 0);
	assert_int_equal(one_bio(bd, BIO_WRITE, 0, buf, BLK, BIO_FUA), 0);
	assert_int_equal(bdev_write(bd, 512, buf, 512, BIO_FUA), 0);
	assert_int_equal(fault.dsync_writes, 2);
	assert_int_equal(bdev_flush(bd), 0);
	assert_int_equal(fault.syncs, 1);
	memset(buf, 0, 1u << 20);
	assert_int_equal(bdev_read(bd, 512, buf, 512), 0);
	check(buf, 512, 0, 8);
	assert_int_equal(truncate(image, 8 * BLK), 0);
	assert_int_equal(one_bio(bd, BIO_READ, 4 * BLK, buf, 8 * BLK, 0), -EIO);
	io_free(buf);
	bdev_close(bd);
}

/* Direct I/O given up for a volume with small blocks: 512 bytes will do. */
static void test_go_buffered(void **state)
{
	char *buf = io_alloc(1u << 20);
	struct bdev *bd;

	assert_int_equal(truncate(image, IMAGE_BYTES + 1536), 0);
	bd = open_ok(image, false, 0);
	fill(buf, 1u << 20, 0, 9);
	assert_int_equal(bdev_write(bd, 0, buf, 1u << 20, 0), 0);
	assert_int_equal(bdev_go_buffered(bd), 0);
	assert_int_equal(bd->bd_sector, 512);
	assert_int_equal(bd->bd_size, IMAGE_BYTES + 1536);
	memset(buf, 0, 1u << 20);
	assert_int_equal(bdev_read(bd, 512, buf, 512), 0);
	check(buf, 512, 512, 9);
	fill(buf, 1024, 0, 10);
	assert_int_equal(bdev_write(bd, IMAGE_BYTES + 512, buf, 1024, BIO_FUA), 0);
	assert_int_equal(fault.dsync_writes, 1);
	assert_int_equal(one_bio(bd, BIO_WRITE, 1536, buf, 1024, 0), 0);
	assert_int_equal(bdev_flush(bd), 0);
	assert_int_equal(fault.syncs, 1);
	memset(buf, 0, 1024);
	assert_int_equal(one_bio(bd, BIO_READ, IMAGE_BYTES + 512, buf, 1024, 0), 0);
	check(buf, 1024, 0, 10);
	bdev_close(bd);
	io_free(buf);
}

/* ---- backing_ops ---- */

static void async_done(void *priv, int error)
{
	struct done *d = priv;

	atomic_store(&d->error, error);
	atomic_fetch_add(&d->ended, 1);
	wake_up(d);
}

static void test_backing_ops_read_blocks(void **state)
{
	struct bdev *bd = open_ok(image, false, 0);
	struct bdev_backing b = { .bd = bd, .blocksize_bits = 12 };
	const struct backing_ops *ops = &bdev_backing_ops;
	u32 nr = 700;
	char *buf = io_alloc(nr * BLK);
	struct iovec iov = { buf, nr * BLK };
	struct done d = { 0 };

	fill(buf, nr * BLK, 0, 4);
	assert_int_equal(bdev_write(bd, 0, buf, nr * BLK, 0), 0);
	memset(buf, 0, nr * BLK);
	assert_int_equal(ops->read(&b, 0, nr, &iov, 1), 0);
	check(buf, nr * BLK, 0, 4);
	memset(buf, 0, nr * BLK);
	assert_int_equal(ops->read_async(&b, 0, nr, &iov, 1, async_done, &d), 0);
	memset(&iov, 0, sizeof(iov)); /* the vector may go */
	wait_event(&d, atomic_load(&d.ended));
	assert_int_equal(d.error, 0);
	check(buf, nr * BLK, 0, 4);

	iov = (struct iovec){ buf, BLK };
	assert_int_equal(ops->read(&b, IMAGE_BYTES / BLK, 1, &iov, 1), -ENXIO);
	assert_int_equal(ops->read(&b, UINT64_MAX, 1, &iov, 1), -ENXIO);
	assert_int_equal(ops->read_async(&b, IMAGE_BYTES / BLK, 1, &iov, 1,
					 async_done, &d), -ENXIO);
	assert_int_equal(d.ended, 1);

	assert_int_equal(truncate(image, BLK), 0);
	memset(&d, 0, sizeof(d));
	assert_int_equal(ops->read_async(&b, 5, 1, &iov, 1, async_done, &d), 0);
	wait_event(&d, atomic_load(&d.ended));
	assert_int_equal(d.error, -EIO);
	io_free(buf);
	bdev_close(bd);
}

/* ---- exclusive use ---- */

/* Opens path in another process; its result. */
static int open_elsewhere(const char *path, bool readonly)
{
	char self[] = "/proc/self/exe", mode[8];
	char name[256];
	char *argv[] = { self, mode, name, NULL };
	extern char **environ;
	int status;
	pid_t pid;

	snprintf(mode, sizeof(mode), "%s", readonly ? "ro" : "rw");
	snprintf(name, sizeof(name), "%s", path);
	assert_int_equal(posix_spawn(&pid, self, NULL, NULL, argv, environ), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return -WEXITSTATUS(status);
}

static int open_as_other_process(char **argv)
{
	const char *why;
	struct bdev *bd;
	int err = bdev_open_aio(argv[2], !strcmp(argv[1], "ro"), 0, &bd, &why);

	if (!err)
		bdev_close(bd);
	return -err;
}

static void test_image_has_one_writer(void **state)
{
	struct bdev *bd = open_ok(image, false, 0);

	assert_int_equal(open_elsewhere(image, false), -EBUSY);
	assert_int_equal(open_elsewhere(image, true), -EBUSY);
	open_fails(image, false, 0, -EBUSY, "in use by another daemon");
	bdev_close(bd);
	assert_int_equal(open_elsewhere(image, false), 0);
}

static void test_readers_share_an_image(void **state)
{
	struct bdev *bd = open_ok(image, true, 0);
	char *buf = io_alloc(BLK);

	assert_true(bd->bd_readonly);
	assert_int_equal(open_elsewhere(image, true), 0);
	assert_int_equal(open_elsewhere(image, false), -EBUSY);
	assert_int_equal(bdev_read(bd, 0, buf, BLK), 0);
	assert_int_equal(bdev_write(bd, 0, buf, BLK, 0), -EROFS);
	assert_int_equal(one_bio(bd, BIO_WRITE, 0, buf, BLK, 0), -EROFS);
	assert_int_equal(bdev_discard(bd, 0, BLK), -EROFS);
	assert_int_equal(bdev_flush(bd), 0);
	io_free(buf);
	bdev_close(bd);
}

static void test_what_cannot_be_opened(void **state)
{
	char name[400] = "/tmp/";

	memset(name + 5, 'x', 260);
	open_fails("/nonexistent/image", false, 0, -ENOENT, "cannot find");
	open_fails("/tmp", false, 0, -EINVAL, "neither");
	open_fails("/dev/null", false, 0, -EINVAL, "neither");
	open_fails(image, false, IMAGE_BYTES, -EINVAL, "beyond the end");
	open_fails(image, false, 100, -EINVAL, "multiple");
	open_fails(name, false, 0, -ENAMETOOLONG, "cannot find");
	/* each failure let go of everything */
	bdev_close(open_ok(image, false, 0));
	bdev_close(NULL);
}

/* ---- loop devices ---- */

/*
 * A loop device on the image, open as loop_fd; false if there are none. The
 * kernel takes it down at the last close, so also when a test fails.
 */
static bool loop_create(char *path, size_t size, bool readonly)
{
	int mode = (readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC;
	int ctl = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	int file = open(image, mode), fd = -1;
	struct loop_config config = {
		.fd = (u32)file,
		.info.lo_flags = LO_FLAGS_AUTOCLEAR |
				 (readonly ? LO_FLAGS_READ_ONLY : 0),
	};

	for (int i = 0; ctl >= 0 && fd < 0 && i < 50; i++) {
		int nr = ioctl(ctl, LOOP_CTL_GET_FREE);

		if (nr < 0)
			break;
		snprintf(path, size, "/dev/loop%d", nr);
		fd = open(path, mode);
		if (fd >= 0 && ioctl(fd, LOOP_CONFIGURE, &config) < 0) {
			close(fd); /* taken by somebody else meanwhile */
			fd = -1;
		}
	}
	if (ctl >= 0)
		close(ctl);
	close(file);
	loop_fd = fd;
	return fd >= 0;
}

static void test_loop_device_is_claimed(void **state)
{
	char path[64];
	struct bdev *bd;
	char *buf;
	int fd;

	if (!loop_create(path, sizeof(path), false))
		skip();
	buf = io_alloc(1u << 20);
	bd = open_ok(path, false, 0);
	assert_true(bd->bd_is_block);
	assert_int_equal(bd->bd_size, IMAGE_BYTES);
	fill(buf, 1u << 20, 0, 6);
	assert_int_equal(bdev_write(bd, 0, buf, 1u << 20, 0), 0);
	assert_int_equal(one_bio(bd, BIO_WRITE, 0, buf, BLK, BIO_FUA), 0);
	assert_int_equal(bdev_flush(bd), 0);
	memset(buf, 0, 1u << 20);
	assert_int_equal(bdev_read(bd, 0, buf, 1u << 20), 0);
	check(buf, 1u << 20, 0, 6);

	open_fails(path, false, 0, -EBUSY, "already mounted or in use");
	open_fails(path, true, 0, -EBUSY, "already mounted or in use");
	open_fails(image, false, 0, -EBUSY, path);
	assert_int_equal(open_elsewhere(path, false), -EBUSY);

	/* Without the claim O_EXCL is possible, for us is not. */
	bdev_release_claim(bd);
	fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC);
	assert_true(fd >= 0);
	close(fd);
	open_fails(path, false, 0, -EBUSY, "in use by another daemon");
	assert_int_equal(open_elsewhere(path, false), -EBUSY);
	assert_int_equal(bdev_read(bd, 0, buf, BLK), 0);
	assert_int_equal(one_bio(bd, BIO_WRITE, 0, buf, BLK, 0), 0);
	assert_int_equal(bdev_discard(bd, 1u << 20, BLK), 0);
	bdev_close(bd);

	/* Set up but unused: the image itself may be opened... */
	bd = open_ok(image, false, 0);
	/* ...and then the loop device not. */
	open_fails(path, false, 0, -EBUSY, "backing file");
	bdev_close(bd);
	io_free(buf);
}

static void test_readonly_device(void **state)
{
	char path[64];
	struct bdev *bd;
	char *buf;

	if (!loop_create(path, sizeof(path), true))
		skip();
	open_fails(path, false, 0, -EROFS, "read-only");
	bd = open_ok(path, true, 0);
	/* Readers share the image with it, writers do not. */
	bdev_close(open_ok(image, true, 0));
	open_fails(image, false, 0, -EBUSY, path);
	buf = io_alloc(BLK);
	assert_int_equal(bdev_read(bd, 0, buf, BLK), 0);
	bdev_release_claim(bd);
	assert_int_equal(bdev_read(bd, 0, buf, BLK), 0);
	io_free(buf);
	bdev_close(bd);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		T(test_write_then_read_of_many_sizes),
		T(test_statistics_count_bios_by_size),
		T(test_submit_wait_ends_on_the_callers_thread),
		T(test_long_vector_is_split),
		T(test_unaligned_memory_is_bounced),
		T(test_offset_shifts_the_volume),
		T(test_range_and_alignment_are_checked),
		T(test_bad_bio_in_a_batch_ends_alone),
		T(test_read_past_the_end_of_the_file_is_eio),
		T(test_concurrent_submitters),
		T(test_partial_and_refused_submissions),
		T(test_submission_refused_for_long),
		T(test_few_pieces_need_no_memory),
		T(test_more_bios_than_slots),
		T(test_failed_event_reaches_the_bio),
		T(test_fua_uses_dsync),
		T(test_fua_without_dsync_flushes),
		T(test_fua_without_dsync_found_late),
		T(test_fua_without_dsync_found_inline),
		T(test_failed_flush_is_never_forgotten),
		T(test_discard_of_an_image_punches),
		T(test_buffered_fallback),
		T(test_go_buffered),
		T(test_backing_ops_read_blocks),
		T(test_image_has_one_writer),
		T(test_readers_share_an_image),
		T(test_what_cannot_be_opened),
		T(test_loop_device_is_claimed),
		T(test_readonly_device),
	};

	log_set_sink(quiet, NULL);
	thread_register();
	if (argc == 3)
		return open_as_other_process(argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
