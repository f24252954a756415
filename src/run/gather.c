/* Whole vectors from shards, and back. */
#include "run/gather.h"

#include "base/mem.h"

#include <string.h>

mbl_status_t mbl_gather_shards(mbl_comm_t *comm, mbl_ops_t *ops, const mbl_tensor_t *shard, float *out) {
    size_t count = shard->dim[0];
    MBL_TRY(mbl_tensor_download(ops, shard, out + (size_t)comm->rank * count));
    return mbl_comm_allgather(comm, out + (size_t)comm->rank * count, out, count * sizeof *out);
}

static mbl_status_t upload_part(mbl_ops_t *ops, const float *from, size_t have, const mbl_tensor_t *out) {
    float *host;
    MBL_ALLOC(host, out->dim[0]);
    if (have > 0)
        memcpy(host, from, have * sizeof *host);
    mbl_status_t status = mbl_tensor_upload(ops, out, host);
    mbl_free(host);
    return status;
}

mbl_status_t mbl_scatter_shard(const mbl_comm_t *comm, mbl_ops_t *ops, const float *whole, size_t n,
                               const mbl_tensor_t *shard) {
    size_t count = shard->dim[0], first = (size_t)comm->rank * count;
    size_t have = first >= n ? 0 : (n - first < count ? n - first : count);
    return upload_part(ops, have ? whole + first : whole, have, shard);
}

mbl_status_t mbl_upload_padded(mbl_ops_t *ops, const float *whole, size_t n, const mbl_tensor_t *out) {
    return upload_part(ops, whole, n, out);
}
