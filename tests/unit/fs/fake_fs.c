/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/fake_fs.c - see fake_fs.h
 */
#include "tests/unit/fs/fake_fs.h"

#include "lib/thread.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct fake_fs fake;

struct handle {
	u32 credits, revokes;
	bool open, inode_dirty;
};
static struct handle the_handle;

enum { IN_HANDLE = 1, HAS_ACCESS = 2, IN_TX = 4, BITMAP = 8 };
static u8 *marks; /* per block */
static struct buffer **tx;
static u32 tx_nr, tx_cap;
static u64 seed_state = 88172645463325252ull;

u32 fake_rand(u32 n)
{
	seed_state ^= seed_state << 13;
	seed_state ^= seed_state >> 7;
	seed_state ^= seed_state << 17;
	return (u32)((seed_state >> 16) % n);
}

/* ---- device ---- */

u8 *fake_block(pblk_t blk)
{
	assert_true(blk < fake.nr_blocks);
	return fake.dev + (blk << fake.sbi.s.s_blocksize_bits);
}

static int dev_read(void *backing, pblk_t pblk, u32 nr, const struct iovec *iov, int nr_iov)
{
	const u8 *from;

	if (pblk >= fake.nr_blocks || nr > fake.nr_blocks - pblk)
		return -ENXIO;
	from = fake_block(pblk);
	for (int i = 0; i < nr_iov; i++) {
		memcpy(iov[i].iov_base, from, iov[i].iov_len);
		from += iov[i].iov_len;
	}
	return 0;
}

static int dev_read_async(void *backing, pblk_t pblk, u32 nr, const struct iovec *iov,
			  int nr_iov, void (*done)(void *, int), void *priv)
{
	done(priv, dev_read(backing, pblk, nr, iov, nr_iov));
	return 0;
}

static const struct backing_ops dev_ops = { .read = dev_read, .read_async = dev_read_async };

static void *lazy_zeroes(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	assert_true(p != MAP_FAILED);
	return p;
}

void fake_open(u32 blocksize, u32 nr, u32 blocks_per_group, bool csum, bool extents)
{
	struct ext4_sb *sbi = &fake.sbi;
	struct ext4_inode *ei = &fake.ei;

	thread_register();
	memset(&fake, 0, sizeof(fake));
	fake.nr_blocks = nr;
	fake.dev = lazy_zeroes((size_t)nr * blocksize);
	fake.state = calloc(nr, 1);
	marks = calloc(nr, 1);
	memset(&the_handle, 0, sizeof(the_handle));
	tx_nr = 0; /* a failed test may have left something */
	fake.state[0] = FAKE_SYSTEM;
	fake.max_run = 1u << 20;
	fake.next = 1;
	fake.fail_alloc = fake.fail_access = FAKE_NEVER;
	fake.max_credits = 1u << 20;

	sbi->s.s_blocksize = blocksize;
	sbi->s.s_blocksize_bits = (u8)__builtin_ctz(blocksize);
	sbi->s.s_backing_ops = &dev_ops;
	assert_int_equal(budget_create(64u << 20, 1, &sbi->s.s_budget), 0);
	assert_int_equal(bcache_create(&sbi->s), 0);
	sbi->bdev = &fake.bd;
	sbi->blocks_count = nr;
	sbi->blocks_per_group = sbi->clusters_per_group = blocks_per_group;
	sbi->groups = (nr + blocks_per_group - 1) / blocks_per_group;
	sbi->has_csum = csum;
	sbi->reserved = counter_new(0, 1);

	ei->vfs.i_sb = &sbi->s;
	ei->vfs.i_ino = 12;
	ei->vfs.i_flags = extents ? EXT4_EXTENTS_FL : 0;
	ei->i_csum_seed = 0x12345678;
	rwsem_init(&ei->i_data_sem, RANK_I_DATA);
	if (extents)
		ext4_ext_init_root(ei);
}

