/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_journal.c - handles, commits, checkpoints, aborts, crashes
 *
 * The large test runs random handles from several threads over a tiny log and
 * records each write; then, for power cuts at every kind of place, recovers
 * the image and asks: is this exactly the state of some commit, and none older
 * than the last one that was acknowledged?
 */
#include "../unit.h"

#include "fs/journal/journal_internal.h"
#include "journal_test.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SLOW 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define SLOW 1
#endif
#endif
#ifndef SLOW
#define SLOW 0
#endif

static const struct jt_config small = { .bs = 1024, .jlen = 200, .vol = 64, .v3 = true,
					.wide = true, .interval_ms = 600000 };

static struct handle *start(struct jt *t, u32 blocks, u32 revokes)
{
	struct handle *h;

	assert_int_equal(journal_start(t->j, blocks, revokes, &h), 0);
	return h;
}

static struct buffer *get(struct jt *t, pblk_t blk)
{
	struct buffer *b;

	assert_int_equal(buffer_read(&t->sb, blk, &jt_type, JT_SEED, &b), 0);
	return b;
}

static void change(struct handle *h, struct buffer *b, u32 ver)
{
	assert_int_equal(handle_get_write_access(h, b), 0);
	jt_fill(b->b_data, b->b_sb->s_blocksize, b->b_blocknr, ver);
	handle_dirty(h, b);
}

/* One handle that gives blk version ver. */
static jtid_t set_version(struct jt *t, pblk_t blk, u32 ver)
{
	struct handle *h = start(t, 1, 0);
	struct buffer *b = get(t, blk);
	jtid_t tid = handle_tid(h);

	change(h, b, ver);
	buffer_put(b);
	assert_int_equal(handle_stop(h), 0);
	return tid;
}

/* For when nobody writes. */
static const u8 *place(struct jt *t, pblk_t blk)
{
	return t->fd->mem + blk * t->c.bs;
}

/* The version word of blk in its place. */
static u32 version_in_place(struct jt *t, pblk_t blk)
{
	u32 ver;

	pthread_mutex_lock(&t->fd->lock);
	ver = ((const u32 *)place(t, blk))[1];
	pthread_mutex_unlock(&t->fd->lock);
	return ver;
}

/* Does blk have version ver (0: zeros) once the device's bytes are recovered? */
static void assert_recovers_to(struct jt *t, pblk_t blk, u32 ver)
{
	int err;
	struct jt *r = jt_open_now(t, &err);

	assert_int_equal(err, 0);
	assert_int_equal(journal_recover(r->j, &r->fd->bd, NULL), 0);
	if (ver)
		assert_true(jt_is(place(r, blk), t->c.bs, blk, ver, true));
	else
		assert_true(*(u64 *)place(r, blk) == 0);
	jt_close_image(r);
}

/* ---- handles ---- */

static void test_credits(void **state)
{
	struct jt *t = jt_start(&small);
	u32 max = journal_max_credits(t->j);
	struct handle *h;
	struct buffer *b;

	assert_true(max > 8);
	assert_true(max < t->c.jlen / 4);
	assert_int_equal(journal_start(t->j, max + 1, 0, &h), -ENOSPC);
	assert_int_equal(journal_start(t->j, 1, UINT32_MAX, &h), -ENOSPC);
	assert_int_equal(journal_start(t->j, UINT32_MAX, 0, &h), -ENOSPC);

	h = start(t, 2, 1);
	assert_ptr_equal(handle_journal(h), t->j);
	assert_int_equal(handle_credits(h), 2);
	b = get(t, 3);
	change(h, b, 1);
	assert_int_equal(handle_credits(h), 1);
	change(h, b, 2); /* the same transaction: free */
	assert_int_equal(handle_credits(h), 1);
	assert_int_equal(handle_ensure(h, 1, 1), 0);
	assert_int_equal(handle_credits(h), 1);
	assert_int_equal(handle_ensure(h, 5, 0), 0);
	assert_int_equal(handle_credits(h), 5);
	assert_int_equal(handle_ensure(h, max, 0), 1); /* not in this one */
	assert_int_equal(handle_ensure(h, max + 1, 0), -ENOSPC);
	/* Freeing the block gives its credit back. */
	assert_int_equal(handle_forget(h, b, 3), 0);
	assert_int_equal(handle_credits(h), 6);
	assert_int_equal(handle_stop(h), 0);

	h = start(t, max, 0);
	assert_int_equal(handle_stop(h), 0);
	assert_int_equal(journal_shutdown(t->j), 0);
	jt_end(t);
}

static void test_restart(void **state)
{
	struct jt *t = jt_start(&small);
	u32 max = journal_max_credits(t->j);
	struct handle *h = start(t, max, 0);
	jtid_t tid = handle_tid(h);

	for (u32 i = 1; i <= max - 2; i++) {
		struct buffer *b = get(t, i);

		change(h, b, i);
		buffer_put(b);
	}
	assert_int_equal(handle_ensure(h, 10, 0), 1);
	assert_int_equal(handle_restart(h, 10, 0), 0);
	assert_true(handle_tid(h) != tid); /* the first is full: it was committed */
	assert_int_equal(handle_credits(h), 10);
	assert_int_equal(handle_stop(h), 0);
	assert_int_equal(journal_commit_wait(t->j, tid, NULL), 0);
	assert_recovers_to(t, 5, 5);
	assert_int_equal(journal_shutdown(t->j), 0);
	jt_end(t);
}

static void test_reserved(void **state)
{
	struct jt *t = jt_start(&small);
	struct handle *h, *h2;
	struct buffer *b;

	assert_int_equal(journal_reserve(t->j, journal_max_credits(t->j), &h), -ENOSPC);
	assert_int_equal(journal_reserve(t->j, 4, &h), 0);
	assert_int_equal(journal_reserve(t->j, 4, &h2), 0);
	handle_cancel_reserved(h2);
	assert_int_equal(handle_start_reserved(h), 0);
	assert_int_equal(handle_credits(h), 4);
	b = get(t, 2);
	change(h, b, 9);
	buffer_put(b);
	handle_set_sync(h);
	assert_int_equal(handle_stop(h), 0);
	assert_recovers_to(t, 2, 9);
	assert_int_equal(journal_shutdown(t->j), 0);
	jt_end(t);
}

/* ---- commits ---- */

struct count_cb {
	struct commit_cb cb;
	int calls, error;
	u64 writes; /* of the device, when called */
	struct jt *t;
};

static void count_fn(struct commit_cb *cb, int error)
{
	struct count_cb *c = container_of_type(cb, struct count_cb, cb);

	c->calls++;
	c->error = error;
	c->writes = atomic_load(&c->t->fd->nr_writes);
}

static void test_commit(void **state)
{
	struct jt *t = jt_start(&small);
	struct count_cb cb = { .cb.fn = count_fn, .t = t };
	struct handle *h = start(t, 1, 0);
	struct buffer *b = get(t, 4);
	jtid_t tid = handle_tid(h);
	bool flushed;
	u64 writes;

	change(h, b, 1);
	handle_on_commit(h, &cb.cb);
	assert_int_equal(journal_running_tid(t->j), tid);
	assert_int_equal(handle_stop(h), 0);
	assert_int_equal(cb.calls, 0);
	assert_int_equal(atomic_load(&t->fd->nr_writes), 2); /* journal_run()'s */

	assert_int_equal(journal_commit_wait(t->j, tid, &flushed), 0);
	assert_true(flushed);
	assert_int_equal(cb.calls, 1);
	assert_int_equal(cb.error, 0);
	assert_int_equal(cb.writes, atomic_load(&t->fd->nr_writes));
	assert_recovers_to(t, 4, 1);
	assert_int_equal(version_in_place(t, 4), 0); /* not in place */
	assert_true(journal_running_tid(t->j) == tid + 1);

	/* Done already; and nothing is running. */
	writes = atomic_load(&t->fd->nr_writes);
	assert_int_equal(journal_commit_wait(t->j, tid, &flushed), 0);
	assert_false(flushed);
	assert_int_equal(journal_commit_wait(t->j, journal_running_tid(t->j), &flushed), 0);
	assert_false(flushed);

	/* A transaction without changes writes nothing, but calls back. */
	cb.calls = 0;
	h = start(t, 1, 0);
	tid = handle_tid(h);
	assert_int_equal(handle_get_write_access(h, b), 0);
	handle_on_commit(h, &cb.cb);
	assert_int_equal(handle_stop(h), 0);
	assert_int_equal(journal_commit_wait(t->j, tid, &flushed), 0);
	assert_false(flushed);
	assert_int_equal(cb.calls, 1);
	assert_int_equal(atomic_load(&t->fd->nr_writes), writes);

	/* And the next one continues the log without a gap. */
	h = start(t, 1, 0);
	change(h, b, 2);
	handle_set_sync(h);
	assert_int_equal(handle_stop(h), 0);
	assert_recovers_to(t, 4, 2);
	buffer_put(b);

	assert_int_equal(journal_shutdown(t->j), 0);
	assert_false(journal_needs_recovery(t->j));
	assert_true(jt_is(place(t, 4), t->c.bs, 4, 2, true));
	jt_end(t);
}

