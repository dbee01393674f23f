/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/bench/bench_window.c - the windows of one file under a mutex, and under
 * a lock that walkers share
 *
 * A mix in the manner of AIM7: simulated users, a thread each, with the same
 * file open. A job of a user is some reads of 4 KiB from the cache, each noted
 * in the handle's window, then walks over the windows of the file, as a
 * truncation, a failed write, statistics or reclaim make them; once in a while
 * the handle jumps, which moves its window, and is closed and opened again. The arms
 * take turns within each repetition; a row has the medians of both.
 *
 * -w sets the walks of a job: 0 shows what the lock costs who does not use it.
 *
 * The migration test: beside users at their jobs, two movers do what the balancers do.
 * They ask, by trylock, who reads a range, and if they get an answer move it to
 * another of four pretended zones. What counts is the folios moved in the same time.
 *
 * Modelled figures for more CPUs than there are come from times measured here,
 * on one thread: T of a whole job, S that it holds the lock shared (or the mutex
 * in its place), E exclusively, A to take and drop it, for each of its N takes. In
 * one second no more jobs than
 *     mutex    min(cpus / T, 1 / (S + E))
 *     rwsem    min(cpus / T, 1 / (E + S / cpus + N A))
 * can be done: what is exclusive, and the changes of the lock word itself, come one
 * after the other. It is an upper bound for both: queues cost more.
 *
 * Locks:   those of the windows
 * Threads: its own
 */
#include "tests/bench/bench.h"

#include "cache/budget.h"
#include "cache/migrate.h"
#include "cache/window.h"
#include "lib/counter.h"
#include "lib/thread.h"
#include "lib/wait.h"

#include <getopt.h>
#include <stdatomic.h>
#include <unistd.h>

#define BLOCK 4096u
#define FILE_BLOCKS 2048u
/* Windows lie in a file this much larger than what of it is cached. */
#define SPREAD (1ull << 34)
#define USERS_MAX 2000u
#define REPEATS_MAX 9u
#define READS 8u
#define JOBS_PER_JUMP 16u
#define JUMPS_PER_OPEN 8u
#define ZONES 4u
#define MOVERS 2u

enum arm { ARM_MUTEX, ARM_RWSEM, ARMS };

struct file {
	struct super_block sb;
	struct mapping m;
};

struct run {
	struct file file;
	u32 walks;
	_Atomic bool go, stop;
	_Atomic u32 ready;
};

struct mover {
	struct run *run;
	u64 seed, asked, contended, moved;
	struct thread *thread;
} __cacheline_aligned;

struct user {
	struct run *run;
	u64 seed, jobs;
	struct access read, write;
	u64 place;
	struct thread *thread;
} __cacheline_aligned;

struct result {
	double jobs_min;
	u64 jobs, waits, wait_ns;
	u64 asked, contended, moved; /* by movers */
	struct bench_usage usage;
};

static struct user users[USERS_MAX];

static void die(const char *what)
{
	fprintf(stderr, "bench-window: %s\n", what);
	exit(1);
}

static u64 next_random(u64 *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s >> 16;
}

