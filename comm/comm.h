/* Messages between ranks: a table with a name, and the collectives the trainer uses. `self` (one rank) is a
 * transport like any other; `mpi` is Open MPI; `nccl` moves device memory. Every call is collective unless it
 * says local, and blocks. */
#ifndef MBL_COMM_COMM_H
#define MBL_COMM_COMM_H

#include "ops/ops.h"

typedef enum { MBL_COMM_F32, MBL_COMM_F64, MBL_COMM_U8, MBL_COMM_I64 } mbl_comm_type_t;
typedef enum { MBL_COMM_SUM, MBL_COMM_MAX, MBL_COMM_MIN } mbl_comm_op_t;

typedef struct mbl_comm mbl_comm_t;

/* A collective as the flight record keeps it. */
typedef struct {
    const char *op;
    mbl_comm_type_t type;
    mbl_space_t space; /* of the data */
    size_t bytes;
    uint64_t step;
    double start, seconds; /* by mbl_now(); how long it took, once it ended */
    enum { MBL_COMM_WAITS, MBL_COMM_DONE, MBL_COMM_FAILED } state;
} mbl_comm_event_t;
enum { MBL_COMM_RECORD = 64 };

typedef struct {
    const char *name;
    mbl_space_t space;                      /* of the memory its collectives take */
    int (*available)(const char **why_not); /* local; nonzero when this build and this process can use it */
    mbl_status_t (*open)(mbl_comm_t *comm);
    void (*close)(mbl_comm_t *comm);
    mbl_status_t (*barrier)(mbl_comm_t *comm);
    mbl_status_t (*bcast)(mbl_comm_t *comm, void *data, size_t bytes, int root);
    mbl_status_t (*allreduce)(mbl_comm_t *comm, void *data, size_t count, mbl_comm_type_t type,
                              mbl_comm_op_t op);
    /* in [size * count] -> out [count]: the sum over ranks of block `rank`; out may be in's own block. */
    mbl_status_t (*reduce_scatter)(mbl_comm_t *comm, const void *in, void *out, size_t count,
                                   mbl_comm_type_t type);
    /* in [count] -> out [size * count]; in may be out's own block. */
    mbl_status_t (*allgather)(mbl_comm_t *comm, const void *in, void *out, size_t bytes);
    /* optional: reduce_scatters of `rows` vectors, `in_step` and `out_step` bytes apart, as one call that
     * returns before it is done; and the wait for all that were started */
    mbl_status_t (*reduce_scatter_start)(mbl_comm_t *comm, const void *in, size_t in_step, void *out,
                                         size_t out_step, size_t rows, size_t count, mbl_comm_type_t type);
    mbl_status_t (*finish)(mbl_comm_t *comm);
    mbl_status_t (*second)(mbl_comm_t *comm, const void **native); /* optional, see mbl_comm_second */
    mbl_status_t (*poll_error)(mbl_comm_t *comm);                  /* local: an asynchronous error, if any */
    void (*abort)(mbl_comm_t *comm, int exit_code); /* ends every rank; does not return on mpi */
} mbl_comm_table_t;

struct mbl_comm {
    const mbl_comm_table_t *table;
    void *impl;
    int rank, size;
    int local_rank, local_size; /* among the ranks on this host, */
    int host;                   /* of which this is the first */
    mbl_status_t agreed;        /* what all ranks last agreed on; see mbl_comm_settle */
    int failed_rank;    /* the rank whose failure the last agreement on one spread; -1: there was none */
    double deadline_s;  /* a collective that takes longer is an error (ERR_DEADLINE, then abort); 0 waits for
                           ever. The same on every rank. */
    size_t chunk_bytes; /* a transport moves at most this much in one message; the same on every rank */
    uint64_t bytes;     /* payload this rank has put into collectives so far */
    double seconds;     /* spent inside collectives so far */
    mbl_ops_t *ops;     /* of tensors that are not where `table` takes them, see mbl_comm_attach */
    mbl_comm_t *device; /* the same ranks, for memory of ops' device; NULL: none */
    mbl_comm_t *base;   /* of a `device`: the communicator it belongs to */
    const char *why_staged;    /* why there is no `device` */
    mbl_comm_event_t *pending; /* begun, not yet finished; NULL: none */
    mbl_comm_t *pending_on;    /* comm itself or `device` */
    uint64_t step;             /* of the run, for the record; the caller may set it */
    uint64_t calls;            /* collectives so far; number i is in record[i % MBL_COMM_RECORD] */
    mbl_comm_event_t record[MBL_COMM_RECORD];
    bool reported; /* the record was printed */
    void *stage;   /* memory of table->space that they pass through, grown up to chunk_bytes */
    size_t stage_bytes;
};

/* How this process was started, from the environment alone (local, no MPI): the number of ranks mpirun or
 * srun started, 1 without a launcher. *rank (NULL: not wanted) is this process's own number among them.
 * *can_join is false when there are several but the launcher offers nothing to join them by. */
int mbl_comm_launched(int *rank, bool *can_join);

/* name: "auto" (mpi when launched by mpirun or srun with more than one rank, else self), "self", "mpi". MPI
 * is started by the first open of "mpi" and finished by its close, so a process opens it once. */
mbl_status_t mbl_comm_open(const char *name, double deadline_s, mbl_comm_t **out);
/* Collective; after a failed collective it only frees local memory, and the process should end soon. NULL
 * does nothing. */
