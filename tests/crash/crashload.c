/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/crash/crashload.c - a workload that knows afterwards what must be there
 *
 * Each thread works on names of its own: in its directory "t<i>", in
 * subdirectories of that, and in the directory "s" that all share. So each
 * thread's history is a sequence, while directories, groups, inode tables and
 * the journal are shared by all. Every operation is written to the log before it
 * starts ("B") and after it ended ("E"); the log is a mapped file outside of
 * the volume, so that nothing of it is lost with either process.
 *
 * What a recovery must give, per thread:
 *
 *   names     The names, kinds, modes and link counts are those after a prefix of
 *             the thread's operations: an operation joins the running
 *             transaction or a later one, never an earlier one. The prefix
 *             ends no earlier than the last operation that a completed fsync
 *             (of the file, or of the directory) or sync has made durable.
 *   contents  Every 16 bytes name their file, their place, and the operation
 *             that wrote them. They are those of the last durable state of the
 *             file, or of an operation after that; zeros only where the
 *             durable state had none of the file's data or a truncation came
 *             after it. What a truncation that is certain to have happened
 *             has cut off does not come back. Anything else (another file's
 *             data, what was on the device before) is an error.
 *   size      Between the smallest and the largest since the durable state.
 *
 * A file is known again by its permission bits, which are its number modulo
 * 512, so that names can be compared without reading contents.
 *
 * Locks:   log slots are handed out by an atomic counter; nothing else is
 *          shared by the threads
 */
#include "tests/crash/crashload.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define GRANULE 16
#define FILE_MAX (2u << 20)
#define THREAD_BYTES_MAX (8u << 20)
#define PATH_LEN 512 /* expanded */

/* ---- the log ---- */

#define SLOT 128
#define LOG_SLOTS (1u << 20)

struct log_file {
	char *map;
	_Atomic uint32_t *next; /* the first slot holds the counter */
};

static int log_open(struct log_file *log, const char *path, int flags)
{
	int fd = open(path, O_RDWR | O_CLOEXEC | flags, 0644);

	if (fd < 0 || ftruncate(fd, (off_t)SLOT * LOG_SLOTS)) {
		perror(path);
		return 1;
	}
	log->map = mmap(NULL, (size_t)SLOT * LOG_SLOTS, PROT_READ | PROT_WRITE,
			MAP_SHARED, fd, 0);
	close(fd);
	if (log->map == MAP_FAILED) {
		perror(path);
		return 1;
	}
	log->next = (void *)log->map;
	if (flags & O_TRUNC)
		atomic_store(log->next, 1);
	return 0;
}

static void log_close(struct log_file *log)
{
	munmap(log->map, (size_t)SLOT * LOG_SLOTS);
}

/*
 * A slot counts once its last byte is set: a process killed half way through
 * leaves one that is passed over. The order of slots is the order in which
 * they were asked for, so "E" before another thread's "B" did happen before.
 */
static bool log_put(struct log_file *log, const char *text)
{
	uint32_t n = atomic_fetch_add(log->next, 1);
	char *slot;

	if (n >= LOG_SLOTS)
		return false;
	slot = log->map + (size_t)n * SLOT;
	memset(slot, ' ', SLOT - 1);
	memcpy(slot, text, strlen(text));
	atomic_thread_fence(memory_order_release);
	*(volatile char *)(slot + SLOT - 1) = '\n';
	return true;
}

/* ---- operations ---- */

enum op_kind {
	OP_CREATE, OP_WRITE, OP_TRUNC, OP_FALLOC, OP_MKDIR, OP_RMDIR, OP_UNLINK,
	OP_SYMLINK, OP_LINK, OP_RENAME, OP_XCHG, OP_FSYNC, OP_FDATASYNC,
	OP_FSYNCDIR, OP_SYNC, OP_KINDS
};

static const char *const op_names[OP_KINDS] = {
	"create", "write", "trunc", "falloc", "mkdir", "rmdir", "unlink",
	"symlink", "link", "rename", "xchg", "fsync", "fdatasync",
	"fsyncdir", "sync",
};

#define SHORT_LEN 24 /* of a path as the log has it */

struct op {
	int t;
	uint32_t k;          /* 1, 2, ... per thread; also the version of data */
	enum op_kind kind;
	char a[SHORT_LEN], b[SHORT_LEN];
	uint64_t x, y;       /* id | offset, length | size | keep_size */
};

static bool op_log(struct log_file *log, const struct op *op)
{
	char text[SLOT];

	snprintf(text, sizeof(text), "B %d %u %s %s %s %llu %llu", op->t, op->k,
		 op_names[op->kind], op->a[0] ? op->a : "-", op->b[0] ? op->b : "-",
		 (unsigned long long)op->x, (unsigned long long)op->y);
	return log_put(log, text);
}

static bool op_parse(const char *text, struct op *op)
{
	unsigned long long x, y;
	char kind[16];

	memset(op, 0, sizeof(*op));
	if (sscanf(text, "B %d %u %15s %23s %23s %llu %llu", &op->t, &op->k, kind, op->a,
		   op->b, &x, &y) != 7)
		return false;
	op->x = x;
	op->y = y;
	for (op->kind = 0; op->kind < OP_KINDS; op->kind++)
		if (!strcmp(kind, op_names[op->kind]))
			return op->t >= 0 && op->t < LOAD_THREADS_MAX;
	return false;
}

/*
 * The log has short paths. A last component "...n<i>" with i divisible by three
 * stands for a long name, so that directories get several blocks and an index.
 */
static void expand(const char *path, char *out)
{
	const char *n = strrchr(path, 'n');
	int len = snprintf(out, PATH_LEN, "%s", path);

	if (!n || strchr(n, '/') || atoi(n + 1) % 3)
		return;
	out[len++] = '-';
	for (int i = 0; i < 150; i++, len++)
		out[len] = (char)('a' + (i * 7 + len) % 26);
	out[len] = '\0';
}

/* The other way; false if the long part is not as expand() makes it. */
static bool shorten(const char *path, char *out)
{
	char again[PATH_LEN];
	size_t len = strcspn(path, "-");
	const char *slash = strrchr(path, '/');

	/* "s/t0-n5" has a dash of its own. */
	if (slash && !strncmp(path, "s/", 2) && path[len] == '-')
		len += 1 + strcspn(path + len + 1, "-");
	if (len >= SHORT_LEN)
		return false;
	memcpy(out, path, len);
	out[len] = '\0';
	expand(out, again);
	return !strcmp(again, path);
}

static unsigned mode_of(uint32_t id)
{
	return id & 0777;
}

/* Targets of symbolic links: inside the inode, and in a block of their own. */
static void target_of(uint32_t id, char *out)
{
	int len = snprintf(out, PATH_LEN, "target-%u-", id);

	if (id % 2)
		for (; len < 200; len++)
			out[len] = (char)('A' + (len + (int)id) % 26);
	out[len] = '\0';
}

/* ---- the model of one thread's names and files ---- */

struct data_op {
	uint32_t k;
	enum op_kind kind;
	uint64_t pos, len; /* trunc: pos is the size; falloc: len 0 keeps it */
};

