/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_htree.c - indexed directories: conversion, splits, growth,
 * collisions, listing, broken and hostile indexes
 *
 * The hash is the real one (fs/hash.c is compiled in here), except that a
 * test can mask bits of it away to make names collide.
 */
#include "fs/ext4.h"
static int real_dirhash(const char *name, u32 len, u32 version, const u32 *seed,
			struct ext4_dirhash *out);
#define ext4_dirhash(...) real_dirhash(__VA_ARGS__)
#include "fs/hash.c"
#undef ext4_dirhash

#include <sched.h>

#include "tests/unit/fs/dir_model.h"

static u32 major_mask = ~0u, minor_mask = ~0u;

int ext4_dirhash(const char *name, u32 len, u32 version, const u32 *seed,
		 struct ext4_dirhash *out)
{
	int err = real_dirhash(name, len, version, seed, out);

	out->major &= major_mask;
	out->minor &= minor_mask;
	return err;
}

static const struct fake_config csum_1k = { .blocksize = 1024, .csum = true,
					    .hash_version = DX_HASH_HALF_MD4 };
static const struct fake_config plain_1k = { .blocksize = 1024,
					     .hash_version = DX_HASH_TEA_UNSIGNED };
static const struct fake_config csum_4k = { .blocksize = 4096, .csum = true,
					    .hash_version = DX_HASH_HALF_MD4 };
static const struct fake_config plain_4k = { .blocksize = 4096,
					     .hash_version = DX_HASH_LEGACY };

static struct ext4_dx_root_info *disk_info(void)
{
	return (struct ext4_dx_root_info *)(fake_disk_lblk(0) + 24);
}

/* ---- an independent look at the whole tree, on the device ---- */

static struct {
	u8 *used;       /* blocks of the directory seen */
	u32 names;
} walk;

static void walk_leaf(lblk_t lblk, u32 low, u64 high)
{
	u8 *p = fake_disk_lblk(lblk);
	u32 end = dir_usable(&fake.sbi), off = 0;

	while (off < end) {
		struct ext4_dir_entry *de = dir_entry(p, off);
		struct ext4_dirhash dh;

		if (le32_to_cpu(de->inode)) {
			assert_int_equal(ext4_dirhash(de->name, de->name_len,
						      fake.sbi.def_hash_version,
						      fake.sbi.hash_seed, &dh),
					 0);
			assert_true(dh.major >= low);
			assert_true(dh.major < high);
			walk.names++;
		}
		off += dir_rec_len(de, fake.sbi.s.s_blocksize);
	}
	assert_int_equal(off, end);
}

static void walk_node(lblk_t lblk, u32 depth, u32 low, u64 high)
{
	u32 entries_off = lblk ? DX_NODE_ENTRIES : DX_ROOT_ENTRIES;
	struct ext4_dx_entry *e =
		(struct ext4_dx_entry *)(fake_disk_lblk(lblk) + entries_off);
	struct ext4_dx_countlimit *cl = (struct ext4_dx_countlimit *)e;
	u32 count = le16_to_cpu(cl->count);

	assert_int_equal(le16_to_cpu(cl->limit),
			 (fake.sbi.s.s_blocksize - entries_off -
			  (fake.sbi.has_csum ? 8 : 0)) / 8);
	for (u32 i = 0; i < count; i++) {
		u32 from = i ? le32_to_cpu(e[i].hash) : low;
		/* Exclusive; one hash more where the next continues it. */
		u64 to = i + 1 < count ? le32_to_cpu(e[i + 1].hash) : high;
		lblk_t child = le32_to_cpu(e[i].block);

		assert_true(child > 0 && child < fake.map_nr);
		assert_false(walk.used[child]);
		walk.used[child] = 1;
		assert_true(from >= low && to <= high);
		if (depth)
			walk_node(child, depth - 1, from, to);
		else
			walk_leaf(child, from & ~1u, to);
	}
}

