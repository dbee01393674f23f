/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/quota_file.c - quota files on disk: reading all of one, adding a record
 *
 * A quota file is made of blocks of 1 KiB:
 *
 *   0       header
 *   1       root of a tree of 4 levels: 256 references, by one byte of the id each
 *   others  nodes of the tree; leaves: up to 14 records; or unused
 *
 *   root --[id >> 24]--> node --[>> 16]--> node --[>> 8]--> node --[id]--> leaf
 *
 * A leaf has records of any ids: each id has its own reference to its leaf. Leaves with
 * room are a list (free_entry). Blocks given up by the kernel are another (free_blk),
 * which is left as it is: a new node or leaf comes from the end of the file. Records are
 * never removed here; one without usage and limits means what none means.
 *
 * The mount walks the whole tree, so that nothing of it needs to be believed later: each
 * node is reached once, or the file is damaged (that ends loops, too). The list of leaves
 * must be of such that the tree has, each once; e2fsck never looks at it, so another is not
 * a reason to refuse the mount, but is given up, and the next record begins one. What a
 * new record needs is looked up and checked, given blocks and write access first; after
 * that nothing fails.
 *
 * Locks:   ext4_quota.lock -> handle -> i_data_sem of the quota file, b_lock
 * Source:  quota-tools' and the kernel's description of the format "vfsv1"
 */
#include "fs/quota_internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/bitmap.h"

#define BLOCKS_MAX (1u << 21) /* 2 GiB: memory for a walk is bounded */
#define USAGE_MAX (1ull << 62)

const struct buffer_type quota_buffer_type = { .name = "quota block" };

/* A block of the file: where it is in a buffer. */
struct place {
	struct buffer *b;
	u32 off;
};

static u8 *at(const struct place *p)
{
	return p->b->b_data + p->off;
}

static void put(struct place *p)
{
	buffer_put(p->b);
	p->b = NULL;
}

static struct ext4_quota_header *header(const struct place *p)
{
	return (void *)at(p);
}

static struct ext4_quota_leaf *leaf(const struct place *p)
{
	return (void *)at(p);
}

static u32 ref_index(u32 id, u32 depth)
{
	return id >> (8 * (EXT4_QUOTA_DEPTH - 1 - depth)) & (EXT4_QUOTA_REFS - 1);
}

static le32 *ref(const struct place *p, u32 id, u32 depth)
{
	return (le32 *)(void *)at(p) + ref_index(id, depth);
}

static u32 record_off(u32 i)
{
	return (u32)(sizeof(struct ext4_quota_leaf) +
		     i * sizeof(struct ext4_quota_record));
}

static const struct ext4_quota_record *record(const struct place *p, u32 i)
{
	return (void *)(at(p) + record_off(i));
}

static bool is_unused(const struct ext4_quota_record *r)
{
	static const struct ext4_quota_record none;

	return !memcmp(r, &none, sizeof(none));
}

#define bad_file(sbi, f, blk, ...) \
	ext4_error(sbi, (f)->ino, blk, -EFSCORRUPTED, "quota file: " __VA_ARGS__)

static lblk_t lblk_of(const struct ext4_sb *sbi, u32 blk)
{
	return (lblk_t)((u64)blk * EXT4_QUOTA_BLOCK >> sbi->s.s_blocksize_bits);
}

static u32 off_of(const struct ext4_sb *sbi, u32 blk)
{
	return (u32)((u64)blk * EXT4_QUOTA_BLOCK & (sbi->s.s_blocksize - 1));
}

/* Where block blk is; *pblk 0: nowhere yet. */
static int map(struct ext4_sb *sbi, struct quota_file *f, u32 blk, pblk_t *pblk)
{
	struct ext4_map m = { .lblk = lblk_of(sbi, blk), .len = 1 };
	int err = ext4_map_blocks(EXT4_I(f->inode), &m);

	*pblk = 0;
	if (err || !m.flags)
		return err;
	if (m.flags & EXT4_MAP_UNWRITTEN || !ext4_block_range_ok(sbi, m.pblk, 1))
		return bad_file(sbi, f, m.pblk, "block %u is not a data block", blk);
	*pblk = m.pblk;
	return 0;
}

