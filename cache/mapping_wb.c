/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/mapping_wb.c - marks of the page cache: write-out, waits, invalidation
 *
 * The life of a block with data (a write in between sets DIRTY again at any
 * time, also under WRITEBACK; the memory is shared with the I/O):
 *
 *                   write            take_dirty            end_writeback
 *   absent or clean -----> DIRTY ----------------> WRITEBACK ----------> clean
 *                            ^                        |
 *                            +------ redirty ---------+
 *   DELAYED ends in mapping_set_mapped(), under WRITEBACK. If no
 *   place was found for it, a block ends clean and DELAYED: it keeps its
 *   reservation and its folio until it is written again or invalidated.
 *
 * Waiting: no wait sees the marks of a leaf, since its condition may not take
 * a leaf lock. The waiter reads m_wb_seq while it holds the leaf lock and sees
 * WRITEBACK; end_writeback raises it after it has cleared marks, under the
 * same lock; so "m_wb_seq has changed" is not missed. Then he looks again.
 *
 * Locks:  leaf lock, and what nests in it (mapping_internal.h)
 * Never:  waiting with a leaf locked; touching the mapping after the unlock
 *         that ends a write-out (its owner may be waiting to free it)
 * Threads: any
 */
#include "cache/icache.h"
#include "cache/mapping_internal.h"
#include "lib/wait.h"

/* The part [*s, *e) of a leaf that lies in [start, end) and has room. False,
 * and both 0: none (the range begins beyond the end of a small leaf). */
static bool leaf_clip(const struct map_leaf *leaf, u64 start, u64 end, u32 *s,
		      u32 *e)
{
	u64 base = leaf_base(leaf);

	*s = start > base ? (u32)(start - base) : 0;
	*e = (u32)min_of(end - base, (u64)leaf->l_cap);
	if (*s >= *e)
		*s = *e = 0;
	return *s < *e;
}

/* End of a range of blocks, of all there may be if it is the last: a record
 * may reach beyond the last block that a file can have. */
static u64 range_end(lblk_t end)
{
	return end > LBLK_MAX ? EXTENT_END : end;
}

/* Where the search goes on after a leaf. */
static u64 leaf_end(const struct map_leaf *leaf)
{
	return leaf_base(leaf) + LEAF_BLOCKS;
}

/*
 * Unlocks the leaf, which has a block under WRITEBACK, and sleeps until some
 * write-out of the file has ended.
 */
static void leaf_unlock_wait(struct mapping *m, struct map_leaf *leaf)
	NO_THREAD_SAFETY
{
	u32 seq = atomic_load(&m->m_wb_seq);

	leaf_unlock(leaf);
	wait_event(m, atomic_load(&m->m_wb_seq) != seq);
}

/* ---- write-out ---- */

/*
 * Where a run begins in [s, e): the first DIRTY block, if sync; else the first
 * that is not under WRITEBACK too. e: nowhere.
 */
static u32 run_start(struct map_leaf *leaf, u32 s, u32 e, bool sync)
{
	const u64 *dirty = leaf_mark(leaf, MARK_DIRTY);
	const u64 *wb = leaf_mark(leaf, MARK_WRITEBACK);
	u32 b = bm_find_set(dirty, s, e);

	while (!sync && b < e && bm_test(wb, b))
		b = bm_find_set(dirty, b + 1, e);
	return b;
}

static u32 run_end(struct map_leaf *leaf, u32 b, u32 e)
{
	const u64 *delayed_map = leaf_mark(leaf, MARK_DELAYED);
	bool delayed = bm_test(delayed_map, b);

	e = bm_find_clear(leaf_mark(leaf, MARK_DIRTY), b, e);
	e = bm_find_set(leaf_mark(leaf, MARK_WRITEBACK), b, e);
	if (delayed)
		return bm_find_clear(delayed_map, b, e);
	return bm_find_set(delayed_map, b, e);
}