void fake_close(void)
{
	fake_drop();
	free(tx);
	tx = NULL;
	tx_cap = 0;
	bcache_destroy(&fake.sbi.s);
	budget_destroy(fake.sbi.s.s_budget);
	counter_free(fake.sbi.reserved);
	rwsem_destroy(&fake.ei.i_data_sem);
	munmap(fake.dev, (size_t)fake.nr_blocks << fake.sbi.s.s_blocksize_bits);
	free(fake.state);
	free(marks);
}

/* ---- handles ---- */

static void handle_begin(struct handle *h, u32 credits, u32 revokes)
{
	for (u32 i = 0; i < fake.nr_blocks; i++)
		marks[i] &= IN_TX;
	*h = (struct handle){ .credits = credits, .revokes = revokes, .open = true };
}

struct handle *fake_start(u32 credits, u32 revokes)
{
	assert_false(the_handle.open);
	handle_begin(&the_handle, credits, revokes);
	return &the_handle;
}

void fake_stop(struct handle *h)
{
	assert_true(h->open);
	h->open = false;
}

int handle_ensure(struct handle *h, u32 blocks, u32 revokes)
{
	assert_true(h->open);
	fake.nr_ensures++;
	if (fake.restart_every && fake.nr_ensures % fake.restart_every == 0)
		return 1;
	if (blocks > fake.max_credits)
		return h->credits >= blocks ? 0 : 1;
	h->credits = max_of(h->credits, blocks);
	h->revokes = max_of(h->revokes, revokes);
	return 0;
}

int handle_restart(struct handle *h, u32 blocks, u32 revokes)
{
	assert_true(h->open);
	/* Whoever restarts has written the inode in this transaction. */
	assert_true(h->inode_dirty);
	fake_commit();
	fake.nr_restarts++;
	if (fake.on_restart)
		fake.on_restart(&fake);
	handle_begin(h, blocks, revokes);
	return 0;
}

u32 handle_credits(const struct handle *h)
{
	return h->credits;
}

static int take_access(struct buffer *b)
{
	if (fake.fail_access != FAKE_NEVER && fake.fail_access-- == 0) {
		fake.fail_access = FAKE_NEVER;
		return -ENOMEM;
	}
	assert_true(b->b_count > 0);
	marks[b->b_blocknr] |= HAS_ACCESS;
	return 0;
}

int handle_get_write_access(struct handle *h, struct buffer *b)
{
	assert_true(h->open);
	return take_access(b);
}

int handle_get_create_access(struct handle *h, struct buffer *b)
{
	assert_true(h->open);
	return take_access(b);
}

static void use_credit(struct handle *h, pblk_t blk, u8 mark)
{
	if (marks[blk] & mark)
		return;
	marks[blk] |= mark;
	assert_true(h->credits > 0);
	h->credits--;
}

void handle_dirty(struct handle *h, struct buffer *b)
{
	assert_true(h->open);
	assert_true(marks[b->b_blocknr] & HAS_ACCESS);
	use_credit(h, b->b_blocknr, IN_HANDLE);
	if (marks[b->b_blocknr] & IN_TX)
		return;
	marks[b->b_blocknr] |= IN_TX;
	if (tx_nr == tx_cap) {
		tx_cap = tx_cap ? 2 * tx_cap : 64;
		tx = realloc(tx, tx_cap * sizeof(*tx));
	}
	buffer_get(b);
	tx[tx_nr++] = b;
}

int handle_forget(struct handle *h, struct buffer *b, pblk_t blk)
{
	assert_true(h->open);
	assert_true(h->revokes > 0);
	h->revokes--;
	fake.nr_forgets++;
	for (u32 i = 0; i < tx_nr; i++) {
		if (tx[i]->b_blocknr != blk)
			continue;
		buffer_put(tx[i]);
		tx[i] = tx[--tx_nr];
		break;
	}
	marks[blk] &= BITMAP;
	if (!b)
		b = buffer_find(&fake.sbi.s, blk);
	if (b) {
		assert_true(b->b_blocknr == blk);
		buffer_detach(b);
		buffer_put(b);
	}
	return 0;
}

