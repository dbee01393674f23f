/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/fuse_ops.h - FUSE operations: what their files share
 *
 * Decode, call fs/fs.h, reply. An operation replies last, with no lock and no
 * inode held: the reply may be what lets the kernel forget the inode.
 *
 * Node ids are inode numbers but for the root, which is 1 to FUSE and 2 on
 * the volume. Inode 1 of the volume (bad blocks) is never exposed, so id 2
 * never occurs.
 *
 * Locks: none. Threads: those of the request loop.
 */
#ifndef SLUICE_SRC_FUSE_OPS_H
#define SLUICE_SRC_FUSE_OPS_H

#ifndef FUSE_USE_VERSION
#define FUSE_USE_VERSION 314
#endif
#include <fuse3/fuse_lowlevel.h>

#include "fs/fs.h"
#include "src/handles.h"

#define VOLUME_ROOT_INO 2u
/* The stream of inodes (fuse_stream.c); no inode has this number. */
#define STREAM_NODE ((fuse_ino_t)1 << 32)

/* Seconds: the volume is ours alone, so nothing the kernel knows goes stale. */
#define FOREVER (86400.0 * 365.0)

struct sluice_inode;

extern const struct fuse_lowlevel_ops sluice_fuse_ops;

static inline u64 node_to_ino(fuse_ino_t node)
{
	return node == FUSE_ROOT_ID ? VOLUME_ROOT_INO : node;
}

static inline fuse_ino_t ino_to_node(u64 ino)
{
	return ino == VOLUME_ROOT_INO ? FUSE_ROOT_ID : ino;
}

struct super_block *req_sb(fuse_req_t req);
struct sl_cred req_cred(fuse_req_t req);
/*
 * Does a change of this file by the sender take setgid away even where the group may not
 * execute it? Not if he is of the file's group, by a further one, too, or has
 * CAP_FSETID. Reads /proc, only where it matters.
 */
bool req_loses_sgid(fuse_req_t req, struct inode *inode);
/* req_cred(), with what sl_fallocate() and sl_copy_file_range() want to know of that. */
struct sl_cred req_change_cred(fuse_req_t req, struct inode *inode);
/*
 * The superuser, or the user that the daemon runs as? The kernel passes the user as
 * he is in the user namespace that the mount was made in, so "0" is that one's; who is
 * nobody there is (uid_t)-1, and so neither.
 */
bool req_is_owner(fuse_req_t req);
/* For how long the kernel may keep these, in seconds. */
double attr_timeout(const struct stat *st);
/* The inode of a node id, referenced. */
int __must_check req_inode(fuse_req_t req, fuse_ino_t node, struct inode **out);
/* err: 0 or a negative errno. */
void reply_status(fuse_req_t req, int err);
/* Fills an entry for the kernel and counts it as looked up. */
void entry_fill(struct fuse_entry_param *e, struct inode *inode);
/* The same of one that has been counted. */
void entry_fill_counted(struct fuse_entry_param *e, const struct sl_entry *found);
/* The kernel did not get the entry: takes the count back. */
void entry_undo(struct super_block *sb, const struct fuse_entry_param *e);
/* Replies with an entry of the inode; drops the reference. */
void reply_entry(fuse_req_t req, struct inode *inode);

static inline struct sl_file *fi_file(const struct fuse_file_info *fi)
{
	return ((struct handle *)(uintptr_t)fi->fh)->file;
}

/* Makes an open file the kernel's: sets fh. -ENOMEM: the file is released. */
int __must_check fi_set_file(fuse_req_t req, struct fuse_file_info *fi,
			     struct sl_file *file);
/* Ends that, and releases the file. */
void fi_close(struct fuse_file_info *fi);

/* fuse_names.c */
void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
	      dev_t rdev);
void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent,
		const char *name);
void op_link(fuse_req_t req, fuse_ino_t node, fuse_ino_t newparent,
	     const char *newname);