/* Moves [b, e) of a locked leaf from DIRTY to WRITEBACK and into the run. */
static void run_take(struct map_leaf *leaf, u32 b, u32 e, struct wb_run *run)
{
	u32 blocksize = leaf->l_map->m_sb->s_blocksize;
	struct leaf_delta d = { 0 };
	struct folio *prev = NULL;
	u32 i;

	run->lblk = (lblk_t)(leaf_base(leaf) + b);
	run->nr = e - b;
	run->delayed = bm_test(leaf_mark(leaf, MARK_DELAYED), b);
	for (i = b; i < e; i++) {
		struct folio *f = leaf_folio(leaf, i);

		assert(f);
		atomic_fetch_add_explicit(&f->f_refs, 1, memory_order_relaxed);
		if (f == prev) {
			run->seg[run->nr_seg - 1].blocks++;
			continue;
		}
		run->seg[run->nr_seg].data = folio_block(
			f, (lblk_t)(leaf_base(leaf) + i), blocksize);
		run->seg[run->nr_seg].blocks = 1;
		run->seg[run->nr_seg].folio = f;
		run->nr_seg++;
		prev = f;
	}
	bm_set_range(leaf_mark(leaf, MARK_WRITEBACK), b, run->nr);
	bm_clear_range(leaf_mark(leaf, MARK_DIRTY), b, run->nr);
	d.wb = (s32)run->nr;
	d.dirty = -d.wb;
	leaf_account(leaf, &d);
}

void mapping_take_dirty(struct mapping *m, lblk_t start, lblk_t end, u32 max,
			bool sync, struct wb_run *run) NO_THREAD_SAFETY
{
	u64 cur = start;

	assert(max);
	run->lblk = start;
	run->nr = 0;
	run->nr_seg = 0;
	run->delayed = false;
	while (atomic_load(&m->m_nr_dirty)) {
		struct map_leaf *leaf = leaf_lock_next(m, cur, end, WANT_DIRTY);
		u32 s, e, b;

		if (!leaf)
			return;
		cur = max_of(cur, leaf_base(leaf));
		b = 0;
		if (leaf_clip(leaf, cur, end, &s, &e))
			b = run_start(leaf, s, e, sync);
		if (b == e) {
			cur = leaf_end(leaf);
			leaf_unlock(leaf);
			continue;
		}
		if (bm_test(leaf_mark(leaf, MARK_WRITEBACK), b)) {
			leaf_unlock_wait(m, leaf);
			continue;
		}
		e = run_end(leaf, b, (u32)min_of((u64)b + max, (u64)e));
		run_take(leaf, b, e, run);
		leaf_unlock(leaf);
		return;
	}
}

u32 mapping_set_mapped(struct mapping *m, lblk_t lblk, u32 nr) NO_THREAD_SAFETY
{
	u64 cur = lblk, end = cur + nr;
	struct map_leaf *leaf;
	u32 s, e, n = 0;

	while ((leaf = leaf_lock_next(m, cur, end, WANT_ANY))) {
		struct leaf_delta d = { 0 };

		if (leaf_clip(leaf, cur, end, &s, &e)) {
			u64 *delayed = leaf_mark(leaf, MARK_DELAYED);
			u32 w = bm_weight(delayed, s, e);

			bm_clear_range(delayed, s, e - s);
			d.delayed = -(s32)w;
			n += w;
		}
		leaf_account(leaf, &d);
		cur = leaf_end(leaf);
		leaf_unlock(leaf);
	}
	return n;
}

/*
 * Blocks under WRITEBACK keep their slots, so the references given back here
 * are never the last.
 */
static void leaf_end_writeback(struct map_leaf *leaf, u32 s, u32 e, bool redirty)
{
	u64 *dirty = leaf_mark(leaf, MARK_DIRTY);
	u64 *wb = leaf_mark(leaf, MARK_WRITEBACK);
	struct leaf_delta d = { 0 };
	u32 b;

	for (b = s; b < e; b++) {
		struct folio *f = leaf_folio(leaf, b);

		assert(f);
		assert(bm_test(wb, b));
		if (!bm_test(dirty, b)) {
			if (redirty) {
				bm_set(dirty, b);
				d.dirty++;
			} else {
				d.unclean--;
			}
		}
		atomic_fetch_sub_explicit(&f->f_refs, 1, memory_order_release);
		folio_lru_add(f);
	}
	bm_clear_range(wb, s, e - s);
	d.wb = -(s32)(e - s);
	leaf_account(leaf, &d);
}

