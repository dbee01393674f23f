/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/fuse_dirs.c - FUSE operations on open directories
 *
 * READDIRPLUS is made in two passes over its reply: sl_readdir() calls back
 * with the directory locked, where an inode must not be looked at (its last
 * put may delete it), so the names are written first, and the inodes filled in
 * afterwards. In between no name can change its inode: the kernel holds its
 * own lock of the directory until the reply, and changes come only from it.
 *
 * Locks: none. Threads: those of the request loop. See fuse_ops.h.
 */
#include "src/fuse_ops.h"

#include <linux/fuse.h>
#include <string.h>

#include "src/loop.h"

#define NAME_MAX_BYTES 255u

void op_opendir(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	struct sl_file *file;
	struct inode *dir;
	int err = req_inode(req, node, &dir);

	if (!err) {
		err = sl_opendir(dir, &file);
		sl_iput(dir);
	}
	if (!err) {
		sl_file_set_noatime(file, fi->flags & O_NOATIME);
		err = fi_set_file(req, fi, file);
	}
	if (err) {
		reply_status(req, err);
		return;
	}
	fi->cache_readdir = 1;
	fi->keep_cache = 1;
	if (fuse_reply_open(req, fi))
		fi_close(fi); /* no RELEASEDIR will come */
}

struct fill {
	fuse_req_t req;
	char *buf;
	size_t size, used;
	bool plus;
};

/* Nonzero: no room for this one. */
static int fill_name(void *priv, const struct sl_dirent *de)
{
	struct fill *f = priv;
	/* ino 0: no inode to this entry (yet) */
	struct fuse_entry_param e = {
		.attr = { .st_ino = de->ino, .st_mode = de->type },
	};
	char name[NAME_MAX_BYTES + 1];
	size_t room = f->size - f->used, need;

	if (de->namelen > NAME_MAX_BYTES)
		return 0;
	memcpy(name, de->name, de->namelen);
	name[de->namelen] = '\0';
	if (f->plus)
		need = fuse_add_direntry_plus(f->req, f->buf + f->used, room,
					      name, &e, (off_t)de->next);
	else
		need = fuse_add_direntry(f->req, f->buf + f->used, room, name,
					 &e.attr, (off_t)de->next);
	if (need > room)
		return 1;
	f->used += need;
	return 0;
}

static bool is_dot(const struct fuse_dirent *de)
{
	return (de->namelen == 1 && de->name[0] == '.') ||
	       (de->namelen == 2 && de->name[0] == '.' && de->name[1] == '.');
}

/*
 * Gives the entry its inode, counted as looked up. One that can't be read
 * stays without: the kernel looks it up when it is used, and gets the error.
 */
static void fill_inode(struct fill *f, struct fuse_direntplus *dp)
{
	struct fuse_dirent *de = &dp->dirent;
	struct fuse_entry_param e;
	char name[NAME_MAX_BYTES + 1];
	struct inode *inode;
	size_t room = FUSE_DIRENTPLUS_SIZE(dp);

	if (is_dot(de) || sl_iget_scan(req_sb(f->req), de->ino, &inode))
		return;
	memcpy(name, de->name, de->namelen);
	name[de->namelen] = '\0';
	entry_fill(&e, inode);
	sl_iput(inode);
	fuse_add_direntry_plus(f->req, (char *)dp, room, name, &e,
			       (off_t)de->off);
}

static struct fuse_direntplus *entry_at(struct fill *f, size_t pos)
{
	return (struct fuse_direntplus *)(f->buf + pos);
}

static void fill_inodes(struct fill *f)
{
	struct fuse_direntplus *dp;

	for (size_t pos = 0; pos < f->used; pos += FUSE_DIRENTPLUS_SIZE(dp)) {
		dp = entry_at(f, pos);
		fill_inode(f, dp);
	}
}

/* The reply did not arrive: none of the entries was taken. */
static void undo_inodes(struct super_block *sb, struct fill *f)
{
	struct fuse_direntplus *dp;

	for (size_t pos = 0; pos < f->used; pos += FUSE_DIRENTPLUS_SIZE(dp)) {
		struct fuse_entry_param e = { 0 };

		dp = entry_at(f, pos);
		e.ino = dp->entry_out.nodeid;
		entry_undo(sb, &e);
	}
}

static void read_directory(fuse_req_t req, size_t size, off_t off,
			   struct fuse_file_info *fi, bool plus)
{
	struct super_block *sb = req_sb(req);
	struct fill f = { .req = req, .size = size, .plus = plus };
	int err;

	f.buf = loop_reply_buffer(size);
	if (!f.buf) {
		reply_status(req, -ENOMEM);
		return;
	}
	err = sl_readdir(fi_file(fi), (u64)off, fill_name, &f);
	/* What was read before an error is given; the error comes again. */
	if (err < 0 && !f.used) {
		reply_status(req, err);
		return;
	}
	if (plus)
		fill_inodes(&f);
	if (fuse_reply_buf(req, f.buf, f.used) && plus)
		undo_inodes(sb, &f);
}

void op_readdir(fuse_req_t req, fuse_ino_t node, size_t size, off_t off,
		struct fuse_file_info *fi)
{
	read_directory(req, size, off, fi, false);
}

void op_readdirplus(fuse_req_t req, fuse_ino_t node, size_t size, off_t off,
		    struct fuse_file_info *fi)
{
	read_directory(req, size, off, fi, true);
}
