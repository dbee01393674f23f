/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/fs.h - the file system as a library: mount a volume, work on it
 *
 * The FUSE daemon, the simulator, the fuzzers and the benchmarks use this and
 * nothing else of fs/. All calls are blocking and may be made from any
 * registered thread (lib/thread.h), with no lock held. Results are 0 (or a
 * count) or a negative errno.
 *
 * Inodes are given out referenced: sl_iput() them. Node ids are inode numbers
 * of the volume (the root is 2; the daemon maps FUSE's 1 to it). An inode
 * that the kernel knows is counted by sl_lookup_inc() and sl_forget(): while
 * its count is above zero an unlinked inode stays.
 *
 * Permissions are the caller's affair (the kernel's default_permissions),
 * except what only the file system knows: immutable and append-only flags, sticky
 * bits are not checked here; reserved blocks follow cred->uid.
 */
#ifndef SLUICE_FS_FS_H
#define SLUICE_FS_FS_H

#include "fs/bulkstat.h"
#include "lib/types.h"
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>

struct bdev;
struct inode;
struct region;
struct region_pool;
struct super_block;
struct sl_file;

enum sl_errors { SL_ERRORS_DEFAULT, SL_ERRORS_CONTINUE, SL_ERRORS_RO, SL_ERRORS_PANIC };
/* How walks over all inodes in memory find them (cache/sb_iter.h). */
enum sl_inode_iter { SL_INODE_ITER_ICACHE, SL_INODE_ITER_PERCPU, SL_INODE_ITER_GLOBAL };
#define SL_ZONES_MAX 64u
enum sl_atime { SL_ATIME_RELATIME, SL_ATIME_NOATIME, SL_ATIME_STRICT };

/* An id that was given, or was not. */
struct sl_id {
	bool given;
	u32 id;
};

/* What is atomic can be changed by sl_reconfigure(), while others look at it. */
struct sl_options {
	bool readonly;
	bool no_journal;      /* a volume without one is written to all the same */
	bool noload;          /* norecovery: ignore the log; to write, it must be empty */
	enum sl_errors errors;
	_Atomic enum sl_atime atime;
	_Atomic bool nodiratime;
	u32 commit_ms;        /* 0: 5000 */
	u64 cache_bytes;      /* 0: default */
	u64 sb_block;         /* sb=: backup superblock, in 1 KiB units; 0: primary */
	u64 dirty_bytes, dirty_background_bytes; /* 0: from cache_bytes */
	u32 dirty_expire_ms;  /* 0: 5000 */
	_Atomic bool nodelalloc;      /* blocks are allocated by sl_write(), not at write-out;
					 always so with bigalloc */
	bool datacache_full;  /* clean data is kept as all else, reads fill the cache;
				 else it goes first: the kernel has it, too */
	_Atomic bool sync;            /* every change durable when the call returns */
	_Atomic bool dirsync;
	_Atomic bool discard;         /* freed blocks, after the commit that freed them */
	_Atomic bool data_err_abort;  /* data that cannot be written aborts the journal */
	_Atomic bool grpid;           /* new inodes get their directory's group */
	struct sl_id resuid, resgid; /* else the superblock's: may use reserved blocks */
	_Atomic bool minixdf;         /* statfs: f_blocks with the structures of the volume */
	_Atomic bool nouser_xattr;    /* no attributes of the namespace user */
	bool noacl;           /* access control lists are neither given nor minded */
	bool nombcache;       /* equal blocks and values of attributes are not looked for, to share them */
	_Atomic u32 max_dir_size_kb;  /* 0: no bound of its own */
	_Atomic bool noauto_da_alloc; /* what replaces a file is not written out at once */
	_Atomic u32 inode_readahead_blks; /* 0: default */
	bool journal_checksum, nojournal_checksum; /* were given */
	enum sl_inode_iter inode_iter; /* for measurements */
	u32 zones;            /* of the cache, pretended; 0: by NUMA node */
	/* The device of an external journal, if the volume has one: taken over as bd is. NULL:
	 * it is not there, which will do with noload alone. */
	struct bdev *journal_bd;
	u32 journal_devno;    /* its number, as s_journal_dev has them; 0: an image */
	const char *mountpoint; /* for s_last_mounted; may be NULL */
	/* of sl_write_region(): idle memory is charged to the cache until the volume is
	 * unmounted, and outlives it; may be NULL */
	struct region_pool *regions;
};

