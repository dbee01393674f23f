/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/journal/journal.c - loading the journal, its superblock, its thread, abort
 *
 * One thread per journal commits and checkpoints, in that order of priority.
 * That one thread does both is what makes forgetting a block safe: an in-place
 * write cannot be in flight while the commit that frees its block completes
 * and lets the allocator hand the block out again.
 *
 * Everybody who waits does so on an event counter (struct jevent): read it,
 * look at the state under j_lock, wait until it has changed. The thread's work
 * flags (request, space_wanted, stop) are raised by anybody under j_lock and
 * cleared by the thread alone.
 *
 * Locks: sb_lock (image of the journal superblock and its write; a leaf but
 *        for the I/O under it), j_lock.
 * Never: I/O under j_lock. No write but that of s_errno once aborted is set.
 * Next:  transaction.c, commit.c, checkpoint.c, recovery.c
 */
#include "fs/journal/journal_internal.h"
#include "cache/budget.h"
#include "lib/crc.h"
#include "lib/log.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* ---- the ring ---- */

pblk_t journal_map(const struct journal *j, u32 jblk, u32 *run)
{
	u32 lo = 0, hi = j->nr_map;
	const struct journal_extent *e;

	assert(jblk < j->maxlen);
	while (hi - lo > 1) {
		u32 mid = lo + (hi - lo) / 2;

		if (j->map[mid].jblk <= jblk)
			lo = mid;
		else
			hi = mid;
	}
	e = &j->map[lo];
	assert(jblk >= e->jblk && jblk - e->jblk < e->len);
	if (run)
		*run = min_of(e->len - (jblk - e->jblk), j->maxlen - jblk);
	return e->pblk + (jblk - e->jblk);
}

u32 ring_add(const struct journal *j, u32 blk, u32 n)
{
	return j->first + (u32)(((u64)blk - j->first + n) % j->ring);
}

u32 ring_dist(const struct journal *j, u32 a, u32 b)
{
	return b >= a ? b - a : b + j->ring - a;
}

/* ---- checksums ---- */

u32 journal_block_csum(const struct journal *j, const void *block)
{
	static const u8 zero[4];
	u32 crc = crc32c(j->jseed, block, j->blocksize - sizeof(struct jbd2_tail));

	return crc32c(crc, zero, sizeof(zero));
}

u32 journal_commit_csum(const struct journal *j, const void *block)
{
	static const u8 zero[4];
	const size_t at = offsetof(struct jbd2_commit_header, h_chksum);
	u32 crc = crc32c(j->jseed, block, at);

	crc = crc32c(crc, zero, sizeof(zero));
	return crc32c(crc, (const u8 *)block + at + 4, j->blocksize - at - 4);
}

u32 journal_image_csum(const struct journal *j, u32 seq, const void *image)
{
	be32 s = cpu_to_be32(seq);

	return crc32c(crc32c(j->jseed, &s, sizeof(s)), image, j->blocksize);
}

static u32 sb_csum(const struct jbd2_superblock *jsb)
{
	static const u8 zero[4];
	const size_t at = offsetof(struct jbd2_superblock, s_checksum);
	u32 crc = crc32c(~0u, jsb, at);

	crc = crc32c(crc, zero, sizeof(zero));
	return crc32c(crc, (const u8 *)jsb + at + 4, sizeof(*jsb) - at - 4);
}

/* ---- groups of writes ---- */

static void jio_ended(struct io_end *ioe)
{
	struct jio *io = container_of_type(ioe, struct jio, ioe);

	/* Pairs with the acquire in jio_wait(); io lives as long as the journal. */
	atomic_store_explicit(&io->done, true, memory_order_release);
	wake_up(io);
}

void jio_begin(struct jio *io)
{
	assert(!io->busy);
	io->busy = true;
	atomic_store_explicit(&io->done, false, memory_order_relaxed);
	io_end_init(&io->ioe, jio_ended, true);
}

void jio_end(struct jio *io)
{
	io_end_put(&io->ioe);
}

