/* Own matrix products for any processor, with vectors of 128 bits. */
#define GEMM mbl_gemm_portable
#define KERNEL "portable"
#define VECTOR_BYTES 16
#include "ops/cpu/gemm_kernel.inc"
