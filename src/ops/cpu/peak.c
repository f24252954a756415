#include "ops/cpu/peak.h"

#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { CHAINS = 12 }; /* enough to fill two units of four cycles each */

/* The compiler cannot know them, so it has to compute. */
typedef struct {
    volatile float start, factor;
} unknown_t;

#define SPIN(name, attributes, bytes)                                                                        \
    attributes static double name(const unknown_t *x, size_t rounds, float *rest) {                          \
        typedef float vector_t __attribute__((vector_size(bytes)));                                          \
        vector_t sum[CHAINS], factor = (vector_t){0} + x->factor;                                            \
        for (int i = 0; i < CHAINS; i++)                                                                     \
            sum[i] = factor * (float)i + x->start;                                                           \
        for (size_t round = 0; round < rounds; round++)                                                      \
            for (int i = 0; i < CHAINS; i++)                                                                 \
                sum[i] = sum[i] * factor + factor;                                                           \
        for (int i = 1; i < CHAINS; i++)                                                                     \
            sum[0] += sum[i];                                                                                \
        *rest = sum[0][0];                                                                                   \
        return 2.0 * CHAINS * (bytes / sizeof(float)) * (double)rounds;                                      \
    }

SPIN(spin_portable, , 16)
#if defined(__x86_64__)
SPIN(spin_avx2, __attribute__((target("avx2,fma"))), 32)
SPIN(spin_avx512, __attribute__((target("avx512f"))), 64)

__attribute__((target("avx512f,avx512bf16"))) static double spin_bf16(const unknown_t *x, size_t rounds,
                                                                      float *rest) {
    __m512 sum[CHAINS], given = _mm512_set1_ps(x->factor);
    __m512bh pairs;
    memcpy(&pairs, &given, sizeof pairs);
    for (int i = 0; i < CHAINS; i++)
        sum[i] = _mm512_set1_ps(x->start * (float)i);
    for (size_t round = 0; round < rounds; round++)
        for (int i = 0; i < CHAINS; i++)
            sum[i] = _mm512_dpbf16_ps(sum[i], pairs, pairs);
    for (int i = 1; i < CHAINS; i++)
        sum[0] = _mm512_add_ps(sum[0], sum[i]);
    *rest = _mm512_cvtss_f32(sum[0]);
    return 4.0 * CHAINS * 16 * (double)rounds;
}
#endif

double mbl_cpu_spin(mbl_cpu_isa_t isa, mbl_dtype_t dtype, size_t rounds, float *rest) {
    const unknown_t x = {1, 0.5F};
    *rest = 0;
#if defined(__x86_64__)
    if (isa == MBL_CPU_AVX512 && dtype == MBL_BF16 && mbl_cpu_has_amx())
        return 0;
    if (isa == MBL_CPU_AVX512 && dtype == MBL_BF16 && mbl_cpu_bf16_is_native())
        return spin_bf16(&x, rounds, rest);
    if (isa == MBL_CPU_AVX512)
        return spin_avx512(&x, rounds, rest);
    if (isa == MBL_CPU_AVX2)
        return spin_avx2(&x, rounds, rest);
#else
    (void)isa;
    (void)dtype;
#endif
    return spin_portable(&x, rounds, rest);
}
