/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/inode.c - inodes: from disk, to disk, new ones, attributes, deletion
 *
 * The inode in memory is decoded once and checked; ext4_mark_inode_dirty()
 * puts it back into its table block inside a handle, touching only the fields
 * this code knows, so that in-body attributes and later extensions survive.
 * Times and sizes that a write changed may be newer in memory than in the
 * journal (I_DIRTY_INODE): the flusher and fsync write those.
 *
 * Deletion happens when the cache says that nobody knows the inode any more
 * (evict_inode with delete): blocks are removed in as many transactions as it
 * takes, with the inode on the orphan list; the last one frees the number.
 *
 * Locks:   i_rwsem (callers) -> handle -> i_data_sem, b_lock -> i_lock
 * Source:  ext4-format brief 5, 9; Documentation/filesystems/ext4/inodes.rst
 */
#include "fs/acl.h"
#include "fs/quota.h"
#include "fs/xattr_internal.h"
#include "lib/crc.h"
#include "lib/mem.h"
#include "lib/wait.h"

#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <time.h>

const struct buffer_type ext4_symlink_type = { .name = "symlink" };

/* ------------------------------------------------------------- memory */

static struct inode *alloc_inode(struct super_block *sb)
{
	struct inode *inode = inode_alloc_memory(sb, sizeof(struct ext4_inode));
	struct ext4_inode *ei;

	if (!inode)
		return NULL;
	ei = EXT4_I(inode);
	inode->i_sb = sb;
	inode_init_once(&ei->vfs);
	rwsem_init(&ei->i_data_sem, RANK_I_DATA);
	mutex_init(&ei->xattr_sem, RANK_XATTR);
	mutex_init(&ei->wb_lock, RANK_WRITEBACK);
	CDS_INIT_LIST_HEAD(&ei->i_orphan);
	ei->i_orphan_slot = -1;
	return &ei->vfs;
}

static void free_inode(struct inode *inode)
{
	struct ext4_inode *ei = EXT4_I(inode);

	assert(!ei->i_dir_map);
	free(ei->i_inline);
	mutex_destroy(&ei->wb_lock);
	mutex_destroy(&ei->xattr_sem);
	rwsem_destroy(&ei->i_data_sem);
	inode_destroy_locks(inode);
	inode_free_memory(inode);
}

bool ext4_ino_is_exposed(const struct ext4_sb *sbi, ino_nr ino)
{
	if (ino == EXT4_ROOT_INO)
		return true;
	return ino >= sbi->first_ino && ino <= sbi->inodes_count &&
	       ino != sbi->orphan_file_ino && ino != sbi->journal_ino &&
	       ino != sbi->prj_quota_ino;
}

/* ----------------------------------------------------------- from disk */

/* Is the field inside the extra part of this inode? */
#define FITS_EXTRA(extra, field)                                               \
	((extra) && offsetof(struct ext4_inode_disk, field) + 4 <=             \
			    EXT4_GOOD_OLD_INODE_SIZE + (u32)(extra))

/* A field that an inode of 128 bytes does not have: nothing is read behind it. */
#define EXTRA_WORD(di, extra, field)                                           \
	(FITS_EXTRA(extra, field) ? le32_to_cpu((di)->field) : 0)

static struct timespec get_time(le32 lo, u32 extra, bool has_extra)
{
	struct timespec t = { .tv_sec = (s32)le32_to_cpu(lo) };

	if (has_extra) {
		t.tv_sec += (s64)(extra & 3) << 32;
		t.tv_nsec = extra >> 2;
		if (t.tv_nsec >= 1000000000)
			t.tv_nsec = 0;
	}
	return t;
}

/* The bytes around the two halves of the checksum, in whole words. */
#define CSUM_FROM 120u
#define CSUM_TO 136u

/* Over the whole inode, the checksum itself as 0. */
static u32 inode_csum(const struct ext4_sb *sbi, u32 seed, const u8 *raw)
{
	const size_t lo = offsetof(struct ext4_inode_disk, i_checksum_lo);
	const size_t hi = offsetof(struct ext4_inode_disk, i_checksum_hi);
	const struct ext4_inode_disk *di = (const void *)raw;
	size_t to = min_of((size_t)CSUM_TO, (size_t)sbi->inode_size);
	bool has_hi = to > EXT4_GOOD_OLD_INODE_SIZE &&
		      le16_to_cpu(di->i_extra_isize) >= 4;
	u8 part[CSUM_TO - CSUM_FROM];
	u32 crc = crc32c(seed, raw, CSUM_FROM);

	memcpy(part, raw + CSUM_FROM, to - CSUM_FROM);
	memset(part + (lo - CSUM_FROM), 0, 2);
	if (has_hi)
		memset(part + (hi - CSUM_FROM), 0, 2);
	crc = crc32c(crc, part, to - CSUM_FROM);
	crc = crc32c(crc, raw + to, sbi->inode_size - to);
	return has_hi ? crc : crc & 0xFFFF;
}

static u32 stored_csum(const struct ext4_sb *sbi, const struct ext4_inode_disk *di)
{
	u32 crc = le16_to_cpu(di->i_checksum_lo);

	if (sbi->inode_size > EXT4_GOOD_OLD_INODE_SIZE &&
	    le16_to_cpu(di->i_extra_isize) >= 4)
		crc |= (u32)le16_to_cpu(di->i_checksum_hi) << 16;
	return crc;
}

static u32 inode_seed(const struct ext4_sb *sbi, ino_nr ino, u32 generation)
{
	le32 of[2] = { cpu_to_le32(ino), cpu_to_le32(generation) };

	return crc32c(sbi->csum_seed, of, sizeof(of));
}

bool ext4_inode_csum_ok(const struct ext4_sb *sbi, ino_nr ino, const void *raw)
{
	const struct ext4_inode_disk *di = raw;
	u32 seed;

	if (!sbi->has_csum)
		return true;
	seed = inode_seed(sbi, ino, le32_to_cpu(di->i_generation));
	return inode_csum(sbi, seed, raw) == stored_csum(sbi, di);
}

/* Has it a block map, or will it have one when it leaves its inode? */
static bool has_block_map(const struct ext4_inode *ei)
{
	u32 flags = ei->vfs.i_flags;

	if (flags & EXT4_INLINE_DATA_FL)
		return !ext4_new_map_flag(ext4_sb_of(ei));
	return !(flags & EXT4_EXTENTS_FL);
}

u64 ext4_map_max_size(const struct ext4_sb *sbi)
{
	/* Indirect: 12 + n + n^2 + n^3 blocks. */
	u64 n = sbi->s.s_blocksize / 4;
	u64 blocks = 12 + n + n * n + n * n * n;

	return min_of(blocks, (u64)LBLK_MAX) << sbi->s.s_blocksize_bits;
}

