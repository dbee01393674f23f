/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/cache/test_icache.c - the inode cache over a file system in memory
 *
 * The file system is that of icache_test.h.
 */
#include "tests/unit/cache/icache_test.h"

/* ---- getting ---- */

static void test_second_get_is_a_hit(void **state)
{
	struct inode *a = must_get(12);
	struct inode *b = must_get(12);

	assert_ptr_equal(a, b);
	assert_int_equal(atomic_load(&a->i_count), 2);
	assert_int_equal(a->i_generation, 12);
	inode_put(a);
	inode_put(b);
	b = icache_find(&sb, 12);
	assert_ptr_equal(a, b);
	inode_put(b);
	inode_put(NULL);
	assert_null(icache_find(&sb, 13));
	assert_int_equal(atomic_load(&disk_of(12)->reads), 1);
	assert_int_equal(stats().misses, 1);
	assert_int_equal(stats().hits, 2);
	assert_int_equal(stats().inodes, 1);
}

static void test_numbers_out_of_range(void **state)
{
	struct inode *inode;

	assert_int_equal(icache_get(&sb, 0, &inode), -ESTALE);
	assert_int_equal(icache_get(&sb, MAX_INO + 1, &inode), -ESTALE);
	assert_int_equal(icache_get(&sb, UINT32_MAX, &inode), -ESTALE);
	assert_null(icache_find(&sb, UINT32_MAX));
	icache_forget(&sb, UINT32_MAX, 1);
	icache_forget(&sb, MAX_INO, 1);
	/* In range, and not in use. */
	assert_int_equal(icache_get(&sb, MAX_INO, &inode), -ESTALE);
}

static void test_failed_read_leaves_nothing(void **state)
{
	struct inode *inode;

	atomic_store(&fs.read_error, EIO);
	assert_int_equal(icache_get(&sb, 12, &inode), -EIO);
	assert_int_equal(stats().inodes, 0);
	assert_false(is_cached(12));
	atomic_store(&fs.read_error, 0);
	inode_put(must_get(12));
	assert_int_equal(atomic_load(&disk_of(12)->reads), 2);
	atomic_store(&fs.no_memory, true);
	assert_int_equal(icache_get(&sb, 13, &inode), -ENOMEM);
	atomic_store(&fs.no_memory, false);
}

struct getter {
	struct thread *t;
	ino_nr ino;
	struct inode *inode;
	int error;
	_Atomic bool done;
};

static void getter_main(void *arg)
{
	struct getter *g = arg;

	g->error = icache_get(&sb, g->ino, &g->inode);
	atomic_store(&g->done, true);
	wake_up(&fs);
}

static void getter_start(struct getter *g, ino_nr ino)
{
	memset(g, 0, sizeof(*g));
	g->ino = ino;
	assert_int_equal(thread_create(&g->t, "get", getter_main, g), 0);
}

static void close_gate(_Atomic bool *gate)
{
	atomic_store(gate, true);
}

static void open_gate(_Atomic bool *gate)
{
	atomic_store(gate, false);
	wake_up(&fs);
}

static void test_concurrent_misses_read_once(void **state)
{
	struct getter g[4];

	close_gate(&fs.read_gate);
	for (int i = 0; i < 4; i++)
		getter_start(&g[i], 12);
	test_wait(&fs, atomic_load(&fs.at_read) == 1);
	open_gate(&fs.read_gate);
	for (int i = 0; i < 4; i++) {
		thread_join(g[i].t);
		assert_int_equal(g[i].error, 0);
		assert_ptr_equal(g[i].inode, g[0].inode);
	}
	for (int i = 0; i < 4; i++)
		inode_put(g[i].inode);
	assert_int_equal(atomic_load(&disk_of(12)->reads), 1);
}

static void test_waiters_of_a_failed_read_return(void **state)
{
	struct getter g[4];

	atomic_store(&fs.read_error, EIO);
	close_gate(&fs.read_gate);
	for (int i = 0; i < 4; i++)
		getter_start(&g[i], 12);
	test_wait(&fs, atomic_load(&fs.at_read) == 1);
	open_gate(&fs.read_gate);
	for (int i = 0; i < 4; i++) {
		thread_join(g[i].t);
		assert_int_equal(g[i].error, -EIO);
	}
	assert_int_equal(stats().inodes, 0);
}

static void shrink_main(void *arg)
{
	icache_shrink_all(&sb);
}

static void test_get_waits_for_eviction_and_reads_again(void **state)
{
	struct thread *shrinker;
	struct getter g;

	inode_put(must_get(12));
	close_gate(&fs.evict_gate);
	assert_int_equal(thread_create(&shrinker, "shrink", shrink_main, NULL), 0);
	test_wait(&fs, atomic_load(&fs.at_evict) == 1);
	getter_start(&g, 12);
	for (int i = 0; i < 100; i++)
		sched_yield();
	assert_false(atomic_load(&g.done));
	assert_int_equal(atomic_load(&disk_of(12)->reads), 1);
	open_gate(&fs.evict_gate);
	thread_join(g.t);
	thread_join(shrinker);
	assert_int_equal(g.error, 0);
	assert_int_equal(atomic_load(&disk_of(12)->reads), 2);
	inode_put(g.inode);
}

/* ---- new inodes ---- */

static void test_new_inode_is_usable_when_unlocked(void **state)
{
	struct inode *inode = new_inode(20);
	struct getter g;

	assert_int_equal(icache_insert(&sb, inode), 0);
	atomic_fetch_add(&disk_of(20)->incarnations, 1);
	inode_mark_dirty(inode, I_DIRTY_INODE);
	/* Not before it is whole. */
	assert_null(icache_next_dirty(&sb, UINT64_MAX));
	getter_start(&g, 20);
	for (int i = 0; i < 100; i++)
		sched_yield();
	assert_false(atomic_load(&g.done));
	inode_unlock_new(inode);
	thread_join(g.t);
	assert_int_equal(g.error, 0);
	assert_ptr_equal(g.inode, inode);
	assert_int_equal(atomic_load(&disk_of(20)->reads), 0);
	inode_put(g.inode);
	g.inode = icache_next_dirty(&sb, UINT64_MAX);
	assert_ptr_equal(g.inode, inode);
	inode_clear_dirty(inode, I_DIRTY);
	icache_written(inode);
	inode_put(inode);
	inode_put(inode);
}

