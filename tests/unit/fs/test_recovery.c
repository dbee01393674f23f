/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_recovery.c - replay of logs made by others
 *
 * Logs are put together here block by block, from the format's description
 * alone, in every version; then damaged. The last tests let e2fsprogs read
 * what our journal wrote and the other way round; they are skipped where its
 * programs are missing.
 */
#include "../unit.h"

#include "fs/journal/journal_internal.h"
#include "journal_test.h"

#include <fcntl.h>
#include <sys/stat.h>

#if defined(__SANITIZE_THREAD__)
#define FUZZ_ROUNDS 600u
#else
#define FUZZ_ROUNDS 3000u
#endif

/* ---- a log builder ---- */

enum version { V_NONE, V_1, V_2, V_3, V_NR };

struct log {
	struct jt_config c;
	enum version v;
	u8 *mem; /* the volume and its journal */
	u32 at, end, seq;
	u32 crc;
	u64 time;
	u32 last_blk; /* log block last written */
};

static u32 log_seed(void)
{
	return crc32c(~0u, jt_uuid, 16);
}

static struct jbd2_superblock *log_sb(struct log *l)
{
	return (void *)(l->mem + jt_jpos(&l->c, 0));
}

static void log_sb_seal(struct log *l)
{
	struct jbd2_superblock *jsb = log_sb(l);

	jsb->s_checksum = cpu_to_be32(0);
	if (l->v >= V_2)
		jsb->s_checksum = cpu_to_be32(crc32c(~0u, jsb, 1024));
}

static struct log *log_create(enum version v, bool wide, u32 bs, u32 start, u32 seq)
{
	struct log *l = calloc(1, sizeof(*l));
	struct jbd2_superblock *jsb;
	u32 incompat = JBD2_INCOMPAT_REVOKE;

	l->c = (struct jt_config){ .bs = bs, .jlen = 100, .vol = 64, .v3 = v == V_3,
				   .wide = wide };
	l->v = v;
	l->mem = calloc(1, jt_size(&l->c));
	l->at = start;
	l->end = l->c.jlen;
	l->seq = seq;
	l->crc = ~0u;
	l->time = 1000;
	jt_mkjournal(l->mem, &l->c, seq);
	jsb = log_sb(l);
	incompat |= wide ? JBD2_INCOMPAT_64BIT : 0;
	incompat |= v == V_2 ? JBD2_INCOMPAT_CSUM_V2 : v == V_3 ? JBD2_INCOMPAT_CSUM_V3 : 0;
	jsb->s_feature_incompat = cpu_to_be32(incompat);
	jsb->s_feature_compat = cpu_to_be32(v == V_1 ? JBD2_COMPAT_CHECKSUM : 0);
	jsb->s_checksum_type = v >= V_2 ? 4 : 0;
	jsb->s_start = cpu_to_be32(start);
	log_sb_seal(l);
	return l;
}

static void log_free(struct log *l)
{
	free(l->mem);
	free(l);
}

static u8 *log_at(struct log *l, u32 jblk)
{
	return l->mem + jt_jpos(&l->c, jblk);
}

static u8 *log_take(struct log *l, u32 type)
{
	u8 *p = log_at(l, l->at);
	be32 *w = (be32 *)p;

	l->last_blk = l->at;
	if (++l->at == l->end)
		l->at = 1;
	memset(p, 0, l->c.bs);
	if (type) {
		w[0] = cpu_to_be32(JBD2_MAGIC);
		w[1] = cpu_to_be32(type);
		w[2] = cpu_to_be32(l->seq);
	}
	return p;
}

static void log_tail(struct log *l, u8 *p)
{
	if (l->v >= V_2)
		*(be32 *)(p + l->c.bs - 4) = cpu_to_be32(crc32c(log_seed(), p, l->c.bs));
}

/* Tags of version 2 lie at odd places. */
static void put_be32(u8 *p, u32 x)
{
	be32 v = cpu_to_be32(x);

	memcpy(p, &v, sizeof(v));
}

static void put_be16(u8 *p, u16 x)
{
	be16 v = cpu_to_be16(x);

	memcpy(p, &v, sizeof(v));
}

/* One descriptor with n images; the log block of the first image. */
static u32 log_images(struct log *l, const u32 *blks, const u32 *vers, u32 n)
{
	u32 bs = l->c.bs, first = l->at + 1 == l->end ? 1 : l->at + 1;
	u8 *desc = log_take(l, 1), *p = desc + 12, *images[64];

	for (u32 i = 0; i < n; i++) {
		be32 seq = cpu_to_be32(l->seq);
		u32 flags = (i ? 2 : 0) | (i == n - 1 ? 8 : 0), csum;

		images[i] = log_take(l, 0);
		jt_fill(images[i], bs, blks[i], vers[i]);
		if (((be32 *)images[i])->raw == cpu_to_be32(JBD2_MAGIC).raw) {
			memset(images[i], 0, 4);
			flags |= 1;
		}
		csum = crc32c(crc32c(log_seed(), &seq, 4), images[i], bs);
		put_be32(p, blks[i]);
		if (l->v == V_3) {
			put_be32(p + 4, flags);
			put_be32(p + 12, csum);
			p += 16;
		} else {
			put_be16(p + 4, l->v == V_2 ? (u16)csum : 0);
			put_be16(p + 6, (u16)flags);
			p += (l->c.wide ? 12 : 8) + (l->v == V_2 ? 2 : 0);
		}
		if (!i) {
			memcpy(p, jt_uuid, 16);
			p += 16;
		}
	}
	log_tail(l, desc);
	l->crc = crc32_be(l->crc, desc, bs);
	for (u32 i = 0; i < n; i++)
		l->crc = crc32_be(l->crc, images[i], bs);
	return first;
}

