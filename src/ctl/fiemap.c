/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/ctl/fiemap.c - sluicectl fiemap: where the content of a file lies
 *
 * Locks: none. Threads: one.
 */
#include "src/ctl/ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include <linux/fiemap.h>

#include "src/options.h"
#include "src/sluice_ioctl.h"

static const struct {
	__u32 flag;
	const char *name;
} names[] = {
	{ FIEMAP_EXTENT_LAST, "last" },
	{ FIEMAP_EXTENT_UNKNOWN, "unknown" },
	{ FIEMAP_EXTENT_DELALLOC, "delalloc" },
	{ FIEMAP_EXTENT_NOT_ALIGNED, "not_aligned" },
	{ FIEMAP_EXTENT_DATA_INLINE, "inline" },
	{ FIEMAP_EXTENT_UNWRITTEN, "unwritten" },
};

static void print_flags(__u32 flags, const char *quote)
{
	const char *between = "";

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (flags & names[i].flag) {
			printf("%s%s%s%s", between, quote, names[i].name, quote);
			between = ",";
		}
}

static void print_extent(const struct call *c, const struct sluice_extent *e)
{
	const char *format = c->json ?
		"{\"logical\": %" PRIu64 ", \"physical\": %" PRIu64
		", \"length\": %" PRIu64 ", \"flags\": [" :
		"%" PRIu64 " %" PRIu64 " %" PRIu64 " ";

	printf(format, (uint64_t)e->logical, (uint64_t)e->physical,
	       (uint64_t)e->length);
	if (!c->json && !e->flags)
		putchar('-');
	print_flags(e->flags, c->json ? "\"" : "");
	puts(c->json ? "]}" : "");
}

int ctl_fiemap(const struct call *c, int fd)
{
	static struct sluice_fiemap f;
	bool last = false;

	f.version = SLUICE_IOC_VERSION;
	f.size = sizeof(f);
	f.length = UINT64_MAX;
	f.flags = (c->sync ? SLUICE_FIEMAP_SYNC : 0) | (c->xattr ? SLUICE_FIEMAP_XATTR : 0);
	/* What the kernel delays, the daemon does not know. */
	if (c->sync && sync_file_range(fd, 0, 0,
				       SYNC_FILE_RANGE_WAIT_BEFORE |
					       SYNC_FILE_RANGE_WRITE |
					       SYNC_FILE_RANGE_WAIT_AFTER))
		return ctl_failed(c->mnt);
	do {
		if (ioctl(fd, SLUICE_IOC_FIEMAP, &f) < 0)
			return ctl_failed(c->mnt);
		for (__u32 i = 0; i < f.count; i++) {
			print_extent(c, &f.extent[i]);
			last = f.extent[i].flags & FIEMAP_EXTENT_LAST;
		}
	} while (f.count && !last);
	return 0;
}
