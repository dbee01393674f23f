/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/remount.c - "mount -o remount": the daemon and the kernel's mount are changed
 *
 * mount(8) calls its helper with all options that the mount has, or that fstab
 * has for it, and those that are to be. FUSE tells the daemon of a remount nothing:
 * we do (reconfigure.c), and of others it learns from the mount table
 * (notice_remount() in session.c). Read-only, it goes on to hold the volume, and
 * finishes deletions; but no time of access changes any more.
 *
 * Locks: none. Threads: the main thread of a process without a daemon.
 */
#include "src/remount.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <time.h>
#include <unistd.h>

#include "lib/log.h"
#include "src/options.h"
#include "src/sluice_ioctl.h"
#include "src/umount.h"

/* Another remount is under way: how long it is waited for. */
#define BUSY_TRIES 600
#define BUSY_WAIT_MS 100
/* A file that was removed right after its close counts as in use until the kernel has
 * the answer to its RELEASE, for which nobody waits: so long it is tried again. */
#define CLOSE_TRIES 50
#define CLOSE_WAIT_MS 20

static unsigned long flags_of(const struct options *o, bool sync)
{
	unsigned long flags = MS_REMOUNT;

	if (sync)
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

/* All that was written is durable, and the daemon has nothing left to write. */
static int sync_volume(int fd)
{
	struct sluice_sync s = {
		.version = SLUICE_IOC_VERSION,
		.size = sizeof(s),
	};

	return syncfs(fd) || ioctl(fd, SLUICE_IOC_SYNC, &s) < 0 ? -errno : 0;
}

/* A remount, and its next step. */
struct change {
	const struct options *o;
	const char *where;
	int fd;
	struct sluice_remount r;
};

/* What the daemon says, line by line. */
static void tell(struct change *c, enum log_level level)
{
	char *save, *line = strtok_r(c->r.text, "\n", &save);

	for (; line; line = strtok_r(NULL, "\n", &save))
		log_msg(level, "%s: %s", c->where, line);
}

/* 0 or an exit code, the reason having been logged. */
static int step(struct change *c, u32 what, bool readonly)
{
	struct timespec nap = { .tv_nsec = BUSY_WAIT_MS * 1000000l };
	struct sluice_remount *r = &c->r;

	for (int i = 0;; i++) {
		int n;

		memset(r, 0, sizeof(*r));
		r->version = SLUICE_IOC_VERSION;
		r->size = sizeof(*r);
		r->step = what;
		r->flags = c->o->sloppy ? SLUICE_REMOUNT_SLOPPY : 0;
		n = snprintf(r->text, sizeof(r->text), "%s%s%s", c->o->given ?: "",
			     c->o->given ? "," : "", readonly ? "ro" : "rw");
		if (n < 0 || (size_t)n >= sizeof(r->text)) {
			log_err("%s: too many options", c->where);
			return EXIT_CODE_MOUNT;
		}
		if (ioctl(c->fd, SLUICE_IOC_REMOUNT, r) < 0) {
			log_err("%s: not the root of a Sluice mount, or not permitted: %s",
				c->where, strerror(errno));
			return EXIT_CODE_MOUNT;
		}
		if (r->error != EBUSY || r->text[0] || i >= BUSY_TRIES)
			break;
		nanosleep(&nap, NULL);
	}
	if (r->error && !r->text[0])
		log_err("%s: remount: %s", c->where, strerror((int)r->error));
	tell(c, r->error ? LOG_LVL_ERR : LOG_LVL_WARN);
	return r->error ? EXIT_CODE_MOUNT : 0;
}

static int remount_kernel(const struct change *c, unsigned long flags)
{
	struct timespec nap = { .tv_nsec = CLOSE_WAIT_MS * 1000000l };

	for (int i = 0; mount(NULL, c->where, NULL, flags, NULL); i++) {
		if (errno != EBUSY || !(flags & MS_RDONLY) || i >= CLOSE_TRIES)
			return -errno;
		nanosleep(&nap, NULL);
	}
	return 0;
}

/*
 * To write: first the daemon, then the kernel, which lets clients through. To read only:
 * the kernel first, as only that knows who has a file open for writing.
 */
static int carry_out(struct change *c)
{
	const struct options *o = c->o;
	bool sync = c->r.flags & SLUICE_REMOUNT_SYNC;
	int code, err;

	code = o->sl.readonly ? 0 : step(c, SLUICE_REMOUNT_WRITE, false);
	if (code)
		return code;
	err = remount_kernel(c, flags_of(o, sync));
	if (err) {
		log_err("%s: remount: %s", c->where, strerror(-err));
		return err == -EPERM ? EXIT_CODE_USAGE : EXIT_CODE_MOUNT;
	}
	code = step(c, SLUICE_REMOUNT_APPLY, o->sl.readonly);
	if (code || !o->sl.readonly)
		return code;
	err = sync_volume(c->fd);
	if (!err)
		return 0;
	log_err("%s: it is remounted, but not all could be written: %s", c->where,
		strerror(-err));
	return EXIT_CODE_MOUNT;
}

static int remount_open(const struct options *o, const char *where, int fd)
{
	struct change c = { .o = o, .where = where, .fd = fd };
	int code = step(&c, SLUICE_REMOUNT_CHECK, o->sl.readonly);

	return code || o->fake ? code : carry_out(&c);
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
