/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_extents.c - extent trees against a flat model
 *
 * The model is an array: block of the file -> block of the volume and state.
 * check_tree() reads the tree by its own decoder, and wants of it: keys equal
 * to first keys, order, lengths, one depth, no empty node, i_blocks, every
 * block once and marked in use, no other block in use, and the model's content.
 */
#include "tests/unit/fs/fake_fs.h"

#include "fs/extents_internal.h"
#include "lib/crc.h"
#include "lib/thread.h"
#include <stdatomic.h>
#include <stdio.h>

#define MODEL_MAX 200000u
#define LIMIT_NONE (1u << 20)

static struct model {
	u64 pblk[MODEL_MAX]; /* 0: hole */
	u8 unwritten[MODEL_MAX];
	u32 nr;              /* blocks that check_restart() follows */
	u32 top;             /* none is mapped from here on */
} m;

/* ---- the checker ---- */

struct tree_stats {
	u32 depth, extents, nodes, entries, capacity; /* of leaves other than the root */
};

struct check {
	struct tree_stats st;
	u8 *seen;   /* per block of the volume */
	u64 next;   /* first block of the file not yet seen */
	u64 data;
};

static u32 get16(const u8 *p)
{
	return p[0] | (u32)p[1] << 8;
}
static u32 get32(const u8 *p)
{
	return get16(p) | get16(p + 2) << 16;
}

static void check_block_use(struct check *c, pblk_t blk)
{
	assert_true(blk > 0 && blk < fake.nr_blocks);
	assert_int_equal(fake.state[blk], FAKE_USED);
	assert_false(c->seen[blk]);
	c->seen[blk] = 1;
}

static void check_extent(struct check *c, const u8 *e)
{
	u32 lblk = get32(e), raw = get16(e + 4);
	u64 pblk = get32(e + 8) | (u64)get16(e + 6) << 32;
	bool unwritten = raw > 32768;
	u32 len = unwritten ? raw - 32768 : raw;

	assert_true(len > 0 && lblk >= c->next);
	for (u32 i = 0; i < len; i++) {
		check_block_use(c, pblk + i);
		if (lblk + i < MODEL_MAX) {
			assert_int_equal(m.pblk[lblk + i], pblk + i);
			assert_int_equal(m.unwritten[lblk + i], unwritten);
		}
	}
	c->next = (u64)lblk + len;
	c->data += len;
	c->st.extents++;
}

static void check_node(struct check *c, const u8 *node, u32 depth, bool root)
{
	u32 n = get16(node + 2), max = get16(node + 4);

	assert_int_equal(get16(node), 0xF30A);
	assert_int_equal(get16(node + 6), depth);
	assert_int_equal(max, root ? 4 : (fake.sbi.s.s_blocksize - 12) / 12);
	assert_true(n <= max && (n > 0 || (root && depth == 0)));
	if (!root && depth == 0) {
		c->st.entries += n;
		c->st.capacity += max;
	}
	for (u32 i = 0; i < n; i++) {
		const u8 *e = node + 12 + 12 * i;
		struct buffer *b;
		pblk_t child;

		if (depth == 0) {
			check_extent(c, e);
			continue;
		}
		child = get32(e + 4) | (u64)get16(e + 8) << 32;
		check_block_use(c, child);
		c->st.nodes++;
		assert_true(get32(e) >= c->next);
		assert_int_equal(buffer_read(&fake.sbi.s, child, &ext4_extent_block_type,
					     fake.ei.i_csum_seed, &b), 0);
		assert_int_equal(get32(b->b_data + 12), get32(e));
		check_node(c, b->b_data, depth - 1, false);
		buffer_put(b);
	}
}

static struct tree_stats check_tree(void)
{
	struct check c = { .seen = calloc(fake.nr_blocks, 1) };
	u64 mapped = 0;

	c.st.depth = get16(fake.ei.i_block + 6);
	check_node(&c, fake.ei.i_block, c.st.depth, true);
	for (u32 i = 0; i < m.top; i++)
		mapped += m.pblk[i] != 0;
	/* Extents beyond the model (tests of large keys) are in data only. */
	assert_true(c.data >= mapped);
	assert_int_equal(fake.inode_blocks, c.data + c.st.nodes);
	assert_int_equal(fake_used(), c.data + c.st.nodes);
	free(c.seen);
	return c.st;
}

/* ---- operations, on tree and model ---- */

static void check_lookup(lblk_t lblk, u32 len)
{
	struct ext4_map map = { .lblk = lblk, .len = len };
	u32 want = 0, state = 0;

	assert_int_equal(ext4_map_blocks(&fake.ei, &map), 0);
	assert_int_equal(map.lblk, lblk);
	if (m.pblk[lblk]) {
		state = m.unwritten[lblk] ? EXT4_MAP_UNWRITTEN : EXT4_MAP_MAPPED;
		assert_int_equal(map.flags, state);
		assert_int_equal(map.pblk, m.pblk[lblk]);
		assert_true(map.len > 0 && map.len <= len);
		for (u32 i = 0; i < map.len; i++) {
			assert_int_equal(m.pblk[lblk + i], map.pblk + i);
			assert_int_equal(m.unwritten[lblk + i], m.unwritten[lblk]);
		}
		return;
	}
	while (want < len && (lblk + want >= MODEL_MAX || !m.pblk[lblk + want]))
		want++;
	assert_int_equal(map.flags, 0);
	assert_int_equal(map.len, want);
}

/* One ext4_map_create(), in the handle given; the result goes to the model. */
static int create_in(struct handle *h, lblk_t lblk, u32 len, u32 flags, struct ext4_map *out)
{
	struct ext4_map map = { .lblk = lblk, .len = len };
	int err = ext4_map_create(h, &fake.ei, &map, flags);

	if (!err && map.flags & EXT4_MAP_NEW) {
		for (u32 i = 0; i < map.len; i++) {
			assert_true(lblk + i >= MODEL_MAX || !m.pblk[lblk + i]);
			if (lblk + i >= MODEL_MAX)
				continue;
			m.top = max_of(m.top, lblk + i + 1);
			m.pblk[lblk + i] = map.pblk + i;
			m.unwritten[lblk + i] = (flags & EXT4_CREATE_UNWRITTEN) != 0;
		}
	}
	if (out)
		*out = map;
	return err;
}