/* What the extents or the block map can hold. */
static u64 map_max_size(const struct ext4_inode *ei)
{
	const struct ext4_sb *sbi = ext4_sb_of(ei);

	if (!has_block_map(ei))
		return (u64)0xFFFFFFFFu << sbi->s.s_blocksize_bits;
	return ext4_map_max_size(sbi);
}

/* Without huge_file i_blocks counts up to 2^32 sectors, holes or not; of a block map
 * also those of the map. */
u64 ext4_max_size(const struct ext4_inode *ei)
{
	const struct ext4_sb *sbi = ext4_sb_of(ei);
	u8 bits = sbi->s.s_blocksize_bits;
	u64 max = map_max_size(ei), blocks = UINT32_MAX >> (bits - 9);

	if (has_block_map(ei)) {
		u64 n = sbi->s.s_blocksize / 4;

		/* All that a map of three levels has, or what that many blocks need. */
		blocks -= min_of(3 + 2 * n + n * n, blocks / n + blocks / n / n + 4);
	}
	if (!ext4_has_ro_compat(sbi, HUGE_FILE))
		max = min_of(max, blocks << bits);
	return max;
}

#define bad_inode(sbi, ino, ...)                                               \
	ext4_error(sbi, ino, 0, -EFSCORRUPTED, __VA_ARGS__)

static int check_inode(struct ext4_inode *ei)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	struct inode *inode = &ei->vfs;
	u32 flags = inode->i_flags;

	switch (inode->i_mode & S_IFMT) {
	case S_IFREG:
	case S_IFDIR:
	case S_IFLNK:
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		break;
	default:
		/* Reserved inodes may have no type at all. */
		if (ext4_ino_is_exposed(sbi, inode->i_ino))
			return bad_inode(sbi, inode->i_ino, "bogus mode 0%o",
					 inode->i_mode);
	}
	/* No program makes such, not even empty: what shares a cluster could not be
	 * found. A symlink that is its own target, and devices, have no map at all. */
	if (sbi->cluster_bits && has_block_map(ei) &&
	    (S_ISREG(inode->i_mode) || S_ISDIR(inode->i_mode)))
		return bad_inode(sbi, inode->i_ino, "block map with bigalloc");
	if (flags & EXT4_INLINE_DATA_FL && !ext4_has_incompat(sbi, INLINE_DATA))
		return bad_inode(sbi, inode->i_ino,
				 "inline data without the feature");
	if (flags & (EXT4_ENCRYPT_FL | EXT4_CASEFOLD_FL))
		return bad_inode(sbi, inode->i_ino,
				 "encrypted or casefolded without the feature");
	if (inode->i_size > map_max_size(ei))
		return bad_inode(sbi, inode->i_ino, "size %llu is impossible",
				 (unsigned long long)inode->i_size);
	if (S_ISDIR(inode->i_mode) &&
	    (!inode->i_size || inode->i_size & (sbi->s.s_blocksize - 1)) &&
	    inode->i_nlink && !(flags & EXT4_INLINE_DATA_FL))
		return bad_inode(sbi, inode->i_ino, "directory of %llu bytes",
				 (unsigned long long)inode->i_size);
	if (S_ISLNK(inode->i_mode) && inode->i_size >= sbi->s.s_blocksize)
		return bad_inode(sbi, inode->i_ino, "symlink of %llu bytes",
				 (unsigned long long)inode->i_size);
	if (ei->i_file_acl && !ext4_block_range_ok(sbi, ei->i_file_acl, 1))
		return bad_inode(sbi, inode->i_ino,
				 "attribute block %llu is not a data block",
				 (unsigned long long)ei->i_file_acl);
	if (flags & EXT4_EXTENTS_FL && !(flags & EXT4_INLINE_DATA_FL))
		return ext4_ext_check_root(ei);
	return 0;
}

static void load_extra(struct ext4_inode *ei, const struct ext4_inode_disk *di)
{
	struct inode *inode = &ei->vfs;
	u16 extra = ei->i_extra_isize;

	inode->i_ctime = get_time(di->i_ctime, EXTRA_WORD(di, extra, i_ctime_extra),
				  FITS_EXTRA(extra, i_ctime_extra));
	inode->i_mtime = get_time(di->i_mtime, EXTRA_WORD(di, extra, i_mtime_extra),
				  FITS_EXTRA(extra, i_mtime_extra));
	inode->i_atime = get_time(di->i_atime, EXTRA_WORD(di, extra, i_atime_extra),
				  FITS_EXTRA(extra, i_atime_extra));
	if (FITS_EXTRA(extra, i_crtime))
		inode->i_crtime =
			get_time(di->i_crtime, EXTRA_WORD(di, extra, i_crtime_extra),
				 FITS_EXTRA(extra, i_crtime_extra));
	ei->i_projid = FITS_EXTRA(extra, i_projid) ? le32_to_cpu(di->i_projid) : 0;
	inode->i_version = le32_to_cpu(di->i_version_lo);
	if (FITS_EXTRA(extra, i_version_hi))
		inode->i_version |= (u64)le32_to_cpu(di->i_version_hi) << 32;
}

static void load_blocks(struct ext4_inode *ei, const struct ext4_inode_disk *di)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	u64 n = le32_to_cpu(di->i_blocks_lo);

	if (ext4_has_ro_compat(sbi, HUGE_FILE)) {
		n |= (u64)le16_to_cpu(di->i_blocks_high) << 32;
		if (ei->vfs.i_flags & EXT4_HUGE_FILE_FL)
			n <<= sbi->s.s_blocksize_bits - 9;
	}
	ei->vfs.i_blocks = n;
}

static void load_rdev(struct ext4_inode *ei)
{
	le32 w[2];
	u32 v;

	if (!S_ISCHR(ei->vfs.i_mode) && !S_ISBLK(ei->vfs.i_mode))
		return;
	memcpy(w, ei->i_block, sizeof(w));
	v = le32_to_cpu(w[0]);
	if (v) {
		ei->vfs.i_rdev = makedev(v >> 8 & 0xFF, v & 0xFF);
		return;
	}
	v = le32_to_cpu(w[1]);
	ei->vfs.i_rdev = makedev((v & 0xFFF00) >> 8,
				 (v & 0xFF) | ((v >> 12) & 0xFFF00));
}

static void store_rdev(u8 *i_block, u64 rdev)
{
	u32 ma = major(rdev), mi = minor(rdev);
	le32 w[2] = { { 0 }, { 0 } };

	if (ma < 256 && mi < 256)
		w[0] = cpu_to_le32(ma << 8 | mi);
	else
		w[1] = cpu_to_le32((mi & 0xFF) | ma << 8 | (mi & ~0xFFu) << 12);
	memcpy(i_block, w, sizeof(w));
}

