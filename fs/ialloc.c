/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/ialloc.c - inode allocation: bitmaps, inode tables, choice of the group
 *
 * As with blocks, an inode freed by a transaction that has not committed has
 * its bit clear in the bitmap and set in the group's pending map.
 *
 * The watermark. With group checksums a descriptor says how many inodes at
 * the end of its table were never used (itable_unused); those table blocks
 * may hold anything. All bits beyond the watermark are clear, so the first
 * clear bit is at or before it. When the inode at the watermark is the first
 * of a table block, that whole block is made afresh, as zeroes, in the handle
 * that moves the watermark; after that the block is read like any other. Only
 * a holder of the group's init lock moves the watermark into a new block.
 *
 *      used or freed inodes  | never used: garbage until the block is zeroed
 *     |......................|.................................|
 *     0                   watermark                     inodes_per_group
 *
 * Choice of the group (4.6): a directory goes where there are many free inodes
 * and blocks and few directories, near its parent unless that is the root;
 * anything else goes into its parent's group, then the parent's flex group,
 * then by quadratic steps, then anywhere.
 *
 * Locks:   init lock (by group) -> group lock
 * Never:   a report with one of these locks held
 * Source:  ext4-format brief 4.4, 4.6, 11.6. Next: balloc.c
 */
#include "fs/alloc_internal.h"

#include <assert.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/bitmap.h"
#include "lib/mem.h"

#define ITABLE_READAHEAD (32u * 1024) /* bytes of inode table read together */
#define DIR_CANDIDATES 64u /* flex groups compared for a top-level directory */

/* ---- watermark and bitmaps ---- */

/* First index in g's table that was never used; group lock held. */
static u32 watermark(const struct ext4_sb *sbi, const struct ext4_group_desc *gd)
{
	u32 unused;

	if (!ext4_has_group_csum(sbi))
		return sbi->inodes_per_group;
	if (ext4_gd_flags(sbi, gd) & EXT4_BG_INODE_UNINIT)
		return 0;
	unused = ext4_gd_itable_unused(sbi, gd);
	return sbi->inodes_per_group - min_of(unused, sbi->inodes_per_group);
}

static int ibitmap_verify(struct super_block *sb, const struct buffer *b,
			  const void *data, u32 seed)
{
	struct ext4_sb *sbi = EXT4_SB(sb);
	u32 ipg = sbi->inodes_per_group;
	struct ext4_group_desc *gd;
	int error = 0;

	if (seed >= sbi->groups)
		return -EFSCORRUPTED;
	/* With the lock: map and checksum belong together. */
	ext4_group_lock(sbi, seed);
	gd = ext4_group_desc(sbi, seed, NULL);
	if (ext4_gd_inode_bitmap(sbi, gd) != b->b_blocknr)
		error = -EFSCORRUPTED;
	else if (!ext4_gd_ibitmap_csum_ok(sbi, gd, data))
		error = -EFSBADCRC;
	else if (bm_find_set(data, watermark(sbi, gd), ipg) != ipg)
		error = -EFSCORRUPTED;
	else if (seed == 0 && bm_find_clear(data, 0, min_of(sbi->first_ino - 1,
							    ipg)) <
				      min_of(sbi->first_ino - 1, ipg))
		error = -EFSCORRUPTED; /* a reserved inode is free */
	ext4_group_unlock(sbi, seed);
	return error;
}

/* seed: group number */
static const struct buffer_type ibitmap_type = {
	.name = "inode bitmap",
	.verify = ibitmap_verify,
};

/* Each inode has a checksum of its own, which read_inode checks. */
static const struct buffer_type itable_type = { .name = "inode table" };

static int ibitmap_bad(struct ext4_sb *sbi, group_t g, ino_nr ino, pblk_t blk,
		       const char *what)
{
	if (!ext4_group_ibitmap_corrupt(sbi, g))
		return -EFSCORRUPTED;
	return ext4_error(sbi, ino, blk, -EFSCORRUPTED,
			  "group %u: %s; its inode bitmap is not used any more",
			  g, what);
}