struct obj {
	char kind;           /* 'f', 'd', 'l' */
	uint32_t id;
	unsigned links;
	uint64_t size;       /* with all operations */
	uint64_t durable_size;
	uint32_t *ver;       /* durable: writer of each granule, 0 none */
	size_t granules;     /* of ver */
	struct data_op *pend;
	unsigned nr_pend, pend_max;
	uint32_t created, touched; /* operations */
	uint32_t changed;    /* directory: last change of an entry */
	struct obj *next;    /* of all */
};

struct entry {
	char path[SHORT_LEN];
	struct obj *obj;
};

#define ENTRIES_MAX 256

struct model {
	int t;
	struct entry e[ENTRIES_MAX];
	unsigned nr;
	struct obj *all;
	struct obj own_dir, shared_dir;
	uint64_t bytes;      /* sizes of linked files */
	uint32_t next_id;
};

static void *must(void *p)
{
	if (!p) {
		fprintf(stderr, "out of memory\n");
		exit(1);
	}
	return p;
}

static void model_init(struct model *m, int t)
{
	memset(m, 0, sizeof(*m));
	m->t = t;
	m->next_id = 1;
}

static void model_free(struct model *m)
{
	struct obj *o;

	while ((o = m->all)) {
		m->all = o->next;
		free(o->ver);
		free(o->pend);
		free(o);
	}
}

static struct entry *model_find(struct model *m, const char *path)
{
	for (unsigned i = 0; i < m->nr; i++)
		if (!strcmp(m->e[i].path, path))
			return &m->e[i];
	return NULL;
}

static struct obj *model_obj(struct model *m, uint32_t id)
{
	for (struct obj *o = m->all; o; o = o->next)
		if (o->id == id)
			return o;
	return NULL;
}

static struct obj *model_parent(struct model *m, const char *path)
{
	const char *slash = strrchr(path, '/');
	size_t len = slash ? (size_t)(slash - path) : 0;
	char dir[SHORT_LEN];
	struct entry *e;

	memcpy(dir, path, len);
	dir[len] = '\0';
	if (!strcmp(dir, "s"))
		return &m->shared_dir;
	e = model_find(m, dir);
	return e ? e->obj : &m->own_dir;
}

static void model_add(struct model *m, const char *path, struct obj *o)
{
	struct entry *e;

	if (m->nr == ENTRIES_MAX) {
		fprintf(stderr, "too many names\n");
		exit(1);
	}
	e = &m->e[m->nr++];
	snprintf(e->path, sizeof(e->path), "%s", path);
	e->obj = o;
}

static void model_del(struct model *m, struct entry *e)
{
	*e = m->e[--m->nr];
}

static void data_add(struct obj *o, const struct op *op)
{
	if (o->nr_pend == o->pend_max) {
		o->pend_max = o->pend_max ? 2 * o->pend_max : 8;
		o->pend = must(realloc(o->pend, o->pend_max * sizeof(*o->pend)));
	}
	o->pend[o->nr_pend++] = (struct data_op){ op->k, op->kind, op->x, op->y };
}

static uint64_t size_after(uint64_t size, const struct data_op *d)
{
	uint64_t end = d->pos + d->len;

	if (d->kind == OP_TRUNC)
		return d->pos;
	/* No length: allocated without a change of size. */
	return d->len && end > size ? end : size;
}

/* Makes the file's operations up to k part of its durable state. */
static void data_settle(struct obj *o, uint32_t k)
{
	unsigned i;

	for (i = 0; i < o->nr_pend && o->pend[i].k <= k; i++) {
		const struct data_op *d = &o->pend[i];
		size_t from = d->pos / GRANULE, to = (d->pos + d->len) / GRANULE;

		o->durable_size = size_after(o->durable_size, d);
		if (d->kind == OP_TRUNC) {
			for (; from < o->granules; from++)
				o->ver[from] = 0;
		} else if (d->kind == OP_WRITE) {
			if (to > o->granules) {
				o->ver = must(realloc(o->ver, to * sizeof(*o->ver)));
				memset(o->ver + o->granules, 0,
				       (to - o->granules) * sizeof(*o->ver));
				o->granules = to;
			}
			for (; from < to; from++)
				o->ver[from] = d->k;
		}
	}
	if (!i)
		return;
	o->nr_pend -= i;
	memmove(o->pend, o->pend + i, o->nr_pend * sizeof(*o->pend));
}

static void unlink_obj(struct model *m, struct obj *o, uint32_t k)
{
	o->touched = k;
	if (!--o->links && o->kind == 'f')
		m->bytes -= o->size;
}

/* The path after "from" was renamed to "to", if it is that or lies below it. */
static bool moved(const char *path, const char *from, const char *to, char *out)
{
	size_t len = strlen(from);
	char full[2 * SHORT_LEN];

	if (strncmp(path, from, len) || (path[len] && path[len] != '/'))
		return false;
	snprintf(full, sizeof(full), "%s%s", to, path + len);
	memcpy(out, full, SHORT_LEN - 1);
	out[SHORT_LEN - 1] = '\0';
	return true;
}

static void model_new(struct model *m, const struct op *op)
{
	struct obj *o = must(calloc(1, sizeof(*o)));

	o->kind = op->kind == OP_MKDIR ? 'd' : op->kind == OP_CREATE ? 'f' : 'l';
	o->id = (uint32_t)op->x;
	o->links = 1;
	o->created = o->touched = o->changed = op->k;
	o->next = m->all;
	m->all = o;
	if (m->next_id <= o->id)
		m->next_id = o->id + 1;
	model_add(m, op->a, o);
}

/* False: the operation does not fit the names, so the log is no history. */
static bool model_apply(struct model *m, const struct op *op)
{
	struct entry *a = model_find(m, op->a), *b = model_find(m, op->b);
	struct obj *o;

	switch (op->kind) {
	case OP_CREATE:
	case OP_MKDIR:
	case OP_SYMLINK:
		if (a)
			return false;
		model_new(m, op);
		model_parent(m, op->a)->changed = op->k;
		return true;
	case OP_WRITE:
	case OP_TRUNC:
	case OP_FALLOC: {
		struct data_op d = { op->k, op->kind, op->x, op->y };

		if (!a || a->obj->kind != 'f')
			return false;
		o = a->obj;
		data_add(o, op);
		m->bytes -= o->size;
		o->size = size_after(o->size, &d);
		m->bytes += o->size;
		return true;
	}
	case OP_RMDIR:
	case OP_UNLINK:
		if (!a)
			return false;
		model_parent(m, op->a)->changed = op->k;
		unlink_obj(m, a->obj, op->k);
		model_del(m, a);
		return true;
	case OP_LINK:
		if (!a || b)
			return false;
		a->obj->links++;
		a->obj->touched = op->k;
		model_parent(m, op->b)->changed = op->k;
		model_add(m, op->b, a->obj);
		return true;
	case OP_RENAME:
		if (!a)
			return false;
		model_parent(m, op->a)->changed = op->k;
		model_parent(m, op->b)->changed = op->k;
		a->obj->touched = op->k;
		if (b) {
			unlink_obj(m, b->obj, op->k);
			model_del(m, b);
		}
		for (unsigned i = 0; i < m->nr; i++)
			moved(m->e[i].path, op->a, op->b, m->e[i].path);
		return true;
	case OP_XCHG:
		if (!a || !b)
			return false;
		model_parent(m, op->a)->changed = op->k;
		model_parent(m, op->b)->changed = op->k;
		a->obj->touched = b->obj->touched = op->k;
		o = a->obj;
		a->obj = b->obj;
		b->obj = o;
		return true;
	default:
		return true;
	}
}

