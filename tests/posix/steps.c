/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/posix/steps.c - the words that cases are written in
 *
 * A line of steps is "WORD ARGUMENT... [= RESULT]; ...". Numbers are C's, with B (a block
 * of the file system), K, M, G or T behind, and sums of such: "2B-1". In names, {N}
 * is N letters, and {/N} is N times "./". OWNER is U, V, W, R, or UID:GID. FD is the number
 * of the "open" in the case, from 0. Each word has a line in `words` below, with what it takes.
 *
 * Locks: none; one thread, but "child" makes processes that end before the step does.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "posix.h"

#define MAX_ARGS 8

struct step {
	struct run *r;
	const char *a[MAX_ARGS + 1]; /* after the word; NULL at the end */
	unsigned n;
};

static long block_size;

void steps_init(long bs)
{
	block_size = bs;
}

/* ------------------------------------------------------------- users */

static const struct user {
	char letter;
	uid_t id; /* and group */
	gid_t groups[2];
	int n_groups;
} users[] = {
	{ 'R', 0, { 0 }, 1 },
	{ 'U', 3001, { 0 }, 0 },
	{ 'V', 3002, { 0 }, 0 },
	{ 'W', 3003, { 3001, 4000 }, 2 }, /* is in U's group, too */
};

static const struct user *user_of(char letter)
{
	for (size_t i = 0; i < sizeof(users) / sizeof(users[0]); i++)
		if (users[i].letter == letter)
			return &users[i];
	return NULL;
}

static bool become(const struct user *u)
{
	return !setresuid(0, 0, 0) && !setgroups((size_t)u->n_groups, u->groups) &&
	       !setresgid(u->id, u->id, 0) && !setresuid(u->id, u->id, 0);
}

static void owner_of(const char *s, uid_t *uid, gid_t *gid)
{
	const struct user *u = s[1] ? NULL : user_of(s[0]);
	char *end;

	if (u) {
		*uid = *gid = u->id;
		return;
	}
	*uid = (uid_t)strtol(s, &end, 10);
	*gid = *end == ':' ? (gid_t)strtol(end + 1, NULL, 10) : (gid_t)-1;
}

/* ----------------------------------------------------------- arguments */

static long long number_of(const char *s, bool *ok)
{
	long long sum = 0, sign = 1;

	*ok = *s;
	while (*s) {
		char *end;
		long long n = (long long)strtoull(s, &end, 0);

		if (end == s) {
			*ok = false;
			return 0;
		}
		switch (*end) {
		case 'B':
			n *= block_size;
			end++;
			break;
		case 'K':
			n <<= 10;
			end++;
			break;
		case 'M':
			n <<= 20;
			end++;
			break;
		case 'G':
			n <<= 30;
			end++;
			break;
		case 'T':
			n <<= 40;
			end++;
			break;
		default:
			break;
		}
		sum += sign * n;
		sign = 1;
		if (*end == '+' || *end == '-')
			sign = *end++ == '-' ? -1 : 1;
		else if (*end)
			*ok = false;
		if (!*ok)
			return 0;
		s = end;
	}
	return sum;
}

static long long num(struct step *s, unsigned i)
{
	bool ok = false;
	long long n = 0;

	if (i < s->n) {
		n = s->a[i][0] == '-' ? -number_of(s->a[i] + 1, &ok) :
					number_of(s->a[i], &ok);
	}
	if (!ok)
		failed(s->r, "argument %u is no number", i);
	return n;
}

static long long num_or(struct step *s, unsigned i, long long other)
{
	return i < s->n ? num(s, i) : other;
}

static mode_t octal(struct step *s, unsigned i, mode_t other)
{
	return i < s->n ? (mode_t)strtoul(s->a[i], NULL, 8) : other;
}

/* -1, so that the call says EBADF: none of that number. */
static int fd_of(struct step *s, unsigned i)
{
	unsigned n = i < s->n ? (unsigned)strtoul(s->a[i], NULL, 10) : UINT_MAX;

	return n < s->r->n_fds ? s->r->fds[n] : -1;
}

/* Words joined by "|", by a table. */
struct word_bit {
	const char *word;
	int bits;
};

static int bits_of(struct step *s, unsigned i, const struct word_bit *table)
{
	char copy[128];
	int bits = 0;
	char *save = NULL;

	if (i >= s->n)
		return 0;
	snprintf(copy, sizeof(copy), "%s", s->a[i]);
	for (char *w = strtok_r(copy, "|", &save); w;
	     w = strtok_r(NULL, "|", &save)) {
		const struct word_bit *t = table;

		while (t->word && strcmp(t->word, w))
			t++;
		if (!t->word)
			failed(s->r, "what is \"%s\"?", w);
		bits |= t->bits;
	}
	return bits;
}

