/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/acl.h - POSIX access control lists: their two forms, and what they say of a mode
 *
 * Lists in memory are one allocation, free(3)d by the owner. The two forms outside:
 * on disk (version 1, entries without an id are shorter) and of system calls
 * (version 2, all entries have 8 bytes).
 *
 * Locks: none, but for the functions that say so.
 */
#ifndef SLUICE_FS_ACL_H
#define SLUICE_FS_ACL_H

#include "fs/ext4.h"

enum acl_tag {
	ACL_TAG_USER_OBJ = 0x01,
	ACL_TAG_USER = 0x02,
	ACL_TAG_GROUP_OBJ = 0x04,
	ACL_TAG_GROUP = 0x08,
	ACL_TAG_MASK = 0x10,
	ACL_TAG_OTHER = 0x20,
};
#define ACL_ID_NONE UINT32_MAX

struct acl_entry {
	u16 tag;  /* enum acl_tag */
	u16 perm; /* as S_IRWXO */
	u32 id;   /* of users and groups, else ACL_ID_NONE */
};
struct acl {
	u32 nr;
	struct acl_entry e[];
};

/*
 * Both forms, of `len` bytes, into *out; NULL without an error: no entries. -EINVAL:
 * it is none. What the entries say is not looked at, see acl_check().
 */
int __must_check acl_from_disk(const void *value, size_t len, struct acl **out);
int __must_check acl_from_user(const void *value, size_t len, struct acl **out);
/* Bytes in that form; written to buf, unless NULL. */
size_t acl_to_disk(const struct acl *acl, void *buf);
size_t acl_to_user(const struct acl *acl, void *buf);

/* Is it a list that may be set: each entry once and in its place, a mask if there
 * are named entries? -EINVAL. */
int __must_check acl_check(const struct acl *acl);
/* The permission bits of *mode become those of a list that passed acl_check(). True: the
 * list says no more than that. */
bool acl_is_mode(const struct acl *acl, u32 *mode);
/*
 * The default list of a directory becomes that of a new inode in it, and *mode, that was
 * wanted, what both allow. True: the list says no more than the mode. -EINVAL: a list
 * without a group.
 */
int __must_check acl_inherit(struct acl *acl, u32 *mode, bool *is_mode);
/* The list after a chmod. -EINVAL: a list without a group. */
int __must_check acl_chmod(struct acl *acl, u32 mode);

/* ---- on inodes ---- */

/* Both attributes of a new inode, as on disk. */
struct acl_new {
	void *access, *def; /* owned; NULL: none */
	u32 access_len, def_len;
	struct inode *access_value, *def_value; /* hold them, if need be; NULL: none */
};
/*
 * What a new inode in dir gets: *mode is what was asked for, and becomes what it is
 * to be, by the default list of dir, or by the umask if there is none. dir's i_rwsem
 * held. The caller ends with ext4_acl_new_free(), without a handle. -ENOMEM, -EIO,
 * -EFSCORRUPTED, -ENOSPC, -EAGAIN.
 */
int __must_check ext4_acl_inherit(struct ext4_inode *dir, u32 umask, u32 *mode,
				  struct acl_new *out);
static inline bool ext4_acl_new_any(const struct acl_new *n)
{
	return n->access || n->def;
}
#define EXT4_ACL_NEW_CREDITS (2 * (EXT4_XATTR_SET_CREDITS + EXT4_XATTR_VALUE_CREDITS))
#define EXT4_ACL_NEW_REVOKES 2u
/* Gives them to a new inode, in the handle of its creation. -ENOSPC, -EAGAIN, ... */
int __must_check ext4_acl_new_store(struct handle *h, struct ext4_inode *ei,
				    const struct acl_new *n);
void ext4_acl_new_free(struct acl_new *n);

/*
 * The access list of ei as it is to be after a chmod; *value NULL: it has none, or it
 * stays as it is. i_rwsem held exclusively. Stored by ext4_acl_prepare(). */
int __must_check ext4_acl_after_chmod(struct ext4_inode *ei, u32 mode, void **value,
				      u32 *len);
/* A change to that list, for xattr_update_apply(); see there. i_rwsem held exclusively. */
struct xattr_update;
int __must_check ext4_acl_prepare(struct ext4_inode *ei, const void *value, u32 len,
				  bool privileged, struct xattr_update **out);

#endif
