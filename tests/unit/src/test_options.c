/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/src/test_options.c - the command line: where things may stand,
 * what is taken, what is refused and how
 */
#include "tests/unit/unit.h"

#include "src/options.h"

static struct options o;
static char why[256];

static int free_options(void **state)
{
	options_free(&o);
	return 0;
}

/* Words separated by blanks, the first being argv[0]. */
static int parse(const char *line)
{
	char *argv[32], *save, *copy = strdup(line);
	int argc = 0, err;

	options_free(&o);
	why[0] = '\0';
	assert_non_null(copy);
	for (char *w = strtok_r(copy, " ", &save); w;
	     w = strtok_r(NULL, " ", &save))
		argv[argc++] = w;
	argv[argc] = NULL;
	err = options_parse(&o, argc, argv, why, sizeof(why));
	free(copy);
	return err;
}

static void accept(const char *line)
{
	int err = parse(line);

	if (err)
		fail_msg("'%s' refused: %s", line, why);
}

static void refuse(const char *line, const char *reason)
{
	int err = parse(line);

	if (err != EXIT_CODE_USAGE || !strstr(why, reason))
		fail_msg("'%s': %d, '%s', not '%s'", line, err, why, reason);
}

static void test_defaults(void **state)
{
	accept("sluice dev mnt");
	assert_string_equal(o.device, "dev");
	assert_string_equal(o.mountpoint, "mnt");
	assert_false(o.sl.readonly);
	assert_false(o.sl.noload);
	assert_false(o.foreground);
	assert_false(o.debug);
	assert_int_equal(o.sl.atime, SL_ATIME_RELATIME);
	assert_int_equal(o.sl.errors, SL_ERRORS_DEFAULT);
	assert_int_equal(o.sl.commit_ms, 0);
	assert_int_equal(o.suid, OPT_UNSET);
	assert_int_equal(o.dev, OPT_UNSET);
	assert_int_equal(o.allow_other, OPT_UNSET);
	assert_null(o.fsname);
}

static void test_options_stand_anywhere(void **state)
{
	static const char *const lines[] = {
		"sluice -f -o ro,commit=7 dev mnt",
		"sluice dev -f mnt -o ro,commit=7",
		"sluice dev mnt -oro -ocommit=7 -f",
		"sluice dev mnt -fo ro,commit=7",
		"sluice --options ro dev --foreground --options=commit=7 mnt",
		"sluice -f -o ro -o commit=7 -- dev mnt",
		"sluice -fr dev mnt -o ,commit=7,",
	};

	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		accept(lines[i]);
		assert_string_equal(o.device, "dev");
		assert_string_equal(o.mountpoint, "mnt");
		assert_true(o.foreground);
		assert_true(o.sl.readonly);
		assert_int_equal(o.sl.commit_ms, 7000);
	}
}

static void test_operands_behind_dashes(void **state)
{
	accept("sluice -- -dev -o");
	assert_string_equal(o.device, "-dev");
	assert_string_equal(o.mountpoint, "-o");
}

static void test_last_of_contradicting_options_counts(void **state)
{
	accept("sluice dev mnt -o ro,nosuid,noatime,sync -o rw,suid,strictatime,async");
	assert_false(o.sl.readonly);
	assert_false(o.sl.sync);
	assert_int_equal(o.suid, OPT_YES);
	assert_int_equal(o.sl.atime, SL_ATIME_STRICT);
}

static void test_sizes_alone(void **state)
{
	u64 n;

	assert_true(options_parse_size("64M", &n) && n == 64 << 20);
	assert_true(options_parse_size("0", &n) && n == 0);
	assert_true(options_parse_size("2t", &n) && n == 2ull << 40);
	assert_false(options_parse_size("", &n));
	assert_false(options_parse_size("64MB", &n));
	assert_false(options_parse_size(" 64", &n));
	assert_false(options_parse_size("-1", &n));
	assert_false(options_parse_size("9223372036854775808", &n));
}