static void check_tree(void)
{
	if (!ext4_dir_is_indexed(&fake.dir))
		return;
	walk.used = calloc(fake.map_nr, 1);
	walk.names = 0;
	assert_non_null(walk.used);
	walk.used[0] = 1;
	walk_node(0, disk_info()->indirect_levels, 0, (u64)1 << 32);
	assert_int_equal(walk.names, model.count);
	for (u32 i = 0; i < fake.map_nr; i++)
		assert_int_equal(walk.used[i], 1);
	free(walk.used);
}

static void check_everything(struct ext4_dir_cursor *cur)
{
	check_tree();
	fake_drop();
	model_check_all();
	model_check_list(cur, 1 + fake_random(1000));
	assert_int_equal(fake.errors, 0);
	assert_true(fake.most_dirty <= 7);
}

/* ---- */

static void test_conversion(void **state)
{
	u8 *p;
	u32 i = 0;

	fake_begin(&csum_4k);
	model_begin(200, 100, 100);
	while (!ext4_dir_is_indexed(&fake.dir))
		assert_int_equal(model_add(i++), 0);
	assert_int_equal(fake.map_nr, 3);
	p = fake_disk_lblk(0);
	assert_int_equal(dir_rec_len(dir_entry(p, 0), 4096), 12);
	assert_int_equal(dir_rec_len(dir_entry(p, 12), 4096), 4096 - 12);
	assert_int_equal(le32_to_cpu(dir_entry(p, 12)->inode), FAKE_PARENT);
	assert_int_equal(disk_info()->hash_version, DX_HASH_HALF_MD4);
	assert_int_equal(disk_info()->info_length, 8);
	assert_int_equal(disk_info()->indirect_levels, 0);
	check_everything(NULL);
	model_end();
	fake_end();
}

/* The limits that e2fsck wants. */
static void test_limits(void **state)
{
	static const struct {
		const struct fake_config *c;
		u32 root, node;
	} expect[] = {
		{ &csum_4k, 507, 510 },
		{ &plain_4k, 508, 511 },
		{ &csum_1k, 123, 126 },
		{ &plain_1k, 124, 127 },
	};

	for (u32 i = 0; i < ARRAY_SIZE(expect); i++) {
		fake_begin(expect[i].c);
		assert_int_equal(dx_limit(&fake.sbi, DX_ROOT_ENTRIES),
				 expect[i].root);
		assert_int_equal(dx_limit(&fake.sbi, DX_NODE_ENTRIES),
				 expect[i].node);
		fake_end();
	}
}

static void churn(const struct fake_config *c, u32 nr, u32 max_len, u32 steps)
{
	struct ext4_dir_cursor *cur = ext4_dir_cursor_new();

	fake_begin(c);
	model_begin(nr, 8, max_len);
	for (u32 round = 0; round < 3; round++) {
		model_churn(steps, round == 1 ? 30 : 80);
		check_everything(cur);
	}
	assert_true(ext4_dir_is_indexed(&fake.dir));
	model_end();
	fake_end();
	ext4_dir_cursor_free(cur);
}

static void test_churn(void **state)
{
	churn(&csum_1k, 3000, 60, 4000);
	churn(&plain_1k, 3000, 255, 4000);
	churn(&csum_4k, 10000, 60, 8000);
	churn(&plain_4k, 10000, 255, 8000);
}

static void test_churn_large_blocks(void **state)
{
	struct fake_config c = { .blocksize = 65536,
				 .hash_version = DX_HASH_TEA };

	churn(&c, 6000, 60, 2500);
	c.csum = true;
	churn(&c, 6000, 60, 2500);
}

/* Blocks are not always allocated in one piece. */
static void test_single_blocks(void **state)
{
	struct fake_config c = csum_1k;

	fake_begin(&c);
	fake.alloc_single = true;
	model_begin(3000, 40, 200);
	for (u32 i = 0; i < 3000; i++)
		assert_int_equal(model_add(i), 0);
	check_everything(NULL);
	model_end();
	fake_end();
}

