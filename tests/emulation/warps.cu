/* Warps: collectives that not all lanes reach, order inside a warp, matrix instructions against plain sums.
 */
#include "gpu/kernel.h"
#include "gpu/mma.h"
#include "tests/emulation/cases.h"

static const unsigned all_lanes = 0xffffffffu;

static __global__ void warp_sum(float *y, const float *x) {
    float sum = x[threadIdx.x];
    for (int step = 16; step > 0; step /= 2)
        sum += __shfl_xor_sync(all_lanes, sum, step);
    unsigned big = __ballot_sync(all_lanes, sum > 0.0f);
    float first = __shfl_sync(all_lanes, sum, 0), above = __shfl_up_sync(all_lanes, sum, 1),
          below = __shfl_down_sync(all_lanes, sum, 1);
    int same = __all_sync(all_lanes, first == sum && above == sum && below == sum);
    y[threadIdx.x] = same && (big == all_lanes || big == 0) ? sum : NAN;
}
static void sum_of_lanes(const fixture_t *w) {
    MBL_LAUNCH(warp_sum, 1, 128, 0, w->stream, w->b, w->a);
}
static __global__ void shuffle_of_some(float *y, const float *x) {
    float v = x[threadIdx.x];
    if (threadIdx.x != 5)
        v += __shfl_xor_sync(all_lanes, v, 1);
    y[threadIdx.x] = v;
}
static void lane_missing(const fixture_t *w) {
    MBL_LAUNCH(shuffle_of_some, 1, 32, 0, w->stream, w->b, w->a);
}
static __global__ void shuffle_and_vote(float *y, const float *x) {
    float v = x[threadIdx.x];
    if (threadIdx.x < 16)
        v = __shfl_xor_sync(all_lanes, v, 1);
    else
        v = (float)__any_sync(all_lanes, v > 0.0f);
    y[threadIdx.x] = v;
}
static void two_kinds(const fixture_t *w) {
    MBL_LAUNCH(shuffle_and_vote, 1, 32, 0, w->stream, w->b, w->a);
}
static __global__ void halves(float *y, const float *x) {
    float v = x[threadIdx.x];
    if (threadIdx.x < 16)
        v += __shfl_xor_sync(0x0000ffffu, v, 1);
    else
        v -= __shfl_xor_sync(0xffff0000u, v, 1);
    y[threadIdx.x] = v;
}
static void halves_apart(const fixture_t *w) {
    MBL_LAUNCH(halves, 1, 32, 0, w->stream, w->b, w->a);
}
static __global__ void left_out(float *y, const float *x) {
    y[threadIdx.x] = __shfl_sync(0x0000ffffu, x[threadIdx.x], 0);
}
static void lane_left_out(const fixture_t *w) {
    MBL_LAUNCH(left_out, 1, 32, 0, w->stream, w->b, w->a);
}
static __global__ void from_nobody(float *y, const float *x) {
    y[threadIdx.x] = __shfl_sync(all_lanes, x[threadIdx.x], 20);
}
static void source_missing(const fixture_t *w) {
    MBL_LAUNCH(from_nobody, 1, 16, 0, w->stream, w->b, w->a);
}

/* Neighbours in a warp exchange through shared memory. */
template <bool sync> static __global__ void exchange(float *y, const float *x) {
    MBL_SHARED(float, tile, 64);
    unsigned i = threadIdx.x;
    tile[i] = 0.0f;
    __syncthreads();
    tile[i] = x[i];
    if (sync)
        __syncwarp();
    float other = tile[i ^ 1];
    if (sync)
        __syncwarp();
    tile[i] = other;
    y[i] = other;
}
static void warp_exchange(const fixture_t *w) {
    MBL_LAUNCH(exchange<true>, 1, 64, 0, w->stream, w->b, w->a);
}
static void warp_race(const fixture_t *w) {
    MBL_LAUNCH(exchange<false>, 1, 64, 0, w->stream, w->b, w->a);
}
/* __syncwarp does not order two warps. */
static __global__ void exchange_warps(float *y, const float *x) {
    MBL_SHARED(float, tile, 64);
    unsigned i = threadIdx.x;
    tile[i] = 0.0f;
    __syncthreads();
    tile[i] = x[i];
    __syncwarp();
    y[i] = tile[i ^ 32];
}
static void warps_race(const fixture_t *w) {
    MBL_LAUNCH(exchange_warps, 1, 64, 0, w->stream, w->b, w->a);
}

