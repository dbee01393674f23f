/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/fuse_files.c - FUSE operations on open files
 *
 * The kernel has checked access modes and keeps O_APPEND: a WRITE has its
 * place. The write-back of mmap, and of all writes with -o writeback, may come
 * through any handle of the file; and with that, before a part of a page is
 * written, a READ through one that is open for writing only.
 *
 * The stream of inodes is no file of the volume, and is never open for writing:
 * what takes a descriptor that is, does not look for it.
 *
 * Locks: none. Threads: those of the request loop. See fuse_ops.h.
 */
#include "src/fuse_ops.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "src/loop.h"
#include "src/session.h"

/* Of smaller writes the cache makes a copy. */
#define ADOPT_MIN (64u << 10)

static u32 open_flags(int flags)
{
	u32 sl = 0;

	if ((flags & O_ACCMODE) != O_RDONLY)
		sl |= SL_OPEN_WRITE;
	if ((flags & O_ACCMODE) != O_WRONLY)
		sl |= SL_OPEN_READ;
	if (flags & O_TRUNC)
		sl |= SL_OPEN_TRUNC;
	if (flags & O_APPEND)
		sl |= SL_OPEN_APPEND;
	/* O_SYNC includes the bit of O_DSYNC */
	if ((flags & O_SYNC) == O_SYNC)
		sl |= SL_OPEN_SYNC;
	else if (flags & O_DSYNC)
		sl |= SL_OPEN_DSYNC;
	return sl;
}

/* -ENOMEM: the file is released. */
static int set_handle(fuse_req_t req, struct fuse_file_info *fi,
		      struct sl_file *file)
{
	/*
	 * With strictatime what the kernel has in memory goes at each open, or
	 * it would answer reads of it without a word to us.
	 */
	fi->keep_cache = !session_strict_atime(fuse_req_userdata(req));
	/*
	 * close(2) tells no error of writing, as with the kernel's ext4: what
	 * was not written out by then it could not tell anyway. fsync(2) does,
	 * and whoever opens the file next learns of what nobody was told. So
	 * the kernel need not ask. (With -o writeback it does.)
	 */
	fi->noflush = 1;
	sl_file_set_noatime(file, fi->flags & O_NOATIME);
	/* The kernel says of no page that it writes back whose it is: with writes that it
	 * delays, everybody would use the blocks that are reserved. */
	if ((fi->flags & O_ACCMODE) != O_RDONLY) {
		struct sl_cred cred = req_cred(req);

		sl_file_set_opener(file, &cred);
	}
	return fi_set_file(req, fi, file);
}

void op_open(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	struct sl_file *file;
	struct inode *inode;
	int err;

	if (unlikely(node == STREAM_NODE)) {
		stream_open(req, fi);
		return;
	}
	err = req_inode(req, node, &inode);
	if (!err) {
		u32 flags = open_flags(fi->flags);

		if (session_kills_suidgid())
			flags |= SL_OPEN_KILL_SUIDGID;
		if (flags & SL_OPEN_KILL_SUIDGID && req_loses_sgid(req, inode))
			flags |= SL_OPEN_KILL_SGID;
		err = sl_open(inode, flags, &file);
		sl_iput(inode);
	}
	if (!err)
		err = set_handle(req, fi, file);
	if (err) {
		reply_status(req, err);
		return;
	}
	if (fuse_reply_open(req, fi))
		fi_close(fi); /* interrupted: no RELEASE will come */
}

void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
	       struct fuse_file_info *fi)
{
	struct super_block *sb = req_sb(req);
	struct sl_cred cred = req_cred(req);
	struct fuse_entry_param e;
	struct inode *dir, *inode;
	struct sl_file *file;
	int err = req_inode(req, parent, &dir);

