/* The direction of a step as MARBLE's released code finds it (reference.h): solutions of single
 * micro-batches, each for its own rows, and the averaged alpha for the others. */
#include "rl/update_internal.h"

#include "base/clock.h"
#include "rl/gram_part.h"

#include <math.h>
#include <string.h>

/* Adds what was just formed, D = sum_j coefficient_j shard_j, to the shard's last row. */
static mbl_status_t accumulate(mbl_update_t *u, mbl_update_step_t *step) {
    mbl_tensor_t last = mbl_update_last(u);
    MBL_TRY(mbl_update_combine(u, step));
    return MBL_OP(u->ops, axpby, .y = &last, .x = &u->direction, .a = 1, .b = 1);
}

/* One micro-batch at one position of the timestep orders: all gradients, its own solve, its own direction. */
static mbl_status_t solve_micro_batch(mbl_update_t *u, mbl_update_step_t *step, size_t micro, size_t slot) {
    double gram[MBL_MAX_SETS * MBL_MAX_SETS], start;
    mbl_reference_t *r = &u->reference;
    size_t k = r->batch.k, n = r->batch.n;
    mbl_balance_options_t options = mbl_update_balance_options(step);
    mbl_masks_t masks;
    memset(u->part_of, MBL_PART_REST, step->args.timesteps * n);
    for (size_t i = 0; i < n; i++)
        u->part_of[slot * n + i] = r->micro[i] == micro ? MBL_PART_GRAM : MBL_PART_REST;
    MBL_TRY(mbl_reference_masks(u->comm, r, n, k, micro, &masks));
    step->args.part = MBL_PART_GRAM;
    step->args.parts = k;
    step->args.masks = &masks;
    step->args.c = NULL;
    step->sets = mbl_sets(k, &masks, step->args.kl > 0);
    MBL_TRY(mbl_update_form(u, step, gram));
    mbl_update_compare(step, gram); /* of several that solve, the last one's stay, as its alpha does */
    start = mbl_now();
    MBL_TRY(mbl_balance(u->comm, &options, gram, k, &step->balance, &step->out->balance));
    memcpy(step->out->alpha_raw, step->out->balance.alpha, sizeof step->out->alpha_raw);
    step->out->seconds.qp += mbl_lap(&start);
    memcpy(step->coefficient, step->out->balance.coefficient, step->m * sizeof *step->coefficient);
    if (step->sets.kl) /* whether a reward is usable or not */
        step->coefficient[step->m - 1] = isfinite(gram[step->m * step->m - 1]) ? 1 : 0;
    step->args.masks = NULL;
    step->args.parts = step->options->gradient.parts;
    return accumulate(u, step);
}

/* All rows but those of the solve, with the averaged alpha in one objective. */
static mbl_status_t follow_average(mbl_update_t *u, mbl_update_step_t *step) {
    mbl_reference_t *r = &u->reference;
    double square, c[MBL_MAX_REWARDS + 1] = {0};
    size_t k = r->batch.k, n = r->batch.n;
    mbl_reference_factors(r->raw, n, k, step->balance.alpha_mean, step->args.clip, r->a + k * n);
    c[k] = 1;
    step->args.part = MBL_PART_REST;
    step->args.c = c;
    MBL_TRY(mbl_update_form(u, step, &square));
    step->args.c = NULL;
    step->coefficient[0] = isfinite(square) ? 1 : 0;
    return accumulate(u, step);
}

