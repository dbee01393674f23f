/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/sim/resource.c - failing requests for memory and space (see resource.h)
 *
 * Locks: none.
 */
#include "tests/sim/resource.h"

#include "fs/ext4.h"

#include <errno.h>
#include <execinfo.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

static struct {
	_Atomic u32 fail; /* 0: disarmed */
	_Atomic u32 count;
	_Atomic bool hit;
} state[RES_NR];
static _Thread_local int exempt;
bool resource_trace;

void resource_arm(enum resource res, u32 n)
{
	if (n) {
		atomic_store(&state[res].hit, false);
		atomic_store(&state[res].count, 0);
	}
	atomic_store(&state[res].fail, n);
}

u32 resource_count(enum resource res)
{
	return atomic_load(&state[res].count);
}

bool resource_hit(enum resource res)
{
	return atomic_load(&state[res].hit);
}

void resource_exempt_begin(void)
{
	exempt++;
}

void resource_exempt_end(void)
{
	exempt--;
}

/* Relaxed: the counters must not order the threads that TSan watches. */
static bool fail_now(enum resource res)
{
	u32 fail = atomic_load_explicit(&state[res].fail, memory_order_relaxed);

	if (!fail || exempt ||
	    atomic_fetch_add_explicit(&state[res].count, 1, memory_order_relaxed) + 1 != fail)
		return false;
	atomic_store(&state[res].hit, true);
	if (resource_trace) {
		void *frames[24];

		exempt++;
		backtrace_symbols_fd(frames, backtrace(frames, ARRAY_SIZE(frames)), 2);
		exempt--;
	}
	return true;
}

/* Declares __real_fn and __wrap_fn; the definition of the latter follows. */
#define WRAP(type, fn, ...)                \
	type __real_##fn(__VA_ARGS__);     \
	type __wrap_##fn(__VA_ARGS__);     \
	type __wrap_##fn(__VA_ARGS__)

/* ---- memory ---- */

WRAP(void *, malloc, size_t n)
{
	return fail_now(RES_MEMORY) ? NULL : __real_malloc(n);
}

WRAP(void *, calloc, size_t n, size_t each)
{
	return fail_now(RES_MEMORY) ? NULL : __real_calloc(n, each);
}

WRAP(void *, realloc, void *p, size_t n)
{
	return fail_now(RES_MEMORY) ? NULL : __real_realloc(p, n);
}

WRAP(void *, aligned_alloc, size_t align, size_t n)
{
	return fail_now(RES_MEMORY) ? NULL : __real_aligned_alloc(align, n);
}

WRAP(int, posix_memalign, void **p, size_t align, size_t n)
{
	return fail_now(RES_MEMORY) ? ENOMEM : __real_posix_memalign(p, align, n);
}

WRAP(void *, mmap64, void *at, size_t len, int prot, int flags, int fd, off64_t off)
{
	if (fail_now(RES_MEMORY)) {
		errno = ENOMEM;
		return MAP_FAILED;
	}
	return __real_mmap64(at, len, prot, flags, fd, off);
}

WRAP(int, pthread_create, pthread_t *t, const pthread_attr_t *attr, void *(*fn)(void *),
     void *arg)
{
	return fail_now(RES_MEMORY) ? ENOMEM : __real_pthread_create(t, attr, fn, arg);
}

WRAP(struct cds_lfht *, _cds_lfht_new, unsigned long size, unsigned long min,
     unsigned long max, int flags, const struct cds_lfht_mm_type *mm,
     const struct rcu_flavor_struct *flavor, pthread_attr_t *attr)
{
	return fail_now(RES_MEMORY)
		       ? NULL
		       : __real__cds_lfht_new(size, min, max, flags, mm, flavor, attr);
}

/* ---- space ---- */

WRAP(int, ext4_alloc_blocks, struct handle *h, struct ext4_sb *sbi, group_t hint,
     pblk_t goal, u32 flags, u32 *len, pblk_t *out)
{
	if (fail_now(RES_SPACE))
		return -ENOSPC;
	return __real_ext4_alloc_blocks(h, sbi, hint, goal, flags, len, out);
}

WRAP(int, ext4_reserve_blocks, struct ext4_sb *sbi, u32 n, bool root)
{
	return fail_now(RES_SPACE) ? -ENOSPC : __real_ext4_reserve_blocks(sbi, n, root);
}

WRAP(int, ext4_alloc_ino, struct handle *h, struct ext4_inode *dir, u32 mode, ino_nr *out)
{
	return fail_now(RES_SPACE) ? -ENOSPC : __real_ext4_alloc_ino(h, dir, mode, out);
}
