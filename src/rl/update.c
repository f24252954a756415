/* What an optimizer step works on, and the step as a whole. */
#include "rl/update.h"

#include "base/clock.h"
#include "base/mem.h"
#include "rl/gram_part.h"
#include "rl/update_internal.h"

#include <math.h>
#include <string.h>

mbl_status_t mbl_update_new(mbl_comm_t *comm, mbl_ops_t *ops, const mbl_dit_t *model, const mbl_lora_t *lora,
                            uint64_t seed, mbl_update_t *out) {
    mbl_status_t status;
    mbl_update_t u = {.comm = comm, .ops = ops};
    MBL_REQUIRE(mbl_lora_ranks(lora) == (size_t)comm->size, "update: adapters laid out for %zu ranks, of %d",
                mbl_lora_ranks(lora), comm->size);
    size_t count = mbl_shard_count(mbl_lora_room(lora), comm->size);
    u.padded = count * (size_t)comm->size;
    MBL_TRY_GOTO(mbl_policy_new(ops, model, lora, u.padded, seed, &u.policy), failed);
    MBL_TRY_GOTO(mbl_optimizer_new(ops, &mbl_optimizer_adamw, count, &u.optimizer), failed);
    *out = u;
    return MBL_OK;
failed:
    mbl_update_free(&u);
    return status;
}

void mbl_update_free(mbl_update_t *u) {
    if (!u->ops)
        return;
    mbl_gradient_free(u->gradient);
    mbl_tensor_free(u->ops, &u->sets);
    mbl_tensor_free(u->ops, &u->shard);
    mbl_tensor_free(u->ops, &u->direction);
    mbl_tensor_free(u->ops, &u->half);
    mbl_free(u->part_of);
    mbl_free(u->kl_rows);
    mbl_reference_free(&u->reference, u->ops);
    mbl_policy_free(&u->policy);
    mbl_optimizer_free(&u->optimizer);
    memset(u, 0, sizeof *u);
}

mbl_status_t mbl_update_prepare_sets(mbl_update_t *u, const mbl_update_room_t *room) {
    size_t count = u->optimizer.count, rows = room->parts + (room->masks ? room->masks : 1) + room->kl_apart;
    u->parts = room->parts;
    u->micro_batch = room->micro_batch;
    MBL_TRY(mbl_tensor_new(u->ops, MBL_F64, &u->sets, 2, rows, u->padded));
    MBL_TRY(mbl_tensor_new(u->ops, MBL_F64, &u->shard, 2, rows + 1, count));
    MBL_TRY(mbl_tensor_new(u->ops, MBL_F64, &u->direction, 1, count));
    if (room->halves)
        MBL_TRY(mbl_tensor_new(u->ops, MBL_F64, &u->half, 2, rows, count));
    if (room->rows > 0)
        MBL_ALLOC(u->part_of, room->rows);
    if (room->kl_rows > 0)
        MBL_ALLOC(u->kl_rows, room->kl_rows);
    return room->reference ? mbl_reference_new(u->ops, room->reference, &u->reference) : MBL_OK;
}

mbl_status_t mbl_update_prepare_passes(mbl_update_t *u, mbl_pipeline_t *pipeline,
                                       const mbl_update_room_t *room) {
    return mbl_gradient_new(pipeline, u->policy.lora, room->at_once ? room->at_once : room->micro_batch,
                            room->parts, room->again, &u->gradient);
}

mbl_status_t mbl_update_prepare(mbl_update_t *u, mbl_pipeline_t *pipeline, const mbl_update_room_t *room) {
    MBL_TRY(mbl_update_prepare_sets(u, room));
    return mbl_update_prepare_passes(u, pipeline, room);
}

void mbl_update_forget(mbl_update_t *u) {
    memset(&u->balance, 0, sizeof u->balance);
    memset(&u->cache, 0, sizeof u->cache);
}

/* ---- a step ---- */

void mbl_update_begin(const mbl_update_t *u, const mbl_update_options_t *options, mbl_update_result_t *out,
                      mbl_update_step_t *step) {
    memset(out, 0, sizeof *out);
    memset(step, 0, sizeof *step);
    out->finite = true;
    out->shrunk = 1;
    step->options = options;
    step->out = out;
    step->args = options->gradient;
    step->args.current = &u->policy.in_current;
    step->args.old = &u->policy.in_old;
    step->args.old_is_current = u->policy.old_is_current;
    step->args.kl_rows = NULL;
    step->sets = mbl_sets(step->args.parts, step->args.masks, step->args.kl_apart && step->args.kl > 0);
    step->diagnose = options->diagnose;
    if (options->begins) /* no averages, no lengths: they are of other rewards */
        return;
    step->balance = u->balance;
    step->cache = u->cache;
}

