/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/rename.c - rename and exchange, within and across directories
 *
 * One handle per rename. The new name is made first (it may fail and leaves
 * nothing behind), then the old one goes, then ".." of a moved directory and
 * the link counts follow. A file that replaces another has its data written
 * before the handle starts, so that after a crash the name holds either the
 * old content or the new (brief 12.7).
 *
 * Locks:   rename_lock (two directories) -> both directories, the ancestor
 *          first, else the lower number -> both inodes, directories first,
 *          else the lower number -> handle
 */
#include "fs/ext4.h"
#include "fs/namei.h"

#include <linux/fs.h>
#include <stdatomic.h>
#include <string.h>

#define MAX_DEPTH 65536 /* of a path upwards: a loop in the tree ends there */

struct side {
	struct inode *dir;
	const char *name;
	u32 len;
	struct inode *inode; /* what the name is now; NULL: nothing */
	ino_nr checked;      /* what it was when check_loops() looked; 0: nothing */
	/* Of the old name: who leaves a whiteout there, NULL: nothing stays; and that */
	const struct sl_cred *leaves;
	struct inode *whiteout;
};

/* Is `above` on the way from dir to the root (or dir itself)? rename_lock held,
 * no i_rwsem held. */
static int is_ancestor(struct inode *above, struct inode *dir, bool *result)
{
	struct ext4_sb *sbi = EXT4_SB(dir->i_sb);
	struct inode *at = dir;
	int err = 0;

	inode_get(at);
	*result = false;
	for (u32 depth = 0; !err; depth++) {
		struct inode *parent;
		ino_nr ino;

		if (at->i_ino == above->i_ino) {
			*result = true;
			break;
		}
		if (at->i_ino == EXT4_ROOT_INO)
			break;
		if (depth >= MAX_DEPTH) {
			err = ext4_error(sbi, dir->i_ino, 0, -EFSCORRUPTED,
					 "the path to the root is a loop");
			break;
		}
		rwsem_down_read(&at->i_rwsem);
		/* A removed directory has no place any more. */
		err = at->i_nlink ? ext4_dir_get_dotdot(EXT4_I(at), &ino)
				  : -ENOENT;
		if (!err)
			err = ext4_get_named(EXT4_I(at), ino, &parent);
		rwsem_up_read(&at->i_rwsem);
		if (err)
			break;
		inode_put(at);
		at = parent;
		if (!S_ISDIR(at->i_mode))
			err = ext4_error(sbi, at->i_ino, 0, -EFSCORRUPTED,
					 "\"..\" names no directory");
	}
	inode_put(at);
	return err;
}

/* Locks two directories (or one) exclusively. */
static NO_THREAD_SAFETY int lock_dirs(struct inode *a, struct inode *b)
{
	bool a_above, b_above;
	int err;

	if (a == b) {
		rwsem_down_write(&a->i_rwsem);
		return 0;
	}
	err = is_ancestor(a, b, &a_above);
	if (!err)
		err = is_ancestor(b, a, &b_above);
	if (err)
		return err;
	if (b_above || (!a_above && b->i_ino < a->i_ino)) {
		struct inode *t = a;

		a = b;
		b = t;
	}
	rwsem_down_write(&a->i_rwsem);
	rwsem_down_write(&b->i_rwsem);
	return 0;
}

static NO_THREAD_SAFETY void unlock_dirs(struct inode *a, struct inode *b)
{
	rwsem_up_write(&a->i_rwsem);
	if (a != b)
		rwsem_up_write(&b->i_rwsem);
}

NO_THREAD_SAFETY void ext4_lock_inodes(struct inode *a, struct inode *b)
{
	if (a && b) {
		bool da = S_ISDIR(a->i_mode), db = S_ISDIR(b->i_mode);

		if (da != db ? db : b->i_ino < a->i_ino) {
			struct inode *t = a;

			a = b;
			b = t;
		}
	}
	if (a)
		rwsem_down_write(&a->i_rwsem);
	if (b && b != a)
		rwsem_down_write(&b->i_rwsem);
}

