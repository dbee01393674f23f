/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/options.c - the command line and the mount options
 *
 * One table has every mount option: its name, what takes its value, and where
 * it goes. All of the kernel's ext4 are in it. What is not is refused by name, as
 * mount(8) does: an option that is silently ignored would promise something
 * (data=journal, say) that is not kept. What is accepted and has no effect
 * leaves a note for the log.
 *
 * Locks: none. Threads: the main thread, before any other exists.
 */
#include "src/options.h"

#include <ctype.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Longest commit= and dirty_expire=, in seconds: a day. */
#define SECONDS_MAX 86400u
#define READ_AHEAD_MAX_KB 1048576u

struct parse {
	struct options *o;
	char *why;
	size_t size;
	bool superblock; /* the list comes from there */
	const struct options *now; /* a remount: what is in force; else NULL */
};

static int __attribute__((format(printf, 2, 3)))
refuse(struct parse *p, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(p->why, p->size, fmt, ap);
	va_end(ap);
	return EXIT_CODE_USAGE;
}

static int no_memory(struct parse *p)
{
	refuse(p, "out of memory");
	return EXIT_CODE_SYSTEM;
}

/* ---- values ---- */

/* Digits only, then with `units` one of K, M, G, T. */
static bool parse_number(const char *s, bool units, u64 *out)
{
	static const char letters[] = "KMGT";
	const char *unit;
	u64 n = 0;

	if (!isdigit((unsigned char)*s))
		return false;
	for (; isdigit((unsigned char)*s); s++)
		if (__builtin_mul_overflow(n, 10, &n) ||
		    __builtin_add_overflow(n, (u64)(*s - '0'), &n))
			return false;
	if (*s && units) {
		unit = strchr(letters, toupper((unsigned char)*s));
		if (!unit)
			return false;
		for (ptrdiff_t i = unit - letters; i >= 0; i--)
			if (__builtin_mul_overflow(n, 1024, &n))
				return false;
		s++;
	}
	*out = n;
	return !*s;
}

static int take_u64(struct parse *p, const char *name, const char *value,
		    size_t field)
{
	if (!parse_number(value, false, (u64 *)((char *)p->o + field)))
		return refuse(p, "Bad value for '%s': '%s' is not a number",
			      name, value);
	return 0;
}

bool options_parse_size(const char *text, u64 *bytes)
{
	return parse_number(text, true, bytes) && *bytes <= INT64_MAX;
}

static int take_bytes(struct parse *p, const char *name, const char *value,
		      size_t field)
{
	if (!options_parse_size(value, (u64 *)((char *)p->o + field)))
		return refuse(p, "Bad value for '%s': '%s' is not a size "
			      "(bytes, or a number with K, M, G or T)",
			      name, value);
	return 0;
}

/* A size of memory: 0 would mean the default to fs/fs.h. */
static int take_amount(struct parse *p, const char *name, const char *value,
		       size_t field)
{
	int err = take_bytes(p, name, value, field);

	if (!err && !*(u64 *)((char *)p->o + field))
		return refuse(p, "Bad value for '%s': it must not be 0", name);
	return err;
}

/* Seconds into a field of milliseconds. */
static int take_seconds(struct parse *p, const char *name, const char *value,
			size_t field)
{
	u64 s;

	if (!parse_number(value, false, &s) || s > SECONDS_MAX)
		return refuse(p, "Bad value for '%s': '%s' is not a number of "
			      "seconds up to %u", name, value, SECONDS_MAX);
	*(u32 *)((char *)p->o + field) = (u32)s * 1000;
	return 0;
}

/* 0 is a wish, too: so a flag says that it was given. */
static int take_read_ahead(struct parse *p, const char *name, const char *value,
			   size_t field)
{
	u64 kb;

	if (!parse_number(value, false, &kb) || kb > READ_AHEAD_MAX_KB)
		return refuse(p, "Bad value for '%s': '%s' is not a number of "
			      "KiB up to %u", name, value, READ_AHEAD_MAX_KB);
	*(u64 *)((char *)p->o + field) = kb;
	p->o->read_ahead_given = true;
	return 0;
}

static int take_text(struct parse *p, const char *name, const char *value,
		     size_t field)
{
	char **out = (char **)((char *)p->o + field);

	if (!*value)
		return refuse(p, "Bad value for '%s': it is empty", name);
	free(*out);
	*out = strdup(value);
	return *out ? 0 : no_memory(p);
}

static int take_errors(struct parse *p, const char *name, const char *value,
		       size_t field)
{
	enum sl_errors *out = (enum sl_errors *)((char *)p->o + field);

	if (!strcmp(value, "continue"))
		*out = SL_ERRORS_CONTINUE;
	else if (!strcmp(value, "remount-ro"))
		*out = SL_ERRORS_RO;
	else if (!strcmp(value, "panic"))
		*out = SL_ERRORS_PANIC;
	else
		return refuse(p, "Bad value for '%s': '%s' is none of continue, "
			      "remount-ro, panic", name, value);
	return 0;
}

/* One of two words: false and true. */
static int take_one_of(struct parse *p, const char *name, const char *value,
		       const char *no, const char *yes, bool *out)
{
	if (strcmp(value, no) && strcmp(value, yes))
		return refuse(p, "Bad value for '%s': '%s' is none of %s, %s", name, value,
			      no, yes);
	*out = !strcmp(value, yes);
	return 0;
}

static int take_datacache(struct parse *p, const char *name, const char *value,
			  size_t field)
{
	return take_one_of(p, name, value, "writeback", "full",
			   (bool *)((char *)p->o + field));
}

