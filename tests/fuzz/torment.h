/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/fuzz/torment.h - mounts an image in a child process and does all that
 * a user could do, whatever the image is
 *
 * The child walks the tree (list, attributes, link targets, data, holes), then
 * changes it (create, write, truncate, preallocate, link, rename, remove, in
 * every directory it saw and to the files it saw), syncs, drops the caches,
 * looks again and unmounts. Everything is bounded, so that a call that does
 * not end is the only thing that can exceed the time limit.
 *
 * A damaged volume may answer with corruption, and with what follows from it
 * (read-only, a full volume, a name that is listed but not found); what no
 * user may ever see is in unexpected_code(). A crash, a hang, an assertion,
 * a sanitizer's report or memory without bound end the child and are the
 * caller's failure.
 *
 * Threads: the parent must have none (it forks).
 */
#ifndef SLUICE_TESTS_TORMENT_H
#define SLUICE_TESTS_TORMENT_H

#include "fs/fs.h"
#include "lib/log.h"
#include "lib/thread.h"
#include "tests/fuzz/image.h"

#include <errno.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <sys/wait.h>

/* What file data looks like: to be found where it must not be. */
#define TORMENT_DATA "hostile data "

#if defined(__SANITIZE_THREAD__)
#define TORMENT_TSAN 1
#elif defined(__SANITIZE_ADDRESS__)
#define TORMENT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TORMENT_TSAN 1
#elif __has_feature(address_sanitizer)
#define TORMENT_ASAN 1
#endif
#endif
#ifndef TORMENT_TSAN
#define TORMENT_TSAN 0
#endif
#ifndef TORMENT_ASAN
#define TORMENT_ASAN 0
#endif
#define TORMENT_SANITIZED (TORMENT_ASAN || TORMENT_TSAN)
#define TORMENT_RSS_MAX_KB ((TORMENT_SANITIZED ? 1500 : 300) * 1024L)

/*
 * With TSan: a process with threads sleeps a second at its end, for late
 * reports. A child's threads have ended when it unmounted, and there are
 * hundreds of children. What TSAN_OPTIONS says counts more.
 */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
	return "atexit_sleep_ms=0";
}

/* With ASan: reports leaks now, and says whether there are any. */
extern int __lsan_do_recoverable_leak_check(void) __attribute__((weak));

struct torment_report { /* shared with the child */
	int mount_err, sync_err, unmount_err;
	u32 dirs, files;
	u32 corrupt;     /* calls that ended with -EFSCORRUPTED or -EFSBADCRC */
	u32 eio, erofs, nospc;
	bool readonly;   /* at the end */
	u32 unexpected;
	char first_unexpected[160];
	char doing[64];  /* the last call that was begun */
};

struct torment {
	bool readonly, noload;
	enum sl_errors errors;
	u64 device_bytes; /* 0: all of the image */
	unsigned seed;
	unsigned seconds; /* limit of one child; 0: 120: hangs, not just starved by others */
	bool only_mount;
	bool crash;       /* ends without unmounting */
	bool two;         /* two threads do it at once */
	unsigned bad_read, bad_write; /* see mem_bdev */
	/* In place of the walk and the changes. */
	void (*fn)(struct super_block *sb, struct torment_report *r);
};

#define TORMENT_MAX_DIRS 48u
#define TORMENT_MAX_NAMES 96u
#define TORMENT_MAX_LISTED 200000u
#define TORMENT_BUF 65536u

struct torment_names {
	u32 nr, listed;
	char name[TORMENT_MAX_NAMES][256];
};

struct torment_run {
	const struct torment *t;
	struct torment_report *r;
	struct super_block *sb;
	unsigned seed;
	u64 dirs[TORMENT_MAX_DIRS];
	u32 nr_dirs;
	u8 *buf;        /* what is read */
	u8 *data;       /* what is written: TORMENT_DATA again and again */
	struct torment_names *names;
};

static const struct sl_cred torment_cred = { 0, 0, 022 };

/* ---- what came back ---- */

