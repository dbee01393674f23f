/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/posix/watch.c - attributes before and after a run
 *
 * Each object is held by an O_PATH descriptor, so that it can be looked at when its
 * name is another's or nobody's. It is looked at twice: as the kernel answers
 * (what it has cached, with FUSE) and as the file system does.
 *
 * Locks: none; one thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "posix.h"

#define OLD_SECONDS 1000000000

static struct timespec run_began;

void watch_add(struct run *r, const char *name)
{
	struct watched *w = &r->watched[r->n_watched];

	for (unsigned i = 0; i < r->n_watched; i++)
		if (!strcmp(r->watched[i].name, name))
			return;
	/* Names at the limit are not what is looked at. */
	if (strlen(name) >= sizeof(w->name) || r->n_watched == MAX_WATCHED)
		return;
	strcpy(w->name, name);
	w->fd = -1;
	r->n_watched++;
}

void watch_make_old(struct run *r)
{
	const struct timespec t[2] = { { OLD_SECONDS, 1 }, { OLD_SECONDS, 2 } };

	/* The directory of all comes first in the list; what is in it does not
	 * change its times any more. */
	for (unsigned i = 0; i < r->n_watched; i++)
		if (utimensat(AT_FDCWD, r->watched[i].name, t,
			      AT_SYMLINK_NOFOLLOW) &&
		    errno != EPERM && errno != ENOENT)
			failed(r, "utimensat %s: %s", r->watched[i].name,
			       strerrorname_np(errno));
	r->old_done = true;
}

static int look(const struct watched *w, int sync, struct statx *st)
{
	return statx(w->fd, "", AT_EMPTY_PATH | sync,
		     STATX_BASIC_STATS | STATX_BTIME, st);
}

void watch_before(struct run *r)
{
	for (unsigned i = 0; i < r->n_watched; i++) {
		struct watched *w = &r->watched[i];

		w->fd = open(w->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		if (w->fd >= 0 && look(w, AT_STATX_FORCE_SYNC, &w->before))
			failed(r, "statx %s: %s", w->name,
			       strerrorname_np(errno));
	}
	clock_gettime(CLOCK_REALTIME_COARSE, &run_began);
}

static int compare(const struct statx_timestamp *a, const struct timespec *b)
{
	if (a->tv_sec != b->tv_sec)
		return a->tv_sec < b->tv_sec ? -1 : 1;
	return a->tv_nsec < b->tv_nsec ? -1 : a->tv_nsec > b->tv_nsec;
}

static bool is_now(const struct statx_timestamp *t)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return compare(t, &run_began) >= 0 && compare(t, &now) <= 0;
}

static bool same_time(const struct statx_timestamp *a,
		      const struct statx_timestamp *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static char *letter(char *p, bool differs, char c)
{
	if (differs)
		*p++ = c;
	return p;
}

/* Lower case: to now; upper case: to something else. */
static char *time_letter(char *p, const struct statx_timestamp *before,
			 const struct statx_timestamp *after, char c)
{
	return letter(p, !same_time(before, after),
		      is_now(after) ? c : (char)(c - 'a' + 'A'));
}

static void differences(const struct statx *b, const struct statx *a, char *out)
{
	out = time_letter(out, &b->stx_atime, &a->stx_atime, 'a');
	out = time_letter(out, &b->stx_mtime, &a->stx_mtime, 'm');
	out = time_letter(out, &b->stx_ctime, &a->stx_ctime, 'c');
	out = letter(out, b->stx_size != a->stx_size, 's');
	out = letter(out, b->stx_nlink != a->stx_nlink, 'n');
	out = letter(out, b->stx_mode != a->stx_mode, 'p');
	out = letter(out, b->stx_uid != a->stx_uid, 'u');
	out = letter(out, b->stx_gid != a->stx_gid, 'g');
	/* What nothing ever changes. */
	out = letter(out, b->stx_ino != a->stx_ino, '#');
	out = letter(out, !same_time(&b->stx_btime, &a->stx_btime), 'B');
	out = letter(out, b->stx_rdev_minor != a->stx_rdev_minor, '?');
	*out = '\0';
}

/* What the list says of that name; "" if nothing. */
static void wanted(const char *list, const char *name, char *out, size_t size)
{
	size_t len = strlen(name), n;

	*out = '\0';
	for (const char *p = list; p && *p; p += strspn(p, " ")) {
		n = strcspn(p, " ");
		if (n > len && !strncmp(p, name, len) && p[len] == ':') {
			n -= len + 1;
			if (n >= size)
				n = size - 1;
			memcpy(out, p + len + 1, n);
			out[n] = '\0';
			return;
		}
		p += n;
	}
}

/* What stands in brackets may differ or not. */
static bool matches(const char *want, const char *got)
{
	bool optional = false;

	for (; *want; want++) {
		if (*want == '(' || *want == ')')
			optional = *want == '(';
		else if (*got == *want)
			got++;
		else if (!optional)
			return false;
	}
	return !*got;
}

static void compare_one(struct run *r, struct watched *w, int sync,
			const char *who)
{
	char want[32], got[32];
	struct statx now;

	wanted(r->c->changes, w->name, want, sizeof(want));
	checks++;
	if (look(w, sync, &now)) {
		failed(r, "statx %s: %s", w->name, strerrorname_np(errno));
		return;
	}
	differences(&w->before, &now, got);
	if (!matches(want, got))
		failed(r, "%s (%s): changed \"%s\", not \"%s\"", w->name, who,
		       got, want);
}

static void check_new(struct run *r, const char *name)
{
	struct statx st;

	checks++;
	if (statx(AT_FDCWD, name, AT_SYMLINK_NOFOLLOW,
		  STATX_BASIC_STATS | STATX_BTIME, &st))
		failed(r, "new %s: %s", name, strerrorname_np(errno));
	else if (!is_now(&st.stx_atime) || !is_now(&st.stx_mtime) ||
		 !is_now(&st.stx_ctime) ||
		 (st.stx_mask & STATX_BTIME && !is_now(&st.stx_btime)))
		failed(r, "new %s: its times are not new", name);
}

void watch_after(struct run *r)
{
	char name[64], what[32];

	for (unsigned i = 0; i < r->n_watched; i++) {
		struct watched *w = &r->watched[i];

		if (w->fd < 0)
			continue;
		compare_one(r, w, AT_STATX_SYNC_AS_STAT, "as cached");
		compare_one(r, w, AT_STATX_FORCE_SYNC, "as stored");
		close(w->fd);
		w->fd = -1;
	}
	for (const char *p = r->c->changes; p && *p; p += strspn(p, " ")) {
		size_t n = strcspn(p, " "), len = strcspn(p, ":");

		if (len < n && len < sizeof(name)) {
			memcpy(name, p, len);
			name[len] = '\0';
			wanted(p, name, what, sizeof(what));
			if (!strcmp(what, "new"))
				check_new(r, name);
		}
		p += n;
	}
}

void wait_tick(void)
{
	struct timespec from, now;

	clock_gettime(CLOCK_REALTIME_COARSE, &from);
	do {
		usleep(500);
		clock_gettime(CLOCK_REALTIME_COARSE, &now);
	} while (now.tv_sec == from.tv_sec && now.tv_nsec == from.tv_nsec);
}
