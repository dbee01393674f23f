/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/group.c - group descriptors: loading, checking, fields, locks
 *
 * The descriptor blocks are read once at mount with wide readahead and stay
 * referenced in sbi->gdb[]. Everything else about a group is found out when it
 * is first used: sbi->group_info is zeroed memory that is not even touched
 * until then.
 *
 * Locks:   group lock, one of 1024 by group number (neighbours differ)
 * Alive:   from ext4_groups_load() to ext4_groups_free()
 * Source:  ext4-format brief 3, 4.1-4.4; Documentation/filesystems/ext4/
 *          group_descr.rst. Next: syszone.c, balloc.c, ialloc.c
 */
#include "fs/alloc_internal.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "lib/crc.h"
#include "lib/thread.h"

#define GROUP_LOCKS 1024u
#define GDB_READAHEAD 512u /* descriptor blocks on their way */

struct group_lock {
	struct spinlock lock;
} __cacheline_aligned;

struct ext4_group_locks {
	struct group_lock l[GROUP_LOCKS];
};

/* Checked by ext4_groups_load(), which knows what to say about each fault. */
static const struct buffer_type gdb_type = { .name = "group descriptors" };

void ext4_group_lock(struct ext4_sb *sbi, group_t g) NO_THREAD_SAFETY
{
	spin_lock(&sbi->group_locks->l[g % GROUP_LOCKS].lock);
}

bool ext4_group_trylock(struct ext4_sb *sbi, group_t g) NO_THREAD_SAFETY
{
	return spin_trylock(&sbi->group_locks->l[g % GROUP_LOCKS].lock);
}

void ext4_group_unlock(struct ext4_sb *sbi, group_t g) NO_THREAD_SAFETY
{
	spin_unlock(&sbi->group_locks->l[g % GROUP_LOCKS].lock);
}

/* ---- geometry ---- */

u32 ext4_blocks_in_group(const struct ext4_sb *sbi, group_t g)
{
	u64 left = sbi->blocks_count - ext4_group_first_block(sbi, g);

	return (u32)min_of(left, (u64)sbi->blocks_per_group);
}

u32 ext4_clusters_in_group(const struct ext4_sb *sbi, group_t g)
{
	u32 blocks = ext4_blocks_in_group(sbi, g);

	return (blocks + (1u << sbi->cluster_bits) - 1) >> sbi->cluster_bits;
}

static bool is_power_of(group_t g, u32 base)
{
	u64 p = base;

	while (p < g)
		p *= base;
	return p == g;
}

bool ext4_group_has_super(const struct ext4_sb *sbi, group_t g)
{
	if (g == 0)
		return true;
	if (ext4_has_compat(sbi, SPARSE_SUPER2))
		return g == le32_to_cpu(sbi->es->s_backup_bgs[0]) ||
		       g == le32_to_cpu(sbi->es->s_backup_bgs[1]);
	if (g == 1 || !ext4_has_ro_compat(sbi, SPARSE_SUPER))
		return true;
	if (!(g & 1))
		return false;
	return is_power_of(g, 3) || is_power_of(g, 5) || is_power_of(g, 7);
}

/* Is g in a meta group, whose descriptors lie inside it? */
static bool group_in_meta_bg(const struct ext4_sb *sbi, group_t g)
{
	return ext4_has_incompat(sbi, META_BG) &&
	       g / sbi->desc_per_block >= sbi->first_meta_bg;
}

u32 ext4_group_head_blocks(const struct ext4_sb *sbi, group_t g)
{
	u32 n = ext4_group_has_super(sbi, g);
	u32 pos;

	if (group_in_meta_bg(sbi, g)) {
		pos = g % sbi->desc_per_block;
		if (pos == 0 || pos == 1 || pos == sbi->desc_per_block - 1)
			n++;
		return n;
	}
	if (!n)
		return 0;
	if (ext4_has_incompat(sbi, META_BG))
		return n + sbi->first_meta_bg;
	return n + sbi->gdb_count + sbi->reserved_gdt_blocks;
}

