/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * writeback/bio.c - memory of a bio and its vector, in one piece
 *
 * Locks: none. Alive: from bio_alloc() until its end_io frees it.
 */
#include "writeback/bio.h"

#include <assert.h>
#include <stdlib.h>

struct bio *bio_alloc(int nr_iov)
{
	struct bio *bio;

	assert(nr_iov >= 0);
	bio = calloc(1, sizeof(*bio) + (size_t)nr_iov * sizeof(struct iovec));
	if (bio)
		bio->bi_iov = (struct iovec *)(bio + 1);
	return bio;
}

void bio_free(struct bio *bio)
{
	free(bio);
}
