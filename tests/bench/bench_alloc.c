/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/bench/bench_alloc.c - allocations of blocks on an aged volume
 *
 * The volume is filled with runs of random length, of which some at random
 * are freed again, until a given part is in use. Then threads allocate and free, the
 * level staying what it is. Timed is the CPU that ext4_alloc_blocks() takes in
 * its thread; handles, frees and commits are not.
 */
#include "tests/unit/fs/alloc_test.h"

#include <inttypes.h>
#include <time.h>

#define RUNS_MAX (1u << 20)
#define HELD 256u

struct piece {
	pblk_t blk;
	u32 len;
};

enum kind { SMALL, GROW, LARGE, KINDS };
static const char *const kind_name[KINDS] = {
	"small (1-8 blocks, no goal)", "growth (8 blocks, goal)",
	"large (512 blocks, goal)"
};

struct worker {
	struct ext4_sb *sbi;
	unsigned seed;
	u32 rounds;
	u64 ns[KINDS], allocs[KINDS], blocks[KINDS];
};

static u64 cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (u64)ts.tv_sec * 1000000000u + (u64)ts.tv_nsec;
}

static void check(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "bench-alloc: %s\n", what);
		exit(1);
	}
}

static struct handle *start(struct ext4_sb *sbi)
{
	struct handle *h;

	check(!journal_start(sbi->journal, EXT4_ALLOC_CREDITS, 8, &h), "handle");
	return h;
}

static void give_back(struct ext4_sb *sbi, struct piece *p)
{
	struct handle *h = start(sbi);

	check(!ext4_free_blocks(h, sbi, 12, p->blk, p->len), "free");
	check(!handle_stop(h), "commit");
	p->len = 0;
}

/* Returns what is in use afterwards, RUNS_MAX pieces, some of length 0. */
static struct piece *age(struct ext4_sb *sbi, u32 percent)
{
	struct piece *p = calloc(RUNS_MAX, sizeof(*p));
	u64 goal = sbi->blocks_count * (100 - percent) / 100;
	unsigned seed = 1;
	u32 n = 0;

	check(p, "memory");
	for (;; n++) {
		struct handle *h = start(sbi);
		int err;

		check(n < RUNS_MAX, "too many runs");
		p[n].len = 1 + (u32)rand_r(&seed) % 32;
		err = ext4_alloc_blocks(h, sbi, 0, n ? p[n - 1].blk + p[n - 1].len : 0,
					EXT4_ALLOC_META, &p[n].len, &p[n].blk);
		check(!handle_stop(h), "commit");
		if (err) {
			p[n].len = 0;
			break;
		}
	}
	while (ext4_count_free_blocks(sbi) < goal) {
		u32 i = (u32)rand_r(&seed) % n;

		if (p[i].len)
			give_back(sbi, &p[i]);
	}
	check(!journal_force_commit(sbi->journal), "commit");
	return p;
}

static void one_alloc(struct worker *w, struct piece *p, pblk_t *last)
{
	unsigned r = (unsigned)rand_r(&w->seed);
	enum kind k = r % 8 < 5 ? SMALL : r % 8 < 7 ? GROW : LARGE;
	pblk_t goal = k == SMALL ? 0 : *last;
	struct handle *h;
	u64 t;
	int err;

	p->len = k == SMALL ? 1 + (r >> 8) % 8 : k == GROW ? 8 : 512;
	if (r % 64 == 63)
		goal = (r >> 8) % w->sbi->blocks_count;
	h = start(w->sbi);
	t = cpu_ns();
	err = ext4_alloc_blocks(h, w->sbi, (r >> 8) % w->sbi->groups, goal, 0,
				&p->len, &p->blk);
	t = cpu_ns() - t;
	check(!handle_stop(h), "commit");
	if (err) {
		check(err == -EAGAIN || err == -ENOSPC, "alloc");
		check(!journal_force_commit(w->sbi->journal), "commit");
		p->len = 0;
		return;
	}
	w->ns[k] += t;
	w->allocs[k]++;
	w->blocks[k] += p->len;
	*last = p->blk + p->len;
}

static void worker(void *arg)
{
	struct piece held[HELD] = { 0 };
	struct worker *w = arg;
	pblk_t last = 0;

	for (u32 i = 0; i < w->rounds; i++) {
		struct piece *p = &held[(u32)rand_r(&w->seed) % HELD];

		if (p->len)
			give_back(w->sbi, p);
		else
			one_alloc(w, p, &last);
	}
	for (u32 i = 0; i < HELD; i++)
		if (held[i].len)
			give_back(w->sbi, &held[i]);
}

static void measure(struct ext4_sb *sbi, u32 threads, u32 rounds)
{
	struct worker *w = calloc(threads, sizeof(*w));
	struct thread **th = calloc(threads, sizeof(struct thread *));
	struct worker sum = { 0 };

	check(w && th, "memory");
	for (u32 i = 0; i < threads; i++) {
		w[i] = (struct worker){ .sbi = sbi, .seed = i + 7, .rounds = rounds };
		check(!thread_create(&th[i], "bench", worker, &w[i]), "thread");
	}
	for (u32 i = 0; i < threads; i++) {
		thread_join(th[i]);
		for (int k = 0; k < KINDS; k++) {
			sum.ns[k] += w[i].ns[k];
			sum.allocs[k] += w[i].allocs[k];
			sum.blocks[k] += w[i].blocks[k];
		}
	}
	for (int k = 0; k < KINDS; k++)
		printf("%u threads  %-28s %8" PRIu64 " allocations, %6.2f us each, %6.1f blocks\n",
		       threads, kind_name[k], sum.allocs[k],
		       sum.allocs[k] ? (double)sum.ns[k] / 1000 / (double)sum.allocs[k] : 0,
		       sum.allocs[k] ? (double)sum.blocks[k] / (double)sum.allocs[k] : 0);
	free(w);
	free(th);
}

static int usage(int status)
{
	fprintf(status ? stderr : stdout,
		"usage: bench-alloc [-s SIZE] [-f PERCENT] [-n ROUNDS]\n"
		"  size of the volume (2G), part of it in use (80), rounds a thread (40000)\n"
		"The volume is a file below $TMPDIR.\n");
	return status;
}

int main(int argc, char **argv)
{
	const char *size = "2G";
	u32 percent = 80, rounds = 40000;
	struct piece *aged;
	struct at t;
	int c;

	while ((c = getopt(argc, argv, "s:f:n:h")) != -1)
		switch (c) {
		case 's': size = optarg; break;
		case 'f': percent = min_of((u32)strtoul(optarg, NULL, 10), 99u); break;
		case 'n': rounds = (u32)strtoul(optarg, NULL, 10); break;
		case 'h': return usage(0);
		default: return usage(2);
		}
	log_init("bench-alloc", LOG_LVL_WARN);
	thread_register();
	at_start(&t, "", size);
	aged = age(t.sbi, percent);
	printf("%s, %u %% in use, %u groups\n", size, percent, t.sbi->groups);
	for (u32 threads = 1; threads <= 4; threads *= 4)
		measure(t.sbi, threads, rounds);
	for (u32 i = 0; i < RUNS_MAX; i++)
		if (aged[i].len)
			give_back(t.sbi, &aged[i]);
	free(aged);
	check(!sl_unmount(t.sb), "unmount");
	check(!volume_fsck(&t.v), "e2fsck");
	volume_free(&t.v);
	return 0;
}
