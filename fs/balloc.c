/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/balloc.c - block allocation: where from, search, bitmaps, pending frees,
 * reservations
 *
 * All counts and offsets here are in the bitmaps' unit: clusters with bigalloc,
 * else blocks, which is what they are called all the same. Only numbers of type
 * pblk_t, and what ext4_free_blocks() is given, are blocks.
 *
 * A block is free for allocation if its bit is clear in the bitmap and clear
 * in the group's map of held blocks. Freeing clears the one and sets the
 * other; the commit of the freeing transaction ends that. So a block never has
 * a new owner while a crash could still bring the old one back. Held are also
 * the blocks of claims: magazines and windows (freespace.c).
 *
 * Who may have how much is decided before any search, by one counter:
 *
 *     avail = free_blocks - reserved      (held blocks are in both)
 *
 * Delayed allocation takes from avail when it promises (free_blocks follows
 * when the blocks are allocated); others take from avail what they want and
 * give back what they did not get. Floors: r_blocks + meta_reserve, for root
 * meta_reserve, for extent-tree blocks 0. A holder of a promise therefore
 * finds its blocks, though perhaps pending: then -EAGAIN.
 *
 * Where from:
 *     small, without a goal     the CPU's magazine: a run of some hundred
 *                               blocks, claimed in memory, used front to back
 *     the end of a file that    the file's window: what was claimed behind its
 *     grows or has more to come last allocation, as much again as it has (up
 *                               to 8 MiB); so streams written at the same time
 *                               do not take the places next to each other
 *     anything else             a search
 * A magazine or window that has nothing is filled by a search too: it looks
 * for what is wanted and what is to be claimed in one run. Claimed blocks are
 * free for everybody who counts: if a search ends without a block, all claims
 * are given back and it is done again.
 *
 * Search, in up to three passes that accept shorter and shorter runs:
 *     the goal's group: at the goal, after it, before it
 *     the next NEAR_GROUPS groups
 *     all others, from the rotor (where the last long search ended)
 * A group is passed over by its free count and its longest known run, without
 * a look at its bitmap, and if its lock is taken, unless it is the goal's; only
 * the last pass looks at as many bitmaps as it takes, and waits. In a group the
 * summary of its free runs (free_runs.h) says where to look.
 *
 * Of blocks smaller than a page, a long run of a file's data begins where it does
 * within the file's page (aim_at_page()), if it has no goal and the place has room.
 *
 * Bitmap, free count and both checksums of a group change together under its
 * lock; nothing sleeps there. Write access to the two buffers is asked for
 * before, which may set aside images for the commit.
 *
 * Locks:   init lock (uninitialised groups only) -> group lock -> claim
 * Never:   a change before everything that can fail has been done; a report
 *          (ext4_error) or I/O with one of these locks held
 * Source:  ext4-format brief 4.4-4.7, 11.6; seeds.md 2 (A1-A5)
 *          Next: freespace.c, group.c, ialloc.c
 */
#include "fs/alloc_internal.h"
#include "fs/sim_mutation.h"

#include <assert.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/bitmap.h"
#include "lib/mem.h"

#define NO_GOAL UINT32_MAX
#define PAGE_UNIT 4096u   /* bytes: the smallest page, and the largest usual sector */
#define MUCH_WANTED 256u  /* a run that long may lie where it is best for the file */
#define RUN_WANTED 2048u  /* a run this long is long enough for any pass */
#define NEAR_GROUPS 64u   /* groups after the goal's, tried before the rotor */
#define BITMAPS_PER_PASS 32u /* looked at before a pass settles for less */
#define SEARCH_RETRIES 4
#define MAGAZINE_ENOUGH 64u
#define WINDOW_BYTES_MIN (64u << 10)
#define WINDOW_BYTES_MAX (8u << 20)

struct search {
	struct handle *h;
	struct ext4_sb *sbi;
	u32 want;      /* most blocks to take */
	u32 min;       /* shortest run this pass accepts */
	bool last;     /* last pass: the best run of a group will do */
	bool exact;
	bool near;     /* exact first, then from the magazine */
	group_t groups; /* the first so many are searched */
	group_t goal_group;
	u32 goal_off;  /* NO_GOAL: none */
	/* Where a run should begin that has no goal: phase blocks behind a multiple of
	 * align, which is a power of two; 1: anywhere. */
	u32 align, phase;
	u32 looked;    /* bitmaps looked at in this pass */
	u32 looks;     /* and in all */
	u32 busy;      /* groups whose lock was taken */
	/* What is claimed on the way; NULL: nothing. */
	struct ext4_claim *claim;
	ino_nr owner;  /* of claim; 0: a magazine */
	u32 ahead;     /* blocks to be claimed behind what is taken */
	enum ext4_alloc_stat source;
	/* Memory that a group may need under its lock. */
	struct free_runs *spare_runs;
	u8 *spare_held;
	pblk_t blk;    /* result */
	u32 got;
};

/* ---- reading bitmaps ---- */

/* The first system zone of g from *pos on, in bits of its bitmap: one that is in it in
 * part is in it. *pos goes behind it. False: none. */
static bool next_zone(const struct ext4_sb *sbi, group_t g, pblk_t *pos,
		      struct ext4_run *r)
{
	pblk_t first = ext4_group_first_block(sbi, g);
	pblk_t end = first + ext4_blocks_in_group(sbi, g);
	u8 bits = sbi->cluster_bits;
	pblk_t zs, ze;

	if (!ext4_syszone_next(sbi, max_of(*pos, first), end, &zs, &ze))
		return false;
	r->off = (u32)((zs - first) >> bits);
	r->len = (u32)((ze - 1 - first) >> bits) + 1 - r->off;
	*pos = ze;
	return true;
}

/* Every system zone in g is marked used; without that nothing can be trusted. */
static bool zones_marked(const struct ext4_sb *sbi, group_t g, const void *map)
{
	struct ext4_run r;

	for (pblk_t pos = 0; next_zone(sbi, g, &pos, &r);)
		if (bm_find_clear(map, r.off, r.off + r.len) != r.off + r.len)
			return false;
	return true;
}

