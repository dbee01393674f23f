/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_indirect.c - block maps of ext2 and ext3
 *
 * Maps are written to the device by hand, block by block, from a table of
 * (block of the file -> block of the volume); the table is the model. What the map
 * gets by itself is entered there, too.
 */
#include "tests/unit/fs/fake_fs.h"

#include "fs/extents_internal.h"

#define BS 1024u
#define PER (BS / 4)
#define MAX_ENTRIES 4000u

static struct { u64 lblk; pblk_t pblk; } model[MAX_ENTRIES];
static u32 nr_model;

static void put32(u8 *p, u32 v)
{
	for (u32 i = 0; i < 4; i++)
		p[i] = (u8)(v >> (8 * i));
}
static u32 get32(const u8 *p)
{
	return p[0] | (u32)p[1] << 8 | (u32)p[2] << 16 | (u32)p[3] << 24;
}

/* The number at slot i of d, made if it is 0. */
static pblk_t number(u8 *d, u32 i)
{
	if (!get32(d + 4 * i)) {
		put32(d + 4 * i, (u32)fake_take_block());
		fake.inode_blocks++;
	}
	return get32(d + 4 * i);
}

static void map_block(u64 lblk)
{
	u64 off = lblk, span = 1;
	u32 slot = 12, levels = 1;
	pblk_t blk;

	if (off < 12) {
		blk = number(fake.ei.i_block, (u32)off);
	} else {
		off -= 12;
		for (span = PER; off >= span; span *= PER, slot++, levels++)
			off -= span;
		blk = number(fake.ei.i_block, slot);
		while (levels--) {
			span /= PER;
			blk = number(fake_block(blk), (u32)(off / span));
			off %= span;
		}
	}
	model[nr_model].lblk = lblk;
	model[nr_model++].pblk = blk;
}

static pblk_t model_at(u64 lblk)
{
	for (u32 i = 0; i < nr_model; i++)
		if (model[i].lblk == lblk)
			return model[i].pblk;
	return 0;
}

static u64 model_next(u64 lblk)
{
	u64 next = UINT64_MAX;

	for (u32 i = 0; i < nr_model; i++)
		if (model[i].lblk >= lblk)
			next = min_of(next, model[i].lblk);
	return next;
}

static void begin(void)
{
	nr_model = 0;
	fake_open(BS, 20000, 512, false, false);
}

/* Runs in every part of the map, with gaps between. */
static void build(void)
{
	static const struct { u64 at; u32 len; } run[] = {
		{ 0, 5 }, { 7, 30 }, { 200, 80 }, { 12 + PER - 3, 6 }, { 1000, 300 },
		{ 12 + PER + PER * PER - 10, 20 }, { 100000, 100 }, { 5000000, 50 },
		{ 12 + PER + PER * PER + (u64)PER * PER * PER - 7, 7 },
	};

	begin();
	for (u32 i = 0; i < sizeof(run) / sizeof(run[0]); i++)
		for (u32 k = 0; k < run[i].len; k++)
			map_block(run[i].at + k);
	assert_int_equal(fake_used(), fake.inode_blocks);
}

static void end(void)
{
	assert_int_equal(fake.nr_errors, 0);
	fake_close();
}

static void check_lookup(lblk_t lblk, u32 len)
{
	struct ext4_map map = { .lblk = lblk, .len = len };

	assert_int_equal(ext4_map_blocks(&fake.ei, &map), 0);
	assert_true(map.len > 0 && map.len <= len);
	assert_int_equal(map.pblk, model_at(lblk));
	assert_int_equal(map.flags, map.pblk ? EXT4_MAP_MAPPED : 0);
	if (!map.pblk)
		assert_true(model_next(lblk) >= (u64)lblk + map.len);
	for (u32 i = 0; map.pblk && i < map.len; i++)
		assert_int_equal(model_at(lblk + i), map.pblk + i);
}

static void check_all(void)
{
	for (u32 i = 0; i < nr_model; i++) {
		check_lookup((lblk_t)model[i].lblk, 1 + fake_rand(50));
		check_lookup((lblk_t)(model[i].lblk + fake_rand(100)), 1 + fake_rand(50));
	}
}

static int remove_range(u64 start, u64 to, bool forget)
{
	struct handle *h = fake_start(ext4_remove_credits(&fake.ei), 0);
	int err = ext4_remove_blocks(h, &fake.ei, (lblk_t)start, to, forget);

	for (u32 i = 0; !err && i < nr_model;) {
		if (model[i].lblk >= start && model[i].lblk < to)
			model[i] = model[--nr_model];
		else
			i++;
	}
	fake_stop(h);
	return err;
}

