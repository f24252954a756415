/* What a person asks of the run under way (run/control.h), at the boundaries of steps and of epochs. */
#include "train/loop_internal.h"

#include "base/mem.h"
#include "run/stop.h"

#include <math.h>
#include <string.h>

static const double PAUSE_S = 0.25; /* between looks into the mailbox; the other ranks wait for rank 0's */

/* Keeps a configuration for the rest of the run. */
static mbl_status_t keep_config(mbl_train_t *t, mbl_config_t *config) {
    mbl_config_t **more;
    MBL_ALLOC(more, t->n_configs + 1);
    if (t->n_configs > 0)
        memcpy(more, t->configs, t->n_configs * sizeof *more);
    mbl_free(t->configs);
    t->configs = more;
    t->configs[t->n_configs++] = config;
    return MBL_OK;
}

/* Whether a number of the configuration is another now; NAN stands for none. */
static bool differ(double was, double is) {
    return isnan(was) ? !isnan(is) : was != is;
}

/* Weights enter a solve, and with marble the direction once more as 1 / w: what was solved for under others,
 * the averages and lengths of cached steps, would pull a reward the less the more it weighs now. With another
 * floor or limit the averages are of another program. The next step solves. marble_reference averages over
 * all its steps. */
static void take_balance(mbl_train_t *t, const mbl_config_t *config) {
    const mbl_config_t *was = t->config;
    bool other =
        mbl_method_is(t->stage.method, MBL_METHOD_FLOOR) && was->balance.floor != config->balance.floor;
    for (size_t k = 0; k < config->rewards.count; k++)
        other |= was->rewards.items[k].weight != config->rewards.items[k].weight ||
                 differ(was->rewards.items[k].min, config->rewards.items[k].min);
    if (other && !mbl_method_is(t->stage.method, MBL_METHOD_MICRO_BATCHES))
        mbl_update_forget(&t->state.update);
}

/* What balance.common: auto means follows from the rewards' limits. */
static void say_common(const mbl_train_t *t, const mbl_config_t *config) {
    const char *method = mbl_method_name(t->stage.method);
    mbl_common_t was = mbl_config_common(t->config, t->stage.method),
                 is = mbl_config_common(config, t->stage.method);
    if (was == is || t->comm->rank != 0)
        return;
    if (is == MBL_COMMON_TOGETHER)
        MBL_RECORD("from step %llu on: balance.common: auto, which was offset with %s, is together with %s, "
                   "as a reward has a min",
                   (unsigned long long)t->state.step + 1, method, method);
    else
        MBL_RECORD("from step %llu on: balance.common: auto, which was together with %s, is offset with %s, "
                   "as no reward has a min",
                   (unsigned long long)t->state.step + 1, method, method);
}

/* The run goes on with another configuration: everything reads it anew at every step, but for these. */
static void take_config(mbl_train_t *t, const mbl_config_t *config) {
    take_balance(t, config);
    say_common(t, config);
    t->config = t->engine.config = config;
    mbl_train_take_rewards(t);
    mbl_control_config(t->control, config);
}

/* For the next step's event. Where many come before one (in a pause), the last ones are kept. */
static void note_setting(mbl_train_t *t, const char *set) {
    size_t size = strlen(set) + 1;
    if (size > sizeof t->settings - t->settings_size)
        t->settings_size = t->n_settings = 0;
    memcpy(t->settings + t->settings_size, set, size);
    t->settings_size += size;
    t->n_settings++;
}

static mbl_status_t take_settings(mbl_train_t *t, const mbl_control_request_t *request) {
    mbl_config_t *config;
    MBL_TRY(mbl_control_configure(t->comm, t->config, request, &config));
    if (!config)
        return MBL_OK;
    mbl_status_t status = keep_config(t, config);
    if (status != MBL_OK)
        mbl_config_free(config);
    MBL_TRY(mbl_comm_agree(t->comm, status));
    take_config(t, config);
    mbl_rundir_rewrite(&t->rundir, t->comm, config);
    const char *set = request->text;
    for (size_t i = 0; i < request->sets; i++, set += strlen(set) + 1) {
        note_setting(t, set);
        if (t->comm->rank == 0)
            MBL_RECORD("from step %llu on: %s", (unsigned long long)t->state.step + 1, set);
    }
    return MBL_OK;
}

mbl_status_t mbl_train_read_control(mbl_train_t *t, double wait) {
    mbl_control_request_t request;
    if (!t->control)
        return MBL_OK;
    MBL_TRY(mbl_control_read(t->control, t->comm, wait, &request));
    if (request.sets > 0)
        MBL_TRY(take_settings(t, &request));
    t->asked.checkpoint |= request.checkpoint;
    t->asked.evaluate |= request.evaluate;
    t->asked.stop |= request.stop;
    t->asked.paused = request.paused;
    return MBL_OK;
}

/* Whether any rank was asked to stop, by a signal, a limit of time or the mailbox, or the run's folder is
 * another's now, which ends it without a checkpoint. */
static mbl_status_t check_stop(mbl_train_t *t) {
    bool stop = mbl_stop_check() || t->asked.stop;
    mbl_status_t held = mbl_rundir_held(&t->rundir);
    return mbl_comm_agree(t->comm, held != MBL_OK ? held : stop ? MBL_ERR_STOPPED : MBL_OK);
}

/* A checkpoint or an evaluation that was asked for. */
static mbl_status_t do_asked(mbl_train_t *t) {
    mbl_event_epoch_t event = {.before = t->state.step,
                               .now = t->state.step,
                               .checkpoint = t->asked.checkpoint,
                               .evaluate = t->asked.evaluate};
    t->asked.checkpoint = t->asked.evaluate = false;
    return event.checkpoint || event.evaluate ? mbl_events_epoch(&t->events, &event) : MBL_OK;
}

mbl_status_t mbl_train_follow_control(mbl_train_t *t) {
    bool paused = false;
    do {
        MBL_TRY(mbl_train_read_control(t, paused ? PAUSE_S : 0));
        MBL_TRY(check_stop(t));
        MBL_TRY(do_asked(t));
        if (t->asked.paused != paused && t->comm->rank == 0)
            MBL_INFO("%s %llu", t->asked.paused ? "paused after step" : "resumed after step",
                     (unsigned long long)t->state.step);
        paused = t->asked.paused;
    } while (paused);
    return MBL_OK;
}
