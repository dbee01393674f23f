/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/fuzz/fuzz_main.c - runs the inputs that are kept, without libFuzzer
 *
 *   fuzz-NAME [-v] FILE|DIR...             each of them once
 *   fuzz-NAME --runs N SEED [FILE|DIR...]  N that the mutator makes of them, or of nothing
 *
 * Without guidance by coverage, but without its cost. The input under way is in the
 * file that $FUZZ_LAST names, if it does, to be kept when it ends the program.
 * Exit: 0; or however what an input did wrong ends the program, and its name is
 * the last that was printed with -v.
 */
#include "lib/types.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);
size_t LLVMFuzzerCustomMutator(u8 *data, size_t size, size_t max, unsigned seed);
size_t LLVMFuzzerMutate(u8 *data, size_t size, size_t max);

#define INPUT_MAX 4096u

static bool verbose, keep_only;
static unsigned nr_run;

/* With --runs: what the mutator begins with. */
static struct {
	u8 *data;
	size_t size;
} *kept;
static unsigned nr_kept;

/* Shared with the file, so that it has what was run when the program ends. */
static struct last {
	u32 size;
	u8 data[INPUT_MAX];
} *last;

/* In place of libFuzzer's: a byte. */
size_t LLVMFuzzerMutate(u8 *data, size_t size, size_t max)
{
	static unsigned seed = 1;

	if (size < max)
		data[size++] = 0;
	data[(size_t)rand_r(&seed) % size] = (u8)rand_r(&seed);
	return size;
}

static void keep(u8 *data, size_t size)
{
	kept = realloc(kept, (nr_kept + 1) * sizeof(*kept));
	if (!kept)
		abort();
	kept[nr_kept].data = data;
	kept[nr_kept++].size = size;
}

static void run_file(const char *path)
{
	u8 *buf = malloc(INPUT_MAX);
	FILE *f = fopen(path, "rb");
	size_t n;

	if (!f || !buf) {
		perror(path);
		exit(2);
	}
	n = fread(buf, 1, INPUT_MAX, f);
	fclose(f);
	if (keep_only) {
		keep(buf, n);
		return;
	}
	if (verbose)
		fprintf(stderr, "%s\n", path);
	/* Of its own size: a byte too many that is read is seen. */
	buf = realloc(buf, n ? n : 1);
	LLVMFuzzerTestOneInput(buf, n);
	nr_run++;
	free(buf);
}

static void run_path(const char *path)
{
	struct dirent **names;
	struct stat st;
	int n;

	if (stat(path, &st) || !S_ISDIR(st.st_mode)) {
		run_file(path);
		return;
	}
	n = scandir(path, &names, NULL, alphasort);
	for (int i = 0; i < n; i++) {
		char file[4096];

		snprintf(file, sizeof(file), "%s/%s", path, names[i]->d_name);
		if (names[i]->d_name[0] != '.')
			run_file(file);
		free(names[i]);
	}
	if (n >= 0)
		free(names);
}

static void open_last(void)
{
	const char *path = getenv("FUZZ_LAST");
	int fd = path ? open(path, O_RDWR | O_CREAT | O_TRUNC, 0644) : -1;

	if (!path)
		return;
	if (fd < 0 || ftruncate(fd, sizeof(*last))) {
		perror(path);
		exit(2);
	}
	last = mmap(NULL, sizeof(*last), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (last == MAP_FAILED)
		exit(2);
	close(fd);
}

static void run_random(unsigned runs, unsigned seed)
{
	static u8 buf[INPUT_MAX];

	open_last();
	while (runs--) {
		unsigned many = 1 + (unsigned)rand_r(&seed) % 5;
		size_t n = 4;
		u8 *exact;

		for (size_t i = 0; i < n; i++)
			buf[i] = (u8)rand_r(&seed);
		buf[3] = 0;
		if (nr_kept) {
			unsigned i = (unsigned)rand_r(&seed) % nr_kept;

			n = kept[i].size;
			memcpy(buf, kept[i].data, n);
		} else {
			many += (unsigned)rand_r(&seed) % 24;
		}
		while (many--)
			n = LLVMFuzzerCustomMutator(buf, n, 1024, (unsigned)rand_r(&seed));
		if (last) {
			last->size = (u32)n;
			memcpy(last->data, buf, n);
		}
		exact = malloc(n ? n : 1);
		if (!exact)
			abort();
		memcpy(exact, buf, n);
		LLVMFuzzerTestOneInput(exact, n);
		free(exact);
		if (!(++nr_run % 10000) && verbose)
			fprintf(stderr, "%u\n", nr_run);
	}
}

int main(int argc, char **argv)
{
	unsigned runs = 0, seed = 1;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "-v")) {
			verbose = true;
		} else if (!strcmp(argv[i], "--runs") && i + 2 < argc) {
			runs = (unsigned)strtoul(argv[++i], NULL, 0);
			seed = (unsigned)strtoul(argv[++i], NULL, 0);
			keep_only = true;
		} else {
			run_path(argv[i]);
		}
	}
	run_random(runs, seed);
	printf("%u inputs\n", nr_run);
	for (unsigned i = 0; i < nr_kept; i++)
		free(kept[i].data);
	free(kept);
	return 0;
}
