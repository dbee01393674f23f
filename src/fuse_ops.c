/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/fuse_ops.c - FUSE operations: the table, attributes, lookup counts
 *
 * Names, directories and files have files of their own (fuse_*.c). Not served,
 * with ENOSYS by libfuse, upon which the kernel asks no more: access (the
 * kernel checks permissions itself), locks, bmap.
 *
 * Lookup counts: every entry the kernel gets is counted *before* the reply,
 * for the FORGET may come before the reply returns; a reply that did not
 * arrive is taken back.
 *
 * Locks: none. Threads: those of the request loop.
 */
#include "src/fuse_ops.h"

#include <linux/capability.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/caps.h"
#include "src/session.h"

struct super_block *req_sb(fuse_req_t req)
{
	return session_sb(fuse_req_userdata(req));
}

struct sl_cred req_cred(fuse_req_t req)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);

	struct sl_cred cred = { .umask = ctx->umask };

	req_ids(req, &cred.uid, &cred.gid);
	return cred;
}

bool req_loses_sgid(fuse_req_t req, struct inode *inode)
{
	struct stat st;

	sl_getattr(inode, &st);
	return S_ISREG(st.st_mode) &&
	       (st.st_mode & (S_ISGID | S_IXGRP)) == S_ISGID &&
	       !req_in_group(req, st.st_gid) && !req_capable(req, CAP_FSETID);
}

struct sl_cred req_change_cred(fuse_req_t req, struct inode *inode)
{
	struct sl_cred cred = req_cred(req);

	cred.of_group = cred.uid && !req_loses_sgid(req, inode);
	return cred;
}

bool req_is_owner(fuse_req_t req)
{
	u32 uid, gid;

	req_ids(req, &uid, &gid);
	return uid == 0 || uid == geteuid();
}

int req_inode(fuse_req_t req, fuse_ino_t node, struct inode **out)
{
	return sl_iget(req_sb(req), node_to_ino(node), out);
}

void reply_status(fuse_req_t req, int err)
{
	/* A request that was under way when the journal stopped. */
	if (unlikely(err == -EROFS) &&
	    session_is_shut_down(fuse_req_userdata(req)))
		err = -EIO;
	fuse_reply_err(req, -err);
}

int fi_set_file(fuse_req_t req, struct fuse_file_info *fi, struct sl_file *file)
{
	struct handle *h = handle_open(session_handles(fuse_req_userdata(req)),
				       file);

	fi->fh = (uintptr_t)h;
	return h ? 0 : -ENOMEM;
}

void fi_close(struct fuse_file_info *fi)
{
	handle_close((struct handle *)(uintptr_t)fi->fh);
}

/* ---- entries ---- */

/*
 * A WRITE clears suid and sgid here, and the kernel then asks for size and
 * times again, but not for the mode: it would go on to run a program as its
 * owner that another user has just changed. So such modes are not kept.
 */
double attr_timeout(const struct stat *st)
{
	if (S_ISREG(st->st_mode) && (st->st_mode & (S_ISUID | S_ISGID)))
		return 0;
	return FOREVER;
}

void entry_fill(struct fuse_entry_param *e, struct inode *inode)
{
	*e = (struct fuse_entry_param){
		.ino = ino_to_node(sl_ino(inode)),
		.generation = sl_generation(inode),
		.entry_timeout = FOREVER,
	};
	sl_getattr(inode, &e->attr);
	e->attr_timeout = attr_timeout(&e->attr);
	/* The kernel neither counts nor forgets the root. */
	if (e->ino != FUSE_ROOT_ID)
		sl_lookup_inc(inode);
}

void entry_fill_counted(struct fuse_entry_param *e, const struct sl_entry *found)
{
	*e = (struct fuse_entry_param){
		.ino = ino_to_node(found->ino),
		.generation = found->generation,
		.attr = found->st,
		.attr_timeout = attr_timeout(&found->st),
		.entry_timeout = FOREVER,
	};
}

void entry_undo(struct super_block *sb, const struct fuse_entry_param *e)
{
	if (e->ino && e->ino != FUSE_ROOT_ID)
		sl_forget(sb, node_to_ino(e->ino), 1);
}

void reply_entry(fuse_req_t req, struct inode *inode)
{
	struct super_block *sb = req_sb(req);
	struct fuse_entry_param e;

	entry_fill(&e, inode);
	sl_iput(inode);
	if (fuse_reply_entry(req, &e))
		entry_undo(sb, &e);
}

static void forget_one(fuse_req_t req, fuse_ino_t node, u64 n)
{
	if (node != FUSE_ROOT_ID && node != STREAM_NODE)
		sl_forget(req_sb(req), node_to_ino(node), n);
}

