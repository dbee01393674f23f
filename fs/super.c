/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/super.c - the superblock, sync, statfs, statistics
 *
 * Decodes and checks the superblock, and writes it when nothing is journalled:
 * at the beginning and at the end of a mount. While mounted it changes only
 * through the journal (pre_commit() in mount.c).
 *
 * Locks:   s_lock for superblock fields.
 * Source:  ext4-format brief 2, 13; Documentation/filesystems/ext4/super.rst
 *          Next: mount.c
 */
#include "fs/super_internal.h"
#include "cache/migrate.h"
#include "cache/window.h"
#include "lib/crc.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* ------------------------------------------------------------ superblock */

u32 ext4_super_csum(const struct ext4_super_block *es)
{
	return crc32c(~0u, es, offsetof(struct ext4_super_block, s_checksum));
}

void ext4_super_csum_set(const struct ext4_sb *sbi, struct ext4_super_block *es)
{
	if (sbi->has_csum)
		es->s_checksum = cpu_to_le32(ext4_super_csum(es));
}

u32 ext4_super_offset(const struct super_block *sb)
{
	return sb->s_blocksize == EXT4_SUPER_OFFSET ? 0 : EXT4_SUPER_OFFSET;
}

static void super_freeze(struct super_block *sb, pblk_t blk, void *data, u32 seed)
{
	ext4_super_csum_set(EXT4_SB(sb),
			    (void *)((u8 *)data + ext4_super_offset(sb)));
}

const struct buffer_type ext4_super_type = {
	.name = "superblock",
	.freeze = super_freeze,
};

static u64 super_blocks_count(const struct ext4_super_block *es, bool has_64bit)
{
	u64 n = le32_to_cpu(es->s_blocks_count_lo);

	return has_64bit ? n | (u64)le32_to_cpu(es->s_blocks_count_hi) << 32 : n;
}

static bool is_power_of_2(u32 x)
{
	return x && !(x & (x - 1));
}

static int decode_groups(struct ext4_sb *sbi, const struct ext4_super_block *es,
			 u64 device_bytes)
{
	const char *id = sbi->s.s_id;
	/* Where the superblock is, unless that shares a cluster with the block before. */
	u32 first = sbi->s.s_blocksize == 1024 && !sbi->cluster_bits ? 1 : 0;
	u64 groups;

	if (sbi->first_data_block != first)
		return ext4_refuse(sbi, "%s: first data block is %u", id,
			      sbi->first_data_block);
	if (sbi->blocks_count <= sbi->first_data_block)
		return ext4_refuse(sbi, "%s: %llu blocks are too few", id,
			      (unsigned long long)sbi->blocks_count);
	if (sbi->blocks_count > device_bytes >> sbi->s.s_blocksize_bits)
		return ext4_refuse(sbi,
			      "%s: the file system has %llu blocks of %u bytes, "
			      "the device only %llu (truncated image?)",
			      id, (unsigned long long)sbi->blocks_count,
			      sbi->s.s_blocksize,
			      (unsigned long long)(device_bytes >>
						   sbi->s.s_blocksize_bits));
	groups = DIV_ROUND_UP(sbi->blocks_count - sbi->first_data_block,
			      (u64)sbi->blocks_per_group);
	if (groups > UINT32_MAX / sbi->inodes_per_group ||
	    groups * sbi->inodes_per_group != sbi->inodes_count)
		return ext4_refuse(sbi,
			      "%s: %u inodes do not fit %llu groups of %u", id,
			      sbi->inodes_count, (unsigned long long)groups,
			      sbi->inodes_per_group);
	sbi->groups = (group_t)groups;
	sbi->gdb_count = (u32)DIV_ROUND_UP(groups, (u64)sbi->desc_per_block);
	if (ext4_has_incompat(sbi, META_BG) &&
	    sbi->first_meta_bg > sbi->gdb_count)
		return ext4_refuse(sbi, "%s: first meta group %u beyond the last %u",
			      id, sbi->first_meta_bg, sbi->gdb_count);
	return 0;
}

