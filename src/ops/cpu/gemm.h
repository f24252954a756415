/* Own matrix products in f32, with f32 or bf16 in memory. A row of the result depends on its inputs alone:
 * not on how many rows there are, on its place among them, or on the number of threads. */
#ifndef MBL_OPS_CPU_GEMM_H
#define MBL_OPS_CPU_GEMM_H

#include "ops/cpu/gemm_kernel.h"

/* The kernel for an instruction set, NULL where this program or this processor has none. */
const mbl_gemm_kernel_t *mbl_gemm_kernel(const char *name);

/* Bytes of scratch memory that a product needs, or ERR_ARG where that overflows. */
mbl_status_t mbl_gemm_bytes(const mbl_gemm_kernel_t *kernel, const mbl_matmul_args_t *args, int threads,
                            size_t *out);
/* All that mbl_matmul_args_t asks for, in f32 or bf16. work: so many bytes, 64-byte aligned. */
void mbl_gemm_run(const mbl_gemm_kernel_t *kernel, const mbl_matmul_args_t *args, int threads, void *work);

#endif
