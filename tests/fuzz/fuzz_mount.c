/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/fuzz/fuzz_mount.c - a damaged volume is mounted and worked on
 *
 * For libFuzzer, and with fuzz_main.c for the inputs that are kept. The input:
 *
 *   template (1 byte), options (2), number of patches (1), patches, operations
 *
 * A patch changes up to 32 bytes of the n-th piece of metadata, and its checksum
 * is repaired. An operation is a byte, and what it needs. The operations work on
 * a few inodes that earlier ones have found, as users of fs/fs.h do.
 *
 * The mutator knows this format: it changes values as mutate.h does, near
 * to what is there, and inserts, drops and doubles patches and operations.
 *
 * How to run it: CONTRIBUTING.md, "Fuzz tests".
 */
#include "tests/fuzz/volume.h"

#include <linux/falloc.h>
#include <linux/fiemap.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const u8 *data, size_t size);
size_t LLVMFuzzerCustomMutator(u8 *data, size_t size, size_t max, unsigned seed);
size_t LLVMFuzzerMutate(u8 *data, size_t size, size_t max);

static struct volume volumes[] = {
	{ "plain-1k" },
	{ "csum-1k" },
	{ "log-1k" },
	{ "log-csum-1k" },
	{ "plain-4k" },
	{ "inline-4k" },
	{ "eainode-1k" },
	{ "indirect-1k" },
	{ "bigalloc-4k" },
	{ "nojournal-1k", .no_journal = true },
	{ "attrs-1k" },
};

enum {
	OPT_RO = 1, OPT_NOLOAD = 2, OPT_ERRORS_RO = 4, OPT_NO_FIX = 8, OPT_AGAIN = 16,
	OPT_CRASH = 32, OPT_NODELALLOC = 64, OPT_SYNC = 128,
	OPT_DISCARD = 256, OPT_NOACL = 512, OPT_ATIME = 1024, OPT_DATACACHE = 2048,
};

#define PATCHES_MAX 12u
#define OPS_MAX 48u
#define SLOTS 6u
#define BUF 16384u

static struct {
	bool ready;
	u8 *buf, *data;
} fm;

static void get_ready(void)
{
	if (fm.ready)
		return;
	volume_start(volumes, ARRAY_SIZE(volumes));
	fm.buf = aligned_alloc(4096, BUF);
	fm.data = aligned_alloc(4096, BUF);
	for (u32 i = 0; i < BUF; i++)
		fm.data[i] = (u8)TORMENT_DATA[i % (sizeof(TORMENT_DATA) - 1)];
	fm.ready = true;
}

/* ---- operations ---- */

struct state {
	struct volume *v;
	struct super_block *sb;
	struct inode *slot[SLOTS];
	struct sl_file *file; /* one that stays open */
	struct input *in;
};

static const char *const names[] = {
	"a", "linear", "victim", "htree", "f1", "f2", "f5", "sub", "sub2", "empty", "xattr",
	"bigxattr", "frag", "deep", "sparse", "prealloc", "indirect", "fast", "slow", "fifo",
	"hard", "medium", "b", "empty-file", "file-with-a-longer-name-7", "first", "new0",
	"new1", "new2", "new-with-a-name-that-needs-more-room-than-an-old-one", ".", "..",
	"lost+found", "small", "inline", "bigvalue",
};

static const char *pick_name(struct state *s)
{
	return names[in_u8(s->in) % ARRAY_SIZE(names)];
}

static struct inode *pick_inode(struct state *s)
{
	struct inode *inode = s->slot[in_u8(s->in) % SLOTS];

	return inode ? inode : s->slot[0];
}

/* Takes the reference. */
static void keep(struct state *s, struct inode *inode)
{
	u32 i = 1 + (u32)sl_ino(inode) % (SLOTS - 1);

	sl_iput(s->slot[i]);
	s->slot[i] = inode;
}

static u64 pick_offset(struct state *s, u64 size)
{
	u16 o = in_u16(s->in);

	switch (o >> 13) {
	case 0:
		return size + o;
	case 1:
		return (u64)o << 24;
	case 2:
		return size / 2 + (o & 0xFFF);
	case 3:
		return ((u64)(o & 0xFFF) << 12) + (o & 0xFFF);
	default:
		return o & 0x1FFF;
	}
}