/* With bigalloc a bit of a bitmap stands for a cluster. */
static int decode_clusters(struct ext4_sb *sbi, const struct ext4_super_block *es)
{
	const char *id = sbi->s.s_id;
	u32 block = le32_to_cpu(es->s_log_block_size);
	u32 cluster = le32_to_cpu(es->s_log_cluster_size);
	u32 most = sbi->s.s_blocksize * 8;

	sbi->cluster_bits = 0;
	sbi->clusters_per_group = sbi->blocks_per_group;
	if (!ext4_has_ro_compat(sbi, BIGALLOC)) {
		if (cluster != block)
			return ext4_refuse(sbi, "%s: cluster size differs from block size", id);
		if (!sbi->blocks_per_group || sbi->blocks_per_group > most ||
		    sbi->blocks_per_group % 8)
			return ext4_refuse(sbi, "%s: %u blocks per group", id,
				      sbi->blocks_per_group);
		return 0;
	}
	if (cluster < block || cluster > 20)
		return ext4_refuse(sbi, "%s: cluster size 2^%u KiB", id, cluster);
	sbi->cluster_bits = (u8)(cluster - block);
	sbi->clusters_per_group = le32_to_cpu(es->s_clusters_per_group);
	if (!sbi->clusters_per_group || sbi->clusters_per_group > most ||
	    sbi->clusters_per_group % 8 ||
	    (u64)sbi->clusters_per_group << sbi->cluster_bits != sbi->blocks_per_group)
		return ext4_refuse(sbi, "%s: %u clusters and %u blocks per group", id,
			      sbi->clusters_per_group, sbi->blocks_per_group);
	return 0;
}

static int decode_sizes(struct ext4_sb *sbi, const struct ext4_super_block *es)
{
	const char *id = sbi->s.s_id;
	u32 bs = sbi->s.s_blocksize;
	int err;

	sbi->blocks_per_group = le32_to_cpu(es->s_blocks_per_group);
	sbi->inodes_per_group = le32_to_cpu(es->s_inodes_per_group);
	sbi->inode_size = le16_to_cpu(es->s_inode_size);
	sbi->desc_size = sbi->has_64bit ? le16_to_cpu(es->s_desc_size) : 32;
	if (sbi->desc_size != 32 &&
	    (sbi->desc_size < 64 || sbi->desc_size > 1024 ||
	     !is_power_of_2(sbi->desc_size)))
		return ext4_refuse(sbi, "%s: group descriptors of %u bytes", id,
			      sbi->desc_size);
	if (sbi->has_64bit && sbi->desc_size < 64)
		return ext4_refuse(sbi, "%s: 64bit with descriptors of %u bytes",
			      id, sbi->desc_size);
	if (sbi->inode_size < EXT4_GOOD_OLD_INODE_SIZE || sbi->inode_size > bs ||
	    !is_power_of_2(sbi->inode_size))
		return ext4_refuse(sbi, "%s: inodes of %u bytes", id, sbi->inode_size);
	err = decode_clusters(sbi, es);
	if (err)
		return err;
	if (!sbi->inodes_per_group || sbi->inodes_per_group > bs * 8 ||
	    sbi->inodes_per_group % (bs / sbi->inode_size))
		return ext4_refuse(sbi, "%s: %u inodes per group", id,
			      sbi->inodes_per_group);
	sbi->inodes_per_block = bs / sbi->inode_size;
	sbi->itable_blocks = sbi->inodes_per_group / sbi->inodes_per_block;
	sbi->desc_per_block = bs / sbi->desc_size;
	return 0;
}

static int decode_seeds(struct ext4_sb *sbi, const struct ext4_super_block *es)
{
	u32 flags = le32_to_cpu(es->s_flags);

	memcpy(sbi->uuid, es->s_uuid, sizeof(sbi->uuid));
	sbi->csum_seed = ext4_has_incompat(sbi, CSUM_SEED)
				 ? le32_to_cpu(es->s_checksum_seed)
				 : crc32c(~0u, es->s_uuid, sizeof(es->s_uuid));
	for (int i = 0; i < 4; i++)
		sbi->hash_seed[i] = le32_to_cpu(es->s_hash_seed[i]);
	sbi->hash_unsigned = (flags & EXT2_FLAGS_UNSIGNED_HASH) != 0;
	if (!(flags & (EXT2_FLAGS_SIGNED_HASH | EXT2_FLAGS_UNSIGNED_HASH)))
		sbi->hash_unsigned = (char)-1 > 0;
	sbi->def_hash_version = es->s_def_hash_version;
	if (sbi->def_hash_version > DX_HASH_TEA) {
		log_warn("%s: unknown default hash version %u, using half_md4",
			 sbi->s.s_id, sbi->def_hash_version);
		sbi->def_hash_version = DX_HASH_HALF_MD4;
	}
	if (sbi->hash_unsigned)
		sbi->def_hash_version += 3;
	return 0;
}

u32 ext4_errors_policy(enum sl_errors given, u32 own)
{
	switch (given) {
	case SL_ERRORS_CONTINUE:
		return EXT4_ERRORS_CONTINUE;
	case SL_ERRORS_RO:
		return EXT4_ERRORS_RO;
	case SL_ERRORS_PANIC:
		return EXT4_ERRORS_PANIC;
	case SL_ERRORS_DEFAULT:
		break;
	}
	return own >= EXT4_ERRORS_CONTINUE && own <= EXT4_ERRORS_PANIC ? own : EXT4_ERRORS_RO;
}

