/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/mapping.c - page cache of a file: reading, filling and writing
 *
 * Everything happens under the lock of one leaf, 64 KiB of copying at a time
 * at most. Memory is allocated before: a write looks what is absent, unlocks,
 * allocates folios for the runs it found, locks and looks again; what it did
 * not need it gives back. A write that finds all its blocks takes the lock
 * once for each 64 KiB.
 *
 * Reads of what is cached and overwrites of what is cached need no i_rwsem
 * (mapping_read_cached(), mapping_overwrite()): their declarations say why.
 *
 * Locks:  leaf lock, and what nests in it (mapping_internal.h)
 * Never:  an allocation under a leaf lock
 * Threads: any
 * Next:   cache/mapping_tree.c (leaves), cache/mapping_wb.c (write-out)
 */
#include "cache/icache.h"
#include "cache/mapping_internal.h"
#include <string.h>

/* Block b, absent, gets its place in the folio. */
static void leaf_set_folio(struct map_leaf *leaf, u32 b, struct folio *f,
			   struct leaf_delta *d)
{
	leaf_slots(leaf)[b] = f;
	if (f->f_live++ == 0)
		atomic_store_explicit(&f->f_leaf, leaf, memory_order_release);
	d->folio++;
}

/* ---- reading ---- */

/* Blocks and bytes of a request that lies in one leaf. */
struct span {
	u32 index;      /* of the leaf */
	u32 first;      /* block in the leaf */
	u32 offset;     /* in the first block, bytes */
};

static struct span span_of(const struct mapping *m, u64 pos)
{
	u32 bits = m->m_sb->s_blocksize_bits;

	return (struct span){
		.index = (u32)(pos >> (bits + LEAF_SHIFT)),
		.first = (u32)(pos >> bits) % LEAF_BLOCKS,
		.offset = (u32)(pos & (m->m_sb->s_blocksize - 1)),
	};
}

/* Bytes from pos to the end of its leaf. */
static u64 leaf_room(const struct mapping *m, u64 pos)
{
	u64 bytes = (u64)LEAF_BLOCKS << m->m_sb->s_blocksize_bits;

	return bytes - (pos & (bytes - 1));
}

/* Bytes of [pos, pos+len), in this leaf, before the first present block. */
static u32 absent_prefix(struct map_leaf *leaf, const struct span *sp,
			 u32 blocksize, u32 len)
{
	u32 n = blocksize - sp->offset;
	u32 b;

	for (b = sp->first + 1; n < len && !leaf_folio(leaf, b); b++)
		n += blocksize;
	return min_of(n, len);
}

/* Copies from the present blocks at the start of the span; returns bytes. */
static u32 copy_present(struct map_leaf *leaf, const struct span *sp,
			u32 blocksize, void *buf, u32 len)
{
	u32 done = 0, b = sp->first, off = sp->offset;
	struct folio *f;

	while (done < len && (f = leaf_folio(leaf, b))) {
		u32 n = min_of(blocksize - off, len - done);
		u32 lblk = (u32)leaf_base(leaf) + b;

		memcpy((char *)buf + done,
		       (char *)folio_block(f, lblk, blocksize) + off, n);
		folio_touch(f);
		done += n;
		off = 0;
		b++;
	}
	return done;
}

u32 mapping_read(struct mapping *m, u64 pos, void *buf, u32 len, bool *cached)
	NO_THREAD_SAFETY
{
	u32 blocksize = m->m_sb->s_blocksize;
	u32 done = 0;

	assert(len);
	len = (u32)min_of((u64)len, leaf_room(m, pos));
	while (done < len) {
		struct span sp = span_of(m, pos + done);
		struct map_leaf *leaf = leaf_lock(m, sp.index);
		u32 chunk = min_of(len - done, COPY_MAX), n;

		if (!leaf) {
			if (!done)
				goto absent;
			break;
		}
		if (!done && !leaf_folio(leaf, sp.first)) {
			len = absent_prefix(leaf, &sp, blocksize, len);
			leaf_unlock(leaf);
			goto absent;
		}
		n = copy_present(leaf, &sp, blocksize, (char *)buf + done,
				 chunk);
		leaf_unlock(leaf);
		done += n;
		if (n < chunk)
			break;
	}
	*cached = true;
	return done;
absent:
	*cached = false;
	return len;
}

