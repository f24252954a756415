/* The transport over NCCL, for device memory: opened beside MPI, which carries its unique id and everything
 * the host decides. Every collective waits for the work asked of the backend's stream, runs on a stream of
 * its own, and is waited for here, where an asynchronous error or a rank that is late can be seen; when one
 * is, NCCL's kernels are aborted, so that nothing behind them waits for ever. */
#include "base/clock.h"
#include "base/mem.h"
#include "comm/list.h"

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct {
    ncclComm_t nccl;
    cudaStream_t compute, stream; /* the backend's; ours */
    cudaEvent_t ready, done;      /* what the backend was asked for; what NCCL was asked for */
    mbl_status_t broken;          /* the status of the first failure; nothing works after it */
    double end;                   /* when the collective under way is late; 0: never */
    void *token;                  /* one number on the device, for the barrier */
} nccl_t;

static ncclDataType_t datatype(mbl_comm_type_t type) {
    return type == MBL_COMM_F32   ? ncclFloat32
           : type == MBL_COMM_F64 ? ncclFloat64
           : type == MBL_COMM_I64 ? ncclInt64
                                  : ncclUint8;
}

/* The first failure ends the communicator at once: a collective that cannot end would hold the device. */
static mbl_status_t spoil(nccl_t *n, mbl_status_t status) {
    n->broken = status;
    if (n->nccl)
        ncclCommAbort(n->nccl);
    n->nccl = NULL;
    return status;
}

static const char *gpu_advice(cudaError_t error) {
    return error == cudaErrorECCUncorrectable
               ? "; the GPU's memory has failed: resume from the last checkpoint on another one"
               : "";
}

static mbl_status_t check_cuda(nccl_t *n, cudaError_t error, const char *what) {
    if (error == cudaSuccess)
        return MBL_OK;
    MBL_FAIL(MBL_ERR_DEVICE, "nccl: %s: %s%s", what, cudaGetErrorString(error), gpu_advice(error));
    return spoil(n, MBL_ERR_DEVICE);
}

/* NCCL's result as ours, with NCCL's own words and what they usually mean. */
static mbl_status_t check(nccl_t *n, ncclResult_t result, const char *what) {
    if (result == ncclSuccess || result == ncclInProgress)
        return MBL_OK;
    const char *advice = "", *detail = ncclGetLastError(n->nccl);
    if (result == ncclSystemError || (detail && strstr(detail, "interface")))
        advice = "; is the network reachable on every host? NCCL_SOCKET_IFNAME names the interface to use, "
                 "NCCL_DEBUG=WARN shows more; MARBLE_NCCL=0 goes through MPI";
    else if (result == ncclRemoteError)
        advice = "; another rank died or lost its connection";
    else if (result == ncclUnhandledCudaError) /* this rank's own GPU gives its error at every call */
        advice = gpu_advice(cudaStreamQuery(n->compute));
    MBL_FAIL(MBL_ERR_COMM, "nccl: %s: %s%s%s%s", what, ncclGetErrorString(result),
             detail && *detail ? ": " : "", detail && *detail ? detail : "", advice);
    return spoil(n, MBL_ERR_COMM);
}

/* An error that NCCL met by itself since; *busy while a call is still at work in the background. */
static mbl_status_t poll(nccl_t *n, const char *what, bool *busy) {
    ncclResult_t state = ncclSuccess;
    ncclResult_t asked = ncclCommGetAsyncError(n->nccl, &state);
    *busy = state == ncclInProgress;
    return check(n, asked != ncclSuccess ? asked : state, what);
}

/* Is it too late for what began? Otherwise a pause that grows with the time waited: 50 us without one, then
 * up to a millisecond. */
static mbl_status_t pause_or_late(mbl_comm_t *comm, double start, const char *what) {
    nccl_t *n = comm->impl;
    double now = mbl_now(), waited = now - start, back_off = waited / 16;
    if (n->end > 0 && now > n->end) {
        MBL_FAIL(MBL_ERR_DEADLINE,
                 "nccl: rank %d waited more than %g s in %s; another rank hangs or died, or the network does",
                 comm->rank, comm->deadline_s, what);
        return spoil(n, MBL_ERR_DEADLINE);
    }
    if (waited < 50e-6)
        return MBL_OK;
    if (waited < 2e-3)
        sched_yield();
    else
        nanosleep(&(struct timespec){.tv_nsec = (long)(1e9 * (back_off < 1e-3 ? back_off : 1e-3))}, NULL);
    return MBL_OK;
}