static void test_many_names(void **state)
{
	struct ext4_dir_cursor *cur = ext4_dir_cursor_new();

	fake_begin(&csum_4k);
	model_begin(110000, 8, 30);
	for (u32 i = 0; i < model.nr; i++)
		assert_int_equal(model_add(i), 0);
	assert_int_equal(disk_info()->indirect_levels, 1);
	check_everything(cur);
	model_end();
	fake_end();
	ext4_dir_cursor_free(cur);
}

/* Two levels are all there is; the name that does not fit changes nothing. */
static void test_index_full(void **state)
{
	u32 i = 0, size;
	int err;

	fake_begin(&csum_1k);
	model_begin(70000, 255, 255);
	do {
		size = fake.map_nr;
		err = model_add(i++);
	} while (!err);
	assert_int_equal(err, -ENOSPC);
	assert_int_equal(fake.map_nr, size);
	assert_int_equal(disk_info()->indirect_levels, 1);
	assert_true(i > 15000);
	check_everything(NULL);
	model_end();
	fake_end();
}

static void test_three_levels(void **state)
{
	struct fake_config c = csum_1k;
	u32 i = 0;

	c.largedir = true;
	fake_begin(&c);
	model_begin(60000, 255, 255);
	while (i < 40000)
		assert_int_equal(model_add(i++), 0);
	assert_int_equal(disk_info()->indirect_levels, 2);
	check_everything(NULL);
	assert_int_equal(fake.most_dirty, 7);
	model_end();
	fake_end();
}

/* ---- collisions ---- */

static void collide(const struct fake_config *c, u32 mask, u32 minor, u32 nr,
		    u32 max_len)
{
	struct ext4_dir_cursor *cur = ext4_dir_cursor_new();

	major_mask = mask;
	minor_mask = minor;
	fake_begin(c);
	model_begin(nr, 8, max_len);
	for (u32 round = 0; round < 3; round++) {
		model_churn(nr, round == 1 ? 30 : 80);
		check_everything(cur);
	}
	/* A walk that follows the continuation bits finds the same. */
	model_check_list(cur, 1);
	model_check_list(cur, 7);
	model_end();
	fake_end();
	ext4_dir_cursor_free(cur);
	major_mask = minor_mask = ~0u;
}

static void test_equal_hashes(void **state)
{
	collide(&csum_1k, 0xFF000000u, ~0u, 3000, 100);
	collide(&plain_1k, 0xC0000000u, ~0u, 3000, 255);
	collide(&csum_1k, 0, ~0u, 1000, 100);
}

/* Keys of the listing collide too: the cursor knows where it was. */
static void test_equal_keys(void **state)
{
	collide(&csum_1k, 0xF0000000u, 0, 1500, 100);
	collide(&csum_1k, 0, 0, 400, 100);
}

/* More names of one key than a cursor holds. */
static void test_cursor_full_of_one_key(void **state)
{
	struct ext4_dir_cursor *cur = ext4_dir_cursor_new();

	major_mask = 0;
	minor_mask = 0;
	fake_begin(&csum_4k);
	/* Two names a block that collide make long chains: no search here. */
	model_begin(5500, 250, 255);
	for (u32 i = 0; i < model.nr; i++) {
		char name[256];
		struct dir_new_entry ne = { .name = name, .ino = MODEL_INO + i };
		struct dir_new fresh;
		static const struct buffer_type *const leaf[] = { &ext4_dir_leaf_type };

		ne.len = model_name(i, name);
		if (i % 15 == 0) {
			assert_int_equal(dir_grow(&fake.h, &fake.dir, 1, leaf, 0,
						  &fresh),
					 0);
			dir_leaf_init(&fake.sbi, fresh.b[0]->b_data);
			dir_leaf_insert(&fake.sbi, fresh.b[0]->b_data, &ne);
			handle_dirty(&fake.h, fresh.b[0]);
			dir_new_put(&fresh);
			fake_stop(0);
		} else {
			u8 *p = fake_disk_lblk(fake.map_nr - 1);

			dir_leaf_insert(&fake.sbi, p, &ne);
			ext4_dir_leaf_type.freeze(&fake.sbi.s, 0, p,
						  fake.dir.i_csum_seed);
		}
		model.present[i] = 1;
	}
	fake_drop();
	model_check_list(cur, 100);
	model_check_list(cur, 100000);
	model_end();
	fake_end();
	ext4_dir_cursor_free(cur);
	major_mask = minor_mask = ~0u;
}

