/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/mount/fsop.c - system calls that no shell tool makes, one a command
 *
 * Each command checks what it is about, prints what a golden file can hold,
 * and exits 1 with the reason when something is not as it should be. Names
 * of errors are printed as the C library's macros (ENOSPC), so that they can
 * be told apart in golden files.
 */
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static int report(const char *what, int result)
{
	if (result >= 0) {
		printf("%s: ok\n", what);
		return 0;
	}
	printf("%s: %s\n", what, strerrorname_np(errno));
	return 0;
}

static long long number(const char *s)
{
	char *end;
	long long n = strtoll(s, &end, 0);

	if (*end || end == s)
		errx(2, "not a number: %s", s);
	return n;
}

static int open_or_die(const char *path, int flags)
{
	int fd = open(path, flags, 0644);

	if (fd < 0)
		err(1, "%s", path);
	return fd;
}

/* ---- names ---- */

static int cmd_rename(char **a)
{
	unsigned flags = 0;

	if (!strcmp(a[0], "exchange"))
		flags = RENAME_EXCHANGE;
	else if (!strcmp(a[0], "noreplace"))
		flags = RENAME_NOREPLACE;
	else if (!strcmp(a[0], "whiteout"))
		flags = RENAME_WHITEOUT;
	return report(a[0], renameat2(AT_FDCWD, a[1], AT_FDCWD, a[2], flags));
}

static int cmd_link(char **a)
{
	return report("link", link(a[0], a[1]));
}

static int cmd_unlink(char **a)
{
	return report("unlink", unlink(a[0]));
}

static int cmd_rmdir(char **a)
{
	return report("rmdir", rmdir(a[0]));
}

static int cmd_mkdir(char **a)
{
	return report("mkdir", mkdir(a[0], 0755));
}

static int cmd_create(char **a)
{
	int fd = open(a[0], O_CREAT | O_EXCL | O_WRONLY, 0644);

	report("create", fd);
	if (fd >= 0)
		close(fd);
	return 0;
}

static int cmd_open(char **a)
{
	int flags = 0, fd;

	if (strchr(a[0], 'w'))
		flags = O_WRONLY;
	if (strchr(a[0], 'a'))
		flags |= O_APPEND;
	if (strchr(a[0], 't'))
		flags |= O_TRUNC;
	fd = open(a[1], flags);
	report("open", fd);
	if (fd >= 0)
		close(fd);
	return 0;
}

static int cmd_chmod(char **a)
{
	return report("chmod", chmod(a[1], (mode_t)strtoul(a[0], NULL, 8)));
}

static int cmd_symlink(char **a)
{
	return report("symlink", symlink(a[0], a[1]));
}

static int cmd_mksock(char **a)
{
	if (mknod(a[0], S_IFSOCK | 0755, 0))
		err(1, "%s", a[0]);
	return 0;
}

/* links FILE N: FILE.0 .. as names of FILE until N or the first error. */
static int cmd_links(char **a)
{
	long long n = number(a[1]), i;
	char name[4096];

	for (i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "%s.%lld", a[0], i);
		if (link(a[0], name)) {
			printf("link %lld: %s\n", i + 1, strerrorname_np(errno));
			return 0;
		}
	}
	printf("%lld links\n", i);
	return 0;
}

/* ---- data ---- */

static int cmd_seek(char **a)
{
	int fd = open_or_die(a[2], O_RDONLY);
	off_t at = lseek(fd, number(a[1]),
			 !strcmp(a[0], "data") ? SEEK_DATA : SEEK_HOLE);

	if (at < 0)
		printf("%s from %s: %s\n", a[0], a[1], strerrorname_np(errno));
	else
		printf("%s from %s: %jd\n", a[0], a[1], (intmax_t)at);
	close(fd);
	return 0;
}

