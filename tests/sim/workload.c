/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/sim/workload.c - streams: settings, the file format, generators
 *
 * A generator keeps a model of each thread's tree, as if every operation
 * succeeded, and draws the next operation with the weights of the profile;
 * most name something that is there. At run time the model follows what really
 * happened, so a stream stays valid when operations fail or are left out.
 *
 * Locks: none.
 */
#include "tests/sim/workload.h"

#include "fs/fs.h"
#include "tests/sim/model.h"

#include <inttypes.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>

#define CSUM "-O metadata_csum,64bit,^resize_inode"

#define EXT3                                                                   \
	"-O ^extent,^64bit,^flex_bg,^huge_file,^uninit_bg,^dir_nlink,^extra_isize," \
	"^metadata_csum,^orphan_file"

const struct sim_mkfs sim_mkfs[] = {
	{ "1k", "-b 1024 -J size=1 " CSUM ",orphan_file", "8M", 1024 },
	{ "4k", "-b 4096 -J size=4 " CSUM ",orphan_file", "16M", 4096 },
	{ "2k", "-b 2048 -J size=2 " CSUM ",^orphan_file,quota,project", "8M", 2048 },
	{ "1k-old", "-b 1024 -J size=1 -I 128 -O "
		    "^metadata_csum,^64bit,^orphan_file,uninit_bg,^resize_inode",
	  "8M", 1024 },
	{ "1k-groups", "-b 1024 -J size=1 -g 1024 " CSUM ",^flex_bg,^orphan_file", "8M",
	  1024 },
	{ "1k-tiny", "-b 1024 -J size=1 -N 96 -m 0 " CSUM ",orphan_file", "3M", 1024 },
	{ "4k-meta", "-b 4096 -J size=4 -O "
		     "metadata_csum,meta_bg,^64bit,^orphan_file,^resize_inode",
	  "16M", 4096 },
	/* As ext3 has it. */
	{ "1k-ext3", "-b 1024 -J size=1 " EXT3, "8M", 1024, .block_maps = true },
	{ "4k-ext3", "-b 4096 -J size=4 " EXT3, "16M", 4096, .block_maps = true },
	/* With an external journal: args say nothing of one. */
	{ "1k-log", "-b 1024 -O ^has_journal,^orphan_file,metadata_csum,64bit,^resize_inode",
	  "8M", 1024, false, "1M", "-O journal_dev,metadata_csum" },
	{ "4k-log", "-b 4096 -O ^has_journal,^orphan_file,^metadata_csum,^64bit", "16M", 4096,
	  false, "4M", "-O journal_dev,^metadata_csum" },
	/* Clusters of 4 and of 16 blocks. */
	{ "1k-big4", "-b 1024 -C 4096 -J size=1 " CSUM ",bigalloc,orphan_file,quota", "8M",
	  1024, .bigalloc = true },
	{ "1k-big16", "-b 1024 -C 16384 -J size=1 -m 0 -N 512 -O "
		      "^metadata_csum,64bit,^orphan_file,^resize_inode,bigalloc",
	  "8M", 1024, .bigalloc = true },
	{ "4k-big4", "-b 4096 -C 16384 -J size=4 " CSUM ",bigalloc,^orphan_file", "16M", 4096,
	  .bigalloc = true },
	/* Both. */
	{ "1k-big4-log", "-b 1024 -C 4096 -O ^has_journal,^orphan_file,metadata_csum,64bit,"
			 "^resize_inode,bigalloc",
	  "8M", 1024, false, "1M", "-O journal_dev,metadata_csum", .bigalloc = true },
	/* Those that draw_values() chooses. */
	{ "1k-ea", "-b 1024 -J size=1 " CSUM ",orphan_file,ea_inode", "8M", 1024 },
	{ "2k-ea", "-b 2048 -J size=2 -O "
		   "^metadata_csum,64bit,^orphan_file,^resize_inode,ea_inode",
	  "8M", 2048 },
};
const u32 sim_nr_mkfs = ARRAY_SIZE(sim_mkfs);
u32 sim_only_mkfs = SIM_NEVER;
/* The last ones are not drawn with the others. */
#define NR_BLOCK_MAPS 2u
#define NR_LOGS 2u
#define NR_BIGALLOC 3u
#define NR_BIGALLOC_LOGS 1u
#define NR_EA 2u
#define NR_ORDINARY                                                            \
	(sim_nr_mkfs - NR_BLOCK_MAPS - NR_LOGS - NR_BIGALLOC - NR_BIGALLOC_LOGS - NR_EA)

const char *const sim_op_name[OP_NR] = {
	[OP_CREATE] = "create",	  [OP_MKDIR] = "mkdir",	      [OP_SYMLINK] = "symlink",
	[OP_MKNOD] = "mknod",	  [OP_LINK] = "link",	      [OP_UNLINK] = "unlink",
	[OP_RMDIR] = "rmdir",	  [OP_RENAME] = "rename",     [OP_WRITE] = "write",
	[OP_TRUNCATE] = "trunc",  [OP_FALLOC] = "falloc",     [OP_CHMOD] = "chmod",
	[OP_CHOWN] = "chown",	  [OP_READ] = "read",	      [OP_FSYNC] = "fsync",
	[OP_FDATASYNC] = "fdatasync", [OP_SYNC] = "sync",     [OP_HOLD] = "hold",
	[OP_DROP] = "drop",	  [OP_HWRITE] = "hwrite",     [OP_HTRUNC] = "htrunc",
	[OP_HSYNC] = "hsync",	  [OP_CACHES] = "caches",     [OP_COPY] = "copy",
	[OP_UTIMES] = "utimes",	  [OP_SETXATTR] = "setxattr", [OP_RMXATTR] = "rmxattr",
	[OP_RELOCATE] = "relocate", [OP_MIGRATE] = "migrate",
	[OP_MOVE] = "move",
};

const char *const sim_xattr_name[SIM_XATTRS] = {
	"user.a", "trusted.second", "security.third", "user.another-with-a-longer-name",
};

u32 sim_mkfs_find(const char *name)
{
	for (u32 i = 0; i < sim_nr_mkfs; i++)
		if (!strcmp(sim_mkfs[i].name, name))
			return i;
	return SIM_NEVER;
}

/* ---- data ---- */

void sim_data(u64 seed, u64 off, u8 *buf, u32 len)
{
	u64 key = mix64(seed + 1);

	while (len) {
		u64 word = ((off >> 3) + key) * 0x9E3779B97F4A7C15ull;
		u32 skip = (u32)(off & 7), n = min_of(8 - skip, len);

		word ^= word >> 29;
		/* Neither zero nor the pattern of the empty device. */
		word |= 0x4040404040404040ull;
		memcpy(buf, (u8 *)&word + skip, n);
		buf += n;
		off += n;
		len -= n;
	}
}

void sim_xattr_text(char *buf, size_t size, u32 slot, const u8 *value, u32 len)
{
	size_t used = strlen(buf);
	u64 h = 0xCBF29CE484222325ull;

	for (u32 i = 0; i < len; i++)
		h = (h ^ value[i]) * 0x100000001B3ull;
	if (used < size)
		snprintf(buf + used, size - used, " %s=%u:%016" PRIx64,
			 sim_xattr_name[slot], len, h);
}

void sim_xattr_text_of(char *buf, size_t size, u32 slot, u64 seed, u32 len)
{
	u8 *value = malloc(len + 1);

	if (!value)
		abort();
	sim_data(seed, 0, value, len);
	sim_xattr_text(buf, size, slot, value, len);
	free(value);
}

void sim_target(u64 seed, u32 len, char *buf)
{
	for (u32 i = 0; i < len; i++)
		buf[i] = (char)('a' + mix64(seed + i / 8) % 26);
	buf[len] = 0;
}

