/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/balloc.c - block allocation: bitmaps, pending frees, reservations
 *
 * A block is free for allocation if its bit is clear in the bitmap and clear
 * in the group's pending map. Freeing clears the one and sets the other; the
 * commit of the freeing transaction clears the pending bit. So a block never
 * has a new owner while a crash could still bring the old one back.
 *
 * Who may have how much is decided before any search, by one counter:
 *
 *     avail = free_blocks - reserved      (pending blocks are in both)
 *
 * Delayed allocation takes from avail when it promises (free_blocks follows
 * when the blocks are allocated); others take from avail what they want and
 * give back what they did not get. Floors: r_blocks + meta_reserve, for root
 * meta_reserve, for extent-tree blocks 0. A holder of a promise therefore
 * finds its blocks, though perhaps pending: then -EAGAIN.
 *
 * Search, in up to three passes that accept shorter and shorter runs:
 *     the goal's group: at the goal, after it, before it
 *     the next NEAR_GROUPS groups
 *     all others, from the rotor (where the last long search ended)
 * A group is passed over by its free count and its longest known run, without
 * a look at its bitmap; only the last pass looks at as many bitmaps as it
 * takes.
 *
 * Bitmap, free count and both checksums of a group change together under its
 * lock; nothing sleeps there. Write access to the two buffers is asked for
 * before, which may set aside images for the commit.
 *
 * Locks:   init lock (uninitialised groups only) -> group lock
 * Never:   a change before everything that can fail has been done; a report
 *          (ext4_error) with one of these locks held
 * Source:  ext4-format brief 4.4-4.7, 11.6; seeds.md 2 (A1-A5)
 *          Next: group.c, ialloc.c
 */
#include "fs/alloc_internal.h"
#include "fs/sim_mutation.h"

#include <assert.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "lib/bitmap.h"
#include "lib/mem.h"

#define NO_GOAL UINT32_MAX
#define RUN_WANTED 2048u  /* a run this long is long enough for any pass */
#define NEAR_GROUPS 64u   /* groups after the goal's, tried before the rotor */
#define BITMAPS_PER_PASS 32u /* looked at before a pass settles for less */
#define SEARCH_RETRIES 4

struct run {
	u32 off, len; /* in blocks of the group */
};

struct search {
	struct handle *h;
	struct ext4_sb *sbi;
	u32 want;      /* most blocks to take */
	u32 min;       /* shortest run this pass accepts */
	bool last;     /* last pass: the best run of a group will do */
	bool exact;
	group_t goal_group;
	u32 goal_off;  /* NO_GOAL: none */
	u32 looked;    /* bitmaps looked at in this pass */
	pblk_t blk;    /* result */
	u32 got;
};

/* ---- reading bitmaps ---- */

/* Every system zone in g is marked used; without that nothing can be trusted. */
static bool zones_marked(const struct ext4_sb *sbi, group_t g, const void *map)
{
	pblk_t first = ext4_group_first_block(sbi, g);
	pblk_t end = first + ext4_blocks_in_group(sbi, g);
	pblk_t zs, ze;

	for (pblk_t pos = first; ext4_syszone_next(sbi, pos, end, &zs, &ze);
	     pos = ze)
		if (bm_find_clear(map, (u32)(zs - first), (u32)(ze - first)) !=
		    (u32)(ze - first))
			return false;
	return true;
}

static int bbitmap_verify(struct super_block *sb, const struct buffer *b,
			  const void *data, u32 seed)
{
	struct ext4_sb *sbi = EXT4_SB(sb);
	struct ext4_group_desc *gd;
	int error = 0;

	if (seed >= sbi->groups)
		return -EFSCORRUPTED;
	/* With the lock: map and checksum belong together. */
	ext4_group_lock(sbi, seed);
	gd = ext4_group_desc(sbi, seed, NULL);
	if (ext4_gd_block_bitmap(sbi, gd) != b->b_blocknr)
		error = -EFSCORRUPTED;
	else if (!ext4_gd_bbitmap_csum_ok(sbi, gd, data))
		error = -EFSBADCRC;
	else if (!ext4_has_ro_compat(sbi, BIGALLOC) &&
		 !zones_marked(sbi, seed, data))
		error = -EFSCORRUPTED;
	ext4_group_unlock(sbi, seed);
	return error;
}

