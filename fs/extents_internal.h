/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/extents_internal.h - what the files of the extent tree share
 *
 * A path is the chain of nodes from the root in i_block (level 0) to a leaf
 * (level `depth`), with the entry taken in each. It is valid while i_data_sem
 * is held without a break, and until the first insertion or removal.
 *
 *   extents.c          walking, ext4_map_blocks(), ext4_map_create()
 *   extents_insert.c   making room: splits, growth, merging
 *   extents_convert.c  unwritten -> written
 *   extents_remove.c   truncate and punch
 *   extents_shift.c    collapsed and inserted ranges
 *   extents_check.c    what is believed of a block read from disk
 *   indirect.c         the block maps of ext2 and ext3: lookup and removal
 *   indirect_alloc.c   ... and what is entered into them
 *
 * Locks: i_data_sem, by the public functions; all here run inside it.
 * Source: ext4-format brief section 6; Documentation/filesystems/ext4/ifork.rst.
 */
#ifndef SLUICE_FS_EXTENTS_INTERNAL_H
#define SLUICE_FS_EXTENTS_INTERNAL_H

#include "fs/ext4.h"
#include <assert.h>
#include <stdatomic.h>
#include <string.h>

#define EXT_LEVELS (EXT4_EXT_MAX_DEPTH + 1)
#define EXT_ENTRY_BYTES 12u
/* The first block that no file has. */
#define EXT_LBLK_END ((u64)LBLK_MAX + 1)

/* Credits that every step leaves in the handle: the inode, and a little for
 * what the caller does next (orphan list, size). */
#define EXT_SLACK_CREDITS 8u
/* A removal step frees data in at most this many groups ... */
#define EXT_REMOVE_GROUPS 4u
/* ... and revokes at most this many blocks of data. */
#define EXT_REMOVE_REVOKES 64u

/* One extent, decoded. */
struct ext {
	lblk_t lblk;
	u32 len;
	pblk_t pblk;
	bool unwritten;
};

struct ext_node {
	struct buffer *b;              /* referenced; NULL: the root */
	struct ext4_extent_header *eh; /* in b's memory, or i_block */
	int pos;   /* entry taken: the last with key <= block looked for; leaf: -1 for none */
	u64 bound; /* all keys of the node are below this */
};

struct ext_path {
	struct ext4_inode *ei;
	u32 depth;
	struct ext_node n[EXT_LEVELS];
};

/* Blocks for new nodes, allocated before anything is changed. */
struct ext_room {
	u32 nr, used;
	pblk_t blk[EXT_LEVELS];
	struct buffer *b[EXT_LEVELS]; /* with create access; NULL before ext_room_buffers() */
};

/* ---- entries ---- */

static inline u32 eh_entries(const struct ext4_extent_header *eh)
{
	return le16_to_cpu(eh->eh_entries);
}
static inline u32 eh_max(const struct ext4_extent_header *eh)
{
	return le16_to_cpu(eh->eh_max);
}
static inline u32 eh_depth(const struct ext4_extent_header *eh)
{
	return le16_to_cpu(eh->eh_depth);
}
static inline void eh_set_entries(struct ext4_extent_header *eh, u32 n)
{
	eh->eh_entries = cpu_to_le16((u16)n);
}
static inline struct ext4_extent_header *ext_root(struct ext4_inode *ei)
{
	return (struct ext4_extent_header *)(void *)ei->i_block;
}
static inline struct ext4_extent_header *ext_buffer_header(const struct buffer *b)
{
	return (struct ext4_extent_header *)(void *)b->b_data;
}
/* The leaf entry or index entry i; both are 12 bytes and begin with the key. */
static inline struct ext4_extent *ext_leaf(const struct ext4_extent_header *eh, u32 i)
{
	return (struct ext4_extent *)(uintptr_t)(eh + 1) + i;
}
static inline struct ext4_extent_idx *ext_idx(const struct ext4_extent_header *eh, u32 i)
{
	return (struct ext4_extent_idx *)(uintptr_t)(eh + 1) + i;
}
static inline lblk_t ext_key(const struct ext4_extent_header *eh, u32 i)
{
	return le32_to_cpu(ext_idx(eh, i)->ei_block);
}
static inline pblk_t ext_idx_pblk(const struct ext4_extent_idx *ix)
{
	return le32_to_cpu(ix->ei_leaf_lo) | (pblk_t)le16_to_cpu(ix->ei_leaf_hi) << 32;
}

