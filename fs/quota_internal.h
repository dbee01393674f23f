/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/quota_internal.h - what quota.c and quota_file.c share
 */
#ifndef SLUICE_FS_QUOTA_INTERNAL_H
#define SLUICE_FS_QUOTA_INTERNAL_H

#include "fs/quota.h"

/* One user, group or project that has a record. Lives until the unmount. */
struct dquot {
	struct dquot *next;       /* in its bucket [const once published] */
	struct dquot *next_dirty; /* [who made it dirty; then pre_commit] */
	pblk_t blk;               /* block of the volume with its record [const] */
	u32 off;                  /* the record, in it [const] */
	u32 id;                   /* [const] */
	u32 type;                 /* [const] */
	_Atomic bool dirty;       /* on the list of this transaction [atomic] */
	_Atomic s64 inodes, bytes; /* [atomic; write i_lock of a charged inode] */
};

/* Buckets get no fewer, chains only grow at the front: found without a lock. */
struct quota_file {
	struct inode *inode;      /* referenced; NULL: no such file, or stopped [lock] */
	ino_nr ino;               /* [const] */
	bool on;                  /* [const] this kind is counted */
	u32 blocks;               /* in use, as on disk [lock] */
	u32 free_entry;           /* [lock] */
	struct dquot *_Atomic *bucket; /* [const; atomic] */
	u32 nr_buckets;           /* [const] a power of two */
	u64 nr;                   /* records [lock] */
};

struct ext4_quota {
	struct ext4_sb *sbi;
	struct mutex lock;        /* new records; RANK_QUOTA */
	struct quota_file file[EXT4_QUOTA_TYPES];
	struct dquot *_Atomic dirty; /* [atomic] those whose usage this transaction changed */
	_Atomic u64 missing;      /* [atomic] type << 32 | id, + 1, of who has no record; 0: nobody */
	bool told;                /* [pre_commit] that something is wrong */
};

extern const struct buffer_type quota_buffer_type;

/* Reads all of f->inode: each record by add(), which may fail. -EFSCORRUPTED (logged), ... */
int __must_check quota_file_load(struct ext4_sb *sbi, struct quota_file *f, u32 type,
				 int (*add)(struct quota_file *f, const struct dquot *dq));
/*
 * A record for dq->id, of which there is none, without usage; *dq gets its place. Has a handle of
 * its own. lock held. -ENOSPC, -EAGAIN (as ext4_alloc_blocks()), -EFSCORRUPTED, ...
 */
int __must_check quota_file_insert(struct ext4_sb *sbi, struct quota_file *f,
				   struct dquot *dq);

#endif