void fake_commit(void)
{
	struct super_block *sb = &fake.sbi.s;
	u8 *image = aligned_alloc(4096, ALIGN_UP(sb->s_blocksize, 4096u));

	for (u32 i = 0; i < tx_nr; i++) {
		struct buffer *b = tx[i];

		assert_int_equal(fake.state[b->b_blocknr], FAKE_USED);
		memcpy(image, b->b_data, sb->s_blocksize);
		if (b->b_type->freeze)
			b->b_type->freeze(sb, b->b_blocknr, image, b->b_seed);
		assert_int_equal(b->b_type->verify(sb, b, image, b->b_seed), 0);
		memcpy(fake_block(b->b_blocknr), image, sb->s_blocksize);
		marks[b->b_blocknr] &= BITMAP;
		buffer_put(b);
	}
	tx_nr = 0;
	for (u32 i = 0; i < fake.nr_blocks; i++)
		if (fake.state[i] == FAKE_FREED)
			fake.state[i] = FAKE_FREE;
	free(image);
}

void fake_drop(void)
{
	fake_commit();
	bcache_drop(&fake.sbi.s);
}

/* ---- allocator ---- */

u32 fake_used(void)
{
	u32 n = 0;

	for (u32 i = 0; i < fake.nr_blocks; i++)
		n += fake.state[i] == FAKE_USED;
	return n;
}

static void use_bitmap(struct handle *h, pblk_t blk)
{
	u32 g = ext4_block_group(&fake.sbi, blk);

	/* Bitmap and descriptor, once each per handle. */
	if (marks[g] & BITMAP)
		return;
	marks[g] |= BITMAP;
	assert_true(h->credits >= 2);
	h->credits -= 2;
}

pblk_t fake_take_block(void)
{
	while (fake.state[fake.next % fake.nr_blocks] != FAKE_FREE)
		fake.next++;
	fake.state[fake.next % fake.nr_blocks] = FAKE_USED;
	return fake.next++ % fake.nr_blocks;
}

static pblk_t find_free(pblk_t from)
{
	for (u32 i = 0; i < fake.nr_blocks; i++) {
		pblk_t b = (from + i) % fake.nr_blocks;

		if (fake.state[b] == FAKE_FREE)
			return b;
	}
	return 0;
}

int ext4_alloc_blocks(struct handle *h, struct ext4_sb *sbi, group_t hint, pblk_t goal,
		      u32 flags, u32 *len, pblk_t *out)
{
	u32 want = min_of(*len, fake.max_run), got = 0;
	pblk_t b;

	assert_true(h->open && *len > 0 && goal < fake.nr_blocks);
	if (flags & EXT4_ALLOC_EXACT_GOAL) {
		if (fake.scatter || !goal || fake.state[goal] != FAKE_FREE)
			return -ENOSPC;
		b = goal;
	} else {
		fake.nr_allocs++;
		if (fake.fail_alloc != FAKE_NEVER && fake.fail_alloc-- == 0) {
			fake.fail_alloc = FAKE_NEVER;
			return fake.fail_alloc_with;
		}
		b = find_free(fake.scatter || !goal ? fake.next : goal);
		if (!b)
			return -ENOSPC;
	}
	use_bitmap(h, b);
	while (got < want && b + got < fake.nr_blocks && fake.state[b + got] == FAKE_FREE &&
	       ext4_block_group(sbi, b + got) == ext4_block_group(sbi, b))
		fake.state[b + got++] = FAKE_USED;
	if (fake.scatter)
		fake.next = b + got + 1;
	if (flags & EXT4_ALLOC_DELAYED)
		counter_add(sbi->reserved, -(s64)got);
	*len = got;
	*out = b;
	return 0;
}

int ext4_alloc_data(struct handle *h, struct ext4_inode *ei, lblk_t lblk, pblk_t goal,
		    u32 flags, u32 *len, pblk_t *out)
{
	(void)lblk;
	return ext4_alloc_blocks(h, ext4_sb_of(ei), ei->i_group, goal, flags, len, out);
}

