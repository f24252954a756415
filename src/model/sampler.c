/* Running a plan: velocities of the model, with guidance or without, and the combinations of every step. */
#include "model/sampler.h"
#include "base/log.h"
#include "base/mem.h"

#include <string.h>

/* What a run needs of numbers stands in one table that is uploaded once: for every step its time for the
 * rows of both prompts, the coefficients of the x0 prediction (x and up to three velocities) and those of the
 * next x. */
enum { TIME = 0, TO_X0 = 2, TO_NEXT = TO_X0 + MBL_ROWS_TERMS, ROWS = TO_NEXT + 3 };
enum { USUAL_STEPS = 64 }; /* for which there is room from the beginning; more make more */

struct mbl_sampler {
    mbl_pipeline_t *pipeline;
    mbl_ops_t *ops;
    mbl_tape_t *tape;
    const mbl_lora_t *lora;
    size_t max_n, passes, elements; /* passes: model rows of an image in the main pass, 2 with guidance */
    mbl_dtype_t type;               /* of x: f32, or f64 with an f64 model */
    mbl_guidance_t guidance;        /* all zero: none */
    mbl_conditions_t conditions;    /* of passes * max_n: those of the negative prompt first */
    mbl_tensor_t both, v;           /* [passes * max_n, C, H, W]; both (x twice): with guidance only */
    mbl_tensor_t v_skip;            /* [max_n, C, H, W], with skip-layer guidance only */
    mbl_tensor_t x, x0, x0_prev;    /* [max_n, C, H, W]; x: what is sampled, whosever memory it goes to */
    mbl_tensor_t t, sample;         /* [passes * max_n], [max_n] i64 */
    mbl_tensor_t table;             /* [ROWS * steps, n], flat, of the largest run so far */
    double *numbers;                /* the same on the host */
    size_t room;                    /* of both */
};

/* ---- buffers ---- */

static mbl_status_t images(const mbl_sampler_t *s, size_t n, mbl_tensor_t *out) {
    size_t c, h, w;
    mbl_pipeline_latent(s->pipeline, &c, &h, &w);
    return mbl_tensor_new(s->ops, s->type, out, 4, n, c, h, w);
}

/* What depends on how many rows the model is given of an image. */
static mbl_status_t make_model_buffers(mbl_sampler_t *s) {
    size_t n = s->passes * s->max_n, c, h, w;
    mbl_pipeline_latent(s->pipeline, &c, &h, &w);
    MBL_TRY(mbl_pipeline_conditions(s->pipeline, n, &s->conditions));
    MBL_TRY(images(s, n, &s->v));
    MBL_TRY(mbl_tensor_new(s->ops, s->type, &s->t, 1, n));
    return mbl_tape_new(mbl_pipeline_model(s->pipeline), s->lora, MBL_TAPE_NONE, n, h, w,
                        mbl_pipeline_context_tokens(s->pipeline), &s->tape);
}

/* Of the table. */
static mbl_status_t make_room(mbl_sampler_t *s, size_t room) {
    if (room <= s->room)
        return MBL_OK;
    s->room = 0;
    mbl_tensor_free(s->ops, &s->table);
    mbl_free(s->numbers);
    s->numbers = NULL;
    MBL_ALLOC(s->numbers, room);
    MBL_TRY(mbl_tensor_new(s->ops, s->type, &s->table, 1, room));
    s->room = room;
    return MBL_OK;
}

static mbl_status_t make_buffers(mbl_sampler_t *s) {
    size_t c, h, w;
    mbl_pipeline_latent(s->pipeline, &c, &h, &w);
    s->type = mbl_dtype_stat(mbl_dit_dtype(mbl_pipeline_model(s->pipeline)));
    s->elements = c * h * w;
    MBL_TRY(images(s, s->max_n, &s->x));
    MBL_TRY(images(s, s->max_n, &s->x0));
    MBL_TRY(images(s, s->max_n, &s->x0_prev));
    MBL_TRY(mbl_tensor_new(s->ops, MBL_I64, &s->sample, 1, s->max_n));
    MBL_TRY(make_room(s, ROWS * USUAL_STEPS * s->max_n));
    return make_model_buffers(s);
}