static int take_inode_iter(struct parse *p, const char *name, const char *value,
			   size_t field)
{
	enum sl_inode_iter *out =
		(enum sl_inode_iter *)((char *)p->o + field);

	if (!strcmp(value, "icache"))
		*out = SL_INODE_ITER_ICACHE;
	else if (!strcmp(value, "percpu"))
		*out = SL_INODE_ITER_PERCPU;
	else if (!strcmp(value, "global"))
		*out = SL_INODE_ITER_GLOBAL;
	else
		return refuse(p, "Bad value for '%s': '%s' is none of icache, "
			      "percpu, global", name, value);
	return 0;
}

static int take_zones(struct parse *p, const char *name, const char *value,
		      size_t field)
{
	u64 n;

	if (!parse_number(value, false, &n) || n < 1 || n > SL_ZONES_MAX)
		return refuse(p, "Bad value for '%s': '%s' is not a number from "
			      "1 to %u", name, value, SL_ZONES_MAX);
	*(u32 *)((char *)p->o + field) = (u32)n;
	return 0;
}

/* What is to be logged about an option, once. warn: before the daemon detaches, too. */
static int __attribute__((format(printf, 3, 4)))
note(struct parse *p, bool warn, const char *fmt, ...)
{
	struct options *o = p->o;
	struct option_note *more;
	char *text;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&text, fmt, ap);
	va_end(ap);
	if (n < 0)
		return no_memory(p);
	for (unsigned i = 0; i < o->nr_notes; i++) {
		if (strcmp(o->notes[i].text, text))
			continue;
		free(text);
		return 0;
	}
	more = realloc(o->notes, (o->nr_notes + 1) * sizeof(*more));
	if (!more) {
		free(text);
		return no_memory(p);
	}
	o->notes = more;
	o->notes[o->nr_notes++] = (struct option_note){ text, warn };
	return 0;
}

static int no_effect(struct parse *p, bool warn, const char *name,
		     const char *value, const char *why)
{
	return note(p, warn, "option '%s%s%s' has no effect: %s", name,
		    value ? "=" : "", value ? value : "", why);
}

static int take_u32(struct parse *p, const char *name, const char *value,
		    size_t field)
{
	u64 n;

	if (!parse_number(value, false, &n) || n > UINT32_MAX)
		return refuse(p, "Bad value for '%s': '%s' is not a number below 2^32",
			      name, value);
	*(u32 *)((char *)p->o + field) = (u32)n;
	return 0;
}

/* Of the two the last one counts. */
static int take_journal_path(struct parse *p, const char *name, const char *value,
			     size_t field)
{
	p->o->journal_dev = 0;
	return take_text(p, name, value, field);
}

/* As the kernel reads it: 0x701 and 1793 are the same. */
static int take_journal_dev(struct parse *p, const char *name, const char *value,
			    size_t field)
{
	char *end;
	unsigned long long n;

	errno = 0;
	n = isdigit((unsigned char)*value) ? strtoull(value, &end, 0) : 0;
	if (!n || *end || errno || n > UINT32_MAX)
		return refuse(p, "Bad value for '%s': '%s' is not the number of a device",
			      name, value);
	free(p->o->journal_path);
	p->o->journal_path = NULL;
	*(u32 *)((char *)p->o + field) = (u32)n;
	return 0;
}

/* 0 is a value, too. */
static int take_id(struct parse *p, const char *name, const char *value,
		   size_t field)
{
	struct sl_id *id = (struct sl_id *)((char *)p->o + field);
	u64 n;

	if (!parse_number(value, false, &n) || n >= UINT32_MAX)
		return refuse(p, "Bad value for '%s': '%s' is not an id", name,
			      value);
	*id = (struct sl_id){ .given = true, .id = (u32)n };
	return 0;
}

static int take_data(struct parse *p, const char *name, const char *value,
		     size_t field)
{
	enum option_data *out = (enum option_data *)((char *)p->o + field);

	*out = !strcmp(value, "journal") ? DATA_JOURNAL :
	       !strcmp(value, "writeback") ? DATA_WRITEBACK : DATA_ORDERED;
	if (*out == DATA_JOURNAL || !strcmp(value, "ordered"))
		return 0;
	if (*out != DATA_WRITEBACK)
		return refuse(p, "Bad value for '%s': '%s' is none of ordered, "
			      "writeback, journal", name, value);
	return no_effect(p, false, name, value,
			 "data is on the device before what makes it visible, as with data=ordered");
}

static int take_data_err(struct parse *p, const char *name, const char *value,
			 size_t field)
{
	return take_one_of(p, name, value, "ignore", "abort",
			   (bool *)((char *)p->o + field));
}

/* With or without "=0" or "=1" (or more). */
static int take_switch(struct parse *p, const char *name, const char *value,
		       bool *on)
{
	u64 n = 1;

	if (value && !parse_number(value, false, &n))
		return refuse(p, "Bad value for '%s': '%s' is not a number",
			      name, value);
	*on = n != 0;
	return 0;
}

static int take_barrier(struct parse *p, const char *name, const char *value,
			size_t field)
{
	bool on = true;
	int err = take_switch(p, name, value, &on);

	if (err || on)
		return err;
	return no_effect(p, false, name, value,
			 "the device is always told to make durable what must be");
}

static int take_auto_da_alloc(struct parse *p, const char *name,
			      const char *value, size_t field)
{
	bool on = true;
	int err = take_switch(p, name, value, &on);

	*(bool *)((char *)p->o + field) = !on;
	return err;
}

static int take_dax(struct parse *p, const char *name, const char *value,
		    size_t field)
{
	if (value && !strcmp(value, "never"))
		return 0;
	if (value && !strcmp(value, "inode"))
		return no_effect(p, false, name, value,
				 "there is no direct access to memory through FUSE");
	return refuse(p, "'dax' is not supported: there is no direct access to "
		      "memory through FUSE");
}

