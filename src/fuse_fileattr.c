/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/fuse_fileattr.c - ioctls of files as ext4 has them: flags, project, version, and where they lie
 *
 * lsattr(1), chattr(1) and xfs_io(8) use these. The kernel looks at the flags before it
 * sets some, and has checked owner and capabilities; who comes another way is checked here.
 *
 * FS_IOC_SETVERSION is refused, as by ext4 with metadata_csum: checksums are seeded with
 * the version, and FUSE tells a file by number and version, so that a file with
 * another one is another file to the kernel, and who has it open loses it.
 *
 * Locks: none. Threads: those of the request loop.
 */
#include "src/fuse_ops.h"

#include <linux/capability.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "src/caps.h"
#include "src/loop.h"
#include "src/session.h"
#include "src/sluice_ioctl.h"

_Static_assert(sizeof(struct sluice_fiemap) < 1u << _IOC_SIZEBITS, "fits");

/* Flags that have a counterpart in struct fsxattr. */
static const struct {
	u32 flag, xflag;
} common[] = {
	{ FS_SYNC_FL, FS_XFLAG_SYNC },
	{ FS_IMMUTABLE_FL, FS_XFLAG_IMMUTABLE },
	{ FS_APPEND_FL, FS_XFLAG_APPEND },
	{ FS_NODUMP_FL, FS_XFLAG_NODUMP },
	{ FS_NOATIME_FL, FS_XFLAG_NOATIME },
	{ FS_DAX_FL, FS_XFLAG_DAX },
	{ FS_PROJINHERIT_FL, FS_XFLAG_PROJINHERIT },
};
#define COMMON_FLAGS                                                           \
	(FS_SYNC_FL | FS_IMMUTABLE_FL | FS_APPEND_FL | FS_NODUMP_FL |          \
	 FS_NOATIME_FL | FS_DAX_FL | FS_PROJINHERIT_FL)

/* ext4 has a number of its own for it, too. */
#define EXT4_IOC_GETVERSION _IOR('f', 3, long)

static u32 may_of(fuse_req_t req)
{
	u32 may = 0;

	/* Whose the file is in an idmapped mount the kernel knows, and has looked. */
	if (fuse_req_ctx(req)->uid == ID_NOT_SAID || req_capable(req, CAP_FOWNER))
		may |= SL_MAY_OWN;
	if (req_capable(req, CAP_LINUX_IMMUTABLE))
		may |= SL_MAY_IMMUTABLE;
	if (req_capable(req, CAP_SYS_RESOURCE))
		may |= SL_MAY_RESOURCE;
	return may;
}

static int get(fuse_req_t req, fuse_ino_t node, struct sl_fileattr *fa)
{
	struct inode *inode;
	int err = req_inode(req, node, &inode);

	if (err)
		return err;
	sl_fileattr_get(inode, fa);
	sl_iput(inode);
	return 0;
}

static int set(fuse_req_t req, fuse_ino_t node, const struct sl_fileattr *fa,
	       u32 what, u32 mask)
{
	struct sl_cred cred = req_cred(req);
	struct inode *inode;
	int err = req_inode(req, node, &inode);

	if (err)
		return err;
	err = sl_fileattr_set(inode, fa, what, mask, may_of(req), &cred);
	sl_iput(inode);
	if (!err)
		session_attrs_changed(fuse_req_userdata(req), node);
	return err;
}

static void get_flags(fuse_req_t req, fuse_ino_t node)
{
	struct sl_fileattr fa;
	int err = get(req, node, &fa);

	if (err)
		reply_status(req, err);
	else
		fuse_reply_ioctl(req, 0, &fa.flags, sizeof(fa.flags));
}

static void set_flags(fuse_req_t req, fuse_ino_t node, const void *in,
		      size_t in_size)
{
	struct sl_fileattr fa = { 0 };
	int err = -EINVAL;

	if (in_size >= sizeof(fa.flags)) {
		memcpy(&fa.flags, in, sizeof(fa.flags));
		err = set(req, node, &fa, SL_FA_FLAGS, UINT32_MAX);
	}
	if (err)
		reply_status(req, err);
	else
		fuse_reply_ioctl(req, 0, NULL, 0);
}

