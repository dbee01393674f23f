/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/journal_test.h - a volume with a journal and nothing else
 *
 * The volume has VOL blocks, then the journal (in two extents, the second
 * before the first on the device). Metadata blocks hold a pattern made from
 * block number and version, every seventh starts with the journal's magic, and
 * end in a checksum that only buffer_type.freeze() puts there.
 */
#ifndef SLUICE_TESTS_JOURNAL_TEST_H
#define SLUICE_TESTS_JOURNAL_TEST_H

#include "cache/budget.h"
#include "cache/buffer.h"
#include "fake_bdev.h"
#include "fs/journal/jbd2_format.h"
#include "fs/journal/journal.h"
#include "lib/crc.h"
#include "lib/log.h"
#include "lib/thread.h"

#include <stdio.h>

struct jt_config {
	u32 bs, jlen, vol; /* block size; blocks of the journal, of the volume */
	bool v3, wide;
	u32 interval_ms;
	bool in_place; /* there is a log, and it is not to be touched */
};

struct jt {
	struct jt_config c;
	struct fake_bdev *fd;
	struct super_block sb;
	struct bdev_backing backing;
	struct journal *j;
	_Atomic int aborts;
	void (*pre_commit)(struct jt *t, struct handle *h);
	void *priv;
};

static const u8 jt_uuid[16] = "journal-test-id";

/* Journal blocks: the first half lies behind the second. */
static inline u32 jt_map(const struct jt_config *c, struct journal_extent map[2])
{
	u32 half = c->jlen / 2;

	map[0] = (struct journal_extent){ 0, half, c->vol + (c->jlen - half) };
	map[1] = (struct journal_extent){ half, c->jlen - half, c->vol };
	return 2;
}

static inline u64 jt_jpos(const struct jt_config *c, u32 jblk)
{
	u32 half = c->jlen / 2;

	return (u64)(jblk < half ? c->vol + (c->jlen - half) + jblk : c->vol + jblk - half) *
	       c->bs;
}

static inline u64 jt_size(const struct jt_config *c)
{
	return (u64)(c->vol + c->jlen) * c->bs;
}

/* An empty journal, as mke2fs leaves it. */
static inline void jt_mkjournal(u8 *mem, const struct jt_config *c, u32 seq)
{
	struct jbd2_superblock *jsb = (void *)(mem + jt_jpos(c, 0));

	memset(jsb, 0, c->bs);
	jsb->s_header.h_magic = cpu_to_be32(JBD2_MAGIC);
	jsb->s_header.h_blocktype = cpu_to_be32(JBD2_SB_V2);
	jsb->s_blocksize = cpu_to_be32(c->bs);
	jsb->s_maxlen = cpu_to_be32(c->jlen);
	jsb->s_first = cpu_to_be32(1);
	jsb->s_sequence = cpu_to_be32(seq);
	jsb->s_nr_users = cpu_to_be32(1);
	memcpy(jsb->s_uuid, jt_uuid, 16);
}

/* ---- block contents ---- */

static inline void jt_fill(u8 *data, u32 bs, u64 blk, u32 ver)
{
	u32 x = (u32)blk * 2654435761u ^ ver * 40503u, *w = (u32 *)data;
	be32 magic = cpu_to_be32(JBD2_MAGIC);

	for (u32 i = 0; i < bs / 4 - 1; i++)
		w[i] = x = x * 1664525u + 1013904223u;
	w[1] = ver;
	if (blk % 7 == 0)
		memcpy(data, &magic, 4);
}

static inline void jt_freeze(struct super_block *sb, pblk_t blk, void *data, u32 seed)
{
	u32 crc = crc32c(seed, data, sb->s_blocksize - 4);

	memcpy((u8 *)data + sb->s_blocksize - 4, &crc, 4);
}

static const struct buffer_type jt_type = { .name = "test", .freeze = jt_freeze };
#define JT_SEED 0x1234u

static inline bool jt_is(const u8 *data, u32 bs, u64 blk, u32 ver, bool meta)
{
	u8 want[65536];
	u32 crc;

	jt_fill(want, bs, blk, ver);
	if (memcmp(want, data, bs - 4))
		return false;
	crc = crc32c(JT_SEED, data, bs - 4);
	return !meta || !memcmp(&crc, data + bs - 4, 4);
}

