/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/ctl/ctl.h - what the files of sluicectl share
 */
#ifndef SLUICE_SRC_CTL_H
#define SLUICE_SRC_CTL_H

#include <stdbool.h>
#include <stdint.h>

/* Exit status, as of mount(8) and umount(8). */
enum { EXIT_USAGE = 1, EXIT_SYSTEM = 2, EXIT_FAILED = 32, EXIT_SOME = 64 };

#define SCAN_THREADS_MAX 64

/* The command line. */
struct call {
	bool json;
	bool ioctl_only;  /* bulkstat: not by the stream */
	unsigned threads; /* of bulkstat; 0: not given */
	uint64_t first, last; /* of bulkstat; shutdown: first says how */
	bool sync, xattr; /* of fiemap */
	const char *mnt; /* of fiemap: a file */
	const char *arg; /* behind the mount point; NULL: not given */
	const char *arg2; /* of collapse and insert: the length */
	uint64_t bytes;	 /* of cache-limit and trim; 0: not given */
	uint64_t offset; /* of collapse and insert, with bytes as the length */
};

/* Says what errno, of a system call on the mount, means; returns the exit status. */
int ctl_failed(const char *mnt);
/*
 * umount(8), and then waits for the daemon to end and for the device to be free.
 * Returns the exit status; what is wrong was said.
 */
int ctl_umount(const char *mnt);
/* Prints all inodes of the mount whose root is fd. Returns the exit status. */
int ctl_bulkstat(const struct call *c, int fd);
/* Prints the extents of an open file. Returns the exit status. */
int ctl_fiemap(const struct call *c, int fd);
/* shift.c: take the range out of an open file, put one in. As above. */
bool ctl_shift_ok(struct call *c);
int ctl_collapse(const struct call *c, int fd);
int ctl_insert(const struct call *c, int fd);
/* volume.c. _ok: is the argument one? Else as above. */
bool ctl_label_ok(struct call *c);
int ctl_label(const struct call *c, int fd);
bool ctl_shutdown_ok(struct call *c);
int ctl_shutdown(const struct call *c, int fd);
int ctl_trim(const struct call *c, int fd);

#endif
