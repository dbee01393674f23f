/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/zone.c - parts of the cache by NUMA node: memory, LRUs, reclaim
 *
 * A zone's thread sleeps until it is kicked. Then it frees what its zone has to
 * (zone_due()), and sleeps again when that is nothing: the sum is at the goal, or
 * it is the others' turn, whom it kicks. What it cannot free it tries again later
 * and later, and once it has tried in vain, it makes all zones free their
 * part (`unfair`), until the sum is at the goal.
 *
 * Each charge that finds the sum above the low mark kicks its own zone if that has to
 * free something, else all that have to, unless a thread is awake (`awake`). A thread
 * that goes to sleep clears its `kicked`, counts itself out of `awake`, and then
 * looks at the sum once more, since a charge between its last pass and that saw
 * it awake. Should both miss each other by a hair, the next charge kicks.
 *
 * Locks:   none
 * Threads: any; one of its own for each zone
 */
#include "cache/zone_internal.h"
#include "lib/rcu.h"

#include <assert.h>
#include <malloc.h>
#include <numa.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define LISTS_MAX 16u
#define BACKOFF_MIN_NS (5 * NS_PER_MS)
#define BACKOFF_MAX_NS (1000 * NS_PER_MS)
#define TRIM_LIMIT (256ull << 20)
#define TRIM_PERIOD_NS (1000 * NS_PER_MS)

/* ---- home zones ---- */

/* The thread's number for pretended zones, from 1; 0: it has none yet. */
static _Thread_local u32 my_number_;
static _Atomic u32 last_number_; /* [atomic] */

u32 zone_count(const struct budget *b)
{
	return b->nr_zones;
}

u32 zone_lists(const struct budget *b)
{
	u32 per_zone = DIV_ROUND_UP(thread_nr_cpus(), b->nr_zones);

	return min_of(per_zone, LISTS_MAX);
}

u32 zone_hash_lists(const struct budget *b)
{
	return min_of(4 * zone_lists(b), LISTS_MAX);
}

const int *zone_nodes(const struct budget *b)
{
	return b->nodes;
}

void zone_set_home(u32 nr)
{
	my_number_ = nr % ZONES_MAX + 1;
}

u32 zone_home(const struct budget *b)
{
	if (b->nr_zones == 1)
		return 0;
	if (b->cpu_zone) {
		int cpu = sched_getcpu();

		return cpu >= 0 && (u32)cpu < b->nr_cpus ? b->cpu_zone[cpu] : 0;
	}
	if (unlikely(!my_number_))
		my_number_ = atomic_fetch_add(&last_number_, 1) % UINT32_MAX + 1;
	return (my_number_ - 1) % b->nr_zones;
}

/* ---- which zones there are ---- */

/* Nodes of the machine that have memory for us, up to max; 0: it has none, or
 * does not say. nodes: room for so many, or NULL. */
static u32 find_nodes(int *nodes, u32 max)
{
	u32 nr = 0;

	if (numa_available() < 0)
		return 0;
	for (int n = 0; n <= numa_max_node() && nr < max; n++) {
		if (!numa_bitmask_isbitset(numa_all_nodes_ptr, (unsigned)n) ||
		    numa_node_size64(n, NULL) <= 0)
			continue;
		if (nodes)
			nodes[nr] = n;
		nr++;
	}
	return nr;
}

u32 zones_plan(u32 asked)
{
	if (asked)
		return min_of(asked, ZONES_MAX);
	return max_of(find_nodes(NULL, ZONES_MAX), 1u);
}

/* The zone with the nearest node: a node may have CPUs and no memory. */
static u8 nearest_zone(const struct budget *b, int node)
{
	int best = 0;
	u8 zone = 0;

	for (u32 i = 0; i < b->nr_zones; i++) {
		int distance = b->nodes[i] == node ?
				       1 : numa_distance(node, b->nodes[i]);

		/* 0: not known */
		if (distance > 0 && (!best || distance < best)) {
			best = distance;
			zone = (u8)i;
		}
	}
	return zone;
}

static int map_cpus(struct budget *b)
{
	int cpus = numa_num_possible_cpus();

	b->nodes = calloc(b->nr_zones, sizeof(*b->nodes));
	b->cpu_zone = calloc((size_t)max_of(cpus, 1), sizeof(*b->cpu_zone));
	if (!b->nodes || !b->cpu_zone)
		return -ENOMEM;
	/* Nodes may have come or gone since zones_plan(). */
	for (u32 i = find_nodes(b->nodes, b->nr_zones); i < b->nr_zones; i++)
		b->nodes[i] = b->nodes[0];
	b->nr_cpus = (u32)max_of(cpus, 1);
	for (int cpu = 0; cpu < cpus; cpu++) {
		int node = numa_node_of_cpu(cpu);

		if (node >= 0)
			b->cpu_zone[cpu] = nearest_zone(b, node);
	}
	return 0;
}

