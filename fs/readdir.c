/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/readdir.c - lists directories in hash order, with cookies that last
 *
 * A position in a listing must stay right while names come and go and while a
 * linear directory becomes an indexed one. So it is no offset but a *key* made
 * of the name's hash, and every directory is listed in the order of keys:
 *
 *      key = (major >> 1) << 32 | minor          (63 bits; a loff_t)
 *      cookie 0: the start; 1: after "."; 2: after ".."; 3...: keys;
 *      INT64_MAX: the end
 *
 * The cookie that continues after a name is its key + 1. The legacy hash has
 * no minor hash; a CRC of the name takes its place (the minor hash is not
 * on disk). Names whose keys are equal all the same (1 in 2^63 pairs, or made
 * on purpose) follow each other by name; the cookie between them is the key
 * itself, and the cursor knows the name to go on from. Without that (cursor
 * gone, or sought back) the listing restarts at the first name of this key:
 * none is lost.
 *
 * The cursor holds a sorted range [lo, hi) of the directory. A bound is a
 * (key, name). A range is filled from
 *   - the index: the leaf that has `lo` and those that continue its last hash;
 *   - a linear directory, or one with a broken index: all blocks;
 *   - one in its inode: all of it.
 * When a range gets larger than CURSOR_ENTRIES or CURSOR_BYTES, its upper
 * half is dropped and hi comes down; so memory is bounded whatever the
 * directory. A linear directory of n names is read once per CURSOR_ENTRIES/2
 * names: for the usual few blocks, once.
 * A range is thrown away when i_version shows that the directory changed, and
 * filled again from the position.
 *
 * A name in the wrong leaf of an index (corruption) is listed at the nearest
 * key of its leaf's range, so that the order, and with it the cookies, hold.
 *
 * Locks: the directory's i_rwsem, shared, held by the caller over emit. A
 * cursor has one user at a time.
 * Source: ext4-format brief 7.7.
 */
#include "fs/dir_internal.h"
#include "lib/crc.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define KEY_DOT 0u
#define KEY_DOTDOT 1u
#define KEY_FIRST 3u
#define KEY_END ((u64)INT64_MAX)
/* All names are below (the largest major is 0xFFFFFFFC). */
#define KEY_LIMIT ((u64)0x7FFFFFFF << 32)

#define CURSOR_ENTRIES 16384u
#define CURSOR_BYTES (1u << 20)

/* Before all names >= name of this key; "": before all of the key. */
struct rd_bound {
	u64 key;
	u32 len;
	char name[EXT4_NAME_LEN + 1]; /* one more: a name and NUL is "just after" */
};

struct rd_entry {
	u64 key;
	u32 name; /* offset in names */
	ino_nr ino;
	u8 len;
	u8 ftype;
};

struct ext4_dir_cursor {
	/* Sorted range [lo, hi); valid while the directory has this version. */
	bool valid;
	u64 version;
	struct rd_bound lo, hi;
	struct rd_entry *entries;
	u32 nr, max;
	char *names;
	u32 names_len, names_max;
	bool misplaced; /* told once */
	/* Where to go on if the cookie is resume.key; len 0: not set. */
	struct rd_bound resume;
};

static int name_cmp(const char *a, u32 alen, const char *b, u32 blen)
{
	u32 n = min_of(alen, blen);
	int r = n ? memcmp(a, b, n) : 0;

	if (r)
		return r;
	return alen < blen ? -1 : alen > blen;
}

static int bound_cmp(u64 key, const char *name, u32 len, const struct rd_bound *b)
{
	if (key != b->key)
		return key < b->key ? -1 : 1;
	return name_cmp(name, len, b->name, b->len);
}

static void bound_set(struct rd_bound *b, u64 key, const char *name, u32 len)
{
	b->key = key;
	b->len = len;
	if (len)
		memcpy(b->name, name, len);
}

/* -------------------------------------------------------------------- keys */

static u64 key_of_major(u32 major)
{
	return (u64)(major >> 1) << 32;
}

static int key_of_name(struct ext4_sb *sbi, u32 version, const char *name,
		       u32 len, u64 *key)
{
	struct ext4_dirhash dh;
	int err = ext4_dirhash(name, len, version, sbi->hash_seed, &dh);

	if (err)
		return err;
	if (version == DX_HASH_LEGACY || version == DX_HASH_LEGACY_UNSIGNED)
		dh.minor = crc32c(~0u, name, len);
	*key = max_of(key_of_major(dh.major) | dh.minor, (u64)KEY_FIRST);
	return 0;
}

/* ---------------------------------------------------------------- the range */

struct ext4_dir_cursor *ext4_dir_cursor_new(void)
{
	return calloc(1, sizeof(struct ext4_dir_cursor));
}

