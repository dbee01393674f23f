/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/dir_internal.h - what dir.c, htree.c and readdir.c share
 *
 * Blocks of a directory are read with dir_bread(), which checks them by type
 * and reports what is wrong with inode, logical block, offset and reason.
 * Past it, entries tile the block and names are in bounds.
 *
 * All functions: the directory's i_rwsem is held, exclusively for changes.
 */
#ifndef SLUICE_FS_DIR_INTERNAL_H
#define SLUICE_FS_DIR_INTERNAL_H

#include "fs/ext4.h"

#include <stdatomic.h>

/* Entries: linear block, or leaf of an index. */
extern const struct buffer_type ext4_dir_leaf_type;
extern const struct buffer_type ext4_dx_root_type;
extern const struct buffer_type ext4_dx_node_type;
/* Whatever a block of a directory with a broken index can be; only to read. */
extern const struct buffer_type ext4_dir_any_type;

#define DIR_DOT_LEN 12u                 /* record of "." */
#define DX_ROOT_ENTRIES 32u             /* offset of the entries in the root */
#define DX_NODE_ENTRIES 8u              /* ... in another node */
#define DX_BLOCK_MASK 0x0FFFFFFFu       /* high bits of an index's block: unused */
#define DIR_NO_ENTRY UINT32_MAX
#define DIR_NEW_MAX 4u

static inline u32 dir_rec_len(const struct ext4_dir_entry *de, u32 blocksize)
{
	u32 len = le16_to_cpu(de->rec_len);

	/* 65536 does not fit in 16 bits: written as 65535, read as 0 too. */
	if (blocksize == 65536 && (len == 0 || len == 65535))
		return 65536;
	return len;
}

static inline void dir_set_rec_len(struct ext4_dir_entry *de, u32 len)
{
	de->rec_len = cpu_to_le16(len == 65536 ? 65535 : (u16)len);
}

static inline struct ext4_dir_entry *dir_entry(void *data, u32 off)
{
	return (struct ext4_dir_entry *)((u8 *)data + off);
}

/* Bytes of a leaf that entries fill. */
static inline u32 dir_usable(const struct ext4_sb *sbi)
{
	return sbi->s.s_blocksize -
	       (sbi->has_csum ? (u32)sizeof(struct ext4_dir_tail) : 0);
}

static inline bool dir_is_dots(const char *name, u32 len)
{
	return name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.'));
}

static inline bool dir_err_is_corruption(int err)
{
	return err == -EFSCORRUPTED || err == -EFSBADCRC;
}

/* Where a name is: the block (referenced), its entry, and the entry before. */
struct dir_slot {
	struct buffer *b;
	lblk_t lblk;
	u32 off;
	u32 prev; /* DIR_NO_ENTRY: first in the block */
};

/*
 * Where a name that is not there could go, for searches that look for it on the way:
 * the first record with `need` bytes to spare of the leaves that may have it.
 */
struct dir_room {
	u32 need;
	struct buffer *b; /* referenced; NULL: none found */
	u32 off;
};

/* What an entry is to say. */
struct dir_new_entry {
	const char *name;
	u32 len;
	ino_nr ino;
	u8 ftype;
};

/* ---- dir.c ---- */

/* For verify(): what is wrong, for the message of dir_bread(); returns err. */
int dir_verify_failed(u32 off, const char *why, int err);
/* verify() of the parts shared: entries in [0, end), and the leaf's tail. */
int dir_verify_entries(const struct ext4_sb *sbi, const void *data, u32 end);
int dir_verify_tail(const struct ext4_sb *sbi, const void *data, u32 seed);
/* freeze() of every directory block: the checksum is where the form tells. */
void dir_freeze(struct super_block *sb, pblk_t blk, void *data, u32 seed);
u32 dx_csum(const void *data, u32 entries_off, u32 count, u32 limit, u32 seed);

/* Blocks of the directory; -EFSCORRUPTED if its size is impossible. */
int __must_check dir_nr_blocks(struct ext4_inode *dir, lblk_t *nr);
/* Reads and checks block lblk; errors are reported. */
int __must_check dir_bread(struct ext4_inode *dir, lblk_t lblk,
			   const struct buffer_type *type, struct buffer **out);

/* Walks all blocks in order, with read-ahead. any: as ext4_dir_any_type. */
struct dir_scan {
	struct ext4_inode *dir;
	const struct buffer_type *type;
	lblk_t lblk, nr;     /* next block, number of blocks */
	lblk_t run, run_end; /* mapped run */
	pblk_t run_pblk;
};
int __must_check dir_scan_start(struct dir_scan *sc, struct ext4_inode *dir,
				bool any);
/* The next block, referenced; NULL at the end. */
int __must_check dir_scan_next(struct dir_scan *sc, struct buffer **out,
			       lblk_t *lblk);
/*
 * Where the entries of a block end: at the tail if there is one, and at 0 in
 * an index node (whose type says so).
 */
u32 dir_entries_end(const struct ext4_sb *sbi, const struct buffer *b);

