/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/dir.c - names in directories: blocks of entries, linear directories, and
 * the functions the rest of fs/ calls
 *
 * A directory is a file of whole blocks; entries tile each block and never
 * cross its end. A linear directory is searched block by block; an indexed
 * one (htree.c) is searched by hash, and its leaves have the same form. An
 * entry is deleted by joining its record to the one before, or by clearing
 * its inode number if it is the first; a new one goes into slack, or the block
 * is compacted first. With metadata_csum a leaf ends with a false entry that
 * carries the checksum.
 *
 * Checks: verify() of the block types below is the only place where entries
 * are checked. Everything after it trusts rec_len and name_len.
 * Checksums: put in when the journal freezes an image, told by the form of
 * the block and not by its type, because the first block of a directory
 * changes from a leaf to a root while an older image of it may wait in the
 * journal. Until then the checksum in memory is stale, so a block that was
 * changed must never be verified again as another type: dir_scan (index
 * ignored) takes cached blocks as what they were checked for.
 * Changes: everything is read, journal access is had, and blocks are
 * allocated before the first byte changes. Those who look without i_rwsem
 * (dir_peek.c) are told by dir_change_begin() and _end().
 *
 * Locks: the directory's i_rwsem, held by the caller. Takes i_data_sem
 * (mapping), i_lock.
 * Source: ext4-format brief 3, 7; Documentation/filesystems/ext4/directory.rst.
 */
#include "fs/dir_internal.h"
#include "lib/crc.h"

#include <assert.h>
#include <string.h>

/* A directory without largedir must stay below 2 GiB. */
#define DIR_MAX_SIZE 0x7FFFFFFFu
#define DIR_READAHEAD 32u

/* ------------------------------------------------------------ verification */

/*
 * verify() must not log, and its result has no room for a reason. The reader
 * that ran it finds the reason here; one that waited for another reader's
 * verify() gets the error alone.
 */
static __thread struct {
	const char *why;
	u32 off;
} dir_reason;

int dir_verify_failed(u32 off, const char *why, int err)
{
	dir_reason.off = off;
	dir_reason.why = why;
	return err;
}

static const char *dir_entry_fault(const struct ext4_sb *sbi,
				   const struct ext4_dir_entry *de, u32 room)
{
	u32 rec_len = dir_rec_len(de, sbi->s.s_blocksize);

	if (rec_len < EXT4_DIR_REC_LEN(1))
		return "record length is too small";
	if (rec_len % EXT4_DIR_PAD)
		return "record length is not a multiple of 4";
	if (rec_len > room)
		return "record crosses the end of the block";
	if (rec_len < EXT4_DIR_REC_LEN(de->name_len))
		return "name is longer than its record";
	if (!le32_to_cpu(de->inode))
		return NULL;
	if (le32_to_cpu(de->inode) > sbi->inodes_count)
		return "inode number out of range";
	if (!de->name_len)
		return "name is empty";
	if (memchr(de->name, 0, de->name_len))
		return "name contains NUL";
	if (memchr(de->name, '/', de->name_len))
		return "name contains a slash";
	return NULL;
}

int dir_verify_entries(const struct ext4_sb *sbi, const void *data, u32 end)
{
	u32 off = 0;

	while (off < end) {
		const struct ext4_dir_entry *de =
			dir_entry((void *)(uintptr_t)data, off);
		const char *why;

		if (end - off < EXT4_DIR_REC_LEN(1))
			return dir_verify_failed(off, "no room for a record",
						 -EFSCORRUPTED);
		why = dir_entry_fault(sbi, de, end - off);
		if (why)
			return dir_verify_failed(off, why, -EFSCORRUPTED);
		off += dir_rec_len(de, sbi->s.s_blocksize);
	}
	return 0;
}

static bool dir_has_tail(const struct ext4_sb *sbi, const void *data)
{
	u32 off = sbi->s.s_blocksize - (u32)sizeof(struct ext4_dir_tail);
	const struct ext4_dir_tail *t =
		(const struct ext4_dir_tail *)((const u8 *)data + off);

	return !le32_to_cpu(t->det_zero) &&
	       le16_to_cpu(t->det_rec_len) == sizeof(*t) && !t->det_zero2 &&
	       t->det_ft == EXT4_FT_DIR_CSUM;
}

int dir_verify_tail(const struct ext4_sb *sbi, const void *data, u32 seed)
{
	u32 off = sbi->s.s_blocksize - (u32)sizeof(struct ext4_dir_tail);
	const struct ext4_dir_tail *t =
		(const struct ext4_dir_tail *)((const u8 *)data + off);

	if (!dir_has_tail(sbi, data))
		return dir_verify_failed(off, "no checksum tail", -EFSCORRUPTED);
	if (crc32c(seed, data, off) != le32_to_cpu(t->det_checksum))
		return dir_verify_failed(off, "wrong checksum", -EFSBADCRC);
	return 0;
}

static int dir_leaf_verify(struct super_block *sb, const struct buffer *b,
			   const void *data, u32 seed)
{
	const struct ext4_sb *sbi = EXT4_SB(sb);
	int err = 0;

	if (sbi->has_csum)
		err = dir_verify_tail(sbi, data, seed);
	if (!err)
		err = dir_verify_entries(sbi, data, dir_usable(sbi));
	return err;
}

/* The false entry of an index node: nothing, as long as the block. */
static bool dir_looks_like_node(const struct ext4_sb *sbi, const void *data)
{
	const struct ext4_dir_entry *de = data;

	return !le32_to_cpu(de->inode) && !de->name_len &&
	       dir_rec_len(de, sbi->s.s_blocksize) == sbi->s.s_blocksize;
}

