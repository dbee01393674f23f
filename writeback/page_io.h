/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * writeback/page_io.h - gathers blocks into bios of up to 512 KiB
 *
 * A page_io is carried over successive runs: page_io_add() appends to the
 * present bio while contiguous on the device and within the limit, else
 * closes it and starts the next; page_io_submit() sends all closed bios in one
 * batch. Completion is counted in an io_end: one reference for the submitter,
 * one per bio; when the last goes, its end() runs on an end-io worker, which
 * may sleep and start journal handles.
 * A page_io belongs to one thread; an io_end is shared.
 */
#ifndef SLUICE_WRITEBACK_PAGE_IO_H
#define SLUICE_WRITEBACK_PAGE_IO_H

#include "lib/rcu.h"
#include "writeback/bdev.h"

struct io_end {
	_Atomic u32 refs;    /* [atomic] */
	_Atomic int error;   /* first error of its bios [atomic] */
	/* Runs once, on an end-io worker (or in page_io_end_put() when
	 * inline_end is set); frees the io_end's container. May sleep. */
	void (*end)(struct io_end *ioe);
	bool inline_end;     /* end() does not block: run where the last bio ends */
	struct cds_list_head link; /* [worker queue] */
};
/* refs = 1: the submitter's. Errors: first one wins. */
void io_end_init(struct io_end *ioe, void (*end)(struct io_end *), bool inline_end);
void io_end_get(struct io_end *ioe);
void io_end_set_error(struct io_end *ioe, int error); /* 0: nothing */
void io_end_put(struct io_end *ioe);

struct page_io {
	struct bdev *bd;
	enum bio_op op;
	u32 flags;            /* enum bio_flags */
	u32 max_bytes;        /* of a bio: BIO_MAX_BYTES, unless changed after init */
	struct io_end *ioe;   /* of the bio being built */
	struct bio *bio;      /* being built, or NULL */
	int room;             /* segments that bio has room for */
	bool hole;            /* what comes next does not follow in the file */
	u64 next_pos;
	unsigned nr_closed;
	struct bio *closed[64];
};

void page_io_init(struct page_io *io, struct bdev *bd, enum bio_op op, u32 flags);
/*
 * Appends bytes (multiple of the sector; may exceed the limit, then split) at
 * device position pos. ioe: its io_end (one io_end per bio: a change of ioe
 * closes the bio). data is aligned to the sector and stays until end().
 * On -ENOMEM nothing of this call was added. When 64 bios are closed they are
 * sent, so this may sleep for a free slot.
 */
int __must_check page_io_add(struct page_io *io, u64 pos, void *data, u32 bytes,
			     struct io_end *ioe);
/* What is added next does not follow in the file: only for the statistics,
 * which tell a hole (or clean blocks) from a file that lies scattered. */
void page_io_hole(struct page_io *io);
/* Sends everything. Errors come through the io_ends. */
void page_io_submit(struct page_io *io);
/*
 * The same for a caller who will wait for it next: if it is one bio only, this
 * thread does the transfer, and then also runs end() if that was the last
 * reference but for an io_end shared with others. Spares three switches of threads.
 * So the caller must be in a state in which end() may run. Sleeps.
 */
void page_io_submit_wait(struct page_io *io);

/*
 * End-io workers: started once per process with the first user, one start per
 * stop. An io_end without inline_end needs them running. -ENOMEM, -EAGAIN.
 */
int __must_check end_io_start(void);
/* Waits until every end() queued before the call has run; the last user's
 * stop also ends the workers. */
void end_io_stop(void);

#endif