/* csum_ok: the caller has looked. */
static int load_inode_raw(struct ext4_inode *ei, const void *raw, bool csum_ok)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	const struct ext4_inode_disk *di = raw;
	struct inode *inode = &ei->vfs;
	int err;

	inode->i_generation = le32_to_cpu(di->i_generation);
	ei->i_csum_seed = inode_seed(sbi, inode->i_ino, inode->i_generation);
	ei->i_group = ext4_inode_group(sbi, inode->i_ino);
	inode->i_mode = le16_to_cpu(di->i_mode);
	inode->i_nlink = le16_to_cpu(di->i_links_count);
	if (!inode->i_nlink && !sbi->orphan_recovery)
		return -ESTALE;
	ei->i_extra_isize = 0;
	if (sbi->inode_size > EXT4_GOOD_OLD_INODE_SIZE) {
		ei->i_extra_isize = le16_to_cpu(di->i_extra_isize);
		if (ei->i_extra_isize % 4 ||
		    ei->i_extra_isize >
			    sbi->inode_size - EXT4_GOOD_OLD_INODE_SIZE)
			return bad_inode(sbi, inode->i_ino, "extra size %u",
					 ei->i_extra_isize);
	}
	if (sbi->has_csum && !csum_ok &&
	    inode_csum(sbi, ei->i_csum_seed, raw) != stored_csum(sbi, di))
		return ext4_error(sbi, inode->i_ino, 0, -EFSBADCRC,
				  "inode checksum is wrong");
	inode->i_uid = le16_to_cpu(di->i_uid) |
		       (u32)le16_to_cpu(di->i_uid_high) << 16;
	inode->i_gid = le16_to_cpu(di->i_gid) |
		       (u32)le16_to_cpu(di->i_gid_high) << 16;
	inode->i_flags = le32_to_cpu(di->i_flags);
	inode->i_size = le32_to_cpu(di->i_size_lo);
	if (S_ISREG(inode->i_mode) || S_ISDIR(inode->i_mode))
		inode->i_size |= (u64)le32_to_cpu(di->i_size_high) << 32;
	ei->i_disksize = inode->i_size;
	ei->i_dtime = le32_to_cpu(di->i_dtime);
	ei->i_file_acl = le32_to_cpu(di->i_file_acl_lo);
	if (sbi->has_64bit)
		ei->i_file_acl |= (u64)le16_to_cpu(di->i_file_acl_high) << 32;
	memcpy(ei->i_block, di->i_block, sizeof(ei->i_block));
	load_blocks(ei, di);
	load_extra(ei, di);
	load_rdev(ei);
	err = check_inode(ei);
	if (!err && ei->i_extra_isize) {
		err = ext4_xattr_check_ibody(sbi, raw, sbi->inode_size,
					     ei->i_extra_isize);
		if (err)
			ext4_error(sbi, inode->i_ino, 0, err,
				   "attributes in the inode are damaged");
	}
	if (!err)
		ext4_xattr_note(ei, raw);
	if (!err && inode->i_flags & EXT4_INLINE_DATA_FL) {
		err = ext4_inline_load(ei, raw);
		if (err == -EFSCORRUPTED)
			bad_inode(sbi, inode->i_ino,
				  "inline data of %llu bytes is not there",
				  (unsigned long long)inode->i_size);
	}
	return err;
}

int ext4_load_inode_raw(struct ext4_inode *ei, const void *raw)
{
	return load_inode_raw(ei, raw, false);
}

int ext4_load_inode_checked(struct ext4_inode *ei, const void *raw)
{
	return load_inode_raw(ei, raw, true);
}

/*
 * What changed the inode before it left the cache may not have been committed
 * yet. An fsync waits for the transaction that runs now: no change that the
 * table block shows is of a later one.
 */
static void set_sync_tids(struct ext4_inode *ei)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	jtid_t tid;

	if (!sbi->journal)
		return;
	tid = journal_running_tid(sbi->journal);
	atomic_store(&ei->i_sync_tid, tid);
	atomic_store(&ei->i_datasync_tid, tid);
}

static int join_journal(struct inode *inode, void *priv)
{
	set_sync_tids(EXT4_I(inode));
	return INO_ITER_RET_CONT;
}

void ext4_inodes_join_journal(struct ext4_sb *sbi)
{
	/* fn gives no error. */
	(void)!super_iter_inodes(&sbi->s, join_journal, NULL, 0);
}

static int read_inode(struct inode *inode)
{
	struct ext4_sb *sbi = EXT4_SB(inode->i_sb);
	struct buffer *b;
	u32 offset;
	u8 *raw;
	int err;

	raw = malloc(sbi->inode_size);
	if (!raw)
		return -ENOMEM;
	err = ext4_inode_buffer(sbi, inode->i_ino, false, &b, &offset);
	if (!err) {
		mutex_lock(&b->b_lock);
		memcpy(raw, b->b_data + offset, sbi->inode_size);
		mutex_unlock(&b->b_lock);
		buffer_put(b);
		err = ext4_load_inode_raw(EXT4_I(inode), raw);
	}
	set_sync_tids(EXT4_I(inode));
	free(raw);
	return err;
}

/* ------------------------------------------------------------- to disk */

#define TIME_MAX_EXTRA ((3LL << 32) + INT32_MAX)

static void put_time(le32 *lo, le32 *extra, bool has_extra, struct timespec t)
{
	s64 sec = t.tv_sec;

	if (!has_extra) { /* 32 bits: clamp, do not wrap */
		sec = min_of(max_of(sec, (s64)INT32_MIN), (s64)INT32_MAX);
		*lo = cpu_to_le32((u32)sec);
		return;
	}
	/* Range 1901-2446: the epoch bits add multiples of 2^32 seconds. */
	sec = min_of(max_of(sec, (s64)INT32_MIN), TIME_MAX_EXTRA);
	*lo = cpu_to_le32((u32)sec);
	*extra = cpu_to_le32((u32)(((sec - (s32)sec) >> 32) & 3) |
			     (u32)t.tv_nsec << 2);
}

static void store_blocks(struct ext4_sb *sbi, struct inode *inode,
			 struct ext4_inode_disk *di, u32 *flags)
{
	u64 n = inode->i_blocks;

	*flags &= ~(u32)EXT4_HUGE_FILE_FL;
	if (ext4_has_ro_compat(sbi, HUGE_FILE)) {
		if (n >> 48) {
			*flags |= EXT4_HUGE_FILE_FL;
			n >>= sbi->s.s_blocksize_bits - 9;
		}
		di->i_blocks_high = cpu_to_le16((u16)(n >> 32));
	}
	di->i_blocks_lo = cpu_to_le32((u32)n);
}