/* ---- listing while it changes ---- */

static u32 change_low, change_high;

static void change_some(void)
{
	for (u32 k = 0; k < 20; k++) {
		u32 i = change_low + fake_random(change_high - change_low);

		if (model.present[i])
			model_remove(i);
		else
			assert_int_equal(model_add(i), 0);
	}
}

static void test_listing_survives_changes(void **state)
{
	struct ext4_dir_cursor *cur = ext4_dir_cursor_new();

	for (u32 round = 0; round < 4; round++) {
		fake_begin(round & 1 ? &csum_1k : &plain_4k);
		model_begin(6000, 8, 100);
		change_low = 2000;
		change_high = 6000;
		for (u32 i = 0; i < 2000; i++)
			assert_int_equal(model_add(i), 0);
		model_list(round & 2 ? cur : NULL, 1 + fake_random(9),
			   change_some);
		for (u32 i = 0; i < 2000; i++)
			assert_int_equal(model.seen[i], 1);
		for (u32 i = 2000; i < 6000; i++)
			assert_true(model.seen[i] <= 1);
		check_everything(cur);
		model_end();
		fake_end();
	}
	ext4_dir_cursor_free(cur);
}

/* rm -r: what was listed goes at once. */
static void remove_seen(void)
{
	for (u32 i = 0; i < model.nr; i++) {
		if (model.seen[i] && model.present[i])
			model_remove(i);
	}
}

static void test_listing_and_removing_all(void **state)
{
	struct ext4_dir_cursor *cur = ext4_dir_cursor_new();
	bool empty;

	fake_begin(&csum_1k);
	model_begin(1500, 8, 100);
	for (u32 i = 0; i < model.nr; i++)
		assert_int_equal(model_add(i), 0);
	model_list(cur, 13, remove_seen);
	assert_int_equal(model.count, 0);
	assert_int_equal(ext4_dir_is_empty(&fake.dir, &empty), 0);
	assert_true(empty);
	model_end();
	fake_end();
	ext4_dir_cursor_free(cur);
}

/* ---- errors ---- */

static void test_failures_change_nothing(void **state)
{
	static const int errors[] = { -ENOSPC, -EAGAIN, -ENOMEM };

	fake_begin(&csum_1k);
	fake.alloc_single = true;
	model_begin(6000, 200, 255);
	for (u32 i = 0; i < 6000; i++) {
		u32 blocks = fake.map_nr;
		int err;

		fake.alloc_error = errors[i % 3];
		fake.alloc_after = i % 4; /* nothing, part, or all is had */
		if (i % 5 == 0)
			fake.access_after = 1 + i % 7;
		err = model_add(i);
		fake.alloc_error = 0;
		fake.access_after = 0;
		if (!err)
			continue;
		assert_int_equal(fake.map_nr, blocks);
		model_check_one(i);
		assert_int_equal(model_add(i), 0);
	}
	check_everything(NULL);
	model_end();
	fake_end();
}

