/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/bench/bench_meta.c - one row of scripts/bench meta: names and
 * attributes, by threads with a directory each, or all in one
 *
 *   bench-meta ROW DIR THREADS FILES
 *
 * prints operations, seconds and this process's CPU seconds as JSON. ROW is
 * `create` (open with O_CREAT | O_EXCL, and close), `walk` (readdir, and stat
 * of each name), `chmod`, `unlink`, each on FILES names in DIR/0, DIR/1, ... by
 * thread; or `shared`: create, FILES names in all, in DIR itself. Directories
 * are made by `create` before the clock starts.
 */
#include "bench.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#define THREADS_MAX 256u

struct client {
	pthread_t thread;
	pthread_barrier_t *start;
	int dir;	 /* descriptor of its directory */
	u32 first, count; /* its names */
	int (*work)(const struct client *c);
};

static void die(const char *what)
{
	fprintf(stderr, "bench-meta: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int create_names(const struct client *c)
{
	char name[32];

	for (u32 i = 0; i < c->count; i++) {
		int fd;

		snprintf(name, sizeof(name), "file%u", c->first + i);
		fd = openat(c->dir, name, O_CREAT | O_EXCL | O_WRONLY, 0644);
		if (fd < 0 || close(fd))
			return errno;
	}
	return 0;
}

static int walk_names(const struct client *c)
{
	DIR *dir = fdopendir(dup(c->dir));
	struct dirent *de;
	struct stat st;
	u32 seen = 0;

	if (!dir)
		return errno;
	for (errno = 0; (de = readdir(dir)); errno = 0) {
		if (de->d_name[0] == '.')
			continue;
		if (fstatat(c->dir, de->d_name, &st, AT_SYMLINK_NOFOLLOW))
			return errno;
		seen++;
	}
	if (errno || closedir(dir))
		return errno;
	return seen == c->count ? 0 : ENODATA;
}

static int chmod_names(const struct client *c)
{
	char name[32];

	for (u32 i = 0; i < c->count; i++) {
		snprintf(name, sizeof(name), "file%u", c->first + i);
		if (fchmodat(c->dir, name, 0600, 0))
			return errno;
	}
	return 0;
}

static int unlink_names(const struct client *c)
{
	char name[32];

	for (u32 i = 0; i < c->count; i++) {
		snprintf(name, sizeof(name), "file%u", c->first + i);
		if (unlinkat(c->dir, name, 0))
			return errno;
	}
	return 0;
}

static const struct row {
	const char *name;
	int (*work)(const struct client *c);
	bool shared; /* all in one directory */
	bool make;   /* makes the directories */
} rows[] = {
	{ "create", create_names, .make = true },
	{ "walk", walk_names },
	{ "chmod", chmod_names },
	{ "unlink", unlink_names },
	{ "shared", create_names, .shared = true, .make = true },
};

static int open_dir(const char *path, bool make)
{
	int fd;

	if (make && mkdir(path, 0755) && errno != EEXIST)
		die(path);
	fd = open(path, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		die(path);
	return fd;
}

static void *client_main(void *arg)
{
	struct client *c = arg;

	pthread_barrier_wait(c->start);
	return (void *)(intptr_t)c->work(c);
}

static void prepare(struct client *clients, const struct row *row,
		    const char *dir, u32 threads, u32 files)
{
	char path[4096];

	close(open_dir(dir, row->make));
	for (u32 i = 0; i < threads; i++) {
		struct client *c = &clients[i];

		c->work = row->work;
		c->count = files;
		snprintf(path, sizeof(path), "%s/%u", dir, i);
		if (row->shared) {
			c->first = (u32)((u64)files * i / threads);
			c->count = (u32)((u64)files * (i + 1) / threads) -
				   c->first;
		}
		c->dir = open_dir(row->shared ? dir : path, row->make);
	}
}

int main(int argc, char **argv)
{
	static struct client clients[THREADS_MAX];
	const struct row *row = NULL;
	pthread_barrier_t start;
	struct bench_usage used;
	u64 threads, files;
	void *failed;

	for (u32 i = 0; argc == 5 && i < ARRAY_SIZE(rows); i++)
		if (!strcmp(argv[1], rows[i].name))
			row = &rows[i];
	if (!row || !bench_parse_size(argv[3], &threads) ||
	    !bench_parse_size(argv[4], &files) || !threads ||
	    threads > THREADS_MAX || !files || files > UINT32_MAX) {
		fprintf(stderr, "usage: bench-meta ROW DIR THREADS FILES; rows:");
		for (u32 i = 0; i < ARRAY_SIZE(rows); i++)
			fprintf(stderr, " %s", rows[i].name);
		fprintf(stderr, "\n");
		return 2;
	}
	prepare(clients, row, argv[2], (u32)threads, (u32)files);
	pthread_barrier_init(&start, NULL, (unsigned)threads + 1);
	for (u32 i = 0; i < threads; i++) {
		clients[i].start = &start;
		errno = pthread_create(&clients[i].thread, NULL, client_main,
				       &clients[i]);
		if (errno)
			die("pthread_create");
	}
	used = bench_usage_now();
	pthread_barrier_wait(&start);
	for (u32 i = 0; i < threads; i++) {
		pthread_join(clients[i].thread, &failed);
		errno = (int)(intptr_t)failed;
		if (errno)
			die(row->name);
	}
	used = bench_usage_since(used);
	printf("{\"row\": \"%s\", \"ops\": %llu, \"seconds\": %.9f, \"client_cpu\": %.6f}\n",
	       row->name,
	       (unsigned long long)(row->shared ? files : files * threads),
	       (double)used.wall_ns / 1e9, (double)used.cpu_ns / 1e9);
	for (u32 i = 0; i < threads; i++)
		close(clients[i].dir);
	pthread_barrier_destroy(&start);
	return 0;
}
