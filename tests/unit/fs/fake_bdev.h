/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/fake_bdev.h - a block device in memory that remembers its
 * writes, fails when told to, and yields the images a power cut could leave
 *
 * Writes end inside submit, or, after fake_async(), on a thread of the device
 * in random order; each is recorded when it ends, with its data and whether
 * it had FUA, each flush too, and marks the test sets between. A crash image after
 * record n: everything before the last flush and all FUA writes are there; of
 * the other writes each atom (a block, or a 512-byte sector when tearing) is
 * there or not.
 *
 * Locks:   fd->lock, a leaf. Threads: any.
 */
#ifndef SLUICE_TESTS_FAKE_BDEV_H
#define SLUICE_TESTS_FAKE_BDEV_H

#include "writeback/bdev.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum fake_kind { FAKE_WRITE, FAKE_FUA, FAKE_FLUSH, FAKE_MARK };

struct fake_rec {
	enum fake_kind kind;
	u64 pos; /* FAKE_MARK: the mark's value */
	u32 len;
	u8 *data;
};

struct fake_bdev {
	struct bdev bd;
	pthread_mutex_t lock;
	u8 *mem;  /* what reads see */
	u8 *base; /* when recording began */
	struct fake_rec *recs;
	u32 nr, max;
	bool record;
	s64 fail_write_in; /* the nth write from now on and all after it; -1: none */
	s64 fail_flush_in;
	bool fail_once;
	u64 fail_read_pos, fail_read_len; /* reads that touch this fail [lock] */
	/* Called before a flush, with no lock held. */
	void (*on_flush)(void *priv);
	void *priv;
	_Atomic u64 nr_writes, nr_flushes;

	/* Writes that touch this stay on the way until fake_let_go(). [lock] */
	u64 hold_pos, hold_len;
	struct bio *held[256];
	unsigned nr_held;

	bool async, stop; /* [lock] */
	pthread_t thread;
	pthread_cond_t more;
	struct bio *queue[1024]; /* [lock] */
	unsigned queued, seed;
};

static struct fake_bdev *fake_of(struct bdev *bd)
{
	return container_of_type(bd, struct fake_bdev, bd);
}

static void fake_record(struct fake_bdev *fd, enum fake_kind kind, u64 pos, const u8 *data,
			u32 len)
{
	struct fake_rec *r;

	if (!fd->record)
		return;
	if (fd->nr == fd->max) {
		fd->max = fd->max ? fd->max * 2 : 256;
		fd->recs = realloc(fd->recs, fd->max * sizeof(*fd->recs));
	}
	r = &fd->recs[fd->nr++];
	*r = (struct fake_rec){ .kind = kind, .pos = pos, .len = len };
	if (len) {
		r->data = malloc(len);
		memcpy(r->data, data, len);
	}
}

static bool fake_fails(struct fake_bdev *fd, s64 *in)
{
	if (*in < 0)
		return false;
	if (*in > 0) {
		--*in;
		return false;
	}
	if (fd->fail_once)
		*in = -1;
	return true;
}

/*
 * As DMA does: a file's memory may be written to while it is read here (the
 * block is dirty again then), which the thread sanitizer would report.
 */
static __attribute__((no_sanitize("thread"), noinline)) void
fake_dma(void *dst, const void *src, size_t len)
{
	const volatile u64 *from = src;
	u64 *to = dst;

	for (size_t i = 0; i < len / sizeof(*to); i++)
		to[i] = from[i];
}

static int fake_one(struct fake_bdev *fd, struct bio *bio)
{
	u64 pos = bio->bi_pos;
	int err = 0;

	pthread_mutex_lock(&fd->lock);
	if (bio->bi_op == BIO_WRITE) {
		atomic_fetch_add(&fd->nr_writes, 1);
		if (fake_fails(fd, &fd->fail_write_in))
			err = -EIO;
	} else if (pos < fd->fail_read_pos + fd->fail_read_len &&
		   pos + bio->bi_bytes > fd->fail_read_pos) {
		err = -EIO;
	}
	for (int i = 0; i < bio->bi_nr_iov && !err; i++) {
		struct iovec *v = &bio->bi_iov[i];

		if (bio->bi_op == BIO_READ) {
			memcpy(v->iov_base, fd->mem + pos, v->iov_len);
		} else {
			fake_dma(fd->mem + pos, v->iov_base, v->iov_len);
			fake_record(fd, bio->bi_flags & BIO_FUA ? FAKE_FUA : FAKE_WRITE, pos,
				    fd->mem + pos, (u32)v->iov_len);
		}
		pos += v->iov_len;
	}
	pthread_mutex_unlock(&fd->lock);
	return err;
}