/* A call that returned while still at work: waits until it is not. */
static mbl_status_t settle(mbl_comm_t *comm, ncclResult_t result, const char *what) {
    nccl_t *n = comm->impl;
    bool busy = result == ncclInProgress;
    double start = mbl_now();
    MBL_TRY(check(n, result, what));
    while (busy) {
        MBL_TRY(poll(n, what, &busy));
        if (busy)
            MBL_TRY(pause_or_late(comm, start, what));
    }
    return MBL_OK;
}

static void start_clock(mbl_comm_t *comm) {
    ((nccl_t *)comm->impl)->end = comm->deadline_s > 0 ? mbl_now() + comm->deadline_s : 0;
}

/* Opens a collective: our stream goes on when the backend's is done with what it was asked for. */
static mbl_status_t begin(mbl_comm_t *comm) {
    nccl_t *n = comm->impl;
    if (n->broken != MBL_OK)
        return MBL_FAIL(n->broken, "nccl: an earlier collective failed, ranks are out of step");
    start_clock(comm);
    MBL_TRY(check_cuda(n, cudaEventRecord(n->ready, n->compute), "marking the work before a collective"));
    return check_cuda(n, cudaStreamWaitEvent(n->stream, n->ready, 0), "ordering a collective");
}

/* Waits for everything asked of our stream; what the backend is asked for from here on comes after it. */
static mbl_status_t nccl_finish(mbl_comm_t *comm) {
    nccl_t *n = comm->impl;
    double start = mbl_now();
    if (n->broken != MBL_OK)
        return MBL_FAIL(n->broken, "nccl: an earlier collective failed, ranks are out of step");
    MBL_TRY(check_cuda(n, cudaEventRecord(n->done, n->stream), "marking a collective"));
    MBL_TRY(check_cuda(n, cudaStreamWaitEvent(n->compute, n->done, 0), "ordering a collective"));
    for (;;) {
        bool busy;
        cudaError_t state = cudaEventQuery(n->done);
        if (state == cudaSuccess)
            return MBL_OK;
        if (state != cudaErrorNotReady)
            return check_cuda(n, state, "a collective");
        MBL_TRY(poll(n, "a collective", &busy));
        MBL_TRY(pause_or_late(comm, start, "a collective"));
    }
}

/* ---- opening ---- */

static int nccl_available(const char **why_not) {
    const char *wanted = getenv("MARBLE_NCCL");
    bool off = wanted && !strcmp(wanted, "0");
    *why_not = off ? "MARBLE_NCCL=0 asks for that" : "";
    return !off;
}

/* Every rank has the same NCCL: its protocol changes between versions. */
static mbl_status_t same_version(mbl_comm_t *comm) {
    int version = 0;
    nccl_t *n = comm->impl;
    mbl_status_t status =
        mbl_comm_agree(comm->base, check(n, ncclGetVersion(&version), "asking its version"));
    MBL_TRY(status);
    int64_t ends[2] = {version, -version};
    MBL_TRY(mbl_comm_allreduce(comm->base, ends, 2, MBL_COMM_I64, MBL_COMM_MAX));
    if (ends[0] != -ends[1])
        return MBL_FAIL(MBL_ERR_COMM,
                        "nccl: this rank has version %d, others have %d to %d; install one on every host, or "
                        "go through MPI with MARBLE_NCCL=0",
                        version, (int)-ends[1], (int)ends[0]);
    return MBL_OK;
}

