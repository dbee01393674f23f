/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lib/crc.h - the checksums of ext4 and jbd2
 *
 * None inverts its result, none inverts its seed: what is given is the
 * register, what is returned is the register, so that calls can be chained.
 * crc32c(~0u, "123456789", 9) == 0x1CF96D7C. Pure functions.
 */
#ifndef SLUICE_LIB_CRC_H
#define SLUICE_LIB_CRC_H

#include "lib/types.h"

/* CRC32C (Castagnoli, reflected); ISA-L's crc32_iscsi(). */
u32 crc32c(u32 crc, const void *buf, size_t len);
/* CRC-16 (reflected 0x8005), for gdt_csum; ISA-L has no reflected crc16. */
u16 crc16(u16 crc, const void *buf, size_t len);
/* CRC32, big-endian bit order (0x04C11DB7), for v1 journal checksums. */
u32 crc32_be(u32 crc, const void *buf, size_t len);

#endif
