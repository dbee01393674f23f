/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/bench/bench_icache.c - the inode cache alone: create, walk, chmod, unlink
 * by many threads, with the trees, lists by CPU, or one list behind the walks
 *
 * Each thread has inode numbers of its own (a run of block groups, as if
 * it worked in directories of its own), and no file system is below: reading an
 * inode fills it in, deleting it does nothing. So a row is what the cache
 * costs, and how that grows with threads.
 *
 *   create  icache_insert(), unlock, count a lookup, put
 *   walk    (caches dropped before) each is found or read, its attributes taken
 *   chmod   found, changed, marked dirty and clean again
 *   sync    each thread walks all inodes of the volume that are dirty: 1 in 64
 *   iter    each thread walks all inodes of the volume
 *   unlink  the last link goes, the lookups are forgotten: deleted
 *
 * The arms take turns. slept: voluntary context switches of the process (a lock that
 * was not had by spinning, among others); preempted: the others. A build with
 * -Ddebug_locks=true logs at the end how often locks of each rank were waited for,
 * and for how long. Counts are checked after each step: else the exit status is 1.
 *
 * Locks: none. Threads: its own.
 */
#include "tests/bench/bench.h"

#include "cache/budget.h"
#include "cache/icache.h"
#include "cache/sb_iter.h"
#include "lib/counter.h"
#include "lib/thread.h"
#include "lib/wait.h"

#include <getopt.h>
#include <stdatomic.h>
#include <unistd.h>

#define THREADS_MAX 64u
#define INO_SPAN (1u << 18) /* numbers of a thread */
#define DIRTY_EVERY 64u

static struct super_block sb;
static u32 files = 20000; /* of a thread */

static void die(const char *what)
{
	fprintf(stderr, "bench-icache: %s\n", what);
	exit(1);
}

/* ---- no file system ---- */

static struct inode *alloc_inode(struct super_block *s)
{
	struct inode *inode = calloc(1, sizeof(*inode));

	if (inode)
		inode_init_once(inode);
	return inode;
}

static void free_inode(struct inode *inode)
{
	inode_destroy_locks(inode);
	free(inode);
}

static int read_inode(struct inode *inode)
{
	inode->i_nlink = 1;
	inode->i_mode = S_IFREG | 0644;
	return 0;
}

static void evict_inode(struct inode *inode, bool delete)
{
	mapping_destroy(&inode->i_mapping);
}

static const struct super_ops ops = {
	.alloc_inode = alloc_inode,
	.free_inode = free_inode,
	.read_inode = read_inode,
	.evict_inode = evict_inode,
};

static void make_volume(enum inode_iter which, u32 threads)
{
	u64 limit = (u64)files * threads * 4096 + (256 << 20);

	memset(&sb, 0, sizeof(sb));
	sb.s_op = &ops;
	sb.s_blocksize = 4096;
	sb.s_blocksize_bits = 12;
	sb.s_inode_iter = which;
	strcpy(sb.s_id, "bench");
	sb.s_dirty_bytes = counter_new(0, 4096);
	if (!sb.s_dirty_bytes || budget_create(limit, 1, &sb.s_budget) ||
	    mapping_cache_create(&sb, NULL) || icache_create(&sb, threads * INO_SPAN))
		die("no memory");
}

static void free_volume(void)
{
	icache_destroy(&sb);
	mapping_cache_destroy(&sb);
	budget_destroy(sb.s_budget);
	counter_free(sb.s_dirty_bytes);
}

/* ---- what a thread does ---- */

struct worker {
	struct thread *thread;
	u32 nr;
	u64 seen; /* inodes, of this step */
	void (*step)(struct worker *w);
} __cacheline_aligned;

static _Atomic bool go;

static ino_nr ino_of(const struct worker *w, u32 i)
{
	return w->nr * INO_SPAN + 16 + i;
}

static struct inode *must_get(ino_nr ino)
{
	struct inode *inode;

	if (icache_get(&sb, ino, &inode))
		die("an inode could not be had");
	return inode;
}

static void step_create(struct worker *w)
{
	for (u32 i = 0; i < files; i++) {
		struct inode *inode = alloc_inode(&sb);

		if (!inode)
			die("no memory");
		inode->i_ino = ino_of(w, i);
		(void)read_inode(inode);
		if (icache_insert(&sb, inode))
			die("an inode could not be entered");
		inode_unlock_new(inode);
		inode_lookup_inc(inode);
		inode_put(inode);
		w->seen++;
	}
}

static void step_walk(struct worker *w)
{
	for (u32 i = 0; i < files; i++) {
		struct inode_attrs attrs;
		struct inode *inode;

		if (icache_peek_attrs(&sb, ino_of(w, i), &attrs)) {
			inode = must_get(ino_of(w, i));
			inode_get_attrs(inode, &attrs);
			inode_put(inode);
		}
		w->seen += attrs.nlink;
	}
}

static void step_chmod(struct worker *w)
{
	for (u32 i = 0; i < files; i++) {
		struct inode *inode = must_get(ino_of(w, i));

		inode_attrs_lock(inode);
		inode->i_mode = S_IFREG | 0600;
		inode_attrs_unlock(inode);
		inode_mark_dirty(inode, I_DIRTY_INODE);
		if (i % DIRTY_EVERY)
			inode_clear_dirty(inode, I_DIRTY_INODE);
		inode_put(inode);
		w->seen++;
	}
}

