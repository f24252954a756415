/* What the driver of own matrix products (gemm.c) and its kernels (gemm_kernel.inc, compiled once for every
 * instruction set) share. */
#ifndef MBL_OPS_CPU_GEMM_KERNEL_H
#define MBL_OPS_CPU_GEMM_KERNEL_H

#include "ops/ops.h"

/* Sums run over so many k at a time, so that a panel of b stays in the first cache; the sums of these parts
 * are added up in order. What an element's sum looks like depends on K alone. */
enum { MBL_GEMM_DEPTH = 384 };

/* A task's rows times some panels of b, over one part of K. */
typedef struct {
    const mbl_matmul_args_t *args;
    size_t row, rows, tiles; /* rows [row, row + rows) of y, in this many tiles of (nearly) equal height */
    size_t column, columns;  /* columns of y; column is the first of a panel */
    const float *a;          /* [rows, depth], a_row apart */
    size_t a_row;
    const float *b;         /* the panels, whole: panel p of width w begins at its first column * K, [K, w] */
    size_t k, first, depth; /* the part of K: k in [first, first + depth) */
    const float *bias;      /* [columns, filled up to whole vectors], or NULL */
    float *part;            /* [rows, part_row]: sums so far; unused where the part is all of K */
    size_t part_row;
} mbl_gemm_task_t;

typedef struct {
    const char *name;
    size_t rows, columns, lanes; /* of a tile in registers; floats of a vector */
    /* Columns [column, column + columns) of b as f32, [K, columns filled up with zeros to whole vectors]. */
    void (*pack)(float *out, const mbl_matmul_args_t *args, size_t column, size_t columns);
    /* Rows [row, row + rows) and k in [first, first + depth) of a as f32, [rows, depth]. */
    void (*load)(float *out, const mbl_matmul_args_t *args, size_t row, size_t rows, size_t first,
                 size_t depth);
    void (*multiply)(const mbl_gemm_task_t *task);
} mbl_gemm_kernel_t;

extern const mbl_gemm_kernel_t mbl_gemm_portable;
#if defined(__x86_64__)
extern const mbl_gemm_kernel_t mbl_gemm_avx2;
#endif

#endif
