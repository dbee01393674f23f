/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * writeback/claim.c - nobody else may use the volume while we do
 *
 * Who could, and what keeps them out:
 *   the kernel, other programs that    block device: O_EXCL, which also covers
 *   claim block devices                the whole disk and its partitions
 *   a FUSE server that did not claim   /proc/self/mountinfo
 *   another sluice                     flock(2), and for images an OFD lock on
 *                                      the whole file too (flock does not reach
 *                                      other clients of a network file system)
 *   the kernel through a loop device   image: the loop devices with this file;
 *                                      loop device: the locks on its file
 * Read-only users of an image share it: LOCK_SH and a read lock.
 *
 * flock and OFD locks belong to the open file, so they last as long as fd and
 * each copy of it does.
 *
 * Order: O_EXCL first, flock second. claim_drop_exclusive() builds on it.
 * Locks: none. Threads: any; meant for mount time, it sleeps.
 */
#include "claim_internal.h"

#include "lib/log.h"
#include "writeback/bdev.h"
#include <fcntl.h>
#include <glob.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* How long to wait for somebody who holds a lock or claim for a moment: udev
 * takes a shared flock on a block device while it looks at it. */
#define PATIENCE_TRIES 200
#define PATIENCE_MS 5

#define SECTOR_MIN 512u
#define SECTOR_MAX 4096u /* io_alloc() promises no more */

static _Thread_local char why_text[640];

static int __attribute__((format(printf, 3, 4)))
refuse(int error, const char **why, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why_text, sizeof(why_text), fmt, ap);
	va_end(ap);
	*why = why_text;
	return error;
}

static void nap(unsigned ms)
{
	struct timespec ts = { .tv_nsec = (long)ms * 1000000 };

	nanosleep(&ts, NULL);
}

/* ---- locks ---- */

static int lock_flock(int fd, bool shared, bool patient)
{
	int op = (shared ? LOCK_SH : LOCK_EX) | LOCK_NB;

	for (int i = 0; flock(fd, op) < 0; i++) {
		if (errno == EINTR)
			continue;
		if (errno != EWOULDBLOCK || !patient || i >= PATIENCE_TRIES)
			return -errno;
		nap(PATIENCE_MS);
	}
	return 0;
}

static int lock_ofd(int fd, bool shared)
{
	struct flock fl = {
		.l_type = shared ? F_RDLCK : F_WRLCK,
		.l_whence = SEEK_SET, /* 0, 0: the whole file */
	};

	while (fcntl(fd, F_OFD_SETLK, &fl) < 0) {
		if (errno == EACCES)
			return -EAGAIN;
		if (errno != EINTR)
			return -errno;
	}
	return 0;
}

static int take_locks(int fd, bool is_block, bool shared, const char **why)
{
	int err = lock_flock(fd, shared, is_block);

	if (!err && !is_block)
		err = lock_ofd(fd, shared);
	if (err == -EAGAIN)
		return refuse(-EBUSY, why, "in use by another daemon");
	if (err)
		return refuse(err, why, "cannot lock: %s", strerror(-err));
	return 0;
}

/* ---- loop devices ---- */

static bool same_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* Reads the first line of a small file in sysfs. */
static bool read_line(const char *path, char *buf, size_t size)
{
	FILE *f = fopen(path, "re");
	bool ok;

	if (!f)
		return false;
	ok = fgets(buf, (int)size, f);
	fclose(f);
	if (ok)
		buf[strcspn(buf, "\n")] = '\0';
	return ok;
}

/*
 * Is the file the backing file of this loop device? The ioctl knows it by
 * device and inode; without access to the device the file's name must do.
 */