mbl_status_t mbl_sampler_new(mbl_pipeline_t *pipeline, const mbl_lora_t *lora, size_t max_n,
                             mbl_sampler_t **out) {
    MBL_REQUIRE(pipeline && max_n > 0, "a sampler for %zu images at once", max_n);
    mbl_sampler_t *s;
    MBL_ALLOC(s, 1);
    s->pipeline = pipeline;
    s->ops = mbl_pipeline_ops(pipeline);
    s->lora = lora;
    s->max_n = max_n;
    s->passes = 1;
    mbl_status_t status = make_buffers(s);
    if (status != MBL_OK) {
        mbl_sampler_free(s);
        return status;
    }
    *out = s;
    return MBL_OK;
}

static void free_model_buffers(mbl_sampler_t *s) {
    mbl_tensor_free(s->ops, &s->v);
    mbl_tensor_free(s->ops, &s->t);
    mbl_conditions_free(s->ops, &s->conditions);
    mbl_tape_free(s->tape);
    s->tape = NULL;
}

void mbl_sampler_free(mbl_sampler_t *s) {
    if (!s)
        return;
    mbl_tensor_t *all[] = {&s->both, &s->v_skip, &s->x, &s->x0, &s->x0_prev, &s->sample, &s->table};
    free_model_buffers(s);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        mbl_tensor_free(s->ops, all[i]);
    mbl_free(s->numbers);
    mbl_free(s);
}

/* ---- guidance ---- */

static mbl_status_t check_skip(const mbl_guidance_t *guidance, size_t blocks) {
    for (size_t i = blocks; i < 64; i++)
        if (guidance->skip >> i & 1)
            return MBL_FAIL(
                MBL_ERR_CONFIG,
                "skip-layer guidance: block %zu; expected blocks from 0 to %zu, those of the model", i,
                blocks - 1);
    return MBL_OK;
}

/* The negative prompt's encoding in the first max_n rows, for good: runs gather the others behind them. */
static mbl_status_t repeat_negative(mbl_sampler_t *s) {
    mbl_conditions_t rows = mbl_conditions_rows(&s->conditions, 0, s->max_n);
    uint32_t *index;
    MBL_ALLOC(index, s->max_n); /* all 0: the one prompt */
    mbl_status_t status = mbl_conditions_gather(s->ops, s->guidance.negative, index, &rows);
    mbl_free(index);
    return status;
}

mbl_status_t mbl_sampler_guide(mbl_sampler_t *s, const mbl_guidance_t *guidance) {
    if (!(guidance->scale > 1))
        return MBL_OK;
    MBL_REQUIRE(s->passes == 1 && guidance->negative && guidance->negative->n == 1,
                "a sampler is guided once, by one negative prompt");
    MBL_TRY(check_skip(guidance, mbl_dit_sizes(mbl_pipeline_model(s->pipeline))->blocks));
    s->guidance = *guidance;
    s->passes = 2;
    free_model_buffers(s);
    MBL_TRY(make_model_buffers(s));
    MBL_TRY(images(s, 2 * s->max_n, &s->both));
    if (guidance->skip)
        MBL_TRY(images(s, s->max_n, &s->v_skip));
    return repeat_negative(s);
}

/* Whether step i has skip-layer guidance; both ends are outside, as in diffusers. */
static bool skips(const mbl_sampler_t *s, size_t i, size_t steps) {
    const mbl_guidance_t *g = &s->guidance;
    return g->skip && (double)i > (double)steps * g->start && (double)i < (double)steps * g->stop;
}

/* ---- the table ---- */

/* The factors of x and the velocities in the x0 prediction, x - sigma v with v guided. */
static void fill_to_x0(const mbl_sampler_t *s, const mbl_sampler_plan_t *plan, size_t i, double *out) {
    double sigma = plan->sigma[i], scale = s->guidance.scale,
           skip = skips(s, i, plan->steps) ? s->guidance.skip_scale : 0;
    out[0] = 1;
    out[1] = s->passes == 1 ? -sigma : -sigma * (1 - scale); /* the only velocity, or the negative prompt's */
    out[2] = -sigma * (scale + skip);
    out[3] = sigma * skip;
}