/* Its first block. */
static pblk_t run_start(const struct ext4_sb *sbi, group_t g, struct ext4_run r)
{
	return ext4_group_first_block(sbi, g) + ((pblk_t)r.off << sbi->cluster_bits);
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
	else if (!zones_marked(sbi, seed, data))
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
	u32 nr = ext4_clusters_in_group(sbi, g);
	bool ok = true;

	if (gi->flags & EXT4_GRP_BBITMAP_CHECKED)
		return true;
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

/* A group never becomes uninitialised again: one that was checked is known
 * without its lock. */
static enum bbitmap_state bbitmap_state(struct ext4_sb *sbi, group_t g)
{
	u32 flags = sbi->group_info[g].flags;
	enum bbitmap_state st = BB_NORMAL;

	if (flags & EXT4_GRP_BBITMAP_CORRUPT)
		return BB_CORRUPT;
	if (flags & EXT4_GRP_BBITMAP_CHECKED)
		return BB_NORMAL;
	ext4_group_lock(sbi, g);
	if (sbi->group_info[g].flags & EXT4_GRP_BBITMAP_CORRUPT)
		st = BB_CORRUPT;
	else if (ext4_gd_flags(sbi, ext4_group_desc(sbi, g, NULL)) &
		 EXT4_BG_BLOCK_UNINIT)
		st = BB_UNINIT;
	ext4_group_unlock(sbi, g);
	return st;
}

/* ---- search inside a group (group lock held) ---- */

/*
 * Locks g, which then has a summary, and a map of held blocks if a claim may
 * want one. -EBUSY: somebody else has the lock (try). The summary may be
 * evicted between the malloc and the lock, so: again.
 */
static int lock_group(struct search *s, group_t g, bool try)
{
	struct ext4_group_info *gi = &s->sbi->group_info[g];

	for (;;) {
		if (!try)
			ext4_group_lock(s->sbi, g);
		else if (!ext4_group_trylock(s->sbi, g))
			return -EBUSY;
		if (!gi->runs && s->spare_runs)
			ext4_space_install(s->sbi, g, &s->spare_runs);
		if (gi->runs && (!s->ahead || gi->held_blocks || s->spare_held))
			return 0;
		ext4_group_unlock(s->sbi, g);

		if (s->ahead && !s->spare_held) {
			s->spare_held = calloc(1, ext4_held_bytes(s->sbi));
			if (!s->spare_held)
				s->ahead = 0; /* claims are no must */
		}
		if (!s->spare_runs)
			s->spare_runs = ext4_space_new_runs(s->sbi);
		if (!s->spare_runs)
			return -ENOMEM;
	}
}

static void free_spares(struct search *s)
{
	free(s->spare_runs);
	free(s->spare_held);
}

/* Does the claim hold the goal? */
static bool claim_has_goal(struct search *s, group_t g)
{
	struct ext4_run r;
	group_t cg;

	if (!s->claim || g != s->goal_group || s->goal_off == NO_GOAL)
		return false;
	r = ext4_claim_peek(s->claim, s->owner, &cg);
	return cg == g && s->goal_off >= r.off && s->goal_off - r.off < r.len;
}

/* The first run of at least `enough` from `start` on, then from the front; nr: none. */
static u32 find_run(const struct free_runs *fr, const void *map, const void *held,
		    u32 start, u32 enough)
{
	u32 off = free_runs_find(fr, map, held, start, enough);

	return off == fr->nr ? free_runs_find(fr, map, held, 0, enough) : off;
}

/* Blocks of the free run at off to be passed over, so that it begins where it should: if
 * behind them is all that is wanted, or much. */
static u32 skip_to_phase(const struct search *s, group_t g, const struct free_runs *fr,
			 const void *map, const void *held, u32 off)
{
	pblk_t at = ext4_group_first_block(s->sbi, g) + off;
	u32 skip = (u32)(s->phase - at) & (s->align - 1);
	u64 end = (u64)off + skip + min_of(s->want, MUCH_WANTED);

	if (!skip || end > fr->nr || bm_find_set_or(map, held, off, (u32)end) < end)
		return 0;
	return skip;
}

/* Blocks to take of the free run [off, end): less than all that is wanted ends with a page
 * of the file, of which no part is to lie elsewhere. */
static struct ext4_run cut_run(const struct search *s, u32 off, u32 end)
{
	u32 len = end - off, part = (s->phase + len) & (s->align - 1);

	if (len < s->want && part < len)
		len -= part;
	return (struct ext4_run){ off, len };
}

/*
 * A run that suits this pass; len 0: none. The map is asked last: it may be read
 * anew from a device that does not give back what it was given, and without
 * checksums only the summary would remember.
 */
static struct ext4_run choose_run(const struct search *s, group_t g, const void *map)
{
	struct ext4_group_info *gi = &s->sbi->group_info[g];
	const void *held = gi->held_blocks;
	struct free_runs *fr = gi->runs;
	u32 target = s->want + s->ahead;
	struct ext4_run none = { 0, 0 };
	u32 start = 0, enough, off;

	if (g == s->goal_group && s->goal_off != NO_GOAL) {
		u32 lim = fr->nr, e;

		start = s->goal_off;
		if (s->want < fr->nr - start)
			lim = start + s->want;
		e = bm_find_set_or(map, held, start, lim);
		/* Of a page that has no room there, no part. */
		if (s->exact || e - start >= min_of(s->want, s->align))
			return e > start ? cut_run(s, start, e) : none;
	}
	free_runs_refresh(fr, map, held);
#ifdef SLUICE_DEBUG_LOCKS
	assert(free_runs_check(fr, map, held));
#endif
	atomic_store_explicit(&s->sbi->alloc->group_longest[g], fr->longest + 1,
			      memory_order_relaxed);
	if (fr->longest < s->min)
		return none;
	enough = min_of(s->last ? target : s->min, fr->longest);
	off = fr->nr;
	if (s->align > 1)
		off = find_run(fr, map, held, start, enough + s->align - 1);
	if (off == fr->nr)
		off = find_run(fr, map, held, start, enough);
	if (off == fr->nr)
		return none;
	if (s->align > 1)
		off += skip_to_phase(s, g, fr, map, held, off);
	return cut_run(s, off,
		       bm_find_set_or(map, held, off,
				      s->want < fr->nr - off ? off + s->want : fr->nr));
}

/* ---- taking blocks ---- */

/* Group lock held. False: the free count contradicts the bitmap. */
static bool take_run(struct ext4_sb *sbi, group_t g, void *map, struct ext4_run r)
{
	struct ext4_group_desc *gd = ext4_group_desc(sbi, g, NULL);
	u32 nr_free = ext4_gd_free_blocks(sbi, gd);

	if (nr_free < r.len)
		return false;
	bm_set_range(map, r.off, r.len);
	ext4_gd_set_free_blocks(sbi, gd, nr_free - r.len);
	ext4_gd_bbitmap_csum_set(sbi, gd, map);
	ext4_gd_csum_set(sbi, g, gd);
	ext4_space_touch(sbi, g, r);
	atomic_fetch_sub(&sbi->alloc->group_blocks[g], r.len);
	return true;
}

/* What is free behind r, which was taken, for the claim; group lock held. */
static void claim_behind(struct search *s, group_t g, const void *map,
			 struct ext4_run r)
{
	struct ext4_group_info *gi = &s->sbi->group_info[g];
	u32 nr = ext4_clusters_in_group(s->sbi, g);
	struct ext4_run c = { .off = r.off + r.len };

	if (!s->claim || !s->ahead || c.off >= nr)
		return;
	c.len = bm_find_set_or(map, gi->held_blocks, c.off,
			       s->ahead < nr - c.off ? c.off + s->ahead : nr) -
		c.off;
	if (c.len)
		ext4_claim_take(s->sbi, s->claim, s->owner, g, c, &s->spare_held);
}

static void found(struct search *s, group_t g, struct ext4_run r)
{
	s->blk = run_start(s->sbi, g, r);
	s->got = r.len;
}

/*
 * The bitmap of a BLOCK_UNINIT group into map, as mke2fs left it in thought:
 * only system zones and what is beyond the end are in use. False if the
 * descriptor's free count says otherwise.
 */
static bool uninit_build(struct ext4_sb *sbi, group_t g, void *map)
{
	u32 nr = ext4_clusters_in_group(sbi, g);
	struct ext4_run r;
	u32 nr_free;

	memset(map, 0, sbi->s.s_blocksize);
	for (pblk_t pos = 0; next_zone(sbi, g, &pos, &r);)
		bm_set_range(map, r.off, r.len);
	bm_set_range(map, nr, sbi->s.s_blocksize * 8 - nr);

	nr_free = nr - bm_weight(map, 0, nr);
	return nr_free == ext4_gd_free_blocks(sbi, ext4_group_desc(sbi, g, NULL));
}

/*
 * Makes `map` the bitmap of g, with run r taken (s NULL: nothing), in h. The
 * init lock is held, so the group is still uninitialised; others see the
 * buffer only once the flag is clear, which is after its content is there.
 */
static int uninit_commit(struct handle *h, struct ext4_sb *sbi, group_t g,
			 const void *map, struct search *s, struct ext4_run r)
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
	if (s) {
		ok = take_run(sbi, g, b->b_data, r);
		claim_behind(s, g, b->b_data, r);
	} else {
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
	struct ext4_run none = { 0, 0 };
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
		error = uninit_commit(h, sbi, g, map, NULL, none);
	free(map);
	return error;
}

/* 0: s->blk is set. -EAGAIN: someone else has initialised the group. */
static int alloc_uninit_locked(struct search *s, group_t g, void *map)
{
	struct ext4_run r;
	int error;

	if (bbitmap_state(s->sbi, g) != BB_UNINIT)
		return -EAGAIN;
	if (!uninit_build(s->sbi, g, map))
		return -EFSCORRUPTED;
	/* Searched before the group is initialised: the handle's credits must
	 * not be spent on a group that then has nothing to give. */
	error = lock_group(s, g, false);
	if (error)
		return error;
	r = choose_run(s, g, map);
	ext4_group_unlock(s->sbi, g);
	if (!r.len)
		return -ENOSPC;
	error = uninit_commit(s->h, s->sbi, g, map, s, r);
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
			   struct ext4_run r)
{
	return bm_find_set_or(map, gi->held_blocks, r.off, r.off + r.len) ==
	       r.off + r.len;
}

/* Group lock held. NULL, or what is wrong; s->got is 0 if nothing is here. */
static const char *take_and_claim(struct search *s, group_t g, void *map,
				  struct ext4_run r, bool from_claim)
{
	struct ext4_sb *sbi = s->sbi;
	struct ext4_group_info *gi = &sbi->group_info[g];
	bool used = false;

	s->got = 0;
	if (gi->flags & EXT4_GRP_BBITMAP_CORRUPT)
		return NULL;
	if (from_claim) {
		r = (struct ext4_run){ s->goal_off, s->want };
		used = ext4_claim_use(sbi, s->claim, s->owner, g, r);
	}
	/* Free for us; and for nobody else, as the lock is held. */
	if (s->claim && !used)
		ext4_claim_give(sbi, s->claim, s->owner, g);
	if (!used && (from_claim || !run_still_free(gi, map, r)))
		r = choose_run(s, g, map);
	if (!r.len)
		return NULL;
	found(s, g, r);
	if (!ext4_block_range_ok(sbi, s->blk, (u64)r.len << sbi->cluster_bits))
		return "a block of the file system is marked free";
	if (!take_run(sbi, g, map, r))
		return "fewer free blocks than the bitmap has";
	if (!used)
		claim_behind(s, g, map, r);
	return NULL;
}

/*
 * Takes a run from the bitmap in b. A first look without write access: a
 * group with nothing to give is not drawn into the transaction. Between the
 * two looks others may take the run; then the second look searches again.
 */
static int alloc_normal(struct search *s, group_t g, struct buffer *b, bool try)
{
	struct ext4_sb *sbi = s->sbi;
	struct ext4_run r = { 0, 0 };
	struct buffer *gdb;
	const char *bad;
	bool from_claim;
	u8 *unused;
	int error;

	error = lock_group(s, g, try);
	if (error)
		return error;
	/* What we hold ourselves stays held until it can be taken. */
	from_claim = claim_has_goal(s, g);
	if (!from_claim)
		r = choose_run(s, g, b->b_data);
	ext4_group_unlock(sbi, g);
	if (!from_claim && !r.len)
		return -ENOSPC;

	ext4_group_desc(sbi, g, &gdb);
	error = handle_get_write_access(s->h, b);
	if (!error)
		error = handle_get_write_access(s->h, gdb);
	if (!error)
		error = lock_group(s, g, false);
	if (error)
		return error;
	bad = take_and_claim(s, g, b->b_data, r, from_claim);
	unused = ext4_space_trim(&sbi->group_info[g]);
	ext4_group_unlock(sbi, g);
	free(unused);
	if (bad) {
		(void)bbitmap_bad(sbi, g, 0, s->blk, bad);
		s->got = 0;
	}
	if (!s->got)
		return -ENOSPC;
	handle_dirty(s->h, b);
	handle_dirty(s->h, gdb);
	return 0;
}

/* 0: taken. -ENOSPC: look elsewhere. Anything else ends the search. */
static int alloc_in_group(struct search *s, group_t g)
{
	bool try = !s->last && g != s->goal_group;
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
	s->looks++;
	error = bbitmap_load(s->sbi, g, &b);
	if (error) /* reported */
		return error == -ENOMEM ? error : -ENOSPC;
	error = alloc_normal(s, g, b, try);
	buffer_put(b);
	if (error == -EBUSY) {
		s->busy++;
		return -ENOSPC;
	}
	return error;
}

/* ---- search over the groups ---- */

static int try_group(struct search *s, group_t g)
{
	struct ext4_alloc *al = s->sbi->alloc;
	u32 longest = atomic_load_explicit(&al->group_longest[g],
					   memory_order_relaxed);

	if (atomic_load_explicit(&al->group_blocks[g], memory_order_relaxed) <
	    s->min)
		return -ENOSPC;
	if (longest && longest - 1 < s->min)
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
		if (++g >= s->groups)
			g = 0;
	}
	return -ENOSPC;
}

