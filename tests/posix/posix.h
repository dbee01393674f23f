/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/posix/posix.h - what a case is, and what the files of this test share
 *
 * A case is data: two lines of steps, and a list of what the second changes. A step is a
 * word, its arguments, and after "=" the name of an error or the value that is
 * returned; without "=" it must succeed. "U:", "V:", "W:" in front of a step: done by
 * that user (see users in steps.c). steps.c has the words.
 *
 * Everything that the setup makes is watched: what is not in `changes` must be
 * after the run exactly what it was before, in the kernel's opinion and in that of
 * the file system (statx). So each case that fails shows at the same time that
 * it touches nothing.
 */
#ifndef SLUICE_TESTS_POSIX_H
#define SLUICE_TESTS_POSIX_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

struct posix_case {
	const char *name;
	const char *setup; /* steps; may be NULL */
	const char *run;   /* steps */
	/*
	 * "NAME:LETTERS ...", "." for the case's own directory. a, m, c: that time is
	 * the time of the run now; A, M: another one; s size, n links, p mode, u owner,
	 * g group: differ; in brackets: may differ. "NAME:new": made by the run, with three new times. NULL: nothing.
	 */
	const char *changes;
};

struct posix_table {
	const char *subject;
	const struct posix_case *cases;
	size_t count;
};

extern const struct posix_table create_table, remove_table, rename_table,
	open_table, mode_table, owner_table, times_table, access_table, data_table,
	range_table, name_table, flags_table, xattr_table, lock_table, dir_table;

#define MAX_WATCHED 12
#define MAX_FDS 16

struct watched {
	char name[32];
	int fd; /* O_PATH */
	struct statx before;
};

/* A case at work. */
struct run {
	const char *subject;
	const struct posix_case *c;
	char dir[32];	/* below the directory of the test */
	int dirfd;
	int fds[MAX_FDS]; /* by "open", in that order; -1: closed */
	unsigned n_fds;
	bool in_setup, old_done;
	struct watched watched[MAX_WATCHED];
	unsigned n_watched;
	char failure[1024]; /* the first */
};

/* Checks made, over all cases. */
extern unsigned long checks;

/* Keeps the first reason. */
void failed(struct run *r, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Runs steps, with the case's directory as the working directory. false: see failure. */
bool run_steps(struct run *r, const char *steps);

/* bs: bytes of a block, the B of numbers */
void steps_init(long bs);

void watch_add(struct run *r, const char *name);
/* Gives all of them times of long ago; what is immutable stays as it is. */
void watch_make_old(struct run *r);
void watch_before(struct run *r);
void watch_after(struct run *r);

/* Until what changes now gets another time than what has changed before. */
void wait_tick(void);

#endif
