/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_inline.c - content that lies in the inode, and leaves it
 *
 * debugfs puts it there. A change is one of a table; after it, and after a power
 * cut at each of its writes, the volume has what was there before or after it.
 */
#include "tests/unit/unit.h"
#include "tests/unit/fs/memvol.h"

#include "fs/ext4.h"

#include <linux/falloc.h>

#define LONG 100 /* bytes: in i_block and "system.data" */

static const struct sl_cred root_cred = { 0, 0, 022 };
static const struct sl_options opts = { .cache_bytes = 16 << 20,
					.commit_ms = 600000,
					.dirty_expire_ms = 600000 };
static struct memvol mv, cut;

/* ---- helpers ---- */

/* By path of one or two names; -ENOENT. */
static int find(struct super_block *sb, const char *path, struct inode **out)
{
	struct inode *dir, *inode;
	const char *slash = strchr(path, '/');
	size_t len = slash ? (size_t)(slash - path) : strlen(path);
	int err = sl_iget(sb, 2, &dir);

	if (!err) {
		err = sl_lookup(dir, path, len, &inode);
		sl_iput(dir);
	}
	if (!err && slash) {
		dir = inode;
		err = sl_lookup(dir, slash + 1, strlen(slash + 1), &inode);
		sl_iput(dir);
	}
	if (!err)
		*out = inode;
	return err;
}

static struct inode *get(struct super_block *sb, const char *path)
{
	struct inode *inode;

	assert_int_equal(find(sb, path, &inode), 0);
	return inode;
}

static void content_of(char *to, unsigned len)
{
	for (unsigned i = 0; i < len; i++)
		to[i] = (char)('a' + i % 26);
}

/* Content of a file, or -ENOENT. */
static ssize_t slurp(struct super_block *sb, const char *path, char *to, size_t max)
{
	struct sl_file *f;
	struct inode *inode;
	ssize_t n = find(sb, path, &inode);

	if (n)
		return n;
	assert_int_equal(sl_open(inode, 0, &f), 0);
	n = sl_read(f, to, max, 0);
	sl_release(f);
	sl_iput(inode);
	return n;
}

static bool is_inline(struct super_block *sb, const char *path)
{
	struct inode *inode = get(sb, path);
	bool yes = EXT4_I(inode)->i_inline && inode->i_flags & EXT4_INLINE_DATA_FL;

	sl_iput(inode);
	return yes;
}

struct names {
	char text[256];
};

static int note(void *priv, const struct sl_dirent *de)
{
	struct names *n = priv;

	snprintf(n->text + strlen(n->text), sizeof(n->text) - strlen(n->text), "%.*s ",
		 (int)de->namelen, de->name);
	return 0;
}

/* A directory with both kinds, a short file, an empty one, a long link. */
static void make(const char *mkfs, const char *size)
{
	char host[160], data[LONG];
	FILE *f;

	memvol_make(&mv, mkfs, size);
	snprintf(host, sizeof(host), "%s/host", mv.v.dir);
	content_of(data, LONG);
	f = fopen(host, "w");
	fwrite(data, 1, LONG, f);
	fclose(f);
	memvol_debugfs(&mv, "mkdir d");
	memvol_debugfs(&mv, "mkdir d/sub");
	memvol_debugfs(&mv, "mkdir e");
	for (int i = 0; i < 3; i++) {
		char cmd[256];

		snprintf(cmd, sizeof(cmd), "write %s d/f%d", host, i);
		memvol_debugfs(&mv, cmd);
	}
	memvol_debugfs(&mv, "ea_set d/f0 user.x kept");
	unlink(host);
}

static void end(void)
{
	assert_int_equal(memvol_fsck(&mv), 0);
	memvol_free(&mv);
}

/* ---- changes ---- */

static int write_at(struct super_block *sb, const char *path, u64 pos)
{
	struct inode *inode = get(sb, path);
	struct sl_file *f;
	ssize_t n;

	assert_int_equal(sl_open(inode, SL_OPEN_WRITE, &f), 0);
	n = sl_write(f, "Z", 1, pos, 0, &root_cred);
	if (n > 0)
		n = sl_fsync(f, true);
	sl_release(f);
	sl_iput(inode);
	return (int)n;
}

static int overwrite(struct super_block *sb)
{
	return write_at(sb, "d/f0", 70);
}

static int extend(struct super_block *sb)
{
	return write_at(sb, "d/f0", 5000);
}

static int shorten(struct super_block *sb)
{
	struct stat st = { .st_size = 20 };
	struct inode *inode = get(sb, "d/f0");
	int err = sl_setattr(inode, &st, SL_SET_SIZE, NULL, NULL);

	sl_iput(inode);
	return err;
}

