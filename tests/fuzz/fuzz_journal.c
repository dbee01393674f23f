/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/fuzz/fuzz_journal.c - any log is replayed
 *
 * For libFuzzer, and with fuzz_main.c for the inputs that are kept. The input
 * builds a log in an intact volume, block by block:
 *
 *   template (1 byte), options (1), features of the journal (1), start (1), records
 *
 * A record is a byte and what it needs: a descriptor with its images, a commit
 * block, a revoke block, a change of bytes in what was built last, a jump in the
 * ring, a change of the journal's superblock. At the end all checksums are
 * made right, unless the options say no. The volume is then mounted, which
 * replays the log, looked at and unmounted.
 *
 * How to run it: CONTRIBUTING.md, "Fuzz tests".
 */
#include "tests/fuzz/volume.h"

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
};

enum {
	OPT_RO = 1, OPT_NOLOAD = 2, OPT_NO_FIX = 4, OPT_KEEP_LOG = 8, OPT_NO_RECOVER = 16,
	OPT_CHANGE = 32,
};

#define BLOCKS_MAX 96u
#define TAGS_MAX 12u
#define JOURNAL_RING_MIN 1024u

/* A log being built. */
struct log {
	struct volume *v;
	struct input *in;
	bool v3, v2, wide;
	u32 at, seq, first, end; /* block of the log, transaction, the ring */
	u64 time;
	u32 seed;
	struct {
		u32 at;
		enum { IMAGE, DESCRIPTOR, OTHER, COMMIT } is;
		u32 seq;
	} block[BLOCKS_MAX];
	u32 nr;
};

static bool ready;

/* ---- where the log is ---- */

static struct {
	u64 block[JOURNAL_RING_MIN];
} places[ARRAY_SIZE(volumes)];

static void place(void *priv, u64 blk, u32 lblk, bool node)
{
	u64 *block = priv;

	if (!node && lblk < JOURNAL_RING_MIN)
		block[lblk] = blk;
}

static void get_ready(void)
{
	if (ready)
		return;
	volume_start(volumes, ARRAY_SIZE(volumes));
	for (size_t i = 0; i < ARRAY_SIZE(volumes); i++)
		image_walk_blocks(&volumes[i].clean, EXT4_JOURNAL_INO, place, places[i].block);
	ready = true;
}

static u8 *log_at(struct log *l, u32 at)
{
	struct image *im = &l->v->work;
	u64 blk = places[l->v - volumes].block[at % JOURNAL_RING_MIN];

	volume_note(l->v, blk * im->bs, im->bs);
	return image_block(im, blk);
}

/* ---- checksums ---- */

static void put_be32(u8 *at, u32 v)
{
	be32 b = cpu_to_be32(v);

	memcpy(at, &b, 4);
}

static u32 get_be32(const u8 *at)
{
	be32 b;

	memcpy(&b, at, 4);
	return be32_to_cpu(b);
}

static u32 tag_bytes(const struct log *l)
{
	return l->v3 ? 16 : (l->wide ? 12 : 8) + (l->v2 ? 2 : 0);
}

static void fix_descriptor(struct log *l, u8 *b, u32 at, u32 seq)
{
	u32 bs = l->v->work.bs, off = 12, flags;
	be32 seq_be = cpu_to_be32(seq);

	for (u32 n = 0; off + tag_bytes(l) <= bs - 4 && n < TAGS_MAX + 1; n++) {
		u32 crc = crc32c(crc32c(l->seed, &seq_be, 4), log_at(l, at + 1 + n), bs);

		if (l->v3) {
			put_be32(b + off + 12, crc);
			flags = get_be32(b + off + 4);
		} else {
			be16 c = cpu_to_be16((u16)crc);

			memcpy(b + off + 4, &c, 2);
			flags = (u32)b[off + 6] << 8 | b[off + 7];
		}
		off += tag_bytes(l);
		if (!(flags & JBD2_TAG_SAME_UUID))
			off += JBD2_UUID_SIZE;
		if (flags & JBD2_TAG_LAST)
			break;
	}
	put_be32(b + bs - 4, 0);
	put_be32(b + bs - 4, crc32c(l->seed, b, bs));
}

