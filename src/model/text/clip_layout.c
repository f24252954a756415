/* CLIP text encoders: config.json, names and places of the weights, fresh encoders. */
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "model/text/clip_internal.h"
#include "model/safetensors.h"

#include <math.h>
#include <string.h>

/* ---- config.json ---- */

static mbl_status_t read_act(const json_t *root, const char *path, mbl_act_t *out) {
    const char *name = "quick_gelu";
    MBL_TRY(mbl_json_string(root, path, "hidden_act", false, &name));
    if (strcmp(name, "quick_gelu") == 0)
        *out = MBL_ACT_QUICK_GELU;
    else if (strcmp(name, "gelu") == 0)
        *out = MBL_ACT_GELU_ERF;
    else
        return MBL_FAIL(MBL_ERR_CONFIG, "%s: hidden_act: \"%.40s\"; expected quick_gelu or gelu", path, name);
    return MBL_OK;
}

static mbl_status_t read_config(const json_t *root, const char *path, mbl_clip_config_t *config) {
    size_t end = 49407;
    const struct {
        const char *key;
        size_t *out, fallback, max;
    } sizes[] = {{"vocab_size", &config->vocab_size, 49408, 1 << 24},
                 {"hidden_size", &config->hidden_size, 512, 65536},
                 {"intermediate_size", &config->intermediate_size, 2048, 1 << 18},
                 {"num_hidden_layers", &config->num_hidden_layers, 12, 1024},
                 {"num_attention_heads", &config->num_attention_heads, 8, 1024},
                 {"max_position_embeddings", &config->max_position_embeddings, 77, 65536},
                 {"projection_dim", &config->projection_dim, 512, 65536}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        *sizes[i].out = sizes[i].fallback;
        MBL_TRY(mbl_json_size(root, path, sizes[i].key, false, 1, sizes[i].max, sizes[i].out));
    }
    config->layer_norm_eps = 1e-5;
    MBL_TRY(mbl_json_real(root, path, "layer_norm_eps", false, 0, 1, &config->layer_norm_eps));
    MBL_TRY(mbl_json_size(root, path, "eos_token_id", false, 0, 1 << 24, &end));
    config->eos_token_id = (int32_t)end;
    MBL_TRY(read_act(root, path, &config->act));
    if (config->hidden_size % config->num_attention_heads != 0)
        return MBL_FAIL(MBL_ERR_CONFIG,
                        "%s: hidden_size: %zu; expected a multiple of num_attention_heads %zu", path,
                        config->hidden_size, config->num_attention_heads);
    return MBL_OK;
}

mbl_status_t mbl_clip_config_read(const char *path, mbl_clip_config_t *out) {
    json_t *root = NULL;
    mbl_clip_config_t config = {0};
    MBL_TRY(mbl_json_read(path, &root));
    mbl_status_t status = read_config(root, path, &config);
    json_decref(root);
    if (status == MBL_OK)
        *out = config;
    return status;
}

static mbl_status_t write_config(const mbl_clip_config_t *c, const char *path) {
    json_t *json = json_pack(
        "{s:[s], s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:s, s:I, s:I, s:I, s:s}", "architectures",
        "CLIPTextModelWithProjection", "model_type", "clip_text_model", "vocab_size",
        (json_int_t)c->vocab_size, "hidden_size", (json_int_t)c->hidden_size, "intermediate_size",
        (json_int_t)c->intermediate_size, "num_hidden_layers", (json_int_t)c->num_hidden_layers,
        "num_attention_heads", (json_int_t)c->num_attention_heads, "max_position_embeddings",
        (json_int_t)c->max_position_embeddings, "projection_dim", (json_int_t)c->projection_dim,
        "layer_norm_eps", c->layer_norm_eps, "hidden_act", c->act == MBL_ACT_GELU_ERF ? "gelu" : "quick_gelu",
        "bos_token_id", (json_int_t)c->eos_token_id - 1, "eos_token_id", (json_int_t)c->eos_token_id,
        "pad_token_id", (json_int_t)c->eos_token_id, "torch_dtype", "float32");
    mbl_status_t status = mbl_json_write(path, json);
    json_decref(json);
    return status;
}

/* ---- layout ---- */

size_t mbl_clip_param_count(const mbl_clip_config_t *config) {
    return CLIP_LAYERS + config->num_hidden_layers * CLIP_LAYER_PARAMS + CLIP_TAIL;
}