static void test_values(void **state)
{
	accept("sluice dev mnt -o errors=panic,offset=1048576,cache=64M,sb=8193,"
	       "dirty_bytes=1g,dirty_background_bytes=512K,dirty_expire=3,"
	       "noatime,nodiratime,sync,dirsync,debug,ro,norecovery");
	assert_int_equal(o.sl.errors, SL_ERRORS_PANIC);
	assert_int_equal(o.offset, 1048576);
	assert_int_equal(o.sl.cache_bytes, 64 << 20);
	assert_int_equal(o.sl.sb_block, 8193);
	assert_int_equal(o.sl.dirty_bytes, 1 << 30);
	assert_int_equal(o.sl.dirty_background_bytes, 512 << 10);
	assert_int_equal(o.sl.dirty_expire_ms, 3000);
	assert_false(o.sl.nodelalloc);
	assert_false(o.writeback);
	assert_false(o.read_ahead_given);
	assert_int_equal(o.sl.atime, SL_ATIME_NOATIME);
	assert_true(o.sl.nodiratime);
	assert_true(o.sl.sync);
	assert_true(o.sl.dirsync);
	assert_true(o.sl.noload);
	assert_true(o.debug);
	accept("sluice dev mnt -o nodelalloc,writeback,read_ahead_kb=0");
	assert_true(o.sl.nodelalloc);
	assert_true(o.writeback);
	assert_true(o.read_ahead_given);
	assert_int_equal(o.read_ahead_kb, 0);
	accept("sluice dev mnt -o nodelalloc,delalloc,read_ahead_kb=1048576");
	assert_false(o.sl.nodelalloc);
	assert_int_equal(o.read_ahead_kb, 1048576);
	assert_false(o.sl.datacache_full);
	accept("sluice dev mnt -o datacache=full");
	assert_true(o.sl.datacache_full);
	accept("sluice dev mnt -o datacache=full,datacache=writeback");
	assert_false(o.sl.datacache_full);
	accept("sluice dev mnt -o errors=continue");
	assert_int_equal(o.sl.errors, SL_ERRORS_CONTINUE);
	accept("sluice dev mnt -o errors=remount-ro");
	assert_int_equal(o.sl.errors, SL_ERRORS_RO);
	assert_int_equal(o.sl.inode_iter, SL_INODE_ITER_ICACHE);
	accept("sluice dev mnt -o inode_iter=percpu");
	assert_int_equal(o.sl.inode_iter, SL_INODE_ITER_PERCPU);
	accept("sluice dev mnt -o inode_iter=global");
	assert_int_equal(o.sl.inode_iter, SL_INODE_ITER_GLOBAL);
	assert_int_equal(o.sl.zones, 0);
	accept("sluice dev mnt -o zones=1");
	assert_int_equal(o.sl.zones, 1);
	accept("sluice dev mnt -o zones=64");
	assert_int_equal(o.sl.zones, 64);
	accept("sluice dev mnt -o inode_iter=global,inode_iter=icache");
	assert_int_equal(o.sl.inode_iter, SL_INODE_ITER_ICACHE);
}

