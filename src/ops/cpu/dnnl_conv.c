/* As dnnl_compat.c, for convolutions: what differs between oneDNN 2.x and 3.x stays in here. */
#include "ops/cpu/dnnl_conv.h"

#include <string.h>

#define DNNL_TRY(expr)                                                                                       \
    do {                                                                                                     \
        dnnl_status_t dnnl_status_ = (expr);                                                                 \
        if (dnnl_status_ != dnnl_success)                                                                    \
            return dnnl_status_;                                                                             \
    } while (0)

typedef struct {
    dnnl_memory_desc_t x, weight, any, bias, y; /* any: weights in the layout that oneDNN chooses */
} descriptors_t;

static const dnnl_dims_t one_apart = {1, 1}, not_dilated = {0, 0};

#if DNNL_VERSION_MAJOR >= 3
typedef const_dnnl_memory_desc_t descriptor_ref_t;
#define REF(descriptor) (descriptor)

static dnnl_status_t describe(dnnl_memory_desc_t *out, dnnl_data_type_t type, int ndim,
                              const dnnl_dims_t dims, dnnl_format_tag_t tag) {
    return dnnl_memory_desc_create_with_tag(out, ndim, dims, type, tag);
}

static void forget(descriptors_t *d) {
    dnnl_memory_desc_t all[] = {d->x, d->weight, d->any, d->bias, d->y};
    for (int i = 0; i < 5; i++)
        if (all[i])
            dnnl_memory_desc_destroy(all[i]);
}

static dnnl_status_t create(dnnl_engine_t engine, const descriptors_t *d, bool bias, const dnnl_dims_t pad,
                            dnnl_primitive_attr_t attr, dnnl_primitive_desc_t *out) {
    return dnnl_convolution_forward_primitive_desc_create(
        out, engine, dnnl_forward_inference, dnnl_convolution_direct, d->x, d->any, bias ? d->bias : NULL,
        d->y, one_apart, not_dilated, pad, pad, attr);
}

static dnnl_status_t append_sum(dnnl_post_ops_t post) {
    return dnnl_post_ops_append_sum(post, 1, 0, dnnl_data_type_undef);
}
#else
typedef const dnnl_memory_desc_t *descriptor_ref_t;
#define REF(descriptor) (&(descriptor))

static dnnl_status_t describe(dnnl_memory_desc_t *out, dnnl_data_type_t type, int ndim,
                              const dnnl_dims_t dims, dnnl_format_tag_t tag) {
    return dnnl_memory_desc_init_by_tag(out, ndim, dims, type, tag);
}

static void forget(descriptors_t *d) {
    (void)d;
}

static dnnl_status_t create(dnnl_engine_t engine, const descriptors_t *d, bool bias, const dnnl_dims_t pad,
                            dnnl_primitive_attr_t attr, dnnl_primitive_desc_t *out) {
    dnnl_convolution_desc_t op;
    DNNL_TRY(dnnl_dilated_convolution_forward_desc_init(&op, dnnl_forward_inference, dnnl_convolution_direct,
                                                        &d->x, &d->any, bias ? &d->bias : NULL, &d->y,
                                                        one_apart, not_dilated, pad, pad));
    return dnnl_primitive_desc_create(out, &op, attr, engine, NULL);
}

static dnnl_status_t append_sum(dnnl_post_ops_t post) {
    return dnnl_post_ops_append_sum(post, 1);
}
#endif

static dnnl_status_t describe_all(const mbl_dnnl_conv_t *what, descriptors_t *d) {
    dnnl_data_type_t ct = what->ct == MBL_BF16 ? dnnl_bf16 : dnnl_f32;
    dnnl_dims_t x = {1, what->channels, what->height, what->width};
    dnnl_dims_t weight = {what->outputs, what->channels, what->kh, what->kw}, bias = {what->outputs};
    dnnl_dims_t y = {1, what->outputs, what->height + 2 * what->pad - what->kh + 1,
                     what->width + 2 * what->pad - what->kw + 1};
    DNNL_TRY(describe(&d->x, ct, 4, x, dnnl_nhwc));
    DNNL_TRY(describe(&d->weight, ct, 4, weight, dnnl_acdb)); /* outputs, rows, columns, channels */
    DNNL_TRY(describe(&d->any, ct, 4, weight, dnnl_format_tag_any));
    DNNL_TRY(describe(&d->bias, ct, 1, bias, dnnl_a));
    return describe(&d->y, ct, 4, y, dnnl_nhwc);
}

