/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_discard.c - what is discarded is in use by nobody, also after a
 * crash; and who needs blocks that are just being discarded gets them
 *
 * The device writes rubbish over what is discarded, and can keep a discard waiting.
 */
#include "tests/unit/unit.h"
#include "tests/unit/fs/memvol.h"

#include "fs/ext4.h"
#include "lib/thread.h"
#include "lib/wait.h"

#include <stdatomic.h>
#include <sys/statvfs.h>

#define BLK 4096u
#define ROOM (512u * BLK)    /* what is free in one piece */
#define LONG_PIECE (250u * BLK)

static const struct sl_cred root_cred = { 0, 0, 022 };
static struct memvol mv;
static struct super_block *sb;
static struct inode *root;

static _Atomic u64 gate_least; /* discards of so much and more wait; key */
static _Atomic u32 waiting;    /* key */
static _Atomic u64 discarded;

static int rubbish(struct bdev *bd, u64 pos, u64 len)
{
	struct fake_bdev *fd = fake_of(bd);

	if (len >= atomic_load(&gate_least)) {
		atomic_fetch_add(&waiting, 1);
		wake_up(&waiting);
		wait_event(&gate_least, len < atomic_load(&gate_least));
	}
	pthread_mutex_lock(&fd->lock);
	memset(fd->mem + pos, 0xDD, len);
	pthread_mutex_unlock(&fd->lock);
	atomic_fetch_add(&discarded, len);
	return 0;
}

static void set_gate(u64 least)
{
	atomic_store(&gate_least, least);
	wake_up(&gate_least);
}

static const struct bdev_ops rubbish_ops = {
	.submit = fake_submit,
	.flush = fake_flush,
	.discard = rubbish,
	.close = memvol_close,
};

static void mount_it(bool discard)
{
	const struct sl_options opts = { .cache_bytes = 16 << 20,
					 .discard = discard,
					 .commit_ms = 600000,
					 .dirty_expire_ms = 600000 };
	struct bdev *bd = memvol_open(&mv);

	bd->bd_ops = &rubbish_ops;
	set_gate(UINT64_MAX);
	atomic_store(&waiting, 0);
	atomic_store(&discarded, 0);
	assert_int_equal(sl_mount(bd, &opts, &sb), 0);
	assert_int_equal(sl_iget(sb, 2, &root), 0);
}

static void unmount_it(void)
{
	sl_iput(root);
	assert_int_equal(sl_unmount(sb), 0);
}

static struct sl_file *open_file(const char *name, bool create)
{
	struct inode *inode;
	struct sl_file *f;

	if (create)
		CHECK(sl_mknod(root, name, strlen(name), S_IFREG | 0644, 0,
					  &root_cred, &inode) == 0);
	else
		CHECK(sl_lookup(root, name, strlen(name), &inode) == 0);
	CHECK(sl_open(inode, SL_OPEN_WRITE, &f) == 0);
	sl_iput(inode);
	return f;
}

static void fill(u8 *buf, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = (u8)rand_r(&seed);
}

static void write_pattern(struct sl_file *f, size_t len, unsigned seed)
{
	u8 *buf = malloc(len);

	fill(buf, len, seed);
	CHECK(sl_write(f, buf, len, 0, 0, &root_cred) == (ssize_t)len);
	free(buf);
}

static void check_pattern(struct sl_file *f, size_t len, unsigned seed)
{
	u8 *want = malloc(len), *got = malloc(len);

	fill(want, len, seed);
	CHECK(sl_read(f, got, len, 0) == (ssize_t)len);
	CHECK(!memcmp(got, want, len));
	free(want);
	free(got);
}

static u64 free_bytes(void)
{
	struct statvfs st;

	assert_int_equal(sl_statfs(sb, &st), 0);
	return st.f_bfree * BLK;
}

/* The file goes, and what it had is free: a thread may delete it later. */
static void unlink_wait(const char *name, u64 bytes)
{
	u64 before = free_bytes();

	assert_int_equal(sl_unlink(root, name, strlen(name)), 0);
	while (free_bytes() < before + bytes)
		sched_yield();
}

static void trim_all(void *arg)
{
	u64 trimmed;

	CHECK(sl_trim(sb, 0, UINT64_MAX, 0, &trimmed, NULL, NULL) == 0);
}

/* What an unlink freed that has not been committed is the file's, after a crash. */
static void test_uncommitted(void **state)
{
	const bool online = *state != NULL;
	struct sl_file *f;
	u8 *crash;

	memvol_make(&mv, "-b 4096 -m 0 -J size=4 -O ^resize_inode", "32M");
	mount_it(online);
	f = open_file("f", true);
	write_pattern(f, ROOM, 1);
	assert_int_equal(sl_fsync(f, false), 0);
	assert_int_equal(sl_sync(sb), 0);
	sl_release(f);
	unlink_wait("f", ROOM);
	trim_all(NULL);
	assert_true(atomic_load(&discarded) > 0);
	crash = malloc(mv.size);
	memvol_snapshot(&mv, crash);
	/* Once it is committed it goes, by one way or the other. */
	assert_int_equal(sl_sync(sb), 0);
	ext4_discard_wait(EXT4_SB(sb));
	if (!online)
		trim_all(NULL);
	assert_true(atomic_load(&discarded) >= ROOM);
	unmount_it();
	assert_int_equal(memvol_fsck(&mv), 0);

	memcpy(mv.content, crash, mv.size);
	free(crash);
	mount_it(online);
	f = open_file("f", false);
	check_pattern(f, ROOM, 1);
	sl_release(f);
	unmount_it();
	assert_int_equal(memvol_fsck(&mv), 0);
	memvol_free(&mv);
}

