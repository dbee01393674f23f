/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/file.c - open files: read, write, fsync, seek
 *
 * A write copies into the page cache and reserves space for blocks that have
 * none; allocation and I/O come later (writepages.c). It holds i_rwsem shared
 * when it lies inside the file and needs nothing read first; exclusively when
 * it extends the file or must bring a partly overwritten block into the cache
 * (a reader of the device and another writer must not cross there).
 *
 * What the cache can do alone is tried first, without i_rwsem: a read of
 * blocks that are all there (mapping_read_cached()), an overwrite of blocks
 * that are there and have their place or reservation (mapping_overwrite()),
 * both inside the file. One leaf lock each; the size is looked at under it.
 * What does not come through whole is done again, from its beginning, with
 * i_rwsem: so a truncation in between is before all of it. Readers of the
 * device do hold i_rwsem: a block must not be freed, and given to another
 * file, between its lookup and the end of the transfer.
 *
 * A large write whose data came in a region (cache/region.h), to blocks that are not
 * in the cache, leaves its memory there instead of copying.
 *
 * A read takes what the cache has and goes to the device for the rest, past
 * the cache: the kernel keeps clean pages already. WRITEBACK lasts until the
 * extents are converted, so a block that is not in the cache is on disk.
 *
 * Locks:   i_rwsem -> leaf locks (in mapping_*), i_data_sem (in ext4_map_*)
 */
#include "cache/region.h"
#include "cache/window.h"
#include "fs/ext4.h"
#include "fs/sim_mutation.h"
#include "lib/bitmap.h"
#include "lib/log.h"
#include "lib/wait.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Smaller pieces are copied, and what is no more than half of what its region has in
 * memory: the rest of that memory would be lost for the next. */
#define ADOPT_MIN (64u << 10)

/* Small writes here and there, to blocks that are not in the cache: so many bytes of
 * one handle, and what is dirty is written. */
#define SCATTER_BYTES (4u << 20)
#define SCATTER_MAX (64u << 10) /* of one write */

#define IDLE_MAX 16
#define IDLE_NAP_NS 1000000ull

struct sl_file {
	struct inode *inode; /* referenced */
	u32 flags;           /* enum sl_open_flags */
	struct mutex lock;   /* err_seq, cursor; RANK_NONE: nothing is taken inside
				but what readdir needs */
	errseq_t err_seq;    /* [lock] */
	struct access access[WINDOW_KINDS]; /* where it is at work; see there */
	_Atomic u64 scattered; /* bytes since the last were sent off [atomic] */
	_Atomic u64 behind;    /* where the last small write ended [atomic] */
	struct ext4_dir_cursor *cursor; /* [lock] directories */
	_Atomic bool noatime; /* [atomic] */
	struct sl_cred opener; /* [const after open] */
	bool has_opener;       /* [const after open] */
};

/* ----------------------------------------------------------- open, close */

/* Who closes a file after each MiB that he appends writes a stream all the same. */
static void stream_resume(struct sl_file *f)
{
	struct access *a = &f->access[WINDOW_WRITE];

	spin_lock(&f->inode->i_lock);
	access_resume(a, EXT4_I(f->inode)->i_stream_from,
		      EXT4_I(f->inode)->i_stream_reach);
	spin_unlock(&f->inode->i_lock);
}

static void stream_keep(struct sl_file *f)
{
	const struct access *a = &f->access[WINDOW_WRITE];

	spin_lock(&f->inode->i_lock);
	access_leave(a, &EXT4_I(f->inode)->i_stream_from,
		     &EXT4_I(f->inode)->i_stream_reach);
	spin_unlock(&f->inode->i_lock);
}

static int new_file(struct inode *inode, u32 flags, struct sl_file **out)
{
	struct sl_file *f = calloc(1, sizeof(*f));

	if (!f)
		return -ENOMEM;
	mutex_init(&f->lock, RANK_NONE);
	f->inode = inode;
	f->flags = flags;
	f->err_seq = mapping_sample_error(&inode->i_mapping);
	access_init(&f->access[WINDOW_READ], WINDOW_READ);
	access_init(&f->access[WINDOW_WRITE], WINDOW_WRITE);
	if (flags & SL_OPEN_WRITE)
		stream_resume(f);
	inode_get(inode);
	atomic_fetch_add(&EXT4_I(inode)->i_opens, 1);
	*out = f;
	return 0;
}

int sl_open(struct inode *inode, u32 flags, struct sl_file **out)
{
	struct ext4_sb *sbi = EXT4_SB(inode->i_sb);
	int err = 0;

	if (S_ISDIR(inode->i_mode))
		return -EISDIR;
	if (!S_ISREG(inode->i_mode))
		return -ENXIO;
	if (flags & SL_OPEN_WRITE) {
		err = ext4_may_write(sbi);
		if (!err && inode->i_flags & EXT4_IMMUTABLE_FL)
			err = -EPERM;
		if (!err && inode->i_flags & EXT4_APPEND_FL &&
		    (!(flags & SL_OPEN_APPEND) || flags & SL_OPEN_TRUNC))
			err = -EPERM;
		if (!err && inode->i_flags & EXT4_VERITY_FL)
			err = -EPERM;
		/* Its data would have to go through the journal. */
		if (!err && inode->i_flags & EXT4_JOURNAL_DATA_FL)
			log_ratelimited(LOG_LVL_WARN,
					"%s: inode #%u: data journalling is not done, data is ordered",
					sbi->s.s_id, inode->i_ino);
	}
	if (!err && flags & SL_OPEN_TRUNC) {
		struct stat st = { .st_size = 0 };
		u32 valid = SL_SET_SIZE;

		if (flags & SL_OPEN_KILL_SUIDGID)
			valid |= SL_KILL_SUIDGID;
		if (flags & SL_OPEN_KILL_SGID)
			valid |= SL_KILL_SGID;
		err = sl_setattr(inode, &st, valid, NULL, NULL);
	}
	return err ? err : new_file(inode, flags, out);
}

