/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * writeback/bdev.h - block devices: a small table of operations
 *
 * Back ends: libaio on a raw device or an image file (aio.c), an overlay in
 * memory over another device (overlay.c, for read-only recovery), and the
 * simulated device of the tests. A volume may start at an offset in its file.
 *
 * Durability: a write that ended is durable after a later bdev_flush() that
 * succeeded, or at its end with BIO_FUA. A flush covers every write that had ended when
 * it was called.
 */
#ifndef SLUICE_WRITEBACK_BDEV_H
#define SLUICE_WRITEBACK_BDEV_H

#include "cache/super.h"
#include "writeback/bio.h"
#include <stddef.h>

struct counter_set;

struct bdev_ops {
	/* Starts all n bios; each ends through bi_end_io, errors included. Does
	 * not wait for completion (may wait for a free slot). */
	void (*submit)(struct bdev *bd, struct bio **bios, unsigned n);
	int (*flush)(struct bdev *bd);
	/* Discards [pos, pos+len); -EOPNOTSUPP if it can't. */
	int (*discard)(struct bdev *bd, u64 pos, u64 len);
	void (*close)(struct bdev *bd);
	/* Optional (may be NULL): one transfer of at most BDEV_INLINE_MAX and
	 * BIO_MAX_VECS, all aligned, done by the calling thread, which sleeps:
	 * spares a waiting thread two switches. 0 or negative errno. */
	int (*rw_now)(struct bdev *bd, enum bio_op op, u64 pos,
		      const struct iovec *iov, int nr_iov, u32 bytes, u32 flags);
	/* Optional: see bdev_release_claim(). */
	void (*release_claim)(struct bdev *bd);
	/* Optional: see bdev_go_buffered(). */
	int (*go_buffered)(struct bdev *bd);
	/* Optional, both or none: see bdev_go_writable(). */
	int (*go_writable)(struct bdev *bd, const char *own, const char **why);
	void (*go_readonly)(struct bdev *bd);
};

/* A transfer that is waited for may be one system call of so much. */
#define BDEV_INLINE_MAX (1u << 20)

/* Why page_io.c closed a bio: 512 KiB reached; the next block is elsewhere on
 * the device; elsewhere in the file, too; vector full or other io_end; nothing more
 * came. */
enum page_io_split {
	SPLIT_FULL, SPLIT_DISCONTIG, SPLIT_HOLE, SPLIT_LIMIT, SPLIT_LAST, SPLIT_NR
};

/* Of sizes up to 512 bytes, 1 KiB, 2 KiB, ... 512 KiB, 1 MiB. */
#define BDEV_HIST_NR 12

/* Numbers only, each a u64: they are kept for each CPU and added up. */
struct bdev_stats {
	struct bdev_dir_stats {
		u64 bios, bytes;    /* an inline transfer counts as a bio */
		u64 meta_bios;      /* of them metadata and journal */
		u64 meta_bytes;
		u64 inline_calls;   /* of bios: done by the thread that waits */
		u64 hist[BDEV_HIST_NR];      /* bios by size: data */
		u64 meta_hist[BDEV_HIST_NR]; /* ... and metadata */
		u64 split[SPLIT_NR];
	} dir[2];                   /* by enum bio_op */
	u64 batches;                /* arrays of bios handed to the back end */
	u64 io_submits;             /* calls of io_submit(2) */
	u64 slot_waits;             /* submitters that waited for a free slot */
	u64 flushes;
	u64 retries;                /* requests refused or cut short, tried again */
	u64 errors;                 /* bios and flushes that failed */
};

struct bdev {
	const struct bdev_ops *bd_ops; /* [const] */
	u64 bd_size;      /* bytes of the volume's range [const but for go_buffered] */
	u32 bd_sector;    /* bytes: alignment of position, length and memory [as bd_size] */
	_Atomic bool bd_readonly; /* [atomic] see bdev_go_writable() */
	bool bd_is_block; /* a block device, not an image [const] */
	char bd_name[256];   /* path for messages and as the mount's source [const] */
	struct counter_set *_Atomic bd_stats; /* NULL until something is counted [atomic] */
};

/*
 * Opens a device or image for exclusive use. offset: bytes into it where the
 * volume starts (multiple of the sector size). Sleeps.
 * -ENOENT, -EACCES, -EROFS (rw wanted, device read-only), -EBUSY (mounted, or
 * used by another daemon or loop device that is in use; *why says which),
 * -EINVAL (neither device nor regular file; offset beyond the end or not a
 * multiple of the sector size), -ENAMETOOLONG, -EAGAIN (no AIO context left).
 * why: static or thread-local text for the user, without the path, which the
 * caller puts before it; never NULL on error.
 *
 * The AIO context and the threads do not survive fork(2): open in the process
 * that will serve the volume, after it has detached.
 */
int __must_check bdev_open_aio(const char *path, bool readonly, u64 offset,
			       struct bdev **out, const char **why);
/* The name, in its lo_file_name, of a loop device that stands for an image and could be
 * written to, but is not, by who has locked the image as a reader: readers share it. */
