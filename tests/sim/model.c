/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/sim/model.c - the reference tree (see model.h)
 *
 * Inodes are kept until the end of the model, names gone or not: a power cut
 * may bring them back. A file's history is a list of changes (bytes written,
 * size set), each with the number of its operation; contents are made from it
 * when they are asked for.
 *
 * Locks: none.
 */
#include "tests/sim/model.h"

#include "fs/fs.h"

#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>

#define NAME_MAX_LEN 255
#define LINK_LIMIT 65000

enum change_kind { CH_WRITE, CH_ZERO, CH_SIZE, CH_GROW, CH_SHIFT };

#define SHIFTS (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE)
/* Of all that is shifted: whole blocks, whatever their size. */
#define SHIFT_UNIT 4096u

struct change {
	enum change_kind kind;
	u32 op;
	u64 off; /* CH_SIZE, CH_GROW: the new size */
	u32 len;
	u64 seed;
	u8 *copied; /* CH_WRITE: the bytes, if they are not the seed's; CH_SHIFT: from
		     * off to the end */
	u32 gap;    /* CH_SHIFT: bytes from off on that may be zero before it is done */
	u64 size; /* after it */
};

struct m_inode {
	struct m_inode *next_all;
	u32 mode, uid, gid, nlink;
	char *target;
	u32 changed;      /* operations up to the last change of the inode */
	u32 changed_data; /* ... that fdatasync needs */
	struct change *ch;
	u32 nr_ch, max_ch;
	u64 size;
	/* Data durable: all changes of operations before [i].op, when as many
	 * operations were done; or, with by_tree, when the tree found must
	 * have had as many. Ascending. */
	struct mark {
		u32 op;
		bool by_tree;
	} *mark;
	u32 nr_mark, max_mark;
	bool lost;
	bool block_map; /* no extents: by OP_MIGRATE */
	/* mtime, in the order of operations; of the run: some time meanwhile */
	struct stamp {
		u32 op;
		bool of_run;
		bool failed; /* may have happened */
		s64 sec;
		u32 nsec;
	} *stamp;
	u32 nr_stamp, max_stamp;
	/* directories */
	struct m_name *names;
	struct m_inode *parent;
	struct m_xattr {
		bool there;
		u32 len;
		u64 seed; /* of its bytes */
	} xattr[SIM_XATTRS];
};

struct m_name {
	struct m_name *next;
	struct m_inode *inode;
	char name[NAME_MAX_LEN + 1];
};

struct model {
	bool sync, faults, block_maps, bigalloc;
	u32 blocksize;
	struct m_inode *root, *all;
	struct m_inode *slot[SIM_HANDLES];
	u32 ops;
	u32 *promise;
	u64 *hash; /* [n]: after n operations */
	u32 max;
	struct listing scratch;
};

static void *grown(void *p, u32 nr, u32 *max, size_t each)
{
	if (nr < *max)
		return p;
	*max = *max ? 2 * *max : 16;
	p = realloc(p, *max * each);
	if (!p)
		abort();
	return p;
}

static void *zalloc(size_t n)
{
	void *p = calloc(1, n);

	if (!p)
		abort();
	return p;
}

/* ---- listings ---- */

void listing_init(struct listing *l)
{
	memset(l, 0, sizeof(*l));
}

static void listing_clear(struct listing *l)
{
	for (u32 i = 0; i < l->nr; i++)
		free(l->line[i]);
	l->nr = 0;
}

void listing_release(struct listing *l)
{
	listing_clear(l);
	free(l->line);
	listing_init(l);
}

void listing_add(struct listing *l, const char *path, u32 type_mode, u32 uid, u32 gid,
		 u32 nlink, const char *extra)
{
	char *line;

	l->line = grown(l->line, l->nr, &l->max, sizeof(*l->line));
	if (asprintf(&line, "%s %o %u:%u links %u %s", path, type_mode, uid, gid, nlink,
		     extra) < 0)
		abort();
	l->line[l->nr++] = line;
}