static inline struct ext ext_get(const struct ext4_extent_header *eh, u32 i)
{
	const struct ext4_extent *x = ext_leaf(eh, i);
	u32 len = le16_to_cpu(x->ee_len);
	bool unwritten = len > EXT4_EXT_INIT_MAX_LEN;

	return (struct ext){
		.lblk = le32_to_cpu(x->ee_block),
		.len = unwritten ? len - EXT4_EXT_INIT_MAX_LEN : len,
		.pblk = le32_to_cpu(x->ee_start_lo) |
			(pblk_t)le16_to_cpu(x->ee_start_hi) << 32,
		.unwritten = unwritten,
	};
}
static inline void ext_encode(struct ext4_extent *x, const struct ext *e)
{
	u32 len = e->unwritten ? e->len + EXT4_EXT_INIT_MAX_LEN : e->len;

	x->ee_block = cpu_to_le32(e->lblk);
	x->ee_len = cpu_to_le16((u16)len);
	x->ee_start_hi = cpu_to_le16((u16)(e->pblk >> 32));
	x->ee_start_lo = cpu_to_le32((u32)e->pblk);
}
static inline void ext_set(struct ext4_extent_header *eh, u32 i, const struct ext *e)
{
	ext_encode(ext_leaf(eh, i), e);
}
static inline u64 ext_end(const struct ext *e)
{
	return (u64)e->lblk + e->len;
}
static inline u32 ext_len_limit(bool unwritten)
{
	return unwritten ? EXT4_EXT_UNWRITTEN_MAX_LEN : EXT4_EXT_INIT_MAX_LEN;
}
/* Could b, which follows a, be one extent with it? */
static inline bool ext_mergeable(const struct ext *a, const struct ext *b)
{
	return a->unwritten == b->unwritten && ext_end(a) == b->lblk &&
	       a->pblk + a->len == b->pblk &&
	       a->len + b->len <= ext_len_limit(a->unwritten);
}

/* EXTENTS_FL changes with i_rwsem and i_data_sem held exclusively, and wb_lock
 * (map_migrate.c); other flags may at any time. */
static inline bool ext_inode_has_extents(const struct ext4_inode *ei)
{
	return atomic_load_explicit(&ei->vfs.i_flags, memory_order_relaxed) & EXT4_EXTENTS_FL;
}

/* Entries of a node that fills a block. */
static inline u32 ext_block_max(const struct super_block *sb)
{
	return (sb->s_blocksize - (u32)sizeof(struct ext4_extent_header)) / EXT_ENTRY_BYTES;
}

/*
 * Of a block to be verified: is it in the cache as somebody else's? Content is
 * protected by its one owner's lock; a block that a hostile image gives to two
 * must not come to be changed under both. (No sound volume leads here: a block
 * that changes hands is detached when freed, and replaced when taken.)
 */
static inline bool ext_block_claimed(const struct buffer *b,
				     const struct buffer_type *type, u32 seed)
{
	const struct buffer_type *had = atomic_load(&b->b_type);

	return had && (had != type || atomic_load(&b->b_seed) != seed);
}

/* ---- extents_check.c ---- */
extern const struct buffer_type ext4_extent_block_type;
/*
 * Does the block just read at level `level` fit where the index entry points
 * to it? (Depth one less than its parent's, first key the entry's, all below
 * the next entry's.) Reported; -EFSCORRUPTED.
 */
int __must_check ext_check_child(const struct ext_path *p, u32 level,
				 const struct buffer *b, lblk_t key);

/* ---- extents.c ---- */
/* Path to the leaf where lblk belongs. On error nothing is held. */
int __must_check ext_find(struct ext4_inode *ei, lblk_t lblk, struct ext_path *p)
	REQUIRES_SHARED(&ei->i_data_sem);
/* The last extent that has a block in [from, to), from < to; out->len 0: none has. */
int __must_check ext_last_in(struct ext4_inode *ei, u64 from, u64 to, struct ext *out)
	REQUIRES_SHARED(&ei->i_data_sem);
/* Of a data extent: has lblk the same place in its cluster as pblk? Reported. */
int __must_check ext_check_aligned(struct ext4_inode *ei, lblk_t lblk, pblk_t pblk);
void ext_path_put(struct ext_path *p);
static inline struct ext_node *ext_path_leaf(struct ext_path *p)
{
	return &p->n[p->depth];
}
/* Most blocks a step that inserts one extent changes in a tree of this depth:
 * the path, a new node at each level and one for growth, bitmaps for those. */
