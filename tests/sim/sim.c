/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/sim/sim.c - the simulator's command line
 *
 * Every stream runs in a child process of its own, so that a crash, a failed assertion or
 * a hang is one failure among others. The parent starts no thread. What
 * fails is written to a file with the command that repeats it.
 *
 *   sim torture [--seconds N] [--seeds N] [--seed S] [--jobs J] [--profile P]
 *               [--mkfs NAME]  on volumes of one kind
 *               [--mix]  pairs of operations and single faults among them
 *   sim ace [--two N]      one-operation workloads, or N pairs
 *   sim oom [--every K]    brief streams, each request for memory failing in turn
 *   sim enospc [--every K] ... each request for blocks or an inode
 *   sim eio [--every K]    ... each read, write, flush and submission
 *   sim streams FILE...    runs streams that were kept
 *   sim run SEED           one stream, verbosely about failures
 *   sim print SEED         the stream of a seed
 *   sim replay FILE [--point E [--cut C]]
 *   sim shrink FILE        the same failure with fewer operations
 *   sim mutants [NAME...]  (sim-mutants only) each broken rule is found, or these
 *
 * Locks: none. Threads: children only.
 */
#include "lib/log.h"
#include "lib/rcu.h"
#include "tests/sim/mutants.h"
#include "tests/sim/run.h"

#include <dirent.h>
#include <execinfo.h>
#include <getopt.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_JOBS 256
#define CHILD_SECONDS 900 /* hangs, and is not just starved by others */

static const char *const profile_name[SIM_PROFILE_NR] = {
	"any", "mixed", "names", "data", "full", "churn", "faults", "threads",
};

struct options {
	u64 seed, seeds, two;
	u32 seconds, jobs, every;
	enum sim_profile profile;
	const char *keep; /* folder for streams that fail */
	bool quiet, mix;
};

static struct run_config cfg = { .points = 14, .only_point = -1, .only_cut = -1 };
static struct options opt = { .seed = 1, .jobs = 1, .every = 1, .keep = "." };
static char work_dir[128];
static pid_t main_pid;

/* Where a stream comes from: the nth of a command. False: no more. */
typedef bool (*stream_source)(struct sim_stream *s, u64 n, void *priv);

static void drop_line(enum log_level level, const char *line, void *priv)
{
}

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void remove_work_dir(void)
{
	struct dirent *de;
	DIR *d;

	if (getpid() != main_pid)
		return;
	d = opendir(work_dir);
	while (d && (de = readdir(d))) {
		char path[512];

		snprintf(path, sizeof(path), "%s/%s", work_dir, de->d_name);
		unlink(path);
	}
	if (d)
		closedir(d);
	rmdir(work_dir);
}

/* Base images are made by a child: mounting starts threads. */
static bool make_bases(void)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		for (u32 i = 0; i < sim_nr_mkfs; i++) {
			int err = run_make_base(&cfg, i);

			if (err) {
				fprintf(stderr, "cannot make the volume \"%s\": %s\n",
					sim_mkfs[i].name, strerror(-err));
				_exit(1);
			}
		}
		_exit(0);
	}
	return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

/* Where it was, and then the signal's own effect. */
static void on_death(int sig)
{
	void *frames[40];
	int n = backtrace(frames, ARRAY_SIZE(frames));

	backtrace_symbols_fd(frames, n, 2);
	signal(sig, SIG_DFL);
	raise(sig);
}

/* Pools are per CPU: so the nth request is the same one, most of the time. */
static void stay_on_one_cpu(void)
{
	int cpu = sched_getcpu();
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu < 0 ? 0 : cpu, &set);
	sched_setaffinity(0, sizeof(set), &set); /* as good as it gets */
}

/* LeakSanitizer's, if that is built in: _exit() looks for no leaks. */
extern int __lsan_do_recoverable_leak_check(void) __attribute__((weak));