struct sl_cred {
	u32 uid, gid;
	u32 umask; /* of new inodes, where the directory has no default ACL */
	bool of_group; /* of the group of the file at hand, by a further one of his */
};

/*
 * Mounts the volume on bd, which it takes over: closed by sl_unmount(), or
 * before an error is returned. The reason of an error is logged.
 * -EINVAL (not ext4, impossible geometry, or not the volume's journal), -EFSCORRUPTED, -EFSBADCRC,
 * -EOPNOTSUPP (a feature; named), -EROFS (needs a read-write mount that the device or features
 * forbid; the message tells to use ro), -EIO, -ENOMEM.
 */
int __must_check sl_mount(struct bdev *bd, const struct sl_options *opts,
			  struct super_block **out);
/*
 * The mount options that the superblock has by default (tune2fs -o, -E mount_opts), as
 * a list in the order in which they count; "" if there are none, or no ext4. sb_block
 * as in sl_options. Before sl_mount(). -EIO and the like; logged.
 */
#define SL_SUPERBLOCK_OPTIONS_MAX 256
int __must_check sl_superblock_options(struct bdev *bd, u64 sb_block, char *buf, size_t len);
/*
 * Is the journal on another device, and which? As the superblock has it, unchecked; what
 * is no ext4 has no external journal. sb_block as in sl_options. Before sl_mount(). -EIO and the
 * like; logged.
 */
struct sl_external_journal {
	bool external;
	char uuid[37]; /* as text */
	u32 devno;     /* what it was: a hint */
};
int __must_check sl_superblock_journal(struct bdev *bd, u64 sb_block,
				       struct sl_external_journal *out);
/*
 * Writes everything and leaves the volume clean; frees all. The kernel's
 * lookup counts are forgotten. The first error that may have lost data is
 * returned: the volume is unmounted all the same, and needs recovery if its
 * journal was aborted.
 */
int sl_unmount(struct super_block *sb);
/* sync(2), syncfs(2): data, then metadata, durable. A write error of data since
 * the last one is returned once, whoever else was told. */
int __must_check sl_sync(struct super_block *sb);
int __must_check sl_statfs(struct super_block *sb, struct statvfs *st);
bool sl_is_readonly(struct super_block *sb);
/*
 * Options of a mounted volume, beside other calls: where `to` has another value than `was`
 * for errors, atime, nodiratime, commit_ms, cache_bytes, dirty_*, nodelalloc, sync,
 * dirsync, discard, data_err_abort, grpid, resuid, resgid, minixdf, nouser_xattr,
 * max_dir_size_kb, noauto_da_alloc or inode_readahead_blks, that is in force on return. The
 * others are not looked at. -ENOMEM, -EAGAIN: some may be. One caller at a time.
 */
int __must_check sl_reconfigure(struct super_block *sb, const struct sl_options *was,
				const struct sl_options *to);
/*
 * A volume that was mounted read-only becomes writable, its log being replayed on the
 * device and orphans being dealt with, as at a mount. First _begin(), beside other calls;
 * it may take as long as others may have the volume (MMP). Then _finish(), with no other
 * call on sb until it returns. An external journal's device becomes writable with the
 * volume's, or neither does. 0, also if it is writable already; -EROFS, -EACCES:
 * a device, features, or earlier errors forbid it; -EINVAL (sb=, norecovery; the journal is
 * another volume's by now); -EBUSY: others have the volume or its journal; -EFSCORRUPTED:
 * what was mounted is no more on the devices; -EFSBADCRC, -EIO, -ENOMEM. It is logged.
 * After an error it stays as it was; but if _finish() fails when it has begun to change
 * inodes, as after any error then.
 * own: a loop device on the image, which is ours; may be NULL.
 */
int __must_check sl_writable_begin(struct super_block *sb, const char *own);
int __must_check sl_writable_finish(struct super_block *sb);
/* Is the journal in use? False of a read-only mount; true of what errors made read-only. */
bool sl_holds_volume(struct super_block *sb);
/* Nobody may change the volume just now, but for the deletions that are due: times of
 * access are not updated. Any time; for a mount that the kernel has made read-only. */
void sl_set_quiet(struct super_block *sb, bool quiet);
/* Instead of the mount's option atime: no times of access; or again, as it says, with
 * SL_ATIME_NOATIME as with SL_ATIME_RELATIME. Any time. */
