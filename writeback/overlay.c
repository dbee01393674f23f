/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * writeback/overlay.c - changed blocks in memory over a device never written
 *
 * For journal recovery of a read-only volume: the replayed blocks live here,
 * and readers see them in place of the device's. A block has a mask of which of
 * its sectors are ours, so that a write of part of a block needs no read.
 *
 * A read takes the lower device's content first, then the patches are copied
 * over it, wherever the range has any; a range wholly patched is not read.
 *
 * Locks:   lock (RANK_BIO) for the table and the content of all blocks; held
 *          for the copy of one block at a time
 * Alive:   blocks live until the overlay is closed (never replaced or removed)
 * Never:   a write, flush or discard of the lower device
 * Threads: any; patching of reads on the lower device's I/O threads
 */
#include "lib/bitmap.h"
#include "lib/lock.h"
#include "writeback/bdev.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define OVERLAY_BLOCK_MAX 65536u
#define MASK_WORDS 2 /* 128 sectors of 512 bytes */
#define TABLE_BITS_MIN 6
#define SUBMIT_BATCH 64

struct ov_block {
	struct ov_block *next;  /* same bucket [lock] */
	pblk_t blk;             /* [const] */
	u64 mask[MASK_WORDS];   /* sectors that are valid here [lock] */
	char data[];            /* [lock] */
};

struct overlay {
	struct bdev bd; /* first */
	struct bdev *lower;       /* [const but for bdev_overlay_detach()] */
	u32 blocksize;            /* [const] */
	struct spinlock lock;
	struct ov_block **table;  /* [lock] */
	unsigned table_bits;      /* [lock] */
	u64 nr_blocks;            /* [lock] */
};

static struct overlay *to_overlay(struct bdev *bd)
{
	return container_of_type(bd, struct overlay, bd);
}

/* ---- table ---- */

/* Multiplication by 2^64 / golden ratio: consecutive blocks spread. */
static u64 bucket_of(pblk_t blk, unsigned bits)
{
	return blk * 0x9E3779B97F4A7C15u >> (64 - bits);
}

static struct ov_block *find_locked(struct overlay *ov, pblk_t blk)
{
	struct ov_block *b = ov->table[bucket_of(blk, ov->table_bits)];

	assert_spin_held(&ov->lock);
	while (b && b->blk != blk)
		b = b->next;
	return b;
}

/* Doubles the table when chains grow; without memory they just get longer. */
static void grow_locked(struct overlay *ov)
{
	unsigned bits = ov->table_bits + 1;
	struct ov_block **table;

	if (ov->nr_blocks < 2ull << ov->table_bits)
		return;
	table = calloc(1ull << bits, sizeof(struct ov_block *));
	if (!table)
		return;
	for (u64 i = 0; i < 1ull << ov->table_bits; i++) {
		struct ov_block *b = ov->table[i], *next;

		for (; b; b = next) {
			u64 to = bucket_of(b->blk, bits);

			next = b->next;
			b->next = table[to];
			table[to] = b;
		}
	}
	free(ov->table);
	ov->table = table;
	ov->table_bits = bits;
}

/* The block's entry, made if there is none (nothing valid in it yet). */
static struct ov_block *find_or_add_locked(struct overlay *ov, pblk_t blk)
{
	struct ov_block *b = find_locked(ov, blk), **bucket;

	if (b)
		return b;
	b = malloc(sizeof(*b) + ov->blocksize);
	if (!b)
		return NULL;
	b->blk = blk;
	memset(b->mask, 0, sizeof(b->mask));
	grow_locked(ov);
	bucket = &ov->table[bucket_of(blk, ov->table_bits)];
	b->next = *bucket;
	*bucket = b;
	ov->nr_blocks++;
	return b;
}

/* ---- a range of bytes and a vector, walked block by block ---- */

struct walk {
	u64 pos, end;
	const struct iovec *iov;
	size_t skip; /* of iov[0] */
};

/* Copies n bytes between the walk's memory and data, without moving on. */
static void walk_copy(const struct walk *w, char *data, u32 n, bool to_memory)
{
	const struct iovec *iov = w->iov;
	size_t skip = w->skip;

	while (n) {
		u32 part = (u32)min_of((size_t)n, iov->iov_len - skip);
		char *mem = (char *)iov->iov_base + skip;

		if (to_memory)
			memcpy(mem, data, part);
		else
			memcpy(data, mem, part);
		data += part;
		n -= part;
		skip = 0;
		iov++;
	}
}

