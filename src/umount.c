/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/umount.c - find our mounts, and take them away from inside the daemon
 *
 * The mount may have been moved or bound elsewhere, and its first place may
 * carry another one by now, so mounts are found by device number, in
 * /proc/self/mountinfo, and the last made goes first.
 *
 * Locks: none. Threads: the main thread.
 */
#include "src/umount.h"

#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/log.h"

extern char **environ;

/* Undoes the octal escapes of mountinfo (blank, tab, newline, backslash). */
static void unescape(char *s)
{
	char *to = s;

	for (; *s; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] && s[3]) {
			*to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 |
				       (s[3] - '0'));
			s += 3;
		} else {
			*to++ = *s;
		}
	}
	*to = '\0';
}

/*
 * Is it a line "id parent maj:min root where ... - type source ..." of FUSE? where NULL:
 * anywhere. The source, as a part of the line, or NULL.
 */
static const char *is_mount(char *line, const char *where, dev_t *dev)
{
	char *save, *word = strtok_r(line, " ", &save);
	unsigned maj = 0, min = 0;
	bool here = !where;

	for (int field = 1; word && strcmp(word, "-") != 0; field++) {
		if (field == 3 && sscanf(word, "%u:%u", &maj, &min) != 2)
			return NULL;
		if (field == 5 && where) {
			unescape(word);
			here = !strcmp(word, where);
		}
		word = strtok_r(NULL, " ", &save);
	}
	if (!here || !word)
		return NULL;
	word = strtok_r(NULL, " ", &save);
	if (!word || strncmp(word, "fuse", 4) != 0)
		return NULL;
	word = strtok_r(NULL, " \n", &save);
	if (!word)
		return NULL;
	unescape(word);
	*dev = makedev(maj, min);
	return word;
}

bool mount_find(const char *where, const char *source, dev_t *dev)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	bool found = false;
	size_t size = 0;
	dev_t one;

	if (!f)
		return false;
	/* The last one lies on top. */
	while (getline(&line, &size, f) > 0) {
		const char *its = is_mount(line, where, &one);

		if (!its || strcmp(its, source) != 0)
			continue;
		*dev = one;
		found = true;
	}
	free(line);
	fclose(f);
	return found;
}

char *mount_source(const char *where, dev_t *dev)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL, *source = NULL;
	size_t size = 0;

	if (!f)
		return NULL;
	while (getline(&line, &size, f) > 0) {
		const char *its = is_mount(line, where, dev);

		if (its) {
			free(source);
			source = strdup(its);
		}
	}
	free(line);
	fclose(f);
	return source;
}

/* The mount point if the line is of this device: "id parent maj:min root where ...". */
static char *mount_point(char *line, dev_t dev)
{
	char *save, *word = strtok_r(line, " ", &save);
	unsigned maj, min;

	for (int field = 1; word && field < 5; field++) {
		if (field == 3 && (sscanf(word, "%u:%u", &maj, &min) != 2 ||
				   makedev(maj, min) != dev))
			return NULL;
		word = strtok_r(NULL, " ", &save);
	}
	if (word)
		unescape(word);
	return word;
}

char *mount_last(dev_t dev)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL, *last = NULL, *where;
	size_t size = 0;

	if (!f)
		return NULL;
	while (getline(&line, &size, f) > 0) {
		where = mount_point(line, dev);
		if (where) {
			free(last);
			last = strdup(where);
		}
	}
	free(line);
	fclose(f);
	return last;
}

/* 1 or 0 by "... maj:min ... - type source OPTIONS", where ro or rw comes first. */
static int line_is_readonly(char *line, dev_t dev)
{
	char *word = strstr(line, " - "), *save;
	unsigned maj, min;

	if (!word || sscanf(line, "%*s %*s %u:%u", &maj, &min) != 2 ||
	    makedev(maj, min) != dev)
		return -ENOENT;
	word = strtok_r(word + 3, " ", &save);
	for (int i = 0; word && i < 2; i++)
		word = strtok_r(NULL, " \n", &save);
	if (!word)
		return -ENOENT;
	return !strncmp(word, "ro", 2) && (!word[2] || word[2] == ',');
}

int mount_is_readonly(dev_t dev)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	int result = -ENOENT;
	size_t size = 0;

	if (!f)
		return -errno;
	while (result < 0 && getline(&line, &size, f) > 0)
		result = line_is_readonly(line, dev);
	free(line);
	fclose(f);
	return result;
}

int umount_by_helper(const char *where, bool lazy)
{
	char *argv[] = { "fusermount3", lazy ? "-uqz" : "-u", "--",
			 (char *)(uintptr_t)where, NULL };
	int status;
	pid_t pid;

	if (posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ))
		return -EPERM;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return status ? -EPERM : 0;
}

/* The kernel's dirty pages (of mmap) are lost with the daemon otherwise. */
static void write_out(const char *where)
{
	int fd = open(where, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return;
	if (syncfs(fd))
		log_warn("%s: sync: %s", where, strerror(errno));
	close(fd);
}

/* 0: gone. 1: gone from here, but in use. */
static int umount_one(const char *where)
{
	if (!umount2(where, UMOUNT_NOFOLLOW))
		return 0;
	if (errno == EPERM) {
		write_out(where);
		return umount_by_helper(where, true);
	}
	if (errno != EBUSY)
		return -errno;
	write_out(where);
	return umount2(where, UMOUNT_NOFOLLOW | MNT_DETACH) ? -errno : 1;
}

unsigned umount_all(dev_t dev)
{
	unsigned busy = 0;
	char *where;
	int ret;

	while ((where = mount_last(dev))) {
		ret = umount_one(where);
		if (ret < 0)
			log_err("cannot unmount %s: %s", where, strerror(-ret));
		else
			busy += (unsigned)ret;
		free(where);
		if (ret < 0)
			break; /* it would be found again */
	}
	return busy;
}