/* In a handle that has just the credits the tree asks for. */
static int create(lblk_t lblk, u32 len, u32 flags, struct ext4_map *out)
{
	u32 credits = ext4_ext_insert_credits(&fake.ei, 1);
	u32 keep = fake.max_credits;
	struct handle *h = fake_start(credits, 0);
	int err;

	fake.max_credits = credits;
	err = create_in(h, lblk, len, flags, out);
	assert_int_equal(ext4_mark_inode_dirty(h, &fake.ei), 0);
	fake_stop(h);
	fake.max_credits = keep;
	return err;
}

static int convert(lblk_t lblk, u32 len)
{
	struct handle *h = fake_start(min_of(40u, fake.max_credits), 1);
	int err = ext4_ext_convert_written(h, &fake.ei, lblk, len);

	if (!err)
		memset(&m.unwritten[lblk], 0, len);
	assert_int_equal(ext4_mark_inode_dirty(h, &fake.ei), 0);
	fake_stop(h);
	return err;
}

/* Written -> unwritten. */
static int unconvert(lblk_t start, u64 end)
{
	struct handle *h = fake_start(min_of(40u, fake.max_credits), 1);
	int err = ext4_ext_convert_unwritten(h, &fake.ei, start, end);

	for (u64 i = start; !err && i < min_of(end, (u64)m.top); i++)
		m.unwritten[i] = m.pblk[i] != 0;
	fake_stop(h);
	return err;
}

static int remove_range(lblk_t start, u64 end, bool forget)
{
	struct handle *h = fake_start(ext4_remove_credits(&fake.ei), 0);
	int err = ext4_remove_blocks(h, &fake.ei, start, end, forget);

	for (u64 i = start; !err && i < min_of(end, (u64)m.top); i++) {
		m.pblk[i] = 0;
		m.unwritten[i] = 0;
	}
	fake_stop(h);
	return err;
}

static void begin(u32 blocksize, u32 nr, bool csum)
{
	memset(&m, 0, sizeof(m));
	fake_open(blocksize, nr, blocksize * 8, csum, true);
}

/* Takes everything away; nothing may be left in use. */
static void end(void)
{
	fake.max_credits = LIMIT_NONE;
	fake.restart_every = 0;
	fake.on_restart = NULL;
	assert_int_equal(remove_range(0, (u64)LBLK_MAX + 1, false), 0);
	check_tree();
	assert_int_equal(fake_used(), 0);
	assert_int_equal(fake.inode_blocks, 0);
	assert_int_equal(get16(fake.ei.i_block + 6), 0);
	assert_int_equal(fake.nr_errors, 0);
	fake_close();
}

/* n single blocks that can't merge, every second block from `first` on. */
static void fragments(lblk_t first, u32 n)
{
	struct handle *h = fake_start(LIMIT_NONE, 0);

	for (u32 i = 0; i < n; i++)
		assert_int_equal(create_in(h, first + 2 * i, 1, 0, NULL), 0);
	fake_stop(h);
}

/* ---- random ---- */

static void random_convert(u32 range)
{
	lblk_t at = fake_rand(range);
	u32 len = 0, max = 1 + fake_rand(fake_rand(8) ? 10 : 200);

	while (at + len < range && len < max && m.pblk[at + len])
		len++;
	if (len)
		assert_int_equal(convert(at, len), 0);
}

static void random_unconvert(u32 range)
{
	lblk_t at = fake_rand(range);

	assert_int_equal(unconvert(at, at + 1 + fake_rand(fake_rand(8) ? 10 : 400)), 0);
}

static void random_remove(u32 range)
{
	lblk_t at = fake_rand(range);
	u64 to = fake_rand(20) ? at + 1 + fake_rand(fake_rand(8) ? 8 : 400)
			       : (u64)LBLK_MAX + 1;

	assert_int_equal(remove_range(at, to, fake_rand(2)), 0);
}

static void random_run(u32 blocksize, bool csum, bool scatter, u32 max_run, u32 steps)
{
	const u32 range = 3000;

	begin(blocksize, 16384, csum);
	fake.scatter = scatter;
	fake.max_run = max_run;
	for (u32 i = 0; i < steps; i++) {
		u32 what = fake_rand(100);

		if (what < 60)
			assert_int_equal(create(fake_rand(range), 1 + fake_rand(30),
						fake_rand(2) ? EXT4_CREATE_UNWRITTEN : 0,
						NULL), 0);
		else if (what < 78)
			random_convert(range);
		else if (what < 85)
			random_unconvert(range);
		else if (what < 96)
			random_remove(range);
		else if (what < 98)
			fake_commit();
		else
			fake_drop();
		for (u32 k = 0; k < 4; k++)
			check_lookup(fake_rand(range), 1 + fake_rand(5000));
		check_tree();
	}
	end();
}

static void test_random_1k(void **state)
{
	random_run(1024, true, true, 4, 800);
}
static void test_random_1k_merging(void **state)
{
	random_run(1024, false, false, 64, 800);
}
static void test_random_4k(void **state)
{
	random_run(4096, true, true, 2, 800);
}
static void test_random_4k_merging(void **state)
{
	random_run(4096, true, false, 1000, 800);
}
static void test_random_2k_no_csum(void **state)
{
	random_run(2048, false, true, 3, 600);
}

/* ---- shape ---- */

static void test_sequential_writing_merges_to_one_extent(void **state)
{
	struct ext4_map map;

	begin(4096, 100000, true);
	for (u32 at = 0; at < 20000; at += 100) {
		assert_int_equal(create(at, 100, EXT4_CREATE_UNWRITTEN, &map), 0);
		assert_int_equal(map.len, 100);
		assert_int_equal(convert(at, 50), 0);
		assert_int_equal(convert(at + 50, 50), 0);
	}
	assert_int_equal(check_tree().extents, 1);
	end();
}