static mbl_status_t upload_table(mbl_sampler_t *s, const mbl_sampler_plan_t *plan, size_t n) {
    size_t count = ROWS * plan->steps * n;
    MBL_TRY(make_room(s, count));
    float *f32 = (float *)(void *)s->numbers;
    for (size_t i = 0; i < plan->steps; i++) {
        double row[ROWS] = {plan->time[i], plan->time[i]};
        fill_to_x0(s, plan, i, row + TO_X0);
        row[TO_NEXT] = plan->step[i].x;
        row[TO_NEXT + 1] = plan->step[i].x0;
        row[TO_NEXT + 2] = plan->step[i].x0_prev;
        for (size_t j = 0; j < ROWS * n; j++) {
            if (s->type == MBL_F64)
                s->numbers[i * ROWS * n + j] = row[j / n];
            else
                f32[i * ROWS * n + j] = (float)row[j / n];
        }
    }
    mbl_tensor_t whole = mbl_tensor_of(s->table.data, s->type, s->table.space, 1, count);
    return mbl_tensor_upload(s->ops, &whole, s->numbers);
}

/* `rows` rows of step i from row `first` of it on, [rows, n]. */
static mbl_tensor_t table_rows(const mbl_sampler_t *s, size_t i, size_t n, size_t first, size_t rows) {
    char *at = (char *)s->table.data + (i * ROWS + first) * n * mbl_dtype_size(s->type);
    return mbl_tensor_of(at, s->type, s->table.space, 2, rows, n);
}

/* ---- running ---- */

/* Images as rows of numbers. */
static mbl_tensor_t as_rows(const mbl_sampler_t *s, const mbl_tensor_t *t, size_t first, size_t n) {
    mbl_tensor_t rows = mbl_tensor_rows(t, first, n);
    return mbl_tensor_of(rows.data, s->type, t->space, 2, n, s->elements);
}

/* A pass of the model, recorded: only t differs between steps. */
static mbl_status_t pass(mbl_sampler_t *s, const mbl_adapter_t *adapter, const mbl_dit_input_t *input,
                         const mbl_tensor_t *v) {
    MBL_TRY(mbl_ops_record_begin(s->ops));
    return mbl_ops_record_end(s->ops,
                              mbl_dit_forward(mbl_pipeline_model(s->pipeline), adapter, input, s->tape, v));
}

/* A run under way: x [n,E], and the same as images; the conditions of its prompts. */
typedef struct {
    const mbl_sampler_plan_t *plan;
    const mbl_adapter_t *adapter;
    const mbl_tensor_t *images;
    mbl_tensor_t x;
    size_t n;
} run_t;

/* The velocities of step i into the first rows of s->v: one row of every image, or first those of the
 * negative prompt and then those of its own; and into s->v_skip. */
static mbl_status_t velocities(mbl_sampler_t *s, const run_t *run, size_t i) {
    size_t n = run->n, rows = s->passes * n;
    mbl_tensor_t t = mbl_tensor_of(s->t.data, s->type, s->t.space, 1, rows);
    mbl_tensor_t times = table_rows(s, i, n, TIME, s->passes), v = mbl_tensor_rows(&s->v, 0, rows);
    mbl_tensor_t flat = mbl_tensor_of(times.data, s->type, times.space, 1, rows);
    mbl_conditions_t conditions = mbl_conditions_rows(&s->conditions, (s->passes - 1) * (s->max_n - n), rows);
    mbl_dit_input_t input = {.x = run->images, .t = &t, .conditions = &conditions};
    MBL_TRY(mbl_tensor_copy(s->ops, &t, &flat));
    if (s->passes == 1)
        return pass(s, run->adapter, &input, &v);
    mbl_tensor_t both = mbl_tensor_rows(&s->both, 0, rows);
    for (size_t half = 0; half < 2; half++) {
        mbl_tensor_t to = as_rows(s, &s->both, half * n, n);
        MBL_TRY(mbl_tensor_copy(s->ops, &to, &run->x));
    }
    input.x = &both;
    MBL_TRY(pass(s, run->adapter, &input, &v));
    if (!skips(s, i, run->plan->steps))
        return MBL_OK;
    mbl_tensor_t v_skip = mbl_tensor_rows(&s->v_skip, 0, n);
    t = mbl_tensor_of(s->t.data, s->type, s->t.space, 1, n);
    conditions = mbl_conditions_rows(&s->conditions, s->max_n, n);
    input = (mbl_dit_input_t){run->images, &t, &conditions, s->guidance.skip};
    return pass(s, run->adapter, &input, &v_skip);
}

