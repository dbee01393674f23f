/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_dir.c - linear directories: entries, growth, listing,
 * errors, hostile blocks
 */
#include "tests/unit/fs/dir_model.h"

static const struct fake_config linear_1k = { .blocksize = 1024, .csum = true,
					      .hash_version = DX_HASH_HALF_MD4,
					      .no_index = true };
static const struct fake_config linear_1k_plain = { .blocksize = 1024,
						    .hash_version = DX_HASH_TEA,
						    .no_index = true };
static const struct fake_config indexed_4k = { .blocksize = 4096, .csum = true,
					       .hash_version = DX_HASH_HALF_MD4 };

static void test_new_directory(void **state)
{
	static const u8 expect[] = {
		FAKE_INO, 0, 0, 0, 12, 0, 1, 2, '.', 0, 0, 0,
		FAKE_PARENT, 0, 0, 0, (1024 - 24) & 0xFF, (1024 - 24) >> 8, 2, 2, '.', '.', 0, 0,
	};
	static const u8 tail[] = { 0, 0, 0, 0, 12, 0, 0, 0xDE };
	le32 csum;
	u8 *p;

	fake_begin(&linear_1k);
	p = fake_disk_lblk(0);
	assert_memory_equal(p, expect, sizeof(expect));
	assert_memory_equal(p + 1012, tail, sizeof(tail));
	memcpy(&csum, p + 1020, 4);
	assert_int_equal(le32_to_cpu(csum),
			 crc32c(fake.dir.i_csum_seed, p, 1012));
	assert_int_equal(fake.dir.vfs.i_size, 1024);
	fake_end();
}

static void test_names(void **state)
{
	ino_nr ino;
	u8 ft;

	fake_begin(&linear_1k);
	assert_int_equal(fake_add("one", 3, 11), 0);
	assert_int_equal(fake_add("two", 3, 12), 0);
	assert_int_equal(fake_add("one", 3, 13), -EEXIST);
	assert_int_equal(fake_add(".", 1, 13), -EEXIST);
	assert_int_equal(fake_add("", 0, 13), -EINVAL);
	assert_int_equal(fake_add("a/b", 3, 13), -EINVAL);
	assert_int_equal(ext4_dir_find(&fake.dir, "one", 3, &ino, &ft), 0);
	assert_int_equal(ino, 11);
	assert_int_equal(ft, EXT4_FT_REG_FILE);
	assert_int_equal(fake_find("on", 2), 0);
	assert_int_equal(fake_find(".", 1), FAKE_INO);
	assert_int_equal(fake_find("..", 2), FAKE_PARENT);
	assert_int_equal(fake_remove("one", 3, 99), -ENOENT);
	assert_int_equal(fake_remove("..", 2, FAKE_PARENT), -EINVAL);
	assert_int_equal(fake_remove("one", 3, 11), 0);
	assert_int_equal(fake_remove("one", 3, 11), -ENOENT);
	assert_int_equal(fake_find("one", 3), 0);
	assert_int_equal(ext4_dir_replace(&fake.h, &fake.dir, "two", 3, 44,
					  EXT4_FT_SYMLINK),
			 0);
	fake_stop(0);
	fake_drop();
	assert_int_equal(ext4_dir_find(&fake.dir, "two", 3, &ino, &ft), 0);
	assert_int_equal(ino, 44);
	assert_int_equal(ft, EXT4_FT_SYMLINK);
	fake_end();
}