static int count(struct inode *inode, void *priv)
{
	++*(u64 *)priv;
	return INO_ITER_RET_CONT;
}

static void step_sync(struct worker *w)
{
	if (super_iter_inodes(&sb, count, &w->seen, INO_ITER_F_DIRTY))
		die("a walk failed");
}

static void step_iter(struct worker *w)
{
	if (super_iter_inodes(&sb, count, &w->seen, 0))
		die("a walk failed");
}

static void step_unlink(struct worker *w)
{
	for (u32 i = 0; i < files; i++) {
		struct inode *inode = must_get(ino_of(w, i));

		inode_attrs_lock(inode);
		inode->i_nlink = 0;
		inode_attrs_unlock(inode);
		inode_put(inode);
		icache_forget(&sb, ino_of(w, i), 1);
		w->seen++;
	}
}

static void worker_main(void *arg)
{
	struct worker *w = arg;

	wait_event(&go, atomic_load(&go));
	w->step(w);
}

static void write_all(void)
{
	struct inode *inode;

	while ((inode = icache_next_dirty(&sb, UINT64_MAX))) {
		inode_clear_dirty(inode, I_DIRTY);
		icache_written(inode);
		inode_put(inode);
	}
}

/* ---- the table ---- */

static const struct step {
	const char *name;
	void (*fn)(struct worker *w);
	bool all; /* each thread goes through all inodes */
	u32 part; /* or one in so many */
	bool cold;
} steps[] = {
	{ "create", step_create, .part = 1 },
	{ "walk", step_walk, .part = 1, .cold = true },
	{ "chmod", step_chmod, .part = 1 },
	{ "sync", step_sync, .all = true, .part = DIRTY_EVERY },
	{ "iter", step_iter, .all = true, .part = 1 },
	{ "unlink", step_unlink, .part = 1 },
};

static void run_step(struct bench_table *t, const struct step *s, u32 threads)
{
	static struct worker w[THREADS_MAX];
	u64 each = ((u64)files + s->part - 1) / s->part;
	struct bench_usage used;
	u64 seen = 0;

	if (s->cold)
		icache_shrink_all(&sb);
	atomic_store(&go, false);
	for (u32 i = 0; i < threads; i++) {
		w[i] = (struct worker){ .nr = i, .step = s->fn };
		if (thread_create(&w[i].thread, "bench", worker_main, &w[i]))
			die("no thread");
	}
	used = bench_usage_now();
	atomic_store(&go, true);
	wake_up(&go);
	for (u32 i = 0; i < threads; i++) {
		thread_join(w[i].thread);
		seen += w[i].seen;
	}
	used = bench_usage_since(used);
	if (seen != each * threads * (s->all ? threads : 1))
		die("the inodes seen do not add up");
	if (!t)
		return;
	bench_row_begin(t);
	bench_cell_text(t, "arm", super_iter_name(&sb));
	bench_cell_int(t, "threads", threads);
	bench_cell_text(t, "step", s->name);
	bench_cell_int(t, "inodes", seen);
	bench_cell_real(t, "inodes_per_ms",
			(double)seen * 1e6 / (double)max_of(used.wall_ns, 1ull));
	bench_cell_real(t, "cpu_us_each",
			(double)used.cpu_ns / 1e3 / (double)max_of(seen, 1ull));
	bench_cell_int(t, "slept", used.waits);
	bench_cell_int(t, "preempted", used.preempted);
	bench_row_end(t);
}

/* t NULL: not to be shown. */
static void run_arm(struct bench_table *t, enum inode_iter which, u32 threads)
{
	make_volume(which, threads);
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		run_step(t, &steps[i], threads);
		if (steps[i].fn == step_iter)
			write_all();
	}
	free_volume();
}

static void usage(void)
{
	fprintf(stderr,
		"usage: bench-icache [-n FILES] [-t THREADS] [-r REPEATS] [-j FILE]\n"
		"  -n  inodes of each thread (20000, up to 200000)\n"
		"  -t  up to so many threads, 1, 2, 4, ... (64)\n"
		"  -r  all of it so many times (1)\n"
		"  -j  the rows as JSON, too\n");
	exit(2);
}

int main(int argc, char **argv)
{
	u64 n = files, max_threads = THREADS_MAX, repeats = 1;
	const char *json = NULL;
	struct bench_table t;
	int c;

	while ((c = getopt(argc, argv, "n:t:r:j:h")) != -1) {
		if (c == 'j')
			json = optarg;
		else if (c == 'h' || c == '?' ||
			 !bench_parse_size(optarg, c == 'n' ? &n :
						   c == 't' ? &max_threads :
							      &repeats))
			usage();
	}
	if (optind < argc || !n || n > 200000 || !max_threads ||
	    max_threads > THREADS_MAX || !repeats)
		usage();
	files = (u32)n;
	if (!bench_table_open(&t, "icache", json))
		die("the JSON file can't be made");
	thread_register();
	for (u64 r = 0; r < repeats; r++)
		for (u32 threads = 1; threads <= max_threads; threads *= 2) {
			/* Or the first arm would pay for the heap of all. */
			run_arm(NULL, INODE_ITER_GLOBAL, threads);
			for (int which = INODE_ITER_ICACHE;
			     which <= INODE_ITER_GLOBAL; which++)
				run_arm(&t, (enum inode_iter)which, threads);
		}
	lock_stats_dump();
	if (!bench_table_close(&t))
		die("the JSON file can't be written");
	return 0;
}