static int preallocate(struct super_block *sb)
{
	struct inode *inode = get(sb, "d/f0");
	struct sl_file *f;
	int err;

	assert_int_equal(sl_open(inode, SL_OPEN_WRITE, &f), 0);
	err = sl_fallocate(f, FALLOC_FL_KEEP_SIZE, 0, 9000, &root_cred);
	sl_release(f);
	sl_iput(inode);
	return err;
}

static int create(struct super_block *sb)
{
	struct inode *d = get(sb, "d"), *inode;
	int err = sl_mknod(d, "new", 3, S_IFREG | 0644, 0, &root_cred, &inode);

	if (!err)
		sl_iput(inode);
	sl_iput(d);
	return err;
}

static int hard_link(struct super_block *sb)
{
	struct inode *d = get(sb, "d"), *inode = get(sb, "d/f0");
	int err = sl_link(inode, d, "new", 3);

	sl_iput(inode);
	sl_iput(d);
	return err;
}

static int delete(struct super_block *sb)
{
	struct inode *d = get(sb, "d");
	int err = sl_unlink(d, "f1", 2);

	sl_iput(d);
	return err;
}

/* The directory that moves stays in its inode; both others leave theirs. */
static int move_dir(struct super_block *sb)
{
	struct inode *d = get(sb, "d"), *e = get(sb, "e");
	int err = sl_rename(d, "sub", 3, e, "moved", 5, 0);

	sl_iput(d);
	sl_iput(e);
	return err;
}

static int remove_dir(struct super_block *sb)
{
	struct inode *d = get(sb, "d");
	int err = sl_rmdir(d, "sub", 3);

	sl_iput(d);
	return err;
}

static const struct change {
	int (*make)(struct super_block *sb);
	const char *left; /* what has left its inode after it */
	/* f0 and the names in d, after it */
	unsigned size;
	int at; /* 'Z' here; -1: nowhere */
	const char *gone, *come;
} changes[] = {
	{ overwrite, "d/f0", LONG, 70, NULL, NULL },
	{ extend, "d/f0", 5001, 5000, NULL, NULL },
	{ shorten, "d/f0", 20, -1, NULL, NULL },
	{ preallocate, "d/f0", LONG, -1, NULL, NULL },
	{ create, "d", LONG, -1, NULL, "d/new" },
	{ hard_link, "d", LONG, -1, NULL, "d/new" },
	{ delete, "d", LONG, -1, "d/f1", NULL },
	{ move_dir, "d", LONG, -1, "d/sub", "e/moved" },
	{ remove_dir, "d", LONG, -1, "d/sub", NULL },
};

/* 'b': as before the change, 'a': as after it; everything else fails. */
static char state_of(struct super_block *sb, const struct change *c)
{
	static char got[8192], want[8192];
	bool before = true, after = true;
	struct inode *inode;
	ssize_t n = slurp(sb, "d/f0", got, sizeof(got));

	memset(want, 0, sizeof(want));
	content_of(want, LONG);
	before = n == LONG && !memcmp(got, want, LONG);
	if (c->at >= 0)
		want[c->at] = 'Z';
	after = n == (ssize_t)c->size && !memcmp(got, want, c->size);
	if (c->gone) {
		bool there = !find(sb, c->gone, &inode);

		if (there)
			sl_iput(inode);
		before &= there;
		after &= !there;
	}
	if (c->come) {
		bool there = !find(sb, c->come, &inode);

		if (there)
			sl_iput(inode);
		before &= !there;
		after &= there;
	}
	if (!before && !after)
		/* A longer file is longer at once; the hole is zeroes. */
		assert_true(c->make == extend && n > LONG && !memcmp(got, want, LONG));
	inode = get(sb, "d/f0");
	n = sl_getxattr(inode, "user.x", got, sizeof(got));
	assert_int_equal(n, 4);
	assert_memory_equal(got, "kept", 4);
	sl_iput(inode);
	return after ? 'a' : before ? 'b' : '-';
}

static void list(struct super_block *sb, const char *path, struct names *out)
{
	struct inode *d = get(sb, path);
	struct sl_file *f;

	out->text[0] = '\0';
	assert_int_equal(sl_opendir(d, &f), 0);
	assert_int_equal(sl_readdir(f, 0, note, out), 0);
	sl_release(f);
	sl_iput(d);
}

/* ---- tests ---- */

static void one_change(const char *mkfs, const char *size, const struct change *c)
{
	struct super_block *sb;

	make(mkfs, size);
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	assert_true(is_inline(sb, "d"));
	assert_true(is_inline(sb, "d/f0"));
	assert_int_equal(c->make(sb), 0);
	assert_false(is_inline(sb, c->left));
	assert_int_equal(state_of(sb, c), 'a');
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	assert_false(is_inline(sb, c->left));
	assert_int_equal(state_of(sb, c), 'a');
	if (c->make == move_dir)
		assert_true(is_inline(sb, "e/moved"));
	assert_int_equal(sl_unmount(sb), 0);
	end();
}