/* A place from before another change is not believed. */
static void test_stale_place(void **state)
{
	struct ext4_dir_place place;
	ino_nr ino;
	u8 ft;

	fake_begin(&linear_1k);
	assert_int_equal(ext4_dir_find_place(&fake.dir, "one", 3, &ino, &ft, &place),
			 -ENOENT);
	assert_non_null(place.b);
	assert_false(place.found);
	assert_int_equal(fake_add("two", 3, 12), 0);
	assert_int_equal(ext4_dir_add_place(&fake.h, &fake.dir, &place, "one", 3, 11,
					    EXT4_FT_REG_FILE), 0);
	fake_stop(0);
	ext4_dir_place_put(&place);
	assert_int_equal(fake_find("one", 3), 11);
	assert_int_equal(fake_find("two", 3), 12);

	assert_int_equal(ext4_dir_find_place(&fake.dir, "one", 3, &ino, &ft, &place), 0);
	assert_int_equal(ino, 11);
	assert_true(place.found);
	assert_int_equal(ext4_dir_add_place(&fake.h, &fake.dir, &place, "one", 3, 13,
					    EXT4_FT_REG_FILE), -EEXIST);
	fake_stop(-EEXIST);
	assert_int_equal(fake_remove("one", 3, 11), 0);
	assert_int_equal(ext4_dir_remove_place(&fake.h, &fake.dir, &place, "one", 3,
					       11), -ENOENT);
	fake_stop(-ENOENT);
	ext4_dir_place_put(&place);
	assert_int_equal(fake_find("two", 3), 12);

	/* And one of now, of another inode than the caller's. */
	assert_int_equal(ext4_dir_find_place(&fake.dir, "two", 3, &ino, &ft, &place), 0);
	assert_int_equal(ext4_dir_remove_place(&fake.h, &fake.dir, &place, "two", 3,
					       11), -ENOENT);
	fake_stop(-ENOENT);
	assert_int_equal(ext4_dir_remove_place(&fake.h, &fake.dir, &place, "two", 3,
					       12), 0);
	fake_stop(0);
	ext4_dir_place_put(&place);
	assert_int_equal(fake_find("two", 3), 0);
	fake_end();
}

static void test_dotdot(void **state)
{
	ino_nr parent;

	fake_begin(&linear_1k);
	assert_int_equal(ext4_dir_set_dotdot(&fake.h, &fake.dir, 4321), 0);
	fake_stop(0);
	fake_drop();
	assert_int_equal(ext4_dir_get_dotdot(&fake.dir, &parent), 0);
	assert_int_equal(parent, 4321);
	fake_end();
}

static void test_without_filetype(void **state)
{
	struct fake_config c = linear_1k;
	ino_nr ino;
	u8 ft;

	c.no_filetype = true;
	fake_begin(&c);
	assert_int_equal(fake_add("x", 1, 11), 0);
	assert_int_equal(ext4_dir_find(&fake.dir, "x", 1, &ino, &ft), 0);
	assert_int_equal(ft, EXT4_FT_UNKNOWN);
	assert_int_equal(dir_entry(fake_disk_lblk(0), 24)->file_type, 0);
	fake_end();
}

static void test_is_empty(void **state)
{
	bool empty;

	fake_begin(&linear_1k);
	assert_int_equal(ext4_dir_is_empty(&fake.dir, &empty), 0);
	assert_true(empty);
	model_begin(100, 8, 60);
	for (u32 i = 0; i < 100; i++)
		assert_int_equal(model_add(i), 0);
	for (u32 i = 0; i < 99; i++)
		model_remove(i);
	assert_int_equal(ext4_dir_is_empty(&fake.dir, &empty), 0);
	assert_false(empty);
	model_remove(99);
	assert_int_equal(ext4_dir_is_empty(&fake.dir, &empty), 0);
	assert_true(empty);
	assert_true(fake.map_nr > 3);
	model_end();
	fake_end();
}

/* The first entry of a later block has none before it: it stays, without inode. */
static void test_remove_first_of_block(void **state)
{
	struct ext4_dir_entry *de;
	u32 first;

	fake_begin(&linear_1k);
	model_begin(20, 200, 200);
	for (u32 i = 0; i < 20; i++)
		assert_int_equal(model_add(i), 0);
	de = dir_entry(fake_disk_lblk(1), 0);
	first = le32_to_cpu(de->inode) - MODEL_INO;
	model_remove(first);
	assert_int_equal(le32_to_cpu(de->inode), 0);
	assert_int_equal(dir_rec_len(de, 1024), 208);
	model_check_all();
	assert_int_equal(model_add(first), 0);
	assert_int_equal(le32_to_cpu(dir_entry(fake_disk_lblk(1), 0)->inode),
			 first + MODEL_INO);
	model_end();
	fake_end();
}

