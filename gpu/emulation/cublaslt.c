/* cublasLt on the host: descriptors, their checks, and the call that queues a product (product.c works). */
#include <cublasLt.h>

#include "gpu/emulation/product.h"
#include "gpu/emulation/queue.h"

#include <stdlib.h>
#include <string.h>

struct mbl_emu_lt {
    int device;
};
struct mbl_emu_lt_layout {
    mbl_emu_matrix_t matrix;
};
struct mbl_emu_lt_desc {
    cublasComputeType_t compute;
    cudaDataType scale;
    int32_t transpose_a, transpose_b, epilogue, bias_type, aux_type; /* -1: that of d */
    const void *bias;
    void *aux;
    int64_t aux_ld;
};
struct mbl_emu_lt_preference {
    uint64_t workspace;
    uint32_t reductions, alignment[4];
};
static const uint64_t algorithm_mark = 0x6d61726265656d75u;

const char *cublasLtGetStatusString(cublasStatus_t status) {
    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
        return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED:
        return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_EXECUTION_FAILED:
        return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "CUBLAS_STATUS_NOT_SUPPORTED";
    }
    return "CUBLAS_STATUS_UNKNOWN";
}

#define NEW(out)                                                                                             \
    (*(out) = calloc(1, sizeof **(out)));                                                                    \
    if (!*(out))                                                                                             \
    return CUBLAS_STATUS_ALLOC_FAILED

cublasStatus_t cublasLtCreate(cublasLtHandle_t *out) {
    NEW(out);
    (*out)->device = mbl_emu_current_device();
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
    free(handle);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *out, cudaDataType type, uint64_t rows,
                                          uint64_t columns, int64_t ld) {
    NEW(out);
    (*out)->matrix = (mbl_emu_matrix_t){type, (int64_t)rows, (int64_t)columns, ld};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
    free(layout);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *out, cublasComputeType_t compute,
                                        cudaDataType scale) {
    NEW(out);
    (*out)->compute = compute;
    (*out)->scale = scale;
    (*out)->epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    (*out)->bias_type = (*out)->aux_type = -1;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) {
    free(desc);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attribute, const void *value,
                                              size_t bytes) {
    void *field = NULL;
    size_t size = sizeof(int32_t);
    switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
        field = &desc->transpose_a;
        break;
    case CUBLASLT_MATMUL_DESC_TRANSB:
        field = &desc->transpose_b;
        break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        field = &desc->epilogue;
        break;
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
        field = &desc->bias_type;
        break;
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        field = &desc->bias;
        size = sizeof desc->bias;
        break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER:
        field = &desc->aux;
        size = sizeof desc->aux;
        break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD:
        field = &desc->aux_ld;
        size = sizeof desc->aux_ld;
        break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE:
        field = &desc->aux_type;
        break;
    }
    if (!field || bytes != size)
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(field, value, size);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *out) {
    NEW(out);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
    free(preference);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t bytes) {
    int at = (int)attribute - (int)CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES;
    if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES && bytes == sizeof preference->workspace)
        memcpy(&preference->workspace, value, bytes);
    else if (attribute == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK &&
             bytes == sizeof preference->reductions)
        memcpy(&preference->reductions, value, bytes);
    else if (at >= 0 && at < 4 && bytes == sizeof *preference->alignment)
        memcpy(&preference->alignment[at], value, bytes);
    else
        return CUBLAS_STATUS_INVALID_VALUE;
    return CUBLAS_STATUS_SUCCESS;
}

static bool adds_bias(cublasLtMatmulDesc_t desc) {
    return desc->epilogue & CUBLASLT_EPILOGUE_BIAS;
}
static bool applies_gelu(cublasLtMatmulDesc_t desc) {
    return desc->epilogue & CUBLASLT_EPILOGUE_GELU;
}
static bool applies_slope(cublasLtMatmulDesc_t desc) {
    return desc->epilogue == CUBLASLT_EPILOGUE_DGELU;
}
static bool has_aux(cublasLtMatmulDesc_t desc) {
    return desc->epilogue & 128;
}

/* Epilogues in use: a bias on bf16 and f32, gelu and its slope on bf16. */
static bool known_epilogue(cublasLtMatmulDesc_t desc, const mbl_emu_matrix_t *a, const mbl_emu_matrix_t *d) {
    switch (desc->epilogue) {
    case CUBLASLT_EPILOGUE_DEFAULT:
        return true;
    case CUBLASLT_EPILOGUE_BIAS:
        return d->type != CUDA_R_64F;
    case CUBLASLT_EPILOGUE_GELU:
    case CUBLASLT_EPILOGUE_GELU_BIAS:
    case CUBLASLT_EPILOGUE_GELU_AUX:
    case CUBLASLT_EPILOGUE_GELU_AUX_BIAS:
    case CUBLASLT_EPILOGUE_DGELU:
        return a->type == CUDA_R_16BF && d->type == CUDA_R_16BF && mbl_emu_settings.gelu != MBL_EMU_NO_GELU;
    default:
        return false;
    }
}

/* NVIDIA's rules for the auxiliary matrix (cublasLt.h at EPILOGUE_AUX_LD and EPILOGUE_AUX_DATA_TYPE), and
 * that its pointer is known and aligned when an algorithm is chosen, which may depend on that. */
