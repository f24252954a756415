/* What every kernel file (*.cu) includes first: CUDA itself, or its emulation on the host. The only place
 * that knows which of the two it is. Kernels use nothing but: threadIdx, blockIdx, blockDim, gridDim,
 * __syncthreads, __syncwarp, __shfl_*_sync, __ballot/__any/__all_sync, integer atomics where the order cannot
 * matter, the macros below, __ldg and plain loads, vector types, and math functions.
 *   MBL_LAUNCH(kernel, grid, block, shared bytes, stream, arguments...)  a template with a comma in its name
 *       goes in parentheses: MBL_LAUNCH((scale<float, 4>), ...)
 *   MBL_SHARED(T, name, count)       an array of the block, count a constant; T without constructor
 *   MBL_SHARED_DYNAMIC(T, name)      the launch's shared bytes, as T[]; 16-byte aligned
 *   MBL_SHARED_ALLOW(kernel, bytes)  before launching with more than 48 KiB of them; gives a cudaError_t
 *   MBL_UNROLL                       before a loop of constant length
 *   MBL_UNROLL_BY(n)                 before a loop: n rounds are written out, not all of them
 *   mbl_store16(address, uint4)      16 aligned bytes of global memory in one store; an assignment may become
 *       eight, where the compiler cannot follow the address
 * Sums and products are rounded one by one (no contraction): write fma() where one rounding is wanted.
 * After a launch: MBL_CUDA_LAUNCHED (gpu/cuda.h). */
#ifndef MBL_GPU_KERNEL_H
#define MBL_GPU_KERNEL_H

#if MBL_CUDA_EMULATED
#include "gpu/emulation/kernel.h"
#define MBL_UNROLL
#define MBL_UNROLL_BY(n)
static inline void mbl_store16(void *address, uint4 x) {
    *(uint4 *)address = x;
}
#else
#include <cuda_runtime.h>
#include <cuda_bf16.h>

#define MBL_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                           \
    kernel<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__)
#define MBL_UNROLL _Pragma("unroll")
#define MBL_PRAGMA_(text) _Pragma(#text)
#define MBL_UNROLL_BY(n) MBL_PRAGMA_(unroll n)
#define MBL_SHARED(T, name, count) __shared__ T name[count]
#define MBL_SHARED_DYNAMIC(T, name)                                                                          \
    extern __shared__ __align__(16) unsigned char mbl_shared_bytes_[];                                       \
    T *name = reinterpret_cast<T *>(mbl_shared_bytes_)
#define MBL_SHARED_ALLOW(kernel, bytes)                                                                      \
    cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel),                                             \
                         cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(bytes))
static __device__ __forceinline__ void mbl_store16(void *address, uint4 x) {
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(address)),
                 "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w)
                 : "memory");
}
#endif

#endif
