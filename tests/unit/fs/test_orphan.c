/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_orphan.c - the orphan list and the orphan file
 *
 * A crash is a copy of the image taken while it is mounted, after a commit:
 * recovery on the copy must delete or truncate, and leave it clean.
 */
#include "tests/unit/fs/alloc_test.h"

#include <linux/falloc.h>
#include <sys/stat.h>

#define LIST "-b 1024 -O ^orphan_file"
#define FILE_ "-b 1024 -O orphan_file"
#define THREADS 4
#define PER_THREAD 40

static const struct sl_cred root_cred = { 0, 0, 022 };

static struct inode *root_of(struct at *t)
{
	struct inode *root;

	assert_int_equal(sl_iget(t->sb, EXT4_ROOT_INO, &root), 0);
	return root;
}

static struct inode *mk(struct at *t, int n)
{
	struct inode *root = root_of(t), *inode;
	char name[32];
	int len = snprintf(name, sizeof(name), "f%d", n);

	assert_int_equal(sl_mknod(root, name, (size_t)len, S_IFREG | 0644, 0,
				  &root_cred, &inode), 0);
	sl_iput(root);
	return inode;
}

static void rm(struct at *t, int n)
{
	struct inode *root = root_of(t);
	char name[32];
	int len = snprintf(name, sizeof(name), "f%d", n);

	assert_int_equal(sl_unlink(root, name, (size_t)len), 0);
	sl_iput(root);
}

static void fill(struct inode *inode, u32 bytes)
{
	u8 *buf = malloc(bytes);
	struct sl_file *f;

	memset(buf, 'x', bytes);
	assert_int_equal(sl_open(inode, SL_OPEN_WRITE, &f), 0);
	assert_int_equal(sl_write(f, buf, bytes, 0, 0, &root_cred), bytes);
	sl_release(f);
	free(buf);
}

static void add(struct at *t, struct inode *inode)
{
	struct handle *h = at_handle(t, EXT4_ORPHAN_CREDITS);

	assert_int_equal(ext4_orphan_add(h, EXT4_I(inode)), 0);
	assert_int_equal(handle_stop(h), 0);
}

static void del(struct at *t, struct inode *inode)
{
	struct handle *h = at_handle(t, EXT4_ORPHAN_CREDITS);

	assert_int_equal(ext4_orphan_del(h, EXT4_I(inode)), 0);
	assert_int_equal(handle_stop(h), 0);
}

/* The state a crash would leave, as another volume, mounted. */
static void crash(struct at *t, struct at *copy)
{
	char cmd[512];

	assert_int_equal(sl_sync(t->sb), 0);
	volume_make(&copy->v, "", "8M");
	snprintf(cmd, sizeof(cmd), "cp %s %s", t->v.image, copy->v.image);
	assert_int_equal(system(cmd), 0);
}

/* ---- adding and removing ---- */

static u32 next_of(struct inode *inode)
{
	return EXT4_I(inode)->i_dtime;
}

static void test_list_is_chained_on_disk(void **state)
{
	struct inode *f[4];
	struct at t;

	(void)state;
	at_start(&t, LIST, "32M");
	for (int i = 0; i < 4; i++) {
		f[i] = mk(&t, i);
		add(&t, f[i]);
	}
	add(&t, f[1]); /* once more changes nothing */
	assert_int_equal(le32_to_cpu(t.sbi->es->s_last_orphan), sl_ino(f[3]));
	assert_int_equal(next_of(f[3]), sl_ino(f[2]));
	assert_int_equal(next_of(f[2]), sl_ino(f[1]));
	assert_int_equal(next_of(f[1]), sl_ino(f[0]));
	assert_int_equal(next_of(f[0]), 0);
	del(&t, f[1]); /* in the middle */
	assert_int_equal(next_of(f[2]), sl_ino(f[0]));
	del(&t, f[3]); /* the head */
	assert_int_equal(le32_to_cpu(t.sbi->es->s_last_orphan), sl_ino(f[2]));
	del(&t, f[0]); /* the last */
	assert_int_equal(next_of(f[2]), 0);
	assert_false(ext4_orphan_empty(t.sbi));
	del(&t, f[2]);
	del(&t, f[2]);
	assert_true(ext4_orphan_empty(t.sbi));
	for (int i = 0; i < 4; i++) {
		assert_int_equal(next_of(f[i]), 0);
		sl_iput(f[i]);
	}
	at_end(&t);
}