static void broken_index(const struct fake_config *c, u32 lblk, u32 off, u8 bits)
{
	u32 errors;
	bool empty;

	fake_begin(c);
	model_begin(1100, 12, 255);
	for (u32 i = 0; i < 1000; i++)
		assert_int_equal(model_add(i), 0);
	fake_drop();
	/* A leaf that was changed: its checksum in memory is stale. */
	for (u32 i = 0; i < 20; i++)
		model_remove(i);
	assert_int_equal(ext4_dir_is_empty(&fake.dir, &empty), 0);
	assert_false(empty);
	fake_disk_lblk(lblk)[off] ^= bits;
	/* Only the root is read again; the leaves stay in memory. */
	{
		struct buffer *b = buffer_find(&fake.sbi.s, fake.map[lblk]);

		if (b) {
			buffer_detach(b);
			buffer_put(b);
		}
	}

	model_check_all();
	assert_true(dx_broken(&fake.dir));
	assert_int_equal(fake.errors, 1);
	model_check_list(NULL, 100);
	assert_int_equal(fake_find("..", 2), FAKE_PARENT);
	assert_int_equal(ext4_dir_is_empty(&fake.dir, &empty), 0);
	assert_false(empty);
	fake_drop();
	model_check_all();
	assert_int_equal(fake.errors, 1);

	errors = fake.errors;
	assert_int_equal(fake_add("new", 3, 5), -EFSCORRUPTED);
	assert_int_equal(fake_remove("new", 3, 5), -EFSCORRUPTED);
	assert_int_equal(ext4_dir_set_dotdot(&fake.h, &fake.dir, 9),
			 -EFSCORRUPTED);
	fake_stop(-EFSCORRUPTED);
	assert_int_equal(fake.errors, errors + 3);
	model_end();
	fake_end();
}

static void test_broken_index_is_read_without(void **state)
{
	broken_index(&csum_1k, 0, 28, 8);       /* hash version; checksum */
	broken_index(&csum_4k, 0, 0x20, 1);     /* limit */
	broken_index(&plain_4k, 0, 28, 8);      /* hash version 8 */
	broken_index(&plain_4k, 0, 29, 1);      /* info length */
	broken_index(&plain_4k, 0, 30, 4);      /* levels */
	broken_index(&plain_4k, 0, 0x22, 0xFF); /* count */
	broken_index(&plain_4k, 0, 0x2B, 0xFF); /* order */
	broken_index(&plain_4k, 0, 0x26, 0xFF); /* block outside */
}

static void test_node_errors_name_the_place(void **state)
{
	ino_nr ino;
	u8 ft;

	fake_begin(&csum_1k);
	model_begin(100, 100, 100);
	for (u32 i = 0; i < 50; i++)
		assert_int_equal(model_add(i), 0);
	fake_drop();
	fake_disk_lblk(0)[0x30] ^= 1;
	assert_int_equal(ext4_dir_find(&fake.dir, "x", 1, &ino, &ft), -ENOENT);
	assert_int_equal(fake.errors, 1);
	assert_non_null(strstr(fake.last_error, "directory index root"));
	assert_non_null(strstr(fake.last_error, "lblk 0"));
	model_end();
	fake_end();
}

static void hostile(const struct fake_config *c, u32 nr, u32 rounds)
{
	struct snapshot s;
	u32 flags;

	fake_begin(c);
	model_begin(nr, 8, 255);
	for (u32 i = 0; i < nr; i += 2)
		assert_int_equal(model_add(i), 0);
	flags = fake.dir.vfs.i_flags;
	assert_true(ext4_dir_is_indexed(&fake.dir));
	s = snapshot_take();
	for (u32 round = 0; round < rounds; round++) {
		snapshot_restore(&s, flags);
		hostile_corrupt(1 + fake_random(4));
		if (fake_random(2)) /* aim at the root */
			fake_disk_lblk(0)[24 + fake_random(100)] ^=
				(u8)(1u << fake_random(8));
		hostile_use();
	}
	assert_true(fake.errors > rounds / 4);
	free(s.data);
	model_end();
	fake_end();
}

static void test_hostile_index(void **state)
{
	hostile(&plain_1k, 100, 1500);
	hostile(&plain_4k, 200, 500);
	hostile(&csum_1k, 100, 300);
}

