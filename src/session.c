/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/session.c - one FUSE mount of one volume, from mount to unmount
 *
 * Mount type. fuseblk makes umount(8) wait for our answer to DESTROY, in which
 * the volume is unmounted: after umount the device is quiet. It needs root
 * and a block device; an image gets a loop device to stand for it. Otherwise
 * the type is fuse, and the daemon is a moment longer at work than umount(8).
 *
 * libfuse 3.14 leaves some things out, which are done on the messages
 * themselves, as linux/fuse.h has them: four bits of the INIT reply (parallel
 * directory operations, KILLPRIV_V2, SETXATTR_EXT, idmapped mounts), the "clear suid" bits of OPEN,
 * CREATE and WRITE, the long form of SETXATTR, SYNCFS, STATX (times of birth), and
 * TMPFILE, which is made a CREATE. A newer libfuse sets the same bits of INIT again,
 * but for SETXATTR_EXT and idmapped mounts, which it is not told of.
 *
 * Locks:   volume_lock (outside of all of the file system's): sb against its
 *          unmounting, for the statistics of the main thread. Requests need
 *          it not: DESTROY waits for them (loop_quiesce).
 *          remount_lock: outside of volume_lock; nobody waits for it
 * Alive:   from session_create() to session_close()
 * Never:   fuse_session_exit() while requests run: libfuse would lose one
 * Threads: the main thread; those of the request loop in the callbacks
 */
#include "src/session.h"

#include <assert.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include <linux/fuse.h>

#include "cache/region.h"
#include "fs/fs.h"
#include "lib/counter.h"
#include "lib/lock.h"
#include "lib/log.h"
#include "lib/thread.h"
#include "lib/wait.h"
#include "src/dropper.h"
#include "src/fuse_ops.h"
#include "src/journaldev.h"
#include "src/loop.h"
#include "src/loopdev.h"
#include "src/options.h"
#include "src/umount.h"
#include "writeback/bdev.h"

/* The largest request, of a mount with a cache of 64 MiB and more; a smaller
 * cache has smaller ones: each request in work is memory beside the cache. */
#define MAX_WRITE (1u << 20)
#define MAX_WRITE_LEAST (128u << 10)
#define MAX_WRITE_SHARE 64
/* Of one READ: a larger read of the client's comes as several, and while one is at
 * the device the answer to another is copied. */
#define MAX_READ (512u << 10)
/* The library's buffers have a page for headers, too. */
#define REQUEST_MAX (MAX_WRITE + 4096)
#define MAX_BACKGROUND 64
#define READ_AHEAD_KB 1024
#define MAX_THREADS 512
#define SPARE_IDLE_MS 10000
/* A lazily detached mount that is still in use is cut off after this. */
#define DETACHED_WAIT_NS (10 * 1000000000ull)
#define STATS_TEXT_MAX 16384
/* How long the kernel may take to let go of a device after umount -f. */
#define CLAIM_TRIES 50
#define CLAIM_WAIT_MS 10

/* The wire, as we read and change it. */
_Static_assert(sizeof(struct fuse_in_header) == 40, "FUSE request header");
_Static_assert(sizeof(struct fuse_write_in) == 40, "FUSE WRITE");
_Static_assert(sizeof(struct fuse_out_header) == 16, "FUSE reply header");
_Static_assert(offsetof(struct fuse_init_in, flags) == 12, "FUSE INIT");
_Static_assert(offsetof(struct fuse_init_out, flags) == 12, "FUSE INIT reply");
_Static_assert(sizeof(struct fuse_init_out) == 64, "FUSE INIT reply");

/* What precedes the data of a WRITE. */
#define WRITE_HEADERS (sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in))

/* Newer than the headers we are built with. */
#define OPCODE_TMPFILE 51
#define OPCODE_STATX 52
/* Of flags2 in INIT. */
#define ALLOW_IDMAP (1u << 8)

struct wire_time {
	s64 sec;
	u32 nsec;
	s32 reserved;
};

struct wire_statx_out {
	u64 attr_valid;
	u32 attr_valid_nsec, flags;
	u64 spare[2];
	u32 mask, blksize;
	u64 attributes;
	u32 nlink, uid, gid;
	u16 mode, spare0;
	u64 ino, size, blocks, attributes_mask;
	struct wire_time atime, btime, ctime, mtime;
	u32 rdev_major, rdev_minor, dev_major, dev_minor;
	u64 spare2[14];
};
_Static_assert(sizeof(struct wire_statx_out) == 288, "FUSE STATX reply");

/* Names of what is counted; at least as many as there are opcodes below. */
#define OPCODES 64u
static const char *const opcode_names[OPCODES] = {
	[0] = "other",
	[FUSE_LOOKUP] = "lookup",
	[FUSE_FORGET] = "forget",
	[FUSE_GETATTR] = "getattr",
	[FUSE_SETATTR] = "setattr",
	[FUSE_READLINK] = "readlink",
	[FUSE_SYMLINK] = "symlink",
	[FUSE_MKNOD] = "mknod",
	[FUSE_MKDIR] = "mkdir",
	[FUSE_UNLINK] = "unlink",
	[FUSE_RMDIR] = "rmdir",
	[FUSE_RENAME] = "rename",
	[FUSE_LINK] = "link",
	[FUSE_OPEN] = "open",
	[FUSE_READ] = "read",
	[FUSE_WRITE] = "write",
	[FUSE_STATFS] = "statfs",
	[FUSE_RELEASE] = "release",
	[FUSE_FSYNC] = "fsync",
	[FUSE_SETXATTR] = "setxattr",
	[FUSE_GETXATTR] = "getxattr",
	[FUSE_LISTXATTR] = "listxattr",
	[FUSE_REMOVEXATTR] = "removexattr",
	[FUSE_FLUSH] = "flush",
	[FUSE_OPENDIR] = "opendir",
	[FUSE_READDIR] = "readdir",
	[FUSE_RELEASEDIR] = "releasedir",
	[FUSE_FSYNCDIR] = "fsyncdir",
	[FUSE_CREATE] = "create",
	[FUSE_INTERRUPT] = "interrupt",
	[FUSE_IOCTL] = "ioctl",
	[FUSE_BATCH_FORGET] = "batch_forget",
	[FUSE_FALLOCATE] = "fallocate",
	[FUSE_READDIRPLUS] = "readdirplus",
	[FUSE_RENAME2] = "rename2",
	[FUSE_LSEEK] = "lseek",
	[FUSE_COPY_FILE_RANGE] = "copy_file_range",
	[FUSE_SYNCFS] = "syncfs",
	[OPCODE_TMPFILE] = "tmpfile",
	[OPCODE_STATX] = "statx",
};

enum init_state { INIT_WAITING, INIT_DONE, INIT_FAILED };

struct session {
	char *device;		/* [const] for messages */
	char *source;		/* [const] shown as the mount's source */
	char *mountpoint;	/* [const] */
	struct bdev *bd;	/* [main thread] the device, until the mount */
	u32 max_write;		/* [const after session_create] bytes of a request's data */
	u32 sector;		/* [const after session_create] the device's own */
	bool blkdev;		/* [const after session_create] type fuseblk */
	bool on_device;		/* [const after session_create] blocks are the device's */
	_Atomic bool strict_atime; /* [atomic] each read tells us */
	_Atomic bool readonly;	/* [atomic] nothing is written: a remount may change that */
	bool noacl;		/* [const after session_create] the kernel checks none */
	bool noexport;		/* [const after session_create] no files by handle */
	bool idmap;		/* [const after session_create] idmapped mounts are wanted */
	bool setxattr_ext;	/* [const after INIT] SETXATTR has its long form */
	_Atomic bool writeback;	/* [atomic; const after INIT] the kernel delays writes */
	_Atomic bool down;	/* [atomic] the volume is shut down */
	bool read_ahead_given;	/* [const after session_create] */
	u64 read_ahead_kb;	/* [const after session_create] */
	struct loopdev anchor;	/* [main thread; DESTROY] */
	bool unclaimed;		/* [main thread] the kernel's mount has the claim */
	int claim;		/* [main thread] ours again, after that; -1 */
	struct fuse_session *se; /* [const after session_create] */
	struct loop *loop;	/* [main thread; const while requests run] */
	struct region_pool *regions; /* [const after session_create] receive buffers */
	int fd;			/* /dev/fuse [const after session_mount] */
	int event;		/* INIT was answered, or the loop has ended */
	int signals;		/* [main thread] */
	int mounts;		/* [main thread] the mount table, whose changes it tells; -1 */
	_Atomic bool quiet;	/* [atomic] the kernel has made the mount read-only */
	bool told_readonly;	/* [main thread] see notice_remount() */
	dev_t dev;		/* [main thread] st_dev of the mount */
	bool have_dev;		/* [main thread] */
	bool cut;		/* [main thread] ended against the clients */

	_Atomic int init_state;	/* [atomic] enum init_state */
	_Atomic u64 init_unique; /* [atomic] */
	u32 init_flags, init_flags2; /* [the thread with INIT] what the kernel can */

	struct dropper *dropper; /* [const after session_mount] */
	struct counter_set *requests; /* [const] by opcode; others at 0 */
	struct handle_table handles;
	/* In force. What a pointer in it is to is of main()'s options, and const.
	 * [remount_lock once there is a mount] */
	struct options opts;
	struct mutex remount_lock;	/* only tried: see session_remount_begin() */
	struct mutex volume_lock;
	struct super_block *sb;	/* [volume_lock to change] */
	int close_error;	/* [volume_lock] of sl_unmount() */
};

/* Of the request this thread is at. */
static _Thread_local bool kills_suidgid;
static _Thread_local bool kills_sgid;
static _Thread_local bool is_tmpfile;

struct super_block *session_sb(struct session *s)
{
	return s->sb;
}

struct handle_table *session_handles(struct session *s)
{
	return &s->handles;
}

bool session_writeback(const struct session *s)
{
	return atomic_load_explicit(&s->writeback, memory_order_relaxed);
}

bool session_is_tmpfile(void)
{
	return is_tmpfile;
}

bool session_kills_suidgid(void)
{
	return kills_suidgid;
}

bool session_on_device(const struct session *s)
{
	return s->on_device;
}

bool session_strict_atime(const struct session *s)
{
	return atomic_load_explicit(&s->strict_atime, memory_order_relaxed);
}

bool session_kills_sgid(void)
{
	return kills_sgid;
}

static int exit_code_of(int err)
{
	switch (err) {
	case -EACCES:
	case -EPERM:
		return EXIT_CODE_USAGE;
	case -ENOMEM:
	case -EAGAIN:
		return EXIT_CODE_SYSTEM;
	default:
		return EXIT_CODE_MOUNT;
	}
}

static void signal_event(struct session *s)
{
	u64 one = 1;

	if (write(s->event, &one, sizeof(one)) < 0)
		log_err("eventfd: errno %d", errno);
}

/* ---- the volume ---- */

/* Once; later calls return the same. No request runs any more. */
static int close_volume(struct session *s)
{
	int err;

	mutex_lock(&s->volume_lock);
	if (s->sb) {
		/* Those of clients that were cut off. */
		if (handles_close_all(&s->handles))
			log_warn("%s: there were open files", s->device);
		s->close_error = sl_unmount(s->sb);
		s->sb = NULL;
		if (s->close_error)
			log_err("%s: unmounted with errors: %s", s->device,
				strerror(-s->close_error));
	}
	err = s->close_error;
	mutex_unlock(&s->volume_lock);
	return err;
}

static bool connection_stands(const struct session *s)
{
	struct pollfd p = { .fd = s->fd, .events = POLLIN };

	return s->fd >= 0 && poll(&p, 1, 0) >= 0 && !(p.revents & POLLERR);
}

/*
 * May the volume still be written to? As fuseblk the kernel's mount has the
 * claim on the device. If that has gone without DESTROY (umount -f, a cut
 * connection, a mount(2) that failed), somebody else may have claimed the
 * device by now, the kernel's ext4 for one: two writers would destroy it.
 * What he finds is a volume that needs recovery, which is what a crash leaves.
 */
static bool device_is_ours(struct session *s)
{
	const char *path = s->anchor.fd >= 0 ? s->anchor.path : s->device;
	dev_t dev;

	if (!s->unclaimed || s->readonly || !s->sb)
		return true;
	for (int i = 0; i < CLAIM_TRIES; i++) {
		if (connection_stands(s))
			return true;
		s->claim = open(path, O_RDONLY | O_EXCL | O_CLOEXEC);
		if (s->claim >= 0 || errno != EBUSY)
			return true;
		/* Cut off, yet mounted: the dead mount has the claim. */
		if (mount_find(NULL, s->source, &dev))
			return true;
		(void)poll(NULL, 0, CLAIM_WAIT_MS);
	}
	return false;
}

static void log_lines(char *text)
{
	char *save, *line = strtok_r(text, "\n", &save);

	for (; line; line = strtok_r(NULL, "\n", &save))
		log_info("%s", line);
}

static void __attribute__((format(printf, 4, 5)))
add_line(char *buf, size_t len, size_t *used, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(buf + *used, len - *used, fmt, ap);
	va_end(ap);
	if (n > 0)
		*used = min_of(*used + (size_t)n, len - 1);
}

/* Of the process, and of what the kernel has asked. */
static void daemon_text(struct session *s, char *buf, size_t len, size_t *used)
{
	struct mallinfo2 heap = mallinfo2();
	struct loop_stats st;
	u64 requests[OPCODES];

	loop_get_stats(s->loop, &st);
	add_line(buf, len, used,
		 "threads.all %u\nthreads.receivers %u\nthreads.spare %u\n"
		 "threads.most %u\nthreads.started %llu\nthreads.handovers %llu\n"
		 "threads.lacking %llu\nthreads.buffer_bytes %llu\n"
		 "threads.buffers_dropped %llu\n",
		 st.threads, st.receivers, st.spares, st.threads_max,
		 (unsigned long long)st.threads_started,
		 (unsigned long long)st.handovers,
		 (unsigned long long)st.short_of_threads,
		 (unsigned long long)st.buffers_kept,
		 (unsigned long long)st.buffers_dropped);
	add_line(buf, len, used,
		 "heap.used %zu\nheap.free %zu\nheap.mapped %zu\n",
		 heap.uordblks, heap.fordblks, heap.hblkhd);
	counter_set_read(s->requests, requests);
	for (u32 i = 0; i < OPCODES; i++)
		if (opcode_names[i])
			add_line(buf, len, used, "requests.%s %llu\n",
				 opcode_names[i],
				 (unsigned long long)requests[i]);
}

static size_t all_text(struct session *s, char *buf, size_t len)
{
	size_t used = 0;

	if (s->sb)
		used = min_of(sl_stats(s->sb, buf, len - 1), len - 1);
	daemon_text(s, buf, len, &used);
	buf[used] = '\0';
	return used;
}

static void log_stats(struct session *s)
{
	char *text = malloc(STATS_TEXT_MAX);

	if (!text)
		return;
	mutex_lock(&s->volume_lock);
	(void)all_text(s, text, STATS_TEXT_MAX);
	mutex_unlock(&s->volume_lock);
	log_lines(text);
	free(text);
	lock_stats_dump();
}

size_t session_stats(struct session *s, char *buf, size_t len)
{
	return all_text(s, buf, len);
}

int session_drop_caches(struct session *s, u32 what)
{
	return dropper_run(s->dropper, s->sb, what);
}

dev_t session_dev(const struct session *s)
{
	return dropper_dev(s->dropper);
}

int session_drop_begin(struct session *s)
{
	return dropper_enter(s->dropper);
}

void session_drop_end(struct session *s)
{
	dropper_leave(s->dropper);
}

int session_drop_pages(struct session *s, u64 node, u64 off)
{
	return dropper_inval(s->dropper, node, off);
}

int session_shutdown(struct session *s, u32 how)
{
	int err = sl_shutdown(s->sb, how);

	if (!err)
		atomic_store(&s->down, true);
	return err;
}

bool session_is_shut_down(struct session *s)
{
	return atomic_load_explicit(&s->down, memory_order_relaxed);
}

/* ---- remount ---- */

/* The lock is held on return, if there is one. */
struct options *session_remount_begin(struct session *s) NO_THREAD_SAFETY
{
	if (!mutex_trylock(&s->remount_lock))
		return NULL;
	s->opts.sl.readonly = atomic_load(&s->readonly) || atomic_load(&s->quiet);
	s->opts.sl.cache_bytes = sl_cache_bytes(s->sb);
	s->opts.sl.nodelalloc |= sl_never_delays(s->sb);
	return &s->opts;
}

void session_remount_end(struct session *s) NO_THREAD_SAFETY
{
	mutex_unlock(&s->remount_lock);
}

/*
 * No request is at work while the volume becomes another: nobody who reads has to mind.
 * One may wait for the dropper, which may wait for the kernel, and that for another
 * request: so first the dropper comes to rest.
 */
static int make_writable(struct session *s)
{
	int err;

	dropper_hold(s->dropper);
	loop_pause(s->loop);
	mutex_lock(&s->volume_lock);
	err = sl_writable_finish(s->sb);
	/* The kernel lets nobody write yet. */
	if (sl_holds_volume(s->sb)) {
		sl_set_quiet(s->sb, true);
		atomic_store(&s->quiet, true);
		atomic_store(&s->readonly, false);
	}
	mutex_unlock(&s->volume_lock);
	loop_resume(s->loop);
	dropper_release(s->dropper);
	return err;
}

int session_make_writable(struct session *s)
{
	bool anchored = s->anchor.fd >= 0;
	int err;

	if (atomic_load(&s->readonly) && anchored && s->anchor.readonly) {
		log_err("%s: it could not be opened for writing when it was mounted: unmount it, and mount it again",
			s->device);
		return -EROFS;
	}
	err = sl_writable_begin(s->sb, anchored ? s->anchor.path : NULL);
	if (err || !atomic_load(&s->readonly))
		return err;
	err = make_writable(s);
	if (!atomic_load(&s->readonly))
		log_info("%s: writable from here on", s->device);
	return err;
}

int session_reconfigure(struct session *s, const struct options *to)
{
	int err = sl_reconfigure(s->sb, &s->opts.sl, &to->sl);

	if (err)
		return err;
	sl_set_quiet(s->sb, to->sl.readonly);
	atomic_store(&s->strict_atime, to->sl.atime == SL_ATIME_STRICT);
	if (to->debug && !s->opts.debug)
		log_set_level(LOG_LVL_DEBUG);
	s->opts.sl = to->sl;
	s->opts.strictatime = to->strictatime;
	s->opts.debug = to->debug;
	atomic_store(&s->quiet, to->sl.readonly && !atomic_load(&s->readonly));
	return 0;
}

void session_attrs_changed(struct session *s, u64 node)
{
	/* The client may be killed, and this the last to let go of the inode, which the
	 * kernel then writes back: by requests to others of our threads. */
	thread_blocks_begin();
	(void)fuse_lowlevel_notify_inval_inode(s->se, node, -1, 0);
	thread_blocks_end();
}

/* ---- requests ---- */

static int send_status(struct session *s, u64 unique, int err)
{
	struct fuse_out_header out = {
		.len = sizeof(out),
		.error = err,
		.unique = unique,
	};

	/* An error means that nobody waits for the answer any more. */
	return write(s->fd, &out, sizeof(out)) < 0 ? -errno : 0;
}

static bool wants_kill(const struct fuse_in_header *in, size_t len)
{
	const void *arg = in + 1;
	size_t room = len - sizeof(*in);

	switch (in->opcode) {
	case FUSE_WRITE:
		return room >= sizeof(struct fuse_write_in) &&
		       (((const struct fuse_write_in *)arg)->write_flags &
			FUSE_WRITE_KILL_SUIDGID);
	case FUSE_OPEN:
		return room >= sizeof(struct fuse_open_in) &&
		       (((const struct fuse_open_in *)arg)->open_flags &
			FUSE_OPEN_KILL_SUIDGID);
	case FUSE_CREATE:
		return room >= sizeof(struct fuse_create_in) &&
		       (((const struct fuse_create_in *)arg)->open_flags &
			FUSE_OPEN_KILL_SUIDGID);
	default:
		return false;
	}
}

static void note_init(struct session *s, const struct fuse_in_header *in,
		      size_t len)
{
	const struct fuse_init_in *arg = (const void *)(in + 1);

	/* Only INIT's own thread is at work: no other request comes before. */
	s->init_unique = in->unique;
	if (len - sizeof(*in) >= offsetof(struct fuse_init_in, flags) + 4)
		s->init_flags = arg->flags;
	if (len - sizeof(*in) >= offsetof(struct fuse_init_in, flags2) + 4 &&
	    s->init_flags & FUSE_INIT_EXT)
		s->init_flags2 = arg->flags2;
}

/* Of a volume that is shut down, what ext4 in the kernel still carries out: to look at
 * what is there, and to end. Ioctls see to it by themselves. */
static bool goes_when_down(u32 opcode)
{
	switch (opcode) {
	case FUSE_LOOKUP:
	case FUSE_GETATTR:
	case FUSE_STATFS:
	case FUSE_READLINK:
	case FUSE_LISTXATTR:
	case FUSE_OPENDIR:
	case FUSE_READDIR:
	case FUSE_READDIRPLUS:
	case FUSE_LSEEK:
	case OPCODE_STATX:
	case FUSE_IOCTL:
	case FUSE_FLUSH:
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR:
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT:
	case FUSE_INIT:
	case FUSE_DESTROY:
		return true;
	default:
		return false;
	}
}

/*
 * A SETXATTR in the long form gets the short one, which is all that the library reads.
 * Its flag, that who sets an access ACL is not of the file's group, is kept.
 */
static size_t shorten_setxattr(struct session *s, struct fuse_in_header *in,
			       size_t len)
{
	const size_t cut = sizeof(struct fuse_setxattr_in) -
			   FUSE_COMPAT_SETXATTR_IN_SIZE;
	struct fuse_setxattr_in arg;
	u8 *p = (u8 *)(in + 1);

	/* An older kernel does not say: only the superuser's keep sgid then. */
	kills_sgid = !s->setxattr_ext && in->uid != 0;
	if (!s->setxattr_ext || len < sizeof(*in) + sizeof(arg))
		return len;
	memcpy(&arg, p, sizeof(arg));
	kills_sgid = arg.setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID;
	memmove(p + FUSE_COMPAT_SETXATTR_IN_SIZE, p + sizeof(arg),
		len - sizeof(*in) - sizeof(arg));
	in->len = (u32)(len - cut);
	return len - cut;
}

static const char *request_name(u32 opcode)
{
	return opcode < OPCODES ? opcode_names[opcode] : NULL;
}

/* More than so many bytes of a request are data, or many inodes to forget. */
#define SHORT_REQUEST 8192

/* What the loop is to know, see loop_request_kind(). */
static void note_kind(u32 opcode, size_t len)
{
	switch (opcode) {
	case FUSE_READ:
	case FUSE_READDIR:
	case FUSE_READDIRPLUS:
	case FUSE_FSYNC:
	case FUSE_FSYNCDIR:
	case FUSE_SYNCFS:
	case FUSE_IOCTL:
	case FUSE_FALLOCATE:
	case FUSE_COPY_FILE_RANGE:
	case FUSE_LSEEK:
		loop_request_kind(LOOP_LENGTHY);
		break;
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR:
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
		loop_request_kind(len > SHORT_REQUEST ? LOOP_LENGTHY :
							LOOP_UNAWAITED);
		break;
	default:
		if (len > SHORT_REQUEST)
			loop_request_kind(LOOP_LENGTHY);
	}
}

static struct wire_time wire_time(struct timespec t)
{
	return (struct wire_time){ .sec = t.tv_sec, .nsec = (u32)t.tv_nsec };
}

/*
 * The attributes with the time of birth, which no other answer has. Asked for by who wants
 * that time, each time.
 */
static void answer_statx(struct session *s, const struct fuse_in_header *in)
{
	struct {
		struct fuse_out_header head;
		struct wire_statx_out x;
	} out = { .head = { .len = sizeof(out), .unique = in->unique } };
	struct timespec birth = { 0 };
	bool born = false;
	struct stat st;
	int err = 0;

	if (in->nodeid == STREAM_NODE) {
		st = stream_attrs();
	} else {
		struct inode *inode;

		err = sl_iget(s->sb, node_to_ino(in->nodeid), &inode);
		if (!err) {
			sl_getattr(inode, &st);
			born = sl_birth_time(inode, &birth);
			sl_iput(inode);
		}
	}
	if (err) {
		send_status(s, in->unique, err);
		return;
	}
	out.x = (struct wire_statx_out){
		.attr_valid = in->nodeid == STREAM_NODE ? 0 : (u64)attr_timeout(&st),
		.mask = STATX_BASIC_STATS | (born ? STATX_BTIME : 0),
		.blksize = (u32)st.st_blksize,
		.nlink = (u32)st.st_nlink,
		.uid = st.st_uid,
		.gid = st.st_gid,
		.mode = (u16)st.st_mode,
		.ino = st.st_ino,
		.size = (u64)st.st_size,
		.blocks = (u64)st.st_blocks,
		.atime = wire_time(st.st_atim),
		.btime = wire_time(birth),
		.ctime = wire_time(st.st_ctim),
		.mtime = wire_time(st.st_mtim),
		.rdev_major = major(st.st_rdev),
		.rdev_minor = minor(st.st_rdev),
	};
	if (write(s->fd, &out, sizeof(out)) < 0 && errno != ENOENT)
		log_debug("STATX: errno %d", errno);
}

static void process(void *priv, void *request, size_t len)
{
	struct session *s = priv;
	struct fuse_in_header *in = request;
	struct fuse_buf buf = { .mem = request, .size = len };

	if (len < sizeof(*in)) {
		log_ratelimited(LOG_LVL_ERR, "%s: request of %zu bytes from the "
				"kernel", s->device, len);
		return;
	}
	counter_set_add(s->requests, request_name(in->opcode) ? in->opcode : 0, 1);
	if (unlikely(session_is_shut_down(s)) && !goes_when_down(in->opcode)) {
		send_status(s, in->unique, -EIO);
		return;
	}
	note_kind(in->opcode, len);
	if (in->opcode == FUSE_SYNCFS) {
		send_status(s, in->unique, sl_sync(s->sb));
		return;
	}
	if (in->opcode == OPCODE_STATX) {
		answer_statx(s, in);
		return;
	}
	if (in->opcode == FUSE_INIT)
		note_init(s, in, len);
	if (in->opcode == FUSE_SETXATTR)
		buf.size = shorten_setxattr(s, in, len);
	/* It has the layout of a CREATE, and its answer. */
	is_tmpfile = in->opcode == OPCODE_TMPFILE;
	if (is_tmpfile)
		in->opcode = FUSE_CREATE;
	kills_suidgid = wants_kill(in, len);
	fuse_session_process_buf(s->se, &buf);
}

/* After DESTROY only FORGETs that crossed it should come. */
static void reject(void *priv, void *request, size_t len)
{
	struct session *s = priv;
	const struct fuse_in_header *in = request;

	if (len < sizeof(*in) || in->opcode == FUSE_FORGET ||
	    in->opcode == FUSE_BATCH_FORGET || in->opcode == FUSE_INTERRUPT)
		return;
	send_status(s, in->unique, -ENODEV);
}

void session_destroy_request(struct session *s)
{
	if (!s->loop)
		return; /* the library's own call, of session_close() */
	loop_quiesce(s->loop);
	(void)!close_volume(s); /* logged; session_close() has it too */
	/* The mount keeps the loop device till its end, then it is freed. */
	loopdev_release(&s->anchor);
}

/* ---- INIT and the library's I/O ---- */

static u32 max_read_of(const struct session *s)
{
	return min_of(MAX_READ, s->max_write);
}

void session_init(struct session *s, struct fuse_conn_info *conn)
{
	const unsigned wanted =
		FUSE_CAP_ASYNC_READ | FUSE_CAP_ATOMIC_O_TRUNC |
		(s->noexport ? 0 : FUSE_CAP_EXPORT_SUPPORT) | FUSE_CAP_IOCTL_DIR |
		FUSE_CAP_READDIRPLUS | FUSE_CAP_ASYNC_DIO |
		FUSE_CAP_PARALLEL_DIROPS |
		FUSE_CAP_CACHE_SYMLINKS | FUSE_CAP_EXPLICIT_INVAL_DATA |
		FUSE_CAP_DONT_MASK | (s->noacl ? 0 : FUSE_CAP_POSIX_ACL);

	/*
	 * All else the library would turn on is off: see fuse_common.h. Also
	 * READDIRPLUS_AUTO, by which attributes come with the first part of a
	 * listing only, unless somebody looks at them meanwhile: find and ls -l
	 * read a directory to its end first, and then ask for each name.
	 */
	conn->want = conn->capable & wanted;
	if (!s->noacl && !(conn->capable & FUSE_CAP_POSIX_ACL))
		log_warn("%s: the kernel does not mind ACLs of FUSE mounts",
			 s->device);
	if (s->writeback && !(conn->capable & FUSE_CAP_WRITEBACK_CACHE)) {
		log_warn("%s: the kernel has no writeback cache for FUSE",
			 s->device);
		s->writeback = false;
	}
	if (s->writeback)
		conn->want |= FUSE_CAP_WRITEBACK_CACHE;
	/* Less than the kernel's own takes no privilege. */
	if (s->read_ahead_given)
		conn->max_readahead = (unsigned)min_of(
			(u64)conn->max_readahead, s->read_ahead_kb * 1024);
	conn->max_write = min_of(conn->max_write, s->max_write);
	conn->max_read = max_read_of(s); /* as in the mount options */
	conn->max_background = MAX_BACKGROUND;
	conn->congestion_threshold = MAX_BACKGROUND * 3 / 4;
	conn->time_gran = sl_nsec_times(s->sb) ? 1 : 1000000000;
}

/* The reply to INIT with the bits that the library leaves out. */
static ssize_t write_init(struct session *s, int fd, const struct iovec *iov,
			  int count)
{
	const struct fuse_out_header *head = iov[0].iov_base;
	struct fuse_init_out out = { 0 };
	struct iovec changed[2];
	ssize_t n;

	if (head->unique != s->init_unique)
		return writev(fd, iov, count);
	if (!head->error && count == 2 &&
	    iov[1].iov_len >= offsetof(struct fuse_init_out, flags) + 4 &&
	    iov[1].iov_len <= sizeof(out)) {
		memcpy(&out, iov[1].iov_base, iov[1].iov_len);
		out.flags &= ~(u32)FUSE_HANDLE_KILLPRIV;
		out.flags |= s->init_flags &
			     (FUSE_PARALLEL_DIROPS | FUSE_HANDLE_KILLPRIV_V2 |
			      FUSE_SETXATTR_EXT);
		s->setxattr_ext = s->init_flags & FUSE_SETXATTR_EXT;
		if (s->idmap && s->init_flags2 & ALLOW_IDMAP &&
		    iov[1].iov_len == sizeof(out)) {
			out.flags |= FUSE_INIT_EXT;
			out.flags2 |= ALLOW_IDMAP;
		} else if (s->idmap) {
			log_warn("%s: the kernel has no idmapped mounts of FUSE",
				 s->device);
		}
		changed[0] = iov[0];
		changed[1] = (struct iovec){ &out, iov[1].iov_len };
		iov = changed;
	}
	n = writev(fd, iov, count);
	/* Protocol 8 or above: the kernel asks again, for a 7. */
	if (n < 0 || head->error)
		atomic_store(&s->init_state, INIT_FAILED);
	else
		atomic_store(&s->init_state, INIT_DONE);
	signal_event(s);
	return n;
}

static ssize_t io_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	struct session *s = userdata;
	ssize_t n;

	if (unlikely(atomic_load(&s->init_state) == INIT_WAITING))
		return write_init(s, fd, iov, count);
	n = writev(fd, iov, count);
	/* An aborted connection, too, is no news for the library to print. */
	if (n < 0 && errno == ENODEV)
		errno = ENOENT;
	return n;
}

