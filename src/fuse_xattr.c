/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/fuse_xattr.c - FUSE operations on extended attributes
 *
 * Two kinds. Those of the volume are fs/'s affair. The names below "trusted.sluice."
 * are the daemon's: on the root they control the mount, on a regular file what is cached
 * of it, elsewhere there are none, and none of the volume has such a name for those who look at it from here. They are
 * not listed: a copy of the tree would carry them along.
 *
 * The kernel lets nobody without CAP_SYS_ADMIN come here with "trusted."; that it is
 * the superuser, or the user that the daemon runs as, is looked at once more
 * (req_is_owner()). It opens no mount that is read-only for setting: for these there
 * are the ioctls.
 *
 * What cannot be read has no value: ENODATA, as for a name that is not there. What
 * cannot be set is none that could be: EOPNOTSUPP for an unknown name, as a file
 * system says of a namespace that it does not have; EPERM for one that can be
 * read, and for removing any. Never ENOSYS, upon which the kernel would never ask
 * again.
 *
 * The kernel asks for a size first and then for the value, which may have grown: so
 * the size told is that of the largest value possible.
 *
 * The kernel asks for "security.capability" before the first write to a file since
 * its attributes were read (with KILLPRIV_V2 it remembers the answer "none" as long),
 * and at each execve(2). Most inodes have no attributes at all, and
 * sl_lacks_xattr() knows that without a lock that other requests want. The same goes for
 * the access ACL, which it asks for when somebody else than the owner comes to a file
 * whose group has rights, and keeps until the file's attributes may have changed.
 *
 * ls(1) -l asks for "security.selinux", file by file, until it hears that there
 * can be none. So an inode without any attribute says that of it: EOPNOTSUPP.
 *
 * Locks: none. Threads: those of the request loop.
 */
#include "src/fuse_ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/capability.h>
#include <sys/xattr.h>

#include "src/caps.h"
#include "src/loop.h"
#include "src/options.h"
#include "src/session.h"
#include "src/stats.h"

#define CONTROL "trusted.sluice."
#define VALUE_MAX 65536u /* the kernel's XATTR_SIZE_MAX and XATTR_LIST_MAX */
#define TEXT_MAX 16384u
#define JSON_MAX 49152u
#define NUMBER_MAX 20u
#define WINDOWS_MAX 256u

_Static_assert((int)SL_XATTR_CREATE == (int)XATTR_CREATE, "same bits");
_Static_assert((int)SL_XATTR_REPLACE == (int)XATTR_REPLACE, "same bits");
_Static_assert(JSON_MAX + TEXT_MAX <= VALUE_MAX, "one buffer has both");

/* ---- control ---- */

struct control {
	const char *name; /* without the prefix */
	size_t largest;	  /* value, in bytes */
	/* Into buf, of VALUE_MAX bytes; returns bytes. NULL: cannot be read. */
	ssize_t (*get)(struct session *s, char *buf);
	/* NULL: cannot be set. */
	int (*set)(struct session *s, const char *value);
};

static int set_drop_caches(struct session *s, const char *value)
{
	if (value[0] < '1' || value[0] > '3' || value[1])
		return -EINVAL;
	return session_drop_caches(s, (u32)(value[0] - '0'));
}

static int set_sync(struct session *s, const char *value)
{
	return strcmp(value, "1") ? -EINVAL : sl_sync(session_sb(s));
}

static ssize_t get_stats(struct session *s, char *buf)
{
	return (ssize_t)session_stats(s, buf, TEXT_MAX);
}

static ssize_t get_stats_json(struct session *s, char *buf)
{
	char *text = buf + JSON_MAX;

	return stats_json(text, session_stats(s, text, TEXT_MAX), buf, JSON_MAX);
}

static ssize_t get_cache_limit(struct session *s, char *buf)
{
	return snprintf(buf, VALUE_MAX, "%llu",
			(unsigned long long)sl_cache_bytes(session_sb(s)));
}

static int set_cache_limit(struct session *s, const char *value)
{
	u64 bytes;

	return options_parse_size(value, &bytes) ?
		       sl_set_cache_bytes(session_sb(s), bytes) : -EINVAL;
}

static const struct control controls[] = {
	{ "cache_limit", NUMBER_MAX, get_cache_limit, set_cache_limit },
	{ "drop_caches", 0, NULL, set_drop_caches },
	{ "stats", TEXT_MAX, get_stats, NULL },
	{ "stats.json", JSON_MAX, get_stats_json, NULL },
	{ "sync", 0, NULL, set_sync },
};