static int take_inode_readahead(struct parse *p, const char *name,
				const char *value, size_t field)
{
	u64 n;

	if (!parse_number(value, false, &n) || n > 1u << 30 || (n & (n - 1)))
		return refuse(p, "Bad value for '%s': '%s' is neither 0 nor a "
			      "power of 2 up to 2^30", name, value);
	/* 0 is the default to fs/fs.h, 1 means only what is needed. */
	*(u32 *)((char *)p->o + field) = n ? (u32)n : 1;
	return 0;
}

/* ---- the table ---- */

enum option_kind {
	KIND_IGNORED, /* with or without a value */
	KIND_BOOL,    /* bool = arg */
	KIND_STATE,   /* enum tristate = arg */
	KIND_ATIME,   /* enum sl_atime = arg */
	KIND_VALUE,   /* take(value) */
	KIND_SWITCH,  /* take(value, or NULL) */
	KIND_NOTED,   /* no effect: text says why; arg: enum noted_value */
	KIND_REFUSED, /* known, and known not to work: text says why */
};

/* What "mount -o remount" makes of it. */
enum option_remount {
	REMOUNT_ANY,    /* as at the mount: nothing, a note, or refused */
	REMOUNT_FIXED,  /* must be as it is */
	REMOUNT_LIVE,   /* the daemon changes it */
	REMOUNT_KERNEL, /* mount(2) changes it */
};

enum noted_value { NOTED_NONE, NOTED_NUMBER, NOTED_OPTIONAL, NOTED_TEXT };

struct option_row {
	const char *name;
	enum option_kind kind;
	bool ext4; /* the kernel's ext4 has it: may stand in a superblock */
	bool warn; /* KIND_NOTED: who mounts should see it */
	enum option_remount remount;
	int arg;
	size_t field, field_size; /* of struct options */
	int (*take)(struct parse *p, const char *name, const char *value,
		    size_t field);
	const char *text;
};

#define FIELD(f) \
	.field = offsetof(struct options, f), .field_size = sizeof(((struct options *)0)->f)
#define IGNORED(n) { .name = n, .kind = KIND_IGNORED }
#define ROW(n, r) .name = n, .remount = REMOUNT_##r
#define BOOL(n, r, f, v) { ROW(n, r), .kind = KIND_BOOL, .arg = v, FIELD(f) }
#define STATE(n, r, f, v) { ROW(n, r), .kind = KIND_STATE, .arg = v, FIELD(f) }
#define ATIME(n, r, v) { ROW(n, r), .kind = KIND_ATIME, .arg = v, FIELD(sl.atime) }
#define VALUE(n, r, f, t) { ROW(n, r), .kind = KIND_VALUE, .take = t, FIELD(f) }
#define REFUSED(n, why) { .name = n, .kind = KIND_REFUSED, .text = why }
/* Those of ext4. */
#define E4_BOOL(n, r, f, v) { .ext4 = true, ROW(n, r), .kind = KIND_BOOL, .arg = v, FIELD(f) }
#define E4_VALUE(n, r, f, t) { .ext4 = true, ROW(n, r), .kind = KIND_VALUE, .take = t, FIELD(f) }
#define E4_SWITCH(n, r, f, t) \
	{ .ext4 = true, ROW(n, r), .kind = KIND_SWITCH, .take = t, FIELD(f) }
