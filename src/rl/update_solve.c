/* Gradients, their exact Gram matrix, and the weights it gives: one set of weights for the whole step. */
#include "rl/update_internal.h"

#include "base/clock.h"
#include "rl/gram.h"
#include "rl/gram_part.h"

#include <math.h>
#include <string.h>

mbl_status_t mbl_update_form_into(mbl_update_t *u, mbl_update_step_t *step, const mbl_tensor_t *shard,
                                  double *gram) {
    mbl_update_result_t *out = step->out;
    mbl_tensor_t sets = mbl_tensor_rows(&u->sets, 0, shard->dim[0]);
    mbl_gradient_stats_t stats;
    mbl_gram_sum_t sum = {.comm = u->comm, .ops = u->ops, .sets = &sets, .shard = shard};
    mbl_gradient_args_t args = step->args;
    double start = mbl_now();
    args.ready = mbl_gram_ready;
    args.context = &sum;
    MBL_TRY(mbl_gram_formed(&sum, mbl_gradient_run(u->gradient, &args, &sets, &stats)));
    double sums[2] = {stats.loss, stats.kl};
    MBL_TRY(mbl_comm_allreduce(u->comm, sums, 2, MBL_COMM_F64, MBL_COMM_SUM));
    out->loss += sums[0];
    out->kl += sums[1];
    out->seconds.train += mbl_lap(&start);
    MBL_TRY(mbl_gram_finish(&sum, gram));
    out->finite &= isfinite(sums[0]) && isfinite(sums[1]);
    for (size_t i = 0; i < shard->dim[0]; i++)
        out->finite &= isfinite(gram[i * shard->dim[0] + i]);
    out->seconds.gram += mbl_lap(&start);
    return MBL_OK;
}

mbl_status_t mbl_update_form(mbl_update_t *u, mbl_update_step_t *step, double *gram) {
    step->m = mbl_gradient_sets(&step->args);
    MBL_REQUIRE(step->m < u->shard.dim[0], "update: %zu sets with room for %zu", step->m, u->sets.dim[0]);
    mbl_tensor_t shard = mbl_tensor_rows(&u->shard, 0, step->m);
    return mbl_update_form_into(u, step, &shard, gram);
}

static mbl_status_t form_all(mbl_update_t *u, mbl_update_step_t *step, double *gram) {
    step->args.c = NULL;
    return mbl_update_form(u, step, gram);
}

mbl_balance_options_t mbl_update_balance_options(const mbl_update_step_t *step) {
    mbl_balance_options_t options = step->options->balance;
    options.sets = &step->sets;
    if (step->options->warmup) {
        options.method = MBL_METHOD_EQUAL;
        if (options.common == MBL_COMMON_OFFSET) /* no weights to find that allow for it: added once */
            options.common = MBL_COMMON_APART;
    }
    return options;
}

static void take_weights(mbl_update_step_t *step) {
    const mbl_balance_step_t *balance = &step->out->balance;
    memcpy(step->coefficient, balance->coefficient, mbl_sets_count(&step->sets) * sizeof *step->coefficient);
    step->norm = balance->direction_norm;
}

/* [K] rewards whose scores can have a gradient. */
static void usable(const mbl_update_step_t *step, bool *valid) {
    const mbl_update_options_t *o = step->options;
    for (size_t i = 0; i < step->args.batch->k; i++)
        valid[i] = (!o->balance.active || o->balance.active[i]) && o->stats[i].valid > 0 &&
                   o->stats[i].advantage_std > 0;
}

/* Those of them that rows of the solve have. */
static void tried(const mbl_update_step_t *step, const mbl_update_share_t *share, bool *out) {
    usable(step, out);
    for (size_t i = 0; share && i < step->args.batch->k; i++)
        out[i] = out[i] && step->sets.of[i] != MBL_NO_MASK && share->mask[step->sets.of[i]] > 0;
}

/* The averaged alpha instead of the solution, over lengths of this solve. */
static mbl_status_t smooth(mbl_update_step_t *step, const mbl_balance_options_t *options,
                           const double *gram) {
    mbl_balance_step_t averaged, *balance = &step->out->balance;
    size_t k = step->args.batch->k;
    MBL_TRY(mbl_amortise_step(options, &step->balance, &step->cache, balance->used, k, &averaged));
    memcpy(balance->coefficient, averaged.coefficient, sizeof averaged.coefficient);
    memcpy(balance->alpha, averaged.alpha, sizeof averaged.alpha);
    mbl_balance_measure(gram, &step->sets, options->active, k, balance);
    return MBL_OK;
}