static long result(long value)
{
	return value < 0 ? -errno : value;
}

/* ------------------------------------------------- what setups are made of */

/* mode and owner, if they are given; and is watched from now on if this is the setup */
static long made(struct step *s, unsigned mode_at)
{
	uid_t uid;
	gid_t gid;

	if (mode_at + 1 < MAX_ARGS && s->n > mode_at + 1) {
		owner_of(s->a[mode_at + 1], &uid, &gid);
		if (lchown(s->a[0], uid, gid))
			return -errno;
	}
	if (s->n > mode_at && chmod(s->a[0], octal(s, mode_at, 0)))
		return -errno;
	if (s->r->in_setup)
		watch_add(s->r, s->a[0]);
	return 0;
}

static long do_f(struct step *s)
{
	int fd = open(s->a[0], O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);

	if (fd < 0)
		return -errno;
	close(fd);
	return made(s, 1);
}

static long do_d(struct step *s)
{
	return mkdir(s->a[0], 0755) ? -errno : made(s, 1);
}

static long do_l(struct step *s)
{
	if (symlink(s->a[1], s->a[0]))
		return -errno;
	return made(s, MAX_ARGS);
}

static long do_node(struct step *s, mode_t type, dev_t dev)
{
	return mknod(s->a[0], type | 0644, dev) ? -errno : made(s, 1);
}

static long do_p(struct step *s)
{
	return do_node(s, S_IFIFO, 0);
}

static long do_s(struct step *s)
{
	return do_node(s, S_IFSOCK, 0);
}

static long do_c(struct step *s)
{
	return do_node(s, S_IFCHR, makedev(1, 3));
}

static long do_b(struct step *s)
{
	return do_node(s, S_IFBLK, makedev(7, 200));
}

/* NAME SIZE: bytes, each 'x' */
static long do_fill(struct step *s)
{
	long long left = num(s, 1);
	char data[4096];
	int fd = open(s->a[0], O_WRONLY | O_CLOEXEC);
	long ret = 0;

	memset(data, 'x', sizeof(data));
	while (fd >= 0 && left > 0 && ret >= 0) {
		ret = write(fd, data,
			    left < (long long)sizeof(data) ? (size_t)left :
							     sizeof(data));
		left -= ret;
	}
	ret = fd < 0 || ret < 0 ? -errno : 0;
	if (fd >= 0)
		close(fd);
	return ret;
}

static long do_own(struct step *s)
{
	uid_t uid;
	gid_t gid;

	owner_of(s->a[1], &uid, &gid);
	return result(lchown(s->a[0], uid, gid));
}

static long do_old(struct step *s)
{
	watch_make_old(s->r);
	return 0;
}

static long do_tick(struct step *s)
{
	wait_tick();
	return 0;
}

static long change_flag(struct step *s, unsigned flag, bool on)
{
	int fd = open(s->a[0], O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	unsigned flags;
	long ret;

	if (fd < 0)
		return -errno;
	ret = result(ioctl(fd, FS_IOC_GETFLAGS, &flags));
	if (!ret) {
		flags = on ? flags | flag : flags & ~flag;
		ret = result(ioctl(fd, FS_IOC_SETFLAGS, &flags));
	}
	close(fd);
	return ret;
}

static long do_immutable(struct step *s)
{
	return change_flag(s, FS_IMMUTABLE_FL, true);
}

static long do_append(struct step *s)
{
	return change_flag(s, FS_APPEND_FL, true);
}

static long do_noatime(struct step *s)
{
	return change_flag(s, FS_NOATIME_FL, true);
}

static long do_mutable(struct step *s)
{
	return change_flag(s, FS_IMMUTABLE_FL | FS_APPEND_FL, false);
}

/* -------------------------------------------------------------- names */

static long do_creat(struct step *s)
{
	int fd = open(s->a[0], O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC,
		      octal(s, 1, 0644));

	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

static long do_mkdir(struct step *s)
{
	return result(mkdir(s->a[0], octal(s, 1, 0755)));
}

static long do_mknod(struct step *s)
{
	static const struct word_bit types[] = {
		{ "p", S_IFIFO }, { "c", S_IFCHR }, { "b", S_IFBLK }, { "s", S_IFSOCK },
		{ "f", S_IFREG }, { "d", S_IFDIR }, { "l", S_IFLNK }, { "0", 0 },
		{ NULL, 0 },
	};

	return result(mknod(s->a[0],
			    octal(s, 2, 0644) | (mode_t)bits_of(s, 1, types),
			    makedev(1, 3)));
}

static long do_symlink(struct step *s)
{
	const char *target = strcmp(s->a[0], "''") ? s->a[0] : "";

	return result(symlink(target, s->a[1]));
}

static long do_link(struct step *s)
{
	return result(link(s->a[0], s->a[1]));
}

static long do_linkfollow(struct step *s)
{
	return result(linkat(AT_FDCWD, s->a[0], AT_FDCWD, s->a[1],
			     AT_SYMLINK_FOLLOW));
}

/* FD NAME: the name for a file that is open */
static long do_linkfd(struct step *s)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd_of(s, 0));
	return result(linkat(AT_FDCWD, path, AT_FDCWD, s->a[1],
			     AT_SYMLINK_FOLLOW));
}

