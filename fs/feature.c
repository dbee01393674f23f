/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/feature.c - which features of a volume are served, and how
 *
 * Three tables, one a feature word: bit, name as mke2fs spells it, policy. An
 * unknown incompat bit refuses the mount, an unknown ro_compat bit allows
 * read-only only, as every ext4 does; unknown compat bits are read-only here,
 * since we can't know what writing would break.
 *
 * Locks: none. Source: ext4-format brief 1.2.
 */
#include "fs/ext4.h"

#include <stdio.h>
#include <string.h>

enum policy { RW, RO, REFUSE };

struct feature {
	u32 bit;
	const char *name;
	enum policy policy;
};

static const struct feature compat[] = {
	{ EXT4_COMPAT_DIR_PREALLOC, "dir_prealloc", RO },
	{ EXT4_COMPAT_IMAGIC_INODES, "imagic_inodes", RO },
	{ EXT4_COMPAT_HAS_JOURNAL, "has_journal", RW },
	{ EXT4_COMPAT_EXT_ATTR, "ext_attr", RW },
	{ EXT4_COMPAT_RESIZE_INODE, "resize_inode", RW },
	{ EXT4_COMPAT_DIR_INDEX, "dir_index", RW },
	{ EXT4_COMPAT_LAZY_BG, "lazy_bg", RO },
	{ EXT4_COMPAT_EXCLUDE_BITMAP, "exclude_bitmap", RO },
	{ EXT4_COMPAT_SPARSE_SUPER2, "sparse_super2", RW },
	{ EXT4_COMPAT_FAST_COMMIT, "fast_commit", RW },
	{ EXT4_COMPAT_STABLE_INODES, "stable_inodes", RW },
	{ EXT4_COMPAT_ORPHAN_FILE, "orphan_file", RW },
};

static const struct feature incompat[] = {
	{ EXT4_INCOMPAT_COMPRESSION, "compression", REFUSE },
	{ EXT4_INCOMPAT_FILETYPE, "filetype", RW },
	{ EXT4_INCOMPAT_RECOVER, "needs_recovery", RW },
	{ EXT4_INCOMPAT_JOURNAL_DEV, "journal_dev", REFUSE },
	{ EXT4_INCOMPAT_META_BG, "meta_bg", RW },
	{ EXT4_INCOMPAT_EXTENTS, "extent", RW },
	{ EXT4_INCOMPAT_64BIT, "64bit", RW },
	{ EXT4_INCOMPAT_MMP, "mmp", RW },
	{ EXT4_INCOMPAT_FLEX_BG, "flex_bg", RW },
	{ EXT4_INCOMPAT_EA_INODE, "ea_inode", RW },
	{ EXT4_INCOMPAT_DIRDATA, "dirdata", REFUSE },
	{ EXT4_INCOMPAT_CSUM_SEED, "metadata_csum_seed", RW },
	{ EXT4_INCOMPAT_LARGEDIR, "large_dir", RW },
	{ EXT4_INCOMPAT_INLINE_DATA, "inline_data", RW },
	{ EXT4_INCOMPAT_ENCRYPT, "encrypt", REFUSE },
	{ EXT4_INCOMPAT_CASEFOLD, "casefold", REFUSE },
};

static const struct feature ro_compat[] = {
	{ EXT4_RO_COMPAT_SPARSE_SUPER, "sparse_super", RW },
	{ EXT4_RO_COMPAT_LARGE_FILE, "large_file", RW },
	{ EXT4_RO_COMPAT_HUGE_FILE, "huge_file", RW },
	{ EXT4_RO_COMPAT_GDT_CSUM, "uninit_bg", RW },
	{ EXT4_RO_COMPAT_DIR_NLINK, "dir_nlink", RW },
	{ EXT4_RO_COMPAT_EXTRA_ISIZE, "extra_isize", RW },
	{ EXT4_RO_COMPAT_HAS_SNAPSHOT, "snapshot", RO },
	{ EXT4_RO_COMPAT_QUOTA, "quota", RW },
	{ EXT4_RO_COMPAT_BIGALLOC, "bigalloc", RW },
	{ EXT4_RO_COMPAT_METADATA_CSUM, "metadata_csum", RW },
	{ EXT4_RO_COMPAT_REPLICA, "replica", RO },
	{ EXT4_RO_COMPAT_READONLY, "read-only", RO },
	{ EXT4_RO_COMPAT_PROJECT, "project", RW },
	{ EXT4_RO_COMPAT_SHARED_BLOCKS, "shared_blocks", RO },
	{ EXT4_RO_COMPAT_VERITY, "verity", RO },
	{ EXT4_RO_COMPAT_ORPHAN_PRESENT, "orphan_present", RW },
};

/* Appends the names of the set bits whose policy is at least `min`. */
static void collect(const struct feature *tab, size_t n, u32 word,
		    enum policy unknown, enum policy min, char *buf, size_t len)
{
	size_t used = strlen(buf);

	for (size_t i = 0; i < n; i++) {
		if (!(word & tab[i].bit))
			continue;
		word &= ~tab[i].bit;
		if (tab[i].policy < min || used >= len)
			continue;
		used += (size_t)snprintf(buf + used, len - used, "%s%s",
					 used ? " " : "", tab[i].name);
	}
	if (word && unknown >= min && used < len)
		snprintf(buf + used, len - used, "%sunknown:0x%x",
			 used ? " " : "", word);
}

int ext4_feature_check(struct ext4_sb *sbi, bool *ro, char *why, size_t whylen)
{
	char names[256] = "";

	collect(incompat, ARRAY_SIZE(incompat), sbi->features_incompat, REFUSE,
		REFUSE, names, sizeof(names));
	if (names[0]) {
		log_err("%s: refused: unsupported features: %s", sbi->s.s_id,
			names);
		return -EOPNOTSUPP;
	}
	*ro = false;
	collect(compat, ARRAY_SIZE(compat), sbi->features_compat, RO, RO, names,
		sizeof(names));
	collect(incompat, ARRAY_SIZE(incompat), sbi->features_incompat, REFUSE,
		RO, names, sizeof(names));
	collect(ro_compat, ARRAY_SIZE(ro_compat), sbi->features_ro_compat, RO,
		RO, names, sizeof(names));
	/* Who is charged for such a value is not known yet. */
	if (ext4_has_ro_compat(sbi, QUOTA) && ext4_has_incompat(sbi, EA_INODE))
		strncat(names, names[0] ? " quota with ea_inode" : "quota with ea_inode",
			sizeof(names) - strlen(names) - 1);
	/* No program makes one whose last cluster is short, or without extents. */
	if (ext4_cluster_offset(sbi, sbi->blocks_count) ||
	    (sbi->cluster_bits && !ext4_has_incompat(sbi, EXTENTS)))
		strncat(names, names[0] ? " odd bigalloc" : "odd bigalloc",
			sizeof(names) - strlen(names) - 1);
	if (!ext4_has_incompat(sbi, FILETYPE))
		strncat(names, names[0] ? " ^filetype" : "^filetype",
			sizeof(names) - strlen(names) - 1);
	if (!ext4_has_compat(sbi, HAS_JOURNAL) && !sbi->opts.no_journal)
		strncat(names, names[0] ? " ^has_journal" : "^has_journal",
			sizeof(names) - strlen(names) - 1);
	if (names[0]) {
		*ro = true;
		snprintf(why, whylen, "%s", names);
	}
	return 0;
}