/* The first look at a bitmap: does it agree with the free count? */
static bool ibitmap_count_ok(struct ext4_sb *sbi, group_t g, const void *map)
{
	struct ext4_group_info *gi = &sbi->group_info[g];
	u32 ipg = sbi->inodes_per_group;
	bool ok = true;

	ext4_group_lock(sbi, g);
	if (!(gi->flags & EXT4_GRP_IBITMAP_CHECKED)) {
		ok = ipg - bm_weight(map, 0, ipg) ==
		     ext4_gd_free_inodes(sbi, ext4_group_desc(sbi, g, NULL));
		if (ok)
			gi->flags |= EXT4_GRP_IBITMAP_CHECKED;
	}
	ext4_group_unlock(sbi, g);
	return ok;
}

/* As bbitmap_load() in balloc.c. */
static int ibitmap_load(struct ext4_sb *sbi, group_t g, struct buffer **out)
{
	struct ext4_group_desc *gd = ext4_group_desc(sbi, g, NULL);
	struct buffer *b;
	int error;

	error = ext4_bread(sbi, ext4_gd_inode_bitmap(sbi, gd), 0, &ibitmap_type,
			   g, &b);
	if (error) {
		if (error != -ENOMEM)
			ext4_group_ibitmap_corrupt(sbi, g);
		return error;
	}
	if (!ibitmap_count_ok(sbi, g, b->b_data)) {
		pblk_t blk = b->b_blocknr;

		buffer_put(b);
		return ibitmap_bad(sbi, g, 0, blk,
				   "free count and inode bitmap disagree");
	}
	*out = b;
	return 0;
}

/* ---- one group ---- */

enum ibitmap_state { IB_NORMAL, IB_UNINIT, IB_CORRUPT };

static enum ibitmap_state ibitmap_state(struct ext4_sb *sbi, group_t g)
{
	enum ibitmap_state st = IB_NORMAL;

	ext4_group_lock(sbi, g);
	if (sbi->group_info[g].flags & EXT4_GRP_IBITMAP_CORRUPT)
		st = IB_CORRUPT;
	else if (ext4_gd_flags(sbi, ext4_group_desc(sbi, g, NULL)) &
		 EXT4_BG_INODE_UNINIT)
		st = IB_UNINIT;
	ext4_group_unlock(sbi, g);
	return st;
}

/* First index in g that may be given to a file. */
static u32 first_index(const struct ext4_sb *sbi, group_t g)
{
	u64 before = (u64)g * sbi->inodes_per_group;
	u64 first = sbi->first_ino - 1;

	return first > before ? (u32)(first - before) : 0;
}

/* Free index in map, group lock held; inodes_per_group if there is none. */
static u32 find_index(const struct ext4_sb *sbi, group_t g, const void *map)
{
	struct ext4_group_info *gi = &sbi->group_info[g];
	u32 i = bm_find_clear_or(map, gi->pending_inodes,
				 max_of(first_index(sbi, g), gi->inode_hint),
				 sbi->inodes_per_group);

	gi->inode_hint = i;
	return i;
}

/* Would taking index i make its table block the newest one? Group lock held. */
static bool opens_block(const struct ext4_sb *sbi,
			const struct ext4_group_desc *gd, u32 i)
{
	u32 mark = watermark(sbi, gd);

	return i >= mark && i - i % sbi->inodes_per_block >= mark;
}

/* Group lock held; the caller found bit i clear. False: counts contradict. */
static bool take_index(struct ext4_sb *sbi, group_t g, void *map, u32 i,
		       bool is_dir)
{
	struct ext4_group_desc *gd = ext4_group_desc(sbi, g, NULL);
	u32 nr_free = ext4_gd_free_inodes(sbi, gd);
	u32 left = sbi->inodes_per_group - i - 1;

	if (!nr_free)
		return false;
	bm_set(map, i);
	ext4_gd_set_free_inodes(sbi, gd, nr_free - 1);
	if (is_dir)
		ext4_gd_set_used_dirs(sbi, gd, ext4_gd_used_dirs(sbi, gd) + 1);
	if (ext4_has_group_csum(sbi) && ext4_gd_itable_unused(sbi, gd) > left)
		ext4_gd_set_itable_unused(sbi, gd, left);
	ext4_gd_ibitmap_csum_set(sbi, gd, map);
	ext4_gd_csum_set(sbi, g, gd);
	atomic_fetch_sub(&sbi->alloc->group_inodes[g], 1);
	return true;
}