/* The weights' way into the layout that the convolution wants. */
static dnnl_status_t build_pack(dnnl_engine_t engine, const descriptors_t *d, descriptor_ref_t packed,
                                mbl_dnnl_convolution_t *out) {
    dnnl_primitive_desc_t pd;
    DNNL_TRY(dnnl_reorder_primitive_desc_create(&pd, REF(d->weight), engine, packed, engine, NULL));
    dnnl_status_t status = dnnl_primitive_create(&out->pack, pd);
    dnnl_primitive_desc_destroy(pd);
    return status;
}

/* attr and post exist; everything else of one convolution. */
static dnnl_status_t build(dnnl_engine_t engine, const mbl_dnnl_conv_t *what, descriptors_t *d,
                           dnnl_primitive_attr_t attr, dnnl_post_ops_t post, dnnl_primitive_desc_t *pd,
                           mbl_dnnl_convolution_t *out) {
    const dnnl_dims_t pad = {what->pad, what->pad};
    DNNL_TRY(dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user));
    if (what->accumulate)
        DNNL_TRY(append_sum(post));
    DNNL_TRY(dnnl_primitive_attr_set_post_ops(attr, post));
    DNNL_TRY(describe_all(what, d));
    DNNL_TRY(create(engine, d, what->bias != 0, pad, attr, pd));
    DNNL_TRY(dnnl_primitive_create(&out->conv, *pd));
    descriptor_ref_t packed = dnnl_primitive_desc_query_md(*pd, dnnl_query_weights_md, 0);
    descriptor_ref_t scratch = dnnl_primitive_desc_query_md(*pd, dnnl_query_scratchpad_md, 0);
    DNNL_TRY(build_pack(engine, d, packed, out));
    out->packed_bytes = dnnl_memory_desc_get_size(packed);
    out->scratch_bytes = scratch ? dnnl_memory_desc_get_size(scratch) : 0;
    DNNL_TRY(dnnl_memory_create(&out->x, REF(d->x), engine, DNNL_MEMORY_NONE));
    DNNL_TRY(dnnl_memory_create(&out->weight, REF(d->weight), engine, DNNL_MEMORY_NONE));
    DNNL_TRY(dnnl_memory_create(&out->packed, packed, engine, DNNL_MEMORY_NONE));
    DNNL_TRY(dnnl_memory_create(&out->bias, REF(d->bias), engine, DNNL_MEMORY_NONE));
    DNNL_TRY(dnnl_memory_create(&out->y, REF(d->y), engine, DNNL_MEMORY_NONE));
    if (out->scratch_bytes > 0)
        DNNL_TRY(dnnl_memory_create(&out->scratch, scratch, engine, DNNL_MEMORY_NONE));
    return dnnl_success;
}

dnnl_status_t mbl_dnnl_convolution_new(dnnl_engine_t engine, const mbl_dnnl_conv_t *what,
                                       mbl_dnnl_convolution_t *out) {
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
        mbl_dnnl_convolution_free(out);
    return status;
}

void mbl_dnnl_convolution_free(mbl_dnnl_convolution_t *convolution) {
    dnnl_memory_t memory[] = {convolution->x,    convolution->weight, convolution->packed,
                              convolution->bias, convolution->y,      convolution->scratch};
    for (int i = 0; i < 6; i++)
        if (memory[i])
            dnnl_memory_destroy(memory[i]);
    if (convolution->conv)
        dnnl_primitive_destroy(convolution->conv);
    if (convolution->pack)
        dnnl_primitive_destroy(convolution->pack);
    memset(convolution, 0, sizeof *convolution);
}
