/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/extents_insert.c - extent tree: making room for one more entry
 *
 * An insertion goes into the leaf, after the entry its path took. If the leaf
 * is full it is split and the new node entered in the parent, and so on
 * upwards; if every node on the path is full the tree grows first: the root's
 * entries move to a new block, and the root keeps one entry that points there.
 *
 *   need = full nodes on the path, counted from the leaf upwards
 *   need == depth + 1: the root is among them: one is for the growth
 *
 *          [A G M S]  root, full                 [A]
 *           |                                     |
 *   [G .. L]  full         grow, split    [A G J M S]
 *       ^ insert K                          |
 *                                    [G .. I] [J K L]
 *
 * A node is split in the middle, except when the entry goes to its very end:
 * then nothing moves and the new node gets only the entry, so that files
 * written from start to end have full nodes.
 *
 * Everything that can fail is done before (ext_insert_prepare()); the
 * insertion itself cannot fail and leaves no state in between.
 *
 * Locks:  i_data_sem held exclusively by the callers
 * Source: ext4-format brief section 6. Next: fs/extents_convert.c
 */
#include "fs/extents_internal.h"

int ext_access(struct handle *h, struct ext_path *p, u32 top, u32 bottom)
{
	int err = top ? 0 : ext4_inode_access(h, p->ei);

	for (u32 l = max_of(top, 1u); !err && l <= bottom; l++)
		err = handle_get_write_access(h, p->n[l].b);
	return err;
}

static bool node_full(const struct ext_node *n)
{
	return eh_entries(n->eh) >= eh_max(n->eh);
}

u32 ext_room_needed(const struct ext_path *p)
{
	u32 need = 0;

	while (need <= p->depth && node_full(&p->n[p->depth - need]))
		need++;
	return need;
}

u32 ext_insert_top(const struct ext_path *p)
{
	u32 need = ext_room_needed(p);

	/* A new first key: an extent before all others. */
	if (p->n[p->depth].pos < 0)
		return 0;
	return need > p->depth ? 0 : p->depth - need;
}

void ext_dirty(struct handle *h, struct ext_path *p, u32 level)
{
	if (p->n[level].b)
		handle_dirty(h, p->n[level].b);
}

void ext_fix_keys(struct handle *h, struct ext_path *p, u32 level)
{
	for (u32 l = level; l-- > 0;) {
		struct ext_node *n = &p->n[l];
		lblk_t key = ext_key(n[1].eh, 0);

		ext_idx(n->eh, (u32)n->pos)->ei_block = cpu_to_le32(key);
		ext_dirty(h, p, l);
		if (n->pos != 0)
			return;
	}
}

void ext_cut(struct ext4_extent_header *eh, u32 i, u32 nr)
{
	u32 n = eh_entries(eh);

	assert(i + nr <= n);
	memmove(ext_leaf(eh, i), ext_leaf(eh, i + nr), (n - i - nr) * EXT_ENTRY_BYTES);
	memset(ext_leaf(eh, n - nr), 0, nr * EXT_ENTRY_BYTES);
	eh_set_entries(eh, n - nr);
}

bool ext_merge_pair(struct ext4_extent_header *eh, u32 i)
{
	struct ext a, b;

	if (i + 1 >= eh_entries(eh))
		return false;
	a = ext_get(eh, i);
	b = ext_get(eh, i + 1);
	if (!ext_mergeable(&a, &b))
		return false;
	a.len += b.len;
	ext_set(eh, i, &a);
	ext_cut(eh, i + 1, 1);
	return true;
}

/* ---- blocks for new nodes ---- */

int ext_room_alloc(struct handle *h, struct ext_path *p, u32 alloc_flags,
		   struct ext_room *room)
{
	struct ext4_inode *ei = p->ei;
	struct ext4_sb *sbi = ext4_sb_of(ei);
	const struct buffer *leaf = p->n[p->depth].b;
	u32 need = ext_room_needed(p);

