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
 *   none      -                 one of others that is equal, or a new one
 *   own       h_refcount 1      the same, and freed; or changed in place, or freed when
 *                               it gets empty
 *   shared    h_refcount > 1    one of others, or a new one, or none; the old one has
 *                               a sharer less
 *
 * A shared block is never changed but in its count, so what was planned stays true while
 * i_rwsem is held; whether the old block is shared is looked at when it is left or changed,
 * and then nobody joins it any more (xattr_share.c).
 * All that can fail (space, memory, the release of the old block) comes before
 * the first change of this inode.
 *
 * With the feature ea_inode a value that is larger than EA_MIN_LARGE, or finds no room, goes to
 * an inode of its own (xattr_ea.c), which is made before the handle; entry and first
 * reference come in one handle, and so do the entry's end and that of the reference. A
 * block refers to such inodes as such, for all its sharers: who leaves one that others
 * keep, and takes its other entries along to a block of his own, adds a reference to each of
 * them (`kept`). Last is what cannot be undone, the references that go; should one of these
 * fail, for want of memory, it stays too high, which e2fsck finds, and an error is reported.
 *
 * In a block the entries are sorted by namespace, length and name, and have hashes,
 * in the body neither. The inode's checksum is made when the inode is
 * stored (ext4_inode_finish()), after xattr_sem, which ranks inside of i_data_sem;
 * the handle keeps both changes together.
 *
 * An inode made when inodes had fewer fields gets them with its next change
 * (ext4_extra_grow()): its extra part grows, the body's list moves back, and entries that have
 * no room there any more go to the block.
 *
 * Locks:   i_rwsem exclusively (a readlink tells fast from slow by i_file_acl and
 *          i_blocks) -> handle -> xattr_sem -> b_lock of one buffer at a time
 * Source:  ext4-format brief 8; Documentation/filesystems/ext4/attributes.rst
 */
#include "fs/xattr_internal.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "cache/budget.h"

/* Larger values have no place in a block that has one entry with a name of 3 bytes. */
#define EA_MIN_LARGE(bs) ((bs) - 20u - (u32)sizeof(struct ext4_xattr_header) - 4u)
/* Of a block, that values leave to entries, if they have somewhere else to go. */
#define EA_RESERVE(bs) min_of((bs) / 8, 1024u)

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
	u32 extra; /* bytes of the inode's extra part, behind which that list is */
	bool in_body;
	u8 *block; /* the block as it is to be; NULL: there is, or shall be, none */
	bool block_changes;
	bool too_large; /* the value, whatever is free */
	u32 inum;	/* entry of the plan: the inode that has the value, or 0 */
	bool in_handle; /* nothing can be made, or waited for */
	struct inode *made;    /* may have the value; referenced */
	struct xattr_eas known; /* that the lists named before */
	u32 body_inum, block_inum; /* that had the old value; 0: it had none */
	u32 *kept;		   /* others that the block names, each as often as it does */
	u32 nr_kept;
	s64 ea_clusters; /* that this inode is charged for them: more, or fewer */
};

/* ---- lists ---- */

static u32 rotate(u32 hash, u32 by)
{
	return hash << by | hash >> (32 - by);
}

static u32 add_value(u32 hash, const void *value, u32 len)
{
	le32 word;

	for (u32 i = 0; i < len; i += (u32)sizeof(word)) {
		memcpy(&word, (const u8 *)value + i, sizeof(word));
		hash = rotate(hash, VALUE_SHIFT) ^ le32_to_cpu(word);
	}
	return hash;
}

u32 xattr_entry_hash(const struct xattr_name *name, const void *value, u32 len)
{
	u32 hash = 0;

	for (u32 i = 0; i < name->len; i++)
		hash = rotate(hash, NAME_SHIFT) ^ (u8)name->text[i];
	return add_value(hash, value, len);
}

