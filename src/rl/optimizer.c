/* What sharded optimizers share: their state, the clip, and the new weights to all ranks. */
#include "rl/optimizer.h"

#include <stdio.h>

mbl_status_t mbl_optimizer_new(mbl_ops_t *ops, const mbl_optimizer_table_t *table, size_t count,
                               mbl_optimizer_t *out) {
    mbl_optimizer_t optimizer = {.table = table, .ops = ops, .count = count};
    for (; optimizer.n < MBL_OPTIMIZER_STATES && table->states[optimizer.n]; optimizer.n++) {
        mbl_status_t status = mbl_tensor_new(ops, MBL_F32, &optimizer.state[optimizer.n], 1, count);
        if (status != MBL_OK) {
            mbl_optimizer_free(&optimizer);
            return status;
        }
    }
    *out = optimizer;
    return MBL_OK;
}

void mbl_optimizer_free(mbl_optimizer_t *optimizer) {
    for (size_t i = 0; i < optimizer->n; i++)
        mbl_tensor_free(optimizer->ops, &optimizer->state[i]);
    optimizer->n = 0;
}

char *mbl_optimizer_dataset(const mbl_optimizer_t *optimizer, size_t i, char *out) {
    snprintf(out, MBL_OPTIMIZER_NAME, "optimizer/%s", optimizer->table->states[i]);
    return out;
}

/* Factor of a gradient of global norm `norm` under the clip. */
static double grad_scale(const mbl_optimizer_options_t *options, double norm) {
    return options->grad_clip > 0 && norm > options->grad_clip ? options->grad_clip / norm : 1;
}

mbl_status_t mbl_optimizer_step(mbl_comm_t *comm, mbl_optimizer_t *optimizer,
                                const mbl_optimizer_options_t *options, const mbl_tensor_t *gradient,
                                double norm, const mbl_tensor_t *weights) {
    mbl_tensor_t shard = mbl_tensor_rows(weights, (size_t)comm->rank * optimizer->count, optimizer->count);
    MBL_TRY(optimizer->table->step(optimizer, options, &shard, gradient, grad_scale(options, norm)));
    optimizer->steps++;
    return mbl_comm_allgather_tensor(comm, &shard, weights);
}
