/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/writeback/test_flusher.c - background write-out, write-behind, throttling, sync
 *
 * The inode cache is the real one. The file system is a number of dirty bytes
 * per inode, which write_inode takes away; it can fail, stall, wait at a
 * gate, or dirty the inode anew. Events are waited for, with a deadline.
 */
#include "../unit.h"

#include "cache/budget.h"
#include "cache/icache.h"
#include "lib/counter.h"
#include "lib/log.h"
#include "lib/thread.h"
#include "lib/wait.h"
#include "writeback/flusher.h"

#include <errno.h>
#include <stdatomic.h>

#define MiB (1ll << 20)
#define NR_INODES 8
#define DEADLINE_NS 300000000000ull

struct finode {
	struct inode vfs; /* first */
	_Atomic s64 bytes;   /* dirty */
	_Atomic int error;   /* of each write */
	_Atomic bool stall;  /* nothing can be taken now */
	_Atomic bool redirty; /* dirtied anew by each write */
	_Atomic u32 writes, sync_writes, in_write;
	_Atomic bool front_busy; /* its first slice is dirtied anew by each write */
	_Atomic u64 done_at; /* value of `clock_` when it got clean */
	_Atomic u64 last_at; /* value of `clock_` at its last write */
	_Atomic u32 first, end; /* range of the last write */
};

static struct super_block sb;
static struct finode *ino[NR_INODES];
static _Atomic u64 clock_;
static _Atomic bool gate_closed;

/* Waits for an event that comes without wake-up. */
#define wait_until(cond)                                                       \
	do {                                                                   \
		u64 end_ = clock_mono_ns() + DEADLINE_NS;                      \
		while (!(cond)) {                                              \
			assert_true(clock_mono_ns() < end_);                   \
			usleep(1000);                                          \
		}                                                              \
	} while (0)

/* ---- the file system ---- */

static struct inode *fake_alloc(struct super_block *s)
{
	struct finode *fi = calloc(1, sizeof(*fi));

	fi->vfs.i_sb = s;
	inode_init_once(&fi->vfs);
	return &fi->vfs;
}

static void fake_free(struct inode *inode)
{
	inode_destroy_locks(inode);
	free(container_of_type(inode, struct finode, vfs));
}

static int fake_read(struct inode *inode)
{
	return -ESTALE;
}

static void fake_evict(struct inode *inode, bool delete)
{
	(void)mapping_invalidate(&inode->i_mapping, 0, LBLK_MAX + 1);
}

static int fake_write(struct inode *inode, struct wb_control *wbc)
{
	struct finode *fi = container_of_type(inode, struct finode, vfs);
	s64 left, take;

	atomic_fetch_add(&fi->in_write, 1);
	wait_event(&gate_closed, !atomic_load(&gate_closed));
	/* What tests wait for comes last: the count here, the state below. */
	atomic_store(&fi->last_at, atomic_fetch_add(&clock_, 1) + 1);
	atomic_store(&fi->first, wbc->start);
	atomic_store(&fi->end, wbc->end);
	atomic_fetch_add(wbc->sync ? &fi->sync_writes : &fi->writes, 1);
	atomic_fetch_sub(&fi->in_write, 1);
	if (atomic_load(&fi->error))
		return atomic_load(&fi->error);
	if (atomic_load(&fi->stall))
		return 0;
	if (atomic_load(&fi->front_busy) && !wbc->start) {
		wbc->next = (lblk_t)(wbc->nr_to_write / sb.s_blocksize);
		wbc->nr_to_write = 0;
		return 0;
	}
	/* sync and the flusher may be here at once; each takes what is left. */
	left = atomic_load(&fi->bytes);
	do {
		take = left;
		if ((u64)take > wbc->nr_to_write)
			take = (s64)wbc->nr_to_write;
	} while (!atomic_compare_exchange_weak(&fi->bytes, &left, left - take));
	wbc->nr_to_write -= (u64)take;
	counter_add(sb.s_dirty_bytes, -take);
	if (left == take) {
		atomic_store(&fi->done_at, atomic_fetch_add(&clock_, 1) + 1);
		inode_clear_dirty(inode, I_DIRTY);
	}
	if (atomic_load(&fi->redirty))
		inode_mark_dirty(inode, I_DIRTY_PAGES);
	return 0;
}

