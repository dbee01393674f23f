/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/sim/simdev.h - the simulated device: memory, a log of all it was told,
 * faults, and the images that a power cut could leave
 *
 * Three objects. A sim_base is an image file in memory, shared and never
 * changed. A sim_image is a base plus the pages that differ. A simdev is a
 * bdev over a sim_image; it may record into a sim_log: every write when it is
 * submitted and when it has ended, every flush when it starts and ends, and
 * the marks that the runner sets between them. The log outlives the device.
 *
 * A device may be two: the image is split, and what is behind the split is a device of its
 * own (an external journal's), with a write cache of its own: a flush covers the
 * writes to the one it was given to. Both have one log, so that what happened before
 * what is known, and one power. Positions in the log are those in the image.
 *
 * A power cut at event n: a write submitted before n may be there in whole
 * blocks, in part (any of its blocks), or not. It is surely there if it had FUA and ended
 * before n, or ended before a flush of its device started that ended before n.
 *
 * Locks:   the device's own, a leaf; images and logs belong to one thread
 *          once the device is closed.
 * Threads: any; bios end on the device's thread or inside submit.
 */
#ifndef SLUICE_SIM_SIMDEV_H
#define SLUICE_SIM_SIMDEV_H

#include "tests/sim/rng.h"
#include "writeback/bdev.h"

#define SIM_PAGE 4096u
#define SIM_PATTERN 0xA5 /* what was on the device before mke2fs */

/* ---- images ---- */

struct sim_base {
	u64 size;
	const u8 *mem;
	u8 *useful; /* per page: not all SIM_PATTERN, saved into files */
	u32 blocksize;
};

/* Maps an image file. NULL with errno set. */
struct sim_base *sim_base_load(const char *path, u32 blocksize);
void sim_base_free(struct sim_base *base);

struct sim_image {
	const struct sim_base *base;
	u8 **page; /* NULL: the base's */
	u32 nr_pages;
};

struct sim_image *sim_image_new(const struct sim_base *base);
struct sim_image *sim_image_clone(const struct sim_image *img);
void sim_image_free(struct sim_image *img);
void sim_image_read(const struct sim_image *img, u64 pos, void *buf, u32 len);
void sim_image_write(struct sim_image *img, u64 pos, const void *buf, u32 len);
/* Bytes [from, to) into a sparse file, whole pages; those of the pattern only are left out
 * (they read as zeros) unless `whole`. 0 or -errno. */
int sim_image_save(const struct sim_image *img, const char *path, u64 from, u64 to,
		   bool whole);
/* Reads such a file back over img, to where it was. 0 or -errno. */
int sim_image_load(struct sim_image *img, const char *path, u64 from, u64 to);

/* ---- the log ---- */

enum sim_event_kind {
	SIM_SUBMIT,      /* arg: write */
	SIM_END,         /* arg: write */
	SIM_FLUSH_START, /* arg: number of the flush; arg2: 1: of the device behind the split */
	SIM_FLUSH_END,   /* the same */
	SIM_MARK,        /* arg, arg2: the runner's */
};

struct sim_event {
	enum sim_event_kind kind;
	u32 arg, arg2;
};

#define SIM_NEVER UINT32_MAX

struct sim_write {
	u64 pos;
	u32 len;
	bool fua, failed;
	bool second;     /* to the device behind the split */
	u32 submit, end; /* events */
	u32 durable;     /* event from which on it is surely there */
	u8 *data;
};

struct sim_log {
	struct sim_event *ev;
	u32 nr_ev, max_ev;
	struct sim_write *wr;
	u32 nr_wr, max_wr;
	u32 nr_flushes;
	u32 overlaps; /* writes submitted over one in flight: a bug above */
	u64 overlap_pos;
};

void sim_log_init(struct sim_log *log);
void sim_log_release(struct sim_log *log);
/* After the device was closed: fills sim_write.durable. */
void sim_log_finish(struct sim_log *log);

/* ---- the device ---- */

enum sim_fault_op {
	SIM_FAULT_NONE,
	SIM_FAULT_READ,
	SIM_FAULT_WRITE,
	SIM_FAULT_FLUSH,
	SIM_FAULT_SUBMIT, /* refused: ends with the error inside of submit */
	SIM_FAULT_NR,
};

/*
 * A bio ends whole or with an error: who is below bdev_ops finishes what was
 * cut short (writeback/aio.c; tests/unit/writeback/test_bdev.c cuts the
 * kernel's transfers short). What can be seen here of a short transfer is one whose
 * rest then fails: `partial`.
 */
struct sim_fault {
	enum sim_fault_op op;
	u32 nth;      /* counted from 0 */
	bool forever; /* and all after it */
	bool partial; /* a failing transfer has moved some of its sectors */
};

struct simdev_config {
	u64 seed;
	u64 split;        /* where the second device begins; 0: there is none */
	bool threaded;    /* bios end on a thread of the device, in any order */
	u32 delay_us;     /* of each, when threaded */
	bool now;         /* the caller's thread transfers what it waits for */
	u32 stall_ms;     /* of about one in 40, when threaded: a slow device */
	bool lying;       /* flushes and FUA do nothing, and say they did */
	u32 drop_flush;   /* one that lies, counted from 1; 0: none */
	struct sim_fault fault;
	u32 *counts;      /* when closed: how often each op was done; may be NULL */
};

struct simdev;
/* Owns img. log may be NULL, and must be there until the device is closed. */
struct bdev *simdev_create(struct sim_image *img, const struct simdev_config *cfg,
			   struct sim_log *log);
/* The device behind the split, to be closed like the first; NULL without one. */
struct bdev *simdev_second(struct bdev *bd);
/* Of the first: */
void simdev_mark(struct bdev *bd, u32 arg, u32 arg2);
/* The image stays with the caller when the device is closed. */
void simdev_keep_image(struct bdev *bd);
bool simdev_fault_hit(struct bdev *bd);

/* ---- power cuts ---- */

enum sim_cut {
	SIM_CUT_NONE,    /* nothing that is not sure */
	SIM_CUT_ALL,     /* everything submitted */
	SIM_CUT_ENDED,   /* everything that had ended */
	SIM_CUT_RANDOM,  /* each block or not */
	SIM_CUT_ONE,     /* one write alone */
	SIM_CUT_BUT_ONE, /* all but one write */
	SIM_CUT_NR,
};

/* Goes forward through a finished log. */
struct sim_crash {
	const struct sim_log *log;
	struct sim_image *sure; /* with the first `folded` writes, all sure */
	u32 folded, at;
	u32 blocksize;
};

void sim_crash_init(struct sim_crash *c, const struct sim_log *log,
		    const struct sim_base *base);
void sim_crash_release(struct sim_crash *c);
/* To right before event n (not before where it is). */
void sim_crash_seek(struct sim_crash *c, u32 n);
/* A new image. torn: writes that are not sure break at 512 bytes, but for the
 * primary superblock's. Number of writes that were in doubt in *doubt. */
struct sim_image *sim_crash_image(const struct sim_crash *c, enum sim_cut cut, bool torn,
				  struct rng *rng, u32 *doubt);

#endif