/* seed: group number */
static const struct buffer_type bbitmap_type = {
	.name = "block bitmap",
	.verify = bbitmap_verify,
};

/* Marks the group's bitmap corrupt and tells about it, once. */
static int bbitmap_bad(struct ext4_sb *sbi, group_t g, ino_nr ino, pblk_t blk,
		       const char *what)
{
	if (!ext4_group_bbitmap_corrupt(sbi, g))
		return -EFSCORRUPTED;
	return ext4_error(sbi, ino, blk, -EFSCORRUPTED,
			  "group %u: %s; its block bitmap is not used any more",
			  g, what);
}

/* The first look at a bitmap: does it agree with the free count? */
static bool bbitmap_count_ok(struct ext4_sb *sbi, group_t g, const void *map)
{
	struct ext4_group_info *gi = &sbi->group_info[g];
	u32 nr = ext4_blocks_in_group(sbi, g);
	bool ok = true;

	ext4_group_lock(sbi, g);
	if (!(gi->flags & EXT4_GRP_BBITMAP_CHECKED)) {
		ok = nr - bm_weight(map, 0, nr) ==
		     ext4_gd_free_blocks(sbi, ext4_group_desc(sbi, g, NULL));
		if (ok)
			gi->flags |= EXT4_GRP_BBITMAP_CHECKED;
	}
	ext4_group_unlock(sbi, g);
	return ok;
}

/*
 * The bitmap of a group that has one, referenced. -EFSCORRUPTED without
 * another report if it is known to be bad. A bitmap that can't be read is bad
 * from then on; being out of memory is not the bitmap's fault.
 */
static int bbitmap_load(struct ext4_sb *sbi, group_t g, struct buffer **out)
{
	struct ext4_group_desc *gd = ext4_group_desc(sbi, g, NULL);
	struct buffer *b;
	int error;

	error = ext4_bread(sbi, ext4_gd_block_bitmap(sbi, gd), 0, &bbitmap_type,
			   g, &b);
	if (error) {
		if (error != -ENOMEM)
			ext4_group_bbitmap_corrupt(sbi, g);
		return error;
	}
	if (!bbitmap_count_ok(sbi, g, b->b_data)) {
		pblk_t blk = b->b_blocknr;

		buffer_put(b);
		return bbitmap_bad(sbi, g, 0, blk,
				   "free count and block bitmap disagree");
	}
	*out = b;
	return 0;
}

enum bbitmap_state { BB_NORMAL, BB_UNINIT, BB_CORRUPT };

static enum bbitmap_state bbitmap_state(struct ext4_sb *sbi, group_t g)
{
	enum bbitmap_state st = BB_NORMAL;

	ext4_group_lock(sbi, g);
	if (sbi->group_info[g].flags & EXT4_GRP_BBITMAP_CORRUPT)
		st = BB_CORRUPT;
	else if (ext4_gd_flags(sbi, ext4_group_desc(sbi, g, NULL)) &
		 EXT4_BG_BLOCK_UNINIT)
		st = BB_UNINIT;
	ext4_group_unlock(sbi, g);
	return st;
}

/* ---- search inside a group (group lock held, or the map is private) ---- */

/* First run of at least `enough` in [start, end), else the longest; no run is
 * looked at further than `want`. */
static struct run find_run(const void *map, const void *pending, u32 start,
			   u32 end, u32 enough, u32 want)
{
	struct run best = { 0, 0 };
	u32 s, e;

	for (u32 pos = start; pos < end; pos = e + 1) {
		s = bm_find_clear_or(map, pending, pos, end);
		if (s >= end)
			break;
		e = bm_find_set_or(map, pending, s + 1,
				   want < end - s ? s + want : end);
		if (e - s > best.len)
			best = (struct run){ s, e - s };
		if (best.len >= enough)
			break;
	}
	return best;
}

/* A run that suits this pass; len 0: none. */
static struct run choose_run(const struct search *s, group_t g, const void *map)
{
	struct ext4_group_info *gi = &s->sbi->group_info[g];
	const void *pending = gi->pending_blocks;
	u32 end = ext4_blocks_in_group(s->sbi, g);
	u32 enough = s->last ? s->want : s->min;
	struct run none = { 0, 0 }, best;
	u32 start = 0;

