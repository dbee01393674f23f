/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/free_runs.c - the free runs of one group, by place and by length
 *
 * See free_runs.h. A search walks the slices with a carry, the free blocks
 * that end where the next slice begins; it looks into a map only in the slice
 * it begins in and in the one that has what it wants.
 *
 * Locks:   none; the caller holds the lock of the maps
 */
#include "fs/free_runs.h"

#include <assert.h>
#include <string.h>

#include "lib/bitmap.h"

#define MIN_SHIFT 9u /* 512 blocks: 8 words of a map */

static u32 slice_start(const struct free_runs *fr, u32 i)
{
	return i << fr->shift;
}

static u32 slice_end(const struct free_runs *fr, u32 i)
{
	return min_of((i + 1) << fr->shift, fr->nr);
}

static u32 nr_slices(const struct free_runs *fr)
{
	return ((fr->nr - 1) >> fr->shift) + 1;
}

void free_runs_init(struct free_runs *fr, u32 nr)
{
	assert(nr > 0 && nr <= 1u << 19);
	memset(fr, 0, sizeof(*fr));
	fr->nr = nr;
	fr->shift = MIN_SHIFT;
	while (nr_slices(fr) > FREE_RUNS_SLICES)
		fr->shift++;
	free_runs_touch(fr, 0, nr);
}

void free_runs_touch(struct free_runs *fr, u32 off, u32 len)
{
	u32 first = off >> fr->shift;
	u32 last = (off + len - 1) >> fr->shift;

	assert(len > 0);
	/* Ones from bit `first` to bit `last`. */
	fr->stale |= (~0ull << first) & (~0ull >> (63 - last));
}

static struct free_slice read_slice(const void *map, const void *held, u32 start,
				    u32 end)
{
	struct free_slice s = { 0 };
	u32 from = bm_find_clear_or(map, held, start, end);
	u32 to;

	for (; from < end; from = bm_find_clear_or(map, held, to, end)) {
		to = bm_find_set_or(map, held, from, end);
		if (from == start)
			s.head = (u16)(to - from);
		if (to == end)
			s.tail = (u16)(to - from);
		if (to - from > s.best)
			s.best = (u16)(to - from);
	}
	return s;
}

static u32 longest_run(const struct free_runs *fr)
{
	u32 longest = 0, carry = 0, full = 1u << fr->shift, nr = nr_slices(fr);

	for (u32 i = 0; i < nr; i++) {
		const struct free_slice *s = &fr->s[i];

		carry += s->head;
		longest = max_of(longest, carry);
		longest = max_of(longest, (u32)s->best);
		/* The last slice may be shorter, but nothing comes after it. */
		if (s->head < full)
			carry = s->tail;
	}
	return longest;
}

void free_runs_refresh(struct free_runs *fr, const void *map, const void *held)
{
	if (!fr->stale)
		return;
	while (fr->stale) {
		u32 i = (u32)__builtin_ctzll(fr->stale);

		fr->s[i] = read_slice(map, held, slice_start(fr, i),
				      slice_end(fr, i));
		fr->stale &= fr->stale - 1;
	}
	fr->longest = longest_run(fr);
}

/* First run of at least `enough` that lies in [start, end); end: none. *tail:
 * then, how many blocks before end are free. */
static u32 find_inside(const void *map, const void *held, u32 start, u32 end,
		       u32 enough, u32 *tail)
{
	u32 from = bm_find_clear_or(map, held, start, end);
	u32 to;

	*tail = 0;
	for (; from < end; from = bm_find_clear_or(map, held, to, end)) {
		to = bm_find_set_or(map, held, from, end);
		if (to - from >= enough)
			return from;
		if (to == end)
			*tail = to - from;
	}
	return end;
}

u32 free_runs_find(const struct free_runs *fr, const void *map, const void *held,
		   u32 from, u32 enough)
{
	u32 nr = nr_slices(fr);
	u32 i = from >> fr->shift;
	u32 carry = 0, at;

	assert(!fr->stale && enough);
	if (from >= fr->nr || enough > fr->longest)
		return fr->nr;
	if (from > slice_start(fr, i)) {
		at = find_inside(map, held, from, slice_end(fr, i), enough, &carry);
		if (at < slice_end(fr, i))
			return at;
		i++;
	}
	for (; i < nr; i++) {
		const struct free_slice *s = &fr->s[i];
		u32 start = slice_start(fr, i), end = slice_end(fr, i);

		if (carry + s->head >= enough)
			return start - carry;
		if (s->head == end - start) {
			carry += s->head;
			continue;
		}
		if (s->best >= enough)
			return find_inside(map, held, start, end, enough, &carry);
		carry = s->tail;
	}
	return fr->nr;
}

bool free_runs_check(const struct free_runs *fr, const void *map,
		     const void *held)
{
	for (u32 i = 0; i < nr_slices(fr); i++) {
		struct free_slice s = read_slice(map, held, slice_start(fr, i),
						 slice_end(fr, i));

		if (!(fr->stale >> i & 1) &&
		    (s.head != fr->s[i].head || s.tail != fr->s[i].tail ||
		     s.best != fr->s[i].best))
			return false;
	}
	return fr->stale || fr->longest == longest_run(fr);
}