NO_THREAD_SAFETY void ext4_unlock_inodes(struct inode *a, struct inode *b)
{
	if (a)
		rwsem_up_write(&a->i_rwsem);
	if (b && b != a)
		rwsem_up_write(&b->i_rwsem);
}

static int find_side(struct side *s)
{
	ino_nr ino;
	u8 ft;
	int err = ext4_dir_find(EXT4_I(s->dir), s->name, s->len, &ino, &ft);

	if (err == -ENOENT)
		return 0;
	if (err)
		return err;
	return ext4_get_named(EXT4_I(s->dir), ino, &s->inode);
}

/* A directory that changes places with something else is one more there. */
static int check_exchange(struct side *from, struct side *to)
{
	bool df = S_ISDIR(from->inode->i_mode), dt = S_ISDIR(to->inode->i_mode);

	if ((df && !dt && !ext4_dir_can_grow(EXT4_I(to->dir))) ||
	    (dt && !df && !ext4_dir_can_grow(EXT4_I(from->dir))))
		return -EMLINK;
	return 0;
}

/* Rules of rename(2) that need no lock of the inodes. */
static int check_sides(struct side *from, struct side *to, u32 flags)
{
	bool cross = from->dir != to->dir;
	int err;

	if (!from->inode)
		return -ENOENT;
	if (flags & RENAME_EXCHANGE && !to->inode)
		return -ENOENT;
	if (flags & RENAME_NOREPLACE && to->inode)
		return -EEXIST;
	if (from->inode == from->dir || from->inode == to->dir)
		return -EINVAL;
	if (to->inode && (to->inode == from->dir || to->inode == to->dir))
		return flags & RENAME_EXCHANGE ? -EINVAL : -ENOTEMPTY;
	err = ext4_may_remove(from->dir, from->inode);
	if (!err)
		err = to->inode ? ext4_may_remove(to->dir, to->inode)
				: ext4_may_change(to->dir, false);
	/* Within a directory, too: one may have got its project there. */
	if (!err)
		err = ext4_may_enter(EXT4_I(to->dir), EXT4_I(from->inode));
	if (!err && flags & RENAME_EXCHANGE)
		err = ext4_may_enter(EXT4_I(from->dir), EXT4_I(to->inode));
	if (err)
		return err;
	if (flags & RENAME_EXCHANGE)
		return cross ? check_exchange(from, to) : 0;
	if (to->inode && to->inode != from->inode) {
		if (S_ISDIR(from->inode->i_mode) && !S_ISDIR(to->inode->i_mode))
			return -ENOTDIR;
		if (!S_ISDIR(from->inode->i_mode) && S_ISDIR(to->inode->i_mode))
			return -EISDIR;
	}
	if (S_ISDIR(from->inode->i_mode) && cross && !to->inode &&
	    !ext4_dir_can_grow(EXT4_I(to->dir)))
		return -EMLINK;
	return 0;
}

static int touch_moved(struct handle *h, struct inode *inode)
{
	ext4_touch(EXT4_I(inode), EXT4_T_CTIME);
	return ext4_mark_inode_dirty(h, EXT4_I(inode));
}

/* The moved directory's ".." and both parents' counts. */
static int reparent(struct handle *h, struct inode *inode, struct inode *from,
		    struct inode *to)
{
	if (from == to || !S_ISDIR(inode->i_mode))
		return 0;
	ext4_dir_dec_nlink(EXT4_I(from));
	ext4_dir_inc_nlink(EXT4_I(to));
	return ext4_dir_set_dotdot(h, EXT4_I(inode), to->i_ino);
}

static int finish_dirs(struct handle *h, struct side *from, struct side *to)
{
	int err = ext4_touch_dir(h, EXT4_I(from->dir));

	if (!err && to->dir != from->dir)
		err = ext4_touch_dir(h, EXT4_I(to->dir));
	return err;
}