int jio_wait(struct jio *io)
{
	if (!io->busy)
		return 0;
	wait_event(io, atomic_load_explicit(&io->done, memory_order_acquire));
	io->busy = false;
	return atomic_load_explicit(&io->ioe.error, memory_order_relaxed);
}

int jio_add(struct journal *j, struct bdev *bd, struct page_io *pio, struct jio *io,
	    u64 pos, void *data, u32 bytes)
{
	int err = page_io_add(pio, pos, data, bytes, &io->ioe);

	if (err == -ENOMEM)
		err = bdev_write(bd, pos, data, bytes, BIO_META);
	return err;
}

/* ---- journal superblock ---- */

static struct jbd2_superblock *jsb_of(const struct journal *j)
{
	return j->sb_buf;
}

/* Writes the image. REQUIRES sb_lock (or nobody else knows the journal). */
static int jsb_write(struct journal *j)
{
	struct jbd2_superblock *jsb = jsb_of(j);

	if (j->in_place)
		return 0;
	if (j->csum_v2 || j->csum_v3)
		jsb->s_checksum = cpu_to_be32(sb_csum(jsb));
	return bdev_write(j->log_bd, journal_map(j, j->sb_jblk, NULL) * j->blocksize, jsb,
			  j->blocksize, BIO_FUA | BIO_META);
}

int journal_write_tail(struct journal *j, u32 start, u32 seq)
{
	struct jbd2_superblock *jsb = jsb_of(j);
	be32 old_start, old_seq;
	int err = -EROFS;

	mutex_lock(&j->sb_lock);
	old_start = jsb->s_start;
	old_seq = jsb->s_sequence;
	if (journal_aborted(j))
		goto out_unlock;
	jsb->s_start = cpu_to_be32(start);
	jsb->s_sequence = cpu_to_be32(seq);
	err = jsb_write(j);
	if (err) {
		/* Whichever of the two is on disk, the log from the old tail
		 * on is whole; the write of s_errno will say so again. */
		jsb->s_start = old_start;
		jsb->s_sequence = old_seq;
	}
out_unlock:
	mutex_unlock(&j->sb_lock);
	return err;
}

int journal_flush(struct journal *j)
{
	u64 n = atomic_fetch_add(&j->flush_started, 1) + 1;
	int err = bdev_flush(j->bd);

	/* Only one thread flushes: numbers end in order. */
	if (!err)
		atomic_store(&j->flush_done, n);
	return err;
}

int journal_flush_log(struct journal *j)
{
	return j->log_bd == j->bd ? 0 : bdev_flush(j->log_bd);
}

void journal_set_features(struct journal *j, u32 compat, u32 incompat)
{
	u32 tail, fc = 0, half;

	j->compat = compat;
	j->incompat = incompat;
	j->csum_v2 = incompat & JBD2_INCOMPAT_CSUM_V2;
	j->csum_v3 = incompat & JBD2_INCOMPAT_CSUM_V3;
	j->jseed = crc32c(~0u, jsb_of(j)->s_uuid, JBD2_UUID_SIZE);
	tail = j->csum_v2 || j->csum_v3 ? sizeof(struct jbd2_tail) : 0;

	if (j->csum_v3)
		j->tag_bytes = sizeof(struct jbd2_tag3);
	else
		j->tag_bytes = (incompat & JBD2_INCOMPAT_64BIT ? 12 : 8) +
			       (j->csum_v2 ? 2 : 0);
	/* One tag fewer than would fit: what the kernel does. */
	j->tags_per_block = (j->blocksize - sizeof(struct jbd2_header) -
			     JBD2_UUID_SIZE - tail) / j->tag_bytes - 1;
	half = ARENA_HALF / j->blocksize;
	j->tags_per_block = min_of(j->tags_per_block, half - 1);
	j->revokes_per_block = (j->blocksize - sizeof(struct jbd2_revoke_header) - tail) /
			       (incompat & JBD2_INCOMPAT_64BIT ? 8 : 4);

	if (incompat & JBD2_INCOMPAT_FAST_COMMIT) {
		fc = be32_to_cpu(jsb_of(j)->s_num_fc_blks);
		if (!fc)
			fc = JBD2_DEFAULT_FC_BLOCKS;
	}
	j->end = fc < j->maxlen ? j->maxlen - fc : 0;
	j->ring = j->end > j->first ? j->end - j->first : 0;
	j->max_trans = min_of(j->ring / 4, MAX_TRANS_BYTES / j->blocksize);
}