static inline bool unexpected_code(int err)
{
	switch (-err) {
	case 0:
	case EFSCORRUPTED:
	case EFSBADCRC:
	case EIO:
	case EROFS:
	case ENOSPC:
	case ENOENT:
	case EEXIST:
	case ENOTDIR:
	case EISDIR:
	case ENOTEMPTY:
	case EMLINK:
	case ESTALE:
	case EPERM:
	case EFBIG:
	case ENXIO:
	case ENAMETOOLONG:
	case EINVAL:
	case EOPNOTSUPP:
	case ENODATA:
	case E2BIG:
		return false;
	default:
		return true;
	}
}

static inline void torment_note(struct torment_report *r, s64 res)
{
	int err = res < 0 ? (int)res : 0;

	r->corrupt += err == -EFSCORRUPTED || err == -EFSBADCRC;
	r->eio += err == -EIO;
	r->erofs += err == -EROFS;
	r->nospc += err == -ENOSPC;
	if (unexpected_code(err) && !r->unexpected++)
		snprintf(r->first_unexpected, sizeof(r->first_unexpected), "%s: %s",
			 r->doing, strerror(-err));
}

static inline void torment_complain(struct torment_report *r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (!r->unexpected++)
		vsnprintf(r->first_unexpected, sizeof(r->first_unexpected), fmt, ap);
	va_end(ap);
}