static int search_pass(struct search *s)
{
	struct ext4_sb *sbi = s->sbi;
	u32 groups = s->groups;
	u32 max_looks = s->last ? UINT32_MAX : BITMAPS_PER_PASS;
	u32 near = min_of(NEAR_GROUPS, groups - 1);
	group_t rotor;
	int error;

	s->looked = 0;
	/* At the goal even a short run is good: it grows the extent there. */
	error = -ENOSPC;
	if (atomic_load(&sbi->alloc->group_blocks[s->goal_group]) ||
	    claim_has_goal(s, s->goal_group))
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
	u32 longest = min_of(s->want + s->ahead, RUN_WANTED);
	int error;

	longest = min_of(longest, s->sbi->clusters_per_group / 2);
	/* A magazine need not be full for its first filling to be worth it. */
	if (s->claim && !s->owner)
		longest = min_of(longest, max_of(s->want, MAGAZINE_ENOUGH));
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
	return (s64)(sbi->meta_reserve +
		     (root ? 0 : sbi->r_blocks >> sbi->cluster_bits));
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

/* ---- where from ---- */

static void set_goal(struct search *s, group_t hint, pblk_t goal)
{
	const struct ext4_sb *sbi = s->sbi;

	s->goal_group = hint % s->groups;
	s->goal_off = NO_GOAL;
	if (goal >= sbi->first_data_block && goal < sbi->blocks_count &&
	    ext4_block_group(sbi, goal) < s->groups) {
		s->goal_group = ext4_block_group(sbi, goal);
		s->goal_off = ext4_block_offset(sbi, goal) >> sbi->cluster_bits;
	}
}

static bool same_flex(const struct ext4_sb *sbi, group_t a, group_t b)
{
	return a >> sbi->log_groups_per_flex == b >> sbi->log_groups_per_flex;
}

/*
 * From the magazine: from its front if it is near enough and has all that is
 * wanted; else it is given back, and filled where the search ends.
 */
static void aim_at_magazine(struct search *s, group_t hint)
{
	struct ext4_sb *sbi = s->sbi;
	struct ext4_run r;
	group_t g;

	s->claim = ext4_magazine(sbi, hint);
	s->owner = 0;
	s->ahead = sbi->alloc->magazine_blocks - s->want;
	s->goal_group = hint % sbi->groups;
	s->goal_off = NO_GOAL;
	r = ext4_claim_peek(s->claim, 0, &g);
	if (r.len >= s->want && same_flex(sbi, g, s->goal_group)) {
		s->goal_group = g;
		s->goal_off = r.off;
	} else if (r.len) {
		ext4_claim_drop(sbi, s->claim, 0);
	}
	s->source = ALLOC_MAGAZINE;
}

/* A small file grows: behind its end, even if that is the front of a magazine
 * (of any CPU: the writer may have moved), but not from the midst of it. */
static void aim_near(struct search *s, group_t hint)
{
	struct ext4_claim *c = ext4_magazine_at(s->sbi, hint, s->goal_group,
						s->goal_off);

	if (!c)
		return;
	s->claim = c;
	s->owner = 0;
	s->ahead = s->sbi->alloc->magazine_blocks - s->want;
	s->source = ALLOC_MAGAZINE;
}

/* Blocks to claim behind [.., end) of a file that is being written there. */
static u32 window_blocks(struct ext4_inode *ei, u64 end, u64 size)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	u32 bits = ext4_cluster_bytes_bits(sbi);
	u64 most = min_of((u64)WINDOW_BYTES_MAX >> bits,
			  (u64)sbi->clusters_per_group / 4);
	u64 rest = size - end;
	u64 n = max_of(WINDOW_BYTES_MIN >> bits, 1u);

	/* Closed: what is there still has to be written, and no more. */
	if (!atomic_load(&ei->i_opens))
		return (u32)min_of(rest, most);
	while (n < size && n < most)
		n *= 2;
	return (u32)min_of(max_of(n, rest), most);
}