static u32 log_image(struct log *l, u32 blk, u32 ver)
{
	return log_images(l, &blk, &ver, 1);
}

static void log_revoke(struct log *l, u32 blk)
{
	u8 *p = log_take(l, 5);

	if (l->c.wide)
		*(be32 *)(p + 20) = cpu_to_be32(blk);
	else
		*(be32 *)(p + 16) = cpu_to_be32(blk);
	*(be32 *)(p + 12) = cpu_to_be32(l->c.wide ? 24 : 20);
	log_tail(l, p);
}

static u32 log_commit(struct log *l)
{
	u8 *p = log_take(l, 2);

	*(be64 *)(p + 0x30) = cpu_to_be64(l->time++);
	if (l->v == V_1) {
		p[12] = 1;
		p[13] = 4;
		*(be32 *)(p + 16) = cpu_to_be32(l->crc);
	} else if (l->v >= V_2) {
		*(be32 *)(p + 16) = cpu_to_be32(crc32c(log_seed(), p, l->c.bs));
	}
	l->crc = ~0u;
	l->seq++;
	return l->last_blk;
}

/* ---- recovering it ---- */

/* NULL and *err, or the recovered volume. */
static struct jt *recover(struct log *l, int *err, struct journal_recovery_stats *st)
{
	struct jt *t = jt_open_image(&l->c, l->mem, err);

	if (!*err)
		*err = journal_recover(t->j, &t->fd->bd, st);
	return t;
}

static bool has(struct jt *t, u32 blk, u32 ver)
{
	return jt_is(t->fd->mem + (u64)blk * t->c.bs, t->c.bs, blk, ver, false);
}

static bool untouched(struct jt *t, u32 blk)
{
	for (u32 i = 0; i < t->c.bs; i++)
		if (t->fd->mem[(u64)blk * t->c.bs + i])
			return false;
	return true;
}

static void assert_recovers(struct log *l, u32 transactions)
{
	struct journal_recovery_stats st;
	struct jt *t;
	int err;

	t = recover(l, &err, &st);
	assert_int_equal(err, 0);
	assert_int_equal(st.transactions, transactions);
	jt_close_image(t);
}

/* It is refused, and not a byte has been written. */
static void assert_refused(struct log *l, int want)
{
	struct journal_recovery_stats st;
	int err;
	struct jt *t = recover(l, &err, &st);

	assert_int_equal(err, want);
	assert_int_equal(atomic_load(&t->fd->nr_writes), 0);
	jt_close_image(t);
}

static void test_versions(void **state)
{
	struct journal_recovery_stats st;
	int err;

	for (int i = 0; i < V_NR * 4; i++) {
		enum version v = i / 4;
		/* Starts near the end: wraps in the middle of a descriptor. */
		struct log *l = log_create(v, i & 1, i & 2 ? 1024 : 4096, 95, 10);
		u32 blks[] = { 1, 7, 3, 14, 5, 6 }, vers[] = { 1, 1, 1, 1, 1, 1 };
		struct jt *t;

		log_images(l, blks, vers, 6); /* 7 and 14 are escaped */
		log_commit(l);
		log_revoke(l, 3);
		log_revoke(l, 5);
		log_image(l, 1, 2);
		log_commit(l);
		log_image(l, 5, 3); /* journalled again after its revoke */
		log_commit(l);
		log_image(l, 7, 4); /* never committed */
		t = recover(l, &err, &st);
		assert_int_equal(err, 0);
		assert_int_equal(st.transactions, 3);
		assert_int_equal(st.revokes, 2);
		assert_int_equal(st.revoke_hits, 2);
		assert_int_equal(st.blocks, 5);
		assert_true(has(t, 1, 2));
		assert_true(has(t, 7, 1));
		assert_true(has(t, 14, 1));
		assert_true(has(t, 6, 1));
		assert_true(has(t, 5, 3));
		assert_true(untouched(t, 3));
		/* The torn transaction's number, 13, is not used again. */
		struct jbd2_superblock *jsb = (void *)(t->fd->mem + jt_jpos(&t->c, 0));

		assert_int_equal(be32_to_cpu(jsb->s_sequence), 13);
		assert_int_equal(be32_to_cpu(jsb->s_start), 0);
		assert_false(journal_needs_recovery(t->j));
		assert_int_equal(t->j->next_seq, 14);
		jt_close_image(t);
		log_free(l);
	}
}

static void test_number_wraps(void **state)
{
	struct log *l = log_create(V_3, true, 1024, 1, 0xFFFFFFFE);
	struct journal_recovery_stats st;
	struct jt *t;
	int err;

	log_image(l, 1, 1);
	log_commit(l);
	log_image(l, 2, 1);
	log_commit(l);
	log_revoke(l, 2);
	log_image(l, 1, 2);
	log_commit(l); /* number 0 */
	log_image(l, 4, 2);
	log_commit(l);
	t = recover(l, &err, &st);
	assert_int_equal(err, 0);
	assert_int_equal(st.transactions, 4);
	assert_true(has(t, 1, 2));
	assert_true(untouched(t, 2));
	assert_true(has(t, 4, 2));
	/* And a journal goes on from there. */
	assert_int_equal(journal_run(t->j), 0);
	assert_true(journal_running_tid(t->j) != 0);
	assert_int_equal(journal_shutdown(t->j), 0);
	jt_close_image(t);
	log_free(l);
}

