/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/fuse_ioctl.c - control of a mount: ioctls of its root
 *
 * See sluice_ioctl.h. On anything but the root, and for what is not known: ENOTTY.
 * Never ENOSYS, upon which the kernel would never ask again.
 *
 * Attributes of the root do much of the same, for scripts: see fuse_xattr.c.
 *
 * A scan waits in its handle for the next batch, which goes on with it if it
 * asks for what comes next; at most HANDLE_SCANS_MAX wait (handles.h).
 *
 * Locks: none. Threads: those of the request loop.
 */
#include "src/fuse_ops.h"

#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "src/dropper.h"
#include "src/loop.h"
#include "src/reconfigure.h"
#include "src/session.h"
#include "src/sluice_ioctl.h"
#include "src/stats.h"

_Static_assert(sizeof(struct sluice_inode) == 120, "layout");
_Static_assert(sizeof(struct sluice_bulkstat) ==
		       32 + SLUICE_BULKSTAT_MAX * sizeof(struct sluice_inode),
	       "layout");
_Static_assert(sizeof(struct sluice_bulkstat) < 1u << _IOC_SIZEBITS, "fits");
_Static_assert(sizeof(struct sluice_stats) < 1u << _IOC_SIZEBITS, "fits");
_Static_assert(sizeof(struct sluice_drop_caches) == 16, "layout");
_Static_assert(sizeof(struct sluice_sync) == 8, "layout");
_Static_assert(sizeof(struct sluice_cache_limit) == 16, "layout");
_Static_assert(sizeof(struct sluice_info) == 24, "layout");
_Static_assert(sizeof(struct sluice_remount) == 24 + SLUICE_REMOUNT_TEXT, "layout");
_Static_assert(SLUICE_DROP_DATA == DROP_DATA, "same bits");
_Static_assert(SLUICE_DROP_METADATA == DROP_METADATA, "same bits");

bool ioctl_layout_ok(const void *in, size_t in_size, size_t size)
{
	__u32 head[2];

	if (in_size != size)
		return false;
	memcpy(head, in, sizeof(head));
	return head[0] == SLUICE_IOC_VERSION && head[1] == size;
}

void put_inode(struct sluice_inode *out, const struct sl_bulkstat_rec *r)
{
	*out = (struct sluice_inode){
		.ino = r->ino,
		.error = (__u32)-r->error,
		.lost = r->lost,
		.generation = r->generation,
		.mode = r->mode,
		.nlink = r->nlink,
		.uid = r->uid,
		.gid = r->gid,
		.flags = r->flags,
		.projid = r->projid,
		.rdev_major = major(r->rdev),
		.rdev_minor = minor(r->rdev),
		.size = r->size,
		.blocks = r->blocks,
		.atime = r->atime.tv_sec,
		.mtime = r->mtime.tv_sec,
		.ctime = r->ctime.tv_sec,
		.crtime = r->crtime.tv_sec,
		.atime_nsec = (__u32)r->atime.tv_nsec,
		.mtime_nsec = (__u32)r->mtime.tv_nsec,
		.ctime_nsec = (__u32)r->ctime.tv_nsec,
		.crtime_nsec = (__u32)r->crtime.tv_nsec,
	};
}

/* The scan that begins with first: the one that was kept, or a new one. */
static int get_scan(fuse_req_t req, struct handle *h, u64 first, u64 last,
		    struct sl_bulkstat **out)
{
	struct sl_bulkstat *scan = handle_take_scan(h);

	if (scan && sl_bulkstat_continues(scan, first, last)) {
		*out = scan;
		return 0;
	}
	sl_bulkstat_close(scan);
	return sl_bulkstat_open(req_sb(req), first, last, 0, out);
}

