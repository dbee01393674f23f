/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/orphan.c - orphans: inodes to be deleted or truncated after a crash
 *
 * The list: head in the superblock's s_last_orphan, next in i_dtime of each
 * inode, doubly linked in memory to find the predecessor on removal. A list
 * change and the writing of the inodes it touches are done under one mutex:
 * so nobody on the list can leave it, and be freed, while its neighbour
 * writes it.
 *
 * The orphan file (feature orphan_file): blocks of inode numbers, zero for a
 * free slot. Adding and removing change one slot of one block; threads begin
 * with a block by CPU. Full: the list is used. Its checksums are computed as
 * the journal freezes a block.
 *
 * Who stores the inode anyway in the same handle, and has made sure that he can,
 * leaves that to himself (ext4_orphan_link(), ext4_orphan_unlink()).
 *
 * In memory an inode has I_ORPHAN while it is on either; i_orphan_slot >= 0
 * says in the file. What goes for good takes itself off in the last
 * transaction of its deletion.
 *
 * Locks:   list lock (RANK_ORPHAN) -> what ext4_mark_inode_dirty() takes:
 *          i_data_sem, b_lock; list lock -> s_lock; slot lock, a leaf
 * Alive:   an inode on the list is in memory: whoever drops one that was not
 *          deleted calls ext4_orphan_forget() first
 * Source:  ext4-format brief 9; Documentation/filesystems/ext4/orphan.rst
 */
#include "fs/alloc_internal.h"
#include "fs/sim_mutation.h"

#include <assert.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/crc.h"
#include "lib/thread.h"

/* mke2fs makes 512 blocks at the most; this is only a bound on memory. */
#define ORPHAN_FILE_MAX (64ull << 20)

struct orphan_block {
	struct buffer *b;     /* [const after load] referenced */
	struct spinlock lock; /* the slots; RANK_CACHE_LIST */
	u32 nr_free;          /* [lock] slots free and not promised */
	u32 hint;             /* [lock] where to look first */
} __cacheline_aligned;

struct ext4_orphan_info {
	struct mutex lock;         /* the list, memory and disk */
	struct cds_list_head list; /* [lock] head first, as on disk */
	u32 nr_blocks;             /* [const after load] of the file */
	struct orphan_block *blocks;
	_Atomic s64 nr_slots;      /* [atomic] slots in use */
};

/* ---- the orphan file's blocks ---- */

static u32 slots_per_block(const struct super_block *sb)
{
	return (sb->s_blocksize - (u32)sizeof(struct ext4_orphan_block_tail)) /
	       (u32)sizeof(le32);
}

static struct ext4_orphan_block_tail *block_tail(const struct super_block *sb,
						 const void *data)
{
	return (struct ext4_orphan_block_tail *)((uintptr_t)data +
		sb->s_blocksize - sizeof(struct ext4_orphan_block_tail));
}

static u32 block_csum(const struct super_block *sb, pblk_t blk,
		      const void *data, u32 seed)
{
	le64 nr = cpu_to_le64(blk);
	u32 crc = crc32c(seed, &nr, sizeof(nr));

	return crc32c(crc, data, slots_per_block(sb) * sizeof(le32));
}

static int orphan_verify(struct super_block *sb, const struct buffer *b,
			 const void *data, u32 seed)
{
	const struct ext4_orphan_block_tail *t = block_tail(sb, data);

	if (le32_to_cpu(t->ob_magic) != EXT4_ORPHAN_BLOCK_MAGIC)
		return -EFSCORRUPTED;
	if (EXT4_SB(sb)->has_csum &&
	    le32_to_cpu(t->ob_checksum) != block_csum(sb, b->b_blocknr, data, seed))
		return -EFSBADCRC;
	return 0;
}

static void orphan_freeze(struct super_block *sb, pblk_t blk, void *data,
			  u32 seed)
{
	if (EXT4_SB(sb)->has_csum)
		block_tail(sb, data)->ob_checksum =
			cpu_to_le32(block_csum(sb, blk, data, seed));
}

