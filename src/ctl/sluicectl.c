/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/ctl/sluicectl.c - looks at a mount, and controls it, from outside
 *
 * Everything goes through what sluice_ioctl.h has; bulkstat is in scan.c. Exit status as of
 * mount(8): 0, 1 wrong call or not permitted, 2 system error, 32 failed, 64 some
 * inodes could not be read.
 */
#include "src/ctl/ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "src/options.h"
#include "src/sluice_ioctl.h"

static const char usage_text[] =
	"usage: sluicectl bulkstat [--json] [--range FIRST-LAST] [--threads N]\n"
	"                [--ioctl] MOUNTPOINT\n"
	"       sluicectl cache-limit MOUNTPOINT [SIZE]\n"
	"       sluicectl collapse FILE OFFSET LENGTH\n"
	"       sluicectl drop-caches MOUNTPOINT [1|2|3]\n"
	"       sluicectl fiemap [--json] [--sync] [--xattr] FILE\n"
	"       sluicectl insert FILE OFFSET LENGTH\n"
	"       sluicectl label MOUNTPOINT [LABEL]\n"
	"       sluicectl options MOUNTPOINT\n"
	"       sluicectl shutdown MOUNTPOINT [default|logflush|nologflush]\n"
	"       sluicectl stats [--json] MOUNTPOINT\n"
	"       sluicectl sync MOUNTPOINT\n"
	"       sluicectl trim MOUNTPOINT [SIZE]\n"
	"       sluicectl umount MOUNTPOINT\n";

static int wrong_call(const char *what, const char *arg)
{
	if (what)
		fprintf(stderr, "sluicectl: %s%s\n", what, arg ? arg : "");
	fputs(usage_text, stderr);
	return EXIT_USAGE;
}

int ctl_failed(const char *mnt)
{
	if (errno == ENOTTY || errno == ENOSYS) {
		fprintf(stderr, "sluicectl: %s: not the root of a Sluice mount\n",
			mnt);
		return EXIT_FAILED;
	}
	fprintf(stderr, "sluicectl: %s: %s\n", mnt, strerror(errno));
	switch (errno) {
	case EPERM:
	case EACCES:
		return EXIT_USAGE;
	case ENOMEM:
		return EXIT_SYSTEM;
	default:
		return EXIT_FAILED;
	}
}

static int failed(const struct call *c)
{
	return ctl_failed(c->mnt);
}

static int flush_output(int status)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	fprintf(stderr, "sluicectl: write: %s\n", strerror(errno));
	return EXIT_SYSTEM;
}

/* ---- commands ---- */

static int drop_caches(const struct call *c, int fd)
{
	struct sluice_drop_caches d = {
		.version = SLUICE_IOC_VERSION,
		.size = sizeof(d),
		.what = c->arg ? (__u32)(c->arg[0] - '0') : 3,
	};

	return ioctl(fd, SLUICE_IOC_DROP_CACHES, &d) < 0 ? failed(c) : 0;
}

static int stats(const struct call *c, int fd)
{
	static struct sluice_stats st;

	st.version = SLUICE_IOC_VERSION;
	st.size = sizeof(st);
	st.format = c->json ? SLUICE_STATS_JSON : SLUICE_STATS_TEXT;
	if (ioctl(fd, SLUICE_IOC_STATS, &st) < 0)
		return failed(c);
	st.text[sizeof(st.text) - 1] = '\0';
	fputs(st.text, stdout);
	return flush_output(0);
}

static int cache_limit(const struct call *c, int fd)
{
	struct sluice_cache_limit l = {
		.version = SLUICE_IOC_VERSION,
		.size = sizeof(l),
		.bytes = c->bytes,
	};

	if (ioctl(fd, SLUICE_IOC_CACHE_LIMIT, &l) < 0)
		return failed(c);
	if (!c->arg)
		printf("%" PRIu64 "\n", (uint64_t)l.bytes);
	return flush_output(0);
}

static int show_options(const struct call *c, int fd)
{
	static struct sluice_remount r;

	r.version = SLUICE_IOC_VERSION;
	r.size = sizeof(r);
	r.step = SLUICE_REMOUNT_SHOW;
	if (ioctl(fd, SLUICE_IOC_REMOUNT, &r) < 0)
		return failed(c);
	if (r.error) {
		errno = (int)r.error;
		return failed(c);
	}
	r.text[sizeof(r.text) - 1] = '\0';
	puts(r.text);
	return flush_output(0);
}

/* First what the kernel delays, then what the daemon has. */
static int sync_volume(const struct call *c, int fd)
{
	struct sluice_sync s = {
		.version = SLUICE_IOC_VERSION,
		.size = sizeof(s),
	};
	int status = 0;

	if (syncfs(fd))
		status = failed(c);
	if (ioctl(fd, SLUICE_IOC_SYNC, &s) < 0 && !status)
		status = failed(c);
	return status;
}

/* ---- the command line ---- */

static bool parse_number(const char *text, char **end, uint64_t *n)
{
	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	*n = strtoull(text, end, 10);
	return errno == 0;
}

/* "A-B", "A-", "A"; A at least 1, B not below A. */
static bool parse_range(const char *text, struct call *c)
{
	char *end;

	if (!parse_number(text, &end, &c->first) || !c->first)
		return false;
	c->last = c->first;
	if (!*end)
		return true;
	if (*end != '-')
		return false;
	if (!end[1]) {
		c->last = UINT64_MAX;
		return true;
	}
	return parse_number(end + 1, &end, &c->last) && !*end &&
	       c->last >= c->first;
}

