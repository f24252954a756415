/* The random model, adapters and batch that the benchmarks of a training step share. */
#include "cli/bench/fixture.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { TEXT_TOKENS = 24, TEXT_WIDTH = 64, GROUP = 8, PROMPTS = 4, MASKS = 5, SEED = 7 };

json_t *mbl_bench_signs_shape(void) {
    return json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:[i, i], s:s}", "sample_size",
                     32, "patch_size", 4, "in_channels", 3, "out_channels", 3, "num_layers", 6,
                     "attention_head_dim", 32, "num_attention_heads", 4, "joint_attention_dim",
                     (int)TEXT_WIDTH, "caption_projection_dim", 128, "pooled_projection_dim", (int)TEXT_WIDTH,
                     "pos_embed_max_size", 8, "dual_attention_layers", 0, 1, "qk_norm", "rms_norm");
}

static const mbl_lora_config_t signs_lora = {.rank = 16, .alpha = 32};

static int remove_entry(const char *path, const struct stat *entry, int kind, struct FTW *walk) {
    (void)entry;
    (void)kind;
    (void)walk;
    return remove(path);
}

/* x += scale * the normal numbers of a stream, for a vector the host can reach through copies. */
static mbl_status_t shake(mbl_ops_t *ops, const mbl_tensor_t *x, size_t count, float scale, uint32_t key,
                          uint32_t stream) {
    size_t n = mbl_tensor_count(x);
    mbl_rng_t rng = mbl_rng(SEED, MBL_RNG_INIT, key, stream);
    float *values;
    MBL_ALLOC(values, 2 * n);
    mbl_status_t status;
    MBL_TRY_GOTO(mbl_tensor_download(ops, x, values), done);
    mbl_rng_normal(&rng, values + n, n);
    for (size_t i = 0; i < count; i++)
        values[i] += scale * values[n + i];
    status = mbl_tensor_upload(ops, x, values);
done:
    mbl_free(values);
    return status;
}

/* A fresh model has zeros where training starts from them (modulation, output): its gradients would vanish.
 */
static mbl_status_t shake_model(mbl_ops_t *ops, mbl_dit_t *model) {
    mbl_tensor_t master;
    size_t n = mbl_tensor_count(mbl_dit_weights(model));
    MBL_TRY(mbl_tensor_new(ops, MBL_F32, &master, 1, n));
    mbl_status_t status;
    MBL_TRY_GOTO(mbl_dit_get_weights(model, &master), done);
    MBL_TRY_GOTO(shake(ops, &master, n, 0.02f, 2, 0), done);
    status = mbl_dit_set_weights(model, &master);
done:
    mbl_tensor_free(ops, &master);
    return status;
}

