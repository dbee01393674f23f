/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/mount/stream.c - several files at once, written or read from end to end
 *
 *   stream write DIRECTORY FILES MIB SEED   then fsync each
 *   stream read  DIRECTORY FILES MIB SEED   not from the kernel's cache
 *
 * Content depends on seed, file and place, and is compared when read. Says on
 * stderr how long the longest call took; exits with 1 if anything differs or
 * fails.
 *
 * Locks: none. Threads: one for each file; shared: the maximum, atomic.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PIECE (256u << 10)
#define MAX_FILES 64

static const char *dir;
static uint64_t mib, seed;
static int writing;
static _Atomic uint64_t longest_call, longest_fsync;
static _Atomic int failures;

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static void note(_Atomic uint64_t *longest, uint64_t since)
{
	uint64_t us = now_us() - since, old = atomic_load(longest);

	while (old < us && !atomic_compare_exchange_weak(longest, &old, us))
		;
}

static void failed(const char *what, unsigned file, uint64_t pos)
{
	fprintf(stderr, "%s: file %u, byte %llu: %s\n", what, file,
		(unsigned long long)pos, strerror(errno));
	atomic_fetch_add(&failures, 1);
}

static void fill(uint64_t *buf, unsigned file, uint64_t pos)
{
	uint64_t x = (seed << 40 ^ (uint64_t)file << 32) + pos / PIECE + 1;

	for (unsigned i = 0; i < PIECE / sizeof(*buf); i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		buf[i] = x;
	}
}

static void one_piece(int fd, unsigned file, uint64_t pos, uint64_t *want,
		      uint64_t *got)
{
	uint64_t begin;
	ssize_t n;

	fill(want, file, pos);
	begin = now_us();
	n = writing ? pwrite(fd, want, PIECE, (off_t)pos) :
		      pread(fd, got, PIECE, (off_t)pos);
	note(&longest_call, begin);
	if (n != PIECE)
		failed(writing ? "write" : "read", file, pos);
	else if (!writing && memcmp(want, got, PIECE))
		failed("differs", file, pos);
}

static void *one_file(void *arg)
{
	unsigned file = (unsigned)(uintptr_t)arg;
	uint64_t *want = malloc(PIECE), *got = malloc(PIECE), begin;
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/stream%u", dir, file);
	fd = open(path, writing ? O_WRONLY | O_CREAT | O_TRUNC : O_RDONLY, 0644);
	if (fd < 0 || !want || !got) {
		failed("open", file, 0);
		return NULL;
	}
	if (!writing)
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	for (uint64_t pos = 0; pos < mib << 20 && !atomic_load(&failures);
	     pos += PIECE)
		one_piece(fd, file, pos, want, got);
	begin = now_us();
	if (writing && fsync(fd))
		failed("fsync", file, 0);
	note(&longest_fsync, begin);
	close(fd);
	free(want);
	free(got);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t t[MAX_FILES];
	unsigned files;
	uint64_t begin = now_us(), us;

	if (argc != 6)
		return 2;
	writing = !strcmp(argv[1], "write");
	dir = argv[2];
	files = (unsigned)atoi(argv[3]);
	mib = strtoull(argv[4], NULL, 10);
	seed = strtoull(argv[5], NULL, 10);
	if (!files || files > MAX_FILES || !mib)
		return 2;
	for (unsigned i = 0; i < files; i++)
		if (pthread_create(&t[i], NULL, one_file, (void *)(uintptr_t)i))
			return 2;
	for (unsigned i = 0; i < files; i++)
		pthread_join(t[i], NULL);
	us = now_us() - begin;
	fprintf(stderr, "%s: %llu MiB/s, longest call %llu ms", argv[1],
		(unsigned long long)(files * mib * 1000000 / (us + 1)),
		(unsigned long long)atomic_load(&longest_call) / 1000);
	if (writing)
		fprintf(stderr, ", longest fsync %llu ms",
			(unsigned long long)atomic_load(&longest_fsync) / 1000);
	fprintf(stderr, "\n");
	return atomic_load(&failures) ? 1 : 0;
}