/* ---- streams ---- */

void sim_stream_init(struct sim_stream *s)
{
	memset(s, 0, sizeof(*s));
	s->threads = 1;
}

void sim_stream_release(struct sim_stream *s)
{
	for (u32 i = 0; i < s->nr_ops; i++) {
		free(s->op[i].path);
		free(s->op[i].path2);
	}
	free(s->op);
	sim_stream_init(s);
}

static char *dup_or_null(const char *str)
{
	char *copy = str ? strdup(str) : NULL;

	if (str && !copy)
		abort();
	return copy;
}

void sim_stream_add(struct sim_stream *s, const struct sim_op *op)
{
	struct sim_op *to;

	if (s->nr_ops == s->max_ops) {
		s->max_ops = s->max_ops ? 2 * s->max_ops : 64;
		s->op = realloc(s->op, s->max_ops * sizeof(*s->op));
		if (!s->op)
			abort();
	}
	to = &s->op[s->nr_ops++];
	*to = *op;
	to->path = dup_or_null(op->path);
	to->path2 = dup_or_null(op->path2);
}

void sim_stream_without(const struct sim_stream *s, u32 from, u32 to,
			struct sim_stream *out)
{
	*out = *s;
	out->op = NULL;
	out->nr_ops = out->max_ops = 0;
	for (u32 i = 0; i < s->nr_ops; i++)
		if (i < from || i >= to)
			sim_stream_add(out, &s->op[i]);
}

/* ---- the file format ---- */

/* What follows the name of an operation: p path, P second path, o offset, l length, m
 * mode (octal), f flags, s seed, h slot. */
static const char *const op_args[OP_NR] = {
	[OP_CREATE] = "pm",  [OP_MKDIR] = "pm",	   [OP_SYMLINK] = "pls",
	[OP_MKNOD] = "pm",   [OP_LINK] = "pP",	   [OP_UNLINK] = "p",
	[OP_RMDIR] = "p",    [OP_RENAME] = "pPf",  [OP_WRITE] = "polsf",
	[OP_TRUNCATE] = "po", [OP_FALLOC] = "polf", [OP_CHMOD] = "pm",
	[OP_CHOWN] = "pm",   [OP_READ] = "p",	   [OP_FSYNC] = "p",
	[OP_FDATASYNC] = "p", [OP_SYNC] = "",	   [OP_HOLD] = "ph",
	[OP_DROP] = "h",     [OP_HWRITE] = "hols", [OP_HTRUNC] = "ho",
	[OP_HSYNC] = "h",    [OP_CACHES] = "",	   [OP_COPY] = "pPols",
	[OP_UTIMES] = "pol", [OP_SETXATTR] = "phlsf", [OP_RMXATTR] = "ph",
	[OP_RELOCATE] = "p", [OP_MIGRATE] = "pf",
	[OP_MOVE] = "pPols",
};

/* Paths have no blanks; the empty one is written as "/". */
void sim_op_print(const struct sim_op *op, FILE *f)
{
	fprintf(f, "op %u %s", op->thread, sim_op_name[op->kind]);
	for (const char *a = op_args[op->kind]; *a; a++)
		switch (*a) {
		case 'p': fprintf(f, " %s", *op->path ? op->path : "/"); break;
		case 'P': fprintf(f, " %s", *op->path2 ? op->path2 : "/"); break;
		case 'o': fprintf(f, " %" PRIu64, op->off); break;
		case 'l': fprintf(f, " %u", op->len); break;
		case 'm': fprintf(f, " %o", op->mode); break;
		case 'f': fprintf(f, " %u", op->flags); break;
		case 's': fprintf(f, " %" PRIu64, op->seed); break;
		case 'h': fprintf(f, " %u", op->slot); break;
		}
	fprintf(f, "\n");
}

struct setting {
	const char *name;
	size_t at;
	bool flag;
};

#define U32(n) { #n, offsetof(struct sim_stream, n), false }
#define FLAG(n) { #n, offsetof(struct sim_stream, n), true }
static const struct setting settings[] = {
	U32(threads),	 U32(commit_ms), U32(expire_ms),    FLAG(sync),
	FLAG(dev_threaded), U32(delay_us), U32(fault.op),   U32(fault.nth),
	FLAG(fault.forever), FLAG(fault.partial), U32(oom), U32(drop_flush),
	U32(points),	 FLAG(lying),	 U32(enospc),	    U32(stall_ms),
	FLAG(now),
	FLAG(nodelalloc), U32(zones),
};

void sim_stream_write(const struct sim_stream *s, FILE *f)
{
	fprintf(f, "# sluice sim stream\nseed %" PRIu64 "\nmkfs %s\n", s->seed,
		sim_mkfs[s->mkfs].name);
	for (u32 i = 0; i < ARRAY_SIZE(settings); i++) {
		const u8 *at = (const u8 *)s + settings[i].at;
		u32 v;

		if (settings[i].flag)
			v = *(const bool *)at;
		else
			memcpy(&v, at, sizeof(v));
		if (v)
			fprintf(f, "%s %u\n", settings[i].name, v);
	}
	for (u32 i = 0; i < s->nr_ops; i++)
		sim_op_print(&s->op[i], f);
}

static bool read_op(struct sim_op *op, char *line)
{
	char *save, *word = strtok_r(line, " \n", &save);

	memset(op, 0, sizeof(*op));
	if (!word)
		return false;
	op->thread = (u8)strtoul(word, NULL, 10);
	word = strtok_r(NULL, " \n", &save);
	if (!word || op->thread >= SIM_THREADS)
		return false;
	while (op->kind < OP_NR && strcmp(sim_op_name[op->kind], word))
		op->kind++;
	if (op->kind == OP_NR)
		return false;
	for (const char *a = op_args[op->kind]; *a; a++) {
		word = strtok_r(NULL, " \n", &save);
		if (!word)
			return false;
		switch (*a) {
		case 'p': op->path = strcmp(word, "/") ? word : ""; break;
		case 'P': op->path2 = strcmp(word, "/") ? word : ""; break;
		case 'o': op->off = strtoull(word, NULL, 10); break;
		case 'l': op->len = (u32)strtoul(word, NULL, 10); break;
		case 'm': op->mode = (u32)strtoul(word, NULL, 8); break;
		case 'f': op->flags = (u32)strtoul(word, NULL, 10); break;
		case 's': op->seed = strtoull(word, NULL, 10); break;
		case 'h': op->slot = (u8)strtoul(word, NULL, 10); break;
		}
	}
	return op->slot < SIM_HANDLES &&
	       (op->kind != OP_SETXATTR || op->len <= SIM_XATTR_MAX) &&
	       op->len <= (op->kind == OP_UTIMES ? 999999999 : 64u << 20);
}

static bool read_setting(struct sim_stream *s, const char *name, const char *value)
{
	if (!strcmp(name, "seed")) {
		s->seed = strtoull(value, NULL, 10);
		return true;
	}
	if (!strcmp(name, "mkfs")) {
		s->mkfs = sim_mkfs_find(value);
		return s->mkfs != SIM_NEVER;
	}
	for (u32 i = 0; i < ARRAY_SIZE(settings); i++) {
		u8 *at = (u8 *)s + settings[i].at;
		u32 v = (u32)strtoul(value, NULL, 10);

		if (strcmp(name, settings[i].name))
			continue;
		if (settings[i].flag)
			*(bool *)at = v != 0;
		else
			memcpy(at, &v, sizeof(v));
		return true;
	}
	return false;
}

