/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lib/rcu_tsan.h - tells ThreadSanitizer what RCU orders; lib/rcu.h only
 *
 * liburcu 0.13 is not instrumented and has no annotations, so the tool sees
 * neither publication nor grace periods and reports both as races. Here:
 *  - publish and dereference become compiler atomics, which it understands;
 *  - the end of a read-side section releases one global token which each
 *    callback and the end of synchronize_rcu() acquire: what a reader did
 *    comes before what a callback does;
 *  - call_rcu() releases its object, the callback acquires it; callbacks
 *    release a token that rcu_barrier() acquires.
 * The global token orders a little more than RCU does: a reader that began
 * after the grace period ended counts as ordered too. So the tool does not
 * prove that an object was unlinked before call_rcu(); it finds every other
 * race, and ASan finds a use after the free.
 */
#ifndef SLUICE_LIB_RCU_TSAN_H
#define SLUICE_LIB_RCU_TSAN_H

/* As in sanitizer/tsan_interface.h, which not every compiler ships. */
void __tsan_acquire(void *addr);
void __tsan_release(void *addr);

void rcu_tsan_read_unlock(void);
void rcu_tsan_synchronize(void);
void rcu_tsan_call(struct rcu_head *head, void (*func)(struct rcu_head *));
void rcu_tsan_barrier(void);

#undef rcu_read_unlock
#define rcu_read_unlock() rcu_tsan_read_unlock()
#undef synchronize_rcu
#define synchronize_rcu() rcu_tsan_synchronize()
#undef call_rcu
#define call_rcu(head, func) rcu_tsan_call(head, func)
#undef rcu_barrier
#define rcu_barrier() rcu_tsan_barrier()

#undef rcu_dereference
#define rcu_dereference(p) __atomic_load_n(&(p), __ATOMIC_ACQUIRE)
#undef rcu_set_pointer
#define rcu_set_pointer(p, v) __atomic_store_n(p, v, __ATOMIC_RELEASE)
#undef rcu_xchg_pointer
#define rcu_xchg_pointer(p, v) __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST)
#undef rcu_cmpxchg_pointer
#define rcu_cmpxchg_pointer(p, old, new)                                       \
	__extension__({                                                        \
		__typeof__(*(p)) rcu_old_ = (old);                             \
		__atomic_compare_exchange_n(p, &rcu_old_, new, 0,              \
					    __ATOMIC_SEQ_CST,                  \
					    __ATOMIC_SEQ_CST);                 \
		rcu_old_;                                                      \
	})

#undef CMM_LOAD_SHARED
#define CMM_LOAD_SHARED(x) __atomic_load_n(&(x), __ATOMIC_ACQUIRE)
/*
 * Release: cds_list_del_rcu() hands on a pointer which another thread had
 * published; readers that find it here are ordered after that thread too.
 */
#undef CMM_STORE_SHARED
#define CMM_STORE_SHARED(x, v) __atomic_store_n(&(x), v, __ATOMIC_RELEASE)

#endif