/* Once, where characters have a sign, the hash had one, too. */
bool xattr_ea_entry_ok(const struct xattr_name *name, u32 value_hash, u32 e_hash)
{
	le32 word = cpu_to_le32(value_hash);
	u32 hash = 0;

	if (xattr_entry_hash(name, &word, sizeof(word)) == e_hash)
		return true;
	for (u32 i = 0; i < name->len; i++)
		hash = rotate(hash, NAME_SHIFT) ^ (u32)(signed char)name->text[i];
	return add_value(hash, &word, sizeof(word)) == e_hash;
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
	if (b->hashed && !hash && !inum)
		e->e_hash = cpu_to_le32(xattr_entry_hash(name, dst, padded));
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

/* The entry of c. */
static int append_new(struct builder *b, const struct change *c)
{
	le32 word = { 0 };

	if (!c->inum)
		return append(b, &c->name, c->value, c->len, 0, 0);
	if (c->made)
		word = cpu_to_le32(xattr_ea_hash(c->made));
	return append(b, &c->name, NULL, c->len, c->inum,
		      xattr_entry_hash(&c->name, &word, sizeof(word)));
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
			err = append_new(&b, c);
			with = false;
		}
		if (!err)
			err = append_old(&b, from, at);
	}
	if (with && !err)
		err = append_new(&b, c);
	return err;
}

static bool has_ea_inode(const struct change *c)
{
	return ext4_has_incompat(ext4_sb_of(c->ei), EA_INODE);
}

/* Does the new value take room that the block keeps for entries? Not if it has the old
 * one's place. */
static bool too_crowded(const struct change *c, const struct xattr_list *from,
			const struct xattr_list *to)
{
	u32 bs = ext4_sb_of(c->ei)->s.s_blocksize, lowest = bs;
	u32 at = from->data ? xattr_find(from, &c->name) : 0;

	if (!has_ea_inode(c) || c->inum || !c->len)
		return false;
	if (at && !le32_to_cpu(xattr_entry(from, at)->e_value_inum) &&
	    ALIGN_UP(le32_to_cpu(xattr_entry(from, at)->e_value_size), XATTR_PAD) ==
		    ALIGN_UP(c->len, XATTR_PAD))
		return false;
	for (at = to->first; !xattr_is_end(to, at); at = xattr_next(to, at)) {
		const struct ext4_xattr_entry *e = xattr_entry(to, at);

		if (!le32_to_cpu(e->e_value_inum) && le32_to_cpu(e->e_value_size))
			lowest = min_of(lowest, (u32)le16_to_cpu(e->e_value_offs));
	}
	return lowest < EA_RESERVE(bs);
}

/* ---- the plan ---- */

/* The body's list in c->raw becomes what it is to be. -ENOSPC: c->raw is as before. */
static int plan_body(struct change *c, bool with)
{
	struct ext4_sb *sbi = ext4_sb_of(c->ei);
	struct ext4_xattr_ibody_header hdr = { 0 };
	u32 was = EXT4_GOOD_OLD_INODE_SIZE + c->ei->i_extra_isize;
	u32 at = EXT4_GOOD_OLD_INODE_SIZE + c->extra;
	struct xattr_list from, to;
	bool any;
	int err;
	u8 *raw;

	any = xattr_body_list(sbi, c->raw, c->ei->i_extra_isize, &from);
	if (!c->extra || at + sizeof(hdr) + sizeof(le32) > sbi->inode_size) {
		if (with || (any && !xattr_is_end(&from, from.first) && at != was))
			return -ENOSPC;
		/* Nothing is there, whatever it looks like. */
		if (at != was)
			memset(c->raw + was, 0, sbi->inode_size - was);
		return 0;
	}
	raw = malloc(sbi->inode_size);
	if (!raw)
		return -ENOMEM;
	memcpy(raw, c->raw, sbi->inode_size);
	memset(raw + was, 0, sbi->inode_size - was);
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
	if (!err && with && too_crowded(c, &from, &to))
		err = -ENOSPC;
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
	if (err) {
		mutex_unlock(&ei->xattr_sem);
		return err;
	}
	*out = malloc(bs);
	if (*out) {
		mutex_lock(&b->b_lock);
		xattr_share_note(ei, b);
		memcpy(*out, b->b_data, bs);
		mutex_unlock(&b->b_lock);
	}
	mutex_unlock(&ei->xattr_sem);
	buffer_put(b);
	return *out ? 0 : -ENOMEM;
}

