/* LoRA adapters: which linears of a model they sit on, where their matrices lie in the flat vector (the A of
 * all sites first, those of q, k, v side by side), and the values in the form the passes use. */
#include "base/mem.h"
#include "base/rng.h"
#include "model/mmdit/internal.h"

#include <stdio.h>
#include <string.h>

static const char *const default_targets[] = {"attn.to_q",       "attn.to_k",       "attn.to_v",
                                              "attn.to_out.0",   "attn.add_q_proj", "attn.add_k_proj",
                                              "attn.add_v_proj", "attn.to_add_out"};
enum { DEFAULT_TARGETS = sizeof default_targets / sizeof *default_targets };

/* As PEFT matches: the whole name, or its end after a dot. */
static bool matches(const char *name, const char *target) {
    size_t n = strlen(name), k = strlen(target);
    return n >= k && strcmp(name + n - k, target) == 0 && (n == k || name[n - k - 1] == '.');
}

static bool wanted(mbl_lora_config_t *config, const char *name, uint64_t *used) {
    bool found = false;
    for (size_t t = 0; t < config->n_targets; t++)
        if (matches(name, config->targets[t])) {
            *used |= (uint64_t)1 << t;
            found = true;
        }
    return found;
}

static mbl_status_t check_config(const mbl_lora_config_t *config) {
    if (config->rank < 1 || config->rank > 4096)
        return MBL_FAIL(MBL_ERR_CONFIG, "lora.rank: found %zu, right would be 1 to 4096", config->rank);
    if (!(config->alpha > 0) || config->alpha > 1e6)
        return MBL_FAIL(MBL_ERR_CONFIG, "lora.alpha: found %g, right would be above 0 and at most 1e6",
                        config->alpha);
    if (config->n_targets > MBL_LORA_MAX_TARGETS)
        return MBL_FAIL(MBL_ERR_CONFIG, "lora.targets: found %zu names, right would be at most %d",
                        config->n_targets, MBL_LORA_MAX_TARGETS);
    return MBL_OK;
}

static const mbl_linear_t *linear_of(const mbl_mmdit_t *m, size_t id) {
    size_t layer = id / (MBL_SIDES * MBL_LINEARS), side = id / MBL_LINEARS % MBL_SIDES;
    return &m->blocks[layer].side[side].linear[id % MBL_LINEARS];
}

/* Which linears of every group are adapted. */
static void choose(const mbl_mmdit_t *m, mbl_lora_t *lora, uint64_t *used) {
    lora->first_block = m->config.num_layers;
    for (size_t id = 0; id < lora->n_sites; id++) {
        size_t layer = id / (MBL_SIDES * MBL_LINEARS), side = id / MBL_LINEARS % MBL_SIDES;
        const mbl_linear_t *linear = linear_of(m, id);
        mbl_lora_site_t *site = &lora->site[id];
        for (size_t j = 0; j < linear->n; j++)
            if (wanted(&lora->config, mbl_linear_names[side][id % MBL_LINEARS][j], used))
                site->which[site->m++] = j;
        if (site->m && layer < lora->first_block)
            lora->first_block = layer;
        if (site->m * lora->config.rank > lora->widest)
            lora->widest = site->m * lora->config.rank;
        lora->n_params += 2 * site->m;
        site->merged = lora->size_merged;
        if (site->m)
            lora->size_merged += linear->n * linear->out * linear->in;
    }
}

static void put(mbl_lora_t *lora, size_t id, size_t j, char matrix, size_t rows, size_t columns) {
    size_t layer = id / (MBL_SIDES * MBL_LINEARS), side = id / MBL_LINEARS % MBL_SIDES;
    mbl_param_t *param = &lora->params[lora->n_params++];
    snprintf(param->name, sizeof param->name, "transformer_blocks.%zu.%s.lora_%c.weight", layer,
             mbl_linear_names[side][id % MBL_LINEARS][j], matrix);
    param->ndim = 2;
    param->dim[0] = rows;
    param->dim[1] = columns;
    param->offset = lora->size;
    param->count = rows * columns;
    param->trained = true;
    lora->size += param->count;
}

