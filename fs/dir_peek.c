/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/dir_peek.c - finds a name in cached blocks, with no lock and no reference
 *
 * A look under RCU at the blocks themselves, which may be changing. Nothing
 * that was read is believed until the directory's counter says that no change
 * was under way:
 *
 *      one who changes names              one who looks
 *      (i_rwsem held exclusively)         (RCU read side)
 *      i_dir_seq odd                      s = i_dir_seq; odd: give up
 *      ... blocks change ...              ... read, each step in bounds ...
 *      i_dir_seq even                     i_dir_seq still s? then it was so
 *
 * With the inode's eviction the counter stays odd for good, before the number
 * can come back as another inode, whose names another counter guards, and
 * before blocks are freed.
 *
 * Where the blocks are is in a table by logical block (i_dir_map), filled as
 * they are read in the ordinary way; blocks of a directory stay where they
 * are as long as it lives. A table is replaced by a larger one under i_lock; an
 * entry that is written to the old one meanwhile is lost, and entered again
 * the next time.
 *
 * It gives up (-EAGAIN) whenever something is not cached, not noted as used of
 * late, not checked as what it should be, or unusual: the ordinary way knows
 * what to do, and reports damage.
 *
 * Locks:   none; i_lock to replace the table
 * Alive:   buffers, table and inode by the RCU read side
 * Source:  as dir.c and htree.c
 */
#include "fs/dir_internal.h"
#include "cache/budget.h"
#include "lib/rcu.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define MAP_LEAST 8u
/* A table of 1 MiB; what lies behind is found in the ordinary way. */
#define MAP_MOST (1u << 17)

struct dir_map {
	struct rcu_head rcu;
	u32 nr;
	_Atomic pblk_t pblk[]; /* by logical block; 0: not known */
};

/* ---- the counter ---- */

void dir_change_begin(struct ext4_inode *dir)
{
	u32 seq = atomic_load_explicit(&dir->i_dir_seq, memory_order_relaxed);

	assert(!(seq & 1));
	atomic_store_explicit(&dir->i_dir_seq, seq + 1, memory_order_relaxed);
	/* Keeps the changes behind that store. Pairs with the fence in
	 * ext4_dir_peek_valid(). */
	atomic_thread_fence(memory_order_release);
}

void dir_change_end(struct ext4_inode *dir)
{
	u32 seq = atomic_load_explicit(&dir->i_dir_seq, memory_order_relaxed);

	/* Release: the changes come first. Pairs with ext4_dir_peek_begin(). */
	atomic_store_explicit(&dir->i_dir_seq, seq + 1, memory_order_release);
}

bool ext4_dir_peek_begin(const struct ext4_inode *dir, u32 *seq)
{
	*seq = atomic_load_explicit(&dir->i_dir_seq, memory_order_acquire);
	return !(*seq & 1);
}

bool ext4_dir_peek_valid(const struct ext4_inode *dir, u32 seq)
{
	atomic_thread_fence(memory_order_acquire);
	return atomic_load_explicit(&dir->i_dir_seq, memory_order_relaxed) == seq;
}

/* ---- the table ---- */

static s64 map_cost(u32 nr)
{
	return (s64)(sizeof(struct dir_map) + nr * sizeof(pblk_t));
}

static void map_free_rcu(struct rcu_head *head)
{
	free(caa_container_of(head, struct dir_map, rcu));
}

static void map_retire(struct ext4_inode *dir, struct dir_map *map)
{
	if (!map)
		return;
	budget_uncharge(dir->vfs.i_sb->s_budget, BUDGET_TREE, map_cost(map->nr));
	call_rcu(&map->rcu, map_free_rcu);
}

static u32 map_size_for(lblk_t lblk)
{
	u32 nr = MAP_LEAST;

	while (nr <= lblk)
		nr *= 2;
	return nr;
}

/* A table with room for lblk, in place of what there was. Without memory: none. */
static void map_grow(struct ext4_inode *dir, lblk_t lblk)
{
	u32 nr = map_size_for(lblk);
	struct dir_map *fresh = calloc(1, (size_t)map_cost(nr)), *old;

	if (!fresh)
		return;
	fresh->nr = nr;
	spin_lock(&dir->vfs.i_lock);
	old = dir->i_dir_map;
	if (old && old->nr >= nr) {
		spin_unlock(&dir->vfs.i_lock);
		free(fresh); /* another reader was faster */
		return;
	}
	for (u32 i = 0; old && i < old->nr; i++)
		atomic_store_explicit(&fresh->pblk[i],
				      atomic_load_explicit(&old->pblk[i],
							   memory_order_relaxed),
				      memory_order_relaxed);
	rcu_assign_pointer(dir->i_dir_map, fresh);
	spin_unlock(&dir->vfs.i_lock);
	budget_charge(dir->vfs.i_sb->s_budget, BUDGET_TREE, map_cost(nr));
	map_retire(dir, old);
}