static const struct super_ops fake_ops = {
	.alloc_inode = fake_alloc,
	.free_inode = fake_free,
	.read_inode = fake_read,
	.evict_inode = fake_evict,
	.write_inode = fake_write,
};

static void dirty(struct finode *fi, s64 bytes)
{
	atomic_fetch_add(&fi->bytes, bytes);
	counter_add(sb.s_dirty_bytes, bytes);
	inode_mark_dirty(&fi->vfs, bytes ? I_DIRTY_PAGES : I_DIRTY_INODE);
}

static bool is_clean(struct finode *fi)
{
	return !(atomic_load(&fi->vfs.i_state) & I_DIRTY);
}

static void quiet(enum log_level level, const char *line, void *priv)
{
}

static int setup(void **state)
{
	memset(&sb, 0, sizeof(sb));
	atomic_store(&gate_closed, false);
	sb.s_op = &fake_ops;
	sb.s_blocksize = 4096;
	sb.s_blocksize_bits = 12;
	strcpy(sb.s_id, "fake");
	sb.s_dirty_bytes = counter_new(0, 4096);
	if (!sb.s_dirty_bytes || budget_create(64u << 20, 1, &sb.s_budget) ||
	    mapping_cache_create(&sb, NULL) || icache_create(&sb, 1000))
		return -1;
	for (u32 i = 0; i < NR_INODES; i++) {
		struct inode *inode = fake_alloc(&sb);

		inode->i_ino = 12 + i;
		inode->i_nlink = 1;
		if (icache_insert(&sb, inode))
			return -1;
		inode_unlock_new(inode);
		ino[i] = container_of_type(inode, struct finode, vfs);
	}
	return 0;
}

static int teardown(void **state)
{
	for (u32 i = 0; i < NR_INODES; i++) {
		inode_clear_dirty(&ino[i]->vfs, I_DIRTY);
		inode_put(&ino[i]->vfs);
	}
	icache_evict_all(&sb);
	icache_destroy(&sb);
	mapping_cache_destroy(&sb);
	rcu_barrier();
	budget_destroy(sb.s_budget);
	counter_free(sb.s_dirty_bytes);
	return 0;
}

static struct flusher *start(u64 limit, u64 background, u32 expire_ms)
{
	struct flusher_params p = { limit, background, expire_ms };
	struct flusher *f;

	assert_int_equal(flusher_start(&sb, &p, &f), 0);
	return f;
}

/* ---- background ---- */

static void test_bad_marks_are_refused(void **state)
{
	struct flusher_params p = { 10, 20, 1000 };
	struct flusher *f;

	assert_int_equal(flusher_start(&sb, &p, &f), -EINVAL);
	p.dirty_bytes = p.dirty_background_bytes = 0;
	assert_int_equal(flusher_start(&sb, &p, &f), -EINVAL);
	flusher_stop(NULL);
}

static void test_kick_writes_all(void **state)
{
	struct flusher *f = start(100 * MiB, 50 * MiB, 3600000);

	for (u32 i = 0; i < NR_INODES; i++)
		dirty(ino[i], i * MiB); /* the first: attributes only */
	flusher_kick(f);
	for (u32 i = 0; i < NR_INODES; i++)
		wait_until(is_clean(ino[i]));
	assert_int_equal(counter_sum(sb.s_dirty_bytes), 0);
	flusher_stop(f);
}

