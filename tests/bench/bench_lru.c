/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/bench/bench_lru.c - one LRU and lock against one for each zone, while
 * memory is reclaimed
 *
 * A cache of objects of 1 KiB under a budget that holds half of what any one thread
 * asks for. Each thread goes round places of its own: what is still there gets a second
 * chance, what is not is allocated, charged and put on an LRU, and one in four of
 * these is used again at once. The zones' threads, and requests that find the budget
 * full, evict through cache/lru.c and free. So a row is what the lists, the budget and
 * reclaim cost.
 *
 *   one    a single list and lock for all zones
 *   zones  a list and a lock for each
 *
 * Zones are pretended ones; the home of the n-th thread is zone n modulo zones. In both
 * arms each has its account and its thread that reclaims.
 * The arms take turns. waits: takes of a list's lock that found it held; wait_ms:
 * their sum over all threads. slept: voluntary context switches of the process. In the end
 * all accounts must be even: else the exit status is 1.
 *
 * Locks: none. Threads: its own.
 */
#include "tests/bench/bench.h"

#include "cache/lru.h"
#include "cache/shrinker.h"
#include "cache/zone.h"
#include "lib/thread.h"
#include "lib/wait.h"

#include <getopt.h>
#include <stdatomic.h>
#include <unistd.h>

#define THREADS_MAX 64u
#define BYTES 1024u
#define LIMIT (8ull << 20)

static void die(const char *what)
{
	fprintf(stderr, "bench-lru: %s\n", what);
	exit(1);
}

/* ---- the cache ---- */

/* Who owns an object in which state: its thread, the LRU, again the LRU. */
enum state { GONE, CACHED, REFERENCED };

struct object {
	struct cds_list_head link; /* [list lock] */
	_Atomic u32 state;         /* [atomic] */
	u32 zone;                  /* [const while not GONE] */
	void *memory;              /* [const while not GONE] */
};

static struct {
	struct budget *budget;
	struct lru *lru;
	struct shrinker shrinker;
	bool one; /* list for all zones */
} cache;

struct eviction {
	struct lru_scan scan;
	struct cds_list_head victims;
	u64 want, freed; /* bytes */
};

static enum lru_verdict isolate(struct cds_list_head *item, struct lru_scan *scan)
{
	struct eviction *e = caa_container_of(scan, struct eviction, scan);
	struct object *o = caa_container_of(item, struct object, link);
	u32 referenced = REFERENCED;

	if (atomic_compare_exchange_strong(&o->state, &referenced, CACHED))
		return LRU_ROTATED;
	cds_list_add_tail(&o->link, &e->victims);
	return LRU_REMOVED;
}

static bool dispose(struct lru_scan *scan)
{
	struct eviction *e = caa_container_of(scan, struct eviction, scan);
	struct object *o, *next;

	cds_list_for_each_entry_safe(o, next, &e->victims, link) {
		zone_uncharge(cache.budget, o->zone, BUDGET_FOLIO, BYTES);
		free(o->memory);
		e->freed += BYTES;
		atomic_store(&o->state, GONE); /* the thread may use it again */
	}
	CDS_INIT_LIST_HEAD(&e->victims);
	return e->freed < e->want;
}

static u64 scan_cache(struct shrinker *s, struct shrink_control *sc)
{
	struct eviction e = {
		.scan = { .isolate = isolate, .dispose = dispose },
		.want = sc->bytes,
	};

	CDS_INIT_LIST_HEAD(&e.victims);
	lru_shrink(cache.lru, cache.one ? 0 : sc->zone, &e.scan);
	sc->scanned += e.scan.scanned;
	sc->rotated += e.scan.rotated;
	return e.freed;
}

static void make_cache(u32 zones, bool one)
{
	cache.one = one;
	if (budget_create(LIMIT, zones, &cache.budget))
		die("no budget");
	cache.lru = lru_new(one ? 1 : zones, 1);
	if (!cache.lru)
		die("no memory");
	cache.shrinker = (struct shrinker){
		.name = "objects", .kind = BUDGET_FOLIO, .scan = scan_cache,
	};
	budget_register(cache.budget, &cache.shrinker);
}

static void free_cache(void)
{
	budget_drop_all(cache.budget);
	budget_unregister(cache.budget, &cache.shrinker);
	if (budget_used(cache.budget, BUDGET_FOLIO))
		die("the accounts are not even");
	for (u32 zone = 0; zone < (cache.one ? 1 : zone_count(cache.budget)); zone++)
		if (lru_nr(cache.lru, zone))
			die("a list is not empty");
	lru_free(cache.lru);
	budget_destroy(cache.budget);
}

/* ---- what a thread does ---- */

struct worker {
	struct thread *thread;
	u32 nr, places;
	struct object *object;
	u64 hits, misses;
} __cacheline_aligned;

static _Atomic bool go, stop;

