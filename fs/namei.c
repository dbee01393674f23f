/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/namei.c - the name space: lookup, create, link, unlink, rename
 *
 * Each change is one handle. Everything that can fail (reading, finding,
 * allocating) comes before the first change; a new inode whose name could not
 * be entered is turned into an orphan in the same handle and deleted after.
 *
 * A directory operation holds the directory's i_rwsem; a change of an inode's
 * link count holds that inode's as well. Order: ancestors before descendants,
 * directories before files, else the lower number first. Rename across
 * directories holds rename_lock, under which "is A above B" stays true.
 *
 * A request that finds free space only in transactions not yet committed
 * (-EAGAIN) lets go of everything, commits, and starts again.
 *
 * Locks:   rename_lock -> i_rwsem (dirs) -> i_rwsem (files) -> handle -> ...
 */
#include "fs/namei.h"

#include "fs/acl.h"

#include <string.h>

u8 ext4_ftype(const struct ext4_sb *sbi, u32 mode)
{
	if (!ext4_has_incompat(sbi, FILETYPE))
		return EXT4_FT_UNKNOWN;
	switch (mode & S_IFMT) {
	case S_IFREG:
		return EXT4_FT_REG_FILE;
	case S_IFDIR:
		return EXT4_FT_DIR;
	case S_IFCHR:
		return EXT4_FT_CHRDEV;
	case S_IFBLK:
		return EXT4_FT_BLKDEV;
	case S_IFIFO:
		return EXT4_FT_FIFO;
	case S_IFSOCK:
		return EXT4_FT_SOCK;
	case S_IFLNK:
		return EXT4_FT_SYMLINK;
	default:
		return EXT4_FT_UNKNOWN;
	}
}

static int check_name(const struct inode *dir, const char *name, size_t len)
{
	if (!S_ISDIR(dir->i_mode))
		return -ENOTDIR;
	if (len > EXT4_NAME_LEN)
		return -ENAMETOOLONG;
	if (!len)
		return -ENOENT;
	return 0;
}

bool ext4_is_dots(const char *name, size_t len)
{
	return name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.'));
}

/* The inode an entry names; a stale or hidden one means damage. */
int ext4_get_named(struct ext4_inode *dir, ino_nr ino, struct inode **out)
{
	struct ext4_sb *sbi = ext4_sb_of(dir);
	int err;

	if (!ext4_ino_is_exposed(sbi, ino))
		return ext4_error(sbi, dir->vfs.i_ino, 0, -EFSCORRUPTED,
				  "an entry names inode %u", ino);
	err = icache_get(&sbi->s, ino, out);
	if (err == -ESTALE)
		err = ext4_error(sbi, dir->vfs.i_ino, 0, -EFSCORRUPTED,
				 "an entry names the deleted inode %u", ino);
	if (!err && unlikely((*out)->i_flags & EXT4_EA_INODE_FL)) {
		inode_put(*out);
		*out = NULL;
		err = ext4_error(sbi, dir->vfs.i_ino, 0, -EFSCORRUPTED,
				 "an entry names inode %u, an attribute's value", ino);
	}
	return err;
}

int sl_lookup(struct inode *dir, const char *name, size_t len, struct inode **out)
{
	struct ext4_inode *di = EXT4_I(dir);
	ino_nr ino;
	u8 ftype;
	int err = check_name(dir, name, len);

	if (err)
		return err;
	budget_throttle(dir->i_sb->s_budget);
	if (len == 1 && name[0] == '.') {
		inode_get(dir);
		*out = dir;
		return 0;
	}
	rwsem_down_read(&dir->i_rwsem);
	if (ext4_is_dots(name, len))
		err = ext4_dir_get_dotdot(di, &ino);
	else
		err = ext4_dir_find(di, name, (u32)len, &ino, &ftype);
	/* With the directory held: the entry can't go, nor can its inode. */
	if (!err)
		err = ext4_get_named(di, ino, out);
	rwsem_up_read(&dir->i_rwsem);
	return err;
}