static void child_main(const struct sim_stream *s)
{
	bool ok;

	if (!cfg.verbose)
		log_set_sink(drop_line, NULL);
	signal(SIGABRT, on_death);
	signal(SIGSEGV, on_death);
	signal(SIGALRM, on_death);
	alarm(CHILD_SECONDS);
	if (s->oom || s->enospc)
		stay_on_one_cpu();
	ok = run_stream(s, &cfg);
	if (ok && __lsan_do_recoverable_leak_check) {
		rcu_barrier();
		ok = !__lsan_do_recoverable_leak_check();
	}
	fflush(NULL);
	_exit(ok ? 0 : 1);
}

/* Runs it in a child. True: it passed. */
static bool run_child(const struct sim_stream *s)
{
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (!pid)
		child_main(s);
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return false;
	if (WIFSIGNALED(status))
		fprintf(stderr, "  seed %" PRIu64 ": ended by signal %d (%s)\n", s->seed,
			WTERMSIG(status), strsignal(WTERMSIG(status)));
	return status == 0;
}

static void keep_stream(const struct sim_stream *s, const char *self)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/sim-failure-%" PRIu64 ".stream", opt.keep, s->seed);
	f = fopen(path, "w");
	if (!f) {
		fprintf(stderr, "  cannot write %s\n", path);
		return;
	}
	sim_stream_write(s, f);
	fclose(f);
	fprintf(stderr, "  replay: %s replay %s\n", self, path);
}

static void progress(double start, bool end)
{
	struct run_stats *st = cfg.stats;

	fprintf(stderr,
		"%s%.0f s: %" PRIu64 " seeds, %" PRIu64 " operations, %" PRIu64
		" crash points, %" PRIu64 " states checked (%" PRIu64 " recoveries, %" PRIu64
		" of recovery, %" PRIu64 " e2fsck), %" PRIu64 " faults, %" PRIu64 " failures%s",
		isatty(2) ? "\r" : "", now_s() - start, (u64)st->seeds, (u64)st->ops,
		(u64)st->points, (u64)st->images, (u64)st->recoveries, (u64)st->nested,
		(u64)st->fscks, (u64)st->faults, (u64)st->failures,
		isatty(2) && !end ? "" : "\n");
}

struct job {
	pid_t pid;
	struct sim_stream s;
};

static void reap(struct job *jobs, const char *self)
{
	int status;
	pid_t pid = waitpid(-1, &status, 0);

	for (u32 i = 0; i < opt.jobs; i++) {
		if (jobs[i].pid != pid)
			continue;
		jobs[i].pid = 0;
		cfg.stats->seeds++;
		if (status) {
			cfg.stats->failures++;
			if (WIFSIGNALED(status))
				fprintf(stderr, "  seed %" PRIu64 ": ended by signal %d (%s)\n",
					jobs[i].s.seed, WTERMSIG(status),
					strsignal(WTERMSIG(status)));
			keep_stream(&jobs[i].s, self);
		}
		sim_stream_release(&jobs[i].s);
	}
}

/* All of a source's streams, or as many as the time allows. */
static int run_pool(stream_source next, void *priv, const char *self)
{
	struct job jobs[MAX_JOBS] = { 0 };
	double start = now_s(), shown = start;
	bool more = true;
	u32 running = 0;
	u64 n = 0;

	while (more || running) {
		for (u32 i = 0; i < opt.jobs && more; i++) {
			if (jobs[i].pid)
				continue;
			if (opt.seconds && now_s() - start > opt.seconds)
				more = false;
			else
				more = next(&jobs[i].s, n++, priv);
			if (!more)
				break;
			fflush(NULL);
			jobs[i].pid = fork();
			if (!jobs[i].pid)
				child_main(&jobs[i].s);
			running++;
		}
		if (running) {
			reap(jobs, self);
			running--;
		}
		if (!opt.quiet && now_s() - shown > (isatty(2) ? 1 : 10)) {
			shown = now_s();
			progress(start, false);
		}
	}
	progress(start, true);
	return cfg.stats->failures ? 1 : 0;
}

