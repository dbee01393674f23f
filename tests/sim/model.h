/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/sim/model.h - a plain POSIX tree with its history and its promises
 *
 * One model follows one thread's directory, operation by operation. It says
 * what an operation must return; what the tree looks like after each; what
 * each persistence operation has promised; and, for a power cut, whether a
 * tree that was found could be.
 *
 * Names and attributes, extended ones too: the journal commits in order, so the tree found must
 * be the one after some number of operations, at least all that were promised
 * and at most all that had begun.
 *
 * Data: each byte has some value it had since the last state that was promised
 * (beyond the end counts as zero). A truncation is part of the tree's
 * order: where it must have happened it binds the bytes beyond its size. So is a range
 * that is collapsed or inserted, in whole units of 4 KiB: all behind its start is as it was
 * then, elsewhere.
 *
 * Times: mtime set by utimes is in the tree's order, as modes are. What else
 * may have touched it gave it the time of the run, now or when the inode is
 * written: from then on both will do. ctime and atime are times of the run.
 *
 * Promises: sync, everything before it. fsync, the file's data and all that
 * was done, by anyone in this directory, up to the last change of the inode;
 * fdatasync, the data and what is needed to find it. O_SYNC and O_DSYNC
 * writes, the same after each. Rename over a file: the new file's data.
 *
 * Locks: none.
 */
#ifndef SLUICE_SIM_MODEL_H
#define SLUICE_SIM_MODEL_H

#include "tests/sim/workload.h"
#include <time.h>

struct model;
struct m_inode;

/* sync: every change is durable when it returns. faults: data may be lost.
 * mk: what is not done on such a volume. */
struct model *model_new(bool sync, bool faults, const struct sim_mkfs *mk);
void model_free(struct model *m);

/*
 * What op must return in this state: 0, a byte count for writes, or -errno.
 * Changes nothing.
 */
s64 model_expect(struct model *m, const struct sim_op *op);
/*
 * Op returned result: changes the tree. Every op is to be given, in order;
 * errors change nothing but count as operations. size_after: of a file after a failed
 * fallocate; enum sim_migrated; of a move, which blocks of the donor's range are to read as zero,
 * one bit each (else ignored).
 */
void model_apply(struct model *m, const struct sim_op *op, s64 result, u64 size_after);
u32 model_ops(const struct model *m);

/* Promise of operation k (once applied): that the first n are durable. */
u32 model_promise(const struct model *m, u32 k);
/* Hash of the listing after the first n operations. */
u64 model_hash(const struct model *m, u32 n);

/* ---- listings: one line per name, sorted; see model_line() ---- */
struct listing {
	char **line;
	u32 nr, max;
};
void listing_init(struct listing *l);
void listing_release(struct listing *l);
/* type_mode: st_mode; group: the first path (in order) of the same inode;
 * extra: a link's target, then the extended attributes (sim_xattr_text()), or "". */
void listing_add(struct listing *l, const char *path, u32 type_mode, u32 uid, u32 gid,
		 u32 nlink, const char *extra);
void listing_sort(struct listing *l);
u64 listing_hash(const struct listing *l);
/* What differs, on stderr; a: expected. */
void listing_diff(const struct listing *a, const struct listing *b);
void model_listing(struct model *m, struct listing *l);

/* All names, now; directories before what is in them. */
void model_each_name(struct model *m,
		     void (*fn)(void *priv, const char *path, struct m_inode *inode),
		     void *priv);
struct m_inode *model_slot(struct model *m, u32 slot);
struct m_inode *model_find(struct model *m, const char *path);
u64 m_inode_size(const struct m_inode *inode);
u32 m_inode_mode(const struct m_inode *inode);
/* Content now. */
void m_inode_read(const struct m_inode *inode, u64 off, u8 *buf, u32 len);

/*
 * Could this be the file's content after a power cut? done: operations that
 * had returned; started: that had begun (all applied to the model by now);
 * tree: the number of operations that the tree found must have at least.
 * On false, why says where.
 */
bool m_inode_could_be(const struct m_inode *inode, u32 done, u32 started, u32 tree,
		      u64 size, const u8 *data, char *why, size_t why_len);
/*
 * Could this be the inode's mtime in the tree after `tree` operations, of which
 * `started` had begun? in_run: it is a time at which the run was under way.
 */
bool m_inode_mtime_could_be(const struct m_inode *inode, u32 started, u32 tree,
			    const struct timespec *mtime, bool in_run);
/* A write error was told that may concern any file: nothing is promised of
 * their data any more. */
void model_lose_data(struct model *m);
bool m_inode_is_lost(const struct m_inode *inode);

#endif