	if (g == s->goal_group && s->goal_off != NO_GOAL) {
		u32 e, lim = end;

		start = s->goal_off;
		if (s->want < end - start)
			lim = start + s->want;
		e = bm_find_set_or(map, pending, start, lim);
		if (e > start)
			return (struct run){ start, e - start };
		if (s->exact)
			return none;
	}
	if (gi->max_run) {
		if (gi->max_run - 1 < s->min)
			return none;
		enough = min_of(enough, gi->max_run - 1);
	}
	best = find_run(map, pending, start, end, enough, s->want);
	if (best.len < enough && start)
		best = find_run(map, pending, 0, end, enough, s->want);
	/* All was seen, and no run was cut short by `want` (>= enough). */
	if (best.len < enough)
		gi->max_run = best.len + 1;
	return best.len >= s->min ? best : none;
}

/* ---- taking blocks ---- */

/* Group lock held. False: the free count contradicts the bitmap. */
static bool take_run(struct ext4_sb *sbi, group_t g, void *map, struct run r)
{
	struct ext4_group_desc *gd = ext4_group_desc(sbi, g, NULL);
	u32 nr_free = ext4_gd_free_blocks(sbi, gd);

	if (nr_free < r.len)
		return false;
	bm_set_range(map, r.off, r.len);
	ext4_gd_set_free_blocks(sbi, gd, nr_free - r.len);
	ext4_gd_bbitmap_csum_set(sbi, gd, map);
	ext4_gd_csum_set(sbi, g, gd);
	atomic_fetch_sub(&sbi->alloc->group_blocks[g], r.len);
	return true;
}

static void found(struct search *s, group_t g, struct run r)
{
	s->blk = ext4_group_first_block(s->sbi, g) + r.off;
	s->got = r.len;
}

/*
 * The bitmap of a BLOCK_UNINIT group into map, as mke2fs left it in thought:
 * only system zones and what is beyond the end are in use. False if the
 * descriptor's free count says otherwise.
 */
static bool uninit_build(struct ext4_sb *sbi, group_t g, void *map)
{
	pblk_t first = ext4_group_first_block(sbi, g);
	u32 nr = ext4_blocks_in_group(sbi, g);
	pblk_t zs, ze;
	u32 nr_free;

	memset(map, 0, sbi->s.s_blocksize);
	for (pblk_t pos = first;
	     ext4_syszone_next(sbi, pos, first + nr, &zs, &ze); pos = ze)
		bm_set_range(map, (u32)(zs - first), (u32)(ze - zs));
	bm_set_range(map, nr, sbi->s.s_blocksize * 8 - nr);

	nr_free = nr - bm_weight(map, 0, nr);
	return nr_free == ext4_gd_free_blocks(sbi, ext4_group_desc(sbi, g, NULL));
}

/*
 * Makes `map` the bitmap of g, with run r (may be empty) taken, in h. The
 * init lock is held, so the group is still uninitialised; others see the
 * buffer only once the flag is clear, which is after its content is there.
 */
static int uninit_commit(struct handle *h, struct ext4_sb *sbi, group_t g,
			 const void *map, struct run r)
{
	struct ext4_group_desc *gd;
	struct buffer *gdb, *b;
	bool ok = true;
	int error;

	gd = ext4_group_desc(sbi, g, &gdb);
	error = buffer_get_zeroed(&sbi->s, ext4_gd_block_bitmap(sbi, gd),
				  &bbitmap_type, g, &b);
	if (error)
		return error;
	error = handle_get_create_access(h, b);
	if (!error)
		error = handle_get_write_access(h, gdb);
	if (error) {
		buffer_detach(b);
		buffer_put(b);
		return error;
	}
	ext4_group_lock(sbi, g);
	memcpy(b->b_data, map, sbi->s.s_blocksize);
	ext4_gd_clear_flag(gd, EXT4_BG_BLOCK_UNINIT);
	sbi->group_info[g].flags |= EXT4_GRP_BBITMAP_CHECKED;
	if (r.len)
		ok = take_run(sbi, g, b->b_data, r);
	else {
		ext4_gd_bbitmap_csum_set(sbi, gd, b->b_data);
		ext4_gd_csum_set(sbi, g, gd);
	}
	ext4_group_unlock(sbi, g);
	assert(ok); /* uninit_build() compared the counts */
	handle_dirty(h, b);
	handle_dirty(h, gdb);
	buffer_put(b);
	return 0;
}