static void test_file_leaves_superblock_and_inode_alone(void **state)
{
	struct inode *f[4];
	struct at t;

	(void)state;
	at_start(&t, FILE_, "32M");
	for (int i = 0; i < 4; i++) {
		f[i] = mk(&t, i);
		add(&t, f[i]);
		assert_true(EXT4_I(f[i])->i_orphan_slot >= 0);
		assert_int_equal(next_of(f[i]), 0);
	}
	assert_int_equal(le32_to_cpu(t.sbi->es->s_last_orphan), 0);
	assert_false(ext4_orphan_empty(t.sbi));
	for (int i = 0; i < 4; i++) {
		del(&t, f[i]);
		assert_int_equal(EXT4_I(f[i])->i_orphan_slot, -1);
		sl_iput(f[i]);
	}
	assert_true(ext4_orphan_empty(t.sbi));
	at_end(&t);
}

static void test_full_file_falls_back_to_the_list(void **state)
{
	const int files = 32 * 254 + 20; /* the smallest orphan file, and more */
	struct inode **f = calloc((size_t)files, sizeof(*f));
	struct at t;
	int listed = 0;

	(void)state;
	at_start(&t, FILE_ " -E orphan_file_size=32 -N 12000", "64M");
	for (int i = 0; i < files; i++) {
		f[i] = mk(&t, i);
		add(&t, f[i]);
		listed += EXT4_I(f[i])->i_orphan_slot < 0;
	}
	assert_int_equal(listed, 20);
	for (int i = 0; i < files; i++)
		del(&t, f[i]);
	assert_true(ext4_orphan_empty(t.sbi));
	for (int i = 0; i < files; i++)
		sl_iput(f[i]);
	free(f);
	at_end(&t);
}

/* ---- threads ---- */

struct churn {
	struct at *t;
	struct inode *f[PER_THREAD];
	unsigned seed;
	bool failed;
};

static void churn_thread(void *arg)
{
	struct churn *c = arg;

	for (int i = 0; i < 3000; i++) {
		struct inode *f = c->f[(unsigned)rand_r(&c->seed) % PER_THREAD];
		struct handle *h;
		int err;

		if (journal_start(c->t->sbi->journal, EXT4_ORPHAN_CREDITS + 1, 0, &h)) {
			c->failed = true;
			return;
		}
		if (atomic_load(&f->i_state) & I_ORPHAN)
			err = ext4_orphan_del(h, EXT4_I(f));
		else
			err = ext4_orphan_add(h, EXT4_I(f));
		/* Writers of a listed inode for other reasons. */
		if (!err && i % 3 == 0)
			err = ext4_mark_inode_dirty(h, EXT4_I(f));
		c->failed |= err || handle_stop(h);
		if (i % 700 == 0)
			c->failed |= journal_force_commit(c->t->sbi->journal) != 0;
	}
}

/* Leaves some on: the copy must have them all, once each. */
static void churn(const char *mkfs_args)
{
	struct thread *th[THREADS];
	struct churn c[THREADS];
	struct at t, copy;

	at_start(&t, mkfs_args, "32M");
	for (int i = 0; i < THREADS; i++) {
		c[i] = (struct churn){ .t = &t, .seed = (unsigned)i + 1 };
		for (int k = 0; k < PER_THREAD; k++)
			c[i].f[k] = mk(&t, i * PER_THREAD + k);
	}
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(thread_create(&th[i], "churn", churn_thread, &c[i]), 0);
	for (int i = 0; i < THREADS; i++)
		thread_join(th[i]);
	for (int i = 0; i < THREADS; i++)
		assert_false(c[i].failed);
	assert_false(ext4_orphan_empty(t.sbi));

	crash(&t, &copy);
	at_mount(&copy);
	assert_true(ext4_orphan_empty(copy.sbi));
	at_end(&copy);

	for (int i = 0; i < THREADS; i++)
		for (int k = 0; k < PER_THREAD; k++) {
			if (atomic_load(&c[i].f[k]->i_state) & I_ORPHAN)
				del(&t, c[i].f[k]);
			sl_iput(c[i].f[k]);
		}
	assert_true(ext4_orphan_empty(t.sbi));
	at_end(&t);
}

static void test_churn_list(void **state)
{
	(void)state;
	churn(LIST);
}

static void test_churn_file(void **state)
{
	(void)state;
	churn(FILE_);
}

static void test_churn_list_no_csum(void **state)
{
	(void)state;
	churn("-b 1024 -O ^metadata_csum,^orphan_file,^64bit");
}

/* ---- recovery ---- */

