/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/discard.c - online discard: what was freed, and committed, is discarded
 *
 *	commit callback -> queue -> thread: sort, join, discard -> released
 *
 * Blocks stay held back from allocation until their discard has ended: else they
 * would have new content by then, which would be lost. Who finds no other space
 * waits for the queue, as he waits for a commit (ext4_discard_wait()).
 *
 * The volume may be another's when its journal was aborted (mmp.c), so nothing
 * is discarded then.
 *
 * Locks:   d->lock, a leaf
 * Never:   a discard of what no durable commit has freed; a journal call
 * Threads: the journal's (queue), any (wait), its own
 */
#include "fs/alloc_internal.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/thread.h"
#include "lib/wait.h"

struct ext4_discarder {
	struct ext4_sb *sbi;       /* [const] */
	struct thread *thread;     /* [const] */
	struct spinlock lock;      /* RANK_STATS */
	struct cds_list_head list; /* struct ext4_free_batch [lock] */
	u64 listed;                /* batches in the list [lock] */
	_Atomic u64 queued;        /* [atomic] batches so far; key of the thread */
	_Atomic u64 done;          /* [atomic] of them; key of those who wait */
	_Atomic bool stop;         /* [atomic] */
	_Atomic bool dead;         /* [atomic] the device cannot */
	_Atomic u64 calls, bytes;  /* [atomic] */
};

/* ---- the thread ---- */

static pblk_t first_block(const struct ext4_sb *sbi, const struct ext4_free_batch *fb)
{
	return ext4_group_first_block(sbi, fb->group) +
	       ((pblk_t)fb->run.off << sbi->cluster_bits);
}

static int by_place(const void *a, const void *b)
{
	const struct ext4_free_batch *x = *(struct ext4_free_batch *const *)a;
	const struct ext4_free_batch *y = *(struct ext4_free_batch *const *)b;

	if (x->group != y->group)
		return x->group < y->group ? -1 : 1;
	return x->run.off < y->run.off ? -1 : x->run.off > y->run.off;
}

static void discard_range(struct ext4_discarder *d, pblk_t blk, u64 nr)
{
	struct ext4_sb *sbi = d->sbi;
	u32 bits = sbi->s.s_blocksize_bits;
	int err;

	if (atomic_load(&d->dead) || atomic_load(&sbi->aborted))
		return;
	err = bdev_discard(sbi->bdev, blk << bits, nr << bits);
	if (!err) {
		atomic_fetch_add(&d->calls, 1);
		atomic_fetch_add(&d->bytes, nr << bits);
	} else if (err == -EOPNOTSUPP) {
		log_warn("%s: option 'discard' has no effect: the device cannot discard",
			 sbi->s.s_id);
		atomic_store(&d->dead, true);
	} else {
		log_ratelimited(LOG_LVL_WARN, "%s: blocks %llu+%llu could not be discarded: %s",
				sbi->s.s_id, (unsigned long long)blk,
				(unsigned long long)nr, strerror(-err));
	}
}

/* Neighbours are discarded together, also across groups. */
static void discard_sorted(struct ext4_discarder *d, struct ext4_free_batch **fb, u64 nr)
{
	u64 from = 0;

	while (from < nr) {
		pblk_t start = first_block(d->sbi, fb[from]);
		u8 bits = d->sbi->cluster_bits;
		pblk_t end = start + ((pblk_t)fb[from]->run.len << bits);
		u64 to = from + 1;

		while (to < nr && first_block(d->sbi, fb[to]) == end)
			end += (pblk_t)fb[to++]->run.len << bits;
		discard_range(d, start, end - start);
		while (from < to)
			ext4_free_batch_release(fb[from++]);
	}
}

/* All that is queued. Without memory to sort it, one by one. */
static void work(struct ext4_discarder *d)
{
	struct ext4_free_batch *fb, *next, **sorted;
	CDS_LIST_HEAD(list);
	u64 nr, i = 0;

	spin_lock(&d->lock);
	cds_list_splice(&d->list, &list);
	CDS_INIT_LIST_HEAD(&d->list);
	nr = d->listed;
	d->listed = 0;
	spin_unlock(&d->lock);
	sorted = malloc(nr * sizeof(*sorted));
	cds_list_for_each_entry_safe(fb, next, &list, link) {
		if (sorted)
			sorted[i++] = fb;
		else
			discard_sorted(d, &fb, 1);
	}
	if (sorted) {
		qsort(sorted, nr, sizeof(*sorted), by_place);
		discard_sorted(d, sorted, nr);
	}
	free(sorted);
	atomic_fetch_add(&d->done, nr);
	wake_up(&d->done);
}

static void discard_main(void *arg)
{
	struct ext4_discarder *d = arg;

	for (;;) {
		wait_event(&d->queued, atomic_load(&d->queued) != atomic_load(&d->done) ||
					       atomic_load(&d->stop));
		if (atomic_load(&d->queued) == atomic_load(&d->done))
			return;
		work(d);
	}
}

/* ---- from outside ---- */

int ext4_discard_start(struct ext4_sb *sbi)
{
	struct ext4_discarder *d = calloc(1, sizeof(*d));
	int err;

	if (!d)
		return -ENOMEM;
	d->sbi = sbi;
	spin_init(&d->lock, RANK_STATS);
	CDS_INIT_LIST_HEAD(&d->list);
	err = thread_create(&d->thread, "sl-discard", discard_main, d);
	if (err) {
		spin_destroy(&d->lock);
		free(d);
		return err;
	}
	sbi->discarder = d;
	return 0;
}

void ext4_discard_stop(struct ext4_sb *sbi)
{
	struct ext4_discarder *d = sbi->discarder;

	if (!d)
		return;
	atomic_store(&d->stop, true);
	wake_up(&d->queued);
	thread_join(d->thread);
	spin_destroy(&d->lock);
	free(d);
	sbi->discarder = NULL;
}

void ext4_discard_queue(struct ext4_discarder *d, struct ext4_free_batch *fb)
{
	spin_lock(&d->lock);
	cds_list_add_tail(&fb->link, &d->list);
	d->listed++;
	/* With the lock held: who counts as queued is in the list. */
	atomic_fetch_add(&d->queued, 1);
	spin_unlock(&d->lock);
	wake_up(&d->queued);
}

void ext4_discard_wait(struct ext4_sb *sbi)
{
	struct ext4_discarder *d = sbi->discarder;
	u64 until;

	ext4_trim_wait(sbi);
	if (!d)
		return;
	until = atomic_load(&d->queued);
	wait_event(&d->done, atomic_load(&d->done) >= until);
}

size_t ext4_discard_stats(const struct ext4_sb *sbi, char *buf, size_t len)
{
	const struct ext4_discarder *d = sbi->discarder;
	int n;

	if (!d)
		return 0;
	n = snprintf(buf, len, "discards %llu\ndiscarded_bytes %llu\n",
		     (unsigned long long)atomic_load(&d->calls),
		     (unsigned long long)atomic_load(&d->bytes));
	return n < 0 ? 0 : min_of((size_t)n, len);
}
