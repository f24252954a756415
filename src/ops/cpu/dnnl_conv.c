/* What differs between the convolutions of oneDNN 2.x and 3.x stays in here. */
#include "ops/cpu/dnnl_conv.h"
#include "ops/cpu/dnnl_setup.h"

#include <string.h>

enum { X, WEIGHT, ANY, BIAS, Y, DESCRIPTORS }; /* ANY: weights in the layout that oneDNN chooses */

static const dnnl_dims_t one_apart = {1, 1}, not_dilated = {0, 0};

static dnnl_status_t create(dnnl_engine_t engine, const dnnl_memory_desc_t d[DESCRIPTORS], bool bias,
                            const dnnl_dims_t pad, mbl_dnnl_setup_t *setup) {
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_convolution_forward_primitive_desc_create(
        &setup->pd, engine, dnnl_forward_inference, dnnl_convolution_direct, d[X], d[ANY],
        bias ? d[BIAS] : NULL, d[Y], one_apart, not_dilated, pad, pad, setup->attr);
#else
    dnnl_convolution_desc_t op;
    DNNL_TRY(dnnl_dilated_convolution_forward_desc_init(&op, dnnl_forward_inference, dnnl_convolution_direct,
                                                        &d[X], &d[ANY], bias ? &d[BIAS] : NULL, &d[Y],
                                                        one_apart, not_dilated, pad, pad));
    return dnnl_primitive_desc_create(&setup->pd, &op, setup->attr, engine, NULL);
#endif
}

static dnnl_status_t describe_all(const mbl_dnnl_conv_t *what, dnnl_memory_desc_t d[DESCRIPTORS]) {
    dnnl_data_type_t ct = what->ct == MBL_BF16 ? dnnl_bf16 : dnnl_f32;
    dnnl_dims_t x = {1, what->channels, what->height, what->width};
    dnnl_dims_t weight = {what->outputs, what->channels, what->kh, what->kw}, bias = {what->outputs};
    dnnl_dims_t y = {1, what->outputs, what->height + 2 * what->pad - what->kh + 1,
                     what->width + 2 * what->pad - what->kw + 1};
    DNNL_TRY(mbl_dnnl_describe_as(&d[X], ct, 4, x, dnnl_nhwc));
    DNNL_TRY(
        mbl_dnnl_describe_as(&d[WEIGHT], ct, 4, weight, dnnl_acdb)); /* outputs, rows, columns, channels */
    DNNL_TRY(mbl_dnnl_describe_as(&d[ANY], ct, 4, weight, dnnl_format_tag_any));
    DNNL_TRY(mbl_dnnl_describe_as(&d[BIAS], ct, 1, bias, dnnl_a));
    return mbl_dnnl_describe_as(&d[Y], ct, 4, y, dnnl_nhwc);
}

/* The weights' way into the layout that the convolution wants. */
static dnnl_status_t build_pack(dnnl_engine_t engine, mbl_dnnl_ref_t plain, mbl_dnnl_ref_t packed,
                                mbl_dnnl_convolution_t *out) {
    dnnl_primitive_desc_t pd;
    DNNL_TRY(dnnl_reorder_primitive_desc_create(&pd, plain, engine, packed, engine, NULL));
    dnnl_status_t status = dnnl_primitive_create(&out->pack, pd);
    dnnl_primitive_desc_destroy(pd);
    out->packed_bytes = dnnl_memory_desc_get_size(packed);
    return status;
}

static dnnl_status_t build(dnnl_engine_t engine, const mbl_dnnl_conv_t *what,
                           dnnl_memory_desc_t d[DESCRIPTORS], mbl_dnnl_setup_t *setup,
                           mbl_dnnl_convolution_t *out) {
    const dnnl_dims_t pad = {what->pad, what->pad};
    DNNL_TRY(mbl_dnnl_setup_begin(setup));
    if (what->accumulate)
        DNNL_TRY(mbl_dnnl_append_sum(setup->post));
    DNNL_TRY(dnnl_primitive_attr_set_post_ops(setup->attr, setup->post));
    DNNL_TRY(describe_all(what, d));
    DNNL_TRY(create(engine, d, what->bias != 0, pad, setup));
    DNNL_TRY(dnnl_primitive_create(&out->conv, setup->pd));
    mbl_dnnl_ref_t packed = dnnl_primitive_desc_query_md(setup->pd, dnnl_query_weights_md, 0);
    DNNL_TRY(build_pack(engine, DNNL_REF(d[WEIGHT]), packed, out));
    DNNL_TRY(mbl_dnnl_memory(engine, DNNL_REF(d[X]), &out->x));
    DNNL_TRY(mbl_dnnl_memory(engine, DNNL_REF(d[WEIGHT]), &out->weight));
    DNNL_TRY(mbl_dnnl_memory(engine, packed, &out->packed));
    DNNL_TRY(mbl_dnnl_memory(engine, DNNL_REF(d[BIAS]), &out->bias));
    DNNL_TRY(mbl_dnnl_memory(engine, DNNL_REF(d[Y]), &out->y));
    return mbl_dnnl_scratch(engine, setup->pd, &out->scratch, &out->scratch_bytes);
}

dnnl_status_t mbl_dnnl_convolution_new(dnnl_engine_t engine, const mbl_dnnl_conv_t *what,
                                       mbl_dnnl_convolution_t *out) {
    dnnl_memory_desc_t d[DESCRIPTORS];
    mbl_dnnl_setup_t setup;
    memset(out, 0, sizeof *out);
    memset(d, 0, sizeof d);
    dnnl_status_t status = build(engine, what, d, &setup, out);
    mbl_dnnl_setup_end(&setup, d, DESCRIPTORS);
    if (status != dnnl_success)
        mbl_dnnl_convolution_free(out);
    return status;
}

void mbl_dnnl_convolution_free(mbl_dnnl_convolution_t *convolution) {
    dnnl_memory_t memory[] = {convolution->x,    convolution->weight, convolution->packed,
                              convolution->bias, convolution->y,      convolution->scratch};
    mbl_dnnl_memory_free(memory, 6);
    if (convolution->conv)
        dnnl_primitive_destroy(convolution->conv);
    if (convolution->pack)
        dnnl_primitive_destroy(convolution->pack);
    memset(convolution, 0, sizeof *convolution);
}