int ext4_super_decode(struct ext4_sb *sbi, const struct ext4_super_block *es,
		      u64 device_bytes)
{
	const char *id = sbi->s.s_id;
	u32 log_bs = le32_to_cpu(es->s_log_block_size);
	int err;

	if (le16_to_cpu(es->s_magic) != EXT4_SUPER_MAGIC) {
		log_err("%s: no ext4 file system (wrong magic number)", id);
		return -EINVAL;
	}
	if (le32_to_cpu(es->s_feature_incompat) & EXT4_INCOMPAT_JOURNAL_DEV) {
		log_err("%s: an external journal (feature journal_dev), not a file system", id);
		return -EOPNOTSUPP;
	}
	sbi->features_compat = le32_to_cpu(es->s_feature_compat);
	sbi->features_incompat = le32_to_cpu(es->s_feature_incompat);
	sbi->features_ro_compat = le32_to_cpu(es->s_feature_ro_compat);
	sbi->has_csum = ext4_has_ro_compat(sbi, METADATA_CSUM);
	sbi->has_gdt_csum = ext4_has_ro_compat(sbi, GDT_CSUM);
	sbi->has_64bit = ext4_has_incompat(sbi, 64BIT);
	if (sbi->has_csum) {
		if (es->s_checksum_type != EXT4_CRC32C_CHKSUM)
			return ext4_refuse(sbi, "%s: unknown checksum type %u", id,
				      es->s_checksum_type);
		if (le32_to_cpu(es->s_checksum) != ext4_super_csum(es)) {
			log_err("%s: superblock checksum is wrong; try sb=, or e2fsck",
				id);
			return -EFSBADCRC;
		}
		if (sbi->has_gdt_csum)
			return ext4_refuse(sbi, "%s: both metadata_csum and uninit_bg", id);
	} else if (ext4_has_incompat(sbi, CSUM_SEED)) {
		return ext4_refuse(sbi, "%s: metadata_csum_seed without metadata_csum", id);
	}
	if (le32_to_cpu(es->s_rev_level) != 1) {
		log_err("%s: revision %u is not supported", id,
			le32_to_cpu(es->s_rev_level));
		return -EOPNOTSUPP;
	}
	if (log_bs > 6)
		return ext4_refuse(sbi, "%s: block size 2^%u", id, log_bs + 10);
	sbi->s.s_blocksize_bits = (u8)(log_bs + 10);
	sbi->s.s_blocksize = 1024u << log_bs;
	sbi->first_data_block = le32_to_cpu(es->s_first_data_block);
	sbi->blocks_count = super_blocks_count(es, sbi->has_64bit);
	sbi->inodes_count = le32_to_cpu(es->s_inodes_count);
	sbi->first_ino = le32_to_cpu(es->s_first_ino);
	sbi->first_meta_bg = le32_to_cpu(es->s_first_meta_bg);
	sbi->reserved_gdt_blocks = le16_to_cpu(es->s_reserved_gdt_blocks);
	sbi->log_groups_per_flex = es->s_log_groups_per_flex;
	err = decode_sizes(sbi, es);
	if (!err)
		err = decode_groups(sbi, es, device_bytes);
	if (!err)
		err = decode_seeds(sbi, es);
	if (err)
		return err;
	if (sbi->first_ino < EXT4_GOOD_OLD_FIRST_INO ||
	    sbi->first_ino > sbi->inodes_count)
		return ext4_refuse(sbi, "%s: first inode %u", id, sbi->first_ino);
	if (!ext4_has_incompat(sbi, FLEX_BG) || sbi->log_groups_per_flex > 31)
		sbi->log_groups_per_flex = 0;
	sbi->r_blocks = le32_to_cpu(es->s_r_blocks_count_lo);
	if (sbi->has_64bit)
		sbi->r_blocks |= (u64)le32_to_cpu(es->s_r_blocks_count_hi) << 32;
	if (sbi->r_blocks > sbi->blocks_count / 2)
		sbi->r_blocks = sbi->blocks_count / 2;
	sbi->resuid = le16_to_cpu(es->s_def_resuid);
	sbi->resgid = le16_to_cpu(es->s_def_resgid);
	if (sbi->opts.resuid.given)
		sbi->resuid = sbi->opts.resuid.id;
	if (sbi->opts.resgid.given)
		sbi->resgid = sbi->opts.resgid.id;
	sbi->journal_ino = le32_to_cpu(es->s_journal_inum);
	memcpy(sbi->journal_uuid, es->s_journal_uuid, sizeof(sbi->journal_uuid));
	sbi->orphan_file_ino = ext4_has_compat(sbi, ORPHAN_FILE)
				       ? le32_to_cpu(es->s_orphan_file_inum)
				       : 0;
	sbi->prj_quota_ino = ext4_has_ro_compat(sbi, QUOTA) &&
					     ext4_has_ro_compat(sbi, PROJECT)
				     ? le32_to_cpu(es->s_prj_quota_inum)
				     : 0;
	sbi->nsec_times = sbi->inode_size > EXT4_GOOD_OLD_INODE_SIZE;
	sbi->want_extra_isize = sbi->min_extra_isize = 0;
	if (sbi->nsec_times) {
		u32 want = max_of(le16_to_cpu(es->s_want_extra_isize),
				  (u16)EXT4_WANT_EXTRA_ISIZE);

		if (want > sbi->inode_size - EXT4_GOOD_OLD_INODE_SIZE || want % 4)
			want = EXT4_WANT_EXTRA_ISIZE;
		sbi->want_extra_isize = (u16)want;
		want = le16_to_cpu(es->s_min_extra_isize);
		if (want < sbi->want_extra_isize && want % 4 == 0)
			sbi->min_extra_isize = (u16)want;
	}
	/* Kept back for the extent tree: 2 %, at most 4096 blocks (brief 4.6). */
	sbi->meta_reserve = min_of((sbi->blocks_count >> sbi->cluster_bits) / 50,
				   (u64)4096);
	sbi->mount_state = le16_to_cpu(es->s_state);
	sbi->errors_policy = ext4_errors_policy(sbi->opts.errors, le16_to_cpu(es->s_errors));
	return 0;
}

