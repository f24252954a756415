/* Races between threads, and barriers that not all threads reach. */
#include "gpu/kernel.h"
#include "tests/emulation/cases.h"

/* The sum of a block through shared memory; each flag leaves one barrier out. */
template <bool first, bool each> static __global__ void block_sum(float *y, const float *x) {
    MBL_SHARED(float, part, 128);
    unsigned i = threadIdx.x;
    part[i] = 0.0f;
    __syncthreads();
    part[i] = x[i];
    if (first)
        __syncthreads();
    for (unsigned step = 64; step > 0; step /= 2) {
        float other = i < step ? part[i + step] : 0.0f;
        if (each)
            __syncthreads();
        part[i] += other;
        __syncthreads();
    }
    if (i == 0)
        y[blockIdx.x] = part[0];
}
static void sum_clean(const fixture_t *w) {
    MBL_LAUNCH((block_sum<true, true>), 2, 128, 0, w->stream, w->b, w->a);
}
static void read_after_write(const fixture_t *w) {
    MBL_LAUNCH((block_sum<false, true>), 1, 128, 0, w->stream, w->b, w->a);
}
static void write_after_read(const fixture_t *w) {
    MBL_LAUNCH((block_sum<true, false>), 1, 128, 0, w->stream, w->b, w->a);
}

static __global__ void all_write_one(float *y) {
    MBL_SHARED(float, one, 1);
    one[0] = (float)threadIdx.x;
    __syncthreads();
    y[threadIdx.x] = one[0];
}
static void write_after_write(const fixture_t *w) {
    MBL_LAUNCH(all_write_one, 1, 64, 0, w->stream, w->b);
}

static __global__ void neighbours(__nv_bfloat16 *y, const float *x) {
    y[threadIdx.x] = __float2bfloat16(x[threadIdx.x]);
}
static void halves_of_a_word(const fixture_t *w) {
    MBL_LAUNCH(neighbours, 1, 128, 0, w->stream, reinterpret_cast<__nv_bfloat16 *>(w->b), w->a);
}
static __global__ void same_half(__nv_bfloat16 *y, const float *x) {
    y[threadIdx.x / 2] = __float2bfloat16(x[threadIdx.x]);
}
static void same_half_of_a_word(const fixture_t *w) {
    MBL_LAUNCH(same_half, 1, 128, 0, w->stream, reinterpret_cast<__nv_bfloat16 *>(w->b), w->a);
}

static __global__ void shift_in_global(float *x) {
    float next = threadIdx.x < 63 ? x[threadIdx.x + 1] : 0.0f;
    x[threadIdx.x] = next;
}
static void global_in_block(const fixture_t *w) {
    MBL_LAUNCH(shift_in_global, 1, 64, 0, w->stream, w->b);
}
static __global__ void shift_with_barrier(float *x) {
    float next = threadIdx.x < 63 ? x[threadIdx.x + 1] : 0.0f;
    __syncthreads();
    x[threadIdx.x] = next;
}
static void global_in_block_clean(const fixture_t *w) {
    MBL_LAUNCH(shift_with_barrier, 1, 64, 0, w->stream, w->b);
}

static __global__ void blocks_write_one(float *y) {
    if (threadIdx.x == 0)
        y[0] = (float)blockIdx.x;
}
static void between_blocks(const fixture_t *w) {
    MBL_LAUNCH(blocks_write_one, 3, 32, 0, w->stream, w->b);
}
static __global__ void read_neighbour_block(float *y) {
    unsigned i = blockIdx.x * 32 + threadIdx.x;
    float other = y[(i + 32) % 64];
    y[i] = other;
}
static void read_between_blocks(const fixture_t *w) {
    MBL_LAUNCH(read_neighbour_block, 2, 32, 0, w->stream, w->b);
}
static __global__ void read_everywhere(float *y, const float *x) {
    float sum = 0.0f;
    for (int i = 0; i < COUNT; i++)
        sum += x[i];
    y[blockIdx.x * 32 + threadIdx.x] = sum;
}
static void all_read_one(const fixture_t *w) {
    MBL_LAUNCH(read_everywhere, 4, 32, 0, w->stream, w->b, w->a);
    MBL_LAUNCH(read_everywhere, 4, 32, 0, w->stream, w->a,
               w->b); /* the next launch may write what this read */
}