static void forget_lists(struct change *c)
{
	free(c->raw);
	free(c->block);
	c->raw = c->block = NULL;
	c->in_body = c->block_changes = false;
}

/* What is there now. *old: the block, or NULL. On error nothing is held. */
static int read_lists(struct change *c, u8 **old)
{
	int err = copy_block(c->ei, old);

	if (err)
		return err;
	c->extra = c->ei->i_extra_isize;
	err = xattr_read_raw(c->ei, &c->raw);
	if (err) {
		c->raw = NULL;
		free(*old);
		*old = NULL;
	}
	return err;
}

/*
 * The entry of c, as it says by c->inum, to the body or else to the block. A link's with a
 * value elsewhere to the block: e2fsck (1.47.0) takes a short link for a long one if it is
 * charged for blocks and has no block of attributes.
 */
static int place_entry(struct change *c, u8 *old, bool in_block)
{
	bool block_only = c->inum && S_ISLNK(c->ei->vfs.i_mode);
	int err = block_only ? -ENOSPC : plan_body(c, true);

	if (!err) {
		c->in_body = true;
		return in_block ? plan_block(c, old, false) : 0;
	}
	return err == -ENOSPC ? plan_block(c, old, true) : err;
}

/*
 * The value to an inode of its own, which is made only if there is room for the entry: so
 * it is planned twice.
 */
static int place_outside(struct change *c, u8 *old, bool in_block)
{
	struct ext4_sb *sbi = ext4_sb_of(c->ei);
	u8 *before;
	int err;

	if (!c->made && c->in_handle)
		return -ENOSPC;
	if (!c->made) {
		before = malloc(sbi->inode_size);
		if (!before)
			return -ENOMEM;
		memcpy(before, c->raw, sbi->inode_size);
		c->inum = UINT32_MAX; /* any */
		err = place_entry(c, old, in_block);
		if (!err) {
			forget_lists(c);
			c->raw = before;
			err = xattr_ea_make(c->ei, c->value, c->len, c->privileged,
					    &c->made);
			c->too_large = false;
		} else {
			free(before);
			c->too_large = err == -ENOSPC;
		}
		if (err)
			return err;
	}
	c->inum = c->made->i_ino;
	c->ea_clusters += xattr_ea_clusters(sbi, c->len);
	return place_entry(c, old, in_block);
}

static int place_value(struct change *c, u8 *old, bool in_body, bool in_block)
{
	bool large = has_ea_inode(c) && ALIGN_UP(c->len, XATTR_PAD) >
			     EA_MIN_LARGE(ext4_sb_of(c->ei)->s.s_blocksize);
	int err = large ? -ENOSPC : place_entry(c, old, in_block);

	if (err == -ENOSPC && has_ea_inode(c) && c->len)
		err = place_outside(c, old, in_block);
	else
		c->too_large = err == -ENOSPC;
	if (err || c->in_body || !in_body)
		return err;
	c->in_body = true;
	return plan_body(c, false);
}

static int plan_with(struct change *c, u8 *old, bool in_body, bool in_block)
{
	int err;

	if (c->value)
		return place_value(c, old, in_body, in_block);
	err = in_block ? plan_block(c, old, false) : 0;
	if (err || !in_body)
		return err;
	c->in_body = true;
	return plan_body(c, false);
}

/* The inode that has the value at `at`; the charge for it goes. */
static u32 old_value(struct change *c, const struct xattr_list *l, u32 at)
{
	const struct ext4_xattr_entry *e = xattr_entry(l, at);
	u32 inum = le32_to_cpu(e->e_value_inum);

	if (inum)
		c->ea_clusters -= xattr_ea_clusters(ext4_sb_of(c->ei),
						le32_to_cpu(e->e_value_size));
	return inum;
}

