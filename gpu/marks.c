/* Marks in the stream, as events with times; made when they are first used. */
#include "gpu/marks.h"

static mbl_status_t event_of(mbl_cuda_t *cuda, size_t i, cudaEvent_t *out) {
    if (!cuda->mark[i])
        MBL_CUDA_TRY(cudaEventCreateWithFlags(&cuda->mark[i], cudaEventDefault), "making an event");
    *out = cuda->mark[i];
    return MBL_OK;
}

mbl_status_t mbl_cuda_mark(mbl_ops_t *ops, size_t i) {
    cudaEvent_t event;
    MBL_TRY(mbl_cuda_record_flush(ops));
    MBL_TRY(mbl_cuda_enter(ops));
    MBL_TRY(event_of(mbl_cuda_of(ops), i, &event));
    MBL_CUDA_TRY(cudaEventRecord(event, mbl_cuda_stream(ops)), "marking the time");
    return MBL_OK;
}

mbl_status_t mbl_cuda_between(mbl_ops_t *ops, size_t from, size_t to, double *seconds) {
    const mbl_cuda_t *cuda = mbl_cuda_of(ops);
    float milliseconds;
    MBL_REQUIRE(cuda->mark[from] && cuda->mark[to], "marks %zu and %zu; expected marks that were set", from,
                to);
    MBL_CUDA_TRY(mbl_cuda_wait_event(&ops->waits, cuda->mark[from]), "waiting for the device");
    MBL_CUDA_TRY(mbl_cuda_wait_event(&ops->waits, cuda->mark[to]), "waiting for the device");
    MBL_CUDA_TRY(cudaEventElapsedTime(&milliseconds, cuda->mark[from], cuda->mark[to]),
                 "the time between two marks");
    *seconds = 1e-3 * (double)milliseconds;
    return MBL_OK;
}

void mbl_cuda_marks_close(mbl_cuda_t *cuda) {
    for (size_t i = 0; i < MBL_OPS_ALL_MARKS; i++)
        if (cuda->mark[i])
            cudaEventDestroy(cuda->mark[i]);
}
