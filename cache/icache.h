/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache/icache.h - inode cache: lookup by number, references, eviction
 *
 * Inodes sit in radix trees of constant height (icache_tree.c), whose locks
 * cover 4096 inode numbers each. Lookups run under RCU. A slot holds nothing,
 * an inode, or a shadow: the kernel's lookup count of a linked inode that was
 * evicted (bit 0 set, count above it), so that memory follows our LRU and not
 * the kernel's.
 *
 * i_lock protects the whole cache state of one inode: i_state, i_count 0<->1,
 * tree slot, LRU and dirty-list membership; i_nlookup grows under a reference,
 * and shrinks under it. Other cache locks nest inside it and
 * are leaves. The LRU scan holds the list lock and only trylocks i_lock.
 *
 * States: I_NEW (being read; others wait) -> usable -> I_FREEING (being torn
 * down, stays in its slot until done; lookups wait and look again).
 *
 * An inode is deleted on disk when nlink, i_nlookup and i_count are all 0:
 * decided in one place, under i_lock, by whoever brings the last of them down.
 *
 * Alive: i_count > 0, or an RCU read-side section plus a recheck.
 * Never: I/O or a call through s_op with i_lock held.
 */
#ifndef SLUICE_CACHE_ICACHE_H
#define SLUICE_CACHE_ICACHE_H

#include "cache/mapping.h"
#include "cache/super.h"
#include "lib/lock.h"
#include "lib/rcu.h"
#include <stdatomic.h>
#include <sys/stat.h>
#include <time.h>

enum inode_state {
	I_NEW = 1u << 0,
	I_FREEING = 1u << 1,
	I_BAD = 1u << 2,          /* could not be read; removed from its slot */
	I_DIRTY_INODE = 1u << 3,  /* attributes in memory newer than in the journal */
	I_DIRTY_PAGES = 1u << 4,  /* mapping has dirty blocks */
	I_REFERENCED = 1u << 5,   /* second chance on the LRU */
	I_LRU = 1u << 6,          /* on an LRU list */
	I_ORPHAN = 1u << 7,       /* on the on-disk orphan list or file */
	I_SYNC = 1u << 8,         /* being written out by the flusher */
	I_DONTCACHE = 1u << 9,    /* evict at last put, if not looked up again */
	I_UNHASHED = 1u << 10,    /* no longer in its slot; waits to be freed */
	I_WORKINGSET = 1u << 11,  /* had a second chance, now or before it was
				     a shadow */
	/* Has that tag in its tree; in the order of enum inode_tag. */
	I_TAG_DIRTY = 1u << 12,
	I_TAG_RECLAIMABLE = 1u << 13,
	I_TAG_DONTCACHE = 1u << 14,
};
#define I_TAGGED (I_TAG_DIRTY | I_TAG_RECLAIMABLE | I_TAG_DONTCACHE)
#define I_DIRTY (I_DIRTY_INODE | I_DIRTY_PAGES)

/* In i_nlookup: the inode's end has begun, no lookup is counted any more. */
#define NLOOKUP_CLOSED (1ull << 63)

struct inode {
	/* identity [const while in the cache] */
	struct super_block *i_sb;
	ino_nr i_ino;
	u8 i_zone; /* of its memory */
	struct mem_chunk *i_chunk; /* the memory; NULL: it is malloc's */

	/* cache state [i_lock]; i_count and i_state may be read atomically */
	struct spinlock i_lock; /* RANK_I_LOCK */
	_Atomic u32 i_state;
	_Atomic u32 i_count;
	_Atomic u64 i_nlookup;       /* references the kernel holds: inode_nlookup();
					NLOOKUP_CLOSED [i_lock to set] */
	struct cds_list_head i_lru;  /* [LRU list lock] */
	struct cds_list_head i_io_list; /* [dirty-list lock] */
	u64 i_dirtied_when;          /* ns, monotonic [i_lock; while queued also
					the dirty-list lock, to change] */
	lblk_t i_wb_next;            /* where background write-out goes on [who set I_SYNC] */
	_Atomic u32 i_pause_us;      /* what its writers owe the throttle [atomic] */
	struct cds_list_head i_sb_list; /* [lock of the list] without -o
					   inode_iter=icache; see sb_iter.c */
	u64 i_sb_born;               /* [const once entered] walks begun before it */
	u32 i_sb_which;              /* [const once entered] the list it is on */
	struct rcu_head i_rcu;