void sl_file_set_opener(struct sl_file *f, const struct sl_cred *cred)
{
	f->opener = *cred;
	f->has_opener = true;
}

void sl_file_set_noatime(struct sl_file *f, bool noatime)
{
	if (atomic_load_explicit(&f->noatime, memory_order_relaxed) != noatime)
		atomic_store_explicit(&f->noatime, noatime, memory_order_relaxed);
}

int sl_opendir(struct inode *dir, struct sl_file **out)
{
	int err;

	if (!S_ISDIR(dir->i_mode))
		return -ENOTDIR;
	err = new_file(dir, 0, out);
	if (err)
		return err;
	(*out)->cursor = ext4_dir_cursor_new();
	if (!(*out)->cursor) {
		sl_release(*out);
		return -ENOMEM;
	}
	return 0;
}

/* The last handle is closed: nobody swaps to its blocks any more. Whoever asks where they
 * are has opened the file before. */
static void forget_bmap(struct ext4_inode *ei)
{
	if (likely(!atomic_load(&ei->i_bmapped)))
		return;
	rwsem_down_write(&ei->vfs.i_rwsem);
	if (!atomic_load(&ei->i_opens))
		atomic_store(&ei->i_bmapped, false);
	rwsem_up_write(&ei->vfs.i_rwsem);
}

void sl_release(struct sl_file *f)
{
	struct ext4_inode *ei = EXT4_I(f->inode);
	bool flush = false;

	/* Write-out makes a window again, no larger than what is still dirty. */
	if (atomic_fetch_sub(&ei->i_opens, 1) == 1) {
		ext4_release_window(ext4_sb_of(ei), f->inode->i_ino);
		forget_bmap(ei);
	}
	ext4_note_dying(ei);
	if (f->flags & SL_OPEN_WRITE && f->inode->i_nlink) {
		rwsem_down_write(&f->inode->i_rwsem);
		flush = ei->i_flush_on_close;
		ei->i_flush_on_close = false;
		rwsem_up_write(&f->inode->i_rwsem);
	}
	/* Replaced by truncation: the new content follows at once (brief 12.7). */
	if (flush) {
		struct wb_control wbc = { .start = 0, .end = EXT4_LBLK_END };

		(void)ext4_write_inode(f->inode, &wbc); /* fsync reports */
	}
	if (f->flags & SL_OPEN_WRITE)
		stream_keep(f);
	access_end(&f->access[WINDOW_READ], &f->inode->i_mapping);
	access_end(&f->access[WINDOW_WRITE], &f->inode->i_mapping);
	ext4_dir_cursor_free(f->cursor);
	mutex_destroy(&f->lock);
	inode_put(f->inode);
	free(f);
}

struct inode *sl_file_inode(struct sl_file *f)
{
	return f->inode;
}

u32 ext4_file_flags(const struct sl_file *f)
{
	return f->flags;
}

bool ext4_file_syncs(const struct sl_file *f)
{
	return EXT4_SB(f->inode->i_sb)->opts.sync ||
	       f->inode->i_flags & EXT4_SYNC_FL ||
	       f->flags & (SL_OPEN_SYNC | SL_OPEN_DSYNC);
}

static int check_errors(struct sl_file *f)
{
	struct access *a = &f->access[WINDOW_WRITE];
	errseq_t told;
	int err;

	mutex_lock(&f->lock);
	told = access_error_begin(a);
	err = mapping_check_error(&f->inode->i_mapping, &f->err_seq);
	access_error_told(a, told);
	mutex_unlock(&f->lock);
	return err;
}

int sl_flush(struct sl_file *f)
{
	int err = 0;

	if (!S_ISREG(f->inode->i_mode))
		return 0;
	/* Told, but not as seen: few look at the result of close(2), and a
	 * descriptor dup'ed or inherited must still learn it from fsync. Only
	 * to who may have written what was lost; fsync tells everybody. */
	if (!(f->flags & SL_OPEN_WRITE) ||
	    !access_error_concerns(&f->access[WINDOW_WRITE]))
		return 0;
	mutex_lock(&f->lock);
	err = mapping_peek_error(&f->inode->i_mapping, f->err_seq);
	mutex_unlock(&f->lock);
	return err;
}

/* ---------------------------------------------------------- directories */

struct emit_ctx {
	int (*emit)(void *priv, const struct sl_dirent *de);
	void *priv;
};

static int emit_entry(void *priv, const char *name, u32 len, ino_nr ino, u8 ftype,
		      u64 next)
{
	static const u32 types[EXT4_FT_MAX] = {
		[EXT4_FT_REG_FILE] = S_IFREG, [EXT4_FT_DIR] = S_IFDIR,
		[EXT4_FT_CHRDEV] = S_IFCHR,   [EXT4_FT_BLKDEV] = S_IFBLK,
		[EXT4_FT_FIFO] = S_IFIFO,     [EXT4_FT_SOCK] = S_IFSOCK,
		[EXT4_FT_SYMLINK] = S_IFLNK,
	};
	struct emit_ctx *ctx = priv;
	struct sl_dirent de = {
		.name = name,
		.namelen = len,
		.ino = ino,
		.type = ftype < EXT4_FT_MAX ? types[ftype] : 0,
		.next = next,
	};

	return ctx->emit(ctx->priv, &de);
}