static bool is_external(const struct journal *j)
{
	return j->log_bd != j->bd;
}

/*
 * The volume names its journal, and the journal its volume. It could have several, each
 * transaction being of one of them; nobody writes such.
 */
static int users_check(const struct journal *j)
{
	const struct jbd2_superblock *jsb = jsb_of(j);
	u32 nr = be32_to_cpu(jsb->s_nr_users);

	if (!j->user)
		return 0;
	if (nr > 1) {
		log_err("%s: external journal: it has %u users; one that several volumes share is not supported",
			j->sb->s_id, nr);
		return -EINVAL;
	}
	if (!nr || memcmp(jsb->s_users, j->user, JBD2_UUID_SIZE) != 0) {
		log_err("%s: external journal: this volume is not among its users (it has %s)",
			j->sb->s_id, nr ? "another one" : "none");
		return -EINVAL;
	}
	return 0;
}

static int jsb_check(struct journal *j, u32 map_len)
{
	const struct jbd2_superblock *jsb = jsb_of(j);
	const char *id = j->sb->s_id;
	u32 incompat, compat, start;

	if (be32_to_cpu(jsb->s_header.h_magic) != JBD2_MAGIC) {
		log_err("%s: journal: no superblock (magic %#x)", id,
			be32_to_cpu(jsb->s_header.h_magic));
		return -EFSCORRUPTED;
	}
	if (be32_to_cpu(jsb->s_header.h_blocktype) == JBD2_SB_V1) {
		log_err("%s: journal: version 1 is not supported; recreate the journal with tune2fs",
			id);
		return -EOPNOTSUPP;
	}
	if (be32_to_cpu(jsb->s_header.h_blocktype) != JBD2_SB_V2) {
		log_err("%s: journal: unknown superblock type %u", id,
			be32_to_cpu(jsb->s_header.h_blocktype));
		return -EFSCORRUPTED;
	}
	incompat = be32_to_cpu(jsb->s_feature_incompat);
	compat = be32_to_cpu(jsb->s_feature_compat);
	if (incompat & ~JBD2_INCOMPAT_KNOWN || be32_to_cpu(jsb->s_feature_ro_compat)) {
		log_err("%s: journal: unknown features (incompat %#x, ro_compat %#x)", id,
			incompat, be32_to_cpu(jsb->s_feature_ro_compat));
		return -EOPNOTSUPP;
	}
	if (!!(incompat & JBD2_INCOMPAT_CSUM_V2) + !!(incompat & JBD2_INCOMPAT_CSUM_V3) +
	    !!(compat & JBD2_COMPAT_CHECKSUM) > 1) {
		log_err("%s: journal: more than one kind of checksum (compat %#x, incompat %#x)",
			id, compat, incompat);
		return -EFSCORRUPTED;
	}
	if (incompat & (JBD2_INCOMPAT_CSUM_V2 | JBD2_INCOMPAT_CSUM_V3)) {
		if (jsb->s_checksum_type != JBD2_CRC32C_CHKSUM) {
			log_err("%s: journal: unknown checksum type %u", id,
				jsb->s_checksum_type);
			return -EFSCORRUPTED;
		}
		if (be32_to_cpu(jsb->s_checksum) != sb_csum(jsb)) {
			log_err("%s: journal: superblock checksum %#x is wrong, should be %#x",
				id, be32_to_cpu(jsb->s_checksum), sb_csum(jsb));
			return -EFSBADCRC;
		}
	}
	if (be32_to_cpu(jsb->s_blocksize) != j->blocksize) {
		log_err("%s: journal: block size %u, the volume's is %u", id,
			be32_to_cpu(jsb->s_blocksize), j->blocksize);
		return -EFSCORRUPTED;
	}
	j->maxlen = be32_to_cpu(jsb->s_maxlen);
	j->first = be32_to_cpu(jsb->s_first);
	if (j->maxlen > map_len || j->first <= j->sb_jblk || j->first >= j->maxlen) {
		log_err("%s: journal: %u blocks from %u on, but the %s has %u", id,
			j->maxlen, j->first, is_external(j) ? "device" : "inode", map_len);
		return -EFSCORRUPTED;
	}
	journal_set_features(j, compat, incompat);
	if (j->ring < MIN_RING_BLOCKS || (is_external(j) && j->maxlen < MIN_EXTERNAL_BLOCKS)) {
		log_err("%s: journal: too small (%u blocks, log from %u to %u)", id,
			j->maxlen, j->first, j->end);
		return -EFSCORRUPTED;
	}
	start = be32_to_cpu(jsb->s_start);
	if (start && (start < j->first || start >= j->end)) {
		log_err("%s: journal: log starts at block %u, outside of %u to %u", id,
			start, j->first, j->end);
		return -EFSCORRUPTED;
	}
	return 0;
}

