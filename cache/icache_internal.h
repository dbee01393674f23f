/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/icache_internal.h - what the files of the inode cache share
 *
 * The tree. One shard per 2^18 inode numbers, made when first needed; in it 64
 * runs of 4096 numbers with a lock each, a node of 64 leaves, and leaves of 64
 * slots: three steps from any number to its slot, always. Two inodes share a
 * tree lock only if their numbers lie in one run, half a block group or less
 * with the usual 8192 inodes in a group. A slot is a 64-bit value:
 *
 *     0                 nothing
 *     bit 0 clear       struct inode *
 *     bit 0 set         shadow, see icache.c
 *
 * Tags. A leaf has a bit map of its slots for each tag, a node one of its
 * leaves, and the tree one of its runs (tagged_runs: a word per shard). A bit
 * is set as long as one below it is, so a walk for a tag steps over what does
 * not have it, 2^18 numbers at a time. Whether a slot has a tag is decided
 * under i_lock and also stands in i_state (I_TAG_*), so that the run lock is
 * taken when it changes and not otherwise.
 *
 * Readers are under RCU. The run lock guards every store below the run, and
 * the run's bits in tagged_runs. A node whose last slot empties is unlinked
 * under that lock and freed a grace period later (a reader in it finds empty
 * slots, which was true when it was unlinked).
 *
 * Locks:   i_lock -> one of { run lock, list lock of sb_iter.c }
 * Alive:   nodes, until a grace period after they were unlinked.
 */
#ifndef SLUICE_CACHE_ICACHE_INTERNAL_H
#define SLUICE_CACHE_ICACHE_INTERNAL_H

#include "cache/icache.h"

struct budget;
struct ic_shard;
struct spinlock;

enum inode_tag {
	INODE_TAG_DIRTY,       /* dirty, or being written out */
	INODE_TAG_RECLAIMABLE, /* unused and clean when last put */
	INODE_TAG_DONTCACHE,
	INODE_TAGS,
	INODE_TAG_NONE = INODE_TAGS, /* for walks: whatever is there */
};

struct ic_tree {
	struct budget *budget;            /* [const] nodes are charged to it */
	ino_nr max_ino;                   /* [const] */
	u32 nr_shards;                    /* [const] */
	struct ic_shard *_Atomic *shards; /* [rcu, set once] */
	_Atomic u64 *tagged_runs[INODE_TAGS]; /* [rcu, write run lock] */
};

int __must_check ic_tree_init(struct ic_tree *t, struct budget *budget,
			      ino_nr max_ino);
/* Frees all nodes; what inodes they still hold are leaked (they are in use). */
void ic_tree_destroy(struct ic_tree *t);

/* The slot of ino, 1 <= ino <= max_ino; 0 if there is none. RCU read side. */
u64 ic_tree_get(const struct ic_tree *t, ino_nr ino);
/* The slots of the 64 numbers from ino & ~63 on, to be loaded with acquire; NULL:
 * all are empty. ino <= max_ino. RCU read side. */
const _Atomic u64 *ic_tree_slots(const struct ic_tree *t, ino_nr ino);
/*
 * Puts `v` into the slot of ino; *old gets what was there. An inode there stays
 * and so does, unless replace_shadow, a shadow: -EEXIST. Else 0 or -ENOMEM.
 * With the run lock held calls `before(priv, old)`, if it is going to store.
 */
int __must_check ic_tree_insert(struct ic_tree *t, ino_nr ino, u64 v,
				bool replace_shadow, u64 *old,
				void (*before)(void *priv, u64 old), void *priv);
/* The lock of a slot that is not empty, or was not. */
struct spinlock *ic_tree_lock_of(struct ic_tree *t, ino_nr ino);
/* Stores over a slot that is not empty; all its tags go. That lock is held. */
void ic_tree_set_locked(struct ic_tree *t, ino_nr ino, u64 v);
/* The inode is in its slot, and i_lock, held, keeps it there. */
void ic_tree_tag(struct ic_tree *t, ino_nr ino, enum inode_tag tag, bool on);

/*
 * The first slot at or after *ino that is not empty and has the tag: true, and
 * *ino is its number, *v its content (which may be 0, if it was emptied just
 * now). False: there is none up to max_ino, or `steps` came to 0; *ino is then
 * where to go on, above max_ino at the end. RCU read side.
 */
bool ic_tree_next(const struct ic_tree *t, u64 *ino, enum inode_tag tag, u64 *v,
		  u32 *steps);
/*
 * The same for as many as `max` slots of one leaf (at least one): how many values are
 * in v, none of them 0, and *ino is behind the last slot that was looked at. That may
 * be 0 although there is more: the end is an *ino above max_ino.
 */
u32 ic_tree_next_many(const struct ic_tree *t, u64 *ino, enum inode_tag tag, u64 *v,
		      u32 max, u32 *steps);

#define SHADOW_TAG 1u

static inline bool is_shadow(u64 v)
{
	return v & SHADOW_TAG;
}

static inline struct inode *slot_inode(u64 v)
{
	return (struct inode *)(uintptr_t)v;
}

static inline u64 inode_slot(const struct inode *inode)
{
	return (u64)(uintptr_t)inode;
}

static inline u32 inode_state(const struct inode *inode)
{
	return atomic_load_explicit(&inode->i_state, memory_order_acquire);
}

/* In no state to be given to anybody. */
#define I_BUSY (I_NEW | I_FREEING | I_BAD | I_UNHASHED)

/*
 * A reference for a walk, if the inode is usable and fits the flags
 * (INO_ITER_F_*); nobody's second chance is touched. RCU read side held, no
 * lock. A tag that turns out stale is taken off.
 */
bool inode_grab_for_walk(struct inode *inode, u32 flags);
/* The same question, without a lock: an answer of the moment. */
bool inode_fits_walk(const struct inode *inode, u32 flags);

struct ic_tree *icache_tree(struct super_block *sb);

#endif