/* "." and a ".." that hides the rest of the block. */
static bool dir_looks_like_root(const struct ext4_sb *sbi, const void *data)
{
	const struct ext4_dir_entry *dot = data, *dotdot;
	u32 bs = sbi->s.s_blocksize;

	if (dir_rec_len(dot, bs) != DIR_DOT_LEN || dot->name_len != 1 ||
	    dot->name[0] != '.')
		return false;
	dotdot = dir_entry((void *)(uintptr_t)data, DIR_DOT_LEN);
	return dotdot->name_len == 2 &&
	       dir_rec_len(dotdot, bs) == bs - DIR_DOT_LEN;
}

/*
 * A block of a directory whose index can't be trusted: entries that tile it.
 * Checksums of leaves still count; those of index blocks don't matter, as
 * nothing in them is used.
 */
static int dir_any_verify(struct super_block *sb, const struct buffer *b,
			  const void *data, u32 seed)
{
	const struct ext4_sb *sbi = EXT4_SB(sb);

	if (sbi->has_csum && !dir_looks_like_node(sbi, data) &&
	    !dir_looks_like_root(sbi, data))
		return dir_leaf_verify(sb, b, data, seed);
	return dir_verify_entries(sbi, data, sb->s_blocksize);
}

static void dir_freeze_index(const struct ext4_sb *sbi, void *data,
			     u32 entries_off, u32 seed)
{
	const struct ext4_dx_countlimit *cl =
		(const struct ext4_dx_countlimit *)((u8 *)data + entries_off);
	u32 limit = le16_to_cpu(cl->limit);
	struct ext4_dx_tail *t;

	if (limit != dx_limit(sbi, entries_off))
		return; /* not an index block of ours: leave it as it is */
	t = (struct ext4_dx_tail *)((u8 *)data + entries_off +
				    limit * sizeof(struct ext4_dx_entry));
	t->dt_checksum = cpu_to_le32(dx_csum(data, entries_off,
					     le16_to_cpu(cl->count), limit, seed));
}

void dir_freeze(struct super_block *sb, pblk_t blk, void *data, u32 seed)
{
	const struct ext4_sb *sbi = EXT4_SB(sb);
	u32 off = sb->s_blocksize - (u32)sizeof(struct ext4_dir_tail);
	struct ext4_dir_tail *t = (struct ext4_dir_tail *)((u8 *)data + off);

	if (!sbi->has_csum)
		return;
	if (dir_looks_like_node(sbi, data))
		dir_freeze_index(sbi, data, DX_NODE_ENTRIES, seed);
	else if (dir_looks_like_root(sbi, data))
		dir_freeze_index(sbi, data, DX_ROOT_ENTRIES, seed);
	else
		t->det_checksum = cpu_to_le32(crc32c(seed, data, off));
}

const struct buffer_type ext4_dir_leaf_type = {
	.name = "directory block",
	.verify = dir_leaf_verify,
	.freeze = dir_freeze,
};
const struct buffer_type ext4_dir_any_type = {
	.name = "directory block (index ignored)",
	.verify = dir_any_verify,
	.freeze = dir_freeze,
};

/* ----------------------------------------------------------------- reading */

int dir_nr_blocks(struct ext4_inode *dir, lblk_t *nr)
{
	struct ext4_sb *sbi = ext4_sb_of(dir);
	u64 size = dir->vfs.i_size, blocks = size >> sbi->s.s_blocksize_bits;

	if (dir->vfs.i_flags & EXT4_INLINE_DATA_FL)
		return -EOPNOTSUPP;
	if (!size || size & (sbi->s.s_blocksize - 1) || blocks > LBLK_MAX)
		return ext4_error(sbi, dir->vfs.i_ino, 0, -EFSCORRUPTED,
				  "directory has an impossible size of %llu bytes",
				  (unsigned long long)size);
	*nr = (lblk_t)blocks;
	return 0;
}

/* Maps [lblk, lblk + *len): *len is cut to one run. */
static int dir_map(struct ext4_inode *dir, lblk_t lblk, u32 *len, pblk_t *pblk)
{
	struct ext4_map map = { .lblk = lblk, .len = *len };
	int err = ext4_map_blocks(dir, &map);

	if (err)
		return err;
	if (!(map.flags & EXT4_MAP_MAPPED))
		return ext4_error(ext4_sb_of(dir), dir->vfs.i_ino, 0,
				  -EFSCORRUPTED, "directory lblk %u: %s", lblk,
				  map.flags & EXT4_MAP_UNWRITTEN ?
					  "unwritten block" : "hole");
	*len = map.len;
	*pblk = map.pblk;
	return 0;
}

/*
 * A cached block that was checked as a leaf or as part of an index is taken
 * as that: it may have been changed since, and its checksum be stale.
 */
static struct buffer *dir_find_checked(struct ext4_inode *dir, pblk_t pblk)
{
	struct buffer *b = buffer_find(dir->vfs.i_sb, pblk);
	const struct buffer_type *type;

	if (!b)
		return NULL;
	type = atomic_load(&b->b_type);
	if ((type == &ext4_dir_leaf_type || type == &ext4_dx_root_type ||
	     type == &ext4_dx_node_type) &&
	    atomic_load(&b->b_seed) == dir->i_csum_seed)
		return b;
	buffer_put(b);
	return NULL;
}