/* Does the file reach to `end` now? Leaf lock held, which orders it with the
 * end of a truncation's work on the leaf. Tests have no inode. */
static bool size_covers(const struct mapping *m, u64 end)
{
	return !m->m_inode || atomic_load(&m->m_inode->i_size) >= end;
}

bool mapping_read_cached(struct mapping *m, u64 pos, void *buf, u32 len)
	NO_THREAD_SAFETY
{
	u32 blocksize = m->m_sb->s_blocksize;
	u32 done = 0;

	if (!atomic_load_explicit(&m->m_nr_folio_blocks, memory_order_relaxed))
		return false;
	while (done < len) {
		u32 chunk = (u32)min_of((u64)(len - done),
					leaf_room(m, pos + done));
		struct span sp = span_of(m, pos + done);
		struct map_leaf *leaf = leaf_lock(m, sp.index);
		u32 n = 0;

		if (!leaf)
			return false;
		chunk = min_of(chunk, COPY_MAX);
		if (size_covers(m, pos + len))
			n = copy_present(leaf, &sp, blocksize,
					 (char *)buf + done, chunk);
		leaf_unlock(leaf);
		if (n < chunk)
			return false;
		done += n;
	}
	return true;
}

u32 mapping_query(struct mapping *m, lblk_t lblk, u32 nr, u64 *unknown,
		  u64 *absent) NO_THREAD_SAFETY
{
	u32 first = lblk % LEAF_BLOCKS, in_value = 0;
	struct map_leaf *leaf;
	u32 n = 0, i;
	u64 v;

	leaf = leaf_lock_or_value(m, lblk >> LEAF_SHIFT, &v);
	if (v && value_state(v) != EXTENT_HOLE)
		in_value = value_len(v);

	assert(nr && first + nr <= LEAF_BLOCKS);
	memset(unknown, 0, LEAF_WORDS * sizeof(u64));
	if (absent)
		memset(absent, 0, LEAF_WORDS * sizeof(u64));
	for (i = 0; i < nr; i++) {
		if (leaf ? !leaf_known(leaf, first + i) : first + i >= in_value) {
			bm_set(unknown, i);
			n++;
		}
		if (absent && (!leaf || !leaf_folio(leaf, first + i)))
			bm_set(absent, i);
	}
	if (leaf)
		leaf_unlock(leaf);
	return n;
}

/* ---- filling and writing ---- */

u64 mapping_generation(struct mapping *m)
{
	return atomic_load(&m->m_drop_gen);
}

/*
 * Blocks [lblk, lblk+nr) of one leaf from len bytes and zeroes; nr is a size of
 * folios. gen: NULL for no check.
 */
static int fill_run(struct mapping *m, lblk_t lblk, u32 nr, const void *data,
		    u32 len, const u64 *gen) NO_THREAD_SAFETY
{
	u32 bytes = nr << m->m_sb->s_blocksize_bits;
	struct folio *f = folio_alloc(m->m_sb, lblk, nr);
	u32 first = lblk % LEAF_BLOCKS, b;
	struct leaf_delta d = { 0 };
	struct map_leaf *leaf;
	CDS_LIST_HEAD(spare);
	int ret;

	if (!f)
		return -ENOMEM;
	cds_list_add(&f->f_lru, &spare);
	memcpy(f->f_data, data, len);
	memset((char *)f->f_data + len, 0, bytes - len);
	ret = leaf_lock_create(m, lblk + nr - 1, &leaf);
	if (ret)
		goto out_free;
	/*
	 * The generation is raised before a slot is emptied, also where there
	 * was no leaf to be locked: the fence pairs with that of
	 * mapping_forget(). Either we see it raised, or it sees our leaf.
	 */
	atomic_thread_fence(memory_order_seq_cst);
	for (b = first; b < first + nr && !ret; b++) {
		if (leaf_folio(leaf, b))
			continue;
		if (gen && atomic_load(&m->m_drop_gen) != *gen)
			ret = -EAGAIN;
		else
			leaf_set_folio(leaf, b, f, &d);
	}
	if (f->f_live) {
		cds_list_del(&f->f_lru);
		folio_lru_add(f);
	}
	leaf_account(leaf, &d);
	leaf_unlock(leaf);
	if (ret)
		mapping_count(m->m_sb->s_mapping_cache, MAPPING_RETRIES, 1);
out_free:
	folio_free_list(&spare);
	return ret;
}

