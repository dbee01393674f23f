/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/ext4.h - the file system's own structures and the functions its files
 * offer each other; nothing outside fs/ includes it (see fs/fs.h)
 *
 * Locks, in order: i_rwsem -> [handle] -> i_data_sem -> xattr_sem -> b_lock ->
 * s_lock -> group lock -> i_lock. Who protects what:
 *   directory blocks      the directory's i_rwsem
 *   extent tree, i_block  i_data_sem
 *   inode table block     b_lock of its buffer, per 256-byte inode
 *   bitmaps, descriptor   group lock
 *   superblock fields     s_lock
 * Errors: negative errno; -EFSCORRUPTED and -EFSBADCRC are reported once
 * through ext4_error() by the function that found them.
 */
#ifndef SLUICE_FS_EXT4_H
#define SLUICE_FS_EXT4_H

#include "cache/budget.h"
#include "cache/buffer.h"
#include "cache/icache.h"
#include "cache/mapping.h"
#include "cache/sb_iter.h"
#include "cache/zone.h"
#include "fs/ext4_format.h"
#include "fs/fs.h"
#include "fs/journal/journal.h"
#include "lib/counter.h"
#include "lib/lock.h"
#include "lib/log.h"
#include "writeback/bdev.h"
#include "writeback/flusher.h"

struct ext4_sb;

struct ext4_inode {
	struct inode vfs; /* first */
	u8 i_block[EXT4_I_BLOCK_BYTES] __attribute__((aligned(8))); /* [i_data_sem] as on disk */
	struct rwsem i_data_sem;  /* extent tree; RANK_I_DATA */
	struct mutex xattr_sem;   /* RANK_XATTR */
	struct mutex wb_lock;     /* one write-out pass; RANK_WRITEBACK */
	_Atomic u64 i_disksize; /* [i_data_sem to change] size as on disk: covers only what is written */
	_Atomic pblk_t i_file_acl; /* [xattr_sem to change] xattr block, 0 for none; read by whoever
				      stores the inode */
	_Atomic bool i_has_xattrs; /* in its body or in a block [atomic; write xattr_sem] */
	_Atomic u8 i_acls; /* which access control lists it has: XATTR_ACL_* [atomic; write xattr_sem] */
	_Atomic u32 i_dtime; /* dtime or next orphan, as on disk [list lock of orphan.c to change while listed] */
	u32 i_csum_seed;    /* [const] crc(seed, ino, generation) */
	_Atomic u16 i_extra_isize; /* bytes of the body behind the first 128 that are fields; only
				      grows [i_rwsem exclusive, xattr_sem and the table buffer's
				      b_lock to change] */
	_Atomic bool i_extra_stays; /* there was no room for more of them [atomic] */
	_Atomic u32 i_projid; /* [atomic; write i_rwsem] project; 0 without room for one */
	group_t i_group;    /* [const] block group of the inode */
	_Atomic pblk_t i_alloc_goal;  /* where the last allocation ended, 0 unknown [atomic] */
	/* orphan state [s_lock or own slot] */
	struct cds_list_head i_orphan;       /* [s_lock] in-memory orphan list */
	s64 i_orphan_slot;  /* slot in the orphan file, -1: none */
	_Atomic jtid_t i_sync_tid;     /* last transaction that changed the inode [atomic] */
	_Atomic jtid_t i_datasync_tid; /* ... size or mapping [atomic] */
	_Atomic u32 i_opens;           /* open file descriptions [atomic] */
	_Atomic bool i_dying;          /* counted in nr_dying [atomic] */
	_Atomic s64 i_atime_fresh;     /* s: until then a read need not look at the times
					  (relatime); 0: it must [write i_lock] */
	/* directories [i_rwsem] */
	_Atomic bool i_index_broken; /* reads go without the index, changes are refused [atomic] */
	_Atomic u32 i_dir_seq; /* odd: names change, or the inode is torn down [write i_rwsem, exclusive] */
	struct dir_map *i_dir_map; /* where its blocks are [rcu, write i_lock] */
	u8 *_Atomic i_inline; /* whole content if it lies in the inode (inline_data), else NULL
				 [i_rwsem; whether NULL: atomic, once NULL for good] */
	/* The stream of writes of the handle that was closed last, for the next
	 * one to go on with; see access_behind() [vfs.i_lock] */
	u64 i_stream_from, i_stream_reach;
	/* Blocks of a direct write that is under way, first << 32 | end; 0: none
	 * [atomic; i_rwsem exclusive to write] */
	_Atomic u64 i_direct;
	/* Direct overwrites under way that share i_rwsem; -1: what the device has is being
	 * read ahead. One kind at a time [atomic; i_rwsem shared to raise] */
	_Atomic s32 i_overwrites;
	_Atomic bool i_bmapped; /* somebody who has it open may know where its blocks are, and
				   use them [atomic; i_rwsem to set, exclusive to clear] */
	_Atomic bool i_shifting; /* what is cached is written with i_rwsem only [atomic; i_rwsem
				    exclusive to write] shift.c, move_extents.c */
	bool i_linkable; /* [i_rwsem] made without a name, may get one */
	bool i_flush_on_close; /* [i_rwsem] truncated to 0: write out at release (brief 12.7) */
};

static inline struct ext4_inode *EXT4_I(struct inode *inode)
{
	return container_of_type(inode, struct ext4_inode, vfs);
}

/* End of a range of blocks that covers the whole file. */
#define EXT4_LBLK_END ((lblk_t)0xFFFFFFFFu)

struct ext4_discarder;  /* discard.c */
struct ext4_quota;      /* quota.c */
struct ext4_group_info; /* balloc.c, group.c */

struct ext4_error_record {
	u64 time_s; /* 0: none */
	ino_nr ino;
	pblk_t blk;
	char func[33];
	u32 line;
	int error; /* negative errno */
};

struct ext4_sb {
	struct super_block s; /* first */
	struct sl_options opts;       /* [const after mount; what is atomic, and dirty_*: sl_reconfigure()] */
	struct bdev *bdev;            /* device, or overlay of a read-only mount; changes with no
					 request at work */
	struct bdev *device;          /* [const] the device itself */
	struct bdev *journal_bd;      /* external journal's, or NULL; owned [const after mount] */
	struct bdev *old_overlay;     /* was bdev; closed after the device. Or NULL */
	struct bdev_backing backing;
	struct journal *journal;      /* NULL on read-only mounts */
	struct flusher *flusher;      /* NULL on read-only mounts */
	struct readahead *readahead;  /* [const while requests are served] readahead.c */

