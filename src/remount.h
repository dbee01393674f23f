/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/remount.h - "mount -o remount": what the kernel has of a mount is changed
 *
 * Locks: none.
 */
#ifndef SLUICE_SRC_REMOUNT_H
#define SLUICE_SRC_REMOUNT_H

#include "lib/types.h"

struct options;

/*
 * Changes ro and the generic flags of what is mounted on o->mountpoint; if it becomes
 * read-only, all is durable on return. 0, or an enum exit_code, the reason having
 * been logged: not a mount of ours; rw, but the daemon can't write; files are open
 * for writing.
 */
int __must_check remount(const struct options *o);

#endif
