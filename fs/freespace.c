/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/freespace.c - free space in memory: what is held back, summaries, claims
 *
 * Of the blocks that are free in a group's bitmap
 *
 *     some are held:   freed by a transaction that has not committed, or
 *                      claimed: in the magazine of a CPU or the window of a file
 *     the others are for everybody, and only they are found by a search
 *
 * A claim is memory only: its blocks are free on disk until they are used, so
 * a crash loses nothing. Its owner uses it from the front; when that is not
 * enough it gives all back, takes what it wants and claims what follows, under
 * one hold of the group lock.
 *
 * Nobody may be refused space that lies in claims. Who finds nothing raises
 * al->drainers, gives back every claim there is, and searches again. A claim
 * is made under its lock, after a look at drainers: either the drainer comes
 * later and finds it, or the claimer sees the drainer and claims nothing. So
 * from the drain until drainers falls, free blocks only get fewer by being
 * used, as without claims. Nothing is claimed either when little is left
 * (claims_floor), nor more than a quarter of what is.
 *
 * Summaries (free_runs.h) are made when a group is first searched, and given
 * up, by a clock hand, when there are too many.
 *
 * Locks:   group lock -> lock of a claim
 * Alive:   claims: from mount to unmount, in two tables
 * Next:    balloc.c
 */
#include "fs/alloc_internal.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "lib/bitmap.h"
#include "lib/mem.h"
#include "lib/thread.h"

#define MAGAZINE_BLOCKS 512u
#define MAGAZINE_LEAST 16u       /* clusters, if these are large */
#define SMALL_BYTES (64u * 1024) /* what a magazine serves at once, at most */
#define EVICT_LOOKS 128u         /* groups looked at for a summary to give up */

/* ---- tables ---- */

static struct ext4_claim *claims_new(u32 nr)
{
	struct ext4_claim *c = aligned_alloc(_Alignof(struct ext4_claim),
					     nr * sizeof(*c));

	if (!c)
		return NULL;
	memset(c, 0, nr * sizeof(*c));
	for (u32 i = 0; i < nr; i++)
		spin_init(&c[i].lock, RANK_CACHE_LIST);
	return c;
}

static void claims_free(struct ext4_claim *c, u32 nr)
{
	for (u32 i = 0; c && i < nr; i++)
		spin_destroy(&c[i].lock);
	free(c);
}

int ext4_space_init(struct ext4_sb *sbi)
{
	struct ext4_alloc *al = sbi->alloc;
	u64 runs = budget_limit(sbi->s.s_budget) / 64 / sizeof(struct free_runs);

	u64 nr = sbi->blocks_count >> sbi->cluster_bits;

	al->magazine_blocks = max_of(MAGAZINE_BLOCKS >> sbi->cluster_bits, MAGAZINE_LEAST);
	al->magazine_blocks = max_of(min_of(al->magazine_blocks,
					    sbi->clusters_per_group / 16), 1u);
	al->small_blocks = max_of(min_of(SMALL_BYTES >> ext4_cluster_bytes_bits(sbi),
					 al->magazine_blocks / 4), 1u);
	al->claims_max = nr / 16;
	al->claims_floor = (s64)(nr / 32);
	al->max_runs = (u32)max_of(min_of(runs, (u64)UINT32_MAX), (u64)64);
	al->nr_magazines = thread_nr_cpus() * EXT4_MAGAZINES_PER_CPU;
	al->magazine = claims_new(al->nr_magazines);
	al->window = claims_new(EXT4_WINDOWS);
	for (int i = 0; i < ALLOC_STATS; i++) {
		al->stat[i] = counter_new(0, 1024);
		if (!al->stat[i])
			return -ENOMEM;
	}
	return al->magazine && al->window ? 0 : -ENOMEM;
}

void ext4_space_free(struct ext4_sb *sbi)
{
	struct ext4_alloc *al = sbi->alloc;

	claims_free(al->magazine, al->nr_magazines);
	claims_free(al->window, EXT4_WINDOWS);
	for (int i = 0; i < ALLOC_STATS; i++)
		counter_free(al->stat[i]);
}

/* ---- what is held back ---- */

size_t ext4_held_bytes(const struct ext4_sb *sbi)
{
	return DIV_ROUND_UP(sbi->clusters_per_group, 64) * 8;
}

void ext4_space_touch(struct ext4_sb *sbi, group_t g, struct ext4_run r)
{
	struct free_runs *fr = sbi->group_info[g].runs;

	if (fr)
		free_runs_touch(fr, r.off, r.len);
}

void ext4_space_hold(struct ext4_sb *sbi, group_t g, struct ext4_run r, u8 **spare)
{
	struct ext4_group_info *gi = &sbi->group_info[g];

	if (!gi->held_blocks) {
		assert(*spare);
		gi->held_blocks = *spare;
		*spare = NULL;
	}
	bm_set_range(gi->held_blocks, r.off, r.len);
	gi->nr_held_blocks += r.len;
	ext4_space_touch(sbi, g, r);
}

