/* A diffusers folder: opening with its parts checked against each other, prompts to conditions, latents to
 * images. */
#include "model/pipeline_internal.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/suggest.h"

#include <math.h>
#include <string.h>

/* ---- opening ---- */

/* FOLDER/NAME; NULL without memory. */
static char *part(const char *folder, const char *name) {
    return mbl_format("%s/%s", folder, name);
}

/* model_index.json, and parts of larger models that cannot be run yet. */
static mbl_status_t check_index(const char *folder, const json_t *index) {
    const char *class_name = json_string_value(json_object_get(index, "_class_name"));
    if (!class_name || strcmp(class_name, "StableDiffusion3Pipeline") != 0)
        return MBL_FAIL(MBL_ERR_UNSUPPORTED,
                        "%s/model_index.json: _class_name: %.60s; expected "
                        "StableDiffusion3Pipeline",
                        folder, class_name ? class_name : "missing");
    char *path = part(folder, "vae");
    if (!path)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a folder name", folder);
    bool named = json_is_string(json_array_get(json_object_get(index, "vae"), 1));
    bool there = named || mbl_folder_exists(path);
    mbl_free(path);
    if (there)
        return MBL_FAIL(
            MBL_ERR_UNSUPPORTED,
            "%s: has vae/; this version runs models that generate pixels (transformer/, tokenizer/, "
            "text_encoder/, scheduler/)",
            folder);
    return MBL_OK;
}

static mbl_status_t read_index(const char *folder) {
    json_t *index = NULL;
    if (!mbl_folder_exists(folder) && mbl_is_hub_name(folder))
        return MBL_FAIL(
            MBL_ERR_IO,
            "%s: no such folder; it looks like a model's name on a hub, of which marble downloads "
            "nothing; expected the folder into which it was downloaded",
            folder);
    if (!mbl_folder_exists(folder))
        return MBL_FAIL(MBL_ERR_IO,
                        "%s: no such folder; a model is a folder with model_index.json, transformer/, "
                        "tokenizer/, text_encoder/, scheduler/",
                        folder);
    MBL_TRY(mbl_json_read_in(folder, "model_index.json", false, &index));
    mbl_status_t status = check_index(folder, index);
    json_decref(index);
    return status;
}

/* Sampling follows the run's own shift; the folder's is what it was made with. */
static mbl_status_t read_shift(const char *folder, double *out) {
    json_t *scheduler = NULL;
    double shift = 1;
    MBL_TRY(mbl_json_read_in(folder, "scheduler/scheduler_config.json", false, &scheduler));
    mbl_status_t status =
        mbl_json_real(scheduler, "scheduler/scheduler_config.json", "shift", false, 1e-3, 1e3, &shift);
    if (status == MBL_OK && json_is_true(json_object_get(scheduler, "use_dynamic_shifting")))
        status = MBL_FAIL(MBL_ERR_UNSUPPORTED,
                          "%s/scheduler/scheduler_config.json: use_dynamic_shifting: true, only "
                          "a fixed shift is supported",
                          folder);
    json_decref(scheduler);
    if (status == MBL_OK)
        *out = shift;
    return status;
}

/* The parts of a folder must be of one model; prompt.c has compared the text encoders. */
static mbl_status_t check_parts(const mbl_pipeline_t *p, const char *folder) {
    const mbl_dit_sizes_t *model = mbl_dit_sizes(p->model);
    size_t width = mbl_text_width(p->text), pooled = mbl_text_pooled(p->text);
    bool exact = mbl_text_has_t5(p->text);
    if (exact ? width != model->context_width : width > model->context_width)
        return MBL_FAIL(MBL_ERR_CONFIG, "%s: %s: %zu; expected %sthe transformer's joint_attention_dim %zu",
                        folder, exact ? "text_encoder_3/: d_model" : "text_encoder/: hidden_size", width,
                        exact ? "" : "at most ", model->context_width);
    if (pooled != model->pooled_width)
        return MBL_FAIL(MBL_ERR_CONFIG,
                        "%s: text_encoder/: projection_dim: %zu; expected the transformer's "
                        "pooled_projection_dim %zu",
                        folder, pooled, model->pooled_width);
    if (model->channels != 3 || model->out_channels != 3)
        return MBL_FAIL(MBL_ERR_CONFIG,
                        "%s: transformer/: %zu channels in, %zu out; without a vae/ both must be 3 (pixels)",
                        folder, model->channels, model->out_channels);
    return MBL_OK;
}

