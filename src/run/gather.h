/* Whole vectors on the host of rank 0 from what ranks hold, and back: what checkpoints are made of. */
#ifndef MBL_TRAIN_GATHER_H
#define MBL_TRAIN_GATHER_H

#include "comm/comm.h"
#include "ops/ops.h"

/* out [ranks * count] on every rank's host = all ranks' shards [count] f32. Collective. */
mbl_status_t mbl_gather_shards(mbl_comm_t *comm, mbl_ops_t *ops, const mbl_tensor_t *shard, float *out);
/* Sets this rank's shard from the whole vector of n numbers on the host of every rank (zeros beyond n).
 * Local. */
mbl_status_t mbl_scatter_shard(const mbl_comm_t *comm, mbl_ops_t *ops, const float *whole, size_t n,
                               const mbl_tensor_t *shard);
/* Sets a tensor [padded] f32 from n host numbers (zeros beyond n). Local. */
mbl_status_t mbl_upload_padded(mbl_ops_t *ops, const float *whole, size_t n, const mbl_tensor_t *out);

#endif
