/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/preload/preload.c - for LD_PRELOAD: calls that the kernel's FUSE does not hand on
 *
 * ioctl(FS_IOC_FIEMAP), and fallocate(2) with FALLOC_FL_COLLAPSE_RANGE or
 * FALLOC_FL_INSERT_RANGE, end in the kernel with EOPNOTSUPP on any FUSE mount. Programs that
 * are run with this library have them on files of a Sluice mount, with results and errors
 * as on the kernel's ext4: the call is made as it is, and if that is the answer, and the file
 * one of a FUSE file system, it is made anew as an ioctl of sluice_ioctl.h. Who does
 * not know that one is no Sluice, and the first answer stands. All else is libc's.
 *
 * Not seen are calls past libc's functions (syscall(3), static programs). A bad address is
 * the program's fault, and not EFAULT.
 *
 * Nothing is allocated and no lock is taken: as good in a signal handler, or after vfork(2),
 * as the calls themselves; but for FIEMAP there must be 16 KiB of stack (struct
 * sluice_fiemap; larger requests are made of several).
 *
 * Locks: none. Threads: any.
 */
#undef _FILE_OFFSET_BITS /* both kinds of fallocate() are defined here */

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <linux/falloc.h>
#include <linux/fiemap.h>
#include <linux/fs.h>

#include "src/sluice_ioctl.h"

#define EXPORT __attribute__((visibility("default")))
#define FUSE_MAGIC 0x65735546

typedef int ioctl_fn(int fd, unsigned long request, ...);
typedef int fallocate_fn(int fd, int mode, off_t off, off_t len);
typedef int fallocate64_fn(int fd, int mode, off64_t off, off64_t len);

/* The next ones, libc's mostly; set once, before main(). */
static ioctl_fn *next_ioctl;
static fallocate_fn *next_fallocate;
static fallocate64_fn *next_fallocate64;

__attribute__((constructor)) static void find_next(void)
{
	/* As POSIX wants it said: C has no cast from an object to a function. */
	*(void **)&next_ioctl = dlsym(RTLD_NEXT, "ioctl");
	*(void **)&next_fallocate = dlsym(RTLD_NEXT, "fallocate");
	*(void **)&next_fallocate64 = dlsym(RTLD_NEXT, "fallocate64");
}

/* Another library's constructor may come before ours. */
static int real_ioctl(int fd, unsigned long request, void *arg)
{
	ioctl_fn *fn = next_ioctl;

	return fn ? fn(fd, request, arg) : (int)syscall(SYS_ioctl, fd, request, arg);
}

/* Could it be a file or directory of ours? Others get no ioctl that is not theirs. */
static bool may_be_ours(int fd)
{
	struct statfs fs;
	struct stat st;

	return !fstat(fd, &st) && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) &&
	       !fstatfs(fd, &fs) && (unsigned long)fs.f_type == FUSE_MAGIC;
}

/* Is errno what another daemon, or an older one of ours, says? */
static bool is_unknown(void)
{
	return errno == ENOTTY || errno == ENOSYS;
}

/* ---- fallocate(2) ---- */

/* The call has failed, as errno says. */
static int shift(int fd, int mode, off64_t off, off64_t len)
{
	struct sluice_shift a = {
		.version = SLUICE_IOC_VERSION,
		.size = sizeof(a),
		.offset = (__u64)off,
		.length = (__u64)len,
		.mode = (__u32)mode,
	};
	int saved = errno;
	struct stat st;

	if (saved != EOPNOTSUPP ||
	    (mode != FALLOC_FL_COLLAPSE_RANGE && mode != FALLOC_FL_INSERT_RANGE) ||
	    !may_be_ours(fd)) {
		errno = saved;
		return -1;
	}
	if (real_ioctl(fd, SLUICE_IOC_SHIFT, &a) < 0) {
		if (is_unknown())
			errno = saved;
		return -1;
	}
	/* The kernel learns of the new size. */
	(void)!fstat(fd, &st);
	errno = saved;
	return 0;
}

EXPORT int fallocate(int fd, int mode, off_t off, off_t len)
{
	fallocate_fn *fn = next_fallocate;
	int before = errno, ret;

	ret = fn ? fn(fd, mode, off, len) : (int)syscall(SYS_fallocate, fd, mode, off, len);
	if (ret < 0)
		ret = shift(fd, mode, off, len);
	if (ret == 0)
		errno = before;
	return ret;
}

