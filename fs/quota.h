/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/quota.h - usage of space and inodes by users, groups and projects
 *
 * For volumes with the feature "quota"; without it, and on read-only mounts,
 * sbi->quota is NULL, and each of these is one branch. See quota.c.
 */
#ifndef SLUICE_FS_QUOTA_H
#define SLUICE_FS_QUOTA_H

#include "fs/ext4.h"

struct ext4_quota;

enum ext4_quota_type { EXT4_QUOTA_USR, EXT4_QUOTA_GRP, EXT4_QUOTA_PRJ, EXT4_QUOTA_TYPES };

/* Whom an inode is charged to, by type. */
struct ext4_owner {
	u32 id[EXT4_QUOTA_TYPES];
};

/*
 * Reads and checks the quota files; the journal runs, and no handle was started yet.
 * -EFSCORRUPTED and others: logged. Nothing to do without the feature.
 */
int __must_check ext4_quota_start(struct ext4_sb *sbi);
/* Before the inodes are evicted: no new records from here on. Idempotent. */
void ext4_quota_stop(struct ext4_sb *sbi);
/* After the journal has ended. */
void ext4_quota_free(struct ext4_sb *sbi);
/* The usage that the transaction changed goes to its records. From the journal's hook. */
void ext4_quota_pre_commit(struct ext4_sb *sbi, struct handle *h);

int __must_check ext4_quota_prepare_owner(struct ext4_sb *sbi, const struct ext4_owner *o);
void ext4_quota_add(struct handle *h, struct ext4_inode *ei, s64 inodes, s64 bytes);
void ext4_quota_move(struct handle *h, struct ext4_inode *ei, const struct ext4_owner *to);

static inline struct ext4_owner ext4_owner_of(const struct ext4_inode *ei)
{
	return (struct ext4_owner){ { ei->vfs.i_uid, ei->vfs.i_gid,
				      atomic_load(&ei->i_projid) } };
}

/*
 * Makes sure that these have records, so that they can be charged. No handle is open;
 * i_rwsem may be held. -ENOSPC, -EROFS, -EFSCORRUPTED, ...
 */
static inline int __must_check ext4_quota_prepare(struct ext4_sb *sbi,
						  const struct ext4_owner *o)
{
	return likely(!sbi->quota) ? 0 : ext4_quota_prepare_owner(sbi, o);
}

/*
 * Charges what ei has more in h, or gives back (less than 0). i_lock held: what i_blocks
 * says and who is charged for it go together. The record is written with h's
 * transaction. Never fails, never waits.
 */
static inline void ext4_quota_charge(struct handle *h, struct ext4_inode *ei, s64 inodes,
				     s64 bytes)
{
	if (unlikely(ext4_sb_of(ei)->quota))
		ext4_quota_add(h, ei, inodes, bytes);
}

/* All of ei is to's, who was prepared, from now on; before the inode says so. i_lock held. */
static inline void ext4_quota_transfer(struct handle *h, struct ext4_inode *ei,
				       const struct ext4_owner *to)
{
	if (unlikely(ext4_sb_of(ei)->quota))
		ext4_quota_move(h, ei, to);
}

/* As it is now, with what is not committed; false: there is no record. For tests. */
bool ext4_quota_usage(struct ext4_sb *sbi, enum ext4_quota_type type, u32 id, u64 *inodes,
		      u64 *bytes);

#endif