void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name,
	       fuse_ino_t newparent, const char *newname, unsigned flags);
void op_readlink(fuse_req_t req, fuse_ino_t node);

/* fuse_dirs.c */
void op_opendir(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi);
void op_readdir(fuse_req_t req, fuse_ino_t node, size_t size, off_t off,
		struct fuse_file_info *fi);
void op_readdirplus(fuse_req_t req, fuse_ino_t node, size_t size, off_t off,
		    struct fuse_file_info *fi);

/* fuse_ioctl.c */
void op_ioctl(fuse_req_t req, fuse_ino_t node, unsigned cmd, void *arg,
	      struct fuse_file_info *fi, unsigned flags, const void *in,
	      size_t in_size, size_t out_size);

/* fuse_xattr.c */
void op_getxattr(fuse_req_t req, fuse_ino_t node, const char *name, size_t size);
void op_listxattr(fuse_req_t req, fuse_ino_t node, size_t size);
void op_setxattr(fuse_req_t req, fuse_ino_t node, const char *name,
		 const char *value, size_t size, int flags);
void op_removexattr(fuse_req_t req, fuse_ino_t node, const char *name);

/* in has `size` bytes, of which the first two words are version and size. */
bool ioctl_layout_ok(const void *in, size_t in_size, size_t size);
void put_inode(struct sluice_inode *out, const struct sl_bulkstat_rec *r);

/* fuse_fileattr.c: replies, if it is an ioctl of files; else false. */
bool ioctl_fileattr(fuse_req_t req, fuse_ino_t node, unsigned cmd, const void *in,
		    size_t in_size);

/* fuse_shift.c: the same for what changes an open file. */
bool ioctl_shift(fuse_req_t req, fuse_ino_t node, unsigned cmd, struct handle *h,
		 const void *in, size_t in_size);

/* fuse_move.c: the same for what moves data to another file's blocks. flags: FUSE_IOCTL_DIR. */
bool ioctl_move(fuse_req_t req, unsigned cmd, struct handle *h, unsigned flags,
		const void *in, size_t in_size);

/* fuse_volume.c: the same for those of the whole volume. */
bool ioctl_volume(fuse_req_t req, unsigned cmd, void *arg, const void *in,
		  size_t in_size);

/* fuse_stream.c: operations that the others hand on, if node is STREAM_NODE */
bool stream_is_named(fuse_ino_t parent, const char *name);
void stream_lookup(fuse_req_t req);
struct stat stream_attrs(void);
void stream_getattr(fuse_req_t req);
void stream_open(fuse_req_t req, struct fuse_file_info *fi);
void stream_read(fuse_req_t req, size_t size, struct fuse_file_info *fi);
void stream_ioctl(fuse_req_t req, struct handle *h, const void *in, size_t in_size);

/* fuse_files.c */
void op_open(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi);
void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
	       struct fuse_file_info *fi);
void op_read(fuse_req_t req, fuse_ino_t node, size_t size, off_t off,
	     struct fuse_file_info *fi);
void op_write(fuse_req_t req, fuse_ino_t node, const char *buf, size_t size,
	      off_t off, struct fuse_file_info *fi);
void op_flush(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi);
void op_release(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi);
void op_fsync(fuse_req_t req, fuse_ino_t node, int datasync,
	      struct fuse_file_info *fi);
void op_fallocate(fuse_req_t req, fuse_ino_t node, int mode, off_t off,
		  off_t len, struct fuse_file_info *fi);
void op_copy_file_range(fuse_req_t req, fuse_ino_t node_in, off_t off_in,
			struct fuse_file_info *fi_in, fuse_ino_t node_out,
			off_t off_out, struct fuse_file_info *fi_out, size_t len,
			int flags);
void op_lseek(fuse_req_t req, fuse_ino_t node, off_t off, int whence,
	      struct fuse_file_info *fi);
void op_bmap(fuse_req_t req, fuse_ino_t node, size_t blocksize, uint64_t index);

#endif