int ext4_bbitmap_init_locked(struct handle *h, struct ext4_sb *sbi, group_t g)
{
	struct run none = { 0, 0 };
	void *map;
	int error;

	assert_mutex_held(ext4_init_lock(sbi, g));
	if (bbitmap_state(sbi, g) != BB_UNINIT)
		return 0;
	map = malloc(sbi->s.s_blocksize);
	if (!map)
		return -ENOMEM;
	error = -EFSCORRUPTED;
	if (uninit_build(sbi, g, map))
		error = uninit_commit(h, sbi, g, map, none);
	free(map);
	return error;
}

/* 0: s->blk is set. -EAGAIN: someone else has initialised the group. */
static int alloc_uninit_locked(struct search *s, group_t g, void *map)
{
	struct run r;
	int error;

	if (bbitmap_state(s->sbi, g) != BB_UNINIT)
		return -EAGAIN;
	if (!uninit_build(s->sbi, g, map))
		return -EFSCORRUPTED;
	/* Searched before the group is initialised: the handle's credits must
	 * not be spent on a group that then has nothing to give. */
	ext4_group_lock(s->sbi, g);
	r = choose_run(s, g, map);
	ext4_group_unlock(s->sbi, g);
	if (!r.len)
		return -ENOSPC;
	error = uninit_commit(s->h, s->sbi, g, map, r);
	if (!error)
		found(s, g, r);
	return error;
}

static int alloc_uninit(struct search *s, group_t g)
{
	struct mutex *lock = ext4_init_lock(s->sbi, g);
	void *map = malloc(s->sbi->s.s_blocksize);
	int error;

	if (!map)
		return -ENOMEM;
	mutex_lock(lock);
	error = alloc_uninit_locked(s, g, map);
	mutex_unlock(lock);
	free(map);
	if (error == -EFSCORRUPTED) {
		(void)bbitmap_bad(s->sbi, g, 0, 0,
				  "free count of an uninitialised group is wrong");
		return -ENOSPC;
	}
	return error;
}

static bool run_still_free(const struct ext4_group_info *gi, const void *map,
			   struct run r)
{
	return bm_find_set_or(map, gi->pending_blocks, r.off, r.off + r.len) ==
	       r.off + r.len;
}

/*
 * Takes a run from the bitmap in b. A first look without write access: a
 * group with nothing to give is not drawn into the transaction. Between the
 * two looks others may take the run; then the second look searches again.
 */
static int alloc_normal(struct search *s, group_t g, struct buffer *b)
{
	struct ext4_sb *sbi = s->sbi;
	struct ext4_group_info *gi = &sbi->group_info[g];
	struct buffer *gdb;
	const char *bad = NULL;
	struct run r;
	int error;

	ext4_group_lock(sbi, g);
	r = choose_run(s, g, b->b_data);
	ext4_group_unlock(sbi, g);
	if (!r.len)
		return -ENOSPC;

	ext4_group_desc(sbi, g, &gdb);
	error = handle_get_write_access(s->h, b);
	if (!error)
		error = handle_get_write_access(s->h, gdb);
	if (error)
		return error;

	ext4_group_lock(sbi, g);
	if (gi->flags & EXT4_GRP_BBITMAP_CORRUPT)
		r.len = 0;
	else if (!run_still_free(gi, b->b_data, r))
		r = choose_run(s, g, b->b_data);
	if (r.len) {
		found(s, g, r);
		if (!ext4_block_range_ok(sbi, s->blk, r.len))
			bad = "a block of the file system is marked free";
		else if (!take_run(sbi, g, b->b_data, r))
			bad = "fewer free blocks than the bitmap has";
	}
	ext4_group_unlock(sbi, g);
	if (bad) {
		(void)bbitmap_bad(sbi, g, 0, s->blk, bad);
		s->got = 0;
		return -ENOSPC;
	}
	if (!r.len)
		return -ENOSPC;
	handle_dirty(s->h, b);
	handle_dirty(s->h, gdb);
	return 0;
}

