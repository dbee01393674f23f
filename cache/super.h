/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/super.h - a mounted volume as the caches see it, and the ops tables
 * that the layers above register
 *
 * The file system embeds struct super_block in its own. What cache/ needs
 * from above it calls through s_op (the file system) and s_backing (the block
 * device, registered by writeback/).
 */
#ifndef SLUICE_CACHE_SUPER_H
#define SLUICE_CACHE_SUPER_H

#include "lib/lock.h"
#include "lib/types.h"
#include <sys/uio.h>

struct inode;
struct super_block;
struct counter;
struct mapping;
struct mapping_cache;
struct balancer;

/* The device, as the caches use it. Positions and lengths in blocks. */
struct backing_ops {
	/* Reads nr consecutive blocks from pblk into the vector (its bytes add
	 * up to nr blocks). Sleeps. 0 or -EIO, -ENXIO (past the end). */
	int (*read)(void *backing, pblk_t pblk, u32 nr, const struct iovec *iov,
		    int nr_iov);
	/* As read, but returns at once; done(priv, error) is called later from
	 * an I/O thread and must not block. The memory of iov[] itself may go
	 * after the call. On an error return done is not called. */
	int (*read_async)(void *backing, pblk_t pblk, u32 nr,
			  const struct iovec *iov, int nr_iov,
			  void (*done)(void *priv, int error), void *priv);
};

/* What a write-out pass is to do. */
struct wb_control {
	bool sync;         /* for data integrity: everything dirty at the start, and wait */
	lblk_t start, end; /* blocks [start, end); 0, LBLK_MAX+1 for all */
	u64 nr_to_write;   /* bytes, for background passes; counts down */
	lblk_t next;       /* set when nr_to_write came to 0: where to go on */
};

struct super_ops {
	/* Memory of one inode, embedded struct inode zeroed; and its end (the
	 * cache calls free after a grace period). NULL: no memory. */
	struct inode *(*alloc_inode)(struct super_block *sb);
	void (*free_inode)(struct inode *inode);
	/* Fills a new inode from disk; sleeps. 0, -ESTALE (not in use),
	 * -EFSCORRUPTED, -EFSBADCRC, -EIO. */
	int (*read_inode)(struct inode *inode);
	/*
	 * The inode leaves the cache: nobody else has it, I_FREEING is set, its
	 * state is clean or nlink is 0. With delete: release its blocks and
	 * free the inode on disk. Always drops all folios and ends the
	 * mapping (mapping_destroy()). Sleeps. An error is
	 * only logged (the inode stays an orphan on disk).
	 */
	void (*evict_inode)(struct inode *inode, bool delete);
	/* Writes dirty data (as wbc says) and the dirty inode itself. Sleeps.
	 * No inode lock held; the caller has a reference. */
	int (*write_inode)(struct inode *inode, struct wb_control *wbc);
};

/* How super_iter_inodes() finds inodes; see sb_iter.h. */
enum inode_iter { INODE_ITER_ICACHE, INODE_ITER_PERCPU, INODE_ITER_GLOBAL };

struct super_block {
	const struct super_ops *s_op;            /* [const after mount] */
	const struct backing_ops *s_backing_ops; /* [const after mount] */
	void *s_backing;                         /* [const after mount] */
	u32 s_blocksize;                         /* bytes [const after mount] */
	u8 s_blocksize_bits;                     /* [const after mount] */
	_Atomic bool s_rdonly;                   /* [atomic] set by ro mounts and errors */
	char s_id[64];                           /* for messages [const after mount] */
	struct budget *s_budget;                 /* [const after mount] */
	struct icache *s_icache;                 /* [const after mount] */
	enum inode_iter s_inode_iter;            /* [const] set before icache_create() */
	struct sb_iter *s_iter;                  /* [const after mount] */
	struct bcache *s_bcache;                 /* [const after mount] */
	struct mapping_cache *s_mapping_cache;   /* [const after mount] */
	bool s_data_full;                /* -o datacache=full: data is kept as all
					    else, and reads fill the cache [const after mount] */
	struct balancer *s_balancer;     /* NULL with one zone [const after mount] */
	/* A handle reads the blocks [start, end) from that zone; NULL likewise. Does not
	 * wait. [const after mount] */
	void (*s_read_hint)(struct mapping *m, lblk_t start, u64 end, u32 zone);
	bool s_window_mutex;             /* i_mmap_rwsem is a mutex: for bench-window
					    [const] set before the first window */
	struct counter *s_dirty_bytes;   /* file data dirty or under writeback */
};

#endif