/* [.., end) of a file with that size; the goal is set. */
static void aim_at_window(struct search *s, struct ext4_inode *ei, u64 end,
			  u64 size)
{
	ino_nr ino = ei->vfs.i_ino;
	struct ext4_claim *c;
	struct ext4_run r;
	group_t g;

	s->ahead = window_blocks(ei, end, size);
	c = ext4_window_find(s->sbi, ino);
	if (!c && s->ahead)
		c = ext4_window_get(s->sbi, ino);
	if (!c) {
		s->ahead = 0;
		return;
	}
	s->claim = c;
	s->owner = ino;
	r = ext4_claim_peek(c, ino, &g);
	if (!r.len)
		return;
	if (g == s->goal_group && r.off == s->goal_off)
		s->source = ALLOC_WINDOW;
	else /* the file was cut, or changed its place */
		ext4_claim_drop(s->sbi, c, ino);
}

static int search_near(struct search *s, group_t hint)
{
	int error;

	if (s->near) {
		aim_near(s, hint);
		s->exact = true;
		error = search_all(s);
		s->exact = s->near = false;
		if (error != -ENOSPC)
			return error;
		aim_at_magazine(s, hint);
	}
	return search_all(s);
}

/* No claim is left, and none is made, while this searches. */
static int search_drained(struct search *s)
{
	struct ext4_alloc *al = s->sbi->alloc;
	int error;

	counter_add(al->stat[ALLOC_DRAINS], 1);
	s->claim = NULL;
	s->ahead = 0;
	atomic_fetch_add(&al->drainers, 1);
	ext4_claims_drain(s->sbi);
	error = search_all(s);
	atomic_fetch_sub(&al->drainers, 1);
	return error;
}

