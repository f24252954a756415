/* LoRA adapters read for a model. Every matrix is applied with exactly the factor its own loader gives it. */
#include "model/lora_file.h"
#include "model/lora_in.h"
#include "model/lora_layout.h"

#include "base/mem.h"
#include "base/names.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- the configuration ---- */

static const mbl_dit_linear_t *find_linear(const mbl_dit_t *model, const char *name) {
    for (size_t i = 0; i < mbl_dit_linear_count(model); i++)
        if (strcmp(mbl_dit_linear(model, i)->name, name) == 0)
            return mbl_dit_linear(model, i);
    return NULL;
}

/* Adds the kind of linear of a site, "attn.to_q", unless it is there. */
static mbl_status_t add_target(const mbl_lora_in_t *in, const mbl_dit_linear_t *linear,
                               mbl_lora_config_t *config) {
    const char *kind = linear->name + linear->kind;
    for (size_t i = 0; i < config->n_targets; i++)
        if (strcmp(config->targets[i], kind) == 0)
            return MBL_OK;
    if (config->n_targets == MBL_LORA_MAX_TARGETS)
        return MBL_FAIL(MBL_ERR_UNSUPPORTED, "%s: adapters on more than %d kinds of linears", in->path,
                        MBL_LORA_MAX_TARGETS);
    snprintf(config->targets[config->n_targets++], sizeof config->targets[0], "%s", kind);
    return MBL_OK;
}

static mbl_status_t no_linear(const mbl_lora_in_t *in, mbl_names_t *wrong) {
    return MBL_FAIL(MBL_ERR_FORMAT, "%s: tensor %s: the model has no linear of that name and shape", in->path,
                    mbl_names_text(wrong));
}

/* One rank, the largest, and one scale, the largest; sites of others have zeros and factors in their
 * matrices. */
static mbl_status_t find_config(const mbl_lora_in_t *in, const mbl_dit_t *model, mbl_lora_config_t *out) {
    mbl_lora_config_t config = {0};
    mbl_names_t wrong = {{0}, 0};
    double scale = 0;
    for (size_t i = 0; i < in->n; i++) {
        const mbl_lora_site_in_t *site = &in->sites[i];
        const mbl_dit_linear_t *linear = find_linear(model, site->site);
        config.rank = site->rank > config.rank ? site->rank : config.rank;
        scale = fmax(scale, fabs(site->scale));
        if (linear)
            MBL_TRY(add_target(in, linear, &config));
        else
            mbl_names_add(&wrong, site->ab[0]->name);
    }
    if (wrong.n > 0)
        return no_linear(in, &wrong);
    config.alpha = (scale > 0 ? scale : 1) * (double)config.rank;
    *out = config;
    return MBL_OK;
}

mbl_status_t mbl_lora_read_config(const mbl_dit_t *model, const char *path, mbl_lora_config_t *out) {
    MBL_REQUIRE(model && path && out, "lora_read_config: model, path and out must be given");
    mbl_lora_in_t in;
    mbl_status_t status = mbl_lora_in_open(path, model->table->prefix, &in);
    if (status == MBL_OK)
        status = find_config(&in, model, out);
    mbl_lora_in_close(&in);
    return status;
}

/* ---- the values ---- */

/* The adapter of a site, if the layout has it with room for its rank. */
static bool find_pair(const mbl_lora_t *lora, const mbl_lora_site_in_t *site, mbl_lora_pair_t *out) {
    for (size_t i = 0; i < mbl_lora_pair_count(lora); i++) {
        *out = mbl_lora_pair(lora, i);
        if (strcmp(out->linear->name, site->site) == 0)
            return site->ab[0]->dim[1] == out->linear->in && site->ab[1]->dim[0] == out->linear->out &&
                   site->rank <= out->a->dim[0];
    }
    return false;
}

