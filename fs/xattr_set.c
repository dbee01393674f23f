/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/xattr_set.c - extended attributes: setting and removing
 *
 * First all is planned in memory: the lists in the body and in the block as they are
 * to be, built anew from what is there without the old value and with the new one.
 * The body is tried first; what does not fit there goes to the block, and wherever
 * else there was an old value it goes. Then one handle makes it so:
 *
 *   block     before            after
 *   none      -                 new block
 *   own       h_refcount 1      changed in place, or freed when it gets empty
 *   shared    h_refcount > 1    a new block of our own, or none; the old one has
 *                               a sharer less
 *
 * A shared block is never changed but in its count, and an own one gets no
 * sharers from us, so what was planned stays true while i_rwsem is held; only
 * shared may become own in between, and then the old block is freed.
 * All that can fail (space, memory, the release of the old block) comes before
 * the first change of this inode.
 *
 * In a block the entries are sorted by namespace, length and name, and have hashes,
 * in the body neither. The inode's checksum is made when the inode is
 * stored (ext4_inode_finish()), after xattr_sem, which ranks inside of i_data_sem;
 * the handle keeps both changes together.
 *
 * Locks:   i_rwsem exclusively (a readlink tells fast from slow by i_file_acl and
 *          i_blocks) -> handle -> xattr_sem -> b_lock of one buffer at a time
 * Source:  ext4-format brief 8; Documentation/filesystems/ext4/attributes.rst
 */
#include "fs/xattr_internal.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "cache/budget.h"

#define NAME_SHIFT 5
#define VALUE_SHIFT 16
#define BLOCK_SHIFT 16

struct change {
	struct ext4_inode *ei;
	struct xattr_name name;
	const void *value; /* NULL: removed */
	u32 len;
	u32 flags; /* enum sl_xattr_flags */
	bool privileged;
	bool may_lack;	 /* to remove what is not there is no error */
	bool keep_times; /* the caller sees to them */
	bool sets_mode;	 /* permission bits become those of mode */
	u32 mode;
	u8 *raw;   /* the whole inode, its list as it is to be */
	bool in_body;
	u8 *block; /* the block as it is to be; NULL: there is, or shall be, none */
	bool block_changes;
	bool too_large; /* the value, whatever is free */
};

/* ---- lists ---- */

static u32 rotate(u32 hash, u32 by)
{
	return hash << by | hash >> (32 - by);
}

/* value: padded with zeroes to words. */
static u32 entry_hash(const struct xattr_name *name, const u8 *value, u32 len)
{
	u32 hash = 0;
	le32 word;

	for (u32 i = 0; i < name->len; i++)
		hash = rotate(hash, NAME_SHIFT) ^ (u8)name->text[i];
	for (u32 i = 0; i < len; i += sizeof(word)) {
		memcpy(&word, value + i, sizeof(word));
		hash = rotate(hash, VALUE_SHIFT) ^ le32_to_cpu(word);
	}
	return hash;
}

/* 0 if one of the entries has none: nobody looks for such a block to share it. */
static u32 block_hash(const struct xattr_list *l)
{
	u32 hash = 0;

	for (u32 at = l->first; !xattr_is_end(l, at); at = xattr_next(l, at)) {
		u32 one = le32_to_cpu(xattr_entry(l, at)->e_hash);

		if (!one)
			return 0;
		hash = rotate(hash, BLOCK_SHIFT) ^ one;
	}
	return hash;
}

/* Does the name belong before the entry? */
static bool sorts_before(const struct xattr_name *name,
			 const struct ext4_xattr_entry *e)
{
	if (name->index != e->e_name_index)
		return name->index < e->e_name_index;
	if (name->len != e->e_name_len)
		return name->len < e->e_name_len;
	return memcmp(name->text, e->e_name, name->len) < 0;
}

/* A list that is being built: entries from the front, values from the end. */
struct builder {
	struct xattr_list to;
	u32 at;	     /* where the next entry goes */
	u32 values;  /* where the lowest value begins */
	bool hashed;
};

