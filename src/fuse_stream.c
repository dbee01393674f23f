/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/fuse_stream.c - the stream of inodes: a hidden file in the root of a mount
 *
 * See sluice_ioctl.h: read(2) gives all inodes of the volume, a megabyte at a time,
 * where the ioctl has 16 KiB. It is a file because it then needs no access to
 * anything but the mount, ends with it, and has the kernel copy from the daemon's memory
 * into the reader's once (FOPEN_DIRECT_IO), past the page cache.
 *
 * The name. Only a LOOKUP in the root that found nothing comes here, so a real entry
 * wins. The kernel may keep neither answer (timeouts 0): each use of the name asks
 * anew, with the user who asks. The superuser and the daemon's user get the
 * entry, others are told that there is none. open(2) is judged again: a descriptor of
 * the name (O_PATH) may have been handed on.
 *
 * The node has a number that no inode of a volume can have; it is not counted, and
 * operations that do not know it find no such inode (sl_iget(): ESTALE).
 *
 * A stream is one scan at a time, in its handle between two reads (handles.h). Reads
 * on one handle take turns. What a read has given is gone: the kernel has the reader's
 * memory at hand before it asks, and waits for the answer even if the reader is killed.
 *
 * Locks:   inode_stream.lock, unranked, outside of all of the file system's
 * Alive:   with its handle. Unmount closes what is open (handles_close_all())
 * Threads: those of the request loop
 */
#include "src/fuse_ops.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/loop.h"
#include "src/session.h"
#include "src/sluice_ioctl.h"

/* Between two conversions: stays in the first level of the CPU's cache. */
#define STEP_RECORDS 64

_Static_assert(sizeof(struct sluice_stream) == 40, "layout");
_Static_assert(STREAM_NODE > UINT32_MAX, "no inode has it");

bool stream_is_named(fuse_ino_t parent, const char *name)
{
	return parent == FUSE_ROOT_ID && !strcmp(name, SLUICE_STREAM_NAME);
}

struct stat stream_attrs(void)
{
	return (struct stat){
		.st_ino = STREAM_NODE,
		.st_mode = S_IFREG | 0400,
		.st_nlink = 1,
		.st_uid = geteuid(),
		.st_gid = getegid(),
		.st_blksize = 4096,
	};
}

void stream_lookup(fuse_req_t req)
{
	struct fuse_entry_param e = { .ino = STREAM_NODE, .attr = stream_attrs() };

	if (req_is_owner(req))
		fuse_reply_entry(req, &e);
	else
		reply_status(req, -ENOENT);
}

void stream_getattr(fuse_req_t req)
{
	struct stat st = stream_attrs();

	fuse_reply_attr(req, &st, 0);
}

void stream_open(fuse_req_t req, struct fuse_file_info *fi)
{
	struct handle *h;

	if (!req_is_owner(req) || (fi->flags & O_ACCMODE) != O_RDONLY ||
	    fi->flags & O_TRUNC) {
		reply_status(req, -EACCES);
		return;
	}
	h = handle_open_stream(session_handles(fuse_req_userdata(req)), 1, ~0ull);
	if (!h) {
		reply_status(req, -ENOMEM);
		return;
	}
	fi->fh = (uintptr_t)h;
	fi->direct_io = 1;
	fi->nonseekable = 1;
	fi->noflush = 1;
	if (fuse_reply_open(req, fi))
		fi_close(fi); /* interrupted: no RELEASE will come */
}

/* Up to max records into out. stream->lock held. Number, or -errno. */
static ssize_t fill(struct super_block *sb, struct handle *h,
		    struct sluice_inode *out, size_t max)
{
	struct sl_bulkstat_rec recs[STEP_RECORDS];
	struct inode_stream *stream = h->stream;
	struct sl_bulkstat *scan = handle_take_scan(h);
	size_t n = 0, step, got;
	int err;

	if (stream->next > stream->last) {
		sl_bulkstat_close(scan);
		return 0;
	}
	if (!scan || !sl_bulkstat_continues(scan, stream->next, stream->last)) {
		sl_bulkstat_close(scan);
		err = sl_bulkstat_open(sb, stream->next, stream->last, 0, &scan);
		if (err)
			return err;
	}
	do {
		step = min_of(max - n, (size_t)STEP_RECORDS);
		got = sl_bulkstat_read(scan, recs, step);
		for (size_t i = 0; i < got; i++)
			put_inode(&out[n + i], &recs[i]);
		n += got;
	} while (got == step && n < max);
	stream->next = sl_bulkstat_cursor(scan);
	if (got == step) {
		handle_keep_scan(h, scan);
	} else {
		stream->next = 1;
		stream->last = 0;
		sl_bulkstat_close(scan);
	}
	return (ssize_t)n;
}

void stream_read(fuse_req_t req, size_t size, struct fuse_file_info *fi)
{
	struct handle *h = (struct handle *)(uintptr_t)fi->fh;
	struct inode_stream *stream = h->stream;
	size_t max = size / sizeof(struct sluice_inode);
	struct sluice_inode *buf = loop_reply_buffer(size);
	ssize_t n;

	if (!buf || !max) {
		reply_status(req, buf ? -EINVAL : -ENOMEM);
		return;
	}
	mutex_lock(&stream->lock);
	n = fill(req_sb(req), h, buf, max);
	mutex_unlock(&stream->lock);
	if (n < 0)
		reply_status(req, (int)n);
	else
		fuse_reply_buf(req, (char *)buf, (size_t)n * sizeof(*buf));
}

/* The numbers that st asks for. False: none. */
static bool narrow(struct super_block *sb, struct sluice_stream *st)
{
	u64 first, last;

	if (st->parts) {
		if (!sl_bulkstat_part(sb, st->part, st->parts, &first, &last))
			return false;
		st->first = max_of((u64)st->first, first);
		st->last = min_of((u64)st->last, last);
	}
	return st->first <= st->last;
}

void stream_ioctl(fuse_req_t req, struct handle *h, const void *in, size_t in_size)
{
	struct inode_stream *stream = h->stream;
	struct sluice_stream st;

	if (!ioctl_layout_ok(in, in_size, sizeof(st))) {
		reply_status(req, -EINVAL);
		return;
	}
	memcpy(&st, in, sizeof(st));
	if (!st.first || st.first > st.last || (st.parts && st.part >= st.parts)) {
		reply_status(req, -EINVAL);
		return;
	}
	if (!narrow(req_sb(req), &st)) {
		st.first = 1;
		st.last = 0;
	}
	st.record = sizeof(struct sluice_inode);
	st.reserved = 0;
	mutex_lock(&stream->lock);
	stream->next = st.first;
	stream->last = st.last;
	/* One that goes on from there by chance has read ahead, perhaps long ago. */
	sl_bulkstat_close(handle_take_scan(h));
	mutex_unlock(&stream->lock);
	fuse_reply_ioctl(req, 0, &st, sizeof(st));
}