static void test_appending_fills_the_leaves(void **state)
{
	struct tree_stats st;

	begin(1024, 80000, true);
	fragments(0, 30000);
	st = check_tree();
	assert_int_equal(st.depth, 3);
	assert_int_equal(st.extents, 30000);
	assert_true(st.entries * 100 >= st.capacity * 99);
	for (u32 i = 0; i < 1000; i++)
		check_lookup(fake_rand(70000), 1 + fake_rand(100));
	fake_drop();
	check_tree();
	end();
}

static void test_lengths_stop_at_the_limits(void **state)
{
	struct ext4_map map;

	begin(4096, 150000, true);
	fake.sbi.blocks_per_group = 150000;
	assert_int_equal(create(0, 70000, 0, &map), 0);
	assert_int_equal(map.len, 32768);
	assert_int_equal(create(32768, 1, 0, &map), 0);
	assert_int_equal(check_tree().extents, 2);
	assert_int_equal(create(100000, 70000, EXT4_CREATE_UNWRITTEN, &map), 0);
	assert_int_equal(map.len, 32767);
	assert_int_equal(create(132767, 1, EXT4_CREATE_UNWRITTEN, &map), 0);
	assert_int_equal(check_tree().extents, 4);
	/* Written, both have room for one more block, not for two. */
	assert_int_equal(convert(100000, 32768), 0);
	assert_int_equal(check_tree().extents, 3);
	check_lookup(132767, 1);
	check_lookup(32767, 10);
	/* And back: the last block of each does not fit. */
	assert_int_equal(unconvert(0, (u64)LBLK_MAX + 1), 0);
	assert_int_equal(check_tree().extents, 4);
	check_lookup(32766, 2);
	end();
}

static void test_new_first_entry_reaches_every_ancestor(void **state)
{
	begin(1024, 60000, true);
	fragments(1001, 1000);
	assert_int_equal(check_tree().depth, 2);
	assert_int_equal(create(500, 1, 0, NULL), 0);
	check_tree();
	/* From the left: the leftmost leaf splits again and again. */
	for (u32 at = 498; at >= 2; at -= 2)
		assert_int_equal(create(at, 1, 0, NULL), 0);
	check_tree();
	/* Joins the first from the left: the key changes without a new entry. */
	fake.fail_alloc = FAKE_NEVER;
	assert_int_equal(remove_range(2, 3, false), 0);
	check_tree();
	assert_int_equal(remove_range(0, 300, false), 0);
	check_tree();
	end();
}

static void test_hole_is_exact_across_leaves(void **state)
{
	struct ext4_map map = { .lblk = 1001, .len = 0xFFFFFFFFu };

	begin(1024, 60000, true);
	fragments(0, 500);
	fragments(150000, 100);
	check_lookup(999, 190000);
	check_lookup(998, 1);
	assert_int_equal(ext4_map_blocks(&fake.ei, &map), 0);
	assert_int_equal(map.len, 150000 - 1001);
	/* Nothing ahead: the length asked for, to the last one. */
	map = (struct ext4_map){ .lblk = 150199, .len = 0xFFFFFFFFu };
	assert_int_equal(ext4_map_blocks(&fake.ei, &map), 0);
	assert_int_equal(map.len, 0xFFFFFFFFu);
	/* Punching out whole leaves. */
	assert_int_equal(remove_range(100, 900, false), 0);
	check_tree();
	check_lookup(99, 10000);
	end();
}

static void test_last_block_of_the_largest_file(void **state)
{
	struct ext4_map map = { .lblk = 0xFFFFFFFFu, .len = 1 };

	begin(4096, 1000, true);
	assert_int_equal(create(0xFFFFFFFFu, 1, 0, NULL), -EFBIG);
	assert_int_equal(create(LBLK_MAX - 1, 100, 0, &map), 0);
	assert_int_equal(map.len, 2);
	check_tree();
	map = (struct ext4_map){ .lblk = 5, .len = 0xFFFFFFFFu };
	assert_int_equal(ext4_map_blocks(&fake.ei, &map), 0);
	assert_int_equal(map.len, LBLK_MAX - 1 - 5);
	assert_int_equal(ext4_ext_check_root(&fake.ei), 0);
	end();
}

static void test_empty_tree_folds_to_the_root(void **state)
{
	begin(1024, 30000, true);
	fragments(0, 600);
	assert_int_equal(check_tree().depth, 2);
	assert_int_equal(remove_range(7, (u64)LBLK_MAX + 1, false), 0);
	assert_int_equal(check_tree().depth, 0);
	assert_int_equal(fake.inode_blocks, 4);
	end();
}

static void test_goal_follows_the_extent_before(void **state)
{
	struct ext4_map a, b;

	begin(4096, 10000, true);
	assert_int_equal(create(100, 10, 0, &a), 0);
	assert_int_equal(create(500, 10, 0, &b), 0);
	assert_int_equal(b.pblk, a.pblk + 10);
	assert_int_equal(fake.ei.i_alloc_goal, b.pblk + 10);
	/* Into a hole that is there already: the blocks found, nothing new. */
	assert_int_equal(create(505, 10, 0, &b), 0);
	assert_int_equal(b.flags, EXT4_MAP_MAPPED);
	assert_int_equal(b.len, 5);
	end();
}

/* ---- trees of five levels, made by hand ---- */

static void put16(u8 *p, u32 v)
{
	p[0] = (u8)v;
	p[1] = (u8)(v >> 8);
}
static void put32(u8 *p, u32 v)
{
	put16(p, v);
	put16(p + 2, v >> 16);
}

static void seal(pblk_t blk)
{
	u8 *d = fake_block(blk);
	u32 len = 12 + 12 * get16(d + 4);

	put32(d + len, crc32c(fake.ei.i_csum_seed, d, len));
}

/*
 * A node of the given depth. Its last child (its last extent) is at *next and
 * continues the full path if `full`; all others are chains of one entry. Each
 * leaf holds single blocks, two apart.
 */
