/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/dropper.c - drops caches, ours and the kernel's, by a thread of its own
 *
 * Data: the kernel is told to drop the pages of each inode that it has looked up
 * (FUSE_NOTIFY_INVAL_INODE); what is dirty there is written first.
 *
 * One inode's data, for a request that changes it behind the kernel's back: the same.
 *
 * Names and inodes: FUSE_NOTIFY_INVAL_ENTRY will not do. It wants every name, which
 * nobody here knows, and it takes names away that are in use, too: a process would
 * lose its working directory, and mounts below would go. What is wanted is that
 * the kernel forgets what is *not* in use, and it does so when a mount is
 * reconfigured, even to what it is already. The inodes come back as FORGETs.
 * That takes privilege (CAP_SYS_ADMIN); without, names stay until the kernel is short
 * of memory, and our inodes go nevertheless.
 *
 * What the kernel is told may need requests carried out before it is done (writes
 * of dirty data). So some threads of the request loop must not be here, and
 * the loop must read requests until our thread has ended.
 *
 * Locks:   lock (unranked): what is wanted. Nothing is held while it is done
 * Alive:   sb, while a request waits for us: unmounting waits for requests
 * Never:   a request handler in here but to wait
 * Threads: requests, and one of ours
 */
#include "src/dropper.h"

#include <fcntl.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/fs.h"
#include "lib/lock.h"
#include "lib/log.h"
#include "lib/thread.h"
#include "lib/wait.h"
#include "src/fuse_ops.h"

#define BATCH 256u
/* Requests that wait for us, or will; far fewer than the loop has threads. */
#define WAITERS_MAX 32u

/* One inode's pages, wanted by a request, on whose stack this is until it is done. */
struct inval {
	u64 node, off;
	int err; /* [our thread] */
	struct inval *next; /* [lock] */
};

struct dropper {
	struct fuse_session *se; /* [const] */
	const char *mountpoint;  /* [const] */
	struct thread *thread;   /* [const] */
	_Atomic u64 dev;         /* [atomic] 0: not known */
	_Atomic bool stop;       /* [atomic] */
	_Atomic bool ended;      /* [atomic] the thread has; with done's wait key */
	struct mutex lock;
	struct super_block *sb;  /* [lock] of who asked last */
	u32 wanted;              /* [lock] DROP_* */
	struct inval *invals;    /* [lock] */
	_Atomic u32 waiters;     /* [write lock] that have entered; dropper_hold()'s wait key */
	bool held;               /* [lock] dropper_hold() */
	_Atomic u64 asked;       /* [write lock] number of requests; the thread's wait key */
	_Atomic u64 done;        /* [our thread] of those that are done; their wait key */
};

static void invalidate_data(struct dropper *d, struct super_block *sb)
{
	u32 inodes[BATCH];
	u64 ino = 0;
	u32 n;

	while ((n = sl_looked_up(sb, &ino, inodes, BATCH)) > 0) {
		for (u32 i = 0; i < n; i++) {
			int err;

			if (atomic_load(&d->stop))
				return;
			err = fuse_lowlevel_notify_inval_inode(
				d->se, ino_to_node(inodes[i]), 0, 0);
			/* -ENOENT: the kernel has just forgotten it. */
			if (err == -ENODEV || err == -ENOTCONN || err == -ENOSYS)
				return;
		}
	}
}

/* Somebody else's mount may be on top of ours. */
static bool is_ours(struct dropper *d, int fd)
{
	u64 dev = atomic_load(&d->dev);
	struct stat st;

	return dev && !fstat(fd, &st) && st.st_dev == (dev_t)dev;
}

