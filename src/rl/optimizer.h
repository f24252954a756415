/* Sharded AdamW: every rank keeps the moments of its shard of the flat weight vector, updates that shard, and
 * all gather the new weights. */
#ifndef MBL_RL_OPTIMIZER_H
#define MBL_RL_OPTIMIZER_H

#include "comm/comm.h"
#include "ops/ops.h"

typedef struct {
    double lr, beta1, beta2, eps, weight_decay;
    double grad_clip; /* global norm; 0 for none */
} mbl_adamw_options_t;

typedef struct {
    mbl_ops_t *ops;
    mbl_tensor_t m, v; /* [count] f32 moments of this rank's shard */
    size_t count;
    uint64_t steps; /* done so far */
} mbl_optimizer_t;

/* For a vector padded to size * count (mbl_shard_count). Free with mbl_optimizer_free. */
mbl_status_t mbl_optimizer_new(mbl_ops_t *ops, size_t count, mbl_optimizer_t *out);
void mbl_optimizer_free(mbl_optimizer_t *optimizer);

/* Factor of a gradient of global norm `norm` under the clip. */
double mbl_grad_scale(const mbl_adamw_options_t *options, double norm);

/* One step on weights [size * count] f32 with gradient shard [count] (f32 or f64) of global norm `norm`.
 * Collective. */
mbl_status_t mbl_optimizer_step(mbl_comm_t *comm, mbl_optimizer_t *optimizer,
                                const mbl_adamw_options_t *options, const mbl_tensor_t *gradient, double norm,
                                const mbl_tensor_t *weights);

#endif
