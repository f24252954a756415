/* The direction of a step: gradients, their exact Gram matrix, and the weights it gives. */
#include "train/loop_internal.h"

#include "base/clock.h"
#include "rl/gram.h"
#include "rl/gram_part.h"

#include <math.h>
#include <string.h>

/* The gradients step->args ask for (all sets, or one with c), summed over ranks into `shard`, and their Gram
 * matrix. */
mbl_status_t mbl_train_form(mbl_train_t *t, const mbl_train_step_t *step, const mbl_tensor_t *shard,
                            double *gram, mbl_step_report_t *report) {
    mbl_tensor_t sets = mbl_tensor_rows(&t->sets, 0, shard->dim[0]);
    mbl_gradient_stats_t stats;
    mbl_gram_sum_t sum = {.comm = t->comm, .ops = t->engine.ops, .sets = &sets, .shard = shard};
    mbl_gradient_args_t args = step->args;
    double start = mbl_now();
    args.ready = mbl_gram_ready;
    args.context = &sum;
    MBL_TRY(mbl_gram_formed(&sum, mbl_gradient_run(t->gradient, &args, &sets, &stats)));
    double sums[2] = {stats.loss, stats.kl};
    MBL_TRY(mbl_comm_allreduce(t->comm, sums, 2, MBL_COMM_F64, MBL_COMM_SUM));
    report->loss += sums[0];
    report->kl += sums[1];
    report->seconds.train += mbl_lap(&start);
    MBL_TRY(mbl_gram_finish(&sum, gram));
    report->finite &= isfinite(sums[0]) && isfinite(sums[1]);
    for (size_t i = 0; i < shard->dim[0]; i++)
        report->finite &= isfinite(gram[i * shard->dim[0] + i]);
    report->seconds.gram += mbl_lap(&start);
    return MBL_OK;
}

/* All sets. */
mbl_status_t mbl_train_form_all(mbl_train_t *t, mbl_train_step_t *step, double *gram,
                                mbl_step_report_t *report) {
    mbl_tensor_t shard = mbl_tensor_rows(&t->shard, 0, t->stage.parts + 1);
    step->m = t->stage.parts + 1;
    step->args.c = NULL;
    return mbl_train_form(t, step, &shard, gram, report);
}

static bool warms_up(const mbl_train_t *t) {
    return t->state.step < t->config->balance.warmup;
}

mbl_balance_options_t mbl_train_balance_options(const mbl_train_t *t) {
    return (mbl_balance_options_t){.method = warms_up(t) ? MBL_METHOD_EQUAL : t->stage.method,
                                   .common = (mbl_common_t)t->config->balance.common,
                                   .floor = t->config->balance.floor,
                                   .cagrad_c = t->config->balance.cagrad_c,
                                   .rho = t->config->balance.rho,
                                   .weights = t->stage.weights,
                                   .group = t->group,
                                   .active = t->stage.active,
                                   .pressure = t->pressure};
}

static void take_weights(const mbl_train_t *t, mbl_train_step_t *step, const mbl_step_report_t *report) {
    memcpy(step->coefficient, report->balance.coefficient, (t->stage.parts + 1) * sizeof *step->coefficient);
    step->norm = report->balance.direction_norm;
}

/* Weights from the Gram matrix of all sets, which saw `share` of the rows: lengths are scaled up to what the
 * whole step would have. */
static mbl_status_t solve(mbl_train_t *t, mbl_train_step_t *step, const double *gram, double share,
                          mbl_step_report_t *report) {
    mbl_balance_options_t options = mbl_train_balance_options(t);
    size_t m = t->stage.parts + 1;
    double scaled[MBL_MAX_SETS * MBL_MAX_SETS], start = mbl_now();
    mbl_balance_state_t before = t->state.balance;
    for (size_t i = 0; i < m * m; i++)
        scaled[i] = gram[i] / (share * share);
    MBL_TRY(mbl_balance(t->comm, &options, scaled, t->engine.k, &t->state.balance, &report->balance));
    if (warms_up(t)) /* equal weights are no solution to average */
        t->state.balance = before;
    if (step->refresh) {
        mbl_amortise_keep(&step->cache, &report->balance, t->engine.k);
        if (t->config->balance.on_refresh == MBL_CONFIG_ON_REFRESH_SMOOTH) {
            mbl_balance_step_t smooth;
            MBL_TRY(mbl_amortise_step(&options, &t->state.balance, &step->cache, report->balance.used,
                                      t->engine.k, &smooth));
            memcpy(report->balance.coefficient, smooth.coefficient, sizeof smooth.coefficient);
            step->smoothed = true;
        }
    }
    if (step->smoothed) /* what is applied */
        mbl_balance_measure(scaled, t->engine.k, &report->balance);
    take_weights(t, step, report);
    report->refreshed = true;
    report->gram_share = share;
    report->seconds.qp += mbl_lap(&start);
    return MBL_OK;
}