	/* geometry, decoded and checked once [const after mount] */
	u32 features_compat, features_incompat;
	_Atomic u32 features_ro_compat; /* [atomic] large_file comes when needed */
	u64 blocks_count;
	u32 inodes_count;
	u32 first_data_block;
	u8 cluster_bits;      /* a cluster has 2^n blocks; 0 without bigalloc */
	u32 clusters_per_group;
	u32 blocks_per_group, inodes_per_group;
	u32 inode_size;
	u32 desc_size, desc_per_block;
	u32 itable_blocks;    /* blocks of inode table per group */
	u32 inodes_per_block;
	group_t groups;
	u32 first_ino;
	u32 log_groups_per_flex; /* 0: no flex_bg */
	u32 reserved_gdt_blocks, first_meta_bg;
	u32 gdb_count;        /* blocks of group descriptors */
	u64 r_blocks;         /* reserved for resuid/resgid */
	u64 overhead;         /* blocks used by structures, for statfs */
	_Atomic u32 resuid, resgid; /* [atomic] */
	ino_nr journal_ino, orphan_file_ino;
	ino_nr prj_quota_ino; /* hidden like those; 0: none */
	u8 uuid[16];
	u8 journal_uuid[16];  /* of an external journal */
	bool has_csum;        /* metadata_csum */
	bool has_gdt_csum;    /* uninit_bg */
	bool has_64bit;
	bool nsec_times;      /* inodes have the extra fields */
	u32 csum_seed;
	u32 hash_seed[4];
	u8 def_hash_version;  /* 0-5: signedness applied */
	bool hash_unsigned;
	u16 want_extra_isize, min_extra_isize; /* of i_extra_isize; min: 0 or less than want */
	_Atomic u32 errors_policy; /* EXT4_ERRORS_* [atomic] */
	bool recovered;       /* the log was replayed at this mount */

	/* superblock */
	struct mutex s_lock;          /* superblock fields, orphan list; RANK_SB_FIELDS */
	struct buffer *sb_buf;        /* [const after mount] referenced */
	struct ext4_super_block *es;  /* [s_lock] in sb_buf's memory */
	struct ext4_super_block disk_es; /* as found before recovery [who mounts or remounts] */
	u8 log_super[1024];           /* read-only: of the external journal, the same */
	u16 mount_state;              /* s_state as found [const] */
	u64 mount_bytes;              /* device bytes written at mount [const] */
	u64 mount_kbytes;             /* s_kbytes_written as found [const] */

	/* groups */
	struct buffer **gdb;          /* [const after mount] descriptor blocks */
	struct ext4_group_info *group_info; /* [per entry: group lock] */
	struct ext4_group_locks *group_locks;
	struct ext4_alloc *alloc;     /* balloc.c, ialloc.c: what all groups share */
	/* Once there was -o discard; it stays [atomic] */
	struct ext4_discarder *_Atomic discarder;
	struct ext4_syszone *syszone; /* [const while requests are served] */
	struct counter *free_blocks;  /* on disk, uncommitted frees included; clusters */
	struct counter *free_inodes;
	struct counter *used_dirs;
	struct counter *reserved;     /* blocks promised to delayed allocation; 0 with bigalloc */
	u64 meta_reserve;             /* clusters kept back for extent-tree growth */
	struct ext4_orphan_info *orphan; /* orphan.c */
	struct ext4_quota *quota;     /* quota.c; NULL: volume without it, or read-only */
	struct xattr_known *xattr_blocks; /* by hash; NULL: read-only, or -o nombcache */
	struct ext4_values *values;   /* xattr_ea.c; NULL: without ea_inode, or read-only */
	struct ext4_mmp *mmp;         /* mmp.c; NULL: volume without it, or read-only */

	struct mutex rename_lock;     /* RANK_RENAME */
	struct mutex limit_lock;      /* unranked: one change of the cache's limit at a time */
	_Atomic u32 inode_gen;        /* feeds new generations [atomic] */
	_Atomic bool quiet;           /* [atomic] see sl_set_quiet() */
	_Atomic bool noatime;         /* [atomic] see sl_set_noatime() */
	_Atomic bool aborted;         /* [atomic] after a fatal error, or shut down */
	_Atomic bool shut_down;       /* [atomic] by sl_shutdown() */
	_Atomic u32 nr_dying;         /* [atomic] in memory, without links, not open */
	_Atomic u32 nr_deleting;      /* [atomic] of them, those under way: written out, deleted */
	_Atomic u32 nr_dead;          /* [atomic] of nr_dying, those that are gone; wait key */
	_Atomic u64 noted_at;         /* [atomic] ns, when the last began to be one */
	_Atomic u64 dead_at;          /* [atomic] ns, when the last was gone */
	_Atomic int wb_err; /* of data, for the next sync; 0: none [atomic] */
	_Atomic bool error_seen;      /* [atomic] ERROR_FS to be set or set */
	bool orphan_recovery;         /* [mount thread] inodes without links may be read */
	struct spinlock err_lock;     /* RANK_STATS */
	struct ext4_error_record err_first, err_last; /* [err_lock] of this mount */
	u32 err_count;                /* [err_lock] not yet in the superblock */
};

int ext4_load_inode_raw(struct ext4_inode *ei, const void *raw); /* inode.c */
/* The same after ext4_inode_csum_ok(). */
int ext4_load_inode_checked(struct ext4_inode *ei, const void *raw);
/* There is a journal now: inodes that were read without one learn which transaction an
 * fsync has to wait for. */
void ext4_inodes_join_journal(struct ext4_sb *sbi);
/* The inode's checksum; true without metadata_csum. */
bool ext4_inode_csum_ok(const struct ext4_sb *sbi, ino_nr ino, const void *raw);

static inline struct ext4_sb *EXT4_SB(const struct super_block *sb)
{
	return container_of_type((struct super_block *)(uintptr_t)sb, struct ext4_sb, s);
}
static inline struct ext4_sb *ext4_sb_of(const struct ext4_inode *ei)
{
	return EXT4_SB(ei->vfs.i_sb);
}

#define ext4_has_compat(sbi, f) (((sbi)->features_compat & EXT4_COMPAT_##f) != 0)
/* Has it a journal, and is it used? */
#define ext4_has_log(sbi) (ext4_has_compat(sbi, HAS_JOURNAL) && !(sbi)->opts.noload)
#define ext4_has_incompat(sbi, f) (((sbi)->features_incompat & EXT4_INCOMPAT_##f) != 0)
#define ext4_has_ro_compat(sbi, f) (((sbi)->features_ro_compat & EXT4_RO_COMPAT_##f) != 0)

static inline group_t ext4_block_group(const struct ext4_sb *sbi, pblk_t blk)
{
	return (group_t)((blk - sbi->first_data_block) / sbi->blocks_per_group);
}
static inline u32 ext4_block_offset(const struct ext4_sb *sbi, pblk_t blk)
{
	return (u32)((blk - sbi->first_data_block) % sbi->blocks_per_group);
}
static inline pblk_t ext4_group_first_block(const struct ext4_sb *sbi, group_t g)
{
	return (pblk_t)g * sbi->blocks_per_group + sbi->first_data_block;
}
/* Blocks in group g: the last one may be short. */
u32 ext4_blocks_in_group(const struct ext4_sb *sbi, group_t g);
/* log2 of the bytes that a bit of a bitmap stands for. */
static inline u32 ext4_cluster_bytes_bits(const struct ext4_sb *sbi)
{
	return sbi->s.s_blocksize_bits + sbi->cluster_bits;
}
/* Block b's place in its cluster. Of the blocks of files, b may be either number. */
static inline u32 ext4_cluster_offset(const struct ext4_sb *sbi, u64 b)
{
	return (u32)b & ((1u << sbi->cluster_bits) - 1);
}
/* Bits that its bitmap has. */
u32 ext4_clusters_in_group(const struct ext4_sb *sbi, group_t g);
/* Does group g start with a superblock backup (and the descriptors)? */
bool ext4_group_has_super(const struct ext4_sb *sbi, group_t g);
static inline group_t ext4_inode_group(const struct ext4_sb *sbi, ino_nr ino)
{
	return (ino - 1) / sbi->inodes_per_group;
}

