/* Matrix products by cublasLt in bf16, f32 (without TF32) and f64. A plan (descriptors and the chosen
 * algorithm) is kept for every shape seen. Which algorithm is chosen must not depend on M, or a sample's rows
 * would depend on how many share its batch: it is asked for at one fixed M and without cutting K, except
 * where the samples are what is summed over (transpose_a, weight gradients). */
#include "gpu/matmul.h"
#include "base/mem.h"
#include "gpu/kernels.h"

#include <cublasLt.h>
#include <string.h>

enum { SLOTS = 4096, MOST = 2048 }; /* of the hash table; all go when it is half full */
enum { TYPICAL_ROWS = 4096 };       /* the M that algorithms are chosen for */
enum { SPACE = 32 << 20 };          /* cublasLt's workspace in bytes, what NVIDIA advises for Hopper */

/* What a plan is made for; compared as bytes. cublasLt counts columns first, so that our y = a b is its
 * y' = b' a': its first operand is our b. */
typedef struct {
    int64_t m, n, k, a_row, b_row, y_row; /* rows of a, b, y are so many elements apart */
    int32_t transpose_a, transpose_b, ct, y_type, accumulate, epilogue;
    int32_t a_align, b_align, y_align, reserved; /* bytes */
} product_t;

typedef struct {
    product_t what;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, y;
    cublasLtMatmulAlgo_t algo;
} plan_t;

struct mbl_cuda_matmuls {
    cublasLtHandle_t handle;
    void *space;
    size_t n;
    plan_t *plan[SLOTS];
};

static mbl_status_t lt_check(cublasStatus_t status, const char *what) {
    if (status == CUBLAS_STATUS_SUCCESS)
        return MBL_OK;
    return MBL_FAIL(status == CUBLAS_STATUS_ALLOC_FAILED ? MBL_ERR_MEM : MBL_ERR_DEVICE, "cublasLt: %s: %s",
                    what, cublasLtGetStatusString(status));
}
#define LT_TRY(call, what) MBL_TRY(lt_check((call), (what)))

mbl_status_t mbl_cuda_matmuls_open(mbl_cuda_matmuls_t **out) {
    mbl_cuda_matmuls_t *m;
    MBL_ALLOC(m, 1);
    mbl_status_t status = lt_check(cublasLtCreate(&m->handle), "opening");
    if (status == MBL_OK)
        status = mbl_cuda_check_at(__FILE__, __LINE__, cudaMalloc(&m->space, SPACE),
                                   "allocating cublasLt's workspace");
    if (status != MBL_OK) {
        mbl_cuda_matmuls_close(m);
        return status;
    }
    *out = m;
    return MBL_OK;
}

static void free_plan(plan_t *plan) {
    if (plan->a)
        cublasLtMatrixLayoutDestroy(plan->a);
    if (plan->b)
        cublasLtMatrixLayoutDestroy(plan->b);
    if (plan->y)
        cublasLtMatrixLayoutDestroy(plan->y);
    if (plan->desc)
        cublasLtMatmulDescDestroy(plan->desc);
    mbl_free(plan);
}

static void forget_all(mbl_cuda_matmuls_t *m) {
    for (size_t i = 0; i < SLOTS; i++)
        if (m->plan[i]) {
            free_plan(m->plan[i]);
            m->plan[i] = NULL;
        }
    m->n = 0;
}

void mbl_cuda_matmuls_close(mbl_cuda_matmuls_t *m) {
    if (!m)
        return;
    forget_all(m);
    if (m->space)
        cudaFree(m->space);
    if (m->handle)
        cublasLtDestroy(m->handle);
    mbl_free(m);
}

static cudaDataType_t type_of(int32_t dtype) {
    return dtype == MBL_F64 ? CUDA_R_64F : dtype == MBL_F32 ? CUDA_R_32F : CUDA_R_16BF;
}

static mbl_status_t make_layouts(const product_t *x, int64_t m, cublasLtMatrixLayout_t *a,
                                 cublasLtMatrixLayout_t *b, cublasLtMatrixLayout_t *y) {
    const cudaDataType_t ct = type_of(x->ct);
    LT_TRY(cublasLtMatrixLayoutCreate(a, ct, (uint64_t)(x->transpose_a ? m : x->k),
                                      (uint64_t)(x->transpose_a ? x->k : m), x->a_row),
           "describing a");
    LT_TRY(cublasLtMatrixLayoutCreate(b, ct, (uint64_t)(x->transpose_b ? x->k : x->n),
                                      (uint64_t)(x->transpose_b ? x->n : x->k), x->b_row),
           "describing b");
    LT_TRY(cublasLtMatrixLayoutCreate(y, type_of(x->y_type), (uint64_t)x->n, (uint64_t)m, x->y_row),
           "describing y");
    return MBL_OK;
}

