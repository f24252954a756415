/* bfloat16 in kernels: the conversions in use, rounding to nearest, ties to even, NaN kept. */
#ifndef MBL_EMULATION_CUDA_BF16_H
#define MBL_EMULATION_CUDA_BF16_H

#include <cuda_runtime.h>

static inline unsigned short mbl_emu_bf16_bits(float value) {
    unsigned bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return 0x7fff;
    return (unsigned short)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
static inline float mbl_emu_bf16_value(unsigned short bits) {
    unsigned wide = (unsigned)bits << 16;
    float value;
    __builtin_memcpy(&value, &wide, sizeof value);
    return value;
}

/* No constructor from numbers: values are converted by name, as everywhere in the kernels. */
struct __nv_bfloat16 {
    unsigned short bits_;
};
struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};
typedef __nv_bfloat16 nv_bfloat16;
typedef __nv_bfloat162 nv_bfloat162;

static inline __nv_bfloat16 __float2bfloat16_rn(float value) {
    return {mbl_emu_bf16_bits(value)};
}
static inline __nv_bfloat16 __float2bfloat16(float value) {
    return {mbl_emu_bf16_bits(value)};
}
/* Once, not by way of float: a double between two floats could round twice. */
static inline __nv_bfloat16 __double2bfloat16(double value) {
    float near = (float)value;
    unsigned bits;
    __builtin_memcpy(&bits, &near, sizeof bits);
    if (near == near && (double)near != value && (bits & 0xffffu) == 0x8000u) {
        bool away = __builtin_fabs(value) > __builtin_fabs((double)near);
        bits = away ? bits + 1 : bits - 1;
        __builtin_memcpy(&near, &bits, sizeof near);
    }
    return {mbl_emu_bf16_bits(near)};
}
static inline float __bfloat162float(__nv_bfloat16 value) {
    return mbl_emu_bf16_value(value.bits_);
}
static inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
    return {{mbl_emu_bf16_bits(x)}, {mbl_emu_bf16_bits(y)}};
}
static inline __nv_bfloat162 __float22bfloat162_rn(float2 v) {
    return {{mbl_emu_bf16_bits(v.x)}, {mbl_emu_bf16_bits(v.y)}};
}
static inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) {
    return {x, y};
}
static inline float2 __bfloat1622float2(__nv_bfloat162 v) {
    return {mbl_emu_bf16_value(v.x.bits_), mbl_emu_bf16_value(v.y.bits_)};
}
static inline float __low2float(__nv_bfloat162 v) {
    return mbl_emu_bf16_value(v.x.bits_);
}
static inline float __high2float(__nv_bfloat162 v) {
    return mbl_emu_bf16_value(v.y.bits_);
}
static inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 v) {
    return v.bits_;
}
static inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) {
    return {bits};
}

#endif
