/* Solvers of the probability-flow ODE: every step is a combination of x, the x0 prediction now and the one
 * before. */
#include "model/sampler.h"
#include "base/mem.h"

#include <math.h>
#include <string.h>

bool mbl_solver_find(const char *name, mbl_solver_t *out) {
    static const char *const names[] = {"euler", "dpm1", "dpm2"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (mbl_solver_t)i;
            return true;
        }
    }
    return false;
}

/* ---- plan ---- */

/* log(alpha / sigma) with alpha = 1 - sigma: minus infinity at sigma 1, infinity at 0. */
static double log_ratio(double sigma) {
    return log((1 - sigma) / sigma);
}

/* Step i from s = sigma[i] to u = sigma[i+1]. First order: alpha_u (1 - exp(-h)) = 1 - u/s, with which
 * DPM-Solver++ in x0 predictions is x' = (u/s) x + (1 - u/s) x0 = x + (u - s) v, Euler's step. Second order
 * (midpoint form): x0 becomes x0 + (h / 2 h0) (x0 - x0 before), h and h0 the steps in log_ratio now and
 * before. Where the step before began at sigma 1, h0 is infinite and the correction vanishes; the last step,
 * with h infinite, is first order. */
static void plan_step(mbl_sampler_plan_t *plan, size_t i) {
    double s = plan->sigma[i], u = plan->sigma[i + 1], keep = u / s, correction = 0;
    if (plan->solver == MBL_SOLVER_DPM2 && i > 0 && i + 1 < plan->steps) {
        double h = log_ratio(u) - log_ratio(s), h0 = log_ratio(s) - log_ratio(plan->sigma[i - 1]);
        correction = h / (2 * h0);
    }
    plan->step[i].x = keep;
    plan->step[i].x0 = (1 - keep) * (1 + correction);
    plan->step[i].x0_prev = -(1 - keep) * correction;
}

mbl_status_t mbl_sampler_plan(mbl_solver_t solver, size_t steps, double shift, mbl_sampler_plan_t *out) {
    if (steps < 1 || steps > MBL_SAMPLER_MAX_STEPS)
        return MBL_FAIL(MBL_ERR_CONFIG, "sampler: %zu steps; expected 1 to %d", steps, MBL_SAMPLER_MAX_STEPS);
    if (!(shift > 0) || isinf(shift))
        return MBL_FAIL(MBL_ERR_CONFIG, "sampler: a shift of %g; expected a positive number", shift);
    memset(out, 0, sizeof *out);
    out->solver = solver;
    out->steps = steps;
    for (size_t i = 0; i <= steps; i++) {
        double s = (double)(steps - i) / (double)steps;
        out->sigma[i] = shift * s / (1 + (shift - 1) * s);
    }
    out->sigma[0] = 1;
    for (size_t i = 0; i < steps; i++)
        plan_step(out, i);
    return MBL_OK;
}

/* ---- running ---- */

struct mbl_sampler {
    mbl_pipeline_t *pipeline;
    mbl_ops_t *ops;
    mbl_tape_t *tape;
    size_t max_n, elements;
    mbl_dtype_t type;                    /* of x: f32, or f64 with an f64 model */
    mbl_conditions_t conditions;         /* of max_n */
    mbl_tensor_t v, x0, x0_prev;         /* [max_n, C, H, W] */
    mbl_tensor_t t, coefficient, sample; /* [max_n], [3, max_n], [max_n] i64 */
    double *numbers;                     /* [3 max_n] on the host */
};

static mbl_status_t make_buffers(mbl_sampler_t *s) {
    mbl_ops_t *ops = s->ops;
    size_t n = s->max_n, c, h, w;
    mbl_pipeline_latent(s->pipeline, &c, &h, &w);
    s->type = mbl_dtype_stat(mbl_dit_dtype(mbl_pipeline_model(s->pipeline)));
    s->elements = c * h * w;
    MBL_TRY(mbl_pipeline_conditions(s->pipeline, n, &s->conditions));
    MBL_TRY(mbl_tensor_new(ops, s->type, &s->v, 4, n, c, h, w));
    MBL_TRY(mbl_tensor_new(ops, s->type, &s->x0, 4, n, c, h, w));
    MBL_TRY(mbl_tensor_new(ops, s->type, &s->x0_prev, 4, n, c, h, w));
    MBL_TRY(mbl_tensor_new(ops, s->type, &s->t, 1, n));
    MBL_TRY(mbl_tensor_new(ops, s->type, &s->coefficient, 2, (size_t)3, n));
    MBL_TRY(mbl_tensor_new(ops, MBL_I64, &s->sample, 1, n));
    MBL_ALLOC(s->numbers, 3 * n);
    return MBL_OK;
}

mbl_status_t mbl_sampler_new(mbl_pipeline_t *pipeline, const mbl_lora_t *lora, size_t max_n,
                             mbl_sampler_t **out) {
    MBL_REQUIRE(pipeline && max_n > 0, "a sampler for %zu images at once", max_n);
    mbl_status_t status;
    size_t c, h, w;
    mbl_sampler_t *s;
    MBL_ALLOC(s, 1);
    s->pipeline = pipeline;
    s->ops = mbl_pipeline_ops(pipeline);
    s->max_n = max_n;
    mbl_pipeline_latent(pipeline, &c, &h, &w);
    MBL_TRY_GOTO(make_buffers(s), failed);
    MBL_TRY_GOTO(mbl_tape_new(mbl_pipeline_model(pipeline), lora, MBL_TAPE_NONE, max_n, h, w,
                              mbl_pipeline_context_tokens(pipeline), &s->tape),
                 failed);
    *out = s;
    return MBL_OK;
failed:
    mbl_sampler_free(s);
    return status;
}

