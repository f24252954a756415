/* One optimizer step: its stage, its direction, AdamW, adapters. */
#include "train/loop_internal.h"

#include "base/clock.h"
#include "rl/advantage.h"

#include <math.h>
#include <string.h>

/* Advantages of the pictures for the stage under way. */
mbl_status_t mbl_train_advantages(mbl_train_t *t, mbl_step_report_t *report) {
    const mbl_config_t *config = t->config;
    bool own = mbl_method_has_objective(t->stage.method);
    mbl_advantage_options_t options = {.group_std = config->advantage.std == MBL_CONFIG_STD_GROUP,
                                       .clip = config->train.clip,
                                       .weights = own ? t->stage.weights : NULL,
                                       .sum_advantages = t->stage.method == MBL_METHOD_GDPO,
                                       .active = t->stage.active,
                                       .unclipped = t->reference.raw};
    return mbl_advantage(t->comm, &options, &t->batch, t->a, report->stats);
}

/* The stage of the coming step; *entered: it is another than that of the step before. */
mbl_status_t mbl_train_enter_stage(mbl_train_t *t, bool *entered) {
    size_t before = t->stage.index;
    MBL_TRY(mbl_stage_at(t->config, t->state.step, &t->stage));
    *entered = t->stage.index != before;
    return MBL_OK;
}

static mbl_gradient_args_t gradient_args(const mbl_train_t *t, size_t inner, size_t slice,
                                         const volatile int *stop) {
    const mbl_config_t *config = t->config;
    size_t timesteps = (size_t)(config->train.timestep_fraction * (double)config->rollout.steps + 1e-9);
    return (mbl_gradient_args_t){.batch = &t->batch,
                                 .conditions = &t->engine.train.conditions,
                                 .current = &t->state.policy.in_current,
                                 .old = &t->state.policy.in_old,
                                 .old_is_current = t->state.policy.old_is_current,
                                 .plan = &t->plan,
                                 .timesteps = timesteps > 0 ? timesteps : 1,
                                 .slice = slice,
                                 .slices = config->train.updates_per_epoch,
                                 .seed = config->seed,
                                 .step = (uint32_t)(t->state.epoch * config->train.inner_epochs + inner),
                                 .beta = config->train.beta,
                                 .clip = config->train.clip,
                                 .kl = config->train.kl,
                                 .a = t->a,
                                 .parts = t->stage.parts,
                                 .stop = stop};
}

/* Counts rewards that take no part in this step and says so, the first time and then every hundredth. */
static void count_skipped(mbl_train_t *t, const mbl_balance_step_t *balance) {
    for (size_t k = 0; k < t->engine.k; k++) {
        if (balance->used[k] || !t->stage.active[k])
            continue;
        if (t->state.skipped[k]++ % 100 == 0 && t->comm->rank == 0)
            MBL_WARN("step %llu: reward %s takes no part (%s); %llu steps so far",
                     (unsigned long long)t->state.step + 1, t->config->rewards.items[k].name,
                     isfinite(balance->norm[k]) ? "no valid score, or no variance in any group"
                                                : "its gradient is not finite",
                     (unsigned long long)t->state.skipped[k]);
    }
}

mbl_adamw_options_t mbl_train_adamw(const mbl_train_t *t) {
    const mbl_config_t *config = t->config;
    return (mbl_adamw_options_t){.lr = config->train.lr,
                                 .beta1 = config->train.adam_beta1,
                                 .beta2 = config->train.adam_beta2,
                                 .eps = config->train.adam_eps,
                                 .weight_decay = config->train.weight_decay,
                                 .grad_clip = config->train.grad_clip};
}

/* cos(-step, g_k) of the step AdamW took, from the Gram matrix of the sets with that step. `before` stands in
 * the shard's last row. */
static mbl_status_t cosines_of_step(mbl_train_t *t, mbl_step_report_t *report) {
    size_t count = t->state.optimizer.count, m = t->stage.parts + 2, last = m - 1;
    double gram[MBL_MAX_SETS * MBL_MAX_SETS + 2 * MBL_MAX_SETS + 1];
    mbl_tensor_t sets = mbl_tensor_rows(&t->shard, 0, m);
    mbl_tensor_t step = mbl_tensor_rows(&t->shard, last, 1), flat = mbl_tensor_reshape(&step, 1, count);
    mbl_tensor_t now = mbl_tensor_rows(&t->state.policy.current, (size_t)t->comm->rank * count, count);
    mbl_tensor_t host = MBL_TENSOR_2(gram, MBL_F64, m, m);
    MBL_TRY(MBL_OP(t->engine.ops, convert, .dst = &t->direction, .src = &now));
    MBL_TRY(MBL_OP(t->engine.ops, axpby, .y = &flat, .x = &t->direction, .a = -1, .b = 1));
    MBL_TRY(MBL_OP(t->engine.ops, gram, .gram = &host, .x = &sets));
    MBL_TRY(mbl_comm_allreduce(t->comm, gram, m * m, MBL_COMM_F64, MBL_COMM_SUM));
    for (size_t k = 0; k < t->engine.k; k++) {
        double norm = report->balance.norm[k] * sqrt(gram[last * m + last]);
        report->cos_step[k] = report->balance.measured[k] && norm > 0
                                  ? (gram[k * m + last] + gram[t->stage.parts * m + last]) / norm
                                  : 0;
    }
    return MBL_OK;
}

