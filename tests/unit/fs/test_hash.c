/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_hash.c - hashes of names against libext2fs
 *
 * The expected values were computed with ext2fs_dirhash() of e2fsprogs 1.47.0
 * (the same as `debugfs -R 'dx_hash -h VERSION -s SEED NAME'`); the long lists
 * are folded into one number each (FNV-1a).
 */
#include "tests/unit/unit.h"

#include "fs/ext4.h"

static const u32 test_seed[4] = { 0x01020304, 0x05060708, 0x090A0B0C, 0x0D0E0F10 };

/* Letters, bytes >= 0x80, or anything; never NUL or '/'. */
static void make_name(char *out, u32 len, u32 pattern)
{
	u32 x = len * 2654435761u + pattern * 40503u;

	for (u32 i = 0; i < len; i++) {
		u32 c;

		x = x * 1664525u + 1013904223u;
		if (pattern == 0)
			c = 0x61 + (x >> 24) % 26;
		else if (pattern == 1)
			c = 0x80 + (x >> 25);
		else
			c = 1 + (x >> 24) % 255;
		out[i] = (char)(c == '/' ? 'A' : c);
	}
}

static u64 fold(u64 acc, u32 v)
{
	for (u32 i = 0; i < 4; i++)
		acc = (acc ^ (v >> (8 * i) & 0xFF)) * 0x100000001B3ull;
	return acc;
}

static void test_all_lengths(void **state)
{
	static const struct {
		u32 version;
		bool seeded;
		u64 sum;
	} expect[] = {
		{ 0, false, 0x9c3b0bcc71926b26ull },
		{ 1, false, 0x8f2b3b491ff0e544ull },
		{ 2, false, 0x523d5b5c1f859adeull },
		{ 3, false, 0xa39e4daf6326c86aull },
		{ 4, false, 0xbfd33dbb26cb0ca1ull },
		{ 5, false, 0x08f8a7ede3b0a51eull },
		{ 0, true, 0x9c3b0bcc71926b26ull },
		{ 1, true, 0x6b7d26d0795877beull },
		{ 2, true, 0x4eb978203df2bcbaull },
		{ 3, true, 0xa39e4daf6326c86aull },
		{ 4, true, 0x99d5483a6b6205b9ull },
		{ 5, true, 0x6331f5988993ac96ull },
	};

	for (u32 i = 0; i < ARRAY_SIZE(expect); i++) {
		u64 sum = 0xCBF29CE484222325ull;

		for (u32 pattern = 0; pattern < 3; pattern++) {
			for (u32 len = 1; len <= 255; len++) {
				struct ext4_dirhash dh;
				char name[255];

				make_name(name, len, pattern);
				assert_int_equal(
					ext4_dirhash(name, len, expect[i].version,
						     expect[i].seeded ? test_seed : NULL,
						     &dh),
					0);
				sum = fold(fold(sum, dh.major), dh.minor);
			}
		}
		if (sum != expect[i].sum)
			fail_msg("version %u, seeded %d", expect[i].version,
				 expect[i].seeded);
	}
}

static void test_single_names(void **state)
{
	static const u32 zero[4];
	static const struct {
		const char *name;
		u32 version;
		const u32 *seed;
		u32 major, minor;
	} expect[] = {
		{ "hello", DX_HASH_LEGACY, NULL, 0x32252546, 0 },
		{ "hello", DX_HASH_HALF_MD4, NULL, 0x1746da32, 0x420013b5 },
		{ "hello", DX_HASH_HALF_MD4, zero, 0x1746da32, 0x420013b5 },
		{ "hello", DX_HASH_HALF_MD4, test_seed, 0xa48aaad0, 0x685a5b37 },
		{ "hello", DX_HASH_TEA, NULL, 0x6f5bb1a8, 0x231917c2 },
		{ "h\xC3\xA9llo", DX_HASH_LEGACY, NULL, 0x239928cc, 0 },
		{ "h\xC3\xA9llo", DX_HASH_LEGACY_UNSIGNED, NULL, 0x7798acd8, 0 },
		{ "h\xC3\xA9llo", DX_HASH_HALF_MD4, NULL, 0x98e030c8, 0xe189ee6e },
		{ "h\xC3\xA9llo", DX_HASH_HALF_MD4_UNSIGNED, NULL, 0xa5c67250, 0x6cd261bb },
		{ "h\xC3\xA9llo", DX_HASH_TEA, NULL, 0x313ecf7e, 0xedbe6b7e },
		{ "h\xC3\xA9llo", DX_HASH_TEA_UNSIGNED, NULL, 0x7472d1be, 0x99e4e95b },
	};

	for (u32 i = 0; i < ARRAY_SIZE(expect); i++) {
		struct ext4_dirhash dh;

		assert_int_equal(ext4_dirhash(expect[i].name,
					      (u32)strlen(expect[i].name),
					      expect[i].version, expect[i].seed,
					      &dh),
				 0);
		assert_int_equal(dh.major, expect[i].major);
		assert_int_equal(dh.minor, expect[i].minor);
	}
}

/* The largest hash stands for the end of a directory: mapped to the one below. */
static void test_end_sentinel_is_avoided(void **state)
{
	static const char name[] = "fuhuyjl";
	struct ext4_dirhash dh;

	assert_int_equal(ext4_dirhash(name, sizeof(name) - 1, DX_HASH_LEGACY,
				      NULL, &dh),
			 0);
	assert_int_equal(dh.major, 0xFFFFFFFCu);
}

static void test_unknown_version(void **state)
{
	struct ext4_dirhash dh;

	assert_int_equal(ext4_dirhash("a", 1, 6, NULL, &dh), -EINVAL);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_lengths),
		cmocka_unit_test(test_single_names),
		cmocka_unit_test(test_end_sentinel_is_avoided),
		cmocka_unit_test(test_unknown_version),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
