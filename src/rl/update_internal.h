/* What the files of an optimizer step share. */
#ifndef MBL_RL_UPDATE_INTERNAL_H
#define MBL_RL_UPDATE_INTERNAL_H

#include "rl/update.h"

/* How a step finds its direction: gradients and weights, as D = sum_j coefficient_j shard_j or formed, and
 * what the averages will be. Collective. */
typedef mbl_status_t mbl_update_direction_fn(mbl_update_t *update, mbl_update_step_t *step);
mbl_update_direction_fn mbl_update_balanced;  /* one set of weights for the whole step */
mbl_update_direction_fn mbl_update_reference; /* as MARBLE's released code: solves on micro-batches */

/* How the step's gradients are balanced. */
mbl_balance_options_t mbl_update_balance_options(const mbl_update_step_t *step);
/* Cosines of every two rewards' gradients, from the Gram matrix of all sets. */
void mbl_update_compare(mbl_update_step_t *step, const double *gram);
/* <x, x> summed over ranks of a vector [count] that is sharded like the direction. Collective. */
mbl_status_t mbl_update_square(mbl_update_t *update, const mbl_tensor_t *vector, double *out);
/* The shard's last row: [count]. */
mbl_tensor_t mbl_update_last(const mbl_update_t *update);
/* The shard's row right behind the sets, for a Gram matrix with them: [count]. It may be the last. */
mbl_tensor_t mbl_update_behind(const mbl_update_t *update, const mbl_update_step_t *step);

#endif