pblk_t ext4_gdb_location(const struct ext4_sb *sbi, u32 n)
{
	/* 1 KiB blocks: the superblock is block 1, even where groups start at 0 */
	pblk_t sb_blk = sbi->s.s_blocksize == 1024 ? 1 : 0;
	group_t g;

	if (!ext4_has_incompat(sbi, META_BG) || n < sbi->first_meta_bg)
		return sb_blk + 1 + n;
	if (n == 0)
		return sb_blk + 1;
	g = n * sbi->desc_per_block;
	return ext4_group_first_block(sbi, g) + ext4_group_has_super(sbi, g);
}

/* ---- fields ---- */

struct ext4_group_desc *ext4_group_desc(struct ext4_sb *sbi, group_t g,
					struct buffer **gdb)
{
	struct buffer *b = sbi->gdb[g / sbi->desc_per_block];

	if (gdb)
		*gdb = b;
	return (struct ext4_group_desc *)(b->b_data +
		(size_t)(g % sbi->desc_per_block) * sbi->desc_size);
}

static bool has_hi(const struct ext4_sb *sbi)
{
	return sbi->desc_size >= sizeof(struct ext4_group_desc);
}

static u64 join32(const struct ext4_sb *sbi, le32 lo, const le32 *hi)
{
	return le32_to_cpu(lo) |
	       (has_hi(sbi) ? (u64)le32_to_cpu(*hi) << 32 : 0);
}

static u32 join16(const struct ext4_sb *sbi, le16 lo, const le16 *hi)
{
	return le16_to_cpu(lo) |
	       (has_hi(sbi) ? (u32)le16_to_cpu(*hi) << 16 : 0);
}

static void split16(const struct ext4_sb *sbi, u32 v, le16 *lo, le16 *hi)
{
	*lo = cpu_to_le16((u16)v);
	if (has_hi(sbi))
		*hi = cpu_to_le16((u16)(v >> 16));
}

pblk_t ext4_gd_block_bitmap(const struct ext4_sb *sbi,
			    const struct ext4_group_desc *gd)
{
	return join32(sbi, gd->bg_block_bitmap_lo, &gd->bg_block_bitmap_hi);
}

pblk_t ext4_gd_inode_bitmap(const struct ext4_sb *sbi,
			    const struct ext4_group_desc *gd)
{
	return join32(sbi, gd->bg_inode_bitmap_lo, &gd->bg_inode_bitmap_hi);
}

pblk_t ext4_gd_inode_table(const struct ext4_sb *sbi,
			   const struct ext4_group_desc *gd)
{
	return join32(sbi, gd->bg_inode_table_lo, &gd->bg_inode_table_hi);
}

u32 ext4_gd_free_blocks(const struct ext4_sb *sbi,
			const struct ext4_group_desc *gd)
{
	return join16(sbi, gd->bg_free_blocks_count_lo,
		      &gd->bg_free_blocks_count_hi);
}

u32 ext4_gd_free_inodes(const struct ext4_sb *sbi,
			const struct ext4_group_desc *gd)
{
	return join16(sbi, gd->bg_free_inodes_count_lo,
		      &gd->bg_free_inodes_count_hi);
}

u32 ext4_gd_used_dirs(const struct ext4_sb *sbi,
		      const struct ext4_group_desc *gd)
{
	return join16(sbi, gd->bg_used_dirs_count_lo,
		      &gd->bg_used_dirs_count_hi);
}

u32 ext4_gd_itable_unused(const struct ext4_sb *sbi,
			  const struct ext4_group_desc *gd)
{
	return join16(sbi, gd->bg_itable_unused_lo, &gd->bg_itable_unused_hi);
}

void ext4_gd_set_free_blocks(struct ext4_sb *sbi, struct ext4_group_desc *gd,
			     u32 n)
{
	split16(sbi, n, &gd->bg_free_blocks_count_lo,
		&gd->bg_free_blocks_count_hi);
}

void ext4_gd_set_free_inodes(struct ext4_sb *sbi, struct ext4_group_desc *gd,
			     u32 n)
{
	split16(sbi, n, &gd->bg_free_inodes_count_lo,
		&gd->bg_free_inodes_count_hi);
}

