/* One micro-batch through the model, with a backward pass for every reward. */
#include "cli/bench/pass.h"

#include "base/mem.h"
#include "base/rng.h"

static mbl_status_t make_tensors(mbl_bench_pass_t *p, size_t n, size_t c, size_t height, size_t width) {
    mbl_bench_fixture_t *w = p->fixture;
    mbl_tensor_t *images[] = {&p->xt, &p->v, &p->v_old, &p->u, &p->h, &p->seed};
    mbl_tensor_t *numbers[] = {&p->t, &p->loss_plus, &p->loss_minus};
    for (size_t i = 0; i < sizeof images / sizeof *images; i++)
        MBL_TRY(mbl_tensor_new(w->ops, MBL_F32, images[i], 4, n, c, height, width));
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        MBL_TRY(mbl_tensor_new(w->ops, MBL_F32, numbers[i], 1, n));
    MBL_TRY(mbl_tensor_new(w->ops, MBL_F32, &p->mix, 2, (size_t)2, n));
    MBL_TRY(mbl_tensor_new(w->ops, MBL_F32, &p->coefficient, 2, (size_t)1, n));
    return mbl_pipeline_conditions(w->pipeline, n, &p->conditions);
}

/* Uploads one number for every sample, given by index. */
static mbl_status_t upload_row(mbl_bench_pass_t *p, const mbl_tensor_t *row, const float *factor,
                               float otherwise) {
    size_t n = p->fixture->batch.n;
    float *values;
    MBL_ALLOC(values, n);
    for (size_t i = 0; i < n; i++)
        values[i] = factor ? factor[i] : otherwise;
    mbl_status_t status = mbl_tensor_upload(p->fixture->ops, row, values);
    mbl_free(values);
    return status;
}

static mbl_status_t fill(mbl_bench_pass_t *p) {
    mbl_bench_fixture_t *w = p->fixture;
    size_t n = w->batch.n;
    mbl_rng_t rng = mbl_rng(1, MBL_RNG_TRAIN, 0, 0);
    float *times;
    MBL_ALLOC(times, n);
    for (size_t i = 0; i < n; i++)
        times[i] = 0.01f + 0.98f * mbl_rng_uniform(&rng);
    mbl_status_t status = mbl_tensor_upload(w->ops, &p->t, times);
    mbl_free(times);
    MBL_TRY(status);
    mbl_tensor_t last = mbl_tensor_rows(&p->mix, 1, 1);
    MBL_TRY(upload_row(p, &last, NULL, 1));
    MBL_TRY(upload_row(p, &p->coefficient, NULL, 1.0f / (float)n));
    MBL_TRY(mbl_tensor_copy(w->ops, &p->xt, &w->batch.x0));
    return mbl_conditions_gather(w->ops, &w->conditions, w->batch.prompt, &p->conditions);
}

mbl_status_t mbl_bench_pass_open(mbl_bench_fixture_t *fixture, bool keep_too, mbl_bench_pass_t *out) {
    size_t c, height, width, n = fixture->batch.n, tokens = mbl_pipeline_context_tokens(fixture->pipeline);
    const mbl_dit_t *model = mbl_pipeline_model(fixture->pipeline);
    *out = (mbl_bench_pass_t){.fixture = fixture};
    mbl_pipeline_latent(fixture->pipeline, &c, &height, &width);
    MBL_TRY(make_tensors(out, n, c, height, width));
    MBL_TRY(mbl_tape_new(model, fixture->lora, MBL_TAPE_NONE, n, height, width, tokens, &out->none));
    if (keep_too)
        MBL_TRY(mbl_tape_new(model, fixture->lora, MBL_TAPE_LORA, n, height, width, tokens, &out->keep));
    return fill(out);
}

void mbl_bench_pass_close(mbl_bench_pass_t *p) {
    mbl_tensor_t *all[] = {&p->xt, &p->v,         &p->v_old,      &p->u,   &p->h,          &p->seed,
                           &p->t,  &p->loss_plus, &p->loss_minus, &p->mix, &p->coefficient};
    if (!p->fixture)
        return;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        mbl_tensor_free(p->fixture->ops, all[i]);
    mbl_conditions_free(p->fixture->ops, &p->conditions);
    mbl_tape_free(p->keep);
    mbl_tape_free(p->none);
    *p = (mbl_bench_pass_t){.fixture = NULL};
}

static mbl_dit_input_t input_of(const mbl_bench_pass_t *p) {
    return (mbl_dit_input_t){.x = &p->xt, .t = &p->t, .conditions = &p->conditions};
}

mbl_status_t mbl_bench_pass_forward(mbl_bench_pass_t *p) {
    mbl_dit_input_t input = input_of(p);
    return mbl_dit_forward(mbl_pipeline_model(p->fixture->pipeline), &p->fixture->update.policy.in_old,
                           &input, p->none, &p->v_old);
}

static mbl_status_t seeds(mbl_bench_pass_t *p) {
    const mbl_tensor_t *all[] = {&p->u, &p->h, &p->v, &p->v_old, &p->xt, &p->fixture->batch.x0};
    size_t n = p->fixture->batch.n;
    mbl_tensor_t flat[6];
    for (int i = 0; i < 6; i++)
        flat[i] = mbl_tensor_reshape(all[i], 2, n, mbl_tensor_count(all[i]) / n);
    return MBL_OP(p->fixture->ops, nft, .u = &flat[0], .h = &flat[1], .loss_plus = &p->loss_plus,
                  .loss_minus = &p->loss_minus, .v = &flat[2], .v_old = &flat[3], .xt = &flat[4],
                  .x0 = &flat[5], .t = &p->t, .beta = 0.1);
}

mbl_status_t mbl_bench_pass_forward_both(mbl_bench_pass_t *p) {
    mbl_dit_input_t input = input_of(p);
    MBL_TRY(mbl_bench_pass_forward(p));
    MBL_TRY(mbl_dit_forward(mbl_pipeline_model(p->fixture->pipeline), &p->fixture->update.policy.in_current,
                            &input, p->keep, &p->v));
    return seeds(p);
}

mbl_status_t mbl_bench_pass_separate(mbl_bench_pass_t *p, size_t k) {
    mbl_bench_fixture_t *w = p->fixture;
    mbl_dit_t *model = mbl_pipeline_model(w->pipeline);
    mbl_dit_input_t input = input_of(p);
    size_t n = w->batch.n;
    mbl_tensor_t factors = mbl_tensor_rows(&p->mix, 0, 1), flat[3];
    const mbl_tensor_t *from[] = {&p->seed, &p->u, &p->h};
    for (int i = 0; i < 3; i++)
        flat[i] = mbl_tensor_reshape(from[i], 2, n, mbl_tensor_count(from[i]) / n);
    MBL_TRY(mbl_bench_pass_forward_both(p));
    MBL_TRY(mbl_tensor_zero(w->ops, &w->update.sets));
    for (size_t r = 0; r < k; r++) {
        mbl_tensor_t set = mbl_tensor_rows(&w->update.sets, r, 1);
        mbl_gradient_sink_t sink = {.sets = &set, .coefficient = &p->coefficient};
        MBL_TRY(upload_row(p, &factors, w->a + r * n, 0));
        MBL_TRY(
            MBL_OP(w->ops, rows_combine, .y = &flat[0], .coefficient = &p->mix, .x = {&flat[1], &flat[2]}));
        MBL_TRY(mbl_dit_backward(model, &w->update.policy.in_current, &input, p->keep, &p->seed, &sink));
    }
    return w->ops->table->sync(w->ops);
}