/* A new table block for index i of g, all zero, with access in h. */
static int table_block_open(struct handle *h, struct ext4_sb *sbi, group_t g,
			    u32 i, struct buffer **out)
{
	struct ext4_group_desc *gd = ext4_group_desc(sbi, g, NULL);
	struct buffer *b;
	int error;

	error = buffer_get_zeroed(&sbi->s, ext4_gd_inode_table(sbi, gd) +
				  i / sbi->inodes_per_block, &itable_type, 0, &b);
	if (error)
		return error;
	error = handle_get_create_access(h, b);
	if (error) {
		buffer_detach(b);
		buffer_put(b);
		return error;
	}
	*out = b;
	return 0;
}

/*
 * The first inode of an INODE_UNINIT group: makes its bitmap (and its block
 * bitmap, as the kernel does) and the first table block. The init lock keeps
 * others out until the flag is clear, which is after everything is there.
 */
static int alloc_uninit_locked(struct handle *h, struct ext4_sb *sbi, group_t g,
			       bool is_dir, u8 *map, u32 *index)
{
	struct buffer *gdb, *b, *table;
	struct ext4_group_desc *gd = ext4_group_desc(sbi, g, &gdb);
	u32 ipg = sbi->inodes_per_group;
	u32 i = first_index(sbi, g);
	bool ok;
	int error;

	if (ibitmap_state(sbi, g) != IB_UNINIT)
		return -EAGAIN;
	if (i >= ipg)
		return -ENOSPC;
	/* An uninitialised group has every inode free, reserved ones too. */
	if (i || ext4_gd_free_inodes(sbi, gd) != ipg)
		return -EFSCORRUPTED;
	memset(map, 0, sbi->s.s_blocksize);
	bm_set_range(map, ipg, sbi->s.s_blocksize * 8 - ipg);

	/* A bad block bitmap costs the group's blocks, not its inodes; it is
	 * told when a block is wanted. */
	error = ext4_bbitmap_init_locked(h, sbi, g);
	if (error && error != -EFSCORRUPTED)
		return error;
	error = buffer_get_zeroed(&sbi->s, ext4_gd_inode_bitmap(sbi, gd),
				  &ibitmap_type, g, &b);
	if (error)
		return error;
	error = handle_get_create_access(h, b);
	if (!error)
		error = handle_get_write_access(h, gdb);
	if (!error)
		error = table_block_open(h, sbi, g, i, &table);
	if (error) {
		buffer_detach(b);
		goto out_put;
	}
	ext4_group_lock(sbi, g);
	memcpy(b->b_data, map, sbi->s.s_blocksize);
	ext4_gd_clear_flag(gd, EXT4_BG_INODE_UNINIT);
	sbi->group_info[g].flags |= EXT4_GRP_IBITMAP_CHECKED;
	ok = take_index(sbi, g, b->b_data, i, is_dir);
	ext4_group_unlock(sbi, g);
	assert(ok); /* the count was ipg */
	handle_dirty(h, b);
	handle_dirty(h, gdb);
	handle_dirty(h, table);
	buffer_put(table);
	*index = i;
out_put:
	buffer_put(b);
	return error;
}

static int alloc_uninit(struct handle *h, struct ext4_sb *sbi, group_t g,
			bool is_dir, u32 *index)
{
	struct mutex *lock = ext4_init_lock(sbi, g);
	u8 *map = malloc(sbi->s.s_blocksize);
	int error;

	if (!map)
		return -ENOMEM;
	mutex_lock(lock);
	error = alloc_uninit_locked(h, sbi, g, is_dir, map, index);
	mutex_unlock(lock);
	free(map);
	if (error == -EFSCORRUPTED) {
		(void)ibitmap_bad(sbi, g, 0, 0,
				  "free inodes of an uninitialised group are wrong");
		return -ENOSPC;
	}
	return error;
}