/* The rows that the KL term is taken of, where that is a fraction of them. */
static mbl_status_t choose_kl_rows(mbl_update_t *u, mbl_update_step_t *step) {
    mbl_gradient_args_t *args = &step->args;
    const mbl_gram_part_t options = {.fraction = step->options->kl_fraction,
                                     .micro_batch = u->micro_batch,
                                     .timesteps = args->timesteps,
                                     .slice = args->slice,
                                     .slices = args->slices,
                                     .seed = args->seed,
                                     .step = args->step};
    if (!(options.fraction > 0 && options.fraction < 1 && args->kl > 0))
        return MBL_OK;
    MBL_REQUIRE(u->kl_rows, "update: no room for a fraction of the KL term");
    args->kl_scale = mbl_kl_part(&options, args->batch, u->kl_rows);
    args->kl_rows = u->kl_rows;
    return MBL_OK;
}

/* Sums without a term are no numbers. */
static void take_losses(const mbl_update_step_t *step) {
    const mbl_gradient_args_t *args = &step->args;
    bool rewarded = !args->masks;
    for (size_t k = 0; k < args->batch->k && !rewarded; k++)
        rewarded = args->masks->of[k] != MBL_NO_MASK;
    if (!rewarded)
        step->out->loss = NAN;
    if (!(args->kl > 0))
        step->out->kl = NAN;
}

mbl_status_t mbl_update_step(mbl_update_t *u, const mbl_update_options_t *options, mbl_update_result_t *out) {
    mbl_update_step_t step;
    mbl_update_direction_fn *direction = mbl_method_is(options->balance.method, MBL_METHOD_MICRO_BATCHES)
                                             ? mbl_update_reference
                                             : mbl_update_balanced;
    mbl_update_begin(u, options, out, &step);
    MBL_TRY(choose_kl_rows(u, &step));
    MBL_TRY(direction(u, &step));
    double start = mbl_now();
    if (!step.formed)
        MBL_TRY(mbl_update_combine(u, &step));
    MBL_TRY(mbl_update_apply(u, &step));
    take_losses(&step);
    out->seconds.train += mbl_lap(&start);
    return MBL_OK;
}

/* ---- the direction, applied ---- */

static mbl_tensor_t row_of_shard(const mbl_update_t *u, size_t at) {
    mbl_tensor_t row = mbl_tensor_rows(&u->shard, at, 1);
    return mbl_tensor_reshape(&row, 1, u->optimizer.count);
}

mbl_tensor_t mbl_update_last(const mbl_update_t *u) {
    return row_of_shard(u, u->shard.dim[0] - 1);
}

mbl_tensor_t mbl_update_behind(const mbl_update_t *u, const mbl_update_step_t *step) {
    return row_of_shard(u, mbl_sets_count(&step->sets));
}

mbl_status_t mbl_update_square(mbl_update_t *u, const mbl_tensor_t *vector, double *out) {
    mbl_tensor_t row = mbl_tensor_reshape(vector, 2, (size_t)1, u->optimizer.count),
                 host = MBL_TENSOR_2(out, MBL_F64, 1, 1);
    MBL_TRY(MBL_OP(u->ops, gram, .gram = &host, .x = &row));
    return mbl_comm_allreduce(u->comm, out, 1, MBL_COMM_F64, MBL_COMM_SUM);
}

/* Whether a set is part of a gradient whose cosine is asked for. */
static bool is_measured(const mbl_update_step_t *step, size_t set) {
    const double *norm = step->out->balance.norm;
    for (size_t k = 0; step->diagnose && k < step->args.batch->k; k++)
        if (isfinite(norm[k]) && (set == k || set == step->sets.parts + step->sets.of[k]))
            return true;
    return false;
}

/* Sets that D leaves out and that no cosine is asked of become zero first: they may hold NaN, and
 * 0 NaN = NaN. */
