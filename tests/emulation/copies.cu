/* MARBLE_EMULATED_CHECKS=first: what launches of the quick copy leave behind. Two launches of one shape are
 * checked, the third and later ones are not. */
#include "gpu/kernel.h"
#include "tests/emulation/cases.h"

#include <cmath>

static __global__ void fill(float *y, const float *x) {
    y[threadIdx.x] = x[threadIdx.x];
}
static __global__ void later(float *y, const float *x) {
    y[threadIdx.x] = x[threadIdx.x];
}
static void fill_twice(const fixture_t *w) {
    for (int i = 0; i < 2; i++)
        MBL_LAUNCH(fill, 1, COUNT, 0, w->stream, w->b, w->a);
}

static void third_unchecked(const fixture_t *w) {
    fill_twice(w);
    MBL_LAUNCH(fill, 1, COUNT, 0, w->stream, w->a, w->fresh); /* reads what nobody wrote */
}
static void second_checked(const fixture_t *w) {
    MBL_LAUNCH(fill, 1, COUNT, 0, w->stream, w->b, w->a);
    MBL_LAUNCH(fill, 1, COUNT, 0, w->stream, w->b, w->fresh);
}
static void other_grid_checked(const fixture_t *w) {
    fill_twice(w);
    MBL_LAUNCH(fill, 1, COUNT / 2, 0, w->stream, w->b, w->fresh);
}
static void written_unseen(const fixture_t *w) {
    fill_twice(w);
    MBL_LAUNCH(fill, 1, COUNT, 0, w->stream, w->fresh, w->a);
    MBL_LAUNCH(later, 1, COUNT, 0, w->stream, w->b, w->fresh);
}
static void copied_unseen(const fixture_t *w) {
    void *next;
    fill_twice(w);
    MBL_LAUNCH(fill, 1, COUNT, 0, w->stream, w->fresh, w->a);
    if (cudaMalloc(&next, COUNT * sizeof(float)) != cudaSuccess)
        return;
    (void)cudaMemcpyAsync(next, w->fresh, COUNT * sizeof(float), cudaMemcpyDeviceToDevice, w->stream);
    MBL_LAUNCH(later, 1, COUNT, 0, w->stream, w->b, static_cast<const float *>(next));
}
/* What is allocated later does not count as written. */
static void fresh_again(const fixture_t *w) {
    void *next;
    fill_twice(w);
    MBL_LAUNCH(fill, 1, COUNT, 0, w->stream, w->fresh, w->a);
    if (cudaStreamSynchronize(w->stream) != cudaSuccess || cudaFree(w->fresh) != cudaSuccess ||
        cudaMalloc(&next, COUNT * sizeof(float)) != cudaSuccess)
        return;
    MBL_LAUNCH(later, 1, COUNT, 0, w->stream, w->b, static_cast<const float *>(next));
}
/* The quick launch orders the other two, though it is in no record. */
static void ordered_through(const fixture_t *w) {
    cudaEvent_t first, second;
    cudaStream_t third;
    if (cudaEventCreate(&first) != cudaSuccess || cudaEventCreate(&second) != cudaSuccess ||
        cudaStreamCreateWithFlags(&third, cudaStreamNonBlocking) != cudaSuccess)
        return;
    fill_twice(w);
    (void)cudaEventRecord(first, w->stream);
    (void)cudaStreamWaitEvent(w->other, first, 0);
    MBL_LAUNCH(fill, 1, COUNT, 0, w->other, w->fresh, w->b);
    (void)cudaEventRecord(second, w->other);
    (void)cudaStreamWaitEvent(third, second, 0);
    MBL_LAUNCH(later, 1, COUNT, 0, third, w->b, w->fresh);
}
static void unordered(const fixture_t *w) {
    fill_twice(w);
    MBL_LAUNCH(fill, 1, COUNT, 0, w->stream, w->a, w->b);
    MBL_LAUNCH(later, 1, COUNT, 0, w->other, w->fresh, w->b);
}

static __global__ void through_shared(float *y, bool all) {
    MBL_SHARED(float, tile, COUNT);
    if (all || threadIdx.x > 0)
        tile[threadIdx.x] = 1.0f;
    __syncthreads();
    y[threadIdx.x] = tile[COUNT - 1 - threadIdx.x];
}
static void shared_after_quick(const fixture_t *w) {
    for (int i = 0; i < 3; i++)
        MBL_LAUNCH(through_shared, 1, COUNT, 0, w->stream, w->b, true);
    MBL_LAUNCH(through_shared, 2, COUNT, 0, w->stream, w->b, false);
}

/* Products, sums, functions and a warp's sum: where rounding could differ. */
static __device__ float mixed(int i) {
    float x = 0.37f * (float)i, sum = 0;
    for (int k = 1; k < 20; k++)
        sum += x * (float)k + expf(-x / (float)k) * (x - (float)k) + fmaf(x, sum, 0.1f) / 7.0f;
    for (int o = 16; o > 0; o /= 2)
        sum += 0.3f * __shfl_xor_sync(0xffffffffu, sum, o);
    return sum;
}
static __global__ void compute(float *y) {
    y[threadIdx.x] = mixed((int)threadIdx.x);
}
static __global__ void compare(float *y, const float *x) {
    y[threadIdx.x] = __float_as_uint(y[threadIdx.x]) == __float_as_uint(x[threadIdx.x]) ? 0.0f : NAN;
}
static void same_bits(const fixture_t *w) {
    for (int i = 0; i < 2; i++)
        MBL_LAUNCH(compute, 1, COUNT, 0, w->stream, w->a);
    MBL_LAUNCH(compute, 1, COUNT, 0, w->stream, w->b);
    MBL_LAUNCH(compare, 1, COUNT, 0, w->stream, w->b, w->a);
}

const case_t copy_cases[] = {
    {"third_unchecked", third_unchecked, cudaSuccess, {}},
    {"second_checked", second_checked, cudaErrorLaunchFailure, {"kernel fill", "uninitialised", "byte 0"}},
    {"other_grid_checked", other_grid_checked, cudaErrorLaunchFailure, {"kernel fill", "uninitialised"}},
    {"written_unseen", written_unseen, cudaSuccess, {}},
    {"copied_unseen", copied_unseen, cudaSuccess, {}},
    {"fresh_again", fresh_again, cudaErrorLaunchFailure, {"kernel later", "uninitialised"}},
    {"ordered_through", ordered_through, cudaSuccess, {}},
    {"unordered", unordered, cudaErrorLaunchFailure, {"kernel later", "missing stream order", "fill"}},
    {"shared_after_quick",
     shared_after_quick,
     cudaErrorLaunchFailure,
     {"kernel through_shared", "uninitialised memory", "byte 0 of shared array 'tile'"}},
    {"same_bits", same_bits, cudaSuccess, {}},
    {}};
