/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/sluice_ioctl.h - ioctls on the root directory of a Sluice mount, and on its files
 *
 * For programs that look at a mount from outside; sluicectl(8) is one. Open the
 * directory that the volume is mounted on, O_RDONLY. Permitted are the superuser
 * and the user the daemon runs as, whatever the directory's mode: else EPERM.
 * ENOTTY: that is not the root of a Sluice mount, or the daemon does not know the
 * request.
 *
 * Each structure begins with a version and its own size in bytes. The caller
 * sets both as they are here; a daemon that has another layout says EINVAL. A new
 * layout gets a new version. All fields have the same size and place for 32- and
 * 64-bit callers; what is named reserved is 0.
 */
#ifndef SLUICE_IOCTL_H
#define SLUICE_IOCTL_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define SLUICE_IOC_VERSION 1

/* ---- all inodes, in the order of their numbers ---- */

struct sluice_inode {
	__u64 ino;
	/*
	 * 0, or an errno: the inodes [ino, ino + lost) could not be read, and the
	 * rest is 0. One damaged inode, or a group whose bitmap is damaged.
	 */
	__u32 error;
	__u32 lost;
	__u32 generation;
	__u32 mode; /* type and permissions, as of stat(2) */
	__u32 nlink;
	__u32 uid;
	__u32 gid;
	__u32 flags; /* FS_*_FL of linux/fs.h */
	__u32 projid;
	__u32 rdev_major;
	__u32 rdev_minor;
	__u32 reserved;
	__u64 size;   /* bytes */
	__u64 blocks; /* of 512 bytes */
	__s64 atime;  /* seconds since 1970 */
	__s64 mtime;
	__s64 ctime;
	__s64 crtime; /* 0: not recorded */
	__u32 atime_nsec;
	__u32 mtime_nsec;
	__u32 ctime_nsec;
	__u32 crtime_nsec;
};

/* As many as fit into an ioctl of less than 16 KiB. */
#define SLUICE_BULKSTAT_MAX 136

/*
 * A batch. in: numbers [next, last], and how many inodes are wanted at most (1 to
 * SLUICE_BULKSTAT_MAX). out: count inodes, and next, where to go on; a count
 * of 0 is the end. Begin with next = 1 and call again, with the structure as it is,
 * on the same descriptor: the daemon has read ahead then.
 *
 * From the first batch to the last: an inode with a link that exists all the time is
 * reported once, with values that it had together at some moment in between; one
 * that is made or removed meanwhile once at most. Removed inodes that are still open,
 * and those of the file system itself, are not reported.
 */
struct sluice_bulkstat {
	__u32 version;
	__u32 size;
	__u64 next;
	__u64 last; /* ~0: to the end */
	__u32 wanted;
	__u32 count;
	struct sluice_inode inode[SLUICE_BULKSTAT_MAX];
};

/*
 * The same as a stream, which is faster: a file of this name in the root. LOOKUP finds
 * it for those who may use it, unless the volume has such a name itself; readdir does
 * not. It is opened for reading only. read(2) gives whole struct sluice_inode, as many as fit and
 * are ready, and 0 at the end; EINVAL if not even one fits. The file has no position and
 * no size; its data is not cached, so each open file, or SLUICE_IOC_STREAM on it, is a
 * new scan. The daemon reads ahead for the first 8 scans; more are slower. For
 * consumers that share the work: an open file and a part for each.
 */
#define SLUICE_STREAM_NAME ".sluice.bulkstat"

/*
 * On an open stream: in: the numbers [first, last], and of these the part'th of
 * `parts` parts of whole groups (parts 0: all). out: the numbers that are left, none if
 * first > last; record: sizeof(struct sluice_inode). The scan begins anew. EINVAL:
 * another version, first 0, last below first, or part not below parts.
 */
struct sluice_stream {
	__u32 version;
	__u32 size;
	__u64 first;
	__u64 last; /* ~0: to the end */
	__u32 part;
	__u32 parts;
	__u32 record;
	__u32 reserved;
};

/* ---- control ---- */

#define SLUICE_DROP_DATA 1     /* clean data of files */
#define SLUICE_DROP_METADATA 2 /* inodes, names, and blocks of metadata */

/* Both: 3, as with vm.drop_caches. Of the daemon and of the kernel, for this mount. What is
 * in use or dirty stays. Returns when it is done. EBUSY: 32 callers wait for
 * it already; ENODEV: the mount ends. */
struct sluice_drop_caches {
	__u32 version;
	__u32 size;
	__u32 what;
	__u32 reserved;
};

#define SLUICE_STATS_MAX 16320

#define SLUICE_STATS_TEXT 0 /* lines "name value" */
#define SLUICE_STATS_JSON 1

/* out: as format says, with a final NUL; length is without it. E2BIG: too long. */
struct sluice_stats {
	__u32 version;
	__u32 size;
	__u32 length;
	__u32 format;
	char text[SLUICE_STATS_MAX];
};

/* What the daemon has is durable on return. (What the kernel delays is not asked
 * for: call syncfs(2) before.) EIO and the like: data was lost since the last one. */
struct sluice_sync {
	__u32 version;
	__u32 size;
};

/* bytes: the limit to be of the caches, as -o cache=; 0: only ask. out: the limit. If it
 * was lowered, on return no more is kept but what is in use. */
struct sluice_cache_limit {
	__u32 version;
	__u32 size;
	__u64 bytes;
};

