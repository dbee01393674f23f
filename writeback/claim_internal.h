/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * writeback/claim_internal.h - opens a device or image for our use alone
 *
 * Used by aio.c only. The rules stand in claim.c.
 */
#ifndef SLUICE_WRITEBACK_CLAIM_INTERNAL_H
#define SLUICE_WRITEBACK_CLAIM_INTERNAL_H

#include "lib/types.h"

struct claim {
	int fd;
	bool is_block;
	bool direct; /* O_DIRECT is on */
	u32 sector;  /* alignment of position, length and memory; power of two */
	u64 size;    /* bytes of the whole file or device */
};

/* Errors and *why as bdev_open_aio(); on success the caller owns out->fd. */
int __must_check claim_open(const char *path, bool readonly, struct claim *out,
			    const char **why);
/*
 * Block devices: puts an open file without O_EXCL, with the same lock, in the
 * place of fd. 0, or a negative errno and everything as before. Sleeps.
 */
int __must_check claim_drop_exclusive(int fd, bool readonly);
/*
 * A file that was opened for reading becomes one for writing, with the locks of a writer,
 * in the place of fd: others may use the number meanwhile. own: a loop device on the image
 * that is ours, or NULL. 0; -EROFS, -EACCES; -EBUSY: others read the volume; then, with
 * *why as above, everything is as before. Sleeps.
 */
int __must_check claim_make_writable(int fd, bool is_block, const char *own,
				     const char **why);
/* The locks of a reader again. The file stays open for writing. */
void claim_make_readonly(int fd, bool is_block);

#endif