EXPORT int fallocate64(int fd, int mode, off64_t off, off64_t len)
{
	fallocate64_fn *fn = next_fallocate64;
	int before = errno, ret;

	ret = fn ? fn(fd, mode, off, len) : (int)syscall(SYS_fallocate, fd, mode, off, len);
	if (ret < 0)
		ret = shift(fd, mode, off, len);
	if (ret == 0)
		errno = before;
	return ret;
}

/* ---- FS_IOC_FIEMAP ---- */

/*
 * Extents as they come. One is kept back until the next is there, or the end: only then is
 * it known whether it is the last one. As in the kernel, that is the last of the
 * range, whatever lies behind.
 */
struct out {
	struct fiemap *fm;
	struct sluice_extent kept;
	bool has;
	bool full;
};

static void emit(struct out *o, __u32 flags)
{
	struct fiemap *fm = o->fm;

	if (!o->has)
		return;
	/* None wanted: they are counted. */
	if (fm->fm_extent_count)
		fm->fm_extents[fm->fm_mapped_extents] = (struct fiemap_extent){
			.fe_logical = o->kept.logical,
			.fe_physical = o->kept.physical,
			.fe_length = o->kept.length,
			.fe_flags = o->kept.flags | flags,
		};
	fm->fm_mapped_extents++;
	o->full = fm->fm_mapped_extents == fm->fm_extent_count;
	o->has = false;
}

static void take(struct out *o, const struct sluice_extent *e)
{
	emit(o, 0);
	if (o->full)
		return;
	o->kept = *e;
	o->kept.flags &= ~(__u32)FIEMAP_EXTENT_LAST;
	o->has = true;
}

/* 0, or the errno. */
static int walk(int fd, struct fiemap *fm)
{
	struct out o = { .fm = fm };
	struct sluice_fiemap f = {
		.version = SLUICE_IOC_VERSION,
		.size = sizeof(f),
		.start = fm->fm_start,
		.length = fm->fm_length,
	};
	bool last = false;

	/* What the kernel delays, the daemon does not know. */
	if (fm->fm_flags & FIEMAP_FLAG_SYNC) {
		const unsigned int all = SYNC_FILE_RANGE_WAIT_BEFORE |
					 SYNC_FILE_RANGE_WRITE |
					 SYNC_FILE_RANGE_WAIT_AFTER;

		if (sync_file_range(fd, 0, 0, all))
			return errno;
		f.flags = SLUICE_FIEMAP_SYNC;
	}
	if (fm->fm_flags & FIEMAP_FLAG_XATTR)
		f.flags |= SLUICE_FIEMAP_XATTR;
	do {
		if (real_ioctl(fd, SLUICE_IOC_FIEMAP, &f) < 0)
			return errno;
		f.flags &= ~(__u32)SLUICE_FIEMAP_SYNC;
		for (__u32 i = 0; i < f.count && i < SLUICE_FIEMAP_MAX && !o.full; i++) {
			take(&o, &f.extent[i]);
			last = f.extent[i].flags & FIEMAP_EXTENT_LAST;
		}
	} while (f.count && f.length && !last && !o.full);
	if (!o.full)
		emit(&o, FIEMAP_EXTENT_LAST);
	return 0;
}

/* As the kernel: what it does not know of the flags it tells. 0, or the errno. */
static int fiemap(int fd, struct fiemap *fm)
{
	const __u32 known = FIEMAP_FLAG_SYNC | FIEMAP_FLAG_CACHE | FIEMAP_FLAG_XATTR;

	fm->fm_mapped_extents = 0;
	if (fm->fm_extent_count > UINT32_MAX / sizeof(struct fiemap_extent) ||
	    !fm->fm_length)
		return EINVAL;
	if (fm->fm_start > INT64_MAX)
		return EFBIG;
	if (fm->fm_flags & ~known) {
		fm->fm_flags &= ~known;
		return EBADR;
	}
	return walk(fd, fm);
}

EXPORT int ioctl(int fd, unsigned long request, ...)
{
	int before = errno, ret, err;
	va_list ap;
	void *arg;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	ret = real_ioctl(fd, request, arg);
	/* The kernel looks at 32 bits of it, and who keeps it in an int has more. */
	if (ret != -1 || (__u32)request != FS_IOC_FIEMAP || errno != EOPNOTSUPP || !arg)
		return ret;
	if (!may_be_ours(fd)) {
		errno = EOPNOTSUPP;
		return -1;
	}
	err = fiemap(fd, arg);
	if (!err) {
		errno = before;
		return 0;
	}
	errno = err;
	if (is_unknown())
		errno = EOPNOTSUPP;
	return -1;
}