static void test_new_inode_over_an_old_one(void **state)
{
	struct inode *old = must_get(20);
	struct inode *inode = new_inode(20);

	assert_int_equal(icache_insert(&sb, inode), -EFSCORRUPTED);
	lookup(old, 1);
	inode_put(old);
	icache_shrink_all(&sb);
	assert_int_equal(stats().shadows, 1);
	assert_int_equal(icache_insert(&sb, inode), -EFSCORRUPTED);
	forget(20, 1);
	inode->i_ino = MAX_INO + 1;
	assert_int_equal(icache_insert(&sb, inode), -EFSCORRUPTED);
	mapping_destroy(&inode->i_mapping);
	fs_free_inode(inode);
}

static void put_main(void *arg)
{
	inode_put(arg);
}

struct inserter {
	struct inode *inode;
	int error;
	_Atomic bool done;
};

static void insert_main(void *arg)
{
	struct inserter *in = arg;

	in->error = icache_insert(&sb, in->inode);
	atomic_store(&in->done, true);
}

static void test_number_reused_while_deletion_ends(void **state)
{
	struct inode *old = must_get(20);
	struct inserter in = { .inode = new_inode(20) };
	struct thread *putter, *t;

	unlink_inode(old);
	close_gate(&fs.evict_gate);
	assert_int_equal(thread_create(&putter, "put", put_main, old), 0);
	test_wait(&fs, atomic_load(&fs.at_evict) == 1);
	assert_int_equal(thread_create(&t, "insert", insert_main, &in), 0);
	for (int i = 0; i < 100; i++)
		sched_yield();
	assert_false(atomic_load(&in.done));
	open_gate(&fs.evict_gate);
	thread_join(putter);
	thread_join(t);
	assert_int_equal(in.error, 0);
	atomic_fetch_add(&disk_of(20)->incarnations, 1);
	inode_unlock_new(in.inode);
	inode_put(in.inode);
	assert_int_equal(deletes(20), 1);
}

/* ---- lookups and shadows ---- */

static void test_lookups_survive_eviction(void **state)
{
	struct inode *inode = must_get(12);

	lookup(inode, 3);
	inode_put(inode);
	assert_int_equal(icache_shrink_all(&sb), 1);
	assert_false(is_cached(12));
	assert_int_equal(stats().shadows, 1);
	assert_int_equal(stats().inodes, 0);
	inode = must_get(12);
	assert_int_equal(inode->i_nlookup, 3);
	assert_int_equal(stats().shadows, 0);
	inode_put(inode);
	forget(12, 3);
	assert_int_equal(inode->i_nlookup, 0);
	assert_int_equal(icache_shrink_all(&sb), 1);
	assert_int_equal(stats().shadows, 0);
}

static void test_forget_of_a_shadow(void **state)
{
	struct inode *inode = must_get(12);

	lookup(inode, 5);
	inode_put(inode);
	icache_shrink_all(&sb);
	forget(12, 2);
	assert_int_equal(stats().shadows, 1);
	inode = must_get(12);
	assert_int_equal(inode->i_nlookup, 3);
	inode_put(inode);
	icache_shrink_all(&sb);
	forget(12, 3);
	assert_int_equal(stats().shadows, 0);
	/* More than there are: no harm. */
	icache_forget(&sb, 12, 1);
	inode = must_get(12);
	icache_forget(&sb, 12, 7);
	assert_int_equal(inode->i_nlookup, 0);
	inode_put(inode);
}

static void test_failed_read_keeps_the_lookups(void **state)
{
	struct inode *inode = must_get(12);

	lookup(inode, 5);
	inode_put(inode);
	icache_shrink_all(&sb);
	atomic_store(&fs.read_error, EIO);
	assert_int_equal(icache_get(&sb, 12, &inode), -EIO);
	assert_int_equal(stats().shadows, 1);
	atomic_store(&fs.read_error, 0);
	inode = must_get(12);
	assert_int_equal(inode->i_nlookup, 5);
	inode_put(inode);
	forget(12, 5);
}

static void test_count_too_large_for_a_shadow_stays(void **state)
{
	struct inode *inode = must_get(12);

	spin_lock(&inode->i_lock);
	inode->i_nlookup = 1u << 24;
	spin_unlock(&inode->i_lock);
	inode_put(inode);
	assert_int_equal(icache_shrink_all(&sb), 0);
	icache_forget(&sb, 12, 1);
	assert_int_equal(icache_shrink_all(&sb), 1);
	inode = must_get(12);
	assert_int_equal(inode->i_nlookup, (1u << 24) - 1);
	inode_put(inode);
	icache_forget(&sb, 12, (1u << 24) - 1);
}

static void test_empty_nodes_are_freed(void **state)
{
	/* One leaf each; far apart and near. */
	const ino_nr ino[] = { 1, 63, 64, 65, 4095 };
	struct inode *inode;

	for (size_t i = 0; i < ARRAY_SIZE(ino); i++) {
		inode = must_get(ino[i]);
		lookup(inode, 1);
		inode_put(inode);
	}
	icache_shrink_all(&sb);
	assert_int_equal(budget_used(sb.s_budget, BUDGET_INODE), 0);
	assert_true(budget_used(sb.s_budget, BUDGET_INDEX) > 0);
	for (size_t i = 0; i < ARRAY_SIZE(ino); i++)
		forget(ino[i], 1);
	assert_int_equal(budget_used(sb.s_budget, BUDGET_INDEX), 0);
	inode_put(must_get(64));
}

