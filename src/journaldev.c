/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/journaldev.c - finds and opens the device of an external journal (journaldev.h)
 *
 * By journal_path= (a device or an image) or journal_dev= (a device's number); without
 * them by the UUID that the volume's superblock has, which libblkid looks for among the
 * machine's devices (as far as blkid.conf(5) lets it), else on the one that has the number
 * in the superblock. Numbers change from boot to boot: alone they say nothing.
 *
 * Locks: none. Threads: the main thread, before the mount.
 */
#include "src/journaldev.h"

#include <blkid/blkid.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "lib/log.h"
#include "src/options.h"
#include "writeback/bdev.h"

/* A number as the kernel writes it to disk: 12 bits of major, 20 of minor. */
static dev_t dev_of_number(u32 n)
{
	return makedev(n >> 8 & 0xFFF, (n & 0xFF) | (n >> 12 & 0xFFF00));
}

/* 0: it does not fit. */
static u32 number_of_dev(dev_t dev)
{
	u32 ma = major(dev), mi = minor(dev);

	if (ma > 0xFFF || mi > 0xFFFFF)
		return 0;
	return (mi & 0xFF) | ma << 8 | (mi & ~0xFFu) << 12;
}

/* As it is now: blkid's cache may tell of what was there. */
static bool has_uuid(const char *name, const char *uuid)
{
	blkid_probe pr = blkid_new_probe_from_filename(name);
	const char *is;
	bool same;

	if (!pr)
		return false;
	blkid_probe_enable_superblocks(pr, 1);
	blkid_probe_set_superblocks_flags(pr, BLKID_SUBLKS_UUID);
	same = !blkid_do_safeprobe(pr) && !blkid_probe_lookup_value(pr, "UUID", &is, NULL) &&
	       !strcasecmp(is, uuid);
	blkid_free_probe(pr);
	return same;
}

/* name, or NULL instead of it (freed) if it has not. */
static char *keep_if(char *name, const char *uuid)
{
	if (name && has_uuid(name, uuid))
		return name;
	free(name);
	return NULL;
}

static char *by_uuid(const struct sl_external_journal *ext)
{
	char *name = keep_if(blkid_evaluate_tag("UUID", ext->uuid, NULL), ext->uuid);
	blkid_cache fresh;

	/* Once more without the cache in its file. */
	if (!name && !blkid_get_cache(&fresh, "/dev/null")) {
		name = keep_if(blkid_get_devname(fresh, "UUID", ext->uuid), ext->uuid);
		blkid_put_cache(fresh);
	}
	if (!name && ext->devno)
		name = keep_if(blkid_devno_to_devname(dev_of_number(ext->devno)), ext->uuid);
	return name;
}

/* The path, absolute and without links; the caller frees. NULL: none found, or logged. */
static char *find(const char *volume, const struct options *o,
		  const struct sl_external_journal *ext)
{
	char *found = NULL, *path;

	if (o->journal_path) {
		path = realpath(o->journal_path, NULL);
		if (!path)
			log_err("%s: external journal %s: %s", volume, o->journal_path,
				strerror(errno));
		return path;
	}
	if (o->journal_dev) {
		found = blkid_devno_to_devname(dev_of_number(o->journal_dev));
		if (!found)
			log_err("%s: external journal: there is no block device %#x (%u:%u)",
				volume, o->journal_dev,
				major(dev_of_number(o->journal_dev)),
				minor(dev_of_number(o->journal_dev)));
	} else {
		found = by_uuid(ext);
		if (!found)
			log_err("%s: its external journal (UUID %s) is not found: name it by journal_path=",
				volume, ext->uuid);
	}
	path = found ? realpath(found, NULL) : NULL;
	if (found && !path)
		log_err("%s: external journal %s: %s", volume, found, strerror(errno));
	free(found);
	return path;
}

static int open_path(const char *volume, const char *path, struct sl_options *sl)
{
	struct bdev *bd;
	const char *why;
	struct stat st;
	int err = bdev_open_aio(path, sl->readonly, 0, &bd, &why);

	if (err) {
		log_err("%s: external journal %s: %s", volume, path, why);
		return err;
	}
	sl->journal_bd = bd;
	if (bd->bd_is_block && !stat(path, &st))
		sl->journal_devno = number_of_dev(st.st_rdev);
	return 0;
}

int journaldev_open(struct bdev *bd, const struct options *o, struct sl_options *sl)
{
	struct sl_external_journal ext;
	char *path;
	int err;

	sl->journal_bd = NULL;
	sl->journal_devno = 0;
	err = sl_superblock_journal(bd, sl->sb_block, &ext);
	if (err || (!ext.external && !o->journal_path && !o->journal_dev))
		return err;
	path = find(bd->bd_name, o, &ext);
	err = path ? open_path(bd->bd_name, path, sl) : -ENODEV;
	free(path);
	return sl->noload ? 0 : err;
}