/* seed: i_csum_seed of the orphan file's inode */
static const struct buffer_type orphan_type = {
	.name = "orphan file",
	.verify = orphan_verify,
	.freeze = orphan_freeze,
};

static le32 *slots_of(const struct orphan_block *ob)
{
	return (le32 *)(void *)ob->b->b_data;
}

static int load_block(struct ext4_sb *sbi, struct ext4_inode *ei, lblk_t lblk,
		      struct orphan_block *ob)
{
	struct ext4_map map = { .lblk = lblk, .len = 1 };
	u32 nr = slots_per_block(&sbi->s);
	int error;

	error = ext4_map_blocks(ei, &map);
	if (error)
		return error;
	if (!(map.flags & EXT4_MAP_MAPPED) ||
	    !ext4_block_range_ok(sbi, map.pblk, 1))
		return ext4_error(sbi, ei->vfs.i_ino, map.pblk, -EFSCORRUPTED,
				  "orphan file has no usable block %u", lblk);
	error = ext4_bread(sbi, map.pblk, ei->vfs.i_ino, &orphan_type,
			   ei->i_csum_seed, &ob->b);
	if (error)
		return error;
	for (u32 i = 0; i < nr; i++)
		ob->nr_free += !le32_to_cpu(slots_of(ob)[i]);
	atomic_fetch_add(&sbi->orphan->nr_slots, nr - ob->nr_free);
	return 0;
}

static int load_file(struct ext4_sb *sbi, struct ext4_inode *ei)
{
	struct ext4_orphan_info *oi = sbi->orphan;
	u64 size = ei->vfs.i_size;
	int error = 0;

	if (!S_ISREG(ei->vfs.i_mode) || !size || size > ORPHAN_FILE_MAX ||
	    size % sbi->s.s_blocksize)
		return ext4_error(sbi, ei->vfs.i_ino, 0, -EFSCORRUPTED,
				  "orphan file has mode %o, size %" PRIu64,
				  ei->vfs.i_mode, size);
	oi->nr_blocks = (u32)(size >> sbi->s.s_blocksize_bits);
	oi->blocks = aligned_alloc(_Alignof(struct orphan_block),
				   oi->nr_blocks * sizeof(*oi->blocks));
	if (!oi->blocks) {
		oi->nr_blocks = 0;
		return -ENOMEM;
	}
	memset(oi->blocks, 0, oi->nr_blocks * sizeof(*oi->blocks));
	for (u32 i = 0; i < oi->nr_blocks; i++)
		spin_init(&oi->blocks[i].lock, RANK_CACHE_LIST);
	for (u32 i = 0; !error && i < oi->nr_blocks; i++)
		error = load_block(sbi, ei, i, &oi->blocks[i]);
	return error;
}

int ext4_orphan_load(struct ext4_sb *sbi)
{
	struct ext4_orphan_info *oi = calloc(1, sizeof(*oi));
	struct inode *inode;
	int error;

	if (!oi)
		return -ENOMEM;
	mutex_init(&oi->lock, RANK_ORPHAN);
	CDS_INIT_LIST_HEAD(&oi->list);
	sbi->orphan = oi;
	if (!ext4_has_compat(sbi, ORPHAN_FILE) || !sbi->orphan_file_ino)
		return 0;
	error = icache_get(&sbi->s, sbi->orphan_file_ino, &inode);
	if (error == -ESTALE)
		error = ext4_error(sbi, sbi->orphan_file_ino, 0, -EFSCORRUPTED,
				   "orphan file is not an inode in use");
	if (!error) {
		error = load_file(sbi, EXT4_I(inode));
		inode_put(inode);
	}
	if (error)
		ext4_orphan_free(sbi);
	return error;
}

void ext4_orphan_free(struct ext4_sb *sbi)
{
	struct ext4_orphan_info *oi = sbi->orphan;

	if (!oi)
		return;
	for (u32 i = 0; i < oi->nr_blocks; i++) {
		buffer_put(oi->blocks[i].b);
		spin_destroy(&oi->blocks[i].lock);
	}
	free(oi->blocks);
	mutex_destroy(&oi->lock);
	free(oi);
	sbi->orphan = NULL;
}