static long do_unlink(struct step *s)
{
	return result(unlink(s->a[0]));
}

static long do_rmdir(struct step *s)
{
	return result(rmdir(s->a[0]));
}

static long do_rename(struct step *s)
{
	static const struct word_bit flags[] = {
		{ "noreplace", RENAME_NOREPLACE }, { "exchange", RENAME_EXCHANGE },
		{ "whiteout", RENAME_WHITEOUT },   { "unknown", 1 << 20 },
		{ NULL, 0 },
	};

	if (s->n < 3)
		return result(rename(s->a[0], s->a[1]));
	return result(renameat2(AT_FDCWD, s->a[0], AT_FDCWD, s->a[1],
				(unsigned)bits_of(s, 2, flags)));
}

static long do_readlink(struct step *s)
{
	char buf[PATH_MAX];
	size_t size = (size_t)num_or(s, 1, sizeof(buf));

	return result(readlink(s->a[0], buf, size));
}

static long do_stat(struct step *s)
{
	struct stat st;

	return result(stat(s->a[0], &st));
}

static long do_lstat(struct step *s)
{
	struct stat st;

	return result(lstat(s->a[0], &st));
}

static long do_chdir(struct step *s)
{
	return result(chdir(s->a[0]));
}

/* NAME: how many names a listing has */
static long do_list(struct step *s)
{
	DIR *d = opendir(s->a[0]);
	long n = 0;

	if (!d)
		return -errno;
	while ((errno = 0, readdir(d)))
		n++;
	closedir(d);
	return errno ? -errno : n;
}

/* NAME: a program */
static long do_exec(struct step *s)
{
	char *const args[] = { (char *)s->a[0], NULL };
	int status;
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (!pid) {
		execve(args[0], args, args + 1);
		_exit(errno);
	}
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return -ECHILD;
	return -WEXITSTATUS(status);
}

/* ---------------------------------------------------------- open files */

static long do_open(struct step *s)
{
	static const struct word_bit flags[] = {
		{ "r", O_RDONLY },	     { "w", O_WRONLY },
		{ "rw", O_RDWR },	     { "creat", O_CREAT },
		{ "excl", O_EXCL },	     { "trunc", O_TRUNC },
		{ "append", O_APPEND },	     { "dir", O_DIRECTORY },
		{ "nofollow", O_NOFOLLOW },  { "tmpfile", O_TMPFILE },
		{ "noatime", O_NOATIME },    { "path", O_PATH },
		{ "sync", O_SYNC },	     { "direct", O_DIRECT },
		{ "nonblock", O_NONBLOCK }, { NULL, 0 },
	};
	int fd = open(s->a[0], bits_of(s, 1, flags) | O_CLOEXEC,
		      octal(s, 2, 0644));

	if (fd < 0)
		return -errno;
	if (s->r->n_fds == MAX_FDS) {
		close(fd);
		return -EMFILE;
	}
	s->r->fds[s->r->n_fds++] = fd;
	return 0;
}

static long do_close(struct step *s)
{
	int fd = fd_of(s, 0);

	s->r->fds[strtoul(s->a[0], NULL, 10)] = -1;
	return result(close(fd));
}

static char *buffer_of(size_t size)
{
	static char data[1 << 20] __attribute__((aligned(4096)));

	if (size > sizeof(data))
		abort();
	memset(data, 'y', size);
	return data;
}

static long do_read(struct step *s)
{
	size_t n = (size_t)num(s, 1);

	return result(read(fd_of(s, 0), buffer_of(n), n));
}

