/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/bench/bench_pageio.c - one stream of 4 KiB blocks, as bios of 4 KiB
 * that are submitted one at a time, and gathered into larger ones
 *
 * The code is that of writeback/: page_io over aio on a file or device. A
 * window of the stream is what a write-out pass would have; it is waited for, then
 * the next one follows. With the smallest limit each block is submitted by
 * itself, which is what write-out without page-io would do. Afterwards the
 * whole is read back and compared, and the counters must say what the limit
 * demands: else the exit status is 1.
 */
#include "bench.h"

#include "lib/thread.h"
#include "lib/wait.h"
#include "writeback/page_io.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdatomic.h>
#include <unistd.h>

#define BLOCK 4096u
#define WINDOW (8u << 20)

struct window {
	struct io_end ioe;
	_Atomic bool ended;
	int error;
};

static void window_end(struct io_end *ioe)
{
	struct window *w = container_of_type(ioe, struct window, ioe);

	w->error = atomic_load(&ioe->error);
	atomic_store(&w->ended, true);
	wake_up(w);
}

static void die(const char *what, int err)
{
	fprintf(stderr, "bench-pageio: %s: %s\n", what, strerror(-err));
	exit(1);
}

static void put_blocks(char *mem, u64 pos, u32 bytes, u64 seed)
{
	for (u32 i = 0; i < bytes; i += BLOCK)
		*(u64 *)(mem + i) = pos + i + seed;
}

/* Writes [0, size) with bios of up to limit bytes. */
static void stream(struct bdev *bd, char *mem, u64 size, u32 limit, u64 seed)
{
	static struct window w; /* its last user looks at its address only */

	for (u64 pos = 0; pos < size; pos += WINDOW) {
		u32 bytes = (u32)min_of(size - pos, (u64)WINDOW);
		struct page_io io;

		put_blocks(mem, pos, bytes, seed);
		atomic_store(&w.ended, false);
		io_end_init(&w.ioe, window_end, true);
		page_io_init(&io, bd, BIO_WRITE, 0);
		io.max_bytes = limit;
		for (u32 at = 0; at < bytes; at += BLOCK) {
			int err = page_io_add(&io, pos + at, mem + at, BLOCK,
					      &w.ioe);

			if (err)
				die("page_io_add", err);
			if (limit == BLOCK)
				page_io_submit(&io);
		}
		page_io_submit(&io);
		io_end_put(&w.ioe);
		wait_event(&w, atomic_load(&w.ended));
		if (w.error)
			die("write", w.error);
	}
	if (bdev_flush(bd))
		die("flush", -EIO);
}

static void verify(struct bdev *bd, char *mem, u64 size, u64 seed)
{
	for (u64 pos = 0; pos < size; pos += WINDOW) {
		u32 bytes = (u32)min_of(size - pos, (u64)WINDOW);
		int err = bdev_read(bd, pos, mem, bytes);

		if (err)
			die("read", err);
		for (u32 i = 0; i < bytes; i += BLOCK)
			if (*(u64 *)(mem + i) != pos + i + seed)
				die("content", -EILSEQ);
	}
}

/* One row. Returns whether the counters are right. */
static bool measure(struct bdev *bd, char *mem, u64 size, u32 limit, u64 seed,
		    struct bench_table *t)
{
	struct bdev_stats before, after;
	struct bench_usage used;
	double gib = (double)size / (1u << 30);
	u64 bios, submits, retries;

	bdev_get_stats(bd, &before);
	used = bench_usage_now();
	stream(bd, mem, size, limit, seed);
	used = bench_usage_since(used);
	bdev_get_stats(bd, &after);
	verify(bd, mem, size, seed);
	bios = after.dir[BIO_WRITE].bios - before.dir[BIO_WRITE].bios;
	submits = after.io_submits - before.io_submits;
	retries = after.retries - before.retries;
	bench_row_begin(t);
	bench_cell_int(t, "limit", limit);
	bench_cell_int(t, "bios", bios);
	bench_cell_int(t, "io_submits", submits);
	bench_cell_real(t, "MB/s", (double)size * 1e3 / (double)used.wall_ns);
	bench_cell_real(t, "cpu_s/GiB", (double)used.cpu_ns / 1e9 / gib);
	bench_cell_real(t, "user_s/GiB", (double)used.user_ns / 1e9 / gib);
	bench_cell_int(t, "waits", used.waits);
	bench_cell_int(t, "slot_waits", after.slot_waits - before.slot_waits);
	bench_row_end(t);
	if (bios != size / limit || submits > bios + retries) {
		fprintf(stderr, "bench-pageio: %llu bios, %llu expected; %llu io_submits, %llu retries\n",
			(unsigned long long)bios, (unsigned long long)(size / limit),
			(unsigned long long)submits, (unsigned long long)retries);
		return false;
	}
	return true;
}

