/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/ext4_format.h - the structures of an ext4 volume on disk
 *
 * Little endian throughout. Field names are those of the format's
 * documentation (Documentation/filesystems/ext4/: super, group_descr,
 * inodes, ifork, directory, attributes, orphan). Size and place of each
 * structure are asserted below. No code, no locks.
 */
#ifndef SLUICE_FS_EXT4_FORMAT_H
#define SLUICE_FS_EXT4_FORMAT_H

#include "lib/types.h"

#define EXT4_SUPER_MAGIC 0xEF53
#define EXT4_SUPER_OFFSET 1024
#define EXT4_MIN_BLOCK_SIZE 1024u
#define EXT4_MAX_BLOCK_SIZE 65536u
#define EXT4_NAME_LEN 255
#define EXT4_LINK_MAX 65000

/* Reserved inodes */
#define EXT4_BAD_INO 1
#define EXT4_ROOT_INO 2
#define EXT4_USR_QUOTA_INO 3
#define EXT4_GRP_QUOTA_INO 4
#define EXT4_BOOT_LOADER_INO 5
#define EXT4_RESIZE_INO 7
#define EXT4_JOURNAL_INO 8
#define EXT4_GOOD_OLD_FIRST_INO 11
#define EXT4_GOOD_OLD_INODE_SIZE 128

/* s_feature_compat */
#define EXT4_COMPAT_DIR_PREALLOC 0x0001
#define EXT4_COMPAT_IMAGIC_INODES 0x0002
#define EXT4_COMPAT_HAS_JOURNAL 0x0004
#define EXT4_COMPAT_EXT_ATTR 0x0008
#define EXT4_COMPAT_RESIZE_INODE 0x0010
#define EXT4_COMPAT_DIR_INDEX 0x0020
#define EXT4_COMPAT_LAZY_BG 0x0040
#define EXT4_COMPAT_EXCLUDE_BITMAP 0x0100
#define EXT4_COMPAT_SPARSE_SUPER2 0x0200
#define EXT4_COMPAT_FAST_COMMIT 0x0400
#define EXT4_COMPAT_STABLE_INODES 0x0800
#define EXT4_COMPAT_ORPHAN_FILE 0x1000
/* s_feature_incompat */
#define EXT4_INCOMPAT_COMPRESSION 0x00001
#define EXT4_INCOMPAT_FILETYPE 0x00002
#define EXT4_INCOMPAT_RECOVER 0x00004
#define EXT4_INCOMPAT_JOURNAL_DEV 0x00008
#define EXT4_INCOMPAT_META_BG 0x00010
#define EXT4_INCOMPAT_EXTENTS 0x00040
#define EXT4_INCOMPAT_64BIT 0x00080
#define EXT4_INCOMPAT_MMP 0x00100
#define EXT4_INCOMPAT_FLEX_BG 0x00200
#define EXT4_INCOMPAT_EA_INODE 0x00400
#define EXT4_INCOMPAT_DIRDATA 0x01000
#define EXT4_INCOMPAT_CSUM_SEED 0x02000
#define EXT4_INCOMPAT_LARGEDIR 0x04000
#define EXT4_INCOMPAT_INLINE_DATA 0x08000
#define EXT4_INCOMPAT_ENCRYPT 0x10000
#define EXT4_INCOMPAT_CASEFOLD 0x20000
/* s_feature_ro_compat */
#define EXT4_RO_COMPAT_SPARSE_SUPER 0x00001
#define EXT4_RO_COMPAT_LARGE_FILE 0x00002
#define EXT4_RO_COMPAT_BTREE_DIR 0x00004
#define EXT4_RO_COMPAT_HUGE_FILE 0x00008
#define EXT4_RO_COMPAT_GDT_CSUM 0x00010
#define EXT4_RO_COMPAT_DIR_NLINK 0x00020
#define EXT4_RO_COMPAT_EXTRA_ISIZE 0x00040
#define EXT4_RO_COMPAT_HAS_SNAPSHOT 0x00080
#define EXT4_RO_COMPAT_QUOTA 0x00100
#define EXT4_RO_COMPAT_BIGALLOC 0x00200
#define EXT4_RO_COMPAT_METADATA_CSUM 0x00400
#define EXT4_RO_COMPAT_REPLICA 0x00800
#define EXT4_RO_COMPAT_READONLY 0x01000
#define EXT4_RO_COMPAT_PROJECT 0x02000
#define EXT4_RO_COMPAT_SHARED_BLOCKS 0x04000
#define EXT4_RO_COMPAT_VERITY 0x08000
#define EXT4_RO_COMPAT_ORPHAN_PRESENT 0x10000