static int get(struct ext4_sb *sbi, struct quota_file *f, u32 blk, struct place *p)
{
	pblk_t pblk;
	int err = map(sbi, f, blk, &pblk);

	p->b = NULL;
	p->off = off_of(sbi, blk);
	if (err)
		return err;
	if (!pblk)
		return bad_file(sbi, f, 0, "block %u is missing", blk);
	return ext4_bread(sbi, pblk, f->ino, &quota_buffer_type, 0, &p->b);
}

/* A reference as found: a block that is not the header or the root. */
static bool ref_ok(const struct quota_file *f, u32 blk)
{
	return blk > EXT4_QUOTA_ROOT && blk < f->blocks;
}

/* ---- reading ---- */

struct walk {
	struct ext4_sb *sbi;
	struct quota_file *f;
	u8 *nodes, *leaves; /* what each block was met as */
	u32 type;
	int (*add)(struct quota_file *f, const struct dquot *dq);
};

static int read_record(struct walk *w, u32 blk, u32 id)
{
	struct dquot dq = { .id = id, .type = w->type };
	struct place p;
	u64 inodes, bytes;
	u32 i = 0;
	int err;

	if (!ref_ok(w->f, blk) || bm_test(w->nodes, blk))
		return bad_file(w->sbi, w->f, 0, "record of %u in block %u", id, blk);
	bm_set(w->leaves, blk);
	err = get(w->sbi, w->f, blk, &p);
	if (err)
		return err;
	while (i < EXT4_QUOTA_RECORDS &&
	       (le32_to_cpu(record(&p, i)->id) != id || is_unused(record(&p, i))))
		i++;
	if (i == EXT4_QUOTA_RECORDS) {
		err = bad_file(w->sbi, w->f, p.b->b_blocknr, "no record of %u", id);
		goto out_put;
	}
	inodes = le64_to_cpu(record(&p, i)->curinodes);
	bytes = le64_to_cpu(record(&p, i)->curspace);
	if (inodes > USAGE_MAX || bytes > USAGE_MAX) {
		err = bad_file(w->sbi, w->f, p.b->b_blocknr,
			       "usage of %u is %" PRIu64 " inodes, %" PRIu64 " bytes", id,
			       inodes, bytes);
		goto out_put;
	}
	dq.blk = p.b->b_blocknr;
	dq.off = p.off + record_off(i);
	atomic_init(&dq.inodes, (s64)inodes);
	atomic_init(&dq.bytes, (s64)bytes);
	err = w->add(w->f, &dq);
out_put:
	put(&p);
	return err;
}

/* prefix: the bytes of the ids below this node. */
static int walk(struct walk *w, u32 blk, u32 depth, u32 prefix)
{
	le32 refs[EXT4_QUOTA_REFS];
	struct place p;
	int err;

	if (bm_test(w->nodes, blk) || bm_test(w->leaves, blk))
		return bad_file(w->sbi, w->f, 0, "block %u has two uses", blk);
	bm_set(w->nodes, blk);
	err = get(w->sbi, w->f, blk, &p);
	if (err)
		return err;
	memcpy(refs, at(&p), sizeof(refs));
	put(&p);
	for (u32 i = 0; i < EXT4_QUOTA_REFS && !err; i++) {
		u32 to = le32_to_cpu(refs[i]);
		u32 id = prefix << 8 | i;

		if (!to)
			continue;
		if (depth == EXT4_QUOTA_DEPTH - 1)
			err = read_record(w, to, id);
		else if (!ref_ok(w->f, to))
			err = bad_file(w->sbi, w->f, 0, "reference to block %u of %u",
				       to, w->f->blocks);
		else
			err = walk(w, to, depth + 1, id);
	}
	return err;
}

static u32 free_slot(const struct place *p)
{
	u32 i = 0;

	while (i < EXT4_QUOTA_RECORDS && !is_unused(record(p, i)))
		i++;
	return i;
}

/* By its count, which must be right. */
static bool has_room(const struct place *p)
{
	u32 entries = le16_to_cpu(leaf(p)->entries), used = 0;

	for (u32 i = 0; i < EXT4_QUOTA_RECORDS; i++)
		used += !is_unused(record(p, i));
	return entries == used && used < EXT4_QUOTA_RECORDS;
}

