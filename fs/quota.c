/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/quota.c - usage by users, groups and projects, kept with each change
 *
 * A volume with the feature "quota" has hidden files with a record for each user, group
 * and project that owns an inode: how many inodes, and how many bytes by their i_blocks.
 * e2fsck counts again and compares, the kernel believes; so the records must be
 * right in each transaction:
 *
 *   mount       all records are read and checked; each becomes a struct dquot,
 *               which stays in memory
 *   before a    whoever is to own something new has a record (prepare): a new one in a
 *   handle      transaction of its own, which may fail as the request then does
 *   in it       what i_blocks grows by, or an inode comes or goes, is added to the
 *               dquots in memory, under i_lock of the inode; the first change in a
 *               transaction puts the dquot on a list and sets a block of the log aside
 *   commit      no handle is open, none of the next transaction has begun: the sums are
 *               those of this transaction, and are written to their records
 *
 * So a record is written once a transaction, however many handles charged its owner,
 * and no handle needs access to it.
 *
 *   charge and transfer   both under i_lock: blocks that come while a file is given away are
 *                         charged to one of the owners, and moved if to the old one
 *   charge and commit     a charge is inside a handle, which the commit waits for
 *   two new records       ext4_quota.lock; and looked for once more under it
 *   the owner of a new    is that of prepare: what it depends on of the directory
 *   inode                 (group, project, flags) does not change under its i_rwsem
 *
 * Limits are kept as they are, and are not enforced. Who has an inode but no record (the
 * file was wrong before) is not counted, which is told once.
 *
 * Locks:   i_rwsem -> lock -> handle; i_lock while something is charged
 * Source:  ext4-format brief 14.5; the layout in fs/ext4_format.h
 */
#include "fs/quota_internal.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/mem.h"

/* In one handle two inodes are charged, or one changes its owners, at most. */
#define HANDLE_BLOCKS (2 * EXT4_QUOTA_TYPES)
#define BUCKETS_MIN 256u
#define BUCKETS_MAX (1u << 20)

static const char *const type_name[] = { "user", "group", "project" };

/* ---- finding ---- */

static struct dquot *_Atomic *bucket_of(const struct quota_file *f, u32 id)
{
	/* The upper bits of the product depend on all of id. */
	return &f->bucket[(u32)(((u64)(id * 2654435761u) * f->nr_buckets) >> 32)];
}

static struct dquot *find(const struct quota_file *f, u32 id)
{
	struct dquot *dq = atomic_load_explicit(bucket_of(f, id), memory_order_acquire);

	while (dq && dq->id != id)
		dq = dq->next;
	return dq;
}

/* lock held, or nobody else knows f. */
static void publish(struct quota_file *f, struct dquot *dq)
{
	struct dquot *_Atomic *head = bucket_of(f, dq->id);

	dq->next = atomic_load_explicit(head, memory_order_relaxed);
	/* Pairs with the load in find(): what is found is complete. */
	atomic_store_explicit(head, dq, memory_order_release);
	f->nr++;
}

static int add_found(struct quota_file *f, const struct dquot *what)
{
	struct dquot *dq = malloc_patient(sizeof(*dq));

	if (!dq)
		return -ENOMEM;
	*dq = *what;
	publish(f, dq);
	return 0;
}

/* ---- charging ---- */

static void charge(struct handle *h, struct ext4_quota *q, u32 type, u32 id, s64 inodes,
		   s64 bytes)
{
	struct quota_file *f = &q->file[type];
	struct dquot *dq, *head;

	if (!f->on)
		return;
	dq = find(f, id);
	if (!dq) {
		/* A lock is held: pre_commit tells. */
		atomic_store(&q->missing, ((u64)type << 32 | id) + 1);
		return;
	}
	atomic_fetch_add(&dq->inodes, inodes);
	atomic_fetch_add(&dq->bytes, bytes);
	if (atomic_load(&dq->dirty) || atomic_exchange(&dq->dirty, true))
		return;
	handle_add_commit_block(h);
	head = atomic_load(&q->dirty);
	do {
		dq->next_dirty = head;
	} while (!atomic_compare_exchange_weak(&q->dirty, &head, dq));
}