static void build_node(u8 *d, u32 depth, u32 max, bool full, lblk_t *next)
{
	u32 n = full ? max : 1;

	put16(d, 0xF30A);
	put16(d + 2, n);
	put16(d + 4, max);
	put16(d + 6, depth);
	for (u32 i = 0; i < n; i++) {
		u8 *e = d + 12 + 12 * i;
		pblk_t blk = fake_take_block();

		fake.inode_blocks++;
		put32(e, *next);
		if (depth == 0) {
			put16(e + 4, 1);
			put32(e + 8, (u32)blk);
			m.pblk[*next] = blk;
			m.top = *next + 1;
			*next += 2;
			continue;
		}
		put32(e + 4, (u32)blk);
		build_node(fake_block(blk), depth - 1, (fake.sbi.s.s_blocksize - 12) / 12,
			   full && i == n - 1, next);
		seal(blk);
	}
}

static lblk_t build(u32 depth)
{
	lblk_t next = 1;

	fake.scatter = true;
	build_node(fake.ei.i_block, depth, 4, true, &next);
	check_tree();
	return next - 2; /* the last block */
}

static void test_growth_to_depth_5(void **state)
{
	for (u32 depth = 1; depth <= 4; depth++) {
		lblk_t last;

		begin(1024, 16384, true);
		last = build(depth);
		/* In the middle of the full leaf: every level splits, one is added.
		 * Each block in another group: the dearest case. */
		fake.sbi.blocks_per_group = 1;
		assert_int_equal(create(last - 21, 1, 0, NULL), 0);
		assert_int_equal(check_tree().depth, depth + 1);
		for (u32 i = 0; i < 100; i++)
			check_lookup(fake_rand(last + 100), 1 + fake_rand(300));
		fake_drop();
		check_tree();
		assert_int_equal(remove_range(last - 100, last - 50, false), 0);
		check_tree();
		end();
	}
}

static void test_full_tree_of_depth_5_gives_enospc(void **state)
{
	struct tree_stats a, b;
	lblk_t last;

	begin(1024, 16384, true);
	last = build(5);
	a = check_tree();
	assert_int_equal(create(last - 21, 1, 0, NULL), -ENOSPC);
	b = check_tree();
	assert_memory_equal(&a, &b, sizeof(a));
	/* What needs no new node still works. */
	fake.scatter = false;
	assert_int_equal(fake.state[m.pblk[last] + 1], FAKE_FREE);
	assert_int_equal(create(last + 1, 1, 0, NULL), 0);
	assert_int_equal(check_tree().depth, 5);
	end();
}

/* ---- failures ---- */

/* State that must be the same after a failed operation. */
struct snapshot {
	u8 i_block[EXT4_I_BLOCK_BYTES];
	u64 inode_blocks;
	u32 used;
	s64 reserved;
};
static struct snapshot snap(void)
{
	struct snapshot s;

	memset(&s, 0, sizeof(s));
	memcpy(s.i_block, fake.ei.i_block, sizeof(s.i_block));
	s.inode_blocks = fake.inode_blocks;
	s.used = fake_used();
	s.reserved = counter_sum(fake.sbi.reserved);
	return s;
}
static void assert_unchanged(const struct snapshot *before)
{
	struct snapshot now = snap();

	assert_memory_equal(before, &now, sizeof(now));
	check_tree();
}

static void test_failed_allocation_changes_nothing(void **state)
{
	static const int errors[] = { -ENOSPC, -EAGAIN };

	for (u32 e = 0; e < 2; e++) {
		begin(1024, 16384, true);
		lblk_t last = build(3);
		struct snapshot s;
		u32 tries = 0;

		counter_add(fake.sbi.reserved, 10);
		s = snap();
		fake.fail_alloc_with = errors[e];
		for (;; tries++) {
			int err;

			fake.fail_alloc = tries;
			err = create(last - 21, 3, EXT4_CREATE_DELAYED, NULL);
			if (!err)
				break;
			assert_int_equal(err, errors[e]);
			assert_unchanged(&s);
			fake_drop();
		}
		assert_int_equal(tries, 5); /* three splits, the growth, the data */
		fake.fail_alloc = FAKE_NEVER;
		assert_int_equal(check_tree().depth, 4);
		assert_true(counter_sum(fake.sbi.reserved) < 10);
		end();
	}
}

static void test_failed_access_changes_nothing(void **state)
{
	lblk_t last;
	struct snapshot s;
	u32 tries = 0;

	begin(1024, 16384, true);
	last = build(3);
	counter_add(fake.sbi.reserved, 10);
	s = snap();
	for (;; tries++) {
		int err;

		fake.fail_access = tries;
		err = create(last - 21, 1, EXT4_CREATE_DELAYED, NULL);
		if (!err)
			break;
		assert_int_equal(err, -ENOMEM);
		assert_unchanged(&s);
		fake_drop();
	}
	assert_int_equal(tries, 1 + 3 + 4); /* the inode, the path, the new nodes */
	fake.fail_access = FAKE_NEVER;
	for (tries = 0;; tries++) {
		int err;

		check_tree();
		fake.fail_access = tries;
		err = remove_range(last - 300, last - 1, false);
		if (!err)
			break;
		assert_int_equal(err, -ENOMEM);
		/* Part of it may be gone, but what is left is sound. */
		for (u32 i = last - 300; i < last - 1; i++) {
			struct ext4_map map = { .lblk = i, .len = 1 };

			assert_int_equal(ext4_map_blocks(&fake.ei, &map), 0);
			if (!map.flags)
				m.pblk[i] = 0;
		}
	}
	fake.fail_access = FAKE_NEVER;
	end();
}

static void test_too_few_credits_give_eagain(void **state)
{
	struct handle *h;
	struct snapshot s;

	begin(1024, 16384, true);
	build(3);
	s = snap();
	fake.max_credits = 5;
	h = fake_start(5, 0);
	assert_int_equal(create_in(h, 0, 1, 0, NULL), -EAGAIN);
	fake_stop(h);
	assert_unchanged(&s);
	end();
}

