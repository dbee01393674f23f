/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/xattr_known.c - a table of what was read or made last, by the hash of its content
 *
 * For values in inodes of their own (xattr_ea.c) and blocks of attributes
 * (xattr_share.c), so that equal ones can be one. Sets of a few ways, of a fixed size: what
 * is new takes the place of what was entered longest ago. Nothing is kept alive by it, and
 * two of the same hash need not be equal: who asks has to look.
 *
 * Locks: that of a set, a leaf
 */
#include "fs/xattr_internal.h"

#include <stdlib.h>

#define SETS 256u

struct known {
	u32 hash;
	u64 nr; /* 0: none */
};

struct known_set {
	struct spinlock lock; /* RANK_CACHE_LIST */
	u32 oldest;	      /* [lock] is replaced next */
	struct known way[XATTR_KNOWN_WAYS]; /* [lock] */
};

struct xattr_known {
	struct known_set set[SETS];
};

struct xattr_known *xattr_known_create(void)
{
	struct xattr_known *k = calloc(1, sizeof(*k));

	for (u32 i = 0; k && i < SETS; i++)
		spin_init(&k->set[i].lock, RANK_CACHE_LIST);
	return k;
}

void xattr_known_free(struct xattr_known *k)
{
	for (u32 i = 0; k && i < SETS; i++)
		spin_destroy(&k->set[i].lock);
	free(k);
}

/* [lock] NULL: it is not there. */
static struct known *find(struct known_set *s, u32 hash, u64 nr)
{
	for (u32 i = 0; i < XATTR_KNOWN_WAYS; i++)
		if (s->way[i].nr == nr && s->way[i].hash == hash)
			return &s->way[i];
	return NULL;
}

void xattr_known_add(struct xattr_known *k, u32 hash, u64 nr)
{
	struct known_set *s;

	if (!k)
		return;
	s = &k->set[hash % SETS];
	spin_lock(&s->lock);
	if (!find(s, hash, nr)) {
		s->way[s->oldest] = (struct known){ .hash = hash, .nr = nr };
		s->oldest = (s->oldest + 1) % XATTR_KNOWN_WAYS;
	}
	spin_unlock(&s->lock);
}

void xattr_known_del(struct xattr_known *k, u32 hash, u64 nr)
{
	struct known_set *s;
	struct known *way;

	if (!k)
		return;
	s = &k->set[hash % SETS];
	spin_lock(&s->lock);
	way = find(s, hash, nr);
	if (way)
		way->nr = 0;
	spin_unlock(&s->lock);
}

bool xattr_known_has(struct xattr_known *k, u32 hash, u64 nr)
{
	struct known_set *s;
	bool has;

	if (!k)
		return false;
	s = &k->set[hash % SETS];
	spin_lock(&s->lock);
	has = find(s, hash, nr) != NULL;
	spin_unlock(&s->lock);
	return has;
}

u64 xattr_known_nth(struct xattr_known *k, u32 hash, u32 n)
{
	struct known_set *s;
	u64 nr = 0;

	if (!k)
		return 0;
	s = &k->set[hash % SETS];
	spin_lock(&s->lock);
	for (u32 i = 0; i < XATTR_KNOWN_WAYS && !nr; i++)
		if (s->way[i].nr && s->way[i].hash == hash && !n--)
			nr = s->way[i].nr;
	spin_unlock(&s->lock);
	return nr;
}