static void test_bad_values_are_named(void **state)
{
	refuse("sluice dev mnt -o datacache=all", "datacache");
	refuse("sluice dev mnt -o commit=5s", "commit");
	refuse("sluice dev mnt -o commit=-1", "commit");
	refuse("sluice dev mnt -o commit=", "commit");
	refuse("sluice dev mnt -o commit", "'commit' needs a value");
	refuse("sluice dev mnt -o commit=86401", "commit");
	refuse("sluice dev mnt -o cache=64X", "cache");
	refuse("sluice dev mnt -o cache=64MM", "cache");
	refuse("sluice dev mnt -o cache=0", "cache");
	refuse("sluice dev mnt -o cache=99999999999999999999", "cache");
	refuse("sluice dev mnt -o offset=99999999T", "offset");
	refuse("sluice dev mnt -o offset=0x10", "offset");
	refuse("sluice dev mnt -o sb=1K", "sb");
	refuse("sluice dev mnt -o errors=ignore", "errors");
	refuse("sluice dev mnt -o read_ahead_kb=1048577", "read_ahead_kb");
	refuse("sluice dev mnt -o read_ahead_kb=1M", "read_ahead_kb");
	refuse("sluice dev mnt -o inode_iter=list", "inode_iter");
	refuse("sluice dev mnt -o zones=0", "zones");
	refuse("sluice dev mnt -o zones=65", "zones");
	refuse("sluice dev mnt -o zones=2x", "zones");
	refuse("sluice dev mnt -o writeback=1", "'writeback' takes no value");
	refuse("sluice dev mnt -o ro=1", "'ro' takes no value");
	refuse("sluice dev mnt -o fsname=", "fsname");
}

static void test_values_that_do_not_fit_each_other(void **state)
{
	refuse("sluice dev mnt -o dirty_bytes=1M,dirty_background_bytes=2M",
	       "dirty_background_bytes");
}

static void test_unknown_options_are_refused_by_name(void **state)
{
	refuse("sluice dev mnt -o ro,journal=/dev/sdb", "Unknown parameter 'journal'");
	refuse("sluice dev mnt -o xattr", "Unknown parameter 'xattr'");
	refuse("sluice dev mnt -q", "-q");
	refuse("sluice dev mnt --quick", "--quick");
}

static void test_sloppy_ignores_unknown_mount_options(void **state)
{
	accept("sluice -s dev mnt -o nosuch=option,ro");
	assert_true(o.sl.readonly);
	accept("sluice dev mnt -o nosuch=option,ro -nvs");
	assert_true(o.sl.readonly);
	assert_true(o.verbose);
	/* but not bad values, nor letters */
	refuse("sluice -s dev mnt -o commit=x", "commit");
	refuse("sluice -s dev mnt -o data=journal", "'data=journal' is not supported");
	refuse("sluice -s dev mnt -q", "-q");
}

static void test_options_of_ext4(void **state)
{
	accept("sluice dev mnt -o discard,grpid,resuid=0,resgid=100,minixdf,nouser_xattr,"
	       "noacl,max_dir_size_kb=64,noauto_da_alloc,inode_readahead_blks=0,"
	       "data=ordered,data_err=abort,journal_checksum,barrier,barrier=1,dax=never,"
	       "block_validity,noinit_itable,nombcache,dioread_nolock,noquota");
	assert_true(o.sl.discard);
	assert_true(o.sl.grpid);
	assert_true(o.sl.resuid.given);
	assert_int_equal(o.sl.resuid.id, 0);
	assert_int_equal(o.sl.resgid.id, 100);
	assert_true(o.sl.minixdf);
	assert_true(o.sl.nouser_xattr);
	assert_true(o.sl.noacl);
	assert_int_equal(o.sl.max_dir_size_kb, 64);
	assert_true(o.sl.noauto_da_alloc);
	assert_int_equal(o.sl.inode_readahead_blks, 1);
	assert_true(o.sl.data_err_abort);
	assert_true(o.sl.journal_checksum);
	assert_int_equal(o.nr_notes, 0);
	accept("sluice dev mnt -o discard,nodiscard,bsdgroups,sysvgroups,minixdf,bsddf,"
	       "nouser_xattr,user_xattr,noacl,acl,auto_da_alloc=0,auto_da_alloc,"
	       "data_err=abort,data_err=ignore,inode_readahead_blks=64");
	assert_false(o.sl.discard);
	assert_false(o.sl.grpid);
	assert_false(o.sl.resuid.given);
	assert_false(o.sl.minixdf);
	assert_false(o.sl.nouser_xattr);
	assert_false(o.sl.noacl);
	assert_false(o.sl.noauto_da_alloc);
	assert_false(o.sl.data_err_abort);
	assert_int_equal(o.sl.inode_readahead_blks, 64);
	accept("sluice dev mnt -o auto_da_alloc=0");
	assert_true(o.sl.noauto_da_alloc);
	/* Nothing is written: then it does no harm. */
	accept("sluice dev mnt -o ro,data=journal");
	accept("sluice dev mnt -o data=journal,data=ordered");
	refuse("sluice dev mnt -o data=journal", "'data=journal' is not supported");
	refuse("sluice dev mnt -o data=fast", "data");
	refuse("sluice dev mnt -o data_err=panic", "data_err");
	refuse("sluice dev mnt -o barrier=yes", "barrier");
	refuse("sluice dev mnt -o resuid=root", "resuid");
	refuse("sluice dev mnt -o resgid=4294967295", "resgid");
	refuse("sluice dev mnt -o inode_readahead_blks=3", "inode_readahead_blks");
	refuse("sluice dev mnt -o max_dir_size_kb=4294967296", "max_dir_size_kb");
	refuse("sluice dev mnt -o dax", "'dax' is not supported");
	refuse("sluice dev mnt -o dax=always", "'dax' is not supported");
	refuse("sluice dev mnt -o journal_async_commit", "'journal_async_commit'");
	refuse("sluice dev mnt -o journal_dev=0", "journal_dev");
	refuse("sluice dev mnt -o journal_dev=-1", "journal_dev");
	refuse("sluice dev mnt -o journal_dev=4294967296", "journal_dev");
	refuse("sluice dev mnt -o journal_dev=sdb", "journal_dev");
	refuse("sluice dev mnt -o journal_dev", "'journal_dev' needs a value");
	refuse("sluice dev mnt -o journal_path=", "journal_path");
	refuse("sluice dev mnt -o test_dummy_encryption=v2", "encryption");
}