static void test_background_mark_starts_write_out(void **state)
{
	struct flusher *f = start(100 * MiB, 10 * MiB, 3600000);

	for (u32 i = 0; i < NR_INODES; i++)
		dirty(ino[i], 3 * MiB);
	balance_dirty(f, &ino[0]->vfs, 4096);
	wait_until(counter_sum(sb.s_dirty_bytes) <= 10 * MiB);
	flusher_stop(f);
	/* in the order they were dirtied */
	assert_int_not_equal(ino[0]->writes, 0);
	for (u32 i = 1; i < NR_INODES; i++)
		if (is_clean(ino[i]))
			assert_true(ino[i]->done_at > ino[i - 1]->done_at);
}

static void test_expired_inodes_are_written(void **state)
{
	struct flusher *f = start(100 * MiB, 50 * MiB, 30);

	dirty(ino[0], MiB);
	wait_until(is_clean(ino[0]));
	dirty(ino[1], 0);
	wait_until(is_clean(ino[1]));
	flusher_stop(f);
}

/* A small file does not wait for the whole of a large one before it. */
static void test_large_file_is_written_in_slices(void **state)
{
	struct flusher *f = start(1000 * MiB, 500 * MiB, 3600000);

	dirty(ino[0], 80 * MiB);
	dirty(ino[1], MiB);
	flusher_kick(f);
	wait_until(is_clean(ino[0]) && is_clean(ino[1]));
	assert_int_equal(ino[0]->writes, 10);
	assert_true(ino[1]->done_at < ino[0]->done_at);
	flusher_stop(f);
}

static void test_failing_inode_does_not_hold_up_others(void **state)
{
	struct flusher *f = start(100 * MiB, 1 * MiB, 3600000);

	atomic_store(&ino[0]->error, -EIO);
	atomic_store(&ino[3]->stall, true);
	for (u32 i = 0; i < NR_INODES; i++)
		dirty(ino[i], MiB);
	flusher_kick(f);
	for (u32 i = 0; i < NR_INODES; i++)
		if (i != 0 && i != 3)
			wait_until(is_clean(ino[i]));
	assert_false(is_clean(ino[0]));
	atomic_store(&ino[0]->error, 0);
	atomic_store(&ino[3]->stall, false);
	flusher_kick(f);
	wait_until(is_clean(ino[0]) && is_clean(ino[3]));
	flusher_stop(f);
}

/* The stop returns though an inode fails for ever. */
static void test_stop_with_dirty_inodes(void **state)
{
	struct flusher *f = start(100 * MiB, 1 * MiB, 10);

	atomic_store(&ino[0]->error, -ENOSPC);
	dirty(ino[0], 50 * MiB);
	wait_until(atomic_load(&ino[0]->writes) > 0);
	flusher_stop(f);
	assert_false(is_clean(ino[0]));
	counter_add(sb.s_dirty_bytes, -50 * MiB);
}

/* A file whose beginning is always dirty gets to its end all the same. */
static void test_slices_go_round_in_a_file(void **state)
{
	struct flusher *f = start(100 * MiB, 1 * MiB, 3600000);

	atomic_store(&ino[0]->front_busy, true);
	dirty(ino[0], 4 * MiB);
	flusher_kick(f);
	wait_until(is_clean(ino[0]));
	assert_int_equal(atomic_load(&ino[0]->bytes), 0);
	atomic_store(&ino[0]->front_busy, false);
	flusher_stop(f);
}

/* ---- write-behind ---- */

/* Far below the mark, not expired, nobody kicks. */
static void test_streams_are_written_behind(void **state)
{
	struct flusher *f = start(100 * MiB, 50 * MiB, 3600000);
	struct flusher_stats st;

	dirty(ino[2], 4 * MiB);
	flusher_behind(f, &ino[2]->vfs, 512, 1024);
	wait_until(is_clean(ino[2]));
	assert_int_equal(ino[2]->first, 512);
	assert_int_equal(ino[2]->end, 1024);
	assert_int_equal(ino[1]->writes, 0);
	wait_until((flusher_get_stats(f, &st), st.behind == 1));
	assert_int_equal(st.slices, 0);
	assert_int_equal(st.behind_lost, 0);
	flusher_stop(f);
}

