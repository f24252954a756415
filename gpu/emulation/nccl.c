/* Communicators of the emulated NCCL: joining, leaving, errors. */
#include "gpu/emulation/nccl.h"

#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

static __thread char last_message[MBL_EMU_TEXT]; /* of calls that failed at once */

ncclResult_t ncclGetVersion(int *version) {
    mbl_emu_lock(); /* the first one reads the settings */
    *version = mbl_emu_settings.nccl;
    mbl_emu_unlock();
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result) {
    switch (result) {
#define CASE(name, value, text)                                                                              \
    case name:                                                                                               \
        return text;
        MBL_EMU_NCCL_RESULTS(CASE)
#undef CASE
    }
    return "unknown result code";
}

const char *ncclGetLastError(ncclComm_t comm) {
    return comm && *comm->message ? comm->message : last_message;
}

static ncclResult_t refuse(ncclResult_t result, const char *message) {
    snprintf(last_message, sizeof last_message, "%s", message);
    return result;
}

void mbl_emu_nccl_fail(ncclComm_t comm, ncclResult_t error, const char *format, ...) {
    if (comm->error != ncclSuccess)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(comm->message, sizeof comm->message, format, args);
    va_end(args);
    comm->error = error;
}

/* Ranks meet over MPI here; that NCCL_SOCKET_IFNAME leaves an interface is looked at all the same. Names in
 * it are beginnings, whole with a leading =, and the ones to leave out with a leading ^. */
static bool has_interface(void) {
    const char *wanted = getenv("NCCL_SOCKET_IFNAME");
    if (!wanted || !*wanted)
        return true;
    struct if_nameindex *all = if_nameindex();
    bool except = *wanted == '^', whole = *wanted == '=', found = false;
    wanted += except || whole;
    for (size_t i = 0; all && all[i].if_name && !found; i++) {
        bool named = false;
        for (const char *at = wanted; at && !named; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
            size_t length = strcspn(at, ",");
            named = !strncmp(all[i].if_name, at, length) && (!whole || strlen(all[i].if_name) == length);
        }
        found = named != except;
    }
    if (all)
        if_freenameindex(all);
    return found;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *out) {
    if (!has_interface())
        return refuse(ncclInvalidUsage, "Bootstrap : no socket interface found");
    memset(out, 0, sizeof *out);
    return getrandom(out->internal, sizeof out->internal, 0) == (ssize_t)sizeof out->internal
               ? ncclSuccess
               : refuse(ncclSystemError, "no random bytes");
}