static void file_open(struct file *f, enum arm arm, u32 zones)
{
	char *buf = calloc(LEAF_BLOCKS, BLOCK);
	u64 none[LEAF_WORDS] = { 0 };

	memset(f, 0, sizeof(*f));
	f->sb.s_blocksize = BLOCK;
	f->sb.s_blocksize_bits = 12;
	f->sb.s_window_mutex = arm == ARM_MUTEX;
	f->sb.s_dirty_bytes = counter_new(0, 1 << 20);
	if (!buf || !f->sb.s_dirty_bytes ||
	    budget_create(256u << 20, zones, &f->sb.s_budget) ||
	    mapping_cache_create(&f->sb, NULL))
		die("out of memory");
	mapping_init(&f->m, NULL, &f->sb);
	for (u32 b = 0; b < FILE_BLOCKS; b += LEAF_BLOCKS) {
		u32 reserved = LEAF_BLOCKS;

		if (mapping_write(&f->m, (u64)b * BLOCK, buf, LEAF_BLOCKS * BLOCK,
				  none, &reserved) != (s64)LEAF_BLOCKS * BLOCK)
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

/* A handle at a place of its own, with windows. */
static void user_open(struct user *u)
{
	struct mapping *m = &u->run->file.m;

	access_init(&u->read, WINDOW_READ);
	access_init(&u->write, WINDOW_WRITE);
	u->place = next_random(&u->seed) % SPREAD & ~(u64)(BLOCK - 1);
	for (int i = 0; i < 2; i++) {
		access_note(&u->read, m, u->place, 1 << 20);
		access_note(&u->write, m, u->place, 1 << 20);
	}
}

static void user_close(struct user *u)
{
	access_end(&u->read, &u->run->file.m);
	access_end(&u->write, &u->run->file.m);
}

static void one_walk(struct user *u)
{
	struct mapping *m = &u->run->file.m;
	lblk_t at = (lblk_t)(next_random(&u->seed) % (SPREAD / BLOCK));
	struct window_census c;

	switch (next_random(&u->seed) % 4) {
	case 0: /* who is there? */
		windows_count(m, 0, (lblk_t)UINT32_MAX, &c);
		break;
	case 1: /* a range is punched */
		windows_cut(m, at, at + (1 << 20));
		break;
	case 2: /* a write failed */
		windows_set_error(m, at, at + (1 << 18), -EIO);
		break;
	default: /* nothing is beyond the new end */
		windows_truncate(m, (lblk_t)UINT32_MAX - 512);
	}
}

static void one_job(struct user *u)
{
	static _Thread_local char buf[BLOCK];
	struct mapping *m = &u->run->file.m;

	for (u32 i = 0; i < READS; i++) {
		u64 pos = next_random(&u->seed) % FILE_BLOCKS * BLOCK;

		access_note(&u->read, m, u->place + i * BLOCK, BLOCK);
		if (!mapping_read_cached(m, pos, buf, BLOCK))
			die("a block is not in the cache");
	}
	for (u32 i = 0; i < u->run->walks; i++)
		one_walk(u);
	if (++u->jobs % JOBS_PER_JUMP)
		return;
	if (u->jobs / JOBS_PER_JUMP % JUMPS_PER_OPEN == 0) {
		user_close(u);
		user_open(u);
	} else {
		u->place = next_random(&u->seed) % SPREAD & ~(u64)(BLOCK - 1);
	}
}

static void work(void *arg)
{
	struct user *u = arg;

	user_open(u);
	atomic_fetch_add(&u->run->ready, 1);
	wait_event(&u->run->go, atomic_load(&u->run->go));
	while (!atomic_load_explicit(&u->run->stop, memory_order_relaxed))
		one_job(u);
	user_close(u);
}

static void move(void *arg)
{
	struct mover *mv = arg;
	struct mapping *m = &mv->run->file.m;

	wait_event(&mv->run->go, atomic_load(&mv->run->go));
	while (!atomic_load_explicit(&mv->run->stop, memory_order_relaxed)) {
		lblk_t at = (lblk_t)(next_random(&mv->seed) % FILE_BLOCKS & ~63ull);
		u32 zone = (u32)(next_random(&mv->seed) % ZONES), here, elsewhere;
		struct migration mig = { 0 };

		mv->asked++;
		if (windows_read_from(m, 0, (u64)UINT32_MAX, zone, &here, &elsewhere))
			mapping_migrate(m, at, at + 64, zone, &mig);
		else
			mv->contended++;
		if (!mig.tried) /* the balancer waits for the next hint */
			usleep(50);
		mv->moved += mig.moved;
	}
}

static u64 counted(struct run *run, enum mapping_counter which)
{
	return mapping_counter_read(&run->file.sb, which);
}

static struct result measure(enum arm arm, u32 nr, u32 nr_movers, u32 walks, u32 ms)
{
	static struct mover movers[MOVERS];
	struct run *run = calloc(1, sizeof(*run));
	struct result r = { 0 };
	struct bench_usage begin;

	if (!run)
		die("out of memory");
	file_open(&run->file, arm, nr_movers ? ZONES : 1);
	run->walks = walks;
	for (u32 i = 0; i < nr; i++) {
		users[i] = (struct user){ .run = run, .seed = 88172645463325252ull + i * 977 };
		if (thread_create(&users[i].thread, "bench", work, &users[i]))
			die("no more threads");
	}
	for (u32 i = 0; i < nr_movers; i++) {
		movers[i] = (struct mover){ .run = run, .seed = 362436069 + i * 977 };
		if (thread_create(&movers[i].thread, "bench", move, &movers[i]))
			die("no more threads");
	}
	while (atomic_load(&run->ready) < nr)
		usleep(1000);
	r.waits = counted(run, WINDOW_WAITS);
	r.wait_ns = counted(run, WINDOW_WAIT_NS);
	begin = bench_usage_now();
	atomic_store(&run->go, true);
	wake_up(&run->go);
	usleep(ms * 1000);
	atomic_store(&run->stop, true);
	r.usage = bench_usage_since(begin);
	r.waits = counted(run, WINDOW_WAITS) - r.waits;
	r.wait_ns = counted(run, WINDOW_WAIT_NS) - r.wait_ns;
	for (u32 i = 0; i < nr; i++) {
		thread_join(users[i].thread);
		r.jobs += users[i].jobs;
	}
	for (u32 i = 0; i < nr_movers; i++) {
		thread_join(movers[i].thread);
		r.asked += movers[i].asked;
		r.contended += movers[i].contended;
		r.moved += movers[i].moved;
	}
	/* Of the jobs that the users were in when time was up, one each counts. */
	r.jobs_min = (double)r.jobs * 60e9 / (double)r.usage.wall_ns;
	file_close(&run->file);
	free(run);
	return r;
}

static int by_rate(const void *a, const void *b)
{
	double x = ((const struct result *)a)->jobs_min;
	double y = ((const struct result *)b)->jobs_min;

	return x < y ? -1 : x > y;
}

/* ns for one call, of many. */
static double time_of(struct user *u, u32 calls, void (*fn)(struct user *u))
{
	u64 start = bench_now_ns();

	for (u32 i = 0; i < calls; i++)
		fn(u);
	return (double)(bench_now_ns() - start) / calls;
}

/* Two changes of the tree, each with all that it needs. */
static void reopen(struct user *u)
{
	user_close(u);
	user_open(u);
}

/* A walk that finds nothing: the lock and the way to it. */
static void walk_nothing(struct user *u)
{
	struct window_census c;

	windows_count(&u->run->file.m, (lblk_t)UINT32_MAX - 2, (lblk_t)UINT32_MAX - 1, &c);
}

static void model(struct bench_table *t, u32 nr, u32 walks, u32 cpus)
{
	static const char *const kind[] = { "measured", "modelled" };
	struct run *run = calloc(1, sizeof(*run));
	double T, S, E, A, takes, mutex, rwsem, change;

	if (!run)
		die("out of memory");
	file_open(&run->file, ARM_RWSEM, 1);
	run->walks = walks;
	for (u32 i = 0; i < nr; i++) {
		users[i] = (struct user){ .run = run, .seed = 88172645463325252ull + i * 977 };
		user_open(&users[i]);
	}
	T = time_of(&users[0], 2000, one_job);
	A = time_of(&users[0], 20000, walk_nothing);
	S = (time_of(&users[0], 20000, one_walk) - A) * walks;
	if (S < 0)
		S = 0;
	/* of an opening, two windows come and two go */
	change = time_of(&users[0], 2000, reopen) / 4;
	E = change * (1.0 / JOBS_PER_JUMP + 3.0 / (JOBS_PER_JUMP * JUMPS_PER_OPEN));
	takes = walks + E / change;
	for (u32 i = 0; i < nr; i++)
		user_close(&users[i]);
	file_close(&run->file);
	free(run);
	for (int m = 0; m < 2; m++) {
		u32 n = m ? cpus : 1;

		mutex = min_of(n / T, 1 / (S + E));
		rwsem = min_of(n / T, 1 / (E + S / n + takes * A));
		if (!m)
			mutex = rwsem = 1 / T;
		bench_row_begin(t);
		bench_cell_text(t, "kind", kind[m]);
		bench_cell_int(t, "users", nr);
		bench_cell_int(t, "cpus", n);
		bench_cell_real(t, "T_us", T / 1e3);
		bench_cell_real(t, "S_us", S / 1e3);
		bench_cell_real(t, "E_us", E / 1e3);
		bench_cell_real(t, "A_us", A / 1e3);
		bench_cell_int(t, "mutex_jobs/min", (u64)(mutex * 60e9));
		bench_cell_int(t, "rwsem_jobs/min", (u64)(rwsem * 60e9));
		bench_cell_real(t, "change_%", (rwsem / mutex - 1) * 100);
		bench_row_end(t);
	}
}

static void row(struct bench_table *t, u32 nr, const struct result *r)
{
	const struct result *before = &r[ARM_MUTEX], *after = &r[ARM_RWSEM];

	bench_row_begin(t);
	bench_cell_int(t, "users", nr);
	bench_cell_int(t, "mutex_jobs/min", (u64)before->jobs_min);
	bench_cell_int(t, "rwsem_jobs/min", (u64)after->jobs_min);
	bench_cell_real(t, "change_%", (after->jobs_min / before->jobs_min - 1) * 100);
	for (int i = 0; i < ARMS; i++) {
		bench_cell_int(t, i ? "rwsem_waits" : "mutex_waits", r[i].waits);
		bench_cell_real(t, i ? "rwsem_wait_ms/s" : "mutex_wait_ms/s",
				(double)r[i].wait_ns * 1e3 / (double)r[i].usage.wall_ns);
		bench_cell_int(t, i ? "rwsem_switches" : "mutex_switches",
			       r[i].usage.waits + r[i].usage.preempted);
		bench_cell_real(t, i ? "rwsem_cpu_us/job" : "mutex_cpu_us/job",
				(double)r[i].usage.cpu_ns / 1e3 /
					(double)max_of(r[i].jobs, (u64)1));
	}
	bench_row_end(t);
}

/* The arms take turns; the repetition with the median of moved folios. */
static int by_moved(const void *a, const void *b)
{
	u64 x = ((const struct result *)a)->moved, y = ((const struct result *)b)->moved;

	return x < y ? -1 : x > y;
}

static void migration_row(struct bench_table *t, u32 nr, u32 walks, u32 ms, u32 repeats)
{
	static struct result res[ARMS][REPEATS_MAX];
	struct result r[ARMS];

	for (u32 n = 0; n < repeats; n++)
		for (int arm = 0; arm < ARMS; arm++)
			res[arm][n] = measure(arm, nr, MOVERS, walks, ms);
	for (int arm = 0; arm < ARMS; arm++) {
		qsort(res[arm], repeats, sizeof(res[arm][0]), by_moved);
		r[arm] = res[arm][repeats / 2];
	}
	bench_row_begin(t);
	bench_cell_int(t, "users", nr);
	bench_cell_int(t, "ms", ms);
	bench_cell_int(t, "mutex_moved", r[ARM_MUTEX].moved);
	bench_cell_int(t, "rwsem_moved", r[ARM_RWSEM].moved);
	bench_cell_real(t, "change_%",
			((double)r[ARM_RWSEM].moved /
				 (double)max_of(r[ARM_MUTEX].moved, (u64)1) - 1) * 100);
	for (int i = 0; i < ARMS; i++) {
		bench_cell_int(t, i ? "rwsem_asked" : "mutex_asked", r[i].asked);
		bench_cell_int(t, i ? "rwsem_contended" : "mutex_contended",
			       r[i].contended);
		bench_cell_int(t, i ? "rwsem_jobs/min" : "mutex_jobs/min",
			       (u64)r[i].jobs_min);
	}
	bench_row_end(t);
}

static void usage(int code)
{
	fprintf(code ? stderr : stdout,
		"usage: bench-window [-u MAX_USERS] [-w WALKS] [-d MS] [-n REPEATS] [-c CPUS]\n"
		"                    [-j FILE]\n"
		"Jobs of up to 2000 users on one file, 12 walks a job, 500 ms, 3 times; then\n"
		"folios moved beside them, and what jobs there would be on 60 CPUs, modelled. -j: the first table as JSON too.\n");
	exit(code);
}

int main(int argc, char **argv)
{
	static const u32 steps[] = { 1, 2, 10, 50, 100, 200, 500, 1000, 2000 };
	static struct result res[ARMS][REPEATS_MAX];
	struct bench_table t, gt, mt;
	const char *json = NULL;
	u32 max = 2000, walks = 12, ms = 500, repeats = 3, cpus = 60;
	int c;

	while ((c = getopt(argc, argv, "u:w:d:n:c:j:h")) != -1) {
		switch (c) {
		case 'u':
			max = (u32)atoi(optarg);
			break;
		case 'w':
			walks = (u32)atoi(optarg);
			break;
		case 'd':
			ms = (u32)atoi(optarg);
			break;
		case 'n':
			repeats = (u32)atoi(optarg);
			break;
		case 'c':
			cpus = (u32)atoi(optarg);
			break;
		case 'j':
			json = optarg;
			break;
		default:
			usage(c == 'h' ? 0 : 1);
		}
	}
	if (!max || max > USERS_MAX || !repeats || repeats > REPEATS_MAX || !cpus)
		usage(1);
	if (!bench_table_open(&t, "window", json) || !bench_table_open(&gt, "migration", NULL) ||
	    !bench_table_open(&mt, "model", NULL))
		die("cannot write the JSON file");
	thread_register();
	for (u32 i = 0; i < ARRAY_SIZE(steps) && steps[i] <= max; i++) {
		struct result medians[ARMS];

		for (u32 n = 0; n < repeats; n++)
			for (int arm = 0; arm < ARMS; arm++)
				res[arm][n] = measure(arm, steps[i], 0, walks, ms);
		for (int arm = 0; arm < ARMS; arm++) {
			qsort(res[arm], repeats, sizeof(res[arm][0]), by_rate);
			medians[arm] = res[arm][repeats / 2];
		}
		row(&t, steps[i], medians);
	}
	printf("\n");
	for (u32 i = 0; i < ARRAY_SIZE(steps) && steps[i] <= max; i++)
		if (steps[i] == 1 || steps[i] == 100 || steps[i] == 1000)
			migration_row(&gt, steps[i], walks, ms, repeats);
	printf("\n");
	for (u32 i = 0; i < ARRAY_SIZE(steps) && steps[i] <= max; i++)
		if (steps[i] == 1 || steps[i] >= 100)
			model(&mt, steps[i], walks, cpus);
	if (!bench_table_close(&t))
		die("cannot write the JSON file");
	thread_unregister();
	return 0;
}
