/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/bulkstat.c - all inodes of a volume in the order of their numbers
 *
 * The group's bitmap says which inodes there are. A window is a piece of the
 * group's inode table from the first block with one to the last (long stretches
 * of free inodes in between end it), read by one bio. A ring of windows is in
 * flight; the oldest is being consumed.
 *
 * Which copy is right. An inode can be in four places: in the inode cache (with
 * changes that no other copy has), in the buffer of its table block (what
 * transactions have changed; it stays in memory until it was written to its place:
 * the journal has a reference), in the log, and in its place on the device. The log
 * need not be looked at: what it has, the buffer has. For a window:
 *
 *   1  icache_mask(): which of its inodes are in the inode cache
 *   2  buffer_peek() of its table blocks: those found are kept
 *   3  the device is read, if a block was not found
 *   4  the buffers found in 2, and others found now, are copied over it
 *   5  for each inode, when it is its turn: the inode cache is asked first (for 64
 *      numbers at a time, and anew in each call)
 *
 * - Not cached in 1: at that moment all of the inode was in its block. The block
 *   not cached in 2: all of it was on the device, where 3 finds that or a later
 *   state. Cached in 2: the reference keeps the buffer, which has that or a
 *   later state. So what 4 makes of it is a state since 1.
 * - 1 comes before 2. The other way round, an inode dirty in memory only could be
 *   written into its block, and leave the cache, in between: 3 would then read
 *   the state before the change, which may be older than the scan.
 * - 2 comes before 3. The other way round a block that waits for its checkpoint
 *   could be read too old, be written, and leave the cache before 4.
 * - Cached in 1 and no longer in 5: it was clean when it left, but that
 *   may have been after 4. Its block is read anew, through the buffer cache.
 * - A checkpoint, or without a log a commit, may write a block while 3 reads it. The
 *   block was brought into the cache after 2 and may even have left it before 4, so a
 *   read can be torn: the bytes of an inode from two states. Its checksum tells; where
 *   there is none, or one of 16 bits, journal_place_seq() tells whether anything was
 *   written meanwhile. In doubt, and if 3 failed, the block is read again through
 *   the buffer cache, which nobody writes past.
 * - The bitmap is copied before 1. An inode whose bit was set by then, but is
 *   not written yet, has no links in its slot (deletion leaves it so, a new table
 *   block is zero): passed over, like one deleted since.
 *
 * Locks:   none kept. Inside: group lock, b_lock, i_lock, one at a time
 * Alive:   buffers by reference; an inode looked at by icache_peek(). No inode
 *          reference is taken: its end might be ours to bring about
 * Never:   a window freed while its bio is in flight
 * Threads: any, one at a time for a scan; bi_end_io on an I/O thread
 * Source:  ext4-format brief 4.4, 5; the idea is XFS's (xfs_itable.c)
 */
#include "fs/bulkstat.h"
#include "fs/ext4.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "lib/bitmap.h"
#include "lib/thread.h"
#include "lib/wait.h"

#define WINDOWS 4u
#define WINDOW_BYTES BIO_MAX_BYTES
#define SMALL_WINDOW_BYTES (32u << 10)
#define LEAST_BYTES (64u << 10)
#define BUDGET_SHARE 32
#define PEEKED_NONE UINT64_MAX
/* Table blocks without an inode that are read all the same, in bytes. */
#define GAP_BYTES (32u << 10)

struct window {
	int group_error;   /* the group's bitmap could not be had: nothing else is set */
	group_t group;
	pblk_t blk;        /* first table block */
	u32 nr_blocks;
	ino_nr ino0;       /* number of the first inode of that block */
	u32 next, end;     /* inodes still to be reported, counted from ino0 */
	u32 read_from, read_to; /* table blocks being read, from blk on */
	bool merged;       /* step 4 is done */
	bool doubt;        /* something was written to its place during the read */
	bool unread;       /* the read failed */
	u64 place_seq;
	_Atomic bool reading; /* [atomic] its wait key */
	u8 *data;          /* nr_blocks blocks */
	struct buffer **bufs; /* by block: of step 2 */
	u64 *used;         /* by inode: allocated */
	u64 *cached;       /* by inode: in the inode cache in step 1 */
	u64 *from_device;  /* by block: no buffer has been copied over it */
	struct bio *bio;
};

