/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/xattr_get.c - extended attributes: reading and listing
 *
 * The body is searched first, then the block, as the kernel does. A value that
 * is too large for both is the content of an inode of its own (feature ea_inode:
 * such volumes are mounted read-only). Namespaces: user, trusted, security. ACLs
 * (system.posix_acl_*) are neither given nor listed: nobody here minds them.
 *
 * Most inodes have none, and the kernel asks for "security.capability" before the
 * first write to each file. i_has_xattrs answers that without a lock.
 *
 * Locks:   xattr_sem -> b_lock. What is in a block that others share changes
 *          under b_lock, so it is copied under it
 * Source:  Documentation/filesystems/ext4/attributes.rst, eainode.rst
 */
#include "fs/xattr_internal.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "lib/crc.h"

static const struct {
	const char *prefix;
	u8 index;
} spaces[] = {
	{ "user.", XATTR_INDEX_USER },
	{ "trusted.", XATTR_INDEX_TRUSTED },
	{ "security.", XATTR_INDEX_SECURITY },
};

int xattr_parse_name(const struct ext4_sb *sbi, const char *full,
		     struct xattr_name *out)
{
	for (size_t i = 0; i < ARRAY_SIZE(spaces); i++) {
		size_t skip = strlen(spaces[i].prefix), len;

		if (strncmp(full, spaces[i].prefix, skip) != 0)
			continue;
		if (spaces[i].index == XATTR_INDEX_USER && sbi->opts.nouser_xattr)
			return -EOPNOTSUPP;
		len = strlen(full + skip);
		if (!len)
			return -EINVAL;
		if (len > UINT8_MAX)
			return -ERANGE;
		*out = (struct xattr_name){
			.index = spaces[i].index,
			.len = (u8)len,
			.text = full + skip,
		};
		return 0;
	}
	return -EOPNOTSUPP;
}

u32 xattr_find(const struct xattr_list *l, const struct xattr_name *name)
{
	for (u32 at = l->first; !xattr_is_end(l, at); at = xattr_next(l, at)) {
		const struct ext4_xattr_entry *e = xattr_entry(l, at);

		if (e->e_name_index == name->index &&
		    e->e_name_len == name->len &&
		    !memcmp(e->e_name, name->text, name->len))
			return at;
	}
	return 0;
}

int xattr_read_raw(struct ext4_inode *ei, u8 **raw)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	struct buffer *b;
	u32 offset;
	int err;

	*raw = malloc(sbi->inode_size);
	if (!*raw)
		return -ENOMEM;
	err = ext4_inode_buffer(sbi, ei->vfs.i_ino, false, &b, &offset);
	if (!err) {
		mutex_lock(&b->b_lock);
		memcpy(*raw, b->b_data + offset, sbi->inode_size);
		mutex_unlock(&b->b_lock);
		buffer_put(b);
		/* Again: the table block may have been read anew since. */
		err = ei->i_extra_isize ?
			      ext4_xattr_check_ibody(sbi, *raw, sbi->inode_size,
						     ei->i_extra_isize) : 0;
		if (err)
			ext4_error(sbi, ei->vfs.i_ino, 0, err,
				   "attributes in the inode are damaged");
	}
	if (err)
		free(*raw);
	return err;
}

int xattr_bread(struct ext4_inode *ei, struct buffer **out)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);

	assert_mutex_held(&ei->xattr_sem);
	if (!ext4_block_range_ok(sbi, ei->i_file_acl, 1))
		return ext4_error(sbi, ei->vfs.i_ino, ei->i_file_acl,
				  -EFSCORRUPTED,
				  "attribute block is outside the files' part of the volume");
	return ext4_bread(sbi, ei->i_file_acl, ei->vfs.i_ino,
			  &ext4_xattr_block_type, 0, out);
}

/* ---- one value ---- */

struct wanted {
	struct xattr_name name;
	void *buf;
	size_t size;
	ino_nr value_ino; /* the value is this inode's content */
	u32 hash;	  /* of the entry */
};

