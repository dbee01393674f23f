/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * writeback/bdev.c - what all block devices share: checks, counters, transfers
 * that are waited for, and the backing_ops of the caches
 *
 * A transfer (struct xfer) is cut into bios; each bio that ends drops one
 * count, and the last one completes the transfer. A piece of memory that the
 * device cannot take (not aligned to its sector) goes through a bounce buffer.
 *
 * Locks:   none
 * Alive:   a waited-for xfer is on the waiter's stack: whoever brings `left`
 *          to 0 touches nothing of it afterwards (wake_up() uses the address
 *          only). An asynchronous one is on the heap and freed by the last bio.
 * Threads: any; xfer_*_end run on I/O threads.
 */
#include "writeback/bdev.h"

#include "lib/counter.h"
#include "lib/thread.h"
#include "lib/wait.h"
#include <assert.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Bios of one waited-for transfer that are under way at once: 16 MiB. */
#define XFER_BATCH 32

#define IO_ALIGN 4096u

/* ---- memory ---- */

void *io_alloc(size_t bytes)
{
	void *p;

	if (!bytes || bytes > SIZE_MAX - IO_ALIGN)
		return NULL;
	if (posix_memalign(&p, IO_ALIGN, ALIGN_UP(bytes, IO_ALIGN)))
		return NULL;
	return p;
}

void io_free(void *p)
{
	free(p);
}

/* ---- checks and counters ---- */

static bool is_aligned(const struct bdev *bd, u64 x)
{
	return !(x & (bd->bd_sector - 1));
}

/*
 * Made by the first who counts, so that a device needs no constructor. Without
 * memory for it nothing is counted, until there is some.
 */
static struct counter_set *stats_of(struct bdev *bd)
{
	struct counter_set *set = atomic_load_explicit(&bd->bd_stats,
						       memory_order_acquire);
	struct counter_set *none = NULL, *made;

	if (likely(set))
		return set;
	made = counter_set_new(sizeof(struct bdev_stats) / sizeof(u64));
	if (!made || atomic_compare_exchange_strong(&bd->bd_stats, &none, made))
		return made;
	counter_set_free(made);
	return none;
}

void bdev_count_field(struct bdev *bd, size_t offset, u64 n)
{
	struct counter_set *set = stats_of(bd);

	if (set)
		counter_set_add(set, (unsigned)(offset / sizeof(u64)), n);
}

void bdev_get_stats(struct bdev *bd, struct bdev_stats *st)
{
	struct counter_set *set = stats_of(bd);

	if (set)
		counter_set_read(set, (u64 *)st);
	else
		memset(st, 0, sizeof(*st));
}

/* Appends at *used; what does not fit is left out. */
static void __attribute__((format(printf, 4, 5)))
text_add(char *buf, size_t len, size_t *used, const char *fmt, ...)
{
	va_list ap;
	int n;

	if (*used + 1 >= len)
		return;
	va_start(ap, fmt);
	n = vsnprintf(buf + *used, len - *used, fmt, ap);
	va_end(ap);
	if (n > 0)
		*used = min_of(*used + (size_t)n, len - 1);
}

static void text_hist(char *buf, size_t len, size_t *used, const char *dir,
		      const char *what, const u64 *hist)
{
	text_add(buf, len, used, "%s_%s_sizes", dir, what);
	for (unsigned i = 0; i < BDEV_HIST_NR; i++)
		if (hist[i])
			text_add(buf, len, used, " %u %llu", 512u << i,
				 (unsigned long long)hist[i]);
	text_add(buf, len, used, "\n");
}