/* s_state */
#define EXT4_VALID_FS 0x0001
#define EXT4_ERROR_FS 0x0002
#define EXT4_ORPHAN_FS 0x0004
/* s_errors */
#define EXT4_ERRORS_CONTINUE 1
#define EXT4_ERRORS_RO 2
#define EXT4_ERRORS_PANIC 3
/* s_flags */
#define EXT2_FLAGS_SIGNED_HASH 0x0001
#define EXT2_FLAGS_UNSIGNED_HASH 0x0002
/* s_default_mount_opts */
#define EXT4_DEFM_DEBUG 0x0001
#define EXT4_DEFM_BSDGROUPS 0x0002
#define EXT4_DEFM_UID16 0x0010
#define EXT4_DEFM_JMODE 0x0060 /* mask */
#define EXT4_DEFM_JMODE_DATA 0x0020
#define EXT4_DEFM_JMODE_ORDERED 0x0040
#define EXT4_DEFM_JMODE_WBACK 0x0060
#define EXT4_DEFM_NOBARRIER 0x0100
#define EXT4_DEFM_BLOCK_VALIDITY 0x0200
#define EXT4_DEFM_DISCARD 0x0400
#define EXT4_DEFM_NODELALLOC 0x0800
/* s_checksum_type */
#define EXT4_CRC32C_CHKSUM 1