int mapping_fill_run_since(struct mapping *m, lblk_t lblk, const void *data,
			   u32 *len, u64 gen)
{
	u32 bits = m->m_sb->s_blocksize_bits, blocksize = m->m_sb->s_blocksize;
	u32 want = DIV_ROUND_UP(min_of(*len, COPY_MAX), blocksize);
	u32 nr = folio_size_for(m->m_sb,
				min_of(want, LEAF_BLOCKS - lblk % LEAF_BLOCKS));

	*len = min_of(*len, nr << bits);
	return fill_run(m, lblk, nr, data, *len, &gen);
}

int mapping_fill(struct mapping *m, lblk_t lblk, const void *data)
{
	return fill_run(m, lblk, 1, data, m->m_sb->s_blocksize, NULL);
}

int mapping_fill_since(struct mapping *m, lblk_t lblk, const void *data, u64 gen)
{
	return fill_run(m, lblk, 1, data, m->m_sb->s_blocksize, &gen);
}

/*
 * One call of mapping_write(): how far it is, and the folios allocated for
 * blocks that were absent at the last look, in ascending order.
 */
struct write_op {
	struct mapping *m;
	u64 pos;             /* where the call began */
	char *src;
	u32 len;             /* bytes in all */
	u32 done;            /* bytes written */
	u32 adopted;         /* of them without a copy */
	struct region *region; /* of src, or NULL */
	const u64 *mapped;
	lblk_t first_lblk;   /* bit 0 of mapped[] */
	u32 *reserved;
	struct cds_list_head spare;
};

enum write_step {
	STEP_OK,     /* copied up to the end of the chunk */
	STEP_STOP,   /* short count */
	STEP_FOLIOS, /* the next block needs a folio */
};

/* The spare folio that has memory for this block, or NULL. */
static struct folio *spare_for(struct write_op *op, lblk_t lblk)
{
	struct folio *f;

	cds_list_for_each_entry(f, &op->spare, f_lru)
		if (lblk >= f->f_lblk && lblk < f->f_lblk + f->f_nr)
			return f;
	return NULL;
}

/* Gives an unknown block that is not on disk either its reservation. False:
 * there is none left. */
static bool mark_known(struct map_leaf *leaf, u32 b, bool mapped,
		       u32 *reserved, struct leaf_delta *d)
{
	if (mapped || leaf_known(leaf, b))
		return true;
	if (!*reserved)
		return false;
	(*reserved)--;
	bm_set(leaf_mark(leaf, MARK_DELAYED), b);
	d->delayed++;
	return true;
}

static void mark_dirty(struct map_leaf *leaf, u32 b, struct leaf_delta *d)
{
	u64 *dirty = leaf_mark(leaf, MARK_DIRTY);

	leaf_slots(leaf)[b]->f_written = true;
	if (bm_test(dirty, b))
		return;
	bm_set(dirty, b);
	d->dirty++;
	if (!bm_test(leaf_mark(leaf, MARK_WRITEBACK), b))
		d->unclean++;
}

