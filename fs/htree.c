/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/htree.c - indexed directories: search, insertion, splits, conversion
 *
 * An index is a tree of constant height. Its root is block 0 behind "." and
 * "..", the other nodes are blocks that look like one empty record, the
 * leaves are ordinary blocks of entries. An index entry says: names of this
 * hash or above are down there. Slot 0 has no hash of its own; limit and count
 * stand in its place.
 *
 *      block 0: .  ..  | -:1   40:2   7a|1:3 |
 *                         |      |       |
 *                  [0,40)    [40,7a]    [7a, end)
 *
 * Hashes are even. The low bit of an index hash (7a|1 above) is the
 * continuation bit: names with just this hash may also be in the leaf before.
 * A search begins at the last entry with hash <= that of the name, which is
 * the leaf before (7a < 7a|1), and goes on while the next leaf continues it.
 *
 * Insertion goes to the leaf of the search. If that is full, its entries are
 * sorted by hash and the upper half (by bytes) moves to a new block, with
 * the continuation bit if the cut falls between equal hashes. The new leaf
 * needs a slot in the node above; full nodes are halved from the top down, so
 * that each has room when the one below is halved. If all are full, the root
 * moves to a new node (which has 3 more slots) and the tree gets a level.
 * How many blocks that takes is known beforehand; they are allocated and
 * access to all old blocks is had before anything changes.
 *
 * Blocks dirtied by one insertion, at worst: 3 levels with two full nodes:
 * leaf 2, nodes 2 + 2, root 1 = 7, of which 3 are new. Their mapping: one
 * extent-tree split through all levels, 5 old nodes, 5 new ones with bitmap
 * and descriptor each (10), bitmap and descriptor of the 3 blocks (6), inode
 * 1: 27. Together 34, within EXT4_DIR_ADD_CREDITS.
 *
 * A hash version that is unknown, or a node that is inconsistent, makes the
 * directory readable without its index only: see dx_broken().
 *
 * Hostile images: a node and a leaf that are one block are refused when a path
 * is built, so that what is changed as a leaf is not also in use as a node; the
 * ranges of a node must lie within those of the node above, so that a walk
 * over the leaves goes up in hash order and ends.
 *
 * Locks: the directory's i_rwsem, held by the caller.
 * Source: ext4-format brief 7.4, 7.5; Documentation/filesystems/ext4/directory.rst.
 */
#include "fs/dir_internal.h"
#include "lib/crc.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define DX_READAHEAD 16u /* leaves */

/* ------------------------------------------------------------ verification */

u32 dx_limit(const struct ext4_sb *sbi, u32 entries_off)
{
	u32 tail = sbi->has_csum ? (u32)sizeof(struct ext4_dx_tail) : 0;

	return (sbi->s.s_blocksize - entries_off - tail) /
	       (u32)sizeof(struct ext4_dx_entry);
}

/* Levels an index may have, the root included. */
static u32 dx_max_levels(const struct ext4_sb *sbi)
{
	return ext4_has_incompat(sbi, LARGEDIR) ? DX_MAX_LEVELS : 2;
}

u32 dx_csum(const void *data, u32 entries_off, u32 count, u32 limit, u32 seed)
{
	const u8 *p = data;
	const struct ext4_dx_tail *t =
		(const struct ext4_dx_tail *)(p + entries_off +
					      limit * sizeof(struct ext4_dx_entry));
	static const u8 no_csum[4];
	u32 crc;

	crc = crc32c(seed, p, entries_off + count * sizeof(struct ext4_dx_entry));
	crc = crc32c(crc, &t->dt_reserved, sizeof(t->dt_reserved));
	return crc32c(crc, no_csum, sizeof(no_csum));
}

static u32 dx_count(const struct ext4_dx_entry *entries)
{
	return le16_to_cpu(((const struct ext4_dx_countlimit *)entries)->count);
}

static u32 dx_slots(const struct ext4_dx_entry *entries)
{
	return le16_to_cpu(((const struct ext4_dx_countlimit *)entries)->limit);
}

static void dx_set_count(struct ext4_dx_entry *entries, u32 count)
{
	((struct ext4_dx_countlimit *)entries)->count = cpu_to_le16((u16)count);
}

static void dx_set_slots(struct ext4_dx_entry *entries, u32 limit)
{
	((struct ext4_dx_countlimit *)entries)->limit = cpu_to_le16((u16)limit);
}