static int dir_bread_at(struct ext4_inode *dir, lblk_t lblk, pblk_t pblk,
			const struct buffer_type *type, struct buffer **out)
{
	struct ext4_sb *sbi = ext4_sb_of(dir);
	int err;

	if (type == &ext4_dir_any_type) {
		*out = dir_find_checked(dir, pblk);
		if (*out)
			return 0;
	}
	dir_reason.why = NULL;
	dir_reason.off = 0;
	err = buffer_read(&sbi->s, pblk, type, dir->i_csum_seed, out);
	if (!err && type != &ext4_dir_any_type)
		dir_map_note(dir, lblk, pblk);
	if (!err || err == -ENOMEM || err == -EROFS)
		return err;
	return ext4_error(sbi, dir->vfs.i_ino, pblk, err,
			  "%s, lblk %u, offset %u: %s", type->name, lblk,
			  dir_reason.off,
			  dir_reason.why ? dir_reason.why : "could not be read");
}

int dir_bread(struct ext4_inode *dir, lblk_t lblk,
	      const struct buffer_type *type, struct buffer **out)
{
	pblk_t pblk = dir_map_get(dir, lblk);
	u32 len = 1;
	int err;

	/* Mostly it was read, and checked, before; and it stays where it is. */
	if (pblk && type != &ext4_dir_any_type) {
		*out = buffer_find_checked(dir->vfs.i_sb, pblk, type, dir->i_csum_seed);
		if (*out)
			return 0;
	}
	err = dir_map(dir, lblk, &len, &pblk);
	if (err)
		return err;
	return dir_bread_at(dir, lblk, pblk, type, out);
}

int dir_scan_start(struct dir_scan *sc, struct ext4_inode *dir, bool any)
{
	*sc = (struct dir_scan){
		.dir = dir,
		.type = any ? &ext4_dir_any_type : &ext4_dir_leaf_type,
	};
	return dir_nr_blocks(dir, &sc->nr);
}

int dir_scan_next(struct dir_scan *sc, struct buffer **out, lblk_t *lblk)
{
	int err;

	*out = NULL;
	if (sc->lblk >= sc->nr)
		return 0;
	if (sc->lblk >= sc->run_end) {
		u32 len = min_of(sc->nr - sc->lblk, DIR_READAHEAD);

		err = dir_map(sc->dir, sc->lblk, &len, &sc->run_pblk);
		if (err)
			return err;
		sc->run = sc->lblk;
		sc->run_end = sc->lblk + len;
		if (len > 1)
			buffer_readahead(sc->dir->vfs.i_sb, sc->run_pblk, len);
	}
	err = dir_bread_at(sc->dir, sc->lblk, sc->run_pblk + (sc->lblk - sc->run),
			   sc->type, out);
	if (err)
		return err;
	*lblk = sc->lblk++;
	return 0;
}

u32 dir_entries_end(const struct ext4_sb *sbi, const struct buffer *b)
{
	const struct buffer_type *type = atomic_load(&b->b_type);

	if (type == &ext4_dir_leaf_type)
		return dir_usable(sbi);
	if (type == &ext4_dx_node_type || dir_looks_like_node(sbi, b->b_data))
		return 0;
	if (type == &ext4_dx_root_type || dir_looks_like_root(sbi, b->b_data))
		return sbi->s.s_blocksize;
	return dir_usable(sbi);
}

int dir_check_dots(struct ext4_inode *dir, struct buffer *b, u32 *off)
{
	struct ext4_sb *sbi = ext4_sb_of(dir);
	struct ext4_dir_entry *dot = dir_entry(b->b_data, 0), *dotdot;
	u32 end = dir_entries_end(sbi, b);
	u32 second = dir_rec_len(dot, sbi->s.s_blocksize);

	if (!end || !le32_to_cpu(dot->inode) || dot->name_len != 1 ||
	    dot->name[0] != '.')
		return ext4_error(sbi, dir->vfs.i_ino, b->b_blocknr,
				  -EFSCORRUPTED,
				  "directory lblk 0, offset 0: no \".\"");
	dotdot = dir_entry(b->b_data, second);
	if (second >= end || !le32_to_cpu(dotdot->inode) ||
	    dotdot->name_len != 2 || memcmp(dotdot->name, "..", 2) != 0)
		return ext4_error(sbi, dir->vfs.i_ino, b->b_blocknr,
				  -EFSCORRUPTED,
				  "directory lblk 0, offset %u: no \"..\"",
				  second);
	*off = second;
	return 0;
}

/* -------------------------------------------------------- entries of a leaf */

/*
 * The last bytes of a name: names in one directory are often alike but for
 * their ends, and a word is compared without a call.
 */
static inline u32 name_end(const char *name, u32 len)
{
	u32 word = 0;

	if (len >= sizeof(word))
		memcpy(&word, name + len - sizeof(word), sizeof(word));
	return word;
}

static inline u32 dir_entry_used(const struct ext4_dir_entry *de)
{
	return le32_to_cpu(de->inode) ? EXT4_DIR_REC_LEN(de->name_len) : 0;
}

/* need > 0: the first record before the name with so much to spare is *room, else
 * DIR_NO_ENTRY. (A constant 0 leaves that out of the loop.) */
static inline bool block_find(const struct ext4_sb *sbi, void *data, const char *name,
			      u32 len, u32 end, u32 *off, u32 *prev, u32 need,
			      u32 *room)
{
	u32 bs = sbi->s.s_blocksize, before = DIR_NO_ENTRY;
	u32 last = name_end(name, len);
	u32 at = 0;

	*room = DIR_NO_ENTRY;
	while (at < end) {
		struct ext4_dir_entry *de = dir_entry(data, at);
		u32 rec_len = dir_rec_len(de, bs);

		if (de->name_len == len && name_end(de->name, len) == last &&
		    le32_to_cpu(de->inode) && memcmp(de->name, name, len) == 0) {
			*off = at;
			*prev = before;
			return true;
		}
		if (need && rec_len >= need && *room == DIR_NO_ENTRY &&
		    rec_len - dir_entry_used(de) >= need)
			*room = at;
		before = at;
		at += rec_len;
	}
	return false;
}