#define E4_AS_IS(n) { .ext4 = true, .name = n, .kind = KIND_IGNORED }
#define E4_NOTED(n, v, why) \
	{ .ext4 = true, .name = n, .kind = KIND_NOTED, .arg = NOTED_##v, .text = why }
#define E4_QUOTA(n, v) \
	{ .ext4 = true, ROW(n, FIXED), .kind = KIND_NOTED, .arg = NOTED_##v, \
	  .warn = true, .text = NO_QUOTAS }
#define E4_REFUSED(n, why) \
	{ .ext4 = true, .name = n, .kind = KIND_REFUSED, .text = why }

#define NO_QUOTAS "limits are not enforced, and usage is counted with the feature quota alone"
#define REMOVED "the kernel's ext4 has none like it any more, either"

static const struct option_row rows[] = {
	BOOL("ro", KERNEL, sl.readonly, true),
	BOOL("rw", KERNEL, sl.readonly, false),
	BOOL("nodiratime", LIVE, sl.nodiratime, true),
	BOOL("diratime", LIVE, sl.nodiratime, false),
	BOOL("sync", LIVE, sl.sync, true),
	BOOL("async", LIVE, sl.sync, false),
	BOOL("dirsync", LIVE, sl.dirsync, true),
	BOOL("nodirsync", LIVE, sl.dirsync, false),
	ATIME("relatime", LIVE, SL_ATIME_RELATIME),
	ATIME("norelatime", LIVE, SL_ATIME_RELATIME),
	ATIME("atime", LIVE, SL_ATIME_RELATIME),
	ATIME("noatime", LIVE, SL_ATIME_NOATIME),
	ATIME("strictatime", LIVE, SL_ATIME_STRICT),
	ATIME("nostrictatime", LIVE, SL_ATIME_RELATIME),
	{ .name = "lazytime", .kind = KIND_NOTED, .arg = NOTED_NONE,
	  .text = "changed times are written as without it" },
	IGNORED("nolazytime"),

	/* As the kernel's ext4 has them. */
	E4_BOOL("noload", FIXED, sl.noload, true),
	E4_BOOL("norecovery", FIXED, sl.noload, true),
	E4_BOOL("nojournal", FIXED, sl.no_journal, true),
	E4_VALUE("sb", FIXED, sl.sb_block, take_u64),
	E4_VALUE("errors", LIVE, sl.errors, take_errors),
	E4_VALUE("commit", LIVE, sl.commit_ms, take_seconds),
	E4_VALUE("data", FIXED, data, take_data),
	E4_VALUE("data_err", LIVE, sl.data_err_abort, take_data_err),
	E4_BOOL("delalloc", LIVE, sl.nodelalloc, false),
	E4_BOOL("nodelalloc", LIVE, sl.nodelalloc, true),
	E4_BOOL("discard", LIVE, sl.discard, true),
	E4_BOOL("nodiscard", LIVE, sl.discard, false),
	E4_BOOL("grpid", LIVE, sl.grpid, true),
	E4_BOOL("bsdgroups", LIVE, sl.grpid, true),
	E4_BOOL("nogrpid", LIVE, sl.grpid, false),
	E4_BOOL("sysvgroups", LIVE, sl.grpid, false),
	E4_VALUE("resuid", LIVE, sl.resuid, take_id),
	E4_VALUE("resgid", LIVE, sl.resgid, take_id),
	E4_BOOL("minixdf", LIVE, sl.minixdf, true),
	E4_BOOL("bsddf", LIVE, sl.minixdf, false),
	E4_BOOL("user_xattr", LIVE, sl.nouser_xattr, false),
	E4_BOOL("nouser_xattr", LIVE, sl.nouser_xattr, true),
	E4_BOOL("acl", FIXED, sl.noacl, false),
	E4_BOOL("noacl", FIXED, sl.noacl, true),
	E4_BOOL("nombcache", FIXED, sl.nombcache, true),
	E4_BOOL("no_mbcache", FIXED, sl.nombcache, true),
	E4_VALUE("max_dir_size_kb", LIVE, sl.max_dir_size_kb, take_u32),
	E4_SWITCH("auto_da_alloc", LIVE, sl.noauto_da_alloc, take_auto_da_alloc),
	E4_BOOL("noauto_da_alloc", LIVE, sl.noauto_da_alloc, true),
	E4_VALUE("inode_readahead_blks", LIVE, sl.inode_readahead_blks,
		 take_inode_readahead),
	E4_BOOL("debug", LIVE, debug, true),
	/* Here it is always so. */
	E4_AS_IS("block_validity"),
	E4_AS_IS("dioread_nolock"),
	E4_AS_IS("nodioread_lock"),
	E4_AS_IS("no_prefetch_block_bitmaps"),
	E4_AS_IS("noinit_itable"),
	E4_AS_IS("nowarn_on_error"),
	E4_AS_IS("noquota"),
	E4_SWITCH("barrier", FIXED, debug, take_barrier),
	E4_SWITCH("dax", FIXED, debug, take_dax),
	E4_VALUE("journal_path", FIXED, journal_path, take_journal_path),
	E4_VALUE("journal_dev", FIXED, journal_dev, take_journal_dev),
	E4_BOOL("journal_checksum", FIXED, sl.journal_checksum, true),
	E4_BOOL("nojournal_checksum", FIXED, sl.nojournal_checksum, true),
	E4_NOTED("nobarrier", NONE,
		 "the device is always told to make durable what must be"),
	E4_NOTED("noblock_validity", NONE,
		 "the places of metadata are always guarded"),
	E4_NOTED("dioread_lock", NONE, "new blocks are always unwritten ones first"),
	E4_NOTED("nodioread_nolock", NONE,
		 "new blocks are always unwritten ones first"),
	E4_NOTED("stripe", NUMBER, "blocks are chosen without regard to stripes"),
	E4_NOTED("min_batch_time", NUMBER, "commits wait for nobody"),
	E4_NOTED("max_batch_time", NUMBER, "commits wait for nobody"),
	E4_NOTED("journal_ioprio", NUMBER, "the journal's I/O has no priority of its own"),
	E4_NOTED("init_itable", OPTIONAL,
		 "inode tables are initialised when they are used"),
	E4_NOTED("prefetch_block_bitmaps", NONE, "bitmaps are read when they are used"),
	E4_NOTED("mb_optimize_scan", NUMBER,
		 "there is one way to search for free blocks"),
	E4_NOTED("warn_on_error", NONE, "errors are logged without a stack"),
	E4_NOTED("inlinecrypt", NONE, "encrypted volumes are not mounted"),
	E4_NOTED("i_version", NONE, REMOVED),
	E4_NOTED("oldalloc", NONE, REMOVED),
	E4_NOTED("orlov", NONE, REMOVED),
	E4_NOTED("bh", NONE, REMOVED),
	E4_NOTED("nobh", NONE, REMOVED),
	E4_NOTED("mblk_io_submit", NONE, REMOVED),
	E4_NOTED("nomblk_io_submit", NONE, REMOVED),
	E4_NOTED("reservation", NONE, REMOVED),
	E4_NOTED("noreservation", NONE, REMOVED),
	E4_NOTED("check", TEXT, REMOVED),
	E4_NOTED("nocheck", NONE, REMOVED),
	E4_QUOTA("quota", NONE),
	E4_QUOTA("usrquota", NONE),
	E4_QUOTA("grpquota", NONE),
	E4_QUOTA("prjquota", NONE),
	E4_QUOTA("usrjquota", TEXT),
	E4_QUOTA("grpjquota", TEXT),
	E4_QUOTA("jqfmt", TEXT),
	E4_REFUSED("journal_async_commit",
		   "a commit would not wait for what it is about; the kernel's ext4 has it only without data=ordered"),
	E4_REFUSED("abort", "it is for a mounted volume: sluicectl remount"),
	E4_REFUSED("nouid32", "user and group ids have 32 bits"),
	E4_REFUSED("test_dummy_encryption", "there is no encryption"),
	E4_REFUSED("debug_want_extra_isize", "it is for tests of the kernel's ext4"),

	/* The daemon's own. */
	VALUE("cache", LIVE, sl.cache_bytes, take_amount),
	VALUE("datacache", FIXED, sl.datacache_full, take_datacache),
	VALUE("dirty_bytes", LIVE, sl.dirty_bytes, take_amount),
	VALUE("dirty_background_bytes", LIVE, sl.dirty_background_bytes, take_amount),
	VALUE("dirty_expire", LIVE, sl.dirty_expire_ms, take_seconds),
	BOOL("writeback", FIXED, writeback, true),
	VALUE("read_ahead_kb", FIXED, read_ahead_kb, take_read_ahead),
	VALUE("inode_iter", FIXED, sl.inode_iter, take_inode_iter),
	VALUE("zones", FIXED, sl.zones, take_zones),
	VALUE("offset", FIXED, offset, take_bytes),
	VALUE("fsname", FIXED, fsname, take_text),
	BOOL("kernel", FIXED, kernel, true),
	BOOL("fakeroot", FIXED, fakeroot, true),
	BOOL("export", FIXED, noexport, false),
	BOOL("noexport", FIXED, noexport, true),
	BOOL("idmap", FIXED, idmap, true),
	BOOL("noidmap", FIXED, idmap, false),
	STATE("suid", KERNEL, suid, OPT_YES),
	STATE("nosuid", KERNEL, suid, OPT_NO),
	STATE("dev", KERNEL, dev, OPT_YES),
	STATE("nodev", KERNEL, dev, OPT_NO),
	STATE("exec", KERNEL, exec, OPT_YES),
	STATE("noexec", KERNEL, exec, OPT_NO),
	STATE("allow_other", FIXED, allow_other, OPT_YES),
	STATE("noallow_other", FIXED, allow_other, OPT_NO),
	/* Always so. */
	IGNORED("defaults"),
	IGNORED("default_permissions"),
	IGNORED("subtype"),
	IGNORED("nomand"),
	IGNORED("silent"),
	IGNORED("loud"),
	/* For mount(8), systemd and the person who reads fstab. */
	IGNORED("auto"),
	IGNORED("noauto"),
	IGNORED("user"),
	IGNORED("nouser"),
	IGNORED("users"),
	IGNORED("nousers"),
	IGNORED("owner"),
	IGNORED("noowner"),
	IGNORED("group"),
	IGNORED("nogroup"),
	IGNORED("nofail"),
	IGNORED("_netdev"),
	IGNORED("_rnetdev"),
	IGNORED("comment"),
	BOOL("remount", KERNEL, remount, true),
	/* As mount(8) shows those of FUSE, and gives them to a remount. */
	IGNORED("user_id"),
	IGNORED("group_id"),
	IGNORED("rootmode"),
	IGNORED("blksize"),
	IGNORED("max_read"),
	REFUSED("bind", "use mount --bind"),
};

static bool is_extension(const char *name)
{
	return !strncmp(name, "x-", 2) || !strncmp(name, "X-", 2);
}

static const struct option_row *find_row(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (!strcmp(rows[i].name, name))
			return &rows[i];
	return NULL;
}

static int apply_noted(struct parse *p, const struct option_row *row,
		       const char *value)
{
	u64 n;

	if (!value && (row->arg == NOTED_NUMBER || row->arg == NOTED_TEXT))
		return refuse(p, "'%s' needs a value", row->name);
	if (value && row->arg == NOTED_NONE)
		return refuse(p, "'%s' takes no value", row->name);
	if (value && row->arg != NOTED_TEXT && !parse_number(value, false, &n))
		return refuse(p, "Bad value for '%s': '%s' is not a number",
			      row->name, value);
	return no_effect(p, row->warn, row->name, value, row->text);
}

/*
 * mount(8) hands on what the mount table has, which says "relatime" of a mount with
 * strictatime, too: so at a remount that takes back "noatime", and no more.
 */
static void apply_atime(struct parse *p, const struct option_row *row)
{
	struct options *o = p->o;

	o->atime_given = true;
	o->sl.atime = (enum sl_atime)row->arg;
	if (!p->now || row->arg == SL_ATIME_STRICT || !strcmp(row->name, "nostrictatime"))
		o->strictatime = row->arg == SL_ATIME_STRICT;
	else if (row->arg == SL_ATIME_RELATIME && o->strictatime)
		o->sl.atime = SL_ATIME_STRICT;
}

static int apply(struct parse *p, const struct option_row *row,
		 const char *value)
{
	void *field = (char *)p->o + row->field;

	switch (row->kind) {
	case KIND_IGNORED:
		return 0;
	case KIND_REFUSED:
		return refuse(p, "'%s' is not supported: %s", row->name,
			      row->text);
	case KIND_VALUE:
		if (!value)
			return refuse(p, "'%s' needs a value", row->name);
		return row->take(p, row->name, value, row->field);
	case KIND_SWITCH:
		return row->take(p, row->name, value, row->field);
	case KIND_NOTED:
		return apply_noted(p, row, value);
	default:
		break;
	}
	if (value)
		return refuse(p, "'%s' takes no value", row->name);
	if (row->kind == KIND_BOOL)
		*(bool *)field = row->arg;
	else if (row->kind == KIND_STATE)
		*(enum tristate *)field = (enum tristate)row->arg;
	else
		apply_atime(p, row);
	return 0;
}

static bool has_note(const struct options *o, const char *text)
{
	for (unsigned i = 0; i < o->nr_notes; i++)
		if (!strcmp(o->notes[i].text, text))
			return true;
	return false;
}

/* Is an option that was applied what is in force? */
static bool is_in_force(const struct parse *p, const struct option_row *row)
{
	const void *now = (const char *)p->now + row->field;
	const void *then = (const char *)p->o + row->field;
	const char *a, *b;

	if (row->kind == KIND_NOTED)
		return has_note(p->now, p->o->notes[p->o->nr_notes - 1].text);
	if (row->take != take_text && row->take != take_journal_path)
		return !memcmp(now, then, row->field_size);
	a = *(char *const *)now;
	b = *(char *const *)then;
	return a && b && !strcmp(a, b);
}

static int apply_remount(struct parse *p, const struct option_row *row, const char *value)
{
	int err = apply(p, row, value);

	if (err || row->remount != REMOUNT_FIXED || is_in_force(p, row))
		return err;
	refuse(p, "'%s' cannot be changed by a remount: unmount, and mount again",
	       row->name);
	return EXIT_CODE_MOUNT;
}

/* One option of a list, "name" or "name=value"; changed in place. */
static int parse_option(struct parse *p, char *text)
{
	char *value = strchr(text, '=');
	const struct option_row *row;

	if (value)
		*value++ = '\0';
	if (is_extension(text))
		return 0;
	row = find_row(text);
	if (p->superblock && (!row || !row->ext4))
		return note(p, true, "option '%s' of the superblock is not one of ext4, and ignored",
			    text);
	if (row)
		return p->now ? apply_remount(p, row, value) : apply(p, row, value);
	/* -s may stand behind the list: unknown names are looked at again. */
	if (p->o->sloppy)
		return 0;
	return refuse(p, "Unknown parameter '%s'", text);
}

/*
 * A comma in a value is written "\,", a backslash "\\", as libfuse does.
 * Cuts the next option off *list; NULL at the end.
 */
static char *next_option(char **list)
{
	char *from = *list, *to = from, *start = from;

	if (!from)
		return NULL;
	while (*from && *from != ',') {
		if (from[0] == '\\' && (from[1] == ',' || from[1] == '\\'))
			from++;
		*to++ = *from++;
	}
	*list = *from ? from + 1 : NULL;
	*to = '\0';
	return start;
}

/* The lists of the command line, one after the other: for a remount. */
static int keep_list(struct options *o, const char *text)
{
	char *all;

	if (asprintf(&all, "%s%s%s", o->given ?: "", o->given ? "," : "", text) < 0)
		return -ENOMEM;
	free(o->given);
	o->given = all;
	return 0;
}

static int parse_list(struct parse *p, const char *text)
{
	char *copy = strdup(text), *rest = copy, *one;
	int err = 0;

	if (!p->superblock && !p->now && keep_list(p->o, text)) {
		free(copy);
		return no_memory(p);
	}
	if (!copy)
		return no_memory(p);
	while (!err && (one = next_option(&rest)))
		if (*one)
			err = parse_option(p, one);
	free(copy);
	return err;
}

/* ---- the command line ---- */

static int take_operand(struct parse *p, const char *arg)
{
	char **to = p->o->device ? &p->o->mountpoint : &p->o->device;

	if (*to)
		return refuse(p, "too many arguments: '%s'", arg);
	if (!*arg)
		return refuse(p, "empty argument");
	*to = strdup(arg);
	return *to ? 0 : no_memory(p);
}

static int take_letter(struct parse *p, char letter, bool helper)
{
	struct options *o = p->o;

	switch (letter) {
	case 'f':
		if (helper)
			o->fake = true;
		else
			o->foreground = true;
		return 0;
	case 'd':
		o->debug = o->trace = o->foreground = true;
		return 0;
	case 'h':
		o->help = true;
		return 0;
	case 'V':
		o->version = true;
		return 0;
	case 'v':
		o->verbose = true;
		return 0;
	case 's': /* seen by find_sloppy() */
	case 'n': /* there is no mtab */
		return 0;
	case 'r':
		o->sl.readonly = true;
		return 0;
	case 'w':
		o->sl.readonly = false;
		return 0;
	default:
		return refuse(p, "unknown option '-%c'", letter);
	}
}

/* Letters with an argument, which may be attached. */
static bool letter_takes_value(char letter)
{
	return letter == 'o' || letter == 't';
}

/*
 * "-fo ro" and the like: letters up to one with an argument. *i moves on over
 * an argument that stands by itself. With p NULL only looks for -s.
 */
static int walk_letters(struct parse *p, int argc, char *const *argv, int *i,
			bool helper, bool *sloppy)
{
	const char *s = argv[*i] + 1;
	int err;

	for (; *s; s++) {
		const char *value;

		if (!letter_takes_value(*s)) {
			if (*s == 's')
				*sloppy = true;
			err = p ? take_letter(p, *s, helper) : 0;
			if (err)
				return err;
			continue;
		}
		value = s[1] ? s + 1 : *i + 1 < argc ? argv[++*i] : NULL;
		if (!p)
			return 0;
		if (!value)
			return refuse(p, "option '-%c' needs an argument", *s);
		/* -t: mount(8) tells the type; it is ours. */
		return *s == 'o' ? parse_list(p, value) : 0;
	}
	return 0;
}

static int take_long(struct parse *p, const char *arg)
{
	static const struct {
		const char *name;
		char letter;
	} names[] = {
		{ "help", 'h' },    { "version", 'V' },	 { "foreground", 'f' },
		{ "debug", 'd' },   { "verbose", 'v' },	 { "read-only", 'r' },
		{ "rw", 'w' },	    { "read-write", 'w' },
	};

	if (!strncmp(arg, "options=", 8))
		return parse_list(p, arg + 8);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(names[i].name, arg))
			return take_letter(p, names[i].letter, false);
	return refuse(p, "unknown option '--%s'", arg);
}