void sl_set_noatime(struct super_block *sb, bool noatime);
bool sl_nsec_times(struct super_block *sb);
/* Whatever nodelalloc says, blocks for what is written are chosen at once (bigalloc). */
bool sl_never_delays(struct super_block *sb);
u64 sl_cache_bytes(struct super_block *sb); /* the bound in force, also by default */
/*
 * Another bound, as cache_bytes of the options (too small a one is raised). If memory is
 * above it, returns when it is below, or what is left is in use: dirty data is
 * written for that, and if more of it is there than may be dirty with the new
 * bound. -EINVAL: 0, or beyond 2^63.
 */
int __must_check sl_set_cache_bytes(struct super_block *sb, u64 bytes);
/* Multi-line text of counters for the log and tests; returns bytes written. */
size_t sl_stats(struct super_block *sb, char *buf, size_t len);
/* Moves what is cached of a file to a zone, as far as it is not in use just now.
 * -EINVAL: no such zone, or no regular file. */
int sl_migrate(struct inode *inode, u32 zone);
/*
 * Moves the blocks of a regular file so that it lies in fewer places, while it is in
 * use; after a crash each part is in the old place or in the new one. -EINVAL: no regular
 * file; -EPERM: immutable or append-only; -EOPNOTSUPP: it has no extents; -EBUSY: it is
 * being moved; -ETXTBSY: it is open, and somebody was told where its blocks are
 * (sl_bmap()); -EROFS, -ENOSPC, -EIO: some of it may have moved.
 */
int __must_check sl_relocate(struct inode *inode);
/* In how many places on the volume it lies, up to its size. -EINVAL, -EIO, ... */
int __must_check sl_extents(struct inode *inode, u64 *nr);
/* Who is at work in a file, as lines of text; returns bytes, < len. */
size_t sl_windows_text(struct inode *inode, char *buf, size_t len);
/*
 * As EXT4_IOC_CHECKPOINT: everything is durable, and what of it is metadata is in its place,
 * but for what is changed again meanwhile. -EROFS, and the errors of sl_sync().
 */
int __must_check sl_checkpoint(struct super_block *sb);
/* The same, and the log is overwritten with zeros, or discarded. Also -EBUSY (others commit
 * all the time) and -EOPNOTSUPP (no log, or no discard). */
int __must_check sl_erase_log(struct super_block *sb, bool discard);
/* drop_caches: clean folios, buffers, inodes. */
void sl_drop_caches(struct super_block *sb);
/* For users, in parts: clean folios of files alone, or what metadata is not in use,
 * for which what was committed is written in place. Sleeps. */
enum sl_drop { SL_DROP_DATA = 1, SL_DROP_META = 2 };
void sl_drop_caches_of(struct super_block *sb, enum sl_drop what);
/* Up to max inode numbers from *ino on that the kernel has looked up, in rising order;
 * *ino (0 at first) moves behind them. 0: no more. Those that come meanwhile may
 * be missed. */
u32 sl_looked_up(struct super_block *sb, u64 *ino, u32 *out, u32 max);

/* ---- the volume itself ---- */
#define SL_LABEL_MAX 16u
/* label: SL_LABEL_MAX bytes and a NUL. */
void sl_get_label(struct super_block *sb, char *label);
/* Durable on return, in the backups too. -EINVAL: longer than SL_LABEL_MAX bytes; -EROFS. */
int __must_check sl_set_label(struct super_block *sb, const char *label);
/*
 * Discards what is free of [start, start + len) bytes, in runs of minlen bytes and more.
 * *trimmed: bytes that were, also after an error. stop(priv), if not NULL, is asked now
 * and then: true ends it with -EINTR. -EOPNOTSUPP: the device can't; -EINVAL: len is less
 * than a block, start beyond the end, or minlen more than a group; -EROFS, -EIO.
 */
int __must_check sl_trim(struct super_block *sb, u64 start, u64 len, u64 minlen,
			 u64 *trimmed, bool (*stop)(void *priv), void *priv);
