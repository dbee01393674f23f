/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lib/rcu.h - the one RCU flavour of the program: liburcu's membarrier flavour
 *
 * Every thread that enters a read-side section is created by thread_create()
 * (lib/thread.h) or calls thread_register(): these register it with RCU.
 * Never block inside a read-side section (thread_might_block() checks this in
 * debug builds). call_rcu() and synchronize_rcu() are liburcu's own; never
 * call synchronize_rcu() where a request waits.
 *
 * Include this header, never liburcu's: under ThreadSanitizer it replaces what
 * the tool cannot see through (lib/rcu_tsan.h). For plain shared words use C11
 * atomics; liburcu's uatomic_*() are assembly, which the tool cannot see.
 */
#ifndef SLUICE_LIB_RCU_H
#define SLUICE_LIB_RCU_H

#ifdef _URCU_POINTER_H
#error "include lib/rcu.h in place of liburcu's headers"
#endif

#if defined(__SANITIZE_THREAD__)
#define SLUICE_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SLUICE_TSAN 1
#endif
#endif

#ifndef RCU_MEMBARRIER
#define RCU_MEMBARRIER
#endif
/* Inline read side; GPL code may (it is "LGPL-compatible" in their words). */
#if !defined(SLUICE_TSAN) && !defined(_LGPL_SOURCE)
#define _LGPL_SOURCE
#endif
#include <urcu.h>
#ifdef SLUICE_TSAN
#include "lib/rcu_tsan.h" /* before the lists: they publish pointers inline */
#endif
#include <urcu/list.h>
#include <urcu/rculfhash.h>
#include <urcu/rculist.h>
#ifdef SLUICE_TSAN
#include "lib/rcu_tsan_lfht.h"
#endif

#endif