static u64 size_of(struct inode *inode, u32 *mode)
{
	struct stat st;

	sl_getattr(inode, &st);
	*mode = st.st_mode;
	return (u64)st.st_size;
}

struct names_seen {
	u32 nr, max;
	char name[16][256];
};

static int emit(void *priv, const struct sl_dirent *de)
{
	struct names_seen *n = priv;

	if (de->namelen > 255)
		abort();
	if (n->nr < ARRAY_SIZE(n->name)) {
		memcpy(n->name[n->nr], de->name, de->namelen);
		n->name[n->nr][de->namelen] = 0;
	}
	return ++n->nr >= n->max;
}

static void list_dir(struct inode *dir, u64 pos, struct names_seen *n)
{
	struct sl_file *f;

	n->nr = 0;
	if (GET(sl_opendir(dir, &f)))
		return;
	GET(sl_readdir(f, pos, emit, n));
	sl_release(f);
	n->nr = min_of(n->nr, (u32)ARRAY_SIZE(n->name));
}

static void look_xattrs(struct inode *inode)
{
	static char list[65536], value[65536];
	s64 n = GET(sl_listxattr(inode, true, list, sizeof(list)));

	for (char *p = list; n > 0 && p < list + n; p += strlen(p) + 1)
		if (GET(sl_getxattr(inode, p, value, sizeof(value))) == -ENODATA)
			abort();
}

static void read_some(struct inode *inode, u64 pos, u32 len)
{
	struct sl_file *f;

	if (GET(sl_open(inode, 0, &f)))
		return;
	if (GET(sl_read(f, fm.buf, len, pos)) > (s64)len)
		abort();
	sl_release(f);
}

static void look_at(struct inode *inode)
{
	u32 mode;
	u64 size = size_of(inode, &mode);

	look_xattrs(inode);
	if (S_ISLNK(mode))
		GET(sl_readlink(inode, (char *)fm.buf, 4096));
	if (S_ISREG(mode)) {
		read_some(inode, 0, 4096);
		if (size > 4096)
			read_some(inode, size - 4096, BUF);
	}
}

/* A directory, with what is in it, as far as its first names go. */
static void walk(struct state *s, struct inode *dir)
{
	struct names_seen n = { .max = 400 };
	struct inode *inode;

	list_dir(dir, 0, &n);
	for (u32 i = 0; i < n.nr; i++) {
		if (!n.name[i][0] || strlen(n.name[i]) > 255 || strchr(n.name[i], '/'))
			continue; /* not a name that can be asked for */
		if (GET(sl_lookup(dir, n.name[i], strlen(n.name[i]), &inode)))
			continue;
		look_at(inode);
		if (in_u8(s->in) & 1)
			keep(s, inode);
		else
			sl_iput(inode);
	}
}

static void op_file(struct state *s, u8 op, struct inode *inode)
{
	u64 pos, len;
	u32 mode;
	u64 size = size_of(inode, &mode);
	struct sl_extent ext[8];
	struct sl_file *f;
	struct stat st;

	if (!S_ISREG(mode))
		return;
	pos = pick_offset(s, size);
	len = 1 + in_u16(s->in) % BUF;
	if (GET(sl_open(inode, op == 0 ? 0 : SL_OPEN_WRITE, &f)))
		return;
	switch (op) {
	case 0:
		GET(sl_read(f, fm.buf, len, pos));
		break;
	case 1:
		GET(sl_write(f, fm.data, len, pos, 0, &torment_cred));
		break;
	case 2:
		st.st_size = (off_t)pos;
		GET(sl_setattr(inode, &st, SL_SET_SIZE, &torment_cred, NULL));
		break;
	case 3: {
		static const int modes[] = {
			0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
			FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
			FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		};
		GET(sl_fallocate(f, modes[in_u8(s->in) % 5], pos, len * 4, &torment_cred));
		break;
	}
	case 4:
		GET(sl_fsync(f, len & 1));
		break;
	case 5: {
		s64 at = GET(sl_lseek(f, pos, len & 1 ? SEEK_DATA : SEEK_HOLE));

		if (at >= 0 && (u64)at < pos)
			abort();
		break;
	}
	case 6:
		GET(sl_fiemap(inode, pos, len << 8, len & 1, ext, ARRAY_SIZE(ext)));
		break;
	case 7:
		GET(sl_relocate(inode));
		break;
	case 8:
		GET(sl_write(f, fm.data, ALIGN_UP(len, (u64)4096), ALIGN_DOWN(pos, (u64)4096),
			     SL_WRITE_DIRECT, &torment_cred));
		break;
	default:
		GET(sl_bmap(inode, pos, 4096, &pos));
		break;
	}
	if (in_u8(s->in) == 7) { /* stays open */
		if (s->file)
			sl_release(s->file);
		s->file = f;
	} else {
		sl_release(f);
	}
}