/* Data written before the call, an empty log, the order of the records. */
static void test_commit_order(void **state)
{
	struct jt *t = jt_start(&small);
	struct fake_bdev *fd = t->fd;
	int state_nr = 0;

	set_version(t, 7, 1); /* starts with the magic number */
	assert_int_equal(journal_force_commit(t->j), 0);
	/* superblock (FUA), log blocks, flush, commit block (FUA). */
	for (u32 i = 0; i < fd->nr; i++) {
		const struct fake_rec *r = &fd->recs[i];
		struct jbd2_header hdr;

		if (r->kind == FAKE_FLUSH) {
			assert_int_equal(state_nr, 2);
			state_nr = 3;
			continue;
		}
		memcpy(&hdr, r->data, sizeof(hdr));
		if (r->kind == FAKE_WRITE) {
			assert_in_range(state_nr, 1, 2);
			state_nr = 2;
			/* The descriptor, the image, escaped, and a zeroed
			 * place for the commit block in one. */
			assert_int_equal(r->len, 3 * t->c.bs);
			assert_int_equal(be32_to_cpu(hdr.h_blocktype), JBD2_DESCRIPTOR);
			assert_memory_equal(r->data + t->c.bs, "\0\0\0\0", 4);
		} else if (be32_to_cpu(hdr.h_blocktype) == JBD2_SB_V2) {
			assert_int_equal(state_nr, 0);
			state_nr = 1;
		} else {
			assert_int_equal(be32_to_cpu(hdr.h_blocktype), JBD2_COMMIT);
			assert_int_equal(state_nr, 3);
			state_nr = 4;
		}
	}
	assert_int_equal(state_nr, 4);
	assert_int_equal(journal_shutdown(t->j), 0);
	jt_end(t);
}

static void test_timer(void **state)
{
	struct jt_config c = small;
	struct jt *t;
	jtid_t tid;

	c.interval_ms = 1;
	t = jt_start(&c);
	tid = set_version(t, 1, 1);
	/* Nobody asks for it. */
	for (int i = 0; i < 60000 && journal_running_tid(t->j) == tid; i++)
		usleep(1000);
	assert_true(journal_running_tid(t->j) != tid);
	journal_set_commit_interval(t->j, 60000);
	tid = set_version(t, 1, 2);
	journal_set_commit_interval(t->j, 1);
	for (int i = 0; i < 60000 && journal_running_tid(t->j) == tid; i++)
		usleep(1000);
	assert_true(journal_running_tid(t->j) != tid);
	assert_int_equal(journal_shutdown(t->j), 0);
	jt_end(t);
}

/* ---- a commit held in its flush ---- */

struct gate {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool closed, inside;
};

static void gate_pass(void *priv)
{
	struct gate *g = priv;

	pthread_mutex_lock(&g->lock);
	g->inside = true;
	pthread_cond_broadcast(&g->cond);
	while (g->closed)
		pthread_cond_wait(&g->cond, &g->lock);
	pthread_mutex_unlock(&g->lock);
}

static void gate_close(struct gate *g)
{
	pthread_mutex_lock(&g->lock);
	g->closed = true;
	g->inside = false;
	pthread_mutex_unlock(&g->lock);
}

static void gate_await(struct gate *g)
{
	pthread_mutex_lock(&g->lock);
	while (!g->inside)
		pthread_cond_wait(&g->cond, &g->lock);
	pthread_mutex_unlock(&g->lock);
}

static void gate_open(struct gate *g)
{
	pthread_mutex_lock(&g->lock);
	g->closed = false;
	pthread_cond_broadcast(&g->cond);
	pthread_mutex_unlock(&g->lock);
}

static struct gate the_gate = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false,
				false };

/* Handles and changes go on while a commit waits for the device. */
static void test_commit_overlap(void **state)
{
	struct jt *t = jt_start(&small);
	jtid_t first, second;

	t->fd->on_flush = gate_pass;
	t->fd->priv = &the_gate;
	first = set_version(t, 8, 1);
	gate_close(&the_gate);
	journal_commit_start(t->j, first);
	gate_await(&the_gate);
	second = set_version(t, 8, 2);
	assert_true(second == first + 1);
	gate_open(&the_gate);
	assert_int_equal(journal_commit_wait(t->j, first, NULL), 0);
	assert_recovers_to(t, 8, 1);
	assert_int_equal(journal_commit_wait(t->j, second, NULL), 0);
	assert_recovers_to(t, 8, 2);
	assert_int_equal(journal_shutdown(t->j), 0);
	assert_true(jt_is(place(t, 8), t->c.bs, 8, 2, true));
	jt_end(t);
}

/* ---- an image set aside ---- */

static void slow_pre_commit(struct jt *t, struct handle *h)
{
	gate_pass(&the_gate);
}

static bool is_committed(struct jt *t, jtid_t tid)
{
	bool done;

	spin_lock(&t->j->j_lock);
	done = tid_geq(t->j->committed, tid) || journal_aborted(t->j);
	spin_unlock(&t->j->j_lock);
	return done;
}

static void test_frozen_copy(void **state)
{
	struct jt *t = jt_start(&small);
	u32 n = 20;
	jtid_t tid;
	struct handle *h;

	/* Many rounds: the next handle races with the thread taking images. */
	for (u32 round = 1; round <= 200; round++) {
		h = start(t, n, 0);
		tid = handle_tid(h);
		for (u32 i = 1; i <= n; i++) {
			struct buffer *b = get(t, i);

			change(h, b, round * 2);
			buffer_put(b);
		}
		assert_int_equal(handle_stop(h), 0);
		journal_commit_start(t->j, tid);
		h = start(t, n, 0);
		for (u32 i = n; i >= 1; i--) {
			struct buffer *b = get(t, i);

			change(h, b, round * 2 + 1);
			buffer_put(b);
		}
		/* The open handle keeps its transaction from being written. */
		if (handle_tid(h) != tid) {
			/* commit_wait() is not for threads with a handle: poll. */
			while (!is_committed(t, tid))
				usleep(50);
			if (round % 20 == 0)
				for (u32 i = 1; i <= n; i++)
					assert_recovers_to(t, i, round * 2);
		}
		assert_int_equal(handle_stop(h), 0);
	}
	assert_int_equal(journal_shutdown(t->j), 0);
	for (u32 i = 1; i <= n; i++)
		assert_true(jt_is(place(t, i), t->c.bs, i, 401, true));
	jt_end(t);
}

struct waiter {
	struct jt *t;
	jtid_t tid;
	bool flushed;
	int err;
};

static void *wait_for_commit(void *arg)
{
	struct waiter *w = arg;

	thread_register();
	w->err = journal_commit_wait(w->t->j, w->tid, &w->flushed);
	thread_unregister();
	return NULL;
}

/* Who joins a commit whose flush has begun must flush his data himself. */
static void test_join_after_flush(void **state)
{
	struct jt *t = jt_start(&small);
	struct waiter w = { .t = t, .flushed = true, .err = 1 };
	pthread_t th;

	t->fd->on_flush = gate_pass;
	t->fd->priv = &the_gate;
	w.tid = set_version(t, 1, 1);
	gate_close(&the_gate);
	journal_commit_start(t->j, w.tid);
	gate_await(&the_gate);
	pthread_create(&th, NULL, wait_for_commit, &w);
	while (!atomic_load(&journal_stats(t->j)->fsync_joins))
		usleep(50);
	gate_open(&the_gate);
	pthread_join(th, NULL);
	assert_int_equal(w.err, 0);
	assert_false(w.flushed);
	assert_int_equal(journal_shutdown(t->j), 0);
	jt_end(t);
}

