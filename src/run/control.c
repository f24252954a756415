/* The mailbox of a run. */
#include "run/control.h"

#include "base/mem.h"

#include <ctype.h>
#include <string.h>
#include <uv.h>

struct mbl_control {
    uv_mutex_t lock; /* guards all below */
    uv_cond_t posted;
    mbl_control_request_t box; /* empty but for `paused` */
    bool full;                 /* something was asked since the last read */
    bool waits;                /* the last read waited: the run is paused */
    const mbl_config_t *config;
};

mbl_status_t mbl_control_new(mbl_control_t **out) {
    mbl_control_t *control;
    MBL_ALLOC(control, 1);
    int error = uv_mutex_init(&control->lock);
    if (!error && (error = uv_cond_init(&control->posted)))
        uv_mutex_destroy(&control->lock);
    if (error) {
        mbl_free(control);
        return MBL_FAIL(MBL_ERR_MEM, "a lock for requests: %s", uv_strerror(error));
    }
    *out = control;
    return MBL_OK;
}

void mbl_control_free(mbl_control_t *control) {
    if (!control)
        return;
    uv_cond_destroy(&control->posted);
    uv_mutex_destroy(&control->lock);
    mbl_free(control);
}

void mbl_control_config(mbl_control_t *control, const mbl_config_t *config) {
    uv_mutex_lock(&control->lock);
    control->config = config;
    uv_mutex_unlock(&control->lock);
}

/* With the lock held. */
static void note_post(mbl_control_t *control) {
    control->full = true;
    uv_cond_broadcast(&control->posted);
}

void mbl_control_ask(mbl_control_t *control, mbl_control_verb_t verb) {
    uv_mutex_lock(&control->lock);
    mbl_control_request_t *box = &control->box;
    box->checkpoint |= verb == MBL_CONTROL_CHECKPOINT;
    box->evaluate |= verb == MBL_CONTROL_EVALUATE;
    box->stop |= verb == MBL_CONTROL_STOP;
    if (verb == MBL_CONTROL_PAUSE || verb == MBL_CONTROL_RESUME)
        box->paused = verb == MBL_CONTROL_PAUSE;
    note_post(control);
    uv_mutex_unlock(&control->lock);
}

/* ---- settings ---- */

/* '#' stands for a number: what a step reads anew each time. */
static const char *const steerable[] = {"train.lr", "balance.floor", "balance.refresh_every",
                                        "rewards.#.weight", "rewards.#.min"};

/* Whether `key`, up to its '=', is that pattern. */
static bool matches(const char *pattern, const char *key) {
    for (; *pattern; pattern++) {
        if (*pattern != '#') {
            if (*key++ != *pattern)
                return false;
            continue;
        }
        if (!isdigit((unsigned char)*key))
            return false;
        while (isdigit((unsigned char)*key))
            key++;
    }
    return *key == '=';
}

static bool is_steerable(const char *setting) {
    for (size_t i = 0; i < sizeof steerable / sizeof *steerable; i++)
        if (matches(steerable[i], setting))
            return true;
    return false;
}

/* The configuration with these settings over it, checked. */
static mbl_status_t configure(const mbl_config_t *config, const char *const *sets, size_t n, size_t ranks,
                              mbl_config_t **out) {
    char *text;
    mbl_config_t *made = NULL;
    MBL_TRY(mbl_config_json(config, &text));
    mbl_status_t status = mbl_config_parse(text, strlen(text), "the run's configuration", sets, n, &made);
    mbl_free(text);
    MBL_TRY(status);
    status = mbl_config_check(made, ranks);
    if (status != MBL_OK) {
        mbl_config_free(made);
        return status;
    }
    *out = made;
    return MBL_OK;
}

/* The settings of a box, in order; n of them. */
static size_t list_sets(const mbl_control_request_t *box, const char *sets[MBL_CONTROL_SETS]) {
    const char *at = box->text;
    for (size_t i = 0; i < box->sets; i++, at += strlen(at) + 1)
        sets[i] = at;
    return box->sets;
}