static void place(const mbl_mmdit_t *m, mbl_lora_t *lora, char matrix) {
    for (size_t id = 0; id < lora->n_sites; id++) {
        const mbl_linear_t *linear = linear_of(m, id);
        mbl_lora_site_t *site = &lora->site[id];
        if (matrix == 'A')
            site->a = lora->size;
        for (size_t j = 0; j < site->m; j++) {
            if (matrix == 'B')
                site->b[j] = lora->size;
            if (matrix == 'A')
                put(lora, id, site->which[j], matrix, lora->config.rank, linear->in);
            else
                put(lora, id, site->which[j], matrix, linear->out, lora->config.rank);
        }
    }
}

mbl_status_t mbl_lora_new(const mbl_mmdit_t *model, const mbl_lora_config_t *config, mbl_lora_t **out) {
    MBL_REQUIRE(model && config && out, "lora_new: model, config and out must be given");
    MBL_TRY(check_config(config));
    mbl_lora_t *lora;
    mbl_status_t status;
    uint64_t used = 0; /* one bit a target */
    MBL_ALLOC(lora, 1);
    lora->config = *config;
    if (!config->n_targets) {
        lora->config.n_targets = DEFAULT_TARGETS;
        for (size_t t = 0; t < DEFAULT_TARGETS; t++)
            snprintf(lora->config.targets[t], sizeof lora->config.targets[t], "%s", default_targets[t]);
    }
    lora->n_sites = model->config.num_layers * MBL_SIDES * MBL_LINEARS;
    MBL_ALLOC_GOTO(lora->site, lora->n_sites, fail);
    choose(model, lora, &used);
    for (size_t t = 0; t < config->n_targets; t++)
        if (!(used >> t & 1)) {
            status =
                MBL_FAIL(MBL_ERR_CONFIG,
                         "lora.targets: found %s, which no linear of the model's blocks is called; right "
                         "would be attn.to_q, attn.to_out.0, attn.add_q_proj, attn.to_add_out, attn2.to_q, "
                         "ff.net.0.proj, ff.net.2, ff_context.net.2 and the like",
                         config->targets[t]);
            goto fail;
        }
    MBL_ALLOC_GOTO(lora->params, lora->n_params, fail);
    lora->n_params = 0;
    place(model, lora, 'A');
    lora->size_a = lora->size;
    place(model, lora, 'B');
    *out = lora;
    return MBL_OK;
fail:
    mbl_lora_free(lora);
    return status;
}

void mbl_lora_free(mbl_lora_t *lora) {
    if (!lora)
        return;
    mbl_free(lora->site);
    mbl_free(lora->params);
    mbl_free(lora);
}

size_t mbl_lora_size(const mbl_lora_t *lora) {
    return lora->size;
}

size_t mbl_lora_param_count(const mbl_lora_t *lora) {
    return lora->n_params;
}

const mbl_param_t *mbl_lora_param(const mbl_lora_t *lora, size_t i) {
    return i < lora->n_params ? &lora->params[i] : NULL;
}

const mbl_lora_config_t *mbl_lora_config(const mbl_lora_t *lora) {
    return &lora->config;
}

void mbl_lora_init(const mbl_lora_t *lora, uint64_t seed, float *out) {
    memset(out, 0, lora->size * sizeof *out);
    float deviation = 1.0f / (float)lora->config.rank;
    for (size_t i = 0; i < lora->n_params; i++) {
        const mbl_param_t *param = &lora->params[i];
        if (param->offset >= lora->size_a)
            break;
        mbl_rng_t rng = mbl_rng(seed, MBL_RNG_INIT, 1, i);
        mbl_rng_normal(&rng, out + param->offset, param->count);
        for (size_t j = 0; j < param->count; j++)
            out[param->offset + j] *= deviation;
    }
}

mbl_status_t mbl_adapter_new(const mbl_mmdit_t *model, const mbl_lora_t *lora, mbl_adapter_t *out) {
    MBL_REQUIRE(model && lora && out, "adapter_new: model, lora and out must be given");
    mbl_adapter_t adapter = {.lora = lora};
    mbl_status_t status;
    MBL_TRY_GOTO(mbl_tensor_new(model->ops, model->dtype, &adapter.weights, 1, lora->size), fail);
    MBL_TRY_GOTO(mbl_tensor_new(model->ops, model->dtype, &adapter.scaled_a, 1, lora->size_a), fail);
    *out = adapter;
    return MBL_OK;
fail:
    mbl_adapter_free(model, &adapter);
    return status;
}

