/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/bench/bench_leaf.c - one file, many threads: leaf locks against one
 * lock for the whole map
 *
 * Threads read and overwrite random blocks of one cached file through the page
 * cache (mapping_read_cached(), mapping_overwrite()), that is, with a leaf
 * lock each. In the other arm the same calls are made under one lock for the
 * whole map, of the same kind, so that all else is equal. The arms take turns
 * within each repetition; a row is the repetition with the median rate.
 *
 * wait: of the map's lock, or of leaf locks, that another thread had; it is
 * timed only then. Switches are those of the process.
 *
 * Locks:   spinlock of the map (RANK_NONE) -> leaf locks
 * Threads: its own
 */
#include "tests/bench/bench.h"

#include "cache/budget.h"
#include "cache/icache.h"
#include "cache/mapping.h"
#include "lib/counter.h"
#include "lib/thread.h"
#include "lib/wait.h"

#include <getopt.h>
#include <stdatomic.h>
#include <unistd.h>

#define BLOCK 4096u
#define THREADS_MAX 64u
#define REPEATS_MAX 9u

struct file {
	struct super_block sb;
	struct mapping m;
	u32 blocks;
};

enum arm { ARM_LEAF, ARM_MAP, ARMS };
static const char *const arm_names[ARMS] = { "leaf", "map" };

struct run {
	struct file *file;
	enum arm arm;
	u32 reads; /* of 100 operations */
	_Atomic bool go, stop;
	struct spinlock map_lock;
	_Atomic u64 map_waits, map_wait_ns;
};

struct worker {
	struct run *run;
	u64 seed;
	u64 ops;
	struct thread *thread;
} __cacheline_aligned;

struct result {
	u64 ops;
	struct bench_usage usage;
	u64 waits, wait_ns;
};

static void die(const char *what)
{
	fprintf(stderr, "bench-leaf: %s\n", what);
	exit(1);
}

