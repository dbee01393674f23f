/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/xattr_ea.c - values of attributes in inodes of their own (feature ea_inode)
 *
 * A value that has no place beside its name is the content of an inode that
 * nothing else names (EXT4_EA_INODE_FL). Its content never changes. Fields that it has
 * no other use for say what it is worth:
 *
 *   i_atime                 the checksum of the value
 *   i_ctime, i_version      how many lists of attributes name it: the upper and the lower
 *                           half. A block counts once, however many inodes share it
 *   i_links_count           1; 0 with the last reference
 *
 * Such inodes of old Lustre versions have neither, but their only owner's number in
 * i_mtime, and his generation; they count as named once.
 *
 * Life of one: made (xattr_ea_make()) without links, on the orphan list, in as many
 * transactions as its content takes: a crash leaves it to the next mount. The handle that
 * changes the owner's list gives it the first reference, and takes it off the orphans. The handle
 * that takes away the last makes it an orphan again. Who puts the last reference *in memory*
 * then deletes it, like any file without links: so references are put when no handle is
 * open. Between the two it may be found by its value and named again.
 *
 * Equal values: a table of what was read or made last, checksum -> inode
 * (xattr_known.c). It holds no references and may be wrong: what it says is looked at
 * like anything else by a number (flags, size, content), and a stale entry costs that look.
 *
 * Nothing reaches such an inode by its number but an attribute: not a name, not a file
 * handle; so its content is in the buffer cache (journalled, and revoked when it is freed),
 * and never in a page cache.
 *
 * Locks:   the references' lock (RANK_VALUE, a few by number; one at a time), inside of a
 *          handle and outside of what ext4_orphan_add() takes
 * Source:  ext4-format brief 8; Documentation/filesystems/ext4/eainode.rst
 */
#include "fs/xattr_internal.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "lib/crc.h"

#define LOCKS 16u
/* Blocks that one handle writes. */
#define CHUNK 16u

struct ext4_values {
	struct mutex lock[LOCKS]; /* RANK_VALUE: references and links of these inodes */
	struct xattr_known *known; /* checksum -> inode; NULL: -o nombcache */
};

static const struct buffer_type value_type = { .name = "value of an attribute" };

int ext4_values_create(struct ext4_sb *sbi)
{
	struct ext4_values *v;

	if (!ext4_has_incompat(sbi, EA_INODE))
		return 0;
	v = calloc(1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	for (u32 i = 0; i < LOCKS; i++)
		mutex_init(&v->lock[i], RANK_VALUE);
	if (!sbi->opts.nombcache) {
		v->known = xattr_known_create();
		if (!v->known) {
			free(v);
			return -ENOMEM;
		}
	}
	sbi->values = v;
	return 0;
}

void ext4_values_free(struct ext4_sb *sbi)
{
	struct ext4_values *v = sbi->values;

	if (!v)
		return;
	for (u32 i = 0; i < LOCKS; i++)
		mutex_destroy(&v->lock[i]);
	xattr_known_free(v->known);
	free(v);
	sbi->values = NULL;
}

/* Of known values. NULL: there is none. */
static struct xattr_known *known_of(const struct ext4_sb *sbi)
{
	return sbi->values ? sbi->values->known : NULL;
}

/* ---- what an inode says ---- */

static u32 value_hash(const struct ext4_sb *sbi, const void *value, u32 len)
{
	return crc32c(sbi->csum_seed, value, len);
}

static u32 stored_hash(const struct inode *inode)
{
	return (u32)inode->i_atime.tv_sec;
}

/* The table slot keeps 32 bits of a time as they are, if they count as signed. */
static struct timespec as_time(u32 word)
{
	return (struct timespec){ .tv_sec = (s32)word };
}

static u64 references(const struct inode *inode)
{
	return (u64)(u32)inode->i_ctime.tv_sec << 32 | (u32)inode->i_version;
}

static bool is_lustre(const struct ext4_inode *owner, const struct inode *inode)
{
	return (u32)inode->i_mtime.tv_sec == owner->vfs.i_ino &&
	       inode->i_generation == owner->vfs.i_generation;
}

static int bad_value(struct ext4_sb *sbi, ino_nr owner, ino_nr ino, const char *what)
{
	return ext4_error(sbi, owner, 0, -EFSCORRUPTED,
			  "inode %u, an attribute's value, %s", ino, what);
}

/* What is wrong with it; NULL: it may hold a value. */
static const char *unfit(struct inode *inode)
{
	struct ext4_inode *ei = EXT4_I(inode);

	if (!(inode->i_flags & EXT4_EA_INODE_FL) || !S_ISREG(inode->i_mode) ||
	    ei->i_inline)
		return "is something else";
	if (atomic_load(&ei->i_has_xattrs))
		return "has attributes itself";
	if (inode->i_size > XATTR_EA_MAX)
		return "is too large";
	return NULL;
}

int xattr_ea_find(struct ext4_inode *owner, ino_nr ino, struct inode **out)
{
	struct ext4_sb *sbi = ext4_sb_of(owner);

	if (ino < sbi->first_ino || ino > sbi->inodes_count ||
	    ino == owner->vfs.i_ino || !ext4_ino_is_exposed(sbi, ino))
		return bad_value(sbi, owner->vfs.i_ino, ino, "cannot be one");
	return icache_get(&sbi->s, ino, out);
}

int xattr_ea_check(struct ext4_inode *owner, struct inode *inode)
{
	const char *wrong = unfit(inode);

	return wrong ? bad_value(ext4_sb_of(owner), owner->vfs.i_ino, inode->i_ino,
				 wrong) : 0;
}

int xattr_ea_lost(struct ext4_inode *owner, ino_nr ino)
{
	return bad_value(ext4_sb_of(owner), owner->vfs.i_ino, ino, "is not in use");
}

/* ---- content ---- */

/* fn for each block and the bytes of the value in it; until it returns not 0. */
static int each_block(struct ext4_inode *ei, u32 len,
		      int (*fn)(const void *data, u32 at, u32 n, void *priv), void *priv)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	u32 bs = sbi->s.s_blocksize;
	int err = 0;

	for (u32 at = 0; !err && at < len;) {
		struct ext4_map m = {
			.lblk = at / bs,
			.len = DIV_ROUND_UP(len - at, bs),
		};

		err = ext4_map_blocks(ei, &m);
		if (err)
			return err;
		if (!(m.flags & EXT4_MAP_MAPPED) || !m.len ||
		    !ext4_block_range_ok(sbi, m.pblk, m.len))
			return ext4_error(sbi, ei->vfs.i_ino, 0, -EFSCORRUPTED,
					  "an attribute's value lacks block %u",
					  at / bs);
		for (u32 i = 0; !err && i < m.len && at < len; i++) {
			u32 n = min_of(bs, len - at);
			struct buffer *b;

			err = ext4_bread(sbi, m.pblk + i, ei->vfs.i_ino, &value_type,
					 0, &b);
			if (err)
				return err;
			err = fn(b->b_data, at, n, priv);
			buffer_put(b);
			at += n;
		}
	}
	return err;
}

