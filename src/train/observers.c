/* The observers of a training run, in their order: alarms, metrics, terminal, checkpoints, evaluations,
 * samples, TensorBoard, report. */
#include "train/loop_internal.h"
#include "train/tensorboard.h"

#include "base/clock.h"
#include "train/keep_images.h"
#include "report/report.h"

#include <limits.h>

#include <math.h>

/* Whether a multiple of `every` lies after `before`, up to `after`. */
static bool due(uint64_t before, uint64_t after, size_t every) {
    return every > 0 && before / every != after / every;
}

/* ---- alarms ---- */

/* Checks every alarm and logs what was found. */
static mbl_status_t check_alarms(void *self, const mbl_event_step_t *step) {
    mbl_train_t *t = self;
    size_t every = t->config->alarms.replica_mismatch;
    const mbl_update_result_t *update = step->update;
    mbl_alarm_numbers_t numbers = {.old_deviate = step->old_deviate,
                                   .x0_norm = step->x0_norm,
                                   .finite = update->finite,
                                   .moved = update->norm > 0,
                                   .active = t->stage.active,
                                   .monitor = t->monitor,
                                   .replicas_same = true,
                                   .solves = step->solves,
                                   .solved = update->refreshed && update->balance.n_used > 0,
                                   .used = update->balance.n_used,
                                   .k = t->engine.k,
                                   .alpha = update->balance.alpha,
                                   .stats = step->stats,
                                   .outside = step->outside};
    double cos[MBL_MAX_REWARDS], cos_part[MBL_MAX_REWARDS];
    for (size_t k = 0; k < t->engine.k; k++) {
        bool measured = update->cosines && update->norm > 0 && update->balance.measured[k];
        cos[k] = measured ? update->balance.cos[k] : NAN;
        cos_part[k] = measured ? update->balance.cos_part[k] : NAN;
    }
    numbers.cos = cos;
    numbers.cos_part = cos_part;
    if (every > 0 && step->step % every == 0)
        MBL_TRY(mbl_watch_replicas(t->comm, &t->state.update.policy, &numbers.replicas_same));
    mbl_alarm_findings_t found;
    mbl_alarms_check(&t->config->alarms, &numbers, &t->state.alarms, &found);
    if (t->comm->rank == 0)
        mbl_watch_log(t->config, &t->state.alarms, &found, step->step);
    bool any = found.give_up;
    for (int i = 0; i < MBL_ALARMS && t->alarm_step == 0; i++)
        any |= found.found[i];
    if (any) {
        t->alarms = found;
        t->alarm_step = step->step;
    }
    return MBL_OK;
}

/* Which checkpoint to go on from after steps that were not finite. Rank 0. */
static mbl_status_t name_last_good(const mbl_train_t *t) {
    char folder[1024], path[1100];
    bool found;
    mbl_state_saved(&t->state, true);
    MBL_TRY(mbl_rundir_join(t->out_dir, "checkpoints", folder, sizeof folder));
    MBL_TRY(mbl_ckpt_latest(folder, NULL, path, sizeof path, &found));
    if (found)
        MBL_WARN("the last good checkpoint is %s; resume from it with --resume auto and a lower train.lr",
                 path);
    else
        MBL_WARN("there is no checkpoint from before these steps; look at the base model and train.lr");
    return MBL_OK;
}

/* Ends the run, with a checkpoint, at an alarm where alarms.on_alarm asks for it, or without one where step
 * after step was not finite. */
static mbl_status_t end_at_alarm(void *self, const mbl_event_epoch_t *epoch) {
    mbl_train_t *t = self;
    (void)epoch;
    mbl_status_t verdict = mbl_watch_verdict(t->comm, t->config, &t->alarms, t->alarm_step);
    if (verdict == MBL_ERR_ALARM && t->alarms.give_up)
        MBL_TRY(mbl_comm_agree(t->comm, t->comm->rank == 0 ? name_last_good(t) : MBL_OK));
    else if (verdict == MBL_ERR_ALARM &&
             !t->alarms.found[MBL_ALARM_replica_mismatch]) /* which rank is right? */
        MBL_TRY(mbl_train_save(t, true));
    return mbl_comm_agree(t->comm, verdict); /* saving agreed that all went well */
}