/* A step whose weights are known: one backward pass, or all sets where cosines are asked for. */
static mbl_status_t apply_known(mbl_train_t *t, mbl_train_step_t *step, mbl_step_report_t *report) {
    double gram[MBL_MAX_SETS * MBL_MAX_SETS];
    if (step->diagnose) {
        MBL_TRY(mbl_train_form_all(t, step, gram, report));
        mbl_balance_measure(gram, t->engine.k, &report->balance);
        take_weights(t, step, report);
        return MBL_OK;
    }
    mbl_tensor_t shard = mbl_tensor_rows(&t->shard, 0, 1);
    step->m = 1;
    step->args.c = step->c;
    MBL_TRY(mbl_train_form(t, step, &shard, gram, report));
    step->coefficient[0] = isfinite(gram[0]) ? 1 : 0;
    step->norm = isfinite(gram[0]) ? sqrt(gram[0]) : 0;
    return MBL_OK;
}

static mbl_status_t solve_half(mbl_train_t *t, const double *gram, size_t which, mbl_step_report_t *report) {
    mbl_balance_options_t options = mbl_train_balance_options(t);
    mbl_balance_state_t untouched = t->state.balance;
    mbl_balance_step_t half;
    MBL_TRY(mbl_balance(t->comm, &options, gram, t->engine.k, &untouched, &half));
    memcpy(report->alpha_half[which], half.alpha, sizeof half.alpha);
    report->halves &= half.n_used > 0;
    return MBL_OK;
}

/* All sets of the rows a solve sees, where they are in two halves: also what either says alone. The second's
 * sets are what it added to the first's. */
static mbl_status_t form_halves(mbl_train_t *t, mbl_train_step_t *step, double *gram,
                                mbl_step_report_t *report) {
    double second[MBL_MAX_SETS * MBL_MAX_SETS];
    size_t m = t->stage.parts + 1;
    mbl_tensor_t shard = mbl_tensor_rows(&t->shard, 0, m), host = MBL_TENSOR_2(second, MBL_F64, m, m);
    mbl_tensor_t half = mbl_tensor_rows(&t->half, 0, m);
    report->halves = true;
    step->args.part_of = t->part_of;
    step->args.part = MBL_PART_GRAM;
    MBL_TRY(mbl_train_form_all(t, step, gram, report));
    MBL_TRY(solve_half(t, gram, 0, report));
    MBL_TRY(mbl_tensor_copy(t->engine.ops, &half, &shard));
    step->args.part = MBL_PART_HALF;
    step->args.add = true;
    MBL_TRY(mbl_train_form_all(t, step, gram, report));
    step->args.add = false;
    MBL_TRY(MBL_OP(t->engine.ops, axpby, .y = &half, .x = &shard, .a = 1, .b = -1));
    MBL_TRY(MBL_OP(t->engine.ops, gram, .gram = &host, .x = &half));
    MBL_TRY(mbl_comm_allreduce(t->comm, second, m * m, MBL_COMM_F64, MBL_COMM_SUM));
    return solve_half(t, second, 1, report);
}

/* Solves on the rows of a partial Gram matrix; the rest of the rows follow with its weights. All sets are
 * formed of the rest too where cosines are asked for, or where the part had no usable reward: that solve sees
 * the whole step. */
static mbl_status_t solve_on_part(mbl_train_t *t, mbl_train_step_t *step, double share,
                                  mbl_step_report_t *report) {
    double gram[MBL_MAX_SETS * MBL_MAX_SETS], of_rest;
    step->args.part_of = t->part_of;
    step->args.part = MBL_PART_GRAM;
    MBL_TRY(step->halves ? form_halves(t, step, gram, report) : mbl_train_form_all(t, step, gram, report));
    MBL_TRY(solve(t, step, gram, share, report));
    step->args.part = MBL_PART_REST;
    bool none = report->balance.n_used == 0;
    if (step->diagnose || none) {
        step->diagnose = step->args.add = true;
        MBL_TRY(mbl_train_form_all(t, step, gram, report));
        if (none)
            return solve(t, step, gram, 1, report);
        mbl_balance_measure(gram, t->engine.k, &report->balance);
        take_weights(t, step, report);
        return MBL_OK;
    }
    mbl_tensor_t last = mbl_tensor_rows(&t->shard, t->stage.parts + 1, 1);
    memcpy(step->c, step->coefficient, t->stage.parts * sizeof *step->c);
    step->args.c = step->c;
    step->rest = true;
    return mbl_train_form(t, step, &last, &of_rest, report);
}