static void test_the_last_name_of_the_journal_counts(void **state)
{
	accept("sluice dev mnt -o journal_path=/dev/sdb");
	assert_string_equal(o.journal_path, "/dev/sdb");
	assert_int_equal(o.journal_dev, 0);
	accept("sluice dev mnt -o journal_path=/dev/sdb,journal_dev=0x811");
	assert_null(o.journal_path);
	assert_int_equal(o.journal_dev, 0x811);
	accept("sluice dev mnt -o journal_dev=2065,journal_path=log");
	assert_string_equal(o.journal_path, "log");
	assert_int_equal(o.journal_dev, 0);
}

static void test_options_without_effect_are_noted_once(void **state)
{
	accept("sluice dev mnt -o nobarrier,nobarrier,stripe=16,data=writeback,init_itable,"
	       "init_itable=5,oldalloc,check=none,usrjquota=aquota.user");
	assert_int_equal(o.nr_notes, 8);
	assert_string_equal(o.notes[0].text,
			    "option 'nobarrier' has no effect: the device is always told to make durable what must be");
	assert_false(o.notes[0].warn);
	assert_non_null(strstr(o.notes[1].text, "'stripe=16'"));
	assert_non_null(strstr(o.notes[7].text, "'usrjquota=aquota.user'"));
	assert_true(o.notes[7].warn);
	accept("sluice dev mnt -o barrier=0");
	assert_int_equal(o.nr_notes, 1);
	refuse("sluice dev mnt -o stripe", "'stripe' needs a value");
	refuse("sluice dev mnt -o stripe=x", "stripe");
	refuse("sluice dev mnt -o oldalloc=1", "takes no value");
}

/* As options_add_superblock(), after the command line. */
static void add(const char *line, const char *superblock)
{
	char *argv[8], *save, *copy = strdup(line);
	int argc = 0;

	assert_non_null(copy);
	options_free(&o);
	for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save))
		argv[argc++] = w;
	argv[argc] = NULL;
	why[0] = '\0';
	assert_int_equal(options_parse(&o, argc, argv, why, sizeof(why)), 0);
	if (options_add_superblock(&o, superblock, why, sizeof(why)))
		assert_string_not_equal(why, "");
	free(copy);
}