/* s says what and where; by `hint` where the magazine is to be. */
static int alloc_search(struct search *s, group_t hint)
{
	struct ext4_alloc *al = s->sbi->alloc;
	bool exact = s->exact;
	u32 gen;
	int error, tries = 0;

	/*
	 * A commit that ends during the search may release blocks in groups
	 * already passed: the generation tells. It is raised before the
	 * pending count falls, and read after it.
	 */
	do {
		gen = atomic_load(&al->release_gen);
		error = search_near(s, hint);
		if (error == -ENOSPC && !exact)
			error = search_drained(s);
		if (error == -ENOSPC && !exact &&
		    atomic_load(&al->pending_blocks))
			error = -EAGAIN;
	} while (error == -ENOSPC && !exact &&
		 gen != atomic_load(&al->release_gen) &&
		 ++tries < SEARCH_RETRIES);
	return error;
}

static void count_alloc(const struct search *s, pblk_t goal)
{
	struct ext4_alloc *al = s->sbi->alloc;
	enum ext4_alloc_stat source = s->source;

	if (goal && s->blk == goal && source == ALLOC_SEARCH)
		source = ALLOC_AT_GOAL;
	counter_add(al->stat[source], 1);
	counter_add(al->stat[ALLOC_BLOCKS], s->got);
	if (s->looks > 1)
		counter_add(al->stat[ALLOC_LOOKS], s->looks - 1);
	if (s->busy)
		counter_add(al->stat[ALLOC_BUSY], s->busy);
}

/* Admission, search, accounts. */
static int alloc_admitted(struct search *s, group_t hint, pblk_t goal, u32 flags,
			  u32 *len, pblk_t *out)
{
	bool delayed = flags & EXT4_ALLOC_DELAYED;
	struct ext4_sb *sbi = s->sbi;
	int error;

	if (!delayed) {
		u32 want = admit(sbi, s->want,
				 avail_floor(sbi, flags & EXT4_ALLOC_META,
					     flags & EXT4_ALLOC_ROOT ||
						     handle_privileged(s->h)));

		if (!want)
			return -ENOSPC;
		s->want = want;
	}
	error = alloc_search(s, hint);
	free_spares(s);
	if (!delayed)
		counter_add(sbi->alloc->avail,
			    (s64)s->want - (error ? 0 : s->got));
	if (error)
		return error;
	counter_add(sbi->free_blocks, -(s64)s->got);
	if (delayed)
		counter_add(sbi->reserved, -(s64)s->got);
	count_alloc(s, goal);
	*len = s->got;
	*out = s->blk;
	return 0;
}

/* Groups that lie below block 2^32. */
static group_t low_groups(const struct ext4_sb *sbi)
{
	if (sbi->blocks_count <= (u64)UINT32_MAX + 1)
		return sbi->groups;
	return ext4_block_group(sbi, (u64)UINT32_MAX + 1);
}

static void search_init(struct search *s, struct handle *h, struct ext4_sb *sbi,
			group_t hint, pblk_t goal, u32 flags, u32 want)
{
	assert(want > 0);
	*s = (struct search){
		.h = h,
		.sbi = sbi,
		.want = min_of(want, sbi->clusters_per_group),
		.exact = flags & EXT4_ALLOC_EXACT_GOAL,
		.align = 1,
		.groups = flags & EXT4_ALLOC_LOW ? low_groups(sbi) : sbi->groups,
		.source = ALLOC_SEARCH,
	};
	set_goal(s, hint, goal);
}

static int alloc_plain(struct search *s, group_t hint, pblk_t goal, u32 flags, u32 *len,
		       pblk_t *out)
{
	if (s->goal_off == NO_GOAL) {
		if (s->exact)
			return -ENOSPC;
		/* A magazine may hold blocks of any group. */
		if (s->want <= s->sbi->alloc->small_blocks && s->groups == s->sbi->groups)
			aim_at_magazine(s, hint);
	}
	return alloc_admitted(s, hint, goal, flags, len, out);
}

