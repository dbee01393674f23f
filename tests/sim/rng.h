/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/sim/rng.h - the simulator's random numbers: one seed, one sequence
 *
 * splitmix64. Each user derives a state of its own from the run's seed and a
 * name, so that what one does does not shift the numbers of another.
 * Locks: none; a state belongs to one thread or to its owner's lock.
 */
#ifndef SLUICE_SIM_RNG_H
#define SLUICE_SIM_RNG_H

#include "lib/types.h"

struct rng {
	u64 s;
};

static inline u64 mix64(u64 z)
{
	z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
	z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
	return z ^ (z >> 31);
}

static inline u64 rng_next(struct rng *r)
{
	return mix64(r->s += 0x9E3779B97F4A7C15ull);
}

/* 0 to n-1; n > 0. */
static inline u32 rng_below(struct rng *r, u32 n)
{
	return (u32)((rng_next(r) >> 32) * n >> 32);
}

static inline bool rng_chance(struct rng *r, u32 percent)
{
	return rng_below(r, 100) < percent;
}

static inline struct rng rng_derive(u64 seed, u64 name)
{
	return (struct rng){ mix64(seed * 0x9E3779B97F4A7C15ull + mix64(name)) };
}

#endif
