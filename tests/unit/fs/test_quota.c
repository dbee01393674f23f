/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_quota.c - usage by users, groups and projects: as e2fsck counts it,
 * after each kind of change, after a power cut; and damaged quota files
 */
#include "tests/unit/unit.h"
#include "tests/unit/fs/memvol.h"

#include "fs/quota.h"
#include "lib/thread.h"

#include <linux/falloc.h>

#define QUOTA "-O quota,project,^orphan_file -b "
#define QUOTA_MAPS "-O quota,project,^orphan_file,^extent,^64bit -b "
#define MANY 400u

static const struct sl_cred root_cred = { 0, 0, 022 };
static struct memvol mv;
static struct super_block *sb;
static struct inode *root;

static void begin(const char *mkfs_args)
{
	struct sl_options opts = { .cache_bytes = 32 << 20, .commit_ms = 1000000 };

	if (!mv.content)
		memvol_make(&mv, mkfs_args, "32M");
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	assert_int_equal(sl_iget(sb, 2, &root), 0);
}

static void end(void)
{
	sl_iput(root);
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(memvol_fsck(&mv), 0);
}

static u64 bytes_of(enum ext4_quota_type type, u32 id)
{
	u64 inodes = 0, bytes = 0;

	return ext4_quota_usage(EXT4_SB(sb), type, id, &inodes, &bytes) ? bytes : 0;
}

static u64 inodes_of(enum ext4_quota_type type, u32 id)
{
	u64 inodes = 0, bytes = 0;

	return ext4_quota_usage(EXT4_SB(sb), type, id, &inodes, &bytes) ? inodes : 0;
}

static struct inode *create(const char *name, u32 uid, u32 gid)
{
	struct sl_cred cred = { uid, gid, 022 };
	struct inode *inode;

	assert_int_equal(sl_mknod(root, name, strlen(name), S_IFREG | 0644, 0, &cred,
				  &inode), 0);
	return inode;
}

static void write_file(struct inode *inode, u64 pos, size_t len)
{
	void *data = calloc(1, len);
	struct sl_file *f;

	assert_non_null(data);
	assert_int_equal(sl_open(inode, SL_OPEN_WRITE, &f), 0);
	assert_int_equal(sl_write(f, data, len, pos, 0, &root_cred), len);
	assert_int_equal(sl_fsync(f, false), 0);
	sl_release(f);
	free(data);
}

static u64 space_of(struct inode *inode)
{
	struct stat st;

	sl_getattr(inode, &st);
	return (u64)st.st_blocks * 512;
}

static int chown_to(struct inode *inode, u32 uid, u32 gid)
{
	struct stat st = { .st_uid = uid, .st_gid = gid };

	return sl_setattr(inode, &st, SL_SET_UID | SL_SET_GID, &root_cred, NULL);
}

static int set_project(struct inode *inode, u32 id)
{
	struct sl_fileattr fa = { .projid = id };

	return sl_fileattr_set(inode, &fa, SL_FA_PROJID, 0, SL_MAY_OWN, &root_cred);
}