static void text_dir(char *buf, size_t len, size_t *used, const char *dir,
		     const struct bdev_dir_stats *d)
{
	static const char *const why[SPLIT_NR] = {
		[SPLIT_FULL] = "full", [SPLIT_DISCONTIG] = "discontiguous",
		[SPLIT_HOLE] = "hole", [SPLIT_LIMIT] = "limit",
		[SPLIT_LAST] = "last",
	};

	text_add(buf, len, used,
		 "%s_bios %llu\n%s_bytes %llu\n%s_meta_bios %llu\n"
		 "%s_meta_bytes %llu\n%s_inline %llu\n",
		 dir, (unsigned long long)d->bios, dir,
		 (unsigned long long)d->bytes, dir,
		 (unsigned long long)d->meta_bios, dir,
		 (unsigned long long)d->meta_bytes, dir,
		 (unsigned long long)d->inline_calls);
	text_hist(buf, len, used, dir, "data", d->hist);
	text_hist(buf, len, used, dir, "meta", d->meta_hist);
	text_add(buf, len, used, "%s_splits", dir);
	for (unsigned i = 0; i < SPLIT_NR; i++)
		text_add(buf, len, used, " %s %llu", why[i],
			 (unsigned long long)d->split[i]);
	text_add(buf, len, used, "\n");
}

size_t bdev_stats_text(struct bdev *bd, char *buf, size_t len)
{
	struct bdev_stats st;
	size_t used = 0;

	if (len)
		buf[0] = '\0';
	bdev_get_stats(bd, &st);
	text_dir(buf, len, &used, "read", &st.dir[BIO_READ]);
	text_dir(buf, len, &used, "write", &st.dir[BIO_WRITE]);
	text_add(buf, len, &used,
		 "batches %llu\nio_submits %llu\nslot_waits %llu\nflushes %llu\n"
		 "io_retries %llu\nio_errors %llu\n",
		 (unsigned long long)st.batches,
		 (unsigned long long)st.io_submits,
		 (unsigned long long)st.slot_waits,
		 (unsigned long long)st.flushes,
		 (unsigned long long)st.retries, (unsigned long long)st.errors);
	return used;
}

static void account(struct bdev *bd, enum bio_op op, u32 bytes, u32 flags)
{
	unsigned i = 0;

	while (i < BDEV_HIST_NR - 1 && bytes > 512u << i)
		i++;
	bdev_count(bd, dir[op].bios, 1);
	bdev_count(bd, dir[op].bytes, bytes);
	if (flags & BIO_META) {
		bdev_count(bd, dir[op].meta_bios, 1);
		bdev_count(bd, dir[op].meta_bytes, bytes);
		bdev_count(bd, dir[op].meta_hist[i], 1);
	} else {
		bdev_count(bd, dir[op].hist[i], 1);
	}
}

/* What a disk or an image can cause: an error, not an assertion. */
static int check_range(const struct bdev *bd, enum bio_op op, u64 pos, u64 len)
{
	if (pos > bd->bd_size || len > bd->bd_size - pos)
		return -ENXIO;
	if (op == BIO_WRITE && bd->bd_readonly)
		return -EROFS;
	return 0;
}

/* What only a bug above can cause. */
static void assert_bio(const struct bdev *bd, const struct bio *bio)
{
	u64 sum = 0;

	assert(bio->bi_end_io);
	assert(bio->bi_bytes > 0);
	assert(bio->bi_bytes <= BIO_MAX_BYTES);
	assert(bio->bi_nr_iov > 0);
	assert(bio->bi_nr_iov <= BIO_MAX_VECS);
	assert(is_aligned(bd, bio->bi_pos));
	for (int i = 0; i < bio->bi_nr_iov; i++) {
		assert(is_aligned(bd, (uintptr_t)bio->bi_iov[i].iov_base));
		assert(is_aligned(bd, bio->bi_iov[i].iov_len));
		sum += bio->bi_iov[i].iov_len;
	}
	assert(sum == bio->bi_bytes);
}

/* ---- the operations ---- */

/* The errors are counted where they end up. */
static int rw_now(struct bdev *bd, enum bio_op op, u64 pos,
		  const struct iovec *iov, int nr_iov, u32 bytes, u32 flags)
{
	account(bd, op, bytes, flags);
	bdev_count(bd, dir[op].inline_calls, 1);
	return bd->bd_ops->rw_now(bd, op, pos, iov, nr_iov, bytes, flags);
}

void bdev_end_bio(struct bdev *bd, struct bio *bio, int error)
{
	if (error)
		bdev_count(bd, errors, 1);
	bio->bi_error = error;
	bio->bi_end_io(bio);
}