static void get_fsxattr(fuse_req_t req, fuse_ino_t node)
{
	struct fsxattr x = { 0 };
	struct sl_fileattr fa;
	int err = get(req, node, &fa);

	if (err) {
		reply_status(req, err);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(common); i++)
		if (fa.flags & common[i].flag)
			x.fsx_xflags |= common[i].xflag;
	x.fsx_projid = fa.projid;
	fuse_reply_ioctl(req, 0, &x, sizeof(x));
}

static void set_fsxattr(fuse_req_t req, fuse_ino_t node, const void *in,
			size_t in_size)
{
	struct sl_fileattr fa = { 0 };
	struct fsxattr x;
	int err = -EINVAL;

	if (in_size >= sizeof(x)) {
		memcpy(&x, in, sizeof(x));
		/* Others, which the kernel knows, and hints are passed over, as
		 * by ext4. */
		for (size_t i = 0; i < ARRAY_SIZE(common); i++)
			if (x.fsx_xflags & common[i].xflag)
				fa.flags |= common[i].flag;
		fa.projid = x.fsx_projid;
		err = set(req, node, &fa, SL_FA_FLAGS | SL_FA_PROJID, COMMON_FLAGS);
	}
	if (err)
		reply_status(req, err);
	else
		fuse_reply_ioctl(req, 0, NULL, 0);
}

static void get_version(fuse_req_t req, fuse_ino_t node)
{
	struct inode *inode;
	u32 version;
	int err = req_inode(req, node, &inode);

	if (err) {
		reply_status(req, err);
		return;
	}
	version = sl_generation(inode);
	sl_iput(inode);
	/* The number says "long", what is copied is an int. */
	fuse_reply_ioctl(req, 0, &version, sizeof(version));
}

static void fiemap(fuse_req_t req, fuse_ino_t node, const void *in, size_t in_size)
{
	struct sluice_fiemap *f = loop_reply_buffer(sizeof(*f));
	u64 end;
	struct sl_extent *e = malloc(SLUICE_FIEMAP_MAX * sizeof(*e));
	struct inode *inode;
	s32 n = -ENOMEM;

	if (!f || !e)
		goto out;
	n = -EINVAL;
	if (!ioctl_layout_ok(in, in_size, sizeof(*f)))
		goto out;
	memcpy(f, in, offsetof(struct sluice_fiemap, extent));
	memset(f->extent, 0, sizeof(f->extent));
	f->count = 0;
	n = req_inode(req, node, &inode);
	if (n)
		goto out;
	if (f->flags & SLUICE_FIEMAP_XATTR)
		n = sl_fiemap_xattr(inode, e);
	else if (f->length)
		n = sl_fiemap(inode, f->start, f->length,
			      f->flags & SLUICE_FIEMAP_SYNC, e, SLUICE_FIEMAP_MAX);
	sl_iput(inode);
	if (n < 0)
		goto out;
	end = f->length > UINT64_MAX - f->start ? UINT64_MAX : f->start + f->length;
	for (s32 i = 0; i < n; i++) {
		f->extent[i] = (struct sluice_extent){
			.logical = e[i].logical,
			.physical = e[i].physical,
			.length = e[i].length,
			.flags = e[i].flags,
		};
		f->start = e[i].logical + e[i].length;
	}
	f->length = n && f->start < end ? end - f->start : 0;
	f->count = (__u32)n;
out:
	free(e);
	if (n < 0)
		reply_status(req, n);
	else
		fuse_reply_ioctl(req, 0, f, sizeof(*f));
}

bool ioctl_fileattr(fuse_req_t req, fuse_ino_t node, unsigned cmd, const void *in,
		    size_t in_size)
{
	switch (cmd) {
	case FS_IOC_GETFLAGS:
		get_flags(req, node);
		return true;
	case FS_IOC_SETFLAGS:
		set_flags(req, node, in, in_size);
		return true;
	case FS_IOC_FSGETXATTR:
		get_fsxattr(req, node);
		return true;
	case FS_IOC_FSSETXATTR:
		set_fsxattr(req, node, in, in_size);
		return true;
	case FS_IOC_GETVERSION:
	case FS_IOC32_GETVERSION:
	case EXT4_IOC_GETVERSION:
		get_version(req, node);
		return true;
	case SLUICE_IOC_FIEMAP:
		fiemap(req, node, in, in_size);
		return true;
	default:
		return false;
	}
}