static int cmd_fallocate(char **a)
{
	int fd = open_or_die(a[3], O_RDWR);
	int mode = 0;

	if (strchr(a[0], 'k'))
		mode |= FALLOC_FL_KEEP_SIZE;
	if (strchr(a[0], 'p'))
		mode |= FALLOC_FL_PUNCH_HOLE;
	if (strchr(a[0], 'z'))
		mode |= FALLOC_FL_ZERO_RANGE;
	if (strchr(a[0], 'c'))
		mode |= FALLOC_FL_COLLAPSE_RANGE;
	report("fallocate", fallocate(fd, mode, number(a[1]), number(a[2])));
	close(fd);
	return 0;
}

/* copy-range FROM OFFSET TO OFFSET LENGTH: until there is no more, or an error */
static int cmd_copy_range(char **a)
{
	int in = open_or_die(a[0], O_RDONLY), out = open_or_die(a[2], O_RDWR | O_CREAT);
	loff_t from = number(a[1]), to = number(a[3]), begin = to;
	size_t left = (size_t)number(a[4]);
	ssize_t n = 1;

	while (left && n > 0) {
		n = copy_file_range(in, &from, out, &to, left, 0);
		if (n > 0)
			left -= (size_t)n;
	}
	if (n < 0)
		printf("copied %jd: %s\n", (intmax_t)(to - begin), strerrorname_np(errno));
	else
		printf("copied %jd\n", (intmax_t)(to - begin));
	close(in);
	close(out);
	return 0;
}

/* truncate SIZE FILE */
static int cmd_truncate(char **a)
{
	return report("truncate", truncate(a[1], number(a[0])));
}

/* write OFFSET LENGTH BYTE FILE: one pwrite() */
static int cmd_write(char **a)
{
	size_t len = (size_t)number(a[1]);
	char *buf = malloc(len + 1);
	int fd = open_or_die(a[3], O_WRONLY);
	ssize_t n;

	if (!buf)
		err(1, "memory");
	memset(buf, a[2][0], len);
	n = pwrite(fd, buf, len, number(a[0]));
	if (n < 0)
		printf("write: %s\n", strerrorname_np(errno));
	else
		printf("write: %zd\n", n);
	free(buf);
	return close(fd) ? report("close", -1) : 0;
}

/* fill FILE BYTES: writes of 64 KiB until an error or BYTES; prints which. */
static int cmd_fill(char **a)
{
	static char buf[65536];
	long long limit = number(a[1]), done = 0;
	int fd = open_or_die(a[0], O_WRONLY | O_CREAT | O_TRUNC);
	ssize_t n = 0;

	memset(buf, 'f', sizeof(buf));
	while (done < limit) {
		n = write(fd, buf, sizeof(buf));
		if (n < 0)
			break;
		done += n;
	}
	fprintf(stderr, "%lld\n", done);
	if (n < 0)
		printf("fill: %s\n", strerrorname_np(errno));
	else
		printf("fill: enough\n");
	return close(fd) ? report("close", -1) : 0;
}

/* mmap-write OFFSET LENGTH BYTE FILE: through a shared mapping, then msync */
static int cmd_mmap_write(char **a)
{
	off_t off = number(a[0]);
	size_t len = (size_t)number(a[1]), lead = (size_t)(off % 4096);
	int fd = open_or_die(a[3], O_RDWR);
	char *p = mmap(NULL, len + lead, PROT_READ | PROT_WRITE, MAP_SHARED,
		       fd, off - (off_t)lead);

	if (p == MAP_FAILED)
		err(1, "mmap");
	memset(p + lead, a[2][0], len);
	if (msync(p, len + lead, MS_SYNC))
		err(1, "msync");
	munmap(p, len + lead);
	return close(fd);
}

/* mmap-check OFFSET LENGTH BYTE FILE: all bytes seen by a mapping are BYTE */
static int cmd_mmap_check(char **a)
{
	off_t off = number(a[0]);
	size_t len = (size_t)number(a[1]), lead = (size_t)(off % 4096);
	int fd = open_or_die(a[3], O_RDONLY);
	char want = a[2][0] == '0' ? '\0' : a[2][0];
	char *p = mmap(NULL, len + lead, PROT_READ, MAP_SHARED, fd,
		       off - (off_t)lead);

	if (p == MAP_FAILED)
		err(1, "mmap");
	for (size_t i = 0; i < len; i++)
		if (p[lead + i] != want)
			errx(1, "mapped byte %jd is 0x%02x, not 0x%02x",
			     (intmax_t)off + (intmax_t)i,
			     (unsigned char)p[lead + i], (unsigned char)want);
	munmap(p, len + lead);
	printf("mapped: ok\n");
	return close(fd);
}