static int copy_piece(const void *data, u32 at, u32 n, void *priv)
{
	memcpy((u8 *)priv + at, data, n);
	return 0;
}

static int compare_piece(const void *data, u32 at, u32 n, void *priv)
{
	return memcmp((const u8 *)priv + at, data, n) ? 1 : 0;
}

int xattr_ea_read(struct ext4_inode *owner, struct inode *inode,
		  const struct xattr_name *name, u32 e_hash, void *buf, u32 len)
{
	struct ext4_sb *sbi = ext4_sb_of(owner);
	u32 hash;
	int err;

	if (inode->i_size != len)
		return bad_value(sbi, owner->vfs.i_ino, inode->i_ino,
				 "is of another size");
	err = each_block(EXT4_I(inode), len, copy_piece, buf);
	if (err || is_lustre(owner, inode))
		return err;
	hash = value_hash(sbi, buf, len);
	if (hash != stored_hash(inode))
		return bad_value(sbi, owner->vfs.i_ino, inode->i_ino,
				 "has a wrong checksum");
	if (!xattr_ea_entry_ok(name, hash, e_hash))
		return bad_value(sbi, owner->vfs.i_ino, inode->i_ino,
				 "is another one's, by the hash of the name");
	xattr_known_add(known_of(sbi), hash, inode->i_ino);
	return 0;
}

/* ---- new ones ---- */

/* One that has the value already, referenced; NULL: none that is known. */
static struct inode *find_equal(struct ext4_sb *sbi, ino_nr owner, const void *value,
				u32 len, u32 hash)
{
	struct inode *inode;
	ino_nr ino;

	for (u32 n = 0; n < XATTR_KNOWN_WAYS; n++) {
		ino = (ino_nr)xattr_known_nth(known_of(sbi), hash, n);
		if (!ino)
			break;
		if (ino == owner || icache_get(&sbi->s, ino, &inode))
			continue;
		/* With links it is complete: see new_inode(). */
		if (!unfit(inode) && inode->i_nlink && inode->i_size == len &&
		    stored_hash(inode) == hash &&
		    !each_block(EXT4_I(inode), len, compare_piece,
				(void *)(uintptr_t)value))
			return inode;
		inode_put(inode);
		xattr_known_del(known_of(sbi), hash, ino);
	}
	return NULL;
}