/* FORGET meets an inode that is being evicted: its count is still there, and the
 * shadow gets what is left. */
static void test_forget_during_eviction(void **state)
{
	for (u64 left = 0; left <= 3; left += 3) {
		struct inode *inode = must_get(12);
		struct thread *shrinker;

		lookup(inode, 5);
		inode_put(inode);
		close_gate(&fs.evict_gate);
		assert_int_equal(thread_create(&shrinker, "shrink", shrink_main,
					       NULL), 0);
		test_wait(&fs, atomic_load(&fs.at_evict) == 1);
		forget(12, 5 - left);
		open_gate(&fs.evict_gate);
		thread_join(shrinker);
		assert_int_equal(stats().inodes, 0);
		assert_int_equal(stats().shadows, left ? 1 : 0);
		inode = must_get(12);
		assert_int_equal(inode->i_nlookup, left);
		inode_put(inode);
		if (left)
			forget(12, left);
	}
	assert_int_equal(deletes(12), 0);
}

/* ---- deletion ---- */

static void test_unlinked_is_deleted_by_last_put(void **state)
{
	struct inode *inode = must_get(12);

	lookup(inode, 1);
	unlink_inode(inode);
	forget(12, 1);
	assert_int_equal(deletes(12), 0);
	inode_get(inode);
	inode_put(inode);
	assert_int_equal(deletes(12), 0);
	inode_put(inode);
	assert_int_equal(deletes(12), 1);
	assert_false(is_cached(12));
	assert_int_equal(icache_get(&sb, 12, &inode), -ESTALE);
}

static void test_unlinked_is_deleted_by_last_forget(void **state)
{
	struct inode *inode = must_get(12);

	lookup(inode, 3);
	unlink_inode(inode);
	inode_mark_dirty(inode, I_DIRTY);
	inode_put(inode);
	forget(12, 2);
	/* An orphan is kept, also by reclaim. */
	icache_shrink_all(&sb);
	budget_drop_all(sb.s_budget);
	assert_true(is_cached(12));
	assert_int_equal(deletes(12), 0);
	forget(12, 1);
	assert_int_equal(deletes(12), 1);
	assert_null(icache_next_dirty(&sb, UINT64_MAX));
}

static void test_orphan_found_at_mount_is_deleted(void **state)
{
	disk_of(12)->nlink = 0;
	inode_put(must_get(12));
	assert_int_equal(deletes(12), 1);
}

static void test_dontcache_goes_at_last_put(void **state)
{
	struct inode *inode = must_get(12);

	inode_set_dontcache(inode);
	lookup(inode, 1);
	inode_put(inode);
	assert_int_equal(stats().inodes, 0);
	assert_int_equal(stats().shadows, 1);
	forget(12, 1);
	assert_int_equal(deletes(12), 0);
}

/* A sync passes by what is torn down: it must find the data under WRITEBACK. */
static void test_dontcache_under_writeback_stays(void **state)
{
	struct inode *inode = must_get(12);

	inode_set_dontcache(inode);
	atomic_fetch_add(&inode->i_mapping.m_nr_writeback, 1);
	inode_put(inode);
	assert_int_equal(stats().inodes, 1);
	assert_false(atomic_load(&inode->i_state) & I_FREEING);
	atomic_fetch_sub(&inode->i_mapping.m_nr_writeback, 1);
	(void)icache_shrink_all(&sb);
	assert_int_equal(stats().inodes, 0);
}

/* ---- inodes that only a listing wanted ---- */

static void write_clean(struct inode *inode)
{
	inode_clear_dirty(inode, I_DIRTY);
	icache_written(inode);
	inode_put(inode);
}

static struct inode *must_scan(ino_nr ino)
{
	struct inode *inode = NULL;

	assert_int_equal(icache_get_scan(&sb, ino, &inode), 0);
	assert_int_equal(inode->i_ino, ino);
	return inode;
}

static void test_scanned_once_becomes_a_shadow(void **state)
{
	struct inode *inode = must_scan(12);

	lookup(inode, 1);
	assert_true(atomic_load(&inode->i_state) & I_DONTCACHE);
	inode_put(inode);
	assert_int_equal(stats().inodes, 0);
	assert_int_equal(stats().shadows, 1);
	forget(12, 1);
}

static void test_scanned_then_used_stays(void **state)
{
	struct inode *scan = must_scan(12), *again = must_scan(12);

	/* Scanning it again is no use. */
	inode_put(again);
	assert_true(atomic_load(&scan->i_state) & I_DONTCACHE);
	inode_mark_dirty(scan, I_DIRTY_INODE);
	inode_put(scan);
	assert_int_equal(stats().inodes, 1);
	inode_put(must_get(12));
	scan = icache_next_dirty(&sb, UINT64_MAX);
	assert_non_null(scan);
	write_clean(scan);
	assert_int_equal(stats().inodes, 1);
	assert_true(is_cached(12));
}

static void test_scan_takes_no_notice_of_cached_ones(void **state)
{
	struct inode *inode = must_get(12);

	inode_put(inode);
	inode_put(must_scan(12));
	assert_false(atomic_load(&inode->i_state) & (I_DONTCACHE | I_REFERENCED));
	assert_null(icache_find_scan(&sb, 13));
	inode_put(icache_find_scan(&sb, 12));
	assert_false(atomic_load(&inode->i_state) & I_REFERENCED);
}

/* ---- refaults ---- */

/* Leaves a shadow of each in [first, last]. */
static void evict_range(ino_nr first, ino_nr last)
{
	for (ino_nr ino = first; ino <= last; ino++) {
		struct inode *inode = must_scan(ino);

		lookup(inode, 1);
		inode_put(inode);
	}
}

static void forget_range(ino_nr first, ino_nr last)
{
	for (ino_nr ino = first; ino <= last; ino++)
		forget(ino, 1);
}