/* A file of our own, in the directory. */
static void make_file(const char *dir, char *path, size_t room, u64 size)
{
	static const char zeros[1 << 16];
	int fd;

	snprintf(path, room, "%s/bench-pageio.XXXXXX", dir);
	fd = mkstemp(path);
	if (fd < 0)
		die(path, -errno);
	/* Blocks that are there already cost alike each time. */
	for (u64 at = 0; at < size; at += sizeof(zeros))
		if (write(fd, zeros, sizeof(zeros)) != (ssize_t)sizeof(zeros))
			die(path, -errno);
	if (fsync(fd))
		die(path, -errno);
	close(fd);
}

static int usage(FILE *to)
{
	fprintf(to,
		"usage: bench-pageio [-s SIZE] [-n ROUNDS] [-l LIMIT,...] [-j FILE] [DEVICE]\n"
		"  DEVICE  a file or block device, WHICH IS OVERWRITTEN; none: a file in $TMPDIR\n"
		"  -s  bytes written, a multiple of 8M (default 256M)\n"
		"  -l  limits of a bio, powers of two, 4K to 512K (default 4K,64K,512K)\n"
		"  -n  how often each, in turn (default 3)\n"
		"  -j  the rows as JSON\n");
	return to == stdout ? 0 : 2;
}

int main(int argc, char **argv)
{
	char limits[256] = "4K,64K,512K", path[4096], *save;
	const char *json = NULL, *device = NULL, *dir = getenv("TMPDIR"), *why;
	u64 size = 256u << 20, limit, seed = 0;
	struct bench_table table;
	unsigned long rounds = 3;
	bool ok = true;
	struct bdev *bd;
	char *mem;
	int c, err;

	while ((c = getopt(argc, argv, "s:l:n:j:h")) != -1) {
		if (c == 'h')
			return usage(stdout);
		if (c == 'j')
			json = optarg;
		else if (c == 'l')
			snprintf(limits, sizeof(limits), "%s", optarg);
		else if (c == 'n')
			rounds = strtoul(optarg, NULL, 10);
		else if (c != 's' || !bench_parse_size(optarg, &size))
			return usage(stderr);
	}
	if (!size || size % WINDOW || !rounds || argc - optind > 1)
		return usage(stderr);
	device = argv[optind];
	if (!device)
		make_file(dir ? dir : "/tmp", path, sizeof(path), size);
	thread_register();
	err = bdev_open_aio(device ? device : path, false, 0, &bd, &why);
	if (!device)
		unlink(path);
	if (err) {
		fprintf(stderr, "bench-pageio: %s: %s\n", device ? device : path, why);
		return err == -EINVAL || err == -EOPNOTSUPP ? 77 : 1;
	}
	mem = io_alloc(WINDOW);
	if (!mem || bd->bd_size < size)
		die("memory, or size of the device", -ENOSPC);
	memset(mem, 0x5a, WINDOW);
	if (!bench_table_open(&table, "pageio", json))
		die(json, -errno);
	for (unsigned long i = 0; i < rounds; i++) {
		char list[256];

		memcpy(list, limits, sizeof(list));
		for (char *one = strtok_r(list, ",", &save); one;
		     one = strtok_r(NULL, ",", &save)) {
			if (!bench_parse_size(one, &limit) || limit < BLOCK ||
			    limit > BIO_MAX_BYTES || limit & (limit - 1))
				return usage(stderr);
			ok = measure(bd, mem, size, (u32)limit, ++seed, &table) && ok;
		}
	}
	if (!bench_table_close(&table))
		die(json, -EIO);
	io_free(mem);
	bdev_close(bd);
	thread_unregister();
	return ok ? 0 : 1;
}
