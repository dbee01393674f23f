/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lib/rcu_tsan_lfht.h - cds_lfht as ThreadSanitizer should see it; lib/rcu.h only
 *
 * The hash table publishes nodes inside liburcu-cds, unseen by the tool. Each
 * call that adds releases the table before; each call that finds acquires it,
 * also before every call of a match function, which runs inside the search.
 */
#ifndef SLUICE_LIB_RCU_TSAN_LFHT_H
#define SLUICE_LIB_RCU_TSAN_LFHT_H

void rcu_tsan_lfht_lookup(struct cds_lfht *ht, unsigned long hash,
			  cds_lfht_match_fct match, const void *key,
			  struct cds_lfht_iter *iter);
void rcu_tsan_lfht_next_duplicate(struct cds_lfht *ht, cds_lfht_match_fct match,
				  const void *key, struct cds_lfht_iter *iter);
void rcu_tsan_lfht_first(struct cds_lfht *ht, struct cds_lfht_iter *iter);
void rcu_tsan_lfht_next(struct cds_lfht *ht, struct cds_lfht_iter *iter);
void rcu_tsan_lfht_add(struct cds_lfht *ht, unsigned long hash,
		       struct cds_lfht_node *node);
struct cds_lfht_node *rcu_tsan_lfht_add_unique(struct cds_lfht *ht,
					       unsigned long hash,
					       cds_lfht_match_fct match,
					       const void *key,
					       struct cds_lfht_node *node);
struct cds_lfht_node *rcu_tsan_lfht_add_replace(struct cds_lfht *ht,
						unsigned long hash,
						cds_lfht_match_fct match,
						const void *key,
						struct cds_lfht_node *node);
int rcu_tsan_lfht_replace(struct cds_lfht *ht, struct cds_lfht_iter *old_iter,
			  unsigned long hash, cds_lfht_match_fct match,
			  const void *key, struct cds_lfht_node *node);
int rcu_tsan_lfht_del(struct cds_lfht *ht, struct cds_lfht_node *node);

#define cds_lfht_lookup rcu_tsan_lfht_lookup
#define cds_lfht_next_duplicate rcu_tsan_lfht_next_duplicate
#define cds_lfht_first rcu_tsan_lfht_first
#define cds_lfht_next rcu_tsan_lfht_next
#define cds_lfht_add rcu_tsan_lfht_add
#define cds_lfht_add_unique rcu_tsan_lfht_add_unique
#define cds_lfht_add_replace rcu_tsan_lfht_add_replace
#define cds_lfht_replace rcu_tsan_lfht_replace
#define cds_lfht_del rcu_tsan_lfht_del

#endif
