/* Vectors as wide as a register of the instruction set that a file of loops is compiled for, and their loads
 * and stores by the type in memory: mbl_get_T, mbl_put_T, mbl_total_T with T f32, bf16 (computed with in f32)
 * or f64. */
#ifndef MBL_OPS_CPU_VECTOR_H
#define MBL_OPS_CPU_VECTOR_H

#include "ops/tensor.h"

#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__SSE__)
#include <immintrin.h>
#endif

/* 32 registers with AVX-512, else 16; vectors wider than the registers are taken apart badly. */
#if defined(__AVX512F__)
#define MBL_VECTOR_BYTES 64
#elif defined(__AVX__)
#define MBL_VECTOR_BYTES 32
#else
#define MBL_VECTOR_BYTES 16
#endif
#define MBL_INLINED static inline __attribute__((always_inline))

/* Without a t, so that a template makes their names from its type. */
typedef float mbl_vector_f32 __attribute__((vector_size(MBL_VECTOR_BYTES)));
typedef mbl_vector_f32 mbl_vector_bf16;
typedef double mbl_vector_f64 __attribute__((vector_size(MBL_VECTOR_BYTES)));

MBL_INLINED mbl_vector_f32 mbl_get_f32(const float *x) {
    mbl_vector_f32 v;
    memcpy(&v, x, sizeof v);
    return v;
}

MBL_INLINED void mbl_put_f32(float *y, mbl_vector_f32 v) {
    memcpy(y, &v, sizeof v);
}

MBL_INLINED mbl_vector_f64 mbl_get_f64(const double *x) {
    mbl_vector_f64 v;
    memcpy(&v, x, sizeof v);
    return v;
}

MBL_INLINED void mbl_put_f64(double *y, mbl_vector_f64 v) {
    memcpy(y, &v, sizeof v);
}

/* bf16 by instructions where compilers make too many of the general form; both round to nearest even and keep
 * NaN, as mbl_bf16_from_f32 does. */
#if defined(__AVX512F__)
MBL_INLINED mbl_vector_f32 mbl_get_bf16(const uint16_t *x) {
    __m256i half = _mm256_loadu_si256((const __m256i *)(const void *)x);
    return (mbl_vector_f32)_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16);
}

MBL_INLINED void mbl_put_bf16(uint16_t *y, mbl_vector_f32 v) {
    __m512i bits = (__m512i)v, lowest = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), lowest);
    __mmask16 nan = _mm512_cmp_ps_mask((__m512)v, (__m512)v, _CMP_UNORD_Q);
    __m512i kept = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
    _mm256_storeu_si256((__m256i *)(void *)y, _mm512_cvtepi32_epi16(_mm512_srli_epi32(kept, 16)));
}
#elif defined(__AVX2__)
MBL_INLINED mbl_vector_f32 mbl_get_bf16(const uint16_t *x) {
    __m128i half = _mm_loadu_si128((const __m128i *)(const void *)x);
    return (mbl_vector_f32)_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16);
}

MBL_INLINED void mbl_put_bf16(uint16_t *y, mbl_vector_f32 v) {
    __m256i bits = (__m256i)v, lowest = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), lowest);
    __m256 nan = _mm256_cmp_ps((__m256)v, (__m256)v, _CMP_UNORD_Q);
    __m256 quiet = (__m256)_mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    __m256i kept = _mm256_srli_epi32((__m256i)_mm256_blendv_ps((__m256)rounded, quiet, nan), 16);
    __m128i half = _mm_packus_epi32(_mm256_castsi256_si128(kept), _mm256_extracti128_si256(kept, 1));
    _mm_storeu_si128((__m128i *)(void *)y, half);
}
#else
typedef uint16_t mbl_vector_u16 __attribute__((vector_size(MBL_VECTOR_BYTES / 2)));
typedef uint32_t mbl_vector_u32 __attribute__((vector_size(MBL_VECTOR_BYTES)));

MBL_INLINED mbl_vector_f32 mbl_get_bf16(const uint16_t *x) {
    mbl_vector_u16 half;
    memcpy(&half, x, sizeof half);
    return (mbl_vector_f32)(__builtin_convertvector(half, mbl_vector_u32) << 16);
}

MBL_INLINED void mbl_put_bf16(uint16_t *y, mbl_vector_f32 v) {
    mbl_vector_u32 bits = (mbl_vector_u32)v, nan = (mbl_vector_u32)(v != v);
    mbl_vector_u32 rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
    mbl_vector_u32 kept = (nan & (bits | 0x400000u)) | (~nan & rounded);
    mbl_vector_u16 half = __builtin_convertvector(kept >> 16, mbl_vector_u16);
    memcpy(y, &half, sizeof half);
}
#endif

