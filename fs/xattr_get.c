/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/xattr_get.c - extended attributes: reading and listing
 *
 * The body is searched first, then the block, as the kernel does. A value that
 * is too large for both is the content of an inode of its own (xattr_ea.c). Namespaces:
 * user, trusted, security, and the two names of ACLs (acl.c), whose entries have no text
 * behind the namespace.
 *
 * Most inodes have none, and the kernel asks for "security.capability" before the
 * first write to each file. i_has_xattrs answers that without a lock.
 *
 * Such an inode is got without a lock, since it may be on its way out of memory; then the
 * entry is looked for once more: if it names the inode still, this was not deleted
 * before, and is not while it is referenced.
 *
 * Locks:   xattr_sem -> b_lock. What is in a block that others share changes
 *          under b_lock, so it is copied under it
 * Source:  Documentation/filesystems/ext4/attributes.rst, eainode.rst
 */
#include "fs/xattr_internal.h"

#include <stdatomic.h>
#include <stdlib.h>

static const struct space {
	const char *prefix;
	u8 index;
	bool whole; /* nothing follows the prefix */
} spaces[] = {
	{ "user.", XATTR_INDEX_USER, false },
	{ "trusted.", XATTR_INDEX_TRUSTED, false },
	{ "security.", XATTR_INDEX_SECURITY, false },
	{ "system.posix_acl_access", XATTR_INDEX_ACL_ACCESS, true },
	{ "system.posix_acl_default", XATTR_INDEX_ACL_DEFAULT, true },
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
		if (spaces[i].whole && (len || sbi->opts.noacl))
			return -EOPNOTSUPP;
		if (!len && !spaces[i].whole)
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

/*
 * Calls fn for the list in the body, and then for that in the block, until it returns
 * something else than 0; returns that. xattr_sem held.
 */
static int each_list(struct ext4_inode *ei,
		     int (*fn)(const struct xattr_list *l, void *priv), void *priv)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	struct xattr_list l;
	struct buffer *b;
	u8 *raw;
	int ret = xattr_read_raw(ei, &raw);

	if (ret)
		return ret;
	if (xattr_body_list(sbi, raw, ei->i_extra_isize, &l))
		ret = fn(&l, priv);
	free(raw);
	if (ret || !ei->i_file_acl)
		return ret;
	ret = xattr_bread(ei, &b);
	if (ret)
		return ret;
	l = xattr_block_list(sbi, b);
	mutex_lock(&b->b_lock);
	xattr_share_note(ei, b);
	ret = fn(&l, priv);
	mutex_unlock(&b->b_lock);
	buffer_put(b);
	return ret;
}

/* ---- one value ---- */

struct wanted {
	const struct xattr_name *name;
	void *buf;
	size_t size; /* 0: only its bytes */
	bool alloc;  /* buf is made here, for all of it */
	u32 len;
	ino_nr value_ino; /* the value is this inode's content, and not in buf yet */
	u32 hash;	  /* of the entry */
};

/* Room in w->buf for w->len bytes, if they are wanted. */
static int make_room(struct wanted *w)
{
	if (w->len > XATTR_VALUE_MAX)
		return -E2BIG;
	if (w->alloc) {
		w->size = max_of(w->len, 1u);
		w->buf = malloc(w->size);
		return w->buf ? 0 : -ENOMEM;
	}
	return w->size && w->len > w->size ? -ERANGE : 0;
}

/* 1: found; the value is copied if it is wanted and is here. */
static int take_value(const struct xattr_list *l, void *priv)
{
	struct wanted *w = priv;
	u32 at = xattr_find(l, w->name);
	const struct ext4_xattr_entry *e;
	int err;

	if (!at)
		return 0;
	e = xattr_entry(l, at);
	w->len = le32_to_cpu(e->e_value_size);
	w->value_ino = le32_to_cpu(e->e_value_inum);
	w->hash = le32_to_cpu(e->e_hash);
	if (w->value_ino)
		return w->len > XATTR_VALUE_MAX ? -E2BIG : 1;
	err = make_room(w);
	if (!err && w->size)
		memcpy(w->buf, l->data + l->base + le16_to_cpu(e->e_value_offs),
		       w->len);
	return err ? err : 1;
}

/* Looks for the entry. 1: found; 0: there is none. */
static int find_value(struct ext4_inode *ei, struct wanted *w)
{
	int ret;

	mutex_lock(&ei->xattr_sem);
	ret = each_list(ei, take_value, w);
	mutex_unlock(&ei->xattr_sem);
	return ret;
}

/* The inode that has the value which w found; *found: see find_value(), if it is another
 * one by now, and *out NULL. */
static int get_value_inode(struct ext4_inode *ei, struct wanted *w, struct inode **out,
			   int *found)
{
	ino_nr ino = w->value_ino;
	int err = xattr_ea_find(ei, ino, out);

	if (err && err != -ESTALE)
		return err;
	*found = find_value(ei, w);
	if (*found != 1 || w->value_ino != ino) {
		if (!err)
			inode_put(*out);
		*out = NULL;
		return 0;
	}
	if (err)
		return xattr_ea_lost(ei, ino);
	err = xattr_ea_check(ei, *out);
	if (err)
		inode_put(*out);
	return err;
}

