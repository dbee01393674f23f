/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/handles.h - what the kernel has open: FUSE's file handles
 *
 * A handle is given to the kernel by its address and comes back with each
 * request until RELEASE. When the connection is cut (umount -f, a signal
 * while in use) no RELEASE comes, so the table knows all that are open.
 *
 * Locks: those of the table's shards, inside of which nothing is called.
 */
#ifndef SLUICE_SRC_HANDLES_H
#define SLUICE_SRC_HANDLES_H

#include "lib/lock.h"
#include "lib/types.h"
#include <urcu/list.h>

struct sl_bulkstat;
struct sl_file;

#define HANDLE_SHARDS 32
/* Scans that wait in handles for their next batch: each may have 2 MiB. */
#define HANDLE_SCANS_MAX 8

struct handle_shard {
	struct spinlock lock;
	struct cds_list_head open; /* [lock] */
} __cacheline_aligned;

/* An open stream of inodes (fuse_stream.c). */
struct inode_stream {
	struct mutex lock;
	u64 next, last; /* [lock] the numbers still to be given; next > last: none */
};

struct handle {
	struct sl_file *file;	    /* [const] owned; NULL: a stream */
	struct inode_stream *stream; /* [const] owned; NULL: a file or directory */
	struct handle_table *table; /* [const] */
	struct handle_shard *shard; /* [const] */
	struct sl_bulkstat *_Atomic scan; /* [atomic] owned; NULL, or between two batches */
	struct cds_list_head node;  /* [shard's lock] */
};

struct handle_table {
	struct handle_shard shards[HANDLE_SHARDS];
	_Atomic unsigned scans; /* [atomic] kept by handles */
};

void handles_init(struct handle_table *t);
/* The table is to be empty. */
void handles_destroy(struct handle_table *t);
/* Takes the file over; NULL, with the file released: out of memory. */
struct handle *handle_open(struct handle_table *t, struct sl_file *file);
/* The same for a stream of [first, last]. NULL: out of memory. */
struct handle *handle_open_stream(struct handle_table *t, u64 first, u64 last);
/* Releases the file, too. */
void handle_close(struct handle *h);
/* The scan that was kept, the caller's from now on, or NULL. */
struct sl_bulkstat *handle_take_scan(struct handle *h);
/* Takes the scan over until the next batch; closes it if too many are kept. */
void handle_keep_scan(struct handle *h, struct sl_bulkstat *scan);
/* All that are open. No other call may be under way. Returns their number. */
unsigned handles_close_all(struct handle_table *t);

#endif
