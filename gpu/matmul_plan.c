/* Plans of cublasLt (descriptors and the chosen algorithm), kept for every shape seen. Which algorithm is
 * chosen must not depend on M, or a sample's rows would depend on how many share its batch: it is asked for
 * at one fixed M and without cutting K, except where the samples are what is summed over (transpose_a, weight
 * gradients). */
#include "gpu/matmul_plan.h"
#include "base/log.h"
#include "base/mem.h"

#include <string.h>

enum { MOST = MBL_CUDA_PLANS / 2 };
enum { TYPICAL_ROWS = 4096 }; /* the M that algorithms are chosen for */

mbl_status_t mbl_cuda_lt_check(cublasStatus_t status, const char *what) {
    if (status == CUBLAS_STATUS_SUCCESS)
        return MBL_OK;
    return MBL_FAIL(status == CUBLAS_STATUS_ALLOC_FAILED ? MBL_ERR_MEM : MBL_ERR_DEVICE, "cublasLt: %s: %s",
                    what, cublasLtGetStatusString(status));
}

mbl_status_t mbl_cuda_matmuls_open(mbl_ops_t *ops, mbl_cuda_matmuls_t **out) {
    mbl_cuda_matmuls_t *m;
    MBL_ALLOC(m, 1);
    mbl_status_t status = mbl_cuda_lt_check(cublasLtCreate(&m->handle), "opening");
    mbl_ops_part(ops, "cublasLt's workspace",
                 "fewer other processes on this GPU (nvidia-smi lists them), or device: cpu");
    if (status == MBL_OK)
        status = mbl_cuda_memory(ops, MBL_CUDA_LT_SPACE, &m->space);
    mbl_ops_part(ops, NULL, NULL);
    if (status != MBL_OK) {
        mbl_cuda_matmuls_close(m);
        return status;
    }
    *out = m;
    return MBL_OK;
}

static void free_plan(mbl_cuda_plan_t *plan) {
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
    for (size_t i = 0; i < MBL_CUDA_PLANS; i++)
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

static mbl_status_t make_layouts(const mbl_cuda_product_t *x, int64_t m, cublasLtMatrixLayout_t *a,
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

static mbl_status_t point(cublasLtMatmulDesc_t desc, const mbl_matmul_args_t *x,
                          cublasLtEpilogue_t epilogue) {
    const mbl_tensor_t *aux = mbl_cuda_companion(x);
    if (epilogue == CUBLASLT_EPILOGUE_DEFAULT)
        return MBL_OK;
    if (x->bias)
        LT_TRY(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &x->bias->data,
                                              sizeof x->bias->data),
               "the bias");
    if (aux && epilogue != CUBLASLT_EPILOGUE_BIAS)
        LT_TRY(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &aux->data,
                                              sizeof aux->data),
               "the input of the activation");
    return MBL_OK;
}

static mbl_status_t make_desc(const mbl_cuda_product_t *x, cublasLtMatmulDesc_t *desc) {
    const int32_t first = x->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    const int32_t second = x->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    const int32_t aux_type = (int32_t)type_of(x->y_type);
    const bool wide = x->ct == MBL_F64;
    const struct {
        cublasLtMatmulDescAttributes_t name;
        const void *value;
        size_t size;
    } set[] = {
        {CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first},
        {CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof second},
        {CUBLASLT_MATMUL_DESC_EPILOGUE, &x->epilogue, sizeof x->epilogue},
        {CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &x->aux_row, sizeof x->aux_row},
        {CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE, &aux_type, sizeof aux_type},
    };
    LT_TRY(cublasLtMatmulDescCreate(desc, wide ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F,
                                    wide ? CUDA_R_64F : CUDA_R_32F),
           "describing a product");
    for (size_t i = 0; i < (x->aux_row ? 5 : 3); i++)
        LT_TRY(cublasLtMatmulDescSetAttribute(*desc, set[i].name, set[i].value, set[i].size),
               "transposes and the epilogue");
    return MBL_OK;
}

