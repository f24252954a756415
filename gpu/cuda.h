/* Private to the cuda backend: its state, its scratch memory, and how CUDA's errors become ours. C, also
 * included by the kernels' C++. */
#ifndef MBL_GPU_CUDA_H
#define MBL_GPU_CUDA_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "gpu/device.h"
#include "ops/ops.h"

typedef struct mbl_cuda_matmuls mbl_cuda_matmuls_t; /* matmul_plan.c: cublasLt, its plans and workspace */

/* What a kernel found wrong with its input: in pinned host memory, read whenever the host waits for the
 * device. position is 0 while all is well, else 1 + where embed met an id that its table lacks. */
typedef struct {
    size_t position, entries;
    int32_t id;
} mbl_cuda_fault_t;

typedef struct {
    mbl_device_t device;
    cudaStream_t stream; /* all work of the handle, in order */
    void *work;          /* device scratch of the running operation, grown as asked, never shrunk */
    size_t work_bytes;
    struct mbl_cuda_staging *staging;    /* staging.c: copies to and from the host */
    cudaEvent_t mark[MBL_OPS_ALL_MARKS]; /* marks.c; NULL: not used so far */
    mbl_cuda_fault_t *fault;
    mbl_cuda_matmuls_t *matmuls;
    struct mbl_cuda_record *record; /* record.c: parts that run as graphs */
} mbl_cuda_t;

static inline mbl_cuda_t *mbl_cuda_of(mbl_ops_t *ops) {
    return (mbl_cuda_t *)ops->impl;
}
static inline cudaStream_t mbl_cuda_stream(mbl_ops_t *ops) {
    return mbl_cuda_of(ops)->stream;
}

/* What follows is for the handle's device: CUDA keeps a current one for every thread, and begins with 0.
 * Needed at every way in that launches, makes or allocates something, whatever thread it comes by. */
mbl_status_t mbl_cuda_enter(mbl_ops_t *ops);

/* Memory of the device that is not cleared; where there is too little, says what for (mbl_ops_part). */
mbl_status_t mbl_cuda_memory(const mbl_ops_t *ops, size_t bytes, void **out);

/* Waits for all that was asked for, and counts it. */
mbl_status_t mbl_cuda_wait(mbl_ops_t *ops);
/* The same for what stands before an event. */
static inline cudaError_t mbl_cuda_wait_event(uint64_t *waits, cudaEvent_t event) {
    ++*waits;
    return cudaEventSynchronize(event);
}

/* Device memory for the running operation: 256-byte aligned, content undefined. Valid until the next
 * operation asks, which the stream orders behind this one. */
mbl_status_t mbl_cuda_workspace(mbl_ops_t *ops, size_t bytes, void **out);

/* ERR_MEM for out of memory, else ERR_DEVICE, with CUDA's own words; MBL_OK for cudaSuccess. */
mbl_status_t mbl_cuda_check_at(const char *file, int line, cudaError_t error, const char *what);
#define MBL_CUDA_TRY(call, what) MBL_TRY(mbl_cuda_check_at(__FILE__, __LINE__, (call), (what)))
/* The end of an operation: whether its launches were accepted. */
#define MBL_CUDA_LAUNCHED(what) mbl_cuda_check_at(__FILE__, __LINE__, cudaGetLastError(), (what))

#ifdef __cplusplus
}
#endif

#endif
