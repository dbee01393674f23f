/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/sim/oom.c - failing allocations (see oom.h)
 *
 * Locks: none.
 */
#include "tests/sim/oom.h"

#include <stdatomic.h>
#include <stdlib.h>

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t each);
void *__real_realloc(void *p, size_t n);
int __real_posix_memalign(void **p, size_t align, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t each);
void *__wrap_realloc(void *p, size_t n);
int __wrap_posix_memalign(void **p, size_t align, size_t n);

static _Atomic s64 left = -1; /* until the failure; below 0: disarmed or done */
static _Atomic bool hit;
static _Thread_local int exempt;

void oom_arm(u32 n)
{
	atomic_store(&hit, false);
	atomic_store(&left, n ? (s64)n : -1);
}

bool oom_hit(void)
{
	return atomic_load(&hit);
}

void oom_exempt_begin(void)
{
	exempt++;
}

void oom_exempt_end(void)
{
	exempt--;
}

static bool fail_now(void)
{
	if (exempt || atomic_load_explicit(&left, memory_order_relaxed) < 0)
		return false;
	if (atomic_fetch_sub(&left, 1) != 1)
		return false;
	atomic_store(&left, -1);
	atomic_store(&hit, true);
	return true;
}

void *__wrap_malloc(size_t n)
{
	return fail_now() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t each)
{
	return fail_now() ? NULL : __real_calloc(n, each);
}

void *__wrap_realloc(void *p, size_t n)
{
	return fail_now() ? NULL : __real_realloc(p, n);
}

int __wrap_posix_memalign(void **p, size_t align, size_t n)
{
	return fail_now() ? ENOMEM : __real_posix_memalign(p, align, n);
}
