/* The RL loop: prompts, rollout with the old adapter, rewards, advantages, the steps of an epoch, and what
 * stands between epochs: evaluations, checkpoints, alarms. */
#include "train/loop.h"

#include "base/clock.h"
#include "base/rng.h"
#include "rl/pick.h"
#include "train/loop_internal.h"
#include "run/prompt_report.h"
#include "run/stop.h"

#include <string.h>

/* ---- an epoch ---- */

/* What the rollout runs with: the old adapter, merged into the weights where the velocities allow it. Ranks
 * measure the same and take the worst. */
static mbl_status_t choose_adapter(mbl_train_t *t, const mbl_adapter_t **out) {
    const mbl_config_t *config = t->config;
    double deviation = 0;
    *out = &t->state.update.policy.in_old;
    if (!t->merge)
        return MBL_OK;
    MBL_TRY(mbl_comm_agree(t->comm, mbl_merge_try(t->merge, &t->engine.train.conditions, config->seed,
                                                  (uint32_t)t->state.epoch, &deviation)));
    MBL_TRY(mbl_comm_allreduce(t->comm, &deviation, 1, MBL_COMM_F64, MBL_COMM_MAX));
    bool merged = deviation <= config->rollout.merge_deviation;
    if (merged != t->merged && t->comm->rank == 0)
        MBL_INFO("epoch %llu: the rollout's adapter is %s the weights: merged, velocities move by %.2g",
                 (unsigned long long)t->state.epoch + 1, merged ? "merged into" : "kept beside", deviation);
    t->merged = merged;
    if (merged)
        *out = mbl_merge_adapter(t->merge);
    return MBL_OK;
}

/* Pictures, scores and advantages of this epoch. Ranks agree at its end, so a stop or a failure on one
 * reaches all. */
static mbl_status_t collect(mbl_train_t *t, mbl_step_report_t *report) {
    const mbl_config_t *config = t->config;
    double start = mbl_now();
    const mbl_adapter_t *adapter;
    bool entered;
    MBL_TRY(mbl_train_enter_stage(t, &entered));
    MBL_TRY(choose_adapter(t, &adapter));
    mbl_pick(config->seed, t->state.epoch, config->prompts.groups, config->prompts.group_size,
             t->engine.train.prompts.count, t->first_group, t->batch.n, t->scratch, t->prompt, t->sample);
    mbl_rollout_t rollout = {.pipeline = t->engine.pipeline,
                             .sampler = t->sampler,
                             .plan = &t->plan,
                             .adapter = adapter,
                             .conditions = &t->engine.train.conditions,
                             .prompts = &t->engine.train.prompts,
                             .panel = t->engine.panel,
                             .micro_batch = t->sampled_at_once,
                             .seed = config->seed,
                             .purpose = MBL_RNG_NOISE,
                             .step = (uint32_t)t->state.epoch,
                             .stop = t->stop};
    mbl_status_t status = mbl_rollout(&rollout, &t->batch, &t->views);
    report->seconds.rollout = mbl_lap(&start);
    mbl_status_t scored = mbl_panel_wait(t->engine.panel);
    report->seconds.reward_wait = mbl_lap(&start);
    MBL_TRY(mbl_comm_agree(t->comm, status != MBL_OK ? status : scored));
    MBL_TRY(mbl_train_advantages(t));
    MBL_TRY(mbl_watch_epoch(t->comm, t->engine.ops, config, &t->batch, &t->watch));
    report->x0_norm = t->watch.x0_norm;
    t->constraint = t->state.constraint;
    mbl_constraint_update(&config->constraint, t->min, t->stats, t->engine.k, &t->constraint, t->pressure);
    report->constraint = &t->constraint;
    report->pressure = t->pressure;
    return MBL_OK;
}

