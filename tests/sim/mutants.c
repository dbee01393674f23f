/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/sim/mutants.c - names of the mutations (see mutants.h)
 *
 * Locks: none.
 */
#include "tests/sim/mutants.h"

#ifdef SLUICE_SIM_MUTATIONS
const bool sim_mutations_built = true;
#else
const bool sim_mutations_built;
#endif

enum sim_mutation sim_mutation;

const char *const sim_mutation_name[SIM_MUTATION_NR] = {
	[SIM_MUTATION_NONE] = "none",
	[SIM_NO_FLUSH_BEFORE_COMMIT] = "no-flush-before-commit",
	[SIM_NO_REVOKE] = "no-revoke",
	[SIM_METADATA_EARLY] = "metadata-in-place-early",
	[SIM_CONVERT_EARLY] = "convert-before-data",
	[SIM_REUSE_EARLY] = "reuse-before-commit",
	[SIM_FORGET_ORPHAN] = "forget-orphan",
	[SIM_NO_FLUSH_AT_TAIL] = "no-flush-before-tail",
	[SIM_NO_FLUSH_IN_FSYNC] = "no-flush-in-fsync",
	[SIM_NO_COMMIT_FUA] = "commit-block-not-forced",
	[SIM_NO_SIZE_AT_PUNCH] = "punch-forgets-size",
	[SIM_NO_DATA_FLUSH_BEFORE_COMMIT] = "no-data-flush-before-commit",
	[SIM_MOVE_BEFORE_COMMIT] = "move-before-commit",
	[SIM_NO_COMMIT_AFTER_MOVE] = "no-commit-after-move",
};

const enum sim_profile sim_mutation_profile[SIM_MUTATION_NR] = {
	[SIM_NO_REVOKE] = SIM_PROFILE_CHURN,
	[SIM_REUSE_EARLY] = SIM_PROFILE_CHURN,
	[SIM_CONVERT_EARLY] = SIM_PROFILE_THREADS,
	[SIM_NO_FLUSH_IN_FSYNC] = SIM_PROFILE_DATA,
	[SIM_NO_SIZE_AT_PUNCH] = SIM_PROFILE_DATA,
	[SIM_MOVE_BEFORE_COMMIT] = SIM_PROFILE_DATA,
	[SIM_NO_COMMIT_AFTER_MOVE] = SIM_PROFILE_DATA,
};