static bool parse_threads(const char *text, struct call *c)
{
	uint64_t n;
	char *end;

	if (!parse_number(text, &end, &n) || *end || !n || n > SCAN_THREADS_MAX)
		return false;
	c->threads = (unsigned)n;
	return true;
}

static bool level_ok(struct call *c)
{
	return c->arg[0] >= '1' && c->arg[0] <= '3' && !c->arg[1];
}

static bool size_ok(struct call *c)
{
	return options_parse_size(c->arg, &c->bytes) && c->bytes;
}

static const struct command {
	const char *name;
	/* NULL: not by a descriptor of the mount, which would be in the way. */
	int (*run)(const struct call *c, int fd);
	bool (*arg_ok)(struct call *c); /* NULL: takes none */
	const char *arg_is;
	bool json;
	bool scans; /* takes --range and the like */
	bool file; /* of any file, not the mount's root */
	bool maps; /* takes --sync and --xattr */
	bool shifts; /* has two arguments, and writes the file */
} commands[] = {
	{ .name = "bulkstat", .run = ctl_bulkstat, .json = true, .scans = true },
	{ .name = "cache-limit", .run = cache_limit, .arg_ok = size_ok,
	  .arg_is = "not a size: " },
	{ .name = "collapse", .run = ctl_collapse, .arg_ok = ctl_shift_ok,
	  .arg_is = "not an offset and a length: ", .file = true, .shifts = true },
	{ .name = "drop-caches", .run = drop_caches, .arg_ok = level_ok,
	  .arg_is = "not 1, 2 or 3: " },
	{ .name = "fiemap", .run = ctl_fiemap, .json = true, .file = true,
	  .maps = true },
	{ .name = "insert", .run = ctl_insert, .arg_ok = ctl_shift_ok,
	  .arg_is = "not an offset and a length: ", .file = true, .shifts = true },
	{ .name = "label", .run = ctl_label, .arg_ok = ctl_label_ok,
	  .arg_is = "longer than 16 bytes: " },
	{ .name = "options", .run = show_options },
	{ .name = "shutdown", .run = ctl_shutdown, .arg_ok = ctl_shutdown_ok,
	  .arg_is = "not default, logflush or nologflush: " },
	{ .name = "stats", .run = stats, .json = true },
	{ .name = "sync", .run = sync_volume },
	{ .name = "trim", .run = ctl_trim, .arg_ok = size_ok,
	  .arg_is = "not a size: " },
	{ .name = "umount" },
};

static const struct command *find_command(const char *name)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	return NULL;
}

static int run(const struct command *cmd, const struct call *c)
{
	int fd, status;

	if (!cmd->run)
		return ctl_umount(c->mnt);
	fd = open(c->mnt, (cmd->shifts ? O_RDWR : O_RDONLY) | O_NONBLOCK | O_CLOEXEC |
				  (cmd->file ? 0 : O_DIRECTORY));
	if (fd < 0)
		return failed(c);
	status = cmd->run(c, fd);
	close(fd);
	if (cmd->file)
		status = flush_output(status);
	return status;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "range", required_argument, NULL, 'r' },
		{ "threads", required_argument, NULL, 't' },
		{ "ioctl", no_argument, NULL, 'i' },
		{ "sync", no_argument, NULL, 's' },
		{ "xattr", no_argument, NULL, 'x' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	struct call c = { .first = 1, .last = UINT64_MAX };
	const struct command *cmd;
	bool range = false;
	int o;

	while ((o = getopt_long(argc, argv, "hV", options, NULL)) != -1) {
		switch (o) {
		case 'j':
			c.json = true;
			break;
		case 'r':
			range = true;
			if (!parse_range(optarg, &c))
				return wrong_call("not a range: ", optarg);
			break;
		case 't':
			if (!parse_threads(optarg, &c))
				return wrong_call("not a number of threads: ",
						  optarg);
			break;
		case 'i':
			c.ioctl_only = true;
			break;
		case 's':
			c.sync = true;
			break;
		case 'x':
			c.xattr = true;
			break;
		case 'h':
			fputs(usage_text, stdout);
			return flush_output(0);
		case 'V':
			printf("sluicectl %s\n", SLUICE_VERSION);
			return flush_output(0);
		default:
			return wrong_call(NULL, NULL);
		}
	}
	argc -= optind;
	argv += optind;
	if (argc < 1)
		return wrong_call("no command", NULL);
	cmd = find_command(argv[0]);
	if (!cmd)
		return wrong_call("unknown command: ", argv[0]);
	if (argc < 2)
		return wrong_call("no mount point", NULL);
	if (argc > (cmd->shifts ? 4 : cmd->arg_ok ? 3 : 2))
		return wrong_call("too many arguments", NULL);
	if (cmd->shifts && argc < 4)
		return wrong_call("no offset and length", NULL);
	if (range && !cmd->scans)
		return wrong_call("--range is for bulkstat", NULL);
	if ((c.threads || c.ioctl_only) && !cmd->scans)
		return wrong_call("--threads and --ioctl are for bulkstat", NULL);
	if (c.json && !cmd->json)
		return wrong_call("--json is for bulkstat, fiemap and stats", NULL);
	if ((c.sync || c.xattr) && !cmd->maps)
		return wrong_call("--sync and --xattr are for fiemap", NULL);
	c.mnt = argv[1];
	c.arg = argc > 2 ? argv[2] : NULL;
	c.arg2 = argc > 3 ? argv[3] : NULL;
	if (c.arg && !cmd->arg_ok(&c))
		return wrong_call(cmd->arg_is, c.arg);
	return run(cmd, &c);
}
