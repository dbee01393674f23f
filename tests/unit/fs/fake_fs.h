/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/fake_fs.h - what the block-mapping code needs around it, in memory
 *
 * A device in memory below the real buffer cache, and simple stand-ins that
 * check how they are used: handles count credits and revokes exactly and want
 * access before each change; the allocator knows every block's state and can
 * fail, scatter and cut; a commit freezes each dirty buffer, verifies the image
 * as if it had been read, and puts it on the device.
 * One handle at a time; lookups may run in other threads.
 */
#ifndef SLUICE_TESTS_FAKE_FS_H
#define SLUICE_TESTS_FAKE_FS_H

#include "tests/unit/unit.h"

#include "fs/ext4.h"

#define FAKE_NEVER UINT32_MAX

enum fake_block { FAKE_FREE, FAKE_USED, FAKE_FREED, FAKE_SYSTEM };

struct fake_fs {
	struct ext4_sb sbi;
	struct ext4_inode ei;
	struct bdev bd;
	u8 *dev;            /* the device */
	u8 *state;          /* of each block: enum fake_block */
	u32 nr_blocks;
	/* allocator */
	u32 max_run;        /* longest run given out */
	bool scatter;       /* ignore goals, leave gaps */
	pblk_t next;        /* scatter: where to go on */
	u32 fail_alloc;     /* allocations until one fails; FAKE_NEVER */
	int fail_alloc_with;
	u32 nr_allocs;
	/* handles */
	u32 max_credits;    /* handle_ensure() extends up to this */
	u32 restart_every;  /* every so many handle_ensure() want a restart; 0: none */
	u32 nr_ensures;
	u32 fail_access;    /* accesses until one gives -ENOMEM */
	u32 nr_restarts;
	void (*on_restart)(struct fake_fs *f);
	u32 nr_forgets;
	/* others */
	u32 nr_errors;      /* ext4_error() */
	u64 dirty_from, dirty_to; /* "dirty pages" of the inode */
	u32 nr_zero_writes;
	int write_error;
	u64 inode_blocks;   /* i_blocks, in blocks */
};

extern struct fake_fs fake;

/* A volume of nr blocks with an empty inode (extents, or a block map). */
void fake_open(u32 blocksize, u32 nr, u32 blocks_per_group, bool csum, bool extents);
void fake_close(void); /* checks that nothing leaked */

struct handle *fake_start(u32 credits, u32 revokes);
void fake_stop(struct handle *h);
/* Everything dirty to the device, as the journal would; freed blocks are free. */
void fake_commit(void);
/* Commit, then forget all that is cached. */
void fake_drop(void);
u32 fake_used(void);     /* blocks in use */
pblk_t fake_take_block(void); /* for trees made by hand */
u8 *fake_block(pblk_t blk);

u32 fake_rand(u32 n);    /* 0 .. n-1 */

#endif