/* The terminating word must fit as well. */
static int append(struct builder *b, const struct xattr_name *name,
		  const void *value, u32 len, u32 inum, u32 hash)
{
	u32 padded = inum ? 0 : ALIGN_UP(len, XATTR_PAD);
	u32 need = xattr_entry_len(name->len) + (u32)sizeof(le32);
	struct ext4_xattr_entry *e = xattr_entry(&b->to, b->at);
	u8 *dst;

	if (b->values - b->at < need || b->values - b->at - need < padded)
		return -ENOSPC;
	b->values -= padded;
	dst = b->to.data + b->values;
	if (padded)
		memcpy(dst, value, len); /* the rest is zero */
	*e = (struct ext4_xattr_entry){
		.e_name_len = name->len,
		.e_name_index = name->index,
		.e_value_offs = cpu_to_le16(padded ? (u16)(b->values - b->to.base) : 0),
		.e_value_inum = cpu_to_le32(inum),
		.e_value_size = cpu_to_le32(len),
		.e_hash = cpu_to_le32(hash),
	};
	if (b->hashed && !hash)
		e->e_hash = cpu_to_le32(entry_hash(name, dst, padded));
	memcpy(e->e_name, name->text, name->len);
	b->at = xattr_next(&b->to, b->at);
	return 0;
}

static int append_old(struct builder *b, const struct xattr_list *from, u32 at)
{
	const struct ext4_xattr_entry *e = xattr_entry(from, at);
	struct xattr_name name = {
		.index = e->e_name_index,
		.len = e->e_name_len,
		.text = e->e_name,
	};

	return append(b, &name,
		      from->data + from->base + le16_to_cpu(e->e_value_offs),
		      le32_to_cpu(e->e_value_size),
		      le32_to_cpu(e->e_value_inum), le32_to_cpu(e->e_hash));
}

/*
 * `to` gets the entries of `from` (NULL: none), without the name of c, and if with, with
 * it and its value. What is in `to` from its first entry on is overwritten; `from` is
 * other memory. -ENOSPC: they do not fit.
 */
static int build(const struct change *c, const struct xattr_list *from,
		 const struct xattr_list *to, bool sorted, bool with)
{
	struct builder b = {
		.to = *to,
		.at = to->first,
		.values = to->size,
		.hashed = sorted,
	};
	u32 skip = from ? xattr_find(from, &c->name) : 0;
	int err = 0;

	memset(to->data + to->first, 0, to->size - to->first);
	for (u32 at = from ? from->first : 0;
	     from && !err && !xattr_is_end(from, at); at = xattr_next(from, at)) {
		if (at == skip)
			continue;
		if (with && sorted && sorts_before(&c->name, xattr_entry(from, at))) {
			err = append(&b, &c->name, c->value, c->len, 0, 0);
			with = false;
		}
		if (!err)
			err = append_old(&b, from, at);
	}
	if (with && !err)
		err = append(&b, &c->name, c->value, c->len, 0, 0);
	return err;
}

/* ---- the plan ---- */

/* The body's list in c->raw becomes what it is to be. -ENOSPC: c->raw is as before. */
static int plan_body(struct change *c, bool with)
{
	struct ext4_sb *sbi = ext4_sb_of(c->ei);
	struct ext4_xattr_ibody_header hdr = { 0 };
	u32 at = EXT4_GOOD_OLD_INODE_SIZE + c->ei->i_extra_isize;
	struct xattr_list from, to;
	bool any;
	int err;
	u8 *raw;

	any = xattr_body_list(sbi, c->raw, c->ei->i_extra_isize, &from);
	if (!c->ei->i_extra_isize ||
	    at + sizeof(hdr) + sizeof(le32) > sbi->inode_size)
		return with ? -ENOSPC : 0;
	raw = malloc(sbi->inode_size);
	if (!raw)
		return -ENOMEM;
	memcpy(raw, c->raw, sbi->inode_size);
	to = (struct xattr_list){
		.data = raw,
		.first = at + (u32)sizeof(hdr),
		.base = at + (u32)sizeof(hdr),
		.size = sbi->inode_size,
	};
	err = build(c, any ? &from : NULL, &to, false, with);
	if (err) {
		free(raw);
		return err;
	}
	if (!xattr_is_end(&to, to.first))
		hdr.h_magic = cpu_to_le32(EXT4_XATTR_MAGIC);
	memcpy(raw + at, &hdr, sizeof(hdr));
	free(c->raw);
	c->raw = raw;
	return 0;
}

static struct xattr_list list_in(const struct ext4_sb *sbi, u8 *block)
{
	return (struct xattr_list){
		.data = block,
		.first = sizeof(struct ext4_xattr_header),
		.size = sbi->s.s_blocksize,
	};
}