/* All inodes that the block names but that of c's value: they are to be in memory should
 * the block turn out to have other sharers. */
static int note_kept(struct change *c, const struct xattr_list *l, u32 skip)
{
	u32 n = 0;

	for (u32 at = l->first; !xattr_is_end(l, at); at = xattr_next(l, at))
		n += at != skip && le32_to_cpu(xattr_entry(l, at)->e_value_inum);
	if (!n)
		return 0;
	c->kept = malloc(n * sizeof(*c->kept));
	if (!c->kept)
		return -ENOMEM;
	for (u32 at = l->first; !xattr_is_end(l, at); at = xattr_next(l, at))
		if (at != skip && le32_to_cpu(xattr_entry(l, at)->e_value_inum))
			c->kept[c->nr_kept++] =
				le32_to_cpu(xattr_entry(l, at)->e_value_inum);
	return xattr_eas_add_sound(c->ei, l, &c->known);
}

/* Has the entry at `at` the very value that it is to have? */
static bool is_same(const struct change *c, const struct xattr_list *l, u32 at)
{
	const struct ext4_xattr_entry *e = xattr_entry(l, at);

	return c->value && !c->body_inum && !le32_to_cpu(e->e_value_inum) &&
	       le32_to_cpu(e->e_value_size) == c->len &&
	       !memcmp(l->data + l->base + le16_to_cpu(e->e_value_offs), c->value,
		       c->len);
}

/* What in the body or in the block has the value now; *same: see is_same(). */
static int look_at_body(struct change *c, bool *found, bool *same)
{
	struct xattr_list l;
	u32 at;

	*found = false;
	if (!xattr_body_list(ext4_sb_of(c->ei), c->raw, c->ei->i_extra_isize, &l))
		return 0;
	at = xattr_find(&l, &c->name);
	*found = at != 0;
	if (!at)
		return 0;
	*same = is_same(c, &l, at);
	c->body_inum = old_value(c, &l, at);
	return c->body_inum ? xattr_eas_add(c->ei, c->body_inum, &c->known) : 0;
}

static int look_at_block(struct change *c, u8 *old, bool *found, bool *same)
{
	struct xattr_list l;
	u32 at;
	int err;

	*found = false;
	if (!old)
		return 0;
	l = list_in(ext4_sb_of(c->ei), old);
	at = xattr_find(&l, &c->name);
	*found = at != 0;
	if (at)
		*same = is_same(c, &l, at);
	/* That of a new inode is its own. */
	err = has_ea_inode(c) && !c->in_handle ? note_kept(c, &l, at) : 0;
	if (err || !at)
		return err;
	c->block_inum = old_value(c, &l, at);
	return c->block_inum ? xattr_eas_add(c->ei, c->block_inum, &c->known) : 0;
}

/*
 * i_rwsem held exclusively: nothing of this changes but h_refcount. A value that is
 * there already changes nothing, not even ctime, as with the kernel's ext4.
 */
static int plan(struct change *c)
{
	bool in_body = false, in_block = false, same = false;
	u8 *old;
	int err = read_lists(c, &old);

	if (err)
		return err;
	err = look_at_body(c, &in_body, &same);
	if (!err)
		err = look_at_block(c, old, &in_block, &same);
	if (err)
		goto out_free;
	if (in_body || in_block)
		err = c->flags & SL_XATTR_CREATE ? -EEXIST : 0;
	else if (c->flags & SL_XATTR_REPLACE || !(c->value || c->may_lack))
		err = -ENODATA;
	/* In both, which nobody makes so: what is read is in the body, `same` of the block. */
	if (!err && !(same && in_body != in_block))
		err = plan_with(c, old, in_body, in_block);
out_free:
	free(old);
	return err;
}