/* e2fsck does not count what no name can reach. */
static bool is_counted(const struct ext4_inode *ei)
{
	return ext4_ino_is_exposed(ext4_sb_of(ei), ei->vfs.i_ino);
}

static void charge_owner(struct handle *h, struct ext4_sb *sbi, const struct ext4_owner *o,
			 s64 inodes, s64 bytes)
{
	for (u32 t = 0; t < EXT4_QUOTA_TYPES; t++)
		charge(h, sbi->quota, t, o->id[t], inodes, bytes);
}

void ext4_quota_add(struct handle *h, struct ext4_inode *ei, s64 inodes, s64 bytes)
{
	struct ext4_owner o = ext4_owner_of(ei);

	assert_spin_held(&ei->vfs.i_lock);
	if ((inodes || bytes) && is_counted(ei))
		charge_owner(h, ext4_sb_of(ei), &o, inodes, bytes);
}

void ext4_quota_move(struct handle *h, struct ext4_inode *ei, const struct ext4_owner *to)
{
	struct ext4_quota *q = ext4_sb_of(ei)->quota;
	struct ext4_owner from = ext4_owner_of(ei);
	s64 bytes = (s64)ei->vfs.i_blocks << 9;

	assert_spin_held(&ei->vfs.i_lock);
	if (!is_counted(ei))
		return;
	for (u32 t = 0; t < EXT4_QUOTA_TYPES; t++) {
		if (from.id[t] == to->id[t])
			continue;
		charge(h, q, t, from.id[t], -1, -bytes);
		charge(h, q, t, to->id[t], 1, bytes);
	}
}

/* ---- new records ---- */

static int insert(struct ext4_quota *q, struct quota_file *f, u32 type, u32 id)
{
	struct dquot *dq = calloc_patient(1, sizeof(*dq));
	int err = 0;

	if (!dq)
		return -ENOMEM;
	dq->type = type;
	dq->id = id;
	mutex_lock(&q->lock);
	if (!find(f, id)) {
		err = f->inode ? quota_file_insert(q->sbi, f, dq) : -EROFS;
		if (!err) {
			publish(f, dq);
			dq = NULL;
		}
	}
	mutex_unlock(&q->lock);
	free(dq);
	return err;
}

int ext4_quota_prepare_owner(struct ext4_sb *sbi, const struct ext4_owner *o)
{
	struct ext4_quota *q = sbi->quota;

	for (u32 t = 0; t < EXT4_QUOTA_TYPES; t++) {
		struct quota_file *f = &q->file[t];
		int err = 0, tries = 0;

		if (!f->on || find(f, o->id[t]))
			continue;
		do {
			err = insert(q, f, t, o->id[t]);
		} while (ext4_should_retry(sbi, err, &tries));
		if (err)
			return err == -EAGAIN ? -ENOSPC : err;
	}
	return 0;
}

/* ---- commit ---- */

static void tell(struct ext4_quota *q, u32 type, u32 id, const char *what)
{
	if (!q->told)
		log_err("%s: quota: %s %u %s; the quota files are wrong, run e2fsck",
			q->sbi->s.s_id, type_name[type], id, what);
	q->told = true;
}

/* A sum that would be below nothing was wrong before. */
static u64 sum_of(struct ext4_quota *q, const struct dquot *dq, _Atomic s64 *sum)
{
	s64 n = atomic_load(sum);

	if (n >= 0)
		return (u64)n;
	tell(q, dq->type, dq->id, "uses less than nothing");
	atomic_store(sum, 0);
	return 0;
}

