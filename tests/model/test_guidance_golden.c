/* Skipped layers and a LoRA from prompt to pixels, as diffusers' StableDiffusion3Pipeline draws them with
 * guidance (tests/golden/make_guidance.py).   ctest-backends: fake cuda
 */
#include "mmdit_case.h"
#include "ops_case.h"
#include "model/lora_file.h"
#include "model/safetensors.h"
#include "model/sampler.h"

#include <stdlib.h>
#include <string.h>

enum { HEIGHT = 32, WIDTH = 48, LATENTS = 16 * 4 * 6, BYTES = 3 * HEIGHT * WIDTH, STEPS = 12, TOKENS = 28 };
#define GOLDEN MBL_SOURCE_DIR "/tests/golden/"

static mbl_st_t *expected;

static int set_up(void **state) {
    (void)state;
    char command[1024];
    int failed = open_ops_and_folder(test_backend(), 1);
    snprintf(command, sizeof command, "cp -r '%sprompt/'* '%s' && cp -r '%spipeline/'* '%s'", GOLDEN, folder,
             GOLDEN, folder);
    return failed || system(command) != 0 ||
           mbl_st_open(GOLDEN "guidance/expected.safetensors", &expected) != MBL_OK;
}

static int tear_down(void **state) {
    mbl_st_close(expected);
    return close_ops_and_folder(state);
}

/* One image from the golden noise; skip: blocks that are left out between a twentieth and a half of the
 * steps. */
static void draw(mbl_pipeline_t *p, uint64_t skip, const mbl_lora_t *lora, const mbl_adapter_t *adapter,
                 float *latents, uint8_t *rgb) {
    const char *prompt = mbl_st_metadata(expected, "prompt"), *negative = "";
    static const uint32_t index[1] = {0};
    mbl_conditions_t conditions, none;
    mbl_sampler_t *sampler;
    mbl_sampler_plan_t plan;
    mbl_tensor_t x;
    assert_ok(mbl_pipeline_encode(p, &prompt, 1, &conditions));
    assert_ok(mbl_pipeline_encode(p, &negative, 1, &none));
    const mbl_guidance_t guidance = {4.5, &none, skip, 2.8, 0.05, 0.5};
    assert_ok(mbl_sampler_plan(MBL_SOLVER_EULER, STEPS,
                               &(mbl_sigma_schedule_t){.shift = mbl_pipeline_shift(p)}, &plan));
    assert_ok(mbl_sampler_new(p, lora, 1, &sampler));
    assert_ok(mbl_sampler_guide(sampler, &guidance));
    assert_ok(
        mbl_tensor_new(ops, MBL_F32, &x, 4, (size_t)1, (size_t)16, (size_t)HEIGHT / 8, (size_t)WIDTH / 8));
    assert_ok(mbl_st_read_f32(expected, "noise", latents, LATENTS));
    assert_ok(mbl_tensor_upload(ops, &x, latents));
    const mbl_sample_request_t request = {
        .adapter = adapter, .conditions = &conditions, .index = index, .n = 1, .noise = true};
    assert_ok(mbl_sampler_run(sampler, &plan, &request, &x));
    assert_ok(mbl_tensor_download(ops, &x, latents));
    assert_ok(mbl_pipeline_decode(p, &x, rgb, NULL));
    mbl_tensor_free(ops, &x);
    mbl_sampler_free(sampler);
    mbl_conditions_free(ops, &conditions);
    mbl_conditions_free(ops, &none);
}

static void compare(const char *name, const float *latents, const uint8_t *rgb, double latents_apart,
                    double pixels_apart) {
    static float want[LATENTS], plain[LATENTS];
    char key[64];
    snprintf(key, sizeof key, "%s.latents", name);
    assert_ok(mbl_st_read_f32(expected, key, want, LATENTS));
    assert_ok(mbl_st_read_f32(expected, "plain.latents", plain, LATENTS));
    snprintf(key, sizeof key, "%s.bytes", name);
    const mbl_st_entry_t *bytes = mbl_st_find(expected, key);
    assert_true(bytes && bytes->bytes == BYTES);
    double far = relative_error_f32(latents, want, LATENTS), mean = 0;
    for (size_t i = 0; i < BYTES; i++)
        mean += abs((int)rgb[i] - (int)((const uint8_t *)bytes->data)[i]) / (double)BYTES;
    print_message("%s: latents %.2g, pixels %.2g/255\n", name, far, mean);
    assert_near(far, 0, latents_apart);
    assert_near(mean, 0, pixels_apart);
    assert_true(relative_error_f32(plain, want, LATENTS) > 0.05); /* what is tested makes a difference */
}

static void in_type(mbl_dtype_t dtype, double latents_apart, double pixels_apart) {
    static float latents[LATENTS];
    static uint8_t rgb[BYTES];
    const mbl_text_options_t text = {.max_tokens = TOKENS};
    mbl_pipeline_t *p;
    mbl_lora_t *lora;
    mbl_adapter_t adapter;
    assert_ok(mbl_pipeline_open(ops, dtype, folder, &text, &p));
    assert_ok(mbl_pipeline_resize(p, HEIGHT, WIDTH));
    draw(p, 1 << 1, NULL, NULL, latents, rgb);
    compare("skipped", latents, rgb, latents_apart, pixels_apart);
    assert_ok(mbl_lora_open(mbl_pipeline_model(p), GOLDEN "guidance/lora.safetensors", &lora, &adapter));
    draw(p, 0, lora, &adapter, latents, rgb);
    compare("adapted", latents, rgb, latents_apart, pixels_apart);
    mbl_adapter_free(mbl_pipeline_model(p), &adapter);
    mbl_lora_free(lora);
    mbl_pipeline_close(p);
}

static void images_in_f32(void **state) {
    (void)state;
    in_type(MBL_F32, 1e-4, 0.05);
}

static void images_in_bf16(void **state) {
    (void)state;
    in_type(MBL_BF16, 0.1, 3);
}

int main(void) {
    need_backend();
    const struct CMUnitTest tests[] = {cmocka_unit_test(images_in_f32), cmocka_unit_test(images_in_bf16)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
