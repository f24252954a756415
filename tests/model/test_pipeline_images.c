/* src/model/pipeline_images: latents to images by the vae of a folder, at once, one by one and in tiles, as
 * diffusers makes them (tests/golden/make_vae.py); other sizes of images; folders whose parts do not fit.
 * ctest-backends: fake cuda
 */
#include "mmdit_case.h"
#include "ops_case.h"
#include "base/json.h"
#include "base/mem.h"
#include "data/signs/signs.h"
#include "model/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The golden vae has 4 channels and 2 pixels a latent; 4 x 4 latents decoded whole, 11 x 10 in tiles of 4. */
enum {
    CHANNELS = 4,
    SCALE = 2,
    SIDE = 4,
    PIXELS = SIDE * SIDE * SCALE * SCALE * 3,
    MOST = 2 * 11 * 10 * 4 * 3
};
#define GOLDEN MBL_SOURCE_DIR "/tests/golden/vae/square_f32"

static const mbl_mmdit_config_t small = {.sample_size = SIDE,
                                         .patch_size = 1,
                                         .in_channels = CHANNELS,
                                         .out_channels = CHANNELS,
                                         .num_layers = 1,
                                         .attention_head_dim = 8,
                                         .num_attention_heads = 1,
                                         .joint_attention_dim = 16,
                                         .caption_projection_dim = 8,
                                         .pooled_projection_dim = 12,
                                         .pos_embed_max_size = 11,
                                         .qk_norm = true};

static void shell(const char *format) {
    char command[1024];
    snprintf(command, sizeof command, format, folder, folder);
    if (system(command) != 0)
        fail_msg("%s failed", command);
}

/* A folder whose model_index.json names the golden vae, and all else but a transformer. */
static int set_up(void **state) {
    (void)state;
    const char *words[256];
    size_t n = 0;
    int failed = open_ops_and_folder(test_backend(), 1);
    while (n < 256 && (words[n] = mbl_signs_word(n)))
        n++;
    if (!failed && mbl_pipeline_create(folder, words, n, 12, 16, 1, 12, 7) != MBL_OK)
        return -1;
    shell("cp -r '" GOLDEN "' '%s/vae'");
    json_t *index = read_json(in_folder("model_index.json"));
    json_object_set_new(index, "vae", json_pack("[s, s]", "diffusers", "AutoencoderKL"));
    failed |= mbl_json_write(in_folder("model_index.json"), index) != MBL_OK;
    json_decref(index);
    return failed;
}

static mbl_pipeline_t *open_pipeline(mbl_dtype_t dtype) {
    mbl_pipeline_t *p;
    assert_ok(new_pipeline(ops, dtype, folder, &small, 3, &p));
    return p;
}

/* A tensor of the golden file as latents of the pipeline, and the bytes that belong to it. */
static mbl_tensor_t golden(const char *latents, const char *bytes, uint8_t *expected) {
    mbl_st_t *st;
    mbl_tensor_t out;
    static float values[MOST];
    assert_ok(mbl_st_open(GOLDEN "/expected.safetensors", &st));
    const mbl_st_entry_t *x = mbl_st_find(st, latents), *y = mbl_st_find(st, bytes);
    size_t count = x->dim[0] * x->dim[1] * x->dim[2] * x->dim[3];
    assert_in_range(count, 1, MOST);
    assert_in_range(y->bytes, 1, MOST);
    assert_ok(mbl_st_read_f32(st, latents, values, count));
    memcpy(expected, y->data, y->bytes);
    assert_ok(mbl_tensor_new(ops, MBL_F32, &out, 4, x->dim[0], x->dim[1], x->dim[2], x->dim[3]));
    assert_ok(mbl_tensor_upload(ops, &out, values));
    mbl_st_close(st);
    return out;
}

/* Few bytes lie on an edge; those may differ by one. */
static void same_bytes(const uint8_t *found, const uint8_t *expected, size_t n) {
    size_t differ = 0;
    for (size_t i = 0; i < n; i++) {
        if (abs((int)found[i] - (int)expected[i]) > 1)
            fail_msg("byte %zu is %d, expected %d", i, found[i], expected[i]);
        differ += found[i] != expected[i];
    }
    assert_in_range(differ, 0, n / 200);
}

/* At once, one by one where memory is for one, and with another image of the call broken. */
static void latents_become_images(void **state) {
    (void)state;
    static uint8_t expected[MOST], rgb[MOST];
    size_t channels, height, width;
    bool broken[2] = {true, true};
    mbl_pipeline_t *p = open_pipeline(MBL_F32);
    mbl_tensor_t latents = golden("latents", "bytes", expected);
    mbl_pipeline_latent(p, &channels, &height, &width);
    assert_true(channels == CHANNELS && height == SIDE && width == SIDE);
    mbl_pipeline_image_size(p, &height, &width);
    assert_true(height == SIDE * SCALE && width == SIDE * SCALE);
    for (int one_by_one = 0; one_by_one < 2; one_by_one++) {
        memset(rgb, 0, sizeof rgb);
        assert_ok(mbl_pipeline_set_decoding(p, one_by_one ? 1 : 0, 0));
        assert_ok(mbl_pipeline_decode(p, &latents, rgb, broken));
        same_bytes(rgb, expected, 2 * PIXELS);
        assert_false(broken[0] || broken[1]);
        size_t count = mbl_mem_count();
        assert_ok(mbl_pipeline_decode(p, &latents, rgb, NULL)); /* nothing is allocated for the next ones */
        assert_int_equal(mbl_mem_count(), count);
    }
    mbl_tensor_t second = mbl_tensor_rows(&latents, 1, 1);
    const float wrong = NAN;
    mbl_tensor_t at = second;
    at.ndim = 1, at.dim[0] = 1, at.stride[0] = 1;
    assert_ok(mbl_tensor_upload(ops, &at, &wrong));
    assert_ok(mbl_pipeline_decode(p, &latents, rgb, broken));
    same_bytes(rgb, expected, PIXELS);
    assert_true(!broken[0] && broken[1]);
    mbl_tensor_free(ops, &latents);
    mbl_pipeline_close(p);
}