#define SLUICE_REMOUNT_CHECK 0 /* changes nothing: could it be done? */
#define SLUICE_REMOUNT_WRITE 1 /* the daemon takes the volume read-write, with rw */
#define SLUICE_REMOUNT_APPLY 2 /* the options are in force */
#define SLUICE_REMOUNT_SHOW 3  /* out: text is the options in force; in: it is not read */

#define SLUICE_REMOUNT_SLOPPY 1 /* in: unknown options are left out */
#define SLUICE_REMOUNT_SYNC 2   /* out: the kernel's mount is to be as MS_SYNCHRONOUS */

#define SLUICE_REMOUNT_TEXT 8160

/*
 * What FUSE tells no daemon. For those who remount: CHECK; with rw WRITE, before mount(2),
 * which says then to the kernel that it may write; after it, APPLY: with ro no time of
 * access changes any more. in: text is a list of options as that of mount(8), with a final
 * NUL; what it does not name stays as it is. out: error is 0 or an errno (EBUSY: another
 * remount is under way, or others read the volume), text what there is to say, as lines.
 */
struct sluice_remount {
	__u32 version;
	__u32 size;
	__u32 step;
	__u32 flags;
	__u32 error;
	__u32 reserved;
	char text[SLUICE_REMOUNT_TEXT];
};

#define SLUICE_INFO_READONLY 1 /* the daemon writes nothing: ro, or after errors */

/* out: the daemon's process, for those in its PID namespace (the inode number of
 * /proc/PID/ns/pid). */
struct sluice_info {
	__u32 version;
	__u32 size;
	__u64 pid_namespace;
	__s32 pid;
	__u32 flags; /* SLUICE_INFO_* */
};

#define SLUICE_SHUTDOWN_DEFAULT 0    /* all that is dirty is written before */
#define SLUICE_SHUTDOWN_LOGFLUSH 1   /* what is in the journal is committed before */
#define SLUICE_SHUTDOWN_NOLOGFLUSH 2 /* nothing is */

/*
 * As EXT4_IOC_SHUTDOWN, on any file or directory of the mount, with CAP_SYS_ADMIN: on
 * return nothing reaches the device any more, and what would change or read something
 * gives EIO. umount(8) works, and the next mount recovers. Data of files that the kernel
 * has in its cache can still be read by who has them open.
 */
struct sluice_shutdown {
	__u32 version;
	__u32 size;
	__u32 how;
	__u32 reserved;
};

/* ---- where a file lies ---- */

struct sluice_extent {
	__u64 logical;  /* bytes of the file */
	__u64 physical; /* bytes of the volume; 0 if it has no place yet */
	__u64 length;
	__u32 flags; /* FIEMAP_EXTENT_* of linux/fiemap.h */
	__u32 reserved;
};

#define SLUICE_FIEMAP_MAX 510
#define SLUICE_FIEMAP_SYNC 1  /* what is dirty in the daemon is written before */
#define SLUICE_FIEMAP_XATTR 2 /* where the extended attributes lie, whatever the range */

/*
 * As FS_IOC_FIEMAP, which the kernel's FUSE does not hand on: on any open file or
 * directory, by anybody. in: the range [start, start + length). out: count extents, and
 * the range that is left; until count is 0, or the last one has FIEMAP_EXTENT_LAST.
 * Each extent is true for some moment during the call.
 */
struct sluice_fiemap {
	__u32 version;
	__u32 size;
	__u64 start;
	__u64 length;
	__u32 flags;
	__u32 count;
	struct sluice_extent extent[SLUICE_FIEMAP_MAX];
};

/* ---- ranges taken out of a file, or put in ---- */

/*
 * As fallocate(2) with FALLOC_FL_COLLAPSE_RANGE or FALLOC_FL_INSERT_RANGE (mode, of
 * linux/falloc.h), which the kernel's FUSE does not hand on: on a file that is open for
 * writing, with the conditions and errors of fallocate(2) on ext4. EOPNOTSUPP: also
 * with -o writeback, where the kernel keeps the size to itself. EBUSY: 32 callers are at
 * it, or at dropping caches; ENODEV: the mount ends. The kernel writes and drops its pages
 * from offset on, before and after; it has the new size when it is asked next: call
 * fstat(2), for those who know the file's end by a descriptor of theirs, or map it.
 */
struct sluice_shift {
	__u32 version;
	__u32 size;
	__u64 offset;
	__u64 length;
	__u32 mode;
	__u32 reserved;
};

#define SLUICE_IOC_BULKSTAT _IOWR(0xF5, 1, struct sluice_bulkstat)
#define SLUICE_IOC_DROP_CACHES _IOW(0xF5, 2, struct sluice_drop_caches)
#define SLUICE_IOC_STATS _IOWR(0xF5, 3, struct sluice_stats)
#define SLUICE_IOC_SYNC _IOW(0xF5, 4, struct sluice_sync)
#define SLUICE_IOC_CACHE_LIMIT _IOWR(0xF5, 5, struct sluice_cache_limit)
#define SLUICE_IOC_INFO _IOWR(0xF5, 6, struct sluice_info)
#define SLUICE_IOC_REMOUNT _IOWR(0xF5, 13, struct sluice_remount)
#define SLUICE_IOC_SHUTDOWN _IOW(0xF5, 9, struct sluice_shutdown)
#define SLUICE_IOC_FIEMAP _IOWR(0xF5, 10, struct sluice_fiemap)
#define SLUICE_IOC_SHIFT _IOW(0xF5, 12, struct sluice_shift)
#define SLUICE_IOC_STREAM _IOWR(0xF5, 8, struct sluice_stream) /* on an open stream */

#endif