static void test_changes(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		one_change("-b 1024 -I 256 -J size=1 -O inline_data", "4M",
			   &changes[i]);
		one_change("-b 4096 -I 1024 -O inline_data,^metadata_csum", "16M",
			   &changes[i]);
	}
}

static void check_cut(const struct change *c, u8 *image, bool fsck)
{
	struct super_block *sb;

	cut = mv;
	cut.content = image;
	assert_int_equal(memvol_mount(&cut, &opts, &sb), 0);
	(void)state_of(sb, c);
	assert_int_equal(sl_unmount(sb), 0);
	if (fsck)
		assert_int_equal(memvol_fsck(&cut), 0);
}

static void test_power_cuts(void **state)
{
	unsigned seed = 5;

	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		const struct change *c = &changes[i];
		struct super_block *sb;
		struct fake_crash crash;
		u8 *image;
		u32 n = 0;

		make("-b 1024 -I 256 -J size=1 -O inline_data", "4M");
		image = malloc(mv.size);
		assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
		fake_record_start(mv.fd);
		assert_int_equal(c->make(sb), 0);
		assert_int_equal(sl_sync(sb), 0);
		fake_crash_init(&crash, mv.fd);
		while (fake_crash_step(&crash)) {
			if (n++ % 2) /* every other one: it takes its time */
				continue;
			fake_crash_image(&crash, image, 1024, n % 3 * 500, true, &seed);
			check_cut(c, image, n % 4 == 1);
		}
		assert_true(n > 3);
		fake_crash_release(&crash);
		free(image);
		memvol_closing = &mv;
		assert_int_equal(sl_unmount(sb), 0);
		end();
	}
}

/* A device that fails while the content moves: it is where it was. */
static void test_failing_device(void **state)
{
	for (s64 after = 0; after < 3; after++) {
		struct super_block *sb;
		char got[LONG], want[LONG];
		ssize_t n;

		make("-b 1024 -I 256 -J size=1 -O inline_data", "4M");
		assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
		memvol_fail_writes(&mv, after);
		(void)!overwrite(sb);
		(void)!sl_unmount(sb);
		assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
		n = slurp(sb, "d/f0", got, LONG);
		content_of(want, LONG);
		assert_int_equal(n, LONG);
		if (got[70] == 'Z')
			want[70] = 'Z';
		assert_memory_equal(got, want, LONG);
		assert_int_equal(sl_unmount(sb), 0);
		/* Errors that were noted are for e2fsck to clear. */
		memvol_store(&mv);
		(void)!volume_run("e2fsck -fy %s >/dev/null 2>&1", mv.v.image);
		assert_int_equal(volume_fsck(&mv.v), 0);
		memvol_free(&mv);
	}
}

struct writer {
	struct super_block *sb;
	u64 pos;
	ssize_t n;
};

static void *write_one(void *arg)
{
	struct writer *w = arg;
	struct inode *inode;
	struct sl_file *f;

	thread_register();
	inode = get(w->sb, "d/f0");
	assert_int_equal(sl_open(inode, SL_OPEN_WRITE, &f), 0);
	w->n = sl_write(f, "Z", 1, w->pos, 0, &root_cred);
	sl_release(f);
	sl_iput(inode);
	thread_unregister();
	return NULL;
}

/* Who comes while another's conversion is about to fail does his own. */
static void test_writer_beside_failure(void **state)
{
	struct writer a = { .pos = 70 }, b = { .pos = 80 };
	char got[LONG], want[LONG];
	struct super_block *sb;
	struct inode *inode;
	pthread_t ta, tb;
	unsigned held = 0;

	make("-b 1024 -I 256 -J size=1 -O inline_data", "4M");
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	a.sb = b.sb = sb;
	inode = get(sb, "d/f0");
	pthread_mutex_lock(&mv.fd->lock);
	mv.fd->hold_pos = 0;
	mv.fd->hold_len = mv.size;
	pthread_mutex_unlock(&mv.fd->lock);
	assert_int_equal(pthread_create(&ta, NULL, write_one, &a), 0);
	while (!held) {
		usleep(100);
		pthread_mutex_lock(&mv.fd->lock);
		held = mv.fd->nr_held;
		pthread_mutex_unlock(&mv.fd->lock);
	}
	/* Nothing may go by its being gone, as long as it may come back. */
	assert_non_null(EXT4_I(inode)->i_inline);
	assert_int_equal(pthread_create(&tb, NULL, write_one, &b), 0);
	usleep(1000);
	pthread_mutex_lock(&mv.fd->lock);
	mv.fd->fail_once = true;
	mv.fd->fail_write_in = 0;
	pthread_mutex_unlock(&mv.fd->lock);
	fake_let_go(mv.fd);
	pthread_join(ta, NULL);
	pthread_join(tb, NULL);
	assert_int_equal(a.n, -EIO);
	assert_int_equal(b.n, 1);
	assert_false(is_inline(sb, "d/f0"));
	sl_iput(inode);
	memvol_closing = &mv;
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	content_of(want, LONG);
	want[80] = 'Z';
	assert_int_equal(slurp(sb, "d/f0", got, LONG), LONG);
	assert_memory_equal(got, want, LONG);
	assert_int_equal(sl_unmount(sb), 0);
	end();
}