/* What block nr of a scattered file holds: nothing repeats within it. */
static void pattern(uint64_t *buf, size_t size, uint64_t nr)
{
	uint64_t x = nr * 0x9e3779b97f4a7c15ull + 1;

	for (size_t i = 0; i < size / sizeof(*buf); i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		buf[i] = x;
	}
}

/*
 * scatter write|check FILE SIZE BLOCK COUNT: COUNT blocks of BLOCK bytes at
 * places spread over SIZE by a fixed permutation, each with its own bytes; check
 * also looks at the hole before each.
 */
static int cmd_scatter(char **a)
{
	bool check = !strcmp(a[0], "check");
	uint64_t size = (uint64_t)number(a[2]), block = (uint64_t)number(a[3]);
	uint64_t count = (uint64_t)number(a[4]), stride = size / count;
	uint64_t *want = calloc(1, block), *got = calloc(1, block);
	int fd = open_or_die(a[1], check ? O_RDONLY : O_WRONLY | O_CREAT);

	if (!want || !got || stride < 2 * block)
		errx(2, "scatter: bad sizes");
	stride -= stride % block;
	for (uint64_t i = 0; i < count; i++) {
		/* 7919 is prime: a permutation unless it divides count. */
		uint64_t nr = i * 7919 % count, at = nr * stride + block;

		pattern(want, block, nr);
		if (!check) {
			if (pwrite(fd, want, block, (off_t)at) != (ssize_t)block)
				err(1, "write at %ju", (uintmax_t)at);
			continue;
		}
		if (pread(fd, got, block, (off_t)at) != (ssize_t)block)
			err(1, "read at %ju", (uintmax_t)at);
		if (memcmp(want, got, block))
			errx(1, "other bytes at %ju", (uintmax_t)at);
		memset(want, 0, block);
		if (pread(fd, got, block, (off_t)(at - block)) != (ssize_t)block)
			err(1, "read at %ju", (uintmax_t)(at - block));
		if (memcmp(want, got, block))
			errx(1, "no hole at %ju", (uintmax_t)(at - block));
	}
	free(want);
	free(got);
	return close(fd);
}

/* fsync FILE|DIR */
static int cmd_fsync(char **a)
{
	int fd = open_or_die(a[0], O_RDONLY), r = fsync(fd);

	report("fsync", r);
	return close(fd);
}

/* append-pair FILE: two descriptors with O_APPEND, writing in turn */
static int cmd_append_pair(char **a)
{
	int one = open_or_die(a[0], O_WRONLY | O_APPEND | O_CREAT);
	int two = open_or_die(a[0], O_WRONLY | O_APPEND);

	for (int i = 0; i < 1000; i++) {
		char line[16];
		int n = snprintf(line, sizeof(line), "%04d\n", i);

		if (write(i & 1 ? one : two, line, (size_t)n) != n)
			err(1, "write");
	}
	close(one);
	return close(two);
}

/* ---- directories ---- */

static void entry_name(char *buf, size_t size, const char *dir, uint64_t i)
{
	snprintf(buf, size, "%s/entry-%08ju-%x", dir, (uintmax_t)i,
		 (unsigned)(i * 2654435761u));
}

/* dir-create DIR FROM TO */
static int cmd_dir_create(char **a)
{
	char name[4096];

	for (long long i = number(a[1]); i < number(a[2]); i++) {
		entry_name(name, sizeof(name), a[0], (uint64_t)i);
		if (mknod(name, S_IFREG | 0644, 0))
			err(1, "%s", name);
	}
	return 0;
}

