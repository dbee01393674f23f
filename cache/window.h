/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/window.h - windows: where in a file its open handles are at work
 *
 * Each open handle that moves more than a little has up to two windows, one
 * for what it reads and one for what it writes: ranges of blocks, aligned to
 * 2 MiB, in an interval tree of the mapping. The tree is guarded by
 * i_mmap_rwsem. Only who inserts, removes or moves a window, or changes
 * several so that it must look like one step, takes it exclusively; who looks
 * which windows meet a range shares it, and what he changes in a window has a
 * rule of its own.
 *
 * The rules, numbered as in the comments of window.c:
 *   W1  exclusive: insert, remove, change of bounds, and what must look atomic
 *       to walkers (truncation below a window). Shared: everything that walks.
 *   W2  walkers do not rely on excluding each other: marks are atomic, what they
 *       reach beyond a window has its own lock.
 *   W3  order: i_data_sem -> i_mmap_rwsem -> leaf lock -> i_lock. Reclaim comes
 *       from a leaf lock, by trylock, and passes over what is contended.
 *   W4  nothing is waited for, and nobody is notified, with the lock held.
 *   W5  no upgrade: drop, take exclusively, look again.
 *   W6  changes are rare: bounds are coarse and grow ahead of their handle; a
 *       handle without a known pattern has no window.
 *   W7  the lock is fair to writers. A plain mutex in its place is the
 *       before-arm of bench-window (s_window_mutex, or -Dwindow_lock=mutex).
 *   W8  an operation inside its handle's window takes no lock and stores to
 *       nothing but the handle.
 *
 * Alive: a window from its first move until access_end(), under the reference
 * that the handle has on the inode; walkers hold the lock.
 */
#ifndef SLUICE_CACHE_WINDOW_H
#define SLUICE_CACHE_WINDOW_H

#include "cache/mapping.h"

/* Bounds are multiples of this, but where a file was cut. */
#define WINDOW_GRAIN_BYTES (2ull << 20)

enum window_kind {
	WINDOW_READ,  /* about the place of the reader, and ahead of it */
	WINDOW_WRITE, /* all that the handle has written, and more */
	WINDOW_KINDS, /* of a handle */
	WINDOW_MOVE = WINDOW_KINDS /* what a relocation has still to do */
};

enum access_pattern {
	ACCESS_NEW, /* nothing is known */
	ACCESS_SEQUENTIAL,
	ACCESS_STRIDED,
	ACCESS_RANDOM,
};

struct window;

/*
 * What is known of how a handle reads, or writes. Several threads may use one
 * handle: each field is of some moment, and all together only a guess, as
 * patterns are; but a_lo, a_hi and the window have all that was noted.
 */
struct access {
	u8 a_kind;             /* enum window_kind [const] */
	_Atomic u8 a_pattern;  /* enum access_pattern [atomic] */
	_Atomic u8 a_run;      /* operations in a row that fit it [atomic] */
	_Atomic u32 a_ops;     /* until there is a window [atomic] */
	_Atomic u64 a_bytes;   /* likewise [atomic] */
	_Atomic u64 a_lo, a_hi; /* likewise: bytes written, if lo < hi [atomic] */
	_Atomic u64 a_last;    /* where the last operation began ... [atomic] */
	_Atomic u64 a_next;    /* ... and a stream's next one should [atomic] */
	_Atomic s64 a_stride;  /* between the last two [atomic] */
	_Atomic u64 a_from, a_reach; /* a stream of writes; see access_behind() */
	_Atomic u64 a_asked;   /* a reader's: where what was read ahead ends [atomic] */
	struct window *_Atomic a_win; /* NULL: none yet [atomic, set once] */
};

void access_init(struct access *a, enum window_kind kind);
/* The window goes. The handle's last use; its inode is still there. Sleeps. */
void access_end(struct access *a, struct mapping *m);

/*
 * An operation on [pos, pos+len), inside the largest size of a file. A write is
 * noted before its data is in the cache: who reports that it was lost finds the
 * window. No lock from RANK_I_MMAP inwards. May allocate; without memory there
 * is no window.
 */
void access_note(struct access *a, struct mapping *m, u64 pos, u64 len);

/*
 * The handle has written [pos, pos+len), which was noted. True if with this a stream
 * has completed some MiB: the whole leaves among them, [*start, *end), may be
 * written now. Writes that come a little out of order, by several threads or
 * handles, are a stream still, and so are strides forwards that leave less than
 * a MiB out; who writes at random will come back, and is none.
 */