static mbl_status_t open_pipeline(mbl_bench_fixture_t *w, mbl_dtype_t dtype) {
    static const char *const words[] = {"a", "red", "green", "sign", "three", "circles", "above"};
    const char *place = getenv("TMPDIR");
    char folder[256];
    snprintf(folder, sizeof folder, "%.200s/marble-bench-XXXXXX", place && *place ? place : "/tmp");
    if (!mkdtemp(folder))
        return MBL_FAIL(MBL_ERR_IO, "%s: no temporary folder could be made", folder);
    mbl_status_t status;
    json_t *shape = mbl_bench_signs_shape();
    if (!shape) {
        status = MBL_FAIL(MBL_ERR_MEM, "no memory for a model's configuration");
        goto done;
    }
    MBL_TRY_GOTO(mbl_pipeline_create(folder, words, sizeof words / sizeof *words, TEXT_TOKENS, TEXT_WIDTH, 2,
                                     TEXT_WIDTH, SEED),
                 done);
    status = mbl_pipeline_new(w->ops, dtype, folder, shape, SEED, &w->pipeline);
done:
    json_decref(shape);
    nftw(folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    MBL_TRY(status);
    return shake_model(w->ops, mbl_pipeline_model(w->pipeline));
}

static mbl_status_t open_policy(mbl_bench_fixture_t *w) {
    mbl_dit_t *model = mbl_pipeline_model(w->pipeline);
    MBL_TRY(mbl_lora_new(model, &signs_lora, &w->lora));
    MBL_TRY(mbl_update_new(w->comm, w->ops, model, w->lora, SEED, &w->update));
    mbl_policy_t *policy = &w->update.policy;
    MBL_TRY(shake(w->ops, &policy->current, policy->size, 0.02f, 3, 0));
    MBL_TRY(mbl_tensor_copy(w->ops, &policy->old, &policy->current));
    MBL_TRY(shake(w->ops, &policy->old, policy->size, 0.002f, 3, 1));
    return mbl_policy_loaded(policy, false);
}

/* Normal advantages clipped as training clips them; the last part is the sum of all. */
static void draw_advantages(mbl_bench_fixture_t *w, size_t n, size_t k) {
    mbl_rng_t rng = mbl_rng(SEED, MBL_RNG_INIT, 4, 0);
    mbl_rng_normal(&rng, w->a, (k + 1) * n);
    for (size_t i = 0; i < (k + 1) * n; i++) {
        float a = w->a[i] / 5;
        w->a[i] = (a > 1 ? 1 : a < -1 ? -1 : a) / 2;
    }
}

static mbl_status_t open_batch(mbl_bench_fixture_t *w, size_t n, size_t k) {
    static const char *const prompts[PROMPTS] = {"a red sign", "three green circles", "red above green", "a"};
    size_t c, height, width;
    MBL_TRY(mbl_pipeline_encode(w->pipeline, prompts, PROMPTS, &w->conditions));
    mbl_pipeline_latent(w->pipeline, &c, &height, &width);
    MBL_TRY(mbl_tensor_new(w->ops, MBL_F32, &w->batch.x0, 4, n, c, height, width));
    MBL_TRY(shake(w->ops, &w->batch.x0, n * c * height * width, 1, 3, 2));
    MBL_ALLOC(w->prompt, n);
    MBL_ALLOC(w->sample, n);
    MBL_ALLOC(w->a, (k + 1) * n);
    for (size_t i = 0; i < n; i++) {
        w->prompt[i] = (uint32_t)(i / GROUP % PROMPTS);
        w->sample[i] = (int64_t)i;
    }
    draw_advantages(w, n, k);
    w->batch.n = w->batch.n_global = n;
    w->batch.group_size = n % GROUP ? 1 : GROUP;
    w->batch.k = k;
    w->batch.prompt = w->prompt;
    w->batch.sample = w->sample;
    return MBL_OK;
}

mbl_status_t mbl_bench_fixture_open(const mbl_bench_t *bench, mbl_dtype_t dtype, size_t n, size_t k,
                                    mbl_bench_fixture_t *out) {
    *out = (mbl_bench_fixture_t){.ops = NULL};
    MBL_TRY(mbl_ops_open(bench->device, bench->threads, &out->ops));
    MBL_TRY(mbl_comm_open("self", 0, &out->comm));
    MBL_TRY(mbl_comm_attach(out->comm, out->ops));
    MBL_TRY(open_pipeline(out, dtype));
    MBL_TRY(open_policy(out));
    MBL_TRY(open_batch(out, n, k));
    const mbl_sigma_schedule_t schedule = {.shift = 3};
    MBL_TRY(mbl_sampler_plan(MBL_SOLVER_DPM2, MBL_BENCH_STEPS, &schedule, &out->plan));
    mbl_update_room_t room = {.parts = k + 1,
                              .masks = k < MASKS ? k : MASKS,
                              .kl_apart = true,
                              .micro_batch = n,
                              .rows = MBL_BENCH_STEPS * n,
                              .kl_rows = MBL_BENCH_STEPS * n};
    return mbl_update_prepare(&out->update, out->pipeline, &room);
}

void mbl_bench_fixture_close(mbl_bench_fixture_t *w) {
    if (!w->ops)
        return;
    mbl_update_free(&w->update);
    mbl_tensor_free(w->ops, &w->batch.x0);
    mbl_lora_free(w->lora);
    mbl_conditions_free(w->ops, &w->conditions);
    mbl_pipeline_close(w->pipeline);
    mbl_free(w->prompt);
    mbl_free(w->sample);
    mbl_free(w->a);
    mbl_comm_close(w->comm);
    mbl_ops_close(w->ops);
    *w = (mbl_bench_fixture_t){.ops = NULL};
}

mbl_gradient_args_t mbl_bench_fixture_args(mbl_bench_fixture_t *w, size_t k, size_t timesteps, double kl) {
    w->batch.k = k;
    return (mbl_gradient_args_t){.batch = &w->batch,
                                 .conditions = &w->conditions,
                                 .current = &w->update.policy.in_current,
                                 .old = &w->update.policy.in_old,
                                 .plan = &w->plan,
                                 .timesteps = timesteps,
                                 .slices = 1,
                                 .seed = SEED,
                                 .beta = 0.1,
                                 .clip = 5,
                                 .kl = kl,
                                 .a = w->a,
                                 .parts = k};
}