/* i_data_sem (shared) and b_lock held: the inode as it is now, into its slot. */
static void store_inode(struct ext4_inode *ei, u8 *raw)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	struct inode *inode = &ei->vfs;
	struct ext4_inode_disk *di = (void *)raw;
	u16 extra = ei->i_extra_isize;
	u32 flags, crc;
	u64 size;

	spin_lock(&inode->i_lock);
	flags = inode->i_flags;
	di->i_mode = cpu_to_le16((u16)inode->i_mode);
	di->i_uid = cpu_to_le16((u16)inode->i_uid);
	di->i_uid_high = cpu_to_le16((u16)(inode->i_uid >> 16));
	di->i_gid = cpu_to_le16((u16)inode->i_gid);
	di->i_gid_high = cpu_to_le16((u16)(inode->i_gid >> 16));
	di->i_links_count = cpu_to_le16((u16)inode->i_nlink);
	size = S_ISREG(inode->i_mode) ? ei->i_disksize : inode->i_size;
	store_blocks(sbi, inode, di, &flags);
	if (inode->i_flags != flags)
		inode->i_flags = flags;
	put_time(&di->i_ctime, &di->i_ctime_extra,
		 FITS_EXTRA(extra, i_ctime_extra), inode->i_ctime);
	put_time(&di->i_mtime, &di->i_mtime_extra,
		 FITS_EXTRA(extra, i_mtime_extra), inode->i_mtime);
	put_time(&di->i_atime, &di->i_atime_extra,
		 FITS_EXTRA(extra, i_atime_extra), inode->i_atime);
	if (FITS_EXTRA(extra, i_crtime_extra))
		put_time(&di->i_crtime, &di->i_crtime_extra, true,
			 inode->i_crtime);
	if (FITS_EXTRA(extra, i_projid))
		di->i_projid = cpu_to_le32(ei->i_projid);
	di->i_version_lo = cpu_to_le32((u32)inode->i_version);
	if (FITS_EXTRA(extra, i_version_hi))
		di->i_version_hi = cpu_to_le32((u32)(inode->i_version >> 32));
	spin_unlock(&inode->i_lock);

	di->i_flags = cpu_to_le32(flags);
	di->i_size_lo = cpu_to_le32((u32)size);
	if (S_ISREG(inode->i_mode) || S_ISDIR(inode->i_mode))
		di->i_size_high = cpu_to_le32((u32)(size >> 32));
	/* Joins this transaction: pre_commit writes the superblock. */
	if (size > INT32_MAX && S_ISREG(inode->i_mode) &&
	    !ext4_has_ro_compat(sbi, LARGE_FILE))
		sbi->features_ro_compat |= EXT4_RO_COMPAT_LARGE_FILE;
	di->i_dtime = cpu_to_le32(ei->i_dtime);
	di->i_generation = cpu_to_le32(inode->i_generation);
	di->i_file_acl_lo = cpu_to_le32((u32)ei->i_file_acl);
	if (sbi->has_64bit)
		di->i_file_acl_high = cpu_to_le16((u16)(ei->i_file_acl >> 32));
	if (sbi->inode_size > EXT4_GOOD_OLD_INODE_SIZE)
		di->i_extra_isize = cpu_to_le16(extra);
	memcpy(di->i_block, ei->i_block, sizeof(di->i_block));
	if (sbi->has_csum) {
		di->i_checksum_lo = cpu_to_le16(0);
		if (extra >= 4)
			di->i_checksum_hi = cpu_to_le16(0);
		crc = crc32c(ei->i_csum_seed, raw, sbi->inode_size);
		di->i_checksum_lo = cpu_to_le16((u16)crc);
		if (extra >= 4)
			di->i_checksum_hi = cpu_to_le16((u16)(crc >> 16));
	}
}

/* The table buffer of the inode, with write access; nothing has changed yet. */
static int inode_access(struct handle *h, struct ext4_inode *ei, bool fresh,
			struct buffer **out, u32 *offset)
{
	int err = ext4_inode_buffer(ext4_sb_of(ei), ei->vfs.i_ino, fresh, out,
				    offset);

	if (err)
		return err;
	err = handle_get_write_access(h, *out);
	if (err)
		buffer_put(*out);
	return err;
}

/* Consumes the reference on b. Cannot fail. */
static void inode_to_buffer(struct handle *h, struct ext4_inode *ei, bool fresh,
			    struct buffer *b, u32 offset)
{
	/* Before the flag goes: an fsync that finds the inode clean waits for
	 * this transaction. */
	atomic_store(&ei->i_sync_tid, handle_tid(h));
	/* Cleared first: who changes the inode from here on marks it dirty
	 * again, so that nothing is lost in between. */
	if (atomic_load(&ei->vfs.i_state) & I_DIRTY_INODE)
		inode_clear_dirty(&ei->vfs, I_DIRTY_INODE);
	rwsem_down_read(&ei->i_data_sem);
	mutex_lock(&b->b_lock);
	if (fresh)
		memset(b->b_data + offset, 0, ext4_sb_of(ei)->inode_size);
	store_inode(ei, b->b_data + offset);
	mutex_unlock(&b->b_lock);
	rwsem_up_read(&ei->i_data_sem);
	handle_dirty(h, b);
	buffer_put(b);
}

int ext4_inode_access(struct handle *h, struct ext4_inode *ei)
{
	struct buffer *b;
	u32 offset;
	int err = inode_access(h, ei, false, &b, &offset);

	if (!err)
		buffer_put(b); /* the transaction keeps it */
	return err;
}

int ext4_inode_prepare(struct handle *h, struct ext4_inode *ei, struct buffer **out,
		       u32 *offset)
{
	return inode_access(h, ei, false, out, offset);
}

void ext4_inode_finish(struct handle *h, struct ext4_inode *ei, struct buffer *b,
		       u32 offset)
{
	inode_to_buffer(h, ei, false, b, offset);
}

int ext4_mark_inode_dirty(struct handle *h, struct ext4_inode *ei)
{
	struct buffer *b;
	u32 offset;
	int err = inode_access(h, ei, false, &b, &offset);

	if (!err)
		inode_to_buffer(h, ei, false, b, offset);
	return err;
}

int ext4_mark_inode_datasync(struct handle *h, struct ext4_inode *ei)
{
	/* As with i_sync_tid: first. */
	atomic_store(&ei->i_datasync_tid, handle_tid(h));
	return ext4_mark_inode_dirty(h, ei);
}

void ext4_inode_add_clusters(struct handle *h, struct ext4_inode *ei, s64 clusters)
{
	struct inode *inode = &ei->vfs;
	s64 delta = clusters * ((s64)1 << (ext4_cluster_bytes_bits(ext4_sb_of(ei)) - 9));

	inode_attrs_lock(inode);
	delta = max_of(delta, -(s64)inode->i_blocks);
	inode->i_blocks = (u64)((s64)inode->i_blocks + delta);
	ext4_quota_charge(h, ei, 0, delta * 512);
	inode_attrs_unlock(inode);
}

