/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/sim/run.c - one stream: operations, power cuts, judgement
 *
 * The stream runs on a recording device, each result checked against the
 * model as it comes. Then, for a sample of points in the device's log and ways to
 * cut the power there, the image is judged:
 *
 *   a. e2fsck -y -E journal_only on a copy, then e2fsck -fn is clean
 *   b. mount by Sluice (which recovers), compare with the model, use it,
 *      unmount, e2fsck -fn is clean
 *   c. now and then: the copy of (a) mounted by Sluice holds what the model
 *      allows too; a power cut during the recovery of (b), judged alike
 *
 * A volume with an external journal is two devices and two files; an image is both, the
 * journal's behind the volume's.
 *
 * A run that lacked memory or space once goes on, the model following what
 * each operation returned: nothing else may have changed. One that met a fault
 * of the device is judged by what its volume holds, with or without a power cut.
 *
 * Each thread of the stream has a directory and a model of its own.
 *
 * Locks:   none; threads share the device and the volume only.
 * Threads: run_stream()'s, one per thread of the stream.
 */
#include "tests/sim/run.h"

#include "cache/region.h"
#include "cache/zone.h"
#include "fs/fs.h"
#include "lib/log.h"
#include "lib/thread.h"
#include "tests/sim/model.h"
#include "tests/sim/resource.h"

#include <assert.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <pthread.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NEVER_MS 3600000u
#define CACHE_BYTES (16ull << 20)
#define MAX_SYNCS 4096

static const struct sl_cred root_cred = { 0, 0, 0 };

struct run;

struct worker {
	struct run *r;
	u32 t;
	struct model *m;
	struct sl_file *slot[SIM_HANDLES];
	/* one per operation of this thread */
	struct outcome {
		const struct sim_op *op;
		s64 result;
		u64 size_after;
	} *out;
	u32 nr, max;
	_Atomic u32 done;
	bool failed;
};

/* What a sync() promised the other threads. */
struct sync_promise {
	u32 done[SIM_THREADS];
};

struct run {
	const struct sim_stream *s;
	const struct run_config *cfg;
	struct sim_base *base;
	u64 split; /* where the external journal begins in it; 0: there is none */
	struct sim_log log;
	struct bdev *bd;
	struct super_block *sb;
	struct worker w[SIM_THREADS];
	struct sync_promise *sync;
	_Atomic u32 nr_sync;
	bool faulty; /* a fault is planned */
	bool scarce; /* ... of memory or space only: nothing else may go wrong */
	time_t began;
	char where[160];
};

/* Marks in the log: thread * 4 + one of these, and the operation's number. */
enum { MARK_STARTED, MARK_DONE, MARK_SYNC };

static void stat_add(_Atomic u64 *c, u64 n)
{
	atomic_fetch_add_explicit(c, n, memory_order_relaxed);
}

static bool complain(const struct run *r, const char *fmt, ...) __printf_like(2, 3);

static bool complain(const struct run *r, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fprintf(stderr, "  seed %" PRIu64 " (%s)%s: %s\n", r->s->seed,
		sim_mkfs[r->s->mkfs].name, r->where, text);
	return false;
}

/* ---- programs ---- */

/* Runs argv; output into *text (the caller frees). Exit status, or -1. */
static int run_program(char *const argv[], char **text)
{
	extern char **environ;
	posix_spawn_file_actions_t fa;
	int fd = memfd_create("out", 0), status;
	pid_t pid;
	off_t len;

	*text = NULL;
	if (fd < 0)
		return -1;
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_adddup2(&fa, fd, 1);
	posix_spawn_file_actions_adddup2(&fa, fd, 2);
	status = posix_spawnp(&pid, argv[0], &fa, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&fa);
	if (!status) {
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
		status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
		len = lseek(fd, 0, SEEK_END);
		*text = calloc(1, (size_t)len + 1);
		if (*text && pread(fd, *text, (size_t)len, 0) != len)
			status = -1;
	} else {
		status = -1;
	}
	close(fd);
	return status;
}

static void print_head(const char *text)
{
	const char *end = text;

	for (int lines = 0; end && *end && lines < 12; lines++) {
		end = strchr(end, '\n');
		end = end ? end + 1 : NULL;
	}
	fprintf(stderr, "%.*s\n", end ? (int)(end - text) : (int)strlen(text), text);
}

/*
 * The flag that there could be orphans stays when e2fsck replays a journal
 * and finds none; a later e2fsck remarks on it (ext4-format brief 9.3). Sluice
 * clears it when it unmounts.
 */
static bool only_orphan_present(const char *text)
{
	const char *flag = strstr(text, "Feature orphan_present is set but orphan file is clean.");
	const char *no = strstr(text, "? no");

	return flag && no && no > flag && !strstr(no + 1, "? no");
}

/*
 * e2fsck 1.47.0 truncates an inode that the orphan file names, but when it preens a
 * volume that is whole else it leaves the file as it was: a full check remarks on that,
 * and mends it (tests/crash/recover-e2fsck allows the same).
 */
static bool only_orphan_file(const char *text)
{
	static const char *const lines[] = {
		"Orphan file (inode ", " is not clean.\nClear? no",
		"Failed to initialize orphan file.\nRecreate? no",
	};
	const char *first = strstr(text, "? no"), *at = text;

	for (u32 i = 0; i < ARRAY_SIZE(lines); i++) {
		at = strstr(at, lines[i]);
		if (!at || (i == 0 && first < at))
			return false;
		at += strlen(lines[i]);
	}
	first = strstr(first + 1, "? no"); /* the second, and the last */
	return first && first < at && !strstr(at, "? no") && !strstr(text, "Fix?");
}

static void log_path(const char *path, char *buf, size_t len)
{
	snprintf(buf, len, "%s.log", path);
}

/* With the journal's file, if that has one. */
static int run_e2fsck(const struct run *r, const char *how, const char *path, char **text)
{
	char log[300];
	char *argv[] = { "e2fsck", (char *)how, "-E", "no_optimize_extents", (char *)path,
			 r->split ? "-j" : NULL, log, NULL };

	log_path(path, log, sizeof(log));
	stat_add(&r->cfg->stats->fscks, 1);
	return run_program(argv, text);
}

/* e2fsck -fn finds nothing at all. replayed: by e2fsck, not by us. */
static bool fsck_clean(const struct run *r, const char *path, bool replayed,
		       const char *what)
{
	char *text;
	int status = run_e2fsck(r, "-fn", path, &text);
	bool ok = status == 0 && text && !strstr(text, "Fix?") && !strstr(text, "<y>") &&
		  !strstr(text, "IGNORED");
	ok = ok || (replayed && status == 4 && text && only_orphan_present(text));
	if (!ok && replayed && status == 4 && text && only_orphan_file(text)) {
		free(text);
		status = run_e2fsck(r, "-fy", path, &text);
		free(text);
		return status < 0 || status >= 4 ?
			       complain(r, "%s: e2fsck -fy fails (status %d)", what, status) :
			       fsck_clean(r, path, false, what);
	}
	if (!ok) {
		complain(r, "%s: e2fsck -fn is not content (status %d)", what, status);
		print_head(text ? text : "no output");
	}
	free(text);
	return ok;
}

/*
 * e2fsck 1.47.0 releases orphans that can have no blocks of data, which are devices, pipes,
 * sockets and fast symlinks, without the block of their attributes.
 */
static bool cleared_without_block(const char *text)
{
	static const char mode_is[] = ", mode=";
	const char *at = text;

	while (at && (at = strstr(at, "Clearing orphaned inode ")) != NULL) {
		mode_t mode;

		at = strstr(at, mode_is);
		mode = at ? (mode_t)strtoul(at + strlen(mode_is), NULL, 8) : S_IFREG;
		if (!S_ISREG(mode) && !S_ISDIR(mode))
			return true;
	}
	return false;
}

/*
 * Replays the journal and releases the orphans, as a machine does when it
 * starts. -E journal_only stops before the orphan file; preening handles that, but
 * e2fsck 1.47.0 not in the same run as the replay. A volume that is not marked
 * faulty is not looked at further. One that is (after a fault of the device)
 * may want more than preening: its orphans were left alone. So may one that had such
 * orphans as above.
 */
