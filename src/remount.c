/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/remount.c - "mount -o remount": what the kernel has of a mount is changed
 *
 * mount(8) calls its helper with all options that the mount has, or that fstab
 * has for it, and those that are to be. FUSE tells the daemon of a remount nothing:
 * we do, and of others it learns from the mount table (notice_remount() in session.c).
 * Read-only, it goes on to hold the volume, and finishes deletions; but no time of
 * access changes any more.
 *
 * Locks: none. Threads: the main thread of a process without a daemon.
 */
#include "src/remount.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "lib/log.h"
#include "src/options.h"
#include "src/sluice_ioctl.h"
#include "src/umount.h"

static unsigned long flags_of(const struct options *o, int fd)
{
	unsigned long flags = MS_REMOUNT;
	struct statvfs st;

	/* It would be taken away: of a mount with writeback and sync. */
	if (!fstatvfs(fd, &st) && st.f_flag & ST_SYNCHRONOUS)
		flags |= MS_SYNCHRONOUS;
	if (o->sl.readonly)
		flags |= MS_RDONLY;
	if (o->suid == OPT_NO)
		flags |= MS_NOSUID;
	if (o->dev == OPT_NO)
		flags |= MS_NODEV;
	if (o->exec == OPT_NO)
		flags |= MS_NOEXEC;
	/* Without any of these it stays as it is. */
	if (o->atime_given)
		flags |= o->sl.atime == SL_ATIME_NOATIME ? MS_NOATIME : MS_RELATIME;
	return flags;
}

/* What only a new mount would change. */
static bool has_options_of_volume(const struct options *o)
{
	return o->sl.sync || o->sl.dirsync || o->sl.errors || o->sl.commit_ms ||
	       o->sl.discard || o->sl.data_err_abort || o->sl.grpid ||
	       o->sl.resuid.given || o->sl.resgid.given || o->sl.max_dir_size_kb ||
	       o->sl.nodelalloc || o->sl.noauto_da_alloc || o->sl.cache_bytes ||
	       o->journal_path || o->journal_dev ||
	       o->nr_notes;
}

static int info_of(int fd, struct sluice_info *info)
{
	*info = (struct sluice_info){
		.version = SLUICE_IOC_VERSION,
		.size = sizeof(*info),
	};
	return ioctl(fd, SLUICE_IOC_INFO, info) < 0 ? -errno : 0;
}

/* All that was written is durable, and the daemon has nothing left to write. */
static int sync_volume(int fd)
{
	struct sluice_sync s = {
		.version = SLUICE_IOC_VERSION,
		.size = sizeof(s),
	};

	return syncfs(fd) || ioctl(fd, SLUICE_IOC_SYNC, &s) < 0 ? -errno : 0;
}

static int tell_daemon(const struct options *o, int fd)
{
	struct sluice_remount r = {
		.version = SLUICE_IOC_VERSION,
		.size = sizeof(r),
		.readonly = o->sl.readonly,
	};

	if (o->atime_given)
		r.atime = o->sl.atime == SL_ATIME_NOATIME ? SLUICE_ATIME_NONE :
							    SLUICE_ATIME_KEPT;
	return ioctl(fd, SLUICE_IOC_REMOUNT, &r) < 0 ? -errno : 0;
}

static int remount_open(const struct options *o, const char *where, int fd)
{
	struct sluice_info info;
	int err = info_of(fd, &info);

	if (err) {
		log_err("%s: not the root of a Sluice mount, or not permitted: %s", where,
			strerror(-err));
		return EXIT_CODE_MOUNT;
	}
	if (!o->sl.readonly && info.flags & SLUICE_INFO_READONLY) {
		log_err("%s: it was mounted read-only, or errors have made it so: unmount it, and mount it again",
			where);
		return EXIT_CODE_MOUNT;
	}
	if (has_options_of_volume(o))
		log_warn("%s: a remount changes ro, rw, suid, dev, exec and noatime; the other options stay as they are",
			 where);
	if (o->fake)
		return 0;
	if (mount(NULL, where, NULL, flags_of(o, fd), NULL)) {
		log_err("%s: remount: %s", where, strerror(errno));
		return errno == EPERM ? EXIT_CODE_USAGE : EXIT_CODE_MOUNT;
	}
	if (info.flags & SLUICE_INFO_READONLY)
		return 0;
	err = tell_daemon(o, fd);
	if (!err && o->sl.readonly)
		err = sync_volume(fd);
	if (err) {
		log_err("%s: it is remounted, but the daemon failed: %s", where,
			strerror(-err));
		return EXIT_CODE_MOUNT;
	}
	return 0;
}

int remount(const struct options *o)
{
	char where[PATH_MAX];
	char *source;
	dev_t dev;
	int fd, code;

	if (!realpath(o->mountpoint, where)) {
		log_err("%s: %s", o->mountpoint, strerror(errno));
		return EXIT_CODE_MOUNT;
	}
	source = mount_source(where, &dev);
	if (!source) {
		log_err("%s: no FUSE file system is mounted there", where);
		return EXIT_CODE_MOUNT;
	}
	free(source);
	fd = open(where, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		log_err("%s: %s", where, strerror(errno));
		return EXIT_CODE_MOUNT;
	}
	code = remount_open(o, where, fd);
	close(fd);
	return code;
}