/* Bytes of the value, copied if there is room. */
static ssize_t value_from(const struct xattr_list *l, struct wanted *w)
{
	u32 at = xattr_find(l, &w->name), len;
	const struct ext4_xattr_entry *e;

	if (!at)
		return -ENODATA;
	e = xattr_entry(l, at);
	len = le32_to_cpu(e->e_value_size);
	w->value_ino = le32_to_cpu(e->e_value_inum);
	w->hash = le32_to_cpu(e->e_hash);
	if (!w->size || w->value_ino)
		return len;
	if (len > w->size)
		return -ERANGE;
	memcpy(w->buf, l->data + l->base + le16_to_cpu(e->e_value_offs), len);
	return len;
}

static ssize_t value_from_body(struct ext4_inode *ei, struct wanted *w)
{
	ssize_t n = -ENODATA;
	struct xattr_list l;
	u8 *raw;
	int err = xattr_read_raw(ei, &raw);

	if (err)
		return err;
	if (xattr_body_list(ext4_sb_of(ei), raw, ei->i_extra_isize, &l))
		n = value_from(&l, w);
	free(raw);
	return n;
}

static ssize_t value_from_block(struct ext4_inode *ei, struct wanted *w)
{
	struct xattr_list l;
	struct buffer *b;
	ssize_t n;
	int err = xattr_bread(ei, &b);

	if (err)
		return err;
	l = xattr_block_list(ext4_sb_of(ei), b);
	mutex_lock(&b->b_lock);
	n = value_from(&l, w);
	mutex_unlock(&b->b_lock);
	buffer_put(b);
	return n;
}

static int bad_value(struct ext4_inode *ei, const struct wanted *w,
		     const char *what)
{
	return ext4_error(ext4_sb_of(ei), ei->vfs.i_ino, 0, -EFSCORRUPTED,
			  "inode %u, an attribute's value, %s", w->value_ino,
			  what);
}

/* Its time of access is the checksum of the value; old ones of Lustre have none, but
 * their owner's number in the time of modification. */
static bool value_is_sound(const struct ext4_inode *owner,
			   const struct inode *inode, const void *value, u32 len)
{
	if (crc32c(ext4_sb_of(owner)->csum_seed, value, len) ==
	    (u32)inode->i_atime.tv_sec)
		return true;
	return (u32)inode->i_mtime.tv_sec == owner->vfs.i_ino &&
	       inode->i_generation == owner->vfs.i_generation;
}

/* The content of the inode that is the value: w->buf has room for `len`. */
static int read_value_inode(struct ext4_inode *ei, const struct wanted *w, u32 len)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	struct inode *inode;
	int err;

	if (w->value_ino < sbi->first_ino || w->value_ino > sbi->inodes_count ||
	    w->value_ino == ei->vfs.i_ino)
		return bad_value(ei, w, "cannot be one");
	err = icache_get(&sbi->s, w->value_ino, &inode);
	if (err)
		return err == -ESTALE ? bad_value(ei, w, "is not in use") : err;
	if (!(inode->i_flags & EXT4_EA_INODE_FL) || !S_ISREG(inode->i_mode) ||
	    inode->i_size != len || EXT4_I(inode)->i_inline)
		err = bad_value(ei, w, "is something else");
	else
		err = ext4_read_device(EXT4_I(inode), 0, w->buf, len);
	if (!err && sbi->has_csum && !value_is_sound(ei, inode, w->buf, len))
		err = ext4_error(sbi, ei->vfs.i_ino, 0, -EFSBADCRC,
				 "inode %u, an attribute's value: checksum is wrong",
				 w->value_ino);
	inode_put(inode);
	return err;
}

static void note_none(const struct inode *inode, void *priv)
{
	const struct ext4_inode *ei = EXT4_I((struct inode *)(uintptr_t)inode);

	*(bool *)priv = !atomic_load(&ei->i_has_xattrs);
}

bool sl_has_no_xattrs(struct super_block *sb, u64 ino)
{
	bool none = false;

	return ino <= UINT32_MAX &&
	       ext4_ino_is_exposed(EXT4_SB(sb), (ino_nr)ino) &&
	       icache_peek(sb, (ino_nr)ino, note_none, &none) && none;
}

