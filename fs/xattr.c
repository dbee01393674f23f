/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/xattr.c - extended attributes: checks, and release with their inode
 *
 * Attributes lie in the inode's body after the fixed fields, and in one block
 * (i_file_acl) that several inodes may share: h_refcount tells how many. Each
 * sharer has the block in its i_blocks, and what its values take that lie in inodes of
 * their own (xattr_ea.c), of which the block as such holds one reference.
 *
 * Locks:   xattr_sem -> b_lock of the block (its sharers are many)
 * Source:  ext4-format brief 8; Documentation/filesystems/ext4/attributes.rst
 */
#include "fs/xattr_internal.h"

#include <stdatomic.h>

#include "lib/crc.h"

static u32 block_csum(const struct ext4_sb *sbi, pblk_t blk, const void *data)
{
	const size_t off = offsetof(struct ext4_xattr_header, h_checksum);
	const le32 zero = { 0 };
	le64 nr = cpu_to_le64(blk);
	u32 crc;

	crc = crc32c(sbi->csum_seed, &nr, sizeof(nr));
	crc = crc32c(crc, data, off);
	crc = crc32c(crc, &zero, sizeof(zero));
	return crc32c(crc, (const u8 *)data + off + sizeof(zero),
		      sbi->s.s_blocksize - off - sizeof(zero));
}

/*
 * Entries from data + first to a terminating zero word, values between that
 * and data + size; value offsets count from data + base. True if all is
 * inside and no value overlaps the entries.
 */
static bool entries_ok(const struct ext4_sb *sbi, const u8 *data, u32 size,
		       u32 first, u32 base)
{
	u32 pos, end = 0;
	le32 word;

	/* Twice the same walk: the end of the entries bounds the values. */
	for (pos = first;; pos += ALIGN_UP((u32)sizeof(struct ext4_xattr_entry) +
					   data[pos], XATTR_PAD)) {
		if (pos > size || size - pos < sizeof(word))
			return false;
		memcpy(&word, data + pos, sizeof(word));
		if (!le32_to_cpu(word))
			break;
		if (size - pos < sizeof(struct ext4_xattr_entry))
			return false;
	}
	end = pos + (u32)sizeof(word);

	for (pos = first; pos != end - sizeof(word);) {
		struct ext4_xattr_entry e;
		u32 vsize, voff;

		memcpy(&e, data + pos, sizeof(e));
		vsize = le32_to_cpu(e.e_value_size);
		voff = base + le16_to_cpu(e.e_value_offs);
		if (le32_to_cpu(e.e_value_inum)) {
			if (!ext4_has_incompat(sbi, EA_INODE) ||
			    vsize > XATTR_EA_MAX)
				return false;
		} else if (vsize && (vsize > size || voff < end ||
				     voff > size - vsize)) {
			return false;
		}
		/* Without namespace and name it is but its offset away from being
		 * the end: it would hide what follows when the list is built anew. */
		if (!e.e_name_index && !e.e_name_len)
			return false;
		pos += ALIGN_UP((u32)sizeof(e) + e.e_name_len, XATTR_PAD);
	}
	return true;
}

static int xattr_verify(struct super_block *sb, const struct buffer *b,
			const void *data, u32 seed)
{
	const struct ext4_xattr_header *hdr = data;
	const struct ext4_sb *sbi = EXT4_SB(sb);
	u32 refs = le32_to_cpu(hdr->h_refcount);

	if (le32_to_cpu(hdr->h_magic) != EXT4_XATTR_MAGIC ||
	    le32_to_cpu(hdr->h_blocks) != 1 || !refs ||
	    refs > EXT4_XATTR_REFCOUNT_MAX)
		return -EFSCORRUPTED;
	if (sbi->has_csum &&
	    le32_to_cpu(hdr->h_checksum) != block_csum(sbi, b->b_blocknr, data))
		return -EFSBADCRC;
	if (!entries_ok(sbi, data, sb->s_blocksize, sizeof(*hdr), 0))
		return -EFSCORRUPTED;
	return 0;
}