/* ---- contents ---- */

struct granule {
	uint32_t file, ver, index, sum;
};

static uint32_t granule_sum(const struct granule *g)
{
	uint64_t h = g->file * 0x9E3779B97F4A7C15u;

	h = (h ^ g->ver) * 0xC2B2AE3D27D4EB4Fu;
	h = (h ^ g->index) * 0x165667B19E3779F9u;
	return (uint32_t)(h >> 32) | 1;
}

static uint32_t file_word(int t, uint32_t id)
{
	return (uint32_t)(t + 1) << 24 | id;
}

static void data_fill(void *buf, int t, uint32_t id, uint32_t ver, uint64_t pos,
		      size_t len)
{
	struct granule *g = buf;

	for (size_t i = 0; i < len / GRANULE; i++) {
		g[i].file = file_word(t, id);
		g[i].ver = ver;
		g[i].index = (uint32_t)(pos / GRANULE + i);
		g[i].sum = granule_sum(&g[i]);
	}
}

/*
 * May granule i hold version ver (0: zeros) in a file that is now `size` long?
 * done: operations of the thread before this are certain to have happened, as a
 * later one is seen in the names.
 */
static bool granule_allowed(const struct obj *o, size_t i, uint32_t ver,
			    uint64_t size, uint32_t done)
{
	uint64_t pos = (uint64_t)i * GRANULE, max = o->durable_size;
	uint64_t now = o->durable_size;
	uint32_t durable = i < o->granules && pos < o->durable_size ? o->ver[i] : 0;
	bool ok = ver == durable;

	for (unsigned n = 0; n < o->nr_pend; n++) {
		const struct data_op *d = &o->pend[n];
		/* A larger size than ever before it: it came after it. */
		bool certain = d->k < done || size > max;

		if (d->kind == OP_TRUNC && d->pos <= pos) {
			if (certain)
				ok = false;
			if (!ver)
				ok = true;
		}
		if (d->kind == OP_WRITE && d->k == ver && pos >= d->pos &&
		    pos < d->pos + d->len)
			ok = true;
		now = size_after(now, d);
		if (now > max)
			max = now;
	}
	return ok;
}

static bool size_allowed(const struct obj *o, uint64_t size, uint64_t *lo, uint64_t *hi)
{
	uint64_t now = o->durable_size;

	*lo = *hi = now;
	for (unsigned n = 0; n < o->nr_pend; n++) {
		now = size_after(now, &o->pend[n]);
		if (now < *lo)
			*lo = now;
		if (now > *hi)
			*hi = now;
	}
	return size >= *lo && size <= *hi;
}

static void explain(const struct obj *o)
{
	fprintf(stderr, "  file id %u created by %u, durable size %llu, then:\n", o->id,
		o->created, (unsigned long long)o->durable_size);
	for (unsigned n = 0; n < o->nr_pend; n++)
		fprintf(stderr, "    %u %s %llu %llu\n", o->pend[n].k,
			op_names[o->pend[n].kind], (unsigned long long)o->pend[n].pos,
			(unsigned long long)o->pend[n].len);
}

enum content { CONTENT_GOOD, CONTENT_BAD, CONTENT_UNREADABLE };

/*
 * path is the short one, for messages. Unreadable: an error, or fewer bytes than
 * there are, which is how an error behind the first page is told.
 */
static enum content content_check(struct load_fs *fs, const char *path, const struct obj *o,
				  int t, uint32_t done)
{
	char full[PATH_LEN];
	uint64_t size, lo, hi;
	struct granule *buf;
	struct stat st;
	int bad = 0, err;
	ssize_t n;
	void *h;

	expand(path, full);
	err = fs->ops->open(fs, full, &h);
	if (!err)
		err = fs->ops->stat(fs, full, &st);
	if (err) {
		fprintf(stderr, "%s: %s\n", path, strerror(-err));
		return CONTENT_UNREADABLE;
	}
	size = (uint64_t)st.st_size;
	if (!size_allowed(o, size, &lo, &hi)) {
		fprintf(stderr, "%s: size %llu, not in %llu..%llu\n", path,
			(unsigned long long)size, (unsigned long long)lo,
			(unsigned long long)hi);
		explain(o);
		fs->ops->close(h);
		return CONTENT_BAD;
	}
	buf = must(aligned_alloc(4096, FILE_MAX + 65536));
	n = fs->ops->pread(h, buf, FILE_MAX + 65536, 0);
	fs->ops->close(h);
	if (n != (ssize_t)size) {
		fprintf(stderr, "%s: read %zd of %llu\n", path, n,
			(unsigned long long)size);
		free(buf);
		return CONTENT_UNREADABLE;
	}
	for (size_t i = 0; i < size / GRANULE && bad < 4; i++) {
		static const struct granule zero;
		const struct granule *g = &buf[i];
		const char *what = NULL;
		uint32_t ver = 0;

		if (memcmp(g, &zero, sizeof(zero))) {
			ver = g->ver;
			if (g->sum != granule_sum(g))
				what = "is no data of this test";
			else if (g->file != file_word(t, o->id))
				what = "is of another file";
			else if (g->index != i)
				what = "is of another place";
		}
		if (!what && !granule_allowed(o, i, ver, size, done))
			what = ver ? "is of a version that cannot be" : "is zero";
		if (!what)
			continue;
		fprintf(stderr,
			"%s: at %zu of %llu %s: file %#x version %u index %u sum %#x\n",
			path, i * GRANULE, (unsigned long long)size, what, g->file,
			g->ver, g->index, g->sum);
		bad++;
	}
	if (bad)
		explain(o);
	free(buf);
	return bad ? CONTENT_BAD : CONTENT_GOOD;
}

/* ---- the workload ---- */

struct worker {
	struct load_fs *fs;
	struct log_file *log;
	const struct load_options *opt;
	pthread_t thread;
	struct model m;
	uint64_t rnd;
	uint32_t k;
	struct timespec end;
	void *held[3]; /* open files without a name */
	unsigned next_held;
	uint8_t *buf;
	bool seldom; /* asks for durability so seldom that much is lost */
	bool stop, failed;
};

static unsigned rnd(struct worker *w, unsigned below)
{
	w->rnd ^= w->rnd << 13;
	w->rnd ^= w->rnd >> 7;
	w->rnd ^= w->rnd << 17;
	return (unsigned)((w->rnd >> 16) % below);
}

/*
 * Is err the answer of a FUSE mount whose daemon is gone, or of a volume shut down?
 * 0 stands for a read that was cut short.
 *
 * EIO may be either: the kernel answers it for a request that a thread of the
 * daemon was about to take when the daemon was killed (fuse_dev_do_read() cannot
 * copy to a dying process), so the file system is asked whether it still lives.
 */