/* --------------------------------------------------- direct sb writes */

static void set_time(le32 *lo, u8 *hi, u64 t)
{
	*lo = cpu_to_le32((u32)t);
	*hi = (u8)(t >> 32);
}

int ext4_write_super(struct ext4_sb *sbi)
{
	u32 bs = sbi->s.s_blocksize;
	int err;

	ext4_super_csum_set(sbi, sbi->es);
	err = bdev_write(sbi->bdev, sbi->sb_buf->b_blocknr * bs,
			 sbi->sb_buf->b_data, bs, BIO_FUA);
	if (!err)
		err = bdev_flush(sbi->bdev);
	if (err)
		log_err("%s: superblock can't be written: %s", sbi->s.s_id,
			strerror(-err));
	return err;
}

int ext4_write_super_mounted(struct ext4_sb *sbi)
{
	struct ext4_super_block *es = sbi->es;
	u64 now = (u64)time(NULL);
	int err;

	if (ext4_has_log(sbi)) {
		sbi->features_incompat |= EXT4_INCOMPAT_RECOVER;
		es->s_feature_incompat = cpu_to_le32(sbi->features_incompat);
	} else { /* not clean until it is unmounted */
		es->s_state = cpu_to_le16(le16_to_cpu(es->s_state) & ~EXT4_VALID_FS);
	}
	if (ext4_has_compat(sbi, ORPHAN_FILE)) {
		sbi->features_ro_compat |= EXT4_RO_COMPAT_ORPHAN_PRESENT;
		es->s_feature_ro_compat = cpu_to_le32(sbi->features_ro_compat);
	}
	if (!le16_to_cpu(es->s_max_mnt_count))
		es->s_max_mnt_count = cpu_to_le16(0xFFFF);
	es->s_mnt_count = cpu_to_le16((u16)(le16_to_cpu(es->s_mnt_count) + 1));
	set_time(&es->s_mtime, &es->s_mtime_hi, now);
	set_time(&es->s_wtime, &es->s_wtime_hi, now);
	if (!(le32_to_cpu(es->s_flags) &
	      (EXT2_FLAGS_SIGNED_HASH | EXT2_FLAGS_UNSIGNED_HASH)))
		es->s_flags = cpu_to_le32(le32_to_cpu(es->s_flags) |
					  (sbi->hash_unsigned
						   ? EXT2_FLAGS_UNSIGNED_HASH
						   : EXT2_FLAGS_SIGNED_HASH));
	/* Where the kernel will look for it. A device that was given to a volume without a
	 * journal has not been checked, and is none of its. */
	if (sbi->journal_bd && ext4_has_compat(sbi, HAS_JOURNAL) &&
	    sbi->opts.journal_devno &&
	    le32_to_cpu(es->s_journal_dev) != sbi->opts.journal_devno) {
		log_info("%s: the device number of the external journal has changed from %#x to %#x",
			 sbi->s.s_id, le32_to_cpu(es->s_journal_dev),
			 sbi->opts.journal_devno);
		es->s_journal_dev = cpu_to_le32(sbi->opts.journal_devno);
	}
	if (sbi->opts.mountpoint && sbi->opts.mountpoint[0])
		strncpy(es->s_last_mounted, sbi->opts.mountpoint,
			sizeof(es->s_last_mounted) - 1);
	err = ext4_write_super(sbi);
	/* The log stays empty as long as nothing on disk asks for its replay. */
	if (err)
		journal_abort(sbi->journal, err);
	return err;
}