struct sl_bulkstat {
	struct ext4_sb *sbi;
	u64 cursor, last;
	/* what the next window is made from */
	group_t group;
	bool have_map;
	u8 *map;           /* of group */
	u32 pos, end;      /* bits of map still to be put into windows */
	/* the ring */
	u32 nr_windows, window_blocks;
	u32 head, in_use;  /* oldest window; number of windows made */
	struct window win[WINDOWS];
	s64 charged;
	struct ext4_inode *scratch; /* never in the cache */
	u8 *raw;           /* one inode */
	/* what the inode cache had of the 64 numbers from peeked_at on */
	u64 peeked_at;     /* a multiple of 64; PEEKED_NONE */
	u64 peeked;        /* by number: in peek */
	struct sl_bulkstat_rec peek[64];
	void (*watch)(void *priv, enum sl_bulkstat_step step, u64 first, u64 last);
	void *watch_priv;
};

/* ---- making windows ---- */

static u64 group_first_ino(const struct ext4_sb *sbi, group_t g)
{
	return (u64)g * sbi->inodes_per_group + 1;
}

static void passed(const struct sl_bulkstat *bs, const struct window *w,
		   enum sl_bulkstat_step step)
{
	if (unlikely(bs->watch != NULL))
		bs->watch(bs->watch_priv, step, w->ino0, (u64)w->ino0 + w->end - 1);
}

static void read_end(struct bio *bio)
{
	struct window *w = bio->bi_private;

	atomic_store(&w->reading, false);
	wake_up(w); /* its address only: it may be gone */
}

/* Step 1. */
static void note_cached_inodes(struct sl_bulkstat *bs, struct window *w)
{
	u64 end = (u64)w->ino0 + w->end;

	for (u64 base = w->ino0 & ~63u; base < end; base += 64) {
		u64 mask = icache_mask(&bs->sbi->s, (ino_nr)base);

		for (; mask; mask &= mask - 1) {
			u64 ino = base + (u32)__builtin_ctzll(mask);

			if (ino >= w->ino0 && ino < end)
				bm_set(w->cached, (u32)(ino - w->ino0));
		}
	}
}

/* Step 2. What is to be read lies between the first and the last not found. */
static void note_cached_blocks(struct sl_bulkstat *bs, struct window *w)
{
	w->read_from = w->read_to = 0;
	for (u32 i = 0; i < w->nr_blocks; i++) {
		w->bufs[i] = buffer_peek(&bs->sbi->s, w->blk + i);
		if (w->bufs[i])
			continue;
		if (!w->read_to)
			w->read_from = i;
		w->read_to = i + 1;
	}
}

static u64 place_seq(const struct ext4_sb *sbi)
{
	return sbi->journal ? journal_place_seq(sbi->journal) : 0;
}

/* Step 3. */
static void start_read(struct sl_bulkstat *bs, struct window *w)
{
	struct ext4_sb *sbi = bs->sbi;
	u8 bits = sbi->s.s_blocksize_bits;
	struct bio *bio = w->bio;

	if (!w->read_to)
		return;
	w->place_seq = place_seq(sbi);
	bio->bi_op = BIO_READ;
	bio->bi_flags = BIO_META;
	bio->bi_pos = (w->blk + w->read_from) << bits;
	bio->bi_bytes = (w->read_to - w->read_from) << bits;
	bio->bi_nr_iov = 1;
	bio->bi_iov[0] = (struct iovec){
		.iov_base = w->data + ((size_t)w->read_from << bits),
		.iov_len = bio->bi_bytes,
	};
	bio->bi_error = 0;
	bio->bi_end_io = read_end;
	bio->bi_private = w;
	atomic_store(&w->reading, true);
	bdev_submit(sbi->bdev, &bio, 1);
}

/* Bits [from, end) of the group's map; block count of the table from bit `from`. */
static u32 window_extent(const struct sl_bulkstat *bs, u32 from)
{
	const struct ext4_sb *sbi = bs->sbi;
	u32 ipb = sbi->inodes_per_block;
	u32 gap = max_of(GAP_BYTES >> sbi->s.s_blocksize_bits, 1u);
	u32 first = from / ipb, last = first;
	u32 limit = (u32)min_of((u64)bs->end,
				((u64)first + bs->window_blocks) * ipb);

	for (;;) {
		u32 behind = (last + 1) * ipb;
		u32 i;

		if (behind >= limit)
			break;
		i = bm_find_set(bs->map, behind, limit);
		if (i >= limit || i / ipb - last > gap)
			break;
		last = i / ipb;
	}
	return last - first + 1;
}

