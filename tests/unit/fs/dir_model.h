/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/dir_model.h - names by number, what should be in the
 * directory, and listings that are compared with it
 */
#ifndef SLUICE_TESTS_DIR_MODEL_H
#define SLUICE_TESTS_DIR_MODEL_H

#include "tests/unit/fs/fake_dir.h"

#define MODEL_INO 1000u

static struct {
	u32 nr;       /* names 0...nr-1 can exist */
	u32 min_len, max_len;
	u8 *present;
	u32 count;
	u32 *seen;    /* how often the current listing had it */
	u32 changes, places; /* tried; with a place known before */
} model;

static inline void model_begin(u32 nr, u32 min_len, u32 max_len)
{
	model.nr = nr;
	model.min_len = max_of(min_len, 8u);
	model.max_len = max_of(max_len, model.min_len);
	model.count = model.changes = model.places = 0;
	model.present = calloc(nr, 1);
	model.seen = calloc(nr, sizeof(*model.seen));
	assert_non_null(model.present);
	assert_non_null(model.seen);
}

static inline void model_end(void)
{
	free(model.present);
	free(model.seen);
}

/* Name i: its number in hex, then bytes of all kinds. */
static inline u32 model_name(u32 i, char *out)
{
	u32 x = i * 2654435761u + 12345;
	u32 len = model.min_len +
		  (x >> 8) % (model.max_len - model.min_len + 1);

	snprintf(out, 9, "%08x", i);
	for (u32 k = 8; k < len; k++) {
		x = x * 1664525u + 1013904223u;
		out[k] = (char)(1 + (x >> 24) % 255);
		if (out[k] == '/')
			out[k] = '_';
	}
	return len;
}

/*
 * Every other change searches first, as those of namei.c do, and says where that
 * has found the name or the room. *err: of the search.
 */
static inline bool model_place(u32 i, const char *name, u32 len,
			       struct ext4_dir_place *place, int *err)
{
	ino_nr ino;
	u8 ft;

	if (model.changes++ % 2)
		return false;
	*err = ext4_dir_find_place(&fake.dir, name, len, &ino, &ft, place);
	assert_int_equal(*err, model.present[i] ? 0 : -ENOENT);
	assert_true(*err || (place->found && ino == MODEL_INO + i));
	model.places += place->b != NULL;
	return true;
}

static inline int model_add(u32 i)
{
	struct ext4_dir_place place;
	char name[256];
	u32 len = model_name(i, name);
	int err;

	if (model_place(i, name, len, &place, &err)) {
		err = ext4_dir_add_place(&fake.h, &fake.dir, &place, name, len,
					 MODEL_INO + i, EXT4_FT_REG_FILE);
		ext4_dir_place_put(&place);
		fake_stop(err);
	} else {
		err = fake_add(name, len, MODEL_INO + i);
	}
	if (model.present[i]) {
		assert_int_equal(err, -EEXIST);
	} else if (!err) {
		model.present[i] = 1;
		model.count++;
	}
	return err;
}

static inline void model_remove(u32 i)
{
	char name[256];
	struct ext4_dir_place place;
	u32 len = model_name(i, name);
	int err;

	if (model_place(i, name, len, &place, &err)) {
		err = ext4_dir_remove_place(&fake.h, &fake.dir, &place, name, len,
					    MODEL_INO + i);
		ext4_dir_place_put(&place);
		fake_stop(err);
	} else {
		err = fake_remove(name, len, MODEL_INO + i);
	}
	assert_int_equal(err, model.present[i] ? 0 : -ENOENT);
	model.count -= model.present[i];
	model.present[i] = 0;
}

/* What a look without a lock says: as ext4_dir_peek(), -EAGAIN also if the
 * directory was being changed. */
static inline int model_peek(u32 i, ino_nr *ino)
{
	char name[256];
	u32 len = model_name(i, name), seq;
	int err = -EAGAIN;

	rcu_read_lock();
	if (ext4_dir_peek_begin(&fake.dir, &seq)) {
		err = ext4_dir_peek(&fake.dir, name, len, ino);
		if (!ext4_dir_peek_valid(&fake.dir, seq))
			err = -EAGAIN;
	}
	rcu_read_unlock();
	return err;
}

static inline void model_check_one(u32 i)
{
	char name[256];
	u32 len = model_name(i, name);
	ino_nr ino;
	int err;

	assert_int_equal(fake_find(name, len),
			 model.present[i] ? MODEL_INO + i : 0);
	err = model_peek(i, &ino);
	if (err != -EAGAIN)
		assert_int_equal(err, model.present[i] ? 0 : -ENOENT);
	if (!err)
		assert_int_equal(ino, MODEL_INO + i);
}

static inline void model_check_all(void)
{
	for (u32 i = 0; i < model.nr; i++)
		model_check_one(i);
}

/* ---- listing ---- */

struct lister {
	u32 take;     /* names taken per call */
	u32 taken;
	u64 last;     /* cookie after the last one taken */
	bool unordered_ok;
	u32 dots;
};

