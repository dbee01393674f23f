/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/fake_dir.h - a directory without volume: what dir.c, htree.c
 * and readdir.c call, over blocks in memory
 *
 * The buffer cache is the real one. Everything else is here: a device of
 * blocks, one directory's map, and handles that watch the rules: a buffer is
 * changed only after access was had and only if it is then told to be dirty.
 * When a handle stops, its blocks are frozen and go to the device; fake_drop() then makes
 * the next read come from there, checksums and all.
 *
 * Include in one .c file per program.
 */
#ifndef SLUICE_TESTS_FAKE_DIR_H
#define SLUICE_TESTS_FAKE_DIR_H

#include "tests/unit/unit.h"

#include <stdatomic.h>
#include <stdio.h>

#include "cache/budget.h"
#include "fs/dir_internal.h"
#include "lib/crc.h"
#include "lib/thread.h"

#define FAKE_INO 77u
#define FAKE_PARENT 2u
#define FAKE_ACCESS_MAX 64u

struct fake_access {
	struct buffer *b;
	u8 *before;
	bool dirty, created;
};

struct handle {
	struct fake_access a[FAKE_ACCESS_MAX];
	u32 nr;
};

static struct {
	struct ext4_sb sbi;
	struct ext4_inode dir;
	struct handle h;
	u8 **disk;       /* by physical block; NULL: never written */
	u64 disk_blocks;
	pblk_t *map;     /* by logical block; 0: hole */
	u32 map_nr;
	pblk_t next_pblk;
	u64 rng;
	/* injection */
	int alloc_error; /* of map_create ... */
	u32 alloc_after; /* ... after that many calls */
	bool alloc_single; /* one block per call */
	u32 access_after;  /* -ENOMEM from the n-th access on; 0: never */
	pblk_t bad_pblk;   /* -EIO */
	/* what was seen */
	u32 errors;      /* ext4_error() calls */
	u32 most_dirty;  /* blocks of one handle */
	char last_error[256];
} fake;

static inline u32 fake_random(u32 n)
{
	fake.rng ^= fake.rng >> 12;
	fake.rng ^= fake.rng << 25;
	fake.rng ^= fake.rng >> 27;
	return (u32)((fake.rng * 0x2545F4914F6CDD1Dull) >> 33) % n;
}

/* ---- the device ---- */

static int fake_disk_read(void *backing, pblk_t blk, u32 nr,
			  const struct iovec *iov, int nr_iov)
{
	for (u32 i = 0; i < nr; i++) {
		if (blk + i >= fake.disk_blocks)
			return -ENXIO;
		if (blk + i == fake.bad_pblk)
			return -EIO;
		if (fake.disk[blk + i])
			memcpy(iov[i].iov_base, fake.disk[blk + i],
			       fake.sbi.s.s_blocksize);
		else
			memset(iov[i].iov_base, 0, fake.sbi.s.s_blocksize);
	}
	return 0;
}

static int fake_disk_read_async(void *backing, pblk_t blk, u32 nr,
				const struct iovec *iov, int nr_iov,
				void (*done)(void *priv, int error), void *priv)
{
	done(priv, fake_disk_read(backing, blk, nr, iov, nr_iov));
	return 0;
}

static const struct backing_ops fake_backing_ops = {
	.read = fake_disk_read,
	.read_async = fake_disk_read_async,
};

static u8 *fake_disk_block(pblk_t blk)
{
	assert_true(blk < fake.disk_blocks);
	if (!fake.disk[blk])
		fake.disk[blk] = calloc(1, fake.sbi.s.s_blocksize);
	assert_non_null(fake.disk[blk]);
	return fake.disk[blk];
}

static inline u8 *fake_disk_lblk(lblk_t lblk)
{
	assert_true(lblk < fake.map_nr);
	return fake_disk_block(fake.map[lblk]);
}

/* ---- the block map ---- */

int ext4_map_blocks(struct ext4_inode *ei, struct ext4_map *map)
{
	u32 n = 0;

	map->flags = 0;
	map->pblk = 0;
	if (map->lblk >= fake.map_nr || !fake.map[map->lblk]) {
		map->len = 1;
		return 0;
	}
	map->pblk = fake.map[map->lblk];
	while (n < map->len && map->lblk + n < fake.map_nr &&
	       fake.map[map->lblk + n] == map->pblk + n)
		n++;
	map->len = n;
	map->flags = EXT4_MAP_MAPPED;
	return 0;
}