void dir_map_note(struct ext4_inode *dir, lblk_t lblk, pblk_t pblk)
{
	struct dir_map *map;

	if (lblk >= MAP_MOST)
		return;
	rcu_read_lock();
	map = rcu_dereference(dir->i_dir_map);
	if (!map || lblk >= map->nr) {
		rcu_read_unlock();
		map_grow(dir, lblk);
		rcu_read_lock();
		map = rcu_dereference(dir->i_dir_map);
	}
	if (map && lblk < map->nr &&
	    atomic_load_explicit(&map->pblk[lblk], memory_order_relaxed) != pblk)
		atomic_store_explicit(&map->pblk[lblk], pblk, memory_order_relaxed);
	rcu_read_unlock();
}

pblk_t dir_map_get(struct ext4_inode *dir, lblk_t lblk)
{
	const struct dir_map *map;
	pblk_t pblk = 0;

	rcu_read_lock();
	map = rcu_dereference(dir->i_dir_map);
	if (map && lblk < map->nr)
		pblk = atomic_load_explicit(&map->pblk[lblk], memory_order_relaxed);
	rcu_read_unlock();
	return pblk;
}

void dir_map_forget(struct ext4_inode *dir, lblk_t first)
{
	struct dir_map *map;

	rcu_read_lock();
	map = rcu_dereference(dir->i_dir_map);
	for (u32 i = first; map && i < map->nr; i++)
		atomic_store_explicit(&map->pblk[i], 0, memory_order_relaxed);
	rcu_read_unlock();
}

void ext4_dir_peek_end(struct ext4_inode *dir)
{
	struct dir_map *map = dir->i_dir_map;

	if (!(atomic_load_explicit(&dir->i_dir_seq, memory_order_relaxed) & 1))
		dir_change_begin(dir);
	rcu_assign_pointer(dir->i_dir_map, NULL);
	map_retire(dir, map);
}

/* ---- looking ---- */

/*
 * The loads below race with the stores of one who changes the block, on
 * purpose: what a thread checker can't know is that nobody believes the result
 * then. So no function is called on the bytes (memcmp is watched).
 */
#define NO_TSAN __attribute__((no_sanitize("thread")))
#define RACY(x) (*(const volatile __typeof__(x) *)&(x))

struct peek {
	const struct ext4_inode *dir;
	const struct ext4_sb *sbi;
	const struct dir_map *map;
	const char *name;
	u32 len;
};

static const u8 *peek_block(const struct peek *p, lblk_t lblk,
			    const struct buffer_type *type)
{
	const struct buffer *b;
	pblk_t pblk;

	if (!p->map || lblk >= p->map->nr)
		return NULL;
	pblk = atomic_load_explicit(&p->map->pblk[lblk], memory_order_relaxed);
	if (!pblk)
		return NULL;
	b = buffer_peek_rcu(p->dir->vfs.i_sb, pblk, type, p->dir->i_csum_seed);
	return b ? b->b_data : NULL;
}

NO_TSAN static bool name_is(const struct peek *p, const u8 *bytes)
{
	/* From the end, where names of one directory differ. */
	for (u32 i = p->len; i-- > 0;) {
		if (RACY(bytes[i]) != (u8)p->name[i])
			return false;
	}
	return true;
}

/* 0, -ENOENT, or -EAGAIN: what is there makes no sense (at the moment). */
NO_TSAN static int peek_leaf(const struct peek *p, const u8 *data, ino_nr *ino)
{
	u32 end = dir_usable(p->sbi), at = 0;

	while (at < end) {
		const struct ext4_dir_entry *de =
			(const struct ext4_dir_entry *)(data + at);
		struct ext4_dir_entry head = { 0 };
		u32 rec_len;

		/* Of records that are moving the last may begin anywhere, and
		 * what is behind the block may not be memory. */
		if (end - at < EXT4_DIR_REC_LEN(1))
			return -EAGAIN;
		head.rec_len = RACY(de->rec_len);
		rec_len = dir_rec_len(&head, p->sbi->s.s_blocksize);
		if (rec_len < EXT4_DIR_REC_LEN(1) || rec_len > end - at ||
		    rec_len % EXT4_DIR_PAD)
			return -EAGAIN;
		if (RACY(de->name_len) == p->len &&
		    EXT4_DIR_REC_LEN(p->len) <= rec_len && name_is(p, (const u8 *)de->name)) {
			*ino = le32_to_cpu(RACY(de->inode));
			if (*ino)
				return 0;
		}
		at += rec_len;
	}
	return -ENOENT;
}

