/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/reconfigure.c - options of a mounted volume are changed
 *
 * Most are a value that others look at when they need it: what has begun goes on as it
 * began. What is no more than that is told to who has it: the journal, the flusher,
 * the budget. Discarding is taken up by a thread, which then stays until the volume is
 * unmounted: what was freed may be on its way to it.
 *
 * Locks:   limit_lock, for the marks of dirty data
 * Threads: any, one at a time
 */
#include "fs/alloc_internal.h"
#include "fs/super_internal.h"

#include <stdatomic.h>

/* The marks follow the limit, unless they are given. */
static void set_marks(struct ext4_sb *sbi, const struct sl_options *to)
{
	u64 background, dirty;

	mutex_lock(&sbi->limit_lock);
	sbi->opts.dirty_bytes = to->dirty_bytes;
	sbi->opts.dirty_background_bytes = to->dirty_background_bytes;
	ext4_dirty_marks(sbi, budget_limit(sbi->s.s_budget), &background, &dirty);
	if (sbi->flusher)
		flusher_set_marks(sbi->flusher, background, dirty);
	mutex_unlock(&sbi->limit_lock);
}

static void set_times(struct ext4_sb *sbi, const struct sl_options *was,
		      const struct sl_options *to)
{
	if (was->commit_ms != to->commit_ms) {
		sbi->opts.commit_ms = to->commit_ms;
		if (sbi->journal)
			journal_set_commit_interval(sbi->journal, to->commit_ms);
	}
	if (was->dirty_expire_ms != to->dirty_expire_ms) {
		sbi->opts.dirty_expire_ms = to->dirty_expire_ms;
		if (sbi->flusher)
			flusher_set_expire(sbi->flusher, ext4_expire_ms(sbi));
	}
}

static int set_discard(struct ext4_sb *sbi, bool on)
{
	int err = 0;

	if (on && sbi->journal && !sbi->discarder)
		err = ext4_discard_start(sbi);
	if (!err)
		sbi->opts.discard = on;
	return err;
}

static void set_ids(struct ext4_sb *sbi, const struct sl_options *to)
{
	if (to->resuid.given)
		sbi->resuid = to->resuid.id;
	if (to->resgid.given)
		sbi->resgid = to->resgid.id;
}

/* Whose new value is all there is to it. */
static void set_values(struct ext4_sb *sbi, const struct sl_options *to)
{
	struct sl_options *o = &sbi->opts;

	o->atime = to->atime;
	o->nodiratime = to->nodiratime;
	o->nodelalloc = to->nodelalloc;
	o->sync = to->sync;
	o->dirsync = to->dirsync;
	o->data_err_abort = to->data_err_abort;
	o->grpid = to->grpid;
	o->minixdf = to->minixdf;
	o->nouser_xattr = to->nouser_xattr;
	o->max_dir_size_kb = to->max_dir_size_kb;
	o->noauto_da_alloc = to->noauto_da_alloc;
	o->inode_readahead_blks = to->inode_readahead_blks;
	sl_set_noatime(&sbi->s, to->atime == SL_ATIME_NOATIME);
}

int sl_reconfigure(struct super_block *sb, const struct sl_options *was,
		   const struct sl_options *to)
{
	struct ext4_sb *sbi = EXT4_SB(sb);
	int err = set_discard(sbi, to->discard);

	if (err)
		return err;
	set_values(sbi, to);
	set_ids(sbi, to);
	set_times(sbi, was, to);
	if (was->errors != to->errors) {
		sbi->opts.errors = to->errors;
		sbi->errors_policy = ext4_errors_policy(to->errors, 0);
	}
	if (was->dirty_bytes != to->dirty_bytes ||
	    was->dirty_background_bytes != to->dirty_background_bytes)
		set_marks(sbi, to);
	if (was->cache_bytes != to->cache_bytes)
		err = sl_set_cache_bytes(sb, to->cache_bytes);
	return err;
}