static void open_gate(void);

/*
 * A piece that continues another one joins it, up to a slice, and one that lies in
 * another is that; of too many pieces some are left to the other rules. Those that were not written at the
 * stop are let go.
 */
static void test_queue_of_streams(void **state)
{
	struct flusher *f = start(100 * MiB, 50 * MiB, 3600000);
	struct flusher_stats st;

	atomic_store(&gate_closed, true);
	dirty(ino[0], MiB);
	flusher_behind(f, &ino[0]->vfs, 0, 512);
	wait_until(atomic_load(&ino[0]->in_write) == 1);
	for (lblk_t b = 0; b < 3 * 2048; b += 512)
		flusher_behind(f, &ino[1]->vfs, b, b + 512);
	for (lblk_t b = 0; b < 3 * 2048; b += 512)
		flusher_behind(f, &ino[1]->vfs, b + 1, b + 512);
	open_gate();
	wait_until((flusher_get_stats(f, &st), st.behind == 4));
	assert_int_equal(ino[1]->writes, 3);
	assert_int_equal(ino[1]->first, 4096);
	assert_int_equal(ino[1]->end, 3 * 2048);

	atomic_store(&gate_closed, true);
	flusher_behind(f, &ino[0]->vfs, 0, 512);
	wait_until(atomic_load(&ino[0]->in_write) == 1);
	for (lblk_t b = 0; b < 1000; b += 2)
		flusher_behind(f, &ino[1]->vfs, b, b + 1);
	flusher_get_stats(f, &st);
	assert_true(st.behind_lost > 400);
	open_gate();
	flusher_stop(f);
}

/* A pass that has little else to do leaves pieces behind: they follow at once. */
static void test_pass_leaves_no_pieces(void **state)
{
	struct flusher *f = start(100 * MiB, 50 * MiB, 3600000);
	struct flusher_stats st;

	atomic_store(&gate_closed, true);
	dirty(ino[0], 4096);
	flusher_kick(f);
	wait_until(atomic_load(&ino[0]->in_write) == 1);
	for (lblk_t b = 0; b < 20; b += 2)
		flusher_behind(f, &ino[1]->vfs, b, b + 1);
	/* The next pass is due when this one ends, and finds them alone. */
	flusher_kick(f);
	open_gate();
	wait_until((flusher_get_stats(f, &st), st.behind == 10));
	flusher_stop(f);
}

/* Many pieces of one stream, and small files that are due: by turns. */
static void test_streams_do_not_hold_up_others(void **state)
{
	struct flusher *f = start(100 * MiB, 50 * MiB, 3600000);

	atomic_store(&gate_closed, true);
	dirty(ino[0], 4096);
	flusher_behind(f, &ino[0]->vfs, 0, 1);
	wait_until(atomic_load(&ino[0]->in_write) == 1);
	for (lblk_t b = 2; b < 62; b += 2)
		flusher_behind(f, &ino[0]->vfs, b, b + 1);
	for (u32 i = 1; i < 4; i++)
		dirty(ino[i], 4096);
	flusher_kick(f);
	open_gate();
	for (u32 i = 1; i < 4; i++)
		wait_until(is_clean(ino[i]));
	wait_until(atomic_load(&ino[0]->writes) == 31);
	for (u32 i = 1; i < 4; i++)
		assert_true(ino[i]->done_at < ino[0]->last_at);
	flusher_stop(f);
}

/* ---- throttling ---- */

static void never(void *priv)
{
	fail();
}