void mbl_sampler_free(mbl_sampler_t *s) {
    if (!s)
        return;
    mbl_tensor_t *all[] = {&s->v, &s->x0, &s->x0_prev, &s->t, &s->coefficient, &s->sample};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        mbl_tensor_free(s->ops, all[i]);
    mbl_conditions_free(s->ops, &s->conditions);
    mbl_tape_free(s->tape);
    mbl_free(s->numbers);
    mbl_free(s);
}

/* rows x n numbers, one per row for all samples, into a tensor of the sampler's type that begins like `to`.
 */
static mbl_status_t upload_rows(mbl_sampler_t *s, const double *value, size_t rows, size_t n,
                                const mbl_tensor_t *to, mbl_tensor_t *view) {
    float *f32 = (float *)(void *)s->numbers;
    for (size_t i = 0; i < rows * n; i++) {
        if (s->type == MBL_F64)
            s->numbers[i] = value[i / n];
        else
            f32[i] = (float)value[i / n];
    }
    *view = rows == 1 ? mbl_tensor_of(to->data, s->type, to->space, 1, n)
                      : mbl_tensor_of(to->data, s->type, to->space, 2, rows, n);
    return mbl_tensor_upload(s->ops, view, s->numbers);
}

static mbl_tensor_t as_rows(const mbl_sampler_t *s, const mbl_tensor_t *t, size_t n) {
    return mbl_tensor_of(t->data, s->type, t->space, 2, n, s->elements);
}

/* The model's velocity of a step, recorded: only t differs between steps. */
static mbl_status_t velocity(mbl_sampler_t *s, const mbl_sample_request_t *request,
                             const mbl_dit_input_t *input, const mbl_tensor_t *v) {
    MBL_TRY(mbl_ops_record_begin(s->ops));
    return mbl_ops_record_end(
        s->ops, mbl_dit_forward(mbl_pipeline_model(s->pipeline), request->adapter, input, s->tape, v));
}

/* One solver step on x [n,E] (x as an image batch in `input`); `now` receives the x0 prediction. */
static mbl_status_t take_step(mbl_sampler_t *s, const mbl_sampler_plan_t *plan, size_t i,
                              const mbl_sample_request_t *request, mbl_dit_input_t *input,
                              const mbl_tensor_t *x, const mbl_tensor_t *now, const mbl_tensor_t *before) {
    size_t n = request->n;
    mbl_tensor_t t, coefficient, v = mbl_tensor_rows(&s->v, 0, n), v_rows = as_rows(s, &s->v, n);
    const double sigma = plan->sigma[i], to_x0[2] = {1, -sigma};
    const double to_next[3] = {plan->step[i].x, plan->step[i].x0, plan->step[i].x0_prev};
    MBL_TRY(upload_rows(s, &sigma, 1, n, &s->t, &t));
    input->t = &t;
    MBL_TRY(velocity(s, request, input, &v));
    MBL_TRY(upload_rows(s, to_x0, 2, n, &s->coefficient, &coefficient));
    MBL_TRY(MBL_OP(s->ops, rows_combine, .y = now, .coefficient = &coefficient, .x = {x, &v_rows}));
    size_t terms = to_next[2] != 0 ? 3 : 2; /* x0 before the first step does not exist */
    MBL_TRY(upload_rows(s, to_next, terms, n, &s->coefficient, &coefficient));
    return MBL_OP(s->ops, rows_combine, .y = x, .coefficient = &coefficient,
                  .x = {x, now, terms == 3 ? before : NULL});
}

static mbl_status_t start(mbl_sampler_t *s, const mbl_sample_request_t *request, const mbl_tensor_t *x,
                          mbl_conditions_t *conditions) {
    size_t n = request->n;
    mbl_tensor_t sample = mbl_tensor_rows(&s->sample, 0, n);
    *conditions = mbl_conditions_rows(&s->conditions, 0, n);
    MBL_TRY(mbl_conditions_gather(s->ops, request->conditions, request->index, conditions));
    MBL_TRY(mbl_tensor_upload(s->ops, &sample, request->sample));
    return MBL_OP(s->ops, normal, .y = x, .sample = &sample, .seed = request->seed,
                  .purpose = request->purpose, .step = request->step);
}

mbl_status_t mbl_sampler_run(mbl_sampler_t *sampler, const mbl_sampler_plan_t *plan,
                             const mbl_sample_request_t *request, const mbl_tensor_t *x0) {
    size_t n = request->n;
    MBL_REQUIRE(n > 0 && n <= sampler->max_n, "%zu images; expected 1 to %zu", n, sampler->max_n);
    MBL_REQUIRE(x0->dtype == sampler->type && mbl_tensor_contiguous(x0) &&
                    mbl_tensor_count(x0) == n * sampler->elements,
                "sampler: x0 must be contiguous, %s, of %zu x %zu elements", mbl_dtype_name(sampler->type), n,
                sampler->elements);
    mbl_conditions_t conditions;
    mbl_tensor_t x = as_rows(sampler, x0, n);
    mbl_tensor_t now = as_rows(sampler, &sampler->x0, n), before = as_rows(sampler, &sampler->x0_prev, n);
    MBL_TRY(start(sampler, request, &x, &conditions));
    mbl_dit_input_t input = {.x = x0, .conditions = &conditions};
    for (size_t i = 0; i < plan->steps; i++) {
        if (request->stop && *request->stop)
            return MBL_ERR_STOPPED;
        MBL_TRY(take_step(sampler, plan, i, request, &input, &x, &now, &before));
        mbl_tensor_t swap = now;
        now = before;
        before = swap;
    }
    return MBL_OK;
}
