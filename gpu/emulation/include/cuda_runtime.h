/* CUDA C++ for kernels compiled by the host compiler: qualifiers, indices, barriers, warp collectives,
 * integer atomics, and the device functions that <cmath> lacks. */
#ifndef MBL_EMULATION_CUDA_RUNTIME_H
#define MBL_EMULATION_CUDA_RUNTIME_H

#include <cmath>
#include <cstdint>
#include <cstring>

#include <cuda_runtime_api.h>

#include "gpu/emulation/device.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

/* ---- indices ---- */

static inline uint3 mbl_emu_read3(const uint3 &in) {
    uint3 out;
    MBL_EMU_READ(out.x, in.x);
    MBL_EMU_READ(out.y, in.y);
    MBL_EMU_READ(out.z, in.z);
    return out;
}
static inline dim3 mbl_emu_read_dim(const uint3 &in) {
    uint3 v = mbl_emu_read3(in);
    return dim3(v.x, v.y, v.z);
}
#define threadIdx (mbl_emu_read3(mbl_emu_index.thread))
#define blockIdx (mbl_emu_read3(mbl_emu_index.block))
#define blockDim (mbl_emu_read_dim(mbl_emu_index.block_dim))
#define gridDim (mbl_emu_read_dim(mbl_emu_index.grid_dim))
static const int warpSize = 32;

/* ---- vectors ---- */

#define MBL_EMU_MAKE(type, name)                                                                             \
    static inline name##2 make_##name##2(type x, type y) {                                                   \
        return {x, y};                                                                                       \
    }                                                                                                        \
    static inline name##3 make_##name##3(type x, type y, type z) {                                           \
        return {x, y, z};                                                                                    \
    }                                                                                                        \
    static inline name##4 make_##name##4(type x, type y, type z, type w) {                                   \
        return {x, y, z, w};                                                                                 \
    }
MBL_EMU_MAKE(unsigned char, uchar)
MBL_EMU_MAKE(unsigned short, ushort)
MBL_EMU_MAKE(int, int)
MBL_EMU_MAKE(unsigned, uint)
MBL_EMU_MAKE(float, float)
MBL_EMU_MAKE(double, double)
MBL_EMU_MAKE(long long, longlong)
MBL_EMU_MAKE(unsigned long long, ulonglong)
#undef MBL_EMU_MAKE

/* ---- barriers and warp collectives ---- */

#define __syncthreads() mbl_emu_barrier(__FILE__, __LINE__)
static inline void __syncwarp(unsigned mask = 0xffffffffu, int line = __builtin_LINE()) {
    mbl_emu_syncwarp(mask, line);
}
static inline void __threadfence() {}
static inline void __threadfence_block() {}

template <class T>
static inline T mbl_emu_shuffle_of(mbl_emu_collective_t kind, unsigned mask, T value, int argument, int width,
                                   int line) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
    uint64_t bits = 0;
    __builtin_memcpy(&bits, &value, sizeof value);
    bits = mbl_emu_shuffle(kind, mask, bits, argument, width, line);
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}
template <class T>
static inline T __shfl_sync(unsigned mask, T value, int lane, int width = 32, int line = __builtin_LINE()) {
    return mbl_emu_shuffle_of(MBL_EMU_SHUFFLE_INDEX, mask, value, lane, width, line);
}
template <class T>
static inline T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32,
                               int line = __builtin_LINE()) {
    return mbl_emu_shuffle_of(MBL_EMU_SHUFFLE_UP, mask, value, (int)by, width, line);
}
template <class T>
static inline T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32,
                                 int line = __builtin_LINE()) {
    return mbl_emu_shuffle_of(MBL_EMU_SHUFFLE_DOWN, mask, value, (int)by, width, line);
}
template <class T>
static inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32,
                                int line = __builtin_LINE()) {
    return mbl_emu_shuffle_of(MBL_EMU_SHUFFLE_XOR, mask, value, lanes, width, line);
}
static inline unsigned __ballot_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    return mbl_emu_ballot(mask, predicate, line);
}
static inline int __any_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    return mbl_emu_ballot(mask, predicate, line) != 0;
}
static inline int __all_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    return mbl_emu_ballot(mask, !predicate, line) == 0;
}
static inline unsigned __activemask() {
    return mbl_emu_activemask();
}