static void each_change(const char *mkfs_args)
{
	struct stat st = { .st_size = 5000 };
	struct inode *inode;
	char value[700];
	u64 bytes;

	begin(mkfs_args);
	inode = create("file", 1000, 2000);
	assert_int_equal(inodes_of(EXT4_QUOTA_USR, 1000), 1);
	assert_int_equal(inodes_of(EXT4_QUOTA_GRP, 2000), 1);
	assert_int_equal(bytes_of(EXT4_QUOTA_USR, 1000), 0);
	write_file(inode, 0, 100000);
	bytes = space_of(inode);
	assert_true(bytes >= 100000);
	assert_int_equal(bytes_of(EXT4_QUOTA_USR, 1000), bytes);
	assert_int_equal(bytes_of(EXT4_QUOTA_GRP, 2000), bytes);

	assert_int_equal(sl_setattr(inode, &st, SL_SET_SIZE, &root_cred, NULL), 0);
	assert_true(space_of(inode) < bytes);
	assert_int_equal(bytes_of(EXT4_QUOTA_USR, 1000), space_of(inode));
	memset(value, 'v', sizeof(value));
	assert_int_equal(sl_setxattr(inode, "user.x", value, sizeof(value), 0, &root_cred), 0);
	assert_int_equal(bytes_of(EXT4_QUOTA_USR, 1000), space_of(inode));

	bytes = space_of(inode);
	assert_int_equal(chown_to(inode, 1001, 2000), 0);
	assert_int_equal(inodes_of(EXT4_QUOTA_USR, 1000), 0);
	assert_int_equal(bytes_of(EXT4_QUOTA_USR, 1000), 0);
	assert_int_equal(inodes_of(EXT4_QUOTA_USR, 1001), 1);
	assert_int_equal(bytes_of(EXT4_QUOTA_USR, 1001), bytes);
	assert_int_equal(bytes_of(EXT4_QUOTA_GRP, 2000), bytes);
	assert_int_equal(set_project(inode, 77), 0);
	assert_int_equal(inodes_of(EXT4_QUOTA_PRJ, 77), 1);
	assert_int_equal(bytes_of(EXT4_QUOTA_PRJ, 77), bytes);

	/* Without a name it is used until nobody has it. */
	assert_int_equal(sl_unlink(root, "file", 4), 0);
	assert_int_equal(bytes_of(EXT4_QUOTA_USR, 1001), bytes);
	sl_iput(inode);
	assert_int_equal(inodes_of(EXT4_QUOTA_USR, 1001), 0);
	assert_int_equal(bytes_of(EXT4_QUOTA_USR, 1001), 0);
	assert_int_equal(bytes_of(EXT4_QUOTA_GRP, 2000), 0);
	assert_int_equal(bytes_of(EXT4_QUOTA_PRJ, 77), 0);
	end();
	memvol_end(&mv);
}

static void test_each_change_1k(void **state)
{
	each_change(QUOTA "1024");
}

static void test_each_change_4k(void **state)
{
	each_change("-O quota,project,orphan_file -I 512 -b 4096");
}

/* Data, quota files and all else by block maps. */
static void test_each_change_maps(void **state)
{
	each_change(QUOTA_MAPS "1024");
}

/* Group and project come from the directory; a directory's own blocks are its owner's. */
static void test_inherited(void **state)
{
	const u32 mask = 0x20000000; /* PROJINHERIT */
	struct sl_fileattr fa = { .flags = mask, .projid = 5 };
	struct sl_cred cred = { 1000, 1000, 022 };
	struct stat st = { .st_mode = 02775 };
	struct inode *dir, *inode;
	char name[200];

	begin(QUOTA "1024");
	assert_int_equal(sl_mkdir(root, "d", 1, 0755, &root_cred, &dir), 0);
	assert_int_equal(chown_to(dir, 10, 20), 0);
	assert_int_equal(sl_setattr(dir, &st, SL_SET_MODE, &root_cred, NULL), 0);
	assert_int_equal(sl_fileattr_set(dir, &fa, SL_FA_FLAGS | SL_FA_PROJID, mask,
					 SL_MAY_OWN, &root_cred), 0);
	memset(name, 'n', sizeof(name));
	for (u32 i = 0; i < 40; i++) {
		name[0] = (char)('0' + i);
		assert_int_equal(sl_mknod(dir, name, sizeof(name), S_IFREG | 0644, 0, &cred,
					  &inode), 0);
		sl_iput(inode);
	}
	assert_true(space_of(dir) > 4096);
	assert_int_equal(bytes_of(EXT4_QUOTA_USR, 10), space_of(dir));
	assert_int_equal(bytes_of(EXT4_QUOTA_GRP, 20), space_of(dir));
	assert_int_equal(bytes_of(EXT4_QUOTA_PRJ, 5), space_of(dir));
	assert_int_equal(inodes_of(EXT4_QUOTA_USR, 1000), 40);
	assert_int_equal(inodes_of(EXT4_QUOTA_GRP, 20), 41);
	assert_int_equal(inodes_of(EXT4_QUOTA_GRP, 1000), 0);
	assert_int_equal(inodes_of(EXT4_QUOTA_PRJ, 5), 41);
	assert_int_equal(sl_rename_whiteout(dir, name, sizeof(name), dir, "x", 1, 0, &cred), 0);
	assert_int_equal(inodes_of(EXT4_QUOTA_USR, 1000), 41);
	sl_iput(dir);
	end();
	memvol_end(&mv);
}

