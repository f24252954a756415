/* Convolutions of oneDNN, 2.x or 3.x: one image's, ready to run. */
#ifndef MBL_OPS_CPU_DNNL_CONV_H
#define MBL_OPS_CPU_DNNL_CONV_H

#include "ops/ops.h"

#include <oneapi/dnnl/dnnl.h>

/* What a convolution is; also the key it is found by, so it is compared as bytes: clear it before filling. y
 * [height + 2 pad - kh + 1, .., outputs] (+)= conv(x [height, width, channels]) + bias, channels last,
 * weights [outputs, kh, kw, channels]; f32 and bf16 only. */
typedef struct {
    int64_t height, width, channels, outputs, kh, kw, pad;
    int32_t ct; /* mbl_dtype_t */
    int32_t bias, accumulate, threads;
} mbl_dnnl_conv_t;

/* The data of x, weight, packed, bias, y and scratch is set before every run. */
typedef struct {
    dnnl_primitive_t conv, pack;
    dnnl_memory_t x, weight, packed, bias, y, scratch;
    size_t packed_bytes; /* of the weights in oneDNN's own layout, made by `pack` */
    size_t scratch_bytes;
} mbl_dnnl_convolution_t;

/* Free what was built (and what a failure left half built) with mbl_dnnl_convolution_free. */
dnnl_status_t mbl_dnnl_convolution_new(dnnl_engine_t engine, const mbl_dnnl_conv_t *what,
                                       mbl_dnnl_convolution_t *out);
void mbl_dnnl_convolution_free(mbl_dnnl_convolution_t *convolution);

#endif