/* Looks for every alarm and says what was found. */
static mbl_status_t look_for_alarms(mbl_train_t *t, const mbl_step_report_t *report) {
    const mbl_config_t *config = t->config;
    size_t every = config->alarms.replica_mismatch;
    mbl_alarm_numbers_t numbers = {.old_deviate = report->old_deviate,
                                   .x0_norm = report->x0_norm,
                                   .finite = t->update.finite,
                                   .moved = t->update.norm > 0,
                                   .active = t->stage.active,
                                   .replicas_same = true,
                                   .solves = mbl_method_solves(t->stage.method),
                                   .solved = t->update.refreshed && t->update.balance.n_used > 0,
                                   .used = t->update.balance.n_used,
                                   .k = t->engine.k,
                                   .alpha = t->update.balance.alpha,
                                   .stats = t->stats,
                                   .outside = t->watch.outside};
    if (every > 0 && t->state.step % every == 0)
        MBL_TRY(mbl_watch_replicas(t->comm, &t->state.update.policy, &numbers.replicas_same));
    mbl_alarm_findings_t found;
    mbl_alarms_check(&config->alarms, &numbers, &t->state.alarms, &found);
    if (t->comm->rank == 0)
        mbl_watch_tell(config, &t->state.alarms, &found, t->state.step);
    bool any = found.give_up;
    for (int i = 0; i < MBL_ALARMS && t->alarm_step == 0; i++)
        any |= found.found[i];
    if (any) {
        t->alarms = found;
        t->alarm_step = t->state.step;
    }
    return MBL_OK;
}

static bool due(uint64_t before, uint64_t after, size_t every) {
    return every > 0 && before / every != after / every;
}

static mbl_status_t save(mbl_train_t *t, bool wait) {
    double start = mbl_now();
    mbl_status_t status = mbl_state_save(&t->state, t->out_dir, wait);
    mbl_timing_saved(&t->timing, mbl_lap(&start), false);
    return status;
}

/* Where this step will be saved too, the write before has to end first; waiting here, before the step is
 * reported, means that a run that dies has lost one reported step at most. */
static void await_write(mbl_train_t *t) {
    double start = mbl_now();
    mbl_state_saved(&t->state, due(t->state.step - 1, t->state.step, t->config->checkpoint.every));
    mbl_timing_saved(&t->timing, mbl_lap(&start), true);
}

static mbl_status_t finish_step(mbl_train_t *t, size_t steps, mbl_step_report_t *report) {
    report->step = t->state.step;
    report->epoch = t->state.epoch;
    report->stage = t->stage.index;
    report->lr = t->config->train.lr;
    report->update = &t->update;
    report->stats = t->stats;
    report->samples = (double)t->batch.n_global / (double)steps;
    report->seconds.train = t->update.seconds.train;
    report->seconds.gram = t->update.seconds.gram;
    report->seconds.qp = t->update.seconds.qp;
    await_write(t);
    MBL_TRY(mbl_policy_deviation(&t->state.update.policy, &report->old_deviate));
    MBL_TRY(look_for_alarms(t, report));
    report->bytes_comm = mbl_timing_step(&t->timing, t->comm, &report->seconds);
    MBL_TRY(mbl_report_metrics(&t->rundir, &t->state, report));
    if (t->comm->rank == 0)
        mbl_report_progress(&t->state, report,
                            t->timing.mean * (double)(t->config->train.steps - t->state.step));
    return MBL_OK;
}

static size_t steps_of_epoch(const mbl_config_t *config) {
    return config->train.inner_epochs * config->train.updates_per_epoch;
}

/* Whether one of the coming epoch's optimizer steps is one whose advantages are asked for: the first and
 * every advantages_every-th from there. */
static bool advantages_due(const mbl_train_t *t) {
    size_t every = t->config->log.advantages_every;
    size_t steps = steps_of_epoch(t->config);
    return every > 0 && (t->state.step % every == 0 || t->state.step % every + steps > every);
}

/* Rollout, then inner_epochs * updates_per_epoch optimizer steps. A stop is heeded until the first update
 * only: checkpoints stand between epochs. */
