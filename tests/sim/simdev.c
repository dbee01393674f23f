/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/sim/simdev.c - the simulated device (see simdev.h)
 *
 * One in which the caller's thread transfers (rw_now) is what libaio's is like
 * for a single transfer that is waited for; others have no such way.
 *
 * A write's data is copied when it is submitted: from then on the device may
 * have it. Reads see what has ended. A flush covers the writes that had ended
 * when it started, no more, as bdev.h says.
 *
 * Locks: simdev.lock, a leaf; never held over bi_end_io.
 */
#include "tests/sim/simdev.h"

#include "lib/thread.h"
#include "tests/sim/resource.h"

#include <assert.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTOR 512u
#define QUEUE_MAX 4096

/* Without memory the harness can say nothing useful. */
static void *need(void *p)
{
	if (!p)
		abort();
	return p;
}

/* ---- images ---- */

static bool all_pattern(const u8 *p, u32 len)
{
	for (u32 i = 0; i < len; i++)
		if (p[i] != SIM_PATTERN)
			return false;
	return true;
}

struct sim_base *sim_base_load(const char *path, u32 blocksize)
{
	struct sim_base *base;
	struct stat st;
	void *mem;
	u32 pages;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return NULL;
	if (fstat(fd, &st) || st.st_size % SIM_PAGE) {
		close(fd);
		return NULL;
	}
	mem = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (mem == MAP_FAILED)
		return NULL;
	base = need(calloc(1, sizeof(*base)));
	base->size = (u64)st.st_size;
	base->mem = mem;
	base->blocksize = blocksize;
	pages = (u32)(base->size / SIM_PAGE);
	base->useful = need(calloc(1, pages));
	for (u32 i = 0; i < pages; i++)
		base->useful[i] = !all_pattern(base->mem + (u64)i * SIM_PAGE, SIM_PAGE);
	return base;
}

void sim_base_free(struct sim_base *base)
{
	munmap((void *)base->mem, base->size);
	free(base->useful);
	free(base);
}

struct sim_image *sim_image_new(const struct sim_base *base)
{
	struct sim_image *img = need(calloc(1, sizeof(*img)));

	img->base = base;
	img->nr_pages = (u32)(base->size / SIM_PAGE);
	img->page = need(calloc(img->nr_pages, sizeof(*img->page)));
	return img;
}

struct sim_image *sim_image_clone(const struct sim_image *img)
{
	struct sim_image *copy = sim_image_new(img->base);

	for (u32 i = 0; i < img->nr_pages; i++) {
		if (!img->page[i])
			continue;
		copy->page[i] = need(malloc(SIM_PAGE));
		memcpy(copy->page[i], img->page[i], SIM_PAGE);
	}
	return copy;
}

void sim_image_free(struct sim_image *img)
{
	if (!img)
		return;
	for (u32 i = 0; i < img->nr_pages; i++)
		free(img->page[i]);
	free(img->page);
	free(img);
}

static const u8 *image_page(const struct sim_image *img, u32 i)
{
	return img->page[i] ? img->page[i] : img->base->mem + (u64)i * SIM_PAGE;
}

void sim_image_read(const struct sim_image *img, u64 pos, void *buf, u32 len)
{
	u8 *to = buf;

	while (len) {
		u32 off = (u32)(pos % SIM_PAGE), n = min_of(len, SIM_PAGE - off);

		memcpy(to, image_page(img, (u32)(pos / SIM_PAGE)) + off, n);
		pos += n;
		to += n;
		len -= n;
	}
}

void sim_image_write(struct sim_image *img, u64 pos, const void *buf, u32 len)
{
	const u8 *from = buf;

	while (len) {
		u32 i = (u32)(pos / SIM_PAGE);
		u32 off = (u32)(pos % SIM_PAGE), n = min_of(len, SIM_PAGE - off);

		if (!img->page[i]) {
			u8 *own = need(malloc(SIM_PAGE));

			memcpy(own, img->base->mem + (u64)i * SIM_PAGE, SIM_PAGE);
			img->page[i] = own;
		}
		memcpy(img->page[i] + off, from, n);
		pos += n;
		from += n;
		len -= n;
	}
}