static void place_layer(mbl_text_layout_t *layout, const mbl_clip_config_t *c, size_t layer) {
    size_t d = c->hidden_size, m = c->intermediate_size;
    double in_std = pow((double)d, -0.5) * pow(2.0 * (double)c->num_hidden_layers, -0.5);
    double out_std = pow((double)d, -0.5), fc_std = pow(2.0 * (double)d, -0.5);
    const struct {
        const char *name;
        size_t rows, cols;
        double std;
        bool follows;
    } parts[CLIP_LAYER_PARAMS] = {{"layer_norm1.weight", d, 0, -1, false},
                                  {"layer_norm1.bias", d, 0, 0, false},
                                  {"self_attn.q_proj.weight", d, d, in_std, false},
                                  {"self_attn.k_proj.weight", d, d, in_std, true},
                                  {"self_attn.v_proj.weight", d, d, in_std, true},
                                  {"self_attn.q_proj.bias", d, 0, 0, false},
                                  {"self_attn.k_proj.bias", d, 0, 0, true},
                                  {"self_attn.v_proj.bias", d, 0, 0, true},
                                  {"self_attn.out_proj.weight", d, d, out_std, false},
                                  {"self_attn.out_proj.bias", d, 0, 0, false},
                                  {"layer_norm2.weight", d, 0, -1, false},
                                  {"layer_norm2.bias", d, 0, 0, false},
                                  {"mlp.fc1.weight", m, d, fc_std, false},
                                  {"mlp.fc1.bias", m, 0, 0, false},
                                  {"mlp.fc2.weight", d, m, in_std, false},
                                  {"mlp.fc2.bias", d, 0, 0, false}};
    layout->group = 1 + layer;
    for (size_t i = 0; i < CLIP_LAYER_PARAMS; i++) {
        char name[96];
        snprintf(name, sizeof name, "text_model.encoder.layers.%zu.%s", layer, parts[i].name);
        mbl_text_place(layout, name, parts[i].rows, parts[i].cols, parts[i].std, parts[i].follows);
    }
}

void mbl_clip_layout(const mbl_clip_config_t *c, mbl_text_param_t *out, size_t *total) {
    mbl_text_layout_t layout = {.next = out};
    size_t d = c->hidden_size;
    mbl_text_place(&layout, "text_model.embeddings.token_embedding.weight", c->vocab_size, d, 0.02, false);
    mbl_text_place(&layout, "text_model.embeddings.position_embedding.weight", c->max_position_embeddings, d,
                   0.02, false);
    for (size_t i = 0; i < c->num_hidden_layers; i++)
        place_layer(&layout, c, i);
    layout.group = 1 + c->num_hidden_layers;
    mbl_text_place(&layout, "text_model.final_layer_norm.weight", d, 0, -1, false);
    mbl_text_place(&layout, "text_model.final_layer_norm.bias", d, 0, 0, false);
    mbl_text_place(&layout, "text_projection.weight", c->projection_dim, d, pow((double)d, -0.5), false);
    *total = layout.used;
}

/* ---- fresh encoders ---- */

static void fill(const mbl_text_param_t *param, uint64_t seed, size_t index, double std, float *out) {
    size_t n = param->dim[0] * (param->ndim == 2 ? param->dim[1] : 1);
    mbl_rng_t rng = mbl_rng(seed, MBL_RNG_INIT, 0, index);
    if (std > 0)
        mbl_rng_normal(&rng, out, n);
    for (size_t i = 0; i < n; i++)
        out[i] = std > 0 ? out[i] * (float)std : std < 0 ? 1 : 0;
}

static mbl_status_t write_weights(const mbl_clip_config_t *config, uint64_t seed, bool strong,
                                  const char *path) {
    static const char *const metadata[] = {"format", "pt", NULL};
    mbl_status_t status;
    size_t n = mbl_clip_param_count(config), total;
    mbl_text_param_t *params = NULL;
    mbl_st_tensor_t *tensors = NULL;
    float *values = NULL;
    MBL_ALLOC_GOTO(params, n, done);
    MBL_ALLOC_GOTO(tensors, n, done);
    mbl_clip_layout(config, params, &total);
    MBL_ALLOC_GOTO(values, total, done);
    for (size_t i = 0; i < n; i++) {
        fill(&params[i], seed, i, strong && i < CLIP_LAYERS ? 1 : params[i].std, values + params[i].offset);
        tensors[i] = (mbl_st_tensor_t){params[i].name,
                                       MBL_F32,
                                       params[i].ndim,
                                       {params[i].dim[0], params[i].dim[1]},
                                       values + params[i].offset};
    }
    status = mbl_st_write(path, tensors, n, metadata);
done:
    mbl_free(values);
    mbl_free(tensors);
    mbl_free(params);
    return status;
}

mbl_status_t mbl_clip_create(const mbl_clip_config_t *config, uint64_t seed, bool strong,
                             const char *folder) {
    MBL_REQUIRE(config->num_attention_heads > 0 && config->hidden_size % config->num_attention_heads == 0,
                "%zu heads do not divide a hidden size of %zu", config->num_attention_heads,
                config->hidden_size);
    MBL_TRY(mbl_folder_make(folder));
    char *json = mbl_format("%s/config.json", folder), *weights = mbl_format("%s/model.safetensors", folder);
    mbl_status_t status = json && weights ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "no memory for a file name");
    if (status == MBL_OK)
        status = write_config(config, json);
    if (status == MBL_OK)
        status = write_weights(config, seed, strong, weights);
    mbl_free(json);
    mbl_free(weights);
    return status;
}