static void xattr_freeze(struct super_block *sb, pblk_t blk, void *data, u32 seed)
{
	struct ext4_xattr_header *hdr = data;

	if (EXT4_SB(sb)->has_csum)
		hdr->h_checksum = cpu_to_le32(block_csum(EXT4_SB(sb), blk, data));
}

const struct buffer_type ext4_xattr_block_type = {
	.name = "extended attributes",
	.verify = xattr_verify,
	.freeze = xattr_freeze,
};

int ext4_xattr_check_ibody(struct ext4_sb *sbi, const void *raw, u32 inode_size,
			   u32 extra_isize)
{
	u32 at = EXT4_GOOD_OLD_INODE_SIZE + extra_isize;
	struct ext4_xattr_ibody_header hdr;
	u32 first = at + (u32)sizeof(hdr);

	if (extra_isize % XATTR_PAD || at > inode_size)
		return -EFSCORRUPTED;
	if (inode_size - at < sizeof(hdr))
		return 0;
	memcpy(&hdr, (const u8 *)raw + at, sizeof(hdr));
	if (le32_to_cpu(hdr.h_magic) != EXT4_XATTR_MAGIC)
		return 0; /* none */
	return entries_ok(sbi, raw, inode_size, first, first) ? 0 : -EFSCORRUPTED;
}

u32 xattr_acls_in(const struct xattr_list *l)
{
	u32 acls = 0;

	for (u32 at = l->first; !xattr_is_end(l, at); at = xattr_next(l, at)) {
		const struct ext4_xattr_entry *e = xattr_entry(l, at);

		if (xattr_index_is_acl(e->e_name_index) && !e->e_name_len)
			acls |= XATTR_ACL_BIT(e->e_name_index);
	}
	return acls;
}

void ext4_xattr_note(struct ext4_inode *ei, const void *raw)
{
	u32 acls = ei->i_file_acl ? XATTR_ACL_UNKNOWN : 0;
	bool any = ei->i_file_acl != 0;
	struct xattr_list l;

	if (xattr_body_list(ext4_sb_of(ei), (u8 *)(uintptr_t)raw,
			    ei->i_extra_isize, &l)) {
		acls |= xattr_acls_in(&l);
		any |= !xattr_is_end(&l, l.first);
	}
	atomic_store(&ei->i_acls, (u8)acls);
	atomic_store(&ei->i_has_xattrs, any);
}

/*
 * One sharer less. True: it was one of several. The count is looked at and
 * changed under b_lock, so of two that let go at the same time one is the last, and
 * comes after the other is done with the buffer; nobody joins a block whose last sharer
 * has been here.
 */
static bool drop_sharer(struct handle *h, struct ext4_sb *sbi, struct buffer *b)
{
	struct ext4_xattr_header *hdr = (struct ext4_xattr_header *)(void *)b->b_data;
	u32 refs;
	bool own;

	mutex_lock(&b->b_lock);
	own = xattr_share_claim_locked(sbi, b);
	if (!own) {
		refs = le32_to_cpu(hdr->h_refcount);
		hdr->h_refcount = cpu_to_le32(refs - 1);
		handle_dirty(h, b);
	}
	mutex_unlock(&b->b_lock);
	return !own;
}

bool xattr_is_shared(struct buffer *b)
{
	const struct ext4_xattr_header *hdr = (const void *)b->b_data;
	u32 refs;

	mutex_lock(&b->b_lock);
	refs = le32_to_cpu(hdr->h_refcount);
	mutex_unlock(&b->b_lock);
	return refs > 1;
}