/* The loop reads by itself; the library wants this to be there. */
static ssize_t io_read(int fd, void *buf, size_t len, void *userdata)
{
	return read(fd, buf, len);
}

static void library_log(enum fuse_log_level level, const char *fmt, va_list ap)
{
	char line[512];
	size_t len;

	vsnprintf(line, sizeof(line), fmt, ap);
	len = strlen(line);
	if (len && line[len - 1] == '\n')
		line[len - 1] = '\0';
	if (level <= FUSE_LOG_ERR)
		log_err("%s", line);
	else if (level <= FUSE_LOG_NOTICE)
		log_warn("%s", line);
	else if (level == FUSE_LOG_INFO)
		log_info("%s", line);
	else
		log_debug("%s", line);
}

/* ---- mounting ---- */

static bool is_root(void)
{
	return geteuid() == 0;
}

/* The type of the mount, and for an image its loop device. */
static void choose_type(struct session *s, const struct options *o)
{
	const char *what;
	int err;

	s->blkdev = false;
	s->on_device = s->bd->bd_is_block && !o->offset;
	s->strict_atime = o->sl.atime == SL_ATIME_STRICT;
	if (!is_root())
		return;
	if (s->bd->bd_is_block) {
		s->blkdev = true;
		return;
	}
	err = loopdev_attach(&s->anchor, s->device, s->readonly, o->offset,
			     &what);
	if (err) {
		log_warn("%s: %s (%s): umount will not wait for the daemon",
			 s->device, what, strerror(-err));
		return;
	}
	s->blkdev = true;
}