/* The window that begins with bit `from`, in flight. */
static void make_window(struct sl_bulkstat *bs, struct window *w, u32 from)
{
	struct ext4_sb *sbi = bs->sbi;
	u32 ipb = sbi->inodes_per_block;
	u32 first = from / ipb;
	u32 words;

	w->group_error = 0;
	w->group = bs->group;
	w->nr_blocks = window_extent(bs, from);
	w->blk = ext4_gd_inode_table(sbi, ext4_group_desc(sbi, bs->group, NULL)) +
		 first;
	w->ino0 = (ino_nr)(group_first_ino(sbi, bs->group) + first * ipb);
	w->next = from - first * ipb;
	w->end = min_of(w->nr_blocks * ipb, bs->end - first * ipb);
	words = DIV_ROUND_UP(bs->window_blocks * ipb, 64);
	memset(w->used, 0, words * sizeof(u64));
	memset(w->cached, 0, words * sizeof(u64));
	memset(w->from_device, 0,
	       DIV_ROUND_UP(bs->window_blocks, 64) * sizeof(u64));
	for (u32 i = bm_find_set(bs->map, from, first * ipb + w->end);
	     i < first * ipb + w->end;
	     i = bm_find_set(bs->map, i + 1, first * ipb + w->end))
		bm_set(w->used, i - first * ipb);
	w->merged = w->doubt = w->unread = false;
	note_cached_inodes(bs, w);
	passed(bs, w, SL_BULKSTAT_INODES_NOTED);
	note_cached_blocks(bs, w);
	passed(bs, w, SL_BULKSTAT_BLOCKS_NOTED);
	start_read(bs, w);
	bs->pos = first * ipb + w->end;
}

/* The bitmap of the group: pos and end are cut to the scan's numbers. */
static int load_map(struct sl_bulkstat *bs)
{
	u64 ino1 = group_first_ino(bs->sbi, bs->group);
	int err = ext4_ibitmap_copy(bs->sbi, bs->group, bs->map, &bs->end);

	bs->pos = bs->cursor > ino1 ? (u32)(bs->cursor - ino1) : 0;
	if (bs->last - ino1 < bs->end)
		bs->end = (u32)(bs->last - ino1 + 1);
	bs->have_map = !err;
	return err;
}

/* False: the scan has no more. */
static bool add_window(struct sl_bulkstat *bs, struct window *w)
{
	for (;; bs->group++, bs->have_map = false) {
		u32 i;

		if (bs->group >= bs->sbi->groups ||
		    group_first_ino(bs->sbi, bs->group) > bs->last)
			return false;
		if (!bs->have_map) {
			int err = load_map(bs);

			if (err) {
				*w = (struct window){
					.group_error = err, .group = bs->group,
					.data = w->data, .bufs = w->bufs,
					.used = w->used, .cached = w->cached,
					.from_device = w->from_device,
					.bio = w->bio,
				};
				bs->group++;
				return true;
			}
		}
		if (bs->pos >= bs->end)
			continue;
		i = bm_find_set(bs->map, bs->pos, bs->end);
		if (i >= bs->end)
			continue;
		make_window(bs, w, i);
		return true;
	}
}

static void fill_ring(struct sl_bulkstat *bs)
{
	while (bs->in_use < bs->nr_windows &&
	       add_window(bs, &bs->win[(bs->head + bs->in_use) % bs->nr_windows]))
		bs->in_use++;
}

/* ---- consuming them ---- */

static void copy_buffer(struct buffer *b, void *to, u32 bytes)
{
	mutex_lock(&b->b_lock);
	memcpy(to, b->b_data, bytes);
	mutex_unlock(&b->b_lock);
}

/* The read has ended. Step 4. */
static void merge_window(struct sl_bulkstat *bs, struct window *w)
{
	struct ext4_sb *sbi = bs->sbi;
	u32 bytes = sbi->s.s_blocksize;

	wait_event(w, !atomic_load(&w->reading));
	passed(bs, w, SL_BULKSTAT_READ);
	if (w->read_to) {
		w->unread = w->bio->bi_error != 0;
		w->doubt = w->place_seq & 1 || w->place_seq != place_seq(sbi);
	}
	for (u32 i = 0; i < w->nr_blocks; i++) {
		struct buffer *b = w->bufs[i];

		if (!b)
			b = buffer_peek(&sbi->s, w->blk + i);
		w->bufs[i] = NULL;
		if (!b) {
			bm_set(w->from_device, i);
			continue;
		}
		copy_buffer(b, w->data + (size_t)i * bytes, bytes);
		buffer_put(b);
	}
	w->merged = true;
	passed(bs, w, SL_BULKSTAT_MERGED);
}

