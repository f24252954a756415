/* The MM-DiT as an object: weights read from a diffusers folder or drawn afresh, set, given, saved. */
#include "model/mmdit/mmdit.h"

#include "base/mem.h"
#include "base/rng.h"
#include "model/mmdit/internal.h"
#include "model/safetensors.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* A model without weights yet; `path` is where config came from, for messages. */
static mbl_status_t create(mbl_ops_t *ops, mbl_dtype_t dtype, const char *path,
                           const mbl_mmdit_config_t *config, mbl_mmdit_t **out) {
    MBL_REQUIRE(dtype == MBL_F32 || dtype == MBL_BF16 || dtype == MBL_F64,
                "the compute type must be f32, bf16 or f64, found %s", mbl_dtype_name(dtype));
    MBL_TRY(mbl_mmdit_config_check(path, config));
    mbl_mmdit_t *model;
    mbl_status_t status;
    MBL_ALLOC(model, 1);
    model->ops = ops;
    model->dtype = dtype;
    model->config = *config;
    MBL_TRY_GOTO(mbl_mmdit_layout(model), fail);
    MBL_TRY_GOTO(mbl_tensor_new(ops, dtype, &model->weights, 1, model->n_weights), fail);
    *out = model;
    return MBL_OK;
fail:
    mbl_mmdit_close(model);
    return status;
}

void mbl_mmdit_close(mbl_mmdit_t *model) {
    if (!model)
        return;
    mbl_tensor_free(model->ops, &model->weights);
    mbl_free(model->params);
    mbl_free(model->blocks);
    mbl_free(model);
}

/* Room for the largest tensor, in the type it is made in (f32; f64 for f64) and in the compute type. */
typedef struct {
    void *values, *narrow;
} staging_t;

static void staging_free(staging_t *staging) {
    mbl_free(staging->values);
    mbl_free(staging->narrow);
}

static mbl_status_t staging_new(const mbl_mmdit_t *m, staging_t *out) {
    size_t most = 0;
    for (size_t i = 0; i < m->n_params; i++)
        most = m->params[i].count > most ? m->params[i].count : most;
    *out = (staging_t){mbl_calloc(most, mbl_dtype_size(mbl_dtype_stat(m->dtype))),
                       m->dtype == MBL_BF16 ? mbl_calloc(most, 2) : NULL};
    if (out->values && (out->narrow || m->dtype != MBL_BF16))
        return MBL_OK;
    staging_free(out);
    return MBL_FAIL(MBL_ERR_MEM, "no memory for a tensor of %zu values", most);
}

/* Staged values of one tensor into the model's weights. */
static mbl_status_t put_param(mbl_mmdit_t *m, const mbl_param_t *param, const staging_t *staging) {
    const void *source = staging->values;
    if (m->dtype == MBL_BF16) {
        const float *values = staging->values;
        uint16_t *narrow = staging->narrow;
        for (size_t i = 0; i < param->count; i++)
            narrow[i] = mbl_bf16_from_f32(values[i]);
        source = narrow;
    }
    return m->ops->table->copy(m->ops, mbl_element(&m->weights, param->offset), m->ops->table->space, source,
                               MBL_HOST, param->count * mbl_dtype_size(m->dtype));
}

/* ---- from a folder ---- */

static const char *shape_text(int ndim, const size_t *dim, char out[128]) {
    size_t at = 0;
    out[at++] = '[';
    for (int i = 0; i < ndim && at < 100; i++)
        at += (size_t)snprintf(out + at, 128 - at, "%s%zu", i ? "," : "", dim[i]);
    snprintf(out + at, 128 - at, "]");
    return out;
}

static mbl_status_t check_entry(const char *folder, const mbl_st_t *st, const mbl_param_t *param) {
    char found[128], wanted[128];
    const mbl_st_entry_t *entry = mbl_st_find(st, param->name);
    shape_text(param->ndim, param->dim, wanted);
    if (!entry)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: tensor %s: not there, config.json asks for one of shape %s",
                        folder, param->name, wanted);
    bool same = entry->ndim == param->ndim;
    for (int i = 0; same && i < param->ndim; i++)
        same = entry->dim[i] == param->dim[i];
    if (!same)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: tensor %s: found shape %s, config.json asks for %s", folder,
                        param->name, shape_text(entry->ndim, entry->dim, found), wanted);
    return MBL_OK;
}

static bool is_param(const void *context, const char *name) {
    const mbl_mmdit_t *m = context;
    for (size_t i = 0; i < m->n_params; i++)
        if (strcmp(m->params[i].name, name) == 0)
            return true;
    return false;
}

