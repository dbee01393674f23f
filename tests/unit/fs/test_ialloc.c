/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_ialloc.c - inode allocation
 *
 * Inode tables on these volumes lie on old bytes where mke2fs leaves them
 * uninitialised, so that e2fsck sees every table block that was not made
 * afresh when the watermark moved over it.
 */
#include "tests/unit/fs/alloc_test.h"

#include <sys/stat.h>

#define THREADS 4
#define HELD 200
#define OWNED UINT32_MAX

static const struct sl_cred root_cred = { 0, 0, 022 };

/* As at_start(), on a device full of old bytes. */
static void start_on_garbage(struct at *t, const char *mkfs_args, u32 mib)
{
	char cmd[512];

	volume_make(&t->v, "", "8M");
	snprintf(cmd, sizeof(cmd),
		 "head -c %uM /dev/zero | tr '\\0' '\\252' >%s && "
		 "mke2fs -q -t ext4 -F -E lazy_itable_init=1,nodiscard %s %s",
		 mib, t->v.image, mkfs_args, t->v.image);
	assert_int_equal(system(cmd), 0);
	at_mount(t);
}

static struct ext4_inode *root_of(struct at *t, struct inode **root)
{
	assert_int_equal(sl_iget(t->sb, EXT4_ROOT_INO, root), 0);
	return EXT4_I(*root);
}

/* ---- bitmaps only ---- */

struct churn {
	struct at *t;
	struct ext4_inode *dir;
	_Atomic u32 *owner; /* per inode: OWNED, else transaction that freed it */
	unsigned seed;
	int rounds;
	bool failed;
};

struct held {
	ino_nr ino;
	bool dir;
};

#define CHURN_CHECK(c, cond)                                                         \
	do {                                                                   \
		if (!(cond)) {                                                 \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__,     \
				#cond);                                        \
			(c)->failed = true;                                    \
		}                                                              \
	} while (0)

static void churn_alloc(struct churn *c, struct held *hd)
{
	struct ext4_sb *sbi = c->t->sbi;
	bool dir = rand_r(&c->seed) % 4 == 0, used = false;
	struct handle *h;
	ino_nr ino = 0;
	jtid_t tid;
	u32 was;
	int err;

	CHURN_CHECK(c, !journal_start(sbi->journal, EXT4_NEW_INODE_CREDITS, 0, &h));
	tid = handle_tid(h);
	err = ext4_alloc_ino(h, c->dir, dir ? S_IFDIR : S_IFREG, &ino);
	CHURN_CHECK(c, !handle_stop(h));
	if (err == -EAGAIN) {
		CHURN_CHECK(c, !journal_force_commit(sbi->journal));
		return;
	}
	if (err) {
		CHURN_CHECK(c, err == -ENOSPC);
		return;
	}
	CHURN_CHECK(c, ino >= sbi->first_ino && ino <= sbi->inodes_count);
	if (c->failed)
		return;
	was = atomic_exchange(&c->owner[ino], OWNED);
	CHURN_CHECK(c, was != OWNED);
	CHURN_CHECK(c, was != tid); /* freed, and not committed */
	CHURN_CHECK(c, !ext4_ino_in_use(sbi, ino, &used) && used);
	*hd = (struct held){ ino, dir };
}

static void churn_free(struct churn *c, struct held *hd)
{
	struct ext4_sb *sbi = c->t->sbi;
	struct handle *h;

	CHURN_CHECK(c, !journal_start(sbi->journal, 2, 0, &h));
	atomic_store(&c->owner[hd->ino], handle_tid(h));
	CHURN_CHECK(c, !ext4_free_ino(h, sbi, hd->ino, hd->dir));
	CHURN_CHECK(c, !handle_stop(h));
	hd->ino = 0;
}

static void churn_thread(void *arg)
{
	struct held held[HELD] = { 0 };
	struct churn *c = arg;

	for (int i = 0; i < c->rounds && !c->failed; i++) {
		struct held *hd = &held[(unsigned)rand_r(&c->seed) % HELD];

		if (hd->ino)
			churn_free(c, hd);
		else
			churn_alloc(c, hd);
		if (rand_r(&c->seed) % 500 == 0)
			CHURN_CHECK(c, !journal_force_commit(c->t->sbi->journal));
	}
	for (int i = 0; i < HELD; i++)
		if (held[i].ino)
			churn_free(c, &held[i]);
}