static mbl_status_t make_desc(const product_t *x, cublasLtMatmulDesc_t *desc) {
    const cublasOperation_t first = x->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t second = x->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasLtEpilogue_t epilogue = (cublasLtEpilogue_t)x->epilogue;
    const bool wide = x->ct == MBL_F64;
    LT_TRY(cublasLtMatmulDescCreate(desc, wide ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F,
                                    wide ? CUDA_R_64F : CUDA_R_32F),
           "describing a product");
    LT_TRY(cublasLtMatmulDescSetAttribute(*desc, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first),
           "transpose_b");
    LT_TRY(cublasLtMatmulDescSetAttribute(*desc, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof second),
           "transpose_a");
    LT_TRY(cublasLtMatmulDescSetAttribute(*desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue),
           "the epilogue");
    return MBL_OK;
}

static mbl_status_t set_preference(const product_t *x, cublasLtMatmulPreference_t preference) {
    const uint64_t space = SPACE;
    /* parts of a cut sum are added in f32: in the result's own bf16 they would be rounded again */
    const uint32_t whole = CUBLASLT_REDUCTION_SCHEME_NONE, cut = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        const void *value;
        size_t size;
    } set[] = {
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &space, sizeof space},
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, x->transpose_a ? &cut : &whole, sizeof whole},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &x->b_align, sizeof x->b_align},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &x->a_align, sizeof x->a_align},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &x->y_align, sizeof x->y_align},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &x->y_align, sizeof x->y_align},
    };
    for (size_t i = 0; i < sizeof set / sizeof *set; i++)
        LT_TRY(cublasLtMatmulPreferenceSetAttribute(preference, set[i].name, set[i].value, set[i].size),
               "what an algorithm may use");
    return MBL_OK;
}

/* The algorithm, asked for with `rows` rows of y. */
static mbl_status_t choose(mbl_cuda_matmuls_t *m, const product_t *x, int64_t rows, plan_t *plan) {
    cublasLtMatrixLayout_t a = NULL, b = NULL, y = NULL;
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t result;
    int found = 0;
    memset(&result, 0, sizeof result);
    mbl_status_t status = make_layouts(x, rows, &a, &b, &y);
    if (status == MBL_OK)
        status = lt_check(cublasLtMatmulPreferenceCreate(&preference), "what an algorithm may use");
    if (status == MBL_OK)
        status = set_preference(x, preference);
    if (status == MBL_OK)
        status = lt_check(
            cublasLtMatmulAlgoGetHeuristic(m->handle, plan->desc, b, a, y, y, preference, 1, &result, &found),
            "choosing an algorithm");
    if (status == MBL_OK && found == 0)
        status = MBL_FAIL(MBL_ERR_UNSUPPORTED, "cublasLt: no algorithm for this product");
    plan->algo = result.algo;
    if (preference)
        cublasLtMatmulPreferenceDestroy(preference);
    if (a)
        cublasLtMatrixLayoutDestroy(a);
    if (b)
        cublasLtMatrixLayoutDestroy(b);
    if (y)
        cublasLtMatrixLayoutDestroy(y);
    return status;
}

/* Where the algorithm chosen at the typical M does not take the true one, the true one decides. */
static mbl_status_t make_plan(mbl_cuda_matmuls_t *m, const product_t *x, plan_t *plan) {
    cublasLtMatmulHeuristicResult_t ignored;
    plan->what = *x;
    MBL_TRY(make_desc(x, &plan->desc));
    MBL_TRY(make_layouts(x, x->m, &plan->a, &plan->b, &plan->y));
    if (x->transpose_a)
        return choose(m, x, x->m, plan);
    MBL_TRY(choose(m, x, TYPICAL_ROWS, plan));
    if (cublasLtMatmulAlgoCheck(m->handle, plan->desc, plan->b, plan->a, plan->y, plan->y, &plan->algo,
                                &ignored) == CUBLAS_STATUS_SUCCESS)
        return MBL_OK;
    return choose(m, x, x->m, plan);
}

static size_t hash_of(const product_t *what) {
    uint64_t word[sizeof *what / 8], hash = 0x9E3779B97F4A7C15u;
    memcpy(word, what, sizeof word);
    for (size_t i = 0; i < sizeof word / sizeof word[0]; i++) {
        hash = (hash ^ word[i]) * 0xFF51AFD7ED558CCDu;
        hash ^= hash >> 32;
    }
    return (size_t)hash;
}