static bool gone(const struct load_fs *fs, const struct load_options *opt, int err)
{
	if (err == -ENOTCONN || err == -ECONNABORTED)
		return true;
	if (opt->shutdown && (err == -EIO || err == -ESHUTDOWN || err == -EROFS))
		return true;
	return (err == -EIO || !err) && fs->ops->is_gone && fs->ops->is_gone(fs);
}

/* Does `op`, which the model says must succeed. h: open file of op->a or NULL. */
static int op_do(struct worker *w, const struct op *op, void *h)
{
	const struct load_ops *ops = w->fs->ops;
	char a[PATH_LEN], b[PATH_LEN], target[PATH_LEN];
	uint32_t id = (uint32_t)op->x;
	ssize_t n;
	int err;

	expand(op->a, a);
	expand(op->b, b);
	switch (op->kind) {
	case OP_CREATE:
		err = ops->create(w->fs, a, mode_of(id), &h);
		if (!err)
			ops->close(h);
		return err;
	case OP_WRITE:
		data_fill(w->buf, w->m.t, model_find(&w->m, op->a)->obj->id, op->k,
			  op->x, op->y);
		/* The file system may end between the requests of one write. */
		for (uint64_t done = 0; done < op->y; done += (uint64_t)n) {
			n = ops->pwrite(h, w->buf + done, op->y - done, op->x + done);
			if (n <= 0)
				return n ? (int)n : -EIO;
		}
		return 0;
	case OP_TRUNC:
		return ops->truncate(h, op->x);
	case OP_FALLOC:
		/* What is kept beyond the end has no length in the model. */
		return ops->fallocate(h, !op->y, op->x, op->y ? op->y : 40960);
	case OP_MKDIR:
		return ops->mkdir(w->fs, a, mode_of(id));
	case OP_RMDIR:
		return ops->rmdir(w->fs, a);
	case OP_UNLINK:
		return ops->unlink(w->fs, a);
	case OP_SYMLINK:
		target_of(id, target);
		return ops->symlink(w->fs, target, a);
	case OP_LINK:
		return ops->link(w->fs, a, b);
	case OP_RENAME:
	case OP_XCHG:
		return ops->rename(w->fs, a, b, op->kind == OP_XCHG);
	case OP_FSYNC:
	case OP_FDATASYNC:
		return ops->fsync(h, op->kind == OP_FDATASYNC);
	case OP_FSYNCDIR:
		return ops->fsyncdir(w->fs, a);
	default:
		return ops->sync(w->fs);
	}
}

static bool needs_file(enum op_kind kind)
{
	return kind == OP_WRITE || kind == OP_TRUNC || kind == OP_FALLOC ||
	       kind == OP_FSYNC || kind == OP_FDATASYNC;
}

/* Logs and does one operation; false ends the thread. */
static bool run_op(struct worker *w, enum op_kind kind, const char *a, const char *b,
		   uint64_t x, uint64_t y)
{
	struct op op = { w->m.t, ++w->k, kind, "", "", x, y };
	char text[SLOT], full[PATH_LEN];
	struct entry *e;
	void *h = NULL;
	int err = 0;

	snprintf(op.a, sizeof(op.a), "%s", a);
	snprintf(op.b, sizeof(op.b), "%s", b);
	if (!op_log(w->log, &op)) {
		w->stop = true;
		return false;
	}
	if (needs_file(kind)) {
		expand(a, full);
		err = w->fs->ops->open(w->fs, full, &h);
	}
	if (!err)
		err = op_do(w, &op, h);
	if (h)
		w->fs->ops->close(h);
	if (err) {
		w->stop = true;
		if (gone(w->fs, w->opt, err))
			return false;
		fprintf(stderr, "t%d: operation %u %s %s %s %llu %llu: %s\n", op.t, op.k,
			op_names[kind], a, b, (unsigned long long)x,
			(unsigned long long)y, strerror(-err));
		w->failed = true;
		return false;
	}
	snprintf(text, sizeof(text), "E %d %u", op.t, op.k);
	if (!log_put(w->log, text))
		w->stop = true;
	if (!model_apply(&w->m, &op)) {
		fprintf(stderr, "t%d: operation %u is none of the model\n", op.t, op.k);
		w->failed = w->stop = true;
		return false;
	}
	e = model_find(&w->m, op.a);
	if (e && e->obj->kind == 'f')
		data_settle(e->obj, op.k);
	return true;
}

#define OWN_NAMES 48
#define SUBDIRS 6
#define SUB_NAMES 8
#define SHARED_NAMES 32

static void dir_name(struct worker *w, unsigned i, char *out)
{
	snprintf(out, SHORT_LEN, "t%d/d%u", w->m.t, i);
}

/* A name of the thread's set whose directory exists. */
static void any_name(struct worker *w, char *out)
{
	unsigned i = rnd(w, OWN_NAMES + SUBDIRS * SUB_NAMES + SHARED_NAMES);

	if (i >= OWN_NAMES + SHARED_NAMES) {
		i -= OWN_NAMES + SHARED_NAMES;
		dir_name(w, i / SUB_NAMES, out);
		if (model_find(&w->m, out)) {
			snprintf(out + strlen(out), SHORT_LEN - strlen(out), "/n%u",
				 i % SUB_NAMES);
			return;
		}
		i %= OWN_NAMES;
	}
	if (i < OWN_NAMES)
		snprintf(out, SHORT_LEN, "t%d/n%u", w->m.t, i);
	else
		snprintf(out, SHORT_LEN, "s/t%d-n%u", w->m.t, i - OWN_NAMES);
}

static bool free_name(struct worker *w, char *out)
{
	for (int n = 0; n < 20; n++) {
		any_name(w, out);
		if (!model_find(&w->m, out))
			return true;
	}
	return false;
}

static struct entry *any_entry(struct worker *w, const char *kinds)
{
	for (int n = 0; n < 40 && w->m.nr; n++) {
		struct entry *e = &w->m.e[rnd(w, w->m.nr)];

		if (strchr(kinds, e->obj->kind))
			return e;
	}
	return NULL;
}

static bool do_write(struct worker *w, const char *path)
{
	uint64_t size = model_find(&w->m, path)->obj->size, pos;
	unsigned len, where = rnd(w, 10);

	switch (rnd(w, 4)) {
	case 0:
		len = GRANULE * (1 + rnd(w, 128));
		break;
	case 1:
		len = GRANULE * (1 + rnd(w, 8192));
		break;
	default:
		len = 4096 * (1 + rnd(w, 8));
	}
	if (where < 4)
		pos = size;
	else if (where < 7 && size)
		pos = GRANULE * (uint64_t)rnd(w, (unsigned)(size / GRANULE));
	else if (where < 9)
		pos = 8192 * (uint64_t)rnd(w, 160), len = rnd(w, 2) ? 1024 : 4096;
	else
		pos = size + GRANULE * (uint64_t)rnd(w, 20000);
	if (pos + len > FILE_MAX)
		pos = GRANULE * (uint64_t)rnd(w, (FILE_MAX - len) / GRANULE);
	if (w->m.bytes + len + (pos > size ? pos - size : 0) > THREAD_BYTES_MAX)
		return run_op(w, OP_TRUNC, path, "", GRANULE * (uint64_t)rnd(w, 64), 0);
	return run_op(w, OP_WRITE, path, "", pos, len);
}