static void test_lookup_finds_every_block(void **state)
{
	build();
	check_all();
	fake_drop();
	check_all();
	end();
}

static void test_lookup_passes_a_huge_hole_in_few_steps(void **state)
{
	u64 at = 0;
	u32 steps = 0;

	begin();
	map_block(16000000);
	while (at < 16000000) {
		struct ext4_map map = { .lblk = (lblk_t)at, .len = 0x7FFFFFFF };

		assert_int_equal(ext4_map_blocks(&fake.ei, &map), 0);
		assert_int_equal(map.flags, 0);
		at += map.len;
		steps++;
	}
	assert_int_equal(at, 16000000);
	assert_true(steps < 3 * PER);
	/* Beyond all that a map can hold: one hole. */
	struct ext4_map map = { .lblk = 0xF0000000, .len = 77 };
	assert_int_equal(ext4_map_blocks(&fake.ei, &map), 0);
	assert_int_equal(map.len, 77);
	assert_int_equal(map.flags, 0);
	end();
}

/* What is missing of [at, at+len), by as many calls as it takes; one error ends it. */
static int create_range(u64 at, u32 len)
{
	int err = 0;

	while (len && !err) {
		struct handle *h = fake_start(ext4_ext_insert_credits(&fake.ei, 1), 0);
		struct ext4_map map = { .lblk = (lblk_t)at, .len = len };

		err = ext4_map_create(h, &fake.ei, &map, 0);
		if (!err) {
			assert_true(map.flags & EXT4_MAP_MAPPED);
			assert_true(map.len && map.len <= len);
			assert_int_equal(ext4_mark_inode_dirty(h, &fake.ei), 0);
			for (u32 i = 0; i < map.len && map.flags & EXT4_MAP_NEW; i++) {
				assert_true(nr_model < MAX_ENTRIES);
				assert_int_equal(model_at(at + i), 0);
				model[nr_model].lblk = at + i;
				model[nr_model++].pblk = map.pblk + i;
			}
			for (u32 i = 0; i < map.len; i++)
				assert_int_equal(model_at(at + i), map.pblk + i);
			at += map.len;
			len -= map.len;
		}
		fake_stop(h);
	}
	return err;
}

static const u64 part[] = { 0, 8, 12, 12 + PER - 3, 1000, 12 + PER + PER * PER - 10, 100000,
			    5000000, 12 + PER + PER * PER + (u64)PER * PER * PER - 20 };

static void test_blocks_in_every_part(void **state)
{
	for (u32 scatter = 0; scatter < 2; scatter++) {
		begin();
		fake.scatter = scatter;
		for (u32 i = 0; i < ARRAY_SIZE(part); i++) {
			assert_int_equal(create_range(part[i], 20), 0);
			assert_int_equal(fake_used(), fake.inode_blocks);
		}
		check_all();
		fake_drop();
		check_all();
		for (u32 i = 0; i < ARRAY_SIZE(part); i++) /* the holes between */
			assert_int_equal(create_range(part[i] - min_of(part[i], (u64)5), 25), 0);
		check_all();
		assert_int_equal(fake_used(), fake.inode_blocks);
		assert_int_equal(remove_range(0, (u64)LBLK_MAX + 1, false), 0);
		assert_int_equal(fake_used(), 0);
		end();
	}
}

static void test_a_file_from_start_to_end_is_one_run(void **state)
{
	begin();
	assert_int_equal(create_range(0, 12), 0);
	for (u32 i = 0; i < 3; i++)
		assert_int_equal(create_range(12 + i * 100, 100), 0);
	for (u32 i = 1; i < nr_model; i++)
		if (model[i].lblk != 12 && model[i].lblk != 12 + PER)
			assert_int_equal(model[i].pblk, model[i - 1].pblk + 1);
	/* The first behind its indirect block, which is behind what was before. */
	assert_int_equal(model_at(12), model_at(11) + 2);
	end();
}

static void test_creating_and_punching_at_random(void **state)
{
	for (u32 round = 0; round < 20; round++) {
		begin();
		fake.scatter = round & 1;
		fake.max_run = 1 + fake_rand(60);
		for (u32 i = 0; i < 60; i++) {
			u64 at = part[fake_rand(ARRAY_SIZE(part))];
			u64 from = at - min_of(at, (u64)fake_rand(30));

			if (fake_rand(3)) {
				fake.restart_every = 0;
				assert_int_equal(create_range(from, 1 + fake_rand(20)), 0);
			} else {
				fake.restart_every = 2 + fake_rand(9);
				assert_int_equal(remove_range(from, from + 1 + fake_rand(60),
							      fake_rand(2)), 0);
			}
			assert_int_equal(fake_used(), fake.inode_blocks);
			if (i % 7 == 0)
				fake_drop();
		}
		check_all();
		fake.restart_every = 0;
		assert_int_equal(remove_range(0, (u64)LBLK_MAX + 1, false), 0);
		assert_int_equal(fake_used(), 0);
		end();
	}
}

