/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/daemonize.h - the parent waits until the mount stands, the child serves
 *
 * The child is forked first of all, while there is one thread. It keeps the
 * terminal and its process group until it reports, so that messages are seen
 * and ^C reaches it; then it detaches. Locks: none.
 */
#ifndef SLUICE_SRC_DAEMONIZE_H
#define SLUICE_SRC_DAEMONIZE_H

#include "lib/types.h"

/*
 * Forks. The parent never returns: it exits with the code that the child
 * reports, or EXIT_CODE_INTERNAL if the child ends without a report. In the
 * child: 0, with *report to be given to daemonize_report(). -errno in the
 * caller if there is no child.
 */
int __must_check daemonize_fork(int *report);
/* Lets the parent exit with `code`. Closes report; -1 is allowed. */
void daemonize_report(int report, int code);
/* A session of its own, / as directory, /dev/null as descriptors 0 to 2.
 * Other descriptors stay as they are. */
int __must_check daemonize_detach(void);

#endif