static void test_revoke_same_transaction(void **state)
{
	struct log *l = log_create(V_3, true, 1024, 1, 5);
	int err;
	struct jt *t;

	log_image(l, 1, 1);
	log_revoke(l, 1); /* equal number: suppressed, wherever it stands */
	log_image(l, 2, 1);
	log_commit(l);
	t = recover(l, &err, NULL);
	assert_int_equal(err, 0);
	assert_true(untouched(t, 1));
	assert_true(has(t, 2, 1));
	jt_close_image(t);
	log_free(l);
}

static struct log *two_transactions(enum version v, u32 *image, u32 *desc, u32 *commit)
{
	struct log *l = log_create(v, true, 1024, 1, 5);
	u32 b[] = { 2, 3 }, ver[] = { 1, 1 };

	log_image(l, 1, 1);
	log_commit(l);
	*image = log_images(l, b, ver, 2);
	*desc = *image - 1;
	*commit = log_commit(l);
	return l;
}

static void test_damage(void **state)
{
	u32 image, desc, commit;
	struct log *l;

	for (int v = V_1; v < V_NR; v++) {
		/* an image */
		l = two_transactions(v, &image, &desc, &commit);
		log_at(l, image)[100] ^= 1;
		assert_refused(l, -EFSBADCRC);
		log_free(l);

		/* a descriptor, in a byte that is not looked at */
		l = two_transactions(v, &image, &desc, &commit);
		log_at(l, desc)[800] ^= 1;
		assert_refused(l, -EFSBADCRC);
		/* no commit block: just the end */
		memset(log_at(l, commit), 0, 1024);
		assert_recovers(l, 1);
		log_free(l);

		/* an image, and more transactions after it */
		l = two_transactions(v, &image, &desc, &commit);
		log_image(l, 9, 9);
		log_commit(l);
		log_at(l, image)[100] ^= 1;
		assert_refused(l, -EFSBADCRC);
		log_free(l);
	}

	/* the commit block's checksum */
	for (int v = V_2; v < V_NR; v++) {
		l = two_transactions(v, &image, &desc, &commit);
		log_at(l, commit)[0x10] ^= 1;
		assert_refused(l, -EFSBADCRC);
		log_free(l);
	}

	/* torn: the first sector is new, the rest something else */
	l = two_transactions(V_3, &image, &desc, &commit);
	memset(log_at(l, commit) + 512, 0x5A, 512);
	assert_recovers(l, 2);
	log_free(l);

	/* a revoke block */
	l = log_create(V_3, true, 1024, 1, 5);
	log_image(l, 1, 1);
	log_commit(l);
	log_revoke(l, 1);
	log_at(l, l->last_blk)[500] ^= 1;
	log_commit(l);
	assert_refused(l, -EFSBADCRC);
	log_free(l);
}

/* The numbers go on, but the checksums and times are of an older log. */
static void test_stale_log(void **state)
{
	u32 image, desc, commit;
	struct log *l = two_transactions(V_3, &image, &desc, &commit);

	log_at(l, desc)[1020] ^= 1;
	*(be64 *)(log_at(l, commit) + 0x30) = cpu_to_be64(10);
	*(be32 *)(log_at(l, commit) + 0x10) = cpu_to_be32(0);
	*(be32 *)(log_at(l, commit) + 0x10) =
		cpu_to_be32(crc32c(log_seed(), log_at(l, commit), 1024));
	assert_recovers(l, 1);
	log_free(l);
}

/*
 * A new file system over an old one: where our first transaction will go lies
 * one of the old log, with the same number. Power goes right after the log was
 * said to begin there.
 */
static void test_stale_first(void **state)
{
	struct log *l = log_create(V_3, true, 1024, 1, 6);
	struct jbd2_superblock *jsb = log_sb(l);
	struct fake_crash fc;
	struct jt *t, *r;
	struct journal_recovery_stats st;
	const struct fake_rec *rec;
	struct handle *h;
	struct buffer *b;
	unsigned seed = 1;
	u32 begun = 0;
	u8 *image;
	int err;

	image = malloc(jt_size(&l->c));
	log_image(l, 1, 1);
	log_commit(l);
	jsb->s_start = cpu_to_be32(0);
	jsb->s_sequence = cpu_to_be32(5);
	jsb->s_uuid[0] ^= 1;
	log_sb_seal(l);
	t = jt_open_image(&l->c, l->mem, &err);
	assert_int_equal(err, 0);
	assert_int_equal(budget_create(64u << 20, 1, &t->sb.s_budget), 0);
	assert_int_equal(bcache_create(&t->sb), 0);
	assert_int_equal(journal_run(t->j), 0);
	fake_record_start(t->fd);
	assert_int_equal(journal_start(t->j, 1, 0, &h), 0);
	assert_int_equal(handle_tid(h), 6);
	assert_int_equal(buffer_read(&t->sb, 2, NULL, 0, &b), 0);
	assert_int_equal(handle_get_write_access(h, b), 0);
	jt_fill(b->b_data, 1024, 2, 1);
	handle_dirty(h, b);
	buffer_put(b);
	assert_int_equal(handle_stop(h), 0);
	assert_int_equal(journal_force_commit(t->j), 0);

	fake_crash_init(&fc, t->fd);
	while ((rec = fake_crash_step(&fc))) {
		fake_crash_image(&fc, image, 1024, 0, false, &seed);
		r = jt_open_image(&l->c, image, &err);
		assert_int_equal(err, 0);
		begun += journal_needs_recovery(r->j);
		assert_int_equal(journal_recover(r->j, &r->fd->bd, &st), 0);
		assert_true(untouched(r, 1));
		jt_close_image(r);
	}
	assert_true(begun > 1);
	fake_crash_release(&fc);
	assert_int_equal(journal_shutdown(t->j), 0);
	journal_free(t->j);
	bcache_destroy(&t->sb);
	budget_destroy(t->sb.s_budget);
	bdev_close(&t->fd->bd);
	free(t);
	free(image);
	log_free(l);
}