static mbl_status_t epoch(mbl_train_t *t) {
    const mbl_config_t *config = t->config;
    mbl_step_report_t report;
    const size_t left = config->train.steps - t->state.step, most = steps_of_epoch(config);
    const size_t steps = most < left ? most : left;
    bool updated = false;
    memset(&report, 0, sizeof report);
    mbl_timing_epoch(&t->timing, t->comm);
    MBL_TRY(collect(t, &report));
    if (advantages_due(t))
        MBL_TRY(mbl_report_advantages(t->comm, &t->rundir, &t->state, &t->batch, t->a));
    mbl_timing_drawn(&t->timing, t->comm, report.seconds.rollout, report.seconds.reward_wait, steps);
    for (size_t inner = 0; inner < config->train.inner_epochs; inner++)
        for (size_t slice = 0; slice < config->train.updates_per_epoch && t->state.step < config->train.steps;
             slice++) {
            MBL_TRY(mbl_train_update(t, inner, slice, updated ? NULL : t->stop));
            updated = true;
            MBL_TRY(finish_step(t, steps, &report));
        }
    t->state.epoch++;
    t->state.constraint = t->constraint;
    return mbl_policy_follow(&t->state.update.policy,
                             mbl_policy_hold(t->state.step, (double)config->train.old_decay.flat,
                                             config->train.old_decay.rate, config->train.old_decay.hold));
}

/* ---- the run ---- */

/* Scores of the adapter (NULL: the base model) and, where there is one, their difference to the base model's.
 */
static mbl_status_t evaluate(mbl_train_t *t, const mbl_adapter_t *adapter, uint64_t step, bool samples,
                             mbl_eval_score_t *scores, mbl_eval_score_t *change) {
    MBL_TRY(mbl_evaluator_run(t->evaluator, adapter, scores));
    if (adapter)
        MBL_TRY(mbl_evaluator_compare(t->evaluator, change));
    MBL_TRY(mbl_rundir_eval(&t->rundir, step, t->config, &t->engine.test, scores, adapter ? change : NULL));
    return samples ? mbl_rundir_samples(&t->rundir, step, t->evaluator) : MBL_OK;
}

/* The base model's scores: what the trained adapter is compared with, picture by picture, at the end. */
static mbl_status_t evaluate_base(mbl_train_t *t) {
    if (t->state.step == 0)
        MBL_TRY(evaluate(t, NULL, 0, t->config->log.samples_every > 0, t->base, NULL));
    else
        MBL_TRY(mbl_evaluator_run(t->evaluator, NULL, t->base));
    mbl_evaluator_keep(t->evaluator);
    return MBL_OK;
}

static mbl_status_t observe(mbl_train_t *t, uint64_t before) {
    const mbl_config_t *config = t->config;
    mbl_eval_score_t scores[MBL_MAX_REWARDS], change[MBL_MAX_REWARDS];
    uint64_t now = t->state.step;
    bool last = now >= config->train.steps, samples = due(before, now, config->log.samples_every);
    bool broken = t->state.alarms.run[MBL_ALARM_non_finite] > 0; /* the checkpoint before is the good one */
    if (last || (due(before, now, config->checkpoint.every) && !broken))
        MBL_TRY(save(t, last));
    if (!last && (samples || due(before, now, config->eval.every)))
        MBL_TRY(evaluate(t, &t->state.update.policy.in_ema, now, samples, scores, change));
    return MBL_OK;
}

static mbl_status_t close_run(mbl_train_t *t) {
    mbl_eval_score_t trained[MBL_MAX_REWARDS], difference[MBL_MAX_REWARDS];
    MBL_TRY(evaluate(t, &t->state.update.policy.in_ema, t->state.step, t->config->log.samples_every > 0,
                     trained, difference));
    return t->comm->rank == 0 ? mbl_report_table(t->config, t->base, trained, difference) : MBL_OK;
}

/* Which checkpoint to go on from after steps that were not finite. Rank 0. */
static mbl_status_t name_last_good(const mbl_train_t *t) {
    char folder[1024], path[1100];
    bool found;
    mbl_state_saved(&t->state, true);
    MBL_TRY(mbl_rundir_join(t->out_dir, "checkpoints", folder, sizeof folder));
    MBL_TRY(mbl_ckpt_latest(folder, NULL, path, sizeof path, &found));
    if (found)
        MBL_WARN("the last good checkpoint is %s; go on from it with --resume auto and a lower train.lr",
                 path);
    else
        MBL_WARN("there is no checkpoint from before these steps; look at the base model and train.lr");
    return MBL_OK;
}

