/* Sharded AdamW. */
#include "rl/optimizer.h"

mbl_status_t mbl_optimizer_new(mbl_ops_t *ops, size_t count, mbl_optimizer_t *out) {
    mbl_optimizer_t optimizer = {.ops = ops, .count = count};
    MBL_TRY(mbl_tensor_new(ops, MBL_F32, &optimizer.m, 1, count));
    mbl_status_t status = mbl_tensor_new(ops, MBL_F32, &optimizer.v, 1, count);
    if (status != MBL_OK) {
        mbl_tensor_free(ops, &optimizer.m);
        return status;
    }
    *out = optimizer;
    return MBL_OK;
}

void mbl_optimizer_free(mbl_optimizer_t *optimizer) {
    if (!optimizer->ops)
        return;
    mbl_tensor_free(optimizer->ops, &optimizer->m);
    mbl_tensor_free(optimizer->ops, &optimizer->v);
}

double mbl_grad_scale(const mbl_adamw_options_t *options, double norm) {
    return options->grad_clip > 0 && norm > options->grad_clip ? options->grad_clip / norm : 1;
}

mbl_status_t mbl_optimizer_step(mbl_comm_t *comm, mbl_optimizer_t *optimizer,
                                const mbl_adamw_options_t *options, const mbl_tensor_t *gradient, double norm,
                                const mbl_tensor_t *weights) {
    mbl_tensor_t shard = mbl_tensor_rows(weights, (size_t)comm->rank * optimizer->count, optimizer->count);
    double scale = mbl_grad_scale(options, norm);
    MBL_TRY(MBL_OP(optimizer->ops, adamw, .w = &shard, .m = &optimizer->m, .v = &optimizer->v, .g = gradient,
                   .lr = options->lr, .beta1 = options->beta1, .beta2 = options->beta2, .eps = options->eps,
                   .weight_decay = options->weight_decay, .grad_scale = scale, .step = optimizer->steps + 1));
    optimizer->steps++;
    return mbl_comm_allgather_tensor(comm, &shard, weights);
}