/* The smallest block size that the kernel's mount may have on its source. */
static u32 source_sector(const struct session *s)
{
	int fd = s->anchor.fd;
	int sector = 0;

	if (fd < 0)
		fd = open(s->device, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || ioctl(fd, BLKSSZGET, &sector) < 0 || sector <= 0)
		sector = (int)s->sector;
	if (fd >= 0 && fd != s->anchor.fd)
		close(fd);
	return (u32)sector;
}

/*
 * The block size of the kernel's mount: in it FIGETBSZ answers, and FIBMAP and
 * swapon(2) count. The volume's, if the kernel takes it: a sector at least, a page at
 * most.
 */
static u32 mount_block_size(const struct session *s)
{
	return max_of(source_sector(s), min_of(s->sb->s_blocksize, 4096u));
}

/* 0, or -ENOMEM. yes, no: NULL if there is nothing to say. */
static int add_state(char **opts, enum tristate state, const char *yes,
		     const char *no)
{
	const char *opt = NULL;

	if (state == OPT_NO)
		opt = no;
	else if (state == OPT_YES || is_root())
		opt = yes;
	return opt && fuse_opt_add_opt(opts, opt) ? -ENOMEM : 0;
}

static int __attribute__((format(printf, 2, 3)))
add_text(char **opts, const char *fmt, ...)
{
	char *text;
	va_list ap;
	int err = -ENOMEM;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	va_end(ap);
	if (text && !fuse_opt_add_opt_escaped(opts, text))
		err = 0;
	free(text);
	return err;
}

