/* Matrix products of the emulated cublasLt, by oneDNN's sgemm. bf16 operands become f32 first: their products
 * are exact there, and sums are in f32, as in tensor cores. Columns of d (the rows of a row-major result) are
 * worked on in blocks of one size, so that a column's bits do not depend on how many there are. */
#include "gpu/emulation/product.h"
#include "gpu/emulation/queue.h"

#include "ops/tensor.h"

#include <math.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdlib.h>
#include <string.h>

/* Columns that are multiplied at once: as many as sgemm treats alike, so that none depends on its neighbours
 * (src/ops/cpu/matmul.c; without AVX-512 these are 24). */
static int64_t block_size(void) {
    return (dnnl_get_effective_cpu_isa() & dnnl_cpu_isa_avx512_core) == dnnl_cpu_isa_avx512_core ? 32 : 24;
}

typedef struct {
    mbl_emu_body_t body;
    mbl_emu_product_t product;
} task_t;

static size_t size_of(cudaDataType type) {
    return type == CUDA_R_64F ? 8 : type == CUDA_R_32F ? 4 : 2;
}

static double number(const void *data, cudaDataType type, size_t i) {
    return type == CUDA_R_64F   ? ((const double *)data)[i]
           : type == CUDA_R_32F ? (double)((const float *)data)[i]
                                : (double)mbl_bf16_to_f32(((const uint16_t *)data)[i]);
}

static cudaError_t check_matrix(const void *data, const mbl_emu_matrix_t *m, mbl_emu_access_t access,
                                const char *what) {
    size_t size = size_of(m->type);
    for (int64_t j = 0; j < m->columns; j++) {
        const char *column = (const char *)data + (size_t)(j * m->ld) * size;
        cudaError_t error = mbl_emu_check_range(column, (size_t)m->rows * size, access, what);
        if (error != cudaSuccess)
            return error;
    }
    return cudaSuccess;
}

static cudaError_t check_operands(const mbl_emu_product_t *x, const char *name) {
    cudaError_t error = check_matrix(x->a, &x->a_layout, MBL_EMU_READ_ACCESS, name);
    if (error == cudaSuccess)
        error = check_matrix(x->b, &x->b_layout, MBL_EMU_READ_ACCESS, name);
    if (error == cudaSuccess && x->bias)
        error = mbl_emu_check_range(x->bias, (size_t)x->d_layout.rows * size_of(x->bias_type),
                                    MBL_EMU_READ_ACCESS, name);
    if (error == cudaSuccess && x->aux)
        error =
            check_matrix(x->aux, &x->aux_layout, x->slope ? MBL_EMU_READ_ACCESS : MBL_EMU_WRITE_ACCESS, name);
    if (error == cudaSuccess && x->beta != 0)
        error = check_matrix(x->d, &x->d_layout, MBL_EMU_READ_ACCESS, name);
    return error != cudaSuccess ? error : check_matrix(x->d, &x->d_layout, MBL_EMU_WRITE_ACCESS, name);
}

/* The matrix in f32, columns dense; NULL without memory. Free with free(). */
static float *to_f32(const void *data, const mbl_emu_matrix_t *m) {
    float *out = malloc((size_t)(m->rows * m->columns) * sizeof *out);
    if (!out)
        return NULL;
#pragma omp parallel for schedule(static)
    for (int64_t j = 0; j < m->columns; j++) {
        float *to = out + j * m->rows;
        if (m->type == CUDA_R_32F) {
            memcpy(to, (const float *)data + j * m->ld, (size_t)m->rows * sizeof *to);
            continue;
        }
        const uint16_t *from = (const uint16_t *)data + j * m->ld;
        for (int64_t i = 0; i < m->rows; i++)
            to[i] = mbl_bf16_to_f32(from[i]);
    }
    return out;
}

