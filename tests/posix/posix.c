/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/posix/posix.c - does a file system do what POSIX says, as ext4 in the kernel does?
 *
 *   posix [-k] [-v] [-x FILE] [-n NAME] DIR
 *     -x  known differences: lines "NAME: REASON"; they may fail. Several: all of them
 *     -n  only cases whose name has this in it
 *     -k  keep what was made in DIR
 *     -v  each case with its result
 *
 * Root runs all cases. An ordinary user runs them in his own name: what takes more fails, on
 * the kernel's ext4 too, and what fails there is then his FILE. All setups come first and
 * the runs after, with a tick of the clock between them: so one wait serves all cases. The
 * last line has the counts; exit status 1 if a case failed that is not a known difference.
 *
 * Locks: none; one thread.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "posix.h"

static const struct posix_table *const tables[] = {
	&create_table, &remove_table, &rename_table, &open_table,
	&mode_table,   &owner_table,  &times_table,  &access_table,
	&data_table,   &range_table,  &name_table,   &flags_table,
	&xattr_table,  &lock_table,   &dir_table,
};
#define N_TABLES (sizeof(tables) / sizeof(tables[0]))

unsigned long checks;

static struct {
	bool keep, verbose;
	const char *only;
	char *known; /* text of the file */
} options;

void failed(struct run *r, const char *format, ...)
{
	va_list ap;

	if (r->failure[0])
		return;
	va_start(ap, format);
	vsnprintf(r->failure, sizeof(r->failure), format, ap);
	va_end(ap);
}

static void enter(const struct run *r)
{
	if (fchdir(r->dirfd))
		err(2, "%s", r->dir);
}

static void prepare(struct run *r, int base, unsigned number)
{
	snprintf(r->dir, sizeof(r->dir), "%s.%u", r->subject, number);
	if (mkdirat(base, r->dir, 0777))
		err(2, "mkdir %s", r->dir);
	r->dirfd = openat(base, r->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (r->dirfd < 0)
		err(2, "open %s", r->dir);
	enter(r);
	watch_add(r, ".");
	r->in_setup = true;
	if (r->c->setup)
		run_steps(r, r->c->setup);
	r->in_setup = false;
	if (!r->old_done)
		watch_make_old(r);
}

static void carry_out(struct run *r)
{
	enter(r);
	watch_before(r);
	/* One step that is wrong makes no sense of the rest. */
	if (!r->failure[0] && run_steps(r, r->c->run))
		watch_after(r);
	for (unsigned i = 0; i < r->n_fds; i++)
		if (r->fds[i] >= 0)
			close(r->fds[i]);
	for (unsigned i = 0; i < r->n_watched; i++)
		if (r->watched[i].fd >= 0)
			close(r->watched[i].fd);
	close(r->dirfd);
}

/* The line of the case in the list of known differences, or NULL. */
static const char *known_reason(const struct run *r)
{
	char key[160];
	const char *p;

	if (!options.known)
		return NULL;
	snprintf(key, sizeof(key), "\n%s: %s: ", r->subject, r->c->name);
	p = strstr(options.known, key);
	return p ? p + 1 : NULL;
}

static void read_known(const char *path)
{
	FILE *f = fopen(path, "re");
	char line[512];
	size_t len;

	if (!f)
		err(2, "%s", path);
	if (!options.known)
		options.known = strdup("\n");
	len = options.known ? strlen(options.known) : 0;
	while (options.known && fgets(line, sizeof(line), f)) {
		options.known = realloc(options.known, len + strlen(line) + 1);
		if (!options.known)
			break;
		strcpy(options.known + len, line);
		len += strlen(line);
	}
	if (!options.known)
		err(2, "%s", path);
	fclose(f);
}

static int without_flags(const char *path, const struct stat *st, int type,
			 struct FTW *ftw)
{
	int fd, flags;

	if (type != FTW_F && type != FTW_D)
		return 0;
	if (!S_ISREG(st->st_mode) && !S_ISDIR(st->st_mode))
		return 0;
	fd = open(path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW);
	if (fd >= 0) {
		/* Not all file systems have them. */		if (!ioctl(fd, FS_IOC_GETFLAGS, &flags)) {
			flags &= ~(FS_IMMUTABLE_FL | FS_APPEND_FL);
			if (ioctl(fd, FS_IOC_SETFLAGS, &flags))
				warn("%s: flags", path);
		}
		close(fd);
	}
	return 0;
}

static int without_name(const char *path, const struct stat *st, int type,
			struct FTW *ftw)
{
	if (ftw->level > 0 && remove(path))
		warn("%s", path);
	return 0;
}

static void clean_up(const char *base)
{
	if (chdir(base))
		err(2, "%s", base);
	nftw(".", without_flags, 64, FTW_PHYS);
	nftw(".", without_name, 64, FTW_PHYS | FTW_DEPTH);
	if (chdir("/") || rmdir(base))
		err(2, "%s", base);
}

static bool is_wanted(const struct posix_table *t, const struct posix_case *c)
{
	char name[160];

	snprintf(name, sizeof(name), "%s: %s", t->subject, c->name);
	return !options.only || strstr(name, options.only);
}

/* All cases that are wanted; *n. */
static struct run *gather(size_t *n)
{
	struct run *all = NULL;
	size_t total = 0;

	*n = 0;
	for (size_t t = 0; t < N_TABLES; t++)
		total += tables[t]->count;
	all = calloc(total, sizeof(*all));
	if (!all)
		err(2, "memory");
	for (size_t t = 0; t < N_TABLES; t++) {
		for (size_t i = 0; i < tables[t]->count; i++) {
			if (!is_wanted(tables[t], &tables[t]->cases[i]))
				continue;
			all[*n].subject = tables[t]->subject;
			all[(*n)++].c = &tables[t]->cases[i];
		}
	}
	return all;
}

static void report(const struct run *r, unsigned *n_failed, unsigned *n_known)
{
	const char *reason = known_reason(r);

	if (!r->failure[0]) {
		if (options.verbose || reason)
			printf("passed %s: %s%s\n", r->subject, r->c->name,
			       reason ? " (a known difference)" : "");
		return;
	}
	if (reason) {
		(*n_known)++;
		if (!options.verbose)
			return;
	} else {
		(*n_failed)++;
	}
	printf("%s %s: %s: %s\n", reason ? "known" : "FAILED", r->subject,
	       r->c->name, r->failure);
}

/* Each case has a descriptor or a few at a time. */
static void allow_descriptors(size_t n)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		err(2, "getrlimit");
	if (limit.rlim_max < 4 * n + 64)
		limit.rlim_max = 4 * n + 64;
	limit.rlim_cur = limit.rlim_max;
	/* A user's has to be high enough. */
	if (setrlimit(RLIMIT_NOFILE, &limit))
		err(2, "setrlimit");
}

