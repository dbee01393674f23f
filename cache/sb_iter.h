/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/sb_iter.h - walks over the inodes of a volume that are in memory
 *
 * Every walk over all inodes goes through one of these two functions.
 *
 * What holds of a walk, whatever finds the inodes (tests/unit/cache/
 * test_sb_iter.c runs on all three):
 *
 *  S1 Names and return codes are those below.
 *  S2 How inodes are found is a table of operations (sb_iter.c): the trees of
 *     the inode cache (`icache`, the product: no list exists), or, to be
 *     compared with, lists by CPU (`percpu`) or one list (`global`). Chosen for
 *     a mount by super_block::s_inode_iter.
 *  S3 An inode that is usable, and fits the flags, from the walk's begin to its
 *     end is visited exactly once. One that comes, goes, or changes meanwhile
 *     is visited once at most, also if it goes and comes back.
 *  S4 super_iter_inodes() calls fn with a reference, no lock held and outside
 *     of RCU: it may sleep. It may take references of its own but must not
 *     drop the walk's. That is dropped after fn, which may sleep, and delete.
 *  S5 super_iter_inodes_unsafe() calls fn in an RCU read-side section: it must
 *     not sleep, and has the inode's existence only. It must look at the state
 *     itself, under i_lock. It may set I_FREEING there and queue the inode to a
 *     list of its own, to be disposed of after the walk; then walk again, until
 *     a walk finds nothing.
 *  S6 INO_ITER_RET_ABORT and errors stop the whole walk.
 *  S7 Shadows are not visited.
 *
 * Locks:   none held by the caller. Threads: any, several walks at once.
 */
#ifndef SLUICE_CACHE_SB_ITER_H
#define SLUICE_CACHE_SB_ITER_H

#include "lib/types.h"

struct inode;
struct super_block;

/* Which inodes; several: all must hold. Asked under i_lock, just before fn, or
 * within a batch of 32 before it. */
enum ino_iter_flags {
	INO_ITER_F_REFERENCED = 1u << 0,  /* somebody else has a reference */
	INO_ITER_F_DIRTY = 1u << 1,       /* dirty, or being written out */
	INO_ITER_F_RECLAIMABLE = 1u << 2, /* unused, clean, linked */
	INO_ITER_F_DONTCACHE = 1u << 3,   /* I_DONTCACHE */
};

/* What fn returns: one of these, or a negative errno. */
enum ino_iter_ret {
	INO_ITER_RET_CONT = 0,
	INO_ITER_RET_ABORT = 1, /* enough: the walk ends, with 0 */
};

typedef int (*ino_iter_fn)(struct inode *inode, void *priv);

/*
 * Calls fn(inode, priv) for each usable inode that fits; inodes that are being
 * read or torn down are skipped. 0, or the error that fn returned. Sleeps.
 */
int super_iter_inodes(struct super_block *sb, ino_iter_fn fn, void *priv, u32 flags);
/* The same for all that are in memory, in whatever state; see S5. */
void super_iter_inodes_unsafe(struct super_block *sb, ino_iter_fn fn, void *priv);

/* "icache", "percpu" or "global". */
const char *super_iter_name(const struct super_block *sb);

/* ---- for icache.c ---- */

/* As sb->s_inode_iter says. 0, -ENOMEM. destroy: no inode is left on a list that
 * will be looked at again. */
int __must_check sb_iter_create(struct super_block *sb);
void sb_iter_destroy(struct super_block *sb);
/* The inode was entered into its slot, just now; still I_NEW and the caller's. */
void sb_iter_add(struct inode *inode);
/* It is about to leave its slot. i_lock held. */
void sb_iter_del_locked(struct inode *inode);

#endif
