/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/xattr_share.c - blocks of attributes that are equal are one
 *
 * Who needs a block of some content looks for one that other inodes have, by the hash in
 * its header, in a table of those that were read or made last (xattr_known.c). It becomes
 * his, too, by its count of sharers, 1024 at most. Only blocks in the buffer cache are
 * looked at, so nothing is read for this.
 *
 * What is in the table is a permission to join, and all that depends on it is done under
 * the block's b_lock:
 *
 *   xattr_share_note()   enters it: the caller is a sharer and stays one meanwhile
 *                        (xattr_sem), so the block is alive
 *   xattr_share_join()   looks whether it is in the table still, compares, gets write
 *                        access, raises the count
 *   xattr_share_claim()  the only sharer wants to change the content, or to free the
 *                        block: takes it out. Nobody joins from then on, and who has
 *                        joined before is seen in the count
 *
 * So a block that was freed is not touched by who found it in the table before: not its
 * content, and not its state in the journal, where an access would take back that it was
 * forgotten. Nor is one found that has another owner by then: the number of a
 * block that is freed while a handle is open, and the caller has one, is not handed
 * out again before that handle's transaction is committed.
 *
 * Left out: blocks of which an entry has its value in an inode of its own, since these count
 * blocks (xattr_ea.c); and such whose hash is 0.
 *
 * Locks:  xattr_sem -> b_lock -> a set of the table
 * Source: Documentation/filesystems/ext4/attributes.rst
 */
#include "fs/xattr_internal.h"

#include <stdatomic.h>

static struct ext4_xattr_header *header(struct buffer *b)
{
	return (struct ext4_xattr_header *)(void *)b->b_data;
}

static bool has_value_inodes(const struct xattr_list *l)
{
	for (u32 at = l->first; !xattr_is_end(l, at); at = xattr_next(l, at))
		if (le32_to_cpu(xattr_entry(l, at)->e_value_inum))
			return true;
	return false;
}

void xattr_share_note(struct ext4_inode *ei, struct buffer *b)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	u32 hash = le32_to_cpu(header(b)->h_hash);
	struct xattr_list l = xattr_block_list(sbi, b);

	assert_mutex_held(&ei->xattr_sem);
	assert_mutex_held(&b->b_lock);
	if (sbi->xattr_blocks && hash && !has_value_inodes(&l))
		xattr_known_add(sbi->xattr_blocks, hash, b->b_blocknr);
}

bool xattr_share_claim_locked(struct ext4_sb *sbi, struct buffer *b)
{
	assert_mutex_held(&b->b_lock);
	if (le32_to_cpu(header(b)->h_refcount) > 1)
		return false;
	xattr_known_del(sbi->xattr_blocks, le32_to_cpu(header(b)->h_hash), b->b_blocknr);
	return true;
}

bool xattr_share_claim(struct ext4_sb *sbi, struct buffer *b)
{
	bool own;

	mutex_lock(&b->b_lock);
	own = xattr_share_claim_locked(sbi, b);
	mutex_unlock(&b->b_lock);
	return own;
}

/* b_lock held. */
static bool is_equal(const struct ext4_sb *sbi, struct buffer *b, const u8 *block)
{
	const u32 from = sizeof(struct ext4_xattr_header);

	return atomic_load(&b->b_type) == &ext4_xattr_block_type &&
	       le32_to_cpu(header(b)->h_refcount) < EXT4_XATTR_REFCOUNT_MAX &&
	       !memcmp(b->b_data + from, block + from, sbi->s.s_blocksize - from);
}

/* One try with block blk. */
static struct buffer *join(struct handle *h, struct ext4_sb *sbi, u32 hash, pblk_t blk,
			   const u8 *block)
{
	struct buffer *b = buffer_find(&sbi->s, blk);
	bool joined;

	if (!b)
		return NULL;
	mutex_lock(&b->b_lock);
	joined = xattr_known_has(sbi->xattr_blocks, hash, blk) && is_equal(sbi, b, block) &&
		 !handle_get_write_access(h, b);
	if (joined) {
		u32 refs = le32_to_cpu(header(b)->h_refcount);

		header(b)->h_refcount = cpu_to_le32(refs + 1);
		handle_dirty(h, b);
	}
	mutex_unlock(&b->b_lock);
	if (!joined) {
		buffer_put(b);
		b = NULL;
	}
	return b;
}

struct buffer *xattr_share_join(struct handle *h, struct ext4_inode *ei, u8 *block,
				pblk_t other_than)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	struct xattr_list l = {
		.data = block,
		.first = sizeof(struct ext4_xattr_header),
		.size = sbi->s.s_blocksize,
	};
	u32 hash = le32_to_cpu(((struct ext4_xattr_header *)(void *)block)->h_hash);
	struct buffer *b = NULL;
	pblk_t blk;

	if (!sbi->xattr_blocks || !hash || has_value_inodes(&l))
		return NULL;
	for (u32 n = 0; n < XATTR_KNOWN_WAYS && !b; n++) {
		blk = xattr_known_nth(sbi->xattr_blocks, hash, n);
		if (!blk)
			break;
		if (blk != other_than)
			b = join(h, sbi, hash, blk, block);
	}
	return b;
}