static void sync_it(void *arg)
{
	_Atomic int *result = arg;

	atomic_store(result, sl_sync(sb));
}

/*
 * Nearly all that is free is being discarded, and delayed data needs it: the write-out
 * waits for the discard, and loses nothing.
 */
static void test_needed(void **state)
{
	const bool online = *state != NULL;
	struct thread *trimmer = NULL, *syncer;
	_Atomic int result = 1;
	struct sl_file *f, *all;
	u64 pos = 0, commits;
	int err;

	memvol_make(&mv, "-b 4096 -m 0 -J size=4 -O ^resize_inode", "32M");
	mount_it(online);
	f = open_file("room", true);
	assert_int_equal(sl_fallocate(f, 0, 0, ROOM, &root_cred), 0);
	sl_release(f);
	f = open_file("f", true);
	all = open_file("all", true);
	for (u64 len = 1 << 20; len >= BLK;) {
		err = sl_fallocate(all, 0, pos, len, &root_cred);
		if (err)
			assert_int_equal(err, -ENOSPC);
		if (err)
			len /= 2;
		else
			pos += len;
	}
	sl_release(all);
	assert_int_equal(sl_sync(sb), 0);
	assert_true(free_bytes() < LONG_PIECE);

	if (online)
		set_gate(LONG_PIECE);
	unlink_wait("room", ROOM);
	assert_int_equal(sl_sync(sb), 0);
	if (!online) {
		set_gate(LONG_PIECE);
		assert_int_equal(thread_create(&trimmer, "trimmer", trim_all, NULL), 0);
	}
	wait_event(&waiting, atomic_load(&waiting) == 1);
	/* From here on: the flusher may begin with the write-out before the syncer does. */
	commits = journal_stats(EXT4_SB(sb)->journal)->commits;
	write_pattern(f, ROOM - 32 * BLK, 2);
	assert_int_equal(thread_create(&syncer, "syncer", sync_it, &result), 0);
	/* It has found nothing, and asked for a commit; it waits, or will. */
	while (journal_stats(EXT4_SB(sb)->journal)->commits == commits &&
	       atomic_load(&result) == 1)
		sched_yield();
	usleep(20000);
	set_gate(UINT64_MAX);
	thread_join(syncer);
	if (trimmer)
		thread_join(trimmer);
	assert_int_equal(atomic_load(&result), 0);
	check_pattern(f, ROOM - 32 * BLK, 2);
	sl_release(f);
	unmount_it();
	assert_int_equal(memvol_fsck(&mv), 0);
	mount_it(false);
	f = open_file("f", false);
	check_pattern(f, ROOM - 32 * BLK, 2);
	sl_release(f);
	unmount_it();
	memvol_free(&mv);
}

/* ---- several at once ---- */

#define WORKERS 3
#define ROUNDS 18
#define FILE_MAX (768u << 10)

static _Atomic bool ended;

static void trim_on(void *arg)
{
	while (!atomic_load(&ended)) {
		trim_all(NULL);
		usleep(1000);
	}
}

/* Two files, by turns: written anew, removed, or cut; what is left is checked. */
static void work(void *arg)
{
	unsigned id = (unsigned)(uintptr_t)arg, seed = id;
	size_t len[2] = { 0 };
	unsigned content[2] = { 0 };
	char name[2][16];

	for (int i = 0; i < 2; i++)
		snprintf(name[i], sizeof(name[i]), "w%u-%d", id, i);
	for (int n = 0; n < ROUNDS; n++) {
		int i = n & 1;
		struct sl_file *f;

		if (len[i]) {
			f = open_file(name[i], false);
			if (n % 7 == 0)
				sl_drop_caches_of(sb, SL_DROP_DATA);
			check_pattern(f, len[i], content[i]);
			sl_release(f);
			CHECK(sl_unlink(root, name[i], strlen(name[i])) == 0);
		}
		len[i] = 1 + (size_t)rand_r(&seed) % FILE_MAX;
		content[i] = id * 1000 + (unsigned)n;
		f = open_file(name[i], true);
		write_pattern(f, len[i], content[i]);
		if (n % 3 == 0)
			CHECK(sl_fsync(f, false) == 0);
		sl_release(f);
	}
	for (int i = 0; i < 2; i++) {
		struct sl_file *f = open_file(name[i], false);

		CHECK(sl_fsync(f, false) == 0);
		check_pattern(f, len[i], content[i]);
		sl_release(f);
	}
}

static void test_beside(void **state)
{
	struct thread *t[WORKERS], *trimmer;

	memvol_make(&mv, "-b 4096 -m 0 -J size=4 -O ^resize_inode", "16M");
	mount_it(true);
	atomic_store(&ended, false);
	assert_int_equal(thread_create(&trimmer, "trimmer", trim_on, NULL), 0);
	for (uintptr_t i = 0; i < WORKERS; i++)
		assert_int_equal(thread_create(&t[i], "worker", work, (void *)(i + 1)), 0);
	for (int i = 0; i < WORKERS; i++)
		thread_join(t[i]);
	atomic_store(&ended, true);
	thread_join(trimmer);
	assert_int_equal(sl_sync(sb), 0);
	unmount_it();
	assert_int_equal(memvol_fsck(&mv), 0);
	memvol_free(&mv);
}

int main(void)
{
	static int online;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_prestate(test_uncommitted, NULL),
		cmocka_unit_test_prestate(test_uncommitted, &online),
		cmocka_unit_test_prestate(test_needed, NULL),
		cmocka_unit_test_prestate(test_needed, &online),
		cmocka_unit_test(test_beside),
	};

	return cmocka_run_group_tests(tests, unit_setup, NULL);
}