struct ext4_super_block {
	le32 s_inodes_count;
	le32 s_blocks_count_lo;
	le32 s_r_blocks_count_lo;
	le32 s_free_blocks_count_lo;
	le32 s_free_inodes_count;
	le32 s_first_data_block;
	le32 s_log_block_size;
	le32 s_log_cluster_size;
	le32 s_blocks_per_group;
	le32 s_clusters_per_group;
	le32 s_inodes_per_group;
	le32 s_mtime;
	le32 s_wtime;
	le16 s_mnt_count;
	le16 s_max_mnt_count;
	le16 s_magic;
	le16 s_state;
	le16 s_errors;
	le16 s_minor_rev_level;
	le32 s_lastcheck;
	le32 s_checkinterval;
	le32 s_creator_os;
	le32 s_rev_level;
	le16 s_def_resuid;
	le16 s_def_resgid;
	le32 s_first_ino; /* 0x54 */
	le16 s_inode_size;
	le16 s_block_group_nr;
	le32 s_feature_compat;
	le32 s_feature_incompat;
	le32 s_feature_ro_compat;
	u8 s_uuid[16];
	char s_volume_name[16];
	char s_last_mounted[64];
	le32 s_algorithm_usage_bitmap; /* 0xC8 */
	u8 s_prealloc_blocks;
	u8 s_prealloc_dir_blocks;
	le16 s_reserved_gdt_blocks;
	u8 s_journal_uuid[16]; /* 0xD0 */
	le32 s_journal_inum;
	le32 s_journal_dev;
	le32 s_last_orphan; /* 0xE8 */
	le32 s_hash_seed[4];
	u8 s_def_hash_version; /* 0xFC */
	u8 s_jnl_backup_type;
	le16 s_desc_size;
	le32 s_default_mount_opts; /* 0x100 */
	le32 s_first_meta_bg;
	le32 s_mkfs_time;
	le32 s_jnl_blocks[17]; /* 0x10C */
	le32 s_blocks_count_hi; /* 0x150 */
	le32 s_r_blocks_count_hi;
	le32 s_free_blocks_count_hi;
	le16 s_min_extra_isize;
	le16 s_want_extra_isize;
	le32 s_flags; /* 0x160 */
	le16 s_raid_stride;
	le16 s_mmp_update_interval;
	le64 s_mmp_block;
	le32 s_raid_stripe_width; /* 0x170 */
	u8 s_log_groups_per_flex;
	u8 s_checksum_type;
	le16 s_reserved_pad;
	le64 s_kbytes_written; /* 0x178 */
	le32 s_snapshot_inum;
	le32 s_snapshot_id;
	le64 s_snapshot_r_blocks_count;
	le32 s_snapshot_list;
	le32 s_error_count; /* 0x194 */
	le32 s_first_error_time;
	le32 s_first_error_ino;
	le64 s_first_error_block; /* 0x1A0 */
	u8 s_first_error_func[32];
	le32 s_first_error_line;
	le32 s_last_error_time; /* 0x1CC */
	le32 s_last_error_ino;
	le32 s_last_error_line;
	le64 s_last_error_block; /* 0x1D8 */
	u8 s_last_error_func[32];
	u8 s_mount_opts[64]; /* 0x200 */
	le32 s_usr_quota_inum; /* 0x240 */
	le32 s_grp_quota_inum;
	le32 s_overhead_clusters;
	le32 s_backup_bgs[2]; /* 0x24C */
	u8 s_encrypt_algos[4];
	u8 s_encrypt_pw_salt[16]; /* 0x258 */
	le32 s_lpf_ino;
	le32 s_prj_quota_inum;
	le32 s_checksum_seed; /* 0x270 */
	u8 s_wtime_hi; /* 0x274 */
	u8 s_mtime_hi;
	u8 s_mkfs_time_hi;
	u8 s_lastcheck_hi;
	u8 s_first_error_time_hi; /* 0x278 */
	u8 s_last_error_time_hi;
	u8 s_first_error_errcode; /* 0x27A */
	u8 s_last_error_errcode;
	le16 s_encoding;
	le16 s_encoding_flags;
	le32 s_orphan_file_inum; /* 0x280 */
	le32 s_reserved[94];
	le32 s_checksum; /* 0x3FC */
};
_Static_assert(sizeof(struct ext4_super_block) == 1024, "superblock");
_Static_assert(offsetof(struct ext4_super_block, s_first_ino) == 0x54, "sb");
_Static_assert(offsetof(struct ext4_super_block, s_journal_uuid) == 0xD0, "sb");
_Static_assert(offsetof(struct ext4_super_block, s_last_orphan) == 0xE8, "sb");
_Static_assert(offsetof(struct ext4_super_block, s_blocks_count_hi) == 0x150, "sb");
_Static_assert(offsetof(struct ext4_super_block, s_kbytes_written) == 0x178, "sb");
_Static_assert(offsetof(struct ext4_super_block, s_error_count) == 0x194, "sb");
_Static_assert(offsetof(struct ext4_super_block, s_last_error_time) == 0x1CC, "sb");
_Static_assert(offsetof(struct ext4_super_block, s_mount_opts) == 0x200, "sb");
_Static_assert(offsetof(struct ext4_super_block, s_checksum_seed) == 0x270, "sb");
_Static_assert(offsetof(struct ext4_super_block, s_orphan_file_inum) == 0x280, "sb");
_Static_assert(offsetof(struct ext4_super_block, s_checksum) == 0x3FC, "sb");

/* bg_flags */
#define EXT4_BG_INODE_UNINIT 0x1
#define EXT4_BG_BLOCK_UNINIT 0x2
#define EXT4_BG_INODE_ZEROED 0x4

/* 32 bytes without 64bit (the first half), 64 with. */
struct ext4_group_desc {
	le32 bg_block_bitmap_lo;
	le32 bg_inode_bitmap_lo;
	le32 bg_inode_table_lo;
	le16 bg_free_blocks_count_lo; /* clusters */
	le16 bg_free_inodes_count_lo;
	le16 bg_used_dirs_count_lo;
	le16 bg_flags;
	le32 bg_exclude_bitmap_lo;
	le16 bg_block_bitmap_csum_lo;
	le16 bg_inode_bitmap_csum_lo;
	le16 bg_itable_unused_lo;
	le16 bg_checksum;
	le32 bg_block_bitmap_hi; /* 0x20 */
	le32 bg_inode_bitmap_hi;
	le32 bg_inode_table_hi;
	le16 bg_free_blocks_count_hi;
	le16 bg_free_inodes_count_hi;
	le16 bg_used_dirs_count_hi;
	le16 bg_itable_unused_hi;
	le32 bg_exclude_bitmap_hi;
	le16 bg_block_bitmap_csum_hi;
	le16 bg_inode_bitmap_csum_hi;
	le32 bg_reserved;
};
_Static_assert(sizeof(struct ext4_group_desc) == 64, "group descriptor");
_Static_assert(offsetof(struct ext4_group_desc, bg_checksum) == 0x1E, "gd");
_Static_assert(offsetof(struct ext4_group_desc, bg_block_bitmap_csum_hi) == 0x38, "gd");