/* The solution, shrunk by what its halves disagree: other weights over the same lengths. They are what is
 * applied, so the average is of them, and steps with cached weights follow it. */
static mbl_status_t shrink(mbl_update_step_t *step, const mbl_balance_options_t *options,
                           const mbl_balance_state_t *before, const double *gram) {
    mbl_update_result_t *out = step->out;
    mbl_balance_step_t shrunk, *balance = &out->balance;
    mbl_balance_state_t as_average = *before;
    mbl_amortise_t lengths = {.age = 0};
    double target[MBL_MAX_REWARDS], sum = 0, n = (double)balance->n_used;
    size_t k = step->args.batch->k;
    bool average = step->options->shrink == MBL_SHRINK_AVERAGE;
    for (size_t i = 0; i < k; i++) {
        bool known = average && before->seen[i];
        target[i] = balance->used[i] ? known ? before->alpha_mean[i] : 1 / n : 0;
        sum += target[i];
    }
    for (size_t i = 0; i < k; i++)
        target[i] /= sum;
    out->shrunk = mbl_noise_shrink(out->alpha_half[0], out->alpha_half[1], step->first_half, target,
                                   balance->used, k, balance->alpha);
    memcpy(as_average.alpha_mean, balance->alpha, k * sizeof *balance->alpha);
    mbl_amortise_keep(&lengths, balance, balance->used, before, k);
    MBL_TRY(mbl_amortise_step(options, &as_average, &lengths, balance->used, k, &shrunk));
    memcpy(balance->coefficient, shrunk.coefficient, sizeof shrunk.coefficient);
    step->balance = *before;
    mbl_balance_average(options->rho, k, balance, &step->balance);
    mbl_balance_measure(gram, &step->sets, options->active, k, balance);
    return MBL_OK;
}

void mbl_update_compare(mbl_update_step_t *step, const double *gram) {
    mbl_sets_cosines(&step->sets, gram, step->args.batch->k, step->out->cos_pair);
    step->out->paired = true;
}

/* Lengths are scaled up to what the whole step would have. */
mbl_status_t mbl_update_solve(mbl_update_t *u, mbl_update_step_t *step, const double *gram,
                              const mbl_update_share_t *share) {
    mbl_balance_options_t options = mbl_update_balance_options(step);
    size_t m = mbl_sets_count(&step->sets), k = step->args.batch->k;
    double scaled[MBL_MAX_SETS * MBL_MAX_SETS], start = mbl_now();
    mbl_balance_state_t before = step->balance;
    mbl_update_result_t *out = step->out;
    memcpy(scaled, gram, m * m * sizeof *scaled);
    if (share)
        mbl_sets_scale(&step->sets, share->mask, share->rows, scaled);
    mbl_update_compare(step, scaled);
    MBL_TRY(mbl_balance(u->comm, &options, scaled, k, &step->balance, &out->balance));
    memcpy(out->alpha_raw, out->balance.alpha, sizeof out->alpha_raw);
    if (step->options->warmup) /* equal weights are no solution to average */
        step->balance = before;
    if (step->options->shrink && out->halves && !step->options->warmup && out->balance.n_used > 0)
        MBL_TRY(shrink(step, &options, &before, scaled));
    if (step->refresh) {
        bool had[MBL_MAX_REWARDS];
        tried(step, share, had);
        mbl_amortise_keep(&step->cache, &out->balance, had, &step->balance, k);
        if (step->options->smooth)
            MBL_TRY(smooth(step, &options, scaled));
    }
    take_weights(step);
    out->refreshed = true;
    out->gram_share = share ? share->rows : 1;
    out->seconds.qp += mbl_lap(&start);
    return MBL_OK;
}

/* ---- rows in parts ---- */

static bool in_halves(const mbl_update_step_t *step) {
    return step->options->halves || step->options->shrink;
}

static mbl_status_t solve_half(mbl_update_t *u, mbl_update_step_t *step, const double *gram, size_t which) {
    mbl_balance_options_t options = mbl_update_balance_options(step);
    mbl_balance_state_t untouched = step->balance;
    mbl_balance_step_t half;
    MBL_TRY(mbl_balance(u->comm, &options, gram, step->args.batch->k, &untouched, &half));
    memcpy(step->out->alpha_half[which], half.alpha, sizeof half.alpha);
    step->out->halves &= half.n_used > 0;
    return MBL_OK;
}

