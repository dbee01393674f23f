/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/sim_mutation.h - rules that a test build can break on purpose
 *
 * tests/sim proves that it would notice (tests/sim/mutants). Only the copy of
 * this layer that is built for that test has SLUICE_SIM_MUTATIONS; everywhere
 * else SIM_MUTATION() is the constant false and leaves no code.
 */
#ifndef SLUICE_FS_SIM_MUTATION_H
#define SLUICE_FS_SIM_MUTATION_H

enum sim_mutation {
	SIM_MUTATION_NONE,
	SIM_NO_FLUSH_BEFORE_COMMIT, /* log blocks need not be there before the commit block */
	SIM_NO_REVOKE,              /* freed metadata leaves no revoke record */
	SIM_METADATA_EARLY,         /* in-place writes before the commit block */
	SIM_CONVERT_EARLY,          /* extents count as written before their data is */
	SIM_REUSE_EARLY,            /* freed blocks are given out before the commit */
	SIM_FORGET_ORPHAN,          /* unlinked open files are on no list */
	SIM_NO_FLUSH_AT_TAIL,       /* log space is reused before in-place writes are durable */
	SIM_NO_FLUSH_IN_FSYNC,      /* fsync without a commit leaves the data in the cache */
	SIM_NO_COMMIT_FUA,          /* the commit block may still be in the device's cache */
	SIM_NO_SIZE_AT_PUNCH,       /* the size on disk waits for data that is dropped */
	SIM_NO_DATA_FLUSH_BEFORE_COMMIT, /* ... of an external journal's volume */
	SIM_MOVE_BEFORE_COMMIT,     /* a file's data is copied to what a donor still has */
	SIM_NO_COMMIT_AFTER_MOVE,   /* a donor is written to where a file may still be */
	SIM_MUTATION_NR,
};

#ifdef SLUICE_SIM_MUTATIONS
extern enum sim_mutation sim_mutation; /* [const while mounted] */
#define SIM_MUTATION(m) (sim_mutation == (m))
#else
#define SIM_MUTATION(m) 0
#endif

#endif
