/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/journal/recovery.c - replay of the log after a crash
 *
 * Three passes.
 *   SCAN    walks the log from s_start, transaction by transaction, as long as
 *           each has a valid commit block, and checks everything that has a
 *           checksum, images included. What it finds is noted: one record per
 *           image, one per revoke block.
 *   REVOKE  reads the noted revoke blocks: for each block its latest revoke.
 *   REPLAY  of the images that are not revoked the latest of each block is
 *           written, a batch at a time, sorted.
 * Nothing is written before SCAN and REVOKE have gone through, so a log that
 * is damaged in its middle changes nothing on the device.
 *
 * The end of the log is where a block does not have the magic number and the
 * expected transaction number. The log area may hold an older log, even one
 * whose numbers coincide (mkfs does not always zero it); its checksums are
 * wrong, being seeded by its UUID, and its commit times are older. So a wrong
 * checksum under a commit block with a time before that of its predecessor
 * ends the log, with a later time it is damage and an error.
 *
 * A torn last commit block (its first 512 bytes valid, the rest not written)
 * is taken as whole, like kernels since 6.11 do: all other blocks were flushed
 * before it was written, so the transaction is complete.
 *
 * A hostile log: SCAN moves at most once around the ring, so records are
 * bounded by its length, and revoke entries by what fits in it; targets are
 * outside the journal, and checked by ops->replay_ok(). No recursion.
 *
 * Locks: none; nobody else uses the journal yet.
 * Source: format brief 10, 11.13; fs/jbd2/recovery.c for what kernels accept.
 */
#include "fs/journal/journal_internal.h"
#include "lib/crc.h"
#include "lib/log.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define WINDOW_BYTES (512u * 1024)
#define COMMIT_SECTOR 512u

struct rec_image {
	u32 jblk;
	u32 seq;
	pblk_t target;
	u16 flags;
	bool skip;
	u32 csum;
};

struct rec_revoke {
	u32 jblk;
	u32 seq;
};

/* A growing array of either. */
struct rec_list {
	void *at;
	u32 nr, max;
};

struct recovery {
	struct journal *j;
	struct journal_recovery_stats *st;

	u8 *window;          /* blocks [win_start, win_start + win_nr) of the log */
	u32 win_start, win_nr;

	struct rec_list images, revokes;
	u32 nr_images, nr_revokes; /* of complete transactions */
	u32 next_seq;        /* first number that is not complete */
	u32 walked;          /* blocks, at most the ring */
	struct revoke_map map;
};

/* ---- reading the log ---- */

/* The log block; valid until the next call. */
static int log_block(struct recovery *r, u32 jblk, u8 **out)
{
	struct journal *j = r->j;

	if (jblk < r->win_start || jblk - r->win_start >= r->win_nr) {
		u32 run, nr;
		pblk_t p = journal_map(j, jblk, &run);
		int err;

		nr = min_of(run, WINDOW_BYTES / j->blocksize);
		r->win_nr = 0;
		err = bdev_read(j->log_bd, p * j->blocksize, r->window,
				(size_t)nr * j->blocksize);
		if (err) {
			log_err("%s: journal: cannot read log blocks %u to %u: error %d",
				j->sb->s_id, jblk, jblk + nr - 1, -err);
			return err;
		}
		r->win_start = jblk;
		r->win_nr = nr;
	}
	*out = r->window + (size_t)(jblk - r->win_start) * j->blocksize;
	return 0;
}

static int rec_add(struct rec_list *l, const void *rec, size_t size, u32 bound)
{
	if (l->nr == l->max) {
		u32 max = l->max ? l->max * 2 : 256;
		void *at;

		assert(l->nr < bound);
		max = min_of(max, bound);
		at = realloc(l->at, max * size);
		if (!at)
			return -ENOMEM;
		l->at = at;
		l->max = max;
	}
	memcpy((u8 *)l->at + l->nr++ * size, rec, size);
	return 0;
}

static bool has_csum(const struct journal *j)
{
	return j->csum_v2 || j->csum_v3;
}

static bool block_csum_ok(const struct journal *j, const u8 *block)
{
	struct jbd2_tail tail;

	if (!has_csum(j))
		return true;
	memcpy(&tail, block + j->blocksize - sizeof(tail), sizeof(tail));
	return be32_to_cpu(tail.t_checksum) == journal_block_csum(j, block);
}

static bool image_csum_ok(const struct journal *j, const struct rec_image *im, const u8 *image)
{
	u32 csum;

	if (!has_csum(j))
		return true;
	csum = journal_image_csum(j, im->seq, image);
	return j->csum_v3 ? csum == im->csum : (csum & 0xFFFF) == im->csum;
}

