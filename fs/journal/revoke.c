/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/journal/revoke.c - sets of revoked blocks
 *
 * A freed metadata block may come back as file data, which is not journalled.
 * Were an old image of it still in the log, a replay would put that over the
 * data. So the transaction that frees the block carries a revoke record:
 * images of that block from this transaction or an earlier one are not
 * replayed. If the block is journalled again in the same transaction, the
 * record is cancelled, since it would suppress the new image too.
 *
 * One structure serves both sides: the running transaction's records, and in
 * recovery the latest revoke of each block. Open addressing, linear probing,
 * at most 3/4 full, removal by shifting back (no tombstones).
 *
 * Locks:  none here; the running transaction's map is under j_lock, so memory
 *         is got by the caller before it takes the lock (full, next, alloc,
 *         install).
 */
#include "fs/journal/journal_internal.h"
#include "lib/mem.h"

#include <assert.h>
#include <stdlib.h>

#define REVOKE_MIN_SLOTS 64u

static u32 revoke_hash(const struct revoke_map *m, pblk_t blk)
{
	return (u32)((blk * 0x9E3779B97F4A7C15ull) >> 32) & m->mask;
}

bool revoke_map_full(const struct revoke_map *m)
{
	return !m->slot || (u64)(m->nr + 1) * 4 > (u64)(m->mask + 1) * 3;
}

u32 revoke_map_next(const struct revoke_map *m)
{
	return m->slot ? (m->mask + 1) * 2 : REVOKE_MIN_SLOTS;
}

struct revoke_entry *revoke_map_alloc(u32 slots)
{
	return calloc_patient(slots, sizeof(struct revoke_entry));
}

/* The slot of blk, or the free one where it would go. */
static struct revoke_entry *revoke_slot(const struct revoke_map *m, pblk_t blk)
{
	u32 i = revoke_hash(m, blk);

	while (m->slot[i].used && m->slot[i].blk != blk)
		i = (i + 1) & m->mask;
	return &m->slot[i];
}

struct revoke_entry *revoke_map_install(struct revoke_map *m,
					struct revoke_entry *bigger, u32 slots)
{
	struct revoke_entry *old = m->slot;
	u32 nr_old = old ? m->mask + 1 : 0;

	assert(slots > nr_old);
	m->slot = bigger;
	m->mask = slots - 1;
	for (u32 i = 0; i < nr_old; i++)
		if (old[i].used)
			*revoke_slot(m, old[i].blk) = old[i];
	return old;
}

bool revoke_map_set(struct revoke_map *m, pblk_t blk, u32 tid)
{
	struct revoke_entry *e = revoke_slot(m, blk);

	if (e->used) {
		if (tid_geq(tid, e->tid))
			e->tid = tid;
		return false;
	}
	assert(!revoke_map_full(m));
	*e = (struct revoke_entry){ .blk = blk, .tid = tid, .used = true };
	m->nr++;
	return true;
}

bool revoke_map_get(const struct revoke_map *m, pblk_t blk, u32 *tid)
{
	const struct revoke_entry *e;

	if (!m->nr)
		return false;
	e = revoke_slot(m, blk);
	if (e->used && tid)
		*tid = e->tid;
	return e->used;
}

bool revoke_map_remove(struct revoke_map *m, pblk_t blk)
{
	struct revoke_entry *e;
	u32 hole, i;

	if (!m->nr)
		return false;
	e = revoke_slot(m, blk);
	if (!e->used)
		return false;
	hole = (u32)(e - m->slot);
	for (i = (hole + 1) & m->mask; m->slot[i].used; i = (i + 1) & m->mask) {
		u32 home = revoke_hash(m, m->slot[i].blk);

		/* Stays if its home lies in (hole, i], in ring order. */
		if (((i - home) & m->mask) < ((i - hole) & m->mask))
			continue;
		m->slot[hole] = m->slot[i];
		hole = i;
	}
	m->slot[hole].used = false;
	m->nr--;
	return true;
}

void revoke_map_release(struct revoke_map *m)
{
	free(m->slot);
	*m = (struct revoke_map){ 0 };
}
