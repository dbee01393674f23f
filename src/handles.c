/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/handles.c - what the kernel has open: FUSE's file handles
 *
 * A handle stands in the list of the CPU that opened it, so opens on several
 * CPUs share no lock.
 *
 * Locks:   one shard's, unranked and innermost
 * Alive:   from open to close; the kernel uses no handle after its RELEASE
 * Threads: any; handles_close_all() when no request runs any more
 */
#include "src/handles.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "fs/fs.h"
#include "lib/thread.h"

void handles_init(struct handle_table *t)
{
	for (unsigned i = 0; i < HANDLE_SHARDS; i++) {
		spin_init(&t->shards[i].lock, RANK_NONE);
		CDS_INIT_LIST_HEAD(&t->shards[i].open);
	}
	atomic_init(&t->scans, 0);
}

void handles_destroy(struct handle_table *t)
{
	for (unsigned i = 0; i < HANDLE_SHARDS; i++) {
		assert(cds_list_empty(&t->shards[i].open));
		spin_destroy(&t->shards[i].lock);
	}
}

static struct handle *add(struct handle_table *t, struct sl_file *file,
			  struct inode_stream *stream)
{
	struct handle *h = malloc(sizeof(*h));

	if (!h)
		return NULL;
	h->file = file;
	h->stream = stream;
	h->table = t;
	atomic_init(&h->scan, NULL);
	h->shard = &t->shards[thread_cpu() % HANDLE_SHARDS];
	spin_lock(&h->shard->lock);
	cds_list_add(&h->node, &h->shard->open);
	spin_unlock(&h->shard->lock);
	return h;
}

struct handle *handle_open(struct handle_table *t, struct sl_file *file)
{
	struct handle *h = add(t, file, NULL);

	if (!h)
		sl_release(file);
	return h;
}

static void stream_free(struct inode_stream *stream)
{
	if (!stream)
		return;
	mutex_destroy(&stream->lock);
	free(stream);
}

struct handle *handle_open_stream(struct handle_table *t, u64 first, u64 last)
{
	struct inode_stream *stream = malloc(sizeof(*stream));
	struct handle *h;

	if (!stream)
		return NULL;
	mutex_init(&stream->lock, RANK_NONE);
	stream->next = first;
	stream->last = last;
	h = add(t, NULL, stream);
	if (!h)
		stream_free(stream);
	return h;
}

struct sl_bulkstat *handle_take_scan(struct handle *h)
{
	struct sl_bulkstat *scan = atomic_exchange(&h->scan, NULL);

	if (scan)
		atomic_fetch_sub(&h->table->scans, 1);
	return scan;
}

void handle_keep_scan(struct handle *h, struct sl_bulkstat *scan)
{
	struct sl_bulkstat *none = NULL;

	if (atomic_fetch_add(&h->table->scans, 1) < HANDLE_SCANS_MAX &&
	    atomic_compare_exchange_strong(&h->scan, &none, scan))
		return;
	/* Too many; or another request on this handle was faster. */
	atomic_fetch_sub(&h->table->scans, 1);
	sl_bulkstat_close(scan);
}

void handle_close(struct handle *h)
{
	sl_bulkstat_close(handle_take_scan(h));
	spin_lock(&h->shard->lock);
	cds_list_del(&h->node);
	spin_unlock(&h->shard->lock);
	if (h->file)
		sl_release(h->file);
	stream_free(h->stream);
	free(h);
}

unsigned handles_close_all(struct handle_table *t)
{
	unsigned n = 0;

	for (unsigned i = 0; i < HANDLE_SHARDS; i++) {
		struct cds_list_head *open = &t->shards[i].open;

		for (; !cds_list_empty(open); n++)
			handle_close(cds_list_first_entry(open, struct handle,
							  node));
	}
	return n;
}