u64 ext4_bytes_written(struct bdev *bd)
{
	struct bdev_stats st;

	bdev_get_stats(bd, &st);
	return st.dir[BIO_WRITE].bytes;
}

int ext4_write_super_clean(struct ext4_sb *sbi)
{
	struct ext4_super_block *es = sbi->es;
	u64 written = ext4_bytes_written(sbi->bdev);
	/* Not clusters: those are counted in the descriptors only. */
	s64 blocks = counter_sum(sbi->free_blocks) * (1 << sbi->cluster_bits);
	s64 inodes = counter_sum(sbi->free_inodes);

	es->s_feature_incompat = cpu_to_le32(le32_to_cpu(es->s_feature_incompat) &
					     ~(u32)EXT4_INCOMPAT_RECOVER);
	if (!ext4_has_log(sbi))
		es->s_state = cpu_to_le16(le16_to_cpu(es->s_state) |
					  (sbi->mount_state & EXT4_VALID_FS));
	if (ext4_orphan_empty(sbi))
		sbi->features_ro_compat &= ~(u32)EXT4_RO_COMPAT_ORPHAN_PRESENT;
	es->s_feature_ro_compat = cpu_to_le32(sbi->features_ro_compat);
	if (blocks >= 0 && inodes >= 0) { /* else damaged; as in pre_commit() */
		es->s_free_blocks_count_lo = cpu_to_le32((u32)blocks);
		if (sbi->has_64bit)
			es->s_free_blocks_count_hi =
				cpu_to_le32((u32)((u64)blocks >> 32));
		es->s_free_inodes_count = cpu_to_le32((u32)inodes);
	}
	es->s_kbytes_written =
		cpu_to_le64(sbi->mount_kbytes + (written - sbi->mount_bytes) / 1024);
	set_time(&es->s_wtime, &es->s_wtime_hi, (u64)time(NULL));
	ext4_error_fill_super(sbi);
	return ext4_write_super(sbi);
}

/* ------------------------------------------------------------- sync, statfs */

int sl_sync(struct super_block *sb)
{
	struct ext4_sb *sbi = EXT4_SB(sb);
	bool flushed = false;
	int err, err2;

	if (!sbi->journal)
		return 0;
	if (atomic_load(&sbi->aborted))
		return atomic_load(&sbi->shut_down) ? -EIO : -EROFS;
	err = flusher_sync_all(sbi->flusher);
	/* Data that was lost since the last sync, also in the background. */
	err2 = atomic_exchange(&sbi->wb_err, 0);
	err = err ? err : err2;
	err2 = journal_commit_wait(sbi->journal,
				   journal_running_tid(sbi->journal), &flushed);
	err = err ? err : err2;
	if (!err2 && !flushed) {
		err2 = bdev_flush(sbi->bdev);
		err = err ? err : err2;
	}
	return err;
}

int sl_statfs(struct super_block *sb, struct statvfs *st)
{
	struct ext4_sb *sbi = EXT4_SB(sb);
	u64 free_blocks = ext4_count_free_blocks(sbi);
	u64 kept = sbi->r_blocks + (sbi->meta_reserve << sbi->cluster_bits);
	s64 inodes = counter_sum(sbi->free_inodes);
	u64 id;

	memcpy(&id, sbi->uuid, sizeof(id));
	memset(st, 0, sizeof(*st));
	st->f_bsize = st->f_frsize = sb->s_blocksize;
	st->f_blocks = sbi->blocks_count -
		       (sbi->opts.minixdf ? 0 : sbi->overhead);
	st->f_bfree = free_blocks;
	st->f_bavail = free_blocks > kept ? free_blocks - kept : 0;
	st->f_files = sbi->inodes_count;
	st->f_ffree = st->f_favail = inodes > 0 ? (u64)inodes : 0;
	st->f_fsid = id;
	st->f_namemax = EXT4_NAME_LEN;
	if (atomic_load(&sb->s_rdonly))
		st->f_flag |= ST_RDONLY;
	return 0;
}

bool sl_is_readonly(struct super_block *sb)
{
	return atomic_load(&sb->s_rdonly);
}