static void large_images_are_tiled(void **state) {
    (void)state;
    static uint8_t expected[MOST], rgb[MOST];
    bool broken[2] = {true, true};
    mbl_pipeline_t *p = open_pipeline(MBL_F32);
    mbl_tensor_t latents = golden("many", "tiled", expected);
    assert_int_equal(mbl_pipeline_decode(p, &latents, rgb, broken), MBL_ERR_ARG);
    assert_ok(mbl_pipeline_resize(p, latents.dim[2] * SCALE, latents.dim[3] * SCALE));
    assert_ok(mbl_pipeline_set_decoding(p, 0, 4));
    assert_ok(mbl_pipeline_decode(p, &latents, rgb, broken));
    same_bytes(rgb, expected, 2 * latents.dim[2] * latents.dim[3] * SCALE * SCALE * 3);
    assert_false(broken[0] || broken[1]);
    assert_int_equal(mbl_pipeline_set_decoding(p, 0, 6), MBL_ERR_CONFIG);
    assert_non_null(strstr(mbl_fail_message(), "tiles of 6 latents; expected a multiple of 4"));
    mbl_tensor_free(ops, &latents);
    mbl_pipeline_close(p);
}

static void sizes_are_checked(void **state) {
    (void)state;
    size_t channels, height, width;
    mbl_pipeline_t *p = open_pipeline(MBL_F32);
    static const size_t wrong[][2] = {{8, 9}, {7, 8}, {0, 8}, {24, 8}, {8, 24}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(mbl_pipeline_resize(p, wrong[i][0], wrong[i][1]), MBL_ERR_CONFIG);
        assert_non_null(strstr(mbl_fail_message(), "expected multiples of 2"));
        assert_non_null(strstr(mbl_fail_message(), "up to 22"));
    }
    assert_ok(mbl_pipeline_resize(p, 22, 6));
    mbl_pipeline_latent(p, &channels, &height, &width);
    assert_true(height == 11 && width == 3);
    assert_ok(mbl_pipeline_resize(p, 0, 0));
    mbl_pipeline_image_size(p, &height, &width);
    assert_true(height == SIDE * SCALE && width == SIDE * SCALE);
    mbl_pipeline_close(p);
}

static void survives_failing_memory(void **state) {
    (void)state;
    static uint8_t expected[MOST], rgb[MOST];
    mbl_pipeline_t *p = open_pipeline(MBL_F32);
    mbl_tensor_t latents = golden("latents", "bytes", expected);
    assert_ok(mbl_pipeline_decode(p, &latents, rgb, NULL));
    mbl_pipeline_close(p);
    size_t live = mbl_mem_live(), n = 1;
    for (mbl_status_t status = MBL_ERR_MEM; status != MBL_OK; n += 3) {
        p = NULL;
        mbl_mem_fail_at(n);
        status = new_pipeline(ops, MBL_F32, folder, &small, 3, &p);
        if (status == MBL_OK)
            status = mbl_pipeline_decode(p, &latents, rgb, NULL);
        mbl_mem_fail_at(0);
        assert_true(status == MBL_OK || status == MBL_ERR_MEM);
        mbl_pipeline_close(p);
        assert_int_equal(mbl_mem_live(), live);
    }
    same_bytes(rgb, expected, 2 * PIXELS);
    mbl_tensor_free(ops, &latents);
}

static void parts_that_do_not_fit(void **state) {
    (void)state;
    mbl_pipeline_t *p;
    mbl_mmdit_config_t other = small;
    other.in_channels = other.out_channels = 16;
    assert_int_equal(new_pipeline(ops, MBL_F32, folder, &other, 3, &p), MBL_ERR_CONFIG);
    assert_non_null(strstr(mbl_fail_message(),
                           "transformer/: 16 channels in, 16 out; expected 4, vae/'s latent_channels"));
    shell("mv '%s/vae' '%s/kept'");
    assert_int_equal(new_pipeline(ops, MBL_F32, folder, &small, 3, &p), MBL_ERR_IO);
    assert_non_null(strstr(mbl_fail_message(), "vae/config.json"));
    shell("mv '%s/kept' '%s/vae'");
}

int main(void) {
    need_backend();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(latents_become_images), cmocka_unit_test(large_images_are_tiled),
        cmocka_unit_test(sizes_are_checked),     cmocka_unit_test(survives_failing_memory),
        cmocka_unit_test(parts_that_do_not_fit),
    };
    return cmocka_run_group_tests(tests, set_up, close_ops_and_folder);
}
