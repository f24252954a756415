/* The direction of a step as MARBLE's released code finds it (rl/reference.h). */
#include "train/loop_internal.h"

#include "base/clock.h"
#include "rl/gram_part.h"

#include <math.h>
#include <string.h>

/* Adds what was just formed, D = sum_j coefficient_j shard_j, to the shard's last row. */
static mbl_status_t accumulate(mbl_train_t *t, mbl_train_step_t *step, const mbl_balance_step_t *balance) {
    mbl_tensor_t last = mbl_tensor_rows(&t->shard, t->stage.parts + 1, 1);
    mbl_tensor_t flat = mbl_tensor_reshape(&last, 1, t->state.optimizer.count);
    MBL_TRY(mbl_train_combine(t, step, balance));
    return MBL_OP(t->engine.ops, axpby, .y = &flat, .x = &t->direction, .a = 1, .b = 1);
}

/* One micro-batch at one position of the timestep orders: all gradients, its own solve, its own direction. */
static mbl_status_t solve_micro_batch(mbl_train_t *t, mbl_train_step_t *step, size_t micro, size_t slot,
                                      mbl_step_report_t *report) {
    double gram[MBL_MAX_SETS * MBL_MAX_SETS], start;
    size_t k = t->engine.k, n = t->batch.n;
    mbl_tensor_t shard = mbl_tensor_rows(&t->shard, 0, k + 1);
    mbl_balance_options_t options = mbl_train_balance_options(t);
    options.common = MBL_COMMON_APART; /* the KL term */
    memset(t->part_of, MBL_PART_REST, step->args.timesteps * n);
    for (size_t i = 0; i < n; i++)
        t->part_of[slot * n + i] = t->reference.micro[i] == micro ? MBL_PART_GRAM : MBL_PART_REST;
    MBL_TRY(mbl_reference_share(t->comm, &t->reference, n, k, micro));
    step->args.part = MBL_PART_GRAM;
    step->args.parts = k;
    step->args.share = t->reference.share;
    step->args.c = NULL;
    step->m = k + 1;
    MBL_TRY(mbl_train_form(t, step, &shard, gram, report));
    start = mbl_now();
    MBL_TRY(mbl_balance(t->comm, &options, gram, k, &t->state.balance, &report->balance));
    report->seconds.qp += mbl_lap(&start);
    memcpy(step->coefficient, report->balance.coefficient, step->m * sizeof *step->coefficient);
    step->coefficient[k] = isfinite(gram[k * step->m + k]) ? 1 : 0;
    step->args.share = NULL;
    step->args.parts = t->stage.parts;
    return accumulate(t, step, &report->balance);
}

/* All rows but those of the solve, with the averaged alpha in one objective. */
static mbl_status_t follow_average(mbl_train_t *t, mbl_train_step_t *step, mbl_step_report_t *report) {
    double square, c[MBL_MAX_REWARDS + 1] = {0};
    size_t k = t->engine.k;
    mbl_tensor_t shard = mbl_tensor_rows(&t->shard, 0, 1);
    mbl_reference_factors(t->reference.raw, t->batch.n, k, t->state.balance.alpha_mean, t->config->train.clip,
                          t->a + k * t->batch.n);
    c[k] = 1;
    step->args.part = MBL_PART_REST;
    step->args.c = c;
    step->m = 1;
    MBL_TRY(mbl_train_form(t, step, &shard, &square, report));
    step->args.c = NULL;
    step->coefficient[0] = isfinite(square) ? 1 : 0;
    return accumulate(t, step, &report->balance);
}

/* Cosines of D, which stands in the shard's last row, with the gradients of the whole step. */
static mbl_status_t measure_reference(mbl_train_t *t, mbl_train_step_t *step, mbl_step_report_t *report) {
    double gram[MBL_MAX_SETS * MBL_MAX_SETS], loss = report->loss, kl = report->kl;
    size_t k = t->engine.k, m = t->stage.parts + 2;
    mbl_tensor_t host = MBL_TENSOR_2(gram, MBL_F64, m, m);
    step->args.part_of = NULL;
    MBL_TRY(mbl_train_form_all(t, step, gram, report));
    report->loss = loss; /* of these rows for a second time */
    report->kl = kl;
    MBL_TRY(MBL_OP(t->engine.ops, gram, .gram = &host, .x = &t->shard));
    MBL_TRY(mbl_comm_allreduce(t->comm, gram, m * m, MBL_COMM_F64, MBL_COMM_SUM));
    mbl_balance_measure_row(gram, t->stage.parts, k, &report->balance);
    return MBL_OK;
}

/* As the released code: every micro-batch solves in the first step; later the first micro-batch of every
 * refresh_every-th does, and all rows after it follow the averaged alpha. */
mbl_status_t mbl_train_reference_direction(mbl_train_t *t, mbl_train_step_t *step,
                                           mbl_step_report_t *report) {
    bool warmup = t->state.step < MBL_REFERENCE_WARMUP;
    size_t slice = step->args.slice, count = t->state.optimizer.count, k = t->engine.k, solved = 0;
    mbl_tensor_t last = mbl_tensor_rows(&t->shard, t->stage.parts + 1, 1),
                 flat = mbl_tensor_reshape(&last, 1, count);
    mbl_tensor_t row = mbl_tensor_reshape(&t->direction, 2, (size_t)1, count);
    double square;
    mbl_tensor_t host = MBL_TENSOR_2(&square, MBL_F64, 1, 1);
    step->refresh =
        warmup || t->state.cache.age == 0 || t->state.cache.age >= t->config->balance.refresh_every;
    report->balanced = true;
    report->refreshed = step->refresh;
    step->args.part_of = t->part_of;
    memset(t->part_of, MBL_PART_REST, step->args.timesteps * t->batch.n);
    MBL_TRY(mbl_tensor_zero(t->engine.ops, &last));
    for (size_t micro = 0; step->refresh && micro < (warmup ? t->reference.n_micro : 1); micro++)
        for (size_t slot = slice; slot < (warmup ? step->args.timesteps : slice + 1);
             slot += step->args.slices, solved++)
            MBL_TRY(solve_micro_batch(t, step, micro, slot, report));
    size_t slots = (step->args.timesteps - slice + step->args.slices - 1) / step->args.slices;
    size_t first =
        t->batch.n_global < t->config->train.micro_batch ? t->batch.n_global : t->config->train.micro_batch;
    report->gram_share = warmup ? 1 : (double)(solved * first) / (double)(slots * t->batch.n_global);
    if (!step->refresh)
        mbl_reference_kept(&t->state.balance, report->stats, k, &report->balance);
    if (!warmup)
        MBL_TRY(follow_average(t, step, report));
    if (step->diagnose)
        MBL_TRY(measure_reference(t, step, report));
    MBL_TRY(MBL_OP(t->engine.ops, convert, .dst = &t->direction, .src = &flat));
    MBL_TRY(MBL_OP(t->engine.ops, gram, .gram = &host, .x = &row));
    MBL_TRY(mbl_comm_allreduce(t->comm, &square, 1, MBL_COMM_F64, MBL_COMM_SUM));
    step->norm = isfinite(square) ? sqrt(square) : 0;
    step->formed = true;
    step->cache.age = step->refresh ? 0 : t->state.cache.age;
    return MBL_OK;
}
