/* marble bench pass: a velocity of a rollout and a training micro-batch at the size of a real model with
 * random weights, as a run does them, and with --profile the time of every operation; beside them the least
 * that the counts of `marble plan` allow on this device, where that is known. */
#include "cli/bench/fixture.h"

#include "base/mem.h"
#include "base/rng.h"
#include "ops/roofline.h"
#include "plan/setup.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { REWARDS = 5, RANK = 32, CHUNK = 1 << 24 };

typedef struct {
    const mbl_bench_t *bench;
    mbl_plan_shape_t shape;
    mbl_plan_setup_t setup;
    mbl_plan_t plan; /* counts of the same passes */
    bool open, counted;
    mbl_gpu_t limit; /* name NULL: not known */
} whole_t;

/* ---- random numbers in place of a model's ---- */

typedef struct {
    mbl_ops_t *ops;
    mbl_tensor_t wide, sample; /* f32 [CHUNK or fewer], i64 [1] */
    mbl_tensor_t scaled;
} noise_t;

static void close_noise(noise_t *noise) {
    mbl_tensor_free(noise->ops, &noise->wide);
    mbl_tensor_free(noise->ops, &noise->scaled);
    mbl_tensor_free(noise->ops, &noise->sample);
}

static mbl_status_t open_noise(mbl_ops_t *ops, noise_t *out) {
    *out = (noise_t){.ops = ops};
    MBL_TRY(mbl_tensor_new(ops, MBL_F32, &out->wide, 1, (size_t)CHUNK));
    MBL_TRY(mbl_tensor_new(ops, MBL_F32, &out->scaled, 1, (size_t)CHUNK));
    return mbl_tensor_new(ops, MBL_I64, &out->sample, 1, (size_t)1);
}

/* The numbers of a tensor, f32 or bf16, each normal times `scale`; `stream` tells tensors apart. */
static mbl_status_t fill(noise_t *noise, const mbl_tensor_t *t, double scale, int64_t stream) {
    const size_t count = mbl_tensor_count(t);
    const mbl_tensor_t flat = mbl_tensor_reshape(t, 1, count);
    MBL_TRY(mbl_tensor_upload(noise->ops, &noise->sample, &stream));
    for (size_t first = 0; first < count; first += CHUNK) {
        const size_t n = count - first < CHUNK ? count - first : CHUNK;
        const mbl_tensor_t part = mbl_tensor_rows(&flat, first, n),
                           wide = mbl_tensor_rows(&noise->wide, 0, n),
                           scaled = mbl_tensor_rows(&noise->scaled, 0, n),
                           row = mbl_tensor_reshape(&wide, 2, (size_t)1, n);
        MBL_TRY(MBL_OP(noise->ops, normal, .y = &row, .sample = &noise->sample, .seed = 1,
                       .purpose = MBL_RNG_INIT, .step = (uint32_t)(first / CHUNK)));
        MBL_TRY(MBL_OP(noise->ops, axpby, .y = &scaled, .x = &wide, .a = scale));
        MBL_TRY(MBL_OP(noise->ops, convert, .dst = &part, .src = &scaled));
    }
    return MBL_OK;
}

/* Weights of a size that keeps activations near 1; the adapters differ and none of their B is zero. */
static mbl_status_t fill_all(whole_t *w, noise_t *noise) {
    mbl_plan_setup_t *setup = &w->setup;
    mbl_policy_t *policy = &setup->update.policy;
    MBL_TRY(fill(noise, mbl_dit_weights(mbl_pipeline_model(setup->pipeline)), 0.02, 1));
    MBL_TRY(fill(noise, &policy->current, 0.02, 2));
    MBL_TRY(fill(noise, &policy->old, 0.02, 3));
    MBL_TRY(fill(noise, &setup->conditions.context, 1, 4));
    MBL_TRY(fill(noise, &setup->conditions.pooled, 1, 5));
    MBL_TRY(fill(noise, &setup->x0, 1, 6));
    for (size_t i = 0; i < REWARDS * setup->most; i++) /* as training clips them: -1/2 .. 1/2 */
        setup->a[i] = (float)(i * 7 % 11) / 10 - 0.5f;
    return mbl_policy_loaded(policy, false);
}

static mbl_status_t fill_setup(whole_t *w) {
    noise_t noise;
    mbl_status_t status = open_noise(w->setup.ops, &noise);
    if (status == MBL_OK)
        status = fill_all(w, &noise);
    close_noise(&noise);
    return status;
}

/* ---- the shape ---- */