/* Orders nothing: a flag of the handle, for the handle's own reads. */
static void file_accessed(struct sl_file *f)
{
	if (!atomic_load_explicit(&f->noatime, memory_order_relaxed))
		ext4_touch_atime(f->inode);
}

int sl_readdir(struct sl_file *f, u64 pos,
	       int (*emit)(void *priv, const struct sl_dirent *de), void *priv)
{
	struct emit_ctx ctx = { emit, priv };
	int err;

	if (!S_ISDIR(f->inode->i_mode))
		return -ENOTDIR;
	budget_throttle(f->inode->i_sb->s_budget);
	mutex_lock(&f->lock);
	rwsem_down_read(&f->inode->i_rwsem);
	/* A removed directory is empty. */
	err = f->inode->i_nlink ? ext4_readdir(EXT4_I(f->inode), f->cursor, &pos,
					       emit_entry, &ctx)
				: 0;
	rwsem_up_read(&f->inode->i_rwsem);
	mutex_unlock(&f->lock);
	if (!err)
		file_accessed(f);
	return err;
}

/* ------------------------------------------------------------------ read */

static bool earlier(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec < b->tv_sec ||
	       (a->tv_sec == b->tv_sec && a->tv_nsec < b->tv_nsec);
}

void ext4_touch_atime(struct inode *inode)
{
	struct ext4_sb *sbi = EXT4_SB(inode->i_sb);
	struct timespec now;
	bool due;

	if (atomic_load_explicit(&sbi->noatime, memory_order_relaxed) || !sbi->journal ||
	    atomic_load(&sbi->s.s_rdonly) || inode->i_flags & EXT4_NOATIME_FL ||
	    atomic_load_explicit(&sbi->quiet, memory_order_relaxed) ||
	    (sbi->opts.nodiratime && S_ISDIR(inode->i_mode)))
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	if (sbi->opts.atime == SL_ATIME_RELATIME &&
	    now.tv_sec < atomic_load_explicit(&EXT4_I(inode)->i_atime_fresh,
					      memory_order_relaxed))
		return;
	if (!sbi->nsec_times)
		now.tv_nsec = 0;
	inode_attrs_lock(inode);
	due = sbi->opts.atime == SL_ATIME_STRICT ||
	      !earlier(&inode->i_mtime, &inode->i_atime) ||
	      !earlier(&inode->i_ctime, &inode->i_atime) ||
	      now.tv_sec - inode->i_atime.tv_sec >= 24 * 3600;
	if (due)
		inode->i_atime = now;
	else
		atomic_store_explicit(&EXT4_I(inode)->i_atime_fresh,
				      inode->i_atime.tv_sec + 24 * 3600,
				      memory_order_relaxed);
	inode_attrs_unlock(inode);
	if (due)
		inode_mark_dirty(inode, I_DIRTY_INODE);
}

/* [pos, pos+len) of one written extent, through a bounce buffer: not aligned. */
static int read_bounce(struct ext4_sb *sbi, u64 dev_pos, u8 *buf, u32 len)
{
	u32 unit = sbi->s.s_blocksize;
	u64 start = ALIGN_DOWN(dev_pos, (u64)unit);
	u64 end = ALIGN_UP(dev_pos + len, (u64)unit);
	u8 *tmp = io_alloc((size_t)(end - start));
	int err;

	if (!tmp)
		return -ENOMEM;
	err = bdev_read(sbi->bdev, start, tmp, (size_t)(end - start));
	if (!err)
		memcpy(buf, tmp + (dev_pos - start), len);
	io_free(tmp);
	return err;
}

static int read_extent(struct ext4_sb *sbi, u64 dev_pos, u8 *buf, u32 len)
{
	u32 bs = sbi->s.s_blocksize;
	u32 head = 0, body;
	int err = 0;

	if (dev_pos & (bs - 1) || (uintptr_t)buf & (sbi->bdev->bd_sector - 1))
		head = (uintptr_t)buf & (sbi->bdev->bd_sector - 1)
			       ? len
			       : min_of(len, bs - (u32)(dev_pos & (bs - 1)));
	if (head)
		err = read_bounce(sbi, dev_pos, buf, head);
	dev_pos += head;
	buf += head;
	len -= head;
	/* The head may have moved buf off its alignment. */
	if (!err && len && (uintptr_t)buf & (sbi->bdev->bd_sector - 1))
		return read_bounce(sbi, dev_pos, buf, len);
	body = len & ~(bs - 1);
	if (!err && body)
		err = bdev_read(sbi->bdev, dev_pos, buf, body);
	if (!err && len > body)
		err = read_bounce(sbi, dev_pos + body, buf + body, len - body);
	return err;
}

