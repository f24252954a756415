/* The exact Gram matrix over ranks. */
#include "rl/gram.h"

mbl_status_t mbl_gram(mbl_comm_t *comm, mbl_ops_t *ops, const mbl_tensor_t *sets, const mbl_tensor_t *shard,
                      double *gram) {
    size_t m = sets->dim[0], count = shard->dim[1];
    mbl_tensor_t partial = MBL_TENSOR_2(gram, MBL_F64, m, m);
    MBL_REQUIRE(sets->dim[1] == count * (size_t)comm->size && shard->dim[0] == m,
                "gram: sets [%zu,%zu] and shard [%zu,%zu] do not fit %d ranks", m, sets->dim[1],
                shard->dim[0], count, comm->size);
    MBL_TRY(mbl_comm_reduce_scatter_tensor(comm, sets, shard));
    MBL_TRY(MBL_OP(ops, gram, .gram = &partial, .x = shard));
    return mbl_comm_allreduce(comm, gram, m * m, MBL_COMM_F64, MBL_COMM_SUM);
}
