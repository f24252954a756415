/* Out of bounds and misaligned. */
#include "gpu/kernel.h"
#include "gpu/mma.h"
#include "tests/emulation/cases.h"

static __global__ void add_one(float *y, const float *x, int n) {
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n)
        y[i] = x[i] + 1.0f;
}
static void inside(const fixture_t *w) {
    MBL_LAUNCH(add_one, 2, 128, 0, w->stream, w->b, w->a, COUNT);
}
static void read_past_end(const fixture_t *w) {
    MBL_LAUNCH(add_one, 1, 128, 0, w->stream, w->b, w->a + COUNT - 127, 128);
}
static void write_past_end(const fixture_t *w) {
    MBL_LAUNCH(add_one, 1, 128, 0, w->stream, w->b + COUNT - 127, w->a, 128);
}
static void read_before_start(const fixture_t *w) {
    MBL_LAUNCH(add_one, 1, 128, 0, w->stream, w->b, w->a - 1, 128);
}
static void read_freed(const fixture_t *w) {
    void *gone;
    if (cudaMalloc(&gone, COUNT * sizeof(float)) != cudaSuccess || cudaFree(gone) != cudaSuccess)
        return;
    MBL_LAUNCH(add_one, 1, 128, 0, w->stream, w->b, (const float *)gone, 128);
}

static __global__ void shared_index(float *y, int reach) {
    MBL_SHARED(float, tile, 128);
    int i = (int)threadIdx.x;
    tile[i] = (float)i;
    __syncthreads();
    y[i] = tile[i + reach];
}
static void shared_past_end(const fixture_t *w) {
    MBL_LAUNCH(shared_index, 1, 128, 0, w->stream, w->b, 1);
}
static __global__ void dynamic_index(float *y, int reach) {
    MBL_SHARED_DYNAMIC(float, tile);
    int i = (int)threadIdx.x;
    tile[i] = (float)i;
    __syncthreads();
    y[i] = tile[i + reach];
}
static void dynamic_inside(const fixture_t *w) {
    MBL_LAUNCH(dynamic_index, 2, 64, 64 * sizeof(float), w->stream, w->b, 0);
}
static __global__ void dynamic_inside_blocks(float *y) {
    MBL_SHARED_DYNAMIC(float, tile);
    unsigned i = threadIdx.x;
    tile[i] = (float)i;
    __syncthreads();
    y[blockIdx.x * 64 + i] = tile[63 - i];
}
static void dynamic_clean(const fixture_t *w) {
    MBL_LAUNCH(dynamic_inside_blocks, 4, 64, 64 * sizeof(float), w->stream, w->b);
}
static void dynamic_past_end(const fixture_t *w) {
    MBL_LAUNCH(dynamic_index, 1, 64, 64 * sizeof(float), w->stream, w->b, 1);
}
static void dynamic_missing(const fixture_t *w) {
    MBL_LAUNCH(dynamic_index, 1, 64, 0, w->stream, w->b, 0);
}

static __global__ void copy4(float *y, const float *x) {
    reinterpret_cast<float4 *>(y)[threadIdx.x] = reinterpret_cast<const float4 *>(x)[threadIdx.x];
}
static void aligned(const fixture_t *w) {
    MBL_LAUNCH(copy4, 1, 32, 0, w->stream, w->b, w->a);
}
static void misaligned_load(const fixture_t *w) {
    MBL_LAUNCH(copy4, 1, 32, 0, w->stream, w->b, w->a + 1);
}
static void misaligned_store(const fixture_t *w) {
    MBL_LAUNCH(copy4, 1, 32, 0, w->stream, w->b + 2, w->a);
}
static __global__ void misaligned_matrix(uint32_t *y) {
    MBL_SHARED(uint32_t, tile, 32 * 4 + 1);
    uint32_t m[4];
    for (int i = (int)threadIdx.x; i < 32 * 4 + 1; i += 32)
        tile[i] = (uint32_t)i;
    __syncthreads();
    mbl_load_matrices(m, &tile[threadIdx.x * 4 + 1]);
    y[threadIdx.x] = m[0];
}
static void misaligned_row(const fixture_t *w) {
    MBL_LAUNCH(misaligned_matrix, 1, 32, 0, w->stream, reinterpret_cast<uint32_t *>(w->b));
}

static void copy_too_long(const fixture_t *w) {
    (void)cudaMemsetAsync(w->b + 1, 0, COUNT * sizeof(float), w->stream);
}

const case_t bounds_cases[] = {
    {"inside", inside, cudaSuccess, {}},
    {"read_past_end",
     read_past_end,
     cudaErrorIllegalAddress,
     {"kernel add_one, block (0,0,0), thread (127,0,0): out of bounds: it reads 4 bytes",
      "0 bytes behind the end of a device allocation of 1024 bytes"}},
    {"write_past_end",
     write_past_end,
     cudaErrorIllegalAddress,
     {"thread (127,0,0): out of bounds: it writes"}},
    {"read_before_start",
     read_before_start,
     cudaErrorIllegalAddress,
     {"thread (0,0,0): out of bounds: it reads"}},
    {"read_freed",
     read_freed,
     cudaErrorIllegalAddress,
     {"byte 0 of a device allocation of 1024 bytes that was freed"}},
    {"shared_past_end",
     shared_past_end,
     cudaErrorIllegalAddress,
     {"kernel shared_index, block (0,0,0), thread (127,0,0): out of bounds", "bounds.cu"}},
    {"dynamic_race_of_blocks", dynamic_inside, cudaErrorLaunchFailure, {"race", "block (0,0,0) wrote"}},
    {"dynamic_clean", dynamic_clean, cudaSuccess, {}},
    {"dynamic_past_end",
     dynamic_past_end,
     cudaErrorIllegalAddress,
     {"out of bounds: it reads 4 bytes at byte 256 of shared array 'tile' of 256 bytes"}},
    {"dynamic_missing", dynamic_missing, cudaErrorLaunchFailure, {"'tile', but the launch gives it 0 bytes"}},
    {"aligned", aligned, cudaSuccess, {}},
    {"misaligned_load",
     misaligned_load,
     cudaErrorMisalignedAddress,
     {"thread (0,0,0): misaligned address", "byte 4 of a device allocation", "not a multiple of 16"}},
    {"misaligned_store", misaligned_store, cudaErrorMisalignedAddress, {"byte 8 of a device allocation"}},
    {"misaligned_row", misaligned_row, cudaErrorLaunchFailure, {"not a multiple of 16"}},
    {"copy_too_long",
     copy_too_long,
     cudaErrorIllegalAddress,
     {"fill: out of bounds: it writes 1024 bytes at 0 bytes behind the end of a device allocation of 1024 "
      "bytes"}},
    {}};