/* After the tree: a list of other blocks would have nodes overwritten by records. */
static int check_list(struct walk *w)
{
	struct quota_file *f = w->f;
	u32 blk = f->free_entry;

	while (blk && ref_ok(f, blk) && bm_test(w->leaves, blk)) {
		struct place p;
		int err = get(w->sbi, f, blk, &p);
		bool room;

		if (err)
			return err;
		bm_clear(w->leaves, blk); /* a second time it is a loop */
		room = has_room(&p);
		if (room)
			blk = le32_to_cpu(leaf(&p)->next_free);
		put(&p);
		if (!room)
			break;
	}
	if (blk) {
		log_warn("%s: quota: the list of blocks with room of inode %u is wrong at block %u, and is given up",
			 w->sbi->s.s_id, f->ino, blk);
		f->free_entry = 0;
	}
	return 0;
}

static int read_header(struct ext4_sb *sbi, struct quota_file *f, u32 type)
{
	static const u32 magic[] = { EXT4_QUOTA_USR_MAGIC, EXT4_QUOTA_GRP_MAGIC,
				     EXT4_QUOTA_PRJ_MAGIC };
	u64 have = f->inode->i_size / EXT4_QUOTA_BLOCK;
	const struct ext4_quota_header *hdr;
	struct place p;
	int err;

	if (have <= EXT4_QUOTA_ROOT)
		return bad_file(sbi, f, 0, "size %" PRIu64, (u64)f->inode->i_size);
	err = get(sbi, f, 0, &p);
	if (err)
		return err;
	hdr = header(&p);
	f->blocks = le32_to_cpu(hdr->blocks);
	f->free_entry = le32_to_cpu(hdr->free_entry);
	if (le32_to_cpu(hdr->magic) != magic[type] ||
	    le32_to_cpu(hdr->version) != EXT4_QUOTA_VERSION)
		err = bad_file(sbi, f, p.b->b_blocknr, "magic number %x, version %u",
			       le32_to_cpu(hdr->magic), le32_to_cpu(hdr->version));
	else if (f->blocks <= EXT4_QUOTA_ROOT || f->blocks > have ||
		 f->blocks > BLOCKS_MAX)
		err = bad_file(sbi, f, p.b->b_blocknr, "%u blocks, of %" PRIu64,
			       f->blocks, have);
	else if (f->free_entry && !ref_ok(f, f->free_entry))
		err = bad_file(sbi, f, p.b->b_blocknr, "list begins at block %u",
			       f->free_entry);
	put(&p);
	return err;
}

int quota_file_load(struct ext4_sb *sbi, struct quota_file *f, u32 type,
		    int (*add)(struct quota_file *f, const struct dquot *dq))
{
	struct walk w = { .sbi = sbi, .f = f, .type = type, .add = add };
	int err = read_header(sbi, f, type);
	size_t bytes;

	if (err)
		return err;
	bytes = DIV_ROUND_UP(f->blocks, 64u) * 8;
	w.nodes = calloc(1, bytes);
	w.leaves = calloc(1, bytes);
	err = -ENOMEM;
	if (w.nodes && w.leaves)
		err = walk(&w, EXT4_QUOTA_ROOT, 0, 0);
	if (!err)
		err = check_list(&w);
	free(w.nodes);
	free(w.leaves);
	return err;
}

/* ---- a new record ---- */

#define NEW_MAX EXT4_QUOTA_DEPTH /* nodes but the root, and a leaf */
/* Header, leaf, the next in its list, the last node there is, new blocks, the inode. */
#define INSERT_CREDITS (4 + NEW_MAX + EXT4_INODE_CREDITS)

struct insertion {
	struct ext4_sb *sbi;
	struct quota_file *f;
	struct handle *h;
	u32 id;
	struct place header, node, leaf, next; /* next: none without b */
	struct place new[NEW_MAX]; /* blocks f->blocks and on: nodes, then a leaf */
	u32 depth;                 /* of node */
	u32 nr_nodes;              /* new ones */
	u32 leaf_blk;
	bool new_leaf;
	u32 slot;                  /* in the leaf */
	bool fills;                /* the leaf has no room then */
	bool grown;                /* the inode is to be written */
};

/* The last node on the way to id that there is. */
static int find_node(struct insertion *in)
{
	u32 blk = EXT4_QUOTA_ROOT;

	for (in->depth = 0;; in->depth++) {
		u32 to;
		int err = get(in->sbi, in->f, blk, &in->node);

		if (err)
			return err;
		to = le32_to_cpu(*ref(&in->node, in->id, in->depth));
		if (!to)
			break;
		if (!ref_ok(in->f, to) || in->depth == EXT4_QUOTA_DEPTH - 1)
			return bad_file(in->sbi, in->f, in->node.b->b_blocknr,
					"block %u for %u, which has no record", to, in->id);
		put(&in->node);
		blk = to;
	}
	in->nr_nodes = EXT4_QUOTA_DEPTH - 1 - in->depth;
	return 0;
}