/* dir-lookup DIR N TIMES: random ones that exist, and as many that don't */
static int cmd_dir_lookup(char **a)
{
	uint64_t n = (uint64_t)number(a[1]), x = 88172645463325252ull;
	char name[4096];
	struct stat st;

	for (long long i = 0; i < number(a[2]); i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		entry_name(name, sizeof(name), a[0], x % n);
		if (lstat(name, &st))
			err(1, "%s", name);
		entry_name(name, sizeof(name), a[0], n + x % n);
		if (!lstat(name, &st))
			errx(1, "%s exists", name);
		if (errno != ENOENT)
			err(1, "%s", name);
	}
	return 0;
}

/* mknod(2) of FILES names in each of DIRS directories: 0 or the errno it must give. */
static int crowd(char **a, int expected)
{
	char name[4096];

	for (long long d = 0; d < number(a[1]); d++) {
		int fd;

		snprintf(name, sizeof(name), "%s/d%lld", a[0], d);
		if (!expected && mkdir(name, 0755))
			err(1, "%s", name);
		fd = open_or_die(name, O_RDONLY | O_DIRECTORY);
		for (long long f = 0; f < number(a[2]); f++) {
			snprintf(name, sizeof(name), "f%lld", f);
			if ((mknodat(fd, name, S_IFREG | 0644, 0) ? errno : 0) != expected)
				err(1, "d%lld/%s", d, name);
		}
		close(fd);
	}
	return 0;
}

/* crowd-create DIR DIRS FILES: DIRS directories with FILES empty files each */
static int cmd_crowd_create(char **a)
{
	return crowd(a, 0);
}

/*
 * crowd-lookup DIR DIRS FILES: one LOOKUP of each file, cached or not. For a name
 * that must not exist the kernel's FUSE asks again, and counts what it is told.
 */
static int cmd_crowd_lookup(char **a)
{
	return crowd(a, EEXIST);
}

/* dir-count DIR: entries by readdir, each once */
static int cmd_dir_count(char **a)
{
	uint64_t count = 0, sum = 0, xor = 0;
	struct dirent *de;
	DIR *d = opendir(a[0]);

	if (!d)
		err(1, "%s", a[0]);
	for (errno = 0; (de = readdir(d)); errno = 0) {
		unsigned long long nr;

		if (sscanf(de->d_name, "entry-%llu-", &nr) != 1)
			continue;
		count++;
		sum += nr;
		xor ^= nr;
	}
	if (errno)
		err(1, "readdir");
	closedir(d);
	printf("%ju entries, sum %ju, xor %ju\n", (uintmax_t)count,
	       (uintmax_t)sum, (uintmax_t)xor);
	return 0;
}

/* dir-unlink DIR FROM TO STEP */
static int cmd_dir_unlink(char **a)
{
	char name[4096];

	for (long long i = number(a[1]); i < number(a[2]); i += number(a[3])) {
		entry_name(name, sizeof(name), a[0], (uint64_t)i);
		if (unlink(name))
			err(1, "%s", name);
	}
	return 0;
}

/*
 * dir-sweep DIR: unlinks each entry as readdir gives it, in one pass, and
 * with a few new names made and removed on the way. No name may come twice,
 * none may be missed.
 */
static int cmd_dir_sweep(char **a)
{
	uint64_t count = 0;
	struct dirent *de;
	char extra[4096];
	DIR *d = opendir(a[0]);

	if (!d)
		err(1, "%s", a[0]);
	for (errno = 0; (de = readdir(d)); errno = 0) {
		if (strncmp(de->d_name, "entry-", 6) != 0)
			continue;
		if (unlinkat(dirfd(d), de->d_name, 0))
			err(1, "%s (seen twice?)", de->d_name);
		if (++count % 100)
			continue;
		snprintf(extra, sizeof(extra), "%s/new-%ju", a[0],
			 (uintmax_t)count);
		if (mknod(extra, S_IFREG | 0600, 0) || unlink(extra))
			err(1, "%s", extra);
	}
	if (errno)
		err(1, "readdir");
	closedir(d);
	printf("%ju removed\n", (uintmax_t)count);
	return 0;
}