static u32 dx_hash(const struct ext4_dx_entry *entries, u32 i)
{
	return le32_to_cpu(entries[i].hash);
}

static lblk_t dx_block(const struct ext4_dx_entry *entries, u32 i)
{
	return le32_to_cpu(entries[i].block) & DX_BLOCK_MASK;
}

static int dx_verify_entries(const struct ext4_sb *sbi, const u8 *data,
			     u32 entries_off, u32 seed)
{
	const struct ext4_dx_entry *e =
		(const struct ext4_dx_entry *)(data + entries_off);
	const u32 limit = dx_limit(sbi, entries_off);
	u32 count = dx_count(e), off = entries_off;

	if (dx_slots(e) != limit)
		return dir_verify_failed(off, "wrong limit of the index",
					 -EFSCORRUPTED);
	if (!count || count > limit)
		return dir_verify_failed(off + 2, "wrong count of the index",
					 -EFSCORRUPTED);
	for (u32 i = 0; i < count; i++, off += (u32)sizeof(*e)) {
		if (!dx_block(e, i))
			return dir_verify_failed(off, "index points to its root",
						 -EFSCORRUPTED);
		/* Several leaves may continue one hash: equal, with the bit. */
		if (i > 1 && (dx_hash(e, i) < dx_hash(e, i - 1) ||
			      (dx_hash(e, i) == dx_hash(e, i - 1) &&
			       !(dx_hash(e, i) & 1))))
			return dir_verify_failed(off, "index is out of order",
						 -EFSCORRUPTED);
	}
	if (sbi->has_csum) {
		const struct ext4_dx_tail *t =
			(const struct ext4_dx_tail *)(e + limit);

		if (dx_csum(data, entries_off, count, limit, seed) !=
		    le32_to_cpu(t->dt_checksum))
			return dir_verify_failed(0, "wrong checksum", -EFSBADCRC);
	}
	return 0;
}

static int dx_root_verify(struct super_block *sb, const struct buffer *b,
			  const void *data, u32 seed)
{
	const struct ext4_sb *sbi = EXT4_SB(sb);
	const struct ext4_dir_entry *dot = data;
	const struct ext4_dir_entry *dotdot =
		dir_entry((void *)(uintptr_t)data, DIR_DOT_LEN);
	const struct ext4_dx_root_info *info =
		(const struct ext4_dx_root_info *)((const u8 *)data +
						   2 * DIR_DOT_LEN);
	u32 bs = sb->s_blocksize;
	int err;

	if (dir_rec_len(dot, bs) != DIR_DOT_LEN)
		return dir_verify_failed(0, "index root without \".\"",
					 -EFSCORRUPTED);
	err = dir_verify_entries(sbi, data, bs);
	if (err)
		return err;
	if (!le32_to_cpu(dot->inode) || dot->name_len != 1 ||
	    dot->name[0] != '.')
		return dir_verify_failed(0, "index root without \".\"",
					 -EFSCORRUPTED);
	if (!le32_to_cpu(dotdot->inode) || dotdot->name_len != 2 ||
	    memcmp(dotdot->name, "..", 2) != 0 ||
	    dir_rec_len(dotdot, bs) != bs - DIR_DOT_LEN)
		return dir_verify_failed(DIR_DOT_LEN,
					 "index root without \"..\"",
					 -EFSCORRUPTED);
	if (le32_to_cpu(info->reserved_zero) || info->unused_flags ||
	    info->info_length != sizeof(*info))
		return dir_verify_failed(2 * DIR_DOT_LEN, "unknown index root",
					 -EFSCORRUPTED);
	if (info->indirect_levels >= dx_max_levels(sbi))
		return dir_verify_failed(2 * DIR_DOT_LEN,
					 "index has too many levels",
					 -EFSCORRUPTED);
	return dx_verify_entries(sbi, data, DX_ROOT_ENTRIES, seed);
}

static int dx_node_verify(struct super_block *sb, const struct buffer *b,
			  const void *data, u32 seed)
{
	const struct ext4_sb *sbi = EXT4_SB(sb);
	const struct ext4_dir_entry *fake = data;

	if (le32_to_cpu(fake->inode) || fake->name_len ||
	    dir_rec_len(fake, sb->s_blocksize) != sb->s_blocksize)
		return dir_verify_failed(0, "not an index node", -EFSCORRUPTED);
	return dx_verify_entries(sbi, data, DX_NODE_ENTRIES, seed);
}