/*
 * Counts a lookup of the inode that an entry names; *counted. RCU read side
 * held. That the entry was there then, the caller sees after: so the number
 * was this inode's, and with its count above 0 it is not deleted.
 */
static int peek_child(struct super_block *sb, ino_nr dir, ino_nr ino,
		      struct sl_entry *out, bool *counted)
{
	struct inode_attrs a;
	struct inode *inode;

	if (!ext4_ino_is_exposed(EXT4_SB(sb), ino) || ino == EXT4_ROOT_INO ||
	    ino == dir)
		return -EAGAIN;
	inode = icache_peek_rcu(sb, ino);
	if (!inode || inode->i_flags & EXT4_EA_INODE_FL || !inode_lookup_inc_rcu(inode))
		return -EAGAIN;
	*counted = true;
	if (!inode_peek_attrs(inode, &a) || !a.nlink)
		return -EAGAIN;
	out->ino = ino;
	out->generation = a.generation;
	ext4_stat_of(sb, ino, &a, &out->st);
	return 0;
}

int sl_lookup_cached(struct super_block *sb, u64 dir, const char *name, size_t len,
		     struct sl_entry *out)
{
	const struct inode *parent;
	bool counted = false;
	int err = -EAGAIN;
	ino_nr ino = 0;
	u32 seq;

	if (dir > UINT32_MAX || !ext4_ino_is_exposed(EXT4_SB(sb), (ino_nr)dir) ||
	    len > EXT4_NAME_LEN)
		return -EAGAIN;
	rcu_read_lock();
	parent = icache_peek_rcu(sb, (ino_nr)dir);
	if (parent && S_ISDIR(parent->i_mode) &&
	    ext4_dir_peek_begin((const struct ext4_inode *)parent, &seq)) {
		const struct ext4_inode *di = (const struct ext4_inode *)parent;

		err = ext4_dir_peek(di, name, (u32)len, &ino);
		if (!err)
			err = peek_child(sb, (ino_nr)dir, ino, out, &counted);
		if (!ext4_dir_peek_valid(di, seq))
			err = -EAGAIN;
	}
	rcu_read_unlock();
	/* It may have been the last that kept the inode from its deletion. */
	if (err && counted)
		icache_forget(sb, ino, 1);
	if (err != -EAGAIN)
		icache_note_hits(sb, err ? 1 : 2);
	return err;
}

/* ------------------------------------------------------- link counts */

static void set_nlink(struct inode *inode, u32 n)
{
	inode_attrs_lock(inode);
	inode->i_nlink = n;
	inode_attrs_unlock(inode);
}

/* A directory counts to 65000; with one more it has 1, "unknown" (dir_nlink). */
bool ext4_dir_can_grow(const struct ext4_inode *dir)
{
	return dir->vfs.i_nlink < EXT4_LINK_MAX ||
	       (ext4_has_ro_compat(ext4_sb_of(dir), DIR_NLINK) &&
		ext4_dir_is_indexed(dir));
}

void ext4_dir_inc_nlink(struct ext4_inode *dir)
{
	u32 n = dir->vfs.i_nlink;

	if (n == 1)
		return;
	n++;
	if (n > EXT4_LINK_MAX && ext4_dir_is_indexed(dir) &&
	    ext4_has_ro_compat(ext4_sb_of(dir), DIR_NLINK))
		n = 1;
	set_nlink(&dir->vfs, n);
}

void ext4_dir_dec_nlink(struct ext4_inode *dir)
{
	if (dir->vfs.i_nlink > 2)
		set_nlink(&dir->vfs, dir->vfs.i_nlink - 1);
}