static int line_cmp(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

void listing_sort(struct listing *l)
{
	if (l->nr)
		qsort(l->line, l->nr, sizeof(*l->line), line_cmp);
}

u64 listing_hash(const struct listing *l)
{
	u64 h = 0xCBF29CE484222325ull;

	for (u32 i = 0; i < l->nr; i++)
		for (const char *p = l->line[i];; p++) {
			h = (h ^ (u8)*p) * 0x100000001B3ull;
			if (!*p)
				break;
		}
	return h;
}

/* Runs of the padding of long names are shown as "x~". */
static void print_short(const char *head, const char *line)
{
	char out[240];
	u32 n = 0;

	for (; *line && n < sizeof(out) - 3; line++) {
		out[n++] = *line;
		if (*line == 'x' && line[1] == 'x') {
			out[n++] = '~';
			while (line[1] == 'x')
				line++;
		}
	}
	out[n] = 0;
	fprintf(stderr, "    %s %s\n", head, out);
}

void listing_diff(const struct listing *a, const struct listing *b)
{
	u32 i = 0, k = 0, shown = 0;

	while ((i < a->nr || k < b->nr) && shown < 12) {
		int c = i == a->nr ? 1 : k == b->nr ? -1 : strcmp(a->line[i], b->line[k]);

		if (!c) {
			i++;
			k++;
			continue;
		}
		print_short(c < 0 ? "expected" : "found   ",
			    c < 0 ? a->line[i++] : b->line[k++]);
		shown++;
	}
}

/* ---- the tree ---- */

/* op NULL: by something that takes the present time. */
static void stamped(struct model *m, struct m_inode *in, const struct sim_op *op, bool failed)
{
	struct stamp *s;

	in->stamp = grown(in->stamp, in->nr_stamp, &in->max_stamp, sizeof(*in->stamp));
	s = &in->stamp[in->nr_stamp++];
	*s = (struct stamp){ .op = m->ops, .of_run = !op, .failed = failed };
	if (op) {
		s->sec = (s64)op->off;
		s->nsec = op->len;
	}
}

static struct m_inode *inode_new(struct model *m, u32 mode)
{
	struct m_inode *in = zalloc(sizeof(*in));

	stamped(m, in, NULL, false);
	in->mode = mode;
	in->next_all = m->all;
	m->all = in;
	return in;
}

static struct m_name *find_in(struct m_inode *dir, const char *name, size_t len)
{
	for (struct m_name *n = dir->names; n; n = n->next)
		if (!strncmp(n->name, name, len) && !n->name[len])
			return n;
	return NULL;
}

/* The directory of path and the rest of it. 0 or -errno. */
static int find_dir(struct model *m, const char *path, struct m_inode **dir,
		    const char **last)
{
	struct m_inode *at = m->root;
	const char *slash;

	while ((slash = strchr(path, '/'))) {
		struct m_name *n;

		if (!S_ISDIR(at->mode))
			return -ENOTDIR;
		n = find_in(at, path, (size_t)(slash - path));
		if (!n)
			return -ENOENT;
		at = n->inode;
		path = slash + 1;
	}
	if (!S_ISDIR(at->mode))
		return -ENOTDIR;
	*dir = at;
	*last = path;
	return strlen(path) > NAME_MAX_LEN ? -ENAMETOOLONG : 0;
}

static struct m_inode *find_path(struct model *m, const char *path, int *err)
{
	struct m_inode *dir;
	struct m_name *n;
	const char *last;

	*err = 0;
	if (!*path)
		return m->root;
	*err = find_dir(m, path, &dir, &last);
	if (*err)
		return NULL;
	n = find_in(dir, last, strlen(last));
	if (!n)
		*err = -ENOENT;
	return n ? n->inode : NULL;
}

struct m_inode *model_find(struct model *m, const char *path)
{
	int err;

	return find_path(m, path, &err);
}

static void name_add(struct m_inode *dir, const char *name, struct m_inode *in)
{
	struct m_name *n = zalloc(sizeof(*n));

	strcpy(n->name, name);
	n->inode = in;
	n->next = dir->names;
	dir->names = n;
	if (S_ISDIR(in->mode)) {
		dir->nlink++;
		in->parent = dir;
	}
}

static void name_remove(struct m_inode *dir, const char *name)
{
	struct m_name **p = &dir->names, *n;

	while (strcmp((*p)->name, name))
		p = &(*p)->next;
	n = *p;
	*p = n->next;
	if (S_ISDIR(n->inode->mode))
		dir->nlink--;
	free(n);
}

static void list_dir(struct listing *l, struct m_inode *dir, char *path, size_t len)
{
	char extra[4200] = "";

	for (struct m_name *n = dir->names; n; n = n->next) {
		struct m_inode *in = n->inode;
		size_t nlen = strlen(n->name);

		path[len] = '/';
		memcpy(path + len + 1, n->name, nlen + 1);
		/* Which names share an inode shows in links and contents;
		 * the size is data. */
		snprintf(extra, sizeof(extra), "%s", in->target ? in->target : "");
		for (u32 i = 0; i < SIM_XATTRS; i++)
			if (in->xattr[i].there)
				sim_xattr_text_of(extra, sizeof(extra), i,
						  in->xattr[i].seed, in->xattr[i].len);
		listing_add(l, path, in->mode, in->uid, in->gid, in->nlink, extra);
		if (S_ISDIR(in->mode))
			list_dir(l, in, path, len + 1 + nlen);
	}
	path[len] = 0;
}

void model_listing(struct model *m, struct listing *l)
{
	char *path = zalloc(65536);

	listing_clear(l);
	list_dir(l, m->root, path, 0);
	listing_sort(l);
	free(path);
}

static void each_name(struct m_inode *dir, char *path, size_t len,
		      void (*fn)(void *, const char *, struct m_inode *), void *priv)
{
	for (struct m_name *n = dir->names; n; n = n->next) {
		size_t nlen = strlen(n->name);

		path[len] = '/';
		memcpy(path + len + 1, n->name, nlen + 1);
		fn(priv, path + 1, n->inode);
		if (S_ISDIR(n->inode->mode))
			each_name(n->inode, path, len + 1 + nlen, fn, priv);
	}
	path[len] = 0;
}

void model_each_name(struct model *m,
		     void (*fn)(void *priv, const char *path, struct m_inode *inode),
		     void *priv)
{
	char *path = zalloc(65536);

	each_name(m->root, path, 0, fn, priv);
	free(path);
}

struct model *model_new(bool sync, bool faults, const struct sim_mkfs *mk)
{
	struct model *m = zalloc(sizeof(*m));

	m->sync = sync;
	m->faults = faults;
	m->block_maps = mk->block_maps;
	m->bigalloc = mk->bigalloc;
	m->blocksize = mk->blocksize;
	m->root = inode_new(m, S_IFDIR | 0755);
	m->root->nlink = 2;
	m->hash = grown(m->hash, 0, &m->max, sizeof(*m->hash));
	m->promise = zalloc(m->max * sizeof(*m->promise));
	model_listing(m, &m->scratch);
	m->hash[0] = listing_hash(&m->scratch);
	return m;
}

void model_free(struct model *m)
{
	while (m->all) {
		struct m_inode *in = m->all;

		m->all = in->next_all;
		while (in->names) {
			struct m_name *n = in->names;

			in->names = n->next;
			free(n);
		}
		free(in->target);
		for (u32 i = 0; i < in->nr_ch; i++)
			free(in->ch[i].copied);
		free(in->ch);
		free(in->mark);
		free(in->stamp);
		free(in);
	}
	listing_release(&m->scratch);
	free(m->hash);
	free(m->promise);
	free(m);
}

u32 model_ops(const struct model *m)
{
	return m->ops;
}

u32 model_promise(const struct model *m, u32 k)
{
	return m->promise[k];
}

u64 model_hash(const struct model *m, u32 n)
{
	return m->hash[n];
}

struct m_inode *model_slot(struct model *m, u32 slot)
{
	return m->slot[slot];
}

u64 m_inode_size(const struct m_inode *inode)
{
	return inode->size;
}

u32 m_inode_mode(const struct m_inode *inode)
{
	return inode->mode;
}

bool m_inode_is_lost(const struct m_inode *inode)
{
	return inode->lost;
}

void model_lose_data(struct model *m)
{
	for (struct m_inode *in = m->all; in; in = in->next_all)
		in->lost |= in->nr_ch > 0;
}

/* ---- what an operation must return ---- */

static s64 expect_new(struct model *m, const struct sim_op *op)
{
	struct m_inode *dir;
	const char *last;
	int err = find_dir(m, op->path, &dir, &last);

	if (err)
		return err;
	if (find_in(dir, last, strlen(last)))
		return -EEXIST;
	return op->kind == OP_MKDIR && dir->nlink >= LINK_LIMIT ? -EMLINK : 0;
}

static s64 expect_link(struct model *m, const struct sim_op *op)
{
	struct m_inode *in, *dir;
	const char *last;
	int err;

	in = find_path(m, op->path, &err);
	if (err)
		return err;
	err = find_dir(m, op->path2, &dir, &last);
	if (err)
		return err;
	if (S_ISDIR(in->mode))
		return -EPERM;
	return find_in(dir, last, strlen(last)) ? -EEXIST : 0;
}

static bool is_below(const struct m_inode *in, const struct m_inode *above)
{
	for (; in; in = in->parent)
		if (in == above)
			return true;
	return false;
}

static s64 expect_rename(struct model *m, const struct sim_op *op)
{
	struct m_inode *from, *fdir, *tdir, *to;
	const char *flast, *tlast;
	struct m_name *n;
	int err = find_dir(m, op->path, &fdir, &flast);

	if (!err)
		err = find_dir(m, op->path2, &tdir, &tlast);
	if (err)
		return err;
	n = find_in(fdir, flast, strlen(flast));
	if (!n)
		return -ENOENT;
	from = n->inode;
	n = find_in(tdir, tlast, strlen(tlast));
	to = n ? n->inode : NULL;
	if (op->flags & RENAME_EXCHANGE && !to)
		return -ENOENT;
	if (op->flags & RENAME_NOREPLACE && to)
		return -EEXIST;
	if (S_ISDIR(from->mode) && is_below(tdir, from))
		return -EINVAL;
	if (to && S_ISDIR(to->mode) && is_below(fdir, to))
		return op->flags & RENAME_EXCHANGE ? -EINVAL : -ENOTEMPTY;
	if (!to || to == from || op->flags & RENAME_EXCHANGE)
		return 0;
	if (S_ISDIR(from->mode) && !S_ISDIR(to->mode))
		return -ENOTDIR;
	if (!S_ISDIR(from->mode) && S_ISDIR(to->mode))
		return -EISDIR;
	return S_ISDIR(to->mode) && to->names ? -ENOTEMPTY : 0;
}

static s64 expect_copy(struct model *m, const struct sim_op *op)
{
	struct m_inode *to, *from;
	int err;
	u64 n;

	to = find_path(m, op->path, &err);
	if (err)
		return err;
	if (!S_ISREG(to->mode))
		return -EINVAL;
	from = find_path(m, op->path2, &err);
	if (err)
		return err;
	if (!S_ISREG(from->mode))
		return -EINVAL;
	n = op->seed < from->size ? min_of((u64)op->len, from->size - op->seed) : 0;
	if (to == from && op->off + n > op->seed && op->off < op->seed + n)
		return -EINVAL;
	return (s64)n;
}

static s64 expect_move(struct model *m, const struct sim_op *op)
{
	struct m_inode *in, *donor;
	int err;

	in = find_path(m, op->path, &err);
	if (err)
		return err;
	if (!S_ISREG(in->mode))
		return -EINVAL;
	donor = find_path(m, op->path2, &err);
	if (err)
		return err;
	if (!S_ISREG(donor->mode) || in == donor)
		return -EINVAL;
	if (m->bigalloc || m->block_maps || in->block_map || donor->block_map)
		return -EOPNOTSUPP;
	return op->off < in->size && op->seed < donor->size ? 0 : -EINVAL;
}

static s64 expect_xattr(struct model *m, const struct sim_op *op)
{
	struct m_inode *in;
	bool there;
	int err;

	in = find_path(m, op->path, &err);
	if (err)
		return err;
	there = in->xattr[op->slot].there;
	if (op->kind == OP_RMXATTR || op->flags & SL_XATTR_REPLACE)
		return there ? 0 : -ENODATA;
	return there && op->flags & SL_XATTR_CREATE ? -EEXIST : 0;
}

static s64 expect_shift(const struct m_inode *in, const struct sim_op *op)
{
	bool collapse = op->flags == FALLOC_FL_COLLAPSE_RANGE;

	if ((op->off | op->len) % SHIFT_UNIT || !op->len)
		return -EINVAL;
	return (collapse ? op->off + op->len : op->off) >= in->size ? -EINVAL : 0;
}

static s64 expect_file(struct model *m, const struct sim_op *op)
{
	struct m_inode *in;
	int err;

	in = find_path(m, op->path, &err);
	if (err)
		return err;
	if (op->kind == OP_CHMOD || op->kind == OP_CHOWN || op->kind == OP_UTIMES)
		return S_ISLNK(in->mode) && op->kind == OP_CHMOD ? -EOPNOTSUPP : 0;
	if (op->kind == OP_FSYNC || op->kind == OP_FDATASYNC)
		return S_ISREG(in->mode) || S_ISDIR(in->mode) ? 0 : -EINVAL;
	if (!S_ISREG(in->mode))
		return -EINVAL;
	if (m->bigalloc && (op->kind == OP_RELOCATE ||
			    (op->kind == OP_FALLOC && op->flags & SHIFTS)))
		return -EOPNOTSUPP;
	if ((m->block_maps || in->block_map) &&
	    (op->kind == OP_RELOCATE ||
	     (op->kind == OP_FALLOC && !(op->flags & FALLOC_FL_PUNCH_HOLE))))
		return -EOPNOTSUPP;
	if (op->kind == OP_FALLOC && op->flags & SHIFTS)
		return expect_shift(in, op);
	return op->kind == OP_WRITE ? op->len : 0;
}

s64 model_expect(struct model *m, const struct sim_op *op)
{
	struct m_inode *in;
	int err;

	switch (op->kind) {
	case OP_CREATE:
	case OP_MKDIR:
	case OP_SYMLINK:
	case OP_MKNOD:
		return expect_new(m, op);
	case OP_LINK:
		return expect_link(m, op);
	case OP_UNLINK:
		in = find_path(m, op->path, &err);
		return err ? err : S_ISDIR(in->mode) ? -EISDIR : 0;
	case OP_RMDIR:
		in = find_path(m, op->path, &err);
		if (err)
			return err;
		return !S_ISDIR(in->mode) ? -ENOTDIR : in->names ? -ENOTEMPTY : 0;
	case OP_RENAME:
		return expect_rename(m, op);
	case OP_COPY:
		return expect_copy(m, op);
	case OP_MOVE:
		return expect_move(m, op);
	case OP_SETXATTR:
	case OP_RMXATTR:
		return expect_xattr(m, op);
	case OP_HOLD:
		if (m->slot[op->slot])
			return -EBUSY;
		return expect_file(m, op);
	case OP_DROP:
	case OP_HTRUNC:
	case OP_HSYNC:
		return m->slot[op->slot] ? 0 : -EBADF;
	case OP_HWRITE:
		return m->slot[op->slot] ? (s64)op->len : -EBADF;
	case OP_SYNC:
	case OP_CACHES:
		return 0;
	default:
		return expect_file(m, op);
	}
}

/* ---- changes ---- */

static void add_change(struct model *m, struct m_inode *in, enum change_kind kind,
		       u64 off, u32 len, u64 seed)
{
	struct change *c;

	in->ch = grown(in->ch, in->nr_ch, &in->max_ch, sizeof(*in->ch));
	c = &in->ch[in->nr_ch++];
	*c = (struct change){ .kind = kind, .op = m->ops, .off = off, .len = len,
			      .seed = seed };
	if (kind == CH_SIZE || kind == CH_GROW)
		in->size = off;
	else if (kind == CH_SHIFT)
		in->size = off + len;
	else if (kind == CH_WRITE && off + len > in->size)
		in->size = off + len;
	c->size = in->size;
}

static void touched(struct model *m, struct m_inode *in, bool data)
{
	in->changed = m->ops + 1;
	if (data)
		in->changed_data = m->ops + 1;
	if (S_ISDIR(in->mode))
		stamped(m, in, NULL, false);
}

static void data_durable(struct model *m, struct m_inode *in, bool by_tree)
{
	if (in->lost || (by_tree && m->faults))
		return;
	in->mark = grown(in->mark, in->nr_mark, &in->max_mark, sizeof(*in->mark));
	in->mark[in->nr_mark++] = (struct mark){ .op = m->ops + 1, .by_tree = by_tree };
}

static void apply_new(struct model *m, const struct sim_op *op)
{
	static const u32 type[] = { [OP_CREATE] = S_IFREG, [OP_MKDIR] = S_IFDIR,
				    [OP_MKNOD] = S_IFIFO };
	struct m_inode *dir, *in;
	const char *last;

	if (find_dir(m, op->path, &dir, &last))
		return;
	if (op->kind == OP_SYMLINK) {
		in = inode_new(m, S_IFLNK | 0777);
		in->target = zalloc(op->len + 1);
		sim_target(op->seed, op->len, in->target);
	} else {
		in = inode_new(m, type[op->kind] | op->mode);
	}
	in->nlink = op->kind == OP_MKDIR ? 2 : 1;
	name_add(dir, last, in);
	touched(m, in, true);
	touched(m, dir, true);
}

static void apply_link(struct model *m, const struct sim_op *op)
{
	struct m_inode *in = model_find(m, op->path), *dir;
	const char *last;

	if (!in || find_dir(m, op->path2, &dir, &last))
		return;
	in->nlink++;
	name_add(dir, last, in);
	touched(m, in, false);
	touched(m, dir, true);
}

static void apply_remove(struct model *m, const char *path)
{
	struct m_inode *dir, *in = model_find(m, path);
	const char *last;

	if (!in || find_dir(m, path, &dir, &last))
		return;
	name_remove(dir, last);
	in->nlink -= S_ISDIR(in->mode) ? 2 : 1;
	touched(m, in, false);
	touched(m, dir, true);
}

static void apply_rename(struct model *m, const struct sim_op *op)
{
	struct m_inode *from = model_find(m, op->path);
	struct m_inode *to = model_find(m, op->path2);
	struct m_inode *fdir, *tdir;
	const char *flast, *tlast;

	if (!from || from == to || find_dir(m, op->path, &fdir, &flast) ||
	    find_dir(m, op->path2, &tdir, &tlast))
		return;
	if (op->flags & RENAME_EXCHANGE) {
		name_remove(fdir, flast);
		name_remove(tdir, tlast);
		name_add(fdir, flast, to);
		name_add(tdir, tlast, from);
		touched(m, to, false);
	} else {
		if (to) {
			apply_remove(m, op->path2);
			if (S_ISREG(from->mode))
				data_durable(m, from, true);
		}
		name_remove(fdir, flast);
		name_add(tdir, tlast, from);
	}
	touched(m, from, false);
	touched(m, fdir, true);
	touched(m, tdir, true);
}

static u32 apply_persist(struct model *m, struct m_inode *in, bool datasync)
{
	if (!in)
		return 0;
	if (S_ISREG(in->mode))
		data_durable(m, in, false);
	return datasync ? in->changed_data : in->changed;
}

static void all_durable(struct model *m)
{
	for (struct m_inode *in = m->all; in; in = in->next_all)
		if (S_ISREG(in->mode))
			data_durable(m, in, false);
}

static u32 apply_write(struct model *m, struct m_inode *in, const struct sim_op *op,
		       s64 result)
{
	if (!in || result <= 0)
		return 0;
	add_change(m, in, CH_WRITE, op->off, (u32)result, op->seed);
	/* A size or a block that fdatasync needs travels with the data. */
	touched(m, in, false);
	if (op->kind == OP_WRITE && op->flags & (SL_OPEN_SYNC | SL_OPEN_DSYNC))
		return apply_persist(m, in, !(op->flags & SL_OPEN_SYNC));
	return 0;
}

/* op->seed: where in path2. */
static u32 apply_copy(struct model *m, struct m_inode *to, const struct sim_op *op,
		      s64 result)
{
	struct m_inode *from = model_find(m, op->path2);
	u8 *bytes;

	if (!to || !from || result <= 0)
		return 0;
	bytes = zalloc((size_t)result);
	m_inode_read(from, op->seed, bytes, (u32)result);
	add_change(m, to, CH_WRITE, op->off, (u32)result, 0);
	to->ch[to->nr_ch - 1].copied = bytes;
	to->lost |= from->lost;
	touched(m, to, false);
	return 0;
}

/* zeroed: a bit for each block of the donor's range that is to read as zero. The file is as
 * it was. */
static void apply_move(struct model *m, const struct sim_op *op, s64 result, u64 zeroed)
{
	struct m_inode *donor = model_find(m, op->path2);

	if (!donor || !S_ISREG(donor->mode))
		return;
	/* As far as it got, nobody knows. */
	if (result < 0 && result != -EINVAL && result != -EOPNOTSUPP)
		donor->lost = true;
	for (u32 i = 0; result >= 0 && i < SIM_MOVE_MAX; i++)
		if (zeroed >> i & 1)
			add_change(m, donor, CH_ZERO, op->seed + (u64)i * m->blocksize,
				   m->blocksize, 0);
}

static void apply_xattr(struct model *m, struct m_inode *in, const struct sim_op *op)
{
	struct m_xattr *x = &in->xattr[op->slot];

	x->there = op->kind == OP_SETXATTR;
	x->len = op->len;
	x->seed = op->seed;
	in->changed = m->ops + 1;
}

/* As far as it got, nobody knows: the content may be the old one, or zero. */
static void half_zeroed(struct model *m, struct m_inode *in, const struct sim_op *op)
{
	if (op->flags & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE | SHIFTS))
		in->lost = true;
}

