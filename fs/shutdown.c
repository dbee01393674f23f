/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/shutdown.c - the volume is shut down while it is mounted
 *
 * As after a crash, but by will: nothing that comes after it reaches the device, calls
 * that change something give -EIO, and what is mounted next recovers. The journal is
 * aborted with -ESHUTDOWN, which is no error: it is recorded nowhere, and the errors=
 * policy has no say. What was in memory only is lost, and write-out lets go of it.
 *
 * Locks: none. Sleeps for I/O.
 */
#include "fs/ext4.h"

#include <stdatomic.h>

int sl_shutdown(struct super_block *sb, enum sl_shutdown how)
{
	static const char *const before[] = {
		[SL_SHUTDOWN_DEFAULT] = "after all was written",
		[SL_SHUTDOWN_LOGFLUSH] = "after a commit",
		[SL_SHUTDOWN_NOLOGFLUSH] = "at once",
	};
	struct ext4_sb *sbi = EXT4_SB(sb);
	int err = 0;

	if (how > SL_SHUTDOWN_NOLOGFLUSH)
		return -EINVAL;
	if (atomic_load(&sbi->shut_down))
		return 0;
	if (sbi->journal && how == SL_SHUTDOWN_DEFAULT)
		err = sl_sync(sb);
	if (err)
		return err;
	/* An error of this commit is one of the volume, told where it is met. */
	if (sbi->journal && how == SL_SHUTDOWN_LOGFLUSH)
		(void)!journal_force_commit(sbi->journal);
	if (atomic_exchange(&sbi->shut_down, true))
		return 0;
	log_warn("%s: shut down %s; nothing more reaches the device until the next mount",
		 sb->s_id, before[how]);
	if (sbi->journal)
		journal_abort(sbi->journal, -ESHUTDOWN);
	atomic_store(&sb->s_rdonly, true);
	return 0;
}

bool sl_is_shut_down(struct super_block *sb)
{
	return atomic_load(&EXT4_SB(sb)->shut_down);
}