/* One name fewer; the last one makes an orphan. Same handle. */
int ext4_drop_link(struct handle *h, struct ext4_inode *ei)
{
	struct inode *inode = &ei->vfs;
	struct buffer *b;
	u32 offset;
	int err = ext4_inode_prepare(h, ei, &b, &offset);

	if (err)
		return err;
	if (S_ISDIR(inode->i_mode))
		set_nlink(inode, 0);
	else if (inode->i_nlink)
		set_nlink(inode, inode->i_nlink - 1);
	ext4_touch(ei, EXT4_T_CTIME);
	if (!inode->i_nlink) {
		err = ext4_orphan_link(h, ei);
		ext4_note_dying(ei);
	}
	if (err)
		buffer_put(b);
	else
		ext4_inode_finish(h, ei, b, offset);
	return err;
}

int ext4_half_done(struct ext4_inode *dir, int err)
{
	if (!err || err == -EROFS)
		return err;
	return ext4_error(ext4_sb_of(dir), dir->vfs.i_ino, 0, err,
			  "a change of names can't be completed");
}

int ext4_touch_dir(struct handle *h, struct ext4_inode *dir)
{
	ext4_touch(dir, EXT4_T_MTIME | EXT4_T_CTIME);
	return ext4_mark_inode_dirty(h, dir);
}

/* May names be added to or removed from this directory? i_rwsem held. */
int ext4_may_change(const struct inode *dir, bool remove)
{
	if (!dir->i_nlink)
		return -ENOENT; /* removed meanwhile */
	if (dir->i_flags & EXT4_IMMUTABLE_FL)
		return -EPERM;
	if (remove && dir->i_flags & EXT4_APPEND_FL)
		return -EPERM;
	return 0;
}

int ext4_may_remove(const struct inode *dir, const struct inode *victim)
{
	int err = ext4_may_change(dir, true);

	if (err)
		return err;
	return victim->i_flags & (EXT4_IMMUTABLE_FL | EXT4_APPEND_FL) ? -EPERM
								      : 0;
}

int ext4_name_begin(struct inode *dir, const char *name, size_t len)
{
	int err = check_name(dir, name, len);

	if (!err)
		err = ext4_may_write(EXT4_SB(dir->i_sb));
	if (!err)
		budget_throttle(dir->i_sb->s_budget);
	return err;
}

/* -------------------------------------------------------------- creation */

struct creation {
	u32 mode;
	u64 rdev;
	const char *target; /* symlink */
	const struct sl_cred *cred;
	struct acl_new acl; /* from the directory */
};

/* The block of a long symlink. */
static int write_target(struct handle *h, struct ext4_inode *ei, const char *target,
			size_t len)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	struct ext4_map m = { .lblk = 0, .len = 1 };
	struct buffer *b;
	int err;

	ei->vfs.i_flags |= ext4_new_map_flag(sbi);
	ext4_map_init(ei);
	err = ext4_map_create(h, ei, &m, 0);
	if (err)
		return err;
	err = buffer_get_zeroed(&sbi->s, m.pblk, &ext4_symlink_type, 0, &b);
	if (err)
		return err;
	err = handle_get_create_access(h, b);
	if (!err) {
		memcpy(b->b_data, target, len);
		handle_dirty(h, b);
	}
	buffer_put(b);
	return err;
}

/* What a new inode needs beyond itself. */
static int fill_new(struct handle *h, struct ext4_inode *ei, struct ext4_inode *dir,
		    const struct creation *c)
{
	int err = ext4_acl_new_store(h, ei, &c->acl);

	if (err)
		return err;
	if (S_ISDIR(c->mode)) {
		err = ext4_dir_init(h, ei, dir->vfs.i_ino);
	} else if (S_ISLNK(c->mode)) {
		size_t len = strlen(c->target);

		if (len > EXT4_FAST_SYMLINK_MAX)
			err = write_target(h, ei, c->target, len);
		else
			memcpy(ei->i_block, c->target, len);
		ext4_set_size(ei, len);
	} else {
		return 0; /* written by ext4_new_inode() as it is */
	}
	if (!err)
		err = ext4_mark_inode_dirty(h, ei);
	return err;
}