/* Of the first leaf with room, which it has, or says so. */
static int find_slot(struct insertion *in)
{
	struct quota_file *f = in->f;
	u32 next;
	int err;

	in->new_leaf = !f->free_entry;
	in->leaf_blk = in->new_leaf ? f->blocks + in->nr_nodes : f->free_entry;
	if (in->new_leaf)
		return 0;
	err = get(in->sbi, f, in->leaf_blk, &in->leaf);
	if (err)
		return err;
	next = le32_to_cpu(leaf(&in->leaf)->next_free);
	if (!has_room(&in->leaf))
		return bad_file(in->sbi, f, in->leaf.b->b_blocknr,
				"no room in block %u", in->leaf_blk);
	in->slot = free_slot(&in->leaf);
	in->fills = le16_to_cpu(leaf(&in->leaf)->entries) + 1 == EXT4_QUOTA_RECORDS;
	if (!in->fills || !next)
		return 0;
	if (!ref_ok(f, next) || next == in->leaf_blk)
		return bad_file(in->sbi, f, in->leaf.b->b_blocknr,
				"list goes on at block %u", next);
	return get(in->sbi, f, next, &in->next);
}

static void set_size(struct insertion *in, u64 size)
{
	struct ext4_inode *ei = EXT4_I(in->f->inode);

	in->grown = true;
	if (size <= ei->vfs.i_size)
		return;
	ext4_set_size(ei, size);
	rwsem_down_write(&ei->i_data_sem);
	ei->i_disksize = size;
	rwsem_up_write(&ei->i_data_sem);
}

/* Block blk, the next of the file: in a block of the volume that it has, or gets. */
static int get_new(struct insertion *in, u32 blk, struct place *p)
{
	struct ext4_sb *sbi = in->sbi;
	struct ext4_map m = { .lblk = lblk_of(sbi, blk), .len = 1 };
	u64 end = ((u64)m.lblk + 1) << sbi->s.s_blocksize_bits;
	pblk_t pblk;
	int err = map(sbi, in->f, blk, &pblk);

	p->b = NULL;
	p->off = off_of(sbi, blk);
	if (err)
		return err;
	if (pblk) {
		err = ext4_bread(sbi, pblk, in->f->ino, &quota_buffer_type, 0, &p->b);
		if (!err)
			set_size(in, (u64)(blk + 1) * EXT4_QUOTA_BLOCK);
		return err;
	}
	/* A map that failed may have changed, too. */
	in->grown = true;
	err = ext4_map_create(in->h, EXT4_I(in->f->inode), &m, 0);
	if (err)
		return err;
	/* Also if the rest fails: the block is the file's. */
	set_size(in, end);
	err = buffer_get_zeroed(&sbi->s, m.pblk, &quota_buffer_type, 0, &p->b);
	if (!err)
		err = handle_get_create_access(in->h, p->b);
	/* It holds nothing yet, but is read. */
	if (!err)
		handle_dirty(in->h, p->b);
	return err;
}

static int get_access(struct insertion *in)
{
	struct place *all[] = { &in->header, &in->node, &in->leaf, &in->next,
				&in->new[0], &in->new[1], &in->new[2], &in->new[3] };
	int err = 0;

	_Static_assert(NEW_MAX == 4, "all");
	for (u32 i = 0; i < ARRAY_SIZE(all) && !err; i++)
		if (all[i]->b)
			err = handle_get_write_access(in->h, all[i]->b);
	return err;
}

/* All that can fail. */
static int insert_prepare(struct insertion *in)
{
	struct quota_file *f = in->f;
	int err = find_node(in);
	u32 nr;

	if (!err)
		err = find_slot(in);
	if (!err)
		err = get(in->sbi, f, 0, &in->header);
	if (err)
		return err;
	nr = in->nr_nodes + in->new_leaf;
	if (nr > BLOCKS_MAX - f->blocks)
		return -ENOSPC;
	for (u32 i = 0; i < nr && !err; i++)
		err = get_new(in, f->blocks + i, &in->new[i]);
	if (!err && in->new_leaf) {
		in->leaf = in->new[in->nr_nodes];
		in->new[in->nr_nodes].b = NULL;
	}
	return err ? err : get_access(in);
}

