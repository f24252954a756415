/* The transport over MPI. Everything is non-blocking inside, for two reasons: a rank that hangs or died must
 * end the job within the deadline, and a rank that waits must leave its core to those that share it. */
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "comm/list.h"

#include <mpi.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    LARGE_BYTES = 256 << 10, /* from here on ranks rendezvous in a barrier first, see rendezvous() */
    PIECE_BYTES = 1 << 20    /* pipeline granule of reduce_scatter */
};

typedef struct {
    MPI_Comm world;        /* our own, so that nobody else's messages can be mistaken for ours */
    MPI_Comm second;       /* for others, see mbl_comm_second */
    bool started;          /* MPI was started here, so it is finished here */
    mbl_status_t broken;   /* the status of the first failure; nothing works after it */
    double end;            /* when the collective under way is late; 0: never */
    unsigned char *pieces; /* [2, PIECE_BYTES] received, not yet added */
} mpi_t;

/* The open one, for a process that exits without having closed it: the others would wait for it, and not
 * every launcher ends a job for that. MPI is the process's own, so this may be. */
static mpi_t *left_open;

static void end_the_others(void) {
    if (left_open)
        MPI_Abort(left_open->world, 1);
}

static MPI_Datatype datatype(mbl_comm_type_t type) {
    return type == MBL_COMM_F32   ? MPI_FLOAT
           : type == MBL_COMM_F64 ? MPI_DOUBLE
           : type == MBL_COMM_I64 ? MPI_INT64_T
                                  : MPI_UINT8_T;
}

/* MPI's return code as ours, with MPI's own words; breaks the communicator. */
static mbl_status_t check(mpi_t *mpi, int code, const char *what) {
    if (code == MPI_SUCCESS)
        return MBL_OK;
    char text[MPI_MAX_ERROR_STRING] = "unknown error";
    int length;
    MPI_Error_string(code, text, &length);
    mpi->broken = MBL_ERR_COMM;
    return MBL_FAIL(MBL_ERR_COMM, "mpi: %s: %s", what, text);
}

/* Opens a collective: starts its deadline, refuses when an earlier one failed. */
static mbl_status_t begin(mbl_comm_t *comm) {
    mpi_t *mpi = comm->impl;
    if (mpi->broken != MBL_OK)
        return MBL_FAIL(mpi->broken, "mpi: an earlier message failed, ranks are out of step");
    mpi->end = comm->deadline_s > 0 ? mbl_now() + comm->deadline_s : 0;
    return MBL_OK;
}

/* Waits for n requests. The first 50 us spin (a small message between ranks that are in step), then up to
 * `spin_s` seconds give the core away between looks, then sleeps grow with the time waited: a few percent
 * late at worst, and next to no CPU. */
static mbl_status_t wait_all(mbl_comm_t *comm, int n, MPI_Request *requests, double spin_s,
                             const char *what) {
    mpi_t *mpi = comm->impl;
    double start = mbl_now();
    for (;;) {
        int done = 0;
        MBL_TRY(check(mpi, MPI_Testall(n, requests, &done, MPI_STATUSES_IGNORE), what));
        if (done)
            return MBL_OK;
        double now = mbl_now(), waited = now - start;
        if (mpi->end > 0 && now > mpi->end) {
            mpi->broken = MBL_ERR_DEADLINE;
            return MBL_FAIL(MBL_ERR_DEADLINE,
                            "mpi: rank %d waited more than %g s in %s; another rank hangs or died",
                            comm->rank, comm->deadline_s, what);
        }
        if (waited < 50e-6)
            continue;
        if (waited < spin_s) {
            sched_yield();
            continue;
        }
        double back_off = waited / 16;
        back_off = back_off < 20e-6 ? 20e-6 : back_off > 1e-3 ? 1e-3 : back_off;
        nanosleep(&(struct timespec){.tv_nsec = (long)(back_off * 1e9)}, NULL);
    }
}

/* Before a large transfer: wait cheaply for the slowest rank, so that the transfer itself, which only
 * advances while we look at it, can be looked at without sleeping. Returns the spin timeout for it. */
static mbl_status_t rendezvous(mbl_comm_t *comm, size_t bytes, double *spin_s) {
    mpi_t *mpi = comm->impl;
    *spin_s = 0;
    if (bytes < LARGE_BYTES)
        return MBL_OK;
    MPI_Request request;
    MBL_TRY(check(mpi, MPI_Ibarrier(mpi->world, &request), "barrier"));
    MBL_TRY(wait_all(comm, 1, &request, 0, "the meeting before a large transfer"));
    *spin_s = 0.02;
    return MBL_OK;
}