/* The same for a regular file. */
struct file_control {
	const char *name;
	size_t largest;
	ssize_t (*get)(struct inode *inode, char *buf);
	int (*set)(struct inode *inode, const char *value);
};

static int set_migrate(struct inode *inode, const char *value)
{
	unsigned long zone;
	char *end;

	if (value[0] < '0' || value[0] > '9')
		return -EINVAL;
	zone = strtoul(value, &end, 10);
	return *end || zone > UINT32_MAX ? -EINVAL : sl_migrate(inode, (u32)zone);
}

static ssize_t get_windows(struct inode *inode, char *buf)
{
	return (ssize_t)sl_windows_text(inode, buf, WINDOWS_MAX);
}

static int set_relocate(struct inode *inode, const char *value)
{
	return strcmp(value, "1") ? -EINVAL : sl_relocate(inode);
}

static ssize_t get_relocate(struct inode *inode, char *buf)
{
	u64 nr;
	int err = sl_extents(inode, &nr);

	return err ? err : snprintf(buf, VALUE_MAX, "%llu", (unsigned long long)nr);
}

static const struct file_control file_controls[] = {
	{ "migrate", 0, NULL, set_migrate },
	{ "relocate", NUMBER_MAX, get_relocate, set_relocate },
	{ "windows", WINDOWS_MAX, get_windows, NULL },
};

static bool is_control(const char *name)
{
	return !strncmp(name, CONTROL, strlen(CONTROL));
}

/* NULL: none of that name there. */
static const struct control *find_control(fuse_ino_t node, const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(controls); i++)
		if (node == FUSE_ROOT_ID &&
		    !strcmp(controls[i].name, name + strlen(CONTROL)))
			return &controls[i];
	return NULL;
}

/* The inode is referenced; NULL: the node is no regular file, or none of that name. */
static const struct file_control *find_file_control(fuse_req_t req, fuse_ino_t node,
						    const char *name,
						    struct inode **inode)
{
	const struct file_control *c = NULL;
	struct stat st;

	for (size_t i = 0; i < ARRAY_SIZE(file_controls); i++)
		if (!strcmp(file_controls[i].name, name + strlen(CONTROL)))
			c = &file_controls[i];
	if (!c || req_inode(req, node, inode))
		return NULL;
	sl_getattr(*inode, &st);
	if (S_ISREG(st.st_mode))
		return c;
	sl_iput(*inode);
	return NULL;
}

/* n: bytes, or an error. size 0: the kernel wants to know how many. */
static void reply_value(fuse_req_t req, ssize_t n, const char *buf, size_t size)
{
	if (size && n > (ssize_t)size)
		n = -ERANGE;
	if (n < 0)
		reply_status(req, (int)n);
	else if (!size)
		fuse_reply_xattr(req, (size_t)n);
	else
		fuse_reply_buf(req, buf, (size_t)n);
}

static void get_control(fuse_req_t req, fuse_ino_t node, const char *name,
			size_t size)
{
	const struct control *c = find_control(node, name);
	const struct file_control *fc = NULL;
	struct inode *inode = NULL;
	char *buf = NULL;
	ssize_t n;

	if (!c)
		fc = find_file_control(req, node, name, &inode);
	if (!(c && c->get) && !(fc && fc->get))
		n = -ENODATA;
	else if (!req_is_owner(req))
		n = -EPERM;
	else if (!size)
		n = (ssize_t)(c ? c->largest : fc->largest);
	else if (!(buf = loop_reply_buffer(VALUE_MAX)))
		n = -ENOMEM;
	else
		n = c ? c->get(fuse_req_userdata(req), buf) : fc->get(inode, buf);
	if (fc)
		sl_iput(inode);
	reply_value(req, n, buf, size);
}

static int set_control(fuse_req_t req, fuse_ino_t node, const char *name,
		       const char *value, size_t size, int flags)
{
	const struct control *c = find_control(node, name);
	const struct file_control *fc = NULL;
	struct inode *inode = NULL;
	char text[NUMBER_MAX + 4];
	int err = -EOPNOTSUPP;

	if (!c)
		fc = find_file_control(req, node, name, &inode);
	if (!c && !fc)
		return err;
	err = -EPERM;
	if (!(c ? c->set != NULL : fc->set != NULL) || !req_is_owner(req))
		goto out_put;
	err = -EEXIST;
	if (flags & XATTR_CREATE)
		goto out_put;
	err = -EINVAL;
	if (size >= sizeof(text) || memchr(value, '\0', size))
		goto out_put;
	memcpy(text, value, size);
	text[size] = '\0';
	err = c ? c->set(fuse_req_userdata(req), text) : fc->set(inode, text);
out_put:
	if (fc)
		sl_iput(inode);
	return err;
}

