/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/fuzz/fuzz_image.c - random damage to whole volumes
 *
 *   fuzz-image [--seeds FROM-TO] [--keep DIR]
 *
 * For each seed one of the templates is damaged (mutate.h) and then mounted,
 * walked, changed and unmounted in a child process (torment.h). Some of the
 * templates were not unmounted, so that a log is replayed first. A seed that
 * fails is printed with what was damaged and the child's log; its image is
 * kept. The same seed gives the same damage.
 *
 * Exit: 0 all seeds survived, 1 not.
 */
#include "tests/fuzz/mutate.h"
#include "tests/fuzz/template.h"

#define DEFAULT_SEEDS 200u

struct fuzz_template {
	const char *features, *size;
	bool fix;   /* recompute checksums, most of the time */
	bool dirty; /* has a log to replay, and orphans */
	bool ro;    /* has features that are only read */
	struct image im;
	struct meta_map meta;
};

static struct fuzz_template templates[] = {
	{ "-b 1024 -g 2048 -N 1200 -O ^metadata_csum", "12M", false, false },
	{ "-b 1024 -g 2048 -N 1200 -O ^metadata_csum", "12M", false, true },
	{ "-b 1024 -g 4096 -N 1200 -O orphan_file,metadata_csum_seed", "12M", true, false },
	{ "-b 1024 -N 600 -O ^metadata_csum,orphan_file,large_dir,^64bit", "12M", false, true },
	{ "-b 4096 -g 1024 -N 1200 -O uninit_bg,^metadata_csum", "24M", true, false },
	{ "-b 1024 -g 2048 -N 1200 -I 128 -O ^metadata_csum,meta_bg,^resize_inode", "12M", false,
	  false },
	{ "-b 1024 -g 2048 -N 1200 -O inline_data,ea_inode,^metadata_csum", "12M", false, false,
	  true },
	{ "-b 1024 -N 1200 -O bigalloc,^metadata_csum -C 4096", "12M", false, false, true },
	{ "-b 1024 -N 1200 -O ^extents,^64bit,^metadata_csum", "12M", false, false, true },
};

/* Changes that stay in the log, and inodes that die with the daemon. */
static void leave_dirty(struct super_block *sb, struct torment_report *r)
{
	struct inode *root, *dir, *inode;
	char name[32];

	(void)r;
	MUST(sl_iget(sb, 2, &root));
	MUST(sl_lookup(root, "victim", 6, &dir));
	MUST(sl_lookup(dir, "f6", 2, &inode));
	sl_lookup_inc(inode);
	MUST(sl_unlink(dir, "f6", 2));
	MUST(sl_lookup(dir, "f5", 2, &inode));
	sl_lookup_inc(inode);
	MUST(sl_unlink(dir, "f5", 2));
	MUST(sl_rmdir(dir, "sub2", 4));
	MUST(sl_sync(sb));
	for (int i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "late-%d", i);
		sl_iput(template_file(dir, name));
		if (i % 7 == 0)
			MUST(sl_sync(sb));
	}
	MUST(sl_sync(sb));
}

static void template_load(struct workdir *w, struct fuzz_template *ft)
{
	struct torment dirty = { .fn = leave_dirty, .crash = true };
	struct torment_report r;

	if (ft->ro)
		template_make_ro(w, ft->features, ft->size, &ft->im);
	else
		template_make(w, ft->features, ft->size, &ft->im);
	/* Where things are does not change with what follows. */
	meta_map_make(&ft->meta, &ft->im);
	if (ft->dirty && torment(&dirty, &ft->im, w->log, &r))
		image_die("the template could not be left dirty");
}

static struct {
	unsigned failed, mounted, corrupt, readonly;
} tally;

static void one_seed(struct workdir *w, unsigned n, struct image *im, const char *keep)
{
	struct fuzz_template *ft = &templates[n % ARRAY_SIZE(templates)];
	unsigned seed = n * 2654435761u + 1;
	struct torment t = { 0 };
	struct torment_report r;
	unsigned state;

	im->size = ft->im.size;
	image_copy(im, &ft->im);
	for (int i = 0; i < 4; i++) /* neighbours differ late */
		rand_r(&seed);
	state = seed;
	mutate(im, &ft->meta, &seed, ft->fix, NULL);
	t.seed = (unsigned)rand_r(&seed);
	t.readonly = ft->ro || rand_r(&seed) % 6 == 0;
	t.noload = t.readonly && rand_r(&seed) % 3 == 0;
	t.errors = rand_r(&seed) % 3 ? SL_ERRORS_CONTINUE : SL_ERRORS_RO;
	t.two = rand_r(&seed) % 4 == 0;
	if (rand_r(&seed) % 4 == 0) { /* and a bad disk */
		t.bad_read = (unsigned)rand_r(&seed) % 12;
		t.bad_write = rand_r(&seed) % 2 ? (unsigned)rand_r(&seed) % 20 : 0;
	}
	if (!torment(&t, im, w->log, &r)) {
		tally.mounted += !r.mount_err;
		tally.corrupt += r.corrupt || r.eio;
		tally.readonly += r.readonly && !t.readonly;
		return;
	}
	tally.failed++;
	fprintf(stderr, "FAILED: seed %u (template %zu, %s%s%s, errors %d); damaged:\n",
		n, n % ARRAY_SIZE(templates), t.readonly ? "ro" : "rw",
		t.two ? ", two threads" : "", t.bad_read || t.bad_write ? ", bad disk" : "",
		t.errors);
	image_copy(im, &ft->im);
	seed = state;
	mutate(im, &ft->meta, &seed, ft->fix, stderr);
	if (keep) {
		char path[512];

		snprintf(path, sizeof(path), "%s/seed-%u.img", keep, n);
		image_store(im, path);
		fprintf(stderr, "image: %s\n", path);
	}
}

int main(int argc, char **argv)
{
	unsigned from = 0, to = DEFAULT_SEEDS;
	const char *keep = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
	struct workdir w;
	struct image im;
	size_t max = 0;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--seeds") && i + 1 < argc &&
		    sscanf(argv[++i], "%u-%u", &from, &to) == 2)
			continue;
		if (!strcmp(argv[i], "--keep") && i + 1 < argc) {
			keep = argv[++i];
			continue;
		}
		fprintf(stderr, "usage: fuzz-image [--seeds FROM-TO] [--keep DIR]\n");
		return 2;
	}
	workdir_make(&w);
	for (size_t i = 0; i < ARRAY_SIZE(templates); i++) {
		template_load(&w, &templates[i]);
		max = max_of(max, templates[i].im.size);
	}
	image_alloc(&im, max);
	for (unsigned n = from; n < to; n++)
		one_seed(&w, n, &im, keep);
	im.size = max;
	image_free(&im);
	for (size_t i = 0; i < ARRAY_SIZE(templates); i++) {
		meta_map_free(&templates[i].meta);
		image_free(&templates[i].im);
	}
	workdir_remove(&w);
	printf("%u seeds, %u failed; %u mounted, %u met damage, %u became read-only\n",
	       to - from, tally.failed, tally.mounted, tally.corrupt, tally.readonly);
	return tally.failed != 0;
}