static void walk_advance(struct walk *w, u64 n)
{
	w->pos += n;
	w->skip += n;
	while (w->pos < w->end && w->skip >= w->iov->iov_len) {
		w->skip -= w->iov->iov_len;
		w->iov++;
	}
}

/* Sectors [*first, *end) of block *blk that the walk covers next. */
static void walk_block(const struct overlay *ov, const struct walk *w, pblk_t *blk,
		       u32 *first, u32 *end)
{
	u32 sector = ov->bd.bd_sector, in = (u32)(w->pos % ov->blocksize);

	*blk = w->pos / ov->blocksize;
	*first = in / sector;
	*end = (u32)min_of((u64)ov->blocksize, in + (w->end - w->pos)) / sector;
}

/* Copies the patched sectors of the range over what is in memory. */
static void patch(struct overlay *ov, struct walk w)
{
	u32 sector = ov->bd.bd_sector;

	while (w.pos < w.end) {
		struct ov_block *b;
		pblk_t blk;
		u32 at, end, stop;

		walk_block(ov, &w, &blk, &at, &end);
		spin_lock(&ov->lock);
		b = find_locked(ov, blk);
		while (b && at < end) {
			stop = bm_find_set(b->mask, at, end);
			walk_advance(&w, (u64)(stop - at) * sector);
			at = stop;
			if (at == end)
				break;
			stop = bm_find_clear(b->mask, at, end);
			walk_copy(&w, b->data + (size_t)at * sector,
				  (stop - at) * sector, true);
			walk_advance(&w, (u64)(stop - at) * sector);
			at = stop;
		}
		spin_unlock(&ov->lock);
		walk_advance(&w, (u64)(end - at) * sector);
	}
}

static bool wholly_patched(struct overlay *ov, struct walk w)
{
	bool all = true;

	while (all && w.pos < w.end) {
		struct ov_block *b;
		pblk_t blk;
		u32 at, end;

		walk_block(ov, &w, &blk, &at, &end);
		spin_lock(&ov->lock);
		b = find_locked(ov, blk);
		all = b && bm_find_clear(b->mask, at, end) == end;
		spin_unlock(&ov->lock);
		w.pos += (u64)(end - at) * ov->bd.bd_sector;
	}
	return all;
}

static int store(struct overlay *ov, struct walk w)
{
	u32 sector = ov->bd.bd_sector;

	while (w.pos < w.end) {
		struct ov_block *b;
		pblk_t blk;
		u32 at, end;

		walk_block(ov, &w, &blk, &at, &end);
		spin_lock(&ov->lock);
		b = find_or_add_locked(ov, blk);
		if (b) {
			walk_copy(&w, b->data + (size_t)at * sector,
				  (end - at) * sector, false);
			bm_set_range(b->mask, at, end - at);
		}
		spin_unlock(&ov->lock);
		if (!b)
			return -ENOMEM;
		walk_advance(&w, (u64)(end - at) * sector);
	}
	return 0;
}

static struct walk walk_of(const struct bio *bio)
{
	return (struct walk){ .pos = bio->bi_pos,
			      .end = bio->bi_pos + bio->bi_bytes,
			      .iov = bio->bi_iov };
}

/* ---- operations ---- */

/* The lower bio shares the vector of the one it stands for (bi_private). */
static void lower_read_end(struct bio *low)
{
	struct bio *bio = low->bi_private;
	struct overlay *ov = bio->bi_be[0];
	int err = low->bi_error;

	bio_free(low);
	if (!err)
		patch(ov, walk_of(bio));
	bdev_end_bio(&ov->bd, bio, err);
}

/* The bio to read below, or NULL if the bio has ended here. */
static struct bio *start_bio(struct overlay *ov, struct bio *bio)
{
	struct bio *low;

	if (bio->bi_op == BIO_WRITE) {
		bdev_end_bio(&ov->bd, bio, store(ov, walk_of(bio)));
		return NULL;
	}
	if (wholly_patched(ov, walk_of(bio))) {
		patch(ov, walk_of(bio));
		bdev_end_bio(&ov->bd, bio, 0);
		return NULL;
	}
	low = bio_alloc(0);
	if (!low) {
		bdev_end_bio(&ov->bd, bio, -ENOMEM);
		return NULL;
	}
	bio->bi_be[0] = ov;
	low->bi_op = BIO_READ;
	low->bi_flags = bio->bi_flags;
	low->bi_pos = bio->bi_pos;
	low->bi_bytes = bio->bi_bytes;
	low->bi_iov = bio->bi_iov;
	low->bi_nr_iov = bio->bi_nr_iov;
	low->bi_end_io = lower_read_end;
	low->bi_private = bio;
	return low;
}