static void op_xattr(struct state *s, u8 op, struct inode *inode)
{
	static const char *const attrs[] = {
		"user.small", "user.big", "trusted.new", "security.x", "user.huge",
		"system.posix_acl_access", "system.posix_acl_default", "system.data",
	};
	const char *attr = attrs[in_u8(s->in) % ARRAY_SIZE(attrs)];
	static u8 value[9000];
	u32 len = in_u16(s->in) % sizeof(value);

	switch (op) {
	case 0:
		memset(value, 'v', sizeof(value));
		if (len & 4) /* as of each access control list */
			for (u32 i = 0; i < min_of(len, 60u); i++)
				value[i] = in_u8(s->in);
		GET(sl_setxattr(inode, attr, value, len & 512 ? len : len & 127,
				in_u8(s->in) % 3, &torment_cred));
		break;
	case 1:
		GET(sl_getxattr(inode, attr, value, len));
		break;
	case 2:
		GET(sl_removexattr(inode, attr));
		break;
	default:
		look_xattrs(inode);
		break;
	}
}

static void op_name(struct state *s, u8 op, struct inode *dir)
{
	const char *name = pick_name(s), *to;
	size_t len = strlen(name);
	struct inode *inode = NULL, *other;
	char target[300];
	struct sl_entry e;

	switch (op) {
	case 0:
		GET(sl_lookup(dir, name, len, &inode));
		break;
	case 1:
		GET(sl_mknod(dir, name, len, S_IFREG | 0644, 0, &torment_cred, &inode));
		break;
	case 2:
		GET(sl_mkdir(dir, name, len, 0755, &torment_cred, &inode));
		break;
	case 3:
		memset(target, 'y', sizeof(target));
		target[1 + in_u8(s->in)] = 0;
		GET(sl_symlink(dir, name, len, target, &torment_cred, &inode));
		break;
	case 4:
		GET(sl_unlink(dir, name, len));
		break;
	case 5:
		GET(sl_rmdir(dir, name, len));
		break;
	case 6:
		other = pick_inode(s);
		to = pick_name(s);
		GET(sl_rename(dir, name, len, other, to, strlen(to), in_u8(s->in) & 3));
		break;
	case 7:
		GET(sl_link(pick_inode(s), dir, name, len));
		break;
	case 8:
		GET(sl_mknod(dir, name, len, S_IFCHR | 0600, in_u16(s->in), &torment_cred,
			     &inode));
		break;
	case 9:
		GET(sl_tmpfile(dir, S_IFREG | 0600, &torment_cred, &inode));
		break;
	case 10:
		GET(sl_rename_whiteout(dir, name, len, pick_inode(s), "new2", 4, 0,
				       &torment_cred));
		break;
	default:
		if (!sl_lookup_cached(s->sb, sl_ino(dir), name, len, &e))
			sl_forget(s->sb, e.ino, e.ino != 2);
		break;
	}
	if (inode)
		keep(s, inode);
}

static void op_inode(struct state *s, u8 op, struct inode *inode)
{
	struct sl_fileattr fa;
	struct stat st = { 0 };
	u32 mode;

	switch (op) {
	case 0:
		st.st_mode = in_u16(s->in) & 07777;
		st.st_uid = st.st_gid = in_u8(s->in);
		st.st_mtime = (time_t)in_u32(s->in);
		GET(sl_setattr(inode, &st, SL_SET_MODE | SL_SET_UID | SL_SET_GID | SL_SET_MTIME,
			       &torment_cred, NULL));
		break;
	case 1:
		fa = (struct sl_fileattr){ in_u32(s->in), in_u8(s->in) };
		GET(sl_fileattr_set(inode, &fa, in_u8(s->in) & 3, in_u32(s->in), 7,
				    &torment_cred));
		break;
	case 2:
		size_of(inode, &mode);
		if (S_ISLNK(mode))
			GET(sl_readlink(inode, (char *)fm.buf, 1 + in_u16(s->in) % 4096));
		break;
	case 3:
		sl_lookup_inc(inode);
		sl_forget(s->sb, sl_ino(inode), 1);
		break;
	default:
		if (sl_getattr_ino(s->sb, in_u16(s->in) % 600, &st) > 0)
			abort();
		break;
	}
}