/* One product of tensor cores from matrices loaded both ways; NAN where it is not the plain sum. */
static __global__ void multiply(float *y) {
    MBL_SHARED(uint4, storage, 16 * 2 + 16);
    __nv_bfloat16 *a = reinterpret_cast<__nv_bfloat16 *>(storage), *b = a + 16 * 16;
    for (int i = (int)threadIdx.x; i < 256; i += 32)
        a[i] = __float2bfloat16((float)(i % 7 - 3));
    for (int i = (int)threadIdx.x; i < 128; i += 32)
        b[i] = __float2bfloat16((float)(i % 5 - 2));
    __syncthreads();
    int lane = (int)threadIdx.x, g = lane / 4, r = lane % 4;
    uint32_t fa[4], fb[4];
    float d[4] = {1.0f, 1.0f, 1.0f, 1.0f};
    mbl_load_matrices(fa, a + (lane % 8 + lane / 8 % 2 * 8) * 16 + lane / 16 * 8);
    mbl_load_matrices_transposed(fb, b + lane % 16 * 8);
    mbl_mma_bf16(d, fa, fb);
    for (int i = 0; i < 4; i++) {
        int row = g + i / 2 * 8, column = 2 * r + i % 2;
        float sum = 1.0f;
        for (int k = 0; k < 16; k++)
            sum += __bfloat162float(a[row * 16 + k]) * __bfloat162float(b[k * 8 + column]);
        y[row * 8 + column] = sum == d[i] ? sum : NAN;
    }
}
static void mma(const fixture_t *w) {
    MBL_LAUNCH(multiply, 1, 32, 0, w->stream, w->b);
}
static __global__ void multiply_of_half(float *y) {
    uint32_t a[4] = {}, b[2] = {};
    float d[4] = {};
    if (threadIdx.x < 16)
        mbl_mma_bf16(d, a, b);
    y[threadIdx.x] = d[0];
}
static void mma_of_half(const fixture_t *w) {
    MBL_LAUNCH(multiply_of_half, 1, 32, 0, w->stream, w->b);
}

/* Asynchronous copies into shared memory; each flag leaves a wait out. */
template <bool wait, bool barrier> static __global__ void fetch(float *y, const float *x) {
    MBL_SHARED(uint4, storage, 32);
    const float *tile = reinterpret_cast<const float *>(storage);
    mbl_copy16(&storage[threadIdx.x], x + threadIdx.x * 4, threadIdx.x < 30);
    mbl_copy_commit();
    if (wait)
        mbl_copy_wait<0>();
    if (barrier)
        __syncthreads();
    y[threadIdx.x] = tile[(threadIdx.x * 4 + 4) % 128];
    if (!wait)
        mbl_copy_wait<0>();
}
static void async_clean(const fixture_t *w) {
    MBL_LAUNCH((fetch<true, true>), 1, 32, 0, w->stream, w->b, w->a);
}
static void async_no_wait(const fixture_t *w) {
    MBL_LAUNCH((fetch<false, true>), 1, 32, 0, w->stream, w->b, w->a);
}
static void async_no_barrier(const fixture_t *w) {
    MBL_LAUNCH((fetch<true, false>), 1, 32, 0, w->stream, w->b, w->a);
}

const case_t warp_cases[] = {
    {"sum_of_lanes", sum_of_lanes, cudaSuccess, {}},
    {"lane_missing", lane_missing, cudaErrorLaunchFailure, {"divergent", "thread (", "has ended"}},
    {"two_kinds", two_kinds, cudaErrorLaunchFailure, {"divergent warp", "for another operation"}},
    {"halves_apart", halves_apart, cudaSuccess, {}},
    {"lane_left_out", lane_left_out, cudaErrorLaunchFailure, {"lane 16", "leaves it out"}},
    {"source_missing", source_missing, cudaErrorLaunchFailure, {"reads from lane 20, which takes no part"}},
    {"warp_exchange", warp_exchange, cudaSuccess, {}},
    {"warp_race", warp_race, cudaErrorLaunchFailure, {"race", "of shared array 'tile'", "no __syncwarp"}},
    {"warps_race", warps_race, cudaErrorLaunchFailure, {"race", "of shared array 'tile'", "no barrier"}},
    {"mma", mma, cudaSuccess, {}},
    {"mma_of_half", mma_of_half, cudaErrorLaunchFailure, {"divergent", "has ended"}},
    {"async_clean", async_clean, cudaSuccess, {}},
    {"async_no_wait", async_no_wait, cudaErrorLaunchFailure, {"uninitialised memory", "'storage'"}},
    {"async_no_barrier", async_no_barrier, cudaErrorLaunchFailure, {"'storage'", "thread ("}},
    {}};
