/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/inline_convert.c - content leaves the inode before it is changed
 *
 * Nothing is ever put into an inode here. What lies in one gets a block of its
 * own before the first change, and is like any other file or directory from then
 * on; only the parent's number of a moved directory is changed in place.
 *
 *   file:      block allocated -> its data written and waited for -> extent, flags
 *              and attribute list changed, all in one handle. A crash before the
 *              commit leaves the inode as it was, one after it finds the data: the
 *              commit flushes the device first.
 *   directory: its first block is made of the entries, and journalled.
 *
 * The attribute "system.data" goes in the same handle. The space of its value stays
 * free where it was; the next change of the attributes closes the gap.
 *
 * Locks:   i_rwsem exclusively (caller) -> handle -> i_data_sem, b_lock. Who reads
 *          i_inline without i_rwsem looks at whether there is any, no more.
 * Source:  ext4-format brief 14.1
 */
#include "fs/dir_internal.h"
#include "fs/xattr_internal.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>


/* What a conversion that fails half-way puts back. */
struct before {
	u8 i_block[EXT4_I_BLOCK_BYTES];
	u64 size;
	u32 flags;
	u8 *content;
};

static void set_flags(struct ext4_inode *ei, u32 flags)
{
	spin_lock(&ei->vfs.i_lock);
	ei->vfs.i_flags = flags;
	spin_unlock(&ei->vfs.i_lock);
}

static void set_sizes(struct ext4_inode *ei, u64 size)
{
	ext4_set_size(ei, size);
	rwsem_down_write(&ei->i_data_sem);
	ei->i_disksize = size;
	rwsem_up_write(&ei->i_data_sem);
}

/* From here on an empty file or directory with a map; but i_inline stays until nothing
 * can fail any more: who finds none goes on without a look at it under i_rwsem. */
static void become_mapped(struct ext4_inode *ei, struct before *b)
{
	b->size = ei->vfs.i_size;
	b->flags = ei->vfs.i_flags;
	b->content = ei->i_inline;
	rwsem_down_write(&ei->i_data_sem);
	memcpy(b->i_block, ei->i_block, sizeof(b->i_block));
	set_flags(ei, (b->flags & ~EXT4_INLINE_DATA_FL) |
			      ext4_new_map_flag(ext4_sb_of(ei)));
	ext4_map_init(ei);
	rwsem_up_write(&ei->i_data_sem);
}

static void become_inline(struct ext4_inode *ei, const struct before *b)
{
	rwsem_down_write(&ei->i_data_sem);
	memcpy(ei->i_block, b->i_block, sizeof(b->i_block));
	rwsem_up_write(&ei->i_data_sem);
	set_flags(ei, b->flags);
	set_sizes(ei, b->size);
}

/* Takes the entry of "system.data" out of the list in the table; b_lock held. */
static void drop_attribute(struct ext4_inode *ei, u8 *raw)
{
	const struct xattr_name name = {
		.index = XATTR_INDEX_SYSTEM, .len = 4, .text = "data",
	};
	struct ext4_sb *sbi = ext4_sb_of(ei);
	struct ext4_xattr_entry *e;
	struct xattr_list l;
	u32 at, next, end, offs;

	if (!xattr_body_list(sbi, raw, ei->i_extra_isize, &l))
		return;
	at = xattr_find(&l, &name);
	if (!at)
		return;
	e = xattr_entry(&l, at);
	offs = l.base + le16_to_cpu(e->e_value_offs);
	/* It was checked to be inside, but not that there is room for its padding. */
	if (!le32_to_cpu(e->e_value_inum) && le32_to_cpu(e->e_value_size))
		memset(raw + offs, 0,
		       min_of(ALIGN_UP(le32_to_cpu(e->e_value_size), XATTR_PAD), l.size - offs));
	next = xattr_next(&l, at);
	for (end = next; !xattr_is_end(&l, end); end = xattr_next(&l, end))
		;
	memmove(raw + at, raw + next, end - next);
	memset(raw + at + (end - next), 0, next - at);
	if (xattr_is_end(&l, l.first)) /* the last one: no list at all */
		memset(raw + l.first - sizeof(le32), 0, sizeof(le32));
}