static mbl_status_t check_model(const mbl_lora_in_t *in, const mbl_lora_t *lora) {
    mbl_names_t wrong = {{0}, 0};
    mbl_lora_pair_t pair;
    for (size_t i = 0; i < in->n; i++)
        if (!find_pair(lora, &in->sites[i], &pair))
            mbl_names_add(&wrong, in->sites[i].ab[0]->name);
    return wrong.n > 0 ? no_linear(in, &wrong) : MBL_OK;
}

/* A [rank, in] into the first rows of out, or B [out, rank] into its first columns. */
static mbl_status_t read_matrix(const mbl_lora_in_t *in, const mbl_lora_site_in_t *site, int what,
                                const mbl_param_t *param, double factor, float *out) {
    const mbl_st_entry_t *entry = site->ab[what];
    size_t rows = entry->dim[0], columns = entry->dim[1], count = rows * columns;
    float *values;
    MBL_ALLOC(values, count);
    mbl_status_t status = mbl_st_read_f32(in->st, entry->name, values, count);
    for (size_t i = 0; status == MBL_OK && i < rows; i++)
        for (size_t j = 0; j < columns; j++) {
            float value = values[i * columns + j];
            out[param->offset + i * param->dim[1] + j] =
                factor == 1 ? value : (float)(factor * (double)value);
        }
    mbl_free(values);
    return status;
}

mbl_status_t mbl_lora_read(const mbl_lora_t *lora, const char *path, float *out) {
    mbl_lora_in_t in;
    MBL_REQUIRE(lora && path && out, "lora_read: adapter, path and out must be given");
    const mbl_lora_config_t *config = mbl_lora_config(lora);
    double ours = config->alpha / (double)config->rank;
    mbl_status_t status = mbl_lora_in_open(path, lora->model->table->prefix, &in);
    if (status == MBL_OK)
        status = check_model(&in, lora);
    if (status == MBL_OK)
        memset(out, 0, mbl_lora_size(lora) * sizeof *out);
    for (size_t i = 0; status == MBL_OK && i < in.n; i++) {
        const mbl_lora_site_in_t *site = &in.sites[i];
        /* one that the division of equal numbers would miss by a rounding is 1 */
        double factor = fabs(site->scale - ours) <= 1e-15 * fabs(ours) ? 1 : site->scale / ours;
        mbl_lora_pair_t pair;
        if (find_pair(lora, site, &pair)) /* as it did in check_model */
            status = read_matrix(&in, site, 0, pair.a, 1, out);
        if (status == MBL_OK)
            status = read_matrix(&in, site, 1, pair.b, factor, out);
    }
    mbl_lora_in_close(&in);
    return status;
}

static mbl_status_t set_values(const mbl_lora_t *lora, const char *path, mbl_adapter_t *adapter) {
    mbl_ops_t *ops = lora->model->ops;
    mbl_tensor_t values;
    float *host;
    MBL_ALLOC(host, mbl_lora_size(lora));
    mbl_status_t status = mbl_lora_read(lora, path, host);
    if (status == MBL_OK)
        status = mbl_tensor_new(ops, MBL_F32, &values, 1, mbl_lora_size(lora));
    if (status == MBL_OK) {
        status = mbl_tensor_upload(ops, &values, host);
        if (status == MBL_OK)
            status = mbl_adapter_set(lora->model, adapter, &values);
        mbl_tensor_free(ops, &values);
    }
    mbl_free(host);
    return status;
}

mbl_status_t mbl_lora_open(const mbl_dit_t *model, const char *path, mbl_lora_t **lora,
                           mbl_adapter_t *adapter) {
    mbl_lora_config_t config;
    mbl_lora_t *made;
    mbl_adapter_t values;
    MBL_TRY(mbl_lora_read_config(model, path, &config));
    MBL_TRY(mbl_lora_new(model, &config, &made));
    mbl_status_t status = mbl_adapter_new(model, made, &values);
    if (status == MBL_OK && (status = set_values(made, path, &values)) != MBL_OK)
        mbl_adapter_free(model, &values);
    if (status != MBL_OK) {
        mbl_lora_free(made);
        return status;
    }
    *lora = made;
    *adapter = values;
    return MBL_OK;
}
