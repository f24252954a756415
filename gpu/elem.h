/* Elements on the device: what memory holds (float, __nv_bfloat16, double) against what is computed with,
 * loads and stores of 16 bytes, sums over a warp, and the choice of a kernel by type. Kernels and their
 * launchers include this after gpu/kernel.h. */
#ifndef MBL_GPU_ELEM_H
#define MBL_GPU_ELEM_H

#include "gpu/kernel.h"
#include "gpu/kernels.h"

enum { MBL_WARP = 32, MBL_THREADS = 256, MBL_WARPS = MBL_THREADS / MBL_WARP };

template <class T> struct mbl_real { typedef T type; };
template <> struct mbl_real<__nv_bfloat16> { typedef float type; };
#define REAL typename mbl_real<T>::type

__device__ inline float mbl_load(float x) {
    return x;
}
__device__ inline double mbl_load(double x) {
    return x;
}
__device__ inline float mbl_load(__nv_bfloat16 x) {
    return __bfloat162float(x);
}
__device__ inline void mbl_store(float *y, float x) {
    *y = x;
}
__device__ inline void mbl_store(float *y, double x) {
    *y = (float)x;
}
__device__ inline void mbl_store(double *y, double x) {
    *y = x;
}
__device__ inline void mbl_store(double *y, float x) {
    *y = (double)x;
}
__device__ inline void mbl_store(__nv_bfloat16 *y, float x) {
    *y = __float2bfloat16_rn(x);
}
__device__ inline void mbl_store(__nv_bfloat16 *y, double x) {
    *y = __float2bfloat16_rn((float)x);
}
/* x as memory of type T would give it back. */
template <class T> __device__ inline REAL mbl_rounded(REAL x) {
    T kept;
    mbl_store(&kept, x);
    return mbl_load(kept);
}

/* V elements from p on: one by one, or in loads of 16 bytes, for which p must be aligned. */
template <class T> struct alignas(16) mbl_chunk { T at[16 / sizeof(T)]; };
template <class T, int V> __device__ inline void mbl_get(REAL (&out)[V], const T *p) {
    if constexpr (V == 1) {
        out[0] = mbl_load(*p);
    } else {
        constexpr int L = 16 / (int)sizeof(T);
        MBL_UNROLL
        for (int c = 0; c < V / L; c++) {
            const mbl_chunk<T> chunk = reinterpret_cast<const mbl_chunk<T> *>(p)[c];
            MBL_UNROLL
            for (int l = 0; l < L; l++)
                out[c * L + l] = mbl_load(chunk.at[l]);
        }
    }
}
template <class T, class R, int V> __device__ inline void mbl_put(T *p, const R (&x)[V]) {
    if constexpr (V == 1) {
        mbl_store(p, x[0]);
    } else {
        constexpr int L = 16 / (int)sizeof(T);
        MBL_UNROLL
        for (int c = 0; c < V / L; c++) {
            T chunk[L];
            uint4 bits;
            MBL_UNROLL
            for (int l = 0; l < L; l++)
                mbl_store(&chunk[l], x[c * L + l]);
            memcpy(&bits, chunk, sizeof bits);
            mbl_store16(p + c * L, bits);
        }
    }
}

/* The sum over groups of `lanes` (a power of two) neighbours in a warp, the same bits in every lane. All
 * lanes of the warp take part. */
template <class R> __device__ inline R mbl_lanes_sum(R x, int lanes) {
    for (int o = lanes / 2; o > 0; o /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, o);
    return x;
}
template <class R> __device__ inline R mbl_warp_sum(R x) {
    MBL_UNROLL
    for (int o = MBL_WARP / 2; o > 0; o /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, o);
    return x;
}

/* ---- host side ---- */

static inline size_t mbl_ceil_div(size_t a, size_t b) {
    return (a + b - 1) / b;
}

/* Whether rows of t (NULL: nothing to say against it) can be taken v elements and 16 bytes at a time. Depends
 * on its strides and not on its row count, so that a sample alone is computed like one of many. */
static inline bool mbl_wide(const mbl_tensor_t *t, size_t v) {
    if (!t)
        return true;
    bool wide = (uintptr_t)t->data % 16 == 0 && t->dim[t->ndim - 1] % v == 0;
    for (int i = 0; i + 1 < t->ndim; i++)
        wide = wide && t->stride[i] * mbl_dtype_size(t->dtype) % 16 == 0;
    return wide;
}
template <class T> static inline T *mbl_data(const mbl_tensor_t *t) {
    return t ? (T *)t->data : NULL;
}

/* Runs what follows with T as the type of that name in memory. */
#define MBL_WITH_TYPE(dtype, T, ...)                                                                         \
    do {                                                                                                     \
        if ((dtype) == MBL_F32) {                                                                            \
            typedef float T;                                                                                 \
            __VA_ARGS__;                                                                                     \
        } else if ((dtype) == MBL_BF16) {                                                                    \
            typedef __nv_bfloat16 T;                                                                         \
            __VA_ARGS__;                                                                                     \
        } else {                                                                                             \
            typedef double T;                                                                                \
            __VA_ARGS__;                                                                                     \
        }                                                                                                    \
    } while (0)
#define MBL_WITH_REAL(dtype, T, ...)                                                                         \
    do {                                                                                                     \
        if ((dtype) == MBL_F32) {                                                                            \
            typedef float T;                                                                                 \
            __VA_ARGS__;                                                                                     \
        } else {                                                                                             \
            typedef double T;                                                                                \
            __VA_ARGS__;                                                                                     \
        }                                                                                                    \
    } while (0)

/* Elements in 16 bytes. */
template <class T> struct mbl_lanes {
    enum { count = 16 / sizeof(T) };
};

#endif
