/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/ctl/umount_wait.c - sluicectl umount: returns when the volume is quiet
 *
 * umount(2) alone is not the end. Of type fuse it returns while the daemon still
 * writes; of type fuseblk the daemon has written all, but lives a moment longer and has
 * the device open; and the loop device of an image goes when it likes. So the
 * daemon says who it is while the mount stands, and is then waited for by a pidfd,
 * which cannot come to mean another process: it is asked for again after the pidfd
 * was opened, and had that number all the while. Then the device is looked at.
 *
 * In another PID namespace the number means nothing; then only the device
 * is waited for, which the daemon has for itself as long as it lives.
 *
 * Locks: none. Threads: the main thread.
 */
#include "src/ctl/ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "src/sluice_ioctl.h"
#include "src/umount.h"

#define PATIENCE_MS 10000 /* then it is said what we wait for */
#define STEP_MS 20

struct volume {
	const char *mnt;
	char *where;  /* the mount point, absolute */
	char *source; /* what is mounted */
	dev_t dev;
	int pidfd;    /* of the daemon, -1: not known */
	char *image;  /* of a loop device that goes with its mount; NULL: none */
};

static int refuse(const char *mnt, const char *why)
{
	fprintf(stderr, "sluicectl: %s: %s\n", mnt, why);
	return EXIT_FAILED;
}

/* ---- before ---- */

/* Without looking at the last component, which may be a mount without a daemon. */
static char *absolute(const char *mnt)
{
	char *path = realpath(mnt, NULL), *copy, *slash, *above;

	if (path || errno != ENOTCONN)
		return path;
	copy = strdup(mnt);
	if (!copy)
		return NULL;
	for (size_t n = strlen(copy); n > 1 && copy[n - 1] == '/'; n--)
		copy[n - 1] = '\0';
	slash = strrchr(copy, '/');
	if (slash)
		*slash = '\0';
	above = realpath(!slash ? "." : *copy ? copy : "/", NULL);
	if (above && asprintf(&path, "%s/%s", strcmp(above, "/") ? above : "",
			      slash ? slash + 1 : copy) < 0)
		path = NULL;
	free(above);
	free(copy);
	return path;
}

static int ask(int fd, struct sluice_info *info)
{
	*info = (struct sluice_info){
		.version = SLUICE_IOC_VERSION,
		.size = sizeof(*info),
	};
	return ioctl(fd, SLUICE_IOC_INFO, info);
}

static int find_daemon(struct volume *v, int fd)
{
	struct sluice_info info, again;
	struct stat ns;

	if (ask(fd, &info) < 0) {
		bool mounted = errno != ENOTTY || v->source;

		return mounted ? ctl_failed(v->mnt) : refuse(v->mnt, "not mounted");
	}
	if (stat("/proc/self/ns/pid", &ns) || ns.st_ino != info.pid_namespace)
		return 0;
	v->pidfd = pidfd_open(info.pid, 0);
	if (v->pidfd >= 0 && (ask(fd, &again) < 0 || again.pid != info.pid)) {
		close(v->pidfd);
		v->pidfd = -1;
	}
	return 0;
}

/* What a file of the loop device's directory says; NULL: it is none, or not in use. */
static char *loop_file(const char *source, const char *name)
{
	char path[128], *line = NULL;
	size_t size = 0;
	ssize_t n = -1;
	FILE *f;

	if (strncmp(source, "/dev/loop", 9) != 0 || strchr(source + 9, '/'))
		return NULL;
	if ((size_t)snprintf(path, sizeof(path), "/sys/block/%s/loop/%s",
			     source + 5, name) >= sizeof(path))
		return NULL;
	f = fopen(path, "re");
	if (f) {
		n = getline(&line, &size, f);
		fclose(f);
	}
	if (n < 0) {
		free(line);
		return NULL;
	}
	return line;
}