/* One solver step; `now` receives the x0 prediction. */
static mbl_status_t take_step(mbl_sampler_t *s, const run_t *run, size_t i, const mbl_tensor_t *now,
                              const mbl_tensor_t *before) {
    size_t n = run->n;
    MBL_TRY(velocities(s, run, i));
    bool skip = skips(s, i, run->plan->steps);
    size_t terms = 1 + s->passes + skip;
    mbl_tensor_t to_x0 = table_rows(s, i, n, TO_X0, terms), first = as_rows(s, &s->v, 0, n), second = {0},
                 last = {0};
    if (s->passes == 2)
        second = as_rows(s, &s->v, n, n);
    if (skip)
        last = as_rows(s, &s->v_skip, 0, n);
    MBL_TRY(MBL_OP(s->ops, rows_combine, .y = now, .coefficient = &to_x0,
                   .x = {&run->x, &first, s->passes == 2 ? &second : NULL, skip ? &last : NULL}));
    terms = run->plan->step[i].x0_prev != 0 ? 3 : 2; /* x0 before the first step does not exist */
    mbl_tensor_t to_next = table_rows(s, i, n, TO_NEXT, terms);
    return MBL_OP(s->ops, rows_combine, .y = &run->x, .coefficient = &to_next,
                  .x = {&run->x, now, terms == 3 ? before : NULL});
}

static mbl_status_t start(mbl_sampler_t *s, const mbl_sample_request_t *request, const run_t *run,
                          const mbl_tensor_t *noise) {
    size_t n = request->n;
    mbl_tensor_t sample = mbl_tensor_rows(&s->sample, 0, n);
    mbl_conditions_t conditions = mbl_conditions_rows(&s->conditions, (s->passes - 1) * s->max_n, n);
    MBL_TRY(upload_table(s, run->plan, n));
    MBL_TRY(mbl_conditions_gather(s->ops, request->conditions, request->index, &conditions));
    if (request->noise)
        return mbl_tensor_copy(s->ops, &run->x, noise);
    MBL_TRY(mbl_tensor_upload(s->ops, &sample, request->sample));
    return MBL_OP(s->ops, normal, .y = &run->x, .sample = &sample, .seed = request->seed,
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
    /* The address of x is part of what a recorded pass is known by: one for all runs, so that they share it.
     */
    const mbl_tensor_t own = mbl_tensor_rows(&sampler->x, 0, n), out = as_rows(sampler, x0, 0, n);
    const run_t run = {plan, request->adapter, &own, as_rows(sampler, &sampler->x, 0, n), n};
    mbl_tensor_t now = as_rows(sampler, &sampler->x0, 0, n),
                 before = as_rows(sampler, &sampler->x0_prev, 0, n);
    MBL_TRY(start(sampler, request, &run, &out));
    for (size_t i = 0; i < plan->steps; i++) {
        if (request->stop && *request->stop)
            return MBL_ERR_STOPPED;
        MBL_TRY(take_step(sampler, &run, i, &now, &before));
        mbl_log_progress_within((double)request->n * (double)(i + 1) / (double)plan->steps);
        mbl_tensor_t swap = now;
        now = before;
        before = swap;
    }
    return mbl_tensor_copy(sampler->ops, &out, &run.x);
}
