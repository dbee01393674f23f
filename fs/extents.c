/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/extents.c - extent tree: lookup, and allocation into holes
 *
 * A lookup walks from the root in i_block to one leaf, by binary search in
 * each node. Each index entry is the first key of its child (checked at the
 * descent), so the next extent after a hole is known from the path alone: the
 * next entry of the leaf, or of the nearest ancestor that has one. Hole
 * lengths are therefore exact without reading a second leaf.
 *
 * What a lookup finds is entered into the leaves of the page cache, and asked
 * of them first the next time (cache/mapping.h, records): a range that is
 * known takes a leaf lock, and neither i_data_sem nor the tree. All changes of
 * the tree keep the records true: blocks that came (ext4_map_create()), became
 * written (extents_convert.c), or are about to go (extents_remove.c, indirect.c).
 *
 * Allocation does all that can fail first (access to the buffers on the path,
 * blocks and buffers of new nodes, then the data blocks) and only then changes
 * the tree: -ENOSPC and -EAGAIN leave everything as it was. The data blocks
 * come last because taking them consumes a delayed reservation, and blocks
 * given back return to the promised ones only after a commit.
 *
 * With bigalloc an allocation takes clusters, of which the extent may use a part: block
 * lblk of the file has the same place in its cluster as its block on the volume. So
 * a hole whose cluster has another piece of the file in it has its blocks already
 * (create_in_cluster()): they are entered, and nothing is allocated. What goes
 * beyond that cluster is another call's.
 *
 * Locks:   i_data_sem, shared for lookups, exclusive for changes; inside it
 *          b_lock, group locks and i_lock by what is called. A handle is never
 *          started or restarted with it held.
 * Alive:   a path holds a reference on each buffer in it
 * Never:   ext4_mark_inode_dirty() under i_data_sem (it may want to read the root)
 * Source:  ext4-format brief section 6. Next: fs/extents_insert.c
 */
#include "fs/extents_internal.h"

void ext4_ext_init_root(struct ext4_inode *ei)
{
	struct ext4_extent_header *eh = ext_root(ei);

	memset(ei->i_block, 0, sizeof(ei->i_block));
	eh->eh_magic = cpu_to_le16(EXT4_EXT_MAGIC);
	eh->eh_max = cpu_to_le16((EXT4_I_BLOCK_BYTES - sizeof(*eh)) / EXT_ENTRY_BYTES);
}

void ext4_map_init(struct ext4_inode *ei)
{
	if (ext_inode_has_extents(ei))
		ext4_ext_init_root(ei);
	else
		memset(ei->i_block, 0, sizeof(ei->i_block));
}

bool ext4_map_is_empty(struct ext4_inode *ei)
{
	static const u8 none[sizeof(ei->i_block)];

	if (ext_inode_has_extents(ei))
		return eh_entries(ext_root(ei)) == 0;
	return !memcmp(ei->i_block, none, sizeof(none));
}

