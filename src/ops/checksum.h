/* The checksum of operation `checksum`, of one word; backends and tests share it, kernels included. */
#ifndef MBL_OPS_CHECKSUM_H
#define MBL_OPS_CHECKSUM_H

#include <stdint.h>

#ifdef __CUDACC__
#define MBL_CHECKSUM_FUNCTION static __device__ __forceinline__
#else
#define MBL_CHECKSUM_FUNCTION static inline
#endif

/* Word `word` at place i < 2^32, mixed (Steele, Lea and Flood's SplitMix64): one-to-one in both together, so
 * that a sum of such numbers changes with any of its words, and words that change places change it, too. */
MBL_CHECKSUM_FUNCTION uint64_t mbl_checksum_word(uint64_t i, uint32_t word) {
    uint64_t z = (i << 32 | word) + 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

#endif
