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

/* Of the superblock, as it should be. */
u32 ext4_super_csum(const struct ext4_super_block *es);
/* 1 KiB at byte pos, whatever the device's sector size: the superblock of a volume, or of a
 * journal. -EINVAL: too small; or -EIO, ...; logged. */
int __must_check ext4_read_super_at(struct bdev *bd, u64 pos, void *super);
/*
 * Blocks of 1 or 2 KiB where direct I/O works by 4 KiB: not with direct I/O, then. Before
 * the size of the device is believed: it was rounded down to sectors.
 */
int __must_check ext4_fit_sectors(struct bdev *bd, const struct ext4_super_block *es);

#define EXT4_UUID_TEXT 37u /* as in struct sl_external_journal */
void ext4_uuid_text(const u8 *uuid, char *text);
bool ext4_uuid_is_null(const u8 *uuid);
/*
 * Is sbi->journal_bd the volume's external journal? *blocks: of it, at most 2^31 - 1;
 * *sb_block: where the journal's superblock is, which is for journal_load() to check.
 * -EINVAL (no journal, another one, or none was opened), -EFSCORRUPTED, -EFSBADCRC,
 * -EIO, -ENOMEM; the reason is logged.
 */
int __must_check ext4_journal_dev_check(struct ext4_sb *sbi, u32 *blocks, u32 *sb_block);
/*
 * Of a volume that is read-only: _note() keeps what the journal's superblock is now (-EIO,
 * ...); _same(): is the device the volume's journal, as by _check(), and was it left alone
 * since? -EFSCORRUPTED if not, or any error of _check(). Logged.
 */
int __must_check ext4_journal_dev_note(struct ext4_sb *sbi);
int __must_check ext4_journal_dev_same(struct ext4_sb *sbi);

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

/* dirty_expire, or its default. */
u32 ext4_expire_ms(const struct ext4_sb *sbi);

/* EXT4_ERRORS_*: as the mount says, else as the superblock does. */
u32 ext4_errors_policy(enum sl_errors given, u32 own);

/* The marks of dirty data: as the options say, else from the cache's limit. */
void ext4_dirty_marks(const struct ext4_sb *sbi, u64 cache, u64 *background,
		      u64 *limit);

#endif
