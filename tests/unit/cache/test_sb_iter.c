/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/cache/test_sb_iter.c - walks over inodes, and what holds of them
 *
 * Every test runs on the trees, on lists by CPU and on one list. S1 to S7 are
 * the guarantees of cache/sb_iter.h.
 */
#include "tests/unit/cache/icache_test.h"

#include "lib/rcu.h"

/* What a walk met, by index of the inode on the disk. */
struct seen {
	u8 times[NR_DISK];
	u32 nr;
	u32 stop_after; /* 0: never */
	int stop_with;
};

static int see(struct inode *inode, void *priv)
{
	struct seen *s = priv;

	s->times[index_of(inode->i_ino)]++;
	s->nr++;
	return s->nr == s->stop_after ? s->stop_with : INO_ITER_RET_CONT;
}

/* Of the safe walk. */
static int see_referenced(struct inode *inode, void *priv)
{
	thread_check(atomic_load(&inode->i_count) > 0);
	thread_check(!(atomic_load(&inode->i_state) &
		       (I_NEW | I_FREEING | I_BAD | I_UNHASHED)));
	/* Aborts a debug build under a lock or in an RCU section (S4). */
	thread_might_block();
	return see(inode, priv);
}

static struct seen walked(u32 flags)
{
	struct seen s = { .nr = 0 };

	assert_int_equal(super_iter_inodes(&sb, see_referenced, &s, flags), 0);
	return s;
}

static void assert_seen(const struct seen *s, const ino_nr *ino, u32 nr)
{
	assert_int_equal(s->nr, nr);
	for (u32 i = 0; i < nr; i++)
		assert_int_equal(s->times[index_of(ino[i])], 1);
}

static const ino_nr scattered[] = {
	1, 2, 63, 64, 65, 1000, 4095, RUN_BORDER - 1, RUN_BORDER,
	SHARD_BORDER - 1, SHARD_BORDER, SHARD_BORDER + 1,
};

static void get_scattered(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(scattered); i++)
		inode_put(must_get(scattered[i]));
}

static void write_clean(struct inode *inode)
{
	inode_clear_dirty(inode, I_DIRTY);
	icache_written(inode);
	inode_put(inode);
}

static void clean_all(void)
{
	struct inode *inode;

	while ((inode = icache_next_dirty(&sb, UINT64_MAX)))
		write_clean(inode);
}

static void test_the_way_is_the_one_asked_for(void **state)
{
	static const char *const names[] = { "icache", "percpu", "global" };
	enum inode_iter *which = *state;

	assert_string_equal(super_iter_name(&sb), names[*which]);
}

static void test_nothing_to_see(void **state)
{
	struct seen s = walked(0);

	assert_int_equal(s.nr, 0);
	super_iter_inodes_unsafe(&sb, see, &s);
	assert_int_equal(s.nr, 0);
}

static void test_each_inode_once(void **state)
{
	struct seen s;

	get_scattered();
	s = walked(0);
	assert_seen(&s, scattered, ARRAY_SIZE(scattered));
	s = (struct seen){ .nr = 0 };
	super_iter_inodes_unsafe(&sb, see, &s);
	assert_seen(&s, scattered, ARRAY_SIZE(scattered));
}

/* More than a batch, and more than may be looked at in one RCU section. */
static void test_many(void **state)
{
	struct seen s;

	for (ino_nr ino = 1; ino < NR_LOW; ino++)
		inode_put(must_get(ino));
	s = walked(0);
	assert_int_equal(s.nr, NR_LOW - 1);
	for (ino_nr ino = 1; ino < NR_LOW; ino++)
		assert_int_equal(s.times[ino], 1);
	s = walked(INO_ITER_F_RECLAIMABLE);
	assert_int_equal(s.nr, NR_LOW - 1);
	assert_int_equal(icache_shrink_all(&sb), NR_LOW - 1);
	assert_int_equal(walked(0).nr, 0);
	assert_int_equal(budget_used(sb.s_budget, BUDGET_INDEX), 0);
}

