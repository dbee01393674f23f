/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/faulty_bdev.h - a device with one unreadable place
 *
 * Passes everything on to another device, but reads that touch byte bad_pos
 * end with -EIO. 0: none.
 */
#ifndef SLUICE_TESTS_FAULTY_BDEV_H
#define SLUICE_TESTS_FAULTY_BDEV_H

#include "writeback/bdev.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct faulty_bdev {
	struct bdev bd; /* first */
	struct bdev *lower;
	_Atomic u64 bad_pos;
};

static inline void faulty_submit(struct bdev *bd, struct bio **bios, unsigned n)
{
	struct faulty_bdev *f = (struct faulty_bdev *)bd;
	u64 bad = atomic_load(&f->bad_pos);

	for (unsigned i = 0; i < n; i++) {
		struct bio *bio = bios[i];

		if (bad && bio->bi_op == BIO_READ && bio->bi_pos <= bad &&
		    bad < bio->bi_pos + bio->bi_bytes) {
			bio->bi_error = -EIO;
			bio->bi_end_io(bio);
		} else {
			bdev_submit(f->lower, &bio, 1);
		}
	}
}

static inline int faulty_flush(struct bdev *bd)
{
	return bdev_flush(((struct faulty_bdev *)bd)->lower);
}

static inline int faulty_discard(struct bdev *bd, u64 pos, u64 len)
{
	return -EOPNOTSUPP;
}

static inline void faulty_close(struct bdev *bd)
{
	bdev_close(((struct faulty_bdev *)bd)->lower);
	free(bd);
}

/* Owns lower. */
static inline struct faulty_bdev *faulty_bdev_new(struct bdev *lower)
{
	static const struct bdev_ops ops = {
		.submit = faulty_submit,
		.flush = faulty_flush,
		.discard = faulty_discard,
		.close = faulty_close,
	};
	struct faulty_bdev *f = calloc(1, sizeof(*f));

	if (!f)
		abort();
	f->bd.bd_ops = &ops;
	f->bd.bd_size = lower->bd_size;
	f->bd.bd_sector = lower->bd_sector;
	memcpy(f->bd.bd_name, lower->bd_name, sizeof(f->bd.bd_name));
	f->lower = lower;
	return f;
}

#endif