/* b_lock held. */
static bool fill_record(struct ext4_quota *q, struct dquot *dq, u8 *raw)
{
	static const struct ext4_quota_record none;
	struct ext4_quota_record r;

	memcpy(&r, raw, sizeof(r));
	if (le32_to_cpu(r.id) != dq->id)
		return false;
	r.curinodes = cpu_to_le64(sum_of(q, dq, &dq->inodes));
	r.curspace = cpu_to_le64(sum_of(q, dq, &dq->bytes));
	/* Without limits, user 0 would have no record any more. */
	if (!memcmp(&r, &none, sizeof(r)))
		r.itime = cpu_to_le64(1);
	memcpy(raw, &r, sizeof(r));
	return true;
}

static void write_record(struct ext4_quota *q, struct handle *h, struct dquot *dq)
{
	ino_nr file = q->file[dq->type].ino;
	struct ext4_sb *sbi = q->sbi;
	struct buffer *b;
	int err, tries = 0;
	bool ok;

	do {
		err = ext4_bread(sbi, dq->blk, file, &quota_buffer_type, 0, &b);
	} while (err == -ENOMEM && mem_pause(&tries));
	if (err) {
		(void)ext4_error(sbi, file, dq->blk, err,
				 "usage of %u can't be written", dq->id);
		return;
	}
	err = handle_get_write_access(h, b);
	if (!err) {
		mutex_lock(&b->b_lock);
		ok = fill_record(q, dq, b->b_data + dq->off);
		mutex_unlock(&b->b_lock);
		handle_dirty(h, b);
		err = ok ? 0 : -EFSCORRUPTED;
	}
	if (err && err != -EROFS)
		(void)ext4_error(sbi, file, dq->blk, err,
				 "record of %u can't be written", dq->id);
	buffer_put(b);
}

void ext4_quota_pre_commit(struct ext4_sb *sbi, struct handle *h)
{
	struct ext4_quota *q = sbi->quota;
	struct dquot *dq, *next;
	u64 missing;

	if (likely(!q))
		return;
	missing = atomic_exchange(&q->missing, 0);
	if (missing)
		tell(q, (u32)((missing - 1) >> 32), (u32)(missing - 1), "has no record");
	/* Nobody charges now. */
	for (dq = atomic_exchange(&q->dirty, NULL); dq; dq = next) {
		next = dq->next_dirty;
		atomic_store(&dq->dirty, false);
		write_record(q, h, dq);
	}
}

/* ---- mount and unmount ---- */

/* Users' and groups' are reserved inodes; the project's is hidden, as all of these. */
static bool ino_ok(const struct ext4_sb *sbi, u32 type, ino_nr ino)
{
	if (type == EXT4_QUOTA_USR)
		return ino == EXT4_USR_QUOTA_INO;
	if (type == EXT4_QUOTA_GRP)
		return ino == EXT4_GRP_QUOTA_INO;
	return ino >= sbi->first_ino && ino <= sbi->inodes_count &&
	       ino != sbi->journal_ino && ino != sbi->orphan_file_ino;
}

static int load_inode(struct ext4_sb *sbi, struct quota_file *f, u32 type)
{
	struct inode *inode;
	bool used = true;
	int err = 0;

	if (!ino_ok(sbi, type, f->ino))
		err = -EFSCORRUPTED;
	if (!err)
		err = ext4_ino_in_use(sbi, f->ino, &used);
	if (!err)
		err = used ? icache_get(&sbi->s, f->ino, &inode) : -EFSCORRUPTED;
	if (err)
		return err == -ESTALE ? -EFSCORRUPTED : err;
	if (!S_ISREG(inode->i_mode) || inode->i_nlink != 1 ||
	    inode->i_flags & EXT4_INLINE_DATA_FL) {
		inode_put(inode);
		return -EFSCORRUPTED;
	}
	f->inode = inode;
	return 0;
}