int ext4_map_create(struct handle *h, struct ext4_inode *ei, struct ext4_map *map,
		    u32 flags)
{
	if (fake.alloc_error && fake.alloc_after-- == 0)
		return fake.alloc_error;
	if (fake.alloc_single || fake_random(4) == 0)
		map->len = 1;
	if (fake_random(3) == 0)
		fake.next_pblk += 1 + fake_random(3);
	assert_int_equal(map->lblk, fake.map_nr);
	assert_true(fake.next_pblk + map->len < fake.disk_blocks);
	fake.map = realloc(fake.map, (fake.map_nr + map->len) * sizeof(*fake.map));
	assert_non_null(fake.map);
	map->pblk = fake.next_pblk;
	for (u32 i = 0; i < map->len; i++)
		fake.map[fake.map_nr++] = fake.next_pblk++;
	map->flags = EXT4_MAP_MAPPED | EXT4_MAP_NEW;
	return 0;
}

int ext4_remove_blocks(struct handle *h, struct ext4_inode *ei, lblk_t start, u64 end,
		       bool forget)
{
	assert_true(end > LBLK_MAX);
	assert_false(forget);
	if (start < fake.map_nr)
		fake.map_nr = start;
	return 0;
}

int ext4_mark_inode_dirty(struct handle *h, struct ext4_inode *ei)
{
	return 0;
}

void ext4_set_size(struct ext4_inode *ei, u64 size)
{
	ei->vfs.i_size = size;
}

int ext4_error_at(struct ext4_sb *sbi, const char *func, int line, ino_nr ino,
		  pblk_t blk, int error, const char *fmt, ...)
{
	va_list ap;

	assert_int_equal(ino, FAKE_INO);
	assert_true(error < 0);
	fake.errors++;
	va_start(ap, fmt);
	vsnprintf(fake.last_error, sizeof(fake.last_error), fmt, ap);
	va_end(ap);
	return error;
}

/* ---- handles ---- */

static struct fake_access *fake_find_access(struct handle *h, struct buffer *b)
{
	for (u32 i = 0; i < h->nr; i++) {
		if (h->a[i].b == b)
			return &h->a[i];
	}
	return NULL;
}

static int fake_access(struct handle *h, struct buffer *b, bool created)
{
	struct fake_access *a = fake_find_access(h, b);

	if (fake.access_after && --fake.access_after == 0) {
		fake.access_after = 1;
		return -ENOMEM;
	}
	if (a)
		return 0;
	assert_true(h->nr < FAKE_ACCESS_MAX);
	a = &h->a[h->nr++];
	*a = (struct fake_access){ .b = b, .created = created };
	a->before = malloc(fake.sbi.s.s_blocksize);
	assert_non_null(a->before);
	memcpy(a->before, b->b_data, fake.sbi.s.s_blocksize);
	buffer_get(b);
	return 0;
}

int handle_get_write_access(struct handle *h, struct buffer *b)
{
	return fake_access(h, b, false);
}

int handle_get_create_access(struct handle *h, struct buffer *b)
{
	return fake_access(h, b, true);
}

void handle_dirty(struct handle *h, struct buffer *b)
{
	struct fake_access *a = fake_find_access(h, b);

	assert_non_null(a);
	a->dirty = true;
}

/* Writes what is dirty; what is not must be as it was. */
static void fake_stop(int result)
{
	struct handle *h = &fake.h;
	u32 bs = fake.sbi.s.s_blocksize, dirty = 0;

	for (u32 i = 0; i < h->nr; i++) {
		struct fake_access *a = &h->a[i];
		const struct buffer_type *type = atomic_load(&a->b->b_type);

		if (a->dirty) {
			u8 *image = fake_disk_block(a->b->b_blocknr);

			assert_int_equal(result, 0);
			memcpy(image, a->b->b_data, bs);
			type->freeze(&fake.sbi.s, a->b->b_blocknr, image,
				     atomic_load(&a->b->b_seed));
			dirty++;
		} else {
			assert_memory_equal(a->before, a->b->b_data, bs);
		}
		free(a->before);
		buffer_put(a->b);
	}
	h->nr = 0;
	fake.most_dirty = max_of(fake.most_dirty, dirty);
	assert_int_equal(fake.dir.vfs.i_size, (u64)fake.map_nr * bs);
}

