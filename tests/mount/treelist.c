/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/mount/treelist.c - a tree as text: a line for each name, sorted
 *
 * Two trees are equal when their lists are. A line has type, mode, owner,
 * links, size (not of directories), mtime, device number or target of a
 * link, a hash of the bytes, and the path. Holes and zeros hash alike, and
 * large files are read only where they have data.
 *
 *   treelist [-m] [-x] DIR
 *     -m  count the links of a directory by its subdirectories, for trees
 *         on file systems that have their own idea of them
 *     -x  what only two mounts of one volume have in common: inode number,
 *         ctime, atime, blocks, size of directories
 *
 * Exits 1 if anything could not be read, or if a directory's link count is
 * not that of its subdirectories.
 */
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define CHUNK 1024u
#define BUFFER (256u * 1024)
/* Above this size holes are not read. */
#define SPARSE_FROM (64LL << 20)

static bool model, extended;
static int problems;

static void __attribute__((format(printf, 2, 3)))
problem(const char *path, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fprintf(stderr, "treelist: %s: ", path);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	problems++;
}

/* FNV-1a, 64 bits. */
static uint64_t mix(uint64_t h, const void *data, size_t n)
{
	const unsigned char *p = data;

	for (size_t i = 0; i < n; i++)
		h = (h ^ p[i]) * 0x100000001b3ull;
	return h;
}

static bool all_zero(const unsigned char *p, size_t n)
{
	return !n || (!p[0] && !memcmp(p, p + 1, n - 1));
}

/* Hashes [pos, end); both multiples of CHUNK but for the end of the file. */
static int hash_range(int fd, off_t pos, off_t end, uint64_t *h)
{
	static unsigned char buf[BUFFER];

	while (pos < end) {
		size_t want = end - pos < (off_t)BUFFER ? (size_t)(end - pos) :
							  BUFFER;
		ssize_t got = pread(fd, buf, want, pos);

		if (got < 0)
			return -errno;
		if ((size_t)got != want)
			return -ENODATA; /* shorter than it says */
		for (size_t at = 0; at < want; at += CHUNK) {
			size_t n = want - at < CHUNK ? want - at : CHUNK;
			uint64_t where = (uint64_t)pos + at;

			if (all_zero(buf + at, n))
				continue;
			*h = mix(*h, &where, sizeof(where));
			*h = mix(*h, buf + at, n);
		}
		pos += want;
	}
	return 0;
}

static int hash_file(int fd, off_t size, uint64_t *h)
{
	off_t data, hole = 0;
	int err;

	*h = 0xcbf29ce484222325ull;
	if (size < SPARSE_FROM)
		return hash_range(fd, 0, size, h);
	for (;;) {
		data = lseek(fd, hole, SEEK_DATA);
		if (data < 0)
			return errno == ENXIO ? 0 : -errno;
		data -= data % CHUNK;
		hole = lseek(fd, data, SEEK_HOLE);
		if (hole < 0)
			return -errno;
		if (hole % CHUNK && hole < size)
			hole += CHUNK - hole % CHUNK;
		if (hole > size)
			hole = size;
		err = hash_range(fd, data, hole, h);
		if (err || hole >= size)
			return err;
	}
}

static void print_escaped(const char *s)
{
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c <= ' ' || c == '\\' || c >= 0x7f)
			printf("\\%03o", c);
		else
			putchar(c);
	}
}

static void print_time(const struct timespec *ts)
{
	printf(" %jd.%09ld", (intmax_t)ts->tv_sec, ts->tv_nsec);
}

static char type_letter(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return '-';
	case S_IFDIR:
		return 'd';
	case S_IFLNK:
		return 'l';
	case S_IFCHR:
		return 'c';
	case S_IFBLK:
		return 'b';
	case S_IFIFO:
		return 'p';
	case S_IFSOCK:
		return 's';
	default:
		return '?';
	}
}

/* What the inode holds: hash, target or device number. */
static void print_content(int dirfd, const char *name, const char *path,
			  const struct stat *st)
{
	char target[PATH_MAX];
	uint64_t h = 0;
	ssize_t n;
	int fd, err;

	if (S_ISREG(st->st_mode)) {
		fd = openat(dirfd, name, O_RDONLY | O_NOATIME | O_NOFOLLOW);
		err = fd < 0 ? -errno : hash_file(fd, st->st_size, &h);
		if (fd >= 0)
			close(fd);
		if (err)
			problem(path, "%s", strerror(-err));
		printf(" %016" PRIx64, h);
	} else if (S_ISLNK(st->st_mode)) {
		n = readlinkat(dirfd, name, target, sizeof(target) - 1);
		if (n < 0) {
			problem(path, "readlink: %s", strerror(errno));
			n = 0;
		}
		target[n] = '\0';
		if (n != st->st_size)
			problem(path, "target of %zd bytes, size %jd", n,
				(intmax_t)st->st_size);
		putchar(' ');
		print_escaped(target);
	} else if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode)) {
		printf(" %u:%u", major(st->st_rdev), minor(st->st_rdev));
	} else {
		printf(" -");
	}
}

