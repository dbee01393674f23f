/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * writeback/aio.c - the libaio back end: a raw device or an image, O_DIRECT
 *
 * A bio carries its own iocb (bi_be), so submitting allocates nothing. At most
 * `depth` bios are under way: a submitter takes slots first, and waits if
 * there are none. The reaper thread takes completions in batches and ends the bios.
 * What needs a second, blocking step (the tail of a short transfer, FUA on a
 * kernel without RWF_DSYNC, a request that io_submit keeps refusing) goes to
 * the helper thread, which finishes it with plain system calls: the reaper never
 * blocks, so completions never wait for each other.
 *
 *   submitter --slots--> io_submit --> kernel --> reaper --> end_io
 *                            \                      | tail, no RWF_DSYNC
 *                             `-- EAGAIN for long --+--> helper --> end_io
 *
 * A single transfer that is waited for is done by its own thread (aio_rw_now).
 *
 * Locks:   work_lock (RANK_BIO), for the helper's queue
 * Alive:   the device, until aio_close() has seen all slots back and joined
 *          both threads; a bio, until it ends: after io_submit accepted it
 *          the submitter must not touch it
 * Never:   end_io that blocks or submits (asserted): it would wait for slots
 *          that only its own thread gives back
 * Source:  io_submit(2), pwritev2(2), open(2) on O_DIRECT. Next: claim.c
 */
#include "claim_internal.h"
#include "lib/log.h"
#include "lib/rcu.h"
#include "lib/thread.h"
#include "lib/wait.h"
#include "writeback/bdev.h"

#include <assert.h>
#include <fcntl.h>
#include <libaio.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define AIO_DEPTH 256
#define AIO_DEPTH_MIN 16
#define AIO_BATCH 64
#define SECTOR_BUFFERED 512u /* alignment that transfers keep without O_DIRECT */
#define AIO_REFUSALS 8 /* of one request, before the helper does it */

struct aio_dev {
	struct bdev bd;  /* first */
	int fd;          /* [const; replaced in place by release_claim, go_writable] */
	int claim;       /* with O_EXCL, once fd is another file; -1 [go_writable] */
	bool claimed;    /* fd, or what it was at first, has O_EXCL [mount time] */
	u64 offset;      /* of the volume in the file, bytes [const] */
	u64 file_size;   /* bytes of the file or device [const] */
	io_context_t ctx; /* [const] */
	u32 depth;       /* [const] */
	_Atomic u32 free_slots;  /* [atomic] key of those who wait for one */
	_Atomic u64 submitted;   /* [atomic] see aio_submit_batch() */
	_Atomic bool no_dsync;   /* [atomic] the kernel lacks RWF_DSYNC here */
	_Atomic int flush_error; /* [atomic] first failed flush; stays */
	struct thread *reaper, *helper;
	struct spinlock work_lock;
	struct cds_list_head work; /* struct aio_work [work_lock] */
	_Atomic u32 nr_work;       /* [work_lock; read atomically] helper's key */
	_Atomic bool stop;         /* [atomic] */
};

/* bi_be while a bio is with the helper; with the kernel it holds the iocb. */
struct aio_work {
	struct cds_list_head link;
	struct bio *bio;
	u32 done; /* bytes */
};

_Static_assert(sizeof(struct iocb) <= sizeof(((struct bio *)0)->bi_be),
	       "a bio has room for an iocb");
_Static_assert(sizeof(struct aio_work) <= sizeof(((struct bio *)0)->bi_be),
	       "a bio has room for its work item");
_Static_assert(BIO_MAX_VECS <= IOV_MAX, "the kernel takes the vector");

/* Set in threads that run end_io. */
static _Thread_local bool on_io_thread;

static struct aio_dev *to_aio(struct bdev *bd)
{
	return container_of_type(bd, struct aio_dev, bd);
}

static void count_retry(struct aio_dev *d)
{
	bdev_count(&d->bd, retries, 1);
}

/* ---- synchronous transfers ---- */

/*
 * fdatasync(2) reports an error once per open file, and what the device lost
 * stays lost: of two flushes at the same time only one would hear of it, and a
 * later one would promise what is not true. So the first error is kept.
 */
static int aio_flush(struct bdev *bd)
{
	struct aio_dev *d = to_aio(bd);
	int err = atomic_load(&d->flush_error), none = 0, rc;

	if (err || bd->bd_readonly)
		return err;
	thread_blocks_begin();
	do {
		rc = fdatasync(d->fd) < 0 ? -errno : 0;
	} while (rc == -EINTR);
	thread_blocks_end();
	if (rc && atomic_compare_exchange_strong(&d->flush_error, &none, rc))
		log_err("%s: flush of the write cache failed: %s; nothing is promised to be durable from here on",
			bd->bd_name, strerror(-rc));
	/* Another one's error may concern what this call should have covered. */
	return rc ? rc : atomic_load(&d->flush_error);
}

static bool is_no_dsync(int err)
{
	return err == -EOPNOTSUPP || err == -EINVAL;
}

/* EINVAL can have other reasons: the caller tries without, which will tell. */
static void set_no_dsync(struct aio_dev *d)
{
	if (!atomic_exchange(&d->no_dsync, true))
		log_info("%s: no RWF_DSYNC; using fdatasync for FUA writes",
			 d->bd.bd_name);
}

/* Copies what follows the first `skip` bytes; returns the segments. */
static int vec_tail(struct iovec *to, const struct iovec *iov, int nr, u32 skip)
{
	int n = 0;

	for (; nr; iov++, nr--) {
		if (skip >= iov->iov_len) {
			skip -= (u32)iov->iov_len;
			continue;
		}
		to[n].iov_base = (char *)iov->iov_base + skip;
		to[n++].iov_len = iov->iov_len - skip;
		skip = 0;
	}
	return n;
}

/*
 * Transfers the bytes [done, bytes) of a request; FUA writes are durable on
 * return. A transfer that stops inside a sector or makes no progress has met
 * the end of the image: -EIO.
 */
static int rw_sync(struct aio_dev *d, enum bio_op op, u64 pos,
		   const struct iovec *iov, int nr, u32 bytes, u32 done, bool fua)
{
	struct iovec rest[BIO_MAX_VECS];
	bool dsync = fua && !atomic_load(&d->no_dsync), plain = done > 0;

	while (done < bytes) {
		const struct iovec *v = iov;
		int n = nr, err;
		ssize_t res;

		if (done) {
			n = vec_tail(rest, iov, nr, done);
			v = rest;
		}
		if (op == BIO_READ)
			res = preadv2(d->fd, v, n, (off_t)(d->offset + pos + done), 0);
		else
			res = pwritev2(d->fd, v, n, (off_t)(d->offset + pos + done),
				       dsync ? RWF_DSYNC : 0);
		if (res < 0) {
			err = -errno;
			if (err == -EINTR)
				continue;
			if (!dsync || !is_no_dsync(err))
				return err;
			set_no_dsync(d);
			dsync = false;
			continue;
		}
		if (!res || (res & (ssize_t)(d->bd.bd_sector - 1)))
			return -EIO;
		plain = plain || !dsync;
		done += (u32)res;
		if (done < bytes)
			count_retry(d);
	}
	return fua && plain ? aio_flush(&d->bd) : 0;
}

static int aio_rw_now(struct bdev *bd, enum bio_op op, u64 pos,
		      const struct iovec *iov, int nr_iov, u32 bytes, u32 flags)
{
	bool fua = op == BIO_WRITE && (flags & BIO_FUA);
	int err;

	assert(!on_io_thread);
	thread_blocks_begin();
	err = rw_sync(to_aio(bd), op, pos, iov, nr_iov, bytes, 0, fua);
	thread_blocks_end();
	return err;
}

/* ---- slots ---- */

/* Takes 1..want slots; sleeps until there is one. */
static unsigned slots_take(struct aio_dev *d, unsigned want)
{
	for (;;) {
		u32 free = atomic_load(&d->free_slots);

		while (free) {
			u32 take = min_of(free, want);

			if (atomic_compare_exchange_weak(&d->free_slots, &free,
							 free - take))
				return take;
		}
		bdev_count(&d->bd, slot_waits, 1);
		wait_event(&d->free_slots, atomic_load(&d->free_slots) > 0);
	}
}

/* Its last act may let aio_close() go on, which then waits for this thread. */
static void slots_give(struct aio_dev *d, unsigned n)
{
	if (!n)
		return;
	atomic_fetch_add(&d->free_slots, n);
	wake_up(&d->free_slots);
}

/* ---- helper ---- */

/* Hands a bio over, slot and all, with its first `done` bytes transferred. */
static void defer(struct aio_dev *d, struct bio *bio, u32 done)
{
	struct aio_work *w = (struct aio_work *)bio->bi_be;

	w->bio = bio;
	w->done = done;
	spin_lock(&d->work_lock);
	cds_list_add_tail(&w->link, &d->work);
	atomic_fetch_add(&d->nr_work, 1);
	spin_unlock(&d->work_lock);
	wake_up(&d->nr_work); /* d may be gone: address only */
}

static void helper_main(void *arg)
{
	struct aio_dev *d = arg;

	on_io_thread = true;
	for (;;) {
		struct aio_work *w;
		struct bio *bio;
		bool fua;
		int err;

		wait_event(&d->nr_work, atomic_load(&d->nr_work) > 0 ||
						atomic_load(&d->stop));
		if (!atomic_load(&d->nr_work))
			return;
		spin_lock(&d->work_lock);
		w = cds_list_first_entry(&d->work, struct aio_work, link);
		cds_list_del(&w->link);
		atomic_fetch_sub(&d->nr_work, 1);
		spin_unlock(&d->work_lock);
		bio = w->bio;
		fua = bio->bi_op == BIO_WRITE && (bio->bi_flags & BIO_FUA);
		err = rw_sync(d, bio->bi_op, bio->bi_pos, bio->bi_iov,
			      bio->bi_nr_iov, bio->bi_bytes, w->done, fua);
		bdev_end_bio(&d->bd, bio, err);
		slots_give(d, 1);
	}
}

/* ---- reaper ---- */

/* Returns whether the bio has ended (its slot is free). */
static bool complete(struct aio_dev *d, struct bio *bio, long res)
{
	bool fua = bio->bi_op == BIO_WRITE && (bio->bi_flags & BIO_FUA);

	if (res == (long)bio->bi_bytes) {
		bdev_end_bio(&d->bd, bio, 0);
		return true;
	}
	if (res == -EINTR || res == -EAGAIN) {
		count_retry(d);
		defer(d, bio, 0);
		return false;
	}
	/* no_dsync may be set by now: others were under way at the same time */
	if (res < 0 && fua && is_no_dsync((int)res)) {
		set_no_dsync(d);
		defer(d, bio, 0);
		return false;
	}
	if (res > 0 && res < (long)bio->bi_bytes &&
	    !(res & (long)(d->bd.bd_sector - 1))) {
		count_retry(d);
		defer(d, bio, (u32)res);
		return false;
	}
	bdev_end_bio(&d->bd, bio, res < 0 ? (int)res : -EIO);
	return true;
}

/* Ends with the event whose data is the device itself (aio_close()). */
static void reaper_main(void *arg)
{
	struct aio_dev *d = arg;
	struct io_event ev[AIO_BATCH];
	bool stop = false;

	on_io_thread = true;
	while (!stop) {
		unsigned ended = 0;
		int n = io_getevents(d->ctx, 1, AIO_BATCH, ev, NULL);

		if (n == -EINTR)
			continue;
		assert(n >= 0); /* EBADF, EFAULT, EINVAL: our own bug */
		/* acquire: pairs with the release in aio_submit_batch() */
		atomic_load_explicit(&d->submitted, memory_order_acquire);
		for (int i = 0; i < n; i++) {
			if (ev[i].data == d)
				stop = true;
			else
				ended += complete(d, ev[i].data, (long)ev[i].res);
		}
		slots_give(d, ended);
	}
}

/* ---- submission ---- */

/* io_submit had no room or memory: until something completes, or a moment. */
static void wait_for_room(struct aio_dev *d, unsigned tries)
{
	u32 before = atomic_load(&d->free_slots);
	u64 until = clock_mono_ns() + ((u64)1000000 << tries) / 4;

	wait_event_deadline(&d->free_slots,
			    atomic_load(&d->free_slots) > before, until);
}

/* The first iocb was refused with an error of its own. */
static void submit_failed(struct aio_dev *d, struct bio *bio, int err)
{
	if (bio->bi_op == BIO_WRITE && (bio->bi_flags & BIO_FUA) &&
	    is_no_dsync(err)) {
		set_no_dsync(d);
		defer(d, bio, 0);
		return;
	}
	bdev_end_bio(&d->bd, bio, err);
	slots_give(d, 1);
}

static void prepare(struct aio_dev *d, struct bio *bio)
{
	struct iocb *io = (struct iocb *)bio->bi_be;
	long long pos = (long long)(d->offset + bio->bi_pos);

	if (bio->bi_op == BIO_READ)
		io_prep_preadv(io, d->fd, bio->bi_iov, bio->bi_nr_iov, pos);
	else
		io_prep_pwritev2(io, d->fd, bio->bi_iov, bio->bi_nr_iov, pos,
				 bio->bi_flags & BIO_FUA ? RWF_DSYNC : 0);
	io->data = bio;
}

/*
 * io_submit takes a prefix of the array. An error concerns the first iocb not
 * taken; those taken may have ended by now and are gone.
 */
static void aio_submit_batch(struct aio_dev *d, struct bio **bios, unsigned n)
{
	struct iocb *io[AIO_BATCH];
	unsigned nr = 0, done = 0, refused = 0;

	for (unsigned i = 0; i < n; i++) {
		if (bios[i]->bi_op == BIO_WRITE &&
		    (bios[i]->bi_flags & BIO_FUA) && atomic_load(&d->no_dsync)) {
			defer(d, bios[i], 0);
			continue;
		}
		prepare(d, bios[i]);
		io[nr++] = (struct iocb *)bios[i]->bi_be;
	}
	/*
	 * release: the reaper reads the counter after it got the event. The
	 * kernel orders the two anyway; this says it in terms that the C memory
	 * model (and TSan) know.
	 */
	atomic_fetch_add_explicit(&d->submitted, nr, memory_order_release);
	while (done < nr) {
		int rc = io_submit(d->ctx, (long)(nr - done), io + done);

		bdev_count(&d->bd, io_submits, 1);
		if (rc > 0) {
			done += (unsigned)rc;
			refused = 0;
			continue;
		}
		if (rc == -EINTR)
			continue;
		if (!rc || rc == -EAGAIN) {
			count_retry(d);
			if (++refused < AIO_REFUSALS)
				wait_for_room(d, refused);
			else
				defer(d, io[done++]->data, 0);
			continue;
		}
		submit_failed(d, io[done++]->data, rc);
		refused = 0;
	}
}

static void aio_submit(struct bdev *bd, struct bio **bios, unsigned n)
{
	struct aio_dev *d = to_aio(bd);

	assert(!on_io_thread);
	/* io_submit(2) itself sleeps when the device's queue is full, and on
	 * an image while its file system allocates or is frozen. */
	thread_blocks_begin();
	while (n) {
		unsigned take = slots_take(d, min_of(n, (unsigned)AIO_BATCH));

		aio_submit_batch(d, bios, take);
		bios += take;
		n -= take;
	}
	thread_blocks_end();
}

/* ---- the rest of the operations ---- */

static int aio_discard(struct bdev *bd, u64 pos, u64 len)
{
	struct aio_dev *d = to_aio(bd);
	u64 range[2] = { d->offset + pos, len };
	int rc;

	thread_blocks_begin();
	if (bd->bd_is_block)
		rc = ioctl(d->fd, BLKDISCARD, range);
	else
		rc = fallocate(d->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       (off_t)range[0], (off_t)range[1]);
	rc = rc < 0 ? -errno : 0;
	thread_blocks_end();
	return rc == -ENOSYS || rc == -ENOTTY ? -EOPNOTSUPP : rc;
}

/* An event for the reaper: a read of no bytes, which does no I/O. */
static void stop_reaper(struct aio_dev *d)
{
	struct iocb io, *p = &io;
	int rc;

	io_prep_pread(&io, d->fd, NULL, 0, (long long)d->offset);
	io.data = d;
	do {
		rc = io_submit(d->ctx, 1, &p);
		if (rc == 0 || rc == -EAGAIN)
			wait_for_room(d, 1);
	} while (rc == 0 || rc == -EAGAIN || rc == -EINTR);
	assert(rc == 1);
	thread_join(d->reaper);
}

static void aio_close(struct bdev *bd)
{
	struct aio_dev *d = to_aio(bd);

	wait_event(&d->free_slots, atomic_load(&d->free_slots) == d->depth);
	atomic_store(&d->stop, true);
	wake_up(&d->nr_work);
	thread_join(d->helper);
	stop_reaper(d);
	io_destroy(d->ctx);
	close(d->fd);
	if (d->claim >= 0)
		close(d->claim);
	spin_destroy(&d->work_lock);
	free(d);
}

static void aio_release_claim(struct bdev *bd)
{
	struct aio_dev *d = to_aio(bd);
	int err;

	if (!bd->bd_is_block)
		return;
	wait_event(&d->free_slots, atomic_load(&d->free_slots) == d->depth);
	err = claim_drop_exclusive(d->fd, bd->bd_readonly);
	if (err)
		log_err("%s: cannot give up the exclusive claim: %s", bd->bd_name,
			strerror(-err));
	else
		d->claimed = false;
}

/* What is under way goes on with the old file. */
static int aio_go_writable(struct bdev *bd, const char *own, const char **why)
{
	struct aio_dev *d = to_aio(bd);
	int err;

	if (d->claimed && d->claim < 0) {
		d->claim = fcntl(d->fd, F_DUPFD_CLOEXEC, 0);
		if (d->claim < 0) {
			*why = "too many open files";
			return -errno;
		}
	}
	thread_blocks_begin();
	err = claim_make_writable(d->fd, bd->bd_is_block, own, why);
	thread_blocks_end();
	return err;
}

static void aio_go_readonly(struct bdev *bd)
{
	claim_make_readonly(to_aio(bd)->fd, bd->bd_is_block);
}

static void set_sector(struct aio_dev *d, u32 sector)
{
	d->bd.bd_sector = sector;
	d->bd.bd_size = ALIGN_DOWN(d->file_size - d->offset, (u64)sector);
}

/* What was read directly before is not in the page cache, which is no harm. */
static int aio_go_buffered(struct bdev *bd)
{
	struct aio_dev *d = to_aio(bd);
	int flags;

	wait_event(&d->free_slots, atomic_load(&d->free_slots) == d->depth);
	flags = fcntl(d->fd, F_GETFL);
	if (flags < 0 || fcntl(d->fd, F_SETFL, flags & ~O_DIRECT) < 0)
		return -errno;
	log_warn("%s: its blocks are smaller than the %u bytes that direct I/O needs here; using buffered I/O",
		 bd->bd_name, bd->bd_sector);
	set_sector(d, SECTOR_BUFFERED);
	return 0;
}

static const struct bdev_ops aio_ops = {
	.submit = aio_submit,
	.flush = aio_flush,
	.discard = aio_discard,
	.close = aio_close,
	.rw_now = aio_rw_now,
	.release_claim = aio_release_claim,
	.go_buffered = aio_go_buffered,
	.go_writable = aio_go_writable,
	.go_readonly = aio_go_readonly,
};

/* ---- open ---- */

/* All users of the machine share fs.aio-max-nr: take less if need be. */
static int setup_context(struct aio_dev *d)
{
	int rc;

	for (d->depth = AIO_DEPTH;; d->depth /= 2) {
		rc = io_setup((int)d->depth, &d->ctx);
		if (rc != -EAGAIN || d->depth / 2 < AIO_DEPTH_MIN)
			return rc;
	}
}

/* The name in messages and in the mount table: absolute. */
static int set_name(struct bdev *bd, const char *path)
{
	char *full = NULL;
	size_t len;

	if (path[0] != '/') {
		full = realpath(path, NULL);
		if (!full)
			return -errno;
		path = full;
	}
	len = strlen(path);
	if (len < sizeof(bd->bd_name))
		memcpy(bd->bd_name, path, len + 1);
	free(full);
	return len < sizeof(bd->bd_name) ? 0 : -ENAMETOOLONG;
}

int bdev_open_aio(const char *path, bool readonly, u64 offset, struct bdev **out,
		  const char **why)
{
	struct claim c;
	struct aio_dev *d;
	int err;

	*why = "";
	err = claim_open(path, readonly, &c, why);
	if (err)
		return err;
	err = -EINVAL;
	*why = "the offset is not a multiple of the sector size";
	if (offset & (c.sector - 1))
		goto out_close;
	*why = "the offset lies beyond the end of the device";
	if (offset >= c.size)
		goto out_close;
	err = -ENOMEM;
	*why = "out of memory";
	d = calloc(1, sizeof(*d));
	if (!d)
		goto out_close;
	d->bd.bd_ops = &aio_ops;
	d->bd.bd_readonly = readonly;
	d->bd.bd_is_block = c.is_block;
	d->fd = c.fd;
	d->claim = -1;
	d->claimed = c.is_block;
	d->offset = offset;
	d->file_size = c.size;
	set_sector(d, c.sector);
	spin_init(&d->work_lock, RANK_BIO);
	CDS_INIT_LIST_HEAD(&d->work);
	*why = "the path is too long";
	err = set_name(&d->bd, path);
	if (err)
		goto out_free;
	*why = "no AIO context left (fs.aio-max-nr)";
	err = setup_context(d);
	if (err && err != -EAGAIN)
		*why = "the kernel refuses asynchronous I/O (io_setup)";
	if (err)
		goto out_free;
	atomic_store(&d->free_slots, d->depth);
	*why = "cannot start the I/O threads";
	err = thread_create(&d->helper, "sl-io-helper", helper_main, d);
	if (err)
		goto out_destroy;
	err = thread_create(&d->reaper, "sl-io-reaper", reaper_main, d);
	if (err)
		goto out_stop_helper;
	*out = &d->bd;
	*why = NULL;
	return 0;

out_stop_helper:
	atomic_store(&d->stop, true);
	wake_up(&d->nr_work);
	thread_join(d->helper);
out_destroy:
	io_destroy(d->ctx);
out_free:
	spin_destroy(&d->work_lock);
	free(d);
out_close:
	close(c.fd);
	return err;
}
