/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/mapping.h - page cache of one file: a radix tree of locked leaves
 *
 * Nodes are 64-ary and walked under RCU; the tree's height grows with the
 * file. A leaf covers 512 blocks; it carries a lock, folio slots (one per
 * block; a folio of several blocks fills several slots) and per-block marks.
 * Small files have small leaves (leaf 0 starts at 16 slots and is replaced by
 * a larger copy when needed).
 *
 * Marks, per block:
 *   DIRTY      newer in memory than on the device
 *   WRITEBACK  on its way; stays until the extent is converted and the inode
 *              says so (end of io_end), so that a reader never goes to disk
 *              for it too early
 *   DELAYED    has a reserved block, none allocated; a mark, not a record,
 *              since it may not be forgotten and must not need memory
 * DIRTY implies a folio, and DELAYED or a place on disk.
 *
 * Records, per leaf: what the extent tree says of runs of its blocks: a hole,
 * unwritten or written from a block of the volume on. No record: unknown, ask
 * the tree. A leaf that has no folios and knows one run from its start is only
 * a value of 64 bits in its parent's slot: 2 MiB of a contiguous file at 4 KiB,
 * or a small file, cost 8 bytes. Records are changed by the code of the extent
 * tree alone, with i_data_sem held: shared to enter what was found,
 * exclusively together with the tree: after it if blocks come or become
 * written, before it if they go. So a record is never older than the tree
 * once i_data_sem is free, and whoever may rely on an extent that he was told
 * (i_rwsem held, or the block under WRITEBACK) may rely on a record. The
 * shrinker may forget any. An allocation that fails makes a record unknown,
 * never wrong.
 *
 * Whole-file operations, and who excludes what (L5):
 *   truncate                 i_rwsem exclusively; i_size falls before
 *                            mapping_invalidate(), with wb_lock held from the wait for
 *                            WRITEBACK until then; the tail is zeroed after; then
 *                            the extents go
 *   evict                    nobody else has the inode: mapping_wait_writeback(),
 *                            mapping_invalidate(), the extents
 *   punch, zero range        i_rwsem exclusively; wait, invalidate, extents, for the
 *                            whole blocks of the range; the parts of blocks at its
 *                            ends are written as by a writer, mapping_zero(), before
 *   preallocate              i_rwsem exclusively; what is dirty is written first;
 *                            data that found no place meanwhile finds its block
 *   copy_file_range          a reader, then a writer; no lock in between
 * Readers of the device and writers hold i_rwsem (shared, or exclusively when
 * extending). mapping_read_cached() and mapping_overwrite() run without it:
 * they look, under the lock of each leaf, at the size and at what is present,
 * and so come wholly before or wholly after the step of a whole-file operation
 * that concerns the leaf. Write-out holds no i_rwsem: it sets WRITEBACK before
 * it looks at extents.
 *
 * Memory: charged to sb->s_budget. Clean folios sit on LRU lists of the
 * super block, by zone, and are dropped by its shrinker; dirty and WRITEBACK ones never.
 * sb->s_dirty_bytes counts blocks that are DIRTY or WRITEBACK.
 * Locks: leaf lock (RANK_LEAF) -> LRU list lock (RANK_CACHE_LIST).
 * Copies to and from folios are made under the leaf lock, 64 KiB at a time at
 * most. Never: I/O or an allocation that waits under a leaf lock.
 */
#ifndef SLUICE_CACHE_MAPPING_H
#define SLUICE_CACHE_MAPPING_H

#include "cache/super.h"
#include "lib/lock.h"
#include "lib/rcu.h"

#define LEAF_BLOCKS 512u
#define LEAF_WORDS (LEAF_BLOCKS / 64)

struct folio;
struct map_list;
struct map_node;
struct region;
struct region_pool;
struct window_set;

/* errseq: bits 0-11 errno, bit 12 seen, rest counts (as the kernel's lib/errseq.c). */
typedef u32 errseq_t;