bool dir_block_find(struct ext4_sb *sbi, void *data, const char *name, u32 len,
		    u32 end, u32 *off, u32 *prev)
{
	u32 room;

	return block_find(sbi, data, name, len, end, off, prev, 0, &room);
}

bool dir_leaf_find(struct ext4_sb *sbi, struct buffer *b, const char *name, u32 len,
		   u32 *off, u32 *prev, struct dir_room *room)
{
	u32 end = dir_usable(sbi), at;
	bool found;

	if (!room || room->b)
		return dir_block_find(sbi, b->b_data, name, len, end, off, prev);
	found = block_find(sbi, b->b_data, name, len, end, off, prev, room->need, &at);
	if (!found && at != DIR_NO_ENTRY) {
		buffer_get(b);
		room->b = b;
		room->off = at;
	}
	return found;
}

/*
 * The first record with slack for `need` bytes. If there is none, *used: bytes
 * in use.
 */
static u32 dir_leaf_slack(struct ext4_sb *sbi, void *data, u32 need, u32 *used)
{
	u32 end = dir_usable(sbi);

	*used = 0;
	for (u32 at = 0; at < end;) {
		struct ext4_dir_entry *de = dir_entry(data, at);
		u32 rec_len = dir_rec_len(de, sbi->s.s_blocksize);
		u32 in_use = dir_entry_used(de);

		if (rec_len - in_use >= need)
			return at;
		*used += in_use;
		at += rec_len;
	}
	return DIR_NO_ENTRY;
}

bool dir_leaf_has_room(struct ext4_sb *sbi, void *data, u32 len)
{
	u32 need = EXT4_DIR_REC_LEN(len), used;

	return dir_leaf_slack(sbi, data, need, &used) != DIR_NO_ENTRY ||
	       used + need <= dir_usable(sbi);
}

/* Moves the entries together; the last one gets all the slack. */
static void dir_leaf_compact(struct ext4_sb *sbi, void *data)
{
	u32 end = dir_usable(sbi), to = 0, last = 0;

	for (u32 at = 0; at < end;) {
		struct ext4_dir_entry *de = dir_entry(data, at);
		u32 rec_len = dir_rec_len(de, sbi->s.s_blocksize);
		u32 used = dir_entry_used(de);

		if (used) {
			memmove((u8 *)data + to, de, used);
			dir_set_rec_len(dir_entry(data, to), used);
			last = to;
			to += used;
		}
		at += rec_len;
	}
	memset((u8 *)data + to, 0, end - to);
	dir_set_rec_len(dir_entry(data, last), end - last);
}

static void dir_entry_fill(struct ext4_sb *sbi, struct ext4_dir_entry *de,
			   const struct dir_new_entry *ne)
{
	de->inode = cpu_to_le32(ne->ino);
	de->name_len = (u8)ne->len;
	de->file_type = ext4_has_incompat(sbi, FILETYPE) ? ne->ftype : 0;
	memcpy(de->name, ne->name, ne->len);
}

/* Into the record at `at`, which has room. */
static void dir_insert_at(struct ext4_sb *sbi, void *data, u32 at,
			  const struct dir_new_entry *ne)
{
	struct ext4_dir_entry *de = dir_entry(data, at);
	u32 used = dir_entry_used(de), rec_len = dir_rec_len(de, sbi->s.s_blocksize);

	assert(rec_len - used >= EXT4_DIR_REC_LEN(ne->len));
	if (used) {
		dir_set_rec_len(de, used);
		de = dir_entry(data, at + used);
		dir_set_rec_len(de, rec_len - used);
	}
	dir_entry_fill(sbi, de, ne);
}

void dir_leaf_insert(struct ext4_sb *sbi, void *data,
		     const struct dir_new_entry *ne)
{
	u32 need = EXT4_DIR_REC_LEN(ne->len), used, at;

	at = dir_leaf_slack(sbi, data, need, &used);
	if (at == DIR_NO_ENTRY) {
		dir_leaf_compact(sbi, data);
		at = dir_leaf_slack(sbi, data, need, &used);
	}
	assert(at != DIR_NO_ENTRY);
	dir_insert_at(sbi, data, at, ne);
}

void dir_leaf_init(struct ext4_sb *sbi, void *data)
{
	u32 end = dir_usable(sbi);

	memset(data, 0, sbi->s.s_blocksize);
	dir_set_rec_len(dir_entry(data, 0), end);
	if (sbi->has_csum) {
		struct ext4_dir_tail *t =
			(struct ext4_dir_tail *)((u8 *)data + end);

		t->det_rec_len = cpu_to_le16(sizeof(*t));
		t->det_ft = EXT4_FT_DIR_CSUM;
	}
}

static void dir_leaf_delete(struct ext4_sb *sbi, void *data, u32 off, u32 prev)
{
	u32 bs = sbi->s.s_blocksize;
	struct ext4_dir_entry *de = dir_entry(data, off);
	u32 rec_len = dir_rec_len(de, bs);

	/* No trace of the name stays in slack. */
	de->inode = cpu_to_le32(0);
	de->file_type = 0;
	memset(de->name, 0, de->name_len);
	de->name_len = 0;
	if (prev != DIR_NO_ENTRY) {
		struct ext4_dir_entry *before = dir_entry(data, prev);

		memset(de, 0, sizeof(*de));
		dir_set_rec_len(before, dir_rec_len(before, bs) + rec_len);
	}
}

/* ---------------------------------------------------------------- searching */