/* Ends the run, with a checkpoint, at an alarm where alarms.on_alarm asks for it, or without one where step
 * after step was not finite. */
static mbl_status_t heed_alarms(mbl_train_t *t) {
    mbl_status_t verdict = mbl_watch_verdict(t->comm, t->config, &t->alarms, t->alarm_step);
    if (verdict == MBL_ERR_ALARM && t->alarms.give_up)
        MBL_TRY(mbl_comm_agree(t->comm, t->comm->rank == 0 ? name_last_good(t) : MBL_OK));
    else if (verdict == MBL_ERR_ALARM &&
             !t->alarms.found[MBL_ALARM_replica_mismatch]) /* which rank is right? */
        MBL_TRY(save(t, true));
    return mbl_comm_agree(t->comm, verdict); /* saving agreed that all went well */
}

static mbl_status_t run(mbl_train_t *t) {
    MBL_TRY(evaluate_base(t));
    while (t->state.step < t->config->train.steps) {
        uint64_t before = t->state.step;
        mbl_status_t asked = mbl_stop_check() ? MBL_ERR_STOPPED : MBL_OK;
        MBL_TRY(mbl_comm_agree(t->comm, asked));
        MBL_TRY(epoch(t));
        MBL_TRY(heed_alarms(t));
        MBL_TRY(observe(t, before));
    }
    return close_run(t);
}

/* Stopped before an update: the state is that of the last whole epoch. */
static mbl_status_t save_stopped(mbl_train_t *t) {
    MBL_TRY(save(t, true));
    MBL_INFO("stopped at step %llu of %zu; go on with: marble train %s/run.yaml --out %s --resume auto",
             (unsigned long long)t->state.step, t->config->train.steps, t->out_dir, t->out_dir);
    return mbl_comm_agree(t->comm, MBL_ERR_STOPPED);
}

/* Before anything is closed: some of that needs the other ranks, and one that failed alone has none. Rank 0
 * ends the checkpoint that it writes by itself first. */
static mbl_status_t settle(mbl_train_t *t, mbl_status_t status) {
    if (status != MBL_OK && status != t->comm->agreed && !t->state.team)
        mbl_state_saved(&t->state, true);
    return mbl_comm_settle(t->comm, status);
}

mbl_status_t mbl_train(const mbl_config_t *config, mbl_comm_t *comm, const mbl_train_options_t *options) {
    const char *out_dir = options->out_dir;
    char checkpoint[1024];
    mbl_train_t t;
    memset(&t, 0, sizeof t);
    t.config = config;
    t.comm = comm;
    t.out_dir = out_dir;
    t.stop = mbl_stop_catch(mbl_stop_seconds(config->limits.seconds, config->limits.margin));
    mbl_status_t status;
    MBL_TRY_GOTO(mbl_comm_agree(comm, mbl_train_open(&t)), done);
    MBL_TRY_GOTO(mbl_rundir_make(comm, out_dir), done); /* only now is it a run */
    MBL_TRY_GOTO(mbl_state_writers(&t.state), done);
    MBL_TRY_GOTO(mbl_rundir_resume(comm, out_dir, options->resume, checkpoint, sizeof checkpoint), done);
    MBL_TRY_GOTO(mbl_state_load(&t.state, checkpoint, options->accept_prompts), done);
    MBL_TRY_GOTO(mbl_rundir_open(comm, out_dir, config, t.state.step, &t.rundir), done);
    MBL_TRY_GOTO(mbl_comm_agree(comm, mbl_prompt_report_run(&t.engine)), done);
    status = settle(&t, run(&t));
    if (status == MBL_ERR_STOPPED)
        status = save_stopped(&t);
done:
    status = settle(&t, status);
    mbl_train_close(&t);
    mbl_stop_release();
    return status;
}