/* Numbers as of EXT4_IOC_SHUTDOWN. */
enum sl_shutdown {
	SL_SHUTDOWN_DEFAULT,    /* all is written before */
	SL_SHUTDOWN_LOGFLUSH,   /* what is in the journal is committed */
	SL_SHUTDOWN_NOLOGFLUSH, /* nothing is */
};
/*
 * From its return until sl_unmount(), which gives 0 then, nothing reaches the device,
 * and changes give -EIO (those that are under way may give -EROFS). The next mount
 * recovers. 0 also if it is shut down already; -EINVAL; or why not all could be written.
 */
int __must_check sl_shutdown(struct super_block *sb, enum sl_shutdown how);
bool sl_is_shut_down(struct super_block *sb);

/* ---- inodes ---- */
int __must_check sl_iget(struct super_block *sb, u64 ino, struct inode **out); /* -ESTALE */
/* For listings: the inode is kept in memory only if it is wanted again. */
int __must_check sl_iget_scan(struct super_block *sb, u64 ino, struct inode **out);
void sl_iput(struct inode *inode); /* NULL allowed; may delete the inode */
void sl_lookup_inc(struct inode *inode);
void sl_forget(struct super_block *sb, u64 ino, u64 n);
u64 sl_ino(const struct inode *inode);
u32 sl_generation(const struct inode *inode);

void sl_getattr(struct inode *inode, struct stat *st);
/*
 * The attributes of an inode by number, if that takes no lock, no reference, and no
 * store to shared memory. 0, -ESTALE, or -EAGAIN: go by sl_iget().
 */
int __must_check sl_getattr_ino(struct super_block *sb, u64 ino, struct stat *st);

/* An inode that was looked up, without a reference. */
struct sl_entry {
	u64 ino;
	u32 generation;
	struct stat st;
};
/*
 * sl_lookup() of a name in directory `dir` (a number), with sl_lookup_inc() (the
 * volume's root aside) and sl_getattr(), if that takes no lock and no reference: all
 * is cached, and was used before. 0; -ENOENT (there is no such name, for sure); or
 * -EAGAIN: go by sl_iget() and sl_lookup().
 */
int __must_check sl_lookup_cached(struct super_block *sb, u64 dir, const char *name,
				  size_t len, struct sl_entry *out);

/* When it was made; false: not recorded. */
bool sl_birth_time(struct inode *inode, struct timespec *t);

enum sl_setattr {
	SL_SET_MODE = 1u << 0,
	SL_SET_UID = 1u << 1,
	SL_SET_GID = 1u << 2,
	SL_SET_SIZE = 1u << 3,
	SL_SET_ATIME = 1u << 4,
	SL_SET_MTIME = 1u << 5,
	SL_SET_ATIME_NOW = 1u << 6,
	SL_SET_MTIME_NOW = 1u << 7,
	/* Whoever keeps times himself sends "now" as a time: mtime as ctime is. */
	SL_SET_CTIME = 1u << 8,
	SL_KILL_SUIDGID = 1u << 9, /* clear suid, and sgid if group-executable */
	SL_KILL_SGID = 1u << 10,   /* clear sgid whatever the group may do */
	/* As SL_WRITE_DELAYED: times of what was done before, on an immutable file, too. */
	SL_SET_DELAYED = 1u << 11,
};
/* st: the new values of what `valid` names. *after (may be NULL): attributes then. */
int __must_check sl_setattr(struct inode *inode, const struct stat *st, u32 valid,
			    const struct sl_cred *cred, struct stat *after);

/* ---- flags and project ---- */
struct sl_fileattr {
	u32 flags;  /* FS_*_FL of linux/fs.h */
	u32 projid; /* 0 without feature "project" */
};
void sl_fileattr_get(struct inode *inode, struct sl_fileattr *fa);
enum sl_fileattr_what { SL_FA_FLAGS = 1, SL_FA_PROJID = 2 };
/* What the caller may do beyond what he owns: capabilities. */
enum sl_may {
	SL_MAY_OWN = 1u << 0,       /* CAP_FOWNER */
	SL_MAY_IMMUTABLE = 1u << 1, /* CAP_LINUX_IMMUTABLE */
	SL_MAY_RESOURCE = 1u << 2,  /* CAP_SYS_RESOURCE */
};
/*
 * Sets what `what` names, of the flags those of mask, both or none. As ext4: flags that
 * can be seen but not set stay as they are. -EPERM: cred does not own the inode, or it
 * takes more to change the immutable, append-only or journal-data flag, or the inode is
 * immutable and stays it; -EOPNOTSUPP: no such flag, not for this type, or one that
 * this code cannot change (EXTENTS, CASEFOLD, JOURNAL_DATA on), or no projects on
 * this volume; -EOVERFLOW: the inode has no room for a project; -EROFS. cred NULL: the
 * owner.
 */