static int mpi_available(const char **why_not) {
    int finalized = 0;
    MPI_Finalized(&finalized);
    *why_not = finalized ? "MPI was already finished in this process, and starts only once" : "";
    return !finalized;
}

/* Starts MPI unless someone did, and makes our communicator. */
static mbl_status_t start(mpi_t *mpi) {
    int running = 0;
    MBL_TRY(check(mpi, MPI_Initialized(&running), "asking whether MPI runs"));
    if (!running) {
        int provided = 0;
        MBL_TRY(check(mpi, MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, &provided), "starting"));
        mpi->started = true;
        if (provided < MPI_THREAD_FUNNELED)
            return MBL_FAIL(MBL_ERR_COMM,
                            "mpi: this MPI allows no threads (level %d); at least FUNNELED is needed",
                            provided);
    }
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MBL_TRY(check(mpi, MPI_Comm_dup(MPI_COMM_WORLD, &mpi->world), "making a communicator"));
    return check(mpi, MPI_Comm_set_errhandler(mpi->world, MPI_ERRORS_RETURN), "setting the error handler");
}

/* Rank and size, in the job and on this host; the launcher's word is checked against MPI's. */
static mbl_status_t find_place(mbl_comm_t *comm) {
    mpi_t *mpi = comm->impl;
    MBL_TRY(check(mpi, MPI_Comm_rank(mpi->world, &comm->rank), "asking for the rank"));
    MBL_TRY(check(mpi, MPI_Comm_size(mpi->world, &comm->size), "asking for the size"));
    int launched = mbl_comm_launched(NULL, NULL);
    if (launched > 1 && comm->size == 1)
        return MBL_FAIL(MBL_ERR_COMM,
                        "mpi: the launcher started several processes and MPI sees one: mpirun or srun speaks "
                        "another dialect than the MPI marble was built with (srun: try --mpi=pmix)");
    MPI_Comm host;
    MBL_TRY(check(mpi,
                  MPI_Comm_split_type(mpi->world, MPI_COMM_TYPE_SHARED, comm->rank, MPI_INFO_NULL, &host),
                  "finding the ranks of this host"));
    MPI_Comm_rank(host, &comm->local_rank);
    MPI_Comm_size(host, &comm->local_size);
    comm->host = comm->rank;
    mbl_status_t status = check(mpi, MPI_Bcast(&comm->host, 1, MPI_INT, 0, host), "naming this host");
    MPI_Comm_free(&host);
    return status;
}

static mbl_status_t mpi_open(mbl_comm_t *comm) {
    mpi_t *mpi;
    MBL_ALLOC(mpi, 1);
    mpi->world = mpi->second = MPI_COMM_NULL;
    comm->impl = mpi;
    mbl_status_t status = MBL_OK;
    MBL_ALLOC_GOTO(mpi->pieces, 2 * (size_t)PIECE_BYTES, fail);
    MBL_TRY_GOTO(start(mpi), fail);
    MBL_TRY_GOTO(find_place(comm), fail);
    if (mpi->started)
        (void)atexit(end_the_others);
    left_open = comm->size > 1 ? mpi : NULL;
    return MBL_OK;
fail:
    /* MPI stays as it is: finishing it is collective, and the other ranks may not have failed */
    mbl_free(mpi->pieces);
    mbl_free(mpi);
    return status;
}

static mbl_status_t mpi_barrier(mbl_comm_t *comm) {
    mpi_t *mpi = comm->impl;
    MBL_TRY(begin(comm));
    MPI_Request request;
    MBL_TRY(check(mpi, MPI_Ibarrier(mpi->world, &request), "barrier"));
    return wait_all(comm, 1, &request, 0, "barrier");
}

static void mpi_close(mbl_comm_t *comm) {
    mpi_t *mpi = comm->impl;
    left_open = NULL;
    /* MPI_Finalize waits for everyone without a deadline, so it is only entered together. */
    bool whole = mpi->broken == MBL_OK && mpi_barrier(comm) == MBL_OK;
    if (whole) {
        if (mpi->second != MPI_COMM_NULL)
            MPI_Comm_free(&mpi->second);
        MPI_Comm_free(&mpi->world);
        if (mpi->started)
            MPI_Finalize();
    } else {
        MBL_WARN("mpi: left without MPI_Finalize after a failed message");
    }
    mbl_free(mpi->pieces);
    mbl_free(mpi);
}

