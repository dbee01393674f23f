/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/crash/crashload.h - a workload that knows afterwards what must be there
 *
 * load_run() lets threads work on a file system until it dies under them, and
 * notes in a log outside of it what they did and what they were promised;
 * load_check() compares what a recovery has left with that log. The file
 * system is reached through a table: POSIX calls below a directory
 * (crashload_posix.c), or fs/fs.h in this process (crash_inproc.c).
 *
 * Locks:   none; the operations are called by several threads at once
 */
#ifndef SLUICE_TESTS_CRASHLOAD_H
#define SLUICE_TESTS_CRASHLOAD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

struct load_fs;

/* Paths are relative to the root. 0 (or a count), or a negative errno. */
struct load_ops {
	int (*create)(struct load_fs *fs, const char *path, unsigned mode, void **h);
	int (*open)(struct load_fs *fs, const char *path, void **h);
	void (*close)(void *h);
	ssize_t (*pwrite)(void *h, const void *buf, size_t len, uint64_t pos);
	ssize_t (*pread)(void *h, void *buf, size_t len, uint64_t pos);
	int (*truncate)(void *h, uint64_t size);
	int (*fallocate)(void *h, bool keep_size, uint64_t pos, uint64_t len);
	int (*fsync)(void *h, bool datasync);
	int (*fsyncdir)(struct load_fs *fs, const char *path);
	int (*sync)(struct load_fs *fs);
	int (*mkdir)(struct load_fs *fs, const char *path, unsigned mode);
	int (*rmdir)(struct load_fs *fs, const char *path);
	int (*unlink)(struct load_fs *fs, const char *path);
	int (*symlink)(struct load_fs *fs, const char *target, const char *path);
	ssize_t (*readlink)(struct load_fs *fs, const char *path, char *buf, size_t len);
	int (*link)(struct load_fs *fs, const char *old, const char *path);
	int (*rename)(struct load_fs *fs, const char *from, const char *to, bool exchange);
	int (*stat)(struct load_fs *fs, const char *path, struct stat *st);
	/* Calls emit with each name but "." and ".."; path "" is the root. */
	int (*list)(struct load_fs *fs, const char *path,
		    void (*emit)(void *priv, const char *name), void *priv);
	/* Does the file system answer no more? May be NULL: it always does. */
	bool (*is_gone)(const struct load_fs *fs);
	/* Around the life of each thread; may be NULL. */
	void (*thread_begin)(struct load_fs *fs);
	void (*thread_end)(struct load_fs *fs);
};

struct load_fs {
	const struct load_ops *ops;
	void *priv;
};

struct load_options {
	unsigned threads;    /* 1 to LOAD_THREADS_MAX */
	unsigned seed;
	double seconds;      /* 0: until the file system is gone */
	bool no_sync;        /* no operation that asks for durability */
	bool no_falloc;      /* files have block maps, which take no blocks in advance */
	bool shutdown;       /* the end is a shut-down volume, which says EIO */
};
#define LOAD_THREADS_MAX 16

/*
 * Works until the time is over or the file system answers that it is gone. log
 * is made anew and must lie outside of it. 0; or 1 after an error that a live
 * file system must not give, or after reading what was not written, said on
 * stderr.
 */
int load_run(struct load_fs *fs, const char *log, const struct load_options *opt);

/*
 * Is what stands in fs what the log allows? Says what is not on stderr. 0 or 1.
 * unmounted: there was no crash, so all that ended must be there.
 */
int load_check(struct load_fs *fs, const char *log, bool unmounted);

/*
 * Notes in the log of a running workload that the volume is about to be shut
 * down: what is promised from now on does not count. (The kernel's ext4 may let
 * an fsync succeed that a forced shutdown has overtaken.) 0 or 1.
 */
int load_mark_end(const char *log);

/* Every name with its attributes and a hash of its content, sorted, to stdout. */
int load_list(struct load_fs *fs);

#endif