int ext4_read_device(struct ext4_inode *ei, u64 pos, u8 *buf, u32 len)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	u8 bits = sbi->s.s_blocksize_bits;
	u32 mask = sbi->s.s_blocksize - 1;

	while (len) {
		lblk_t lblk = (lblk_t)(pos >> bits);
		lblk_t last = (lblk_t)((pos + len - 1) >> bits);
		struct ext4_map m = { .lblk = lblk, .len = last - lblk + 1 };
		u64 bytes;
		u32 n;
		int err = ext4_map_blocks(ei, &m);

		if (err)
			return err;
		bytes = ((u64)m.len << bits) - (pos & mask);
		n = (u32)min_of(bytes, (u64)len);
		if (m.flags & EXT4_MAP_MAPPED)
			err = read_extent(sbi, (m.pblk << bits) + (pos & mask),
					  buf, n);
		else
			memset(buf, 0, n);
		if (err)
			return err;
		pos += n;
		buf += n;
		len -= n;
	}
	return 0;
}

/*
 * -o datacache=full: what was read from the device goes into the cache, whole
 * blocks and the last one of the file. gen is from before the blocks were looked
 * up. It only saves a later read: no memory, or a writer that was faster, end it.
 */
static void keep_read(struct inode *inode, u64 pos, const u8 *data, u32 len,
		      u64 size, u64 gen)
{
	u32 bs = inode->i_sb->s_blocksize;
	u32 skip = (u32)(ALIGN_UP(pos, (u64)bs) - pos);

	if (skip >= len)
		return;
	pos += skip;
	data += skip;
	len -= skip;
	if (pos + len < size)
		len = ALIGN_DOWN(len, bs);
	while (len) {
		u32 n = len;

		if (mapping_fill_run_since(&inode->i_mapping, (lblk_t)(pos / bs),
					   data, &n, gen))
			return;
		pos += n;
		data += n;
		len -= n;
	}
}

/* Without i_rwsem, all or nothing; *len is cut at the end of the file. */
static bool read_cached(struct inode *inode, void *buf, size_t *len, u64 pos)
{
	u64 size = atomic_load(&inode->i_size);
	size_t n;

	if (pos >= size || EXT4_I(inode)->i_inline)
		return false;
	n = (size_t)min_of((u64)*len, size - pos);
	if (n > UINT32_MAX ||
	    !mapping_read_cached(&inode->i_mapping, pos, buf, (u32)n))
		return false;
	*len = n;
	return true;
}

ssize_t sl_read(struct sl_file *f, void *buf, size_t len, u64 pos)
{
	struct inode *inode = f->inode;
	u8 *p = buf;
	size_t done = 0;
	u64 size;
	int err = 0;

	if (!S_ISREG(inode->i_mode))
		return -EISDIR;
	if (!len)
		return 0;
	if (read_cached(inode, buf, &len, pos)) {
		access_note(&f->access[WINDOW_READ], &inode->i_mapping, pos, len);
		ext4_read_ahead(inode, &f->access[WINDOW_READ], pos, len);
		file_accessed(f);
		return (ssize_t)len;
	}
	if (inode->i_sb->s_data_full)
		budget_throttle(inode->i_sb->s_budget);
	rwsem_down_read(&inode->i_rwsem);
	size = atomic_load(&inode->i_size);
	if (pos >= size)
		len = 0;
	else
		len = (size_t)min_of((u64)len, size - pos);
	access_note(&f->access[WINDOW_READ], &inode->i_mapping, pos, len);
	if (EXT4_I(inode)->i_inline && len) {
		ext4_inline_read(EXT4_I(inode), pos, p, len);
		done = len;
	}
	while (done < len && !err) {
		bool cached;
		u32 n = (u32)min_of(len - done, (size_t)1 << 30);
		u64 gen = mapping_generation(&inode->i_mapping);

		n = mapping_read(&inode->i_mapping, pos + done, p + done, n,
				 &cached);
		if (!cached)
			err = ext4_read_device(EXT4_I(inode), pos + done,
					       p + done, n);
		if (!cached && !err && inode->i_sb->s_data_full)
			keep_read(inode, pos + done, p + done, n, size, gen);
		if (!err)
			done += n;
	}
	rwsem_up_read(&inode->i_rwsem);
	if (err && !done)
		return err;
	ext4_read_ahead(inode, &f->access[WINDOW_READ], pos, done);
	file_accessed(f);
	return (ssize_t)done;
}

/* ----------------------------------------------------------------- write */

struct write_ctx {
	struct ext4_inode *ei;
	struct sl_file *file;
	struct access *access; /* of the handle */
	u8 *src;
	struct region *region; /* src may be taken over out of this; or NULL */
	u64 pos;
	size_t left;
	bool exclusive;
	bool root;
	bool keep_times;
	bool placed; /* the last piece had its place on disk before */
};

/* Blocks of [lblk, lblk+nr) that have a place on disk; returns how many of the
 * unknown ones have none, or an error. */
static s64 look_up(struct ext4_inode *ei, lblk_t lblk, u32 nr, const u64 *unknown,
		   u64 *mapped)
{
	u32 holes = 0;

	memset(mapped, 0, LEAF_WORDS * sizeof(u64));
	for (u32 i = 0; i < nr;) {
		struct ext4_map m;
		int err;

		if (!(unknown[i / 64] >> (i % 64) & 1)) {
			i++;
			continue;
		}
		m = (struct ext4_map){ .lblk = lblk + i, .len = nr - i };
		err = ext4_map_blocks(ei, &m);
		if (err)
			return err;
		for (u32 k = 0; k < m.len; k++, i++) {
			bool is_unknown = unknown[i / 64] >> (i % 64) & 1;

			if (m.flags)
				mapped[i / 64] |= 1ull << (i % 64);
			else if (is_unknown)
				holes++;
		}
	}
	return holes;
}

