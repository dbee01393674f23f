/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/alloc_internal.h - what group.c, syszone.c, freespace.c, balloc.c and
 * ialloc.c share
 *
 * Locks: init_lock (by group; RANK_BUFFER) -> group lock -> lock of a claim.
 * The init lock makes one thread at a time build an uninitialised bitmap of a
 * group, or move the watermark of its inode table into a new block.
 */
#ifndef SLUICE_FS_ALLOC_INTERNAL_H
#define SLUICE_FS_ALLOC_INTERNAL_H

#include "fs/ext4.h"
#include "fs/free_runs.h"

enum ext4_group_flags {
	EXT4_GRP_BBITMAP_CORRUPT = 1u << 0, /* reported; never used again */
	EXT4_GRP_IBITMAP_CORRUPT = 1u << 1,
	EXT4_GRP_BBITMAP_CHECKED = 1u << 2, /* agrees with the free count */
	EXT4_GRP_IBITMAP_CHECKED = 1u << 3,
};

/* Bits [off, off + len) of a group's bitmap: blocks, with bigalloc clusters. "Blocks" are
 * these here, where nothing else is said. */
struct ext4_run {
	u32 off, len;
};

/*
 * All zero until the group is used. Bits in held_blocks are clear in the
 * bitmap, and yet not to be handed out: freed by a transaction that has not
 * committed, or claimed. pending_inodes is the former, for inodes. The maps
 * exist only while they have a bit set; runs may go at any time (and is made
 * anew from the maps).
 */
struct ext4_group_info {
	struct free_runs *runs; /* [group lock] */
	u8 *held_blocks;        /* [group lock] */
	u8 *pending_inodes;     /* [group lock] */
	u32 nr_held_blocks;     /* [group lock] bits set */
	u32 nr_pending_inodes;  /* [group lock] */
	u32 inode_hint;         /* [group lock] no inode below it is to be had */
	u32 trimmed;            /* [group lock] free runs of so many blocks and more are
				   discarded; 0: not known; UINT32_MAX: being done */
	_Atomic u32 flags;      /* [group lock to write, atomic to read]
				   enum ext4_group_flags */
};

/*
 * Free blocks of one group that are kept, in memory only, for one use: the
 * magazine of a CPU, or the window ahead of a file that is being appended to.
 * run.len > 0: it is held in its group, and changes under that group's lock
 * as well. Free for everybody who counts; given back before anybody is told
 * that there is no space.
 */
struct ext4_claim {
	struct spinlock lock;  /* RANK_CACHE_LIST; nothing inside */
	_Atomic ino_nr owner;  /* [lock to write, atomic to read] file of a window, 0: none */
	_Atomic u32 used;      /* [atomic] when last, by claim_clock */
	group_t group;         /* [lock] */
	struct ext4_run run;   /* [lock] */
} __cacheline_aligned;

#define EXT4_INIT_LOCKS 64u
#define EXT4_MAGAZINES_PER_CPU 4u /* by flex group */
#define EXT4_WINDOW_SETS 64u      /* files by number ... */
#define EXT4_WINDOW_WAYS 4u       /* ... and as many of one set at a time */
#define EXT4_WINDOWS (EXT4_WINDOW_SETS * EXT4_WINDOW_WAYS)
#define EXT4_CLAIM_ANY UINT32_MAX /* whoever the owner is */

enum ext4_alloc_stat {
	ALLOC_AT_GOAL,   /* allocations, by where the blocks came from */
	ALLOC_WINDOW,
	ALLOC_MAGAZINE,
	ALLOC_SEARCH,
	ALLOC_BLOCKS,    /* in all of these */
	ALLOC_LOOKS,     /* bitmaps searched beyond the first of an allocation */
	ALLOC_BUSY,      /* groups passed over because their lock was taken */
	ALLOC_DRAINS,    /* all claims given back for want of space */
	ALLOC_STATS
};