/* 0: taken. -ENOSPC: look elsewhere. Anything else ends the search. */
static int alloc_in_group(struct search *s, group_t g)
{
	struct buffer *b;
	int error;

	for (;;) {
		switch (bbitmap_state(s->sbi, g)) {
		case BB_CORRUPT:
			return -ENOSPC;
		case BB_UNINIT:
			error = alloc_uninit(s, g);
			if (error == -EAGAIN)
				continue; /* initialised, or corrupt, by now */
			return error;
		case BB_NORMAL:
			break;
		}
		break;
	}
	s->looked++;
	error = bbitmap_load(s->sbi, g, &b);
	if (error) /* reported */
		return error == -ENOMEM ? error : -ENOSPC;
	error = alloc_normal(s, g, b);
	buffer_put(b);
	return error;
}

/* ---- search over the groups ---- */

static int try_group(struct search *s, group_t g)
{
	if (atomic_load_explicit(&s->sbi->alloc->group_blocks[g],
				 memory_order_relaxed) < s->min)
		return -ENOSPC;
	return alloc_in_group(s, g);
}

/* Groups start, start+1, ... (nr of them, around the end). */
static int try_groups(struct search *s, group_t start, u32 nr, u32 max_looks)
{
	group_t g = start;
	int error;

	for (u32 i = 0; i < nr && s->looked < max_looks; i++) {
		error = try_group(s, g);
		if (error != -ENOSPC)
			return error;
		if (++g == s->sbi->groups)
			g = 0;
	}
	return -ENOSPC;
}

static int search_pass(struct search *s)
{
	struct ext4_sb *sbi = s->sbi;
	u32 groups = sbi->groups;
	u32 max_looks = s->last ? UINT32_MAX : BITMAPS_PER_PASS;
	u32 near = min_of(NEAR_GROUPS, groups - 1);
	group_t rotor;
	int error;

	s->looked = 0;
	/* At the goal even a short run is good: it grows the extent there. */
	error = -ENOSPC;
	if (atomic_load(&sbi->alloc->group_blocks[s->goal_group]))
		error = alloc_in_group(s, s->goal_group);
	if (error != -ENOSPC || s->exact)
		return error;
	error = try_groups(s, (s->goal_group + 1) % groups, near, max_looks);
	if (error != -ENOSPC || near == groups - 1)
		return error;
	rotor = atomic_load_explicit(&sbi->alloc->rotor, memory_order_relaxed);
	error = try_groups(s, rotor % groups, groups, max_looks);
	if (!error)
		atomic_store_explicit(&sbi->alloc->rotor,
				      ext4_block_group(sbi, s->blk),
				      memory_order_relaxed);
	return error;
}

static int search_all(struct search *s)
{
	u32 longest = min_of(s->want, RUN_WANTED);
	int error;

	longest = min_of(longest, s->sbi->blocks_per_group / 2);
	longest = max_of(longest, 1u);
	s->min = longest;
	s->last = s->min == 1;
	for (;;) {
		error = search_pass(s);
		if (error != -ENOSPC || s->last || s->exact)
			return error;
		s->min = s->min == longest ? max_of(longest / 8, 1u) : 1;
		s->last = s->min == 1;
	}
}

/* ---- admission ---- */

static s64 avail_floor(const struct ext4_sb *sbi, bool meta, bool root)
{
	if (meta)
		return 0;
	return (s64)(sbi->meta_reserve + (root ? 0 : sbi->r_blocks));
}

/* Takes up to n from avail; returns how many, 0 for none. */
static u32 admit(struct ext4_sb *sbi, u32 n, s64 floor)
{
	struct counter *avail = sbi->alloc->avail;

	while (n && !counter_sub_unless_below(avail, n, floor)) {
		s64 left = counter_sum(avail) - floor;

		if (left <= 0)
			return 0;
		n = (u32)min_of(left, (s64)n - 1);
	}
	return n;
}