static void churn(const char *mkfs_args, u32 mib, int rounds)
{
	struct churn c[THREADS];
	struct thread *th[THREADS];
	struct inode *root;
	_Atomic u32 *owner;
	struct at t;
	s64 inodes, dirs;

	start_on_garbage(&t, mkfs_args, mib);
	inodes = counter_sum(t.sbi->free_inodes);
	dirs = counter_sum(t.sbi->used_dirs);
	owner = calloc(t.sbi->inodes_count + 1, sizeof(*owner));
	assert_non_null(owner);
	for (int i = 0; i < THREADS; i++) {
		c[i] = (struct churn){ &t, root_of(&t, &root), owner,
				       (unsigned)i + 1, rounds, false };
		sl_iput(root);
		assert_int_equal(thread_create(&th[i], "churn", churn_thread, &c[i]), 0);
	}
	for (int i = 0; i < THREADS; i++)
		thread_join(th[i]);
	for (int i = 0; i < THREADS; i++)
		assert_false(c[i].failed);
	at_commit(&t);
	assert_int_equal(counter_sum(t.sbi->free_inodes), inodes);
	assert_int_equal(counter_sum(t.sbi->used_dirs), dirs);
	assert_int_equal(atomic_load(&t.sbi->alloc->pending_inodes), 0);
	for (group_t g = 0; g < t.sbi->groups; g++) {
		assert_null(t.sbi->group_info[g].pending_inodes);
		assert_int_equal(atomic_load(&t.sbi->alloc->group_inodes[g]),
				 ext4_gd_free_inodes(t.sbi, ext4_group_desc(t.sbi, g, NULL)));
	}
	free(owner);
	at_end(&t);
}

static void test_churn_default(void **state)
{
	(void)state;
	churn("-b 4096", 300, 3000);
}

static void test_churn_1k(void **state)
{
	(void)state;
	churn("-b 1024", 64, 3000);
}

static void test_churn_uninit_bg(void **state)
{
	(void)state;
	churn("-b 1024 -O ^metadata_csum,uninit_bg", 64, 3000);
}

static void test_churn_no_csum(void **state)
{
	(void)state;
	churn("-b 1024 -O ^metadata_csum,^uninit_bg -E lazy_itable_init=0", 64, 2000);
}

static void test_churn_tiny_groups(void **state)
{
	(void)state;
	churn("-b 1024 -g 256 -O ^resize_inode -i 8192", 12, 3000);
}

static void test_churn_few_inodes(void **state)
{
	(void)state;
	churn("-b 1024 -N 400 -I 128", 16, 4000);
}

/* ---- files ---- */

static struct inode *mk(struct at *t, struct inode *dir, u32 mode, int n)
{
	struct inode *inode;
	char name[32];
	int len = snprintf(name, sizeof(name), "f%d", n);

	if (S_ISDIR(mode))
		assert_int_equal(sl_mkdir(dir, name, (size_t)len, 0755, &root_cred,
					  &inode), 0);
	else
		assert_int_equal(sl_mknod(dir, name, (size_t)len, mode, 0, &root_cred,
					  &inode), 0);
	return inode;
}

static void files_and_dirs(const char *mkfs_args, u32 mib, int dirs, int files)
{
	struct inode *root;
	struct at t;

	start_on_garbage(&t, mkfs_args, mib);
	root_of(&t, &root);
	for (int d = 0; d < dirs; d++) {
		struct inode *dir = mk(&t, root, S_IFDIR, d);

		for (int f = 0; f < files; f++)
			sl_iput(mk(&t, dir, S_IFREG | 0644, f));
		sl_iput(dir);
	}
	sl_iput(root);
	at_end(&t);
}

static void test_files_default(void **state)
{
	(void)state;
	files_and_dirs("-b 4096", 300, 20, 60);
}