/* "signs", a config.json, or a folder that holds one, also in transformer/. */
static mbl_status_t read_config(const char *model, size_t size, mbl_plan_shape_t *out) {
    static const char *const inside[] = {"%s/transformer/config.json", "%s/config.json", "%s"};
    if (strcmp(model, "signs") == 0) {
        json_t *signs = mbl_bench_signs_shape();
        if (!signs)
            return MBL_FAIL(MBL_ERR_MEM, "no memory for a model's configuration");
        out->model = signs;
        if (size)
            MBL_TRY(mbl_dit_config_resize(signs, size));
        return mbl_dit_config_sizes(model, signs, &out->sizes);
    }
    for (size_t i = 0; i < 3; i++) {
        char *path = i == 0   ? mbl_format(inside[0], model)
                     : i == 1 ? mbl_format(inside[1], model)
                              : mbl_format(inside[2], model);
        if (!path)
            return MBL_FAIL(MBL_ERR_MEM, "no memory for a path");
        const bool there = i == 2 || access(path, F_OK) == 0;
        mbl_status_t status = there ? mbl_plan_read_model(path, size, out) : MBL_OK;
        mbl_free(path);
        if (there)
            return status;
    }
    return MBL_OK;
}

static mbl_status_t make_shape(whole_t *w) {
    const mbl_bench_t *bench = w->bench;
    w->shape = (mbl_plan_shape_t){.dtype = mbl_ops_bf16_is_native(w->setup.ops) ? MBL_BF16 : MBL_F32,
                                  .lora = {.rank = RANK, .alpha = 2 * RANK},
                                  .tokens = bench->tokens,
                                  .prompts = 1,
                                  .rewards = REWARDS,
                                  .images = bench->batch,
                                  .ranks = 1,
                                  .rollout_batch = bench->batch,
                                  .train_batch = bench->batch,
                                  .rollout_steps = 1,
                                  .solver = MBL_SOLVER_EULER,
                                  .timesteps = 1,
                                  .inner_epochs = 1,
                                  .updates = 1,
                                  .kl = true};
    return read_config(bench->model ? bench->model : "signs", bench->size, &w->shape);
}

/* ---- limits ---- */

/* Of a GPU what its datasheet says; of a CPU the arithmetic that it was measured to reach, here and now: what
 * small operations read is in its caches, whose bandwidth is another one for every size. */
static mbl_status_t find_limit(whole_t *w) {
    mbl_ops_t *ops = w->setup.ops;
    char device[256] = "";
    double f32, bf16;
    if (ops->table->describe)
        ops->table->describe(ops, device, sizeof device);
    const mbl_gpu_t *gpu = mbl_gpu_of_device(device);
    if (gpu)
        w->limit = *gpu;
    if (gpu || ops->table->space != MBL_HOST)
        return MBL_OK;
    MBL_TRY(mbl_bench_peak(w->bench, ops, MBL_F32, &f32));
    MBL_TRY(mbl_bench_peak(w->bench, ops, MBL_BF16, &bf16));
    if (f32 > 0 && (bf16 > 0 || w->shape.dtype == MBL_F32))
        w->limit = (mbl_gpu_t){.name = "cpu",
                               .title = "this CPU's arithmetic",
                               .peak = {bf16 > 0 ? bf16 : f32, f32, f32 / 2},
                               .bandwidth = (double)INFINITY};
    return MBL_OK;
}

/* ---- cases ---- */

typedef struct {
    whole_t *w;
    const char *name;
    mbl_plan_phase_t phase;
    double asked;   /* seconds until all was asked for, of the last run */
    uint64_t waits; /* of that run until then */
} one_t;

static mbl_status_t run_one(void *context) {
    one_t *one = context;
    mbl_ops_t *ops = one->w->setup.ops;
    const double start = mbl_bench_now(one->w->bench);
    const uint64_t waits = ops->waits;
    MBL_TRY(mbl_plan_setup_run(&one->w->setup, one->phase));
    one->asked = mbl_bench_now(one->w->bench) - start;
    one->waits = ops->waits - waits;
    return ops->table->sync(ops);
}

/* Calls, launches, arithmetic, bytes and the least time of one operation in a phase (or of all, op < 0). */
typedef struct {
    double calls, launches, flops, bytes, seconds;
} sum_t;

static sum_t sum_of(const whole_t *w, mbl_plan_phase_t phase, int op) {
    const mbl_plan_count_t *count = &w->plan.phase[phase];
    sum_t sum = {0};
    for (size_t i = 0; i < count->n; i++) {
        const mbl_cost_item_t *item = &count->item[i];
        const double calls = (double)item->calls;
        if (op >= 0 && item->row != op)
            continue;
        sum.calls += calls;
        sum.launches += calls * (double)item->cost.launches;
        sum.bytes += calls * item->cost.bytes;
        for (int unit = 0; unit < MBL_UNITS; unit++)
            sum.flops += calls * item->cost.flops[unit];
        if (w->limit.name)
            sum.seconds += calls * mbl_roofline(&w->limit, &item->cost, 0);
    }
    return sum;
}

