/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * writeback/page_io.c - gathers runs of blocks into bios of up to 512 KiB
 *
 * page_io_add() first gets all the memory the call will need, then changes
 * anything: so that it fails as a whole or not at all. A block that continues
 * the present bio on the device extends it, and if it also continues the last
 * segment in memory, extends that.
 *
 * Completion: each bio holds a reference on its io_end. A bio is freed before
 * its reference is dropped, and nothing is touched after: the last reference
 * may let the io_end's container, the inode and the folios go.
 *
 * Locks:   none
 * Alive:   a bio from its allocation to page_io_bio_end(); io_end: end_io.c
 * Never:   an io_end of which a bio was counted and not submitted: what is in
 *          the page_io must go out by page_io_submit(), also on the error paths
 * Source:  T. Ts'o, ext4 page-io (2010): the idea, not the code
 */
#include "writeback/page_io.h"

#include <assert.h>
#include <stdatomic.h>
#include <string.h>

#define ROOM_MIN 16 /* segments of a new bio; grows by doubling */

void page_io_init(struct page_io *io, struct bdev *bd, enum bio_op op, u32 flags)
{
	memset(io, 0, sizeof(*io));
	io->bd = bd;
	io->op = op;
	io->flags = flags;
	io->max_bytes = BIO_MAX_BYTES;
}

static void page_io_bio_end(struct bio *bio)
{
	struct io_end *ioe = bio->bi_private;

	io_end_set_error(ioe, bio->bi_error);
	bio_free(bio);
	io_end_put(ioe);
}

static void send_closed(struct page_io *io)
{
	unsigned n = io->nr_closed;

	io->nr_closed = 0;
	bdev_submit(io->bd, io->closed, n);
}

static void close_bio(struct page_io *io, enum page_io_split why)
{
	if (!io->bio)
		return;
	if (why == SPLIT_DISCONTIG && io->hole)
		why = SPLIT_HOLE;
	bdev_count(io->bd, dir[io->op].split[why], 1);
	io->closed[io->nr_closed++] = io->bio;
	io->bio = NULL;
	io->ioe = NULL;
	if (io->nr_closed == ARRAY_SIZE(io->closed))
		send_closed(io);
}

/* Does data continue the last segment of the bio in memory? */
static bool joins(const struct bio *bio, const void *data)
{
	const struct iovec *last = &bio->bi_iov[bio->bi_nr_iov - 1];

	return (char *)last->iov_base + last->iov_len == data;
}

/* Replaces the bio being built by one with twice the room. */
static int grow(struct page_io *io)
{
	int room = min_of(2 * io->room, BIO_MAX_VECS);
	struct bio *bio = bio_alloc(room), *old = io->bio;
	struct iovec *iov;

	if (!bio)
		return -ENOMEM;
	iov = bio->bi_iov;
	*bio = *old;
	bio->bi_iov = iov;
	memcpy(iov, old->bi_iov, (size_t)old->bi_nr_iov * sizeof(*iov));
	bio_free(old);
	io->bio = bio;
	io->room = room;
	return 0;
}

/* Can the present bio take more? If not, why it has to be closed. */
static bool can_extend(const struct page_io *io, u64 pos, const void *data,
		       const struct io_end *ioe, enum page_io_split *why)
{
	const struct bio *bio = io->bio;

	*why = SPLIT_DISCONTIG;
	if (io->next_pos != pos)
		return false;
	*why = SPLIT_LIMIT;
	return io->ioe == ioe &&
	       (bio->bi_nr_iov < BIO_MAX_VECS || joins(bio, data));
}

static void append(struct bio *bio, void *data, u32 bytes)
{
	if (bio->bi_nr_iov && joins(bio, data)) {
		bio->bi_iov[bio->bi_nr_iov - 1].iov_len += bytes;
	} else {
		bio->bi_iov[bio->bi_nr_iov].iov_base = data;
		bio->bi_iov[bio->bi_nr_iov++].iov_len = bytes;
	}
	bio->bi_bytes += bytes;
}