/*
 * Takes the first free index if its table block is in use already. -EAGAIN:
 * *index is the first of a table block never used; nothing was changed.
 */
static int take_free_index(struct ext4_sb *sbi, group_t g, void *map,
			   bool is_dir, u32 *index)
{
	struct ext4_group_info *gi = &sbi->group_info[g];
	int error = 0;
	u32 i;

	ext4_group_lock(sbi, g);
	i = find_index(sbi, g, map);
	if ((gi->flags & EXT4_GRP_IBITMAP_CORRUPT) || i >= sbi->inodes_per_group)
		error = -ENOSPC;
	else if (opens_block(sbi, ext4_group_desc(sbi, g, NULL), i))
		error = -EAGAIN;
	else if (!take_index(sbi, g, map, i, is_dir))
		error = -EFSCORRUPTED;
	ext4_group_unlock(sbi, g);
	*index = i;
	return error;
}

/*
 * The same, opening the next table block if need be. With the init lock held
 * the watermark is ours to move: the index found at it stays free while the
 * block is made.
 */
static int open_and_take_locked(struct handle *h, struct ext4_sb *sbi,
				group_t g, void *map, bool is_dir, u32 *index)
{
	struct buffer *table;
	int error;
	bool ok;

	error = take_free_index(sbi, g, map, is_dir, index);
	if (error != -EAGAIN)
		return error;
	error = table_block_open(h, sbi, g, *index, &table);
	if (error)
		return error;
	ext4_group_lock(sbi, g);
	ok = take_index(sbi, g, map, *index, is_dir);
	ext4_group_unlock(sbi, g);
	if (ok)
		handle_dirty(h, table);
	buffer_put(table);
	return ok ? 0 : -EFSCORRUPTED;
}

static int alloc_normal(struct handle *h, struct ext4_sb *sbi, group_t g,
			struct buffer *b, bool is_dir, u32 *index)
{
	struct mutex *lock = ext4_init_lock(sbi, g);
	struct buffer *gdb;
	int error;

	ext4_group_desc(sbi, g, &gdb);
	error = handle_get_write_access(h, b);
	if (!error)
		error = handle_get_write_access(h, gdb);
	if (error)
		return error;
	error = take_free_index(sbi, g, b->b_data, is_dir, index);
	if (error == -EAGAIN) {
		mutex_lock(lock);
		error = open_and_take_locked(h, sbi, g, b->b_data, is_dir, index);
		mutex_unlock(lock);
	}
	if (error == -EFSCORRUPTED) {
		(void)ibitmap_bad(sbi, g, 0, b->b_blocknr,
				  "fewer free inodes than the bitmap has");
		return -ENOSPC;
	}
	if (error)
		return error;
	handle_dirty(h, b);
	handle_dirty(h, gdb);
	return 0;
}

/* 0: *ino is taken. -ENOSPC: look elsewhere. Anything else ends the search. */
static int alloc_in_group(struct handle *h, struct ext4_sb *sbi, group_t g,
			  bool is_dir, ino_nr *ino)
{
	struct buffer *b;
	u32 index = 0;
	int error = -EAGAIN;

	if (!atomic_load(&sbi->alloc->group_inodes[g]))
		return -ENOSPC;
	if (ibitmap_state(sbi, g) == IB_UNINIT)
		error = alloc_uninit(h, sbi, g, is_dir, &index);
	if (error == -EAGAIN) {
		if (ibitmap_state(sbi, g) == IB_CORRUPT)
			return -ENOSPC;
		error = ibitmap_load(sbi, g, &b);
		if (error) /* reported */
			return error == -ENOMEM ? error : -ENOSPC;
		error = alloc_normal(h, sbi, g, b, is_dir, &index);
		buffer_put(b);
	}
	if (error)
		return error;
	*ino = (ino_nr)(g * sbi->inodes_per_group + index + 1);
	counter_add(sbi->free_inodes, -1);
	if (is_dir)
		counter_add(sbi->used_dirs, 1);
	return 0;
}

/* ---- choice of the group ---- */

struct flex_stats {
	u64 inodes, blocks, dirs;
};