static mbl_status_t print_one(const one_t *one, const mbl_bench_time_t *time) {
    const whole_t *w = one->w;
    const sum_t sum = sum_of(w, one->phase, -1);
    const bool limited = w->limit.name;
    const mbl_bench_figure_t figures[] = {
        {.name = "dtype", .text = mbl_dtype_name(w->shape.dtype)},
        {.name = "batch", .value = (double)w->bench->batch},
        {.name = "image_tokens", .value = (double)w->shape.sizes.tokens},
        {.name = "tokens", .value = (double)w->bench->tokens},
        {.name = "graphs", .text = w->setup.ops->record ? "on" : "off"},
        {.name = "ms_asking", .value = 1e3 * one->asked},
        {.name = "waits", .value = (double)one->waits},
        {.name = "launches", .value = sum.launches},
        {.name = "gflop", .value = 1e-9 * sum.flops},
        {.name = "gb", .value = 1e-9 * sum.bytes},
        {.name = "tflops", .value = 1e-12 * sum.flops / time->median},
        {.name = "limit", .text = limited ? w->limit.title : "not known"},
        {.name = "limit_ms", .value = 1e3 * sum.seconds},
        {.name = "percent_of_limit", .value = 100 * sum.seconds / time->median}};
    return mbl_bench_print(w->bench, "pass", one->name, time, figures, limited ? 14 : 12);
}

static mbl_status_t print_operation(const one_t *one, int op, const mbl_op_stats_t *stats, double all) {
    const whole_t *w = one->w;
    const double seconds = stats->seconds;
    const mbl_bench_time_t time = {seconds, seconds, seconds};
    const sum_t sum = sum_of(w, one->phase, op);
    const mbl_bench_figure_t figures[] = {{.name = "calls", .value = (double)stats->calls},
                                          {.name = "percent", .value = 100 * seconds / all},
                                          {.name = "gflop", .value = 1e-9 * sum.flops},
                                          {.name = "gb", .value = 1e-9 * sum.bytes},
                                          {.name = "limit_ms", .value = 1e3 * sum.seconds},
                                          {.name = "percent_of_limit", .value = 100 * sum.seconds / seconds}};
    char what[80];
    snprintf(what, sizeof what, "%s: %s", one->name, mbl_op_name((mbl_op_t)op));
    return mbl_bench_print(w->bench, "pass", what, &time, figures, w->limit.name && seconds > 0 ? 6 : 4);
}

/* Once more without graphs, every operation between two marks of the device's. */
static mbl_status_t profile_one(one_t *one) {
    mbl_ops_t *ops = one->w->setup.ops;
    double all = 0;
    memset(ops->stats, 0, sizeof ops->stats);
    ops->profile = true;
    mbl_status_t status = run_one(one);
    ops->profile = false;
    MBL_TRY(status);
    MBL_TRY(mbl_ops_profiled(ops));
    for (int op = 0; op < MBL_OP_COUNT; op++)
        all += ops->stats[op].seconds;
    for (int op = 0; op < MBL_OP_COUNT; op++)
        if (ops->stats[op].calls > 0)
            MBL_TRY(print_operation(one, op, &ops->stats[op], all));
    return MBL_OK;
}

static mbl_status_t time_all(whole_t *w) {
    enum { CASES = 2 };
    one_t ones[CASES] = {{w, "velocity", MBL_PLAN_ROLLOUT, 0, 0}, {w, "micro_batch", MBL_PLAN_TRAIN, 0, 0}};
    mbl_bench_case_t cases[CASES] = {{run_one, &ones[0], NULL}, {run_one, &ones[1], NULL}};
    mbl_status_t status = mbl_bench_alternate(w->bench, cases, CASES);
    for (size_t i = 0; i < CASES && status == MBL_OK; i++) {
        const mbl_bench_time_t time = mbl_bench_time(cases[i].seconds, w->bench->runs);
        status = print_one(&ones[i], &time);
    }
    for (size_t i = 0; i < CASES && status == MBL_OK && w->bench->profile; i++)
        status = profile_one(&ones[i]);
    mbl_bench_forget(cases, CASES);
    return status;
}

static mbl_status_t run_all(whole_t *w) {
    mbl_plan_memory_t memory;
    MBL_TRY(mbl_ops_open(w->bench->device, w->bench->threads, &w->setup.ops));
    MBL_TRY(make_shape(w));
    MBL_TRY(mbl_plan(&w->shape, &w->plan));
    w->counted = true;
    w->setup.shape = &w->shape;
    MBL_TRY(mbl_plan_setup_open(&w->setup, &memory));
    w->open = true;
    w->setup.ops->record = strcmp(w->bench->graphs, "on") == 0;
    MBL_TRY(fill_setup(w));
    MBL_TRY(find_limit(w));
    return time_all(w);
}

mbl_status_t mbl_bench_pass(const mbl_bench_t *bench) {
    whole_t w = {.bench = bench};
    mbl_status_t status = run_all(&w);
    mbl_ops_t *ops = w.setup.ops;
    if (w.open)
        mbl_plan_setup_close(&w.setup);
    if (w.counted)
        mbl_plan_free(&w.plan);
    mbl_plan_shape_free(&w.shape);
    mbl_ops_close(ops);
    return status;
}