/* i_flags */
#define EXT4_SECRM_FL 0x00000001
#define EXT4_UNRM_FL 0x00000002
#define EXT4_COMPR_FL 0x00000004
#define EXT4_SYNC_FL 0x00000008
#define EXT4_IMMUTABLE_FL 0x00000010
#define EXT4_APPEND_FL 0x00000020
#define EXT4_NODUMP_FL 0x00000040
#define EXT4_NOATIME_FL 0x00000080
#define EXT4_DIRTY_FL 0x00000100
#define EXT4_COMPRBLK_FL 0x00000200
#define EXT4_NOCOMPR_FL 0x00000400
#define EXT4_ENCRYPT_FL 0x00000800
#define EXT4_INDEX_FL 0x00001000
#define EXT4_IMAGIC_FL 0x00002000
#define EXT4_JOURNAL_DATA_FL 0x00004000
#define EXT4_NOTAIL_FL 0x00008000
#define EXT4_DIRSYNC_FL 0x00010000
#define EXT4_TOPDIR_FL 0x00020000
#define EXT4_HUGE_FILE_FL 0x00040000
#define EXT4_EXTENTS_FL 0x00080000
#define EXT4_VERITY_FL 0x00100000
#define EXT4_EA_INODE_FL 0x00200000
#define EXT4_DAX_FL 0x02000000
#define EXT4_INLINE_DATA_FL 0x10000000
#define EXT4_PROJINHERIT_FL 0x20000000
#define EXT4_CASEFOLD_FL 0x40000000
/* Inherited from the parent directory. */
#define EXT4_FL_INHERITED                                                      \
	(EXT4_SECRM_FL | EXT4_UNRM_FL | EXT4_COMPR_FL | EXT4_SYNC_FL |         \
	 EXT4_NODUMP_FL | EXT4_NOATIME_FL | EXT4_NOCOMPR_FL |                  \
	 EXT4_JOURNAL_DATA_FL | EXT4_NOTAIL_FL | EXT4_DIRSYNC_FL |             \
	 EXT4_PROJINHERIT_FL | EXT4_CASEFOLD_FL | EXT4_DAX_FL)

#define EXT4_N_BLOCKS 15
#define EXT4_I_BLOCK_BYTES 60
#define EXT4_FAST_SYMLINK_MAX 59

struct ext4_inode_disk {
	le16 i_mode;
	le16 i_uid;
	le32 i_size_lo;
	le32 i_atime;
	le32 i_ctime;
	le32 i_mtime;
	le32 i_dtime; /* also next orphan */
	le16 i_gid;
	le16 i_links_count;
	le32 i_blocks_lo;
	le32 i_flags;
	le32 i_version_lo; /* osd1 */
	u8 i_block[EXT4_I_BLOCK_BYTES]; /* 0x28 */
	le32 i_generation;  /* 0x64 */
	le32 i_file_acl_lo;
	le32 i_size_high;
	le32 i_obso_faddr;
	le16 i_blocks_high; /* 0x74 */
	le16 i_file_acl_high;
	le16 i_uid_high;
	le16 i_gid_high;
	le16 i_checksum_lo; /* 0x7C */
	le16 i_reserved;
	le16 i_extra_isize; /* 0x80: inodes larger than 128 bytes */
	le16 i_checksum_hi;
	le32 i_ctime_extra;
	le32 i_mtime_extra;
	le32 i_atime_extra;
	le32 i_crtime;
	le32 i_crtime_extra;
	le32 i_version_hi;
	le32 i_projid; /* 0x9C */
};
_Static_assert(sizeof(struct ext4_inode_disk) == 160, "inode");
_Static_assert(offsetof(struct ext4_inode_disk, i_block) == 0x28, "inode");
_Static_assert(offsetof(struct ext4_inode_disk, i_generation) == 0x64, "inode");
_Static_assert(offsetof(struct ext4_inode_disk, i_checksum_lo) == 0x7C, "inode");
_Static_assert(offsetof(struct ext4_inode_disk, i_checksum_hi) == 0x82, "inode");
_Static_assert(offsetof(struct ext4_inode_disk, i_projid) == 0x9C, "inode");
#define EXT4_WANT_EXTRA_ISIZE 32