static __global__ void count(int *n, bool plain) {
    MBL_SHARED(int, here, 1);
    if (threadIdx.x == 0)
        here[0] = 0;
    __syncthreads();
    atomicAdd(&here[0], 1);
    __syncthreads();
    if (threadIdx.x == 0)
        atomicAdd(&n[0], here[0]);
    if (plain && threadIdx.x == 1)
        n[0] += 1;
}
static void atomics_clean(const fixture_t *w) {
    MBL_LAUNCH(count, 3, 64, 0, w->stream, w->n, false);
}
static void atomic_and_plain(const fixture_t *w) {
    MBL_LAUNCH(count, 3, 64, 0, w->stream, w->n, true);
}

static __global__ void half_at_barrier(float *y) {
    if (threadIdx.x < 32)
        __syncthreads();
    y[threadIdx.x] = 1.0f;
}
static void barrier_of_half(const fixture_t *w) {
    MBL_LAUNCH(half_at_barrier, 1, 64, 0, w->stream, w->b);
}
static __global__ void ended_before_barrier(float *y) {
    if (threadIdx.x == 3)
        return;
    __syncthreads();
    y[threadIdx.x] = 1.0f;
}
static void barrier_after_end(const fixture_t *w) {
    MBL_LAUNCH(ended_before_barrier, 1, 64, 0, w->stream, w->b);
}
static __global__ void two_barriers(float *y) {
    if (threadIdx.x % 2)
        __syncthreads();
    else
        __syncthreads();
    y[threadIdx.x] = 1.0f;
}
static void barrier_of_two_sites(const fixture_t *w) {
    MBL_LAUNCH(two_barriers, 1, 64, 0, w->stream, w->b);
}

const case_t race_cases[] = {
    {"sum_clean", sum_clean, cudaSuccess, {}},
    {"read_after_write",
     read_after_write,
     cudaErrorLaunchFailure,
     {"block_sum<false, true>), block (0,0,0), thread (32,0,0): race: it reads 4 bytes at byte 384",
      "of shared array 'part' of 512 bytes, which thread (96,0,0) of this block wrote, with no barrier"}},
    {"write_after_read",
     write_after_read,
     cudaErrorLaunchFailure,
     {"race: it", "of shared array 'part'", "with no barrier between"}},
    {"write_after_write",
     write_after_write,
     cudaErrorLaunchFailure,
     {"thread (1,0,0): race: it writes 4 bytes at byte 0 of shared array 'one'",
      "thread (0,0,0) of this block wrote"}},
    {"halves_of_a_word", halves_of_a_word, cudaSuccess, {}},
    {"same_half_of_a_word",
     same_half_of_a_word,
     cudaErrorLaunchFailure,
     {"race: it writes 2 bytes at byte 0 of a device allocation"}},
    {"global_in_block",
     global_in_block,
     cudaErrorLaunchFailure,
     {"race: it writes 4 bytes at byte 4 of a device allocation", "thread (0,0,0) of this block read"}},
    {"global_in_block_clean", global_in_block_clean, cudaSuccess, {}},
    {"between_blocks",
     between_blocks,
     cudaErrorLaunchFailure,
     {"block (1,0,0), thread (0,0,0): race: it writes", "thread (0,0,0) of block (0,0,0) wrote",
      "nothing orders blocks"}},
    {"read_between_blocks", read_between_blocks, cudaErrorLaunchFailure, {"race: it", "of block (0,0,0)"}},
    {"all_read_one", all_read_one, cudaSuccess, {}},
    {"atomics_clean", atomics_clean, cudaSuccess, {}},
    {"atomic_and_plain",
     atomic_and_plain,
     cudaErrorLaunchFailure,
     {"race: it reads", "atomics of this block wrote"}},
    {"barrier_of_half",
     barrier_of_half,
     cudaErrorLaunchFailure,
     {"thread (32,0,0): divergent barrier: it ends, but thread (0,0,0) waits at __syncthreads"}},
    {"barrier_after_end",
     barrier_after_end,
     cudaErrorLaunchFailure,
     {"thread (3,0,0): divergent barrier: it ends, but thread (0,0,0) waits"}},
    {"barrier_of_two_sites",
     barrier_of_two_sites,
     cudaErrorLaunchFailure,
     {"divergent barrier: it waits at"}},
    {}};