static int mount_options(const struct session *s, const struct options *o,
			 char **opts)
{
	int err = add_text(opts, "fsname=%s", s->source);

	/* With fakeroot nobody checks anything. */
	if (!err && !o->fakeroot)
		err = add_text(opts, "default_permissions");
	if (!err)
		err = add_text(opts, "subtype=sluice");
	if (!err)
		err = add_text(opts, "%s", s->readonly ? "ro" : "rw");
	if (!err)
		err = add_state(opts, o->suid, "suid", "nosuid");
	if (!err)
		err = add_state(opts, o->dev, "dev", "nodev");
	if (!err && o->exec == OPT_NO)
		err = add_text(opts, "noexec");
	if (!err)
		err = add_state(opts, o->allow_other, "allow_other", NULL);
	if (!err && o->sl.atime == SL_ATIME_NOATIME)
		err = add_text(opts, "noatime");
	/* What the kernel keeps, it must send; else the daemon sees to it. */
	if (!err && o->writeback && o->sl.sync)
		err = add_text(opts, "sync");
	if (!err && s->blkdev)
		err = add_text(opts, "blkdev");
	if (!err && s->blkdev)
		err = add_text(opts, "blksize=%u", mount_block_size(s));
	if (!err)
		err = add_text(opts, "max_read=%u", max_read_of(s));
	if (!err && o->trace)
		err = add_text(opts, "debug");
	return err;
}

