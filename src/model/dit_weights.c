/* The weights of transformers: read from a diffusers folder or drawn afresh, and saved. */
#include "base/json.h"
#include "base/mem.h"
#include "model/dit_family.h"
#include "model/st_check.h"
#include "model/staging.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

static mbl_status_t staging_new(const mbl_dit_t *m, mbl_staging_t *out) {
    size_t most = 0;
    for (size_t i = 0; i < m->n_params; i++)
        most = m->params[i].count > most ? m->params[i].count : most;
    return mbl_staging_new(m->dtype, most, out);
}

/* Staged values of one tensor into the model's weights. */
static mbl_status_t put_param(mbl_dit_t *m, const mbl_param_t *param, const mbl_staging_t *staging) {
    return mbl_staging_put(m->ops, staging, staging->values, param->count, &m->weights, param->offset);
}

/* ---- from a folder ---- */

static bool is_param(const void *context, const char *name) {
    const mbl_dit_t *m = context;
    for (size_t i = 0; i < m->n_params; i++)
        if (strcmp(m->params[i].name, name) == 0)
            return true;
    return false;
}

static mbl_status_t load(mbl_dit_t *m, const char *folder, const mbl_st_t *st) {
    for (size_t i = 0; i < m->n_params; i++)
        MBL_TRY(mbl_st_check_shape(st, folder, m->params[i].name, m->params[i].ndim, m->params[i].dim));
    if (mbl_st_count(st) > m->n_params)
        MBL_TRY(mbl_st_check_unused(st, folder, is_param, m,
                                    "look at its qk_norm, dual_attention_layers and num_layers"));
    mbl_st_log_choice(st);
    for (size_t i = 0; i < m->n_params; i++)
        MBL_TRY(mbl_staging_load(m->ops, st, m->params[i].name, &m->weights, m->params[i].offset));
    return MBL_OK;
}

static mbl_status_t open_config(mbl_ops_t *ops, mbl_dtype_t dtype, const char *path, mbl_dit_t **out) {
    json_t *config;
    MBL_TRY(mbl_json_read(path, &config));
    mbl_status_t status = mbl_dit_create(ops, dtype, path, config, out);
    json_decref(config);
    return status;
}

mbl_status_t mbl_dit_open(mbl_ops_t *ops, mbl_dtype_t dtype, const char *folder, mbl_dit_t **out) {
    MBL_REQUIRE(ops && folder && out, "dit_open: ops, folder and out must be given");
    mbl_dit_t *model = NULL;
    mbl_st_t *st = NULL;
    char *path = mbl_format("%s/config.json", folder);
    if (!path)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for a path");
    mbl_status_t status;
    MBL_TRY_GOTO(open_config(ops, dtype, path, &model), done);
    MBL_TRY_GOTO(mbl_st_open(folder, &st), done);
    MBL_TRY_GOTO(load(model, folder, st), done);
    *out = model;
    model = NULL;
done:
    mbl_dit_close(model);
    mbl_st_close(st);
    mbl_free(path);
    return status;
}

/* ---- fresh ---- */

static mbl_status_t fill(mbl_dit_t *model, uint64_t seed) {
    mbl_staging_t staging;
    MBL_TRY(staging_new(model, &staging));
    mbl_status_t status = MBL_OK;
    for (size_t i = 0; status == MBL_OK && i < model->n_params; i++) {
        model->table->fresh(model, i, seed, staging.values);
        status = put_param(model, &model->params[i], &staging);
    }
    mbl_staging_free(&staging);
    return status;
}

mbl_status_t mbl_dit_new(mbl_ops_t *ops, mbl_dtype_t dtype, const json_t *config, uint64_t seed,
                         mbl_dit_t **out) {
    mbl_dit_t *model;
    MBL_TRY(mbl_dit_create(ops, dtype, "config of a fresh model", config, &model));
    mbl_status_t status = fill(model, seed);
    if (status != MBL_OK) {
        mbl_dit_close(model);
        return status;
    }
    *out = model;
    return MBL_OK;
}

/* ---- saved ---- */

static mbl_status_t write_weights(const mbl_dit_t *m, const float *weights, mbl_dtype_t dtype,
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

static mbl_status_t write_config(const mbl_dit_t *model, const char *path) {
    json_t *config = model->table->config(model);
    if (!config)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for it", path);
    mbl_status_t status = mbl_json_write(path, config);
    json_decref(config);
    return status;
}

mbl_status_t mbl_dit_save(const mbl_dit_t *model, const float *weights, mbl_dtype_t dtype,
                          const char *folder) {
    MBL_REQUIRE(model && weights && folder, "dit_save: model, weights and folder must be given");
    MBL_REQUIRE(dtype == MBL_F32 || dtype == MBL_BF16, "dit_save: f32 or bf16, found %s",
                mbl_dtype_name(dtype));
    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        return MBL_FAIL(MBL_ERR_IO, "%s: cannot be made: %s", folder, strerror(errno));
    char *config = mbl_format("%s/config.json", folder);
    char *tensors = mbl_format("%s/diffusion_pytorch_model.safetensors", folder);
    mbl_status_t status = MBL_OK;
    if (!config || !tensors)
        status = MBL_FAIL(MBL_ERR_MEM, "no memory for a path");
    if (status == MBL_OK)
        status = write_config(model, config);
    if (status == MBL_OK)
        status = write_weights(model, weights, dtype, tensors);
    mbl_free(config);
    mbl_free(tensors);
    return status;
}