static bool do_create(struct worker *w)
{
	char name[SHORT_LEN];

	if (!free_name(w, name))
		return true;
	return run_op(w, OP_CREATE, name, "", w->m.next_id, 0) && do_write(w, name);
}

/* Sometimes of a file that stays open, so that the crash finds it an orphan. */
static bool do_unlink(struct worker *w, struct entry *e)
{
	char name[SHORT_LEN], full[PATH_LEN];
	void *h = NULL;

	memcpy(name, e->path, sizeof(name));
	if (e->obj->kind == 'f' && rnd(w, 3) == 0) {
		expand(name, full);
		if (w->fs->ops->open(w->fs, full, &h)) {
			w->stop = true;
			return false;
		}
	}
	if (h) {
		void **slot = &w->held[w->next_held++ % 3];

		if (*slot)
			w->fs->ops->close(*slot);
		*slot = h;
	}
	return run_op(w, OP_UNLINK, name, "", 0, 0);
}

static bool do_rename(struct worker *w, bool exchange)
{
	struct entry *e = any_entry(w, "fl"), *f;
	char from[SHORT_LEN], to[SHORT_LEN];

	if (!e)
		return true;
	memcpy(from, e->path, sizeof(from));
	any_name(w, to);
	f = model_find(&w->m, to);
	if (f && f->obj == e->obj)
		return true; /* two names of one file: nothing happens */
	if (exchange && !f)
		return true;
	return run_op(w, exchange ? OP_XCHG : OP_RENAME, from, to, 0, 0);
}

/* The safe save of editors: a new file, fsync, rename over the old one. */
static bool do_replace(struct worker *w)
{
	struct entry *e = any_entry(w, "f");
	char old[SHORT_LEN], tmp[SHORT_LEN];

	if (!e || w->opt->no_sync || w->seldom || !free_name(w, tmp))
		return true;
	memcpy(old, e->path, sizeof(old));
	return run_op(w, OP_CREATE, tmp, "", w->m.next_id, 0) && do_write(w, tmp) &&
	       do_write(w, tmp) &&
	       run_op(w, rnd(w, 3) ? OP_FSYNC : OP_FDATASYNC, tmp, "", 0, 0) &&
	       run_op(w, OP_RENAME, tmp, old, 0, 0);
}

static bool dir_is_empty(struct worker *w, const char *dir)
{
	size_t len = strlen(dir);

	for (unsigned i = 0; i < w->m.nr; i++)
		if (!strncmp(w->m.e[i].path, dir, len) && w->m.e[i].path[len] == '/')
			return false;
	return true;
}

static bool do_dir(struct worker *w)
{
	char dir[SHORT_LEN], to[SHORT_LEN];

	dir_name(w, rnd(w, SUBDIRS), dir);
	if (!model_find(&w->m, dir))
		return run_op(w, OP_MKDIR, dir, "", w->m.next_id, 0);
	if (dir_is_empty(w, dir))
		return run_op(w, OP_RMDIR, dir, "", 0, 0);
	dir_name(w, rnd(w, SUBDIRS), to);
	if (strcmp(dir, to) && (!model_find(&w->m, to) || dir_is_empty(w, to)))
		return run_op(w, OP_RENAME, dir, to, 0, 0);
	/* Empty one, for the next time. */
	for (unsigned i = 0; i < w->m.nr; i++)
		if (!strncmp(w->m.e[i].path, dir, strlen(dir)) &&
		    w->m.e[i].path[strlen(dir)] == '/')
			return do_unlink(w, &w->m.e[i]);
	return true;
}

static bool do_durable(struct worker *w)
{
	static const enum op_kind kinds[] = { OP_FSYNC, OP_FSYNC, OP_FSYNC, OP_FDATASYNC };
	struct entry *e = any_entry(w, "f");
	char name[SHORT_LEN];
	unsigned what = rnd(w, 40);

	if (w->opt->no_sync || (w->seldom && rnd(w, 30)))
		return true;
	if (what == 0)
		return run_op(w, OP_SYNC, "", "", 0, 0);
	if (what < 8) {
		snprintf(name, sizeof(name), "t%d", w->m.t);
		e = any_entry(w, "d");
		if (what < 4 && e)
			memcpy(name, e->path, sizeof(name));
		else if (what == 4)
			snprintf(name, sizeof(name), "s");
		return run_op(w, OP_FSYNCDIR, name, "", 0, 0);
	}
	if (!e)
		return true;
	memcpy(name, e->path, sizeof(name));
	return run_op(w, kinds[rnd(w, 4)], name, "", 0, 0);
}

static bool do_read(struct worker *w)
{
	struct entry *e = any_entry(w, "f");
	struct stat st;
	char full[PATH_LEN];
	int err;

	if (!e)
		return true;
	/* Content that cannot be read because all is over is no finding. */
	expand(e->path, full);
	err = w->fs->ops->stat(w->fs, full, &st);
	if (err && gone(w->fs, w->opt, err)) {
		w->stop = true;
		return false;
	}
	switch (content_check(w->fs, e->path, e->obj, w->m.t, UINT32_MAX)) {
		void *h;

	case CONTENT_GOOD:
		break;
	case CONTENT_BAD:
		w->failed = w->stop = true;
		return false;
	case CONTENT_UNREADABLE:
		w->stop = true;
		err = w->fs->ops->open(w->fs, full, &h);
		if (!err) {
			ssize_t n = w->fs->ops->pread(h, w->buf, 4096, 0);

			err = n < 0 ? (int)n : 0;
			w->fs->ops->close(h);
		}
		w->failed = !gone(w->fs, w->opt, err);
		return false;
	}
	return true;
}

static bool step(struct worker *w)
{
	unsigned what = rnd(w, 100);
	char name[SHORT_LEN];
	struct entry *e;

	if (what < 16)
		return do_create(w);
	if (what < 46) {
		e = any_entry(w, "f");
		if (!e)
			return true;
		memcpy(name, e->path, sizeof(name));
		return do_write(w, name);
	}
	e = any_entry(w, "f");
	if (e)
		memcpy(name, e->path, sizeof(name));
	if (what < 53)
		return !e || run_op(w, OP_TRUNC, name, "",
				    rnd(w, 3) ? GRANULE * (uint64_t)rnd(w, (unsigned)(e->obj->size / GRANULE + 1))
					      : GRANULE * (uint64_t)rnd(w, 30000), 0);
	if (what < 56)
		return !e || w->opt->no_falloc ||
		       run_op(w, OP_FALLOC, name, "",
				    rnd(w, 2) ? e->obj->size : GRANULE * (uint64_t)rnd(w, 20000),
				    rnd(w, 2) ? GRANULE * (1 + (uint64_t)rnd(w, 4000)) : 0);
	if (what < 65) {
		e = any_entry(w, "fl");
		return !e || do_unlink(w, e);
	}
	if (what < 74)
		return do_rename(w, what < 67);
	if (what < 78) {
		char to[SHORT_LEN];

		return !e || !free_name(w, to) || run_op(w, OP_LINK, name, to, 0, 0);
	}
	if (what < 84)
		return do_dir(w);
	if (what < 87)
		return !free_name(w, name) ||
		       run_op(w, OP_SYMLINK, name, "", w->m.next_id, 0);
	if (what < 90)
		return do_replace(w);
	if (what < 95)
		return do_durable(w);
	return do_read(w);
}

