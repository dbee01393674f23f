/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/shrinker.h - who can free memory of a budget, and asking them
 *
 * Each cache registers what it can free, of one kind (enum budget_kind), zone by
 * zone. A pass asks the shrinkers of a zone: first those that are to go first, for
 * all that is needed, then each for its kind's share of the rest.
 *
 * Locks: an unranked rwsem of the budget, shared around passes, exclusive to
 * (un)register. Threads: any.
 */
#ifndef SLUICE_CACHE_SHRINKER_H
#define SLUICE_CACHE_SHRINKER_H

#include "cache/budget.h"

struct shrink_control {
	u32 zone;     /* whose memory */
	u64 bytes;    /* about so much */
	u64 scanned;  /* added to: objects looked at */
	u64 rotated;  /* added to: of these, got a second chance */
};

struct shrinker {
	const char *name;
	enum budget_kind kind; /* what it frees: scanned in proportion to use */
	/*
	 * Frees about sc->bytes of a zone; returns what it freed. May sleep, takes no
	 * lock on entry; several threads may call it at once. Does no I/O.
	 */
	u64 (*scan)(struct shrinker *s, struct shrink_control *sc);
	/* Objects on the zone's LRU, for statistics. May be NULL: none. */
	u64 (*count)(const struct shrinker *s, u32 zone);
	/* Gives memory that was freed in pieces back to the system. No lock held. May be
	 * NULL: it is malloc's, or goes by itself. */
	void (*trim)(struct shrinker *s);
	void *priv;
	/* Asked for all that is needed, in all zones, before the others are. */
	bool first;
	struct shrinker *next; /* [shrinkers lock] */
};

void budget_register(struct budget *b, struct shrinker *s);
void budget_unregister(struct budget *b, struct shrinker *s); /* waits for scans */

#endif
