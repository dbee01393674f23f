/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_volume.c - the whole file system in one process
 *
 * Several threads, each in a directory of its own but all on one volume, do
 * random operations against a model of names and contents; then everything is
 * compared, the volume unmounted and checked by e2fsck, mounted again and
 * compared again. For each block size and feature set that is served.
 */
#include "tests/unit/unit.h"
#include "tests/unit/fs/volume.h"

#include <linux/fs.h>
#include <pthread.h>
#include <sys/wait.h>

#define NAMES 48
#define MAX_FILE (300 * 1024)

struct file_model {
	bool used, is_dir, is_link;
	u32 content;  /* index of the shared content, for hard links */
	char target[300];
};

struct content {
	u8 *data;
	size_t size;
	u32 links;
};

struct worker {
	struct super_block *sb;
	unsigned seed;
	int id;
	int ops;
	struct inode *dir;
	struct file_model f[NAMES];
	struct content c[NAMES];
	bool failed;
};

#define REQUIRE(w, cond)                                                       \
	do {                                                                   \
		if (!(cond)) {                                                 \
			fprintf(stderr, "%s:%d: worker %d seed: %s\n",         \
				__FILE__, __LINE__, (w)->id, #cond);           \
			(w)->failed = true;                                    \
			return;                                                \
		}                                                              \
	} while (0)

static const struct sl_cred root_cred = { 0, 0, 022 };

static unsigned rnd(struct worker *w)
{
	return (unsigned)rand_r(&w->seed);
}

/* Names of different lengths; some with bytes above 0x7F. */
static size_t name_of(int i, char *buf)
{
	int len = snprintf(buf, 256, i % 3 ? "file-%d" : "d\xc3\xa4tei-%d-", i);

	if (i % 5 == 0)
		for (; len < 180; len++)
			buf[len] = (char)('a' + len % 26);
	buf[len] = 0;
	return (size_t)len;
}

static void do_create(struct worker *w, int i)
{
	struct file_model *f = &w->f[i];
	struct inode *inode;
	char name[256], target[300] = "";
	size_t len = name_of(i, name);
	unsigned kind = rnd(w) % 10;
	int err;

	if (kind == 0) {
		err = sl_mkdir(w->dir, name, len, 0755, &root_cred, &inode);
	} else if (kind == 1) {
		size_t n = 1 + rnd(w) % 280;

		memset(target, 'x', n);
		target[n] = 0;
		err = sl_symlink(w->dir, name, len, target, &root_cred, &inode);
	} else {
		err = sl_mknod(w->dir, name, len, S_IFREG | 0644, 0, &root_cred, &inode);
	}
	if (f->used) {
		REQUIRE(w, err == -EEXIST);
		return;
	}
	REQUIRE(w, !err);
	f->used = true;
	f->is_dir = kind == 0;
	f->is_link = kind == 1;
	memcpy(f->target, target, sizeof(target));
	if (!f->is_dir && !f->is_link) {
		u32 c = 0;

		while (w->c[c].links)
			c++;
		f->content = c;
		w->c[c] = (struct content){ NULL, 0, 1 };
	}
	sl_iput(inode);
}

static void forget_model(struct worker *w, struct file_model *f)
{
	if (f->used && !f->is_dir && !f->is_link) {
		struct content *c = &w->c[f->content];

		if (!--c->links) {
			free(c->data);
			c->data = NULL;
			c->size = 0;
		}
	}
	f->used = false;
}

static void do_remove(struct worker *w, int i)
{
	struct file_model *f = &w->f[i];
	char name[256];
	size_t len = name_of(i, name);
	int err;

	err = f->used && f->is_dir ? sl_rmdir(w->dir, name, len)
				   : sl_unlink(w->dir, name, len);
	if (!f->used) {
		REQUIRE(w, err == -ENOENT);
		return;
	}
	REQUIRE(w, !err);
	forget_model(w, f);
}

static void do_rename(struct worker *w, int i, int k)
{
	struct file_model *a = &w->f[i], *b = &w->f[k];
	char from[256], to[256];
	size_t flen = name_of(i, from), tlen = name_of(k, to);
	bool exchange = rnd(w) % 4 == 0;
	int err = sl_rename(w->dir, from, flen, w->dir, to, tlen,
			    exchange ? RENAME_EXCHANGE : 0);

	if (!a->used || (exchange && !b->used)) {
		REQUIRE(w, err == -ENOENT);
		return;
	}
	if (i == k) {
		REQUIRE(w, !err);
		return;
	}
	if (exchange) {
		struct file_model t = *a;

		REQUIRE(w, !err);
		*a = *b;
		*b = t;
		return;
	}
	if (b->used && a->is_dir != b->is_dir) {
		REQUIRE(w, err == (a->is_dir ? -ENOTDIR : -EISDIR));
		return;
	}
	REQUIRE(w, !err);
	/* Two names of one file: rename does nothing. */
	if (b->used && !a->is_dir && !a->is_link && !b->is_link &&
	    a->content == b->content)
		return;
	forget_model(w, b);
	*b = *a;
	a->used = false;
}

static void do_link(struct worker *w, int i, int k)
{
	struct file_model *a = &w->f[i], *b = &w->f[k];
	struct inode *inode;
	char from[256], to[256];
	size_t flen = name_of(i, from), tlen = name_of(k, to);
	int err;

	if (!a->used || a->is_dir || a->is_link)
		return;
	err = sl_lookup(w->dir, from, flen, &inode);
	REQUIRE(w, !err);
	err = sl_link(inode, w->dir, to, tlen);
	sl_iput(inode);
	if (b->used) {
		REQUIRE(w, err == -EEXIST);
		return;
	}
	REQUIRE(w, !err);
	*b = *a;
	w->c[a->content].links++;
}

static void grow_model(struct content *c, size_t size)
{
	if (size <= c->size)
		return;
	c->data = realloc(c->data, size);
	memset(c->data + c->size, 0, size - c->size);
	c->size = size;
}

static void do_data(struct worker *w, int i)
{
	struct file_model *f = &w->f[i];
	struct content *c;
	struct inode *inode;
	struct sl_file *file;
	char name[256];
	size_t nlen = name_of(i, name);
	unsigned what = rnd(w) % 10;

	if (!f->used || f->is_dir || f->is_link)
		return;
	c = &w->c[f->content];
	REQUIRE(w, !sl_lookup(w->dir, name, nlen, &inode));
	REQUIRE(w, !sl_open(inode, SL_OPEN_WRITE, &file));
	sl_iput(inode);
	if (what < 5) {
		size_t pos = rnd(w) % MAX_FILE;
		size_t len = 1 + rnd(w) % (rnd(w) % 2 ? 200 : 70000);
		u8 *buf;

		if (rnd(w) % 2)
			pos = c->size;
		if (rnd(w) % 3 == 0) {
			pos &= ~(size_t)4095;
			len = (len + 4095) & ~(size_t)4095;
		}
		if (pos + len > MAX_FILE)
			len = pos < MAX_FILE ? MAX_FILE - pos : 0;
		if (len) {
			buf = malloc(len);
			for (size_t n = 0; n < len; n++)
				buf[n] = (u8)rnd(w);
			REQUIRE(w, sl_write(file, buf, len, pos, 0, &root_cred) ==
					   (ssize_t)len);
			grow_model(c, pos + len);
			memcpy(c->data + pos, buf, len);
			free(buf);
		}
	} else if (what < 7) {
		struct stat st = { .st_size = (off_t)(rnd(w) % MAX_FILE) };

		REQUIRE(w, !sl_setattr(sl_file_inode(file), &st, SL_SET_SIZE,
				       &root_cred, NULL));
		if ((size_t)st.st_size < c->size)
			c->size = (size_t)st.st_size;
		else
			grow_model(c, (size_t)st.st_size);
	} else if (what == 7) {
		size_t pos = rnd(w) % MAX_FILE, len = 1 + rnd(w) % 50000;
		bool keep = rnd(w) % 2;

		REQUIRE(w, !sl_fallocate(file, keep ? 1 : 0, pos, len, &root_cred));
		if (!keep)
			grow_model(c, pos + len);
	} else if (what == 8) {
		REQUIRE(w, !sl_fsync(file, rnd(w) % 2));
	} else if (c->size) {
		size_t pos = rnd(w) % c->size;
		size_t len = 1 + rnd(w) % 40000;
		u8 *buf = malloc(len);
		ssize_t n = sl_read(file, buf, len, pos);

		if (len > c->size - pos)
			len = c->size - pos;
		REQUIRE(w, n == (ssize_t)len);
		REQUIRE(w, !memcmp(buf, c->data + pos, len));
		free(buf);
	}
	sl_release(file);
}

static void check_file(struct worker *w, int i)
{
	struct file_model *f = &w->f[i];
	struct inode *inode;
	struct sl_file *file;
	struct content *c;
	struct stat st;
	char name[256], target[4096];
	size_t len = name_of(i, name);
	int err = sl_lookup(w->dir, name, len, &inode);
	u8 *buf;

	if (!f->used) {
		REQUIRE(w, err == -ENOENT);
		return;
	}
	REQUIRE(w, !err);
	sl_getattr(inode, &st);
	if (f->is_dir) {
		REQUIRE(w, S_ISDIR(st.st_mode) && st.st_nlink == 2);
	} else if (f->is_link) {
		REQUIRE(w, sl_readlink(inode, target, sizeof(target)) ==
				   (ssize_t)strlen(f->target));
		REQUIRE(w, !strcmp(target, f->target));
	} else {
		c = &w->c[f->content];
		REQUIRE(w, st.st_nlink == c->links);
		if ((size_t)st.st_size != c->size)
			fprintf(stderr, "inode %llu: size %lld, not %zu\n",
				(unsigned long long)st.st_ino, (long long)st.st_size,
				c->size);
		REQUIRE(w, (size_t)st.st_size == c->size);
		buf = aligned_alloc(4096, MAX_FILE + 65536);
		REQUIRE(w, !sl_open(inode, 0, &file));
		ssize_t n = sl_read(file, buf, MAX_FILE + 65536, 0);

		if (n != (ssize_t)c->size)
			fprintf(stderr, "read %zd, not %zu\n", n, c->size);
		REQUIRE(w, n == (ssize_t)c->size);
		REQUIRE(w, !c->size || !memcmp(buf, c->data, c->size));
		sl_release(file);
		free(buf);
	}
	sl_iput(inode);
}

static int count_entry(void *priv, const struct sl_dirent *de)
{
	(void)de;
	++*(int *)priv;
	return 0;
}

static void check_all(struct worker *w)
{
	struct sl_file *d;
	int listed = 0, expected = 2;

	for (int i = 0; i < NAMES && !w->failed; i++) {
		check_file(w, i);
		expected += w->f[i].used;
	}
	if (w->failed)
		return;
	REQUIRE(w, !sl_opendir(w->dir, &d));
	REQUIRE(w, !sl_readdir(d, 0, count_entry, &listed));
	REQUIRE(w, listed == expected);
	sl_release(d);
}

static void worker_main(void *arg)
{
	struct worker *w = arg;

	for (int n = 0; n < w->ops && !w->failed; n++) {
		unsigned op = rnd(w) % 20;
		int i = (int)(rnd(w) % NAMES), k = (int)(rnd(w) % NAMES);

		if (op < 5)
			do_create(w, i);
		else if (op < 7)
			do_remove(w, i);
		else if (op < 9)
			do_rename(w, i, k);
		else if (op < 10)
			do_link(w, i, k);
		else
			do_data(w, i);
	}
	if (!w->failed)
		check_all(w);
}

#define WORKERS 4

static void open_dirs(struct super_block *sb, struct worker *w, bool make)
{
	struct inode *root;
	char name[16];

	assert_int_equal(sl_iget(sb, 2, &root), 0);
	for (int i = 0; i < WORKERS; i++) {
		size_t len = (size_t)snprintf(name, sizeof(name), "w%d", i);

		w[i].sb = sb;
		if (make)
			assert_int_equal(sl_mkdir(root, name, len, 0755, &root_cred,
						  &w[i].dir), 0);
		else
			assert_int_equal(sl_lookup(root, name, len, &w[i].dir), 0);
	}
	sl_iput(root);
}

static void run_workers(struct worker *w)
{
	struct thread *t[WORKERS];

	for (int i = 0; i < WORKERS; i++)
		assert_int_equal(thread_create(&t[i], "worker", worker_main, &w[i]), 0);
	for (int i = 0; i < WORKERS; i++)
		thread_join(t[i]);
	for (int i = 0; i < WORKERS; i++)
		assert_false(w[i].failed);
}

static void stress(const char *mkfs, const char *size, int rounds, int ops)
{
	struct worker *w = calloc(WORKERS, sizeof(*w));
	struct sl_options opts = { .cache_bytes = 16 << 20, .commit_ms = 200,
				   .dirty_expire_ms = 300,
				   .no_journal = true /* if there is none */ };
	struct super_block *sb;
	struct volume v;

	volume_make(&v, mkfs, size);
	for (int i = 0; i < WORKERS; i++) {
		w[i].id = i;
		w[i].seed = (unsigned)i * 7919 + 17;
		w[i].ops = ops;
	}
	for (int round = 0; round < rounds; round++) {
		assert_int_equal(volume_mount(&v, &opts, &sb), 0);
		open_dirs(sb, w, round == 0);
		if (round)
			for (int i = 0; i < WORKERS; i++) {
				check_all(&w[i]);
				assert_false(w[i].failed);
			}
		run_workers(w);
		for (int i = 0; i < WORKERS; i++)
			sl_iput(w[i].dir);
		assert_int_equal(sl_unmount(sb), 0);
		assert_int_equal(volume_fsck(&v), 0);
	}
	for (int i = 0; i < WORKERS; i++)
		for (int k = 0; k < NAMES; k++)
			free(w[i].c[k].data);
	free(w);
	volume_free(&v);
}

static void test_default_4k(void **state)
{
	stress("-b 4096", "256M", 2, 1500);
}

static void test_default_1k(void **state)
{
	stress("-b 1024", "128M", 2, 1500);
}

static void test_default_2k(void **state)
{
	stress("-b 2048", "128M", 2, 800);
}

static void test_orphan_file_csum_seed(void **state)
{
	stress("-b 4096 -O orphan_file,metadata_csum_seed", "256M", 2, 800);
}

static void test_no_metadata_csum(void **state)
{
	stress("-b 1024 -O ^metadata_csum", "128M", 2, 800);
}

static void test_uninit_bg(void **state)
{
	stress("-b 4096 -O uninit_bg,^metadata_csum", "256M", 2, 800);
}

static void test_no_64bit(void **state)
{
	stress("-b 1024 -O ^64bit", "128M", 2, 800);
}

static void test_meta_bg(void **state)
{
	stress("-b 1024 -O meta_bg,^resize_inode", "128M", 2, 800);
}

static void test_large_dir_tiny_groups(void **state)
{
	stress("-b 1024 -g 2048 -O large_dir,^flex_bg", "64M", 2, 800);
}

static void test_inode_128(void **state)
{
	stress("-b 4096 -I 128", "128M", 2, 500);
}

static void test_no_journal(void **state)
{
	stress("-b 1024 -O ^has_journal", "128M", 2, 800);
}

static void test_inline_data(void **state)
{
	stress("-b 4096 -O inline_data", "128M", 2, 500);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_default_4k),
		cmocka_unit_test(test_default_1k),
		cmocka_unit_test(test_default_2k),
		cmocka_unit_test(test_orphan_file_csum_seed),
		cmocka_unit_test(test_no_metadata_csum),
		cmocka_unit_test(test_uninit_bg),
		cmocka_unit_test(test_no_64bit),
		cmocka_unit_test(test_meta_bg),
		cmocka_unit_test(test_large_dir_tiny_groups),
		cmocka_unit_test(test_inode_128),
		cmocka_unit_test(test_no_journal),
		cmocka_unit_test(test_inline_data),
	};

	return cmocka_run_group_tests(tests, unit_setup, NULL);
}