static void forget_unused_names(struct dropper *d)
{
	int dir = open(d->mountpoint, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int ctx = -1;

	if (dir < 0)
		return;
	if (is_ours(d, dir))
		ctx = fspick(dir, "", FSPICK_EMPTY_PATH | FSPICK_CLOEXEC);
	close(dir);
	if (ctx < 0)
		return;
	if (fsconfig(ctx, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0))
		log_debug("the kernel keeps its names: %s", strerror(errno));
	close(ctx);
}

static void drop(struct dropper *d, struct super_block *sb, u32 what)
{
	/* The kernel's first: what it has is in use for us. */
	if (what & DROP_METADATA)
		forget_unused_names(d);
	if (what & DROP_DATA) {
		invalidate_data(d, sb);
		sl_drop_caches_of(sb, SL_DROP_DATA);
	}
	if (what & DROP_METADATA)
		sl_drop_caches_of(sb, SL_DROP_META);
	(void)malloc_trim(0);
}

static int inval_one(struct dropper *d, u64 node, u64 off)
{
	int err = fuse_lowlevel_notify_inval_inode(d->se, node, (off_t)off, 0);

	/* -ENOENT: the kernel does not know the inode, so it has nothing of it. */
	return err == -ENOENT ? 0 : err;
}

static void dropper_thread(void *arg)
{
	struct dropper *d = arg;

	for (;;) {
		struct super_block *sb;
		struct inval *i;
		u64 asked;
		u32 what;

		wait_event(&d->asked, atomic_load(&d->stop) ||
			   atomic_load(&d->asked) != atomic_load(&d->done));
		if (atomic_load(&d->stop))
			return;
		mutex_lock(&d->lock);
		sb = d->sb;
		what = d->wanted;
		d->wanted = 0;
		i = d->invals;
		d->invals = NULL;
		asked = atomic_load(&d->asked);
		mutex_unlock(&d->lock);
		for (; i && !atomic_load(&d->stop); i = i->next)
			i->err = inval_one(d, i->node, i->off);
		if (what)
			drop(d, sb, what);
		if (atomic_load(&d->stop))
			return; /* it may be half done */
		atomic_store(&d->done, asked);
		wake_up(&d->done);
	}
}

int dropper_start(struct fuse_session *se, const char *mountpoint,
		  struct dropper **out)
{
	struct dropper *d = calloc(1, sizeof(*d));
	int err;

	if (!d)
		return -ENOMEM;
	d->se = se;
	d->mountpoint = mountpoint;
	mutex_init(&d->lock, RANK_NONE);
	err = thread_create(&d->thread, "sl-dropper", dropper_thread, d);
	if (err) {
		mutex_destroy(&d->lock);
		free(d);
		return err;
	}
	*out = d;
	return 0;
}

void dropper_set_dev(struct dropper *d, dev_t dev)
{
	atomic_store(&d->dev, (u64)dev);
}

dev_t dropper_dev(const struct dropper *d)
{
	return (dev_t)atomic_load(&d->dev);
}

/* sb, what; or i: wanted, and waited for. */
static int ask(struct dropper *d, struct super_block *sb, u32 what, struct inval *i)
{
	u64 ticket;

	mutex_lock(&d->lock);
	if (i) {
		i->next = d->invals;
		d->invals = i;
	} else {
		d->sb = sb;
		d->wanted |= what;
	}
	ticket = atomic_fetch_add(&d->asked, 1) + 1;
	mutex_unlock(&d->lock);
	wake_up(&d->asked);
	wait_event(&d->done, atomic_load(&d->done) >= ticket ||
		   atomic_load(&d->ended));
	return atomic_load(&d->done) >= ticket ? 0 : -ENODEV;
}

int dropper_enter(struct dropper *d)
{
	bool room;

	mutex_lock(&d->lock);
	room = !d->held && atomic_load(&d->waiters) < WAITERS_MAX;
	if (room)
		atomic_fetch_add(&d->waiters, 1);
	mutex_unlock(&d->lock);
	return room ? 0 : -EBUSY;
}

void dropper_leave(struct dropper *d)
{
	mutex_lock(&d->lock);
	atomic_fetch_sub(&d->waiters, 1);
	mutex_unlock(&d->lock);
	wake_up(&d->waiters);
}

int dropper_run(struct dropper *d, struct super_block *sb, u32 what)
{
	int err;

	if (!what || what & ~(DROP_DATA | DROP_METADATA))
		return -EINVAL;
	err = dropper_enter(d);
	if (err)
		return err;
	err = ask(d, sb, what, NULL);
	dropper_leave(d);
	return err;
}

int dropper_inval(struct dropper *d, u64 node, u64 off)
{
	struct inval i = { .node = node, .off = off };
	int err = ask(d, NULL, 0, &i);

	return err ? err : i.err;
}

void dropper_hold(struct dropper *d)
{
	mutex_lock(&d->lock);
	d->held = true;
	mutex_unlock(&d->lock);
	/* Nobody else enters. Who has may ask once more: not what is asked counts. */
	wait_event(&d->waiters, !atomic_load(&d->waiters));
}

void dropper_release(struct dropper *d)
{
	mutex_lock(&d->lock);
	d->held = false;
	mutex_unlock(&d->lock);
}

void dropper_end(struct dropper *d)
{
	if (atomic_load(&d->ended))
		return;
	atomic_store(&d->stop, true);
	wake_up(&d->asked);
	thread_join(d->thread);
	atomic_store(&d->ended, true);
	wake_up(&d->done);
}

void dropper_stop(struct dropper *d)
{
	if (!d)
		return;
	dropper_end(d);
	mutex_destroy(&d->lock);
	free(d);
}