	/* attributes: changed with i_rwsem held (exclusively, except times, and
	 * i_size as it grows, by rules of fs/file.c) and i_lock; read under
	 * either; i_size without both by who can do with any moment's value, and
	 * under a leaf lock by the rules of cache/mapping.h. What struct
	 * inode_attrs has is changed by inode_attrs_lock() only, and read
	 * without a lock by inode_get_attrs(). */
	_Atomic u32 i_attr_seq; /* odd: being changed [write i_lock] */
	u32 i_generation;
	u32 i_uid, i_gid;
	_Atomic u32 i_mode;  /* these three are also looked at without a lock, */
	_Atomic u32 i_nlink; /* for decisions that any moment's value allows */
	_Atomic u32 i_flags; /* EXT4_*_FL of the disk */
	_Atomic u64 i_size;
	u64 i_blocks;  /* 512-byte units */
	u64 i_version;
	u64 i_rdev;    /* makedev() form */
	struct timespec i_atime, i_mtime, i_ctime, i_crtime;

	struct rwsem i_rwsem;      /* operations on this inode; RANK_I_RWSEM */
	struct mapping i_mapping;
};

/*
 * Called by the file system from alloc_inode and free_inode. The first also
 * makes the mapping; its end, mapping_destroy(), comes before free_inode: by
 * evict_inode, by who never entered the inode, by the cache if read_inode
 * failed. The cache sets i_sb and m_sb when the inode is entered.
 */
void inode_init_once(struct inode *inode);
/*
 * Memory, zeroed, for an inode and what the file system adds behind it, at most
 * INODE_MEMORY_MAX bytes; with several zones it lies in the home zone of the thread.
 * NULL: none. For alloc_inode; free_inode gives it back.
 */
#define INODE_MEMORY_MAX 4096u
struct inode *inode_alloc_memory(struct super_block *sb, size_t bytes);
void inode_free_memory(struct inode *inode);
void inode_destroy_locks(struct inode *inode);
/* The zone (cache/zone.h) that an inode in the cache belongs to. */
static inline u32 inode_zone(const struct inode *inode)
{
	return inode->i_zone;
}

int __must_check icache_create(struct super_block *sb, ino_nr max_ino);
void icache_destroy(struct super_block *sb);

/*
 * Cached, usable, referenced; NULL if not in memory. Waits for I_NEW/I_FREEING,
 * that is for a read, or a deletion that needs journal handles: hold none.
 */
struct inode *icache_find(struct super_block *sb, ino_nr ino);
/* Cached or read from disk; referenced. Sleeps. Errors of read_inode, -ENOMEM,
 * -ESTALE for a number out of range. */
int __must_check icache_get(struct super_block *sb, ino_nr ino, struct inode **out);
/*
 * The same for those who go through many inodes and may never come back (a
 * listing with attributes): the inode is not noted as used, and one that had to
 * be read is I_DONTCACHE until somebody else wants it. But one that was evicted
 * not long ago (see icache.c) has been used again just by this.
 */
struct inode *icache_find_scan(struct super_block *sb, ino_nr ino);
int __must_check icache_get_scan(struct super_block *sb, ino_nr ino,
				 struct inode **out);
/*
 * Enters an inode that was just allocated on disk (from s_op->alloc_inode,
 * i_ino set), with I_NEW and one reference: nobody can use it until inode_unlock_new().
 * 0, -ENOMEM, -EFSCORRUPTED (the number is in the cache already: the on-disk
 * bitmap lied). On error the caller still owns the memory.
 * An old inode of this number may be at the very end of its deletion, or a stale
 * number being read (to -ESTALE): waited for, even inside a handle. So evict_inode(delete) frees the number in the
 * bitmap with its last handle and waits for no commit after that.
 */