static bool fsck_replay(const struct run *r, const char *path)
{
	static const char *const steps[] = { "-yEjournal_only", "-p", "-fy" };
	bool leaks = false;
	char *text = NULL;
	int status = 0;
	u32 i;

	for (i = 0; i < ARRAY_SIZE(steps); i++) {
		char log[300];
		char *argv[] = { "e2fsck", (char *)steps[i], (char *)path,
				 r->split ? "-j" : NULL, log, NULL };

		leaks = leaks || cleared_without_block(text);
		if (i == 2 && !leaks && (status < 4 || !r->faulty))
			break;
		free(text);
		log_path(path, log, sizeof(log));
		status = run_program(argv, &text);
		stat_add(&r->cfg->stats->fscks, 1);
		if (status < 0 || (status >= 4 && i == 0))
			break;
	}
	if (status < 0 || status >= 4) {
		complain(r, "e2fsck cannot repair this (status %d)", status);
		print_head(text ? text : "no output");
	}
	free(text);
	return status >= 0 && status < 4;
}

/* ---- base images ---- */

static void base_path(const struct run_config *cfg, u32 i, char *buf, size_t len)
{
	snprintf(buf, len, "%s/base-%s", cfg->dir, sim_mkfs[i].name);
}

static struct sl_options options_of(const struct sim_stream *s)
{
	struct sl_options o = {
		.commit_ms = s && s->commit_ms ? s->commit_ms : NEVER_MS,
		.dirty_expire_ms = s && s->expire_ms ? s->expire_ms : NEVER_MS,
		.cache_bytes = CACHE_BYTES,
		.sync = s && s->sync,
		.nodelalloc = s && s->nodelalloc,
		.zones = s ? s->zones : 0,
		.errors = SL_ERRORS_RO,
	};
	return o;
}

static int make_dirs(struct super_block *sb)
{
	struct inode *root, *dir;
	char name[4];
	int err = sl_iget(sb, 2, &root);

	if (err)
		return err;
	for (u32 t = 0; t < SIM_THREADS && !err; t++) {
		snprintf(name, sizeof(name), "t%u", t);
		err = sl_mkdir(root, name, 2, 0755, &root_cred, &dir);
		if (!err)
			sl_iput(dir);
	}
	sl_iput(root);
	return err;
}

static u64 size_bytes(const char *size)
{
	return strtoull(size, NULL, 10) << 20;
}

static int prefill(const char *path, const char *size)
{
	u64 bytes = size_bytes(size);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	u8 page[SIM_PAGE];
	int err = 0;

	if (fd < 0)
		return -errno;
	memset(page, SIM_PATTERN, sizeof(page));
	for (u64 at = 0; at < bytes && !err; at += SIM_PAGE)
		if (pwrite(fd, page, SIM_PAGE, (off_t)at) != SIM_PAGE)
			err = -EIO;
	close(fd);
	return err;
}

#define VOLUME_UUID "6f9b1c1e-5d2a-4c5e-9a51-1b0f7a3c2d11"
#define LOG_UUID "7d2c9a40-33b1-4f0e-8a6d-0c5b1e2f3a49"

/*
 * An external journal, which mke2fs gives a volume on block devices only: made alone,
 * then each is told of the other, and it is appended to the volume's file.
 */
static int add_log(const struct sim_mkfs *mk, const char *path)
{
	/* s_nr_users and s_users of the journal's superblock */
	u32 super = mk->blocksize == 1024 ? 2048 : mk->blocksize;
	char log[300], cmd[4096];
	int err;

	log_path(path, log, sizeof(log));
	err = prefill(log, mk->log);
	if (err)
		return err;
	snprintf(cmd, sizeof(cmd),
		 "{ mke2fs -q -F -b %u %s -U " LOG_UUID " '%s' && "
		 "debugfs -w -R 'feature has_journal' '%s' && "
		 "debugfs -w -R 'ssv journal_uuid " LOG_UUID "' '%s' && "
		 "printf '\\000\\000\\000\\001' |"
		 " dd of='%s' bs=1 seek=%u conv=notrunc && "
		 "dd if='%s' bs=1 skip=1128 count=16 |"
		 " dd of='%s' bs=1 seek=%u conv=notrunc && "
		 "cat '%s' >>'%s' && rm '%s'; } >/dev/null 2>&1",
		 mk->blocksize, mk->log_args, log, path, path, log, super + 0x40, path, log,
		 super + 0x100, log, path, log);
	if (!system(cmd))
		return 0;
	fprintf(stderr, "failed: %s\n", cmd);
	return -EIO;
}

int run_make_base(const struct run_config *cfg, u32 i)
{
	const struct sim_mkfs *mk = &sim_mkfs[i];
	struct simdev_config dev = { .seed = 1, .split = mk->log ? size_bytes(mk->size) : 0 };
	struct sl_options opts = options_of(NULL);
	char path[256], cmd[1024];
	struct super_block *sb;
	struct sim_base *base;
	struct sim_image *img;
	struct bdev *bd;
	int err;

	base_path(cfg, i, path, sizeof(path));
	err = prefill(path, mk->size);
	if (err)
		return err;
	snprintf(cmd, sizeof(cmd),
		 "mke2fs -q -t ext4 -F -U " VOLUME_UUID " -E "
		 "nodiscard,lazy_itable_init=0,lazy_journal_init=0,hash_seed="
		 "0d7f2b5a-93c4-4d1e-8f60-5a4b3c2d1e0f %s %s >/dev/null",
		 mk->args, path);
	if (system(cmd)) {
		fprintf(stderr, "failed: %s\n", cmd);
		return -EIO;
	}
	err = mk->log ? add_log(mk, path) : 0;
	if (err)
		return err;
	base = sim_base_load(path, mk->blocksize);
	if (!base)
		return -EIO;
	img = sim_image_new(base);
	bd = simdev_create(img, &dev, NULL);
	opts.journal_bd = simdev_second(bd);
	simdev_keep_image(bd);
	err = sl_mount(bd, &opts, &sb);
	if (!err) {
		err = make_dirs(sb);
		if (!err)
			err = sl_unmount(sb);
	}
	snprintf(cmd, sizeof(cmd), "%s.new", path);
	if (!err)
		err = sim_image_save(img, cmd, 0, base->size, true);
	sim_image_free(img);
	sim_base_free(base);
	if (!err && rename(cmd, path))
		err = -errno;
	return err;
}

/* ---- the tree as it is on the volume ---- */

struct found_file {
	char *path;
	u64 ino, size;
	u8 *data;
};

struct found_times {
	char *path;
	struct timespec mtime, ctime, atime;
};

struct found {
	struct listing list;
	struct found_times *times; /* of all */
	u32 nr_times, max_times;
	struct found_file *file;
	u32 nr, max;
	int err;
	char err_path[256];
};

struct walk {
	struct found *f;
	struct super_block *sb;
	char *path;
	size_t len;
	/* names of one directory, gathered first: a walk inside readdir would
	 * hold its lock */
	char **name;
	u32 nr, max;
};

static void *grow_array(void *p, u32 nr, u32 *max, size_t each)
{
	if (nr < *max)
		return p;
	*max = *max ? 2 * *max : 32;
	p = realloc(p, *max * each);
	if (!p)
		abort();
	return p;
}

static int gather_name(void *priv, const struct sl_dirent *de)
{
	struct walk *w = priv;

	if ((de->namelen == 1 && de->name[0] == '.') ||
	    (de->namelen == 2 && !memcmp(de->name, "..", 2)))
		return 0;
	w->name = grow_array(w->name, w->nr, &w->max, sizeof(*w->name));
	w->name[w->nr++] = strndup(de->name, de->namelen);
	return 0;
}

static int read_whole(struct inode *inode, u64 size, u8 **out)
{
	struct sl_file *file;
	ssize_t n;
	u8 *buf;
	int err;

	if (size > 64u << 20)
		return -EFBIG;
	buf = aligned_alloc(4096, ALIGN_UP(size + 1, (u64)4096));
	if (!buf)
		abort();
	err = sl_open(inode, 0, &file);
	if (err) {
		free(buf);
		return err;
	}
	n = sl_read(file, buf, size + 1, 0);
	sl_release(file);
	if (n != (ssize_t)size) {
		free(buf);
		return n < 0 ? (int)n : -EIO;
	}
	*out = buf;
	return 0;
}

static int walk_dir(struct walk *up, struct inode *dir);

/* The attributes into a line of the listing; that list and values agree. */
static int add_xattrs(struct inode *inode, char *extra, size_t size)
{
	ssize_t listed = sl_listxattr(inode, true, NULL, 0), sum = 0;
	u8 *value;

	resource_exempt_begin();
	value = malloc(SIM_XATTR_MAX);
	resource_exempt_end();
	if (!value)
		abort();
	for (u32 i = 0; i < SIM_XATTRS; i++) {
		ssize_t n = sl_getxattr(inode, sim_xattr_name[i], value, SIM_XATTR_MAX);

		if (n == -ENODATA)
			continue;
		if (n < 0) {
			free(value);
			return (int)n;
		}
		sim_xattr_text(extra, size, i, value, (u32)n);
		sum += (ssize_t)strlen(sim_xattr_name[i]) + 1;
	}
	free(value);
	return listed < 0 ? (int)listed : listed == sum ? 0 : -EINVAL;
}