void ext4_space_unhold(struct ext4_sb *sbi, group_t g, struct ext4_run r)
{
	struct ext4_group_info *gi = &sbi->group_info[g];

	assert(gi->nr_held_blocks >= r.len);
	bm_clear_range(gi->held_blocks, r.off, r.len);
	gi->nr_held_blocks -= r.len;
	ext4_space_touch(sbi, g, r);
	atomic_store_explicit(&sbi->alloc->group_longest[g], 0,
			      memory_order_relaxed);
}

u8 *ext4_space_trim(struct ext4_group_info *gi)
{
	u8 *unused = NULL;

	if (!gi->nr_held_blocks) {
		unused = gi->held_blocks;
		gi->held_blocks = NULL;
	}
	return unused;
}

/* ---- summaries ---- */

void ext4_space_install(struct ext4_sb *sbi, group_t g, struct free_runs **spare)
{
	free_runs_init(*spare, ext4_clusters_in_group(sbi, g));
	sbi->group_info[g].runs = *spare;
	*spare = NULL;
	atomic_fetch_add(&sbi->alloc->nr_runs, 1);
}

/* One summary less, if one is found soon. */
static void evict_runs(struct ext4_sb *sbi)
{
	struct ext4_alloc *al = sbi->alloc;
	struct free_runs *fr = NULL;

	for (u32 i = 0; i < EVICT_LOOKS && !fr; i++) {
		group_t g = atomic_fetch_add_explicit(&al->runs_hand, 1,
						      memory_order_relaxed) %
			    sbi->groups;

		if (!ext4_group_trylock(sbi, g))
			continue;
		fr = sbi->group_info[g].runs;
		sbi->group_info[g].runs = NULL;
		ext4_group_unlock(sbi, g);
	}
	if (fr)
		atomic_fetch_sub(&al->nr_runs, 1);
	free(fr);
}

struct free_runs *ext4_space_new_runs(struct ext4_sb *sbi)
{
	if (atomic_load(&sbi->alloc->nr_runs) >= sbi->alloc->max_runs)
		evict_runs(sbi);
	return malloc_patient(sizeof(struct free_runs));
}

/* ---- claims ---- */

static bool owned_by(const struct ext4_claim *c, ino_nr owner)
{
	return owner == EXT4_CLAIM_ANY ||
	       atomic_load_explicit(&c->owner, memory_order_relaxed) == owner;
}

struct ext4_run ext4_claim_peek(struct ext4_claim *c, ino_nr owner, group_t *g)
{
	struct ext4_run r = { 0, 0 };

	spin_lock(&c->lock);
	if (owned_by(c, owner))
		r = c->run;
	*g = c->group;
	spin_unlock(&c->lock);
	return r;
}

static void claim_used(struct ext4_alloc *al, struct ext4_claim *c)
{
	atomic_store_explicit(&c->used,
			      atomic_fetch_add_explicit(&al->claim_clock, 1,
							memory_order_relaxed),
			      memory_order_relaxed);
}

/* Who finds the claim empty, under its lock, finds its blocks in the counts: the
 * drain may meet one that another is just giving back. */
void ext4_claim_give(struct ext4_sb *sbi, struct ext4_claim *c, ino_nr owner,
		     group_t g)
{
	struct ext4_alloc *al = sbi->alloc;

	spin_lock(&c->lock);
	if (c->run.len && c->group == g && owned_by(c, owner)) {
		ext4_space_unhold(sbi, g, c->run);
		atomic_fetch_sub(&al->claimed, c->run.len);
		if (!(sbi->group_info[g].flags & EXT4_GRP_BBITMAP_CORRUPT))
			atomic_fetch_add(&al->group_blocks[g], c->run.len);
		c->run.len = 0;
	}
	spin_unlock(&c->lock);
}

bool ext4_claim_use(struct ext4_sb *sbi, struct ext4_claim *c, ino_nr owner,
		    group_t g, struct ext4_run r)
{
	struct ext4_group_info *gi = &sbi->group_info[g];
	bool ok;

	spin_lock(&c->lock);
	ok = c->group == g && c->run.off == r.off && c->run.len >= r.len &&
	     owned_by(c, owner);
	if (ok) {
		c->run.off += r.len;
		c->run.len -= r.len;
	}
	spin_unlock(&c->lock);
	if (!ok)
		return false;
	bm_clear_range(gi->held_blocks, r.off, r.len);
	gi->nr_held_blocks -= r.len;
	atomic_fetch_sub(&sbi->alloc->claimed, r.len);
	atomic_fetch_add(&sbi->alloc->group_blocks[g], r.len);
	claim_used(sbi->alloc, c);
	return true;
}

static bool may_claim(struct ext4_alloc *al, u32 len)
{
	s64 avail = counter_read_fast(al->avail);

	return !atomic_load(&al->drainers) && avail >= al->claims_floor &&
	       atomic_load(&al->claimed) + len <=
		       min_of(al->claims_max, (u64)avail / 4);
}

