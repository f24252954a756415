/* The RL loop: prompts, rollout with the rollout policy, rewards, advantages, the steps of an epoch, and what
 * happens between epochs is shown to observers (observers.c). */
#include "train/loop.h"

#include "base/clock.h"
#include "base/quote.h"
#include "base/rng.h"
#include "rl/min_valid.h"
#include "rl/pick.h"
#include "train/by_source.h"
#include "train/loop_internal.h"
#include "run/prompt_report.h"
#include "run/stop.h"
#include "train/tensorboard.h"

#include <string.h>

/* ---- an epoch ---- */

/* What the rollout runs with: the rollout policy, merged into the weights where the velocities allow it.
 * Ranks measure the same and take the worst. */
static mbl_status_t choose_adapter(mbl_train_t *t, const mbl_adapter_t **out) {
    const mbl_config_t *config = t->config;
    double deviation = 0;
    *out = &t->state.update.policy.in_old;
    if (!t->merge)
        return MBL_OK;
    mbl_ops_stop(t->engine.ops, t->stop);
    mbl_status_t status = mbl_merge_try(t->merge, mbl_embeds_conditions(t->engine.train.embeds), config->seed,
                                        (uint32_t)t->state.epoch, &deviation);
    mbl_ops_stop(t->engine.ops, NULL);
    MBL_TRY(mbl_comm_agree(t->comm, status));
    MBL_TRY(mbl_comm_allreduce(t->comm, &deviation, 1, MBL_COMM_F64, MBL_COMM_MAX));
    bool merged = deviation <= config->rollout.merge_deviation;
    unsigned long long epoch = t->state.epoch + 1;
    if (merged && !t->merged && t->comm->rank == 0)
        MBL_DEBUG("epoch %llu: the rollout runs with its adapter merged into the weights, which changes the "
                  "velocities by %.2g of their length",
                  epoch, deviation);
    else if (!merged && t->merged && t->comm->rank == 0)
        MBL_INFO("epoch %llu: the rollout runs with its adapter beside the weights, which is slower: merging "
                 "would change the velocities by %.2g of their length (rollout.merge_deviation: %g)",
                 epoch, deviation, config->rollout.merge_deviation);
    t->merged = merged;
    if (merged)
        *out = mbl_merge_adapter(t->merge);
    return MBL_OK;
}

/* Due in the first epoch behind every recheck_every-th step. */
static mbl_status_t recheck(mbl_train_t *t) {
    const mbl_config_t *config = t->config;
    size_t every = config->log.recheck_every,
           epoch = config->train.inner_epochs * config->train.updates_per_epoch;
    bool due = every > 0 && t->state.step > 0 && t->state.step % every < epoch;
    return mbl_recheck(t->comm, config, t->engine.pool, &t->batch, t->views.images, t->views.prompts,
                       t->stats, due, &t->recheck);
}

/* The prompts of the epoch's images here, on the device until the next one's; with those on which merging is
 * measured. */
static mbl_status_t pick_prompts(mbl_train_t *t) {
    const mbl_config_t *config = t->config;
    const mbl_batch_t *batch = &t->batch;
    const mbl_prompts_t *prompts = &t->engine.train.prompts;
    size_t groups = 0;
    if (prompts->n_sources > 0)
        mbl_pick_sources(config->seed, t->state.epoch, config->prompts.groups, config->prompts.group_size,
                         prompts, batch->first, batch->n, &t->counts, t->scratch, t->prompt, t->sample);
    else
        mbl_pick(config->seed, t->state.epoch, config->prompts.groups, config->prompts.group_size,
                 prompts->count, batch->first, batch->n, t->scratch, t->prompt, t->sample);
    for (size_t i = 0; i < batch->n; i++)
        if (i == 0 || (batch->first + i) % batch->group_size == 0)
            t->needed[groups++] = t->prompt[i];
    mbl_merge_prompts(prompts->count, t->needed + groups);
    return mbl_comm_agree(t->comm,
                          mbl_embeds_fetch(t->engine.train.embeds, t->needed, groups + MBL_MERGE_PROMPTS));
}

/* Images, scores and advantages of this epoch. Ranks agree at its end, so a stop or a failure on one
 * reaches all. */
