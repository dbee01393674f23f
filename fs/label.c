/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/label.c - the name of the volume
 *
 * The name stands in the superblock and in each of its backups. They are changed
 * through the journal, one after the other: a crash may leave backups with the old
 * name, which is what a backup is for.
 *
 * Locks:   handle -> b_lock (backups), s_lock (the superblock)
 * Source:  ext4-format brief 2; Documentation/filesystems/ext4/super.rst
 */
#include "fs/ext4.h"
#include "lib/crc.h"

#include <stdatomic.h>
#include <string.h>

_Static_assert(sizeof(((struct ext4_super_block *)0)->s_volume_name) ==
		       SL_LABEL_MAX,
	       "s_volume_name");

/* A backup is at the start of its block. */
static int backup_verify(struct super_block *sb, const struct buffer *b,
			 const void *data, u32 seed)
{
	const struct ext4_super_block *es = data;
	const struct ext4_sb *sbi = EXT4_SB(sb);

	if (le16_to_cpu(es->s_magic) != EXT4_SUPER_MAGIC)
		return -EFSCORRUPTED;
	if (sbi->has_csum &&
	    le32_to_cpu(es->s_checksum) !=
		    crc32c(~0u, es, offsetof(struct ext4_super_block, s_checksum)))
		return -EFSBADCRC;
	return 0;
}

static void backup_freeze(struct super_block *sb, pblk_t blk, void *data, u32 seed)
{
	ext4_super_csum_set(EXT4_SB(sb), data);
}

static const struct buffer_type backup_type = {
	.name = "backup superblock",
	.verify = backup_verify,
	.freeze = backup_freeze,
};

void sl_get_label(struct super_block *sb, char *label)
{
	struct ext4_sb *sbi = EXT4_SB(sb);

	mutex_lock(&sbi->s_lock);
	memcpy(label, sbi->es->s_volume_name, SL_LABEL_MAX);
	mutex_unlock(&sbi->s_lock);
	label[SL_LABEL_MAX] = '\0';
}

static int set_primary(struct ext4_sb *sbi, const char *name)
{
	struct handle *h;
	int err = journal_start(sbi->journal, 1, 0, &h), err2;

	if (err)
		return err;
	mutex_lock(&sbi->s_lock);
	err = handle_get_write_access(h, sbi->sb_buf);
	if (!err) {
		memcpy(sbi->es->s_volume_name, name, SL_LABEL_MAX);
		handle_dirty(h, sbi->sb_buf);
	}
	mutex_unlock(&sbi->s_lock);
	err2 = handle_stop(h);
	return err ? err : err2;
}

static int set_backup(struct ext4_sb *sbi, group_t g, const char *name)
{
	struct ext4_super_block *es;
	struct handle *h;
	struct buffer *b;
	int err, err2;

	err = buffer_read(&sbi->s, ext4_group_first_block(sbi, g), &backup_type, 0,
			  &b);
	if (err)
		return err;
	err = journal_start(sbi->journal, 1, 0, &h);
	if (!err) {
		mutex_lock(&b->b_lock);
		err = handle_get_write_access(h, b);
		if (!err) {
			es = (void *)b->b_data;
			memcpy(es->s_volume_name, name, SL_LABEL_MAX);
			handle_dirty(h, b);
		}
		mutex_unlock(&b->b_lock);
		err2 = handle_stop(h);
		err = err ? err : err2;
	}
	buffer_put(b);
	return err;
}

int sl_set_label(struct super_block *sb, const char *label)
{
	struct ext4_sb *sbi = EXT4_SB(sb);
	char name[SL_LABEL_MAX] = { 0 };
	size_t len = strnlen(label, SL_LABEL_MAX + 1);
	int err = atomic_load(&sbi->quiet) ? -EROFS : ext4_may_write(sbi);

	if (len > SL_LABEL_MAX)
		return -EINVAL;
	if (err)
		return err;
	memcpy(name, label, len);
	err = set_primary(sbi, name);
	for (group_t g = 1; !err && g < sbi->groups; g++) {
		if (!ext4_group_has_super(sbi, g))
			continue;
		err = set_backup(sbi, g, name);
		/* A backup that is damaged is e2fsck's affair. */
		if (err == -EFSCORRUPTED || err == -EFSBADCRC || err == -EIO) {
			log_warn("%s: the backup superblock of group %u keeps its label: %s",
				 sb->s_id, g, strerror(-err));
			err = 0;
		}
	}
	if (!err)
		err = journal_force_commit(sbi->journal);
	return err;
}
