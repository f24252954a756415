/* src/model/sampler: guidance against passes of the model one by one; blocks that are left out.
 * ctest-backends: cuda */
#include "tiny_pipeline.h"
#include "model/sampler.h"

#include <string.h>

enum { SIDE = 8, PATCH = 4, IMAGE = 3 * SIDE * SIDE, N = 2, ROOM = 4, STEPS = 5, BLOCK = 1 };
static const char *const prompts[] = {"a red sign", "three blue circles", "a blue circle", "red"};
enum { PROMPTS = 4, NEGATIVE = 3 };
static const uint32_t own[N] = {2, 0};
static const int64_t ids[N] = {11, 12};

static int open_tiny(void **state) {
    static tiny_t t;
    tiny_open(&t, MBL_F32, 1, 4, SIDE, PATCH, 2, prompts, PROMPTS);
    *state = &t;
    return 0;
}

static int close_tiny(void **state) {
    tiny_close(*state);
    return 0;
}

static void plan_of(mbl_solver_t solver, mbl_sampler_plan_t *plan) {
    assert_ok(mbl_sampler_plan(solver, STEPS, &(mbl_sigma_schedule_t){.shift = 3}, plan));
}

static mbl_tensor_t one_image(tiny_t *t) {
    mbl_tensor_t x;
    assert_ok(mbl_tensor_new(t->ops, MBL_F32, &x, 4, (size_t)1, (size_t)3, (size_t)SIDE, (size_t)SIDE));
    return x;
}

static void velocity(tiny_t *t, mbl_tape_t *tape, const float *x_host, double sigma, size_t prompt,
                     uint64_t skip, float *out) {
    mbl_tensor_t x = one_image(t), v = one_image(t), time;
    const float number = (float)sigma;
    mbl_conditions_t conditions = mbl_conditions_rows(&t->conditions, prompt, 1);
    assert_ok(mbl_tensor_new(t->ops, MBL_F32, &time, 1, (size_t)1));
    assert_ok(mbl_tensor_upload(t->ops, &x, x_host));
    assert_ok(mbl_tensor_upload(t->ops, &time, &number));
    const mbl_dit_input_t input = {.x = &x, .t = &time, .conditions = &conditions, .skip = skip};
    assert_ok(mbl_dit_forward(t->model, &t->current, &input, tape, &v));
    assert_ok(mbl_tensor_download(t->ops, &v, out));
    mbl_tensor_free(t->ops, &x);
    mbl_tensor_free(t->ops, &v);
    mbl_tensor_free(t->ops, &time);
}

/* Euler with guidance, one velocity after the other, from the noise in x on. Skip-layer guidance is in the
 * steps with 0.1 < i / 5 < 0.6, both ends outside. */
static void draw_by_hand(tiny_t *t, const mbl_guidance_t *g, size_t prompt, float *x) {
    static float u[IMAGE], c[IMAGE], s[IMAGE];
    mbl_tape_t *tape;
    mbl_sampler_plan_t plan;
    plan_of(MBL_SOLVER_EULER, &plan);
    assert_ok(mbl_tape_new(t->model, t->lora, MBL_TAPE_NONE, 1, SIDE, SIDE, TINY_TOKENS, &tape));
    for (size_t i = 0; i < STEPS; i++) {
        bool skip = g->skip && (i == 1 || i == 2);
        velocity(t, tape, x, plan.sigma[i], NEGATIVE, 0, u);
        velocity(t, tape, x, plan.sigma[i], prompt, 0, c);
        if (skip)
            velocity(t, tape, x, plan.sigma[i], prompt, g->skip, s);
        for (size_t j = 0; j < IMAGE; j++) {
            double v = (double)u[j] + g->scale * ((double)c[j] - (double)u[j]);
            v += skip ? g->skip_scale * ((double)c[j] - (double)s[j]) : 0;
            x[j] += (float)((plan.sigma[i + 1] - plan.sigma[i]) * v);
        }
    }
    mbl_tape_free(tape);
}

/* n images of a sampler; with `start` from noise that is given. */
static void draw(tiny_t *t, mbl_sampler_t *sampler, mbl_solver_t solver, size_t n, const float *start,
                 float *out) {
    mbl_sampler_plan_t plan;
    mbl_tensor_t x0;
    plan_of(solver, &plan);
    assert_ok(mbl_tensor_new(t->ops, MBL_F32, &x0, 4, n, (size_t)3, (size_t)SIDE, (size_t)SIDE));
    if (start)
        assert_ok(mbl_tensor_upload(t->ops, &x0, start));
    const mbl_sample_request_t request = {.adapter = &t->current,
                                          .conditions = &t->conditions,
                                          .index = own,
                                          .sample = ids,
                                          .n = n,
                                          .seed = 42,
                                          .purpose = MBL_RNG_NOISE,
                                          .noise = start != NULL};
    assert_ok(mbl_sampler_run(sampler, &plan, &request, &x0));
    assert_ok(mbl_tensor_download(t->ops, &x0, out));
    mbl_tensor_free(t->ops, &x0);
}

