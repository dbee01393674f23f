/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/fuse_shift.c - ranges taken out of a file, or put in: past the kernel, by an ioctl
 *
 * The kernel's FUSE knows of no such thing, and so has no idea that what it keeps of the
 * file lies elsewhere now. It is told twice, by the thread that may do that (dropper.h):
 *
 *   before   what is dirty in its pages (mappings) is written, where it belongs
 *   ...      the file is changed; who reads or faults meanwhile gets what was, or what is
 *   after    what came into its pages in between goes, and the size is asked for anew
 *
 * Nothing keeps a page from being made dirty through a mapping in that short time, before
 * the change, and from being written after it, over what has come to its place: the kernel
 * would have to lock the mapping for us. Reads and writes by system calls are requests, and
 * come before the change or after it.
 *
 * With -o writeback the kernel believes no size but its own: refused.
 *
 * Locks: none. Threads: those of the request loop.
 */
#include "src/fuse_ops.h"

#include <linux/falloc.h>
#include <stddef.h>
#include <string.h>

#include "src/session.h"
#include "src/sluice_ioctl.h"

_Static_assert(sizeof(struct sluice_shift) == 32, "layout");

static int shift(fuse_req_t req, fuse_ino_t node, struct sl_file *file,
		 const struct sluice_shift *a)
{
	struct session *s = fuse_req_userdata(req);
	struct sl_cred cred;
	int err, err2;

	if (session_writeback(s))
		return -EOPNOTSUPP;
	if (a->offset > INT64_MAX || !a->length || a->length > INT64_MAX)
		return -EINVAL;
	if (a->mode != FALLOC_FL_COLLAPSE_RANGE && a->mode != FALLOC_FL_INSERT_RANGE)
		return -EOPNOTSUPP;
	cred = req_change_cred(req, sl_file_inode(file));
	/* For both times: what has moved must not be left without the second. */
	err = session_drop_begin(s);
	if (err)
		return err;
	err = session_drop_pages(s, node, a->offset);
	if (!err) {
		err = sl_fallocate(file, (int)a->mode, a->offset, a->length, &cred);
		/* After an error, too: something may have moved. */
		err2 = session_drop_pages(s, node, a->offset);
		err = err ? err : err2;
	}
	session_drop_end(s);
	return err;
}

bool ioctl_shift(fuse_req_t req, fuse_ino_t node, unsigned cmd, struct handle *h,
		 const void *in, size_t in_size)
{
	struct sluice_shift a;
	int err = -EINVAL;

	if (cmd != SLUICE_IOC_SHIFT)
		return false;
	if (ioctl_layout_ok(in, in_size, sizeof(a))) {
		memcpy(&a, in, sizeof(a));
		err = shift(req, node, h->file, &a);
	}
	if (err)
		reply_status(req, err);
	else
		fuse_reply_ioctl(req, 0, NULL, 0);
	return true;
}