mbl_status_t mbl_update_combine(mbl_update_t *u, mbl_update_step_t *step) {
    mbl_tensor_t sets = mbl_tensor_rows(&u->shard, 0, step->m);
    double square;
    for (size_t j = 0; j < step->m; j++) {
        mbl_tensor_t row = mbl_tensor_rows(&u->shard, j, 1);
        if (step->coefficient[j] == 0 && !is_measured(step, j))
            MBL_TRY(mbl_tensor_zero(u->ops, &row));
    }
    MBL_TRY(MBL_OP(u->ops, combine, .y = &u->direction, .x = &sets, .coefficient = step->coefficient));
    if (!step->rest)
        return MBL_OK;
    mbl_tensor_t last = mbl_update_last(u);
    MBL_TRY(MBL_OP(u->ops, axpby, .y = &u->direction, .x = &last, .a = 1, .b = 1));
    MBL_TRY(mbl_update_square(u, &u->direction, &square));
    step->norm = isfinite(square) ? sqrt(square) : 0;
    return MBL_OK;
}

/* cos(-step, g_k) of the step the optimizer took, from the Gram matrix of the sets with that step. The
 * weights of before stand behind the sets, those of now in `now`. */
static mbl_status_t cosines_of_step(mbl_update_t *u, const mbl_update_step_t *step, const mbl_tensor_t *now) {
    size_t last = mbl_sets_count(&step->sets), m = last + 1;
    double gram[MBL_MAX_SETS * MBL_MAX_SETS];
    mbl_tensor_t sets = mbl_tensor_rows(&u->shard, 0, m), taken = mbl_update_behind(u, step);
    mbl_tensor_t host = MBL_TENSOR_2(gram, MBL_F64, m, m);
    const mbl_balance_step_t *balance = &step->out->balance;
    MBL_TRY(MBL_OP(u->ops, convert, .dst = &u->direction, .src = now));
    MBL_TRY(MBL_OP(u->ops, axpby, .y = &taken, .x = &u->direction, .a = -1, .b = 1));
    MBL_TRY(MBL_OP(u->ops, gram, .gram = &host, .x = &sets));
    MBL_TRY(mbl_comm_allreduce(u->comm, gram, m * m, MBL_COMM_F64, MBL_COMM_SUM));
    for (size_t k = 0; k < step->args.batch->k; k++) {
        double norm = balance->norm[k] * sqrt(gram[last * m + last]), along = gram[k * m + last];
        if (step->sets.of[k] != MBL_NO_MASK)
            along += gram[(step->sets.parts + step->sets.of[k]) * m + last];
        step->out->cos_step[k] = balance->measured[k] && norm > 0 ? along / norm : NAN;
    }
    return MBL_OK;
}

static mbl_status_t move(mbl_update_t *u, const mbl_update_step_t *step) {
    size_t count = u->optimizer.count;
    mbl_tensor_t now = mbl_tensor_rows(&u->policy.current, (size_t)u->comm->rank * count, count);
    if (step->diagnose) {
        mbl_tensor_t before = mbl_update_behind(u, step);
        MBL_TRY(MBL_OP(u->ops, convert, .dst = &before, .src = &now));
    }
    MBL_TRY(mbl_optimizer_step(u->comm, &u->optimizer, &step->options->optimizer, &u->direction, step->norm,
                               &u->policy.current));
    MBL_TRY(mbl_policy_stepped(&u->policy));
    return step->diagnose ? cosines_of_step(u, step, &now) : MBL_OK;
}

static void fill(double *numbers, size_t n, double value) {
    for (size_t i = 0; i < n; i++)
        numbers[i] = value;
}

/* A step that is left out. Averages that it would have begun afresh are not those of before. */
static mbl_status_t leave_out(mbl_update_t *u, const mbl_update_step_t *step) {
    mbl_update_result_t *out = step->out;
    mbl_balance_step_t *b = &out->balance;
    double *const numbers[] = {b->alpha, b->alpha_mean, b->norm, b->cos, b->cos_part, out->cos_step};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        fill(numbers[i], MBL_MAX_REWARDS, NAN);
    out->norm = b->cos_min = b->cos_part_min = b->cos_mean = b->cos_var = NAN;
    memset(b->used, 0, sizeof b->used);
    b->n_used = 0;
    out->refreshed = out->halves = false;
    if (step->options->begins)
        mbl_update_forget(u);
    return MBL_OK;
}

mbl_status_t mbl_update_apply(mbl_update_t *u, mbl_update_step_t *step) {
    if (!step->out->finite)
        return leave_out(u, step);
    step->out->norm = step->norm;
    step->out->cosines = step->diagnose;
    if (step->norm > 0)
        MBL_TRY(move(u, step));
    u->balance = step->balance;
    u->cache = step->cache;
    return mbl_policy_average(&u->policy, step->options->step, step->options->ema);
}