int __must_check icache_insert(struct super_block *sb, struct inode *inode);
void inode_unlock_new(struct inode *inode);

/*
 * Around a change of what struct inode_attrs has, in place of i_lock, which it
 * takes: readers without a lock notice. Not while the inode is I_NEW and nobody
 * else can see it.
 */
static inline void inode_attrs_lock(struct inode *inode) ACQUIRE(&inode->i_lock)
{
	u32 seq;

	spin_lock(&inode->i_lock);
	seq = atomic_load_explicit(&inode->i_attr_seq, memory_order_relaxed);
	atomic_store_explicit(&inode->i_attr_seq, seq + 1, memory_order_relaxed);
	/* Keeps the changes behind that store. Pairs with the fence in
	 * read_attrs(). */
	atomic_thread_fence(memory_order_release);
}

static inline u64 inode_nlookup(const struct inode *inode)
{
	return atomic_load(&inode->i_nlookup) & ~NLOOKUP_CLOSED;
}

static inline void inode_attrs_unlock(struct inode *inode) RELEASE(&inode->i_lock)
{
	u32 seq = atomic_load_explicit(&inode->i_attr_seq, memory_order_relaxed);

	/* Release: the changes come first. Pairs with the acquire there. */
	atomic_store_explicit(&inode->i_attr_seq, seq + 1, memory_order_release);
	spin_unlock(&inode->i_lock);
}

/* All of one moment. */
struct inode_attrs {
	u32 mode, nlink, uid, gid, generation;
	u32 delayed; /* blocks promised to data not yet written */
	u64 size, blocks, rdev;
	struct timespec atime, mtime, ctime;
};
/* Caller has a reference. Stores nothing, unless the attributes keep changing. */
void inode_get_attrs(struct inode *inode, struct inode_attrs *attrs);
/*
 * The attributes of a cached inode, without a reference: it stores to no memory that
 * others use. 0, or -EAGAIN: go by icache_get(), because the inode is not in
 * memory, not usable, just being changed, or wants to be noted as used again.
 */
int __must_check icache_peek_attrs(struct super_block *sb, ino_nr ino,
				   struct inode_attrs *attrs);

/*
 * The same in steps, for one who looks at several inodes in one RCU read-side
 * section, to which what icache_peek_rcu() gives is good. That is NULL where
 * icache_peek_attrs() is -EAGAIN, the attributes aside.
 * inode_peek_attrs(): false if the attributes are being changed, or the inode has
 * begun to go.
 * inode_lookup_inc_rcu(): counts a lookup by the kernel, with one atomic
 * operation; false, and nothing counted, if the inode has begun to go.
 * icache_note_hits(): for the statistics.
 */
struct inode *icache_peek_rcu(struct super_block *sb, ino_nr ino);
bool inode_peek_attrs(const struct inode *inode, struct inode_attrs *attrs);
bool inode_lookup_inc_rcu(struct inode *inode);
void icache_note_hits(struct super_block *sb, u32 n);

void inode_get(struct inode *inode); /* caller has a reference already */
/* Drops a reference; may delete the inode on disk (sleeps then). Call it
 * without any lock and without a journal handle. NULL is allowed. */
void inode_put(struct inode *inode);

/* One more / n fewer lookups by the kernel. forget works without the inode in
 * memory (shadow); may delete the inode on disk (sleeps). */
void inode_lookup_inc(struct inode *inode); /* caller has a reference */
void icache_forget(struct super_block *sb, ino_nr ino, u64 n);

/* Caller has a reference: evict it at the last put, if it is not looked up again
 * before, and nothing of it is under WRITEBACK then. */
void inode_set_dontcache(struct inode *inode);

