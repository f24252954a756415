/* Merged adapters: the products alone and how far rollouts move.   ctest-backends: fake cuda */
#include "tiny_pipeline.h"

#include "rl/merge.h"

static const char *const prompts[] = {"a red sign that says \"K7\"", "three blue circles",
                                      "green above purple"};
enum { PROMPTS = 3, N = 3, STEPS = 4, SIDE = 16, LATENT = 3 * SIDE * SIDE };

/* Latents of N samples with an adapter; free with mbl_free. */
static float *roll(tiny_t *t, const mbl_adapter_t *adapter) {
    static const uint32_t index[N] = {0, 1, 2};
    static const int64_t sample[N] = {4, 5, 6};
    mbl_sampler_plan_t plan;
    mbl_sampler_t *sampler;
    mbl_tensor_t x0;
    float *out = mbl_calloc(N * LATENT, sizeof *out);
    assert_non_null(out);
    assert_ok(mbl_sampler_plan(MBL_SOLVER_DPM2, STEPS, &(mbl_sigma_schedule_t){MBL_SCHEDULE_LINEAR, 3, false},
                               &plan));
    assert_ok(mbl_sampler_new(t->pipeline, t->lora, N, &sampler));
    assert_ok(mbl_tensor_new(t->ops, MBL_F32, &x0, 4, (size_t)N, (size_t)3, (size_t)SIDE, (size_t)SIDE));
    const mbl_sample_request_t request = {.adapter = adapter,
                                          .conditions = &t->conditions,
                                          .index = index,
                                          .sample = sample,
                                          .n = N,
                                          .seed = 3,
                                          .purpose = MBL_RNG_NOISE};
    assert_ok(mbl_sampler_run(sampler, &plan, &request, &x0));
    assert_ok(mbl_tensor_download(t->ops, &x0, out));
    mbl_tensor_free(t->ops, &x0);
    mbl_sampler_free(sampler);
    return out;
}

/* How far a merged rollout lies from the same apart, and what was measured before it. */
static double distance(mbl_dtype_t dtype, double scale, double *measured) {
    tiny_t t;
    mbl_merge_t *merge;
    tiny_open(&t, dtype, 1, 4, SIDE, 4, 2, prompts, PROMPTS);
    tiny_set_adapter(&t, &t.old, 2, scale);
    assert_ok(
        mbl_merge_new(t.pipeline, &t.old, &(mbl_sigma_schedule_t){MBL_SCHEDULE_LINEAR, 3, false}, &merge));
    assert_ok(mbl_merge_try(merge, &t.conditions, 3, 1, measured));
    float *apart = roll(&t, &t.old), *merged = roll(&t, mbl_merge_adapter(merge));
    double error = relative_error_f32(merged, apart, N * LATENT);
    mbl_free(apart);
    mbl_free(merged);
    mbl_merge_free(merge);
    tiny_close(&t);
    return error;
}

static void merged_rollouts_agree(void **state) {
    (void)state;
    double measured, error = distance(MBL_F32, 0.2, &measured);
    print_message("f32: velocities within %.2g, latents within %.2g\n", measured, error);
    assert_true(measured > 0 && measured < 1e-3); /* another order of the same sums */
    assert_true(error < 1e-3);
    error = distance(MBL_BF16, 0, &measured);
    assert_near(measured, 0, 0); /* B A = 0: the weights are the base's */
    assert_near(error, 0, 0);
}

/* In bf16 the sum W + s B A is rounded where the product apart is not: the measure shows it. */
static void bf16_is_measured(void **state) {
    (void)state;
    double measured, error = distance(MBL_BF16, 0.2, &measured);
    print_message("bf16: velocities within %.2g, latents within %.2g\n", measured, error);
    assert_true(measured > 1e-3 && measured < 0.05);
}

/* Only to_k of q, k, v: the others keep the base's weights. */
static void one_of_three(void **state) {
    (void)state;
    const mmdit_case_t *c = &mmdit_cases[0];
    mbl_ops_t *ops;
    mbl_lora_t *lora;
    mbl_adapter_t adapter, merged;
    mbl_tape_t *none, *keep;
    mmdit_io_t io;
    assert_ok(mbl_ops_open(test_backend(), 1, &ops));
    mbl_dit_t *model = case_model(ops, MBL_F64, c);
    mbl_lora_config_t config = {.rank = 3, .alpha = 5, .n_targets = 3};
    snprintf(config.targets[0], sizeof config.targets[0], "attn.to_k");
    snprintf(config.targets[1], sizeof config.targets[1], "attn2.to_v");
    snprintf(config.targets[2], sizeof config.targets[2], "ff.net.0.proj");
    assert_ok(mbl_lora_new(model, &config, &lora));
    case_adapter(model, ops, MBL_F64, lora, &adapter);
    case_io(ops, MBL_F64, c, 2, &io);
    assert_ok(mbl_adapter_merged_new(model, &adapter, &merged));
    assert_ok(mbl_adapter_merge(model, &merged));
    assert_ok(mbl_adapter_merge(model, &merged)); /* again: from the base, not from itself */
    assert_ok(mbl_tape_new(model, lora, MBL_TAPE_NONE, 2, c->height, c->width, c->tokens, &none));
    assert_ok(mbl_tape_new(model, lora, MBL_TAPE_LORA, 2, c->height, c->width, c->tokens, &keep));
    size_t n = mbl_tensor_count(&io.v);
    double *v[4];
    const struct {
        const mbl_adapter_t *adapter;
        mbl_tape_t *tape;
    } pass[4] = {{&adapter, none}, {&merged, none}, {&merged, keep}, {NULL, none}};
    for (int i = 0; i < 4; i++) {
        assert_ok(mbl_dit_forward(model, pass[i].adapter, io_input(&io), pass[i].tape, &io.v));
        v[i] = host_of(ops, &io.v);
    }
    assert_true(relative_error_f64(v[1], v[0], n) < 1e-12);
    assert_true(relative_error_f64(v[2], v[0], n) < 1e-12); /* a pass with gradient keeps the adapter apart */
    assert_true(relative_error_f64(v[3], v[0], n) > 1e-2);  /* and the adapter does something */
    mbl_tape_free(none);
    mbl_tape_free(keep);
    io_free(&io);
    for (int i = 0; i < 4; i++)
        mbl_free(v[i]);
    mbl_adapter_free(model, &merged);
    mbl_adapter_free(model, &adapter);
    mbl_lora_free(lora);
    mbl_dit_close(model);
    mbl_ops_close(ops);
}

int main(void) {
    need_backend();
    const struct CMUnitTest tests[] = {cmocka_unit_test(merged_rollouts_agree),
                                       cmocka_unit_test(bf16_is_measured), cmocka_unit_test(one_of_three)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