static mbl_status_t mpi_bcast(mbl_comm_t *comm, void *data, size_t bytes, int root) {
    mpi_t *mpi = comm->impl;
    unsigned char *at = data;
    double spin_s;
    MBL_TRY(begin(comm));
    MBL_TRY(rendezvous(comm, bytes, &spin_s));
    for (size_t done = 0, n; done < bytes; done += n) {
        n = bytes - done < comm->chunk_bytes ? bytes - done : comm->chunk_bytes;
        MPI_Request request;
        MBL_TRY(check(mpi, MPI_Ibcast(at + done, (int)n, MPI_BYTE, root, mpi->world, &request), "bcast"));
        MBL_TRY(wait_all(comm, 1, &request, spin_s, "bcast"));
    }
    return MBL_OK;
}

static mbl_status_t mpi_allreduce(mbl_comm_t *comm, void *data, size_t count, mbl_comm_type_t type,
                                  mbl_comm_op_t op) {
    mpi_t *mpi = comm->impl;
    MPI_Datatype element = datatype(type);
    MPI_Op operation = op == MBL_COMM_SUM ? MPI_SUM : op == MBL_COMM_MAX ? MPI_MAX : MPI_MIN;
    size_t size = mbl_comm_type_size(type), most = comm->chunk_bytes / size;
    unsigned char *at = data;
    double spin_s;
    MBL_TRY(begin(comm));
    MBL_TRY(rendezvous(comm, count * size, &spin_s));
    for (size_t done = 0, n; done < count; done += n) {
        n = count - done < most ? count - done : most;
        MPI_Request request;
        MBL_TRY(check(
            mpi,
            MPI_Iallreduce(MPI_IN_PLACE, at + done * size, (int)n, element, operation, mpi->world, &request),
            "allreduce"));
        MBL_TRY(wait_all(comm, 1, &request, spin_s, "allreduce"));
    }
    return MBL_OK;
}

/* One pairwise exchange of a reduce_scatter: which elements of a block, to whom and from whom. */
typedef struct {
    size_t first, n;
    int to, from;
} exchange_t;

/* The m-th exchange: pieces in the outer loop, distances 1 .. size - 1 in the inner. */
static exchange_t exchange(const mbl_comm_t *comm, size_t count, size_t most, size_t m) {
    size_t others = (size_t)comm->size - 1;
    int distance = 1 + (int)(m % others);
    size_t first = m / others * most;
    return (exchange_t){first, count - first < most ? count - first : most,
                        (comm->rank + distance) % comm->size,
                        (comm->rank - distance + comm->size) % comm->size};
}

static mbl_status_t post(mbl_comm_t *comm, const unsigned char *in, size_t count, mbl_comm_type_t type,
                         exchange_t e, void *piece, MPI_Request *requests) {
    mpi_t *mpi = comm->impl;
    MPI_Datatype element = datatype(type);
    const unsigned char *block = in + ((size_t)e.to * count + e.first) * mbl_comm_type_size(type);
    MBL_TRY(check(mpi, MPI_Irecv(piece, (int)e.n, element, e.from, 0, mpi->world, &requests[0]),
                  "receiving for reduce_scatter"));
    return check(mpi, MPI_Isend(block, (int)e.n, element, e.to, 0, mpi->world, &requests[1]),
                 "sending for reduce_scatter");
}

/* Each rank sends every other its block and adds what it gets, in an order fixed by rank and size alone.
 * Every link carries (size - 1) / size of the vector once, which is the least possible; MPI's own
 * non-blocking version sends all of it to one rank and back. The next exchange is under way while the last
 * one is added. */
static mbl_status_t mpi_reduce_scatter(mbl_comm_t *comm, const void *in, void *out, size_t count,
                                       mbl_comm_type_t type) {
    mpi_t *mpi = comm->impl;
    size_t size = mbl_comm_type_size(type);
    size_t most = (comm->chunk_bytes < PIECE_BYTES ? comm->chunk_bytes : PIECE_BYTES) / size;
    size_t total = (count / most + (count % most != 0)) * ((size_t)comm->size - 1);
    const unsigned char *own = (const unsigned char *)in + (size_t)comm->rank * count * size;
    MPI_Datatype element = datatype(type);
    MPI_Request requests[2][2];
    double spin_s;
    MBL_TRY(begin(comm));
    MBL_TRY(rendezvous(comm, count * size * (size_t)comm->size, &spin_s));
    if (total)
        MBL_TRY(post(comm, in, count, type, exchange(comm, count, most, 0), mpi->pieces, requests[0]));
    if (out != own)
        memcpy(out, own, count * size);
    for (size_t m = 0; m < total; m++) {
        unsigned char *next = mpi->pieces + (m + 1) % 2 * PIECE_BYTES;
        if (m + 1 < total)
            MBL_TRY(
                post(comm, in, count, type, exchange(comm, count, most, m + 1), next, requests[(m + 1) % 2]));
        MBL_TRY(wait_all(comm, 2, requests[m % 2], spin_s, "reduce_scatter"));
        exchange_t e = exchange(comm, count, most, m);
        MBL_TRY(check(mpi,
                      MPI_Reduce_local(mpi->pieces + m % 2 * PIECE_BYTES,
                                       (unsigned char *)out + e.first * size, (int)e.n, element, MPI_SUM),
                      "adding for reduce_scatter"));
    }
    return MBL_OK;
}

