/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/xattr_internal.h - what the files of the extended attributes share
 *
 * Both places, the inode's body and the attribute block, hold a list of entries
 * from `first` to a zero word; values count from `base`, and lie below `size`.
 * Lists were checked (ext4_xattr_check_ibody(), the type's verify()) before any of
 * these walks over them.
 */
#ifndef SLUICE_FS_XATTR_INTERNAL_H
#define SLUICE_FS_XATTR_INTERNAL_H

#include <string.h>

#include "fs/ext4.h"

#define XATTR_PAD 4u
/* What system calls can hand over. */
#define XATTR_VALUE_MAX 65536u

enum {
	XATTR_INDEX_USER = 1,
	XATTR_INDEX_ACL_ACCESS = 2,
	XATTR_INDEX_ACL_DEFAULT = 3,
	XATTR_INDEX_TRUSTED = 4,
	XATTR_INDEX_SECURITY = 6,
};

struct xattr_name {
	u8 index;
	u8 len;
	const char *text; /* without the prefix; not terminated */
};

/* i_acls: by namespace; or what is in the block has not been looked at. */
#define XATTR_ACL_BIT(index) (1u << (index))
#define XATTR_ACL_UNKNOWN 1u

static inline bool xattr_index_is_acl(u8 index)
{
	return index == XATTR_INDEX_ACL_ACCESS || index == XATTR_INDEX_ACL_DEFAULT;
}

/* A list of entries and where its values are. */
struct xattr_list {
	u8 *data;
	u32 first, base, size;
};

static inline struct ext4_xattr_entry *xattr_entry(const struct xattr_list *l,
						   u32 at)
{
	return (struct ext4_xattr_entry *)(void *)(l->data + at);
}

/* The zero word: no entry begins at `at`. */
static inline bool xattr_is_end(const struct xattr_list *l, u32 at)
{
	u32 word;

	memcpy(&word, l->data + at, sizeof(word));
	return !word;
}

static inline u32 xattr_entry_len(u32 name_len)
{
	return ALIGN_UP((u32)sizeof(struct ext4_xattr_entry) + name_len,
			XATTR_PAD);
}

static inline u32 xattr_next(const struct xattr_list *l, u32 at)
{
	return at + xattr_entry_len(xattr_entry(l, at)->e_name_len);
}

static inline struct xattr_list xattr_block_list(struct ext4_sb *sbi,
						 struct buffer *b)
{
	return (struct xattr_list){
		.data = b->b_data,
		.first = sizeof(struct ext4_xattr_header),
		.size = sbi->s.s_blocksize,
	};
}

/* raw: the whole inode. False: there are none, or there is no room for any. */
static inline bool xattr_body_list(struct ext4_sb *sbi, u8 *raw, u32 extra_isize,
				   struct xattr_list *l)
{
	u32 at = EXT4_GOOD_OLD_INODE_SIZE + extra_isize;
	struct ext4_xattr_ibody_header hdr;

	if (!extra_isize || at + 2 * sizeof(hdr) > sbi->inode_size)
		return false;
	memcpy(&hdr, raw + at, sizeof(hdr));
	*l = (struct xattr_list){
		.data = raw,
		.first = at + (u32)sizeof(hdr),
		.base = at + (u32)sizeof(hdr),
		.size = sbi->inode_size,
	};
	return le32_to_cpu(hdr.h_magic) == EXT4_XATTR_MAGIC;
}

/* Where the entry of that name begins; 0: there is none. */
u32 xattr_find(const struct xattr_list *l, const struct xattr_name *name);
/* The namespace and the rest of a whole name. -EOPNOTSUPP: no namespace of ours, or
 * ACLs with -o noacl; -EINVAL: nothing behind the prefix; -ERANGE: too long. */
int __must_check xattr_parse_name(const struct ext4_sb *sbi, const char *full,
				  struct xattr_name *out);
/* A copy of the whole inode from its table block, checked; the caller frees it. */
int __must_check xattr_read_raw(struct ext4_inode *ei, u8 **raw);
/* The attribute block, referenced; i_file_acl is not 0. xattr_sem held. */
int __must_check xattr_bread(struct ext4_inode *ei, struct buffer **out);
/* One sharer of the block less; the last one frees it. b's reference is consumed. xattr_sem
 * held. Credits: EXT4_XATTR_RELEASE_CREDITS, 1 revoke. */
int __must_check xattr_release_block(struct handle *h, struct ext4_inode *ei,
				     struct buffer *b);
/* The lists that a list of entries has: XATTR_ACL_BIT()s. */
u32 xattr_acls_in(const struct xattr_list *l);
/* The same of the inode; takes xattr_sem if it must look into the block. */
int __must_check xattr_look_for_acls(struct ext4_inode *ei, u32 *has);
/* A whole value as it is stored; the caller frees it. -ENODATA. Takes xattr_sem. */
int __must_check xattr_read_value(struct ext4_inode *ei, const struct xattr_name *name,
				  void **value, u32 *len);
/*
 * Sets an attribute in the caller's handle (EXT4_XATTR_SET_CREDITS, 1 revoke), without a
 * change of times; value NULL: removes it, if it is there. i_rwsem held exclusively, or
 * nobody else knows the inode. Nothing has changed if it fails.
 */
int __must_check xattr_set_in(struct handle *h, struct ext4_inode *ei,
			      const struct xattr_name *name, const void *value, u32 len);

/* acl.c: what the system calls' form of a list makes of an inode. */
struct acl_plan {
	void *value; /* to be stored; owned; NULL: none */
	u32 len;
	bool sets_mode;
	u32 mode; /* permission bits, then */
};
/* user NULL: no list. -EINVAL; -EACCES: a default list of what is no directory. */
int __must_check xattr_plan_acl(struct ext4_inode *ei, const struct xattr_name *name,
				const void *user, size_t len, struct acl_plan *out);
/* As sl_getxattr(). */
ssize_t __must_check xattr_get_acl(struct ext4_inode *ei, const struct xattr_name *name,
				   void *buf, size_t size);
/* Has the block other sharers? If not, none will come. */
bool xattr_is_shared(struct buffer *b);

#endif