/* Space for n holes in [lblk, lblk+nr): at write time, so that the writer learns of
 * ENOSPC, and of EFBIG (but for what others who write to the file are promised now). */
static int reserve(struct ext4_inode *ei, lblk_t lblk, u32 nr, u32 n, bool root)
{
	int err = 0;

	if (!n)
		return 0;
	if (!(ei->vfs.i_flags & EXT4_EXTENTS_FL))
		err = ext4_ind_prepare(ei, lblk, nr, root);
	else
		err = ext4_may_have(ei, n + (u64)atomic_load(&ei->vfs.i_mapping.m_nr_delayed));
	return err ? err : ext4_reserve_blocks(ext4_sb_of(ei), n, root);
}

/*
 * -o nodelalloc, and bigalloc: places for all holes of [lblk, lblk+nr) now, as unwritten
 * extents, so all that follows is as for a file that was preallocated: the data is
 * ordered before what makes it visible. What was allocated before an
 * error stays with the file, like any preallocation. A block map has no such
 * extents: its blocks are always allocated at write-out.
 */
static int allocate_now(struct ext4_inode *ei, lblk_t lblk, u32 nr, bool root)
{
	lblk_t end = lblk + nr;
	int err = 0;

	while (!err && lblk < end)
		err = ext4_preallocate(ei, &lblk, end, root);
	return err;
}

/* Must [pos, pos+len) be written with i_rwsem exclusive to fill block edges? */
static bool edge_absent(struct mapping *m, u64 pos, u32 len, u32 bs)
{
	u64 unknown[LEAF_WORDS], absent[LEAF_WORDS];
	lblk_t first = (lblk_t)(pos / bs), last = (lblk_t)((pos + len - 1) / bs);
	bool head = pos % bs != 0, tail = (pos + len) % bs != 0;

	if (head || (tail && first == last)) {
		mapping_query(m, first, 1, unknown, absent);
		if (absent[0] & 1)
			return true;
	}
	if (tail && last != first) {
		mapping_query(m, last, 1, unknown, absent);
		if (absent[0] & 1)
			return true;
	}
	return false;
}

static int fill_edges(struct ext4_inode *ei, u64 pos, u32 len, u32 bs)
{
	lblk_t first = (lblk_t)(pos / bs), last = (lblk_t)((pos + len - 1) / bs);
	int err = 0;

	if (pos % bs || (first == last && (pos + len) % bs))
		err = ext4_fill_block(ei, first);
	if (!err && last != first && (pos + len) % bs)
		err = ext4_fill_block(ei, last);
	return err;
}

/* The region, if the piece is worth it: large, and no block of it in the cache but
 * perhaps the last, which may have been brought in to be completed. */
static struct region *adopts(const struct write_ctx *w, const u64 *absent, u32 nr,
			     u32 len)
{
	if (len < ADOPT_MIN || bm_find_clear(absent, 0, nr - 1) < nr - 1)
		return NULL;
	return w->region;
}

/* One piece inside one leaf. Bytes written, -ENOLCK: needs the exclusive lock. */
static s64 write_piece(struct write_ctx *w, u32 len)
{
	struct ext4_inode *ei = w->ei;
	struct ext4_sb *sbi = ext4_sb_of(ei);
	struct mapping *m = &ei->vfs.i_mapping;
	u32 bs = sbi->s.s_blocksize;
	lblk_t first = (lblk_t)(w->pos / bs);
	u32 nr = (u32)((w->pos + len - 1) / bs) - first + 1;
	u64 unknown[LEAF_WORDS], mapped[LEAF_WORDS], absent[LEAF_WORDS];
	s64 holes = 0, n;
	u32 reserved;
	int err;

	if (edge_absent(m, w->pos, len, bs)) {
		if (!w->exclusive)
			return -ENOLCK;
		err = fill_edges(ei, w->pos, len, bs);
		if (err)
			return err;
	}
	if (mapping_query(m, first, nr, unknown, absent))
		holes = look_up(ei, first, nr, unknown, mapped);
	else
		memset(mapped, 0, sizeof(mapped));
	if (holes < 0)
		return holes;
	w->placed = !holes;
	if (holes && (sbi->opts.nodelalloc || sbi->cluster_bits) &&
	    ei->vfs.i_flags & EXT4_EXTENTS_FL) {
		err = allocate_now(ei, first, nr, w->root);
		if (!err) { /* found by the next look, or by another's */
			memset(mapped, 0xff, sizeof(mapped));
			holes = 0;
		}
	} else {
		err = reserve(ei, first, nr, (u32)holes, w->root);
	}
	if (err == -ENOSPC && holes > 1 && len > bs) {
		/* As much as there is room for: a block at a time near the end. */
		return write_piece(w, min_of(len, bs - (u32)(w->pos % bs)));
	}
	if (err)
		return err;
	reserved = (u32)holes;
	n = mapping_write_region(m, w->pos, adopts(w, absent, nr, len), w->src, len,
				 mapped, &reserved);
	if (reserved)
		ext4_release_reserved(sbi, reserved);
	return n;
}