int __must_check sl_fileattr_set(struct inode *inode, const struct sl_fileattr *fa,
				 u32 what, u32 mask, u32 may,
				 const struct sl_cred *cred);

/*
 * ---- extended attributes: user, trusted, security; access control lists ----
 *
 * The lists, system.posix_acl_access and system.posix_acl_default, are given and
 * taken in the form of system calls (linux/posix_acl_xattr.h).
 */
/* The inode is in memory and has none: told without I/O, lock of a volume, or reference. */
bool sl_has_no_xattrs(struct super_block *sb, u64 ino);
/* The same of one name: also of an ACL, if it has other attributes. */
bool sl_lacks_xattr(struct super_block *sb, u64 ino, const char *name);
/*
 * The value of an attribute, by its whole name, into buf; returns its bytes. size 0:
 * only how many. -ENODATA: it has none; -ERANGE: more than size, or an impossible
 * name; -EOPNOTSUPP: no such namespace; -E2BIG: more than a system call can
 * hand over. Who may see it is the caller's affair.
 */
ssize_t __must_check sl_getxattr(struct inode *inode, const char *name, void *buf,
				 size_t size);
/* All names, each with its NUL; bytes in all. size 0: only how many. -ERANGE.
 * Those of trusted are left out unless asked for. */
ssize_t __must_check sl_listxattr(struct inode *inode, bool trusted, char *buf,
				  size_t size);

enum sl_xattr_flags {
	SL_XATTR_CREATE = 1, /* as XATTR_* */
	SL_XATTR_REPLACE = 2,
	SL_XATTR_KILL_SGID = 4, /* with an access ACL: who sets it is not of the group */
};
/*
 * Sets an attribute; value is not NULL, and may have 0 bytes. -EEXIST, -ENODATA: by the
 * flags; -ENOSPC: no room in the inode and its block, or on the volume; -E2BIG;
 * -EPERM: immutable or append-only; -EOPNOTSUPP: no such namespace, or the volume has
 * no attributes; -EROFS. An access ACL sets the mode, and is not stored if it says no
 * more; -EINVAL: it is none; -EACCES: a default ACL of what is no directory.
 */
int __must_check sl_setxattr(struct inode *inode, const char *name, const void *value,
			     size_t len, u32 flags, const struct sl_cred *cred);
/* -ENODATA (not of ACLs), and as above. */
int __must_check sl_removexattr(struct inode *inode, const char *name);

/* ---- names: len bytes, no NUL or '/' ---- */
/* *out gets an inode, referenced. -ENOENT, -ENOTDIR, -ENAMETOOLONG. "." and ".." work. */
int __must_check sl_lookup(struct inode *dir, const char *name, size_t len,
			   struct inode **out);
/* mode: type and permission bits. Regular files, devices (rdev), fifos, sockets. */
int __must_check sl_mknod(struct inode *dir, const char *name, size_t len, u32 mode,
			  u64 rdev, const struct sl_cred *cred, struct inode **out);
int __must_check sl_mkdir(struct inode *dir, const char *name, size_t len, u32 mode,
			  const struct sl_cred *cred, struct inode **out);
int __must_check sl_symlink(struct inode *dir, const char *name, size_t len,
			    const char *target, const struct sl_cred *cred,
			    struct inode **out);
/* A regular file without a name, an orphan until sl_link() gives it one. The directory says
 * where, and what is inherited. */
int __must_check sl_tmpfile(struct inode *dir, u32 mode, const struct sl_cred *cred,
			    struct inode **out);
int __must_check sl_link(struct inode *inode, struct inode *dir, const char *name,
			 size_t len);
int __must_check sl_unlink(struct inode *dir, const char *name, size_t len);
int __must_check sl_rmdir(struct inode *dir, const char *name, size_t len);
/* flags: RENAME_NOREPLACE, RENAME_EXCHANGE (linux/fs.h); others -EINVAL. */
int __must_check sl_rename(struct inode *olddir, const char *oldname, size_t oldlen,
			   struct inode *newdir, const char *newname, size_t newlen,
			   u32 flags);
