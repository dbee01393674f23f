/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/options.h - the command line and the mount options
 *
 * Parses, checks and fills in nothing but values: no file is opened here.
 * man/sluice.8 has each option with its default. Locks: none.
 */
#ifndef SLUICE_SRC_OPTIONS_H
#define SLUICE_SRC_OPTIONS_H

#include "fs/fs.h"

/* Exit codes of mount(8). */
enum exit_code {
	EXIT_CODE_OK = 0,
	EXIT_CODE_USAGE = 1,	   /* wrong call, or not permitted */
	EXIT_CODE_SYSTEM = 2,	   /* out of memory, cannot fork, ... */
	EXIT_CODE_INTERNAL = 4,	   /* a bug */
	EXIT_CODE_INTERRUPTED = 8, /* by the user */
	EXIT_CODE_MOUNT = 32,	   /* the mount failed */
};

enum option_data { DATA_ORDERED, DATA_WRITEBACK, DATA_JOURNAL };

/* A generic option that was given, or was not. */
enum tristate { OPT_UNSET, OPT_NO, OPT_YES };

/* An option that was accepted, and what there is to say about it. */
struct option_note {
	char *text;
	bool warn; /* whoever mounts should see it, not only the log */
};

struct options {
	struct sl_options sl; /* sl.mountpoint is not set here */
	char *device;	      /* as given; owned */
	char *mountpoint;     /* as given; owned */
	char *fsname;	      /* fsname=, or NULL; owned */
	char *journal_path;   /* of an external journal, or NULL; owned */
	u32 journal_dev;      /* the same by device number, as the kernel writes them; 0: none */
	char *given;	      /* all lists of -o as they were given, or NULL; owned */
	u64 offset;	      /* bytes */
	enum tristate suid, dev, exec, allow_other;
	bool kernel;	      /* as the kernel's ext4: suid,dev,allow_other */
	bool fakeroot;	      /* no permissions are checked */
	bool noexport;	      /* the kernel finds no file by its handle */
	bool idmap;	      /* mount --bind -o X-mount.idmap=... is allowed */
	enum option_data data; /* DATA_JOURNAL: for read-only mounts only */
	bool atime_given;     /* sl.atime is what somebody asked for */
	bool strictatime;     /* what "relatime" at a remount stands for */
	bool remount;	      /* of what is mounted; by mount(8)'s helper */
	bool from_superblock; /* options_add_superblock() was here */
	struct option_note *notes; /* nr_notes of them; owned */
	unsigned nr_notes;
	bool writeback;	      /* the kernel delays writes, too */
	bool read_ahead_given;
	u64 read_ahead_kb;    /* KiB, if given */
	bool foreground;
	bool debug;	  /* -d or -o debug: log debugging messages */
	bool trace;	  /* -d: libfuse shows each request */
	bool verbose;	  /* -v */
	bool fake;	  /* -f of mount(8)'s helpers: do all but the mount */
	bool help, version;
	bool sloppy; /* -s: unknown options are ignored */
	int argc;    /* the command line: not owned */
	char *const *argv;
};

/*
 * argv as of main(). Returns 0, or an enum exit_code with one line of text for
 * the user in why[0..size). The caller frees with options_free() either way.
 * After help or version neither device nor mountpoint need be there.
 * argv[0] of the form "mount.*" means a call by mount(8), where -f is "fake".
 */
int __must_check options_parse(struct options *o, int argc, char *const *argv,
			       char *why, size_t size);
/*
 * The same with a list of options from the superblock in front, which the command line
 * overrides: of ext4's only, others are noted. o is as options_parse() left it. On
 * an error, as above, o stays as it was.
 */
int __must_check options_add_superblock(struct options *o, const char *text, char *why,
					size_t size);
/*
 * What is in force after "mount -o remount,<text>", which names only what is to be
 * another; sloppy: unknown names are left out. *out is to be freed either way, and has no
 * device, no mountpoint, and the notes of these options only. 0, or EXIT_CODE_MOUNT with
 * why: also for an option that only a new mount could change, unless it is as it is.
 */
int __must_check options_parse_remount(const struct options *now, const char *text,
				       bool sloppy, struct options *out, char *why,
				       size_t size);
/*
 * What is in force, as a list of options; defaults are named, too, but for those that
 * are the volume's own. At most len bytes with the final '\0'.
 */
void options_show(const struct options *o, char *buf, size_t len);
void options_free(struct options *o);
/* A size as the options take it ("64M"). False: it is none. */
bool __must_check options_parse_size(const char *text, u64 *bytes);
/* To stdout. */
void options_usage(void);

#endif
