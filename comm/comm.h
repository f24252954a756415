/* Messages between ranks: a table with a name, and the collectives the trainer uses. `self` (one rank) is a
 * transport like any other; `mpi` is Open MPI; `nccl` moves device memory. Every call is collective unless it
 * says local, and blocks. */
#ifndef MBL_COMM_COMM_H
#define MBL_COMM_COMM_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef enum { MBL_COMM_F32, MBL_COMM_F64, MBL_COMM_U8, MBL_COMM_I64 } mbl_comm_type_t;
typedef enum { MBL_COMM_SUM, MBL_COMM_MAX, MBL_COMM_MIN } mbl_comm_op_t;

typedef struct mbl_comm mbl_comm_t;

typedef struct {
    const char *name;
    int (*available)(const char **why_not); /* local; nonzero when this build and this process can use it */
    mbl_status_t (*open)(mbl_comm_t *comm);
    void (*close)(mbl_comm_t *comm);
    mbl_status_t (*barrier)(mbl_comm_t *comm);
    mbl_status_t (*bcast)(mbl_comm_t *comm, void *data, size_t bytes, int root);
    mbl_status_t (*allreduce)(mbl_comm_t *comm, void *data, size_t count, mbl_comm_type_t type,
                              mbl_comm_op_t op);
    /* in [size * count] -> out [count]: the sum over ranks of block `rank`. */
    mbl_status_t (*reduce_scatter)(mbl_comm_t *comm, const void *in, void *out, size_t count,
                                   mbl_comm_type_t type);
    /* in [count] -> out [size * count]; in may be out's own block. */
    mbl_status_t (*allgather)(mbl_comm_t *comm, const void *in, void *out, size_t bytes);
    mbl_status_t (*poll_error)(mbl_comm_t *comm);   /* local: an asynchronous error, if any */
    void (*abort)(mbl_comm_t *comm, int exit_code); /* ends every rank; does not return on mpi */
} mbl_comm_table_t;

struct mbl_comm {
    const mbl_comm_table_t *table;
    void *impl;
    int rank, size;
    int local_rank, local_size; /* among the ranks on this host */
    double deadline_s; /* a collective that takes longer is an error (ERR_DEADLINE, then abort); 0 waits for
                          ever */
    uint64_t bytes;    /* payload this rank has put into collectives so far */
    double seconds;    /* spent inside collectives so far */
};

/* name: "auto" (mpi when launched by mpirun or srun with more than one rank, else self), "self", "mpi". */
mbl_status_t mbl_comm_open(const char *name, double deadline_s, mbl_comm_t **out);
void mbl_comm_close(mbl_comm_t *comm);

mbl_status_t mbl_comm_barrier(mbl_comm_t *comm);
mbl_status_t mbl_comm_bcast(mbl_comm_t *comm, void *data, size_t bytes, int root);
mbl_status_t mbl_comm_allreduce(mbl_comm_t *comm, void *data, size_t count, mbl_comm_type_t type,
                                mbl_comm_op_t op);
mbl_status_t mbl_comm_reduce_scatter(mbl_comm_t *comm, const void *in, void *out, size_t count,
                                     mbl_comm_type_t type);
mbl_status_t mbl_comm_allgather(mbl_comm_t *comm, const void *in, void *out, size_t bytes);
mbl_status_t mbl_comm_poll_error(mbl_comm_t *comm);
void mbl_comm_abort(mbl_comm_t *comm, int exit_code);

/* Makes every rank return the same status: the gravest of all ranks' (OK only if all are OK). Also how ranks
 * agree on "stop now". */
mbl_status_t mbl_comm_agree(mbl_comm_t *comm, mbl_status_t mine);

/* Shard arithmetic (local): n elements padded to size * shard_count; rank r owns [r * count, min(n, (r + 1) *
 * count)). */
size_t mbl_shard_count(size_t n, int size); /* elements per rank, padded, a multiple of 16 */
void mbl_shard_range(size_t n, int size, int rank, size_t *first,
                     size_t *last); /* the real ones: [first, last) */

#endif