/*
 * Copies up to byte `end` of the request (in one leaf), leaf locked. A block
 * gets its folio from the spare ones; a spare folio that is used moves from
 * the list to the slots, where its first reference then belongs.
 */
static enum write_step write_chunk(struct write_op *op, struct map_leaf *leaf,
				   u32 end, struct leaf_delta *d)
{
	u32 blocksize = op->m->m_sb->s_blocksize;

	while (op->done < end) {
		struct span sp = span_of(op->m, op->pos + op->done);
		lblk_t lblk = (lblk_t)leaf_base(leaf) + sp.first;
		u32 n = min_of(blocksize - sp.offset, end - op->done);
		struct folio *f = leaf_folio(leaf, sp.first);
		char *dst;

		if (!f) {
			if (n < blocksize)
				return STEP_STOP;
			f = sp.first < leaf->l_cap ? spare_for(op, lblk) : NULL;
			if (!f)
				return STEP_FOLIOS;
		}
		if (!mark_known(leaf, sp.first,
				bm_test(op->mapped, lblk - op->first_lblk),
				op->reserved, d))
			return STEP_STOP;
		/* Written once is no reason to stay: touched when found here. */
		if (leaf_folio(leaf, sp.first))
			folio_touch(f);
		else
			leaf_set_folio(leaf, sp.first, f, d);
		dst = (char *)folio_block(f, lblk, blocksize) + sp.offset;
		if (dst == op->src + op->done)
			op->adopted += n;
		else
			memcpy(dst, op->src + op->done, n);
		mark_dirty(leaf, sp.first, d);
		op->done += n;
	}
	return STEP_OK;
}

/* Takes the spare folios that the slots refer to off the list. Leaf locked. */
static void spare_settle(struct write_op *op)
{
	struct folio *f, *next;

	cds_list_for_each_entry_safe(f, next, &op->spare, f_lru)
		if (f->f_live)
			cds_list_del(&f->f_lru);
}

/* A run of absent blocks. In 64 KiB of 1 KiB blocks at most every second one
 * begins one. */
struct absent_run {
	lblk_t lblk;
	u32 nr;
};
#define MAX_RUNS (COPY_MAX / 1024 / 2 + 2)

/*
 * Finds the runs of absent blocks that bytes [done, end) cover wholly. leaf:
 * locked, or NULL if there is none. Returns their number.
 */
static u32 absent_runs(const struct write_op *op, struct map_leaf *leaf,
		       u32 end, struct absent_run *runs)
{
	u32 bits = op->m->m_sb->s_blocksize_bits;
	u64 from = op->pos + op->done, to = op->pos + end;
	u64 s = ALIGN_UP(from, 1ull << bits) >> bits, e = to >> bits, b;
	u32 n = 0;

	for (b = s; b < e; b++) {
		if (leaf && leaf_folio(leaf, (u32)b % LEAF_BLOCKS))
			continue;
		if (n && runs[n - 1].lblk + runs[n - 1].nr == b) {
			runs[n - 1].nr++;
			continue;
		}
		assert(n < MAX_RUNS);
		runs[n++] = (struct absent_run){ .lblk = (lblk_t)b, .nr = 1 };
	}
	return n;
}

/*
 * The folio for the first of nr absent blocks from lblk on: the memory where
 * their data is, if it is in whole pages of a region. A call that ended short, with
 * blocks of a folio written and others not, has left pages of the latter to that folio,
 * where no slot refers to them: their data is copied from there when it is tried again.
 */
static struct folio *spare_new(const struct write_op *op, lblk_t lblk, u32 nr)
{
	struct super_block *sb = op->m->m_sb;
	u32 bits = sb->s_blocksize_bits;
	char *p = op->src + (((u64)lblk << bits) - op->pos);
	u32 bytes = ALIGN_DOWN(min_of(nr << bits, FOLIO_MAX_BYTES), REGION_PAGE);
	struct folio *f = NULL;