/* i_lock held, or the scratch inode. */
static void fill_record(const struct inode *inode, void *priv)
{
	const struct ext4_inode *ei =
		container_of_type((struct inode *)(uintptr_t)inode,
				  struct ext4_inode, vfs);
	u64 delayed = atomic_load(&inode->i_mapping.m_nr_delayed);
	struct sl_bulkstat_rec *rec = priv;

	rec->error = 0;
	rec->lost = 0;
	rec->generation = inode->i_generation;
	rec->mode = inode->i_mode;
	rec->nlink = inode->i_nlink;
	rec->uid = inode->i_uid;
	rec->gid = inode->i_gid;
	rec->flags = inode->i_flags;
	rec->projid = ei->i_projid;
	rec->size = inode->i_size;
	rec->blocks = inode->i_blocks + delayed * (inode->i_sb->s_blocksize >> 9);
	rec->rdev = inode->i_rdev;
	rec->atime = inode->i_atime;
	rec->mtime = inode->i_mtime;
	rec->ctime = inode->i_ctime;
	rec->crtime = inode->i_crtime;
}

/* The checks of any inode from the disk. -ESTALE: no link. Errors are reported. */
static int decode(struct sl_bulkstat *bs, ino_nr ino, const void *raw,
		  bool csum_ok, struct sl_bulkstat_rec *rec)
{
	struct ext4_inode *ei = bs->scratch;
	int err;

	ei->vfs.i_ino = ino;
	ei->vfs.i_rdev = 0;
	ei->vfs.i_crtime = (struct timespec){ 0 };
	err = csum_ok ? ext4_load_inode_checked(ei, raw) :
			ext4_load_inode_raw(ei, raw);
	if (!err)
		fill_record(&ei->vfs, rec);
	if (unlikely(ei->i_inline)) {
		free(ei->i_inline);
		ei->i_inline = NULL;
	}
	return err;
}

/* May the raw inode be torn? It has come from the device, past the caches. */
static bool may_be_torn(const struct ext4_sb *sbi, const struct window *w,
			const void *raw)
{
	const struct ext4_inode_disk *di = raw;

	if (!w->doubt)
		return false;
	return !sbi->has_csum || sbi->inode_size <= EXT4_GOOD_OLD_INODE_SIZE ||
	       le16_to_cpu(di->i_extra_isize) < 4;
}

/* Through the buffer cache. */
static int read_again(struct sl_bulkstat *bs, ino_nr ino,
		      struct sl_bulkstat_rec *rec)
{
	struct ext4_sb *sbi = bs->sbi;
	struct buffer *b;
	u32 offset;
	int err = ext4_inode_buffer(sbi, ino, false, &b, &offset);

	if (err)
		return err;
	mutex_lock(&b->b_lock);
	memcpy(bs->raw, b->b_data + offset, sbi->inode_size);
	mutex_unlock(&b->b_lock);
	buffer_put(b);
	return decode(bs, ino, bs->raw, false, rec);
}

/* i_lock held. */
static void peek_record(const struct inode *inode, void *priv)
{
	struct sl_bulkstat *bs = priv;

	fill_record(inode, &bs->peek[inode->i_ino % 64]);
}

/* Step 5. What the inode cache has of ino; NULL: nothing to go by. */
static const struct sl_bulkstat_rec *cached_record(struct sl_bulkstat *bs,
						   const struct window *w, ino_nr ino)
{
	u64 base = ino & ~63u, end = (u64)w->ino0 + w->end;
	u64 wanted = ~0ull << ino % 64;

	if (bs->peeked_at != base) {
		if (end < base + 64)
			wanted &= ~(~0ull << (end - base));
		bs->peeked_at = base;
		bs->peeked = icache_peek_run(&bs->sbi->s, ino, wanted,
					     peek_record, bs);
	}
	return bs->peeked >> ino % 64 & 1 ? &bs->peek[ino % 64] : NULL;
}

/* Inode i of the window. -ESTALE: not to be reported. */
static int one_inode(struct sl_bulkstat *bs, struct window *w, u32 i,
		     struct sl_bulkstat_rec *rec)
{
	struct ext4_sb *sbi = bs->sbi;
	const u8 *raw = w->data + (size_t)i * sbi->inode_size;
	ino_nr ino = w->ino0 + i;
	const struct sl_bulkstat_rec *cached;

