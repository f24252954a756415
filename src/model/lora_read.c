/* LoRA adapters read for a model. Every matrix is applied with exactly the factor its own loader gives it. */
#include "model/lora_file.h"
#include "model/lora_in.h"

#include "base/mem.h"
#include "base/names.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- the configuration ---- */

/* Adds the kind of linear of a site, "attn.to_q", unless it is there. */
static mbl_status_t add_target(const mbl_lora_in_t *in, const mbl_lora_site_in_t *site,
                               mbl_lora_config_t *config) {
    const char *dot = strchr(site->site + strlen(mbl_lora_blocks), '.');
    if (!dot || !dot[1] || strlen(dot + 1) >= sizeof config->targets[0])
        return MBL_FAIL(MBL_ERR_UNSUPPORTED, "%s: %s: is no linear of a block", in->path, site->site);
    for (size_t i = 0; i < config->n_targets; i++)
        if (strcmp(config->targets[i], dot + 1) == 0)
            return MBL_OK;
    if (config->n_targets == MBL_LORA_MAX_TARGETS)
        return MBL_FAIL(MBL_ERR_UNSUPPORTED, "%s: adapters on more than %d kinds of linears", in->path,
                        MBL_LORA_MAX_TARGETS);
    snprintf(config->targets[config->n_targets++], sizeof config->targets[0], "%s", dot + 1);
    return MBL_OK;
}

/* One rank, the largest, and one scale, the largest; sites of others have zeros and factors in their
 * matrices. */
mbl_status_t mbl_lora_read_config(const char *path, mbl_lora_config_t *out) {
    MBL_REQUIRE(path && out, "lora_read_config: path and out must be given");
    mbl_lora_config_t config = {0};
    mbl_lora_in_t in;
    double scale = 0;
    mbl_status_t status = mbl_lora_in_open(path, &in);
    for (size_t i = 0; status == MBL_OK && i < in.n; i++) {
        const mbl_lora_site_in_t *site = &in.sites[i];
        config.rank = site->rank > config.rank ? site->rank : config.rank;
        scale = fmax(scale, fabs(site->scale));
        status = add_target(&in, site, &config);
    }
    config.alpha = (scale > 0 ? scale : 1) * (double)config.rank;
    mbl_lora_in_close(&in);
    if (status == MBL_OK)
        *out = config;
    return status;
}

/* ---- the values ---- */

static const mbl_param_t *find_param(const mbl_lora_t *lora, const char *site, int what) {
    char name[MBL_LORA_SITE + 32];
    snprintf(name, sizeof name, "%s.lora_%c.weight", site, what ? 'B' : 'A');
    for (size_t i = 0; i < mbl_lora_param_count(lora); i++)
        if (strcmp(mbl_lora_param(lora, i)->name, name) == 0)
            return mbl_lora_param(lora, i);
    return NULL;
}

/* Whether the model has the linear, and room for the rank. */
static bool fits(const mbl_lora_t *lora, const mbl_lora_site_in_t *site) {
    const mbl_param_t *a = find_param(lora, site->site, 0), *b = find_param(lora, site->site, 1);
    return a && b && site->ab[0]->dim[1] == a->dim[1] && site->ab[1]->dim[0] == b->dim[0] &&
           site->rank <= a->dim[0];
}

static mbl_status_t check_model(const mbl_lora_in_t *in, const mbl_lora_t *lora) {
    mbl_names_t wrong = {{0}, 0};
    for (size_t i = 0; i < in->n; i++)
        if (!fits(lora, &in->sites[i]))
            mbl_names_add(&wrong, in->sites[i].ab[0]->name);
    if (wrong.n == 0)
        return MBL_OK;
    return MBL_FAIL(MBL_ERR_FORMAT, "%s: tensor %s: the model has no linear of that name and shape", in->path,
                    mbl_names_text(&wrong));
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
    mbl_status_t status = mbl_lora_in_open(path, &in);
    if (status == MBL_OK)
        status = check_model(&in, lora);
    if (status == MBL_OK)
        memset(out, 0, mbl_lora_size(lora) * sizeof *out);
    for (size_t i = 0; status == MBL_OK && i < in.n; i++) {
        const mbl_lora_site_in_t *site = &in.sites[i];
        /* one that the division of equal numbers would miss by a rounding is 1 */
        double factor = fabs(site->scale - ours) <= 1e-15 * fabs(ours) ? 1 : site->scale / ours;
        for (int what = 0; status == MBL_OK && what < 2; what++)
            status = read_matrix(&in, site, what, find_param(lora, site->site, what), what ? factor : 1, out);
    }
    mbl_lora_in_close(&in);
    return status;
}
