/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/stats.c - the daemon's counters as JSON
 *
 * Locks: none. Threads: any.
 */
#include "src/stats.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

struct out {
	char *buf;
	size_t len, used;
	bool full;
};

static void put(struct out *o, const char *s, size_t n)
{
	if (n > o->len - o->used) {
		o->full = true;
		return;
	}
	memcpy(o->buf + o->used, s, n);
	o->used += n;
}

static void put_text(struct out *o, const char *s)
{
	put(o, s, strlen(s));
}

static void put_string(struct out *o, const char *s, size_t n)
{
	static const char hex[] = "0123456789abcdef";

	put_text(o, "\"");
	for (size_t i = 0; i < n; i++) {
		u8 c = (u8)s[i];
		char esc[] = { '\\', 'u', '0', '0', hex[c >> 4], hex[c & 15] };

		/* A byte that is no ASCII is shown as if it were Latin 1. */
		if (c < 0x20 || c > 0x7E || c == '"' || c == '\\')
			put(o, esc, sizeof(esc));
		else
			put(o, s + i, 1);
	}
	put_text(o, "\"");
}

/* As JSON has them: "-0" and "5" are, "05", "+5" and "" are not. */
static bool is_integer(const char *s, size_t n)
{
	if (n && *s == '-') {
		s++;
		n--;
	}
	if (!n || (n > 1 && *s == '0'))
		return false;
	for (size_t i = 0; i < n; i++)
		if (s[i] < '0' || s[i] > '9')
			return false;
	return true;
}

static void indent(struct out *o, size_t depth)
{
	put_text(o, "\n");
	while (depth--)
		put_text(o, " ");
}

/* Bytes of both names up to the last dot that they have in common. */
static size_t common_path(const char *a, size_t a_len, const char *b, size_t b_len)
{
	size_t common = 0;

	for (size_t i = 0; i < a_len && i < b_len && a[i] == b[i]; i++)
		if (a[i] == '.')
			common = i + 1;
	return common;
}

static size_t dots(const char *s, size_t n)
{
	size_t count = 0;

	for (size_t i = 0; i < n; i++)
		count += s[i] == '.';
	return count;
}

struct writer {
	struct out o;
	const char *path; /* of the objects that are open: up to their last dot */
	size_t path_len;
	bool first; /* of the object that is open */
};

static void separate(struct writer *w, size_t depth)
{
	if (!w->first)
		put_text(&w->o, ",");
	indent(&w->o, depth + 1);
	w->first = true;
}

/* Closes and opens objects so that a name's last part can follow. */
static void enter(struct writer *w, const char *name, size_t path_len)
{
	size_t common = common_path(w->path, w->path_len, name, path_len);
	size_t depth = dots(w->path, w->path_len);
	size_t keep = dots(name, common);

	for (; depth > keep; depth--) {
		indent(&w->o, depth);
		put_text(&w->o, "}");
		w->first = false;
	}
	while (common < path_len) {
		size_t n = strcspn(name + common, ".");

		separate(w, depth++);
		put_string(&w->o, name + common, n);
		put_text(&w->o, ": {");
		common += n + 1;
	}
	w->path = name;
	w->path_len = path_len;
}

/* The word at s, up to a space or the end. */
static size_t word(const char *s, size_t n)
{
	const char *space = memchr(s, ' ', n);

	return space ? (size_t)(space - s) : n;
}

/* "a 1 b 2": a word and an integer, as often as you like. */
static bool is_pairs(const char *s, size_t n)
{
	while (n) {
		size_t key = word(s, n), value;

		if (!key || key == n)
			return false;
		s += key + 1;
		n -= key + 1;
		value = word(s, n);
		if (!is_integer(s, value))
			return false;
		if (value == n)
			return true;
		s += value + 1;
		n -= value + 1;
		if (!n)
			return false;
	}
	return true;
}

static void put_value(struct out *o, const char *s, size_t n)
{
	bool first = true;

	if (is_integer(s, n)) {
		put(o, s, n);
		return;
	}
	if (!is_pairs(s, n)) {
		put_string(o, s, n);
		return;
	}
	put_text(o, "{");
	while (n) {
		size_t key = word(s, n);
		size_t value = word(s + key + 1, n - key - 1);
		size_t both = key + 1 + value;

		if (!first)
			put_text(o, ", ");
		first = false;
		put_string(o, s, key);
		put_text(o, ": ");
		put(o, s + key + 1, value);
		s += min_of(both + 1, n);
		n -= min_of(both + 1, n);
	}
	put_text(o, "}");
}

static void put_line(struct writer *w, const char *line, size_t n)
{
	size_t name_len = word(line, n), path_len;
	size_t skip = min_of(name_len + 1, n); /* there may be no value */
	const char *dot;

	if (!name_len)
		return;
	dot = memrchr(line, '.', name_len);
	path_len = dot ? (size_t)(dot + 1 - line) : 0;
	enter(w, line, path_len);
	separate(w, dots(line, path_len));
	put_string(&w->o, line + path_len, name_len - path_len);
	put_text(&w->o, ": ");
	put_value(&w->o, line + skip, n - skip);
	w->first = false;
}

ssize_t stats_json(const char *text, size_t text_len, char *buf, size_t len)
{
	struct writer w = {
		.o = { .buf = buf, .len = len },
		.path = "",
		.first = true,
	};
	const char *end = text + text_len, *nl;

	put_text(&w.o, "{");
	for (; (nl = memchr(text, '\n', (size_t)(end - text))); text = nl + 1)
		put_line(&w, text, (size_t)(nl - text));
	enter(&w, "", 0);
	put_text(&w.o, "\n}\n");
	return w.o.full ? -E2BIG : (ssize_t)w.o.used;
}