/*
 * Runs of good bios go down as they stand; a bad one between them ends here.
 * After it was handed down a bio is not looked at again: it may be gone.
 */
void bdev_submit(struct bdev *bd, struct bio **bios, unsigned n)
{
	unsigned first = 0;
	int err;

	if (!n)
		return;
	thread_might_block();
	bdev_count(bd, batches, 1);
	for (unsigned i = 0; i < n; i++) {
		struct bio *bio = bios[i];

		assert_bio(bd, bio);
		err = check_range(bd, bio->bi_op, bio->bi_pos, bio->bi_bytes);
		if (!err) {
			account(bd, bio->bi_op, bio->bi_bytes, bio->bi_flags);
			continue;
		}
		if (i > first)
			bd->bd_ops->submit(bd, bios + first, i - first);
		first = i + 1;
		bdev_end_bio(bd, bio, err);
	}
	if (n > first)
		bd->bd_ops->submit(bd, bios + first, n - first);
}

void bdev_submit_wait(struct bdev *bd, struct bio *bio)
{
	int err;

	if (!bd->bd_ops->rw_now) {
		bdev_submit(bd, &bio, 1);
		return;
	}
	thread_might_block();
	assert_bio(bd, bio);
	err = check_range(bd, bio->bi_op, bio->bi_pos, bio->bi_bytes);
	if (!err)
		err = rw_now(bd, bio->bi_op, bio->bi_pos, bio->bi_iov,
			     bio->bi_nr_iov, bio->bi_bytes, bio->bi_flags);
	bdev_end_bio(bd, bio, err);
}

int bdev_flush(struct bdev *bd)
{
	int err;

	thread_might_block();
	bdev_count(bd, flushes, 1);
	err = bd->bd_ops->flush(bd);
	if (err)
		bdev_count(bd, errors, 1);
	return err;
}

int bdev_discard(struct bdev *bd, u64 pos, u64 len)
{
	int err;

	if (!is_aligned(bd, pos) || !is_aligned(bd, len))
		return -EINVAL;
	err = check_range(bd, BIO_WRITE, pos, len);
	if (err || !len)
		return err;
	if (!bd->bd_ops->discard)
		return -EOPNOTSUPP;
	return bd->bd_ops->discard(bd, pos, len);
}

void bdev_release_claim(struct bdev *bd)
{
	if (bd->bd_ops->release_claim)
		bd->bd_ops->release_claim(bd);
}

int bdev_go_buffered(struct bdev *bd)
{
	if (!bd->bd_ops->go_buffered)
		return -EOPNOTSUPP;
	thread_might_block();
	return bd->bd_ops->go_buffered(bd);
}

int bdev_go_writable(struct bdev *bd, const char *own, const char **why)
{
	int err;

	*why = "";
	if (!bd->bd_readonly)
		return 0;
	*why = "read-only";
	if (!bd->bd_ops->go_writable)
		return -EROFS;
	thread_might_block();
	err = bd->bd_ops->go_writable(bd, own, why);
	if (!err)
		bd->bd_readonly = false;
	return err;
}

void bdev_go_readonly(struct bdev *bd)
{
	if (!bd->bd_ops->go_readonly)
		return;
	bd->bd_readonly = true;
	bd->bd_ops->go_readonly(bd);
}

void bdev_close(struct bdev *bd)
{
	struct counter_set *set;

	if (!bd)
		return;
	/* close() frees the device, and counts nothing. */
	set = atomic_exchange(&bd->bd_stats, NULL);
	bd->bd_ops->close(bd);
	counter_set_free(set);
}

/* ---- transfers ---- */

struct xfer {
	_Atomic u32 left;  /* bios that have not ended [atomic] */
	_Atomic int error; /* the first [atomic] */
	/* Asynchronous: called by the last bio, the xfer is on the heap. */
	void (*done)(void *priv, int error);
	void *priv;
};

