/* Collectives that move nothing. */
#include "plan/comm.h"

#include <string.h>

static mbl_status_t mute_bcast(mbl_comm_t *comm, void *data, size_t bytes, int root) {
    (void)comm, (void)data, (void)bytes, (void)root;
    return MBL_OK;
}

static mbl_status_t mute_allreduce(mbl_comm_t *comm, void *data, size_t count, mbl_comm_type_t type,
                                   mbl_comm_op_t op) {
    (void)comm, (void)data, (void)count, (void)type, (void)op;
    return MBL_OK;
}

static mbl_status_t mute_reduce_scatter(mbl_comm_t *comm, const void *in, void *out, size_t count,
                                        mbl_comm_type_t type) {
    (void)comm, (void)in, (void)out, (void)count, (void)type;
    return MBL_OK;
}

static mbl_status_t mute_allgather(mbl_comm_t *comm, const void *in, void *out, size_t bytes) {
    (void)comm, (void)in, (void)out, (void)bytes;
    return MBL_OK;
}

static const mbl_comm_table_t mute_host = {.name = "plan",
                                           .space = MBL_HOST,
                                           .bcast = mute_bcast,
                                           .allreduce = mute_allreduce,
                                           .reduce_scatter = mute_reduce_scatter,
                                           .allgather = mute_allgather};
static const mbl_comm_table_t mute_device = {.name = "plan",
                                             .space = MBL_DEVICE,
                                             .bcast = mute_bcast,
                                             .allreduce = mute_allreduce,
                                             .reduce_scatter = mute_reduce_scatter,
                                             .allgather = mute_allgather};

static void open_one(const mbl_comm_table_t *table, size_t ranks, mbl_comm_t *out) {
    memset(out, 0, sizeof *out);
    out->table = table;
    out->size = out->local_size = (int)ranks;
    out->failed_rank = -1;
}

void mbl_plan_comm(size_t ranks, mbl_plan_comm_t *out) {
    open_one(&mute_host, ranks, &out->host);
    open_one(&mute_device, ranks, &out->device);
    out->host.device = &out->device;
    out->device.base = &out->host;
}