static void test_referenced(void **state)
{
	struct inode *a = must_get(63), *b = must_get(SHARD_BORDER);
	const ino_nr used[] = { 63, SHARD_BORDER };
	struct seen s;

	get_scattered();
	s = walked(INO_ITER_F_REFERENCED);
	assert_seen(&s, used, 2);
	inode_put(a);
	inode_put(b);
	assert_int_equal(walked(INO_ITER_F_REFERENCED).nr, 0);
}

static void test_dirty(void **state)
{
	const ino_nr dirty[] = { 64, RUN_BORDER };
	struct inode *inode;
	struct seen s;

	get_scattered();
	for (size_t i = 0; i < ARRAY_SIZE(dirty); i++) {
		inode = must_get(dirty[i]);
		inode_mark_dirty(inode, I_DIRTY_INODE);
		inode_put(inode);
	}
	s = walked(INO_ITER_F_DIRTY);
	assert_seen(&s, dirty, 2);
	/* Being written counts, though its flags are off already. */
	inode = icache_next_dirty(&sb, UINT64_MAX);
	assert_int_equal(inode->i_ino, 64);
	inode_clear_dirty(inode, I_DIRTY);
	s = walked(INO_ITER_F_DIRTY);
	assert_seen(&s, dirty, 2);
	icache_written(inode);
	inode_put(inode);
	s = walked(INO_ITER_F_DIRTY);
	assert_seen(&s, dirty + 1, 1);
	clean_all();
	assert_int_equal(walked(INO_ITER_F_DIRTY).nr, 0);
}

/* Blocks on their way to the device keep the tag when the flags go. */
static void test_under_writeback_is_dirty(void **state)
{
	const ino_nr ino = 64;
	struct inode *inode = must_get(ino);
	struct seen s;

	inode_mark_dirty(inode, I_DIRTY_PAGES);
	atomic_fetch_add(&inode->i_mapping.m_nr_writeback, 1);
	inode_clear_dirty(inode, I_DIRTY_PAGES);
	s = walked(INO_ITER_F_DIRTY);
	assert_seen(&s, &ino, 1);
	atomic_fetch_sub(&inode->i_mapping.m_nr_writeback, 1);
	assert_int_equal(walked(INO_ITER_F_DIRTY).nr, 0);
	/* The walk of the trees has tidied up. */
	if (sb.s_inode_iter == INODE_ITER_ICACHE)
		assert_false(atomic_load(&inode->i_state) & I_TAGGED);
	inode_put(inode);
}

static void test_new_inode_dirtied_before_it_is_usable(void **state)
{
	const ino_nr ino = 20;
	struct inode *inode = new_inode(ino);
	struct seen s;

	assert_int_equal(icache_insert(&sb, inode), 0);
	atomic_fetch_add(&disk_of(ino)->incarnations, 1);
	inode_mark_dirty(inode, I_DIRTY_INODE);
	inode_set_dontcache(inode);
	assert_int_equal(walked(0).nr, 0);
	assert_int_equal(walked(INO_ITER_F_DIRTY).nr, 0);
	inode_unlock_new(inode);
	s = walked(INO_ITER_F_DIRTY | INO_ITER_F_DONTCACHE);
	assert_seen(&s, &ino, 1);
	inode_put(inode);
	clean_all();
	/* The flusher's put was the last. */
	assert_int_equal(stats().inodes, 0);
}

static void test_reclaimable(void **state)
{
	const ino_nr free_ones[] = { 1, RUN_BORDER };
	struct inode *used = must_get(2), *dirty = must_get(3);
	struct inode *unlinked = must_get(4);
	struct seen s;

	inode_put(must_get(1));
	inode_put(must_get(RUN_BORDER));
	/* These were unused once. */
	inode_put(used);
	used = must_get(2);
	inode_put(dirty);
	dirty = must_get(3);
	inode_mark_dirty(dirty, I_DIRTY_PAGES);
	inode_put(dirty);
	lookup(unlinked, 1);
	unlink_inode(unlinked);
	inode_put(unlinked);
	for (int i = 0; i < 2; i++) {
		s = walked(INO_ITER_F_RECLAIMABLE);
		assert_seen(&s, free_ones, 2);
	}
	inode_put(used);
	clean_all();
	s = walked(INO_ITER_F_RECLAIMABLE);
	assert_int_equal(s.nr, 4);
	forget(4, 1);
}