static void test_hostile(void **state)
{
	struct log *l;
	u8 *p;

	/* targets: the journal itself, beyond the device */
	l = log_create(V_3, true, 1024, 1, 5);
	log_image(l, 3, 1);
	log_image(l, 70, 1);
	log_commit(l);
	assert_refused(l, -EFSCORRUPTED);
	log_free(l);
	l = log_create(V_3, true, 1024, 1, 5);
	log_image(l, 0xFFFFFFF0, 1);
	log_commit(l);
	assert_refused(l, -EFSCORRUPTED);
	log_free(l);

	/* lengths of revoke blocks */
	for (u32 i = 0; i < 3; i++) {
		static const u32 count[] = { 15, 1021, UINT32_MAX };

		l = log_create(V_NONE, true, 1024, 1, 5);
		log_revoke(l, 3);
		*(be32 *)(log_at(l, l->last_blk) + 12) = cpu_to_be32(count[i]);
		log_commit(l);
		/* Without checksums there is no tail: 1021..1024 would fit. */
		if (count[i] == 1021)
			assert_recovers(l, 1);
		else
			assert_refused(l, -EFSCORRUPTED);
		log_free(l);
	}

	/* a ring full of descriptors of one transaction, no end anywhere */
	l = log_create(V_NONE, false, 1024, 1, 5);
	for (u32 i = 1; i < l->c.jlen; i++) {
		p = log_take(l, 1);
		*(be16 *)(p + 12 + 6) = cpu_to_be16(8 | 2);
	}
	assert_recovers(l, 0);
	/* and of revoke blocks */
	l->at = 1;
	for (u32 i = 1; i < l->c.jlen; i++)
		log_revoke(l, i);
	assert_recovers(l, 0);
	log_free(l);

	/* a descriptor without a last tag */
	l = log_create(V_NONE, false, 1024, 1, 5);
	p = log_take(l, 1);
	for (u32 off = 12; off + 8 <= 1024; off += 8) {
		*(be32 *)(p + off) = cpu_to_be32(off % 60);
		*(be16 *)(p + off + 6) = cpu_to_be16(2);
	}
	log_commit(l);
	assert_recovers(l, 0);
	log_free(l);
}

/* Random damage to logs without checksums: nothing outside the volume is written. */
static void test_fuzz(void **state)
{
	unsigned seed = 7;
	u32 refused = 0;

	for (u32 round = 0; round < FUZZ_ROUNDS; round++) {
		struct log *l = log_create(V_NONE, round & 1, 1024, 1 + round % 99, 5);
		struct journal_recovery_stats st;
		u32 n = 1 + (u32)rand_r(&seed) % 6;
		struct jt *t;
		int err;

		for (u32 i = 0; i < 8; i++) {
			u32 b[] = { i, i + 8, i + 16 }, v[] = { i, i, i };

			log_images(l, b, v, 1 + i % 3);
			if (i % 3 == 1)
				log_revoke(l, i);
			log_commit(l);
		}
		while (n--) {
			/* Mostly in control fields. */
			u32 blk = (u32)rand_r(&seed) % l->c.jlen;
			u32 off = (u32)rand_r(&seed) % (rand_r(&seed) % 4 ? 64 : 1024);

			log_at(l, blk)[off] = (u8)(rand_r(&seed) % 3 ? 1 << rand_r(&seed) % 8 :
								      rand_r(&seed));
		}
		t = recover(l, &err, &st);
		if (err) {
			refused++;
			assert_int_equal(atomic_load(&t->fd->nr_writes), 0);
		} else {
			/* Of the journal only the superblock changes. */
			for (u32 i = 1; i < l->c.jlen; i++)
				assert_memory_equal(t->fd->mem + jt_jpos(&l->c, i),
						    log_at(l, i), 1024);
		}
		jt_close_image(t);
		log_free(l);
	}
	assert_true(refused > FUZZ_ROUNDS / 60);
}

static void test_io_errors(void **state)
{
	u32 image, desc, commit;
	struct log *l = two_transactions(V_3, &image, &desc, &commit);
	struct journal_recovery_stats st;
	struct jt *t;
	int err;

	/* reading */
	t = jt_open_image(&l->c, l->mem, &err);
	t->fd->fail_read_pos = jt_jpos(&l->c, image);
	t->fd->fail_read_len = 1;
	assert_int_equal(journal_recover(t->j, &t->fd->bd, &st), -EIO);
	assert_int_equal(atomic_load(&t->fd->nr_writes), 0);
	jt_close_image(t);
	/* writing, one write after the other: the log stays */
	for (int i = 0;; i++) {
		t = jt_open_image(&l->c, l->mem, &err);
		t->fd->fail_write_in = i;
		err = journal_recover(t->j, &t->fd->bd, &st);
		if (!err)
			break;
		assert_int_equal(err, -EIO);
		assert_true(journal_needs_recovery(t->j));
		t->fd->fail_write_in = -1;
		assert_int_equal(journal_recover(t->j, &t->fd->bd, &st), 0);
		assert_true(has(t, 2, 1));
		jt_close_image(t);
		assert_true(i < 10);
	}
	jt_close_image(t);
	/* flushing */
	t = jt_open_image(&l->c, l->mem, &err);
	t->fd->fail_flush_in = 0;
	assert_int_equal(journal_recover(t->j, &t->fd->bd, &st), -EIO);
	assert_true(journal_needs_recovery(t->j));
	jt_close_image(t);
	log_free(l);
}