int ext4_may_have(struct ext4_inode *ei, u64 blocks)
{
	const struct ext4_sb *sbi = ext4_sb_of(ei);
	u8 bits = (u8)(ext4_cluster_bytes_bits(sbi) - 9);
	u64 clusters, now;

	if (likely(ext4_has_ro_compat(sbi, HUGE_FILE)))
		return 0;
	/* Each block an extent of its own, in nodes that are half full; a new path down
	 * to them; the clusters at both ends; a block of attributes. */
	clusters = (blocks >> sbi->cluster_bits) + blocks / 32 + EXT4_EXT_MAX_DEPTH + 4;
	spin_lock(&ei->vfs.i_lock);
	now = ei->vfs.i_blocks;
	spin_unlock(&ei->vfs.i_lock);
	return now + (clusters << bits) > UINT32_MAX ? -EFBIG : 0;
}

void ext4_set_size(struct ext4_inode *ei, u64 size)
{
	inode_attrs_lock(&ei->vfs);
	ei->vfs.i_size = size;
	inode_attrs_unlock(&ei->vfs);
}

static struct timespec now_of(const struct ext4_sb *sbi)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	if (!sbi->nsec_times)
		t.tv_nsec = 0;
	return t;
}

void ext4_touch(struct ext4_inode *ei, u32 which)
{
	struct timespec now = now_of(ext4_sb_of(ei));

	inode_attrs_lock(&ei->vfs);
	if (which & EXT4_T_ATIME)
		ei->vfs.i_atime = now;
	if (which & EXT4_T_MTIME)
		ei->vfs.i_mtime = now;
	if (which & EXT4_T_CTIME)
		ei->vfs.i_ctime = now;
	atomic_store_explicit(&ei->i_atime_fresh, 0, memory_order_relaxed);
	inode_attrs_unlock(&ei->vfs);
}

/* ------------------------------------------------------------ new inodes */

/* It comes (1), or goes (-1) with what blocks it has by a damaged count. */
static void charge_inode(struct handle *h, struct ext4_inode *ei, s64 n)
{
	spin_lock(&ei->vfs.i_lock);
	ext4_quota_charge(h, ei, n, n * (s64)(ei->vfs.i_blocks << 9));
	spin_unlock(&ei->vfs.i_lock);
}

static u32 inherited_flags(const struct ext4_inode *dir, u32 mode)
{
	u32 flags = dir->vfs.i_flags & EXT4_FL_INHERITED;

	/* What this daemon does not do for new files is not promised on disk. */
	flags &= ~(u32)(EXT4_JOURNAL_DATA_FL | EXT4_CASEFOLD_FL);
	return ext4_flags_of_type(flags, mode);
}

u32 ext4_new_gid(const struct ext4_inode *dir, const struct sl_cred *cred)
{
	return ext4_sb_of(dir)->opts.grpid || dir->vfs.i_mode & S_ISGID ?
		       dir->vfs.i_gid : cred->gid;
}

static u32 new_projid(const struct ext4_inode *dir)
{
	if (likely(!(dir->vfs.i_flags & EXT4_PROJINHERIT_FL)) ||
	    !ext4_has_ro_compat(ext4_sb_of(dir), PROJECT))
		return 0;
	return atomic_load(&dir->i_projid);
}

int ext4_prepare_new(struct ext4_inode *dir, const struct sl_cred *cred)
{
	struct ext4_owner o = { { cred->uid, ext4_new_gid(dir, cred), new_projid(dir) } };

	return ext4_quota_prepare(ext4_sb_of(dir), &o);
}

int ext4_new_inode(struct handle *h, struct ext4_inode *dir, u32 mode,
		   const struct sl_cred *cred, u64 rdev, struct inode **out)
{
	struct ext4_sb *sbi = ext4_sb_of(dir);
	struct inode *inode = alloc_inode(&sbi->s);
	struct ext4_inode *ei;
	struct buffer *b;
	ino_nr ino;
	u32 offset;
	int err;

	if (!inode)
		return -ENOMEM;
	ei = EXT4_I(inode);
	err = ext4_alloc_ino(h, dir, mode, &ino);
	if (err)
		goto out_free;
	inode->i_ino = ino;
	inode->i_mode = mode;
	inode->i_uid = cred->uid;
	inode->i_gid = ext4_new_gid(dir, cred);
	if (!sbi->opts.grpid && dir->vfs.i_mode & S_ISGID && S_ISDIR(mode))
		inode->i_mode |= S_ISGID;
	inode->i_nlink = S_ISDIR(mode) ? 2 : 1;
	inode->i_flags = inherited_flags(dir, mode);
	atomic_store(&ei->i_projid, new_projid(dir));
	inode->i_rdev = rdev;
	inode->i_generation = atomic_fetch_add(&sbi->inode_gen, 0x9E3779B1u);
	inode->i_crtime = inode->i_atime = inode->i_mtime = inode->i_ctime =
		now_of(sbi);
	ei->i_csum_seed = inode_seed(sbi, ino, inode->i_generation);
	ei->i_group = ext4_inode_group(sbi, ino);
	ei->i_extra_isize = sbi->want_extra_isize;
	if (S_ISREG(mode) || S_ISDIR(mode)) {
		inode->i_flags |= ext4_new_map_flag(sbi);
		ext4_map_init(ei);
	} else if (S_ISCHR(mode) || S_ISBLK(mode)) {
		store_rdev(ei->i_block, rdev);
	}
	err = inode_access(h, ei, true, &b, &offset);
	if (err)
		goto out_ino;
	err = icache_insert(&sbi->s, inode);
	if (err) {
		buffer_put(b);
		if (err == -EFSCORRUPTED)
			ext4_error(sbi, ino, 0, err,
				   "a free inode was found in use");
		goto out_ino;
	}
	inode_to_buffer(h, ei, true, b, offset);
	charge_inode(h, ei, 1);
	/* Without its creation nobody finds the data. */
	atomic_store(&ei->i_datasync_tid, handle_tid(h));
	*out = inode;
	return 0;
out_ino:
	/* The number goes back in the same transaction. */
	if (ext4_free_ino(h, sbi, ino, S_ISDIR(mode)))
		log_err("%s: inode %u stays allocated", sbi->s.s_id, ino);
out_free:
	mapping_destroy(&inode->i_mapping);
	free_inode(inode);
	return err;
}

/* -------------------------------------------------------------- deletion */

/* Off the orphan list, but its number could not be freed (no memory): back on
 * it, in the same handle, for the next mount to finish. Returns err. */
