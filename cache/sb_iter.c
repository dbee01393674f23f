/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/sb_iter.c - walks over the inodes of a volume that are in memory
 *
 * The trees. A walk goes through the slots in the order of their numbers, by
 * the bits of a tag if one was asked for. In one RCU section it references up to
 * 32 inodes; it moves behind a slot before it looks at the inode there. So no
 * number comes twice, and nothing but the inodes themselves is written to.
 *
 * The lists, as file systems without an index of their own have them. An inode
 * is put at the head of a list when it is entered, of its CPU or of the volume,
 * and comes off when it leaves its slot. A walk keeps a reference on the inode
 * it stands at, so that this stays on its list while the lock is dropped, and
 * drops it when it has the next one. A number could come twice, when its inode
 * leaves a list behind the walk and is read anew to one before it: each walk
 * has a number, an inode bears that of the last walk begun before it was
 * entered, and a walk passes by those that came later.
 *
 * Locks:   i_lock -> list lock. A walk that comes from the list drops its lock
 *          and looks again under i_lock (RCU keeps the inode). Lists are
 *          also walked under RCU alone, in the unsafe walk.
 * Alive:   see sb_iter.h
 */
#include "cache/sb_iter.h"

#include "cache/icache_internal.h"
#include "lib/thread.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define ITER_BATCH 32
/* Slots looked at in one RCU section; about. */
#define ITER_STEPS 1024u

struct sb_list {
	struct spinlock lock;      /* RANK_CACHE_LIST */
	struct cds_list_head list; /* [rcu, write lock] newest first */
} __cacheline_aligned;

struct sb_iter_ops {
	const char *name;
	/* NULL: there is no list. del: i_lock held. */
	void (*add)(struct sb_iter *it, struct inode *inode);
	void (*del)(struct sb_iter *it, struct inode *inode);
	/* What fn returned last. */
	int (*iter_inodes)(struct super_block *sb, ino_iter_fn fn, void *priv,
			   u32 flags);
	int (*iter_inodes_unsafe)(struct super_block *sb, ino_iter_fn fn,
				  void *priv);
};

struct sb_iter {
	const struct sb_iter_ops *ops; /* [const] */
	_Atomic u64 nr_walks;          /* [atomic] walks of lists begun */
	u32 nr_lists;                  /* [const] */
	struct sb_list lists[];
};

/* ---- the trees ---- */

static enum inode_tag tag_of(u32 flags)
{
	if (flags & INO_ITER_F_DIRTY)
		return INODE_TAG_DIRTY;
	if (flags & INO_ITER_F_DONTCACHE)
		return INODE_TAG_DONTCACHE;
	if (flags & INO_ITER_F_RECLAIMABLE)
		return INODE_TAG_RECLAIMABLE;
	return INODE_TAG_NONE;
}

/* What a reference that comes and goes looks at: nothing is believed of it yet. */
static void prefetch_inode(const struct inode *inode)
{
	__builtin_prefetch(&inode->i_lock, 1);
	__builtin_prefetch(&inode->i_nlookup, 1);
	__builtin_prefetch(&inode->i_nlink);
}

/*
 * Moves *ino behind the slots it has looked at. The memory of
 * several inodes is asked for before the first is looked at: they lie anywhere,
 * and to wait for one after the other would be most of a walk.
 */
static u32 tree_grab_batch(struct ic_tree *t, u64 *ino, u32 flags,
			   struct inode *found[ITER_BATCH])
{
	enum inode_tag tag = tag_of(flags);
	u32 steps = ITER_STEPS;
	u64 v[ITER_BATCH];
	u32 nr = 0;

	rcu_read_lock();
	while (nr < ITER_BATCH && *ino <= t->max_ino && steps) {
		u32 n = ic_tree_next_many(t, ino, tag, v, ITER_BATCH - nr, &steps);

		for (u32 i = 0; i < n; i++)
			if (!is_shadow(v[i]))
				prefetch_inode(slot_inode(v[i]));
		for (u32 i = 0; i < n; i++)
			if (!is_shadow(v[i]) &&
			    inode_grab_for_walk(slot_inode(v[i]), flags))
				found[nr++] = slot_inode(v[i]);
	}
	rcu_read_unlock();
	return nr;
}

