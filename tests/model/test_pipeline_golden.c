/* src/model/pipeline: a whole folder of Stable Diffusion 3's kind against diffusers' StableDiffusion3Pipeline
 * (tests/golden/make_pipeline.py): prompt, ids, embeddings, 28 steps from the same noise, pixels; with
 * guidance and without, square and not.   ctest-backends: fake cuda
 */
#include "mmdit_case.h"
#include "ops_case.h"
#include "base/json.h"
#include "base/mem.h"
#include "model/safetensors.h"
#include "model/sampler.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROMPTS = 2, LATENTS = 16 * 8 * 8, BYTES = 64 * 64 * 3 };
#define GOLDEN MBL_SOURCE_DIR "/tests/golden/"

static mbl_st_t *expected;

static int set_up(void **state) {
    (void)state;
    char command[1024];
    int failed = open_ops_and_folder(test_backend(), 1);
    snprintf(command, sizeof command, "cp -r '%sprompt/'* '%s' && cp -r '%spipeline/'* '%s'", GOLDEN, folder,
             GOLDEN, folder);
    return failed || system(command) != 0 ||
           mbl_st_open(in_folder("expected.safetensors"), &expected) != MBL_OK;
}

static int tear_down(void **state) {
    mbl_st_close(expected);
    return close_ops_and_folder(state);
}

static json_t *metadata(const char *key) {
    return json_loads(mbl_st_metadata(expected, key), JSON_DECODE_ANY, NULL);
}

/* The tensor CASE.WHAT as f32. */
static size_t read_case(const char *name, const char *what, float *out) {
    char path[64];
    snprintf(path, sizeof path, "%s.%s", name, what);
    const mbl_st_entry_t *entry = mbl_st_find(expected, path);
    assert_non_null(entry);
    assert_in_range(entry->bytes / sizeof *out, 1, PROMPTS * LATENTS);
    assert_ok(mbl_st_read_f32(expected, path, out, entry->bytes / sizeof *out));
    return entry->bytes / sizeof *out;
}

typedef struct {
    mbl_pipeline_t *pipeline;
    mbl_conditions_t prompts, negative;
    mbl_sampler_t *sampler;
    mbl_sampler_plan_t plan;
    mbl_tensor_t x;
} drawn_t;

static void prepare(const json_t *about, mbl_dtype_t dtype, drawn_t *d) {
    const char *prompts[PROMPTS], *negative = json_string_value(json_object_get(about, "negative"));
    const size_t height = (size_t)json_integer_value(json_object_get(about, "height")),
                 width = (size_t)json_integer_value(json_object_get(about, "width"));
    const mbl_text_options_t text = {.max_tokens = (size_t)atoi(mbl_st_metadata(expected, "max_tokens"))};
    json_t *list = metadata("prompts");
    for (size_t i = 0; i < PROMPTS; i++)
        prompts[i] = json_string_value(json_array_get(list, i));
    negative = negative ? negative : "";
    assert_ok(mbl_pipeline_open(ops, dtype, folder, &text, &d->pipeline));
    assert_ok(mbl_pipeline_resize(d->pipeline, height, width));
    assert_ok(mbl_pipeline_encode(d->pipeline, prompts, PROMPTS, &d->prompts));
    assert_ok(mbl_pipeline_encode(d->pipeline, &negative, 1, &d->negative));
    const mbl_sigma_schedule_t schedule = {MBL_SCHEDULE_DIFFUSERS, mbl_pipeline_shift(d->pipeline), false};
    const mbl_guidance_t guidance = {.scale = json_number_value(json_object_get(about, "guidance")),
                                     .negative = &d->negative};
    assert_ok(mbl_sampler_plan(MBL_SOLVER_EULER, (size_t)atoi(mbl_st_metadata(expected, "steps")), &schedule,
                               &d->plan));
    assert_ok(mbl_sampler_new(d->pipeline, NULL, PROMPTS, &d->sampler));
    if (guidance.scale > 1)
        assert_ok(mbl_sampler_guide(d->sampler, &guidance));
    size_t channels, high, wide;
    mbl_pipeline_latent(d->pipeline, &channels, &high, &wide);
    assert_ok(mbl_tensor_new(ops, MBL_F32, &d->x, 4, (size_t)PROMPTS, channels, high, wide));
    json_decref(list);
}

static void finish(drawn_t *d) {
    mbl_tensor_free(ops, &d->x);
    mbl_sampler_free(d->sampler);
    mbl_conditions_free(ops, &d->prompts);
    mbl_conditions_free(ops, &d->negative);
    mbl_pipeline_close(d->pipeline);
}

/* One case in one type: latents by their relative error, pixels by the mean of absolute differences in 1/255.
 */
static void same_images(const json_t *about, mbl_dtype_t dtype, double latents_apart, double pixels_apart) {
    static float latents[PROMPTS * LATENTS], found[PROMPTS * LATENTS];
    static uint8_t rgb[PROMPTS * BYTES];
    const char *name = json_string_value(json_object_get(about, "name"));
    const uint32_t index[PROMPTS] = {0, 1};
    const int64_t sample[PROMPTS] = {0, 1};
    char path[64];
    bool broken[PROMPTS];
    drawn_t d = {0};
    prepare(about, dtype, &d);
    assert_int_equal(read_case(name, "noise", latents), mbl_tensor_count(&d.x));
    assert_ok(mbl_tensor_upload(ops, &d.x, latents));
    const mbl_sample_request_t request = {
        .conditions = &d.prompts, .index = index, .sample = sample, .n = PROMPTS, .noise = true};
    assert_ok(mbl_sampler_run(d.sampler, &d.plan, &request, &d.x));
    assert_ok(mbl_tensor_download(ops, &d.x, found));
    assert_ok(mbl_pipeline_decode(d.pipeline, &d.x, rgb, broken));
    assert_false(broken[0] || broken[1]);
    size_t n = read_case(name, "latents", latents);
    double far = relative_error_f32(found, latents, n), mean = 0;
    snprintf(path, sizeof path, "%s.bytes", name);
    const mbl_st_entry_t *bytes = mbl_st_find(expected, path);
    assert_in_range(bytes->bytes, 1, sizeof rgb);
    for (size_t i = 0; i < bytes->bytes; i++)
        mean += abs((int)rgb[i] - (int)((const uint8_t *)bytes->data)[i]) / (double)bytes->bytes;
    print_message("%s %s: latents %.2g, pixels %.2g/255\n", name, mbl_dtype_name(dtype), far, mean);
    assert_near(far, 0, latents_apart);
    assert_near(mean, 0, pixels_apart);
    finish(&d);
}

static void all_cases(mbl_dtype_t dtype, double latents_apart, double pixels_apart) {
    json_t *cases = metadata("cases");
    assert_int_equal(json_array_size(cases), 4);
    for (size_t i = 0; i < json_array_size(cases); i++)
        same_images(json_array_get(cases, i), dtype, latents_apart, pixels_apart);
    json_decref(cases);
}

static void images_in_f32(void **state) {
    (void)state;
    all_cases(MBL_F32, 1e-4, 0.05);
}

static void images_in_bf16(void **state) {
    (void)state;
    all_cases(MBL_BF16, 0.1, 3);
}

int main(void) {
    need_backend();
    const struct CMUnitTest tests[] = {cmocka_unit_test(images_in_f32), cmocka_unit_test(images_in_bf16)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