static int stay_orphan(struct handle *h, struct ext4_inode *ei, int err)
{
	int err2;

	ei->i_dtime = 0;
	err2 = ext4_orphan_add(h, ei);
	if (!err2)
		err2 = ext4_mark_inode_dirty(h, ei);
	if (err2)
		ext4_error(ext4_sb_of(ei), ei->vfs.i_ino, 0, err2,
			   "neither deleted nor an orphan");
	return err;
}

static int free_on_disk(struct ext4_inode *ei, struct handle *h)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	struct inode *inode = &ei->vfs;
	const u32 last = EXT4_XATTR_RELEASE_CREDITS + EXT4_ORPHAN_CREDITS +
			 2 * EXT4_INODE_CREDITS + EXT4_ALLOC_CREDITS;
	bool is_dir = S_ISDIR(inode->i_mode);
	bool mapped = S_ISREG(inode->i_mode) || is_dir ||
		      (S_ISLNK(inode->i_mode) &&
		       (inode->i_flags & EXT4_EXTENTS_FL ||
			inode->i_size > EXT4_FAST_SYMLINK_MAX));
	struct buffer *b;
	u32 offset;
	int err = 0;

	/* A directory's, symlink's or value's blocks were journalled: revoke them. */
	if (mapped && !ext4_map_is_empty(ei))
		err = ext4_remove_blocks(h, ei, 0, (u64)LBLK_MAX + 1,
					 !S_ISREG(inode->i_mode) ||
						 inode->i_flags & EXT4_EA_INODE_FL);
	if (!err)
		err = handle_ensure(h, last, 1);
	if (err == 1)
		err = handle_restart(h, last, 1);
	if (!err)
		err = inode_access(h, ei, false, &b, &offset);
	if (err)
		return err;
	if (ei->i_file_acl)
		err = ext4_xattr_release(h, ei);
	if (!err)
		err = ext4_orphan_unlink(h, ei);
	if (!err) {
		ei->i_dtime = (u32)time(NULL);
		ext4_set_size(ei, 0);
		ei->i_disksize = 0;
	}
	/* Also as an orphan: it must not name a block of attributes that is free. */
	inode_to_buffer(h, ei, false, b, offset);
	if (err)
		return err;
	err = ext4_free_ino(h, sbi, inode->i_ino, is_dir);
	if (err)
		return stay_orphan(h, ei, err);
	charge_inode(h, ei, -1);
	return 0;
}

/* -EAGAIN: again, from the start. */
static int try_delete(struct ext4_inode *ei)
{
	struct handle *h;
	int err, err2;

	err = ext4_xattr_drop_values(ei);
	if (err)
		return err;
	err = journal_start(ext4_sb_of(ei)->journal,
			    ext4_remove_credits(ei) + EXT4_ORPHAN_CREDITS +
				    EXT4_INODE_CREDITS,
			    0, &h);
	if (err)
		return err;
	/* Already there unless it never had a name. */
	err = ext4_orphan_add(h, ei);
	if (!err)
		err = free_on_disk(ei, h);
	err2 = handle_stop(h);
	return err ? err : err2;
}

static void delete_inode(struct ext4_inode *ei)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	struct inode *inode = &ei->vfs;
	int err, tries = 0;

	do {
		err = try_delete(ei);
	} while (err == -EAGAIN || ext4_retry_nomem(err, &tries));
	if (err && !atomic_load(&sbi->aborted))
		log_err("%s: inode %u could not be deleted (%s); it stays an orphan",
			sbi->s.s_id, inode->i_ino, strerror(-err));
}

/* ---- space that is on its way ---- */

#define FORGET_MS 100 /* for the kernel to forget an inode it has no use for */
#define FORGET_MAX_NS 1000000000ull /* it has a use for those that stay longer */
#define DELETE_MS 2000

void ext4_note_dying(struct ext4_inode *ei)
{
	if (!ei->vfs.i_nlink && !atomic_load(&ei->i_opens) &&
	    !atomic_exchange(&ei->i_dying, true)) {
		struct ext4_sb *sbi = ext4_sb_of(ei);

		atomic_store(&sbi->noted_at, clock_mono_ns());
		atomic_fetch_add(&sbi->nr_dying, 1);
	}
}

static void note_dead(struct ext4_inode *ei)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);

	if (!atomic_exchange(&ei->i_dying, false))
		return;
	atomic_store(&sbi->dead_at, clock_mono_ns());
	atomic_fetch_sub(&sbi->nr_dying, 1);
	atomic_fetch_add(&sbi->nr_dead, 1);
	wake_up(&sbi->nr_dead);
}

static bool just_now(const _Atomic u64 *at)
{
	u64 ns = atomic_load(at);

	return ns && clock_mono_ns() - ns < FORGET_MAX_NS;
}

bool ext4_wait_deletions(struct ext4_sb *sbi)
{
	u32 seen = atomic_load(&sbi->nr_dead);
	bool deleting = atomic_load(&sbi->nr_deleting);
	u64 wait_ms = deleting ? DELETE_MS : FORGET_MS;

	if (!atomic_load(&sbi->nr_dying) ||
	    (!deleting && !just_now(&sbi->noted_at)))
		return false;
	(void)wait_event_deadline(&sbi->nr_dead,
				  atomic_load(&sbi->nr_dead) != seen,
				  clock_mono_ns() + wait_ms * 1000000);
	return atomic_load(&sbi->nr_dead) != seen;
}

static void evict_inode(struct inode *inode, bool delete)
{
	struct ext4_sb *sbi = EXT4_SB(inode->i_sb);
	struct ext4_inode *ei = EXT4_I(inode);
	bool deletes = delete && sbi->journal && !atomic_load(&inode->i_sb->s_rdonly);
	u32 delayed;

	/* From now on: its write-out may take longer than all the rest. */
	if (deletes)
		atomic_fetch_add(&sbi->nr_deleting, 1);
	/* Before blocks are freed, and before the number can come back. */
	ext4_dir_peek_end(ei);
	mapping_wait_writeback(&inode->i_mapping, 0, EXT4_LBLK_END);
	/* Dirty data of a linked inode is here only after an abort. */
	delayed = mapping_invalidate(&inode->i_mapping, 0, EXT4_LBLK_END);
	if (delayed)
		ext4_release_reserved(sbi, delayed);
	ext4_release_window(sbi, inode->i_ino);
	if (atomic_load(&inode->i_state) & I_DIRTY)
		inode_clear_dirty(inode, I_DIRTY);
	if (deletes) {
		delete_inode(ei);
		atomic_fetch_sub(&sbi->nr_deleting, 1);
	}
	note_dead(ei);
	/* Not deleted: the disk keeps the orphan, but no link in memory may. */
	ext4_orphan_forget(ei);
	mapping_destroy(&inode->i_mapping);
}

