/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lib/counter.h - counters that many CPUs change and few read
 *
 * Each CPU adds to its own cache line; when its share passes the batch it is
 * folded into the shared total. counter_sum() is exact while nobody adds.
 * A part of a counter counts for itself, and what it folds counts in the whole, too.
 * A counter_set is many counters for statistics, which only grow: an addition
 * takes no lock and the counters of one CPU lie side by side.
 */
#ifndef SLUICE_LIB_COUNTER_H
#define SLUICE_LIB_COUNTER_H

#include "lib/types.h"

struct counter;

/* Batch: the most a CPU keeps to itself (either sign). NULL: no memory. */
struct counter *counter_new(s64 initial, s64 batch);
/* A part of `whole`, which must live longer. NULL: no memory. Neither is for
 * counter_sub_unless_below(). */
struct counter *counter_new_part(struct counter *whole, s64 batch);
void counter_free(struct counter *c);
/* Another batch, from now on; for all that others do meanwhile, too. */
void counter_set_batch(struct counter *c, s64 batch);
void counter_add(struct counter *c, s64 delta);
s64 counter_read_fast(const struct counter *c); /* off by CPUs * batch at most */
/* Of a whole: without what its parts have not folded. */
s64 counter_sum(const struct counter *c);
s64 counter_unfolded(const struct counter *c); /* what the CPUs keep to themselves */
/*
 * Atomically: if the value minus `amount` stays >= `floor`, subtracts amount
 * and returns true, else false. Exact near the floor: folds all shares first.
 */
bool counter_sub_unless_below(struct counter *c, s64 amount, s64 floor);

struct counter_set;

/* nr counters, all 0. NULL: no memory. */
struct counter_set *counter_set_new(unsigned nr);
void counter_set_free(struct counter_set *set);
void counter_set_add(struct counter_set *set, unsigned i, u64 n);
/* All of them, into nr numbers. What is added meanwhile may be in it or not. */
void counter_set_read(const struct counter_set *set, u64 *sums);

#endif