/* ------------------------------------------------------- error.c (lead) */
/*
 * The volume is inconsistent or metadata can't be read or written: one log
 * line with function, inode, block and reason; superblock marked; errors=
 * policy applied (continue, remount-ro: journal aborted, panic: exit).
 * ino, blk: 0 if not concerned. error: -EFSCORRUPTED, -EFSBADCRC, -EIO, ...;
 * returned, so that `return ext4_error(...)` works.
 */
int ext4_error_at(struct ext4_sb *sbi, const char *func, int line, ino_nr ino,
		  pblk_t blk, int error, const char *fmt, ...) __printf_like(7, 8);
#define ext4_error(sbi, ino, blk, error, ...)                                  \
	ext4_error_at(sbi, __func__, __LINE__, ino, blk, error, __VA_ARGS__)
/* Writes what ext4_error recorded into the superblock (s_lock held, inside a
 * handle with access to sb_buf, or when nothing is journalled any more). */
void ext4_error_fill_super(struct ext4_sb *sbi);
/*
 * buffer_read() that reports failures with ext4_error(): what: "inode bitmap
 * of group 5" style text is built from type->name, ino and blk.
 */
int __must_check ext4_bread(struct ext4_sb *sbi, pblk_t blk, ino_nr ino,
			    const struct buffer_type *type, u32 seed,
			    struct buffer **out);

/* ------------------------------------------- group.c, syszone.c (alloc) */
/*
 * Loads and checks all descriptors (range of bitmaps and tables, checksums:
 * a mismatch is an error), sums the counters into sbi->free_blocks,
 * free_inodes, used_dirs. sbi geometry is set. Logs what it refuses.
 */
int __must_check ext4_groups_load(struct ext4_sb *sbi);
void ext4_groups_free(struct ext4_sb *sbi);
/* The block that holds descriptor block n (meta_bg honoured). */
pblk_t ext4_gdb_location(const struct ext4_sb *sbi, u32 n);

void ext4_group_lock(struct ext4_sb *sbi, group_t g);   /* RANK_GROUP, striped */
void ext4_group_unlock(struct ext4_sb *sbi, group_t g);

/* Descriptor of g, in *gdb's memory (a reference is not taken: they stay). */
struct ext4_group_desc *ext4_group_desc(struct ext4_sb *sbi, group_t g, struct buffer **gdb);
pblk_t ext4_gd_block_bitmap(const struct ext4_sb *sbi, const struct ext4_group_desc *gd);
pblk_t ext4_gd_inode_bitmap(const struct ext4_sb *sbi, const struct ext4_group_desc *gd);
pblk_t ext4_gd_inode_table(const struct ext4_sb *sbi, const struct ext4_group_desc *gd);
u32 ext4_gd_free_blocks(const struct ext4_sb *sbi, const struct ext4_group_desc *gd);
u32 ext4_gd_free_inodes(const struct ext4_sb *sbi, const struct ext4_group_desc *gd);
u32 ext4_gd_used_dirs(const struct ext4_sb *sbi, const struct ext4_group_desc *gd);
u32 ext4_gd_itable_unused(const struct ext4_sb *sbi, const struct ext4_group_desc *gd);
void ext4_gd_set_free_blocks(struct ext4_sb *sbi, struct ext4_group_desc *gd, u32 n);
void ext4_gd_set_free_inodes(struct ext4_sb *sbi, struct ext4_group_desc *gd, u32 n);
void ext4_gd_set_used_dirs(struct ext4_sb *sbi, struct ext4_group_desc *gd, u32 n);
void ext4_gd_set_itable_unused(struct ext4_sb *sbi, struct ext4_group_desc *gd, u32 n);
/* Descriptor checksum (either kind); group lock held, last change before handle_dirty. */
void ext4_gd_csum_set(struct ext4_sb *sbi, group_t g, struct ext4_group_desc *gd);

/* System zones: superblocks, descriptors, bitmaps, inode tables, journal. */
int __must_check ext4_syszone_build(struct ext4_sb *sbi);
int __must_check ext4_syszone_add(struct ext4_sb *sbi, pblk_t start, u64 len); /* journal blocks; before serving */
void ext4_syszone_free(struct ext4_sb *sbi);
/* Inside the volume and clear of every system zone. */
bool ext4_block_range_ok(const struct ext4_sb *sbi, pblk_t start, u64 len);

/* ------------------------------------------------------ balloc.c (alloc) */
#define EXT4_ALLOC_CREDITS 2u /* bitmap + descriptor, per extent allocated or group freed in */

enum ext4_alloc_flags {
	EXT4_ALLOC_META = 1u << 0,     /* may use the reserve for extent-tree growth */
	EXT4_ALLOC_DELAYED = 1u << 1,  /* blocks were reserved: consume the reservation */
	EXT4_ALLOC_ROOT = 1u << 2,     /* may use the root reserve (as a privileged handle) */
	EXT4_ALLOC_EXACT_GOAL = 1u << 3, /* only at the goal, else -ENOSPC */
	EXT4_ALLOC_APPEND = 1u << 4,   /* data, right behind all that the file has */
	EXT4_ALLOC_LOW = 1u << 5,      /* below block 2^32: for a block map */
};
/*
 * Allocates 1..*len consecutive blocks near goal (0: near group `hint`), in
 * the bitmap, inside h (EXT4_ALLOC_CREDITS). *out, *len: what was got. With bigalloc
 * *len is in clusters, and *out the first block of one. Blocks
 * freed by a transaction not yet committed are not handed out; if nothing else
 * is left, -EAGAIN: the caller stops its handle, calls journal_force_commit()
 * and tries again (at most once per request: then -ENOSPC). Sleeps for bitmap reads.
 * Quota, i_blocks and reservations of the inode are the caller's, except
 * EXT4_ALLOC_DELAYED: sbi->reserved falls by *len.
 */
int __must_check ext4_alloc_blocks(struct handle *h, struct ext4_sb *sbi, group_t hint,
				   pblk_t goal, u32 flags, u32 *len, pblk_t *out);
/*
 * As ext4_alloc_blocks(), for the contents of ei from block lblk on. With
 * EXT4_ALLOC_APPEND a small regular file is served from a magazine, a larger
 * one gets a window: blocks behind these, kept for it in memory. With blocks smaller than
 * 4 KiB, a run of so much that is searched for without a goal lies on the device as in the
 * file's pages, if there is room, and fewer blocks than asked for end with a page of the
 * file. i_data_sem held exclusively.
 */
int __must_check ext4_alloc_data(struct handle *h, struct ext4_inode *ei, lblk_t lblk,
				 pblk_t goal, u32 flags, u32 *len, pblk_t *out);