static inline int lister_emit(void *priv, const char *name, u32 len, ino_nr ino,
			      u8 ftype, u64 next)
{
	struct lister *l = priv;
	char expect[256];
	u32 i;

	assert_true(next <= (u64)INT64_MAX);
	if (l->taken == l->take)
		return 1;
	l->taken++;
	if (len <= 2 && name[0] == '.') {
		assert_int_equal(len, l->dots + 1);
		assert_int_equal(ino, len == 1 ? FAKE_INO : FAKE_PARENT);
		assert_int_equal(next, len);
		l->dots++;
		l->last = next;
		return 0;
	}
	assert_true(next >= l->last);
	l->last = next;
	i = ino - MODEL_INO;
	assert_true(i < model.nr);
	assert_int_equal(len, model_name(i, expect));
	assert_memory_equal(name, expect, len);
	model.seen[i]++;
	return 0;
}

/*
 * Lists everything, `take` names a call; between calls change() runs. Names
 * seen at the end: model.seen.
 */
static inline void model_list(struct ext4_dir_cursor *cur, u32 take,
			      void (*change)(void))
{
	struct lister l = { .take = take };
	u64 pos = 0;

	memset(model.seen, 0, model.nr * sizeof(*model.seen));
	do {
		l.taken = 0;
		assert_int_equal(ext4_readdir(&fake.dir, cur, &pos, lister_emit,
					      &l),
				 0);
		if (change)
			change();
	} while (l.taken);
	assert_int_equal(l.dots, 2);
	assert_int_equal(pos, INT64_MAX);
}

/* A listing without changes has each name once. */
static inline void model_check_list(struct ext4_dir_cursor *cur, u32 take)
{
	model_list(cur, take, NULL);
	for (u32 i = 0; i < model.nr; i++)
		assert_int_equal(model.seen[i], model.present[i]);
}

/* Adds, removes and looks up at random; `fill` of 100 names should exist. */
static inline void model_churn(u32 steps, u32 fill)
{
	for (u32 s = 0; s < steps; s++) {
		u32 i = fake_random(model.nr);

		if (fake_random(4) == 0)
			model_check_one(i);
		else if (fake_random(100) < fill)
			(void)!model_add(i);
		else
			model_remove(i);
	}
}

/*
 * Changes bytes on the device at random and uses the directory: whatever that
 * gives, it must not crash, hang, or list outside its buffers.
 */
static inline int hostile_emit(void *priv, const char *name, u32 len, ino_nr ino,
			       u8 ftype, u64 next)
{
	u32 *n = priv;

	assert_true(len >= 1 && len <= 255);
	return ++*n > 4 * model.nr;
}

static inline void hostile_use(void)
{
	char name[256];
	bool empty;
	ino_nr ino;
	u8 ft;

	for (u32 k = 0; k < 8; k++) {
		u32 i = fake_random(model.nr), len = model_name(i, name), n = 0;
		u64 pos = 0;
		int err;

		(void)!ext4_dir_find(&fake.dir, name, len, &ino, &ft);
		(void)!model_peek(i, &ino);
		err = ext4_dir_add(&fake.h, &fake.dir, name, len, 99, 1);
		fake_stop(err);
		i = fake_random(model.nr);
		len = model_name(i, name);
		err = ext4_dir_remove(&fake.h, &fake.dir, name, len, MODEL_INO + i);
		fake_stop(err);
		if (k == 0) {
			(void)!ext4_readdir(&fake.dir, NULL, &pos, hostile_emit,
					    &n);
			assert_true(n <= 4 * model.nr);
			(void)!ext4_dir_is_empty(&fake.dir, &empty);
			(void)!ext4_dir_get_dotdot(&fake.dir, &ino);
		}
	}
}

static inline void hostile_corrupt(u32 bytes)
{
	for (u32 i = 0; i < bytes; i++) {
		u8 *p = fake_disk_lblk(fake_random(fake.map_nr));
		u32 bs = fake.sbi.s.s_blocksize;
		/* Half of the hits in headers, where it hurts most. */
		u32 off = fake_random(2) ? fake_random(bs) : fake_random(64);

		switch (fake_random(3)) {
		case 0:
			p[off] = (u8)fake_random(256);
			break;
		case 1:
			p[off] ^= (u8)(1u << fake_random(8));
			break;
		default:
			/* One block takes another's place. */
			if (fake_random(8) == 0)
				memcpy(p, fake_disk_lblk(fake_random(fake.map_nr)), bs);
			else
				p[off] = 0;
		}
	}
}

/* Restores the blocks of a snapshot and forgets what is cached. */
struct snapshot {
	u8 *data;
	u32 nr;
};

static inline struct snapshot snapshot_take(void)
{
	u32 bs = fake.sbi.s.s_blocksize;
	struct snapshot s = { .nr = fake.map_nr };

	s.data = malloc((size_t)s.nr * bs);
	assert_non_null(s.data);
	for (u32 i = 0; i < s.nr; i++)
		memcpy(s.data + (size_t)i * bs, fake_disk_lblk(i), bs);
	return s;
}

static inline void snapshot_restore(const struct snapshot *s, u32 flags)
{
	u32 bs = fake.sbi.s.s_blocksize;

	fake_drop();
	assert_true(fake.map_nr >= s->nr);
	fake.map_nr = s->nr;
	fake.dir.vfs.i_size = (u64)s->nr * bs;
	fake.dir.vfs.i_flags = flags;
	atomic_store(&fake.dir.i_index_broken, false);
	for (u32 i = 0; i < s->nr; i++)
		memcpy(fake_disk_lblk(i), s->data + (size_t)i * bs, bs);
}

#endif