void sl_set_quiet(struct super_block *sb, bool quiet)
{
	atomic_store(&EXT4_SB(sb)->quiet, quiet);
}

void sl_set_noatime(struct super_block *sb, bool noatime)
{
	atomic_store(&EXT4_SB(sb)->noatime, noatime);
}

bool sl_never_delays(struct super_block *sb)
{
	return EXT4_SB(sb)->cluster_bits != 0;
}

u64 sl_cache_bytes(struct super_block *sb)
{
	return budget_limit(sb->s_budget);
}

void ext4_dirty_marks(const struct ext4_sb *sbi, u64 cache, u64 *background,
		      u64 *limit)
{
	*limit = sbi->opts.dirty_bytes;
	*background = sbi->opts.dirty_background_bytes;
	if (!*limit)
		*limit = cache / 5 * 2;
	if (!*background || *background > *limit)
		*background = *limit / 4;
}

#define LIMIT_ROUNDS 4

/* Dirty data and what waits for the journal cannot be freed: they are written. So is
 * more than `dirty` of data, even if what is clean made room enough. */
static void reclaim_to_limit(struct ext4_sb *sbi, u64 dirty)
{
	struct super_block *sb = &sbi->s;

	for (int i = 0; i < LIMIT_ROUNDS; i++) {
		budget_throttle(sb->s_budget);
		if (!budget_is_full(sb->s_budget) &&
		    counter_sum(sb->s_dirty_bytes) <= (s64)dirty)
			return;
		if (!sbi->flusher || atomic_load(&sb->s_rdonly))
			return;
		/* An error is kept for those who fsync or sync. */
		(void)!flusher_sync_all(sbi->flusher);
		if (journal_force_commit(sbi->journal))
			return;
	}
}

int sl_set_cache_bytes(struct super_block *sb, u64 bytes)
{
	struct ext4_sb *sbi = EXT4_SB(sb);
	u64 background, dirty;

	if (!bytes || bytes > INT64_MAX)
		return -EINVAL;
	bytes = max_of(bytes, EXT4_MIN_CACHE_BYTES);
	mutex_lock(&sbi->limit_lock);
	ext4_dirty_marks(sbi, bytes, &background, &dirty);
	if (sbi->flusher)
		flusher_set_marks(sbi->flusher, background, dirty);
	if (sbi->journal)
		journal_set_cache_limit(sbi->journal, bytes);
	(void)budget_set_limit(sb->s_budget, bytes);
	mutex_unlock(&sbi->limit_lock);
	reclaim_to_limit(sbi, dirty);
	return 0;
}

bool sl_nsec_times(struct super_block *sb)
{
	return EXT4_SB(sb)->nsec_times;
}

int sl_checkpoint(struct super_block *sb)
{
	struct journal *j = EXT4_SB(sb)->journal;
	int err;

	if (!j)
		return -EROFS;
	err = sl_sync(sb);
	if (err)
		return err;
	journal_write_back(j);
	return journal_aborted(j);
}

#define ERASE_TRIES 20

int sl_erase_log(struct super_block *sb, bool discard)
{
	struct journal *j = EXT4_SB(sb)->journal;
	int err = -EBUSY;

	if (!j)
		return -EROFS;
	/* Who commits between the two steps makes a third necessary. */
	for (int i = 0; err == -EBUSY && i < ERASE_TRIES; i++) {
		err = sl_sync(sb);
		if (!err)
			err = journal_erase(j, discard);
	}
	return err;
}

void sl_drop_caches_of(struct super_block *sb, enum sl_drop what)
{
	if (what == SL_DROP_DATA) {
		budget_drop(sb->s_budget, BUDGET_FOLIO);
		return;
	}
	icache_shrink_all(sb);
	/* The inodes' last changes, too, if they were committed. */
	if (EXT4_SB(sb)->journal)
		journal_write_back(EXT4_SB(sb)->journal);
	budget_drop(sb->s_budget, BUDGET_INODE);
	budget_drop(sb->s_budget, BUDGET_BUFFER);
	budget_trim(sb->s_budget);
}

u32 sl_looked_up(struct super_block *sb, u64 *ino, u32 *out, u32 max)
{
	return icache_looked_up(sb, ino, out, max);
}

void sl_drop_caches(struct super_block *sb)
{
	icache_shrink_all(sb);
	budget_drop_all(sb->s_budget);
}