/* Index of the last entry with key <= lblk; -1 if there is none. */
static int node_search(const struct ext4_extent_header *eh, lblk_t lblk)
{
	int lo = 0, hi = (int)eh_entries(eh);

	while (lo < hi) {
		int mid = (lo + hi) / 2;

		if (ext_key(eh, (u32)mid) <= lblk)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo - 1;
}

/* Goes from level to level + 1, through the entry taken. */
static int path_descend(struct ext_path *p, u32 level)
{
	struct ext4_inode *ei = p->ei;
	struct ext_node *n = &p->n[level], *child = n + 1;
	u32 pos = (u32)n->pos;
	struct buffer *b;
	int err;

	err = ext4_bread(ext4_sb_of(ei), ext_idx_pblk(ext_idx(n->eh, pos)),
			 ei->vfs.i_ino, &ext4_extent_block_type, ei->i_csum_seed, &b);
	if (err)
		return err;
	child->bound = pos + 1 < eh_entries(n->eh) ? ext_key(n->eh, pos + 1) : n->bound;
	err = ext_check_child(p, level + 1, b, ext_key(n->eh, pos));
	if (err) {
		buffer_put(b);
		return err;
	}
	child->b = b;
	child->eh = ext_buffer_header(b);
	return 0;
}

int ext_find(struct ext4_inode *ei, lblk_t lblk, struct ext_path *p)
{
	p->ei = ei;
	p->n[0] = (struct ext_node){ .eh = ext_root(ei), .bound = EXT_LBLK_END };
	p->depth = eh_depth(p->n[0].eh);

	for (u32 l = 0;; l++) {
		struct ext_node *n = &p->n[l];
		int err;

		n->pos = node_search(n->eh, lblk);
		if (l == p->depth)
			return 0;
		if (n->pos < 0)
			n->pos = 0; /* before the first: the leftmost leaf */
		n[1].b = NULL;
		err = path_descend(p, l);
		if (err) {
			p->depth = l;
			ext_path_put(p);
			return err;
		}
	}
}

void ext_path_put(struct ext_path *p)
{
	for (u32 l = 1; l <= p->depth; l++)
		buffer_put(p->n[l].b);
	p->depth = 0;
}

int ext_last_in(struct ext4_inode *ei, u64 from, u64 to, struct ext *out)
{
	struct ext_path p;
	struct ext_node *leaf;
	int err;

	*out = (struct ext){ 0 };
	/* Index entries are first keys: no extent before `to` is in a later leaf. */
	err = ext_find(ei, (lblk_t)(to - 1), &p);
	if (err)
		return err;
	leaf = ext_path_leaf(&p);
	if (leaf->pos >= 0)
		*out = ext_get(leaf->eh, (u32)leaf->pos);
	if (ext_end(out) <= from)
		*out = (struct ext){ 0 };
	ext_path_put(&p);
	return 0;
}

int ext_check_aligned(struct ext4_inode *ei, lblk_t lblk, pblk_t pblk)
{
	const struct ext4_sb *sbi = ext4_sb_of(ei);

	if (ext4_cluster_offset(sbi, lblk) == ext4_cluster_offset(sbi, pblk))
		return 0;
	return ext4_error(ext4_sb_of(ei), ei->vfs.i_ino, pblk, -EFSCORRUPTED,
			  "block %u is at the wrong place in its cluster", lblk);
}

/* What the path, found for map->lblk, says of it. Returns how many blocks
 * before map->lblk it says the same of. */
static u32 map_from_path(struct ext_path *p, struct ext4_map *map)
{
	struct ext_node *leaf = ext_path_leaf(p);
	u32 next = (u32)(leaf->pos + 1);
	u32 before = 0;
	u64 end;

	map->flags = 0;
	map->pblk = 0;
	if (leaf->pos >= 0) {
		struct ext e = ext_get(leaf->eh, (u32)leaf->pos);

		if (map->lblk < ext_end(&e)) {
			map->flags = e.unwritten ? EXT4_MAP_UNWRITTEN : EXT4_MAP_MAPPED;
			map->pblk = e.pblk + (map->lblk - e.lblk);
			map->len = (u32)min_of((u64)map->len, ext_end(&e) - map->lblk);
			return map->lblk - e.lblk;
		}
		before = (u32)(map->lblk - ext_end(&e));
	}
	end = next < eh_entries(leaf->eh) ? ext_key(leaf->eh, next) : leaf->bound;
	/* Without an extent ahead (bound at the very end) the hole has no end. */
	if (end < EXT_LBLK_END)
		map->len = (u32)min_of((u64)map->len, end - map->lblk);
	return before;
}

static enum extent_state map_state(u32 flags)
{
	if (flags & EXT4_MAP_MAPPED)
		return EXTENT_WRITTEN;
	return flags & EXT4_MAP_UNWRITTEN ? EXTENT_UNWRITTEN : EXTENT_HOLE;
}

/*
 * What the leaves of the page cache know. A hole is to be as long as the tree
 * says, for the sake of those who fill it: if its end is not known, no answer.
 */
static bool map_from_records(struct ext4_inode *ei, struct ext4_map *map)
{
	static const u32 flags[] = {
		[EXTENT_HOLE] = 0,
		[EXTENT_UNWRITTEN] = EXT4_MAP_UNWRITTEN,
		[EXTENT_WRITTEN] = EXT4_MAP_MAPPED,
	};
	struct extent_status es;

	if (!mapping_extent_get(&ei->vfs.i_mapping, map->lblk, map->len, &es) ||
	    (es.state == EXTENT_HOLE && es.nr < map->len && es.open))
		return false;
	map->len = es.nr;
	map->pblk = es.pblk;
	map->flags = flags[es.state];
	return true;
}

/* What is entered of an extent that reaches over many leaves. */
#define LEARN_MAX (64u * LEAF_BLOCKS)

/*
 * The leaves learn what was found, while i_data_sem keeps it true: in the
 * leaf of map->lblk also what lies before it. Of a hole no more than that leaf:
 * it may be most of 16 TiB.
 */
static void map_learn(struct ext4_inode *ei, const struct ext4_map *map, u32 before)
{
	u32 most = map->flags ? LEARN_MAX : LEAF_BLOCKS - map->lblk % LEAF_BLOCKS;
	u64 len = min_of(map->len, most);
	u64 end = min_of(map->lblk + len, (u64)EXT_LBLK_END);
	pblk_t pblk = map->pblk;

	before = min_of(before, map->lblk % LEAF_BLOCKS);
	if (map->flags)
		pblk -= before;
	mapping_extent_set(&ei->vfs.i_mapping, map->lblk - before, end,
			   map_state(map->flags), pblk);
}

int ext4_map_blocks(struct ext4_inode *ei, struct ext4_map *map)
{
	u32 room = LEAF_BLOCKS - map->lblk % LEAF_BLOCKS;
	u32 asked = map->len, before = 0;
	struct ext_path p;
	int err;

	assert(map->len > 0);
	if (map_from_records(ei, map))
		return 0;
	mapping_counter_add(ei->vfs.i_sb, MAPPING_EXTENT_LOOKUPS, 1);
	/* To the end of the leaf, so that it learns more than was asked. */
	if (map->lblk <= LBLK_MAX)
		room = (u32)min_of((u64)room, EXT_LBLK_END - map->lblk);
	map->len = max_of(asked, room);
	rwsem_down_read(&ei->i_data_sem);
	if (!ext_inode_has_extents(ei)) {
		err = ext4_ind_map_blocks(ei, map);
	} else {
		err = ext_find(ei, map->lblk, &p);
		if (!err) {
			before = map_from_path(&p, map);
			ext_path_put(&p);
		}
	}
	if (!err)
		map_learn(ei, map, before);
	rwsem_up_read(&ei->i_data_sem);
	map->len = min_of(map->len, asked);
	return err;
}

static u32 ext_depth_unlocked(const struct ext4_inode *cei)
{
	struct ext4_inode *ei = (struct ext4_inode *)(uintptr_t)cei;
	u32 depth;

	rwsem_down_read(&ei->i_data_sem);
	depth = ext_inode_has_extents(ei) ? eh_depth(ext_root(ei)) : 0;
	rwsem_up_read(&ei->i_data_sem);
	return depth;
}

/*
 * Each insertion is counted alone, in a tree one level deeper than now: many
 * insertions must fill a new root before it grows again. Should others make
 * it grow between this call and the insertion, ext4_map_create() extends the
 * handle.
 */
u32 ext4_ext_insert_credits(const struct ext4_inode *ei, u32 n)
{
	u32 depth;

	if (!ext_inode_has_extents(ei))
		return n * IND_STEP_CREDITS + EXT4_INODE_CREDITS;
	depth = min_of(ext_depth_unlocked(ei) + 1 + n / 64, (u32)EXT4_EXT_MAX_DEPTH);

	return n * (ext_insert_step_credits(depth) + EXT4_ALLOC_CREDITS) +
	       EXT4_INODE_CREDITS;
}

u32 ext4_remove_credits(const struct ext4_inode *ei)
{
	u32 depth = ext_depth_unlocked(ei);

	return ext_insert_step_credits(depth) + EXT_REMOVE_GROUPS * EXT4_ALLOC_CREDITS +
	       EXT_SLACK_CREDITS;
}

/*
 * The tree is valid here; others may look at it, and even change other parts
 * of it, while the lock is dropped. Each writes the inode after its own
 * change, in the transaction of that change.
 */
int ext_restart(struct handle *h, struct ext4_inode *ei, u32 blocks, u32 revokes)
{
	int r;

	rwsem_up_write(&ei->i_data_sem);
	r = ext4_mark_inode_datasync(h, ei);
	if (!r)
		r = handle_restart(h, blocks + EXT_SLACK_CREDITS, revokes);
	rwsem_down_write(&ei->i_data_sem);
	return r ? r : 1;
}

int ext_ensure(struct handle *h, struct ext4_inode *ei, u32 blocks, u32 revokes)
{
	int r = handle_ensure(h, blocks + EXT_SLACK_CREDITS, revokes);

	return r == 1 ? ext_restart(h, ei, blocks, revokes) : r;
}

/* The first block of a cluster from blk on. */
static pblk_t ext_next_cluster(const struct ext4_inode *ei, pblk_t blk)
{
	return ALIGN_UP(blk, (pblk_t)1 << ext4_sb_of(ei)->cluster_bits);
}

/* Where blocks for a hole at lblk are best taken; 0: anywhere near the inode. */
static pblk_t create_goal(struct ext_path *p, lblk_t lblk)
{
	const struct ext_node *leaf = ext_path_leaf(p);
	struct ext4_inode *ei = p->ei;
	struct ext e;
	pblk_t goal;

	if (leaf->pos >= 0) {
		e = ext_get(leaf->eh, (u32)leaf->pos);
		goal = ext_next_cluster(ei, e.pblk + e.len);
	} else if (eh_entries(leaf->eh)) {
		u32 ahead;

		e = ext_get(leaf->eh, 0);
		ahead = e.lblk - lblk;
		goal = e.pblk > ahead ? e.pblk - ahead : e.pblk;
	} else {
		goal = atomic_load_explicit(&ei->i_alloc_goal, memory_order_relaxed);
		goal = ext_next_cluster(ei, goal);
	}
	return goal < ext4_sb_of(ei)->blocks_count ? goal : 0;
}

/* Does a hole at lblk begin where all that the file has ends? */
static bool create_at_end(struct ext_path *p, lblk_t lblk)
{
	const struct ext_node *leaf = ext_path_leaf(p);
	struct ext e;

	if ((u32)(leaf->pos + 1) < eh_entries(leaf->eh) || leaf->bound < EXT_LBLK_END)
		return false;
	if (leaf->pos < 0)
		return lblk == 0;
	e = ext_get(leaf->eh, (u32)leaf->pos);
	return ext_end(&e) == lblk;
}

struct create {
	struct handle *h;
	struct ext_path *p;
	u32 data_flags; /* for the allocator */
	u32 meta_flags;
	pblk_t goal;
	struct ext new;
	bool placed;  /* in a cluster that the file has: new.pblk is known */
	u32 clusters; /* allocated for new */
	struct ext_room room;
};

/* Neighbours in the leaf with which c->new makes one extent. */
static bool create_merges_left(const struct create *c)
{
	const struct ext_node *leaf = &c->p->n[c->p->depth];
	struct ext e;

	if (leaf->pos < 0)
		return false;
	e = ext_get(leaf->eh, (u32)leaf->pos);
	return ext_mergeable(&e, &c->new);
}

static bool create_merges_right(const struct create *c)
{
	const struct ext_node *leaf = &c->p->n[c->p->depth];
	struct ext e;

	if ((u32)(leaf->pos + 1) >= eh_entries(leaf->eh))
		return false;
	e = ext_get(leaf->eh, (u32)(leaf->pos + 1));
	return ext_mergeable(&c->new, &e);
}

/* Blocks for c->new, all or some of them, from the allocator. */
static int create_take(struct create *c, pblk_t goal, u32 flags)
{
	struct ext4_inode *ei = c->p->ei;
	const struct ext4_sb *sbi = ext4_sb_of(ei);
	u32 off = ext4_cluster_offset(sbi, c->new.lblk);
	u32 n = (u32)DIV_ROUND_UP((u64)off + c->new.len, (u64)1 << sbi->cluster_bits);
	int err = ext4_alloc_data(c->h, ei, c->new.lblk, goal, c->data_flags | flags,
				  &n, &c->new.pblk);

	if (err)
		return err;
	c->clusters = n;
	c->new.pblk += off;
	c->new.len = (u32)min_of((u64)c->new.len, ((u64)n << sbi->cluster_bits) - off);
	return 0;
}

/*
 * bigalloc: has the cluster of the hole's first block a piece of the file in it? Then
 * that says where the block is, up to the cluster's end. Else c->new ends before a
 * cluster that has.
 */
static int create_in_cluster(struct ext4_inode *ei, struct create *c)
	REQUIRES(&ei->i_data_sem)
{
	u64 size = (u64)1 << ext4_sb_of(ei)->cluster_bits;
	u64 first = ALIGN_DOWN(c->new.lblk, size);
	u64 last = ALIGN_DOWN((u64)c->new.lblk + c->new.len - 1, size);
	struct ext e;
	int err;

	if (size == 1)
		return 0;
	err = ext_last_in(ei, first, first + size, &e);
	if (!err && e.len) {
		err = ext_check_aligned(ei, e.lblk, e.pblk);
		c->placed = true;
		c->new.len = (u32)min_of((u64)c->new.len, first + size - c->new.lblk);
		/* Also down: the extent found may begin behind the hole. */
		c->new.pblk = e.pblk + c->new.lblk - e.lblk;
		if (!err && !ext4_block_range_ok(ext4_sb_of(ei), c->new.pblk, c->new.len))
			err = ext4_error(ext4_sb_of(ei), ei->vfs.i_ino, c->new.pblk,
					 -EFSCORRUPTED, "file and metadata share a cluster");
		return err;
	}
	if (!err && last > first)
		err = ext_last_in(ei, last, last + size, &e);
	if (!err && e.len)
		c->new.len = (u32)(last - c->new.lblk);
	return err;
}

/*
 * The leaf is full, but the new blocks may just lengthen the extent before
 * them: tries to get them there, so that no node is needed. -ENOSPC, -EAGAIN:
 * they are not to be had.
 */
static int create_alloc_behind(struct create *c)
{
	const struct ext_node *leaf = &c->p->n[c->p->depth];
	struct ext4_inode *ei = c->p->ei;
	u32 limit = ext_len_limit(c->new.unwritten);
	struct ext e;
	u32 len;
	int err;

	if (leaf->pos < 0)
		return -ENOSPC;
	e = ext_get(leaf->eh, (u32)leaf->pos);
	if (e.unwritten != c->new.unwritten || ext_end(&e) != c->new.lblk ||
	    e.len >= limit || e.pblk + e.len >= ext4_sb_of(ei)->blocks_count)
		return -ENOSPC;
	/* Its cluster is not ours, so we begin one; as it does, if it is aligned. */
	if (ext4_cluster_offset(ext4_sb_of(ei), c->new.lblk | (e.pblk + e.len)))
		return -ENOSPC;
	len = c->new.len;
	c->new.len = min_of(len, limit - e.len);
	err = create_take(c, e.pblk + e.len, EXT4_ALLOC_EXACT_GOAL);
	if (err)
		c->new.len = len;
	return err;
}

static int create_alloc_data(struct create *c)
{
	return c->placed ? 0 : create_take(c, c->goal, 0);
}

/* Blocks for c->new, and for the nodes it needs. */
static int create_alloc(struct create *c)
{
	struct ext4_inode *ei = c->p->ei;
	int err;

	if (c->placed && (create_merges_left(c) || create_merges_right(c)))
		return 0;
	if (ext_room_needed(c->p)) {
		err = c->placed ? -ENOSPC : create_alloc_behind(c);
		if (err != -ENOSPC && err != -EAGAIN)
			return err;
		err = ext_room_alloc(c->h, c->p, c->meta_flags, &c->room);
		if (!err)
			err = ext_room_buffers(c->h, c->p, &c->room);
		if (err)
			goto out_room;
	}
	err = create_alloc_data(c);
	if (!err && !create_merges_left(c) && !create_merges_right(c))
		return 0;
out_room:
	ext_room_undo(c->h, ei, &c->room);
	return err;
}

/* Enters c->new into the leaf; nothing fails from here on. */
static void create_enter(struct create *c)
{
	struct ext_node *leaf = ext_path_leaf(c->p);
	u32 next = (u32)(leaf->pos + 1);
	struct ext e;

	if (create_merges_left(c)) {
		e = ext_get(leaf->eh, next - 1);
		e.len += c->new.len;
		ext_set(leaf->eh, next - 1, &e);
		ext_merge_pair(leaf->eh, next - 1);
		ext_dirty(c->h, c->p, c->p->depth);
	} else if (create_merges_right(c)) {
		e = ext_get(leaf->eh, next);
		c->new.len += e.len;
		ext_set(leaf->eh, next, &c->new);
		c->new.len -= e.len;
		ext_dirty(c->h, c->p, c->p->depth);
		if (next == 0)
			ext_fix_keys(c->h, c->p, c->p->depth);
	} else {
		ext_insert(c->h, c->p, &c->new, &c->room);
	}
}

static int create_in_hole(struct create *c)
{
	struct ext4_inode *ei = c->p->ei;
	int err;

	/* The true need, should the tree have grown since the handle began. */
	err = handle_ensure(c->h,
			    ext_insert_step_credits(c->p->depth) + EXT4_ALLOC_CREDITS, 0);
	if (err)
		return err < 0 ? err : -EAGAIN;
	err = ext_access(c->h, c->p, ext_insert_top(c->p), c->p->depth);
	if (err)
		return err;
	err = create_alloc(c);
	if (err)
		return err;
	create_enter(c);
	if (c->clusters)
		ext4_inode_add_clusters(c->h, ei, c->clusters);
	atomic_store_explicit(&ei->i_alloc_goal, c->new.pblk + c->new.len,
			      memory_order_relaxed);
	return 0;
}

static int map_create_locked(struct handle *h, struct ext4_inode *ei,
			     struct ext4_map *map, u32 flags)
	REQUIRES(&ei->i_data_sem)
{
	u32 root = flags & EXT4_CREATE_ROOT ? EXT4_ALLOC_ROOT : 0;
	struct create c = { .h = h };
	struct ext_path p;
	int err;

	err = ext_find(ei, map->lblk, &p);
	if (err)
		return err;
	map_from_path(&p, map);
	if (map->flags)
		goto out_path;

	/* With bigalloc nothing is delayed: see write_piece(). */
	assert(!(flags & EXT4_CREATE_DELAYED && ext4_sb_of(ei)->cluster_bits));
	c.p = &p;
	c.meta_flags = root;
	c.data_flags = root | (flags & EXT4_CREATE_DELAYED ? EXT4_ALLOC_DELAYED : 0);
	if (create_at_end(&p, map->lblk))
		c.data_flags |= EXT4_ALLOC_APPEND;
	c.goal = create_goal(&p, map->lblk);
	c.new.lblk = map->lblk;
	c.new.unwritten = flags & EXT4_CREATE_UNWRITTEN;
	c.new.len = min_of(map->len, ext_len_limit(c.new.unwritten));
	err = ext4_may_have(ei, c.new.len);
	if (!err)
		err = create_in_cluster(ei, &c);
	if (!err)
		err = create_in_hole(&c);
	if (err)
		goto out_path;
	map->pblk = c.new.pblk;
	map->len = c.new.len;
	map->flags = EXT4_MAP_NEW |
		     (c.new.unwritten ? EXT4_MAP_UNWRITTEN : EXT4_MAP_MAPPED);
out_path:
	ext_path_put(&p);
	return err;
}

int ext4_map_create(struct handle *h, struct ext4_inode *ei, struct ext4_map *map,
		    u32 flags)
{
	int err;

	assert(map->len > 0);
	if (map->lblk > LBLK_MAX)
		return -EFBIG;
	map->len = (u32)min_of((u64)map->len, EXT_LBLK_END - map->lblk);
	rwsem_down_write(&ei->i_data_sem);
	err = ext_inode_has_extents(ei) ? map_create_locked(h, ei, map, flags)
					: ext4_ind_create(h, ei, map, flags);
	/* The tree first, then the leaves. */
	if (!err)
		map_learn(ei, map, 0);
	rwsem_up_write(&ei->i_data_sem);
	return err;
}
