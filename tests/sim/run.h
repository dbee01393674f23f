/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/sim/run.h - runs a stream and judges every power cut it looks at
 *
 * Locks: none for the caller: one run per process at a time.
 */
#ifndef SLUICE_SIM_RUN_H
#define SLUICE_SIM_RUN_H

#include "tests/sim/resource.h"
#include "tests/sim/workload.h"

/* Figures; added to by several processes. */
struct run_stats {
	_Atomic u64 seeds, ops, events, points, images, fscks, recoveries, nested, faults,
		failures;
	/* of a counting run: calls of what was armed, and what the device did */
	u32 resources[RES_NR], transfers[SIM_FAULT_NR];
};

struct run_config {
	const char *dir;    /* scratch files */
	u32 points;         /* crash points per stream, if the stream says nothing */
	bool all_points;    /* every event */
	bool verbose;
	bool counting;      /* fill run_stats.resources and .transfers */
	bool kernel;        /* let the kernel mount images too (root, loop devices) */
	s64 only_point;     /* replay: this event alone; -1: all */
	s64 only_cut;       /* with only_point: enum sim_cut, + SIM_CUT_NR if torn */
	struct run_stats *stats;
};

/* mke2fs's work for sim_mkfs[i], once, into dir. 0 or -errno. */
int run_make_base(const struct run_config *cfg, u32 i);
/* True: nothing wrong. Otherwise stderr says what, with the crash point. */
bool run_stream(const struct sim_stream *s, const struct run_config *cfg);

#endif