/* config NULL: the transformer of the folder, else a fresh one. */
static mbl_status_t open_any(mbl_ops_t *ops, mbl_dtype_t dtype, const char *folder,
                             const mbl_text_options_t *text, const json_t *config, uint64_t seed,
                             mbl_pipeline_t **out) {
    mbl_status_t status;
    char *path = NULL;
    mbl_pipeline_t *p;
    MBL_ALLOC(p, 1);
    p->ops = ops;
    p->dtype = dtype;
    MBL_TRY_GOTO(read_index(folder), done);
    MBL_TRY_GOTO(read_shift(folder, &p->shift), done);
    MBL_TRY_GOTO(mbl_text_open(ops, dtype, folder, text, &p->text), done);
    p->tokens = mbl_text_tokens(p->text);
    if (config) {
        MBL_TRY_GOTO(mbl_dit_new(ops, dtype, config, seed, &p->model), done);
        MBL_TRY_GOTO(mbl_digest_weights(ops, dtype, p->model, p->digest), done);
    } else {
        if (!(path = part(folder, "transformer"))) {
            status = MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a folder name", folder);
            goto done;
        }
        MBL_TRY_GOTO(mbl_dit_open(ops, dtype, path, &p->model), done);
        MBL_TRY_GOTO(mbl_digest_files(path, ops->threads, p->digest), done);
    }
    MBL_TRY_GOTO(check_parts(p, folder), done);
    *out = p;
    p = NULL;
done:
    mbl_free(path);
    mbl_pipeline_close(p);
    return status;
}

mbl_status_t mbl_pipeline_open(mbl_ops_t *ops, mbl_dtype_t dtype, const char *folder,
                               const mbl_text_options_t *text, mbl_pipeline_t **out) {
    return open_any(ops, dtype, folder, text, NULL, 0, out);
}

mbl_status_t mbl_pipeline_new(mbl_ops_t *ops, mbl_dtype_t dtype, const char *folder, const json_t *config,
                              uint64_t seed, mbl_pipeline_t **out) {
    return open_any(ops, dtype, folder, NULL, config, seed, out);
}

mbl_status_t mbl_pipeline_blank(mbl_ops_t *ops, mbl_dtype_t dtype, const json_t *config, size_t tokens,
                                mbl_pipeline_t **out) {
    mbl_pipeline_t *p;
    MBL_ALLOC(p, 1);
    p->ops = ops;
    p->dtype = dtype;
    p->tokens = tokens;
    p->shift = 1;
    mbl_status_t status = mbl_dit_blank(ops, dtype, config, &p->model);
    if (status != MBL_OK) {
        mbl_pipeline_close(p);
        return status;
    }
    *out = p;
    return MBL_OK;
}

void mbl_pipeline_close(mbl_pipeline_t *pipeline) {
    if (!pipeline)
        return;
    mbl_dit_close(pipeline->model);
    mbl_text_close(pipeline->text);
    mbl_free(pipeline->host);
    mbl_free(pipeline);
}

mbl_dit_t *mbl_pipeline_model(mbl_pipeline_t *pipeline) {
    return pipeline->model;
}

mbl_ops_t *mbl_pipeline_ops(mbl_pipeline_t *pipeline) {
    return pipeline->ops;
}

size_t mbl_pipeline_context_tokens(const mbl_pipeline_t *pipeline) {
    return pipeline->tokens;
}

double mbl_pipeline_shift(const mbl_pipeline_t *pipeline) {
    return pipeline->shift;
}

void mbl_pipeline_latent(const mbl_pipeline_t *pipeline, size_t *channels, size_t *height, size_t *width) {
    const mbl_dit_sizes_t *sizes = mbl_dit_sizes(pipeline->model);
    *channels = sizes->channels;
    *height = *width = sizes->side;
}

void mbl_pipeline_image_size(const mbl_pipeline_t *pipeline, size_t *height, size_t *width) {
    *height = *width = mbl_dit_sizes(pipeline->model)->side;
}