static bool time_over(const struct timespec *end)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec > end->tv_sec ||
	       (now.tv_sec == end->tv_sec && now.tv_nsec >= end->tv_nsec);
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;

	if (w->fs->ops->thread_begin)
		w->fs->ops->thread_begin(w->fs);
	while (!w->stop && step(w))
		if (w->opt->seconds > 0 && time_over(&w->end))
			break;
	for (int i = 0; i < 3; i++)
		if (w->held[i])
			w->fs->ops->close(w->held[i]);
	if (w->fs->ops->thread_end)
		w->fs->ops->thread_end(w->fs);
	return NULL;
}

static int setup(struct load_fs *fs, unsigned threads)
{
	char name[SHORT_LEN];
	int err = fs->ops->mkdir(fs, "s", 0755);

	for (unsigned t = 0; t < threads && !err; t++) {
		snprintf(name, sizeof(name), "t%u", t);
		err = fs->ops->mkdir(fs, name, 0755);
	}
	if (!err)
		err = fs->ops->sync(fs);
	return err;
}

int load_run(struct load_fs *fs, const char *path, const struct load_options *opt)
{
	struct worker *w = must(calloc(opt->threads, sizeof(*w)));
	unsigned started = 0;
	struct log_file log;
	struct timespec end;
	char text[SLOT];
	int ret, err;

	ret = log_open(&log, path, O_CREAT | O_TRUNC);
	if (ret)
		goto out_free;
	err = setup(fs, opt->threads);
	if (err) {
		ret = !gone(fs, opt, err);
		if (ret)
			fprintf(stderr, "setup: %s\n", strerror(-err));
		goto out_unmap;
	}
	snprintf(text, sizeof(text), "S %u", opt->threads);
	log_put(&log, text);
	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += (time_t)opt->seconds;
	end.tv_nsec += (long)((opt->seconds - (double)(time_t)opt->seconds) * 1e9);
	if (end.tv_nsec >= 1000000000) {
		end.tv_sec++;
		end.tv_nsec -= 1000000000;
	}
	for (unsigned t = 0; t < opt->threads; t++) {
		w[t].fs = fs;
		w[t].log = &log;
		w[t].opt = opt;
		w[t].rnd = (opt->seed + 1) * 0x9E3779B97F4A7C15u ^ (t + 1) * 0xC2B2AE3D27D4EB4Fu;
		w[t].end = end;
		w[t].seldom = (t + opt->seed) % 2;
		w[t].buf = must(aligned_alloc(4096, 256 * 1024));
		model_init(&w[t].m, (int)t);
		if (pthread_create(&w[t].thread, NULL, worker_main, &w[t])) {
			ret = 1;
			break;
		}
		started++;
	}
	for (unsigned t = 0; t < started; t++) {
		pthread_join(w[t].thread, NULL);
		if (w[t].failed)
			ret = 1;
		model_free(&w[t].m);
	}
	for (unsigned t = 0; t < opt->threads; t++)
		free(w[t].buf);
out_unmap:
	log_close(&log);
out_free:
	free(w);
	return ret;
}

int load_mark_end(const char *path)
{
	struct log_file log;

	if (log_open(&log, path, 0))
		return 1;
	log_put(&log, "X");
	log_close(&log);
	return 0;
}

/* ---- what is there ---- */

struct found {
	char path[SHORT_LEN];
	struct stat st;
	uint64_t hash; /* of what the names of a thread must agree in */
};

struct tree {
	struct load_fs *fs;
	struct found *f;
	unsigned nr, max;
	char (*names)[PATH_LEN]; /* of the directory being listed */
	unsigned nr_names, max_names;
	int bad;
};

static void collect_name(void *priv, const char *name)
{
	struct tree *tr = priv;

	if (tr->nr_names == tr->max_names) {
		tr->max_names = tr->max_names ? 2 * tr->max_names : 64;
		tr->names = must(realloc(tr->names, tr->max_names * sizeof(*tr->names)));
	}
	snprintf(tr->names[tr->nr_names++], PATH_LEN, "%s", name);
}

static uint64_t hash_text(uint64_t h, const char *s)
{
	for (; *s; s++)
		h = (h ^ (unsigned char)*s) * 0x100000001B3u;
	return h ^ h >> 29;
}

static uint64_t entry_hash(const char *path, char kind, unsigned mode, unsigned links,
			   const char *target)
{
	char text[128];

	snprintf(text, sizeof(text), "%s|%c|%o|%u|", path, kind, mode, links);
	return hash_text(hash_text(0xCBF29CE484222325u, text), target);
}

static char kind_of(mode_t mode)
{
	return S_ISDIR(mode) ? 'd' : S_ISREG(mode) ? 'f' : S_ISLNK(mode) ? 'l' : '?';
}

static void tree_add(struct tree *tr, const char *full)
{
	char target[PATH_LEN * 8] = "";
	struct found *f;
	unsigned mode;
	int err;

	if (tr->nr == tr->max) {
		tr->max = tr->max ? 2 * tr->max : 256;
		tr->f = must(realloc(tr->f, tr->max * sizeof(*tr->f)));
	}
	f = &tr->f[tr->nr];
	if (!shorten(full, f->path)) {
		fprintf(stderr, "%s: a name that nobody made\n", full);
		tr->bad = 1;
		return;
	}
	err = tr->fs->ops->stat(tr->fs, full, &f->st);
	if (!err && S_ISLNK(f->st.st_mode)) {
		ssize_t n = tr->fs->ops->readlink(tr->fs, full, target, sizeof(target) - 1);

		if (n < 0)
			err = (int)n;
		else
			target[n] = '\0';
	}
	if (err) {
		fprintf(stderr, "%s: %s\n", full, strerror(-err));
		tr->bad = 1;
		return;
	}
	/* Of a link nothing but the target is the test's. */
	mode = S_ISLNK(f->st.st_mode) ? 0 : f->st.st_mode & 07777;
	f->hash = entry_hash(f->path, kind_of(f->st.st_mode), mode,
			     (unsigned)f->st.st_nlink, target);
	tr->nr++;
}