static int do_exchange(struct handle *h, struct side *from, struct side *to)
{
	struct ext4_sb *sbi = EXT4_SB(from->dir->i_sb);
	int err;

	err = ext4_dir_replace(h, EXT4_I(to->dir), to->name, to->len,
			       from->inode->i_ino,
			       ext4_ftype(sbi, from->inode->i_mode));
	if (err)
		return err;
	err = ext4_dir_replace(h, EXT4_I(from->dir), from->name, from->len,
			       to->inode->i_ino,
			       ext4_ftype(sbi, to->inode->i_mode));
	if (!err)
		err = reparent(h, from->inode, from->dir, to->dir);
	if (!err)
		err = reparent(h, to->inode, to->dir, from->dir);
	if (!err)
		err = touch_moved(h, from->inode);
	if (!err)
		err = touch_moved(h, to->inode);
	if (!err)
		err = finish_dirs(h, from, to);
	return ext4_half_done(EXT4_I(from->dir), err);
}

/* A device 0:0, which overlayfs takes for "there is nothing". Made before anything is
 * changed; without a name it is an orphan, deleted when it is put. */
static int make_whiteout(struct handle *h, struct side *from)
{
	return ext4_new_inode(h, EXT4_I(from->dir), S_IFCHR, from->leaves, 0,
			      &from->whiteout);
}

static int drop_whiteout(struct handle *h, struct side *from, int err)
{
	struct ext4_inode *ei = EXT4_I(from->whiteout);
	int err2;

	inode_attrs_lock(&ei->vfs);
	ei->vfs.i_nlink = 0;
	inode_attrs_unlock(&ei->vfs);
	err2 = ext4_orphan_add(h, ei);
	if (!err2)
		err2 = ext4_mark_inode_dirty(h, ei);
	if (err2)
		ext4_error(ext4_sb_of(ei), ei->vfs.i_ino, 0, err2,
			   "a failed creation can't be undone");
	return err;
}

/* The old name goes, or is the whiteout's. */
static int leave(struct handle *h, struct side *from)
{
	if (from->whiteout)
		return ext4_dir_replace(h, EXT4_I(from->dir), from->name, from->len,
					from->whiteout->i_ino,
					ext4_ftype(EXT4_SB(from->dir->i_sb), S_IFCHR));
	return ext4_dir_remove(h, EXT4_I(from->dir), from->name, from->len,
			       from->inode->i_ino);
}

static int do_rename(struct handle *h, struct side *from, struct side *to)
{
	struct ext4_sb *sbi = EXT4_SB(from->dir->i_sb);
	u8 ft = ext4_ftype(sbi, from->inode->i_mode);
	int err = from->leaves ? make_whiteout(h, from) : 0;

	if (err)
		return err;
	if (to->inode)
		err = ext4_dir_replace(h, EXT4_I(to->dir), to->name, to->len,
				       from->inode->i_ino, ft);
	else
		err = ext4_dir_add(h, EXT4_I(to->dir), to->name, to->len,
				   from->inode->i_ino, ft);
	if (err)
		return from->whiteout ? drop_whiteout(h, from, err) : err;
	err = leave(h, from);
	if (!err)
		err = reparent(h, from->inode, from->dir, to->dir);
	if (!err && to->inode) {
		if (S_ISDIR(to->inode->i_mode))
			ext4_dir_dec_nlink(EXT4_I(to->dir));
		err = ext4_drop_link(h, EXT4_I(to->inode));
	}
	if (!err)
		err = touch_moved(h, from->inode);
	if (!err)
		err = finish_dirs(h, from, to);
	return ext4_half_done(EXT4_I(from->dir), err);
}

static int check_empty(struct side *to)
{
	bool empty;
	int err;

	if (!to->inode || !S_ISDIR(to->inode->i_mode))
		return 0;
	err = ext4_dir_is_empty(EXT4_I(to->inode), &empty);
	return err ? err : empty ? 0 : -ENOTEMPTY;
}