bool access_behind(struct access *a, const struct mapping *m, u64 pos, u64 len,
		   lblk_t *start, lblk_t *end);

/*
 * A lost write may concern the handle: it was at work there, or nobody can
 * tell, for want of a window. For what is more than the floor, by which every
 * handle learns of it at fsync (mapping_check_error()).
 */
bool access_error_concerns(const struct access *a);
/* Around mapping_check_error(): what is told now does not concern us any more. */
errseq_t access_error_begin(const struct access *a);
void access_error_told(struct access *a, errseq_t begin);

/*
 * The handle goes on with a stream of writes that another one began; and where it has
 * come to, for the next. Before the first use; at the last one.
 */
void access_resume(struct access *a, u64 from, u64 reach);
void access_leave(const struct access *a, u64 *from, u64 *reach);

/* ---- relocation of blocks ---- */

/*
 * Blocks [start, end), start < end, are to move on the volume: a window of their own says
 * so, from now until access_end(). a: of the caller, not initialised. -EBUSY: some of
 * them are moving already; -ENOMEM. Then there is nothing to end.
 */
int __must_check windows_move_begin(struct mapping *m, struct access *a, lblk_t start,
				    lblk_t end);
/* Those before `next`, inside the range, have moved, or stay. */
void windows_moved(struct mapping *m, struct access *a, lblk_t next);

/* ---- what is to be read before it is asked for ---- */

/* Some reads to come: nr of len bytes, each `stride` from the one before. */
struct access_ahead {
	u64 pos;
	u32 len, nr;
	s64 stride;
};

/*
 * After the handle has read [pos, pos+len), which was noted: by its pattern, what it
 * will want next and nobody has asked for yet, in *ahead. False: nothing is due.
 * For strides, and for streams of requests so small that the kernel reads nothing
 * ahead of them; inside the handle's window, and inside the file as it is now.
 */
bool access_wants(struct access *a, const struct mapping *m, u64 pos, u64 len, u64 size,
		  struct access_ahead *ahead);

/* ---- walkers; no lock from RANK_I_MMAP inwards but where noted ---- */

/*
 * A write of blocks [start, end) has failed: mapping_set_error(), and the
 * windows that have written there learn that it concerns them. Returns how
 * many. Does not sleep on I/O.
 */
u32 windows_set_error(struct mapping *m, lblk_t start, lblk_t end, int error);

/* Blocks [start, end) are taken away: streams that are read there begin anew. */
void windows_cut(struct mapping *m, lblk_t start, lblk_t end);
/* The file ends at `end` now: readers' windows end there, and begin anew. */
void windows_truncate(struct mapping *m, lblk_t end);

enum window_verdict {
	WINDOW_NOBODY, /* no reader is at work there */
	WINDOW_COMING, /* a stream, or strides, will come here */
	WINDOW_AROUND, /* only who jumps about: here as likely as elsewhere */
	WINDOW_PASSED, /* all streams that met it have passed it */
	WINDOW_BUSY,   /* contended: nobody can tell now */
};
/* Who is at work in [start, end)? For reclaim: trylock, any lock may be held
 * that ranks before RANK_CACHE_LIST. */
enum window_verdict windows_ask(struct mapping *m, lblk_t start, lblk_t end);

/*
 * How many read in [start, end) from that zone, and from others. By trylock:
 * false, and both 0, if it is contended. For the balancer.
 */
bool windows_read_from(struct mapping *m, lblk_t start, u64 end, u32 zone, u32 *here,
		       u32 *elsewhere);

/*
 * Where what is read ahead from `start` on should end, at `end` at the latest: before blocks
 * that somebody writes, or that are on the move. Trylock: `start` if contended.
 */
lblk_t windows_clip(struct mapping *m, lblk_t start, lblk_t end);

/* What the windows that meet [start, end) add up to. */
struct window_census {
	u32 readers, writers;
	u32 sequential, strided, random; /* of the readers */
	u32 moving; /* relocations */
};
void windows_count(struct mapping *m, lblk_t start, lblk_t end,
		   struct window_census *c);

/* ---- for cache/mapping_tree.c ---- */
struct window_set;
/* No handle is left. */
void windows_destroy(struct mapping *m);

#endif
