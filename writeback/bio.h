/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * writeback/bio.h - one request to a block device
 *
 * A bio is a contiguous range of the device and a vector of memory, at most
 * 512 KiB. It is submitted once and ends once: end_io runs on an I/O thread
 * (or the submitter) and must not block; it owns the bio then.
 */
#ifndef SLUICE_WRITEBACK_BIO_H
#define SLUICE_WRITEBACK_BIO_H

#include "lib/types.h"
#include <sys/uio.h>

#define BIO_MAX_BYTES (512u * 1024)
#define BIO_MAX_VECS 512

struct bio;
struct bdev;

enum bio_op { BIO_READ, BIO_WRITE };
enum bio_flags {
	BIO_FUA = 1u << 0,  /* durable when it ends */
	BIO_META = 1u << 1, /* metadata or journal: counted apart */
};

struct bio {
	enum bio_op bi_op;
	u32 bi_flags;
	u64 bi_pos;   /* bytes from the start of the volume; sector aligned */
	u32 bi_bytes; /* sum of the vector */
	int bi_nr_iov;
	struct iovec *bi_iov; /* lives until the bio ends */
	int bi_error;         /* at end: 0 or negative errno */
	void (*bi_end_io)(struct bio *bio);
	void *bi_private;
	/* [back end only] */
	void *bi_be[8];
};

/* A bio with room for nr_iov segments, zeroed otherwise. bio_free() undoes it. */
struct bio *bio_alloc(int nr_iov);
void bio_free(struct bio *bio);

#endif
