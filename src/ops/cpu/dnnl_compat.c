/* oneDNN 2.x keeps memory descriptors by value and operation descriptors apart; 3.x has handles and creates
 * primitive descriptors at once. */
#include "ops/cpu/dnnl_compat.h"

#include <string.h>

#define DNNL_TRY(expr)                                                                                       \
    do {                                                                                                     \
        dnnl_status_t dnnl_status_ = (expr);                                                                 \
        if (dnnl_status_ != dnnl_success)                                                                    \
            return dnnl_status_;                                                                             \
    } while (0)

typedef struct {
    dnnl_memory_desc_t a, b, bias, y;
} descriptors_t;

#if DNNL_VERSION_MAJOR >= 3
typedef const_dnnl_memory_desc_t descriptor_ref_t;
#define REF(descriptor) (descriptor)

static dnnl_status_t describe(dnnl_memory_desc_t *out, dnnl_data_type_t type, int64_t rows, int64_t columns,
                              int64_t row, int64_t column) {
    dnnl_dims_t dims = {rows, columns}, strides = {row, column};
    return dnnl_memory_desc_create_with_strides(out, 2, dims, type, strides);
}

static void forget(descriptors_t *d) {
    dnnl_memory_desc_t all[] = {d->a, d->b, d->bias, d->y};
    for (int i = 0; i < 4; i++)
        if (all[i])
            dnnl_memory_desc_destroy(all[i]);
}

static dnnl_status_t create(dnnl_engine_t engine, const descriptors_t *d, bool bias,
                            dnnl_primitive_attr_t attr, dnnl_primitive_desc_t *out) {
    return dnnl_matmul_primitive_desc_create(out, engine, d->a, d->b, bias ? d->bias : NULL, d->y, attr);
}

static dnnl_status_t append_act(dnnl_post_ops_t post, dnnl_alg_kind_t kind, float alpha) {
    return dnnl_post_ops_append_eltwise(post, kind, alpha, 0);
}

static dnnl_status_t append_sum(dnnl_post_ops_t post) {
    return dnnl_post_ops_append_sum(post, 1, 0, dnnl_data_type_undef);
}
#else
typedef const dnnl_memory_desc_t *descriptor_ref_t;
#define REF(descriptor) (&(descriptor))

static dnnl_status_t describe(dnnl_memory_desc_t *out, dnnl_data_type_t type, int64_t rows, int64_t columns,
                              int64_t row, int64_t column) {
    dnnl_dims_t dims = {rows, columns}, strides = {row, column};
    return dnnl_memory_desc_init_by_strides(out, 2, dims, type, strides);
}

static void forget(descriptors_t *d) {
    (void)d;
}

static dnnl_status_t create(dnnl_engine_t engine, const descriptors_t *d, bool bias,
                            dnnl_primitive_attr_t attr, dnnl_primitive_desc_t *out) {
    dnnl_matmul_desc_t op;
    DNNL_TRY(dnnl_matmul_desc_init(&op, &d->a, &d->b, bias ? &d->bias : NULL, &d->y));
    return dnnl_primitive_desc_create(out, &op, attr, engine, NULL);
}

static dnnl_status_t append_act(dnnl_post_ops_t post, dnnl_alg_kind_t kind, float alpha) {
    return dnnl_post_ops_append_eltwise(post, 1, kind, alpha, 0);
}

static dnnl_status_t append_sum(dnnl_post_ops_t post) {
    return dnnl_post_ops_append_sum(post, 1);
}
#endif

static dnnl_status_t append_post(dnnl_post_ops_t post, const mbl_dnnl_matmul_t *what) {
    if (what->accumulate)
        return append_sum(post);
    switch ((mbl_act_t)what->act) {
    case MBL_ACT_GELU_TANH:
        return append_act(post, dnnl_eltwise_gelu_tanh, 0);
    case MBL_ACT_GELU_ERF:
        return append_act(post, dnnl_eltwise_gelu_erf, 0);
    case MBL_ACT_SILU:
        return append_act(post, dnnl_eltwise_swish, 1);
    case MBL_ACT_QUICK_GELU:
        return append_act(post, dnnl_eltwise_swish, 1.702f);
    case MBL_ACT_NONE:
        break;
    }
    return dnnl_success;
}