static void set_ref(struct insertion *in, struct place *p, u32 depth, u32 to)
{
	mutex_lock(&p->b->b_lock);
	*ref(p, in->id, depth) = cpu_to_le32(to);
	mutex_unlock(&p->b->b_lock);
	handle_dirty(in->h, p->b);
}

static void change_leaf(struct insertion *in)
{
	struct ext4_quota_record r = { .id = cpu_to_le32(in->id) };
	struct ext4_quota_leaf *l = leaf(&in->leaf);

	/* A record of zeroes alone is none. */
	if (!in->id)
		r.itime = cpu_to_le64(1);
	mutex_lock(&in->leaf.b->b_lock);
	if (in->new_leaf)
		memset(at(&in->leaf), 0, EXT4_QUOTA_BLOCK);
	l->entries = cpu_to_le16((u16)(le16_to_cpu(l->entries) + 1));
	memcpy(at(&in->leaf) + record_off(in->slot), &r, sizeof(r));
	if (in->fills) {
		in->f->free_entry = le32_to_cpu(l->next_free);
		l->next_free = l->prev_free = cpu_to_le32(0);
	} else {
		in->f->free_entry = in->leaf_blk;
	}
	mutex_unlock(&in->leaf.b->b_lock);
	handle_dirty(in->h, in->leaf.b);
	if (!in->next.b)
		return;
	mutex_lock(&in->next.b->b_lock);
	leaf(&in->next)->prev_free = cpu_to_le32(0);
	mutex_unlock(&in->next.b->b_lock);
	handle_dirty(in->h, in->next.b);
}

static void insert_apply(struct insertion *in)
{
	struct quota_file *f = in->f;
	u32 first = f->blocks;

	for (u32 i = 0; i < in->nr_nodes; i++) {
		bool last = i + 1 == in->nr_nodes;

		mutex_lock(&in->new[i].b->b_lock);
		memset(at(&in->new[i]), 0, EXT4_QUOTA_BLOCK);
		mutex_unlock(&in->new[i].b->b_lock);
		handle_dirty(in->h, in->new[i].b);
		set_ref(in, &in->new[i], in->depth + 1 + i,
			last ? in->leaf_blk : first + i + 1);
	}
	set_ref(in, &in->node, in->depth, in->nr_nodes ? first : in->leaf_blk);
	f->blocks += in->nr_nodes + in->new_leaf;
	change_leaf(in);
	mutex_lock(&in->header.b->b_lock);
	header(&in->header)->blocks = cpu_to_le32(f->blocks);
	header(&in->header)->free_entry = cpu_to_le32(f->free_entry);
	mutex_unlock(&in->header.b->b_lock);
	handle_dirty(in->h, in->header.b);
}

static void put_all(struct insertion *in)
{
	put(&in->header);
	put(&in->node);
	put(&in->leaf);
	put(&in->next);
	for (u32 i = 0; i < NEW_MAX; i++)
		put(&in->new[i]);
}

int quota_file_insert(struct ext4_sb *sbi, struct quota_file *f, struct dquot *dq)
{
	struct insertion in = { .sbi = sbi, .f = f, .id = dq->id };
	struct ext4_inode *ei = EXT4_I(f->inode);
	int err, err2;

	err = journal_start(sbi->journal,
			    INSERT_CREDITS + ext4_ext_insert_credits(ei, NEW_MAX), 0,
			    &in.h);
	if (err)
		return err;
	/* Whoever comes to own something: the file is the volume's, not his. */
	handle_set_privileged(in.h);
	err = insert_prepare(&in);
	if (!err) {
		insert_apply(&in);
		dq->blk = in.leaf.b->b_blocknr;
		dq->off = in.leaf.off + record_off(in.slot);
	}
	if (in.grown) {
		err2 = ext4_mark_inode_dirty(in.h, ei);
		if (err2 && err2 != -EROFS)
			(void)ext4_error(sbi, f->ino, 0, err2,
					 "a grown quota file can't be written");
		err = err ? err : err2;
	}
	put_all(&in);
	err2 = handle_stop(in.h);
	return err ? err : err2;
}