/* Slack in pieces too small: the block is compacted rather than extended. */
static void test_compaction(void **state)
{
	char name[256];

	fake_begin(&linear_1k);
	memset(name, 'x', sizeof(name));
	for (char c = 'a'; c < 'a' + 19; c++) {
		name[0] = c;
		assert_int_equal(fake_add(name, 44, 100 + (ino_nr)c), 0);
	}
	assert_int_equal(fake.map_nr, 1);
	for (char c = 'a'; c < 'a' + 19; c += 2) {
		name[0] = c;
		assert_int_equal(fake_remove(name, 44, 100 + (ino_nr)c), 0);
	}
	name[0] = 'Z';
	assert_int_equal(fake_add(name, 255, 5), 0);
	assert_int_equal(fake.map_nr, 1);
	fake_drop();
	assert_int_equal(fake_find(name, 255), 5);
	name[0] = 'b';
	assert_int_equal(fake_find(name, 44), 100 + 'b');
	assert_int_equal(fake_find(".", 1), FAKE_INO);
	fake_end();
}

static void churn(const struct fake_config *c, u32 nr, u32 max_len, u32 steps)
{
	struct ext4_dir_cursor *cur = ext4_dir_cursor_new();

	fake_begin(c);
	model_begin(nr, 8, max_len);
	for (u32 round = 0; round < 3; round++) {
		model_churn(steps, round == 1 ? 20 : 70);
		fake_drop();
		model_check_all();
		model_check_list(cur, 1 + fake_random(50));
		model_check_list(NULL, 100000);
	}
	assert_false(ext4_dir_is_indexed(&fake.dir));
	assert_int_equal(fake.errors, 0);
	model_end();
	fake_end();
	ext4_dir_cursor_free(cur);
}

static void test_churn(void **state)
{
	struct fake_config c64k = { .blocksize = 65536, .no_index = true };

	churn(&linear_1k, 600, 255, 1500);
	churn(&linear_1k_plain, 600, 255, 1500);
	c64k.hash_version = DX_HASH_LEGACY_UNSIGNED;
	churn(&c64k, 2000, 255, 3000);
	c64k.csum = true;
	churn(&c64k, 2000, 255, 3000);
}

/* A record as long as a 64 KiB block does not fit its field. */
static void test_64k_record(void **state)
{
	struct fake_config c = { .blocksize = 65536, .no_index = true };
	u8 block[8] = { 0 };
	struct ext4_dir_entry *de = dir_entry(block, 0);

	dir_set_rec_len(de, 65536);
	assert_int_equal(le16_to_cpu(de->rec_len), 65535);
	assert_int_equal(dir_rec_len(de, 65536), 65536);
	de->rec_len = cpu_to_le16(0);
	assert_int_equal(dir_rec_len(de, 65536), 65536);
	assert_int_equal(dir_rec_len(de, 4096), 0);

	/* A second block that is emptied is one record. */
	fake_begin(&c);
	model_begin(400, 250, 255);
	for (u32 i = 0; i < 400; i++)
		assert_int_equal(model_add(i), 0);
	for (u32 i = 0; i < 400; i++)
		model_remove(i);
	fake_drop();
	model_check_all();
	for (u32 i = 0; i < 400; i++)
		assert_int_equal(model_add(i), 0);
	fake_drop();
	model_check_list(NULL, 1000);
	assert_int_equal(fake.map_nr, 2);
	model_end();
	fake_end();
}

