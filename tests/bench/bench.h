/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/bench/bench.h - what the benchmarks share: clocks, sizes, a table
 * whose rows go to the screen and to a file of JSON
 *
 * No locks: one thread reports.
 */
#ifndef SLUICE_TESTS_BENCH_H
#define SLUICE_TESTS_BENCH_H

#include "lib/types.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

static inline u64 bench_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * 1000000000ull + (u64)ts.tv_nsec;
}

/* What the process has used so far. */
struct bench_usage {
	u64 wall_ns;
	u64 cpu_ns;    /* of all its threads, user and system */
	u64 user_ns;
	u64 waits;     /* voluntary context switches: it slept */
	u64 preempted; /* involuntary ones */
};

static inline u64 bench_timeval_ns(struct timeval tv)
{
	return (u64)tv.tv_sec * 1000000000ull + (u64)tv.tv_usec * 1000ull;
}

static inline struct bench_usage bench_usage_now(void)
{
	struct rusage ru;

	getrusage(RUSAGE_SELF, &ru);
	return (struct bench_usage){
		.wall_ns = bench_now_ns(),
		.cpu_ns = bench_timeval_ns(ru.ru_utime) +
			  bench_timeval_ns(ru.ru_stime),
		.user_ns = bench_timeval_ns(ru.ru_utime),
		.waits = (u64)ru.ru_nvcsw,
		.preempted = (u64)ru.ru_nivcsw,
	};
}

static inline struct bench_usage bench_usage_since(struct bench_usage then)
{
	struct bench_usage now = bench_usage_now();

	return (struct bench_usage){
		.wall_ns = now.wall_ns - then.wall_ns,
		.cpu_ns = now.cpu_ns - then.cpu_ns,
		.user_ns = now.user_ns - then.user_ns,
		.waits = now.waits - then.waits,
		.preempted = now.preempted - then.preempted,
	};
}

/* "64M", "1G", "4096": bytes. False if it is no such thing. */
static inline bool bench_parse_size(const char *text, u64 *bytes)
{
	static const char units[] = "KMGT";
	char *end;
	unsigned long long n = strtoull(text, &end, 10);
	const char *unit;

	if (end == text || *text == '-')
		return false;
	if (*end) {
		unit = strchr(units, *end & ~0x20);
		if (!unit || end[1])
			return false;
		if (n > UINT64_MAX >> (10 * (unit - units + 1)))
			return false;
		n <<= 10 * (unit - units + 1);
	}
	*bytes = n;
	return true;
}

/*
 * A table. bench_row_begin(), then a cell for each column, then
 * bench_row_end(). The first row prints the heads. Cells of a row always come in
 * the same order. A name is the head of the column and the key in JSON.
 */
struct bench_table {
	FILE *json;	   /* NULL: no file */
	const char *title; /* "benchmark" in JSON */
	unsigned rows;
	char heads[1024], cells[1024], object[2048];
};

static inline bool bench_table_open(struct bench_table *t, const char *title,
				    const char *json_path)
{
	memset(t, 0, sizeof(*t));
	t->title = title;
	if (!json_path)
		return true;
	t->json = fopen(json_path, "w");
	if (!t->json)
		return false;
	fprintf(t->json, "{\"benchmark\": \"%s\", \"rows\": [", title);
	return true;
}

static inline void __attribute__((format(printf, 3, 4)))
bench_append(char *text, size_t room, const char *fmt, ...)
{
	size_t len = strlen(text);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text + len, room - len, fmt, ap);
	va_end(ap);
}

static inline void bench_row_begin(struct bench_table *t)
{
	t->heads[0] = t->cells[0] = t->object[0] = '\0';
}

static inline void bench_cell_head(struct bench_table *t, const char *name)
{
	bench_append(t->heads, sizeof(t->heads), " %*s",
		     (int)max_of(strlen(name), (size_t)10), name);
	bench_append(t->object, sizeof(t->object), "%s\"%s\": ",
		     t->object[0] ? ", " : "", name);
}

static inline void bench_cell_text(struct bench_table *t, const char *name,
				   const char *value)
{
	bench_cell_head(t, name);
	bench_append(t->cells, sizeof(t->cells), " %*s",
		     (int)max_of(strlen(name), (size_t)10), value);
	bench_append(t->object, sizeof(t->object), "\"%s\"", value);
}

static inline void bench_cell_int(struct bench_table *t, const char *name, u64 value)
{
	bench_cell_head(t, name);
	bench_append(t->cells, sizeof(t->cells), " %*llu",
		     (int)max_of(strlen(name), (size_t)10),
		     (unsigned long long)value);
	bench_append(t->object, sizeof(t->object), "%llu",
		     (unsigned long long)value);
}

static inline void bench_cell_real(struct bench_table *t, const char *name,
				   double value)
{
	bench_cell_head(t, name);
	bench_append(t->cells, sizeof(t->cells), " %*.3f",
		     (int)max_of(strlen(name), (size_t)10), value);
	bench_append(t->object, sizeof(t->object), "%.6f", value);
}

static inline void bench_row_end(struct bench_table *t)
{
	if (!t->rows)
		printf("%s\n", t->heads);
	printf("%s\n", t->cells);
	fflush(stdout);
	if (t->json)
		fprintf(t->json, "%s\n  {%s}", t->rows ? "," : "", t->object);
	t->rows++;
}

/* False if the file could not be written. */
static inline bool bench_table_close(struct bench_table *t)
{
	bool ok = true;

	if (t->json) {
		fprintf(t->json, "\n]}\n");
		ok = !ferror(t->json);
		ok = !fclose(t->json) && ok;
		t->json = NULL;
	}
	return ok;
}

#endif
