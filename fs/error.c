/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/error.c - what happens when the volume is found damaged or can't be written
 *
 * One line in the log, a record for the superblock, and the errors= policy.
 * With "continue" the record goes into the superblock through the journal (at
 * the next commit, ext4_error_fill_super()). Otherwise the journal is aborted
 * first: then nothing else reaches the disk, and the record is written
 * straight into the superblock *as it is on disk* - never the one in memory,
 * which may hold changes of a transaction that will not commit - and not before a
 * checkpoint that had begun, which may have it too, has ended.
 *
 * Locks:   err_lock (innermost). Sleeps for I/O: not to be called under a lock
 *          from RANK_I_MMAP inwards, nor by the journal's thread between journal_place_begin()
 *          and _end(), for which it waits.
 * Source:  ext4-format brief 13.4.
 */
#include "fs/ext4.h"
#include "lib/crc.h"
#include "lib/thread.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Codes of s_first_error_errcode, as the kernel writes them. */
static u8 disk_errcode(int error)
{
	switch (-error) {
	case EIO:
		return 2;
	case ENOMEM:
		return 3;
	case EFSBADCRC:
		return 4;
	case EFSCORRUPTED:
		return 5;
	case ENOSPC:
		return 6;
	case EROFS:
		return 8;
	default:
		return 1;
	}
}

static void record(struct ext4_sb *sbi, const char *func, int line, ino_nr ino,
		   pblk_t blk, int error)
{
	struct ext4_error_record r = {
		.time_s = (u64)time(NULL),
		.ino = ino,
		.blk = blk,
		.line = (u32)line,
		.error = error,
	};

	snprintf(r.func, sizeof(r.func), "%s", func);
	spin_lock(&sbi->err_lock);
	if (!sbi->err_first.time_s)
		sbi->err_first = r;
	sbi->err_last = r;
	sbi->err_count++;
	spin_unlock(&sbi->err_lock);
	atomic_store(&sbi->error_seen, true);
}

static void fill_first(struct ext4_super_block *es,
		       const struct ext4_error_record *r)
{
	es->s_first_error_time = cpu_to_le32((u32)r->time_s);
	es->s_first_error_time_hi = (u8)(r->time_s >> 32);
	es->s_first_error_ino = cpu_to_le32(r->ino);
	es->s_first_error_block = cpu_to_le64(r->blk);
	es->s_first_error_line = cpu_to_le32(r->line);
	es->s_first_error_errcode = disk_errcode(r->error);
	memset(es->s_first_error_func, 0, sizeof(es->s_first_error_func));
	memcpy(es->s_first_error_func, r->func,
	       strnlen(r->func, sizeof(es->s_first_error_func)));
}

static void fill_last(struct ext4_super_block *es,
		      const struct ext4_error_record *r)
{
	es->s_last_error_time = cpu_to_le32((u32)r->time_s);
	es->s_last_error_time_hi = (u8)(r->time_s >> 32);
	es->s_last_error_ino = cpu_to_le32(r->ino);
	es->s_last_error_block = cpu_to_le64(r->blk);
	es->s_last_error_line = cpu_to_le32(r->line);
	es->s_last_error_errcode = disk_errcode(r->error);
	memset(es->s_last_error_func, 0, sizeof(es->s_last_error_func));
	memcpy(es->s_last_error_func, r->func,
	       strnlen(r->func, sizeof(es->s_last_error_func)));
}

/* Puts what is recorded into es; consume: it need not be written again. */
static void fill(struct ext4_sb *sbi, struct ext4_super_block *es, bool consume)
{
	spin_lock(&sbi->err_lock);
	if (sbi->err_last.time_s) {
		es->s_state =
			cpu_to_le16(le16_to_cpu(es->s_state) | EXT4_ERROR_FS);
		if (!le32_to_cpu(es->s_error_count))
			fill_first(es, &sbi->err_first);
		fill_last(es, &sbi->err_last);
		es->s_error_count = cpu_to_le32(
			le32_to_cpu(es->s_error_count) + sbi->err_count);
		if (consume)
			sbi->err_count = 0;
	}
	spin_unlock(&sbi->err_lock);
}

