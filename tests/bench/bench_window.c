/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/bench/bench_window.c - the windows of one file under a mutex, and under
 * a lock that walkers share
 *
 * A mix in the manner of AIM7: simulated users, each with the same file open, who
 * share up to 16 threads (-t): a thread does a job of each of its users in turn. A job of a user is some reads of 4 KiB from the cache, each noted
 * in the handle's window, then walks over the windows of the file, as a
 * truncation, a failed write, statistics or reclaim make them; once in a while
 * the handle jumps, which moves its window, and is closed and opened again. The arms
 * take turns within each repetition, each the first as often as the other. A row has
 * the medians of both, and the median of what the second arm was better by in
 * a repetition: in jobs, and in CPU time for a job, on which other programs tell
 * less.
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
#define REPEATS_MAX 99u
#define THREADS_MAX 64u
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
	u32 walks, users;
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
} __cacheline_aligned;

/* Users first, first + step, ... */
struct worker {
	struct run *run;
	u32 first, step;
	u64 jobs;
	struct thread *thread;
} __cacheline_aligned;

struct result {
	double jobs_min, cpu_job; /* us */
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
	struct worker *w = arg;
	struct run *run = w->run;

	for (u32 i = w->first; i < run->users; i += w->step)
		user_open(&users[i]);
	atomic_fetch_add(&run->ready, 1);
	wait_event(&run->go, atomic_load(&run->go));
	while (!atomic_load_explicit(&run->stop, memory_order_relaxed))
		for (u32 i = w->first; i < run->users &&
		     !atomic_load_explicit(&run->stop, memory_order_relaxed);
		     i += w->step) {
			one_job(&users[i]);
			w->jobs++;
		}
	for (u32 i = w->first; i < run->users; i += w->step)
		user_close(&users[i]);
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

static struct result measure(enum arm arm, u32 nr, u32 nr_threads, u32 nr_movers,
			     u32 walks, u32 ms)
{
	static struct worker workers[THREADS_MAX];
	static struct mover movers[MOVERS];
	struct run *run = calloc(1, sizeof(*run));
	struct result r = { 0 };
	struct bench_usage begin;

	if (!run)
		die("out of memory");
	nr_threads = min_of(nr, nr_threads);
	file_open(&run->file, arm, nr_movers ? ZONES : 1);
	run->walks = walks;
	run->users = nr;
	for (u32 i = 0; i < nr; i++)
		users[i] = (struct user){ .run = run, .seed = 88172645463325252ull + i * 977 };
	for (u32 i = 0; i < nr_threads; i++) {
		workers[i] = (struct worker){ .run = run, .first = i, .step = nr_threads };
		if (thread_create(&workers[i].thread, "bench", work, &workers[i]))
			die("no more threads");
	}
	for (u32 i = 0; i < nr_movers; i++) {
		movers[i] = (struct mover){ .run = run, .seed = 362436069 + i * 977 };
		if (thread_create(&movers[i].thread, "bench", move, &movers[i]))
			die("no more threads");
	}
	while (atomic_load(&run->ready) < nr_threads)
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
	for (u32 i = 0; i < nr_threads; i++) {
		thread_join(workers[i].thread);
		r.jobs += workers[i].jobs;
	}
	for (u32 i = 0; i < nr_movers; i++) {
		thread_join(movers[i].thread);
		r.asked += movers[i].asked;
		r.contended += movers[i].contended;
		r.moved += movers[i].moved;
	}
	/* Of the jobs that the threads were in when time was up, one each counts. */
	r.jobs_min = (double)r.jobs * 60e9 / (double)r.usage.wall_ns;
	r.cpu_job = (double)r.usage.cpu_ns / 1e3 / (double)max_of(r.jobs, (u64)1);
	file_close(&run->file);
	free(run);
	return r;
}

/* All repetitions of both arms. */
struct series {
	struct result res[ARMS][REPEATS_MAX];
	u32 nr;
};

static void measure_both(struct series *s, u32 repeats, u32 nr, u32 nr_threads,
			 u32 nr_movers, u32 walks, u32 ms)
{
	s->nr = repeats;
	for (u32 n = 0; n < repeats; n++)
		for (u32 i = 0; i < ARMS; i++) {
			u32 arm = (i + n) % ARMS;

			s->res[arm][n] = measure(arm, nr, nr_threads, nr_movers, walks, ms);
		}
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

typedef double (*figure)(const struct result *r);

static double median(double *v, u32 nr)
{
	qsort(v, nr, sizeof(*v), by_value);
	return nr % 2 ? v[nr / 2] : (v[nr / 2 - 1] + v[nr / 2]) / 2;
}

static double median_of(const struct series *s, enum arm arm, figure f)
{
	double v[REPEATS_MAX];

	for (u32 n = 0; n < s->nr; n++)
		v[n] = f(&s->res[arm][n]);
	return median(v, s->nr);
}

/* In %: the median over the repetitions of rwsem's figure against mutex's. */
static double change_of(const struct series *s, figure f)
{
	double v[REPEATS_MAX];

	for (u32 n = 0; n < s->nr; n++)
		v[n] = (f(&s->res[ARM_RWSEM][n]) / f(&s->res[ARM_MUTEX][n]) - 1) * 100;
	return median(v, s->nr);
}

static double jobs_min_of(const struct result *r)
{
	return r->jobs_min;
}

static double cpu_job_of(const struct result *r)
{
	return r->cpu_job;
}

static double waits_of(const struct result *r)
{
	return (double)r->waits;
}

static double wait_ms_of(const struct result *r)
{
	return (double)r->wait_ns * 1e3 / (double)r->usage.wall_ns;
}

static double switches_of(const struct result *r)
{
	return (double)(r->usage.waits + r->usage.preempted);
}

static double asked_of(const struct result *r)
{
	return (double)r->asked;
}

static double contended_of(const struct result *r)
{
	return (double)r->contended;
}

/* Never 0, to be divided by. */
static double moved_of(const struct result *r)
{
	return (double)max_of(r->moved, (u64)1);
}

/* ns of CPU time for one call, of many. */
static double time_of(struct user *u, u32 calls, void (*fn)(struct user *u))
{
	struct timespec a, b;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
	for (u32 i = 0; i < calls; i++)
		fn(u);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
	return ((double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec)) / calls;
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

static void row(struct bench_table *t, u32 nr, const struct series *s)
{
	bench_row_begin(t);
	bench_cell_int(t, "users", nr);
	for (int i = 0; i < ARMS; i++)
		bench_cell_int(t, i ? "rwsem_jobs/min" : "mutex_jobs/min",
			       (u64)median_of(s, i, jobs_min_of));
	bench_cell_real(t, "change_%", change_of(s, jobs_min_of));
	bench_cell_real(t, "cpu/job_change_%", change_of(s, cpu_job_of));
	for (int i = 0; i < ARMS; i++) {
		bench_cell_int(t, i ? "rwsem_waits" : "mutex_waits",
			       (u64)median_of(s, i, waits_of));
		bench_cell_real(t, i ? "rwsem_wait_ms/s" : "mutex_wait_ms/s",
				median_of(s, i, wait_ms_of));
		bench_cell_int(t, i ? "rwsem_switches" : "mutex_switches",
			       (u64)median_of(s, i, switches_of));
		bench_cell_real(t, i ? "rwsem_cpu_us/job" : "mutex_cpu_us/job",
				median_of(s, i, cpu_job_of));
	}
	bench_row_end(t);
}

static void migration_row(struct bench_table *t, u32 nr, u32 ms, const struct series *s)
{
	bench_row_begin(t);
	bench_cell_int(t, "users", nr);
	bench_cell_int(t, "ms", ms);
	for (int i = 0; i < ARMS; i++)
		bench_cell_int(t, i ? "rwsem_moved" : "mutex_moved",
			       (u64)median_of(s, i, moved_of));
	bench_cell_real(t, "change_%", change_of(s, moved_of));
	for (int i = 0; i < ARMS; i++) {
		bench_cell_int(t, i ? "rwsem_asked" : "mutex_asked",
			       (u64)median_of(s, i, asked_of));
		bench_cell_int(t, i ? "rwsem_contended" : "mutex_contended",
			       (u64)median_of(s, i, contended_of));
		bench_cell_int(t, i ? "rwsem_jobs/min" : "mutex_jobs/min",
			       (u64)median_of(s, i, jobs_min_of));
	}
	bench_row_end(t);
}

static void usage(int code)
{
	fprintf(code ? stderr : stdout,
		"usage: bench-window [-u MAX_USERS] [-f FEWEST_USERS] [-t THREADS] [-w WALKS]\n"
		"                    [-d MS] [-n REPEATS] [-c CPUS] [-j FILE]\n"
		"Jobs of 1 to 2000 users of one file, on up to 16 threads, 12 walks a job, 200 ms,\n"
		"5 times; then folios moved beside them, and what jobs there would be on 60 CPUs,\n"
		"modelled. -j: the first table as JSON too.\n");
	exit(code);
}

int main(int argc, char **argv)
{
	static const u32 steps[] = { 1, 2, 10, 50, 100, 200, 500, 1000, 2000 };
	static struct series s;
	struct bench_table t, gt, mt;
	const char *json = NULL;
	u32 max = 2000, min = 1, threads = 16, walks = 12, ms = 200, repeats = 5, cpus = 60;
	int c;

	while ((c = getopt(argc, argv, "u:f:t:w:d:n:c:j:h")) != -1) {
		switch (c) {
		case 'u':
			max = (u32)atoi(optarg);
			break;
		case 'f':
			min = (u32)atoi(optarg);
			break;
		case 't':
			threads = (u32)atoi(optarg);
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
	if (!max || max > USERS_MAX || !repeats || repeats > REPEATS_MAX || !cpus || !threads ||
	    threads > THREADS_MAX)
		usage(1);
	if (!bench_table_open(&t, "window", json) || !bench_table_open(&gt, "migration", NULL) ||
	    !bench_table_open(&mt, "model", NULL))
		die("cannot write the JSON file");
	thread_register();
	for (u32 i = 0; i < ARRAY_SIZE(steps); i++) {
		if (steps[i] < min || steps[i] > max)
			continue;
		measure_both(&s, repeats, steps[i], threads, 0, walks, ms);
		row(&t, steps[i], &s);
	}
	printf("\n");
	for (u32 i = 0; i < ARRAY_SIZE(steps); i++) {
		if (steps[i] < min || steps[i] > max ||
		    (steps[i] != 1 && steps[i] != 100 && steps[i] != 1000))
			continue;
		measure_both(&s, repeats, steps[i], threads, MOVERS, walks, ms);
		migration_row(&gt, steps[i], ms, &s);
	}
	printf("\n");
	for (u32 i = 0; i < ARRAY_SIZE(steps); i++)
		if (steps[i] >= min && steps[i] <= max && (steps[i] == 1 || steps[i] >= 100))
			model(&mt, steps[i], walks, cpus);
	if (!bench_table_close(&t))
		die("cannot write the JSON file");
	thread_unregister();
	return 0;
}
