/* The cuda backend: its table, its memory, and copies through pinned staging. All work goes to one stream, in
 * order; the host waits only where it reads. */
#include "gpu/cuda.h"
#include "base/log.h"
#include "base/mem.h"
#include "gpu/device.h"
#include "gpu/kernels.h"
#include "gpu/marks.h"
#include "gpu/matmul.h"
#include "gpu/record.h"
#include "gpu/staging.h"

#include <stdio.h>
#include <string.h>

static const double gib = 1073741824.0;

mbl_status_t mbl_cuda_check_at(const char *file, int line, cudaError_t error, const char *what) {
    if (error == cudaSuccess)
        return MBL_OK;
    const char *advice = "";
    if (error == cudaErrorECCUncorrectable)
        advice = "; the GPU's memory has failed: resume from the last checkpoint on another one";
    else if (error == cudaErrorIllegalAddress || error == cudaErrorLaunchFailure)
        advice = "; a kernel went astray: compute-sanitizer names it";
    return mbl_fail_at(file, line, error == cudaErrorMemoryAllocation ? MBL_ERR_MEM : MBL_ERR_DEVICE,
                       "CUDA: %s: %s (%s)%s", what, cudaGetErrorString(error), cudaGetErrorName(error),
                       advice);
}

static mbl_status_t out_of_memory(const mbl_ops_t *ops, size_t bytes) {
    size_t left = 0, total = 0;
    cudaGetLastError(); /* the failed allocation is not an error of what comes next */
    MBL_CUDA_TRY(cudaMemGetInfo(&left, &total), "asking for free memory");
    return mbl_ops_no_memory(ops, "device memory", bytes, left);
}

mbl_status_t mbl_cuda_memory(const mbl_ops_t *ops, size_t bytes, void **out) {
    cudaError_t error = cudaMalloc(out, bytes);
    if (error == cudaErrorMemoryAllocation)
        return out_of_memory(ops, bytes);
    return mbl_cuda_check_at(__FILE__, __LINE__, error, "an allocation");
}

mbl_status_t mbl_cuda_wait(mbl_ops_t *ops) {
    mbl_cuda_t *cuda = mbl_cuda_of(ops);
    ops->waits++;
    MBL_CUDA_TRY(cudaStreamSynchronize(cuda->stream), "waiting for the device");
    mbl_cuda_staging_passed(cuda->staging);
    return MBL_OK;
}

mbl_status_t mbl_cuda_workspace(mbl_ops_t *ops, size_t bytes, void **out) {
    mbl_cuda_t *cuda = mbl_cuda_of(ops);
    if (bytes > cuda->work_bytes) {
        MBL_TRY(mbl_cuda_wait(ops));
        mbl_cuda_record_forget(ops); /* graphs have the old address */
        MBL_CUDA_TRY(cudaFree(cuda->work), "freeing scratch memory");
        cuda->work = NULL;
        cuda->work_bytes = 0;
        MBL_TRY(mbl_cuda_memory(ops, bytes, &cuda->work));
        cuda->work_bytes = bytes;
    }
    *out = cuda->work;
    return MBL_OK;
}

static void cuda_close(mbl_ops_t *ops) {
    mbl_cuda_t *cuda = mbl_cuda_of(ops);
    if (cuda->stream)
        cudaStreamSynchronize(cuda->stream);
    mbl_cuda_record_close(cuda->record);
    mbl_cuda_matmuls_close(cuda->matmuls);
    if (cuda->work)
        cudaFree(cuda->work);
    mbl_cuda_staging_close(cuda->staging);
    mbl_cuda_marks_close(cuda);
    if (cuda->fault)
        cudaFreeHost(cuda->fault);
    if (cuda->stream)
        cudaStreamDestroy(cuda->stream);
    mbl_device_release(&cuda->device);
    mbl_free(cuda);
    ops->impl = NULL;
}

static mbl_status_t open_parts(mbl_ops_t *ops, mbl_cuda_t *cuda) {
    void *fault;
    MBL_TRY(mbl_device_open(&cuda->device));
    MBL_CUDA_TRY(cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking), "making a stream");
    MBL_TRY(mbl_cuda_staging_open(&ops->waits, &cuda->staging));
    MBL_CUDA_TRY(cudaHostAlloc(&fault, sizeof *cuda->fault, cudaHostAllocMapped),
                 "pinning memory for faults");
    cuda->fault = fault;
    memset(fault, 0, sizeof *cuda->fault);
    MBL_TRY(mbl_cuda_record_open(&cuda->record));
    return mbl_cuda_matmuls_open(ops, &cuda->matmuls);
}

static mbl_status_t cuda_open(mbl_ops_t *ops, int threads) {
    (void)threads;
    mbl_cuda_t *cuda;
    MBL_ALLOC(cuda, 1);
    cuda->device.claim = -1;
    ops->impl = cuda;
    mbl_status_t status = open_parts(ops, cuda);
    if (status != MBL_OK) {
        cuda_close(ops);
        return status;
    }
    if (MBL_CUDA_EMULATED)
        MBL_INFO("device cuda is emulated on the CPU in this build: for tests, far slower than device cpu");
    return MBL_OK;
}

