/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/ctl/volume.c - sluicectl label, shutdown, trim: the volume as a whole
 *
 * Locks: none. Threads: one.
 */
#include "src/ctl/ctl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <linux/fs.h>

#include "src/options.h"
#include "src/sluice_ioctl.h"

/* One step of trim, so that there is something to tell. */
#define TRIM_STEP (1ull << 30)

static const char *const shutdowns[] = {
	[SLUICE_SHUTDOWN_DEFAULT] = "default",
	[SLUICE_SHUTDOWN_LOGFLUSH] = "logflush",
	[SLUICE_SHUTDOWN_NOLOGFLUSH] = "nologflush",
};

bool ctl_shutdown_ok(struct call *c)
{
	for (unsigned i = 0; i < sizeof(shutdowns) / sizeof(shutdowns[0]); i++)
		if (!strcmp(c->arg, shutdowns[i])) {
			c->first = i;
			return true;
		}
	return false;
}

int ctl_shutdown(const struct call *c, int fd)
{
	struct sluice_shutdown s = {
		.version = SLUICE_IOC_VERSION,
		.size = sizeof(s),
		.how = c->arg ? (__u32)c->first : SLUICE_SHUTDOWN_DEFAULT,
	};

	return ioctl(fd, SLUICE_IOC_SHUTDOWN, &s) < 0 ? ctl_failed(c->mnt) : 0;
}

bool ctl_label_ok(struct call *c)
{
	return strlen(c->arg) <= 16;
}

int ctl_label(const struct call *c, int fd)
{
	char label[FSLABEL_MAX] = "";

	if (c->arg) {
		strncpy(label, c->arg, sizeof(label) - 1);
		return ioctl(fd, FS_IOC_SETFSLABEL, label) < 0 ?
			       ctl_failed(c->mnt) : 0;
	}
	if (ioctl(fd, FS_IOC_GETFSLABEL, label) < 0)
		return ctl_failed(c->mnt);
	printf("%s\n", label);
	return 0;
}

static void progress(uint64_t at, uint64_t size, uint64_t trimmed)
{
	fprintf(stderr, "\r%3u %%, %" PRIu64 " MiB discarded",
		size ? (unsigned)(at * 100 / size) : 100, trimmed >> 20);
}

int ctl_trim(const struct call *c, int fd)
{
	bool tell = isatty(STDERR_FILENO);
	uint64_t size, trimmed = 0;
	struct statvfs st;
	int err = 0;

	if (fstatvfs(fd, &st))
		return ctl_failed(c->mnt);
	/* More than that is there: what the file system has for itself. */
	size = (uint64_t)st.f_blocks * st.f_frsize;
	for (uint64_t at = 0;; at += TRIM_STEP) {
		struct fstrim_range r = { at, TRIM_STEP, c->bytes };

		if (ioctl(fd, FITRIM, &r) < 0) {
			/* Beyond the end. */
			err = errno == EINVAL && at ? 0 : errno;
			break;
		}
		trimmed += r.len;
		if (tell)
			progress(at < size ? at : size, size, trimmed);
	}
	if (tell)
		fputs("\r                                        \r", stderr);
	if (err) {
		errno = err;
		return ctl_failed(c->mnt);
	}
	printf("%" PRIu64 "\n", trimmed);
	return 0;
}
