/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/journaldev.h - finds and opens the device of an external journal
 *
 * Locks: none. Threads: the main thread, before the mount.
 */
#ifndef SLUICE_SRC_JOURNALDEV_H
#define SLUICE_SRC_JOURNALDEV_H

struct bdev;
struct options;
struct sl_options;

/*
 * If the volume on bd has an external journal, or the options name one: opens it, like the
 * volume for our use alone, into sl->journal_bd (NULL otherwise) and
 * sl->journal_devno. Whether it is the volume's is for sl_mount() to say. 0, also with
 * noload if it cannot be found or opened, for then sl_mount() may do without; or a
 * negative errno, logged.
 */
int __attribute__((warn_unused_result)) journaldev_open(struct bdev *bd,
							const struct options *o,
							struct sl_options *sl);

#endif
