/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/mmp.c - multiple mount protection: one writer of a volume at a time
 *
 * A volume that several machines can reach has one block (s_mmp_block) that
 * tells who has it mounted. A number in it says that nobody has (CLEAN), that
 * e2fsck is at it (FSCK), or, any other, that a mount counts it up at every
 * interval. Who finds a count waits for longer than its owner may stay silent:
 *
 *   start:  count found -> wait -> has it moved? then the volume is in use
 *           write a count of our own, drawn at random -> wait as long again ->
 *           is it still ours? (two may start at once: the last one to write wins)
 *   thread: count up at each interval; when a write came late, look first whether
 *           another took us for dead
 *   stop:   CLEAN
 *
 * The thread goes on after an error made the volume read-only: an e2fsck must
 * not start while it is mounted. But not when it was shut down: that may be because the
 * device is another's by now; and then CLEAN is written only over our own count. Once another owns the volume nothing more is
 * written to this block, and the journal is aborted, whatever errors= says.
 *
 * Locks:   none; the block belongs to who starts, then to the thread, then to who stops
 * Threads: the mounting thread; sl-mmp
 * Source:  ext4-format brief 1.2; the layout in fs/ext4_format.h
 */
#include "fs/ext4.h"
#include "lib/crc.h"
#include "lib/log.h"
#include "lib/thread.h"
#include "lib/wait.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/utsname.h>
#include <time.h>

#define CHECK_MIN 5u /* s */
#define CHECK_MAX 300u
#define CHECK_MULT 2u
#define WAIT_EXTRA_MAX 60u /* s: at most this much longer than the interval */
#define WAIT_SAID 2u       /* s: a wait from this on is announced */

struct ext4_mmp {
	struct ext4_sb *sbi;
	struct thread *thread;
	_Atomic bool stop; /* [atomic] wait key */
	u32 interval;      /* s, between two counts [const] */
	/* Of the volume, whose superblock the mount decodes anew after recovery,
	 * while the thread is at work already. [const] */
	pblk_t blk;
	u32 blocksize, csum_seed;
	bool has_csum;
	u32 seq;           /* the count that we wrote last, for sure */
	u8 *block;         /* of s_blocksize; as on disk after a read or write */
	struct ext4_mmp_struct *mmp; /* in it */
	bool lost;         /* another owns the volume */
	char nodename[64], bdevname[32]; /* as on disk: not always with a 0 */
};

u64 ext4_mmp_second_ns = 1000000000ull;

static u32 mmp_csum(const struct ext4_mmp *m)
{
	return crc32c(m->csum_seed, m->mmp, offsetof(struct ext4_mmp_struct, mmp_checksum));
}

static int mmp_read(struct ext4_mmp *m)
{
	struct ext4_sb *sbi = m->sbi;
	pblk_t blk = m->blk;
	int err = bdev_read(sbi->device, blk * m->blocksize, m->block, m->blocksize);

	if (err)
		return ext4_error(sbi, 0, blk, err, "MMP block: cannot be read");
	if (le32_to_cpu(m->mmp->mmp_magic) != EXT4_MMP_MAGIC)
		return ext4_error(sbi, 0, blk, -EFSCORRUPTED, "MMP block: no such magic number");
	if (m->has_csum && le32_to_cpu(m->mmp->mmp_checksum) != mmp_csum(m))
		return ext4_error(sbi, 0, blk, -EFSBADCRC, "MMP block: checksum is wrong");
	return 0;
}

/* Writes the block with this count. */
static int mmp_write(struct ext4_mmp *m, u32 seq, u32 check)
{
	struct ext4_mmp_struct *mmp = m->mmp;

	mmp->mmp_seq = cpu_to_le32(seq);
	mmp->mmp_time = cpu_to_le64((u64)time(NULL));
	memcpy(mmp->mmp_nodename, m->nodename, sizeof(mmp->mmp_nodename));
	memcpy(mmp->mmp_bdevname, m->bdevname, sizeof(mmp->mmp_bdevname));
	mmp->mmp_check_interval = cpu_to_le16((u16)check);
	if (m->has_csum)
		mmp->mmp_checksum = cpu_to_le32(mmp_csum(m));
	return bdev_write(m->sbi->device, m->blk * m->blocksize, m->block, m->blocksize, BIO_FUA);
}