static void free_chain(struct bio *bio)
{
	while (bio) {
		struct bio *next = bio->bi_private;

		bio_free(bio);
		bio = next;
	}
}

static u32 nr_bios(const struct page_io *io, u32 bytes)
{
	return (u32)DIV_ROUND_UP((u64)bytes, io->max_bytes);
}

/* n new bios, chained through bi_private; *out NULL if n is 0. */
static int alloc_chain(u32 n, struct bio **out)
{
	*out = NULL;
	while (n--) {
		struct bio *bio = bio_alloc(ROOM_MIN);

		if (!bio) {
			free_chain(*out);
			return -ENOMEM;
		}
		bio->bi_private = *out;
		*out = bio;
	}
	return 0;
}

static void start_bio(struct page_io *io, struct bio *bio, u64 pos,
		      struct io_end *ioe)
{
	bio->bi_op = io->op;
	bio->bi_flags = io->flags;
	bio->bi_pos = pos;
	bio->bi_end_io = page_io_bio_end;
	bio->bi_private = ioe;
	io_end_get(ioe);
	io->bio = bio;
	io->ioe = ioe;
	io->room = ROOM_MIN;
}

/*
 * A full bio (512 KiB) is closed at once, so the present one always has room
 * for at least a byte. Bytes that do not fit go to new bios of one segment.
 */
int page_io_add(struct page_io *io, u64 pos, void *data, u32 bytes,
		struct io_end *ioe)
{
	enum page_io_split why = SPLIT_DISCONTIG;
	bool extend = io->bio && can_extend(io, pos, data, ioe, &why);
	u32 first = 0;
	struct bio *fresh, *next;
	char *p = data;
	int err;

	assert(ioe);
	assert(bytes > 0);
	assert(!(bytes & (io->bd->bd_sector - 1)));
	assert(!((uintptr_t)data & (io->bd->bd_sector - 1)));
	if (extend)
		first = min_of(bytes, io->max_bytes - io->bio->bi_bytes);
	err = alloc_chain(nr_bios(io, bytes - first), &fresh);
	if (err)
		return err;
	if (extend && io->bio->bi_nr_iov == io->room && !joins(io->bio, data)) {
		err = grow(io);
		if (err) {
			free_chain(fresh);
			return err;
		}
	}

	/* From here on nothing fails. */
	if (!extend)
		close_bio(io, why);
	io->hole = false;
	while (bytes) {
		u32 part;

		if (!io->bio) {
			next = fresh->bi_private;
			start_bio(io, fresh, pos, ioe);
			fresh = next;
		}
		part = min_of(bytes, io->max_bytes - io->bio->bi_bytes);
		append(io->bio, p, part);
		p += part;
		pos += part;
		bytes -= part;
		io->next_pos = pos;
		if (io->bio->bi_bytes == io->max_bytes)
			close_bio(io, SPLIT_FULL);
	}
	assert(!fresh);
	return 0;
}

void page_io_hole(struct page_io *io)
{
	io->hole = true;
}

/*
 * An io_end whose only reference is that of the bio is ours alone: nobody can
 * get another. So it may be told to end here.
 */
void page_io_submit_wait(struct page_io *io)
{
	struct io_end *ioe;
	struct bio *bio;

	close_bio(io, SPLIT_LAST);
	if (io->nr_closed != 1) {
		send_closed(io);
		return;
	}
	bio = io->closed[0];
	ioe = bio->bi_private;
	io->nr_closed = 0;
	/* A device that can't ends it on a thread of its own, where end() would
	 * wait for what only that thread can bring. acquire: as whoever drops
	 * the last reference */
	if (io->bd->bd_ops->rw_now &&
	    atomic_load_explicit(&ioe->refs, memory_order_acquire) == 1)
		ioe->inline_end = true;
	bdev_submit_wait(io->bd, bio);
}

void page_io_submit(struct page_io *io)
{
	close_bio(io, SPLIT_LAST);
	send_closed(io);
}