	memset(room, 0, sizeof(*room));
	if (need > p->depth && p->depth == EXT4_EXT_MAX_DEPTH)
		return -ENOSPC;
	while (room->nr < need) {
		/* Beside the other nodes, out of the way of the data. */
		pblk_t goal = leaf ? leaf->b_blocknr + 1 : 0;
		u32 one = 1;
		int err;

		if (goal >= sbi->blocks_count)
			goal = 0;
		err = ext4_alloc_blocks(h, sbi, ei->i_group, goal,
					alloc_flags | EXT4_ALLOC_META, &one,
					&room->blk[room->nr]);
		if (err) {
			ext_room_undo(h, ei, room);
			return err;
		}
		room->nr++;
	}
	return 0;
}

/*
 * Gives the buffers up. They were never changed in the handle, so there is
 * nothing to revoke; detached, they can't be found under a number that may
 * become somebody else's.
 */
static void room_put_buffers(struct ext_room *room)
{
	for (u32 i = 0; i < room->nr; i++) {
		if (!room->b[i])
			continue;
		buffer_detach(room->b[i]);
		buffer_put(room->b[i]);
		room->b[i] = NULL;
	}
}

int ext_room_buffers(struct handle *h, struct ext_path *p, struct ext_room *room)
{
	struct ext4_inode *ei = p->ei;
	int err = 0;

	for (u32 i = 0; i < room->nr && !err; i++) {
		err = buffer_get_zeroed(ei->vfs.i_sb, room->blk[i],
					&ext4_extent_block_type, ei->i_csum_seed,
					&room->b[i]);
		if (err)
			room->b[i] = NULL;
		else
			err = handle_get_create_access(h, room->b[i]);
	}
	if (err)
		room_put_buffers(room);
	return err;
}

void ext_room_undo(struct handle *h, struct ext4_inode *ei, struct ext_room *room)
{
	room_put_buffers(room);
	while (room->nr > 0) {
		/* A failure is the allocator's to report; the block is lost at worst. */
		(void)!ext4_free_blocks(h, ext4_sb_of(ei), ei->vfs.i_ino,
					room->blk[--room->nr], 1);
	}
}

int ext_insert_prepare(struct handle *h, struct ext_path *p, struct ext_room *room)
{
	int err = ext_access(h, p, ext_insert_top(p), p->depth);

	memset(room, 0, sizeof(*room));
	if (err)
		return err;
	err = ext_room_alloc(h, p, 0, room);
	if (err)
		return err;
	err = ext_room_buffers(h, p, room);
	if (err)
		ext_room_undo(h, p->ei, room);
	return err;
}

/* ---- the insertion ---- */

/* The next new node, an empty one of the given depth. Its reference is the caller's. */
static struct buffer *room_take(struct ext_path *p, struct ext_room *room, u32 depth)
{
	struct buffer *b;
	struct ext4_extent_header *eh;

	assert(room->used < room->nr);
	b = room->b[room->used];
	room->b[room->used++] = NULL;
	eh = ext_buffer_header(b);
	eh->eh_magic = cpu_to_le16(EXT4_EXT_MAGIC);
	eh->eh_max = cpu_to_le16((u16)ext_block_max(p->ei->vfs.i_sb));
	eh->eh_depth = cpu_to_le16((u16)depth);
	return b;
}

static void set_idx(struct ext4_extent_idx *ix, lblk_t key, pblk_t child)
{
	ix->ei_block = cpu_to_le32(key);
	ix->ei_leaf_lo = cpu_to_le32((u32)child);
	ix->ei_leaf_hi = cpu_to_le16((u16)(child >> 32));
	ix->ei_unused = cpu_to_le16(0);
}