/* Times and state after [pos, pos+len) came in; the size grew with it. */
static void wrote(const struct write_ctx *w, u64 pos, u64 len)
{
	struct ext4_inode *ei = w->ei;
	struct inode *inode = &ei->vfs;
	lblk_t start, end;
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (!ext4_sb_of(ei)->nsec_times)
		now.tv_nsec = 0;
	inode_attrs_lock(inode);
	if (!w->keep_times)
		inode->i_mtime = inode->i_ctime = now;
	inode->i_version++;
	atomic_store_explicit(&ei->i_atime_fresh, 0, memory_order_relaxed);
	inode_attrs_unlock(inode);
	inode_mark_dirty(inode, I_DIRTY_PAGES | I_DIRTY_INODE);
	if (access_behind(w->access, &inode->i_mapping, pos, len, &start, &end))
		flusher_behind(ext4_sb_of(ei)->flusher, inode, start, end);
}

/*
 * Write-behind of random writes, so that a device with nothing to do begins before an
 * fsync, or the flusher's mark, has all of it wait. Only what was not in the cache is
 * counted: it would have to be written before its memory can be used again in any
 * case. Blocks that are written to again and again are found in the cache, and start
 * nothing; so none goes out more than once for each time that it came in, and once
 * more. Nor are holes counted: what fills them may yet become one long run. Streams
 * have their own way (access_behind()). Counts may be off between threads, which
 * moves the moment a little.
 */
static void wrote_fresh(const struct write_ctx *w, u64 pos, u64 len)
{
	struct ext4_inode *ei = w->ei;
	struct sl_file *f = w->file;
	u64 before = atomic_load_explicit(&f->behind, memory_order_relaxed), sum;

	atomic_store_explicit(&f->behind, pos + len, memory_order_relaxed);
	if (len > SCATTER_MAX || pos == before)
		return;
	sum = atomic_load_explicit(&f->scattered, memory_order_relaxed) + len;
	if (sum >= SCATTER_BYTES) {
		sum = 0;
		flusher_behind(ext4_sb_of(ei)->flusher, &ei->vfs, 0,
			       EXT4_LBLK_END);
	}
	atomic_store_explicit(&f->scattered, sum, memory_order_relaxed);
}

/* Without i_rwsem, all or nothing (what was written all the same is written
 * once more by who does it the other way). */
static bool overwrite_cached(const struct write_ctx *w)
{
	struct ext4_inode *ei = w->ei;
	u32 leaf_bytes = LEAF_BLOCKS * ext4_sb_of(ei)->s.s_blocksize;
	u64 end = w->pos + w->left;
	size_t done = 0;
	u32 len, n;

	if (end > atomic_load(&ei->vfs.i_size) || atomic_load(&ei->i_shifting))
		return false;
	do {
		u64 pos = w->pos + done;

		len = (u32)min_of((u64)leaf_bytes - pos % leaf_bytes, end - pos);
		n = mapping_overwrite(&ei->vfs.i_mapping, pos, w->src + done,
				      len, end);
		done += n;
	} while (n == len && done < w->left);
	if (done)
		wrote(w, w->pos, done);
	if (done && done < w->left)
		mapping_counter_add(ei->vfs.i_sb, MAPPING_RETRIES, 1);
	if (done)
		mapping_counter_add(ei->vfs.i_sb, MAPPING_COPIED, done);
	return done == w->left;
}

/* i_rwsem held as w says. Bytes written; *err: why it stopped. */
static size_t write_locked(struct write_ctx *w, int *err)
{
	struct ext4_inode *ei = w->ei;
	u32 leaf_bytes = LEAF_BLOCKS * ext4_sb_of(ei)->s.s_blocksize;
	size_t total = 0;
	int idle = 0;

	*err = 0;
	while (w->left) {
		u32 room = leaf_bytes - (u32)(w->pos % leaf_bytes);
		u32 len = (u32)min_of((size_t)room, w->left);
		s64 n = write_piece(w, len);

		if (n < 0) {
			*err = (int)n;
			break;
		}
		/*
		 * Lost a race with write-out, reclaim or another writer: look
		 * again; in the long run the exclusive lock settles it. Then
		 * only reclaim is left, which may take a block between its
		 * coming and its use: a moment later it has enough.
		 */
		idle = n ? 0 : idle + 1;
		if (idle > IDLE_MAX && !w->exclusive) {
			*err = -ENOLCK;
			break;
		}
		if (idle > IDLE_MAX)
			(void)wait_event_deadline(&idle, false,
						  clock_mono_ns() + IDLE_NAP_NS);
		if (n)
			wrote(w, w->pos, (u64)n);
		if (n && w->placed)
			wrote_fresh(w, w->pos, (u64)n);
		w->pos += (u64)n;
		w->src += n;
		w->left -= (size_t)n;
		total += (size_t)n;
	}
	return total;
}

/* The mode is in w: beyond what clang can follow. */
static NO_THREAD_SAFETY void lock_for(struct write_ctx *w)
{
	struct inode *inode = &w->ei->vfs;

	for (;;) {
		u64 size;

		if (w->exclusive) {
			rwsem_down_write(&inode->i_rwsem);
			return;
		}
		rwsem_down_read(&inode->i_rwsem);
		size = atomic_load(&inode->i_size);
		if (w->pos + w->left <= size)
			return;
		rwsem_up_read(&inode->i_rwsem);
		w->exclusive = true;
	}
}

static NO_THREAD_SAFETY void unlock_after(struct write_ctx *w)
{
	if (w->exclusive)
		rwsem_up_write(&w->ei->vfs.i_rwsem);
	else
		rwsem_up_read(&w->ei->vfs.i_rwsem);
}