/*
 * A handle takes access and changes nothing, while the thread takes the images
 * of the transaction before: the image set aside got the checksum, the live
 * buffer did not. It must be there in place all the same.
 */
static void gate_freeze(struct super_block *sb, pblk_t blk, void *data, u32 seed)
{
	gate_pass(&the_gate);
	jt_freeze(sb, blk, data, seed);
}

static const struct buffer_type gate_type = { .name = "gate", .freeze = gate_freeze };

static void test_access_only(void **state)
{
	struct jt *t = jt_start(&small);
	struct buffer *a, *b = get(t, 2);
	struct handle *h = start(t, 2, 0);
	jtid_t tid = handle_tid(h);

	assert_int_equal(buffer_get_zeroed(&t->sb, 1, &gate_type, JT_SEED, &a), 0);
	assert_int_equal(handle_get_create_access(h, a), 0);
	jt_fill(a->b_data, t->c.bs, 1, 1);
	handle_dirty(h, a);
	change(h, b, 1);
	assert_int_equal(handle_stop(h), 0);
	gate_close(&the_gate);
	journal_commit_start(t->j, tid);
	gate_await(&the_gate); /* in the image of block 1 */
	h = start(t, 1, 0);
	assert_int_equal(handle_get_write_access(h, b), 0);
	assert_int_equal(atomic_load(&journal_stats(t->j)->frozen_copies), 1);
	gate_open(&the_gate);
	assert_int_equal(handle_stop(h), 0);
	buffer_put(a);
	buffer_put(b);
	assert_int_equal(journal_force_commit(t->j), 0);
	assert_recovers_to(t, 1, 1);
	assert_recovers_to(t, 2, 1);
	assert_int_equal(journal_shutdown(t->j), 0);
	assert_true(jt_is(place(t, 1), t->c.bs, 1, 1, true));
	assert_true(jt_is(place(t, 2), t->c.bs, 2, 1, true));
	jt_end(t);
}

/* The same, the change being undone by a forget: the committing image stays. */
static void test_forget_set_aside(void **state)
{
	struct jt *t = jt_start(&small);
	struct buffer *a, *b = get(t, 2);
	struct handle *h = start(t, 2, 0);
	jtid_t tid = handle_tid(h);

	assert_int_equal(buffer_get_zeroed(&t->sb, 1, &gate_type, JT_SEED, &a), 0);
	assert_int_equal(handle_get_create_access(h, a), 0);
	jt_fill(a->b_data, t->c.bs, 1, 1);
	handle_dirty(h, a);
	change(h, b, 1);
	assert_int_equal(handle_stop(h), 0);
	gate_close(&the_gate);
	journal_commit_start(t->j, tid);
	gate_await(&the_gate);
	h = start(t, 2, 2);
	if (*state) { /* first forgotten, then accessed again and changed */
		buffer_get(b);
		assert_int_equal(handle_forget(h, b, 2), 0);
		change(h, b, 2);
		buffer_get(b);
		assert_int_equal(handle_forget(h, b, 2), 0);
	} else {
		change(h, b, 2);
		buffer_get(b);
		assert_int_equal(handle_forget(h, b, 2), 0);
	}
	memset(b->b_data, 0xEE, t->c.bs);
	gate_open(&the_gate);
	/* The first commits; the second is held by h. */
	while (!is_committed(t, tid))
		usleep(50);
	assert_recovers_to(t, 2, 1);
	assert_int_equal(handle_stop(h), 0);
	buffer_put(a);
	buffer_put(b);
	assert_int_equal(journal_shutdown(t->j), 0);
	assert_int_equal(*(u64 *)place(t, 2), 0);
	jt_end(t);
}

static void test_forget_twice(void **state)
{
	static int again;

	*state = &again;
	test_forget_set_aside(state);
	*state = NULL;
}

/* A handle that comes while the transaction drains waits, then gets the next. */
static void *stop_later(void *arg)
{
	struct handle *h = arg;

	thread_register();
	gate_await(&the_gate);
	thread_unregister();
	return h;
}

static void test_pre_commit(void **state)
{
	struct jt *t = jt_start(&small);
	pthread_t th;
	jtid_t tid;

	t->pre_commit = slow_pre_commit;
	tid = set_version(t, 1, 1);
	gate_close(&the_gate);
	pthread_create(&th, NULL, stop_later, NULL);
	journal_commit_start(t->j, tid);
	pthread_join(th, NULL); /* pre_commit runs */
	gate_open(&the_gate);
	assert_true(set_version(t, 2, 1) != tid);
	assert_int_equal(journal_shutdown(t->j), 0);
	assert_true(jt_is(place(t, 1), t->c.bs, 1, 1, true));
	assert_true(jt_is(place(t, 2), t->c.bs, 2, 1, true));
	jt_end(t);
}

/* What handles set aside is pre_commit's: more blocks than it has by itself. */
#define EXTRA 3u

static void change_set_aside(struct jt *t, struct handle *h)
{
	u32 *nr = t->priv;

	CHECK(handle_credits(h) == 4 + *nr);
	for (u32 blk = 20; blk < 20 + 4 + *nr; blk++) {
		struct buffer *b;

		CHECK(!buffer_read(&t->sb, blk, &jt_type, JT_SEED, &b));
		CHECK(!handle_get_write_access(h, b));
		jt_fill(b->b_data, b->b_sb->s_blocksize, blk, 1);
		handle_dirty(h, b);
		buffer_put(b);
	}
	*nr = 0;
}

static void test_extra_blocks(void **state)
{
	struct jt *t = jt_start(&small);
	u32 max = journal_max_credits(t->j), nr = 0;
	struct buffer *b = get(t, 1);
	struct handle *h;

	journal_set_handle_extra(t->j, EXTRA);
	assert_int_equal(journal_max_credits(t->j), max - EXTRA);
	assert_int_equal(journal_start(t->j, max - EXTRA + 1, 0, &h), -ENOSPC);
	t->priv = &nr;
	t->pre_commit = change_set_aside;
	h = start(t, 2, 0);
	for (; nr < EXTRA; nr++)
		handle_add_commit_block(h);
	assert_int_equal(handle_credits(h), 2);
	/* One more is the handle's own. */
	handle_add_commit_block(h);
	nr++;
	assert_int_equal(handle_credits(h), 1);
	change(h, b, 1);
	buffer_put(b);
	assert_int_equal(handle_stop(h), 0);
	h = start(t, 1, 0);
	handle_add_commit_block(h);
	nr++;
	assert_int_equal(handle_stop(h), 0);
	assert_int_equal(journal_force_commit(t->j), 0);
	assert_int_equal(nr, 0);
	assert_int_equal(journal_shutdown(t->j), 0);
	for (u32 blk = 20; blk < 20 + 4 + EXTRA + 2; blk++)
		assert_true(jt_is(place(t, blk), t->c.bs, blk, 1, true));
	jt_end(t);
}

/* ---- freeing ---- */

static void forget(struct jt *t, pblk_t blk, bool with_buffer)
{
	struct handle *h = start(t, 1, 1);

	assert_int_equal(handle_forget(h, with_buffer ? get(t, blk) : NULL, blk), 0);
	assert_int_equal(handle_stop(h), 0);
}