/* A listing that goes on after the directory has left its inode: each name once. */
static int stop_after_two(void *priv, const struct sl_dirent *de)
{
	struct names *n = priv;
	u32 nr = 0;

	for (const char *p = n->text; *p; p++)
		nr += *p == ' ';
	if (nr == 4)
		return 1;
	return note(priv, de);
}

struct position {
	struct names names;
	u64 pos;
};

static int step(void *priv, const struct sl_dirent *de)
{
	struct position *p = priv;
	int r = stop_after_two(&p->names, de);

	if (!r)
		p->pos = de->next;
	return r;
}

static void test_listing_goes_on(void **state)
{
	struct position p = { 0 };
	struct names all, rest = { 0 };
	struct super_block *sb;
	struct sl_file *f;
	struct inode *d;

	make("-b 1024 -I 256 -J size=1 -O inline_data", "4M");
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	list(sb, "d", &all);
	d = get(sb, "d");
	assert_int_equal(sl_opendir(d, &f), 0);
	assert_int_equal(sl_readdir(f, 0, step, &p), 0);
	assert_int_equal(write_at(sb, "d/f0", 1), 0);
	assert_int_equal(hard_link(sb), 0);
	assert_int_equal(sl_unlink(d, "new", 3), 0);
	assert_false(is_inline(sb, "d"));
	assert_int_equal(sl_readdir(f, p.pos, note, &rest), 0);
	strcat(p.names.text, rest.text);
	assert_string_equal(p.names.text, all.text);
	sl_release(f);
	sl_iput(d);
	assert_int_equal(sl_unmount(sb), 0);
	end();
}

/* The raw inode in the image that has this entry; NULL: what is at `at` is none. */
static u8 *inode_with_data(size_t at)
{
	static const u8 head[] = { 4, 7 }, name[] = "data";
	u8 *raw = mv.content + at / 256 * 256;

	if (memcmp(mv.content + at, head, 2) || memcmp(mv.content + at + 16, name, 4))
		return NULL;
	return mv.content[at + 8] == LONG - 60 ? raw : NULL;
}

/*
 * A value of odd length that ends with the inode, where mkfs and debugfs put no such:
 * what follows is another inode.
 */
static void test_value_ends_with_inode(void **state)
{
	u8 *raw[8], mode[8][2];
	struct super_block *sb;
	unsigned nr = 0;

	make("-b 1024 -I 256 -J size=1 -O inline_data,^metadata_csum", "4M");
	for (size_t at = 0; at + 20 < mv.size && nr < 8; at += 4) {
		u8 *e = mv.content + at, *r = inode_with_data(at);
		unsigned base, offs;

		if (!r)
			continue;
		base = 128 + r[128] + 4;
		offs = e[2] | e[3] << 8;
		if (base + offs + LONG - 60 != 256)
			continue;
		e[2]++; /* no carry: it is a multiple of 4 */
		e[8] = LONG - 61;
		r[4] = LONG - 1;
		raw[nr] = r + 256;
		memcpy(mode[nr++], r + 256, 2);
	}
	assert_true(nr >= 2);
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	assert_int_equal(write_at(sb, "d/f0", 0), 0);
	assert_int_equal(write_at(sb, "d/f1", 0), 0);
	assert_false(is_inline(sb, "d/f0"));
	assert_false(is_inline(sb, "d/f1"));
	assert_int_equal(sl_unmount(sb), 0);
	for (unsigned i = 0; i < nr; i++)
		assert_memory_equal(raw[i], mode[i], 2);
	memvol_free(&mv);
}

static void quiet(enum log_level level, const char *line, void *priv)
{
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_changes),
		cmocka_unit_test(test_power_cuts),
		cmocka_unit_test(test_failing_device),
		cmocka_unit_test(test_writer_beside_failure),
		cmocka_unit_test(test_listing_goes_on),
		cmocka_unit_test(test_value_ends_with_inode),
	};

	thread_register();
	log_set_sink(quiet, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
