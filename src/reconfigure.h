/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/reconfigure.h - "mount -o remount" in the daemon: one of its steps
 *
 * Locks: none.
 */
#ifndef SLUICE_SRC_RECONFIGURE_H
#define SLUICE_SRC_RECONFIGURE_H

struct session;
struct sluice_remount;

/* In a request, in a thread of the loop: the step that r says, with these options. What
 * there is to tell is in r->error, r->flags and r->text, which is empty before. Sleeps. */
void reconfigure(struct session *s, struct sluice_remount *r, const char *options);

#endif