/*
 * Marks dirty (I_DIRTY_INODE and/or I_DIRTY_PAGES) and queues it on the dirty
 * list at the transition. Caller has a reference. i_lock is taken inside.
 */
void inode_mark_dirty(struct inode *inode, u32 flags);
/*
 * The bits were written; with I_SYNC set, a re-dirtied inode stays queued.
 * I_DIRTY_PAGES stays set as long as the mapping has dirty blocks, so whoever
 * dirties a block and then marks the inode can't be missed.
 */
void inode_clear_dirty(struct inode *inode, u32 flags);

/*
 * Next inode to write out: dirtied at or before `older_than` (monotonic ns;
 * UINT64_MAX: any), I_SYNC set, referenced; NULL if none. What a pass left
 * dirty keeps its time and comes again after all others that are old enough.
 * An inode that another flusher is writing (I_SYNC) is not found: for sync,
 * alternate with icache_wait_writers().
 * The flusher ends with icache_written(): I_SYNC cleared, off the list if
 * clean, waiters woken; then it drops the reference.
 */
struct inode *icache_next_dirty(struct super_block *sb, u64 older_than);
void icache_written(struct inode *inode);
/* Sleeps while I_SYNC is set. */
void inode_wait_sync(struct inode *inode);
/*
 * Sleeps until the inodes that have I_SYNC now no longer have it; false if
 * there were none. They may be dirty still (a slice was written): ask
 * icache_next_dirty() again. The caller holds I_SYNC of none.
 */
bool icache_wait_writers(struct super_block *sb);

/*
 * A look at what is in memory, for those who read inodes from elsewhere: no
 * reference is taken, nothing is waited for, no inode is kept longer for it.
 *
 * icache_mask(): of the 64 numbers from ino & ~63 on those that have an inode,
 * in any state; bit n for the n-th.
 * icache_peek(): calls fn under i_lock if ino has a usable inode. False: it is not
 * in memory, or is being read, made or torn down; a linked one that is torn
 * down is clean, so that the inode's table block has all of it by then.
 * icache_peek_run(): the same for those of the 64 that are in `wanted`; bits for
 * which fn was called.
 */
u64 icache_mask(struct super_block *sb, ino_nr ino);
bool icache_peek(struct super_block *sb, ino_nr ino,
		 void (*fn)(const struct inode *inode, void *priv), void *priv);
u64 icache_peek_run(struct super_block *sb, ino_nr ino, u64 wanted,
		    void (*fn)(const struct inode *inode, void *priv), void *priv);
/* Up to max numbers from *ino on that the kernel has looked up, into out; *ino
 * moves behind them. 0: there are no more. */
u32 icache_looked_up(struct super_block *sb, u64 *ino, ino_nr *out, u32 max);

/*
 * Drops clean unreferenced inodes now, with or without a second chance; returns
 * how many inodes left the cache meanwhile, by this call or by others. Sleeps.
 */
u64 icache_shrink_all(struct super_block *sb);
/* Unmount: forgets all lookups, deletes unlinked inodes, evicts everything.
 * Data must have been written. Inodes still referenced are logged as bugs. */
void icache_evict_all(struct super_block *sb);

struct icache_stats {
	u64 inodes, shadows, hits, misses, evicted;
	u64 refaults;      /* misses that found a shadow */
	u64 refaults_near; /* of these, evicted not long before: kept now */
	u64 thrashed;      /* of these, worth keeping then already: the cache is
			      too small for what is in use */
};
void icache_get_stats(struct super_block *sb, struct icache_stats *st);

/* How many inodes in memory are in which state: a walk over all of them. One that
 * changes meanwhile is counted as it is when the walk comes by. */
struct icache_census {
	u64 referenced;  /* in use by the daemon */
	u64 dirty;       /* or being written out */
	u64 reclaimable; /* unused, clean, linked */
	u64 dontcache;
	u64 unlinked;    /* deleted when the last user lets go */
};
void icache_take_census(struct super_block *sb, struct icache_census *census);

#endif
