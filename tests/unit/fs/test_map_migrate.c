/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_map_migrate.c - block maps that become extents, and back
 */
#include "tests/unit/unit.h"
#include "tests/unit/fs/memvol.h"

#include "fs/extents_internal.h"
#include "lib/thread.h"

#include <linux/falloc.h>

static const struct sl_cred root_cred;
static const struct sl_options opts = { .cache_bytes = 16 << 20,
					.errors = SL_ERRORS_CONTINUE,
					.commit_ms = 600000,
					.dirty_expire_ms = 600000 };
static const struct sl_options busy_opts = { .cache_bytes = 16 << 20,
					     .commit_ms = 2,
					     .dirty_expire_ms = 1 };
static struct memvol mv;
static struct super_block *sb;

static void begin(const char *mkfs, const struct sl_options *o)
{
	memvol_make(&mv, mkfs, "32M");
	assert_int_equal(memvol_mount(&mv, o, &sb), 0);
}

static void end(void)
{
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(memvol_fsck(&mv), 0);
	memvol_free(&mv);
}

static struct sl_file *open_file(const char *name, bool create)
{
	struct inode *root, *inode;
	struct sl_file *f;

	assert_int_equal(sl_iget(sb, EXT4_ROOT_INO, &root), 0);
	if (create)
		assert_int_equal(sl_mknod(root, name, strlen(name), S_IFREG | 0666, 0,
					  &root_cred, &inode), 0);
	else
		assert_int_equal(sl_lookup(root, name, strlen(name), &inode), 0);
	assert_int_equal(sl_open(inode, SL_OPEN_WRITE, &f), 0);
	sl_iput(inode);
	sl_iput(root);
	return f;
}

static bool has_extents(struct sl_file *f)
{
	return sl_file_inode(f)->i_flags & EXT4_EXTENTS_FL;
}

static int migrate(struct sl_file *f, bool extents)
{
	struct sl_fileattr fa = { .flags = extents ? EXT4_EXTENTS_FL : 0 };

	return sl_fileattr_set(sl_file_inode(f), &fa, SL_FA_FLAGS, EXT4_EXTENTS_FL,
			       SL_MAY_OWN, &root_cred);
}

static void put(struct sl_file *f, u64 lblk, u32 nr, char fill)
{
	static char data[64 << 10];

	memset(data, fill, (size_t)nr << 10);
	assert_int_equal(sl_write(f, data, (size_t)nr << 10, lblk << 10, 0, &root_cred),
			 nr << 10);
}

static void check(struct sl_file *f, u64 lblk, char fill)
{
	char data[1024], want[1024];

	memset(want, fill, sizeof(want));
	assert_int_equal(sl_read(f, data, sizeof(data), lblk << 10), sizeof(data));
	assert_memory_equal(data, want, sizeof(data));
}

static u64 blocks_of(struct sl_file *f)
{
	struct stat st;

	sl_getattr(sl_file_inode(f), &st);
	return (u64)st.st_blocks;
}

/* Every other block, so that none can be one extent with the next. */
static void scattered(u32 nr, u32 depth, u64 nodes)
{
	struct sl_file *f;

	begin("-b 1024", &opts);
	f = open_file("f", true);
	assert_int_equal(migrate(f, false), 0);
	assert_false(has_extents(f));
	for (u32 i = 0; i < nr; i++)
		put(f, 2 * i, 1, (char)('a' + i % 26));
	if (nr > 1000)
		put(f, 70000, 1, 'z'); /* below the double and the triple indirect block */
	/* The data is still on its way. */
	assert_int_equal(migrate(f, true), 0);
	assert_true(has_extents(f));
	assert_int_equal(eh_depth(ext_root(EXT4_I(sl_file_inode(f)))), depth);
	assert_int_equal(blocks_of(f), 2 * (nr + (nr > 1000) + nodes));
	put(f, 1, 1, 'X');
	for (int again = 0; again < 2; again++) {
		for (u32 i = 0; i < nr; i++)
			check(f, 2 * i, (char)('a' + i % 26));
		check(f, 1, 'X');
		check(f, 3, 0);
		if (nr > 1000)
			check(f, 70000, 'z');
		sl_release(f);
		assert_int_equal(sl_unmount(sb), 0);
		assert_int_equal(memvol_fsck(&mv), 0);
		assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
		f = open_file("f", false);
	}
	assert_int_equal(migrate(f, false), -EOPNOTSUPP);
	assert_true(has_extents(f));
	sl_release(f);
	end();
}

