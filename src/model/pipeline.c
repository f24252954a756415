/* A diffusers folder: opening with its parts checked against each other, prompts to conditions. */
#include "model/pipeline_internal.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/suggest.h"
#include "model/folder.h"

#include <string.h>

enum { PIXELS = 3 };

/* ---- opening ---- */

/* FOLDER/NAME; NULL without memory. */
static char *part(const char *folder, const char *name) {
    return mbl_format("%s/%s", folder, name);
}

/* model_index.json: of which pipeline the folder is, and whether it has a vae. A part of null is none. */
static mbl_status_t check_index(const char *folder, const json_t *index, bool *vae) {
    const char *class_name = json_string_value(json_object_get(index, "_class_name"));
    if (!class_name || strcmp(class_name, "StableDiffusion3Pipeline") != 0)
        return MBL_FAIL(MBL_ERR_UNSUPPORTED,
                        "%s/model_index.json: _class_name: %.60s; expected "
                        "StableDiffusion3Pipeline",
                        folder, class_name ? class_name : "missing");
    *vae = json_is_string(json_array_get(json_object_get(index, "vae"), 1));
    return mbl_folder_log_extras(folder, index);
}

static mbl_status_t read_index(const char *folder, bool *vae) {
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
    mbl_status_t status = check_index(folder, index, vae);
    json_decref(index);
    return status;
}

/* Sigmas are spaced as diffusers' scheduler spaces them by its own defaults, and not otherwise. */
static mbl_status_t check_scheduler(const char *folder, const json_t *scheduler) {
    static const char *const off[] = {"use_dynamic_shifting", "use_karras_sigmas", "use_exponential_sigmas",
                                      "use_beta_sigmas",      "invert_sigmas",     "stochastic_sampling"};
    static const char expected[] = "FlowMatchEulerDiscreteScheduler";
    const char *name = json_string_value(json_object_get(scheduler, "_class_name"));
    const json_t *timesteps = json_object_get(scheduler, "num_train_timesteps");
    const json_t *terminal = json_object_get(scheduler, "shift_terminal");
    for (size_t i = 0; i < sizeof off / sizeof *off; i++)
        if (json_is_true(json_object_get(scheduler, off[i])))
            return MBL_FAIL(MBL_ERR_UNSUPPORTED,
                            "%s/scheduler/scheduler_config.json: %s: true, only a fixed shift is supported",
                            folder, off[i]);
    if (name && strcmp(name, expected) != 0)
        return MBL_FAIL(MBL_ERR_UNSUPPORTED,
                        "%s/scheduler/scheduler_config.json: _class_name: %.60s; expected %s", folder, name,
                        expected);
    if (timesteps && json_number_value(timesteps) != 1000)
        return MBL_FAIL(MBL_ERR_UNSUPPORTED,
                        "%s/scheduler/scheduler_config.json: num_train_timesteps: %g; expected 1000", folder,
                        json_number_value(timesteps));
    if (terminal && !json_is_null(terminal))
        return MBL_FAIL(
            MBL_ERR_UNSUPPORTED,
            "%s/scheduler/scheduler_config.json: shift_terminal: %g; expected null, sigmas that end "
            "where the shift takes them",
            folder, json_number_value(terminal));
    return MBL_OK;
}

/* Sampling follows the run's own shift; the folder's is what it was made with. */
static mbl_status_t read_shift(const char *folder, double *out) {
    json_t *scheduler = NULL;
    double shift = 1;
    MBL_TRY(mbl_json_read_in(folder, "scheduler/scheduler_config.json", false, &scheduler));
    mbl_status_t status =
        mbl_json_real(scheduler, "scheduler/scheduler_config.json", "shift", false, 1e-3, 1e3, &shift);
    if (status == MBL_OK)
        status = check_scheduler(folder, scheduler);
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
    size_t channels = p->vae ? mbl_vae_config(p->vae)->latent_channels : PIXELS;
    if (model->channels != channels || model->out_channels != channels)
        return MBL_FAIL(MBL_ERR_CONFIG, "%s: transformer/: %zu channels in, %zu out; expected %zu, %s",
                        folder, model->channels, model->out_channels, channels,
                        p->vae ? "vae/'s latent_channels"
                               : "red, green and blue, as model_index.json names no vae");
    return MBL_OK;
}

