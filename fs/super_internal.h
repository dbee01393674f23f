/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/super_internal.h - what super.c and mount.c share
 *
 * Locks: as said at each.
 */
#ifndef SLUICE_FS_SUPER_INTERNAL_H
#define SLUICE_FS_SUPER_INTERNAL_H

#include "fs/ext4.h"

#define EXT4_MIN_CACHE_BYTES (16ull << 20)

/* Logs why, and is -EFSCORRUPTED. */
#define ext4_refuse(sbi, ...)                                                  \
	({                                                                     \
		log_err(__VA_ARGS__);                                          \
		-EFSCORRUPTED;                                                 \
	})

/* The superblock's place in its block: 1024 into block 0, or all of block 1. */
u32 ext4_super_offset(const struct super_block *sb);

/*
 * The whole block of the superblock, from memory to the device, durable; nothing is
 * journalled now. _mounted: with what says that the volume is in use; on an error the
 * journal is aborted, as nothing on disk asks for its replay. _clean: with what says
 * that all is in its place. No lock.
 */
int __must_check ext4_write_super(struct ext4_sb *sbi);
int __must_check ext4_write_super_mounted(struct ext4_sb *sbi);
int ext4_write_super_clean(struct ext4_sb *sbi);
u64 ext4_bytes_written(struct bdev *bd);

/* The marks of dirty data: as the options say, else from the cache's limit. */
void ext4_dirty_marks(const struct ext4_sb *sbi, u64 cache, u64 *background,
		      u64 *limit);

#endif