static u32 next_seq(const struct ext4_mmp *m)
{
	return m->seq >= EXT4_MMP_SEQ_MAX ? 1 : m->seq + 1;
}

static u32 check_interval(u32 s)
{
	return min_of(max_of(s, CHECK_MIN), CHECK_MAX);
}

static void sleep_s(struct ext4_mmp *m, u32 s)
{
	wait_event_deadline(&m->stop, atomic_load(&m->stop),
			    clock_mono_ns() + s * ext4_mmp_second_ns);
}

static u32 new_seq(void)
{
	u32 seq;

	if (getrandom(&seq, sizeof(seq), 0) != sizeof(seq))
		seq = (u32)clock_mono_ns();
	return 1 + seq % EXT4_MMP_SEQ_MAX;
}

static int refuse(struct ext4_mmp *m, const char *why)
{
	log_err("%s: %s; its MMP block was last written by %.64s, device %.32s",
		m->sbi->s.s_id, why, m->mmp->mmp_nodename, m->mmp->mmp_bdevname);
	return -EBUSY;
}

/* Waits, then: is the count still `seq`? */
static int wait_still(struct ext4_mmp *m, u32 wait, u32 seq)
{
	int err;

	if (wait)
		sleep_s(m, wait);
	err = mmp_read(m);
	if (!err && le32_to_cpu(m->mmp->mmp_seq) != seq)
		err = refuse(m, "the volume is mounted elsewhere already");
	return err;
}

static int claim(struct ext4_mmp *m)
{
	u32 check = max_of(m->interval, CHECK_MIN), wait = 0, seq;
	int err = mmp_read(m);

	if (err)
		return err;
	check = check_interval(max_of(check, (u32)le16_to_cpu(m->mmp->mmp_check_interval)));
	seq = le32_to_cpu(m->mmp->mmp_seq);
	if (seq == EXT4_MMP_SEQ_FSCK)
		return refuse(m, "e2fsck is running on the volume");
	if (seq != EXT4_MMP_SEQ_CLEAN) {
		wait = min_of(check * CHECK_MULT + 1, check + WAIT_EXTRA_MAX);
		if (wait >= WAIT_SAID)
			log_warn("%s: it may be mounted elsewhere: waiting %u s twice to find out (MMP)",
				 m->sbi->s.s_id, wait);
		err = wait_still(m, wait, seq);
		if (err)
			return err;
	}
	seq = new_seq();
	err = mmp_write(m, seq, check_interval(m->interval * CHECK_MULT));
	if (err) {
		log_err("%s: the MMP block can't be written: %s", m->sbi->s.s_id,
			strerror(-err));
		return err;
	}
	m->seq = seq;
	return wait_still(m, wait, seq);
}

/* Is what was read last our own? */
static bool says_us(const struct ext4_mmp *m)
{
	u32 seq = le32_to_cpu(m->mmp->mmp_seq);

	return (seq == m->seq || seq == next_seq(m)) &&
	       !memcmp(m->mmp->mmp_nodename, m->nodename, sizeof(m->nodename));
}

/*
 * After a silence in which another may have taken us for dead. A write that failed
 * may have reached the disk; it is repeated with the same count until it succeeds.
 */
static bool still_ours(struct ext4_mmp *m)
{
	int err = mmp_read(m);

	if (err)
		return true; /* it was reported; nothing says that it is another's */
	if (says_us(m))
		return true;
	m->lost = true;
	(void)ext4_error(m->sbi, 0, m->blk, -EBUSY,
			 "MMP block: %.64s has mounted the volume, too", m->mmp->mmp_nodename);
	if (m->sbi->journal)
		journal_abort(m->sbi->journal, -EBUSY);
	return false;
}