/* config NULL: the transformer of the folder, else a fresh one. */
static mbl_status_t open_any(mbl_ops_t *ops, mbl_dtype_t dtype, const char *folder,
                             const mbl_text_options_t *text, const json_t *config, uint64_t seed,
                             mbl_pipeline_t **out) {
    mbl_status_t status;
    char *path = NULL;
    bool vae = false;
    mbl_pipeline_t *p;
    MBL_ALLOC(p, 1);
    p->ops = ops;
    p->dtype = dtype;
    MBL_TRY_GOTO(read_index(folder, &vae), done);
    MBL_TRY_GOTO(read_shift(folder, &p->shift), done);
    MBL_TRY_GOTO(mbl_text_open(ops, dtype, folder, text, &p->text), done);
    p->tokens = mbl_text_tokens(p->text);
    mbl_ops_part(ops, "the transformer's weights", "precision: bf16");
    if (config) {
        MBL_TRY_GOTO(mbl_dit_new(ops, dtype, config, seed, &p->model), done);
        MBL_TRY_GOTO(mbl_digest_weights(ops, dtype, p->model, p->digest), done);
    } else {
        if (!(path = part(folder, "transformer"))) {
            status = MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a folder name", folder);
            goto done;
        }
        MBL_TRY_GOTO(mbl_dit_open(ops, dtype, path, &p->model), done);
    }
    if (vae)
        MBL_TRY_GOTO(mbl_pipeline_open_vae(p, folder), done);
    MBL_TRY_GOTO(check_parts(p, folder), done);
    MBL_TRY_GOTO(mbl_pipeline_resize(p, 0, 0), done);
    mbl_ops_part(ops, NULL, NULL);
    *out = p;
    p = NULL;
done:
    mbl_free(path);
    mbl_pipeline_close(p);
    return status;
}

mbl_status_t mbl_pipeline_open_shared(mbl_ops_t *ops, mbl_dtype_t dtype, const char *folder,
                                      const mbl_text_options_t *text, mbl_pipeline_t **out) {
    return open_any(ops, dtype, folder, text, NULL, 0, out);
}

mbl_status_t mbl_pipeline_digest_of(const char *folder, int threads, const volatile sig_atomic_t *stop,
                                    char out[MBL_SHA256_HEX]) {
    char *path = part(folder, "transformer");
    mbl_status_t status = path ? mbl_digest_files(path, threads, stop, out)
                               : MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a folder name", folder);
    mbl_free(path);
    return status;
}

void mbl_pipeline_set_digest(mbl_pipeline_t *pipeline, const char digest[MBL_SHA256_HEX]) {
    memcpy(pipeline->digest, digest, MBL_SHA256_HEX);
}

mbl_status_t mbl_pipeline_open(mbl_ops_t *ops, mbl_dtype_t dtype, const char *folder,
                               const mbl_text_options_t *text, mbl_pipeline_t **out) {
    mbl_pipeline_t *p;
    MBL_TRY(mbl_pipeline_open_shared(ops, dtype, folder, text, &p));
    mbl_status_t status = mbl_pipeline_digest_of(folder, ops->threads, ops->stop, p->digest);
    if (status == MBL_OK)
        *out = p;
    else
        mbl_pipeline_close(p);
    return status;
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
    if (status == MBL_OK)
        status = mbl_pipeline_resize(p, 0, 0);
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
    mbl_pipeline_close_vae(pipeline);
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
    *channels = mbl_dit_sizes(pipeline->model)->channels;
    *height = pipeline->height;
    *width = pipeline->width;
}

const char *mbl_pipeline_digest(const mbl_pipeline_t *pipeline) {
    return pipeline->digest;
}

/* ---- prompts ---- */

mbl_status_t mbl_pipeline_conditions(const mbl_pipeline_t *pipeline, size_t n, mbl_conditions_t *out) {
    return mbl_conditions_new(pipeline->model, n, pipeline->tokens, out);
}

mbl_text_t *mbl_pipeline_text(mbl_pipeline_t *pipeline) {
    return pipeline->text;
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