static void test_files_1k(void **state)
{
	(void)state;
	files_and_dirs("-b 1024", 64, 30, 60);
}

static void test_files_uninit_bg(void **state)
{
	(void)state;
	files_and_dirs("-b 1024 -O ^metadata_csum,uninit_bg", 64, 20, 60);
}

static void test_files_tiny_groups(void **state)
{
	(void)state;
	files_and_dirs("-b 1024 -g 512 -O ^resize_inode,^flex_bg -i 4096", 24, 20, 60);
}

static void test_top_directories_are_spread(void **state)
{
	struct inode *root;
	struct at t;
	u32 seen = 0;

	(void)state;
	start_on_garbage(&t, "-b 1024 -O ^flex_bg", 128);
	root_of(&t, &root);
	u8 *group = calloc(t.sbi->groups, 1);
	for (int d = 0; d < 32; d++) {
		struct inode *dir = mk(&t, root, S_IFDIR, d);
		group_t g = EXT4_I(dir)->i_group;
		struct inode *sub = mk(&t, dir, S_IFDIR, 0);
		struct inode *file = mk(&t, dir, S_IFREG | 0644, 1);

		seen += !group[g];
		group[g] = 1;
		/* What is below stays near. */
		assert_int_equal(EXT4_I(sub)->i_group, g);
		assert_int_equal(EXT4_I(file)->i_group, g);
		sl_iput(file);
		sl_iput(sub);
		sl_iput(dir);
	}
	assert_true(seen >= t.sbi->groups / 2);
	free(group);
	sl_iput(root);
	at_end(&t);
}

static void test_freed_inode_waits_for_the_commit(void **state)
{
	struct inode *root;
	struct ext4_inode *dir;
	struct handle *h;
	ino_nr *ino, again;
	struct at t;
	bool used;
	int n = 0;

	(void)state;
	start_on_garbage(&t, "-b 1024 -N 64", 8);
	dir = root_of(&t, &root);
	ino = calloc(t.sbi->inodes_count, sizeof(*ino));
	for (;; n++) {
		h = at_handle(&t, EXT4_NEW_INODE_CREDITS);
		int err = ext4_alloc_ino(h, dir, S_IFREG, &ino[n]);

		assert_int_equal(handle_stop(h), 0);
		if (err) {
			assert_int_equal(err, -ENOSPC);
			break;
		}
	}
	assert_int_equal(counter_sum(t.sbi->free_inodes), 0);
	h = at_handle(&t, EXT4_NEW_INODE_CREDITS * 2);
	assert_int_equal(ext4_free_ino(h, t.sbi, ino[3], false), 0);
	assert_int_equal(ext4_ino_in_use(t.sbi, ino[3], &used), 0);
	assert_false(used);
	assert_int_equal(ext4_alloc_ino(h, dir, S_IFREG, &again), -EAGAIN);
	assert_int_equal(handle_stop(h), 0);
	at_commit(&t);
	h = at_handle(&t, EXT4_NEW_INODE_CREDITS);
	assert_int_equal(ext4_alloc_ino(h, dir, S_IFREG, &again), 0);
	assert_int_equal(again, ino[3]);
	assert_int_equal(handle_stop(h), 0);
	for (int i = 0; i < n; i++) {
		h = at_handle(&t, 2);
		assert_int_equal(ext4_free_ino(h, t.sbi, ino[i], false), 0);
		assert_int_equal(handle_stop(h), 0);
	}
	free(ino);
	sl_iput(root);
	at_end(&t);
}