static void test_into_the_root(void **state)
{
	(void)state;
	scattered(4, 0, 0);
}

static void test_into_leaves(void **state)
{
	(void)state;
	scattered(5, 1, 1);
	scattered(300, 1, 4);
}

static void test_into_two_levels(void **state)
{
	(void)state;
	/* 84 in a block: 1601 extents are 20 leaves. */
	scattered(1600, 2, 21);
}

static void test_to_a_map_and_back(void **state)
{
	struct sl_file *f;
	u64 blocks;

	(void)state;
	begin("-b 1024", &opts);
	f = open_file("f", true);
	put(f, 3, 9, 'a'); /* on its way; a hole at the beginning */
	assert_int_equal(migrate(f, false), 0);
	assert_false(has_extents(f));
	blocks = blocks_of(f);
	assert_int_equal(blocks, 18);
	put(f, 0, 3, 'b');
	put(f, 12, 40, 'c');
	assert_int_equal(sl_fallocate(f, 0, 0, 200000, &root_cred), -EOPNOTSUPP);
	assert_int_equal(migrate(f, true), 0);
	for (u32 i = 0; i < 52; i++)
		check(f, i, i < 3 ? 'b' : i < 12 ? 'a' : 'c');
	assert_int_equal(sl_fallocate(f, 0, 0, 200000, &root_cred), 0);
	sl_release(f);
	end();
}

static void test_refused(void **state)
{
	struct stat st = { .st_size = (off_t)1 << 40 };
	struct sl_file *f;

	(void)state;
	begin("-b 1024", &opts);
	f = open_file("f", true);
	assert_int_equal(sl_fallocate(f, 0, 0, 4096, &root_cred), 0);
	assert_int_equal(migrate(f, false), -EOPNOTSUPP); /* unwritten */
	sl_release(f);
	f = open_file("g", true);
	put(f, 0, 13, 'a');
	assert_int_equal(migrate(f, false), -EOPNOTSUPP); /* needs an indirect block */
	sl_release(f);
	f = open_file("h", true);
	put(f, 0, 1, 'a');
	put(f, 4, 1, 'a');
	assert_int_equal(migrate(f, false), -EOPNOTSUPP); /* two extents */
	sl_release(f);
	f = open_file("i", true);
	assert_int_equal(sl_setattr(sl_file_inode(f), &st, SL_SET_SIZE, &root_cred, NULL), 0);
	assert_int_equal(migrate(f, false), -EOPNOTSUPP); /* larger than a map can say */
	assert_true(has_extents(f));
	sl_release(f);
	end();

	begin("-b 1024 -O ^extent,^64bit", &opts);
	f = open_file("f", true);
	assert_int_equal(migrate(f, false), 0);
	assert_int_equal(migrate(f, true), -EINVAL);
	sl_release(f);
	end();
}

static void quiet(enum log_level level, const char *line, void *priv)
{
	(void)level;
	if (strstr(line, "error in"))
		++*(int *)priv;
}

/* An indirect block that is in the map twice: neither of the two frees it. */
static void test_damaged_map(void **state)
{
	struct sl_file *f;
	int errors = 0;
	le32 *slot;

	(void)state;
	begin("-b 1024", &opts);
	f = open_file("f", true);
	assert_int_equal(migrate(f, false), 0);
	put(f, 0, 1, 'a');
	put(f, 12, 1, 'a');
	put(f, 12 + 256, 1, 'a');
	put(f, 12 + 512, 1, 'a');
	assert_int_equal(sl_fsync(f, false), 0);
	slot = ind_slots(EXT4_I(sl_file_inode(f)));
	{
		struct buffer *b;
		le32 *e;

		assert_int_equal(ind_bread(EXT4_I(sl_file_inode(f)),
					   le32_to_cpu(slot[IND_NDIR + 1]), &b), 0);
		e = (le32 *)(void *)b->b_data;
		assert_true(le32_to_cpu(e[0]) && le32_to_cpu(e[1]));
		e[1] = e[0];
		buffer_put(b);
	}
	log_set_sink(quiet, &errors);
	assert_int_equal(migrate(f, true), -EFSCORRUPTED);
	slot[IND_NDIR] = cpu_to_le32(1); /* the superblock */
	assert_int_equal(migrate(f, true), -EFSCORRUPTED);
	log_set_sink(NULL, NULL);
	assert_int_equal(errors, 2);
	assert_false(has_extents(f));
	sl_release(f);
	(void)!sl_unmount(sb);
	memvol_free(&mv);
}

