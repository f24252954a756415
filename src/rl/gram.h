/* The exact Gram matrix over ranks (method.md section 5): < sum_ranks g_k , sum_ranks g_l >, which the sum of
 * the ranks' own matrices is not. */
#ifndef MBL_RL_GRAM_H
#define MBL_RL_GRAM_H

#include "rl/types.h"

/* sets [M, size * count] f64: this rank's shares (stride = row length). shard [M, count] f64 is set to this
 * rank's shard of the sums; gram [M*M] on the host to the exact matrix, the same on every rank. Collective.
 * On tensors of a device, comm is attached to ops. */
mbl_status_t mbl_gram(mbl_comm_t *comm, mbl_ops_t *ops, const mbl_tensor_t *sets, const mbl_tensor_t *shard,
                      double *gram);

#endif