static mbl_status_t set_preference(const mbl_cuda_product_t *x, cublasLtMatmulPreference_t preference) {
    const uint64_t space = MBL_CUDA_LT_SPACE;
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

/* The algorithm, asked for with `rows` rows of y; plan->refused where there is none. */
static mbl_status_t choose(mbl_cuda_matmuls_t *m, const mbl_cuda_product_t *x, int64_t rows,
                           mbl_cuda_plan_t *plan) {
    cublasLtMatrixLayout_t a = NULL, b = NULL, y = NULL;
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t result;
    int found = 0;
    memset(&result, 0, sizeof result);
    mbl_status_t status = make_layouts(x, rows, &a, &b, &y);
    if (status == MBL_OK)
        status = mbl_cuda_lt_check(cublasLtMatmulPreferenceCreate(&preference), "what an algorithm may use");
    if (status == MBL_OK)
        status = set_preference(x, preference);
    if (status == MBL_OK) {
        cublasStatus_t answer =
            cublasLtMatmulAlgoGetHeuristic(m->handle, plan->desc, b, a, y, y, preference, 1, &result, &found);
        plan->refused = answer == CUBLAS_STATUS_NOT_SUPPORTED || found == 0;
        if (answer != CUBLAS_STATUS_NOT_SUPPORTED)
            status = mbl_cuda_lt_check(answer, "choosing an algorithm");
    }
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

/* The epilogue that an algorithm is asked for: gelu's with its input kept, for passes that keep it and for
 * those that do not. A velocity and the old policy's, which are subtracted, then differ by their weights
 * alone. */
static int32_t asked_epilogue(int32_t epilogue) {
    return epilogue == CUBLASLT_EPILOGUE_GELU        ? CUBLASLT_EPILOGUE_GELU_AUX
           : epilogue == CUBLASLT_EPILOGUE_GELU_BIAS ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS
                                                     : epilogue;
}

/* choose, for the epilogue that keeps its input; the workspace stands for what nothing is written to. */
static mbl_status_t choose_as_kept(mbl_cuda_matmuls_t *m, const mbl_cuda_product_t *x,
                                   const mbl_matmul_args_t *args, mbl_cuda_plan_t *plan) {
    mbl_cuda_plan_t twin = {.what = *x};
    mbl_tensor_t kept = *args->y;
    mbl_matmul_args_t with = *args;
    kept.data = m->space;
    with.pre = &kept;
    twin.what.epilogue = asked_epilogue(x->epilogue);
    twin.what.aux_row = x->y_row;
    mbl_status_t status = make_desc(&twin.what, &twin.desc);
    if (status == MBL_OK)
        status = point(twin.desc, &with, (cublasLtEpilogue_t)twin.what.epilogue);
    if (status == MBL_OK)
        status = choose(m, &twin.what, TYPICAL_ROWS, &twin);
    plan->algo = twin.algo;
    plan->refused = twin.refused;
    if (twin.desc)
        cublasLtMatmulDescDestroy(twin.desc);
    return status;
}

/* Whether the algorithm takes the product as it is. */
static bool takes(const mbl_cuda_matmuls_t *m, const mbl_cuda_plan_t *plan) {
    cublasLtMatmulHeuristicResult_t ignored;
    return !plan->refused && cublasLtMatmulAlgoCheck(m->handle, plan->desc, plan->b, plan->a, plan->y,
                                                     plan->y, &plan->algo, &ignored) == CUBLAS_STATUS_SUCCESS;
}

static void warn_of_rows(mbl_cuda_matmuls_t *m, const mbl_cuda_product_t *x) {
    if (!m->dependent)
        MBL_WARN(
            "cublasLt: the algorithm for products of K = %lld and N = %lld in %s does not take %lld rows, "
            "so one is chosen for as many: a sample's numbers may differ in their last bits by how many "
            "share its batch",
            (long long)x->k, (long long)x->n, mbl_dtype_name((mbl_dtype_t)x->ct), (long long)x->m);
    m->dependent = true;
}

/* Where the algorithm chosen at the typical M does not take the true one, the true one decides. */
static mbl_status_t make_plan(mbl_cuda_matmuls_t *m, const mbl_cuda_product_t *x,
                              const mbl_matmul_args_t *args, mbl_cuda_plan_t *plan) {
    plan->what = *x;
    MBL_TRY(make_desc(x, &plan->desc));
    MBL_TRY(point(plan->desc, args, (cublasLtEpilogue_t)x->epilogue));
    MBL_TRY(make_layouts(x, x->m, &plan->a, &plan->b, &plan->y));
    if (x->transpose_a)
        return choose(m, x, x->m, plan);
    if (asked_epilogue(x->epilogue) != x->epilogue) {
        MBL_TRY(choose_as_kept(m, x, args, plan));
        if (takes(m, plan))
            return MBL_OK;
    }
    MBL_TRY(choose(m, x, TYPICAL_ROWS, plan));
    if (plan->refused || takes(m, plan))
        return MBL_OK;
    warn_of_rows(m, x);
    return choose(m, x, x->m, plan);
}

static size_t hash_of(const mbl_cuda_product_t *what) {
    uint64_t word[sizeof *what / 8], hash = 0x9E3779B97F4A7C15u;
    memcpy(word, what, sizeof word);
    for (size_t i = 0; i < sizeof word / sizeof word[0]; i++) {
        hash = (hash ^ word[i]) * 0xFF51AFD7ED558CCDu;
        hash ^= hash >> 32;
    }
    return (size_t)hash;
}

mbl_status_t mbl_cuda_plan_find(mbl_cuda_matmuls_t *m, const mbl_cuda_product_t *what,
                                const mbl_matmul_args_t *args, mbl_cuda_plan_t **out) {
    size_t at = hash_of(what) % MBL_CUDA_PLANS;
    for (; m->plan[at]; at = (at + 1) % MBL_CUDA_PLANS)
        if (memcmp(&m->plan[at]->what, what, sizeof *what) == 0) {
            *out = m->plan[at];
            return point((*out)->desc, args, (cublasLtEpilogue_t)what->epilogue);
        }
    if (m->n >= MOST) {
        forget_all(m);
        at = hash_of(what) % MBL_CUDA_PLANS;
    }
    mbl_cuda_plan_t *plan;
    MBL_ALLOC(plan, 1);
    mbl_status_t status = make_plan(m, what, args, plan);
    if (status != MBL_OK) {
        free_plan(plan);
        return status;
    }
    m->plan[at] = plan;
    m->n++;
    *out = plan;
    return MBL_OK;
}