/* ---- SCAN ---- */

/* The transaction being walked. */
struct scan {
	u32 at;        /* log block looked at */
	u32 seq;
	u32 crc;       /* v1: over all blocks of the transaction */
	bool bad;      /* a checksum of its blocks was wrong */
	u32 bad_blk;   /* the first one */
	u64 last_time; /* of the last complete transaction */
};

static void scan_bad(struct scan *s, u32 jblk)
{
	if (!s->bad)
		s->bad_blk = jblk;
	s->bad = true;
}

/* Goes on by one block; false: once around, there can be no more. */
static bool scan_advance(struct recovery *r, struct scan *s)
{
	s->at = ring_add(r->j, s->at, 1);
	return ++r->walked < r->j->ring;
}

/* One tag at `at` (room is checked by the caller). */
static void tag_get(const struct journal *j, const u8 *at, struct rec_image *im)
{
	bool wide = j->incompat & JBD2_INCOMPAT_64BIT;

	if (j->csum_v3) {
		struct jbd2_tag3 tag;

		memcpy(&tag, at, sizeof(tag));
		im->target = be32_to_cpu(tag.t_blocknr);
		if (wide)
			im->target |= (u64)be32_to_cpu(tag.t_blocknr_high) << 32;
		im->flags = (u16)be32_to_cpu(tag.t_flags);
		im->csum = be32_to_cpu(tag.t_checksum);
	} else {
		struct jbd2_tag tag = { 0 };

		memcpy(&tag, at, wide ? 12 : 8);
		im->target = be32_to_cpu(tag.t_blocknr);
		if (wide)
			im->target |= (u64)be32_to_cpu(tag.t_blocknr_high) << 32;
		im->flags = be16_to_cpu(tag.t_flags);
		im->csum = be16_to_cpu(tag.t_checksum);
	}
}

/*
 * Notes the images of the descriptor at s->at and goes past them.
 * 1: the ring is used up. The walk goes over image blocks, which may replace
 * the window: so tags are read first, images checked after.
 */
static int scan_descriptor(struct recovery *r, struct scan *s, const u8 *block)
{
	struct journal *j = r->j;
	u32 size = j->blocksize - (has_csum(j) ? sizeof(struct jbd2_tail) : 0);
	u32 off = sizeof(struct jbd2_header);
	u32 first = r->images.nr, at = s->at, walked = r->walked;
	struct rec_image im = { .seq = s->seq };
	int err;

	do {
		if (off + j->tag_bytes > size)
			break; /* no LAST flag: kernels take this as the end */
		if (++walked >= j->ring)
			return 1;
		tag_get(j, block + off, &im);
		at = ring_add(j, at, 1);
		im.jblk = at;
		err = rec_add(&r->images, &im, sizeof(im), j->ring);
		if (err)
			return err;
		off += j->tag_bytes;
		if (!(im.flags & JBD2_TAG_SAME_UUID))
			off += JBD2_UUID_SIZE;
	} while (!(im.flags & JBD2_TAG_LAST));

	if (!scan_advance(r, s))
		return 1;
	for (u32 i = first; i < r->images.nr; i++) {
		struct rec_image *rec = &((struct rec_image *)r->images.at)[i];
		u8 *image;

		if (has_csum(j) || j->compat & JBD2_COMPAT_CHECKSUM) {
			err = log_block(r, rec->jblk, &image);
			if (err)
				return err;
			s->crc = crc32_be(s->crc, image, j->blocksize);
			if (!image_csum_ok(j, rec, image))
				scan_bad(s, rec->jblk);
		}
		if (!scan_advance(r, s))
			return 1;
	}
	return 0;
}

/* v1: the commit block holds a crc of the transaction, or nothing at all. */
static bool v1_csum_ok(const struct journal *j, const struct jbd2_commit_header *ch, u32 crc)
{
	if (!(j->compat & JBD2_COMPAT_CHECKSUM))
		return true;
	if (ch->h_chksum_type == JBD2_CRC32_CHKSUM && ch->h_chksum_size == 4)
		return be32_to_cpu(ch->h_chksum[0]) == crc;
	return !ch->h_chksum_type && !ch->h_chksum_size && !be32_to_cpu(ch->h_chksum[0]);
}

/* *torn: only its first sector was written; that one is valid. */
static bool commit_csum_ok(const struct journal *j, u8 *block, bool *torn)
{
	const struct jbd2_commit_header *ch = (const void *)block;

	*torn = false;
	if (!has_csum(j) || be32_to_cpu(ch->h_chksum[0]) == journal_commit_csum(j, block))
		return true;
	memset(block + COMMIT_SECTOR, 0, j->blocksize - COMMIT_SECTOR);
	*torn = true;
	return be32_to_cpu(ch->h_chksum[0]) == journal_commit_csum(j, block);
}