	if (!ext4_ino_is_exposed(sbi, ino))
		return -ESTALE;
	cached = cached_record(bs, w, ino);
	if (cached) {
		*rec = *cached;
		return rec->nlink ? 0 : -ESTALE;
	}
	if (bm_test(w->cached, i) ||
	    (bm_test(w->from_device, i / sbi->inodes_per_block) &&
	     (w->unread || may_be_torn(sbi, w, raw))) ||
	    !ext4_inode_csum_ok(sbi, ino, raw))
		return read_again(bs, ino, rec);
	return decode(bs, ino, raw, true, rec);
}

/* Takes the oldest window away. */
static void end_window(struct sl_bulkstat *bs)
{
	bs->head = (bs->head + 1) % bs->nr_windows;
	bs->in_use--;
	bs->peeked_at = PEEKED_NONE; /* was of numbers in this window alone */
}

/* What the device has written is in no cache that is near. */
static void prefetch_inode(const struct sl_bulkstat *bs, const struct window *w, u32 i)
{
	u32 size = bs->sbi->inode_size;
	const u8 *raw = w->data + (size_t)i * size;

	if (i >= w->end)
		return;
	for (u32 at = 0; at < size && at < 256; at += 64)
		__builtin_prefetch(raw + at);
}

/* The next record of the oldest window; false: it has no more. */
static bool next_record(struct sl_bulkstat *bs, struct window *w,
			struct sl_bulkstat_rec *rec)
{
	while (w->next < w->end) {
		u32 i = bm_find_set(w->used, w->next, w->end);
		int err;

		w->next = min_of(i + 1, w->end);
		if (i >= w->end)
			break;
		prefetch_inode(bs, w, i + 2);
		err = one_inode(bs, w, i, rec);
		if (err == -ESTALE || (!err && rec->flags & EXT4_EA_INODE_FL))
			continue;
		if (err)
			*rec = (struct sl_bulkstat_rec){ .error = err, .lost = 1 };
		rec->ino = w->ino0 + i;
		bs->cursor = rec->ino + 1;
		return true;
	}
	return false;
}

/* The record of a group whose bitmap could not be had. */
static void group_record(struct sl_bulkstat *bs, const struct window *w,
			 struct sl_bulkstat_rec *rec)
{
	u64 first = group_first_ino(bs->sbi, w->group);
	u64 last = min_of(first + bs->sbi->inodes_per_group - 1, bs->last);

	first = max_of(first, bs->cursor);
	*rec = (struct sl_bulkstat_rec){
		.ino = first,
		.error = w->group_error,
		.lost = (u32)(last - first + 1),
	};
	bs->cursor = last + 1;
}

size_t sl_bulkstat_read(struct sl_bulkstat *bs, struct sl_bulkstat_rec *recs,
			size_t max)
{
	size_t n = 0;

	thread_might_block();
	bs->peeked_at = PEEKED_NONE; /* the caller has been away */
	while (n < max) {
		struct window *w = &bs->win[bs->head];

		fill_ring(bs);
		if (!bs->in_use) {
			bs->cursor = max_of(bs->cursor, bs->last + 1);
			break;
		}
		if (w->group_error) {
			group_record(bs, w, &recs[n++]);
			end_window(bs);
			continue;
		}
		if (!w->merged)
			merge_window(bs, w);
		while (n < max && next_record(bs, w, &recs[n]))
			n++;
		if (w->next >= w->end)
			end_window(bs);
	}
	return n;
}

u64 sl_bulkstat_cursor(const struct sl_bulkstat *bs)
{
	return bs->cursor;
}

bool sl_bulkstat_continues(const struct sl_bulkstat *bs, u64 first, u64 last)
{
	return bs->cursor == first &&
	       bs->last == min_of(last, (u64)bs->sbi->inodes_count);
}

void sl_bulkstat_watch(struct sl_bulkstat *bs,
		       void (*fn)(void *priv, enum sl_bulkstat_step step, u64 first,
				  u64 last), void *priv)
{
	bs->watch = fn;
	bs->watch_priv = priv;
}

/* ---- beginning and end ---- */