static int create_library_session(struct session *s, const struct options *o)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	char *opts = NULL;
	int err = mount_options(s, o, &opts);

	fuse_set_log_func(library_log);
	if (!err && (fuse_opt_add_arg(&args, "sluice") ||
		     fuse_opt_add_arg(&args, "-o") ||
		     fuse_opt_add_arg(&args, opts)))
		err = -ENOMEM;
	if (!err) {
		s->se = fuse_session_new(&args, &sluice_fuse_ops,
					 sizeof(sluice_fuse_ops), s);
		if (!s->se)
			err = -EINVAL; /* the library has said why */
	}
	fuse_opt_free_args(&args);
	free(opts);
	if (err == -ENOMEM)
		log_err("%s: out of memory", s->device);
	return err;
}

/* A power of two. */
static u32 max_write_for(u64 cache)
{
	u32 n = MAX_WRITE;

	while (n > MAX_WRITE_LEAST && n > cache / MAX_WRITE_SHARE)
		n /= 2;
	return n;
}

/* The options that the superblock has, under those of the command line. */
static int add_superblock_options(struct session *s, struct options *o)
{
	char text[SL_SUPERBLOCK_OPTIONS_MAX], why[512];
	int err = sl_superblock_options(s->bd, o->sl.sb_block, text,
					sizeof(text));

	if (err || !text[0])
		return err;
	if (options_add_superblock(o, text, why, sizeof(why))) {
		log_err("%s: mount options of the superblock: %s", s->device, why);
		return -EINVAL;
	}
	if (o->debug)
		log_set_level(LOG_LVL_DEBUG);
	return 0;
}