/* room: as in dx_find(); NULL with `any`. */
static int dir_linear_find(struct ext4_inode *dir, const char *name, u32 len,
			   bool any, struct dir_slot *slot, struct dir_room *room)
{
	struct ext4_sb *sbi = ext4_sb_of(dir);
	struct dir_scan sc;
	int err = dir_scan_start(&sc, dir, any);

	while (!err) {
		err = dir_scan_next(&sc, &slot->b, &slot->lblk);
		if (err || !slot->b)
			break;
		if (any ? dir_block_find(sbi, slot->b->b_data, name, len,
					 dir_entries_end(sbi, slot->b),
					 &slot->off, &slot->prev) :
			  dir_leaf_find(sbi, slot->b, name, len, &slot->off,
					&slot->prev, room))
			return 0;
		buffer_put(slot->b);
		slot->b = NULL;
	}
	return err ? err : -ENOENT;
}

/* Block 0: a root of an index, or a leaf. */
static int dir_bread_first(struct ext4_inode *dir, struct buffer **out)
{
	const struct buffer_type *type = &ext4_dir_leaf_type;
	lblk_t nr;
	int err = dir_nr_blocks(dir, &nr);

	if (err)
		return err;
	if (ext4_dir_is_indexed(dir))
		type = dx_broken(dir) ? &ext4_dir_any_type : &ext4_dx_root_type;
	err = dir_bread(dir, 0, type, out);
	if (type == &ext4_dx_root_type && dir_err_is_corruption(err)) {
		atomic_store(&dir->i_index_broken, true);
		err = dir_bread(dir, 0, &ext4_dir_any_type, out);
	}
	return err;
}

static int dir_dots_find(struct ext4_inode *dir, u32 len, struct dir_slot *slot)
{
	int err = dir_bread_first(dir, &slot->b);

	if (err)
		return err;
	err = dir_check_dots(dir, slot->b, &slot->off);
	if (err) {
		buffer_put(slot->b);
		slot->b = NULL;
		return err;
	}
	slot->lblk = 0;
	slot->prev = 0;
	if (len == 1)
		slot->off = 0;
	return 0;
}

/* For reading: without the index if that is broken. */
static int dir_lookup(struct ext4_inode *dir, const char *name, u32 len,
		      struct dir_slot *slot, struct dir_room *room)
{
	int err;

	slot->b = NULL;
	if (!len)
		return -ENOENT;
	if (len > EXT4_NAME_LEN)
		return -ENAMETOOLONG;
	if (dir_is_dots(name, len))
		return dir_dots_find(dir, len, slot);
	if (!ext4_dir_is_indexed(dir))
		return dir_linear_find(dir, name, len, false, slot, room);
	if (!dx_broken(dir)) {
		err = dx_find(dir, name, len, slot, room);
		if (!dir_err_is_corruption(err) || !dx_broken(dir))
			return err;
	}
	return dir_linear_find(dir, name, len, true, slot, NULL);
}

/* May the directory be changed at all? */
static int dir_check_writable(struct ext4_inode *dir)
{
	if (ext4_dir_is_indexed(dir) && dx_broken(dir))
		return ext4_error(ext4_sb_of(dir), dir->vfs.i_ino, 0,
				  -EFSCORRUPTED,
				  "directory with a broken index can't be changed");
	return 0;
}

/* The entry of a name that is to be changed, with write access. */
static int dir_lookup_write(struct handle *h, struct ext4_inode *dir,
			    const char *name, u32 len, struct dir_slot *slot)
{
	int err;

	slot->b = NULL;
	err = dir_check_writable(dir);
	if (err)
		return err;
	err = dir_lookup(dir, name, len, slot, NULL);
	if (err)
		return err;
	/* The lookup may have found the index broken just now. */
	err = dir_check_writable(dir);
	if (!err)
		err = handle_get_write_access(h, slot->b);
	if (err) {
		buffer_put(slot->b);
		slot->b = NULL;
	}
	return err;
}

/* ------------------------------------------------------------------ growing */

void dir_changed(struct ext4_inode *dir)
{
	spin_lock(&dir->vfs.i_lock);
	dir->vfs.i_version++;
	spin_unlock(&dir->vfs.i_lock);
}

void dir_new_put(struct dir_new *n)
{
	for (u32 i = 0; i < n->nr; i++)
		buffer_put(n->b[i]);
	n->nr = 0;
}

/* Takes back [first, ...): allocated in this handle, never used. */
static void dir_grow_undo(struct handle *h, struct ext4_inode *dir,
			  struct dir_new *n)
{
	int err;

	dir_map_forget(dir, n->first);
	for (u32 i = 0; i < n->nr; i++)
		buffer_detach(n->b[i]);
	dir_new_put(n);
	err = ext4_remove_blocks(h, dir, n->first, (u64)LBLK_MAX + 1, false);
	if (!err)
		err = ext4_mark_inode_dirty(h, dir);
	if (err && err != -EROFS)
		(void)ext4_error(ext4_sb_of(dir), dir->vfs.i_ino, 0, err,
				 "can't give back new directory blocks from lblk %u on",
				 n->first);
}

static void dir_set_geometry(struct ext4_inode *dir, u64 size, u32 flags)
{
	spin_lock(&dir->vfs.i_lock);
	dir->vfs.i_flags = flags;
	spin_unlock(&dir->vfs.i_lock);
	ext4_set_size(dir, size);
	rwsem_down_write(&dir->i_data_sem);
	dir->i_disksize = size;
	rwsem_up_write(&dir->i_data_sem);
}

/* Allocates up to `want` blocks at lblk as one run; *got. */
static int dir_map_new(struct handle *h, struct ext4_inode *dir, lblk_t lblk,
		       u32 want, pblk_t *pblk, u32 *got)
{
	struct ext4_map map = { .lblk = lblk, .len = want };
	int err = ext4_map_create(h, dir, &map, 0);

	*got = 0;
	if (err)
		return err;
	if (!(map.flags & EXT4_MAP_NEW))
		return ext4_error(ext4_sb_of(dir), dir->vfs.i_ino, map.pblk,
				  -EFSCORRUPTED,
				  "directory lblk %u: mapped beyond the end", lblk);
	assert(map.len && map.len <= want);
	*pblk = map.pblk;
	*got = map.len;
	return 0;
}