static void test_forget(void **state)
{
	struct jt *t = jt_start(&small);
	u32 bs = t->c.bs;
	struct handle *h;
	struct buffer *b;
	u8 *data = io_alloc(bs);

	/* In the log, freed, reused as data: neither a checkpoint nor a replay
	 * may put the old image over it. */
	set_version(t, 5, 1);
	set_version(t, 6, 1);
	assert_int_equal(journal_force_commit(t->j), 0);
	forget(t, 5, true);
	forget(t, 6, false);
	assert_int_equal(journal_force_commit(t->j), 0);
	jt_fill(data, bs, 5, 77);
	assert_int_equal(bdev_write(&t->fd->bd, 5 * bs, data, bs, 0), 0);
	jt_fill(data, bs, 6, 78);
	assert_int_equal(bdev_write(&t->fd->bd, 6 * bs, data, bs, 0), 0);
	int err;
	struct jt *r = jt_open_now(t, &err);
	struct journal_recovery_stats st;

	assert_int_equal(err, 0);
	assert_int_equal(journal_recover(r->j, &r->fd->bd, &st), 0);
	assert_int_equal(st.revokes, 2);
	assert_int_equal(st.revoke_hits, 2);
	assert_true(jt_is(place(r, 5), bs, 5, 77, false));
	assert_true(jt_is(place(r, 6), bs, 6, 78, false));
	jt_close_image(r);

	/* Freed and journalled again in one transaction: the revoke is off. */
	set_version(t, 9, 1);
	assert_int_equal(journal_force_commit(t->j), 0);
	h = start(t, 2, 1);
	assert_int_equal(handle_forget(h, get(t, 9), 9), 0);
	assert_int_equal(buffer_get_zeroed(&t->sb, 9, &jt_type, JT_SEED, &b), 0);
	assert_int_equal(handle_get_create_access(h, b), 0);
	jt_fill(b->b_data, bs, 9, 2);
	handle_dirty(h, b);
	buffer_put(b);
	assert_int_equal(handle_stop(h), 0);
	assert_int_equal(journal_force_commit(t->j), 0);
	assert_recovers_to(t, 9, 2);

	/* Dirty and freed in one transaction: no image, a revoke. */
	h = start(t, 1, 1);
	b = get(t, 10);
	change(h, b, 1);
	assert_int_equal(handle_forget(h, b, 10), 0);
	assert_int_equal(handle_stop(h), 0);
	assert_int_equal(journal_force_commit(t->j), 0);
	assert_recovers_to(t, 10, 0);

	assert_int_equal(journal_shutdown(t->j), 0);
	assert_true(jt_is(place(t, 5), bs, 5, 77, false));
	assert_true(jt_is(place(t, 6), bs, 6, 78, false));
	assert_true(jt_is(place(t, 9), bs, 9, 2, true));
	io_free(data);
	jt_end(t);
}

/* Freed while the transaction before is being committed. */
static void test_forget_committing(void **state)
{
	struct jt *t = jt_start(&small);
	jtid_t tid;

	t->fd->on_flush = gate_pass;
	t->fd->priv = &the_gate;
	tid = set_version(t, 5, 1);
	gate_close(&the_gate);
	journal_commit_start(t->j, tid);
	gate_await(&the_gate);
	forget(t, 5, true);
	gate_open(&the_gate);
	assert_int_equal(journal_commit_wait(t->j, tid, NULL), 0);
	assert_recovers_to(t, 5, 1); /* not freed yet */
	assert_int_equal(journal_force_commit(t->j), 0);
	assert_recovers_to(t, 5, 0);
	assert_int_equal(journal_shutdown(t->j), 0);
	assert_int_equal(*(u64 *)place(t, 5), 0); /* never written in place */
	jt_end(t);
}

static void test_many_revokes(void **state)
{
	struct jt_config c = small;
	struct jt *t;
	struct handle *h;
	struct journal_recovery_stats st;
	struct jt *r;
	int err;

	c.vol = 4096;
	t = jt_start(&c);
	set_version(t, 3000, 1);
	assert_int_equal(journal_force_commit(t->j), 0);
	h = start(t, 1, 1500);
	for (u32 i = 0; i < 1500; i++)
		assert_int_equal(handle_forget(h, NULL, 2000 + i), 0);
	assert_int_equal(handle_stop(h), 0);
	assert_int_equal(journal_force_commit(t->j), 0);
	r = jt_open_now(t, &err);
	assert_int_equal(journal_recover(r->j, &r->fd->bd, &st), 0);
	assert_int_equal(st.revokes, 1500);
	assert_int_equal(st.revoke_hits, 1);
	jt_close_image(r);
	assert_int_equal(journal_shutdown(t->j), 0);
	jt_end(t);
}

/* ---- checkpoints ---- */

/* The log goes round many times; a change that is not committed stays out. */
static void test_wrap(void **state)
{
	struct jt *t = jt_start(&small);
	const struct journal_stats *st = journal_stats(t->j);

	for (u32 i = 1; i <= 600; i++) {
		set_version(t, 1 + i % 40, i);
		if (i % 3 == 0)
			assert_int_equal(journal_force_commit(t->j), 0);
		if (i % 97 == 0)
			assert_recovers_to(t, 1 + (i - i % 3) % 40, i - i % 3);
	}
	assert_true(atomic_load(&st->tail_updates) >= 3);
	assert_true(atomic_load(&st->checkpoint_blocks) > 0);
	assert_true(atomic_load(&st->commits) >= 200);
	assert_int_equal(journal_shutdown(t->j), 0);
	for (u32 i = 561; i <= 600; i++)
		assert_true(jt_is(place(t, 1 + i % 40), t->c.bs, 1 + i % 40, i, true));
	jt_end(t);
}

/* More than one arena half, several descriptors and revoke blocks at once. */
static void big_transaction(u32 bs, u32 n, u32 revokes)
{
	struct jt_config c = { .bs = bs, .jlen = 6 * n, .vol = n + revokes + 1, .v3 = true,
			       .wide = true, .interval_ms = 600000 };
	struct jt *t = jt_start(&c);
	struct journal_recovery_stats st;
	struct handle *h;
	struct jt *r;
	int err;

	for (u32 ver = 1; ver <= 8; ver++) { /* around the log */
		h = start(t, n, revokes);
		for (u32 i = 0; i < n; i++) {
			struct buffer *b = get(t, i);

			change(h, b, ver);
			buffer_put(b);
		}
		for (u32 i = 0; i < revokes; i++)
			assert_int_equal(handle_forget(h, NULL, n + i), 0);
		assert_int_equal(handle_stop(h), 0);
		assert_int_equal(journal_force_commit(t->j), 0);
		r = jt_open_now(t, &err);
		assert_int_equal(err, 0);
		assert_int_equal(journal_recover(r->j, &r->fd->bd, &st), 0);
		if (ver == 1) /* later the tail may have passed */
			assert_int_equal(st.revokes, revokes);
		for (u32 i = 0; i < n; i++)
			assert_true(jt_is(place(r, i), bs, i, ver, true));
		jt_close_image(r);
	}
	assert_int_equal(journal_shutdown(t->j), 0);
	for (u32 i = 0; i < n; i++)
		assert_true(jt_is(place(t, i), bs, i, 8, true));
	jt_end(t);
}

static void test_big(void **state)
{
	big_transaction(4096, 300, 1000);
	if (!SLOW) {
		big_transaction(1024, 1500, 300);
		big_transaction(65536, 40, 10);
	}
}

/* A buffer with an open handle is not written in place, whatever the need. */
static void test_no_early_write(void **state)
{
	struct jt *t = jt_start(&small);
	u32 n = journal_max_credits(t->j) / 2;

	for (u32 round = 1; round < 40; round++) {
		for (u32 i = 1; i <= n; i++)
			set_version(t, i, round);
		/* Block 60 is in each running transaction. */
		set_version(t, 60, round);
		if (round > 2)
			assert_true(version_in_place(t, 60) < round);
		assert_int_equal(journal_force_commit(t->j), 0);
	}
	assert_int_equal(journal_shutdown(t->j), 0);
	jt_end(t);
}

/* On request what was committed is written in place at once; what runs is not, and
 * does not keep anybody waiting. */
static void test_write_back(void **state)
{
	struct jt *t = jt_start(&small);
	struct handle *h;
	struct buffer *b;

	journal_write_back(t->j); /* nothing to do */
	set_version(t, 1, 1);
	set_version(t, 2, 1);
	assert_int_equal(journal_force_commit(t->j), 0);
	assert_int_equal(version_in_place(t, 1), 0);
	set_version(t, 3, 1);
	h = start(t, 2, 0);
	b = get(t, 2);
	change(h, b, 2);
	journal_write_back(t->j);
	assert_int_equal(version_in_place(t, 1), 1);
	assert_int_equal(version_in_place(t, 2), 0); /* in use again */
	assert_int_equal(version_in_place(t, 3), 0); /* not committed */
	assert_int_equal(handle_stop(h), 0);
	buffer_put(b);

	assert_int_equal(journal_force_commit(t->j), 0);
	journal_write_back(t->j);
	assert_int_equal(version_in_place(t, 2), 2);
	assert_int_equal(version_in_place(t, 3), 1);

	set_version(t, 4, 1);
	assert_int_equal(journal_force_commit(t->j), 0);
	journal_abort(t->j, -EIO);
	journal_write_back(t->j);
	assert_int_equal(version_in_place(t, 4), 0);
	assert_int_equal(journal_shutdown(t->j), -EIO);
	jt_end(t);
}