int ext4_alloc_blocks(struct handle *h, struct ext4_sb *sbi, group_t hint,
		      pblk_t goal, u32 flags, u32 *len, pblk_t *out)
{
	bool delayed = flags & EXT4_ALLOC_DELAYED;
	struct search s = {
		.h = h,
		.sbi = sbi,
		.want = min_of(*len, sbi->blocks_per_group),
		.exact = flags & EXT4_ALLOC_EXACT_GOAL,
		.goal_group = hint % sbi->groups,
		.goal_off = NO_GOAL,
	};
	struct ext4_alloc *al = sbi->alloc;
	u32 gen;
	int error, tries = 0;

	assert(*len > 0);
	if (goal >= sbi->first_data_block && goal < sbi->blocks_count) {
		s.goal_group = ext4_block_group(sbi, goal);
		s.goal_off = ext4_block_offset(sbi, goal);
	} else if (s.exact) {
		return -ENOSPC;
	}
	if (!delayed) {
		s.want = admit(sbi, s.want,
			       avail_floor(sbi, flags & EXT4_ALLOC_META,
					   flags & EXT4_ALLOC_ROOT ||
						   handle_privileged(h)));
		if (!s.want)
			return -ENOSPC;
	}

	/*
	 * A commit that ends during the search may release blocks in groups
	 * already passed: the generation tells. It is raised before the
	 * pending count falls, and read after it.
	 */
	do {
		gen = atomic_load(&al->release_gen);
		error = search_all(&s);
		if (error == -ENOSPC && !s.exact &&
		    atomic_load(&al->pending_blocks))
			error = -EAGAIN;
	} while (error == -ENOSPC && !s.exact &&
		 gen != atomic_load(&al->release_gen) &&
		 ++tries < SEARCH_RETRIES);

	if (!delayed)
		counter_add(al->avail, (s64)s.want - (error ? 0 : s.got));
	if (error)
		return error;
	counter_add(sbi->free_blocks, -(s64)s.got);
	if (delayed)
		counter_add(sbi->reserved, -(s64)s.got);
	*len = s.got;
	*out = s.blk;
	return 0;
}

/* ---- freeing ---- */

/* What one call frees in one group; lives until the commit. */
struct free_batch {
	struct commit_cb cb;
	struct ext4_sb *sbi;
	group_t group;
	struct run run;
};

static size_t pending_bytes(const struct ext4_sb *sbi)
{
	return DIV_ROUND_UP(sbi->blocks_per_group, 64) * 8;
}

/* After the commit; also after an abort, when it only frees memory: nothing
 * can be allocated any more. */
static void free_batch_done(struct commit_cb *cb, int error)
{
	struct free_batch *fb = container_of_type(cb, struct free_batch, cb);
	struct ext4_sb *sbi = fb->sbi;
	struct ext4_group_info *gi = &sbi->group_info[fb->group];
	struct ext4_alloc *al = sbi->alloc;
	u8 *unused = NULL;

	ext4_group_lock(sbi, fb->group);
	bm_clear_range(gi->pending_blocks, fb->run.off, fb->run.len);
	gi->nr_pending_blocks -= fb->run.len;
	if (!gi->nr_pending_blocks) {
		unused = gi->pending_blocks;
		gi->pending_blocks = NULL;
	}
	gi->max_run = 0;
	if (!(gi->flags & EXT4_GRP_BBITMAP_CORRUPT))
		atomic_fetch_add(&al->group_blocks[fb->group], fb->run.len);
	ext4_group_unlock(sbi, fb->group);
	free(unused);
	/* This order: see ext4_alloc_blocks(). */
	atomic_fetch_add(&al->release_gen, 1);
	atomic_fetch_sub(&al->pending_blocks, fb->run.len);
	free(fb);
}

/* Group lock held: bits from "used" to "pending". *spare is used if the group
 * has no pending map yet. NULL, or what is wrong (nothing was changed). */
static const char *release_run(struct ext4_sb *sbi, group_t g, void *map,
			       struct run r, u8 **spare)
{
	struct ext4_group_info *gi = &sbi->group_info[g];
	struct ext4_group_desc *gd = ext4_group_desc(sbi, g, NULL);
	u32 nr_free = ext4_gd_free_blocks(sbi, gd) + r.len;

	if (bm_find_clear(map, r.off, r.off + r.len) != r.off + r.len)
		return "block to be freed is free already";
	if (nr_free > ext4_blocks_in_group(sbi, g))
		return "more free blocks than the group has";
	if (!gi->pending_blocks) {
		gi->pending_blocks = *spare;
		*spare = NULL;
	}
	bm_set_range(gi->pending_blocks, r.off, r.len);
	gi->nr_pending_blocks += r.len;
	bm_clear_range(map, r.off, r.len);
	ext4_gd_set_free_blocks(sbi, gd, nr_free);
	ext4_gd_bbitmap_csum_set(sbi, gd, map);
	ext4_gd_csum_set(sbi, g, gd);
	return NULL;
}

/* Everything that can fail, then the change. fb and spare are used up (set to
 * NULL) as far as the change needs them. */