static int walk_one(struct walk *w, struct inode *inode)
{
	char extra[4200] = "";
	struct found *f = w->f;
	struct stat st;
	ssize_t n;
	int err = 0;

	sl_getattr(inode, &st);
	if (S_ISLNK(st.st_mode)) {
		n = sl_readlink(inode, extra, sizeof(extra));
		if (n < 0)
			return (int)n;
	}
	err = add_xattrs(inode, extra, sizeof(extra));
	if (err)
		return err;
	listing_add(&f->list, w->path, st.st_mode, st.st_uid, st.st_gid,
		    (u32)st.st_nlink, extra);
	f->times = grow_array(f->times, f->nr_times, &f->max_times, sizeof(*f->times));
	f->times[f->nr_times++] = (struct found_times){ strdup(w->path + 1), st.st_mtim,
							st.st_ctim, st.st_atim };
	if (S_ISREG(st.st_mode)) {
		struct found_file *ff;

		f->file = grow_array(f->file, f->nr, &f->max, sizeof(*f->file));
		ff = &f->file[f->nr++];
		*ff = (struct found_file){ strdup(w->path + 1), st.st_ino,
					   (u64)st.st_size, NULL };
		err = read_whole(inode, ff->size, &ff->data);
	}
	if (S_ISDIR(st.st_mode))
		err = walk_dir(w, inode);
	return err;
}

static int walk_dir(struct walk *up, struct inode *dir)
{
	struct walk w = { .f = up->f, .sb = up->sb, .path = up->path, .len = up->len };
	struct sl_file *file;
	int err = sl_opendir(dir, &file);

	if (!err) {
		err = sl_readdir(file, 0, gather_name, &w);
		sl_release(file);
	}
	if (strlen(w.path) > 50000)
		err = -ELOOP;
	w.len = strlen(w.path);
	for (u32 i = 0; i < w.nr; i++) {
		struct inode *inode;

		if (!err) {
			snprintf(w.path + w.len, 65536 - w.len, "/%s", w.name[i]);
			err = sl_lookup(dir, w.name[i], strlen(w.name[i]), &inode);
			if (!err) {
				err = walk_one(&w, inode);
				sl_iput(inode);
			}
			if (err && !w.f->err) {
				w.f->err = err;
				snprintf(w.f->err_path, sizeof(w.f->err_path), "%s", w.path);
			}
			w.path[w.len] = 0;
		}
		free(w.name[i]);
	}
	free(w.name);
	return err;
}

static int thread_dir(struct super_block *sb, u32 t, struct inode **out)
{
	struct inode *root;
	char name[4];
	int err = sl_iget(sb, 2, &root);

	if (err)
		return err;
	snprintf(name, sizeof(name), "t%u", t);
	err = sl_lookup(root, name, 2, out);
	sl_iput(root);
	return err;
}

/* Everything below thread t's directory. */
static int find_tree(struct super_block *sb, u32 t, struct found *f)
{
	struct walk w = { .f = f, .sb = sb };
	struct inode *dir;
	int err;

	memset(f, 0, sizeof(*f));
	err = thread_dir(sb, t, &dir);
	if (err)
		return err;
	w.path = calloc(1, 65536);
	if (!w.path)
		abort();
	err = walk_dir(&w, dir);
	free(w.path);
	sl_iput(dir);
	listing_sort(&f->list);
	return err;
}

static void found_release(struct found *f)
{
	listing_release(&f->list);
	for (u32 i = 0; i < f->nr; i++) {
		free(f->file[i].path);
		free(f->file[i].data);
	}
	free(f->file);
	for (u32 i = 0; i < f->nr_times; i++)
		free(f->times[i].path);
	free(f->times);
}

/* ---- one operation ---- */

static int resolve_dir(struct super_block *sb, u32 t, const char *path,
		       struct inode **dir, const char **last)
{
	const char *slash;
	int err = thread_dir(sb, t, dir);

	while (!err && (slash = strchr(path, '/'))) {
		struct inode *next;

		err = sl_lookup(*dir, path, (size_t)(slash - path), &next);
		sl_iput(*dir);
		*dir = next;
		path = slash + 1;
	}
	if (!err) {
		struct stat st;

		sl_getattr(*dir, &st);
		if (!S_ISDIR(st.st_mode)) {
			sl_iput(*dir);
			err = -ENOTDIR;
		}
	}
	*last = path;
	return err;
}

static int resolve(struct super_block *sb, u32 t, const char *path, struct inode **out)
{
	struct inode *dir;
	const char *last;
	int err;

	if (!*path)
		return thread_dir(sb, t, out);
	err = resolve_dir(sb, t, path, &dir, &last);
	if (err)
		return err;
	err = sl_lookup(dir, last, strlen(last), out);
	sl_iput(dir);
	return err;
}

static int make_new(struct super_block *sb, const struct sim_op *op)
{
	char target[4096];
	struct inode *dir, *inode = NULL;
	const char *last;
	int err = resolve_dir(sb, op->thread, op->path, &dir, &last);
	size_t len;

	if (err)
		return err;
	len = strlen(last);
	switch (op->kind) {
	case OP_CREATE:
		err = sl_mknod(dir, last, len, S_IFREG | op->mode, 0, &root_cred, &inode);
		break;
	case OP_MKNOD:
		err = sl_mknod(dir, last, len, S_IFIFO | op->mode, 0, &root_cred, &inode);
		break;
	case OP_MKDIR:
		err = sl_mkdir(dir, last, len, op->mode, &root_cred, &inode);
		break;
	default:
		sim_target(op->seed, op->len, target);
		err = sl_symlink(dir, last, len, target, &root_cred, &inode);
	}
	if (!err)
		sl_iput(inode);
	sl_iput(dir);
	return err;
}

static int do_link(struct super_block *sb, const struct sim_op *op)
{
	struct inode *inode, *dir;
	const char *last;
	int err = resolve(sb, op->thread, op->path, &inode);

	if (err)
		return err;
	err = resolve_dir(sb, op->thread, op->path2, &dir, &last);
	if (!err) {
		err = sl_link(inode, dir, last, strlen(last));
		sl_iput(dir);
	}
	sl_iput(inode);
	return err;
}

static int do_remove(struct super_block *sb, const struct sim_op *op)
{
	struct inode *dir;
	const char *last;
	int err = resolve_dir(sb, op->thread, op->path, &dir, &last);

	if (err)
		return err;
	err = op->kind == OP_RMDIR ? sl_rmdir(dir, last, strlen(last))
				   : sl_unlink(dir, last, strlen(last));
	sl_iput(dir);
	return err;
}

static int do_rename(struct super_block *sb, const struct sim_op *op)
{
	struct inode *from, *to;
	const char *flast, *tlast;
	int err = resolve_dir(sb, op->thread, op->path, &from, &flast);

	if (err)
		return err;
	err = resolve_dir(sb, op->thread, op->path2, &to, &tlast);
	if (!err) {
		err = sl_rename(from, flast, strlen(flast), to, tlast, strlen(tlast),
				op->flags);
		sl_iput(to);
	}
	sl_iput(from);
	return err;
}

/* Every second write comes as those of the daemon do, in memory that may be taken over. */
#define REGION_DATA (1u << 20)

static struct region_pool *regions;

static void make_regions(void)
{
	regions = region_pool_new(2 * REGION_PAGE + REGION_DATA, REGION_DATA);
	if (!regions)
		abort();
}

static struct region_pool *the_regions(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, make_regions);
	return regions;
}

static s64 do_write(struct sl_file *f, const struct sim_op *op)
{
	struct region *r = NULL;
	u8 *buf;
	s64 n;

	resource_exempt_begin();
	if (op->seed % 2 && op->len <= REGION_DATA)
		r = region_get(the_regions(), 0);
	buf = r ? (u8 *)region_memory(r) + REGION_PAGE + op->off % REGION_PAGE
		: malloc(op->len);
	resource_exempt_end();
	if (!buf)
		abort();
	sim_data(op->seed, op->off, buf, op->len);
	if (r) {
		region_note(r, REGION_PAGE + op->off % REGION_PAGE + op->len);
		n = sl_write_region(f, r, buf, op->len, op->off, 0, &root_cred);
		region_put(r);
	} else {
		n = sl_write(f, buf, op->len, op->off, 0, &root_cred);
		free(buf);
	}
	return n;
}

