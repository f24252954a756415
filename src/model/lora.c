/* LoRA adapters: which linears of a model they sit on, and where their matrices lie in the flat vector (the A
 * of all groups first, those of a group side by side). */
#include "base/mem.h"
#include "base/rng.h"
#include "model/lora_layout.h"

#include <stdio.h>
#include <string.h>

/* As PEFT matches: the whole name, or its end after a dot. */
static bool matches(const char *name, const char *target) {
    size_t n = strlen(name), k = strlen(target);
    return n >= k && strcmp(name + n - k, target) == 0 && (n == k || name[n - k - 1] == '.');
}

static bool wanted(const mbl_lora_config_t *config, const char *name, uint64_t *used) {
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
        return MBL_FAIL(MBL_ERR_CONFIG, "lora.rank: found %zu; expected 1 to 4096", config->rank);
    if (!(config->alpha > 0) || config->alpha > 1e6)
        return MBL_FAIL(MBL_ERR_CONFIG, "lora.alpha: found %g; expected above 0 and at most 1e6",
                        config->alpha);
    if (config->n_targets > MBL_LORA_MAX_TARGETS)
        return MBL_FAIL(MBL_ERR_CONFIG, "lora.targets: found %zu names; expected at most %d",
                        config->n_targets, MBL_LORA_MAX_TARGETS);
    return MBL_OK;
}

static void take_default_targets(const mbl_dit_t *model, mbl_lora_config_t *config) {
    for (; model->table->targets[config->n_targets]; config->n_targets++)
        snprintf(config->targets[config->n_targets], sizeof config->targets[0], "%s",
                 model->table->targets[config->n_targets]);
}

/* The kinds of linear that the model has, each once, as many as fit. */
static void list_kinds(const mbl_dit_t *model, char *out, size_t size) {
    size_t at = 0;
    out[0] = 0;
    for (size_t i = 0; i < model->n_linears && at < size; i++) {
        const mbl_dit_linear_t *linear = &model->linears[i];
        bool new = true;
        for (size_t k = 0; k < i && new; k++)
            new = strcmp(model->linears[k].name + model->linears[k].kind, linear->name + linear->kind) != 0;
        if (new)
            at += (size_t)snprintf(out + at, size - at, "%s%s", at ? ", " : "", linear->name + linear->kind);
    }
}

static mbl_status_t check_used(const mbl_dit_t *model, const mbl_lora_config_t *config, uint64_t used) {
    char kinds[512];
    for (size_t t = 0; t < config->n_targets; t++)
        if (!(used >> t & 1)) {
            list_kinds(model, kinds, sizeof kinds);
            return MBL_FAIL(MBL_ERR_CONFIG,
                            "lora.targets: found %s, which no linear of the model's blocks is called; "
                            "expected names, or ends of names, among %s",
                            config->targets[t], kinds);
        }
    return MBL_OK;
}

/* Which linears of every group are adapted. */
static void choose(const mbl_dit_t *model, mbl_lora_t *lora, uint64_t *used) {
    lora->first_block = model->sizes.blocks;
    for (size_t i = 0; i < model->n_linears; i++) {
        const mbl_dit_linear_t *linear = &model->linears[i];
        mbl_lora_site_t *site = &lora->site[linear->group];
        if (linear->at == 0)
            site->linear = i;
        if (wanted(&lora->config, linear->name, used)) {
            site->which[site->m++] = linear->at;
            lora->adapted[lora->n_params++] = i;
            if (linear->block < lora->first_block)
                lora->first_block = linear->block;
        }
        if (linear->at + 1 < linear->of)
            continue;
        site->merged = lora->size_merged;
        if (site->m)
            lora->size_merged += linear->of * linear->out * linear->in;
        if (site->m * lora->config.rank > lora->widest)
            lora->widest = site->m * lora->config.rank;
    }
}

static void put(mbl_lora_t *lora, const mbl_dit_linear_t *linear, char matrix, size_t rows, size_t columns) {
    mbl_param_t *param = &lora->params[lora->n_params++];
    snprintf(param->name, sizeof param->name, "%.78s.lora_%c.weight", linear->name, matrix);
    param->ndim = 2;
    param->dim[0] = rows;
    param->dim[1] = columns;
    param->offset = lora->size;
    param->count = rows * columns;
    param->trained = true;
    lora->size += param->count;
}