/*
 * dir-steady DIR N: entries 0..N stand all the time and must each come exactly
 * once, while other names come and go between two calls of getdents.
 */
static int cmd_dir_steady(char **a)
{
	uint64_t n = (uint64_t)number(a[1]), turns = 0;
	unsigned char *seen = calloc(n, 1);
	int fd = open_or_die(a[0], O_RDONLY | O_DIRECTORY);
	char buf[4096], name[4096];
	long got;

	if (!seen)
		err(1, "memory");
	while ((got = syscall(SYS_getdents64, fd, buf, sizeof(buf))) > 0) {
		for (long at = 0; at < got;) {
			struct dirent64 *de = (void *)(buf + at);
			unsigned long long nr;

			if (sscanf(de->d_name, "entry-%llu-", &nr) == 1 &&
			    nr < n && seen[nr]++)
				errx(1, "%s came twice", de->d_name);
			at += de->d_reclen;
		}
		/* Blocks split and empty under the reader. */
		for (uint64_t i = 0; i < 20; i++) {
			entry_name(name, sizeof(name), a[0],
				   n + turns * 20 + i);
			if (mknod(name, S_IFREG | 0600, 0))
				err(1, "%s", name);
			if (i % 2 && unlink(name))
				err(1, "%s", name);
		}
		turns++;
	}
	if (got < 0)
		err(1, "getdents");
	for (uint64_t i = 0; i < n; i++)
		if (!seen[i])
			errx(1, "entry %ju was missed", (uintmax_t)i);
	printf("each once\n");
	free(seen);
	return close(fd);
}

/* mkdirs DIR N */
static int cmd_mkdirs(char **a)
{
	char name[4096];

	for (long long i = 0; i < number(a[1]); i++) {
		snprintf(name, sizeof(name), "%s/d%lld", a[0], i);
		if (mkdir(name, 0755))
			err(1, "%s", name);
	}
	return 0;
}

/* small-files DIR: files of 10 bytes until an error; prints it */
static int cmd_small_files(char **a)
{
	char name[4096];
	long long i;

	for (i = 0;; i++) {
		int fd;
		ssize_t n;

		snprintf(name, sizeof(name), "%s/f%lld", a[0], i);
		fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0644);
		n = fd < 0 ? -1 : write(fd, "0123456789", 10);
		if (fd >= 0 && close(fd))
			n = -1;
		if (n < 0)
			break;
	}
	fprintf(stderr, "%lld\n", i);
	printf("small files: %s\n", strerrorname_np(errno));
	return 0;
}

/* small-dirs DIR: directories until an error; prints it */
static int cmd_small_dirs(char **a)
{
	char name[4096];
	long long i;

	for (i = 0;; i++) {
		snprintf(name, sizeof(name), "%s/d%lld", a[0], i);
		if (mkdir(name, 0755))
			break;
	}
	fprintf(stderr, "%lld\n", i);
	printf("small directories: %s\n", strerrorname_np(errno));
	return 0;
}

/* ---- processes ---- */

/* ---- locks ---- */

static int try_lock(const char *path, short type, off_t from, off_t len)
{
	struct flock fl = {
		.l_type = type, .l_whence = SEEK_SET, .l_start = from, .l_len = len,
	};
	int fd = open_or_die(path, O_RDWR);

	return fcntl(fd, F_SETLK, &fl);
}

static void try_in_child(const char *what, const char *path, short type, off_t from,
			 off_t len)
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid < 0)
		err(1, "fork");
	if (!pid) {
		report(what, try_lock(path, type, from, len));
		exit(0);
	}
	if (waitpid(pid, &status, 0) < 0 || status)
		errx(1, "the child failed");
}

/* PATH: a range that this process has locked, and others, seen by another one. */
static int cmd_posix_lock(char **args)
{
	report("write lock on 100-199", try_lock(args[0], F_WRLCK, 100, 100));
	try_in_child("another process, 0-99", args[0], F_WRLCK, 0, 100);
	try_in_child("another process, 150-249", args[0], F_WRLCK, 150, 100);
	try_in_child("another process, read 199", args[0], F_RDLCK, 199, 1);
	report("unlock", try_lock(args[0], F_UNLCK, 0, 0));
	try_in_child("another process, all", args[0], F_WRLCK, 0, 0);
	return 0;
}