/* What the file holds, against the model. */
static int compare_file(struct worker *w, struct inode *inode, struct m_inode *in)
{
	u64 size = m_inode_size(in), at = 0;
	u8 *want, *got;
	struct stat st;
	int err;

	sl_getattr(inode, &st);
	if ((u64)st.st_size != size) {
		complain(w->r, "inode %llu: size %lld, not %" PRIu64,
			 (unsigned long long)st.st_ino, (long long)st.st_size, size);
		return -EIO;
	}
	if (m_inode_is_lost(in))
		return 0;
	resource_exempt_begin();
	err = read_whole(inode, size, &got);
	if (!err) {
		want = malloc(size + 1);
		if (!want)
			abort();
		m_inode_read(in, 0, want, (u32)size);
		while (at < size && want[at] == got[at])
			at++;
		if (at < size) {
			complain(w->r, "inode %llu: byte %" PRIu64 " is %02x, not %02x",
				 (unsigned long long)st.st_ino, at, got[at], want[at]);
			err = -EILSEQ;
		}
		free(want);
		free(got);
	}
	resource_exempt_end();
	return err;
}

static bool resources_hit(void)
{
	return resource_hit(RES_MEMORY) || resource_hit(RES_SPACE);
}

static bool fault_hit(const struct run *r)
{
	return r->bd && r->faulty && (simdev_fault_hit(r->bd) || resources_hit());
}

/* What a lack of memory or space may be told as. */
static bool scarcity_error(s64 err)
{
	return (err == -ENOMEM && resource_hit(RES_MEMORY)) ||
	       (err == -ENOSPC && resource_hit(RES_SPACE));
}

static s64 do_copy(const struct worker *w, struct sl_file *to, const struct sim_op *op)
{
	struct sl_file *from;
	struct inode *inode;
	struct stat st;
	s64 result = resolve(w->r->sb, w->t, op->path2, &inode);

	if (result)
		return result;
	sl_getattr(inode, &st);
	result = S_ISREG(st.st_mode) ? sl_open(inode, 0, &from) : -EINVAL;
	sl_iput(inode);
	if (result)
		return result;
	result = sl_copy_file_range(from, op->seed, to, op->off, op->len, &root_cred);
	sl_release(from);
	return result;
}

/* Sets a bit for each block of the bytes [off, off+len), below its end, that a file has. */
static s64 mapped_blocks(struct inode *inode, u32 bs, u64 off, u32 len, u64 *bits)
{
	struct sl_extent e[SIM_MOVE_MAX];
	struct stat st;
	s64 n;

	*bits = 0;
	sl_getattr(inode, &st);
	n = sl_fiemap(inode, off, len, true, e, SIM_MOVE_MAX);
	for (s64 i = 0; i < n; i++)
		for (u32 b = 0; b < len / bs; b++) {
			u64 at = off + (u64)b * bs;

			if (at >= e[i].logical && at < e[i].logical + e[i].length &&
			    at < (u64)st.st_size)
				*bits |= 1ull << b;
		}
	return n < 0 ? n : 0;
}

/* *zeroed: see model_apply(). What has no block is passed over, at the end with a word. */
static s64 do_move(const struct worker *w, struct sl_file *f, const struct sim_op *op,
		   u64 *zeroed)
{
	u32 bs = sim_mkfs[w->r->s->mkfs].blocksize;
	u64 mine = 0, donors = 0, moved;
	struct inode *donor;
	struct stat st;
	s64 result = resolve(w->r->sb, w->t, op->path2, &donor);

	if (result)
		return result;
	sl_getattr(donor, &st);
	if (S_ISREG(st.st_mode))
		result = mapped_blocks(sl_file_inode(f), bs, op->off, op->len, &mine);
	if (S_ISREG(st.st_mode) && !result)
		result = mapped_blocks(donor, bs, op->seed, op->len, &donors);
	*zeroed = mine & donors;
	if (!result)
		result = sl_move_extents(f, donor, op->off / bs, op->seed / bs, op->len / bs,
					 &moved);
	sl_iput(donor);
	return result == -ENODATA ? 0 : result;
}

/* A file whose map cannot be a small one keeps its extents. *after: enum sim_migrated. */
static s64 do_migrate(struct inode *inode, bool extents, u64 *after)
{
	struct sl_fileattr fa = { .flags = extents ? FS_EXTENT_FL : 0 };
	s64 result = sl_fileattr_set(inode, &fa, SL_FA_FLAGS, FS_EXTENT_FL, SL_MAY_OWN,
				     &root_cred);

	sl_fileattr_get(inode, &fa);
	*after = (fa.flags & FS_EXTENT_FL ? 0 : SIM_BLOCK_MAP) |
		 (result ? SIM_NOT_MIGRATED : 0);
	/* The volume may have no extents at all; a tree may find no room. */
	return result == -EOPNOTSUPP || result == -EINVAL || result == -ENOSPC ? 0 : result;
}

static s64 on_file(struct worker *w, const struct sim_op *op, struct inode *inode,
		   u64 *size_after)
{
	struct stat st = { .st_size = (off_t)op->off, .st_mode = op->mode,
			   .st_uid = op->mode, .st_gid = op->mode,
			   .st_mtim = { (s64)op->off, op->len } };
	u32 flags = SL_OPEN_READ | SL_OPEN_WRITE | (op->kind == OP_WRITE ? op->flags : 0);
	struct sl_file *f;
	struct stat now;
	s64 result;

	sl_getattr(inode, &now);
	if (op->kind == OP_CHMOD)
		return sl_setattr(inode, &st, SL_SET_MODE, &root_cred, NULL);
	if (op->kind == OP_CHOWN)
		return sl_setattr(inode, &st, SL_SET_UID | SL_SET_GID, &root_cred, NULL);
	if (op->kind == OP_UTIMES)
		return sl_setattr(inode, &st, SL_SET_MTIME, &root_cred, NULL);
	if (op->kind == OP_SETXATTR) {
		u8 *value;
		int err;

		resource_exempt_begin();
		value = malloc(op->len + 1);
		resource_exempt_end();
		if (!value)
			abort();
		sim_data(op->seed, 0, value, op->len);
		err = sl_setxattr(inode, sim_xattr_name[op->slot], value, op->len,
				  op->flags, &root_cred);
		free(value);
		return err;
	}
	if (op->kind == OP_RMXATTR)
		return sl_removexattr(inode, sim_xattr_name[op->slot]);
	if (!S_ISREG(now.st_mode) &&
	    !(S_ISDIR(now.st_mode) && (op->kind == OP_FSYNC || op->kind == OP_FDATASYNC)))
		return -EINVAL;
	if (op->kind == OP_TRUNCATE)
		return sl_setattr(inode, &st, SL_SET_SIZE, &root_cred, NULL);
	result = S_ISDIR(now.st_mode) ? sl_opendir(inode, &f) : sl_open(inode, flags, &f);
	if (result)
		return result;
	switch (op->kind) {
	case OP_WRITE:
		result = do_write(f, op);
		break;
	case OP_COPY:
		result = do_copy(w, f, op);
		break;
	case OP_FALLOC:
		result = sl_fallocate(f, (int)op->flags, op->off, op->len, &root_cred);
		sl_getattr(inode, &now);
		*size_after = (u64)now.st_size;
		break;
	case OP_FSYNC:
	case OP_FDATASYNC:
		result = sl_fsync(f, op->kind == OP_FDATASYNC);
		break;
	case OP_HOLD:
		w->slot[op->slot] = f;
		return 0;
	case OP_RELOCATE:
		result = sl_relocate(inode);
		/* It goes as far as there is room. */
		if (result == -ENOSPC)
			result = 0;
		break;
	case OP_MOVE:
		result = do_move(w, f, op, size_after);
		break;
	case OP_MIGRATE:
		result = do_migrate(inode, op->flags, size_after);
		break;
	default:
		break;
	}
	sl_release(f);
	return result;
}

static s64 on_slot(struct worker *w, const struct sim_op *op)
{
	struct sl_file *f = w->slot[op->slot];
	struct stat st = { .st_size = (off_t)op->off };

	if (!f)
		return -EBADF;
	switch (op->kind) {
	case OP_HWRITE:
		return do_write(f, op);
	case OP_HTRUNC:
		return sl_setattr(sl_file_inode(f), &st, SL_SET_SIZE, &root_cred, NULL);
	case OP_HSYNC:
		return sl_fsync(f, false);
	default:
		w->slot[op->slot] = NULL;
		sl_release(f);
		return 0;
	}
}