/* Two images by a sampler with room for four. */
static void guidance_is_two_passes_in_one(void **state) {
    tiny_t *t = *state;
    static float got[N * IMAGE], noise[IMAGE], before[N * IMAGE];
    mbl_conditions_t none = mbl_conditions_rows(&t->conditions, NEGATIVE, 1);
    for (int with_skip = 0; with_skip < 2; with_skip++) {
        const mbl_guidance_t guidance = {4.5, &none, with_skip ? 1 << BLOCK : 0, 2.8, 0.1, 0.6};
        mbl_sampler_t *sampler;
        assert_ok(mbl_sampler_new(t->pipeline, t->lora, ROOM, &sampler));
        assert_ok(mbl_sampler_guide(sampler, &guidance));
        draw(t, sampler, MBL_SOLVER_EULER, N, NULL, got);
        for (size_t i = 0; i < N; i++) {
            mbl_rng_t rng = mbl_rng(42, MBL_RNG_NOISE, 0, (uint64_t)ids[i]);
            mbl_rng_normal(&rng, noise, IMAGE);
            draw_by_hand(t, &guidance, own[i], noise);
            assert_near(relative_error_f32(got + i * IMAGE, noise, IMAGE), 0, 1e-5);
        }
        if (with_skip) /* and leaving a block out makes a difference */
            assert_true(relative_error_f32(got, before, N * IMAGE) > 1e-3);
        memcpy(before, got, sizeof got);
        mbl_sampler_free(sampler);
    }
}

/* What is asked of a guided sampler that it cannot do, and no guidance, which changes nothing. */
static void guidance_that_is_none_or_wrong(void **state) {
    tiny_t *t = *state;
    mbl_sampler_t *sampler, *plain;
    static float guided[IMAGE], without[IMAGE];
    mbl_conditions_t none = mbl_conditions_rows(&t->conditions, NEGATIVE, 1);
    assert_ok(mbl_sampler_new(t->pipeline, t->lora, 1, &sampler));
    assert_ok(mbl_sampler_new(t->pipeline, t->lora, 1, &plain));
    assert_ok(mbl_sampler_guide(sampler, &(mbl_guidance_t){.scale = 1, .negative = &none}));
    draw(t, sampler, MBL_SOLVER_DPM2, 1, NULL, guided);
    draw(t, plain, MBL_SOLVER_DPM2, 1, NULL, without);
    assert_memory_equal(guided, without, sizeof guided);
    assert_failed(mbl_sampler_guide(sampler, &(mbl_guidance_t){.scale = 2, .negative = &none, .skip = 4}),
                  MBL_ERR_CONFIG, "block 2; expected blocks from 0 to 1");
    assert_failed(mbl_sampler_guide(sampler, &(mbl_guidance_t){.scale = 2, .negative = &t->conditions}),
                  MBL_ERR_ARG, "one negative prompt");
    mbl_sampler_free(sampler);
    mbl_sampler_free(plain);
}

/* Sampling that starts from given noise is that of the stream which made it. */
static void noise_can_be_given(void **state) {
    tiny_t *t = *state;
    mbl_sampler_t *sampler;
    static float from_stream[IMAGE], noise[IMAGE], got[IMAGE];
    assert_ok(mbl_sampler_new(t->pipeline, t->lora, 2, &sampler));
    draw(t, sampler, MBL_SOLVER_DPM2, 1, NULL, from_stream);
    mbl_rng_t rng = mbl_rng(42, MBL_RNG_NOISE, 0, (uint64_t)ids[0]);
    mbl_rng_normal(&rng, noise, IMAGE);
    draw(t, sampler, MBL_SOLVER_DPM2, 1, noise, got);
    assert_near(relative_error_f32(got, from_stream, IMAGE), 0, 1e-6);
    mbl_sampler_free(sampler);
}

/* Leaving blocks out belongs to passes without gradient. */
static void no_gradient_without_a_block(void **state) {
    tiny_t *t = *state;
    mbl_tape_t *tape;
    mbl_tensor_t x = one_image(t), v = one_image(t), time;
    mbl_conditions_t conditions = mbl_conditions_rows(&t->conditions, 0, 1);
    const float zeros[IMAGE] = {0};
    assert_ok(mbl_tensor_new(t->ops, MBL_F32, &time, 1, (size_t)1));
    assert_ok(mbl_tensor_upload(t->ops, &time, zeros));
    assert_ok(mbl_tensor_upload(t->ops, &x, zeros));
    assert_ok(mbl_tape_new(t->model, t->lora, MBL_TAPE_LORA, 1, SIDE, SIDE, TINY_TOKENS, &tape));
    const mbl_dit_input_t input = {.x = &x, .t = &time, .conditions = &conditions, .skip = 1};
    assert_failed(mbl_dit_forward(t->model, &t->current, &input, tape, &v), MBL_ERR_ARG,
                  "tape with gradient");
    mbl_tape_free(tape);
    mbl_tensor_free(t->ops, &x);
    mbl_tensor_free(t->ops, &v);
    mbl_tensor_free(t->ops, &time);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guidance_is_two_passes_in_one),
        cmocka_unit_test(guidance_that_is_none_or_wrong),
        cmocka_unit_test(noise_can_be_given),
        cmocka_unit_test(no_gradient_without_a_block),
    };
    return cmocka_run_group_tests(tests, open_tiny, close_tiny);
}