int ext4_kill_suidgid(struct ext4_inode *ei, bool foreign)
{
	struct stat st = { 0 };
	u32 mode = ei->vfs.i_mode;

	if (!(mode & S_ISUID) &&
	    !(mode & S_ISGID && (foreign || mode & S_IXGRP)))
		return 0;
	return sl_setattr(&ei->vfs, &st,
			  SL_KILL_SUIDGID | (foreign ? SL_KILL_SGID : 0), NULL,
			  NULL);
}

int ext4_write_allowed(struct ext4_inode *ei, u64 pos, u64 len)
{
	int err = ext4_may_write(ext4_sb_of(ei));

	if (err)
		return err;
	if (!S_ISREG(ei->vfs.i_mode))
		return -EINVAL;
	if (ei->vfs.i_flags & EXT4_IMMUTABLE_FL)
		return -EPERM;
	if (pos >= ext4_max_size(ei) || pos + len < pos)
		return -EFBIG;
	return 0;
}

/* Through the page cache. Bytes written; *err: why it stopped. */
static size_t write_cached(struct write_ctx *w, int *err)
{
	struct inode *inode = &w->ei->vfs;
	struct ext4_sb *sbi = ext4_sb_of(w->ei);
	size_t done = 0;
	int tries = 0;

	for (;;) {
		budget_throttle(sbi->s.s_budget);
		balance_dirty(sbi->flusher, inode, w->left);
		*err = 0;
		if (!done && !w->exclusive && overwrite_cached(w))
			return w->left;
		lock_for(w);
		if (w->exclusive && w->pos > inode->i_size)
			*err = ext4_zero_tail(w->ei, inode->i_size);
		if (!*err)
			done += write_locked(w, err);
		unlock_after(w);
		if (*err == -ENOLCK)
			w->exclusive = true;
		/* Space may be waiting for write-out, a deletion or a commit. */
		if (*err == -ENOSPC && tries++ < 3 &&
		    (ext4_wait_deletions(sbi) || tries == 1) &&
		    !journal_force_commit(sbi->journal)) {
			ext4_discard_wait(sbi);
			*err = -ENOLCK;
		}
		if (*err != -ENOLCK)
			return done;
	}
}

/* Who hands on what was written before is not who wrote it. */
static const struct sl_cred *writer_of(const struct sl_file *f, u32 flags,
				       const struct sl_cred *cred)
{
	return flags & SL_WRITE_DELAYED && f->has_opener ? &f->opener : cred;
}

ssize_t sl_write(struct sl_file *f, const void *buf, size_t len, u64 pos, u32 flags,
		 const struct sl_cred *cred)
{
	/* Only a region's memory is ever written to. */
	return sl_write_region(f, NULL, (void *)buf, len, pos, flags, cred);
}

ssize_t sl_write_region(struct sl_file *f, struct region *region, void *buf, size_t len,
			u64 pos, u32 flags, const struct sl_cred *cred)
{
	struct inode *inode = f->inode;
	struct ext4_inode *ei = EXT4_I(inode);
	struct ext4_sb *sbi = ext4_sb_of(ei);
	struct write_ctx w = { .ei = ei,
			       .file = f,
			       .access = &f->access[WINDOW_WRITE],
			       .src = buf,
			       .region = region,
			       .pos = pos,
			       .root = ext4_is_privileged(sbi, writer_of(f, flags, cred)),
			       .keep_times = flags & SL_WRITE_KEEP_TIMES };
	size_t done = 0;
	int err = ext4_write_allowed(ei, pos, len);

	if (unlikely(err == -EPERM) && flags & SL_WRITE_DELAYED)
		err = pos < ext4_max_size(ei) ? 0 : -EFBIG;
	if (err || !len)
		return err;
	if (unlikely(ei->i_inline || ext4_extra_is_small(ei))) {
		rwsem_down_write(&inode->i_rwsem);
		err = ext4_inline_convert(ei);
		if (!err)
			ext4_extra_grow(ei);
		rwsem_up_write(&inode->i_rwsem);
		if (err)
			return err;
	}
	w.left = (size_t)min_of((u64)len, ext4_max_size(ei) - pos);
	if (region && 2 * w.left < region_resident(region))
		w.region = NULL;
	if (flags & SL_WRITE_KILL_SUIDGID) {
		err = ext4_kill_suidgid(ei, flags & SL_WRITE_KILL_SGID);
		if (err)
			return err;
	}
	/* Before the data is there: see access_note(). */
	access_note(w.access, &inode->i_mapping, pos, w.left);
	if (flags & SL_WRITE_DIRECT) {
		budget_throttle(sbi->s.s_budget);
		done = ext4_direct_write(ei, buf, w.left, pos, w.root,
					 w.keep_times, &err);
		w.src += done;
		w.pos += done;
		w.left -= done;
	}
	/* For want of space or memory: the usual way has ways to find some. */
	if (w.left && (!err || err == -ENOSPC || err == -ENOMEM))
		done += write_cached(&w, &err);
	if (done && ext4_file_syncs(f)) {
		int err2 = sl_fsync(f, !(f->flags & SL_OPEN_SYNC));

		if (err2)
			return err2;
	}
	return done ? (ssize_t)done : err;
}

/* ----------------------------------------------------------------- fsync */