static bool is_letters(const char *arg)
{
	return arg[0] == '-' && arg[1] && arg[1] != '-';
}

/* -s counts for lists that stand before it, too. */
static bool find_sloppy(int argc, char *const *argv)
{
	bool sloppy = false;

	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
		if (is_letters(argv[i]))
			(void)walk_letters(NULL, argc, argv, &i, false, &sloppy);
	return sloppy;
}

static bool called_by_mount(const char *argv0)
{
	const char *slash = strrchr(argv0, '/');

	return !strncmp(slash ? slash + 1 : argv0, "mount.", 6);
}

static int parse_args(struct parse *p, int argc, char *const *argv)
{
	bool helper = argc > 0 && called_by_mount(argv[0]);
	bool operands_only = false;
	int err = 0;

	for (int i = 1; i < argc && !err; i++) {
		if (operands_only || argv[i][0] != '-' || !argv[i][1])
			err = take_operand(p, argv[i]);
		else if (!strcmp(argv[i], "--"))
			operands_only = true;
		else if (argv[i][1] != '-')
			err = walk_letters(p, argc, argv, &i, helper,
					   &p->o->sloppy);
		else if (!strcmp(argv[i], "--options") && i + 1 < argc)
			err = parse_list(p, argv[++i]);
		else
			err = take_long(p, argv[i] + 2);
	}
	return err;
}

