/* Which prompts an epoch uses: without replacement until the set is used up, in an order that depends on the
 * seed and the pass only. */
#ifndef MBL_RL_PICK_H
#define MBL_RL_PICK_H

#include "data/prompts.h"

/* Fills prompt [n] and sample [n] of images first .. first + n - 1 of epoch `epoch`, which has `groups`
 * groups of group_size, out of n_prompts >= 1 (an epoch that runs past the end of a pass continues with the
 * next pass's order). `scratch` [n_prompts]. */
void mbl_pick(uint64_t seed, uint64_t epoch, size_t groups, size_t group_size, size_t n_prompts, size_t first,
              size_t n, uint32_t *scratch, uint32_t *prompt, int64_t *sample);

/* How many of each source's prompts have been used before a group, counted on from call to call. Zeros to
 * begin with. */
typedef struct {
    uint64_t position, used[MBL_PROMPT_SOURCES];
} mbl_pick_counts_t;
/* The same out of a set with sources, which stands source by source: of the groups of all epochs so far each
 * source has its share, by weight, to within one; each source's prompts are used as above, in orders of its
 * own. `counts` may be any epoch's. `scratch` [prompts->count]. */
void mbl_pick_sources(uint64_t seed, uint64_t epoch, size_t groups, size_t group_size,
                      const mbl_prompts_t *prompts, size_t first, size_t n, mbl_pick_counts_t *counts,
                      uint32_t *scratch, uint32_t *prompt, int64_t *sample);

#endif
