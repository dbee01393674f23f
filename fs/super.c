/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/super.c - superblock, mount, unmount, sync, statfs
 *
 * Mount reads the superblock, applies the feature policy, replays the log
 * (into the device, or into an overlay when read-only), and only then trusts
 * anything else on the volume. The order of the writes that follow matters:
 *
 *   log empty, durable -> superblock with needs_recovery (and orphan_present),
 *   durable -> first transaction may start
 *
 * and at unmount the reverse: everything checkpointed and flushed -> log
 * marked empty, durable -> superblock without needs_recovery.
 *
 * While mounted the superblock changes only through the journal: counters are
 * folded into it at each commit (pre_commit), so that even right after a
 * replay e2fsck finds them right.
 *
 * Locks:   s_lock for superblock fields.
 * Source:  ext4-format brief 2, 13; Documentation/filesystems/ext4/super.rst
 */
#include "fs/alloc_internal.h"
#include "cache/migrate.h"
#include "cache/window.h"
#include "fs/ext4.h"
#include "lib/crc.h"
#include "lib/thread.h"
#include "lib/wait.h"
#include "writeback/page_io.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_COMMIT_MS 5000u
#define DEFAULT_EXPIRE_MS 5000u
#define MIN_CACHE_BYTES (16ull << 20)
#define MAX_DEFAULT_CACHE_BYTES (1ull << 30)

/* ------------------------------------------------------------ superblock */

static u32 super_csum(const struct ext4_super_block *es)
{
	return crc32c(~0u, es, offsetof(struct ext4_super_block, s_checksum));
}

void ext4_super_csum_set(const struct ext4_sb *sbi, struct ext4_super_block *es)
{
	if (sbi->has_csum)
		es->s_checksum = cpu_to_le32(super_csum(es));
}

/* The superblock's place in its block: 1024 into block 0, or all of block 1. */
static u32 super_offset(const struct super_block *sb)
{
	return sb->s_blocksize == EXT4_SUPER_OFFSET ? 0 : EXT4_SUPER_OFFSET;
}