/* Unlinked and in use at the crash: gone after recovery, space and all. */
static void unlinked(const char *mkfs_args)
{
	struct inode *f[30];
	struct at t, copy;
	s64 blocks, inodes;

	at_start(&t, mkfs_args, "32M");
	sl_iput(mk(&t, 1000)); /* the directory has its block */
	at_commit(&t);
	blocks = counter_sum(t.sbi->free_blocks);
	inodes = counter_sum(t.sbi->free_inodes);
	for (int i = 0; i < 30; i++) {
		f[i] = mk(&t, i);
		fill(f[i], 5000 * (u32)(i + 1));
	}
	assert_int_equal(sl_sync(t.sb), 0);
	for (int i = 0; i < 30; i++)
		rm(&t, i);
	crash(&t, &copy);
	at_mount(&copy);
	assert_true(ext4_orphan_empty(copy.sbi));
	assert_int_equal(counter_sum(copy.sbi->free_blocks), blocks);
	assert_int_equal(counter_sum(copy.sbi->free_inodes), inodes);
	at_end(&copy);

	for (int i = 0; i < 30; i++)
		sl_iput(f[i]);
	assert_true(ext4_orphan_empty(t.sbi));
	assert_int_equal(counter_sum(t.sbi->free_blocks), blocks);
	at_end(&t);
}

static void test_unlinked_list(void **state)
{
	(void)state;
	unlinked(LIST);
}

static void test_unlinked_file(void **state)
{
	(void)state;
	unlinked(FILE_);
}

/* With links: what lies beyond the size goes, the file stays. */
static void truncated(const char *mkfs_args)
{
	struct inode *f, *root;
	struct at t, copy;
	struct sl_file *file;
	struct stat st;

	at_start(&t, mkfs_args, "32M");
	f = mk(&t, 1);
	fill(f, 10000);
	assert_int_equal(sl_open(f, SL_OPEN_WRITE, &file), 0);
	assert_int_equal(sl_fallocate(file, FALLOC_FL_KEEP_SIZE, 0, 500000, &root_cred), 0);
	sl_release(file);
	add(&t, f);
	crash(&t, &copy);
	at_mount(&copy);
	assert_true(ext4_orphan_empty(copy.sbi));
	root = root_of(&copy);
	struct inode *again;
	assert_int_equal(sl_lookup(root, "f1", 2, &again), 0);
	sl_getattr(again, &st);
	assert_int_equal(st.st_size, 10000);
	assert_true(st.st_blocks < 40);
	sl_iput(again);
	sl_iput(root);
	at_end(&copy);
	del(&t, f);
	sl_iput(f);
	at_end(&t);
}

static void test_truncated_list(void **state)
{
	(void)state;
	truncated(LIST);
}

static void test_truncated_file(void **state)
{
	(void)state;
	truncated(FILE_);
}

/* ---- a deletion that fails on its way ---- */

int __real_ext4_orphan_unlink(struct handle *h, struct ext4_inode *ei);
int __wrap_ext4_orphan_unlink(struct handle *h, struct ext4_inode *ei);
int __real_ext4_inode_buffer(struct ext4_sb *sbi, ino_nr ino, bool fresh,
			     struct buffer **out, u32 *offset);
int __wrap_ext4_inode_buffer(struct ext4_sb *sbi, ino_nr ino, bool fresh,
			     struct buffer **out, u32 *offset);
bool __real_mem_pause(int *tries);
bool __wrap_mem_pause(int *tries);

static bool no_unlink, no_buffer;

/* As if it had waited in vain. */
bool __wrap_mem_pause(int *tries)
{
	return !no_unlink && __real_mem_pause(tries);
}

int __wrap_ext4_orphan_unlink(struct handle *h, struct ext4_inode *ei)
{
	return no_unlink ? -ENOMEM : __real_ext4_orphan_unlink(h, ei);
}

int __wrap_ext4_inode_buffer(struct ext4_sb *sbi, ino_nr ino, bool fresh,
			     struct buffer **out, u32 *offset)
{
	return no_buffer ? -EIO : __real_ext4_inode_buffer(sbi, ino, fresh, out, offset);
}

/* What it has freed already is not the orphan's any more: who deletes the rest, after a
 * crash or at the next mount, frees nothing twice. */
static void deletion_fails(const char *mkfs_args, bool *fails)
{
	struct inode *f;
	struct at t, copy;
	char value[300];
	int errors;

	at_start(&t, mkfs_args, "32M");
	memset(value, 'v', sizeof(value));
	for (int i = 0; i < 2; i++) { /* a block of attributes; data */
		f = mk(&t, i);
		if (i)
			fill(f, 50000);
		else
			assert_int_equal(sl_setxattr(f, "user.a", value, sizeof(value), 0,
						     &root_cred), 0);
		assert_int_equal(sl_sync(t.sb), 0);
		rm(&t, i);
		at_quiet(&errors);
		*fails = true;
		sl_iput(f);
		*fails = false;
		at_loud();
		assert_false(ext4_orphan_empty(t.sbi));
	}
	crash(&t, &copy);
	at_mount(&copy);
	assert_true(ext4_orphan_empty(copy.sbi));
	at_end(&copy);
	assert_int_equal(sl_unmount(t.sb), 0);
	at_mount(&t);
	assert_true(ext4_orphan_empty(t.sbi));
	at_end(&t);
}

