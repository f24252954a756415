/* Steps between two solves (README.md here): the direction D = m sum_k alphabar_k g_k / (n_k w_k) with
 * lengths n_k and averaged alphabar of the last solve, from one backward pass. Where the common part is apart
 * or an offset, a_k stands for g_k and this step's own c is added once. Pure numbers, local. */
#ifndef MBL_RL_AMORTISE_H
#define MBL_RL_AMORTISE_H

#include "rl/balance.h"

/* Takes no part until the next solve. */
enum { MBL_AMORTISE_UNUSABLE = -1 };

/* Kept over steps and in checkpoints, beside mbl_balance_state_t. */
typedef struct {
    /* n_k of the last solve that had the reward (a group's own), of what was balanced; 0: none had it;
     * MBL_AMORTISE_UNUSABLE: the last one had its scores, and no use for them */
    double norm[MBL_MAX_REWARDS];
    uint64_t age; /* optimizer steps since the last solve, that one included; 0: never solved */
} mbl_amortise_t;

/* Takes the lengths of a solve; of one that found no usable reward the next step solves again. Rewards that
 * the solve's rows had no usable score of (not `tried` [K]) keep the length that belongs to their average in
 * `state`, so that they take part with both where they apply again. */
void mbl_amortise_keep(mbl_amortise_t *cache, const mbl_balance_step_t *solved, const bool *tried,
                       const mbl_balance_state_t *state, size_t k);

/* Whether this step has to solve: `every` steps have passed, there was no solve yet, none of its rewards
 * has a usable score now (valid [K]), or one has that no solve has had yet. */
bool mbl_amortise_due(const mbl_amortise_t *cache, size_t every, const bool *valid, size_t k);

/* A step with cached weights: alpha = alpha_mean (alphabar, of sum 1 over the used rewards), norm of the last
 * solve, used, n_used and coefficient of *out; the rest is 0. Used are the rewards with a length that are
 * valid [K] now; m and alphabar are taken over those, as a solve would. ERR_ARG for a bad weight. */
mbl_status_t mbl_amortise_step(const mbl_balance_options_t *options, const mbl_balance_state_t *state,
                               const mbl_amortise_t *cache, const bool *valid, size_t k,
                               mbl_balance_step_t *out);

#endif