static mbl_status_t collect(mbl_train_t *t, mbl_event_step_t *shown) {
    const mbl_config_t *config = t->config;
    double start = mbl_now();
    const mbl_adapter_t *adapter;
    bool entered;
    mbl_events_phase(&t->events, MBL_PHASE_ROLLOUT);
    MBL_TRY(mbl_train_enter_stage(t, &entered));
    MBL_TRY(pick_prompts(t));
    MBL_TRY(choose_adapter(t, &adapter));
    mbl_rollout_t rollout = {.pipeline = t->engine.pipeline,
                             .sampler = t->sampler,
                             .plan = &t->plan,
                             .adapter = adapter,
                             .embeds = t->engine.train.embeds,
                             .prompts = &t->engine.train.prompts,
                             .pool = t->engine.pool,
                             .micro_batch = t->sampled_at_once,
                             .seed = config->seed,
                             .purpose = MBL_RNG_NOISE,
                             .step = (uint32_t)t->state.epoch,
                             .stop = t->stop};
    mbl_run_traffic_begin(t->engine.pool, &t->traffic);
    mbl_status_t status = mbl_rollout(&rollout, &t->batch, &t->views);
    shown->seconds.rollout = mbl_lap(&start);
    mbl_events_phase(&t->events, MBL_PHASE_SCORING);
    mbl_status_t scored = mbl_scorer_pool_wait(t->engine.pool);
    shown->seconds.reward_wait = mbl_lap(&start);
    MBL_TRY(mbl_comm_agree(t->comm, status != MBL_OK ? status : scored));
    MBL_TRY(mbl_run_traffic_end(t->comm, t->engine.pool, t->engine.k, &t->traffic));
    MBL_TRY(mbl_scores_exchange(t->comm, &t->scores));
    mbl_min_valid(t->min_valid, &t->batch);
    MBL_TRY(mbl_train_advantages(t));
    if (t->by_source)
        MBL_TRY(mbl_by_source(t->comm, &t->engine.train.prompts, &t->batch,
                              t->by_source + t->engine.train.prompts.n_sources * t->engine.k, t->by_source));
    MBL_TRY(recheck(t));
    MBL_TRY(mbl_watch_epoch(t->comm, t->engine.ops, config, &t->batch, &t->watch));
    t->constraint = t->state.constraint;
    mbl_constraint_update(&config->constraint, t->min, t->stats, t->engine.k, &t->constraint, t->pressure);
    return MBL_OK;
}

/* What the step that was done looks like from outside; `steps` share the epoch's images. */
static mbl_status_t describe_step(mbl_train_t *t, size_t steps, mbl_event_step_t *out) {
    out->state = &t->state;
    out->step = t->state.step;
    out->epoch = t->state.epoch;
    out->stage = t->stage.index;
    out->active = t->stage.active;
    out->lr = t->config->train.lr;
    out->settings = t->settings;
    out->n_settings = t->n_settings;
    out->samples = (double)t->batch.n_global / (double)steps;
    out->update = &t->update;
    out->stats = t->stats;
    out->by_source = t->by_source;
    out->constraint = &t->constraint;
    out->pressure = t->pressure;
    out->x0_norm = t->watch.x0_norm;
    out->outside = t->watch.outside;
    out->traffic = &t->traffic;
    out->recheck = t->recheck.measured ? t->recheck.difference : NULL;
    out->solves = mbl_method_solves(t->stage.method);
    out->seconds.train = t->update.seconds.train;
    out->seconds.gram = t->update.seconds.gram;
    out->seconds.qp = t->update.seconds.qp;
    mbl_train_await_write(t);
    MBL_TRY(mbl_policy_deviation(&t->state.update.policy, &out->old_deviate));
    out->bytes_comm = mbl_timing_step(&t->timing, t->comm, &out->seconds);
    MBL_TRY(mbl_ranks_measure(t->comm, &out->seconds, &t->ranks));
    out->ranks = &t->ranks;
    out->seconds_left = t->timing.mean * (double)(t->config->train.steps - t->state.step);
    return MBL_OK;
}

