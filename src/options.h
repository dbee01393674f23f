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

/* A generic option that was given, or was not. */
enum tristate { OPT_UNSET, OPT_NO, OPT_YES };

struct options {
	struct sl_options sl; /* sl.mountpoint is not set here */
	char *device;	      /* as given; owned */
	char *mountpoint;     /* as given; owned */
	char *fsname;	      /* fsname=, or NULL; owned */
	u64 offset;	      /* bytes */
	enum tristate suid, dev, exec, allow_other;
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
};

/*
 * argv as of main(). Returns 0, or an enum exit_code with one line of text for
 * the user in why[0..size). The caller frees with options_free() either way.
 * After help or version neither device nor mountpoint need be there.
 * argv[0] of the form "mount.*" means a call by mount(8), where -f is "fake".
 */
int __must_check options_parse(struct options *o, int argc, char *const *argv,
			       char *why, size_t size);
void options_free(struct options *o);
/* A size as the options take it ("64M"). False: it is none. */
bool __must_check options_parse_size(const char *text, u64 *bytes);
/* To stdout. */
void options_usage(void);

#endif