/* -ENODATA; else w has it. */
static int get_value(struct ext4_inode *ei, struct wanted *w)
{
	struct inode *inode;
	int ret, err;

	if (!atomic_load(&ei->i_has_xattrs))
		return -ENODATA;
	ret = find_value(ei, w);
	while (ret == 1 && w->value_ino && (w->size || w->alloc)) {
		inode = NULL;
		err = get_value_inode(ei, w, &inode, &ret);
		if (err)
			return err;
		if (!inode)
			continue;
		err = make_room(w);
		if (!err)
			err = xattr_ea_read(ei, inode, w->name, w->hash, w->buf, w->len);
		inode_put(inode);
		return err;
	}
	return ret == 1 ? 0 : ret ? ret : -ENODATA;
}

int xattr_read_value(struct ext4_inode *ei, const struct xattr_name *name, void **value,
		     u32 *len)
{
	struct wanted w = { .name = name, .alloc = true };
	int err = get_value(ei, &w);

	if (err) {
		free(w.buf);
		return err;
	}
	*value = w.buf;
	*len = w.len;
	return 0;
}

static int collect_acls(const struct xattr_list *l, void *priv)
{
	*(u32 *)priv |= xattr_acls_in(l);
	return 0;
}

int xattr_look_for_acls(struct ext4_inode *ei, u32 *has)
{
	u32 acls = 0;
	int err;

	*has = atomic_load(&ei->i_acls);
	if (!(*has & XATTR_ACL_UNKNOWN))
		return 0;
	mutex_lock(&ei->xattr_sem);
	err = each_list(ei, collect_acls, &acls);
	if (!err)
		atomic_store(&ei->i_acls, (u8)acls);
	mutex_unlock(&ei->xattr_sem);
	*has = acls;
	return err;
}

/* What is asked about an inode in memory; index 0: whether it has any at all. */
struct lack {
	u8 index;
	bool none;
};

static void note_lack(const struct inode *inode, void *priv)
{
	const struct ext4_inode *ei = EXT4_I((struct inode *)(uintptr_t)inode);
	struct lack *lack = priv;
	u32 acls = atomic_load(&ei->i_acls);

	lack->none = !atomic_load(&ei->i_has_xattrs) ||
		     (xattr_index_is_acl(lack->index) &&
		      !(acls & (XATTR_ACL_UNKNOWN | XATTR_ACL_BIT(lack->index))));
}

static bool lacks(struct super_block *sb, u64 ino, u8 index)
{
	struct lack lack = { .index = index };

	return ino <= UINT32_MAX &&
	       ext4_ino_is_exposed(EXT4_SB(sb), (ino_nr)ino) &&
	       icache_peek(sb, (ino_nr)ino, note_lack, &lack) && lack.none;
}

bool sl_has_no_xattrs(struct super_block *sb, u64 ino)
{
	return lacks(sb, ino, 0);
}

bool sl_lacks_xattr(struct super_block *sb, u64 ino, const char *name)
{
	struct xattr_name n;

	return !xattr_parse_name(EXT4_SB(sb), name, &n) && lacks(sb, ino, n.index);
}

ssize_t sl_getxattr(struct inode *inode, const char *name, void *buf, size_t size)
{
	struct ext4_inode *ei = EXT4_I(inode);
	struct xattr_name n;
	struct wanted w = { .name = &n, .buf = buf, .size = size };
	int err = xattr_parse_name(EXT4_SB(inode->i_sb), name, &n);

	if (err)
		return err;
	if (xattr_index_is_acl(n.index))
		return xattr_get_acl(ei, &n, buf, size);
	err = get_value(ei, &w);
	return err ? err : (ssize_t)w.len;
}

/* ---- all names ---- */

struct listing {
	bool trusted, user, acls;
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

/* A name with a zero in it is none: nobody could ask for it. */
static bool is_listed(const struct space *space, const struct ext4_xattr_entry *e,
		      const struct listing *out)
{
	if (e->e_name_index != space->index)
		return false;
	if (space->whole)
		return out->acls && !e->e_name_len;
	if ((space->index == XATTR_INDEX_TRUSTED && !out->trusted) ||
	    (space->index == XATTR_INDEX_USER && !out->user))
		return false;
	return e->e_name_len && !memchr(e->e_name, '\0', e->e_name_len);
}

static int list_names(const struct xattr_list *l, void *priv)
{
	struct listing *out = priv;
	int err = 0;

	for (u32 at = l->first; !err && !xattr_is_end(l, at);
	     at = xattr_next(l, at)) {
		const struct ext4_xattr_entry *e = xattr_entry(l, at);

		for (size_t i = 0; i < ARRAY_SIZE(spaces) && !err; i++)
			if (is_listed(&spaces[i], e, out))
				err = add_name(out, spaces[i].prefix, e);
	}
	return err;
}

ssize_t sl_listxattr(struct inode *inode, bool trusted, char *buf, size_t size)
{
	struct ext4_inode *ei = EXT4_I(inode);
	struct listing out = {
		.trusted = trusted,
		.user = !ext4_sb_of(ei)->opts.nouser_xattr,
		.acls = !EXT4_SB(inode->i_sb)->opts.noacl,
		.buf = buf,
		.size = size,
	};
	int err;

	if (!atomic_load(&ei->i_has_xattrs))
		return 0;
	mutex_lock(&ei->xattr_sem);
	err = each_list(ei, list_names, &out);
	mutex_unlock(&ei->xattr_sem);
	return err ? err : (ssize_t)out.used;
}