static void mmp_main(void *arg)
{
	struct ext4_mmp *m = arg;
	u32 check = check_interval(m->interval * CHECK_MULT);
	u64 written = clock_mono_ns();
	bool failed = false;

	for (;;) {
		u64 silent;
		int err;

		sleep_s(m, m->interval);
		if (atomic_load(&m->stop) || atomic_load(&m->sbi->shut_down))
			return;
		if (clock_mono_ns() - written > check * ext4_mmp_second_ns && !still_ours(m))
			return;
		err = mmp_write(m, next_seq(m), check);
		if (err && !failed)
			log_err("%s: the MMP block can't be written: %s", m->sbi->s.s_id,
				strerror(-err));
		failed = err;
		if (err)
			continue;
		m->seq = next_seq(m);
		/* A slow device: others are told to wait longer for us. */
		silent = (clock_mono_ns() - written) / ext4_mmp_second_ns;
		check = check_interval((u32)min_of(max_of(silent, (u64)m->interval),
						   (u64)CHECK_MAX) * CHECK_MULT);
		written = clock_mono_ns();
	}
}

static void mmp_free(struct ext4_mmp *m)
{
	io_free(m->block);
	free(m);
}

int ext4_mmp_start(struct ext4_sb *sbi)
{
	u64 blk = le64_to_cpu(sbi->disk_es.s_mmp_block);
	const char *name = strrchr(sbi->s.s_id, '/');
	struct utsname uts;
	struct ext4_mmp *m;
	int err;

	if (blk <= sbi->first_data_block || blk >= sbi->blocks_count) {
		log_err("%s: MMP block %llu is outside of the volume", sbi->s.s_id,
			(unsigned long long)blk);
		return -EFSCORRUPTED;
	}
	m = calloc(1, sizeof(*m));
	if (!m)
		return -ENOMEM;
	m->sbi = sbi;
	m->blk = blk;
	m->blocksize = sbi->s.s_blocksize;
	m->has_csum = sbi->has_csum;
	m->csum_seed = sbi->csum_seed;
	m->interval = max_of((u32)le16_to_cpu(sbi->disk_es.s_mmp_update_interval), 1u);
	m->interval = min_of(m->interval, CHECK_MAX);
	m->block = io_alloc(sbi->s.s_blocksize);
	m->mmp = (void *)m->block;
	if (!m->block) {
		mmp_free(m);
		return -ENOMEM;
	}
	if (!uname(&uts))
		memcpy(m->nodename, uts.nodename,
		       strnlen(uts.nodename, sizeof(m->nodename)));
	name = name ? name + 1 : sbi->s.s_id;
	memcpy(m->bdevname, name, strnlen(name, sizeof(m->bdevname)));
	err = claim(m);
	if (!err) {
		err = thread_create(&m->thread, "sl-mmp", mmp_main, m);
		if (err)
			(void)!mmp_write(m, EXT4_MMP_SEQ_CLEAN, CHECK_MIN);
	}
	if (err) {
		mmp_free(m);
		return err;
	}
	sbi->mmp = m;
	return 0;
}

void ext4_mmp_stop(struct ext4_sb *sbi)
{
	struct ext4_mmp *m = sbi->mmp;
	int err = 0;

	if (!m)
		return;
	sbi->mmp = NULL;
	atomic_store(&m->stop, true);
	wake_up(&m->stop);
	thread_join(m->thread);
	if (atomic_load(&m->sbi->shut_down) && !m->lost)
		m->lost = mmp_read(m) || !says_us(m);
	if (!m->lost)
		err = mmp_write(m, EXT4_MMP_SEQ_CLEAN, check_interval(m->interval * CHECK_MULT));
	if (err)
		log_err("%s: the MMP block can't be written: %s", sbi->s.s_id, strerror(-err));
	mmp_free(m);
}