static mbl_status_t load(mbl_mmdit_t *m, const char *folder, const mbl_st_t *st) {
    for (size_t i = 0; i < m->n_params; i++)
        MBL_TRY(check_entry(folder, st, &m->params[i]));
    if (mbl_st_count(st) > m->n_params)
        MBL_TRY(mbl_st_check_unused(st, folder, is_param, m,
                                    "look at its qk_norm, dual_attention_layers and num_layers"));
    mbl_st_log_choice(st);
    staging_t staging;
    mbl_status_t status = MBL_OK;
    MBL_TRY(staging_new(m, &staging));
    for (size_t i = 0; status == MBL_OK && i < m->n_params; i++) {
        const mbl_param_t *param = &m->params[i];
        status = m->dtype == MBL_F64 ? mbl_st_read_f64(st, param->name, staging.values, param->count)
                                     : mbl_st_read_f32(st, param->name, staging.values, param->count);
        if (status == MBL_OK)
            status = put_param(m, param, &staging);
    }
    staging_free(&staging);
    return status;
}

mbl_status_t mbl_mmdit_open(mbl_ops_t *ops, mbl_dtype_t dtype, const char *folder, mbl_mmdit_t **out) {
    MBL_REQUIRE(ops && folder && out, "mmdit_open: ops, folder and out must be given");
    mbl_mmdit_config_t config;
    mbl_mmdit_t *model = NULL;
    mbl_st_t *st = NULL;
    char *path = mbl_format("%s/config.json", folder);
    if (!path)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for a path");
    mbl_status_t status;
    MBL_TRY_GOTO(mbl_mmdit_config_read(path, &config), fail);
    MBL_TRY_GOTO(mbl_st_open(folder, &st), fail);
    MBL_TRY_GOTO(create(ops, dtype, path, &config, &model), fail);
    MBL_TRY_GOTO(load(model, folder, st), fail);
    mbl_st_close(st);
    mbl_free(path);
    *out = model;
    return MBL_OK;
fail:
    mbl_mmdit_close(model);
    mbl_st_close(st);
    mbl_free(path);
    return status;
}

/* ---- fresh ---- */

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), k = strlen(end);
    return n >= k && strcmp(text + n - k, end) == 0;
}

/* diffusers' get_2d_sincos_pos_embed for a square grid: the first half of D encodes the column, the second
 * the row, each as sines then cosines, in units of the grid the model was trained on. */
static double position_value(const mbl_mmdit_t *m, size_t index) {
    size_t width = m->width, max = m->config.pos_embed_max_size, quarter = width / 4;
    size_t j = index % width, place = index / width;
    size_t at = j < width / 2 ? place % max : place / max;
    size_t base = m->config.sample_size / m->config.patch_size;
    float position = (float)at / (float)((double)max / (double)base);
    size_t within = j % (width / 2);
    double omega = 1.0 / pow(10000.0, (double)(within % quarter) / (double)quarter);
    double angle = (double)position * omega;
    return within < quarter ? sin(angle) : cos(angle);
}

/* Uniform within +-bound (Xavier), a constant, or the positions. */
static double fresh_value(const mbl_mmdit_t *m, const mbl_param_t *param, size_t i, double bound,
                          mbl_rng_t *rng) {
    if (!param->trained)
        return position_value(m, i);
    if (param->ndim == 1)
        return ends_with(param->name, ".weight") ? 1 : 0;
    return bound * (2 * (double)mbl_rng_uniform(rng) - 1);
}

static void fresh_param(const mbl_mmdit_t *m, size_t index, uint64_t seed, void *values) {
    const mbl_param_t *param = &m->params[index];
    mbl_rng_t rng = mbl_rng(seed, MBL_RNG_INIT, 0, index);
    bool zero = strstr(param->name, ".linear.") || strncmp(param->name, "proj_out", 8) == 0;
    size_t in = param->ndim > 1 ? param->count / param->dim[0] : 1;
    double bound = zero ? 0 : sqrt(6.0 / (double)(in + param->dim[0]));
    for (size_t i = 0; i < param->count; i++) {
        double value = fresh_value(m, param, i, bound, &rng);
        if (m->dtype == MBL_F64)
            ((double *)values)[i] = (float)value; /* the model of a seed is one model, whatever its type */
        else
            ((float *)values)[i] = (float)value;
    }
}

mbl_status_t mbl_mmdit_new(mbl_ops_t *ops, mbl_dtype_t dtype, const mbl_mmdit_config_t *config, uint64_t seed,
                           mbl_mmdit_t **out) {
    MBL_REQUIRE(ops && config && out, "mmdit_new: ops, config and out must be given");
    mbl_mmdit_t *model;
    MBL_TRY(create(ops, dtype, "config of a fresh model", config, &model));
    staging_t staging;
    mbl_status_t status = staging_new(model, &staging);
    if (status != MBL_OK) {
        mbl_mmdit_close(model);
        return status;
    }
    for (size_t i = 0; status == MBL_OK && i < model->n_params; i++) {
        fresh_param(model, i, seed, staging.values);
        status = put_param(model, &model->params[i], &staging);
    }
    staging_free(&staging);
    if (status != MBL_OK) {
        mbl_mmdit_close(model);
        return status;
    }
    *out = model;
    return MBL_OK;
}