static long do_pread(struct step *s)
{
	size_t n = (size_t)num(s, 1);

	return result(pread(fd_of(s, 0), buffer_of(n), n, num(s, 2)));
}

static long do_write(struct step *s)
{
	size_t n = (size_t)num(s, 1);

	return result(write(fd_of(s, 0), buffer_of(n), n));
}

static long do_pwrite(struct step *s)
{
	size_t n = (size_t)num(s, 1);

	return result(pwrite(fd_of(s, 0), buffer_of(n), n, num(s, 2)));
}

/* FD OFFSET: the byte there */
static long do_byte(struct step *s)
{
	unsigned char c;
	ssize_t n = pread(fd_of(s, 0), &c, 1, num(s, 1));

	return n < 0 ? -errno : n ? c : -ENODATA;
}

static long do_lseek(struct step *s)
{
	static const struct word_bit whences[] = {
		{ "set", SEEK_SET },   { "cur", SEEK_CUR },   { "end", SEEK_END },
		{ "data", SEEK_DATA }, { "hole", SEEK_HOLE }, { "none", 99 },
		{ NULL, 0 },
	};

	return result(lseek(fd_of(s, 0), num(s, 1), bits_of(s, 2, whences)));
}

static long do_ftruncate(struct step *s)
{
	return result(ftruncate(fd_of(s, 0), num(s, 1)));
}

static long do_truncate(struct step *s)
{
	return result(truncate(s->a[0], num(s, 1)));
}

/* FD MODES OFFSET LENGTH */
static long do_fallocate(struct step *s)
{
	static const struct word_bit modes[] = {
		{ "0", 0 },
		{ "keep", FALLOC_FL_KEEP_SIZE },
		{ "punch", FALLOC_FL_PUNCH_HOLE },
		{ "zero", FALLOC_FL_ZERO_RANGE },
		{ "collapse", FALLOC_FL_COLLAPSE_RANGE },
		{ "insert", FALLOC_FL_INSERT_RANGE },
		{ "unknown", 1 << 20 },
		{ NULL, 0 },
	};

	return result(fallocate(fd_of(s, 0), bits_of(s, 1, modes), num(s, 2),
				num(s, 3)));
}

static long do_fsync(struct step *s)
{
	return result(fsync(fd_of(s, 0)));
}

/* FROM TO LENGTH */
static long do_copy(struct step *s)
{
	return result(copy_file_range(fd_of(s, 0), NULL, fd_of(s, 1), NULL,
				      (size_t)num(s, 2), 0));
}

/* FD: a byte, through a mapping, and as far as the file system */
static long do_mapwrite(struct step *s)
{
	char *p = mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_SHARED, fd_of(s, 0), 0);
	long ret;

	if (p == MAP_FAILED)
		return -errno;
	*p = 'z';
	ret = result(msync(p, 1, MS_SYNC));
	munmap(p, 1);
	return ret;
}

static long do_rlimit(struct step *s)
{
	struct rlimit limit;

	getrlimit(RLIMIT_FSIZE, &limit);
	limit.rlim_cur = (rlim_t)num(s, 0);
	return result(setrlimit(RLIMIT_FSIZE, &limit));
}

static long do_umask(struct step *s)
{
	umask(octal(s, 0, 0));
	return 0;
}

/* --------------------------------------------------------- attributes */

static long do_chmod(struct step *s)
{
	return result(chmod(s->a[0], octal(s, 1, 0)));
}

static long do_fchmod(struct step *s)
{
	return result(fchmod(fd_of(s, 0), octal(s, 1, 0)));
}

static long do_chown(struct step *s)
{
	uid_t uid;
	gid_t gid;

	owner_of(s->a[1], &uid, &gid);
	return result(chown(s->a[0], uid, gid));
}

static long do_fchown(struct step *s)
{
	uid_t uid;
	gid_t gid;

	owner_of(s->a[1], &uid, &gid);
	return result(fchown(fd_of(s, 0), uid, gid));
}

/* "now", "omit", or SECONDS[.NANOSECONDS] */
static struct timespec time_of(struct step *s, unsigned i)
{
	struct timespec t = { 0, 0 };
	const char *dot;

	if (i >= s->n || !strcmp(s->a[i], "now")) {
		t.tv_nsec = UTIME_NOW;
	} else if (!strcmp(s->a[i], "omit")) {
		t.tv_nsec = UTIME_OMIT;
	} else {
		t.tv_sec = strtoll(s->a[i], NULL, 10);
		dot = strchr(s->a[i], '.');
		t.tv_nsec = dot ? strtol(dot + 1, NULL, 10) : 0;
	}
	return t;
}