int ext4_alloc_blocks(struct handle *h, struct ext4_sb *sbi, group_t hint,
		      pblk_t goal, u32 flags, u32 *len, pblk_t *out)
{
	struct search s;

	search_init(&s, h, sbi, hint, goal, flags, *len);
	return alloc_plain(&s, hint, goal, flags, len, out);
}

/*
 * Blocks smaller than a page: a run of a page or more lies on the device as it lies in the
 * pages of the file. Swapping wants that, and direct I/O to sectors of 4 KiB.
 */
static void aim_at_page(struct search *s, struct ext4_inode *ei, lblk_t lblk)
{
	u32 blocks = PAGE_UNIT >> s->sbi->s.s_blocksize_bits;

	if (s->sbi->cluster_bits || blocks < 2 || s->want < blocks ||
	    !S_ISREG(ei->vfs.i_mode))
		return;
	s->align = blocks;
	s->phase = lblk & (blocks - 1);
}

int ext4_alloc_data(struct handle *h, struct ext4_inode *ei, lblk_t lblk,
		    pblk_t goal, u32 flags, u32 *len, pblk_t *out)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	u64 end = ((u64)lblk >> sbi->cluster_bits) + *len, size;
	struct search s;

	search_init(&s, h, sbi, ei->i_group, goal, flags, *len);
	aim_at_page(&s, ei, lblk);
	if (!(flags & EXT4_ALLOC_APPEND) || !S_ISREG(ei->vfs.i_mode) ||
	    (flags & EXT4_ALLOC_LOW && low_groups(sbi) != sbi->groups))
		return alloc_plain(&s, ei->i_group, goal, flags, len, out);

	if (s.exact && s.goal_off == NO_GOAL)
		return -ENOSPC;
	spin_lock(&ei->vfs.i_lock);
	size = ei->vfs.i_size;
	spin_unlock(&ei->vfs.i_lock);
	size = DIV_ROUND_UP(size, (u64)1 << ext4_cluster_bytes_bits(sbi));
	size = max_of(size, end);
	if (size > sbi->alloc->small_blocks)
		aim_at_window(&s, ei, end, size);
	else if (s.exact)
		aim_near(&s, ei->i_group);
	else if (s.goal_off != NO_GOAL)
		s.near = true;
	else
		aim_at_magazine(&s, ei->i_group);
	return alloc_admitted(&s, ei->i_group, goal, flags, len, out);
}

/* ---- freeing ---- */

/* What was held and pending is for everybody. freed: it was in use before. */
static void release_held(struct ext4_sb *sbi, group_t g, struct ext4_run r, bool freed)
{
	struct ext4_group_info *gi = &sbi->group_info[g];
	struct ext4_alloc *al = sbi->alloc;
	u8 *unused;

	ext4_group_lock(sbi, g);
	ext4_space_unhold(sbi, g, r);
	unused = ext4_space_trim(gi);
	if (!(gi->flags & EXT4_GRP_BBITMAP_CORRUPT))
		atomic_fetch_add(&al->group_blocks[g], r.len);
	if (freed)
		gi->trimmed = 0;
	ext4_group_unlock(sbi, g);
	free(unused);
	/* This order: see alloc_search(). */
	atomic_fetch_add(&al->release_gen, 1);
	atomic_fetch_sub(&al->pending_blocks, r.len);
}

void ext4_free_batch_release(struct ext4_free_batch *fb)
{
	release_held(fb->sbi, fb->group, fb->run, true);
	free(fb);
}

/*
 * After the commit. After an abort the blocks stay held until the unmount: on disk
 * they are still their old owner's, and who had access to the bitmap already may
 * get blocks yet, which writers that are under way would find and write to.
 */
static void free_batch_done(struct commit_cb *cb, int error)
{
	struct ext4_free_batch *fb = container_of_type(cb, struct ext4_free_batch, cb);

	if (error)
		free(fb);
	else if (fb->sbi->opts.discard && fb->sbi->discarder)
		ext4_discard_queue(fb->sbi->discarder, fb);
	else
		ext4_free_batch_release(fb);
}

/* Group lock held: bits from "used" to "held". *spare is used if the group
 * has no map of these yet. NULL, or what is wrong (nothing was changed). */
static const char *release_run(struct ext4_sb *sbi, group_t g, void *map,
			       struct ext4_run r, u8 **spare)
{
	struct ext4_group_desc *gd = ext4_group_desc(sbi, g, NULL);
	u32 nr_free = ext4_gd_free_blocks(sbi, gd) + r.len;

	if (bm_find_clear(map, r.off, r.off + r.len) != r.off + r.len)
		return "block to be freed is free already";
	if (nr_free > ext4_clusters_in_group(sbi, g))
		return "more free blocks than the group has";
	ext4_space_hold(sbi, g, r, spare);
	bm_clear_range(map, r.off, r.len);
	ext4_gd_set_free_blocks(sbi, gd, nr_free);
	ext4_gd_bbitmap_csum_set(sbi, gd, map);
	ext4_gd_csum_set(sbi, g, gd);
	return NULL;
}

/* Locks g, which then has a map of held blocks, or *spare is one. */
static int lock_group_held(struct ext4_sb *sbi, group_t g, u8 **spare)
{
	ext4_group_lock(sbi, g);
	if (sbi->group_info[g].held_blocks)
		return 0;
	ext4_group_unlock(sbi, g);
	*spare = calloc_patient(1, ext4_held_bytes(sbi));
	if (!*spare)
		return -ENOMEM;
	ext4_group_lock(sbi, g);
	return 0;
}

/* Everything that can fail, then the change, which uses *fb up (NULL). */
static int free_prepared(struct handle *h, struct ext4_sb *sbi, ino_nr ino,
			 struct buffer *b, struct ext4_free_batch **fb)
{
	group_t g = (*fb)->group;
	struct ext4_run r = (*fb)->run;
	const char *bad = NULL;
	struct buffer *gdb;
	u8 *spare = NULL;
	bool corrupt;
	int error;