/*
 * The kernel has the pages of what a stream has written, so ours go when they
 * are on the device: their memory, still in the CPU's caches, is the next
 * ones'. Short runs stay, for they may be part of what is rewritten all the
 * time, and so does the block that the file ends in, which an append completes.
 */
#define STREAM_BYTES (64u << 10)

static bool is_stream(const struct mapping *m, u32 nr)
{
	return !m->m_sb->s_data_full &&
	       (u64)nr * m->m_sb->s_blocksize >= STREAM_BYTES;
}

static void leaf_drop_written(struct map_leaf *leaf, u32 s, u32 e,
			      struct cds_list_head *dead)
{
	u64 size = atomic_load(&leaf->l_map->m_inode->i_size);
	u64 last = size / leaf->l_map->m_sb->s_blocksize;
	struct leaf_delta d = { 0 };
	u32 b, next;

	for (b = s; b < e; b = next) {
		struct folio *f = leaf_folio(leaf, b);
		u32 from;

		next = b + 1;
		if (!f)
			continue;
		from = f->f_lblk % LEAF_BLOCKS;
		next = max_of(next, from + f->f_nr);
		if (from < s || next > e || folio_busy(leaf, f) ||
		    (last >= f->f_lblk && last < (u64)f->f_lblk + f->f_nr))
			continue;
		d.folio -= (s32)folio_drop(leaf, f, dead);
	}
	leaf_account(leaf, &d);
}

static u32 leaf_invalidate(struct map_leaf *leaf, u32 s, u32 e,
			   struct cds_list_head *dead);

/* What of [s, e) was not written to again. Returns how many blocks were DELAYED. */
static u32 leaf_drop_lost(struct map_leaf *leaf, u32 s, u32 e,
			  struct cds_list_head *dead)
{
	const u64 *dirty = leaf_mark(leaf, MARK_DIRTY);
	u32 n = 0;

	while (s < e) {
		u32 b = bm_find_set(dirty, s, e);

		if (s < b)
			n += leaf_invalidate(leaf, s, b, dead);
		s = b + 1;
	}
	return n;
}

/* What becomes of the blocks with the end of their write-out. */
enum wb_end {
	WB_WRITTEN,    /* clean; of a stream, gone */
	WB_REDIRTY,    /* dirty again */
	WB_NOT_THERE,  /* clean, and all there is of the data */
	WB_LOST,       /* gone */
};

static u32 end_writeback(struct mapping *m, lblk_t lblk, u32 nr, enum wb_end how)
	NO_THREAD_SAFETY
{
	bool drop = how == WB_WRITTEN && is_stream(m, nr);
	u64 cur = lblk, end = cur + nr;
	CDS_LIST_HEAD(dead);
	u32 n = 0;

	/* With the last WRITEBACK gone the volume may be unmounted; what the
	 * folios are given back to goes a grace period later. */
	rcu_read_lock();
	while (cur < end) {
		struct map_leaf *leaf = leaf_lock(m, (u32)(cur >> LEAF_SHIFT));
		u64 next = min_of(end, ALIGN_DOWN(cur, (u64)LEAF_BLOCKS) +
					       LEAF_BLOCKS);
		u32 s, e;

		assert(leaf);
		if (!leaf_clip(leaf, cur, next, &s, &e))
			assert(!"end of a write-out that was not begun");
		assert(s + (next - cur) == e);
		leaf_end_writeback(leaf, s, e, how == WB_REDIRTY);
		if (drop)
			leaf_drop_written(leaf, s, e, &dead);
		if (how == WB_LOST)
			n += leaf_drop_lost(leaf, s, e, &dead);
		atomic_fetch_add(&m->m_wb_seq, 1);
		leaf_unlock(leaf);
		/* only the address from here on */
		wake_up(m);
		cur = next;
	}
	folio_free_list(&dead);
	rcu_read_unlock();
	return n;
}

void mapping_end_writeback(struct mapping *m, lblk_t lblk, u32 nr, bool redirty)
{
	(void)end_writeback(m, lblk, nr, redirty ? WB_REDIRTY : WB_WRITTEN);
}