int sim_stream_read(struct sim_stream *s, FILE *f, const char *name)
{
	char *line = NULL;
	size_t max = 0;
	u32 number = 0;
	bool ok = true;

	sim_stream_init(s);
	while (ok && getline(&line, &max, f) >= 0) {
		char key[32], value[64];
		struct sim_op op;

		number++;
		if (line[0] == '#' || line[0] == '\n')
			continue;
		if (!strncmp(line, "op ", 3)) {
			ok = read_op(&op, line + 3);
			if (ok)
				sim_stream_add(s, &op);
		} else {
			ok = sscanf(line, "%31s %63s", key, value) == 2 &&
			     read_setting(s, key, value);
		}
	}
	free(line);
	if (ok && s->threads && s->threads <= SIM_THREADS)
		return 0;
	fprintf(stderr, "%s:%u: cannot read this line\n", name, number);
	sim_stream_release(s);
	return -EINVAL;
}

/* ---- random streams ---- */

_Static_assert(SIM_XATTRS <= SIM_HANDLES, "slots of both");
#define MAX_FILE (192u * 1024)
#define MODE_PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define MODE_ZERO FALLOC_FL_ZERO_RANGE

struct gen {
	struct sim_stream *s;
	struct rng rng;
	enum sim_profile profile;
	struct model *m[SIM_THREADS];
	u32 t; /* thread of the next operation */
	/* names that are there, by kind; taken anew for each operation */
	struct pool {
		char **path;
		u32 nr, max;
	} files, dirs, all;
	u32 bs;
};

static void pool_clear(struct pool *p)
{
	for (u32 i = 0; i < p->nr; i++)
		free(p->path[i]);
	p->nr = 0;
}

static void pool_add(struct pool *p, const char *path)
{
	if (p->nr == p->max) {
		p->max = p->max ? 2 * p->max : 64;
		p->path = realloc(p->path, p->max * sizeof(*p->path));
		if (!p->path)
			abort();
	}
	p->path[p->nr++] = dup_or_null(path);
}

static void gather(void *priv, const char *path, struct m_inode *in)
{
	struct gen *g = priv;

	pool_add(&g->all, path);
	if (S_ISREG(m_inode_mode(in)))
		pool_add(&g->files, path);
	if (S_ISDIR(m_inode_mode(in)))
		pool_add(&g->dirs, path);
}

static void look_around(struct gen *g)
{
	pool_clear(&g->files);
	pool_clear(&g->dirs);
	pool_clear(&g->all);
	model_each_name(g->m[g->t], gather, g);
}

/* One that is there; else a name that probably is not. */
static void pick(struct gen *g, const struct pool *p, char *buf)
{
	if (!p->nr)
		strcpy(buf, "nothing");
	else
		snprintf(buf, 4096, "%s", p->path[rng_below(&g->rng, p->nr)]);
}

static void pick_new(struct gen *g, char *buf)
{
	bool names = g->profile == SIM_PROFILE_NAMES;
	size_t len = 0;
	u32 k = rng_below(&g->rng, names ? 400 : 60);

	if (g->dirs.nr && rng_chance(&g->rng, names ? 80 : 60)) {
		/* Large directories need many names in few places. */
		u32 d = rng_below(&g->rng, names ? min_of(g->dirs.nr, 2u) : g->dirs.nr);

		len = (size_t)snprintf(buf, 3000, "%s/", g->dirs.path[d]);
		if (len > 600)
			len = 0;
	}
	len += (size_t)snprintf(buf + len, 64, "n%u", k);
	if (k % 5 == 0 || (names && k % 3)) {
		u32 pad = 40 + (u32)(mix64(k) % 190);

		memset(buf + len, 'x', pad);
		buf[len + pad] = 0;
	}
}

static void pick_range(struct gen *g, u64 size, u64 *off, u32 *len)
{
	struct rng *r = &g->rng;
	u32 bs = g->bs;

	switch (rng_below(r, 4)) {
	case 0: *off = size; break;
	case 1: *off = (u64)rng_below(r, MAX_FILE / bs) * bs; break;
	case 2: *off = size ? rng_below(r, (u32)size) : 0; break;
	default: *off = rng_below(r, MAX_FILE); break;
	}
	switch (rng_below(r, 4)) {
	case 0: *len = 1 + rng_below(r, 300); break;
	case 1: *len = bs * (1 + rng_below(r, 4)); break;
	case 2: *len = 1 + rng_below(r, 20000); break;
	default: *len = bs; break;
	}
	if (g->profile == SIM_PROFILE_FULL && rng_chance(r, 50))
		*len = 30000 + rng_below(r, 200000);
	if (g->profile == SIM_PROFILE_DATA && rng_chance(r, 40)) {
		/* Every other block: many extents. */
		*off = (u64)rng_below(r, MAX_FILE / bs / 2) * 2 * bs;
		*len = bs;
	}
}

/* Small inodes have 31 bits of seconds and a sign, and nothing below. */
static void pick_time(struct gen *g, struct sim_op *op)
{
	static const s64 edge[] = { 0, 1, -1, INT32_MAX, INT32_MIN, INT32_MAX + 1ll,
				    1ll << 32, (1ll << 33) + 5 };
	bool small = !strcmp(sim_mkfs[g->s->mkfs].name, "1k-old");
	s64 sec = rng_chance(&g->rng, 30)
			  ? edge[rng_below(&g->rng, small ? 5 : ARRAY_SIZE(edge))]
			  : (s64)rng_below(&g->rng, INT32_MAX);

	op->off = (u64)sec;
	op->len = small ? 0 : rng_below(&g->rng, 1000000000);
}

/* Weights of the operations, by profile. */
static const u8 weight[SIM_PROFILE_NR][OP_NR] = {
	[SIM_PROFILE_MIXED] = { [OP_CREATE] = 14, [OP_MKDIR] = 5, [OP_SYMLINK] = 3,
		[OP_MKNOD] = 1, [OP_LINK] = 5, [OP_UNLINK] = 9, [OP_RMDIR] = 4,
		[OP_RENAME] = 10, [OP_WRITE] = 24, [OP_TRUNCATE] = 6, [OP_FALLOC] = 7,
		[OP_COPY] = 2, [OP_CHMOD] = 2, [OP_CHOWN] = 2, [OP_UTIMES] = 5, [OP_READ] = 3,
		[OP_FSYNC] = 7,
		[OP_FDATASYNC] = 3, [OP_SYNC] = 2, [OP_HOLD] = 3, [OP_DROP] = 2,
		[OP_HWRITE] = 3, [OP_HTRUNC] = 1, [OP_HSYNC] = 1, [OP_CACHES] = 1,
		[OP_RELOCATE] = 3 },
	[SIM_PROFILE_NAMES] = { [OP_CREATE] = 40, [OP_MKDIR] = 4, [OP_SYMLINK] = 4,
		[OP_LINK] = 8, [OP_UNLINK] = 14, [OP_RMDIR] = 2, [OP_RENAME] = 18,
		[OP_UTIMES] = 2, [OP_WRITE] = 2, [OP_FSYNC] = 3, [OP_SYNC] = 1, [OP_HOLD] = 2,
		[OP_DROP] = 1, [OP_CACHES] = 1 },
	[SIM_PROFILE_DATA] = { [OP_CREATE] = 5, [OP_UNLINK] = 3, [OP_RENAME] = 4,
		[OP_WRITE] = 50, [OP_TRUNCATE] = 12, [OP_FALLOC] = 20, [OP_COPY] = 4, [OP_UTIMES] = 4,
		[OP_READ] = 4,
		[OP_FSYNC] = 8, [OP_FDATASYNC] = 8, [OP_SYNC] = 2, [OP_HOLD] = 2,
		[OP_DROP] = 1, [OP_HWRITE] = 3, [OP_HTRUNC] = 2, [OP_HSYNC] = 1,
		[OP_CACHES] = 2, [OP_RELOCATE] = 10 },
	[SIM_PROFILE_FULL] = { [OP_CREATE] = 16, [OP_MKDIR] = 8, [OP_SYMLINK] = 6,
		[OP_LINK] = 3, [OP_UNLINK] = 8, [OP_RMDIR] = 2, [OP_RENAME] = 6,
		[OP_WRITE] = 34, [OP_TRUNCATE] = 6, [OP_FALLOC] = 8, [OP_COPY] = 2, [OP_FSYNC] = 5,
		[OP_FDATASYNC] = 2, [OP_SYNC] = 2, [OP_HOLD] = 2, [OP_DROP] = 1,
		[OP_HWRITE] = 2, [OP_RELOCATE] = 4 },
	[SIM_PROFILE_CHURN] = { [OP_CREATE] = 14, [OP_MKDIR] = 14, [OP_SYMLINK] = 8,
		[OP_UNLINK] = 16, [OP_RMDIR] = 12, [OP_RENAME] = 4, [OP_WRITE] = 22,
		[OP_TRUNCATE] = 4, [OP_FSYNC] = 6, [OP_FDATASYNC] = 3, [OP_SYNC] = 3,
		[OP_HOLD] = 3, [OP_DROP] = 2, [OP_HWRITE] = 2 },
};