/* The log but its superblock. */
static bool log_is_zero(struct jt *t)
{
	for (u32 i = 1; i < t->c.jlen; i++) {
		const u8 *b = t->fd->mem + jt_jpos(&t->c, i);

		if (b[0] || memcmp(b, b + 1, t->c.bs - 1))
			return false;
	}
	return true;
}

/* Blocks 1 and 2 are as the same commit had them, after a crash wherever it may be; marks
 * say which is durable. */
static void check_pair(struct jt *t)
{
	u8 *image = malloc(jt_size(&t->c));
	struct journal_recovery_stats st;
	const struct fake_rec *rec;
	struct fake_crash fc;
	unsigned seed = 1;
	u32 acked = 0;

	fake_crash_init(&fc, t->fd);
	while ((rec = fake_crash_step(&fc))) {
		if (rec->kind == FAKE_MARK)
			acked = (u32)rec->pos;
		if (SLOW && rand_r(&seed) % 8)
			continue;
		for (u32 kept = 0; acked && kept <= 1000; kept += 500) {
			struct jt *r;
			u32 ver;
			int err;

			fake_crash_image(&fc, image, t->c.bs, kept, kept < 1000, &seed);
			r = jt_open_image(&t->c, image, &err);
			assert_int_equal(err, 0);
			assert_int_equal(journal_recover(r->j, &r->fd->bd, &st), 0);
			ver = ((const u32 *)place(r, 1))[1];
			assert_in_range(ver, acked, 90);
			assert_true(jt_is(place(r, 1), t->c.bs, 1, ver, true));
			assert_true(jt_is(place(r, 2), t->c.bs, 2, ver, true));
			jt_close_image(r);
		}
	}
	fake_crash_release(&fc);
	free(image);
}

static void change_pair(struct jt *t, u32 ver)
{
	struct handle *h = start(t, 2, 0);

	for (u32 blk = 1; blk <= 2; blk++) {
		struct buffer *b = get(t, blk);

		change(h, b, ver);
		buffer_put(b);
	}
	assert_int_equal(handle_stop(h), 0);
	assert_int_equal(journal_force_commit(t->j), 0);
	fake_mark(t->fd, ver);
}

static void test_erase(void **state)
{
	struct jt *t = jt_start(&small);
	struct handle *h;
	struct buffer *b;
	struct jt *r;
	int err;

	assert_int_equal(journal_erase(t->j, false), 0); /* of nothing */
	for (u32 ver = 1; ver <= 90; ver++) { /* around the log */
		change_pair(t, ver);
		if (ver % 7)
			continue;
		assert_false(log_is_zero(t));
		assert_int_equal(journal_erase(t->j, false), 0);
		assert_true(log_is_zero(t));
		assert_int_equal(version_in_place(t, 1), ver);
		r = jt_open_now(t, &err);
		assert_int_equal(err, 0);
		assert_false(journal_needs_recovery(r->j));
		jt_close_image(r);
	}
	check_pair(t);

	/* What the running transaction has stays where it is, and so does the log. */
	h = start(t, 1, 0);
	b = get(t, 1);
	change(h, b, 91);
	assert_int_equal(journal_erase(t->j, false), -EBUSY);
	assert_false(log_is_zero(t));
	buffer_put(b);
	assert_int_equal(handle_stop(h), 0);
	assert_int_equal(journal_force_commit(t->j), 0);
	journal_abort(t->j, -EIO);
	assert_true(journal_erase(t->j, false) < 0);
	assert_false(log_is_zero(t));
	assert_int_equal(journal_shutdown(t->j), -EIO);
	jt_end(t);
}

/* ---- abort ---- */

static void test_abort(void **state)
{
	struct jt *t = jt_start(&small);
	struct count_cb cb = { .cb.fn = count_fn, .t = t };
	struct handle *h, *h2;
	struct buffer *b, *b2;
	u64 writes;
	jtid_t tid;

	set_version(t, 1, 1);
	assert_int_equal(journal_force_commit(t->j), 0);
	h = start(t, 3, 1);
	tid = handle_tid(h);
	b = get(t, 1);
	b2 = get(t, 2);
	change(h, b, 2);
	handle_on_commit(h, &cb.cb);
	writes = atomic_load(&t->fd->nr_writes);
	journal_abort(t->j, -EFSCORRUPTED);
	journal_abort(t->j, -EIO);
	assert_int_equal(journal_aborted(t->j), -EFSCORRUPTED);
	assert_int_equal(atomic_load(&t->aborts), 1);
	assert_int_equal(atomic_load(&t->fd->nr_writes), writes + 1); /* s_errno */
	assert_true(handle_aborted(h));
	assert_int_equal(handle_get_write_access(h, b2), -EROFS);
	assert_int_equal(handle_forget(h, b2, 2), -EROFS);
	assert_int_equal(handle_ensure(h, 9, 0), -EROFS);
	assert_int_equal(journal_start(t->j, 1, 0, &h2), -EROFS);
	assert_int_equal(handle_restart(h, 1, 0), -EROFS);
	assert_int_equal(handle_stop(h), -EROFS);
	assert_int_equal(journal_reserve(t->j, 1, &h2), -EROFS);
	assert_int_equal(journal_commit_wait(t->j, tid, NULL), -EIO);
	assert_int_equal(journal_commit_wait(t->j, tid - 1, NULL), 0);
	buffer_put(b);
	assert_int_equal(journal_shutdown(t->j), -EFSCORRUPTED);
	assert_int_equal(cb.calls, 1);
	assert_true(cb.error < 0);
	assert_int_equal(atomic_load(&t->fd->nr_writes), writes + 1);
	assert_int_equal(*(u64 *)place(t, 1), 0);
	assert_recovers_to(t, 1, 1);

	int err;
	struct jt *r = jt_open_now(t, &err);

	assert_int_equal(journal_recorded_errno(r->j), -EFSCORRUPTED);
	assert_true(journal_needs_recovery(r->j));
	assert_int_equal(journal_run(r->j), -EINVAL);
	assert_int_equal(journal_recover(r->j, &r->fd->bd, NULL), 0);
	assert_int_equal(journal_recorded_errno(r->j), -EFSCORRUPTED);
	assert_int_equal(journal_run(r->j), 0);
	assert_int_equal(journal_recorded_errno(r->j), 0);
	assert_int_equal(journal_shutdown(r->j), 0);
	jt_close_image(r);
	jt_end(t);
}

/* ---- without a log ---- */

static const struct jt_config no_log = { .bs = 1024, .jlen = 200, .vol = 2600,
					 .interval_ms = 60000, .in_place = true };

/* Changes blocks [from, to) in one handle. */
static jtid_t set_versions(struct jt *t, pblk_t from, pblk_t to, u32 ver)
{
	struct handle *h = start(t, (u32)(to - from), 0);
	jtid_t tid = handle_tid(h);

	for (pblk_t blk = from; blk < to; blk++) {
		struct buffer *b = get(t, blk);

		change(h, b, ver);
		buffer_put(b);
	}
	assert_int_equal(handle_stop(h), 0);
	return tid;
}

static void await_held(struct fake_bdev *fd)
{
	unsigned n = 0;

	while (!n) {
		usleep(100);
		pthread_mutex_lock(&fd->lock);
		n = fd->nr_held;
		pthread_mutex_unlock(&fd->lock);
	}
}

/* A commit writes the images to their places, and nothing else. */
static void test_in_place(void **state)
{
	struct jt *t = jt_start(&no_log);
	u64 len = (u64)no_log.jlen * no_log.bs, seq;
	u8 *log = malloc(len);
	struct handle *h;
	jtid_t tid;
	bool flushed;

	memcpy(log, place(t, no_log.vol), len);
	(void)set_versions(t, 3, 9, 1); /* 7 begins with the magic number */
	assert_int_equal(version_in_place(t, 3), 0);
	h = start(t, 1, 1);
	assert_int_equal(handle_forget(h, NULL, 20), 0);
	assert_int_equal(handle_stop(h), 0);
	assert_int_equal(journal_force_commit(t->j), 0);
	for (pblk_t blk = 3; blk < 9; blk++)
		assert_true(jt_is(place(t, blk), no_log.bs, blk, 1, true));
	assert_int_equal(atomic_load(&t->fd->nr_writes), 1); /* one run */

	/* Who reads past the cache is told while that goes on. */
	seq = journal_place_seq(t->j);
	assert_int_equal(seq % 2, 0);
	pthread_mutex_lock(&t->fd->lock);
	t->fd->hold_pos = 5 * no_log.bs;
	t->fd->hold_len = no_log.bs;
	pthread_mutex_unlock(&t->fd->lock);
	tid = set_versions(t, 5, 6, 2);
	journal_commit_start(t->j, tid);
	await_held(t->fd);
	assert_int_equal(journal_place_seq(t->j), seq + 1);
	fake_let_go(t->fd);
	assert_int_equal(journal_commit_wait(t->j, tid, &flushed), 0);
	assert_int_equal(journal_place_seq(t->j), seq + 2);
	assert_true(jt_is(place(t, 5), no_log.bs, 5, 2, true));

	journal_write_back(t->j);
	assert_int_equal(journal_shutdown(t->j), 0);
	assert_memory_equal(log, place(t, no_log.vol), len);
	free(log);
	jt_end(t);
}