static void xfer_drop(struct xfer *x)
{
	void (*done)(void *, int) = x->done;

	/* acq_rel: the last one sees the errors (and the copies to memory) of
	 * all; a waiter that reads 0 with acquire does too. */
	if (atomic_fetch_sub_explicit(&x->left, 1, memory_order_acq_rel) != 1)
		return;
	if (!done) {
		wake_up(x); /* the waiter's frame may be gone: address only */
		return;
	}
	done(x->priv, atomic_load(&x->error));
	free(x);
}

static void xfer_note_error(struct xfer *x, int error)
{
	int none = 0;

	if (error)
		atomic_compare_exchange_strong(&x->error, &none, error);
}

static void xfer_bio_end(struct bio *bio)
{
	struct xfer *x = bio->bi_private;

	xfer_note_error(x, bio->bi_error);
	bio_free(bio);
	xfer_drop(x);
}

/*
 * In the frame of a caller who waits: a transfer of few pieces needs no
 * memory. (A commit must not fail for want of a few bytes.)
 */
struct spare_bio {
	struct bio bio;
	struct iovec iov[4];
};

static void xfer_spare_end(struct bio *bio)
{
	struct xfer *x = bio->bi_private;

	xfer_note_error(x, bio->bi_error);
	xfer_drop(x); /* the bio may be gone */
}

/* iov[0] is the bounce buffer, iov[1...] the caller's memory. */
static void copy_from_bounce(const struct bio *bio)
{
	const char *src = bio->bi_iov[0].iov_base;
	const struct iovec *piece = &bio->bi_iov[1];
	size_t left = bio->bi_bytes;

	for (; left; piece++) {
		memcpy(piece->iov_base, src, piece->iov_len);
		src += piece->iov_len;
		left -= piece->iov_len;
	}
}

static void xfer_bounced_end(struct bio *bio)
{
	if (bio->bi_op == BIO_READ && !bio->bi_error)
		copy_from_bounce(bio);
	io_free(bio->bi_iov[0].iov_base);
	xfer_bio_end(bio);
}

static void xfer_bio_discard(struct bio *bio)
{
	if (bio->bi_end_io == xfer_bounced_end)
		io_free(bio->bi_iov[0].iov_base);
	if (bio->bi_end_io != xfer_spare_end)
		bio_free(bio);
}

struct vec_iter {
	const struct iovec *iov;
	int nr;
	size_t skip; /* bytes of iov[0] already used */
};

/* Next piece of at most `max` bytes; steps over empty ones. The vector has
 * that much left. */
static struct iovec vec_next(struct vec_iter *it, size_t max)
{
	struct iovec piece;

	while (it->nr && it->skip == it->iov->iov_len) {
		it->iov++;
		it->nr--;
		it->skip = 0;
	}
	assert(it->nr);
	piece.iov_base = (char *)it->iov->iov_base + it->skip;
	piece.iov_len = min_of(max, it->iov->iov_len - it->skip);
	it->skip += piece.iov_len;
	return piece;
}

/* How many bytes, in how many pieces, the next bio takes; does it bounce? */
static u32 measure(const struct bdev *bd, struct vec_iter it, u64 left, int *nr,
		   bool *bounce)
{
	u32 max = (u32)min_of(left, (u64)BIO_MAX_BYTES);
	u32 bytes = 0;

	*nr = 0;
	*bounce = false;
	while (bytes < max) {
		struct iovec p;

		/* A full vector may be cut at a sector only. Of unaligned
		 * pieces any number will do: they bounce into one. */
		if (*nr >= BIO_MAX_VECS && !*bounce && is_aligned(bd, bytes))
			break;
		p = vec_next(&it, max - bytes);
		if (!is_aligned(bd, (uintptr_t)p.iov_base) ||
		    !is_aligned(bd, p.iov_len))
			*bounce = true;
		bytes += (u32)p.iov_len;
		(*nr)++;
	}
	return bytes;
}

/*
 * The next bio of a transfer: takes its part from the iterator. NULL: no
 * memory (nothing was taken). spare: used then, if it will do; may be NULL.
 */