static enum sim_op_kind draw_kind(struct gen *g)
{
	const u8 *w = weight[g->profile];
	u32 sum = 0, n;

	for (u32 i = 0; i < OP_NR; i++)
		sum += w[i];
	n = rng_below(&g->rng, sum);
	for (u32 i = 0; i < OP_NR; i++) {
		if (n < w[i])
			return i;
		n -= w[i];
	}
	return OP_SYNC;
}

/* The size of what op is about, as the generator's model has it. */
static u64 size_of(struct gen *g, const struct sim_op *op)
{
	struct m_inode *in = op->path ? model_find(g->m[g->t], op->path)
				      : model_slot(g->m[g->t], op->slot);

	return in ? m_inode_size(in) : 0;
}

static void fill_paths(struct gen *g, struct sim_op *op, char *path, char *path2)
{
	struct rng *r = &g->rng;

	op->path = path;
	switch (op->kind) {
	case OP_CREATE:
	case OP_MKDIR:
	case OP_SYMLINK:
	case OP_MKNOD:
		pick_new(g, path);
		return;
	case OP_LINK:
		pick(g, &g->files, path);
		pick_new(g, op->path2 = path2);
		return;
	case OP_COPY:
		pick(g, &g->files, path);
		pick(g, &g->files, op->path2 = path2);
		return;
	case OP_RENAME:
		pick(g, &g->all, path);
		op->path2 = path2;
		if (rng_chance(r, 55))
			pick_new(g, path2);
		else
			pick(g, rng_chance(r, 70) ? &g->files : &g->all, path2);
		op->flags = rng_chance(r, 12) ? RENAME_EXCHANGE :
			    rng_chance(r, 10) ? RENAME_NOREPLACE : 0;
		return;
	case OP_UNLINK:
	case OP_CHMOD:
	case OP_CHOWN:
	case OP_UTIMES:
		pick(g, op->kind == OP_UNLINK && rng_chance(r, 60) ? &g->files : &g->all, path);
		return;
	case OP_RMDIR:
		pick(g, &g->dirs, path);
		return;
	case OP_FSYNC:
		if (rng_chance(r, 30))
			rng_chance(r, 50) ? (void)(*path = 0) : pick(g, &g->dirs, path);
		else
			pick(g, &g->files, path);
		return;
	case OP_SYNC:
	case OP_CACHES:
	case OP_DROP:
	case OP_HWRITE:
	case OP_HTRUNC:
	case OP_HSYNC:
		op->path = NULL;
		return;
	default:
		pick(g, &g->files, path);
	}
}

static void draw_op(struct gen *g)
{
	static const u32 sync_flags[] = { SL_OPEN_SYNC, SL_OPEN_DSYNC };
	static const u32 falloc_modes[] = {
		0, FALLOC_FL_KEEP_SIZE, MODE_PUNCH, MODE_PUNCH, MODE_ZERO,
		MODE_ZERO | FALLOC_FL_KEEP_SIZE,
	};
	char path[8192], path2[8192];
	struct sim_op op = { .kind = draw_kind(g), .thread = (u8)g->t };
	struct rng *r = &g->rng;
	u64 size;

	look_around(g);
	op.slot = (u8)rng_below(r, SIM_HANDLES);
	op.seed = rng_next(r) >> 16;
	op.mode = 0600 | (rng_below(r, 64));
	fill_paths(g, &op, path, path2);
	if (op.path && strlen(op.path) > 1500)
		return;
	size = size_of(g, &op);
	switch (op.kind) {
	case OP_CHOWN:
		op.mode = rng_below(r, 3) * 1000;
		break;
	case OP_UTIMES:
		pick_time(g, &op);
		break;
	case OP_CHMOD:
		if (model_find(g->m[g->t], op.path) &&
		    S_ISLNK(m_inode_mode(model_find(g->m[g->t], op.path))))
			return;
		break;
	case OP_SYMLINK:
		op.len = 1 + rng_below(r, rng_chance(r, 50) ? 59 : 900);
		break;
	case OP_WRITE:
	case OP_HWRITE:
		pick_range(g, size, &op.off, &op.len);
		if (op.kind == OP_WRITE && rng_chance(r, 8))
			op.flags = sync_flags[rng_below(r, 2)];
		break;
	case OP_FALLOC:
		pick_range(g, size, &op.off, &op.len);
		op.len += rng_below(r, 30000);
		op.flags = falloc_modes[rng_below(r, ARRAY_SIZE(falloc_modes))];
		break;
	case OP_COPY:
		pick_range(g, size, &op.off, &op.len);
		op.seed = rng_below(r, MAX_FILE / 2);
		break;
	case OP_TRUNCATE:
	case OP_HTRUNC:
		op.off = rng_chance(r, 20) ? 0 :
			 rng_chance(r, 40) && size ? rng_below(r, (u32)size) :
						     rng_below(r, MAX_FILE);
		break;
	default:
		break;
	}
	sim_stream_add(g->s, &op);
	model_apply(g->m[g->t], &op, model_expect(g->m[g->t], &op), 0);
}

bool sim_mkfs_has_values(u32 mkfs)
{
	return mkfs >= sim_nr_mkfs - NR_EA;
}

/*
 * Attributes, beside the operations that were drawn. From a sequence of its own, so that
 * old seeds are still the same operations, with these in between.
 */
static void draw_xattr(struct gen *g, struct rng *r)
{
	/* Few different ones, so that many are equal. */
	static const u32 large[] = { 900, 1001, 2500, 6000, 6000, 17000 };
	struct sim_op op = { .kind = OP_SETXATTR, .thread = (u8)g->t };

	look_around(g);
	if (!g->all.nr)
		return;
	op.path = g->all.path[rng_below(r, g->all.nr)];
	op.slot = (u8)rng_below(r, SIM_XATTRS);
	if (strlen(op.path) > 1500)
		return;
	if (rng_chance(r, 25)) {
		op.kind = OP_RMXATTR;
	} else {
		op.len = rng_below(r, rng_chance(r, 50) ? 24 : SIM_XATTR_SMALL + 1);
		op.seed = rng_next(r) >> 16;
		if (sim_mkfs_has_values(g->s->mkfs) && op.seed % 2) {
			op.seed = op.seed / 2 % ARRAY_SIZE(large);
			op.len = large[op.seed];
		} else if (op.seed % 3 == 0 && !strstr(sim_mkfs[g->s->mkfs].args, "quota")) {
			/* Equal blocks. With quota e2fsck (1.47.0) forgets to take an
			 * orphan's share of such a block from its owner's usage. */
			op.seed = op.seed / 3 % 2;
			op.len = SIM_XATTR_SMALL - 20;
		}
		op.flags = rng_chance(r, 10) ? 1 + rng_below(r, 2) : 0;
	}
	sim_stream_add(g->s, &op);
	model_apply(g->m[g->t], &op, model_expect(g->m[g->t], &op), 0);
}