int zones_init(struct budget *b, u32 asked, s64 batch)
{
	b->pretended = asked > 0;
	for (u32 i = 0; i < b->nr_zones; i++) {
		struct zone *z = &b->zones[i];

		z->budget = b;
		z->nr = i;
		z->node = -1;
		for (int k = 0; k < BUDGET_KINDS; k++) {
			z->used[k] = counter_new_part(b->used[k], batch);
			if (!z->used[k])
				goto out_destroy;
		}
	}
	if (b->pretended || b->nr_zones == 1)
		return 0;
	if (map_cpus(b))
		goto out_destroy;
	for (u32 i = 0; i < b->nr_zones; i++)
		b->zones[i].node = b->nodes[i];
	return 0;

out_destroy:
	zones_destroy(b);
	return -ENOMEM;
}

void zones_destroy(struct budget *b)
{
	for (u32 i = 0; i < b->nr_zones; i++)
		for (int k = 0; k < BUDGET_KINDS; k++)
			counter_free(b->zones[i].used[k]);
	free(b->cpu_zone);
	free(b->nodes);
}

/* ---- their threads ---- */

static void zone_wake(struct zone *z)
{
	if (atomic_load_explicit(&z->kicked, memory_order_relaxed))
		return;
	if (!atomic_exchange(&z->kicked, true)) {
		atomic_fetch_add(&z->budget->awake, 1);
		wake_up(&z->kicked);
	}
}

static void kick_those_due(struct budget *b)
{
	struct load l;

	budget_take_load(b, &l);
	for (u32 i = 0; i < b->nr_zones; i++) {
		if (zone_due(&b->zones[i], &l))
			zone_wake(&b->zones[i]);
	}
}

void zones_kick(struct budget *b, struct zone *z)
{
	struct load l;

	/* relaxed: the next charge looks again */
	if (z && atomic_load_explicit(&z->kicked, memory_order_relaxed))
		return;
	budget_take_load(b, &l);
	if (z && zone_due(z, &l))
		zone_wake(z);
	else if (!atomic_load(&b->awake))
		kick_those_due(b);
}

/* Passes until the zone has nothing to free. When they free nothing, sleeps longer
 * and longer. */
static void reclaim_to_goal(struct zone *z)
{
	struct budget *b = z->budget;
	u64 backoff = BACKOFF_MIN_NS;
	u32 fruitless = 0;

	while (!atomic_load(&b->stop)) {
		struct load l;
		u64 due;

		budget_take_load(b, &l);
		due = zone_due(z, &l);
		if (!due)
			return;
		if (reclaim_pass(z, due, BY_THREAD)) {
			backoff = BACKOFF_MIN_NS;
			fruitless = 0;
			continue;
		}
		if (++fruitless < FRUITLESS_PASSES)
			continue;
		if (b->nr_zones > 1 && !atomic_exchange(&b->unfair, true))
			kick_those_due(b);
		/* Between goal and low mark there is no hurry: wait for a kick. */
		if (budget_load(b) <= budget_mark(&b->low))
			return;
		(void)wait_event_deadline(&z->kicked, atomic_load(&b->stop),
					  clock_mono_ns() + backoff);
		backoff = min_of(backoff * 2, (u64)BACKOFF_MAX_NS);
	}
}

void budget_trim(struct budget *b)
{
	rcu_barrier();
	shrinkers_trim(b);
	(void)malloc_trim(0);
}

/*
 * What the passes freed lies in pieces among what is still used, and malloc
 * does not give pages back to the system by itself but at the end of its heap. It takes
 * the locks of the heap for a moment, so not often; and with a large cache the
 * pieces weigh little beside it, and are many.
 */
static void trim_heap(struct budget *b)
{
	/* In this order: `last` may be another thread's time, which is not after ours. */
	u64 last = atomic_load(&b->trimmed_ns);
	u64 now = clock_mono_ns();

	if (budget_mark(&b->limit) > TRIM_LIMIT || now - last < TRIM_PERIOD_NS)
		return;
	if (!atomic_compare_exchange_strong(&b->trimmed_ns, &last, now))
		return;
	shrinkers_trim(b);
	(void)malloc_trim(0);
}

