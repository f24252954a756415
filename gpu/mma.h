/* Tensor cores, and the loads that feed them: the few instructions that plain CUDA C++ does not have, each as
 * one function of the same meaning on the device and in the emulation. sm_80 and newer.
 *
 * mbl_mma_bf16, mbl_load_matrices* and nothing else here are collective: all 32 lanes of a warp call them
 * together, with the block's size a multiple of 32 in x alone. g = lane / 4, r = lane % 4. */
#ifndef MBL_GPU_MMA_H
#define MBL_GPU_MMA_H

#include "gpu/kernel.h"

#include <stdint.h>

#if MBL_CUDA_EMULATED
#include "gpu/emulation/mma.h"
#else

/* d += a b with a [16,16], b [16,8] bf16 and d [16,8] f32, spread over the warp:
 *   a[0] = {a(g, 2r), a(g, 2r+1)}, a[1]: row g+8, a[2]: columns + 8, a[3]: both (low half first)
 *   b[0] = {b(2r, g), b(2r+1, g)}, b[1]: rows + 8
 *   d[0], d[1] = d(g, 2r), d(g, 2r+1), d[2], d[3]: row g+8
 * so that d of one product, packed, is a of the next: columns 0..7 give a[0], a[1], columns 8..15 a[2],
 * a[3]. Products are exact, sums in f32. */
static __device__ __forceinline__ void mbl_mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Four 8 x 8 matrices of 16-bit numbers from shared memory. `row` of lane 8 m + i points to row i (16 bytes,
 * aligned to 16) of matrix m. out[m] = {m(g, 2r), m(g, 2r+1)}; transposed: {m(2r, g), m(2r+1, g)}. */
static __device__ __forceinline__ void mbl_load_matrices(uint32_t out[4], const void *row) {
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(at)
                 : "memory");
}
static __device__ __forceinline__ void mbl_load_matrices_transposed(uint32_t out[4], const void *row) {
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(at)
                 : "memory");
}

/* 16 bytes from global to shared memory, both aligned to 16, behind the back of the thread that asks; 16 zero
 * bytes where `some` is false, then `from` is not read. A thread's copies since its last commit are a group;
 * mbl_copy_wait returns when all but this thread's `newest` last groups have arrived. Other threads see them
 * after a barrier behind that. */
static __device__ __forceinline__ void mbl_copy16(void *shared, const void *from, bool some) {
    uint32_t at = (uint32_t)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(some ? 16 : 0)
                 : "memory");
}
static __device__ __forceinline__ void mbl_copy_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int newest> static __device__ __forceinline__ void mbl_copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(newest) : "memory");
}

/* 2^x to 2^-22 relative; results below 2^-126 are 0. */
static __device__ __forceinline__ float mbl_exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Two numbers rounded to bf16 (to nearest, ties to even), the first in the low half. */
static __device__ __forceinline__ uint32_t mbl_pack_bf16(float low, float high) {
    uint32_t y;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
    return y;
}

#endif
#endif