static u32 flex_size(const struct ext4_sb *sbi)
{
	u32 bits = sbi->log_groups_per_flex;

	return bits && bits < 31 ? 1u << bits : 1;
}

static u32 free_inodes_of(const struct ext4_sb *sbi, group_t g)
{
	return atomic_load_explicit(&sbi->alloc->group_inodes[g],
				    memory_order_relaxed);
}

static u32 free_blocks_of(const struct ext4_sb *sbi, group_t g)
{
	return atomic_load_explicit(&sbi->alloc->group_blocks[g],
				    memory_order_relaxed);
}

static struct flex_stats flex_stats(struct ext4_sb *sbi, group_t flex)
{
	group_t g = flex * flex_size(sbi);
	group_t end = (group_t)min_of((u64)g + flex_size(sbi), (u64)sbi->groups);
	struct flex_stats st = { 0 };

	for (; g < end; g++) {
		st.inodes += free_inodes_of(sbi, g);
		st.blocks += free_blocks_of(sbi, g);
		ext4_group_lock(sbi, g);
		st.dirs += ext4_gd_used_dirs(sbi, ext4_group_desc(sbi, g, NULL));
		ext4_group_unlock(sbi, g);
	}
	return st;
}

static u64 average(s64 sum, u32 n)
{
	return sum > 0 ? (u64)sum / n : 0;
}

/* A flex group for a directory below the root: of the first few that are
 * emptier than the average, the one with the fewest directories. */
static bool spread_dir(struct ext4_sb *sbi, u32 nflex, group_t *flex)
{
	u64 avg_inodes = average(counter_read_fast(sbi->free_inodes), nflex);
	u64 avg_blocks = average(counter_read_fast(sbi->free_blocks), nflex);
	u32 turn = atomic_fetch_add(&sbi->alloc->dir_rotor, 1);
	group_t f = (group_t)(((u64)(u32)(turn * 2654435761u) * nflex) >> 32);
	u64 best = UINT64_MAX;

	for (u32 i = 0; i < min_of(nflex, DIR_CANDIDATES); i++) {
		struct flex_stats st = flex_stats(sbi, f);

		if (st.inodes && st.inodes >= avg_inodes &&
		    st.blocks >= avg_blocks && st.dirs < best) {
			best = st.dirs;
			*flex = f;
		}
		if (++f == nflex)
			f = 0;
	}
	return best != UINT64_MAX;
}

/* A flex group near the parent's that is not crowded. */
static bool near_dir(struct ext4_sb *sbi, u32 nflex, group_t parent,
		     group_t *flex)
{
	u64 full_inodes = (u64)sbi->inodes_per_group * flex_size(sbi);
	u64 full_blocks = (u64)sbi->clusters_per_group * flex_size(sbi);
	u64 inodes = average(counter_read_fast(sbi->free_inodes), nflex);
	u64 blocks = average(counter_read_fast(sbi->free_blocks), nflex);
	u64 dirs = average(counter_read_fast(sbi->used_dirs), nflex);
	group_t f = parent;

	inodes = inodes > full_inodes / 4 ? inodes - full_inodes / 4 : 1;
	blocks = blocks > full_blocks / 4 ? blocks - full_blocks / 4 : 0;
	dirs += full_inodes / 16;
	for (u32 i = 0; i < min_of(nflex, DIR_CANDIDATES); i++) {
		struct flex_stats st = flex_stats(sbi, f);

		if (st.inodes >= inodes && st.blocks >= blocks && st.dirs <= dirs) {
			*flex = f;
			return true;
		}
		if (++f == nflex)
			f = 0;
	}
	return false;
}

/* Group to begin with for a directory. */
static group_t dir_group(struct ext4_sb *sbi, const struct ext4_inode *parent)
{
	u32 size = flex_size(sbi);
	u32 nflex = (sbi->groups + size - 1) / size;
	group_t flex = parent->i_group / size;
	group_t home = flex;
	bool top = parent->vfs.i_ino == EXT4_ROOT_INO ||
		   (parent->vfs.i_flags & EXT4_TOPDIR_FL);

	if (!(top && spread_dir(sbi, nflex, &flex)) &&
	    !near_dir(sbi, nflex, home, &flex))
		return parent->i_group;
	return flex == home && !top ? parent->i_group : flex * size;
}