static mbl_status_t find_plan(mbl_cuda_matmuls_t *m, const product_t *what, plan_t **out) {
    size_t at = hash_of(what) % SLOTS;
    for (; m->plan[at]; at = (at + 1) % SLOTS)
        if (memcmp(&m->plan[at]->what, what, sizeof *what) == 0) {
            *out = m->plan[at];
            return MBL_OK;
        }
    if (m->n >= MOST) {
        forget_all(m);
        at = hash_of(what) % SLOTS;
    }
    plan_t *plan;
    MBL_ALLOC(plan, 1);
    mbl_status_t status = make_plan(m, what, plan);
    if (status != MBL_OK) {
        free_plan(plan);
        return status;
    }
    m->plan[at] = plan;
    m->n++;
    *out = plan;
    return MBL_OK;
}

/* What every row of t is aligned to, at most 16 bytes. */
static int32_t alignment_of(const mbl_tensor_t *t) {
    uintptr_t bits = (uintptr_t)t->data | t->stride[0] * mbl_dtype_size(t->dtype) | 16;
    return (int32_t)(bits & (~bits + 1));
}

static product_t describe(const mbl_matmul_args_t *x, cublasLtEpilogue_t epilogue) {
    product_t what;
    memset(&what, 0, sizeof what);
    what.m = (int64_t)x->y->dim[0];
    what.n = (int64_t)x->y->dim[1];
    what.k = (int64_t)x->a->dim[!x->transpose_a];
    what.a_row = (int64_t)x->a->stride[0];
    what.b_row = (int64_t)x->b->stride[0];
    what.y_row = (int64_t)x->y->stride[0];
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

static mbl_status_t run_product(mbl_ops_t *ops, const mbl_matmul_args_t *x, cublasLtEpilogue_t epilogue) {
    mbl_cuda_matmuls_t *m = mbl_cuda_of(ops)->matmuls;
    const product_t what = describe(x, epilogue);
    const float one = 1, zero = 0;
    const double one_wide = 1, zero_wide = 0;
    const bool wide = what.ct == MBL_F64;
    const void *alpha = wide ? (const void *)&one_wide : &one;
    const void *beta = x->accumulate ? alpha : wide ? (const void *)&zero_wide : &zero;
    plan_t *p = NULL;
    MBL_TRY(find_plan(m, &what, &p));
    if (epilogue != CUBLASLT_EPILOGUE_DEFAULT && x->bias)
        LT_TRY(cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &x->bias->data,
                                              sizeof x->bias->data),
               "the bias");
    LT_TRY(cublasLtMatmul(m->handle, p->desc, alpha, x->b->data, p->b, x->a->data, p->a, beta, x->y->data,
                          p->y, x->y->data, p->y, &p->algo, m->space, SPACE, mbl_cuda_stream(ops)),
           "a matrix product");
    return MBL_OK;
}

/* The product of f64, or of bf16 in f32, then bias and activation by a kernel of our own. */
static mbl_status_t run_in_two_steps(mbl_ops_t *ops, const mbl_matmul_args_t *x) {
    mbl_matmul_args_t raw = *x;
    raw.bias = NULL;
    MBL_TRY(run_product(ops, &raw, CUBLASLT_EPILOGUE_DEFAULT));
    return mbl_cuda_epilogue(ops, x->y, x->bias, x->act);
}

/* Whether a tensor (or NULL) is made of pieces of 16 bytes throughout. */
static bool in_pieces(const mbl_tensor_t *t) {
    const size_t size = t ? mbl_dtype_size(t->dtype) : 0;
    return !t || ((uintptr_t)t->data % 16 == 0 && t->dim[t->ndim - 1] * size % 16 == 0 &&
                  (t->ndim == 1 || t->stride[0] * size % 16 == 0));
}

/* Whether cublasLt applies the activation: it knows gelu, and means the form with tanh. Only in bf16, whose
 * rounding hides how exact its tanh is; NVIDIA does not say, and f32 is what others are compared with. Which
 * operands it takes must not depend on M: aligned ones only. */
static bool fuses(const mbl_matmul_args_t *x) {
    return x->act == MBL_ACT_GELU_TANH && x->a->dtype == MBL_BF16 && x->y->dtype == MBL_BF16 &&
           in_pieces(x->a) && in_pieces(x->b) && in_pieces(x->y) && in_pieces(x->bias);
}

/* Other activations are applied in place to what the product has rounded. */
mbl_status_t mbl_cuda_matmul(mbl_ops_t *ops, const mbl_matmul_args_t *args) {
    if (fuses(args))
        return run_product(ops, args, args->bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU);
    const bool same = args->a->dtype == args->y->dtype && args->a->dtype != MBL_F64;
    if (!args->bias && args->act == MBL_ACT_NONE)
        return run_product(ops, args, CUBLASLT_EPILOGUE_DEFAULT);
    if (!same)
        return run_in_two_steps(ops, args);
    MBL_TRY(run_product(ops, args, args->bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT));
    return args->act == MBL_ACT_NONE ? MBL_OK : mbl_cuda_epilogue(ops, args->y, NULL, args->act);
}
