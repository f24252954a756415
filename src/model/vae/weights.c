/* An image autoencoder's weights, read from a folder in the diffusers layout. */
#include "base/mem.h"
#include "model/safetensors.h"
#include "model/vae/internal.h"

#include <stdio.h>
#include <string.h>

/* Room for the largest tensor: as read and in the order of the flat vector, both f32 (f64 for f64), and in
 * bf16. */
typedef struct {
    void *read, *turned, *narrow;
} staging_t;

static void staging_free(staging_t *staging) {
    mbl_free(staging->read);
    mbl_free(staging->turned);
    mbl_free(staging->narrow);
}

static const mbl_vae_param_t *own_params(const mbl_vae_t *vae) {
    return vae->layout->params + vae->half->first;
}

static mbl_status_t staging_new(const mbl_vae_t *vae, staging_t *out) {
    size_t most = 0, size = mbl_dtype_size(mbl_dtype_stat(vae->dtype));
    const mbl_vae_param_t *params = own_params(vae);
    for (size_t i = 0; i < vae->half->n; i++)
        most = params[i].count > most ? params[i].count : most;
    *out = (staging_t){mbl_calloc(most, size), mbl_calloc(most, size),
                       vae->dtype == MBL_BF16 ? mbl_calloc(most, 2) : NULL};
    if (out->read && out->turned && (out->narrow || vae->dtype != MBL_BF16))
        return MBL_OK;
    staging_free(out);
    return MBL_FAIL(MBL_ERR_MEM, "no memory for a tensor of %zu values", most);
}

static const char *shape_text(int ndim, const size_t *dim, char out[128]) {
    size_t at = 0;
    out[at++] = '[';
    for (int i = 0; i < ndim && at < 100; i++)
        at += (size_t)snprintf(out + at, 128 - at, "%s%zu", i ? "," : "", dim[i]);
    snprintf(out + at, 128 - at, "]");
    return out;
}

static mbl_status_t check_entry(const char *folder, const mbl_st_t *st, const mbl_vae_param_t *param) {
    char found[128], expected[128];
    const mbl_st_entry_t *entry = mbl_st_find(st, param->name);
    shape_text(param->ndim, param->dim, expected);
    if (!entry)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: tensor %s: missing; expected one of shape %s", folder,
                        param->name, expected);
    bool same = entry->ndim == param->ndim;
    for (int i = 0; same && i < param->ndim; i++)
        same = entry->dim[i] == param->dim[i];
    if (!same)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: tensor %s: found shape %s; expected %s", folder, param->name,
                        shape_text(entry->ndim, entry->dim, found), expected);
    return MBL_OK;
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

static mbl_status_t load_param(mbl_vae_t *vae, const mbl_st_t *st, const mbl_vae_param_t *param,
                               const staging_t *staging) {
    const size_t wide = mbl_dtype_size(mbl_dtype_stat(vae->dtype)), size = mbl_dtype_size(vae->dtype);
    const void *source = staging->read;
    MBL_TRY(vae->dtype == MBL_F64 ? mbl_st_read_f64(st, param->name, staging->read, param->count)
                                  : mbl_st_read_f32(st, param->name, staging->read, param->count));
    if (param->ndim == 4) {
        turn(param, wide, staging->read, staging->turned);
        source = staging->turned;
    }
    if (vae->dtype == MBL_BF16) {
        uint16_t *narrow = staging->narrow;
        for (size_t i = 0; i < param->count; i++)
            narrow[i] = mbl_bf16_from_f32(((const float *)source)[i]);
        source = narrow;
    }
    return vae->ops->table->copy(vae->ops, (char *)vae->weights.data + param->offset * size,
                                 vae->ops->table->space, source, MBL_HOST, param->count * size);
}

static mbl_status_t load(mbl_vae_t *vae, const char *folder, const mbl_st_t *st) {
    const mbl_vae_param_t *params = own_params(vae);
    staging_t staging;
    for (size_t i = 0; i < vae->half->n; i++)
        MBL_TRY(check_entry(folder, st, &params[i]));
    MBL_TRY(mbl_st_check_unused(st, folder, is_param, vae->layout,
                                "look at its block_out_channels and layers_per_block"));
    mbl_st_log_choice(st);
    MBL_TRY(mbl_tensor_new(vae->ops, vae->dtype, &vae->weights, 1, vae->half->used));
    MBL_TRY(staging_new(vae, &staging));
    mbl_status_t status = MBL_OK;
    for (size_t i = 0; status == MBL_OK && i < vae->half->n; i++)
        status = load_param(vae, st, &params[i], &staging);
    staging_free(&staging);
    return status;
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