struct picker {
	struct handle *h;
	struct ext4_sb *sbi;
	bool is_dir;
	ino_nr *ino;
};

static int pick(const struct picker *p, group_t g, bool need_blocks)
{
	if (!free_inodes_of(p->sbi, g) ||
	    (need_blocks && !free_blocks_of(p->sbi, g)))
		return -ENOSPC;
	return alloc_in_group(p->h, p->sbi, g, p->is_dir, p->ino);
}

/* start, its flex group, by quadratic steps, then all. */
static int pick_from(const struct picker *p, group_t start)
{
	u32 groups = p->sbi->groups;
	u32 size = flex_size(p->sbi);
	group_t base = start - start % size;
	u32 span = min_of(size, groups - base);
	u64 g = start;
	int error;

	for (u32 i = 0; i < span; i++) {
		error = pick(p, base + (start - base + i) % span, true);
		if (error != -ENOSPC)
			return error;
	}
	for (u32 step = 1; step < groups; step <<= 1) {
		g = (g + step) % groups;
		error = pick(p, (group_t)g, true);
		if (error != -ENOSPC)
			return error;
		if (step > groups / 2)
			break;
	}
	for (u32 i = 0; i < groups; i++) {
		error = pick(p, (group_t)(((u64)start + i) % groups), false);
		if (error != -ENOSPC)
			return error;
	}
	return -ENOSPC;
}

int ext4_alloc_ino(struct handle *h, struct ext4_inode *dir, u32 mode,
		   ino_nr *out)
{
	struct ext4_sb *sbi = ext4_sb_of(dir);
	struct picker p = {
		.h = h,
		.sbi = sbi,
		.is_dir = S_ISDIR(mode),
		.ino = out,
	};
	group_t start = p.is_dir ? dir_group(sbi, dir) : dir->i_group;
	u32 gen = atomic_load(&sbi->alloc->release_gen);
	int error;

	error = pick_from(&p, start < sbi->groups ? start : 0);
	/* In this order: see ext4_alloc_blocks(). */
	if (error == -ENOSPC && (atomic_load(&sbi->alloc->pending_inodes) ||
				 gen != atomic_load(&sbi->alloc->release_gen)))
		error = -EAGAIN;
	return error;
}

/* ---- freeing ---- */

struct ino_batch {
	struct commit_cb cb;
	struct ext4_sb *sbi;
	group_t group;
	u32 index;
};

/* After the commit, or an abort (then it only frees memory). */
static void ino_batch_done(struct commit_cb *cb, int error)
{
	struct ino_batch *ib = container_of_type(cb, struct ino_batch, cb);
	struct ext4_sb *sbi = ib->sbi;
	struct ext4_group_info *gi = &sbi->group_info[ib->group];
	u8 *unused = NULL;

	ext4_group_lock(sbi, ib->group);
	bm_clear(gi->pending_inodes, ib->index);
	gi->inode_hint = min_of(gi->inode_hint, ib->index);
	if (!--gi->nr_pending_inodes) {
		unused = gi->pending_inodes;
		gi->pending_inodes = NULL;
	}
	if (!(gi->flags & EXT4_GRP_IBITMAP_CORRUPT))
		atomic_fetch_add(&sbi->alloc->group_inodes[ib->group], 1);
	ext4_group_unlock(sbi, ib->group);
	atomic_fetch_add(&sbi->alloc->release_gen, 1);
	atomic_fetch_sub(&sbi->alloc->pending_inodes, 1);
	free(unused);
	free(ib);
}