/* More than both halves of the arena hold, more in all than a log would. */
static void test_in_place_big(void **state)
{
	struct jt *t = jt_start(&no_log);
	u32 rounds = 0;

	assert_true(no_log.vol > 2 * ARENA_HALF / no_log.bs);
	for (u64 sum = 0; sum < t->j->ring + no_log.vol; sum += no_log.vol) {
		(void)set_versions(t, 0, no_log.vol, ++rounds);
		assert_int_equal(journal_force_commit(t->j), 0);
		for (u32 i = 0; i < no_log.vol; i++)
			assert_int_equal(version_in_place(t, i), rounds);
	}
	assert_int_equal(journal_shutdown(t->j), 0);
	for (u32 i = 0; i < no_log.vol; i++)
		assert_true(jt_is(place(t, i), no_log.bs, i, rounds, true));
	jt_end(t);
}

/* The flush before the writes, a write, or the flush after them fails: that aborts, and
 * what committed before stays. */
static void test_in_place_fails(void **state)
{
	for (unsigned step = 0; step < 3; step++) {
		struct jt *t = jt_start(&no_log);
		struct count_cb cb = { .cb.fn = count_fn, .t = t };
		struct handle *h;

		(void)set_versions(t, 1, 2, 1);
		assert_int_equal(journal_force_commit(t->j), 0);
		(void)set_versions(t, 0, no_log.vol, 2);
		h = start(t, 1, 0);
		handle_on_commit(h, &cb.cb);
		assert_int_equal(handle_stop(h), 0);
		pthread_mutex_lock(&t->fd->lock);
		*(step == 1 ? &t->fd->fail_write_in : &t->fd->fail_flush_in) =
			step == 2;
		pthread_mutex_unlock(&t->fd->lock);
		assert_int_equal(journal_force_commit(t->j), -EIO);
		assert_int_equal(journal_aborted(t->j), -EIO);
		assert_int_equal(journal_start(t->j, 1, 0, &h), -EROFS);
		journal_write_back(t->j);
		assert_int_equal(journal_shutdown(t->j), -EIO);
		/* Now the thread is through with it. */
		assert_int_equal(atomic_load(&t->aborts), 1);
		assert_int_equal(cb.calls, 1);
		assert_true(cb.error < 0);
		assert_int_equal(journal_place_seq(t->j) % 2, 0);
		assert_int_equal(version_in_place(t, 1), step == 2 ? 2 : 1);
		jt_end(t);
	}
}

struct aborter {
	struct jt *t;
	_Atomic bool done;
	u32 seen; /* version in place when nothing was on its way any more */
};

static void abort_and_wait(void *arg)
{
	struct aborter *a = arg;

	journal_abort(a->t->j, -EIO);
	journal_wait_places(a->t->j);
	a->seen = version_in_place(a->t, 5);
	atomic_store(&a->done, true);
}

/*
 * An abort beside a checkpoint, or a commit to its places: who waits for what is under way
 * sees it there, and what he then writes is not overwritten.
 */
static void abort_beside(const struct jt_config *c)
{
	struct jt *t = jt_start(c);
	struct aborter a = { .t = t };
	struct thread *aborter;
	jtid_t tid;

	(void)set_versions(t, 5, 6, 1);
	if (!c->in_place)
		assert_int_equal(journal_force_commit(t->j), 0);
	pthread_mutex_lock(&t->fd->lock);
	t->fd->hold_pos = 5 * c->bs;
	t->fd->hold_len = c->bs;
	pthread_mutex_unlock(&t->fd->lock);
	tid = journal_running_tid(t->j);
	if (c->in_place) {
		journal_commit_start(t->j, tid);
	} else {
		/* As journal_write_back(), which would wait. */
		spin_lock(&t->j->j_lock);
		t->j->place_asked++;
		t->j->place_tid = t->j->committed;
		spin_unlock(&t->j->j_lock);
		journal_kick(t->j);
	}
	await_held(t->fd);
	assert_int_equal(thread_create(&aborter, "aborter", abort_and_wait, &a), 0);
	/* Time enough for who does not wait. */
	for (int i = 0; i < 100 && !atomic_load(&a.done); i++)
		usleep(1000);
	assert_false(atomic_load(&a.done));
	fake_let_go(t->fd);
	thread_join(aborter);
	assert_int_equal(a.seen, 1);
	assert_int_equal(journal_shutdown(t->j), -EIO);
	assert_int_equal(journal_place_seq(t->j) % 2, 0);
	jt_end(t);
}

static void test_abort_beside_writes_to_places(void **state)
{
	abort_beside(&small);
	abort_beside(&no_log);
}

/* ---- random handles, crashes, faults ---- */

enum kind { FREE, META, DATA, FREEING };

struct state {
	u8 kind;
	u32 ver;
};

struct snapshot {
	jtid_t tid;
	struct state *b;
};

struct world {
	struct jt *t;
	pthread_mutex_t lock;
	struct state *b; /* [lock] as handles left it */
	bool *busy;      /* [lock] */
	bool changed;    /* [lock] since the last snapshot */
	struct buffer *stamp;
	struct snapshot *snap; /* [lock] number = version of block 0 */
	u32 nr_snap, max_snap;
	_Atomic u32 ver;
	_Atomic u32 cbs_made, cbs_run;
	u32 ops;
};

static void snapshot_add(struct world *w, jtid_t tid)
{
	u32 vol = w->t->c.vol;

	if (w->nr_snap == w->max_snap) {
		w->max_snap = w->max_snap * 2 + 64;
		w->snap = realloc(w->snap, w->max_snap * sizeof(*w->snap));
	}
	w->snap[w->nr_snap].tid = tid;
	w->snap[w->nr_snap].b = malloc(vol * sizeof(struct state));
	memcpy(w->snap[w->nr_snap].b, w->b, vol * sizeof(struct state));
	w->nr_snap++;
}

static void world_pre_commit(struct jt *t, struct handle *h)
{
	struct world *w = t->priv;

	pthread_mutex_lock(&w->lock);
	if (w->changed && !handle_get_write_access(h, w->stamp)) {
		jt_fill(w->stamp->b_data, t->c.bs, 0, w->nr_snap);
		handle_dirty(h, w->stamp);
		snapshot_add(w, handle_tid(h));
		w->changed = false;
	}
	pthread_mutex_unlock(&w->lock);
}

struct free_cb {
	struct commit_cb cb;
	struct world *w;
	u32 blk;
};

static void world_freed(struct commit_cb *cb, int error)
{
	struct free_cb *f = container_of_type(cb, struct free_cb, cb);

	pthread_mutex_lock(&f->w->lock);
	assert_int_equal(f->w->b[f->blk].kind, FREEING);
	if (!error)
		f->w->b[f->blk].kind = FREE;
	pthread_mutex_unlock(&f->w->lock);
	atomic_fetch_add(&f->w->cbs_run, 1);
	free(f);
}

/* A block of that kind that nobody works on; 0 if none was found. */
static u32 claim(struct world *w, enum kind kind, unsigned *seed)
{
	u32 vol = w->t->c.vol, found = 0;

	pthread_mutex_lock(&w->lock);
	for (int i = 0; i < 50 && !found; i++) {
		u32 blk = 1 + (u32)rand_r(seed) % (vol - 1);

		if (!w->busy[blk] && w->b[blk].kind == kind) {
			w->busy[blk] = true;
			found = blk;
		}
	}
	pthread_mutex_unlock(&w->lock);
	return found;
}

