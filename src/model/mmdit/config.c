/* config.json of an SD3-type transformer: read, checked, written. */
#include "base/json.h"
#include "model/mmdit/internal.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *key;
    size_t offset, fallback, min, max; /* fallback: what diffusers takes when the key is absent */
} size_key_t;

#define SIZE_KEY(name, fallback, min, max)                                                                   \
    { #name, offsetof(mbl_mmdit_config_t, name), fallback, min, max }
static const size_key_t size_keys[] = {
    SIZE_KEY(sample_size, 128, 1, 65536),
    SIZE_KEY(patch_size, 2, 1, 256),
    SIZE_KEY(in_channels, 16, 1, 4096),
    SIZE_KEY(out_channels, 16, 1, 4096),
    SIZE_KEY(num_layers, 18, 1, MBL_DIT_MAX_BLOCKS),
    SIZE_KEY(attention_head_dim, 64, 1, 1024),
    SIZE_KEY(num_attention_heads, 18, 1, 1024),
    SIZE_KEY(joint_attention_dim, 4096, 1, 65536),
    SIZE_KEY(caption_projection_dim, 1152, 1, 65536),
    SIZE_KEY(pooled_projection_dim, 2048, 1, 65536),
    SIZE_KEY(pos_embed_max_size, 96, 1, 4096),
};
enum { SIZE_KEYS = sizeof size_keys / sizeof *size_keys };

static size_t *size_at(const size_key_t *key, mbl_mmdit_config_t *config) {
    return (size_t *)(void *)((char *)config + key->offset);
}

static mbl_status_t bad_value(const char *path, const char *key, json_t *found, const char *right) {
    char *text = found ? json_dumps(found, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
    mbl_status_t status =
        MBL_FAIL(MBL_ERR_CONFIG, "%s: %s: found %.200s; expected %s", path, key, text ? text : "?", right);
    free(text); /* jansson's own allocation */
    return status;
}

static mbl_status_t read_dual(const char *path, const json_t *root, mbl_mmdit_config_t *config) {
    json_t *layers = json_object_get(root, "dual_attention_layers"), *value;
    size_t i;
    if (!layers || json_is_null(layers))
        return MBL_OK;
    if (!json_is_array(layers))
        return bad_value(path, "dual_attention_layers", layers, "a list of layer numbers");
    json_array_foreach(layers, i, value) {
        json_int_t layer = json_integer_value(value);
        if (!json_is_integer(value) || layer < 0 || layer >= (json_int_t)config->num_layers)
            return bad_value(path, "dual_attention_layers", value, "layer numbers below num_layers");
        config->dual_attention[layer] = true;
    }
    return MBL_OK;
}

static mbl_status_t read_norm(const char *path, const json_t *root, mbl_mmdit_config_t *config) {
    json_t *norm = json_object_get(root, "qk_norm");
    if (!norm || json_is_null(norm))
        return MBL_OK;
    const char *name = json_string_value(norm);
    if (!name || strcmp(name, "rms_norm") != 0)
        return bad_value(path, "qk_norm", norm, "\"rms_norm\" or null");
    config->qk_norm = true;
    return MBL_OK;
}

static mbl_status_t check(const char *path, const mbl_mmdit_config_t *config) {
    size_t width = config->attention_head_dim * config->num_attention_heads;
    if (width > 65536 || width % 4 != 0)
        return MBL_FAIL(MBL_ERR_CONFIG,
                        "%s: attention_head_dim x num_attention_heads: found %zu; expected a multiple "
                        "of 4 up to 65536",
                        path, width);
    if (config->caption_projection_dim != width)
        return MBL_FAIL(MBL_ERR_CONFIG,
                        "%s: caption_projection_dim: found %zu; expected %zu (attention_head_dim x "
                        "num_attention_heads)",
                        path, config->caption_projection_dim, width);
    if (config->sample_size % config->patch_size != 0)
        return MBL_FAIL(MBL_ERR_CONFIG, "%s: sample_size: found %zu; expected a multiple of patch_size %zu",
                        path, config->sample_size, config->patch_size);
    if (config->sample_size / config->patch_size > config->pos_embed_max_size)
        return MBL_FAIL(MBL_ERR_CONFIG,
                        "%s: pos_embed_max_size: found %zu; expected at least sample_size / patch_size = %zu",
                        path, config->pos_embed_max_size, config->sample_size / config->patch_size);
    return MBL_OK;
}

static mbl_status_t read_root(const char *path, const json_t *root, mbl_mmdit_config_t *config) {
    for (int i = 0; i < SIZE_KEYS; i++) {
        const size_key_t *key = &size_keys[i];
        size_t *value = size_at(key, config);
        bool as_in = strcmp(key->key, "out_channels") == 0 && json_is_null(json_object_get(root, key->key));
        *value = as_in ? config->in_channels : key->fallback; /* in_channels stands before it in the table */
        MBL_TRY(mbl_json_size(root, path, key->key, false, key->min, key->max, value));
    }
    MBL_TRY(read_dual(path, root, config));
    MBL_TRY(read_norm(path, root, config));
    return check(path, config);
}

mbl_status_t mbl_mmdit_config_parse(const char *where, const json_t *config, mbl_mmdit_config_t *out) {
    mbl_mmdit_config_t parsed = {0};
    MBL_TRY(read_root(where, config, &parsed));
    *out = parsed;
    return MBL_OK;
}

mbl_dit_sizes_t mbl_mmdit_sizes(const mbl_mmdit_config_t *config) {
    const size_t patches = config->sample_size / config->patch_size;
    return (mbl_dit_sizes_t){.channels = config->in_channels,
                             .out_channels = config->out_channels,
                             .side = config->sample_size,
                             .patch = config->patch_size,
                             .most_side = config->pos_embed_max_size * config->patch_size,
                             .tokens = patches * patches,
                             .context_width = config->joint_attention_dim,
                             .pooled_width = config->pooled_projection_dim,
                             .blocks = config->num_layers,
                             .width = config->attention_head_dim * config->num_attention_heads,
                             .heads = config->num_attention_heads};
}

json_t *mbl_mmdit_config_json(const mbl_mmdit_config_t *config) {
    mbl_mmdit_config_t copy = *config;
    json_t *root = json_object(), *dual = json_array();
    int bad = json_object_set_new(root, "_class_name", json_string(MBL_MMDIT_CLASS));
    for (int i = 0; i < SIZE_KEYS; i++)
        bad |= json_object_set_new(root, size_keys[i].key,
                                   json_integer((json_int_t)*size_at(&size_keys[i], &copy)));
    for (size_t i = 0; i < config->num_layers; i++)
        if (config->dual_attention[i])
            bad |= json_array_append_new(dual, json_integer((json_int_t)i));
    bad |= json_object_set_new(root, "dual_attention_layers", dual);
    bad |= json_object_set_new(root, "qk_norm", config->qk_norm ? json_string("rms_norm") : json_null());
    if (bad) {
        json_decref(root);
        return NULL;
    }
    return root;
}