static s64 do_sync(struct worker *w)
{
	struct run *r = w->r;
	u32 k = atomic_fetch_add(&r->nr_sync, 1);
	s64 err;

	assert(k < MAX_SYNCS);
	for (u32 t = 0; t < r->s->threads; t++)
		r->sync[k].done[t] = atomic_load(&r->w[t].done);
	err = sl_sync(r->sb);
	if (!err) {
		resource_exempt_begin();
		simdev_mark(r->bd, MARK_SYNC, k);
		resource_exempt_end();
	}
	return err;
}

static s64 run_op(struct worker *w, const struct sim_op *op, u64 *size_after)
{
	struct super_block *sb = w->r->sb;
	struct inode *inode;
	s64 result;

	switch (op->kind) {
	case OP_CREATE:
	case OP_MKDIR:
	case OP_SYMLINK:
	case OP_MKNOD:
		return make_new(sb, op);
	case OP_LINK:
		return do_link(sb, op);
	case OP_UNLINK:
	case OP_RMDIR:
		return do_remove(sb, op);
	case OP_RENAME:
		return do_rename(sb, op);
	case OP_SYNC:
		return do_sync(w);
	case OP_CACHES:
		sl_drop_caches(sb);
		return 0;
	case OP_DROP:
	case OP_HWRITE:
	case OP_HTRUNC:
	case OP_HSYNC:
		return on_slot(w, op);
	case OP_HOLD:
		if (w->slot[op->slot])
			return -EBUSY;
		break;
	default:
		break;
	}
	result = resolve(sb, w->t, op->path, &inode);
	if (result)
		return result;
	result = on_file(w, op, inode, size_after);
	if (op->kind == OP_READ && !result && !fault_hit(w->r)) {
		result = compare_file(w, inode, model_find(w->m, op->path));
		if (result && !fault_hit(w->r))
			w->failed = true;
	}
	sl_iput(inode);
	return result;
}

/* May an operation say "no space" now? */
static bool nearly_full(const struct run *r, const struct sim_op *op)
{
	struct statvfs st;

	if (sl_statfs(r->sb, &st))
		return true;
	return st.f_bavail * st.f_bsize < op->len + 300u * 1024 || st.f_ffree < 8 ||
	       r->s->threads > 1;
}

static bool result_fits(struct worker *w, const struct sim_op *op, s64 want, s64 got)
{
	if (got == want)
		return true;
	/* Where several errors are true, any of them may be told. */
	if (want < 0 && op->kind == OP_RENAME && (got == -EINVAL || got == -ENOTEMPTY) &&
	    (want == -EEXIST || want == -ENOENT))
		return true;
	if (w->r->scarce && got < 0 && scarcity_error(got))
		return true;
	/* How long a file is after a write that failed, the model does not know. */
	if (want == -EINVAL && got == 0 && op->kind == OP_FALLOC) {
		const struct m_inode *in = model_find(w->m, op->path);

		if (in && m_inode_is_lost(in))
			return true;
	}
	if ((want == -EINVAL || got == -EINVAL) && op->kind == OP_MOVE) {
		const struct m_inode *in = model_find(w->m, op->path);
		const struct m_inode *donor = model_find(w->m, op->path2);

		if (in && donor && (m_inode_is_lost(in) || m_inode_is_lost(donor)))
			return true;
	}
	if (want < 0)
		return got < 0 && fault_hit(w->r) && !w->r->scarce;
	if (fault_hit(w->r) && !w->r->scarce)
		return got < 0 || op->kind == OP_WRITE || op->kind == OP_HWRITE ||
		       op->kind == OP_COPY;
	if (got == -ENOSPC || (want > 0 && got > 0 && got < want))
		return (w->r->scarce && got > 0 && resources_hit()) || nearly_full(w->r, op);
	return false;
}

static void one_step(struct worker *w, const struct sim_op *op)
{
	struct run *r = w->r;
	u64 size_after = 0;
	s64 want, got;

	want = model_expect(w->m, op);
	simdev_mark(r->bd, w->t * 4 + MARK_STARTED, w->nr);
	resource_exempt_end();
	got = run_op(w, op, &size_after);
	resource_exempt_begin();
	simdev_mark(r->bd, w->t * 4 + MARK_DONE, w->nr);
	if (!result_fits(w, op, want, got)) {
		complain(r, "operation %u of thread %u returned %" PRId64 ", not %" PRId64 ":",
			 w->nr, w->t, got, want);
		sim_op_print(op, stderr);
		w->failed = true;
	}
	model_apply(w->m, op, got, size_after);
	w->out = grow_array(w->out, w->nr, &w->max, sizeof(*w->out));
	w->out[w->nr++] = (struct outcome){ op, got, size_after };
	atomic_store(&w->done, w->nr);
}

static void worker_main(void *arg)
{
	struct worker *w = arg;

	resource_exempt_begin();
	for (u32 i = 0; i < w->r->s->nr_ops && !w->failed; i++) {
		if (w->r->s->op[i].thread != w->t)
			continue;
		/* As if it were moved to another CPU now and then. */
		zone_set_home(i / 4);
		one_step(w, &w->r->s->op[i]);
	}
	resource_exempt_end();
}

/* ---- times ---- */

/* Clocks are coarse, and small inodes have whole seconds. */
static bool in_run(const struct run *r, const struct timespec *t)
{
	return t->tv_sec >= r->began - 2 && t->tv_sec <= time(NULL) + 1;
}

static bool times_could_be(const struct run *r, const struct found_times *t,
			   const struct m_inode *in, u32 started, u32 tree, char *why,
			   size_t why_len)
{
	const char *bad = NULL;
	const struct timespec *at = &t->mtime;

	if (!m_inode_mtime_could_be(in, started, tree, at, in_run(r, at)))
		bad = "mtime";
	for (u32 i = 0; i < 2 && !bad; i++) {
		at = i ? &t->atime : &t->ctime;
		if (!in_run(r, at))
			bad = i ? "atime" : "ctime";
	}
	if (bad)
		snprintf(why, why_len, "%s is %lld.%09ld, the run began at %lld", bad,
			 (long long)at->tv_sec, at->tv_nsec, (long long)r->began);
	return !bad;
}

/* ---- the whole tree against the model, with nothing lost ---- */

static bool compare_all(struct run *r, struct super_block *sb, const char *what)
{
	bool ok = true;

	for (u32 t = 0; t < r->s->threads && ok; t++) {
		struct worker *w = &r->w[t];
		struct listing want;
		struct found f;
		int err = find_tree(sb, t, &f);

		if (err) {
			ok = complain(r, "%s: t%u%s cannot be read: error %d", what, t,
				      f.err_path, -err);
		} else if (listing_hash(&f.list) != model_hash(w->m, w->nr)) {
			ok = complain(r, "%s: t%u differs:", what, t);
			listing_init(&want);
			model_listing(w->m, &want);
			listing_diff(&want, &f.list);
			listing_release(&want);
		}
		for (u32 i = 0; i < f.nr && ok; i++) {
			struct m_inode *in = model_find(w->m, f.file[i].path);
			char why[300];

			if (!m_inode_could_be(in, w->nr, w->nr, w->nr, f.file[i].size,
					      f.file[i].data, why, sizeof(why)) ||
			    (f.file[i].size != m_inode_size(in) && !m_inode_is_lost(in)))
				ok = complain(r, "%s: t%u/%s: size %" PRIu64
					      " (model %" PRIu64 ") %s", what, t,
					      f.file[i].path, f.file[i].size,
					      m_inode_size(in), why);
		}
		for (u32 i = 0; i < f.nr_times && ok; i++) {
			char why[300];

			if (!times_could_be(r, &f.times[i], model_find(w->m, f.times[i].path),
					    w->nr, w->nr, why, sizeof(why)))
				ok = complain(r, "%s: t%u/%s: %s", what, t, f.times[i].path,
					      why);
		}
		found_release(&f);
	}
	return ok;
}

/* ---- after a power cut ---- */

struct span {
	u32 done[SIM_THREADS], started[SIM_THREADS], promised[SIM_THREADS];
};