struct ext4_alloc {
	struct counter *avail; /* free_blocks - reserved */
	/*
	 * Per group, dense, to pass over full groups quickly: free in the
	 * bitmap and not held; 0 for a corrupt bitmap. And: no free run is
	 * longer than this - 1, 0: not known.
	 * [group lock to write, atomic to read]
	 */
	_Atomic u32 *group_blocks;
	_Atomic u32 *group_longest;
	_Atomic u32 *group_inodes;
	_Atomic u64 pending_blocks; /* [atomic] of all groups */
	_Atomic u64 pending_inodes; /* [atomic] */
	_Atomic u32 release_gen;    /* [atomic] rises when pending space is released */
	_Atomic u32 rotor;          /* [atomic] group where a long search ended */
	_Atomic u32 dir_rotor;      /* [atomic] spreads top-level directories */
	struct mutex init_lock[EXT4_INIT_LOCKS];
	struct mutex trim_lock;     /* unranked: one sl_trim() at a time */
	_Atomic u64 trims_begun;    /* [atomic] runs that it held, or looked for */
	_Atomic u64 trims_done;     /* [atomic] of them; key of ext4_trim_wait() */

	/* freespace.c */
	struct ext4_claim *magazine; /* nr_magazines of them */
	struct ext4_claim *window;   /* EXT4_WINDOWS */
	u32 nr_magazines;            /* [const] */
	u32 magazine_blocks;         /* [const] in a full one */
	u32 small_blocks;            /* [const] most that one request takes */
	u64 claims_max;              /* [const] blocks in all claims */
	s64 claims_floor;            /* [const] no claims below this avail */
	_Atomic u64 claimed;         /* [atomic] blocks in claims */
	_Atomic u32 drainers;        /* [atomic] while not 0, nothing is claimed */
	_Atomic u32 claim_clock;     /* [atomic] */
	u32 max_runs;                /* [const] groups with a summary */
	_Atomic u32 nr_runs;         /* [atomic] */
	_Atomic u32 runs_hand;       /* [atomic] next group to lose its summary */
	struct counter *stat[ALLOC_STATS];
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

/* As ext4_group_lock(), if it is free: then true. */
bool ext4_group_trylock(struct ext4_sb *sbi, group_t g);

/* ---- syszone.c ---- */
/* First system zone that overlaps [pos, end), cut to it; false: none. */
bool ext4_syszone_next(const struct ext4_sb *sbi, pblk_t pos, pblk_t end,
		       pblk_t *zstart, pblk_t *zend);

/* ---- freespace.c ---- */
int __must_check ext4_space_init(struct ext4_sb *sbi); /* after group_info */
void ext4_space_free(struct ext4_sb *sbi);

/*
 * Holds back a run, or ends that: the bits and the summary, no counts. Group
 * lock held. *spare (ext4_held_bytes(), zeroed) becomes the group's map if it
 * has none; then *spare is NULL. ext4_space_trim(): a map without bits, taken
 * off the group, for free() after the unlock; else NULL.
 */
size_t ext4_held_bytes(const struct ext4_sb *sbi);
void ext4_space_hold(struct ext4_sb *sbi, group_t g, struct ext4_run r, u8 **spare);
void ext4_space_unhold(struct ext4_sb *sbi, group_t g, struct ext4_run r);
u8 *ext4_space_trim(struct ext4_group_info *gi);
/* The bitmap changed; group lock held. */
void ext4_space_touch(struct ext4_sb *sbi, group_t g, struct ext4_run r);
/* *spare, to be freed, becomes the summary of g, which has none. Group lock held. */
void ext4_space_install(struct ext4_sb *sbi, group_t g, struct free_runs **spare);
/* Memory for a summary, before the group is locked. NULL: none. */
struct free_runs *ext4_space_new_runs(struct ext4_sb *sbi);

/* The magazine of this CPU for files near group hint. */
struct ext4_claim *ext4_magazine(struct ext4_sb *sbi, group_t hint);
/* The magazine for files near hint, of any CPU, whose front is there; or NULL. */
struct ext4_claim *ext4_magazine_at(struct ext4_sb *sbi, group_t hint, group_t g,
				    u32 off);
/* The window of file ino; NULL if it has none. get: makes one, at the cost of
 * the window that was used longest ago (still NULL, rarely). No lock held. */
struct ext4_claim *ext4_window_find(struct ext4_sb *sbi, ino_nr ino);
struct ext4_claim *ext4_window_get(struct ext4_sb *sbi, ino_nr ino);
/* What c holds now for owner (0: a magazine; EXT4_CLAIM_ANY); len 0: nothing. */
struct ext4_run ext4_claim_peek(struct ext4_claim *c, ino_nr owner, group_t *g);
/* Under the lock of g: what c holds there for owner is free again. */
void ext4_claim_give(struct ext4_sb *sbi, struct ext4_claim *c, ino_nr owner, group_t g);
/* Under the lock of g: if r is the front of what c holds there, it is free again,
 * for the caller to take before the unlock; the rest stays. */
bool ext4_claim_use(struct ext4_sb *sbi, struct ext4_claim *c, ino_nr owner,
		    group_t g, struct ext4_run r);
/* Under the lock of g: holds a free run, if c has nothing and there is enough
 * for all. *spare as in ext4_space_hold(); NULL will do if the group has a map. */
void ext4_claim_take(struct ext4_sb *sbi, struct ext4_claim *c, ino_nr owner,
		     group_t g, struct ext4_run r, u8 **spare);
/* As ext4_claim_give(), wherever that is; no group lock held. */
void ext4_claim_drop(struct ext4_sb *sbi, struct ext4_claim *c, ino_nr owner);
/* Everybody's. The caller has raised al->drainers. */
void ext4_claims_drain(struct ext4_sb *sbi);

/* ---- balloc.c ---- */
/* What one call frees in one group; lives until the commit, and then until its
 * discard, if there is to be one. */
struct ext4_free_batch {
	struct commit_cb cb;
	struct cds_list_head link; /* [discarder's lock] */
	struct ext4_sb *sbi;
	group_t group;
	struct ext4_run run;
};
/* The blocks may be allocated again; frees fb. */
void ext4_free_batch_release(struct ext4_free_batch *fb);
/*
 * Does what memory knows of free space agree with the bitmaps? While nobody
 * allocates or frees. NULL, or what does not; a bitmap that can't be read is
 * passed over.
 */
const char *ext4_balloc_check(struct ext4_sb *sbi);

/*
 * For trim.c: holds the next free run of g in [*pos, end) of at least min blocks, at
 * most max (or max and a rest below min), as if it waited for a commit; *pos goes behind
 * it. 1; 0: there is none; or a negative errno. Sleeps for the bitmap.
 */
int __must_check ext4_hold_free_run(struct ext4_sb *sbi, group_t g, u32 *pos, u32 end,
				    u32 min, u32 max, struct ext4_run *r);
void ext4_unhold_run(struct ext4_sb *sbi, group_t g, struct ext4_run r);
/* False: nothing was freed in g since all runs of min blocks were discarded. Else _end
 * notes that they were, if all of the group was gone through. */
bool ext4_trim_begin(struct ext4_sb *sbi, group_t g, u32 min);
void ext4_trim_end(struct ext4_sb *sbi, group_t g, u32 min);
/* trim.c: until the run that sl_trim() holds now, if any, is free. As ext4_discard_wait(),
 * which calls it. */
void ext4_trim_wait(struct ext4_sb *sbi);

/* Builds the block bitmap of a BLOCK_UNINIT group inside h (2 credits). The
 * group's init lock is held. Nothing to do: 0. Reports nothing: a wrong free
 * count (-EFSCORRUPTED) is met again when a block is allocated there. */
int __must_check ext4_bbitmap_init_locked(struct handle *h, struct ext4_sb *sbi,
					  group_t g);

/* ---- discard.c ---- */
/* A committed batch: to be discarded, then released. The commit thread, or any. */
void ext4_discard_queue(struct ext4_discarder *d, struct ext4_free_batch *fb);

#endif