/* With the lock held: the box with these settings more, or as it was. */
static mbl_status_t post_settings(mbl_control_t *control, const char *const *settings, size_t n,
                                  size_t ranks) {
    const char *sets[MBL_CONTROL_SETS];
    mbl_control_request_t box = control->box;
    mbl_config_t *made;
    size_t used = 0;
    for (size_t i = 0; i < box.sets; i++)
        used += strlen(box.text + used) + 1;
    for (size_t i = 0; i < n; i++) {
        size_t length = strlen(settings[i]) + 1;
        MBL_REQUIRE(box.sets < MBL_CONTROL_SETS && used + length <= sizeof box.text,
                    "control: %u settings wait for the next step already; expected at most %d, of %d "
                    "characters",
                    (unsigned)box.sets, MBL_CONTROL_SETS, MBL_CONTROL_TEXT);
        memcpy(box.text + used, settings[i], length);
        used += length;
        box.sets++;
    }
    MBL_TRY(configure(control->config, sets, list_sets(&box, sets), ranks, &made));
    mbl_config_free(made);
    control->box = box;
    note_post(control);
    return MBL_OK;
}

mbl_status_t mbl_control_set_all(mbl_control_t *control, const char *const *settings, size_t n,
                                 size_t ranks) {
    for (size_t i = 0; i < n; i++)
        if (!is_steerable(settings[i]))
            return MBL_FAIL(MBL_ERR_CONFIG,
                            "control: %.100s; expected KEY=VALUE with train.lr, balance.floor, "
                            "balance.refresh_every, rewards.N.weight or rewards.N.min",
                            settings[i]);
    uv_mutex_lock(&control->lock);
    mbl_status_t status = control->config ? post_settings(control, settings, n, ranks)
                                          : MBL_FAIL(MBL_ERR_ARG, "control: no run takes settings now");
    uv_mutex_unlock(&control->lock);
    return status;
}

mbl_status_t mbl_control_set(mbl_control_t *control, const char *setting, size_t ranks) {
    return mbl_control_set_all(control, &setting, 1, ranks);
}

void mbl_control_pausing(mbl_control_t *control, bool *asked, bool *waits) {
    if (uv_mutex_trylock(&control->lock) != 0)
        return;
    *asked = control->box.paused;
    *waits = control->waits;
    uv_mutex_unlock(&control->lock);
}

/* ---- reading ---- */

static void take(mbl_control_t *control, double wait, mbl_control_request_t *out) {
    uv_mutex_lock(&control->lock);
    control->waits = wait > 0;
    if (!control->full && wait > 0)
        (void)uv_cond_timedwait(&control->posted, &control->lock, (uint64_t)(1e9 * wait));
    *out = control->box;
    bool paused = control->box.paused;
    control->box = (mbl_control_request_t){.paused = paused};
    control->full = false;
    uv_mutex_unlock(&control->lock);
}

mbl_status_t mbl_control_read(mbl_control_t *control, mbl_comm_t *comm, double wait,
                              mbl_control_request_t *out) {
    memset(out, 0, sizeof *out);
    if (comm->rank == 0)
        take(control, wait, out);
    return mbl_comm_bcast(comm, out, sizeof *out, 0);
}

mbl_status_t mbl_control_configure(mbl_comm_t *comm, const mbl_config_t *config,
                                   const mbl_control_request_t *request, mbl_config_t **out) {
    const char *sets[MBL_CONTROL_SETS];
    mbl_config_t *made = NULL;
    int64_t good = configure(config, sets, list_sets(request, sets), (size_t)comm->size, &made) == MBL_OK;
    mbl_status_t status = mbl_comm_allreduce(comm, &good, 1, MBL_COMM_I64, MBL_COMM_MIN);
    if (status != MBL_OK || !good) {
        mbl_config_free(made);
        made = NULL;
    }
    MBL_TRY(status);
    if (!good && comm->rank == 0)
        MBL_WARN("control: the settings are not applied, since a rank refused them");
    *out = made;
    return MBL_OK;
}