static bool loop_backed_by(const char *dev, const char *name, const struct stat *st,
			   bool *of_reader)
{
	struct loop_info64 info;
	struct stat other;
	bool known, same;
	int fd = open(dev, O_RDONLY | O_CLOEXEC);

	known = fd >= 0 && !ioctl(fd, LOOP_GET_STATUS64, &info);
	*of_reader = known && !strncmp((const char *)info.lo_file_name,
				       BDEV_LOOP_OF_READER, sizeof(info.lo_file_name));
	same = known && info.lo_device == st->st_dev &&
	       info.lo_inode == st->st_ino;
	if (fd >= 0)
		close(fd);
	if (known)
		return same;
	return !stat(name, &other) && same_file(&other, st);
}

static bool is_readonly_device(const char *dev)
{
	int fd = open(dev, O_RDONLY | O_CLOEXEC), ro = 0;

	if (fd < 0)
		return false;
	if (ioctl(fd, BLKROGET, &ro) < 0)
		ro = 0;
	close(fd);
	return ro;
}

/*
 * A loop device on this image is in use if it cannot be claimed. Readers share
 * the image with one that nobody can write through, and with another reader's. own: is
 * left out; may be NULL.
 */
static int check_loops(const struct stat *st, bool shared, const char *own,
		       const char **why)
{
	glob_t g = { 0 };
	int err = 0;

	if (glob("/sys/block/loop*/loop/backing_file", 0, NULL, &g))
		return 0; /* none (or no sysfs: no way to know) */
	for (size_t i = 0; i < g.gl_pathc && !err; i++) {
		char name[4096], dev[64];
		bool of_reader;
		unsigned nr;
		int fd;

		if (sscanf(g.gl_pathv[i], "/sys/block/loop%u/", &nr) != 1 ||
		    !read_line(g.gl_pathv[i], name, sizeof(name)))
			continue;
		snprintf(dev, sizeof(dev), "/dev/loop%u", nr);
		if ((own && !strcmp(dev, own)) ||
		    !loop_backed_by(dev, name, st, &of_reader) ||
		    (shared && (of_reader || is_readonly_device(dev))))
			continue;
		fd = open(dev, O_RDONLY | O_EXCL | O_CLOEXEC);
		if (fd >= 0)
			close(fd);
		else if (errno != ENOENT && errno != ENXIO)
			err = refuse(-EBUSY, why,
				     "in use through the loop device %s", dev);
	}
	globfree(&g);
	return err;
}

/* A loop device whose file a sluice holds: its OFD lock shows. */
static int check_loop_file(dev_t rdev, bool shared, const char **why)
{
	struct flock fl = {
		.l_type = shared ? F_RDLCK : F_WRLCK,
		.l_whence = SEEK_SET,
	};
	char attr[80], name[4096];
	bool busy;
	int fd;

	snprintf(attr, sizeof(attr), "/sys/dev/block/%u:%u/loop/backing_file",
		 major(rdev), minor(rdev));
	if (!read_line(attr, name, sizeof(name)))
		return 0;
	fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return 0; /* deleted, or not ours to see */
	busy = !fcntl(fd, F_OFD_GETLK, &fl) && fl.l_type != F_UNLCK;
	close(fd);
	if (busy)
		return refuse(-EBUSY, why,
			      "its backing file %.256s is in use by another daemon",
			      name);
	return 0;
}

/* ---- mounts ---- */

/* Undoes the octal escapes of /proc/self/mountinfo (blank, tab, \n, \\). */
static void unescape(char *s)
{
	char *to = s;

	for (; *s; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] && s[3]) {
			*to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 |
				       (s[3] - '0'));
			s += 3;
		} else {
			*to++ = *s;
		}
	}
	*to = '\0';
}