/* n bytes of each rank's block of `bytes`, from offset `first`. The receive type is as wide as a whole block,
 * which puts the parts where they belong however long the blocks are. */
static mbl_status_t gather_part(mbl_comm_t *comm, const unsigned char *in, unsigned char *out, size_t bytes,
                                size_t first, size_t n, double spin_s) {
    mpi_t *mpi = comm->impl;
    MPI_Datatype part = MPI_DATATYPE_NULL, block = MPI_DATATYPE_NULL;
    MPI_Request request;
    mbl_status_t status = MBL_OK;
    MBL_TRY_GOTO(check(mpi, MPI_Type_contiguous((int)n, MPI_BYTE, &part), "allgather's type"), done);
    MBL_TRY_GOTO(check(mpi, MPI_Type_create_resized(part, 0, (MPI_Aint)bytes, &block), "allgather's type"),
                 done);
    MBL_TRY_GOTO(check(mpi, MPI_Type_commit(&block), "allgather's type"), done);
    bool in_place = in == out + (size_t)comm->rank * bytes;
    MBL_TRY_GOTO(check(mpi,
                       MPI_Iallgather(in_place ? MPI_IN_PLACE : in + first, (int)n, MPI_BYTE, out + first, 1,
                                      block, mpi->world, &request),
                       "allgather"),
                 done);
    status = wait_all(comm, 1, &request, spin_s, "allgather");
done:
    /* a type still in use by a transfer lives until that ends */
    if (block != MPI_DATATYPE_NULL)
        MPI_Type_free(&block);
    if (part != MPI_DATATYPE_NULL)
        MPI_Type_free(&part);
    return status;
}

static mbl_status_t mpi_allgather(mbl_comm_t *comm, const void *in, void *out, size_t bytes) {
    double spin_s;
    MBL_TRY(begin(comm));
    MBL_TRY(rendezvous(comm, bytes * (size_t)comm->size, &spin_s));
    for (size_t done = 0, n; done < bytes; done += n) {
        n = bytes - done < comm->chunk_bytes ? bytes - done : comm->chunk_bytes;
        MBL_TRY(gather_part(comm, in, out, bytes, done, n, spin_s));
    }
    return MBL_OK;
}

/* Every rank has to have MPI_THREAD_MULTIPLE, and a rank cannot know the others' level. */
static mbl_status_t mpi_second(mbl_comm_t *comm, const void **native) {
    mpi_t *mpi = comm->impl;
    int level = 0;
    MBL_TRY(check(mpi, MPI_Query_thread(&level), "asking for the thread level"));
    int64_t least = level;
    MBL_TRY(mpi_allreduce(comm, &least, 1, MBL_COMM_I64, MBL_COMM_MIN));
    if (least < MPI_THREAD_MULTIPLE)
        return MBL_FAIL(MBL_ERR_UNSUPPORTED,
                        "this MPI does not let threads communicate at the same time (level %d of a rank; "
                        "MPI_THREAD_MULTIPLE is %d)",
                        (int)least, MPI_THREAD_MULTIPLE);
    if (mpi->second == MPI_COMM_NULL) {
        MBL_TRY(check(mpi, MPI_Comm_dup(mpi->world, &mpi->second), "making a second communicator"));
        MBL_TRY(check(mpi, MPI_Comm_set_errhandler(mpi->second, MPI_ERRORS_RETURN), "setting its errors"));
    }
    *native = &mpi->second;
    return MBL_OK;
}

static mbl_status_t mpi_poll_error(mbl_comm_t *comm) {
    return ((mpi_t *)comm->impl)->broken;
}

static void mpi_abort(mbl_comm_t *comm, int exit_code) {
    MPI_Abort(((mpi_t *)comm->impl)->world, exit_code);
}

const mbl_comm_table_t mbl_comm_mpi = {
    .name = "mpi",
    .space = MBL_HOST,
    .available = mpi_available,
    .open = mpi_open,
    .close = mpi_close,
    .barrier = mpi_barrier,
    .bcast = mpi_bcast,
    .allreduce = mpi_allreduce,
    .reduce_scatter = mpi_reduce_scatter,
    .allgather = mpi_allgather,
    .second = mpi_second,
    .poll_error = mpi_poll_error,
    .abort = mpi_abort,
};
