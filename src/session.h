/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/session.h - one FUSE mount of one volume, from mount to unmount
 *
 *	session_create()   the volume is mounted in here, nothing outside yet
 *	session_mount()    mount(2); the kernel's INIT is answered; requests run
 *	session_run()      until the end of the mount, or a signal
 *	session_close()    the volume is unmounted (if DESTROY has not done it)
 *
 * Everything but the callbacks: one thread, the main thread.
 */
#ifndef SLUICE_SRC_SESSION_H
#define SLUICE_SRC_SESSION_H

#include "lib/types.h"
#include <sys/types.h>

struct bdev;
struct fuse_conn_info;
struct handle_table;
struct options;
struct session;
struct super_block;

/*
 * Opens and mounts the volume. device, mountpoint: absolute, without links.
 * 0 or an enum exit_code, the reason having been logged.
 */
int __must_check session_create(struct options *o, const char *device,
				const char *mountpoint, struct session **out);
/*
 * signals: a signalfd of SIGTERM, SIGINT, SIGHUP and SIGUSR1 (all blocked).
 * 0 or an enum exit_code, logged; then session_close() is still to be called.
 */
int __must_check session_mount(struct session *s, int signals);
/* Returns when no request can come any more. */
void session_run(struct session *s);
/*
 * 0 or a negative errno: some of the data or metadata may have been lost.
 * -EBUSY: the device is another's by now. The volume was not touched; its
 * threads still run, so end the process at once.
 */
int __must_check session_close(struct session *s);

/* ---- for the operations (fuse_*.c), in a request ---- */

struct super_block *session_sb(struct session *s);
struct handle_table *session_handles(struct session *s);
/* Does the present request ask to clear suid and sgid? libfuse 3.14 does not
 * hand on these bits of OPEN, CREATE and WRITE. */
bool session_kills_suidgid(void);
/* The request of this thread is a SETXATTR with FUSE_SETXATTR_ACL_KILL_SGID. */
bool session_kills_sgid(void);
/* Is it a CREATE of a file without a name (TMPFILE, which libfuse 3.14 does not know)? */
bool session_is_tmpfile(void);
/* Has the kernel agreed to -o writeback? */
bool session_writeback(const struct session *s);
/* The volume is a whole block device: its blocks are those of the device. */
bool session_on_device(const struct session *s);
/* -o strictatime: each read(2) of the kernel's clients must reach us. */
bool session_strict_atime(const struct session *s);
/* INIT: says what we can do. */
void session_init(struct session *s, struct fuse_conn_info *conn);
/* What the daemon tells of itself, as SIGUSR1 does: at most len bytes with the final
 * '\0'. Bytes without it. */
size_t session_stats(struct session *s, char *buf, size_t len);
/* Drops caches, ours and the kernel's (see dropper.h); waits. 0 or -errno. */
int session_drop_caches(struct session *s, u32 what);
/*
 * A request has changed attributes of the node, which the kernel does not know of it: it
 * asks again. Before the reply, with no lock held: who waits for that keeps the node.
 */
void session_attrs_changed(struct session *s, u64 node);
/* st_dev of the mount; 0: not known (yet). */
dev_t session_dev(const struct session *s);
/* Around calls of session_drop_pages(). -EBUSY: too many others are at it. */
int __must_check session_drop_begin(struct session *s);
void session_drop_end(struct session *s);
/* The kernel writes and drops its pages of the node from byte off on; waits, with nothing
 * held. 0 or -errno; see dropper_inval(). */
int session_drop_pages(struct session *s, u64 node, u64 off);
/* sl_shutdown(), and then requests that would need the device are not carried out. */
int session_shutdown(struct session *s, u32 how);
bool session_is_shut_down(struct session *s);
/*
 * A remount, in a request: the options in force, which stay as they are until
 * session_remount_end(). NULL: another remount is under way. (Nobody waits for it: it may
 * wait for requests, and so for who would.)
 */
struct options *__must_check session_remount_begin(struct session *s);
void session_remount_end(struct session *s);
/* In between. The daemon can write, as after a mount rw; see sl_writable_begin(). Other
 * requests wait meanwhile, in part. 0, also if it could before; -errno, logged. */
int __must_check session_make_writable(struct session *s);
/* In between, too: these are in force. See sl_reconfigure(). */
int __must_check session_reconfigure(struct session *s, const struct options *to);
/* DESTROY: the kernel waits with umount(2) until this returns. */
void session_destroy_request(struct session *s);

#endif