/* Is this line of mountinfo a mount of the device? Sets the mount point. */
static bool mount_is_of(char *line, dev_t rdev, const char **where)
{
	char *save, *word = strtok_r(line, " ", &save), *source = NULL;
	struct stat st;
	bool same = false;

	*where = NULL;
	for (int field = 1; word; field++, word = strtok_r(NULL, " ", &save)) {
		unsigned maj, min;

		if (field == 3 && sscanf(word, "%u:%u", &maj, &min) == 2)
			same = makedev(maj, min) == rdev;
		else if (field == 5)
			*where = word;
		else if (!strcmp(word, "-"))
			break;
	}
	/* " - type source options" */
	if (word && strtok_r(NULL, " ", &save))
		source = strtok_r(NULL, " ", &save);
	if (!*where)
		return false;
	if (!same && source && !strncmp(source, "/dev/", 5)) {
		unescape(source);
		same = !stat(source, &st) && S_ISBLK(st.st_mode) &&
		       st.st_rdev == rdev;
	}
	return same;
}

static int check_mounts(dev_t rdev, const char **why)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	const char *where;
	char *line = NULL;
	size_t size = 0;
	int err = 0;

	if (!f)
		return 0; /* no /proc: O_EXCL has to do */
	while (!err && getline(&line, &size, f) > 0)
		if (mount_is_of(line, rdev, &where))
			err = refuse(-EBUSY, why, "mounted on %.256s", where);
	free(line);
	fclose(f);
	return err;
}

/* ---- geometry ---- */

/* With O_DIRECT on: does a read of `align` bytes pass? */
static bool try_alignment(int fd, u32 align)
{
	struct iovec iov = { .iov_len = align };
	ssize_t got;
	void *base;

	/* aligned to this and to nothing larger */
	if (posix_memalign(&base, 2 * align, 2 * align))
		return false;
	iov.iov_base = (char *)base + align;
	got = preadv(fd, &iov, 1, 0);
	free(base);
	return got >= 0 || errno != EINVAL;
}

/* Alignment for O_DIRECT on an image; 0: it cannot be had. */
static u32 image_alignment(int fd)
{
#ifdef STATX_DIOALIGN
	struct statx stx;

	if (!statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) &&
	    (stx.stx_mask & STATX_DIOALIGN)) {
		u32 align = max_of(stx.stx_dio_mem_align, stx.stx_dio_offset_align);

		if (!stx.stx_dio_offset_align || align > SECTOR_MAX ||
		    (align & (align - 1)))
			return 0;
		return max_of(align, SECTOR_MIN);
	}
#endif
	if (try_alignment(fd, SECTOR_MIN))
		return SECTOR_MIN;
	return try_alignment(fd, SECTOR_MAX) ? SECTOR_MAX : 0;
}

static int image_geometry(const char *path, const struct stat *st, struct claim *c)
{
	c->size = (u64)st->st_size;
	if (c->direct) {
		c->sector = image_alignment(c->fd);
		if (c->sector)
			return 0;
		if (fcntl(c->fd, F_SETFL, fcntl(c->fd, F_GETFL) & ~O_DIRECT) < 0)
			return -errno;
		c->direct = false;
	}
	c->sector = SECTOR_MIN;
	log_info("%s: its file system has no direct I/O; using buffered I/O", path);
	return 0;
}

static int block_geometry(bool readonly, struct claim *c, const char **why)
{
	int sector = 0, ro = 0;

	if (!readonly && !ioctl(c->fd, BLKROGET, &ro) && ro)
		return refuse(-EROFS, why, "the device is read-only");
	if (ioctl(c->fd, BLKSSZGET, &sector) < 0 ||
	    ioctl(c->fd, BLKGETSIZE64, &c->size) < 0)
		return refuse(-errno, why, "cannot ask for its size: %s",
			      strerror(errno));
	if (sector < (int)SECTOR_MIN || sector > (int)SECTOR_MAX ||
	    (sector & (sector - 1)))
		return refuse(-EINVAL, why, "its sectors have %d bytes", sector);
	c->sector = (u32)sector;
	return 0;
}

/* ---- open ---- */