static void test_command_line_overrides_superblock(void **state)
{
	add("sluice dev mnt -o nodiscard,commit=7,ro", "discard,grpid,commit=9");
	assert_string_equal(why, "");
	assert_string_equal(o.device, "dev");
	assert_false(o.sl.discard);
	assert_true(o.sl.grpid);
	assert_int_equal(o.sl.commit_ms, 7000);
	assert_true(o.sl.readonly);
	/* Only what the kernel's ext4 would take from there. */
	add("sluice dev mnt", "ro,cache=1G,nosuid,minixdf");
	assert_string_equal(why, "");
	assert_false(o.sl.readonly);
	assert_int_equal(o.sl.cache_bytes, 0);
	assert_int_equal(o.suid, OPT_UNSET);
	assert_true(o.sl.minixdf);
	assert_int_equal(o.nr_notes, 3);
	/* What would not be kept is refused, unless the command line knows better. */
	add("sluice dev mnt", "data=journal");
	assert_non_null(strstr(why, "data=journal"));
	assert_string_equal(o.device, "dev");
	add("sluice dev mnt -o data=ordered", "data=journal");
	assert_string_equal(why, "");
	add("sluice dev mnt", "dax");
	assert_non_null(strstr(why, "'dax' is not supported"));
}

static void test_kernel_and_fakeroot(void **state)
{
	accept("sluice dev mnt -o kernel");
	assert_int_equal(o.suid, OPT_YES);
	assert_int_equal(o.dev, OPT_YES);
	assert_int_equal(o.allow_other, OPT_YES);
	accept("sluice dev mnt -o nosuid,kernel");
	assert_int_equal(o.suid, OPT_NO);
	accept("sluice dev mnt -o fakeroot");
	assert_true(o.fakeroot);
	assert_int_equal(o.suid, OPT_NO);
	assert_int_equal(o.dev, OPT_NO);
	assert_int_equal(o.allow_other, OPT_NO);
	accept("sluice dev mnt -o fakeroot,allow_other");
	assert_int_equal(o.allow_other, OPT_YES);
	refuse("sluice dev mnt -o fakeroot,kernel", "contradict");
}

static void test_export(void **state)
{
	accept("sluice dev mnt");
	assert_false(o.noexport);
	accept("sluice dev mnt -o noexport");
	assert_true(o.noexport);
	accept("sluice dev mnt -o noexport,export");
	assert_false(o.noexport);
}

static void test_options_of_fstab_are_ignored(void **state)
{
	accept("sluice dev mnt -o defaults,noauto,auto,user,user=joe,users,owner,"
	       "group,nouser,nofail,_netdev,_rnetdev,comment=a,x-systemd.automount,"
	       "x-systemd.idle-timeout=1min,X-mount.mkdir,default_permissions,"
	       "subtype=sluice");
	assert_int_equal(o.suid, OPT_UNSET);
}

static void test_generic_options(void **state)
{
	accept("sluice dev mnt -o nosuid,nodev,noexec,allow_other,fsname=x");
	assert_int_equal(o.suid, OPT_NO);
	assert_int_equal(o.dev, OPT_NO);
	assert_int_equal(o.exec, OPT_NO);
	assert_int_equal(o.allow_other, OPT_YES);
	assert_string_equal(o.fsname, "x");
}

static void test_comma_in_a_value_is_escaped(void **state)
{
	accept("sluice dev mnt -o fsname=a\\,b\\\\c,ro");
	assert_string_equal(o.fsname, "a,b\\c");
	assert_true(o.sl.readonly);
}

static void test_wrong_number_of_arguments(void **state)
{
	refuse("sluice", "no device");
	refuse("sluice dev", "no mount point");
	refuse("sluice dev mnt more", "too many arguments: 'more'");
	refuse("sluice dev mnt -o", "'-o' needs an argument");
}