bool ext4_orphan_empty(struct ext4_sb *sbi)
{
	u32 head;

	/* Not loaded: who knows, so not empty (a mount that failed). */
	if (!sbi->orphan)
		return false;
	mutex_lock(&sbi->s_lock);
	head = le32_to_cpu(sbi->es->s_last_orphan);
	mutex_unlock(&sbi->s_lock);
	return !head && !atomic_load(&sbi->orphan->nr_slots);
}

/* ---- the inode's own mark ---- */

static bool is_orphan(struct ext4_inode *ei)
{
	return atomic_load(&ei->vfs.i_state) & I_ORPHAN;
}

static void set_orphan(struct ext4_inode *ei, bool on)
{
	spin_lock(&ei->vfs.i_lock);
	if (on)
		atomic_fetch_or(&ei->vfs.i_state, I_ORPHAN);
	else
		atomic_fetch_and(&ei->vfs.i_state, ~(u32)I_ORPHAN);
	spin_unlock(&ei->vfs.i_lock);
}

/* ---- slots ---- */

/* Promises one slot of ob to the caller. */
static bool slot_promise(struct orphan_block *ob)
{
	bool ok;

	spin_lock(&ob->lock);
	ok = ob->nr_free > 0;
	if (ok)
		ob->nr_free--;
	spin_unlock(&ob->lock);
	return ok;
}

static void slot_take_back(struct orphan_block *ob)
{
	spin_lock(&ob->lock);
	ob->nr_free++;
	spin_unlock(&ob->lock);
}

/* A promise was made, so there is a free slot. */
static u32 slot_fill(struct orphan_block *ob, u32 nr, ino_nr ino)
{
	u32 i, tried = 0;

	spin_lock(&ob->lock);
	for (i = ob->hint; le32_to_cpu(slots_of(ob)[i]); tried++) {
		assert(tried < nr);
		if (++i == nr)
			i = 0;
	}
	slots_of(ob)[i] = cpu_to_le32(ino);
	ob->hint = i + 1 == nr ? 0 : i + 1;
	spin_unlock(&ob->lock);
	return i;
}

/* 0, -ENOSPC (all slots taken: use the list), or what the handle says. */
static int file_add(struct handle *h, struct ext4_sb *sbi, struct ext4_inode *ei)
{
	struct ext4_orphan_info *oi = sbi->orphan;
	u32 nr = slots_per_block(&sbi->s);
	u32 start;
	int error;

	if (!oi->nr_blocks)
		return -ENOSPC;
	start = thread_cpu() * 13 % oi->nr_blocks;
	for (u32 n = 0; n < oi->nr_blocks; n++) {
		u32 at = (start + n) % oi->nr_blocks;
		struct orphan_block *ob = &oi->blocks[at];

		if (!slot_promise(ob))
			continue;
		error = handle_get_write_access(h, ob->b);
		if (error) {
			slot_take_back(ob);
			return error;
		}
		ei->i_orphan_slot = (s64)at * nr + slot_fill(ob, nr, ei->vfs.i_ino);
		handle_dirty(h, ob->b);
		atomic_fetch_add(&oi->nr_slots, 1);
		return 0;
	}
	return -ENOSPC;
}

static int file_del(struct handle *h, struct ext4_sb *sbi, struct ext4_inode *ei)
{
	struct ext4_orphan_info *oi = sbi->orphan;
	u32 nr = slots_per_block(&sbi->s);
	struct orphan_block *ob = &oi->blocks[(u64)ei->i_orphan_slot / nr];
	u32 i = (u32)((u64)ei->i_orphan_slot % nr);
	int error;

	error = handle_get_write_access(h, ob->b);
	if (error)
		return error;
	spin_lock(&ob->lock);
	assert(le32_to_cpu(slots_of(ob)[i]) == ei->vfs.i_ino);
	slots_of(ob)[i] = cpu_to_le32(0);
	ob->nr_free++;
	spin_unlock(&ob->lock);
	handle_dirty(h, ob->b);
	atomic_fetch_sub(&oi->nr_slots, 1);
	return 0;
}