void ext4_claim_take(struct ext4_sb *sbi, struct ext4_claim *c, ino_nr owner,
		     group_t g, struct ext4_run r, u8 **spare)
{
	struct ext4_alloc *al = sbi->alloc;
	bool mine;

	if (!sbi->group_info[g].held_blocks && !*spare)
		return;
	spin_lock(&c->lock);
	mine = !c->run.len && owned_by(c, owner) && may_claim(al, r.len);
	if (mine) {
		c->group = g;
		c->run = r;
	}
	spin_unlock(&c->lock);
	if (!mine)
		return;
	/* Visible, but nobody can give it back without the group's lock. */
	ext4_space_hold(sbi, g, r, spare);
	atomic_fetch_add(&al->claimed, r.len);
	atomic_fetch_sub(&al->group_blocks[g], r.len);
	claim_used(al, c);
}

void ext4_claim_drop(struct ext4_sb *sbi, struct ext4_claim *c, ino_nr owner)
{
	u8 *unused;
	group_t g;

	/* Again, should it have moved to another group meanwhile. */
	while (ext4_claim_peek(c, owner, &g).len) {
		ext4_group_lock(sbi, g);
		ext4_claim_give(sbi, c, owner, g);
		unused = ext4_space_trim(&sbi->group_info[g]);
		ext4_group_unlock(sbi, g);
		free(unused);
	}
}

void ext4_claims_drain(struct ext4_sb *sbi)
{
	struct ext4_alloc *al = sbi->alloc;

	assert(atomic_load(&al->drainers));
	for (u32 i = 0; i < al->nr_magazines; i++)
		ext4_claim_drop(sbi, &al->magazine[i], EXT4_CLAIM_ANY);
	for (u32 i = 0; i < EXT4_WINDOWS; i++)
		ext4_claim_drop(sbi, &al->window[i], EXT4_CLAIM_ANY);
}

struct ext4_claim *ext4_magazine(struct ext4_sb *sbi, group_t hint)
{
	u32 flex = hint >> sbi->log_groups_per_flex;

	return &sbi->alloc->magazine[thread_cpu() * EXT4_MAGAZINES_PER_CPU +
				     flex % EXT4_MAGAZINES_PER_CPU];
}

struct ext4_claim *ext4_magazine_at(struct ext4_sb *sbi, group_t hint, group_t g,
				    u32 off)
{
	struct ext4_alloc *al = sbi->alloc;
	u32 first = (hint >> sbi->log_groups_per_flex) % EXT4_MAGAZINES_PER_CPU;

	for (u32 i = first; i < al->nr_magazines; i += EXT4_MAGAZINES_PER_CPU) {
		group_t at;
		struct ext4_run r = ext4_claim_peek(&al->magazine[i], 0, &at);

		if (r.len && at == g && r.off == off)
			return &al->magazine[i];
	}
	return NULL;
}

/* ---- windows ---- */

static struct ext4_claim *window_set(struct ext4_sb *sbi, ino_nr ino)
{
	u32 hash = ino * 0x9E3779B1u >> 16;

	return &sbi->alloc->window[hash % EXT4_WINDOW_SETS * EXT4_WINDOW_WAYS];
}

struct ext4_claim *ext4_window_find(struct ext4_sb *sbi, ino_nr ino)
{
	struct ext4_claim *c = window_set(sbi, ino);

	for (u32 i = 0; i < EXT4_WINDOW_WAYS; i++)
		if (atomic_load_explicit(&c[i].owner, memory_order_relaxed) == ino)
			return &c[i];
	return NULL;
}

/* From owner `was`, who has nothing there, to `ino`. */
static bool window_pass(struct ext4_claim *c, ino_nr was, ino_nr ino)
{
	bool ok;

	spin_lock(&c->lock);
	ok = !c->run.len && owned_by(c, was);
	if (ok)
		atomic_store_explicit(&c->owner, ino, memory_order_relaxed);
	spin_unlock(&c->lock);
	return ok;
}

struct ext4_claim *ext4_window_get(struct ext4_sb *sbi, ino_nr ino)
{
	struct ext4_claim *set = window_set(sbi, ino);
	struct ext4_claim *c = ext4_window_find(sbi, ino);
	u32 now = atomic_load_explicit(&sbi->alloc->claim_clock,
				       memory_order_relaxed);
	u32 oldest = 0;
	ino_nr was;

	if (c)
		return c;
	for (u32 i = 0; i < EXT4_WINDOW_WAYS; i++) {
		u32 age = now - atomic_load_explicit(&set[i].used,
						     memory_order_relaxed);

		if (!atomic_load_explicit(&set[i].owner, memory_order_relaxed))
			age = UINT32_MAX;
		if (!c || age > oldest) {
			c = &set[i];
			oldest = age;
		}
	}
	was = atomic_load_explicit(&c->owner, memory_order_relaxed);
	if (was)
		ext4_claim_drop(sbi, c, was);
	return window_pass(c, was, ino) ? c : NULL;
}

void ext4_release_window(struct ext4_sb *sbi, ino_nr ino)
{
	struct ext4_claim *c = sbi->alloc ? ext4_window_find(sbi, ino) : NULL;

	if (!c)
		return;
	/* An allocation that is under way loses its claim, or keeps it. */
	ext4_claim_drop(sbi, c, ino);
	(void)window_pass(c, ino, 0);
}