static int free_prepared(struct handle *h, struct ext4_sb *sbi, ino_nr ino,
			 struct buffer *b, struct free_batch **fb, u8 **spare)
{
	group_t g = (*fb)->group;
	struct run r = (*fb)->run;
	const char *bad = NULL;
	struct buffer *gdb;
	bool corrupt;
	int error;

	ext4_group_desc(sbi, g, &gdb);
	error = handle_get_write_access(h, b);
	if (!error)
		error = handle_get_write_access(h, gdb);
	if (error)
		return error;

	ext4_group_lock(sbi, g);
	corrupt = sbi->group_info[g].flags & EXT4_GRP_BBITMAP_CORRUPT;
	if (!corrupt)
		bad = release_run(sbi, g, b->b_data, r, spare);
	ext4_group_unlock(sbi, g);
	if (corrupt)
		return 0;
	if (bad)
		return bbitmap_bad(sbi, g, ino,
				   ext4_group_first_block(sbi, g) + r.off, bad);

	atomic_fetch_add(&sbi->alloc->pending_blocks, r.len);
	handle_dirty(h, b);
	handle_dirty(h, gdb);
	if (SIM_MUTATION(SIM_REUSE_EARLY))
		free_batch_done(&(*fb)->cb, 0);
	else
		handle_on_commit(h, &(*fb)->cb);
	*fb = NULL;
	counter_add(sbi->free_blocks, r.len);
	counter_add(sbi->alloc->avail, r.len);
	return 0;
}

static int free_in_group(struct handle *h, struct ext4_sb *sbi, ino_nr ino,
			 group_t g, struct run r)
{
	struct free_batch *fb;
	struct buffer *b;
	u8 *spare;
	int error;

	switch (bbitmap_state(sbi, g)) {
	case BB_CORRUPT:
		/* Known and reported: the blocks stay in use until e2fsck. */
		return 0;
	case BB_UNINIT:
		return bbitmap_bad(sbi, g, ino,
				   ext4_group_first_block(sbi, g) + r.off,
				   "block to be freed is in an uninitialised group");
	case BB_NORMAL:
		break;
	}
	/* Patient: nothing refers to the blocks any more. */
	fb = malloc_patient(sizeof(*fb));
	spare = calloc_patient(1, pending_bytes(sbi));
	error = -ENOMEM;
	if (!fb || !spare)
		goto out_free;
	fb->cb.fn = free_batch_done;
	fb->sbi = sbi;
	fb->group = g;
	fb->run = r;
	error = bbitmap_load(sbi, g, &b);
	if (error)
		goto out_free;
	error = free_prepared(h, sbi, ino, b, &fb, &spare);
	buffer_put(b);
out_free:
	free(spare);
	free(fb);
	return error;
}

int ext4_free_blocks(struct handle *h, struct ext4_sb *sbi, ino_nr ino,
		     pblk_t blk, u32 len)
{
	int error;

	if (!len)
		return 0;
	if (!ext4_block_range_ok(sbi, blk, len))
		return ext4_error(sbi, ino, blk, -EFSCORRUPTED,
				  "blocks %" PRIu64 "+%u to be freed are not a file's",
				  blk, len);
	while (len) {
		group_t g = ext4_block_group(sbi, blk);
		u32 off = ext4_block_offset(sbi, blk);
		u32 n = min_of(len, sbi->blocks_per_group - off);

		error = free_in_group(h, sbi, ino, g, (struct run){ off, n });
		if (error)
			return error;
		blk += n;
		len -= n;
	}
	return 0;
}

/* ---- reservations ---- */

int ext4_reserve_blocks(struct ext4_sb *sbi, u32 n, bool root)
{
	if (!counter_sub_unless_below(sbi->alloc->avail, n,
				      avail_floor(sbi, false, root)))
		return -ENOSPC;
	counter_add(sbi->reserved, n);
	return 0;
}

void ext4_release_reserved(struct ext4_sb *sbi, u32 n)
{
	counter_add(sbi->reserved, -(s64)n);
	counter_add(sbi->alloc->avail, n);
}

u64 ext4_count_free_blocks(struct ext4_sb *sbi)
{
	s64 n = counter_sum(sbi->free_blocks) - counter_sum(sbi->reserved);

	return n > 0 ? (u64)n : 0;
}
