/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/crash/crash_inproc.c - kill -9 of the whole file system, without a mount
 *
 * A child process mounts an image through fs/fs.h and lets the workload of
 * crashload.c run on it; it is killed at a random moment. Copies of the image
 * are then recovered: by Sluice (in a process of its own), checked, unmounted,
 * e2fsck; read-only by Sluice, which must see the same and change no byte; and by
 * e2fsck's own recovery, whose outcome must be the same tree.
 *
 *   crash-inproc RECOVER-E2FSCK [ROUNDS [SEED]]
 *
 * CRASH_KEEP=1 keeps the files of rounds that fail.
 *
 * Threads: the parent has none, so that it can fork
 */
#include "tests/crash/crashload.h"
#include "tests/unit/fs/volume.h"

#include <errno.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

static const struct sl_cred root_cred = { 0, 0, 0 }; /* no umask: modes are as asked for */

/* ---- crashload's operations over fs/fs.h ---- */

static int walk(struct load_fs *fs, const char *path, struct inode **out)
{
	struct inode *dir, *next;
	int err = sl_iget(fs->priv, 2, &dir);

	while (!err && *path) {
		size_t len = strcspn(path, "/");

		err = sl_lookup(dir, path, len, &next);
		sl_iput(dir);
		dir = next;
		path += len + (path[len] == '/');
	}
	if (!err)
		*out = dir;
	return err;
}

static int walk_parent(struct load_fs *fs, const char *path, struct inode **dir,
		       const char **name, size_t *len)
{
	const char *slash = strrchr(path, '/');
	size_t up_len = slash ? (size_t)(slash - path) : 0;
	char up[512];

	if (up_len >= sizeof(up))
		return -ENAMETOOLONG;
	memcpy(up, path, up_len);
	up[up_len] = '\0';
	*name = slash ? slash + 1 : path;
	*len = strlen(*name);
	return walk(fs, up, dir);
}

static int open_inode(struct inode *inode, void **h)
{
	struct sl_file *f;
	struct stat st;
	int err;

	sl_getattr(inode, &st);
	err = S_ISDIR(st.st_mode) ? sl_opendir(inode, &f)
				  : sl_open(inode, SL_OPEN_WRITE, &f);
	if (err == -EROFS)
		err = sl_open(inode, 0, &f);
	sl_iput(inode);
	if (!err)
		*h = f;
	return err;
}

static int ip_create(struct load_fs *fs, const char *path, unsigned mode, void **h)
{
	struct inode *dir, *inode;
	const char *name;
	size_t len;
	int err = walk_parent(fs, path, &dir, &name, &len);

	if (err)
		return err;
	err = sl_mknod(dir, name, len, S_IFREG | mode, 0, &root_cred, &inode);
	sl_iput(dir);
	return err ? err : open_inode(inode, h);
}

static int ip_open(struct load_fs *fs, const char *path, void **h)
{
	struct inode *inode;
	int err = walk(fs, path, &inode);

	return err ? err : open_inode(inode, h);
}

static void ip_close(void *h)
{
	sl_release(h);
}

static ssize_t ip_pwrite(void *h, const void *buf, size_t len, uint64_t pos)
{
	return sl_write(h, buf, len, pos, 0, &root_cred);
}

static ssize_t ip_pread(void *h, void *buf, size_t len, uint64_t pos)
{
	return sl_read(h, buf, len, pos);
}

static int ip_truncate(void *h, uint64_t size)
{
	struct stat st = { .st_size = (off_t)size };

	return sl_setattr(sl_file_inode(h), &st, SL_SET_SIZE, &root_cred, NULL);
}

static int ip_fallocate(void *h, bool keep_size, uint64_t pos, uint64_t len)
{
	return sl_fallocate(h, keep_size ? FALLOC_FL_KEEP_SIZE : 0, pos, len, &root_cred);
}

static int ip_fsync(void *h, bool datasync)
{
	return sl_fsync(h, datasync);
}

static int ip_fsyncdir(struct load_fs *fs, const char *path)
{
	void *h;
	int err = ip_open(fs, path, &h);

	if (err)
		return err;
	err = sl_fsync(h, false);
	sl_release(h);
	return err;
}

static int ip_sync(struct load_fs *fs)
{
	return sl_sync(fs->priv);
}

static int ip_mkdir(struct load_fs *fs, const char *path, unsigned mode)
{
	struct inode *dir, *inode;
	const char *name;
	size_t len;
	int err = walk_parent(fs, path, &dir, &name, &len);

	if (err)
		return err;
	err = sl_mkdir(dir, name, len, mode, &root_cred, &inode);
	sl_iput(dir);
	if (!err)
		sl_iput(inode);
	return err;
}