static int census_text(struct super_block *sb, char *buf, size_t len)
{
	struct icache_census c;
	struct icache_stats st;

	icache_take_census(sb, &c);
	icache_get_stats(sb, &st);
	return snprintf(buf, len,
			"inode_iter %s\ninodes_referenced %llu\n"
			"inodes_dirty %llu\ninodes_reclaimable %llu\n"
			"inodes_dontcache %llu\ninodes_unlinked %llu\n"
			"inode_refaults %llu\ninode_refaults_near %llu\n"
			"inodes_thrashed %llu\n",
			super_iter_name(sb), (unsigned long long)c.referenced,
			(unsigned long long)c.dirty,
			(unsigned long long)c.reclaimable,
			(unsigned long long)c.dontcache,
			(unsigned long long)c.unlinked,
			(unsigned long long)st.refaults,
			(unsigned long long)st.refaults_near,
			(unsigned long long)st.thrashed);
}

static int flusher_text(const struct flusher *f, char *buf, size_t len)
{
	struct flusher_stats st;

	flusher_get_stats(f, &st);
	return snprintf(buf, len,
			"flusher_slices %llu\nwritten_behind %llu\n"
			"behind_lost %llu\nthrottle_pauses %llu\n"
			"throttle_at_limit %llu\nthrottle_us %llu\n"
			"throttle_longest_us %llu\n",
			(unsigned long long)st.slices,
			(unsigned long long)st.behind,
			(unsigned long long)st.behind_lost,
			(unsigned long long)st.throttle.pauses,
			(unsigned long long)st.throttle.at_limit,
			(unsigned long long)st.throttle.pause_ns / 1000,
			(unsigned long long)st.throttle.longest_ns / 1000);
}

static int windows_text(struct super_block *sb, char *buf, size_t len)
{
	u64 gone = mapping_counter_read(sb, WINDOW_GONE); /* first: never more */
	u64 made = mapping_counter_read(sb, WINDOW_MADE);

	return snprintf(buf, len,
			"windows %llu\nwindows_made %llu\n"
			"window_changes %llu\nwindow_walks %llu\n"
			"window_waits %llu\nwindow_wait_ns %llu\n"
			"window_contended %llu\nwindow_errors %llu\n"
			"folios_spared %llu\nfolios_passed_by %llu\n"
			"migrate_tried %llu\nmigrate_moved %llu\n"
			"migrate_busy %llu\nmigrate_pinned %llu\n"
			"migrate_contended %llu\n"
			"relocate_moved %llu\n"
			"readahead_blocks %llu\n",
			(unsigned long long)(made - gone),
			(unsigned long long)made,
			(unsigned long long)mapping_counter_read(sb, WINDOW_CHANGES),
			(unsigned long long)mapping_counter_read(sb, WINDOW_WALKS),
			(unsigned long long)mapping_counter_read(sb, WINDOW_WAITS),
			(unsigned long long)mapping_counter_read(sb, WINDOW_WAIT_NS),
			(unsigned long long)mapping_counter_read(sb, WINDOW_CONTENDED),
			(unsigned long long)mapping_counter_read(sb, WINDOW_ERRORS),
			(unsigned long long)mapping_counter_read(sb, WINDOW_SPARED),
			(unsigned long long)mapping_counter_read(sb, WINDOW_PASSED_BY),
			(unsigned long long)mapping_counter_read(sb, MIGRATE_TRIED),
			(unsigned long long)mapping_counter_read(sb, MIGRATE_MOVED),
			(unsigned long long)mapping_counter_read(sb, MIGRATE_BUSY),
			(unsigned long long)mapping_counter_read(sb, MIGRATE_PINNED),
			(unsigned long long)mapping_counter_read(sb, MIGRATE_CONTENDED),
			(unsigned long long)mapping_counter_read(sb, RELOCATE_MOVED),
			(unsigned long long)mapping_counter_read(sb, READAHEAD_BLOCKS));
}

int sl_migrate(struct inode *inode, u32 zone)
{
	if (!S_ISREG(inode->i_mode) || zone >= zone_count(inode->i_sb->s_budget))
		return -EINVAL;
	mapping_migrate(&inode->i_mapping, 0, EXT4_LBLK_END, zone, NULL);
	return 0;
}

size_t sl_windows_text(struct inode *inode, char *buf, size_t len)
{
	struct window_census c;
	int n;

	windows_count(&inode->i_mapping, 0, EXT4_LBLK_END, &c);
	n = snprintf(buf, len,
		     "readers %u\nsequential %u\nstrided %u\nrandom %u\n"
		     "writers %u\nmoving %u\n",
		     c.readers, c.sequential, c.strided, c.random, c.writers, c.moving);
	return n < 0 ? 0 : min_of((size_t)n, len - 1);
}