static long do_utimens(struct step *s)
{
	struct timespec t[2] = { time_of(s, 1), time_of(s, 2) };

	return result(utimensat(AT_FDCWD, s->a[0], s->n > 1 ? t : NULL, 0));
}

static long do_lutimens(struct step *s)
{
	struct timespec t[2] = { time_of(s, 1), time_of(s, 2) };

	return result(utimensat(AT_FDCWD, s->a[0], s->n > 1 ? t : NULL,
				AT_SYMLINK_NOFOLLOW));
}

static long do_futimens(struct step *s)
{
	struct timespec t[2] = { time_of(s, 1), time_of(s, 2) };

	return result(futimens(fd_of(s, 0), s->n > 1 ? t : NULL));
}

static int rights(struct step *s)
{
	int mode = F_OK;

	for (const char *p = s->n > 1 ? s->a[1] : ""; *p; p++)
		mode |= *p == 'r' ? R_OK : *p == 'w' ? W_OK : *p == 'x' ? X_OK : 0;
	return mode;
}

static long do_access(struct step *s)
{
	return result(access(s->a[0], rights(s)));
}

/* By the effective user. */
static long do_eaccess(struct step *s)
{
	return result(faccessat(AT_FDCWD, s->a[0], rights(s), AT_EACCESS));
}

static bool is_fd(const char *s)
{
	return isdigit((unsigned char)s[0]) && !s[1];
}

/* A name, or an open file; links are not followed. */
static bool look_at(struct step *s, struct stat *st)
{
	return is_fd(s->a[0]) ? !fstat(fd_of(s, 0), st) : !lstat(s->a[0], st);
}

static long do_mode(struct step *s)
{
	struct stat st;

	return look_at(s, &st) ? (long)(st.st_mode & 07777) : -errno;
}

static long do_type(struct step *s)
{
	struct stat st;

	return look_at(s, &st) ? (long)(st.st_mode & S_IFMT) : -errno;
}

static long do_nlink(struct step *s)
{
	struct stat st;

	return look_at(s, &st) ? (long)st.st_nlink : -errno;
}

static long do_size(struct step *s)
{
	struct stat st;

	return look_at(s, &st) ? (long)st.st_size : -errno;
}

static long do_uid(struct step *s)
{
	struct stat st;

	return look_at(s, &st) ? (long)st.st_uid : -errno;
}

static long do_gid(struct step *s)
{
	struct stat st;

	return look_at(s, &st) ? (long)st.st_gid : -errno;
}

static long do_rdev(struct step *s)
{
	struct stat st;

	return look_at(s, &st) ? (long)st.st_rdev : -errno;
}

static long do_atime(struct step *s)
{
	struct stat st;

	return look_at(s, &st) ? st.st_atim.tv_sec : -errno;
}

static long do_mtime(struct step *s)
{
	struct stat st;

	return look_at(s, &st) ? st.st_mtim.tv_sec : -errno;
}

static long do_ansec(struct step *s)
{
	struct stat st;

	return look_at(s, &st) ? st.st_atim.tv_nsec : -errno;
}

static long do_mnsec(struct step *s)
{
	struct stat st;

	return look_at(s, &st) ? st.st_mtim.tv_nsec : -errno;
}

/* Does it have blocks? */
static long do_blocks(struct step *s)
{
	struct stat st;

	return look_at(s, &st) ? st.st_blocks > 0 : -errno;
}

/* Are the two the same file? */
static long do_same(struct step *s)
{
	struct stat a, b;

	if (lstat(s->a[0], &a) || lstat(s->a[1], &b))
		return -errno;
	return a.st_ino == b.st_ino && a.st_dev == b.st_dev;
}

static long do_namemax(struct step *s)
{
	struct statvfs st;

	return statvfs(s->a[0], &st) ? -errno : (long)st.f_namemax;
}

static long do_pathconf(struct step *s)
{
	static const struct word_bit names[] = {
		{ "name_max", _PC_NAME_MAX }, { "path_max", _PC_PATH_MAX },
		{ "no_trunc", _PC_NO_TRUNC }, { "chown", _PC_CHOWN_RESTRICTED },
		{ NULL, 0 },
	};

	return result(pathconf(s->a[0], bits_of(s, 1, names)));
}

/* ------------------------------------------------- extended attributes */

static long do_setxattr(struct step *s)
{
	static const struct word_bit flags[] = { { "create", XATTR_CREATE },
						 { "replace", XATTR_REPLACE },
						 { "0", 0 },
						 { NULL, 0 } };
	size_t size = (size_t)num(s, 2);

	return result(lsetxattr(s->a[0], s->a[1], buffer_of(size), size,
				bits_of(s, 3, flags)));
}

