/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/caps.h - what the sender of a request may do: his capabilities, and who he is
 *
 * The kernel's FUSE checks permissions by modes and owners, and for some calls by
 * capabilities, but an ioctl it hands on as it is.
 */
#ifndef SLUICE_SRC_CAPS_H
#define SLUICE_SRC_CAPS_H

#include "src/fuse_ops.h"

/*
 * Has the sender the capability (CAP_* of linux/capability.h), in the user namespace of
 * the daemon? Where the daemon cannot look, as in another PID namespace: is he the
 * superuser? Reads files of /proc; the sender waits for us, so he is still there, or else
 * it does not matter.
 */
bool req_capable(fuse_req_t req, unsigned cap);
/* Is the sender of this group, by the request's or one of his further ones? Reads /proc, too; where
 * that cannot be: by the request's alone. */
bool req_in_group(fuse_req_t req, u32 gid);
/*
 * The sender's user and group for files. With -o idmap the kernel says them only where
 * an inode is made, and then as the mount's map has them; else they are read from /proc,
 * as they are. Where that cannot be, as in another PID namespace: nobody's, ID_NOT_SAID.
 */
#define ID_NOT_SAID UINT32_MAX
void req_ids(fuse_req_t req, u32 *uid, u32 *gid);

#endif