/* An external journal's device; what the volume's does is in bdev_stats_text(). */
static int journal_dev_text(struct bdev *bd, char *buf, size_t len)
{
	struct bdev_stats st;

	bdev_get_stats(bd, &st);
	return snprintf(buf, len,
			"journal_device %s\njournal_read_bytes %llu\n"
			"journal_write_bios %llu\njournal_write_bytes %llu\n"
			"journal_flushes %llu\njournal_io_errors %llu\n",
			bd->bd_name,
			(unsigned long long)st.dir[BIO_READ].bytes,
			(unsigned long long)st.dir[BIO_WRITE].bios,
			(unsigned long long)st.dir[BIO_WRITE].bytes,
			(unsigned long long)st.flushes,
			(unsigned long long)st.errors);
}

size_t sl_stats(struct super_block *sb, char *buf, size_t len)
{
	struct ext4_sb *sbi = EXT4_SB(sb);
	struct icache_stats ic;
	size_t used;
	int n;

	icache_get_stats(sb, &ic);
	n = snprintf(buf, len,
		     "cache_limit %llu\ncache_used %llu\ncache_inode_bytes %llu\n"
		     "cache_buffer_bytes %llu\ncache_folio_bytes %llu\n"
		     "inodes %llu\nshadows %llu\ninode_hits %llu\ninode_misses %llu\n"
		     "inodes_evicted %llu\ndirty_bytes %lld\ncache_tree_bytes %llu\n"
		     "delayed_blocks %lld\nleaf_waits %llu\nleaf_wait_ns %llu\n"
		     "mapping_retries %llu\nextent_lookups %llu\n"
		     "write_bytes_copied %llu\nwrite_bytes_adopted %llu\n",
		     (unsigned long long)budget_limit(sb->s_budget),
		     (unsigned long long)budget_used_total(sb->s_budget),
		     (unsigned long long)budget_used(sb->s_budget, BUDGET_INODE),
		     (unsigned long long)budget_used(sb->s_budget, BUDGET_BUFFER),
		     (unsigned long long)budget_used(sb->s_budget, BUDGET_FOLIO),
		     (unsigned long long)ic.inodes, (unsigned long long)ic.shadows,
		     (unsigned long long)ic.hits, (unsigned long long)ic.misses,
		     (unsigned long long)ic.evicted,
		     (long long)counter_sum(sb->s_dirty_bytes),
		     (unsigned long long)budget_used(sb->s_budget, BUDGET_TREE),
		     (long long)counter_sum(sbi->reserved),
		     (unsigned long long)mapping_counter_read(sb, MAPPING_LEAF_WAITS),
		     (unsigned long long)mapping_counter_read(sb, MAPPING_LEAF_WAIT_NS),
		     (unsigned long long)mapping_counter_read(sb, MAPPING_RETRIES),
		     (unsigned long long)mapping_counter_read(sb, MAPPING_EXTENT_LOOKUPS),
		     (unsigned long long)mapping_counter_read(sb, MAPPING_COPIED),
		     (unsigned long long)mapping_counter_read(sb, MAPPING_ADOPTED));
	used = n < 0 ? 0 : min_of((size_t)n, len);
	used += bdev_stats_text(sbi->bdev, buf + used, len - used);
	if (sbi->journal_bd && used < len) {
		n = journal_dev_text(sbi->journal_bd, buf + used, len - used);
		used = n < 0 ? used : min_of(used + (size_t)n, len);
	}
	if (used < len) {
		n = census_text(sb, buf + used, len - used);
		used = n < 0 ? used : min_of(used + (size_t)n, len);
	}
	if (used < len) {
		n = windows_text(sb, buf + used, len - used);
		used = n < 0 ? used : min_of(used + (size_t)n, len);
	}
	if (sbi->flusher && used < len) {
		n = flusher_text(sbi->flusher, buf + used, len - used);
		used = n < 0 ? used : min_of(used + (size_t)n, len);
	}
	if (sbi->journal && used < len) {
		const struct journal_stats *js = journal_stats(sbi->journal);

		n = snprintf(buf + used, len - used,
			      "commits %llu\nhandles %llu\nlogged_blocks %llu\n"
			      "checkpoints %llu\nhandle_waits %llu\n",
			      (unsigned long long)js->commits,
			      (unsigned long long)js->handles,
			      (unsigned long long)js->blocks_logged,
			      (unsigned long long)js->checkpoints,
			      (unsigned long long)js->handle_waits);
		used = n < 0 ? used : min_of(used + (size_t)n, len);
		used += ext4_alloc_stats(sbi, buf + used, len - used);
		if (used < len)
			used += ext4_discard_stats(sbi, buf + used, len - used);
	}
	/* Of many zones, those that leave room for what the caller has to say. */
	if (used < len)
		used += zone_stats_text(sb->s_budget, buf + used,
					(len - used) / 2);
	return used;
}