/* Whatever fails, nothing has changed. fake_stop() compares the blocks. */
static void test_failures_change_nothing(void **state)
{
	static const int errors[] = { -ENOSPC, -EAGAIN, -ENOMEM };
	u64 version;
	u32 i = 0;

	fake_begin(&linear_1k);
	model_begin(100, 200, 200);
	for (u32 k = 0; k < ARRAY_SIZE(errors); k++) {
		int err;

		fake.alloc_error = errors[k];
		do {
			fake.alloc_after = 0;
			version = fake.dir.vfs.i_version;
			err = model_add(i++);
		} while (!err);
		assert_int_equal(err, errors[k]);
		assert_int_equal(fake.dir.vfs.i_version, version);
		model_check_all();
		fake.alloc_error = 0;
		assert_int_equal(model_add(i++), 0);
	}
	fake.access_after = 1;
	assert_int_equal(model_add(99), -ENOMEM);
	fake.access_after = 0;
	model_check_list(NULL, 1000);
	model_end();
	fake_end();
}

static void test_size_limit(void **state)
{
	static const struct buffer_type *const leaf[] = { &ext4_dir_leaf_type };
	struct dir_new fresh;
	u64 size;

	fake_begin(&indexed_4k);
	size = fake.dir.vfs.i_size;
	fake.dir.vfs.i_size = 0x80000000u - 4096;
	assert_int_equal(dir_grow(&fake.h, &fake.dir, 1, leaf, 0, &fresh),
			 -ENOSPC);
	fake.dir.vfs.i_size = size;
	fake_end();
}

static void test_impossible_size(void **state)
{
	bool empty;

	fake_begin(&linear_1k);
	fake.dir.vfs.i_size = 1000;
	assert_int_equal(ext4_dir_is_empty(&fake.dir, &empty), -EFSCORRUPTED);
	fake.dir.vfs.i_size = 0;
	assert_int_equal(ext4_dir_is_empty(&fake.dir, &empty), -EFSCORRUPTED);
	fake.dir.vfs.i_size = 2048; /* a hole */
	assert_int_equal(ext4_dir_is_empty(&fake.dir, &empty), -EFSCORRUPTED);
	assert_int_equal(fake.errors, 3);
	fake.dir.vfs.i_size = 1024;
	fake_end();
}

static void test_read_errors_are_told(void **state)
{
	ino_nr ino;
	u8 ft;

	fake_begin(&linear_1k);
	fake_drop();
	fake.bad_pblk = fake.map[0];
	assert_int_equal(ext4_dir_find(&fake.dir, "x", 1, &ino, &ft), -EIO);
	assert_int_equal(fake.errors, 1);
	fake.bad_pblk = 0;

	fake_disk_lblk(0)[100] ^= 1;
	assert_int_equal(ext4_dir_find(&fake.dir, "x", 1, &ino, &ft), -EFSBADCRC);
	assert_int_equal(fake.errors, 2);
	assert_non_null(strstr(fake.last_error, "wrong checksum"));
	fake_disk_lblk(0)[100] ^= 1;
	assert_int_equal(ext4_dir_find(&fake.dir, "x", 1, &ino, &ft), -ENOENT);
	fake_end();
}

/* Each thing that verify() has to find, in a block of its own. */
static void test_bad_entries(void **state)
{
	static const struct {
		u32 off;
		u8 value;
		const char *why;
	} bad[] = {
		{ 24 + 4, 6, "too small" },
		{ 24 + 4, 18, "multiple of 4" },
		{ 24 + 5, 0x40, "crosses the end" },
		{ 24 + 6, 200, "longer than its record" },
		{ 24 + 3, 0xFF, "out of range" },
		{ 24 + 6, 0, "empty" },
		{ 24 + 8, 0, "NUL" },
		{ 24 + 8, '/', "slash" },
	};

	for (u32 i = 0; i < ARRAY_SIZE(bad); i++) {
		u8 *p;

		fake_begin(&linear_1k_plain);
		assert_int_equal(fake_add("victim", 6, 50), 0);
		assert_int_equal(fake_add("other", 5, 51), 0);
		fake_drop();
		p = fake_disk_lblk(0);
		p[bad[i].off] = bad[i].value;
		assert_int_equal(fake_add("new", 3, 52), -EFSCORRUPTED);
		if (!strstr(fake.last_error, bad[i].why))
			fail_msg("%u: %s", i, fake.last_error);
		assert_non_null(strstr(fake.last_error, "offset 24"));
		assert_int_equal(fake.errors, 1);
		fake_end();
	}
}