struct mapping {
	struct inode *m_inode;         /* [const] */
	struct super_block *m_sb;      /* [const] */
	_Atomic u64 m_root;            /* [rcu, write m_lock] as a slot of a node */
	struct spinlock m_lock;        /* tree shape: insert and remove of nodes; RANK_CACHE_LIST */
	_Atomic u32 m_nr_dirty;        /* blocks with DIRTY [atomic] */
	_Atomic u32 m_nr_writeback;    /* blocks with WRITEBACK [atomic]; wait key: the mapping */
	_Atomic u32 m_nr_delayed;      /* blocks with DELAYED [atomic] */
	_Atomic u32 m_nr_folio_blocks; /* blocks present [atomic] */
	_Atomic u32 m_wb_seq;          /* write-outs ended [write leaf lock] */
	_Atomic errseq_t m_wb_err;     /* [atomic] */
	_Atomic u64 m_drop_gen;        /* see mapping_generation() [atomic] */
	struct window_set *_Atomic m_windows; /* window.c; NULL: never one [atomic, set once] */
	/* the shrinker of records */
	struct map_list *_Atomic m_maps; /* it is on, or NULL [atomic] */
	struct cds_list_head m_list;   /* [lock of m_maps] */
	_Atomic u32 m_pins;            /* scans at work; wait key: itself [atomic] */
	_Atomic u32 m_scan_next;       /* leaf where the next scan begins [atomic] */
};

void mapping_init(struct mapping *m, struct inode *inode, struct super_block *sb);
/* All folios must have been invalidated. Frees the nodes. */
void mapping_destroy(struct mapping *m);

/*
 * Copies from the cache. Looks at the bytes [pos, pos+len), len > 0, and takes
 * the longest prefix that lies in one leaf and is wholly present or wholly
 * absent; returns its length (> 0). *cached tells which; if present it was
 * copied to buf, else buf is untouched.
 */
u32 mapping_read(struct mapping *m, u64 pos, void *buf, u32 len, bool *cached);

/*
 * Copies [pos, pos+len), len > 0, if all of it is present and inside i_size,
 * without i_rwsem: one leaf lock for each 64 KiB. False: go the other way, buf
 * may have been touched. The bytes of two leaves may be of different moments.
 *
 * Against truncate (size falls, leaf is emptied, tail is zeroed):
 *   the size is read and the bytes are copied under the leaf lock, so either
 *   before the leaf is emptied (the size may be new or old: old bytes, inside
 *   the old size), or after (the size is new: nothing beyond it is copied). A
 *   zeroed tail is seen only with the size that cut it.
 */
bool __must_check mapping_read_cached(struct mapping *m, u64 pos, void *buf,
				      u32 len);

/*
 * Of the blocks [lblk, lblk+nr), nr > 0, all in one leaf: sets bit i of
 * unknown[] (LEAF_WORDS words, zeroed first) for each block lblk+i that has neither a
 * reservation nor, as far as is known here, a place on disk, and of absent[] (may be NULL) for each without folio. Returns
 * the number of unknown ones.
 */
u32 mapping_query(struct mapping *m, lblk_t lblk, u32 nr, u64 *unknown, u64 *absent);

/*
 * Inserts one block read from disk, or zeroes (data: one block, copied), clean and up to date.
 * A block present already is left alone. 0 or -ENOMEM.
 */
int __must_check mapping_fill(struct mapping *m, lblk_t lblk, const void *data);
/*
 * For whoever reads from the device without excluding writers (i_rwsem
 * shared): between his "absent" and his fill the block may have been written,
 * written out and dropped by the shrinker, and what he read be old. So he
 * samples mapping_generation() before he asks for the extent, and fills with
 * mapping_fill_since(), which fails with -EAGAIN, nothing inserted, if a
 * block that had been written was dropped from the file since (or anything
 * invalidated): look again. As mapping_fill() otherwise. After it, copy with
 * mapping_read(): a block that was there already is newer than the device.
 */
u64 mapping_generation(struct mapping *m);
int __must_check mapping_fill_since(struct mapping *m, lblk_t lblk,
				    const void *data, u64 gen);
/*
 * The same for as many bytes as lie in one leaf, 64 KiB at most, from the start of
 * block lblk: *len of them were entered (blocks that are present left alone).
 * The rest of a last block that is not whole becomes zero.
 */
int __must_check mapping_fill_run_since(struct mapping *m, lblk_t lblk,
					const void *data, u32 *len, u64 gen);

/*
 * Copies [pos, pos+len), all in one leaf, into the cache and marks the blocks
 * dirty. Blocks wholly covered need no folio yet; a partly covered block must be
 * present. A block that is unknown has a place on disk if bit i (relative to the
 * first block touched) of mapped[] is set, else becomes DELAYED, consuming one of
 * *reserved. Stops early (short count) if *reserved runs out (a race with write-out or
 * another writer) or before a partly covered absent block. zero_from: bytes of
 * the first and last block beyond what was there are the caller's matter.
 * Returns bytes copied (may be 0), or -ENOMEM. The caller marks the inode dirty.
 * i_size grows with what was copied, under the leaf lock, so that write-out
 * never takes a block beyond the size it sees.
 */
