/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/bench/bench_io.c - one row of scripts/bench: plain system calls on one
 * file of whatever file system it is on
 *
 *   bench-io ROW FILE SIZE [OPS [SEED]]
 *
 * prints bytes, operations, seconds and this process's CPU seconds as JSON.
 * SIZE is the file's size, or the part of it that is used. Random places are
 * a permutation: none comes twice. What is written depends on place and seed,
 * so that nothing can be merged; `check` reads it back.
 * What precedes the measuring (open, memory) is not timed; fsync, where the
 * row has one, is.
 */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define BIG (1u << 20)
#define SMALL 4096u

struct row {
	const char *name;
	int flags;	  /* of open(2) */
	u32 unit;	  /* bytes an operation */
	bool write, random;
	bool sync_each;	  /* fdatasync(2) after each */
	bool sync_end;	  /* fsync(2) at the end */
	bool check;	  /* compares what it reads */
};

static const struct row rows[] = {
	{ "write", O_WRONLY | O_CREAT | O_TRUNC, BIG, .write = true, .sync_end = true },
	{ "read", O_RDONLY, BIG },
	{ "randread", O_RDONLY, SMALL, .random = true },
	{ "randwrite", O_WRONLY, SMALL, .write = true, .random = true, .sync_end = true },
	{ "datasync", O_WRONLY, SMALL, .write = true, .sync_each = true },
	{ "append", O_WRONLY | O_CREAT | O_TRUNC, SMALL, .write = true, .sync_each = true },
	{ "dwrite", O_WRONLY | O_DIRECT, BIG, .write = true },
	{ "dread", O_RDONLY | O_DIRECT, BIG },
	{ "check", O_RDONLY, BIG, .check = true },
};

static void die(const char *what)
{
	fprintf(stderr, "bench-io: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* The same noise in each 4 KiB; their first word is replaced by their place. */
static void fill(u64 *buf, u32 bytes, u64 seed)
{
	for (u32 i = 0; i < bytes / 8; i++) {
		u64 x = (i % (SMALL / 8) + 1) * 0x9e3779b97f4a7c15ull + seed;

		buf[i] = x ^ x >> 29;
	}
}

static void put_place(u64 *buf, u32 bytes, u64 pos, u64 seed)
{
	for (u32 i = 0; i < bytes; i += SMALL)
		buf[i / 8] = pos + i + seed;
}

/* A permutation of [0, n): a walk with a step that shares no factor with n. */
static u64 random_step(u64 n, u64 seed)
{
	u64 step = (n * 618 / 1000 + seed * 2) | 1, a, b, t;

	for (;; step += 2) {
		for (a = step, b = n; b; a = b, b = t)
			t = a % b;
		if (a == 1)
			return step % n ? step % n : 1;
	}
}

int main(int argc, char **argv)
{
	const struct row *row = NULL;
	u64 size, ops = 0, seed = 1, units, step = 1, at = 0, pos;
	u64 *buf = NULL, *want = NULL;
	struct bench_usage used;
	int fd;

	for (u32 i = 0; argc >= 4 && i < ARRAY_SIZE(rows); i++)
		if (!strcmp(argv[1], rows[i].name))
			row = &rows[i];
	if (!row || !bench_parse_size(argv[3], &size) || size < row->unit ||
	    (argc > 4 && !bench_parse_size(argv[4], &ops)) ||
	    (argc > 5 && !bench_parse_size(argv[5], &seed))) {
		fprintf(stderr, "usage: bench-io ROW FILE SIZE [OPS [SEED]]; rows:");
		for (u32 i = 0; i < ARRAY_SIZE(rows); i++)
			fprintf(stderr, " %s", rows[i].name);
		fprintf(stderr, "\n");
		return 2;
	}
	units = size / row->unit;
	if (!ops || ops > units)
		ops = units;
	if (row->random)
		step = random_step(units, seed);
	if (posix_memalign((void **)&buf, 4096, row->unit) ||
	    posix_memalign((void **)&want, 4096, row->unit)) {
		errno = ENOMEM;
		die("memory");
	}
	fill(buf, row->unit, seed);
	fill(want, row->unit, seed);
	fd = open(argv[2], row->flags, 0644);
	if (fd < 0)
		die(argv[2]);
	used = bench_usage_now();
	for (u64 i = 0; i < ops; i++) {
		ssize_t n;

		pos = at * row->unit;
		at = (at + step) % units;
		if (row->write) {
			put_place(buf, row->unit, pos, seed);
			n = pwrite(fd, buf, row->unit, (off_t)pos);
		} else {
			n = pread(fd, buf, row->unit, (off_t)pos);
		}
		if (n != (ssize_t)row->unit) {
			if (n >= 0)
				errno = ENODATA;
			die(row->name);
		}
		if (row->sync_each && fdatasync(fd))
			die("fdatasync");
		if (row->check) {
			put_place(want, row->unit, pos, seed);
			if (memcmp(buf, want, row->unit)) {
				errno = EILSEQ;
				die("content");
			}
		}
	}
	if (row->sync_end && fsync(fd))
		die("fsync");
	used = bench_usage_since(used);
	if (close(fd))
		die("close");
	printf("{\"row\": \"%s\", \"bytes\": %llu, \"ops\": %llu, \"seconds\": %.9f, \"client_cpu\": %.6f}\n",
	       row->name, (unsigned long long)(ops * row->unit),
	       (unsigned long long)ops, (double)used.wall_ns / 1e9,
	       (double)used.cpu_ns / 1e9);
	free(buf);
	free(want);
	return 0;
}
