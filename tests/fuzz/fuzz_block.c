/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/fuzz/fuzz_block.c - one block of a volume is what the fuzzer says
 *
 * For coverage-guided fuzzing (libFuzzer; AFL++ has a driver for the same
 * entry point). The first byte of the input picks a kind of metadata (a block
 * of the log, of a directory, of an extent tree, ...), the second which one
 * of it; the rest takes the place of its content, as far as it goes. The
 * volume is mounted in this process (a log is replayed), walked, changed and
 * unmounted.
 *
 *   CC=clang meson setup build-fuzz -Dfuzzing=true -Db_sanitize=address,undefined \
 *       -Db_lundef=false -Dc_args=-fsanitize=fuzzer-no-link
 *   build/tests/fuzz/fuzz-block --corpus CORPUS_DIR
 *   build-fuzz/tests/fuzz/fuzz-block -max_len=1026 -detect_leaks=0 CORPUS_DIR
 *
 * Without -Dfuzzing=true the program has a main() of its own. It runs the
 * files given, or else a number of inputs made by rand_r() (--runs N), or
 * writes inputs to start from, intact blocks, into a folder (--corpus DIR).
 */
#include "tests/fuzz/mutate.h"
#include "tests/fuzz/template.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static struct {
	bool ready;
	struct image clean, dirty, work;
	struct meta_map meta;
} fb;

static void no_log(enum log_level level, const char *line, void *priv)
{
}

static void leave_log(struct super_block *sb, struct torment_report *r)
{
	struct inode *root, *dir;
	char name[32];

	MUST(sl_iget(sb, 2, &root));
	MUST(sl_lookup(root, "victim", 6, &dir));
	MUST(sl_rmdir(dir, "sub", 3));
	for (int i = 0; i < 6; i++) {
		snprintf(name, sizeof(name), "late-%d", i);
		sl_iput(template_file(dir, name));
		MUST(sl_sync(sb));
	}
}

static void get_ready(void)
{
	struct torment crash = { .fn = leave_log, .crash = true };
	struct torment_report r;
	struct workdir w;

	workdir_make(&w);
	template_make(&w, "-b 1024 -g 2048 -N 600 -O ^metadata_csum,orphan_file", "12M",
		      &fb.clean);
	image_alloc(&fb.dirty, fb.clean.size);
	image_alloc(&fb.work, fb.clean.size);
	image_copy(&fb.dirty, &fb.clean);
	if (torment(&crash, &fb.dirty, w.log, &r))
		image_die("no log was left");
	meta_map_make(&fb.meta, &fb.clean);
	workdir_remove(&w);
	if (!getenv("SL_DEBUG"))
		log_set_sink(no_log, NULL);
	fb.ready = true;
}

static const struct meta_block *pick(u8 kind, u8 which)
{
	static const enum meta_kind kinds[] = {
		META_JOURNAL, META_JOURNAL, META_JOURNAL_SB, META_DIR, META_DIR,
		META_EXTENT, META_ITABLE, META_INDIRECT, META_XATTR, META_ORPHAN,
	};
	enum meta_kind k = kinds[kind % ARRAY_SIZE(kinds)];
	u32 nr = fb.meta.start[k + 1] - fb.meta.start[k];

	if (!nr)
		return NULL;
	/* The log that is there begins at its first blocks. */
	return &fb.meta.at[fb.meta.start[k] + which % (k == META_JOURNAL ? min_of(nr, 24u) : nr)];
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	struct torment t = { .errors = SL_ERRORS_CONTINUE };
	struct torment_report r = { 0 };
	const struct meta_block *b;
	bool log;

	if (!fb.ready)
		get_ready();
	if (size < 3)
		return 0;
	b = pick(data[0], data[1]);
	if (!b)
		return 0;
	log = b->kind == META_JOURNAL || b->kind == META_JOURNAL_SB;
	image_copy(&fb.work, log ? &fb.dirty : &fb.clean);
	memcpy(fb.work.mem + b->pos, data + 2, min_of(size - 2, (size_t)b->len));
	t.seed = data[1];
	/* What matters of a log is its replay. */
	t.only_mount = log;
	torment_child(&t, &fb.work, &r);
	if (r.unexpected) {
		fprintf(stderr, "unexpected: %s\n", r.first_unexpected);
		abort();
	}
	return 0;
}

#ifndef SLUICE_LIBFUZZER
static void run_file(const char *path)
{
	u8 buf[8192];
	FILE *f = fopen(path, "rb");
	size_t n;

	if (!f)
		image_die(path);
	n = fread(buf, 1, sizeof(buf), f);
	fclose(f);
	LLVMFuzzerTestOneInput(buf, n);
}

/* Near the truth: the block's own content with a few bytes changed. */
static void run_random(unsigned seed)
{
	u8 buf[2 + 1024];
	const struct meta_block *b;
	u32 len;

	buf[0] = (u8)rand_r(&seed);
	buf[1] = (u8)rand_r(&seed);
	b = pick(buf[0], buf[1]);
	if (!b)
		return;
	len = min_of(b->len, 1024u);
	memcpy(buf + 2, (b->kind == META_JOURNAL ? fb.dirty.mem : fb.clean.mem) + b->pos, len);
	for (unsigned n = 1 + (unsigned)rand_r(&seed) % 6; n; n--)
		buf[2 + (unsigned)rand_r(&seed) % (rand_r(&seed) % 2 ? len : min_of(len, 48u))] =
			(u8)rand_r(&seed);
	LLVMFuzzerTestOneInput(buf, 2 + len);
}

static void write_corpus(const char *dir)
{
	for (unsigned i = 0; i < 10 * 6; i++) {
		u8 head[2] = { (u8)(i % 10), (u8)(i / 10) };
		const struct meta_block *b = pick(head[0], head[1]);
		char path[512];
		FILE *f;

		if (!b)
			continue;
		snprintf(path, sizeof(path), "%s/block-%u", dir, i);
		f = fopen(path, "wb");
		if (!f || fwrite(head, 1, 2, f) != 2 ||
		    fwrite((b->kind == META_JOURNAL ? fb.dirty.mem : fb.clean.mem) + b->pos, 1,
			   b->len, f) != b->len ||
		    fclose(f))
			image_die(path);
	}
}

int main(int argc, char **argv)
{
	unsigned runs = 60;

	get_ready();
	if (argc == 3 && !strcmp(argv[1], "--corpus")) {
		write_corpus(argv[2]);
		return 0;
	}
	if (argc == 3 && !strcmp(argv[1], "--runs")) {
		runs = (unsigned)atoi(argv[2]);
		argc = 1;
	}
	for (int i = 1; i < argc; i++)
		run_file(argv[i]);
	for (unsigned i = 0; argc == 1 && i < runs; i++)
		run_random(i * 7919 + 1);
	return 0;
}
#endif