	if (op->region && bytes && !((uintptr_t)p % REGION_PAGE) &&
	    region_is_free(op->region, p, bytes))
		f = folio_adopt(sb, lblk, bytes >> bits, op->region, p);
	if (!f)
		f = folio_alloc(sb, lblk, folio_size_for(sb, nr));
	if (!f && nr > 1)
		f = folio_alloc(sb, lblk, 1);
	return f;
}

static int spare_fill(struct write_op *op, const struct absent_run *runs, u32 n)
{
	u32 i;

	folio_free_list(&op->spare);
	for (i = 0; i < n; i++) {
		lblk_t lblk = runs[i].lblk;
		u32 left = runs[i].nr;

		while (left) {
			struct folio *f = spare_new(op, lblk, left);

			if (!f)
				return -ENOMEM;
			cds_list_add_tail(&f->f_lru, &op->spare);
			lblk += f->f_nr;
			left -= f->f_nr;
		}
	}
	return 0;
}

/*
 * The file reaches at least to `end` now. Under the lock of the leaf whose
 * blocks became dirty: who takes them for write-out afterwards sees a size that
 * covers them, and so the size on disk follows.
 */
static void size_reaches(struct inode *inode, u64 end)
{
	/* It falls with i_rwsem held exclusively only, and we hold it. */
	if (atomic_load_explicit(&inode->i_size, memory_order_relaxed) >= end)
		return;
	inode_attrs_lock(inode);
	if (inode->i_size < end)
		inode->i_size = end;
	inode_attrs_unlock(inode);
}

/*
 * Bytes [op->done, end) of the request, 64 KiB at most: tries with what is
 * there, and if folios are missing allocates them without the lock and tries
 * again. Blocks may come and go in between; each turn looks afresh.
 */
static int write_one_chunk(struct write_op *op, u32 end, bool *stop)
	NO_THREAD_SAFETY
{
	u32 bits = op->m->m_sb->s_blocksize_bits;
	lblk_t last = (lblk_t)((op->pos + end - 1) >> bits);
	struct absent_run runs[MAX_RUNS];
	enum write_step step;
	struct map_leaf *leaf;
	u32 nr_runs, tried = 0;
	int ret;

	for (;;) {
		struct leaf_delta d = { 0 };

		if (cds_list_empty(&op->spare)) {
			leaf = leaf_lock(op->m, last >> LEAF_SHIFT);
		} else {
			ret = leaf_lock_create(op->m, last, &leaf);
			if (ret)
				return ret;
		}
		step = STEP_FOLIOS;
		if (leaf) {
			step = write_chunk(op, leaf, end, &d);
			if (op->m->m_inode && op->done)
				size_reaches(op->m->m_inode, op->pos + op->done);
			leaf_account(leaf, &d);
			spare_settle(op);
		}
		nr_runs = 0;
		if (step == STEP_FOLIOS)
			nr_runs = absent_runs(op, leaf, end, runs);
		if (leaf)
			leaf_unlock(leaf);
		if (step == STEP_OK)
			return 0;
		/* No leaf, and nothing wholly covered: partly covered, absent. */
		if (step == STEP_STOP || !nr_runs ||
		    (u64)runs[0].lblk << bits > op->pos + op->done) {
			*stop = true;
			return 0;
		}
		if (tried++)
			mapping_count(op->m->m_sb->s_mapping_cache,
				      MAPPING_RETRIES, 1);
		ret = spare_fill(op, runs, nr_runs);
		if (ret)
			return ret;
	}
}

s64 mapping_write(struct mapping *m, u64 pos, const void *src, u32 len,
		  const u64 *mapped, u32 *reserved)
{
	/* Only a region's memory is ever written to. */
	return mapping_write_region(m, pos, NULL, (void *)src, len, mapped,
				    reserved);
}

