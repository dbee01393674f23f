/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/flags.c - flags and project of an inode, as chattr(1) and its like change them
 *
 * Whoever reads a flag reads i_flags as it is; who must not be overtaken by a change
 * holds i_rwsem. What immutable and append-only files refuse is checked where it
 * is done: ext4_may_change() and ext4_may_remove() (names), setattr_allowed(),
 * ext4_write_allowed(), sl_open(), sl_fallocate(), sl_setxattr().
 *
 * Refused, since the data would have to be treated otherwise: JOURNAL_DATA is not
 * turned on (data goes to its place, not into the log). If EXTENTS changes, what says where
 * the blocks are is made anew first (map_migrate.c).
 *
 * Locks:   i_rwsem -> handle -> i_lock
 * Source:  ext4-format brief 5; chattr(1); ioctl_iflags(2)
 */
#include "fs/ext4.h"
#include "fs/quota.h"

#include <stdatomic.h>

/* What a user sees; of the rest he may neither know nor ask. */
#define FLAGS_VISIBLE 0x725BDFFFu
/* What he may change. The others that he sees stay, whatever he asks for. */
#define FLAGS_SETTABLE                                                         \
	(EXT4_SECRM_FL | EXT4_UNRM_FL | EXT4_COMPR_FL | EXT4_SYNC_FL |         \
	 EXT4_IMMUTABLE_FL | EXT4_APPEND_FL | EXT4_NODUMP_FL |                 \
	 EXT4_NOATIME_FL | EXT4_JOURNAL_DATA_FL | EXT4_NOTAIL_FL |             \
	 EXT4_DIRSYNC_FL | EXT4_TOPDIR_FL | EXT4_EXTENTS_FL | EXT4_DAX_FL |    \
	 EXT4_PROJINHERIT_FL | EXT4_CASEFOLD_FL)
/* Of directories alone; and what all but files and directories may have. */
#define FLAGS_OF_DIRS                                                          \
	(EXT4_DIRSYNC_FL | EXT4_TOPDIR_FL | EXT4_CASEFOLD_FL | EXT4_PROJINHERIT_FL)
#define FLAGS_OF_OTHERS (EXT4_NODUMP_FL | EXT4_NOATIME_FL)
/* Only with CAP_LINUX_IMMUTABLE */
#define FLAGS_GUARDED (EXT4_IMMUTABLE_FL | EXT4_APPEND_FL)

u32 ext4_flags_of_type(u32 flags, u32 mode)
{
	if (S_ISDIR(mode))
		return flags;
	if (S_ISREG(mode))
		return flags & ~(u32)FLAGS_OF_DIRS;
	return flags & FLAGS_OF_OTHERS;
}

int ext4_may_enter(const struct ext4_inode *dir, const struct ext4_inode *ei)
{
	if (likely(!(dir->vfs.i_flags & EXT4_PROJINHERIT_FL)) ||
	    atomic_load(&dir->i_projid) == atomic_load(&ei->i_projid))
		return 0;
	return -EXDEV;
}

void sl_fileattr_get(struct inode *inode, struct sl_fileattr *fa)
{
	struct ext4_sb *sbi = EXT4_SB(inode->i_sb);

	*fa = (struct sl_fileattr){ .flags = inode->i_flags & FLAGS_VISIBLE };
	if (S_ISREG(inode->i_mode))
		fa->flags &= ~(u32)EXT4_PROJINHERIT_FL;
	if (ext4_has_ro_compat(sbi, PROJECT))
		fa->projid = atomic_load(&EXT4_I(inode)->i_projid);
}

/* Only the flag that forbids changes may be changed, as long as it is not cleared. */
static bool immutable_forbids(const struct ext4_inode *ei, u32 flags, u32 projid)
{
	u32 old = ei->vfs.i_flags & FLAGS_SETTABLE;

	return old & flags & EXT4_IMMUTABLE_FL &&
	       (old != flags || projid != atomic_load(&ei->i_projid));
}