/* Our own caller made the map from checked extents; this guards lookups. */
static bool map_ok(const struct journal_params *p)
{
	u64 at = 0;

	for (u32 i = 0; i < p->nr_map; i++) {
		const struct journal_extent *e = &p->map[i];
		u64 end = (p->log_bd ?: p->bd)->bd_size / p->sb->s_blocksize;

		if (e->jblk != at || !e->len || e->pblk >= end || e->len > end - e->pblk)
			return false;
		at += e->len;
	}
	return p->nr_map && at >= p->maxlen && p->sb_jblk < p->maxlen;
}

/* Without a log: a superblock that nobody will read, for a log as large as ever. */
static void jsb_make(struct journal *j)
{
	struct jbd2_superblock *jsb = jsb_of(j);

	j->maxlen = 4 * (MAX_TRANS_BYTES / j->blocksize) + 1;
	memset(jsb, 0, j->blocksize);
	jsb->s_header.h_magic = cpu_to_be32(JBD2_MAGIC);
	jsb->s_header.h_blocktype = cpu_to_be32(JBD2_SB_V2);
	jsb->s_blocksize = cpu_to_be32(j->blocksize);
	jsb->s_maxlen = cpu_to_be32(j->maxlen);
	jsb->s_first = cpu_to_be32(1);
	jsb->s_sequence = cpu_to_be32(1);
}

static int jsb_read(struct journal *j)
{
	int err = bdev_read(j->log_bd, journal_map(j, j->sb_jblk, NULL) * j->blocksize,
			    j->sb_buf, j->blocksize);

	if (err)
		log_err("%s: journal: cannot read its superblock: error %d", j->sb->s_id, -err);
	return err;
}