static inline u32 ext_insert_step_credits(u32 depth)
{
	return depth + (depth + 1) * (1 + EXT4_ALLOC_CREDITS);
}
/*
 * Makes sure of credits, with EXT_SLACK_CREDITS to spare. 1: the handle was
 * restarted (the inode written before), i_data_sem was dropped: start again.
 */
int __must_check ext_ensure(struct handle *h, struct ext4_inode *ei, u32 blocks,
			    u32 revokes) REQUIRES(&ei->i_data_sem);
/* The restart alone. 1, or negative errno. */
int __must_check ext_restart(struct handle *h, struct ext4_inode *ei, u32 blocks,
			     u32 revokes) REQUIRES(&ei->i_data_sem);

/* ---- extents_insert.c ---- */
/* Write access to the path's buffers of levels [top, bottom]; of the root it is that to the
 * inode's table block, so that blocks are not freed that the disk's root goes on to name. */
int __must_check ext_access(struct handle *h, struct ext_path *p, u32 top, u32 bottom);
/* The highest level that changes if an extent is inserted after the leaf's pos. */
u32 ext_insert_top(const struct ext_path *p);
void ext_dirty(struct handle *h, struct ext_path *p, u32 level);
/* The first key of the node at `level` changed: tells the ancestors (to which
 * there is access). */
void ext_fix_keys(struct handle *h, struct ext_path *p, u32 level);
/* Takes entries [i, i+nr) out of a node; does not mark it dirty. */
void ext_cut(struct ext4_extent_header *eh, u32 i, u32 nr);
/* New nodes needed to insert one entry into the path's leaf. */
u32 ext_room_needed(const struct ext_path *p);
/* Allocates their blocks; -ENOSPC, -EAGAIN: none are held. alloc_flags are added. */
int __must_check ext_room_alloc(struct handle *h, struct ext_path *p, u32 alloc_flags,
				struct ext_room *room);
/* And their buffers; on error the room is as after ext_room_alloc(). */
int __must_check ext_room_buffers(struct handle *h, struct ext_path *p,
				  struct ext_room *room);
/* Gives an unused room's blocks back. */
void ext_room_undo(struct handle *h, struct ext4_inode *ei, struct ext_room *room);
/* All of the above for one insertion after the leaf's pos: access, blocks, buffers. */
int __must_check ext_insert_prepare(struct handle *h, struct ext_path *p,
				    struct ext_room *room);
/* Inserts after the leaf's pos, using up the room (i_blocks included). The
 * path is stale then. Cannot fail. */
void ext_insert(struct handle *h, struct ext_path *p, const struct ext *e,
		struct ext_room *room);
/* The extent e at the leaf's pos becomes two of the same blocks, the second from block
 * `at` on. The path is stale then. -ENOSPC, -EAGAIN, ...: nothing was changed. */
int __must_check ext_split(struct handle *h, struct ext_path *p, const struct ext *e, u64 at);
/* If leaf entries i and i+1 can be one: makes them so. Not marked dirty. */
bool ext_merge_pair(struct ext4_extent_header *eh, u32 i);

/* ---- extents_remove.c ---- */
/*
 * After the reference to them is gone from the tree: frees a block of the tree
 * itself (b: its buffer, whose reference is consumed), or a run of data; i_blocks
 * falls. An error is reported: the blocks are lost then, never used twice.
 */
int __must_check ext_free_node(struct handle *h, struct ext4_inode *ei, struct buffer *b);
int __must_check ext_free_data(struct handle *h, struct ext4_inode *ei, pblk_t blk,
			       u32 len, u32 flags);
enum ext_free_flags {
	EXT_FREE_FORGET = 1u << 0,     /* revoke each block */
	EXT_FREE_KEEP_FIRST = 1u << 1, /* the first cluster of the run has other blocks of */
	EXT_FREE_KEEP_LAST = 1u << 2,  /* the file in it, or the last: it stays */
};
/* Longest run of data that one removal step may free. */
u32 ext_remove_cap(const struct ext4_sb *sbi, bool forget);
/* The highest level that changes when the first key of the node at `level` does. */
u32 ext_key_top(const struct ext_path *p, u32 level);
/* Groups that [blk, blk+len) touches. */
static inline u32 ext_groups_of(const struct ext4_sb *sbi, pblk_t blk, u32 len)
{
	return ext4_block_group(sbi, blk + len - 1) - ext4_block_group(sbi, blk) + 1;
}
/*
 * While the root has a single child of at most `most` entries (that fit):
 * takes them into the root and frees the child. Stops silently if credits
 * cannot be had without a restart.
 */
