/* Merging the rollout policy for the rollout, and how far that moves the velocities. */
#include "rl/merge.h"

#include "base/mem.h"
#include "base/rng.h"

#include <math.h>

enum { SAMPLES = MBL_MERGE_PROMPTS, STEPS = 4 };

struct mbl_merge {
    mbl_pipeline_t *pipeline;
    mbl_ops_t *ops;
    const mbl_adapter_t *apart;
    mbl_adapter_t merged;
    mbl_tape_t *tape;
    mbl_sampler_plan_t plan;
    mbl_dtype_t type; /* of images and velocities */
    size_t elements;
    mbl_tensor_t x, v[2], t, coefficient, sample;
    mbl_conditions_t conditions;
    double *numbers; /* [2, SAMPLES * elements] on the host */
};

static mbl_status_t make_buffers(mbl_merge_t *m) {
    mbl_dit_t *model = mbl_pipeline_model(m->pipeline);
    size_t n = SAMPLES, c, h, w, tokens = mbl_pipeline_context_tokens(m->pipeline);
    mbl_pipeline_latent(m->pipeline, &c, &h, &w);
    m->type = mbl_dtype_stat(mbl_dit_dtype(model));
    m->elements = c * h * w;
    MBL_TRY(mbl_adapter_merged_new(model, m->apart, &m->merged));
    MBL_TRY(mbl_tape_new(model, m->apart->lora, MBL_TAPE_NONE, n, h, w, tokens, &m->tape));
    MBL_TRY(mbl_tensor_new(m->ops, m->type, &m->x, 4, n, c, h, w));
    MBL_TRY(mbl_tensor_new(m->ops, m->type, &m->v[0], 4, n, c, h, w));
    MBL_TRY(mbl_tensor_new(m->ops, m->type, &m->v[1], 4, n, c, h, w));
    MBL_TRY(mbl_tensor_new(m->ops, m->type, &m->t, 1, n));
    MBL_TRY(mbl_tensor_new(m->ops, m->type, &m->coefficient, 2, (size_t)2, n));
    MBL_TRY(mbl_tensor_new(m->ops, MBL_I64, &m->sample, 1, n));
    MBL_TRY(mbl_pipeline_conditions(m->pipeline, n, &m->conditions));
    MBL_ALLOC(m->numbers, 2 * n * m->elements);
    return MBL_OK;
}

mbl_status_t mbl_merge_schedule(mbl_merge_t *merge, const mbl_sigma_schedule_t *schedule) {
    return mbl_sampler_plan(MBL_SOLVER_EULER, STEPS, schedule, &merge->plan);
}

mbl_status_t mbl_merge_new(mbl_pipeline_t *pipeline, const mbl_adapter_t *adapter,
                           const mbl_sigma_schedule_t *schedule, mbl_merge_t **out) {
    mbl_merge_t *m;
    MBL_ALLOC(m, 1);
    m->pipeline = pipeline;
    m->ops = mbl_pipeline_ops(pipeline);
    m->apart = adapter;
    mbl_status_t status = mbl_merge_schedule(m, schedule);
    if (status == MBL_OK)
        status = make_buffers(m);
    if (status != MBL_OK) {
        mbl_merge_free(m);
        return status;
    }
    *out = m;
    return MBL_OK;
}

void mbl_merge_free(mbl_merge_t *m) {
    if (!m)
        return;
    mbl_tensor_t *all[] = {&m->x, &m->v[0], &m->v[1], &m->t, &m->coefficient, &m->sample};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        mbl_tensor_free(m->ops, all[i]);
    mbl_conditions_free(m->ops, &m->conditions);
    mbl_tape_free(m->tape);
    mbl_adapter_free(mbl_pipeline_model(m->pipeline), &m->merged);
    mbl_free(m->numbers);
    mbl_free(m);
}

const mbl_adapter_t *mbl_merge_adapter(const mbl_merge_t *merge) {
    return &merge->merged;
}