static void tree_walk(struct tree *tr, const char *dir)
{
	char (*names)[PATH_LEN];
	char full[2 * PATH_LEN];
	unsigned nr;
	int err;

	tr->names = NULL;
	tr->nr_names = tr->max_names = 0;
	err = tr->fs->ops->list(tr->fs, dir, collect_name, tr);
	names = tr->names;
	nr = tr->nr_names;
	if (err) {
		fprintf(stderr, "%s: %s\n", dir, strerror(-err));
		tr->bad = 1;
	}
	for (unsigned i = 0; i < nr; i++) {
		unsigned before = tr->nr;

		if (!*dir && !strcmp(names[i], "lost+found"))
			continue;
		snprintf(full, sizeof(full), "%s%s%s", dir, *dir ? "/" : "", names[i]);
		full[PATH_LEN - 1] = '\0';
		tree_add(tr, full);
		if (tr->nr > before && S_ISDIR(tr->f[before].st.st_mode))
			tree_walk(tr, full);
	}
	free(names);
}

/* Does this name belong to thread t? */
static bool of_thread(const char *path, int t)
{
	char own[16], shared[16];

	snprintf(own, sizeof(own), "t%d/", t);
	snprintf(shared, sizeof(shared), "s/t%d-", t);
	return !strncmp(path, own, strlen(own)) ||
	       !strncmp(path, shared, strlen(shared));
}

static uint64_t model_entry_hash(struct model *m, const struct entry *e)
{
	char target[PATH_LEN] = "";
	unsigned links = e->obj->links, mode = mode_of(e->obj->id);

	if (e->obj->kind == 'd')
		links = 2; /* directories of the test have no subdirectories */
	if (e->obj->kind == 'l') {
		target_of(e->obj->id, target);
		mode = 0;
	}
	return entry_hash(e->path, e->obj->kind, mode, links, target);
}

/* ---- the check ---- */

struct history {
	struct op *ops;   /* of one thread, in order */
	unsigned nr, max;
	uint32_t ended;   /* operations that have an "E" */
	uint32_t bound;   /* the names are at least those after this operation */
	bool in_flight;   /* the last one has none */
	struct model m;   /* pass 1: durable contents, and what may follow */
};

struct log_reader {
	struct history h[LOAD_THREADS_MAX];
	uint32_t at_sync[LOAD_THREADS_MAX][LOAD_THREADS_MAX];
	unsigned threads;
	bool over; /* load_mark_end() */
};

static void promise(struct log_reader *r, struct history *h, const struct op *op)
{
	struct entry *e = model_find(&h->m, op->a);
	uint32_t bound = 0;

	switch (op->kind) {
	case OP_FSYNC:
	case OP_FDATASYNC:
		if (!e)
			return;
		/* fdatasync does not promise the names given to it later. */
		bound = op->kind == OP_FSYNC ? e->obj->touched : e->obj->created;
		data_settle(e->obj, op->k);
		break;
	case OP_FSYNCDIR:
		bound = e ? e->obj->changed
			: !strcmp(op->a, "s") ? h->m.shared_dir.changed
					      : h->m.own_dir.changed;
		break;
	case OP_SYNC:
		for (unsigned t = 0; t < r->threads; t++) {
			uint32_t k = r->at_sync[op->t][t];

			if (r->h[t].bound < k)
				r->h[t].bound = k;
			for (struct obj *o = r->h[t].m.all; o; o = o->next)
				data_settle(o, k);
		}
		return;
	default:
		return;
	}
	if (h->bound < bound)
		h->bound = bound;
}

static bool read_slot(struct log_reader *r, const char *text)
{
	struct history *h;
	struct op op;
	unsigned k;
	int t;

	if (text[0] == 'S') {
		r->threads = (unsigned)atoi(text + 1);
		return r->threads >= 1 && r->threads <= LOAD_THREADS_MAX;
	}
	if (text[0] == 'X') {
		r->over = true;
		return true;
	}
	if (text[0] == 'B') {
		if (!op_parse(text, &op) || op.t >= (int)r->threads)
			return false;
		h = &r->h[op.t];
		if (h->nr == h->max) {
			h->max = h->max ? 2 * h->max : 1024;
			h->ops = must(realloc(h->ops, h->max * sizeof(op)));
		}
		h->ops[h->nr++] = op;
		if (op.k != h->nr)
			return false;
		for (unsigned i = 0; op.kind == OP_SYNC && i < r->threads; i++)
			r->at_sync[op.t][i] = r->h[i].ended;
		return true;
	}
	if (sscanf(text, "E %d %u", &t, &k) != 2 || t < 0 || t >= (int)r->threads)
		return false;
	h = &r->h[t];
	if (k != h->nr || !model_apply(&h->m, &h->ops[k - 1]))
		return false;
	h->ended = k;
	if (!r->over)
		promise(r, h, &h->ops[k - 1]);
	return true;
}

static int read_log(struct log_reader *r, const char *path)
{
	char text[SLOT];
	uint32_t nr;
	FILE *f = fopen(path, "re");

	if (!f || fread(text, SLOT, 1, f) != 1) {
		perror(path);
		if (f)
			fclose(f);
		return 1;
	}
	memcpy(&nr, text, sizeof(nr));
	if (nr > LOG_SLOTS)
		nr = LOG_SLOTS;
	for (uint32_t n = 1; n < nr && fread(text, SLOT, 1, f) == 1; n++) {
		if (text[SLOT - 1] != '\n')
			continue;
		text[SLOT - 1] = '\0';
		if (!read_slot(r, text)) {
			fprintf(stderr, "%s: slot %u makes no sense: %s\n", path, n, text);
			fclose(f);
			return 1;
		}
	}
	fclose(f);
	/* One that was under way has happened, or not, or in part (data). */
	for (unsigned t = 0; t < r->threads; t++) {
		struct history *h = &r->h[t];

		h->in_flight = h->nr > h->ended;
		if (h->in_flight)
			model_apply(&h->m, &h->ops[h->nr - 1]);
	}
	return 0;
}

static uint64_t tree_hash(const struct tree *tr, int t)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < tr->nr; i++)
		if (of_thread(tr->f[i].path, t))
			sum += tr->f[i].hash;
	return sum;
}

static uint64_t model_hash(struct model *m)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < m->nr; i++)
		sum += model_entry_hash(m, &m->e[i]);
	return sum;
}

static bool changes_names(enum op_kind kind)
{
	return kind != OP_WRITE && kind != OP_TRUNC && kind != OP_FALLOC &&
	       kind < OP_FSYNC;
}

/* Names in one but not in the other; says them if told to. */
static unsigned difference(const struct tree *tr, struct model *m, bool say)
{
	unsigned n = 0;

	for (unsigned i = 0; i < tr->nr; i++) {
		const struct found *f = &tr->f[i];
		struct entry *e = model_find(m, f->path);

		if (!of_thread(f->path, m->t) || (e && model_entry_hash(m, e) == f->hash))
			continue;
		n++;
		if (say)
			fprintf(stderr, "  found %s: %c%04o, %u links; expected %s\n", f->path,
				kind_of(f->st.st_mode), f->st.st_mode & 07777,
				(unsigned)f->st.st_nlink, e ? "otherwise" : "nothing");
	}
	for (unsigned i = 0; i < m->nr; i++) {
		const struct entry *e = &m->e[i];
		bool there = false;

		for (unsigned j = 0; j < tr->nr && !there; j++)
			there = !strcmp(tr->f[j].path, e->path) &&
				tr->f[j].hash == model_entry_hash(m, e);
		if (there)
			continue;
		n++;
		if (say)
			fprintf(stderr, "  expected %s: %c%04o, %u links\n", e->path,
				e->obj->kind, mode_of(e->obj->id), e->obj->links);
	}
	return n;
}