int main(int argc, char **argv)
{
	unsigned n_failed = 0, n_known = 0;
	char base[4096];
	struct statvfs vfs;
	struct run *all;
	size_t n;
	int c, fd;

	while ((c = getopt(argc, argv, "kvn:x:")) != -1) {
		switch (c) {
		case 'k':
			options.keep = true;
			break;
		case 'v':
			options.verbose = true;
			break;
		case 'n':
			options.only = optarg;
			break;
		case 'x':
			read_known(optarg);
			break;
		default:
			return 2;
		}
	}
	if (argc - optind != 1)
		errx(2, "one directory");
	signal(SIGXFSZ, SIG_IGN);
	umask(0);
	if (!realpath(argv[optind], base) || statvfs(base, &vfs))
		err(2, "%s", argv[optind]);
	steps_init((long)vfs.f_frsize);
	strncat(base, "/posix", sizeof(base) - strlen(base) - 1);
	if (mkdir(base, 0755))
		err(2, "mkdir %s", base);
	fd = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		err(2, "%s", base);
	all = gather(&n);
	allow_descriptors(n);
	for (size_t i = 0; i < n; i++)
		prepare(&all[i], fd, (unsigned)i);
	wait_tick();
	wait_tick();
	for (size_t i = 0; i < n; i++) {
		carry_out(&all[i]);
		report(&all[i], &n_failed, &n_known);
	}
	close(fd);
	if (!options.keep)
		clean_up(base);
	printf("%zu cases, %lu checks, %u failed, %u known to differ\n", n, checks,
	       n_failed, n_known);
	free(all);
	free(options.known);
	return n_failed ? 1 : 0;
}