/* What is behind the range is somewhere else now. */
static u32 apply_shift(struct model *m, struct m_inode *in, const struct sim_op *op)
{
	bool collapse = op->flags == FALLOC_FL_COLLAPSE_RANGE;
	u64 from = collapse ? op->off + op->len : op->off;
	u32 rest = (u32)(in->size - from), hole = collapse ? 0 : op->len;
	struct change *c;
	u8 *bytes;

	if (in->lost && from >= in->size) {
		/* Longer than what is known of it, of which nothing moves. */
		touched(m, in, true);
		return 0;
	}
	bytes = zalloc((size_t)hole + rest);
	m_inode_read(in, from, bytes + hole, rest);
	add_change(m, in, CH_SHIFT, op->off, hole + rest, 0);
	c = &in->ch[in->nr_ch - 1];
	c->copied = bytes;
	c->gap = op->len;
	touched(m, in, true);
	return 0;
}

/* Every operation on the inode but those that surely leave mtime alone. */
static bool may_stamp(enum sim_op_kind kind)
{
	switch (kind) {
	case OP_CHMOD:
	case OP_CHOWN:
	case OP_SETXATTR:
	case OP_RMXATTR:
	case OP_READ:
	case OP_FSYNC:
	case OP_FDATASYNC:
	case OP_HOLD:
	case OP_DROP:
	case OP_HSYNC:
	case OP_LINK:
	case OP_UNLINK:
	case OP_RENAME:
	case OP_RELOCATE:
	case OP_MIGRATE:
	case OP_MOVE:
		return false;
	default:
		return true;
	}
}

