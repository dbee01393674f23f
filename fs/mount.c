/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/mount.c - mount, recovery, unmount
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
 * Source:  ext4-format brief 13
 */
#include "fs/alloc_internal.h"
#include "fs/quota.h"
#include "fs/super_internal.h"
#include "fs/xattr_internal.h"
#include "cache/migrate.h"
#include "lib/thread.h"
#include "lib/wait.h"
#include "writeback/page_io.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_COMMIT_MS 5000u
#define DEFAULT_EXPIRE_MS 5000u
#define MAX_DEFAULT_CACHE_BYTES (1ull << 30)

int ext4_read_super_at(struct bdev *bd, u64 pos, void *super)
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
		memcpy(super, buf + (pos - start), 1024);
	else
		log_err("%s: superblock can't be read: %s", bd->bd_name,
			strerror(-err));
	io_free(buf);
	return err;
}

int ext4_fit_sectors(struct bdev *bd, const struct ext4_super_block *es)
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
	s64 blocks = counter_sum(sbi->free_blocks) * (1 << sbi->cluster_bits);
	s64 inodes = counter_sum(sbi->free_inodes);
	u32 lo, hi;

	ext4_quota_pre_commit(sbi, h);
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
	es = (void *)((u8 *)data + ext4_super_offset(&sbi->s));
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

static struct journal_params journal_params_of(struct ext4_sb *sbi)
{
	return (struct journal_params){
		.sb = &sbi->s,
		.bd = sbi->bdev,
		.use_64bit = sbi->has_64bit,
		.use_csum_v3 = sbi->has_csum,
		.fast_commit = ext4_has_compat(sbi, FAST_COMMIT),
		.commit_interval_ms = sbi->opts.commit_ms ? sbi->opts.commit_ms
							  : DEFAULT_COMMIT_MS,
		.ops = &journal_ops,
		.priv = sbi,
	};
}

/* The whole device is the log, and none of the volume's blocks. */
static int load_external(struct ext4_sb *sbi, struct journal **out)
{
	struct journal_params p = journal_params_of(sbi);
	struct journal_extent all = { 0 };
	int err = ext4_journal_dev_check(sbi, &p.maxlen, &p.sb_jblk);

	/* Before it is read: what changes in between is noticed, too. */
	if (!err && sbi->opts.readonly)
		err = ext4_journal_dev_note(sbi);
	if (err)
		return err;
	all.len = p.maxlen;
	p.log_bd = sbi->journal_bd;
	p.map = &all;
	p.nr_map = 1;
	p.user = sbi->uuid;
	err = journal_load(&p, out);
	if (!err)
		log_info("%s: external journal on %s, %u blocks", sbi->s.s_id,
			 sbi->journal_bd->bd_name, journal_blocks(*out));
	return err;
}

static int load_journal(struct ext4_sb *sbi, struct journal_extent **map, u32 *nr,
			struct journal **out)
{
	struct inode *inode;
	int err;