void ext4_gd_set_used_dirs(struct ext4_sb *sbi, struct ext4_group_desc *gd,
			   u32 n)
{
	split16(sbi, n, &gd->bg_used_dirs_count_lo,
		&gd->bg_used_dirs_count_hi);
}

void ext4_gd_set_itable_unused(struct ext4_sb *sbi, struct ext4_group_desc *gd,
			       u32 n)
{
	split16(sbi, n, &gd->bg_itable_unused_lo, &gd->bg_itable_unused_hi);
}

u32 ext4_gd_flags(const struct ext4_sb *sbi, const struct ext4_group_desc *gd)
{
	return ext4_has_group_csum(sbi) ? le16_to_cpu(gd->bg_flags) : 0;
}

void ext4_gd_clear_flag(struct ext4_group_desc *gd, u32 flag)
{
	gd->bg_flags = cpu_to_le16((u16)(le16_to_cpu(gd->bg_flags) & ~flag));
}

/* ---- checksums ---- */

static u16 gd_csum(const struct ext4_sb *sbi, group_t g,
		   const struct ext4_group_desc *gd)
{
	const size_t off = offsetof(struct ext4_group_desc, bg_checksum);
	const size_t rest = off + sizeof(gd->bg_checksum);
	const u8 *raw = (const u8 *)gd;
	const le16 zero = { 0 };
	le32 nr = cpu_to_le32(g);
	u32 crc;
	u16 c16;

	if (sbi->has_csum) {
		crc = crc32c(sbi->csum_seed, &nr, sizeof(nr));
		crc = crc32c(crc, raw, off);
		crc = crc32c(crc, &zero, sizeof(zero));
		if (sbi->desc_size > rest)
			crc = crc32c(crc, raw + rest, sbi->desc_size - rest);
		return (u16)crc;
	}
	/* uninit_bg: the field is left out; 32-byte descriptors end with it */
	c16 = crc16(0xFFFF, sbi->uuid, sizeof(sbi->uuid));
	c16 = crc16(c16, &nr, sizeof(nr));
	c16 = crc16(c16, raw, off);
	if (sbi->has_64bit && sbi->desc_size > rest)
		c16 = crc16(c16, raw + rest, sbi->desc_size - rest);
	return c16;
}

void ext4_gd_csum_set(struct ext4_sb *sbi, group_t g,
		      struct ext4_group_desc *gd)
{
	if (ext4_has_group_csum(sbi))
		gd->bg_checksum = cpu_to_le16(gd_csum(sbi, g, gd));
}

static u32 bbitmap_csum(const struct ext4_sb *sbi, const void *map)
{
	return crc32c(sbi->csum_seed, map, sbi->clusters_per_group / 8);
}

static u32 ibitmap_csum(const struct ext4_sb *sbi, const void *map)
{
	return crc32c(sbi->csum_seed, map, sbi->inodes_per_group / 8);
}

void ext4_gd_bbitmap_csum_set(struct ext4_sb *sbi, struct ext4_group_desc *gd,
			      const void *map)
{
	if (sbi->has_csum)
		split16(sbi, bbitmap_csum(sbi, map), &gd->bg_block_bitmap_csum_lo,
			&gd->bg_block_bitmap_csum_hi);
}

void ext4_gd_ibitmap_csum_set(struct ext4_sb *sbi, struct ext4_group_desc *gd,
			      const void *map)
{
	if (sbi->has_csum)
		split16(sbi, ibitmap_csum(sbi, map), &gd->bg_inode_bitmap_csum_lo,
			&gd->bg_inode_bitmap_csum_hi);
}

static bool csum_ok(const struct ext4_sb *sbi, u32 want, u32 stored)
{
	if (!sbi->has_csum)
		return true;
	return has_hi(sbi) ? want == stored : (u16)want == (u16)stored;
}

bool ext4_gd_bbitmap_csum_ok(const struct ext4_sb *sbi,
			     const struct ext4_group_desc *gd, const void *map)
{
	return csum_ok(sbi, sbi->has_csum ? bbitmap_csum(sbi, map) : 0,
		       join16(sbi, gd->bg_block_bitmap_csum_lo,
			      &gd->bg_block_bitmap_csum_hi));
}