static void test_append_behind_a_full_leaf_needs_no_node(void **state)
{
	u32 before;

	begin(1024, 16384, true);
	fake.max_run = 1;
	fragments(0, 84);
	assert_int_equal(check_tree().depth, 1);
	before = (u32)fake.inode_blocks;
	for (u32 i = 0; i < 10; i++)
		assert_int_equal(create(167 + i, 1, 0, NULL), 0);
	assert_int_equal(fake.inode_blocks, before + 10);
	assert_int_equal(check_tree().extents, 84);
	end();
}

/* ---- conversion ---- */

static void test_convert_in_the_middle_and_back_together(void **state)
{
	begin(4096, 10000, true);
	assert_int_equal(create(10, 100, EXT4_CREATE_UNWRITTEN, NULL), 0);
	assert_int_equal(convert(50, 10), 0);
	assert_int_equal(check_tree().extents, 3);
	assert_int_equal(convert(60, 5), 0);  /* border to the right */
	assert_int_equal(check_tree().extents, 3);
	assert_int_equal(convert(45, 5), 0);  /* border to the left */
	assert_int_equal(check_tree().extents, 3);
	assert_int_equal(convert(48, 4), 0);  /* is written already */
	assert_int_equal(convert(10, 100), 0);
	assert_int_equal(check_tree().extents, 1);
	assert_int_equal(fake.nr_allocs, 1);
	end();
}

static void test_convert_of_a_hole_is_corruption(void **state)
{
	begin(4096, 10000, true);
	assert_int_equal(convert(0, 1), -EFSCORRUPTED);
	assert_int_equal(create(10, 10, EXT4_CREATE_UNWRITTEN, NULL), 0);
	assert_int_equal(convert(15, 10), -EFSCORRUPTED);
	assert_int_equal(fake.nr_errors, 2);
	fake.nr_errors = 0;
	memset(&m.unwritten[15], 0, 5);
	check_tree();
	end();
}

static void test_unconvert_passes_holes_and_merges(void **state)
{
	begin(4096, 10000, true);
	assert_int_equal(unconvert(0, (u64)LBLK_MAX + 1), 0); /* nothing there */
	assert_int_equal(create(10, 100, 0, NULL), 0);
	assert_int_equal(create(500, 10, 0, NULL), 0);
	assert_int_equal(unconvert(0, 10), 0);
	assert_int_equal(unconvert(110, 500), 0);
	assert_int_equal(check_tree().extents, 2);
	assert_int_equal(unconvert(50, 60), 0);
	assert_int_equal(check_tree().extents, 4);
	assert_int_equal(unconvert(60, 65), 0); /* border to the right */
	assert_int_equal(unconvert(45, 50), 0); /* border to the left */
	assert_int_equal(unconvert(46, 64), 0); /* is unwritten already */
	assert_int_equal(check_tree().extents, 4);
	assert_int_equal(unconvert(30, 505), 0);
	assert_int_equal(check_tree().extents, 4);
	assert_int_equal(unconvert(0, (u64)LBLK_MAX + 1), 0);
	assert_int_equal(check_tree().extents, 2);
	assert_int_equal(fake.nr_allocs, 2);
	end();
}

static void check_restart(struct fake_fs *f)
{
	struct tree_stats st;
	struct ext4_map map = { .lblk = 0, .len = 1 };

	/* The model is behind: take the states from the tree. */
	for (u32 i = 0; i < m.nr; i++) {
		map.lblk = i;
		map.len = 1;
		assert_int_equal(ext4_map_blocks(&f->ei, &map), 0);
		m.unwritten[i] = map.flags == EXT4_MAP_UNWRITTEN;
		if (!map.flags)
			m.pblk[i] = 0;
	}
	st = check_tree();
	assert_true(st.depth <= 5);
}

/* No written block beyond the size on disk, when a transaction may end. */
static void check_size_covers(struct fake_fs *f)
{
	for (u32 i = (u32)((f->ei.i_disksize + 1023) >> 10); i < 2000; i++) {
		struct ext4_map map = { .lblk = i, .len = 1 };

		assert_int_equal(ext4_map_blocks(&f->ei, &map), 0);
		assert_int_equal(map.flags, EXT4_MAP_UNWRITTEN);
	}
}

static void test_size_on_disk_covers_what_is_converted(void **state)
{
	struct handle *h;

	begin(1024, 16384, true);
	fake.scatter = true;
	fake.max_run = 5;
	for (u32 at = 0; at < 2000;) {
		struct ext4_map map;

		assert_int_equal(create(at, 5, EXT4_CREATE_UNWRITTEN, &map), 0);
		at += map.len;
	}
	fake.ei.vfs.i_size = 1500 * 1024 + 100;
	fake.ei.i_disksize = 77;
	fake.restart_every = 10;
	fake.on_restart = check_size_covers;
	h = fake_start(41, 1);
	assert_int_equal(ext4_ext_convert_written(h, &fake.ei, 3, 1000), 0);
	fake_stop(h);
	assert_true(fake.nr_restarts > 10);
	assert_true(fake.ei.i_disksize <= 1003 * 1024 && fake.ei.i_disksize > 900 * 1024);
	/* Cut short by an error: the same. */
	fake.restart_every = 0;
	h = fake_start(41, 1);
	fake.fail_access = 20;
	assert_int_equal(ext4_ext_convert_written(h, &fake.ei, 1003, 600), -ENOMEM);
	fake_stop(h);
	check_size_covers(&fake);
	assert_true(fake.ei.i_disksize > 1050 * 1024);
	for (u32 i = 0; i < 2000; i++) {
		struct ext4_map map = { .lblk = i, .len = 1 };

		assert_int_equal(ext4_map_blocks(&fake.ei, &map), 0);
		m.unwritten[i] = map.flags == EXT4_MAP_UNWRITTEN;
	}
	check_tree();
	end();
}

static void test_convert_many_with_restarts(void **state)
{
	begin(1024, 16384, true);
	fake.scatter = true;
	fake.max_run = 3;
	m.nr = 2000;
	for (u32 at = 0; at < 2000;) {
		struct ext4_map map;

		assert_int_equal(create(at, 3, EXT4_CREATE_UNWRITTEN, &map), 0);
		at += map.len;
	}
	fake.restart_every = 20;
	fake.on_restart = check_restart;
	struct handle *h = fake_start(41, 1);
	assert_int_equal(ext4_ext_convert_written(h, &fake.ei, 1, 1900), 0);
	fake_stop(h);
	memset(&m.unwritten[1], 0, 1900);
	assert_true(fake.nr_restarts > 10);
	check_tree();
	fake.nr_restarts = 0;
	assert_int_equal(unconvert(5, 1899), 0);
	assert_true(fake.nr_restarts > 10);
	check_tree();
	end();
}