const struct buffer_type ext4_dx_root_type = {
	.name = "directory index root",
	.verify = dx_root_verify,
	.freeze = dir_freeze,
};
const struct buffer_type ext4_dx_node_type = {
	.name = "directory index node",
	.verify = dx_node_verify,
	.freeze = dir_freeze,
};

/* ------------------------------------------------------------------- paths */

static struct ext4_dx_root_info *dx_info(struct buffer *root)
{
	return (struct ext4_dx_root_info *)(root->b_data + 2 * DIR_DOT_LEN);
}

/* An error of the index itself: from now on it is not used. */
static int dx_note_broken(struct ext4_inode *dir, int err)
{
	if (dir_err_is_corruption(err) &&
	    !atomic_exchange(&dir->i_index_broken, true))
		log_warn("%s: inode %u: directory index is not used any more: reads go without it, changes are refused",
			 dir->vfs.i_sb->s_id, dir->vfs.i_ino);
	return err;
}

static int dx_fault(struct ext4_inode *dir, const struct buffer *b,
		    const char *why)
{
	return dx_note_broken(dir, ext4_error(ext4_sb_of(dir), dir->vfs.i_ino,
					      b->b_blocknr, -EFSCORRUPTED,
					      "directory index: %s", why));
}

void dx_close(struct dx_path *p)
{
	while (p->loaded)
		buffer_put(p->f[--p->loaded].b);
}

int dx_open(struct ext4_inode *dir, struct dx_path *p)
{
	struct ext4_sb *sbi = ext4_sb_of(dir);
	struct buffer *b;
	lblk_t nr;
	int err;

	p->nr = 0;
	p->loaded = 0;
	err = dir_nr_blocks(dir, &nr);
	if (err)
		return err;
	err = dir_bread(dir, 0, &ext4_dx_root_type, &b);
	if (err)
		return dx_note_broken(dir, err);
	p->f[0] = (struct dx_frame){
		.b = b,
		.entries = (struct ext4_dx_entry *)(b->b_data + DX_ROOT_ENTRIES),
	};
	p->loaded = 1;
	p->nr = dx_info(b)->indirect_levels + 1u;
	p->version = dx_info(b)->hash_version;
	if (p->version > DX_HASH_TEA) {
		err = dx_fault(dir, b, "unknown hash version");
		dx_close(p);
		return err;
	}
	if (sbi->hash_unsigned)
		p->version += DX_HASH_LEGACY_UNSIGNED;
	return 0;
}

/* The block that frame `level` points to; it must be in no frame of the path. */
static int dx_child(struct ext4_inode *dir, struct dx_path *p, u32 level,
		    const struct buffer_type *type, lblk_t *lblk,
		    struct buffer **out)
{
	struct dx_frame *f = &p->f[level];
	lblk_t nr;
	int err;

	*lblk = dx_block(f->entries, f->at);
	err = dir_nr_blocks(dir, &nr);
	if (err)
		return err;
	if (*lblk >= nr)
		return dx_fault(dir, f->b, "block outside the directory");
	err = dir_bread(dir, *lblk, type, out);
	if (err)
		return type == &ext4_dx_node_type ? dx_note_broken(dir, err) : err;
	for (u32 i = 0; i <= level; i++) {
		if (p->f[i].b != *out)
			continue;
		buffer_put(*out);
		*out = NULL;
		return dx_fault(dir, f->b, "block is used twice");
	}
	return 0;
}

/* The range of hashes of the entry that frame `level` follows. */
static u32 dx_low(const struct dx_path *p, u32 level)
{
	do {
		if (p->f[level].at)
			return dx_hash(p->f[level].entries, p->f[level].at);
	} while (level--);
	return 0;
}

static bool dx_high(const struct dx_path *p, u32 level, u32 *hash)
{
	do {
		const struct dx_frame *f = &p->f[level];

		if (f->at + 1 < dx_count(f->entries)) {
			*hash = dx_hash(f->entries, f->at + 1);
			return true;
		}
	} while (level--);
	return false;
}