bool ext4_gd_ibitmap_csum_ok(const struct ext4_sb *sbi,
			     const struct ext4_group_desc *gd, const void *map)
{
	return csum_ok(sbi, sbi->has_csum ? ibitmap_csum(sbi, map) : 0,
		       join16(sbi, gd->bg_inode_bitmap_csum_lo,
			      &gd->bg_inode_bitmap_csum_hi));
}

/* ---- corrupt groups ---- */

bool ext4_group_bbitmap_corrupt(struct ext4_sb *sbi, group_t g)
{
	struct ext4_group_info *gi = &sbi->group_info[g];
	bool first;
	u32 lost = 0;

	ext4_group_lock(sbi, g);
	first = !(gi->flags & EXT4_GRP_BBITMAP_CORRUPT);
	if (first) {
		gi->flags |= EXT4_GRP_BBITMAP_CORRUPT;
		lost = ext4_gd_free_blocks(sbi, ext4_group_desc(sbi, g, NULL));
		atomic_store(&sbi->alloc->group_blocks[g], 0);
	}
	ext4_group_unlock(sbi, g);
	counter_add(sbi->free_blocks, -(s64)lost);
	counter_add(sbi->alloc->avail, -(s64)lost);
	return first;
}

bool ext4_group_ibitmap_corrupt(struct ext4_sb *sbi, group_t g)
{
	struct ext4_group_info *gi = &sbi->group_info[g];
	bool first;
	u32 lost = 0;

	ext4_group_lock(sbi, g);
	first = !(gi->flags & EXT4_GRP_IBITMAP_CORRUPT);
	if (first) {
		gi->flags |= EXT4_GRP_IBITMAP_CORRUPT;
		lost = ext4_gd_free_inodes(sbi, ext4_group_desc(sbi, g, NULL));
		atomic_store(&sbi->alloc->group_inodes[g], 0);
	}
	ext4_group_unlock(sbi, g);
	counter_add(sbi->free_inodes, -(s64)lost);
	return first;
}

/* ---- loading ---- */

/* [blk, blk+n) inside the volume; inside group g too unless flex_bg. */
static bool placed_ok(const struct ext4_sb *sbi, group_t g, pblk_t blk, u32 n)
{
	pblk_t first = sbi->first_data_block;
	pblk_t end = sbi->blocks_count;

	if (!ext4_has_incompat(sbi, FLEX_BG)) {
		first = ext4_group_first_block(sbi, g);
		end = first + ext4_blocks_in_group(sbi, g);
	}
	return blk >= first && blk < end && n <= end - blk;
}

static int desc_bad(struct ext4_sb *sbi, group_t g, const char *what, u64 value,
		    int error)
{
	log_err("%s: group %u: %s (%" PRIu64 "); the volume needs e2fsck",
		sbi->s.s_id, g, what, value);
	return error;
}