static void fix_all(struct log *l)
{
	u32 bs = l->v->work.bs;

	if (!l->v2 && !l->v3)
		return;
	for (u32 i = 0; i < l->nr; i++) {
		u8 *b = log_at(l, l->block[i].at);

		switch (l->block[i].is) {
		case DESCRIPTOR:
			fix_descriptor(l, b, l->block[i].at, l->block[i].seq);
			break;
		case OTHER:
			put_be32(b + bs - 4, 0);
			put_be32(b + bs - 4, crc32c(l->seed, b, bs));
			break;
		case COMMIT:
			put_be32(b + 16, 0);
			put_be32(b + 16, crc32c(l->seed, b, bs));
			break;
		default:
			break;
		}
	}
}

static void fix_super(u8 *b)
{
	size_t at = offsetof(struct jbd2_superblock, s_checksum);

	put_be32(b + at, 0);
	put_be32(b + at, crc32c(~0u, b, sizeof(struct jbd2_superblock)));
}

/* ---- records ---- */

static u8 *next_block(struct log *l, int is)
{
	u8 *b = log_at(l, l->at);

	memset(b, 0, l->v->work.bs);
	if (l->nr < BLOCKS_MAX) {
		l->block[l->nr].at = l->at;
		l->block[l->nr].is = is;
		l->block[l->nr++].seq = l->seq;
	}
	if (++l->at >= l->end)
		l->at = l->first;
	return b;
}

static u8 *next_header(struct log *l, int is, u32 type)
{
	u8 *b = next_block(l, is);

	put_be32(b, JBD2_MAGIC);
	put_be32(b + 4, type);
	put_be32(b + 8, l->seq);
	return b;
}

/* A block of metadata, by number in the list; sometimes any number at all. */
static u64 pick_target(struct log *l, const struct meta_block **b)
{
	u16 n = in_u16(l->in);

	*b = NULL;
	if (n >= 0xF000)
		return in_u32(l->in) | (u64)(n & 0xFF) << 32;
	if (n >= 0xE000)
		return n & 0xFFF;
	*b = &l->v->meta.at[n % l->v->meta.nr];
	return (*b)->pos / l->v->work.bs;
}

static void write_image(struct log *l, u64 target)
{
	const struct volume *v = l->v;
	u8 how = in_u8(l->in), *b = next_block(l, IMAGE);
	const struct meta_block *other;
	u32 bs = v->work.bs, off, len;
	u64 from = target;

	if (how & 1)
		from = pick_target(l, &other);
	if (how & 2)
		put_be32(b, JBD2_MAGIC);
	else if (from < v->clean.size / bs)
		memcpy(b, v->clean.mem + from * bs, bs);
	for (u32 n = how >> 4 & 3; n; n--) {
		off = in_u16(l->in) % bs;
		len = min_of(1u + in_u8(l->in) % 16, bs - off);
		for (u32 i = 0; i < len; i++)
			b[off + i] = in_u8(l->in);
	}
}

static void put_descriptor(struct log *l)
{
	u32 nr = 1 + in_u8(l->in) % TAGS_MAX, off = 12;
	u8 *b = next_header(l, DESCRIPTOR, JBD2_DESCRIPTOR);
	const struct meta_block *mb;

	for (u32 i = 0; i < nr; i++) {
		u8 flip = in_u8(l->in);
		u32 flags = i ? JBD2_TAG_SAME_UUID : 0;
		u64 target = pick_target(l, &mb);

		if (i == nr - 1)
			flags |= JBD2_TAG_LAST;
		if (flip >= 0xE0)
			flags ^= flip & 15;
		if (off + tag_bytes(l) > l->v->work.bs - 4)
			break;
		put_be32(b + off, (u32)target);
		if (l->v3) {
			put_be32(b + off + 4, flags);
			put_be32(b + off + 8, (u32)(target >> 32));
		} else {
			b[off + 7] = (u8)flags;
			if (l->wide)
				put_be32(b + off + 8, (u32)(target >> 32));
		}
		off += tag_bytes(l);
		if (!(flags & JBD2_TAG_SAME_UUID))
			off += JBD2_UUID_SIZE;
		write_image(l, target);
	}
}

