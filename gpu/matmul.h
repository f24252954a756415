/* Private to the cuda backend: matrix products by cublasLt. */
#ifndef MBL_GPU_MATMUL_H
#define MBL_GPU_MATMUL_H

#include "gpu/cuda.h"

mbl_status_t mbl_cuda_matmuls_open(mbl_ops_t *ops, mbl_cuda_matmuls_t **out);
void mbl_cuda_matmuls_close(mbl_cuda_matmuls_t *matmuls);

#endif