static int tree_iter(struct super_block *sb, ino_iter_fn fn, void *priv, u32 flags)
{
	struct ic_tree *t = icache_tree(sb);
	struct inode *found[ITER_BATCH];
	int ret = INO_ITER_RET_CONT;
	u64 ino = 1;

	while (!ret && ino <= t->max_ino) {
		u32 nr = tree_grab_batch(t, &ino, flags, found);

		for (u32 i = 0; i < nr; i++) {
			if (!ret)
				ret = fn(found[i], priv);
			inode_put(found[i]);
		}
	}
	return ret;
}

static int tree_iter_unsafe(struct super_block *sb, ino_iter_fn fn, void *priv)
{
	struct ic_tree *t = icache_tree(sb);
	int ret = INO_ITER_RET_CONT;
	u64 ino = 1;

	while (!ret && ino <= t->max_ino) {
		u32 steps = ITER_STEPS;
		u64 v;

		rcu_read_lock();
		while (!ret && ic_tree_next(t, &ino, INODE_TAG_NONE, &v, &steps)) {
			ino++;
			if (v && !is_shadow(v))
				ret = fn(slot_inode(v), priv);
		}
		rcu_read_unlock();
	}
	return ret;
}

/* ---- the lists ---- */

static void list_add(struct sb_iter *it, struct inode *inode)
{
	struct sb_list *l;

	inode->i_sb_which = thread_cpu() % it->nr_lists;
	l = &it->lists[inode->i_sb_which];
	spin_lock(&l->lock);
	inode->i_sb_born = atomic_load(&it->nr_walks);
	cds_list_add_rcu(&inode->i_sb_list, &l->list);
	spin_unlock(&l->lock);
}

static void list_del(struct sb_iter *it, struct inode *inode)
{
	struct sb_list *l = &it->lists[inode->i_sb_which];

	spin_lock(&l->lock);
	cds_list_del_rcu(&inode->i_sb_list);
	spin_unlock(&l->lock);
}

/*
 * The inode after `prev` (which is referenced), or the first; referenced. NULL
 * at the end. One that fits when seen under the list lock and no longer under
 * i_lock was changed in between: the look is repeated from where it began.
 */
static struct inode *list_next(struct sb_list *l, struct inode *prev, u64 walk,
			       u32 flags)
{
	for (;;) {
		struct cds_list_head *pos;
		struct inode *inode = NULL;
		bool ok;

		rcu_read_lock();
		spin_lock(&l->lock);
		pos = prev ? prev->i_sb_list.next : l->list.next;
		for (; pos != &l->list; pos = pos->next) {
			inode = cds_list_entry(pos, struct inode, i_sb_list);
			if (inode->i_sb_born < walk &&
			    inode_fits_walk(inode, flags))
				break;
		}
		spin_unlock(&l->lock);
		ok = pos == &l->list || inode_grab_for_walk(inode, flags);
		rcu_read_unlock();
		if (ok)
			return pos == &l->list ? NULL : inode;
	}
}

static int list_iter_one(struct sb_list *l, ino_iter_fn fn, void *priv, u64 walk,
			 u32 flags)
{
	struct inode *inode = NULL, *prev = NULL;
	int ret = INO_ITER_RET_CONT;

	while (!ret && (inode = list_next(l, prev, walk, flags))) {
		inode_put(prev);
		ret = fn(inode, priv);
		prev = inode;
	}
	inode_put(prev);
	return ret;
}

static int list_iter(struct super_block *sb, ino_iter_fn fn, void *priv, u32 flags)
{
	struct sb_iter *it = sb->s_iter;
	u64 walk = atomic_fetch_add(&it->nr_walks, 1) + 1;
	int ret = INO_ITER_RET_CONT;

	for (u32 i = 0; !ret && i < it->nr_lists; i++)
		ret = list_iter_one(&it->lists[i], fn, priv, walk, flags);
	return ret;
}

