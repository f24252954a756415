/* Adapters in the form that passes use: in the compute type, beside the weights or merged into them. */
#include "model/lora_layout.h"

mbl_status_t mbl_adapter_new(const mbl_dit_t *model, const mbl_lora_t *lora, mbl_adapter_t *out) {
    MBL_REQUIRE(model && lora && out, "adapter_new: model, lora and out must be given");
    mbl_adapter_t adapter = {.lora = lora};
    mbl_status_t status;
    MBL_TRY_GOTO(mbl_tensor_new(model->ops, model->dtype, &adapter.weights, 1, mbl_lora_room(lora)), fail);
    MBL_TRY_GOTO(mbl_tensor_new(model->ops, model->dtype, &adapter.scaled_a, 1, lora->size_a), fail);
    *out = adapter;
    return MBL_OK;
fail:
    mbl_adapter_free(model, &adapter);
    return status;
}

void mbl_adapter_free(const mbl_dit_t *model, mbl_adapter_t *adapter) {
    if (!adapter)
        return;
    mbl_tensor_free(model->ops, &adapter->weights);
    mbl_tensor_free(model->ops, &adapter->scaled_a);
    mbl_tensor_free(model->ops, &adapter->merged);
    adapter->lora = NULL;
}

mbl_status_t mbl_adapter_set(const mbl_dit_t *model, mbl_adapter_t *adapter, const mbl_tensor_t *values) {
    MBL_REQUIRE(model && adapter && adapter->lora && values,
                "adapter_set: model, adapter and values must be given");
    const mbl_lora_t *lora = adapter->lora;
    MBL_REQUIRE(values->ndim == 1 && values->dim[0] == mbl_lora_room(lora),
                "adapter_set: %zu values for an adapter of %zu", mbl_tensor_count(values),
                mbl_lora_room(lora));
    if (values->dtype == model->dtype)
        MBL_TRY(mbl_tensor_copy(model->ops, &adapter->weights, values));
    else
        MBL_TRY(MBL_OP(model->ops, convert, .dst = &adapter->weights, .src = values));
    mbl_tensor_t a = mbl_tensor_rows(&adapter->weights, 0, lora->size_a);
    return MBL_OP(model->ops, axpby, .y = &adapter->scaled_a, .x = &a,
                  .a = lora->config.alpha / (double)lora->config.rank, .b = 0);
}

mbl_status_t mbl_adapter_merged_new(const mbl_dit_t *model, const mbl_adapter_t *of, mbl_adapter_t *out) {
    MBL_REQUIRE(model && of && of->lora && out, "adapter_merged_new: model, of and out must be given");
    mbl_adapter_t merged = {.lora = of->lora, .weights = of->weights, .scaled_a = of->scaled_a};
    merged.weights.own = merged.scaled_a.own = false;
    MBL_TRY(mbl_tensor_new(model->ops, model->dtype, &merged.merged, 1, of->lora->size_merged));
    *out = merged;
    return MBL_OK;
}

/* The weights of a group's linears, and B (sA) added to those that are adapted. */
static mbl_status_t merge_site(const mbl_dit_t *m, mbl_adapter_t *merged, const mbl_lora_site_t *site) {
    const mbl_dit_linear_t *first = &m->linears[site->linear];
    size_t rank = merged->lora->config.rank, one = first->out * first->in, all = first->of * one;
    mbl_tensor_t from = mbl_flat_vector(&m->weights, first->weight, all);
    mbl_tensor_t to = mbl_flat_vector(&merged->merged, site->merged, all);
    MBL_TRY(mbl_tensor_copy(m->ops, &to, &from));
    for (size_t j = 0; j < site->m; j++) {
        mbl_tensor_t w =
            mbl_flat_matrix(&merged->merged, site->merged + site->which[j] * one, first->out, first->in);
        mbl_tensor_t b = mbl_flat_matrix(&merged->weights, site->b[j], first->out, rank);
        mbl_tensor_t a = mbl_flat_matrix(&merged->scaled_a, site->a[j], rank, first->in);
        MBL_TRY(MBL_OP(m->ops, matmul, .y = &w, .a = &b, .b = &a, .accumulate = true));
    }
    return MBL_OK;
}

mbl_status_t mbl_adapter_merge(const mbl_dit_t *model, mbl_adapter_t *merged) {
    MBL_REQUIRE(model && merged && merged->lora && merged->merged.data,
                "adapter_merge: needs an adapter from adapter_merged_new");
    for (size_t id = 0; id < merged->lora->n_sites; id++)
        if (merged->lora->site[id].m)
            MBL_TRY(merge_site(model, merged, &merged->lora->site[id]));
    return MBL_OK;
}
