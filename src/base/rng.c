/* Philox4x32-10 and the distributions made from it. */
#include "base/rng.h"

#include <math.h>
#include <string.h>

void mbl_philox(const uint32_t key[2], const uint32_t counter[4], uint32_t out[4]) {
    uint32_t c[4] = {counter[0], counter[1], counter[2], counter[3]}, k[2] = {key[0], key[1]};
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c[0], p1 = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t n[4] = {(uint32_t)(p1 >> 32) ^ c[1] ^ k[0], (uint32_t)p1, (uint32_t)(p0 >> 32) ^ c[3] ^ k[1],
                         (uint32_t)p0};
        memcpy(c, n, sizeof c);
        k[0] += 0x9E3779B9u;
        k[1] += 0xBB67AE85u;
    }
    memcpy(out, c, sizeof c);
}

mbl_rng_t mbl_rng(uint64_t seed, mbl_rng_purpose_t purpose, uint32_t step, uint64_t sample) {
    mbl_rng_t rng = {{(uint32_t)seed, (uint32_t)(seed >> 32) ^ (uint32_t)purpose * 0x9E3779B9u},
                     {0, (uint32_t)sample, (uint32_t)(sample >> 32), step},
                     {0, 0, 0, 0},
                     4};
    return rng;
}

uint32_t mbl_rng_u32(mbl_rng_t *rng) {
    if (rng->used == 4) {
        mbl_philox(rng->key, rng->counter, rng->word);
        rng->counter[0]++;
        rng->used = 0;
    }
    return rng->word[rng->used++];
}

float mbl_rng_uniform(mbl_rng_t *rng) {
    return (float)(mbl_rng_u32(rng) >> 8) * 0x1p-24f;
}

uint32_t mbl_rng_below(mbl_rng_t *rng, uint32_t n) {
    uint32_t limit = n ? (uint32_t)(0x100000000ull / n * n - 1) : 0, word;
    if (n < 2)
        return 0;
    do
        word = mbl_rng_u32(rng);
    while (word > limit);
    return word % n;
}

void mbl_rng_normal2(mbl_rng_t *rng, float out[2]) {
    float u = 1.0f - mbl_rng_uniform(rng), v = mbl_rng_uniform(rng);
    float radius = sqrtf(-2.0f * logf(u)), angle = 6.28318530717958648f * v;
    out[0] = radius * cosf(angle);
    out[1] = radius * sinf(angle);
}

void mbl_rng_normal(mbl_rng_t *rng, float *out, size_t n) {
    float pair[2];
    for (size_t i = 0; i < n; i += 2) {
        mbl_rng_normal2(rng, pair);
        out[i] = pair[0];
        if (i + 1 < n)
            out[i + 1] = pair[1];
    }
}

void mbl_rng_permutation(mbl_rng_t *rng, uint32_t *out, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        uint32_t j = mbl_rng_below(rng, i + 1);
        out[i] = out[j];
        out[j] = i;
    }
}