void mbl_comm_close(mbl_comm_t *comm);

/* The wrappers check arguments, time, count bytes and keep the record, which every rank that sees a
 * collective fail or run out of time prints once; a zero count returns at once. Counts, types and roots are
 * the same on every rank. Results are bit-identical on all ranks and, for a given number of ranks, from call
 * to call. After ERR_COMM or ERR_DEADLINE every further call fails, and the buffers must live until abort. */
mbl_status_t mbl_comm_barrier(mbl_comm_t *comm);
mbl_status_t mbl_comm_bcast(mbl_comm_t *comm, void *data, size_t bytes, int root);
mbl_status_t mbl_comm_allreduce(mbl_comm_t *comm, void *data, size_t count, mbl_comm_type_t type,
                                mbl_comm_op_t op);
mbl_status_t mbl_comm_reduce_scatter(mbl_comm_t *comm, const void *in, void *out, size_t count,
                                     mbl_comm_type_t type);
mbl_status_t mbl_comm_allgather(mbl_comm_t *comm, const void *in, void *out, size_t bytes);
mbl_status_t mbl_comm_poll_error(mbl_comm_t *comm);
void mbl_comm_abort(mbl_comm_t *comm, int exit_code);

/* Tensors of `ops` may be given to the collectives on tensors from here on, until the next attach (NULL: none
 * any more); before ops is closed. Where they lie on a device, they travel over NCCL if that is there on
 * every rank (and MARBLE_NCCL=0 is not set), else in parts through host memory, and the log says so.
 * ERR_DEVICE where two ranks share a GPU. Collective for a device's ops, else local. */
mbl_status_t mbl_comm_attach(mbl_comm_t *comm, mbl_ops_t *ops);
/* A transport for device memory by itself, over `base`, as attach makes it (tests). Both must outlive it.
 * Collective. Close with mbl_comm_close. */
mbl_status_t mbl_comm_open_companion(mbl_comm_t *base, const mbl_comm_table_t *table, mbl_ops_t *ops,
                                     mbl_comm_t **out);
/* As reduce_scatter, row by row: in [rows, size * count] and out [rows, count] (or without rows) of one type
 * (f32, f64, i64 or u8), rows dense, in one memory space; out's row may be in's own block. */
mbl_status_t mbl_comm_reduce_scatter_tensor(mbl_comm_t *comm, const mbl_tensor_t *in,
                                            const mbl_tensor_t *out);
/* The same, but it may return before it is done: neither tensor may be touched until mbl_comm_finish, and
 * operations on others go on meanwhile. At most one at a time. */
mbl_status_t mbl_comm_reduce_scatter_begin(mbl_comm_t *comm, const mbl_tensor_t *in, const mbl_tensor_t *out);
mbl_status_t mbl_comm_finish(mbl_comm_t *comm); /* OK at once when nothing was begun */
/* As allgather: in [count] -> out [size * count], likewise; in may be out's own block. */
mbl_status_t mbl_comm_allgather_tensor(mbl_comm_t *comm, const mbl_tensor_t *in, const mbl_tensor_t *out);

/* Makes every rank return the same status: the most severe of all ranks' (OK only if all are OK;
 * ERR_STOPPED is the mildest failure), which `agreed` remembers; `failed_rank` is the first rank that has it.
 * A failure that only rank 0 would have logged (base/status.h) is logged by the rank that met with it where
 * rank 0 did not. Also how ranks agree on "stop now". */
mbl_status_t mbl_comm_agree(mbl_comm_t *comm, mbl_status_t mine);

/* *same: every rank has the same n values (at most MBL_COMM_SAME; the lowest bit of each is not compared).
 * Collective. */
enum { MBL_COMM_SAME = 8 };
mbl_status_t mbl_comm_same(mbl_comm_t *comm, const uint64_t *values, size_t n, bool *same);

/* For a rank that is about to leave what all ranks do together, with `mine`: where that is a failure other
 * than the one last agreed on, no other rank knows of it and all would wait for this one, so it says why and
 * ends the job at once (mbl_comm_abort with the status' exit code, which returns on `self` only). Returns
 * `mine`. Whoever wants to end with a failure of an earlier agreement agrees on it once more. Local. A
 * process that exits without having closed a communicator of several ranks ends the job, too. */
mbl_status_t mbl_comm_settle(mbl_comm_t *comm, mbl_status_t mine);

/* A communicator of the transport's own kind (for "mpi" an MPI_Comm) over the same ranks, for a library that
 * exchanges messages itself, in a thread of its own while this one goes on. Made once, freed by close.
 * ERR_UNSUPPORTED, not logged, with the reason in mbl_fail_message, where a transport has none or does not
 * let threads communicate at the same time; the same status on every rank. Collective. */
mbl_status_t mbl_comm_second(mbl_comm_t *comm, const void **native);

size_t mbl_comm_type_size(mbl_comm_type_t type);

/* Shard arithmetic (local): n elements padded to size * shard_count; rank r owns [r * count, min(n, (r + 1) *
 * count)). */
size_t mbl_shard_count(size_t n, int size); /* elements per rank, padded, a multiple of 16 */
void mbl_shard_range(size_t n, int size, int rank, size_t *first,
                     size_t *last); /* the real ones: [first, last) */

#endif