void ext4_dir_cursor_free(struct ext4_dir_cursor *cur)
{
	if (!cur)
		return;
	free(cur->entries);
	free(cur->names);
	free(cur);
}

static int rd_cmp(const void *va, const void *vb, void *names)
{
	const struct rd_entry *a = va, *b = vb;

	if (a->key != b->key)
		return a->key < b->key ? -1 : 1;
	return name_cmp((char *)names + a->name, a->len,
			(char *)names + b->name, b->len);
}

static void rd_sort(struct ext4_dir_cursor *cur)
{
	if (cur->nr > 1)
		qsort_r(cur->entries, cur->nr, sizeof(*cur->entries), rd_cmp,
			cur->names);
}

/*
 * Drops the upper half; hi comes down to the first name dropped. Names of one
 * key stay together unless there is no other key.
 */
static int rd_shrink(struct ext4_dir_cursor *cur)
{
	struct rd_entry *e = cur->entries;
	u32 keep = cur->nr / 2, used = 0;
	char *names;

	rd_sort(cur);
	while (keep > 0 && e[keep - 1].key == e[keep].key)
		keep--;
	if (keep) {
		bound_set(&cur->hi, e[keep].key, NULL, 0);
	} else {
		for (keep = cur->nr / 2;
		     keep < cur->nr && e[keep].key == e[keep - 1].key;)
			keep++;
		if (keep < cur->nr) {
			bound_set(&cur->hi, e[keep].key, NULL, 0);
		} else {
			keep = cur->nr / 2;
			bound_set(&cur->hi, e[keep].key,
				  cur->names + e[keep].name, e[keep].len);
		}
	}
	names = malloc(cur->names_max);
	if (!names)
		return -ENOMEM;
	for (u32 i = 0; i < keep; i++) {
		memcpy(names + used, cur->names + e[i].name, e[i].len);
		e[i].name = used;
		used += e[i].len;
	}
	free(cur->names);
	cur->names = names;
	cur->names_len = used;
	cur->nr = keep;
	return 0;
}

/* Room for one more entry with a name of len bytes. */
static int rd_make_room(struct ext4_dir_cursor *cur, u32 len)
{
	if (cur->nr == CURSOR_ENTRIES || cur->names_len + len > CURSOR_BYTES) {
		int err = rd_shrink(cur);

		if (err)
			return err;
	}
	if (cur->nr == cur->max) {
		u32 max = cur->max ? cur->max * 2 : 64;
		struct rd_entry *e = realloc(cur->entries, max * sizeof(*e));

		if (!e)
			return -ENOMEM;
		cur->entries = e;
		cur->max = max;
	}
	if (cur->names_len + len > cur->names_max) {
		u32 max = cur->names_max ? cur->names_max * 2 : 2048;
		char *names = realloc(cur->names, max);

		if (!names)
			return -ENOMEM;
		cur->names = names;
		cur->names_max = max;
	}
	return 0;
}

static int rd_insert(struct ext4_dir_cursor *cur, u64 key, const char *name,
		     u32 len, ino_nr ino, u8 ftype)
{
	int err;

	if (bound_cmp(key, name, len, &cur->lo) < 0 ||
	    bound_cmp(key, name, len, &cur->hi) >= 0)
		return 0;
	err = rd_make_room(cur, len);
	if (err)
		return err;
	/* hi may have come down. */
	if (bound_cmp(key, name, len, &cur->hi) >= 0)
		return 0;
	memcpy(cur->names + cur->names_len, name, len);
	cur->entries[cur->nr++] = (struct rd_entry){
		.key = key, .name = cur->names_len, .ino = ino,
		.len = (u8)len, .ftype = ftype,
	};
	cur->names_len += len;
	return 0;
}

/* A name in the wrong leaf is taken for one at the edge of the leaf's range. */
static u64 rd_clamp(struct ext4_inode *dir, struct ext4_dir_cursor *cur,
		    u64 key, u64 low, u64 high)
{
	low = max_of(low, (u64)KEY_FIRST);
	if (key >= low && key < high)
		return key;
	if (!cur->misplaced) {
		cur->misplaced = true;
		log_ratelimited(LOG_LVL_WARN,
				"%s: inode %u: directory has a name outside the hash range of its block; the volume needs fsck",
				dir->vfs.i_sb->s_id, dir->vfs.i_ino);
	}
	return key < low ? low : high - 1;
}

/* The entries of a block whose keys should be in [low, high). */
static int rd_add_block(struct ext4_inode *dir, struct ext4_dir_cursor *cur,
			struct buffer *b, u32 version, u64 low, u64 high)
{
	struct ext4_sb *sbi = ext4_sb_of(dir);
	u32 end = dir_entries_end(sbi, b);
	int err = 0;