static int window_alloc(struct sl_bulkstat *bs, struct window *w)
{
	u32 words = DIV_ROUND_UP(bs->window_blocks * bs->sbi->inodes_per_block, 64);
	u32 block_words = DIV_ROUND_UP(bs->window_blocks, 64);

	w->data = io_alloc(ALIGN_UP((size_t)bs->window_blocks
					    << bs->sbi->s.s_blocksize_bits,
				    (size_t)4096));
	w->bufs = calloc(bs->window_blocks, sizeof(*w->bufs));
	w->used = calloc(words, sizeof(u64));
	w->cached = calloc(words, sizeof(u64));
	w->from_device = calloc(block_words, sizeof(u64));
	w->bio = bio_alloc(1);
	return w->data && w->bufs && w->used && w->cached && w->from_device &&
		       w->bio ? 0 : -ENOMEM;
}

static void window_free(struct sl_bulkstat *bs, struct window *w)
{
	wait_event(w, !atomic_load(&w->reading));
	for (u32 i = 0; w->bufs && i < bs->window_blocks; i++)
		buffer_put(w->bufs[i]);
	if (w->data)
		io_free(w->data);
	free(w->bufs);
	free(w->used);
	free(w->cached);
	free(w->from_device);
	bio_free(w->bio);
}

/* How large the ring is to be. */
static void set_sizes(struct sl_bulkstat *bs, u32 flags)
{
	const struct ext4_sb *sbi = bs->sbi;
	u64 share = max_of(budget_limit(sbi->s.s_budget) / BUDGET_SHARE,
			   (u64)LEAST_BYTES);
	u64 bytes = min_of(share / WINDOWS, (u64)WINDOW_BYTES);

	bs->nr_windows = WINDOWS;
	if (flags & SL_BULKSTAT_SMALL) {
		bs->nr_windows = 1;
		bytes = min_of(bytes, (u64)SMALL_WINDOW_BYTES);
	}
	bs->window_blocks = (u32)(bytes >> sbi->s.s_blocksize_bits);
	bs->window_blocks = min_of(max_of(bs->window_blocks, 1u),
				   sbi->itable_blocks);
}

int sl_bulkstat_open(struct super_block *sb, u64 first, u64 last, u32 flags,
		     struct sl_bulkstat **out)
{
	struct ext4_sb *sbi = EXT4_SB(sb);
	struct sl_bulkstat *bs;
	struct inode *scratch;
	int err = 0;

	if (first > last || flags & ~(u32)SL_BULKSTAT_SMALL)
		return -EINVAL;
	budget_throttle(sb->s_budget);
	bs = calloc(1, sizeof(*bs));
	if (!bs)
		return -ENOMEM;
	bs->sbi = sbi;
	bs->last = min_of(last, (u64)sbi->inodes_count);
	bs->cursor = max_of(first, (u64)1);
	bs->group = sbi->groups;
	if (bs->cursor <= bs->last)
		bs->group = ext4_inode_group(sbi, (ino_nr)bs->cursor);
	set_sizes(bs, flags);
	scratch = sb->s_op->alloc_inode(sb);
	bs->scratch = scratch ? EXT4_I(scratch) : NULL;
	bs->map = calloc(1, sb->s_blocksize);
	bs->raw = malloc(sbi->inode_size);
	if (!scratch || !bs->map || !bs->raw)
		err = -ENOMEM;
	for (u32 i = 0; i < bs->nr_windows && !err; i++)
		err = window_alloc(bs, &bs->win[i]);
	bs->charged = (s64)bs->nr_windows * bs->window_blocks * sb->s_blocksize;
	budget_charge(sb->s_budget, BUDGET_BUFFER, bs->charged);
	if (err) {
		sl_bulkstat_close(bs);
		return err;
	}
	*out = bs;
	return 0;
}

void sl_bulkstat_close(struct sl_bulkstat *bs)
{
	struct super_block *sb;

	if (!bs)
		return;
	sb = &bs->sbi->s;
	for (u32 i = 0; i < bs->nr_windows; i++)
		window_free(bs, &bs->win[i]);
	budget_uncharge(sb->s_budget, BUDGET_BUFFER, bs->charged);
	if (bs->scratch) {
		mapping_destroy(&bs->scratch->vfs.i_mapping);
		sb->s_op->free_inode(&bs->scratch->vfs);
	}
	free(bs->map);
	free(bs->raw);
	free(bs);
}

bool sl_bulkstat_part(struct super_block *sb, u32 part, u32 parts, u64 *first,
		      u64 *last)
{
	struct ext4_sb *sbi = EXT4_SB(sb);
	group_t from = (group_t)((u64)sbi->groups * part / parts);
	group_t to = (group_t)((u64)sbi->groups * (part + 1) / parts);

	assert(part < parts);
	*first = group_first_ino(sbi, from);
	*last = group_first_ino(sbi, to) - 1;
	return from < to;
}