static float gelu(float x) {
    return 0.5f * x * (1 + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
}

static float gelu_slope(float x) {
    float t = tanhf(0.7978845608f * (x + 0.044715f * x * x * x));
    return 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * 0.7978845608f * (1 + 3 * 0.044715f * x * x);
}

/* alpha sum + beta d + bias and what follows into column j of d, rounded once. */
static void finish_column(const mbl_emu_product_t *x, const float *sum, int64_t j) {
    const float alpha = (float)x->alpha, beta = (float)x->beta;
    for (int64_t i = 0; i < x->d_layout.rows; i++) {
        size_t at = (size_t)(j * x->d_layout.ld + i);
        float value = alpha * sum[i];
        if (beta != 0)
            value += beta * (float)number(x->d, x->d_layout.type, at);
        if (x->bias)
            value += (float)number(x->bias, x->bias_type, (size_t)i);
        uint16_t *aux = x->aux ? (uint16_t *)x->aux + j * x->aux_layout.ld + i : NULL;
        if (x->slope)
            value *= gelu_slope(mbl_bf16_to_f32(*aux));
        else if (aux)
            *aux = mbl_bf16_from_f32(value);
        if (x->gelu)
            value = gelu(value);
        if (x->d_layout.type == CUDA_R_32F)
            ((float *)x->d)[at] = value;
        else
            ((uint16_t *)x->d)[at] = mbl_bf16_from_f32(value);
    }
}

/* Columns first..first+block_size()-1 of d; those that do not exist are computed from zeros. */
static bool block(const mbl_emu_product_t *x, const float *a, const float *b, int64_t first, float *work) {
    int64_t m = x->d_layout.rows, n = x->d_layout.columns;
    int64_t k = x->transpose_a ? x->a_layout.rows : x->a_layout.columns;
    int64_t size = block_size(), count = n - first < size ? n - first : size;
    float *rows = work, *sum = work + size * k; /* rows [size,k] of b, row-major */
    memset(rows, 0, (size_t)(size * k) * sizeof *rows);
    for (int64_t j = 0; j < count; j++)
        for (int64_t i = 0; i < k; i++)
            rows[j * k + i] = x->transpose_b ? b[i * n + first + j] : b[(first + j) * k + i];
    /* Row-major: sum [size,m] = rows a', where a as stored by columns is a' as stored by rows. */
    dnnl_status_t status = dnnl_sgemm('N', x->transpose_a ? 'T' : 'N', size, m, k, 1.0f, rows, k, a,
                                      x->a_layout.rows, 0.0f, sum, m);
    for (int64_t j = 0; j < count; j++)
        finish_column(x, sum + j * m, first + j);
    return status == dnnl_success;
}

static cudaError_t product_f32(const mbl_emu_product_t *x) {
    int64_t m = x->d_layout.rows, n = x->d_layout.columns;
    int64_t k = x->transpose_a ? x->a_layout.rows : x->a_layout.columns, size = block_size();
    float *a = to_f32(x->a, &x->a_layout), *b = to_f32(x->b, &x->b_layout);
    int failed = !a || !b;
    if (!failed) {
#pragma omp parallel reduction(| : failed)
        {
            float *work = malloc((size_t)(size * (k + m)) * sizeof *work);
#pragma omp for schedule(static)
            for (int64_t first = 0; first < n; first += size)
                failed |= !work || !block(x, a, b, first, work);
            free(work);
        }
    }
    free(a);
    free(b);
    return failed ? cudaErrorUnknown : cudaSuccess;
}

static void product_f64(const mbl_emu_product_t *x) {
    const double *a = x->a, *b = x->b;
    double *d = x->d;
    int64_t m = x->d_layout.rows, n = x->d_layout.columns, la = x->a_layout.ld, lb = x->b_layout.ld;
    int64_t k = x->transpose_a ? x->a_layout.rows : x->a_layout.columns;
#pragma omp parallel for schedule(static)
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = 0; i < m; i++) {
            double sum = 0, *to = &d[j * x->d_layout.ld + i];
            for (int64_t l = 0; l < k; l++)
                sum +=
                    a[x->transpose_a ? i * la + l : l * la + i] * b[x->transpose_b ? l * lb + j : j * lb + l];
            *to = x->alpha * sum + (x->beta != 0 ? x->beta * *to : 0);
        }
}

static cudaError_t run_product(mbl_emu_body_t *self) {
    const mbl_emu_product_t *x = &((task_t *)self)->product;
    cudaError_t error = check_operands(x, self->name);
    if (error != cudaSuccess)
        return error;
    if (x->a_layout.type != CUDA_R_64F)
        return product_f32(x);
    product_f64(x);
    return cudaSuccess;
}

cudaError_t mbl_emu_product(const mbl_emu_product_t *product, cudaStream_t stream) {
    task_t *task = (task_t *)mbl_emu_body_new(sizeof *task, "cublasLtMatmul", run_product);
    if (!task)
        return cudaErrorMemoryAllocation;
    task->product = *product;
    return mbl_emu_enqueue(stream, &task->body);
}