static void test_refault_soon_gives_a_second_chance(void **state)
{
	struct inode *inode;

	/* The cache holds ten. */
	for (ino_nr ino = 1000; ino < 1010; ino++)
		inode_put(must_get(ino));
	evict_range(100, 104);
	/* Five evictions ago, four, ...: all near. */
	inode = must_get(100);
	assert_true(atomic_load(&inode->i_state) & I_REFERENCED);
	inode_put(inode);
	assert_int_equal(stats().refaults, 1);
	assert_int_equal(stats().refaults_near, 1);
	assert_int_equal(stats().thrashed, 0);
	/* By a listing as well: it is the second time that it is wanted. */
	inode = must_scan(101);
	assert_false(atomic_load(&inode->i_state) & I_DONTCACHE);
	inode_put(inode);
	assert_int_equal(stats().inodes, 12);
	forget_range(100, 104);
}

static void test_refault_late_gives_none(void **state)
{
	struct inode *inode;

	for (ino_nr ino = 1000; ino < 1010; ino++)
		inode_put(must_get(ino));
	evict_range(100, 150);
	inode = must_get(100);
	assert_false(atomic_load(&inode->i_state) & I_REFERENCED);
	inode_put(inode);
	assert_int_equal(stats().refaults, 1);
	assert_int_equal(stats().refaults_near, 0);
	forget_range(100, 150);
}

static void test_thrashing_is_counted(void **state)
{
	struct inode *inode;

	for (ino_nr ino = 1000; ino < 1010; ino++)
		inode_put(must_get(ino));
	inode = must_get(100);
	lookup(inode, 1);
	inode_put(inode);
	/* Wanted twice, and yet evicted: it is missed soon after. */
	inode = must_get(100);
	inode_set_dontcache(inode);
	inode_put(inode);
	assert_int_equal(stats().shadows, 1);
	inode_put(must_get(100));
	assert_int_equal(stats().thrashed, 1);
	/* And again: it was in the working set by that. */
	inode = must_get(100);
	spin_lock(&inode->i_lock);
	atomic_fetch_and(&inode->i_state, ~(u32)I_REFERENCED);
	spin_unlock(&inode->i_lock);
	inode_set_dontcache(inode);
	inode_put(inode);
	inode_put(must_get(100));
	assert_int_equal(stats().thrashed, 2);
	forget(100, 1);
}

/* ---- attributes without a lock ---- */

static void test_peek_at_attributes(void **state)
{
	struct inode *inode = must_get(12);
	struct inode_attrs a;
	u32 touched;

	inode_attrs_lock(inode);
	inode->i_size = 4711;
	inode->i_uid = 7;
	inode->i_mtime.tv_nsec = 5;
	inode_attrs_unlock(inode);
	assert_int_equal(icache_peek_attrs(&sb, 12, &a), 0);
	assert_int_equal(a.size, 4711);
	assert_int_equal(a.uid, 7);
	assert_int_equal(a.mtime.tv_nsec, 5);
	assert_int_equal(a.nlink, 1);
	assert_int_equal(a.generation, 12);
	inode_attrs_lock(inode);
	assert_int_equal(icache_peek_attrs(&sb, 12, &a), -EAGAIN);
	inode_attrs_unlock(inode);
	assert_int_equal(icache_peek_attrs(&sb, 12, &a), 0);
	inode_put(inode);
	/* Unused, and not known to be used: that must be noted first. */
	touched = atomic_load(&inode->i_state) & I_REFERENCED;
	assert_int_equal(touched, 0);
	assert_int_equal(icache_peek_attrs(&sb, 12, &a), -EAGAIN);
	inode_put(must_get(12));
	assert_int_equal(icache_peek_attrs(&sb, 12, &a), 0);
	assert_int_equal(atomic_load(&inode->i_count), 0);
	assert_int_equal(icache_peek_attrs(&sb, 13, &a), -EAGAIN);
	assert_int_equal(icache_peek_attrs(&sb, 0, &a), -EAGAIN);
	assert_int_equal(icache_peek_attrs(&sb, UINT32_MAX, &a), -EAGAIN);
	inode_get_attrs(must_get(12), &a);
	assert_int_equal(a.size, 4711);
	inode_put(inode);
}

static void test_peek_sees_no_shadow_nor_half_an_inode(void **state)
{
	struct inode *inode = must_get(12);
	struct inode_attrs a;
	struct getter g;

	lookup(inode, 1);
	inode_put(inode);
	icache_shrink_all(&sb);
	assert_int_equal(stats().shadows, 1);
	assert_int_equal(icache_peek_attrs(&sb, 12, &a), -EAGAIN);
	close_gate(&fs.read_gate);
	getter_start(&g, 12);
	test_wait(&fs, atomic_load(&fs.at_read) == 1);
	/* I_NEW, with a reference. */
	assert_int_equal(icache_peek_attrs(&sb, 12, &a), -EAGAIN);
	open_gate(&fs.read_gate);
	thread_join(g.t);
	assert_int_equal(icache_peek_attrs(&sb, 12, &a), 0);
	inode_put(g.inode);
	forget(12, 1);
}

static _Atomic bool attrs_stop;

/* All fields bear one number. */
static void attrs_writer(void *arg)
{
	struct inode *inode = arg;

	for (u32 n = 1; !atomic_load(&attrs_stop); n++) {
		inode_attrs_lock(inode);
		inode->i_uid = inode->i_gid = n;
		inode->i_size = inode->i_blocks = n;
		inode->i_atime.tv_sec = inode->i_mtime.tv_sec = n;
		inode->i_ctime.tv_nsec = inode->i_ctime.tv_sec = n;
		inode_attrs_unlock(inode);
	}
}

static void check_attrs(const struct inode_attrs *a)
{
	u32 n = a->uid;

	thread_check(a->gid == n && a->size == n && a->blocks == n);
	thread_check(a->atime.tv_sec == n && a->mtime.tv_sec == n);
	thread_check(a->ctime.tv_sec == n && a->ctime.tv_nsec == n);
}

