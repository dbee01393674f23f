/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lib/bitmap.h - bit maps in disk order (bit n is bit n%8 of byte n/8)
 *
 * Used for ext4's block and inode bitmaps and for marks in memory. Ranges are
 * half open, in bits. The memory is 8-byte aligned and a multiple of 8 bytes
 * long. No atomics: the caller holds the lock of the map.
 */
#ifndef SLUICE_LIB_BITMAP_H
#define SLUICE_LIB_BITMAP_H

#include "lib/types.h"

static inline bool bm_test(const void *map, u32 bit)
{
	return ((const u8 *)map)[bit >> 3] >> (bit & 7) & 1;
}
static inline void bm_set(void *map, u32 bit)
{
	((u8 *)map)[bit >> 3] |= (u8)(1u << (bit & 7));
}
static inline void bm_clear(void *map, u32 bit)
{
	((u8 *)map)[bit >> 3] &= (u8)~(1u << (bit & 7));
}
void bm_set_range(void *map, u32 start, u32 nr);
void bm_clear_range(void *map, u32 start, u32 nr);
/* First set (clear) bit in [start, end); end if there is none. */
u32 bm_find_set(const void *map, u32 start, u32 end);
u32 bm_find_clear(const void *map, u32 start, u32 end);
/* As bm_find_clear(), of a|b; b may be NULL. */
u32 bm_find_clear_or(const void *a, const void *b, u32 start, u32 end);
u32 bm_find_set_or(const void *a, const void *b, u32 start, u32 end);
/* Number of set bits in [start, end). */
u32 bm_weight(const void *map, u32 start, u32 end);

#endif