mbl_status_t mbl_mmdit_blank(mbl_ops_t *ops, mbl_dtype_t dtype, const mbl_mmdit_config_t *config,
                             mbl_mmdit_t **out) {
    MBL_REQUIRE(ops && config && out, "mmdit_blank: ops, config and out must be given");
    return create(ops, dtype, "config of a blank model", config, out);
}

/* ---- asked and told ---- */

const mbl_mmdit_config_t *mbl_mmdit_config(const mbl_mmdit_t *model) {
    return &model->config;
}

size_t mbl_mmdit_param_count(const mbl_mmdit_t *model) {
    return model->n_params;
}

const mbl_param_t *mbl_mmdit_param(const mbl_mmdit_t *model, size_t i) {
    return i < model->n_params ? &model->params[i] : NULL;
}

const mbl_tensor_t *mbl_mmdit_weights(const mbl_mmdit_t *model) {
    return &model->weights;
}

static mbl_status_t transfer(mbl_ops_t *ops, const mbl_tensor_t *dst, const mbl_tensor_t *src) {
    return dst->dtype == src->dtype ? mbl_tensor_copy(ops, dst, src)
                                    : MBL_OP(ops, convert, .dst = dst, .src = src);
}

mbl_status_t mbl_mmdit_set_weights(mbl_mmdit_t *model, const mbl_tensor_t *master) {
    MBL_REQUIRE(model && master, "set_weights: model and master must be given");
    MBL_REQUIRE(master->ndim == 1 && master->dim[0] == model->n_weights,
                "set_weights: master has %zu values, the model %zu", mbl_tensor_count(master),
                model->n_weights);
    MBL_TRY(transfer(model->ops, &model->weights, master));
    model->version++;
    return MBL_OK;
}

mbl_status_t mbl_mmdit_get_weights(const mbl_mmdit_t *model, const mbl_tensor_t *master) {
    MBL_REQUIRE(model && master, "get_weights: model and master must be given");
    MBL_REQUIRE(master->ndim == 1 && master->dim[0] == model->n_weights,
                "get_weights: master has %zu values, the model %zu", mbl_tensor_count(master),
                model->n_weights);
    return transfer(model->ops, master, &model->weights);
}

/* ---- saved ---- */

static mbl_status_t write_weights(const mbl_mmdit_t *m, const float *weights, mbl_dtype_t dtype,
                                  const char *path) {
    mbl_st_tensor_t *tensors;
    uint16_t *narrow = NULL;
    mbl_status_t status;
    MBL_ALLOC(tensors, m->n_params);
    if (dtype == MBL_BF16) {
        MBL_ALLOC_GOTO(narrow, m->n_weights, done);
        for (size_t i = 0; i < m->n_weights; i++)
            narrow[i] = mbl_bf16_from_f32(weights[i]);
    }
    for (size_t i = 0; i < m->n_params; i++) {
        const mbl_param_t *param = &m->params[i];
        tensors[i] = (mbl_st_tensor_t){.name = param->name, .dtype = dtype, .ndim = param->ndim};
        memcpy(tensors[i].dim, param->dim, sizeof param->dim);
        tensors[i].data =
            narrow ? (const void *)(narrow + param->offset) : (const void *)(weights + param->offset);
    }
    status = mbl_st_write(path, tensors, m->n_params, (const char *const[]){"format", "pt", NULL});
done:
    mbl_free(narrow);
    mbl_free(tensors);
    return status;
}

mbl_status_t mbl_mmdit_save(const mbl_mmdit_t *model, const float *weights, mbl_dtype_t dtype,
                            const char *folder) {
    MBL_REQUIRE(model && weights && folder, "mmdit_save: model, weights and folder must be given");
    MBL_REQUIRE(dtype == MBL_F32 || dtype == MBL_BF16, "mmdit_save: f32 or bf16, found %s",
                mbl_dtype_name(dtype));
    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        return MBL_FAIL(MBL_ERR_IO, "%s: cannot be made: %s", folder, strerror(errno));
    char *config = mbl_format("%s/config.json", folder);
    char *tensors = mbl_format("%s/diffusion_pytorch_model.safetensors", folder);
    mbl_status_t status = MBL_OK;
    if (!config || !tensors)
        status = MBL_FAIL(MBL_ERR_MEM, "no memory for a path");
    if (status == MBL_OK)
        status = mbl_mmdit_config_write(config, &model->config);
    if (status == MBL_OK)
        status = write_weights(model, weights, dtype, tensors);
    mbl_free(config);
    mbl_free(tensors);
    return status;
}
