/* A matrix product as cublasLt means it: column-major, d = f(alpha op(a) op(b) + beta d + bias), f a gelu
 * (with tanh) or the product with its slope elsewhere. */
#ifndef MBL_GPU_EMULATION_PRODUCT_H
#define MBL_GPU_EMULATION_PRODUCT_H

#include "gpu/emulation/emulator.h"

typedef struct {
    cudaDataType type;
    int64_t rows, columns, ld; /* as stored */
} mbl_emu_matrix_t;

typedef struct {
    const void *a, *b, *bias; /* bias [rows of d] or NULL */
    void *d, *aux;            /* gelu: what it was applied to (or NULL); slope: where it is taken */
    mbl_emu_matrix_t a_layout, b_layout, d_layout, aux_layout;
    cudaDataType bias_type;
    bool transpose_a, transpose_b, gelu, slope;
    double alpha, beta;
} mbl_emu_product_t;

/* Queues it. */
cudaError_t mbl_emu_product(const mbl_emu_product_t *product, cudaStream_t stream);

#endif