/* In the handle: the block is this now. */
static void now_is(struct world *w, u32 blk, enum kind kind, u32 ver)
{
	pthread_mutex_lock(&w->lock);
	w->b[blk] = (struct state){ (u8)kind, ver };
	w->changed = true;
	pthread_mutex_unlock(&w->lock);
}

static void unclaim(struct world *w, u32 blk)
{
	pthread_mutex_lock(&w->lock);
	w->busy[blk] = false;
	pthread_mutex_unlock(&w->lock);
}

static void op_change(struct world *w, struct handle *h, u32 blk)
{
	u32 ver = atomic_fetch_add(&w->ver, 1);
	struct buffer *b;

	if (buffer_read(&w->t->sb, blk, &jt_type, JT_SEED, &b))
		return;
	assert_true(jt_is(b->b_data, w->t->c.bs, blk, w->b[blk].ver, false));
	if (!handle_get_write_access(h, b)) {
		jt_fill(b->b_data, w->t->c.bs, blk, ver);
		handle_dirty(h, b);
		now_is(w, blk, META, ver);
	}
	buffer_put(b);
}

static void op_new(struct world *w, struct handle *h, u32 blk)
{
	u32 ver = atomic_fetch_add(&w->ver, 1);
	struct buffer *b;

	assert_int_equal(buffer_get_zeroed(&w->t->sb, blk, &jt_type, JT_SEED, &b), 0);
	if (!handle_get_create_access(h, b)) {
		jt_fill(b->b_data, w->t->c.bs, blk, ver);
		handle_dirty(h, b);
		now_is(w, blk, META, ver);
	}
	buffer_put(b);
}

static void op_free(struct world *w, struct handle *h, u32 blk, bool meta, bool with)
{
	struct free_cb *f = malloc(sizeof(*f));
	struct buffer *b = NULL;

	*f = (struct free_cb){ { .fn = world_freed }, w, blk };
	if (meta && with && buffer_read(&w->t->sb, blk, &jt_type, JT_SEED, &b))
		b = NULL;
	if (meta && handle_forget(h, b, blk)) {
		free(f);
		return;
	}
	now_is(w, blk, FREEING, 0);
	atomic_fetch_add(&w->cbs_made, 1);
	handle_on_commit(h, &f->cb);
}

static bool write_data(struct world *w, u32 blk, u32 ver)
{
	u32 bs = w->t->c.bs;
	u8 *data = io_alloc(bs);
	int err;

	jt_fill(data, bs, blk, ver);
	err = bdev_write(&w->t->fd->bd, (u64)blk * bs, data, bs, 0);
	io_free(data);
	return !err;
}

/* 0, or an error of the journal. */
static int world_step(struct world *w, unsigned *seed)
{
	unsigned what = (unsigned)rand_r(seed) % 100, n = 1 + (unsigned)rand_r(seed) % 4;
	u32 blk[4] = { 0 }, ver = 0;
	enum kind kind = what < 40 ? META : what < 55 ? FREE : what < 70 ? META :
			 what < 85 ? FREE : DATA;
	bool reserved = rand_r(seed) % 8 == 0, freeing = what >= 55 && what < 70;
	struct journal *j = w->t->j;
	struct handle *h;
	jtid_t tid;
	int err;

	if (kind == DATA || (what >= 70 && what < 85) || reserved)
		n = 1;
	for (unsigned i = 0; i < n; i++)
		blk[i] = claim(w, kind, seed);
	if (what >= 70 && what < 85 && blk[0]) { /* data is there before the handle */
		ver = atomic_fetch_add(&w->ver, 1);
		if (!write_data(w, blk[0], ver)) {
			unclaim(w, blk[0]);
			return -EIO;
		}
	}
	if (reserved && !freeing) {
		err = journal_reserve(j, n, &h);
		if (!err)
			err = handle_start_reserved(h);
	} else {
		/* Now and then all that a transaction can take: waits for space. */
		err = journal_start(j, rand_r(seed) % 16 ? n : journal_max_credits(j) - n, n,
				    &h);
	}
	if (err)
		goto out;
	tid = handle_tid(h);
	for (unsigned i = 0; i < n; i++) {
		if (!blk[i])
			continue;
		if (rand_r(seed) % 16 == 0)
			sched_yield();
		if (what < 40)
			op_change(w, h, blk[i]);
		else if (what < 55)
			op_new(w, h, blk[i]);
		else if (freeing)
			op_free(w, h, blk[i], true, what % 2);
		else if (what < 85)
			now_is(w, blk[i], DATA, ver);
		else
			op_free(w, h, blk[i], false, false);
	}
	if (!reserved && rand_r(seed) % 16 == 0 && !handle_restart(h, 1, 1))
		tid = handle_tid(h);
	err = handle_stop(h);
	if (!err && rand_r(seed) % 10 == 0) {
		bool flushed;

		err = journal_commit_wait(j, tid, &flushed);
		if (!err)
			fake_mark(w->t->fd, tid);
	}
out:
	for (unsigned i = 0; i < n; i++)
		if (blk[i])
			unclaim(w, blk[i]);
	return err;
}

struct worker {
	struct world *w;
	unsigned seed;
};

static void *work(void *arg)
{
	struct worker *wk = arg;

	thread_register();
	for (u32 i = 0; i < wk->w->ops; i++)
		if (world_step(wk->w, &wk->seed))
			break;
	thread_unregister();
	return NULL;
}

#define WORKERS 4

static struct world *world_create(const struct jt_config *c, u32 ops)
{
	struct world *w = calloc(1, sizeof(*w));

	w->t = jt_start(c);
	w->t->priv = w;
	w->b = calloc(c->vol, sizeof(*w->b));
	w->busy = calloc(c->vol, sizeof(*w->busy));
	w->ops = ops;
	atomic_store(&w->ver, 1);
	pthread_mutex_init(&w->lock, NULL);
	jt_fill(w->t->fd->mem, c->bs, 0, 0);
	jt_freeze(&w->t->sb, 0, w->t->fd->mem, JT_SEED);
	fake_record_start(w->t->fd);
	snapshot_add(w, 0);
	w->stamp = get(w->t, 0);
	w->t->pre_commit = world_pre_commit;
	return w;
}

static void world_run(struct world *w, unsigned seed)
{
	pthread_t th[WORKERS];
	struct worker wk[WORKERS];

	for (unsigned i = 0; i < WORKERS; i++) {
		wk[i] = (struct worker){ w, seed * 1000 + i };
		pthread_create(&th[i], NULL, work, &wk[i]);
	}
	for (unsigned i = 0; i < WORKERS; i++)
		pthread_join(th[i], NULL);
}

/* Is the volume the state of one snapshot, not older than `acked`? */
static void assert_consistent(struct world *w, const u8 *mem, u32 acked, const char *what)
{
	const struct jt_config *c = &w->t->c;
	u32 n = ((const u32 *)mem)[1];

	if (n < acked || n >= w->nr_snap || !jt_is(mem, c->bs, 0, n, true))
		fail_msg("%s: snapshot %u, acknowledged %u, made %u", what, n, acked,
			 w->nr_snap);
	for (u32 i = 1; i < c->vol; i++) {
		const struct state *s = &w->snap[n].b[i];

		if ((s->kind == META || s->kind == DATA) &&
		    !jt_is(mem + (size_t)i * c->bs, c->bs, i, s->ver, s->kind == META))
			fail_msg("%s: snapshot %u: block %u is not %s version %u", what, n, i,
				 s->kind == META ? "metadata" : "data", s->ver);
	}
}

/* Recovers an image, now and then with a crash on the way, and compares. */
static void check_image(struct world *w, const u8 *image, u32 acked, const char *what,
			unsigned *seed)
{
	const struct jt_config *c = &w->t->c;
	struct journal_recovery_stats st;
	struct jt *r;
	int err;

	r = jt_open_image(c, image, &err);
	assert_int_equal(err, 0);
	fake_record_start(r->fd);
	err = journal_recover(r->j, &r->fd->bd, &st);
	if (err)
		fail_msg("%s: recovery: error %d", what, err);
	assert_false(journal_needs_recovery(r->j));
	assert_consistent(w, r->fd->mem, acked, what);
	if (r->fd->nr && rand_r(seed) % 8 == 0) {
		struct fake_crash fc;
		u8 *again = malloc(jt_size(c));
		u32 steps = (u32)rand_r(seed) % r->fd->nr;
		struct jt *r2;

		fake_crash_init(&fc, r->fd);
		for (u32 i = 0; i <= steps; i++)
			fake_crash_step(&fc);
		fake_crash_image(&fc, again, 512, 500, true, seed);
		r2 = jt_open_image(c, again, &err);
		assert_int_equal(err, 0);
		assert_int_equal(journal_recover(r2->j, &r2->fd->bd, &st), 0);
		assert_consistent(w, r2->fd->mem, acked, "crash in recovery");
		jt_close_image(r2);
		fake_crash_release(&fc);
		free(again);
	}
	jt_close_image(r);
}

