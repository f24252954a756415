#include "ops/cpu/dnnl_setup.h"

#include <string.h>

mbl_status_t mbl_dnnl_failed(const char *what, dnnl_status_t status) {
    if (status == dnnl_out_of_memory)
        return MBL_FAIL(MBL_ERR_MEM, "oneDNN: no memory for %s", what);
    return MBL_FAIL(MBL_ERR_DEVICE, "oneDNN: %s failed (status %d)", what, (int)status);
}

dnnl_status_t mbl_dnnl_setup_begin(mbl_dnnl_setup_t *setup) {
    memset(setup, 0, sizeof *setup);
    DNNL_TRY(dnnl_primitive_attr_create(&setup->attr));
    DNNL_TRY(dnnl_post_ops_create(&setup->post));
    return dnnl_primitive_attr_set_scratchpad_mode(setup->attr, dnnl_scratchpad_mode_user);
}

void mbl_dnnl_setup_end(mbl_dnnl_setup_t *setup, dnnl_memory_desc_t *descriptors, int n) {
    if (setup->pd)
        dnnl_primitive_desc_destroy(setup->pd);
    if (setup->post)
        dnnl_post_ops_destroy(setup->post);
    if (setup->attr)
        dnnl_primitive_attr_destroy(setup->attr);
    memset(setup, 0, sizeof *setup);
#if DNNL_VERSION_MAJOR >= 3
    for (int i = 0; i < n; i++)
        if (descriptors[i])
            dnnl_memory_desc_destroy(descriptors[i]);
#else
    (void)descriptors;
    (void)n;
#endif
}

#if DNNL_VERSION_MAJOR >= 3
dnnl_status_t mbl_dnnl_describe(dnnl_memory_desc_t *out, dnnl_data_type_t type, int ndim,
                                const dnnl_dims_t dims, const dnnl_dims_t strides) {
    return dnnl_memory_desc_create_with_strides(out, ndim, dims, type, strides);
}

dnnl_status_t mbl_dnnl_describe_as(dnnl_memory_desc_t *out, dnnl_data_type_t type, int ndim,
                                   const dnnl_dims_t dims, dnnl_format_tag_t tag) {
    return dnnl_memory_desc_create_with_tag(out, ndim, dims, type, tag);
}

dnnl_status_t mbl_dnnl_append_sum(dnnl_post_ops_t post) {
    return dnnl_post_ops_append_sum(post, 1, 0, dnnl_data_type_undef);
}

dnnl_status_t mbl_dnnl_append_act(dnnl_post_ops_t post, dnnl_alg_kind_t kind, float alpha) {
    return dnnl_post_ops_append_eltwise(post, kind, alpha, 0);
}
#else
dnnl_status_t mbl_dnnl_describe(dnnl_memory_desc_t *out, dnnl_data_type_t type, int ndim,
                                const dnnl_dims_t dims, const dnnl_dims_t strides) {
    return dnnl_memory_desc_init_by_strides(out, ndim, dims, type, strides);
}

dnnl_status_t mbl_dnnl_describe_as(dnnl_memory_desc_t *out, dnnl_data_type_t type, int ndim,
                                   const dnnl_dims_t dims, dnnl_format_tag_t tag) {
    return dnnl_memory_desc_init_by_tag(out, ndim, dims, type, tag);
}

dnnl_status_t mbl_dnnl_append_sum(dnnl_post_ops_t post) {
    return dnnl_post_ops_append_sum(post, 1);
}

dnnl_status_t mbl_dnnl_append_act(dnnl_post_ops_t post, dnnl_alg_kind_t kind, float alpha) {
    return dnnl_post_ops_append_eltwise(post, 1, kind, alpha, 0);
}
#endif

dnnl_status_t mbl_dnnl_memory(dnnl_engine_t engine, mbl_dnnl_ref_t like, dnnl_memory_t *out) {
    return dnnl_memory_create(out, like, engine, DNNL_MEMORY_NONE);
}

dnnl_status_t mbl_dnnl_scratch(dnnl_engine_t engine, dnnl_primitive_desc_t pd, dnnl_memory_t *out,
                               size_t *bytes) {
    mbl_dnnl_ref_t scratch = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    *bytes = scratch ? dnnl_memory_desc_get_size(scratch) : 0;
    return *bytes > 0 ? mbl_dnnl_memory(engine, scratch, out) : dnnl_success;
}

void mbl_dnnl_memory_free(dnnl_memory_t *memory, int n) {
    for (int i = 0; i < n; i++)
        if (memory[i])
            dnnl_memory_destroy(memory[i]);
}
