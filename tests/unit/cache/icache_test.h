/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/cache/icache_test.h - a file system in memory below the inode cache
 *
 * It keeps what a disk would keep of each inode, and beside it what must hold:
 * how many incarnations are in memory (one at the most), how many lookups the
 * kernel has (an inode is deleted at 0 only), and how many objects are alive
 * (none at the end).
 */
#ifndef SLUICE_TESTS_ICACHE_TEST_H
#define SLUICE_TESTS_ICACHE_TEST_H

#include "tests/unit/cache/cache_test.h"

#include "cache/icache.h"
#include "cache/sb_iter.h"
#include "lib/counter.h"

#define MAX_INO 1000000u /* four shards */
/* Inodes that exist: below the first, and some around the borders between two
 * runs and two shards of the tree. */
#define NR_LOW 4096u
#define NR_AROUND 256u
#define RUN_BORDER 8192u
#define SHARD_BORDER 262144u
#define NR_DISK (NR_LOW + 2 * NR_AROUND)

/* RESERVED: the bit is set, the inode table not yet written. */
enum disk_state { DISK_FREE, DISK_RESERVED, DISK_USED };

struct disk_inode {
	enum disk_state state; /* [fs.lock] */
	u32 nlink;             /* [fs.lock] */
	u32 generation;        /* [fs.lock] */
	_Atomic u32 incarnations;
	_Atomic u32 reads;
	_Atomic u32 deletes;
	_Atomic u64 lookups;   /* what the kernel has */
};

static struct {
	struct spinlock lock;
	struct disk_inode d[NR_DISK];
	_Atomic s64 alive;        /* objects between alloc and free */
	_Atomic u32 read_error;   /* errno for the next reads, 0 for none */
	_Atomic bool read_gate, evict_gate; /* closed */
	_Atomic u32 at_read, at_evict;
	_Atomic u32 evicted;      /* without deletion */
	_Atomic bool no_memory;
} fs;

static struct super_block sb;

static inline ino_nr ino_of(u32 index)
{
	if (index < NR_LOW)
		return index;
	index -= NR_LOW;
	if (index < NR_AROUND)
		return RUN_BORDER - NR_AROUND / 2 + index;
	return SHARD_BORDER - NR_AROUND / 2 + (index - NR_AROUND);
}

/* NR_DISK: there is no such inode. */
static inline u32 index_of(ino_nr ino)
{
	if (ino < NR_LOW)
		return ino;
	if (ino - (RUN_BORDER - NR_AROUND / 2) < NR_AROUND)
		return NR_LOW + ino - (RUN_BORDER - NR_AROUND / 2);
	if (ino - (SHARD_BORDER - NR_AROUND / 2) < NR_AROUND)
		return NR_LOW + NR_AROUND + ino -
		       (SHARD_BORDER - NR_AROUND / 2);
	return NR_DISK;
}

static inline struct disk_inode *disk_of(ino_nr ino)
{
	thread_check(index_of(ino) < NR_DISK);
	return &fs.d[index_of(ino)];
}

static inline struct inode *fs_alloc_inode(struct super_block *s)
{
	struct inode *inode;

	if (atomic_load(&fs.no_memory))
		return NULL;
	test_wander();
	inode = inode_alloc_memory(s, sizeof(*inode));
	if (!inode)
		return NULL;
	inode_init_once(inode);
	atomic_fetch_add(&fs.alive, 1);
	return inode;
}

static inline void fs_free_inode(struct inode *inode)
{
	inode_destroy_locks(inode);
	inode_free_memory(inode);
	atomic_fetch_sub(&fs.alive, 1);
}

static inline int fs_read_inode(struct inode *inode)
{
	struct disk_inode *d;
	int error = 0;

	if (index_of(inode->i_ino) == NR_DISK)
		return -ESTALE;
	d = disk_of(inode->i_ino);
	thread_check(atomic_load(&inode->i_state) & I_NEW);
	atomic_fetch_add(&d->reads, 1);
	atomic_fetch_add(&fs.at_read, 1);
	wake_up(&fs);
	wait_event(&fs, !atomic_load(&fs.read_gate));
	atomic_fetch_sub(&fs.at_read, 1);
	if (atomic_load(&fs.read_error))
		return -(int)atomic_load(&fs.read_error);
	spin_lock(&fs.lock);
	if (d->state != DISK_USED)
		error = -ESTALE;
	inode->i_nlink = d->nlink;
	inode->i_generation = d->generation;
	spin_unlock(&fs.lock);
	if (!error)
		thread_check(atomic_fetch_add(&d->incarnations, 1) == 0);
	return error;
}