void mapping_wait_writeback(struct mapping *m, lblk_t start, lblk_t end)
	NO_THREAD_SAFETY
{
	u64 cur = start;

	while (atomic_load(&m->m_nr_writeback)) {
		struct map_leaf *leaf =
			leaf_lock_next(m, cur, end, WANT_WRITEBACK);
		u32 s, e;

		if (!leaf)
			return;
		cur = max_of(cur, leaf_base(leaf));
		if (leaf_clip(leaf, cur, end, &s, &e) &&
		    bm_find_set(leaf_mark(leaf, MARK_WRITEBACK), s, e) < e) {
			leaf_unlock_wait(m, leaf);
			continue;
		}
		cur = leaf_end(leaf);
		leaf_unlock(leaf);
	}
}

/*
 * Two counters are not read at one moment. A block on its way from one to the
 * other is in both for a while (leaf_account()), but it may change sides between
 * our looks:
 *
 *   WRITEBACK -> DIRTY between the first two    seen by the third
 *   and -> WRITEBACK again before the third     the leaf lock was free in between, so
 *                                               m_wb_seq had risen
 */
bool mapping_is_clean(struct mapping *m)
{
	u32 seq = atomic_load(&m->m_wb_seq);

	return !atomic_load(&m->m_nr_dirty) &&
	       !atomic_load(&m->m_nr_writeback) &&
	       !atomic_load(&m->m_nr_dirty) && atomic_load(&m->m_wb_seq) == seq;
}

lblk_t mapping_next_dirty(struct mapping *m, lblk_t start, lblk_t end)
	NO_THREAD_SAFETY
{
	u64 cur = start;
	struct map_leaf *leaf;

	if (mapping_is_clean(m))
		return end;
	while ((leaf = leaf_lock_next(m, cur, end, WANT_ANY))) {
		u64 base = leaf_base(leaf);
		u32 s, e, b;

		b = 0;
		if (leaf_clip(leaf, cur, end, &s, &e))
			b = bm_find_set_or(leaf_mark(leaf, MARK_DIRTY),
					   leaf_mark(leaf, MARK_WRITEBACK), s,
					   e);
		cur = leaf_end(leaf);
		leaf_unlock(leaf);
		if (b < e)
			return (lblk_t)(base + b);
	}
	return end;
}

/* ---- invalidation ---- */

/*
 * Before anything is dropped: whoever reads from the device now must not
 * enter what he found (mapping_fill_since()). Also where no leaf is: a fill
 * may be about to make one. The fence pairs with the one in fill_run().
 */
static void mapping_forget(struct mapping *m)
{
	atomic_fetch_add(&m->m_drop_gen, 1);
	atomic_thread_fence(memory_order_seq_cst);
}

/* Drops [s, e) of a locked leaf with all marks. Returns how many were DELAYED. */
static u32 leaf_invalidate(struct map_leaf *leaf, u32 s, u32 e,
			   struct cds_list_head *dead)
{
	struct leaf_delta d = { 0 };
	u32 dirty = bm_weight(leaf_mark(leaf, MARK_DIRTY), s, e);
	u32 delayed = bm_weight(leaf_mark(leaf, MARK_DELAYED), s, e);
	int i;

	for (i = 0; i < MARK_NR; i++)
		bm_clear_range(leaf_mark(leaf, i), s, e - s);
	d.folio = -(s32)leaf_drop_slots(leaf, s, e, dead);
	d.dirty = -(s32)dirty;
	d.unclean = -(s32)dirty;
	d.delayed = -(s32)delayed;
	leaf_account(leaf, &d);
	return delayed;
}

/*
 * One step for each leaf: if the blocks were clean for a moment before they are dropped,
 * who writes to them then would lose that, too, and fsync may have told of the error
 * before he did.
 */
u32 mapping_fail_writeback(struct mapping *m, lblk_t lblk, u32 nr, bool lost)
{
	u32 n;

	if (!lost)
		return end_writeback(m, lblk, nr, WB_NOT_THERE);
	mapping_forget(m);
	n = end_writeback(m, lblk, nr, WB_LOST);
	mapping_extent_forget(m, lblk, range_end(lblk + nr));
	return n;
}