static void cuda_describe(mbl_ops_t *ops, char *out, size_t size) {
    const mbl_device_t *d = &mbl_cuda_of(ops)->device;
    snprintf(out, size, "%s%s, %.1f GiB, compute capability %d.%d, driver for CUDA %d.%d, device %d of %d",
             MBL_CUDA_EMULATED ? "emulated on the CPU: " : "", d->name, (double)d->memory / gib,
             d->capability / 10, d->capability % 10, d->driver / 1000, d->driver % 1000 / 10, d->index,
             d->count);
}

mbl_status_t mbl_cuda_enter(mbl_ops_t *ops) {
    MBL_CUDA_TRY(cudaSetDevice(mbl_cuda_of(ops)->device.index), "choosing the device");
    return MBL_OK;
}

static mbl_status_t cuda_alloc(mbl_ops_t *ops, size_t bytes, void **out) {
    mbl_cuda_t *cuda = mbl_cuda_of(ops);
    void *ptr;
    MBL_TRY(mbl_cuda_enter(ops));
    MBL_TRY(mbl_cuda_memory(ops, bytes, &ptr));
    MBL_CUDA_TRY(cudaMemsetAsync(ptr, 0, bytes, cuda->stream), "clearing a tensor");
    *out = ptr;
    return MBL_OK;
}

static void cuda_free(mbl_ops_t *ops, void *ptr) {
    (void)mbl_cuda_record_flush(ops);
    (void)mbl_cuda_wait(ops);
    cudaFree(ptr);
}

/* What kernels reported since the last time, as a failure. The device has finished. */
static mbl_status_t check_fault(mbl_cuda_t *cuda) {
    mbl_cuda_fault_t fault = *cuda->fault;
    if (fault.position == 0)
        return MBL_OK;
    memset(cuda->fault, 0, sizeof *cuda->fault);
    return MBL_FAIL(MBL_ERR_ARG, "embed: id %d at position %zu, the table has rows 0 to %zu", (int)fault.id,
                    fault.position - 1, fault.entries - 1);
}

static mbl_status_t cuda_memory_left(mbl_ops_t *ops, size_t *bytes) {
    size_t total;
    MBL_TRY(mbl_cuda_enter(ops));
    MBL_CUDA_TRY(cudaMemGetInfo(bytes, &total), "asking for free memory");
    return MBL_OK;
}

static mbl_status_t cuda_sync(mbl_ops_t *ops) {
    mbl_cuda_t *cuda = mbl_cuda_of(ops);
    MBL_TRY(mbl_cuda_record_flush(ops));
    MBL_TRY(mbl_cuda_wait(ops));
    return check_fault(cuda);
}

static mbl_status_t cuda_copy(mbl_ops_t *ops, void *dst, mbl_space_t dst_space, const void *src,
                              mbl_space_t src_space, size_t bytes) {
    mbl_cuda_t *cuda = mbl_cuda_of(ops);
    MBL_TRY(mbl_cuda_enter(ops));
    if (dst_space == MBL_DEVICE && src_space == MBL_DEVICE)
        return mbl_cuda_record_copy(ops, dst, src, bytes);
    MBL_TRY(mbl_cuda_record_flush(ops));
    if (dst_space == MBL_DEVICE)
        return mbl_cuda_staging_put(cuda->staging, dst, src, bytes, cuda->stream);
    if (src_space == MBL_DEVICE) {
        MBL_TRY(mbl_cuda_staging_get(cuda->staging, dst, src, bytes, cuda->stream));
        return check_fault(cuda);
    }
    memmove(dst, src, bytes);
    return MBL_OK;
}

static void *cuda_stream(mbl_ops_t *ops) {
    return mbl_cuda_stream(ops);
}

static mbl_status_t cuda_alloc_host(mbl_ops_t *ops, size_t bytes, void **out) {
    MBL_TRY(mbl_cuda_enter(ops));
    MBL_CUDA_TRY(cudaHostAlloc(out, bytes, cudaHostAllocDefault), "pinning memory");
    return MBL_OK;
}

static void cuda_free_host(mbl_ops_t *ops, void *ptr) {
    (void)mbl_cuda_record_flush(ops);
    (void)mbl_cuda_wait(ops);
    cudaFreeHost(ptr);
}

/* From Ampere on; the backend is built for no older device. */
static bool cuda_bf16(mbl_ops_t *ops) {
    (void)ops;
    return true;
}

const mbl_ops_table_t mbl_ops_cuda = {.name = "cuda",
                                      .automatic = !MBL_CUDA_EMULATED,
                                      .space = MBL_DEVICE,
                                      .open = cuda_open,
                                      .close = cuda_close,
                                      .describe = cuda_describe,
                                      .bf16_is_native = cuda_bf16,
                                      .alloc = cuda_alloc,
                                      .free = cuda_free,
                                      .copy = cuda_copy,
                                      .zero = mbl_cuda_record_zero,
                                      .sync = cuda_sync,
                                      .memory_left = cuda_memory_left,
                                      .mark = mbl_cuda_mark,
                                      .between = mbl_cuda_between,
                                      .stream = cuda_stream,
                                      .alloc_host = cuda_alloc_host,
                                      .free_host = cuda_free_host,
                                      .record_begin = mbl_cuda_record_begin,
                                      .record_end = mbl_cuda_record_end,
#define SLOT(name, need) .name = mbl_cuda_recorded_##name,
                                      MBL_OPS_LIST(SLOT)
#undef SLOT
};