/* Wherever it fails, nothing has changed; and then it goes. */
static void test_failures_leave_the_map_as_it_was(void **state)
{
	static const int with[] = { -ENOSPC, -EAGAIN, -ENOMEM };
	u8 before[EXT4_I_BLOCK_BYTES];

	for (u32 k = 0; k < ARRAY_SIZE(with); k++) {
		begin();
		assert_int_equal(create_range(5000000, 3), 0);
		for (u32 nth = 0; nth < 4; nth++) {
			u64 at = 12 + PER + (nth & 1 ? PER * PER + 1000 * nth * PER : 300 * nth);
			u32 used = fake_used();
			int err;

			memcpy(before, fake.ei.i_block, sizeof(before));
			fake.fail_alloc_with = with[k];
			*(with[k] == -ENOMEM ? &fake.fail_access : &fake.fail_alloc) = nth / 2;
			err = create_range(at, 5);
			assert_int_equal(err, with[k]);
			assert_memory_equal(fake.ei.i_block, before, sizeof(before));
			assert_int_equal(fake_used(), used);
			assert_int_equal(fake_used(), fake.inode_blocks);
			check_lookup((lblk_t)at, 5);
			fake_commit();
			assert_int_equal(create_range(at, 5), 0);
		}
		check_all();
		assert_int_equal(fake_used(), fake.inode_blocks);
		end();
	}
}

static void test_what_a_block_map_cannot_do(void **state)
{
	struct handle *h;
	struct ext4_map map = { .lblk = 8, .len = 3 };

	build();
	h = fake_start(100, 10);
	assert_int_equal(ext4_map_create(h, &fake.ei, &map, EXT4_CREATE_UNWRITTEN), 0);
	assert_int_equal(map.flags, EXT4_MAP_MAPPED);
	map = (struct ext4_map){ .lblk = 5, .len = 1 };
	assert_int_equal(ext4_map_create(h, &fake.ei, &map, EXT4_CREATE_UNWRITTEN), -EOPNOTSUPP);
	map = (struct ext4_map){ .lblk = 0xF0000000, .len = 1 };
	assert_int_equal(ext4_map_create(h, &fake.ei, &map, 0), -EFBIG);
	assert_int_equal(ext4_ext_convert_written(h, &fake.ei, 0, 5), 0);
	fake_stop(h);
	end();
}

/* Data for block 500 is on its way. */
static void test_an_indirect_block_that_is_wanted_stays(void **state)
{
	struct ext4_inode *ei = &fake.ei;
	struct ind_slot slot;
	struct handle *h;
	pblk_t pblk;
	bool exists;
	u32 n = 50;

	begin();
	assert_int_equal(create_range(600, 4), 0);
	assert_int_equal(remove_range(600, 604, false), 0);
	assert_int_equal(fake_used(), 0);

	assert_int_equal(create_range(510, 4), 0);
	h = fake_start(IND_STEP_CREDITS, 0);
	rwsem_down_write(&ei->i_data_sem);
	assert_int_equal(ind_exists(ei, 12 + PER + 600 * PER, &n, &exists), 0);
	assert_false(exists);
	assert_int_equal(ind_make(h, ei, 12 + PER + 600 * PER - PER * PER, 0), 0);
	assert_int_equal(ind_exists(ei, 500, &n, &exists), 0);
	assert_true(exists);
	assert_int_equal(n, 24); /* where the array ends */
	rwsem_up_write(&ei->i_data_sem);
	fake_stop(h);
	assert_int_equal(fake_used(), fake.inode_blocks);

	fake.dirty_from = 500;
	fake.dirty_to = 503;
	assert_int_equal(remove_range(510, (u64)LBLK_MAX + 1, false), 0);
	assert_int_equal(fake_used(), 2); /* of two levels; the other two have gone */
	n = 3;
	h = fake_start(IND_STEP_CREDITS + 4, 0);
	rwsem_down_write(&ei->i_data_sem);
	assert_int_equal(ind_take(h, ei, 500, 0, &n, &pblk, &slot), 0);
	assert_int_equal(n, 3);
	rwsem_up_write(&ei->i_data_sem);
	check_lookup(500, 3); /* a hole still */
	rwsem_down_write(&ei->i_data_sem);
	assert_int_equal(ind_enter(h, ei, &slot, pblk, n), 0);
	/* Twice: by a map that leads to the same entries in two ways. */
	assert_int_equal(ind_enter(h, ei, &slot, pblk, n), -EFSCORRUPTED);
	rwsem_up_write(&ei->i_data_sem);
	ind_slot_put(&slot);
	fake_stop(h);
	fake.dirty_from = fake.dirty_to = 0;
	for (u32 i = 0; i < n; i++) {
		model[nr_model].lblk = 500 + i;
		model[nr_model++].pblk = pblk + i;
	}
	check_all();
	fake.nr_errors--;
	assert_int_equal(remove_range(0, (u64)LBLK_MAX + 1, false), 0);
	assert_int_equal(fake_used(), 0);
	end();
}