/* Loads the frame below `level`, which becomes the last one loaded. */
static int dx_load(struct ext4_inode *dir, struct dx_path *p, u32 level)
{
	struct ext4_dx_entry *e;
	struct buffer *b;
	u32 count, high;
	lblk_t lblk;
	int err;

	while (p->loaded > level + 1)
		buffer_put(p->f[--p->loaded].b);
	err = dx_child(dir, p, level, &ext4_dx_node_type, &lblk, &b);
	if (err)
		return err;
	e = (struct ext4_dx_entry *)(b->b_data + DX_NODE_ENTRIES);
	count = dx_count(e);
	if (count > 1 &&
	    (dx_hash(e, 1) < dx_low(p, level) ||
	     (dx_high(p, level, &high) && dx_hash(e, count - 1) > high))) {
		err = dx_fault(dir, b, "node outside the range of its parent");
		buffer_put(b);
		return err;
	}
	p->f[level + 1] = (struct dx_frame){ .b = b, .entries = e };
	p->loaded = level + 2;
	return 0;
}

/* The last entry with hash <= `hash`. */
static u32 dx_search(const struct ext4_dx_entry *entries, u32 hash)
{
	u32 low = 0, high = dx_count(entries); /* answer in [low, high) */

	while (high - low > 1) {
		u32 mid = low + (high - low) / 2;

		if (dx_hash(entries, mid) <= hash)
			low = mid;
		else
			high = mid;
	}
	return low;
}

int dx_descend(struct ext4_inode *dir, struct dx_path *p, u32 hash)
{
	p->f[0].at = dx_search(p->f[0].entries, hash);
	for (u32 level = 0; level + 1 < p->nr; level++) {
		int err = dx_load(dir, p, level);

		if (err)
			return err;
		p->f[level + 1].at = dx_search(p->f[level + 1].entries, hash);
	}
	return 0;
}

int dx_leaf(struct ext4_inode *dir, struct dx_path *p, lblk_t *lblk,
	    struct buffer **out)
{
	return dx_child(dir, p, p->nr - 1, &ext4_dir_leaf_type, lblk, out);
}

u32 dx_this_hash(const struct dx_path *p)
{
	return dx_low(p, p->nr - 1);
}

bool dx_next_hash(const struct dx_path *p, u32 *hash)
{
	return dx_high(p, p->nr - 1, hash);
}

int dx_next(struct ext4_inode *dir, struct dx_path *p)
{
	u32 level = p->nr - 1;

	while (p->f[level].at + 1 >= dx_count(p->f[level].entries)) {
		assert(level > 0);
		level--;
	}
	p->f[level].at++;
	for (; level + 1 < p->nr; level++) {
		int err = dx_load(dir, p, level);

		if (err)
			return err;
	}
	return 0;
}

/*
 * A listing reads leaf after leaf in hash order, which is any order on the
 * device: starts reading the next ones. Errors show when they are used.
 */
void dx_readahead(struct ext4_inode *dir, const struct dx_path *p)
{
	const struct dx_frame *f = &p->f[p->nr - 1];
	u32 count = dx_count(f->entries);

	if (f->at % DX_READAHEAD)
		return;
	for (u32 i = f->at; i < count && i < f->at + DX_READAHEAD; i++) {
		struct ext4_map map = { .lblk = dx_block(f->entries, i),
					.len = 1 };

		if (ext4_map_blocks(dir, &map) || !(map.flags & EXT4_MAP_MAPPED))
			return;
		buffer_readahead(dir->vfs.i_sb, map.pblk, 1);
	}
}

/* --------------------------------------------------------------- searching */

static int dx_name_hash(struct ext4_inode *dir, u32 version, const char *name,
			u32 len, u32 *hash)
{
	struct ext4_dirhash dh;
	int err = ext4_dirhash(name, len, version, ext4_sb_of(dir)->hash_seed,
			       &dh);

	if (!err)
		*hash = dh.major;
	return err;
}

/* From the leaf that the path leads to through all that continue `hash`. */
static int dx_search_leaves(struct ext4_inode *dir, struct dx_path *p, u32 hash,
			    const char *name, u32 len, struct dir_slot *slot,
			    struct dir_room *room)
{
	struct ext4_sb *sbi = ext4_sb_of(dir);
	u32 next;
	int err;

	for (;;) {
		err = dx_leaf(dir, p, &slot->lblk, &slot->b);
		if (err)
			return err;
		if (dir_leaf_find(sbi, slot->b, name, len, &slot->off,
				  &slot->prev, room))
			return 0;
		room = NULL; /* a new name goes into the first or splits it */
		buffer_put(slot->b);
		slot->b = NULL;
		if (!dx_next_hash(p, &next) || next != (hash | 1))
			return -ENOENT;
		err = dx_next(dir, p);
		if (err)
			return err;
	}
}