/* Finds a name in a leaf; *prev as in struct dir_slot. */
bool dir_block_find(struct ext4_sb *sbi, void *data, const char *name, u32 len,
		    u32 end, u32 *off, u32 *prev);
/* The same in b; room (may be NULL) is filled in if it is empty and b has some. */
bool dir_leaf_find(struct ext4_sb *sbi, struct buffer *b, const char *name, u32 len,
		   u32 *off, u32 *prev, struct dir_room *room);

/* Can an entry of a name of len bytes go in (perhaps after compaction)? */
bool dir_leaf_has_room(struct ext4_sb *sbi, void *data, u32 len);
/* Puts it in: there is room. The caller has write access. */
void dir_leaf_insert(struct ext4_sb *sbi, void *data,
		     const struct dir_new_entry *ne);
/* Gets access to the leaf b, which has room, and adds ne. */
int __must_check dir_add_at(struct handle *h, struct ext4_inode *dir,
			    struct buffer *b, const struct dir_new_entry *ne);
/* A leaf with nothing in it, tail included. */
void dir_leaf_init(struct ext4_sb *sbi, void *data);

/* ".." in block 0, after "."; *off. Reports -EFSCORRUPTED. */
int __must_check dir_check_dots(struct ext4_inode *dir, struct buffer *b, u32 *off);

/* New blocks at the end of the directory. */
struct dir_new {
	struct buffer *b[DIR_NEW_MAX];
	lblk_t first;
	u32 nr;
};
/*
 * Allocates nr blocks of these types, with create access, makes i_size
 * include them, sets set_flags in i_flags and writes the inode. On an error
 * nothing has changed. Ends with dir_new_put().
 */
int __must_check dir_grow(struct handle *h, struct ext4_inode *dir, u32 nr,
			  const struct buffer_type *const *types, u32 set_flags,
			  struct dir_new *out);
void dir_new_put(struct dir_new *n);
/* i_version: cursors notice the change. */
void dir_changed(struct ext4_inode *dir);

/* ---- dir_peek.c ---- */

/* Around each change of names or blocks: see the top of dir_peek.c. */
void dir_change_begin(struct ext4_inode *dir);
void dir_change_end(struct ext4_inode *dir);
/* Block lblk was read, and is at pblk. */
void dir_map_note(struct ext4_inode *dir, lblk_t lblk, pblk_t pblk);
/* Where block lblk is, as noted; 0: not known. i_rwsem held. */
pblk_t dir_map_get(struct ext4_inode *dir, lblk_t lblk);
/* Blocks from `first` on are given back. */
void dir_map_forget(struct ext4_inode *dir, lblk_t first);

/* ---- htree.c ---- */

#define DX_MAX_LEVELS 3u

struct dx_frame {
	struct buffer *b;
	struct ext4_dx_entry *entries; /* in b; slot 0 holds limit and count */
	u32 at;                        /* entry followed */
};

/* From the root of an index down to the entry of a leaf. */
struct dx_path {
	u32 nr;      /* levels of the index */
	u32 loaded;  /* frames with a buffer */
	u32 version; /* of the hash, 0-5 */
	struct dx_frame f[DX_MAX_LEVELS];
};

/*
 * An index that can't be used is noted in the inode (i_index_broken) and
 * reported; the error is -EFSCORRUPTED or -EFSBADCRC then, and readers go on
 * without the index.
 */
int __must_check dx_open(struct ext4_inode *dir, struct dx_path *p); /* the root */
int __must_check dx_descend(struct ext4_inode *dir, struct dx_path *p, u32 hash);
int __must_check dx_leaf(struct ext4_inode *dir, struct dx_path *p,
			 lblk_t *lblk, struct buffer **out);
/* Moves to the next leaf; there must be one. */
int __must_check dx_next(struct ext4_inode *dir, struct dx_path *p);
/* Starts reading this leaf and the next ones, at every 16th. */
void dx_readahead(struct ext4_inode *dir, const struct dx_path *p);
/* First hash of the leaf (0 for the first), and of the next; false: last leaf. */
u32 dx_this_hash(const struct dx_path *p);
bool dx_next_hash(const struct dx_path *p, u32 *hash);
void dx_close(struct dx_path *p);

/* room: may be NULL; of the first leaf, as an index wants it. */
int __must_check dx_find(struct ext4_inode *dir, const char *name, u32 len,
			 struct dir_slot *slot, struct dir_room *room);
int __must_check dx_add(struct handle *h, struct ext4_inode *dir,
			const struct dir_new_entry *ne);
/* Makes the full single block b an indexed directory and adds ne. */
int __must_check dx_convert(struct handle *h, struct ext4_inode *dir,
			    struct buffer *b, const struct dir_new_entry *ne);
/* Should changes be refused, reads go without the index? */
static inline bool dx_broken(const struct ext4_inode *dir)
{
	return atomic_load_explicit(&dir->i_index_broken, memory_order_relaxed);
}

/* Slots of an index block whose entries begin at entries_off. */
u32 dx_limit(const struct ext4_sb *sbi, u32 entries_off);

#endif