/* A leaf without room, and an unwritten extent of 8 blocks in the middle of it. */
static lblk_t convert_without_room(void)
{
	begin(1024, 16384, true);
	fake.scatter = true;
	fragments(0, 40);
	assert_int_equal(create(100, 8, EXT4_CREATE_UNWRITTEN, NULL), 0);
	fragments(200, 43);
	assert_int_equal(check_tree().extents, 84);
	for (u32 i = 0; i < 8; i++)
		memset(fake_block(m.pblk[100 + i]), 0xAA, 1024);
	fake.ei.i_disksize = 300 << 10;
	fake.fail_alloc = 0;
	fake.fail_alloc_with = -ENOSPC;
	return 100;
}

static void test_convert_without_space_writes_zeroes(void **state)
{
	lblk_t at = convert_without_room();
	static const u8 zeroes[1024];

	assert_int_equal(convert(at + 2, 3), 0);
	assert_int_equal(fake.nr_zero_writes, 2);
	memset(&m.unwritten[at], 0, 8);
	assert_int_equal(check_tree().extents, 84);
	for (u32 i = 0; i < 8; i++) {
		u8 *d = fake_block(m.pblk[at + i]);

		if (i < 2 || i > 4)
			assert_memory_equal(d, zeroes, 1024);
		else
			assert_int_equal(d[0], 0xAA);
	}
	end();
}

static void test_convert_without_space_keeps_off_what_others_write(void **state)
{
	lblk_t at = convert_without_room();
	struct snapshot s = snap();

	fake.dirty_from = at + 6;
	fake.dirty_to = at + 7;
	assert_int_equal(convert(at + 2, 3), -ENOSPC);
	assert_unchanged(&s);
	fake.dirty_from = fake.dirty_to = 0;
	for (u32 i = 0; i < 2; i++) { /* a direct write before it, behind it */
		fake.ei.i_direct = i ? (u64)(at + 7) << 32 | (at + 30)
				     : (u64)(at - 20) << 32 | (at + 1);
		fake.fail_alloc = 0;
		assert_int_equal(convert(at + 2, 3), -ENOSPC);
		assert_unchanged(&s);
	}
	fake.ei.i_direct = 0;
	/* Beyond the size: written blocks there would be an error on disk. */
	fake.ei.i_disksize = (at + 3) << 10;
	fake.fail_alloc = 0;
	assert_int_equal(convert(at + 2, 3), -ENOSPC);
	assert_unchanged(&s);
	/* The conversion itself moves the size to its end; it is the direct write's. */
	fake.ei.i_direct = (u64)(at + 2) << 32 | (at + 8);
	fake.fail_alloc = 0;
	fake.write_error = -EIO;
	assert_int_equal(convert(at + 2, 6), -EIO);
	assert_unchanged(&s);
	fake.write_error = 0;
	fake.fail_alloc = 0;
	assert_int_equal(convert(at + 2, 6), 0);
	memset(&m.unwritten[at], 0, 8);
	check_tree();
	assert_int_equal(fake.nr_zero_writes, 1);
	end();
}

/* ---- removal ---- */

static void test_truncate_with_restarts(void **state)
{
	begin(1024, 80000, true);
	fragments(0, 10000);
	fake.restart_every = 50;
	struct handle *h = fake_start(200, 50);
	assert_int_equal(ext4_remove_blocks(h, &fake.ei, 101, (u64)LBLK_MAX + 1, false), 0);
	fake_stop(h);
	for (u32 i = 101; i < MODEL_MAX; i++)
		m.pblk[i] = 0;
	assert_true(fake.nr_restarts > 100);
	check_tree();
	fake_commit();
	fake.restart_every = 3;
	fake.nr_restarts = 0;
	m.nr = 200;
	fake.on_restart = check_restart;
	h = fake_start(20, 5);
	assert_int_equal(ext4_remove_blocks(h, &fake.ei, 0, 90, true), 0);
	fake_stop(h);
	assert_true(fake.nr_restarts > 5);
	for (u32 i = 0; i < 90; i++)
		m.pblk[i] = 0;
	end();
}

static void test_long_extents_over_many_groups(void **state)
{
	struct ext4_map map;

	begin(1024, 150000, true);
	fake.sbi.blocks_per_group = 1u << 20; /* allocated as one ... */
	assert_int_equal(create(0, 32768, 0, &map), 0);
	assert_int_equal(map.len, 32768);
	fake.sbi.blocks_per_group = 256;      /* ... over 128 groups */
	fake.restart_every = 3;
	m.nr = 33000;
	fake.on_restart = check_restart;
	/* Head, middle, tail, all. */
	assert_int_equal(remove_range(0, 5000, false), 0);
	assert_int_equal(check_tree().extents, 1);
	assert_int_equal(remove_range(10000, 20000, false), 0);
	assert_int_equal(check_tree().extents, 2);
	assert_int_equal(remove_range(30000, 40000, false), 0);
	check_tree();
	assert_true(fake.nr_restarts > 10);
	end();
}

static void test_punch_needs_a_node_and_there_is_none(void **state)
{
	struct snapshot s;

	begin(1024, 16384, true);
	fake.scatter = true;
	fragments(0, 83);
	assert_int_equal(create(1000, 10, 0, NULL), 0);
	assert_int_equal(check_tree().extents, 84);
	s = snap();
	fake.fail_alloc = 0;
	fake.fail_alloc_with = -ENOSPC;
	assert_int_equal(remove_range(1003, 1005, false), -ENOSPC);
	assert_unchanged(&s);
	assert_int_equal(remove_range(1003, 1005, false), 0);
	assert_int_equal(check_tree().extents, 85);
	end();
}