int dx_find(struct ext4_inode *dir, const char *name, u32 len,
	    struct dir_slot *slot, struct dir_room *room)
{
	struct dx_path p;
	u32 hash;
	int err = dx_open(dir, &p);

	if (err)
		return err;
	err = dx_name_hash(dir, p.version, name, len, &hash);
	if (!err)
		err = dx_descend(dir, &p, hash);
	if (!err)
		err = dx_search_leaves(dir, &p, hash, name, len, slot, room);
	dx_close(&p);
	return err;
}

/* ---------------------------------------------------------- sorting a leaf */

struct dx_map_entry {
	u32 hash;
	u32 off;  /* in the copy */
	u32 size; /* bytes without slack */
};

/* Entries of a leaf in hash order; `copy` is the block as it was. */
struct dx_map {
	struct dx_map_entry *e;
	u8 *copy;
	u32 nr;
	u32 cut;   /* first entry that moves to the new block */
	u32 hash2; /* its hash, with the continuation bit if that is shared */
};

static int dx_map_cmp(const void *va, const void *vb)
{
	const struct dx_map_entry *a = va, *b = vb;

	if (a->hash != b->hash)
		return a->hash < b->hash ? -1 : 1;
	return a->off < b->off ? -1 : a->off > b->off;
}

static void dx_map_free(struct dx_map *m)
{
	free(m->e);
	free(m->copy);
}

/*
 * The place to cut: half of the bytes on either side, an entry more or less.
 * As the block is full but for less than one entry, there are at least 3
 * entries at any block size, and both halves have room for another one.
 */
static void dx_map_cut(struct dx_map *m, u32 blocksize)
{
	u32 moved = 0, cut = m->nr;

	while (cut > 1) {
		u32 size = m->e[cut - 1].size;

		if (moved + size / 2 > blocksize / 2)
			break;
		moved += size;
		cut--;
	}
	if (cut == m->nr)
		cut = m->nr - 1;
	m->cut = cut;
	m->hash2 = m->e[cut].hash | (m->e[cut].hash == m->e[cut - 1].hash);
}

/* The entries of a block from `from` on, sorted and cut. */
static int dx_map_leaf(struct ext4_inode *dir, const void *data, u32 from,
		       u32 version, struct dx_map *m)
{
	struct ext4_sb *sbi = ext4_sb_of(dir);
	u32 bs = sbi->s.s_blocksize;
	int err = 0;

	*m = (struct dx_map){ 0 };
	m->copy = malloc(bs);
	m->e = malloc(bs / EXT4_DIR_REC_LEN(1) * sizeof(*m->e));
	if (!m->copy || !m->e) {
		err = -ENOMEM;
		goto out;
	}
	memcpy(m->copy, data, bs);
	for (u32 off = from; off < dir_usable(sbi) && !err;) {
		struct ext4_dir_entry *de = dir_entry(m->copy, off);

		if (le32_to_cpu(de->inode)) {
			m->e[m->nr].off = off;
			m->e[m->nr].size = EXT4_DIR_REC_LEN(de->name_len);
			err = dx_name_hash(dir, version, de->name, de->name_len,
					   &m->e[m->nr].hash);
			m->nr++;
		}
		off += dir_rec_len(de, bs);
	}
	if (err)
		goto out;
	assert(m->nr >= 2);
	qsort(m->e, m->nr, sizeof(*m->e), dx_map_cmp);
	dx_map_cut(m, bs);
out:
	if (err)
		dx_map_free(m);
	return err;
}

/* A leaf of the entries [from, to) of the map; there is at least one. */
static void dx_map_pack(struct ext4_sb *sbi, const struct dx_map *m, u32 from,
			u32 to, void *data)
{
	u32 off = 0, last = 0;

	dir_leaf_init(sbi, data);
	for (u32 i = from; i < to; i++) {
		memcpy((u8 *)data + off, m->copy + m->e[i].off, m->e[i].size);
		dir_set_rec_len(dir_entry(data, off), m->e[i].size);
		last = off;
		off += m->e[i].size;
	}
	dir_set_rec_len(dir_entry(data, last), dir_usable(sbi) - last);
}

/* Both halves, and the new entry in the one where it belongs. */
static void dx_map_split(struct ext4_sb *sbi, const struct dx_map *m,
			 void *lower, void *upper, u32 hash,
			 const struct dir_new_entry *ne)
{
	dx_map_pack(sbi, m, 0, m->cut, lower);
	dx_map_pack(sbi, m, m->cut, m->nr, upper);
	/* Of a shared hash: to the lower half too, where a search begins. */
	dir_leaf_insert(sbi, hash < m->hash2 ? lower : upper, ne);
}