int xattr_release_block(struct handle *h, struct ext4_inode *ei, struct buffer *b,
			bool *last)
{
	pblk_t blk = b->b_blocknr;
	int error;

	*last = false;
	error = handle_get_write_access(h, b);
	if (error)
		goto out_put;
	if (drop_sharer(h, ext4_sb_of(ei), b))
		goto out_put;
	*last = true;
	error = ext4_free_blocks(h, ext4_sb_of(ei), ei->vfs.i_ino, blk, 1);
	if (error)
		goto out_put;
	/* The block is free from here on, so that the inode must not name it any
	 * more, also if it could not be revoked. */
	error = handle_forget(h, b, blk);
	if (error == -ENOMEM)
		ext4_error(ext4_sb_of(ei), ei->vfs.i_ino, blk, error,
			   "attribute block was freed, but not revoked");
	return 0;
out_put:
	buffer_put(b);
	return error;
}

/* ---- deletion ---- */

/* A list, and where it lies. */
struct place {
	struct xattr_list list;
	struct buffer *buf; /* referenced */
	u32 table_at;	    /* of the inode, if buf is of the inode table */
};

/* The list in the inode's body. buf NULL: there is none. */
static int body_place(struct ext4_inode *ei, struct place *p)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	int error;

	*p = (struct place){ 0 };
	if (!ei->i_extra_isize)
		return 0;
	error = ext4_inode_buffer(sbi, ei->vfs.i_ino, false, &p->buf, &p->table_at);
	if (error) {
		p->buf = NULL;
		return error;
	}
	/* Again: the table block may have been read anew since. */
	error = ext4_xattr_check_ibody(sbi, p->buf->b_data + p->table_at,
				       sbi->inode_size, ei->i_extra_isize);
	if (error)
		ext4_error(sbi, ei->vfs.i_ino, 0, error,
			   "attributes in the inode are damaged");
	if (error || !xattr_body_list(sbi, p->buf->b_data + p->table_at,
				      ei->i_extra_isize, &p->list)) {
		buffer_put(p->buf);
		p->buf = NULL;
	}
	return error;
}

/* The same of the block, if nobody shares it: so nobody else changes it. */
static int block_place(struct ext4_inode *ei, struct place *p)
{
	int error = 0;

	*p = (struct place){ 0 };
	mutex_lock(&ei->xattr_sem);
	if (ei->i_file_acl)
		error = xattr_bread(ei, &p->buf);
	mutex_unlock(&ei->xattr_sem);
	if (error)
		p->buf = NULL;
	if (!p->buf)
		return error;
	if (xattr_is_shared(p->buf)) {
		buffer_put(p->buf);
		p->buf = NULL;
		return 0;
	}
	p->list = xattr_block_list(ext4_sb_of(ei), p->buf);
	return 0;
}

/* An entry whose value is in an inode of its own; 0: there is none. */
static u32 next_value(const struct place *p, u32 at)
{
	while (!xattr_is_end(&p->list, at) &&
	       !le32_to_cpu(xattr_entry(&p->list, at)->e_value_inum))
		at = xattr_next(&p->list, at);
	return xattr_is_end(&p->list, at) ? 0 : at;
}

/* The entry at `at` gets an empty value, in one handle with what that means. */
static int strip_value(struct handle *h, struct ext4_inode *ei, const struct place *p,
		       u32 at, const struct xattr_eas *values)
{
	struct ext4_xattr_entry *e = xattr_entry(&p->list, at);
	struct inode *value = xattr_eas_find(values, le32_to_cpu(e->e_value_inum));
	s64 clusters = xattr_ea_clusters(ext4_sb_of(ei), le32_to_cpu(e->e_value_size));
	int error;

	error = handle_ensure(h, EXT4_XATTR_VALUE_CREDITS + 2 * EXT4_INODE_CREDITS, 0);
	if (error == 1)
		error = handle_restart(h, EXT4_XATTR_VALUE_CREDITS +
					       2 * EXT4_INODE_CREDITS, 0);
	if (!error)
		error = handle_get_write_access(h, p->buf);
	/* Not to be had, or with a wrong count: e2fsck will find it. */
	if (!error && value)
		error = xattr_ea_unref(h, ei, value);
	if (error && error != -EFSCORRUPTED)
		return error;
	mutex_lock(&p->buf->b_lock);
	e->e_value_inum = cpu_to_le32(0);
	e->e_value_size = cpu_to_le32(0);
	mutex_unlock(&p->buf->b_lock);
	handle_dirty(h, p->buf);
	ext4_inode_add_clusters(h, ei, -clusters);
	return ext4_mark_inode_dirty(h, ei);
}