/* ---- list ---- */

/* s_last_orphan = ino; h has write access to the superblock's buffer. */
static void set_head(struct handle *h, struct ext4_sb *sbi, ino_nr ino)
{
	mutex_lock(&sbi->s_lock);
	sbi->es->s_last_orphan = cpu_to_le32(ino);
	mutex_unlock(&sbi->s_lock);
	handle_dirty(h, sbi->sb_buf);
}

static ino_nr get_head(struct ext4_sb *sbi)
{
	ino_nr ino;

	mutex_lock(&sbi->s_lock);
	ino = le32_to_cpu(sbi->es->s_last_orphan);
	mutex_unlock(&sbi->s_lock);
	return ino;
}

/* i_dtime, read by whoever writes the inode; returns what it was. */
static u32 set_next(struct ext4_inode *ei, u32 next)
{
	u32 old;

	old = ei->i_dtime;
	ei->i_dtime = next;
	return old;
}

/* store: the inode, too. */
static int list_add(struct handle *h, struct ext4_sb *sbi, struct ext4_inode *ei,
		    bool store)
{
	struct ext4_orphan_info *oi = sbi->orphan;
	int error;

	error = handle_get_write_access(h, sbi->sb_buf);
	if (error)
		return error;
	mutex_lock(&oi->lock);
	set_next(ei, get_head(sbi));
	if (store)
		error = ext4_mark_inode_dirty(h, ei);
	if (!error) {
		set_head(h, sbi, ei->vfs.i_ino);
		ei->i_orphan_slot = -1;
		cds_list_add(&ei->i_orphan, &oi->list);
	} else {
		set_next(ei, 0);
	}
	mutex_unlock(&oi->lock);
	return error;
}

/*
 * The predecessor (an inode, or the head in the superblock) takes over ei's
 * next, which is what the disk says and not what memory does: an inode that
 * was dropped from memory in between stays on the disk's chain.
 */
static int list_unlink(struct handle *h, struct ext4_sb *sbi,
		       struct ext4_inode *ei, bool store)
{
	struct ext4_orphan_info *oi = sbi->orphan;
	struct ext4_inode *prev;
	u32 next, old;
	int error;

	if (ei->i_orphan.prev == &oi->list && get_head(sbi) == ei->vfs.i_ino) {
		next = set_next(ei, 0);
		error = store ? ext4_mark_inode_dirty(h, ei) : 0;
		if (error)
			set_next(ei, next);
		else
			set_head(h, sbi, next);
		return error;
	}
	/* Its on-disk predecessor is gone from memory, by an error reported
	 * then: ei stays on the chain for e2fsck. */
	prev = cds_list_entry(ei->i_orphan.prev, struct ext4_inode, i_orphan);
	if (ei->i_orphan.prev == &oi->list || prev->i_dtime != ei->vfs.i_ino)
		return ext4_error(sbi, ei->vfs.i_ino, 0, -EFSCORRUPTED,
				  "orphan list is broken before this inode");
	next = set_next(ei, 0);
	old = set_next(prev, next);
	error = ext4_mark_inode_dirty(h, prev);
	if (error) {
		set_next(prev, old);
		set_next(ei, next);
		return error;
	}
	return store ? ext4_mark_inode_dirty(h, ei) : 0;
}

static int list_del(struct handle *h, struct ext4_sb *sbi, struct ext4_inode *ei,
		    bool store)
{
	struct ext4_orphan_info *oi = sbi->orphan;
	int error;

	error = handle_get_write_access(h, sbi->sb_buf);
	if (error)
		return error;
	mutex_lock(&oi->lock);
	error = list_unlink(h, sbi, ei, store);
	if (!error)
		cds_list_del_init(&ei->i_orphan);
	mutex_unlock(&oi->lock);
	return error;
}