int ext4_free_blocks(struct handle *h, struct ext4_sb *sbi, ino_nr ino, pblk_t blk, u32 len)
{
	for (u32 i = 0; i < len; i++) {
		assert_true(blk + i < fake.nr_blocks);
		if (fake.state[blk + i] != FAKE_USED)
			return ext4_error(sbi, ino, blk + i, -EFSCORRUPTED, "double free");
		use_bitmap(h, blk + i);
		fake.state[blk + i] = FAKE_FREED;
	}
	return 0;
}

bool ext4_block_range_ok(const struct ext4_sb *sbi, pblk_t start, u64 len)
{
	return start > 0 && start < fake.nr_blocks && len <= fake.nr_blocks - start;
}

/* ---- inode, errors, data ---- */

int ext4_mark_inode_dirty(struct handle *h, struct ext4_inode *ei)
{
	assert_true(h->open);
	/* Takes the lock itself, as the real one may. */
	rwsem_down_read(&ei->i_data_sem);
	rwsem_up_read(&ei->i_data_sem);
	if (!h->inode_dirty) {
		assert_true(h->credits > 0);
		h->credits--;
	}
	h->inode_dirty = true;
	return 0;
}

int ext4_may_have(struct ext4_inode *ei, u64 blocks)
{
	return 0;
}

int ext4_inode_access(struct handle *h, struct ext4_inode *ei)
{
	assert_true(h->open);
	if (fake.fail_access == FAKE_NEVER || fake.fail_access-- > 0)
		return 0;
	fake.fail_access = FAKE_NEVER;
	return -ENOMEM;
}

int ext4_mark_inode_datasync(struct handle *h, struct ext4_inode *ei)
{
	return ext4_mark_inode_dirty(h, ei);
}

void ext4_inode_add_clusters(struct handle *h, struct ext4_inode *ei, s64 blocks)
{
	fake.inode_blocks += (u64)blocks;
}

int ext4_error_at(struct ext4_sb *sbi, const char *func, int line, ino_nr ino, pblk_t blk,
		  int error, const char *fmt, ...)
{
	fake.nr_errors++;
	return error;
}

int ext4_bread(struct ext4_sb *sbi, pblk_t blk, ino_nr ino, const struct buffer_type *type,
	       u32 seed, struct buffer **out)
{
	int err = buffer_read(&sbi->s, blk, type, seed, out);

	return err ? ext4_error(sbi, ino, blk, err, "%s", type->name) : 0;
}

lblk_t mapping_next_dirty(struct mapping *m, lblk_t start, lblk_t end)
{
	u64 from = max_of((u64)start, fake.dirty_from);

	return from < min_of((u64)end, fake.dirty_to) ? (lblk_t)from : end;
}

/* No page cache: nothing is known but by the tree. */
bool mapping_extent_get(struct mapping *m, lblk_t lblk, u32 nr,
			struct extent_status *es)
{
	return false;
}

void mapping_extent_set(struct mapping *m, lblk_t lblk, u64 end,
			enum extent_state state, pblk_t pblk)
{
}

void mapping_extent_written(struct mapping *m, lblk_t lblk, u64 end)
{
}

void mapping_extent_forget(struct mapping *m, lblk_t lblk, u64 end)
{
}

void mapping_counter_add(struct super_block *sb, enum mapping_counter which, u64 n)
{
}

int bdev_write(struct bdev *bd, u64 pos, const void *buf, size_t len, u32 flags)
{
	if (fake.write_error)
		return fake.write_error;
	fake.nr_zero_writes++;
	assert_true(pos + len <= (u64)fake.nr_blocks << fake.sbi.s.s_blocksize_bits);
	memcpy(fake.dev + pos, buf, len);
	return 0;
}

void *io_alloc(size_t bytes)
{
	return aligned_alloc(4096, ALIGN_UP(bytes, (size_t)4096));
}

void io_free(void *p)
{
	free(p);
}