static void test_help_and_version_need_no_arguments(void **state)
{
	accept("sluice -h");
	assert_true(o.help);
	accept("sluice --version");
	assert_true(o.version);
	accept("sluice -V dev");
	assert_true(o.version);
}

static void test_debug_implies_foreground(void **state)
{
	accept("sluice -d dev mnt");
	assert_true(o.debug);
	assert_true(o.trace);
	assert_true(o.foreground);
	accept("sluice -o debug dev mnt");
	assert_true(o.debug);
	assert_false(o.trace);
	assert_false(o.foreground);
}

static void test_helper_of_mount(void **state)
{
	accept("/sbin/mount.fuseblk.sluice /dev/loop0 mnt -o rw,relatime,user_id=0,group_id=0,"
	       "default_permissions,allow_other,blksize=4096,remount,ro");
	assert_true(o.remount);
	assert_true(o.sl.readonly);
	accept("/sbin/mount.fuse.sluice dev mnt -sfnv -t fuse.sluice -o rw,noauto");
	assert_true(o.fake);
	assert_false(o.foreground);
	assert_true(o.verbose);
	/* elsewhere -f is the foreground */
	accept("/usr/bin/sluice dev mnt -f");
	assert_false(o.fake);
	assert_true(o.foreground);
}

/* As the mount in o, but for a remount with this; code: 0 or EXIT_CODE_MOUNT. */
static void remount(const char *text, int code, struct options *to)
{
	int err = options_parse_remount(&o, text, false, to, why, sizeof(why));

	if (err != code)
		fail_msg("'%s': %d, '%s'", text, err, why);
}

static void test_remount_changes_what_it_names(void **state)
{
	struct options to;

	accept("sluice dev mnt -o commit=7,sync,strictatime,usrquota,fsname=x,cache=64M");
	assert_string_equal(o.given, "commit=7,sync,strictatime,usrquota,fsname=x,cache=64M");
	remount("ro,errors=continue,nodelalloc,resuid=5", 0, &to);
	assert_true(to.sl.readonly);
	assert_int_equal(to.sl.commit_ms, 7000);
	assert_true(to.sl.sync);
	assert_true(to.sl.nodelalloc);
	assert_int_equal(to.sl.resuid.id, 5);
	assert_int_equal(to.sl.errors, SL_ERRORS_CONTINUE);
	assert_int_equal(to.sl.cache_bytes, 64 << 20);
	options_free(&to);
	remount("async,usrquota,fsname=x,commit=9,nobarrier", 0, &to);
	assert_false(to.sl.sync);
	assert_int_equal(to.sl.commit_ms, 9000);
	assert_int_equal(to.nr_notes, 2);
	options_free(&to);
	/* What the mount table says of strictatime, too. */
	remount("relatime", 0, &to);
	assert_int_equal(to.sl.atime, SL_ATIME_STRICT);
	options_free(&to);
	remount("noatime", 0, &to);
	assert_int_equal(to.sl.atime, SL_ATIME_NOATIME);
	options_free(&to);
	remount("nostrictatime", 0, &to);
	assert_int_equal(to.sl.atime, SL_ATIME_RELATIME);
	options_free(&to);
}