static u32 apply_one(struct model *m, const struct sim_op *op, s64 result, u64 size_after)
{
	struct m_inode *in = op->path ? model_find(m, op->path) : m->slot[op->slot];
	bool grows;

	if (op->kind == OP_FALLOC && result == -EOPNOTSUPP)
		return 0;
	/* Also after an error: what it has. */
	if (op->kind == OP_MIGRATE && in && S_ISREG(in->mode))
		in->block_map = size_after & SIM_BLOCK_MAP;
	if (op->kind == OP_MOVE)
		apply_move(m, op, result, size_after);
	if (op->kind == OP_FALLOC && result < 0 && in)
		half_zeroed(m, in, op);
	if (in && op->kind == OP_UTIMES)
		stamped(m, in, op, result < 0);
	else if (in && may_stamp(op->kind))
		stamped(m, in, NULL, result < 0);
	if (op->kind == OP_FALLOC && op->flags & SHIFTS && result < 0 && in && size_after &&
	    size_after < in->size)
		add_change(m, in, CH_SIZE, size_after, 0, 0);
	if (op->kind == OP_FALLOC && result < 0 && in && size_after > in->size) {
		add_change(m, in, CH_GROW, size_after, 0, 0);
		touched(m, in, true);
	}
	if (result < 0) {
		if (op->kind == OP_SYNC)
			model_lose_data(m);
		if ((op->kind == OP_FSYNC || op->kind == OP_FDATASYNC ||
		     op->kind == OP_HSYNC || op->kind == OP_WRITE ||
		     op->kind == OP_COPY) && in)
			in->lost = true;
		return 0;
	}
	switch (op->kind) {
	case OP_CREATE:
	case OP_MKDIR:
	case OP_SYMLINK:
	case OP_MKNOD:
		apply_new(m, op);
		return 0;
	case OP_LINK:
		apply_link(m, op);
		return 0;
	case OP_UNLINK:
	case OP_RMDIR:
		apply_remove(m, op->path);
		return 0;
	case OP_RENAME:
		apply_rename(m, op);
		return 0;
	case OP_WRITE:
	case OP_HWRITE:
		return apply_write(m, in, op, result);
	case OP_COPY:
		return apply_copy(m, in, op, result);
	case OP_TRUNCATE:
	case OP_HTRUNC:
		if (!in)
			return 0;
		touched(m, in, in->size != op->off);
		if (in->size != op->off)
			add_change(m, in, CH_SIZE, op->off, 0, 0);
		return 0;
	case OP_FALLOC:
		if (!in)
			return 0;
		if (op->flags & SHIFTS)
			return apply_shift(m, in, op);
		if (op->flags & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
			add_change(m, in, CH_ZERO, op->off, op->len, 0);
		/* What allocates nothing changes nothing that fdatasync needs. */
		grows = !(op->flags & FALLOC_FL_KEEP_SIZE) && op->off + op->len > in->size;
		touched(m, in, grows);
		if (grows)
			add_change(m, in, CH_GROW, op->off + op->len, 0, 0);
		return 0;
	case OP_CHMOD:
	case OP_CHOWN:
		if (in && op->kind == OP_CHMOD)
			in->mode = (in->mode & S_IFMT) | op->mode;
		if (in && op->kind == OP_CHOWN)
			in->uid = in->gid = op->mode;
		if (in)
			touched(m, in, false);
		return 0;
	case OP_UTIMES:
		if (in)
			in->changed = m->ops + 1;
		return 0;
	case OP_MIGRATE:
		/* What is refused changes nothing that an fsync would wait for. */
		if (in && !(size_after & SIM_NOT_MIGRATED))
			touched(m, in, false);
		return 0;
	case OP_SETXATTR:
	case OP_RMXATTR:
		if (in)
			apply_xattr(m, in, op);
		return 0;
	case OP_FSYNC:
	case OP_HSYNC:
		return apply_persist(m, in, false);
	case OP_FDATASYNC:
		return apply_persist(m, in, true);
	case OP_SYNC:
		all_durable(m);
		return m->ops + 1;
	case OP_HOLD:
		m->slot[op->slot] = in;
		return 0;
	case OP_DROP:
		m->slot[op->slot] = NULL;
		return 0;
	default:
		return 0;
	}
}

void model_apply(struct model *m, const struct sim_op *op, s64 result, u64 size_after)
{
	u32 old = m->max, promise = apply_one(m, op, result, size_after);

	m->hash = grown(m->hash, m->ops + 1, &m->max, sizeof(*m->hash));
	if (m->max != old) {
		m->promise = realloc(m->promise, m->max * sizeof(*m->promise));
		if (!m->promise)
			abort();
	}
	/* Mounted with -o sync every change is durable when it returns. */
	if (m->sync && result >= 0 && op->kind < OP_READ) {
		struct m_inode *in = op->path ? model_find(m, op->path)
					      : m->slot[op->slot];

		promise = m->ops + 1;
		if (in && S_ISREG(in->mode) &&
		    (op->kind == OP_WRITE || op->kind == OP_FALLOC ||
		     (op->kind == OP_COPY && result > 0)))
			data_durable(m, in, false);
	}
	m->promise[m->ops] = promise;
	m->ops++;
	if (op->kind <= OP_RENAME || op->kind == OP_CHMOD || op->kind == OP_CHOWN ||
	    op->kind == OP_SETXATTR || op->kind == OP_RMXATTR) {
		model_listing(m, &m->scratch);
		m->hash[m->ops] = listing_hash(&m->scratch);
	} else {
		m->hash[m->ops] = m->hash[m->ops - 1];
	}
}

/* ---- contents ---- */

/* The part of [off, off+len) that c changes is put into buf. */
static void play(const struct change *c, u64 off, u8 *buf, u64 len)
{
	u64 from, to;

	if (c->kind == CH_SIZE || c->kind == CH_GROW) {
		from = max_of(c->off, off);
		if (from < off + len)
			memset(buf + (from - off), 0, off + len - from);
		return;
	}
	from = max_of(c->off, off);
	to = min_of(c->off + c->len, off + len);
	/* Shifted, it ends there. */
	if (c->kind == CH_SHIFT && c->size < off + len)
		memset(buf + (max_of(c->size, off) - off), 0,
		       off + len - max_of(c->size, off));
	if (from >= to)
		return;
	if (c->kind == CH_ZERO)
		memset(buf + (from - off), 0, to - from);
	else if (c->copied)
		memcpy(buf + (from - off), c->copied + (from - c->off), to - from);
	else
		sim_data(c->seed, from, buf + (from - off), (u32)(to - from));
}

void m_inode_read(const struct m_inode *inode, u64 off, u8 *buf, u32 len)
{
	memset(buf, 0, len);
	for (u32 i = 0; i < inode->nr_ch; i++)
		play(&inode->ch[i], off, buf, len);
}

/*
 * Byte by byte: ok[i] says that some state since the lower bound had this
 * value there. A size change that must have happened sets the bound of what lies beyond
 * it anew; and so does a shift, of all behind its start: what was there had to be on the
 * device before. One that may not be done yet may have its range empty.
 */
static bool content_ok(const struct m_inode *in, u32 durable, u32 started, u32 tree,
		       u64 size, const u8 *data, char *why, size_t why_len)
{
	u8 *now = calloc(1, size + 1), *ok = calloc(1, size + 1);
	u64 bad = UINT64_MAX;
	u32 last = 0;
	bool open = false; /* are we at or past the lower bound? */

	if (!now || !ok)
		abort();
	for (u32 i = 0; i <= in->nr_ch; i++) {
		const struct change *c = i < in->nr_ch ? &in->ch[i] : NULL;
		u64 from, to;

		if (!open && (!c || c->op >= durable)) {
			open = true;
			for (u64 k = 0; k < size; k++)
				ok[k] = now[k] == data[k];
		}
		if (!c || c->op >= started)
			break;
		play(c, 0, now, size);
		last = c->op;
		if (!open)
			continue;
		from = min_of(c->off, size);
		to = c->kind == CH_WRITE || c->kind == CH_ZERO
			     ? min_of(c->off + c->len, size) : size;
		for (u64 k = from; k < to; k++) {
			if ((c->kind == CH_SIZE || c->kind == CH_SHIFT) && c->op < tree)
				ok[k] = 0;
			else if (c->kind == CH_SHIFT && k - from < c->gap)
				ok[k] |= data[k] == 0;
			ok[k] |= now[k] == data[k];
		}
	}
	for (u64 k = 0; k < size && bad == UINT64_MAX; k++)
		if (!ok[k])
			bad = k;
	if (bad != UINT64_MAX)
		snprintf(why, why_len,
			 "byte %llu of %llu is %02x, last state has %02x; durable below op "
			 "%u, last change by op %u, tree of %u ops",
			 (unsigned long long)bad, (unsigned long long)size, data[bad],
			 now[bad], durable, last, tree);
	free(now);
	free(ok);
	return bad == UINT64_MAX;
}

static bool size_ok(const struct m_inode *in, u32 durable, u32 started, u32 tree, u64 size,
		    char *why, size_t why_len)
{
	u64 lo = 0, hi = 0;

	for (u32 i = 0; i < in->nr_ch && in->ch[i].op < started; i++) {
		const struct change *c = &in->ch[i];

		if (c->op < durable ||
		    ((c->kind == CH_SIZE || c->kind == CH_GROW || c->kind == CH_SHIFT) &&
		     c->op < tree))
			lo = hi = c->size;
		lo = min_of(lo, c->size);
		hi = max_of(hi, c->size);
	}
	if (size >= lo && size <= hi)
		return true;
	snprintf(why, why_len,
		 "size %llu is not within %llu and %llu; durable below op %u, tree of %u ops",
		 (unsigned long long)size, (unsigned long long)lo, (unsigned long long)hi,
		 durable, tree);
	return false;
}

bool m_inode_could_be(const struct m_inode *inode, u32 done, u32 started, u32 tree,
		      u64 size, const u8 *data, char *why, size_t why_len)
{
	u32 durable = 0;

	for (u32 i = 0; i < inode->nr_mark; i++)
		if (inode->mark[i].op <= (inode->mark[i].by_tree ? tree : done))
			durable = inode->mark[i].op;
	if (inode->lost)
		return true;
	return size_ok(inode, durable, started, tree, size, why, why_len) &&
	       content_ok(inode, durable, started, tree, size, data, why, why_len);
}

/*
 * What was stamped last in the tree's order stays until something later
 * replaces it; later ones may have reached the disk or not.
 */
bool m_inode_mtime_could_be(const struct m_inode *inode, u32 started, u32 tree,
			    const struct timespec *mtime, bool in_run)
{
	bool ok = false;

	for (u32 i = 0; i < inode->nr_stamp && inode->stamp[i].op < started; i++) {
		const struct stamp *s = &inode->stamp[i];

		if (!s->of_run && !s->failed && s->op < tree)
			ok = false;
		ok |= s->of_run ? in_run
				: s->sec == mtime->tv_sec && s->nsec == (u32)mtime->tv_nsec;
	}
	return ok;
}
