/* A direction that works against no reward's own part. */
#ifndef MBL_RL_GUARD_H
#define MBL_RL_GUARD_H

#include "rl/balance.h"

/* Moves D = sum_j coefficient_j set_j by the least |D' - D| that makes <D', a_k> >= 0 for every used reward:
 * D' = D + sum_k x_k a_k with x >= 0, the projection onto the cone of such directions. gram [S * S] over the
 * sets. Changes step->coefficient and sets step->moved; the cosines are of before. ERR_NUMERIC as
 * mbl_cone_solve. */
mbl_status_t mbl_guard(const double *gram, const mbl_sets_t *sets, size_t k, mbl_balance_step_t *step);

#endif