static void test_remount_refuses_what_only_a_mount_can(void **state)
{
	static const char *const fixed[] = {
		"data=writeback", "data=journal", "sb=8193", "journal_checksum", "noacl",
		"nombcache", "norecovery", "nojournal", "writeback", "offset=4096", "zones=2",
		"fakeroot", "noexport", "idmap", "usrjquota=a", "grpquota", "fsname=y",
		"datacache=full", "inode_iter=global", "read_ahead_kb=64", "allow_other",
		"journal_path=/y", "journal_dev=8",
	};
	struct options to;
	char text[80];

	accept("sluice dev mnt -o usrquota,fsname=x");
	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++) {
		snprintf(text, sizeof(text), "commit=3,%s", fixed[i]);
		remount(text, EXIT_CODE_MOUNT, &to);
		assert_non_null(strstr(why, "cannot be changed by a remount"));
		options_free(&to);
	}
	accept("sluice dev mnt -o journal_path=/x");
	remount("journal_path=/x,commit=3", 0, &to);
	assert_string_equal(to.journal_path, "/x");
	assert_true(to.journal_path != o.journal_path);
	options_free(&to);
	remount("journal_path=/y", EXIT_CODE_MOUNT, &to);
	options_free(&to);
	remount("journal_dev=8", EXIT_CODE_MOUNT, &to);
	options_free(&to);
	accept("sluice dev mnt -o journal_dev=8");
	remount("journal_dev=0x8,commit=3", 0, &to);
	assert_int_equal(to.journal_dev, 8);
	options_free(&to);
	remount("journal_dev=9", EXIT_CODE_MOUNT, &to);
	options_free(&to);
	remount("nosuch", EXIT_CODE_MOUNT, &to);
	options_free(&to);
	remount("dax", EXIT_CODE_MOUNT, &to);
	options_free(&to);
	remount("dirty_bytes=1M,dirty_background_bytes=2M", EXIT_CODE_MOUNT, &to);
	options_free(&to);
	assert_int_equal(options_parse_remount(&o, "nosuch", true, &to, why, sizeof(why)), 0);
	options_free(&to);
}

static void test_options_shown_are_taken(void **state)
{
	char text[1024], few[16], line[1100];
	struct options to;

	accept("sluice dev mnt -o ro,errors=panic,commit=3,nodelalloc,sync,resgid=4,cache=64M");
	options_show(&o, text, sizeof(text));
	assert_non_null(strstr(text, "errors=panic"));
	remount(text, 0, &to);
	assert_true(to.sl.readonly && to.sl.sync && to.sl.nodelalloc);
	assert_int_equal(to.sl.errors, SL_ERRORS_PANIC);
	assert_int_equal(to.sl.cache_bytes, 64 << 20);
	options_free(&to);
	snprintf(line, sizeof(line), "sluice dev mnt -o %s", text);
	accept(line);
	assert_int_equal(o.sl.resgid.id, 4);
	assert_true(o.sl.readonly);
	options_show(&o, few, sizeof(few));
	assert_int_equal(strlen(few), sizeof(few) - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_options_stand_anywhere),
		cmocka_unit_test(test_operands_behind_dashes),
		cmocka_unit_test(test_last_of_contradicting_options_counts),
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_sizes_alone),
		cmocka_unit_test(test_bad_values_are_named),
		cmocka_unit_test(test_values_that_do_not_fit_each_other),
		cmocka_unit_test(test_unknown_options_are_refused_by_name),
		cmocka_unit_test(test_sloppy_ignores_unknown_mount_options),
		cmocka_unit_test(test_options_of_ext4),
		cmocka_unit_test(test_the_last_name_of_the_journal_counts),
		cmocka_unit_test(test_options_without_effect_are_noted_once),
		cmocka_unit_test(test_command_line_overrides_superblock),
		cmocka_unit_test(test_kernel_and_fakeroot),
		cmocka_unit_test(test_export),
		cmocka_unit_test(test_options_of_fstab_are_ignored),
		cmocka_unit_test(test_generic_options),
		cmocka_unit_test(test_comma_in_a_value_is_escaped),
		cmocka_unit_test(test_wrong_number_of_arguments),
		cmocka_unit_test(test_help_and_version_need_no_arguments),
		cmocka_unit_test(test_debug_implies_foreground),
		cmocka_unit_test(test_helper_of_mount),
		cmocka_unit_test(test_remount_changes_what_it_names),
		cmocka_unit_test(test_remount_refuses_what_only_a_mount_can),
		cmocka_unit_test(test_options_shown_are_taken),
	};

	return cmocka_run_group_tests(tests, NULL, free_options);
}