/* The window of file ino, if it has one, is for everybody again. No lock of
 * RANK_GROUP or further in held. */
void ext4_release_window(struct ext4_sb *sbi, ino_nr ino);
/* Counters as lines of text, at most len bytes with the NUL; returns bytes
 * without it (or len, if it did not fit). */
size_t ext4_alloc_stats(struct ext4_sb *sbi, char *buf, size_t len);
/*
 * Frees [blk, blk+len) in the bitmaps, with bigalloc every cluster that it touches;
 * usable again after the commit of h's transaction. Credits: EXT4_ALLOC_CREDITS per group touched. Double frees and
 * system zones are corruption: reported, -EFSCORRUPTED. Metadata blocks: the
 * caller has called handle_forget() on each.
 */
int __must_check ext4_free_blocks(struct handle *h, struct ext4_sb *sbi, ino_nr ino,
				  pblk_t blk, u32 len);
/* Gives back blocks that were allocated in this very handle and never used:
 * same as ext4_free_blocks (they wait for the commit too). */

/* Delayed allocation: promises n blocks. -ENOSPC (root: may use the root
 * reserve). Never sleeps. */
int __must_check ext4_reserve_blocks(struct ext4_sb *sbi, u32 n, bool root);
void ext4_release_reserved(struct ext4_sb *sbi, u32 n);
/* Promises n blocks again that EXT4_ALLOC_DELAYED took in a handle, and that were given
 * back in it. */
void ext4_restore_reserved(struct ext4_sb *sbi, u32 n);
/* Free blocks for statfs: free - reserved. */
u64 ext4_count_free_blocks(struct ext4_sb *sbi);

/* ------------------------------------------------------------- discard.c */
/*
 * Online discard. start: before anything is freed. -ENOMEM, -EAGAIN. stop: when the
 * journal has ended; what is queued is discarded first. wait: until what was
 * committed before is discarded, and free, and so is what sl_trim() is at; no handle, and
 * no lock from RANK_HANDLE inwards. Stop and statistics do nothing without it.
 */
int __must_check ext4_discard_start(struct ext4_sb *sbi);
void ext4_discard_stop(struct ext4_sb *sbi);
void ext4_discard_wait(struct ext4_sb *sbi);
size_t ext4_discard_stats(const struct ext4_sb *sbi, char *buf, size_t len);

/* ------------------------------------------------------ ialloc.c (alloc) */
#define EXT4_NEW_INODE_CREDITS 6u /* inode bitmap, descriptor, block bitmap of an uninit group + desc, inode table, spare */
/*
 * Picks and marks a free inode: directories spread (Orlov), others near the
 * parent. Initialises uninit bitmaps, lowers itable_unused, clears nothing of
 * the inode itself. -ENOSPC; -EAGAIN (as ext4_alloc_blocks; nothing was
 * changed): only inodes freed and not yet committed are left.
 */
int __must_check ext4_alloc_ino(struct handle *h, struct ext4_inode *dir, u32 mode,
				ino_nr *out);
int __must_check ext4_free_ino(struct handle *h, struct ext4_sb *sbi, ino_nr ino,
			       bool is_dir);
/*
 * The inode-table buffer of ino and the offset of the inode in it, referenced.
 * fresh: the inode was just allocated: a table block with no other inode in
 * use is not read but zeroed (brief 4.4); needs handle_get_write_access by the caller as ever.
 * Reads ahead in the table. -EFSCORRUPTED for a number out of range.
 */
int __must_check ext4_inode_buffer(struct ext4_sb *sbi, ino_nr ino, bool fresh,
				   struct buffer **out, u32 *offset);
/*
 * A copy of g's inode bitmap as it is at one moment, into map (a block). *used:
 * no bit is set from there on; 0 for a group never used. Errors are reported.
 */
int __must_check ext4_ibitmap_copy(struct ext4_sb *sbi, group_t g, void *map,
				   u32 *used);
/* Is ino allocated in its bitmap? (checks of lookups by number) */
int __must_check ext4_ino_in_use(struct ext4_sb *sbi, ino_nr ino, bool *used);

/* ------------------------------------------------------ orphan.c (alloc) */
#define EXT4_ORPHAN_CREDITS 3u /* superblock, inode of the neighbour, own inode or orphan block */
/* At mount: loads the orphan file's blocks if there is one (checks them). */
int __must_check ext4_orphan_load(struct ext4_sb *sbi);
void ext4_orphan_free(struct ext4_sb *sbi);
bool ext4_orphan_empty(struct ext4_sb *sbi); /* list and file */
/* On the list or in the file (I_ORPHAN); idempotent. i_rwsem held or sole user. */
int __must_check ext4_orphan_add(struct handle *h, struct ext4_inode *ei);
int __must_check ext4_orphan_del(struct handle *h, struct ext4_inode *ei);
/* The same for who stores the inode after it in this handle, come what may: between
 * ext4_inode_prepare() and ext4_inode_finish(). */
int __must_check ext4_orphan_link(struct handle *h, struct ext4_inode *ei);
int __must_check ext4_orphan_unlink(struct handle *h, struct ext4_inode *ei);
/* The inode leaves the cache without having been deleted (an error): the links
 * in memory go, the disk keeps the orphan. */
void ext4_orphan_forget(struct ext4_inode *ei);
/*
 * After recovery, read-write: for each orphan on disk calls fn (which deletes
 * or truncates it, and so takes it off). Numbers are checked; loops and garbage are errors,
 * not hangs. Uses icache_get with the orphan flag preset; see orphan.c.
 */
int __must_check ext4_orphan_recover(struct ext4_sb *sbi,
				     int (*fn)(struct ext4_sb *sbi, struct inode *inode));

/* ------------------------------------------------------- xattr.c (alloc) */
/* Sets i_has_xattrs and i_acls: by the body (raw: whole inode, checked), and by whether
 * there is a block. xattr_sem held, or nobody else knows the inode. */
void ext4_xattr_note(struct ext4_inode *ei, const void *raw);
static inline bool ext4_extra_is_small(const struct ext4_inode *ei)
{
	return atomic_load_explicit(&ei->i_extra_isize, memory_order_relaxed) <
		       ext4_sb_of(ei)->want_extra_isize &&
	       !atomic_load_explicit(&ei->i_extra_stays, memory_order_relaxed);
}
/*
 * Before ei is changed: the fields that its volume wants inodes to have, or as many as it asks
 * for at least, if ei has fewer (xattr_set.c). In a handle of its own; i_rwsem held exclusively,
 * no handle. If there is no room for them all stays as it is.
 */
void ext4_extra_grow(struct ext4_inode *ei);
/* Of one change: the inode twice, a new block with its bitmap and descriptor, the release of
 * the old block. And 1 revoke. */
#define EXT4_XATTR_SET_CREDITS                                                 \
	(2 * EXT4_INODE_CREDITS + 1 + EXT4_ALLOC_CREDITS +                     \
	 EXT4_XATTR_RELEASE_CREDITS)