/* Read-only: the images go to an overlay, the device stays as it is. */
static void test_overlay(void **state)
{
	u32 image, desc, commit;
	struct log *l = two_transactions(V_3, &image, &desc, &commit);
	u8 *data = io_alloc(4096);
	struct bdev *ov;
	struct jt *t;
	int err;

	t = jt_open_image(&l->c, l->mem, &err);
	t->fd->bd.bd_readonly = true;
	assert_int_equal(bdev_overlay_create(&t->fd->bd, 1024, &ov), 0);
	assert_int_equal(journal_recover(t->j, ov, NULL), 0);
	assert_int_equal(atomic_load(&t->fd->nr_writes), 0);
	assert_true(journal_needs_recovery(t->j));
	for (u32 i = 1; i <= 3; i++) {
		assert_int_equal(bdev_read(ov, i * 1024, data, 1024), 0);
		assert_true(jt_is(data, 1024, i, 1, false));
	}
	journal_free(t->j);
	bdev_close(ov);
	free(t);
	io_free(data);
	log_free(l);
}

static void test_fast_commit(void **state)
{
	for (int with = 0; with < 2; with++) {
		struct log *l = log_create(V_3, true, 1024, 80, 5);
		struct jbd2_superblock *jsb = log_sb(l);
		u8 *fc;

		jsb->s_feature_incompat = cpu_to_be32(be32_to_cpu(jsb->s_feature_incompat) |
						      JBD2_INCOMPAT_FAST_COMMIT);
		jsb->s_num_fc_blks = cpu_to_be32(16);
		log_sb_seal(l);
		l->end = l->c.jlen - 16; /* the ring is shorter */
		for (u32 i = 1; i < 5; i++) {
			log_image(l, i, i);
			log_commit(l);
		}
		/* A head with the next number, or one of an older one. */
		fc = log_at(l, l->end + 1);
		*(le16 *)fc = cpu_to_le16(9);
		*(le16 *)(fc + 2) = cpu_to_le16(8);
		*(le32 *)(fc + 8) = cpu_to_le32(with ? l->seq : l->seq - 1);
		if (with)
			assert_refused(l, -EOPNOTSUPP);
		else
			assert_recovers(l, 4);
		log_free(l);
	}
}

/* ---- the superblock ---- */

static void assert_load(struct log *l, int want)
{
	int err;
	struct jt *t;

	log_sb_seal(l);
	t = jt_open_image(&l->c, l->mem, &err);
	assert_int_equal(err, want);
	jt_close_image(t);
}

static void test_load(void **state)
{
	struct log *l = log_create(V_3, true, 1024, 1, 5);
	struct jbd2_superblock *jsb = log_sb(l), good = *jsb;
	int err;
	struct jt *t;

	assert_load(l, 0);
	jsb->s_header.h_magic = cpu_to_be32(1);
	assert_load(l, -EFSCORRUPTED);
	*jsb = good;
	jsb->s_header.h_blocktype = cpu_to_be32(JBD2_SB_V1);
	assert_load(l, -EOPNOTSUPP);
	jsb->s_header.h_blocktype = cpu_to_be32(JBD2_COMMIT);
	assert_load(l, -EFSCORRUPTED);
	*jsb = good;
	jsb->s_feature_incompat = cpu_to_be32(0x1000 | JBD2_INCOMPAT_CSUM_V3);
	assert_load(l, -EOPNOTSUPP);
	jsb->s_feature_incompat = cpu_to_be32(JBD2_INCOMPAT_CSUM_V2 | JBD2_INCOMPAT_CSUM_V3);
	assert_load(l, -EFSCORRUPTED);
	*jsb = good;
	jsb->s_feature_ro_compat = cpu_to_be32(1);
	assert_load(l, -EOPNOTSUPP);
	*jsb = good;
	jsb->s_checksum_type = 1;
	assert_load(l, -EFSCORRUPTED);
	*jsb = good;
	jsb->s_blocksize = cpu_to_be32(4096);
	assert_load(l, -EFSCORRUPTED);
	*jsb = good;
	jsb->s_maxlen = cpu_to_be32(101);
	assert_load(l, -EFSCORRUPTED);
	jsb->s_maxlen = cpu_to_be32(10);
	assert_load(l, -EFSCORRUPTED);
	*jsb = good;
	jsb->s_first = cpu_to_be32(0);
	assert_load(l, -EFSCORRUPTED);
	jsb->s_first = cpu_to_be32(100);
	assert_load(l, -EFSCORRUPTED);
	jsb->s_first = cpu_to_be32(50);
	assert_load(l, -EFSCORRUPTED);
	*jsb = good;
	jsb->s_start = cpu_to_be32(100);
	assert_load(l, -EFSCORRUPTED);
	*jsb = good;
	jsb->s_feature_incompat = cpu_to_be32(be32_to_cpu(good.s_feature_incompat) |
					      JBD2_INCOMPAT_FAST_COMMIT);
	assert_load(l, -EFSCORRUPTED); /* 256 blocks by default: more than there are */
	jsb->s_num_fc_blks = cpu_to_be32(UINT32_MAX);
	assert_load(l, -EFSCORRUPTED);
	*jsb = good;
	jsb->s_errno = cpu_to_be32((u32)-5);
	log_sb_seal(l);
	t = jt_open_image(&l->c, l->mem, &err);
	assert_int_equal(err, 0);
	assert_int_equal(journal_recorded_errno(t->j), -5);
	assert_int_equal(journal_blocks(t->j), 100);
	jt_close_image(t);
	*jsb = good;
	jsb->s_checksum = cpu_to_be32(be32_to_cpu(jsb->s_checksum) ^ 1);
	t = jt_open_image(&l->c, l->mem, &err);
	assert_int_equal(err, -EFSBADCRC);
	jt_close_image(t);
	log_free(l);
}