static int check_desc(struct ext4_sb *sbi, group_t g,
		      const struct ext4_group_desc *gd)
{
	u32 max_free = ext4_clusters_in_group(sbi, g);
	pblk_t bb = ext4_gd_block_bitmap(sbi, gd);
	pblk_t ib = ext4_gd_inode_bitmap(sbi, gd);
	pblk_t it = ext4_gd_inode_table(sbi, gd);

	if (ext4_has_group_csum(sbi) &&
	    le16_to_cpu(gd->bg_checksum) != gd_csum(sbi, g, gd))
		return desc_bad(sbi, g, "descriptor checksum is wrong",
				le16_to_cpu(gd->bg_checksum), -EFSBADCRC);
	if (!placed_ok(sbi, g, bb, 1))
		return desc_bad(sbi, g, "block bitmap is misplaced", bb,
				-EFSCORRUPTED);
	if (!placed_ok(sbi, g, ib, 1))
		return desc_bad(sbi, g, "inode bitmap is misplaced", ib,
				-EFSCORRUPTED);
	if (!placed_ok(sbi, g, it, sbi->itable_blocks))
		return desc_bad(sbi, g, "inode table is misplaced", it,
				-EFSCORRUPTED);
	if (ext4_gd_free_blocks(sbi, gd) > max_free)
		return desc_bad(sbi, g, "too many free blocks",
				ext4_gd_free_blocks(sbi, gd), -EFSCORRUPTED);
	if (ext4_gd_free_inodes(sbi, gd) > sbi->inodes_per_group)
		return desc_bad(sbi, g, "too many free inodes",
				ext4_gd_free_inodes(sbi, gd), -EFSCORRUPTED);
	if (ext4_gd_used_dirs(sbi, gd) > sbi->inodes_per_group)
		return desc_bad(sbi, g, "too many directories",
				ext4_gd_used_dirs(sbi, gd), -EFSCORRUPTED);
	if (ext4_has_group_csum(sbi) &&
	    ext4_gd_itable_unused(sbi, gd) > sbi->inodes_per_group)
		return desc_bad(sbi, g, "too many unused inodes",
				ext4_gd_itable_unused(sbi, gd), -EFSCORRUPTED);
	return 0;
}

/* Keeps the device busy ahead of block n; returns how far that goes. */
static u32 gdb_readahead(struct ext4_sb *sbi, u32 n, u32 done)
{
	u32 limit = (u32)min_of((u64)n + GDB_READAHEAD, (u64)sbi->gdb_count);

	if (done > n + GDB_READAHEAD / 2)
		return done;
	while (done < limit) {
		pblk_t blk = ext4_gdb_location(sbi, done);
		u32 run = 1;

		while (done + run < limit && run < 128 &&
		       ext4_gdb_location(sbi, done + run) == blk + run)
			run++;
		if (blk < sbi->blocks_count && run <= sbi->blocks_count - blk)
			buffer_readahead(&sbi->s, blk, run);
		done += run;
	}
	return done;
}

struct group_sums {
	u64 free_blocks, free_inodes, used_dirs;
};

static int load_gdb(struct ext4_sb *sbi, u32 n, struct group_sums *sums)
{
	pblk_t blk = ext4_gdb_location(sbi, n);
	group_t g = n * sbi->desc_per_block;
	group_t end = (group_t)min_of((u64)g + sbi->desc_per_block,
				      (u64)sbi->groups);
	int error;

	if (blk >= sbi->blocks_count)
		return desc_bad(sbi, g, "descriptors are outside the volume",
				blk, -EFSCORRUPTED);
	error = ext4_bread(sbi, blk, 0, &gdb_type, n, &sbi->gdb[n]);
	if (error)
		return error;
	for (; g < end; g++) {
		struct ext4_group_desc *gd = ext4_group_desc(sbi, g, NULL);
		u32 blocks, inodes;

		error = check_desc(sbi, g, gd);
		if (error)
			return error;
		blocks = ext4_gd_free_blocks(sbi, gd);
		inodes = ext4_gd_free_inodes(sbi, gd);
		atomic_init(&sbi->alloc->group_blocks[g], blocks);
		atomic_init(&sbi->alloc->group_inodes[g], inodes);
		sums->free_blocks += blocks;
		sums->free_inodes += inodes;
		sums->used_dirs += ext4_gd_used_dirs(sbi, gd);
	}
	return 0;
}

static int alloc_tables(struct ext4_sb *sbi)
{
	struct ext4_alloc *al;

	sbi->group_locks = aligned_alloc(_Alignof(struct ext4_group_locks),
					 sizeof(*sbi->group_locks));
	if (!sbi->group_locks)
		return -ENOMEM;
	for (u32 i = 0; i < GROUP_LOCKS; i++)
		spin_init(&sbi->group_locks->l[i].lock, RANK_GROUP);

	al = calloc(1, sizeof(*al));
	if (!al)
		return -ENOMEM;
	sbi->alloc = al;
	for (u32 i = 0; i < EXT4_INIT_LOCKS; i++)
		mutex_init(&al->init_lock[i], RANK_BUFFER);
	mutex_init(&al->trim_lock, RANK_NONE);
	al->group_blocks = calloc(sbi->groups, sizeof(*al->group_blocks));
	al->group_longest = calloc(sbi->groups, sizeof(*al->group_longest));
	al->group_inodes = calloc(sbi->groups, sizeof(*al->group_inodes));
	sbi->gdb = calloc(sbi->gdb_count, sizeof(struct buffer *));
	sbi->group_info = calloc(sbi->groups, sizeof(*sbi->group_info));
	if (!al->group_blocks || !al->group_longest || !al->group_inodes ||
	    !sbi->gdb || !sbi->group_info)
		return -ENOMEM;
	return ext4_space_init(sbi);
}