s64 mapping_write_region(struct mapping *m, u64 pos, struct region *region,
			 void *src, u32 len, const u64 *mapped, u32 *reserved)
{
	struct write_op op = {
		.m = m,
		.region = region,
		.pos = pos,
		.src = src,
		.len = len,
		.mapped = mapped,
		.first_lblk = (lblk_t)(pos >> m->m_sb->s_blocksize_bits),
		.reserved = reserved,
	};
	bool stop = false;
	int ret = 0;

	assert(len && len <= leaf_room(m, pos));
	CDS_INIT_LIST_HEAD(&op.spare);
	while (op.done < len && !stop && !ret) {
		u64 at = pos + op.done;
		u32 chunk = COPY_MAX - (u32)(at % COPY_MAX);

		ret = write_one_chunk(&op, op.done + min_of(chunk, len - op.done),
				      &stop);
	}
	folio_free_list(&op.spare);
	if (op.adopted)
		mapping_counter_add(m->m_sb, MAPPING_ADOPTED, op.adopted);
	if (op.done > op.adopted)
		mapping_counter_add(m->m_sb, MAPPING_COPIED, op.done - op.adopted);
	return op.done ? (s64)op.done : ret;
}

/* Bytes copied, up to the first block that is absent or unknown. Leaf locked. */
static u32 overwrite_chunk(struct map_leaf *leaf, const struct span *sp,
			   const char *src, u32 len, struct leaf_delta *d)
{
	u32 blocksize = leaf->l_map->m_sb->s_blocksize;
	u32 done = 0, b = sp->first, off = sp->offset;
	struct folio *f;

	while (done < len && (f = leaf_folio(leaf, b)) && leaf_known(leaf, b)) {
		lblk_t lblk = (lblk_t)leaf_base(leaf) + b;
		u32 n = min_of(blocksize - off, len - done);

		memcpy((char *)folio_block(f, lblk, blocksize) + off, src + done,
		       n);
		folio_touch(f);
		mark_dirty(leaf, b, d);
		done += n;
		off = 0;
		b++;
	}
	return done;
}

u32 mapping_overwrite(struct mapping *m, u64 pos, const void *src, u32 len,
		      u64 end) NO_THREAD_SAFETY
{
	u32 done = 0;

	assert(len && len <= leaf_room(m, pos));
	if (!atomic_load_explicit(&m->m_nr_folio_blocks, memory_order_relaxed))
		return 0;
	while (done < len) {
		struct span sp = span_of(m, pos + done);
		u32 chunk = min_of(len - done,
				   COPY_MAX - (u32)((pos + done) % COPY_MAX));
		struct map_leaf *leaf = leaf_lock(m, sp.index);
		struct leaf_delta d = { 0 };
		u32 n = 0;

		if (!leaf)
			break;
		if (size_covers(m, end))
			n = overwrite_chunk(leaf, &sp, (const char *)src + done,
					    chunk, &d);
		leaf_account(leaf, &d);
		leaf_unlock(leaf);
		done += n;
		if (n < chunk)
			break;
	}
	return done;
}

int mapping_zero(struct mapping *m, u64 pos, u32 len, bool mapped)
	NO_THREAD_SAFETY
{
	u32 blocksize = m->m_sb->s_blocksize;
	struct span sp = span_of(m, pos);
	struct leaf_delta d = { 0 };
	u32 none = 0;
	struct map_leaf *leaf;
	struct folio *f;
	int ret = 0;

	assert(len && sp.offset + len <= blocksize);
	leaf = leaf_lock(m, sp.index);
	if (!leaf)
		return -ENODATA;
	f = leaf_folio(leaf, sp.first);
	if (!f) {
		ret = -ENODATA;
	} else if (!mark_known(leaf, sp.first, mapped, &none, &d)) {
		ret = -EAGAIN;
	} else {
		lblk_t lblk = (lblk_t)leaf_base(leaf) + sp.first;

		memset((char *)folio_block(f, lblk, blocksize) + sp.offset, 0,
		       len);
		folio_touch(f);
		mark_dirty(leaf, sp.first, &d);
		leaf_account(leaf, &d);
	}
	leaf_unlock(leaf);
	return ret;
}