static int peek_linear(const struct peek *p, ino_nr *ino)
{
	u64 size = atomic_load_explicit(&p->dir->vfs.i_size, memory_order_relaxed);
	u64 nr = size >> p->sbi->s.s_blocksize_bits;
	int err = -ENOENT;

	if (!nr || nr > MAP_MOST)
		return -EAGAIN;
	for (lblk_t lblk = 0; lblk < nr && err == -ENOENT; lblk++) {
		const u8 *data = peek_block(p, lblk, &ext4_dir_leaf_type);

		err = data ? peek_leaf(p, data, ino) : -EAGAIN;
	}
	return err;
}

/*
 * Goes through the entries of an index block: *lblk is where `hash` leads, and
 * *next the first hash of what follows there, if that is in this block.
 */
NO_TSAN static bool peek_index(const struct peek *p, const u8 *data, u32 off, u32 hash,
			       lblk_t *lblk, u32 *next)
{
	const struct ext4_dx_entry *e = (const struct ext4_dx_entry *)(data + off);
	const struct ext4_dx_countlimit *cl = (const struct ext4_dx_countlimit *)e;
	u32 count = le16_to_cpu(RACY(cl->count)), low = 0, high = count;

	if (!count || count > dx_limit(p->sbi, off))
		return false;
	while (high - low > 1) {
		u32 mid = low + (high - low) / 2;

		if (le32_to_cpu(RACY(e[mid].hash)) <= hash)
			low = mid;
		else
			high = mid;
	}
	*lblk = le32_to_cpu(RACY(e[low].block)) & DX_BLOCK_MASK;
	if (low + 1 < count)
		*next = le32_to_cpu(RACY(e[low + 1].hash));
	return true;
}

NO_TSAN static int peek_indexed(const struct peek *p, ino_nr *ino)
{
	const u8 *data = peek_block(p, 0, &ext4_dx_root_type);
	const struct ext4_dx_root_info *info;
	u32 version, levels, off = DX_ROOT_ENTRIES, next = 0;
	struct ext4_dirhash dh;
	lblk_t lblk = 0;
	int err;

	if (!data)
		return -EAGAIN;
	info = (const struct ext4_dx_root_info *)(data + 2 * DIR_DOT_LEN);
	version = RACY(info->hash_version);
	levels = RACY(info->indirect_levels) + 1u;
	if (version > DX_HASH_TEA || levels > DX_MAX_LEVELS)
		return -EAGAIN;
	if (p->sbi->hash_unsigned)
		version += DX_HASH_LEGACY_UNSIGNED;
	if (ext4_dirhash(p->name, p->len, version, p->sbi->hash_seed, &dh))
		return -EAGAIN;
	for (u32 i = 0; i < levels; i++) {
		if (i)
			data = peek_block(p, lblk, &ext4_dx_node_type);
		if (!data || !peek_index(p, data, off, dh.major, &lblk, &next))
			return -EAGAIN;
		off = DX_NODE_ENTRIES;
	}
	data = peek_block(p, lblk, &ext4_dir_leaf_type);
	if (!data)
		return -EAGAIN;
	err = peek_leaf(p, data, ino);
	/* The next leaf has names of this hash, too. */
	if (err == -ENOENT && next == (dh.major | 1))
		return -EAGAIN;
	return err;
}

int ext4_dir_peek(const struct ext4_inode *dir, const char *name, u32 len,
		  ino_nr *ino)
{
	struct peek p = {
		.dir = dir,
		.sbi = EXT4_SB(dir->vfs.i_sb),
		.map = rcu_dereference(dir->i_dir_map),
		.name = name,
		.len = len,
	};

	if (!len || len > EXT4_NAME_LEN || dir_is_dots(name, len) ||
	    dir->i_inline || dx_broken(dir))
		return -EAGAIN;
	return ext4_dir_is_indexed(dir) ? peek_indexed(&p, ino) :
					  peek_linear(&p, ino);
}