static long do_getxattr(struct step *s)
{
	size_t size = (size_t)num(s, 2);

	return result(lgetxattr(s->a[0], s->a[1], buffer_of(size), size));
}

static long do_listxattr(struct step *s)
{
	size_t size = (size_t)num(s, 1);

	return result(llistxattr(s->a[0], buffer_of(size), size));
}

static long do_removexattr(struct step *s)
{
	return result(lremovexattr(s->a[0], s->a[1]));
}

/* -------------------------------------------------------------- locks */

static long do_flock(struct step *s)
{
	static const struct word_bit kinds[] = { { "sh", LOCK_SH },
						 { "ex", LOCK_EX },
						 { "un", LOCK_UN },
						 { NULL, 0 } };

	return result(flock(fd_of(s, 0), bits_of(s, 1, kinds) | LOCK_NB));
}

static struct flock range_of(struct step *s)
{
	static const struct word_bit kinds[] = { { "r", F_RDLCK },
						 { "w", F_WRLCK },
						 { "un", F_UNLCK },
						 { NULL, 0 } };

	return (struct flock){ .l_type = (short)bits_of(s, 1, kinds),
			       .l_whence = SEEK_SET,
			       .l_start = num(s, 2),
			       .l_len = num(s, 3) };
}

/* FD KIND START LENGTH: of the open file */
static long do_ofd(struct step *s)
{
	struct flock l = range_of(s);

	return result(fcntl(fd_of(s, 0), F_OFD_SETLK, &l));
}

/* ... of the process */
static long do_lock(struct step *s)
{
	struct flock l = range_of(s);

	return result(fcntl(fd_of(s, 0), F_SETLK, &l));
}

/* ... of another process, for a moment */
static long do_otherlock(struct step *s)
{
	struct flock l = range_of(s);
	int status;
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (!pid)
		_exit(fcntl(fd_of(s, 0), F_SETLK, &l) ? errno : 0);
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return -ECHILD;
	return -WEXITSTATUS(status);
}

/* ... who keeps another process from it? 0: nobody, 1: this process */
static long do_getlock(struct step *s)
{
	struct flock l = range_of(s);
	int status;
	pid_t parent = getpid(), pid = fork();

	if (pid < 0)
		return -errno;
	if (!pid) {
		if (fcntl(fd_of(s, 0), F_GETLK, &l))
			_exit(255);
		_exit(l.l_type == F_UNLCK ? 0 : l.l_pid == parent ? 1 : 2);
	}
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return -ECHILD;
	return WEXITSTATUS(status);
}

/* -------------------------------------------------------- directories */

/* NAME COUNT: files NAME/0, NAME/1, ... */
static long do_many(struct step *s)
{
	char path[64];

	for (long i = 0; i < num(s, 1); i++) {
		snprintf(path, sizeof(path), "%s/%ld", s->a[0], i);
		if (mknod(path, S_IFREG | 0644, 0))
			return -errno;
	}
	return 0;
}

/* NAME: a listing during which each name is removed as it comes; those that stay */
static long do_consume(struct step *s)
{
	DIR *d = opendir(s->a[0]);
	struct dirent *e;
	long left = 0;

	if (!d)
		return -errno;
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		if (unlinkat(dirfd(d), e->d_name, 0)) {
			closedir(d);
			return -EIO;
		}
	}
	rewinddir(d);
	while ((e = readdir(d)))
		left += e->d_name[0] != '.';
	closedir(d);
	return left;
}

/* NAME: the second half of a listing, read again from where telldir() said it was,
 * after others were removed and added, is what it was; how many differ */
static long do_seekdir(struct step *s)
{
	enum { MAX = 512 };
	static char names[MAX][32];
	DIR *d = opendir(s->a[0]);
	struct dirent *e;
	long n = 0, where = 0, half, differ = 0;

	if (!d)
		return -errno;
	for (half = 0; half < 100; half++) {
		where = telldir(d);
		e = readdir(d);
		if (!e)
			break;
	}
	while (n < MAX && (e = readdir(d)))
		snprintf(names[n++], sizeof(names[0]), "%.31s", e->d_name);
	seekdir(d, where);
	/* This one was read before. */
	e = readdir(d);
	if (!e)
		differ++;
	for (long i = 0; i < n; i++) {
		e = readdir(d);
		if (!e || strncmp(names[i], e->d_name, 31))
			differ++;
	}
	if (readdir(d))
		differ++;
	closedir(d);
	return differ;
}

