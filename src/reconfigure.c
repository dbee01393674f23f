/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/reconfigure.c - "mount -o remount" in the daemon: one of its steps
 *
 * Its other side is remount.c, in the process that mount(8) calls. Every step reads the
 * same options again, so the daemon keeps nothing between them: who remounts may die in
 * the middle. After WRITE the daemon can write and nobody else does yet, which is what a
 * mount is like after "remount,ro".
 *
 * Locks:   session_remount_begin(), which is not waited for
 * Threads: those of the request loop
 */
#include "src/reconfigure.h"

#include <errno.h>
#include <string.h>

#include "lib/log.h"
#include "src/options.h"
#include "src/session.h"
#include "src/sluice_ioctl.h"

static int take_step(struct session *s, u32 step, const struct options *to)
{
	switch (step) {
	case SLUICE_REMOUNT_CHECK:
		return 0;
	case SLUICE_REMOUNT_WRITE:
		return to->sl.readonly ? -EINVAL : session_make_writable(s);
	case SLUICE_REMOUNT_APPLY:
		return session_reconfigure(s, to);
	default:
		return -EINVAL;
	}
}

static void tell_notes(const struct options *to)
{
	for (unsigned i = 0; i < to->nr_notes; i++)
		log_warn("%s", to->notes[i].text);
}

static int remount_step(struct session *s, const struct options *now,
			struct sluice_remount *r, const char *text)
{
	struct options to;
	char why[512];
	int err = 0;

	if (options_parse_remount(now, text, r->flags & SLUICE_REMOUNT_SLOPPY, &to, why,
				  sizeof(why))) {
		log_err("%s", why);
		err = -EINVAL;
	}
	r->flags = 0;
	if (!err && session_writeback(s) && to.sl.sync)
		r->flags |= SLUICE_REMOUNT_SYNC;
	if (!err && r->step == SLUICE_REMOUNT_CHECK)
		tell_notes(&to);
	if (!err)
		err = take_step(s, r->step, &to);
	options_free(&to);
	return err;
}

void reconfigure(struct session *s, struct sluice_remount *r, const char *text)
{
	const struct options *now = session_remount_begin(s);
	int err = 0;

	if (!now) {
		r->error = EBUSY;
		return;
	}
	if (r->step == SLUICE_REMOUNT_SHOW) {
		options_show(now, r->text, sizeof(r->text));
	} else {
		log_capture_begin(r->text, sizeof(r->text));
		err = remount_step(s, now, r, text);
		log_capture_end();
	}
	session_remount_end(s);
	r->error = (__u32)-err;
}