/* What no option can say alone. */
static int check_together(struct parse *p)
{
	const struct options *o = p->o;

	if (!o->device)
		return refuse(p, "no device given");
	if (!o->mountpoint)
		return refuse(p, "no mount point given");
	if (o->data == DATA_JOURNAL && !o->sl.readonly && !o->remount)
		return refuse(p, "'data=journal' is not supported: the data of files is not journalled; "
			      "use 'data=ordered'%s", o->from_superblock ?
			      " (tune2fs -o ^journal_data makes that the volume's own)" : "");
	if (o->fakeroot && o->kernel)
		return refuse(p, "'fakeroot' and 'kernel' contradict each other");
	if (o->fakeroot && o->idmap)
		return refuse(p, "'fakeroot' and 'idmap' contradict each other");
	if (o->sl.dirty_bytes &&
	    o->sl.dirty_background_bytes > o->sl.dirty_bytes)
		return refuse(p, "'dirty_background_bytes' is above 'dirty_bytes'");
	return 0;
}

/* "kernel" and "fakeroot" say what others are by default. */
static void set_defaults(struct options *o)
{
	if (o->kernel) {
		o->suid = o->suid ?: OPT_YES;
		o->dev = o->dev ?: OPT_YES;
		o->allow_other = o->allow_other ?: OPT_YES;
	} else if (o->fakeroot) {
		o->suid = o->suid ?: OPT_NO;
		o->dev = o->dev ?: OPT_NO;
		o->allow_other = o->allow_other ?: OPT_NO;
	}
}