/* What is more for each value in an inode of its own that begins or ends to be one. */
#define EXT4_XATTR_VALUE_CREDITS (EXT4_ORPHAN_CREDITS + EXT4_INODE_CREDITS)
/*
 * Deletion of ei, first: it becomes an orphan, if it is none, and its values in inodes of
 * their own lose it as an owner, those of its block only if nobody shares that. In handles of
 * its own; those whose last owner it was are deleted on the way, which starts handles, too: so
 * none is open, and ei's number not yet free (see icache_insert()).
 */
int __must_check ext4_xattr_drop_values(struct ext4_inode *ei);
/*
 * Then: takes it off its xattr block (refcount - 1 or freed). Credits:
 * EXT4_XATTR_RELEASE_CREDITS, 1 revoke. Clears i_file_acl and i_blocks' share. -EAGAIN: others
 * have left the block, so that its values are ei's alone now: first again.
 */
#define EXT4_XATTR_RELEASE_CREDITS 4u
int __must_check ext4_xattr_release(struct handle *h, struct ext4_inode *ei);
/* Checks the in-body attributes' bounds (read_inode). raw: whole inode. */
int __must_check ext4_xattr_check_ibody(struct ext4_sb *sbi, const void *raw,
					u32 inode_size, u32 extra_isize);
/* What is known of values in inodes of their own; before orphans are dealt with. -ENOMEM.
 * free: when no inode is in memory any more. Nothing without the feature. xattr_ea.c */
int __must_check ext4_values_create(struct ext4_sb *sbi);
void ext4_values_free(struct ext4_sb *sbi);
extern const struct buffer_type ext4_xattr_block_type; /* seed unused: block-numbered */

/* ------------------------------------------ extents.c, indirect.c (ext) */
enum ext4_map_flags {
	EXT4_MAP_MAPPED = 1u << 0,    /* written */
	EXT4_MAP_UNWRITTEN = 1u << 1, /* allocated, reads as zero */
	EXT4_MAP_NEW = 1u << 2,       /* allocated by this call */
};
/* In: lblk, len (> 0). Out: pblk, flags (0: a hole) and len cut to one extent
 * or to the hole's end (a hole after the last extent has the full len asked). */
struct ext4_map {
	lblk_t lblk;
	u32 len;
	pblk_t pblk;
	u32 flags;
};
/* Nothing is mapped: an empty tree in i_block, or a block map if the inode has not
 * EXT4_EXTENTS_FL. */
void ext4_map_init(struct ext4_inode *ei);
/* Of an inode that nobody else can change. */
bool ext4_map_is_empty(struct ext4_inode *ei);
void ext4_ext_init_root(struct ext4_inode *ei); /* empty tree in i_block */
/* What a new map is: EXT4_EXTENTS_FL, or 0 on a volume without the feature. */
static inline u32 ext4_new_map_flag(const struct ext4_sb *sbi)
{
	return ext4_has_incompat(sbi, EXTENTS) ? EXT4_EXTENTS_FL : 0;
}
/* Checks the root in i_block (read_inode). */
int __must_check ext4_ext_check_root(struct ext4_inode *ei);
/*
 * Looks up; extents or indirect, as the inode has. Takes i_data_sem shared.
 * Sleeps for reads. -EFSCORRUPTED reported.
 */
int __must_check ext4_map_blocks(struct ext4_inode *ei, struct ext4_map *map);

/* Credits to insert n new extents into ei's tree (splits at every level, bitmaps). */
u32 ext4_ext_insert_credits(const struct ext4_inode *ei, u32 n);
enum ext4_create_flags {
	EXT4_CREATE_UNWRITTEN = 1u << 0, /* else written (directories, symlinks) */
	EXT4_CREATE_DELAYED = 1u << 1,   /* blocks were reserved by the writer */
	EXT4_CREATE_ROOT = 1u << 2,      /* may use the root reserve */
};
/*
 * As ext4_map_blocks(), but allocates where there is a hole: at most map->len
 * blocks, one extent; goal from the neighbouring extents, i_alloc_goal, or the inode's
 * group. Takes i_data_sem exclusively. Updates i_blocks; does not write the inode: the caller calls
 * ext4_mark_inode_dirty(h) after. A block map has no unwritten blocks: -EOPNOTSUPP if
 * these are wanted; its data goes by ext4_ind_write().
 * -ENOSPC, -EAGAIN (see ext4_alloc_blocks).
 */
int __must_check ext4_map_create(struct handle *h, struct ext4_inode *ei,
				 struct ext4_map *map, u32 flags);
/*
 * Unwritten -> written for [lblk, lblk+len); parts already written are left alone, holes
 * are an error (-EFSCORRUPTED). Merges with neighbours. Uses handle_ensure() and, where
 * the tree is consistent, handle_restart() (so: may span transactions; each one
 * leaves a valid tree). The caller writes the inode after.
 */
int __must_check ext4_ext_convert_written(struct handle *h, struct ext4_inode *ei,
					  lblk_t lblk, u32 len);
/*
 * Written -> unwritten for what is mapped in [start, end): it reads as zero and keeps
 * its blocks; holes stay holes. As ext4_ext_convert_written() otherwise. Nothing of
 * the range is in the page cache, and i_rwsem is held exclusively. -ENOSPC, -EAGAIN
 * (as ext4_alloc_blocks: a split wants a node): a part may be converted.
 */
int __must_check ext4_ext_convert_unwritten(struct handle *h, struct ext4_inode *ei,
					    lblk_t start, u64 end);
/*
 * Frees all blocks mapped in [start, end) (end: LBLK_MAX+1 for all) from the end backwards, extents
 * or indirect. Restarts the handle as needed, having written the inode (i_blocks, i_block)
 * before each restart: the caller has put the inode on the orphan list if
 * that matters. No lock but i_rwsem held; takes i_data_sem itself, dropped around restarts.
 * Metadata inodes (directories, symlinks): forget = true revokes data blocks too.
 */
int __must_check ext4_remove_blocks(struct handle *h, struct ext4_inode *ei,
				    lblk_t start, u64 end, bool forget);
u32 ext4_remove_credits(const struct ext4_inode *ei); /* to start with */
/*
 * All extents from block `start` on are to be `by` blocks further to the left (from where
 * nothing is mapped in the `by` blocks before start) or to the right. i_rwsem exclusively and
 * wb_lock are held over all of these calls, nothing of the file is under WRITEBACK, and
 * nothing from the earlier of the two places on is in the page cache.
 */
struct ext4_shift {
	lblk_t start;
	u32 by;
	bool right;
	/* by ext4_shift_look(): */
	u32 credits; /* for all of it in one transaction, without a split */
	u64 at;      /* how far it has come */
};
/* Reads all that is to be changed. -EINVAL: to the right, beyond what a file can have. */
int __must_check ext4_shift_look(struct ext4_inode *ei, struct ext4_shift *s);
/* To the right, before anything moves: an extent that begins before start ends there.
 * Credits as for one insertion. -ENOSPC, -EAGAIN, ...: nothing was changed. */
int __must_check ext4_shift_split(struct handle *h, struct ext4_inode *ei,
				  const struct ext4_shift *s);