static void test_delete_frees_everything(void **state)
{
	static const u8 zeroes[EXT4_I_BLOCK_BYTES];

	for (u32 forget = 0; forget < 2; forget++) {
		build();
		assert_int_equal(remove_range(0, (u64)LBLK_MAX + 1, forget), 0);
		assert_int_equal(fake_used(), 0);
		assert_int_equal(fake.inode_blocks, 0);
		assert_memory_equal(fake.ei.i_block, zeroes, sizeof(zeroes));
		end();
	}
}

static void test_truncate_at_each_edge(void **state)
{
	static const u64 at[] = { 1, 6, 12, 13, 12 + PER - 1, 12 + PER, 12 + PER + 1, 1100,
				  12 + PER + PER * PER, 100050, 5000001, 16000000 };

	for (u32 i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
		build();
		fake.restart_every = 7;
		assert_int_equal(remove_range(at[i], (u64)LBLK_MAX + 1, false), 0);
		assert_true(fake.nr_restarts > 0 || at[i] > 5000000);
		fake.restart_every = 0;
		check_all();
		assert_int_equal(fake_used(), fake.inode_blocks);
		assert_int_equal(remove_range(0, (u64)LBLK_MAX + 1, false), 0);
		assert_int_equal(fake_used(), 0);
		end();
	}
}

static void test_punching_at_random(void **state)
{
	for (u32 round = 0; round < 20; round++) {
		build();
		fake.restart_every = 5 + fake_rand(20);
		for (u32 i = 0; i < 30 && nr_model; i++) {
			u64 from = model[fake_rand(nr_model)].lblk;
			u64 to = from + 1 + fake_rand(fake_rand(4) ? 40 : 200000);

			assert_int_equal(remove_range(from - min_of(from, (u64)fake_rand(9)),
						      to, fake_rand(2)), 0);
			assert_int_equal(fake_used(), fake.inode_blocks);
			if (i % 8 == 0)
				fake_drop();
		}
		check_all();
		fake.restart_every = 0;
		assert_int_equal(remove_range(0, (u64)LBLK_MAX + 1, false), 0);
		assert_int_equal(fake_used(), 0);
		end();
	}
}

static void test_failed_access_keeps_the_rest(void **state)
{
	u32 tries = 0;

	build();
	for (;; tries++) {
		int err;

		fake.fail_access = tries % 4;
		err = remove_range(0, (u64)LBLK_MAX + 1, false);
		assert_int_equal(fake_used(), fake.inode_blocks);
		if (!err)
			break;
		assert_int_equal(err, -ENOMEM);
	}
	assert_true(tries > 0);
	assert_int_equal(fake_used(), 0);
	end();
}

static void test_an_empty_indirect_block_is_freed(void **state)
{
	begin();
	map_block(20);
	number(fake_block(number(fake.ei.i_block, 13)), 5); /* nothing below it */
	assert_int_equal(remove_range(0, (u64)LBLK_MAX + 1, false), 0);
	assert_int_equal(fake_used(), 0);
	end();
}