static int open_file(const char *path, bool readonly, struct claim *c,
		     const char **why)
{
	int flags = (readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY;
	int err;

	if (c->is_block)
		flags |= O_EXCL;
	c->direct = true;
	for (int i = 0;; i++) {
		c->fd = open(path, flags | (c->direct ? O_DIRECT : 0));
		if (c->fd >= 0)
			return 0;
		err = -errno;
		if (err == -EINVAL && c->direct)
			c->direct = false;
		else if (err != -EINTR &&
			 (err != -EBUSY || i >= PATIENCE_TRIES / 10))
			break;
		else
			nap(PATIENCE_MS);
	}
	if (err == -EBUSY)
		return refuse(err, why, "already mounted or in use");
	/* open(2) of a read-only device for writing fails in several ways. */
	if (!readonly && (err == -EROFS || (c->is_block && is_readonly_device(path))))
		return refuse(-EROFS, why, "read-only");
	if (err == -EPERM)
		err = -EACCES;
	return refuse(err, why, "cannot open: %s", strerror(-err));
}

static int check_type(const struct stat *st, const char **why)
{
	if (S_ISBLK(st->st_mode) || S_ISREG(st->st_mode))
		return 0;
	return refuse(-EINVAL, why, "neither a block device nor a regular file");
}

int claim_open(const char *path, bool readonly, struct claim *out, const char **why)
{
	struct claim c = { .fd = -1 };
	struct stat st, now;
	int err;

	if (stat(path, &st) < 0)
		return refuse(-errno, why, "cannot find: %s", strerror(errno));
	err = check_type(&st, why);
	if (err)
		return err;
	c.is_block = S_ISBLK(st.st_mode);
	err = open_file(path, readonly, &c, why);
	if (err)
		return err;
	if (fstat(c.fd, &now) < 0 || !same_file(&now, &st) ||
	    S_ISBLK(now.st_mode) != c.is_block) {
		err = refuse(-EBUSY, why, "replaced while it was opened");
		goto out_close;
	}
	err = take_locks(c.fd, c.is_block, readonly, why);
	if (err)
		goto out_close;
	if (c.is_block) {
		err = check_mounts(now.st_rdev, why);
		if (!err)
			err = check_loop_file(now.st_rdev, readonly, why);
		if (!err)
			err = block_geometry(readonly, &c, why);
	} else {
		err = check_loops(&now, readonly, NULL, why);
		if (!err) {
			err = image_geometry(path, &now, &c);
			if (err)
				refuse(err, why, "%s", strerror(-err));
		}
	}
	if (err)
		goto out_close;
	*out = c;
	return 0;

out_close:
	close(c.fd);
	return err;
}

/*
 * The claim and the lock belong to the old open file; a new one, opened
 * through /proc without O_EXCL, takes its place:
 *
 *   old: O_EXCL, lock      new: opened              both stand
 *   old: O_EXCL            new: tries to lock       the window
 *   old: O_EXCL            new: lock
 *   gone (dup3)            new: lock
 *
 * In the window nobody holds the lock, yet no other sluice can get it: it
 * flocks only what it has opened with O_EXCL, and that fails while the old
 * file stands. (A LOCK_SH on both would not help: EX and SH exclude each other
 * between open files of one process, too.) After dup3 it can be opened with
 * O_EXCL, and the lock refuses. Only udev and the like can hold a flock in the
 * window, for a moment; when they hold it for too long, all is put back.
 *
 * The claim ends with the last reference on the old file. A completed AIO may
 * drop its reference from a kernel worker a moment after its event was seen,
 * so the release is waited for: it is done when O_EXCL is possible again.
 */
int claim_drop_exclusive(int fd, bool readonly)
{
	char self[40];
	int flags = (readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC;
	int new, probe, err;

	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	new = open(self, flags | (fcntl(fd, F_GETFL) & O_DIRECT));
	if (new < 0)
		return -errno;
	if (flock(fd, LOCK_UN) < 0) {
		err = -errno;
		goto out_close;
	}
	err = lock_flock(new, readonly, true);
	if (err)
		goto out_relock;
	if (dup3(new, fd, O_CLOEXEC) < 0) {
		err = -errno;
		flock(new, LOCK_UN);
		goto out_relock;
	}
	close(new);
	for (int i = 0; i < PATIENCE_TRIES; i++) {
		probe = open(self, O_RDONLY | O_EXCL | O_CLOEXEC);
		if (probe >= 0) {
			close(probe);
			return 0;
		}
		if (errno != EBUSY && errno != EINTR)
			return 0; /* mount(2) will tell what is wrong */
		nap(PATIENCE_MS);
	}
	return 0; /* somebody else's claim: mount(2) will say EBUSY */

out_relock:
	/* The claim still keeps others out; a lock that cannot be had again
	 * is held by a passer-by, so this is no hole, but say so. */
	if (lock_flock(fd, readonly, true))
		log_warn("a block device is held by its claim alone, not locked");
out_close:
	close(new);
	return err;
}

/* ---- from reading to writing, and back ---- */

static void unlock(int fd, bool is_block)
{
	struct flock fl = { .l_type = F_UNLCK, .l_whence = SEEK_SET };

	if (flock(fd, LOCK_UN) < 0 || (!is_block && fcntl(fd, F_OFD_SETLK, &fl) < 0))
		log_warn("a lock that is given up stays: %s", strerror(errno));
}

static int lock_as(int fd, bool is_block, bool shared)
{
	/* An OFD lock is converted at once, or stays as it was; flock(2) may lose it. */
	int err = is_block ? 0 : lock_ofd(fd, shared);

	return err ?: lock_flock(fd, shared, is_block);
}

void claim_make_readonly(int fd, bool is_block)
{
	if (lock_as(fd, is_block, true))
		log_warn("the lock of a reader can't be had again");
}

static int open_writable(int fd, bool is_block, int *out, const char **why)
{
	int flags = fcntl(fd, F_GETFL), ro = 0, err;
	char self[40];

	if (flags < 0)
		return refuse(-errno, why, "cannot open: %s", strerror(errno));
	if (is_block && !ioctl(fd, BLKROGET, &ro) && ro)
		return refuse(-EROFS, why, "the device is read-only");
	*out = fd;
	if ((flags & O_ACCMODE) == O_RDWR)
		return 0;
	/* What is open, whatever its name is by now. */
	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	*out = open(self, O_RDWR | O_CLOEXEC | O_NOCTTY | (flags & O_DIRECT));
	if (*out >= 0)
		return 0;
	err = errno == EPERM ? -EACCES : -errno;
	return refuse(err, why, "cannot open for writing: %s", strerror(-err));
}

/*
 * Both files hold the lock of a reader for a moment, then the new one alone, then as a
 * writer. An image is never without: the OFD lock is converted in place. Of a block
 * device flock(2) may be without for a moment, but it stays claimed by O_EXCL, ours or the
 * mount's, without which no other sluice gets as far as to its lock.
 */
int claim_make_writable(int fd, bool is_block, const char *own, const char **why)
{
	struct stat st;
	int new = fd, err;

	err = open_writable(fd, is_block, &new, why);
	if (err)
		return err;
	err = new == fd ? 0 : lock_as(new, is_block, true);
	if (!err && new != fd)
		unlock(fd, is_block);
	if (!err)
		err = lock_as(new, is_block, false);
	if (err == -EAGAIN)
		refuse(err = -EBUSY, why, "others read it, too");
	else if (err)
		refuse(err, why, "cannot lock: %s", strerror(-err));
	if (!err && fstat(new, &st) < 0)
		err = refuse(-errno, why, "%s", strerror(errno));
	if (!err)
		err = is_block ? check_loop_file(st.st_rdev, false, why) :
				 check_loops(&st, false, own, why);
	if (!err && new != fd && dup3(new, fd, O_CLOEXEC) < 0)
		err = refuse(-errno, why, "%s", strerror(errno));
	if (err) {
		claim_make_readonly(new, is_block);
		if (new != fd)
			claim_make_readonly(fd, is_block);
	}
	if (new != fd)
		close(new);
	return err;
}