/* Two ranks on one GPU would wait for each other for ever. */
static mbl_status_t own_gpus(mbl_comm_t *comm) {
    enum { ID = 16 };
    unsigned char *ids;
    int device = 0;
    struct cudaDeviceProp properties;
    nccl_t *n = comm->impl;
    mbl_status_t status;
    MBL_TRY(mbl_comm_agree(comm->base, check_cuda(n, cudaGetDevice(&device), "asking for the device")));
    MBL_TRY(mbl_comm_agree(
        comm->base, check_cuda(n, cudaGetDeviceProperties(&properties, device), "asking about the device")));
    ids = mbl_calloc((size_t)comm->size, ID);
    MBL_TRY(mbl_comm_agree(comm->base, ids ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "no memory for names of GPUs")));
    MBL_TRY_GOTO(mbl_comm_allgather(comm->base, properties.uuid.bytes, ids, ID), done);
    for (int r = 0; r < comm->size && status == MBL_OK; r++)
        if (r != comm->rank && !memcmp(ids + r * ID, properties.uuid.bytes, ID))
            status =
                MBL_FAIL(MBL_ERR_DEVICE,
                         "nccl: ranks %d and %d share one GPU (%.100s), which NCCL cannot; start at most "
                         "one rank per GPU, or go through MPI with MARBLE_NCCL=0",
                         comm->rank, r, properties.name);
done:
    mbl_free(ids);
    return mbl_comm_agree(comm->base, status);
}

/* The id that brings the ranks together, from rank 0. */
static mbl_status_t share_id(mbl_comm_t *comm, ncclUniqueId *id) {
    nccl_t *n = comm->impl;
    memset(id, 0, sizeof *id);
    mbl_status_t status = comm->rank == 0 ? check(n, ncclGetUniqueId(id), "making a unique id") : MBL_OK;
    MBL_TRY(mbl_comm_agree(comm->base, status));
    return mbl_comm_bcast(comm->base, id, sizeof *id, 0);
}

static mbl_status_t join(mbl_comm_t *comm, const ncclUniqueId *id) {
    nccl_t *n = comm->impl;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    start_clock(comm);
    return settle(comm, ncclCommInitRankConfig(&n->nccl, comm->size, *id, comm->rank, &config),
                  "joining the other ranks");
}

static mbl_status_t make_parts(mbl_comm_t *comm) {
    nccl_t *n = comm->impl;
    int least = 0, greatest = 0;
    n->compute = comm->ops->table->stream(comm->ops);
    MBL_TRY(check_cuda(n, cudaDeviceGetStreamPriorityRange(&least, &greatest), "asking for priorities"));
    MBL_TRY(check_cuda(n, cudaStreamCreateWithPriority(&n->stream, cudaStreamNonBlocking, greatest),
                       "making a stream"));
    MBL_TRY(check_cuda(n, cudaEventCreateWithFlags(&n->ready, cudaEventDisableTiming), "making an event"));
    MBL_TRY(check_cuda(n, cudaEventCreateWithFlags(&n->done, cudaEventDisableTiming), "making an event"));
    return comm->ops->table->alloc(comm->ops, sizeof(float), &n->token);
}

static void drop_parts(mbl_comm_t *comm) {
    nccl_t *n = comm->impl;
    if (n->token)
        comm->ops->table->free(comm->ops, n->token);
    if (n->ready)
        cudaEventDestroy(n->ready);
    if (n->done)
        cudaEventDestroy(n->done);
    if (n->stream)
        cudaStreamDestroy(n->stream);
    mbl_free(n);
    comm->impl = NULL;
}

static mbl_status_t nccl_open(mbl_comm_t *comm) {
    nccl_t *n = comm->impl = mbl_calloc(1, sizeof *n);
    ncclUniqueId id;
    mbl_status_t status = n ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "no memory for a communicator");
    MBL_TRY_GOTO(mbl_comm_agree(comm->base, status), failed);
    MBL_TRY_GOTO(own_gpus(comm), failed);
    MBL_TRY_GOTO(same_version(comm), failed);
    MBL_TRY_GOTO(mbl_comm_agree(comm->base, make_parts(comm)), failed);
    MBL_TRY_GOTO(share_id(comm, &id), failed);
    status = join(comm, &id);
    if (status != MBL_OK && status != MBL_ERR_DEADLINE) /* the others would wait for this rank in vain */
        mbl_comm_abort(comm->base, mbl_status_exit_code(status));
    MBL_TRY_GOTO(mbl_comm_agree(comm->base, status), failed);
    return MBL_OK;
failed:
    if (n) {
        spoil(n, status);
        drop_parts(comm);
    }
    return status;
}