static void overlay_submit(struct bdev *bd, struct bio **bios, unsigned n)
{
	struct overlay *ov = to_overlay(bd);
	struct bio *lows[SUBMIT_BATCH];
	unsigned nr = 0;

	for (unsigned i = 0; i < n; i++) {
		lows[nr] = start_bio(ov, bios[i]);
		if (lows[nr])
			nr++;
		if (nr == SUBMIT_BATCH) {
			bdev_submit(ov->lower, lows, nr);
			nr = 0;
		}
	}
	bdev_submit(ov->lower, lows, nr);
}

static int overlay_rw_now(struct bdev *bd, enum bio_op op, u64 pos,
			  const struct iovec *iov, int nr_iov, u32 bytes, u32 flags)
{
	struct overlay *ov = to_overlay(bd);
	struct walk w = { .pos = pos, .end = pos + bytes, .iov = iov };
	int err;

	if (op == BIO_WRITE)
		return store(ov, w);
	if (!wholly_patched(ov, w)) {
		err = bdev_rwv(ov->lower, BIO_READ, pos, iov, nr_iov, flags);
		if (err)
			return err;
	}
	patch(ov, w);
	return 0;
}

/* Nothing here is durable, and nothing needs to be. */
static int overlay_flush(struct bdev *bd)
{
	return 0;
}

static int overlay_discard(struct bdev *bd, u64 pos, u64 len)
{
	return -EOPNOTSUPP;
}

static void overlay_release_claim(struct bdev *bd)
{
	bdev_release_claim(to_overlay(bd)->lower);
}

static void overlay_close(struct bdev *bd)
{
	struct overlay *ov = to_overlay(bd);

	bdev_close(ov->lower);
	for (u64 i = 0; i < 1ull << ov->table_bits; i++) {
		struct ov_block *b = ov->table[i], *next;

		for (; b; b = next) {
			next = b->next;
			free(b);
		}
	}
	free(ov->table);
	spin_destroy(&ov->lock);
	free(ov);
}

void bdev_overlay_detach(struct bdev *bd)
{
	to_overlay(bd)->lower = NULL;
}

static const struct bdev_ops overlay_ops = {
	.submit = overlay_submit,
	.flush = overlay_flush,
	.discard = overlay_discard,
	.close = overlay_close,
	.rw_now = overlay_rw_now,
	.release_claim = overlay_release_claim,
};

int bdev_overlay_create(struct bdev *lower, u32 blocksize, struct bdev **out)
{
	struct overlay *ov;

	if (blocksize < lower->bd_sector || blocksize > OVERLAY_BLOCK_MAX ||
	    (blocksize & (blocksize - 1)) || lower->bd_sector < 512)
		return -EINVAL;
	ov = calloc(1, sizeof(*ov));
	if (!ov)
		return -ENOMEM;
	ov->table_bits = TABLE_BITS_MIN;
	ov->table = calloc(1u << TABLE_BITS_MIN, sizeof(struct ov_block *));
	if (!ov->table) {
		free(ov);
		return -ENOMEM;
	}
	spin_init(&ov->lock, RANK_BIO);
	ov->lower = lower;
	ov->blocksize = blocksize;
	ov->bd.bd_ops = &overlay_ops;
	ov->bd.bd_size = lower->bd_size;
	ov->bd.bd_sector = lower->bd_sector;
	ov->bd.bd_is_block = lower->bd_is_block;
	memcpy(ov->bd.bd_name, lower->bd_name, sizeof(ov->bd.bd_name));
	*out = &ov->bd;
	return 0;
}

int bdev_overlay_put(struct bdev *bd, pblk_t blk, const void *data)
{
	struct overlay *ov = to_overlay(bd);
	struct iovec iov = { .iov_base = (void *)(uintptr_t)data,
			     .iov_len = ov->blocksize };
	struct walk w = { .iov = &iov };

	assert(bd->bd_ops == &overlay_ops);
	if (blk >= bd->bd_size / ov->blocksize)
		return -ENXIO;
	w.pos = blk * ov->blocksize;
	w.end = w.pos + ov->blocksize;
	return store(ov, w);
}