int sim_image_save(const struct sim_image *img, const char *path, u64 from, u64 to,
		   bool whole)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	int err = 0;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)(to - from)))
		err = -errno;
	for (u64 at = from; at < to && !err; at += SIM_PAGE) {
		u32 i = (u32)(at / SIM_PAGE);

		if (!whole && !img->page[i] && !img->base->useful[i])
			continue;
		if (pwrite(fd, image_page(img, i), SIM_PAGE, (off_t)(at - from)) != SIM_PAGE)
			err = -EIO;
	}
	close(fd);
	return err;
}

int sim_image_load(struct sim_image *img, const char *path, u64 from, u64 to)
{
	u8 page[SIM_PAGE];
	int fd = open(path, O_RDONLY | O_CLOEXEC), err = 0;

	if (fd < 0)
		return -errno;
	for (u64 at = from; at < to && !err; at += SIM_PAGE) {
		if (pread(fd, page, SIM_PAGE, (off_t)(at - from)) != SIM_PAGE)
			err = -EIO;
		else if (memcmp(page, image_page(img, (u32)(at / SIM_PAGE)), SIM_PAGE))
			sim_image_write(img, at, page, SIM_PAGE);
	}
	close(fd);
	return err;
}

/* ---- the log ---- */

void sim_log_init(struct sim_log *log)
{
	memset(log, 0, sizeof(*log));
}

void sim_log_release(struct sim_log *log)
{
	for (u32 i = 0; i < log->nr_wr; i++)
		free(log->wr[i].data);
	free(log->wr);
	free(log->ev);
	sim_log_init(log);
}

static u32 log_event(struct sim_log *log, enum sim_event_kind kind, u32 arg, u32 arg2)
{
	if (log->nr_ev == log->max_ev) {
		log->max_ev = log->max_ev ? 2 * log->max_ev : 1024;
		log->ev = need(realloc(log->ev, log->max_ev * sizeof(*log->ev)));
	}
	log->ev[log->nr_ev] = (struct sim_event){ kind, arg, arg2 };
	return log->nr_ev++;
}

/* Takes data over. */
static u32 log_submit(struct sim_log *log, const struct bio *bio, u64 pos, bool second,
		      u8 *data)
{
	struct sim_write *w;

	/* Those in flight are few and young. */
	for (u32 i = log->nr_wr, n = 0; i-- > 0 && n < QUEUE_MAX; n++) {
		w = &log->wr[i];
		if (w->end == SIM_NEVER && w->pos < pos + bio->bi_bytes &&
		    pos < w->pos + w->len) {
			log->overlaps++;
			log->overlap_pos = pos;
		}
	}
	if (log->nr_wr == log->max_wr) {
		log->max_wr = log->max_wr ? 2 * log->max_wr : 256;
		log->wr = need(realloc(log->wr, log->max_wr * sizeof(*log->wr)));
	}
	w = &log->wr[log->nr_wr];
	*w = (struct sim_write){ .pos = pos,
				 .len = bio->bi_bytes,
				 .fua = bio->bi_flags & BIO_FUA,
				 .second = second,
				 .end = SIM_NEVER,
				 .durable = SIM_NEVER };
	w->data = data;
	w->submit = log_event(log, SIM_SUBMIT, log->nr_wr, 0);
	return log->nr_wr++;
}

void sim_log_finish(struct sim_log *log)
{
	/* started[f]: the event at which flush f began */
	u32 *started = need(calloc(log->nr_flushes + 1, sizeof(*started)));
	u32 first = 0; /* all writes before it are durable or have failed */

	for (u32 e = 0; e < log->nr_ev; e++) {
		struct sim_event *ev = &log->ev[e];

		if (ev->kind == SIM_FLUSH_START)
			started[ev->arg] = e;
		if (ev->kind == SIM_END && log->wr[ev->arg].fua &&
		    !log->wr[ev->arg].failed)
			log->wr[ev->arg].durable = e;
		if (ev->kind != SIM_FLUSH_END)
			continue;
		for (u32 i = first; i < log->nr_wr && log->wr[i].submit < e; i++) {
			struct sim_write *w = &log->wr[i];

			if (w->durable == SIM_NEVER && !w->failed &&
			    w->second == ev->arg2 && w->end < started[ev->arg])
				w->durable = e;
			if (i == first && (w->durable != SIM_NEVER || w->failed))
				first++;
		}
	}
	free(started);
}