int journal_load(const struct journal_params *p, struct journal **out)
{
	struct journal *j;
	int err = -ENOMEM;

	*out = NULL;
	if (!p->in_place && !map_ok(p)) {
		log_err("%s: journal: its blocks are not all inside the %s", p->sb->s_id,
			p->log_bd ? "device" : "volume");
		return -EFSCORRUPTED;
	}
	j = calloc(1, sizeof(*j));
	if (!j)
		return -ENOMEM;
	j->sb = p->sb;
	j->bd = p->bd;
	j->log_bd = p->in_place || !p->log_bd ? p->bd : p->log_bd;
	j->sb_jblk = p->sb_jblk;
	j->user = p->user;
	j->ops = p->ops;
	j->priv = p->priv;
	j->want_64bit = p->use_64bit;
	j->want_v3 = p->use_csum_v3;
	j->blocksize = p->sb->s_blocksize;
	j->maxlen = p->maxlen;
	j->commit_interval_ms = p->commit_interval_ms ?: DEFAULT_COMMIT_MS;
	mutex_init(&j->sb_lock, RANK_NONE);
	spin_init(&j->j_lock, RANK_JOURNAL);
	CDS_INIT_LIST_HEAD(&j->j_cp);
	j->in_place = p->in_place;
	j->nr_map = p->nr_map;
	j->map = malloc(sizeof(*j->map) * max_of(p->nr_map, 1u));
	if (j->in_place)
		j->homes = malloc(2 * (ARENA_HALF / j->blocksize) * sizeof(*j->homes));
	j->sb_buf = io_alloc(max_of(p->sb->s_blocksize, 4096u));
	if (!j->map || !j->sb_buf || (j->in_place && !j->homes))
		goto out_free;
	if (j->in_place) {
		jsb_make(j);
	} else {
		memcpy(j->map, p->map, sizeof(*j->map) * p->nr_map);
		err = jsb_read(j);
		if (err)
			goto out_free;
	}
	err = jsb_check(j, j->maxlen);
	if (!err)
		err = users_check(j);
	j->user = NULL;
	if (err)
		goto out_free;
	j->next_seq = be32_to_cpu(jsb_of(j)->s_sequence) + 1;
	*out = j;
	return 0;
out_free:
	journal_free(j);
	return err;
}

void journal_free(struct journal *j)
{
	if (!j)
		return;
	assert(!j->thread);
	assert(!j->running && !j->committing);
	free(j->map);
	free(j->homes);
	free(j->cp_items);
	if (j->sb_buf)
		io_free(j->sb_buf);
	if (j->arena)
		io_free(j->arena);
	spin_destroy(&j->j_lock);
	mutex_destroy(&j->sb_lock);
	free(j);
}

bool journal_needs_recovery(const struct journal *j)
{
	return be32_to_cpu(jsb_of(j)->s_start) != 0;
}

int journal_recorded_errno(const struct journal *j)
{
	/* The kernel stores the negative value; take either sign. */
	s32 e = (s32)be32_to_cpu(jsb_of(j)->s_errno);

	if (e == INT32_MIN)
		return -EIO;
	return e > 0 ? -e : e;
}

u32 journal_blocks(const struct journal *j)
{
	return j->maxlen;
}

const struct journal_stats *journal_stats(const struct journal *j)
{
	return &j->stats;
}

/* ---- the thread ---- */

void journal_kick(struct journal *j)
{
	jevent_wake(&j->ev_thread);
}

enum work { WORK_SLEEP, WORK_COMMIT, WORK_CHECKPOINT, WORK_DISCARD, WORK_STOP };

/* Commits have priority over checkpoints. [j_lock] */
static enum work next_work(struct journal *j, u64 *deadline)
{
	struct transaction *t = j->running;

	*deadline = 0;
	if (journal_aborted(j)) {
		if (t && !t->handles)
			return WORK_DISCARD;
		return j->stop && !t ? WORK_STOP : WORK_SLEEP;
	}
	if (t) {
		if (j->stop || tid_geq(j->request, t->tid) || transaction_big(j, t) ||
		    clock_mono_ns() >= t->expires_ns)
			return WORK_COMMIT;
		*deadline = t->expires_ns;
		if (j->cp_blocked && j->space_wanted)
			return WORK_COMMIT;
	} else if (j->stop) {
		return WORK_STOP;
	}
	return checkpoint_wanted(j) ? WORK_CHECKPOINT : WORK_SLEEP;
}

static void discard_running(struct journal *j)
{
	struct transaction *t;

	spin_lock(&j->j_lock);
	t = j->running;
	assert(t && !t->handles);
	j->running = NULL;
	spin_unlock(&j->j_lock);
	transaction_discard(j, t, -EIO);
}

