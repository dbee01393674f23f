/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lib/mem.c - memory for those who must not fail half-way
 *
 * Locks: none.
 */
#include "lib/mem.h"

#include "lib/thread.h"

#include <stdlib.h>
#include <time.h>

#define MAX_TRIES 10

bool mem_pause(int *tries)
{
	struct timespec ts = { .tv_nsec = 1000000l << *tries };

	if (*tries >= MAX_TRIES)
		return false;
	(*tries)++;
	thread_might_block();
	thread_blocks_begin();
	nanosleep(&ts, NULL);
	thread_blocks_end();
	return true;
}

void *malloc_patient(size_t bytes)
{
	int tries = 0;
	void *p;

	do {
		p = malloc(bytes);
	} while (!p && mem_pause(&tries));
	return p;
}

void *calloc_patient(size_t n, size_t bytes)
{
	int tries = 0;
	void *p;

	do {
		p = calloc(n, bytes);
	} while (!p && mem_pause(&tries));
	return p;
}