/* NAME: types and numbers in the listing are those of stat(2); how many are not */
static long do_dtypes(struct step *s)
{
	DIR *d = opendir(s->a[0]);
	struct dirent *e;
	struct stat st;
	long wrong = 0;

	if (!d)
		return -errno;
	while ((e = readdir(d))) {
		if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) ||
		    e->d_ino != st.st_ino ||
		    (e->d_type != DT_UNKNOWN && (mode_t)DTTOIF(e->d_type) != (st.st_mode & S_IFMT)))
			wrong++;
	}
	closedir(d);
	return wrong;
}

/* FD: how many names a listing of an open directory has from where it is */
static long do_fdlist(struct step *s)
{
	char buf[4096];
	long n = 0, got;

	while ((got = syscall(SYS_getdents64, fd_of(s, 0), buf, sizeof(buf))) > 0)
		for (long at = 0; at < got; n++)
			at += *(unsigned short *)(buf + at + 16);
	return got < 0 ? -errno : n;
}

/* FD: the listing begins anew */
static long do_rewind(struct step *s)
{
	return result(lseek(fd_of(s, 0), 0, SEEK_SET));
}

/* ----------------------------------------------------------- the words */

static const struct word {
	const char *word;
	unsigned args; /* at least */
	long (*run)(struct step *s);
} words[] = {
	/* NAME [MODE [OWNER]]: made, and watched */
	{ "f", 1, do_f },	{ "d", 1, do_d },	{ "p", 1, do_p },
	{ "s", 1, do_s },	{ "c", 1, do_c },	{ "b", 1, do_b },
	{ "l", 2, do_l }, /* NAME TARGET */
	{ "fill", 2, do_fill },
	{ "own", 2, do_own },	/* NAME OWNER */
	{ "old", 0, do_old },	/* times of all so far; else after the setup */
	{ "tick", 0, do_tick },
	{ "immutable", 1, do_immutable },
	{ "append", 1, do_append },
	{ "mutable", 1, do_mutable },
	{ "noatime", 1, do_noatime },
	{ "creat", 1, do_creat },
	{ "mkdir", 1, do_mkdir },
	{ "mknod", 2, do_mknod },
	{ "symlink", 2, do_symlink },	/* TARGET NAME */
	{ "link", 2, do_link },
	{ "linkfollow", 2, do_linkfollow },
	{ "linkfd", 2, do_linkfd },
	{ "unlink", 1, do_unlink },
	{ "rmdir", 1, do_rmdir },
	{ "rename", 2, do_rename },
	{ "readlink", 1, do_readlink },
	{ "stat", 1, do_stat },
	{ "lstat", 1, do_lstat },
	{ "chdir", 1, do_chdir },
	{ "list", 1, do_list },
	{ "exec", 1, do_exec },
	{ "open", 2, do_open },
	{ "close", 1, do_close },
	{ "read", 2, do_read },
	{ "pread", 3, do_pread },
	{ "write", 2, do_write },
	{ "pwrite", 3, do_pwrite },
	{ "byte", 2, do_byte },
	{ "lseek", 3, do_lseek },
	{ "truncate", 2, do_truncate },
	{ "ftruncate", 2, do_ftruncate },
	{ "fallocate", 4, do_fallocate },
	{ "fsync", 1, do_fsync },
	{ "copy", 3, do_copy },
	{ "mapwrite", 1, do_mapwrite },
	{ "rlimit", 1, do_rlimit },
	{ "umask", 1, do_umask },
	{ "chmod", 2, do_chmod },
	{ "fchmod", 2, do_fchmod },
	{ "chown", 2, do_chown },
	{ "fchown", 2, do_fchown },
	{ "utimens", 1, do_utimens },
	{ "lutimens", 1, do_lutimens },
	{ "futimens", 1, do_futimens },
	{ "access", 1, do_access },
	{ "eaccess", 1, do_eaccess },
	/* NAME or FD: attributes, as results */
	{ "mode", 1, do_mode },	{ "type", 1, do_type },	{ "nlink", 1, do_nlink },
	{ "size", 1, do_size },	{ "uid", 1, do_uid },	{ "gid", 1, do_gid },
	{ "rdev", 1, do_rdev },	{ "atime", 1, do_atime }, { "mtime", 1, do_mtime },
	{ "ansec", 1, do_ansec }, { "mnsec", 1, do_mnsec },
	{ "blocks", 1, do_blocks },
	{ "same", 2, do_same },
	{ "namemax", 1, do_namemax },
	{ "pathconf", 2, do_pathconf },
	{ "setxattr", 3, do_setxattr },	/* NAME ATTRIBUTE SIZE [FLAG] */
	{ "getxattr", 3, do_getxattr },
	{ "listxattr", 2, do_listxattr },
	{ "removexattr", 2, do_removexattr },
	{ "flock", 2, do_flock },
	{ "ofd", 4, do_ofd },
	{ "lock", 4, do_lock },
	{ "otherlock", 4, do_otherlock },
	{ "getlock", 4, do_getlock },
	{ "many", 2, do_many },
	{ "consume", 1, do_consume },
	{ "seekdir", 1, do_seekdir },
	{ "dtypes", 1, do_dtypes },
	{ "fdlist", 1, do_fdlist },
	{ "rewind", 1, do_rewind },
};