/* journal_run() rewrites the features: what was v2 is v3 from then on. */
static void test_features(void **state)
{
	struct log *l = log_create(V_2, false, 1024, 1, 5);
	struct jbd2_superblock *jsb;
	struct jt *t;
	int err;

	l->c.v3 = l->c.wide = true;
	log_image(l, 1, 1);
	log_commit(l);
	t = recover(l, &err, NULL);
	assert_int_equal(err, 0);
	assert_int_equal(journal_run(t->j), 0);
	assert_int_equal(journal_shutdown(t->j), 0);
	jsb = (void *)(t->fd->mem + jt_jpos(&t->c, 0));
	assert_int_equal(be32_to_cpu(jsb->s_feature_incompat),
			 JBD2_INCOMPAT_REVOKE | JBD2_INCOMPAT_64BIT | JBD2_INCOMPAT_CSUM_V3);
	assert_int_equal(jsb->s_checksum_type, 4);
	assert_int_equal(be32_to_cpu(jsb->s_start), 0);
	jt_close_image(t);
	log_free(l);
}

/* ---- e2fsprogs ---- */

static char dir[] = "/tmp/sluice-journal-XXXXXX";

__printf_like(2, 3) static int sh(char *out, const char *fmt, ...)
{
	char cmd[2048], full[2304];
	va_list ap;
	size_t n;
	FILE *f;

	va_start(ap, fmt);
	vsnprintf(cmd, sizeof(cmd), fmt, ap);
	va_end(ap);
	snprintf(full, sizeof(full), "cd %s && PATH=$PATH:/sbin:/usr/sbin; { %s ; } 2>&1", dir,
		 cmd);
	f = popen(full, "r");
	assert_non_null(f);
	n = out ? fread(out, 1, 65535, f) : 0;
	if (out)
		out[n] = '\0';
	while (!out && fgetc(f) != EOF)
		;
	return pclose(f);
}

struct image {
	struct bdev *bd;
	struct super_block sb;
	struct bdev_backing backing;
	struct journal_extent map[64];
	u32 nr_map, maxlen;
	bool wide, v3;
};

/* The blocks of a file or inode as extents. */
static u32 blocks_of(const char *img, const char *what, struct journal_extent *map, u32 *len)
{
	char *out = malloc(65536), *p;
	u32 nr = 0;

	*len = 0;
	assert_int_equal(sh(out, "debugfs -R 'dump_extents -l %s' %s", what, img), 0);
	/* " 0/ 0   1/  1     0 -  1023    1234 -  2257   1024" */
	for (p = strtok(out, "\n"); p; p = strtok(NULL, "\n")) {
		unsigned a, b, c, d, l0, l1, n;
		unsigned long long p0, p1;

		if (sscanf(p, " %u/ %u %u/ %u %u - %u %llu - %llu %u", &a, &b, &c, &d, &l0, &l1,
			   &p0, &p1, &n) != 9)
			continue;
		map[nr++] = (struct journal_extent){ l0, l1 - l0 + 1, p0 };
		*len = l1 + 1;
		assert_true(nr < 64);
	}
	free(out);
	return nr;
}

static bool image_replay_ok(void *priv, pblk_t blk)
{
	struct image *im = priv;

	for (u32 i = 0; i < im->nr_map; i++)
		if (blk >= im->map[i].pblk && blk < im->map[i].pblk + im->map[i].len)
			return false;
	return blk < im->bd->bd_size / im->sb.s_blocksize;
}

static const struct journal_ops image_ops = { .replay_ok = image_replay_ok };

static struct journal *image_open(struct image *im, const char *name, u32 bs)
{
	struct journal_params p = { .sb = &im->sb, .map = im->map, .use_64bit = im->wide,
				    .use_csum_v3 = im->v3, .ops = &image_ops, .priv = im,
				    .commit_interval_ms = 60000 };
	char path[256];
	const char *why = "";
	struct journal *j;

	im->nr_map = blocks_of(name, "<8>", im->map, &im->maxlen);
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	if (bdev_open_aio(path, false, 0, &im->bd, &why))
		fail_msg("%s: %s", path, why);
	im->sb.s_blocksize = bs;
	im->sb.s_blocksize_bits = (u8)__builtin_ctz(bs);
	strcpy(im->sb.s_id, name);
	im->backing = (struct bdev_backing){ im->bd, im->sb.s_blocksize_bits };
	im->sb.s_backing_ops = &bdev_backing_ops;
	im->sb.s_backing = &im->backing;
	p.bd = im->bd;
	p.nr_map = im->nr_map;
	p.maxlen = im->maxlen;
	assert_int_equal(journal_load(&p, &j), 0);
	return j;
}

static bool have_e2fsprogs(void)
{
	return mkdtemp(dir) && !sh(NULL, "mke2fs -V && debugfs -V && e2fsck -V");
}

static const struct {
	u32 bs;
	const char *features;
	bool wide, v3;
} volumes[] = {
	{ 4096, "64bit,metadata_csum", true, true },
	{ 1024, "64bit,metadata_csum", true, true },
	{ 1024, "^64bit,metadata_csum", false, true },
	{ 4096, "64bit,^metadata_csum", true, false },
	{ 1024, "^64bit,^metadata_csum", false, false },
};