static void test_unconvert_needs_a_node_and_there_is_none(void **state)
{
	struct snapshot s;

	begin(1024, 16384, true);
	fake.scatter = true;
	fragments(0, 83);
	assert_int_equal(create(1000, 10, 0, NULL), 0);
	s = snap();
	fake.fail_alloc = 0;
	fake.fail_alloc_with = -ENOSPC;
	assert_int_equal(unconvert(1003, 1005), -ENOSPC);
	assert_unchanged(&s);
	assert_int_equal(fake.nr_zero_writes, 0);
	assert_int_equal(unconvert(1003, 1005), 0);
	assert_int_equal(check_tree().extents, 86);
	end();
}

static void test_forget_revokes_data(void **state)
{
	u32 before;

	begin(4096, 16384, true);
	assert_int_equal(create(0, 200, 0, NULL), 0);
	before = fake.nr_forgets;
	assert_int_equal(remove_range(0, 200, true), 0);
	assert_int_equal(fake.nr_forgets - before, 200);
	end();
}

/* ---- hostile images ---- */

static void expect_bad(int want)
{
	struct ext4_map map = { .lblk = 1, .len = 1 };

	fake_drop();
	fake.nr_errors = 0;
	assert_int_equal(ext4_map_blocks(&fake.ei, &map), want);
	assert_int_equal(fake.nr_errors, 1);
}

static void test_hostile_blocks(void **state)
{
	/* Offset in the first leaf, 2 bytes: value, whether the checksum is mended. */
	static const struct { u32 off, value; bool mend; int want; } bad[] = {
		{ 0, 0xF30B, true, -EFSCORRUPTED },  /* magic */
		{ 2, 85, true, -EFSCORRUPTED },      /* more than fit */
		{ 2, 0, true, -EFSCORRUPTED },       /* empty */
		{ 4, 85, false, -EFSCORRUPTED },     /* capacity too large */
		{ 4, 0xFFFF, false, -EFSCORRUPTED },
		{ 4, 81, true, -EFSCORRUPTED },      /* too small */
		{ 6, 1, true, -EFSCORRUPTED },       /* depth: a loop */
		{ 6, 5, true, -EFSCORRUPTED },
		{ 6, 0xFFFF, true, -EFSCORRUPTED },
		{ 12, 0, true, -EFSCORRUPTED },      /* first key */
		{ 12, 9, true, -EFSCORRUPTED },
		{ 16, 0, true, -EFSCORRUPTED },      /* length 0 */
		{ 16, 3, true, -EFSCORRUPTED },      /* overlap */
		{ 18, 1, true, -EFSCORRUPTED },      /* beyond the volume */
		{ 20, 0, true, -EFSCORRUPTED },      /* block 0 */
		{ 24, 0, true, -EFSCORRUPTED },      /* second key falls */
		{ 12 + 83 * 12 + 4, 32768, true, -EFSCORRUPTED }, /* last beyond the next leaf */
		{ 20, 0x1234, false, -EFSBADCRC },
		{ 12 + 84 * 12, 0, false, -EFSBADCRC },
	};
	u8 good[1024], *leaf;
	pblk_t blk;

	begin(1024, 40000, true);
	fragments(1, 200);
	fake_drop();
	blk = get32(fake.ei.i_block + 12 + 4);
	leaf = fake_block(blk);
	memcpy(good, leaf, 1024);
	for (u32 i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		put16(leaf + bad[i].off, bad[i].value);
		if (bad[i].mend)
			put32(leaf + 12 + 84 * 12,
			      crc32c(fake.ei.i_csum_seed, leaf, 12 + 84 * 12));
		expect_bad(bad[i].want);
		memcpy(leaf, good, 1024);
	}
	/* The wrong inode's block, and garbage of all kinds. */
	fake.ei.i_csum_seed++;
	expect_bad(-EFSBADCRC);
	fake.ei.i_csum_seed--;
	fake.sbi.has_csum = false;
	for (u32 i = 0; i < 2000; i++) {
		struct ext4_map map = { .lblk = fake_rand(400), .len = 1 + fake_rand(99) };

		for (u32 k = 0; k < 1 + i % 4; k++)
			leaf[fake_rand(1024)] = (u8)fake_rand(256);
		fake_drop();
		(void)!ext4_map_blocks(&fake.ei, &map);
		memcpy(leaf, good, 1024);
	}
	fake_drop();
	fake.sbi.has_csum = true;
	fake.nr_errors = 0;
	check_tree();
	end();
}

static void test_index_loop_ends(void **state)
{
	u8 *node;
	pblk_t blk;

	begin(1024, 40000, true);
	fragments(1, 500);
	assert_int_equal(check_tree().depth, 2);
	fake_drop();
	blk = get32(fake.ei.i_block + 12 + 4);
	node = fake_block(blk);
	put32(node + 12 + 4, (u32)blk); /* its first child is itself */
	seal(blk);
	expect_bad(-EFSCORRUPTED);
	fake_close();
}

static void test_block_of_two_inodes_is_refused(void **state)
{
	struct ext4_map map = { .lblk = 1, .len = 1 };

	begin(1024, 40000, false); /* no checksum that would tell */
	fragments(1, 200);
	fake_commit();
	fake.ei.i_csum_seed++; /* another inode with the same root */
	assert_int_equal(ext4_map_blocks(&fake.ei, &map), -EFSCORRUPTED);
	fake.ei.i_csum_seed--;
	assert_int_equal(ext4_map_blocks(&fake.ei, &map), 0);
	fake.nr_errors = 0;
	end();
}

static void test_index_bound_of_the_ancestor_holds(void **state)
{
	u8 *node, *leaf;
	pblk_t blk, leaf_blk;
	u32 n;

	begin(1024, 80000, true);
	fragments(1, 8000); /* two nodes below the root */
	assert_int_equal(check_tree().depth, 2);
	assert_true(get16(fake.ei.i_block + 2) > 1);
	fake_drop();
	blk = get32(fake.ei.i_block + 12 + 4);
	node = fake_block(blk);
	n = get16(node + 2);
	leaf_blk = get32(node + 12 + (n - 1) * 12 + 4);
	leaf = fake_block(leaf_blk);
	put16(leaf + 12 + (get16(leaf + 2) - 1) * 12 + 4, 100); /* into the next node */
	seal(leaf_blk);
	fake_drop();
	struct ext4_map map = { .lblk = get32(leaf + 12), .len = 1 };
	assert_int_equal(ext4_map_blocks(&fake.ei, &map), -EFSCORRUPTED);
	fake_close();
}