static void put_commit(struct log *l)
{
	u8 *b = next_header(l, COMMIT, JBD2_COMMIT);
	u8 how = in_u8(l->in);

	l->time += (u64)((int)how - 64);
	put_be32(b + 0x30, (u32)(l->time >> 32));
	put_be32(b + 0x34, (u32)l->time);
	l->seq++;
}

static void put_revoke(struct log *l)
{
	u8 *b = next_header(l, OTHER, JBD2_REVOKE);
	u32 n = in_u8(l->in) % 20, off = 16, width = l->wide ? 8 : 4;
	const struct meta_block *mb;

	while (n--) {
		u64 target = pick_target(l, &mb);

		if (l->wide)
			put_be32(b + off, (u32)(target >> 32));
		put_be32(b + off + width - 4, (u32)target);
		off += width;
	}
	n = in_u8(l->in);
	put_be32(b + 12, n < 0xE0 ? off : off + (n & 0xF) * 300 - 8);
}

static void one_record(struct log *l, struct jbd2_superblock *jsb)
{
	u32 bs = l->v->work.bs, off, len;
	u8 *b;

	switch (in_u8(l->in) % 12) {
	case 0:
	case 1:
	case 2:
		put_descriptor(l);
		break;
	case 3:
	case 4:
	case 5:
		put_commit(l);
		break;
	case 6:
	case 7:
		put_revoke(l);
		break;
	case 8: /* bytes of a block of the log */
		b = log_at(l, l->nr ? l->block[in_u8(l->in) % l->nr].at : 1);
		off = in_u16(l->in) % bs;
		len = min_of(1u + in_u8(l->in) % 16, bs - off);
		for (u32 i = 0; i < len; i++)
			b[off + i] = in_u8(l->in);
		break;
	case 9: /* elsewhere in the ring */
		l->at = l->first + in_u16(l->in) % (l->end - l->first);
		break;
	case 10:
		l->seq += (u32)in_u8(l->in) - 128;
		break;
	default: /* a field of the superblock */
		off = in_u8(l->in) % 64 * 4;
		put_be32((u8 *)jsb + off, in_u32(l->in));
		break;
	}
}

static u32 features_of(u8 how)
{
	static const u32 bits[] = {
		JBD2_INCOMPAT_REVOKE, JBD2_INCOMPAT_64BIT, JBD2_INCOMPAT_CSUM_V2,
		JBD2_INCOMPAT_CSUM_V3, JBD2_INCOMPAT_ASYNC_COMMIT, JBD2_INCOMPAT_FAST_COMMIT,
	};
	u32 f = 0;

	for (u32 i = 0; i < ARRAY_SIZE(bits); i++)
		if (how >> i & 1)
			f |= bits[i];
	return f;
}