/* Group lock held. NULL, or what is wrong (nothing was changed). */
static const char *release_index(struct ext4_sb *sbi, group_t g, void *map,
				 u32 i, bool is_dir, u8 **spare)
{
	struct ext4_group_info *gi = &sbi->group_info[g];
	struct ext4_group_desc *gd = ext4_group_desc(sbi, g, NULL);
	u32 nr_free = ext4_gd_free_inodes(sbi, gd);
	u32 dirs = ext4_gd_used_dirs(sbi, gd);

	if (!bm_test(map, i))
		return "inode to be freed is free already";
	if (nr_free >= sbi->inodes_per_group)
		return "more free inodes than the group has";
	if (is_dir && !dirs)
		return "more directories freed than the group has";
	if (!gi->pending_inodes) {
		gi->pending_inodes = *spare;
		*spare = NULL;
	}
	bm_set(gi->pending_inodes, i);
	gi->nr_pending_inodes++;
	bm_clear(map, i);
	ext4_gd_set_free_inodes(sbi, gd, nr_free + 1);
	if (is_dir)
		ext4_gd_set_used_dirs(sbi, gd, dirs - 1);
	ext4_gd_ibitmap_csum_set(sbi, gd, map);
	ext4_gd_csum_set(sbi, g, gd);
	return NULL;
}

/* Everything that can fail, then the change; see free_prepared() in balloc.c.
 * -EAGAIN: *spare is wanted and NULL; nothing was changed. */
static int free_prepared(struct handle *h, struct ext4_sb *sbi, ino_nr ino,
			 bool is_dir, struct buffer *b, struct ino_batch **ib,
			 u8 **spare)
{
	group_t g = (*ib)->group;
	bool corrupt, wanting;
	const char *bad = NULL;
	struct buffer *gdb;
	int error;

	ext4_group_desc(sbi, g, &gdb);
	error = handle_get_write_access(h, b);
	if (!error)
		error = handle_get_write_access(h, gdb);
	if (error)
		return error;

	ext4_group_lock(sbi, g);
	corrupt = sbi->group_info[g].flags & EXT4_GRP_IBITMAP_CORRUPT;
	wanting = !sbi->group_info[g].pending_inodes && !*spare;
	if (!corrupt && !wanting)
		bad = release_index(sbi, g, b->b_data, (*ib)->index, is_dir,
				    spare);
	ext4_group_unlock(sbi, g);
	if (corrupt)
		return 0;
	if (wanting)
		return -EAGAIN;
	if (bad)
		return ibitmap_bad(sbi, g, ino, b->b_blocknr, bad);

	atomic_fetch_add(&sbi->alloc->pending_inodes, 1);
	handle_dirty(h, b);
	handle_dirty(h, gdb);
	handle_on_commit(h, &(*ib)->cb);
	*ib = NULL;
	counter_add(sbi->free_inodes, 1);
	if (is_dir)
		counter_add(sbi->used_dirs, -1);
	return 0;
}

int ext4_free_ino(struct handle *h, struct ext4_sb *sbi, ino_nr ino, bool is_dir)
{
	struct ino_batch *ib;
	struct buffer *b;
	group_t g;
	u8 *spare = NULL;
	int error;

	if (ino < sbi->first_ino || ino > sbi->inodes_count)
		return ext4_error(sbi, ino, 0, -EFSCORRUPTED,
				  "inode to be freed is reserved or does not exist");
	g = ext4_inode_group(sbi, ino);
	switch (ibitmap_state(sbi, g)) {
	case IB_CORRUPT:
		return 0; /* known and reported: stays in use until e2fsck */
	case IB_UNINIT:
		return ibitmap_bad(sbi, g, ino, 0,
				   "inode to be freed is in an uninitialised group");
	case IB_NORMAL:
		break;
	}
	/* Patient: the inode is off the orphan list. */
	ib = malloc_patient(sizeof(*ib));
	if (!ib)
		return -ENOMEM;
	ib->cb.fn = ino_batch_done;
	ib->sbi = sbi;
	ib->group = g;
	ib->index = (ino - 1) % sbi->inodes_per_group;
	error = ibitmap_load(sbi, g, &b);
	if (error)
		goto out_free;
	error = free_prepared(h, sbi, ino, is_dir, b, &ib, &spare);
	/* The first of its group since a commit: the group wants a map of them. */
	if (error == -EAGAIN) {
		spare = calloc_patient(1, DIV_ROUND_UP(sbi->inodes_per_group, 64) * 8);
		error = spare ? free_prepared(h, sbi, ino, is_dir, b, &ib, &spare) :
				-ENOMEM;
	}
	buffer_put(b);
out_free:
	free(spare);
	free(ib);
	return error;
}