/* The share of every mask's rows that have a name, MBL_PART_GRAM, HALF or both. Collective. */
static mbl_status_t share_masks(mbl_update_t *u, const mbl_update_step_t *step, bool both,
                                mbl_update_share_t *share) {
    const mbl_gradient_args_t *args = &step->args;
    size_t n = args->batch->n, slots = (args->timesteps - args->slice + args->slices - 1) / args->slices;
    size_t masks = step->sets.masks;
    double sums[MBL_MAX_PARTS + 1] = {0};
    for (size_t slot = args->slice; slot < args->timesteps; slot += args->slices)
        for (size_t i = 0; i < n; i++) {
            uint8_t part = u->part_of[slot * n + i];
            if (part != MBL_PART_GRAM && !(both && part == MBL_PART_HALF))
                continue;
            for (size_t m = 0; m < masks; m++)
                sums[m] += mbl_masks_weight(args->masks, args->masks ? args->masks->first[m] : 0, i, n);
            sums[masks]++;
        }
    MBL_TRY(mbl_comm_allreduce(u->comm, sums, masks + 1, MBL_COMM_F64, MBL_COMM_SUM));
    for (size_t m = 0; m < masks; m++) /* the weights of a mask's rows add up to all rows */
        share->mask[m] = sums[m] / (double)(args->batch->n_global * slots);
    share->rows = sums[masks] / (double)(args->batch->n_global * slots);
    return MBL_OK;
}

/* Which part of the rows of both halves the first has, and what the noise of the reward parts follows from.
 */
static mbl_status_t measure_noise(mbl_update_t *u, mbl_update_step_t *step, const double *whole,
                                  const double *first, const double *second) {
    mbl_update_share_t half, both;
    MBL_TRY(share_masks(u, step, false, &half));
    MBL_TRY(share_masks(u, step, true, &both));
    for (size_t m = 0; m < step->sets.masks; m++)
        half.mask[m] = both.mask[m] > 0 ? half.mask[m] / both.mask[m] : 0;
    step->first_half = half.rows / both.rows;
    mbl_noise_ratio(&step->sets, whole, first, second, half.mask, step->args.batch->k,
                    step->out->noise_ratio);
    return MBL_OK;
}

/* All sets of the rows a solve sees, where they are in two halves: also what either says alone. The second's
 * sets are what it added to the first's. */
static mbl_status_t form_halves(mbl_update_t *u, mbl_update_step_t *step, double *gram) {
    double first[MBL_MAX_SETS * MBL_MAX_SETS], second[MBL_MAX_SETS * MBL_MAX_SETS];
    size_t m = mbl_sets_count(&step->sets);
    mbl_tensor_t shard = mbl_tensor_rows(&u->shard, 0, m), host = MBL_TENSOR_2(second, MBL_F64, m, m);
    mbl_tensor_t half = mbl_tensor_rows(&u->half, 0, m);
    step->out->halves = true;
    step->args.part_of = u->part_of;
    step->args.part = MBL_PART_GRAM;
    MBL_TRY(form_all(u, step, first));
    MBL_TRY(solve_half(u, step, first, 0));
    MBL_TRY(mbl_tensor_copy(u->ops, &half, &shard));
    step->args.part = MBL_PART_HALF;
    step->args.add = true;
    MBL_TRY(form_all(u, step, gram));
    step->args.add = false;
    MBL_TRY(MBL_OP(u->ops, axpby, .y = &half, .x = &shard, .a = 1, .b = -1));
    MBL_TRY(MBL_OP(u->ops, gram, .gram = &host, .x = &half));
    MBL_TRY(mbl_comm_allreduce(u->comm, second, m * m, MBL_COMM_F64, MBL_COMM_SUM));
    MBL_TRY(measure_noise(u, step, gram, first, second));
    return solve_half(u, step, second, 1);
}

/* All sets of the rows that the solve sees. */
static mbl_status_t form_solved(mbl_update_t *u, mbl_update_step_t *step, double *gram) {
    return in_halves(step) ? form_halves(u, step, gram) : form_all(u, step, gram);
}

/* Which rows the Gram matrix will see; fills part_of where that is not all. Collective. */
static mbl_status_t choose_part(mbl_update_t *u, const mbl_update_step_t *step, mbl_update_share_t *share) {
    const mbl_gradient_args_t *args = &step->args;
    mbl_gram_part_t options = {.fraction = step->options->gram_fraction,
                               .micro_batch = u->micro_batch,
                               .timesteps = args->timesteps,
                               .slice = args->slice,
                               .slices = args->slices,
                               .halves = in_halves(step),
                               .seed = args->seed,
                               .step = args->step};
    share->rows = u->part_of ? mbl_gram_part(&options, args->batch, u->part_of) : 1;
    return share->rows < 1 ? share_masks(u, step, true, share) : MBL_OK;
}