/* c->block becomes the block as it is to be. old: as it is, or NULL. */
static int plan_block(struct change *c, u8 *old, bool with)
{
	const struct ext4_sb *sbi = ext4_sb_of(c->ei);
	struct xattr_list from = list_in(sbi, old), to;
	struct ext4_xattr_header *hdr;
	u8 *block = calloc(1, sbi->s.s_blocksize);
	int err;

	if (!block)
		return -ENOMEM;
	to = list_in(sbi, block);
	err = build(c, old ? &from : NULL, &to, true, with);
	if (err || xattr_is_end(&to, to.first)) {
		free(block);
		c->block_changes = !err;
		return err;
	}
	hdr = (struct ext4_xattr_header *)(void *)block;
	hdr->h_magic = cpu_to_le32(EXT4_XATTR_MAGIC);
	hdr->h_refcount = cpu_to_le32(1);
	hdr->h_blocks = cpu_to_le32(1);
	hdr->h_hash = cpu_to_le32(block_hash(&to));
	c->block = block;
	c->block_changes = true;
	return 0;
}

/* A copy of the attribute block; NULL: there is none. */
static int copy_block(struct ext4_inode *ei, u8 **out)
{
	u32 bs = ext4_sb_of(ei)->s.s_blocksize;
	struct buffer *b;
	int err;

	*out = NULL;
	if (!ei->i_file_acl)
		return 0;
	mutex_lock(&ei->xattr_sem);
	err = xattr_bread(ei, &b);
	mutex_unlock(&ei->xattr_sem);
	if (err)
		return err;
	*out = malloc(bs);
	if (*out) {
		mutex_lock(&b->b_lock);
		memcpy(*out, b->b_data, bs);
		mutex_unlock(&b->b_lock);
	}
	buffer_put(b);
	return *out ? 0 : -ENOMEM;
}

static int plan_with(struct change *c, u8 *old, bool in_body, bool in_block)
{
	int err;

	if (c->value) {
		err = plan_body(c, true);
		if (!err) {
			c->in_body = true;
			return in_block ? plan_block(c, old, false) : 0;
		}
		if (err != -ENOSPC)
			return err;
		err = plan_block(c, old, true);
		c->too_large = err == -ENOSPC;
	} else {
		err = in_block ? plan_block(c, old, false) : 0;
	}
	if (err || !in_body)
		return err;
	c->in_body = true;
	return plan_body(c, false);
}

/* *same: with the very value that it is to have. */
static bool is_in(const struct change *c, const struct xattr_list *l, bool *same)
{
	u32 at = xattr_find(l, &c->name);
	const struct ext4_xattr_entry *e;

	if (!at)
		return false;
	e = xattr_entry(l, at);
	*same = c->value && !le32_to_cpu(e->e_value_inum) &&
		le32_to_cpu(e->e_value_size) == c->len &&
		!memcmp(l->data + l->base + le16_to_cpu(e->e_value_offs), c->value,
			c->len);
	return true;
}

/*
 * i_rwsem held exclusively: nothing of this changes but h_refcount. A value that is
 * there already changes nothing, not even ctime, as with the kernel's ext4.
 */
static int plan(struct change *c)
{
	struct ext4_sb *sbi = ext4_sb_of(c->ei);
	bool in_body = false, in_block = false, same = false;
	struct xattr_list l;
	u8 *old;
	int err = copy_block(c->ei, &old);

	if (err)
		return err;
	err = xattr_read_raw(c->ei, &c->raw);
	if (err) {
		c->raw = NULL;
		goto out_free;
	}
	if (xattr_body_list(sbi, c->raw, c->ei->i_extra_isize, &l))
		in_body = is_in(c, &l, &same);
	if (old) {
		l = list_in(sbi, old);
		in_block = is_in(c, &l, &same);
	}
	if (in_body || in_block)
		err = c->flags & SL_XATTR_CREATE ? -EEXIST : 0;
	else if (c->flags & SL_XATTR_REPLACE || !(c->value || c->may_lack))
		err = -ENODATA;
	if (!err && !same)
		err = plan_with(c, old, in_body, in_block);
out_free:
	free(old);
	return err;
}

static void forget_plan(struct change *c)
{
	free(c->raw);
	free(c->block);
	c->raw = c->block = NULL;
	c->in_body = c->block_changes = false;
}