static int ip_remove(struct load_fs *fs, const char *path,
		     int (*remove_fn)(struct inode *, const char *, size_t))
{
	struct inode *dir;
	const char *name;
	size_t len;
	int err = walk_parent(fs, path, &dir, &name, &len);

	if (err)
		return err;
	err = remove_fn(dir, name, len);
	sl_iput(dir);
	return err;
}

static int ip_rmdir(struct load_fs *fs, const char *path)
{
	return ip_remove(fs, path, sl_rmdir);
}

static int ip_unlink(struct load_fs *fs, const char *path)
{
	return ip_remove(fs, path, sl_unlink);
}

static int ip_symlink(struct load_fs *fs, const char *target, const char *path)
{
	struct inode *dir, *inode;
	const char *name;
	size_t len;
	int err = walk_parent(fs, path, &dir, &name, &len);

	if (err)
		return err;
	err = sl_symlink(dir, name, len, target, &root_cred, &inode);
	sl_iput(dir);
	if (!err)
		sl_iput(inode);
	return err;
}

static ssize_t ip_readlink(struct load_fs *fs, const char *path, char *buf, size_t len)
{
	struct inode *inode;
	ssize_t n;
	int err = walk(fs, path, &inode);

	if (err)
		return err;
	n = sl_readlink(inode, buf, len);
	sl_iput(inode);
	return n;
}

static int ip_link(struct load_fs *fs, const char *old, const char *path)
{
	struct inode *inode, *dir;
	const char *name;
	size_t len;
	int err = walk(fs, old, &inode);

	if (err)
		return err;
	err = walk_parent(fs, path, &dir, &name, &len);
	if (!err) {
		err = sl_link(inode, dir, name, len);
		sl_iput(dir);
	}
	sl_iput(inode);
	return err;
}

static int ip_rename(struct load_fs *fs, const char *from, const char *to, bool exchange)
{
	struct inode *fdir, *tdir;
	const char *fname, *tname;
	size_t flen, tlen;
	int err = walk_parent(fs, from, &fdir, &fname, &flen);

	if (err)
		return err;
	err = walk_parent(fs, to, &tdir, &tname, &tlen);
	if (!err) {
		err = sl_rename(fdir, fname, flen, tdir, tname, tlen,
				exchange ? RENAME_EXCHANGE : 0);
		sl_iput(tdir);
	}
	sl_iput(fdir);
	return err;
}

static int ip_stat(struct load_fs *fs, const char *path, struct stat *st)
{
	struct inode *inode;
	int err = walk(fs, path, &inode);

	if (err)
		return err;
	sl_getattr(inode, st);
	sl_iput(inode);
	return 0;
}

struct emit_ctx {
	void (*emit)(void *priv, const char *name);
	void *priv;
};

static int emit_entry(void *priv, const struct sl_dirent *de)
{
	struct emit_ctx *c = priv;
	char name[256];

	snprintf(name, sizeof(name), "%.*s", (int)de->namelen, de->name);
	if (strcmp(name, ".") && strcmp(name, ".."))
		c->emit(c->priv, name);
	return 0;
}

static int ip_list(struct load_fs *fs, const char *path,
		   void (*emit)(void *priv, const char *name), void *priv)
{
	struct emit_ctx c = { emit, priv };
	void *h;
	int err = ip_open(fs, path, &h);

	if (err)
		return err;
	err = sl_readdir(h, 0, emit_entry, &c);
	sl_release(h);
	return err;
}

static void ip_thread_begin(struct load_fs *fs)
{
	thread_register();
}

static void ip_thread_end(struct load_fs *fs)
{
	thread_unregister();
}

static const struct load_ops inproc_ops = {
	.create = ip_create, .open = ip_open, .close = ip_close,
	.pwrite = ip_pwrite, .pread = ip_pread, .truncate = ip_truncate,
	.fallocate = ip_fallocate, .fsync = ip_fsync, .fsyncdir = ip_fsyncdir,
	.sync = ip_sync, .mkdir = ip_mkdir, .rmdir = ip_rmdir,
	.unlink = ip_unlink, .symlink = ip_symlink, .readlink = ip_readlink,
	.link = ip_link, .rename = ip_rename, .stat = ip_stat, .list = ip_list,
	.thread_begin = ip_thread_begin, .thread_end = ip_thread_end,
};

/* ---- one round ---- */