/* No handle is open. The next plan begins anew. */
static void forget_plan(struct change *c)
{
	forget_lists(c);
	inode_put(c->made);
	xattr_eas_put(&c->known);
	free(c->kept);
	c->made = NULL;
	c->kept = NULL;
	c->nr_kept = c->inum = c->body_inum = c->block_inum = 0;
	c->ea_clusters = 0;
	c->too_large = false;
}

/* ---- the change ---- */

/* A reference that could not be dropped: an error but after an abort, when nothing of
 * this gets to the disk. */
static void unref(struct handle *h, const struct change *c, struct inode *inode)
{
	int err = xattr_ea_unref(h, c->ei, inode);

	if (err && err != -EROFS && err != -EFSCORRUPTED)
		ext4_error(ext4_sb_of(c->ei), c->ei->vfs.i_ino, 0, err,
			   "inode %u, an attribute's value, stays referenced",
			   inode->i_ino);
}

static void unref_one(struct handle *h, const struct change *c, u32 inum)
{
	if (inum)
		unref(h, c, xattr_eas_find(&c->known, inum));
}

static void unref_made(struct handle *h, const struct change *c)
{
	unref(h, c, c->made);
}

/* Of the first n. */
static void unref_kept(struct handle *h, const struct change *c, u32 n)
{
	for (u32 i = 0; i < n; i++)
		unref_one(h, c, c->kept[i]);
}

/* Each of c->kept is named once more. On error none is. */
static int ref_kept(struct handle *h, const struct change *c)
{
	int err = 0;
	u32 n = 0;

	while (n < c->nr_kept && !err) {
		struct inode *inode = xattr_eas_find(&c->known, c->kept[n]);

		/* What is damaged was reported. */
		err = inode ? xattr_ea_ref(h, c->ei, inode) : -EFSCORRUPTED;
		n += !err;
	}
	if (err)
		unref_kept(h, c, n);
	return err;
}

/* The buffer that the block's new content goes to, with write access: that of our own
 * block, or a new one. */
