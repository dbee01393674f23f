/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/acl.c - POSIX access control lists
 *
 * The kernel decides by them (FUSE's POSIX_ACL); here they are stored, and kept in
 * step with the mode, whose group bits are the list's mask:
 *
 *   set     an access list changes the mode; one that says no more is not stored
 *   chmod   changes the entries of owner, mask (or group) and others
 *   create  the directory's default list, cut down by the mode that was asked
 *           for, is the access list of what is new in it, and of a directory the
 *           default list, too. The umask counts only where there is no default list
 *
 * Each is one handle with the change of the mode, or with the creation.
 *
 * Most inodes have no list, and i_acls says so: from the body when the inode is
 * read, from the block when that is looked at first.
 *
 * Locks:   i_rwsem (callers) -> handle -> xattr_sem; xattr_sem alone to read
 * Source:  ext4-format brief 8.6; acl(5); IEEE 1003.1e draft 17, 23
 */
#include "fs/acl.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "fs/xattr_internal.h"

#define USER_VERSION 2u

/* The form of system calls (linux/posix_acl_xattr.h). */
struct user_header {
	le32 version;
};
struct user_entry {
	le16 tag;
	le16 perm;
	le32 id;
};
_Static_assert(sizeof(struct user_entry) == 8, "ACL entry of system calls");

static bool tag_has_id(u32 tag)
{
	return tag == ACL_TAG_USER || tag == ACL_TAG_GROUP;
}

static bool tag_exists(u32 tag)
{
	return tag && !(tag & (tag - 1)) && tag <= ACL_TAG_OTHER;
}

static struct acl *acl_alloc(size_t nr)
{
	return calloc(1, sizeof(struct acl) + nr * sizeof(struct acl_entry));
}

/* ---- forms ---- */

/* Entries in [p, end): their number, or -EINVAL. out: NULL, or room for them. */
static int read_disk(const u8 *p, const u8 *end, struct acl_entry *out)
{
	int nr = 0;

	while (p < end) {
		struct ext4_acl_entry e = { .e_id = cpu_to_le32(ACL_ID_NONE) };
		size_t n = sizeof(struct ext4_acl_entry_short);

		if ((size_t)(end - p) < n)
			return -EINVAL;
		memcpy(&e, p, n);
		if (!tag_exists(le16_to_cpu(e.e_tag)))
			return -EINVAL;
		if (tag_has_id(le16_to_cpu(e.e_tag))) {
			n = sizeof(e);
			if ((size_t)(end - p) < n)
				return -EINVAL;
			memcpy(&e, p, n);
		}
		if (le16_to_cpu(e.e_perm) & ~S_IRWXO)
			return -EINVAL;
		if (out)
			out[nr] = (struct acl_entry){
				.tag = le16_to_cpu(e.e_tag),
				.perm = le16_to_cpu(e.e_perm),
				.id = le32_to_cpu(e.e_id),
			};
		nr++;
		p += n;
	}
	return nr;
}

int acl_from_disk(const void *value, size_t len, struct acl **out)
{
	const u8 *p = value, *end = p + len;
	struct ext4_acl_header hdr;
	int nr;

	*out = NULL;
	if (len < sizeof(hdr))
		return -EINVAL;
	memcpy(&hdr, p, sizeof(hdr));
	if (le32_to_cpu(hdr.a_version) != EXT4_ACL_VERSION)
		return -EINVAL;
	p += sizeof(hdr);
	nr = read_disk(p, end, NULL);
	if (nr <= 0)
		return nr;
	*out = acl_alloc((size_t)nr);
	if (!*out)
		return -ENOMEM;
	(*out)->nr = (u32)read_disk(p, end, (*out)->e);
	return 0;
}

int acl_from_user(const void *value, size_t len, struct acl **out)
{
	const u8 *p = value;
	struct user_header hdr;
	size_t nr;

	*out = NULL;
	if (len < sizeof(hdr) ||
	    (len - sizeof(hdr)) % sizeof(struct user_entry))
		return -EINVAL;
	memcpy(&hdr, p, sizeof(hdr));
	if (le32_to_cpu(hdr.version) != USER_VERSION)
		return -EINVAL;
	p += sizeof(hdr);
	nr = (len - sizeof(hdr)) / sizeof(struct user_entry);
	if (!nr)
		return 0;
	*out = acl_alloc(nr);
	if (!*out)
		return -ENOMEM;
	for (; (*out)->nr < nr; p += sizeof(struct user_entry)) {
		struct acl_entry *to = &(*out)->e[(*out)->nr++];
		struct user_entry e;

		memcpy(&e, p, sizeof(e));
		*to = (struct acl_entry){
			.tag = le16_to_cpu(e.tag),
			.perm = le16_to_cpu(e.perm),
			.id = tag_has_id(le16_to_cpu(e.tag)) ? le32_to_cpu(e.id)
							     : ACL_ID_NONE,
		};
	}
	return 0;
}

size_t acl_to_disk(const struct acl *acl, void *buf)
{
	struct ext4_acl_header hdr = { cpu_to_le32(EXT4_ACL_VERSION) };
	size_t at = sizeof(hdr);
	u8 *out = buf;

	if (out)
		memcpy(out, &hdr, sizeof(hdr));
	for (u32 i = 0; i < acl->nr; i++) {
		struct ext4_acl_entry e = {
			.e_tag = cpu_to_le16(acl->e[i].tag),
			.e_perm = cpu_to_le16(acl->e[i].perm),
			.e_id = cpu_to_le32(acl->e[i].id),
		};
		size_t n = tag_has_id(acl->e[i].tag) ?
				   sizeof(e) : sizeof(struct ext4_acl_entry_short);

		if (out)
			memcpy(out + at, &e, n);
		at += n;
	}
	return at;
}

size_t acl_to_user(const struct acl *acl, void *buf)
{
	struct user_header hdr = { cpu_to_le32(USER_VERSION) };
	u8 *out = buf;

	if (out)
		memcpy(out, &hdr, sizeof(hdr));
	for (u32 i = 0; out && i < acl->nr; i++) {
		struct user_entry e = {
			.tag = cpu_to_le16(acl->e[i].tag),
			.perm = cpu_to_le16(acl->e[i].perm),
			.id = cpu_to_le32(acl->e[i].id),
		};

		memcpy(out + sizeof(hdr) + i * sizeof(e), &e, sizeof(e));
	}
	return sizeof(hdr) + acl->nr * sizeof(struct user_entry);
}

/* ---- what lists say ---- */

/*
 * The order is owner, users, group, groups, mask, others. `next` has the tags that
 * may come now; at the end none is wanted any more. (Users and groups need not be
 * sorted, nor be different: the kernel takes that, too.)
 */
int acl_check(const struct acl *acl)
{
	u32 next = ACL_TAG_USER_OBJ;
	bool named = false;

	for (u32 i = 0; i < acl->nr; i++) {
		const struct acl_entry *e = &acl->e[i];

		if (!(e->tag & next) || !tag_exists(e->tag) || e->perm & ~S_IRWXO)
			return -EINVAL;
		if (tag_has_id(e->tag) && e->id == ACL_ID_NONE)
			return -EINVAL;
		named |= tag_has_id(e->tag);
		switch (e->tag) {
		case ACL_TAG_USER_OBJ:
		case ACL_TAG_USER:
			next = ACL_TAG_USER | ACL_TAG_GROUP_OBJ;
			break;
		case ACL_TAG_GROUP_OBJ:
		case ACL_TAG_GROUP:
			next = ACL_TAG_GROUP | ACL_TAG_MASK;
			next |= named ? 0 : ACL_TAG_OTHER;
			break;
		case ACL_TAG_MASK:
			next = ACL_TAG_OTHER;
			break;
		default:
			next = 0;
			break;
		}
	}
	return next ? -EINVAL : 0;
}

/* The entry that has the group bits of the mode. NULL: there is none. */
static struct acl_entry *group_class(struct acl *acl)
{
	struct acl_entry *group = NULL;

	for (u32 i = 0; i < acl->nr; i++) {
		if (acl->e[i].tag == ACL_TAG_MASK)
			return &acl->e[i];
		if (acl->e[i].tag == ACL_TAG_GROUP_OBJ)
			group = &acl->e[i];
	}
	return group;
}

static bool has_only_owners(const struct acl *acl)
{
	for (u32 i = 0; i < acl->nr; i++)
		if (tag_has_id(acl->e[i].tag) || acl->e[i].tag == ACL_TAG_MASK)
			return false;
	return true;
}

bool acl_is_mode(const struct acl *acl, u32 *mode)
{
	u32 bits = 0;
	bool mask = false;

	for (u32 i = 0; i < acl->nr; i++) {
		const struct acl_entry *e = &acl->e[i];

		if (e->tag == ACL_TAG_USER_OBJ)
			bits |= (u32)e->perm << 6;
		else if (e->tag == ACL_TAG_OTHER)
			bits |= e->perm;
		else if (e->tag == ACL_TAG_MASK || (e->tag == ACL_TAG_GROUP_OBJ && !mask))
			bits = (bits & ~(u32)S_IRWXG) | (u32)e->perm << 3;
		mask |= e->tag == ACL_TAG_MASK;
	}
	*mode = (*mode & ~(u32)(S_IRWXU | S_IRWXG | S_IRWXO)) | bits;
	return has_only_owners(acl);
}

int acl_inherit(struct acl *acl, u32 *mode, bool *is_mode)
{
	struct acl_entry *group = group_class(acl);

	if (!group)
		return -EINVAL;
	group->perm &= *mode >> 3 & S_IRWXO;
	for (u32 i = 0; i < acl->nr; i++) {
		struct acl_entry *e = &acl->e[i];

		if (e->tag == ACL_TAG_USER_OBJ)
			e->perm &= *mode >> 6 & S_IRWXO;
		else if (e->tag == ACL_TAG_OTHER)
			e->perm &= *mode & S_IRWXO;
	}
	*is_mode = acl_is_mode(acl, mode);
	return 0;
}

int acl_chmod(struct acl *acl, u32 mode)
{
	struct acl_entry *group = group_class(acl);

	if (!group)
		return -EINVAL;
	group->perm = mode >> 3 & S_IRWXO;
	for (u32 i = 0; i < acl->nr; i++) {
		struct acl_entry *e = &acl->e[i];

		if (e->tag == ACL_TAG_USER_OBJ)
			e->perm = mode >> 6 & S_IRWXO;
		else if (e->tag == ACL_TAG_OTHER)
			e->perm = mode & S_IRWXO;
	}
	return 0;
}

/* ---- on inodes ---- */

static const struct xattr_name acl_names[] = {
	[0] = { .index = XATTR_INDEX_ACL_ACCESS, .text = "" },
	[1] = { .index = XATTR_INDEX_ACL_DEFAULT, .text = "" },
};
#define ACCESS_NAME (&acl_names[0])
#define DEFAULT_NAME (&acl_names[1])

static int bad_list(struct ext4_inode *ei)
{
	return ext4_error(ext4_sb_of(ei), ei->vfs.i_ino, 0, -EFSCORRUPTED,
			  "an access control list is damaged");
}

/* *out NULL: it has none. */
static int read_list(struct ext4_inode *ei, const struct xattr_name *name,
		     struct acl **out)
{
	void *value;
	u32 len, has;
	int err = xattr_look_for_acls(ei, &has);

	*out = NULL;
	if (err || !(has & XATTR_ACL_BIT(name->index)))
		return err;
	err = xattr_read_value(ei, name, &value, &len);
	if (err)
		return err == -ENODATA ? 0 : err;
	err = acl_from_disk(value, len, out);
	free(value);
	return err == -EINVAL ? bad_list(ei) : err;
}

ssize_t xattr_get_acl(struct ext4_inode *ei, const struct xattr_name *name, void *buf,
		      size_t size)
{
	struct acl *acl;
	ssize_t n;
	int err = read_list(ei, name, &acl);

	if (err)
		return err;
	if (!acl)
		return -ENODATA;
	n = (ssize_t)acl_to_user(acl, NULL);
	if (n > (ssize_t)XATTR_VALUE_MAX)
		n = -E2BIG;
	else if (size && n > (ssize_t)size)
		n = -ERANGE;
	else if (size)
		(void)acl_to_user(acl, buf);
	free(acl);
	return n;
}

/* As on disk, into memory of its own. */
static int store_form(const struct acl *acl, void **value, u32 *len)
{
	*len = (u32)acl_to_disk(acl, NULL);
	*value = malloc(*len);
	if (!*value)
		return -ENOMEM;
	(void)acl_to_disk(acl, *value);
	return 0;
}

int xattr_plan_acl(struct ext4_inode *ei, const struct xattr_name *name,
		   const void *user, size_t len, struct acl_plan *out)
{
	struct acl *acl = NULL;
	int err = 0;

	*out = (struct acl_plan){ 0 };
	if (user)
		err = acl_from_user(user, len, &acl);
	if (!err && acl)
		err = acl_check(acl);
	if (!err && acl && name->index == XATTR_INDEX_ACL_DEFAULT &&
	    !S_ISDIR(ei->vfs.i_mode))
		err = -EACCES;
	if (!err && S_ISLNK(ei->vfs.i_mode))
		err = -EOPNOTSUPP;
	if (!err && acl && name->index == XATTR_INDEX_ACL_ACCESS) {
		out->sets_mode = true;
		if (acl_is_mode(acl, &out->mode)) {
			free(acl);
			acl = NULL;
		}
	}
	if (!err && acl)
		err = store_form(acl, &out->value, &out->len);
	free(acl);
	return err;
}

/* Both lists of a new inode find room in its block if they are not larger than that;
 * for others, inodes are made that may hold them, in vain if they do. */
static bool may_need_inode(const struct ext4_inode *dir, u32 len)
{
	const struct ext4_sb *sbi = ext4_sb_of(dir);

	return ext4_has_incompat(sbi, EA_INODE) && len > sbi->s.s_blocksize / 4;
}

int ext4_acl_inherit(struct ext4_inode *dir, u32 umask, u32 *mode, struct acl_new *out)
{
	struct acl *acl = NULL;
	bool is_mode;
	int err = 0;

	*out = (struct acl_new){ 0 };
	if (S_ISLNK(*mode))
		return 0;
	if (!ext4_sb_of(dir)->opts.noacl)
		err = read_list(dir, DEFAULT_NAME, &acl);
	if (err)
		return err;
	if (!acl) {
		*mode &= ~(umask & (S_IRWXU | S_IRWXG | S_IRWXO));
		return 0;
	}
	if (S_ISDIR(*mode))
		err = store_form(acl, &out->def, &out->def_len);
	if (!err)
		err = acl_inherit(acl, mode, &is_mode);
	if (!err && !is_mode)
		err = store_form(acl, &out->access, &out->access_len);
	free(acl);
	if (err == -EINVAL)
		err = bad_list(dir);
	if (!err && out->def && may_need_inode(dir, out->def_len))
		err = xattr_ea_make(dir, out->def, out->def_len, false, &out->def_value);
	if (!err && out->access && may_need_inode(dir, out->access_len))
		err = xattr_ea_make(dir, out->access, out->access_len, false,
				    &out->access_value);
	if (err)
		ext4_acl_new_free(out);
	return err;
}

int ext4_acl_new_store(struct handle *h, struct ext4_inode *ei, const struct acl_new *n)
{
	int err = 0;

	if (n->def)
		err = xattr_set_in(h, ei, DEFAULT_NAME, n->def, n->def_len, n->def_value);
	if (!err && n->access)
		err = xattr_set_in(h, ei, ACCESS_NAME, n->access, n->access_len,
				   n->access_value);
	return err;
}

void ext4_acl_new_free(struct acl_new *n)
{
	inode_put(n->access_value);
	inode_put(n->def_value);
	free(n->access);
	free(n->def);
	*n = (struct acl_new){ 0 };
}

int ext4_acl_after_chmod(struct ext4_inode *ei, u32 mode, void **value, u32 *len)
{
	struct acl *acl = NULL;
	u32 before = 0;
	int err = 0;

	*value = NULL;
	if (!S_ISLNK(ei->vfs.i_mode) && !ext4_sb_of(ei)->opts.noacl)
		err = read_list(ei, ACCESS_NAME, &acl);
	if (err || !acl)
		return err;
	(void)acl_is_mode(acl, &before);
	if (before != (mode & (S_IRWXU | S_IRWXG | S_IRWXO))) {
		err = acl_chmod(acl, mode);
		if (!err)
			err = store_form(acl, value, len);
	}
	free(acl);
	return err == -EINVAL ? bad_list(ei) : err;
}

int ext4_acl_prepare(struct ext4_inode *ei, const void *value, u32 len, bool privileged,
		     struct xattr_update **out)
{
	return xattr_update_prepare(ei, ACCESS_NAME, value, len, privileged, out);
}