static void journal_thread(void *arg)
{
	struct journal *j = arg;

	for (;;) {
		u32 seen = jevent_read(&j->ev_thread);
		u64 deadline, placed;
		bool erase, discard;
		enum work w;

		spin_lock(&j->j_lock);
		w = next_work(j, &deadline);
		placed = !journal_aborted(j) && checkpoint_asked_for(j)
				 ? atomic_load(&j->place_done)
				 : j->place_asked;
		erase = j->erase_asked;
		discard = j->erase_discard;
		j->erase_asked = false;
		spin_unlock(&j->j_lock);
		if (atomic_exchange(&j->place_done, placed) != placed)
			wake_up(&j->place_done);
		if (erase) {
			j->erase_error = checkpoint_erase(j, discard);
			jevent_wake(&j->ev_erased);
			continue;
		}
		switch (w) {
		case WORK_COMMIT:
			journal_commit_running(j);
			break;
		case WORK_CHECKPOINT:
			checkpoint_step(j);
			break;
		case WORK_DISCARD:
			discard_running(j);
			break;
		case WORK_SLEEP:
			wait_event_deadline(&j->ev_thread,
					    jevent_read(&j->ev_thread) != seen, deadline);
			break;
		case WORK_STOP:
			return;
		}
	}
}

static void set_max_pinned(struct journal *j, u64 limit)
{
	atomic_store(&j->max_pinned,
		     (u32)(min_of(limit / 4, (u64)MAX_CP_BYTES) / j->blocksize));
}

/*
 * What the journal pins (a running, a committing, and checkpointed
 * transactions) is bounded by the cache's budget, too.
 */
static void limit_to_budget(struct journal *j)
{
	u64 limit = j->sb->s_budget ? budget_limit(j->sb->s_budget) : UINT64_MAX;
	u64 blocks = limit / 8 / j->blocksize;

	set_max_pinned(j, limit);
	if (blocks < MIN_TRANS_BLOCKS)
		blocks = MIN_TRANS_BLOCKS;
	if (j->max_trans > blocks)
		j->max_trans = (u32)blocks;
}

/*
 * Zeroes the place of the first transaction. There may be a block of an older
 * log with the very number that transaction will have: after a crash before
 * it is overwritten, recovery would take it for a damaged beginning.
 */
static int clear_first_block(struct journal *j)
{
	if (j->in_place)
		return 0;
	memset(j->arena, 0, j->blocksize);
	return bdev_write(j->log_bd, journal_map(j, j->first, NULL) * j->blocksize, j->arena,
			  j->blocksize, BIO_META);
}

int journal_run(struct journal *j)
{
	struct jbd2_superblock *jsb = jsb_of(j);
	u32 compat, incompat;
	int err;

	assert(!j->started);
	if (journal_needs_recovery(j)) {
		log_err("%s: journal: the log is not empty, cannot write to it", j->sb->s_id);
		return -EINVAL;
	}
	compat = j->compat & ~JBD2_COMPAT_CHECKSUM;
	incompat = JBD2_INCOMPAT_REVOKE;
	if (j->want_64bit)
		incompat |= JBD2_INCOMPAT_64BIT;
	if (j->want_v3)
		incompat |= JBD2_INCOMPAT_CSUM_V3;
	jsb->s_feature_compat = cpu_to_be32(compat);
	jsb->s_feature_incompat = cpu_to_be32(incompat);
	jsb->s_checksum_type = j->want_v3 ? JBD2_CRC32C_CHKSUM : 0;
	jsb->s_checksum = cpu_to_be32(0);
	jsb->s_errno = cpu_to_be32(0);
	jsb->s_head = cpu_to_be32(0);
	journal_set_features(j, compat, incompat);
	limit_to_budget(j);
	j->head = j->tail = j->first;
	/* Not the numbers in the log: those count what was written only. */
	j->next_tid = j->next_seq ?: 1;
	j->committed = j->request = j->next_tid - 1;

	if (!j->arena)
		j->arena = io_alloc(2 * ARENA_HALF);
	if (!j->arena || checkpoint_alloc(j))
		return -ENOMEM;
	err = clear_first_block(j);
	if (!err)
		err = jsb_write(j);
	if (!err)
		err = bdev_flush(j->log_bd);
	if (err) {
		log_err("%s: journal: cannot write its superblock: error %d", j->sb->s_id, -err);
		return err;
	}
	err = thread_create(&j->thread, "sl-journal", journal_thread, j);
	if (err)
		return err;
	spin_lock(&j->j_lock);
	j->started = true;
	spin_unlock(&j->j_lock);
	return 0;
}