static void nccl_close(mbl_comm_t *comm) {
    nccl_t *n = comm->impl;
    start_clock(comm);
    if (n->nccl && settle(comm, ncclCommFinalize(n->nccl), "leaving") == MBL_OK)
        ncclCommDestroy(n->nccl);
    drop_parts(comm);
}

/* ---- collectives ---- */

static mbl_status_t nccl_bcast(mbl_comm_t *comm, void *data, size_t bytes, int root) {
    nccl_t *n = comm->impl;
    MBL_TRY(begin(comm));
    MBL_TRY(settle(comm, ncclBroadcast(data, data, bytes, ncclUint8, root, n->nccl, n->stream), "bcast"));
    return nccl_finish(comm);
}

static mbl_status_t nccl_allreduce(mbl_comm_t *comm, void *data, size_t count, mbl_comm_type_t type,
                                   mbl_comm_op_t op) {
    nccl_t *n = comm->impl;
    ncclRedOp_t operation = op == MBL_COMM_SUM ? ncclSum : op == MBL_COMM_MAX ? ncclMax : ncclMin;
    MBL_TRY(begin(comm));
    MBL_TRY(settle(comm, ncclAllReduce(data, data, count, datatype(type), operation, n->nccl, n->stream),
                   "allreduce"));
    return nccl_finish(comm);
}

static mbl_status_t nccl_barrier(mbl_comm_t *comm) {
    nccl_t *n = comm->impl;
    return nccl_allreduce(comm, n->token, 1, MBL_COMM_F32, MBL_COMM_MAX);
}

/* One group: NCCL has one kernel for all rows instead of one for each. What a call in a group answers is no
 * result yet; the group's end has it. */
static mbl_status_t nccl_reduce_scatter_start(mbl_comm_t *comm, const void *in, size_t in_step, void *out,
                                              size_t out_step, size_t rows, size_t count,
                                              mbl_comm_type_t type) {
    nccl_t *n = comm->impl;
    MBL_TRY(begin(comm));
    ncclResult_t result = ncclGroupStart();
    if (result != ncclSuccess)
        return settle(comm, result, "reduce_scatter");
    for (size_t r = 0; r < rows && (result == ncclSuccess || result == ncclInProgress); r++)
        result = ncclReduceScatter((const char *)in + r * in_step, (char *)out + r * out_step, count,
                                   datatype(type), ncclSum, n->nccl, n->stream);
    const ncclResult_t end = ncclGroupEnd();
    return settle(comm, result == ncclSuccess || result == ncclInProgress ? end : result, "reduce_scatter");
}

static mbl_status_t nccl_reduce_scatter(mbl_comm_t *comm, const void *in, void *out, size_t count,
                                        mbl_comm_type_t type) {
    MBL_TRY(nccl_reduce_scatter_start(comm, in, 0, out, 0, 1, count, type));
    return nccl_finish(comm);
}

static mbl_status_t nccl_allgather(mbl_comm_t *comm, const void *in, void *out, size_t bytes) {
    nccl_t *n = comm->impl;
    MBL_TRY(begin(comm));
    MBL_TRY(settle(comm, ncclAllGather(in, out, bytes, ncclUint8, n->nccl, n->stream), "allgather"));
    return nccl_finish(comm);
}

static mbl_status_t nccl_poll_error(mbl_comm_t *comm) {
    nccl_t *n = comm->impl;
    bool busy;
    return n->broken != MBL_OK ? n->broken : poll(n, "the communicator", &busy);
}

static void nccl_abort(mbl_comm_t *comm, int exit_code) {
    spoil(comm->impl, MBL_ERR_COMM);
    mbl_comm_abort(comm->base, exit_code);
}

const mbl_comm_table_t mbl_comm_nccl = {
    .name = "nccl",
    .space = MBL_DEVICE,
    .available = nccl_available,
    .open = nccl_open,
    .close = nccl_close,
    .barrier = nccl_barrier,
    .bcast = nccl_bcast,
    .allreduce = nccl_allreduce,
    .reduce_scatter = nccl_reduce_scatter,
    .allgather = nccl_allgather,
    .reduce_scatter_start = nccl_reduce_scatter_start,
    .finish = nccl_finish,
    .poll_error = nccl_poll_error,
    .abort = nccl_abort,
};