int sl_fsync(struct sl_file *f, bool datasync)
{
	struct inode *inode = f->inode;
	struct ext4_inode *ei = EXT4_I(inode);
	struct ext4_sb *sbi = ext4_sb_of(ei);
	bool flushed = false;
	int err = 0, err2;

	if (!sbi->journal)
		return 0;
	if (atomic_load(&sbi->aborted))
		return atomic_load(&sbi->shut_down) ? -EIO : -EROFS;
	/* A directory's names are its data. */
	if (S_ISDIR(inode->i_mode))
		datasync = false;
	if (S_ISREG(inode->i_mode) || atomic_load(&inode->i_state) & I_DIRTY)
		err = ext4_sync_inode(ei, datasync);
	/* Also what was written by others but not yet committed. */
	err2 = journal_commit_wait(sbi->journal,
				   datasync ? atomic_load(&ei->i_datasync_tid)
					    : atomic_load(&ei->i_sync_tid),
				   &flushed);
	err = err ? err : err2;
	if (!err2 && !flushed && !SIM_MUTATION(SIM_NO_FLUSH_IN_FSYNC)) {
		err2 = bdev_flush(sbi->bdev);
		err = err ? err : err2;
	}
	err2 = check_errors(f);
	return err2 ? err2 : err;
}

/* ------------------------------------------------------------------ seek */

/*
 * Is the block at lblk data? *len: for how many blocks at least (> 0). Holes and
 * preallocated blocks may have data on its way. The marks are looked at before the
 * extents: write-out changes these first, so what is neither dirty nor on its
 * way has its extent by then. The other way round, a block whose write-out ends in
 * between would be neither. *dirty: the first marked block after those seen to
 * have no mark; anything up to lblk at first.
 */
static int classify(struct ext4_inode *ei, lblk_t lblk, lblk_t end, lblk_t *dirty,
		    bool *data, u32 *len)
{
	struct ext4_map m = { .lblk = lblk };
	int err;

	if (*dirty <= lblk)
		*dirty = mapping_next_dirty(&ei->vfs.i_mapping, lblk, end);
	*data = *dirty == lblk;
	*len = 1;
	if (*data)
		return 0;
	m.len = *dirty - lblk;
	err = ext4_map_blocks(ei, &m);
	*data = m.flags & EXT4_MAP_MAPPED;
	*len = m.len;
	return err;
}

s64 sl_lseek(struct sl_file *f, u64 off, int whence)
{
	struct inode *inode = f->inode;
	struct ext4_inode *ei = EXT4_I(inode);
	u32 bs = inode->i_sb->s_blocksize;
	lblk_t lblk, end, dirty = 0;
	s64 result = -ENXIO;
	u64 size;
	int err = 0;

	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return -EINVAL;
	rwsem_down_read(&inode->i_rwsem);
	spin_lock(&inode->i_lock);
	size = inode->i_size;
	spin_unlock(&inode->i_lock);
	if (off >= size || !S_ISREG(inode->i_mode))
		goto out;
	if (ei->i_inline) { /* all data, no hole but the end */
		result = (s64)(whence == SEEK_DATA ? off : size);
		goto out;
	}
	lblk = (lblk_t)(off / bs);
	end = (lblk_t)DIV_ROUND_UP(size, (u64)bs);
	while (lblk < end) {
		bool data;
		u32 len;

		err = classify(ei, lblk, end, &dirty, &data, &len);
		if (err)
			goto out;
		if (data == (whence == SEEK_DATA)) {
			result = (s64)max_of((u64)lblk * bs, off);
			goto out;
		}
		lblk += len;
	}
	if (whence == SEEK_HOLE)
		result = (s64)size;
out:
	rwsem_up_read(&inode->i_rwsem);
	return err ? err : result;
}

/* Pieces of an extent tree may go on where the one before ends: asked block by block. */
static int find_run(struct ext4_inode *ei, lblk_t lblk, lblk_t end, pblk_t *first)
{
	*first = 0;
	for (lblk_t b = lblk; b < end; b++) {
		struct ext4_map m = { .lblk = b, .len = 1 };
		int err = ext4_map_blocks(ei, &m);

		if (err)
			return err;
		if (!(m.flags & (EXT4_MAP_MAPPED | EXT4_MAP_UNWRITTEN)) ||
		    (b > lblk && m.pblk != *first + (b - lblk))) {
			*first = 0;
			return 0;
		}
		if (b == lblk)
			*first = m.pblk;
	}
	return 0;
}

int sl_bmap(struct inode *inode, u64 pos, u32 len, u64 *where)
{
	struct ext4_inode *ei = EXT4_I(inode);
	u32 bs = inode->i_sb->s_blocksize;
	u64 end = DIV_ROUND_UP(pos + len, (u64)bs);
	pblk_t first = 0;
	int err = 0;

	*where = 0;
	if (!S_ISREG(inode->i_mode) || !len || pos + len < pos ||
	    pos + len > ext4_max_size(ei))
		return 0;
	rwsem_down_read(&inode->i_rwsem);
	if (!ei->i_inline) {
		/* From here on no block is moved (relocate.c). */
		atomic_store(&ei->i_bmapped, true);
		/* A block that is delayed has no place before. */
		err = ext4_write_range(ei, (lblk_t)(pos / bs), (lblk_t)end);
		if (!err)
			err = find_run(ei, (lblk_t)(pos / bs), (lblk_t)end, &first);
	}
	rwsem_up_read(&inode->i_rwsem);
	if (!err && first)
		*where = first * bs + pos % bs;
	return err;
}