ssize_t sl_getxattr(struct inode *inode, const char *name, void *buf, size_t size)
{
	struct ext4_inode *ei = EXT4_I(inode);
	struct wanted w = { .buf = buf, .size = size };
	ssize_t n;
	int err = xattr_parse_name(EXT4_SB(inode->i_sb), name, &w.name);

	if (err)
		return err;
	if (!atomic_load(&ei->i_has_xattrs))
		return -ENODATA;
	mutex_lock(&ei->xattr_sem);
	n = value_from_body(ei, &w);
	if (n == -ENODATA && ei->i_file_acl)
		n = value_from_block(ei, &w);
	mutex_unlock(&ei->xattr_sem);
	if (n > (ssize_t)XATTR_VALUE_MAX)
		return -E2BIG;
	if (n <= 0 || !w.value_ino || !size)
		return n;
	if ((size_t)n > size)
		return -ERANGE;
	err = read_value_inode(ei, &w, (u32)n);
	return err ? err : n;
}

/* ---- all names ---- */

struct listing {
	bool trusted, user;
	char *buf;
	size_t size; /* 0: bytes are only counted */
	size_t used;
};

static int add_name(struct listing *out, const char *prefix,
		    const struct ext4_xattr_entry *e)
{
	size_t skip = strlen(prefix), n = skip + e->e_name_len + 1;

	if (out->size) {
		if (n > out->size - out->used)
			return -ERANGE;
		memcpy(out->buf + out->used, prefix, skip);
		memcpy(out->buf + out->used + skip, e->e_name, e->e_name_len);
		out->buf[out->used + n - 1] = '\0';
	}
	out->used += n;
	return 0;
}

/* A name with a zero in it, or without any byte, is none: nobody could ask for it. */
static bool name_is_sound(const struct ext4_xattr_entry *e)
{
	return e->e_name_len && !memchr(e->e_name, '\0', e->e_name_len);
}

static int list_names(const struct xattr_list *l, struct listing *out)
{
	int err = 0;

	for (u32 at = l->first; !err && !xattr_is_end(l, at);
	     at = xattr_next(l, at)) {
		const struct ext4_xattr_entry *e = xattr_entry(l, at);

		for (size_t i = 0; i < ARRAY_SIZE(spaces) && !err; i++)
			if (e->e_name_index == spaces[i].index &&
			    (e->e_name_index != XATTR_INDEX_TRUSTED ||
			     out->trusted) &&
			    (e->e_name_index != XATTR_INDEX_USER ||
			     out->user) && name_is_sound(e))
				err = add_name(out, spaces[i].prefix, e);
	}
	return err;
}

static int list_body(struct ext4_inode *ei, struct listing *out)
{
	struct xattr_list l;
	u8 *raw;
	int err = xattr_read_raw(ei, &raw);

	if (err)
		return err;
	if (xattr_body_list(ext4_sb_of(ei), raw, ei->i_extra_isize, &l))
		err = list_names(&l, out);
	free(raw);
	return err;
}

static int list_block(struct ext4_inode *ei, struct listing *out)
{
	struct xattr_list l;
	struct buffer *b;
	int err = xattr_bread(ei, &b);

	if (err)
		return err;
	l = xattr_block_list(ext4_sb_of(ei), b);
	mutex_lock(&b->b_lock);
	err = list_names(&l, out);
	mutex_unlock(&b->b_lock);
	buffer_put(b);
	return err;
}

ssize_t sl_listxattr(struct inode *inode, bool trusted, char *buf, size_t size)
{
	struct ext4_inode *ei = EXT4_I(inode);
	struct listing out = {
		.trusted = trusted,
		.user = !ext4_sb_of(ei)->opts.nouser_xattr,
		.buf = buf,
		.size = size,
	};
	int err;

	if (!atomic_load(&ei->i_has_xattrs))
		return 0;
	mutex_lock(&ei->xattr_sem);
	err = list_body(ei, &out);
	if (!err && ei->i_file_acl)
		err = list_block(ei, &out);
	mutex_unlock(&ei->xattr_sem);
	return err ? err : (ssize_t)out.used;
}