static int bulkstat(fuse_req_t req, struct handle *h, struct sluice_bulkstat *b)
{
	struct sl_bulkstat_rec recs[SLUICE_BULKSTAT_MAX];
	struct sl_bulkstat *scan;
	size_t n;
	int err;

	b->count = 0;
	if (!b->next || !b->wanted || b->wanted > SLUICE_BULKSTAT_MAX)
		return -EINVAL;
	if (b->next > b->last)
		return 0;
	err = get_scan(req, h, b->next, b->last, &scan);
	if (err)
		return err;
	n = sl_bulkstat_read(scan, recs, b->wanted);
	for (size_t i = 0; i < n; i++)
		put_inode(&b->inode[i], &recs[i]);
	b->count = (__u32)n;
	b->next = max_of(sl_bulkstat_cursor(scan), (u64)b->next);
	if (n == b->wanted)
		handle_keep_scan(h, scan);
	else
		sl_bulkstat_close(scan);
	return 0;
}

static void ioctl_bulkstat(fuse_req_t req, struct handle *h, const void *in,
			   size_t in_size)
{
	struct sluice_bulkstat *b = loop_reply_buffer(sizeof(*b));
	int err = -ENOMEM;

	if (b) {
		/* `in` may be larger than what it says. */
		err = ioctl_layout_ok(in, in_size, sizeof(*b)) ? 0 : -EINVAL;
		if (!err) {
			memcpy(b, in, offsetof(struct sluice_bulkstat, inode));
			memset(b->inode, 0, sizeof(b->inode));
			err = bulkstat(req, h, b);
		}
	}
	if (err)
		reply_status(req, err);
	else
		fuse_reply_ioctl(req, 0, b, sizeof(*b));
}

static ssize_t json_stats(fuse_req_t req, char *buf, size_t len)
{
	char *text = malloc(SLUICE_STATS_MAX);
	ssize_t n;

	if (!text)
		return -ENOMEM;
	n = stats_json(text, session_stats(fuse_req_userdata(req), text,
					   SLUICE_STATS_MAX), buf, len);
	free(text);
	return n;
}

static void ioctl_stats(fuse_req_t req, const void *in, size_t in_size)
{
	struct sluice_stats *st = loop_reply_buffer(sizeof(*st));
	ssize_t n = -EINVAL;
	__u32 format;

	if (!st) {
		reply_status(req, -ENOMEM);
		return;
	}
	if (!ioctl_layout_ok(in, in_size, sizeof(*st))) {
		reply_status(req, -EINVAL);
		return;
	}
	memcpy(&format, (const char *)in + offsetof(struct sluice_stats, format),
	       sizeof(format));
	memset(st, 0, sizeof(*st));
	st->version = SLUICE_IOC_VERSION;
	st->size = sizeof(*st);
	st->format = format;
	if (format == SLUICE_STATS_TEXT)
		n = (ssize_t)session_stats(fuse_req_userdata(req), st->text,
					   sizeof(st->text));
	else if (format == SLUICE_STATS_JSON)
		n = json_stats(req, st->text, sizeof(st->text) - 1);
	if (n < 0) {
		reply_status(req, (int)n);
		return;
	}
	st->length = (__u32)n;
	fuse_reply_ioctl(req, 0, st, sizeof(*st));
}

static void ioctl_drop_caches(fuse_req_t req, const void *in, size_t in_size)
{
	struct sluice_drop_caches d;
	int err = -EINVAL;

	if (ioctl_layout_ok(in, in_size, sizeof(d))) {
		memcpy(&d, in, sizeof(d));
		err = session_drop_caches(fuse_req_userdata(req), d.what);
	}
	if (err)
		reply_status(req, err);
	else
		fuse_reply_ioctl(req, 0, NULL, 0);
}

static void ioctl_sync(fuse_req_t req, const void *in, size_t in_size)
{
	int err = -EINVAL;

	if (ioctl_layout_ok(in, in_size, sizeof(struct sluice_sync)))
		err = sl_sync(req_sb(req));
	if (err)
		reply_status(req, err);
	else
		fuse_reply_ioctl(req, 0, NULL, 0);
}