static void test_dontcache(void **state)
{
	const ino_nr ino[] = { 63, 64 };
	struct inode *a = must_get(63), *b = must_get(64);
	struct seen s;

	get_scattered();
	inode_set_dontcache(a);
	inode_set_dontcache(b);
	s = walked(INO_ITER_F_DONTCACHE);
	assert_seen(&s, ino, 2);
	/* Dirty, so it stays when it is put, and is then wanted again. */
	inode_mark_dirty(b, I_DIRTY_INODE);
	inode_put(b);
	s = walked(INO_ITER_F_DONTCACHE | INO_ITER_F_DIRTY);
	assert_seen(&s, ino + 1, 1);
	b = must_get(64);
	assert_false(atomic_load(&b->i_state) & I_DONTCACHE);
	s = walked(INO_ITER_F_DONTCACHE);
	assert_seen(&s, ino, 1);
	inode_put(a);
	assert_int_equal(walked(INO_ITER_F_DONTCACHE).nr, 0);
	inode_put(b);
	clean_all();
}

static void test_census(void **state)
{
	struct inode *used = must_get(2), *dirty = must_get(3);
	struct inode *unlinked = must_get(4), *once = must_get(5);
	struct icache_census c;

	inode_put(must_get(1));
	inode_mark_dirty(dirty, I_DIRTY_INODE);
	inode_put(dirty);
	lookup(unlinked, 1);
	unlink_inode(unlinked);
	inode_put(unlinked);
	inode_set_dontcache(once);
	icache_take_census(&sb, &c);
	assert_int_equal(c.referenced, 2);
	assert_int_equal(c.dirty, 1);
	assert_int_equal(c.reclaimable, 1);
	assert_int_equal(c.dontcache, 1);
	assert_int_equal(c.unlinked, 1);
	inode_put(used);
	inode_put(once);
	clean_all();
	forget(4, 1);
	icache_take_census(&sb, &c);
	assert_int_equal(c.reclaimable, 3);
	assert_int_equal(c.referenced + c.dirty + c.dontcache + c.unlinked, 0);
}

/* S6, at each place: within a batch, at its end, within a run, behind it. */
static void test_stops_at_once(void **state)
{
	struct seen s;

	for (ino_nr ino = 1; ino < 200; ino++)
		inode_put(must_get(ino));
	get_scattered();
	for (u32 n = 1; n <= 200; n++) {
		s = (struct seen){ .stop_after = n,
				   .stop_with = INO_ITER_RET_ABORT };
		assert_int_equal(super_iter_inodes(&sb, see_referenced, &s, 0), 0);
		assert_int_equal(s.nr, n);
		s = (struct seen){ .stop_after = n, .stop_with = -EIO };
		assert_int_equal(super_iter_inodes(&sb, see_referenced, &s, 0),
				 -EIO);
		assert_int_equal(s.nr, n);
		s = (struct seen){ .stop_after = n,
				   .stop_with = INO_ITER_RET_ABORT };
		super_iter_inodes_unsafe(&sb, see, &s);
		assert_int_equal(s.nr, n);
	}
	/* All references were dropped. */
	assert_int_equal(walked(INO_ITER_F_REFERENCED).nr, 0);
}

static void test_shadows_are_not_seen(void **state)
{
	struct inode *inode = must_get(12);
	struct seen s = { .nr = 0 };

	lookup(inode, 1);
	inode_put(inode);
	icache_shrink_all(&sb);
	assert_int_equal(stats().shadows, 1);
	assert_int_equal(walked(0).nr, 0);
	super_iter_inodes_unsafe(&sb, see, &s);
	assert_int_equal(s.nr, 0);
	forget(12, 1);
}

static void test_walk_gives_and_takes_no_second_chance(void **state)
{
	struct inode *inode = must_get(1);

	inode_put(inode);
	assert_false(atomic_load(&inode->i_state) & I_REFERENCED);
	assert_int_equal(walked(0).nr, 1);
	assert_false(atomic_load(&inode->i_state) & I_REFERENCED);
	inode_put(must_get(1));
	assert_true(atomic_load(&inode->i_state) & I_REFERENCED);
	assert_int_equal(walked(0).nr, 1);
	assert_true(atomic_load(&inode->i_state) & I_REFERENCED);
}

