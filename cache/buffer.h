/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/buffer.h - metadata buffer cache: blocks of the volume by block number
 *
 * Found under RCU in a resizable hash table; no lock on a hit. A buffer is
 * read once (a second reader waits) and checked once by its type's verify():
 * after that its content is trusted. A block asked for as another type or
 * with another seed than it was checked for is checked again, so that a
 * hostile image that uses one block twice is caught.
 *
 * Content is protected by what owns it (directory i_rwsem, i_data_sem, group
 * lock), and by b_lock where several owners share a block (inode tables,
 * xattr blocks). It changes only inside a journal handle that has write
 * access to the buffer (fs/journal/journal.h).
 *
 * Alive:   b_count > 0. The journal holds a reference on each buffer in it.
 * Reclaim: LRUs by zone with second chance; only buffers with b_count 0.
 * Locks:   LRU list lock (RANK_CACHE_LIST); b_lock RANK_BUFFER.
 * Never:   I/O by itself: misses go through sb->s_backing_ops.
 */
#ifndef SLUICE_CACHE_BUFFER_H
#define SLUICE_CACHE_BUFFER_H

#include "cache/super.h"
#include "lib/lock.h"
#include "lib/rcu.h"

struct buffer;
struct journal_head; /* fs/journal */
struct mem_chunk;

struct buffer_type {
	const char *name; /* for messages: "inode table", "directory", ... */
	/*
	 * Checks a block just read: checksum and every bound that code relies
	 * on later. 0, -EFSCORRUPTED, -EFSBADCRC; must log nothing (the reader
	 * reports with inode and position). May be NULL.
	 */
	int (*verify)(struct super_block *sb, const struct buffer *b,
		      const void *data, u32 seed);
	/*
	 * Puts the checksum into the image that goes to the journal. Called
	 * while nobody changes the block. May be NULL.
	 */
	void (*freeze)(struct super_block *sb, pblk_t blk, void *data, u32 seed);
};

enum buffer_state {
	BUF_UPTODATE = 1u << 0,  /* content valid */
	BUF_READING = 1u << 1,   /* being read; wait_event on the buffer */
	BUF_REFERENCED = 1u << 2,
	BUF_LRU = 1u << 3,
	BUF_DETACHED = 1u << 4,  /* no longer found by lookups */
	BUF_IO_ERROR = 1u << 5,  /* last read failed */
	BUF_READAHEAD = 1u << 6, /* first read was a readahead */
};

struct buffer {
	struct cds_lfht_node b_node; /* [rcu] */
	struct super_block *b_sb;    /* [const] */
	pblk_t b_blocknr;            /* [const] */
	u8 *b_data;                  /* s_blocksize bytes, aligned to it [const] */
	struct mem_chunk *b_chunk;   /* where b_data came from [const] */
	const struct buffer_type *_Atomic b_type; /* [b_lock to change] last verified as */
	_Atomic u32 b_seed;                       /* [b_lock to change] checksum seed */
	_Atomic u32 b_verify_seq;    /* [b_lock to change] odd while the two change */
	_Atomic u32 b_count;         /* [atomic] references */
	_Atomic u32 b_state;         /* [atomic] enum buffer_state */
	struct mutex b_lock;         /* content, where owners share the block */
	struct spinlock b_jlock;     /* b_jh; RANK_JH */
	struct journal_head *b_jh;   /* [b_jlock] owned by the journal */
	struct cds_list_head b_lru;  /* [LRU list lock] */
	struct rcu_head b_rcu;
};

int __must_check bcache_create(struct super_block *sb);
/* All buffers must be unreferenced (else logged as a bug, and freed). */
void bcache_destroy(struct super_block *sb);

/*
 * The block, read and verified as `type` with `seed`; referenced. Sleeps.
 * 0, -EIO, -ENOMEM, -ENXIO, or what verify() says (the buffer is dropped then,
 * unless it passed before as another type: its content may be newer than disk).
 * Takes b_lock for a check that was not made yet.
 */
int __must_check buffer_read(struct super_block *sb, pblk_t blk,
			     const struct buffer_type *type, u32 seed,
			     struct buffer **out);
/*
 * A block just allocated: zeroed, up to date, not read from disk; referenced.
 * What the cache held of this block number is replaced: another object is found
 * from now on, the old one is detached. 0 or -ENOMEM.
 */
int __must_check buffer_get_zeroed(struct super_block *sb, pblk_t blk,
				   const struct buffer_type *type, u32 seed,
				   struct buffer **out);
/* Cached and up to date, referenced; else NULL. No I/O. */
struct buffer *buffer_find(struct super_block *sb, pblk_t blk);
/* The same, if it was checked as `type` with this seed (or made so); else NULL. */
struct buffer *buffer_find_checked(struct super_block *sb, pblk_t blk,
				   const struct buffer_type *type, u32 seed);
/* As buffer_find(), but it does not make the block worth keeping. */
struct buffer *buffer_peek(struct super_block *sb, pblk_t blk);
/*
 * RCU read side held, to which the buffer is good: cached, up to date, checked as
 * `type` with `seed`, and noted as wanted already; else NULL. No reference, no
 * store. Its content may be changing.
 */
const struct buffer *buffer_peek_rcu(struct super_block *sb, pblk_t blk,
				     const struct buffer_type *type, u32 seed);
/* Another reference for one who has one. */
void buffer_get(struct buffer *b);
/* NULL is allowed. Never sleeps. The last reference takes the LRU lock
 * (RANK_CACHE_LIST): hold no lock that ranks there or inside (JH, JOURNAL). */
void buffer_put(struct buffer *b);
/* The block was freed: lookups find it no more; memory goes with the last
 * reference. Idempotent. */
void buffer_detach(struct buffer *b);
/* Starts reading [blk, blk+nr) where not cached (at most 128 blocks are
 * taken); verified at first use. Never waits for I/O; errors are ignored. */
void buffer_readahead(struct super_block *sb, pblk_t blk, u32 nr);
/* Drops every unreferenced buffer (after recovery, drop_caches). */
void bcache_drop(struct super_block *sb);

#endif