/* ---- both ---- */

static int orphan_add(struct handle *h, struct ext4_inode *ei, bool store)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	int error;

	if (is_orphan(ei) || SIM_MUTATION(SIM_FORGET_ORPHAN))
		return 0;
	error = file_add(h, sbi, ei);
	if (error == -ENOSPC)
		error = list_add(h, sbi, ei, store);
	if (!error)
		set_orphan(ei, true);
	return error;
}

static int orphan_del(struct handle *h, struct ext4_inode *ei, bool store)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	int error;

	if (!is_orphan(ei))
		return 0;
	if (ei->i_orphan_slot >= 0)
		error = file_del(h, sbi, ei);
	else
		error = list_del(h, sbi, ei, store);
	if (error)
		return error;
	ei->i_orphan_slot = -1;
	set_orphan(ei, false);
	return 0;
}

int ext4_orphan_add(struct handle *h, struct ext4_inode *ei)
{
	return orphan_add(h, ei, true);
}

int ext4_orphan_del(struct handle *h, struct ext4_inode *ei)
{
	return orphan_del(h, ei, true);
}

/*
 * These two leave the inode itself to the caller, who stores it in the same handle,
 * outside of the list's lock. A neighbour may change its next meanwhile, and
 * stores it, too; both store what memory has at that moment, under b_lock, and the
 * handle keeps both in one transaction. So the last one to store has it all. Off the
 * list it has no neighbours any more.
 */
int ext4_orphan_link(struct handle *h, struct ext4_inode *ei)
{
	return orphan_add(h, ei, false);
}

int ext4_orphan_unlink(struct handle *h, struct ext4_inode *ei)
{
	return orphan_del(h, ei, false);
}

void ext4_orphan_forget(struct ext4_inode *ei)
{
	struct ext4_orphan_info *oi = ext4_sb_of(ei)->orphan;

	if (!is_orphan(ei))
		return;
	if (ei->i_orphan_slot < 0) {
		mutex_lock(&oi->lock);
		cds_list_del_init(&ei->i_orphan);
		mutex_unlock(&oi->lock);
	}
	ei->i_orphan_slot = -1;
	set_orphan(ei, false);
}

/* ---- recovery ---- */

/* An inode number found on the list or in the file, as a referenced inode. */
static int orphan_get(struct ext4_sb *sbi, ino_nr ino, struct inode **out)
{
	struct inode *inode;
	bool used = false;
	u32 mode;
	int error;

	if (ino < sbi->first_ino || ino > sbi->inodes_count ||
	    ino == sbi->orphan_file_ino)
		return ext4_error(sbi, ino, 0, -EFSCORRUPTED,
				  "orphan with an impossible number");
	error = ext4_ino_in_use(sbi, ino, &used);
	if (error)
		return error;
	if (!used)
		return ext4_error(sbi, ino, 0, -EFSCORRUPTED,
				  "orphan is not an allocated inode");
	error = icache_get(&sbi->s, ino, &inode);
	if (error)
		return error;
	mode = inode->i_mode;
	/* With links it can only be there to be truncated. */
	if (inode->i_nlink && !S_ISREG(mode) && !S_ISDIR(mode) && !S_ISLNK(mode)) {
		error = ext4_error(sbi, ino, 0, -EFSCORRUPTED,
				   "orphan with links has mode %o", mode);
		inode_put(inode);
		return error;
	}
	*out = inode;
	return 0;
}

/*
 * The head cannot be an orphan, and what comes after it is not known. As with the
 * kernel's ext4, unless errors= says otherwise (the journal is aborted then), the
 * volume is served all the same: inodes that were on the list stay in use until e2fsck,
 * which the record of the error calls for. No inode is on the list in memory here.
 */
static int list_give_up(struct ext4_sb *sbi)
{
	struct handle *h;
	int error, error2;

	error = journal_start(sbi->journal, EXT4_ORPHAN_CREDITS, 0, &h);
	if (error)
		return error;
	error = handle_get_write_access(h, sbi->sb_buf);
	if (!error) {
		set_head(h, sbi, 0);
		log_err("%s: the list of orphans is given up: run e2fsck", sbi->s.s_id);
	}
	error2 = handle_stop(h);
	return error ? error : error2;
}