/* ---- sources ---- */

/* --mix: some seeds are a pair of operations, or one fault in a brief stream. */
static void generate_mixed(struct sim_stream *s, u64 seed)
{
	struct rng rng = rng_derive(seed, 0x317);
	u32 kind = rng_below(&rng, 100);

	if (kind >= 22) {
		sim_stream_generate(s, seed, opt.profile);
		return;
	}
	if (kind < 8)
		sim_ace_two(s, rng_below(&rng, sim_ace_count()),
			    rng_below(&rng, sim_ace_count()));
	else
		sim_brief(s, rng_below(&rng, sim_brief_count()));
	s->seed = seed;
	if (kind >= 8 && kind < 14) {
		s->oom = 1 + rng_below(&rng, 1000);
	} else if (kind >= 14 && kind < 17) {
		s->enospc = 1 + rng_below(&rng, 40);
	} else if (kind >= 17) {
		s->fault.op = 1 + rng_below(&rng, SIM_FAULT_NR - 1);
		s->fault.nth = rng_below(&rng, s->fault.op == SIM_FAULT_FLUSH ? 12 : 90);
		s->fault.forever = rng_chance(&rng, 30);
		s->fault.partial = rng_chance(&rng, 50);
	}
}

static void generate(struct sim_stream *s, u64 seed)
{
	if (opt.mix)
		generate_mixed(s, seed);
	else
		sim_stream_generate(s, seed, opt.profile);
}

static bool from_seed(struct sim_stream *s, u64 n, void *priv)
{
	if (opt.seeds && n >= opt.seeds)
		return false;
	generate(s, opt.seed + n);
	return true;
}

static bool from_ace(struct sim_stream *s, u64 n, void *priv)
{
	if (!opt.two) {
		if (n >= sim_ace_count())
			return false;
		sim_ace_one(s, (u32)n);
	} else {
		struct rng rng = rng_derive(opt.seed, 0xACE + n);
		u32 first = rng_below(&rng, sim_ace_count());

		if (n >= opt.two)
			return false;
		sim_ace_two(s, first, rng_below(&rng, sim_ace_count()));
	}
	return true;
}

/* A fault at each place in turn. */
struct each {
	u32 kind;   /* of stream: sim_brief() */
	u32 fault;  /* which of faults[] */
	u32 nth, nr;
	const struct each_fault *faults;
	u32 nr_faults;
	bool counted; /* the device's, for this stream */
};

struct each_fault {
	const char *what;
	enum resource res;
	struct sim_fault dev; /* if its op is not SIM_FAULT_NONE */
};

static const struct each_fault each_oom[] = { { "requests for memory", RES_MEMORY } };
static const struct each_fault each_enospc[] = { { "requests for space", RES_SPACE } };
static const struct each_fault each_eio[] = {
	{ "reads", 0, { SIM_FAULT_READ } },
	{ "reads, cut short", 0, { SIM_FAULT_READ, .partial = true } },
	{ "reads, from there on", 0, { SIM_FAULT_READ, .forever = true } },
	{ "writes", 0, { SIM_FAULT_WRITE } },
	{ "writes, cut short", 0, { SIM_FAULT_WRITE, .partial = true } },
	{ "writes, from there on", 0, { SIM_FAULT_WRITE, .forever = true } },
	{ "flushes", 0, { SIM_FAULT_FLUSH } },
	{ "flushes, from there on", 0, { SIM_FAULT_FLUSH, .forever = true } },
	{ "submissions", 0, { SIM_FAULT_SUBMIT } },
	{ "submissions, from there on", 0, { SIM_FAULT_SUBMIT, .forever = true } },
};

static void each_stream(struct sim_stream *s, const struct each *e, u32 nth)
{
	const struct each_fault *f = &e->faults[e->fault];

	sim_brief(s, e->kind);
	s->seed = ((u64)e->kind * 100 + e->fault) * 1000000 + nth;
	if (f->dev.op) {
		s->fault = f->dev;
		s->fault.nth = nth;
	} else if (f->res == RES_MEMORY) {
		s->oom = nth;
	} else {
		s->enospc = nth;
	}
}