static void op_copy(struct state *s)
{
	struct inode *a = pick_inode(s), *b = pick_inode(s);
	struct sl_file *in, *out;
	u32 ma, mb;
	u64 sa = size_of(a, &ma), sz = size_of(b, &mb);

	if (!S_ISREG(ma) || !S_ISREG(mb) || GET(sl_open(a, 0, &in)))
		return;
	if (!GET(sl_open(b, SL_OPEN_WRITE, &out))) {
		GET(sl_copy_file_range(in, pick_offset(s, sa), out, pick_offset(s, sz),
				       in_u16(s->in), &torment_cred));
		sl_release(out);
	}
	sl_release(in);
}

static void op_bulkstat(struct state *s)
{
	struct sl_bulkstat_rec rec[16];
	struct sl_bulkstat *scan;

	if (GET(sl_bulkstat_open(s->sb, 1 + in_u16(s->in) % 512, UINT64_MAX,
				 SL_BULKSTAT_SMALL, &scan)))
		return;
	for (u32 i = 0; i < 40 && sl_bulkstat_read(scan, rec, ARRAY_SIZE(rec)); i++)
		;
	sl_bulkstat_close(scan);
}

static void op_volume(struct state *s, u8 op)
{
	static char text[4096];
	struct inode *inode;
	struct statvfs st;
	u64 n;

	switch (op) {
	case 0:
		if (!GET(sl_iget(s->sb, in_u16(s->in) & 0x3FF, &inode)))
			keep(s, inode);
		break;
	case 1:
		GET(sl_sync(s->sb));
		break;
	case 2:
		sl_drop_caches(s->sb);
		break;
	case 3:
		GET(sl_trim(s->sb, 0, UINT64_MAX, in_u16(s->in), &n, NULL, NULL));
		break;
	case 4:
		GET(sl_set_label(s->sb, "fuzz"));
		break;
	case 5:
		GET(sl_statfs(s->sb, &st));
		sl_stats(s->sb, text, sizeof(text));
		break;
	case 6:
		one_thread_later((u64)in_u8(s->in) * 100000000);
		break;
	case 7:
		GET(sl_checkpoint(s->sb));
		break;
	case 8:
		op_bulkstat(s);
		break;
	default:
		op_copy(s);
		break;
	}
}

static void one_op(struct state *s)
{
	u8 op = in_u8(s->in) % 48;

	if (op < 10) {
		op_file(s, op, pick_inode(s));
	} else if (op < 22) {
		op_name(s, op - 10, pick_inode(s));
	} else if (op < 26) {
		op_xattr(s, op - 22, pick_inode(s));
	} else if (op < 31) {
		op_inode(s, op - 26, pick_inode(s));
	} else if (op < 41) {
		op_volume(s, op - 31);
	} else if (op < 43) {
		walk(s, pick_inode(s));
	} else if (op < 45) {
		struct names_seen n = { .max = 1u << 20 };

		list_dir(pick_inode(s), in_u32(s->in), &n);
	} else {
		op_name(s, 0, s->slot[0]);
	}
}

static void work(struct volume *v, struct super_block *sb, struct input *in)
{
	struct state s = { .v = v, .sb = sb, .in = in };

	if (GET(sl_iget(sb, 2, &s.slot[0])))
		return;
	for (u32 i = 0; i < OPS_MAX && in_more(in); i++)
		one_op(&s);
	if (s.file)
		sl_release(s.file);
	for (u32 i = 0; i < SLOTS; i++)
		sl_iput(s.slot[i]);
}

static void mount_again(struct volume *v, struct sl_options *opts)
{
	struct input none = { 0 };
	struct super_block *sb;
	struct state s = { .v = v, .in = &none };

	if (volume_mount(v, opts, &sb))
		return;
	s.sb = sb;
	if (!GET(sl_iget(sb, 2, &s.slot[0]))) {
		walk(&s, s.slot[0]);
		sl_iput(s.slot[0]);
	}
	GET(sl_unmount(sb));
}