static void build(struct log *l, u8 options)
{
	struct jbd2_superblock *jsb = (void *)log_at(l, 0);
	u8 how = in_u8(l->in), start = in_u8(l->in);
	u32 incompat = features_of(how);

	memset((u8 *)jsb + 12, 0, sizeof(*jsb) - 12);
	put_be32((u8 *)jsb, JBD2_MAGIC);
	put_be32((u8 *)jsb + 4, JBD2_SB_V2);
	jsb->s_blocksize = cpu_to_be32(l->v->work.bs);
	jsb->s_maxlen = cpu_to_be32(JOURNAL_RING_MIN);
	jsb->s_first = cpu_to_be32(1);
	jsb->s_feature_incompat = cpu_to_be32(incompat);
	jsb->s_feature_compat = cpu_to_be32(how >> 6 & 1);
	jsb->s_nr_users = cpu_to_be32(1);
	memset(jsb->s_uuid, 0x5A, sizeof(jsb->s_uuid));
	l->v3 = incompat & JBD2_INCOMPAT_CSUM_V3;
	l->v2 = incompat & JBD2_INCOMPAT_CSUM_V2;
	l->wide = incompat & JBD2_INCOMPAT_64BIT;
	if (l->v2 || l->v3)
		jsb->s_checksum_type = JBD2_CRC32C_CHKSUM;
	l->seed = crc32c(~0u, jsb->s_uuid, sizeof(jsb->s_uuid));
	l->first = 1;
	l->end = JOURNAL_RING_MIN;
	if (incompat & JBD2_INCOMPAT_FAST_COMMIT) {
		jsb->s_num_fc_blks = cpu_to_be32(how & 0x80 ? 8 : 0);
		l->end -= how & 0x80 ? 8 : JBD2_DEFAULT_FC_BLOCKS;
	}
	/* Small ones stay near the start; the last go around the ring's end. */
	l->at = start < 128 ? 1u + start % 8u : l->end - (256u - start) % 64 - 1;
	l->seq = start == 127 ? 0xFFFFFFFEu : 100;
	l->time = 1000;
	jsb->s_start = cpu_to_be32(l->at);
	jsb->s_sequence = cpu_to_be32(l->seq);
	while (in_more(l->in) && l->nr < BLOCKS_MAX)
		one_record(l, jsb);
	if (!(options & OPT_NO_FIX))
		fix_all(l);
	fix_super((u8 *)jsb);
}

/* ---- what was recovered ---- */

static int emit(void *priv, const struct sl_dirent *de)
{
	return ++*(u32 *)priv > 50;
}

static void look(struct super_block *sb, bool change)
{
	static const char *const names[] = { "a", "victim", "htree", "frag", "xattr", "slow" };
	static char value[65536];
	struct inode *root, *inode;
	struct sl_file *f;
	u32 n = 0;

	if (GET(sl_iget(sb, 2, &root)))
		return;
	if (!GET(sl_opendir(root, &f))) {
		GET(sl_readdir(f, 0, emit, &n));
		sl_release(f);
	}
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct stat st;

		if (GET(sl_lookup(root, names[i], strlen(names[i]), &inode)))
			continue;
		sl_getattr(inode, &st);
		GET(sl_listxattr(inode, true, value, sizeof(value)));
		if (S_ISREG(st.st_mode) && !GET(sl_open(inode, 0, &f))) {
			GET(sl_read(f, value, 8192, 0));
			sl_release(f);
		}
		sl_iput(inode);
	}
	if (change) {
		if (!GET(sl_mkdir(root, "new", 3, 0755, &torment_cred, &inode)))
			sl_iput(inode);
		GET(sl_unlink(root, "frag", 4));
		GET(sl_sync(sb));
	}
	sl_iput(root);
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
	struct sl_options opts = { .cache_bytes = 16 << 20, .errors = SL_ERRORS_CONTINUE };
	struct ext4_super_block *es;
	struct super_block *sb;
	struct log l = { .in = &in };
	u8 options;

	get_ready();
	if (size < 5)
		return 0;
	l.v = &volumes[in_u8(&in) % ARRAY_SIZE(volumes)];
	options = in_u8(&in);
	if (!(options & OPT_KEEP_LOG))
		build(&l, options);
	if (!(options & OPT_NO_RECOVER)) {
		es = image_sb(&l.v->work);
		volume_note(l.v, EXT4_SUPER_OFFSET, sizeof(*es));
		es->s_feature_incompat = cpu_to_le32(le32_to_cpu(es->s_feature_incompat) |
						     EXT4_INCOMPAT_RECOVER);
		image_fix_sb(&l.v->work);
	}
	opts.readonly = options & OPT_RO;
	opts.noload = opts.readonly && options & OPT_NOLOAD;
	if (!volume_mount(l.v, &opts, &sb)) {
		look(sb, options & OPT_CHANGE);
		GET(sl_unmount(sb));
	}
	one_thread_rest();
	volume_restore(l.v);
	return 0;
}