/* Extent tree */
#define EXT4_EXT_MAGIC 0xF30A
#define EXT4_EXT_MAX_DEPTH 5
#define EXT4_EXT_INIT_MAX_LEN 32768u
#define EXT4_EXT_UNWRITTEN_MAX_LEN 32767u
struct ext4_extent_header {
	le16 eh_magic;
	le16 eh_entries;
	le16 eh_max;
	le16 eh_depth;
	le32 eh_generation;
};
struct ext4_extent {
	le32 ee_block;
	le16 ee_len; /* above 32768: unwritten, of ee_len - 32768 */
	le16 ee_start_hi;
	le32 ee_start_lo;
};
struct ext4_extent_idx {
	le32 ei_block;
	le32 ei_leaf_lo;
	le16 ei_leaf_hi;
	le16 ei_unused;
};
struct ext4_extent_tail {
	le32 et_checksum;
};
_Static_assert(sizeof(struct ext4_extent_header) == 12, "extent header");
_Static_assert(sizeof(struct ext4_extent) == 12, "extent");
_Static_assert(sizeof(struct ext4_extent_idx) == 12, "extent index");

/* Directories */
#define EXT4_FT_UNKNOWN 0
#define EXT4_FT_REG_FILE 1
#define EXT4_FT_DIR 2
#define EXT4_FT_CHRDEV 3
#define EXT4_FT_BLKDEV 4
#define EXT4_FT_FIFO 5
#define EXT4_FT_SOCK 6
#define EXT4_FT_SYMLINK 7
#define EXT4_FT_MAX 8
#define EXT4_FT_DIR_CSUM 0xDE
struct ext4_dir_entry {
	le32 inode;
	le16 rec_len;
	u8 name_len;
	u8 file_type;
	char name[];
};
_Static_assert(sizeof(struct ext4_dir_entry) == 8, "directory entry");
/* The fake entry at the end of a checksummed leaf. */
struct ext4_dir_tail {
	le32 det_zero;
	le16 det_rec_len; /* 12 */
	u8 det_zero2;
	u8 det_ft; /* 0xDE */
	le32 det_checksum;
};
_Static_assert(sizeof(struct ext4_dir_tail) == 12, "directory tail");
#define EXT4_DIR_PAD 4
#define EXT4_DIR_REC_LEN(name_len) (((name_len) + 8u + 3u) & ~3u)

#define DX_HASH_LEGACY 0
#define DX_HASH_HALF_MD4 1
#define DX_HASH_TEA 2
#define DX_HASH_LEGACY_UNSIGNED 3
#define DX_HASH_HALF_MD4_UNSIGNED 4
#define DX_HASH_TEA_UNSIGNED 5
struct ext4_dx_root_info { /* at 0x18 of block 0 */
	le32 reserved_zero;
	u8 hash_version;
	u8 info_length; /* 8 */
	u8 indirect_levels;
	u8 unused_flags;
};
struct ext4_dx_countlimit { /* in the place of the first entry's hash */
	le16 limit;
	le16 count;
};
struct ext4_dx_entry {
	le32 hash;
	le32 block;
};
struct ext4_dx_tail {
	le32 dt_reserved;
	le32 dt_checksum;
};