/* Before libFuzzer's clock runs. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	get_ready();
	return 0;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	struct input in = { data, data + size };
	struct patch p[PATCHES_MAX];
	struct sl_options opts = { .cache_bytes = 16 << 20 };
	struct super_block *sb;
	struct volume *v;
	u32 flags, nr;
	int err;

	get_ready();
	if (size < 4)
		return 0;
	v = &volumes[in_u8(&in) % ARRAY_SIZE(volumes)];
	flags = in_u16(&in);
	nr = in_u8(&in) % (PATCHES_MAX + 1);
	for (u32 i = 0; i < nr; i++)
		patch_read(v, &in, &p[i]);
	patches_apply(v, p, nr, !(flags & OPT_NO_FIX));
	opts.readonly = flags & OPT_RO;
	opts.noload = opts.readonly && (flags & OPT_NOLOAD);
	opts.no_journal = v->no_journal;
	opts.errors = flags & OPT_ERRORS_RO ? SL_ERRORS_RO : SL_ERRORS_CONTINUE;
	opts.nodelalloc = flags & OPT_NODELALLOC;
	opts.sync = flags & OPT_SYNC;
	opts.discard = flags & OPT_DISCARD;
	opts.noacl = flags & OPT_NOACL;
	opts.datacache_full = flags & OPT_DATACACHE;
	opts.atime = flags & OPT_ATIME ? SL_ATIME_STRICT : SL_ATIME_RELATIME;
	err = volume_mount(v, &opts, &sb);
	if (err == -EROFS && !opts.readonly) { /* a feature that is only read */
		opts.readonly = true;
		err = volume_mount(v, &opts, &sb);
	}
	if (!err) {
		work(v, sb, &in);
		if (flags & OPT_CRASH && !opts.readonly) {
			GET(sl_shutdown(sb, SL_SHUTDOWN_NOLOGFLUSH));
			v->dead = true;
		}
		GET(sl_unmount(sb));
		if (flags & (OPT_AGAIN | OPT_CRASH))
			mount_again(v, &opts);
	}
	one_thread_rest();
	volume_restore(v);
	return 0;
}

/* ---- the mutator ---- */

struct parsed {
	u8 head[4];
	struct {
		u16 block, off;
		u8 len, bytes[32];
	} p[PATCHES_MAX];
	u32 nr;
	u8 ops[512];
	u32 nr_ops;
};

static void parse(struct parsed *x, const u8 *data, size_t size)
{
	struct input in = { data, data + size };

	memset(x, 0, sizeof(*x));
	for (int i = 0; i < 4; i++)
		x->head[i] = in_u8(&in);
	x->nr = x->head[3] % (PATCHES_MAX + 1);
	for (u32 i = 0; i < x->nr; i++) {
		x->p[i].block = in_u16(&in);
		x->p[i].off = in_u16(&in);
		x->p[i].len = in_u8(&in) % 32 + 1;
		for (u32 k = 0; k < x->p[i].len; k++)
			x->p[i].bytes[k] = in_u8(&in);
	}
	while (in_more(&in) && x->nr_ops < sizeof(x->ops))
		x->ops[x->nr_ops++] = in_u8(&in);
}

static size_t unparse(const struct parsed *x, u8 *data, size_t max)
{
	u8 buf[4 + PATCHES_MAX * 37 + sizeof(x->ops)];
	size_t n = 4;

	memcpy(buf, x->head, 3);
	buf[3] = (u8)x->nr;
	for (u32 i = 0; i < x->nr; i++) {
		buf[n++] = (u8)x->p[i].block;
		buf[n++] = (u8)(x->p[i].block >> 8);
		buf[n++] = (u8)x->p[i].off;
		buf[n++] = (u8)(x->p[i].off >> 8);
		buf[n++] = (u8)(x->p[i].len - 1);
		memcpy(buf + n, x->p[i].bytes, x->p[i].len);
		n += x->p[i].len;
	}
	memcpy(buf + n, x->ops, x->nr_ops);
	n = min_of(n + x->nr_ops, max);
	memcpy(data, buf, n);
	return n;
}