/* The A of all, then the B of all. */
static void list_matrices(const mbl_dit_t *model, mbl_lora_t *lora, size_t n) {
    const size_t rank = lora->config.rank;
    lora->n_params = 0;
    for (size_t i = 0; i < n; i++) {
        const mbl_dit_linear_t *linear = &model->linears[lora->adapted[i]];
        put(lora, linear, 'A', rank, linear->in);
    }
    for (size_t i = 0; i < n; i++) {
        const mbl_dit_linear_t *linear = &model->linears[lora->adapted[i]];
        put(lora, linear, 'B', linear->out, rank);
    }
}

/* Where a number of a vector without holes lies in one with them. */
static size_t spread_offset(const mbl_lora_t *lora, size_t offset) {
    size_t r = 0;
    while (offset >= lora->first[r + 1])
        r++;
    return r * lora->count + offset - lora->first[r];
}

static void place_sites(const mbl_dit_t *model, mbl_lora_t *lora, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const mbl_dit_linear_t *linear = &model->linears[lora->adapted[i]];
        mbl_lora_site_t *site = &lora->site[linear->group];
        for (size_t j = 0; j < site->m; j++)
            if (site->which[j] == linear->at) {
                site->a[j] = spread_offset(lora, lora->params[i].offset);
                site->b[j] = spread_offset(lora, lora->params[n + i].offset);
                lora->size_a = site->a[j] + lora->params[i].count;
            }
    }
}

static mbl_status_t lay_out(const mbl_dit_t *model, mbl_lora_t *lora, size_t n) {
    MBL_ALLOC(lora->params, 2 * n);
    MBL_ALLOC(lora->first, lora->ranks + 1);
    list_matrices(model, lora, n);
    mbl_lora_cut(lora);
    place_sites(model, lora, n);
    return MBL_OK;
}

mbl_status_t mbl_lora_new_sharded(const mbl_dit_t *model, const mbl_lora_config_t *config, size_t ranks,
                                  mbl_lora_t **out) {
    MBL_REQUIRE(model && config && out && ranks > 0, "lora_new: model, config, ranks and out must be given");
    MBL_TRY(check_config(config));
    mbl_lora_t *lora;
    mbl_status_t status;
    uint64_t used = 0; /* one bit a target */
    MBL_ALLOC(lora, 1);
    lora->model = model;
    lora->config = *config;
    lora->ranks = ranks;
    if (!config->n_targets)
        take_default_targets(model, &lora->config);
    lora->n_sites = model->n_groups;
    MBL_ALLOC_GOTO(lora->site, lora->n_sites, fail);
    MBL_ALLOC_GOTO(lora->adapted, model->n_linears, fail);
    choose(model, lora, &used);
    if (config->n_targets)
        MBL_TRY_GOTO(check_used(model, config, used), fail);
    MBL_TRY_GOTO(lay_out(model, lora, lora->n_params), fail);
    *out = lora;
    return MBL_OK;
fail:
    mbl_lora_free(lora);
    return status;
}

mbl_status_t mbl_lora_new(const mbl_dit_t *model, const mbl_lora_config_t *config, mbl_lora_t **out) {
    return mbl_lora_new_sharded(model, config, 1, out);
}

void mbl_lora_free(mbl_lora_t *lora) {
    if (!lora)
        return;
    mbl_free(lora->site);
    mbl_free(lora->adapted);
    mbl_free(lora->params);
    mbl_free(lora->first);
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

size_t mbl_lora_pair_count(const mbl_lora_t *lora) {
    return lora->n_params / 2;
}

mbl_lora_pair_t mbl_lora_pair(const mbl_lora_t *lora, size_t i) {
    return (mbl_lora_pair_t){&lora->model->linears[lora->adapted[i]], &lora->params[i],
                             &lora->params[lora->n_params / 2 + i]};
}

void mbl_lora_init(const mbl_lora_t *lora, uint64_t seed, float *out) {
    memset(out, 0, lora->size * sizeof *out);
    float deviation = 1.0f / (float)lora->config.rank;
    for (size_t i = 0; i < lora->n_params / 2; i++) {
        const mbl_param_t *param = &lora->params[i];
        mbl_rng_t rng = mbl_rng(seed, MBL_RNG_INIT, 1, i);
        mbl_rng_normal(&rng, out + param->offset, param->count);
        for (size_t j = 0; j < param->count; j++)
            out[param->offset + j] *= deviation;
    }
}