static int parse_all(struct parse *p, const char *superblock)
{
	struct options *o = p->o;
	int err = 0;

	if (superblock) {
		o->from_superblock = true;
		p->superblock = true;
		err = parse_list(p, superblock);
		p->superblock = false;
	}
	if (!err)
		err = parse_args(p, o->argc, o->argv);
	if (err || o->help || o->version)
		return err;
	err = check_together(p);
	set_defaults(o);
	return err;
}

int options_parse(struct options *o, int argc, char *const *argv, char *why,
		  size_t size)
{
	struct parse p = { .o = o, .why = why, .size = size };

	*o = (struct options){ .argc = argc, .argv = argv };
	o->sloppy = find_sloppy(argc, argv);
	return parse_all(&p, NULL);
}

int options_add_superblock(struct options *o, const char *text, char *why,
			   size_t size)
{
	struct options all = {
		.argc = o->argc, .argv = o->argv, .sloppy = o->sloppy,
	};
	struct parse p = { .o = &all, .why = why, .size = size };
	int err = parse_all(&p, text);

	if (err) {
		options_free(&all);
		return err;
	}
	options_free(o);
	*o = all;
	return 0;
}

int options_parse_remount(const struct options *now, const char *text, bool sloppy,
			  struct options *out, char *why, size_t size)
{
	struct parse p = { .o = out, .why = why, .size = size, .now = now };
	int err;

	*out = *now;
	out->device = out->mountpoint = out->given = NULL;
	out->notes = NULL;
	out->nr_notes = 0;
	out->sloppy = sloppy;
	out->fsname = now->fsname ? strdup(now->fsname) : NULL;
	out->journal_path = now->journal_path ? strdup(now->journal_path) : NULL;
	if ((now->fsname && !out->fsname) || (now->journal_path && !out->journal_path))
		return no_memory(&p);
	err = parse_list(&p, text);
	if (!err && out->sl.dirty_bytes &&
	    out->sl.dirty_background_bytes > out->sl.dirty_bytes)
		err = refuse(&p, "'dirty_background_bytes' is above 'dirty_bytes'");
	return err ? EXIT_CODE_MOUNT : 0;
}

/* ---- what is in force ---- */

struct show {
	char *buf;
	size_t len, used;
};

static void __attribute__((format(printf, 2, 3)))
show(struct show *s, const char *fmt, ...)
{
	va_list ap;
	int n;

	if (s->used && s->used + 1 < s->len)
		s->buf[s->used++] = ',';
	va_start(ap, fmt);
	n = vsnprintf(s->buf + s->used, s->len - s->used, fmt, ap);
	va_end(ap);
	if (n > 0)
		s->used = s->used + (size_t)n < s->len ? s->used + (size_t)n : s->len - 1;
}

static void show_number(struct show *s, const char *name, u64 n)
{
	if (n)
		show(s, "%s=%llu", name, (unsigned long long)n);
}

static void show_if(struct show *s, bool on, const char *name)
{
	if (on)
		show(s, "%s", name);
}