/* The same number for every sample in each of `rows` rows. */
static mbl_status_t upload_rows(mbl_merge_t *m, const mbl_tensor_t *t, const double *value, size_t rows) {
    float narrow[2 * SAMPLES];
    double wide[2 * SAMPLES];
    for (size_t i = 0; i < rows * SAMPLES; i++) {
        wide[i] = value[i / SAMPLES];
        narrow[i] = (float)wide[i];
    }
    return mbl_tensor_upload(m->ops, t, m->type == MBL_F64 ? (const void *)wide : narrow);
}

void mbl_merge_prompts(size_t n, uint32_t index[MBL_MERGE_PROMPTS]) {
    for (size_t i = 0; i < SAMPLES; i++)
        index[i] = (uint32_t)(i * n / SAMPLES);
}

static mbl_status_t start(mbl_merge_t *m, const mbl_conditions_t *conditions, uint64_t seed, uint32_t step) {
    uint32_t index[SAMPLES];
    int64_t sample[SAMPLES];
    mbl_tensor_t x = mbl_tensor_reshape(&m->x, 2, (size_t)SAMPLES, m->elements);
    mbl_merge_prompts(conditions->n, index);
    for (size_t i = 0; i < SAMPLES; i++)
        sample[i] = (int64_t)i;
    MBL_TRY(mbl_conditions_gather(m->ops, conditions, index, &m->conditions));
    MBL_TRY(mbl_tensor_upload(m->ops, &m->sample, sample));
    return MBL_OP(m->ops, normal, .y = &x, .sample = &m->sample, .seed = seed, .purpose = MBL_RNG_NOISE,
                  .step = step);
}

/* |v_merged - v| / |v| of the velocities as they stand. */
static mbl_status_t compare(mbl_merge_t *m, double *out) {
    size_t n = SAMPLES * m->elements;
    double difference = 0, norm = 0;
    void *half[2] = {m->numbers, m->numbers + n};
    for (int i = 0; i < 2; i++)
        MBL_TRY(mbl_tensor_download(m->ops, &m->v[i], half[i]));
    for (size_t i = 0; i < n; i++) {
        double a = m->type == MBL_F64 ? ((const double *)half[0])[i] : (double)((const float *)half[0])[i];
        double b = m->type == MBL_F64 ? ((const double *)half[1])[i] : (double)((const float *)half[1])[i];
        difference += (b - a) * (b - a);
        norm += a * a;
    }
    *out = difference == 0 ? 0 : sqrt(difference / norm);
    return MBL_OK;
}

/* One step of Euler along the velocity of the adapter apart. */
static mbl_status_t take_step(mbl_merge_t *m, size_t i, double *deviation) {
    mbl_dit_t *model = mbl_pipeline_model(m->pipeline);
    mbl_dit_input_t input = {.x = &m->x, .t = &m->t, .conditions = &m->conditions};
    const double keep[2] = {1, m->plan.sigma[i + 1] - m->plan.sigma[i]};
    mbl_tensor_t x = mbl_tensor_reshape(&m->x, 2, (size_t)SAMPLES, m->elements);
    mbl_tensor_t v = mbl_tensor_reshape(&m->v[0], 2, (size_t)SAMPLES, m->elements);
    MBL_TRY(upload_rows(m, &m->t, &m->plan.sigma[i], 1));
    MBL_TRY(mbl_dit_forward(model, m->apart, &input, m->tape, &m->v[0]));
    MBL_TRY(mbl_dit_forward(model, &m->merged, &input, m->tape, &m->v[1]));
    MBL_TRY(compare(m, deviation));
    MBL_TRY(upload_rows(m, &m->coefficient, keep, 2));
    return MBL_OP(m->ops, rows_combine, .y = &x, .coefficient = &m->coefficient, .x = {&x, &v});
}

mbl_status_t mbl_merge_try(mbl_merge_t *m, const mbl_conditions_t *conditions, uint64_t seed, uint32_t step,
                           double *deviation) {
    double most = 0;
    MBL_TRY(mbl_adapter_merge(mbl_pipeline_model(m->pipeline), &m->merged));
    MBL_TRY(start(m, conditions, seed, step));
    for (size_t i = 0; i < STEPS; i++) {
        double now;
        MBL_TRY(take_step(m, i, &now));
        most = isfinite(now) && now >= 0 ? fmax(most, now) : INFINITY;
    }
    *deviation = most;
    return MBL_OK;
}
