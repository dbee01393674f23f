/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/sender_file.c - a file that the sender of a request has open, by his descriptor
 *
 * /proc/PID/fd/N is opened with O_PATH, which holds the inode and the mount and causes no
 * request of our own mount, not when it is closed either. With these held, both fdinfo
 * are read: in one piece each, they say of a descriptor the mount, the inode's number and
 * how it was opened. So if the sender's is of the same mount and number as ours, and our
 * mount is of this volume, then he had this file open like that, at that moment, whatever he does
 * with the descriptor meanwhile: neither number can have become another's. And nobody can
 * name a file by this that he has not open himself.
 *
 * The sender waits for our answer, so his PID stays his; who was killed is his directory in
 * /proc, which is held, too, and shows nothing then.
 *
 * Locks: none. Threads: those of the request loop.
 */
#include "src/sender_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "src/session.h"

struct fdinfo {
	int flags;
	int mount;
	u64 ino;
};

/* Is /proc that of our PID namespace, which the requests' PIDs are of? */
static bool proc_is_ours(void)
{
	char target[16];
	ssize_t n = readlink("/proc/self", target, sizeof(target) - 1);

	if (n <= 0)
		return false;
	target[n] = '\0';
	return atoi(target) == getpid();
}

/* fd's line of numbers in an open directory of a process. */
static bool read_fdinfo(int proc, u32 fd, struct fdinfo *info)
{
	unsigned have = 0, flags;
	unsigned long long ino;
	char path[32], line[256];
	FILE *f;
	int in, mount;

	snprintf(path, sizeof(path), "fdinfo/%u", fd);
	in = openat(proc, path, O_RDONLY | O_CLOEXEC);
	f = in < 0 ? NULL : fdopen(in, "r");
	if (!f) {
		if (in >= 0)
			close(in);
		return false;
	}
	while (have != 7 && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "flags: %o", &flags) == 1) {
			info->flags = (int)flags;
			have |= 1;
		} else if (sscanf(line, "mnt_id: %d", &mount) == 1) {
			info->mount = mount;
			have |= 2;
		} else if (sscanf(line, "ino: %llu", &ino) == 1) {
			info->ino = ino;
			have |= 4;
		}
	}
	fclose(f);
	return have == 7;
}

/* Is what the descriptor holds of our mount, which device is said not to be asked for? */
static bool is_of_mount(int held, dev_t dev)
{
	struct statx st;

	/* No field is asked for: the kernel knows the device by itself. */
	return !statx(held, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0, &st) &&
	       makedev(st.stx_dev_major, st.stx_dev_minor) == dev;
}

/* held: fd's file, by O_PATH. */
static int identify(fuse_req_t req, int proc, u32 fd, int held, struct inode **out,
		    int *accmode)
{
	dev_t dev = session_dev(fuse_req_userdata(req));
	int self = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct fdinfo his, ours;
	bool known;

	if (self < 0 || !dev) {
		if (self >= 0)
			close(self);
		return -EOPNOTSUPP;
	}
	known = read_fdinfo(self, (u32)held, &ours) && read_fdinfo(proc, fd, &his);
	close(self);
	if (!known)
		return -EOPNOTSUPP;
	/* Exchanged for another one, just now. */
	if (his.mount != ours.mount || his.ino != ours.ino || his.flags & O_PATH)
		return -EBADF;
	if (!is_of_mount(held, dev))
		return -EINVAL;
	*accmode = his.flags & O_ACCMODE;
	return req_inode(req, ino_to_node(his.ino), out);
}

int req_file(fuse_req_t req, u32 fd, struct inode **out, int *accmode)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	int proc, held, err = -EOPNOTSUPP;
	char path[32];

	if (fd > INT32_MAX)
		return -EBADF;
	if (ctx->pid <= 0 || !proc_is_ours())
		return err;
	snprintf(path, sizeof(path), "/proc/%d", (int)ctx->pid);
	proc = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (proc < 0)
		return err;
	snprintf(path, sizeof(path), "fd/%u", fd);
	held = openat(proc, path, O_PATH | O_CLOEXEC);
	if (held >= 0) {
		err = identify(req, proc, fd, held, out, accmode);
		close(held);
	} else if (errno == ENOENT) {
		err = -EBADF;
	}
	close(proc);
	return err;
}