int __must_check ext_fold(struct handle *h, struct ext4_inode *ei, u32 most)
	REQUIRES(&ei->i_data_sem);

/* ---- relocate.c ---- */
#define EXT_COPY_BYTES (512u << 10)
/* From one place of the volume to another, by buf (EXT_COPY_BYTES, by io_alloc()). 0, -EIO, ... */
int __must_check ext_copy_blocks(struct ext4_sb *sbi, pblk_t from, pblk_t to, u32 len,
				 void *buf);

/* ---- indirect.c ---- */
#define IND_NDIR 12u
#define IND_LEVELS 3u
extern const struct buffer_type ext4_indirect_block_type;

/* What the tree with `levels` levels of indirect blocks spans; levels 0 stands for
 * the direct blocks. */
struct ind_tree {
	u64 first, span;
	u32 levels;
};

static inline u32 ind_per_block(const struct super_block *sb)
{
	return sb->s_blocksize / (u32)sizeof(le32);
}
static inline le32 *ind_slots(struct ext4_inode *ei)
{
	return (le32 *)(void *)ei->i_block;
}
/* The one where lblk belongs; the last if it is beyond what a map can hold. */
struct ind_tree ind_tree_of(const struct super_block *sb, u64 lblk);
int __must_check ind_bread(struct ext4_inode *ei, pblk_t blk, struct buffer **out);
/* For the numbers in i_block, which no verify() checks. */
int __must_check ind_check(struct ext4_inode *ei, pblk_t blk, u32 len);
int __must_check ext4_ind_map_blocks(struct ext4_inode *ei, struct ext4_map *map)
	REQUIRES_SHARED(&ei->i_data_sem);
int __must_check ext4_ind_remove(struct handle *h, struct ext4_inode *ei, lblk_t start,
				 u64 end, bool forget) REQUIRES(&ei->i_data_sem);

/* ---- indirect_alloc.c ---- */
/* Of one step: three new indirect blocks, or the one that changes; bitmaps of those
 * and of the data. */
#define IND_STEP_CREDITS (IND_LEVELS + (IND_LEVELS + 1) * EXT4_ALLOC_CREDITS)

/* Entries of the map that a run of new blocks will get. */
struct ind_slot {
	struct buffer *b; /* referenced, with write access in the handle; NULL: i_block */
	le32 *e;          /* the first of them */
};

/* In how many of [lblk, lblk+*nr) the block that lblk's number stands in, is one: cuts
 * *nr, and says whether that block (with all above it) exists. */
int __must_check ind_exists(struct ext4_inode *ei, lblk_t lblk, u32 *nr, bool *exists)
	REQUIRES_SHARED(&ei->i_data_sem);
/*
 * The indirect blocks for lblk, as far as they are missing: allocated, empty, part of the
 * map. alloc_flags are the allocator's. -ENOSPC, -EAGAIN, ...: nothing was changed.
 */
int __must_check ind_make(struct handle *h, struct ext4_inode *ei, lblk_t lblk,
			  u32 alloc_flags) REQUIRES(&ei->i_data_sem);
/*
 * Blocks for the hole at lblk: at most *len, as far as one array of the map reaches.
 * They are allocated, but not entered: the missing indirect blocks are made. flags: enum
 * ext4_create_flags. -ENOSPC, -EAGAIN, -EFBIG, ...: nothing was changed.
 */
int __must_check ind_take(struct handle *h, struct ext4_inode *ei, lblk_t lblk, u32 flags,
			  u32 *len, pblk_t *pblk, struct ind_slot *slot)
	REQUIRES(&ei->i_data_sem);
/* Enters them; in between i_data_sem may have been dropped, if nobody else was to fill
 * or to remove these entries. -EFSCORRUPTED: somebody did, by a map that leads here twice. */
int __must_check ind_enter(struct handle *h, struct ext4_inode *ei,
			   const struct ind_slot *slot, pblk_t pblk, u32 len)
	REQUIRES(&ei->i_data_sem);
void ind_slot_put(struct ind_slot *slot);
/* ext4_map_create(), for block maps: entered at once. */
int __must_check ext4_ind_create(struct handle *h, struct ext4_inode *ei,
				 struct ext4_map *map, u32 flags)
	REQUIRES(&ei->i_data_sem);

#endif
