/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/syszone.c - which blocks of the volume belong to the file system itself
 *
 * A sorted array of ranges: superblocks, descriptors, bitmaps, inode tables,
 * and the journal. No file may map them, nobody may allocate or free them.
 * Built once at mount; two structures on the same block are found here and
 * refuse the mount.
 *
 * Locks:   none; the array does not change once requests are served
 * Source:  ext4-format brief 4.7. Next: balloc.c
 */
#include "fs/alloc_internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct zone {
	pblk_t start, end; /* [start, end) */
};

struct ext4_syszone {
	struct zone *z; /* sorted, apart from each other */
	size_t nr, cap;
};

static int zone_push(struct ext4_syszone *sz, struct zone z)
{
	if (sz->nr == sz->cap) {
		size_t cap = sz->cap ? sz->cap * 2 : 64;
		struct zone *p = realloc(sz->z, cap * sizeof(*p));

		if (!p)
			return -ENOMEM;
		sz->z = p;
		sz->cap = cap;
	}
	sz->z[sz->nr++] = z;
	return 0;
}

/*
 * Most structures of a group follow those of the group before (flex_bg) or
 * each other: one open run per kind keeps the array short before it is sorted.
 */
enum run_kind { RUN_HEAD, RUN_BBITMAP, RUN_IBITMAP, RUN_ITABLE, RUN_KINDS };

static int run_add(struct ext4_syszone *sz, struct zone *run, pblk_t start,
		   u64 len)
{
	int error = 0;

	if (!len)
		return 0;
	if (run->end == start && run->end > run->start) {
		run->end += len;
		return 0;
	}
	if (run->end > run->start)
		error = zone_push(sz, *run);
	*run = (struct zone){ start, start + len };
	return error;
}

static int zone_cmp(const void *pa, const void *pb)
{
	const struct zone *a = pa, *b = pb;

	return a->start < b->start ? -1 : a->start > b->start;
}

static int zone_overlap(const struct ext4_sb *sbi, const struct zone *a,
			const struct zone *b)
{
	log_err("%s: structures of the file system overlap: blocks %" PRIu64
		"-%" PRIu64 " and %" PRIu64 "-%" PRIu64
		"; the volume needs e2fsck",
		sbi->s.s_id, a->start, a->end - 1, b->start, b->end - 1);
	return -EFSCORRUPTED;
}

/* Sorts, joins neighbours, refuses overlaps. */
static int zones_settle(struct ext4_sb *sbi, struct ext4_syszone *sz)
{
	size_t out = 0;

	qsort(sz->z, sz->nr, sizeof(*sz->z), zone_cmp);
	for (size_t i = 1; i < sz->nr; i++) {
		if (sz->z[i].start < sz->z[out].end)
			return zone_overlap(sbi, &sz->z[out], &sz->z[i]);
		if (sz->z[i].start == sz->z[out].end)
			sz->z[out].end = sz->z[i].end;
		else
			sz->z[++out] = sz->z[i];
	}
	sz->nr = sz->nr ? out + 1 : 0;
	return 0;
}

static int add_group(struct ext4_sb *sbi, struct ext4_syszone *sz,
		     struct zone *run, group_t g)
{
	struct ext4_group_desc *gd = ext4_group_desc(sbi, g, NULL);
	u32 head = min_of(ext4_group_head_blocks(sbi, g),
			  ext4_blocks_in_group(sbi, g));
	pblk_t first = ext4_group_first_block(sbi, g);
	int error;

	/* bigalloc with 1 KiB blocks: group 0 starts a block before the
	 * superblock, which lies at byte 1024 */
	if (g == 0 && sbi->s.s_blocksize == 1024 && sbi->first_data_block == 0)
		head++;
	error = run_add(sz, &run[RUN_HEAD], first, head);
	if (!error)
		error = run_add(sz, &run[RUN_BBITMAP],
				ext4_gd_block_bitmap(sbi, gd), 1);
	if (!error)
		error = run_add(sz, &run[RUN_IBITMAP],
				ext4_gd_inode_bitmap(sbi, gd), 1);
	if (!error)
		error = run_add(sz, &run[RUN_ITABLE],
				ext4_gd_inode_table(sbi, gd), sbi->itable_blocks);
	return error;
}

int ext4_syszone_build(struct ext4_sb *sbi)
{
	struct zone run[RUN_KINDS] = { 0 };
	struct ext4_syszone *sz = calloc(1, sizeof(*sz));
	struct zone *fit;
	int error = 0;

	if (!sz)
		return -ENOMEM;
	for (group_t g = 0; !error && g < sbi->groups; g++)
		error = add_group(sbi, sz, run, g);
	for (int i = 0; !error && i < RUN_KINDS; i++)
		if (run[i].end > run[i].start)
			error = zone_push(sz, run[i]);
	if (!error)
		error = zones_settle(sbi, sz);
	if (error) {
		free(sz->z);
		free(sz);
		return error;
	}
	fit = realloc(sz->z, sz->nr * sizeof(*fit));
	if (fit) {
		sz->z = fit;
		sz->cap = sz->nr;
	}
	sbi->syszone = sz;
	return 0;
}

/* Index of the first zone that ends after blk; nr if there is none. */
static size_t zone_find(const struct ext4_syszone *sz, pblk_t blk)
{
	size_t lo = 0, hi = sz->nr;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (sz->z[mid].end > blk)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

int ext4_syszone_add(struct ext4_sb *sbi, pblk_t start, u64 len)
{
	struct ext4_syszone *sz = sbi->syszone;
	struct zone z = { start, start + len };
	size_t at;
	int error;

	if (!len)
		return 0;
	if (start < sbi->first_data_block || start >= sbi->blocks_count ||
	    len > sbi->blocks_count - start) {
		log_err("%s: blocks %" PRIu64 "+%" PRIu64
			" of the journal, or for MMP, are outside the volume",
			sbi->s.s_id, start, len);
		return -EFSCORRUPTED;
	}
	at = zone_find(sz, start);
	if (at < sz->nr && sz->z[at].start < z.end)
		return zone_overlap(sbi, &sz->z[at], &z);
	error = zone_push(sz, z); /* room for one more */
	if (error)
		return error;
	memmove(&sz->z[at + 1], &sz->z[at],
		(sz->nr - 1 - at) * sizeof(*sz->z));
	sz->z[at] = z;
	return 0;
}

void ext4_syszone_free(struct ext4_sb *sbi)
{
	if (!sbi->syszone)
		return;
	free(sbi->syszone->z);
	free(sbi->syszone);
	sbi->syszone = NULL;
}

bool ext4_syszone_next(const struct ext4_sb *sbi, pblk_t pos, pblk_t end,
		       pblk_t *zstart, pblk_t *zend)
{
	const struct ext4_syszone *sz = sbi->syszone;
	size_t i;

	/* Callers go on from *zend: a zone may reach beyond end. */
	if (!sz || pos >= end)
		return false;
	i = zone_find(sz, pos);
	if (i == sz->nr || sz->z[i].start >= end)
		return false;
	*zstart = max_of(sz->z[i].start, pos);
	*zend = min_of(sz->z[i].end, end);
	return true;
}

bool ext4_block_range_ok(const struct ext4_sb *sbi, pblk_t start, u64 len)
{
	pblk_t zs, ze;

	if (start < sbi->first_data_block || start >= sbi->blocks_count ||
	    !len || len > sbi->blocks_count - start)
		return false;
	return !ext4_syszone_next(sbi, start, start + len, &zs, &ze);
}