/* ---- metrics ---- */

static mbl_status_t write_metrics(void *self, const mbl_event_step_t *step) {
    mbl_train_t *t = self;
    MBL_TRY(mbl_report_metrics(&t->rundir, step));
    return mbl_report_gram(&t->rundir, step);
}

/* Where one of the epoch's optimizer steps is one whose advantages are asked for: the first and every
 * advantages_every-th from there. */
static mbl_status_t write_advantages(void *self, const mbl_event_images_t *images) {
    mbl_train_t *t = self;
    size_t every = t->config->log.advantages_every, at = every > 0 ? t->state.step % every : 0;
    size_t steps = t->config->train.inner_epochs * t->config->train.updates_per_epoch;
    if (every == 0 || (at > 0 && at + steps <= every))
        return MBL_OK;
    MBL_TRY(mbl_keep_rollout(t->comm, &t->rundir, images)); /* before the line that says so */
    return mbl_report_advantages(t->comm, &t->rundir, images);
}

static mbl_status_t write_evaluation(void *self, const mbl_event_eval_t *e) {
    mbl_train_t *t = self;
    return mbl_rundir_eval(&t->rundir, e->step, t->config, e->set, e->scores, e->change, e->evaluator);
}

static mbl_status_t write_sheet(void *self, const mbl_event_eval_t *e) {
    mbl_train_t *t = self;
    return e->sheet ? mbl_rundir_samples(&t->rundir, e->step, t->config, e->evaluator) : MBL_OK;
}

/* ---- TensorBoard ---- */

static mbl_status_t board_advantages(void *self, const mbl_event_images_t *images) {
    mbl_train_t *t = self;
    return t->config->log.tensorboard ? mbl_train_board_advantages(t->comm, &t->rundir, images) : MBL_OK;
}

static mbl_status_t board_step(void *self, const mbl_event_step_t *step) {
    mbl_train_t *t = self;
    return mbl_train_board_step(&t->rundir, step);
}

static mbl_status_t board_evaluation(void *self, const mbl_event_eval_t *e) {
    mbl_train_t *t = self;
    return mbl_train_board_eval(&t->rundir, e, t->config);
}

/* ---- terminal ---- */

static mbl_status_t print_progress(void *self, const mbl_event_step_t *step) {
    mbl_train_t *t = self;
    if (t->comm->rank == 0) {
        mbl_report_progress(step);
        mbl_table_step(&t->table, step, t->base);
    }
    return MBL_OK;
}

static mbl_status_t note_evaluation(void *self, const mbl_event_eval_t *e) {
    mbl_train_t *t = self;
    mbl_table_evaluated(&t->table, e, t->engine.k);
    return MBL_OK;
}

/* marble report makes one that could not be written. */
void mbl_train_write_report(const mbl_train_t *t) {
    char path[PATH_MAX];
    if (t->comm->rank != 0)
        return;
    mbl_fail_quiet(1);
    mbl_status_t status = mbl_report_write(t->out_dir, NULL, path, sizeof path);
    mbl_fail_quiet(0);
    if (status == MBL_OK)
        MBL_INFO("report: %s", path);
    else
        MBL_WARN("no report: %s", mbl_fail_message());
}

static mbl_status_t write_report(void *self, const mbl_event_end_t *end) {
    (void)end;
    mbl_train_write_report(self);
    return MBL_OK;
}

static mbl_status_t print_table(void *self, const mbl_event_end_t *end) {
    const mbl_train_t *t = self;
    if (t->comm->rank != 0)
        return MBL_OK;
    mbl_log_table(NULL);
    MBL_TRY(mbl_report_table(t->config, end->base, end->trained, end->change));
    return mbl_report_against(t->out_dir);
}