/* ---- set-up ---- */

/* The cache forgets everything: the next reads verify what was written. */
static inline void fake_drop(void)
{
	bcache_drop(&fake.sbi.s);
}

static void fake_quiet(enum log_level level, const char *line, void *priv)
{
}

struct fake_config {
	u32 blocksize;
	bool csum;
	u32 hash_version; /* 0-5 */
	bool no_index, largedir, no_filetype;
};

static inline void fake_begin(const struct fake_config *c)
{
	struct ext4_sb *sbi = &fake.sbi;

	memset(&fake, 0, sizeof(fake));
	fake.rng = 0x9E3779B97F4A7C15ull;
	log_set_sink(fake_quiet, NULL);
	sbi->s.s_blocksize = c->blocksize;
	sbi->s.s_blocksize_bits = (u8)__builtin_ctz(c->blocksize);
	sbi->s.s_backing_ops = &fake_backing_ops;
	snprintf(sbi->s.s_id, sizeof(sbi->s.s_id), "fake");
	assert_int_equal(budget_create(512u << 20, 1, &sbi->s.s_budget), 0);
	assert_int_equal(bcache_create(&sbi->s), 0);
	sbi->inodes_count = 10000000;
	sbi->has_csum = c->csum;
	sbi->def_hash_version = (u8)c->hash_version;
	sbi->hash_unsigned = c->hash_version >= 3;
	for (u32 i = 0; i < 4; i++)
		sbi->hash_seed[i] = 0xA5A50000u + i;
	if (!c->no_index)
		sbi->features_compat |= EXT4_COMPAT_DIR_INDEX;
	if (!c->no_filetype)
		sbi->features_incompat |= EXT4_INCOMPAT_FILETYPE;
	if (c->largedir)
		sbi->features_incompat |= EXT4_INCOMPAT_LARGEDIR;

	fake.disk_blocks = 1u << 20;
	fake.disk = calloc(fake.disk_blocks, sizeof(*fake.disk));
	assert_non_null(fake.disk);
	fake.next_pblk = 100;
	fake.dir.vfs.i_sb = &sbi->s;
	fake.dir.vfs.i_ino = FAKE_INO;
	fake.dir.i_csum_seed = 0x12345678;
	spin_init(&fake.dir.vfs.i_lock, RANK_I_LOCK);
	rwsem_init(&fake.dir.i_data_sem, RANK_I_DATA);
	assert_int_equal(ext4_dir_init(&fake.h, &fake.dir, FAKE_PARENT), 0);
	fake_stop(0);
}

static inline void fake_end(void)
{
	ext4_dir_peek_end(&fake.dir);
	bcache_destroy(&fake.sbi.s);
	rcu_barrier();
	budget_destroy(fake.sbi.s.s_budget);
	for (u64 i = 0; i < fake.disk_blocks; i++)
		free(fake.disk[i]);
	free(fake.disk);
	free(fake.map);
	log_set_sink(NULL, NULL);
}

/* One operation in a handle of its own. */
static inline int fake_add(const char *name, u32 len, ino_nr ino)
{
	int err = ext4_dir_add(&fake.h, &fake.dir, name, len, ino,
			       EXT4_FT_REG_FILE);

	fake_stop(err);
	return err;
}

static inline int fake_remove(const char *name, u32 len, ino_nr ino)
{
	int err = ext4_dir_remove(&fake.h, &fake.dir, name, len, ino);

	fake_stop(err);
	return err;
}

static inline ino_nr fake_find(const char *name, u32 len)
{
	ino_nr ino;
	u8 ftype;
	int err = ext4_dir_find(&fake.dir, name, len, &ino, &ftype);

	if (err == -ENOENT)
		return 0;
	assert_int_equal(err, 0);
	return ino;
}

#endif