/* The same, and the old name stays: as a character device 0:0 (a whiteout) of cred, who
 * is not NULL. RENAME_EXCHANGE: -EINVAL. -ENOSPC. Who may make one is the caller's affair. */
int __must_check sl_rename_whiteout(struct inode *olddir, const char *oldname,
				    size_t oldlen, struct inode *newdir,
				    const char *newname, size_t newlen, u32 flags,
				    const struct sl_cred *cred);
/* Target into buf (size > 0), NUL-terminated; returns its length. */
ssize_t __must_check sl_readlink(struct inode *inode, char *buf, size_t size);

/* ---- directories ---- */
struct sl_dirent {
	const char *name; /* not NUL-terminated; valid during the call */
	u32 namelen;
	u64 ino;
	u32 type;  /* S_IF* bits; 0 unknown */
	u64 next;  /* cookie that continues after this entry */
};
/* An open directory: keeps a cursor. */
int __must_check sl_opendir(struct inode *dir, struct sl_file **out);
/* Calls emit from cookie pos on until it returns nonzero or the end. */
int __must_check sl_readdir(struct sl_file *f, u64 pos,
			    int (*emit)(void *priv, const struct sl_dirent *de), void *priv);

/* ---- files ---- */
enum sl_open_flags {
	SL_OPEN_WRITE = 1u << 0,
	SL_OPEN_TRUNC = 1u << 1,
	SL_OPEN_APPEND = 1u << 2,
	SL_OPEN_SYNC = 1u << 3,  /* O_SYNC; O_DSYNC as SL_OPEN_DSYNC */
	SL_OPEN_DSYNC = 1u << 4,
	SL_OPEN_KILL_SUIDGID = 1u << 5, /* with TRUNC */
	SL_OPEN_KILL_SGID = 1u << 6, /* ... sgid whatever the group may do */
	SL_OPEN_READ = 1u << 7, /* for sl_move_extents(); sl_read() does without */
};
/* An open file description: keeps the write errors it has seen. Holds the inode. */
int __must_check sl_open(struct inode *inode, u32 flags, struct sl_file **out);
/* In whose name what is written with SL_WRITE_DELAYED is; before the first such write.
 * Else it is in that of the call. */
void sl_file_set_opener(struct sl_file *f, const struct sl_cred *cred);
/* O_NOATIME: reading through f leaves the time of access alone. Any time. */
void sl_file_set_noatime(struct sl_file *f, bool noatime);
/* Last close. Write errors not seen by anyone are not returned here. */
void sl_release(struct sl_file *f);
struct inode *sl_file_inode(struct sl_file *f);
/* close(2) of one descriptor: a write error that f has not been told; no write-out. */
int __must_check sl_flush(struct sl_file *f);

/* Bytes read (0 at or past the end) into buf, which should be 4096-aligned for speed. */
ssize_t __must_check sl_read(struct sl_file *f, void *buf, size_t len, u64 pos);
enum sl_write_flags {
	SL_WRITE_KILL_SUIDGID = 1u << 0,
	SL_WRITE_KEEP_TIMES = 1u << 1, /* the caller tells mtime and ctime by sl_setattr() */
	/* O_DIRECT: whole blocks go to the device past the cache, if they are many
	 * and buf is aligned; the rest as usual. */
	SL_WRITE_DIRECT = 1u << 2,
	/* Accepted before, and only now handed on: into an immutable file, too; cred says
	 * nothing, if f has an opener. */
	SL_WRITE_DELAYED = 1u << 3,
	SL_WRITE_KILL_SGID = 1u << 4, /* with KILL_SUIDGID: whatever the group may do */
};
/* Bytes written: all of len, or fewer on -ENOSPC/-EIO part-way, or the error. */
ssize_t __must_check sl_write(struct sl_file *f, const void *buf, size_t len, u64 pos,
			      u32 flags, const struct sl_cred *cred);
/*
 * The same of buf in a region (cache/region.h) that the caller holds: whole pages that are
 * not in the page cache may be taken over instead of copied. So buf must not be
 * changed any more, but through another sl_write().
 */
ssize_t __must_check sl_write_region(struct sl_file *f, struct region *region, void *buf,
				     size_t len, u64 pos, u32 flags,
				     const struct sl_cred *cred);