static int open_volume(struct session *s, struct options *o)
{
	struct sl_options sl;
	const char *why;
	u64 told;
	int err;

	err = bdev_open_aio(s->device, o->sl.readonly, o->offset, &s->bd, &why);
	if (err) {
		log_err("%s: %s", s->device, why);
		return err;
	}
	err = add_superblock_options(s, o);
	if (err) {
		bdev_close(s->bd);
		s->bd = NULL;
		return err;
	}
	sl = o->sl;
	err = journaldev_open(s->bd, o, &sl);
	if (err) {
		bdev_close(s->bd);
		s->bd = NULL;
		return err;
	}
	/* What the volume makes of it (bdev_go_buffered()) is another matter. */
	s->sector = s->bd->bd_sector;
	/* Ours is the image's first user, then the loop device may follow. */
	s->readonly = sl.readonly;
	/* With ACLs the kernel would check permissions in any case. */
	s->noacl = sl.noacl || o->fakeroot;
	s->noexport = o->noexport;
	s->idmap = o->idmap;
	choose_type(s, o);
	sl.mountpoint = s->mountpoint;
	sl.regions = s->regions;
	told = log_error_lines();
	err = sl_mount(s->bd, &sl, &s->sb);
	if (err) {
		s->bd = NULL; /* closed */
		/* The device is named once: by the reason, if there is one. */
		if (log_error_lines() > told)
			log_err("cannot mount: %s", strerror(-err));
		else
			log_err("%s: cannot mount: %s", s->device, strerror(-err));
		return err;
	}
	s->readonly = sl_is_readonly(s->sb);
	s->max_write = max_write_for(sl_cache_bytes(s->sb));
	s->opts = *o;
	if (s->opts.allow_other == OPT_UNSET && is_root())
		s->opts.allow_other = OPT_YES;
	return 0;
}

