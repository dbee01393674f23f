/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/readahead.c - brings into the cache what a handle will ask for next
 *
 * The kernel reads ahead of a stream by itself, and asks for much at once. For strides, and
 * for small requests past its page cache (O_DIRECT) or with a small readahead, it does
 * not. There the pattern that the handle's window has (cache/window.c) says what
 * will be wanted; a thread reads it from the device, a little ahead, and the
 * request finds it in the cache. Reads that are large or at random cause nothing here.
 *
 * What is brought in ends at the handle's window, at the end of the file, and before
 * blocks that others write or that are on the move (windows_clip()). It is only a
 * favour: a full queue, want of memory, errors of the device and whatever changes
 * meanwhile end it in silence. The request itself will see.
 *
 *   a writer, write-out and reclaim in between: mapping_fill_run_since() refuses what
 *   is older than what was dropped, and leaves alone what is there
 *   truncate, punch, relocation: i_rwsem is held, shared, as by any reader of the device
 *   direct overwrites, which share it: i_overwrites; what they are at is not read
 *
 * Locks:   i_rwsem (shared) -> i_data_sem, leaf locks; q_lock, a leaf
 * Alive:   an inode in the queue, by a reference
 * Threads: any to ask; one to read
 */
#include "cache/window.h"
#include "fs/ext4.h"
#include "lib/bitmap.h"
#include "lib/thread.h"
#include "lib/wait.h"

#include <stdatomic.h>
#include <stdlib.h>

#define QUEUE_MAX 32u
#define READ_BYTES (256u << 10)
#define FILL_BYTES (64u << 10)

struct job {
	struct inode *inode; /* referenced */
	struct access_ahead ahead;
};

struct readahead {
	struct ext4_sb *sbi;
	struct thread *thread;
	void *buf;                   /* READ_BYTES [thread only] */
	struct spinlock q_lock;      /* RANK_CACHE_LIST */
	struct job queue[QUEUE_MAX]; /* [q_lock] a ring */
	u32 first;                   /* [q_lock] */
	_Atomic u32 nr;              /* [write q_lock] */
	_Atomic u32 wake; /* raised by anyone, cleared by the thread [atomic] */
	_Atomic bool stop;           /* [atomic] */
};

static bool pop(struct readahead *ra, struct job *job)
{
	bool found;

	spin_lock(&ra->q_lock);
	found = atomic_load(&ra->nr) > 0;
	if (found) {
		*job = ra->queue[ra->first];
		ra->first = (ra->first + 1) % QUEUE_MAX;
		atomic_fetch_sub(&ra->nr, 1);
	}
	spin_unlock(&ra->q_lock);
	return found;
}

static bool push(struct readahead *ra, const struct job *job)
{
	bool room;

	spin_lock(&ra->q_lock);
	room = atomic_load(&ra->nr) < QUEUE_MAX;
	if (room) {
		inode_get(job->inode);
		ra->queue[(ra->first + atomic_load(&ra->nr)) % QUEUE_MAX] = *job;
		atomic_fetch_add(&ra->nr, 1);
	}
	spin_unlock(&ra->q_lock);
	return room;
}

static void kick(struct readahead *ra)
{
	if (!atomic_exchange(&ra->wake, 1))
		wake_up(&ra->wake);
}

void ext4_read_ahead(struct inode *inode, struct access *a, u64 pos, u64 len)
{
	struct readahead *ra = EXT4_SB(inode->i_sb)->readahead;
	struct job job = { .inode = inode };

	if (!ra || !len)
		return;
	if (access_wants(a, &inode->i_mapping, pos, len, atomic_load(&inode->i_size),
			 &job.ahead) &&
	    push(ra, &job))
		kick(ra);
}

/* ---- the thread ---- */

/* Enters what was read, as far as nothing newer came meanwhile. */
static bool enter(struct inode *inode, lblk_t lblk, const u8 *data, u64 len, u64 gen)
{
	u32 bs = inode->i_sb->s_blocksize;

	while (len) {
		u32 n = (u32)min_of(len, (u64)FILL_BYTES);

		if (mapping_fill_run_since(&inode->i_mapping, lblk, data, &n, gen) || !n)
			return false;
		mapping_counter_add(inode->i_sb, READAHEAD_BLOCKS, DIV_ROUND_UP(n, bs));
		lblk += n / bs;
		data += n;
		len -= n;
	}
	return true;
}

