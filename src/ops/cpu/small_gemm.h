/* Products of small row-major matrices inside one thread, for loops that keep their operands in cache. */
#ifndef MBL_OPS_CPU_SMALL_GEMM_H
#define MBL_OPS_CPU_SMALL_GEMM_H

#include "ops/cpu/isa_ops.h"

#include <stdbool.h>
#include <stddef.h>

/* Compiled for each instruction set, as the operations that call it. */
#define mbl_small_gemm_f32 MBL_ISA_NAME(mbl_small_gemm_f32)
#define mbl_small_gemm_f64 MBL_ISA_NAME(mbl_small_gemm_f64)

/* Columns of b and y come in whole vectors of this many bytes. */
enum { MBL_LANE_BYTES = 64 };

/* y [m,n] = a b, or += with add; element (i,j) of a is a[i a_row + j a_column]; b is [k,n] with rows b_row
 * apart. n must be a multiple of MBL_LANE_BYTES / size of an element. Sums run over k in order for every
 * element, so a row does not depend on m. */
void mbl_small_gemm_f32(float *y, size_t y_row, const float *a, size_t a_row, size_t a_column, const float *b,
                        size_t b_row, size_t m, size_t n, size_t k, bool add);
void mbl_small_gemm_f64(double *y, size_t y_row, const double *a, size_t a_row, size_t a_column,
                        const double *b, size_t b_row, size_t m, size_t n, size_t k, bool add);
#define mbl_small_gemm(y, ...)                                                                               \
    _Generic((y), float * : mbl_small_gemm_f32, double * : mbl_small_gemm_f64)((y), __VA_ARGS__)

#endif