/* May restart the handle, and leaves a valid tree before; the caller writes the inode
 * after. On an error it can be called again, in another handle, to go on. */
int __must_check ext4_shift(struct handle *h, struct ext4_inode *ei, struct ext4_shift *s);

/* ------------------------------------------------------- rename.c */
/* i_rwsem of two inodes, exclusively: a directory before others, else the lower number
 * first; they may be one, or NULL. */
void ext4_lock_inodes(struct inode *a, struct inode *b);
void ext4_unlock_inodes(struct inode *a, struct inode *b);

/* ------------------------------------------------------- map_migrate.c */
/*
 * The file, or directory, has extents from now on, or a block map; 0 also if it has. In a
 * handle of its own, after its data has been written out. i_rwsem held exclusively, no handle.
 * -EOPNOTSUPP: bigalloc, or a block map cannot say it, or would not be small; -EINVAL: inline,
 * or not a volume with extents; -EFBIG: too much for one transaction; -ENOSPC, ...
 */
int __must_check ext4_map_migrate(struct ext4_inode *ei, bool extents);

/* ---------------------------------------------------- indirect_write.c */
/*
 * Before data for holes of [lblk, lblk+nr) is taken into the page cache of a file with a
 * block map: its indirect blocks. In handles of its own; i_rwsem held, shared at least.
 * root: may use what is reserved. -ENOSPC, ...
 */
int __must_check ext4_ind_prepare(struct ext4_inode *ei, lblk_t lblk, u32 nr, bool root);
/* Data for holes from lblk on; put() writes nr blocks of it to pblk, and waits for it. */
struct ext4_ind_write {
	lblk_t lblk;
	u32 flags; /* enum ext4_create_flags; DELAYED: is used up only if all goes well */
	u64 size;  /* the size on disk grows to it, as far as the blocks reach */
	int (*put)(void *arg, pblk_t pblk, u32 nr);
	void *arg;
};
/*
 * Allocates up to *nr blocks (all holes), writes them and enters them into the map; *nr: how
 * many. All in one handle, in which put() is called. wb_lock held, and the blocks under
 * WRITEBACK; or i_rwsem exclusively, and nothing of them in the page cache. -ENOSPC and
 * what put() says, among others: nothing was changed.
 */
int __must_check ext4_ind_write(struct ext4_inode *ei, const struct ext4_ind_write *w,
				u32 *nr);

/* ------------------------------- hash.c, dir.c, htree.c, readdir.c (dir) */
/*
 * Names in directories. The caller holds the directory's i_rwsem: shared for
 * find, is_empty, dotdot, readdir; exclusive for changes. A handle for changes has
 * EXT4_DIR_*_CREDITS. None of these changes link counts or times, except that i_size and
 * i_blocks of a growing directory are updated (and the inode marked dirty in h).
 */
int __must_check ext4_dir_find(struct ext4_inode *dir, const char *name, u32 len,
			       ino_nr *ino, u8 *ftype); /* -ENOENT */
#define EXT4_DIR_ADD_CREDITS 40u /* splits at every level, with block allocation */
#define EXT4_DIR_ADD_REVOKES 8u /* to undo an addition that ran out of space half-way */
/* -EEXIST, -ENOSPC, -EAGAIN (as ext4_alloc_blocks; nothing was changed). */
int __must_check ext4_dir_add(struct handle *h, struct ext4_inode *dir, const char *name,
			      u32 len, ino_nr ino, u8 ftype);
#define EXT4_DIR_DEL_CREDITS 2u
/* Removes the entry if it names `ino`; -ENOENT. */
int __must_check ext4_dir_remove(struct handle *h, struct ext4_inode *dir,
				 const char *name, u32 len, ino_nr ino);

/*
 * Where a name was found, or was not and has room, so that the change need not search
 * again. For one name, under the directory's i_rwsem held exclusively from
 * ext4_dir_find_place() on, which fills it in whatever it returns; ends with
 * ext4_dir_place_put(). If the directory's blocks changed meanwhile (they were
 * converted, say), or nothing was found out, the change searches as usual.
 */
struct ext4_dir_place {
	struct buffer *b; /* referenced; NULL: nothing is known */
	u32 off, prev;    /* of the entry; or off: of the record with the room */
	u32 seq;          /* i_dir_seq then */
	bool found;
};
int __must_check ext4_dir_find_place(struct ext4_inode *dir, const char *name, u32 len,
				     ino_nr *ino, u8 *ftype,
				     struct ext4_dir_place *place);
void ext4_dir_place_put(struct ext4_dir_place *place);
/* As ext4_dir_add() and ext4_dir_remove(), of the name that the place was found for. */
int __must_check ext4_dir_add_place(struct handle *h, struct ext4_inode *dir,
				    const struct ext4_dir_place *place,
				    const char *name, u32 len, ino_nr ino, u8 ftype);
int __must_check ext4_dir_remove_place(struct handle *h, struct ext4_inode *dir,
				       const struct ext4_dir_place *place,
				       const char *name, u32 len, ino_nr ino);
/* Makes the existing entry name another inode (rename over, exchange). */
int __must_check ext4_dir_replace(struct handle *h, struct ext4_inode *dir,
				  const char *name, u32 len, ino_nr ino, u8 ftype);
/* First block of a new directory: "." and ".."; allocates it. */
int __must_check ext4_dir_init(struct handle *h, struct ext4_inode *dir, ino_nr parent);
int __must_check ext4_dir_get_dotdot(struct ext4_inode *dir, ino_nr *parent);
int __must_check ext4_dir_set_dotdot(struct handle *h, struct ext4_inode *dir, ino_nr parent);
int __must_check ext4_dir_is_empty(struct ext4_inode *dir, bool *empty);
bool ext4_dir_is_indexed(const struct ext4_inode *dir);

/*
 * dir_peek.c: the same as ext4_dir_find() without i_rwsem, in an RCU read-side
 * section, in which `dir` was found usable. What it says is true if _valid() says
 * so after it, with the number that _begin() gave (false: not now).
 * 0, -ENOENT, or -EAGAIN: only ext4_dir_find() can tell.
 */
bool ext4_dir_peek_begin(const struct ext4_inode *dir, u32 *seq);
bool ext4_dir_peek_valid(const struct ext4_inode *dir, u32 seq);
int __must_check ext4_dir_peek(const struct ext4_inode *dir, const char *name, u32 len,
			       ino_nr *ino);
/* The inode leaves the cache: nobody finds names by it any more. */
void ext4_dir_peek_end(struct ext4_inode *dir);

/*
 * Lists from cookie *pos (0: start) in stable order (hash order; brief 7.7):
 * calls emit for each entry with the cookie that continues after it, until emit returns
 * nonzero (that entry was not taken) or the end. "." and ".." come first. The cursor caches a sorted
 * range between calls of one open directory; it may be NULL. Survives insertions,
 * deletions and conversion: an entry present all the time is emitted exactly once.
 */
struct ext4_dir_cursor;
typedef int (*ext4_dir_emit)(void *priv, const char *name, u32 len, ino_nr ino,
			     u8 ftype, u64 next_pos);