void ext4_error_fill_super(struct ext4_sb *sbi)
{
	fill(sbi, sbi->es, true);
}

void ext4_error_write_super(struct ext4_sb *sbi)
{
	u32 unit = max_of(sbi->bdev->bd_sector, 1024u);
	u64 pos = ALIGN_DOWN((u64)EXT4_SUPER_OFFSET, (u64)unit);
	u8 *buf = io_alloc(unit);
	int err;

	if (!buf)
		return;
	err = bdev_read(sbi->bdev, pos, buf, unit);
	if (!err) {
		struct ext4_super_block *es =
			(void *)(buf + (EXT4_SUPER_OFFSET - pos));

		if (le16_to_cpu(es->s_magic) == EXT4_SUPER_MAGIC) {
			fill(sbi, es, true);
			ext4_super_csum_set(sbi, es);
			err = bdev_write(sbi->bdev, pos, buf, unit, BIO_FUA);
		}
	}
	if (err)
		log_err("%s: the error could not be recorded in the superblock: %s",
			sbi->s.s_id, strerror(-err));
	io_free(buf);
}

/* The volume takes no more changes. Once; the first caller writes the record. */
static void go_readonly(struct ext4_sb *sbi)
{
	bool was = atomic_exchange(&sbi->aborted, true);

	atomic_store(&sbi->s.s_rdonly, true);
	if (was)
		return;
	log_err("%s: remounting filesystem read-only", sbi->s.s_id);
	/* A checkpoint that is under way may have the superblock as it was committed. */
	if (sbi->journal)
		journal_wait_places(sbi->journal);
	ext4_error_write_super(sbi);
	if (sbi->errors_policy == EXT4_ERRORS_PANIC) {
		log_err("%s: errors=panic: the daemon ends", sbi->s.s_id);
		_exit(70);
	}
}

void ext4_on_journal_abort(struct ext4_sb *sbi, int error)
{
	if (error == -ESHUTDOWN) { /* by will */
		atomic_store(&sbi->aborted, true);
		atomic_store(&sbi->s.s_rdonly, true);
		return;
	}
	if (!atomic_load(&sbi->error_seen))
		record(sbi, "journal", 0, sbi->journal_ino, 0, error);
	go_readonly(sbi);
}

int ext4_error_at(struct ext4_sb *sbi, const char *func, int line, ino_nr ino,
		  pblk_t blk, int error, const char *fmt, ...)
{
	char text[256], where[64] = "";
	va_list ap;
	size_t n = 0;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (ino)
		n = (size_t)snprintf(where, sizeof(where), " inode #%u:", ino);
	if (blk)
		snprintf(where + n, sizeof(where) - n, " block %llu:",
			 (unsigned long long)blk);
	/* After the first errors the rest are mostly echoes of them. */
	static struct log_ratelimit rl;
	if (log_ratelimit_ok(&rl, 20, 5))
		log_err("%s: error in %s:%d:%s %s (%s)", sbi->s.s_id, func,
			line, where, text, strerror(-error));

	if (atomic_load(&sbi->aborted))
		return error;
	record(sbi, func, line, ino, blk, error);
	/* Nothing is written on a read-only mount (also: not mounted yet). */
	if (!sbi->journal || atomic_load(&sbi->s.s_rdonly))
		return error;
	if (sbi->errors_policy == EXT4_ERRORS_CONTINUE)
		return error;
	thread_might_block();
	journal_abort(sbi->journal, error); /* calls ext4_on_journal_abort() */
	go_readonly(sbi);
	return error;
}

int ext4_bread(struct ext4_sb *sbi, pblk_t blk, ino_nr ino,
	       const struct buffer_type *type, u32 seed, struct buffer **out)
{
	int err = buffer_read(&sbi->s, blk, type, seed, out);

	if (err && err != -ENOMEM)
		ext4_error(sbi, ino, blk, err, "%s block: %s", type->name,
			   err == -EFSBADCRC	  ? "checksum is wrong"
			   : err == -EFSCORRUPTED ? "content is not valid"
						  : "cannot be read");
	return err;
}