/* Ids whose bytes all differ, so that nodes of each level are made. */
static u32 id_of(u32 i)
{
	return i * 0x01030507u;
}

static void many_users(const char *mkfs_args)
{
	struct inode *inode;

	begin(mkfs_args);
	inode = create("file", 0, 0);
	write_file(inode, 0, 10000);
	for (u32 i = 0; i < MANY; i++)
		assert_int_equal(chown_to(inode, id_of(i), id_of(i) ^ 0xFFFFFFFFu), 0);
	sl_iput(inode);
	end();
	/* All are found again. */
	begin(NULL);
	for (u32 i = 0; i < MANY; i++) {
		u64 inodes, bytes;

		assert_true(ext4_quota_usage(EXT4_SB(sb), EXT4_QUOTA_USR, id_of(i), &inodes,
					     &bytes));
		if (i)
			assert_int_equal(inodes, i == MANY - 1);
		assert_true(ext4_quota_usage(EXT4_SB(sb), EXT4_QUOTA_GRP,
					     id_of(i) ^ 0xFFFFFFFFu, &inodes, &bytes));
	}
	assert_true(bytes_of(EXT4_QUOTA_USR, id_of(MANY - 1)) >= 10000);
	end();
	memvol_end(&mv);
}

static void test_many_users_1k(void **state)
{
	many_users(QUOTA "1024");
}

static void test_many_users_4k(void **state)
{
	many_users(QUOTA "4096");
}

static void test_many_users_maps(void **state)
{
	many_users(QUOTA_MAPS "1024");
}

/* User 0 owns nothing more: his record stays one. */
static void test_root_owns_nothing(void **state)
{
	struct inode *lpf;

	begin(QUOTA "1024");
	assert_int_equal(sl_lookup(root, "lost+found", 10, &lpf), 0);
	assert_int_equal(chown_to(lpf, 7, 7), 0);
	assert_int_equal(chown_to(root, 7, 7), 0);
	assert_int_equal(inodes_of(EXT4_QUOTA_USR, 0), 0);
	sl_iput(lpf);
	end();
	begin(NULL);
	assert_int_equal(inodes_of(EXT4_QUOTA_USR, 7), 2);
	assert_int_equal(chown_to(root, 0, 0), 0);
	assert_int_equal(inodes_of(EXT4_QUOTA_USR, 0), 1);
	end();
	memvol_end(&mv);
}

/* Cut before the commit, and after it. */
static void test_power_cut(void **state)
{
	for (int committed = 0; committed < 2; committed++) {
		struct inode *a, *b;
		u8 *left;

		begin(QUOTA "1024");
		a = create("a", 1, 1);
		b = create("b", 2, 2);
		write_file(a, 0, 50000);
		assert_int_equal(sl_sync(sb), 0);
		assert_int_equal(chown_to(a, 3, 3), 0);
		assert_int_equal(sl_unlink(root, "b", 1), 0); /* an orphan to delete */
		write_file(a, 50000, 30000);
		if (committed)
			assert_int_equal(sl_sync(sb), 0);
		left = malloc(mv.size);
		assert_non_null(left);
		memvol_snapshot(&mv, left);
		sl_iput(a);
		sl_iput(b);
		end();
		memcpy(mv.content, left, mv.size);
		free(left);
		begin(NULL);
		assert_int_equal(inodes_of(EXT4_QUOTA_USR, 2), 0);
		assert_true(bytes_of(EXT4_QUOTA_USR, 3) + bytes_of(EXT4_QUOTA_USR, 1) >=
			    80000);
		end();
		memvol_end(&mv);
	}
}

/* No space for the record of a new user: his file is not made, and the volume is whole. */
static void test_no_space_for_a_record(void **state)
{
	struct inode *inode, *mine;
	struct sl_file *f;
	u32 made = 0;
	int err = 0;

	begin(QUOTA "1024 -m 0");
	mine = create("mine", 0, 0);
	inode = create("full", 0, 0);
	assert_int_equal(sl_open(inode, SL_OPEN_WRITE, &f), 0);
	for (u64 len = 1 << 20, pos = 0; len >= 1024; pos += len) {
		while (len >= 1024 && sl_fallocate(f, 0, pos, len, &root_cred))
			len /= 2;
		if (len < 1024)
			break;
	}
	for (u32 i = 1; i < 2000 && !err; i++, made++)
		err = chown_to(mine, id_of(i), 0);
	assert_int_equal(err, -ENOSPC);
	sl_release(f);
	assert_int_equal(sl_unlink(root, "full", 4), 0);
	sl_iput(inode);
	assert_int_equal(sl_sync(sb), 0);
	assert_int_equal(chown_to(mine, id_of(2000), 0), 0);
	sl_iput(mine);
	end();
	memvol_end(&mv);
}