/* An empty one, an orphan; in h. On error *out is to be put, unless NULL. */
static int new_inode(struct handle *h, struct ext4_inode *owner, u32 len, u32 hash,
		     struct inode **out)
{
	struct sl_cred cred = { .uid = owner->vfs.i_uid, .gid = owner->vfs.i_gid };
	struct ext4_inode *ei;
	int err;

	*out = NULL;
	err = ext4_new_inode(h, owner, S_IFREG | S_IRUSR | S_IWUSR, &cred, 0, out);
	if (err)
		return err;
	ei = EXT4_I(*out);
	spin_lock(&ei->vfs.i_lock);
	ei->vfs.i_flags = (ei->vfs.i_flags & EXT4_EXTENTS_FL) | EXT4_EA_INODE_FL;
	ei->vfs.i_nlink = 0;
	ei->vfs.i_size = len;
	ei->vfs.i_atime = as_time(hash);
	ei->vfs.i_ctime = as_time(0);
	ei->vfs.i_version = 0;
	spin_unlock(&ei->vfs.i_lock);
	atomic_store(&ei->i_disksize, len);
	atomic_store(&ei->i_projid, 0);
	err = ext4_orphan_add(h, ei);
	if (!err)
		err = ext4_mark_inode_dirty(h, ei);
	inode_unlock_new(&ei->vfs);
	return err;
}

/* Blocks [m->lblk, m->lblk + m->len) of the value, into those just allocated. */
static int write_blocks(struct handle *h, struct ext4_sb *sbi, const struct ext4_map *m,
			const u8 *value, u32 len)
{
	u32 bs = sbi->s.s_blocksize;

	for (u32 i = 0; i < m->len; i++) {
		u32 at = (m->lblk + i) * bs;
		struct buffer *b;
		int err = buffer_get_zeroed(&sbi->s, m->pblk + i, &value_type, 0, &b);

		if (err)
			return err;
		err = handle_get_create_access(h, b);
		if (!err) {
			mutex_lock(&b->b_lock);
			memcpy(b->b_data, value + at, min_of(bs, len - at));
			mutex_unlock(&b->b_lock);
			handle_dirty(h, b);
		}
		buffer_put(b);
		if (err)
			return err;
	}
	return 0;
}

static u32 chunk_credits(const struct ext4_inode *ei)
{
	return ext4_ext_insert_credits(ei, 1) + CHUNK + EXT4_INODE_CREDITS;
}

static int write_value(struct handle *h, struct ext4_inode *ei, const u8 *value, u32 len)
{
	struct ext4_sb *sbi = ext4_sb_of(ei);
	u32 nr = DIV_ROUND_UP(len, sbi->s.s_blocksize);
	u32 flags = handle_privileged(h) ? EXT4_CREATE_ROOT : 0;
	int err = 0;

	for (lblk_t lblk = 0; !err && lblk < nr;) {
		struct ext4_map m = { .lblk = lblk, .len = min_of(nr - lblk, CHUNK) };

		/* It is an orphan: between any two of these steps it can be left. */
		err = handle_ensure(h, chunk_credits(ei), 0);
		if (err == 1)
			err = handle_restart(h, chunk_credits(ei), 0);
		if (!err)
			err = ext4_map_create(h, ei, &m, flags);
		if (!err)
			err = write_blocks(h, sbi, &m, value, len);
		if (!err)
			err = ext4_mark_inode_dirty(h, ei);
		lblk += m.len;
	}
	return err;
}

int xattr_ea_make(struct ext4_inode *owner, const void *value, u32 len, bool privileged,
		  struct inode **out)
{
	struct ext4_sb *sbi = ext4_sb_of(owner);
	u32 hash = value_hash(sbi, value, len);
	struct handle *h;
	int err, err2;

	*out = find_equal(sbi, owner->vfs.i_ino, value, len, hash);
	if (*out)
		return 0;
	err = journal_start(sbi->journal,
			    EXT4_NEW_INODE_CREDITS + EXT4_ORPHAN_CREDITS +
				    2 * EXT4_INODE_CREDITS, 0, &h);
	if (err)
		return err;
	if (privileged)
		handle_set_privileged(h);
	err = new_inode(h, owner, len, hash, out);
	if (!err)
		err = write_value(h, EXT4_I(*out), value, len);
	err2 = handle_stop(h);
	if (!err)
		err = err2;
	if (err) {
		inode_put(*out);
		*out = NULL;
		return err;
	}
	xattr_known_add(known_of(sbi), hash, (*out)->i_ino);
	return 0;
}

u32 xattr_ea_hash(const struct inode *inode)
{
	return stored_hash(inode);
}

/* ---- references ---- */

static struct mutex *lock_of(struct ext4_sb *sbi, ino_nr ino)
{
	return &sbi->values->lock[ino % LOCKS];
}