/* Steps: the communicator is duplicated, the ids of all ranks are gathered, they are compared. */
static void join(ncclComm_t comm) {
    int done = 1;
    if (comm->ranks == 1) {
        comm->joined = true;
        return;
    }
    if (MPI_Test(&comm->request, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS)
        mbl_emu_nccl_fail(comm, ncclRemoteError, "MPI failed while joining");
    if (!done || comm->error != ncclSuccess)
        return;
    if (comm->joining++ == 0) {
        if (MPI_Iallgather(&comm->id, sizeof comm->id, MPI_BYTE, comm->ids, sizeof comm->id, MPI_BYTE,
                           comm->mpi, &comm->request) != MPI_SUCCESS)
            mbl_emu_nccl_fail(comm, ncclRemoteError, "MPI failed while joining");
        return;
    }
    for (int r = 0; r < comm->ranks; r++)
        if (memcmp(&comm->ids[r], &comm->id, sizeof comm->id) != 0) {
            mbl_emu_nccl_fail(comm, ncclInvalidUsage, "ranks %d and %d joined with different ids", comm->rank,
                              r);
            return;
        }
    comm->joined = true;
}

/* Whether MPI offers exactly these ranks. */
static const char *check_world(int ranks, int rank) {
    int ready = 0, over = 0, size = 0, own = 0;
    if (ranks < 1 || rank < 0 || rank >= ranks)
        return "no such rank";
    if (ranks == 1)
        return NULL;
    MPI_Initialized(&ready);
    MPI_Finalized(&over);
    if (!ready || over)
        return "emulated NCCL joins ranks over MPI, which is not running";
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Comm_rank(MPI_COMM_WORLD, &own);
    return size != ranks || own != rank ? "emulated NCCL joins all ranks of MPI_COMM_WORLD, by their numbers"
                                        : NULL;
}

static ncclResult_t init(ncclComm_t *out, int ranks, ncclUniqueId id, int rank, bool blocking) {
    const char *wrong = check_world(ranks, rank);
    *out = NULL;
    if (wrong)
        return refuse(ncclInvalidArgument, wrong);
    if (ranks > 1 && !has_interface())
        return refuse(ncclInvalidUsage, "Bootstrap : no socket interface found");
    ncclComm_t comm = calloc(1, sizeof *comm);
    if (!comm)
        return refuse(ncclSystemError, "no memory for a communicator");
    *comm = (struct mbl_emu_nccl){.references = 1,
                                  .rank = rank,
                                  .ranks = ranks,
                                  .device = mbl_emu_current_device(),
                                  .blocking = blocking,
                                  .request = MPI_REQUEST_NULL,
                                  .id = id};
    comm->ids = calloc((size_t)ranks, sizeof *comm->ids);
    if (!comm->ids) {
        free(comm);
        return refuse(ncclSystemError, "no memory for a communicator");
    }
    if (ranks > 1) {
        comm->world = true;
        if (MPI_Comm_idup(MPI_COMM_WORLD, &comm->mpi, &comm->request) != MPI_SUCCESS)
            mbl_emu_nccl_fail(comm, ncclRemoteError, "MPI failed while joining");
    }
    *out = comm;
    return mbl_emu_nccl_settle(comm);
}

ncclResult_t mbl_emu_nccl_settle(ncclComm_t comm) {
    const struct timespec pause = {0, 20000};
    mbl_emu_nccl_progress(comm);
    while (comm->blocking && !comm->joined && comm->error == ncclSuccess) {
        mbl_emu_unlock();
        nanosleep(&pause, NULL);
        mbl_emu_lock();
        mbl_emu_nccl_progress(comm);
    }
    return comm->error != ncclSuccess ? comm->error : comm->joined ? ncclSuccess : ncclInProgress;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *out, int ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t *config) {
    mbl_emu_lock();
    ncclResult_t result = init(out, ranks, id, rank, !config || config->blocking != 0);
    mbl_emu_unlock();
    return result;
}

ncclResult_t ncclCommInitRank(ncclComm_t *out, int ranks, ncclUniqueId id, int rank) {
    return ncclCommInitRankConfig(out, ranks, id, rank, NULL);
}

void mbl_emu_nccl_progress(ncclComm_t comm) {
    if (!comm->joined && comm->error == ncclSuccess && !comm->aborted)
        join(comm);
    while (comm->first && comm->error == ncclSuccess && !comm->aborted)
        if (mbl_emu_nccl_push(comm) == cudaErrorNotReady)
            break;
}

void mbl_emu_nccl_release(ncclComm_t comm) {
    int over = 0;
    if (--comm->references > 0)
        return;
    MPI_Finalized(&over);
    /* After a failure messages may still be on their way into the communicator and its buffers: they are
     * left. */
    if (comm->world && comm->joined && !comm->aborted && comm->error == ncclSuccess && !over)
        MPI_Comm_free(&comm->mpi);
    if (comm->joined || !comm->world)
        free(comm->ids);
    free(comm);
}

static ncclResult_t state_of(ncclComm_t comm) {
    mbl_emu_nccl_progress(comm);
    if (comm->error != ncclSuccess)
        return comm->error;
    return !comm->joined || (comm->finalized && comm->first) ? ncclInProgress : ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *error) {
    if (!comm)
        return refuse(ncclInvalidArgument, "no communicator");
    mbl_emu_lock();
    *error = state_of(comm);
    mbl_emu_unlock();
    return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
    const struct timespec pause = {0, 20000};
    if (!comm)
        return refuse(ncclInvalidArgument, "no communicator");
    mbl_emu_lock();
    comm->finalized = true;
    ncclResult_t state = state_of(comm);
    while (comm->blocking && state == ncclInProgress) {
        mbl_emu_unlock();
        nanosleep(&pause, NULL);
        mbl_emu_lock();
        state = state_of(comm);
    }
    mbl_emu_unlock();
    return state;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    if (!comm)
        return ncclSuccess;
    ncclResult_t result = ncclCommFinalize(comm);
    while (result == ncclInProgress)
        result = ncclCommFinalize(comm);
    mbl_emu_lock();
    mbl_emu_nccl_release(comm);
    mbl_emu_unlock();
    return result;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
    if (!comm)
        return ncclSuccess;
    mbl_emu_lock();
    comm->aborted = true; /* its collectives end, with rubbish, when their streams come to them */
    mbl_emu_nccl_release(comm);
    mbl_emu_unlock();
    return ncclSuccess;
}