/* What had begun, returned and been promised before event n. */
static void span_at(const struct run *r, u32 n, struct span *sp)
{
	memset(sp, 0, sizeof(*sp));
	for (u32 e = 0; e < n; e++) {
		const struct sim_event *ev = &r->log.ev[e];
		u32 t = ev->arg / 4;

		if (ev->kind != SIM_MARK)
			continue;
		if (ev->arg % 4 == MARK_STARTED) {
			sp->started[t] = ev->arg2 + 1;
		} else if (ev->arg % 4 == MARK_DONE) {
			sp->done[t] = ev->arg2 + 1;
			sp->promised[t] = max_of(sp->promised[t],
						 model_promise(r->w[t].m, ev->arg2));
		} else {
			for (u32 i = 0; i < r->s->threads; i++)
				sp->promised[i] = max_of(sp->promised[i],
							 r->sync[ev->arg2].done[i]);
		}
	}
}

struct name_of_file {
	char *path;
	struct m_inode *in;
};

struct names {
	struct name_of_file *n;
	u32 nr, max;
};

static void add_name(void *priv, const char *path, struct m_inode *in)
{
	struct names *ns = priv;

	ns->n = grow_array(ns->n, ns->nr, &ns->max, sizeof(*ns->n));
	ns->n[ns->nr++] = (struct name_of_file){ strdup(path), in };
}

static struct m_inode *name_find(const struct names *ns, const char *path)
{
	for (u32 i = 0; i < ns->nr; i++)
		if (!strcmp(ns->n[i].path, path))
			return ns->n[i].in;
	return NULL;
}

static void diff_with(const struct run *r, const struct worker *w, u32 n,
		      const struct found *f)
{
	struct model *m = model_new(r->s->sync, r->faulty,
				    &sim_mkfs[r->s->mkfs]);
	struct listing want;

	for (u32 k = 0; k < n; k++)
		model_apply(m, w->out[k].op, w->out[k].result, w->out[k].size_after);
	listing_init(&want);
	model_listing(m, &want);
	fprintf(stderr, "    against the tree of %u operations:\n", n);
	listing_diff(&want, &f->list);
	listing_release(&want);
	model_free(m);
}

/* The files' contents, if the tree is the one after `tree` operations. */
static bool files_could_be(const struct run *r, u32 t, const struct span *sp, u32 tree,
			   const struct found *f, char *why, size_t why_len)
{
	const struct worker *w = &r->w[t];
	struct model *m = model_new(r->s->sync, r->faulty,
				    &sim_mkfs[r->s->mkfs]);
	struct names ns = { 0 };
	bool ok = true;

	for (u32 k = 0; k < sp->started[t]; k++) {
		if (k == tree)
			model_each_name(m, add_name, &ns);
		model_apply(m, w->out[k].op, w->out[k].result, w->out[k].size_after);
	}
	if (tree == sp->started[t])
		model_each_name(m, add_name, &ns);
	for (u32 i = 0; i < f->nr && ok; i++) {
		struct m_inode *in = name_find(&ns, f->file[i].path);
		char text[300] = "";

		assert(in);
		ok = m_inode_could_be(in, sp->done[t], sp->started[t], tree,
				      f->file[i].size, f->file[i].data, text,
				      sizeof(text));
		if (!ok)
			snprintf(why, why_len, "t%u/%.200s: %s", t, f->file[i].path, text);
	}
	for (u32 i = 0; i < f->nr_times && ok; i++) {
		char text[300] = "";

		ok = times_could_be(r, &f->times[i], name_find(&ns, f->times[i].path),
				    sp->started[t], tree, text, sizeof(text));
		if (!ok)
			snprintf(why, why_len, "t%u/%.200s: %s", t, f->times[i].path, text);
	}
	for (u32 i = 0; i < ns.nr; i++)
		free(ns.n[i].path);
	free(ns.n);
	model_free(m);
	return ok;
}

/* Does the tree after n operations differ from the one before (if only in
 * which file has which name)? */
static bool changes_tree(const struct worker *w, u32 n)
{
	const struct outcome *o = n ? &w->out[n - 1] : NULL;

	return o && o->result >= 0 && o->op->kind <= OP_RENAME;
}

/*
 * Thread t's directory as found after a power cut. Several states may look
 * alike (after an exchange of two names, say): one of them must fit.
 */
static bool tree_could_be(const struct run *r, u32 t, const struct span *sp,
			  const struct found *f, const char *what)
{
	const struct worker *w = &r->w[t];
	u64 hash = listing_hash(&f->list);
	char why[600] = "";

	for (u32 n = sp->promised[t]; n <= sp->started[t]; n++)
		if (model_hash(w->m, n) == hash &&
		    (n == sp->promised[t] || changes_tree(w, n) ||
		     model_hash(w->m, n - 1) != hash) &&
		    files_could_be(r, t, sp, n, f, why, sizeof(why)))
			return true;
	if (*why)
		return complain(r, "%s: %s; %u done, %u started", what, why, sp->done[t],
				sp->started[t]);
	complain(r, "%s: t%u is no state between operations %u and %u", what, t,
		 sp->promised[t], sp->started[t]);
	diff_with(r, w, sp->promised[t], f);
	if (sp->started[t] != sp->promised[t])
		diff_with(r, w, sp->started[t], f);
	return false;
}

static bool trees_could_be(const struct run *r, struct super_block *sb,
			   const struct span *sp, const char *what)
{
	bool ok = true;

	for (u32 t = 0; t < r->s->threads && ok; t++) {
		struct found f;
		int err = find_tree(sb, t, &f);

		if (err)
			ok = complain(r, "%s: t%u%s cannot be read: error %d", what, t,
				      f.err_path, -err);
		else
			ok = tree_could_be(r, t, sp, &f, what);
		found_release(&f);
	}
	return ok;
}

/* The volume serves: a directory, a file, its removal. */
static bool use_again(const struct run *r, struct super_block *sb)
{
	struct inode *root, *dir, *inode;
	const char *name = "after";
	struct sl_file *f;
	u8 data[5000];
	ssize_t n = 0;
	int err = sl_iget(sb, 2, &root);

	if (err)
		return complain(r, "no root after recovery: error %d", -err);
	sim_data(99, 0, data, sizeof(data));
	/* A power cut during an earlier look may have left the name. */
	err = sl_mkdir(root, name, 5, 0755, &root_cred, &dir);
	if (err == -EEXIST) {
		name = "again";
		err = sl_mkdir(root, name, 5, 0755, &root_cred, &dir);
	}
	if (!err) {
		err = sl_mknod(dir, "x", 1, S_IFREG | 0644, 0, &root_cred, &inode);
		if (!err) {
			err = sl_open(inode, SL_OPEN_WRITE, &f);
			if (!err) {
				n = sl_write(f, data, sizeof(data), 100, 0, &root_cred);
				err = n < 0 ? (int)n : sl_fsync(f, false);
				sl_release(f);
			}
			sl_iput(inode);
			if (!err)
				err = sl_unlink(dir, "x", 1);
		}
		if (!err)
			err = sl_rmdir(root, name, 5);
		sl_iput(dir);
	}
	sl_iput(root);
	if (err && err != -ENOSPC)
		return complain(r, "not usable after recovery: error %d", -err);
	return true;
}

/* A scratch file of the volume, and one of its journal. */
static int save_files(const struct run *r, const struct sim_image *img, const char *path,
		      bool whole)
{
	u64 size = img->base->size;
	char log[300];
	int err = sim_image_save(img, path, 0, r->split ?: size, whole);

	log_path(path, log, sizeof(log));
	return err || !r->split ? err : sim_image_save(img, log, r->split, size, whole);
}

/* NULL: they cannot be read. */
static struct sim_image *load_files(const struct run *r, const char *path)
{
	struct sim_image *img = sim_image_new(r->base);
	u64 size = r->base->size;
	char log[300];
	int err = sim_image_load(img, path, 0, r->split ?: size);

	log_path(path, log, sizeof(log));
	if (!err && r->split)
		err = sim_image_load(img, log, r->split, size);
	if (!err)
		return img;
	sim_image_free(img);
	return NULL;
}

static void remove_files(const struct run *r, const char *path)
{
	char log[300];

	log_path(path, log, sizeof(log));
	unlink(path);
	if (r->split)
		unlink(log);
}

static void scratch(const struct run *r, const char *name, char *buf, size_t len)
{
	snprintf(buf, len, "%s/%s-%d", r->cfg->dir, name, (int)getpid());
}

/* Mounts img (a clone is made), judges, unmounts; the image in *after. log: of the mount. */
static bool judge_mounted(struct run *r, const struct sim_image *img, const struct span *sp,
			  const char *what, bool use, struct sim_log *log,
			  struct sim_image **after)
{
	struct simdev_config dev = { .seed = r->s->seed, .split = r->split };
	struct sl_options opts = options_of(NULL);
	struct sim_image *work = sim_image_clone(img);
	struct bdev *bd = simdev_create(work, &dev, log);
	struct super_block *sb;
	bool ok;
	int err;

