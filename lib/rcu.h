/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lib/rcu.h - the one RCU flavour of the program: liburcu's membarrier flavour
 *
 * Every thread that enters a read-side section is created by thread_create()
 * (lib/thread.h) or calls thread_register(): these register it with RCU.
 * Never block inside a read-side section (thread_might_block() checks this in
 * debug builds). call_rcu() and synchronize_rcu() are liburcu's own; never
 * call synchronize_rcu() where a request waits.
 */
#ifndef SLUICE_LIB_RCU_H
#define SLUICE_LIB_RCU_H

#ifndef RCU_MEMBARRIER
#define RCU_MEMBARRIER
#endif
#include <urcu.h>
#include <urcu/list.h>
#include <urcu/rculfhash.h>
#include <urcu/rculist.h>

#endif