/* A value of 1, 2 or 4 bytes, near what the template has there; big-endian in a log. */
static void mutate_patch(const struct volume *v, struct parsed *x, u32 i, unsigned *seed)
{
	static const u8 widths[] = { 1, 2, 2, 4, 4, 4, 8 };
	const struct meta_block *b;
	u32 kind, width = widths[(unsigned)rand_r(seed) % sizeof(widths)], val = 0;
	const u8 *old;

	do
		kind = (u32)rand_r(seed) % META_KINDS;
	while (v->meta.start[kind] == v->meta.start[kind + 1] ||
	       (kind == META_SUPER && rand_r(seed) % 3));
	x->p[i].block = (u16)(v->meta.start[kind] +
			      (u32)rand_r(seed) % (v->meta.start[kind + 1] - v->meta.start[kind]));
	b = &v->meta.at[x->p[i].block];
	x->p[i].off = (u16)(mutate_offset(b, seed) & ~(min_of(width, 4u) - 1));
	x->p[i].len = (u8)width;
	old = v->clean.mem + b->pos + x->p[i].off;
	memcpy(x->p[i].bytes, old, 8);
	memcpy(&val, old, min_of(width, 4u));
	if ((b->kind == META_JOURNAL || b->kind == META_JOURNAL_SB) && width == 4)
		val = __builtin_bswap32(mutate_value(&v->clean, seed, __builtin_bswap32(val)));
	else
		val = mutate_value(&v->clean, seed, val);
	memcpy(x->p[i].bytes, &val, 4);
}

static void mutate_ops(struct parsed *x, unsigned *seed)
{
	u32 at = x->nr_ops ? (u32)rand_r(seed) % x->nr_ops : 0, n;

	switch ((unsigned)rand_r(seed) % 4) {
	case 0: /* more of them, at the end or in the middle */
	case 1:
		n = 1 + (u32)rand_r(seed) % 16;
		if (x->nr_ops + n > sizeof(x->ops))
			break;
		if (rand_r(seed) % 2)
			at = x->nr_ops;
		memmove(x->ops + at + n, x->ops + at, x->nr_ops - at);
		x->nr_ops += n;
		for (u32 i = 0; i < n; i++)
			x->ops[at + i] = (u8)((unsigned)rand_r(seed) % (i % 2 ? 8 : 256));
		break;
	case 2:
		if (!x->nr_ops)
			break;
		n = min_of(1 + (u32)rand_r(seed) % 6, x->nr_ops - at);
		memmove(x->ops + at, x->ops + at + n, x->nr_ops - at - n);
		x->nr_ops -= n;
		break;
	default:
		if (x->nr_ops)
			x->ops[at] = (u8)rand_r(seed);
		break;
	}
}

size_t LLVMFuzzerCustomMutator(u8 *data, size_t size, size_t max, unsigned seed)
{
	const struct volume *v;
	struct parsed x;
	u32 i;

	get_ready();
	parse(&x, data, size);
	v = &volumes[x.head[0] % ARRAY_SIZE(volumes)];
	switch ((unsigned)rand_r(&seed) % 12) {
	case 0:
	case 1:
		return LLVMFuzzerMutate(data, size, max);
	case 2: /* the same on another volume, or in another way */
		x.head[(unsigned)rand_r(&seed) % 3] = (u8)rand_r(&seed);
		break;
	case 3:
		x.head[1] ^= (u8)(1u << (unsigned)rand_r(&seed) % 8);
		break;
	case 4:
		if (x.nr) {
			i = (u32)rand_r(&seed) % x.nr;
			x.p[i] = x.p[--x.nr];
		}
		break;
	case 5:
		if (x.nr) {
			i = (u32)rand_r(&seed) % x.nr;
			x.p[i].bytes[(unsigned)rand_r(&seed) % x.p[i].len] ^=
				(u8)(1u << (unsigned)rand_r(&seed) % 8);
		}
		break;
	case 6:
	case 7:
	case 8:
		mutate_ops(&x, &seed);
		break;
	default:
		if (x.nr < PATCHES_MAX)
			x.nr++;
		i = (u32)rand_r(&seed) % x.nr;
		if (i != x.nr - 1)
			x.p[x.nr - 1] = x.p[i];
		mutate_patch(v, &x, i, &seed);
		break;
	}
	return unparse(&x, data, max);
}
