/* src/model/sampler: images that depend neither on their batch nor on the number of images at once. */
#include "mmdit_new.h"
#include "ops_case.h"
#include "base/mem.h"
#include "base/rng.h"
#include "model/sampler.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static int set_up(void **state) {
    (void)state;
    return open_ops_and_folder("check", 2);
}

typedef struct {
    mbl_pipeline_t *pipeline;
    mbl_conditions_t conditions;
    mbl_lora_t *lora;
    mbl_adapter_t adapter;
} fixture_t;

static const char *const words[] = {"red", "blue", "sign", "circle", "a", "three"};
static const char *const prompts[] = {"a red sign", "three blue circle", "a blue circle"};
enum { SIDE = 8, IMAGE = 3 * SIDE * SIDE };

static void open_fixture(fixture_t *w, mbl_dtype_t type) {
    const mbl_mmdit_config_t config = {.sample_size = SIDE,
                                       .patch_size = 2,
                                       .in_channels = 3,
                                       .out_channels = 3,
                                       .num_layers = 2,
                                       .attention_head_dim = 16,
                                       .num_attention_heads = 2,
                                       .joint_attention_dim = 40,
                                       .caption_projection_dim = 32,
                                       .pooled_projection_dim = 24,
                                       .pos_embed_max_size = 8,
                                       .qk_norm = true};
    memset(w, 0, sizeof *w);
    assert_int_equal(mbl_pipeline_create(folder, words, 6, 8, 32, 1, 24, 7), MBL_OK);
    assert_int_equal(new_pipeline(ops, type, folder, &config, 11, &w->pipeline), MBL_OK);
    /* a fresh transformer answers zero: shake its weights */
    mbl_dit_t *model = mbl_pipeline_model(w->pipeline);
    size_t n = mbl_tensor_count(mbl_dit_weights(model));
    mbl_tensor_t master;
    assert_int_equal(mbl_tensor_new(ops, mbl_dtype_stat(type), &master, 1, n), MBL_OK);
    assert_int_equal(mbl_dit_get_weights(model, &master), MBL_OK);
    mbl_rng_t rng = mbl_rng(5, MBL_RNG_STUDY, 0, 0);
    for (size_t i = 0; i < n; i++) {
        float pair[2];
        mbl_rng_normal2(&rng, pair);
        if (type == MBL_F64)
            ((double *)master.data)[i] += 0.1 * (double)pair[0];
        else
            ((float *)master.data)[i] += 0.1f * pair[0];
    }
    assert_int_equal(mbl_dit_set_weights(model, &master), MBL_OK);
    mbl_tensor_free(ops, &master);
    assert_int_equal(mbl_pipeline_encode(w->pipeline, prompts, 3, &w->conditions), MBL_OK);
    const mbl_lora_config_t lora = {.rank = 2, .alpha = 4};
    assert_int_equal(mbl_lora_new(model, &lora, &w->lora), MBL_OK);
    assert_int_equal(mbl_adapter_new(model, w->lora, &w->adapter), MBL_OK);
}

static void close_fixture(fixture_t *w) {
    mbl_adapter_free(mbl_pipeline_model(w->pipeline), &w->adapter);
    mbl_lora_free(w->lora);
    mbl_conditions_free(ops, &w->conditions);
    mbl_pipeline_close(w->pipeline);
}

static void sample(fixture_t *w, mbl_sampler_t *sampler, mbl_solver_t solver, const uint32_t *index,
                   const int64_t *ids, size_t n, float *out) {
    mbl_sampler_plan_t plan;
    mbl_tensor_t x0;
    assert_int_equal(
        mbl_sampler_plan(solver, 5, &(mbl_sigma_schedule_t){MBL_SCHEDULE_LINEAR, 3, false}, &plan), MBL_OK);
    assert_int_equal(mbl_tensor_new(ops, MBL_F32, &x0, 4, n, (size_t)3, (size_t)SIDE, (size_t)SIDE), MBL_OK);
    const mbl_sample_request_t request = {.adapter = &w->adapter,
                                          .conditions = &w->conditions,
                                          .index = index,
                                          .sample = ids,
                                          .n = n,
                                          .seed = 42,
                                          .purpose = MBL_RNG_NOISE,
                                          .step = 3};
    assert_int_equal(mbl_sampler_run(sampler, &plan, &request, &x0), MBL_OK);
    assert_int_equal(mbl_tensor_download(ops, &x0, out), MBL_OK);
    mbl_tensor_free(ops, &x0);
}

static void images_do_not_depend_on_their_batch(void **state) {
    (void)state;
    static float together[5 * IMAGE], alone[IMAGE];
    const uint32_t index[5] = {0, 1, 2, 1, 0};
    const int64_t ids[5] = {7, 8, (int64_t)1 << 40, 9, 10};
    const mbl_dtype_t types[2] = {MBL_F32, MBL_BF16};
    for (int type = 0; type < 2; type++) {
        for (int solver = 0; solver < 3; solver += 2) {
            fixture_t w;
            mbl_sampler_t *large, *small;
            open_fixture(&w, types[type]);
            assert_int_equal(mbl_sampler_new(w.pipeline, w.lora, 6, &large), MBL_OK);
            assert_int_equal(mbl_sampler_new(w.pipeline, w.lora, 1, &small), MBL_OK);
            sample(&w, large, (mbl_solver_t)solver, index, ids, 5, together);
            for (int i = 0; i < 5; i++) {
                sample(&w, i % 2 ? small : large, (mbl_solver_t)solver, index + i, ids + i, 1, alone);
                double error = relative_error_f32(together + i * IMAGE, alone, IMAGE);
                assert_near(error, 0, types[type] == MBL_F32 ? 0 : 1e-6);
            }
            assert_true(relative_error_f32(together, together + 4 * IMAGE, IMAGE) > 0.1); /* other noise */
            const int64_t same[2] = {7, 7};
            sample(&w, large, (mbl_solver_t)solver, index, same, 2, together);
            assert_true(relative_error_f32(together, together + IMAGE, IMAGE) > 1e-3); /* other prompt */
            mbl_sampler_free(large);
            mbl_sampler_free(small);
            close_fixture(&w);
        }
    }
}