/* How often it happens when none fails. */
static u32 each_count(struct each *e)
{
	const struct each_fault *f = &e->faults[e->fault];
	u32 points = cfg.points, nr;
	struct sim_stream s;

	each_stream(&s, e, RES_COUNT_ONLY);
	cfg.points = 0;
	cfg.counting = true;
	if (!e->counted && !run_child(&s))
		exit(1);
	cfg.counting = false;
	cfg.points = points;
	e->counted = f->dev.op;
	nr = f->dev.op ? cfg.stats->transfers[f->dev.op] : cfg.stats->resources[f->res];
	if (!opt.quiet)
		fprintf(stderr, "stream %u (%s): %u %s\n", e->kind,
			sim_mkfs[s.mkfs].name, nr, f->what);
	sim_stream_release(&s);
	return nr;
}

static bool from_each(struct sim_stream *s, u64 n, void *priv)
{
	struct each *e = priv;

	if (n)
		e->nth += opt.every;
	while (!n || e->nth > e->nr) {
		/* a sample starts somewhere else in each stream */
		if (e->nr && ++e->fault == e->nr_faults) {
			e->fault = 0;
			e->counted = false;
			e->kind++;
		}
		if (e->kind == sim_brief_count())
			return false;
		e->nr = each_count(e);
		e->nth = 1 + (u32)((opt.seed + 7 * e->kind + 3 * e->fault) % opt.every);
		n = 1;
	}
	each_stream(s, e, e->nth);
	if (e->faults[e->fault].dev.op)
		s->fault.nth = e->nth - 1;
	return true;
}

struct files {
	char **name;
	int nr;
};

static bool load(struct sim_stream *s, const char *name)
{
	FILE *f = fopen(name, "r");
	int err;

	if (!f) {
		fprintf(stderr, "%s: %s\n", name, strerror(errno));
		return false;
	}
	err = sim_stream_read(s, f, name);
	fclose(f);
	return !err;
}

static bool from_files(struct sim_stream *s, u64 n, void *priv)
{
	const struct files *f = priv;

	if (n >= (u64)f->nr)
		return false;
	if (!load(s, f->name[n]))
		exit(2);
	return true;
}

/* ---- shrinking ---- */

/* Leaves out ever smaller pieces for as long as it still fails. */
static int shrink(struct sim_stream *s, const char *self)
{
	double end = now_s() + (opt.seconds ? opt.seconds : 120);
	char out[512];
	FILE *f;

	cfg.points = max_of(cfg.points, 60u);
	if (run_child(s)) {
		fprintf(stderr, "it does not fail\n");
		return 2;
	}
	for (u32 piece = max_of(s->nr_ops / 2, 1u); piece && now_s() < end;
	     piece = piece > 1 ? piece / 2 : 0) {
		for (u32 at = 0; at < s->nr_ops && now_s() < end;) {
			struct sim_stream less;

			sim_stream_without(s, at, min_of(at + piece, s->nr_ops), &less);
			if (run_child(&less)) {
				sim_stream_release(&less);
				at += piece;
				continue;
			}
			sim_stream_release(s);
			*s = less;
			fprintf(stderr, "%u operations left\n", s->nr_ops);
		}
	}
	snprintf(out, sizeof(out), "%s/sim-shrunk-%" PRIu64 ".stream", opt.keep, s->seed);
	f = fopen(out, "w");
	if (!f)
		return 2;
	sim_stream_write(s, f);
	fclose(f);
	sim_stream_write(s, stderr);
	fprintf(stderr, "replay: %s replay %s\n", self, out);
	return 1;
}

/* ---- mutants ---- */