static void test_bad_numbers(void **state)
{
	struct handle *h;
	struct buffer *b;
	struct at t;
	bool used;
	u32 off;
	int errors;

	(void)state;
	start_on_garbage(&t, "-b 1024", 16);
	at_quiet(&errors);
	h = at_handle(&t, 4);
	assert_int_equal(ext4_free_ino(h, t.sbi, 0, false), -EFSCORRUPTED);
	assert_int_equal(ext4_free_ino(h, t.sbi, EXT4_ROOT_INO, true), -EFSCORRUPTED);
	assert_int_equal(ext4_free_ino(h, t.sbi, t.sbi->inodes_count + 1, false),
			 -EFSCORRUPTED);
	assert_int_equal(errors, 3);
	assert_int_equal(ext4_inode_buffer(t.sbi, 0, false, &b, &off), -EFSCORRUPTED);
	assert_int_equal(ext4_inode_buffer(t.sbi, UINT32_MAX, false, &b, &off),
			 -EFSCORRUPTED);
	assert_int_equal(ext4_ino_in_use(t.sbi, 0, &used), 0);
	assert_false(used);
	assert_int_equal(ext4_ino_in_use(t.sbi, UINT32_MAX, &used), 0);
	assert_false(used);
	/* A double free costs the group its bitmap; told once. */
	errors = 0;
	assert_int_equal(ext4_free_ino(h, t.sbi, 100, false), -EFSCORRUPTED);
	assert_int_equal(ext4_free_ino(h, t.sbi, 101, false), 0);
	assert_int_equal(errors, 1);
	assert_int_equal(handle_stop(h), 0);
	at_loud();
	assert_int_equal(sl_unmount(t.sb), 0);
	volume_free(&t.v);
}

static void test_damaged_bitmap_costs_its_group(void **state)
{
	struct inode *root, *inode;
	struct at t;
	pblk_t ib;
	u32 bs;
	int errors;

	(void)state;
	start_on_garbage(&t, "-b 1024 -O ^flex_bg", 32);
	bs = t.sb->s_blocksize;
	ib = ext4_gd_inode_bitmap(t.sbi, ext4_group_desc(t.sbi, 0, NULL));
	at_unmount_clean(&t);
	at_damage(&t, ib * bs + 30, 0x10);
	at_mount(&t);
	root_of(&t, &root);
	at_quiet(&errors);
	for (int i = 0; i < 3; i++) {
		inode = mk(&t, root, S_IFREG | 0644, i);
		assert_int_not_equal(EXT4_I(inode)->i_group, 0);
		sl_iput(inode);
	}
	assert_int_equal(errors, 1);
	at_loud();
	sl_iput(root);
	assert_int_equal(sl_unmount(t.sb), 0);
	volume_free(&t.v);
}

static void test_unreadable_bitmap_costs_its_group(void **state)
{
	struct inode *root, *inode;
	struct faulty_bdev *f;
	struct at t;
	int errors;

	(void)state;
	start_on_garbage(&t, "-b 1024 -O ^flex_bg", 32);
	at_unmount_clean(&t);
	f = at_mount_faulty(&t);
	root_of(&t, &root);
	atomic_store(&f->bad_pos, ext4_gd_inode_bitmap(t.sbi, ext4_group_desc(t.sbi, 0, NULL)) *
					  t.sb->s_blocksize);
	at_quiet(&errors);
	inode = mk(&t, root, S_IFREG | 0644, 0);
	assert_int_not_equal(EXT4_I(inode)->i_group, 0);
	assert_int_equal(errors, 1);
	sl_iput(inode);
	at_loud();
	sl_iput(root);
	assert_int_equal(sl_unmount(t.sb), 0);
	volume_free(&t.v);
}

static int init(void **state)
{
	(void)state;
	log_init("test", LOG_LVL_WARN);
	thread_register();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_freed_inode_waits_for_the_commit),
		cmocka_unit_test(test_bad_numbers),
		cmocka_unit_test(test_damaged_bitmap_costs_its_group),
		cmocka_unit_test(test_unreadable_bitmap_costs_its_group),
		cmocka_unit_test(test_top_directories_are_spread),
		cmocka_unit_test(test_files_default),
		cmocka_unit_test(test_files_1k),
		cmocka_unit_test(test_files_uninit_bg),
		cmocka_unit_test(test_files_tiny_groups),
		cmocka_unit_test(test_churn_default),
		cmocka_unit_test(test_churn_1k),
		cmocka_unit_test(test_churn_uninit_bg),
		cmocka_unit_test(test_churn_no_csum),
		cmocka_unit_test(test_churn_tiny_groups),
		cmocka_unit_test(test_churn_few_inodes),
	};

	return cmocka_run_group_tests(tests, init, NULL);
}