/* Names the call, makes it, notes its result. */
#define TRY(run, call)                                                         \
	({                                                                     \
		snprintf((run)->r->doing, sizeof((run)->r->doing), "%.60s", #call); \
		s64 res_ = (call);                                             \
		torment_note((run)->r, res_);                                  \
		res_;                                                          \
	})

static inline unsigned torment_rnd(struct torment_run *t)
{
	return (unsigned)rand_r(&t->seed);
}

/* ---- looking ---- */

static inline int torment_emit(void *priv, const struct sl_dirent *de)
{
	struct torment_names *n = priv;

	if (++n->listed > TORMENT_MAX_LISTED)
		return 1;
	if (n->nr < TORMENT_MAX_NAMES && de->namelen < 256) {
		memcpy(n->name[n->nr], de->name, de->namelen);
		n->name[n->nr++][de->namelen] = 0;
	}
	return 0;
}

static inline void torment_list(struct torment_run *t, struct inode *dir,
				struct torment_names *n)
{
	struct sl_file *f;

	n->nr = n->listed = 0;
	if (TRY(t, sl_opendir(dir, &f)))
		return;
	TRY(t, sl_readdir(f, 0, torment_emit, n));
	if (n->listed > TORMENT_MAX_LISTED)
		torment_complain(t->r, "directory %llu lists without end",
				 (unsigned long long)sl_ino(dir));
	sl_release(f);
}

/* Steps over data and holes: must go forward. With two, the other may have cut the
 * file meanwhile and made it longer: what was data is a hole, the size is old. */
static inline void torment_seek(struct torment_run *t, struct sl_file *f, u64 size)
{
	u64 pos = 0;

	for (int i = 0; i < 64 && pos < size; i++) {
		s64 data = TRY(t, sl_lseek(f, pos, SEEK_DATA));
		s64 hole;

		if (data < 0)
			return;
		if ((u64)data < pos || ((u64)data >= size && !t->t->two))
			torment_complain(t->r, "SEEK_DATA %llu of %llu gives %lld",
					 (unsigned long long)pos, (unsigned long long)size,
					 (long long)data);
		hole = TRY(t, sl_lseek(f, (u64)data, SEEK_HOLE));
		if (hole < 0)
			return;
		if (hole < data ||
		    ((hole == data || (u64)hole > size) && !t->t->two)) {
			torment_complain(t->r, "SEEK_HOLE %lld of %llu gives %lld",
					 (long long)data, (unsigned long long)size,
					 (long long)hole);
			return;
		}
		pos = (u64)hole;
	}
}

static inline void torment_read(struct torment_run *t, struct inode *inode, u64 size)
{
	struct sl_file *f;

	if (TRY(t, sl_open(inode, 0, &f)))
		return;
	for (u64 pos = 0; pos < size && pos < 4u << 20; pos += TORMENT_BUF) {
		s64 n = TRY(t, sl_read(f, t->buf, TORMENT_BUF, pos));

		if (n > (s64)TORMENT_BUF || (n >= 0 && pos + (u64)n > size && !t->t->two))
			torment_complain(t->r, "read of %lld bytes", (long long)n);
	}
	if (size > TORMENT_BUF)
		TRY(t, sl_read(f, t->buf, TORMENT_BUF, size - TORMENT_BUF / 2));
	torment_seek(t, f, size);
	sl_release(f);
}

/* Each name that is listed has a value. */
static inline void torment_xattrs(struct torment_run *t, struct inode *inode)
{
	static _Thread_local char list[65536], value[65536];
	s64 n = TRY(t, sl_listxattr(inode, true, list, sizeof(list)));

	for (char *p = list; p < list + n; p += strlen(p) + 1)
		if (TRY(t, sl_getxattr(inode, p, value, sizeof(value))) == -ENODATA &&
		    !t->t->two)
			torment_complain(t->r, "attribute %.60s is listed and not there", p);
}

static inline void torment_change_xattrs(struct torment_run *t, struct inode *inode)
{
	static const char *const names[] = { "user.small", "user.big", "trusted.new" };
	const char *name = names[torment_rnd(t) % 3];
	char value[700];

	/* Not the files' data, which is looked for where metadata is. */
	memset(value, 'v', sizeof(value));
	if (torment_rnd(t) % 3)
		TRY(t, sl_setxattr(inode, name, value, torment_rnd(t) % sizeof(value), 0,
				   &torment_cred));
	else
		TRY(t, sl_removexattr(inode, name));
	torment_xattrs(t, inode);
}

static inline void torment_look_at(struct torment_run *t, struct inode *inode)
{
	struct stat st;

	sl_getattr(inode, &st);
	t->r->files++;
	torment_xattrs(t, inode);
	if (S_ISLNK(st.st_mode)) {
		s64 n = TRY(t, sl_readlink(inode, (char *)t->buf, 4096));

		if (n >= 0 && strnlen((char *)t->buf, 4096) != (size_t)n)
			torment_complain(t->r, "link target of %lld bytes", (long long)n);
	}
	if (S_ISREG(st.st_mode))
		torment_read(t, inode, (u64)st.st_size);
	if (S_ISDIR(st.st_mode) && t->nr_dirs < TORMENT_MAX_DIRS) {
		for (u32 i = 0; i < t->nr_dirs; i++)
			if (t->dirs[i] == sl_ino(inode))
				return;
		t->dirs[t->nr_dirs++] = sl_ino(inode);
	}
}

/* Everything reachable, breadth first, a directory once. */
static inline void torment_walk(struct torment_run *t)
{
	struct inode *dir, *inode;

	t->nr_dirs = 1;
	t->dirs[0] = 2;
	for (u32 d = 0; d < t->nr_dirs; d++) {
		if (TRY(t, sl_iget(t->sb, t->dirs[d], &dir)))
			continue;
		t->r->dirs++;
		torment_list(t, dir, t->names);
		for (u32 i = 0; i < t->names->nr; i++) {
			const char *name = t->names->name[i];

			if (TRY(t, sl_lookup(dir, name, strlen(name), &inode)))
				continue;
			torment_look_at(t, inode);
			sl_iput(inode);
		}
		sl_iput(dir);
	}
}

/* ---- changing ---- */

/* Data, size and preallocation of one file. */
static inline void torment_change_file(struct torment_run *t, struct inode *inode)
{
	struct sl_file *f;
	struct stat st;
	u64 size;

	torment_change_xattrs(t, inode);
	sl_getattr(inode, &st);
	if (!S_ISREG(st.st_mode)) {
		st.st_mode = 0700;
		st.st_mtime = 5;
		TRY(t, sl_setattr(inode, &st, SL_SET_MODE | SL_SET_MTIME, &torment_cred, NULL));
		return;
	}
	size = (u64)st.st_size;
	if (TRY(t, sl_open(inode, SL_OPEN_WRITE, &f)))
		return;
	TRY(t, sl_write(f, t->data, 5000, 0, 0, &torment_cred));
	TRY(t, sl_write(f, t->data, 3000, size / 2 + torment_rnd(t) % 5000, 0, &torment_cred));
	TRY(t, sl_write(f, t->data, 1 + torment_rnd(t) % 9000, size, 0, &torment_cred));
	if (torment_rnd(t) % 2)
		TRY(t, sl_fsync(f, torment_rnd(t) % 2));
	TRY(t, sl_fallocate(f, FALLOC_FL_KEEP_SIZE, size, 20000, &torment_cred));
	st.st_size = (off_t)(size / 3);
	TRY(t, sl_setattr(inode, &st, SL_SET_SIZE, &torment_cred, NULL));
	TRY(t, sl_write(f, t->data, 2000, size + 10000, 0, &torment_cred));
	if (torment_rnd(t) % 2)
		TRY(t, sl_fsync(f, false));
	if (torment_rnd(t) % 3 == 0) {
		st.st_size = 0;
		TRY(t, sl_setattr(inode, &st, SL_SET_SIZE, &torment_cred, NULL));
	}
	TRY(t, sl_flush(f));
	sl_release(f);
}

static inline void torment_create(struct torment_run *t, struct inode *dir)
{
	struct inode *inode, *sub;
	char name[64], target[300];

	for (int i = 0; i < 6; i++) {
		int len = snprintf(name, sizeof(name), "new-%d-%llu", i,
				   (unsigned long long)sl_ino(dir));

		if (TRY(t, sl_mknod(dir, name, (size_t)len, S_IFREG | 0600, 0, &torment_cred,
				    &inode)))
			continue;
		torment_change_file(t, inode);
		if (i == 1)
			TRY(t, sl_link(inode, dir, "new-link", 8));
		sl_iput(inode);
	}
	if (!TRY(t, sl_mkdir(dir, "new-dir", 7, 0755, &torment_cred, &inode))) {
		if (!TRY(t, sl_mkdir(inode, "sub", 3, 0755, &torment_cred, &sub)))
			sl_iput(sub);
		sl_iput(inode);
	}
	memset(target, 'y', sizeof(target));
	target[50 + torment_rnd(t) % 240] = 0;
	if (!TRY(t, sl_symlink(dir, "new-sym", 7, target, &torment_cred, &inode)))
		sl_iput(inode);
	if (!TRY(t, sl_mknod(dir, "new-fifo", 8, S_IFIFO | 0600, 0, &torment_cred, &inode)))
		sl_iput(inode);
}

/* What was there before: changed, renamed, removed. */
static inline void torment_old_names(struct torment_run *t, struct inode *dir,
				     struct inode *root)
{
	struct inode *inode;
	char to[64];

	for (u32 i = 0; i < t->names->nr; i++) {
		const char *name = t->names->name[i];
		size_t len = strlen(name);
		int tolen;

		if (!strcmp(name, ".") || !strcmp(name, ".."))
			continue;
		switch (torment_rnd(t) % 5) {
		case 0:
			if (TRY(t, sl_lookup(dir, name, len, &inode)))
				break;
			torment_change_file(t, inode);
			sl_iput(inode);
			break;
		case 1:
			tolen = snprintf(to, sizeof(to), "moved-%u-%llu", i,
					 (unsigned long long)sl_ino(dir));
			TRY(t, sl_rename(dir, name, len, torment_rnd(t) % 2 ? root : dir, to,
					 (size_t)tolen, 0));
			break;
		case 2:
			if (TRY(t, sl_unlink(dir, name, len)) == -EISDIR)
				TRY(t, sl_rmdir(dir, name, len));
			break;
		case 3:
			tolen = snprintf(to, sizeof(to), "moved-%u-%llu", i - 1,
					 (unsigned long long)sl_ino(dir));
			TRY(t, sl_rename(dir, name, len, dir, to, (size_t)tolen,
					 torment_rnd(t) % 2 ? RENAME_EXCHANGE : 0));
			break;
		default:
			break;
		}
	}
}

static inline void torment_change(struct torment_run *t)
{
	struct inode *root, *dir;

	if (TRY(t, sl_iget(t->sb, 2, &root)))
		return;
	for (u32 d = t->nr_dirs; d-- > 0;) {
		if (TRY(t, sl_iget(t->sb, t->dirs[d], &dir)))
			continue;
		torment_list(t, dir, t->names);
		torment_create(t, dir);
		torment_old_names(t, dir, root);
		if (torment_rnd(t) % 8 == 0)
			TRY(t, sl_sync(t->sb));
		sl_iput(dir);
	}
	sl_iput(root);
}

/* rm -rf, as far as it goes: only names of the first two passes. */
static inline void torment_remove_all(struct torment_run *t)
{
	struct inode *dir;

	for (u32 d = t->nr_dirs; d-- > 0;) {
		if (TRY(t, sl_iget(t->sb, t->dirs[d], &dir)))
			continue;
		for (int pass = 0; pass < 2; pass++) {
			torment_list(t, dir, t->names);
			for (u32 i = 0; i < t->names->nr; i++) {
				const char *name = t->names->name[i];

				if (!strcmp(name, ".") || !strcmp(name, ".."))
					continue;
				if (TRY(t, sl_unlink(dir, name, strlen(name))) == -EISDIR)
					TRY(t, sl_rmdir(dir, name, strlen(name)));
			}
		}
		sl_iput(dir);
	}
}

/* Every number, as stale handles of NFS would ask for. */
static inline void torment_numbers(struct torment_run *t)
{
	static const u64 odd[] = { 0, 1, 7, 8, 0xFFFFFFFF, 0x100000002, 1u << 30 };
	struct inode *inode;

	for (u64 ino = 1; ino < 300; ino++)
		if (!TRY(t, sl_iget(t->sb, ino, &inode))) {
			torment_look_at(t, inode);
			sl_iput(inode);
		}
	for (size_t i = 0; i < ARRAY_SIZE(odd); i++)
		if (!TRY(t, sl_iget(t->sb, odd[i], &inode)))
			sl_iput(inode);
}

static inline void torment_all(struct torment_run *t)
{
	struct statvfs st;
	char text[2048];

	TRY(t, sl_statfs(t->sb, &st));
	torment_walk(t);
	torment_numbers(t);
	torment_walk(t);
	torment_change(t);
	t->r->sync_err = (int)TRY(t, sl_sync(t->sb));
	sl_drop_caches(t->sb);
	torment_walk(t);
	if (torment_rnd(t) % 2)
		torment_remove_all(t);
	TRY(t, sl_statfs(t->sb, &st));
	sl_stats(t->sb, text, sizeof(text));
}

/* ---- the child ---- */

static inline void torment_run_init(struct torment_run *run, const struct torment *t,
				    struct torment_report *r, unsigned seed)
{
	*run = (struct torment_run){ .t = t, .r = r, .seed = seed };
	run->names = malloc(sizeof(*run->names));
	run->buf = aligned_alloc(4096, TORMENT_BUF);
	run->data = aligned_alloc(4096, TORMENT_BUF);
	if (!run->names || !run->buf || !run->data)
		image_die("no memory");
	for (u32 i = 0; i < TORMENT_BUF; i++)
		run->data[i] = (u8)TORMENT_DATA[i % (sizeof(TORMENT_DATA) - 1)];
}

static inline void torment_run_release(struct torment_run *run)
{
	free(run->names);
	free(run->buf);
	free(run->data);
}

static inline void torment_second(void *arg)
{
	torment_all(arg);
}

/* The same from another thread meanwhile; what it saw is added to r. */
static inline void torment_two(struct torment_run *run)
{
	struct torment_report other = { 0 };
	struct torment_run second;
	struct thread *thread;

	torment_run_init(&second, run->t, &other, run->seed + 1);
	second.sb = run->sb;
	if (thread_create(&thread, "second", torment_second, &second))
		image_die("no thread");
	torment_all(run);
	thread_join(thread);
	run->r->corrupt += other.corrupt;
	run->r->eio += other.eio;
	if (other.unexpected)
		torment_complain(run->r, "%s", other.first_unexpected);
	torment_run_release(&second);
}

static inline void torment_child(const struct torment *t, const struct image *im,
				 struct torment_report *r)
{
	struct sl_options opts = {
		.readonly = t->readonly,
		.noload = t->noload,
		.errors = t->errors,
		.cache_bytes = 16 << 20,
		.commit_ms = 50,
		.dirty_expire_ms = 50,
	};
	struct torment_run run;
	struct mem_bdev *md;
	struct bdev *bd;

	log_init("hostile", LOG_LVL_INFO);
	thread_register();
	bd = mem_bdev_create(im, t->device_bytes ? t->device_bytes : im->size);
	bd->bd_readonly = t->readonly;
	md = container_of_type(bd, struct mem_bdev, bd);
	md->seed = t->seed;
	md->bad_read = t->bad_read;
	md->bad_write = t->bad_write;
	torment_run_init(&run, t, r, t->seed);
	strcpy(r->doing, "mount");
	r->mount_err = sl_mount(bd, &opts, &run.sb);
	torment_note(r, r->mount_err);
	if (r->mount_err)
		goto out;
	if (t->fn)
		t->fn(run.sb, r);
	else if (t->two)
		torment_two(&run);
	else if (!t->only_mount)
		torment_all(&run);
	r->readonly = sl_is_readonly(run.sb);
	if (t->crash)
		_exit(0);
	strcpy(r->doing, "unmount");
	r->unmount_err = sl_unmount(run.sb);
	torment_note(r, r->unmount_err);
out:
	torment_run_release(&run);
	thread_unregister();
}

static inline void torment_print_log(const char *path)
{
	char cmd[256];

	snprintf(cmd, sizeof(cmd), "tail -n 60 %s >&2", path);
	if (system(cmd))
		fprintf(stderr, "no log\n");
}

/*
 * Runs t on im, which is changed. 0: the child ended as it should and every
 * result was one that a user may see. -1: printed to stderr, with the log,
 * which goes to the file `log`.
 */
static inline int torment(const struct torment *t, struct image *im, const char *log,
			  struct torment_report *out)
{
	struct torment_report *r = mmap(NULL, sizeof(*r), PROT_READ | PROT_WRITE,
					MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct rusage ru;
	int status, res = -1;
	pid_t pid;

	memset(r, 0, sizeof(*r));
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		image_die("fork");
	if (pid == 0) {
		struct rlimit no_core = { 0, 0 }, as = { 3ul << 30, 3ul << 30 };
		int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0644);

		setrlimit(RLIMIT_CORE, &no_core);
		if (!TORMENT_SANITIZED)
			setrlimit(RLIMIT_AS, &as);
		signal(SIGALRM, SIG_DFL);
		signal(SIGABRT, SIG_DFL);
		signal(SIGSEGV, SIG_DFL);
		dup2(fd, 1);
		dup2(fd, 2);
		alarm(t->seconds ? t->seconds : 120);
		torment_child(t, im, r);
		if (__lsan_do_recoverable_leak_check && __lsan_do_recoverable_leak_check())
			_exit(23);
		_exit(0);
	}
	if (wait4(pid, &status, 0, &ru) != pid)
		image_die("wait");
	*out = *r;
	munmap(r, sizeof(*r));
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
		fprintf(stderr, "HANG in %s\n", out->doing);
	else if (status)
		fprintf(stderr, "ended with status 0x%x in %s\n", (unsigned)status, out->doing);
	else if (out->unexpected)
		fprintf(stderr, "unexpected: %s\n", out->first_unexpected);
	else if (ru.ru_maxrss > TORMENT_RSS_MAX_KB)
		fprintf(stderr, "used %ld KiB of memory\n", ru.ru_maxrss);
	else
		res = 0;
	if (res)
		torment_print_log(log);
	return res;
}

#endif