/* name NULL: it gets none, and is an orphan. */
static int create_in(struct handle *h, struct ext4_inode *dir, const char *name,
		     u32 len, const struct ext4_dir_place *place,
		     const struct creation *c, struct inode **out)
{
	struct ext4_sb *sbi = ext4_sb_of(dir);
	struct inode *inode;
	struct ext4_inode *ei;
	int err, err2;

	err = ext4_new_inode(h, dir, c->mode, c->cred, c->rdev, &inode);
	if (err)
		return err;
	ei = EXT4_I(inode);
	err = fill_new(h, ei, dir, c);
	if (!err && name)
		err = ext4_dir_add_place(h, dir, place, name, len, inode->i_ino,
					 ext4_ftype(sbi, c->mode));
	if (err || !name) {
		ei->i_linkable = !err;
		/* An orphan: deleted when the caller drops it. */
		set_nlink(inode, 0);
		err2 = ext4_orphan_add(h, ei);
		if (!err2)
			err2 = ext4_mark_inode_dirty(h, ei);
		if (err2)
			ext4_error(sbi, inode->i_ino, 0, err2,
				   "an inode without a name is no orphan");
		err = err ? err : err2;
	} else {
		if (S_ISDIR(c->mode))
			ext4_dir_inc_nlink(dir);
		err = ext4_touch_dir(h, dir);
	}
	inode_unlock_new(inode);
	*out = inode;
	return err;
}

static int create(struct inode *dir, const char *name, size_t len,
		  const struct creation *wanted, struct inode **out)
{
	struct ext4_sb *sbi = EXT4_SB(dir->i_sb);
	struct ext4_inode *di = EXT4_I(dir);
	u32 acl_credits, acl_revokes;
	struct ext4_dir_place place;
	struct inode *inode;
	struct creation c;
	struct handle *h;
	int tries = 0, err;
	ino_nr ino;
	u8 ft;

	/* Of one without a name only the directory's kind counts. */
	err = ext4_name_begin(dir, name, name ? len : 1);
	if (err)
		return err;
	if (name && ext4_is_dots(name, len))
		return -EEXIST;
	do {
		inode = NULL;
		place.b = NULL;
		c = *wanted;
		rwsem_down_write(&dir->i_rwsem);
		err = ext4_may_change(dir, false);
		if (!err)
			err = ext4_inline_convert(di);
		if (!err)
			ext4_extra_grow(di);
		if (!err && S_ISDIR(c.mode) && !ext4_dir_can_grow(di))
			err = -EMLINK;
		if (!err && name) {
			err = ext4_dir_find_place(di, name, (u32)len, &ino, &ft,
						  &place);
			err = err == -ENOENT ? 0 : err ? err : -EEXIST;
		}
		if (!err)
			err = ext4_prepare_new(di, c.cred);
		if (!err)
			err = ext4_acl_inherit(di, c.cred->umask, &c.mode, &c.acl);
		acl_credits = ext4_acl_new_any(&c.acl) ? EXT4_ACL_NEW_CREDITS : 0;
		acl_revokes = ext4_acl_new_any(&c.acl) ? EXT4_ACL_NEW_REVOKES : 0;
		if (!err)
			err = journal_start(sbi->journal,
					    EXT4_NEW_INODE_CREDITS +
						    EXT4_DIR_ADD_CREDITS +
						    EXT4_ORPHAN_CREDITS +
						    16 /* first block */ +
						    3 * EXT4_INODE_CREDITS +
						    acl_credits,
					    EXT4_DIR_ADD_REVOKES + acl_revokes, &h);
		if (!err) {
			if (ext4_is_privileged(sbi, c.cred))
				handle_set_privileged(h);
			err = create_in(h, di, name, (u32)len, &place, &c, &inode);
			err = ext4_stop_sync(h, err, di, NULL);
		}
		ext4_dir_place_put(&place);
		rwsem_up_write(&dir->i_rwsem);
		ext4_acl_new_free(&c.acl);
		if (err)
			inode_put(inode);
	} while (ext4_should_retry(sbi, err, &tries));
	if (!err)
		*out = inode;
	return err == -EAGAIN ? -ENOSPC : err;
}