static int strip_values(struct handle *h, struct ext4_inode *ei, struct place *p,
			const struct xattr_eas *values)
{
	int error = 0;
	u32 at;

	while (p->buf && !error && (at = next_value(p, p->list.first)) != 0)
		error = strip_value(h, ei, p, at, values);
	return error;
}

/* One that holds a value has none itself: who follows them goes in circles. */
static bool may_have_values(const struct ext4_inode *ei)
{
	return ext4_has_incompat(ext4_sb_of(ei), EA_INODE) &&
	       !(ei->vfs.i_flags & EXT4_EA_INODE_FL) &&
	       atomic_load(&ei->i_has_xattrs);
}

/* Both lists as they were when `values` was collected: the block, if others shared it
 * then, is left alone, though it may be ei's alone by now. */
static int strip_all(struct ext4_inode *ei, struct place *body, struct place *block,
		     const struct xattr_eas *values)
{
	struct handle *h;
	int error, error2;

	error = journal_start(ext4_sb_of(ei)->journal,
			      EXT4_ORPHAN_CREDITS + EXT4_INODE_CREDITS, 0, &h);
	if (error)
		return error;
	error = ext4_orphan_add(h, ei);
	if (!error)
		error = ext4_mark_inode_dirty(h, ei);
	if (!error)
		error = strip_values(h, ei, body, values);
	if (!error)
		error = strip_values(h, ei, block, values);
	error2 = handle_stop(h);
	return error ? error : error2;
}

int ext4_xattr_drop_values(struct ext4_inode *ei)
{
	struct place body = { 0 }, block = { 0 };
	struct xattr_eas values = { 0 };
	int error;

	if (!may_have_values(ei))
		return 0;
	error = body_place(ei, &body);
	if (!error && body.buf)
		error = xattr_eas_add_sound(ei, &body.list, &values);
	if (!error)
		error = block_place(ei, &block);
	if (!error && block.buf)
		error = xattr_eas_add_sound(ei, &block.list, &values);
	if (!error && ((body.buf && next_value(&body, body.list.first)) ||
		       (block.buf && next_value(&block, block.list.first))))
		error = strip_all(ei, &body, &block, &values);
	buffer_put(body.buf);
	buffer_put(block.buf);
	xattr_eas_put(&values);
	return error;
}

static bool has_values(struct ext4_inode *ei, struct buffer *b)
{
	struct place p = { .list = xattr_block_list(ext4_sb_of(ei), b) };

	return may_have_values(ei) && next_value(&p, p.list.first);
}

static int release_without_values(struct handle *h, struct ext4_inode *ei,
				  struct buffer *b)
{
	bool last;
	int error = handle_get_write_access(h, b);

	if (!error && !drop_sharer(h, ext4_sb_of(ei), b)) {
		/* Nobody else has it now, and nobody will. */
		if (!has_values(ei, b))
			return xattr_release_block(h, ei, b, &last);
		error = -EAGAIN;
	}
	buffer_put(b);
	return error;
}

int ext4_xattr_release(struct handle *h, struct ext4_inode *ei)
{
	struct buffer *b;
	int error = 0;

	mutex_lock(&ei->xattr_sem);
	if (!ei->i_file_acl)
		goto out_unlock;
	error = xattr_bread(ei, &b);
	if (!error)
		error = release_without_values(h, ei, b);
	if (!error) {
		ei->i_file_acl = 0;
		ext4_inode_add_clusters(h, ei, -1);
	}
out_unlock:
	mutex_unlock(&ei->xattr_sem);
	return error;
}
