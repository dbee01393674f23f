/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/sim/mutants.h - the rules that sim-mutants breaks, one at a time
 *
 * The switch itself is fs/sim_mutation.h. In the ordinary simulator there is
 * none of it and sim_mutations_built is false.
 */
#ifndef SLUICE_SIM_MUTANTS_H
#define SLUICE_SIM_MUTANTS_H

#include "fs/sim_mutation.h"
#include "tests/sim/workload.h"

extern const bool sim_mutations_built;
extern enum sim_mutation sim_mutation;
extern const char *const sim_mutation_name[SIM_MUTATION_NR];
/* The kind of stream that should find it. */
extern const enum sim_profile sim_mutation_profile[SIM_MUTATION_NR];

#endif
