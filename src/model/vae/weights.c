/* An image autoencoder's weights, read from a folder in the diffusers layout. */
#include "base/mem.h"
#include "model/st_check.h"
#include "model/staging.h"
#include "model/vae/internal.h"

#include <string.h>

static const mbl_vae_param_t *own_params(const mbl_vae_t *vae) {
    return vae->layout->params + vae->half->first;
}

static bool is_param(const void *context, const char *name) {
    const mbl_vae_layout_t *layout = context;
    for (size_t i = 0; i < layout->n_params; i++)
        if (strcmp(layout->params[i].name, name) == 0)
            return true;
    return false;
}

/* [out,in,k,k] as files have it to [out,k,k,in]. */
static void turn(const mbl_vae_param_t *param, size_t size, const char *from, char *to) {
    const size_t in = param->dim[1], window = param->dim[2] * param->dim[3];
    for (size_t o = 0; o < param->dim[0]; o++)
        for (size_t i = 0; i < in; i++)
            for (size_t w = 0; w < window; w++)
                memcpy(to + ((o * window + w) * in + i) * size, from + ((o * in + i) * window + w) * size,
                       size);
}

/* `turned`: room for the largest tensor in the order of the flat vector. */
static mbl_status_t load_param(mbl_vae_t *vae, const mbl_st_t *st, const mbl_vae_param_t *param,
                               const mbl_staging_t *staging, void *turned) {
    if (param->ndim != 4)
        return mbl_staging_load(vae->ops, st, param->name, &vae->weights, param->offset);
    MBL_TRY(mbl_staging_read(staging, st, param->name, param->count));
    turn(param, mbl_dtype_size(mbl_dtype_stat(vae->dtype)), staging->values, turned);
    return mbl_staging_put(vae->ops, staging, turned, param->count, &vae->weights, param->offset);
}

static mbl_status_t load_params(mbl_vae_t *vae, const mbl_st_t *st) {
    const mbl_vae_param_t *params = own_params(vae);
    const size_t size = mbl_dtype_size(mbl_dtype_stat(vae->dtype));
    size_t most = 0;
    char *turned;
    mbl_staging_t staging;
    mbl_status_t status;
    for (size_t i = 0; i < vae->half->n; i++)
        if (params[i].ndim == 4 && params[i].count > most)
            most = params[i].count;
    MBL_TRY(mbl_staging_new(vae->dtype, most, &staging));
    MBL_ALLOC_GOTO(turned, most * size, done);
    for (size_t i = 0; i < vae->half->n; i++)
        MBL_TRY_GOTO(load_param(vae, st, &params[i], &staging, turned), done);
    status = MBL_OK;
done:
    mbl_free(turned);
    mbl_staging_free(&staging);
    return status;
}

static mbl_status_t load(mbl_vae_t *vae, const char *folder, const mbl_st_t *st) {
    const mbl_vae_param_t *params = own_params(vae);
    for (size_t i = 0; i < vae->half->n; i++)
        MBL_TRY(mbl_st_check_shape(st, folder, params[i].name, params[i].ndim, params[i].dim));
    MBL_TRY(mbl_st_check_unused(st, folder, is_param, vae->layout,
                                "look at its block_out_channels and layers_per_block"));
    mbl_st_log_choice(st);
    MBL_TRY(mbl_tensor_new(vae->ops, vae->dtype, &vae->weights, 1, vae->half->used));
    return load_params(vae, st);
}

mbl_status_t mbl_vae_open(mbl_ops_t *ops, mbl_dtype_t dtype, const char *folder, mbl_vae_part_t part,
                          mbl_vae_t **out) {
    MBL_REQUIRE(ops && folder && out, "vae_open: ops, folder and out must be given");
    MBL_REQUIRE(dtype == MBL_F32 || dtype == MBL_BF16 || dtype == MBL_F64,
                "vae_open: f32, bf16 or f64, found %s", mbl_dtype_name(dtype));
    MBL_REQUIRE(part == MBL_VAE_DECODER || part == MBL_VAE_ENCODER, "vae_open: the decoder or the encoder");
    mbl_vae_t *vae;
    mbl_st_t *st = NULL;
    char *path = NULL;
    mbl_status_t status;
    MBL_ALLOC(vae, 1);
    vae->ops = ops;
    vae->dtype = dtype;
    if (!(path = mbl_format("%s/config.json", folder))) {
        status = MBL_FAIL(MBL_ERR_MEM, "no memory for a path");
        goto done;
    }
    MBL_TRY_GOTO(mbl_vae_config_read(path, &vae->config), done);
    MBL_TRY_GOTO(mbl_vae_layout_new(&vae->config, &vae->layout), done);
    vae->half = &vae->layout->half[part];
    MBL_TRY_GOTO(mbl_st_open(folder, &st), done);
    MBL_TRY_GOTO(load(vae, folder, st), done);
    *out = vae;
    vae = NULL;
done:
    mbl_vae_close(vae);
    mbl_st_close(st);
    mbl_free(path);
    return status;
}

mbl_status_t mbl_vae_blank(mbl_ops_t *ops, mbl_dtype_t dtype, const mbl_vae_config_t *config,
                           mbl_vae_part_t part, mbl_vae_t **out) {
    mbl_vae_t *vae;
    mbl_status_t status;
    MBL_ALLOC(vae, 1);
    vae->ops = ops;
    vae->dtype = dtype;
    vae->config = *config;
    MBL_TRY_GOTO(mbl_vae_layout_new(config, &vae->layout), failed);
    vae->half = &vae->layout->half[part];
    MBL_TRY_GOTO(mbl_tensor_new(ops, dtype, &vae->weights, 1, vae->half->used), failed);
    *out = vae;
    return MBL_OK;
failed:
    mbl_vae_close(vae);
    return status;
}

void mbl_vae_close(mbl_vae_t *vae) {
    if (!vae)
        return;
    mbl_tensor_free(vae->ops, &vae->weights);
    mbl_vae_layout_free(vae->layout);
    mbl_free(vae);
}

const mbl_vae_config_t *mbl_vae_config(const mbl_vae_t *vae) {
    return &vae->config;
}
