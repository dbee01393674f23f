/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/crash/crashload_posix.c - the workload and its check below a directory
 *
 *   crashload [-t THREADS] [-s SEED] [-T SECONDS] [-n] [-m] [-x] --run DIR LOG
 *   crashload [-a] --check DIR LOG
 *   crashload --list DIR
 *   crashload [-l] --shutdown DIR [LOG]
 *
 * --run -m: files have block maps, so nothing is allocated in advance.
 * --check -a: after an unmount, so that everything has to be there.
 * --shutdown stops a mounted ext4 as a power cut would (the ioctl of the kernel's
 * xfstests): -l writes the running transaction out before, otherwise the log
 * stays as it is. Exit: 0, 1 (a violation), 2 (usage).
 */
#include "tests/crash/crashload.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

struct file {
	int fd;
};

static int root_fd;

static int result(long n)
{
	return n < 0 ? -errno : (int)n;
}

static int wrap(int fd, void **h)
{
	struct file *f;

	if (fd < 0)
		return -errno;
	f = malloc(sizeof(*f));
	if (!f) {
		close(fd);
		return -ENOMEM;
	}
	f->fd = fd;
	*h = f;
	return 0;
}

static int px_create(struct load_fs *fs, const char *path, unsigned mode, void **h)
{
	return wrap(openat(root_fd, path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode), h);
}

/* Read-write if the mount allows it. */
static int px_open(struct load_fs *fs, const char *path, void **h)
{
	int fd = openat(root_fd, path, O_RDWR | O_CLOEXEC);

	if (fd < 0 && errno == EROFS)
		fd = openat(root_fd, path, O_RDONLY | O_CLOEXEC);
	return wrap(fd, h);
}

static void px_close(void *h)
{
	struct file *f = h;

	close(f->fd);
	free(f);
}

static ssize_t px_pwrite(void *h, const void *buf, size_t len, uint64_t pos)
{
	return result(pwrite(((struct file *)h)->fd, buf, len, (off_t)pos));
}

static ssize_t px_pread(void *h, void *buf, size_t len, uint64_t pos)
{
	return result(pread(((struct file *)h)->fd, buf, len, (off_t)pos));
}

static int px_truncate(void *h, uint64_t size)
{
	return result(ftruncate(((struct file *)h)->fd, (off_t)size));
}

static int px_fallocate(void *h, bool keep_size, uint64_t pos, uint64_t len)
{
	return result(fallocate(((struct file *)h)->fd,
				keep_size ? FALLOC_FL_KEEP_SIZE : 0, (off_t)pos,
				(off_t)len));
}

static int px_fsync(void *h, bool datasync)
{
	int fd = ((struct file *)h)->fd;

	return result(datasync ? fdatasync(fd) : fsync(fd));
}

static int px_fsyncdir(struct load_fs *fs, const char *path)
{
	int fd = openat(root_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), err;

	if (fd < 0)
		return -errno;
	err = result(fsync(fd));
	close(fd);
	return err;
}

static int px_sync(struct load_fs *fs)
{
	return result(syncfs(root_fd));
}

static int px_mkdir(struct load_fs *fs, const char *path, unsigned mode)
{
	return result(mkdirat(root_fd, path, mode));
}

static int px_rmdir(struct load_fs *fs, const char *path)
{
	return result(unlinkat(root_fd, path, AT_REMOVEDIR));
}

static int px_unlink(struct load_fs *fs, const char *path)
{
	return result(unlinkat(root_fd, path, 0));
}

static int px_symlink(struct load_fs *fs, const char *target, const char *path)
{
	return result(symlinkat(target, root_fd, path));
}

static ssize_t px_readlink(struct load_fs *fs, const char *path, char *buf, size_t len)
{
	return result(readlinkat(root_fd, path, buf, len));
}

static int px_link(struct load_fs *fs, const char *old, const char *path)
{
	return result(linkat(root_fd, old, root_fd, path, 0));
}

static int px_rename(struct load_fs *fs, const char *from, const char *to, bool exchange)
{
	return result(renameat2(root_fd, from, root_fd, to,
				exchange ? RENAME_EXCHANGE : 0));
}

static int px_stat(struct load_fs *fs, const char *path, struct stat *st)
{
	return result(fstatat(root_fd, path, st, AT_SYMLINK_NOFOLLOW));
}

