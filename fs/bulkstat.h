/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/bulkstat.h - all inodes of a volume in the order of their numbers
 *
 * Part of fs/fs.h. A scan goes through the inode bitmaps and reads the inode
 * tables in large pieces, several in flight, past the caches; what memory has
 * newer is merged in. It instantiates nothing in the inode cache, and leaves
 * nothing behind in the buffer cache but inode bitmaps (and table blocks where
 * it had to look twice).
 *
 * What a scan promises, while others create, change and delete:
 *   - an inode that has a link from the scan's start to its end is reported
 *     exactly once (or, if it is damaged, by one error record);
 *   - the values of a record are those the inode had together at some moment
 *     between the scan's start and the report;
 *   - an inode made or deleted meanwhile is reported at most once: a number never
 *     comes twice, and numbers only rise;
 *   - inodes without a link left (open, or waiting for deletion) and those
 *     that no name can have (reserved ones, journal, orphan file, values of
 *     attributes) are not reported.
 *
 * Memory of a scan: at most 4 windows of 512 KiB, less with a small cache: a
 * thirty-second of -o cache= in all, but 64 KiB at least; with
 * SL_BULKSTAT_SMALL one window of 32 KiB. (A window is at least one block.) It
 * is charged to the cache's budget. While a
 * window waits for its turn the table blocks that were cached stay so.
 *
 * A scan is used by one thread at a time; any number of scans may run.
 */
#ifndef SLUICE_FS_BULKSTAT_H
#define SLUICE_FS_BULKSTAT_H

#include "lib/types.h"
#include <sys/types.h>
#include <time.h>

struct super_block;
struct sl_bulkstat;

struct sl_bulkstat_rec {
	u64 ino;
	/*
	 * 0, or a negative errno: the inodes [ino, ino + lost) could not be read,
	 * and the other fields are 0. One inode, or all of a group whose bitmap
	 * is damaged. The log says more.
	 */
	int error;
	u32 lost;
	u32 generation;
	u32 mode, nlink;
	u32 uid, gid;
	u32 flags;  /* EXT4_*_FL of the disk */
	u32 projid;
	u64 size;
	u64 blocks; /* 512-byte units; blocks promised to delayed data count */
	u64 rdev;   /* makedev() form */
	struct timespec atime, mtime, ctime, crtime; /* crtime 0: not known */
};

enum sl_bulkstat_flags {
	SL_BULKSTAT_SMALL = 1u << 0, /* for a few inodes: little memory, little read */
};

/*
 * A scan of the numbers [first, last]; beyond the volume's last is no error.
 * -EINVAL (flags, first > last), -ENOMEM. All scans end before sl_unmount().
 */
int __must_check sl_bulkstat_open(struct super_block *sb, u64 first, u64 last,
				  u32 flags, struct sl_bulkstat **out);
/* The next records, up to max (> 0); 0 at the end. Sleeps. No error: what could
 * not be read is a record. */
size_t sl_bulkstat_read(struct sl_bulkstat *bs, struct sl_bulkstat_rec *recs,
			size_t max);
/* Where another scan would go on: no number before is still to come. */
u64 sl_bulkstat_cursor(const struct sl_bulkstat *bs);
/* Is what comes next from bs what a new scan of [first, last] would begin with? */
bool sl_bulkstat_continues(const struct sl_bulkstat *bs, u64 first, u64 last);
void sl_bulkstat_close(struct sl_bulkstat *bs); /* NULL is allowed */
/*
 * For tests: fn is called as each window of the scan passes a step, with the numbers
 * it has. It may do whatever a thread without locks may. The order of the steps, and
 * what they are, stands in bulkstat.c.
 */
enum sl_bulkstat_step {
	SL_BULKSTAT_INODES_NOTED,
	SL_BULKSTAT_BLOCKS_NOTED,
	SL_BULKSTAT_READ,
	SL_BULKSTAT_MERGED,
	SL_BULKSTAT_STEPS,
};
void sl_bulkstat_watch(struct sl_bulkstat *bs,
		       void (*fn)(void *priv, enum sl_bulkstat_step step, u64 first,
				  u64 last), void *priv);
/* The numbers of part `part` of `parts`, whole groups each; false: that part is
 * empty. For consumers that share a volume. */
bool sl_bulkstat_part(struct super_block *sb, u32 part, u32 parts, u64 *first,
		      u64 *last);

#endif