/* Writes token with its {N} spelt out; false if it does not fit. */
static bool expand(const char *token, char *out, size_t size)
{
	size_t len = 0;

	while (*token) {
		bool dots = token[0] == '{' && token[1] == '/';
		char *end;
		unsigned long n;

		if (*token != '{') {
			if (len + 2 > size)
				return false;
			out[len++] = *token++;
			continue;
		}
		n = strtoul(token + 1 + dots, &end, 10);
		if (*end != '}' || len + n * (1 + dots) + 1 > size)
			return false;
		for (; n; n--) {
			out[len++] = dots ? '.' : 'n';
			if (dots)
				out[len++] = '/';
		}
		token = end + 1;
	}
	out[len] = '\0';
	return true;
}

/* Is the result as the text says? */
static bool as_wanted(const char *want, long got)
{
	bool ok;
	long long n;

	if (!want)
		return got >= 0;
	if (isupper((unsigned char)want[0]))
		return got < 0 && !strcmp(strerrorname_np((int)-got), want);
	n = number_of(want, &ok);
	return ok && got == n;
}

static bool run_step(struct run *r, const char *text)
{
	static char args[MAX_ARGS][3 * PATH_MAX];
	char copy[512], shown[32];
	const struct user *u = NULL;
	const struct word *w = NULL;
	struct step s = { .r = r };
	char *save = NULL, *want, *token, *word;
	bool before = r->failure[0];
	long got;

	snprintf(copy, sizeof(copy), "%s", text);
	want = strstr(copy, " = ");
	if (want) {
		*want = '\0';
		want += 3;
		want[strcspn(want, " ")] = '\0';
	}
	word = strtok_r(copy, " ", &save);
	if (!word)
		return true;
	if (word[1] == ':' && !word[2]) {
		u = user_of(word[0]);
		word = strtok_r(NULL, " ", &save);
	}
	for (size_t i = 0; word && i < sizeof(words) / sizeof(words[0]); i++)
		if (!strcmp(words[i].word, word))
			w = &words[i];
	while ((token = strtok_r(NULL, " ", &save)) && s.n < MAX_ARGS) {
		if (!expand(token, args[s.n], sizeof(args[0])))
			failed(r, "%s: too long", text);
		/* '' is the empty one */
		s.a[s.n] = strcmp(args[s.n], "''") ? args[s.n] : "";
		s.n++;
	}
	if (!w || s.n < w->args) {
		failed(r, "no such step: %s", text);
		return false;
	}
	if (u && !become(u))
		failed(r, "can't become %c", u->letter);
	got = w->run(&s);
	if (u && !become(&users[0]))
		failed(r, "can't be root again");
	checks++;
	if (!as_wanted(want, got)) {
		snprintf(shown, sizeof(shown), "%ld", got);
		failed(r, "%s%s%s: %s", r->in_setup ? "setup: " : "", text,
		       want ? "" : " = success",
		       got < 0 ? strerrorname_np((int)-got) : shown);
	}
	return before || !r->failure[0];
}

bool run_steps(struct run *r, const char *steps)
{
	struct rlimit limit;
	char step[512];
	bool ok = true;

	while (ok && *steps) {
		size_t n = strcspn(steps, ";");

		snprintf(step, sizeof(step), "%.*s", (int)n, steps);
		ok = run_step(r, step);
		steps += n + (steps[n] == ';');
	}
	/* Whatever the steps did to the process. */
	umask(0);
	getrlimit(RLIMIT_FSIZE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_FSIZE, &limit);
	if (fchdir(r->dirfd))
		failed(r, "fchdir: %s", strerrorname_np(errno));
	return ok;
}