struct round {
	struct volume v;
	char log[96], copy[96], other[96], tree[96], tree2[96];
	const char *recover; /* the program for e2fsck's own recovery */
	unsigned seed;
	u32 commit_ms;
};

/* In a child, which ends with the result. */
static int with_mount(const char *image, bool readonly, u32 commit_ms,
		      int (*fn)(struct load_fs *fs, const struct round *r),
		      const struct round *r)
{
	struct sl_options opts = { .cache_bytes = 24 << 20, .readonly = readonly,
				   .commit_ms = commit_ms, .dirty_expire_ms = 700 };
	struct load_fs fs = { &inproc_ops, NULL };
	struct super_block *sb;
	struct volume v = r->v;
	int err, ret;

	log_init("crash", getenv("SL_DEBUG") ? LOG_LVL_DEBUG : LOG_LVL_WARN);
	thread_register();
	snprintf(v.image, sizeof(v.image), "%.95s", image);
	err = volume_mount(&v, &opts, &sb);
	if (err) {
		fprintf(stderr, "mount of %s: %s\n", image, strerror(-err));
		return 1;
	}
	fs.priv = sb;
	ret = fn(&fs, r);
	err = sl_unmount(sb);
	if (err) {
		fprintf(stderr, "unmount of %s: %s\n", image, strerror(-err));
		return 1;
	}
	return ret;
}

static int do_load(struct load_fs *fs, const struct round *r)
{
	struct load_options opt = { .threads = 1 + r->seed % 6, .seed = r->seed };

	return load_run(fs, r->log, &opt);
}

static int do_check(struct load_fs *fs, const struct round *r)
{
	int bad = load_check(fs, r->log, false);

	fflush(stdout);
	if (!freopen(r->tree, "w", stdout))
		return 1;
	return load_list(fs) | bad;
}

static int do_list(struct load_fs *fs, const struct round *r)
{
	if (!freopen(r->tree2, "w", stdout))
		return 1;
	return load_list(fs);
}

static pid_t start(const char *image, bool readonly, u32 commit_ms,
		   int (*fn)(struct load_fs *, const struct round *), const struct round *r)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		int ret = with_mount(image, readonly, commit_ms, fn, r);

		fflush(stdout);
		_exit(ret);
	}
	return pid;
}