int sl_mknod(struct inode *dir, const char *name, size_t len, u32 mode, u64 rdev,
	     const struct sl_cred *cred, struct inode **out)
{
	struct creation c = { .mode = mode, .rdev = rdev, .cred = cred };

	if (!(mode & S_IFMT))
		c.mode |= S_IFREG;
	if (S_ISDIR(c.mode) || S_ISLNK(c.mode))
		return -EINVAL;
	return create(dir, name, len, &c, out);
}

int sl_tmpfile(struct inode *dir, u32 mode, const struct sl_cred *cred,
	       struct inode **out)
{
	struct creation c = { .mode = (mode & 07777) | S_IFREG, .cred = cred };

	return create(dir, NULL, 0, &c, out);
}

int sl_mkdir(struct inode *dir, const char *name, size_t len, u32 mode,
	     const struct sl_cred *cred, struct inode **out)
{
	struct creation c = { .mode = (mode & 07777) | S_IFDIR, .cred = cred };

	return create(dir, name, len, &c, out);
}

int sl_symlink(struct inode *dir, const char *name, size_t len, const char *target,
	       const struct sl_cred *cred, struct inode **out)
{
	struct creation c = { .mode = S_IFLNK | 0777,
			      .target = target,
			      .cred = cred };
	size_t n = strlen(target);

	if (!n)
		return -ENOENT;
	if (n >= dir->i_sb->s_blocksize || n >= 4096)
		return -ENAMETOOLONG;
	return create(dir, name, len, &c, out);
}

int sl_link(struct inode *inode, struct inode *dir, const char *name, size_t len)
{
	struct ext4_sb *sbi = EXT4_SB(dir->i_sb);
	struct ext4_inode *di = EXT4_I(dir), *ei = EXT4_I(inode);
	struct handle *h;
	int tries = 0, err, err2;
	ino_nr ino;
	u8 ft;

	err = ext4_name_begin(dir, name, len);
	if (err)
		return err;
	if (S_ISDIR(inode->i_mode))
		return -EPERM;
	if (ext4_is_dots(name, len))
		return -EEXIST;
	do {
		rwsem_down_write(&dir->i_rwsem);
		rwsem_down_write(&inode->i_rwsem);
		err = ext4_may_change(dir, false);
		if (!err && inode->i_flags & (EXT4_IMMUTABLE_FL | EXT4_APPEND_FL))
			err = -EPERM;
		if (!err && !inode->i_nlink && !ei->i_linkable)
			err = -ENOENT;
		if (!err && inode->i_nlink >= EXT4_LINK_MAX)
			err = -EMLINK;
		if (!err)
			err = ext4_may_enter(di, ei);
		if (!err)
			err = ext4_inline_convert(di);
		if (!err) {
			ext4_extra_grow(di);
			ext4_extra_grow(ei);
		}
		if (!err) {
			err = ext4_dir_find(di, name, (u32)len, &ino, &ft);
			err = err == -ENOENT ? 0 : err ? err : -EEXIST;
		}
		if (!err)
			err = journal_start(sbi->journal,
					    EXT4_DIR_ADD_CREDITS +
						    EXT4_ORPHAN_CREDITS +
						    2 * EXT4_INODE_CREDITS,
					    EXT4_DIR_ADD_REVOKES, &h);
		if (!err) {
			err = ext4_dir_add(h, di, name, (u32)len, inode->i_ino,
					   ext4_ftype(sbi, inode->i_mode));
			if (!err) {
				bool orphan = !inode->i_nlink;

				ei->i_linkable = false;
				set_nlink(inode, inode->i_nlink + 1);
				ext4_touch(ei, EXT4_T_CTIME);
				if (orphan)
					err = ext4_orphan_del(h, ei);
				err2 = ext4_mark_inode_dirty(h, ei);
				err = err ? err : err2;
				err2 = ext4_touch_dir(h, di);
				err = ext4_half_done(di, err ? err : err2);
			}
			err = ext4_stop_sync(h, err, di, ei);
		}
		rwsem_up_write(&inode->i_rwsem);
		rwsem_up_write(&dir->i_rwsem);
	} while (ext4_should_retry(sbi, err, &tries));
	return err == -EAGAIN ? -ENOSPC : err;
}

