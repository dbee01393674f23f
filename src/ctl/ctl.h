/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/ctl/ctl.h - what the files of sluicectl share
 */
#ifndef SLUICE_SRC_CTL_H
#define SLUICE_SRC_CTL_H

/* Exit status, as of mount(8) and umount(8). */
enum { EXIT_USAGE = 1, EXIT_SYSTEM = 2, EXIT_FAILED = 32, EXIT_SOME = 64 };

/* Says what errno, of a system call on the mount, means; returns the exit status. */
int ctl_failed(const char *mnt);
/*
 * umount(8), and then waits for the daemon to end and for the device to be free.
 * Returns the exit status; what is wrong was said.
 */
int ctl_umount(const char *mnt);

#endif
