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

/* y [M,N] (rows y_stride apart) = act(y + bias), in place: what cublasLt's epilogues do not cover. bias [N]
 * of the type bias_dtype (or NULL). */
mbl_status_t mbl_cuda_epilogue(mbl_ops_t *ops, const mbl_tensor_t *y, const mbl_tensor_t *bias,
                               mbl_act_t act);

#ifdef __cplusplus
}
#endif

#endif
