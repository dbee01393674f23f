/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/fuse_move.c - EXT4_IOC_MOVE_EXT: a file's data moves to the blocks of another one
 *
 * What e4defrag(8) asks for. The donor is a descriptor of the sender's, see sender_file.h.
 *
 * Of the file the kernel keeps its pages: what it reads is the same. The donor reads as zero
 * afterwards, and what was written to it before must not come after: so the kernel
 * writes and drops its pages of it before, and drops after what has come in between.
 *
 * Locks: none. Threads: those of the request loop.
 */
#include "src/fuse_ops.h"

#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>

#include "cache/super.h"
#include "src/sender_file.h"
#include "src/session.h"

/* As the kernel's ext4 has it; blocks. */
struct move_extent {
	__u32 reserved;
	__u32 donor_fd;
	__u64 orig_start;
	__u64 donor_start;
	__u64 len;
	__u64 moved_len; /* out, also with an error */
};
#define EXT4_IOC_MOVE_EXT _IOWR('f', 15, struct move_extent)

_Static_assert(sizeof(struct move_extent) == 40, "layout");

static int move(fuse_req_t req, struct sl_file *file, struct inode *donor,
		struct move_extent *a)
{
	struct session *s = fuse_req_userdata(req);
	fuse_ino_t node = ino_to_node(sl_ino(donor));
	u64 moved = 0, off = a->donor_start * req_sb(req)->s_blocksize;
	int err, err2;

	if (a->donor_start > UINT32_MAX)
		return -EINVAL;
	/* For both times, as in fuse_shift.c. */
	err = session_drop_begin(s);
	if (err)
		return err;
	err = session_drop_pages(s, node, off);
	if (!err) {
		err = sl_move_extents(file, donor, a->orig_start, a->donor_start, a->len,
				      &moved);
		err2 = session_drop_pages(s, node, off);
		err = err ? err : err2;
	}
	session_drop_end(s);
	a->moved_len = moved;
	return err;
}

static int find_and_move(fuse_req_t req, struct handle *h, struct move_extent *a)
{
	struct inode *donor;
	int accmode, err = req_file(req, a->donor_fd, &donor, &accmode);

	if (err)
		return err;
	err = accmode == O_RDONLY ? -EBADF : move(req, h->file, donor, a);
	sl_iput(donor);
	return err;
}

bool ioctl_move(fuse_req_t req, unsigned cmd, struct handle *h, unsigned flags,
		const void *in, size_t in_size)
{
	struct move_extent a;
	int err;

	if (cmd != EXT4_IOC_MOVE_EXT)
		return false;
	if (flags & FUSE_IOCTL_DIR) {
		reply_status(req, -EBADF);
		return true;
	}
	if (in_size < sizeof(a)) {
		reply_status(req, -EINVAL);
		return true;
	}
	memcpy(&a, in, sizeof(a));
	a.moved_len = 0;
	err = find_and_move(req, h, &a);
	/* The number of blocks goes along with the error. */
	if (err && a.moved_len)
		fuse_reply_ioctl(req, err, &a, sizeof(a));
	else if (err)
		reply_status(req, err);
	else
		fuse_reply_ioctl(req, 0, &a, sizeof(a));
	return true;
}