/* The state of the names nearest to what was found, in words. */
static void explain_names(const struct tree *tr, const struct history *h, int t)
{
	unsigned best = UINT32_MAX;
	uint32_t best_k = 0;
	struct model *m = must(malloc(sizeof(*m)));

	for (int say = 0; say < 2; say++) {
		model_init(m, t);
		for (uint32_t k = 0; k <= h->nr; k++) {
			unsigned n;

			if (k && !model_apply(m, &h->ops[k - 1]))
				break;
			if (say && k == best_k) {
				fprintf(stderr, "  nearest: after operation %u\n", k);
				difference(tr, m, true);
				break;
			}
			if (say || k + 3000 < h->bound)
				continue;
			n = difference(tr, m, false);
			if (n <= best) {
				best = n;
				best_k = k;
			}
		}
		model_free(m);
	}
	free(m);
	for (uint32_t k = best_k > 5 ? best_k - 5 : 0; k < h->nr && k < best_k + 5; k++)
		fprintf(stderr, "  %u: %s %s %s %llu %llu\n", h->ops[k].k,
			op_names[h->ops[k].kind], h->ops[k].a, h->ops[k].b,
			(unsigned long long)h->ops[k].x, (unsigned long long)h->ops[k].y);
}

/* Names of one file have one inode number, of two files two. */
static int check_links(const struct tree *tr, struct model *m)
{
	for (unsigned i = 0; i < m->nr; i++)
		for (unsigned j = 0; j < i; j++) {
			const struct found *a = NULL, *b = NULL;

			for (unsigned n = 0; n < tr->nr; n++) {
				if (!strcmp(tr->f[n].path, m->e[i].path))
					a = &tr->f[n];
				if (!strcmp(tr->f[n].path, m->e[j].path))
					b = &tr->f[n];
			}
			if (!a || !b ||
			    (a->st.st_ino == b->st.st_ino) != (m->e[i].obj == m->e[j].obj)) {
				fprintf(stderr, "%s and %s: one file or two?\n",
					m->e[i].path, m->e[j].path);
				return 1;
			}
		}
	return 0;
}

static int check_thread(struct load_fs *fs, const struct tree *tr, struct history *h, int t)
{
	struct model *m = must(malloc(sizeof(*m)));
	uint64_t want = tree_hash(tr, t);
	unsigned names = 0;
	uint32_t k;
	int bad = 0;

	for (unsigned i = 0; i < tr->nr; i++)
		names += of_thread(tr->f[i].path, t);
	model_init(m, t);
	for (k = 0; k <= h->nr; k++) {
		if (k && !model_apply(m, &h->ops[k - 1])) {
			k = h->nr + 1;
			break;
		}
		if (k > h->bound && !changes_names(h->ops[k - 1].kind))
			continue;
		if (k >= h->bound && m->nr == names && model_hash(m) == want)
			break;
	}
	if (k > h->nr) {
		fprintf(stderr, "t%d: the names are not those after any operation %u..%u\n",
			t, h->bound, h->nr);
		explain_names(tr, h, t);
		model_free(m);
		free(m);
		return 1;
	}
	bad = check_links(tr, m);
	for (unsigned i = 0; i < m->nr && bad < 5; i++) {
		struct obj *o;

		if (m->e[i].obj->kind != 'f')
			continue;
		o = model_obj(&h->m, m->e[i].obj->id);
		bad += content_check(fs, m->e[i].path, o, t, k) != CONTENT_GOOD;
	}
	if (bad)
		fprintf(stderr, "t%d: names are those after operation %u; promised %u, ended %u, begun %u\n",
			t, k, h->bound, h->ended, h->nr);
	model_free(m);
	free(m);
	return bad != 0;
}

static void promise_all(struct log_reader *r)
{
	for (unsigned t = 0; t < r->threads; t++) {
		r->h[t].bound = r->h[t].ended;
		for (struct obj *o = r->h[t].m.all; o; o = o->next)
			data_settle(o, r->h[t].ended);
	}
}

int load_check(struct load_fs *fs, const char *path, bool unmounted)
{
	struct log_reader *r = must(calloc(1, sizeof(*r)));
	struct tree tr = { .fs = fs };
	unsigned long ops = 0, durable = 0;
	int bad;

	for (int t = 0; t < LOAD_THREADS_MAX; t++)
		model_init(&r->h[t].m, t);
	bad = read_log(r, path);
	if (unmounted)
		promise_all(r);
	if (!bad && r->threads) {
		tree_walk(&tr, "");
		bad = tr.bad;
		for (unsigned t = 0; t < r->threads; t++) {
			bad |= check_thread(fs, &tr, &r->h[t], (int)t);
			ops += r->h[t].ended;
			durable += r->h[t].bound;
		}
		for (unsigned i = 0; i < tr.nr; i++) {
			bool known = strchr(tr.f[i].path, '/') == NULL;

			for (unsigned t = 0; t < r->threads && !known; t++)
				known = of_thread(tr.f[i].path, (int)t);
			if (!known) {
				fprintf(stderr, "%s: a name that nobody made\n", tr.f[i].path);
				bad = 1;
			}
		}
	}
	printf("%lu operations, %lu promised, %u names: %s\n", ops, durable, tr.nr,
	       bad ? "BAD" : "good");
	for (unsigned t = 0; t < LOAD_THREADS_MAX; t++) {
		model_free(&r->h[t].m);
		free(r->h[t].ops);
	}
	free(tr.f);
	free(r);
	return bad != 0;
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct found *)a)->path, ((const struct found *)b)->path);
}

int load_list(struct load_fs *fs)
{
	struct tree tr = { .fs = fs };
	uint8_t *buf = must(aligned_alloc(4096, FILE_MAX + 65536));

	tree_walk(&tr, "");
	qsort(tr.f, tr.nr, sizeof(*tr.f), by_path);
	for (unsigned i = 0; i < tr.nr; i++) {
		const struct found *f = &tr.f[i];
		uint64_t hash = f->hash;
		char full[PATH_LEN];
		ssize_t n = 0;
		void *h;

		expand(f->path, full);
		if (S_ISREG(f->st.st_mode)) {
			int err = fs->ops->open(fs, full, &h);

			n = err;
			if (!err) {
				n = fs->ops->pread(h, buf, FILE_MAX + 65536, 0);
				fs->ops->close(h);
			}
			for (ssize_t j = 0; j < n; j++)
				hash = (hash ^ buf[j]) * 0x100000001B3u;
			if (n < 0)
				tr.bad = 1;
		}
		printf("%s %06o %u %u:%u %llu %zd %016llx\n", f->path, f->st.st_mode,
		       (unsigned)f->st.st_nlink, f->st.st_uid, f->st.st_gid,
		       (unsigned long long)f->st.st_ino, n, (unsigned long long)hash);
	}
	free(tr.f);
	free(buf);
	return tr.bad;
}