static void ioctl_cache_limit(fuse_req_t req, const void *in, size_t in_size)
{
	struct sluice_cache_limit c;
	int err = -EINVAL;

	if (ioctl_layout_ok(in, in_size, sizeof(c))) {
		memcpy(&c, in, sizeof(c));
		err = c.bytes ? sl_set_cache_bytes(req_sb(req), c.bytes) : 0;
		c.bytes = sl_cache_bytes(req_sb(req));
	}
	if (err)
		reply_status(req, err);
	else
		fuse_reply_ioctl(req, 0, &c, sizeof(c));
}

static void ioctl_info(fuse_req_t req, const void *in, size_t in_size)
{
	struct sluice_info info = {
		.version = SLUICE_IOC_VERSION,
		.size = sizeof(info),
		.pid = getpid(),
	};
	struct stat st;

	if (!ioctl_layout_ok(in, in_size, sizeof(info))) {
		reply_status(req, -EINVAL);
		return;
	}
	if (sl_is_readonly(req_sb(req)))
		info.flags |= SLUICE_INFO_READONLY;
	if (!stat("/proc/self/ns/pid", &st))
		info.pid_namespace = st.st_ino;
	fuse_reply_ioctl(req, 0, &info, sizeof(info));
}

static void ioctl_remount(fuse_req_t req, const void *in, size_t in_size)
{
	struct sluice_remount *r = loop_reply_buffer(sizeof(*r));
	const char *text = (const char *)in + offsetof(struct sluice_remount, text);

	if (!r) {
		reply_status(req, -ENOMEM);
		return;
	}
	if (!ioctl_layout_ok(in, in_size, sizeof(*r)) ||
	    !memchr(text, 0, SLUICE_REMOUNT_TEXT)) {
		reply_status(req, -EINVAL);
		return;
	}
	memcpy(r, in, offsetof(struct sluice_remount, text));
	memset(r->text, 0, sizeof(r->text));
	reconfigure(fuse_req_userdata(req), r, text);
	fuse_reply_ioctl(req, 0, r, sizeof(*r));
}

void op_ioctl(fuse_req_t req, fuse_ino_t node, unsigned cmd, void *arg,
	      struct fuse_file_info *fi, unsigned flags, const void *in,
	      size_t in_size, size_t out_size)
{
	struct handle *h = (struct handle *)(uintptr_t)fi->fh;

	if (node == STREAM_NODE && cmd == SLUICE_IOC_STREAM)
		stream_ioctl(req, h, in, in_size);
	else if (node != STREAM_NODE &&
		 (ioctl_fileattr(req, node, cmd, in, in_size) ||
		  ioctl_shift(req, node, cmd, h, in, in_size) ||
		  ioctl_move(req, cmd, h, flags, in, in_size) ||
		  ioctl_volume(req, cmd, arg, in, in_size)))
		return;
	else if (node != FUSE_ROOT_ID || !(flags & FUSE_IOCTL_DIR) ||
	    (cmd != SLUICE_IOC_BULKSTAT && cmd != SLUICE_IOC_DROP_CACHES &&
	     cmd != SLUICE_IOC_STATS && cmd != SLUICE_IOC_SYNC &&
	     cmd != SLUICE_IOC_CACHE_LIMIT && cmd != SLUICE_IOC_INFO &&
	     cmd != SLUICE_IOC_REMOUNT))
		reply_status(req, -ENOTTY);
	else if (!req_is_owner(req))
		reply_status(req, -EPERM);
	else if (cmd == SLUICE_IOC_BULKSTAT)
		ioctl_bulkstat(req, h, in, in_size);
	else if (cmd == SLUICE_IOC_STATS)
		ioctl_stats(req, in, in_size);
	else if (cmd == SLUICE_IOC_SYNC)
		ioctl_sync(req, in, in_size);
	else if (cmd == SLUICE_IOC_CACHE_LIMIT)
		ioctl_cache_limit(req, in, in_size);
	else if (cmd == SLUICE_IOC_INFO)
		ioctl_info(req, in, in_size);
	else if (cmd == SLUICE_IOC_REMOUNT)
		ioctl_remount(req, in, in_size);
	else
		ioctl_drop_caches(req, in, in_size);
}