/* Two levels, and many nodes to hit. */
static void test_hostile_deep_index(void **state)
{
	struct fake_config c = plain_1k;
	struct snapshot s;
	u32 flags;

	fake_begin(&c);
	model_begin(900, 255, 255);
	for (u32 i = 0; i < 900; i += 2)
		assert_int_equal(model_add(i), 0);
	flags = fake.dir.vfs.i_flags;
	assert_int_equal(disk_info()->indirect_levels, 1);
	s = snapshot_take();
	for (u32 round = 0; round < 300; round++) {
		snapshot_restore(&s, flags);
		for (u32 lblk = 1; lblk < fake.map_nr; lblk++) {
			u8 *p = fake_disk_lblk(lblk);

			/* Index nodes: entries and counts. */
			if (!le32_to_cpu(dir_entry(p, 0)->inode) && fake_random(2))
				p[8 + fake_random(64)] ^= (u8)(1u << fake_random(8));
		}
		fake_disk_lblk(0)[0x20 + fake_random(32)] ^=
			(u8)(fake_random(3) == 0 ? 1u << fake_random(8) : 0);
		hostile_use();
	}
	free(s.data);
	model_end();
	fake_end();
}

/* ---- readers beside a writer ---- */

static _Atomic bool readers_stop;

#define reader_check(cond)                                                     \
	do {                                                                   \
		if (!(cond)) {                                                 \
			print_error("reader: %s\n", #cond);                    \
			abort();                                               \
		}                                                              \
	} while (0)

static int reader_emit(void *priv, const char *name, u32 len, ino_nr ino,
			     u8 ft, u64 next)
{
	struct lister *l = priv;

	reader_check(len <= 2 || ino - MODEL_INO < change_high);
	reader_check(next >= l->last);
	if (l->taken++ == 50)
		return 1;
	l->last = next;
	return 0;
}

static _Atomic u64 peeks_told; /* that had an answer */

/* Names that stay, then some that come and go: without the lock. */
static void peek_some(u32 i)
{
	ino_nr ino;

	for (u32 k = 0; k < 20; k++, i++) {
		int err = model_peek(i, &ino);

		reader_check(!err || err == -EAGAIN ||
			     (err == -ENOENT && i >= change_low));
		reader_check(err || ino == MODEL_INO + i);
		if (err != -EAGAIN)
			atomic_fetch_add(&peeks_told, 1);
	}
}

static void reader(void *arg)
{
	struct ext4_dir_cursor *cur = ext4_dir_cursor_new();
	char name[256];
	u32 i = 0;

	reader_check(cur);
	while (!atomic_load(&readers_stop)) {
		struct lister l = { 0 };
		u64 pos = 0;
		ino_nr ino;
		u8 ft;
		u32 len = model_name(i, name);

		rwsem_down_read(&fake.dir.vfs.i_rwsem);
		reader_check(!ext4_dir_find(&fake.dir, name, len, &ino, &ft));
		reader_check(ino == MODEL_INO + i);
		rwsem_up_read(&fake.dir.vfs.i_rwsem);
		peek_some(i);
		i = (i + 1) % change_low;
		do {
			l.taken = 0;
			rwsem_down_read(&fake.dir.vfs.i_rwsem);
			reader_check(!ext4_readdir(&fake.dir, cur, &pos,
						   reader_emit, &l));
			rwsem_up_read(&fake.dir.vfs.i_rwsem);
		} while (l.taken > 50);
	}
	ext4_dir_cursor_free(cur);
}

static void test_readers_beside_a_writer(void **state)
{
	struct thread *t[2];

	fake_begin(&csum_1k);
	rwsem_init(&fake.dir.vfs.i_rwsem, RANK_I_RWSEM);
	model_begin(2000, 8, 100);
	change_low = 200;
	change_high = 2000;
	for (u32 i = 0; i < change_low; i++)
		assert_int_equal(model_add(i), 0);
	atomic_store(&readers_stop, false);
	for (u32 i = 0; i < 2; i++)
		assert_int_equal(thread_create(&t[i], "reader", reader, NULL), 0);
	for (u32 k = 0; k < 300; k++) {
		rwsem_down_write(&fake.dir.vfs.i_rwsem);
		change_some();
		rwsem_up_write(&fake.dir.vfs.i_rwsem);
		if (k % 10 == 0)
			fake_drop();
	}
	/* On a busy machine all that may have been before a reader's turn. */
	while (!atomic_load(&peeks_told))
		sched_yield();
	atomic_store(&readers_stop, true);
	for (u32 i = 0; i < 2; i++)
		thread_join(t[i]);
	check_everything(NULL);
	rwsem_destroy(&fake.dir.vfs.i_rwsem);
	model_end();
	fake_end();
}

/* Every name is found, or known not to be there, once all was used twice. */
static void peek_all(const struct fake_config *c, u32 nr)
{
	ino_nr ino;

	fake_begin(c);
	model_begin(nr, 8, 60);
	for (u32 i = 0; i < nr; i += 2)
		assert_int_equal(model_add(i), 0);
	fake_drop();
	assert_int_equal(model_peek(0, &ino), -EAGAIN);
	model_check_all();
	model_check_all();
	for (u32 i = 0; i < nr; i++) {
		assert_int_equal(model_peek(i, &ino), i % 2 ? -ENOENT : 0);
		if (i % 2 == 0)
			assert_int_equal(ino, MODEL_INO + i);
	}
	/* Names too long, too short, of another kind: not here. */
	assert_int_equal(ext4_dir_peek(&fake.dir, "", 0, &ino), -EAGAIN);
	assert_int_equal(ext4_dir_peek(&fake.dir, "..", 2, &ino), -EAGAIN);
	/* Torn down: nothing is believed any more. */
	ext4_dir_peek_end(&fake.dir);
	assert_int_equal(model_peek(0, &ino), -EAGAIN);
	model_end();
	fake_end();
}

static void test_names_without_a_lock(void **state)
{
	peek_all(&csum_4k, 20);   /* one block */
	peek_all(&plain_1k, 60);  /* an index */
	peek_all(&csum_1k, 9000); /* two levels */
	peek_all(&csum_4k, 9000);
}

/*
 * Records as one may see them whose lengths are being changed: nothing behind the
 * block is looked at (as the address sanitizer sees: the next unit is free).
 */
static void test_torn_records_without_a_lock(void **state)
{
	static const u32 lens[] = { 1024 - 12, 1024 - 8, 1024 - 4, 1021, 1023, 13 };
	struct ext4_dir_entry *de;
	struct buffer *b;
	ino_nr ino;
	le16 was;

	fake_begin(&plain_1k);
	model_begin(1, 8, 8);
	assert_int_equal(model_add(0), 0);
	model_check_all();
	model_check_all();
	assert_int_equal(model_peek(0, &ino), 0);
	b = buffer_find(&fake.sbi.s, fake.map[0]);
	assert_non_null(b);
	de = dir_entry(b->b_data, 0);
	was = de->rec_len;
	for (size_t i = 0; i < ARRAY_SIZE(lens); i++) {
		dir_set_rec_len(de, lens[i]);
		assert_int_equal(model_peek(0, &ino), -EAGAIN);
	}
	de->rec_len = was;
	assert_int_equal(model_peek(0, &ino), 0);
	buffer_put(b);
	model_end();
	fake_end();
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_conversion),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_churn),
		cmocka_unit_test(test_churn_large_blocks),
		cmocka_unit_test(test_single_blocks),
		cmocka_unit_test(test_many_names),
		cmocka_unit_test(test_index_full),
		cmocka_unit_test(test_three_levels),
		cmocka_unit_test(test_equal_hashes),
		cmocka_unit_test(test_equal_keys),
		cmocka_unit_test(test_cursor_full_of_one_key),
		cmocka_unit_test(test_listing_survives_changes),
		cmocka_unit_test(test_listing_and_removing_all),
		cmocka_unit_test(test_readers_beside_a_writer),
		cmocka_unit_test(test_names_without_a_lock),
		cmocka_unit_test(test_torn_records_without_a_lock),
		cmocka_unit_test(test_failures_change_nothing),
		cmocka_unit_test(test_broken_index_is_read_without),
		cmocka_unit_test(test_node_errors_name_the_place),
		cmocka_unit_test(test_hostile_index),
		cmocka_unit_test(test_hostile_deep_index),
	};
	int r;

	thread_register();
	r = cmocka_run_group_tests(tests, NULL, NULL);
	thread_unregister();
	return r;
}