/* ---- the change ---- */

/* The buffer that the block's new content goes to, with write access: that of our own
 * block, or a new one. */
static int block_buffer(struct handle *h, struct ext4_inode *ei, struct buffer *old,
			struct buffer **out)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	u32 one = 1;
	pblk_t blk;
	int err;

	if (old && !xattr_is_shared(old)) {
		buffer_get(old);
		*out = old;
		return handle_get_write_access(h, old);
	}
	err = ext4_alloc_blocks(h, sbi, ei->i_group, 0, 0, &one, &blk);
	if (err)
		return err;
	err = buffer_get_zeroed(&sbi->s, blk, &ext4_xattr_block_type, 0, out);
	if (!err)
		err = handle_get_create_access(h, *out);
	else
		*out = NULL;
	/* A failure is the allocator's to report; the block is lost at worst. */
	if (err)
		(void)!ext4_free_blocks(h, sbi, ei->vfs.i_ino, blk, 1);
	return err;
}

/*
 * All that can fail of a change of the block. *b: the buffer for its content, or
 * NULL. On success the old block, if it is another one, is no longer ours.
 */
static int switch_blocks(struct handle *h, const struct change *c, struct buffer **b)
{
	struct ext4_inode *ei = c->ei;
	struct buffer *old = NULL;
	int err = 0;

	*b = NULL;
	if (ei->i_file_acl)
		err = xattr_bread(ei, &old);
	if (!err && c->block)
		err = block_buffer(h, ei, old, b);
	if (!err && old && *b != old) {
		err = xattr_release_block(h, ei, old); /* takes the reference */
		old = NULL;
		if (err && *b)
			(void)!ext4_free_blocks(h, ext4_sb_of(ei), ei->vfs.i_ino,
						(*b)->b_blocknr, 1);
	}
	buffer_put(old);
	if (err) {
		buffer_put(*b);
		*b = NULL;
	}
	return err;
}

/* Consumes b. Cannot fail. */
static void store_block(struct handle *h, const struct change *c, struct buffer *b)
{
	struct ext4_inode *ei = c->ei;
	s64 had = ei->i_file_acl ? 1 : 0;

	if (b) {
		mutex_lock(&b->b_lock);
		memcpy(b->b_data, c->block, ext4_sb_of(ei)->s.s_blocksize);
		mutex_unlock(&b->b_lock);
		handle_dirty(h, b);
	}
	ei->i_file_acl = b ? b->b_blocknr : 0;
	ext4_inode_add_blocks(h, ei, (b ? 1 : 0) - had);
	buffer_put(b);
}

static void store_body(const struct change *c, struct buffer *table, u32 offset)
{
	u32 at = EXT4_GOOD_OLD_INODE_SIZE + c->ei->i_extra_isize;

	mutex_lock(&table->b_lock);
	memcpy(table->b_data + offset + at, c->raw + at,
	       ext4_sb_of(c->ei)->inode_size - at);
	mutex_unlock(&table->b_lock);
}

/* With an access ACL: the mode that goes with it. */
static u32 mode_of(const struct change *c)
{
	const u32 bits = S_IRWXU | S_IRWXG | S_IRWXO;
	u32 mode = (c->ei->vfs.i_mode & ~bits) | (c->mode & bits);

	return c->flags & SL_XATTR_KILL_SGID ? mode & ~(u32)S_ISGID : mode;
}

static void set_mode(struct ext4_inode *ei, u32 mode)
{
	inode_attrs_lock(&ei->vfs);
	ei->vfs.i_mode = mode;
	inode_attrs_unlock(&ei->vfs);
}

static bool changes_nothing(const struct change *c)
{
	return !c->in_body && !c->block_changes &&
	       (!c->sets_mode || mode_of(c) == c->ei->vfs.i_mode);
}

static int apply_in(struct handle *h, const struct change *c)
{
	struct ext4_inode *ei = c->ei;
	struct buffer *table, *b = NULL;
	u32 offset;
	int err = ext4_inode_prepare(h, ei, &table, &offset);

	if (err)
		return err;
	mutex_lock(&ei->xattr_sem);
	if (c->block_changes)
		err = switch_blocks(h, c, &b);
	if (!err) {
		if (c->block_changes)
			store_block(h, c, b);
		if (c->in_body)
			store_body(c, table, offset);
		ext4_xattr_note(ei, c->raw);
	}
	mutex_unlock(&ei->xattr_sem);
	if (err) {
		buffer_put(table);
		return err;
	}
	if (c->sets_mode)
		set_mode(ei, mode_of(c));
	if (!c->keep_times)
		ext4_touch(ei, EXT4_T_CTIME);
	ext4_inode_finish(h, ei, table, offset);
	return 0;
}