/* What others can't have is there for root, and for the records of whom he gives it to. */
static void test_reserve_holds_records(void **state)
{
	const struct sl_cred user = { 5, 5, 022 };
	struct inode *inode, *mine;
	struct sl_file *f;

	begin(QUOTA "1024 -m 10");
	mine = create("mine", 0, 0);
	inode = create("full", 5, 5);
	assert_int_equal(sl_open(inode, SL_OPEN_WRITE, &f), 0);
	for (u64 len = 1 << 20, pos = 0; len >= 1024; pos += len) {
		while (len >= 1024 && sl_fallocate(f, 0, pos, len, &user))
			len /= 2;
		if (len < 1024)
			break;
	}
	sl_release(f);
	sl_iput(inode);
	for (u32 i = 1; i < 100; i++)
		assert_int_equal(chown_to(mine, id_of(i), 0), 0);
	sl_iput(mine);
	end();
	memvol_end(&mv);
}

/* ---- at the same time ---- */

static struct inode *shared[4];

static void writer(void *arg)
{
	u32 me = (u32)(uintptr_t)arg;
	u8 data[9000] = { 0 };

	for (u32 i = 0; i < 60; i++) {
		struct inode *inode = shared[(me + i) % ARRAY_SIZE(shared)];
		struct stat st = { .st_size = (off_t)(i * 777 % 5000) };
		struct sl_file *f;

		if (me % 2) {
			CHECK(chown_to(inode, 100 + i % 30, 200 + me) == 0);
			CHECK(set_project(inode, i % 5) == 0);
			continue;
		}
		CHECK(sl_open(inode, SL_OPEN_WRITE, &f) == 0);
		CHECK(sl_write(f, data, sizeof(data), (u64)i * 3000, 0, &root_cred) ==
		      sizeof(data));
		if (i % 7 == 0)
			CHECK(sl_fsync(f, false) == 0);
		sl_release(f);
		if (i % 5 == 0)
			CHECK(sl_setattr(inode, &st, SL_SET_SIZE, &root_cred, NULL) == 0);
		if (i % 11 == 0)
			CHECK(sl_sync(sb) == 0);
	}
}

static void test_threads(void **state)
{
	struct thread *th[4];
	u64 sum = 0, want = 0;

	begin(QUOTA "1024");
	for (u32 i = 0; i < ARRAY_SIZE(shared); i++)
		shared[i] = create((const char[]){ (char)('a' + i), 0 }, i, i);
	for (u32 i = 0; i < ARRAY_SIZE(th); i++)
		assert_int_equal(thread_create(&th[i], "writer", writer,
					       (void *)(uintptr_t)i), 0);
	for (u32 i = 0; i < ARRAY_SIZE(th); i++)
		thread_join(th[i]);
	assert_int_equal(sl_sync(sb), 0);
	for (u32 i = 0; i < ARRAY_SIZE(shared); i++) {
		want += space_of(shared[i]);
		sl_iput(shared[i]);
	}
	for (u32 id = 0; id < 5; id++)
		sum += bytes_of(EXT4_QUOTA_PRJ, id);
	assert_true(sum >= want);
	end();
	memvol_end(&mv);
}

/* ---- damaged files ---- */

#define NR_BLOCKS 6u /* as mke2fs makes it */

/* Where the blocks of the file of users are in the content; the image has been stored. */
static void quota_blocks(u8 *block[NR_BLOCKS])
{
	char cmd[512];
	FILE *p;

	snprintf(cmd, sizeof(cmd),
		 "for i in 0 1 2 3 4 5; do debugfs -R \"bmap <3> $i\" %s 2>/dev/null; done",
		 mv.v.image);
	p = popen(cmd, "r");
	assert_non_null(p);
	for (u32 i = 0; i < NR_BLOCKS; i++) {
		char line[64] = "";

		assert_non_null(fgets(line, sizeof(line), p));
		assert_true(atol(line) > 0);
		block[i] = mv.content + atol(line) * 1024;
	}
	pclose(p);
}