int __must_check ext4_readdir(struct ext4_inode *dir, struct ext4_dir_cursor *cur,
			      u64 *pos, ext4_dir_emit emit, void *priv);
struct ext4_dir_cursor *ext4_dir_cursor_new(void);
void ext4_dir_cursor_free(struct ext4_dir_cursor *cur);

struct ext4_dirhash { u32 major, minor; };
/* version 0-5; seed: 4 words, or NULL for the default. */
int __must_check ext4_dirhash(const char *name, u32 len, u32 version,
			      const u32 *seed, struct ext4_dirhash *out);

/* -------------------------------------------------------------- inline.c */
/* Content that lies in the inode (EXT4_INLINE_DATA_FL), from a copy made when the
 * inode is read; i_rwsem held. raw: the whole inode. -EFSCORRUPTED, -ENOMEM. */
int __must_check ext4_inline_load(struct ext4_inode *ei, const void *raw);
/* [pos, pos+len) must be inside i_size. */
void ext4_inline_read(const struct ext4_inode *ei, u64 pos, void *buf, size_t len);
int __must_check ext4_inline_parent(const struct ext4_inode *dir, ino_nr *parent);
int __must_check ext4_inline_find(const struct ext4_inode *dir, const char *name, u32 len,
				  ino_nr *ino, u8 *ftype);
/* As ext4_readdir() behind "." and "..". */
/* Calls emit for each entry of that content of a directory, until it returns other than
 * 0, which is returned. -EFSCORRUPTED (reported). */
typedef int (*ext4_inline_emit)(void *priv, const char *name, u32 len, ino_nr ino,
				u8 ftype);
int __must_check ext4_inline_walk(const struct ext4_inode *dir, const u8 *content, u64 size,
				  ext4_inline_emit emit, void *priv);
/*
 * Before a change of a file or directory, also the last: the content gets a block. i_rwsem
 * held exclusively, no handle. 0 also if nothing is inline. -ENOSPC, -EROFS, -EFSCORRUPTED, ...
 */
int __must_check ext4_inline_convert(struct ext4_inode *ei);
/* As ext4_dir_set_dotdot(); the directory stays inline. */
int __must_check ext4_inline_set_parent(struct handle *h, struct ext4_inode *dir,
					ino_nr parent);

/* ------------------------------------- super.c, feature.c, error.c (lead) */
extern const struct buffer_type ext4_super_type;
/* Decodes and checks the superblock into sbi (features, geometry, seeds). what: for
 * messages. -EINVAL (no ext4), -EFSCORRUPTED, -EFSBADCRC. */
int __must_check ext4_super_decode(struct ext4_sb *sbi, const struct ext4_super_block *es,
				   u64 device_bytes);
/* The policy of features: 0; -EOPNOTSUPP (refused, logged); *ro is set, with a message in why
 * (static), if only read-only will do. */
int __must_check ext4_feature_check(struct ext4_sb *sbi, bool *ro, char *why, size_t whylen);
void ext4_super_csum_set(const struct ext4_sb *sbi, struct ext4_super_block *es);
/* Writes the error record straight to the primary superblock on disk (journal aborted). */
void ext4_error_write_super(struct ext4_sb *sbi);
void ext4_on_journal_abort(struct ext4_sb *sbi, int error);

/* -------------------------------------------------------- inode.c (lead) */
/* One credit is enough: the inode's table block. */
#define EXT4_INODE_CREDITS 1u
/* Writes the inode in memory into its table buffer, inside h. Any time in a handle;
 * takes i_data_sem (shared) and b_lock. Updates i_sync_tid. datasync: size or mapping changed. */
int __must_check ext4_mark_inode_dirty(struct handle *h, struct ext4_inode *ei);
/* Before a change that must be stored: after it only an abort can keep
 * ext4_mark_inode_dirty() from it, until h is restarted. */
int __must_check ext4_inode_access(struct handle *h, struct ext4_inode *ei);
/*
 * The same in two steps. prepare: what can fail; the inode's table buffer, referenced and
 * with write access, and where in it the inode is. Between the two the caller may change what
 * lies behind the fields, under b_lock. finish: consumes the reference; takes i_data_sem.
 */
int __must_check ext4_inode_prepare(struct handle *h, struct ext4_inode *ei,
				    struct buffer **out, u32 *offset);
void ext4_inode_finish(struct handle *h, struct ext4_inode *ei, struct buffer *b,
		       u32 offset);
int __must_check ext4_mark_inode_datasync(struct handle *h, struct ext4_inode *ei);
/* i_blocks += that many clusters (blocks without bigalloc), charged to the owner in h
 * (i_lock inside). A block of metadata has a cluster to itself. */
void ext4_inode_add_clusters(struct handle *h, struct ext4_inode *ei, s64 clusters);
/*
 * May so many blocks come to ei? -EFBIG: without huge_file i_blocks has 32 bits. That a file
 * can't be larger (ext4_max_size()) does not suffice: nodes of the extent tree count, too,
 * and with bigalloc as a cluster each. No lock, or i_data_sem.
 */
int __must_check ext4_may_have(struct ext4_inode *ei, u64 blocks);
bool ext4_ino_is_exposed(const struct ext4_sb *sbi, ino_nr ino); /* root, or not reserved */
/* Those of the flags that an inode of this type may have. flags.c */
u32 ext4_flags_of_type(u32 flags, u32 mode);
/* May what ei is get a name in dir? Not if dir hands its project down, and ei has
 * another: then -EXDEV. */
int __must_check ext4_may_enter(const struct ext4_inode *dir,
				const struct ext4_inode *ei);
/* A new inode in h, linked nowhere: in the cache, I_NEW, one reference. */
int __must_check ext4_new_inode(struct handle *h, struct ext4_inode *dir, u32 mode,
				const struct sl_cred *cred, u64 rdev, struct inode **out);
/* The group that a new inode in dir belongs to. */
u32 ext4_new_gid(const struct ext4_inode *dir, const struct sl_cred *cred);
/* Before the handle in which ext4_new_inode() is called; i_rwsem of dir held exclusively.
 * -ENOSPC, ... */
int __must_check ext4_prepare_new(struct ext4_inode *dir, const struct sl_cred *cred);
void ext4_set_size(struct ext4_inode *ei, u64 size); /* i_size, in memory */
void ext4_stat_of(const struct super_block *sb, ino_nr ino,
		  const struct inode_attrs *a, struct stat *st);
void ext4_touch(struct ext4_inode *ei, u32 which);   /* now; EXT4_T_* */
#define EXT4_T_ATIME 1u
#define EXT4_T_MTIME 2u
#define EXT4_T_CTIME 4u

extern const struct super_ops ext4_super_ops;
/*
 * There was no space, but some may come: frees await a commit (-EAGAIN: commits),
 * or inodes are on their way to be deleted (-ENOSPC: waits for some, as
 * ext4_wait_deletions()). True: try again, a few times at most by *tries (0 at
 * first). False: give up with -ENOSPC. No handle, no no-sleep lock held.
 */