/* ---- file handles, as NFS servers have them ---- */

union any_handle {
	struct file_handle h;
	char bytes[sizeof(struct file_handle) + MAX_HANDLE_SZ];
};

/* PATH FILE: the handle of PATH goes into FILE. */
static int cmd_handle_save(char **args)
{
	union any_handle any = { .h.handle_bytes = MAX_HANDLE_SZ };
	int mount_id, fd;

	if (name_to_handle_at(AT_FDCWD, args[0], &any.h, &mount_id, 0))
		err(1, "name_to_handle_at %s", args[0]);
	fd = open_or_die(args[1], O_WRONLY | O_CREAT | O_TRUNC);
	if (write(fd, &any, sizeof(any)) != sizeof(any))
		err(1, "%s", args[1]);
	close(fd);
	return 0;
}

/* MOUNT FILE: opens what the handle names; its number, links and first line. */
static int cmd_handle_open(char **args)
{
	int mnt = open_or_die(args[0], O_RDONLY | O_DIRECTORY);
	int from = open_or_die(args[1], O_RDONLY), fd;
	union any_handle any;
	char text[64] = "";
	struct stat st;

	if (read(from, &any, sizeof(any)) != sizeof(any))
		err(1, "%s", args[1]);
	fd = open_by_handle_at(mnt, &any.h, O_RDONLY);
	if (fd < 0)
		return report("open", fd);
	if (fstat(fd, &st))
		err(1, "fstat");
	if (S_ISREG(st.st_mode) && read(fd, text, sizeof(text) - 1) < 0)
		err(1, "read");
	text[strcspn(text, "\n")] = '\0';
	if (S_ISDIR(st.st_mode))
		printf("open: directory\n");
	else
		printf("open: file, links %u, %s\n", (unsigned)st.st_nlink, text);
	close(fd);
	close(from);
	close(mnt);
	return 0;
}

/* wait-exit PID SECONDS: a process that is not our child */
static int cmd_wait_exit(char **a)
{
	int fd = (int)syscall(SYS_pidfd_open, (pid_t)number(a[0]), 0);
	struct pollfd p = { .fd = fd, .events = POLLIN };

	if (fd < 0) {
		if (errno == ESRCH)
			return 0;
		err(1, "pidfd_open");
	}
	return poll(&p, 1, (int)number(a[1]) * 1000) == 1 ? 0 : 1;
}

/* syslog SOCKET FILE: takes messages for ever; readable when it returns to
 * the shell, because it forks after bind(). */
static int cmd_syslog(char **a)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	FILE *out = fopen(a[1], "a");
	static char buf[65536];
	ssize_t n;
	pid_t pid;

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", a[0]);
	if (fd < 0 || !out || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) ||
	    chmod(a[0], 0666))
		err(1, "%s", a[0]);
	pid = fork();
	if (pid < 0)
		err(1, "fork");
	if (pid) {
		printf("%d\n", (int)pid);
		return 0;
	}
	close(0);
	close(1);
	close(2);
	while ((n = recv(fd, buf, sizeof(buf) - 1, 0)) >= 0) {
		buf[n] = '\0';
		fprintf(out, "%s\n", buf);
		fflush(out);
	}
	return 1;
}

/* ---- idmapped mounts ---- */

static void write_map(pid_t pid, const char *which, const char *text)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, which);
	fd = open_or_die(path, O_WRONLY);
	if (write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		err(1, "%s", path);
	close(fd);
}