/* chattr -e and +e; likewise. */
static void draw_migrate(struct gen *g, struct rng *r)
{
	struct sim_op op = { .kind = OP_MIGRATE, .thread = (u8)g->t };

	look_around(g);
	if (!g->files.nr)
		return;
	op.path = g->files.path[rng_below(r, g->files.nr)];
	op.flags = rng_below(r, 2);
	if (strlen(op.path) > 1500)
		return;
	sim_stream_add(g->s, &op);
	model_apply(g->m[g->t], &op, model_expect(g->m[g->t], &op), 0);
}

/* Ranges that are collapsed or inserted, in the same way. */
static void draw_shift(struct gen *g, struct rng *r)
{
	struct sim_op op = { .kind = OP_FALLOC, .thread = (u8)g->t,
			     .flags = FALLOC_FL_COLLAPSE_RANGE };
	u32 units, len;

	look_around(g);
	if (!g->files.nr)
		return;
	op.path = g->files.path[rng_below(r, g->files.nr)];
	if (strlen(op.path) > 1500)
		return;
	units = (u32)DIV_ROUND_UP(size_of(g, &op), 4096);
	/* Now and then too far. */
	op.off = rng_below(r, units + (rng_chance(r, 10) ? 2 : 0) + !units) * 4096ull;
	len = 1 + rng_below(r, rng_chance(r, 70) ? 3 : 20);
	if (rng_chance(r, 50) && units + len <= MAX_FILE / 4096)
		op.flags = FALLOC_FL_INSERT_RANGE;
	else if (units > op.off / 4096 && rng_chance(r, 80))
		len = 1 + len % (units - (u32)(op.off / 4096));
	op.len = len * 4096;
	sim_stream_add(g->s, &op);
	model_apply(g->m[g->t], &op, model_expect(g->m[g->t], &op), 0);
}

/* Data that moves to the blocks of another file, which may have got them for that; likewise. */
static void draw_move(struct gen *g, struct rng *r)
{
	struct sim_op op = { .kind = OP_MOVE, .thread = (u8)g->t }, get;
	u32 bs = g->bs, units;

	look_around(g);
	if (!g->files.nr)
		return;
	op.path = g->files.path[rng_below(r, g->files.nr)];
	op.path2 = g->files.path[rng_below(r, g->files.nr)];
	if (strlen(op.path) > 1500 || strlen(op.path2) > 1500)
		return;
	units = (u32)DIV_ROUND_UP(size_of(g, &op), bs) + 1;
	op.off = (u64)rng_below(r, units) * bs;
	op.len = (1 + rng_below(r, rng_chance(r, 50) ? 6 : SIM_MOVE_MAX)) * bs;
	op.seed = rng_chance(r, 70) ? op.off : (u64)rng_below(r, units) * bs;
	get = (struct sim_op){ .kind = OP_FALLOC, .thread = op.thread, .path = op.path2,
			       .off = op.seed, .len = op.len };
	if (rng_chance(r, 50) && get.off + get.len <= MAX_FILE) {
		sim_stream_add(g->s, &get);
		model_apply(g->m[g->t], &get, model_expect(g->m[g->t], &get), 0);
	}
	sim_stream_add(g->s, &op);
	model_apply(g->m[g->t], &op, model_expect(g->m[g->t], &op), 0);
}

static void add_and_apply(struct gen *g, const struct sim_op *op)
{
	sim_stream_add(g->s, op);
	model_apply(g->m[g->t], op, model_expect(g->m[g->t], op), 0);
}

/* Both have data there, and it is durable: a power cut must find one or the other of a donor's
 * block and nothing of the file's, nor in the file what is written to the donor next. */
static void draw_move_over(struct gen *g, struct rng *r)
{
	struct sim_op write = { .kind = OP_WRITE, .thread = (u8)g->t };
	struct sim_op sync = { .kind = OP_SYNC, .thread = (u8)g->t };
	struct sim_op move = { .kind = OP_MOVE, .thread = (u8)g->t };
	u32 first;

	look_around(g);
	if (g->files.nr < 2)
		return;
	first = rng_below(r, g->files.nr);
	move.path = g->files.path[first];
	move.path2 = g->files.path[(first + 1 + rng_below(r, g->files.nr - 1)) % g->files.nr];
	if (strlen(move.path) > 1500 || strlen(move.path2) > 1500)
		return;
	move.len = write.len = (1 + rng_below(r, 6)) * g->bs;
	for (u32 i = 0; i < 2; i++) {
		write.path = i ? move.path2 : move.path;
		write.seed = rng_next(r) >> 16;
		add_and_apply(g, &write);
	}
	add_and_apply(g, &sync);
	add_and_apply(g, &move);
	write.seed = rng_next(r) >> 16;
	add_and_apply(g, &write);
	sync.kind = OP_FDATASYNC;
	sync.path = write.path;
	add_and_apply(g, &sync);
}

/* Overwrites in place: data that no transaction carries along. */
static void draw_overwrite(struct gen *g)
{
	static const enum sim_op_kind kinds[] = { OP_WRITE, OP_FSYNC, OP_WRITE,
						  OP_FDATASYNC };
	char path[8192];
	struct sim_op op = { .thread = (u8)g->t, .path = path };

	look_around(g);
	pick(g, &g->files, path);
	if (!g->files.nr || strlen(path) > 1500)
		return;
	op.off = rng_below(&g->rng, 30000);
	op.len = 1 + rng_below(&g->rng, 9000);
	for (u32 i = 0; i < ARRAY_SIZE(kinds); i++) {
		op.kind = kinds[i];
		op.seed = rng_next(&g->rng) >> 16;
		sim_stream_add(g->s, &op);
		model_apply(g->m[g->t], &op, model_expect(g->m[g->t], &op), 0);
	}
}

static void draw_settings(struct sim_stream *s, struct rng *r, enum sim_profile profile)
{
	static const u32 commits[] = { 0, 0, 0, 1, 20 };
	static const u32 expires[] = { 0, 0, 1, 30 };

	s->mkfs = rng_below(r, NR_ORDINARY);
	if (profile == SIM_PROFILE_FULL && rng_chance(r, 60))
		s->mkfs = sim_mkfs_find("1k-tiny");
	s->commit_ms = commits[rng_below(r, ARRAY_SIZE(commits))];
	s->expire_ms = expires[rng_below(r, ARRAY_SIZE(expires))];
	s->sync = rng_chance(r, 8);
	s->dev_threaded = rng_chance(r, 40);
	s->delay_us = s->dev_threaded && rng_chance(r, 30) ? rng_below(r, 300) : 0;
	s->now = rng_chance(r, 50);
	s->stall_ms = s->dev_threaded && rng_chance(r, 10) ? 1 + rng_below(r, 8) : 0;
}

/* From a sequence of its own, so that old seeds are still the same operations. */
static bool draw_nodelalloc(u64 seed)
{
	struct rng r = rng_derive(seed, 0x0DE1A110C);

	return rng_chance(&r, 25);
}