/* 0: the transaction is complete; 1: the log ends before it; or an error. */
static int scan_commit(struct recovery *r, struct scan *s, u8 *block)
{
	struct journal *j = r->j;
	struct jbd2_commit_header ch;
	bool torn, ok;
	u64 time;

	memcpy(&ch, block, sizeof(ch));
	time = be64_to_cpu(ch.h_commit_sec);
	ok = commit_csum_ok(j, block, &torn);
	if (ok && !s->bad && v1_csum_ok(j, &ch, s->crc)) {
		if (torn)
			log_info("%s: journal: commit block of transaction %u is torn; it is complete",
				 j->sb->s_id, s->seq);
		s->last_time = time;
		j->last_commit_sec = time;
		j->last_commit_nsec = be32_to_cpu(ch.h_commit_nsec);
		return 0;
	}
	if (time < s->last_time) {
		log_debug("%s: journal: log ends before transaction %u: older log there",
			  j->sb->s_id, s->seq);
		return 1;
	}
	/* Asynchronous commits are written together with their blocks. */
	if (j->incompat & JBD2_INCOMPAT_ASYNC_COMMIT)
		return 1;
	log_err("%s: journal: transaction %u is damaged (checksum of log block %u); run e2fsck",
		j->sb->s_id, s->seq, ok && s->bad ? s->bad_blk : s->at);
	return -EFSBADCRC;
}

/* One block. 0: go on; 1: end of the log; or an error. */
static int scan_block(struct recovery *r, struct scan *s)
{
	struct journal *j = r->j;
	struct jbd2_header hdr;
	struct rec_revoke rev;
	u8 *block;
	int err;

	err = log_block(r, s->at, &block);
	if (err)
		return err;
	memcpy(&hdr, block, sizeof(hdr));
	if (be32_to_cpu(hdr.h_magic) != JBD2_MAGIC || be32_to_cpu(hdr.h_sequence) != s->seq)
		return 1;
	switch (be32_to_cpu(hdr.h_blocktype)) {
	case JBD2_DESCRIPTOR:
		if (!block_csum_ok(j, block))
			scan_bad(s, s->at);
		s->crc = crc32_be(s->crc, block, j->blocksize);
		return scan_descriptor(r, s, block);
	case JBD2_REVOKE:
		if (!block_csum_ok(j, block))
			scan_bad(s, s->at);
		rev = (struct rec_revoke){ .jblk = s->at, .seq = s->seq };
		err = rec_add(&r->revokes, &rev, sizeof(rev), j->ring);
		if (err)
			return err;
		return !scan_advance(r, s);
	case JBD2_COMMIT:
		err = scan_commit(r, s, block);
		if (err)
			return err;
		r->nr_images = r->images.nr;
		r->nr_revokes = r->revokes.nr;
		r->next_seq = ++s->seq;
		r->st->transactions++;
		s->bad = false;
		s->crc = ~0u;
		return !scan_advance(r, s);
	default:
		return 1;
	}
}

static int scan_log(struct recovery *r, u32 start, u32 seq)
{
	struct scan s = { .at = start, .seq = seq, .crc = ~0u };
	int err;

	r->next_seq = seq;
	do {
		err = scan_block(r, &s);
	} while (!err);
	return err < 0 ? err : 0;
}

/* ---- REVOKE ---- */

static int revoke_add(struct recovery *r, pblk_t blk, u32 seq)
{
	if (revoke_map_full(&r->map)) {
		u32 slots = revoke_map_next(&r->map);
		struct revoke_entry *mem = revoke_map_alloc(slots);

		if (!mem)
			return -ENOMEM;
		free(revoke_map_install(&r->map, mem, slots));
	}
	revoke_map_set(&r->map, blk, seq);
	return 0;
}

static int revoke_block(struct recovery *r, const struct rec_revoke *rec)
{
	struct journal *j = r->j;
	u32 width = j->incompat & JBD2_INCOMPAT_64BIT ? 8 : 4, count;
	u32 max = j->blocksize - (has_csum(j) ? sizeof(struct jbd2_tail) : 0);
	struct jbd2_revoke_header rh;
	u8 *block;
	int err;

	err = log_block(r, rec->jblk, &block);
	if (err)
		return err;
	memcpy(&rh, block, sizeof(rh));
	count = be32_to_cpu(rh.r_count);
	if (count > max || count < sizeof(rh)) {
		log_err("%s: journal: revoke block %u of transaction %u says it has %u bytes",
			j->sb->s_id, rec->jblk, rec->seq, count);
		return -EFSCORRUPTED;
	}
	for (u32 off = sizeof(rh); off + width <= count && !err; off += width) {
		be64 b8;
		be32 b4;

		memcpy(&b8, block + off, width == 8 ? 8 : 4);
		memcpy(&b4, block + off, 4);
		err = revoke_add(r, width == 8 ? be64_to_cpu(b8) : be32_to_cpu(b4), rec->seq);
		r->st->revokes++;
	}
	return err;
}