static void test_hostile_blocks(void **state)
{
	struct snapshot s;

	fake_begin(&linear_1k_plain);
	model_begin(60, 8, 200);
	for (u32 i = 0; i < 60; i += 2)
		assert_int_equal(model_add(i), 0);
	s = snapshot_take();
	for (u32 round = 0; round < 2000; round++) {
		snapshot_restore(&s, 0);
		hostile_corrupt(1 + fake_random(4));
		hostile_use();
	}
	assert_true(fake.errors > 100);
	free(s.data);
	model_end();
	fake_end();
}

/* ---- listings while the directory changes ---- */

static u32 change_low, change_high; /* names that come and go */

static void change_some(void)
{
	for (u32 k = 0; k < 3; k++) {
		u32 i = change_low + fake_random(change_high - change_low);

		if (model.present[i])
			model_remove(i);
		else
			assert_int_equal(model_add(i), 0);
	}
}

static void check_stable_names(void)
{
	for (u32 i = 0; i < change_low; i++)
		assert_int_equal(model.seen[i], 1);
	for (u32 i = change_low; i < change_high; i++)
		assert_true(model.seen[i] <= 1);
}

static void test_listing_survives_changes(void **state)
{
	struct ext4_dir_cursor *cur = ext4_dir_cursor_new();

	for (u32 with_cursor = 0; with_cursor < 2; with_cursor++) {
		fake_begin(&linear_1k);
		model_begin(200, 8, 100);
		change_low = 100;
		change_high = 200;
		for (u32 i = 0; i < 100; i++)
			assert_int_equal(model_add(i), 0);
		for (u32 round = 0; round < 5; round++) {
			model_list(with_cursor ? cur : NULL, 1 + fake_random(9),
				   change_some);
			check_stable_names();
		}
		model_end();
		fake_end();
	}
	ext4_dir_cursor_free(cur);
}

static void add_more(void)
{
	for (u32 k = 0; k < 10 && change_low < change_high; k++)
		assert_int_equal(model_add(change_low++), 0);
}

/* From one block through the conversion into an index. */
static void test_listing_survives_conversion(void **state)
{
	struct ext4_dir_cursor *cur = ext4_dir_cursor_new();
	struct fake_config c = indexed_4k;

	for (c.hash_version = 0; c.hash_version < 6; c.hash_version++) {
		fake_begin(&c);
		model_begin(2000, 20, 40);
		for (u32 i = 0; i < 60; i++)
			assert_int_equal(model_add(i), 0);
		assert_false(ext4_dir_is_indexed(&fake.dir));
		change_low = 60;
		change_high = 2000;
		model_list(cur, 3, add_more);
		assert_true(ext4_dir_is_indexed(&fake.dir));
		for (u32 i = 0; i < 60; i++)
			assert_int_equal(model.seen[i], 1);
		model_check_list(cur, 7);
		model_end();
		fake_end();
	}
	ext4_dir_cursor_free(cur);
}

/* Any cookie given out continues after its name, whatever was read since. */
struct seeker {
	u64 cookie[300];
	ino_nr ino[300];
	u32 nr, stop_after;
};

static int seeker_emit(void *priv, const char *name, u32 len, ino_nr ino, u8 ft,
		       u64 next)
{
	struct seeker *s = priv;

	if (s->nr == s->stop_after)
		return 1;
	s->cookie[s->nr] = next;
	s->ino[s->nr++] = ino;
	return 0;
}

