/* A communicator of the emulated NCCL: nccl.c opens and closes it and reports errors, nccl_ops.c runs its
 * collectives. */
#ifndef MBL_GPU_EMULATION_NCCL_H
#define MBL_GPU_EMULATION_NCCL_H

#include "gpu/emulation/queue.h"

#include <mpi.h>
#include <nccl.h>

struct mbl_emu_nccl {
    int references; /* the user's, and one of every collective in a queue */
    int rank, ranks, device;
    bool blocking, aborted, joined, finalized;
    bool world; /* `mpi` is a communicator of ours */
    MPI_Comm mpi;
    MPI_Request request;   /* of joining */
    ncclUniqueId id, *ids; /* ids [ranks], while joining */
    int joining;           /* steps done */
    ncclResult_t error;    /* asynchronous, sticky */
    char message[MBL_EMU_TEXT];
    uint64_t issued, begun;           /* collectives asked for; and started, in that order */
    struct mbl_emu_collective *first; /* those not done, by number */
};

/* Goes on with joining and with what is under way. Called with the lock. */
void mbl_emu_nccl_progress(ncclComm_t comm);
void mbl_emu_nccl_release(ncclComm_t comm);
/* Drives the stream of the collective that is next; cudaErrorNotReady: other ranks are awaited (nccl_ops.c).
 */
cudaError_t mbl_emu_nccl_push(ncclComm_t comm);
/* Records the first asynchronous error. */
void mbl_emu_nccl_fail(ncclComm_t comm, ncclResult_t error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Waits until joined, for a blocking communicator. */
ncclResult_t mbl_emu_nccl_settle(ncclComm_t comm);

#endif