/* ---- the device ---- */

struct pending {
	struct bio *bio;
	struct face *face;
	u64 pos;   /* in the image */
	u32 write; /* number in the log */
	u8 *data;  /* of a write: as it was when submitted; the log's, if there is one */
	bool refused;
};

/* What callers have: the device, or one of the two that it is split into. */
struct face {
	struct bdev bd; /* first */
	struct simdev *sd;
	u64 start;      /* in the image [const] */
	bool second;    /* [const] */
};

struct simdev {
	struct face face[2]; /* the second one is used with a split */
	u32 open;            /* [lock] faces that are not closed */
	pthread_mutex_t lock;
	pthread_cond_t more; /* the queue has something, or stop */
	pthread_cond_t room;
	struct simdev_config cfg; /* [const] */
	struct sim_image *img;    /* [lock] what reads see */
	struct sim_log *log;      /* [lock] may be NULL */
	struct rng rng;           /* [lock] */
	u32 count[SIM_FAULT_NR];  /* [lock] of each so far */
	struct pending queue[QUEUE_MAX]; /* [lock] */
	u32 queued;                      /* [lock] */
	bool stop, keep, hit;            /* [lock] */
	struct thread *thread;           /* [const] */
};

static struct face *face_of(struct bdev *bd)
{
	return container_of_type(bd, struct face, bd);
}

static struct simdev *simdev_of(struct bdev *bd)
{
	return face_of(bd)->sd;
}

static struct pending pending_of(struct bdev *bd, struct bio *bio)
{
	struct face *f = face_of(bd);

	return (struct pending){ .bio = bio, .face = f, .pos = f->start + bio->bi_pos };
}

/* Allocations of the device itself never fail on demand. */
static void dev_lock(struct simdev *sd)
{
	resource_exempt_begin();
	pthread_mutex_lock(&sd->lock);
}

static void dev_unlock(struct simdev *sd)
{
	pthread_mutex_unlock(&sd->lock);
	resource_exempt_end();
}

/* Counts one operation; true if it is one that fails. lock held. */
static bool fails(struct simdev *sd, enum sim_fault_op op)
{
	const struct sim_fault *f = &sd->cfg.fault;
	u32 n = sd->count[op]++;

	if (f->op != op || (f->forever ? n < f->nth : n != f->nth))
		return false;
	sd->hit = true;
	return true;
}

/*
 * File data may change while it is on its way (it is dirty again then, and
 * written once more): a race that is meant, which TSan need not see. Words of
 * sectors; volatile, lest it becomes a memcpy(), which TSan watches.
 */
__attribute__((no_sanitize("thread")))
static void copy_changing(u8 *to, const u8 *from, u32 len)
{
	for (u32 i = 0; i < len; i += sizeof(u64))
		*(u64 *)(to + i) = *(const volatile u64 *)(from + i);
}

static u8 *copy_of(const struct bio *bio)
{
	u8 *data = need(malloc(bio->bi_bytes));
	u32 at = 0;

	for (int i = 0; i < bio->bi_nr_iov; i++) {
		u32 len = (u32)bio->bi_iov[i].iov_len;

		if (bio->bi_flags & BIO_META)
			memcpy(data + at, bio->bi_iov[i].iov_base, len);
		else
			copy_changing(data + at, bio->bi_iov[i].iov_base, len);
		at += len;
	}
	return data;
}

/* The primary superblock is written in place and is exempt from tearing. */
static bool holds_super(u64 pos, u32 len)
{
	return pos < 2048 && pos + len > 1024;
}

static void copy_in(struct simdev *sd, const struct pending *p, bool some)
{
	u32 bytes = p->bio->bi_bytes;
	u32 atom = holds_super(p->pos, bytes) ? sd->img->base->blocksize : SECTOR;

	if (!some)
		sim_image_write(sd->img, p->pos, p->data, bytes);
	for (u32 off = 0; some && off < bytes; off += atom)
		if (rng_chance(&sd->rng, 50))
			sim_image_write(sd->img, p->pos + off, p->data + off,
					min_of(atom, bytes - off));
}