static int check_flags(const struct ext4_inode *ei, u32 flags, u32 may)
{
	u32 changed = (ei->vfs.i_flags & FLAGS_SETTABLE) ^ flags;

	if (changed & FLAGS_GUARDED && !(may & SL_MAY_IMMUTABLE))
		return -EPERM;
	if (changed & EXT4_JOURNAL_DATA_FL) {
		if (!(may & SL_MAY_RESOURCE))
			return -EPERM;
		if (flags & EXT4_JOURNAL_DATA_FL)
			return -EOPNOTSUPP;
	}
	if (changed & EXT4_CASEFOLD_FL)
		return -EOPNOTSUPP;
	if (flags & EXT4_DAX_FL && changed & EXT4_DAX_FL &&
	    ei->vfs.i_flags & (EXT4_VERITY_FL | EXT4_JOURNAL_DATA_FL |
			       (S_ISDIR(ei->vfs.i_mode) ? 0 : EXT4_INLINE_DATA_FL)))
		return -EOPNOTSUPP;
	return 0;
}

static int check_project(const struct ext4_inode *ei, u32 projid)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);

	if (projid == atomic_load(&ei->i_projid))
		return 0;
	if (!ext4_has_ro_compat(sbi, PROJECT) ||
	    sbi->inode_size == EXT4_GOOD_OLD_INODE_SIZE)
		return -EOPNOTSUPP;
	/* An inode made with less room than that. */
	if (offsetof(struct ext4_inode_disk, i_projid) + 4 >
	    EXT4_GOOD_OLD_INODE_SIZE + (u32)ei->i_extra_isize)
		return -EOVERFLOW;
	return 0;
}

static int change(struct ext4_inode *ei, u32 flags, u32 projid)
{
	struct inode *inode = &ei->vfs;
	struct ext4_owner to = ext4_owner_of(ei);
	struct buffer *b;
	struct handle *h;
	u32 offset;
	int err;

	to.id[EXT4_QUOTA_PRJ] = projid;
	err = ext4_quota_prepare(ext4_sb_of(ei), &to);
	if (!err)
		err = journal_start(ext4_sb_of(ei)->journal, EXT4_INODE_CREDITS, 0, &h);
	if (err)
		return err;
	err = ext4_inode_prepare(h, ei, &b, &offset);
	if (err)
		goto out_stop;
	inode_attrs_lock(inode);
	ext4_quota_transfer(h, ei, &to);
	atomic_store(&ei->i_projid, projid);
	inode->i_flags = flags | (inode->i_flags & ~(u32)FLAGS_SETTABLE);
	inode->i_version++;
	inode_attrs_unlock(inode);
	ext4_touch(ei, EXT4_T_CTIME);
	ext4_inode_finish(h, ei, b, offset);
out_stop:
	return ext4_stop_sync(h, err, ei, NULL);
}

int sl_fileattr_set(struct inode *inode, const struct sl_fileattr *fa, u32 what,
		    u32 mask, u32 may, const struct sl_cred *cred)
{
	struct ext4_sb *sbi = EXT4_SB(inode->i_sb);
	struct ext4_inode *ei = EXT4_I(inode);
	u32 flags, projid;
	int err = ext4_may_write(sbi);

	if (err)
		return err;
	budget_throttle(sbi->s.s_budget);
	rwsem_down_write(&inode->i_rwsem);
	flags = inode->i_flags;
	if (what & SL_FA_FLAGS)
		flags = (fa->flags & mask) | (flags & FLAGS_VISIBLE & ~mask);
	projid = what & SL_FA_PROJID ? fa->projid : atomic_load(&ei->i_projid);
	err = -EPERM;
	if (cred && cred->uid != inode->i_uid && !(may & SL_MAY_OWN))
		goto out;
	err = -EOPNOTSUPP;
	if (what & SL_FA_FLAGS && (fa->flags & mask & ~FLAGS_VISIBLE ||
				   ext4_flags_of_type(flags & FLAGS_SETTABLE,
						      inode->i_mode) !=
					   (flags & FLAGS_SETTABLE)))
		goto out;
	flags &= FLAGS_SETTABLE;
	err = -EPERM;
	if (immutable_forbids(ei, flags, projid))
		goto out;
	err = check_flags(ei, flags, may);
	if (!err) {
		ext4_extra_grow(ei); /* the project may need it */
		err = check_project(ei, projid);
	}
	if (!err && (flags ^ inode->i_flags) & EXT4_EXTENTS_FL)
		err = ext4_map_migrate(ei, flags & EXT4_EXTENTS_FL);
	if (!err)
		err = change(ei, flags, projid);
out:
	rwsem_up_write(&inode->i_rwsem);
	return err;
}