static int list_iter_unsafe(struct super_block *sb, ino_iter_fn fn, void *priv)
{
	struct sb_iter *it = sb->s_iter;
	u64 walk = atomic_fetch_add(&it->nr_walks, 1) + 1;
	int ret = INO_ITER_RET_CONT;

	for (u32 i = 0; !ret && i < it->nr_lists; i++) {
		struct inode *inode;

		rcu_read_lock();
		cds_list_for_each_entry_rcu(inode, &it->lists[i].list, i_sb_list) {
			if (inode->i_sb_born < walk)
				ret = fn(inode, priv);
			if (ret)
				break;
		}
		rcu_read_unlock();
	}
	return ret;
}

/* ---- choice ---- */

static const struct sb_iter_ops iter_ops[] = {
	[INODE_ITER_ICACHE] = {
		.name = "icache",
		.iter_inodes = tree_iter,
		.iter_inodes_unsafe = tree_iter_unsafe,
	},
	[INODE_ITER_PERCPU] = {
		.name = "percpu",
		.add = list_add,
		.del = list_del,
		.iter_inodes = list_iter,
		.iter_inodes_unsafe = list_iter_unsafe,
	},
	[INODE_ITER_GLOBAL] = {
		.name = "global",
		.add = list_add,
		.del = list_del,
		.iter_inodes = list_iter,
		.iter_inodes_unsafe = list_iter_unsafe,
	},
};

int super_iter_inodes(struct super_block *sb, ino_iter_fn fn, void *priv, u32 flags)
{
	int ret;

	thread_might_block();
	ret = sb->s_iter->ops->iter_inodes(sb, fn, priv, flags);
	return ret == INO_ITER_RET_ABORT ? 0 : ret;
}

void super_iter_inodes_unsafe(struct super_block *sb, ino_iter_fn fn, void *priv)
{
	(void)sb->s_iter->ops->iter_inodes_unsafe(sb, fn, priv);
}

const char *super_iter_name(const struct super_block *sb)
{
	return sb->s_iter->ops->name;
}

void sb_iter_add(struct inode *inode)
{
	struct sb_iter *it = inode->i_sb->s_iter;

	if (it->ops->add)
		it->ops->add(it, inode);
}

void sb_iter_del_locked(struct inode *inode)
{
	struct sb_iter *it = inode->i_sb->s_iter;

	assert_spin_held(&inode->i_lock);
	if (it->ops->del)
		it->ops->del(it, inode);
}

static u32 nr_lists_of(enum inode_iter which)
{
	switch (which) {
	case INODE_ITER_PERCPU:
		return thread_nr_cpus();
	case INODE_ITER_GLOBAL:
		return 1;
	default:
		return 0;
	}
}

int sb_iter_create(struct super_block *sb)
{
	u32 nr = nr_lists_of(sb->s_inode_iter);
	size_t size = sizeof(struct sb_iter) + nr * sizeof(struct sb_list);
	struct sb_iter *it;

	size = ALIGN_UP(size, _Alignof(struct sb_iter));
	it = aligned_alloc(_Alignof(struct sb_iter), size);
	if (!it)
		return -ENOMEM;
	memset(it, 0, size);
	it->ops = &iter_ops[sb->s_inode_iter];
	it->nr_lists = nr;
	for (u32 i = 0; i < nr; i++) {
		spin_init(&it->lists[i].lock, RANK_CACHE_LIST);
		CDS_INIT_LIST_HEAD(&it->lists[i].list);
	}
	sb->s_iter = it;
	return 0;
}

void sb_iter_destroy(struct super_block *sb)
{
	struct sb_iter *it = sb->s_iter;

	for (u32 i = 0; i < it->nr_lists; i++)
		spin_destroy(&it->lists[i].lock);
	free(it);
	sb->s_iter = NULL;
}