	opts.journal_bd = simdev_second(bd);
	stat_add(&r->cfg->stats->recoveries, 1);
	simdev_keep_image(bd);
	*after = work;
	err = sl_mount(bd, &opts, &sb);
	if (err)
		return complain(r, "%s: no mount: error %d", what, -err);
	ok = trees_could_be(r, sb, sp, what) && (!use || use_again(r, sb));
	if (ok && sl_is_readonly(sb))
		ok = complain(r, "%s: became read-only", what);
	err = sl_unmount(sb);
	if (err && ok)
		ok = complain(r, "%s: unmount: error %d", what, -err);
	return ok;
}

/* s_state says that errors were met: orphans are kept for e2fsck then. */
static bool has_errors(const struct sim_image *img)
{
	u8 state[2];

	sim_image_read(img, 1024 + 0x3A, state, sizeof(state));
	return state[0] & 2;
}

/* $SIM_KEEP is a folder for the images of a failure. */
static void keep_image(const struct run *r, const struct sim_image *img, const char *name)
{
	const char *dir = getenv("SIM_KEEP");
	char path[512];

	if (!dir)
		return;
	snprintf(path, sizeof(path), "%s/sim-%" PRIu64 "-%s.img", dir, r->s->seed, name);
	if (!save_files(r, img, path, true))
		fprintf(stderr, "    image kept: %s\n", path);
}

static bool judge_file(struct run *r, const struct sim_image *img, const char *name,
		       bool replay, const char *what)
{
	char path[256];
	bool ok;

	scratch(r, name, path, sizeof(path));
	if (save_files(r, img, path, false))
		return complain(r, "cannot write %s", path);
	ok = (!(replay || (r->faulty && has_errors(img))) || fsck_replay(r, path)) &&
	     fsck_clean(r, path, replay, what);
	remove_files(r, path);
	if (!ok)
		keep_image(r, img, name);
	return ok;
}

/* (c): what e2fsck has replayed is what the model allows too. */
static bool judge_by_e2fsck(struct run *r, const struct sim_image *img,
			    const struct span *sp)
{
	struct sim_image *replayed, *after = NULL;
	char path[256];
	bool ok;

	scratch(r, "replayed", path, sizeof(path));
	if (save_files(r, img, path, true))
		return complain(r, "cannot write %s", path);
	ok = fsck_replay(r, path) && fsck_clean(r, path, true, "replayed by e2fsck");
	if (ok) {
		replayed = load_files(r, path);
		if (!replayed)
			abort();
		ok = judge_mounted(r, replayed, sp, "replayed by e2fsck", false, NULL, &after);
		sim_image_free(replayed);
		sim_image_free(after);
	}
	remove_files(r, path);
	if (!ok)
		keep_image(r, img, "cut");
	return ok;
}

#define KERNEL_SCRIPT                                                             \
	"d=$(mktemp -d) && mount -o loop \"$1\" \"$d\" && "                       \
	"{ ls -lR \"$d\" >/dev/null && touch \"$d/after\" && rm \"$d/after\"; "   \
	"s=$?; umount \"$d\" && rmdir \"$d\" && exit $s; }"

static bool judge_by_kernel(struct run *r, const struct sim_image *img)
{
	char path[256], *text;
	char *argv[] = { "sh", "-c", KERNEL_SCRIPT, "sh", path, NULL };
	bool ok;
	int status;

	scratch(r, "kernel", path, sizeof(path));
	if (save_files(r, img, path, false))
		return complain(r, "cannot write %s", path);
	status = run_program(argv, &text);
	ok = status == 0 ? fsck_clean(r, path, true, "after a mount by the kernel")
			 : complain(r, "the kernel cannot mount: %s", text ? text : "");
	free(text);
	remove_files(r, path);
	return ok;
}

static bool judge(struct run *r, const struct sim_image *img, const struct span *sp,
		  struct rng *rng, bool nested);

/* A power cut while Sluice recovers and is used a little. */
static bool judge_nested(struct run *r, const struct sim_image *img, struct sim_log *log,
			 const struct span *sp, struct rng *rng)
{
	struct sim_crash c;
	struct sim_image *cut;
	u32 n, doubt;
	bool ok;

	sim_log_finish(log);
	/* The crash walker starts from the base; put the image under it. */
	sim_crash_init(&c, log, r->base);
	sim_image_free(c.sure);
	c.sure = sim_image_clone(img);
	n = rng_below(rng, log->nr_ev + 1);
	sim_crash_seek(&c, n);
	cut = sim_crash_image(&c, rng_below(rng, SIM_CUT_NR), false, rng, &doubt);
	snprintf(r->where + strlen(r->where), sizeof(r->where) - strlen(r->where),
		 " and again at %u of the recovery", n);
	stat_add(&r->cfg->stats->nested, 1);
	ok = judge(r, cut, sp, rng, true);
	sim_image_free(cut);
	sim_crash_release(&c);
	return ok;
}

static bool judge(struct run *r, const struct sim_image *img, const struct span *sp,
		  struct rng *rng, bool nested)
{
	bool deep = !nested && rng_chance(rng, 12), by_e2fsck = rng_chance(rng, 25);
	struct sim_image *after;
	struct sim_log log;
	bool ok;

	stat_add(&r->cfg->stats->images, 1);
	sim_log_init(&log);
	ok = judge_mounted(r, img, sp, "recovered", true, deep ? &log : NULL, &after);
	if (ok)
		ok = judge_file(r, after, "after", false, "recovered and unmounted");
	sim_image_free(after);
	/* e2fsck (1.47.0) deletes orphans, but what held their values stays referenced. */
	if (ok && !sim_mkfs_has_values(r->s->mkfs))
		ok = by_e2fsck ? judge_by_e2fsck(r, img, sp)
			       : judge_file(r, img, "cut", true, "replayed by e2fsck");
	/* The kernel wants a block device for a journal. */
	if (ok && r->cfg->kernel && !r->split && rng_chance(rng, 10))
		ok = judge_by_kernel(r, img);
	if (ok && deep)
		ok = judge_nested(r, img, &log, sp, rng);
	sim_log_release(&log);
	if (!ok)
		keep_image(r, img, "cut");
	return ok;
}

static bool judge_point(struct run *r, struct sim_crash *c, u32 n, u32 tries)
{
	struct rng rng = rng_derive(r->s->seed, 0xC0DE0000ull + n);
	struct span sp;
	bool ok = true;

	sim_crash_seek(c, n);
	span_at(r, n, &sp);
	stat_add(&r->cfg->stats->points, 1);
	for (u32 i = 0; i < tries && ok; i++) {
		u32 cut = rng_below(&rng, SIM_CUT_NR), doubt;
		bool torn = rng_chance(&rng, 20);
		struct sim_image *img;

		if (r->cfg->only_cut >= 0) {
			cut = (u32)r->cfg->only_cut % SIM_CUT_NR;
			torn = r->cfg->only_cut >= SIM_CUT_NR;
		}
		img = sim_crash_image(c, cut, torn, &rng, &doubt);
		snprintf(r->where, sizeof(r->where),
			 ", power cut at event %u of %u, cut %u, try %u, %u writes in doubt",
			 n, r->log.nr_ev, cut + (torn ? SIM_CUT_NR : 0), i, doubt);
		if (r->cfg->verbose)
			fprintf(stderr, "%s\n", r->where);
		ok = judge(r, img, &sp, &rng, false);
		sim_image_free(img);
		if (!doubt)
			break; /* all cuts are the same */
	}
	r->where[0] = 0;
	return ok;
}

/* As the device is after a fault, without a power cut. */
static bool judge_end(struct run *r, const struct sim_image *img)
{
	struct rng rng = rng_derive(r->s->seed, 0xE2D);
	struct span sp;
	bool ok;

	span_at(r, r->log.nr_ev, &sp);
	snprintf(r->where, sizeof(r->where), ", after the unmount");
	ok = judge(r, img, &sp, &rng, false);
	r->where[0] = 0;
	return ok;
}

static int u32_cmp(const void *a, const void *b)
{
	u32 x = *(const u32 *)a, y = *(const u32 *)b;

	return x < y ? -1 : x > y;
}

/*
 * Half of the points anywhere, half around what decides: flushes and forced
 * writes. The end of the log is always one.
 */