static int set_names(struct session *s, const char *device,
		     const char *mountpoint)
{
	s->device = strdup(device);
	s->mountpoint = strdup(mountpoint);
	if (!s->device || !s->mountpoint)
		return -ENOMEM;
	return 0;
}

static int set_source(struct session *s, const struct options *o)
{
	const char *source = s->device;

	/* The kernel opens what fuseblk is mounted from. */
	if (s->anchor.fd >= 0)
		source = s->anchor.path;
	else if (o->fsname && !s->blkdev)
		source = o->fsname;
	s->source = strdup(source);
	return s->source ? 0 : -ENOMEM;
}

static void session_free(struct session *s)
{
	loopdev_release(&s->anchor);
	if (s->claim >= 0)
		close(s->claim);
	if (s->event >= 0)
		close(s->event);
	if (s->mounts >= 0)
		close(s->mounts);
	counter_set_free(s->requests);
	region_pool_free(s->regions);
	mutex_destroy(&s->volume_lock);
	mutex_destroy(&s->remount_lock);
	handles_destroy(&s->handles);
	free(s->source);
	free(s->device);
	free(s->mountpoint);
	free(s);
}

int session_create(struct options *o, const char *device,
		   const char *mountpoint, struct session **out)
{
	struct session *s = aligned_alloc(_Alignof(struct session),
					  sizeof(*s));
	int err;

	if (!s) {
		log_err("out of memory");
		return EXIT_CODE_SYSTEM;
	}
	memset(s, 0, sizeof(*s));
	s->anchor.fd = -1;
	s->fd = -1;
	s->claim = -1;
	s->mounts = -1;
	s->writeback = o->writeback;
	s->read_ahead_given = o->read_ahead_given;
	s->read_ahead_kb = o->read_ahead_given ? o->read_ahead_kb : READ_AHEAD_KB;
	handles_init(&s->handles);
	mutex_init(&s->volume_lock, RANK_NONE);
	mutex_init(&s->remount_lock, RANK_NONE);
	s->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	err = s->event < 0 ? -errno : set_names(s, device, mountpoint);
	s->requests = counter_set_new(OPCODES);
	if (!err && !s->requests)
		err = -ENOMEM;
	if (err) {
		log_err("%s: %s", device, strerror(-err));
		err = EXIT_CODE_SYSTEM;
		goto out_free;
	}
	s->regions = region_pool_new(REGION_PAGE + REQUEST_MAX, 0);
	if (!s->regions)
		log_err("%s: out of memory", device);
	err = s->regions ? open_volume(s, o) : -ENOMEM;
	if (err) {
		err = exit_code_of(err);
		goto out_free;
	}
	err = set_source(s, o);
	if (!err)
		err = create_library_session(s, o);
	if (err) {
		err = exit_code_of(err);
		(void)!close_volume(s);
		goto out_free;
	}
	*out = s;
	return 0;
out_free:
	session_free(s);
	return err;
}

/* The loop's threads are there before INIT is awaited, so they exist here. */
static int start_loop(struct session *s)
{
	unsigned cpus = thread_nr_cpus();
	struct loop_config config = {
		.fd = s->fd,
		.receivers = cpus,
		.max_threads = max_of((unsigned)MAX_THREADS, 4 * cpus),
		.min_spares = max_of(2u, cpus),
		.request_max = REQUEST_MAX,
		.regions = s->regions,
		.payload_shift = WRITE_HEADERS,
		.spare_idle_ms = SPARE_IDLE_MS,
		/* A request and a reply for each receiver and one more. */
		.buffers_max = min_of(4 * (size_t)cpus * s->max_write,
				      (size_t)(sl_cache_bytes(s->sb) / 16)),
		.end_event = s->event,
		.process = process,
		.reject = reject,
		.priv = s,
	};

	return loop_start(&config, &s->loop);
}

static bool loop_has_ended(struct session *s)
{
	struct loop_stats st;

	loop_get_stats(s->loop, &st);
	return !st.threads;
}

static void drain_event(struct session *s)
{
	u64 n;

	/* Not readable: another one has come in between; all is polled. */
	if (read(s->event, &n, sizeof(n)) < 0 && errno != EAGAIN)
		log_err("eventfd: errno %d", errno);
}

/*
 * FUSE does not tell the daemon that "mount -o remount,ro" was there. Nothing is asked
 * of it any more that would change the volume, but reads would change times of access.
 */
static void notice_remount(struct session *s)
{
	int ro = s->have_dev ? mount_is_readonly(s->dev) : -ENOENT;

	if (!ro && s->readonly && !s->told_readonly)
		log_warn("%s: remounted read-write, but not through mount.sluice(8): nothing can be changed",
			 s->device);
	s->told_readonly = !ro && s->readonly;
	if (ro < 0 || s->readonly || s->quiet == (ro > 0))
		return;
	s->quiet = ro > 0;
	mutex_lock(&s->volume_lock);
	if (s->sb)
		sl_set_quiet(s->sb, s->quiet);
	mutex_unlock(&s->volume_lock);
	log_info("%s: remounted %s", s->device, s->quiet ? "read-only" : "read-write");
}

/* A signal number, or 0 after an event, at the deadline (0: none) or by chance. */
static int wait_for_event(struct session *s, u64 deadline_ns)
{
	struct pollfd fds[] = {
		{ .fd = s->event, .events = POLLIN },
		{ .fd = s->signals, .events = POLLIN },
		{ .fd = s->mounts, .events = POLLPRI },
	};
	struct signalfd_siginfo info;
	u64 now = clock_mono_ns();
	int timeout = -1;

	if (deadline_ns)
		timeout = deadline_ns <= now ? 0 :
			  (int)((deadline_ns - now) / 1000000 + 1);
	if (poll(fds, ARRAY_SIZE(fds), timeout) <= 0)
		return 0;
	if (fds[0].revents)
		drain_event(s);
	if (fds[2].revents)
		notice_remount(s);
	if (fds[1].revents && read(s->signals, &info, sizeof(info)) ==
				      (ssize_t)sizeof(info))
		return (int)info.ssi_signo;
	return 0;
}

