/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lib/types.h - integers, disk byte orders, and the small macros used everywhere
 *
 * Disk integers are one-member structs, so that arithmetic on raw disk order
 * does not compile. Locks: none.
 */
#ifndef SLUICE_LIB_TYPES_H
#define SLUICE_LIB_TYPES_H

#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t s32;
typedef int64_t s64;

/* ext4 is little endian, its journal big endian. */
typedef struct { u16 raw; } le16;
typedef struct { u32 raw; } le32;
typedef struct { u64 raw; } le64;
typedef struct { u16 raw; } be16;
typedef struct { u32 raw; } be32;
typedef struct { u64 raw; } be64;

static inline u16 le16_to_cpu(le16 x) { return le16toh(x.raw); }
static inline u32 le32_to_cpu(le32 x) { return le32toh(x.raw); }
static inline u64 le64_to_cpu(le64 x) { return le64toh(x.raw); }
static inline u16 be16_to_cpu(be16 x) { return be16toh(x.raw); }
static inline u32 be32_to_cpu(be32 x) { return be32toh(x.raw); }
static inline u64 be64_to_cpu(be64 x) { return be64toh(x.raw); }
static inline le16 cpu_to_le16(u16 x) { return (le16){ htole16(x) }; }
static inline le32 cpu_to_le32(u32 x) { return (le32){ htole32(x) }; }
static inline le64 cpu_to_le64(u64 x) { return (le64){ htole64(x) }; }
static inline be16 cpu_to_be16(u16 x) { return (be16){ htobe16(x) }; }
static inline be32 cpu_to_be32(u32 x) { return (be32){ htobe32(x) }; }
static inline be64 cpu_to_be64(u64 x) { return (be64){ htobe64(x) }; }

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define DIV_ROUND_UP(n, d) (((n) + (d) - 1) / (d))
/* Powers of two only. */
#define ALIGN_UP(x, a) (((x) + ((__typeof__(x))(a) - 1)) & ~((__typeof__(x))(a) - 1))
#define ALIGN_DOWN(x, a) ((x) & ~((__typeof__(x))(a) - 1))

#define min_of(a, b)                                                           \
	({                                                                     \
		__typeof__(a) min_a_ = (a);                                    \
		__typeof__(b) min_b_ = (b);                                    \
		min_a_ < min_b_ ? min_a_ : min_b_;                             \
	})
#define max_of(a, b)                                                           \
	({                                                                     \
		__typeof__(a) max_a_ = (a);                                    \
		__typeof__(b) max_b_ = (b);                                    \
		max_a_ > max_b_ ? max_a_ : max_b_;                             \
	})

/* liburcu defines caa_container_of; ours needs no include. */
#define container_of_type(ptr, type, member)                                   \
	((type *)((char *)(ptr) - offsetof(type, member)))

#define __must_check __attribute__((warn_unused_result))
#define __printf_like(f, a) __attribute__((format(printf, f, a)))
#define __cacheline_aligned __attribute__((aligned(64)))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* errno values the format code returns; the names say what they mean here. */
#define EFSCORRUPTED EUCLEAN /* structure on disk is inconsistent */
#define EFSBADCRC EBADMSG    /* checksum on disk is wrong */

/*
 * Positions and sizes of the cache and the file system. They are plain
 * integers; the names keep the kinds apart. A block is a file-system block.
 */
typedef u32 lblk_t;  /* block within a file; 0xFFFFFFFF is not usable */
typedef u64 pblk_t;  /* block of the volume */
typedef u32 group_t; /* block group number */
typedef u32 ino_nr;  /* inode number of the volume (ext4: 32 bits) */

#define LBLK_MAX ((lblk_t)0xFFFFFFFEu)

#endif