/* Seeds until one finds the mutation, or that the device lies; 0: none did. */
static u32 seeds_to_find(u32 bound, bool lying)
{
	const u32 only = sim_only_mkfs;

	for (u32 n = 0; n < bound; n++) {
		struct sim_stream s;
		bool ok;

		/* There is such a flush with an external journal alone. */
		if (sim_mutation == SIM_NO_DATA_FLUSH_BEFORE_COMMIT)
			sim_only_mkfs = sim_mkfs_find(n % 2 ? "1k-log" : "4k-log");
		sim_stream_generate(&s, opt.seed + n, sim_mutation_profile[sim_mutation]);
		s.lying = lying;
		ok = run_child(&s);
		sim_stream_release(&s);
		sim_only_mkfs = only;
		if (!ok)
			return n + 1;
	}
	return 0;
}

/* One line of the table. False: it stayed hidden. */
static bool show_mutant(const char *name, u32 bound, bool lying)
{
	u32 seeds;

	printf("%-28s ", name);
	fflush(stdout);
	seeds = seeds_to_find(bound, lying);
	if (seeds)
		printf("%u\n", seeds);
	else
		printf("NOT FOUND\n");
	return seeds;
}

static bool is_named(const char *name, char **names, int nr)
{
	for (int i = 0; i < nr; i++)
		if (!strcmp(names[i], name))
			return true;
	return false;
}

static int run_mutants(char **names, int nr)
{
	u32 bound = opt.seeds ? (u32)opt.seeds : 60;
	int missed = 0, shown = 0;

	if (!sim_mutations_built) {
		fprintf(stderr, "build with -Dsim_mutations=true and run sim-mutants\n");
		return 2;
	}
	printf("%-28s seeds until found (at most %u)\n", "mutation", bound);
	for (u32 m = 1; m < SIM_MUTATION_NR; m++) {
		if (nr && !is_named(sim_mutation_name[m], names, nr))
			continue;
		sim_mutation = m;
		missed += !show_mutant(sim_mutation_name[m], bound, false);
		shown++;
	}
	sim_mutation = SIM_MUTATION_NONE;
	if (!nr)
		missed += !show_mutant("(a device that never flushes)", bound, true);
	return missed || (nr && !shown) ? 1 : 0;
}

/* ---- command line ---- */

static int usage(void)
{
	fprintf(stderr,
		"usage: sim torture|ace|oom|enospc|eio|streams|run|print|replay|shrink|mutants"
		" [options]\n"
		"  --seed S --seeds N --seconds N --jobs J --points N --all --profile P\n"
		"  --mkfs NAME --two N --every K --point E --cut C --keep DIR --kernel --mix --verbose --quiet\n");
	return 2;
}

static bool parse(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "seed", 1, NULL, 's' },    { "seeds", 1, NULL, 'n' },
		{ "seconds", 1, NULL, 't' }, { "jobs", 1, NULL, 'j' },
		{ "points", 1, NULL, 'p' },  { "profile", 1, NULL, 'P' },
		{ "two", 1, NULL, '2' },     { "point", 1, NULL, 'e' },
		{ "cut", 1, NULL, 'c' },     { "keep", 1, NULL, 'k' },
		{ "all", 0, NULL, 'a' },     { "kernel", 0, NULL, 'K' },
		{ "verbose", 0, NULL, 'v' }, { "quiet", 0, NULL, 'q' },
		{ "mkfs", 1, NULL, 'M' },    { "every", 1, NULL, 'E' },   { "mix", 0, NULL, 'm' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) >= 0) {
		u64 v = optarg ? strtoull(optarg, NULL, 10) : 0;

		switch (c) {
		case 's': opt.seed = v; break;
		case 'n': opt.seeds = v; break;
		case 't': opt.seconds = (u32)v; break;
		case 'j': opt.jobs = (u32)min_of(max_of(v, (u64)1), (u64)MAX_JOBS); break;
		case 'p': cfg.points = (u32)v; break;
		case '2': opt.two = v; break;
		case 'm': opt.mix = true; break;
		case 'E': opt.every = max_of((u32)v, 1u); break;
		case 'e': cfg.only_point = (s64)v; break;
		case 'c': cfg.only_cut = (s64)v; break;
		case 'k': opt.keep = optarg; break;
		case 'a': cfg.all_points = true; break;
		case 'K': cfg.kernel = true; break;
		case 'v': cfg.verbose = resource_trace = true; break;
		case 'q': opt.quiet = true; break;
		case 'M':
			sim_only_mkfs = sim_mkfs_find(optarg);
			if (sim_only_mkfs == SIM_NEVER)
				return false;
			break;
		case 'P':
			for (opt.profile = 0; opt.profile < SIM_PROFILE_NR; opt.profile++)
				if (!strcmp(profile_name[opt.profile], optarg))
					break;
			if (opt.profile == SIM_PROFILE_NR)
				return false;
			break;
		default: return false;
		}
	}
	return true;
}