static int collect_revokes(struct recovery *r)
{
	for (u32 i = 0; i < r->nr_revokes; i++) {
		int err = revoke_block(r, &((struct rec_revoke *)r->revokes.at)[i]);

		if (err)
			return err;
	}
	return 0;
}

/* ---- REPLAY ---- */

static struct rec_image *rec_images(const struct recovery *r)
{
	return r->images.at;
}

static int extent_cmp(const void *a, const void *b)
{
	const struct journal_extent *x = a, *y = b;

	return x->pblk < y->pblk ? -1 : x->pblk > y->pblk;
}

/* The map by place on the device; the caller frees it. NULL: no memory. */
static struct journal_extent *journal_place(const struct journal *j)
{
	struct journal_extent *place = malloc(j->nr_map * sizeof(*place));

	if (!place)
		return NULL;
	memcpy(place, j->map, j->nr_map * sizeof(*place));
	qsort(place, j->nr_map, sizeof(*place), extent_cmp);
	return place;
}

/*
 * An image over the log that is being read: only a hostile one does that, and only if
 * both are on one device. A search, as images and extents may both be as many as the log
 * has blocks.
 */
static bool in_journal(const struct journal *j, const struct journal_extent *place,
		       pblk_t blk)
{
	u32 lo = 0, hi = j->nr_map;

	if (j->log_bd != j->bd)
		return false;
	while (hi - lo > 1) {
		u32 mid = lo + (hi - lo) / 2;

		if (place[mid].pblk <= blk)
			lo = mid;
		else
			hi = mid;
	}
	return blk >= place[lo].pblk && blk - place[lo].pblk < place[lo].len;
}

/*
 * Marks what need not be written: revoked, or a later image follows. One map
 * from block to the index of its latest image does for the second.
 */
static int choose_images(struct recovery *r, const struct bdev *target)
{
	struct journal *j = r->j;
	struct journal_extent *place = journal_place(j);
	struct revoke_map later = { 0 };
	u64 end = target->bd_size / j->blocksize;
	int err = 0;

	if (!place)
		return -ENOMEM;
	for (u32 i = r->nr_images; i-- > 0;) {
		struct rec_image *im = &rec_images(r)[i];
		u32 tid;

		if (im->target >= end || in_journal(j, place, im->target) ||
		    (j->ops && j->ops->replay_ok && !j->ops->replay_ok(j->priv, im->target))) {
			log_err("%s: journal: transaction %u has an image for block %llu, which it must not write",
				j->sb->s_id, im->seq, (unsigned long long)im->target);
			err = -EFSCORRUPTED;
			goto out_release;
		}
		if (revoke_map_get(&r->map, im->target, &tid) && tid_geq(tid, im->seq)) {
			im->skip = true;
			r->st->revoke_hits++;
			continue;
		}
		if (revoke_map_full(&later)) {
			u32 slots = revoke_map_next(&later);
			struct revoke_entry *mem = revoke_map_alloc(slots);

			if (!mem) {
				err = -ENOMEM;
				goto out_release;
			}
			free(revoke_map_install(&later, mem, slots));
		}
		im->skip = !revoke_map_set(&later, im->target, 0);
	}
out_release:
	revoke_map_release(&later);
	free(place);
	return err;
}

struct replay_item {
	pblk_t target;
	u8 *data;
};

static int replay_item_cmp(const void *a, const void *b)
{
	const struct replay_item *x = a, *y = b;

	return x->target < y->target ? -1 : x->target > y->target;
}

static int write_items(struct journal *j, struct bdev *target, struct replay_item *items,
		       u32 n)
{
	struct jio *io = &j->jio[0];
	struct page_io pio;
	int err = 0, err2;

	qsort(items, n, sizeof(*items), replay_item_cmp);
	page_io_init(&pio, target, BIO_WRITE, BIO_META);
	jio_begin(io);
	for (u32 i = 0; i < n && !err; i++)
		err = jio_add(j, target, &pio, io, items[i].target * j->blocksize,
			      items[i].data, j->blocksize);
	page_io_submit(&pio);
	jio_end(io);
	err2 = jio_wait(io);
	return err ?: err2;
}

