/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/sender_file.h - a file that the sender of a request has open, by his descriptor
 *
 * FUSE hands on the argument of an ioctl as it is, so that a descriptor in it is a number that
 * says something in the sender's process only. What it stands for is looked up in /proc.
 */
#ifndef SLUICE_SRC_SENDER_FILE_H
#define SLUICE_SRC_SENDER_FILE_H

#include "src/fuse_ops.h"

/*
 * The inode of this mount that the sender has open by fd, referenced, and how (O_RDONLY,
 * O_WRONLY, O_RDWR). Causes no request. -EBADF: he has no such descriptor, or one that was
 * opened with O_PATH; -EINVAL: of another file system; -EOPNOTSUPP: it cannot be told: he is in
 * another PID namespace, the daemon may not look at him or has no /proc, the kernel is before
 * Linux 5.14.
 */
int __must_check req_file(fuse_req_t req, u32 fd, struct inode **out, int *accmode);

#endif