/* The root's entries move into a new block; the path follows them. */
static void grow(struct handle *h, struct ext_path *p, struct ext_room *room)
{
	struct ext_node *root = &p->n[0];
	u32 n = eh_entries(root->eh), depth = eh_depth(root->eh);
	struct buffer *b = room_take(p, room, depth);
	struct ext4_extent_header *eh = ext_buffer_header(b);

	assert(p->depth < EXT4_EXT_MAX_DEPTH);
	memcpy(ext_leaf(eh, 0), ext_leaf(root->eh, 0), n * EXT_ENTRY_BYTES);
	eh_set_entries(eh, n);
	handle_dirty(h, b);

	memset(ext_leaf(root->eh, 0), 0, n * EXT_ENTRY_BYTES);
	set_idx(ext_idx(root->eh, 0), ext_key(eh, 0), b->b_blocknr);
	eh_set_entries(root->eh, 1);
	root->eh->eh_depth = cpu_to_le16((u16)(depth + 1));

	memmove(&p->n[2], &p->n[1], p->depth * sizeof(p->n[0]));
	p->n[1] = (struct ext_node){
		.b = b, .eh = eh, .pos = root->pos, .bound = root->bound
	};
	root->pos = 0;
	p->depth++;
}

static void put_entry(struct ext4_extent_header *eh, u32 at, const void *entry)
{
	u32 n = eh_entries(eh);

	assert(n < eh_max(eh) && at <= n);
	memmove(ext_leaf(eh, at + 1), ext_leaf(eh, at), (n - at) * EXT_ENTRY_BYTES);
	memcpy(ext_leaf(eh, at), entry, EXT_ENTRY_BYTES);
	eh_set_entries(eh, n + 1);
}

/*
 * Splits the full node at `level`, putting the entry to its place `at` in one
 * of the halves; leaves the index entry for the new node in *up.
 */
static void split(struct handle *h, struct ext_path *p, u32 level, u32 at,
		  const void *entry, struct ext_room *room,
		  struct ext4_extent_idx *up)
{
	struct ext4_extent_header *eh = p->n[level].eh;
	u32 n = eh_entries(eh), keep = at == n ? n : n / 2;
	struct buffer *b = room_take(p, room, eh_depth(eh));
	struct ext4_extent_header *neh = ext_buffer_header(b);

	memcpy(ext_leaf(neh, 0), ext_leaf(eh, keep), (n - keep) * EXT_ENTRY_BYTES);
	eh_set_entries(neh, n - keep);
	ext_cut(eh, keep, n - keep);
	if (at > keep || keep == n)
		put_entry(neh, at - keep, entry);
	else
		put_entry(eh, at, entry);
	set_idx(up, ext_key(neh, 0), b->b_blocknr);
	handle_dirty(h, b);
	buffer_put(b);
}

void ext_insert(struct handle *h, struct ext_path *p, const struct ext *e,
		struct ext_room *room)
{
	struct ext4_extent_idx up;
	struct ext4_extent x;
	const void *entry = &x;
	u32 level;

	ext_encode(&x, e);
	if (room->nr > p->depth)
		grow(h, p, room);
	for (level = p->depth;; level--) {
		struct ext_node *n = &p->n[level];
		u32 at = (u32)(n->pos + 1);
		bool full = node_full(n);
		struct ext4_extent_idx next;

		if (full)
			split(h, p, level, at, entry, room, &next);
		else
			put_entry(n->eh, at, entry);
		ext_dirty(h, p, level);
		if (at == 0) /* only in the leaf: an index follows the entry taken */
			ext_fix_keys(h, p, level);
		if (!full)
			break;
		assert(level > 0);
		up = next;
		entry = &up;
	}
	assert(room->used == room->nr);
	ext4_inode_add_clusters(h, p->ei, room->nr);
}

int ext_split(struct handle *h, struct ext_path *p, const struct ext *e, u64 at)
{
	struct ext_node *leaf = ext_path_leaf(p);
	struct ext a = *e, b = *e;
	struct ext_room room;
	int err = ext_insert_prepare(h, p, &room);

	if (err)
		return err;
	a.len = (u32)(at - e->lblk);
	b.lblk += a.len;
	b.pblk += a.len;
	b.len -= a.len;
	ext_set(leaf->eh, (u32)leaf->pos, &a);
	ext_insert(h, p, &b, &room);
	return 0;
}