static void test_no_memory_to_leave_the_list(void **state)
{
	(void)state;
	deletion_fails(LIST, &no_unlink);
	deletion_fails(FILE_, &no_unlink);
}

static void test_deleted_inode_cannot_be_stored(void **state)
{
	(void)state;
	deletion_fails(LIST, &no_buffer);
	deletion_fails(LIST ",^extent,^64bit", &no_buffer);
}

/* ---- damage: an answer, whatever it is, and no crash or hang ---- */

static void mount_damaged(struct at *t, const char *debugfs)
{
	struct sl_options opts = { .errors = SL_ERRORS_CONTINUE };
	char cmd[512];
	int errors, err;

	snprintf(cmd, sizeof(cmd), "debugfs -w -R '%s' %s >/dev/null 2>&1", debugfs,
		 t->v.image);
	assert_int_equal(system(cmd), 0);
	at_quiet(&errors);
	err = volume_mount(&t->v, &opts, &t->sb);
	if (!err)
		sl_unmount(t->sb);
	at_loud();
	assert_true(errors > 0);
}

static void test_bad_heads_are_reported(void **state)
{
	static const char *const heads[] = {
		"ssv last_orphan 4000000000", /* beyond the volume */
		"ssv last_orphan 8",          /* reserved: the journal */
		"ssv last_orphan 2",          /* the root */
		"ssv last_orphan 500",        /* not allocated */
	};
	struct sl_options opts = { .errors = SL_ERRORS_CONTINUE };
	char cmd[512];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(heads); i++) {
		struct at t;

		at_start(&t, LIST, "32M");
		at_unmount_clean(&t);
		mount_damaged(&t, heads[i]);
		/* Served, but for e2fsck to look at; the list is empty. */
		snprintf(cmd, sizeof(cmd), "dumpe2fs -h %s 2>/dev/null | "
			 "grep -q '^Filesystem state:.*with errors'", t.v.image);
		assert_int_equal(system(cmd), 0);
		assert_int_equal(volume_mount(&t.v, &opts, &t.sb), 0);
		assert_int_equal(sl_unmount(t.sb), 0);
		volume_free(&t.v);
	}
}

static void test_loop_ends(void **state)
{
	struct inode *f;
	struct at t, copy;

	(void)state;
	at_start(&t, LIST, "32M");
	f = mk(&t, 1);
	add(&t, f);
	EXT4_I(f)->i_dtime = sl_ino(f); /* its own next */
	struct handle *h = at_handle(&t, 1);
	assert_int_equal(ext4_mark_inode_dirty(h, EXT4_I(f)), 0);
	assert_int_equal(handle_stop(h), 0);
	crash(&t, &copy);
	mount_damaged(&copy, "ssv mtime 1");
	volume_free(&copy.v);
	EXT4_I(f)->i_dtime = 0;
	del(&t, f);
	sl_iput(f);
	at_end(&t);
}

static void test_damaged_orphan_file_is_refused(void **state)
{
	struct sl_options opts = { .errors = SL_ERRORS_CONTINUE };
	struct at t;
	u64 pos;
	int errors;

	(void)state;
	at_start(&t, FILE_, "32M");
	/* Found by its first block, which load has in memory. */
	struct inode *inode;
	struct ext4_map map = { .len = 1 };
	assert_int_equal(icache_get(t.sb, t.sbi->orphan_file_ino, &inode), 0);
	assert_int_equal(ext4_map_blocks(EXT4_I(inode), &map), 0);
	inode_put(inode);
	pos = map.pblk * t.sb->s_blocksize;
	at_unmount_clean(&t);
	at_damage(&t, pos + 100, 1);
	at_quiet(&errors);
	assert_int_equal(volume_mount(&t.v, &opts, &t.sb), -EFSBADCRC);
	at_loud();
	assert_int_equal(errors, 1);
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
		cmocka_unit_test(test_list_is_chained_on_disk),
		cmocka_unit_test(test_file_leaves_superblock_and_inode_alone),
		cmocka_unit_test(test_full_file_falls_back_to_the_list),
		cmocka_unit_test(test_churn_list),
		cmocka_unit_test(test_churn_file),
		cmocka_unit_test(test_churn_list_no_csum),
		cmocka_unit_test(test_unlinked_list),
		cmocka_unit_test(test_unlinked_file),
		cmocka_unit_test(test_truncated_list),
		cmocka_unit_test(test_truncated_file),
		cmocka_unit_test(test_bad_heads_are_reported),
		cmocka_unit_test(test_no_memory_to_leave_the_list),
		cmocka_unit_test(test_deleted_inode_cannot_be_stored),
		cmocka_unit_test(test_loop_ends),
		cmocka_unit_test(test_damaged_orphan_file_is_refused),
	};

	return cmocka_run_group_tests(tests, init, NULL);
}