/* A volume with the file "f" of 300 blocks; their place. */
static u32 mkvolume(u32 i, const char *name, struct journal_extent *f)
{
	u32 bs = volumes[i].bs, len, nr;

	assert_int_equal(sh(NULL, "mke2fs -q -F -t ext4 -O %s -b %u -J size=%u %s %u",
			    volumes[i].features, bs, bs / 1024, name, 16384 * (bs / 1024)), 0);
	assert_int_equal(sh(NULL, "head -c %u /dev/zero | tr '\\0' 'x' > f0", 300 * bs), 0);
	assert_int_equal(sh(NULL, "debugfs -w -R 'write f0 f' %s", name), 0);
	nr = blocks_of(name, "/f", f, &len);
	assert_int_equal(len, 300);
	assert_true(nr > 0);
	return f[0].len;
}

/* The thread waits for this handle: it writes nothing until that is stopped. */
static struct handle *hold_thread(struct journal *j)
{
	struct handle *h;
	bool there = false;

	assert_int_equal(journal_start(j, 1, 0, &h), 0);
	journal_commit_start(j, handle_tid(h));
	while (!there) {
		usleep(100);
		spin_lock(&j->j_lock);
		there = j->running->state == T_LOCKED;
		spin_unlock(&j->j_lock);
	}
	return h;
}

/* Ours writes, theirs replay. */
static void test_ours_to_e2fsck(void **state)
{
	for (u32 v = 0; v < ARRAY_SIZE(volumes); v++) {
		struct image im = { .wide = volumes[v].wide, .v3 = volumes[v].v3 };
		u32 bs = volumes[v].bs, n;
		struct journal_extent f[64];
		char *out = malloc(65536);
		u8 *want = malloc(300 * bs), *got = malloc(300 * bs);
		struct handle *h;
		struct journal *j;
		struct buffer *b;
		FILE *fp;

		n = min_of(mkvolume(v, "img", f), 120u);
		j = image_open(&im, "img", bs);
		assert_int_equal(budget_create(64u << 20, 1, &im.sb.s_budget), 0);
		assert_int_equal(bcache_create(&im.sb), 0);
		assert_int_equal(journal_run(j), 0);
		memset(want, 'x', 300 * bs);
		/* Every other volume: until the log has gone around. */
		for (u32 round = 1; round <= (v % 2 ? 40 : 3); round++) {
			for (u32 i = round; i < n; i++) { /* fewer each time */
				assert_int_equal(journal_start(j, 1, 1, &h), 0);
				assert_int_equal(buffer_read(&im.sb, f[0].pblk + i, NULL, 0, &b), 0);
				assert_int_equal(handle_get_write_access(h, b), 0);
				jt_fill(b->b_data, bs, i, round);
				memcpy(want + i * bs, b->b_data, bs);
				handle_dirty(h, b);
				buffer_put(b);
				assert_int_equal(handle_stop(h), 0);
			}
			assert_int_equal(journal_force_commit(j), 0);
		}
		/* Freed: its images are not to be replayed. */
		assert_int_equal(journal_start(j, 1, 1, &h), 0);
		assert_int_equal(handle_forget(h, NULL, f[0].pblk + 50), 0);
		assert_int_equal(handle_stop(h), 0);
		assert_int_equal(journal_force_commit(j), 0);
		if (v % 2) {
			assert_true(atomic_load(&journal_stats(j)->tail_updates) > 2);
		} else {
			assert_true(atomic_load(&journal_stats(j)->tail_updates) == 0);
			memset(want + 50 * bs, 'x', bs);
		}

		h = hold_thread(j);
		assert_int_equal(sh(NULL, "cp img crash"), 0);
		assert_int_equal(handle_stop(h), 0);
		assert_int_equal(sh(out, "debugfs -w -R 'feature needs_recovery' crash"), 0);
		assert_int_equal(sh(out, "debugfs -R 'logdump -O' crash"), 0);
		assert_true(v % 2 || strstr(out, "revoke table"));
		sh(out, "e2fsck -fy -E journal_only crash");
		if (strstr(out, "corrupt") || strstr(out, "checksum"))
			fail_msg("%s: %s", volumes[v].features, out);
		if (sh(out, "e2fsck -fn crash"))
			fail_msg("%s: %s", volumes[v].features, out);
		assert_int_equal(sh(NULL, "debugfs -R 'dump f f1' crash"), 0);
		sh(out, "cp f1 /dev/stdout | wc -c");
		char path[256];

		snprintf(path, sizeof(path), "%s/f1", dir);
		fp = fopen(path, "r");
		assert_non_null(fp);
		assert_int_equal(fread(got, bs, 300, fp), 300);
		fclose(fp);
		for (u32 i = 0; i < 300; i++)
			if ((i != 50 || v % 2 == 0) && memcmp(got + i * bs, want + i * bs, bs))
				fail_msg("%s: block %u differs", volumes[v].features, i);

		assert_int_equal(journal_shutdown(j), 0);
		journal_free(j);
		bcache_destroy(&im.sb);
		budget_destroy(im.sb.s_budget);
		bdev_close(im.bd);
		/* A clean log is clean for them. */
		if (sh(out, "e2fsck -fn img"))
			fail_msg("%s: after shutdown: %s", volumes[v].features, out);
		free(out);
		free(want);
		free(got);
	}
}