static void print_line(int dirfd, const char *name, const char *path,
		       const struct stat *st, unsigned subdirs)
{
	bool dir = S_ISDIR(st->st_mode);
	nlink_t links = st->st_nlink;

	/* 1 is ext4's "too many to count". */
	if (dir && !model && links != 1 && links != subdirs + 2)
		problem(path, "%ju links, %u subdirectories", (uintmax_t)links,
			subdirs);
	if (dir && model)
		links = subdirs + 2;
	printf("%c %04o %u:%u %ju", type_letter(st->st_mode),
	       (unsigned)(st->st_mode & 07777), st->st_uid, st->st_gid,
	       (uintmax_t)links);
	if (dir && !extended)
		printf(" -");
	else
		printf(" %jd", (intmax_t)st->st_size);
	print_time(&st->st_mtim);
	if (extended) {
		printf(" %ju %jd", (uintmax_t)st->st_ino,
		       (intmax_t)st->st_blocks);
		print_time(&st->st_ctim);
		print_time(&st->st_atim);
	}
	print_content(dirfd, name, path, st);
	putchar(' ');
	print_escaped(path);
	putchar('\n');
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* All names of a directory but "." and ".."; NULL after a problem. */
static char **read_names(DIR *d, const char *path, size_t *count)
{
	size_t room = 64;
	char **names = malloc(room * sizeof(*names));
	struct dirent *de;

	*count = 0;
	for (errno = 0; names && (de = readdir(d)); errno = 0) {
		if (!strcmp(de->d_name, ".") || !strcmp(de->d_name, ".."))
			continue;
		if (*count == room) {
			room *= 2;
			names = reallocarray(names, room, sizeof(*names));
			if (!names)
				break;
		}
		names[(*count)++] = strdup(de->d_name);
	}
	if (!names)
		err(1, "memory");
	if (errno)
		problem(path, "readdir: %s", strerror(errno));
	qsort(names, *count, sizeof(*names), by_name);
	return names;
}

static void list_dir(int parent, const char *name, const char *path);

/* Returns whether it is a directory. */
static bool list_one(int dirfd, const char *name, const char *path)
{
	struct stat st;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW)) {
		problem(path, "stat: %s", strerror(errno));
		return false;
	}
	if (S_ISDIR(st.st_mode)) {
		list_dir(dirfd, name, path);
		return true;
	}
	print_line(dirfd, name, path, &st, 0);
	return false;
}

static void list_dir(int parent, const char *name, const char *path)
{
	int fd = openat(parent, name,
			O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NOATIME);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	unsigned subdirs = 0;
	struct stat st;
	size_t count;
	char **names;

	if (!d || fstat(fd, &st)) {
		problem(path, "opendir: %s", strerror(errno));
		if (d)
			closedir(d);
		else if (fd >= 0)
			close(fd);
		return;
	}
	names = read_names(d, path, &count);
	for (size_t i = 0; i < count; i++) {
		char *child;

		if (i && !strcmp(names[i], names[i - 1]))
			problem(path, "listed twice: %s", names[i]);
		if (asprintf(&child, "%s/%s", path, names[i]) < 0)
			err(1, "memory");
		subdirs += list_one(fd, names[i], child);
		free(child);
	}
	for (size_t i = 0; i < count; i++)
		free(names[i]);
	free(names);
	print_line(parent, name, path, &st, subdirs);
	closedir(d);
}

int main(int argc, char **argv)
{
	int c, root;

	while ((c = getopt(argc, argv, "mx")) != -1) {
		if (c == 'm')
			model = true;
		else if (c == 'x')
			extended = true;
		else
			return 2;
	}
	if (argc - optind != 1)
		errx(2, "usage: treelist [-m] [-x] DIR");
	root = open(argv[optind], O_RDONLY | O_DIRECTORY);
	if (root < 0)
		err(1, "%s", argv[optind]);
	list_dir(root, ".", ".");
	close(root);
	return problems != 0;
}