/* The absent blocks at or after *at, up to the end of its leaf: one extent of them at
 * most. False: nothing more is to be read ahead on this request. */
static bool read_one(struct readahead *ra, struct inode *inode, lblk_t *at, lblk_t end,
		     u64 size)
{
	struct mapping *m = &inode->i_mapping;
	u32 bs = inode->i_sb->s_blocksize;
	u32 nr = min_of(end - *at, LEAF_BLOCKS - *at % LEAF_BLOCKS), s, e;
	u64 unknown[LEAF_WORDS], absent[LEAF_WORDS];
	u64 gen = mapping_generation(m), pos;
	struct ext4_map map;

	mapping_query(m, *at, nr, unknown, absent);
	s = bm_find_set(absent, 0, nr);
	e = bm_find_clear(absent, s, nr);
	*at += s;
	if (s == nr)
		return true;
	map = (struct ext4_map){ .lblk = *at, .len = min_of(e - s, READ_BYTES / bs) };
	if (ext4_map_blocks(EXT4_I(inode), &map))
		return false;
	*at += map.len;
	if (!(map.flags & EXT4_MAP_MAPPED))
		return true;
	if (bdev_read(ra->sbi->bdev, map.pblk * bs, ra->buf, (size_t)map.len * bs))
		return false;
	pos = (u64)map.lblk * bs;
	return enter(inode, map.lblk, ra->buf, min_of((u64)map.len * bs, size - pos), gen);
}

/* Nobody writes past the cache, nor begins to until end_reading(). */
static bool begin_reading(struct inode *inode)
{
	s32 none = 0;

	return atomic_compare_exchange_strong(&EXT4_I(inode)->i_overwrites, &none, -1);
}

static void end_reading(struct inode *inode)
{
	atomic_store(&EXT4_I(inode)->i_overwrites, 0);
}

static void read_range(struct readahead *ra, struct inode *inode, u64 pos, u64 len)
{
	u32 bs = inode->i_sb->s_blocksize;
	lblk_t at = (lblk_t)(pos / bs), end = (lblk_t)DIV_ROUND_UP(pos + len, (u64)bs);
	u64 size;

	budget_throttle(inode->i_sb->s_budget);
	rwsem_down_read(&inode->i_rwsem);
	size = atomic_load(&inode->i_size);
	end = (lblk_t)min_of((u64)end, DIV_ROUND_UP(size, (u64)bs));
	if (EXT4_I(inode)->i_inline)
		end = at;
	if (at < end)
		end = windows_clip(&inode->i_mapping, at, end);
	if (at < end && begin_reading(inode)) {
		while (at < end && read_one(ra, inode, &at, end, size))
			;
		end_reading(inode);
	}
	rwsem_up_read(&inode->i_rwsem);
}

static void readahead_main(void *arg)
{
	struct readahead *ra = arg;
	struct job job;

	while (!atomic_load(&ra->stop)) {
		wait_event(&ra->wake, atomic_load(&ra->wake));
		atomic_store(&ra->wake, 0);
		while (!atomic_load(&ra->stop) && pop(ra, &job)) {
			u64 pos = job.ahead.pos;

			for (u32 i = 0; i < job.ahead.nr; i++, pos += (u64)job.ahead.stride)
				read_range(ra, job.inode, pos, job.ahead.len);
			inode_put(job.inode);
		}
	}
}

int ext4_readahead_start(struct ext4_sb *sbi)
{
	struct readahead *ra = calloc(1, sizeof(*ra));
	int err;

	if (!ra)
		return -ENOMEM;
	ra->sbi = sbi;
	ra->buf = io_alloc(READ_BYTES);
	spin_init(&ra->q_lock, RANK_CACHE_LIST);
	err = ra->buf ? thread_create(&ra->thread, "sl-readahead", readahead_main, ra)
		      : -ENOMEM;
	if (err) {
		spin_destroy(&ra->q_lock);
		io_free(ra->buf);
		free(ra);
		return err;
	}
	sbi->readahead = ra;
	return 0;
}

void ext4_readahead_stop(struct ext4_sb *sbi)
{
	struct readahead *ra = sbi->readahead;
	struct job job;

	if (!ra)
		return;
	atomic_store(&ra->stop, true);
	kick(ra);
	thread_join(ra->thread);
	while (pop(ra, &job))
		inode_put(job.inode);
	sbi->readahead = NULL;
	spin_destroy(&ra->q_lock);
	io_free(ra->buf);
	free(ra);
}