#define WORD(block, n) (*(le32 *)(void *)((block) + 4 * (n)))
#define SET(block, n, v) (WORD(block, n) = cpu_to_le32(v))
#define BLOCKS_WORD 5
#define FREE_ENTRY_WORD 7

/* The limits that somebody set stay, whatever is used. */
static void test_limits_are_kept(void **state)
{
	const u32 record = 4 + 18; /* the second of the leaf */
	u8 *block[NR_BLOCKS], *leaf;
	struct inode *inode;

	begin(QUOTA "1024");
	sl_iput(create("file", 1000, 1000));
	end();
	quota_blocks(block);
	leaf = block[5];
	assert_int_equal(le32_to_cpu(WORD(leaf, record)), 1000);
	for (u32 i = 0; i < 4; i++) /* inodes, then space; 64 bits each */
		SET(leaf, record + (i < 2 ? 2 : 4) + 2 * i, 5 + i);
	begin(NULL);
	assert_int_equal(sl_lookup(root, "file", 4, &inode), 0);
	write_file(inode, 0, 50000);
	sl_iput(inode);
	end();
	assert_int_equal(le32_to_cpu(WORD(leaf, record + 6)), 1);
	for (u32 i = 0; i < 4; i++)
		assert_int_equal(le32_to_cpu(WORD(leaf, record + (i < 2 ? 2 : 4) + 2 * i)),
				 5 + i);
	memvol_end(&mv);
}

/* 1 to 4 are nodes, 5 the leaf, with user 0 alone. */
static const struct {
	const char *name;
	u32 block, word, value;
	bool mounts; /* and the next new user gets his record elsewhere */
} damages[] = {
	{ "magic", 0, 0, 1, false },
	{ "version 0", 0, 1, 0, false },
	{ "no blocks", 0, BLOCKS_WORD, 1, false },
	{ "too many blocks", 0, BLOCKS_WORD, 0xFFFFFFFF, false },
	{ "more blocks than the file", 0, BLOCKS_WORD, 7, false },
	{ "list beyond the end", 0, FREE_ENTRY_WORD, 6, false },
	{ "reference beyond the end", 1, 0, 6, false },
	{ "reference to the header's number", 1, 9, 1, false },
	{ "node used twice", 1, 1, 2, false },
	{ "loop", 3, 1, 2, false },
	{ "leaf is a node", 4, 0, 3, false },
	{ "node is a leaf", 2, 0, 5, false },
	{ "leaf beyond the end", 4, 0, 99, false },
	{ "no record", 5, 4, 9, false },
	{ "reference without a record", 4, 1, 5, false },
	{ "usage", 5, 4 + 13, 0xFFFFFFFF, false },
	{ "list of nodes", 0, FREE_ENTRY_WORD, 2, true },
	{ "full leaf in the list", 5, 2, 14, true },
	{ "leaf with a wrong count in the list", 5, 2, 0, true },
	{ "loop in the list", 5, 0, 5, true },
	{ "the list goes on beyond the end", 5, 0, 6, true },
};

static void one_damage(u32 n, const u8 *good, u8 *block)
{
	struct sl_options opts = { .cache_bytes = 16 << 20, .errors = SL_ERRORS_CONTINUE };
	struct inode *inode;
	struct sl_cred cred = { 0x01020304, 0, 022 };
	int err;

	memcpy(mv.content, good, mv.size);
	SET(block, damages[n].word, damages[n].value);
	err = memvol_mount(&mv, &opts, &sb);
	if (!damages[n].mounts) {
		if (err != -EFSCORRUPTED)
			fail_msg("%s: %d", damages[n].name, err);
	} else {
		assert_int_equal(err, 0);
		assert_int_equal(sl_iget(sb, 2, &root), 0);
		assert_int_equal(sl_mknod(root, "x", 1, S_IFREG | 0644, 0, &cred, &inode),
				 0);
		assert_int_equal(inodes_of(EXT4_QUOTA_USR, cred.uid), 1);
		sl_iput(inode);
		end();
		begin(NULL);
		assert_int_equal(inodes_of(EXT4_QUOTA_USR, cred.uid), 1);
		assert_int_equal(inodes_of(EXT4_QUOTA_USR, 0), 2);
		end();
	}
	/* What can't be kept can be read. */
	memcpy(mv.content, good, mv.size);
	SET(block, damages[n].word, damages[n].value);
	opts.readonly = true;
	assert_int_equal(memvol_mount(&mv, &opts, &sb), 0);
	assert_int_equal(sl_unmount(sb), 0);
}

