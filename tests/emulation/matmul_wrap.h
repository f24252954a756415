/* The parameters of cublasLt's calls that tests put themselves in front of (-Wl,--wrap): each stands in three
 * declarations. */
#ifndef MBL_TESTS_EMULATION_MATMUL_WRAP_H
#define MBL_TESTS_EMULATION_MATMUL_WRAP_H

#include <cublasLt.h>

#define MATMUL_PARAMETERS                                                                                    \
    cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha, const void *a,                    \
        cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout, const void *beta,   \
        const void *c, cublasLtMatrixLayout_t c_layout, void *d, cublasLtMatrixLayout_t d_layout,            \
        const cublasLtMatmulAlgo_t *algo, void *space, size_t bytes, cudaStream_t stream
#define MATMUL_ARGUMENTS                                                                                     \
    handle, desc, alpha, a, a_layout, b, b_layout, beta, c, c_layout, d, d_layout, algo, space, bytes, stream

#define HEURISTIC_PARAMETERS                                                                                 \
    cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,  \
        cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t preference,           \
        int wanted, cublasLtMatmulHeuristicResult_t *results, int *found
#define HEURISTIC_ARGUMENTS handle, desc, a, b, c, d, preference, wanted, results, found

#define CHECK_PARAMETERS                                                                                     \
    cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,  \
        cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d, const cublasLtMatmulAlgo_t *algo,                \
        cublasLtMatmulHeuristicResult_t *result
#define CHECK_ARGUMENTS handle, desc, a, b, c, d, algo, result

#define ATTRIBUTE_PARAMETERS                                                                                 \
    cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute, const void *value, size_t bytes
#define ATTRIBUTE_ARGUMENTS desc, attribute, value, bytes

/* The call itself, and a function that stands in front of it. */
#define WRAPPED(call, PARAMETERS)                                                                            \
    cublasStatus_t __real_##call(PARAMETERS);                                                                \
    cublasStatus_t __wrap_##call(PARAMETERS);                                                                \
    cublasStatus_t __wrap_##call(PARAMETERS)

#endif
