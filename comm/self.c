/* The transport of a single process: every collective is the identity, which keeps the callers free of
 * special cases for one rank. */
#include "comm/list.h"

#include <string.h>

static int self_available(const char **why_not) {
    *why_not = "";
    return 1;
}

static mbl_status_t self_open(mbl_comm_t *comm) {
    comm->rank = comm->local_rank = 0;
    comm->size = comm->local_size = 1;
    return MBL_OK;
}

static void self_close(mbl_comm_t *comm) {
    (void)comm;
}

static mbl_status_t self_barrier(mbl_comm_t *comm) {
    (void)comm;
    return MBL_OK;
}

static mbl_status_t self_bcast(mbl_comm_t *comm, void *data, size_t bytes, int root) {
    (void)comm, (void)data, (void)bytes, (void)root;
    return MBL_OK;
}

static mbl_status_t self_allreduce(mbl_comm_t *comm, void *data, size_t count, mbl_comm_type_t type,
                                   mbl_comm_op_t op) {
    (void)comm, (void)data, (void)count, (void)type, (void)op;
    return MBL_OK;
}

static mbl_status_t self_reduce_scatter(mbl_comm_t *comm, const void *in, void *out, size_t count,
                                        mbl_comm_type_t type) {
    (void)comm;
    if (out != in)
        memcpy(out, in, count * mbl_comm_type_size(type));
    return MBL_OK;
}

static mbl_status_t self_allgather(mbl_comm_t *comm, const void *in, void *out, size_t bytes) {
    (void)comm;
    if (out != in)
        memcpy(out, in, bytes);
    return MBL_OK;
}

static mbl_status_t self_poll_error(mbl_comm_t *comm) {
    (void)comm;
    return MBL_OK;
}

/* One process has no other rank to end: the caller returns its exit code. */
static void self_abort(mbl_comm_t *comm, int exit_code) {
    (void)comm, (void)exit_code;
}

const mbl_comm_table_t mbl_comm_self = {
    .name = "self",
    .space = MBL_HOST,
    .available = self_available,
    .open = self_open,
    .close = self_close,
    .barrier = self_barrier,
    .bcast = self_bcast,
    .allreduce = self_allreduce,
    .reduce_scatter = self_reduce_scatter,
    .allgather = self_allgather,
    .poll_error = self_poll_error,
    .abort = self_abort,
};