bool ext4_should_retry(struct ext4_sb *sbi, int err, int *tries);
/* The inode is to be deleted as soon as nobody knows it: no links, not open. */
void ext4_note_dying(struct ext4_inode *ei);
/*
 * Sleeps until one of the dying inodes is gone; not long, if none is. True if
 * one went. A file's space is free when its last name is removed, users think;
 * but the kernel's word that it forgot the inode follows the answer to unlink,
 * and large files take their time. An inode that somebody keeps, as his current
 * directory for one, is waited for during its first second only.
 * Locks: i_rwsem may be held, a handle not.
 */
bool ext4_wait_deletions(struct ext4_sb *sbi);
/* A step that must not be left undone got err: if that is -ENOMEM, waits as
 * mem_pause() does and is true: try again. *tries: 0 at first. No handle held. */
bool ext4_retry_nomem(int err, int *tries);
/* May the caller use the blocks reserved for the superuser? NULL: yes. */
bool ext4_is_privileged(const struct ext4_sb *sbi, const struct sl_cred *cred);
/* -EROFS when nothing may be changed. */
int __must_check ext4_may_write(struct ext4_sb *sbi);
/* Ends h; with the sync rules of mount options and flags of inodes a, b (may be
 * NULL) waits for the commit. err: the result so far; an earlier error wins. */
int ext4_stop_sync(struct handle *h, int err, struct ext4_inode *a, struct ext4_inode *b);
extern const struct buffer_type ext4_symlink_type;

/* -------------------------------- mmp.c */
/*
 * Makes sure that nobody else has the volume mounted, and says to others from then on
 * that we do; before anything of the volume is written. Waits for seconds or minutes
 * when the last mount did not end properly. -EBUSY: in use; -EFSCORRUPTED,
 * -EFSBADCRC, -EIO: by the block that is for this; -ENOMEM. Each is logged.
 */
int __must_check ext4_mmp_start(struct ext4_sb *sbi);
/* After the last write to the volume. Also if it was not started. */
void ext4_mmp_stop(struct ext4_sb *sbi);
extern u64 ext4_mmp_second_ns; /* tests make it shorter */

/* -------------------------------- file.c, truncate.c, writepages.c (lead) */
/* After a read, a listing, a readlink: the access time, by the mount's rules. No lock. */
void ext4_touch_atime(struct inode *inode);
/* A part of the file that is not in its page cache, from the device; holes are zero.
 * Past the caches: the caller knows that nothing newer is there. */
int __must_check ext4_read_device(struct ext4_inode *ei, u64 pos, u8 *buf, u32 len);
u32 ext4_file_flags(const struct sl_file *f); /* enum sl_open_flags */
/* What changes the file through f is to be durable when the call returns. */
bool ext4_file_syncs(const struct sl_file *f);
/* May [pos, pos+len) of the file be written, by flags, type and size? -EROFS,
 * -EINVAL, -EPERM, -EFBIG (pos is beyond the largest size). */
int __must_check ext4_write_allowed(struct ext4_inode *ei, u64 pos, u64 len);
/* suid and sgid go when others write: at once, in the journal. foreign: by one
 * who is not of the file's group, so that sgid goes in any case. No lock held. */
int __must_check ext4_kill_suidgid(struct ext4_inode *ei, bool foreign);
/* shift.c: [off, off+len) goes, or comes as a hole; what is behind moves. i_rwsem held
 * exclusively. -EINVAL, -EFBIG, -EOPNOTSUPP, -ETXTBSY, -ENOSPC, ... */
int __must_check ext4_collapse_range(struct ext4_inode *ei, u64 off, u64 len);
int __must_check ext4_insert_range(struct ext4_inode *ei, u64 off, u64 len);
/*
 * Writes what is dirty of blocks [start, end), and drops all of them from the page cache: what
 * is absent then stays so. i_rwsem held exclusively, i_shifting set. On success wb_lock is held,
 * and nothing of the file under WRITEBACK; with an error it is not held.
 */
int __must_check ext4_empty_cache(struct ext4_inode *ei, lblk_t start, lblk_t end);
/* i_rwsem held exclusively. To any size. */
int __must_check ext4_truncate(struct ext4_inode *ei, u64 size);
/* Before i_size grows beyond an unaligned old end: the rest of its block reads as zero. i_rwsem exclusive. */
int __must_check ext4_zero_tail(struct ext4_inode *ei, u64 old_size);
/* Brings block lblk into the page cache. i_rwsem exclusive. */
int __must_check ext4_fill_block(struct ext4_inode *ei, lblk_t lblk);
/*
 * [pos, pos+len), len > 0, inside one block, reads as zero. 1: the block is dirty
 * now and has, or is promised, a place on disk; 0: it read as zero before, there is
 * nothing to be written. i_rwsem exclusive.
 */
int __must_check ext4_zero_block(struct ext4_inode *ei, u64 pos, u32 len);
/*
 * Gives the first hole at or after *lblk, if it is before end, blocks: as
 * unwritten extents, in a handle of its own; *lblk goes to what follows it.
 * i_rwsem held, shared at least. root: may use what is reserved. -ENOSPC, ...
 */
int __must_check ext4_preallocate(struct ext4_inode *ei, lblk_t *lblk, lblk_t end,
				  bool root);
/*
 * Writes what can go directly at the front of [pos, pos+len): whole blocks, past the
 * page cache. Returns the bytes written, 0 if it is none of that kind; *err: why it
 * stopped, -ENOSPC among others. Takes i_rwsem exclusively; sleeps for I/O. direct.c
 */
size_t ext4_direct_write(struct ext4_inode *ei, const void *buf, size_t len,
			 u64 pos, bool root, bool keep_times, int *err);
/*
 * The data of [lblk, lblk+nr) is on the device: what is unwritten becomes written, and the
 * size on disk grows to disksize if it is less, in a handle of its own.
 */
int __must_check ext4_convert_written(struct ext4_inode *ei, lblk_t lblk, u32 nr,
				      u64 disksize);
/* super_ops->write_inode */
int ext4_write_inode(struct inode *inode, struct wb_control *wbc);
/* All dirty data of [start, end) written and converted. */
int __must_check ext4_write_range(struct ext4_inode *ei, lblk_t start, lblk_t end);
/* Everything of the inode that is dirty is in the journal, and its data down. */
int __must_check ext4_sync_inode(struct ext4_inode *ei, bool datasync);
u64 ext4_max_size(const struct ext4_inode *ei);
u64 ext4_map_max_size(const struct ext4_sb *sbi); /* what a block map can hold, bytes */

/* ------------------------------------------------------------ readahead.c */
struct access;
/* A thread of the volume; after the caches were made. -ENOMEM, -EAGAIN. */
int __must_check ext4_readahead_start(struct ext4_sb *sbi);
/* Gives back the inodes that stand in the queue: while they can still be evicted, and
 * nobody reads any more. Idempotent. */
void ext4_readahead_stop(struct ext4_sb *sbi);
/* The handle has read [pos, pos+len), and noted it: what it will want next is brought
 * into the cache meanwhile, if that is worth it. Does not wait. No lock held. */
void ext4_read_ahead(struct inode *inode, struct access *a, u64 pos, u64 len);

#endif