/* len: from the start */
static void copy_out(struct simdev *sd, const struct pending *p, u32 len)
{
	const struct bio *bio = p->bio;
	u64 pos = p->pos;

	for (int i = 0; i < bio->bi_nr_iov && len; i++) {
		u32 n = min_of((u32)bio->bi_iov[i].iov_len, len);

		sim_image_read(sd->img, pos, bio->bi_iov[i].iov_base, n);
		pos += n;
		len -= n;
	}
}

static u32 some_sectors(struct simdev *sd, const struct bio *bio)
{
	return rng_below(&sd->rng, bio->bi_bytes / SECTOR) * SECTOR;
}

static int transfer(struct simdev *sd, struct pending *p)
{
	struct bio *bio = p->bio;
	int err = 0;

	dev_lock(sd);
	if (bio->bi_op == BIO_READ) {
		if (p->refused || fails(sd, SIM_FAULT_READ))
			err = -EIO;
		if (!err)
			copy_out(sd, p, bio->bi_bytes);
		else if (sd->cfg.fault.partial && !p->refused)
			copy_out(sd, p, some_sectors(sd, bio));
	} else {
		if (p->refused || fails(sd, SIM_FAULT_WRITE))
			err = -EIO;
		if (!err || (sd->cfg.fault.partial && !p->refused))
			copy_in(sd, p, err != 0);
		if (sd->log) {
			struct sim_write *w = &sd->log->wr[p->write];

			w->failed = err != 0;
			if (sd->cfg.lying)
				w->fua = false;
			w->end = log_event(sd->log, SIM_END, p->write, 0);
		} else {
			free(p->data);
		}
	}
	dev_unlock(sd);
	return err;
}

static void end_one(struct simdev *sd, struct pending *p)
{
	bdev_end_bio(&p->face->bd, p->bio, transfer(sd, p));
}

/* The caller sleeps meanwhile; others go on. */
static int simdev_rw_now(struct bdev *bd, enum bio_op op, u64 pos,
			 const struct iovec *iov, int nr_iov, u32 bytes, u32 flags)
{
	struct simdev *sd = simdev_of(bd);
	struct bio bio = {
		.bi_op = op,
		.bi_flags = flags,
		.bi_pos = pos,
		.bi_bytes = bytes,
		.bi_nr_iov = nr_iov,
		.bi_iov = (struct iovec *)(uintptr_t)iov,
	};
	struct pending p = pending_of(bd, &bio);

	dev_lock(sd);
	if (op == BIO_WRITE)
		p.data = copy_of(&bio);
	if (p.data && sd->log)
		p.write = log_submit(sd->log, &bio, p.pos, p.face->second, p.data);
	p.refused = fails(sd, SIM_FAULT_SUBMIT);
	dev_unlock(sd);
	if (sd->cfg.delay_us)
		usleep(sd->cfg.delay_us);
	return transfer(sd, &p);
}

/* With lock held, which is dropped around the end. */
static void end_any(struct simdev *sd)
{
	u32 i = rng_below(&sd->rng, sd->queued);
	struct pending p = sd->queue[i];
	bool stall = sd->cfg.stall_ms && !rng_below(&sd->rng, 40);

	sd->queue[i] = sd->queue[--sd->queued];
	pthread_cond_signal(&sd->room);
	dev_unlock(sd);
	if (sd->cfg.delay_us)
		usleep(sd->cfg.delay_us);
	if (stall)
		usleep(sd->cfg.stall_ms * 1000);
	end_one(sd, &p);
	dev_lock(sd);
}

static void simdev_thread(void *arg)
{
	struct simdev *sd = arg;

	dev_lock(sd);
	while (!sd->stop || sd->queued) {
		if (sd->queued)
			end_any(sd);
		else
			pthread_cond_wait(&sd->more, &sd->lock);
	}
	dev_unlock(sd);
}

/* With lock held, which is dropped around each end. */
static void end_own(struct simdev *sd, struct pending *own, u32 *nr)
{
	while (*nr) {
		u32 k = rng_below(&sd->rng, *nr);
		struct pending p = own[k];

		own[k] = own[--*nr];
		dev_unlock(sd);
		end_one(sd, &p);
		dev_lock(sd);
	}
}