/* The image as it goes to its place. */
static int load_image(struct recovery *r, const struct rec_image *im, u8 *dst)
{
	struct journal *j = r->j;
	be32 magic = cpu_to_be32(JBD2_MAGIC);
	u8 *block;
	int err;

	err = log_block(r, im->jblk, &block);
	if (err)
		return err;
	if (!image_csum_ok(j, im, block)) {
		/* It was right in SCAN. */
		log_err("%s: journal: log block %u changed while it was being replayed",
			j->sb->s_id, im->jblk);
		return -EFSBADCRC;
	}
	memcpy(dst, block, j->blocksize);
	if (im->flags & JBD2_TAG_ESCAPE)
		memcpy(dst, &magic, sizeof(magic));
	if (j->ops && j->ops->replay_fixup)
		j->ops->replay_fixup(j->priv, im->target, dst);
	return 0;
}

static int replay(struct recovery *r, struct bdev *target)
{
	struct journal *j = r->j;
	u32 max = 2 * ARENA_HALF / j->blocksize, n = 0;
	struct replay_item *items = calloc(max, sizeof(*items));
	u8 *arena = io_alloc(2 * ARENA_HALF);
	int err = items && arena ? 0 : -ENOMEM;

	for (u32 i = 0; i < r->nr_images && !err; i++) {
		struct rec_image *im = &rec_images(r)[i];

		if (im->skip)
			continue;
		items[n].target = im->target;
		items[n].data = arena + (size_t)n * j->blocksize;
		err = load_image(r, im, items[n].data);
		if (err)
			break;
		r->st->blocks++;
		if (++n == max) {
			err = write_items(j, target, items, n);
			n = 0;
		}
	}
	if (!err && n)
		err = write_items(j, target, items, n);
	free(items);
	if (arena)
		io_free(arena);
	return err;
}

/*
 * A log with fast commits can be replayed only if there are none after the
 * last full commit: what they describe are operations, not images.
 */
static int check_fast_commits(struct recovery *r)
{
	struct journal *j = r->j;
	struct ext4_fc_first fc;
	u8 *block;
	int err;

	if (!(j->incompat & JBD2_INCOMPAT_FAST_COMMIT) || j->end + 1 >= j->maxlen)
		return 0;
	err = log_block(r, j->end + 1, &block);
	if (err)
		return err;
	memcpy(&fc, block, sizeof(fc));
	if (le16_to_cpu(fc.fc_tag) != EXT4_FC_TAG_HEAD ||
	    le32_to_cpu(fc.fc_tid) != r->next_seq)
		return 0;
	log_err("%s: journal: fast commits are to be replayed; run e2fsck", j->sb->s_id);
	return -EOPNOTSUPP;
}

/* The log is empty from here on: what was replayed is durable on the volume's device before. */
static int finish(struct recovery *r)
{
	struct journal *j = r->j;
	int err = bdev_flush(j->bd);

	if (!err)
		err = journal_write_tail(j, 0, r->next_seq);
	if (err)
		log_err("%s: journal: cannot mark the log empty: error %d", j->sb->s_id, -err);
	else
		j->next_seq = r->next_seq + 1;
	return err;
}

int journal_recover(struct journal *j, struct bdev *target,
		    struct journal_recovery_stats *st)
{
	const struct jbd2_superblock *jsb = j->sb_buf;
	struct journal_recovery_stats none;
	struct recovery r = { .j = j, .st = st ?: &none };
	u32 start = be32_to_cpu(jsb->s_start);
	int err;

	assert(!j->started);
	memset(r.st, 0, sizeof(*r.st));
	if (!start)
		return 0;
	r.window = io_alloc(max_of(WINDOW_BYTES, j->blocksize));
	if (!r.window)
		return -ENOMEM;
	err = scan_log(&r, start, be32_to_cpu(jsb->s_sequence));
	if (!err)
		err = check_fast_commits(&r);
	if (!err)
		err = collect_revokes(&r);
	if (!err)
		err = choose_images(&r, target);
	if (!err && r.nr_images)
		err = replay(&r, target);
	if (!err && target == j->bd)
		err = finish(&r);
	revoke_map_release(&r.map);
	free(r.images.at);
	free(r.revokes.at);
	io_free(r.window);
	if (!err)
		log_info("%s: journal: recovered %u transactions, %u blocks, %u revokes (%u hits)",
			 j->sb->s_id, r.st->transactions, r.st->blocks, r.st->revokes,
			 r.st->revoke_hits);
	return err;
}
