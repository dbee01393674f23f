/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/lib/test_crc.c - the checksums against published vectors
 *
 * The check values are those of the CRC catalogue (reveng.sourceforge.io) for
 * "123456789", with the final inversion taken off where the entry has one.
 */
#include "tests/unit/unit.h"

#include "lib/crc.h"

static const char check[] = "123456789";

static void test_crc32c_vector(void **state)
{
	assert_int_equal(crc32c(~0u, check, 9), 0x1CF96D7Cu);
	assert_int_equal(~crc32c(~0u, check, 9), 0xE3069283u);
}

/* RFC 3720 B.4: 32 bytes of zeros, of ones, and ascending. */
static void test_crc32c_rfc3720(void **state)
{
	u8 buf[32];

	memset(buf, 0, sizeof(buf));
	assert_int_equal(~crc32c(~0u, buf, sizeof(buf)), 0x8A9136AAu);
	memset(buf, 0xFF, sizeof(buf));
	assert_int_equal(~crc32c(~0u, buf, sizeof(buf)), 0x62A8AB43u);
	for (unsigned i = 0; i < sizeof(buf); i++)
		buf[i] = (u8)i;
	assert_int_equal(~crc32c(~0u, buf, sizeof(buf)), 0x46DD794Eu);
}

/* CRC-16/ARC: seed 0, no inversion; and MODBUS, the same with seed ~0. */
static void test_crc16_vector(void **state)
{
	assert_int_equal(crc16(0, check, 9), 0xBB3D);
	assert_int_equal(crc16(0xFFFF, check, 9), 0x4B37);
}

/* CRC-32/MPEG-2: seed ~0, no inversion; and CKSUM's polynomial, seed 0. */
static void test_crc32_be_vector(void **state)
{
	assert_int_equal(crc32_be(~0u, check, 9), 0x0376E6E7u);
	assert_int_equal(crc32_be(0, check, 9), 0x89A1897Fu);
}

static void test_calls_can_be_chained(void **state)
{
	u8 buf[4099];

	for (unsigned i = 0; i < sizeof(buf); i++)
		buf[i] = (u8)(i * 131 + (i >> 8));
	for (size_t cut = 0; cut < 300; cut++) {
		size_t rest = sizeof(buf) - cut;

		assert_int_equal(crc32c(crc32c(7, buf, cut), buf + cut, rest),
				 crc32c(7, buf, sizeof(buf)));
		assert_int_equal(crc16(crc16(7, buf, cut), buf + cut, rest),
				 crc16(7, buf, sizeof(buf)));
		assert_int_equal(
			crc32_be(crc32_be(7, buf, cut), buf + cut, rest),
			crc32_be(7, buf, sizeof(buf)));
	}
}

static void test_nothing_leaves_the_register(void **state)
{
	assert_int_equal(crc32c(0x12345678, check, 0), 0x12345678);
	assert_int_equal(crc16(0x1234, check, 0), 0x1234);
	assert_int_equal(crc32_be(0x12345678, check, 0), 0x12345678);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_crc32c_vector),
		cmocka_unit_test(test_crc32c_rfc3720),
		cmocka_unit_test(test_crc16_vector),
		cmocka_unit_test(test_crc32_be_vector),
		cmocka_unit_test(test_calls_can_be_chained),
		cmocka_unit_test(test_nothing_leaves_the_register),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
