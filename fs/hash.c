/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/hash.c - hashes of names in indexed directories
 *
 * Three hashes, each in a variant that takes bytes of a name as signed and
 * one that takes them as unsigned; the two differ for bytes >= 0x80. Which one
 * a volume uses is in its superblock (s_def_hash_version, s_flags), which one
 * a directory uses in the root of its index.
 *
 * The name is cut into chunks of 32 bytes (half MD4) or 16 (TEA); a chunk is
 * made into words, first byte highest, and what is left over is filled with
 * the number of bytes that were left when the chunk began.
 *
 * Pure functions; no locks.
 * Source: ext4-format brief 7.5; Documentation/filesystems/ext4/directory.rst;
 * RFC 1320 for MD4 (whose rounds are run here with 8 of their 16 steps);
 * Wheeler and Needham, "TEA, a Tiny Encryption Algorithm".
 */
#include "fs/ext4.h"

/* No name hashes to this: it stands for the end of the directory. */
#define HASH_EOF 0xFFFFFFFEu

static s32 name_byte(const char *p, bool is_unsigned)
{
	return is_unsigned ? (s32)(u8)*p : (s32)(signed char)*p;
}

static u32 word_of(const char *p, bool is_unsigned)
{
	return ((u32)name_byte(p, is_unsigned) << 24) +
	       ((u32)name_byte(p + 1, is_unsigned) << 16) +
	       ((u32)name_byte(p + 2, is_unsigned) << 8) +
	       (u32)name_byte(p + 3, is_unsigned);
}

/* The first 4 * nr bytes of the len that are left, as nr words. */
static void name_words(const char *p, u32 len, u32 *words, u32 nr,
		       bool is_unsigned)
{
	const u32 pad = (len & 0xFF) * 0x01010101u;
	u32 take = min_of(len, nr * 4);
	u32 word = pad, at = 0;

	for (; at < take / 4; at++)
		words[at] = word_of(p + at * 4, is_unsigned);
	for (u32 i = at * 4; i < take; i++)
		word = (word << 8) + (u32)name_byte(p + i, is_unsigned);
	if (at < nr)
		words[at++] = word;
	while (at < nr)
		words[at++] = pad;
}

static u32 rol32(u32 x, u32 n)
{
	return x << n | x >> (32 - n);
}

/* x ? y : z, bit by bit; the majority; the parity. */
static u32 md4_mix(u32 round, u32 x, u32 y, u32 z)
{
	switch (round) {
	case 0:
		return (x & y) | (~x & z);
	case 1:
		return (x & y) | (z & (x | y));
	default:
		return x ^ y ^ z;
	}
}

/*
 * Four steps of a round. Inline, and the round a constant: then all of s is in
 * registers, and the tables and the switch are gone, which makes the hash of a
 * name three times as fast.
 */
static inline __attribute__((always_inline)) void
md4_steps(u32 s[4], u32 round, u32 w0, u32 w1, u32 w2, u32 w3)
{
	static const u32 constant[3] = { 0, 0x5A827999, 0x6ED9EBA1 };
	static const u8 shift[3][4] = {
		{ 3, 7, 11, 19 },
		{ 3, 5, 9, 13 },
		{ 3, 9, 11, 15 },
	};
	const u32 k = constant[round];
	const u8 *n = shift[round];

	s[0] = rol32(s[0] + md4_mix(round, s[1], s[2], s[3]) + w0 + k, n[0]);
	s[3] = rol32(s[3] + md4_mix(round, s[0], s[1], s[2]) + w1 + k, n[1]);
	s[2] = rol32(s[2] + md4_mix(round, s[3], s[0], s[1]) + w2 + k, n[2]);
	s[1] = rol32(s[1] + md4_mix(round, s[2], s[3], s[0]) + w3 + k, n[3]);
}

static void half_md4(u32 state[4], const u32 w[8])
{
	u32 s[4] = { state[0], state[1], state[2], state[3] };

	md4_steps(s, 0, w[0], w[1], w[2], w[3]);
	md4_steps(s, 0, w[4], w[5], w[6], w[7]);
	md4_steps(s, 1, w[1], w[3], w[5], w[7]);
	md4_steps(s, 1, w[0], w[2], w[4], w[6]);
	md4_steps(s, 2, w[3], w[7], w[2], w[6]);
	md4_steps(s, 2, w[1], w[5], w[0], w[4]);
	for (u32 i = 0; i < 4; i++)
		state[i] += s[i];
}

static void tea(u32 state[4], const u32 key[4])
{
	u32 sum = 0, x = state[0], y = state[1];

	for (u32 i = 0; i < 16; i++) {
		sum += 0x9E3779B9;
		x += ((y << 4) + key[0]) ^ (y + sum) ^ ((y >> 5) + key[1]);
		y += ((x << 4) + key[2]) ^ (x + sum) ^ ((x >> 5) + key[3]);
	}
	state[0] += x;
	state[1] += y;
}

static u32 legacy(const char *name, u32 len, bool is_unsigned)
{
	u32 h0 = 0x12A3FE2D, h1 = 0x37ABE8F9;

	for (u32 i = 0; i < len; i++) {
		u32 byte = (u32)name_byte(name + i, is_unsigned);
		u32 h = h1 + (h0 ^ (byte * 7152373u));

		if (h & 0x80000000u)
			h -= 0x7FFFFFFFu;
		h1 = h0;
		h0 = h;
	}
	return h0 << 1;
}

int ext4_dirhash(const char *name, u32 len, u32 version, const u32 *seed,
		 struct ext4_dirhash *out)
{
	u32 state[4] = { 0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476 };
	bool is_unsigned = version >= DX_HASH_LEGACY_UNSIGNED;
	u32 words[8];

	if (seed && (seed[0] | seed[1] | seed[2] | seed[3]))
		for (u32 i = 0; i < 4; i++)
			state[i] = seed[i];

	switch (version) {
	case DX_HASH_LEGACY:
	case DX_HASH_LEGACY_UNSIGNED:
		out->major = legacy(name, len, is_unsigned);
		out->minor = 0;
		break;
	case DX_HASH_HALF_MD4:
	case DX_HASH_HALF_MD4_UNSIGNED:
		for (u32 at = 0; at < len; at += 32) {
			name_words(name + at, len - at, words, 8, is_unsigned);
			half_md4(state, words);
		}
		out->major = state[1];
		out->minor = state[2];
		break;
	case DX_HASH_TEA:
	case DX_HASH_TEA_UNSIGNED:
		for (u32 at = 0; at < len; at += 16) {
			name_words(name + at, len - at, words, 4, is_unsigned);
			tea(state, words);
		}
		out->major = state[0];
		out->minor = state[1];
		break;
	default:
		return -EINVAL;
	}
	out->major &= ~1u;
	if (out->major == HASH_EOF)
		out->major = HASH_EOF - 2;
	return 0;
}
