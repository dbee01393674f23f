/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * src/stats.h - the daemon's counters as JSON
 *
 * Everything that counts says so in lines "name value" (sl_stats() and the like);
 * that text is the one place where a figure is added. Pure functions.
 */
#ifndef SLUICE_SRC_STATS_H
#define SLUICE_SRC_STATS_H

#include "lib/types.h"
#include <sys/types.h>

/*
 * One object. A line "name value" is a member; of a dotted name, "zone.0.inodes 5",
 * what is before the last dot names objects in objects, which last as long as
 * the lines that follow begin with the same. Decimal integers are numbers; pairs of a
 * word and an integer, "a 1 b 2" or none at all, an object; other values strings.
 * What is no line to its end, or begins with a space, is left out.
 *
 * Bytes written to buf, with a final newline and no NUL, or -E2BIG: more than len.
 */
ssize_t __must_check stats_json(const char *text, size_t text_len, char *buf,
				size_t len);

#endif