static void test_pauses_are_proportional(void **state)
{
	u64 limit = 20 * MiB, start_mark = 15 * MiB, last = 0;
	struct throttle *t;

	assert_int_equal(throttle_create(&sb, 20, 10, never, NULL, &t), -EINVAL);
	assert_int_equal(throttle_create(&sb, 10 * MiB, limit, never, NULL, &t), 0);
	assert_int_equal(throttle_pause_ns(t, 0, MiB), 0);
	assert_int_equal(throttle_pause_ns(t, start_mark, 1000 * MiB), 0);
	for (u64 d = start_mark + 4096; d <= limit; d += 4096) {
		u64 ns = throttle_pause_ns(t, d, 65536);

		assert_true(ns > 0 && ns >= last);
		/* no steps: at most a twentieth more for 4 KiB */
		assert_true(!last || ns <= last + last / 20 + 1);
		/* twice as much for twice as much, but for rounding */
		assert_in_range(throttle_pause_ns(t, d, 131072), 2 * ns, 2 * ns + 1);
		last = ns;
	}
	assert_int_equal(throttle_pause_ns(t, limit, 100 * MiB), 200000000);
	assert_int_equal(throttle_pause_ns(t, UINT64_MAX, UINT64_MAX), 200000000);
	throttle_free(t);
}

/* Between start mark and limit a writer pauses, and goes on though nothing at
 * all could be written meanwhile. */
static void test_writer_is_slowed_not_stopped(void **state)
{
	struct flusher *f = start(20 * MiB, 10 * MiB, 3600000);
	struct flusher_stats st;

	for (u32 i = 0; i < NR_INODES; i++)
		atomic_store(&ino[i]->stall, true);
	dirty(ino[0], 19 * MiB);
	for (u32 i = 0; i < 4; i++)
		balance_dirty(f, &ino[1]->vfs, 256 << 10);
	assert_int_equal(counter_sum(sb.s_dirty_bytes), 19 * MiB);
	flusher_get_stats(f, &st);
	assert_true(st.throttle.pauses > 0);
	assert_true(st.throttle.pause_ns > 0);
	assert_int_equal(st.throttle.at_limit, 0);
	/* What is small adds up. */
	for (u32 i = 0; i < 100; i++)
		balance_dirty(f, &ino[2]->vfs, 4096);
	u64 before = st.throttle.pauses;
	flusher_get_stats(f, &st);
	assert_in_range(st.throttle.pauses - before, 1, 99);
	atomic_store(&ino[0]->stall, false);
	flusher_stop(f);
	counter_add(sb.s_dirty_bytes, -counter_sum(sb.s_dirty_bytes));
}

struct caller {
	struct flusher *f;
	struct thread *t;
	_Atomic bool done;
	int result;
};

static void call_balance(void *arg)
{
	struct caller *c = arg;

	balance_dirty(c->f, &ino[0]->vfs, 4096);
	atomic_store(&c->done, true);
}

static void call_sync(void *arg)
{
	struct caller *c = arg;

	c->result = flusher_sync_all(c->f);
	atomic_store(&c->done, true);
}

static void test_writer_waits_above_the_limit(void **state)
{
	struct caller c = { .f = start(20 * MiB, 10 * MiB, 3600000) };

	balance_dirty(c.f, &ino[0]->vfs, 4096); /* nothing dirty: at once */
	atomic_store(&ino[0]->stall, true);
	dirty(ino[0], 30 * MiB);
	assert_int_equal(thread_create(&c.t, "writer", call_balance, &c), 0);
	/* write-out has been tried in vain: still waiting */
	wait_until(atomic_load(&ino[0]->writes) > 3);
	assert_false(atomic_load(&c.done));
	atomic_store(&ino[0]->stall, false);
	thread_join(c.t);
	assert_true(counter_sum(sb.s_dirty_bytes) <= 20 * MiB);
	flusher_stop(c.f);
}