static void simdev_submit(struct bdev *bd, struct bio **bios, unsigned n)
{
	struct simdev *sd = simdev_of(bd);
	struct pending own[64];
	u32 nr = 0;

	dev_lock(sd);
	for (unsigned i = 0; i < n; i++) {
		struct pending p = pending_of(bd, bios[i]);

		if (bios[i]->bi_op == BIO_WRITE)
			p.data = copy_of(bios[i]);
		if (p.data && sd->log)
			p.write = log_submit(sd->log, bios[i], p.pos, p.face->second,
					     p.data);
		p.refused = fails(sd, SIM_FAULT_SUBMIT);
		if (p.refused) {
			dev_unlock(sd);
			end_one(sd, &p);
			dev_lock(sd);
			continue;
		}
		if (sd->cfg.threaded) {
			while (sd->queued == QUEUE_MAX)
				pthread_cond_wait(&sd->room, &sd->lock);
			sd->queue[sd->queued++] = p;
			pthread_cond_signal(&sd->more);
			continue;
		}
		/* Inside submit, in any order of up to 64. */
		own[nr++] = p;
		if (nr == ARRAY_SIZE(own))
			end_own(sd, own, &nr);
	}
	end_own(sd, own, &nr);
	dev_unlock(sd);
}

static int simdev_flush(struct bdev *bd)
{
	struct simdev *sd = simdev_of(bd);
	bool second = face_of(bd)->second;
	int err = 0;
	u32 nr;

	dev_lock(sd);
	nr = sd->count[SIM_FAULT_FLUSH];
	if (fails(sd, SIM_FAULT_FLUSH))
		err = -EIO;
	else if (sd->log && !sd->cfg.lying && sd->cfg.drop_flush != nr + 1)
		nr = sd->log->nr_flushes++;
	else
		nr = SIM_NEVER;
	if (!err && nr != SIM_NEVER)
		log_event(sd->log, SIM_FLUSH_START, nr, second);
	dev_unlock(sd);
	if (err || nr == SIM_NEVER)
		return err;
	/* What ends in between is not covered. */
	if (sd->cfg.delay_us)
		usleep(sd->cfg.delay_us);
	dev_lock(sd);
	log_event(sd->log, SIM_FLUSH_END, nr, second);
	dev_unlock(sd);
	return 0;
}

static void simdev_close(struct bdev *bd)
{
	struct simdev *sd = simdev_of(bd);
	u32 left;

	dev_lock(sd);
	left = --sd->open;
	dev_unlock(sd);
	if (left)
		return;
	if (sd->thread) {
		dev_lock(sd);
		sd->stop = true;
		pthread_cond_signal(&sd->more);
		dev_unlock(sd);
		thread_join(sd->thread);
	}
	if (sd->cfg.counts)
		memcpy(sd->cfg.counts, sd->count, sizeof(sd->count));
	if (!sd->keep)
		sim_image_free(sd->img);
	pthread_cond_destroy(&sd->more);
	pthread_cond_destroy(&sd->room);
	pthread_mutex_destroy(&sd->lock);
	free(sd);
}

struct bdev *simdev_create(struct sim_image *img, const struct simdev_config *cfg,
			   struct sim_log *log)
{
	static const struct bdev_ops ops = {
		.submit = simdev_submit,
		.flush = simdev_flush,
		.close = simdev_close,
	};
	static const struct bdev_ops ops_now = {
		.submit = simdev_submit,
		.flush = simdev_flush,
		.close = simdev_close,
		.rw_now = simdev_rw_now,
	};
	struct simdev *sd;

