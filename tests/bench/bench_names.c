/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/bench/bench_names.c - create and unlink in process, on a device in memory
 *
 * One thread does, for each file, what the requests of a create and an unlink ask of
 * fs/; the FUSE library and the kernel are left out. Meant for a profiler: under
 * `valgrind --tool=callgrind` the number of instructions does not depend on who else
 * uses the machine. Afterwards the volume is checked by e2fsck.
 *
 * Locks: none. Threads: its own one, and those of a mount.
 */
#include "tests/bench/bench.h"
#include "tests/unit/unit.h"
#include "tests/unit/fs/memvol.h"

#include <getopt.h>
#include <sys/stat.h>

#define PER_DIR 2000u

static struct super_block *sb;

static void check(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "bench-names: %s\n", what);
	exit(1);
}

static size_t name_of(char *name, size_t room, u32 i)
{
	return (size_t)snprintf(name, room, "file-%06u", i);
}

/* LOOKUP, CREATE, RELEASE. */
static void create_one(u64 parent, u32 i)
{
	static const struct sl_cred cred = { .umask = 022 };
	struct inode *dir, *inode;
	struct sl_entry entry;
	struct sl_file *f;
	char name[32];
	size_t len = name_of(name, sizeof(name), i);
	int err = sl_lookup_cached(sb, parent, name, len, &entry);

	check(!sl_iget(sb, parent, &dir), "directory");
	if (err == -EAGAIN)
		err = sl_lookup(dir, name, len, &inode);
	check(err == -ENOENT, "a name is there already");
	check(!sl_mknod(dir, name, len, S_IFREG | 0644, 0, &cred, &inode), "create");
	check(!sl_open(inode, SL_OPEN_WRITE, &f), "open");
	sl_lookup_inc(inode);
	sl_iput(inode);
	sl_iput(dir);
	sl_release(f);
}

/* GETATTR of the directory, LOOKUP, UNLINK, FORGET. */
static void unlink_one(u64 parent, u32 i)
{
	struct inode *dir, *inode;
	struct stat st;
	char name[32];
	size_t len = name_of(name, sizeof(name), i);
	u64 ino;

	check(!sl_iget(sb, parent, &dir), "directory");
	sl_getattr(dir, &st);
	check(!sl_lookup(dir, name, len, &inode), "lookup");
	ino = sl_ino(inode);
	sl_iput(inode);
	check(!sl_unlink(dir, name, len), "unlink");
	sl_forget(sb, ino, 1);
	sl_iput(dir);
}

static u64 make_dir(u32 nr)
{
	static const struct sl_cred cred = { .umask = 022 };
	struct inode *root, *dir;
	char name[32];
	size_t len = (size_t)snprintf(name, sizeof(name), "d%u", nr);
	u64 ino;

	check(!sl_iget(sb, 2, &root), "root");
	check(!sl_mkdir(root, name, len, S_IFDIR | 0755, &cred, &dir), "mkdir");
	sl_lookup_inc(dir);
	ino = sl_ino(dir);
	sl_iput(dir);
	sl_iput(root);
	return ino;
}

static void run(struct bench_table *t, const char *step, const u64 *dirs, u32 files,
		void (*one)(u64 parent, u32 i))
{
	struct bench_usage used = bench_usage_now();

	for (u32 i = 0; i < files; i++)
		one(dirs[i / PER_DIR], i % PER_DIR);
	used = bench_usage_since(used);
	bench_row_begin(t);
	bench_cell_text(t, "step", step);
	bench_cell_int(t, "files", files);
	bench_cell_real(t, "cpu_us_each", (double)used.cpu_ns / 1e3 / files);
	bench_row_end(t);
}

static void usage(void)
{
	fprintf(stderr, "usage: bench-names [-n FILES] [-c] [-j FILE]\n"
			"  -n  files, %u in a directory (20000, up to 50000)\n"
			"  -c  creates only\n"
			"  -j  the rows as JSON, too\n", PER_DIR);
	exit(2);
}

int main(int argc, char **argv)
{
	struct sl_options opts = { .cache_bytes = 256 << 20 };
	const char *json = NULL;
	bool create_only = false;
	struct bench_table t;
	struct memvol mv;
	u64 n = 20000, *dirs;
	u32 nr_dirs;
	int c;

	while ((c = getopt(argc, argv, "n:cj:h")) != -1) {
		if (c == 'j')
			json = optarg;
		else if (c == 'c')
			create_only = true;
		else if (c == 'h' || c == '?' || !bench_parse_size(optarg, &n))
			usage();
	}
	if (optind < argc || !n || n > 50000)
		usage();
	check(bench_table_open(&t, "names", json), "the JSON file can't be made");
	log_init("bench-names", LOG_LVL_WARN);
	thread_register();
	memvol_make(&mv, "-N 65536", "64M");
	check(!memvol_mount(&mv, &opts, &sb), "mount");
	nr_dirs = (u32)DIV_ROUND_UP(n, PER_DIR);
	dirs = calloc(nr_dirs, sizeof(*dirs));
	check(dirs, "no memory");
	for (u32 i = 0; i < nr_dirs; i++)
		dirs[i] = make_dir(i);
	run(&t, "create", dirs, (u32)n, create_one);
	if (!create_only)
		run(&t, "unlink", dirs, (u32)n, unlink_one);
	for (u32 i = 0; i < nr_dirs; i++)
		sl_forget(sb, dirs[i], 1);
	check(!sl_unmount(sb), "unmount");
	check(!memvol_fsck(&mv), "e2fsck");
	memvol_free(&mv);
	free(dirs);
	check(bench_table_close(&t), "the JSON file can't be written");
	return 0;
}