static struct bio *xfer_next_bio(struct bdev *bd, struct xfer *x, enum bio_op op,
				 u64 pos, struct vec_iter *it, u64 left, u32 flags,
				 struct spare_bio *spare)
{
	bool bounce, spared = false;
	int nr;
	u32 bytes = measure(bd, *it, left, &nr, &bounce), at = 0;
	struct bio *bio = bio_alloc(bounce ? nr + 1 : nr);
	struct iovec *piece;

	if (!bio && spare && !bounce && nr <= (int)ARRAY_SIZE(spare->iov)) {
		memset(&spare->bio, 0, sizeof(spare->bio));
		spare->bio.bi_iov = spare->iov;
		bio = &spare->bio;
		spared = true;
	}
	if (!bio)
		return NULL;
	bio->bi_op = op;
	bio->bi_flags = flags;
	bio->bi_pos = pos;
	bio->bi_bytes = bytes;
	bio->bi_nr_iov = nr;
	bio->bi_private = x;
	bio->bi_end_io = spared ? xfer_spare_end : xfer_bio_end;
	piece = bio->bi_iov;
	if (bounce) {
		piece->iov_base = io_alloc(bytes);
		piece->iov_len = bytes;
		if (!piece->iov_base) {
			bio_free(bio);
			return NULL;
		}
		bio->bi_nr_iov = 1;
		bio->bi_end_io = xfer_bounced_end;
		piece++;
	}
	for (; at < bytes; piece++) {
		*piece = vec_next(it, bytes - at);
		if (bounce && op == BIO_WRITE)
			memcpy((char *)bio->bi_iov[0].iov_base + at,
			       piece->iov_base, piece->iov_len);
		at += (u32)piece->iov_len;
	}
	return bio;
}

/* One bio done by this thread, without any queue. */
static int rw_inline(struct bdev *bd, struct bio *bio)
{
	int err;

	thread_might_block();
	err = rw_now(bd, bio->bi_op, bio->bi_pos, bio->bi_iov, bio->bi_nr_iov,
		     bio->bi_bytes, bio->bi_flags);
	if (err)
		bdev_count(bd, errors, 1);
	if (!err && bio->bi_op == BIO_READ && bio->bi_end_io == xfer_bounced_end)
		copy_from_bounce(bio);
	xfer_bio_discard(bio);
	return err;
}

/*
 * Can the whole transfer be one call of this thread, from the caller's vector?
 * It is not cut into bios then: the kernel does that, and has them all under way
 * at once.
 */
static bool fits_inline(const struct bdev *bd, const struct iovec *iov, int nr,
			u64 bytes)
{
	if (!bd->bd_ops->rw_now || bytes > BDEV_INLINE_MAX || nr > BIO_MAX_VECS)
		return false;
	for (int i = 0; i < nr; i++)
		if (!iov[i].iov_len || !is_aligned(bd, iov[i].iov_len) ||
		    !is_aligned(bd, (uintptr_t)iov[i].iov_base))
			return false;
	return true;
}

/* Total of a vector; false if it does not fit what can be transferred. */
static bool vec_bytes(const struct iovec *iov, int nr, u64 *bytes)
{
	*bytes = 0;
	for (int i = 0; i < nr; i++)
		if (__builtin_add_overflow(*bytes, iov[i].iov_len, bytes))
			return false;
	return true;
}

int bdev_rwv(struct bdev *bd, enum bio_op op, u64 pos, const struct iovec *iov,
	     int nr_iov, u32 flags)
{
	struct vec_iter it = { .iov = iov, .nr = nr_iov };
	struct bio *bios[XFER_BATCH];
	u64 left;
	int err;

	if (!vec_bytes(iov, nr_iov, &left) || !is_aligned(bd, pos) ||
	    !is_aligned(bd, left))
		return -EINVAL;
	err = check_range(bd, op, pos, left);
	if (!err && left && fits_inline(bd, iov, nr_iov, left)) {
		thread_might_block();
		err = rw_now(bd, op, pos, iov, nr_iov, (u32)left, flags);
		if (err)
			bdev_count(bd, errors, 1);
		return err;
	}
	while (left && !err) {
		struct xfer x = { 0 };
		struct spare_bio spare;
		unsigned n = 0;

		while (left && n < XFER_BATCH) {
			struct bio *bio = xfer_next_bio(bd, &x, op, pos, &it, left,
							flags, n ? NULL : &spare);
			if (!bio)
				break;
			pos += bio->bi_bytes;
			left -= bio->bi_bytes;
			bios[n++] = bio;
		}
		if (!n)
			return -ENOMEM;
		if (n == 1 && bd->bd_ops->rw_now) {
			err = rw_inline(bd, bios[0]);
			continue;
		}
		atomic_store(&x.left, n);
		bdev_submit(bd, bios, n);
		wait_event(&x, atomic_load(&x.left) == 0);
		err = atomic_load(&x.error);
	}
	return err;
}

