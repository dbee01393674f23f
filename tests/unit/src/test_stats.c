/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/src/test_stats.c - lines "name value" as JSON
 */
#include "tests/unit/unit.h"

#include <errno.h>
#include <string.h>

#include "src/stats.h"

static char out[4096];

static const char *json(const char *text)
{
	ssize_t n = stats_json(text, strlen(text), out, sizeof(out) - 1);

	assert_true(n > 0);
	out[n] = '\0';
	return out;
}

static void test_numbers_and_strings(void **state)
{
	assert_string_equal(json(""), "{\n}\n");
	assert_string_equal(json("a 5\n"), "{\n \"a\": 5\n}\n");
	assert_string_equal(json("a -5\nb x\nc 1.5\nd 05\ne -\nf 0\n"),
			    "{\n \"a\": -5,\n \"b\": \"x\",\n \"c\": \"1.5\",\n"
			    " \"d\": \"05\",\n \"e\": \"-\",\n \"f\": 0\n}\n");
	assert_string_equal(json("a 18446744073709551615\n"),
			    "{\n \"a\": 18446744073709551615\n}\n");
}

static void test_pairs_are_objects(void **state)
{
	assert_string_equal(json("a x 1 y 2\n"),
			    "{\n \"a\": {\"x\": 1, \"y\": 2}\n}\n");
	assert_string_equal(json("a 1024 6\n"), "{\n \"a\": {\"1024\": 6}\n}\n");
	assert_string_equal(json("a x 1 y\nb x 1 y z\nc  1\nd x 1 \n"),
			    "{\n \"a\": \"x 1 y\",\n \"b\": \"x 1 y z\",\n"
			    " \"c\": \" 1\",\n \"d\": \"x 1 \"\n}\n");
}

static void test_dots_nest(void **state)
{
	assert_string_equal(json("a 1\nz.0.x 2\nz.0.y 3\nz.1.x 4\nz.n 5\nb 6\n"),
			    "{\n \"a\": 1,\n \"z\": {\n  \"0\": {\n   \"x\": 2,\n"
			    "   \"y\": 3\n  },\n  \"1\": {\n   \"x\": 4\n  },\n"
			    "  \"n\": 5\n },\n \"b\": 6\n}\n");
	/* What begins alike up to no dot is another object. */
	assert_string_equal(json("ab.x 1\nac.x 2\n"),
			    "{\n \"ab\": {\n  \"x\": 1\n },\n \"ac\": {\n"
			    "  \"x\": 2\n }\n}\n");
}

static void test_odd_bytes_and_lines(void **state)
{
	assert_string_equal(json("a \"\\\t\xE4\n"),
			    "{\n \"a\": \"\\u0022\\u005c\\u0009\\u00e4\"\n}\n");
	/* No value, no name, no end of the line. */
	assert_string_equal(json("a\n x\n\nb \nc 1"),
			    "{\n \"a\": {},\n \"b\": {}\n}\n");
}

static void test_never_more_than_there_is_room(void **state)
{
	static const char text[] = "a 1\nb.c.d 2\nb.e x 1 y 2\nf text\n";
	ssize_t n = stats_json(text, strlen(text), out, sizeof(out));

	assert_true(n > 0);
	for (size_t len = 0; len < (size_t)n; len++) {
		out[len] = '#';
		assert_int_equal(stats_json(text, strlen(text), out, len), -E2BIG);
		assert_int_equal(out[len], '#');
	}
	assert_int_equal(stats_json(text, strlen(text), out, (size_t)n), n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_numbers_and_strings),
		cmocka_unit_test(test_pairs_are_objects),
		cmocka_unit_test(test_dots_nest),
		cmocka_unit_test(test_odd_bytes_and_lines),
		cmocka_unit_test(test_never_more_than_there_is_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
