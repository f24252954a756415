/* What the tests of the gradient stage share: a batch of a tiny pipeline with factors that are known, the
 * sets of a run, and their comparison. On any backend. */
#ifndef MBL_TESTS_GRADIENT_CASE_H
#define MBL_TESTS_GRADIENT_CASE_H

#include "tiny_pipeline.h"

#include "rl/gradient.h"

enum { N = 12, GROUP = 3, K = 3, R = 4, STEPS = 6, PADDING = 21 };
/* R = K + 1: the last part is an objective of its own, as weighted_sum has; reward 2 scored nobody. */
enum { UNSCORED = 2 };

static const char *const case_prompts[] = {"a red sign that says \"K7\"", "three blue circles",
                                           "green above purple", "two red squares"};
enum { PROMPTS = 4 };

/* ---- a case ---- */

typedef struct {
    tiny_t tiny;
    mbl_sampler_plan_t plan;
    mbl_batch_t batch;
    uint32_t prompt[N];
    int64_t sample[N];
    float a[R * N];
    mbl_gradient_args_t args;
    mbl_gradient_t *gradient;
} case_t;

/* Factors that are exact in f32 when multiplied with a power of two; some samples masked. */
static inline void make_factors(case_t *c) {
    for (size_t r = 0; r < R; r++)
        for (size_t i = 0; i < N; i++) {
            double a = round(24 * tiny_normal((uint32_t)(40 + r), i)) / 64;
            bool masked = r == UNSCORED || (r == 1 && i % 4 == 2);
            c->a[r * N + i] = (float)(masked ? 0 : fmax(-0.5, fmin(0.5, a)));
        }
}

static inline void make_batch(case_t *c) {
    size_t channels, height, width;
    mbl_pipeline_latent(c->tiny.pipeline, &channels, &height, &width);
    assert_ok(mbl_tensor_new(c->tiny.ops, c->tiny.stat, &c->batch.x0, 4, (size_t)N, channels, height, width));
    void *x0 = host_of(c->tiny.ops, &c->batch.x0);
    for (size_t i = 0; i < mbl_tensor_count(&c->batch.x0); i++)
        put_value(x0, c->tiny.stat, i, 0.6 * tiny_normal(3, i));
    push_host(c->tiny.ops, &c->batch.x0, x0);
    for (size_t i = 0; i < N; i++) {
        c->prompt[i] = (uint32_t)((i / GROUP * 3 + 1) % PROMPTS);
        c->sample[i] = (int64_t)i + 100;
    }
    c->batch.n = c->batch.n_global = N;
    c->batch.group_size = GROUP;
    c->batch.k = K;
    c->batch.prompt = c->prompt;
    c->batch.sample = c->sample;
}

static inline void open_case_of(case_t *c, mbl_dtype_t dtype, int threads, size_t heads, size_t image) {
    memset(c, 0, sizeof *c);
    tiny_open(&c->tiny, dtype, threads, heads, image, 2, 2, case_prompts, PROMPTS);
    assert_ok(mbl_sampler_plan(MBL_SOLVER_DPM2, STEPS, &(mbl_sigma_schedule_t){MBL_SCHEDULE_LINEAR, 3, false},
                               &c->plan));
    make_batch(c);
    make_factors(c);
    c->args = (mbl_gradient_args_t){.batch = &c->batch,
                                    .conditions = &c->tiny.conditions,
                                    .current = &c->tiny.current,
                                    .old = &c->tiny.old,
                                    .plan = &c->plan,
                                    .timesteps = 4,
                                    .slices = 1,
                                    .seed = 77,
                                    .step = 5,
                                    .beta = 0.5,
                                    .clip = 6, /* clip / beta / (N timesteps) = 1/4 */
                                    .kl = 0.25,
                                    .a = c->a,
                                    .parts = R};
    assert_ok(mbl_gradient_new(c->tiny.pipeline, c->tiny.lora, 5, R, 0, &c->gradient));
}

static inline void open_case(case_t *c, mbl_dtype_t dtype) {
    open_case_of(c, dtype, 1, 2, 8);
}

static inline void close_case(case_t *c) {
    mbl_gradient_free(c->gradient);
    mbl_tensor_free(c->tiny.ops, &c->batch.x0);
    tiny_close(&c->tiny);
}

/* Runs and copies rows [rows, P] out; what lies behind them is padding and stays zero. */
static inline mbl_gradient_stats_t run_with(const case_t *c, mbl_gradient_t *gradient,
                                            const mbl_gradient_args_t *args, double *rows) {
    size_t n = mbl_gradient_sets(args), length = c->tiny.size + PADDING;
    mbl_tensor_t sets;
    mbl_gradient_stats_t stats;
    assert_ok(mbl_tensor_new(c->tiny.ops, MBL_F64, &sets, 2, n, length));
    double *host = host_of(c->tiny.ops, &sets);
    for (size_t i = 0; i < n * length; i++)
        host[i] = 1e9; /* overwritten, not added to */
    push_host(c->tiny.ops, &sets, host);
    assert_ok(mbl_gradient_run(gradient, args, &sets, &stats));
    host = host_of(c->tiny.ops, &sets);
    for (size_t r = 0; r < n; r++) {
        const double *row = host + r * length;
        memcpy(rows + r * c->tiny.size, row, c->tiny.size * sizeof *rows);
        for (size_t i = c->tiny.size; i < length; i++)
            assert_near(row[i], 0, 0);
    }
    mbl_free(host);
    mbl_tensor_free(c->tiny.ops, &sets);
    return stats;
}

static inline mbl_gradient_stats_t run(const case_t *c, double *rows) {
    return run_with(c, c->gradient, &c->args, rows);
}

static inline double *new_rows(const case_t *c, size_t n) {
    double *rows = mbl_calloc(n * c->tiny.size, sizeof *rows);
    assert_non_null(rows);
    return rows;
}

static inline double norm_of(const double *x, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    return sqrt(sum);
}

static inline void check_close(const double *got, const double *want, size_t n, double tolerance,
                               const char *what, size_t k) {
    double error = relative_error_f64(got, want, n);
    if (!(error <= tolerance))
        fail_msg("%s %zu: relative error %.3g, at most %.3g expected (norms %.6g, %.6g)", what, k, error,
                 tolerance, norm_of(got, n), norm_of(want, n));
}

/* All sets of one run against those of another, each relative to its own length. */
static inline void check_sets(const case_t *c, const double *got, const double *want, double tolerance,
                              const char *what) {
    size_t size = c->tiny.size;
    for (size_t r = 0; r <= R; r++) {
        if (r == UNSCORED)
            assert_near(norm_of(got + r * size, size), 0, 0);
        else
            check_close(got + r * size, want + r * size, size, tolerance, what, r);
    }
}

/* How often an expensive check is repeated: a kernel on the emulated GPU takes a thousand times as long. */
static inline size_t times(size_t often, size_t on_cuda) {
    return strcmp(test_backend(), "cuda") == 0 ? on_cuda : often;
}

static const struct {
    mbl_dtype_t dtype;
    double tolerance;
} precisions[] = {{MBL_F64, 1e-10}, {MBL_F32, 1e-5}, {MBL_BF16, 2e-2}};
enum { PRECISIONS = sizeof precisions / sizeof *precisions };

#endif