/* ---- for those who go through all inodes ---- */

int ext4_ibitmap_copy(struct ext4_sb *sbi, group_t g, void *map, u32 *used)
{
	u32 bytes = DIV_ROUND_UP(sbi->inodes_per_group, 64) * 8;
	struct buffer *b;
	int error;

	*used = 0;
	switch (ibitmap_state(sbi, g)) {
	case IB_UNINIT:
		return 0;
	case IB_CORRUPT:
		return -EFSCORRUPTED; /* reported */
	case IB_NORMAL:
		break;
	}
	error = ibitmap_load(sbi, g, &b);
	if (error)
		return error;
	ext4_group_lock(sbi, g);
	memcpy(map, b->b_data, min_of(bytes, sbi->s.s_blocksize));
	*used = watermark(sbi, ext4_group_desc(sbi, g, NULL));
	ext4_group_unlock(sbi, g);
	buffer_put(b);
	return 0;
}

/* ---- the inode table ---- */

/* What lies around table block tb of g and is in use, if tb isn't cached. */
static void itable_readahead(struct ext4_sb *sbi, group_t g, pblk_t table, u32 tb)
{
	u32 span = sbi->opts.inode_readahead_blks ?
			   sbi->opts.inode_readahead_blks :
			   max_of(ITABLE_READAHEAD >> sbi->s.s_blocksize_bits, 1u);
	struct buffer *b = buffer_find(&sbi->s, table + tb);
	u32 first = tb - tb % span;
	u32 used;

	if (b)
		buffer_put(b);
	if (b || span == 1)
		return;
	ext4_group_lock(sbi, g);
	used = DIV_ROUND_UP(watermark(sbi, ext4_group_desc(sbi, g, NULL)),
			    sbi->inodes_per_block);
	ext4_group_unlock(sbi, g);
	used = min_of(used, sbi->itable_blocks);
	if (first < used)
		buffer_readahead(&sbi->s, table + first, min_of(span, used - first));
}

int ext4_inode_buffer(struct ext4_sb *sbi, ino_nr ino, bool fresh,
		      struct buffer **out, u32 *offset)
{
	pblk_t table;
	group_t g;
	u32 i, tb;

	if (!ino || ino > sbi->inodes_count)
		return ext4_error(sbi, ino, 0, -EFSCORRUPTED,
				  "inode number out of range (1-%u)",
				  sbi->inodes_count);
	g = ext4_inode_group(sbi, ino);
	i = (ino - 1) % sbi->inodes_per_group;
	tb = i / sbi->inodes_per_block;
	table = ext4_gd_inode_table(sbi, ext4_group_desc(sbi, g, NULL));
	*offset = i % sbi->inodes_per_block * sbi->inode_size;
	*out = buffer_find_checked(&sbi->s, table + tb, &itable_type, 0);
	if (*out)
		return 0;
	/* A fresh one: ext4_alloc_ino() has put a block never used before into
	 * the cache, zeroed; the blocks around it are of no use then. */
	if (!fresh)
		itable_readahead(sbi, g, table, tb);
	return ext4_bread(sbi, table + tb, ino, &itable_type, 0, out);
}

int ext4_ino_in_use(struct ext4_sb *sbi, ino_nr ino, bool *used)
{
	struct buffer *b;
	group_t g;
	u32 i;
	int error;

	*used = false;
	if (!ino || ino > sbi->inodes_count)
		return 0;
	g = ext4_inode_group(sbi, ino);
	i = (ino - 1) % sbi->inodes_per_group;
	switch (ibitmap_state(sbi, g)) {
	case IB_UNINIT:
		return 0;
	case IB_CORRUPT:
		return -EFSCORRUPTED; /* reported */
	case IB_NORMAL:
		break;
	}
	error = ibitmap_load(sbi, g, &b);
	if (error)
		return error;
	ext4_group_lock(sbi, g);
	*used = bm_test(b->b_data, i);
	ext4_group_unlock(sbi, g);
	buffer_put(b);
	return 0;
}
