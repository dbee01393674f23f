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
/* What the format allows an inode of its own to hold. */
#define XATTR_EA_MAX (1u << 24)

enum {
	XATTR_INDEX_USER = 1,
	XATTR_INDEX_ACL_ACCESS = 2,
	XATTR_INDEX_ACL_DEFAULT = 3,
	XATTR_INDEX_TRUSTED = 4,
	XATTR_INDEX_SECURITY = 6,
	XATTR_INDEX_SYSTEM = 7, /* inline data */
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

/* What an entry says of its name, and of its value: padded with zeroes to words. */
u32 xattr_entry_hash(const struct xattr_name *name, const void *value, u32 len);
/* Is e_hash that of an entry whose value, in an inode of its own, has that checksum? */
bool xattr_ea_entry_ok(const struct xattr_name *name, u32 value_hash, u32 e_hash);
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
/*
 * One sharer of the block less; the last one frees it. b's reference is consumed. xattr_sem
 * held. *last: it was; what the entries refer to is the caller's then. Credits:
 * EXT4_XATTR_RELEASE_CREDITS, 1 revoke.
 */
int __must_check xattr_release_block(struct handle *h, struct ext4_inode *ei,
				     struct buffer *b, bool *last);
/* The lists that a list of entries has: XATTR_ACL_BIT()s. */
u32 xattr_acls_in(const struct xattr_list *l);
/* The same of the inode; takes xattr_sem if it must look into the block. */
int __must_check xattr_look_for_acls(struct ext4_inode *ei, u32 *has);
/* A whole value as it is stored; the caller frees it. -ENODATA. Takes xattr_sem. */
int __must_check xattr_read_value(struct ext4_inode *ei, const struct xattr_name *name,
				  void **value, u32 *len);
/*
 * A change of one attribute in the caller's handle, without a change of times; value NULL:
 * removes it, if it is there. i_rwsem held exclusively from prepare to end. prepare and
 * end: no handle; apply: credits as _credits() says, 1 revoke; nothing has changed if it
 * fails. -ENOSPC, -EAGAIN (as ext4_alloc_blocks), ...
 */
struct xattr_update;
int __must_check xattr_update_prepare(struct ext4_inode *ei, const struct xattr_name *name,
				      const void *value, u32 len, bool privileged,
				      struct xattr_update **out);
u32 xattr_update_credits(const struct xattr_update *u);
int __must_check xattr_update_apply(struct handle *h, struct xattr_update *u);
void xattr_update_end(struct xattr_update *u); /* NULL is allowed */
/*
 * The same at once, for an inode that was made in this handle
 * (EXT4_XATTR_SET_CREDITS, with ea EXT4_XATTR_VALUE_CREDITS more, 1 revoke). ea: holds the
 * value if it has no place in the inode or its block; NULL: -ENOSPC then.
 */
int __must_check xattr_set_in(struct handle *h, struct ext4_inode *ei,
			      const struct xattr_name *name, const void *value, u32 len,
			      struct inode *ea);

/* ---- what was seen last: xattr_known.c. Any k may be NULL: nothing is known ---- */

#define XATTR_KNOWN_WAYS 4u
struct xattr_known;
struct xattr_known *xattr_known_create(void); /* NULL: no memory */
void xattr_known_free(struct xattr_known *k);
/* nr, not 0, has content of that hash. For one more an older one may go. */
void xattr_known_add(struct xattr_known *k, u32 hash, u64 nr);
void xattr_known_del(struct xattr_known *k, u32 hash, u64 nr);
bool xattr_known_has(struct xattr_known *k, u32 hash, u64 nr);
/* The n-th (below XATTR_KNOWN_WAYS) of that hash; 0: there are no more. */
u64 xattr_known_nth(struct xattr_known *k, u32 hash, u32 n);

/* ---- equal blocks: xattr_share.c ---- */

/* b, the block of ei, may be joined by others. xattr_sem of ei and b_lock held. */
void xattr_share_note(struct ext4_inode *ei, struct buffer *b);
/* Has b one sharer, the caller? If so, none will come. */
bool xattr_share_claim(struct ext4_sb *sbi, struct buffer *b);
bool xattr_share_claim_locked(struct ext4_sb *sbi, struct buffer *b); /* b_lock held */
/*
 * A block that has this content behind its header, has a sharer more now, and is
 * another one than that, referenced and dirty in h; NULL: none is known, or can be
 * joined. Credits: 1.
 */
struct buffer *xattr_share_join(struct handle *h, struct ext4_inode *ei, u8 *block,
				pblk_t other_than);

/* ---- values in inodes of their own: xattr_ea.c ---- */

/*
 * The inode `ino` that an entry of owner names, referenced. No handle: inodes that are
 * being deleted are waited for. -ESTALE: there is none (not reported). References are
 * put without a handle, and without a lock but i_rwsem, since the last one deletes.
 */
int __must_check xattr_ea_find(struct ext4_inode *owner, ino_nr ino, struct inode **out);
/* Can it hold a value, if an entry of owner names it? -EFSCORRUPTED (reported). */
int __must_check xattr_ea_check(struct ext4_inode *owner, struct inode *inode);
/* Reports that the inode an entry names does not exist. -EFSCORRUPTED. */
int xattr_ea_lost(struct ext4_inode *owner, ino_nr ino);
/* The value, of that many bytes by its entry, checked. -EFSCORRUPTED, -EIO, ... */
int __must_check xattr_ea_read(struct ext4_inode *owner, struct inode *inode,
			       const struct xattr_name *name, u32 e_hash, void *buf,
			       u32 len);
/* One with this value for owner's attributes, new or known; referenced in memory and not yet
 * on disk: if that stays so, it is deleted when it is put. No handle. -ENOSPC, -EAGAIN. */
int __must_check xattr_ea_make(struct ext4_inode *owner, const void *value, u32 len,
			       bool privileged, struct inode **out);
u32 xattr_ea_hash(const struct inode *inode); /* of the value */
/* One entry more or fewer names it. Credits: EXT4_XATTR_VALUE_CREDITS. Nothing has
 * changed if it fails. -EFSCORRUPTED: its count makes no sense. */
int __must_check xattr_ea_ref(struct handle *h, struct ext4_inode *owner,
			      struct inode *inode);
int __must_check xattr_ea_unref(struct handle *h, struct ext4_inode *owner,
				struct inode *inode);

/* Each of them once, referenced. */
struct xattr_eas {
	struct inode **inode;
	u32 nr;
};
/* Adds the one that an entry of owner names, if it is not there. -EFSCORRUPTED
 * (reported), ... No handle. */
int __must_check xattr_eas_add(struct ext4_inode *owner, ino_nr ino,
			       struct xattr_eas *set);
/* Those that the list names, but what is damaged (reported) or unreadable. -ENOMEM. */
int __must_check xattr_eas_add_sound(struct ext4_inode *owner, const struct xattr_list *l,
				     struct xattr_eas *set);
struct inode *xattr_eas_find(const struct xattr_eas *set, ino_nr ino);
void xattr_eas_put(struct xattr_eas *set);
/* Clusters that an owner is charged for a value in an inode of its own. */
static inline s64 xattr_ea_clusters(const struct ext4_sb *sbi, u32 len)
{
	return (s64)DIV_ROUND_UP((u64)len, (u64)1 << ext4_cluster_bytes_bits(sbi));
}

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
/* Has the block other sharers? If not, and one of its values is in an inode of its own,
 * none will come. */
bool xattr_is_shared(struct buffer *b);

#endif