static bool good_aux(cublasLtMatmulDesc_t desc, const mbl_emu_matrix_t *d) {
    return !has_aux(desc) ||
           (desc->aux_ld % 8 == 0 && desc->aux_ld >= d->rows && desc->aux && (uintptr_t)desc->aux % 16 == 0 &&
            (desc->aux_type == -1 || desc->aux_type == (int32_t)d->type));
}

/* Whether the product makes sense and is one of those in use. */
static cublasStatus_t check_product(cublasLtMatmulDesc_t desc, const mbl_emu_matrix_t *a,
                                    const mbl_emu_matrix_t *b, const mbl_emu_matrix_t *c,
                                    const mbl_emu_matrix_t *d) {
    int64_t m = desc->transpose_a ? a->columns : a->rows, k = desc->transpose_a ? a->rows : a->columns;
    int64_t n = desc->transpose_b ? b->rows : b->columns, kb = desc->transpose_b ? b->columns : b->rows;
    if (m <= 0 || n <= 0 || k <= 0 || k != kb || d->rows != m || d->columns != n ||
        memcmp(c, d, sizeof *d) != 0 || a->ld < a->rows || b->ld < b->rows || d->ld < d->rows ||
        !good_aux(desc, d))
        return CUBLAS_STATUS_INVALID_VALUE;
    bool wide = desc->compute == CUBLAS_COMPUTE_64F;
    if (a->type != b->type || (a->type == CUDA_R_64F) != wide || (d->type == CUDA_R_64F) != wide ||
        desc->scale != (wide ? CUDA_R_64F : CUDA_R_32F) || a->type == CUDA_R_16F || d->type == CUDA_R_16F ||
        (a->type == CUDA_R_32F && d->type != CUDA_R_32F))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    return known_epilogue(desc, a, d) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t *results, int *found) {
    if (!handle || !preference || wanted < 1)
        return CUBLAS_STATUS_INVALID_VALUE;
    cublasStatus_t status = check_product(desc, &a->matrix, &b->matrix, &c->matrix, &d->matrix);
    *found = status == CUBLAS_STATUS_SUCCESS;
    if (*found)
        *results = (cublasLtMatmulHeuristicResult_t){.algo = {{algorithm_mark}}, .wavesCount = 1};
    return status;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t *algo,
                                       cublasLtMatmulHeuristicResult_t *result) {
    if (!handle || !algo || algo->data[0] != algorithm_mark)
        return CUBLAS_STATUS_INVALID_VALUE;
    *result = (cublasLtMatmulHeuristicResult_t){.algo = *algo, .wavesCount = 1};
    return check_product(desc, &a->matrix, &b->matrix, &c->matrix, &d->matrix);
}

/* Whether d and the auxiliary matrix, of one type, lie over each other. */
static bool overlap(const mbl_emu_product_t *x) {
    const int64_t last = x->d_layout.columns - 1, rows = x->d_layout.rows, size = 2;
    const char *d = x->d, *aux = x->aux;
    return d < aux + (last * x->aux_layout.ld + rows) * size &&
           aux < d + (last * x->d_layout.ld + rows) * size;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                              cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                              cublasLtMatrixLayout_t c_layout, void *d, cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t *algo, void *workspace, size_t workspace_bytes,
                              cudaStream_t stream) {
    if (!handle || c != d || (algo && algo->data[0] != algorithm_mark) ||
        (workspace_bytes > 0 && mbl_emu_device_of(workspace) < 0))
        return CUBLAS_STATUS_INVALID_VALUE;
    cublasStatus_t status =
        check_product(desc, &a_layout->matrix, &b_layout->matrix, &c_layout->matrix, &d_layout->matrix);
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    if (desc->epilogue & ~CUBLASLT_EPILOGUE_BIAS & ~CUBLASLT_EPILOGUE_DEFAULT &&
        mbl_emu_settings.gelu == MBL_EMU_LATE_NO_GELU)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    mbl_emu_product_t product = {.a = a,
                                 .b = b,
                                 .d = d,
                                 .a_layout = a_layout->matrix,
                                 .b_layout = b_layout->matrix,
                                 .d_layout = d_layout->matrix,
                                 .transpose_a = desc->transpose_a != 0,
                                 .transpose_b = desc->transpose_b != 0,
                                 .gelu = applies_gelu(desc),
                                 .slope = applies_slope(desc)};
    bool wide = desc->compute == CUBLAS_COMPUTE_64F;
    product.alpha = wide ? *(const double *)alpha : (double)*(const float *)alpha;
    product.beta = wide ? *(const double *)beta : (double)*(const float *)beta;
    if (adds_bias(desc)) {
        product.bias = desc->bias;
        product.bias_type = desc->bias_type < 0 ? d_layout->matrix.type : (cudaDataType)desc->bias_type;
        if (!product.bias)
            return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (has_aux(desc)) {
        product.aux = desc->aux;
        product.aux_layout = d_layout->matrix;
        product.aux_layout.ld = desc->aux_ld;
        if (overlap(&product))
            return CUBLAS_STATUS_INVALID_VALUE;
    }
    mbl_emu_lock();
    cudaError_t error = mbl_emu_product(&product, stream);
    mbl_emu_unlock();
    return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}
