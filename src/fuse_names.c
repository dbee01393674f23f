/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/fuse_names.c - FUSE operations on names: lookup, creation, removal, rename
 *
 * Locks: none. Threads: those of the request loop. See fuse_ops.h.
 */
#include "src/fuse_ops.h"

#include <limits.h>
#include <linux/fs.h>
#include <string.h>

/* The kernel may keep "no such name" until the name is created through it. */
static void reply_negative(fuse_req_t req)
{
	struct fuse_entry_param e = { .entry_timeout = FOREVER };

	fuse_reply_entry(req, &e);
}

/* By that the kernel makes a file handle an inode again, even of a file. */
static bool is_dot(const char *name)
{
	return name[0] == '.' && !name[1];
}

static int lookup(fuse_req_t req, fuse_ino_t parent, const char *name,
		  struct inode **out)
{
	struct inode *dir;
	int err = req_inode(req, parent, &dir);

	if (err)
		return err;
	if (is_dot(name)) {
		struct stat st;

		sl_getattr(dir, &st);
		/* One that is removed, and yet open, the kernel would not have asked
		 * for: its FORGET is on its way. */
		if (!st.st_nlink) {
			sl_iput(dir);
			return -ESTALE;
		}
		*out = dir;
		return 0;
	}
	err = sl_lookup(dir, name, strlen(name), out);
	sl_iput(dir);
	return err;
}

/* The directory has no such name. */
static void reply_none(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	if (stream_is_named(parent, name))
		stream_lookup(req);
	else
		reply_negative(req);
}

/* Without a lock, if all is cached; -EAGAIN: in the ordinary way. */
static int lookup_cached(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct super_block *sb = req_sb(req);
	struct fuse_entry_param e;
	struct sl_entry found;
	int err = sl_lookup_cached(sb, node_to_ino(parent), name, strlen(name),
				   &found);

	if (err == -ENOENT) {
		reply_none(req, parent, name);
	} else if (!err) {
		entry_fill_counted(&e, &found);
		if (fuse_reply_entry(req, &e))
			entry_undo(sb, &e);
	}
	return err;
}

void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct inode *inode;
	int err = is_dot(name) ? -EAGAIN : lookup_cached(req, parent, name);

	if (err != -EAGAIN)
		return;
	err = lookup(req, parent, name, &inode);
	if (!err)
		reply_entry(req, inode);
	else if (err == -ENOENT)
		reply_none(req, parent, name);
	else
		reply_status(req, err);
}

static void reply_created(fuse_req_t req, struct inode *dir, int err,
			  struct inode *inode)
{
	sl_iput(dir);
	if (err)
		reply_status(req, err);
	else
		reply_entry(req, inode);
}

void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
	      dev_t rdev)
{
	struct sl_cred cred = req_cred(req);
	struct inode *dir = NULL, *inode = NULL;
	int err = req_inode(req, parent, &dir);

	if (!err)
		err = sl_mknod(dir, name, strlen(name), mode, rdev, &cred,
			       &inode);
	reply_created(req, dir, err, inode);
}

void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct sl_cred cred = req_cred(req);
	struct inode *dir = NULL, *inode = NULL;
	int err = req_inode(req, parent, &dir);

	if (!err)
		err = sl_mkdir(dir, name, strlen(name), mode, &cred, &inode);
	reply_created(req, dir, err, inode);
}

void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent,
		const char *name)
{
	struct sl_cred cred = req_cred(req);
	struct inode *dir = NULL, *inode = NULL;
	int err = req_inode(req, parent, &dir);

	if (!err)
		err = sl_symlink(dir, name, strlen(name), target, &cred,
				 &inode);
	reply_created(req, dir, err, inode);
}

void op_link(fuse_req_t req, fuse_ino_t node, fuse_ino_t newparent,
	     const char *newname)
{
	struct inode *inode, *dir;
	int err = -EPERM;

	if (node != STREAM_NODE)
		err = req_inode(req, node, &inode);
	if (err)
		goto out_reply;
	err = req_inode(req, newparent, &dir);
	if (err)
		goto out_put;
	err = sl_link(inode, dir, newname, strlen(newname));
	sl_iput(dir);
	if (!err) {
		reply_entry(req, inode);
		return;
	}
out_put:
	sl_iput(inode);
out_reply:
	reply_status(req, err);
}

void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct inode *dir;
	int err = req_inode(req, parent, &dir);

	if (!err) {
		err = sl_unlink(dir, name, strlen(name));
		sl_iput(dir);
	}
	reply_status(req, err);
}

void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct inode *dir;
	int err = req_inode(req, parent, &dir);

	if (!err) {
		err = sl_rmdir(dir, name, strlen(name));
		sl_iput(dir);
	}
	reply_status(req, err);
}

void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name,
	       fuse_ino_t newparent, const char *newname, unsigned flags)
{
	struct sl_cred cred = req_cred(req);
	struct inode *from, *to;
	int err = req_inode(req, parent, &from);

	if (err)
		goto out_reply;
	err = req_inode(req, newparent, &to);
	if (err)
		goto out_put;
	if (flags & RENAME_WHITEOUT) /* the kernel has looked for CAP_MKNOD */
		err = sl_rename_whiteout(from, name, strlen(name), to, newname,
					 strlen(newname), flags & ~RENAME_WHITEOUT,
					 &cred);
	else
		err = sl_rename(from, name, strlen(name), to, newname,
				strlen(newname), flags);
	sl_iput(to);
out_put:
	sl_iput(from);
out_reply:
	reply_status(req, err);
}

void op_readlink(fuse_req_t req, fuse_ino_t node)
{
	char target[PATH_MAX + 1];
	struct inode *inode;
	ssize_t n = req_inode(req, node, &inode);

	if (!n) {
		n = sl_readlink(inode, target, sizeof(target));
		sl_iput(inode);
	}
	if (n < 0)
		reply_status(req, (int)n);
	else
		fuse_reply_readlink(req, target);
}