s64 __must_check mapping_write(struct mapping *m, u64 pos, const void *src, u32 len,
			       const u64 *mapped, u32 *reserved);
/*
 * The same of memory in a region that the caller holds. Absent blocks that make up
 * whole pages of it become folios where they are: the caller must not change them any
 * more. What was not written (short count, error) he may try again from where it is, and
 * not change while the region has parts.
 */
s64 __must_check mapping_write_region(struct mapping *m, u64 pos, struct region *region,
				      void *src, u32 len, const u64 *mapped,
				      u32 *reserved);

/*
 * Overwrites [pos, pos+len), all in one leaf, of a file that ends at or after
 * `end`, without i_rwsem: one leaf lock for each 64 KiB. Every block must be
 * present and have a reservation or a place on disk. Returns the bytes copied:
 * if fewer than len, write all of it the other way. The caller marks the inode
 * dirty.
 *
 * What may happen at the same time, and why it is right. All is decided under
 * the leaf lock:
 *   truncate lowered the size before:  seen here, nothing is written
 *   ... lowers it after the look:      it empties this leaf later, under the
 *       lock: the block goes, or the part of the tail beyond the size is zeroed
 *   punch emptied the leaf before:     the block is absent
 *   ... empties it after:              the write came first, and goes
 *   the shrinker took the block:       absent
 *   the shrinker forgot its record:    unknown, unless DIRTY or WRITEBACK
 *   write-out takes it, or ends:       as for any write; DIRTY is set again
 *   fallocate maps it:                 only holes, and these are not written here
 */
u32 __must_check mapping_overwrite(struct mapping *m, u64 pos, const void *src,
				   u32 len, u64 end);

/* Zeroes [pos, pos+len) within one present block, marking it dirty if it
 * becomes so; -ENODATA if not present, -EAGAIN if unknown and !mapped. */
int __must_check mapping_zero(struct mapping *m, u64 pos, u32 len, bool mapped);

/* ---- write-out ---- */

/* A run of blocks taken for writing: consecutive, in one leaf, all DELAYED or
 * none. seg[] points to the memory of the folios, which are referenced. */
struct wb_run {
	lblk_t lblk;
	u32 nr;       /* blocks; 0: nothing dirty in the range */
	bool delayed;
	u32 nr_seg;
	struct {
		void *data;
		u32 blocks;
		struct folio *folio;
	} seg[LEAF_BLOCKS];
};

/*
 * First run of DIRTY blocks, not under WRITEBACK, at or after start and before
 * end, at most max blocks. Clears DIRTY, sets WRITEBACK, atomically. With
 * sync, waits for blocks that are DIRTY and still under WRITEBACK; without, skips them.
 */
void mapping_take_dirty(struct mapping *m, lblk_t start, lblk_t end, u32 max,
			bool sync, struct wb_run *run);
/* The blocks got their place on disk: no longer DELAYED. Returns how many were. */
u32 mapping_set_mapped(struct mapping *m, lblk_t lblk, u32 nr);
/*
 * Write-out of a (part of a) run has ended: clears WRITEBACK, drops the
 * folios' references (nr blocks from lblk), wakes waiters. redirty: back to DIRTY (try again).
 */
void mapping_end_writeback(struct mapping *m, lblk_t lblk, u32 nr, bool redirty);
/*
 * The same, and the data did not get to its place: what is here is all there is, so
 * none of it leaves the cache with the write-out, whoever has heard of the error by
 * now. lost: the blocks have no place either. Those that were not written to again
 * are dropped in the same step, so that a reader finds the hole that is there;
 * whatever was written meanwhile stays, dirty, and is tried again. Then the caller
 * keeps the mapping alive. Returns how many of what was dropped were DELAYED.
 */
u32 mapping_fail_writeback(struct mapping *m, lblk_t lblk, u32 nr, bool lost);
/* Sleeps until no block in [start, end) is under WRITEBACK. */
void mapping_wait_writeback(struct mapping *m, lblk_t start, lblk_t end);

/*
 * Drops all blocks in [start, end), dirty or not, their marks and records; none is
 * under WRITEBACK (the caller waited and keeps new write-out away: loops
 * internally over any that started in between). Returns the number that were
 * DELAYED, whose reservation the caller gives back.
 */
u32 mapping_invalidate(struct mapping *m, lblk_t start, lblk_t end);
/* Drops the clean blocks in [start, end), and forgets the records of the range. */
void mapping_drop_clean(struct mapping *m, lblk_t start, lblk_t end);