/* The gradients of the rows to come are one set, of these weights. */
static void know(mbl_update_step_t *step, const double *coefficient) {
    memcpy(step->c, coefficient, mbl_sets_count(&step->sets) * sizeof *step->c);
    step->args.c = step->c;
    step->args.common =
        step->options->balance.common == MBL_COMMON_TOGETHER ? NULL : step->c + step->args.parts;
}

/* All sets, for the cosines of a direction whose weights are given. */
static mbl_status_t form_and_measure(mbl_update_t *u, mbl_update_step_t *step, double *gram) {
    MBL_TRY(form_all(u, step, gram));
    mbl_update_compare(step, gram);
    mbl_balance_measure(gram, &step->sets, step->options->balance.active, step->args.batch->k,
                        &step->out->balance);
    take_weights(step);
    return MBL_OK;
}

/* Solves on a part of the rows; the rest follow with its weights. All sets are formed of the rest too where
 * cosines are asked for, or where the part had no usable reward: that solve sees the whole step. */
static mbl_status_t solve_on_part(mbl_update_t *u, mbl_update_step_t *step, const mbl_update_share_t *share) {
    double gram[MBL_MAX_SETS * MBL_MAX_SETS], of_rest;
    step->args.part_of = u->part_of;
    step->args.part = MBL_PART_GRAM;
    MBL_TRY(form_solved(u, step, gram));
    MBL_TRY(mbl_update_solve(u, step, gram, share));
    step->args.part = MBL_PART_REST;
    bool none = step->out->balance.n_used == 0;
    if (none || step->diagnose) {
        step->diagnose = step->args.add = true;
        if (!none)
            return form_and_measure(u, step, gram);
        MBL_TRY(form_all(u, step, gram));
        return mbl_update_solve(u, step, gram, NULL);
    }
    mbl_tensor_t last = mbl_tensor_rows(&u->shard, u->shard.dim[0] - 1, 1);
    know(step, step->coefficient);
    step->rest = true;
    return mbl_update_form_into(u, step, &last, &of_rest);
}

/* ---- the direction ---- */

/* A step whose weights are known: one backward pass, or all sets where cosines are asked for. */
static mbl_status_t apply_known(mbl_update_t *u, mbl_update_step_t *step) {
    double gram[MBL_MAX_SETS * MBL_MAX_SETS];
    if (step->diagnose)
        return form_and_measure(u, step, gram);
    step->args.c = step->c;
    MBL_TRY(mbl_update_form(u, step, gram));
    step->coefficient[0] = isfinite(gram[0]) ? 1 : 0;
    step->norm = isfinite(gram[0]) ? sqrt(gram[0]) : 0;
    return MBL_OK;
}

/* Cached weights, or the method's own objective. */
static mbl_status_t follow_known(mbl_update_t *u, mbl_update_step_t *step, const bool *valid, bool cached) {
    mbl_balance_options_t options = mbl_update_balance_options(step);
    size_t k = step->args.batch->k;
    if (cached) {
        MBL_TRY(mbl_amortise_step(&options, &step->balance, &step->cache, valid, k, &step->out->balance));
        know(step, step->out->balance.coefficient);
    } else
        step->c[step->args.parts - 1] = 1;
    return apply_known(u, step);
}

/* Weights from a Gram matrix. */
static mbl_status_t solve_now(mbl_update_t *u, mbl_update_step_t *step, bool by_part) {
    double gram[MBL_MAX_SETS * MBL_MAX_SETS];
    mbl_update_share_t share = {.rows = 1};
    if (by_part)
        MBL_TRY(choose_part(u, step, &share));
    if (share.rows < 1)
        return solve_on_part(u, step, &share);
    step->diagnose = true; /* costs nothing here */
    MBL_TRY(form_solved(u, step, gram));
    return mbl_update_solve(u, step, gram, NULL);
}

mbl_status_t mbl_update_balanced(mbl_update_t *u, mbl_update_step_t *step) {
    const mbl_update_options_t *o = step->options;
    bool solves = !mbl_method_has_objective(o->balance.method), cached, valid[MBL_MAX_REWARDS];
    usable(step, valid);
    step->refresh = solves && (mbl_amortise_due(&step->cache, o->refresh_every, valid, step->args.batch->k) ||
                               o->solve || o->begins);
    step->out->balanced = solves || step->diagnose;
    cached = solves && !step->refresh;
    MBL_TRY(cached || (!solves && !step->diagnose) ? follow_known(u, step, valid, cached)
                                                   : solve_now(u, step, solves));
    step->cache.age += step->refresh ? step->out->balance.n_used > 0 : step->cache.age > 0;
    return MBL_OK;
}