static int finish(pid_t pid)
{
	int status;

	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return 1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int shell(const char *fmt, const char *a, const char *b)
{
	char cmd[600];
	int status;

	snprintf(cmd, sizeof(cmd), fmt, a, b);
	status = system(cmd);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static int fsck(const struct round *r, const char *image)
{
	struct volume v = r->v;

	snprintf(v.image, sizeof(v.image), "%.95s", image);
	return volume_fsck(&v);
}

#define STEP(what, cond)                                                        \
	do {                                                                    \
		int step_ret = (cond);                                          \
		if (step_ret) {                                                 \
			fprintf(stderr, "seed %u: %s: %d\n", r->seed, what,     \
				step_ret);                                      \
			return 1;                                               \
		}                                                               \
	} while (0)

static int recover_and_compare(struct round *r)
{
	STEP("copy", shell("cp --sparse=always %s %s", r->v.image, r->copy));
	STEP("recovery by sluice", finish(start(r->copy, false, 0, do_check, r)));
	STEP("e2fsck after sluice", fsck(r, r->copy));

	STEP("sluice, read-only", finish(start(r->v.image, true, 0, do_list, r)));
	STEP("same tree read-only", shell("cmp %s %s", r->tree, r->tree2));

	STEP("copy", shell("cp --sparse=always %s %s", r->v.image, r->other));
	STEP("recovery by e2fsck", shell("%s %s >&2", r->recover, r->other));
	STEP("sluice after e2fsck", finish(start(r->other, true, 0, do_list, r)));
	STEP("same tree after e2fsck", shell("cmp %s %s", r->tree, r->tree2));
	return 0;
}

/*
 * Until the volume is mounted and the workload has a log, however long that takes
 * here: what is killed before has nothing to be checked against. Or until the child
 * has ended; it is not reaped.
 */
static void await_log(const struct round *r, pid_t pid)
{
	struct timespec nap = { .tv_nsec = 1000000 };
	siginfo_t ended = { 0 };
	struct stat st;

	while ((stat(r->log, &st) || !st.st_size) &&
	       !waitid(P_PID, (id_t)pid, &ended, WEXITED | WNOHANG | WNOWAIT) &&
	       !ended.si_pid)
		nanosleep(&nap, NULL);
}

static int run_round(struct round *r, unsigned ms)
{
	struct timespec nap = { ms / 1000, (long)(ms % 1000) * 1000000 };
	pid_t pid;
	int ret;

	pid = start(r->v.image, false, r->commit_ms, do_load, r);
	if (pid < 0)
		return 1;
	await_log(r, pid);
	nanosleep(&nap, NULL);
	kill(pid, SIGKILL);
	ret = finish(pid);
	if (ret != 128 + SIGKILL) {
		fprintf(stderr, "seed %u: the workload ended by itself: %d\n", r->seed, ret);
		return 1;
	}
	STEP("keep", shell("cp --sparse=always %s %s.crashed", r->v.image, r->v.image));
	ret = recover_and_compare(r);
	if (!ret)
		STEP("unchanged by read-only mounts",
		     shell("cmp %s %s.crashed", r->v.image, r->v.image));
	return ret;
}

static const char *const configs[] = {
	"-b 4096",
	"-b 1024 -O orphan_file,metadata_csum_seed",
	"-b 1024 -O ^metadata_csum -J size=4",
	"-b 2048 -J size=4",
	"-b 4096 -O orphan_file,metadata_csum_seed -J size=4",
	"-b 1024 -O ^64bit,uninit_bg,^metadata_csum -g 4096",
	"-b 4096 -O ^metadata_csum,large_dir",
	"-b 1024 -J size=4 -O meta_bg,^resize_inode",
};
#define NR_CONFIGS (sizeof(configs) / sizeof(configs[0]))

/* mke2fs over old bytes, so that what is exposed of the device is seen. */
static void make_image(struct round *r, const char *mkfs)
{
	char args[256];

	snprintf(args, sizeof(args), "%s -E nodiscard,lazy_itable_init=%u", mkfs,
		 r->seed / 2 % 2);
	snprintf(r->v.dir, sizeof(r->v.dir), "%s/sluice-crash-XXXXXX",
		 getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	if (!mkdtemp(r->v.dir)) {
		perror(r->v.dir);
		exit(1);
	}
	snprintf(r->v.image, sizeof(r->v.image), "%s/img", r->v.dir);
	if (shell("head -c 134217728 /dev/zero | tr '\\0' '\\245' >%s", r->v.image, "")) {
		fprintf(stderr, "cannot fill the image\n");
		exit(1);
	}
	if (shell("mke2fs -q -t ext4 -F %s %s >/dev/null", args, r->v.image)) {
		fprintf(stderr, "mke2fs %s failed\n", args);
		exit(1);
	}
}

int main(int argc, char **argv)
{
	unsigned rounds = argc > 2 ? (unsigned)atoi(argv[2]) : 8;
	unsigned seed = argc > 3 ? (unsigned)atoi(argv[3]) : (unsigned)time(NULL);
	unsigned failed = 0;

	if (argc < 2) {
		fprintf(stderr, "usage: crash-inproc RECOVER-E2FSCK [ROUNDS [SEED]]\n");
		return 2;
	}
	printf("seed %u\n", seed);
	for (unsigned n = 0; n < rounds; n++) {
		struct round r = { .seed = seed + n, .recover = argv[1] };
		const char *mkfs = configs[r.seed % NR_CONFIGS];
		unsigned ms = 100 + r.seed * 2654435761u % 1200;
		int bad;

		r.commit_ms = r.seed % 3 ? 100 + r.seed % 400 : 5000;
		make_image(&r, mkfs);
		snprintf(r.log, sizeof(r.log), "%s/log", r.v.dir);
		snprintf(r.copy, sizeof(r.copy), "%s/copy", r.v.dir);
		snprintf(r.other, sizeof(r.other), "%s/other", r.v.dir);
		snprintf(r.tree, sizeof(r.tree), "%s/tree", r.v.dir);
		snprintf(r.tree2, sizeof(r.tree2), "%s/tree2", r.v.dir);
		bad = run_round(&r, ms);
		printf("%s seed %u, killed after %u ms: %s\n", bad ? "FAIL" : "ok", r.seed,
		       ms, mkfs);
		if (bad && getenv("CRASH_KEEP")) {
			printf("kept: %s\n", r.v.dir);
		} else {
			char cmd[128];

			snprintf(cmd, sizeof(cmd), "rm -rf %s", r.v.dir);
			if (system(cmd))
				printf("%s is left\n", r.v.dir);
		}
		failed += bad != 0;
	}
	printf("%u passed, %u failed, 0 skipped\n", rounds - failed, failed);
	return failed != 0;
}
