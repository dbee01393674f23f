/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/remount.h - "mount -o remount": the daemon and the kernel's mount are changed
 *
 * Locks: none.
 */
#ifndef SLUICE_SRC_REMOUNT_H
#define SLUICE_SRC_REMOUNT_H

#include "lib/types.h"

struct options;

/*
 * Changes what is mounted on o->mountpoint to what o->given says; if it becomes
 * read-only, all is durable on return. 0, or an enum exit_code, the reason having
 * been logged: not a mount of ours; an option that only a new mount can change; rw, but
 * the daemon can't write; files are open for writing. It stays as it was then.
 */
int __must_check remount(const struct options *o);

#endif