/* The same. */
static u32 draw_zones(u64 seed)
{
	static const u32 zones[] = { 1, 1, 2, 8 };
	struct rng r = rng_derive(seed, 0x20E5);

	return zones[rng_below(&r, ARRAY_SIZE(zones))];
}

/* The same: a volume without extents, in place of the one that was drawn. */
static void draw_block_maps(struct sim_stream *s)
{
	struct rng r = rng_derive(s->seed, 0xE273);

	if (rng_chance(&r, 15))
		s->mkfs = NR_ORDINARY + rng_below(&r, NR_BLOCK_MAPS);
}

/* The same: the journal on a device of its own. */
static void draw_log(struct sim_stream *s)
{
	struct rng r = rng_derive(s->seed, 0x106DE7);

	if (strcmp(sim_mkfs[s->mkfs].name, "1k-tiny") && rng_chance(&r, 15))
		s->mkfs = NR_ORDINARY + NR_BLOCK_MAPS + rng_below(&r, NR_LOGS);
}

/* The same: one with clusters; or with those and such a journal. */
static void draw_bigalloc(struct sim_stream *s)
{
	struct rng r = rng_derive(s->seed, 0xB16A110C);
	u32 first = NR_ORDINARY + NR_BLOCK_MAPS + NR_LOGS;

	if (!rng_chance(&r, 15))
		return;
	s->mkfs = first + rng_below(&r, NR_BIGALLOC);
	if (rng_chance(&r, 20))
		s->mkfs = first + NR_BIGALLOC + rng_below(&r, NR_BIGALLOC_LOGS);
}

/* Whether large values of attributes have inodes of their own. The same, but for where a
 * stream that has attributes is carried out. */
static void draw_values(struct sim_stream *s, u64 seed)
{
	struct rng r = rng_derive(seed, 0xEA1D0DE);

	if (strcmp(sim_mkfs[s->mkfs].name, "1k-tiny") && rng_chance(&r, 30))
		s->mkfs = sim_nr_mkfs - 1 - rng_below(&r, NR_EA);
}

static void draw_fault(struct sim_stream *s, struct rng *r)
{
	static const u32 span[] = { 0, 25, 90, 15, 110 };

	s->fault.op = SIM_FAULT_READ + rng_below(r, SIM_FAULT_NR - SIM_FAULT_READ);
	s->fault.nth = rng_below(r, span[s->fault.op] >> rng_below(r, 3));
	s->fault.forever = rng_chance(r, 40);
	s->fault.partial = rng_chance(r, 50);
	if (rng_chance(r, 20)) {
		s->fault.op = SIM_FAULT_NONE;
		s->oom = 1 + rng_below(r, 4000u >> (2 * rng_below(r, 4)));
	} else if (rng_chance(r, 15)) {
		s->fault.op = SIM_FAULT_NONE;
		s->enospc = 1 + rng_below(r, 400u >> rng_below(r, 6));
	}
}

void sim_stream_generate(struct sim_stream *s, u64 seed, enum sim_profile profile)
{
	struct gen g = { .s = s, .rng = rng_derive(seed, 0x5712EA) };
	struct rng xattr_rng = rng_derive(seed, 0x8A77A);
	u32 xattr_percent = rng_chance(&xattr_rng, 60) ? 3 + rng_below(&xattr_rng, 20) : 0;
	struct rng migrate_rng = rng_derive(seed, 0x316A7E);
	u32 migrate_percent = rng_chance(&migrate_rng, 35) ? 3 + rng_below(&migrate_rng, 10) : 0;
	struct rng shift_rng = rng_derive(seed, 0x5811F7);
	u32 shift_percent = rng_chance(&shift_rng, 50) ? 2 + rng_below(&shift_rng, 12) : 0;
	struct rng move_rng = rng_derive(seed, 0x30FE);
	u32 move_percent = rng_chance(&move_rng, 50) ? 2 + rng_below(&move_rng, 12) : 0;
	struct rng over_rng = rng_derive(seed, 0x30FE02);
	bool faults = false, threads = false;
	u32 n;

	sim_stream_init(s);
	s->seed = seed;
	if (profile == SIM_PROFILE_ANY)
		profile = SIM_PROFILE_MIXED + rng_below(&g.rng, SIM_PROFILE_NR - 1);
	s->nodelalloc = draw_nodelalloc(seed);
	s->zones = draw_zones(seed);
	draw_settings(s, &g.rng, profile);
	draw_block_maps(s);
	draw_log(s);
	draw_bigalloc(s);
	if (xattr_percent)
		draw_values(s, seed);
	if (sim_only_mkfs != SIM_NEVER)
		s->mkfs = sim_only_mkfs;
	if (profile == SIM_PROFILE_FAULTS) {
		faults = true;
		profile = SIM_PROFILE_MIXED + rng_below(&g.rng, 5);
	}
	if (profile == SIM_PROFILE_THREADS) {
		threads = true;
		profile = SIM_PROFILE_MIXED + rng_below(&g.rng, 5);
	}
	if (faults) {
		draw_fault(s, &g.rng);
		/* An operation that was done but could not be made durable says
		 * so: the model would not know which. */
		s->sync = false;
	}
	if (threads)
		s->threads = 2 + rng_below(&g.rng, SIM_THREADS - 1);
	g.profile = profile;
	g.bs = sim_mkfs[s->mkfs].blocksize;
	n = 40 + rng_below(&g.rng, profile == SIM_PROFILE_NAMES ? 400 : 160);
	for (u32 t = 0; t < s->threads; t++)
		g.m[t] = model_new(false, false, &sim_mkfs[s->mkfs]);
	for (u32 i = 0; i < n * s->threads; i++) {
		g.t = i % s->threads;
		if (profile == SIM_PROFILE_DATA && rng_chance(&g.rng, 5))
			draw_overwrite(&g);
		else
			draw_op(&g);
		if (rng_chance(&xattr_rng, xattr_percent))
			draw_xattr(&g, &xattr_rng);
		if (rng_chance(&migrate_rng, migrate_percent))
			draw_migrate(&g, &migrate_rng);
		if (shift_percent && rng_chance(&shift_rng, shift_percent))
			draw_shift(&g, &shift_rng);
		if (move_percent && rng_chance(&move_rng, move_percent))
			draw_move(&g, &move_rng);
		if (move_percent && profile == SIM_PROFILE_DATA && rng_chance(&over_rng, 4))
			draw_move_over(&g, &over_rng);
	}
	for (u32 t = 0; t < s->threads; t++)
		model_free(g.m[t]);
	pool_clear(&g.files);
	pool_clear(&g.dirs);
	pool_clear(&g.all);
	free(g.files.path);
	free(g.dirs.path);
	free(g.all.path);
}

/* ---- ACE: bounded black-box crash testing ---- */

/*
 * After a synced start ("foo", "A/foo", "A/bar", "A", "B", "C" with content),
 * one operation and one persistence operation on what it touched. %: nothing.
 */
