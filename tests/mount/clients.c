/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/mount/clients.c - many processes at once, each sure of what it wrote
 *
 *   clients DIR PROCESSES SECONDS SEED
 *
 * Every process works in its own directory and in one that all share. It
 * keeps in memory what its own files hold and compares them as it reads them
 * back; in the shared directory names come and go under its feet, so there it
 * only checks that errors are the ones that can be. The seed is printed; the
 * order in which processes meet is not repeatable.
 */
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FILES 24
#define FILE_MAX (192u * 1024)
#define SHARED 64

struct file {
	bool exists;
	uint32_t size;
	unsigned char *bytes; /* FILE_MAX; zero from size on */
};

static struct file files[FILES];
static uint64_t rng;
static unsigned me;

static uint32_t any(uint32_t n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (uint32_t)(rng >> 16) % n;
}

static void __attribute__((noreturn, format(printf, 1, 2)))
die(const char *fmt, ...)
{
	int saved = errno;
	va_list ap;

	va_start(ap, fmt);
	fprintf(stderr, "client %u: ", me);
	vfprintf(stderr, fmt, ap);
	fprintf(stderr, " (%s)\n", strerror(saved));
	va_end(ap);
	exit(1);
}

static void own_name(char *buf, size_t size, unsigned i)
{
	snprintf(buf, size, "own%u/f%u", me, i);
}

static void op_write(unsigned i)
{
	static unsigned char data[48 * 1024];
	struct file *f = &files[i];
	uint32_t len = 1 + any(sizeof(data)), at = any(FILE_MAX - len);
	int flags = O_WRONLY | O_CREAT, fd;
	char name[64];

	if (any(16) == 0)
		flags |= O_DSYNC;
	own_name(name, sizeof(name), i);
	fd = open(name, flags, 0644);
	if (fd < 0)
		die("open %s", name);
	for (uint32_t k = 0; k < len; k++)
		data[k] = (unsigned char)(k * 31 + at + rng);
	if (pwrite(fd, data, len, at) != (ssize_t)len)
		die("write %s", name);
	memcpy(f->bytes + at, data, len);
	f->exists = true;
	if (f->size < at + len)
		f->size = at + len;
	if (any(12) == 0 && fsync(fd))
		die("fsync %s", name);
	if (close(fd))
		die("close %s", name);
}

static void op_read(unsigned i)
{
	static unsigned char data[FILE_MAX];
	struct file *f = &files[i];
	char name[64];
	ssize_t n;
	int fd;

	own_name(name, sizeof(name), i);
	fd = open(name, O_RDONLY);
	if (fd < 0) {
		if (errno == ENOENT && !f->exists)
			return;
		die("open %s to read", name);
	}
	if (!f->exists)
		die("%s came back", name);
	n = pread(fd, data, sizeof(data), 0);
	if (n != (ssize_t)f->size)
		die("%s: read %zd of %u bytes", name, n, f->size);
	for (uint32_t k = 0; k < f->size; k++)
		if (data[k] != f->bytes[k])
			die("%s: byte %u is 0x%02x, not 0x%02x", name, k,
			    data[k], f->bytes[k]);
	close(fd);
}

static void op_truncate(unsigned i)
{
	struct file *f = &files[i];
	uint32_t size = any(FILE_MAX);
	char name[64];

	own_name(name, sizeof(name), i);
	if (truncate(name, size)) {
		if (errno == ENOENT && !f->exists)
			return;
		die("truncate %s", name);
	}
	if (size < f->size)
		memset(f->bytes + size, 0, f->size - size);
	f->size = size;
}

static void op_unlink(unsigned i)
{
	struct file *f = &files[i];
	char name[64];

	own_name(name, sizeof(name), i);
	if (unlink(name) && (errno != ENOENT || f->exists))
		die("unlink %s", name);
	memset(f->bytes, 0, f->size);
	f->size = 0;
	f->exists = false;
}

static void op_rename(unsigned i, unsigned j)
{
	char from[64], to[64];
	struct file swap;

	if (i == j || !files[i].exists)
		return;
	own_name(from, sizeof(from), i);
	own_name(to, sizeof(to), j);
	if (rename(from, to))
		die("rename %s %s", from, to);
	swap = files[j];
	files[j] = files[i];
	memset(swap.bytes, 0, swap.size);
	files[i] = (struct file){ .bytes = swap.bytes };
}