static int dir_grow_buffers(struct handle *h, struct ext4_inode *dir, u32 nr,
			    const struct buffer_type *const *types,
			    const pblk_t *pblk, struct dir_new *out)
{
	int err;

	for (u32 i = 0; i < nr; i++) {
		err = buffer_get_zeroed(dir->vfs.i_sb, pblk[i], types[i],
					dir->i_csum_seed, &out->b[i]);
		if (err)
			return err;
		out->nr++;
	}
	for (u32 i = 0; i < nr; i++) {
		err = handle_get_create_access(h, out->b[i]);
		if (err)
			return err;
	}
	return 0;
}

int dir_grow(struct handle *h, struct ext4_inode *dir, u32 nr,
	     const struct buffer_type *const *types, u32 set_flags,
	     struct dir_new *out)
{
	struct ext4_sb *sbi = ext4_sb_of(dir);
	u64 old_size = dir->vfs.i_size;
	u64 size = old_size + ((u64)nr << sbi->s.s_blocksize_bits);
	u32 old_flags = dir->vfs.i_flags, have = 0;
	pblk_t pblk[DIR_NEW_MAX];
	int err;

	assert(nr && nr <= DIR_NEW_MAX);
	*out = (struct dir_new){
		.first = (lblk_t)(old_size >> sbi->s.s_blocksize_bits),
	};
	if ((size > DIR_MAX_SIZE && !ext4_has_incompat(sbi, LARGEDIR)) ||
	    size >> sbi->s.s_blocksize_bits > DX_BLOCK_MASK) {
		log_ratelimited(LOG_LVL_WARN,
				"%s: inode %u: directory can't grow beyond %llu bytes",
				sbi->s.s_id, dir->vfs.i_ino,
				(unsigned long long)old_size);
		return -ENOSPC;
	}
	/* The block that reaches the bound may still come, as with the kernel. */
	if (sbi->opts.max_dir_size_kb &&
	    (size - sbi->s.s_blocksize) >> 10 >= sbi->opts.max_dir_size_kb)
		return -ENOSPC;
	while (have < nr) {
		pblk_t start;
		u32 got;

		err = dir_map_new(h, dir, out->first + have, nr - have, &start,
				  &got);
		if (err && !have)
			return err; /* nothing was allocated */
		if (err)
			goto out_undo;
		for (u32 i = 0; i < got; i++)
			pblk[have + i] = start + i;
		have += got;
	}
	err = dir_grow_buffers(h, dir, nr, types, pblk, out);
	if (err)
		goto out_undo;
	dir_set_geometry(dir, size, old_flags | set_flags);
	err = ext4_mark_inode_dirty(h, dir);
	if (err)
		goto out_geometry;
	return 0;

out_geometry:
	dir_set_geometry(dir, old_size, old_flags);
out_undo:
	dir_grow_undo(h, dir, out);
	return err;
}

/* ---------------------------------------------------------- linear insertion */

int dir_add_at(struct handle *h, struct ext4_inode *dir, struct buffer *b,
	       const struct dir_new_entry *ne)
{
	int err = handle_get_write_access(h, b);

	if (err)
		return err;
	dir_leaf_insert(ext4_sb_of(dir), b->b_data, ne);
	handle_dirty(h, b);
	dir_changed(dir);
	return 0;
}

static int dir_add_grown(struct handle *h, struct ext4_inode *dir,
			 const struct dir_new_entry *ne)
{
	static const struct buffer_type *const leaf[] = { &ext4_dir_leaf_type };
	struct ext4_sb *sbi = ext4_sb_of(dir);
	struct dir_new fresh;
	int err = dir_grow(h, dir, 1, leaf, 0, &fresh);

	if (err)
		return err;
	dir_leaf_init(sbi, fresh.b[0]->b_data);
	dir_leaf_insert(sbi, fresh.b[0]->b_data, ne);
	handle_dirty(h, fresh.b[0]);
	dir_changed(dir);
	dir_new_put(&fresh);
	return 0;
}

/*
 * Looks through all blocks for the name, and for the first block with room:
 * *room, referenced, or NULL.
 */
static int dir_find_room(struct ext4_inode *dir, const struct dir_new_entry *ne,
			 struct buffer **room)
{
	struct ext4_sb *sbi = ext4_sb_of(dir);
	u32 end = dir_usable(sbi), off, prev;
	struct dir_scan sc;
	struct buffer *b;
	lblk_t lblk;
	int err;

	*room = NULL;
	err = dir_scan_start(&sc, dir, false);
	while (!err) {
		err = dir_scan_next(&sc, &b, &lblk);
		if (err || !b)
			break;
		if (dir_block_find(sbi, b->b_data, ne->name, ne->len, end, &off,
				   &prev))
			err = -EEXIST;
		if (!err && !*room &&
		    dir_leaf_has_room(sbi, b->b_data, ne->len))
			*room = b;
		else
			buffer_put(b);
	}
	if (err) {
		buffer_put(*room);
		*room = NULL;
	}
	return err;
}

static int dir_linear_add(struct handle *h, struct ext4_inode *dir,
			  const struct dir_new_entry *ne)
{
	struct ext4_sb *sbi = ext4_sb_of(dir);
	struct buffer *b;
	lblk_t nr;
	int err;

	err = dir_find_room(dir, ne, &b);
	if (err)
		return err;
	if (b) {
		err = dir_add_at(h, dir, b, ne);
		buffer_put(b);
		return err;
	}
	err = dir_nr_blocks(dir, &nr);
	if (err)
		return err;
	if (nr > 1 || !ext4_has_compat(sbi, DIR_INDEX))
		return dir_add_grown(h, dir, ne);
	err = dir_bread(dir, 0, &ext4_dir_leaf_type, &b);
	if (err)
		return err;
	err = dx_convert(h, dir, b, ne);
	buffer_put(b);
	return err;
}