int journal_shutdown(struct journal *j)
{
	int err;

	if (!j->thread)
		return journal_aborted(j);
	spin_lock(&j->j_lock);
	assert(!j->reserved);
	j->stop = true;
	j->started = false; /* no new handles */
	spin_unlock(&j->j_lock);
	journal_kick(j);
	jevent_wake(&j->ev_start);
	thread_join(j->thread);
	j->thread = NULL;

	/* The thread is gone: what was its own is ours now. */
	if (!journal_aborted(j))
		checkpoint_all(j);
	if (!journal_aborted(j)) {
		err = journal_write_tail(j, 0, j->next_seq - 1);
		if (err)
			journal_abort(j, err);
	}
	checkpoint_discard(j);
	return journal_aborted(j);
}

void journal_set_handle_extra(struct journal *j, u32 blocks)
{
	spin_lock(&j->j_lock);
	assert(!j->running);
	j->handle_extra = blocks;
	spin_unlock(&j->j_lock);
}

void journal_set_commit_interval(struct journal *j, u32 ms)
{
	spin_lock(&j->j_lock);
	j->commit_interval_ms = ms ?: DEFAULT_COMMIT_MS;
	if (j->running)
		j->running->expires_ns =
			min_of(j->running->expires_ns,
			       clock_mono_ns() + j->commit_interval_ms * NSEC_PER_MSEC);
	spin_unlock(&j->j_lock);
	journal_kick(j);
}

void journal_write_back(struct journal *j)
{
	u64 asked;

	spin_lock(&j->j_lock);
	asked = ++j->place_asked;
	j->place_tid = j->committed;
	spin_unlock(&j->j_lock);
	journal_kick(j);
	wait_event(&j->place_done, atomic_load(&j->place_done) >= asked);
}

int journal_erase(struct journal *j, bool discard)
{
	u32 seen;
	int err = 0;

	if (j->in_place)
		return -EOPNOTSUPP;
	journal_write_back(j);
	spin_lock(&j->j_lock);
	if (j->erasing)
		err = -EBUSY;
	j->erasing = true;
	spin_unlock(&j->j_lock);
	if (err)
		return err;
	seen = jevent_read(&j->ev_erased);
	spin_lock(&j->j_lock);
	j->erase_asked = true;
	j->erase_discard = discard;
	spin_unlock(&j->j_lock);
	journal_kick(j);
	jevent_wait(&j->ev_erased, seen);
	/* The thread writes it for who is erasing only, and that is us. */
	err = j->erase_error;
	spin_lock(&j->j_lock);
	j->erasing = false;
	spin_unlock(&j->j_lock);
	return err;
}

void journal_set_cache_limit(struct journal *j, u64 limit)
{
	set_max_pinned(j, limit);
	journal_kick(j);
}

/* ---- abort ---- */

int journal_aborted(const struct journal *j)
{
	return atomic_load_explicit(&j->aborted, memory_order_acquire);
}

void journal_abort(struct journal *j, int error)
{
	struct jbd2_superblock *jsb = jsb_of(j);
	int none = 0, err;

	assert(error < 0);
	if (!atomic_compare_exchange_strong(&j->aborted, &none, error))
		return;
	if (error != -ESHUTDOWN)
		log_err("%s: journal: aborted, error %d; no more changes reach the disk",
			j->sb->s_id, -error);
	journal_kick(j);
	jevent_wake(&j->ev_start);
	jevent_wake(&j->ev_commit);
	if (j->ops && j->ops->on_abort)
		j->ops->on_abort(j->priv, error);
	if (error == -ESHUTDOWN)
		return;

	mutex_lock(&j->sb_lock);
	jsb->s_errno = cpu_to_be32((u32)error);
	err = jsb_write(j);
	mutex_unlock(&j->sb_lock);
	if (err)
		log_warn("%s: journal: cannot record the error: error %d", j->sb->s_id, -err);
}