static void enter(struct object *o)
{
	budget_throttle(cache.budget);
	o->zone = zone_home(cache.budget);
	o->memory = malloc(BYTES);
	if (!o->memory)
		die("no memory");
	memset(o->memory, 1, BYTES);
	zone_charge(cache.budget, o->zone, BUDGET_FOLIO, BYTES);
	atomic_store(&o->state, CACHED);
	lru_add(lru_list_of(cache.lru, cache.one ? 0 : o->zone, 0), &o->link);
}

static void worker_main(void *arg)
{
	struct worker *w = arg;
	u32 at = 0;

	zone_set_home(w->nr);
	wait_event(&go, atomic_load(&go));
	while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
		struct object *o = &w->object[at++ % w->places];
		u32 cached = CACHED;

		if (atomic_load(&o->state) == GONE) {
			enter(o);
			w->misses++;
			if (at % 4)
				continue;
		}
		/* Unless it is being evicted. */
		(void)atomic_compare_exchange_strong(&o->state, &cached,
						     REFERENCED);
		w->hits++;
	}
}

/* ---- the table ---- */

static void run(struct bench_table *t, bool one, u32 zones, u32 threads, u64 ms)
{
	static struct worker w[THREADS_MAX];
	struct timespec pause = { (time_t)(ms / 1000),
				  (long)(ms % 1000) * 1000000 };
	u64 hits = 0, misses = 0, scanned = 0, rotated = 0, waits = 0, wait_ns = 0;
	struct bench_usage used;

	make_cache(zones, one);
	atomic_store(&go, false);
	atomic_store(&stop, false);
	for (u32 i = 0; i < threads; i++) {
		w[i] = (struct worker){ .nr = i };
		w[i].places = (u32)(2 * LIMIT / BYTES);
		w[i].object = calloc(w[i].places, sizeof(*w[i].object));
		if (!w[i].object ||
		    thread_create(&w[i].thread, "bench", worker_main, &w[i]))
			die("no memory, or no thread");
	}
	used = bench_usage_now();
	atomic_store(&go, true);
	wake_up(&go);
	nanosleep(&pause, NULL);
	atomic_store(&stop, true);
	for (u32 i = 0; i < threads; i++) {
		thread_join(w[i].thread);
		hits += w[i].hits;
		misses += w[i].misses;
	}
	used = bench_usage_since(used);
	for (u32 zone = 0; zone < zones; zone++) {
		struct zone_stats st;
		u64 ns;

		zone_get_stats(cache.budget, zone, &st);
		scanned += st.scanned;
		rotated += st.rotated;
		if (one && zone)
			continue;
		waits += lru_waits(cache.lru, zone, &ns);
		wait_ns += ns;
	}
	free_cache();
	for (u32 i = 0; i < threads; i++)
		free(w[i].object);

	bench_row_begin(t);
	bench_cell_text(t, "arm", one ? "one" : "zones");
	bench_cell_int(t, "zones", zones);
	bench_cell_int(t, "threads", threads);
	bench_cell_real(t, "new_per_ms",
			(double)misses * 1e6 / (double)used.wall_ns);
	bench_cell_int(t, "used_again", hits);
	bench_cell_real(t, "cpu_us_new",
			(double)used.cpu_ns / 1e3 /
				(double)max_of(misses, (u64)1));
	bench_cell_int(t, "scanned", scanned);
	bench_cell_int(t, "rotated", rotated);
	bench_cell_int(t, "waits", waits);
	bench_cell_real(t, "wait_ms", (double)wait_ns / 1e6);
	bench_cell_int(t, "slept", used.waits);
	bench_cell_int(t, "preempted", used.preempted);
	bench_row_end(t);
}

static void usage(void)
{
	fprintf(stderr,
		"usage: bench-lru [-t THREADS] [-z ZONES] [-d MS] [-n REPEATS] [-j FILE]\n"
		"  -t  threads (8, up to 64)\n"
		"  -z  up to so many zones, 1, 2, 4, ... (8)\n"
		"  -d  how long a row lasts (1000)\n"
		"  -n  all of it so many times (3)\n"
		"  -j  the rows as JSON, too\n");
	exit(2);
}

int main(int argc, char **argv)
{
	u64 threads = 8, zones = 8, ms = 1000, repeats = 3;
	const char *json = NULL;
	struct bench_table t;
	int c;

	while ((c = getopt(argc, argv, "t:z:d:n:j:h")) != -1) {
		if (c == 'j')
			json = optarg;
		else if (c == 'h' || c == '?' ||
			 !bench_parse_size(optarg, c == 't' ? &threads :
						   c == 'z' ? &zones :
						   c == 'd' ? &ms : &repeats))
			usage();
	}
	if (optind < argc || !threads || threads > THREADS_MAX || !zones ||
	    zones > ZONES_MAX || !ms || !repeats)
		usage();
	if (!bench_table_open(&t, "lru", json))
		die("the JSON file can't be made");
	thread_register();
	for (u64 r = 0; r < repeats; r++) {
		for (u32 n = 1; n <= zones; n *= 2) {
			run(&t, true, n, (u32)threads, ms);
			run(&t, false, n, (u32)threads, ms);
		}
	}
	if (!bench_table_close(&t))
		die("the JSON file can't be written");
	return 0;
}
