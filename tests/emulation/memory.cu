/* Memory that nobody has written, or that is not the device's. */
#include "gpu/kernel.h"
#include "tests/emulation/cases.h"

static __global__ void copy(float *y, const float *x, int n) {
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x)
        y[i] = x[i];
}
static void written(const fixture_t *w) {
    (void)cudaMemsetAsync(w->fresh, 0, COUNT * sizeof(float), w->stream);
    MBL_LAUNCH(copy, 1, 64, 0, w->stream, w->b, w->fresh, COUNT);
}
static void unwritten(const fixture_t *w) {
    MBL_LAUNCH(copy, 1, 64, 0, w->stream, w->b, w->fresh, COUNT);
}
static void unwritten_tail(const fixture_t *w) {
    (void)cudaMemsetAsync(w->fresh, 0, (COUNT - 1) * sizeof(float), w->stream);
    MBL_LAUNCH(copy, 1, 64, 0, w->stream, w->b, w->fresh, COUNT);
}
static void unwritten_moved(const fixture_t *w) {
    (void)cudaMemcpyAsync(w->b, w->fresh, 64, cudaMemcpyDeviceToDevice, w->stream); /* allowed */
    MBL_LAUNCH(copy, 1, 64, 0, w->stream, w->a, w->b, 16);                          /* this is not */
}
static void unwritten_to_host(const fixture_t *w) {
    float host[4];
    (void)cudaMemcpyAsync(host, w->fresh, sizeof host, cudaMemcpyDeviceToHost, w->stream);
}
static __global__ void shared_fresh(float *y) {
    MBL_SHARED(float, tile, 64);
    if (threadIdx.x < 63)
        tile[threadIdx.x] = 1.0f;
    __syncthreads();
    y[threadIdx.x] = tile[63 - threadIdx.x];
}
static void shared_unwritten(const fixture_t *w) {
    MBL_LAUNCH(shared_fresh, 1, 64, 0, w->stream, w->b);
}
/* What an earlier block wrote is not this one's. */
static __global__ void shared_kept(float *y) {
    MBL_SHARED(float, tile, 64);
    if (blockIdx.x == 0)
        tile[threadIdx.x] = 1.0f;
    y[blockIdx.x * 64 + threadIdx.x] = tile[threadIdx.x];
}
static void shared_of_earlier_block(const fixture_t *w) {
    MBL_LAUNCH(shared_kept, 2, 64, 0, w->stream, w->b);
}

static void host_pointer(const fixture_t *w) {
    static float here[COUNT];
    MBL_LAUNCH(copy, 1, 64, 0, w->stream, w->b, (const float *)here, COUNT);
}
static void host_pointer_written(const fixture_t *w) {
    static float here[COUNT];
    MBL_LAUNCH(copy, 1, 64, 0, w->stream, here, w->a, COUNT);
}
static void null_pointer(const fixture_t *w) {
    MBL_LAUNCH(copy, 1, 64, 0, w->stream, w->b, (const float *)nullptr, COUNT);
}
static void pinned_pointer(const fixture_t *w) {
    void *pinned;
    if (cudaMallocHost(&pinned, COUNT * sizeof(float)) != cudaSuccess)
        return;
    MBL_LAUNCH(copy, 1, 64, 0, w->stream, (float *)pinned, w->a, COUNT);
    MBL_LAUNCH(copy, 1, 64, 0, w->stream, w->b, (const float *)pinned, COUNT);
    (void)cudaFreeHost(pinned);
}
static void other_device(const fixture_t *w) {
    void *there;
    if (cudaSetDevice(1) != cudaSuccess || cudaMalloc(&there, COUNT * sizeof(float)) != cudaSuccess ||
        cudaMemset(there, 0, COUNT * sizeof(float)) != cudaSuccess || cudaSetDevice(0) != cudaSuccess)
        return;
    MBL_LAUNCH(copy, 1, 64, 0, w->stream, w->b, (const float *)there, COUNT);
}
static const float table[4] = {1.0f, 2.0f, 3.0f, 4.0f};
static __global__ void constants(float *y) {
    float own[8];
    for (unsigned i = 0; i < 8; i++)
        own[(i + threadIdx.x) % 8] = table[i % 4];
    y[threadIdx.x] = own[threadIdx.x % 8];
}
static void constants_and_stack(const fixture_t *w) {
    MBL_LAUNCH(constants, 1, 64, 0, w->stream, w->b);
}

const case_t memory_cases[] = {
    {"written", written, cudaSuccess, {}},
    {"unwritten",
     unwritten,
     cudaErrorLaunchFailure,
     {"kernel copy, block (0,0,0), thread (0,0,0): uninitialised memory: it reads 4 bytes at byte 0"}},
    {"unwritten_tail",
     unwritten_tail,
     cudaErrorLaunchFailure,
     {"thread (63,0,0): uninitialised", "byte 1020"}},
    {"unwritten_moved", unwritten_moved, cudaErrorLaunchFailure, {"kernel copy", "uninitialised", "byte 0"}},
    {"unwritten_to_host",
     unwritten_to_host,
     cudaErrorLaunchFailure,
     {"copy to the host: uninitialised memory"}},
    {"shared_unwritten",
     shared_unwritten,
     cudaErrorLaunchFailure,
     {"thread (0,0,0): uninitialised memory: it reads 4 bytes at byte 252 of shared array 'tile'"}},
    {"shared_of_earlier_block",
     shared_of_earlier_block,
     cudaErrorLaunchFailure,
     {"block (1,0,0), thread (0,0,0): uninitialised memory", "'tile'"}},
    {"host_pointer", host_pointer, cudaErrorIllegalAddress, {"host pointer on the device: it reads 4 bytes"}},
    {"host_pointer_written",
     host_pointer_written,
     cudaErrorIllegalAddress,
     {"host pointer on the device: it writes 4 bytes"}},
    {"null_pointer", null_pointer, cudaErrorIllegalAddress, {"host memory or nothing"}},
    {"pinned_pointer", pinned_pointer, cudaSuccess, {}},
    {"other_device", other_device, cudaErrorIllegalAddress, {"memory of another device", "device 1"}},
    {"constants_and_stack", constants_and_stack, cudaSuccess, {}},
    {}};