/* Those of the kernel's ext4 that can be changed by a remount. */
static void show_ext4(struct show *s, const struct sl_options *sl)
{
	static const char *const errors[] = {
		[SL_ERRORS_CONTINUE] = "continue",
		[SL_ERRORS_RO] = "remount-ro",
		[SL_ERRORS_PANIC] = "panic",
	};

	if (sl->errors != SL_ERRORS_DEFAULT)
		show(s, "errors=%s", errors[sl->errors]);
	show(s, "commit=%u", sl->commit_ms ? sl->commit_ms / 1000 : 5);
	show(s, sl->nodelalloc ? "nodelalloc" : "delalloc");
	show(s, sl->discard ? "discard" : "nodiscard");
	show(s, sl->noauto_da_alloc ? "noauto_da_alloc" : "auto_da_alloc");
	show(s, "data_err=%s", sl->data_err_abort ? "abort" : "ignore");
	show(s, sl->grpid ? "grpid" : "nogrpid");
	if (sl->resuid.given)
		show(s, "resuid=%u", sl->resuid.id);
	if (sl->resgid.given)
		show(s, "resgid=%u", sl->resgid.id);
	show(s, sl->minixdf ? "minixdf" : "bsddf");
	show(s, sl->nouser_xattr ? "nouser_xattr" : "user_xattr");
	show_number(s, "max_dir_size_kb", sl->max_dir_size_kb);
	show_number(s, "inode_readahead_blks", sl->inode_readahead_blks);
}

void options_show(const struct options *o, char *buf, size_t len)
{
	static const char *const atime[] = {
		[SL_ATIME_RELATIME] = "relatime",
		[SL_ATIME_NOATIME] = "noatime",
		[SL_ATIME_STRICT] = "strictatime",
	};
	static const char *const data[] = {
		[DATA_ORDERED] = "ordered",
		[DATA_WRITEBACK] = "writeback",
		[DATA_JOURNAL] = "journal",
	};
	const struct sl_options *sl = &o->sl;
	struct show s = { buf, len, 0 };

	buf[0] = '\0';
	show(&s, sl->readonly ? "ro" : "rw");
	show(&s, "%s", atime[sl->atime]);
	show_if(&s, sl->nodiratime, "nodiratime");
	show_if(&s, sl->sync, "sync");
	show_if(&s, sl->dirsync, "dirsync");
	show_if(&s, sl->noload, "norecovery");
	show_if(&s, sl->no_journal, "nojournal");
	show_number(&s, "sb", sl->sb_block);
	show(&s, "data=%s", data[o->data]);
	show_ext4(&s, sl);
	show(&s, sl->noacl ? "noacl" : "acl");
	show_if(&s, sl->nombcache, "nombcache");
	if (o->journal_path)
		show(&s, "journal_path=%s", o->journal_path);
	show_number(&s, "journal_dev", o->journal_dev);
	show_if(&s, sl->journal_checksum, "journal_checksum");
	show_if(&s, sl->nojournal_checksum, "nojournal_checksum");
	show_if(&s, o->debug, "debug");
	show(&s, "cache=%llu", (unsigned long long)sl->cache_bytes);
	show_if(&s, sl->datacache_full, "datacache=full");
	show_number(&s, "dirty_bytes", sl->dirty_bytes);
	show_number(&s, "dirty_background_bytes", sl->dirty_background_bytes);
	show(&s, "dirty_expire=%u", sl->dirty_expire_ms ? sl->dirty_expire_ms / 1000 : 5);
	show_if(&s, o->writeback, "writeback");
	if (o->read_ahead_given)
		show(&s, "read_ahead_kb=%llu", (unsigned long long)o->read_ahead_kb);
	show_number(&s, "zones", sl->zones);
	show_number(&s, "offset", o->offset);
	show_if(&s, o->fakeroot, "fakeroot");
	show_if(&s, o->noexport, "noexport");
	show_if(&s, o->idmap, "idmap");
}

void options_free(struct options *o)
{
	free(o->given);
	free(o->device);
	free(o->mountpoint);
	free(o->fsname);
	free(o->journal_path);
	for (unsigned i = 0; i < o->nr_notes; i++)
		free(o->notes[i].text);
	free(o->notes);
	*o = (struct options){ 0 };
}

void options_usage(void)
{
	fputs("usage: sluice [-dfhnrsvwV] [-o option[,option...]] device mountpoint\n"
	      "\n"
	      "  -f   stay in the foreground\n"
	      "  -d   as -f, with debugging messages\n"
	      "  -r   as -o ro\n"
	      "  -v   say more\n"
	      "  -s   ignore unknown mount options\n"
	      "  -h   this text\n"
	      "  -V   the version\n"
	      "\n"
	      "mount options (see sluice(8)):\n"
	      "  ro rw noatime relatime strictatime nodiratime sync dirsync\n"
	      "  errors=continue|remount-ro|panic  commit=SECONDS  offset=BYTES\n"
	      "  cache=SIZE  dirty_bytes=SIZE  dirty_background_bytes=SIZE\n"
	      "  dirty_expire=SECONDS  [no]delalloc  writeback  read_ahead_kb=N\n"
	      "  journal_path=PATH  journal_dev=NUMBER\n"
	      "  norecovery noload  nojournal  sb=BLOCK  debug  inode_iter=icache|percpu|global\n"
	      "  zones=N  [no]discard  [no]grpid  resuid=ID resgid=ID  minixdf bsddf\n"
	      "  [no]user_xattr [no]acl  max_dir_size_kb=N  [no]auto_da_alloc\n"
	      "  data=ordered|writeback  data_err=ignore|abort  inode_readahead_blks=N\n"
	      "  [no]suid [no]dev [no]exec [no]allow_other fsname=NAME kernel fakeroot\n"
	      "  [no]export\n"
	      "  [no]idmap\n",
	      stdout);
}