#define K 1024u
static const struct sim_op ace_op[] = {
	{ .kind = OP_CREATE, .path = "bar", .mode = 0644 },
	{ .kind = OP_CREATE, .path = "A/new", .mode = 0644 },
	{ .kind = OP_MKDIR, .path = "D", .mode = 0755 },
	{ .kind = OP_MKDIR, .path = "A/D", .mode = 0755 },
	{ .kind = OP_SYMLINK, .path = "bar", .len = 20, .seed = 5 },
	{ .kind = OP_SYMLINK, .path = "A/long", .len = 300, .seed = 6 },
	{ .kind = OP_MKNOD, .path = "bar", .mode = 0600 },
	{ .kind = OP_LINK, .path = "foo", .path2 = "bar" },
	{ .kind = OP_LINK, .path = "foo", .path2 = "A/new" },
	{ .kind = OP_LINK, .path = "A/foo", .path2 = "B/new" },
	{ .kind = OP_UNLINK, .path = "foo" },
	{ .kind = OP_UNLINK, .path = "A/foo" },
	{ .kind = OP_RMDIR, .path = "B" },
	{ .kind = OP_RENAME, .path = "foo", .path2 = "bar" },
	{ .kind = OP_RENAME, .path = "foo", .path2 = "A/foo" },
	{ .kind = OP_RENAME, .path = "A/foo", .path2 = "foo" },
	{ .kind = OP_RENAME, .path = "A/foo", .path2 = "A/bar" },
	{ .kind = OP_RENAME, .path = "A/foo", .path2 = "B/foo" },
	{ .kind = OP_RENAME, .path = "A", .path2 = "B" },
	{ .kind = OP_RENAME, .path = "A", .path2 = "C/A" },
	{ .kind = OP_RENAME, .path = "A", .path2 = "C", .flags = RENAME_EXCHANGE },
	{ .kind = OP_RENAME, .path = "foo", .path2 = "A/bar", .flags = RENAME_EXCHANGE },
	{ .kind = OP_WRITE, .path = "foo", .off = 0, .len = 4 * K, .seed = 7 },
	{ .kind = OP_WRITE, .path = "foo", .off = 3 * K + 17, .len = 2 * K, .seed = 8 },
	{ .kind = OP_WRITE, .path = "foo", .off = 16 * K, .len = 16 * K, .seed = 9 },
	{ .kind = OP_WRITE, .path = "foo", .off = 15 * K + 9, .len = 100, .seed = 9 },
	{ .kind = OP_WRITE, .path = "foo", .off = 64 * K, .len = 4 * K, .seed = 10 },
	{ .kind = OP_WRITE, .path = "A/foo", .off = 20 * K + 1, .len = 9 * K, .seed = 11 },
	{ .kind = OP_WRITE, .path = "foo", .off = 0, .len = 8 * K, .seed = 12,
	  .flags = SL_OPEN_SYNC },
	{ .kind = OP_WRITE, .path = "foo", .off = 30 * K, .len = 8 * K, .seed = 13,
	  .flags = SL_OPEN_DSYNC },
	{ .kind = OP_TRUNCATE, .path = "foo", .off = 0 },
	{ .kind = OP_TRUNCATE, .path = "foo", .off = 5 * K + 100 },
	{ .kind = OP_TRUNCATE, .path = "foo", .off = 8 * K },
	{ .kind = OP_TRUNCATE, .path = "foo", .off = 40 * K + 1 },
	{ .kind = OP_FALLOC, .path = "foo", .off = 0, .len = 32 * K },
	{ .kind = OP_FALLOC, .path = "foo", .off = 8 * K, .len = 32 * K, .flags = 1 },
	{ .kind = OP_FALLOC, .path = "foo", .off = 17 * K, .len = 10 * K + 5 },
	{ .kind = OP_FALLOC, .path = "foo", .off = 4 * K, .len = 8 * K, .flags = MODE_PUNCH },
	{ .kind = OP_FALLOC, .path = "foo", .off = 3 * K + 17, .len = 20 * K,
	  .flags = MODE_PUNCH },
	{ .kind = OP_FALLOC, .path = "foo", .off = 4 * K, .len = 8 * K,
	  .flags = MODE_ZERO | FALLOC_FL_KEEP_SIZE },
	{ .kind = OP_FALLOC, .path = "foo", .off = 9 * K + 5, .len = 14 * K,
	  .flags = MODE_ZERO },
	{ .kind = OP_FALLOC, .path = "foo", .off = 4 * K, .len = 8 * K,
	  .flags = FALLOC_FL_COLLAPSE_RANGE },
	{ .kind = OP_FALLOC, .path = "foo", .off = 8 * K, .len = 4 * K,
	  .flags = FALLOC_FL_INSERT_RANGE },
	{ .kind = OP_COPY, .path = "foo", .path2 = "A/foo", .off = 10 * K + 3,
	  .len = 12 * K, .seed = 2 * K },
	{ .kind = OP_MOVE, .path = "foo", .path2 = "A/foo", .off = 4 * K, .len = 16 * K,
	  .seed = 8 * K },
	{ .kind = OP_CHMOD, .path = "foo", .mode = 0611 },
	{ .kind = OP_CHOWN, .path = "A/foo", .mode = 1000 },
	{ .kind = OP_UTIMES, .path = "foo", .off = 1000000000 },
	{ .kind = OP_UTIMES, .path = "A", .off = 1000000001 },
	{ .kind = OP_SETXATTR, .path = "foo", .slot = 0, .len = 10, .seed = 21 },
	{ .kind = OP_SETXATTR, .path = "A", .slot = 1, .len = 200, .seed = 22 },
	{ .kind = OP_HOLD, .path = "A/bar" },
};

static const enum sim_op_kind ace_persist[] = { OP_FSYNC, OP_FDATASYNC, OP_SYNC,
						 OP_FSYNC /* the directory */, OP_NR };

u32 sim_ace_count(void)
{
	return ARRAY_SIZE(ace_op) * ARRAY_SIZE(ace_persist);
}

static void ace_start(struct sim_stream *s, u64 seed)
{
	static const struct sim_op start[] = {
		{ .kind = OP_MKDIR, .path = "A", .mode = 0755 },
		{ .kind = OP_MKDIR, .path = "B", .mode = 0755 },
		{ .kind = OP_MKDIR, .path = "C", .mode = 0755 },
		{ .kind = OP_CREATE, .path = "foo", .mode = 0644 },
		{ .kind = OP_WRITE, .path = "foo", .len = 16 * K, .seed = 1 },
		{ .kind = OP_CREATE, .path = "A/foo", .mode = 0644 },
		{ .kind = OP_WRITE, .path = "A/foo", .len = 16 * K, .seed = 2 },
		{ .kind = OP_CREATE, .path = "A/bar", .mode = 0644 },
		{ .kind = OP_WRITE, .path = "A/bar", .len = 5 * K, .seed = 3 },
		{ .kind = OP_SYNC },
	};

	sim_stream_init(s);
	s->seed = seed;
	s->mkfs = (u32)(mix64(seed) % NR_ORDINARY);
	if (!strcmp(sim_mkfs[s->mkfs].name, "1k-tiny"))
		s->mkfs = 0;
	for (u32 i = 0; i < ARRAY_SIZE(start); i++)
		sim_stream_add(s, &start[i]);
}

static void ace_step(struct sim_stream *s, u32 n)
{
	struct sim_op op = ace_op[n / ARRAY_SIZE(ace_persist)];
	u32 p = n % ARRAY_SIZE(ace_persist);
	struct sim_op persist = { .kind = ace_persist[p] };
	char path[64], *slash;

	sim_stream_add(s, &op);
	if (op.kind == OP_HOLD) {
		struct sim_op more = { .kind = OP_UNLINK, .path = op.path };

		sim_stream_add(s, &more);
		more = (struct sim_op){ .kind = OP_HWRITE, .len = 9 * K, .seed = 14 };
		sim_stream_add(s, &more);
	}
	if (persist.kind == OP_NR)
		return;
	if (persist.kind != OP_SYNC) {
		snprintf(path, sizeof(path), "%s",
			 op.path2 && op.kind != OP_LINK && op.kind != OP_COPY &&
					 op.kind != OP_MOVE
				 ? op.path2
				 : op.path);
		if (p == 3) {
			slash = strrchr(path, '/');
			*(slash ? slash : path) = 0;
		}
		persist.path = path;
	}
	sim_stream_add(s, &persist);
}

void sim_ace_one(struct sim_stream *s, u32 n)
{
	ace_start(s, n);
	ace_step(s, n);
}