	ext4_group_desc(sbi, g, &gdb);
	error = handle_get_write_access(h, b);
	if (!error)
		error = handle_get_write_access(h, gdb);
	if (!error)
		error = lock_group_held(sbi, g, &spare);
	if (error)
		return error;

	corrupt = sbi->group_info[g].flags & EXT4_GRP_BBITMAP_CORRUPT;
	if (!corrupt)
		bad = release_run(sbi, g, b->b_data, r, &spare);
	ext4_group_unlock(sbi, g);
	free(spare);
	if (corrupt)
		return 0;
	if (bad)
		return bbitmap_bad(sbi, g, ino, run_start(sbi, g, r), bad);

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
			 group_t g, struct ext4_run r)
{
	struct ext4_free_batch *fb;
	struct buffer *b;
	int error;

	switch (bbitmap_state(sbi, g)) {
	case BB_CORRUPT:
		/* Known and reported: the blocks stay in use until e2fsck. */
		return 0;
	case BB_UNINIT:
		return bbitmap_bad(sbi, g, ino, run_start(sbi, g, r),
				   "block to be freed is in an uninitialised group");
	case BB_NORMAL:
		break;
	}
	/* Patient: nothing refers to the blocks any more. */
	fb = malloc_patient(sizeof(*fb));
	if (!fb)
		return -ENOMEM;
	fb->cb.fn = free_batch_done;
	fb->sbi = sbi;
	fb->group = g;
	fb->run = r;
	error = bbitmap_load(sbi, g, &b);
	if (error)
		goto out_free;
	error = free_prepared(h, sbi, ino, b, &fb);
	buffer_put(b);
out_free:
	free(fb);
	return error;
}

