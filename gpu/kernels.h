/* The operations of the cuda backend, one family a .cu file: each checks nothing (the wrappers did), launches
 * on the backend's stream and returns before the work is done. They take the same argument structs as every
 * backend; pointers in them are device pointers (gram's result: a host one). matmul is in gpu/matmul.c. */
#ifndef MBL_GPU_KERNELS_H
#define MBL_GPU_KERNELS_H

#include "gpu/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MBL_CUDA_OP(name, need) mbl_status_t mbl_cuda_##name(mbl_ops_t *ops, const mbl_##name##_args_t *args);
MBL_OPS_LIST(MBL_CUDA_OP)
#undef MBL_CUDA_OP

/* What matmul does once y holds a b (+ y), for what cublasLt's epilogues do not cover: bias, act, pre and
 * through as there. */
mbl_status_t mbl_cuda_epilogue(mbl_ops_t *ops, const mbl_matmul_args_t *args);

/* y [N,D] (rows y_stride apart, st) += the sum over chunks, in their order and in f64, of partial
 * [N,chunks,D] (samples sample_stride and chunks chunk_stride apart). */
mbl_status_t mbl_cuda_add_partials(mbl_ops_t *ops, const mbl_tensor_t *y, const void *partial,
                                   mbl_dtype_t dtype, size_t samples, size_t sample_stride, size_t chunks,
                                   size_t chunk_stride);

#ifdef __cplusplus
}
#endif

#endif