/* attr and post exist; everything else of one product. */
static dnnl_status_t build(dnnl_engine_t engine, const mbl_dnnl_matmul_t *what, descriptors_t *d,
                           dnnl_primitive_attr_t attr, dnnl_post_ops_t post, dnnl_primitive_desc_t *pd,
                           mbl_dnnl_product_t *out) {
    dnnl_data_type_t ct = what->ct == MBL_BF16 ? dnnl_bf16 : dnnl_f32;
    dnnl_data_type_t y = what->y_type == MBL_BF16 ? dnnl_bf16 : dnnl_f32;
    DNNL_TRY(dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user));
    DNNL_TRY(append_post(post, what));
    DNNL_TRY(dnnl_primitive_attr_set_post_ops(attr, post));
    DNNL_TRY(describe(&d->a, ct, what->m, what->k, what->a_row, what->a_column));
    DNNL_TRY(describe(&d->b, ct, what->k, what->n, what->b_row, what->b_column));
    DNNL_TRY(describe(&d->bias, ct, 1, what->n, what->n, 1));
    DNNL_TRY(describe(&d->y, y, what->m, what->n, what->y_row, 1));
    DNNL_TRY(create(engine, d, what->bias != 0, attr, pd));
    DNNL_TRY(dnnl_primitive_create(&out->primitive, *pd));
    DNNL_TRY(dnnl_memory_create(&out->a, REF(d->a), engine, DNNL_MEMORY_NONE));
    DNNL_TRY(dnnl_memory_create(&out->b, REF(d->b), engine, DNNL_MEMORY_NONE));
    DNNL_TRY(dnnl_memory_create(&out->bias, REF(d->bias), engine, DNNL_MEMORY_NONE));
    DNNL_TRY(dnnl_memory_create(&out->y, REF(d->y), engine, DNNL_MEMORY_NONE));
    descriptor_ref_t scratch = dnnl_primitive_desc_query_md(*pd, dnnl_query_scratchpad_md, 0);
    out->scratch_bytes = scratch ? dnnl_memory_desc_get_size(scratch) : 0;
    if (out->scratch_bytes > 0)
        DNNL_TRY(dnnl_memory_create(&out->scratch, scratch, engine, DNNL_MEMORY_NONE));
    return dnnl_success;
}

dnnl_status_t mbl_dnnl_product_new(dnnl_engine_t engine, const mbl_dnnl_matmul_t *what,
                                   mbl_dnnl_product_t *out) {
    memset(out, 0, sizeof *out);
    descriptors_t d;
    memset(&d, 0, sizeof d);
    dnnl_primitive_desc_t pd = NULL;
    dnnl_post_ops_t post = NULL;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_status_t status = dnnl_primitive_attr_create(&attr);
    if (status == dnnl_success)
        status = dnnl_post_ops_create(&post);
    if (status == dnnl_success)
        status = build(engine, what, &d, attr, post, &pd, out);
    if (pd)
        dnnl_primitive_desc_destroy(pd);
    if (post)
        dnnl_post_ops_destroy(post);
    if (attr)
        dnnl_primitive_attr_destroy(attr);
    forget(&d);
    if (status != dnnl_success)
        mbl_dnnl_product_free(out);
    return status;
}

void mbl_dnnl_product_free(mbl_dnnl_product_t *product) {
    dnnl_memory_t memory[] = {product->a, product->b, product->bias, product->y, product->scratch};
    for (int i = 0; i < 5; i++)
        if (memory[i])
            dnnl_memory_destroy(memory[i]);
    if (product->primitive)
        dnnl_primitive_destroy(product->primitive);
    memset(product, 0, sizeof *product);
}

static dnnl_status_t memory_like(dnnl_engine_t engine, dnnl_memory_t like, dnnl_memory_t *out) {
    descriptor_ref_t descriptor;
    if (!like)
        return dnnl_success;
    DNNL_TRY(dnnl_memory_get_memory_desc(like, &descriptor));
    return dnnl_memory_create(out, descriptor, engine, DNNL_MEMORY_NONE);
}

dnnl_status_t mbl_dnnl_product_share(dnnl_engine_t engine, const mbl_dnnl_product_t *product,
                                     mbl_dnnl_product_t *out) {
    *out = (mbl_dnnl_product_t){.primitive = product->primitive, .scratch_bytes = product->scratch_bytes};
    DNNL_TRY(memory_like(engine, product->a, &out->a));
    DNNL_TRY(memory_like(engine, product->b, &out->b));
    DNNL_TRY(memory_like(engine, product->bias, &out->bias));
    DNNL_TRY(memory_like(engine, product->y, &out->y));
    return memory_like(engine, product->scratch, &out->scratch);
}

void mbl_dnnl_product_unshare(mbl_dnnl_product_t *product) {
    product->primitive = NULL;
    mbl_dnnl_product_free(product);
}