/* ---- the mutator ---- */

#define HEAD 4u

/* A whole record that makes sense, most of the time. */
static u32 make_record(u8 *at, unsigned *seed)
{
	u32 n = 0, tags;

	switch ((unsigned)rand_r(seed) % 8) {
	case 0:
	case 1:
	case 2:
		at[n++] = 0;
		tags = (u32)rand_r(seed) % 3;
		at[n++] = (u8)tags;
		for (u32 i = 0; i <= tags; i++) {
			u8 how = (u8)((unsigned)rand_r(seed) % 8 ? 0x10 : (unsigned)rand_r(seed));

			at[n++] = (u8)((unsigned)rand_r(seed) % 6 ? 0 : (unsigned)rand_r(seed));
			at[n++] = (u8)rand_r(seed);
			at[n++] = (u8)((unsigned)rand_r(seed) % 12 ? rand_r(seed) % 4
								   : rand_r(seed));
			at[n++] = how;
			if (how != 0x10)
				continue;
			at[n++] = (u8)(rand_r(seed) % 2 ? rand_r(seed) % 64 : rand_r(seed));
			at[n++] = (u8)((unsigned)rand_r(seed) % 4);
			at[n++] = 0;
			at[n++] = (u8)rand_r(seed);
		}
		break;
	case 3:
	case 4:
		at[n++] = 3;
		at[n++] = (u8)((unsigned)rand_r(seed) % 4 ? 65 : (unsigned)rand_r(seed));
		break;
	case 5:
		at[n++] = 6;
		tags = (u32)rand_r(seed) % 6;
		at[n++] = (u8)tags;
		for (u32 i = 0; i < tags; i++) {
			at[n++] = (u8)rand_r(seed);
			at[n++] = (u8)((unsigned)rand_r(seed) % 4);
		}
		at[n++] = (u8)((unsigned)rand_r(seed) % 6 ? 0 : (unsigned)rand_r(seed));
		break;
	default:
		at[n++] = (u8)(8 + (unsigned)rand_r(seed) % 4);
		for (tags = (u32)rand_r(seed) % 6; tags; tags--)
			at[n++] = (u8)rand_r(seed);
		break;
	}
	return n;
}

size_t LLVMFuzzerCustomMutator(u8 *data, size_t size, size_t max, unsigned seed)
{
	u8 record[64];
	size_t at;
	u32 n;

	for (int i = 0; i < 4; i++) /* neighbours differ late */
		rand_r(&seed);
	if (size < HEAD) {
		memset(data, 0, HEAD);
		size = HEAD;
	}
	switch ((unsigned)rand_r(&seed) % 8) {
	case 0:
		data[(unsigned)rand_r(&seed) % HEAD] = (u8)rand_r(&seed);
		return size;
	case 1:
		data[2] ^= (u8)(1u << (unsigned)rand_r(&seed) % 8);
		return size;
	case 2:
	case 3:
	case 4:
		return LLVMFuzzerMutate(data, size, max);
	default: /* mostly at the end: there the rest does not mean something else */
		n = make_record(record, &seed);
		if (size + n > max)
			return LLVMFuzzerMutate(data, size, max);
		at = rand_r(&seed) % 4 ? size : HEAD + (size_t)rand_r(&seed) % (size - HEAD + 1);
		memmove(data + at + n, data + at, size - at);
		memcpy(data + at, record, n);
		return size + n;
	}
}
