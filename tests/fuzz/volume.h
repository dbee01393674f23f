/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/fuzz/volume.h - volumes in memory for the coverage-guided fuzzers
 *
 * The volumes to start from stand in tests/fuzz/templates, compressed, and not
 * made anew by the mke2fs of the day: what an input changes is the n-th piece of metadata
 * of a template, and must be the same one everywhere. A volume is in memory
 * twice: as it was, and as it is worked on. What is written is noted by KiB and
 * put back afterwards, which is all that an execution costs besides the
 * file system's own work.
 *
 * The device takes no write behind the volume's end as the superblock has it, nor any
 * when the mount is read-only: abort(). It is longer than the volume, so that
 * this can happen.
 *
 * Input: a byte for the template, one or more of options, then what the
 * program likes. Reading past its end gives zeros.
 *
 * Locks: none. Threads: one (one_thread.c).
 */
#ifndef SLUICE_TESTS_VOLUME_H
#define SLUICE_TESTS_VOLUME_H

#include "tests/fuzz/mutate.h"
#include "tests/fuzz/one_thread.h"
#include "tests/fuzz/torment.h"

#define VOLUME_GUARD (64u << 10)
#define VOLUME_MAX (16u << 20)

struct volume {
	const char *name;
	bool no_journal;
	struct image clean, work;
	struct meta_map meta;
	u8 *noted;       /* by KiB */
	u32 *list, nr_noted;
	/* of the present execution */
	u64 limit;       /* bytes: may be written */
	bool readonly, dead;
};

/* ---- input ---- */

struct input {
	const u8 *at, *end;
};

static inline u8 in_u8(struct input *in)
{
	return in->at < in->end ? *in->at++ : 0;
}

static inline u16 in_u16(struct input *in)
{
	u16 lo = in_u8(in);

	return (u16)(lo | in_u8(in) << 8);
}

static inline u32 in_u32(struct input *in)
{
	u32 lo = in_u16(in);

	return lo | (u32)in_u16(in) << 16;
}

static inline bool in_more(const struct input *in)
{
	return in->at < in->end;
}

/* ---- the volume ---- */

static inline void volume_note(struct volume *v, u64 pos, u64 len)
{
	for (u64 k = pos / 1024; k <= (pos + len - 1) / 1024; k++) {
		if (v->noted[k])
			continue;
		v->noted[k] = 1;
		v->list[v->nr_noted++] = (u32)k;
	}
}

static inline void volume_restore(struct volume *v)
{
	for (u32 i = 0; i < v->nr_noted; i++) {
		u64 pos = (u64)v->list[i] * 1024;

		memcpy(v->work.mem + pos, v->clean.mem + pos, 1024);
		v->noted[v->list[i]] = 0;
	}
	v->nr_noted = 0;
}

static inline void volume_load(struct volume *v, const char *dir)
{
	size_t room = VOLUME_MAX, n = 0, got;
	char cmd[512];
	FILE *f;

	snprintf(cmd, sizeof(cmd), "gzip -dc '%s/%s.gz'", dir, v->name);
	f = popen(cmd, "r");
	image_alloc(&v->clean, room);
	while (f && n < room && (got = fread(v->clean.mem + n, 1, room - n, f)))
		n += got;
	if (!f || pclose(f) || n < 65536 || n == room)
		image_die(v->name);
	v->clean.size = n;
	image_decode(&v->clean);
	meta_map_make(&v->meta, &v->clean);
	v->work = v->clean;
	image_alloc(&v->work, n + VOLUME_GUARD);
	memcpy(v->work.mem, v->clean.mem, n);
	v->work.size = n;
	v->noted = calloc(1, (n + VOLUME_GUARD) / 1024);
	v->list = calloc((n + VOLUME_GUARD) / 1024, sizeof(u32));
	if (!v->noted || !v->list)
		image_die("no memory");
}

/* Where the volume ends, by what stands on the device now. */
static inline u64 volume_end(const struct volume *v)
{
	const struct ext4_super_block *es = image_sb(&v->work);
	u64 blocks = le32_to_cpu(es->s_blocks_count_lo);

	if (le32_to_cpu(es->s_feature_incompat) & EXT4_INCOMPAT_64BIT)
		blocks |= (u64)le32_to_cpu(es->s_blocks_count_hi) << 32;
	return blocks << min_of(10 + le32_to_cpu(es->s_log_block_size), 20u);
}

/* ---- the device ---- */

struct volume_bdev {
	struct bdev bd;
	struct volume *v;
};

static inline void volume_may_write(struct volume *v, u64 pos, u64 len)
{
	v->limit = max_of(v->limit, volume_end(v));
	if (v->readonly || v->dead || pos + len > v->limit || pos + len < pos) {
		fprintf(stderr, "%s: %llu bytes written at %llu, volume of %llu\n",
			v->readonly ? "READ-ONLY"
			: v->dead   ? "SHUT DOWN"
				    : "OUTSIDE",
			(unsigned long long)len, (unsigned long long)pos,
			(unsigned long long)v->limit);
		abort();
	}
	volume_note(v, pos, len);
}

static inline void volume_submit(struct bdev *bd, struct bio **bios, unsigned n)
{
	struct volume *v = container_of_type(bd, struct volume_bdev, bd)->v;

	for (unsigned i = 0; i < n; i++) {
		u8 *at = v->work.mem + bios[i]->bi_pos;

		if (bios[i]->bi_op == BIO_WRITE)
			volume_may_write(v, bios[i]->bi_pos, bios[i]->bi_bytes);
		for (int k = 0; k < bios[i]->bi_nr_iov; k++) {
			struct iovec *iov = &bios[i]->bi_iov[k];

			if (bios[i]->bi_op == BIO_READ)
				memcpy(iov->iov_base, at, iov->iov_len);
			else
				memcpy(at, iov->iov_base, iov->iov_len);
			at += iov->iov_len;
		}
		bios[i]->bi_end_io(bios[i]);
	}
}

