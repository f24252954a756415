/* The fixed parts of a fresh signs-type folder. */
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "model/text/clip.h"
#include "model/pipeline.h"
#include "model/text/tokenizer.h"

enum {
    HEAD = 32,
    FEED_FORWARD = 4
}; /* width of an attention head; the inner width of the feed-forward over it */

static mbl_status_t write_index(const char *path) {
    json_t *none = json_pack("[n, n]");
    json_t *json =
        json_pack("{s:s, s:s, s:[s, s], s:[s, s], s:O, s:O, s:[s, s], s:O, s:O, s:[s, s], s:O}",
                  "_class_name", "StableDiffusion3Pipeline", "_diffusers_version", "0.30.0", "scheduler",
                  "diffusers", "FlowMatchEulerDiscreteScheduler", "text_encoder", "transformers",
                  "CLIPTextModelWithProjection", "text_encoder_2", none, "text_encoder_3", none, "tokenizer",
                  "transformers", "CLIPTokenizer", "tokenizer_2", none, "tokenizer_3", none, "transformer",
                  "diffusers", "SD3Transformer2DModel", "vae", none);
    mbl_status_t status = mbl_json_write(path, json);
    json_decref(json);
    json_decref(none);
    return status;
}

static mbl_status_t write_scheduler(const char *path) {
    json_t *json = json_pack("{s:s, s:s, s:i, s:f}", "_class_name", "FlowMatchEulerDiscreteScheduler",
                             "_diffusers_version", "0.30.0", "num_train_timesteps", 1000, "shift", 3.0);
    mbl_status_t status = mbl_json_write(path, json);
    json_decref(json);
    return status;
}

static mbl_status_t vocab_size_of(const char *tokenizer, size_t *out) {
    mbl_tokenizer_t *t;
    MBL_TRY(mbl_tokenizer_open(tokenizer, &t));
    *out = mbl_tokenizer_vocab_size(t);
    mbl_tokenizer_close(t);
    return MBL_OK;
}

mbl_status_t mbl_pipeline_create(const char *folder, const char *const *words, size_t n_words, size_t tokens,
                                 size_t hidden, size_t layers, size_t pooled, uint64_t seed) {
    MBL_REQUIRE(hidden > 0 && layers > 0 && pooled > 0,
                "a text encoder of width %zu, %zu layers, pooled to %zu", hidden, layers, pooled);
    mbl_status_t status;
    char *tokenizer = mbl_format("%s/tokenizer", folder), *encoder = mbl_format("%s/text_encoder", folder);
    char *scheduler = mbl_format("%s/scheduler", folder), *index = mbl_format("%s/model_index.json", folder);
    char *config = mbl_format("%s/scheduler/scheduler_config.json", folder);
    mbl_clip_config_t clip = {.hidden_size = hidden,
                              .intermediate_size = FEED_FORWARD * hidden,
                              .num_hidden_layers = layers,
                              .num_attention_heads = hidden % HEAD == 0 ? hidden / HEAD : 1,
                              .max_position_embeddings = tokens,
                              .projection_dim = pooled,
                              .layer_norm_eps = 1e-5,
                              .act = MBL_ACT_QUICK_GELU};
    if (!tokenizer || !encoder || !scheduler || !index || !config) {
        status = MBL_FAIL(MBL_ERR_MEM, "%s: no memory for file names", folder);
        goto done;
    }
    MBL_TRY_GOTO(mbl_tokenizer_create(tokenizer, words, n_words, tokens), done);
    MBL_TRY_GOTO(vocab_size_of(tokenizer, &clip.vocab_size), done);
    clip.eos_token_id = (int32_t)clip.vocab_size - 1;
    MBL_TRY_GOTO(mbl_clip_create(&clip, seed, true, encoder), done);
    MBL_TRY_GOTO(mbl_folder_make(scheduler), done);
    MBL_TRY_GOTO(write_scheduler(config), done);
    status = write_index(index);
done:
    mbl_free(tokenizer);
    mbl_free(encoder);
    mbl_free(scheduler);
    mbl_free(index);
    mbl_free(config);
    return status;
}
