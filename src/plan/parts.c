/* Text encoders and image decoders, counted. */
#include "plan/parts.h"

#include "base/mem.h"
#include "model/pipeline.h"
#include "model/vae/vae.h"

#include <unistd.h>

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

mbl_plan_text_t mbl_plan_clip(const mbl_clip_config_t *c) {
    const size_t d = c->hidden_size, mlp = c->intermediate_size;
    const size_t embeddings = (c->vocab_size + c->max_position_embeddings) * d;
    const size_t layer = 4 * (d * d + d) + 2 * d * mlp + mlp + d + 4 * d;
    const size_t end = 2 * d + c->projection_dim * d;
    return (mbl_plan_text_t){embeddings + c->num_hidden_layers * layer + end,
                             larger(larger(embeddings, layer), end)};
}

mbl_plan_text_t mbl_plan_t5(const mbl_t5_config_t *c) {
    const size_t d = c->d_model, heads = c->num_heads * c->d_kv;
    const size_t table = c->vocab_size * d, bias = c->relative_attention_num_buckets * c->num_heads;
    const size_t layer = 4 * d * heads + 3 * d * c->d_ff + 2 * d;
    return (mbl_plan_text_t){table + bias + c->num_layers * layer + d, larger(table, layer + bias)};
}

/* FOLDER/PART/config.json, where there is one. */
static mbl_status_t path_of(const mbl_config_t *config, const char *part, char **out, bool *there) {
    *out = mbl_format("%s/%s/config.json", config->model.path, part);
    if (!*out)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a file name", config->model.path);
    *there = access(*out, F_OK) == 0;
    return MBL_OK;
}

static mbl_status_t encoder(const mbl_config_t *config, const char *part, bool t5, mbl_plan_text_t *out) {
    mbl_clip_config_t clip;
    mbl_t5_config_t t5_config;
    char *path;
    bool there = false;
    *out = (mbl_plan_text_t){0, 0};
    MBL_TRY(path_of(config, part, &path, &there));
    mbl_status_t status = MBL_OK;
    if (there && t5 && (status = mbl_t5_config_read(path, &t5_config)) == MBL_OK)
        *out = mbl_plan_t5(&t5_config);
    else if (there && !t5 && (status = mbl_clip_config_read(path, &clip)) == MBL_OK)
        *out = mbl_plan_clip(&clip);
    mbl_free(path);
    return status;
}

mbl_status_t mbl_plan_text_bytes(const mbl_config_t *config, size_t size, size_t *out) {
    static const char *const parts[] = {"text_encoder", "text_encoder_2", "text_encoder_3"};
    const bool low = config->model.low_memory == MBL_CONFIG_LOW_MEMORY_ON;
    size_t bytes = 0;
    for (int i = 0; i < 3; i++) {
        mbl_plan_text_t one;
        MBL_TRY(encoder(config, parts[i], i == 2, &one));
        bytes += size * (low ? one.layer : one.all);
    }
    *out = bytes;
    return MBL_OK;
}

mbl_status_t mbl_plan_read_vae(const mbl_config_t *config, mbl_vae_config_t *out) {
    char *path;
    bool there = false;
    *out = (mbl_vae_config_t){0};
    MBL_TRY(path_of(config, "vae", &path, &there));
    mbl_status_t status = there ? mbl_vae_config_read(path, out) : MBL_OK;
    mbl_free(path);
    return status;
}

mbl_status_t mbl_plan_scale(const mbl_config_t *config, size_t *out) {
    mbl_vae_config_t vae;
    MBL_TRY(mbl_plan_read_vae(config, &vae));
    *out = vae.blocks ? mbl_vae_scale(&vae) : 1;
    return MBL_OK;
}

/* As many at once as the pipeline takes (model/pipeline_images.c). */
mbl_status_t mbl_plan_decoder_bytes(const mbl_plan_shape_t *s, size_t *out) {
    mbl_vae_bytes_t bytes, more;
    size_t images = s->images, side = s->sizes.side;
    *out = 0;
    if (s->vae.blocks == 0)
        return MBL_OK;
    if (side > s->decode_tile) {
        side = s->decode_tile;
        images = 1;
    }
    MBL_TRY(mbl_vae_count(&s->vae, s->dtype, 1, side, side, &bytes));
    for (size_t n = 2; n <= images; n++) {
        MBL_TRY(mbl_vae_count(&s->vae, s->dtype, n, side, side, &more));
        if (more.buffers > s->decode_bytes)
            break;
        bytes = more;
    }
    *out = bytes.weights + bytes.buffers;
    return MBL_OK;
}
