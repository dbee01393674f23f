/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lib/bitmap.c - bit maps in disk order (bit n is bit n%8 of byte n/8)
 *
 * Searches go by 64-bit words: read as a little-endian number, a word has the
 * map's bit n at its bit n%64. Words are read whole, so that a map ends on a
 * multiple of 8 bytes; what lies outside the range is masked off.
 *
 * Locks:   none; the caller holds the lock of the map
 */
#include "lib/bitmap.h"

#include <string.h>

#define WORD_BITS 64u

/* Ones from bit n (0..63) upwards. */
static u64 mask_from(u32 n)
{
	return ~0ull << n;
}

/* Ones below bit n (1..64). */
static u64 mask_below(u32 n)
{
	return ~0ull >> (WORD_BITS - n);
}

static u64 word_at(const void *map, u32 w)
{
	return le64toh(((const u64 *)map)[w]);
}

void bm_set_range(void *map, u32 start, u32 nr)
{
	u8 *m = map;
	u64 end = (u64)start + nr;
	u64 bit = start;

	for (; bit < end && bit & 7; bit++)
		bm_set(m, (u32)bit);
	if (bit < end) {
		memset(m + (bit >> 3), 0xFF, (size_t)((end - bit) >> 3));
		bit += (end - bit) & ~7ull;
	}
	for (; bit < end; bit++)
		bm_set(m, (u32)bit);
}

void bm_clear_range(void *map, u32 start, u32 nr)
{
	u8 *m = map;
	u64 end = (u64)start + nr;
	u64 bit = start;

	for (; bit < end && bit & 7; bit++)
		bm_clear(m, (u32)bit);
	if (bit < end) {
		memset(m + (bit >> 3), 0, (size_t)((end - bit) >> 3));
		bit += (end - bit) & ~7ull;
	}
	for (; bit < end; bit++)
		bm_clear(m, (u32)bit);
}

/*
 * First bit in [start, end) of (a|b) ^ flip, end if there is none. flip is 0
 * to look for ones, ~0 to look for zeros; b may be NULL.
 */
static u32 find_bit(const void *a, const void *b, u64 flip, u32 start, u32 end)
{
	u64 mask = mask_from(start % WORD_BITS);

	if (start >= end)
		return end;
	for (u32 w = start / WORD_BITS; w <= (end - 1) / WORD_BITS; w++) {
		u64 word = word_at(a, w) | (b ? word_at(b, w) : 0);

		word = (word ^ flip) & mask;
		if (word) {
			u32 bit = w * WORD_BITS + (u32)__builtin_ctzll(word);

			return min_of(bit, end);
		}
		mask = ~0ull;
	}
	return end;
}

u32 bm_find_set(const void *map, u32 start, u32 end)
{
	return find_bit(map, NULL, 0, start, end);
}

u32 bm_find_clear(const void *map, u32 start, u32 end)
{
	return find_bit(map, NULL, ~0ull, start, end);
}

u32 bm_find_set_or(const void *a, const void *b, u32 start, u32 end)
{
	return find_bit(a, b, 0, start, end);
}

u32 bm_find_clear_or(const void *a, const void *b, u32 start, u32 end)
{
	return find_bit(a, b, ~0ull, start, end);
}

u32 bm_weight(const void *map, u32 start, u32 end)
{
	u64 mask = mask_from(start % WORD_BITS);
	u32 weight = 0;

	if (start >= end)
		return 0;
	for (u32 w = start / WORD_BITS; w <= (end - 1) / WORD_BITS; w++) {
		if (w == (end - 1) / WORD_BITS)
			mask &= mask_below((end - 1) % WORD_BITS + 1);
		weight += (u32)__builtin_popcountll(word_at(map, w) & mask);
		mask = ~0ull;
	}
	return weight;
}