static void test_seeking(void **state)
{
	struct ext4_dir_cursor *cur = ext4_dir_cursor_new();
	struct seeker all = { .stop_after = 300 };
	u64 pos = 0;

	fake_begin(&linear_1k);
	model_begin(200, 8, 100);
	for (u32 i = 0; i < 200; i++)
		assert_int_equal(model_add(i), 0);
	assert_int_equal(ext4_readdir(&fake.dir, cur, &pos, seeker_emit, &all), 0);
	assert_int_equal(all.nr, 202);
	for (u32 k = 0; k < 500; k++) {
		u32 at = fake_random(201);
		struct seeker one = { .stop_after = 1 };

		pos = all.cookie[at];
		assert_int_equal(ext4_readdir(&fake.dir, cur, &pos, seeker_emit,
					      &one),
				 0);
		assert_int_equal(one.ino[0], all.ino[at + 1]);
		assert_int_equal(pos, at + 1 < 201 ? all.cookie[at + 1] :
						     (u64)INT64_MAX);
	}
	pos = INT64_MAX;
	all.nr = 0;
	assert_int_equal(ext4_readdir(&fake.dir, cur, &pos, seeker_emit, &all), 0);
	assert_int_equal(all.nr, 0);
	model_end();
	fake_end();
	ext4_dir_cursor_free(cur);
}

/* More names than a cursor holds: read in several passes. */
static void test_large_linear_listing(void **state)
{
	struct fake_config c = { .blocksize = 4096, .no_index = true,
				 .hash_version = DX_HASH_HALF_MD4 };
	struct ext4_dir_cursor *cur = ext4_dir_cursor_new();

	fake_begin(&c);
	model_begin(40000, 8, 12);
	/* A linear insertion looks at everything: build the blocks by hand. */
	for (u32 i = 0; i < model.nr; i++) {
		char name[256];
		u32 len = model_name(i, name), at = i % 200;
		struct ext4_map map = { .lblk = fake.map_nr, .len = 1 };
		struct ext4_dir_entry *de;

		if (at == 0)
			assert_int_equal(ext4_map_create(&fake.h, &fake.dir,
							 &map, 0),
					 0);
		de = dir_entry(fake_disk_lblk(fake.map_nr - 1), at * 20);
		de->inode = cpu_to_le32(MODEL_INO + i);
		de->name_len = (u8)len;
		memcpy(de->name, name, len);
		dir_set_rec_len(de, at == 199 ? 4096 - 199 * 20 : 20);
		model.present[i] = 1;
	}
	fake.dir.vfs.i_size = (u64)fake.map_nr * 4096;
	model_check_list(cur, 1000);
	model_check_list(NULL, 100000);
	model_end();
	fake_end();
	ext4_dir_cursor_free(cur);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_new_directory),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_stale_place),
		cmocka_unit_test(test_dotdot),
		cmocka_unit_test(test_without_filetype),
		cmocka_unit_test(test_is_empty),
		cmocka_unit_test(test_remove_first_of_block),
		cmocka_unit_test(test_compaction),
		cmocka_unit_test(test_churn),
		cmocka_unit_test(test_64k_record),
		cmocka_unit_test(test_failures_change_nothing),
		cmocka_unit_test(test_size_limit),
		cmocka_unit_test(test_impossible_size),
		cmocka_unit_test(test_read_errors_are_told),
		cmocka_unit_test(test_bad_entries),
		cmocka_unit_test(test_hostile_blocks),
		cmocka_unit_test(test_listing_survives_changes),
		cmocka_unit_test(test_listing_survives_conversion),
		cmocka_unit_test(test_seeking),
		cmocka_unit_test(test_large_linear_listing),
	};
	int r;

	thread_register();
	r = cmocka_run_group_tests(tests, NULL, NULL);
	thread_unregister();
	return r;
}