/* The last link goes while the walk is at it: its put deletes. */
static int unlink_seen(struct inode *inode, void *priv)
{
	if (inode->i_ino == 64)
		unlink_inode(inode);
	return see_referenced(inode, priv);
}

static void test_walks_put_may_delete(void **state)
{
	struct seen s = { .nr = 0 };

	get_scattered();
	assert_int_equal(super_iter_inodes(&sb, unlink_seen, &s, 0), 0);
	assert_seen(&s, scattered, ARRAY_SIZE(scattered));
	assert_int_equal(deletes(64), 1);
	assert_int_equal(walked(0).nr, ARRAY_SIZE(scattered) - 1);
}

/* fn may put what others have, and read what was not there: the walk need not
 * see those, nor anything twice. */
static int read_others(struct inode *inode, void *priv)
{
	for (ino_nr ino = 1; ino < 40; ino++)
		inode_put(must_get(ino));
	return see_referenced(inode, priv);
}

static void test_inodes_that_come_are_seen_once_at_most(void **state)
{
	struct seen s = { .nr = 0 };

	inode_put(must_get(20));
	assert_int_equal(super_iter_inodes(&sb, read_others, &s, 0), 0);
	assert_int_equal(s.times[20], 1);
	for (ino_nr ino = 1; ino < 40; ino++)
		assert_true(s.times[ino] <= 1);
}

/* Leaves behind the walk, and comes back before it. */
static int bounce_first(struct inode *inode, void *priv)
{
	struct seen *s = priv;
	ino_nr first = 0;

	for (ino_nr ino = 1; ino <= 64; ino++) {
		if (s->times[ino])
			first = ino;
	}
	if (first) {
		icache_shrink_all(&sb);
		inode_put(must_get(first));
	}
	return see_referenced(inode, priv);
}

static void test_gone_and_back_is_seen_once_at_most(void **state)
{
	struct inode *kept[64];
	struct seen s = { .nr = 0 };

	for (ino_nr ino = 1; ino <= 64; ino++) {
		struct inode *inode = must_get(ino);

		kept[ino - 1] = ino % 2 ? inode : NULL;
		if (!kept[ino - 1])
			inode_put(inode);
	}
	assert_int_equal(super_iter_inodes(&sb, bounce_first, &s, 0), 0);
	for (ino_nr ino = 1; ino <= 64; ino++) {
		assert_true(s.times[ino] <= 1);
		if (kept[ino - 1])
			assert_int_equal(s.times[ino], 1);
		inode_put(kept[ino - 1]);
	}
}

/* ---- S5: claim in the walk, dispose of it afterwards ---- */

static void test_unmount_evicts_by_unsafe_walks(void **state)
{
	struct inode *inode = must_get(12);

	lookup(inode, 1);
	inode_put(inode);
	icache_shrink_all(&sb);
	get_scattered();
	inode = must_get(14);
	lookup(inode, 1);
	unlink_inode(inode);
	inode_put(inode);
	atomic_store(&disk_of(14)->lookups, 0);
	icache_evict_all(&sb);
	assert_int_equal(stats().inodes, 0);
	assert_int_equal(stats().shadows, 0);
	assert_int_equal(deletes(14), 1);
	assert_int_equal(budget_used(sb.s_budget, BUDGET_INDEX), 0);
}

/* ---- S3 in a storm ---- */

#define STORM_THREADS 3
#define NR_PINNED 48u
#define NR_STORMED 160u

/*
 * Three kinds of inodes stay all the time: those with a reference, those
 * that are dirty, those that were unlinked and have a lookup. In between lie
 * others that come and go.
 */
enum pin { PIN_REFERENCED, PIN_DIRTY, PIN_UNLINKED, PIN_KINDS };

static _Atomic bool storm_stop;

/* Inodes of the test, one of four pinned: around both borders. */
static ino_nr storm_ino(u32 i)
{
	return ino_of(NR_LOW + i * 2);
}

static bool is_pinned(u32 i)
{
	return i % 4 == 0;
}

static enum pin pin_kind(u32 i)
{
	return (enum pin)(i / 4 % PIN_KINDS);
}