/* No block was DIRTY or WRITEBACK at some moment of the call. Takes no lock; false if
 * in doubt. */
bool mapping_is_clean(struct mapping *m);
/* First block in [start, end) that is DIRTY or WRITEBACK (SEEK_DATA); end if none. */
lblk_t mapping_next_dirty(struct mapping *m, lblk_t start, lblk_t end);

/* ---- records of extents (see above for who may call these) ---- */

enum extent_state {
	EXTENT_UNKNOWN,
	EXTENT_HOLE,
	EXTENT_UNWRITTEN, /* reads as zero */
	EXTENT_WRITTEN,
};

struct extent_status {
	enum extent_state state;
	u32 nr;      /* blocks; > 0 unless unknown */
	pblk_t pblk; /* of the first; 0 for a hole */
	bool open;   /* what follows is unknown */
};

/*
 * What is known of [lblk, lblk+nr), nr > 0: the run of one state, contiguous
 * on the volume, that lblk begins; over leaves, but not more than 64 of them.
 * One leaf lock for each that is not a value. False: unknown. Any time.
 */
bool mapping_extent_get(struct mapping *m, lblk_t lblk, u32 nr,
			struct extent_status *es);
/* Enters what the extent tree says. i_data_sem held; may allocate. */
void mapping_extent_set(struct mapping *m, lblk_t lblk, u64 end,
			enum extent_state state, pblk_t pblk);
/* The unwritten blocks of [lblk, end) are written now. i_data_sem exclusively. */
void mapping_extent_written(struct mapping *m, lblk_t lblk, u64 end);
/* i_data_sem exclusively, before blocks of [lblk, end) go. */
void mapping_extent_forget(struct mapping *m, lblk_t lblk, u64 end);

/* ---- errors ---- */
void mapping_set_error(struct mapping *m, int error);      /* negative errno */
errseq_t mapping_sample_error(struct mapping *m);          /* at open */
/* The error since *since, once: 0 or negative errno; advances *since. */
int mapping_check_error(struct mapping *m, errseq_t *since);
/* The same without advancing: it counts as seen by nobody. */
int mapping_peek_error(struct mapping *m, errseq_t since);
/* Is there an error that nobody was told of? The inode must stay, then. */
bool mapping_error_unseen(const struct mapping *m);

/* ---- per super block ---- */

enum mapping_counter {
	MAPPING_LEAF_WAITS,     /* leaf locks that another thread had */
	MAPPING_LEAF_WAIT_NS,   /* and for how long they were waited for */
	MAPPING_RETRIES,        /* looked again: things had changed meanwhile */
	MAPPING_EXTENT_LOOKUPS, /* extents that were unknown here */
	MAPPING_COPIED,         /* bytes that writes copied */
	MAPPING_ADOPTED,        /* and bytes whose memory was taken over */
	/* window.c */
	WINDOW_MADE,      /* windows of handles ... */
	WINDOW_GONE,      /* ... and those that are gone */
	WINDOW_CHANGES,   /* times that i_mmap_rwsem was taken exclusively, ... */
	WINDOW_WALKS,     /* ... and shared */
	WINDOW_WAITS,     /* of both, those that waited, */
	WINDOW_WAIT_NS,   /* and for how long */
	WINDOW_CONTENDED, /* questions of reclaim that got no answer */
	WINDOW_SPARED,    /* folios that reclaim left to a reader who comes */
	WINDOW_PASSED_BY, /* folios that it took behind the last stream */
	WINDOW_ERRORS,    /* windows that were told of a lost write */
	/* migrate.c: folios */
	MIGRATE_TRIED, MIGRATE_MOVED,
	MIGRATE_BUSY,      /* left: on their way to the device, ... */
	MIGRATE_PINNED,    /* ... somebody had a reference */
	/* fs/relocate.c: blocks */
	RELOCATE_MOVED,
	/* fs/readahead.c: blocks that were read before they were asked for */
	READAHEAD_BLOCKS,
	MIGRATE_CONTENDED, /* ranges left: nobody could tell who reads there */
	MAPPING_COUNTERS
};
u64 mapping_counter_read(struct super_block *sb, enum mapping_counter which);
/* For who looks again above. */
void mapping_counter_add(struct super_block *sb, enum mapping_counter which, u64 n);

/* LRU and its shrinker. regions: where writes come from, bound to the budget until the
 * end; may be NULL. */
int __must_check mapping_cache_create(struct super_block *sb, struct region_pool *regions);
void mapping_cache_destroy(struct super_block *sb);

#endif