	if (err)
		goto out_reply;
	if (session_is_tmpfile())
		err = sl_tmpfile(dir, mode, &cred, &inode);
	else
		err = sl_mknod(dir, name, strlen(name),
			       (mode & ~(mode_t)S_IFMT) | S_IFREG, 0, &cred, &inode);
	sl_iput(dir);
	if (err)
		goto out_reply;
	/* New and empty: nothing to truncate. */
	err = sl_open(inode, open_flags(fi->flags & ~O_TRUNC), &file);
	if (!err)
		err = set_handle(req, fi, file);
	if (err) {
		sl_iput(inode);
		goto out_reply;
	}
	entry_fill(&e, inode);
	sl_iput(inode);
	if (fuse_reply_create(req, &e, fi)) {
		fi_close(fi);
		entry_undo(sb, &e);
	}
	return;
out_reply:
	reply_status(req, err);
}

void op_read(fuse_req_t req, fuse_ino_t node, size_t size, off_t off,
	     struct fuse_file_info *fi)
{
	char *buf;
	ssize_t n;

	if (unlikely(node == STREAM_NODE)) {
		stream_read(req, size, fi);
		return;
	}
	sl_file_set_noatime(fi_file(fi), fi->flags & O_NOATIME);
	buf = loop_reply_buffer(size);
	n = buf ? sl_read(fi_file(fi), buf, size, (u64)off) : -ENOMEM;
	if (n < 0)
		reply_status(req, (int)n);
	else
		fuse_reply_buf(req, buf, (size_t)n);
}

/*
 * Of a direct write that ends short the kernel makes -EIO (asynchronous or not). Why it
 * is short says a write of the rest; which is what ext4 in the kernel
 * returns, with part of the data written.
 */
static ssize_t write_all(struct sl_file *file, struct region *region, char *buf,
			 size_t size, u64 pos, u32 flags, const struct sl_cred *cred)
{
	size_t done = 0;
	ssize_t n;

	do {
		n = sl_write_region(file, region, buf + done, size - done,
				    pos + done, flags, cred);
		if (n > 0)
			done += (size_t)n;
	} while (n > 0 && done < size && flags & SL_WRITE_DIRECT);
	return n < 0 ? n : (ssize_t)done;
}

void op_write(fuse_req_t req, fuse_ino_t node, const char *buf, size_t size,
	      off_t off, struct fuse_file_info *fi)
{
	struct sl_cred cred = req_cred(req);
	u32 flags = 0;
	struct region *region = NULL;
	ssize_t n;

	if (session_kills_suidgid()) {
		flags |= SL_WRITE_KILL_SUIDGID;
		if (req_loses_sgid(req, sl_file_inode(fi_file(fi))))
			flags |= SL_WRITE_KILL_SGID;
	}

	/* What was written when is the kernel's to know, then; it tells by
	 * SETATTR. This may come much later, and may come after that. */
	if (session_writeback(fuse_req_userdata(req)))
		flags |= SL_WRITE_KEEP_TIMES;
	/* Not for pages of a mapping, which may come through any handle. */
	if (fi->flags & O_DIRECT && !fi->writepage)
		flags |= SL_WRITE_DIRECT;
	if (fi->writepage)
		flags |= SL_WRITE_DELAYED;
	/* Direct ones go past the cache, as a rule. */
	if (size >= ADOPT_MIN && !(flags & SL_WRITE_DIRECT))
		region = loop_request_region();
	/* Where the request lies, nobody but us writes. */
	n = write_all(fi_file(fi), region, (char *)buf, size, (u64)off, flags, &cred);

	if (n < 0)
		reply_status(req, (int)n);
	else
		fuse_reply_write(req, (size_t)n);
}

void op_flush(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	reply_status(req, node == STREAM_NODE ? 0 : sl_flush(fi_file(fi)));
}

/* Also of directories. */
void op_release(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	fi_close(fi);
	reply_status(req, 0);
}

/* Also of directories. */
void op_fsync(fuse_req_t req, fuse_ino_t node, int datasync,
	      struct fuse_file_info *fi)
{
	reply_status(req, node == STREAM_NODE ? -EINVAL :
						sl_fsync(fi_file(fi), datasync));
}