static int load(struct ext4_sb *sbi, struct quota_file *f, u32 type)
{
	u64 room;
	int err = load_inode(sbi, f, type);

	if (err)
		return err;
	room = f->inode->i_size / sizeof(struct ext4_quota_record);
	f->nr_buckets = BUCKETS_MIN;
	while (f->nr_buckets < room && f->nr_buckets < BUCKETS_MAX)
		f->nr_buckets *= 2;
	f->bucket = calloc(f->nr_buckets, sizeof(*f->bucket));
	if (!f->bucket)
		return -ENOMEM;
	err = quota_file_load(sbi, f, type, add_found);
	f->on = !err;
	return err;
}

int ext4_quota_start(struct ext4_sb *sbi)
{
	const le32 inum[] = { sbi->es->s_usr_quota_inum, sbi->es->s_grp_quota_inum,
			      sbi->es->s_prj_quota_inum };
	struct ext4_quota *q;
	int err = 0;

	if (!ext4_has_ro_compat(sbi, QUOTA))
		return 0;
	q = calloc(1, sizeof(*q));
	if (!q)
		return -ENOMEM;
	q->sbi = sbi;
	mutex_init(&q->lock, RANK_QUOTA);
	sbi->quota = q;
	for (u32 t = 0; t < EXT4_QUOTA_TYPES && !err; t++) {
		struct quota_file *f = &q->file[t];

		f->ino = le32_to_cpu(inum[t]);
		if (!f->ino || (t == EXT4_QUOTA_PRJ && !ext4_has_ro_compat(sbi, PROJECT)))
			continue;
		err = load(sbi, f, t);
		if (err)
			log_err("%s: quota: the file of %ss (inode %u) can't be used (%s): run e2fsck, or mount read-only",
				sbi->s.s_id, type_name[t], f->ino, strerror(-err));
	}
	if (err)
		return err;
	log_info("%s: quota: usage is kept (records: %" PRIu64 " users, %" PRIu64
		 " groups, %" PRIu64 " projects); limits are not enforced",
		 sbi->s.s_id, q->file[EXT4_QUOTA_USR].nr, q->file[EXT4_QUOTA_GRP].nr,
		 q->file[EXT4_QUOTA_PRJ].nr);
	journal_set_handle_extra(sbi->journal, HANDLE_BLOCKS);
	return 0;
}

void ext4_quota_stop(struct ext4_sb *sbi)
{
	struct ext4_quota *q = sbi->quota;

	if (!q)
		return;
	mutex_lock(&q->lock);
	for (u32 t = 0; t < EXT4_QUOTA_TYPES; t++) {
		inode_put(q->file[t].inode);
		q->file[t].inode = NULL;
	}
	mutex_unlock(&q->lock);
}

void ext4_quota_free(struct ext4_sb *sbi)
{
	struct ext4_quota *q = sbi->quota;

	if (!q)
		return;
	for (u32 t = 0; t < EXT4_QUOTA_TYPES; t++) {
		struct quota_file *f = &q->file[t];

		assert(!f->inode);
		for (u32 i = 0; f->bucket && i < f->nr_buckets; i++) {
			struct dquot *dq = atomic_load(&f->bucket[i]), *next;

			for (; dq; dq = next) {
				next = dq->next;
				free(dq);
			}
		}
		free(f->bucket);
	}
	mutex_destroy(&q->lock);
	free(q);
	sbi->quota = NULL;
}

bool ext4_quota_usage(struct ext4_sb *sbi, enum ext4_quota_type type, u32 id, u64 *inodes,
		      u64 *bytes)
{
	struct quota_file *f = sbi->quota ? &sbi->quota->file[type] : NULL;
	struct dquot *dq = f && f->on ? find(f, id) : NULL;

	if (!dq)
		return false;
	*inodes = (u64)atomic_load(&dq->inodes);
	*bytes = (u64)atomic_load(&dq->bytes);
	return true;
}
