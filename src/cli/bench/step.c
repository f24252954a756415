/* marble bench step: the training step that other frameworks are compared with (forward passes of the old,
 * the current and no adapter, NFT loss with KL, one backward pass), then whole optimizer steps of every
 * method on one rollout. */
#include "cli/bench/pass.h"
#include "cli/bench/update.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

enum { REWARDS = 5, TIMESTEPS = 4 };
/* Places in MBL_BENCH_METHODS, and that of the rollout behind them. */
enum { FULL = 0, BASELINE = 2, CACHED = 4, N = MBL_BENCH_N_METHODS, ROLLOUT = N };

/* ---- one training step ---- */

/* waits: how often the host waited for the device in the last step, before its end. */
typedef struct {
    mbl_bench_pass_t *pass;
    uint64_t waits;
} nft_step_t;

static mbl_status_t run_nft_step(void *context) {
    nft_step_t *step = context;
    mbl_bench_fixture_t *w = step->pass->fixture;
    const double one = 1;
    mbl_gradient_args_t args = mbl_bench_fixture_args(w, 1, 1, 1e-4);
    mbl_gradient_stats_t stats;
    mbl_tensor_t sets = mbl_tensor_rows(&w->update.sets, 0, 1);
    const uint64_t waits = w->ops->waits;
    args.c = &one;
    MBL_TRY(mbl_gradient_run(w->update.gradient, &args, &sets, &stats));
    step->waits = w->ops->waits - waits;
    return w->ops->table->sync(w->ops);
}

static mbl_status_t run_forward(void *context) {
    mbl_bench_pass_t *pass = context;
    MBL_TRY(mbl_bench_pass_forward(pass));
    return pass->fixture->ops->table->sync(pass->fixture->ops);
}

/* One more step, with marks round every operation: a line for each that was called. */
static mbl_status_t profile_nft(const mbl_bench_t *bench, nft_step_t *step, mbl_dtype_t dtype) {
    mbl_ops_t *ops = step->pass->fixture->ops;
    double all = 0;
    memset(ops->stats, 0, sizeof ops->stats);
    ops->profile = true;
    MBL_TRY(run_nft_step(step));
    ops->profile = false;
    MBL_TRY(mbl_ops_profiled(ops));
    for (int op = 0; op < MBL_OP_COUNT; op++)
        all += ops->stats[op].seconds;
    for (int op = 0; op < MBL_OP_COUNT; op++) {
        double seconds = ops->stats[op].seconds;
        mbl_bench_time_t time = {seconds, seconds, seconds};
        const mbl_bench_figure_t figures[] = {{.name = "dtype", .text = mbl_dtype_name(dtype)},
                                              {.name = "calls", .value = (double)ops->stats[op].calls},
                                              {.name = "percent", .value = 100 * seconds / all}};
        char what[64];
        snprintf(what, sizeof what, "nft_step: %s", mbl_op_name((mbl_op_t)op));
        if (ops->stats[op].calls > 0)
            MBL_TRY(mbl_bench_print(bench, "step", what, &time, figures, 3));
    }
    return MBL_OK;
}

static mbl_status_t time_nft(const mbl_bench_t *bench, mbl_dtype_t dtype) {
    static const char *const names[] = {"nft_step", "forward"};
    mbl_bench_fixture_t fixture;
    mbl_bench_pass_t pass = {.fixture = NULL};
    nft_step_t step = {&pass, 0};
    mbl_bench_case_t cases[] = {{run_nft_step, &step, NULL}, {run_forward, &pass, NULL}};
    mbl_status_t status;
    MBL_TRY_GOTO(mbl_bench_fixture_open(bench, dtype, bench->samples, 1, &fixture), done);
    MBL_TRY_GOTO(mbl_bench_pass_open(&fixture, false, &pass), done);
    MBL_TRY_GOTO(mbl_bench_alternate(bench, cases, 2), done);
    for (size_t i = 0; i < 2; i++) {
        mbl_bench_time_t time = mbl_bench_time(cases[i].seconds, bench->runs);
        const mbl_bench_figure_t figures[] = {{.name = "dtype", .text = mbl_dtype_name(dtype)},
                                              {.name = "samples", .value = (double)bench->samples},
                                              {.name = "threads", .value = (double)fixture.ops->threads},
                                              {.name = "waits", .value = (double)step.waits}};
        MBL_TRY_GOTO(mbl_bench_print(bench, "step", names[i], &time, figures, i == 0 ? 4 : 3), done);
    }
    status = bench->profile ? profile_nft(bench, &step, dtype) : MBL_OK;
done:
    mbl_bench_forget(cases, 2);
    mbl_bench_pass_close(&pass);
    mbl_bench_fixture_close(&fixture);
    return status;
}

/* ---- optimizer steps by method ---- */

typedef struct {
    mbl_bench_fixture_t *fixture;
    mbl_sampler_t *sampler;
    mbl_bench_method_t method;
    uint64_t waits; /* of the last step */
} method_case_t;

static mbl_status_t run_method(void *context) {
    method_case_t *one = context;
    const uint64_t waits = one->fixture->ops->waits;
    MBL_TRY(mbl_bench_update(one->fixture, &one->method, REWARDS, TIMESTEPS));
    one->waits = one->fixture->ops->waits - waits;
    return MBL_OK;
}

