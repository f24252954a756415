/* Rewards that are to stay at or above a level while the others improve: max R_k over the free rewards k,
 * subject to R_i >= min_i over the constrained ones i. An augmented Lagrangian for several objectives (Cocchi
 * and Lapucci, Computational Optimization and Applications 77, 2020; the multiplier of one objective is that
 * of Hestenes, Powell and Rockafellar): every free objective gets the same penalty, and a direction common to
 * the objectives so augmented is sought, over the same Gram matrix.
 *
 * With the level L_i (smoothed mean of the scores), their spread S_i (smoothed deviation), and the violation
 * v_i = (min_i - L_i) / S_i, once an epoch
 *     multiplier_i <- min(max(multiplier_i + rate v_i, 0), most)
 *     pressure_i   =  min(max(multiplier_i + penalty v_i, 0), most)
 * (integral and proportional part: Stooke, Achiam and Abbeel, arXiv 2007.03964). With unit gradients
 * u = g / n the free gradients become
 *     g~_k = n_k (u_k + sum_i pressure_i u_i) / (1 + sum_i pressure_i)
 * and any method chooses the direction from their Gram matrix; with marble no augmented objective is gone
 * against. A constraint that holds with room to spare has no pressure: its reward is free to fall, to min and
 * no further. At rest R_i = min_i, and the multiplier is the price of the constraint in unit gradients. */
#ifndef MBL_RL_CONSTRAINT_H
#define MBL_RL_CONSTRAINT_H

#include "rl/methods.h"

/* The section `constraint` of the configuration. */
typedef struct {
    double penalty, rate, smooth, most;
} mbl_constraint_options_t;

/* Kept over epochs and in checkpoints. */
typedef struct {
    double multiplier[MBL_MAX_REWARDS];
    double level[MBL_MAX_REWARDS], spread[MBL_MAX_REWARDS]; /* L, S */
    bool seen[MBL_MAX_REWARDS];                             /* that reward has had a score */
} mbl_constraint_state_t;

/* Takes the scores of an epoch and sets pressure [K]: NAN where min [K] is NAN (free). A reward without a
 * valid score keeps its level. */
void mbl_constraint_update(const mbl_constraint_options_t *options, const double *min,
                           const mbl_reward_stats_t *stats, size_t k, mbl_constraint_state_t *state,
                           double *pressure);

/* What `method` says of the augmented gradients, as coefficients of the gradients themselves and their
 * shares. pressure [n]: NAN for free rewards. args->common has to be NULL, and weights count among the free.
 * With no free gradient the constrained ones are followed in proportion to their pressures, and with no
 * pressure none. */
mbl_status_t mbl_constraint_solve(mbl_method_fn *method, const mbl_method_args_t *args,
                                  const double *pressure, mbl_method_answer_t *out);

#endif
