/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/alloc_internal.h - what group.c, syszone.c, balloc.c and ialloc.c share
 *
 * Locks: init_lock (by group; RANK_BUFFER) -> group lock. The init lock makes
 * one thread at a time build an uninitialised bitmap of a group, or move the
 * watermark of its inode table into a new block.
 */
#ifndef SLUICE_FS_ALLOC_INTERNAL_H
#define SLUICE_FS_ALLOC_INTERNAL_H

#include "fs/ext4.h"

enum ext4_group_flags {
	EXT4_GRP_BBITMAP_CORRUPT = 1u << 0, /* reported; never used again */
	EXT4_GRP_IBITMAP_CORRUPT = 1u << 1,
	EXT4_GRP_BBITMAP_CHECKED = 1u << 2, /* agrees with the free count */
	EXT4_GRP_IBITMAP_CHECKED = 1u << 3,
};

/*
 * All zero until the group is used. The pending maps have a bit for what was
 * freed by a transaction not yet committed: clear in the bitmap, and yet not
 * to be handed out. They exist only while they have a bit set.
 */
struct ext4_group_info {
	u8 *pending_blocks;    /* [group lock] */
	u8 *pending_inodes;    /* [group lock] */
	u32 nr_pending_blocks; /* [group lock] bits set */
	u32 nr_pending_inodes; /* [group lock] */
	u32 max_run;           /* [group lock] no free run is longer than
				  max_run - 1; 0: not known */
	u32 flags;             /* [group lock] enum ext4_group_flags */
};

#define EXT4_INIT_LOCKS 64u

struct ext4_alloc {
	struct counter *avail; /* free_blocks - reserved */
	/*
	 * Per group, dense, to pass over full groups quickly: free in the
	 * bitmap and not pending; 0 for a corrupt bitmap.
	 * [group lock to write, atomic to read]
	 */
	_Atomic u32 *group_blocks;
	_Atomic u32 *group_inodes;
	_Atomic u64 pending_blocks; /* [atomic] of all groups */
	_Atomic u64 pending_inodes; /* [atomic] */
	_Atomic u32 release_gen;    /* [atomic] rises when pending space is released */
	_Atomic u32 rotor;          /* [atomic] group where a long search ended */
	_Atomic u32 dir_rotor;      /* [atomic] spreads top-level directories */
	struct mutex init_lock[EXT4_INIT_LOCKS];
};

static inline struct mutex *ext4_init_lock(struct ext4_sb *sbi, group_t g)
{
	return &sbi->alloc->init_lock[g % EXT4_INIT_LOCKS];
}

/* ---- group.c ---- */
static inline bool ext4_has_group_csum(const struct ext4_sb *sbi)
{
	return sbi->has_csum || sbi->has_gdt_csum;
}
/* bg_flags; 0 where the format gives them no meaning. */
u32 ext4_gd_flags(const struct ext4_sb *sbi, const struct ext4_group_desc *gd);
void ext4_gd_clear_flag(struct ext4_group_desc *gd, u32 flag);
/* Checksum of a bitmap into its descriptor, or compared; group lock held. */
void ext4_gd_bbitmap_csum_set(struct ext4_sb *sbi, struct ext4_group_desc *gd,
			      const void *map);
void ext4_gd_ibitmap_csum_set(struct ext4_sb *sbi, struct ext4_group_desc *gd,
			      const void *map);
bool ext4_gd_bbitmap_csum_ok(const struct ext4_sb *sbi,
			     const struct ext4_group_desc *gd, const void *map);
bool ext4_gd_ibitmap_csum_ok(const struct ext4_sb *sbi,
			     const struct ext4_group_desc *gd, const void *map);
/* From now on the bitmap is left alone; its free space counts as used. Takes
 * the group lock. True the first time: who gets that reports it. */
bool ext4_group_bbitmap_corrupt(struct ext4_sb *sbi, group_t g);
bool ext4_group_ibitmap_corrupt(struct ext4_sb *sbi, group_t g);
/* Blocks at the start of g taken by superblock and descriptors. */
u32 ext4_group_head_blocks(const struct ext4_sb *sbi, group_t g);

/* ---- syszone.c ---- */
/* First system zone that overlaps [pos, end), cut to it; false: none. */
bool ext4_syszone_next(const struct ext4_sb *sbi, pblk_t pos, pblk_t end,
		       pblk_t *zstart, pblk_t *zend);

/* ---- balloc.c ---- */
/* Builds the block bitmap of a BLOCK_UNINIT group inside h (2 credits). The
 * group's init lock is held. Nothing to do: 0. Reports nothing: a wrong free
 * count (-EFSCORRUPTED) is met again when a block is allocated there. */
int __must_check ext4_bbitmap_init_locked(struct handle *h, struct ext4_sb *sbi,
					  group_t g);

#endif