static void fake_end(struct fake_bdev *fd, struct bio *bio)
{
	bio->bi_error = fake_one(fd, bio);
	bio->bi_end_io(bio);
}

/* [lock held] */
static bool fake_hold(struct fake_bdev *fd, struct bio *bio)
{
	if (bio->bi_op != BIO_WRITE || fd->nr_held == ARRAY_SIZE(fd->held) ||
	    bio->bi_pos >= fd->hold_pos + fd->hold_len ||
	    bio->bi_pos + bio->bi_bytes <= fd->hold_pos)
		return false;
	fd->held[fd->nr_held++] = bio;
	return true;
}

/* What was held back is written, and nothing is held back any more. */
static inline void fake_let_go(struct fake_bdev *fd)
{
	unsigned n;

	pthread_mutex_lock(&fd->lock);
	fd->hold_len = 0;
	n = fd->nr_held;
	fd->nr_held = 0;
	pthread_mutex_unlock(&fd->lock);
	for (unsigned i = 0; i < n; i++)
		fake_end(fd, fd->held[i]);
}

static void fake_submit(struct bdev *bd, struct bio **bios, unsigned n)
{
	struct fake_bdev *fd = fake_of(bd);

	for (unsigned i = 0; i < n; i++) {
		struct bio *bio = bios[i];

		pthread_mutex_lock(&fd->lock);
		if (fake_hold(fd, bio)) {
			pthread_mutex_unlock(&fd->lock);
			continue;
		}
		if (fd->async && fd->queued < ARRAY_SIZE(fd->queue)) {
			fd->queue[fd->queued++] = bio;
			pthread_cond_signal(&fd->more);
			bio = NULL;
		}
		pthread_mutex_unlock(&fd->lock);
		if (bio)
			fake_end(fd, bio);
	}
}

static inline void *fake_thread(void *arg)
{
	struct fake_bdev *fd = arg;
	struct bio *bio;
	unsigned i;

	pthread_mutex_lock(&fd->lock);
	while (!fd->stop || fd->queued) {
		if (!fd->queued) {
			pthread_cond_wait(&fd->more, &fd->lock);
			continue;
		}
		i = (unsigned)rand_r(&fd->seed) % fd->queued;
		bio = fd->queue[i];
		fd->queue[i] = fd->queue[--fd->queued];
		pthread_mutex_unlock(&fd->lock);
		fake_end(fd, bio);
		pthread_mutex_lock(&fd->lock);
	}
	pthread_mutex_unlock(&fd->lock);
	return NULL;
}

static inline void fake_async(struct fake_bdev *fd, unsigned seed)
{
	pthread_mutex_lock(&fd->lock);
	fd->seed = seed;
	fd->async = true;
	pthread_create(&fd->thread, NULL, fake_thread, fd);
	pthread_mutex_unlock(&fd->lock);
}

/* Reads that touch [pos, pos + len) fail from now on. */
static inline void fake_fail_reads(struct fake_bdev *fd, u64 pos, u64 len)
{
	pthread_mutex_lock(&fd->lock);
	fd->fail_read_pos = pos;
	fd->fail_read_len = len;
	pthread_mutex_unlock(&fd->lock);
}

static int fake_flush(struct bdev *bd)
{
	struct fake_bdev *fd = fake_of(bd);
	int err = 0;

	if (fd->on_flush)
		fd->on_flush(fd->priv);
	pthread_mutex_lock(&fd->lock);
	atomic_fetch_add(&fd->nr_flushes, 1);
	if (fake_fails(fd, &fd->fail_flush_in))
		err = -EIO;
	else
		fake_record(fd, FAKE_FLUSH, 0, NULL, 0);
	pthread_mutex_unlock(&fd->lock);
	return err;
}