/* Names that all clients fight for: only the kind of an error is known. */
static void op_shared(void)
{
	char a[64], b[64];
	struct stat st;
	int fd;

	snprintf(a, sizeof(a), "shared/s%u", any(SHARED));
	snprintf(b, sizeof(b), "shared/s%u", any(SHARED));
	switch (any(8)) {
	case 0:
		/* It may be a link to nowhere, or to itself. */
		fd = open(a, O_CREAT | O_WRONLY | O_APPEND, 0644);
		if (fd < 0 && errno != EISDIR && errno != ENOENT &&
		    errno != ELOOP)
			die("open %s", a);
		if (fd >= 0 && write(fd, a, strlen(a)) < 0)
			die("append %s", a);
		if (fd >= 0)
			close(fd);
		break;
	case 1:
		if (unlink(a) && errno != ENOENT && errno != EISDIR)
			die("unlink %s", a);
		break;
	case 2:
		if (rename(a, b) && errno != ENOENT && errno != EISDIR &&
		    errno != ENOTDIR && errno != ENOTEMPTY && errno != EEXIST)
			die("rename %s %s", a, b);
		break;
	case 3:
		if (link(a, b) && errno != ENOENT && errno != EEXIST &&
		    errno != EPERM)
			die("link %s %s", a, b);
		break;
	case 4:
		if (mkdir(a, 0755) && errno != EEXIST)
			die("mkdir %s", a);
		break;
	case 5:
		if (rmdir(a) && errno != ENOENT && errno != ENOTDIR &&
		    errno != ENOTEMPTY)
			die("rmdir %s", a);
		break;
	case 6:
		if (stat(a, &st) && errno != ENOENT && errno != ELOOP)
			die("stat %s", a);
		break;
	default:
		if (symlink(strchr(b, '/') + 1, a) && errno != EEXIST)
			die("symlink %s", a);
		if (unlink(a) && errno != ENOENT && errno != EISDIR)
			die("unlink %s", a);
	}
}

static void op_list(void)
{
	struct dirent *de;
	char dir[64];
	DIR *d;

	snprintf(dir, sizeof(dir), any(2) ? "shared" : "own%u", me);
	d = opendir(dir);
	if (!d)
		die("opendir %s", dir);
	for (errno = 0; (de = readdir(d)); errno = 0)
		;
	if (errno)
		die("readdir %s", dir);
	closedir(d);
}

static void one_op(void)
{
	unsigned i = any(FILES);

	switch (any(16)) {
	case 0: case 1: case 2: case 3:
		op_write(i);
		break;
	case 4: case 5: case 6: case 7:
		op_read(i);
		break;
	case 8:
		op_truncate(i);
		break;
	case 9:
		op_unlink(i);
		break;
	case 10: case 11:
		op_rename(i, any(FILES));
		break;
	case 12:
		op_list();
		break;
	default:
		op_shared();
	}
}

static time_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec;
}

static void client(unsigned nr, time_t end, uint64_t seed)
{
	char dir[64];

	me = nr;
	rng = (seed + nr + 1) * 0x9e3779b97f4a7c15ull;
	snprintf(dir, sizeof(dir), "own%u", nr);
	if (mkdir(dir, 0755))
		die("mkdir %s", dir);
	for (unsigned i = 0; i < FILES; i++) {
		files[i].bytes = calloc(1, FILE_MAX);
		if (!files[i].bytes)
			die("memory");
	}
	while (now() < end)
		one_op();
	for (unsigned i = 0; i < FILES; i++)
		op_read(i);
	exit(0);
}

int main(int argc, char **argv)
{
	unsigned processes, failed = 0;
	time_t end;
	uint64_t seed;
	int status;

	if (argc != 5)
		errx(2, "usage: clients DIR PROCESSES SECONDS SEED");
	processes = (unsigned)strtoul(argv[2], NULL, 0);
	seed = strtoull(argv[4], NULL, 0);
	end = now() + strtol(argv[3], NULL, 0);
	if (chdir(argv[1]) || (mkdir("shared", 0755) && errno != EEXIST))
		err(1, "%s", argv[1]);
	for (unsigned i = 0; i < processes; i++) {
		pid_t pid = fork();

		if (pid < 0)
			err(1, "fork");
		if (!pid)
			client(i, end, seed);
	}
	while (wait(&status) > 0)
		failed += status != 0;
	if (failed)
		errx(1, "%u of %u clients failed, seed %ju", failed, processes,
		     (uintmax_t)seed);
	return 0;
}
