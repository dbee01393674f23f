/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/copy.c - copying between files of a volume
 *
 * Piece by piece through a buffer, by the ordinary read and write: what was in the
 * cache is copied from it, space is reserved and errors come as for any writer. No
 * lock is held over the copy, nor from a read to its write. Pieces end where whole
 * blocks of the target do. Holes are copied as zeroes.
 *
 * Locks:  none here
 */
#include "fs/ext4.h"

#define PIECE (1u << 20)

static int check_files(struct sl_file *in, struct sl_file *out)
{
	const struct inode *from = sl_file_inode(in), *to = sl_file_inode(out);

	if (S_ISDIR(from->i_mode) || S_ISDIR(to->i_mode))
		return -EISDIR;
	if (from->i_sb != to->i_sb)
		return -EXDEV;
	if (!(ext4_file_flags(out) & SL_OPEN_WRITE) ||
	    ext4_file_flags(out) & SL_OPEN_APPEND)
		return -EBADF;
	return 0;
}

/* How much of len there is to be copied. */
static s64 copy_len(struct sl_file *in, u64 off_in, struct sl_file *out, u64 off_out,
		    size_t len)
{
	struct inode *from = sl_file_inode(in);
	u64 n, size;

	if (off_in > INT64_MAX || off_out > INT64_MAX || len > INT64_MAX - off_in ||
	    len > INT64_MAX - off_out)
		return -EOVERFLOW;
	spin_lock(&from->i_lock);
	size = from->i_size;
	spin_unlock(&from->i_lock);
	n = off_in < size ? min_of((u64)len, size - off_in) : 0;
	if (from == sl_file_inode(out) && off_out + n > off_in && off_out < off_in + n)
		return -EINVAL;
	return (s64)min_of(n, (u64)SL_COPY_MAX);
}

/* Bytes copied, or the error if it came before any. */
static ssize_t copy_pieces(struct sl_file *in, u64 off_in, struct sl_file *out,
			   u64 off_out, size_t len, void *buf, const struct sl_cred *cred)
{
	size_t done = 0;

	while (done < len) {
		u32 room = PIECE - (u32)((off_out + done) % PIECE);
		size_t want = min_of((size_t)room, len - done);
		ssize_t n = sl_read(in, buf, want, off_in + done), put;

		if (n == 0)
			break; /* cut meanwhile */
		put = n < 0 ? n : sl_write(out, buf, (size_t)n, off_out + done, 0, cred);
		if (put < 0)
			return done ? (ssize_t)done : put;
		done += (size_t)put;
		if (put < n)
			break;
	}
	return (ssize_t)done;
}

ssize_t sl_copy_file_range(struct sl_file *in, u64 off_in, struct sl_file *out,
			   u64 off_out, size_t len, const struct sl_cred *cred)
{
	struct ext4_inode *to = EXT4_I(sl_file_inode(out));
	int err = check_files(in, out);
	ssize_t n;
	void *buf;

	if (!err)
		err = ext4_write_allowed(to, off_out, 0);
	if (err)
		return err;
	n = copy_len(in, off_in, out, off_out, len);
	if (n <= 0)
		return n;
	/* As fallocate: the request does not say whether to. */
	if (cred && cred->uid) {
		err = ext4_kill_suidgid(to, cred->gid != to->vfs.i_gid &&
						    !cred->of_group);
		if (err)
			return err;
	}
	buf = io_alloc((size_t)min_of(ALIGN_UP((u64)n, 4096ull), (u64)PIECE));
	if (!buf)
		return -ENOMEM;
	n = copy_pieces(in, off_in, out, off_out, (size_t)n, buf, cred);
	io_free(buf);
	return n;
}
