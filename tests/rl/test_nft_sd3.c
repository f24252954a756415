/* One step's losses and gradients against torch, diffusers and PEFT (golden/make_nft.py), on a transformer
 * that has what Stable Diffusion 3.5 Medium has, with the paper's LoRA sites; in f64 and in f32.
 *
 * ctest-backends: fake cuda */
#include "mmdit_case.h"

#include "model/pipeline.h"
#include "model/safetensors.h"
#include "model/sampler.h"
#include "rl/gradient.h"

enum { N = 4, K = 2, SIDE = 8, CHANNELS = 16, TOKENS = 5, STEPS = 4, ROWS = 3, SITES = 23 };

static const char config_text[] =
    "{\"_class_name\": \"SD3Transformer2DModel\", \"sample_size\": 8, \"patch_size\": 2, \"in_channels\": 16,"
    " \"out_channels\": 16, \"num_layers\": 3, \"attention_head_dim\": 64, \"num_attention_heads\": 1,"
    " \"joint_attention_dim\": 48, \"caption_projection_dim\": 64, \"pooled_projection_dim\": 32,"
    " \"pos_embed_max_size\": 6, \"dual_attention_layers\": [0, 1], \"qk_norm\": \"rms_norm\"}";

typedef struct {
    mbl_ops_t *ops;
    mbl_dtype_t dtype, stat;
    mbl_pipeline_t *pipeline;
    mbl_dit_t *model;
    mbl_lora_t *lora;
    mbl_adapter_t current, old;
    mbl_conditions_t conditions;
    mbl_batch_t batch;
    float a[K * N];
} step_t;

/* The hash's weights, and the model's own table of positions, which only a model that is not blank has. */
static void set_weights(step_t *s, const json_t *config) {
    mbl_dit_t *fresh;
    mbl_tensor_t master;
    assert_ok(mbl_dit_new(s->ops, s->dtype, config, 7, &fresh));
    assert_ok(mbl_tensor_new(s->ops, s->stat, &master, 1, mbl_dit_weights(fresh)->dim[0]));
    assert_ok(mbl_dit_get_weights(fresh, &master));
    void *host = host_of(s->ops, &master);
    for (size_t p = 0; p < mbl_dit_param_count(fresh); p++) {
        const mbl_param_t *param = mbl_dit_param(fresh, p);
        for (size_t i = 0; param->trained && i < param->count; i++)
            put_value(host, s->stat, param->offset + i, weight_value(param, i));
    }
    push_host(s->ops, &master, host);
    assert_ok(mbl_dit_set_weights(s->model, &master));
    mbl_tensor_free(s->ops, &master);
    mbl_dit_close(fresh);
}

static void new_adapter(step_t *s, const char *prefix, mbl_adapter_t *out) {
    mbl_tensor_t values;
    char name[192];
    assert_ok(mbl_tensor_new(s->ops, s->stat, &values, 1, mbl_lora_size(s->lora)));
    void *host = host_of(s->ops, &values);
    for (size_t p = 0; p < mbl_lora_param_count(s->lora); p++) {
        const mbl_param_t *param = mbl_lora_param(s->lora, p);
        snprintf(name, sizeof name, "%s%s", prefix, param->name);
        for (size_t i = 0; i < param->count; i++)
            put_value(host, s->stat, param->offset + i, 0.25 * hashed(hash_name(name), i));
    }
    push_host(s->ops, &values, host);
    assert_ok(mbl_adapter_new(s->model, s->lora, out));
    assert_ok(mbl_adapter_set(s->model, out, &values));
    mbl_tensor_free(s->ops, &values);
}

static void open_step(step_t *s, mbl_dtype_t dtype) {
    static const uint32_t prompt[N] = {0, 1, 2, 3};
    static const int64_t sample[N] = {100, 101, 102, 103};
    memset(s, 0, sizeof *s);
    s->dtype = dtype;
    s->stat = mbl_dtype_stat(dtype);
    json_t *config = json_loads(config_text, 0, NULL);
    assert_non_null(config);
    assert_ok(mbl_ops_open(test_backend(), 1, &s->ops));
    assert_ok(mbl_pipeline_blank(s->ops, dtype, config, TOKENS, &s->pipeline));
    s->model = mbl_pipeline_model(s->pipeline);
    set_weights(s, config);
    json_decref(config);
    const mbl_lora_config_t sites = {.rank = 4, .alpha = 8};
    assert_ok(mbl_lora_new(s->model, &sites, &s->lora));
    assert_int_equal(mbl_lora_param_count(s->lora), 2 * SITES);
    new_adapter(s, "", &s->current);
    new_adapter(s, "old.", &s->old);
    s->conditions.n = N;
    s->conditions.context = hashed_tensor(s->ops, dtype, "context", 1, 0, 3, (size_t[]){N, TOKENS, 48});
    s->conditions.pooled = hashed_tensor(s->ops, dtype, "pooled", 1, 0, 2, (size_t[]){N, 32});
    s->batch =
        (mbl_batch_t){.n = N, .n_global = N, .group_size = 2, .k = K, .prompt = prompt, .sample = sample};
    s->batch.x0 = hashed_tensor(s->ops, s->stat, "x0", 0.6, 0, 4, (size_t[]){N, CHANNELS, SIDE, SIDE});
    for (size_t i = 0; i < K * N; i++)
        s->a[i] = (float)(0.5 * hashed(hash_name("advantage"), i));
}