const struct super_ops ext4_super_ops = {
	.alloc_inode = alloc_inode,
	.free_inode = free_inode,
	.read_inode = read_inode,
	.evict_inode = evict_inode,
	.write_inode = ext4_write_inode,
};

/* ------------------------------------------------------------- helpers */

int ext4_may_write(struct ext4_sb *sbi)
{
	if (likely(!atomic_load(&sbi->s.s_rdonly)))
		return 0;
	return atomic_load(&sbi->shut_down) ? -EIO : -EROFS;
}

bool ext4_should_retry(struct ext4_sb *sbi, int err, int *tries)
{
	if ((err != -EAGAIN && err != -ENOSPC) || (*tries)++ >= 3)
		return false;
	/* The last one may have gone between the search and this wait. */
	if (err == -ENOSPC && !ext4_wait_deletions(sbi) &&
	    (*tries > 1 || !just_now(&sbi->dead_at)))
		return false;
	err = journal_force_commit(sbi->journal);
	ext4_discard_wait(sbi); /* what was freed is free only then */
	return err == 0;
}

bool ext4_retry_nomem(int err, int *tries)
{
	return err == -ENOMEM && mem_pause(tries);
}

static bool wants_sync(const struct ext4_inode *ei)
{
	u32 flags = ei->vfs.i_flags;

	return flags & EXT4_SYNC_FL ||
	       (S_ISDIR(ei->vfs.i_mode) && flags & EXT4_DIRSYNC_FL);
}

int ext4_stop_sync(struct handle *h, int err, struct ext4_inode *a,
		   struct ext4_inode *b)
{
	struct ext4_sb *sbi = ext4_sb_of(a);
	int err2;

	if (!err && (sbi->opts.sync || sbi->opts.dirsync || wants_sync(a) ||
		     (b && wants_sync(b))))
		handle_set_sync(h);
	err2 = handle_stop(h);
	return err ? err : err2;
}

bool ext4_is_privileged(const struct ext4_sb *sbi, const struct sl_cred *cred)
{
	return !cred || cred->uid == 0 || cred->uid == sbi->resuid ||
	       (sbi->resgid && cred->gid == sbi->resgid);
}

/* --------------------------------------------------------- the in-process API */

/* What holds an attribute's value has no names and no handles. */
static int hide_values(int err, struct inode **out)
{
	if (likely(err || !((*out)->i_flags & EXT4_EA_INODE_FL)))
		return err;
	inode_put(*out);
	*out = NULL;
	return -ESTALE;
}

static int iget(struct super_block *sb, u64 ino, bool scan, struct inode **out)
{
	struct ext4_sb *sbi = EXT4_SB(sb);
	bool used;
	int err;

	if (ino > UINT32_MAX || !ext4_ino_is_exposed(sbi, (ino_nr)ino))
		return -ESTALE;
	*out = scan ? icache_find_scan(sb, (ino_nr)ino) :
		      icache_find(sb, (ino_nr)ino);
	if (*out)
		return hide_values(0, out);
	/* From a file handle it may be any number; the table need hold
	 * nothing but garbage where no inode was ever made. */
	err = ext4_ino_in_use(sbi, (ino_nr)ino, &used);
	if (!err && !used)
		return -ESTALE;
	err = scan ? icache_get_scan(sb, (ino_nr)ino, out) :
		     icache_get(sb, (ino_nr)ino, out);
	return hide_values(err, out);
}

int sl_iget(struct super_block *sb, u64 ino, struct inode **out)
{
	return iget(sb, ino, false, out);
}

int sl_iget_scan(struct super_block *sb, u64 ino, struct inode **out)
{
	return iget(sb, ino, true, out);
}

void sl_iput(struct inode *inode)
{
	inode_put(inode);
}

void sl_lookup_inc(struct inode *inode)
{
	inode_lookup_inc(inode);
}

void sl_forget(struct super_block *sb, u64 ino, u64 n)
{
	if (ino <= UINT32_MAX)
		icache_forget(sb, (ino_nr)ino, n);
}

u64 sl_ino(const struct inode *inode)
{
	return inode->i_ino;
}

u32 sl_generation(const struct inode *inode)
{
	return inode->i_generation;
}

void ext4_stat_of(const struct super_block *sb, ino_nr ino,
		  const struct inode_attrs *a, struct stat *st)
{
	*st = (struct stat){
		.st_ino = ino,
		.st_blksize = (blksize_t)sb->s_blocksize,
		.st_mode = a->mode,
		.st_nlink = a->nlink,
		.st_uid = a->uid,
		.st_gid = a->gid,
		.st_rdev = a->rdev,
		/* A directory that is removed is empty. */
		.st_size = S_ISDIR(a->mode) && !a->nlink ? 0 : (off_t)a->size,
		/* Blocks promised to delayed data count, as in the kernel's ext4. */
		.st_blocks = (blkcnt_t)(a->blocks +
					(u64)a->delayed * (sb->s_blocksize >> 9)),
		.st_atim = a->atime,
		.st_mtim = a->mtime,
		.st_ctim = a->ctime,
	};
}

void sl_getattr(struct inode *inode, struct stat *st)
{
	struct inode_attrs a;

	inode_get_attrs(inode, &a);
	ext4_stat_of(inode->i_sb, inode->i_ino, &a, st);
}

bool sl_birth_time(struct inode *inode, struct timespec *t)
{
	*t = inode->i_crtime;
	return FITS_EXTRA(EXT4_I(inode)->i_extra_isize, i_crtime);
}

int sl_getattr_ino(struct super_block *sb, u64 ino, struct stat *st)
{
	struct inode_attrs a;

	if (ino > UINT32_MAX || !ext4_ino_is_exposed(EXT4_SB(sb), (ino_nr)ino))
		return -ESTALE;
	if (icache_peek_attrs(sb, (ino_nr)ino, &a))
		return -EAGAIN;
	ext4_stat_of(sb, (ino_nr)ino, &a, st);
	return 0;
}

/* Both times, as by utime(2) with NULL? See SL_SET_CTIME. */
static bool sets_to_now(const struct stat *st, u32 valid)
{
	if (!(valid & SL_SET_ATIME_NOW))
		return false;
	if (valid & SL_SET_MTIME_NOW)
		return true;
	return valid & SL_SET_MTIME && valid & SL_SET_CTIME &&
	       st->st_mtim.tv_sec == st->st_ctim.tv_sec &&
	       st->st_mtim.tv_nsec == st->st_ctim.tv_nsec;
}

/* What immutable and append-only files refuse; both times may be set to "now", but not
 * one of them. */