/* One that is data, too, stays the file's. */
static void test_node_that_is_data(void **state)
{
	struct sl_file *f;
	int errors = 0;
	le32 *slot;

	(void)state;
	begin("-b 1024", &opts);
	f = open_file("f", true);
	assert_int_equal(migrate(f, false), 0);
	put(f, 0, 8, 'a');
	put(f, 12, 1, 'a');
	put(f, 12 + 256, 1, 'a');
	assert_int_equal(sl_fsync(f, false), 0);
	slot = ind_slots(EXT4_I(sl_file_inode(f)));
	for (u32 i = 0; i < 2; i++) {
		le32 was = slot[7 * i];

		slot[7 * i] = slot[IND_NDIR + i];
		log_set_sink(quiet, &errors);
		assert_int_equal(migrate(f, true), -EFSCORRUPTED);
		log_set_sink(NULL, NULL);
		assert_int_equal(errors, i + 1);
		assert_false(has_extents(f));
		slot[7 * i] = was;
	}
	assert_int_equal(migrate(f, true), 0);
	sl_release(f);
	assert_int_equal(sl_unmount(sb), 0);
	memvol_free(&mv);
}

static u32 group_of(u32 blk)
{
	return ext4_block_group(EXT4_SB(sb), blk);
}

static bool in_use(u32 blk)
{
	char cmd[256];

	snprintf(cmd, sizeof(cmd), "debugfs -R 'testb %u' %s 2>/dev/null | grep -q marked", blk,
		 mv.v.image);
	return system(cmd) == 0;
}

/* An indirect block that can't be freed keeps no other from it. */
static void test_node_that_is_free(void **state)
{
	const struct sl_cred *cred = &root_cred;
	u32 node[7], bad, others = 0;
	struct ext4_inode *ei;
	struct buffer *b;
	struct handle *h;
	struct sl_file *f;
	char data[1024] = "x";
	int errors = 0;

	(void)state;
	begin("-b 1024 -g 512", &opts);
	f = open_file("f", true);
	assert_int_equal(migrate(f, false), 0);
	for (u32 i = 0; i < 1500; i++) {
		assert_int_equal(sl_write(f, data, sizeof(data), (u64)i << 10, 0, cred),
				 sizeof(data));
		if (i % 256 == 255)
			assert_int_equal(sl_fsync(f, false), 0);
	}
	assert_int_equal(sl_fsync(f, false), 0);
	ei = EXT4_I(sl_file_inode(f));
	node[0] = le32_to_cpu(ind_slots(ei)[IND_NDIR]);
	node[1] = le32_to_cpu(ind_slots(ei)[IND_NDIR + 1]);
	assert_int_equal(ind_bread(ei, node[1], &b), 0);
	for (u32 i = 2; i < ARRAY_SIZE(node); i++)
		node[i] = le32_to_cpu(((le32 *)(void *)b->b_data)[i - 2]);
	buffer_put(b);
	bad = node[0];
	for (u32 i = 0; i < ARRAY_SIZE(node); i++) {
		assert_true(node[i]);
		bad = min_of(bad, node[i]); /* the first to be freed */
	}
	assert_int_equal(journal_start(EXT4_SB(sb)->journal, EXT4_ALLOC_CREDITS, 0, &h), 0);
	assert_int_equal(ext4_free_blocks(h, EXT4_SB(sb), ei->vfs.i_ino, bad, 1), 0);
	assert_int_equal(handle_stop(h), 0);
	log_set_sink(quiet, &errors);
	assert_true(migrate(f, true) < 0);
	log_set_sink(NULL, NULL);
	assert_int_equal(errors, 1);
	assert_true(has_extents(f));
	for (u32 i = 0; i < ARRAY_SIZE(node); i++)
		if (group_of(node[i]) == group_of(bad))
			node[i] = 0; /* nothing is freed there any more */
	sl_release(f);
	assert_int_equal(sl_unmount(sb), 0);
	memvol_store(&mv);
	for (u32 i = 0; i < ARRAY_SIZE(node); i++) {
		assert_false(node[i] && in_use(node[i]));
		others += !!node[i];
	}
	assert_true(others > 1);
	memvol_free(&mv);
}

