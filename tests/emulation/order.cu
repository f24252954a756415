/* Work of two streams, with and without what orders it. */
#include "gpu/kernel.h"
#include "tests/emulation/cases.h"

static __global__ void scale(float *y, const float *x, float by) {
    y[threadIdx.x] = by * x[threadIdx.x];
}

static void follow(cudaStream_t later, cudaStream_t earlier) {
    cudaEvent_t event;
    if (cudaEventCreateWithFlags(&event, cudaEventDisableTiming) != cudaSuccess)
        return;
    (void)cudaEventRecord(event, earlier);
    (void)cudaStreamWaitEvent(later, event, 0);
    (void)cudaEventDestroy(event);
}

static void with_event(const fixture_t *w) {
    MBL_LAUNCH(scale, 1, 64, 0, w->stream, w->b, w->a, 2.0f);
    follow(w->other, w->stream);
    MBL_LAUNCH(scale, 1, 64, 0, w->other, w->fresh, w->b, 2.0f);
    follow(w->stream, w->other);
    MBL_LAUNCH(scale, 1, 64, 0, w->stream, w->b, w->fresh, 2.0f);
}
static void read_without_event(const fixture_t *w) {
    MBL_LAUNCH(scale, 1, 64, 0, w->stream, w->b, w->a, 2.0f);
    MBL_LAUNCH(scale, 1, 64, 0, w->other, w->fresh, w->b, 2.0f);
}
static void write_without_event(const fixture_t *w) {
    MBL_LAUNCH(scale, 1, 64, 0, w->stream, w->fresh, w->a, 2.0f);
    follow(w->other, w->stream);
    MBL_LAUNCH(scale, 1, 64, 0, w->other, w->b, w->fresh, 2.0f);
    MBL_LAUNCH(scale, 1, 32, 0, w->stream, w->fresh, w->a, 3.0f); /* the other one may still read it */
}
static void event_too_early(const fixture_t *w) {
    follow(w->other, w->stream);
    MBL_LAUNCH(scale, 1, 64, 0, w->stream, w->b, w->a, 2.0f);
    MBL_LAUNCH(scale, 1, 64, 0, w->other, w->fresh, w->b, 2.0f);
}
static void copy_without_event(const fixture_t *w) {
    void *pinned;
    if (cudaMallocHost(&pinned, 256) != cudaSuccess)
        return;
    MBL_LAUNCH(scale, 1, 64, 0, w->stream, w->b, w->a, 2.0f);
    (void)cudaMemcpyAsync(pinned, w->b, 256, cudaMemcpyDeviceToHost, w->other);
    (void)cudaFreeHost(pinned);
}
static void host_between(const fixture_t *w) {
    MBL_LAUNCH(scale, 1, 64, 0, w->stream, w->b, w->a, 2.0f);
    (void)cudaStreamSynchronize(w->stream);
    MBL_LAUNCH(scale, 1, 64, 0, w->other, w->fresh, w->b, 2.0f);
}
static void both_read(const fixture_t *w) {
    MBL_LAUNCH(scale, 1, 64, 0, w->stream, w->b, w->a, 2.0f);
    MBL_LAUNCH(scale, 1, 64, 0, w->other, w->fresh, w->a, 2.0f);
}

#define BOTH                                                                                                 \
    { "missing stream order", "scale of stream", "no event or synchronisation" }
const case_t order_cases[] = {
    {"with_event", with_event, cudaSuccess, {}},
    {"read_without_event", read_without_event, cudaErrorLaunchFailure, BOTH},
    {"write_without_event", write_without_event, cudaErrorLaunchFailure, BOTH},
    {"event_too_early", event_too_early, cudaErrorLaunchFailure, BOTH},
    {"copy_without_event", copy_without_event, cudaErrorLaunchFailure, {"missing stream order", "of stream"}},
    {"host_between", host_between, cudaSuccess, {}},
    {"both_read", both_read, cudaSuccess, {}},
    {}};