	for (u32 off = 0; off < end && !err;) {
		struct ext4_dir_entry *de = dir_entry(b->b_data, off);
		u64 key;

		off += dir_rec_len(de, sbi->s.s_blocksize);
		if (!le32_to_cpu(de->inode) ||
		    dir_is_dots(de->name, de->name_len))
			continue;
		err = key_of_name(sbi, version, de->name, de->name_len, &key);
		if (!err)
			err = rd_insert(cur,
					rd_clamp(dir, cur, key, low, high),
					de->name, de->name_len,
					le32_to_cpu(de->inode),
					ext4_has_incompat(sbi, FILETYPE) &&
							de->file_type < EXT4_FT_MAX ?
						de->file_type :
						EXT4_FT_UNKNOWN);
	}
	return err;
}

static int rd_fill_linear(struct ext4_inode *dir, struct ext4_dir_cursor *cur,
			  bool any)
{
	u32 version = ext4_sb_of(dir)->def_hash_version;
	struct dir_scan sc;
	struct buffer *b;
	lblk_t lblk;
	int err = dir_scan_start(&sc, dir, any);

	while (!err) {
		err = dir_scan_next(&sc, &b, &lblk);
		if (err || !b)
			break;
		err = rd_add_block(dir, cur, b, version, 0, KEY_LIMIT);
		buffer_put(b);
	}
	return err;
}

struct rd_inline {
	struct ext4_sb *sbi;
	struct ext4_dir_cursor *cur;
};

static int rd_add_inline(void *priv, const char *name, u32 len, ino_nr ino, u8 ftype)
{
	struct rd_inline *in = priv;
	u64 key;
	int err = key_of_name(in->sbi, in->sbi->def_hash_version, name, len, &key);

	return err ? err :
		     rd_insert(in->cur, key, name, len, ino,
			       ext4_has_incompat(in->sbi, FILETYPE) && ftype < EXT4_FT_MAX ?
				       ftype :
				       EXT4_FT_UNKNOWN);
}

static int rd_fill_inline(struct ext4_inode *dir, struct ext4_dir_cursor *cur)
{
	struct rd_inline in = { ext4_sb_of(dir), cur };

	return ext4_inline_walk(dir, dir->i_inline, dir->vfs.i_size, rd_add_inline, &in);
}

/*
 * From the leaf that has lo through those that continue it; hi is the first
 * key of the leaf after them, which is above lo: the search went to the last
 * leaf that begins at or below, and leaves ascend (htree.c checks).
 */
static int rd_fill_run(struct ext4_inode *dir, struct ext4_dir_cursor *cur,
		       struct dx_path *p)
{
	struct buffer *b;
	u64 low, high;
	lblk_t lblk;
	bool more;
	u32 next = 0;
	int err;

	err = dx_descend(dir, p, (u32)(cur->lo.key >> 32) << 1);
	if (err)
		return err;
	low = key_of_major(dx_this_hash(p));
	for (;;) {
		more = dx_next_hash(p, &next);
		high = more ? key_of_major(next) : KEY_LIMIT;
		dx_readahead(dir, p);
		/* The next leaf's first hash may be here too, if continued. */
		if (more && (next & 1))
			high += (u64)1 << 32;
		err = dx_leaf(dir, p, &lblk, &b);
		if (err)
			return err;
		err = rd_add_block(dir, cur, b, p->version, low, high);
		buffer_put(b);
		if (err)
			return err;
		if (!more || !(next & 1))
			break;
		low = key_of_major(next);
		err = dx_next(dir, p);
		if (err)
			return err;
	}
	if (high < cur->hi.key)
		bound_set(&cur->hi, high, NULL, 0);
	return 0;
}

static int rd_fill_index(struct ext4_inode *dir, struct ext4_dir_cursor *cur)
{
	struct dx_path p;
	int err = dx_open(dir, &p);

	if (err)
		return err;
	err = rd_fill_run(dir, cur, &p);
	dx_close(&p);
	return err;
}

static void rd_reset(struct ext4_dir_cursor *cur)
{
	bound_set(&cur->hi, KEY_LIMIT, NULL, 0);
	cur->nr = 0;
	cur->names_len = 0;
}

