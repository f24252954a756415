/* Private to the cuda backend's matrix products: plans of cublasLt, one for every shape seen. */
#ifndef MBL_GPU_MATMUL_PLAN_H
#define MBL_GPU_MATMUL_PLAN_H

#include "gpu/matmul.h"

#include <cublasLt.h>

enum { MBL_CUDA_PLANS = 4096 };        /* slots of the hash table; all go when it is half full */
enum { MBL_CUDA_LT_SPACE = 32 << 20 }; /* cublasLt's workspace in bytes, what NVIDIA advises for Hopper */

/* What a plan is made for; compared as bytes. cublasLt counts columns first, so that our y = a b is its
 * y' = b' a': its first operand is our b. */
typedef struct {
    int64_t m, n, k, a_row, b_row, y_row, aux_row; /* rows of a, b, y are so many elements apart */
    int32_t transpose_a, transpose_b, ct, y_type, accumulate, epilogue;
    int32_t a_align, b_align, y_align, reserved; /* bytes */
} mbl_cuda_product_t;

typedef struct {
    mbl_cuda_product_t what;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, y;
    cublasLtMatmulAlgo_t algo;
    bool refused; /* cublasLt has no algorithm for this */
} mbl_cuda_plan_t;

struct mbl_cuda_matmuls {
    cublasLtHandle_t handle;
    void *space;
    bool reported;  /* that an epilogue was refused */
    bool dependent; /* that an algorithm was chosen for the rows of a batch */
    size_t n;
    mbl_cuda_plan_t *plan[MBL_CUDA_PLANS];
};

mbl_status_t mbl_cuda_lt_check(cublasStatus_t status, const char *what);
#define LT_TRY(call, what) MBL_TRY(mbl_cuda_lt_check((call), (what)))

/* What an activation reads or leaves beside y (or NULL). */
static inline const mbl_tensor_t *mbl_cuda_companion(const mbl_matmul_args_t *x) {
    return x->pre ? x->pre : x->through;
}

/* The plan for `what`, made now or before, and args' pointers in it. */
mbl_status_t mbl_cuda_plan_find(mbl_cuda_matmuls_t *m, const mbl_cuda_product_t *what,
                                const mbl_matmul_args_t *args, mbl_cuda_plan_t **out);

#endif