static int alloc_counters(struct ext4_sb *sbi, const struct group_sums *sums)
{
	/* What CPUs keep to themselves must be little against the volume. */
	s64 batch = (s64)((sbi->blocks_count >> sbi->cluster_bits) / 1024 /
			  thread_nr_cpus());

	batch = max_of(batch, (s64)32);
	batch = min_of(batch, (s64)4096);
	sbi->free_blocks = counter_new((s64)sums->free_blocks, batch);
	sbi->alloc->avail = counter_new((s64)sums->free_blocks, batch);
	sbi->free_inodes = counter_new((s64)sums->free_inodes, 32);
	sbi->used_dirs = counter_new((s64)sums->used_dirs, 32);
	if (!sbi->reserved)
		sbi->reserved = counter_new(0, batch);
	if (!sbi->free_blocks || !sbi->alloc->avail || !sbi->free_inodes ||
	    !sbi->used_dirs || !sbi->reserved)
		return -ENOMEM;
	return 0;
}

int ext4_groups_load(struct ext4_sb *sbi)
{
	struct group_sums sums = { 0 };
	u32 ahead = 0;
	int error;

	if (!sbi->desc_per_block || !sbi->groups ||
	    (u64)sbi->gdb_count * sbi->desc_per_block < sbi->groups)
		return desc_bad(sbi, 0, "impossible number of descriptor blocks",
				sbi->gdb_count, -EFSCORRUPTED);
	error = alloc_tables(sbi);
	for (u32 n = 0; !error && n < sbi->gdb_count; n++) {
		ahead = gdb_readahead(sbi, n, ahead);
		error = load_gdb(sbi, n, &sums);
	}
	if (!error)
		error = alloc_counters(sbi, &sums);
	if (error)
		ext4_groups_free(sbi);
	return error;
}

void ext4_groups_free(struct ext4_sb *sbi)
{
	struct ext4_alloc *al = sbi->alloc;

	for (u32 n = 0; sbi->gdb && n < sbi->gdb_count; n++)
		buffer_put(sbi->gdb[n]);
	free(sbi->gdb);
	sbi->gdb = NULL;
	/* Claims; and after an abort the callbacks may not have run for all. */
	for (group_t g = 0; sbi->group_info && g < sbi->groups; g++) {
		free(sbi->group_info[g].runs);
		free(sbi->group_info[g].held_blocks);
		free(sbi->group_info[g].pending_inodes);
	}
	free(sbi->group_info);
	sbi->group_info = NULL;
	if (sbi->group_locks)
		for (u32 i = 0; i < GROUP_LOCKS; i++)
			spin_destroy(&sbi->group_locks->l[i].lock);
	free(sbi->group_locks);
	sbi->group_locks = NULL;
	if (al) {
		for (u32 i = 0; i < EXT4_INIT_LOCKS; i++)
			mutex_destroy(&al->init_lock[i]);
		mutex_destroy(&al->trim_lock);
		ext4_space_free(sbi);
		counter_free(al->avail);
		free(al->group_blocks);
		free(al->group_longest);
		free(al->group_inodes);
		free(al);
	}
	sbi->alloc = NULL;
	counter_free(sbi->free_blocks);
	counter_free(sbi->free_inodes);
	counter_free(sbi->used_dirs);
	counter_free(sbi->reserved);
	sbi->free_blocks = sbi->free_inodes = sbi->used_dirs = NULL;
	sbi->reserved = NULL;
}