static mbl_status_t run_rollout(void *context) {
    const method_case_t *one = context;
    mbl_bench_fixture_t *w = one->fixture;
    mbl_sample_request_t request = {.adapter = &w->update.policy.in_old,
                                    .conditions = &w->conditions,
                                    .index = w->prompt,
                                    .sample = w->sample,
                                    .n = w->batch.n,
                                    .seed = 1,
                                    .purpose = 2};
    MBL_TRY(mbl_sampler_run(one->sampler, &w->plan, &request, &w->batch.x0));
    return w->ops->table->sync(w->ops);
}

/* Rounds of a case with the rollout of the same round added; the caller frees. */
static double *with_rollout(const double *seconds, const double *rollout, size_t runs) {
    double *sum = mbl_calloc(runs, sizeof *sum);
    for (size_t i = 0; sum && i < runs; i++)
        sum[i] = seconds[i] + rollout[i];
    return sum;
}

/* waits: of a step; NULL where the seconds are of several kinds. */
static mbl_status_t print_method(const mbl_bench_t *bench, mbl_dtype_t dtype, const char *name,
                                 size_t refresh_every, const double *seconds, const double *baseline,
                                 const double *rollout, const uint64_t *waits) {
    double *whole = with_rollout(seconds, rollout, bench->runs),
           *whole_baseline = with_rollout(baseline, rollout, bench->runs);
    mbl_bench_time_t time = mbl_bench_time(seconds, bench->runs);
    mbl_status_t status = MBL_ERR_MEM;
    if (whole && whole_baseline) {
        const mbl_bench_figure_t figures[] = {
            {.name = "k", .value = REWARDS},
            {.name = "dtype", .text = mbl_dtype_name(dtype)},
            {.name = "samples", .value = (double)bench->samples},
            {.name = "timesteps", .value = TIMESTEPS},
            {.name = "refresh_every", .value = (double)refresh_every},
            {.name = "relative_to_weighted_sum", .value = mbl_bench_ratio(baseline, seconds, bench->runs)},
            {.name = "relative_with_rollout", .value = mbl_bench_ratio(whole_baseline, whole, bench->runs)},
            {.name = "waits", .value = waits ? (double)*waits : 0}};
        status = mbl_bench_print(bench, "step", name, &time, figures, waits ? 8 : 7);
    }
    mbl_free(whole);
    mbl_free(whole_baseline);
    return status;
}

/* A solve every tenth step: a tenth of a marble step and nine of a cached one, of the same round. */
static mbl_status_t print_cached(const mbl_bench_t *bench, mbl_dtype_t dtype, const mbl_bench_case_t *cases) {
    double *mixed = mbl_calloc(bench->runs, sizeof *mixed);
    mbl_status_t status = MBL_ERR_MEM;
    for (size_t i = 0; mixed && i < bench->runs; i++)
        mixed[i] = (cases[FULL].seconds[i] + 9 * cases[CACHED].seconds[i]) / 10;
    if (mixed)
        status = print_method(bench, dtype, "marble refresh_every=10", 10, mixed, cases[BASELINE].seconds,
                              cases[ROLLOUT].seconds, NULL);
    mbl_free(mixed);
    return status;
}

static mbl_status_t time_methods(const mbl_bench_t *bench, mbl_dtype_t dtype) {
    static const mbl_bench_method_t methods[] = MBL_BENCH_METHODS;
    mbl_bench_fixture_t fixture;
    mbl_sampler_t *sampler = NULL;
    method_case_t contexts[N + 1];
    mbl_bench_case_t cases[N + 1] = {0};
    mbl_status_t status;
    MBL_TRY_GOTO(mbl_bench_fixture_open(bench, dtype, bench->samples, REWARDS, &fixture), done);
    MBL_TRY_GOTO(mbl_sampler_new(fixture.pipeline, fixture.lora, bench->samples, &sampler), done);
    for (size_t i = 0; i <= N; i++) {
        contexts[i] = (method_case_t){&fixture, sampler, methods[i < N ? i : 0], 0};
        cases[i].run = i < N ? run_method : run_rollout;
        cases[i].context = &contexts[i];
    }
    MBL_TRY_GOTO(mbl_bench_alternate(bench, cases, N + 1), done);
    for (size_t i = 0; i < N; i++)
        MBL_TRY_GOTO(print_method(bench, dtype, methods[i].name, 1, cases[i].seconds, cases[BASELINE].seconds,
                                  cases[ROLLOUT].seconds, &contexts[i].waits),
                     done);
    MBL_TRY_GOTO(print_cached(bench, dtype, cases), done);
    mbl_bench_time_t time = mbl_bench_time(cases[ROLLOUT].seconds, bench->runs);
    const mbl_bench_figure_t figures[] = {{.name = "dtype", .text = mbl_dtype_name(dtype)},
                                          {.name = "samples", .value = (double)bench->samples},
                                          {.name = "solver_steps", .value = MBL_BENCH_STEPS}};
    status = mbl_bench_print(bench, "step", "rollout", &time, figures, 3);
done:
    mbl_bench_forget(cases, N + 1);
    mbl_sampler_free(sampler);
    mbl_bench_fixture_close(&fixture);
    return status;
}

mbl_status_t mbl_bench_step(const mbl_bench_t *bench) {
    static const mbl_dtype_t dtypes[] = {MBL_F32, MBL_BF16};
    for (int i = 0; i < 2; i++)
        MBL_TRY(time_nft(bench, dtypes[i]));
    for (int i = 0; i < 2; i++)
        MBL_TRY(time_methods(bench, dtypes[i]));
    return MBL_OK;
}
