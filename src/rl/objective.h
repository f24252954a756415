/* Which rewards share an objective: the rewards of a group are balanced as one, by the mean of their
 * gradients. Pure numbers, local. */
#ifndef MBL_RL_OBJECTIVE_H
#define MBL_RL_OBJECTIVE_H

#include "rl/balance.h"

typedef struct {
    size_t n;                     /* objectives that have a reward in use */
    size_t of[MBL_MAX_REWARDS];   /* [K] objective of a reward in use */
    double size[MBL_MAX_REWARDS]; /* [n] rewards that its mean is over: those in use; marble_reference: all */
    double weight[MBL_MAX_REWARDS]; /* [n] mean of the weights of its rewards in use */
} mbl_objectives_t;

/* ERR_ARG for a weight that is not positive and finite. */
mbl_status_t mbl_objectives(const mbl_balance_options_t *options, const bool *used, size_t k,
                            mbl_objectives_t *out);

/* Gram matrix [n, n] of the objectives from that of the rewards [k, k]. */
void mbl_objectives_gram(const mbl_objectives_t *objectives, const double *rewards, const bool *used,
                         size_t k, double *out);

#endif