const char *mbl_pipeline_digest(const mbl_pipeline_t *pipeline) {
    return pipeline->digest;
}

/* ---- prompts ---- */

mbl_status_t mbl_pipeline_conditions(const mbl_pipeline_t *pipeline, size_t n, mbl_conditions_t *out) {
    return mbl_conditions_new(pipeline->model, n, pipeline->tokens, out);
}

mbl_status_t mbl_pipeline_encode(mbl_pipeline_t *pipeline, const char *const *prompts, size_t n,
                                 mbl_conditions_t *out) {
    MBL_REQUIRE(n > 0 && pipeline->text, "no prompts to encode, or no text encoder");
    mbl_conditions_t made = {0};
    mbl_status_t status = mbl_pipeline_conditions(pipeline, n, &made);
    if (status == MBL_OK)
        status = mbl_text_encode(pipeline->text, prompts, n, &made.context, &made.pooled);
    if (status != MBL_OK) {
        mbl_conditions_free(pipeline->ops, &made);
        return status;
    }
    *out = made;
    return MBL_OK;
}

void mbl_pipeline_release_text(mbl_pipeline_t *pipeline) {
    if (pipeline->text)
        mbl_text_release(pipeline->text);
}

mbl_status_t mbl_pipeline_cuts(const mbl_pipeline_t *pipeline, size_t encoder, const char *const *prompts,
                               size_t n, mbl_cuts_t *out) {
    if (pipeline->text)
        return mbl_text_cuts(pipeline->text, encoder, prompts, n, out);
    *out = (mbl_cuts_t){0};
    return MBL_OK;
}

/* ---- images ---- */

/* Latents on the host: where they are, or in a buffer that is kept. */
static mbl_status_t on_host(mbl_pipeline_t *p, const mbl_tensor_t *latents, const void **out) {
    size_t bytes = mbl_tensor_count(latents) * mbl_dtype_size(latents->dtype);
    if (latents->space == MBL_HOST) {
        MBL_TRY(p->ops->table->sync(p->ops));
        *out = latents->data;
        return MBL_OK;
    }
    if (bytes > p->host_bytes) {
        void *grown = mbl_calloc(bytes, 1);
        if (!grown)
            return MBL_FAIL(MBL_ERR_MEM, "no memory for %zu bytes of latents", bytes);
        mbl_free(p->host);
        p->host = grown;
        p->host_bytes = bytes;
    }
    MBL_TRY(mbl_tensor_download(p->ops, latents, p->host));
    *out = p->host;
    return MBL_OK;
}

/* [-1, 1] to 0..255, rounded; what is no number becomes 0. */
static uint8_t to_byte(double x) {
    double y = (x + 1) * 127.5 + 0.5;
    return (uint8_t)(y > 0 ? y < 255 ? y : 255 : 0);
}

mbl_status_t mbl_pipeline_decode(mbl_pipeline_t *pipeline, const mbl_tensor_t *latents, uint8_t *rgb,
                                 bool *broken) {
    size_t channels, height, width;
    mbl_pipeline_latent(pipeline, &channels, &height, &width);
    MBL_REQUIRE(latents->ndim == 4 && latents->dim[1] == channels && latents->dim[2] == height &&
                    latents->dim[3] == width && mbl_tensor_contiguous(latents) &&
                    (latents->dtype == MBL_F32 || latents->dtype == MBL_F64),
                "latents to decode must be [n,%zu,%zu,%zu] f32 or f64", channels, height, width);
    const void *data = NULL;
    MBL_TRY(on_host(pipeline, latents, &data));
    size_t area = height * width;
    for (size_t i = 0; i < latents->dim[0]; i++) {
        bool finite = true;
        for (size_t c = 0; c < channels; c++) {
            for (size_t at = 0; at < area; at++) {
                size_t from = (i * channels + c) * area + at;
                double x = latents->dtype == MBL_F64 ? ((const double *)data)[from]
                                                     : (double)((const float *)data)[from];
                rgb[(i * area + at) * channels + c] = to_byte(x);
                finite = finite && isfinite(x);
            }
        }
        if (broken)
            broken[i] = !finite;
    }
    return MBL_OK;
}