static void op_forget(fuse_req_t req, fuse_ino_t node, uint64_t n)
{
	forget_one(req, node, n);
	fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count,
			    struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		forget_one(req, forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

/* ---- attributes ---- */

static void op_getattr(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	struct inode *inode;
	struct stat st;
	int err;

	if (unlikely(node == STREAM_NODE)) {
		stream_getattr(req);
		return;
	}
	err = sl_getattr_ino(req_sb(req), node_to_ino(node), &st);
	if (err == -EAGAIN) {
		err = req_inode(req, node, &inode);
		if (!err) {
			sl_getattr(inode, &st);
			sl_iput(inode);
		}
	}
	if (err)
		reply_status(req, err);
	else
		fuse_reply_attr(req, &st, attr_timeout(&st));
}

static u32 setattr_mask(int to_set)
{
	/* FUSE's KILL_SUIDGID has the number of libfuse's KILL_SUID. */
	static const struct {
		int fuse;
		u32 sl;
	} bits[] = {
		{ FUSE_SET_ATTR_MODE, SL_SET_MODE },
		{ FUSE_SET_ATTR_UID, SL_SET_UID },
		{ FUSE_SET_ATTR_GID, SL_SET_GID },
		{ FUSE_SET_ATTR_SIZE, SL_SET_SIZE },
		{ FUSE_SET_ATTR_ATIME, SL_SET_ATIME },
		{ FUSE_SET_ATTR_MTIME, SL_SET_MTIME },
		{ FUSE_SET_ATTR_ATIME_NOW, SL_SET_ATIME_NOW },
		{ FUSE_SET_ATTR_MTIME_NOW, SL_SET_MTIME_NOW },
		{ FUSE_SET_ATTR_CTIME, SL_SET_CTIME },
		{ FUSE_SET_ATTR_KILL_SUID, SL_KILL_SUIDGID },
	};
	u32 valid = 0;

	for (size_t i = 0; i < ARRAY_SIZE(bits); i++)
		if (to_set & bits[i].fuse)
			valid |= bits[i].sl;
	/* FUSE sends both bits for "now", and the daemon's clock counts. */
	if (valid & SL_SET_ATIME_NOW)
		valid &= ~(u32)SL_SET_ATIME;
	if (valid & SL_SET_MTIME_NOW)
		valid &= ~(u32)SL_SET_MTIME;
	return valid;
}

/*
 * With -o writeback the kernel keeps the times of writes, and tells them at close(2) and
 * fsync(2) or by itself: then as those of a file that is open (as for truncation, but for
 * no utimensat(2)). Meanwhile the file may have become immutable: an error would be
 * that of the close.
 */
static bool is_late_times(fuse_req_t req, int to_set)
{
	return session_writeback(fuse_req_userdata(req)) &&
	       to_set == (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_CTIME);
}

static void op_setattr(fuse_req_t req, fuse_ino_t node, struct stat *attr,
		       int to_set, struct fuse_file_info *fi)
{
	struct sl_cred cred = req_cred(req);
	struct inode *inode;
	struct stat after;
	int err = -EPERM;

	if (node != STREAM_NODE)
		err = req_inode(req, node, &inode);
	if (!err) {
		u32 valid = setattr_mask(to_set);

		/* chown() to nobody and no group: suid and sgid go all the same, but
		 * FUSE has no word for it. With -o writeback there is a ctime. */
		if (!(to_set & ~FUSE_SET_ATTR_CTIME))
			valid |= SL_KILL_SUIDGID;
		if (fi && is_late_times(req, to_set))
			valid |= SL_SET_DELAYED;
		if (valid & SL_KILL_SUIDGID && req_loses_sgid(req, inode))
			valid |= SL_KILL_SGID;
		err = sl_setattr(inode, attr, valid, &cred, &after);
		sl_iput(inode);
	}
	if (err)
		reply_status(req, err);
	else
		fuse_reply_attr(req, &after, attr_timeout(&after));
}

static void op_statfs(fuse_req_t req, fuse_ino_t node)
{
	struct statvfs st;
	int err = sl_statfs(req_sb(req), &st);

	if (err)
		reply_status(req, err);
	else
		fuse_reply_statfs(req, &st);
}

/* ---- the session ---- */

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	session_init(userdata, conn);
}

static void op_destroy(void *userdata)
{
	session_destroy_request(userdata);
}

const struct fuse_lowlevel_ops sluice_fuse_ops = {
	.init = op_init,
	.destroy = op_destroy,
	.lookup = op_lookup,
	.forget = op_forget,
	.forget_multi = op_forget_multi,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.readlink = op_readlink,
	.mknod = op_mknod,
	.mkdir = op_mkdir,
	.unlink = op_unlink,
	.rmdir = op_rmdir,
	.symlink = op_symlink,
	.rename = op_rename,
	.link = op_link,
	.open = op_open,
	.create = op_create,
	.read = op_read,
	.write = op_write,
	.flush = op_flush,
	.release = op_release,
	.fsync = op_fsync,
	.opendir = op_opendir,
	.readdir = op_readdir,
	.readdirplus = op_readdirplus,
	.releasedir = op_release,
	.fsyncdir = op_fsync,
	.statfs = op_statfs,
	.fallocate = op_fallocate,
	.copy_file_range = op_copy_file_range,
	.lseek = op_lseek,
	.bmap = op_bmap,
	.ioctl = op_ioctl,
	.getxattr = op_getxattr,
	.listxattr = op_listxattr,
	.setxattr = op_setxattr,
	.removexattr = op_removexattr,
};