static void test_damaged_files(void **state)
{
	u8 *block[NR_BLOCKS], *good;

	memvol_make(&mv, QUOTA "1024", "8M");
	good = malloc(mv.size);
	assert_non_null(good);
	memcpy(good, mv.content, mv.size);
	quota_blocks(block);
	for (u32 i = 0; i < ARRAY_SIZE(damages); i++)
		one_damage(i, good, block[damages[i].block]);
	memcpy(mv.content, good, mv.size);
	free(good);
	memvol_end(&mv);
}

/* Inodes that can't be quota files. */
static void test_wrong_inodes(void **state)
{
	static const char *const commands[] = {
		"ssv usr_quota_inum 2",	     "ssv usr_quota_inum 11",
		"ssv grp_quota_inum 3",	     "ssv prj_quota_inum 8",
		"ssv prj_quota_inum 100000", "ssv prj_quota_inum 900",
		"sif <3> mode 040644",	     "sif <4> links_count 0",
		"sif <3> size 1024",
	};
	struct sl_options opts = { .cache_bytes = 16 << 20 };
	u8 *good;

	memvol_make(&mv, QUOTA "1024", "8M");
	good = malloc(mv.size);
	assert_non_null(good);
	memcpy(good, mv.content, mv.size);
	for (u32 i = 0; i < ARRAY_SIZE(commands); i++) {
		memcpy(mv.content, good, mv.size);
		memvol_debugfs(&mv, commands[i]);
		assert_int_equal(memvol_mount(&mv, &opts, &sb), -EFSCORRUPTED);
	}
	memcpy(mv.content, good, mv.size);
	free(good);
	memvol_end(&mv);
}

/* Somebody has a file, but no record: it is not counted, and nothing breaks. */
static void test_missing_record(void **state)
{
	struct inode *inode;

	begin(QUOTA "1024");
	sl_iput(create("file", 0, 0));
	end();
	memvol_debugfs(&mv, "sif file uid 4711");
	begin(NULL);
	assert_int_equal(sl_lookup(root, "file", 4, &inode), 0);
	write_file(inode, 0, 3000);
	assert_int_equal(inodes_of(EXT4_QUOTA_USR, 4711), 0);
	assert_int_equal(chown_to(inode, 0, 0), 0);
	assert_int_equal(sl_unlink(root, "file", 4), 0);
	sl_iput(inode);
	/* User 0 had the file in his record all the time. */
	assert_int_equal(inodes_of(EXT4_QUOTA_USR, 0), 3);
	sl_iput(root);
	assert_int_equal(sl_unmount(sb), 0);
	memvol_store(&mv);
	assert_int_not_equal(volume_fsck(&mv.v), 0);
	memvol_free(&mv);
	memset(&mv, 0, sizeof(mv));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_change_1k),
		cmocka_unit_test(test_each_change_4k),
		cmocka_unit_test(test_each_change_maps),
		cmocka_unit_test(test_inherited),
		cmocka_unit_test(test_many_users_1k),
		cmocka_unit_test(test_many_users_4k),
		cmocka_unit_test(test_many_users_maps),
		cmocka_unit_test(test_root_owns_nothing),
		cmocka_unit_test(test_limits_are_kept),
		cmocka_unit_test(test_power_cut),
		cmocka_unit_test(test_no_space_for_a_record),
		cmocka_unit_test(test_reserve_holds_records),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_damaged_files),
		cmocka_unit_test(test_wrong_inodes),
		cmocka_unit_test(test_missing_record),
	};
	int ret;

	thread_register();
	ret = cmocka_run_group_tests(tests, NULL, NULL);
	thread_unregister();
	return ret;
}
