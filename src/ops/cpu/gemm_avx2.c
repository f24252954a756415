/* Own matrix products for AVX2 and FMA. */
#if defined(__x86_64__)
#define GEMM mbl_gemm_avx2
#define KERNEL "avx2"
#define VECTOR_BYTES 32
#include "ops/cpu/gemm_kernel.inc"
#else
typedef int mbl_gemm_avx2_is_for_x86;
#endif