#define BDEV_LOOP_OF_READER "(sluice, read-only)"
/*
 * Block devices only (else nothing happens): gives up the O_EXCL claim right
 * before the mount(2) of type fuseblk, which claims the device itself. The
 * flock stays. No I/O may be under way. Sleeps. If the lock cannot be carried
 * over, the claim is kept (and logged), and mount(2) will say EBUSY.
 */
void bdev_release_claim(struct bdev *bd);
/*
 * For volumes with blocks smaller than bd_sector: transfers go through the page cache of
 * the kernel from here on, and need be aligned to 512 bytes only. What is
 * durable when stays the same (fdatasync, RWF_DSYNC). At mount time, before anybody
 * relies on bd_sector or bd_size (which may grow by a part of a sector), no I/O
 * under way. 0, -EOPNOTSUPP if the back end cannot, or a negative errno.
 */
int __must_check bdev_go_buffered(struct bdev *bd);
/*
 * A device that was opened read-only is opened for writing, and claimed as by a writer;
 * reads may be under way. own: path of a loop device on the image that is ours, and no
 * reason to refuse; may be NULL. 0 (also if it is writable), -EROFS, -EACCES, -EBUSY
 * (others read it, too), with *why as for bdev_open_aio(); then nothing has changed.
 * Sleeps. One caller at a time.
 */
int __must_check bdev_go_writable(struct bdev *bd, const char *own, const char **why);
/* Takes that back: no write is under way. Others may read the volume again. */
void bdev_go_readonly(struct bdev *bd);
/* Every bio must have ended. Waits for the threads. NULL is allowed. */
void bdev_close(struct bdev *bd);

/*
 * Starts all n bios (see bdev_ops.submit). A bio outside of [0, bd_size) ends
 * with -ENXIO, a write to a read-only device with -EROFS. Position, length and
 * memory are multiples of bd_sector (asserted). The array is the caller's again on
 * return, the bios are not. May sleep for a free slot; not from a bi_end_io.
 */
void bdev_submit(struct bdev *bd, struct bio **bios, unsigned n);
/* The same for one bio which the caller will wait for anyway: if the device can,
 * this thread does the transfer, and the bio has ended on return. Sleeps. */
void bdev_submit_wait(struct bdev *bd, struct bio *bio);
/* For back ends: counts a failure, sets bi_error and calls bi_end_io. */
void bdev_end_bio(struct bdev *bd, struct bio *bio, int error);
/* 0 or negative errno. Sleeps. After one failure every later flush of the aio
 * back end fails too: what the device has lost cannot be known. */
int __must_check bdev_flush(struct bdev *bd);
/* Discards [pos, pos+len) bytes, sector aligned. -EOPNOTSUPP, -EROFS, -ENXIO, -EIO. */
int __must_check bdev_discard(struct bdev *bd, u64 pos, u64 len);
/*
 * One transfer of any length, split into bios, waited for. pos and len are
 * sector aligned (-EINVAL); memory may be unaligned (copied). flags: enum bio_flags.
 * -ENXIO beyond the end, -EROFS, -ENOMEM, -EIO or what the device said; on
 * error any part may have been transferred.
 */
int __must_check bdev_read(struct bdev *bd, u64 pos, void *buf, size_t len);
int __must_check bdev_write(struct bdev *bd, u64 pos, const void *buf, size_t len,
			    u32 flags);
int __must_check bdev_rwv(struct bdev *bd, enum bio_op op, u64 pos,
			  const struct iovec *iov, int nr_iov, u32 flags);

/* What was counted since the device was opened. */
void bdev_get_stats(struct bdev *bd, struct bdev_stats *st);
/*
 * The same as lines "name value" (histograms: "name size count size count ...",
 * sizes that occurred only), at most len bytes with the final '\0'. Bytes
 * without it.
 */
size_t bdev_stats_text(struct bdev *bd, char *buf, size_t len);
/* Adds to one field of the statistics; no lock, no shared cache line. */
void bdev_count_field(struct bdev *bd, size_t offset, u64 n);
#define bdev_count(bd, field, n) \
	bdev_count_field(bd, offsetof(struct bdev_stats, field), n)

/* Aligned memory for I/O (page aligned, multiple of the page size). */
void *io_alloc(size_t bytes);
void io_free(void *p);

/*
 * backing_ops of cache/super.h over a bdev; blocks of 2^bits bytes. Set
 * sb->s_backing to the struct, sb->s_backing_ops to &bdev_backing_ops.
 */
struct bdev_backing {
	struct bdev *bd;
	u8 blocksize_bits;
};
extern const struct backing_ops bdev_backing_ops;

/* ---- overlay: reads see patched blocks, nothing is ever written below ---- */
int __must_check bdev_overlay_create(struct bdev *lower, u32 blocksize,
				     struct bdev **out); /* owns lower */
/* Copies one block's new content into the overlay. Submitted writes go there too. */
int __must_check bdev_overlay_put(struct bdev *ov, pblk_t blk, const void *data);
/* The device below is the caller's again. Reads that were started end as usual; no more
 * may be, and bdev_close() of it comes first. */
void bdev_overlay_detach(struct bdev *ov);

#endif