struct storm {
	struct thread *t;
	u64 rnd;
	u64 lookups[NR_PINNED + NR_STORMED];
};

static void storm_create(ino_nr ino, struct storm *st, u32 i)
{
	struct disk_inode *d = disk_of(ino);
	struct inode *inode;
	bool mine;

	spin_lock(&fs.lock);
	mine = d->state == DISK_FREE;
	if (mine) {
		d->state = DISK_RESERVED;
		d->generation++;
	}
	spin_unlock(&fs.lock);
	if (!mine)
		return;
	inode = new_inode(ino);
	thread_check(icache_insert(&sb, inode) == 0);
	thread_check(atomic_fetch_add(&d->incarnations, 1) == 0);
	spin_lock(&fs.lock);
	d->state = DISK_USED;
	d->nlink = 1;
	spin_unlock(&fs.lock);
	inode_unlock_new(inode);
	lookup(inode, 1);
	st->lookups[i]++;
	inode_put(inode);
}

static void storm_use(ino_nr ino, struct storm *st, u32 i, u64 r)
{
	struct inode *inode;

	if (icache_get(&sb, ino, &inode)) {
		storm_create(ino, st, i);
		return;
	}
	switch (r % 8) {
	case 0:
		unlink_inode(inode);
		break;
	case 1:
		inode_mark_dirty(inode, I_DIRTY_INODE);
		inode_clear_dirty(inode, I_DIRTY_INODE);
		break;
	case 2:
		inode_set_dontcache(inode);
		break;
	case 3:
	case 4:
		lookup(inode, 1);
		st->lookups[i]++;
		break;
	default:
		break;
	}
	inode_put(inode);
}

static void storm_main(void *arg)
{
	struct storm *st = arg;

	while (!atomic_load(&storm_stop)) {
		u64 r = test_random(&st->rnd) >> 8;
		u32 i = r % (NR_PINNED + NR_STORMED);
		ino_nr ino = storm_ino(i);

		r /= NR_PINNED + NR_STORMED;
		if (r % 64 == 0)
			icache_shrink_all(&sb);
		else if (r % 8 == 0)
			budget_drop_all(sb.s_budget);
		budget_throttle(sb.s_budget);
		if (is_pinned(i))
			continue;
		if (r / 64 % 4 == 0 && st->lookups[i]) {
			forget(ino, st->lookups[i]);
			st->lookups[i] = 0;
		} else {
			storm_use(ino, st, i, r / 256);
		}
	}
	for (u32 i = 0; i < NR_PINNED + NR_STORMED; i++) {
		if (st->lookups[i])
			forget(storm_ino(i), st->lookups[i]);
	}
}

static void check_walk(const struct seen *s, u32 flags)
{
	for (u32 i = 0; i < NR_PINNED + NR_STORMED; i++) {
		u8 times = s->times[index_of(storm_ino(i))];
		bool fits;

		thread_check(times <= 1);
		if (!is_pinned(i))
			continue;
		fits = !flags ||
		       (flags == INO_ITER_F_DIRTY && pin_kind(i) == PIN_DIRTY) ||
		       (flags == INO_ITER_F_REFERENCED &&
			pin_kind(i) == PIN_REFERENCED);
		if (fits)
			thread_check(times == 1);
		/* A walk beside this one has references for a moment, too. */
		else if (flags != INO_ITER_F_REFERENCED)
			thread_check(times == 0);
	}
}

static void walker_main(void *arg)
{
	static const u32 flags[] = {
		0, INO_ITER_F_DIRTY, INO_ITER_F_REFERENCED,
		INO_ITER_F_RECLAIMABLE, INO_ITER_F_DONTCACHE,
	};
	struct seen *s = malloc(sizeof(*s));

	thread_check(s);
	for (u32 n = 0; n < TEST_LOAD(10000); n++) {
		u32 f = flags[n % ARRAY_SIZE(flags)];

		memset(s, 0, sizeof(*s));
		thread_check(!super_iter_inodes(&sb, see_referenced, s, f));
		check_walk(s, f);
		memset(s, 0, sizeof(*s));
		super_iter_inodes_unsafe(&sb, see, s);
		check_walk(s, 0);
	}
	free(s);
}