/* The sum of all lanes: halves onto each other until one is left. */
MBL_INLINED float mbl_total_f32(mbl_vector_f32 v) {
    typedef float four_t __attribute__((vector_size(16)));
    four_t part[MBL_VECTOR_BYTES / 16];
    memcpy(part, &v, sizeof v);
    for (int n = MBL_VECTOR_BYTES / 32; n > 0; n /= 2)
        for (int i = 0; i < n; i++)
            part[i] += part[i + n];
    return (part[0][0] + part[0][2]) + (part[0][1] + part[0][3]);
}
MBL_INLINED float mbl_total_bf16(mbl_vector_f32 v) {
    return mbl_total_f32(v);
}

MBL_INLINED double mbl_total_f64(mbl_vector_f64 v) {
    typedef double two_t __attribute__((vector_size(16)));
    two_t part[MBL_VECTOR_BYTES / 16];
    memcpy(part, &v, sizeof v);
    for (int n = MBL_VECTOR_BYTES / 32; n > 0; n /= 2)
        for (int i = 0; i < n; i++)
            part[i] += part[i + n];
    return part[0][0] + part[0][1];
}

/* The same by the type of the pointer alone, f32 or f64: for buffers of what is computed with. */
#define mbl_get_real(x)                                                                                      \
    _Generic((x), float * : mbl_get_f32, const float * : mbl_get_f32, double * : mbl_get_f64, const double * : mbl_get_f64)(x)
#define mbl_put_real(y, v) _Generic((y), float * : mbl_put_f32, double * : mbl_put_f64)((y), (v))

/* The larger one; b where a is NaN. */
MBL_INLINED mbl_vector_f32 mbl_max_f32(mbl_vector_f32 a, mbl_vector_f32 b) {
#if defined(__AVX512F__)
    return (mbl_vector_f32)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (mbl_vector_f32)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__SSE__)
    return (mbl_vector_f32)_mm_max_ps((__m128)a, (__m128)b);
#else
    for (size_t i = 0; i < sizeof a / sizeof a[0]; i++)
        b[i] = a[i] > b[i] ? a[i] : b[i];
    return b;
#endif
}
#define mbl_max_bf16 mbl_max_f32

MBL_INLINED mbl_vector_f64 mbl_max_f64(mbl_vector_f64 a, mbl_vector_f64 b) {
    for (size_t i = 0; i < sizeof a / sizeof a[0]; i++)
        b[i] = a[i] > b[i] ? a[i] : b[i];
    return b;
}

/* e^x of x up to 88, as mbl_expf of vecmath.h has it: 0 below -87.3, NaN stays NaN. */
MBL_INLINED mbl_vector_f32 mbl_vector_exp_f32(mbl_vector_f32 x) {
    typedef uint32_t bits_t __attribute__((vector_size(MBL_VECTOR_BYTES)));
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer in the low bits */
    mbl_vector_f32 t = x * 1.44269504f + magic, n = t - magic;
    mbl_vector_f32 r = n * -0.693359375f + x;
    r = n * 2.12194440e-4f + r;
    mbl_vector_f32 q = r * 1.381446588e-3f + 8.368780721e-3f;
    q = q * r + 4.166839425e-2f;
    q = q * r + 1.666652010e-1f;
    q = q * r + 4.999999341e-1f;
    mbl_vector_f32 p = (q * r) * r + r + 1.0f;
    mbl_vector_f32 y = p * (mbl_vector_f32)(((bits_t)t << 23) + 0x3f800000);
    return (mbl_vector_f32)((bits_t)y & ~(bits_t)(x < -87.3f));
}
#define mbl_vector_exp_bf16 mbl_vector_exp_f32

MBL_INLINED mbl_vector_f64 mbl_vector_exp_f64(mbl_vector_f64 x) {
    for (size_t i = 0; i < sizeof x / sizeof x[0]; i++)
        x[i] = exp(x[i]);
    return x;
}

/* Four rows of four numbers, in_row apart, become columns of rows out_row apart. */
MBL_INLINED void mbl_turn_f32(float *out, size_t out_row, const float *in, size_t in_row) {
#if defined(__SSE__)
    __m128 a = _mm_loadu_ps(in), b = _mm_loadu_ps(in + in_row), c = _mm_loadu_ps(in + 2 * in_row),
           d = _mm_loadu_ps(in + 3 * in_row);
    _MM_TRANSPOSE4_PS(a, b, c, d);
    _mm_storeu_ps(out, a);
    _mm_storeu_ps(out + out_row, b);
    _mm_storeu_ps(out + 2 * out_row, c);
    _mm_storeu_ps(out + 3 * out_row, d);
#else
    for (size_t i = 0; i < 16; i++)
        out[i / 4 * out_row + i % 4] = in[i % 4 * in_row + i / 4];
#endif
}
#define mbl_turn_bf16 mbl_turn_f32

MBL_INLINED void mbl_turn_f64(double *out, size_t out_row, const double *in, size_t in_row) {
    for (size_t i = 0; i < 16; i++)
        out[i / 4 * out_row + i % 4] = in[i % 4 * in_row + i / 4];
}

#endif