/* --------------------------------------------------------------- insertion */

static void dx_insert_after(struct dx_frame *f, u32 hash, lblk_t lblk)
{
	u32 count = dx_count(f->entries), at = f->at + 1;

	assert(count < dx_slots(f->entries));
	memmove(&f->entries[at + 1], &f->entries[at],
		(count - at) * sizeof(*f->entries));
	f->entries[at] = (struct ext4_dx_entry){
		.hash = cpu_to_le32(hash),
		.block = cpu_to_le32(lblk),
	};
	dx_set_count(f->entries, count + 1);
}

static struct ext4_dx_entry *dx_node_init(struct ext4_sb *sbi, struct buffer *b)
{
	struct ext4_dx_entry *e =
		(struct ext4_dx_entry *)(b->b_data + DX_NODE_ENTRIES);

	memset(b->b_data, 0, sbi->s.s_blocksize);
	dir_set_rec_len(dir_entry(b->b_data, 0), sbi->s.s_blocksize);
	dx_set_slots(e, dx_limit(sbi, DX_NODE_ENTRIES));
	return e;
}

/* The entries `src` (with the block in slot 0, not its hash) into a new node. */
static void dx_node_fill(struct ext4_dx_entry *dst,
			 const struct ext4_dx_entry *src, u32 count)
{
	dst[0].block = src[0].block;
	memcpy(&dst[1], &src[1], (count - 1) * sizeof(*src));
	dx_set_count(dst, count);
}

/* The root's entries move to the new node b; the path gets a level. */
static void dx_grow_root(struct handle *h, struct ext4_sb *sbi,
			 struct dx_path *p, struct buffer *b, lblk_t lblk)
{
	struct dx_frame *root = &p->f[0];
	struct ext4_dx_entry *e = dx_node_init(sbi, b);

	dx_node_fill(e, root->entries, dx_count(root->entries));
	dx_set_count(root->entries, 1);
	root->entries[0].block = cpu_to_le32(lblk);
	dx_info(root->b)->indirect_levels++;
	handle_dirty(h, b);
	handle_dirty(h, root->b);

	memmove(&p->f[2], &p->f[1], (p->nr - 1) * sizeof(p->f[0]));
	buffer_get(b);
	p->f[1] = (struct dx_frame){ .b = b, .entries = e, .at = root->at };
	root->at = 0;
	p->nr++;
	p->loaded++;
}

/* Halves the full node of `level`, whose parent has room; the path follows. */
static void dx_split_node(struct handle *h, struct ext4_sb *sbi,
			  struct dx_path *p, u32 level, struct buffer *b,
			  lblk_t lblk)
{
	struct dx_frame *f = &p->f[level], *parent = &p->f[level - 1];
	u32 count = dx_count(f->entries), half = count / 2;
	u32 hash2 = dx_hash(f->entries, half);
	struct ext4_dx_entry *e = dx_node_init(sbi, b);

	dx_node_fill(e, &f->entries[half], count - half);
	dx_set_count(f->entries, half);
	dx_insert_after(parent, hash2, lblk);
	handle_dirty(h, b);
	handle_dirty(h, f->b);
	handle_dirty(h, parent->b);

	if (f->at >= half) {
		buffer_get(b);
		buffer_put(f->b);
		*f = (struct dx_frame){ .b = b, .entries = e, .at = f->at - half };
		parent->at++;
	}
}

/* What a split takes. */
struct dx_plan {
	u32 top;      /* lowest node that has room; 0 if the tree grows */
	bool grow;
	u32 nr_new;   /* leaf, nodes */
};

static int dx_make_plan(struct ext4_inode *dir, const struct dx_path *p,
			struct dx_plan *plan)
{
	struct ext4_sb *sbi = ext4_sb_of(dir);
	u32 top = p->nr;

	while (top > 0 && dx_count(p->f[top - 1].entries) ==
				  dx_slots(p->f[top - 1].entries))
		top--;
	plan->grow = top == 0;
	plan->top = plan->grow ? 0 : top - 1;
	plan->nr_new = 1 + (p->nr - 1 - plan->top) + plan->grow;
	if (plan->grow && p->nr >= dx_max_levels(sbi)) {
		log_ratelimited(LOG_LVL_WARN,
				"%s: inode %u: directory index full",
				sbi->s.s_id, dir->vfs.i_ino);
		return -ENOSPC;
	}
	return 0;
}

