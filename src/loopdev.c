/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/loopdev.c - a loop device as the anchor of an image's mount
 *
 * Between LOOP_CTL_GET_FREE and LOOP_CONFIGURE another process may take the
 * same device: EBUSY, and the next one is asked for. LOOP_CONFIGURE sets file,
 * offset and AUTOCLEAR at once, so a crash at any point leaves nothing behind.
 *
 * Locks: none. Threads: the main thread; for a remount, that of the request.
 */
#include "src/loopdev.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "writeback/bdev.h"

#define ATTACH_TRIES 64
/* udev makes the node of a new device a moment after the kernel does. */
#define NODE_TRIES 50
#define NODE_WAIT_MS 10

static void nap(unsigned ms)
{
	struct timespec ts = { .tv_nsec = (long)ms * 1000000 };

	nanosleep(&ts, NULL);
}

static int open_node(const char *path, int flags)
{
	for (int i = 0;; i++) {
		int fd = open(path, flags | O_CLOEXEC);

		if (fd >= 0)
			return fd;
		if (errno != ENOENT || i >= NODE_TRIES)
			return -errno;
		nap(NODE_WAIT_MS);
	}
}

static int configure(int fd, int image, const char *name, bool readonly,
		     u64 offset)
{
	struct loop_config config = { .fd = (u32)image };

	config.info.lo_offset = offset;
	config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
	if (readonly)
		config.info.lo_flags |= LO_FLAGS_READ_ONLY;
	snprintf((char *)config.info.lo_file_name,
		 sizeof(config.info.lo_file_name), "%s", name);
	return ioctl(fd, LOOP_CONFIGURE, &config) < 0 ? -errno : 0;
}

/* One try; -EBUSY: somebody was faster. */
static int attach_once(struct loopdev *ld, int control, int image,
		       const char *name, bool readonly, u64 offset,
		       const char **what)
{
	int nr = ioctl(control, LOOP_CTL_GET_FREE);
	int fd, err;

	if (nr < 0) {
		*what = "no free loop device";
		return -errno;
	}
	snprintf(ld->path, sizeof(ld->path), "/dev/loop%d", nr);
	fd = open_node(ld->path, readonly ? O_RDONLY : O_RDWR);
	if (fd < 0) {
		*what = "cannot open the loop device";
		return fd;
	}
	err = configure(fd, image, name, readonly, offset);
	if (err) {
		*what = "cannot attach to the loop device";
		close(fd);
		return err;
	}
	ld->fd = fd;
	return 0;
}

/*
 * A loop device that was attached for reading cannot become writable, and then a mount
 * from it can't either. So the image is opened for writing if that can be; but not where
 * opening it would make a copy of it.
 */
static int open_image(const char *name, bool *readonly)
{
	struct statfs fs;
	int fd = -1;

	if (!*readonly || (!statfs(name, &fs) && fs.f_type != OVERLAYFS_SUPER_MAGIC))
		fd = open(name, O_RDWR | O_CLOEXEC);
	if (fd >= 0 || !*readonly)
		*readonly = false;
	else
		fd = open(name, O_RDONLY | O_CLOEXEC);
	return fd;
}

int loopdev_attach(struct loopdev *ld, const char *name, bool readonly,
		   u64 offset, const char **what)
{
	bool attach_ro = readonly;
	int control, image, err;

	ld->fd = -1;
	image = open_image(name, &attach_ro);
	if (image < 0) {
		*what = "cannot open the image";
		return -errno;
	}
	control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	if (control < 0) {
		err = -errno;
		*what = "cannot open /dev/loop-control";
		goto out_close_image;
	}
	for (int i = 0; i < ATTACH_TRIES; i++) {
		err = attach_once(ld, control, image, readonly && !attach_ro ?
				  BDEV_LOOP_OF_READER : name, attach_ro, offset, what);
		if (err != -EBUSY)
			break;
	}
	ld->readonly = attach_ro;
	close(control);
out_close_image:
	close(image); /* the device has its own reference */
	return err;
}

void loopdev_release(struct loopdev *ld)
{
	if (ld->fd >= 0)
		close(ld->fd);
	ld->fd = -1;
}