/* --------------------------------------------------------------- the contract */

bool ext4_dir_is_indexed(const struct ext4_inode *dir)
{
	return (dir->vfs.i_flags & EXT4_INDEX_FL) != 0;
}

static u8 dir_ftype(const struct ext4_sb *sbi, const struct ext4_dir_entry *de)
{
	if (!ext4_has_incompat(sbi, FILETYPE) || de->file_type >= EXT4_FT_MAX)
		return EXT4_FT_UNKNOWN;
	return de->file_type;
}

int ext4_dir_find(struct ext4_inode *dir, const char *name, u32 len,
		  ino_nr *ino, u8 *ftype)
{
	struct ext4_dir_entry *de;
	struct dir_slot slot;
	int err;

	if (dir->i_inline)
		return ext4_inline_find(dir, name, len, ino, ftype);
	err = dir_lookup(dir, name, len, &slot, NULL);
	if (err)
		return err;
	de = dir_entry(slot.b->b_data, slot.off);
	*ino = le32_to_cpu(de->inode);
	*ftype = dir_ftype(ext4_sb_of(dir), de);
	buffer_put(slot.b);
	return 0;
}

int ext4_dir_find_place(struct ext4_inode *dir, const char *name, u32 len,
			ino_nr *ino, u8 *ftype, struct ext4_dir_place *place)
{
	struct dir_room room = { .need = EXT4_DIR_REC_LEN(len) };
	struct ext4_dir_entry *de;
	struct dir_slot slot;
	int err;

	*place = (struct ext4_dir_place){
		.seq = atomic_load_explicit(&dir->i_dir_seq, memory_order_relaxed),
	};
	if (dir->i_inline)
		return ext4_inline_find(dir, name, len, ino, ftype);
	err = dir_lookup(dir, name, len, &slot, &room);
	if (err == -ENOENT) {
		place->b = room.b;
		place->off = room.off;
		return err;
	}
	buffer_put(room.b);
	if (err)
		return err;
	de = dir_entry(slot.b->b_data, slot.off);
	*ino = le32_to_cpu(de->inode);
	*ftype = dir_ftype(ext4_sb_of(dir), de);
	place->b = slot.b;
	place->off = slot.off;
	place->prev = slot.prev;
	place->found = true;
	return 0;
}

void ext4_dir_place_put(struct ext4_dir_place *place)
{
	buffer_put(place->b);
	place->b = NULL;
}

/*
 * Whether the place says how the name stands now. Names and blocks change with
 * i_rwsem held and the counter raised; who holds it since has only to know that he
 * did not do so himself.
 */
static bool dir_place_is_good(const struct ext4_inode *dir,
			      const struct ext4_dir_place *place, bool found)
{
	return place && place->b && place->found == found && !dir->i_inline &&
	       place->seq == atomic_load_explicit(&dir->i_dir_seq,
						  memory_order_relaxed);
}

static int dir_place_add(struct handle *h, struct ext4_inode *dir,
			 const struct ext4_dir_place *place,
			 const struct dir_new_entry *ne)
{
	int err = handle_get_write_access(h, place->b);

	if (err)
		return err;
	dir_change_begin(dir);
	dir_insert_at(ext4_sb_of(dir), place->b->b_data, place->off, ne);
	dir_change_end(dir);
	handle_dirty(h, place->b);
	dir_changed(dir);
	return 0;
}

int ext4_dir_add(struct handle *h, struct ext4_inode *dir, const char *name,
		 u32 len, ino_nr ino, u8 ftype)
{
	return ext4_dir_add_place(h, dir, NULL, name, len, ino, ftype);
}

int ext4_dir_add_place(struct handle *h, struct ext4_inode *dir,
		       const struct ext4_dir_place *place, const char *name,
		       u32 len, ino_nr ino, u8 ftype)
{
	struct dir_new_entry ne = {
		.name = name, .len = len, .ino = ino, .ftype = ftype,
	};
	int err;

	assert(ino);
	if (!len || memchr(name, 0, len) || memchr(name, '/', len))
		return -EINVAL;
	if (len > EXT4_NAME_LEN)
		return -ENAMETOOLONG;
	if (dir_is_dots(name, len))
		return -EEXIST;
	err = dir_check_writable(dir);
	if (err)
		return err;
	if (place && dir_place_is_good(dir, place, false))
		return dir_place_add(h, dir, place, &ne);
	dir_change_begin(dir);
	err = ext4_dir_is_indexed(dir) ? dx_add(h, dir, &ne) :
					 dir_linear_add(h, dir, &ne);
	dir_change_end(dir);
	return err;
}

/* dir_lookup_write() of what was found before. */
static int dir_place_write(struct handle *h, struct ext4_inode *dir,
			   const struct ext4_dir_place *place, struct dir_slot *slot)
{
	int err = dir_check_writable(dir);

	if (!err)
		err = handle_get_write_access(h, place->b);
	if (err)
		return err;
	buffer_get(place->b);
	*slot = (struct dir_slot){ .b = place->b, .off = place->off,
				   .prev = place->prev };
	return 0;
}

int ext4_dir_remove(struct handle *h, struct ext4_inode *dir, const char *name,
		    u32 len, ino_nr ino)
{
	return ext4_dir_remove_place(h, dir, NULL, name, len, ino);
}

