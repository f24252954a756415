/* The part of NCCL that marble uses, emulated over MPI: one rank a process, all ranks of MPI_COMM_WORLD (or
 * one rank alone, without MPI). Names, values and meanings as NVIDIA's documentation gives them. Collectives
 * run in the order of their stream and, on one communicator, in the order they were asked for; they progress
 * inside any call that asks a stream, an event or the communicator how far it is. Every rank adds in the
 * order of the ranks. Beyond NCCL: ranks that ask for different collectives get ncclInvalidUsage instead of
 * waiting for ever. */
#ifndef MBL_EMULATION_NCCL_H
#define MBL_EMULATION_NCCL_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NCCL_VERSION_CODE 22700

typedef struct mbl_emu_nccl *ncclComm_t;
typedef struct {
    char internal[128];
} ncclUniqueId;

/* name, value, text */
#define MBL_EMU_NCCL_RESULTS(X)                                                                              \
    X(ncclSuccess, 0, "no error")                                                                            \
    X(ncclUnhandledCudaError, 1, "unhandled cuda error")                                                     \
    X(ncclSystemError, 2, "unhandled system error")                                                          \
    X(ncclInternalError, 3, "internal error")                                                                \
    X(ncclInvalidArgument, 4, "invalid argument")                                                            \
    X(ncclInvalidUsage, 5, "invalid usage")                                                                  \
    X(ncclRemoteError, 6, "remote process exited or there was a network error")                              \
    X(ncclInProgress, 7, "NCCL operation in progress")
typedef enum {
#define MBL_EMU_NCCL_RESULT(name, value, text) name = value,
    MBL_EMU_NCCL_RESULTS(MBL_EMU_NCCL_RESULT)
#undef MBL_EMU_NCCL_RESULT
} ncclResult_t;

typedef enum {
    ncclInt8 = 0,
    ncclUint8 = 1,
    ncclInt32 = 2,
    ncclInt64 = 4,
    ncclFloat32 = 7,
    ncclFloat64 = 8
} ncclDataType_t;
typedef enum { ncclSum = 0, ncclMax = 2, ncclMin = 3 } ncclRedOp_t;

typedef struct {
    size_t size;
    unsigned magic, version;
    int blocking; /* 0: calls may return ncclInProgress; ncclCommGetAsyncError says when they are done */
} ncclConfig_t;
#define NCCL_CONFIG_INITIALIZER                                                                              \
    { sizeof(ncclConfig_t), 0xcafebeef, NCCL_VERSION_CODE, 1 }

ncclResult_t ncclGetVersion(int *version);
const char *ncclGetErrorString(ncclResult_t result);
const char *ncclGetLastError(ncclComm_t comm);
ncclResult_t ncclGetUniqueId(ncclUniqueId *out);
ncclResult_t ncclCommInitRank(ncclComm_t *out, int ranks, ncclUniqueId id, int rank);
ncclResult_t ncclCommInitRankConfig(ncclComm_t *out, int ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t *config);
ncclResult_t ncclCommFinalize(ncclComm_t comm);
ncclResult_t ncclCommDestroy(ncclComm_t comm);
ncclResult_t ncclCommAbort(ncclComm_t comm);
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *error);
ncclResult_t ncclGroupStart(void);
ncclResult_t ncclGroupEnd(void);

ncclResult_t ncclAllReduce(const void *in, void *out, size_t count, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream);
ncclResult_t ncclReduceScatter(const void *in, void *out, size_t count, ncclDataType_t type, ncclRedOp_t op,
                               ncclComm_t comm, cudaStream_t stream);
ncclResult_t ncclAllGather(const void *in, void *out, size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream);
ncclResult_t ncclBroadcast(const void *in, void *out, size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