static u64 next_random(u64 *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

static NO_THREAD_SAFETY void map_lock(struct run *run)
{
	u64 start;

	if (spin_trylock(&run->map_lock))
		return;
	start = bench_now_ns();
	spin_lock(&run->map_lock);
	atomic_fetch_add(&run->map_waits, 1);
	atomic_fetch_add(&run->map_wait_ns, bench_now_ns() - start);
}

static NO_THREAD_SAFETY void one(struct run *run, u64 *seed, void *buf)
{
	struct file *f = run->file;
	u64 pos = (next_random(seed) >> 20) % f->blocks * BLOCK;
	bool read = (next_random(seed) >> 20) % 100 < run->reads, ok;

	if (run->arm == ARM_MAP)
		map_lock(run);
	if (read)
		ok = mapping_read_cached(&f->m, pos, buf, BLOCK);
	else
		ok = mapping_overwrite(&f->m, pos, buf, BLOCK, pos + BLOCK) == BLOCK;
	if (run->arm == ARM_MAP)
		spin_unlock(&run->map_lock);
	if (!ok)
		die("a block is not in the cache");
}

static void work(void *arg)
{
	struct worker *w = arg;
	static _Thread_local char buf[BLOCK];

	while (!atomic_load(&w->run->go))
		usleep(100);
	while (!atomic_load_explicit(&w->run->stop, memory_order_relaxed)) {
		one(w->run, &w->seed, buf);
		w->ops++;
	}
}

static struct result measure(struct file *f, enum arm arm, u32 threads, u32 reads,
			     u32 ms)
{
	struct run run = { .file = f, .arm = arm, .reads = reads };
	static struct worker w[THREADS_MAX];
	struct result r = { 0 };
	struct bench_usage begin;
	u64 waits = mapping_counter_read(&f->sb, MAPPING_LEAF_WAITS);
	u64 wait_ns = mapping_counter_read(&f->sb, MAPPING_LEAF_WAIT_NS);

	spin_init(&run.map_lock, RANK_NONE);
	for (u32 i = 0; i < threads; i++) {
		w[i] = (struct worker){ .run = &run, .seed = 88172645463325252ull + i };
		if (thread_create(&w[i].thread, "bench", work, &w[i]))
			die("no more threads");
	}
	begin = bench_usage_now();
	atomic_store(&run.go, true);
	usleep(ms * 1000);
	atomic_store(&run.stop, true);
	for (u32 i = 0; i < threads; i++) {
		thread_join(w[i].thread);
		r.ops += w[i].ops;
	}
	r.usage = bench_usage_since(begin);
	r.waits = mapping_counter_read(&f->sb, MAPPING_LEAF_WAITS) - waits +
		  run.map_waits;
	r.wait_ns = mapping_counter_read(&f->sb, MAPPING_LEAF_WAIT_NS) - wait_ns +
		    run.map_wait_ns;
	spin_destroy(&run.map_lock);
	return r;
}

static double rate(const struct result *r)
{
	return (double)r->ops * 1e9 / (double)r->usage.wall_ns;
}

static int by_rate(const void *a, const void *b)
{
	double x = rate(a), y = rate(b);

	return x < y ? -1 : x > y;
}

static void file_open(struct file *f, u64 bytes)
{
	char *buf = calloc(LEAF_BLOCKS, BLOCK);
	u64 none[LEAF_WORDS] = { 0 };

	memset(f, 0, sizeof(*f));
	f->blocks = (u32)(bytes / BLOCK);
	f->sb.s_blocksize = BLOCK;
	f->sb.s_blocksize_bits = 12;
	f->sb.s_dirty_bytes = counter_new(0, 1 << 20);
	if (!buf || !f->sb.s_dirty_bytes ||
	    budget_create(4 * bytes + (64u << 20), 1, &f->sb.s_budget) ||
	    mapping_cache_create(&f->sb, NULL))
		die("out of memory");
	mapping_init(&f->m, NULL, &f->sb);
	for (u32 b = 0; b < f->blocks; b += LEAF_BLOCKS) {
		u32 nr = min_of(f->blocks - b, LEAF_BLOCKS), reserved = nr;

		if (mapping_write(&f->m, (u64)b * BLOCK, buf, nr * BLOCK, none,
				  &reserved) != (s64)nr * BLOCK)
			die("cannot fill the cache");
	}
	free(buf);
}

static void file_close(struct file *f)
{
	mapping_invalidate(&f->m, 0, LBLK_MAX + 1);
	mapping_destroy(&f->m);
	mapping_cache_destroy(&f->sb);
	budget_destroy(f->sb.s_budget);
	counter_free(f->sb.s_dirty_bytes);
}

static void usage(int code)
{
	fprintf(code ? stderr : stdout,
		"usage: bench-leaf [-s SIZE] [-t MAX_THREADS] [-r READS_OF_100] [-d MS]\n"
		"                  [-n REPEATS] [-j FILE]\n"
		"Random reads and overwrites of 4 KiB in one cached file: 64M, 64 threads,\n"
		"50 reads of 100, 500 ms, 5 times. -j: the table as JSON too.\n");
	exit(code);
}

int main(int argc, char **argv)
{
	struct result res[ARMS][REPEATS_MAX];
	struct bench_table t = { .title = "leaf" };
	u32 max = 64, reads = 50, ms = 500, repeats = 5;
	u64 bytes = 64u << 20;
	struct file f;
	int c;

	while ((c = getopt(argc, argv, "s:t:r:d:n:j:h")) != -1) {
		switch (c) {
		case 's':
			if (!bench_parse_size(optarg, &bytes))
				usage(1);
			break;
		case 't':
			max = (u32)atoi(optarg);
			break;
		case 'r':
			reads = (u32)atoi(optarg);
			break;
		case 'd':
			ms = (u32)atoi(optarg);
			break;
		case 'n':
			repeats = (u32)atoi(optarg);
			break;
		case 'j':
			t.json = fopen(optarg, "w");
			if (!t.json)
				die("cannot write the JSON file");
			fprintf(t.json, "{\"benchmark\": \"leaf\", \"rows\": [");
			break;
		default:
			usage(c == 'h' ? 0 : 1);
		}
	}
	if (!max || max > THREADS_MAX || !repeats || repeats > REPEATS_MAX ||
	    bytes < BLOCK || bytes > 16ull << 30)
		usage(1);
	thread_register();
	file_open(&f, bytes);
	for (u32 threads = 1; threads <= max; threads *= 2) {
		for (u32 n = 0; n < repeats; n++)
			for (int arm = 0; arm < ARMS; arm++)
				res[arm][n] = measure(&f, arm, threads, reads, ms);
		for (int arm = 0; arm < ARMS; arm++) {
			struct result *r;

			qsort(res[arm], repeats, sizeof(*r), by_rate);
			r = &res[arm][repeats / 2];
			bench_row_begin(&t);
			bench_cell_int(&t, "threads", threads);
			bench_cell_text(&t, "lock", arm_names[arm]);
			bench_cell_real(&t, "Mops/s", rate(r) / 1e6);
			bench_cell_int(&t, "waits", r->waits);
			bench_cell_real(&t, "wait_ms/s",
					(double)r->wait_ns * 1e3 /
						(double)r->usage.wall_ns);
			bench_cell_int(&t, "switches",
				       r->usage.waits + r->usage.preempted);
			bench_cell_real(&t, "cpu_us/op",
					(double)r->usage.cpu_ns / 1e3 /
						(double)max_of(r->ops, (u64)1));
			bench_row_end(&t);
		}
	}
	file_close(&f);
	if (!bench_table_close(&t))
		die("cannot write the JSON file");
	thread_unregister();
	return 0;
}