static int apply(const struct change *c)
{
	struct ext4_sb *sbi = ext4_sb_of(c->ei);
	struct handle *h;
	int err;

	if (changes_nothing(c))
		return 0;
	err = journal_start(sbi->journal, EXT4_XATTR_SET_CREDITS, 1, &h);
	if (err)
		return err;
	if (c->privileged)
		handle_set_privileged(h);
	err = apply_in(h, c);
	return ext4_stop_sync(h, err, c->ei, NULL);
}

/* Capabilities go when a file is written to, also by appending; nothing else may. */
static int allowed(const struct change *c)
{
	static const char capability[] = "capability";
	u32 flags = c->ei->vfs.i_flags;
	bool caps = !c->value && c->name.index == XATTR_INDEX_SECURITY &&
		    c->name.len == sizeof(capability) - 1 &&
		    !memcmp(c->name.text, capability, sizeof(capability) - 1);

	if (!(ext4_sb_of(c->ei)->features_compat & EXT4_COMPAT_EXT_ATTR))
		return -EOPNOTSUPP;
	if (flags & EXT4_IMMUTABLE_FL || (flags & EXT4_APPEND_FL && !caps))
		return -EPERM;
	return 0;
}

static int set(struct change *c)
{
	struct inode *inode = &c->ei->vfs;
	struct ext4_sb *sbi = ext4_sb_of(c->ei);
	int err = ext4_may_write(sbi), tries = 0;

	if (err)
		return err;
	do {
		budget_throttle(sbi->s.s_budget);
		rwsem_down_write(&inode->i_rwsem);
		err = allowed(c);
		if (!err)
			err = plan(c);
		if (!err)
			err = apply(c);
		forget_plan(c);
		rwsem_up_write(&inode->i_rwsem);
	} while (!c->too_large && ext4_should_retry(sbi, err, &tries));
	return err == -EAGAIN ? -ENOSPC : err;
}

int xattr_set_in(struct handle *h, struct ext4_inode *ei,
		 const struct xattr_name *name, const void *value, u32 len)
{
	struct change c = {
		.ei = ei,
		.name = *name,
		.value = value,
		.len = len,
		.may_lack = true,
		.keep_times = true,
	};
	int err = plan(&c);

	if (!err)
		err = apply_in(h, &c);
	forget_plan(&c);
	return err;
}

/* user NULL: removed. */
static int set_acl(struct change *c, const void *user, size_t len)
{
	struct acl_plan plan;
	int err = xattr_plan_acl(c->ei, &c->name, user, len, &plan);

	if (err)
		return err;
	c->value = plan.value;
	c->len = plan.len;
	c->may_lack = true;
	c->sets_mode = plan.sets_mode;
	c->mode = plan.mode;
	err = set(c);
	free(plan.value);
	return err;
}

int sl_setxattr(struct inode *inode, const char *name, const void *value, size_t len,
		u32 flags, const struct sl_cred *cred)
{
	struct change c = {
		.ei = EXT4_I(inode),
		.value = value,
		.len = (u32)len,
		.flags = flags,
		.privileged = ext4_is_privileged(EXT4_SB(inode->i_sb), cred),
	};
	int err = xattr_parse_name(EXT4_SB(inode->i_sb), name, &c.name);

	if (err)
		return err;
	if (len > XATTR_VALUE_MAX)
		return -E2BIG;
	if (flags & ~(u32)(SL_XATTR_CREATE | SL_XATTR_REPLACE | SL_XATTR_KILL_SGID))
		return -EINVAL;
	if (xattr_index_is_acl(c.name.index))
		return set_acl(&c, value, len);
	return set(&c);
}

int sl_removexattr(struct inode *inode, const char *name)
{
	struct change c = { .ei = EXT4_I(inode) };
	int err = xattr_parse_name(EXT4_SB(inode->i_sb), name, &c.name);

	if (err)
		return err;
	return xattr_index_is_acl(c.name.index) ? set_acl(&c, NULL, 0) : set(&c);
}
