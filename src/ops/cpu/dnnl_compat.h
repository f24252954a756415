/* The part of oneDNN that differs between 2.x and 3.x, behind one call: a matrix product ready to run. */
#ifndef MBL_OPS_CPU_DNNL_COMPAT_H
#define MBL_OPS_CPU_DNNL_COMPAT_H

#include "ops/ops.h"

#include <oneapi/dnnl/dnnl.h>

/* What a product is; also the key it is found by, so it is compared as bytes: clear it before filling. y
 * [m,n]
 * (+)= act(a [m,k] b [k,n] + bias). Strides in elements; f32 and bf16 only. */
typedef struct {
    int64_t m, n, k;
    int64_t a_row, a_column, b_row, b_column, y_row;
    int32_t ct, y_type; /* mbl_dtype_t */
    int32_t act;        /* mbl_act_t */
    int32_t bias, accumulate, threads;
} mbl_dnnl_matmul_t;

typedef struct {
    dnnl_primitive_t primitive;
    dnnl_memory_t a, b, bias, y, scratch; /* their data is set before every run */
    size_t scratch_bytes;
} mbl_dnnl_product_t;

/* Free what was built (and what a failure left half built) with mbl_dnnl_product_free. */
dnnl_status_t mbl_dnnl_product_new(dnnl_engine_t engine, const mbl_dnnl_matmul_t *what,
                                   mbl_dnnl_product_t *out);
void mbl_dnnl_product_free(mbl_dnnl_product_t *product);

#endif