static void test_all_writers_at_the_limit_get_through(void **state)
{
	struct caller c[4] = { 0 };
	struct flusher *f = start(20 * MiB, 10 * MiB, 3600000);
	struct flusher_stats st;

	atomic_store(&ino[0]->stall, true);
	dirty(ino[0], 30 * MiB);
	for (u32 i = 0; i < ARRAY_SIZE(c); i++) {
		c[i].f = f;
		assert_int_equal(thread_create(&c[i].t, "writer", call_balance,
					       &c[i]), 0);
		wait_until((flusher_get_stats(f, &st),
			    st.throttle.waiting == i + 1));
	}
	atomic_store(&ino[0]->stall, false);
	for (u32 i = 0; i < ARRAY_SIZE(c); i++)
		thread_join(c[i].t);
	flusher_get_stats(f, &st);
	assert_int_equal(st.throttle.waiting, 0);
	assert_int_equal(st.throttle.at_limit, ARRAY_SIZE(c));
	flusher_stop(f);
}

/* More than the limit in one call: passes when half of it is free. */
static void test_huge_write_passes(void **state)
{
	struct flusher *f = start(20 * MiB, 10 * MiB, 3600000);

	balance_dirty(f, &ino[0]->vfs, 500 * MiB);
	dirty(ino[0], 19 * MiB);
	balance_dirty(f, &ino[0]->vfs, 500 * MiB);
	assert_true(counter_sum(sb.s_dirty_bytes) <= 10 * MiB);
	flusher_stop(f);
}

/* What the writer needs free lies below the background mark. */
static void test_marks_close_together(void **state)
{
	struct flusher *f = start(20 * MiB, 20 * MiB, 3600000);

	dirty(ino[0], 19 * MiB);
	balance_dirty(f, &ino[0]->vfs, 2 * MiB);
	assert_true(counter_sum(sb.s_dirty_bytes) <= 18 * MiB);
	dirty(ino[1], 12 * MiB);
	balance_dirty(f, &ino[0]->vfs, 500 * MiB);
	assert_true(counter_sum(sb.s_dirty_bytes) <= 10 * MiB);
	flusher_stop(f);
}

static void test_writer_does_not_wait_for_a_readonly_volume(void **state)
{
	struct caller c = { .f = start(20 * MiB, 10 * MiB, 3600000) };

	atomic_store(&ino[0]->error, -EROFS);
	dirty(ino[0], 30 * MiB);
	assert_int_equal(thread_create(&c.t, "writer", call_balance, &c), 0);
	wait_until(atomic_load(&ino[0]->writes) > 0);
	assert_false(atomic_load(&c.done));
	atomic_store(&sb.s_rdonly, true);
	thread_join(c.t);
	flusher_stop(c.f);
	counter_add(sb.s_dirty_bytes, -30 * MiB);
}

/* ---- sync ---- */

static void test_sync_writes_everything(void **state)
{
	struct flusher *f = start(100 * MiB, 50 * MiB, 3600000);

	for (u32 i = 0; i < NR_INODES - 1; i++)
		dirty(ino[i], i * MiB);
	assert_int_equal(flusher_sync_all(f), 0);
	for (u32 i = 0; i < NR_INODES - 1; i++)
		assert_true(is_clean(ino[i]));
	assert_int_equal(ino[NR_INODES - 1]->writes, 0);
	assert_int_equal(ino[NR_INODES - 1]->sync_writes, 0);
	assert_int_equal(counter_sum(sb.s_dirty_bytes), 0);
	assert_int_equal(flusher_sync_all(f), 0);
	flusher_stop(f);
}

static void test_sync_goes_on_after_an_error(void **state)
{
	struct flusher *f = start(100 * MiB, 50 * MiB, 3600000);

	for (u32 i = 0; i < NR_INODES; i++)
		dirty(ino[i], MiB);
	atomic_store(&ino[2]->error, -EIO);
	atomic_store(&ino[5]->error, -ENOSPC);
	assert_int_equal(flusher_sync_all(f), -EIO);
	for (u32 i = 0; i < NR_INODES; i++)
		assert_int_equal(is_clean(ino[i]), i != 2 && i != 5);
	assert_int_equal(ino[2]->sync_writes, 1);
	assert_int_equal(ino[5]->sync_writes, 1);
	flusher_stop(f);
}

