/* One optimizer step: its stage, and what the configuration asks of its update. */
#include "train/loop_internal.h"

#include "rl/advantage.h"

#include <math.h>
#include <string.h>

mbl_status_t mbl_train_advantages(mbl_train_t *t) {
    const mbl_config_t *config = t->config;
    bool own = mbl_method_has_objective(t->stage.method);
    bool gdpo = mbl_method_is(t->stage.method, MBL_METHOD_ADVANTAGES);
    mbl_config_std_t std = config->advantage.std;
    mbl_advantage_options_t options = {.group_std =
                                           std == MBL_CONFIG_STD_AUTO ? gdpo : std == MBL_CONFIG_STD_GROUP,
                                       .clip = config->train.clip,
                                       .weights = own ? t->stage.weights : NULL,
                                       .weighted_mean = config->balance.weighted == MBL_CONFIG_WEIGHTED_MEAN,
                                       .sum_advantages = gdpo,
                                       .active = t->stage.active,
                                       .unclipped = t->state.update.reference.unclipped,
                                       .valid = t->valid,
                                       .sum = t->sum};
    MBL_TRY(mbl_advantage(&options, &t->batch, t->a, t->stats));
    return mbl_masks(t->comm, t->valid, t->engine.k + own, t->batch.n, t->batch.n_global, &t->masks);
}

mbl_status_t mbl_train_enter_stage(mbl_train_t *t, bool *entered) {
    size_t before = t->stage.index;
    MBL_TRY(mbl_stage_at(t->config, t->state.step, &t->stage));
    *entered = t->stage.index != before;
    return MBL_OK;
}

size_t mbl_train_timesteps(const mbl_config_t *config) {
    size_t timesteps = (size_t)(config->train.timestep_fraction * (double)config->rollout.steps + 1e-9);
    return timesteps > 0 ? timesteps : 1;
}

static mbl_gradient_args_t gradient_args(const mbl_train_t *t, size_t inner, size_t slice,
                                         const volatile sig_atomic_t *stop) {
    const mbl_config_t *config = t->config;
    return (mbl_gradient_args_t){.batch = &t->batch,
                                 .conditions = mbl_embeds_conditions(t->engine.train.embeds),
                                 .plan = &t->plan,
                                 .timesteps = mbl_train_timesteps(config),
                                 .slice = slice,
                                 .slices = config->train.updates_per_epoch,
                                 .seed = config->seed,
                                 .step = (uint32_t)(t->state.epoch * config->train.inner_epochs + inner),
                                 .beta = config->train.beta,
                                 .clip = config->train.clip,
                                 .kl = config->train.kl,
                                 .kl_apart = config->balance.kl == MBL_CONFIG_KL_APART,
                                 .a = t->a,
                                 .parts = t->stage.parts,
                                 .masks = &t->masks,
                                 .stop = stop};
}

static mbl_balance_options_t balance_options(const mbl_train_t *t) {
    return (mbl_balance_options_t){.method = t->stage.method,
                                   .common = mbl_config_common(t->config, t->stage.method),
                                   .guard = t->config->balance.guard == MBL_CONFIG_GUARD_OWN_PARTS,
                                   .floor = t->config->balance.floor,
                                   .cagrad_c = t->config->balance.cagrad_c,
                                   .rho = t->config->balance.rho,
                                   .weights = t->stage.weights,
                                   .group = t->group,
                                   .active = t->stage.active,
                                   .pressure = t->pressure};
}

static mbl_optimizer_options_t optimizer_options(const mbl_config_t *config) {
    return (mbl_optimizer_options_t){.lr = config->train.lr,
                                     .beta1 = config->train.adam_beta1,
                                     .beta2 = config->train.adam_beta2,
                                     .eps = config->train.adam_eps,
                                     .weight_decay = config->train.weight_decay,
                                     .grad_clip = config->train.grad_clip};
}

static bool falls_on(uint64_t step, size_t every) {
    return every > 0 && step % every == 0;
}

static mbl_update_options_t update_options(const mbl_train_t *t, const mbl_gradient_args_t *gradient) {
    const mbl_config_t *config = t->config;
    uint64_t step = t->state.step;
    return (mbl_update_options_t){.gradient = *gradient,
                                  .balance = balance_options(t),
                                  .kl_fraction = config->train.kl_fraction,
                                  .stats = t->stats,
                                  .step = step + 1,
                                  .begins = step == t->stage.first,
                                  .warmup = step < config->balance.warmup,
                                  .solve = step == config->balance.warmup,
                                  .refresh_every = config->balance.refresh_every,
                                  .smooth = config->balance.on_refresh == MBL_CONFIG_ON_REFRESH_SMOOTH,
                                  .gram_fraction = config->balance.gram_fraction,
                                  .diagnose = falls_on(step, config->balance.diagnostics_every),
                                  .halves = falls_on(step, config->balance.alpha_halves),
                                  .shrink = config->balance.shrink,
                                  .optimizer = optimizer_options(config),
                                  .ema = config->train.ema};
}

/* Counts rewards that take no part in this step and says so, the first time and then every hundredth. */
static void count_skipped(mbl_train_t *t, const mbl_balance_step_t *balance) {
    for (size_t k = 0; k < t->engine.k; k++) {
        if (balance->used[k] || !t->stage.active[k])
            continue;
        if (t->state.skipped[k]++ % 100 == 0 && t->comm->rank == 0)
            MBL_WARN("step %llu: reward %s is left out (%s); %llu steps so far",
                     (unsigned long long)t->state.step + 1, t->config->rewards.items[k].name,
                     isfinite(balance->norm[k]) ? "no valid score, or no variance in any group"
                                                : "its gradient is not finite",
                     (unsigned long long)t->state.skipped[k]);
    }
}

/* The same of steps without any direction. Those that are not finite have an alarm of their own. */
static void count_empty(mbl_train_t *t, const mbl_update_result_t *done) {
    if (!done->finite)
        t->state.empty_steps++;
    else if (!(done->norm > 0) && t->state.empty_steps++ % 100 == 0 && t->comm->rank == 0)
        MBL_WARN("step %llu: no reward has a usable gradient; the weights are not changed",
                 (unsigned long long)t->state.step + 1);
}

mbl_status_t mbl_train_update(mbl_train_t *t, size_t inner, size_t slice, const volatile sig_atomic_t *stop) {
    bool entered;
    MBL_TRY(mbl_train_enter_stage(t, &entered));
    if (entered) /* amid an epoch */
        MBL_TRY(mbl_train_advantages(t));
    mbl_gradient_args_t gradient = gradient_args(t, inner, slice, stop);
    mbl_update_options_t options = update_options(t, &gradient);
    t->comm->step = t->state.step + 1;
    MBL_TRY(mbl_update_step(&t->state.update, &options, &t->update));
    if (t->update.balanced && t->update.finite)
        count_skipped(t, &t->update.balance);
    count_empty(t, &t->update);
    t->state.step++;
    return MBL_OK;
}
