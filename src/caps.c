/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/caps.c - what the sender of a request may do: his capabilities, and who he is
 *
 * A request has the thread's number, user and group. The number may be another
 * thread's by now if the sender was killed meanwhile; one that has not the user of the
 * request is not him. With -o idmap the user is not said of most requests: but a thread
 * that waits for an answer waits also when it is killed, so its number stays its own.
 *
 * Locks: none. Threads: those of the request loop.
 */
#include "src/caps.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct sender {
	bool known;
	u32 fsuid, fsgid;
	u64 effective;
};

static void read_status(pid_t pid, struct sender *s)
{
	bool uid = false, gid = false, caps = false;
	char path[48], line[256];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return;
	while (!(uid && gid && caps) && fgets(line, sizeof(line), f)) {
		unsigned fs;
		unsigned long long eff;

		/* Real, effective, saved, and that for files. */
		if (sscanf(line, "Uid: %*u %*u %*u %u", &fs) == 1) {
			s->fsuid = fs;
			uid = true;
		} else if (sscanf(line, "Gid: %*u %*u %*u %u", &fs) == 1) {
			s->fsgid = fs;
			gid = true;
		} else if (sscanf(line, "CapEff: %llx", &eff) == 1) {
			s->effective = eff;
			caps = true;
		}
	}
	fclose(f);
	s->known = uid && gid && caps;
}

/* 1, 0, or -1: cannot be told. */
static int in_our_user_namespace(pid_t pid)
{
	struct stat ours, his;
	char path[48];

	snprintf(path, sizeof(path), "/proc/%d/ns/user", (int)pid);
	if (stat("/proc/self/ns/user", &ours) || stat(path, &his))
		return -1;
	return ours.st_ino == his.st_ino && ours.st_dev == his.st_dev;
}

bool req_capable(fuse_req_t req, unsigned cap)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct sender s = { .known = false };
	bool said = ctx->uid != ID_NOT_SAID;
	int ns = -1;

	if (ctx->pid > 0) {
		read_status(ctx->pid, &s);
		ns = in_our_user_namespace(ctx->pid);
	}
	if (!s.known || ns < 0)
		return ctx->uid == 0;
	return ns && (!said || s.fsuid == ctx->uid) && s.effective >> cap & 1;
}

static bool has_group(const gid_t *list, int n, u32 gid)
{
	for (int i = 0; i < n; i++)
		if (list[i] == gid)
			return true;
	return false;
}

bool req_in_group(fuse_req_t req, u32 gid)
{
	gid_t few[32], *all;
	u32 own_uid, own_gid;
	bool found;
	int n;

	req_ids(req, &own_uid, &own_gid);
	if (own_gid == gid)
		return true;
	n = fuse_req_getgroups(req, ARRAY_SIZE(few), few);
	if (n <= (int)ARRAY_SIZE(few))
		return has_group(few, n, gid);
	all = calloc((size_t)n, sizeof(*all));
	if (!all)
		return false;
	found = has_group(all, min_of(fuse_req_getgroups(req, n, all), n), gid);
	free(all);
	return found;
}

void req_ids(fuse_req_t req, u32 *uid, u32 *gid)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct sender s = { .known = false };

	*uid = ctx->uid;
	*gid = ctx->gid;
	if (likely(ctx->uid != ID_NOT_SAID) || ctx->pid <= 0)
		return;
	read_status(ctx->pid, &s);
	if (s.known) {
		*uid = s.fsuid;
		*gid = s.fsgid;
	}
}