/* An inode dirtied again by every write does not keep sync from ending. */
static void test_sync_ends_beside_a_writer(void **state)
{
	struct flusher *f = start(100 * MiB, 50 * MiB, 3600000);

	atomic_store(&ino[1]->redirty, true);
	for (u32 i = 0; i < NR_INODES; i++)
		dirty(ino[i], MiB);
	assert_int_equal(flusher_sync_all(f), 0);
	for (u32 i = 0; i < NR_INODES; i++)
		assert_int_equal(is_clean(ino[i]), i != 1);
	assert_int_equal(ino[1]->sync_writes, 1);
	flusher_stop(f);
}

static void open_gate(void)
{
	atomic_store(&gate_closed, false);
	wake_up(&gate_closed);
}

/* The flusher is in the middle of an inode, which is on no list then. */
static void test_sync_waits_for_the_flusher(void **state)
{
	struct caller c = { .f = start(100 * MiB, 50 * MiB, 3600000) };

	atomic_store(&gate_closed, true);
	dirty(ino[0], 20 * MiB);
	flusher_kick(c.f);
	wait_until(atomic_load(&ino[0]->in_write) == 1);
	assert_int_equal(thread_create(&c.t, "sync", call_sync, &c), 0);
	assert_false(atomic_load(&c.done));
	open_gate();
	thread_join(c.t);
	assert_int_equal(c.result, 0);
	assert_true(is_clean(ino[0]));
	flusher_stop(c.f);
}

/* All blocks are on their way: the inode is clean, the data is not there yet. */
static void test_sync_waits_for_writeback(void **state)
{
	struct caller c = { .f = start(100 * MiB, 50 * MiB, 3600000) };
	struct mapping *m = &ino[4]->vfs.i_mapping;
	struct wb_run *run = malloc(sizeof(*run));
	char *data = calloc(1, 4096);
	u32 reserved = 1;
	u64 mapped = 0;

	assert_int_equal(mapping_write(m, 0, data, 4096, &mapped, &reserved), 4096);
	inode_mark_dirty(&ino[4]->vfs, I_DIRTY_PAGES);
	mapping_take_dirty(m, 0, 100, 100, false, run);
	assert_int_equal(run->nr, 1);
	inode_clear_dirty(&ino[4]->vfs, I_DIRTY_PAGES);
	assert_true(is_clean(ino[4]));
	assert_int_equal(thread_create(&c.t, "sync", call_sync, &c), 0);
	usleep(20000); /* makes it likely that it waits; proves nothing */
	assert_false(atomic_load(&c.done));
	assert_int_equal(mapping_set_mapped(m, 0, 1), 1);
	mapping_end_writeback(m, 0, 1, false);
	thread_join(c.t);
	assert_int_equal(c.result, 0);
	free(data);
	free(run);
	flusher_stop(c.f);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_bad_marks_are_refused),
		T(test_kick_writes_all),
		T(test_background_mark_starts_write_out),
		T(test_expired_inodes_are_written),
		T(test_large_file_is_written_in_slices),
		T(test_failing_inode_does_not_hold_up_others),
		T(test_stop_with_dirty_inodes),
		T(test_slices_go_round_in_a_file),
		T(test_streams_are_written_behind),
		T(test_pass_leaves_no_pieces),
		T(test_queue_of_streams),
		T(test_streams_do_not_hold_up_others),
		T(test_pauses_are_proportional),
		T(test_writer_is_slowed_not_stopped),
		T(test_writer_waits_above_the_limit),
		T(test_all_writers_at_the_limit_get_through),
		T(test_huge_write_passes),
		T(test_marks_close_together),
		T(test_writer_does_not_wait_for_a_readonly_volume),
		T(test_sync_writes_everything),
		T(test_sync_goes_on_after_an_error),
		T(test_sync_ends_beside_a_writer),
		T(test_sync_waits_for_the_flusher),
		T(test_sync_waits_for_writeback),
	};

	log_set_sink(quiet, NULL);
	thread_register();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
