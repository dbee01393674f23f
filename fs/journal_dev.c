/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/journal_dev.c - a journal on a device of its own: is it this volume's?
 *
 * The device begins like a volume: at byte 1024 a superblock with the feature
 * journal_dev, whose UUID the volume has in s_journal_uuid. In the block after that one
 * is the journal's superblock, with the volume's UUID among its users; then the log.
 * Blocks of the log are numbered from the beginning of the device: the first ones,
 * with the superblocks, count and are not the ring's.
 *
 *   1 KiB blocks:     | boot | ext4 sb | jbd2 sb | log ...
 *   larger blocks:    | boot + ext4 sb | jbd2 sb | log ...
 *
 * Each of the two must name the other. The kernel looks at one direction alone; but who
 * made a second volume with the journal of a first would lose both.
 *
 * A read-only mount keeps what the journal's superblock was (_note()); before it becomes
 * writable, the device must still be the same, and nobody have used it (_same()).
 *
 * Locks:   none; while mounting, or who makes it writable.
 * Source:  ext4-format brief 14.3; Documentation/filesystems/ext4/journal.rst, "External
 *          Journal". Next: journal/journal.c, which checks the journal's superblock
 */
#include "fs/super_internal.h"

#include <stdio.h>
#include <string.h>

#define MIN_LOG_BLOCKS 1024u

void ext4_uuid_text(const u8 *uuid, char *text)
{
	size_t at = 0;

	for (int i = 0; i < 16; i++)
		at += (size_t)snprintf(text + at, EXT4_UUID_TEXT - at, "%s%02x",
				       i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "",
				       uuid[i]);
}

bool ext4_uuid_is_null(const u8 *uuid)
{
	static const u8 zero[16];

	return !memcmp(uuid, zero, sizeof(zero));
}

static int check_super(const struct ext4_sb *sbi, const struct ext4_super_block *es)
{
	const char *id = sbi->s.s_id, *dev = sbi->journal_bd->bd_name;
	u32 log_bs = le32_to_cpu(es->s_log_block_size);
	char is[EXT4_UUID_TEXT], want[EXT4_UUID_TEXT];

	if (le16_to_cpu(es->s_magic) != EXT4_SUPER_MAGIC ||
	    !(le32_to_cpu(es->s_feature_incompat) & EXT4_INCOMPAT_JOURNAL_DEV)) {
		log_err("%s: %s is no external journal (%s)", id, dev,
			le16_to_cpu(es->s_magic) == EXT4_SUPER_MAGIC
				? "its superblock is that of a file system"
				: "it has no superblock");
		return -EINVAL;
	}
	if (le32_to_cpu(es->s_feature_ro_compat) & EXT4_RO_COMPAT_METADATA_CSUM) {
		if (es->s_checksum_type != EXT4_CRC32C_CHKSUM)
			return ext4_refuse(sbi, "%s: external journal %s: unknown checksum type %u",
					   id, dev, es->s_checksum_type);
		if (le32_to_cpu(es->s_checksum) != ext4_super_csum(es)) {
			log_err("%s: external journal %s: the checksum of its superblock is wrong",
				id, dev);
			return -EFSBADCRC;
		}
	}
	if (memcmp(es->s_uuid, sbi->journal_uuid, sizeof(es->s_uuid)) != 0) {
		ext4_uuid_text(es->s_uuid, is);
		ext4_uuid_text(sbi->journal_uuid, want);
		log_err("%s: %s is the journal of another volume: its UUID is %s, this volume's journal is %s",
			id, dev, is, want);
		return -EINVAL;
	}
	if (log_bs > 6 || 1024u << log_bs != sbi->s.s_blocksize) {
		log_err("%s: external journal %s: its blocks are of 2^%llu bytes, the volume's of %u",
			id, dev, (unsigned long long)log_bs + 10, sbi->s.s_blocksize);
		return -EINVAL;
	}
	return 0;
}

static int check_size(const struct ext4_sb *sbi, const struct ext4_super_block *es, u32 *blocks)
{
	bool wide = le32_to_cpu(es->s_feature_incompat) & EXT4_INCOMPAT_64BIT;
	u64 n = le32_to_cpu(es->s_blocks_count_lo) |
		(wide ? (u64)le32_to_cpu(es->s_blocks_count_hi) << 32 : 0);
	u64 there = sbi->journal_bd->bd_size >> sbi->s.s_blocksize_bits;
	const char *id = sbi->s.s_id, *dev = sbi->journal_bd->bd_name;

	if (n < MIN_LOG_BLOCKS)
		return ext4_refuse(sbi, "%s: external journal %s: %llu blocks are too few, a journal has %u",
				   id, dev, (unsigned long long)n, MIN_LOG_BLOCKS);
	if (n > there)
		return ext4_refuse(sbi, "%s: external journal %s: it has %llu blocks, the device only %llu",
				   id, dev, (unsigned long long)n, (unsigned long long)there);
	/* s_maxlen has 32 bits. */
	*blocks = (u32)min_of(n, (u64)UINT32_MAX / 2);
	return 0;
}

static u32 log_super_block(const struct ext4_sb *sbi)
{
	return sbi->s.s_blocksize == EXT4_SUPER_OFFSET ? 2 : 1;
}

int ext4_journal_dev_check(struct ext4_sb *sbi, u32 *blocks, u32 *sb_block)
{
	struct ext4_super_block es;
	char want[EXT4_UUID_TEXT];
	int err;

	if (ext4_uuid_is_null(sbi->journal_uuid))
		return ext4_refuse(sbi, "%s: a journal, but neither its inode nor its UUID",
				   sbi->s.s_id);
	if (!sbi->journal_bd) {
		ext4_uuid_text(sbi->journal_uuid, want);
		log_err("%s: its journal is external (UUID %s), and was not opened", sbi->s.s_id,
			want);
		return -EINVAL;
	}
	/* By the volume's block size: the journal's own is not believed yet. */
	err = ext4_fit_sectors(sbi->journal_bd, &sbi->disk_es);
	if (!err)
		err = ext4_read_super_at(sbi->journal_bd, EXT4_SUPER_OFFSET, &es);
	if (!err)
		err = check_super(sbi, &es);
	if (!err)
		err = check_size(sbi, &es, blocks);
	*sb_block = log_super_block(sbi);
	return err;
}

static int read_log_super(const struct ext4_sb *sbi, u8 *super)
{
	return ext4_read_super_at(sbi->journal_bd,
				  (u64)log_super_block(sbi) * sbi->s.s_blocksize, super);
}

int ext4_journal_dev_note(struct ext4_sb *sbi)
{
	return read_log_super(sbi, sbi->log_super);
}

int ext4_journal_dev_same(struct ext4_sb *sbi)
{
	u8 super[sizeof(sbi->log_super)];
	u32 blocks, sb_block;
	int err = ext4_journal_dev_check(sbi, &blocks, &sb_block);

	if (!err)
		err = read_log_super(sbi, super);
	/* Its users, where the log begins, the next transaction: who commits changes it. */
	if (!err && memcmp(super, sbi->log_super, sizeof(super)) != 0)
		err = ext4_refuse(sbi, "%s: external journal %s: it was changed since the volume was mounted: unmount it, run e2fsck, and mount it again",
				  sbi->s.s_id, sbi->journal_bd->bd_name);
	return err;
}