static inline int volume_discard(struct bdev *bd, u64 pos, u64 len)
{
	struct volume *v = container_of_type(bd, struct volume_bdev, bd)->v;

	volume_may_write(v, pos, len);
	memset(v->work.mem + pos, 0, len);
	return 0;
}

static inline void volume_close(struct bdev *bd)
{
	free(container_of_type(bd, struct volume_bdev, bd));
}

static inline struct bdev *volume_bdev(struct volume *v)
{
	static const struct bdev_ops ops = {
		.submit = volume_submit,
		.flush = mem_flush,
		.discard = volume_discard,
		.close = volume_close,
	};
	struct volume_bdev *vb = calloc(1, sizeof(*vb));

	if (!vb)
		image_die("no memory");
	vb->bd.bd_ops = &ops;
	vb->bd.bd_size = v->clean.size + VOLUME_GUARD;
	vb->bd.bd_sector = 512;
	strcpy(vb->bd.bd_name, "volume");
	vb->v = v;
	v->limit = volume_end(v);
	return &vb->bd;
}

/* ---- mounting ---- */

/* Speed: what was freed need not stay for long, nor who allocated it be known far up. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "quarantine_size_mb=4:thread_local_quarantine_size_kb=64:malloc_context_size=8:"
	       "allocator_release_to_os_interval_ms=-1";
}

static inline void volume_no_log(enum log_level level, const char *line, void *priv)
{
}

/* Before the first mount of the process. */
static inline void volume_start(struct volume *v, size_t nr)
{
	const char *dir = getenv("FUZZ_TEMPLATES");

	for (size_t i = 0; i < nr; i++)
		volume_load(&v[i], dir ? dir : FUZZ_TEMPLATES);
	log_init("fuzz", getenv("SL_DEBUG") ? LOG_LVL_DEBUG : LOG_LVL_INFO);
	if (!getenv("SL_DEBUG"))
		log_set_sink(volume_no_log, NULL);
	thread_register();
}

/* What no call may return, whatever the volume is. */
static inline s64 volume_result(const char *call, s64 res)
{
	switch (res < 0 ? -res : 0) {
	case EACCES:
	case EBADF:
	case EBUSY:
	case EOVERFLOW:
	case ERANGE:
	case ETXTBSY:
	case EXDEV:
		return res;
	default:
		break;
	}
	if (getenv("SL_DEBUG"))
		fprintf(stderr, "%s: %lld\n", call, (long long)res);
	if (res < 0 && (res < -4095 || unexpected_code((int)res))) {
		fprintf(stderr, "UNEXPECTED: %s: %s\n", call, strerror((int)-res));
		abort();
	}
	return res;
}

#define GET(call) volume_result(#call, (call))

static inline int volume_mount(struct volume *v, const struct sl_options *opts,
			       struct super_block **out)
{
	v->readonly = opts->readonly;
	v->dead = false;
	return (int)GET(sl_mount(volume_bdev(v), opts, out));
}

/* ---- damage ---- */

struct patch {
	const struct meta_block *b;
	u32 off, len;
	u8 bytes[32];
};

static inline bool patch_leads(const struct patch *p)
{
	return p->b->kind == META_GDT || p->b->kind == META_SUPER;
}

static inline void patch_write(struct volume *v, const struct patch *p)
{
	volume_note(v, p->b->pos + p->off, p->len);
	memcpy(v->work.mem + p->b->pos + p->off, p->bytes, p->len);
}

/*
 * The checksums of what was hit. Descriptors and superblock lead to the rest, so they
 * come last. What a checksum is written to belongs to the volume: noted before.
 */
static inline void patches_apply(struct volume *v, const struct patch *p, u32 nr, bool fix)
{
	struct image *im = &v->work;

	for (u32 i = 0; i < nr; i++) {
		if (patch_leads(&p[i]))
			continue;
		patch_write(v, &p[i]);
		volume_note(v, p[i].b->pos, p[i].b->len);
	}
	for (u32 i = 0; fix && im->csum && i < nr; i++) {
		if (patch_leads(&p[i]))
			continue;
		if (p[i].b->kind == META_BLOCK_BITMAP || p[i].b->kind == META_INODE_BITMAP)
			volume_note(v, (u64)((u8 *)image_gd(im, p[i].b->owner) - im->mem),
				    im->desc_size);
		mutate_fix(im, p[i].b);
	}
	for (u32 i = 0; i < nr; i++)
		if (patch_leads(&p[i]))
			patch_write(v, &p[i]);
	for (u32 i = 0; fix && i < nr; i++) {
		if (p[i].b->kind == META_GDT)
			image_fix_gd(im, p[i].b->owner);
		else if (p[i].b->kind == META_SUPER)
			image_fix_sb(im);
	}
}

/* One patch: which piece of metadata (2 bytes), where (2), how much (1), what. */
static inline void patch_read(const struct volume *v, struct input *in, struct patch *p)
{
	p->b = &v->meta.at[in_u16(in) % v->meta.nr];
	p->off = in_u16(in) % p->b->len;
	p->len = in_u8(in) % sizeof(p->bytes) + 1;
	for (u32 i = 0; i < p->len; i++)
		p->bytes[i] = in_u8(in);
	p->len = min_of(p->len, p->b->len - p->off);
}

#endif
