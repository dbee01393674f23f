/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/fuse_volume.c - ioctls that concern the whole volume, as ext4 has them: discard
 * (fstrim), label, checkpoint, shutdown
 *
 * They come on any file or directory. The number of EXT4_IOC_SHUTDOWN says that it
 * only reads, so the kernel's FUSE does not bring along what the caller wants. That is
 * read from his memory, as the kernel would do; where we may not, his log is flushed: of
 * all that a shutdown may do, what is lost least by. (SLUICE_IOC_SHUTDOWN has it right.)
 *
 * Locks: none. Threads: those of the request loop.
 */
#include "src/fuse_ops.h"

#include <linux/capability.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#include "lib/thread.h"
#include "src/caps.h"
#include "src/session.h"
#include "src/sluice_ioctl.h"

#ifndef EXT4_IOC_SHUTDOWN
#define EXT4_IOC_SHUTDOWN _IOR('X', 125, __u32)
#endif
#ifndef EXT4_IOC_CHECKPOINT
#define EXT4_IOC_CHECKPOINT _IOW('f', 43, __u32)
#define EXT4_IOC_CHECKPOINT_FLAG_DISCARD 0x1u
#define EXT4_IOC_CHECKPOINT_FLAG_ZEROOUT 0x2u
#define EXT4_IOC_CHECKPOINT_FLAG_DRY_RUN 0x4u
#endif

_Static_assert(SLUICE_SHUTDOWN_DEFAULT == SL_SHUTDOWN_DEFAULT &&
		       SLUICE_SHUTDOWN_LOGFLUSH == SL_SHUTDOWN_LOGFLUSH &&
		       SLUICE_SHUTDOWN_NOLOGFLUSH == SL_SHUTDOWN_NOLOGFLUSH,
	       "same numbers");

static bool interrupted(void *req)
{
	return fuse_req_interrupted(req);
}

static void trim(fuse_req_t req, const void *in, size_t in_size)
{
	struct fstrim_range r;
	int err = -EINVAL;
	u64 trimmed;

	if (!req_capable(req, CAP_SYS_ADMIN))
		err = -EPERM;
	else if (in_size >= sizeof(r)) {
		memcpy(&r, in, sizeof(r));
		err = sl_trim(req_sb(req), r.start, r.len, r.minlen, &trimmed,
			      interrupted, req);
	}
	if (err) {
		reply_status(req, err);
		return;
	}
	r.len = trimmed;
	fuse_reply_ioctl(req, 0, &r, sizeof(r));
}

static void get_label(fuse_req_t req)
{
	char label[FSLABEL_MAX] = "";

	sl_get_label(req_sb(req), label);
	fuse_reply_ioctl(req, 0, label, SL_LABEL_MAX + 1);
}

static void set_label(fuse_req_t req, const void *in, size_t in_size)
{
	char label[SL_LABEL_MAX + 2] = "";
	int err = -EINVAL;

	if (!req_capable(req, CAP_SYS_ADMIN))
		err = -EPERM;
	else if (in_size >= SL_LABEL_MAX + 1) {
		memcpy(label, in, SL_LABEL_MAX + 1);
		err = sl_set_label(req_sb(req), label);
		/* blkid(8) and the like read it from the device. */
		if (!err)
			err = sl_checkpoint(req_sb(req));
	}
	if (err)
		reply_status(req, err);
	else
		fuse_reply_ioctl(req, 0, NULL, 0);
}

static void shut_down(fuse_req_t req, u32 how)
{
	int err = -EPERM;

	if (req_capable(req, CAP_SYS_ADMIN))
		err = session_shutdown(fuse_req_userdata(req), how);
	if (err)
		reply_status(req, err);
	else
		fuse_reply_ioctl(req, 0, NULL, 0);
}

static void checkpoint(fuse_req_t req, const void *in, size_t in_size)
{
	const u32 erase = EXT4_IOC_CHECKPOINT_FLAG_DISCARD |
			  EXT4_IOC_CHECKPOINT_FLAG_ZEROOUT;
	u32 flags;
	int err = -EINVAL;

	if (!req_capable(req, CAP_SYS_ADMIN)) {
		err = -EPERM;
	} else if (in_size >= sizeof(flags)) {
		memcpy(&flags, in, sizeof(flags));
		if (flags & ~(erase | EXT4_IOC_CHECKPOINT_FLAG_DRY_RUN) ||
		    (flags & erase) == erase)
			err = -EINVAL;
		else if (flags & EXT4_IOC_CHECKPOINT_FLAG_DRY_RUN)
			err = 0;
		else if (flags & erase)
			err = sl_erase_log(req_sb(req), flags & erase &
					   EXT4_IOC_CHECKPOINT_FLAG_DISCARD);
		else
			err = sl_checkpoint(req_sb(req));
	}
	if (err)
		reply_status(req, err);
	else
		fuse_reply_ioctl(req, 0, NULL, 0);
}

/*
 * What lies at that address may be for others of our threads to read, in a mapping of a
 * file of this mount, or never come: so it is looked at for those only who may shut
 * down. (shut_down() tells the others.)
 */
static u32 wanted_of_caller(fuse_req_t req, void *arg)
{
	u32 how = SL_SHUTDOWN_LOGFLUSH, wanted;
	struct iovec to = { &wanted, sizeof(wanted) }, from = { arg, sizeof(wanted) };
	pid_t pid = fuse_req_ctx(req)->pid;

	if (pid <= 0 || !req_capable(req, CAP_SYS_ADMIN))
		return how;
	thread_blocks_begin();
	if (process_vm_readv(pid, &to, 1, &from, 1, 0) == (ssize_t)sizeof(wanted))
		how = wanted;
	thread_blocks_end();
	return how;
}

bool ioctl_volume(fuse_req_t req, unsigned cmd, void *arg, const void *in,
		  size_t in_size)
{
	struct sluice_shutdown s;

	switch (cmd) {
	case FITRIM:
		trim(req, in, in_size);
		return true;
	case FS_IOC_GETFSLABEL:
		get_label(req);
		return true;
	case FS_IOC_SETFSLABEL:
		set_label(req, in, in_size);
		return true;
	case EXT4_IOC_CHECKPOINT:
		checkpoint(req, in, in_size);
		return true;
	case EXT4_IOC_SHUTDOWN:
		shut_down(req, wanted_of_caller(req, arg));
		return true;
	case SLUICE_IOC_SHUTDOWN:
		if (!ioctl_layout_ok(in, in_size, sizeof(s))) {
			reply_status(req, -EINVAL);
			return true;
		}
		memcpy(&s, in, sizeof(s));
		shut_down(req, s.how);
		return true;
	default:
		return false;
	}
}