/* ---- integer atomics: threads run one at a time, so the operation is plain ---- */

#define MBL_EMU_ATOMIC(name, T, expression)                                                                  \
    static inline __attribute__((no_sanitize("thread"))) T name(T *address, T value) {                       \
        mbl_emu_atomic(address, sizeof(T));                                                                  \
        T old = *address;                                                                                    \
        *address = (expression);                                                                             \
        return old;                                                                                          \
    }
#define MBL_EMU_ATOMICS(T)                                                                                   \
    MBL_EMU_ATOMIC(atomicAdd, T, (T)(old + value))                                                           \
    MBL_EMU_ATOMIC(atomicMax, T, old > value ? old : value)                                                  \
    MBL_EMU_ATOMIC(atomicMin, T, old < value ? old : value)                                                  \
    MBL_EMU_ATOMIC(atomicOr, T, (T)(old | value))                                                            \
    MBL_EMU_ATOMIC(atomicAnd, T, (T)(old & value))                                                           \
    MBL_EMU_ATOMIC(atomicExch, T, value)                                                                     \
    static inline __attribute__((no_sanitize("thread"))) T atomicCAS(T *address, T compare, T value) {       \
        mbl_emu_atomic(address, sizeof(T));                                                                  \
        T old = *address;                                                                                    \
        if (old == compare)                                                                                  \
            *address = value;                                                                                \
        return old;                                                                                          \
    }
MBL_EMU_ATOMICS(int)
MBL_EMU_ATOMICS(unsigned)
MBL_EMU_ATOMICS(unsigned long long)
#undef MBL_EMU_ATOMICS
#undef MBL_EMU_ATOMIC

/* ---- device functions ---- */

template <class T> static inline T __ldg(const T *address) {
    return *address;
}
template <class T> static inline T __ldcs(const T *address) {
    return *address;
}
template <class T> static inline void __stcs(T *address, T value) {
    *address = value;
}
template <class T> static inline T min(T a, T b) {
    return b < a ? b : a;
}
template <class T> static inline T max(T a, T b) {
    return a < b ? b : a;
}
static inline float rsqrtf(float x) {
    return 1.0f / sqrtf(x);
}
static inline double rsqrt(double x) {
    return 1.0 / sqrt(x);
}
/* The fast ones, in full precision; macros, because the host's library has functions of these names. */
#define __expf(x) expf(x)
#define __logf(x) logf(x)
static inline float __fdividef(float a, float b) {
    return a / b;
}
static inline float __frcp_rn(float x) {
    return 1.0f / x;
}
static inline float __fsqrt_rn(float x) {
    return sqrtf(x);
}
static inline float __fadd_rn(float a, float b) {
    return a + b;
}
static inline float __fmul_rn(float a, float b) {
    return a * b;
}
static inline float __fmaf_rn(float a, float b, float c) {
    return fmaf(a, b, c);
}
static inline double __dadd_rn(double a, double b) {
    return a + b;
}
static inline double __dmul_rn(double a, double b) {
    return a * b;
}
static inline void sincospif(float x, float *s, float *c) {
    double angle = 3.14159265358979323846 * (double)x;
    *s = (float)sin(angle);
    *c = (float)cos(angle);
}
static inline float __uint_as_float(unsigned bits) {
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}
static inline unsigned __float_as_uint(float value) {
    unsigned bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    return bits;
}
static inline float __int_as_float(int bits) {
    return __uint_as_float((unsigned)bits);
}
static inline int __float_as_int(float value) {
    return (int)__float_as_uint(value);
}
static inline unsigned __umulhi(unsigned a, unsigned b) {
    return (unsigned)((unsigned long long)a * b >> 32);
}
static inline int __popc(unsigned x) {
    return __builtin_popcount(x);
}
static inline int __clz(int x) {
    return x ? __builtin_clz((unsigned)x) : 32;
}
static inline int __ffs(int x) {
    return __builtin_ffs(x);
}

#endif