/* Fills a range that begins at `from`. */
static int rd_fill(struct ext4_inode *dir, struct ext4_dir_cursor *cur,
		   const struct rd_bound *from)
{
	bool indexed = ext4_dir_is_indexed(dir);
	bool linear = (!indexed || dx_broken(dir)) && !dir->i_inline;
	int err = 0;

	cur->valid = false;
	bound_set(&cur->lo, from->key, from->name, from->len);
	rd_reset(cur);
	if (dir->i_inline) {
		err = rd_fill_inline(dir, cur);
	} else if (!linear) {
		err = rd_fill_index(dir, cur);
		linear = dir_err_is_corruption(err) && dx_broken(dir);
		if (linear)
			rd_reset(cur);
	}
	if (linear)
		err = rd_fill_linear(dir, cur, indexed);
	if (err)
		return err;
	rd_sort(cur);
	cur->version = dir->vfs.i_version;
	cur->valid = true;
	return 0;
}

/* ------------------------------------------------------------------ listing */

/* The first entry at or after a bound. */
static u32 rd_search(const struct ext4_dir_cursor *cur, const struct rd_bound *at)
{
	u32 low = 0, high = cur->nr;

	while (low < high) {
		u32 mid = low + (high - low) / 2;
		const struct rd_entry *e = &cur->entries[mid];

		if (bound_cmp(e->key, cur->names + e->name, e->len, at) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* Is `at` in the range, and the range up to date? */
static bool rd_covers(const struct ext4_inode *dir,
		      const struct ext4_dir_cursor *cur, const struct rd_bound *at)
{
	return cur->valid && cur->version == dir->vfs.i_version &&
	       bound_cmp(at->key, at->name, at->len, &cur->lo) >= 0 &&
	       bound_cmp(at->key, at->name, at->len, &cur->hi) < 0;
}

/* Does another name of the key of entry i follow, here or in the next range? */
static bool rd_key_goes_on(const struct ext4_dir_cursor *cur, u32 i)
{
	u64 key = cur->entries[i].key;

	if (i + 1 < cur->nr)
		return cur->entries[i + 1].key == key;
	return cur->hi.key == key;
}

/* Emits the range from *at on, which becomes hi; false: emit stopped. */
static bool rd_emit(struct ext4_dir_cursor *cur, struct rd_bound *at, u64 *pos,
		   ext4_dir_emit emit, void *priv)
{
	for (u32 i = rd_search(cur, at); i < cur->nr; i++) {
		const struct rd_entry *e = &cur->entries[i];
		bool goes_on = rd_key_goes_on(cur, i);
		u64 next = goes_on ? e->key : e->key + 1;

		if (emit(priv, cur->names + e->name, e->len, e->ino, e->ftype,
			 next))
			return false;
		*pos = next;
		cur->resume.len = 0;
		if (goes_on) {
			bound_set(&cur->resume, e->key, cur->names + e->name,
				  e->len);
			cur->resume.name[cur->resume.len++] = '\0';
		}
	}
	*at = cur->hi;
	return true;
}

static int rd_names(struct ext4_inode *dir, struct ext4_dir_cursor *cur,
		    u64 *pos, ext4_dir_emit emit, void *priv)
{
	struct rd_bound at;
	int err;

	if (cur->resume.len && cur->resume.key == *pos) {
		at = cur->resume;
	} else {
		cur->resume.len = 0;
		bound_set(&at, max_of(*pos, (u64)KEY_FIRST), NULL, 0);
	}
	while (at.key < KEY_LIMIT) {
		if (!rd_covers(dir, cur, &at)) {
			err = rd_fill(dir, cur, &at);
			if (err)
				return err;
		}
		if (!rd_emit(cur, &at, pos, emit, priv))
			return 0;
	}
	*pos = KEY_END;
	return 0;
}

/* "." or ".."; *stop if it was not taken. */
static int rd_dots(struct ext4_inode *dir, u64 *pos, ext4_dir_emit emit,
		   void *priv, bool *stop)
{
	u64 next = *pos + 1;
	bool dot = *pos == KEY_DOT;
	ino_nr ino = dir->vfs.i_ino;
	int err;

	if (!dot) {
		err = ext4_dir_get_dotdot(dir, &ino);
		if (err)
			return err;
	}
	*stop = emit(priv, "..", dot ? 1 : 2, ino, EXT4_FT_DIR, next) != 0;
	if (!*stop)
		*pos = next;
	return 0;
}

int ext4_readdir(struct ext4_inode *dir, struct ext4_dir_cursor *cur, u64 *pos,
		 ext4_dir_emit emit, void *priv)
{
	struct ext4_dir_cursor *own = NULL;
	bool stop = false;
	int err = 0;

	while (*pos <= KEY_DOTDOT && !err && !stop)
		err = rd_dots(dir, pos, emit, priv, &stop);
	if (err || stop || *pos >= KEY_LIMIT)
		return err;
	if (!cur) {
		own = ext4_dir_cursor_new();
		if (!own)
			return -ENOMEM;
		cur = own;
	}
	err = rd_names(dir, cur, pos, emit, priv);
	ext4_dir_cursor_free(own);
	return err;
}
