/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/loop.h - threads that read requests from a descriptor and carry them out
 *
 * As many threads as there are CPUs wait in read(2), or fewer: the receivers. The code
 * of a request is plain and blocking; a receiver that is about to wait hands
 * its role over to a spare thread, by the hook of lib/thread.h (see loop.c).
 *
 * The loop knows no FUSE but this: a request is one read(2), and the end of
 * the connection is ENODEV (or end of file, for tests).
 */
#ifndef SLUICE_SRC_LOOP_H
#define SLUICE_SRC_LOOP_H

#include "lib/types.h"

struct loop;
struct region;
struct region_pool;

struct loop_config {
	int fd;		    /* to read from; stays the caller's */
	unsigned receivers; /* threads in read(2), at most; > 0 */
	unsigned max_threads;
	unsigned min_spares;  /* kept ready */
	struct region_pool *regions; /* of receive buffers: a page and request_max each;
				outlives the loop */
	size_t request_max;   /* bytes: the size given to read(2) */
	size_t payload_shift; /* the request starts this far before a page */
	u32 spare_idle_ms;    /* a spare above min_spares ends after this */
	size_t buffers_max;   /* bytes: what threads keep of their buffers from one
				 large request to the next, all together */
	int end_event;	      /* eventfd, signalled when no thread is left */

	/* Carries out a request and answers it. The memory is valid until
	 * the return. In any of the loop's threads. */
	void (*process)(void *priv, void *request, size_t len);
	/* In place of process() after loop_quiesce(). Must not wait. */
	void (*reject)(void *priv, void *request, size_t len);
	void *priv;
};

struct loop_stats {
	unsigned threads, receivers, spares, threads_max;
	u64 handovers, threads_started;
	u64 short_of_threads; /* hand-overs that found no thread */
	u64 buffers_kept;     /* bytes, now; see buffers_max */
	u64 buffers_dropped;  /* times that a thread gave its memory back */
};

/* Starts the threads; *out is set before the first request. -ENOMEM, -EAGAIN. */
int __must_check loop_start(const struct loop_config *config, struct loop **out);
/*
 * From a process() callback: from now on requests are rejected; returns when
 * all others that were begun have ended. Once only.
 */
void loop_quiesce(struct loop *loop);
/*
 * From a process() callback: returns when all requests that were begun have ended but this
 * one. Those that come meanwhile wait for loop_resume(). So no request may wait for
 * another one, or for somebody who does. One at a time.
 */
void loop_pause(struct loop *loop);
void loop_resume(struct loop *loop);
/* Threads end after the request they are at; those in read(2) at once. Waits
 * for all. Not from a loop's thread. */
void loop_stop(struct loop *loop);
/* After the end (end_event) or loop_stop(): waits for the threads' last steps, frees. */
void loop_free(struct loop *loop);
void loop_get_stats(struct loop *loop, struct loop_stats *st);

/* In process(): memory of this thread for a reply, page-aligned, at least
 * `size` bytes, valid until the return. NULL: out of memory. */
void *loop_reply_buffer(size_t size);

/*
 * In process(), before anything else: what is known of the request. Of others it is
 * taken that somebody waits for the answer, and that they are short unless they
 * wait (lib/thread.h).
 */
enum loop_kind {
	LOOP_UNAWAITED, /* nobody waits for its end: the next comes beside it */
	LOOP_LENGTHY,	/* may need the CPU for long: others read meanwhile */
};
void loop_request_kind(enum loop_kind kind);

/*
 * In process(): the region that the request came in, held by the loop, if parts of it may
 * be taken (cache/region.h): then the thread gets another one for its next
 * request. NULL: there is no memory for another.
 */
struct region *loop_request_region(void);

#endif