	if (!sbi->journal_ino)
		return load_external(sbi, out);
	if (sbi->journal_bd) {
		log_err("%s: its journal is inode %u: there is no external one",
			sbi->s.s_id, sbi->journal_ino);
		return -EINVAL;
	}
	if (sbi->journal_ino > sbi->inodes_count)
		return ext4_refuse(sbi, "%s: journal inode %u", sbi->s.s_id,
			      sbi->journal_ino);
	err = read_journal_inode(sbi, &inode);
	if (err)
		return err;
	err = map_journal(sbi, inode, map, nr);
	if (!err) {
		struct journal_params p = journal_params_of(sbi);

		p.map = *map;
		p.nr_map = *nr;
		p.maxlen = (u32)(inode->i_size >> sbi->s.s_blocksize_bits);
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

/* For a volume without one, or without regard to its own, which is empty: the mount was
 * told to. */
static int make_journal(struct ext4_sb *sbi, struct journal **out)
{
	struct journal_params p = journal_params_of(sbi);

	p.in_place = true;
	p.use_64bit = p.use_csum_v3 = p.fast_commit = false; /* of a log only */
	log_warn("%s: no journal%s: after a crash the volume needs e2fsck", sbi->s.s_id,
		 ext4_has_compat(sbi, HAS_JOURNAL) ? " is used" : "");
	return journal_load(&p, out);
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
	/* Of a remount: not what a log that is in memory says. */
	bool flagged = le32_to_cpu(sbi->disk_es.s_feature_incompat) & EXT4_INCOMPAT_RECOVER;
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
	if (sbi->opts.noload && !sbi->opts.readonly) {
		log_err("%s: the journal has to be replayed first: norecovery needs a read-only mount (-o ro)",
			sbi->s.s_id);
		return -EINVAL;
	}
	if (sbi->opts.noload) {
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
	/* At a remount what is cached was replayed before, to the same end. */
	if (!sbi->sb_buf)
		bcache_drop(&sbi->s);
	return 0;
}

/*
 * norecovery: what cannot be read of the log need not be, unless the volume is to be
 * written to. And an external journal that is not there holds nothing that is missed, if
 * the superblock says so.
 */
static bool can_do_without_log(const struct ext4_sb *sbi)
{
	if (!sbi->opts.noload)
		return false;
	return sbi->opts.readonly || (!sbi->journal_ino && !sbi->journal_bd &&
				      !ext4_uuid_is_null(sbi->journal_uuid) &&
				      !ext4_has_incompat(sbi, RECOVER));
}

/* The log, replayed, or what stands for it; NULL if there is none and nothing is written.
 * The map is to be freed. */
static int open_log(struct ext4_sb *sbi, struct journal_extent **map, u32 *nr,
		    struct journal **out)
{
	int err;

	if (!ext4_has_compat(sbi, HAS_JOURNAL))
		return sbi->opts.readonly ? 0 : make_journal(sbi, out);
	err = load_journal(sbi, map, nr, out);
	if (err && can_do_without_log(sbi))
		err = 0;
	if (!err && *out)
		err = recover(sbi, *out);
	if (!err && !sbi->opts.readonly && !ext4_has_log(sbi)) {
		journal_free(*out);
		*out = NULL;
		err = make_journal(sbi, out);
	}
	return err;
}

/* ------------------------------------------------------------------ mount */

static u64 default_cache_bytes(void)
{
	u64 ram = (u64)sysconf(_SC_PHYS_PAGES) * (u64)sysconf(_SC_PAGESIZE);

	return max_of(min_of(ram / 4, MAX_DEFAULT_CACHE_BYTES), EXT4_MIN_CACHE_BYTES);
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

	sbi->opts.cache_bytes = limit = max_of(limit, EXT4_MIN_CACHE_BYTES);
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
		    << sbi->cluster_bits;
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
	if (sbi->opts.sb_block) {
		log_err("%s: sb= needs a read-only mount (-o ro)", sbi->s.s_id);
		return -EINVAL;
	}
	if (sbi->bdev->bd_readonly) {
		log_err("%s: the device is read-only", sbi->s.s_id);
		return -EROFS;
	}
	return 0;
}

/* Which journal it is that has been replayed, and that goes on to be used. */
struct journal_id {
	bool has;
	u32 ino;
	u8 uuid[16]; /* of an external one */
};

static struct journal_id journal_id_of(const struct ext4_sb *sbi)
{
	struct journal_id id = {
		.has = ext4_has_compat(sbi, HAS_JOURNAL),
		.ino = sbi->journal_ino,
	};

	if (!id.ino)
		memcpy(id.uuid, sbi->journal_uuid, sizeof(id.uuid));
	return id;
}

/* Nobody who mounts a volume takes its journal from it. */
static int check_same_journal(struct ext4_sb *sbi, const struct journal_id *was)
{
	struct journal_id now = journal_id_of(sbi);

	if (now.has == was->has && now.ino == was->ino &&
	    memcmp(now.uuid, was->uuid, sizeof(now.uuid)) == 0)
		return 0;
	return ext4_refuse(sbi, "%s: the log that was replayed says that the volume has %s: run e2fsck",
			   sbi->s.s_id, now.has ? "another journal" : "no journal");
}

/* The superblock in the buffer cache: read after recovery. */
static int load_super_buffer(struct ext4_sb *sbi)
{
	struct journal_id journal = journal_id_of(sbi);
	struct ext4_super_block es;
	pblk_t blk = sbi->s.s_blocksize == 1024 ? 1 : 0;
	u64 bytes = sbi->bdev->bd_size;
	u32 inodes = sbi->inodes_count;
	int err;

	err = buffer_read(&sbi->s, blk, &ext4_super_type, 0, &sbi->sb_buf);
	if (err)
		return err;
	sbi->es = (void *)(sbi->sb_buf->b_data + ext4_super_offset(&sbi->s));
	if (sbi->opts.sb_block) /* geometry came from the backup */
		return 0;
	memcpy(&es, sbi->es, sizeof(es));
	/* The caches have it already. */
	if (le32_to_cpu(es.s_log_block_size) != sbi->s.s_blocksize_bits - 10u)
		return ext4_refuse(sbi, "%s: the log changed the block size", sbi->s.s_id);
	err = ext4_super_decode(sbi, &es, bytes);
	if (!err)
		err = check_same_journal(sbi, &journal);
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

u32 ext4_expire_ms(const struct ext4_sb *sbi)
{
	return sbi->opts.dirty_expire_ms ? sbi->opts.dirty_expire_ms : DEFAULT_EXPIRE_MS;
}

/* All that writing takes. With sbi->journal set, what was started is to be stopped. */
static int start_writing(struct ext4_sb *sbi, struct journal *j)
{
	struct flusher_params fp = {
		.dirty_expire_ms = ext4_expire_ms(sbi),
	};
	int jerr = journal_recorded_errno(j);
	int err;

	ext4_dirty_marks(sbi, sbi->opts.cache_bytes, &fp.dirty_background_bytes,
		    &fp.dirty_bytes);
	if (jerr) {
		log_err("%s: an earlier mount aborted the journal (error %d): run e2fsck",
			sbi->s.s_id, -jerr);
		sbi->mount_state |= EXT4_ERROR_FS;
		sbi->es->s_state = cpu_to_le16(le16_to_cpu(sbi->es->s_state) |
					       EXT4_ERROR_FS);
		/* Here first: journal_run() wipes it off the journal. */
		err = ext4_write_super(sbi);
		if (err)
			return err;
	}
	err = journal_run(j);
	if (err)
		return err;
	sbi->journal = j;
	sbi->mount_kbytes = le64_to_cpu(sbi->es->s_kbytes_written);
	sbi->mount_bytes = ext4_bytes_written(sbi->bdev);
	err = ext4_write_super_mounted(sbi);
	if (err)
		return err;
	if (sbi->opts.discard)
		err = ext4_discard_start(sbi);
	if (!err)
		err = flusher_start(&sbi->s, &fp, &sbi->flusher);
	if (!err)
		err = ext4_quota_start(sbi);
	if (!err && !sbi->opts.nombcache) {
		sbi->xattr_blocks = xattr_known_create();
		err = sbi->xattr_blocks ? 0 : -ENOMEM;
	}
	if (!err)
		err = ext4_values_create(sbi);
	if (!err)
		err = ext4_orphan_load(sbi);
	return err;
}

static int mount_rw(struct ext4_sb *sbi, struct journal *j)
{
	int err = start_writing(sbi, j);

	return err ?: recover_orphans(sbi);
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

	ext4_quota_stop(sbi);
	if (sb->s_icache)
		icache_evict_all(sb);
	ext4_quota_free(sbi);
	ext4_orphan_free(sbi);
	ext4_values_free(sbi);
	xattr_known_free(sbi->xattr_blocks);
	ext4_groups_free(sbi);
	ext4_syszone_free(sbi);
	buffer_put(sbi->sb_buf);
	/* Each waits for its own callbacks; a grace period is most of an unmount's time. */
	if (sb->s_icache)
		icache_destroy(sb);
	if (sb->s_bcache)
		bcache_destroy(sb);
	if (sb->s_mapping_cache)
		mapping_cache_destroy(sb);
	if (sb->s_budget)
		budget_destroy(sb->s_budget);
	counter_free(sbi->free_blocks);
	counter_free(sbi->free_inodes);
	counter_free(sbi->used_dirs);
	counter_free(sbi->reserved);
	counter_free(sb->s_dirty_bytes);
	ext4_mmp_stop(sbi);
	bdev_close(sbi->bdev);
	bdev_close(sbi->journal_bd);
	bdev_close(sbi->old_overlay);
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

	/* Recovery writes already. */
	if (ext4_has_incompat(sbi, MMP) && !sbi->opts.readonly)
		err = ext4_mmp_start(sbi);
	if (!err)
		err = open_log(sbi, &map, &nr, &j);
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
	if (!err && ext4_has_incompat(sbi, MMP))
		err = ext4_syszone_add(sbi, le64_to_cpu(sbi->es->s_mmp_block), 1);
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

/* What tune2fs -o can set; user_xattr and acl are so in any case. */
static const struct {
	u32 mask, value;
	const char *option;
} default_options[] = {
	{ EXT4_DEFM_DEBUG, EXT4_DEFM_DEBUG, "debug" },
	{ EXT4_DEFM_BSDGROUPS, EXT4_DEFM_BSDGROUPS, "bsdgroups" },
	{ EXT4_DEFM_UID16, EXT4_DEFM_UID16, "nouid32" },
	{ EXT4_DEFM_JMODE, EXT4_DEFM_JMODE_DATA, "data=journal" },
	{ EXT4_DEFM_JMODE, EXT4_DEFM_JMODE_WBACK, "data=writeback" },
	{ EXT4_DEFM_NOBARRIER, EXT4_DEFM_NOBARRIER, "nobarrier" },
	{ EXT4_DEFM_DISCARD, EXT4_DEFM_DISCARD, "discard" },
	{ EXT4_DEFM_NODELALLOC, EXT4_DEFM_NODELALLOC, "nodelalloc" },
};

int sl_superblock_options(struct bdev *bd, u64 sb_block, char *buf, size_t len)
{
	u64 pos = sb_block ? sb_block * 1024 : EXT4_SUPER_OFFSET;
	struct ext4_super_block es;
	size_t used = 0;
	int err = ext4_read_super_at(bd, pos, &es);

	assert(len >= SL_SUPERBLOCK_OPTIONS_MAX);
	buf[0] = '\0';
	/* What else is wrong with it is for sl_mount() to say. */
	if (err || le16_to_cpu(es.s_magic) != EXT4_SUPER_MAGIC)
		return err;
	for (size_t i = 0; i < ARRAY_SIZE(default_options); i++)
		if ((le32_to_cpu(es.s_default_mount_opts) &
		     default_options[i].mask) == default_options[i].value)
			used += (size_t)snprintf(buf + used, len - used, "%s,",
						 default_options[i].option);
	snprintf(buf + used, len - used, "%.*s", (int)sizeof(es.s_mount_opts),
		 (const char *)es.s_mount_opts);
	return 0;
}

int sl_superblock_journal(struct bdev *bd, u64 sb_block, struct sl_external_journal *out)
{
	u64 pos = sb_block ? sb_block * 1024 : EXT4_SUPER_OFFSET;
	struct ext4_super_block es;
	int err = ext4_read_super_at(bd, pos, &es);

	*out = (struct sl_external_journal){ 0 };
	if (err || le16_to_cpu(es.s_magic) != EXT4_SUPER_MAGIC)
		return err;
	out->external = le32_to_cpu(es.s_feature_compat) & EXT4_COMPAT_HAS_JOURNAL &&
			!le32_to_cpu(es.s_journal_inum) &&
			!ext4_uuid_is_null(es.s_journal_uuid);
	ext4_uuid_text(es.s_journal_uuid, out->uuid);
	out->devno = le32_to_cpu(es.s_journal_dev);
	return 0;
}

static void note_options(const struct ext4_sb *sbi)
{
	if (sbi->opts.journal_checksum && !sbi->has_csum)
		log_info("%s: option 'journal_checksum' has no effect: without metadata_csum the journal has no checksums",
			 sbi->s.s_id);
	if (sbi->opts.nojournal_checksum && sbi->has_csum)
		log_info("%s: option 'nojournal_checksum' has no effect: with metadata_csum the journal has checksums",
			 sbi->s.s_id);
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
		bdev_close(opts->journal_bd);
		return -ENOMEM;
	}
	sbi->opts = *opts;
	sbi->opts.mountpoint = opts->mountpoint;
	atomic_store(&sbi->noatime, opts->atime == SL_ATIME_NOATIME);
	sbi->bdev = sbi->device = bd;
	sbi->journal_bd = opts->journal_bd;
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
		bdev_close(sbi->journal_bd);
		free(sbi);
		return err;
	}
	err = ext4_read_super_at(bd, pos, &es);
	if (!err)
		err = ext4_fit_sectors(bd, &es);
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
	if (!err)
		err = ext4_readahead_start(sbi);
	if (err)
		goto fail;
	note_options(sbi);
	if (sbi->journal_bd && !ext4_has_compat(sbi, HAS_JOURNAL))
		log_warn("%s: it has no journal: the device given for one is not used",
			 sbi->s.s_id);
	*out = &sbi->s;
	return 0;
fail:
	balancer_stop(&sbi->s);
	stop_writing(sbi);
	if (sbi->journal) {
		ext4_quota_stop(sbi);
		/* Leaves what was done recoverable: the log is replayed next time. */
		if (!journal_aborted(sbi->journal))
			icache_evict_all(&sbi->s);
		int err2 = journal_shutdown(sbi->journal);

		ext4_discard_stop(sbi);
		if (err2)
			log_err("%s: journal: %s", sbi->s.s_id, strerror(-err2));
		else
			ext4_write_super_clean(sbi);
		/* Nothing is written from here on; its thread may want to abort. */
		ext4_mmp_stop(sbi);
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

	ext4_readahead_stop(sbi);
	balancer_stop(sb);
	if (sbi->journal) {
		err = flusher_sync_all(sbi->flusher);
		stop_writing(sbi);
		ext4_quota_stop(sbi);
		icache_evict_all(sb);
		err2 = journal_shutdown(sbi->journal);
		ext4_discard_stop(sbi);
		err = err ? err : err2;
		if (!err2 && !atomic_load(&sbi->aborted)) {
			err2 = ext4_write_super_clean(sbi);
			err = err ? err : err2;
		}
		/* Nothing is written from here on; its thread may want to abort. */
		ext4_mmp_stop(sbi);
		journal_free(sbi->journal);
		sbi->journal = NULL;
	}
	/* What is lost was meant to be. */
	if (atomic_load(&sbi->shut_down))
		err = 0;
	free_sb(sbi);
	return err;
}


/* ---------------------------------------------------------------- remount */

/*
 * From read-only to read-write, in two steps. In the first, requests go on: it may wait
 * long for who else could have the volume mounted. In the second none is at work, so
 * that nobody sees a volume that is half the one and half the other:
 *
 *   devices writable -> superblocks the same as ever -> MMP block ours |
 *   no overlay any more -> log replayed -> as at a mount
 *
 * An external journal's device goes with the volume's: both are writable, or none.
 * What is cached stays: the overlay showed what the replay makes of the device.
 */

/* The log's own, if it is used; with norecovery it is not, as at a mount. */
static struct bdev *log_device(const struct ext4_sb *sbi)
{
	return ext4_has_log(sbi) ? sbi->journal_bd : NULL;
}

static void devices_go_readonly(struct ext4_sb *sbi)
{
	if (log_device(sbi))
		bdev_go_readonly(sbi->journal_bd);
	bdev_go_readonly(sbi->device);
}

static int devices_go_writable(struct ext4_sb *sbi, const char *own)
{
	const char *why;
	int err = bdev_go_writable(sbi->device, own, &why);

	if (err) {
		log_err("%s: %s", sbi->s.s_id, why);
		return err;
	}
	if (!log_device(sbi))
		return 0;
	err = bdev_go_writable(sbi->journal_bd, NULL, &why);
	if (err) {
		log_err("%s: external journal %s: %s", sbi->s.s_id,
			sbi->journal_bd->bd_name, why);
		bdev_go_readonly(sbi->device);
	}
	return err;
}

/* Is on the device what was mounted? */
static int check_same_super(struct ext4_sb *sbi)
{
	struct ext4_super_block es;
	int err = ext4_read_super_at(sbi->device, EXT4_SUPER_OFFSET, &es);

	if (err)
		return err;
	if (le16_to_cpu(es.s_magic) != EXT4_SUPER_MAGIC)
		return ext4_refuse(sbi, "%s: the superblock is destroyed (wrong magic number)",
				   sbi->s.s_id);
	if (memcmp(&es, &sbi->disk_es, sizeof(es)))
		return ext4_refuse(sbi, "%s: the superblock was changed since the volume was mounted: unmount it, run e2fsck, and mount it again",
				   sbi->s.s_id);
	return 0;
}

static bool in_errors(const struct ext4_sb *sbi)
{
	return atomic_load(&sbi->aborted) || atomic_load(&sbi->shut_down);
}

static int check_may_write(struct ext4_sb *sbi)
{
	struct sl_options *o = &sbi->opts;
	int err;

	if (in_errors(sbi)) {
		log_err("%s: it is read-only %s: unmount it, and mount it again",
			sbi->s.s_id, atomic_load(&sbi->shut_down) ?
			"since it was shut down" : "because of errors");
		return -EROFS;
	}
	if (o->noload && ext4_has_compat(sbi, HAS_JOURNAL) &&
	    le32_to_cpu(sbi->disk_es.s_feature_incompat) & EXT4_INCOMPAT_RECOVER) {
		log_err("%s: the journal was not replayed (norecovery): unmount it, and mount it again",
			sbi->s.s_id);
		return -EINVAL;
	}
	o->readonly = false;
	err = check_writable(sbi);
	o->readonly = true;
	return err;
}

int sl_writable_begin(struct super_block *sb, const char *own)
{
	struct ext4_sb *sbi = EXT4_SB(sb);
	int err;

	if (sbi->journal && !in_errors(sbi))
		return 0;
	if (in_errors(sbi))
		return check_may_write(sbi);
	err = devices_go_writable(sbi, own);
	if (err)
		return err;
	err = check_may_write(sbi);
	if (!err)
		err = check_same_super(sbi);
	if (!err && log_device(sbi))
		err = ext4_journal_dev_same(sbi);
	if (!err && ext4_has_incompat(sbi, MMP))
		err = ext4_mmp_start(sbi);
	if (err)
		devices_go_readonly(sbi);
	return err;
}

static void set_bdev(struct ext4_sb *sbi, struct bdev *bd)
{
	sbi->bdev = bd;
	sbi->backing.bd = bd;
}

/* Is what the replay has left what was served until now? */
static int check_super_replayed(struct ext4_sb *sbi)
{
	struct ext4_super_block es;
	int err = ext4_read_super_at(sbi->device, EXT4_SUPER_OFFSET, &es);

	if (!err && memcmp(&es, sbi->es, sizeof(es)))
		err = ext4_refuse(sbi, "%s: the journal was changed since the volume was mounted: unmount it, run e2fsck, and mount it again",
				  sbi->s.s_id);
	return err;
}

/* The log is replayed on the device. With an error all is as it was. */
static int replay_for_writing(struct ext4_sb *sbi, struct journal **j)
{
	struct ext4_syszone *zones = sbi->syszone;
	struct journal_extent *map = NULL;
	struct bdev *was = sbi->bdev;
	u32 nr = 0;
	int err;

	set_bdev(sbi, sbi->device);
	/* As at the mount: the journal lies in a zone that is the journal's. */
	sbi->syszone = NULL;
	err = open_log(sbi, &map, &nr, j);
	sbi->syszone = zones;
	free(map);
	if (!err)
		err = check_super_replayed(sbi);
	if (err) {
		if (*j)
			journal_free(*j);
		*j = NULL;
		/* Also of a log that is replayed by now it shows the same. */
		set_bdev(sbi, was);
		return err;
	}
	if (was != sbi->device) {
		bdev_overlay_detach(was);
		sbi->old_overlay = was;
	}
	return 0;
}

/* What start_writing() has begun ends, also if the journal is aborted by now; nothing but
 * the volume's state was changed. */
static void stop_begun(struct ext4_sb *sbi)
{
	int err;

	stop_writing(sbi);
	ext4_quota_stop(sbi);
	err = journal_shutdown(sbi->journal);
	ext4_discard_stop(sbi);
	if (!err)
		err = ext4_write_super_clean(sbi);
	if (err)
		log_err("%s: journal: %s", sbi->s.s_id, strerror(-err));
	ext4_quota_free(sbi);
	ext4_orphan_free(sbi);
	ext4_values_free(sbi);
	xattr_known_free(sbi->xattr_blocks);
	sbi->xattr_blocks = NULL;
	journal_free(sbi->journal);
	sbi->journal = NULL;
}

int sl_writable_finish(struct super_block *sb)
{
	struct ext4_sb *sbi = EXT4_SB(sb);
	struct journal *j = NULL;
	int err;

	if (sbi->journal)
		return 0;
	ext4_readahead_stop(sbi);
	sbi->opts.readonly = false;
	err = replay_for_writing(sbi, &j);
	if (!err) {
		sbi->mount_state = le16_to_cpu(sbi->es->s_state);
		warn_state(sbi);
		atomic_store(&sb->s_rdonly, false);
		err = start_writing(sbi, j);
		if (err && !sbi->journal)
			journal_free(j);
		else if (err)
			stop_begun(sbi);
	}
	if (!err) {
		ext4_inodes_join_journal(sbi);
		err = recover_orphans(sbi);
		/* What was begun may be half done: as after errors. */
		if (err)
			journal_abort(sbi->journal, err);
	}
	if (err)
		atomic_store(&sb->s_rdonly, true);
	if (!sbi->journal) {
		sbi->opts.readonly = true;
		/* Another attempt finds it as this one leaves it. */
		(void)!ext4_read_super_at(sbi->device, EXT4_SUPER_OFFSET, &sbi->disk_es);
		if (log_device(sbi))
			(void)!ext4_journal_dev_note(sbi);
		ext4_mmp_stop(sbi);
		devices_go_readonly(sbi);
	}
	if (ext4_readahead_start(sbi))
		log_warn("%s: nothing is read ahead any more: no thread", sb->s_id);
	return err;
}

bool sl_holds_volume(struct super_block *sb)
{
	return EXT4_SB(sb)->journal != NULL;
}
