/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/trim.c - the device is told which blocks are free (fstrim)
 *
 * Group by group, one free run after the other: a run is held in its group, as if
 * it waited for a commit, discarded, and given back. So nobody can write to it before the
 * discard is over; and who finds no other space meanwhile does what he does for
 * blocks that were freed but just now: he commits, waits for the discard that is under
 * way (ext4_trim_wait()), and tries again. What was freed
 * by a transaction that has not committed is held, too, and thus left alone: after a
 * crash it would be in use.
 *
 * A group of which all was discarded is passed over next time, until something is freed
 * in it. What lies in claims (freespace.c) meanwhile is not seen: a group that has
 * some is not noted as done.
 *
 * Locks: trim_lock of struct ext4_alloc: one at a time; outside of all.
 */
#include "fs/alloc_internal.h"

#include <stdatomic.h>

#include "lib/wait.h"

/* So much is held at a time: others may want it. */
#define TRIM_BYTES_MAX (32ull << 20)

struct trim {
	struct ext4_sb *sbi;
	u32 min, max;  /* clusters: shortest run, longest piece */
	u64 clusters;  /* discarded */
	bool (*stop)(void *priv);
	void *priv;
};

static int discard(struct trim *t, group_t g, struct ext4_run r)
{
	struct ext4_sb *sbi = t->sbi;
	u32 bits = ext4_cluster_bytes_bits(sbi);
	u64 base = ext4_group_first_block(sbi, g) << sbi->s.s_blocksize_bits;
	int err = bdev_discard(sbi->bdev, base + ((u64)r.off << bits),
			       (u64)r.len << bits);

	ext4_unhold_run(sbi, g, r);
	if (!err)
		t->clusters += r.len;
	return err;
}

/* Blocks that may be held: what is promised to others stays to be had meanwhile, or
 * one fstrim after the other could outlast their retries. */
static u32 may_hold(const struct trim *t)
{
	const struct ext4_alloc *al = t->sbi->alloc;
	s64 left = counter_sum(al->avail) - (s64)atomic_load(&al->pending_blocks);

	/* Half: a run is cut where the rest is not too short, so it may be longer. */
	return left > 0 ? (u32)min_of(left / 2, (s64)t->max) : 0;
}

/* 1: there may be more in the group. 0: there is not. -EAGAIN: no more may be held. */
static int trim_piece(struct trim *t, group_t g, u32 *pos, u32 end)
{
	struct ext4_alloc *al = t->sbi->alloc;
	u32 max = may_hold(t);
	struct ext4_run r;
	int err;

	if (max < t->min)
		return -EAGAIN;
	/* Before something is held: who misses it knows what to wait for. */
	atomic_fetch_add(&al->trims_begun, 1);
	err = ext4_hold_free_run(t->sbi, g, pos, end, t->min, max, &r);
	if (err == 1)
		err = discard(t, g, r) ?: 1;
	atomic_fetch_add(&al->trims_done, 1);
	wake_up(&al->trims_done);
	return err;
}

static int trim_group(struct trim *t, group_t g, u32 from, u32 end)
{
	bool whole = !from && end == ext4_clusters_in_group(t->sbi, g);
	u32 pos = from;
	int err;

	if (!ext4_trim_begin(t->sbi, g, t->min))
		return 0;
	do {
		if (atomic_load(&t->sbi->s.s_rdonly))
			return ext4_may_write(t->sbi);
		if (t->stop && t->stop(t->priv))
			return -EINTR;
		err = trim_piece(t, g, &pos, end);
	} while (err == 1);
	/* Damage was told of, and the rest of the volume is none the worse for it. */
	if (err == -EFSCORRUPTED || err == -EFSBADCRC || err == -EAGAIN)
		return 0;
	if (!err && whole)
		ext4_trim_end(t->sbi, g, t->min);
	return err;
}

static int trim_range(struct trim *t, u64 first, u64 end)
{
	struct ext4_sb *sbi = t->sbi;
	int err = 0;

	while (!err && first < end) {
		group_t g = ext4_block_group(sbi, first);
		u64 base = ext4_group_first_block(sbi, g);
		u64 stop = min_of(base + ext4_blocks_in_group(sbi, g), end);

		u8 bits = sbi->cluster_bits;
		u32 from = (u32)DIV_ROUND_UP(first - base, (u64)1 << bits);
		u32 to = (u32)((stop - base) >> bits);

		/* The last cluster of a volume may be short. */
		if (stop == base + ext4_blocks_in_group(sbi, g))
			to = ext4_clusters_in_group(sbi, g);
		if (from < to)
			err = trim_group(t, g, from, to);
		first = stop;
	}
	return err;
}

void ext4_trim_wait(struct ext4_sb *sbi)
{
	struct ext4_alloc *al = sbi->alloc;
	u64 until = atomic_load(&al->trims_begun);

	wait_event(&al->trims_done, atomic_load(&al->trims_done) >= until);
}

int sl_trim(struct super_block *sb, u64 start, u64 len, u64 minlen, u64 *trimmed,
	    bool (*stop)(void *priv), void *priv)
{
	struct ext4_sb *sbi = EXT4_SB(sb);
	u8 bits = sb->s_blocksize_bits;
	u64 first = start >> bits, blocks = len >> bits, end;
	u64 min = DIV_ROUND_UP(minlen >> bits, (u64)1 << sbi->cluster_bits);
	struct trim t = { .sbi = sbi, .stop = stop, .priv = priv };
	int err = ext4_may_write(sbi);

	*trimmed = 0;
	if (err)
		return err;
	if (min > sbi->clusters_per_group || first >= sbi->blocks_count ||
	    len < sb->s_blocksize)
		return -EINVAL;
	end = min_of(blocks, sbi->blocks_count - first) + first;
	first = max_of(first, (u64)sbi->first_data_block);
	t.min = max_of((u32)min, 1u);
	t.max = max_of((u32)(TRIM_BYTES_MAX >> ext4_cluster_bytes_bits(sbi)), t.min);
	mutex_lock(&sbi->alloc->trim_lock);
	err = trim_range(&t, first, end);
	mutex_unlock(&sbi->alloc->trim_lock);
	*trimmed = t.clusters << ext4_cluster_bytes_bits(sbi);
	return err;
}