/* ---- checkpoints ---- */

mbl_status_t mbl_train_save(mbl_train_t *t, bool wait) {
    double start = mbl_now();
    mbl_events_phase(&t->events, MBL_PHASE_CHECKPOINT);
    mbl_status_t status = mbl_state_save(&t->state, t->out_dir, wait);
    mbl_timing_saved(&t->timing, mbl_lap(&start), false);
    return status;
}

/* Waiting here, before the step is shown, means that a run that dies has lost one reported step at most. */
void mbl_train_await_write(mbl_train_t *t) {
    double start = mbl_now();
    mbl_state_saved(&t->state, due(t->state.step - 1, t->state.step, t->config->checkpoint.every));
    mbl_timing_saved(&t->timing, mbl_lap(&start), true);
}

static mbl_status_t save_when_due(void *self, const mbl_event_epoch_t *epoch) {
    mbl_train_t *t = self;
    bool broken = t->state.alarms.run[MBL_ALARM_non_finite] > 0; /* the checkpoint before is the good one */
    bool now = due(epoch->before, epoch->now, t->config->checkpoint.every) && !broken;
    return now || epoch->last || epoch->checkpoint ? mbl_train_save(t, epoch->last) : MBL_OK;
}

/* ---- evaluations ---- */

mbl_status_t mbl_train_evaluate(mbl_train_t *t, const mbl_adapter_t *adapter, uint64_t step, bool sheet,
                                mbl_eval_score_t *scores, mbl_eval_score_t *change) {
    mbl_events_phase(&t->events, MBL_PHASE_EVALUATION);
    MBL_TRY(mbl_evaluator_run(t->evaluator, adapter, scores));
    if (adapter)
        MBL_TRY(mbl_evaluator_compare(t->evaluator, change));
    mbl_event_eval_t event = {.step = step,
                              .set = &t->engine.test,
                              .scores = scores,
                              .change = adapter ? change : NULL,
                              .evaluator = t->evaluator,
                              .sheet = sheet};
    return mbl_events_evaluated(&t->events, &event);
}

/* The last step's evaluation ends the run (loop.c). */
static mbl_status_t evaluate_when_due(void *self, const mbl_event_epoch_t *epoch) {
    mbl_train_t *t = self;
    const mbl_config_t *config = t->config;
    mbl_eval_score_t scores[MBL_MAX_REWARDS], change[MBL_MAX_REWARDS];
    bool sheet = due(epoch->before, epoch->now, config->log.samples_every);
    if (epoch->last || !(sheet || epoch->evaluate || due(epoch->before, epoch->now, config->eval.every)))
        return MBL_OK;
    return mbl_train_evaluate(t, &t->state.update.policy.in_ema, epoch->now, sheet, scores, change);
}

/* ---- the table ---- */

static const mbl_observer_t observers[] = {
    {.name = "alarms", .step = check_alarms, .epoch = end_at_alarm},
    {.name = "metrics", .images = write_advantages, .step = write_metrics, .evaluated = write_evaluation},
    {.name = "terminal", .step = print_progress, .evaluated = note_evaluation, .end = print_table},
    {.name = "checkpoints", .epoch = save_when_due},
    {.name = "evaluations", .epoch = evaluate_when_due},
    {.name = "samples", .evaluated = write_sheet},
    {.name = "tensorboard", /* behind samples, whose sheet it takes */
     .images = board_advantages,
     .step = board_step,
     .evaluated = board_evaluation},
    {.name = "report", .end = write_report}};

mbl_status_t mbl_train_observe(mbl_train_t *t, const mbl_events_t *more) {
    for (size_t i = 0; i < sizeof observers / sizeof *observers; i++)
        MBL_TRY(mbl_events_add(&t->events, &observers[i], t));
    for (size_t i = 0; more && i < more->n; i++)
        MBL_TRY(mbl_events_add(&t->events, more->items[i].observer, more->items[i].self));
    return MBL_OK;
}