static int block_buffer(struct handle *h, struct ext4_inode *ei, struct buffer *old,
			bool own, struct buffer **out)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	u32 one = 1;
	pblk_t blk;
	int err;

	if (own) {
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

/* What was joined in this handle. */
static void leave_again(struct handle *h, struct ext4_inode *ei, struct buffer *b)
{
	bool last;

	buffer_get(b);
	/* After an abort nothing of this gets to the disk; else it is the allocator's to
	 * report, and the block is lost at worst. */
	(void)!xattr_release_block(h, ei, b, &last);
}

/*
 * All that can fail of a change of the block. *b: the buffer for its content, or, if
 * *joined, with it; or NULL. On success the old block, if it is another one, is no longer
 * ours. *last: nobody else has it, or its content is ours to change. xattr_sem is
 * held from here to store_block(): nobody can note the block again that is changed in place.
 */
static int switch_blocks(struct handle *h, const struct change *c, struct buffer *old,
			 struct buffer **b, bool *joined, bool *last)
{
	struct ext4_inode *ei = c->ei;
	bool own = old && xattr_share_claim(ext4_sb_of(ei), old);
	int err = 0;

	*b = NULL;
	*last = own;
	*joined = false;
	if (c->block) {
		*b = xattr_share_join(h, ei, c->block, old ? old->b_blocknr : 0);
		*joined = *b != NULL;
		if (!*joined)
			err = block_buffer(h, ei, old, own, b);
	}
	if (!err && old && *b != old) {
		buffer_get(old);
		err = xattr_release_block(h, ei, old, last); /* takes the reference */
		if (err && *joined)
			leave_again(h, ei, *b);
		else if (err && *b)
			(void)!ext4_free_blocks(h, ext4_sb_of(ei), ei->vfs.i_ino,
						(*b)->b_blocknr, 1);
	}
	if (err) {
		buffer_put(*b);
		*b = NULL;
	}
	return err;
}

/* Consumes b, which has the content already if joined. Cannot fail. */
static void store_block(struct handle *h, const struct change *c, struct buffer *b,
			bool joined)
{
	struct ext4_inode *ei = c->ei;
	s64 had = ei->i_file_acl ? 1 : 0;

	if (b && !joined) {
		mutex_lock(&b->b_lock);
		memcpy(b->b_data, c->block, ext4_sb_of(ei)->s.s_blocksize);
		/* Before others may join. */
		handle_dirty(h, b);
		xattr_share_note(ei, b);
		mutex_unlock(&b->b_lock);
	}
	ei->i_file_acl = b ? b->b_blocknr : 0;
	ext4_inode_add_clusters(h, ei, (b ? 1 : 0) - had);
	buffer_put(b);
}

/* Who stores the inode looks at the size of its extra part under b_lock, too: the fields
 * that it has now are not stored before the list is behind them. */
static void store_body(const struct change *c, struct buffer *table, u32 offset)
{
	u32 at = EXT4_GOOD_OLD_INODE_SIZE + c->ei->i_extra_isize;

	mutex_lock(&table->b_lock);
	memcpy(table->b_data + offset + at, c->raw + at,
	       ext4_sb_of(c->ei)->inode_size - at);
	atomic_store(&c->ei->i_extra_isize, (u16)c->extra);
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

/* The block as it is; *own: its content is ours to change. xattr_sem held. */
static int old_block(const struct change *c, struct buffer **old, bool *own)
{
	int err;

	*old = NULL;
	*own = false;
	if (!c->ei->i_file_acl)
		return 0;
	err = xattr_bread(c->ei, old);
	if (err)
		*old = NULL;
	else
		*own = !xattr_is_shared(*old);
	return err;
}

/* What apply_in() does to the lists, all or nothing. *last: as switch_blocks(); *refs: the
 * kept inodes have a reference more. */
static int change_lists(struct handle *h, const struct change *c, struct buffer *table,
			u32 offset, bool *last, bool *refs)
{
	struct ext4_inode *ei = c->ei;
	struct buffer *old = NULL, *b = NULL;
	bool own = false, joined = false;
	int err = 0;

	*last = false;
	*refs = false;
	mutex_lock(&ei->xattr_sem);
	if (c->block_changes)
		err = old_block(c, &old, &own);
	mutex_unlock(&ei->xattr_sem);
	/* Outside of xattr_sem, which ranks further in. What is shared may become own
	 * meanwhile, not the other way, since nobody joins a block like that. */
	if (!err && c->block && old && !own && c->nr_kept) {
		err = ref_kept(h, c);
		*refs = !err;
	}
	mutex_lock(&ei->xattr_sem);
	if (!err && c->block_changes)
		err = switch_blocks(h, c, old, &b, &joined, last);
	if (!err) {
		if (c->block_changes)
			store_block(h, c, b, joined);
		if (c->in_body)
			store_body(c, table, offset);
		ext4_xattr_note(ei, c->raw);
	}
	mutex_unlock(&ei->xattr_sem);
	buffer_put(old);
	if (err && *refs)
		unref_kept(h, c, c->nr_kept);
	return err;
}

/* The references that go, after the lists have changed. */
static void unref_old(struct handle *h, const struct change *c, bool last, bool refs)
{
	unref_one(h, c, c->body_inum);
	if (last)
		unref_one(h, c, c->block_inum);
	/* They were in a block that has gone now: it was the last one's after all. */
	if (last && refs)
		unref_kept(h, c, c->nr_kept);
}

static int apply_in(struct handle *h, const struct change *c)
{
	struct ext4_inode *ei = c->ei;
	struct buffer *table;
	bool last, refs;
	u32 offset;
	int err = ext4_inode_prepare(h, ei, &table, &offset);

	if (err)
		return err;
	if (c->inum) {
		err = xattr_ea_ref(h, ei, c->made);
		if (err)
			goto out_put;
	}
	err = change_lists(h, c, table, offset, &last, &refs);
	if (err) {
		if (c->inum)
			unref_made(h, c);
		goto out_put;
	}
	unref_old(h, c, last, refs);
	ext4_inode_add_clusters(h, ei, c->ea_clusters);
	if (c->sets_mode)
		set_mode(ei, mode_of(c));
	if (!c->keep_times)
		ext4_touch(ei, EXT4_T_CTIME);
	ext4_inode_finish(h, ei, table, offset);
	return 0;
out_put:
	buffer_put(table);
	return err;
}

/* Each inode that holds a value may begin or end; those that are kept only change. */
static u32 credits_of(const struct change *c)
{
	u32 begin_or_end = (c->inum != 0) + (c->body_inum != 0) + (c->block_inum != 0);

	return EXT4_XATTR_SET_CREDITS + begin_or_end * EXT4_XATTR_VALUE_CREDITS +
	       c->nr_kept * EXT4_INODE_CREDITS;
}

static int apply(const struct change *c)
{
	struct ext4_sb *sbi = ext4_sb_of(c->ei);
	struct handle *h;
	int err;

	if (changes_nothing(c))
		return 0;
	err = journal_start(sbi->journal, credits_of(c), 1, &h);
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
	bool too_large;

	if (err)
		return err;
	do {
		budget_throttle(sbi->s.s_budget);
		rwsem_down_write(&inode->i_rwsem);
		err = allowed(c);
		if (!err)
			ext4_extra_grow(c->ei);
		if (!err)
			err = plan(c);
		if (!err)
			err = apply(c);
		too_large = c->too_large;
		rwsem_up_write(&inode->i_rwsem);
		/* What has lost its last reference is deleted by this. */
		forget_plan(c);
	} while (!too_large && ext4_should_retry(sbi, err, &tries));
	return err == -EAGAIN ? -ENOSPC : err;
}

/* ---- more fields ---- */

/* Bytes between the entries and the values. */
static u32 free_in(const struct xattr_list *l)
{
	u32 at, lowest = l->size;

	for (at = l->first; !xattr_is_end(l, at); at = xattr_next(l, at)) {
		const struct ext4_xattr_entry *e = xattr_entry(l, at);

		if (!le32_to_cpu(e->e_value_inum) && le32_to_cpu(e->e_value_size))
			lowest = min_of(lowest,
					l->base + le16_to_cpu(e->e_value_offs));
	}
	at += (u32)sizeof(le32);
	return lowest > at ? lowest - at : 0;
}

/* What an entry takes with its value. */
static u32 taken_by(const struct ext4_xattr_entry *e)
{
	return xattr_entry_len(e->e_name_len) +
	       ALIGN_UP(le32_to_cpu(e->e_value_size), XATTR_PAD);
}

/* The content of an inline file is its inode's, and a value elsewhere is none to move. */
static bool may_move(const struct ext4_xattr_entry *e)
{
	return e->e_name_index != XATTR_INDEX_SYSTEM && !le32_to_cpu(e->e_value_inum);
}

/* The entry that goes: the smallest that is enough, else the largest; 0: none that the
 * block has room for. */
static u32 pick_entry(const struct xattr_list *body, u32 wanted, u32 room)
{
	u32 best = 0, best_size = 0;

	for (u32 at = body->first; !xattr_is_end(body, at); at = xattr_next(body, at)) {
		u32 size = taken_by(xattr_entry(body, at));
		bool enough = size >= wanted, best_enough = best_size >= wanted;

		if (!may_move(xattr_entry(body, at)) || size > room)
			continue;
		if (!best || (enough && !best_enough) ||
		    (enough == best_enough && (enough ? size < best_size : size > best_size))) {
			best = at;
			best_size = size;
		}
	}
	return best;
}

/* Entries go from the body in c->raw to the block, until the rest has a place behind an
 * extra part of c->extra bytes. *old: the block as it is, then as planned. */
static int make_way(struct change *c, u8 **old)
{
	struct ext4_sb *sbi = ext4_sb_of(c->ei);
	u32 extra = c->extra, grows = extra - c->ei->i_extra_isize;
	struct xattr_list body, block;
	int err = 0;

	c->extra = c->ei->i_extra_isize;
	while (!err && xattr_body_list(sbi, c->raw, c->extra, &body) &&
	       free_in(&body) < grows) {
		const struct ext4_xattr_entry *e;
		u32 at, room = sbi->s.s_blocksize -
			       (u32)sizeof(struct ext4_xattr_header) - (u32)sizeof(le32);

		if (*old) {
			block = list_in(sbi, *old);
			room = free_in(&block);
		}
		at = pick_entry(&body, grows - free_in(&body), room);
		if (!at)
			return -ENOSPC;
		e = xattr_entry(&body, at);
		c->name = (struct xattr_name){
			.index = e->e_name_index, .len = e->e_name_len, .text = e->e_name,
		};
		c->value = body.data + body.base + le16_to_cpu(e->e_value_offs);
		c->len = le32_to_cpu(e->e_value_size);
		err = plan_block(c, *old, true);
		if (!err) {
			free(*old);
			*old = c->block;
			c->block = NULL;
			err = plan_body(c, false);
		}
	}
	c->name = (struct xattr_name){ 0 };
	c->value = NULL;
	c->extra = extra;
	return err;
}

static int plan_growth(struct change *c, u32 extra)
{
	bool found, same;
	u8 *old;
	int err = read_lists(c, &old);

	if (err)
		return err;
	err = look_at_block(c, old, &found, &same);
	c->extra = extra;
	if (!err)
		err = make_way(c, &old);
	if (!err && c->block_changes) {
		c->block = old;
		old = NULL;
	}
	if (!err)
		err = plan_body(c, false);
	c->in_body = true;
	free(old);
	return err;
}

static int grow_to(struct ext4_inode *ei, u32 extra)
{
	struct change c = { .ei = ei, .keep_times = true };
	int err;

	if (extra <= ei->i_extra_isize)
		return -ENOSPC;
	err = plan_growth(&c, extra);
	if (!err)
		err = apply(&c);
	forget_plan(&c);
	return err;
}

void ext4_extra_grow(struct ext4_inode *ei)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	int err;

	assert_rwsem_held_write(&ei->vfs.i_rwsem);
	if (likely(!ext4_extra_is_small(ei)) || !sbi->journal)
		return;
	err = grow_to(ei, sbi->want_extra_isize);
	if (err == -ENOSPC)
		err = grow_to(ei, sbi->min_extra_isize);
	/* -EAGAIN: there will be room; -ENOMEM likewise. */
	if (err && err != -EAGAIN && err != -ENOMEM)
		atomic_store(&ei->i_extra_stays, true);
}

struct xattr_update {
	struct change c;
};

int xattr_update_prepare(struct ext4_inode *ei, const struct xattr_name *name,
			 const void *value, u32 len, bool privileged,
			 struct xattr_update **out)
{
	struct xattr_update *u = calloc(1, sizeof(*u));
	int err;

	*out = NULL;
	if (!u)
		return -ENOMEM;
	u->c = (struct change){
		.ei = ei,
		.name = *name,
		.value = value,
		.len = len,
		.privileged = privileged,
		.may_lack = true,
		.keep_times = true,
	};
	err = plan(&u->c);
	if (err)
		xattr_update_end(u);
	else
		*out = u;
	return err;
}

u32 xattr_update_credits(const struct xattr_update *u)
{
	return credits_of(&u->c);
}

int xattr_update_apply(struct handle *h, struct xattr_update *u)
{
	return apply_in(h, &u->c);
}

void xattr_update_end(struct xattr_update *u)
{
	if (u)
		forget_plan(&u->c);
	free(u);
}

int xattr_set_in(struct handle *h, struct ext4_inode *ei,
		 const struct xattr_name *name, const void *value, u32 len,
		 struct inode *ea)
{
	struct change c = {
		.ei = ei,
		.name = *name,
		.value = value,
		.len = len,
		.may_lack = true,
		.keep_times = true,
		.in_handle = true,
		.made = ea,
	};
	int err = plan(&c);

	if (!err)
		err = apply_in(h, &c);
	c.made = NULL; /* the caller's */
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