/* Rollout, then inner_epochs * updates_per_epoch optimizer steps. A stop takes effect until the first update
 * only: checkpoints stand between epochs. */
static mbl_status_t epoch(mbl_train_t *t) {
    const mbl_config_t *config = t->config;
    const size_t left = config->train.steps - t->state.step,
                 most = config->train.inner_epochs * config->train.updates_per_epoch;
    const size_t steps = most < left ? most : left;
    mbl_event_step_t shown = {.state = NULL};
    bool updated = false;
    mbl_timing_epoch(&t->timing, t->comm);
    MBL_TRY(collect(t, &shown));
    MBL_TRY(mbl_events_images(&t->events, &(mbl_event_images_t){&t->state, &t->batch, t->stats, t->a}));
    mbl_timing_drawn(&t->timing, t->comm, shown.seconds.rollout, shown.seconds.reward_wait, steps);
    for (size_t inner = 0; inner < config->train.inner_epochs; inner++)
        for (size_t slice = 0; slice < config->train.updates_per_epoch && t->state.step < config->train.steps;
             slice++) {
            if (updated)
                MBL_TRY(mbl_train_read_control(t, 0));
            mbl_events_phase(&t->events, MBL_PHASE_TRAINING);
            MBL_TRY(mbl_train_update(t, inner, slice, updated ? NULL : t->stop));
            updated = true;
            MBL_TRY(describe_step(t, steps, &shown));
            MBL_TRY(mbl_events_step(&t->events, &shown));
            t->n_settings = t->settings_size = 0;
        }
    t->state.epoch++;
    t->state.constraint = t->constraint;
    return mbl_policy_follow(&t->state.update.policy,
                             mbl_policy_hold(t->state.step, (double)config->train.old_decay.flat,
                                             config->train.old_decay.rate, config->train.old_decay.hold));
}

/* ---- the run ---- */

/* The base model's scores: what the trained adapter is compared with, image by image, at the end. */
static mbl_status_t evaluate_base(mbl_train_t *t) {
    if (t->state.step == 0)
        MBL_TRY(mbl_train_evaluate(t, NULL, 0, t->config->log.samples_every > 0, t->base, NULL));
    else {
        mbl_events_phase(&t->events, MBL_PHASE_EVALUATION);
        MBL_TRY(mbl_evaluator_run(t->evaluator, NULL, t->base));
    }
    mbl_evaluator_keep(t->evaluator);
    return MBL_OK;
}

static mbl_status_t finish(mbl_train_t *t) {
    mbl_eval_score_t trained[MBL_MAX_REWARDS], change[MBL_MAX_REWARDS];
    MBL_TRY(mbl_train_evaluate(t, &t->state.update.policy.in_ema, t->state.step,
                               t->config->log.samples_every > 0, trained, change));
    return mbl_events_end(&t->events, &(mbl_event_end_t){t->base, trained, change});
}

/* Whether this run has been to its end already, the last evaluation included. */
static mbl_status_t is_through(mbl_train_t *t, bool *through) {
    MBL_TRY(mbl_rundir_evaluated(t->comm, &t->rundir, t->state.step, through));
    *through = *through && t->state.step >= t->config->train.steps;
    if (*through)
        MBL_RECORD(
            "step %llu of %zu is done and evaluated: there is nothing left to do (a higher train.steps "
            "goes on)",
            (unsigned long long)t->state.step, t->config->train.steps);
    return MBL_OK;
}

static mbl_status_t run(mbl_train_t *t) {
    size_t steps = t->config->train.steps;
    bool through;
    MBL_TRY(is_through(t, &through));
    if (through)
        return MBL_OK;
    MBL_TRY(evaluate_base(t));
    while (t->state.step < steps) {
        mbl_event_epoch_t done = {.before = t->state.step};
        MBL_TRY(mbl_train_follow_control(t));
        MBL_TRY(epoch(t));
        done.now = t->state.step;
        done.last = done.now >= steps;
        MBL_TRY(mbl_events_epoch(&t->events, &done));
    }
    return finish(t);
}

