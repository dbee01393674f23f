/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/sim/workload.h - streams of operations: what to do, on what volume,
 * with which options and faults; made from a seed, kept in files, shrunk
 *
 * A stream is data, made beforehand: a generator runs the model to choose
 * operations that mostly succeed. Each thread works below a directory of its
 * own ("/t0", "/t1", ...); paths are relative to it.
 *
 * The file format is text, one line each: "name value" for the settings, then
 * "op THREAD NAME ARGS". Unknown lines are an error. '#' begins a comment.
 *
 * Locks: none; a stream belongs to one thread while it is changed.
 */
#ifndef SLUICE_SIM_WORKLOAD_H
#define SLUICE_SIM_WORKLOAD_H

#include "tests/sim/simdev.h"
#include <stdio.h>

#define SIM_THREADS 4
#define SIM_HANDLES 4 /* files held open, per thread */
#define SIM_XATTRS 4  /* names of attributes */
#define SIM_XATTR_SMALL 200 /* bytes of a value: all of an inode's fit in a block */
#define SIM_XATTR_MAX 65536

enum sim_op_kind {
	OP_CREATE,   /* path, mode */
	OP_MKDIR,    /* path, mode */
	OP_SYMLINK,  /* path, len: of the target, seed */
	OP_MKNOD,    /* path, mode: a fifo */
	OP_LINK,     /* path, path2 */
	OP_UNLINK,   /* path */
	OP_RMDIR,    /* path */
	OP_RENAME,   /* path, path2, flags */
	OP_WRITE,    /* path, off, len, seed, flags: enum sl_open_flags */
	OP_TRUNCATE, /* path, off: the size */
	OP_FALLOC,   /* path, off, len, flags: mode */
	OP_COPY,     /* path, path2: from there, off, len, seed: offset in path2 */
	OP_CHMOD,    /* path, mode */
	OP_CHOWN,    /* path, mode: uid = gid */
	OP_UTIMES,   /* path, off: seconds (signed), len: nanoseconds; of mtime */
	OP_SETXATTR, /* path, slot: the name, len, seed, flags: enum sl_xattr_flags */
	OP_RMXATTR,  /* path, slot */
	OP_READ,     /* path: all of it, compared */
	OP_FSYNC,    /* path; a directory too */
	OP_FDATASYNC,/* path */
	OP_SYNC,
	OP_HOLD,     /* path, slot: opens it there */
	OP_DROP,     /* slot: closes it */
	OP_HWRITE,   /* slot, off, len, seed */
	OP_HTRUNC,   /* slot, off: the size */
	OP_HSYNC,    /* slot */
	OP_CACHES,   /* drop_caches */
	OP_RELOCATE, /* path: its blocks together */
	OP_MIGRATE,  /* path, flags: 1 to extents, 0 to a block map if that can be */
	OP_MOVE,     /* path, path2: the donor, off, len, seed: offset in path2; whole blocks */
	OP_NR,
};

/* Most that an OP_MOVE is about, in blocks. */
#define SIM_MOVE_MAX 64u

/* How OP_MIGRATE left the file. */
enum sim_migrated {
	SIM_BLOCK_MAP = 1u << 0,
	SIM_NOT_MIGRATED = 1u << 1,
};

extern const char *const sim_op_name[OP_NR];

struct sim_op {
	enum sim_op_kind kind;
	u8 thread, slot;
	char *path, *path2; /* owned; NULL where not used */
	u64 off;
	u32 len, mode, flags;
	u64 seed;
};

struct sim_stream {
	u64 seed;
	u32 mkfs;          /* index of sim_mkfs[] */
	u32 threads;
	u32 commit_ms;     /* 0: never by time */
	u32 expire_ms;     /* of dirty data; 0: never by time */
	bool sync;         /* mounted with -o sync */
	bool nodelalloc;   /* mounted with -o nodelalloc */
	u32 zones;         /* of the cache; 0: by NUMA node */
	bool dev_threaded; /* device ends bios on its thread */
	u32 delay_us;
	struct sim_fault fault;
	bool now;          /* device: transfers on the caller's thread */
	u32 stall_ms;      /* of the device, now and then */
	u32 oom;           /* the nth request for memory fails; 0: none */
	u32 enospc;        /* ... for blocks or an inode */
	u32 drop_flush;    /* of the device; 0: none */
	bool lying;        /* device: no flush does anything */
	u32 points;        /* crash points to look at; 0: the runner's default */
	struct sim_op *op;
	u32 nr_ops, max_ops;
};

/* Kinds of volumes. */
struct sim_mkfs {
	const char *name, *args, *size;
	u32 blocksize;
	bool block_maps; /* no extents */
	const char *log; /* the size of an external journal's device, or NULL */
	const char *log_args;
	bool bigalloc;
};
extern const struct sim_mkfs sim_mkfs[];
extern const u32 sim_nr_mkfs;
/* By name; SIM_NEVER: there is none. */
u32 sim_mkfs_find(const char *name);
/* Large values of attributes have inodes of their own (ea_inode). */
bool sim_mkfs_has_values(u32 mkfs);

void sim_stream_init(struct sim_stream *s);
void sim_stream_release(struct sim_stream *s);
/* Copies op with its paths. */
void sim_stream_add(struct sim_stream *s, const struct sim_op *op);
/* s with the ops [from, to) left out, into *out. */
void sim_stream_without(const struct sim_stream *s, u32 from, u32 to,
			struct sim_stream *out);
void sim_stream_write(const struct sim_stream *s, FILE *f);
void sim_op_print(const struct sim_op *op, FILE *f);
/* 0, or -EINVAL with a message on stderr. */
int sim_stream_read(struct sim_stream *s, FILE *f, const char *name);

enum sim_profile {
	SIM_PROFILE_ANY,    /* the seed chooses among the others */
	SIM_PROFILE_MIXED,
	SIM_PROFILE_NAMES,  /* large directories, renames */
	SIM_PROFILE_DATA,   /* fragmented files, truncates */
	SIM_PROFILE_FULL,   /* no space left, most of the time */
	SIM_PROFILE_CHURN,  /* directories and files come and go: revokes, reuse */
	SIM_PROFILE_FAULTS, /* mixed, with a fault of the device */
	SIM_PROFILE_THREADS,
	SIM_PROFILE_NR,
};
/* If not SIM_NEVER, each stream that is generated is for this kind of volume. */
extern u32 sim_only_mkfs;
void sim_stream_generate(struct sim_stream *s, u64 seed, enum sim_profile profile);

/* ACE: number of one-operation workloads; the nth of them. For two: any of
 * sim_ace_count()^2, by number. */
u32 sim_ace_count(void);
void sim_ace_one(struct sim_stream *s, u32 n);
void sim_ace_two(struct sim_stream *s, u32 first, u32 second);

/*
 * A few short streams that have all kinds of operations, for faults that are
 * tried at each place in turn.
 */
u32 sim_brief_count(void);
void sim_brief(struct sim_stream *s, u32 n);

/* Bytes of file data at [off, off+len) as written with this seed. */
void sim_data(u64 seed, u64 off, u8 *buf, u32 len);
extern const char *const sim_xattr_name[SIM_XATTRS];
/* An attribute as listings show it, after what is in buf already. */
void sim_xattr_text(char *buf, size_t size, u32 slot, const u8 *value, u32 len);
/* The same of sim_data(seed, 0, ..., len). */
void sim_xattr_text_of(char *buf, size_t size, u32 slot, u64 seed, u32 len);
/* The target of a symlink, NUL-terminated: len bytes, below 4096. */
void sim_target(u64 seed, u32 len, char *buf);

#endif