static void reclaim_thread(void *arg)
{
	struct zone *z = arg;
	struct budget *b = z->budget;

	/* Where that is not allowed it runs anywhere, and frees all the same. */
	if (z->node >= 0)
		(void)numa_run_on_node(z->node);
	else
		zone_set_home(z->nr);
	for (;;) {
		wait_event(&z->kicked, atomic_load(&z->kicked) ||
					       atomic_load(&b->stop));
		if (atomic_load(&b->stop))
			return;
		reclaim_to_goal(z);
		trim_heap(b);
		if (budget_load(b) <= budget_mark(&b->goal))
			atomic_store(&b->unfair, false);
		atomic_store(&z->kicked, false);
		atomic_fetch_sub(&b->awake, 1);
		/* See the head of the file. And the others' turn may be now. */
		if (budget_load(b) > budget_mark(&b->low))
			kick_those_due(b);
	}
}

int zones_start(struct budget *b)
{
	for (u32 i = 0; i < b->nr_zones; i++) {
		char name[24]; /* the first 15 are shown */
		int error;

		if (b->nr_zones == 1)
			snprintf(name, sizeof(name), "reclaim");
		else
			snprintf(name, sizeof(name), "reclaim/%u", i);
		error = thread_create(&b->zones[i].thread, name, reclaim_thread,
				      &b->zones[i]);
		if (error) {
			zones_stop(b);
			return error;
		}
	}
	return 0;
}

void zones_stop(struct budget *b)
{
	atomic_store(&b->stop, true);
	for (u32 i = 0; i < b->nr_zones && b->zones[i].thread; i++) {
		wake_up(&b->zones[i].kicked);
		thread_join(b->zones[i].thread);
		b->zones[i].thread = NULL;
	}
}

/* ---- statistics ---- */

void zone_get_stats(struct budget *b, u32 zone, struct zone_stats *st)
{
	struct zone *z = &b->zones[zone];
	u64 sum = 0;

	assert(zone < b->nr_zones);
	*st = (struct zone_stats){
		.node = z->node,
		.share = budget_mark(&b->limit) / b->nr_zones,
		.background = atomic_load(&z->reclaimed[BY_THREAD]),
		.direct = atomic_load(&z->reclaimed[BY_REQUEST]),
		.passes = atomic_load(&z->passes),
		.scanned = atomic_load(&z->scanned),
		.rotated = atomic_load(&z->rotated),
	};
	for (int k = 0; k < BUDGET_KINDS; k++) {
		st->used[k] = zone_used(b, zone, k);
		sum += st->used[k];
	}
	st->borrowed = sum > st->share ? sum - st->share : 0;
	rwsem_down_read(&b->scan);
	for (struct shrinker *s = b->shrinkers; s; s = s->next)
		if (s->count)
			st->lru[s->kind] += s->count(s, zone);
	rwsem_up_read(&b->scan);
}

struct line {
	const char *name;
	u64 value;
};

static size_t zone_text(u32 zone, const struct zone_stats *st, char *buf,
			size_t len)
{
	const struct line lines[] = {
		{ "inode_bytes", st->used[BUDGET_INODE] },
		{ "buffer_bytes", st->used[BUDGET_BUFFER] },
		{ "folio_bytes", st->used[BUDGET_FOLIO] },
		{ "share", st->share },
		{ "borrowed", st->borrowed },
		{ "lru_inodes", st->lru[BUDGET_INODE] },
		{ "lru_buffers", st->lru[BUDGET_BUFFER] },
		{ "lru_folios", st->lru[BUDGET_FOLIO] },
		{ "reclaimed_background", st->background },
		{ "reclaimed_direct", st->direct },
		{ "passes", st->passes },
		{ "scanned", st->scanned },
		{ "rotated", st->rotated },
	};
	size_t used = 0;

	for (u32 i = 0; i < ARRAY_SIZE(lines); i++) {
		int n = snprintf(buf + used, len - used, "zone.%u.%s %llu\n",
				 zone, lines[i].name,
				 (unsigned long long)lines[i].value);

		if (n < 0 || (size_t)n >= len - used)
			break;
		used += (size_t)n;
	}
	return used;
}

size_t zone_stats_text(struct budget *b, char *buf, size_t len)
{
	int n = snprintf(buf, len, "zones %u\n", b->nr_zones);
	size_t used;

	if (n < 0 || (size_t)n >= len)
		return 0;
	used = (size_t)n;
	for (u32 i = 0; i < b->nr_zones; i++) {
		struct zone_stats st;

		zone_get_stats(b, i, &st);
		used += zone_text(i, &st, buf + used, len - used);
	}
	return used;
}