/* The share of the rows that the Gram matrix will see; fills part_of where that is not 1. */
static double choose_part(mbl_train_t *t, const mbl_train_step_t *step) {
    const mbl_gradient_args_t *args = &step->args;
    mbl_gram_part_t options = {.fraction = t->config->balance.gram_fraction,
                               .micro_batch = t->config->train.micro_batch,
                               .timesteps = args->timesteps,
                               .slice = args->slice,
                               .slices = args->slices,
                               .halves = step->halves,
                               .seed = args->seed,
                               .step = args->step};
    return t->part_of ? mbl_gram_part(&options, &t->batch, t->part_of) : 1;
}

/* D into t->direction. Sets that it leaves out and that no cosine is asked of become zero first: they may
 * hold NaN, and 0 NaN = NaN. */
mbl_status_t mbl_train_combine(mbl_train_t *t, mbl_train_step_t *step, const mbl_balance_step_t *balance) {
    mbl_tensor_t sets = mbl_tensor_rows(&t->shard, 0, step->m);
    size_t count = t->state.optimizer.count;
    for (size_t j = 0; j < step->m; j++) {
        mbl_tensor_t row = mbl_tensor_rows(&t->shard, j, 1);
        bool wanted = step->diagnose && j < t->engine.k && isfinite(balance->norm[j]);
        if (step->coefficient[j] == 0 && !wanted)
            MBL_TRY(mbl_tensor_zero(t->engine.ops, &row));
    }
    MBL_TRY(MBL_OP(t->engine.ops, combine, .y = &t->direction, .x = &sets, .coefficient = step->coefficient));
    if (!step->rest)
        return MBL_OK;
    double square;
    mbl_tensor_t last = mbl_tensor_rows(&t->shard, t->stage.parts + 1, 1),
                 host = MBL_TENSOR_2(&square, MBL_F64, 1, 1);
    mbl_tensor_t row = mbl_tensor_reshape(&t->direction, 2, (size_t)1, count);
    mbl_tensor_t flat = mbl_tensor_reshape(&last, 1, count);
    MBL_TRY(MBL_OP(t->engine.ops, axpby, .y = &t->direction, .x = &flat, .a = 1, .b = 1));
    MBL_TRY(MBL_OP(t->engine.ops, gram, .gram = &host, .x = &row));
    MBL_TRY(mbl_comm_allreduce(t->comm, &square, 1, MBL_COMM_F64, MBL_COMM_SUM));
    step->norm = isfinite(square) ? sqrt(square) : 0;
    return MBL_OK;
}

/* Gradients and weights of one optimizer step. */
mbl_status_t mbl_train_direction(mbl_train_t *t, mbl_train_step_t *step, mbl_step_report_t *report) {
    double gram[MBL_MAX_SETS * MBL_MAX_SETS], share;
    size_t k = t->engine.k, every = t->config->balance.diagnostics_every;
    bool valid[MBL_MAX_REWARDS], solves = !mbl_method_has_objective(t->stage.method);
    mbl_balance_options_t options = mbl_train_balance_options(t);
    for (size_t i = 0; i < k; i++)
        valid[i] = t->stage.active[i] && report->stats[i].valid > 0 && report->stats[i].advantage_std > 0;
    step->cache = t->state.cache;
    step->diagnose = every > 0 && t->state.step % every == 0;
    step->refresh = solves && (mbl_amortise_due(&step->cache, t->config->balance.refresh_every, valid, k) ||
                               t->state.step == t->config->balance.warmup || t->state.step == t->stage.first);
    if (t->stage.method == MBL_METHOD_REFERENCE)
        return mbl_train_reference_direction(t, step, report);
    report->balanced = solves || step->diagnose;
    step->halves =
        t->config->balance.alpha_halves > 0 && t->state.step % t->config->balance.alpha_halves == 0;
    if (solves && !step->refresh) {
        MBL_TRY(mbl_amortise_step(&options, &t->state.balance, &step->cache, valid, k, &report->balance));
        memcpy(step->c, report->balance.coefficient, k * sizeof *step->c);
        return apply_known(t, step, report);
    }
    if (!solves && !step->diagnose) {
        step->c[t->stage.parts - 1] = 1;
        return apply_known(t, step, report);
    }
    share = solves ? choose_part(t, step) : 1;
    if (share < 1)
        return solve_on_part(t, step, share, report);
    step->diagnose = true; /* costs nothing here */
    MBL_TRY(step->halves ? form_halves(t, step, gram, report) : mbl_train_form_all(t, step, gram, report));
    return solve(t, step, gram, 1, report);
}