int bdev_read(struct bdev *bd, u64 pos, void *buf, size_t len)
{
	struct iovec iov = { .iov_base = buf, .iov_len = len };

	return bdev_rwv(bd, BIO_READ, pos, &iov, 1, 0);
}

int bdev_write(struct bdev *bd, u64 pos, const void *buf, size_t len, u32 flags)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)buf, .iov_len = len };

	return bdev_rwv(bd, BIO_WRITE, pos, &iov, 1, flags);
}

/* ---- backing_ops ---- */

/* Bytes of a range of blocks; false if it is not inside the device. */
static bool backing_range(const struct bdev_backing *b, pblk_t pblk, u32 nr,
			  u64 *pos, u64 *len)
{
	u64 blocks = b->bd->bd_size >> b->blocksize_bits;

	if (pblk > blocks || nr > blocks - pblk)
		return false;
	*pos = pblk << b->blocksize_bits;
	*len = (u64)nr << b->blocksize_bits;
	return true;
}

static int backing_read(void *backing, pblk_t pblk, u32 nr,
			const struct iovec *iov, int nr_iov)
{
	struct bdev_backing *b = backing;
	u64 pos, len, bytes;

	if (!backing_range(b, pblk, nr, &pos, &len))
		return -ENXIO;
	assert(vec_bytes(iov, nr_iov, &bytes) && bytes == len);
	return bdev_rwv(b->bd, BIO_READ, pos, iov, nr_iov, 0);
}

static int backing_read_async(void *backing, pblk_t pblk, u32 nr,
			      const struct iovec *iov, int nr_iov,
			      void (*done)(void *priv, int error), void *priv)
{
	struct bdev_backing *b = backing;
	struct vec_iter it = { .iov = iov, .nr = nr_iov };
	struct bio *few[4], **bios = few, **more;
	unsigned n = 0, room = ARRAY_SIZE(few);
	struct xfer *x;
	u64 pos, left, bytes;

	if (!nr || !backing_range(b, pblk, nr, &pos, &left))
		return -ENXIO;
	assert(vec_bytes(iov, nr_iov, &bytes) && bytes == left);
	assert(is_aligned(b->bd, pos) && is_aligned(b->bd, left));
	x = calloc(1, sizeof(*x));
	if (!x)
		return -ENOMEM;
	x->done = done;
	x->priv = priv;
	while (left) {
		if (n == room) {
			more = malloc(2 * room * sizeof(*bios));
			if (!more)
				goto out_free;
			memcpy(more, bios, n * sizeof(*bios));
			if (bios != few)
				free(bios);
			bios = more;
			room *= 2;
		}
		bios[n] = xfer_next_bio(b->bd, x, BIO_READ, pos, &it, left, 0, NULL);
		if (!bios[n])
			goto out_free;
		pos += bios[n]->bi_bytes;
		left -= bios[n]->bi_bytes;
		n++;
	}
	atomic_store(&x->left, n);
	bdev_submit(b->bd, bios, n);
	if (bios != few)
		free(bios);
	return 0;

out_free:
	while (n)
		xfer_bio_discard(bios[--n]);
	if (bios != few)
		free(bios);
	free(x);
	return -ENOMEM;
}

const struct backing_ops bdev_backing_ops = {
	.read = backing_read,
	.read_async = backing_read_async,
};