/* The sampler is the plan applied to the model: one step by hand. */
static void one_step_by_hand(void **state) {
    (void)state;
    fixture_t w;
    mbl_sampler_t *sampler;
    static float got[IMAGE], noise[IMAGE], v_host[IMAGE];
    const uint32_t index[1] = {1};
    const int64_t ids[1] = {77};
    mbl_sampler_plan_t plan;
    mbl_tensor_t x0, x, t, v;
    mbl_tape_t *tape;
    const float one = 1;
    open_fixture(&w, MBL_F32);
    mbl_dit_t *model = mbl_pipeline_model(w.pipeline);
    assert_int_equal(mbl_sampler_new(w.pipeline, w.lora, 1, &sampler), MBL_OK);
    assert_int_equal(
        mbl_sampler_plan(MBL_SOLVER_EULER, 1, &(mbl_sigma_schedule_t){MBL_SCHEDULE_LINEAR, 3, false}, &plan),
        MBL_OK);
    assert_int_equal(mbl_tensor_new(ops, MBL_F32, &x0, 4, (size_t)1, (size_t)3, (size_t)SIDE, (size_t)SIDE),
                     MBL_OK);
    assert_int_equal(mbl_tensor_new(ops, MBL_F32, &x, 4, (size_t)1, (size_t)3, (size_t)SIDE, (size_t)SIDE),
                     MBL_OK);
    assert_int_equal(mbl_tensor_new(ops, MBL_F32, &v, 4, (size_t)1, (size_t)3, (size_t)SIDE, (size_t)SIDE),
                     MBL_OK);
    assert_int_equal(mbl_tensor_new(ops, MBL_F32, &t, 1, (size_t)1), MBL_OK);
    mbl_sample_request_t request = {.conditions = &w.conditions,
                                    .index = index,
                                    .sample = ids,
                                    .n = 1,
                                    .seed = 1,
                                    .purpose = MBL_RNG_EVAL,
                                    .step = 2};
    assert_int_equal(mbl_sampler_run(sampler, &plan, &request, &x0), MBL_OK);
    assert_int_equal(mbl_tensor_download(ops, &x0, got), MBL_OK);
    mbl_rng_t rng = mbl_rng(1, MBL_RNG_EVAL, 2, 77);
    mbl_rng_normal(&rng, noise, IMAGE);
    assert_int_equal(mbl_tensor_upload(ops, &x, noise), MBL_OK);
    assert_int_equal(mbl_tensor_upload(ops, &t, &one), MBL_OK);
    mbl_conditions_t conditions = mbl_conditions_rows(&w.conditions, 1, 1);
    const mbl_dit_input_t input = {.x = &x, .t = &t, .conditions = &conditions};
    assert_int_equal(mbl_tape_new(model, NULL, MBL_TAPE_NONE, 1, SIDE, SIDE, 8, &tape), MBL_OK);
    assert_int_equal(mbl_dit_forward(model, NULL, &input, tape, &v), MBL_OK);
    assert_int_equal(mbl_tensor_download(ops, &v, v_host), MBL_OK);
    for (int i = 0; i < IMAGE; i++)
        v_host[i] = noise[i] - v_host[i];
    assert_near(relative_error_f32(got, v_host, IMAGE), 0, 1e-6);
    volatile sig_atomic_t stop = 1;
    request.stop = &stop;
    assert_int_equal(mbl_sampler_run(sampler, &plan, &request, &x0), MBL_ERR_STOPPED);
    request.stop = NULL;
    request.n = 2;
    assert_int_equal(mbl_sampler_run(sampler, &plan, &request, &x0), MBL_ERR_ARG);
    mbl_tape_free(tape);
    mbl_tensor_free(ops, &x0);
    mbl_tensor_free(ops, &x);
    mbl_tensor_free(ops, &v);
    mbl_tensor_free(ops, &t);
    mbl_sampler_free(sampler);
    close_fixture(&w);
}

static void survives_failing_memory(void **state) {
    (void)state;
    fixture_t w;
    open_fixture(&w, MBL_F32);
    mbl_conditions_t none = mbl_conditions_rows(&w.conditions, 1, 1);
    const mbl_guidance_t guidance = {2, &none, 2, 2.8, 0.01, 0.2};
    size_t live = mbl_mem_live(), n = 1;
    for (mbl_status_t status = MBL_ERR_MEM; status != MBL_OK; n++) {
        mbl_sampler_t *sampler = NULL;
        mbl_mem_fail_at(n);
        status = mbl_sampler_new(w.pipeline, w.lora, 2, &sampler);
        if (status == MBL_OK)
            status = mbl_sampler_guide(sampler, &guidance);
        mbl_mem_fail_at(0);
        mbl_sampler_free(sampler);
        assert_true(status == MBL_OK || status == MBL_ERR_MEM);
        assert_int_equal(mbl_mem_live(), live);
    }
    assert_in_range(n, 10, 1000);
    close_fixture(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(images_do_not_depend_on_their_batch),
        cmocka_unit_test(one_step_by_hand),
        cmocka_unit_test(survives_failing_memory),
    };
    return cmocka_run_group_tests(tests, set_up, close_ops_and_folder);
}