/* Ended before an update, by `why`, which all ranks know: the state is that of the last whole epoch. */
static mbl_status_t save_ended(mbl_train_t *t, mbl_status_t why) {
    char yaml[600], quoted[1200];
    MBL_TRY(mbl_train_save(t, true));
    MBL_TRY(mbl_rundir_join(t->out_dir, "run.yaml", yaml, sizeof yaml));
    MBL_RECORD("%s at step %llu of %zu; go on with: marble train %s --resume auto",
               why == MBL_ERR_STOPPED ? "stopped" : "ended by a reward that failed",
               (unsigned long long)t->state.step, t->config->train.steps,
               mbl_quote(yaml, quoted, sizeof quoted));
    return mbl_comm_agree(t->comm, why);
}

/* Before anything is closed: some of that needs the other ranks, and one that failed alone has none. Rank 0
 * ends the checkpoint that it writes by itself first. */
static mbl_status_t settle(mbl_train_t *t, mbl_status_t status) {
    if (status != MBL_OK && status != t->comm->agreed && !t->state.team)
        mbl_state_saved(&t->state, true);
    return mbl_comm_settle(t->comm, status);
}

/* A stop before anything is a run yet: nothing is there to be saved, and a word says so. */
static mbl_status_t say_early_stop(mbl_status_t opened) {
    if (opened == MBL_ERR_STOPPED)
        MBL_RECORD("stopped while the model was read, before a step: nothing is lost; the same command with "
                   "--resume auto goes on, or begins");
    return opened;
}

mbl_status_t mbl_train(const mbl_config_t *config, mbl_comm_t *comm, const mbl_train_options_t *options) {
    mbl_train_t t;
    memset(&t, 0, sizeof t);
    t.config = config;
    t.comm = comm;
    t.out_dir = options->folder.path;
    t.control = options->control;
    t.stop = mbl_stop_catch(mbl_stop_seconds(config->limits.seconds, config->limits.margin));
    mbl_status_t status;
    MBL_TRY_GOTO(mbl_rundir_look(comm, &options->folder), done);
    MBL_TRY_GOTO(say_early_stop(mbl_comm_agree(comm, mbl_train_open(&t))), done);
    MBL_TRY_GOTO(mbl_rundir_enter(comm, &options->folder, &t.rundir), done); /* only now is it a run */
    t.state.run = t.rundir.run;
    MBL_TRY_GOTO(mbl_state_writers(&t.state), done);
    MBL_TRY_GOTO(mbl_state_load(&t.state, t.rundir.checkpoint, options->accept_prompts), done);
    MBL_TRY_GOTO(mbl_train_keep_definitions(&t), done);
    config = t.config;
    MBL_TRY_GOTO(mbl_rundir_begin(comm, &t.rundir, config, t.state.step), done);
    if (config->log.tensorboard)
        MBL_TRY_GOTO(
            mbl_comm_agree(comm, comm->rank == 0 ? mbl_train_board_open(&t.rundir, t.state.step) : MBL_OK),
            done);
    t.state.branch = t.rundir.branch;
    if (mbl_rundir_forks(&t.rundir))
        MBL_TRY_GOTO(mbl_state_save(&t.state, t.out_dir, true), done);
    mbl_rundir_space(&t.rundir, config, mbl_state_bytes(&t.state), t.state.step, config->train.steps,
                     config->checkpoint.every);
    MBL_TRY_GOTO(mbl_comm_agree(comm, mbl_prompt_report_run(&t.engine)), done);
    MBL_TRY_GOTO(mbl_train_observe(&t, options->observers), done);
    if (t.control)
        mbl_control_config(t.control, config);
    MBL_TRY_GOTO(
        mbl_events_begin(&t.events, &(mbl_event_begin_t){t.rundir.path, config, comm->rank, comm->size}),
        done);
    status = settle(&t, run(&t));
    if (status == MBL_ERR_STOPPED || (status == MBL_ERR_REWARD && t.state.step > 0))
        status = save_ended(&t, status);
    if (status != MBL_OK && t.state.step > 0 && mbl_rundir_held(&t.rundir) == MBL_OK)
        mbl_train_write_report(&t);
done:
    status = settle(&t, status);
    if (t.control)
        mbl_control_config(t.control, NULL);
    mbl_train_close(&t);
    mbl_stop_release();
    return status;
}