void op_fallocate(fuse_req_t req, fuse_ino_t node, int mode, off_t off,
		  off_t len, struct fuse_file_info *fi)
{
	struct sl_cred cred = req_change_cred(req, sl_file_inode(fi_file(fi)));
	int err = -EINVAL;

	if (off >= 0 && len > 0)
		err = sl_fallocate(fi_file(fi), mode, (u64)off, (u64)len, &cred);
	reply_status(req, err);
}

/* The kernel keeps what it knows of the source, and knows of no reading by a copy. */
static void source_was_read(fuse_req_t req, fuse_ino_t node, struct sl_file *file,
			    const struct timespec *before)
{
	struct stat st;

	sl_getattr(sl_file_inode(file), &st);
	if (st.st_atim.tv_sec != before->tv_sec ||
	    st.st_atim.tv_nsec != before->tv_nsec)
		session_attrs_changed(fuse_req_userdata(req), node);
}

static ssize_t copy_range(fuse_req_t req, fuse_ino_t node_in, off_t off_in,
			  struct sl_file *in, off_t off_out, struct sl_file *out,
			  size_t len)
{
	struct sl_cred cred = req_change_cred(req, sl_file_inode(out));
	struct stat before;
	ssize_t n;

	sl_getattr(sl_file_inode(in), &before);
	n = sl_copy_file_range(in, (u64)off_in, out, (u64)off_out, len, &cred);
	if (n > 0)
		source_was_read(req, node_in, in, &before.st_atim);
	return n;
}

/*
 * Within this mount only: between two the kernel copies by itself. It has written
 * back what it has dirty of both ranges, keeps RLIMIT_FSIZE, and drops what it
 * cached of the target.
 */
void op_copy_file_range(fuse_req_t req, fuse_ino_t node_in, off_t off_in,
			struct fuse_file_info *fi_in, fuse_ino_t node_out,
			off_t off_out, struct fuse_file_info *fi_out, size_t len,
			int flags)
{
	ssize_t n = -EINVAL;

	if (node_in == STREAM_NODE)
		n = -EOPNOTSUPP; /* the kernel reads and writes, then */
	else if (!flags && off_in >= 0 && off_out >= 0)
		n = copy_range(req, node_in, off_in, fi_file(fi_in), off_out,
			       fi_file(fi_out), len);
	if (n < 0)
		reply_status(req, (int)n);
	else
		fuse_reply_write(req, (size_t)n);
}

void op_lseek(fuse_req_t req, fuse_ino_t node, off_t off, int whence,
	      struct fuse_file_info *fi)
{
	s64 pos = -EINVAL;

	if (node == STREAM_NODE)
		pos = -ESPIPE;
	else if (whence == SEEK_DATA || whence == SEEK_HOLE)
		pos = off < 0 ? -ENXIO : sl_lseek(fi_file(fi), (u64)off, whence);
	if (pos < 0)
		reply_status(req, (int)pos);
	else
		fuse_reply_lseek(req, pos);
}

/*
 * The kernel asks on type fuseblk only, for ioctl(FIBMAP), and for swapon(2): it then reads
 * and writes the blocks itself, and refuses all changes of the file until swapoff(2).
 * Blocks are those of the mount (see mount_block_size()). An image has none that
 * are blocks of a device which anybody but the daemon should write to.
 */
void op_bmap(fuse_req_t req, fuse_ino_t node, size_t blocksize, uint64_t index)
{
	struct inode *inode;
	u64 where = 0;
	int err = -EINVAL;

	if (node == STREAM_NODE || !session_on_device(fuse_req_userdata(req)) ||
	    !blocksize || blocksize > UINT32_MAX || index > INT64_MAX / blocksize) {
		reply_status(req, err);
		return;
	}
	err = req_inode(req, node, &inode);
	if (!err) {
		err = sl_bmap(inode, index * blocksize, (u32)blocksize, &where);
		sl_iput(inode);
	}
	if (err)
		reply_status(req, err);
	else
		fuse_reply_bmap(req, where % blocksize ? 0 : where / blocksize);
}
