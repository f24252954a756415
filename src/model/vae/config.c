/* config.json of an image autoencoder: read and checked. */
#include "base/json.h"
#include "model/vae/internal.h"

#include <stdlib.h>
#include <string.h>

static mbl_status_t bad_value(const char *path, const char *key, const json_t *found, const char *expected) {
    char *text = found ? json_dumps(found, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
    mbl_status_t status = MBL_FAIL(MBL_ERR_CONFIG, "%s: %s: found %.200s; expected %s", path, key,
                                   text ? text : "nothing", expected);
    free(text); /* jansson's own allocation */
    return status;
}

static mbl_status_t read_sizes(const json_t *root, const char *path, mbl_vae_config_t *config) {
    size_t images[2] = {MBL_VAE_PIXELS, MBL_VAE_PIXELS};
    const struct {
        const char *key;
        size_t *out, fallback, min, max; /* fallback: what diffusers takes when the key is absent */
    } sizes[] = {{"latent_channels", &config->latent_channels, 4, 1, 1024},
                 {"layers_per_block", &config->layers_per_block, 1, 1, MBL_VAE_MAX_LAYERS},
                 {"norm_num_groups", &config->norm_num_groups, 32, 1, 65536},
                 {"in_channels", &images[0], MBL_VAE_PIXELS, MBL_VAE_PIXELS, MBL_VAE_PIXELS},
                 {"out_channels", &images[1], MBL_VAE_PIXELS, MBL_VAE_PIXELS, MBL_VAE_PIXELS}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        *sizes[i].out = sizes[i].fallback;
        MBL_TRY(mbl_json_size(root, path, sizes[i].key, false, sizes[i].min, sizes[i].max, sizes[i].out));
    }
    config->scaling_factor = 0.18215;
    config->shift_factor = 0;
    MBL_TRY(mbl_json_real(root, path, "scaling_factor", false, 1e-6, 1e6, &config->scaling_factor));
    return mbl_json_real(root, path, "shift_factor", false, -1e6, 1e6, &config->shift_factor);
}

static mbl_status_t read_blocks(const json_t *root, const char *path, mbl_vae_config_t *config) {
    static const char key[] = "block_out_channels";
    const json_t *list = json_object_get(root, key), *value;
    size_t i;
    if (!json_is_array(list) || json_array_size(list) < 1 || json_array_size(list) > MBL_VAE_MAX_BLOCKS)
        return bad_value(path, key, list, "a list of 1 to 6 numbers of channels");
    config->blocks = json_array_size(list);
    json_array_foreach(list, i, value) {
        json_int_t channels = json_integer_value(value);
        if (!json_is_integer(value) || channels < 1 || channels > 4096 ||
            (size_t)channels % config->norm_num_groups != 0)
            return bad_value(path, key, list, "multiples of norm_num_groups up to 4096");
        config->block_out_channels[i] = (size_t)channels;
    }
    return MBL_OK;
}

/* One name for every block. */
static mbl_status_t check_types(const json_t *root, const char *path, const char *key, const char *name,
                                size_t blocks) {
    const json_t *list = json_object_get(root, key), *value;
    size_t i;
    char expected[80];
    snprintf(expected, sizeof expected, "\"%s\" for each of the %zu block_out_channels", name, blocks);
    if (!list && blocks == 1)
        return MBL_OK;
    if (json_array_size(list) != blocks)
        return bad_value(path, key, list, expected);
    json_array_foreach(list, i, value) {
        const char *found = json_string_value(value);
        if (!found || strcmp(found, name) != 0)
            return bad_value(path, key, list, expected);
    }
    return MBL_OK;
}

/* diffusers takes true where one is absent. */
static mbl_status_t read_bool(const json_t *root, const char *path, const char *key, bool *out) {
    const json_t *value = json_object_get(root, key);
    if (value && !json_is_boolean(value))
        return bad_value(path, key, value, "true or false");
    *out = !value || json_is_true(value);
    return MBL_OK;
}

/* What other autoencoders have and those of Stable Diffusion 3 do not. */
static mbl_status_t check_kind(const json_t *root, const char *path, const mbl_vae_config_t *config) {
    static const char *const quant[] = {"use_quant_conv", "use_post_quant_conv"}, *const stats[] = {
                                                                                      "latents_mean",
                                                                                      "latents_std"};
    const char *name = "AutoencoderKL", *act = "silu";
    MBL_TRY(mbl_json_string(root, path, "_class_name", false, &name));
    if (strcmp(name, "AutoencoderKL") != 0)
        return bad_value(path, "_class_name", json_object_get(root, "_class_name"), "\"AutoencoderKL\"");
    MBL_TRY(mbl_json_string(root, path, "act_fn", false, &act));
    if (strcmp(act, "silu") != 0)
        return bad_value(path, "act_fn", json_object_get(root, "act_fn"), "\"silu\"");
    MBL_TRY(check_types(root, path, "down_block_types", "DownEncoderBlock2D", config->blocks));
    MBL_TRY(check_types(root, path, "up_block_types", "UpDecoderBlock2D", config->blocks));
    for (int i = 0; i < 2; i++) {
        bool on = false;
        const json_t *numbers = json_object_get(root, stats[i]);
        MBL_TRY(read_bool(root, path, quant[i], &on));
        if (on)
            return bad_value(path, quant[i], json_object_get(root, quant[i]),
                             "false, as Stable Diffusion 3 and 3.5 have it");
        if (numbers && !json_is_null(numbers))
            return bad_value(path, stats[i], numbers, "null, as Stable Diffusion 3 and 3.5 have it");
    }
    return MBL_OK;
}

static mbl_status_t read_root(const json_t *root, const char *path, mbl_vae_config_t *config) {
    MBL_TRY(read_sizes(root, path, config));
    MBL_TRY(read_blocks(root, path, config));
    MBL_TRY(read_bool(root, path, "mid_block_add_attention", &config->mid_block_add_attention));
    return check_kind(root, path, config);
}

mbl_status_t mbl_vae_config_read(const char *path, mbl_vae_config_t *out) {
    mbl_vae_config_t config = {0};
    json_t *root = NULL;
    MBL_REQUIRE(path && out, "vae_config_read: path and out must be given");
    MBL_TRY(mbl_json_read(path, &root));
    mbl_status_t status = read_root(root, path, &config);
    json_decref(root);
    if (status == MBL_OK)
        *out = config;
    return status;
}

size_t mbl_vae_scale(const mbl_vae_config_t *config) {
    return (size_t)1 << (config->blocks - 1);
}
