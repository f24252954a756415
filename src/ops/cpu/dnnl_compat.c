/* What differs between the matrix products of oneDNN 2.x and 3.x stays in here. */
#include "ops/cpu/dnnl_compat.h"
#include "ops/cpu/dnnl_setup.h"

#include <string.h>

enum { A, B, BIAS, Y, DESCRIPTORS };

static dnnl_status_t describe(dnnl_memory_desc_t *out, dnnl_data_type_t type, int64_t rows, int64_t columns,
                              int64_t row, int64_t column) {
    /* oneDNN 3.7 takes [m, 1] with strides {1, ld}, and [1, k] with {1, ld}, for other layouts and reads
     * beside them. The stride of a dimension of 1 is free, so it becomes that of plain rows. */
    if (columns == 1)
        column = 1;
    if (rows == 1)
        row = columns * column;
    dnnl_dims_t dims = {rows, columns}, strides = {row, column};
    return mbl_dnnl_describe(out, type, 2, dims, strides);
}

static dnnl_status_t create(dnnl_engine_t engine, const dnnl_memory_desc_t d[DESCRIPTORS], bool bias,
                            mbl_dnnl_setup_t *setup) {
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_matmul_primitive_desc_create(&setup->pd, engine, d[A], d[B], bias ? d[BIAS] : NULL, d[Y],
                                             setup->attr);
#else
    dnnl_matmul_desc_t op;
    DNNL_TRY(dnnl_matmul_desc_init(&op, &d[A], &d[B], bias ? &d[BIAS] : NULL, &d[Y]));
    return dnnl_primitive_desc_create(&setup->pd, &op, setup->attr, engine, NULL);
#endif
}

static dnnl_status_t append_post(dnnl_post_ops_t post, const mbl_dnnl_matmul_t *what) {
    if (what->accumulate)
        DNNL_TRY(mbl_dnnl_append_sum(post)); /* before the activation */
    switch ((mbl_act_t)what->act) {
    case MBL_ACT_GELU_TANH:
        return mbl_dnnl_append_act(post, dnnl_eltwise_gelu_tanh, 0);
    case MBL_ACT_GELU_ERF:
        return mbl_dnnl_append_act(post, dnnl_eltwise_gelu_erf, 0);
    case MBL_ACT_SILU:
        return mbl_dnnl_append_act(post, dnnl_eltwise_swish, 1);
    case MBL_ACT_QUICK_GELU:
        return mbl_dnnl_append_act(post, dnnl_eltwise_swish, 1.702f);
    case MBL_ACT_NONE:
        break;
    }
    return dnnl_success;
}

static dnnl_status_t build(dnnl_engine_t engine, const mbl_dnnl_matmul_t *what,
                           dnnl_memory_desc_t d[DESCRIPTORS], mbl_dnnl_setup_t *setup,
                           mbl_dnnl_product_t *out) {
    dnnl_data_type_t ct = what->ct == MBL_BF16 ? dnnl_bf16 : dnnl_f32;
    dnnl_data_type_t y = what->y_type == MBL_BF16 ? dnnl_bf16 : dnnl_f32;
    DNNL_TRY(mbl_dnnl_setup_begin(setup));
    DNNL_TRY(append_post(setup->post, what));
    DNNL_TRY(dnnl_primitive_attr_set_post_ops(setup->attr, setup->post));
    DNNL_TRY(describe(&d[A], ct, what->m, what->k, what->a_row, what->a_column));
    DNNL_TRY(describe(&d[B], ct, what->k, what->n, what->b_row, what->b_column));
    DNNL_TRY(describe(&d[BIAS], ct, 1, what->n, what->n, 1));
    DNNL_TRY(describe(&d[Y], y, what->m, what->n, what->y_row, 1));
    DNNL_TRY(create(engine, d, what->bias != 0, setup));
    DNNL_TRY(dnnl_primitive_create(&out->primitive, setup->pd));
    DNNL_TRY(mbl_dnnl_memory(engine, DNNL_REF(d[A]), &out->a));
    DNNL_TRY(mbl_dnnl_memory(engine, DNNL_REF(d[B]), &out->b));
    DNNL_TRY(mbl_dnnl_memory(engine, DNNL_REF(d[BIAS]), &out->bias));
    DNNL_TRY(mbl_dnnl_memory(engine, DNNL_REF(d[Y]), &out->y));
    return mbl_dnnl_scratch(engine, setup->pd, &out->scratch, &out->scratch_bytes);
}

dnnl_status_t mbl_dnnl_product_new(dnnl_engine_t engine, const mbl_dnnl_matmul_t *what,
                                   mbl_dnnl_product_t *out) {
    dnnl_memory_desc_t d[DESCRIPTORS];
    mbl_dnnl_setup_t setup;
    memset(out, 0, sizeof *out);
    memset(d, 0, sizeof d);
    dnnl_status_t status = build(engine, what, d, &setup, out);
    mbl_dnnl_setup_end(&setup, d, DESCRIPTORS);
    if (status != dnnl_success)
        mbl_dnnl_product_free(out);
    return status;
}

void mbl_dnnl_product_free(mbl_dnnl_product_t *product) {
    dnnl_memory_t memory[] = {product->a, product->b, product->bias, product->y, product->scratch};
    mbl_dnnl_memory_free(memory, 5);
    if (product->primitive)
        dnnl_primitive_destroy(product->primitive);
    memset(product, 0, sizeof *product);
}