/* What no transaction can hold is refused, and not for want of space: whatever of a
 * transaction is left. */
static void test_more_than_a_transaction(void **state)
{
	struct journal *j;
	struct sl_file *f;
	u32 extra;
	int err;

	(void)state;
	begin("-b 1024", &opts);
	j = EXT4_SB(sb)->journal;
	f = open_file("f", true);
	assert_int_equal(migrate(f, false), 0);
	put(f, 12, 1, 'a');
	assert_int_equal(sl_fsync(f, false), 0);
	extra = journal_max_credits(j);
	do {
		assert_int_equal(journal_force_commit(j), 0);
		journal_set_handle_extra(j, extra);
		err = migrate(f, true);
		assert_true(!err || err == -EFBIG);
	} while (err && extra-- > 0);
	assert_int_equal(err, 0);
	assert_true(extra > 0);
	assert_int_equal(journal_force_commit(j), 0);
	journal_set_handle_extra(j, 0);
	check(f, 12, 'a');
	sl_release(f);
	end();
}

struct user {
	struct sl_file *f;
	_Atomic bool stop;
	_Atomic u32 rounds;
	char last;
	int err;
};

static void overwrite(void *arg)
{
	struct user *u = arg;
	char data[8192];

	for (u32 i = 0; !atomic_load(&u->stop) || i < 20; i++) {
		u->last = (char)('a' + i % 26);
		memset(data, u->last, sizeof(data));
		if (sl_write(u->f, data, sizeof(data), 0, 0, &root_cred) != sizeof(data))
			u->err = 1;
		if (i % 8 == 0 && sl_fsync(u->f, true))
			u->err = 1;
		atomic_fetch_add(&u->rounds, 1);
	}
}

static void read_back(void *arg)
{
	struct user *u = arg;
	char data[8192];

	while (!atomic_load(&u->stop)) {
		if (sl_read(u->f, data, sizeof(data), 0) != sizeof(data))
			u->err = 1;
		for (u32 i = 0; i < sizeof(data); i++)
			if (data[i] != data[i & ~1023u] || !data[i])
				u->err = 1;
	}
}

/* Overwrites take no lock of the file, and write-out none that a user holds. */
static void test_beside_users(void **state)
{
	struct user writer = { 0 }, reader = { 0 };
	struct thread *t[2];

	(void)state;
	begin("-b 1024", &busy_opts);
	writer.f = reader.f = open_file("f", true);
	put(writer.f, 0, 8, 'a');
	assert_int_equal(thread_create(&t[0], "writer", overwrite, &writer), 0);
	assert_int_equal(thread_create(&t[1], "reader", read_back, &reader), 0);
	for (u32 i = 0; i < 200; i++) {
		assert_int_equal(migrate(writer.f, i % 2), 0);
		assert_int_equal(has_extents(writer.f), i % 2);
	}
	atomic_store(&reader.stop, true);
	atomic_store(&writer.stop, true);
	thread_join(t[0]);
	thread_join(t[1]);
	assert_int_equal(writer.err, 0);
	assert_int_equal(reader.err, 0);
	for (u32 i = 0; i < 8; i++)
		check(writer.f, i, writer.last);
	sl_release(writer.f);
	end();
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
		cmocka_unit_test(test_into_the_root),
		cmocka_unit_test(test_into_leaves),
		cmocka_unit_test(test_into_two_levels),
		cmocka_unit_test(test_to_a_map_and_back),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_damaged_map),
		cmocka_unit_test(test_node_that_is_data),
		cmocka_unit_test(test_node_that_is_free),
		cmocka_unit_test(test_more_than_a_transaction),
		cmocka_unit_test(test_beside_users),
	};

	return cmocka_run_group_tests(tests, init, NULL);
}
