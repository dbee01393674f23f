/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/main.c - sluice: serve an ext4 volume through FUSE
 *
 *	parse, resolve names -> fork -> mount the volume -> mount(2), INIT
 *	-> report to the parent, detach -> serve until unmounted -> unmount the volume
 *
 * Up to the report, messages go to stderr, and any failure is the exit code.
 *
 * Locks: none. Threads: the main thread.
 */
#include <fcntl.h>
#include <limits.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/log.h"
#include "lib/thread.h"
#include "src/daemonize.h"
#include "src/fuse_ops.h"
#include "src/options.h"
#include "src/remount.h"
#include "src/session.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

static pthread_t main_thread;

/*
 * liburcu's own thread has SIGUSR1 unblocked (another of its flavours uses
 * it), so the kernel may give it ours.
 */
static void pass_to_main(int sig)
{
	pthread_kill(main_thread, sig);
}

/* Signals wait in a descriptor; the threads to come inherit the mask. */
static int open_signals(void)
{
	struct sigaction pass = { .sa_handler = pass_to_main,
				  .sa_flags = SA_RESTART };
	sigset_t set;

	main_thread = pthread_self();
	sigaction(SIGUSR1, &pass, NULL);
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR1);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -errno;
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* What the options that were accepted do not do; each once. */
static void log_notes(const struct options *o, const char *device, bool warn)
{
	for (unsigned i = 0; i < o->nr_notes; i++)
		if (o->notes[i].warn == warn)
			log_msg(warn ? LOG_LVL_WARN : LOG_LVL_INFO, "%s: %s", device,
			       o->notes[i].text);
}

static void detach(const struct options *o, const char *device, int report)
{
	int err;

	if (o->foreground)
		return;
	log_use_syslog();
	/* Nothing is said on the terminal once the caller goes on. */
	err = daemonize_detach();
	if (err)
		log_err("%s: cannot detach from the terminal: %s", device,
			strerror(-err));
	if (!o->debug)
		log_set_level(LOG_LVL_INFO);
	daemonize_report(report, EXIT_CODE_OK);
}

/* All of a mount's life. Returns the exit code. */
static int serve(struct options *o, const char *device,
		 const char *mountpoint, int report)
{
	struct session *s = NULL;
	int signals = open_signals();
	int code, err;

	if (signals < 0) {
		log_err("cannot set up signals: %s", strerror(errno));
		code = EXIT_CODE_SYSTEM;
		goto out_report;
	}
	/* Memory reclaim must not wait for a device that waits for us. Root only. */
	(void)prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
	thread_register();
	code = session_create(o, device, mountpoint, &s);
	if (code)
		goto out_report;
	log_notes(o, device, true);
	code = session_mount(s, signals);
	if (code)
		goto out_close;
	detach(o, device, report);
	report = -1;
	log_notes(o, device, false);
	log_info("%s: mounted on %s", device, mountpoint);
	session_run(s);
out_close:
	err = session_close(s);
	if (err && !code)
		code = EXIT_CODE_SYSTEM;
	else if (!code)
		log_info("%s: unmounted", device);
out_report:
	daemonize_report(report, code);
	return code;
}

/* Absolute and without links: we change the directory, and mountinfo has it so. */
static int resolve(const struct options *o, char *device, char *mountpoint)
{
	struct stat st;

	if (!realpath(o->device, device)) {
		log_err("%s: %s", o->device, strerror(errno));
		return EXIT_CODE_MOUNT;
	}
	if (!realpath(o->mountpoint, mountpoint) || stat(mountpoint, &st) < 0) {
		log_err("%s: mount point %s: %s", device, o->mountpoint,
			strerror(errno));
		return EXIT_CODE_MOUNT;
	}
	if (!S_ISDIR(st.st_mode)) {
		log_err("%s: mount point %s is not a directory", device,
			mountpoint);
		return EXIT_CODE_MOUNT;
	}
	return 0;
}

static int run(struct options *o)
{
	char device[PATH_MAX], mountpoint[PATH_MAX];
	int report = -1, code, err;

	if (o->remount)
		return remount(o);
	code = resolve(o, device, mountpoint);
	if (code || o->fake)
		return code;
	if (!o->foreground) {
		err = daemonize_fork(&report);
		if (err) {
			log_err("cannot start the daemon: %s", strerror(-err));
			return EXIT_CODE_SYSTEM;
		}
	}
	return serve(o, device, mountpoint, report);
}

static void show_version(void)
{
	printf("sluice %s (libfuse %s)\n", SLUICE_VERSION, fuse_pkgversion());
}

static enum log_level first_level(const struct options *o)
{
	if (o->debug)
		return LOG_LVL_DEBUG;
	return o->foreground || o->verbose ? LOG_LVL_INFO : LOG_LVL_WARN;
}

/* A caller may have closed 0 to 2: no file of ours shall get these numbers. */
static void fill_standard_descriptors(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

/*
 * By default each of 8 arenas a CPU keeps what was freed in it, and blocks up to
 * 32 MiB that were mapped once come from them, too. A cache that is to stay
 * within its bounds cannot afford that.
 */
static void bound_heap(void)
{
	mallopt(M_ARENA_MAX, (int)max_of(thread_nr_cpus(), 2u));
	mallopt(M_MMAP_THRESHOLD, 128 << 10);
	mallopt(M_TRIM_THRESHOLD, 256 << 10);
}

int main(int argc, char **argv)
{
	struct options o;
	char why[512];
	int code;

	bound_heap();
	fill_standard_descriptors();
	code = options_parse(&o, argc, argv, why, sizeof(why));
	log_init("sluice", first_level(&o));
	if (code) {
		/* What mount(8) says of options that a mounted file system refuses. */
		if (o.remount && code == EXIT_CODE_USAGE)
			code = EXIT_CODE_MOUNT;
		if (o.device)
			log_err("%s: %s", o.device, why);
		else
			log_err("%s", why);
		log_err("see 'sluice -h'");
	} else if (o.help) {
		options_usage();
	} else if (o.version) {
		show_version();
	} else {
		code = run(&o);
	}
	options_free(&o);
	return code;
}