/* ---- attributes of the volume ---- */

static ssize_t get_value(fuse_req_t req, fuse_ino_t node, const char *name,
			 char *buf, size_t size)
{
	struct inode *inode;
	ssize_t n = req_inode(req, node, &inode);

	if (n)
		return n;
	n = sl_getxattr(inode, name, buf, size);
	sl_iput(inode);
	return n;
}

/* Names of trusted are for who may read their values. The sender is looked at when
 * there is one: *may is -1 before. */
static bool is_told(fuse_req_t req, const char *name, int *may)
{
	if (strncmp(name, "trusted.", 8) != 0)
		return true;
	if (is_control(name))
		return false;
	if (*may < 0)
		*may = req_capable(req, CAP_SYS_ADMIN);
	return *may;
}

/* Every name, ours left out. buf: VALUE_MAX bytes. */
static ssize_t get_list(fuse_req_t req, fuse_ino_t node, char *buf)
{
	struct inode *inode;
	int may = -1;
	size_t used = 0;
	ssize_t n = req_inode(req, node, &inode);

	if (n)
		return n;
	n = sl_listxattr(inode, true, buf, VALUE_MAX);
	sl_iput(inode);
	if (n < 0)
		return n == -ERANGE ? -E2BIG : n;
	for (const char *p = buf; p < buf + n;) {
		size_t len = strlen(p) + 1;

		if (is_told(req, p, &may)) {
			memmove(buf + used, p, len);
			used += len;
		}
		p += len;
	}
	return (ssize_t)used;
}

/* ---- the operations ---- */

void op_getxattr(fuse_req_t req, fuse_ino_t node, const char *name, size_t size)
{
	char *buf = NULL;
	ssize_t n;

	if (is_control(name)) {
		get_control(req, node, name, size);
		return;
	}
	if ((!strncmp(name, "security.", 9) || !strncmp(name, "system.", 7)) &&
	    sl_lacks_xattr(req_sb(req), node_to_ino(node), name)) {
		reply_status(req, strcmp(name, "security.selinux") ? -ENODATA
								   : -EOPNOTSUPP);
		return;
	}
	size = min_of(size, (size_t)VALUE_MAX);
	if (size)
		buf = loop_reply_buffer(size);
	n = size && !buf ? -ENOMEM : get_value(req, node, name, buf, size);
	reply_value(req, n, buf, size);
}

void op_listxattr(fuse_req_t req, fuse_ino_t node, size_t size)
{
	char *buf = NULL;
	ssize_t n = 0;

	if (!sl_has_no_xattrs(req_sb(req), node_to_ino(node))) {
		buf = loop_reply_buffer(VALUE_MAX);
		n = buf ? get_list(req, node, buf) : -ENOMEM;
	}
	reply_value(req, n, buf, size);
}

static int set_value(fuse_req_t req, fuse_ino_t node, const char *name,
		     const char *value, size_t size, int flags)
{
	struct sl_cred cred = req_cred(req);
	struct inode *inode;
	int err = req_inode(req, node, &inode);

	if (err)
		return err;
	err = sl_setxattr(inode, name, value, size,
			  (u32)flags | (session_kills_sgid() ? SL_XATTR_KILL_SGID : 0),
			  &cred);
	sl_iput(inode);
	return err;
}

void op_setxattr(fuse_req_t req, fuse_ino_t node, const char *name,
		 const char *value, size_t size, int flags)
{
	reply_status(req, is_control(name) ?
				  set_control(req, node, name, value, size, flags) :
				  set_value(req, node, name, value, size, flags));
}

static int remove_value(fuse_req_t req, fuse_ino_t node, const char *name)
{
	struct inode *inode;
	int err = req_inode(req, node, &inode);

	if (err)
		return err;
	err = sl_removexattr(inode, name);
	sl_iput(inode);
	return err;
}

void op_removexattr(fuse_req_t req, fuse_ino_t node, const char *name)
{
	struct inode *inode;
	int err = -ENODATA;

	if (!is_control(name)) {
		err = remove_value(req, node, name);
	} else if (find_control(node, name)) {
		err = -EPERM;
	} else if (find_file_control(req, node, name, &inode)) {
		sl_iput(inode);
		err = -EPERM;
	}
	reply_status(req, err);
}
