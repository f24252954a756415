/* Collectives of the emulated NCCL. Each first compares with the other ranks what it is, then exchanges
 * through staging memory by MPI's non-blocking calls, then adds in the order of the ranks; no step waits. */
#include "gpu/emulation/nccl.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

typedef enum { ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER, BROADCAST } kind_t;
typedef enum { WAITING, COMPARING, EXCHANGING } step_t;
static const char *const kind_name[] = {"ncclAllReduce", "ncclReduceScatter", "ncclAllGather",
                                        "ncclBroadcast"};

/* What must agree between the ranks. */
typedef struct {
    uint64_t number, count;
    int32_t kind, type, op, root;
} header_t;

typedef struct mbl_emu_collective collective_t;
struct mbl_emu_collective {
    mbl_emu_body_t body;
    collective_t *next; /* of the communicator */
    ncclComm_t comm;
    cudaStream_t stream;
    header_t header, *headers; /* headers [ranks] */
    const void *in;
    void *out;
    step_t step;
    MPI_Request request;
    char *sent, *received; /* staging; received [ranks][sent bytes] of what every rank sends to this one */
};

static size_t type_size(int32_t type) {
    return type == ncclFloat64 || type == ncclInt64 ? 8 : type == ncclFloat32 || type == ncclInt32 ? 4 : 1;
}
static size_t in_bytes(const collective_t *c) {
    size_t bytes = c->header.count * type_size(c->header.type);
    return c->header.kind == REDUCE_SCATTER ? bytes * (size_t)c->comm->ranks : bytes;
}
static size_t out_bytes(const collective_t *c) {
    size_t bytes = c->header.count * type_size(c->header.type);
    return c->header.kind == ALL_GATHER ? bytes * (size_t)c->comm->ranks : bytes;
}
/* What one rank sends to one other. */
static size_t piece_bytes(const collective_t *c) {
    return c->header.count * type_size(c->header.type);
}

#define COMBINE(T)                                                                                           \
    for (uint64_t i = 0; i < c->header.count; i++) {                                                         \
        const T a = ((T *)into)[i], b = ((const T *)from)[i];                                                \
        ((T *)into)[i] = c->header.op == ncclSum                ? (T)(a + b)                                 \
                         : (c->header.op == ncclMax) == (a > b) ? a                                          \
                                                                : b;                                         \
    }
static void combine(const collective_t *c, void *into, const void *from) {
    switch ((ncclDataType_t)c->header.type) {
    case ncclFloat32:
        COMBINE(float) break;
    case ncclFloat64:
        COMBINE(double) break;
    case ncclInt64:
        COMBINE(int64_t) break;
    case ncclInt32:
        COMBINE(int32_t) break;
    case ncclInt8:
        COMBINE(int8_t) break;
    case ncclUint8:
        COMBINE(uint8_t) break;
    }
}

static void unlink_collective(collective_t *c) {
    collective_t **at = &c->comm->first;
    while (*at && *at != c)
        at = &(*at)->next;
    if (*at)
        *at = c->next;
    c->next = NULL;
}

static void drop(mbl_emu_body_t *self) {
    collective_t *c = (collective_t *)self;
    unlink_collective(c);
    if (c->step == WAITING || c->request == MPI_REQUEST_NULL) { /* else MPI may still write there */
        free(c->sent);
        free(c->received);
        free(c->headers);
    }
    mbl_emu_nccl_release(c->comm);
    free(c);
}

static bool post(collective_t *c, int result) {
    if (result == MPI_SUCCESS)
        return true;
    mbl_emu_nccl_fail(c->comm, ncclRemoteError, "%s: MPI failed (%d)", kind_name[c->header.kind], result);
    return false;
}