static ino_nr ino_of(const struct side *s)
{
	return s->inode ? s->inode->i_ino : 0;
}

/* Directories locked. 1: the names changed since check_loops(). */
static int rename_locked(struct side *from, struct side *to, u32 flags)
{
	struct ext4_sb *sbi = EXT4_SB(from->dir->i_sb);
	struct handle *h;
	int err;

	err = find_side(from);
	if (!err)
		err = find_side(to);
	/* A rename within one of the directories got in between: look again. */
	if (!err && from->dir != to->dir &&
	    (ino_of(from) != from->checked || ino_of(to) != to->checked))
		return 1;
	if (!err)
		err = check_sides(from, to, flags);
	if (!err)
		err = ext4_inline_convert(EXT4_I(from->dir));
	if (!err)
		err = ext4_inline_convert(EXT4_I(to->dir));
	if (err)
		return err;
	ext4_extra_grow(EXT4_I(from->dir));
	ext4_extra_grow(EXT4_I(to->dir));
	if (from->inode == to->inode) /* two names of one file: nothing to do */
		return 0;
	ext4_lock_inodes(from->inode, to->inode);
	if (!(flags & RENAME_EXCHANGE))
		err = check_empty(to);
	if (!err) {
		ext4_extra_grow(EXT4_I(from->inode));
		if (to->inode && (flags & RENAME_EXCHANGE || to->inode->i_nlink > 1))
			ext4_extra_grow(EXT4_I(to->inode));
	}
	if (!err && from->leaves)
		err = ext4_prepare_new(EXT4_I(from->dir), from->leaves);
	if (!err)
		err = journal_start(sbi->journal,
				    EXT4_DIR_ADD_CREDITS +
					    2 * EXT4_DIR_DEL_CREDITS + 2 +
					    EXT4_ORPHAN_CREDITS +
					    4 * EXT4_INODE_CREDITS +
					    (from->leaves ? EXT4_NEW_INODE_CREDITS +
								    EXT4_INODE_CREDITS
							  : 0),
				    EXT4_DIR_ADD_REVOKES, &h);
	if (!err) {
		if (ext4_is_privileged(sbi, from->leaves) && from->leaves)
			handle_set_privileged(h);
		err = flags & RENAME_EXCHANGE ? do_exchange(h, from, to)
					      : do_rename(h, from, to);
		if (from->whiteout)
			inode_unlock_new(from->whiteout);
		err = ext4_stop_sync(h, err, EXT4_I(from->dir),
				     EXT4_I(to->dir));
	}
	ext4_unlock_inodes(from->inode, to->inode);
	return err;
}

/*
 * A directory can't go below itself, nor replace one it lies in. Under
 * rename_lock, before any i_rwsem: so that the order "ancestor first" holds
 * for the inodes locked later. The names are looked up again then, and must
 * still be the same inodes.
 */
static int check_loops(struct side *from, struct side *to, u32 flags)
{
	bool above;
	int err;

	rwsem_down_read(&from->dir->i_rwsem);
	err = find_side(from);
	rwsem_up_read(&from->dir->i_rwsem);
	if (!err) {
		rwsem_down_read(&to->dir->i_rwsem);
		err = find_side(to);
		rwsem_up_read(&to->dir->i_rwsem);
	}
	from->checked = ino_of(from);
	to->checked = ino_of(to);
	if (!err && from->inode && S_ISDIR(from->inode->i_mode)) {
		err = is_ancestor(from->inode, to->dir, &above);
		if (!err && above)
			err = -EINVAL;
	}
	if (!err && to->inode && S_ISDIR(to->inode->i_mode)) {
		err = is_ancestor(to->inode, from->dir, &above);
		if (!err && above)
			err = flags & RENAME_EXCHANGE ? -EINVAL : -ENOTEMPTY;
	}
	return err;
}