/* Moves the weights along the direction; leaves them (and the moments) alone when there is none. */
static mbl_status_t move(mbl_train_t *t, mbl_train_step_t *step, mbl_step_report_t *report) {
    const mbl_config_t *config = t->config;
    size_t count = t->state.optimizer.count;
    mbl_adamw_options_t options = mbl_train_adamw(t);
    if (!step->formed)
        MBL_TRY(mbl_train_combine(t, step, &report->balance));
    report->lr = config->train.lr;
    report->grad_norm = step->norm;
    report->cosines = step->diagnose;
    if (!(step->norm > 0)) {
        if (t->state.empty_steps++ % 100 == 0 && t->comm->rank == 0)
            MBL_WARN("step %llu: no reward has a usable gradient; the weights stay as they are",
                     (unsigned long long)t->state.step + 1);
        return MBL_OK;
    }
    if (step->diagnose) {
        mbl_tensor_t last = mbl_tensor_rows(&t->shard, t->stage.parts + 1, 1),
                     flat = mbl_tensor_reshape(&last, 1, count);
        mbl_tensor_t now = mbl_tensor_rows(&t->state.policy.current, (size_t)t->comm->rank * count, count);
        MBL_TRY(MBL_OP(t->engine.ops, convert, .dst = &flat, .src = &now));
    }
    MBL_TRY(mbl_optimizer_step(t->comm, &t->state.optimizer, &options, &t->direction, step->norm,
                               &t->state.policy.current));
    MBL_TRY(mbl_policy_stepped(&t->state.policy));
    return step->diagnose ? cosines_of_step(t, report) : MBL_OK;
}

/* What the step reports of itself, afresh. */
static void clear_report(mbl_step_report_t *report) {
    report->loss = report->kl = report->gram_share = 0;
    report->balanced = report->refreshed = report->cosines = report->halves = false;
    report->finite = true;
    memset(&report->balance, 0, sizeof report->balance);
    memset(report->cos_step, 0, sizeof report->cos_step);
}

/* One optimizer step. */
mbl_status_t mbl_train_update(mbl_train_t *t, size_t inner, size_t slice, const volatile int *stop,
                              mbl_step_report_t *report) {
    bool entered;
    MBL_TRY(mbl_train_enter_stage(t, &entered));
    if (entered) /* amid an epoch */
        MBL_TRY(mbl_train_advantages(t, report));
    mbl_train_step_t step = {.args = gradient_args(t, inner, slice, stop)};
    t->comm->step = t->state.step + 1;
    if (t->stage.method == MBL_METHOD_REFERENCE && slice == 0)
        MBL_TRY(mbl_reference_mix(&t->reference, t->engine.ops, &t->batch, t->prompt, t->sample, t->a,
                                  t->engine.k, step.args.seed, step.args.step, t->config->train.micro_batch));
    mbl_balance_state_t before = t->state.balance;
    clear_report(report);
    report->stage = t->stage.index;
    if (t->state.step == t->stage.first) /* averages of another stage say nothing of this one */
        memset(&t->state.balance, 0, sizeof t->state.balance);
    mbl_status_t status = mbl_train_direction(t, &step, report);
    if (status != MBL_OK) /* a stop leaves the state as it was */
        t->state.balance = before;
    MBL_TRY(status);
    if (report->balanced)
        count_skipped(t, &report->balance);
    double start = mbl_now();
    MBL_TRY(move(t, &step, report));
    t->state.step++;
    t->state.cache = step.cache;
    t->state.cache.age += step.refresh ? report->balance.n_used > 0 || t->stage.method == MBL_METHOD_REFERENCE
                                       : step.cache.age > 0;
    MBL_TRY(mbl_policy_average(&t->state.policy, t->state.step, t->config->train.ema));
    report->seconds.train += mbl_lap(&start);
    return MBL_OK;
}
