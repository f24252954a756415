/* Independent advantage estimators, one per reward (README.md here): group-relative, normalised, clipped,
 * with N/A and failed samples masked out. */
#ifndef MBL_RL_ADVANTAGE_H
#define MBL_RL_ADVANTAGE_H

#include "rl/types.h"

typedef struct {
    bool group_std; /* std over the group instead of over the whole epoch */
    double clip;    /* A is clamped to +-clip */
    /* [K]: adds a part K+1, an objective of its own; NULL for none. It is the advantage of sum_k weights_k
     * R_k (weighted_sum; with weighted_mean divided by the sum of the weights of the rewards that are valid
     * for the sample, as MARBLE's released code does) or, with sum_advantages, of sum_k weights_k A_k (A_k
     * before clipping; gdpo, arXiv 2601.05242), which is centred and scaled over the whole epoch instead of
     * compared within groups */
    const double *weights;
    bool weighted_mean, sum_advantages;
    const bool *active; /* [K] rewards of that part; NULL: all */
    float *unclipped;   /* [K,n], filled with A before clipping, NaN where not valid; NULL: not wanted */
    uint8_t *valid; /* [R,n], filled with whether a sample counts for a part (masks.h); NULL: not wanted */
    float *sum;     /* [n_global] staging; only with sum_advantages */
} mbl_advantage_options_t;

/* a [R,n] f32 = clamp(A/clip, -1, 1)/2 with A = (R - group mean)/(std + 1e-4); 0 where the sample is not
 * valid for that reward. In the part of its own a sample counts when one of its rewards is valid and none
 * failed; those that do not apply add nothing. stats [K] are global.
 * From the scores of all ranks, batch->all, so that it does not matter how many there are, not even for
 * rounding. Local. */
mbl_status_t mbl_advantage(const mbl_advantage_options_t *options, const mbl_batch_t *batch, float *a,
                           mbl_reward_stats_t *stats);

#endif