static void put_sides(struct side *from, struct side *to)
{
	inode_put(from->inode);
	inode_put(to->inode);
	inode_put(from->whiteout);
	from->inode = to->inode = from->whiteout = NULL;
}

static NO_THREAD_SAFETY int rename_once(struct side *from, struct side *to, u32 flags)
{
	struct ext4_sb *sbi = EXT4_SB(from->dir->i_sb);
	bool cross = from->dir != to->dir;
	int err = 0;

	if (cross) {
		mutex_lock(&sbi->rename_lock);
		err = check_loops(from, to, flags);
		put_sides(from, to);
	}
	if (!err)
		err = lock_dirs(from->dir, to->dir);
	if (!err) {
		err = rename_locked(from, to, flags);
		unlock_dirs(from->dir, to->dir);
	}
	if (cross)
		mutex_unlock(&sbi->rename_lock);
	put_sides(from, to); /* may delete what was replaced */
	return err;
}

/* Is there data that no extent on disk says is written? */
static bool has_data_to_come(struct inode *inode)
{
	/* Under WRITEBACK it has its blocks, but neither content nor size yet. */
	return S_ISREG(inode->i_mode) && !mapping_is_clean(&inode->i_mapping);
}

/* The data of a file that is about to replace another goes to disk first. */
static int write_replacing_data(struct side *from, struct side *to)
{
	struct side a = *from, b = *to;
	int err;

	rwsem_down_read(&a.dir->i_rwsem);
	err = find_side(&a);
	rwsem_up_read(&a.dir->i_rwsem);
	if (!err && a.inode && has_data_to_come(a.inode)) {
		rwsem_down_read(&b.dir->i_rwsem);
		err = find_side(&b);
		rwsem_up_read(&b.dir->i_rwsem);
		if (!err && b.inode)
			err = ext4_write_range(EXT4_I(a.inode), 0,
					       EXT4_LBLK_END);
	}
	put_sides(&a, &b);
	/* A write error is the affair of fsync, not of rename. */
	return err == -EIO || err == -ENOSPC ? 0 : err;
}

int sl_rename(struct inode *olddir, const char *oldname, size_t oldlen,
	      struct inode *newdir, const char *newname, size_t newlen, u32 flags)
{
	return sl_rename_whiteout(olddir, oldname, oldlen, newdir, newname, newlen,
				  flags, NULL);
}

int sl_rename_whiteout(struct inode *olddir, const char *oldname, size_t oldlen,
		       struct inode *newdir, const char *newname, size_t newlen,
		       u32 flags, const struct sl_cred *cred)
{
	struct ext4_sb *sbi = EXT4_SB(olddir->i_sb);
	struct side from = { .dir = olddir, .name = oldname, .len = (u32)oldlen,
			     .leaves = cred };
	struct side to = { .dir = newdir, .name = newname, .len = (u32)newlen };
	int tries = 0, err;

	if (flags & ~(u32)(RENAME_NOREPLACE | RENAME_EXCHANGE) ||
	    flags == (RENAME_NOREPLACE | RENAME_EXCHANGE) ||
	    (cred && flags & RENAME_EXCHANGE))
		return -EINVAL;
	err = ext4_name_begin(olddir, oldname, oldlen);
	if (!err)
		err = ext4_name_begin(newdir, newname, newlen);
	if (err)
		return err;
	if (ext4_is_dots(oldname, oldlen) || ext4_is_dots(newname, newlen))
		return flags & RENAME_NOREPLACE ? -EEXIST : -EBUSY;
	if (!(flags & (RENAME_NOREPLACE | RENAME_EXCHANGE)) &&
	    !sbi->opts.noauto_da_alloc) {
		err = write_replacing_data(&from, &to);
		if (err)
			return err;
	}
	do {
		err = rename_once(&from, &to, flags);
	} while (err == 1 || ext4_should_retry(sbi, err, &tries));
	return err == -EAGAIN ? -ENOSPC : err;
}