static void set_references(struct inode *inode, u64 n, u32 nlink)
{
	inode_attrs_lock(inode);
	inode->i_ctime = as_time((u32)(n >> 32));
	inode->i_version = (u32)n;
	inode->i_nlink = nlink;
	inode_attrs_unlock(inode);
}

/*
 * Under its lock: from `was` to `is` references, and in or out of the orphans with the
 * first and the last. All that can fail comes before the change.
 */
static int change_locked(struct handle *h, struct ext4_inode *ei, u64 was, u64 is)
{
	struct buffer *table;
	u32 offset;
	int err;

	if (!was != !ei->vfs.i_nlink)
		return bad_value(ext4_sb_of(ei), 0, ei->vfs.i_ino,
				 "has a wrong count of references");
	err = ext4_inode_prepare(h, ei, &table, &offset);
	if (err)
		return err;
	if (!was)
		err = ext4_orphan_del(h, ei);
	else if (!is)
		err = ext4_orphan_add(h, ei);
	if (err) {
		buffer_put(table);
		return err;
	}
	set_references(&ei->vfs, is, is ? 1 : 0);
	ext4_inode_finish(h, ei, table, offset);
	return 0;
}

int xattr_ea_ref(struct handle *h, struct ext4_inode *owner, struct inode *inode)
{
	struct ext4_sb *sbi = EXT4_SB(inode->i_sb);
	struct mutex *lock = lock_of(sbi, inode->i_ino);
	u64 n;
	int err;

	mutex_lock(lock);
	n = is_lustre(owner, inode) ? 1 : references(inode);
	err = n == UINT64_MAX ? bad_value(sbi, owner->vfs.i_ino, inode->i_ino,
					  "has too many references") :
				change_locked(h, EXT4_I(inode), n, n + 1);
	mutex_unlock(lock);
	return err;
}

int xattr_ea_unref(struct handle *h, struct ext4_inode *owner, struct inode *inode)
{
	struct ext4_sb *sbi = EXT4_SB(inode->i_sb);
	struct mutex *lock = lock_of(sbi, inode->i_ino);
	u64 n;
	int err;

	mutex_lock(lock);
	n = is_lustre(owner, inode) ? 1 : references(inode);
	err = !n ? bad_value(sbi, owner->vfs.i_ino, inode->i_ino,
			     "has no references") :
		   change_locked(h, EXT4_I(inode), n, n - 1);
	mutex_unlock(lock);
	if (!err && n == 1)
		xattr_known_del(known_of(sbi), stored_hash(inode), inode->i_ino);
	return err;
}

/* ---- several of them ---- */

void xattr_eas_put(struct xattr_eas *set)
{
	for (u32 i = 0; i < set->nr; i++)
		inode_put(set->inode[i]);
	free(set->inode);
	*set = (struct xattr_eas){ 0 };
}

struct inode *xattr_eas_find(const struct xattr_eas *set, ino_nr ino)
{
	for (u32 i = 0; i < set->nr; i++)
		if (set->inode[i]->i_ino == ino)
			return set->inode[i];
	return NULL;
}

/* Not to be asked of one that others alone can let go of. */
static bool is_referenced(struct ext4_inode *owner, struct inode *inode)
{
	struct mutex *lock = lock_of(ext4_sb_of(owner), inode->i_ino);
	bool yes;

	mutex_lock(lock);
	yes = is_lustre(owner, inode) || references(inode);
	mutex_unlock(lock);
	return yes;
}

int xattr_eas_add(struct ext4_inode *owner, ino_nr ino, struct xattr_eas *set)
{
	struct inode **more, *inode;
	int err;

	if (xattr_eas_find(set, ino))
		return 0;
	more = realloc(set->inode, (set->nr + 1) * sizeof(struct inode *));
	if (!more)
		return -ENOMEM;
	set->inode = more;
	err = xattr_ea_find(owner, ino, &inode);
	if (err)
		return err == -ESTALE ? xattr_ea_lost(owner, ino) : err;
	err = xattr_ea_check(owner, inode);
	if (!err && !is_referenced(owner, inode))
		err = bad_value(ext4_sb_of(owner), owner->vfs.i_ino, ino,
				"has no references");
	if (err)
		inode_put(inode);
	else
		set->inode[set->nr++] = inode;
	return err;
}

int xattr_eas_add_sound(struct ext4_inode *owner, const struct xattr_list *l,
			struct xattr_eas *set)
{
	for (u32 at = l->first; !xattr_is_end(l, at); at = xattr_next(l, at)) {
		ino_nr ino = le32_to_cpu(xattr_entry(l, at)->e_value_inum);

		if (ino && xattr_eas_add(owner, ino, set) == -ENOMEM)
			return -ENOMEM;
	}
	return 0;
}