void sim_ace_two(struct sim_stream *s, u32 first, u32 second)
{
	ace_start(s, (u64)first * sim_ace_count() + second);
	ace_step(s, first);
	ace_step(s, second);
}

/* ---- brief streams: all kinds of operations ---- */

/* A directory of 1 KiB blocks gets an index. */
#define NAME_OF_200(c)                                                                       \
	"A/" c "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" \
	"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" \
	"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"

static const struct sim_op brief_op[] = {
	{ .kind = OP_MKDIR, .path = "A", .mode = 0755 },
	{ .kind = OP_MKDIR, .path = "B", .mode = 0755 },
	{ .kind = OP_CREATE, .path = "foo", .mode = 0644 },
	{ .kind = OP_WRITE, .path = "foo", .len = 20 * K, .seed = 1 },
	{ .kind = OP_CREATE, .path = NAME_OF_200("1"), .mode = 0644 },
	{ .kind = OP_CREATE, .path = NAME_OF_200("2"), .mode = 0644 },
	{ .kind = OP_MKNOD, .path = NAME_OF_200("3"), .mode = 0600 },
	{ .kind = OP_MKDIR, .path = NAME_OF_200("4"), .mode = 0755 },
	{ .kind = OP_CREATE, .path = NAME_OF_200("5"), .mode = 0644 },
	{ .kind = OP_CREATE, .path = NAME_OF_200("6"), .mode = 0644 },
	{ .kind = OP_FSYNC, .path = "foo" },
	{ .kind = OP_SYMLINK, .path = "short", .len = 20, .seed = 2 },
	{ .kind = OP_SYMLINK, .path = "B/long", .len = 300, .seed = 3 },
	{ .kind = OP_LINK, .path = "foo", .path2 = "B/foo" },
	{ .kind = OP_FALLOC, .path = "foo", .off = 8 * K, .len = 60 * K },
	/* every other block, within what was preallocated: extents split */
	{ .kind = OP_WRITE, .path = "foo", .off = 28 * K, .len = K, .seed = 4 },
	{ .kind = OP_WRITE, .path = "foo", .off = 36 * K, .len = K, .seed = 5 },
	{ .kind = OP_WRITE, .path = "foo", .off = 44 * K, .len = K, .seed = 6 },
	{ .kind = OP_WRITE, .path = "foo", .off = 52 * K, .len = K, .seed = 7 },
	{ .kind = OP_WRITE, .path = "foo", .off = 60 * K, .len = K, .seed = 8 },
	{ .kind = OP_WRITE, .path = "foo", .off = 100 * K, .len = 3 * K, .seed = 9 },
	{ .kind = OP_WRITE, .path = "foo", .off = 120 * K + 7, .len = 300, .seed = 10 },
	{ .kind = OP_FDATASYNC, .path = "foo" },
	{ .kind = OP_FALLOC, .path = "foo", .off = 30 * K + 5, .len = 15 * K,
	  .flags = MODE_PUNCH },
	{ .kind = OP_FALLOC, .path = "foo", .off = 2 * K + 9, .len = 4 * K,
	  .flags = MODE_ZERO },
	{ .kind = OP_COPY, .path = "B/foo", .path2 = "foo", .off = 130 * K, .len = 5 * K,
	  .seed = 50 * K },
	{ .kind = OP_FALLOC, .path = NAME_OF_200("6"), .len = 40 * K },
	{ .kind = OP_WRITE, .path = NAME_OF_200("6"), .off = 28 * K, .len = 2 * K, .seed = 15 },
	{ .kind = OP_MOVE, .path = "foo", .path2 = NAME_OF_200("6"), .len = 64 * K },
	{ .kind = OP_CACHES },
	{ .kind = OP_READ, .path = "foo" },
	{ .kind = OP_HOLD, .path = NAME_OF_200("1"), .slot = 0 },
	{ .kind = OP_UNLINK, .path = NAME_OF_200("1") },
	{ .kind = OP_HWRITE, .slot = 0, .len = 5 * K, .seed = 11 },
	{ .kind = OP_RENAME, .path = NAME_OF_200("2"), .path2 = "B/moved" },
	{ .kind = OP_WRITE, .path = NAME_OF_200("5"), .len = 9 * K, .seed = 12 },
	{ .kind = OP_RENAME, .path = NAME_OF_200("5"), .path2 = "B/moved" },
	{ .kind = OP_RENAME, .path = "B", .path2 = NAME_OF_200("4"), .flags = RENAME_EXCHANGE },
	{ .kind = OP_CHMOD, .path = "foo", .mode = 0600 },
	{ .kind = OP_CHOWN, .path = "foo", .mode = 1000 },
	{ .kind = OP_UTIMES, .path = "foo", .off = 1000000000 },
	{ .kind = OP_SETXATTR, .path = "foo", .slot = 0, .len = 12, .seed = 21 },
	{ .kind = OP_SETXATTR, .path = "foo", .slot = 1, .len = 190, .seed = 22 },
	{ .kind = OP_SETXATTR, .path = "A", .slot = 2, .len = 200, .seed = 23 },
	{ .kind = OP_SYNC },
	{ .kind = OP_SETXATTR, .path = "foo", .slot = 1, .len = 20, .seed = 24 },
	{ .kind = OP_SETXATTR, .path = "foo", .slot = 3, .len = 150, .seed = 25 },
	{ .kind = OP_RMXATTR, .path = "foo", .slot = 0 },
	{ .kind = OP_RMXATTR, .path = "A", .slot = 2 },
	{ .kind = OP_TRUNCATE, .path = "foo", .off = 40 * K + 100 },
	{ .kind = OP_HTRUNC, .slot = 0, .off = 100 },
	{ .kind = OP_HSYNC, .slot = 0 },
	{ .kind = OP_WRITE, .path = "foo", .off = 10 * K, .len = 4 * K, .seed = 13,
	  .flags = SL_OPEN_SYNC },
	{ .kind = OP_DROP, .slot = 0 },
	{ .kind = OP_CACHES },
	{ .kind = OP_RMDIR, .path = "B" },
	{ .kind = OP_UNLINK, .path = "foo" },
	{ .kind = OP_UNLINK, .path = "short" },
	{ .kind = OP_TRUNCATE, .path = NAME_OF_200("6"), .off = 70 * K },
	{ .kind = OP_WRITE, .path = NAME_OF_200("6"), .off = 69 * K, .len = 2 * K, .seed = 14 },
	{ .kind = OP_FSYNC, .path = "A" },
	{ .kind = OP_UNLINK, .path = NAME_OF_200("6") },
};

/* How they differ. */
static const struct {
	const char *mkfs;
	u32 commit_ms, expire_ms;
	bool caches; /* dropped before each operation */
} brief_kind[] = {
	{ "1k", 0, 0, false },
	{ "4k", 0, 0, true },
	{ "2k", 1, 1, false },
	{ "1k-old", 0, 0, true },
	{ "1k-groups", 0, 0, false },
};

u32 sim_brief_count(void)
{
	return ARRAY_SIZE(brief_kind);
}

void sim_brief(struct sim_stream *s, u32 n)
{
	static const struct sim_op caches = { .kind = OP_CACHES };

	sim_stream_init(s);
	s->seed = n;
	s->mkfs = sim_mkfs_find(brief_kind[n].mkfs);
	s->commit_ms = brief_kind[n].commit_ms;
	s->expire_ms = brief_kind[n].expire_ms;
	for (u32 i = 0; i < ARRAY_SIZE(brief_op); i++) {
		if (brief_kind[n].caches)
			sim_stream_add(s, &caches);
		sim_stream_add(s, &brief_op[i]);
	}
}