/* The operands leave device memory here, in the order of the stream. */
static cudaError_t start(collective_t *c) {
    const ncclComm_t comm = c->comm;
    size_t ranks = (size_t)comm->ranks;
    bool sends = c->header.kind != BROADCAST || c->header.root == comm->rank;
    cudaError_t error =
        sends ? mbl_emu_check_range(c->in, in_bytes(c), MBL_EMU_READ_ACCESS, c->body.name) : cudaSuccess;
    if (error != cudaSuccess)
        return error;
    c->sent = malloc(in_bytes(c) + 1);
    c->received = malloc(piece_bytes(c) * ranks + 1);
    c->headers = calloc(ranks, sizeof *c->headers);
    if (!c->sent || !c->received || !c->headers)
        return cudaErrorMemoryAllocation;
    if (sends)
        memcpy(c->sent, c->in, in_bytes(c));
    c->step = COMPARING;
    c->headers[0] = c->header;
    comm->begun++;
    if (ranks > 1)
        (void)post(c, MPI_Iallgather(&c->header, sizeof c->header, MPI_BYTE, c->headers, sizeof c->header,
                                     MPI_BYTE, comm->mpi, &c->request));
    return cudaSuccess;
}

static bool headers_agree(const collective_t *c) {
    for (int r = 0; r < c->comm->ranks; r++) {
        const header_t *h = &c->headers[r];
        if (memcmp(h, &c->header, sizeof *h) == 0)
            continue;
        mbl_emu_nccl_fail(
            c->comm, ncclInvalidUsage,
            "collective %llu differs: rank %d asks for %s of %llu numbers of type %d, rank %d for %s of "
            "%llu of type %d (or another operation or root)",
            (unsigned long long)c->header.number, c->comm->rank, kind_name[c->header.kind],
            (unsigned long long)c->header.count, c->header.type, r, kind_name[h->kind & 3],
            (unsigned long long)h->count, h->type);
        return false;
    }
    return true;
}

static void exchange(collective_t *c) {
    int bytes = (int)piece_bytes(c);
    c->step = EXCHANGING;
    if (c->comm->ranks == 1)
        memcpy(c->received, c->sent, piece_bytes(c));
    else if (c->header.kind == REDUCE_SCATTER)
        (void)post(c, MPI_Ialltoall(c->sent, bytes, MPI_BYTE, c->received, bytes, MPI_BYTE, c->comm->mpi,
                                    &c->request));
    else if (c->header.kind == BROADCAST)
        (void)post(c, MPI_Ibcast(c->sent, bytes, MPI_BYTE, c->header.root, c->comm->mpi, &c->request));
    else
        (void)post(c, MPI_Iallgather(c->sent, bytes, MPI_BYTE, c->received, bytes, MPI_BYTE, c->comm->mpi,
                                     &c->request));
}

static cudaError_t finish(collective_t *c) {
    size_t piece = piece_bytes(c);
    cudaError_t error = mbl_emu_check_range(c->out, out_bytes(c), MBL_EMU_WRITE_ACCESS, c->body.name);
    if (error != cudaSuccess)
        return error;
    if (c->header.kind == ALL_REDUCE || c->header.kind == REDUCE_SCATTER)
        for (int r = 1; r < c->comm->ranks; r++)
            combine(c, c->received, c->received + (size_t)r * piece);
    memcpy(c->out, c->header.kind == BROADCAST ? c->sent : c->received, out_bytes(c));
    return cudaSuccess;
}

/* cudaErrorNotReady until it is done; an aborted or failed communicator's collectives end at once. */
static cudaError_t run(mbl_emu_body_t *self) {
    collective_t *c = (collective_t *)self;
    ncclComm_t comm = c->comm;
    if (comm->aborted || (comm->error != ncclSuccess && comm->error != ncclInvalidUsage))
        return cudaSuccess;
    if (comm->error != ncclSuccess || !comm->joined)
        return cudaErrorNotReady; /* waits for ever, or until the abort, as NCCL's kernels do */
    if (c->step == WAITING) {
        if (c->header.number != comm->begun) {
            (void)mbl_emu_nccl_push(comm);
            if (c->header.number != comm->begun)
                return cudaErrorNotReady;
        }
        cudaError_t error = start(c);
        if (error != cudaSuccess)
            return error;
    }
    while (comm->error == ncclSuccess) {
        int done = 1;
        if (!post(c, MPI_Test(&c->request, &done, MPI_STATUS_IGNORE)) || !done)
            return cudaErrorNotReady;
        if (c->step == EXCHANGING)
            return finish(c);
        if (headers_agree(c))
            exchange(c);
    }
    return cudaErrorNotReady;
}