static int one_stream(const char *cmd, const char *arg, const char *self)
{
	struct sim_stream s;
	int result;

	if (!strcmp(cmd, "run") || !strcmp(cmd, "print"))
		generate(&s, strtoull(arg, NULL, 10));
	else if (!load(&s, arg))
		return 2;
	if (!strcmp(cmd, "print")) {
		sim_stream_write(&s, stdout);
		result = 0;
	} else if (!strcmp(cmd, "shrink")) {
		result = shrink(&s, self);
	} else {
		double start = now_s();

		result = run_child(&s) ? 0 : 1;
		cfg.stats->seeds = 1;
		cfg.stats->failures = (u64)result;
		progress(start, true);
	}
	sim_stream_release(&s);
	return result;
}

static int run_each(const struct each_fault *faults, u32 nr, const char *self)
{
	struct each e = { .faults = faults, .nr_faults = nr };

	cfg.points = min_of(cfg.points, 2u);
	return run_pool(from_each, &e, self);
}

int main(int argc, char **argv)
{
	const char *cmd, *shm = "/dev/shm";
	struct files files;

	if (argc < 2 || !parse(argc - 1, argv + 1))
		return usage();
	cmd = argv[1];
	argc -= 1 + optind;
	argv += 1 + optind;
	main_pid = getpid();
	cfg.stats = mmap(NULL, sizeof(*cfg.stats), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (cfg.stats == MAP_FAILED)
		return 2;
	if (access(shm, W_OK))
		shm = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
	snprintf(work_dir, sizeof(work_dir), "%s/sluice-sim-XXXXXX", shm);
	if (!mkdtemp(work_dir)) {
		perror(work_dir);
		return 2;
	}
	cfg.dir = work_dir;
	atexit(remove_work_dir);
	if (!make_bases())
		return 2;
	if (!strcmp(cmd, "torture"))
		return run_pool(from_seed, NULL, argv[-1 - optind]);
	if (!strcmp(cmd, "ace"))
		return run_pool(from_ace, NULL, argv[-1 - optind]);
	if (!strcmp(cmd, "oom"))
		return run_each(each_oom, ARRAY_SIZE(each_oom), argv[-1 - optind]);
	if (!strcmp(cmd, "enospc"))
		return run_each(each_enospc, ARRAY_SIZE(each_enospc), argv[-1 - optind]);
	if (!strcmp(cmd, "eio"))
		return run_each(each_eio, ARRAY_SIZE(each_eio), argv[-1 - optind]);
	if (!strcmp(cmd, "mutants"))
		return run_mutants(argv, argc);
	files = (struct files){ argv, argc };
	if (!strcmp(cmd, "streams"))
		return run_pool(from_files, &files, argv[-1 - optind]);
	if (argc == 1 && (!strcmp(cmd, "run") || !strcmp(cmd, "print") ||
			  !strcmp(cmd, "replay") || !strcmp(cmd, "shrink")))
		return one_stream(cmd, argv[0], argv[-1 - optind]);
	return usage();
}