/* Below where requests begin to reclaim: room for some of them only. */
#define STORM_FULL ((8 << 20) - (8 << 20) / 32 - (96 << 10))

static void test_exactly_once_in_a_storm(void **state)
{
	static struct storm st[STORM_THREADS];
	struct inode *pinned[NR_PINNED + NR_STORMED] = { NULL };
	struct thread *walker[2];
	u32 deleted = 0;

	memset(st, 0, sizeof(st));
	atomic_store(&storm_stop, false);
	budget_charge(sb.s_budget, BUDGET_BUFFER, STORM_FULL);
	for (u32 i = 0; i < NR_PINNED + NR_STORMED; i++) {
		struct inode *inode;

		if (!is_pinned(i))
			continue;
		inode = pinned[i] = must_get(storm_ino(i));
		switch (pin_kind(i)) {
		case PIN_REFERENCED:
			continue;
		case PIN_DIRTY:
			inode_mark_dirty(inode, I_DIRTY_PAGES);
			break;
		default:
			lookup(inode, 1);
			unlink_inode(inode);
			break;
		}
		inode_put(inode);
	}
	for (u32 i = 0; i < STORM_THREADS; i++) {
		st[i].rnd = 815 + 4711 * (u64)i;
		assert_int_equal(thread_create(&st[i].t, "storm", storm_main,
					       &st[i]), 0);
	}
	for (u32 i = 0; i < ARRAY_SIZE(walker); i++)
		assert_int_equal(thread_create(&walker[i], "walk", walker_main,
					       NULL), 0);
	for (u32 i = 0; i < ARRAY_SIZE(walker); i++)
		thread_join(walker[i]);
	atomic_store(&storm_stop, true);
	for (u32 i = 0; i < STORM_THREADS; i++)
		thread_join(st[i].t);

	for (u32 i = 0; i < NR_PINNED + NR_STORMED; i++) {
		if (!is_pinned(i))
			continue;
		if (pin_kind(i) == PIN_REFERENCED)
			inode_put(pinned[i]);
		else if (pin_kind(i) == PIN_UNLINKED)
			forget(storm_ino(i), 1);
	}
	clean_all();
	budget_uncharge(sb.s_budget, BUDGET_BUFFER, STORM_FULL);
	/* The zones' threads may still be at some: those are passed by, and go. */
	do
		icache_shrink_all(&sb);
	while (stats().inodes && !usleep(1000));
	assert_int_equal(stats().shadows, 0);
	assert_int_equal(budget_used(sb.s_budget, BUDGET_INDEX), 0);
	for (u32 i = 0; i < NR_PINNED + NR_STORMED; i++) {
		if (is_pinned(i))
			assert_int_equal(deletes(storm_ino(i)),
					 pin_kind(i) == PIN_UNLINKED);
		else
			deleted += deletes(storm_ino(i));
	}
	assert_true(deleted > 0);
	assert_true(atomic_load(&fs.evicted) > 0);
}

#define ON_ALL(f)                                                              \
	T_ITER(f, &iter_icache), T_ITER(f, &iter_percpu), T_ITER(f, &iter_global)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ON_ALL(test_the_way_is_the_one_asked_for),
		ON_ALL(test_nothing_to_see),
		ON_ALL(test_each_inode_once),
		ON_ALL(test_many),
		ON_ALL(test_referenced),
		ON_ALL(test_dirty),
		ON_ALL(test_under_writeback_is_dirty),
		ON_ALL(test_new_inode_dirtied_before_it_is_usable),
		ON_ALL(test_reclaimable),
		ON_ALL(test_dontcache),
		ON_ALL(test_census),
		ON_ALL(test_stops_at_once),
		ON_ALL(test_shadows_are_not_seen),
		ON_ALL(test_walk_gives_and_takes_no_second_chance),
		ON_ALL(test_walks_put_may_delete),
		ON_ALL(test_inodes_that_come_are_seen_once_at_most),
		ON_ALL(test_gone_and_back_is_seen_once_at_most),
		ON_ALL(test_unmount_evicts_by_unsafe_walks),
		ON_ALL(test_exactly_once_in_a_storm),
	};

	thread_register();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