static inline void fs_evict_inode(struct inode *inode, bool delete)
{
	struct disk_inode *d = disk_of(inode->i_ino);

	thread_check(atomic_load(&inode->i_state) & I_FREEING);
	thread_check(atomic_load(&inode->i_count) == 0);
	atomic_fetch_add(&fs.at_evict, 1);
	wake_up(&fs);
	wait_event(&fs, !atomic_load(&fs.evict_gate));
	atomic_fetch_sub(&fs.at_evict, 1);
	thread_check(delete == (inode->i_nlink == 0));
	thread_check(atomic_fetch_sub(&d->incarnations, 1) == 1);
	mapping_destroy(&inode->i_mapping);
	if (!delete) {
		thread_check(!(atomic_load(&inode->i_state) & I_DIRTY));
		atomic_fetch_add(&fs.evicted, 1);
		return;
	}
	/* Truncation marks the inode dirty on the way. */
	inode_mark_dirty(inode, I_DIRTY_INODE);
	thread_check(atomic_load(&d->lookups) == 0);
	atomic_fetch_add(&d->deletes, 1);
	/* Last: from now on the number can be had again. */
	spin_lock(&fs.lock);
	thread_check(d->state == DISK_USED && d->nlink == 0);
	thread_check(d->generation == inode->i_generation);
	d->state = DISK_FREE;
	spin_unlock(&fs.lock);
}

static const struct super_ops fs_ops = {
	.alloc_inode = fs_alloc_inode,
	.free_inode = fs_free_inode,
	.read_inode = fs_read_inode,
	.evict_inode = fs_evict_inode,
};

/* *state: an enum inode_iter, or NULL for the usual one. */
static inline int setup(void **state)
{
	const enum inode_iter *which = *state;

	test_log_begin();
	memset(&fs, 0, sizeof(fs));
	memset(&sb, 0, sizeof(sb));
	spin_init(&fs.lock, RANK_STATS);
	for (u32 i = 0; i < NR_DISK; i++) {
		fs.d[i].state = DISK_USED;
		fs.d[i].nlink = 1;
		fs.d[i].generation = ino_of(i);
	}
	sb.s_op = &fs_ops;
	sb.s_blocksize = 4096;
	sb.s_blocksize_bits = 12;
	strcpy(sb.s_id, "test");
	sb.s_inode_iter = which ? *which : INODE_ITER_ICACHE;
	sb.s_dirty_bytes = counter_new(0, 4096);
	assert_non_null(sb.s_dirty_bytes);
	assert_int_equal(budget_create(8 << 20, test_zones(), &sb.s_budget), 0);
	assert_int_equal(mapping_cache_create(&sb, NULL), 0);
	assert_int_equal(icache_create(&sb, MAX_INO), 0);
	return 0;
}

/* Every test ends with nothing alive, charged, or logged. */
static inline int teardown(void **state)
{
	icache_destroy(&sb);
	assert_int_equal(atomic_load(&fs.alive), 0);
	for (u32 i = 0; i < NR_DISK; i++)
		assert_int_equal(atomic_load(&fs.d[i].incarnations), 0);
	mapping_cache_destroy(&sb);
	assert_int_equal(test_budget_used(sb.s_budget), 0);
	for (u32 zone = 0; zone < zone_count(sb.s_budget); zone++)
		assert_int_equal(zone_used(sb.s_budget, zone, BUDGET_INODE), 0);
	budget_destroy(sb.s_budget);
	counter_free(sb.s_dirty_bytes);
	spin_destroy(&fs.lock);
	if (!atomic_load(&test_quiet))
		assert_int_equal(atomic_load(&test_errors), 0);
	return 0;
}

static inline struct inode *must_get(ino_nr ino)
{
	struct inode *inode = NULL;

	assert_int_equal(icache_get(&sb, ino, &inode), 0);
	assert_non_null(inode);
	assert_int_equal(inode->i_ino, ino);
	return inode;
}

static inline struct icache_stats stats(void)
{
	struct icache_stats st;

	icache_get_stats(&sb, &st);
	return st;
}

static inline bool is_cached(ino_nr ino)
{
	struct inode *inode = icache_find(&sb, ino);

	inode_put(inode);
	return inode != NULL;
}

static inline void lookup(struct inode *inode, u64 n)
{
	atomic_fetch_add(&disk_of(inode->i_ino)->lookups, n);
	while (n--)
		inode_lookup_inc(inode);
}

static inline void forget(ino_nr ino, u64 n)
{
	atomic_fetch_sub(&disk_of(ino)->lookups, n);
	icache_forget(&sb, ino, n);
}

/* On disk too, as a journalled unlink would be. */
static inline void unlink_inode(struct inode *inode)
{
	spin_lock(&inode->i_lock);
	inode->i_nlink = 0;
	spin_unlock(&inode->i_lock);
	spin_lock(&fs.lock);
	disk_of(inode->i_ino)->nlink = 0;
	spin_unlock(&fs.lock);
}

static inline u32 deletes(ino_nr ino)
{
	return atomic_load(&disk_of(ino)->deletes);
}

static inline struct inode *new_inode(ino_nr ino)
{
	struct inode *inode = fs_alloc_inode(&sb);

	thread_check(inode);
	inode->i_ino = ino;
	inode->i_nlink = 1;
	inode->i_generation = disk_of(ino)->generation;
	return inode;
}

static enum inode_iter iter_icache __attribute__((unused)) = INODE_ITER_ICACHE;
static enum inode_iter iter_percpu __attribute__((unused)) = INODE_ITER_PERCPU;
static enum inode_iter iter_global __attribute__((unused)) = INODE_ITER_GLOBAL;

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
/* With the way that walks find inodes. */
#define T_ITER(f, which)                                                       \
	{ #f "/" #which, f, setup, teardown, which }

#endif