/* ---- set-up ---- */

static void jt_on_abort(void *priv, int error)
{
	struct jt *t = priv;

	atomic_fetch_add(&t->aborts, 1);
}

static void jt_pre_commit(void *priv, struct handle *h)
{
	struct jt *t = priv;

	if (t->pre_commit)
		t->pre_commit(t, h);
}

static bool jt_replay_ok(void *priv, pblk_t blk)
{
	struct jt *t = priv;

	/* The journal itself is kept out by journal_recover(). */
	return blk < t->c.vol + t->c.jlen;
}

static void jt_replay_fixup(void *priv, pblk_t blk, void *data)
{
}

static const struct journal_ops jt_ops = {
	.pre_commit = jt_pre_commit,
	.on_abort = jt_on_abort,
	.replay_ok = jt_replay_ok,
	.replay_fixup = jt_replay_fixup,
};

static inline void jt_sb_init(struct jt *t)
{
	t->sb.s_blocksize = t->c.bs;
	t->sb.s_blocksize_bits = (u8)__builtin_ctz(t->c.bs);
	strcpy(t->sb.s_id, "jt");
	t->backing = (struct bdev_backing){ &t->fd->bd, t->sb.s_blocksize_bits };
	t->sb.s_backing_ops = &bdev_backing_ops;
	t->sb.s_backing = &t->backing;
}

static inline int jt_load(struct jt *t)
{
	struct journal_extent map[2];
	struct journal_params p = {
		.sb = &t->sb, .bd = &t->fd->bd, .map = map, .nr_map = jt_map(&t->c, map),
		.maxlen = t->c.jlen, .use_64bit = t->c.wide, .use_csum_v3 = t->c.v3,
		.commit_interval_ms = t->c.interval_ms, .ops = &jt_ops, .priv = t,
		.in_place = t->c.in_place,
	};

	return journal_load(&p, &t->j);
}

/* A fresh volume, journal running, recording. */
static inline struct jt *jt_start(const struct jt_config *c)
{
	struct jt *t = calloc(1, sizeof(*t));

	t->c = *c;
	t->fd = fake_bdev_create(jt_size(c));
	jt_mkjournal(t->fd->mem, c, 1);
	jt_sb_init(t);
	assert_int_equal(budget_create(64u << 20, 1, &t->sb.s_budget), 0);
	assert_int_equal(bcache_create(&t->sb), 0);
	assert_int_equal(jt_load(t), 0);
	assert_false(journal_needs_recovery(t->j));
	assert_int_equal(journal_run(t->j), 0);
	fake_record_start(t->fd);
	return t;
}

static _Atomic int jt_bug_lines;
static inline void jt_bug_sink(enum log_level level, const char *line, void *priv)
{
	if (strstr(line, "reference") || strstr(line, "bug"))
		atomic_fetch_add(&jt_bug_lines, 1);
}

/* Everything goes; the journal must have let go of every buffer. */
static inline void jt_end(struct jt *t)
{
	journal_free(t->j);
	bcache_destroy(&t->sb);
	budget_destroy(t->sb.s_budget);
	bdev_close(&t->fd->bd);
	free(t);
	assert_int_equal(atomic_load(&jt_bug_lines), 0);
}

/* ---- recovery of an image ---- */

/* A journal over the bytes at mem (copied). bcache is not needed. */
static inline struct jt *jt_open_image(const struct jt_config *c, const u8 *mem, int *err)
{
	struct jt *t = calloc(1, sizeof(*t));

	t->c = *c;
	t->fd = fake_bdev_create(jt_size(c));
	memcpy(t->fd->mem, mem, jt_size(c));
	jt_sb_init(t);
	*err = jt_load(t);
	return t;
}

/* The same over what t's device holds now. */
static inline struct jt *jt_open_now(struct jt *t, int *err)
{
	u8 *mem = malloc(jt_size(&t->c));
	struct jt *r;

	pthread_mutex_lock(&t->fd->lock);
	memcpy(mem, t->fd->mem, jt_size(&t->c));
	pthread_mutex_unlock(&t->fd->lock);
	r = jt_open_image(&t->c, mem, err);
	free(mem);
	return r;
}

static inline void jt_close_image(struct jt *t)
{
	journal_free(t->j);
	bdev_close(&t->fd->bd);
	free(t);
}

#endif