static void close_step(step_t *s) {
    mbl_tensor_free(s->ops, &s->batch.x0);
    mbl_conditions_free(s->ops, &s->conditions);
    mbl_adapter_free(s->model, &s->current);
    mbl_adapter_free(s->model, &s->old);
    mbl_lora_free(s->lora);
    mbl_pipeline_close(s->pipeline);
    mbl_ops_close(s->ops);
}

static mbl_gradient_stats_t run_step(const step_t *s, const mbl_tensor_t *sets) {
    mbl_gradient_t *gradient;
    mbl_gradient_stats_t stats;
    mbl_sampler_plan_t plan;
    const mbl_sigma_schedule_t schedule = {MBL_SCHEDULE_DIFFUSERS, 3, false};
    assert_ok(mbl_sampler_plan(MBL_SOLVER_DPM2, STEPS, &schedule, &plan));
    const mbl_gradient_args_t args = {.batch = &s->batch,
                                      .conditions = &s->conditions,
                                      .current = &s->current,
                                      .old = &s->old,
                                      .plan = &plan,
                                      .timesteps = 2,
                                      .slices = 1,
                                      .seed = 77,
                                      .step = 5,
                                      .beta = 0.5,
                                      .clip = 5,
                                      .kl = 0.25,
                                      .a = s->a,
                                      .parts = K};
    assert_ok(mbl_gradient_new(s->pipeline, s->lora, ROWS, K, 0, &gradient));
    assert_int_equal(mbl_gradient_sets(&args), K + 1);
    assert_ok(mbl_gradient_run(gradient, &args, sets, &stats));
    mbl_gradient_free(gradient);
    return stats;
}

static void check_number(const mbl_st_t *st, const char *name, double got, double tolerance) {
    double want;
    assert_ok(mbl_st_read_f64(st, name, &want, 1));
    assert_near(got, want, tolerance * fabs(want));
}

/* A reward's gradient: its own set and what all rewards share. Norm and four random projections of each
 * tensor, relative to the norm, or to a hundredth of the whole gradient's where that is more. */
static void check_gradients(const mbl_st_t *st, const step_t *s, const double *sets, double tolerance) {
    const size_t size = mbl_lora_size(s->lora);
    for (size_t k = 0; k < K; k++) {
        double whole = 0;
        for (size_t i = 0; i < size; i++)
            whole += pow(sets[k * size + i] + sets[K * size + i], 2);
        for (size_t p = 0; p < mbl_lora_param_count(s->lora); p++) {
            const mbl_param_t *param = mbl_lora_param(s->lora, p);
            double want[5], got[5] = {0};
            char name[192];
            snprintf(name, sizeof name, "%zu.%s", k, param->name);
            assert_ok(mbl_st_read_f64(st, name, want, 5));
            for (size_t i = 0; i < param->count; i++) {
                const size_t at = param->offset + i;
                const double g = sets[k * size + at] + sets[K * size + at];
                got[0] += g * g;
                for (int j = 0; j < 4; j++) {
                    char projection[32];
                    snprintf(projection, sizeof projection, "projection.%d", j);
                    const double h = hashed(hash_name(projection), i);
                    got[j + 1] += h > 0 ? g : h < 0 ? -g : 0;
                }
            }
            got[0] = sqrt(got[0]);
            const double norm = fmax(want[0], 0.01 * sqrt(whole));
            for (int j = 0; j < 5; j++) {
                if (!(fabs(got[j] - want[j]) <= tolerance * norm * (j ? 2 : 1)))
                    print_error("%s: projection %d of a gradient of norm %g\n", name, j, want[0]);
                assert_near(got[j], want[j], tolerance * norm * (j ? 2 : 1));
            }
        }
    }
}

static void step_is_torchs(void **state) {
    static const struct {
        mbl_dtype_t dtype;
        double loss, gradient;
    } precisions[] = {{MBL_F64, 1e-6, 1e-5}, {MBL_F32, 1e-6, 1e-4}}; /* the noise is made in f32 */
    mbl_st_t *st;
    (void)state;
    assert_ok(mbl_st_open(MBL_SOURCE_DIR "/tests/golden/nft.safetensors", &st));
    for (size_t i = 0; i < sizeof precisions / sizeof *precisions; i++) {
        step_t s;
        mbl_tensor_t sets;
        open_step(&s, precisions[i].dtype);
        assert_ok(mbl_tensor_new(s.ops, MBL_F64, &sets, 2, (size_t)K + 1, mbl_lora_size(s.lora)));
        const mbl_gradient_stats_t stats = run_step(&s, &sets);
        assert_int_equal(stats.rows, 2 * N);
        check_number(st, "loss", stats.loss, precisions[i].loss);
        check_number(st, "kl", stats.kl, 10 * precisions[i].loss);
        double *host = host_of(s.ops, &sets);
        check_gradients(st, &s, host, precisions[i].gradient);
        mbl_free(host);
        mbl_tensor_free(s.ops, &sets);
        close_step(&s);
    }
    mbl_st_close(st);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(step_is_torchs)};
    return cmocka_run_group_tests_name("nft_sd3", tests, NULL, NULL);
}