static void super_freeze(struct super_block *sb, pblk_t blk, void *data, u32 seed)
{
	ext4_super_csum_set(EXT4_SB(sb),
			    (void *)((u8 *)data + super_offset(sb)));
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

#define refuse(sbi, ...)                                                       \
	({                                                                     \
		log_err(__VA_ARGS__);                                          \
		-EFSCORRUPTED;                                                 \
	})

static int decode_groups(struct ext4_sb *sbi, const struct ext4_super_block *es,
			 u64 device_bytes)
{
	const char *id = sbi->s.s_id;
	u64 groups;

	if (sbi->first_data_block != (sbi->s.s_blocksize == 1024 ? 1u : 0u))
		return refuse(sbi, "%s: first data block is %u", id,
			      sbi->first_data_block);
	if (sbi->blocks_count <= sbi->first_data_block)
		return refuse(sbi, "%s: %llu blocks are too few", id,
			      (unsigned long long)sbi->blocks_count);
	if (sbi->blocks_count > device_bytes >> sbi->s.s_blocksize_bits)
		return refuse(sbi,
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
		return refuse(sbi,
			      "%s: %u inodes do not fit %llu groups of %u", id,
			      sbi->inodes_count, (unsigned long long)groups,
			      sbi->inodes_per_group);
	sbi->groups = (group_t)groups;
	sbi->gdb_count = (u32)DIV_ROUND_UP(groups, (u64)sbi->desc_per_block);
	if (ext4_has_incompat(sbi, META_BG) &&
	    sbi->first_meta_bg > sbi->gdb_count)
		return refuse(sbi, "%s: first meta group %u beyond the last %u",
			      id, sbi->first_meta_bg, sbi->gdb_count);
	return 0;
}

static int decode_sizes(struct ext4_sb *sbi, const struct ext4_super_block *es)
{
	const char *id = sbi->s.s_id;
	u32 bs = sbi->s.s_blocksize;
	u32 cluster = le32_to_cpu(es->s_log_cluster_size);

	sbi->blocks_per_group = le32_to_cpu(es->s_blocks_per_group);
	sbi->inodes_per_group = le32_to_cpu(es->s_inodes_per_group);
	sbi->inode_size = le16_to_cpu(es->s_inode_size);
	sbi->desc_size = sbi->has_64bit ? le16_to_cpu(es->s_desc_size) : 32;
	if (sbi->desc_size != 32 &&
	    (sbi->desc_size < 64 || sbi->desc_size > 1024 ||
	     !is_power_of_2(sbi->desc_size)))
		return refuse(sbi, "%s: group descriptors of %u bytes", id,
			      sbi->desc_size);
	if (sbi->has_64bit && sbi->desc_size < 64)
		return refuse(sbi, "%s: 64bit with descriptors of %u bytes",
			      id, sbi->desc_size);
	if (sbi->inode_size < EXT4_GOOD_OLD_INODE_SIZE || sbi->inode_size > bs ||
	    !is_power_of_2(sbi->inode_size))
		return refuse(sbi, "%s: inodes of %u bytes", id, sbi->inode_size);
	if (!ext4_has_ro_compat(sbi, BIGALLOC)) {
		if (cluster != le32_to_cpu(es->s_log_block_size))
			return refuse(sbi, "%s: cluster size differs from block size", id);
		if (!sbi->blocks_per_group || sbi->blocks_per_group > bs * 8 ||
		    sbi->blocks_per_group % 8)
			return refuse(sbi, "%s: %u blocks per group", id,
				      sbi->blocks_per_group);
	} else if (cluster < le32_to_cpu(es->s_log_block_size) || cluster > 20 ||
		   !sbi->blocks_per_group) {
		return refuse(sbi, "%s: cluster size 2^%u KiB", id, cluster);
	}
	if (!sbi->inodes_per_group || sbi->inodes_per_group > bs * 8 ||
	    sbi->inodes_per_group % (bs / sbi->inode_size))
		return refuse(sbi, "%s: %u inodes per group", id,
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
	sbi->features_compat = le32_to_cpu(es->s_feature_compat);
	sbi->features_incompat = le32_to_cpu(es->s_feature_incompat);
	sbi->features_ro_compat = le32_to_cpu(es->s_feature_ro_compat);
	sbi->has_csum = ext4_has_ro_compat(sbi, METADATA_CSUM);
	sbi->has_gdt_csum = ext4_has_ro_compat(sbi, GDT_CSUM);
	sbi->has_64bit = ext4_has_incompat(sbi, 64BIT);
	if (sbi->has_csum) {
		if (es->s_checksum_type != EXT4_CRC32C_CHKSUM)
			return refuse(sbi, "%s: unknown checksum type %u", id,
				      es->s_checksum_type);
		if (le32_to_cpu(es->s_checksum) != super_csum(es)) {
			log_err("%s: superblock checksum is wrong; try sb=, or e2fsck",
				id);
			return -EFSBADCRC;
		}
		if (sbi->has_gdt_csum)
			return refuse(sbi, "%s: both metadata_csum and uninit_bg", id);
	} else if (ext4_has_incompat(sbi, CSUM_SEED)) {
		return refuse(sbi, "%s: metadata_csum_seed without metadata_csum", id);
	}
	if (le32_to_cpu(es->s_rev_level) != 1) {
		log_err("%s: revision %u is not supported", id,
			le32_to_cpu(es->s_rev_level));
		return -EOPNOTSUPP;
	}
	if (log_bs > 6)
		return refuse(sbi, "%s: block size 2^%u", id, log_bs + 10);
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
	    sbi->first_ino > sbi->inodes_per_group)
		return refuse(sbi, "%s: first inode %u", id, sbi->first_ino);
	if (!ext4_has_incompat(sbi, FLEX_BG) || sbi->log_groups_per_flex > 31)
		sbi->log_groups_per_flex = 0;
	sbi->r_blocks = le32_to_cpu(es->s_r_blocks_count_lo);
	if (sbi->has_64bit)
		sbi->r_blocks |= (u64)le32_to_cpu(es->s_r_blocks_count_hi) << 32;
	if (sbi->r_blocks > sbi->blocks_count / 2)
		sbi->r_blocks = sbi->blocks_count / 2;
	sbi->resuid = le16_to_cpu(es->s_def_resuid);
	sbi->resgid = le16_to_cpu(es->s_def_resgid);
	sbi->journal_ino = le32_to_cpu(es->s_journal_inum);
	sbi->orphan_file_ino = ext4_has_compat(sbi, ORPHAN_FILE)
				       ? le32_to_cpu(es->s_orphan_file_inum)
				       : 0;
	sbi->nsec_times = sbi->inode_size > EXT4_GOOD_OLD_INODE_SIZE;
	sbi->want_extra_isize = 0;
	if (sbi->nsec_times) {
		u32 want = max_of(le16_to_cpu(es->s_want_extra_isize),
				  (u16)EXT4_WANT_EXTRA_ISIZE);

		if (want > sbi->inode_size - EXT4_GOOD_OLD_INODE_SIZE || want % 4)
			want = EXT4_WANT_EXTRA_ISIZE;
		sbi->want_extra_isize = (u16)want;
	}
	/* Kept back for the extent tree: 2 %, at most 4096 blocks (brief 4.6). */
	sbi->meta_reserve = min_of(sbi->blocks_count / 50, (u64)4096);
	sbi->mount_state = le16_to_cpu(es->s_state);
	sbi->errors_policy = le16_to_cpu(es->s_errors);
	switch (sbi->opts.errors) {
	case SL_ERRORS_CONTINUE:
		sbi->errors_policy = EXT4_ERRORS_CONTINUE;
		break;
	case SL_ERRORS_RO:
		sbi->errors_policy = EXT4_ERRORS_RO;
		break;
	case SL_ERRORS_PANIC:
		sbi->errors_policy = EXT4_ERRORS_PANIC;
		break;
	case SL_ERRORS_DEFAULT:
		break;
	}
	if (sbi->errors_policy < EXT4_ERRORS_CONTINUE ||
	    sbi->errors_policy > EXT4_ERRORS_PANIC)
		sbi->errors_policy = EXT4_ERRORS_RO;
	return 0;
}

/* Reads 1 KiB at pos, whatever the device's sector size. */
static int read_super_at(struct bdev *bd, u64 pos, struct ext4_super_block *es)
{
	u32 unit = max_of(bd->bd_sector, 1024u);
	u64 start = ALIGN_DOWN(pos, (u64)unit);
	u8 *buf;
	int err;

	if (bd->bd_size < 1024 || pos > bd->bd_size - 1024) {
		log_err("%s: no superblock at %llu: the device has %llu bytes",
			bd->bd_name, (unsigned long long)pos,
			(unsigned long long)bd->bd_size);
		return -EINVAL;
	}
	buf = io_alloc(unit);
	if (!buf)
		return -ENOMEM;
	err = bdev_read(bd, start, buf, unit);
	if (!err)
		memcpy(es, buf + (pos - start), sizeof(*es));
	else
		log_err("%s: superblock can't be read: %s", bd->bd_name,
			strerror(-err));
	io_free(buf);
	return err;
}

/*
 * Blocks of 1 or 2 KiB where direct I/O works by 4 KiB: not with direct I/O, then.
 * Before the size of the device is believed: it was rounded down to sectors.
 */
static int fit_sectors(struct bdev *bd, const struct ext4_super_block *es)
{
	u32 log = le32_to_cpu(es->s_log_block_size);
	int err;

	if (le16_to_cpu(es->s_magic) != EXT4_SUPER_MAGIC || log > 6 ||
	    1024u << log >= bd->bd_sector)
		return 0;
	err = bdev_go_buffered(bd);
	if (err)
		log_err("%s: block size %u is below the device's sector size %u",
			bd->bd_name, 1024u << log, bd->bd_sector);
	return err;
}

/* ------------------------------------------------------------ the journal */

static void pre_commit(void *priv, struct handle *h)
{
	struct ext4_sb *sbi = priv;
	struct ext4_super_block *es = sbi->es;
	s64 blocks = counter_sum(sbi->free_blocks);
	s64 inodes = counter_sum(sbi->free_inodes);
	u32 lo, hi;

	if (blocks < 0 || inodes < 0)
		return; /* the allocator reports what it found */
	lo = (u32)blocks;
	hi = (u32)((u64)blocks >> 32);
	mutex_lock(&sbi->s_lock);
	if (le32_to_cpu(es->s_free_blocks_count_lo) == lo &&
	    (!sbi->has_64bit || le32_to_cpu(es->s_free_blocks_count_hi) == hi) &&
	    le32_to_cpu(es->s_free_inodes_count) == (u32)inodes &&
	    le32_to_cpu(es->s_feature_ro_compat) == sbi->features_ro_compat &&
	    !atomic_load(&sbi->error_seen)) {
		mutex_unlock(&sbi->s_lock);
		return;
	}
	if (!handle_get_write_access(h, sbi->sb_buf)) {
		es->s_free_blocks_count_lo = cpu_to_le32(lo);
		if (sbi->has_64bit)
			es->s_free_blocks_count_hi = cpu_to_le32(hi);
		es->s_free_inodes_count = cpu_to_le32((u32)inodes);
		es->s_feature_ro_compat = cpu_to_le32(sbi->features_ro_compat);
		if (atomic_exchange(&sbi->error_seen, false))
			ext4_error_fill_super(sbi);
		handle_dirty(h, sbi->sb_buf);
	}
	mutex_unlock(&sbi->s_lock);
}

static void on_abort(void *priv, int error)
{
	ext4_on_journal_abort(priv, error);
}

static bool replay_ok(void *priv, pblk_t blk)
{
	struct ext4_sb *sbi = priv;

	return blk >= (sbi->s.s_blocksize == 1024 ? 1u : 0u) &&
	       blk < sbi->blocks_count;
}

/* An older copy of the superblock in the log must not hide recorded errors. */
static void replay_fixup(void *priv, pblk_t blk, void *data)
{
	struct ext4_sb *sbi = priv;
	const struct ext4_super_block *disk = &sbi->disk_es;
	struct ext4_super_block *es;
	const size_t from = offsetof(struct ext4_super_block, s_error_count);
	const size_t to = offsetof(struct ext4_super_block, s_mount_opts);

	if (blk != (sbi->s.s_blocksize == 1024 ? 1u : 0u))
		return;
	es = (void *)((u8 *)data + super_offset(&sbi->s));
	if (le16_to_cpu(es->s_magic) != EXT4_SUPER_MAGIC)
		return;
	es->s_state = cpu_to_le16(le16_to_cpu(es->s_state) |
				  (le16_to_cpu(disk->s_state) & EXT4_ERROR_FS));
	if (le32_to_cpu(disk->s_error_count)) {
		memcpy((u8 *)es + from, (const u8 *)disk + from, to - from);
		es->s_first_error_time_hi = disk->s_first_error_time_hi;
		es->s_last_error_time_hi = disk->s_last_error_time_hi;
		es->s_first_error_errcode = disk->s_first_error_errcode;
		es->s_last_error_errcode = disk->s_last_error_errcode;
	}
	ext4_super_csum_set(sbi, es);
}

static const struct journal_ops journal_ops = {
	.pre_commit = pre_commit,
	.on_abort = on_abort,
	.replay_ok = replay_ok,
	.replay_fixup = replay_fixup,
};

/*
 * The journal's inode, read past every cache that will be used later: nothing
 * but its block map is valid before the log has been replayed.
 */
static int read_journal_inode(struct ext4_sb *sbi, struct inode **out)
{
	u32 bs = sbi->s.s_blocksize;
	ino_nr ino = sbi->journal_ino;
	group_t g = ext4_inode_group(sbi, ino);
	u32 index = (ino - 1) % sbi->inodes_per_group;
	struct ext4_group_desc gd;
	struct inode *inode = NULL;
	u8 *buf = io_alloc(bs);
	pblk_t blk;
	int err;

	if (!buf)
		return -ENOMEM;
	blk = ext4_gdb_location(sbi, g / sbi->desc_per_block);
	err = bdev_read(sbi->bdev, blk * bs, buf, bs);
	if (err)
		goto out_io;
	memset(&gd, 0, sizeof(gd));
	memcpy(&gd, buf + (size_t)(g % sbi->desc_per_block) * sbi->desc_size,
	       min_of(sbi->desc_size, (u32)sizeof(gd)));
	blk = ext4_gd_inode_table(sbi, &gd);
	err = -EFSCORRUPTED;
	if (blk <= sbi->first_data_block || blk >= sbi->blocks_count ||
	    sbi->itable_blocks > sbi->blocks_count - blk) {
		log_err("%s: group descriptor %u is damaged: inode table at block %llu",
			sbi->s.s_id, g, (unsigned long long)blk);
		goto out;
	}
	blk += index / sbi->inodes_per_block;
	err = bdev_read(sbi->bdev, blk * bs, buf, bs);
	if (err)
		goto out_io;
	err = -ENOMEM;
	inode = sbi->s.s_op->alloc_inode(&sbi->s);
	if (!inode)
		goto out;
	inode->i_ino = ino;
	err = ext4_load_inode_raw(EXT4_I(inode),
				  buf + (index % sbi->inodes_per_block) *
						sbi->inode_size);
	/* -ESTALE, too: it must be in use. */
	if (err == -ESTALE || (!err && !S_ISREG(inode->i_mode)))
		err = -EFSCORRUPTED;
	if (err) {
		log_err("%s: journal inode %u is damaged", sbi->s.s_id, ino);
		mapping_destroy(&inode->i_mapping);
		sbi->s.s_op->free_inode(inode);
		inode = NULL;
	}
	goto out;
out_io:
	log_err("%s: journal inode %u can't be read: %s", sbi->s.s_id, ino,
		strerror(-err));
out:
	io_free(buf);
	*out = inode;
	return err;
}

static int map_journal(struct ext4_sb *sbi, struct inode *inode,
		       struct journal_extent **out, u32 *nr)
{
	u64 blocks = inode->i_size >> sbi->s.s_blocksize_bits;
	struct journal_extent *map = NULL;
	u32 n = 0, room = 0, at = 0;
	int err = -EFSCORRUPTED;

	if (blocks < 1024 || blocks > UINT32_MAX / 2 ||
	    blocks > sbi->blocks_count) {
		log_err("%s: journal of %llu blocks", sbi->s.s_id,
			(unsigned long long)blocks);
		return -EFSCORRUPTED;
	}
	while (at < blocks) {
		struct ext4_map m = { .lblk = at, .len = (u32)blocks - at };

		err = ext4_map_blocks(EXT4_I(inode), &m);
		if (err)
			goto fail;
		if (!(m.flags & EXT4_MAP_MAPPED)) {
			log_err("%s: journal inode %u has a hole at block %u",
				sbi->s.s_id, sbi->journal_ino, at);
			err = -EFSCORRUPTED;
			goto fail;
		}
		if (n == room) {
			struct journal_extent *more;

			room = room ? room * 2 : 16;
			more = realloc(map, room * sizeof(*map));
			err = -ENOMEM;
			if (!more)
				goto fail;
			map = more;
		}
		map[n++] = (struct journal_extent){ at, m.len, m.pblk };
		at += m.len;
	}
	*out = map;
	*nr = n;
	return 0;
fail:
	free(map);
	return err;
}

static int load_journal(struct ext4_sb *sbi, struct journal_extent **map, u32 *nr,
			struct journal **out)
{
	struct inode *inode;
	int err;

	if (!sbi->journal_ino) {
		log_err("%s: an external journal is not supported", sbi->s.s_id);
		return -EOPNOTSUPP;
	}
	if (sbi->journal_ino > sbi->inodes_count)
		return refuse(sbi, "%s: journal inode %u", sbi->s.s_id,
			      sbi->journal_ino);
	err = read_journal_inode(sbi, &inode);
	if (err)
		return err;
	err = map_journal(sbi, inode, map, nr);
	if (!err) {
		struct journal_params p = {
			.sb = &sbi->s,
			.bd = sbi->bdev,
			.map = *map,
			.nr_map = *nr,
			.maxlen = (u32)(inode->i_size >> sbi->s.s_blocksize_bits),
			.use_64bit = sbi->has_64bit,
			.use_csum_v3 = sbi->has_csum,
			.fast_commit = ext4_has_compat(sbi, FAST_COMMIT),
			.commit_interval_ms = sbi->opts.commit_ms
						      ? sbi->opts.commit_ms
						      : DEFAULT_COMMIT_MS,
			.ops = &journal_ops,
			.priv = sbi,
		};

		err = journal_load(&p, out);
		if (err) {
			free(*map);
			*map = NULL;
			*nr = 0;
		}
	}
	mapping_destroy(&inode->i_mapping);
	sbi->s.s_op->free_inode(inode);
	return err;
}

/* Read-only mount of a volume with a log to replay: into memory. */
static int recover_into_overlay(struct ext4_sb *sbi, struct journal *j,
				struct journal_recovery_stats *st)
{
	struct bdev *ov;
	int err = bdev_overlay_create(sbi->bdev, sbi->s.s_blocksize, &ov);

	if (err)
		return err;
	sbi->bdev = ov; /* owns the device below */
	sbi->backing.bd = ov;
	return journal_recover(j, ov, st);
}

static int recover(struct ext4_sb *sbi, struct journal *j)
{
	bool flagged = ext4_has_incompat(sbi, RECOVER);
	struct journal_recovery_stats st = { 0 };
	int err;

	if (!flagged && !journal_needs_recovery(j))
		return 0;
	if (!flagged) {
		log_err("%s: the journal has transactions but the superblock does not "
			"ask for recovery; run e2fsck",
			sbi->s.s_id);
		return -EFSCORRUPTED;
	}
	if (sbi->opts.readonly && sbi->opts.noload) {
		log_warn("%s: the journal is not replayed (norecovery): contents may be inconsistent",
			 sbi->s.s_id);
		return 0;
	}
	if (sbi->opts.readonly)
		err = recover_into_overlay(sbi, j, &st);
	else
		err = journal_recover(j, sbi->bdev, &st);
	if (err) {
		log_err("%s: journal recovery failed: %s", sbi->s.s_id,
			strerror(-err));
		return err;
	}
	sbi->recovered = true;
	log_info("%s: journal recovered%s: %u transactions, %u blocks, %u revoked",
		 sbi->s.s_id, sbi->opts.readonly ? " in memory" : "",
		 st.transactions, st.blocks, st.revoke_hits);
	bcache_drop(&sbi->s);
	return 0;
}

/* --------------------------------------------------- direct sb writes */

static void set_time(le32 *lo, u8 *hi, u64 t)
{
	*lo = cpu_to_le32((u32)t);
	*hi = (u8)(t >> 32);
}

/* The whole block of the superblock, from memory; nothing is journalled now. */
static int write_super(struct ext4_sb *sbi)
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

static int write_super_mounted(struct ext4_sb *sbi)
{
	struct ext4_super_block *es = sbi->es;
	u64 now = (u64)time(NULL);
	int err;

	sbi->features_incompat |= EXT4_INCOMPAT_RECOVER;
	es->s_feature_incompat = cpu_to_le32(sbi->features_incompat);
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
	if (sbi->opts.mountpoint && sbi->opts.mountpoint[0])
		strncpy(es->s_last_mounted, sbi->opts.mountpoint,
			sizeof(es->s_last_mounted) - 1);
	err = write_super(sbi);
	/* The log stays empty as long as nothing on disk asks for its replay. */
	if (err)
		journal_abort(sbi->journal, err);
	return err;
}

static u64 bytes_written(struct bdev *bd)
{
	struct bdev_stats st;

	bdev_get_stats(bd, &st);
	return st.dir[BIO_WRITE].bytes;
}

static int write_super_clean(struct ext4_sb *sbi)
{
	struct ext4_super_block *es = sbi->es;
	u64 written = bytes_written(sbi->bdev);
	s64 blocks = counter_sum(sbi->free_blocks);
	s64 inodes = counter_sum(sbi->free_inodes);

	es->s_feature_incompat = cpu_to_le32(le32_to_cpu(es->s_feature_incompat) &
					     ~(u32)EXT4_INCOMPAT_RECOVER);
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
	return write_super(sbi);
}

/* ------------------------------------------------------------------ mount */

static u64 default_cache_bytes(void)
{
	u64 ram = (u64)sysconf(_SC_PHYS_PAGES) * (u64)sysconf(_SC_PAGESIZE);

	return max_of(min_of(ram / 4, MAX_DEFAULT_CACHE_BYTES), MIN_CACHE_BYTES);
}

static enum inode_iter inode_iter_of(enum sl_inode_iter asked)
{
	switch (asked) {
	case SL_INODE_ITER_PERCPU:
		return INODE_ITER_PERCPU;
	case SL_INODE_ITER_GLOBAL:
		return INODE_ITER_GLOBAL;
	default:
		return INODE_ITER_ICACHE;
	}
}

_Static_assert(SL_ZONES_MAX == ZONES_MAX, "what users may ask for");

static int create_caches(struct ext4_sb *sbi)
{
	struct super_block *sb = &sbi->s;
	u64 limit = sbi->opts.cache_bytes ? sbi->opts.cache_bytes
					  : default_cache_bytes();
	int err;

	sbi->opts.cache_bytes = limit = max_of(limit, MIN_CACHE_BYTES);
	sb->s_inode_iter = inode_iter_of(sbi->opts.inode_iter);
	sb->s_dirty_bytes = counter_new(0, 64 << 10);
	sbi->reserved = counter_new(0, 256);
	if (!sb->s_dirty_bytes || !sbi->reserved)
		return -ENOMEM;
	sb->s_data_full = sbi->opts.datacache_full;
	err = budget_create(limit, sbi->opts.zones, &sb->s_budget);
	if (!err)
		err = mapping_cache_create(sb, sbi->opts.regions);
	if (!err)
		err = bcache_create(sb);
	if (!err)
		err = icache_create(sb, sbi->inodes_count);
	return err;
}

/*
 * Counted anew, as the kernel does: resizing has left wrong numbers in
 * superblocks. Except with bigalloc, where structures share clusters.
 */
static void count_overhead(struct ext4_sb *sbi, u64 journal_blocks)
{
	u64 n = sbi->first_data_block + journal_blocks;

	if (ext4_has_ro_compat(sbi, BIGALLOC))
		n = (u64)le32_to_cpu(sbi->es->s_overhead_clusters)
		    << (le32_to_cpu(sbi->es->s_log_cluster_size) -
			le32_to_cpu(sbi->es->s_log_block_size));
	else
		for (group_t g = 0; g < sbi->groups; g++)
			n += ext4_group_head_blocks(sbi, g) + 2 +
			     sbi->itable_blocks;
	sbi->overhead = min_of(n, sbi->blocks_count - 1);
}

static int check_writable(struct ext4_sb *sbi)
{
	char why[256];
	bool ro;
	int err = ext4_feature_check(sbi, &ro, why, sizeof(why));

	if (err)
		return err;
	if (sbi->opts.readonly)
		return 0;
	if (ro) {
		log_err("%s: can only be mounted read-only (-o ro), because of: %s",
			sbi->s.s_id, why);
		return -EROFS;
	}
	if (sbi->opts.noload || sbi->opts.sb_block) {
		log_err("%s: %s needs a read-only mount (-o ro)", sbi->s.s_id,
			sbi->opts.noload ? "norecovery" : "sb=");
		return -EINVAL;
	}
	if (sbi->bdev->bd_readonly) {
		log_err("%s: the device is read-only", sbi->s.s_id);
		return -EROFS;
	}
	return 0;
}

/* The superblock in the buffer cache: read after recovery. */
static int load_super_buffer(struct ext4_sb *sbi)
{
	struct ext4_super_block es;
	pblk_t blk = sbi->s.s_blocksize == 1024 ? 1 : 0;
	u64 bytes = sbi->bdev->bd_size;
	u32 inodes = sbi->inodes_count;
	int err;

	err = buffer_read(&sbi->s, blk, &ext4_super_type, 0, &sbi->sb_buf);
	if (err)
		return err;
	sbi->es = (void *)(sbi->sb_buf->b_data + super_offset(&sbi->s));
	if (sbi->opts.sb_block) /* geometry came from the backup */
		return 0;
	memcpy(&es, sbi->es, sizeof(es));
	/* The caches have it already. */
	if (le32_to_cpu(es.s_log_block_size) != sbi->s.s_blocksize_bits - 10u)
		return refuse(sbi, "%s: the log changed the block size", sbi->s.s_id);
	err = ext4_super_decode(sbi, &es, bytes);
	/* A log may hold the end of a resize, or of tune2fs. */
	if (!err)
		err = check_writable(sbi);
	if (!err && sbi->inodes_count != inodes) {
		icache_destroy(&sbi->s); /* nothing is in it yet */
		err = icache_create(&sbi->s, sbi->inodes_count);
	}
	return err;
}

static int orphan_fix(struct ext4_sb *sbi, struct inode *inode)
{
	struct ext4_inode *ei = EXT4_I(inode);
	struct handle *h;
	int err;

	if (!inode->i_nlink) {
		log_debug("%s: deleting orphan inode %u", sbi->s.s_id,
			  inode->i_ino);
		return 0; /* deleted when the last reference goes */
	}
	log_debug("%s: truncating orphan inode %u to %llu", sbi->s.s_id,
		  inode->i_ino, (unsigned long long)inode->i_size);
	rwsem_down_write(&inode->i_rwsem);
	err = journal_start(sbi->journal,
			    ext4_remove_credits(ei) + EXT4_ORPHAN_CREDITS +
				    EXT4_INODE_CREDITS,
			    0, &h);
	if (!err) {
		u64 keep = DIV_ROUND_UP(inode->i_size, (u64)sbi->s.s_blocksize);

		if (S_ISREG(inode->i_mode) && keep <= LBLK_MAX)
			err = ext4_remove_blocks(h, ei, (lblk_t)keep,
						 (u64)LBLK_MAX + 1, false);
		if (!err)
			err = handle_ensure(h, EXT4_ORPHAN_CREDITS +
						       EXT4_INODE_CREDITS, 0);
		if (err == 1)
			err = handle_restart(h, EXT4_ORPHAN_CREDITS +
							EXT4_INODE_CREDITS, 0);
		if (!err)
			err = ext4_orphan_del(h, ei);
		if (!err)
			err = ext4_mark_inode_dirty(h, ei);
		int err2 = handle_stop(h);
		err = err ? err : err2;
	}
	rwsem_up_write(&inode->i_rwsem);
	return err;
}

static int recover_orphans(struct ext4_sb *sbi)
{
	int err;

	if (sbi->mount_state & EXT4_ERROR_FS) {
		log_warn("%s: orphans are left alone: the file system has errors, run e2fsck",
			 sbi->s.s_id);
		return 0;
	}
	sbi->orphan_recovery = true;
	err = ext4_orphan_recover(sbi, orphan_fix);
	sbi->orphan_recovery = false;
	return err;
}

/* The marks of dirty data: as the options say, else from the cache's limit. */
static void dirty_marks(const struct ext4_sb *sbi, u64 cache, u64 *background,
			u64 *limit)
{
	*limit = sbi->opts.dirty_bytes;
	*background = sbi->opts.dirty_background_bytes;
	if (!*limit)
		*limit = cache / 5 * 2;
	if (!*background || *background > *limit)
		*background = *limit / 4;
}

static int mount_rw(struct ext4_sb *sbi, struct journal *j)
{
	struct flusher_params fp = {
		.dirty_expire_ms = sbi->opts.dirty_expire_ms ? sbi->opts.dirty_expire_ms
							     : DEFAULT_EXPIRE_MS,
	};
	int jerr = journal_recorded_errno(j);
	int err;

	dirty_marks(sbi, sbi->opts.cache_bytes, &fp.dirty_background_bytes,
		    &fp.dirty_bytes);
	if (jerr) {
		log_err("%s: an earlier mount aborted the journal (error %d): run e2fsck",
			sbi->s.s_id, -jerr);
		sbi->mount_state |= EXT4_ERROR_FS;
		sbi->es->s_state = cpu_to_le16(le16_to_cpu(sbi->es->s_state) |
					       EXT4_ERROR_FS);
		/* Here first: journal_run() wipes it off the journal. */
		err = write_super(sbi);
		if (err)
			return err;
	}
	err = journal_run(j);
	if (err)
		return err;
	sbi->journal = j;
	sbi->mount_kbytes = le64_to_cpu(sbi->es->s_kbytes_written);
	sbi->mount_bytes = bytes_written(sbi->bdev);
	err = write_super_mounted(sbi);
	if (err)
		return err;
	err = flusher_start(&sbi->s, &fp, &sbi->flusher);
	if (!err)
		err = ext4_orphan_load(sbi);
	if (!err)
		err = recover_orphans(sbi);
	return err;
}

static void warn_state(const struct ext4_sb *sbi)
{
	if (sbi->mount_state & EXT4_ERROR_FS)
		log_warn("%s: mounting a file system with errors, running e2fsck is recommended",
			 sbi->s.s_id);
	else if (!(sbi->mount_state & EXT4_VALID_FS))
		log_warn("%s: mounting an unchecked file system, running e2fsck is recommended",
			 sbi->s.s_id);
}

/* Frees what mount built, in any state short of a running journal. */
static void free_sb(struct ext4_sb *sbi)
{
	struct super_block *sb = &sbi->s;

	if (sb->s_icache)
		icache_evict_all(sb);
	ext4_orphan_free(sbi);
	ext4_groups_free(sbi);
	ext4_syszone_free(sbi);
	buffer_put(sbi->sb_buf);
	if (sb->s_icache) {
		rcu_barrier(); /* inodes go through call_rcu */
		icache_destroy(sb);
	}
	if (sb->s_bcache)
		bcache_destroy(sb);
	if (sb->s_mapping_cache)
		mapping_cache_destroy(sb);
	rcu_barrier();
	if (sb->s_budget)
		budget_destroy(sb->s_budget);
	counter_free(sbi->free_blocks);
	counter_free(sbi->free_inodes);
	counter_free(sbi->used_dirs);
	counter_free(sbi->reserved);
	counter_free(sb->s_dirty_bytes);
	bdev_close(sbi->bdev);
	end_io_stop();
	mutex_destroy(&sbi->s_lock);
	mutex_destroy(&sbi->rename_lock);
	mutex_destroy(&sbi->limit_lock);
	spin_destroy(&sbi->err_lock);
	free(sbi);
}

static int check_root(struct ext4_sb *sbi)
{
	struct inode *root;
	int err = icache_get(&sbi->s, EXT4_ROOT_INO, &root);

	if (err == -ESTALE)
		err = -EFSCORRUPTED; /* not in use */
	if (err) {
		log_err("%s: the root directory can't be read: %s", sbi->s.s_id,
			strerror(-err));
		return err;
	}
	if (!S_ISDIR(root->i_mode) || !root->i_nlink) {
		log_err("%s: the root inode is not a directory", sbi->s.s_id);
		err = -EFSCORRUPTED;
	}
	inode_put(root);
	return err;
}

/* Journal, then everything that may be read only after recovery. */
static int mount_volume(struct ext4_sb *sbi)
{
	struct journal_extent *map = NULL;
	struct journal *j = NULL;
	u64 journal_len = 0;
	u32 nr = 0;
	int err = 0;

	if (ext4_has_compat(sbi, HAS_JOURNAL)) {
		err = load_journal(sbi, &map, &nr, &j);
		if (err && sbi->opts.readonly && sbi->opts.noload)
			err = 0;
		if (!err && j)
			err = recover(sbi, j);
	}
	if (!err)
		err = load_super_buffer(sbi);
	if (!err)
		err = ext4_groups_load(sbi);
	if (!err)
		err = ext4_syszone_build(sbi);
	for (u32 i = 0; !err && i < nr; i++) {
		err = ext4_syszone_add(sbi, map[i].pblk, map[i].len);
		journal_len += map[i].len;
	}
	free(map);
	if (err)
		goto out;
	count_overhead(sbi, journal_len);
	warn_state(sbi);
	if (!sbi->opts.readonly) {
		err = mount_rw(sbi, j);
		if (sbi->journal)
			j = NULL;
	}
	if (!err)
		err = check_root(sbi);
out:
	if (j)
		journal_free(j);
	return err;
}

static void stop_writing(struct ext4_sb *sbi)
{
	if (sbi->flusher)
		flusher_stop(sbi->flusher);
	sbi->flusher = NULL;
}

int sl_mount(struct bdev *bd, const struct sl_options *opts,
	     struct super_block **out)
{
	struct ext4_super_block es;
	struct ext4_sb *sbi = calloc(1, sizeof(*sbi));
	u64 pos = opts->sb_block ? opts->sb_block * 1024 : EXT4_SUPER_OFFSET;
	int err;

	if (!sbi) {
		bdev_close(bd);
		return -ENOMEM;
	}
	sbi->opts = *opts;
	sbi->opts.mountpoint = opts->mountpoint;
	sbi->bdev = bd;
	sbi->s.s_op = &ext4_super_ops;
	atomic_store(&sbi->s.s_rdonly, opts->readonly);
	snprintf(sbi->s.s_id, sizeof(sbi->s.s_id), "%.*s",
		 (int)sizeof(sbi->s.s_id) - 1, bd->bd_name);
	mutex_init(&sbi->s_lock, RANK_SB_FIELDS);
	mutex_init(&sbi->rename_lock, RANK_RENAME);
	mutex_init(&sbi->limit_lock, RANK_NONE);
	spin_init(&sbi->err_lock, RANK_STATS);
	atomic_store(&sbi->inode_gen, (u32)clock_mono_ns() ^ (u32)time(NULL));

	err = end_io_start();
	if (err) {
		bdev_close(bd);
		free(sbi);
		return err;
	}
	err = read_super_at(bd, pos, &es);
	if (!err)
		err = fit_sectors(bd, &es);
	if (!err)
		err = ext4_super_decode(sbi, &es, bd->bd_size);
	if (!err)
		err = check_writable(sbi);
	if (err)
		goto fail;
	sbi->disk_es = es;
	sbi->backing = (struct bdev_backing){ bd, sbi->s.s_blocksize_bits };
	sbi->s.s_backing = &sbi->backing;
	sbi->s.s_backing_ops = &bdev_backing_ops;
	err = create_caches(sbi);
	if (!err)
		err = mount_volume(sbi);
	if (!err)
		err = balancer_start(&sbi->s);
	if (err)
		goto fail;
	*out = &sbi->s;
	return 0;
fail:
	stop_writing(sbi);
	if (sbi->journal) {
		/* Leaves what was done recoverable: the log is replayed next time. */
		if (!journal_aborted(sbi->journal))
			icache_evict_all(&sbi->s);
		int err2 = journal_shutdown(sbi->journal);
		if (err2)
			log_err("%s: journal: %s", sbi->s.s_id, strerror(-err2));
		else
			write_super_clean(sbi);
		journal_free(sbi->journal);
		sbi->journal = NULL;
	}
	free_sb(sbi);
	return err;
}

int sl_unmount(struct super_block *sb)
{
	struct ext4_sb *sbi = EXT4_SB(sb);
	int err = 0, err2;

	balancer_stop(sb);
	if (sbi->journal) {
		err = flusher_sync_all(sbi->flusher);
		stop_writing(sbi);
		icache_evict_all(sb);
		err2 = journal_shutdown(sbi->journal);
		err = err ? err : err2;
		if (!err2 && !atomic_load(&sbi->aborted)) {
			err2 = write_super_clean(sbi);
			err = err ? err : err2;
		}
		journal_free(sbi->journal);
		sbi->journal = NULL;
	}
	free_sb(sbi);
	return err;
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
		return -EROFS;
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
	u64 kept = sbi->r_blocks + sbi->meta_reserve;
	s64 inodes = counter_sum(sbi->free_inodes);
	u64 id;

	memcpy(&id, sbi->uuid, sizeof(id));
	memset(st, 0, sizeof(*st));
	st->f_bsize = st->f_frsize = sb->s_blocksize;
	st->f_blocks = sbi->blocks_count - sbi->overhead;
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

u64 sl_cache_bytes(struct super_block *sb)
{
	return budget_limit(sb->s_budget);
}

#define LIMIT_ROUNDS 4

/* Dirty data and what waits for the journal cannot be freed: they are written. */
static void reclaim_to_limit(struct ext4_sb *sbi)
{
	struct super_block *sb = &sbi->s;

	for (int i = 0; i < LIMIT_ROUNDS; i++) {
		budget_throttle(sb->s_budget);
		if (!budget_is_full(sb->s_budget) || !sbi->flusher ||
		    atomic_load(&sb->s_rdonly))
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
	bytes = max_of(bytes, MIN_CACHE_BYTES);
	mutex_lock(&sbi->limit_lock);
	dirty_marks(sbi, bytes, &background, &dirty);
	if (sbi->flusher)
		flusher_set_marks(sbi->flusher, background, dirty);
	if (sbi->journal)
		journal_set_cache_limit(sbi->journal, bytes);
	(void)budget_set_limit(sb->s_budget, bytes);
	mutex_unlock(&sbi->limit_lock);
	reclaim_to_limit(sbi);
	return 0;
}

bool sl_nsec_times(struct super_block *sb)
{
	return EXT4_SB(sb)->nsec_times;
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
			"migrate_contended %llu\n",
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
			(unsigned long long)mapping_counter_read(sb, MIGRATE_CONTENDED));
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
		     "writers %u\n",
		     c.readers, c.sequential, c.strided, c.random, c.writers);
	return n < 0 ? 0 : min_of((size_t)n, len - 1);
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
	}
	/* Of many zones, those that leave room for what the caller has to say. */
	if (used < len)
		used += zone_stats_text(sb->s_budget, buf + used,
					(len - used) / 2);
	return used;
}