static void attrs_reader(void *arg)
{
	struct inode *inode = arg;

	for (u32 i = 0; i < TEST_LOAD(200000); i++) {
		struct inode_attrs a;

		if (!icache_peek_attrs(&sb, inode->i_ino, &a))
			check_attrs(&a);
		inode_get_attrs(inode, &a);
		check_attrs(&a);
	}
}

static void test_attributes_are_of_one_moment(void **state)
{
	struct inode *inode = must_get(12);
	struct thread *reader[2], *writer;

	atomic_store(&attrs_stop, false);
	assert_int_equal(thread_create(&writer, "writer", attrs_writer, inode), 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(thread_create(&reader[i], "reader", attrs_reader,
					       inode), 0);
	for (int i = 0; i < 2; i++)
		thread_join(reader[i]);
	atomic_store(&attrs_stop, true);
	thread_join(writer);
	inode_put(inode);
}

/* ---- reclaim ---- */

static void test_inodes_in_use_or_dirty_stay(void **state)
{
	struct inode *used = must_get(1);
	struct inode *dirty = must_get(2);

	inode_mark_dirty(dirty, I_DIRTY_INODE);
	inode_put(dirty);
	inode_put(must_get(3));
	assert_int_equal(icache_shrink_all(&sb), 1);
	assert_true(is_cached(1));
	assert_true(is_cached(2));
	inode_clear_dirty(dirty, I_DIRTY_INODE);
	inode_put(used);
	inode_put(must_get(2));
	assert_int_equal(icache_shrink_all(&sb), 2);
}

static void test_second_chance(void **state)
{
	for (ino_nr ino = 100; ino < 200; ino++)
		inode_put(must_get(ino));
	inode_put(must_get(150));
	/* First passes: all but the one that was used again. */
	budget_drop_all(sb.s_budget);
	assert_int_equal(stats().inodes, 0);
	assert_int_equal(stats().evicted, 100);
}

static void load_main(void *arg)
{
	u64 rnd = (u64)(uintptr_t)arg | 1;

	for (u32 i = 0; i < TEST_LOAD(40000); i++) {
		ino_nr ino = 1 + (ino_nr)(i % 8 ? test_random(&rnd) % 4000 : 0);
		struct inode *inode;

		budget_throttle(sb.s_budget);
		thread_check(!icache_get(&sb, ino, &inode));
		thread_check(inode->i_ino == ino && inode->i_generation == ino);
		inode_put(inode);
	}
}

/* How often the inode that all use had to be read. */
static u32 reads_under_load(void)
{
	struct thread *t[3];
	u32 before = atomic_load(&disk_of(1)->reads);

	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		assert_int_equal(thread_create(&t[i], "load", load_main,
					       (void *)(uintptr_t)(99 + 77 * i)),
				 0);
	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		thread_join(t[i]);
	assert_true(test_budget_used(sb.s_budget) <= 9 << 20);
	return atomic_load(&disk_of(1)->reads) - before;
}

/* A cache of 8 MiB, 6 of them in use by others: 2048 inodes of 4000. */
static void test_reclaim_under_load(void **state)
{
	u32 reads, tries = 0;

	budget_charge(sb.s_budget, BUDGET_BUFFER, 6 << 20);
	/*
	 * It stays; but passes that follow each other while those who use it have no
	 * CPU take it, now and then. Like any other it would go some fifty times.
	 */
	do
		reads = reads_under_load();
	while (reads >= 20 && ++tries < 5);
	assert_true(reads < 20);
	assert_true(stats().evicted > 0);
	budget_uncharge(sb.s_budget, BUDGET_BUFFER, 6 << 20);
}

/* ---- the dirty list ---- */

static struct inode *dirty_inode(ino_nr ino)
{
	struct inode *inode = must_get(ino);

	inode_mark_dirty(inode, I_DIRTY_PAGES);
	inode_put(inode);
	return inode;
}

static ino_nr next_ino(u64 older_than, struct inode **inode)
{
	*inode = icache_next_dirty(&sb, older_than);
	return *inode ? (*inode)->i_ino : 0;
}

static void test_dirty_inodes_come_oldest_first(void **state)
{
	struct inode *inode;
	u64 between;

	dirty_inode(5);
	dirty_inode(3);
	/* Dirtying it again does not make it younger. */
	dirty_inode(5);
	between = clock_mono_ns();
	while (clock_mono_ns() == between)
		;
	dirty_inode(4);
	assert_int_equal(next_ino(0, &inode), 0);
	assert_int_equal(next_ino(between, &inode), 5);
	assert_true(atomic_load(&inode->i_state) & I_SYNC);
	assert_int_equal(atomic_load(&inode->i_count), 1);
	write_clean(inode);
	assert_int_equal(next_ino(between, &inode), 3);
	write_clean(inode);
	assert_int_equal(next_ino(between, &inode), 0);
	assert_int_equal(next_ino(UINT64_MAX, &inode), 4);
	write_clean(inode);
	assert_int_equal(next_ino(UINT64_MAX, &inode), 0);
	assert_int_equal(icache_shrink_all(&sb), 3);
}

static void test_redirtied_under_sync_stays_queued(void **state)
{
	struct inode *inode;

	dirty_inode(5);
	assert_int_equal(next_ino(UINT64_MAX, &inode), 5);
	inode_clear_dirty(inode, I_DIRTY_PAGES);
	inode_mark_dirty(inode, I_DIRTY_INODE);
	/* Not twice at once. */
	assert_null(icache_next_dirty(&sb, UINT64_MAX));
	icache_written(inode);
	inode_put(inode);
	assert_int_equal(next_ino(UINT64_MAX, &inode), 5);
	write_clean(inode);
	assert_null(icache_next_dirty(&sb, UINT64_MAX));
}

/* Slices: what is not finished comes again, after the others, as old as it is. */
static void test_unfinished_comes_after_the_others(void **state)
{
	struct inode *inode;
	u64 now;

	dirty_inode(5);
	dirty_inode(6);
	now = clock_mono_ns();
	assert_int_equal(next_ino(now, &inode), 5);
	icache_written(inode);
	inode_put(inode);
	assert_int_equal(next_ino(now, &inode), 6);
	icache_written(inode);
	inode_put(inode);
	assert_int_equal(next_ino(now, &inode), 5);
	write_clean(inode);
	assert_int_equal(next_ino(now, &inode), 6);
	write_clean(inode);
	assert_int_equal(next_ino(now, &inode), 0);
}

static void test_pages_dirty_in_the_mapping_keep_the_flag(void **state)
{
	struct inode *inode = must_get(5);

	inode_mark_dirty(inode, I_DIRTY_PAGES);
	atomic_fetch_add(&inode->i_mapping.m_nr_dirty, 1);
	inode_clear_dirty(inode, I_DIRTY_PAGES);
	assert_true(atomic_load(&inode->i_state) & I_DIRTY_PAGES);
	atomic_fetch_sub(&inode->i_mapping.m_nr_dirty, 1);
	inode_clear_dirty(inode, I_DIRTY_PAGES);
	assert_false(atomic_load(&inode->i_state) & I_DIRTY_PAGES);
	assert_null(icache_next_dirty(&sb, UINT64_MAX));
	inode_put(inode);
}

static void written_main(void *arg)
{
	write_clean(arg);
}

/* A writer has dirtied a block and not yet said so when an fsync begins: his word,
 * when it comes, queues the inode. */
static void test_dirtied_before_it_is_marked(void **state)
{
	struct inode *inode = must_get(5), *next;

	atomic_fetch_add(&inode->i_mapping.m_nr_dirty, 1);
	inode_clear_dirty(inode, I_DIRTY_PAGES);
	assert_null(icache_next_dirty(&sb, UINT64_MAX));
	inode_mark_dirty(inode, I_DIRTY_PAGES | I_DIRTY_INODE);
	next = icache_next_dirty(&sb, UINT64_MAX);
	assert_ptr_equal(next, inode);
	atomic_fetch_sub(&inode->i_mapping.m_nr_dirty, 1);
	inode_clear_dirty(inode, I_DIRTY);
	icache_written(next);
	inode_put(next);
	inode_put(inode);
}

static void test_waiting_for_another_flusher(void **state)
{
	struct inode *inode, *mine;
	struct thread *t;

	assert_false(icache_wait_writers(&sb));
	dirty_inode(5);
	mine = must_get(5);
	assert_int_equal(next_ino(UINT64_MAX, &inode), 5);
	assert_int_equal(thread_create(&t, "flusher", written_main, inode), 0);
	inode_wait_sync(mine);
	assert_false(atomic_load(&mine->i_state) & I_SYNC);
	thread_join(t);
	inode_mark_dirty(mine, I_DIRTY_PAGES);
	assert_int_equal(next_ino(UINT64_MAX, &inode), 5);
	assert_int_equal(thread_create(&t, "flusher", written_main, inode), 0);
	icache_wait_writers(&sb);
	assert_false(atomic_load(&mine->i_state) & I_SYNC);
	thread_join(t);
	inode_put(mine);
}

/* ---- unmounting ---- */

static void test_unmount_forgets_deletes_evicts(void **state)
{
	struct inode *inode = must_get(12);

	lookup(inode, 4);
	inode_put(inode);
	inode = must_get(13);
	lookup(inode, 1);
	inode_put(inode);
	icache_shrink_all(&sb);
	inode = must_get(14);
	lookup(inode, 2);
	unlink_inode(inode);
	inode_put(inode);
	inode_put(must_get(15));
	/* The kernel is gone. */
	atomic_store(&disk_of(14)->lookups, 0);
	icache_evict_all(&sb);
	assert_int_equal(deletes(14), 1);
	assert_int_equal(stats().inodes, 0);
	assert_int_equal(stats().shadows, 0);
	assert_int_equal(atomic_load(&test_errors), 0);
}

static void test_unmount_reports_what_is_left(void **state)
{
	struct inode *used = must_get(12);
	struct inode *dirty = must_get(13);

	atomic_store(&test_quiet, 1);
	inode_mark_dirty(dirty, I_DIRTY_INODE);
	inode_put(dirty);
	icache_evict_all(&sb);
	assert_int_equal(atomic_load(&test_errors), 2);
	assert_int_equal(stats().inodes, 1);
	inode_put(used);
}

static void test_lookup_without_a_reference(void **state)
{
	struct inode *inode = must_get(12), *again = must_get(12);
	struct inode_attrs a;

	inode_put(again);
	inode_put(inode);
	/* Not noted as used twice, or not there at all: the ordinary way. */
	rcu_read_lock();
	assert_null(icache_peek_rcu(&sb, 13));
	assert_null(icache_peek_rcu(&sb, MAX_INO + 1));
	rcu_read_unlock();
	inode_put(must_get(12));
	rcu_read_lock();
	assert_ptr_equal(icache_peek_rcu(&sb, 12), inode);
	assert_true(inode_peek_attrs(inode, &a));
	assert_true(inode_lookup_inc_rcu(inode));
	assert_true(inode_lookup_inc_rcu(inode));
	rcu_read_unlock();
	atomic_fetch_add(&disk_of(12)->lookups, 2);
	assert_int_equal(inode_nlookup(inode), 2);
	/* Kept over its eviction, and it keeps an unlinked one. */
	icache_shrink_all(&sb);
	assert_false(is_cached(12));
	inode = must_get(12);
	assert_int_equal(inode_nlookup(inode), 2);
	unlink_inode(inode);
	inode_put(inode);
	assert_int_equal(deletes(12), 0);
	forget(12, 2);
	assert_int_equal(deletes(12), 1);
}

/* While the end of an inode is under way, and after it, no lookup is counted. */
static void evicting_main(void *arg)
{
	(void)icache_shrink_all(&sb);
}

static void test_lookup_of_an_inode_on_its_way_out(void **state)
{
	struct inode *inode;
	struct thread *t;

	inode_put(must_get(12));
	inode_put(must_get(12));
	rcu_read_lock();
	inode = icache_peek_rcu(&sb, 12);
	rcu_read_unlock();
	assert_non_null(inode);
	close_gate(&fs.evict_gate);
	assert_int_equal(thread_create(&t, "evict", evicting_main, NULL), 0);
	test_wait(&fs, atomic_load(&fs.at_evict) == 1);
	rcu_read_lock();
	assert_null(icache_peek_rcu(&sb, 12));
	assert_false(inode_lookup_inc_rcu(inode));
	rcu_read_unlock();
	/* One that comes now goes with it; nothing of it stays in a shadow. */
	icache_forget(&sb, 12, 1);
	open_gate(&fs.evict_gate);
	thread_join(t);
	assert_int_equal(stats().shadows, 0);
}

/* ---- hammer: all races of seeds.md 1.4 at once ---- */

#define HAMMER_INOS 24u
#define HAMMER_FIRST 60u /* across two leaves */
#define HAMMER_THREADS 4

struct hammer {
	struct thread *t;
	u64 rnd;
	u64 mine[HAMMER_INOS]; /* lookups the kernel has through this thread */
};

static _Atomic bool hammer_stop;
static _Atomic u64 hammer_peeked; /* lookups counted without a reference */

/* A create: takes a free number, if there is one. */
static void hammer_create(struct hammer *h)
{
	ino_nr ino = 0;
	struct inode *inode;
	u32 generation = 0;

	spin_lock(&fs.lock);
	for (u32 i = 0; i < HAMMER_INOS && !ino; i++) {
		struct disk_inode *d = disk_of(HAMMER_FIRST + i);

		if (d->state == DISK_FREE) {
			ino = HAMMER_FIRST + i;
			d->state = DISK_RESERVED;
			generation = ++d->generation;
		}
	}
	spin_unlock(&fs.lock);
	if (!ino)
		return;
	inode = fs_alloc_inode(&sb);
	thread_check(inode);
	inode->i_ino = ino;
	inode->i_nlink = 1;
	inode->i_generation = generation;
	thread_check(icache_insert(&sb, inode) == 0);
	thread_check(atomic_fetch_add(&disk_of(ino)->incarnations, 1) == 0);
	spin_lock(&fs.lock);
	disk_of(ino)->state = DISK_USED;
	disk_of(ino)->nlink = 1;
	spin_unlock(&fs.lock);
	inode_unlock_new(inode);
	lookup(inode, 1);
	h->mine[ino - HAMMER_FIRST]++;
	inode_put(inode);
}

static u32 disk_generation(ino_nr ino)
{
	u32 generation;

	spin_lock(&fs.lock);
	generation = disk_of(ino)->generation;
	spin_unlock(&fs.lock);
	return generation;
}

static void hammer_get(struct hammer *h, u64 r)
{
	u32 i = r % HAMMER_INOS;
	ino_nr ino = HAMMER_FIRST + i;
	struct inode *inode;
	int error;

	if (r >> 24 & 1) {
		struct inode_attrs a;

		/* A lookup of ours keeps it from being deleted. */
		if (!icache_peek_attrs(&sb, ino, &a) && h->mine[i])
			thread_check(a.generation == disk_generation(ino));
	}
	if (r >> 26 & 1) {
		bool counted;

		rcu_read_lock();
		inode = icache_peek_rcu(&sb, ino);
		counted = inode && inode_lookup_inc_rcu(inode);
		rcu_read_unlock();
		if (counted) {
			atomic_fetch_add(&disk_of(ino)->lookups, 1);
			h->mine[i]++;
			atomic_fetch_add(&hammer_peeked, 1);
		}
		return;
	}
	error = r >> 25 & 1 ? icache_get(&sb, ino, &inode) :
			      icache_get_scan(&sb, ino, &inode);
	if (error == -ESTALE) {
		/* Deleted: then none of us can have a lookup. */
		thread_check(h->mine[i] == 0);
		return;
	}
	thread_check(!error);
	thread_check(inode->i_ino == ino);
	spin_lock(&inode->i_lock);
	thread_check(inode->i_nlookup >= h->mine[i]);
	spin_unlock(&inode->i_lock);
	switch (r / HAMMER_INOS % 8) {
	case 0:
		unlink_inode(inode);
		break;
	case 1:
		inode_mark_dirty(inode, r & 1 << 20 ? I_DIRTY_PAGES :
						      I_DIRTY_INODE);
		break;
	case 2:
		inode_set_dontcache(inode);
		break;
	default:
		lookup(inode, 2);
		h->mine[i] += 2;
		break;
	}
	inode_put(inode);
}

static void hammer_main(void *arg)
{
	struct hammer *h = arg;

	for (u32 n = 0; n < TEST_LOAD(120000); n++) {
		u64 r = test_random(&h->rnd) >> 16;
		u32 i = r / 16 % HAMMER_INOS;

		switch (r % 16) {
		case 0:
			icache_shrink_all(&sb);
			break;
		case 1:
			budget_drop_all(sb.s_budget);
			break;
		case 2:
		case 3:
			hammer_create(h);
			break;
		case 4:
		case 5:
		case 6:
		case 7: {
			u64 take = h->mine[i] > 1 && r & 1 << 12 ?
					   h->mine[i] / 2 : h->mine[i];

			h->mine[i] -= take;
			if (take)
				forget(HAMMER_FIRST + i, take);
			break;
		}
		default:
			hammer_get(h, r / 16);
			break;
		}
	}
	for (u32 i = 0; i < HAMMER_INOS; i++) {
		if (h->mine[i])
			forget(HAMMER_FIRST + i, h->mine[i]);
	}
}

static int hammer_walk(struct inode *inode, void *priv)
{
	thread_check(inode->i_ino >= HAMMER_FIRST);
	thread_check(!(atomic_load(&inode->i_state) & (I_NEW | I_FREEING)));
	return INO_ITER_RET_CONT;
}

static void hammer_flusher(void *arg)
{
	while (!atomic_load(&hammer_stop)) {
		struct inode *inode = icache_next_dirty(&sb, UINT64_MAX);

		if (!inode) {
			(void)super_iter_inodes(&sb, hammer_walk, NULL, 0);
			sched_yield();
			continue;
		}
		thread_check(atomic_load(&inode->i_count) > 0);
		inode_clear_dirty(inode, I_DIRTY);
		icache_written(inode);
		inode_put(inode);
	}
}

static void test_hammer(void **state)
{
	static struct hammer h[HAMMER_THREADS];
	struct thread *flusher;
	struct inode *inode;
	u32 deleted = 0;

	memset(h, 0, sizeof(h));
	atomic_store(&hammer_stop, false);
	assert_int_equal(thread_create(&flusher, "flusher", hammer_flusher,
				       NULL), 0);
	for (int i = 0; i < HAMMER_THREADS; i++) {
		h[i].rnd = 4711 + 1001 * (u64)i;
		assert_int_equal(thread_create(&h[i].t, "hammer", hammer_main,
					       &h[i]), 0);
	}
	for (int i = 0; i < HAMMER_THREADS; i++)
		thread_join(h[i].t);
	atomic_store(&hammer_stop, true);
	thread_join(flusher);

	/* All was forgotten: what is unlinked is deleted, no count is left. */
	while ((inode = icache_next_dirty(&sb, UINT64_MAX)))
		write_clean(inode);
	icache_shrink_all(&sb);
	assert_int_equal(stats().inodes, 0);
	assert_int_equal(stats().shadows, 0);
	for (u32 i = 0; i < HAMMER_INOS; i++) {
		struct disk_inode *d = disk_of(HAMMER_FIRST + i);

		assert_int_equal(atomic_load(&d->lookups), 0);
		assert_int_equal(d->state == DISK_USED, d->nlink == 1);
		deleted += atomic_load(&d->deletes);
	}
	assert_true(deleted > 0);
	assert_true(atomic_load(&hammer_peeked) > 0);
	assert_true(atomic_load(&fs.evicted) > 0);
	assert_int_equal(budget_used(sb.s_budget, BUDGET_INDEX), 0);
}

/* Numbers far apart: nodes come and go under the readers. */
static void sparse_main(void *arg)
{
	u64 rnd = (u64)(uintptr_t)arg | 1;

	for (u32 n = 0; n < TEST_LOAD(100000); n++) {
		u64 r = test_random(&rnd) >> 16;
		ino_nr ino = 64 * (1 + r % 8);
		struct inode *inode;

		if (r / 8 % 4 == 0) {
			icache_shrink_all(&sb);
			continue;
		}
		if (r / 8 % 4 == 1) {
			inode = icache_find(&sb, ino);
		} else {
			thread_check(!icache_get(&sb, ino, &inode));
			thread_check(inode->i_generation == ino);
		}
		inode_put(inode);
	}
}

static void test_hammer_nodes(void **state)
{
	struct thread *t[4];

	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		assert_int_equal(thread_create(&t[i], "sparse", sparse_main,
					       (void *)(uintptr_t)(31 + 58 * i)),
				 0);
	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		thread_join(t[i]);
	icache_shrink_all(&sb);
	assert_int_equal(stats().inodes, 0);
	assert_int_equal(budget_used(sb.s_budget, BUDGET_INDEX), 0);
}


int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_second_get_is_a_hit),
		T(test_numbers_out_of_range),
		T(test_failed_read_leaves_nothing),
		T(test_concurrent_misses_read_once),
		T(test_waiters_of_a_failed_read_return),
		T(test_get_waits_for_eviction_and_reads_again),
		T(test_new_inode_is_usable_when_unlocked),
		T(test_new_inode_over_an_old_one),
		T(test_number_reused_while_deletion_ends),
		T(test_lookups_survive_eviction),
		T(test_forget_of_a_shadow),
		T(test_failed_read_keeps_the_lookups),
		T(test_lookup_without_a_reference),
		T(test_lookup_of_an_inode_on_its_way_out),
		T(test_count_too_large_for_a_shadow_stays),
		T(test_forget_during_eviction),
		T(test_empty_nodes_are_freed),
		T(test_unlinked_is_deleted_by_last_put),
		T(test_unlinked_is_deleted_by_last_forget),
		T(test_orphan_found_at_mount_is_deleted),
		T(test_dontcache_goes_at_last_put),
		T(test_dontcache_under_writeback_stays),
		T(test_scanned_once_becomes_a_shadow),
		T(test_scanned_then_used_stays),
		T(test_scan_takes_no_notice_of_cached_ones),
		T(test_refault_soon_gives_a_second_chance),
		T(test_refault_late_gives_none),
		T(test_thrashing_is_counted),
		T(test_peek_at_attributes),
		T(test_peek_sees_no_shadow_nor_half_an_inode),
		T(test_attributes_are_of_one_moment),
		T(test_inodes_in_use_or_dirty_stay),
		T(test_second_chance),
		T(test_reclaim_under_load),
		T(test_dirty_inodes_come_oldest_first),
		T(test_redirtied_under_sync_stays_queued),
		T(test_unfinished_comes_after_the_others),
		T(test_pages_dirty_in_the_mapping_keep_the_flag),
		T(test_dirtied_before_it_is_marked),
		T(test_waiting_for_another_flusher),
		T(test_unmount_forgets_deletes_evicts),
		T(test_unmount_reports_what_is_left),
		T(test_hammer),
		T_ITER(test_hammer, &iter_percpu),
		T_ITER(test_hammer, &iter_global),
		T(test_hammer_nodes),
	};

	thread_register();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
