/* Matrix products by cublasLt in bf16, f32 (without TF32) and f64, with what of bias and activation it takes
 * into them; kernels of our own do the rest. */
#include "gpu/matmul.h"
#include "base/log.h"
#include "gpu/kernels.h"
#include "gpu/matmul_plan.h"

#include <string.h>

enum { HOPPER = 90 }; /* its compute capability */

/* What every row of t is aligned to, at most 16 bytes. */
static int32_t alignment_of(const mbl_tensor_t *t) {
    uintptr_t bits = (uintptr_t)t->data | t->stride[0] * mbl_dtype_size(t->dtype) | 16;
    return (int32_t)(bits & (~bits + 1));
}

static mbl_cuda_product_t describe(const mbl_matmul_args_t *x, cublasLtEpilogue_t epilogue) {
    mbl_cuda_product_t what;
    memset(&what, 0, sizeof what);
    what.m = (int64_t)x->y->dim[0];
    what.n = (int64_t)x->y->dim[1];
    what.k = (int64_t)x->a->dim[!x->transpose_a];
    what.a_row = (int64_t)x->a->stride[0];
    what.b_row = (int64_t)x->b->stride[0];
    what.y_row = (int64_t)x->y->stride[0];
    if (epilogue != CUBLASLT_EPILOGUE_DEFAULT && epilogue != CUBLASLT_EPILOGUE_BIAS && mbl_cuda_companion(x))
        what.aux_row = (int64_t)mbl_cuda_companion(x)->stride[0];
    what.transpose_a = x->transpose_a;
    what.transpose_b = x->transpose_b;
    what.ct = (int32_t)x->a->dtype;
    what.y_type = (int32_t)x->y->dtype;
    what.accumulate = x->accumulate;
    what.epilogue = (int32_t)epilogue;
    what.a_align = alignment_of(x->a);
    what.b_align = alignment_of(x->b);
    what.y_align = alignment_of(x->y);
    if (x->bias && (uintptr_t)x->bias->data % (uintptr_t)what.y_align != 0)
        what.y_align = (int32_t)mbl_dtype_size(x->bias->dtype);
    return what;
}

/* refused NULL: a product that cublasLt has no algorithm for is an error; else *refused says so, and nothing
 * was done. */
static mbl_status_t run_product(mbl_ops_t *ops, const mbl_matmul_args_t *x, cublasLtEpilogue_t epilogue,
                                bool *refused) {
    mbl_cuda_matmuls_t *m = mbl_cuda_of(ops)->matmuls;
    const mbl_cuda_product_t what = describe(x, epilogue);
    const float one = 1, zero = 0;
    const double one_wide = 1, zero_wide = 0;
    const bool wide = what.ct == MBL_F64;
    const void *alpha = wide ? (const void *)&one_wide : &one;
    const void *beta = x->accumulate ? alpha : wide ? (const void *)&zero_wide : &zero;
    mbl_cuda_plan_t *p = NULL;
    MBL_TRY(mbl_cuda_plan_find(m, &what, x, &p));
    if (!p->refused) {
        cublasStatus_t answer = cublasLtMatmul(m->handle, p->desc, alpha, x->b->data, p->b, x->a->data, p->a,
                                               beta, x->y->data, p->y, x->y->data, p->y, &p->algo, m->space,
                                               MBL_CUDA_LT_SPACE, mbl_cuda_stream(ops));
        if (answer != CUBLAS_STATUS_NOT_SUPPORTED)
            return mbl_cuda_lt_check(answer, "a matrix product");
        p->refused = true;
    }
    if (!refused)
        return MBL_FAIL(MBL_ERR_UNSUPPORTED,
                        "cublasLt: no algorithm for a product of %lld x %lld x %lld in %s", (long long)what.m,
                        (long long)what.k, (long long)what.n, mbl_dtype_name(x->a->dtype));
    *refused = true;
    if (!m->reported)
        MBL_WARN(
            "cublasLt takes no gelu into a product of %lld x %lld x %lld in %s on this GPU: a kernel of ours "
            "follows such products; results are the same to rounding",
            (long long)what.m, (long long)what.k, (long long)what.n, mbl_dtype_name(x->a->dtype));
    m->reported = true;
    return MBL_OK;
}

/* The product, then by a kernel of our own what is left: the activation with all that belongs to it, and the
 * bias where the product cannot add it (of f64, of bf16 in f32). */
static mbl_status_t run_in_two_steps(mbl_ops_t *ops, const mbl_matmul_args_t *x) {
    const bool same = x->a->dtype == x->y->dtype && x->a->dtype != MBL_F64;
    const bool added = x->bias && same;
    mbl_matmul_args_t raw = *x;
    raw.pre = raw.through = NULL;
    if (!added)
        raw.bias = NULL;
    MBL_TRY(run_product(ops, &raw, added ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT, NULL));
    if (x->act == MBL_ACT_NONE && (added || !x->bias))
        return MBL_OK;
    mbl_matmul_args_t rest = *x;
    if (added)
        rest.bias = NULL;
    return mbl_cuda_epilogue(ops, &rest);
}

/* Whether a tensor (or NULL) is made of pieces of 16 bytes throughout. */
static bool in_pieces(const mbl_tensor_t *t) {
    const size_t size = t ? mbl_dtype_size(t->dtype) : 0;
    return !t || ((uintptr_t)t->data % 16 == 0 && t->dim[t->ndim - 1] * size % 16 == 0 &&
                  (t->ndim == 1 || t->stride[0] * size % 16 == 0));
}

/* Whether cublasLt may apply the activation or its slope: it knows gelu, and means the form with tanh. Only
 * in bf16, whose rounding hides how exact its tanh is; NVIDIA does not say, and f32 is what others are
 * compared with. It has no bias beside a slope. Which operands it takes must not depend on M: aligned ones
 * only. Before Hopper llm.c found products of bf16 with gelu slower than a kernel behind them
 * (karpathy/llm.c, pull request 338). */
static bool fuses(const mbl_ops_t *ops, const mbl_matmul_args_t *x) {
    const mbl_cuda_t *cuda = (const mbl_cuda_t *)ops->impl;
    return x->act == MBL_ACT_GELU_TANH && x->a->dtype == MBL_BF16 && x->y->dtype == MBL_BF16 &&
           !(x->through && x->bias) && cuda->device.capability >= HOPPER && in_pieces(x->a) &&
           in_pieces(x->b) && in_pieces(x->y) && in_pieces(x->bias) && in_pieces(x->pre) &&
           in_pieces(x->through);
}

static cublasLtEpilogue_t epilogue_of(const mbl_matmul_args_t *x) {
    if (x->through)
        return CUBLASLT_EPILOGUE_DGELU;
    if (x->pre)
        return x->bias ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_AUX;
    return x->bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
}

mbl_status_t mbl_cuda_matmul(mbl_ops_t *ops, const mbl_matmul_args_t *args) {
    bool refused = false;
    if (!fuses(ops, args))
        return run_in_two_steps(ops, args);
    MBL_TRY(run_product(ops, args, epilogue_of(args), &refused));
    return refused ? run_in_two_steps(ops, args) : MBL_OK;
}