static int setattr_allowed(const struct inode *inode, const struct stat *st, u32 valid)
{
	u32 refused = SL_SET_MODE | SL_SET_UID | SL_SET_GID | SL_SET_SIZE;

	if (valid & SL_SET_DELAYED)
		return 0;
	if (inode->i_flags & EXT4_IMMUTABLE_FL)
		return -EPERM;
	if (!sets_to_now(st, valid))
		refused |= SL_SET_ATIME | SL_SET_MTIME;
	if (inode->i_flags & EXT4_APPEND_FL && valid & refused)
		return -EPERM;
	return 0;
}

/* A time from outside, as the inode will give it back when read again. */
static struct timespec storable_time(const struct ext4_inode *ei,
				     struct timespec t)
{
	bool has_extra = FITS_EXTRA(ei->i_extra_isize, i_ctime_extra);
	s64 max = has_extra ? TIME_MAX_EXTRA : INT32_MAX;

	if (t.tv_sec > max || t.tv_sec < INT32_MIN) {
		t.tv_sec = t.tv_sec > max ? max : INT32_MIN;
		t.tv_nsec = 0;
	}
	if (!has_extra)
		t.tv_nsec = 0;
	return t;
}

/* The owner that ei is to have. */
static struct ext4_owner owner_after(const struct ext4_inode *ei, const struct stat *st,
				     u32 valid)
{
	struct ext4_owner o = ext4_owner_of(ei);

	if (valid & SL_SET_UID)
		o.id[EXT4_QUOTA_USR] = st->st_uid;
	if (valid & SL_SET_GID)
		o.id[EXT4_QUOTA_GRP] = st->st_gid;
	return o;
}

static void apply_attrs(struct handle *h, struct ext4_inode *ei, const struct stat *st,
			u32 valid)
{
	struct inode *inode = &ei->vfs;
	struct timespec now = now_of(ext4_sb_of(ei));
	struct ext4_owner to = owner_after(ei, st, valid);

	inode_attrs_lock(inode);
	ext4_quota_transfer(h, ei, &to);
	if (valid & SL_SET_UID)
		inode->i_uid = st->st_uid;
	if (valid & SL_SET_GID)
		inode->i_gid = st->st_gid;
	if (valid & SL_SET_MODE)
		inode->i_mode = (inode->i_mode & S_IFMT) | (st->st_mode & 07777);
	if (valid & SL_KILL_SUIDGID && !S_ISDIR(inode->i_mode)) {
		inode->i_mode &= ~(u32)S_ISUID;
		if (inode->i_mode & S_IXGRP)
			inode->i_mode &= ~(u32)S_ISGID;
	}
	if (valid & SL_KILL_SGID && !S_ISDIR(inode->i_mode))
		inode->i_mode &= ~(u32)S_ISGID;
	if (valid & SL_SET_ATIME)
		inode->i_atime = valid & SL_SET_ATIME_NOW
					 ? now
					 : storable_time(ei, st->st_atim);
	if (valid & SL_SET_MTIME)
		inode->i_mtime = valid & SL_SET_MTIME_NOW
					 ? now
					 : storable_time(ei, st->st_mtim);
	inode->i_ctime = valid & SL_SET_CTIME ? storable_time(ei, st->st_ctim)
					      : now;
	inode->i_version++;
	atomic_store_explicit(&ei->i_atime_fresh, 0, memory_order_relaxed);
	inode_attrs_unlock(inode);
}

/* acl NULL: the access control list stays as it is. */
static int set_attrs_once(struct ext4_inode *ei, const struct stat *st, u32 valid,
			  const struct sl_cred *cred, const void *acl, u32 len)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	struct xattr_update *u = NULL;
	u32 credits = EXT4_INODE_CREDITS;
	struct buffer *b;
	struct handle *h;
	u32 offset;
	int err;

	if (acl) {
		err = ext4_acl_prepare(ei, acl, len, ext4_is_privileged(sbi, cred), &u);
		if (err)
			return err;
		credits += xattr_update_credits(u);
	}
	err = journal_start(sbi->journal, credits, acl ? 1 : 0, &h);
	if (err)
		goto out_end;
	if (acl) {
		if (ext4_is_privileged(sbi, cred))
			handle_set_privileged(h);
		err = xattr_update_apply(h, u);
	}
	if (!err)
		err = inode_access(h, ei, false, &b, &offset);
	if (!err) {
		apply_attrs(h, ei, st, valid);
		inode_to_buffer(h, ei, false, b, offset);
	}
	err = ext4_stop_sync(h, err, ei, NULL);
out_end:
	xattr_update_end(u);
	return err;
}

/* A chmod changes the access control list, too, which takes a new block if other
 * inodes share the one that it is in. */
static int set_attrs(struct ext4_inode *ei, const struct stat *st, u32 valid,
		     const struct sl_cred *cred)
{
	struct ext4_owner to = owner_after(ei, st, valid);
	int err = ext4_quota_prepare(ext4_sb_of(ei), &to), tries = 0;
	void *acl = NULL;
	u32 len = 0;

	if (!err && valid & SL_SET_MODE)
		err = ext4_acl_after_chmod(ei, st->st_mode, &acl, &len);
	if (err)
		return err;
	do {
		err = set_attrs_once(ei, st, valid, cred, acl, len);
	} while (acl && ext4_should_retry(ext4_sb_of(ei), err, &tries));
	free(acl);
	return err == -EAGAIN ? -ENOSPC : err;
}

int sl_setattr(struct inode *inode, const struct stat *st, u32 valid,
	       const struct sl_cred *cred, struct stat *after)
{
	struct ext4_sb *sbi = EXT4_SB(inode->i_sb);
	struct ext4_inode *ei = EXT4_I(inode);
	int err = ext4_may_write(sbi);

	if (valid & SL_SET_ATIME_NOW)
		valid |= SL_SET_ATIME;
	if (valid & SL_SET_MTIME_NOW)
		valid |= SL_SET_MTIME;
	if (err)
		return err;
	budget_throttle(sbi->s.s_budget);
	rwsem_down_write(&inode->i_rwsem);
	err = setattr_allowed(inode, st, valid);
	if (!err)
		ext4_extra_grow(ei);
	if (!err && valid & SL_SET_SIZE) {
		if (S_ISDIR(inode->i_mode))
			err = -EISDIR;
		else if (!S_ISREG(inode->i_mode))
			err = -EINVAL;
		else if (st->st_size < 0)
			err = -EINVAL;
		else if ((u64)st->st_size > ext4_max_size(ei))
			err = -EFBIG;
		else
			err = ext4_truncate(ei, (u64)st->st_size);
		if (!err && !(valid & SL_SET_MTIME))
			ext4_touch(ei, EXT4_T_MTIME);
	}
	if (!err)
		err = set_attrs(ei, st, valid, cred);
	if (!err && after)
		sl_getattr(inode, after);
	rwsem_up_write(&inode->i_rwsem);
	return err;
}