static void test_block_that_points_to_itself(void **state)
{
	for (u32 slot = 12; slot < 15; slot++) {
		u8 *d;
		pblk_t blk;

		begin();
		blk = number(fake.ei.i_block, slot);
		d = fake_block(blk);
		for (u32 i = 0; i < PER; i++)
			put32(d + 4 * i, (u32)blk);
		for (u32 i = 0; i < 100; i++) {
			struct ext4_map map = { .lblk = fake_rand(17000000), .len = 9 };

			assert_int_equal(ext4_map_blocks(&fake.ei, &map), 0);
		}
		for (u32 i = 0; slot > 12 && i < PER; i += 50)
			put32(d + 4 * i, 0);
		for (u32 i = 0; slot > 12 && i < 50; i++) {
			struct handle *h = fake_start(50, 0);
			struct ext4_map map = { .lblk = 12 + PER + fake_rand(PER * PER),
						.len = 9 };

			if (slot == 14)
				map.lblk += PER * PER;
			(void)!ext4_map_create(h, &fake.ei, &map, 0);
			fake_stop(h);
		}
		assert_int_equal(remove_range(0, (u64)LBLK_MAX + 1, false), -EFSCORRUPTED);
		assert_true(fake.nr_errors > 0);
		memset(fake.state, FAKE_USED, fake.nr_blocks);
		fake.state[blk] = FAKE_USED; /* the commit wants sound buffers only */
		fake_close();
	}
}

static void test_numbers_outside_the_volume(void **state)
{
	static const u32 bad[] = { 20000, 0xFFFFFFFF };
	u8 *d;

	for (u32 i = 0; i < 2; i++) {
		struct ext4_map map = { .lblk = 3, .len = 2 };

		begin();
		put32(fake.ei.i_block + 12, bad[i]);
		assert_int_equal(ext4_map_blocks(&fake.ei, &map), -EFSCORRUPTED);
		assert_int_equal(remove_range(0, 12, false), -EFSCORRUPTED);
		put32(fake.ei.i_block + 12, 0);

		put32(fake.ei.i_block + 4 * 14, bad[i]);
		map = (struct ext4_map){ .lblk = 100000, .len = 2 };
		assert_int_equal(ext4_map_blocks(&fake.ei, &map), -EFSCORRUPTED);
		assert_int_equal(remove_range(0, LBLK_MAX, false), -EFSCORRUPTED);
		put32(fake.ei.i_block + 4 * 14, 0);

		d = fake_block(number(fake.ei.i_block, 12));
		put32(d + 4 * 77, bad[i]);
		map = (struct ext4_map){ .lblk = 13, .len = 2 };
		assert_int_equal(ext4_map_blocks(&fake.ei, &map), -EFSCORRUPTED);
		assert_int_equal(remove_range(0, LBLK_MAX, false), -EFSCORRUPTED);
		assert_int_equal(fake.nr_errors, 6);
		fake_close();
	}
}

static void test_garbage(void **state)
{
	for (u32 round = 0; round < 60; round++) {
		build();
		for (u32 i = 0; i < 20; i++) {
			pblk_t blk = 1 + fake_rand((u32)fake.next);
			u8 *d = fake_rand(10) ? fake_block(blk) : fake.ei.i_block;

			put32(d + 4 * fake_rand(15), fake_rand(3) ? fake_rand(20000)
								  : fake_rand(0x7FFFFFFF));
		}
		for (u32 i = 0; i < 100; i++) {
			struct ext4_map map = { .lblk = fake_rand(17000000),
						.len = 1 + fake_rand(100) };

			if (fake_rand(2)) {
				(void)!ext4_map_blocks(&fake.ei, &map);
			} else {
				struct handle *h = fake_start(50, 0);

				(void)!ext4_map_create(h, &fake.ei, &map, 0);
				fake_stop(h);
			}
		}
		(void)!remove_range(0, (u64)LBLK_MAX + 1, fake_rand(2));
		memset(fake.state, FAKE_USED, fake.nr_blocks);
		fake_close();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lookup_finds_every_block),
		cmocka_unit_test(test_lookup_passes_a_huge_hole_in_few_steps),
		cmocka_unit_test(test_blocks_in_every_part),
		cmocka_unit_test(test_a_file_from_start_to_end_is_one_run),
		cmocka_unit_test(test_creating_and_punching_at_random),
		cmocka_unit_test(test_failures_leave_the_map_as_it_was),
		cmocka_unit_test(test_what_a_block_map_cannot_do),
		cmocka_unit_test(test_an_indirect_block_that_is_wanted_stays),
		cmocka_unit_test(test_delete_frees_everything),
		cmocka_unit_test(test_truncate_at_each_edge),
		cmocka_unit_test(test_punching_at_random),
		cmocka_unit_test(test_failed_access_keeps_the_rest),
		cmocka_unit_test(test_an_empty_indirect_block_is_freed),
		cmocka_unit_test(test_block_that_points_to_itself),
		cmocka_unit_test(test_numbers_outside_the_volume),
		cmocka_unit_test(test_garbage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