int ext4_free_blocks(struct handle *h, struct ext4_sb *sbi, ino_nr ino,
		     pblk_t blk, u32 len)
{
	u32 ratio = 1u << sbi->cluster_bits, skip = (u32)blk & (ratio - 1);
	int error;

	if (!len)
		return 0;
	/* Without bigalloc, where groups may begin with block 1, that is nothing. */
	blk -= skip;
	len = ALIGN_UP(len + skip, ratio);
	if (!ext4_block_range_ok(sbi, blk, len))
		return ext4_error(sbi, ino, blk, -EFSCORRUPTED,
				  "blocks %" PRIu64 "+%u to be freed are not a file's",
				  blk, len);
	while (len) {
		group_t g = ext4_block_group(sbi, blk);
		u32 off = ext4_block_offset(sbi, blk);
		u32 n = min_of(len, sbi->blocks_per_group - off);

		error = free_in_group(h, sbi, ino, g,
				      (struct ext4_run){ off >> sbi->cluster_bits,
							 n >> sbi->cluster_bits });
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

void ext4_restore_reserved(struct ext4_sb *sbi, u32 n)
{
	/* Whatever is left: they were promised all the time. */
	counter_add(sbi->alloc->avail, -(s64)n);
	counter_add(sbi->reserved, n);
}

u64 ext4_count_free_blocks(struct ext4_sb *sbi)
{
	s64 n = counter_sum(sbi->free_blocks) - counter_sum(sbi->reserved);

	return n > 0 ? (u64)n << sbi->cluster_bits : 0;
}

/* ---- checks ---- */

/* Group lock held. Adds what is held to *held. */
static const char *check_group(struct ext4_sb *sbi, group_t g, const void *map,
			       u64 *held)
{
	struct ext4_group_info *gi = &sbi->group_info[g];
	u32 nr = ext4_clusters_in_group(sbi, g);
	u32 clear = nr - bm_weight(map, 0, nr);

	*held += gi->nr_held_blocks;
	if (gi->flags & EXT4_GRP_BBITMAP_CORRUPT)
		return NULL;
	if (clear != ext4_gd_free_blocks(sbi, ext4_group_desc(sbi, g, NULL)))
		return "free count of a group";
	if (atomic_load(&sbi->alloc->group_blocks[g]) + gi->nr_held_blocks != clear)
		return "count of what is free and not held";
	if (!gi->held_blocks)
		return gi->nr_held_blocks ? "map of held blocks" : NULL;
	if (bm_weight(gi->held_blocks, 0, nr) != gi->nr_held_blocks)
		return "number of held blocks";
	for (u32 i = 0; i < nr; i++)
		if (bm_test(map, i) && bm_test(gi->held_blocks, i))
			return "held block in use";
	return NULL;
}

static const char *check_runs(struct ext4_sb *sbi, group_t g, const void *map)
{
	struct ext4_group_info *gi = &sbi->group_info[g];
	u32 longest = atomic_load(&sbi->alloc->group_longest[g]);

	if (!gi->runs)
		return NULL;
	if (!free_runs_check(gi->runs, map, gi->held_blocks))
		return "summary of free runs";
	free_runs_refresh(gi->runs, map, gi->held_blocks);
	if (longest && longest - 1 < gi->runs->longest)
		return "longest free run";
	return NULL;
}

static u64 claimed_blocks(struct ext4_alloc *al)
{
	u64 sum = 0;
	group_t g;

	for (u32 i = 0; i < al->nr_magazines; i++)
		sum += ext4_claim_peek(&al->magazine[i], EXT4_CLAIM_ANY, &g).len;
	for (u32 i = 0; i < EXT4_WINDOWS; i++)
		sum += ext4_claim_peek(&al->window[i], EXT4_CLAIM_ANY, &g).len;
	return sum;
}

const char *ext4_balloc_check(struct ext4_sb *sbi)
{
	struct ext4_alloc *al = sbi->alloc;
	u64 held = 0, claimed = claimed_blocks(al);
	const char *bad = NULL;

	for (group_t g = 0; g < sbi->groups && !bad; g++) {
		struct buffer *b;

		if (bbitmap_state(sbi, g) != BB_NORMAL || bbitmap_load(sbi, g, &b))
			continue;
		ext4_group_lock(sbi, g);
		bad = check_group(sbi, g, b->b_data, &held);
		if (!bad)
			bad = check_runs(sbi, g, b->b_data);
		ext4_group_unlock(sbi, g);
		buffer_put(b);
	}
	if (!bad && claimed != atomic_load(&al->claimed))
		bad = "number of claimed blocks";
	if (!bad && held != claimed + atomic_load(&al->pending_blocks))
		bad = "sum of what is held";
	return bad;
}

size_t ext4_alloc_stats(struct ext4_sb *sbi, char *buf, size_t len)
{
	static const char *const names[ALLOC_STATS] = {
		[ALLOC_AT_GOAL] = "alloc_at_goal",
		[ALLOC_WINDOW] = "alloc_window",
		[ALLOC_MAGAZINE] = "alloc_magazine",
		[ALLOC_SEARCH] = "alloc_search",
		[ALLOC_BLOCKS] = "alloc_blocks",
		[ALLOC_LOOKS] = "alloc_more_bitmaps",
		[ALLOC_BUSY] = "alloc_groups_busy",
		[ALLOC_DRAINS] = "alloc_drains",
	};
	struct ext4_alloc *al = sbi->alloc;
	size_t n = 0;

	for (int i = 0; i < ALLOC_STATS && n < len; i++)
		n += (size_t)snprintf(buf + n, len - n, "%s %lld\n", names[i],
				      (long long)counter_sum(al->stat[i]));
	if (n < len)
		n += (size_t)snprintf(buf + n, len - n, "alloc_claimed %llu\n",
				      (unsigned long long)atomic_load(&al->claimed));
	return min_of(n, len);
}

/* ---- discarding: see trim.c ---- */

/* The first free run of at least min blocks in [*pos, end), cut to max; *pos goes
 * behind it. Group lock held. */
static struct ext4_run next_free_run(const struct ext4_group_info *gi, const void *map,
				     u32 *pos, u32 end, u32 min, u32 max)
{
	while (*pos < end) {
		u32 off = bm_find_clear_or(map, gi->held_blocks, *pos, end);
		u32 stop = off < end ? bm_find_set_or(map, gi->held_blocks, off, end)
				     : end;

		*pos = stop;
		if (stop - off < min)
			continue;
		/* The rest is not to be too short for the next call. */
		if (stop - off > max && stop - off - max >= min)
			*pos = stop = off + max;
		return (struct ext4_run){ off, stop - off };
	}
	return (struct ext4_run){ 0, 0 };
}

static int hold_run(struct ext4_sb *sbi, group_t g, const void *map, u32 *pos, u32 end,
		    u32 min, u32 max, struct ext4_run *r)
{
	struct ext4_group_info *gi = &sbi->group_info[g];
	u8 *spare = NULL;
	int error = lock_group_held(sbi, g, &spare);

	if (error)
		return error;
	*r = (struct ext4_run){ 0, 0 };
	if (!(gi->flags & EXT4_GRP_BBITMAP_CORRUPT))
		*r = next_free_run(gi, map, pos, end, min, max);
	if (r->len) {
		/* Before it is missed. */
		atomic_fetch_add(&sbi->alloc->pending_blocks, r->len);
		ext4_space_hold(sbi, g, *r, &spare);
		atomic_fetch_sub(&sbi->alloc->group_blocks[g], r->len);
	}
	ext4_group_unlock(sbi, g);
	free(spare);
	return r->len > 0;
}

/* With the init lock nobody makes a bitmap of what is seen to be free here. */
static int hold_uninit(struct ext4_sb *sbi, group_t g, u32 *pos, u32 end, u32 min,
		       u32 max, struct ext4_run *r)
{
	struct mutex *lock = ext4_init_lock(sbi, g);
	void *map = malloc(sbi->s.s_blocksize);
	int error = -EAGAIN;

	if (!map)
		return -ENOMEM;
	mutex_lock(lock);
	if (bbitmap_state(sbi, g) == BB_UNINIT)
		error = uninit_build(sbi, g, map) ?
				hold_run(sbi, g, map, pos, end, min, max, r) :
				-EFSCORRUPTED; /* told when it is allocated from */
	mutex_unlock(lock);
	free(map);
	return error;
}

int ext4_hold_free_run(struct ext4_sb *sbi, group_t g, u32 *pos, u32 end, u32 min,
		       u32 max, struct ext4_run *r)
{
	struct buffer *b;
	int error;

	for (;;) {
		switch (bbitmap_state(sbi, g)) {
		case BB_CORRUPT:
			return -EFSCORRUPTED;
		case BB_UNINIT:
			error = hold_uninit(sbi, g, pos, end, min, max, r);
			if (error == -EAGAIN)
				continue; /* initialised, or corrupt, by now */
			return error;
		case BB_NORMAL:
			break;
		}
		break;
	}
	error = bbitmap_load(sbi, g, &b);
	if (error)
		return error;
	error = hold_run(sbi, g, b->b_data, pos, end, min, max, r);
	buffer_put(b);
	return error;
}

void ext4_unhold_run(struct ext4_sb *sbi, group_t g, struct ext4_run r)
{
	release_held(sbi, g, r, false);
}

#define TRIM_RUNNING UINT32_MAX

bool ext4_trim_begin(struct ext4_sb *sbi, group_t g, u32 min)
{
	struct ext4_group_info *gi = &sbi->group_info[g];
	bool due;

	ext4_group_lock(sbi, g);
	due = !gi->trimmed || min < gi->trimmed;
	if (due)
		gi->trimmed = gi->nr_held_blocks ? 0 : TRIM_RUNNING;
	ext4_group_unlock(sbi, g);
	return due;
}

void ext4_trim_end(struct ext4_sb *sbi, group_t g, u32 min)
{
	struct ext4_group_info *gi = &sbi->group_info[g];

	ext4_group_lock(sbi, g);
	/* Else something was freed meanwhile. */
	if (gi->trimmed == TRIM_RUNNING)
		gi->trimmed = gi->nr_held_blocks ? 0 : min;
	ext4_group_unlock(sbi, g);
}