/* Extended attributes */
#define EXT4_XATTR_MAGIC 0xEA020000
#define EXT4_XATTR_REFCOUNT_MAX 1024
struct ext4_xattr_header {
	le32 h_magic;
	le32 h_refcount;
	le32 h_blocks;
	le32 h_hash;
	le32 h_checksum;
	le32 h_reserved[3];
};
_Static_assert(sizeof(struct ext4_xattr_header) == 32, "xattr header");
struct ext4_xattr_ibody_header {
	le32 h_magic;
};
struct ext4_xattr_entry {
	u8 e_name_len;
	u8 e_name_index;
	le16 e_value_offs;
	le32 e_value_inum;
	le32 e_value_size;
	le32 e_hash;
	char e_name[];
};
_Static_assert(sizeof(struct ext4_xattr_entry) == 16, "xattr entry");

/* Access control lists: values of attributes. Entries with an id are longer. */
#define EXT4_ACL_VERSION 1
struct ext4_acl_header {
	le32 a_version;
};
struct ext4_acl_entry_short {
	le16 e_tag;
	le16 e_perm;
};
_Static_assert(sizeof(struct ext4_acl_entry_short) == 4, "short ACL entry");
struct ext4_acl_entry {
	le16 e_tag;
	le16 e_perm;
	le32 e_id;
};
_Static_assert(sizeof(struct ext4_acl_entry) == 8, "ACL entry");

/* Orphan file */
#define EXT4_ORPHAN_BLOCK_MAGIC 0x0B10CA04
/* Of multiple mount protection: the first bytes of block s_mmp_block. */
#define EXT4_MMP_MAGIC 0x004D4D50u
#define EXT4_MMP_SEQ_CLEAN 0xFF4D4D50u
#define EXT4_MMP_SEQ_FSCK 0xE24D4D50u
#define EXT4_MMP_SEQ_MAX 0xE24D4D4Fu
struct ext4_mmp_struct {
	le32 mmp_magic;
	le32 mmp_seq;
	le64 mmp_time; /* s; for people */
	char mmp_nodename[64];
	char mmp_bdevname[32];
	le16 mmp_check_interval; /* s */
	le16 mmp_pad1;
	le32 mmp_pad2[226];
	le32 mmp_checksum; /* crc(seed, what is before) */
};
_Static_assert(sizeof(struct ext4_mmp_struct) == 1024, "MMP block");

struct ext4_orphan_block_tail {
	le32 ob_magic;
	le32 ob_checksum;
};

/* ---- quota files, vfsv1: blocks of 1 KiB, whatever the volume's are ---- */

#define EXT4_QUOTA_BLOCK 1024u
#define EXT4_QUOTA_USR_MAGIC 0xD9C01F11u
#define EXT4_QUOTA_GRP_MAGIC 0xD9C01927u
#define EXT4_QUOTA_PRJ_MAGIC 0xD9C03F14u
#define EXT4_QUOTA_VERSION 1u
/* Tree: block 1 is its root; each level is found by one byte of the id, highest first. */
#define EXT4_QUOTA_ROOT 1u
#define EXT4_QUOTA_DEPTH 4u
#define EXT4_QUOTA_REFS (EXT4_QUOTA_BLOCK / 4)

/* Block 0 */
struct ext4_quota_header {
	le32 magic;
	le32 version;
	le32 bgrace, igrace; /* s */
	le32 flags;
	le32 blocks;     /* in use, free ones included */
	le32 free_blk;   /* first of a list of unused blocks; 0: none */
	le32 free_entry; /* first of a list of blocks with room for a record; 0: none */
};
_Static_assert(sizeof(struct ext4_quota_header) == 32, "quota header");

/* What all the last-level references name: blocks of records. */
struct ext4_quota_leaf {
	le32 next_free, prev_free; /* in the list of free_entry */
	le16 entries; /* in use */
	le16 pad1;
	le32 pad2;
};
_Static_assert(sizeof(struct ext4_quota_leaf) == 16, "quota leaf");

struct ext4_quota_record {
	le32 id;
	le32 pad;
	le64 ihardlimit, isoftlimit, curinodes;
	le64 bhardlimit, bsoftlimit; /* KiB */
	le64 curspace; /* bytes */
	le64 btime, itime;
};
_Static_assert(sizeof(struct ext4_quota_record) == 72, "quota record");
#define EXT4_QUOTA_RECORDS                                                     \
	((EXT4_QUOTA_BLOCK - (u32)sizeof(struct ext4_quota_leaf)) /            \
	 (u32)sizeof(struct ext4_quota_record))

#endif