/*
 * An entry that is in the wrong leaf would put a hash in the wrong place of
 * the index.
 */
static int dx_check_range(struct ext4_inode *dir, const struct dx_path *p,
			  const struct buffer *leaf, const struct dx_map *m)
{
	u32 low = dx_this_hash(p) & ~1u, next;
	u32 last = m->e[m->nr - 1].hash;
	bool ok = m->e[0].hash >= low;

	/* Of a next leaf that continues a hash, that hash is here too. */
	if (dx_next_hash(p, &next) && last >= next)
		ok = false;
	if (ok)
		return 0;
	return ext4_error(ext4_sb_of(dir), dir->vfs.i_ino, leaf->b_blocknr,
			  -EFSCORRUPTED,
			  "directory block with a name outside its hash range");
}

static int dx_split(struct handle *h, struct ext4_inode *dir, struct dx_path *p,
		    struct buffer *leaf, u32 hash, const struct dir_new_entry *ne)
{
	static const struct buffer_type *const types[DIR_NEW_MAX] = {
		&ext4_dir_leaf_type, &ext4_dx_node_type, &ext4_dx_node_type,
		&ext4_dx_node_type,
	};
	struct ext4_sb *sbi = ext4_sb_of(dir);
	struct dx_plan plan;
	struct dir_new fresh;
	struct dx_map map;
	u32 used = 1;
	int err;

	err = dx_make_plan(dir, p, &plan);
	if (err)
		return err;
	err = dx_map_leaf(dir, leaf->b_data, 0, p->version, &map);
	if (err)
		return err;
	err = dx_check_range(dir, p, leaf, &map);
	if (!err)
		err = handle_get_write_access(h, leaf);
	for (u32 l = plan.top; l < p->nr && !err; l++)
		err = handle_get_write_access(h, p->f[l].b);
	if (!err)
		err = dir_grow(h, dir, plan.nr_new, types, 0, &fresh);
	if (err)
		goto out_map;

	/* Nothing fails from here on. */
	if (plan.grow) {
		dx_grow_root(h, sbi, p, fresh.b[used], fresh.first + used);
		used++;
		plan.top = 1;
	}
	for (u32 l = plan.top + 1; l < p->nr; l++, used++)
		dx_split_node(h, sbi, p, l, fresh.b[used], fresh.first + used);
	assert(used == plan.nr_new);
	dx_insert_after(&p->f[p->nr - 1], map.hash2, fresh.first);
	dx_map_split(sbi, &map, leaf->b_data, fresh.b[0]->b_data, hash, ne);
	handle_dirty(h, p->f[p->nr - 1].b);
	handle_dirty(h, leaf);
	handle_dirty(h, fresh.b[0]);
	dir_changed(dir);
	dir_new_put(&fresh);
out_map:
	dx_map_free(&map);
	return err;
}

/* -EEXIST if the name is in `leaf`, that of the path, or in one that continues it. */
static int dx_check_new(struct ext4_inode *dir, const struct dx_path *p,
			struct buffer *leaf, u32 hash,
			const struct dir_new_entry *ne)
{
	struct ext4_sb *sbi = ext4_sb_of(dir);
	struct dx_path walk = *p;
	struct dir_slot slot;
	u32 off, prev, next;
	int err;

	if (dir_block_find(sbi, leaf->b_data, ne->name, ne->len,
			   dir_usable(sbi), &off, &prev))
		return -EEXIST;
	if (!dx_next_hash(p, &next) || next != (hash | 1))
		return 0;
	for (u32 i = 0; i < walk.loaded; i++)
		buffer_get(walk.f[i].b);
	err = dx_next(dir, &walk);
	if (!err)
		err = dx_search_leaves(dir, &walk, hash, ne->name, ne->len,
				       &slot, NULL);
	if (!err) {
		buffer_put(slot.b);
		err = -EEXIST;
	} else if (err == -ENOENT) {
		err = 0;
	}
	dx_close(&walk);
	return err;
}

static int dx_add_path(struct handle *h, struct ext4_inode *dir,
		       struct dx_path *p, const struct dir_new_entry *ne)
{
	struct buffer *leaf;
	lblk_t lblk;
	u32 hash;
	int err;