/* A user namespace in which the ids from ON_DISK are those from SHOWN outside. */
static int user_namespace(const char *on_disk, const char *shown, const char *count)
{
	int ready[2], done[2], fd;
	char text[64], path[64];
	pid_t pid;

	if (pipe(ready) || pipe(done))
		err(1, "pipe");
	pid = fork();
	if (pid < 0)
		err(1, "fork");
	if (!pid) {
		char c = unshare(CLONE_NEWUSER) ? 'n' : 'y';

		close(done[1]);
		if (write(ready[1], &c, 1) != 1 || read(done[0], &c, 1) < 0)
			_exit(1);
		_exit(0);
	}
	if (read(ready[0], text, 1) != 1 || *text != 'y')
		errx(1, "no user namespace");
	snprintf(text, sizeof(text), "%s %s %s", on_disk, shown, count);
	write_map(pid, "uid_map", text);
	write_map(pid, "gid_map", text);
	snprintf(path, sizeof(path), "/proc/%d/ns/user", (int)pid);
	fd = open_or_die(path, O_RDONLY);
	close(done[0]);
	close(done[1]);
	if (waitpid(pid, NULL, 0) != pid)
		err(1, "waitpid");
	return fd;
}

/* DIR WHERE ON_DISK SHOWN COUNT: DIR is mounted at WHERE, too, with other owners */
static int cmd_idmap(char **a)
{
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_IDMAP };
	int fd = open_tree(AT_FDCWD, a[0], OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

	if (fd < 0)
		err(1, "%s", a[0]);
	attr.userns_fd = (uint64_t)user_namespace(a[2], a[3], a[4]);
	if (mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)))
		return report("idmap", -1);
	if (move_mount(fd, "", AT_FDCWD, a[1], MOVE_MOUNT_F_EMPTY_PATH))
		err(1, "%s", a[1]);
	return report("idmap", 0);
}

static const struct {
	const char *name;
	int args;
	int (*run)(char **a);
} commands[] = {
	{ "rename", 3, cmd_rename },
	{ "link", 2, cmd_link },
	{ "unlink", 1, cmd_unlink },
	{ "rmdir", 1, cmd_rmdir },
	{ "mkdir", 1, cmd_mkdir },
	{ "create", 1, cmd_create },
	{ "open", 2, cmd_open },
	{ "chmod", 2, cmd_chmod },
	{ "symlink", 2, cmd_symlink },
	{ "mksock", 1, cmd_mksock },
	{ "links", 2, cmd_links },
	{ "seek", 3, cmd_seek },
	{ "fallocate", 4, cmd_fallocate },
	{ "copy-range", 5, cmd_copy_range },
	{ "truncate", 2, cmd_truncate },
	{ "write", 4, cmd_write },
	{ "fill", 2, cmd_fill },
	{ "mmap-write", 4, cmd_mmap_write },
	{ "mmap-check", 4, cmd_mmap_check },
	{ "scatter", 5, cmd_scatter },
	{ "fsync", 1, cmd_fsync },
	{ "append-pair", 1, cmd_append_pair },
	{ "crowd-create", 3, cmd_crowd_create },
	{ "crowd-lookup", 3, cmd_crowd_lookup },
	{ "dir-create", 3, cmd_dir_create },
	{ "dir-lookup", 3, cmd_dir_lookup },
	{ "dir-count", 1, cmd_dir_count },
	{ "dir-unlink", 4, cmd_dir_unlink },
	{ "dir-sweep", 1, cmd_dir_sweep },
	{ "dir-steady", 2, cmd_dir_steady },
	{ "mkdirs", 2, cmd_mkdirs },
	{ "small-files", 1, cmd_small_files },
	{ "small-dirs", 1, cmd_small_dirs },
	{ "wait-exit", 2, cmd_wait_exit },
	{ "handle-save", 2, cmd_handle_save },
	{ "handle-open", 2, cmd_handle_open },
	{ "posix-lock", 1, cmd_posix_lock },
	{ "syslog", 2, cmd_syslog },
	{ "idmap", 5, cmd_idmap },
};

int main(int argc, char **argv)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
		if (argc > 1 && !strcmp(argv[1], commands[i].name)) {
			if (argc - 2 != commands[i].args)
				errx(2, "%s takes %d arguments", argv[1],
				     commands[i].args);
			return commands[i].run(argv + 2) ? 1 : 0;
		}
	errx(2, "unknown command: %s", argc > 1 ? argv[1] : "none");
}