static bool judge_points(struct run *r)
{
	struct rng rng = rng_derive(r->s->seed, 0x9017);
	u32 want = r->s->points ? r->s->points : r->cfg->points;
	u32 *point, *key, nr = 0, nr_key = 0;
	struct sim_crash c;
	bool ok = true;

	if (r->cfg->all_points)
		want = r->log.nr_ev + 1;
	point = calloc(want + 2, sizeof(*point));
	key = calloc(r->log.nr_ev + 1, sizeof(*key));
	if (!point || !key)
		abort();
	for (u32 e = 0; e < r->log.nr_ev; e++) {
		const struct sim_event *ev = &r->log.ev[e];

		if (ev->kind == SIM_FLUSH_START || ev->kind == SIM_FLUSH_END ||
		    ((ev->kind == SIM_SUBMIT || ev->kind == SIM_END) &&
		     r->log.wr[ev->arg].fua) ||
		    (ev->kind == SIM_MARK && ev->arg % 4 == MARK_DONE && rng_chance(&rng, 10)))
			key[nr_key++] = e + rng_below(&rng, 2);
	}
	if (r->cfg->only_point >= 0) {
		point[nr++] = min_of((u32)r->cfg->only_point, r->log.nr_ev);
	} else if (r->cfg->all_points) {
		for (u32 e = 0; e <= r->log.nr_ev; e++)
			point[nr++] = e;
	} else {
		while (nr < want)
			point[nr++] = nr_key && rng_chance(&rng, 50)
					      ? key[rng_below(&rng, nr_key)]
					      : rng_below(&rng, r->log.nr_ev + 1);
		point[nr++] = r->log.nr_ev;
	}
	qsort(point, nr, sizeof(*point), u32_cmp);
	sim_crash_init(&c, &r->log, r->base);
	for (u32 i = 0; i < nr && ok; i++)
		if (!i || point[i] != point[i - 1] || r->cfg->only_point >= 0)
			ok = judge_point(r, &c, point[i], r->cfg->only_point >= 0 ? 3 : 1);
	sim_crash_release(&c);
	free(point);
	free(key);
	return ok;
}

/* ---- a run ---- */

static bool run_workers(struct run *r)
{
	struct thread *th[SIM_THREADS] = { 0 };
	bool ok = true;

	if (r->s->threads == 1) {
		worker_main(&r->w[0]);
	} else {
		resource_exempt_begin();
		for (u32 t = 0; t < r->s->threads; t++)
			if (thread_create(&th[t], "worker", worker_main, &r->w[t]))
				abort();
		resource_exempt_end();
		for (u32 t = 0; t < r->s->threads; t++)
			thread_join(th[t]);
	}
	for (u32 t = 0; t < r->s->threads; t++) {
		stat_add(&r->cfg->stats->ops, r->w[t].nr);
		ok = ok && !r->w[t].failed;
	}
	return ok;
}

static void drop_slots(struct run *r)
{
	for (u32 t = 0; t < r->s->threads; t++)
		for (u32 i = 0; i < SIM_HANDLES; i++)
			if (r->w[t].slot[i])
				sl_release(r->w[t].slot[i]);
}

static void arm_resources(const struct run *r)
{
	resource_arm(RES_MEMORY, r->s->oom);
	resource_arm(RES_SPACE, r->s->enospc);
}

static void disarm_resources(const struct run *r)
{
	for (u32 i = 0; i < RES_NR; i++) {
		if (r->cfg->counting)
			r->cfg->stats->resources[i] = resource_count(i);
		resource_arm(i, 0);
	}
}

/*
 * After a lack of memory or space all is as before, but for what was told:
 * an operation that failed, or data that could not be written.
 */
static bool compare_live(struct run *r)
{
	if (r->scarce && sl_is_readonly(r->sb))
		return complain(r, "a lack of memory or space made the volume read-only");
	if (r->scarce && sl_sync(r->sb))
		for (u32 t = 0; t < r->s->threads; t++)
			model_lose_data(r->w[t].m);
	if (!r->faulty || r->scarce)
		return compare_all(r, r->sb, "before the unmount");
	return true;
}

/* A failed mount has closed the device. */
static bool mount_failed(struct run *r, int err)
{
	r->bd = NULL;
	disarm_resources(r);
	stat_add(&r->cfg->stats->faults, 1);
	if (r->scarce ? scarcity_error(err) : r->faulty)
		return true;
	return complain(r, "mount: error %d", -err);
}

/*
 * Mounts, works, unmounts; the device's image after that in *after. *clean:
 * nothing says that the volume is not whole.
 */
static bool run_recorded(struct run *r, struct sim_image **after, bool *clean)
{
	struct simdev_config dev = {
		.seed = r->s->seed,
		.split = r->split,
		.threaded = r->s->dev_threaded,
		.delay_us = r->s->delay_us,
		.stall_ms = r->s->stall_ms,
		.now = r->s->now,
		.drop_flush = r->s->drop_flush,
		.lying = r->s->lying,
		.fault = r->s->fault,
		.counts = r->cfg->counting ? r->cfg->stats->transfers : NULL,
	};
	struct sl_options opts = options_of(r->s);
	bool ok, hit;
	int err;

	*clean = false;
	*after = sim_image_new(r->base);
	r->bd = simdev_create(*after, &dev, &r->log);
	opts.journal_bd = simdev_second(r->bd);
	simdev_keep_image(r->bd);
	arm_resources(r);
	err = sl_mount(r->bd, &opts, &r->sb);
	if (err)
		return mount_failed(r, err);
	ok = run_workers(r);
	resource_exempt_begin();
	if (ok)
		ok = compare_live(r);
	resource_exempt_end();
	drop_slots(r);
	hit = fault_hit(r);
	err = sl_unmount(r->sb);
	r->bd = NULL;
	r->sb = NULL;
	hit = hit || resources_hit();
	disarm_resources(r);
	if (hit)
		stat_add(&r->cfg->stats->faults, 1);
	if (err && ok && !(r->scarce ? scarcity_error(err) : r->faulty))
		ok = complain(r, "unmount: error %d", -err);
	*clean = !r->faulty || (r->scarce && !err);
	return ok;
}

/* Nothing went wrong: the volume is clean and complete. */
static bool judge_clean(struct run *r, const struct sim_image *img)
{
	struct simdev_config dev = { .seed = 1, .split = r->split };
	struct sl_options opts = options_of(NULL);
	struct super_block *sb;
	struct bdev *bd;
	bool ok;

	if (!judge_file(r, img, "clean", false, "unmounted"))
		return false;
	bd = simdev_create(sim_image_clone(img), &dev, NULL);
	opts.journal_bd = simdev_second(bd);
	if (sl_mount(bd, &opts, &sb))
		return complain(r, "no second mount");
	ok = compare_all(r, sb, "mounted again");
	if (sl_unmount(sb) && ok)
		ok = complain(r, "second unmount failed");
	return ok;
}

bool run_stream(const struct sim_stream *s, const struct run_config *cfg)
{
	struct run *r = calloc(1, sizeof(*r));
	struct sim_image *after = NULL;
	char path[256];
	bool ok, clean;

	if (!r)
		abort();
	thread_register();
	r->s = s;
	r->cfg = cfg;
	r->scarce = !s->fault.op && (s->oom || s->enospc);
	r->faulty = s->fault.op || s->oom || s->enospc;
	r->began = time(NULL);
	r->sync = calloc(MAX_SYNCS, sizeof(*r->sync));
	base_path(cfg, s->mkfs, path, sizeof(path));
	r->base = sim_base_load(path, sim_mkfs[s->mkfs].blocksize);
	if (!r->base || !r->sync)
		abort();
	r->split = sim_mkfs[s->mkfs].log ? size_bytes(sim_mkfs[s->mkfs].size) : 0;
	sim_log_init(&r->log);
	for (u32 t = 0; t < s->threads; t++) {
		r->w[t].r = r;
		r->w[t].t = t;
		r->w[t].m = model_new(s->sync, r->faulty,
					  &sim_mkfs[s->mkfs]);
	}
	ok = run_recorded(r, &after, &clean);
	sim_log_finish(&r->log);
	stat_add(&cfg->stats->events, r->log.nr_ev);
	if (ok && r->log.overlaps)
		ok = complain(r, "%u writes were submitted over others in flight, last at %" PRIu64,
			      r->log.overlaps, r->log.overlap_pos);
	if (ok && clean)
		ok = judge_clean(r, after);
	else if (ok)
		ok = judge_end(r, after);
	if (ok)
		ok = judge_points(r);
	sim_image_free(after);
	sim_log_release(&r->log);
	for (u32 t = 0; t < s->threads; t++) {
		model_free(r->w[t].m);
		free(r->w[t].out);
	}
	sim_base_free(r->base);
	free(r->sync);
	free(r);
	thread_unregister();
	return ok;
}