/* Root only: the kernel's own limit of 128 KiB makes eight requests of one. */
static int set_read_ahead(struct session *s)
{
	char path[80], text[24];
	int fd, len, err = 0;

	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u%s/read_ahead_kb",
		 major(s->dev), minor(s->dev), s->blkdev ? "-fuseblk" : "");
	len = snprintf(text, sizeof(text), "%llu",
		       (unsigned long long)s->read_ahead_kb);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, text, (size_t)len) < 0)
		err = -errno;
	close(fd);
	return err;
}

/*
 * Not by stat(2) of the mount point: somebody may have unmounted us, or mounted
 * something on top, and a signal would then take away what is not ours.
 */
static void learn_dev(struct session *s)
{
	int err = -ENOENT;

	s->have_dev = mount_find(s->mountpoint, s->source, &s->dev);
	if (s->have_dev)
		dropper_set_dev(s->dropper, s->dev);
	if (s->have_dev)
		err = set_read_ahead(s);
	if (err && s->read_ahead_given)
		log_warn("%s: read_ahead_kb=%llu: %s: no more than the kernel's own read-ahead",
			 s->device, (unsigned long long)s->read_ahead_kb,
			 strerror(-err));
}

static bool ends_us(int sig)
{
	return sig == SIGTERM || sig == SIGINT || sig == SIGHUP;
}

/* INIT is answered, or will never be. */
static int wait_for_init(struct session *s)
{
	while (atomic_load(&s->init_state) == INIT_WAITING) {
		int sig = wait_for_event(s, 0);

		if (ends_us(sig)) {
			log_err("%s: interrupted", s->device);
			return EXIT_CODE_INTERRUPTED;
		}
		if (loop_has_ended(s))
			break;
	}
	if (atomic_load(&s->init_state) == INIT_DONE)
		return 0;
	log_err("%s: the kernel's FUSE and the daemon do not agree on a protocol",
		s->device);
	return EXIT_CODE_MOUNT;
}

/* The loop is stopped and the mount taken away after a failure. */
static void undo_mount(struct session *s)
{
	if (s->loop) {
		dropper_end(s->dropper);
		loop_stop(s->loop);
		loop_free(s->loop);
		s->loop = NULL;
	}
	fuse_session_unmount(s->se);
	s->fd = -1;
}

static int mount_in_kernel(struct session *s)
{
	struct fuse_custom_io io = { .writev = io_writev, .read = io_read };

	if (s->blkdev && s->anchor.fd < 0) {
		/* Nothing should be under way when the claim is given up. */
		if (!s->readonly && sl_sync(s->sb)) {
			log_err("%s: cannot write", s->device);
			return EXIT_CODE_MOUNT;
		}
		bdev_release_claim(s->bd);
	}
	s->unclaimed = s->blkdev;
	if (fuse_session_mount(s->se, s->mountpoint)) {
		log_err("%s: cannot mount on %s", s->device, s->mountpoint);
		return EXIT_CODE_MOUNT;
	}
	s->fd = fuse_session_fd(s->se);
	if (fuse_session_custom_io(s->se, &io, s->fd)) {
		undo_mount(s);
		return EXIT_CODE_SYSTEM;
	}
	return 0;
}

int session_mount(struct session *s, int signals)
{
	int err;

	s->signals = signals;
	/* Recovery may have taken long: is a signal there by now? */
	if (ends_us(wait_for_event(s, clock_mono_ns()))) {
		log_err("%s: interrupted", s->device);
		return EXIT_CODE_INTERRUPTED;
	}
	err = mount_in_kernel(s);
	if (err)
		return err;
	err = dropper_start(s->se, s->mountpoint, &s->dropper);
	if (!err)
		err = start_loop(s);
	if (err) {
		log_err("%s: cannot start threads: %s", s->device,
			strerror(-err));
		undo_mount(s);
		return EXIT_CODE_SYSTEM;
	}
	err = wait_for_init(s);
	if (err) {
		undo_mount(s);
		return err;
	}
	learn_dev(s);
	/* Without it a remount goes unnoticed, which is no reason to fail. */
	s->mounts = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
	return 0;
}

/* ---- serving ---- */

/*
 * By a signal: the mounts are taken away, which ends the loop once nobody uses
 * them. Whoever still does after the deadline, or in another mount namespace,
 * is cut off. Returns the deadline, 0 if there was no need for one.
 */
static u64 begin_end(struct session *s, int sig)
{
	unsigned busy = 0;

	log_info("%s: unmounting upon SIG%s", s->device, sigabbrev_np(sig));
	if (s->have_dev)
		busy = umount_all(s->dev);
	if (busy)
		log_warn("%s: still in use; it ends in %llu s", s->device,
			 DETACHED_WAIT_NS / 1000000000);
	return clock_mono_ns() + DETACHED_WAIT_NS;
}

void session_run(struct session *s)
{
	u64 deadline = 0;

	while (!loop_has_ended(s)) {
		int sig = wait_for_event(s, deadline);

		if (sig == SIGUSR1)
			log_stats(s);
		else if (sig && !deadline)
			deadline = begin_end(s, sig);
		else if (sig || (deadline && clock_mono_ns() >= deadline)) {
			/* While requests are still carried out: see there. */
			dropper_end(s->dropper);
			s->cut = !loop_has_ended(s);
			loop_stop(s->loop);
		}
	}
	loop_free(s->loop);
	s->loop = NULL;
	if (s->cut)
		log_warn("%s: clients were cut off", s->device);
}

/*
 * The mount is gone, or was detached. The library would now detach whatever
 * else is at the mount point, unless its descriptor shows that the connection
 * has ended; when it is us who end it, a pipe without a reader shows that.
 */
static void end_connection(struct session *s)
{
	int fds[2];

	if (s->fd < 0)
		return;
	if (s->cut) {
		if (pipe2(fds, O_CLOEXEC) < 0)
			return; /* fuse_session_destroy() closes it */
		close(fds[0]);
		dup3(fds[1], s->fd, O_CLOEXEC);
		close(fds[1]);
	}
	fuse_session_unmount(s->se);
	s->fd = -1;
}

int session_close(struct session *s)
{
	int err;

	if (!device_is_ours(s)) {
		log_err("%s: the device was claimed by somebody else before the volume was unmounted; it is left as it is and needs recovery",
			s->device);
		/* Our threads live until the process ends. */
		(void)!sl_shutdown(s->sb, SL_SHUTDOWN_NOLOGFLUSH);
		return -EBUSY;
	}
	err = close_volume(s);
	end_connection(s);
	dropper_stop(s->dropper);
	fuse_session_destroy(s->se);
	session_free(s);
	return err;
}