static void find_image(struct volume *v)
{
	char *autoclear = loop_file(v->source, "autoclear");

	if (autoclear && *autoclear == '1')
		v->image = loop_file(v->source, "backing_file");
	free(autoclear);
}

static int find_volume(struct volume *v)
{
	int fd, status = 0;

	v->where = absolute(v->mnt);
	if (!v->where)
		return ctl_failed(v->mnt);
	fd = open(v->mnt, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	/* ENOTCONN: the daemon is dead, its mount still stands. */
	if (fd < 0 && errno != ENOTCONN)
		return ctl_failed(v->mnt);
	v->source = mount_source(v->where, &v->dev);
	if (fd >= 0) {
		status = find_daemon(v, fd);
		close(fd);
	}
	if (status)
		return status;
	if (!v->source)
		return refuse(v->mnt, "not mounted");
	find_image(v);
	return 0;
}

/* ---- after ---- */

static int take_away(const struct volume *v)
{
	if (!umount2(v->where, UMOUNT_NOFOLLOW))
		return 0;
	if (errno == EPERM && geteuid() != 0)
		return umount_by_helper(v->where, false) ? EXIT_FAILED : 0;
	if (errno == EBUSY)
		return refuse(v->mnt, "target is busy");
	if (errno == EINVAL)
		return refuse(v->mnt, "not mounted");
	return ctl_failed(v->mnt);
}

static int wait_for_daemon(const struct volume *v)
{
	struct pollfd p = { .fd = v->pidfd, .events = POLLIN };
	int n;

	if (v->pidfd < 0)
		return 0;
	n = poll(&p, 1, PATIENCE_MS);
	if (!n) {
		fprintf(stderr, "sluicectl: %s: waiting for the daemon to write out "
			"and end; it may be mounted in another namespace, too\n",
			v->mnt);
		n = poll(&p, 1, -1);
	}
	if (n > 0)
		return 0;
	fprintf(stderr, "sluicectl: %s: %s\n", v->mnt, strerror(errno));
	return EXIT_SYSTEM;
}

/* Does somebody have it for himself? */
static bool is_claimed(const char *source)
{
	struct stat st;
	int fd;

	if (stat(source, &st) || !S_ISBLK(st.st_mode))
		return false;
	fd = open(source, O_RDONLY | O_EXCL | O_CLOEXEC | O_NONBLOCK);
	if (fd >= 0)
		close(fd);
	return fd < 0 && errno == EBUSY;
}

static bool image_has_loop(const struct volume *v)
{
	char *now = v->image ? loop_file(v->source, "backing_file") : NULL;
	bool same = now && !strcmp(now, v->image);

	free(now);
	return same;
}

static int wait_for_device(const struct volume *v)
{
	for (int ms = 0; ms < PATIENCE_MS; ms += STEP_MS) {
		/* A loop device that has let go of the image may be another's by now. */
		if (v->image ? !image_has_loop(v) : !is_claimed(v->source))
			return 0;
		(void)poll(NULL, 0, STEP_MS);
	}
	fprintf(stderr, "sluicectl: %s: %s is still in use\n", v->mnt, v->source);
	return EXIT_FAILED;
}

/* Binds of the volume elsewhere: neither the daemon nor the device comes free. */
static int check_gone(const struct volume *v)
{
	char *other = mount_last(v->dev);

	if (!other)
		return 0;
	fprintf(stderr, "sluicectl: %s: unmounted, but the volume is still mounted on %s\n",
		v->mnt, other);
	free(other);
	return EXIT_FAILED;
}

int ctl_umount(const char *mnt)
{
	struct volume v = { .mnt = mnt, .pidfd = -1 };
	int status = find_volume(&v);

	if (!status)
		status = take_away(&v);
	if (!status)
		status = check_gone(&v);
	if (!status)
		status = wait_for_daemon(&v);
	if (!status)
		status = wait_for_device(&v);
	if (v.pidfd >= 0)
		close(v.pidfd);
	free(v.image);
	free(v.source);
	free(v.where);
	return status;
}