cudaError_t mbl_emu_nccl_push(ncclComm_t comm) {
    collective_t *c = comm->first;
    if (!c)
        return cudaSuccess;
    cudaError_t error = mbl_emu_drain(c->stream);
    return comm->first == c ? cudaErrorNotReady : error;
}

/* ---- groups: what is asked for between start and end is queued at the end ---- */

enum { MOST_GROUPED = 1024 };
static __thread struct {
    int depth, count;
    collective_t *waiting[MOST_GROUPED];
} group;

static ncclResult_t queue_collective(collective_t *c) {
    ncclComm_t comm = c->comm;
    cudaStream_t stream = mbl_emu_stream_of(c->stream);
    collective_t **last = &comm->first;
    while (*last)
        last = &(*last)->next;
    *last = c;
    c->stream = stream;
    c->header.number = comm->issued++;
    comm->references++;
    cudaError_t error = mbl_emu_enqueue(c->stream, &c->body);
    if (error != cudaSuccess) {
        mbl_emu_nccl_fail(comm, ncclUnhandledCudaError, "%s", cudaGetErrorString(error));
        return ncclUnhandledCudaError;
    }
    mbl_emu_nccl_progress(comm); /* the other ranks may be waiting in a call that knows nothing of us */
    return comm->error;
}

ncclResult_t ncclGroupStart(void) {
    group.depth++;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void) {
    ncclResult_t result = ncclSuccess;
    if (group.depth == 0)
        return ncclInvalidUsage;
    if (--group.depth > 0)
        return ncclSuccess;
    mbl_emu_lock();
    for (int i = 0; i < group.count; i++) {
        ncclResult_t one = queue_collective(group.waiting[i]);
        result = result == ncclSuccess ? one : result;
    }
    group.count = 0;
    mbl_emu_unlock();
    return result;
}

static ncclResult_t collect(header_t header, const void *in, void *out, ncclComm_t comm,
                            cudaStream_t stream) {
    if (!comm || (header.count > 0 && (!in || !out)) || header.root < 0 ||
        (comm && header.root >= comm->ranks))
        return ncclInvalidArgument;
    if (header.count * type_size(header.type) > INT_MAX)
        return ncclInternalError; /* MPI counts bytes in an int */
    if (comm->error != ncclSuccess)
        return comm->error;
    collective_t *c = (collective_t *)mbl_emu_body_new(sizeof *c, kind_name[header.kind], run);
    if (!c)
        return ncclSystemError;
    c->body.drop = drop;
    c->header = header;
    c->comm = comm;
    c->stream = stream;
    c->in = in;
    c->out = out;
    c->request = MPI_REQUEST_NULL;
    if (group.depth > 0) {
        if (group.count == MOST_GROUPED)
            return ncclInvalidUsage;
        group.waiting[group.count++] = c;
        return ncclSuccess;
    }
    mbl_emu_lock();
    ncclResult_t result = queue_collective(c);
    mbl_emu_unlock();
    return result;
}

ncclResult_t ncclAllReduce(const void *in, void *out, size_t count, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream) {
    return collect((header_t){.count = count, .kind = ALL_REDUCE, .type = (int32_t)type, .op = (int32_t)op},
                   in, out, comm, stream);
}
ncclResult_t ncclReduceScatter(const void *in, void *out, size_t count, ncclDataType_t type, ncclRedOp_t op,
                               ncclComm_t comm, cudaStream_t stream) {
    return collect(
        (header_t){.count = count, .kind = REDUCE_SCATTER, .type = (int32_t)type, .op = (int32_t)op}, in, out,
        comm, stream);
}
ncclResult_t ncclAllGather(const void *in, void *out, size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
    return collect((header_t){.count = count, .kind = ALL_GATHER, .type = (int32_t)type}, in, out, comm,
                   stream);
}
ncclResult_t ncclBroadcast(const void *in, void *out, size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream) {
    return collect((header_t){.count = count, .kind = BROADCAST, .type = (int32_t)type, .root = root}, in,
                   out, comm, stream);
}