int ext4_dir_remove_place(struct handle *h, struct ext4_inode *dir,
			  const struct ext4_dir_place *place, const char *name,
			  u32 len, ino_nr ino)
{
	struct dir_slot slot;
	int err;

	if (len && dir_is_dots(name, len))
		return -EINVAL;
	err = place && dir_place_is_good(dir, place, true) ?
		      dir_place_write(h, dir, place, &slot) :
		      dir_lookup_write(h, dir, name, len, &slot);
	if (err)
		return err;
	if (le32_to_cpu(dir_entry(slot.b->b_data, slot.off)->inode) != ino) {
		err = -ENOENT;
		goto out_put;
	}
	dir_change_begin(dir);
	dir_leaf_delete(ext4_sb_of(dir), slot.b->b_data, slot.off, slot.prev);
	dir_change_end(dir);
	handle_dirty(h, slot.b);
	dir_changed(dir);
out_put:
	buffer_put(slot.b);
	return err;
}

static void dir_entry_retarget(struct handle *h, struct ext4_inode *dir,
			       struct dir_slot *slot, ino_nr ino, u8 ftype)
{
	struct ext4_dir_entry *de = dir_entry(slot->b->b_data, slot->off);

	dir_change_begin(dir);
	de->inode = cpu_to_le32(ino);
	if (ext4_has_incompat(ext4_sb_of(dir), FILETYPE))
		de->file_type = ftype;
	dir_change_end(dir);
	handle_dirty(h, slot->b);
	dir_changed(dir);
	buffer_put(slot->b);
}

int ext4_dir_replace(struct handle *h, struct ext4_inode *dir, const char *name,
		     u32 len, ino_nr ino, u8 ftype)
{
	struct dir_slot slot;
	int err;

	assert(ino);
	if (len && dir_is_dots(name, len))
		return -EINVAL;
	err = dir_lookup_write(h, dir, name, len, &slot);
	if (err)
		return err;
	dir_entry_retarget(h, dir, &slot, ino, ftype);
	return 0;
}

int ext4_dir_init(struct handle *h, struct ext4_inode *dir, ino_nr parent)
{
	static const struct buffer_type *const leaf[] = { &ext4_dir_leaf_type };
	struct ext4_sb *sbi = ext4_sb_of(dir);
	struct dir_new_entry dot = {
		.name = ".", .len = 1, .ino = dir->vfs.i_ino,
		.ftype = EXT4_FT_DIR,
	};
	struct dir_new_entry dotdot = {
		.name = "..", .len = 2, .ino = parent, .ftype = EXT4_FT_DIR,
	};
	struct dir_new fresh;
	int err;

	/* Nobody can look yet: the inode is new. */
	assert(dir->vfs.i_size == 0);
	err = dir_grow(h, dir, 1, leaf, 0, &fresh);
	if (err)
		return err;
	dir_leaf_init(sbi, fresh.b[0]->b_data);
	dir_leaf_insert(sbi, fresh.b[0]->b_data, &dot);
	dir_leaf_insert(sbi, fresh.b[0]->b_data, &dotdot);
	handle_dirty(h, fresh.b[0]);
	dir_changed(dir);
	dir_new_put(&fresh);
	return 0;
}

int ext4_dir_get_dotdot(struct ext4_inode *dir, ino_nr *parent)
{
	struct dir_slot slot;
	int err;

	if (dir->i_inline)
		return ext4_inline_parent(dir, parent);
	err = dir_lookup(dir, "..", 2, &slot, NULL);
	if (err)
		return err;
	*parent = le32_to_cpu(dir_entry(slot.b->b_data, slot.off)->inode);
	buffer_put(slot.b);
	return 0;
}

int ext4_dir_set_dotdot(struct handle *h, struct ext4_inode *dir, ino_nr parent)
{
	struct dir_slot slot;
	int err;

	if (dir->i_inline)
		return ext4_inline_set_parent(h, dir, parent);
	err = dir_lookup_write(h, dir, "..", 2, &slot);
	if (err)
		return err;
	dir_entry_retarget(h, dir, &slot, parent, EXT4_FT_DIR);
	return 0;
}

/* Does the block hold an entry from `off` on? */
static bool dir_block_has_entry(struct ext4_sb *sbi, struct buffer *b, u32 off)
{
	u32 end = dir_entries_end(sbi, b);

	while (off < end) {
		struct ext4_dir_entry *de = dir_entry(b->b_data, off);

		if (le32_to_cpu(de->inode))
			return true;
		off += dir_rec_len(de, sbi->s.s_blocksize);
	}
	return false;
}

/* For ext4_inline_walk(). */
static int dir_not_empty(void *priv, const char *name, u32 len, ino_nr ino, u8 ftype)
{
	*(bool *)priv = false;
	return 0;
}

int ext4_dir_is_empty(struct ext4_inode *dir, bool *empty)
{
	struct ext4_sb *sbi = ext4_sb_of(dir);
	struct dir_scan sc;
	struct buffer *b;
	lblk_t lblk;
	int err;

	*empty = true;
	if (dir->i_inline)
		return ext4_inline_walk(dir, dir->i_inline, dir->vfs.i_size, dir_not_empty,
					empty);
	err = dir_scan_start(&sc, dir, ext4_dir_is_indexed(dir));
	while (!err && *empty) {
		u32 off = 0;

		err = dir_scan_next(&sc, &b, &lblk);
		if (err || !b)
			break;
		if (lblk == 0) {
			err = dir_check_dots(dir, b, &off);
			if (!err)
				off += dir_rec_len(dir_entry(b->b_data, off),
						   sbi->s.s_blocksize);
		}
		if (!err && dir_block_has_entry(sbi, b, off))
			*empty = false;
		buffer_put(b);
	}
	return err;
}