/* debugfs writes the log, ours replays. */
static void test_debugfs_to_ours(void **state)
{
	/* Once more at the end, with version 2 of the checksums. */
	for (u32 n = 0; n <= ARRAY_SIZE(volumes); n++) {
		u32 v = n % ARRAY_SIZE(volumes);
		const char *csum = n >= ARRAY_SIZE(volumes) ? " -c -v 2" :
				   volumes[v].v3 ? " -c" : "";
		struct image im = { .wide = volumes[v].wide, .v3 = volumes[v].v3 };
		struct journal_recovery_stats st;
		u32 bs = volumes[v].bs;
		struct journal_extent f[64];
		char *out = malloc(65536);
		u8 *data = io_alloc(bs), *want = malloc(bs);
		struct journal *j;

		mkvolume(v, "img", f);
		/* Two blocks; one starts with the magic number. */
		assert_int_equal(sh(NULL, "head -c %u /dev/zero | tr '\\0' 'y' > y; "
				    "printf '\\300\\073\\071\\230' > z; "
				    "head -c %u /dev/zero | tr '\\0' 'z' >> z; cat y z > yz",
				    bs, bs - 4), 0);
		if (sh(out, "printf 'jo%s\\njw -b %llu,%llu yz\\njw -r %llu\\njw -b %llu y\\njc\\n'"
		       " > cmd; debugfs -w -f cmd img", csum,
		       (unsigned long long)f[0].pblk, (unsigned long long)f[0].pblk + 1,
		       (unsigned long long)f[0].pblk, (unsigned long long)f[0].pblk + 2))
			fail_msg("%s", out);
		j = image_open(&im, "img", bs);
		if (!journal_needs_recovery(j))
			fail_msg("%s", out);
		assert_int_equal(j->csum_v2, n >= ARRAY_SIZE(volumes));
		assert_int_equal(journal_recover(j, im.bd, &st), 0);
		assert_int_equal(st.transactions, 3);
		assert_int_equal(st.revokes, 1);
		assert_int_equal(st.revoke_hits, 1);
		assert_int_equal(bdev_read(im.bd, f[0].pblk * bs, data, bs), 0);
		assert_int_equal(data[7], 'x'); /* revoked */
		assert_int_equal(bdev_read(im.bd, (f[0].pblk + 1) * bs, data, bs), 0);
		memset(want, 'z', bs);
		memcpy(want, "\300\073\071\230", 4);
		assert_memory_equal(data, want, bs);
		assert_int_equal(bdev_read(im.bd, (f[0].pblk + 2) * bs, data, bs), 0);
		memset(want, 'y', bs);
		assert_memory_equal(data, want, bs);
		journal_free(j);
		bdev_close(im.bd);
		/* The flag is left; the log is empty: legal. */
		sh(out, "e2fsck -p img");
		if (sh(out, "e2fsck -fn img"))
			fail_msg("%s: %s", volumes[v].features, out);
		free(out);
		free(want);
		io_free(data);
	}
}

/* ---- the revoke map ---- */

static void test_revoke_map(void **state)
{
	static u32 model[512];
	struct revoke_map m = { 0 };
	unsigned seed = 3;
	u32 nr = 0, tid;

	for (u32 i = 0; i < 200000; i++) {
		u32 blk = (u32)rand_r(&seed) % 512;
		pblk_t key = blk * 0x100000001ull;

		if (rand_r(&seed) % 2) {
			if (revoke_map_full(&m)) {
				u32 slots = revoke_map_next(&m);

				free(revoke_map_install(&m, revoke_map_alloc(slots), slots));
			}
			assert_int_equal(revoke_map_set(&m, key, i + 1), !model[blk]);
			nr += !model[blk];
			model[blk] = i + 1;
		} else {
			assert_int_equal(revoke_map_remove(&m, key), model[blk] != 0);
			nr -= model[blk] != 0;
			model[blk] = 0;
		}
		assert_int_equal(m.nr, nr);
		blk = (u32)rand_r(&seed) % 512;
		assert_int_equal(revoke_map_get(&m, blk * 0x100000001ull, &tid), model[blk] != 0);
		if (model[blk])
			assert_int_equal(tid, model[blk]);
	}
	revoke_map_release(&m);
}

static void quiet(enum log_level level, const char *line, void *priv)
{
}

static int setup(void **state)
{
	thread_register();
	log_set_sink(quiet, NULL);
	return end_io_start();
}

static int teardown(void **state)
{
	end_io_stop();
	rcu_barrier();
	thread_unregister();
	sh(NULL, "rm -f img crash f0 f1 y z yz cmd");
	rmdir(dir);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_revoke_map),
		cmocka_unit_test(test_versions),
		cmocka_unit_test(test_number_wraps),
		cmocka_unit_test(test_revoke_same_transaction),
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_stale_log),
		cmocka_unit_test(test_stale_first),
		cmocka_unit_test(test_hostile),
		cmocka_unit_test(test_fuzz),
		cmocka_unit_test(test_io_errors),
		cmocka_unit_test(test_overlay),
		cmocka_unit_test(test_fast_commit),
		cmocka_unit_test(test_load),
		cmocka_unit_test(test_features),
	};
	const struct CMUnitTest interop[] = {
		cmocka_unit_test(test_ours_to_e2fsck),
		cmocka_unit_test(test_debugfs_to_ours),
	};
	int err = cmocka_run_group_tests(tests, setup, NULL);

	if (!err && !have_e2fsprogs()) {
		print_message("e2fsprogs is missing: its tests are skipped\n");
		return 77;
	}
	return err ?: cmocka_run_group_tests(interop, NULL, teardown);
}