/* Cosines of D, which stands in the shard's last row, with the gradients of the whole step. */
static mbl_status_t measure(mbl_update_t *u, mbl_update_step_t *step) {
    mbl_update_result_t *out = step->out;
    double gram[MBL_MAX_SETS * MBL_MAX_SETS], loss = out->loss, kl = out->kl;
    mbl_reference_t *r = &u->reference;
    mbl_masks_t masks;
    MBL_TRY(mbl_reference_masks(u->comm, r, r->batch.n, r->batch.k, MBL_REFERENCE_ALL, &masks));
    step->args.part_of = NULL;
    step->args.masks = &masks;
    step->sets = mbl_sets(step->args.parts, &masks, step->args.kl > 0);
    size_t m = mbl_sets_count(&step->sets) + 1;
    mbl_tensor_t host = MBL_TENSOR_2(gram, MBL_F64, m, m), rows = mbl_tensor_rows(&u->shard, 0, m);
    mbl_tensor_t last = mbl_update_last(u), behind = mbl_update_behind(u, step);
    MBL_TRY(mbl_update_form(u, step, gram));
    mbl_update_compare(step, gram);
    step->args.masks = NULL;
    if (behind.data != last.data)
        MBL_TRY(mbl_tensor_copy(u->ops, &behind, &last));
    out->loss = loss; /* of these rows for a second time */
    out->kl = kl;
    MBL_TRY(MBL_OP(u->ops, gram, .gram = &host, .x = &rows));
    MBL_TRY(mbl_comm_allreduce(u->comm, gram, m * m, MBL_COMM_F64, MBL_COMM_SUM));
    mbl_balance_measure_row(gram, &step->sets, step->options->balance.active, step->args.batch->k,
                            &out->balance);
    return MBL_OK;
}

/* Every micro-batch solves in the first step; later the first micro-batch of every refresh_every-th does. */
static mbl_status_t solve_some(mbl_update_t *u, mbl_update_step_t *step, bool warmup) {
    const mbl_gradient_args_t *args = &step->args;
    size_t solved = 0, slots = (args->timesteps - args->slice + args->slices - 1) / args->slices;
    size_t all = u->reference.batch.n_global, first = all < u->micro_batch ? all : u->micro_batch;
    for (size_t micro = 0; step->refresh && micro < (warmup ? u->reference.n_micro : 1); micro++)
        for (size_t slot = args->slice; slot < (warmup ? args->timesteps : args->slice + 1);
             slot += args->slices, solved++)
            MBL_TRY(solve_micro_batch(u, step, micro, slot));
    step->out->gram_share = warmup ? 1 : (double)(solved * first) / (double)(slots * all);
    return MBL_OK;
}

/* The rows of the step, in the order in which they are trained: mixed anew for every pass over them. */
static mbl_status_t take_rows(mbl_update_t *u, mbl_update_step_t *step) {
    mbl_gradient_args_t *args = &step->args;
    mbl_reference_t *r = &u->reference;
    if (args->slice == 0)
        MBL_TRY(mbl_reference_mix(r, u->ops, args->batch, args->a, args->seed, args->step, u->micro_batch));
    args->batch = &r->batch;
    args->a = r->a;
    args->part_of = u->part_of;
    args->masks = NULL;    /* by micro-batch; rows of the one objective all count */
    args->kl_apart = true; /* once, after balancing */
    memset(u->part_of, MBL_PART_REST, args->timesteps * r->batch.n);
    return MBL_OK;
}

mbl_status_t mbl_update_reference(mbl_update_t *u, mbl_update_step_t *step) {
    const mbl_update_options_t *o = step->options;
    bool warmup = o->step <= MBL_REFERENCE_WARMUP;
    mbl_tensor_t last = mbl_update_last(u);
    double square;
    step->refresh = warmup || step->cache.age == 0 || step->cache.age >= o->refresh_every;
    step->out->balanced = true;
    step->out->refreshed = step->refresh;
    MBL_TRY(take_rows(u, step));
    MBL_TRY(mbl_tensor_zero(u->ops, &last));
    MBL_TRY(solve_some(u, step, warmup));
    if (!step->refresh)
        mbl_reference_kept(&step->balance, o->stats, step->args.batch->k, &step->out->balance);
    if (!warmup)
        MBL_TRY(follow_average(u, step));
    if (step->diagnose)
        MBL_TRY(measure(u, step));
    MBL_TRY(MBL_OP(u->ops, convert, .dst = &u->direction, .src = &last));
    MBL_TRY(mbl_update_square(u, &u->direction, &square));
    step->norm = isfinite(square) ? sqrt(square) : 0;
    step->formed = true;
    step->cache.age = step->refresh ? 1 : step->cache.age + 1;
    return MBL_OK;
}