int __must_check sl_fsync(struct sl_file *f, bool datasync); /* also directories */
/*
 * mode: 0, or FALLOC_FL_ZERO_RANGE, each alone or with FALLOC_FL_KEEP_SIZE; or
 * FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE; or FALLOC_FL_COLLAPSE_RANGE or
 * FALLOC_FL_INSERT_RANGE alone. Others: -EOPNOTSUPP; so is all but
 * punching on files with block maps. -EBADF (not open for writing), -EINVAL (len 0; to collapse or insert: not whole
 * blocks, or not before the end), -EFBIG, -EPERM (immutable;
 * append-only, if content would change), -ETXTBSY (to collapse or insert: the kernel
 * swaps to it), -ENOSPC: allocated, and grown, as far
 * as it went; a range to be zeroed then reads as zero, or part of it does. Of a collapse or
 * insertion that fails, see shift.c.
 */
int __must_check sl_fallocate(struct sl_file *f, int mode, u64 off, u64 len,
			      const struct sl_cred *cred);
/*
 * Copies up to len bytes within a volume. Returns how many: fewer at the end of `in`,
 * at SL_COPY_MAX, or when an error came after some; 0 at or past the end of `in`. out
 * is open for writing and not for appending, else -EBADF. -EINVAL: the ranges overlap
 * in one file; -EXDEV: two volumes; -EOVERFLOW: an offset beyond 2^63. Others may
 * write to both files meanwhile, as between read and write.
 */
#define SL_COPY_MAX (64u << 20)
ssize_t __must_check sl_copy_file_range(struct sl_file *in, u64 off_in,
					struct sl_file *out, u64 off_out, size_t len,
					const struct sl_cred *cred);
struct sl_extent {
	u64 logical, physical, length; /* bytes; physical: of the volume */
	u32 flags;                     /* FIEMAP_EXTENT_* of linux/fiemap.h */
};
/*
 * Where the content of a file or directory lies: at most max extents of [start, start +
 * len), in order, whole blocks. Returns their number. The last one of the file says so, if
 * the range goes beyond all that can be. sync: what is dirty is written before. Each extent is
 * true for some moment during the call, whoever writes. -EINVAL: neither of these; -EIO.
 */
s32 __must_check sl_fiemap(struct inode *inode, u64 start, u64 len, bool sync,
			   struct sl_extent *out, u32 max);
/*
 * Where the extended attributes of an inode lie: 1, or 0 if there are none. Of those in the
 * inode and in a block beside it only the first are told, as by the kernel's ext4. -EIO,
 * -EFSCORRUPTED, -ENOMEM.
 */
s32 __must_check sl_fiemap_xattr(struct inode *inode, struct sl_extent *out);
/*
 * The data of blocks [start, start + len) of f moves to the blocks that the donor has from
 * donor_start on, as far as both have blocks there and reach; the donor gets those of f, and
 * reads as zero there. f is open for reading and writing; that the caller may write to the
 * donor has been looked at. After a crash f is as it was, and each block of the donor as it
 * was or zero. Sleeps. *moved: blocks that have moved, also with an error.
 * -EBADF: f is open for one of both only; -EINVAL: no two regular files of the volume, nothing
 * of the range is inside both, or the donor is suid or sgid; -EPERM: the donor is immutable or
 * append-only; -ENODATA: from some block of the range on, f has none; -EOPNOTSUPP: a file
 * without extents, bigalloc; -ETXTBSY: as sl_relocate(); -EROFS, -ENOSPC, -EIO, ...
 */
int __must_check sl_move_extents(struct sl_file *f, struct inode *donor, u64 start,
				 u64 donor_start, u64 len, u64 *moved);
/* whence: SEEK_DATA or SEEK_HOLE. Offset, or -ENXIO. */
s64 __must_check sl_lseek(struct sl_file *f, u64 off, int whence);
/*
 * Where on the device the bytes [pos, pos + len) of a file are, counted from the volume's
 * start, for FIBMAP and swapon(8). What is dirty of them is written out first; the
 * answer holds until somebody changes the file, which sl_relocate() refuses to do before
 * nobody has it open any more. *where is 0 for a hole, for bytes that are not in one piece,
 * beyond the last block, in the inode, and if it is no regular file. Allocated blocks that
 * were never written count: swap space needs no more. Sleeps.
 */
int __must_check sl_bmap(struct inode *inode, u64 pos, u32 len, u64 *where);

#endif