void mbl_adapter_free(const mbl_mmdit_t *model, mbl_adapter_t *adapter) {
    if (!adapter)
        return;
    mbl_tensor_free(model->ops, &adapter->weights);
    mbl_tensor_free(model->ops, &adapter->scaled_a);
    mbl_tensor_free(model->ops, &adapter->merged);
    adapter->lora = NULL;
}

mbl_status_t mbl_adapter_set(const mbl_mmdit_t *model, mbl_adapter_t *adapter, const mbl_tensor_t *values) {
    MBL_REQUIRE(model && adapter && adapter->lora && values,
                "adapter_set: model, adapter and values must be given");
    const mbl_lora_t *lora = adapter->lora;
    MBL_REQUIRE(values->ndim == 1 && values->dim[0] == lora->size,
                "adapter_set: %zu values for an adapter of %zu", mbl_tensor_count(values), lora->size);
    if (values->dtype == model->dtype)
        MBL_TRY(mbl_tensor_copy(model->ops, &adapter->weights, values));
    else
        MBL_TRY(MBL_OP(model->ops, convert, .dst = &adapter->weights, .src = values));
    mbl_tensor_t a = mbl_tensor_rows(&adapter->weights, 0, lora->size_a);
    return MBL_OP(model->ops, axpby, .y = &adapter->scaled_a, .x = &a,
                  .a = lora->config.alpha / (double)lora->config.rank, .b = 0);
}

mbl_status_t mbl_adapter_merged_new(const mbl_mmdit_t *model, const mbl_adapter_t *of, mbl_adapter_t *out) {
    MBL_REQUIRE(model && of && of->lora && out, "adapter_merged_new: model, of and out must be given");
    mbl_adapter_t merged = {.lora = of->lora, .weights = of->weights, .scaled_a = of->scaled_a};
    merged.weights.own = merged.scaled_a.own = false;
    MBL_TRY(mbl_tensor_new(model->ops, model->dtype, &merged.merged, 1, of->lora->size_merged));
    *out = merged;
    return MBL_OK;
}

/* The weights of a site's linears, and B (sA) added to those that are adapted. */
static mbl_status_t merge_site(const mbl_mmdit_t *m, mbl_adapter_t *merged, size_t id) {
    const mbl_lora_site_t *site = &merged->lora->site[id];
    const mbl_linear_t *linear = linear_of(m, id);
    size_t rank = merged->lora->config.rank, all = linear->n * linear->out * linear->in;
    mbl_tensor_t from = mbl_flat_vector(&m->weights, linear->weight, all);
    mbl_tensor_t to = mbl_flat_vector(&merged->merged, site->merged, all);
    MBL_TRY(mbl_tensor_copy(m->ops, &to, &from));
    for (size_t j = 0; j < site->m; j++) {
        mbl_tensor_t w =
            mbl_flat_matrix(&merged->merged, site->merged + site->which[j] * linear->out * linear->in,
                            linear->out, linear->in);
        mbl_tensor_t b = mbl_flat_matrix(&merged->weights, site->b[j], linear->out, rank);
        mbl_tensor_t a =
            mbl_flat_matrix(&merged->scaled_a, site->a + j * rank * linear->in, rank, linear->in);
        MBL_TRY(MBL_OP(m->ops, matmul, .y = &w, .a = &b, .b = &a, .accumulate = true));
    }
    return MBL_OK;
}

mbl_status_t mbl_adapter_merge(const mbl_mmdit_t *model, mbl_adapter_t *merged) {
    MBL_REQUIRE(model && merged && merged->lora && merged->merged.data,
                "adapter_merge: needs an adapter from adapter_merged_new");
    for (size_t id = 0; id < merged->lora->n_sites; id++)
        if (merged->lora->site[id].m)
            MBL_TRY(merge_site(model, merged, id));
    return MBL_OK;
}