static int px_list(struct load_fs *fs, const char *path,
		   void (*emit)(void *priv, const char *name), void *priv)
{
	int fd = openat(root_fd, *path ? path : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent *de;
	DIR *d;
	int err;

	if (fd < 0)
		return -errno;
	d = fdopendir(fd);
	if (!d) {
		err = -errno;
		close(fd);
		return err;
	}
	while (errno = 0, (de = readdir(d)))
		if (strcmp(de->d_name, ".") && strcmp(de->d_name, ".."))
			emit(priv, de->d_name);
	err = -errno;
	closedir(d);
	return err;
}

/*
 * statfs is never answered from a cache of the kernel. Once more after EIO, and
 * for two seconds after an answer: threads of a daemon that is being killed may
 * have given it.
 */
static bool px_is_gone(const struct load_fs *fs)
{
	const struct timespec pause = { .tv_nsec = 20000000 };
	struct statfs st;

	for (int i = 0; i < 100; i++) {
		if (fstatfs(root_fd, &st) && errno != EIO)
			return errno == ENOTCONN || errno == ECONNABORTED;
		nanosleep(&pause, NULL);
	}
	return false;
}

static const struct load_ops posix_ops = {
	.create = px_create, .open = px_open, .close = px_close,
	.pwrite = px_pwrite, .pread = px_pread, .truncate = px_truncate,
	.fallocate = px_fallocate, .fsync = px_fsync, .fsyncdir = px_fsyncdir,
	.sync = px_sync, .mkdir = px_mkdir, .rmdir = px_rmdir,
	.unlink = px_unlink, .symlink = px_symlink, .readlink = px_readlink,
	.link = px_link, .rename = px_rename, .stat = px_stat, .list = px_list,
	.is_gone = px_is_gone,
};

/* EXT4_IOC_SHUTDOWN, in no header of user space. */
static int shut_down(bool logflush)
{
	__u32 flag = logflush ? 1 : 2;

	if (ioctl(root_fd, _IOR('X', 125, __u32), &flag)) {
		perror("shutdown");
		return 1;
	}
	return 0;
}

static int usage(void)
{
	fprintf(stderr, "usage: crashload [-t THREADS] [-s SEED] [-T SECONDS] [-n] [-m] [-x] --run DIR LOG\n"
			"       crashload [-a] --check DIR LOG\n"
			"       crashload --list DIR\n"
			"       crashload [-l] --shutdown DIR [LOG]\n");
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "run", no_argument, NULL, 'R' },
		{ "check", no_argument, NULL, 'C' },
		{ "list", no_argument, NULL, 'L' },
		{ "shutdown", no_argument, NULL, 'S' },
		{ NULL, 0, NULL, 0 },
	};
	struct load_options opt = { .threads = 4, .seed = 1 };
	struct load_fs fs = { &posix_ops, NULL };
	bool logflush = false, unmounted = false;
	int c, args, mode = 0;

	while ((c = getopt_long(argc, argv, "t:s:T:nmxla", longs, NULL)) != -1) {
		switch (c) {
		case 't':
			opt.threads = (unsigned)atoi(optarg);
			break;
		case 's':
			opt.seed = (unsigned)strtoul(optarg, NULL, 0);
			break;
		case 'T':
			opt.seconds = atof(optarg);
			break;
		case 'n':
			opt.no_sync = true;
			break;
		case 'm':
			opt.no_falloc = true;
			break;
		case 'x':
			opt.shutdown = true;
			break;
		case 'a':
			unmounted = true;
			break;
		case 'l':
			logflush = true;
			break;
		case '?':
			return usage();
		default:
			mode = c;
		}
	}
	args = argc - optind;
	if (!mode || args < 1 || args > 2 || (args == 1 && (mode == 'R' || mode == 'C')) ||
	    opt.threads < 1 || opt.threads > LOAD_THREADS_MAX)
		return usage();
	umask(0);
	root_fd = open(argv[optind], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (root_fd < 0) {
		perror(argv[optind]);
		return 1;
	}
	switch (mode) {
	case 'R':
		return load_run(&fs, argv[optind + 1], &opt);
	case 'C':
		return load_check(&fs, argv[optind + 1], unmounted);
	case 'L':
		return load_list(&fs);
	default:
		if (args == 2 && load_mark_end(argv[optind + 1]))
			return 1;
		return shut_down(logflush);
	}
}