	err = dx_name_hash(dir, p->version, ne->name, ne->len, &hash);
	if (!err)
		err = dx_descend(dir, p, hash);
	if (!err)
		err = dx_leaf(dir, p, &lblk, &leaf);
	if (err)
		return err;
	err = dx_check_new(dir, p, leaf, hash, ne);
	if (!err && dir_leaf_has_room(ext4_sb_of(dir), leaf->b_data, ne->len))
		err = dir_add_at(h, dir, leaf, ne);
	else if (!err)
		err = dx_split(h, dir, p, leaf, hash, ne);
	buffer_put(leaf);
	return err;
}

int dx_add(struct handle *h, struct ext4_inode *dir,
	   const struct dir_new_entry *ne)
{
	struct dx_path p;
	int err = dx_open(dir, &p);

	if (err)
		return err;
	err = dx_add_path(h, dir, &p, ne);
	dx_close(&p);
	return err;
}

/* -------------------------------------------------------------- conversion */

/* Block 0 becomes a root over the leaves lblk and lblk + 1. */
static void dx_root_init(struct ext4_inode *dir, struct buffer *b,
			 const struct ext4_dir_entry *dot,
			 const struct ext4_dir_entry *dotdot, u32 version,
			 lblk_t lblk, u32 hash2)
{
	struct ext4_sb *sbi = ext4_sb_of(dir);
	struct ext4_dx_entry *e =
		(struct ext4_dx_entry *)(b->b_data + DX_ROOT_ENTRIES);
	struct ext4_dx_root_info *info = dx_info(b);

	memset(b->b_data, 0, sbi->s.s_blocksize);
	memcpy(b->b_data, dot, DIR_DOT_LEN);
	memcpy(b->b_data + DIR_DOT_LEN, dotdot, DIR_DOT_LEN);
	dir_set_rec_len(dir_entry(b->b_data, 0), DIR_DOT_LEN);
	dir_set_rec_len(dir_entry(b->b_data, DIR_DOT_LEN),
			sbi->s.s_blocksize - DIR_DOT_LEN);
	info->hash_version = (u8)version;
	info->info_length = sizeof(*info);
	dx_set_slots(e, dx_limit(sbi, DX_ROOT_ENTRIES));
	dx_set_count(e, 2);
	e[0].block = cpu_to_le32(lblk);
	e[1].hash = cpu_to_le32(hash2);
	e[1].block = cpu_to_le32(lblk + 1);

	/* Found as a root from now on; not verified again, its checksum is stale. */
	mutex_lock(&b->b_lock);
	atomic_fetch_add(&b->b_verify_seq, 1);
	atomic_store(&b->b_type, &ext4_dx_root_type);
	atomic_fetch_add(&b->b_verify_seq, 1);
	mutex_unlock(&b->b_lock);
}

int dx_convert(struct handle *h, struct ext4_inode *dir, struct buffer *b,
	       const struct dir_new_entry *ne)
{
	static const struct buffer_type *const types[] = {
		&ext4_dir_leaf_type, &ext4_dir_leaf_type,
	};
	struct ext4_sb *sbi = ext4_sb_of(dir);
	u32 version = sbi->def_hash_version, hash, dotdot;
	struct dir_new fresh;
	struct dx_map map;
	int err;

	err = dir_check_dots(dir, b, &dotdot);
	if (!err)
		err = dx_name_hash(dir, version, ne->name, ne->len, &hash);
	if (err)
		return err;
	err = dx_map_leaf(dir, b->b_data,
			  dotdot + dir_rec_len(dir_entry(b->b_data, dotdot),
					       sbi->s.s_blocksize),
			  version, &map);
	if (err)
		return err;
	err = handle_get_write_access(h, b);
	if (!err)
		err = dir_grow(h, dir, 2, types, EXT4_INDEX_FL, &fresh);
	if (err)
		goto out_map;

	/* Nothing fails from here on. */
	dx_map_split(sbi, &map, fresh.b[0]->b_data, fresh.b[1]->b_data, hash, ne);
	dx_root_init(dir, b, dir_entry(map.copy, 0),
		     dir_entry(map.copy, dotdot), version % 3, fresh.first,
		     map.hash2);
	handle_dirty(h, fresh.b[0]);
	handle_dirty(h, fresh.b[1]);
	handle_dirty(h, b);
	dir_changed(dir);
	dir_new_put(&fresh);
out_map:
	dx_map_free(&map);
	return err;
}