/*
 * Works on the head until there is none. fn takes it off, or the put after it
 * does (deletion). A head that is still there then, or a chain longer than
 * the volume has inodes, ends it.
 */
static int recover_list(struct ext4_sb *sbi,
			int (*fn)(struct ext4_sb *sbi, struct inode *inode))
{
	struct ext4_orphan_info *oi = sbi->orphan;
	struct inode *inode;
	struct ext4_inode *ei;
	ino_nr ino;
	int error;

	for (u32 n = 0; (ino = get_head(sbi)) != 0; n++) {
		if (n >= sbi->inodes_count)
			return ext4_error(sbi, ino, 0, -EFSCORRUPTED,
					  "orphan list is a loop");
		error = orphan_get(sbi, ino, &inode);
		if (error == -EFSCORRUPTED)
			return list_give_up(sbi);
		if (error)
			return error;
		ei = EXT4_I(inode);
		if (is_orphan(ei) || ei->i_dtime == ino) {
			inode_put(inode);
			return ext4_error(sbi, ino, 0, -EFSCORRUPTED,
					  "orphan list is a loop");
		}
		mutex_lock(&oi->lock);
		ei->i_orphan_slot = -1;
		cds_list_add(&ei->i_orphan, &oi->list);
		mutex_unlock(&oi->lock);
		set_orphan(ei, true);
		error = fn(sbi, inode);
		inode_put(inode);
		if (error)
			return error;
		if (get_head(sbi) == ino) {
			log_err("%s: orphan inode %u could not be dealt with",
				sbi->s.s_id, ino);
			return -EIO;
		}
	}
	return 0;
}

static ino_nr slot_read(struct orphan_block *ob, u32 i)
{
	ino_nr ino;

	spin_lock(&ob->lock);
	ino = le32_to_cpu(slots_of(ob)[i]);
	spin_unlock(&ob->lock);
	return ino;
}

static int recover_slot(struct ext4_sb *sbi, u32 block, u32 i,
			int (*fn)(struct ext4_sb *sbi, struct inode *inode))
{
	struct orphan_block *ob = &sbi->orphan->blocks[block];
	ino_nr ino = slot_read(ob, i);
	struct inode *inode;
	struct ext4_inode *ei;
	int error;

	if (!ino)
		return 0;
	error = orphan_get(sbi, ino, &inode);
	if (error)
		return error;
	ei = EXT4_I(inode);
	if (is_orphan(ei)) {
		inode_put(inode);
		return ext4_error(sbi, ino, ob->b->b_blocknr, -EFSCORRUPTED,
				  "orphan is recorded twice");
	}
	ei->i_orphan_slot = (s64)block * slots_per_block(&sbi->s) + i;
	set_orphan(ei, true);
	error = fn(sbi, inode);
	inode_put(inode);
	if (!error && slot_read(ob, i) == ino) {
		log_err("%s: orphan inode %u could not be dealt with",
			sbi->s.s_id, ino);
		error = -EIO;
	}
	return error;
}

/* Goes on after a bad slot: the others are independent of it. */
static int recover_file(struct ext4_sb *sbi,
			int (*fn)(struct ext4_sb *sbi, struct inode *inode))
{
	u32 nr = slots_per_block(&sbi->s);
	int error, first = 0;

	for (u32 block = 0; block < sbi->orphan->nr_blocks; block++)
		for (u32 i = 0; i < nr; i++) {
			error = recover_slot(sbi, block, i, fn);
			if (error && !first)
				first = error;
		}
	return first;
}

int ext4_orphan_recover(struct ext4_sb *sbi,
			int (*fn)(struct ext4_sb *sbi, struct inode *inode))
{
	int error, error2;

	error = recover_list(sbi, fn);
	error2 = recover_file(sbi, fn);
	return error ? error : error2;
}