static u32 snapshot_of(const struct world *w, jtid_t tid)
{
	for (u32 i = 1; i < w->nr_snap; i++)
		if (w->snap[i].tid == tid)
			return i;
	return 0;
}

static void check_crashes(struct world *w, u32 budget, unsigned seed)
{
	const struct jt_config *c = &w->t->c;
	u32 acked = 0, every = w->t->fd->nr / (budget / 4) + 1;
	u8 *image = malloc(jt_size(c));
	const struct fake_rec *r;
	struct fake_crash fc;

	fake_crash_init(&fc, w->t->fd);
	while ((r = fake_crash_step(&fc))) {
		if (r->kind == FAKE_MARK)
			acked = max_of(acked, snapshot_of(w, (jtid_t)r->pos));
		if ((u32)rand_r(&seed) % every)
			continue;
		fake_crash_image(&fc, image, c->bs, 1000, false, &seed);
		check_image(w, image, acked, "all kept", &seed);
		fake_crash_image(&fc, image, c->bs, 0, true, &seed);
		check_image(w, image, acked, "none kept", &seed);
		fake_crash_image(&fc, image, c->bs, 500, true, &seed);
		check_image(w, image, acked, "half kept", &seed);
		fake_crash_image(&fc, image, 512, 700, true, &seed);
		check_image(w, image, acked, "torn", &seed);
	}
	fake_crash_release(&fc);
	free(image);
}

static void world_destroy(struct world *w)
{
	for (u32 i = 0; i < w->nr_snap; i++)
		free(w->snap[i].b);
	buffer_put(w->stamp);
	jt_end(w->t);
	free(w->snap);
	free(w->b);
	free(w->busy);
	free(w);
}

static void crash_run(struct jt_config c, u32 ops, unsigned seed, bool async)
{
	struct world *w = world_create(&c, SLOW ? ops / 3 : ops);
	const struct journal_stats *st = journal_stats(w->t->j);

	if (async)
		fake_async(w->t->fd, seed);
	world_run(w, seed);
	assert_int_equal(journal_shutdown(w->t->j), 0);
	assert_int_equal(atomic_load(&w->cbs_made), atomic_load(&w->cbs_run));
	assert_consistent(w, w->t->fd->mem, w->nr_snap - 1, "after shutdown");
	assert_true(atomic_load(&st->tail_updates) > 2);
	assert_true(atomic_load(&st->revokes) > 0);
	check_crashes(w, SLOW ? 150 : c.bs == 1024 ? 3000 : 800, seed);
	world_destroy(w);
}

static void test_crash_1k(void **state)
{
	crash_run((struct jt_config){ .bs = 1024, .jlen = 128, .vol = 64, .v3 = true,
				      .wide = true, .interval_ms = 2 }, 1500, 1, false);
}

/* Writes end on another thread, in any order. */
static void test_crash_async(void **state)
{
	crash_run((struct jt_config){ .bs = 1024, .jlen = 150, .vol = 64, .v3 = true,
				      .wide = true, .interval_ms = 1 }, 800, 11, true);
}

static void test_crash_1k_no_csum(void **state)
{
	/* Without checksums a log block is atomic only as a whole, and torn
	 * images cannot be told; but none can be under a commit block. */
	crash_run((struct jt_config){ .bs = 1024, .jlen = 100, .vol = 40, .v3 = false,
				      .wide = false, .interval_ms = 1 }, 1500, 2, true);
}

static void test_crash_4k(void **state)
{
	crash_run((struct jt_config){ .bs = 4096, .jlen = 160, .vol = 90, .v3 = true,
				      .wide = false, .interval_ms = 5 }, 800, 3, false);
}

struct eraser {
	struct world *w;
	_Atomic bool stop;
};

static void *erase_often(void *arg)
{
	struct eraser *e = arg;
	int err;

	thread_register();
	while (!atomic_load(&e->stop)) {
		err = journal_erase(e->w->t->j, false);
		CHECK(!err || err == -EBUSY);
	}
	thread_unregister();
	return NULL;
}

/* The log is erased again and again, wherever it is just used, and beside commits. */
static void test_crash_erase(void **state)
{
	struct jt_config c = { .bs = 1024, .jlen = 110, .vol = 64, .v3 = true,
			       .wide = true, .interval_ms = 2 };
	struct world *w = world_create(&c, SLOW ? 30 : 90);

	for (unsigned seed = 21; seed < 31; seed++) {
		struct eraser e = { .w = w };
		pthread_t th;

		pthread_create(&th, NULL, erase_often, &e);
		world_run(w, seed);
		atomic_store(&e.stop, true);
		pthread_join(th, NULL);
		assert_int_equal(journal_force_commit(w->t->j), 0);
		assert_int_equal(journal_erase(w->t->j, false), 0);
		assert_true(log_is_zero(w->t));
	}
	assert_int_equal(journal_shutdown(w->t->j), 0);
	assert_consistent(w, w->t->fd->mem, w->nr_snap - 1, "after shutdown");
	check_crashes(w, SLOW ? 50 : 1000, 21);
	world_destroy(w);
}

static void test_faults(void **state)
{
	struct jt_config c = { .bs = 1024, .jlen = 128, .vol = 64, .v3 = true, .wide = true,
			       .interval_ms = 2 };

	for (unsigned seed = 1; seed <= (SLOW ? 6 : 24); seed++) {
		struct world *w = world_create(&c, 400);
		struct fake_bdev *fd = w->t->fd;
		int err;

		pthread_mutex_lock(&fd->lock);
		if (seed % 2)
			fd->fail_write_in = seed * 7;
		else
			fd->fail_flush_in = seed;
		fd->fail_once = seed % 3 == 0;
		pthread_mutex_unlock(&fd->lock);
		world_run(w, seed);
		/* A data write may have been the one that failed. */
		err = journal_shutdown(w->t->j);
		assert_true(err || fd->fail_once);
		assert_int_equal(atomic_load(&w->t->aborts), err ? 1 : 0);
		assert_int_equal(atomic_load(&w->cbs_made), atomic_load(&w->cbs_run));
		check_crashes(w, 60, seed);
		world_destroy(w);
	}
}

static int setup(void **state)
{
	thread_register();
	log_set_sink(jt_bug_sink, NULL);
	return end_io_start();
}

static int teardown(void **state)
{
	end_io_stop();
	rcu_barrier();
	thread_unregister();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_credits),
		cmocka_unit_test(test_restart),
		cmocka_unit_test(test_reserved),
		cmocka_unit_test(test_commit),
		cmocka_unit_test(test_commit_order),
		cmocka_unit_test(test_timer),
		cmocka_unit_test(test_commit_overlap),
		cmocka_unit_test(test_join_after_flush),
		cmocka_unit_test(test_frozen_copy),
		cmocka_unit_test(test_access_only),
		cmocka_unit_test(test_forget_set_aside),
		cmocka_unit_test(test_forget_twice),
		cmocka_unit_test(test_pre_commit),
		cmocka_unit_test(test_extra_blocks),
		cmocka_unit_test(test_forget),
		cmocka_unit_test(test_forget_committing),
		cmocka_unit_test(test_many_revokes),
		cmocka_unit_test(test_wrap),
		cmocka_unit_test(test_big),
		cmocka_unit_test(test_no_early_write),
		cmocka_unit_test(test_write_back),
		cmocka_unit_test(test_erase),
		cmocka_unit_test(test_abort),
		cmocka_unit_test(test_in_place),
		cmocka_unit_test(test_in_place_big),
		cmocka_unit_test(test_in_place_fails),
		cmocka_unit_test(test_abort_beside_writes_to_places),
		cmocka_unit_test(test_crash_1k),
		cmocka_unit_test(test_crash_async),
		cmocka_unit_test(test_crash_1k_no_csum),
		cmocka_unit_test(test_crash_4k),
		cmocka_unit_test(test_crash_erase),
		cmocka_unit_test(test_faults),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
