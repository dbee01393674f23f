/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/symlink.c - symbolic links: short ones in the inode, others in a block
 *
 * Up to 59 bytes lie in i_block ("fast"); a longer target takes one block,
 * which is metadata: journalled when written, revoked when freed. A link is
 * fast when it has no block of its own, not merely when it is short: other
 * writers have made short ones with a block.
 *
 * Locks:   i_rwsem shared to read; a target never changes.
 * Source:  Documentation/filesystems/ext4/ifork.rst
 */
#include "fs/ext4.h"

#include <string.h>

/* By its blocks, of which attributes have some; with ea_inode nobody knows how many. */
static bool is_fast(const struct ext4_inode *ei)
{
	/* Like any block of metadata it has a cluster to itself. */
	u64 acl = ei->i_file_acl ? 1ull << (ext4_cluster_bytes_bits(ext4_sb_of(ei)) - 9) : 0;

	if (ei->vfs.i_flags & EXT4_EXTENTS_FL)
		return false;
	if (ext4_has_incompat(ext4_sb_of(ei), EA_INODE))
		return ei->vfs.i_size <= EXT4_FAST_SYMLINK_MAX;
	return ei->vfs.i_blocks <= acl;
}

static ssize_t read_slow(struct ext4_inode *ei, char *buf, size_t len)
{
	struct ext4_map m = { .lblk = 0, .len = 1 };
	struct buffer *b;
	int err = ext4_map_blocks(ei, &m);

	if (err)
		return err;
	if (!(m.flags & EXT4_MAP_MAPPED))
		return ext4_error(ext4_sb_of(ei), ei->vfs.i_ino, 0,
				  -EFSCORRUPTED, "symlink without its block");
	err = ext4_bread(ext4_sb_of(ei), m.pblk, ei->vfs.i_ino,
			 &ext4_symlink_type, 0, &b);
	if (err)
		return err;
	memcpy(buf, b->b_data, len);
	buffer_put(b);
	return 0;
}

ssize_t sl_readlink(struct inode *inode, char *buf, size_t size)
{
	struct ext4_inode *ei = EXT4_I(inode);
	ssize_t err = 0;
	size_t len;

	if (!S_ISLNK(inode->i_mode))
		return -EINVAL;
	rwsem_down_read(&inode->i_rwsem);
	len = min_of((size_t)inode->i_size, size - 1);
	if (ei->i_inline)
		ext4_inline_read(ei, 0, buf, len);
	else if (!is_fast(ei))
		err = read_slow(ei, buf, len);
	else if (inode->i_size > EXT4_FAST_SYMLINK_MAX)
		err = ext4_error(ext4_sb_of(ei), inode->i_ino, 0, -EFSCORRUPTED,
				 "symlink of %llu bytes without a block",
				 (unsigned long long)inode->i_size);
	else
		memcpy(buf, ei->i_block, len);
	rwsem_up_read(&inode->i_rwsem);
	if (err)
		return err;
	ext4_touch_atime(inode);
	buf[len] = '\0';
	len = strnlen(buf, len);
	if (!len && size > 1)
		return ext4_error(ext4_sb_of(ei), inode->i_ino, 0, -EFSCORRUPTED,
				  "symlink with an empty target");
	return (ssize_t)len;
}
