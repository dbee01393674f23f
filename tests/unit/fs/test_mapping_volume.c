/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/unit/fs/test_mapping_volume.c - large block maps on real volumes
 *
 * A file in thousands of pieces, written in random order, preallocated over,
 * written into, cut and deleted; and files with the block maps of ext3, as
 * debugfs writes them. Content is compared with a model, the volume checked by
 * e2fsck, at each stage after an unmount.
 */
#include "tests/unit/unit.h"
#include "tests/unit/fs/volume.h"

static const struct sl_cred root_cred = { 0, 0, 022 };
static struct volume vol;
static struct super_block *sb;
static struct sl_file *file;
static u8 *want; /* content of the file */
static size_t size;
static u32 rnd_state = 1;

static u32 rnd(u32 n)
{
	rnd_state = rnd_state * 1664525 + 1013904223;
	return (rnd_state >> 8) % n;
}

static void open_file(const char *name, bool create)
{
	struct sl_options opts = { 0 };
	struct inode *root, *inode;

	assert_int_equal(volume_mount(&vol, &opts, &sb), 0);
	assert_int_equal(sl_iget(sb, 2, &root), 0);
	if (create)
		assert_int_equal(sl_mknod(root, name, strlen(name), S_IFREG | 0644, 0,
					  &root_cred, &inode), 0);
	else
		assert_int_equal(sl_lookup(root, name, strlen(name), &inode), 0);
	assert_int_equal(sl_open(inode, SL_OPEN_WRITE, &file), 0);
	sl_iput(inode);
	sl_iput(root);
}

static void check_content(void)
{
	static u8 buf[1 << 20];
	struct stat st;

	sl_getattr(sl_file_inode(file), &st);
	assert_int_equal(st.st_size, size);
	for (size_t pos = 0; pos < size;) {
		ssize_t n = sl_read(file, buf, sizeof(buf), pos);

		assert_true(n > 0);
		assert_memory_equal(buf, want + pos, (size_t)n);
		pos += (size_t)n;
	}
}

static void unmount_and_fsck(void)
{
	sl_release(file);
	file = NULL;
	assert_int_equal(sl_unmount(sb), 0);
	assert_int_equal(volume_fsck(&vol), 0);
}

static void again(const char *name)
{
	check_content();
	unmount_and_fsck();
	open_file(name, false);
	check_content();
}

static void write_at(size_t pos, size_t len)
{
	for (size_t i = 0; i < len; i++)
		want[pos + i] = (u8)rnd(256);
	assert_int_equal(sl_write(file, want + pos, len, pos, 0, &root_cred), (ssize_t)len);
	if (pos + len > size)
		size = pos + len;
}

static void truncate_to(size_t to)
{
	struct stat st = { .st_size = (off_t)to };

	assert_int_equal(sl_setattr(sl_file_inode(file), &st, SL_SET_SIZE, &root_cred, NULL),
			 0);
	if (to < size)
		memset(want + to, 0, size - to);
	size = to;
}

static void delete_file(const char *name)
{
	struct inode *root;

	assert_int_equal(sl_iget(sb, 2, &root), 0);
	assert_int_equal(sl_unlink(root, name, strlen(name)), 0);
	sl_iput(root);
	unmount_and_fsck();
}

static void fragmented(const char *mkfs_args, size_t bs, u32 pieces)
{
	u32 *order = malloc(pieces * sizeof(*order));

	size = 0;
	want = calloc(2 * pieces + 2, bs);
	volume_make(&vol, mkfs_args, "96M");
	open_file("f", true);
	/* Every second block, in random order, with commits between. */
	for (u32 i = 0; i < pieces; i++)
		order[i] = i;
	for (u32 i = pieces - 1; i > 0; i--) {
		u32 k = rnd(i + 1), t = order[i];

		order[i] = order[k];
		order[k] = t;
	}
	for (u32 i = 0; i < pieces; i++) {
		write_at(2 * order[i] * bs, bs);
		if (i % 1000 == 999)
			assert_int_equal(sl_fsync(file, false), 0);
	}
	again("f");
	/* The holes become unwritten extents, and some of these are written. */
	assert_int_equal(sl_fallocate(file, 0, 0, 2 * pieces * bs, &root_cred), 0);
	size = 2 * pieces * bs;
	again("f");
	for (u32 i = 0; i < pieces / 4; i++)
		write_at((2 * rnd(pieces) + 1) * bs + rnd((u32)bs / 2), bs / 2);
	again("f");
	truncate_to(size / 2 + 123);
	again("f");
	truncate_to(size / 20);
	again("f");
	write_at(size, 100000);
	again("f");
	delete_file("f");
	volume_free(&vol);
	free(want);
	free(order);
}

static void test_fragmented_1k(void **state)
{
	fragmented("-b 1024 -O ^resize_inode", 1024, 6000);
}

static void test_fragmented_4k(void **state)
{
	fragmented("-b 4096", 4096, 2500);
}

/* debugfs copies a sparse file into a volume without extents. */
static void test_block_maps(void **state)
{
	char path[160], cmd[400];
	FILE *f;

	size = 20 << 20;
	want = calloc(1, size + (1 << 20));
	volume_make(&vol, "-b 1024 -O ^extents,^64bit,^flex_bg,^metadata_csum", "64M");
	snprintf(path, sizeof(path), "%s/src", vol.dir);
	f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(ftruncate(fileno(f), (off_t)size), 0);
	for (u32 i = 0; i < 300; i++) {
		size_t len = 1 + rnd(30000), pos = rnd((u32)(size - len));

		for (size_t k = 0; k < len; k++)
			want[pos + k] = (u8)rnd(256);
		fseek(f, (long)pos, SEEK_SET);
		assert_int_equal(fwrite(want + pos, 1, len, f), len);
	}
	fclose(f);
	snprintf(cmd, sizeof(cmd), "debugfs -w -R 'write %s f' %s >/dev/null 2>&1", path,
		 vol.image);
	assert_int_equal(system(cmd), 0);
	unlink(path);
	snprintf(cmd, sizeof(cmd), "tune2fs -O extents %s >/dev/null", vol.image);
	assert_int_equal(system(cmd), 0);
	assert_int_equal(volume_fsck(&vol), 0);

	open_file("f", false);
	again("f");
	truncate_to(size - 5000001);
	again("f");
	truncate_to(300 * 1024 + 5);
	again("f");
	truncate_to(5000);
	again("f");
	delete_file("f");
	volume_free(&vol);
	free(want);
}

static int setup(void **state)
{
	thread_register();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fragmented_1k),
		cmocka_unit_test(test_fragmented_4k),
		cmocka_unit_test(test_block_maps),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