u32 mapping_invalidate(struct mapping *m, lblk_t start, lblk_t end)
	NO_THREAD_SAFETY
{
	struct map_leaf *leaf;
	CDS_LIST_HEAD(dead);
	u64 cur = start;
	u32 n = 0;

	mapping_forget(m);
	while ((leaf = leaf_lock_next(m, cur, end, WANT_ANY))) {
		u32 s, e;

		cur = max_of(cur, leaf_base(leaf));
		if (leaf_clip(leaf, cur, end, &s, &e)) {
			if (bm_find_set(leaf_mark(leaf, MARK_WRITEBACK), s,
					e) < e) {
				leaf_unlock_wait(m, leaf);
				continue;
			}
			n += leaf_invalidate(leaf, s, e, &dead);
		}
		cur = leaf_end(leaf);
		leaf_unlock(leaf);
		folio_free_list(&dead);
	}
	/* Last: the end of a write-out that was waited for enters some. */
	mapping_extent_forget(m, start, range_end(end));
	return n;
}

/* The clean blocks of [s, e), run by run. */
static void leaf_drop_clean(struct map_leaf *leaf, u32 s, u32 e,
			    struct cds_list_head *dead)
{
	const u64 *dirty = leaf_mark(leaf, MARK_DIRTY);
	const u64 *wb = leaf_mark(leaf, MARK_WRITEBACK);
	const u64 *delayed = leaf_mark(leaf, MARK_DELAYED);
	struct leaf_delta d = { 0 };

	while (s < e) {
		u32 b = bm_find_set_or(dirty, wb, s, e);

		b = bm_find_set(delayed, s, b);
		d.folio -= (s32)leaf_drop_slots(leaf, s, b, dead);
		s = b + 1;
	}
	leaf_account(leaf, &d);
}

void mapping_drop_clean(struct mapping *m, lblk_t start, lblk_t end)
	NO_THREAD_SAFETY
{
	struct map_leaf *leaf;
	CDS_LIST_HEAD(dead);
	u64 cur = start;

	mapping_forget(m);
	while ((leaf = leaf_lock_next(m, cur, end, WANT_ANY))) {
		u32 s, e;

		if (leaf_clip(leaf, cur, end, &s, &e))
			leaf_drop_clean(leaf, s, e, &dead);
		cur = leaf_end(leaf);
		leaf_unlock(leaf);
		folio_free_list(&dead);
	}
	mapping_extent_forget(m, start, range_end(end));
}

/* ---- errors ---- */

#define ERRSEQ_ERRNO 0xFFFu
#define ERRSEQ_SEEN 0x1000u
#define ERRSEQ_COUNT 0x2000u

/* A new value only if somebody has seen the old one, or the error differs. */
void mapping_set_error(struct mapping *m, int error)
{
	errseq_t old = atomic_load(&m->m_wb_err), new;

	assert(error < 0 && (u32)-error <= ERRSEQ_ERRNO);
	do {
		new = (old & ~(ERRSEQ_ERRNO | ERRSEQ_SEEN)) | (u32)-error;
		if (old & ERRSEQ_SEEN)
			new += ERRSEQ_COUNT;
		if (new == old)
			return;
	} while (!atomic_compare_exchange_weak(&m->m_wb_err, &old, new));
}

/* An error nobody has seen yet is for the new descriptor too: sample 0. */
errseq_t mapping_sample_error(struct mapping *m)
{
	errseq_t cur = atomic_load(&m->m_wb_err);

	return cur & ERRSEQ_SEEN ? cur : 0;
}

int mapping_peek_error(struct mapping *m, errseq_t since)
{
	errseq_t cur = atomic_load(&m->m_wb_err);

	return cur == since ? 0 : -(int)(cur & ERRSEQ_ERRNO);
}

bool mapping_error_unseen(const struct mapping *m)
{
	errseq_t cur = atomic_load(&m->m_wb_err);

	return cur && !(cur & ERRSEQ_SEEN);
}

int mapping_check_error(struct mapping *m, errseq_t *since)
{
	errseq_t cur = atomic_load(&m->m_wb_err);

	if (cur == *since)
		return 0;
	/*
	 * What is kept in *since must have been there with its mark: only then
	 * does the next error get another value, and is told apart. If the mark
	 * comes too late, there is a new error, which is reported in its place.
	 */
	while (!(cur & ERRSEQ_SEEN))
		if (atomic_compare_exchange_weak(&m->m_wb_err, &cur,
						 cur | ERRSEQ_SEEN))
			cur |= ERRSEQ_SEEN;
	*since = cur;
	return -(int)(cur & ERRSEQ_ERRNO);
}