	resource_exempt_begin();
	sd = need(calloc(1, sizeof(*sd)));
	for (u32 i = 0; i < (cfg->split ? 2 : 1); i++) {
		struct face *f = &sd->face[i];

		f->sd = sd;
		f->second = i;
		f->start = i ? cfg->split : 0;
		f->bd.bd_ops = cfg->now ? &ops_now : &ops;
		f->bd.bd_size = (i || !cfg->split ? img->base->size : cfg->split) - f->start;
		f->bd.bd_sector = SECTOR;
		strcpy(f->bd.bd_name, i ? "sim-log" : "sim");
		sd->open++;
	}
	pthread_mutex_init(&sd->lock, NULL);
	pthread_cond_init(&sd->more, NULL);
	pthread_cond_init(&sd->room, NULL);
	sd->cfg = *cfg;
	sd->img = img;
	sd->log = log;
	sd->rng = rng_derive(cfg->seed, 0xDE71CE);
	if (cfg->threaded && thread_create(&sd->thread, "simdev", simdev_thread, sd))
		abort();
	resource_exempt_end();
	return &sd->face[0].bd;
}

struct bdev *simdev_second(struct bdev *bd)
{
	struct simdev *sd = simdev_of(bd);

	return sd->cfg.split ? &sd->face[1].bd : NULL;
}

void simdev_mark(struct bdev *bd, u32 arg, u32 arg2)
{
	struct simdev *sd = simdev_of(bd);

	dev_lock(sd);
	if (sd->log)
		log_event(sd->log, SIM_MARK, arg, arg2);
	dev_unlock(sd);
}

void simdev_keep_image(struct bdev *bd)
{
	struct simdev *sd = simdev_of(bd);

	dev_lock(sd);
	sd->keep = true;
	dev_unlock(sd);
}

bool simdev_fault_hit(struct bdev *bd)
{
	struct simdev *sd = simdev_of(bd);
	bool hit;

	dev_lock(sd);
	hit = sd->hit;
	dev_unlock(sd);
	return hit;
}

/* ---- power cuts ---- */

void sim_crash_init(struct sim_crash *c, const struct sim_log *log,
		    const struct sim_base *base)
{
	*c = (struct sim_crash){ .log = log,
				 .sure = sim_image_new(base),
				 .blocksize = base->blocksize };
}

void sim_crash_release(struct sim_crash *c)
{
	sim_image_free(c->sure);
}

void sim_crash_seek(struct sim_crash *c, u32 n)
{
	assert(n >= c->at);
	c->at = n;
	while (c->folded < c->log->nr_wr) {
		const struct sim_write *w = &c->log->wr[c->folded];

		/* Later writes go on top: only a gapless start can be folded. */
		if (w->durable >= n)
			return;
		sim_image_write(c->sure, w->pos, w->data, w->len);
		c->folded++;
	}
}

static void put_parts(struct sim_image *img, const struct sim_write *w, u32 atom, u32 keep,
		      struct rng *rng)
{
	for (u32 off = 0; off < w->len; off += atom)
		if (rng_below(rng, 1000) < keep)
			sim_image_write(img, w->pos + off, w->data + off,
					min_of(atom, w->len - off));
}

struct sim_image *sim_crash_image(const struct sim_crash *c, enum sim_cut cut, bool torn,
				  struct rng *rng, u32 *doubt)
{
	struct sim_image *img = sim_image_clone(c->sure);
	u32 keep = 1 + rng_below(rng, 999), nr = 0, chosen, k = 0;

	for (u32 i = c->folded; i < c->log->nr_wr && c->log->wr[i].submit < c->at; i++)
		nr += c->log->wr[i].durable >= c->at;
	*doubt = nr;
	chosen = nr ? rng_below(rng, nr) : 0;
	for (u32 i = c->folded; i < c->log->nr_wr && c->log->wr[i].submit < c->at; i++) {
		const struct sim_write *w = &c->log->wr[i];
		u32 atom = torn && !holds_super(w->pos, w->len) ? SECTOR : c->blocksize;
		bool there;

		if (w->durable < c->at) {
			sim_image_write(img, w->pos, w->data, w->len);
			continue;
		}
		there = cut == SIM_CUT_ALL || (cut == SIM_CUT_ENDED && w->end < c->at) ||
			(cut == SIM_CUT_ONE && k == chosen) ||
			(cut == SIM_CUT_BUT_ONE && k != chosen);
		if (cut == SIM_CUT_RANDOM || (there && torn && k == chosen))
			put_parts(img, w, atom, keep, rng);
		else if (there)
			sim_image_write(img, w->pos, w->data, w->len);
		k++;
	}
	return img;
}
