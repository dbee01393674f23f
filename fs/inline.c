/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/inline.c - files, directories and links that lie in their inode: reading
 *               (before a change they leave it: fs/inline_convert.c)
 *
 * The first 60 bytes are i_block, the rest is the value of the in-body
 * attribute "system.data". The whole content is gathered once, when the inode
 * is read, into ei->i_inline (i_size bytes), and everything below works on that
 * copy. A directory begins with its parent's number (4 bytes); its entries
 * fill two regions, up to byte 60 and from there on, and none crosses over.
 *
 * Locks:   i_rwsem, shared, held by the caller
 * Source:  Documentation/filesystems/ext4/inlinedata.rst
 */
#include "fs/dir_internal.h"
#include "fs/xattr_internal.h"

#include <stdlib.h>
#include <string.h>

#define PARENT_BYTES 4u

/* The value of "system.data"; false: there is none, or it is out of bounds. The
 * list itself was checked by ext4_xattr_check_ibody(). */
static bool find_data(const struct ext4_sb *sbi, const u8 *raw, u32 extra,
		      const u8 **value, u32 *len)
{
	u32 first = EXT4_GOOD_OLD_INODE_SIZE + extra + 4;
	u32 at = first;
	le32 magic;

	if (first + sizeof(struct ext4_xattr_entry) > sbi->inode_size)
		return false;
	memcpy(&magic, raw + first - 4, sizeof(magic));
	if (le32_to_cpu(magic) != EXT4_XATTR_MAGIC)
		return false;
	while (at + sizeof(struct ext4_xattr_entry) <= sbi->inode_size) {
		struct ext4_xattr_entry e;
		u32 offs, size;

		memcpy(&e, raw + at, sizeof(e));
		if (!e.e_name_len && !e.e_name_index)
			return false;
		offs = le16_to_cpu(e.e_value_offs);
		size = le32_to_cpu(e.e_value_size);
		if (e.e_name_index == XATTR_INDEX_SYSTEM && e.e_name_len == 4 &&
		    at + sizeof(e) + 4 <= sbi->inode_size &&
		    !memcmp(raw + at + sizeof(e), "data", 4)) {
			if (le32_to_cpu(e.e_value_inum) ||
			    size > sbi->inode_size || first + offs > sbi->inode_size ||
			    size > sbi->inode_size - (first + offs))
				return false;
			*value = raw + first + offs;
			*len = size;
			return true;
		}
		at += (u32)ALIGN_UP(sizeof(e) + e.e_name_len, (size_t)4);
	}
	return false;
}

int ext4_inline_load(struct ext4_inode *ei, const void *raw)
{
	u64 size = ei->vfs.i_size;
	const u8 *value = NULL;
	u32 head, len = 0;

	if (size > EXT4_I_BLOCK_BYTES &&
	    !find_data(ext4_sb_of(ei), raw, ei->i_extra_isize, &value, &len))
		return -EFSCORRUPTED;
	if (size > EXT4_I_BLOCK_BYTES + len)
		return -EFSCORRUPTED;
	if (S_ISDIR(ei->vfs.i_mode) && size < EXT4_I_BLOCK_BYTES)
		return -EFSCORRUPTED;
	ei->i_inline = malloc(size + 1);
	if (!ei->i_inline)
		return -ENOMEM;
	head = (u32)min_of(size, (u64)EXT4_I_BLOCK_BYTES);
	memcpy(ei->i_inline, ei->i_block, head);
	if (size > head)
		memcpy(ei->i_inline + head, value, size - head);
	ei->i_inline[size] = '\0';
	return 0;
}

void ext4_inline_read(const struct ext4_inode *ei, u64 pos, void *buf, size_t len)
{
	memcpy(buf, ei->i_inline + pos, len);
}

int ext4_inline_parent(const struct ext4_inode *dir, ino_nr *parent)
{
	le32 ino;

	memcpy(&ino, dir->i_inline, sizeof(ino));
	*parent = le32_to_cpu(ino);
	return 0;
}

/*
 * The entry at or after *at (a byte of the content), which moves behind it. 0: found;
 * 1: no more; -EFSCORRUPTED. An entry's name lies in the content.
 */
static int next_entry(const struct ext4_inode *dir, const u8 *content, u32 size, u32 *at,
		      struct ext4_dir_entry *de, const char **name)
{
	while (*at < size) {
		u32 end = *at < EXT4_I_BLOCK_BYTES ? EXT4_I_BLOCK_BYTES : size;
		u32 rec;

		if (end - *at < sizeof(*de))
			return -EFSCORRUPTED;
		memcpy(de, content + *at, sizeof(*de));
		rec = le16_to_cpu(de->rec_len);
		if (rec < EXT4_DIR_REC_LEN(1) || rec % EXT4_DIR_PAD ||
		    rec > end - *at || EXT4_DIR_REC_LEN(de->name_len) > rec)
			return -EFSCORRUPTED;
		*name = (const char *)content + *at + sizeof(*de);
		*at += rec;
		if (!le32_to_cpu(de->inode))
			continue;
		if (!de->name_len || dir_is_dots(*name, de->name_len) ||
		    le32_to_cpu(de->inode) > ext4_sb_of(dir)->inodes_count ||
		    memchr(*name, '/', de->name_len) ||
		    memchr(*name, '\0', de->name_len))
			return -EFSCORRUPTED;
		return 0;
	}
	return 1;
}

static int report(const struct ext4_inode *dir, u32 at)
{
	return ext4_error(ext4_sb_of(dir), dir->vfs.i_ino, 0, -EFSCORRUPTED,
			  "inline directory: bad entry before byte %u", at);
}

int ext4_inline_find(const struct ext4_inode *dir, const char *name, u32 len,
		     ino_nr *ino, u8 *ftype)
{
	struct ext4_dir_entry de;
	u32 at = PARENT_BYTES;
	const char *n;
	int r;

	while (!(r = next_entry(dir, dir->i_inline, (u32)dir->vfs.i_size, &at, &de,
				 &n))) {
		if (de.name_len != len || memcmp(n, name, len))
			continue;
		*ino = le32_to_cpu(de.inode);
		*ftype = de.file_type;
		return 0;
	}
	return r < 0 ? report(dir, at) : -ENOENT;
}

int ext4_inline_walk(const struct ext4_inode *dir, const u8 *content, u64 size,
		     ext4_inline_emit emit, void *priv)
{
	u32 at = PARENT_BYTES;

	for (;;) {
		struct ext4_dir_entry de;
		const char *n;
		int r = next_entry(dir, content, (u32)size, &at, &de, &n);

		if (r < 0)
			return report(dir, at);
		if (r)
			return 0;
		r = emit(priv, n, de.name_len, le32_to_cpu(de.inode), de.file_type);
		if (r)
			return r;
	}
}

int ext4_inline_set_parent(struct handle *h, struct ext4_inode *dir, ino_nr parent)
{
	le32 ino = cpu_to_le32(parent);

	rwsem_down_write(&dir->i_data_sem);
	memcpy(dir->i_block, &ino, sizeof(ino));
	rwsem_up_write(&dir->i_data_sem);
	memcpy(dir->i_inline, &ino, sizeof(ino));
	dir_changed(dir);
	return ext4_mark_inode_dirty(h, dir);
}