/* --------------------------------------------------------------- removal */

static int remove_name(struct handle *h, struct ext4_inode *dir,
		       const struct ext4_dir_place *place, const char *name,
		       u32 len, struct ext4_inode *ei)
{
	int err = ext4_dir_remove_place(h, dir, place, name, len, ei->vfs.i_ino);

	if (err)
		return err;
	if (S_ISDIR(ei->vfs.i_mode))
		ext4_dir_dec_nlink(dir);
	err = ext4_drop_link(h, ei);
	if (!err)
		err = ext4_touch_dir(h, dir);
	return ext4_half_done(dir, err);
}

static int check_victim(struct ext4_inode *dir, struct ext4_inode *ei, bool is_rmdir)
{
	bool empty;
	int err = ext4_may_remove(&dir->vfs, &ei->vfs);

	if (err)
		return err;
	if (!is_rmdir)
		return S_ISDIR(ei->vfs.i_mode) ? -EISDIR : 0;
	if (!S_ISDIR(ei->vfs.i_mode))
		return -ENOTDIR;
	err = ext4_dir_is_empty(ei, &empty);
	return err ? err : empty ? 0 : -ENOTEMPTY;
}

static int remove_entry(struct inode *dir, const char *name, size_t len, bool is_rmdir)
{
	struct ext4_sb *sbi = EXT4_SB(dir->i_sb);
	struct ext4_inode *di = EXT4_I(dir);
	struct ext4_dir_place place;
	struct inode *inode = NULL;
	struct handle *h;
	ino_nr ino;
	int err;
	u8 ft;

	err = ext4_name_begin(dir, name, len);
	if (err)
		return err;
	if (ext4_is_dots(name, len))
		return !is_rmdir ? -EISDIR : len == 1 ? -EINVAL : -ENOTEMPTY;
	rwsem_down_write(&dir->i_rwsem);
	err = ext4_dir_find_place(di, name, (u32)len, &ino, &ft, &place);
	if (err)
		goto out_dir;
	if (ino == dir->i_ino) {
		err = ext4_error(sbi, ino, 0, -EFSCORRUPTED,
				 "a directory contains itself");
		goto out_dir;
	}
	err = ext4_get_named(di, ino, &inode);
	if (err)
		goto out_dir;
	rwsem_down_write(&inode->i_rwsem);
	err = check_victim(di, EXT4_I(inode), is_rmdir);
	if (!err)
		err = ext4_inline_convert(di);
	if (!err) {
		ext4_extra_grow(di);
		if (inode->i_nlink > 1) /* else it is about to go */
			ext4_extra_grow(EXT4_I(inode));
	}
	if (!err)
		err = journal_start(sbi->journal,
				    EXT4_DIR_DEL_CREDITS + EXT4_ORPHAN_CREDITS +
					    2 * EXT4_INODE_CREDITS,
				    0, &h);
	if (!err) {
		err = remove_name(h, di, &place, name, (u32)len, EXT4_I(inode));
		err = ext4_stop_sync(h, err, di, NULL);
	}
	rwsem_up_write(&inode->i_rwsem);
out_dir:
	ext4_dir_place_put(&place);
	rwsem_up_write(&dir->i_rwsem);
	inode_put(inode); /* the last reference deletes it */
	return err;
}

int sl_unlink(struct inode *dir, const char *name, size_t len)
{
	return remove_entry(dir, name, len, false);
}

int sl_rmdir(struct inode *dir, const char *name, size_t len)
{
	return remove_entry(dir, name, len, true);
}