static void fake_close(struct bdev *bd)
{
	struct fake_bdev *fd = fake_of(bd);

	if (fd->async) {
		pthread_mutex_lock(&fd->lock);
		fd->stop = true;
		pthread_cond_signal(&fd->more);
		pthread_mutex_unlock(&fd->lock);
		pthread_join(fd->thread, NULL);
	}
	for (u32 i = 0; i < fd->nr; i++)
		free(fd->recs[i].data);
	free(fd->recs);
	free(fd->mem);
	free(fd->base);
	free(fd);
}

static const struct bdev_ops fake_bdev_ops = {
	.submit = fake_submit,
	.flush = fake_flush,
	.close = fake_close,
};

static struct fake_bdev *fake_bdev_create(u64 size)
{
	struct fake_bdev *fd = calloc(1, sizeof(*fd));

	fd->bd.bd_ops = &fake_bdev_ops;
	fd->bd.bd_size = size;
	fd->bd.bd_sector = 512;
	strcpy(fd->bd.bd_name, "fake");
	pthread_mutex_init(&fd->lock, NULL);
	pthread_cond_init(&fd->more, NULL);
	fd->mem = calloc(1, size);
	fd->base = calloc(1, size);
	fd->fail_write_in = fd->fail_flush_in = -1;
	return fd;
}

/* From here on writes are recorded; what is there now is durable. */
static inline void fake_record_start(struct fake_bdev *fd)
{
	pthread_mutex_lock(&fd->lock);
	memcpy(fd->base, fd->mem, fd->bd.bd_size);
	fd->record = true;
	pthread_mutex_unlock(&fd->lock);
}

static inline void fake_mark(struct fake_bdev *fd, u64 value)
{
	pthread_mutex_lock(&fd->lock);
	fake_record(fd, FAKE_MARK, value, NULL, 0);
	pthread_mutex_unlock(&fd->lock);
}

/* ---- crash images ---- */

/* Walks the records; `durable` follows, [pend, at) are not yet durable. */
struct fake_crash {
	const struct fake_bdev *fd;
	u8 *durable;
	u32 pend, at;
};

static inline void fake_crash_init(struct fake_crash *c, const struct fake_bdev *fd)
{
	*c = (struct fake_crash){ .fd = fd, .durable = malloc(fd->bd.bd_size) };
	memcpy(c->durable, fd->base, fd->bd.bd_size);
}

static inline void fake_crash_release(struct fake_crash *c)
{
	free(c->durable);
}

/* Takes one more record in; NULL at the end. */
static inline const struct fake_rec *fake_crash_step(struct fake_crash *c)
{
	const struct fake_rec *r;

	if (c->at == c->fd->nr)
		return NULL;
	r = &c->fd->recs[c->at++];
	if (r->kind == FAKE_FLUSH) {
		for (u32 i = c->pend; i < c->at; i++)
			if (c->fd->recs[i].len)
				memcpy(c->durable + c->fd->recs[i].pos, c->fd->recs[i].data,
				       c->fd->recs[i].len);
		c->pend = c->at;
	}
	return r;
}

/*
 * The device after a power cut here. keep: per mille of not yet durable atoms
 * that are there; 1000 all, 0 none. A FUA write is durable when it has ended;
 * last_torn: the last record had not, and is treated like any other.
 */
static inline void fake_crash_image(const struct fake_crash *c, u8 *image, u32 atom,
				    unsigned keep, bool last_torn, unsigned *seed)
{
	memcpy(image, c->durable, c->fd->bd.bd_size);
	for (u32 i = c->pend; i < c->at; i++) {
		const struct fake_rec *r = &c->fd->recs[i];
		bool sure = r->kind == FAKE_FUA && !(last_torn && i == c->at - 1);

		for (u32 off = 0; off < r->len; off += atom)
			if (sure || keep == 1000 || (unsigned)rand_r(seed) % 1000 < keep)
				memcpy(image + r->pos + off, r->data + off,
				       min_of(atom, r->len - off));
	}
}

#endif