static void test_roots(void **state)
{
	static const struct { u32 off, value; int want; } bad[] = {
		{ 0, 0, -EFSCORRUPTED },     /* magic */
		{ 2, 5, -EFSCORRUPTED },     /* entries */
		{ 4, 5, -EFSCORRUPTED },     /* capacity */
		{ 4, 1, -EFSCORRUPTED },
		{ 4, 0, -EFSCORRUPTED },
		{ 6, 6, -EFSCORRUPTED },     /* depth */
		{ 6, 0xFFFF, -EFSCORRUPTED },
		{ 16, 0, -EFSCORRUPTED },    /* length */
		{ 18, 0xFFFF, -EFSCORRUPTED },
		{ 8, 7, 0 },                 /* generation: ignored */
	};
	u8 good[EXT4_I_BLOCK_BYTES];

	begin(4096, 1000, true);
	assert_int_equal(ext4_ext_check_root(&fake.ei), 0);
	put16(fake.ei.i_block + 6, 1); /* an index without entries */
	assert_int_equal(ext4_ext_check_root(&fake.ei), -EFSCORRUPTED);
	put16(fake.ei.i_block + 6, 0);
	fragments(1, 3);
	assert_int_equal(ext4_ext_check_root(&fake.ei), 0);
	memcpy(good, fake.ei.i_block, sizeof(good));
	for (u32 i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		put16(fake.ei.i_block + bad[i].off, bad[i].value);
		assert_int_equal(ext4_ext_check_root(&fake.ei), bad[i].want);
		memcpy(fake.ei.i_block, good, sizeof(good));
	}
	fake.nr_errors = 0;
	end();
}

/* ---- lookups beside changes ---- */

static _Atomic bool readers_stop;
static _Atomic u64 lookups;

/* Blocks below 1000 stay as they are; the rest come and go. */
static void reader(void *arg)
{
	u32 x = 12345 + (u32)(uintptr_t)arg;

	while (!atomic_load(&readers_stop)) {
		struct ext4_map map = { .len = 5 };

		x = x * 1103515245 + 12345;
		map.lblk = (x >> 8) % 3000;
		assert(ext4_map_blocks(&fake.ei, &map) == 0);
		if (map.lblk < 1000)
			assert(map.flags == (map.lblk % 2 ? 0u : EXT4_MAP_MAPPED) &&
			       map.len == 1);
		atomic_fetch_add(&lookups, 1);
	}
}

static void test_lookups_beside_changes(void **state)
{
	struct thread *t[2];

	begin(1024, 16384, true);
	fragments(0, 501);
	atomic_store(&readers_stop, false);
	for (u32 i = 0; i < 2; i++)
		assert_int_equal(thread_create(&t[i], "reader", reader, (void *)(uintptr_t)i), 0);
	for (u32 i = 0; i < 20 || atomic_load(&lookups) < 2000; i++) {
		fragments(1002, 900);
		assert_int_equal(remove_range(1002, (u64)LBLK_MAX + 1, false), 0);
		fake_commit();
	}
	atomic_store(&readers_stop, true);
	for (u32 i = 0; i < 2; i++)
		thread_join(t[i]);
	check_tree();
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sequential_writing_merges_to_one_extent),
		cmocka_unit_test(test_lengths_stop_at_the_limits),
		cmocka_unit_test(test_goal_follows_the_extent_before),
		cmocka_unit_test(test_new_first_entry_reaches_every_ancestor),
		cmocka_unit_test(test_hole_is_exact_across_leaves),
		cmocka_unit_test(test_last_block_of_the_largest_file),
		cmocka_unit_test(test_empty_tree_folds_to_the_root),
		cmocka_unit_test(test_appending_fills_the_leaves),
		cmocka_unit_test(test_append_behind_a_full_leaf_needs_no_node),
		cmocka_unit_test(test_growth_to_depth_5),
		cmocka_unit_test(test_full_tree_of_depth_5_gives_enospc),
		cmocka_unit_test(test_failed_allocation_changes_nothing),
		cmocka_unit_test(test_failed_access_changes_nothing),
		cmocka_unit_test(test_too_few_credits_give_eagain),
		cmocka_unit_test(test_convert_in_the_middle_and_back_together),
		cmocka_unit_test(test_convert_of_a_hole_is_corruption),
		cmocka_unit_test(test_unconvert_passes_holes_and_merges),
		cmocka_unit_test(test_unconvert_needs_a_node_and_there_is_none),
		cmocka_unit_test(test_convert_many_with_restarts),
		cmocka_unit_test(test_size_on_disk_covers_what_is_converted),
		cmocka_unit_test(test_convert_without_space_writes_zeroes),
		cmocka_unit_test(test_convert_without_space_keeps_off_what_others_write),
		cmocka_unit_test(test_truncate_with_restarts),
		cmocka_unit_test(test_long_extents_over_many_groups),
		cmocka_unit_test(test_punch_needs_a_node_and_there_is_none),
		cmocka_unit_test(test_forget_revokes_data),
		cmocka_unit_test(test_hostile_blocks),
		cmocka_unit_test(test_index_loop_ends),
		cmocka_unit_test(test_block_of_two_inodes_is_refused),
		cmocka_unit_test(test_index_bound_of_the_ancestor_holds),
		cmocka_unit_test(test_roots),
		cmocka_unit_test(test_random_1k),
		cmocka_unit_test(test_random_1k_merging),
		cmocka_unit_test(test_random_4k),
		cmocka_unit_test(test_random_4k_merging),
		cmocka_unit_test(test_random_2k_no_csum),
		cmocka_unit_test(test_lookups_beside_changes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
