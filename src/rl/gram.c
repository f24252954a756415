/* The exact Gram matrix over ranks. */
#include "rl/gram.h"

mbl_status_t mbl_gram_ready(void *context, size_t n) {
    mbl_gram_sum_t *sum = context;
    mbl_tensor_t sets = mbl_tensor_rows(sum->sets, 0, n), shard = mbl_tensor_rows(sum->shard, 0, n);
    sum->met = true;
    sum->agreed = mbl_comm_agree(sum->comm, MBL_OK);
    MBL_TRY(sum->agreed);
    sum->begun = n;
    /* the others wait for a rank that could not begin: it ends the job */
    return mbl_comm_settle(sum->comm, mbl_comm_reduce_scatter_begin(sum->comm, &sets, &shard));
}

mbl_status_t mbl_gram_formed(mbl_gram_sum_t *sum, mbl_status_t mine) {
    if (sum->met && sum->agreed != MBL_OK)
        return sum->agreed;
    if (mine == MBL_ERR_DEVICE && sum->begun > 0) /* what this rank began ends on no other */
        (void)mbl_comm_settle(sum->comm, mine);
    mbl_status_t all = mbl_comm_agree(sum->comm, mine);
    if (all != MBL_OK) /* what began is waited for: every rank began it */
        (void)mbl_comm_finish(sum->comm);
    return all;
}

mbl_status_t mbl_gram_finish(mbl_gram_sum_t *sum, double *gram) {
    size_t m = sum->sets->dim[0], rest = m - sum->begun;
    mbl_tensor_t partial = MBL_TENSOR_2(gram, MBL_F64, m, m);
    MBL_TRY(mbl_comm_finish(sum->comm));
    if (rest > 0) {
        mbl_tensor_t sets = mbl_tensor_rows(sum->sets, sum->begun, rest),
                     shard = mbl_tensor_rows(sum->shard, sum->begun, rest);
        MBL_TRY(mbl_comm_reduce_scatter_tensor(sum->comm, &sets, &shard));
    }
    MBL_TRY(MBL_OP(sum->ops, gram, .gram = &partial, .x = sum->shard));
    return mbl_comm_allreduce(sum->comm, gram, m * m, MBL_COMM_F64, MBL_COMM_SUM);
}

mbl_status_t mbl_gram(mbl_comm_t *comm, mbl_ops_t *ops, const mbl_tensor_t *sets, const mbl_tensor_t *shard,
                      double *gram) {
    MBL_REQUIRE(sets->dim[1] == shard->dim[1] * (size_t)comm->size && shard->dim[0] == sets->dim[0],
                "gram: sets [%zu,%zu] and shard [%zu,%zu] do not fit %d ranks", sets->dim[0], sets->dim[1],
                shard->dim[0], shard->dim[1], comm->size);
    return mbl_gram_finish(&(mbl_gram_sum_t){comm, ops, sets, shard, 0, false, MBL_OK}, gram);
}