/* The content, in a block at the file's beginning. */
static int write_file(struct handle *h, struct ext4_inode *ei, const struct before *b)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	struct ext4_map m = { .lblk = 0, .len = 1 };
	u32 bs = sbi->s.s_blocksize;
	u8 *data;
	int err;

	if (!b->size)
		return 0;
	data = io_alloc(bs);
	if (!data)
		return -ENOMEM;
	memset(data, 0, bs);
	memcpy(data, b->content, b->size);
	err = ext4_map_create(h, ei, &m, 0);
	if (!err) {
		err = bdev_write(sbi->bdev, m.pblk << sbi->s.s_blocksize_bits, data,
				 bs, 0);
		if (err) {
			int err2 = ext4_remove_blocks(h, ei, 0, 1, false);

			if (err2)
				ext4_error(sbi, ei->vfs.i_ino, m.pblk, err2,
					   "a block stays allocated");
		}
	}
	io_free(data);
	return err;
}

static int add_entry(void *priv, const char *name, u32 len, ino_nr ino, u8 ftype)
{
	struct dir_new *fresh = priv;
	struct buffer *b = fresh->b[0];
	struct dir_new_entry ne = { .name = name, .len = len, .ino = ino, .ftype = ftype };

	dir_leaf_insert(EXT4_SB(b->b_sb), b->b_data, &ne);
	return 0;
}

static int write_dir(struct handle *h, struct ext4_inode *dir, const struct before *b)
{
	static const struct buffer_type *const leaf[] = { &ext4_dir_leaf_type };
	struct ext4_sb *sbi = ext4_sb_of(dir);
	struct dir_new fresh;
	le32 parent;
	int err;

	memcpy(&parent, b->content, sizeof(parent));
	ext4_set_size(dir, 0);
	err = dir_grow(h, dir, 1, leaf, 0, &fresh);
	if (err)
		return err;
	dir_leaf_init(sbi, fresh.b[0]->b_data);
	(void)add_entry(&fresh, ".", 1, dir->vfs.i_ino, EXT4_FT_DIR);
	(void)add_entry(&fresh, "..", 2, le32_to_cpu(parent), EXT4_FT_DIR);
	/* It was walked once already: the entries are good. */
	(void)!ext4_inline_walk(dir, b->content, b->size, add_entry, &fresh);
	handle_dirty(h, fresh.b[0]);
	dir_changed(dir);
	dir_new_put(&fresh);
	return 0;
}

static int convert_in(struct handle *h, struct ext4_inode *ei)
{
	struct before was;
	struct buffer *table;
	u32 offset;
	int err = ext4_inode_prepare(h, ei, &table, &offset);

	if (err)
		return err;
	become_mapped(ei, &was);
	err = S_ISDIR(ei->vfs.i_mode) ? write_dir(h, ei, &was) : write_file(h, ei, &was);
	if (err) {
		become_inline(ei, &was);
	} else {
		mutex_lock(&ei->xattr_sem);
		mutex_lock(&table->b_lock);
		drop_attribute(ei, table->b_data + offset);
		ext4_xattr_note(ei, table->b_data + offset);
		mutex_unlock(&table->b_lock);
		mutex_unlock(&ei->xattr_sem);
		ei->i_inline = NULL;
		free(was.content);
	}
	ext4_inode_finish(h, ei, table, offset);
	return err;
}

static int no_entry(void *priv, const char *name, u32 len, ino_nr ino, u8 ftype)
{
	return 0;
}

int ext4_inline_convert(struct ext4_inode *ei)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	u32 credits;
	int err, err2, tries = 0;

	assert_rwsem_held_write(&ei->vfs.i_rwsem);
	if (!ei->i_inline || S_ISLNK(ei->vfs.i_mode))
		return 0;
	err = ext4_may_write(sbi);
	if (!err && S_ISDIR(ei->vfs.i_mode))
		err = ext4_inline_walk(ei, ei->i_inline, ei->vfs.i_size, no_entry, NULL);
	if (err)
		return err;
	credits = ext4_ext_insert_credits(ei, 1) + 2 * EXT4_INODE_CREDITS + 1 +
		  EXT4_ALLOC_CREDITS;
	do {
		struct handle *h;

		err = journal_start(sbi->journal, credits, EXT4_DIR_ADD_REVOKES, &h);
		if (err)
			return err;
		/* What was asked for may be a removal. */
		handle_set_privileged(h);
		err = convert_in(h, ei);
		err2 = handle_stop(h);
		err = err ? err : err2;
	} while (ext4_should_retry(sbi, err, &tries));
	return err == -EAGAIN ? -ENOSPC : err;
}
