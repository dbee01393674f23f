/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/journal/jbd2_format.h - the journal on disk (big endian throughout)
 *
 * The log is a ring of blocks [s_first, end). A transaction is any number of
 * revoke blocks and of descriptors, each followed by the images its tags
 * name, and then one commit block; all carry the same number (h_sequence).
 *
 * Locks: none. Source: Documentation/filesystems/ext4/journal.rst.
 */
#ifndef SLUICE_FS_JBD2_FORMAT_H
#define SLUICE_FS_JBD2_FORMAT_H

#include "lib/types.h"

#define JBD2_MAGIC 0xC03B3998u

enum jbd2_blocktype {
	JBD2_DESCRIPTOR = 1,
	JBD2_COMMIT = 2,
	JBD2_SB_V1 = 3,
	JBD2_SB_V2 = 4,
	JBD2_REVOKE = 5,
};

struct jbd2_header { /* first 12 bytes of every block that is no image */
	be32 h_magic;
	be32 h_blocktype;
	be32 h_sequence;
};
_Static_assert(sizeof(struct jbd2_header) == 12, "jbd2 header");

#define JBD2_COMPAT_CHECKSUM 0x1u

#define JBD2_INCOMPAT_REVOKE 0x1u
#define JBD2_INCOMPAT_64BIT 0x2u
#define JBD2_INCOMPAT_ASYNC_COMMIT 0x4u
#define JBD2_INCOMPAT_CSUM_V2 0x8u
#define JBD2_INCOMPAT_CSUM_V3 0x10u
#define JBD2_INCOMPAT_FAST_COMMIT 0x20u
#define JBD2_INCOMPAT_KNOWN 0x3Fu

#define JBD2_CRC32_CHKSUM 1u  /* h_chksum_type of v1 */
#define JBD2_CRC32C_CHKSUM 4u /* s_checksum_type of v2, v3 */

#define JBD2_DEFAULT_FC_BLOCKS 256u
#define JBD2_UUID_SIZE 16u

struct jbd2_superblock { /* block 0 of the journal, 1024 bytes */
	struct jbd2_header s_header;
	be32 s_blocksize;
	be32 s_maxlen;
	be32 s_first;
	be32 s_sequence; /* number of the transaction at s_start; empty: last used */
	be32 s_start;    /* 0: the log is empty */
	be32 s_errno;
	be32 s_feature_compat;
	be32 s_feature_incompat;
	be32 s_feature_ro_compat;
	u8 s_uuid[16];
	be32 s_nr_users;
	be32 s_dynsuper;
	be32 s_max_transaction;
	be32 s_max_trans_data;
	u8 s_checksum_type;
	u8 s_padding2[3];
	be32 s_num_fc_blks;
	be32 s_head;
	u8 s_padding[160];
	be32 s_checksum;
	u8 s_users[768];
};
_Static_assert(sizeof(struct jbd2_superblock) == 1024, "jbd2 superblock");
_Static_assert(offsetof(struct jbd2_superblock, s_uuid) == 0x30, "s_uuid");
_Static_assert(offsetof(struct jbd2_superblock, s_checksum_type) == 0x50, "s_checksum_type");
_Static_assert(offsetof(struct jbd2_superblock, s_head) == 0x58, "s_head");
_Static_assert(offsetof(struct jbd2_superblock, s_checksum) == 0xFC, "s_checksum");

enum jbd2_tag_flags {
	JBD2_TAG_ESCAPE = 1,    /* the image's first 4 bytes were the magic */
	JBD2_TAG_SAME_UUID = 2, /* no UUID follows this tag */
	JBD2_TAG_DELETED = 4,   /* never written by anybody */
	JBD2_TAG_LAST = 8,
};

struct jbd2_tag3 { /* CSUM_V3 */
	be32 t_blocknr;
	be32 t_flags;
	be32 t_blocknr_high;
	be32 t_checksum;
};
_Static_assert(sizeof(struct jbd2_tag3) == 16, "jbd2 tag v3");

/*
 * All others: 8 bytes, and 4 more with 64BIT. With CSUM_V2 the tags stand two
 * bytes further apart than these sizes (a historic quirk of the format).
 */
struct jbd2_tag {
	be32 t_blocknr;
	be16 t_checksum;
	be16 t_flags;
	be32 t_blocknr_high;
};
_Static_assert(sizeof(struct jbd2_tag) == 12, "jbd2 tag");

struct jbd2_tail { /* last 4 bytes of descriptor and revoke blocks, v2 and v3 */
	be32 t_checksum;
};

struct jbd2_revoke_header {
	struct jbd2_header r_header;
	be32 r_count; /* bytes used, this header included */
};
_Static_assert(sizeof(struct jbd2_revoke_header) == 16, "jbd2 revoke header");

struct jbd2_commit_header {
	struct jbd2_header h_header;
	u8 h_chksum_type;
	u8 h_chksum_size;
	u8 h_padding[2];
	be32 h_chksum[8];
	be64 h_commit_sec;
	be32 h_commit_nsec;
};
_Static_assert(offsetof(struct jbd2_commit_header, h_chksum) == 0x10, "h_chksum");
_Static_assert(offsetof(struct jbd2_commit_header, h_commit_sec) == 0x30, "h_commit_sec");

/* Fast commits: all that is asked is whether there are any (little endian). */
#define EXT4_FC_TAG_HEAD 9u
struct ext4_fc_first {
	le16 fc_tag;
	le16 fc_len;
	le32 fc_features;
	le32 fc_tid;
};
_Static_assert(sizeof(struct ext4_fc_first) == 12, "fast commit head");

#endif
