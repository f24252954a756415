/* A run that is steered while it goes, by an observer that posts to its mailbox as a service would: settings
 * hold on every rank from the next step on and reach checkpoints, checkpoints and evaluations come when asked
 * for, a pause waits and a stop can be resumed.   ctest-ranks: 2 */
#include "ranks.h"

#include "io/checkpoint.h"
#include "io/jsonl.h"
#include "train/loop.h"

#include <jansson.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <uv.h>

enum { STEPS = 6 };

static mbl_comm_t *comm;
static char folder[256];

/* What rank 0 asks after a step. */
typedef struct {
    uint64_t step;
    mbl_control_verb_t verb; /* where setting is NULL */
    const char *setting;
} asked_t;

/* What an observer of every rank saw, and rank 0's plan. */
typedef struct {
    mbl_control_t *control;
    const asked_t *plan;
    size_t n, images, evaluations;
    double lr[STEPS + 1], floor[STEPS + 1], ended[STEPS + 1]; /* ended: clock */
    double alpha[STEPS + 1][MBL_MAX_REWARDS], mean[STEPS + 1][MBL_MAX_REWARDS];
    bool table, solved[STEPS + 1];
    char seen[400]; /* phases as they begin, in capitals, and events */
    uv_thread_t waker;
    bool wakes;
} watcher_t;

static void wake(void *self) {
    uv_sleep(700);
    mbl_control_ask(((watcher_t *)self)->control, MBL_CONTROL_RESUME);
}

static void note(watcher_t *w, char what) {
    w->seen[strnlen(w->seen, sizeof w->seen - 2)] = what;
}

static void see_phase(void *self, mbl_phase_t phase) {
    note(self, "?RSTECPD"[phase]);
}

static mbl_status_t see_step(void *self, const mbl_event_step_t *event) {
    watcher_t *w = self;
    note(w, 's');
    w->lr[event->step] = event->lr;
    w->floor[event->step] = event->state->engine->config->balance.floor;
    w->solved[event->step] = event->update->refreshed;
    memcpy(w->alpha[event->step], event->update->balance.alpha, sizeof w->alpha[0]);
    memcpy(w->mean[event->step], event->update->balance.alpha_mean, sizeof w->mean[0]);
    w->ended[event->step] = 1e-9 * (double)uv_hrtime();
    for (size_t i = 0; i < w->n && comm->rank == 0; i++) {
        if (w->plan[i].step != event->step)
            continue;
        if (w->plan[i].setting)
            MBL_TRY(mbl_control_set(w->control, w->plan[i].setting, (size_t)comm->size));
        else
            mbl_control_ask(w->control, w->plan[i].verb);
        if (!w->plan[i].setting && w->plan[i].verb == MBL_CONTROL_PAUSE && !w->wakes)
            w->wakes = uv_thread_create(&w->waker, wake, w) == 0;
    }
    return MBL_OK;
}

static mbl_status_t see_images(void *self, const mbl_event_images_t *event) {
    ((watcher_t *)self)->images += event->batch->n;
    note(self, 'i');
    return MBL_OK;
}

static mbl_status_t see_evaluation(void *self, const mbl_event_eval_t *event) {
    ((watcher_t *)self)->evaluations += event->step > 0;
    note(self, 'e');
    return MBL_OK;
}

static mbl_status_t see_end(void *self, const mbl_event_end_t *event) {
    ((watcher_t *)self)->table = event->base && event->trained && event->change;
    return MBL_OK;
}

static const mbl_observer_t watcher = {.name = "test",
                                       .images = see_images,
                                       .step = see_step,
                                       .evaluated = see_evaluation,
                                       .end = see_end,
                                       .phase = see_phase};

/* A run of six steps in folder/name under the plan. */
static mbl_status_t run(const char *name, const char *resume, watcher_t *w) {
    char text[2048], out[512];
    mbl_config_t *config;
    mbl_events_t events = {.n = 0};
    snprintf(
        text, sizeof text,
        "seed: 42\nthreads: 1\ndevice: cpu\nmodel: {path: \"%s/deploy/examples/signs-base\", lora: {rank: 4, "
        "alpha: 8}}\nprompts: {groups: 4, group_size: 2}\nrollout: {steps: 2, solver: dpm2, micro_batch: 8}\n"
        "train: {steps: %d, lr: 5.0e-4, beta: 1.0, micro_batch: 8, timestep_fraction: 0.5}\n"
        "rewards: [{name: color}, {name: clean}, {name: jpeg}]\n"
        "eval: {every: 0, prompts: 2, steps: 1}\ncheckpoint: {every: 0}\n"
        "log: {level: warn, samples_every: 0}\n",
        MBL_SOURCE_DIR, STEPS);
    snprintf(out, sizeof out, "%s/%s", folder, name);
    assert_int_equal(mbl_config_parse(text, strlen(text), "run.yaml", NULL, 0, &config), MBL_OK);
    assert_int_equal(mbl_control_new(&w->control), MBL_OK);
    assert_int_equal(mbl_events_add(&events, &watcher, w), MBL_OK);
    mbl_status_t status = mbl_train(config, comm,
                                    &(mbl_train_options_t){.folder = {.path = out, .resume = resume},
                                                           .observers = &events,
                                                           .control = w->control});
    if (w->wakes)
        uv_thread_join(&w->waker);
    mbl_control_free(w->control);
    mbl_config_free(config);
    return status;
}

static bool exists(const char *name, size_t step) {
    char path[600];
    struct stat info;
    snprintf(path, sizeof path, "%s/%s/checkpoints/step-%06zu.h5", folder, name, step);
    return stat(path, &info) == 0;
}

/* Whether the run's folder has a report; rank 0's folder is everybody's. */
static bool reported(const char *name) {
    char path[600];
    struct stat info;
    snprintf(path, sizeof path, "%s/%s/report.html", folder, name);
    return stat(path, &info) == 0 && info.st_size > 1000;
}

/* The number that a checkpoint's configuration has for balance.floor. */
static double saved_floor(const char *name, size_t step) {
    char path[600];
    mbl_ckpt_t *ckpt;
    snprintf(path, sizeof path, "%s/%s/checkpoints/step-%06zu.h5", folder, name, step);
    assert_int_equal(mbl_ckpt_open(path, &ckpt), MBL_OK);
    json_t *config = json_loads(mbl_ckpt_attr(ckpt, "config"), 0, NULL);
    double floor = json_number_value(json_object_get(json_object_get(config, "balance"), "floor"));
    json_decref(config);
    mbl_ckpt_close(ckpt);
    return floor;
}

/* The settings that the lines of metrics.jsonl have, as "STEP:SETTING ...". */
static void said_settings(const char *name, char *out, size_t size) {
    char path[600];
    json_t *lines, *setting;
    size_t used = 0, i;
    snprintf(path, sizeof path, "%s/%s/metrics.jsonl", folder, name);
    assert_int_equal(mbl_jsonl_read(path, STEPS, &lines), MBL_OK);
    out[0] = 0;
    for (size_t step = 1; step <= STEPS; step++)
        json_array_foreach(json_object_get(json_array_get(lines, step - 1), "control"), i, setting) used +=
            (size_t)snprintf(out + used, size - used, "%zu:%s ", step, json_string_value(setting));
    json_decref(lines);
}

/* What run.yaml of the folder has: a run that goes on from there goes on with the settings. */
static double written_floor(const char *name) {
    char path[600];
    mbl_config_t *config;
    snprintf(path, sizeof path, "%s/%s/run.yaml", folder, name);
    assert_int_equal(mbl_config_load(path, NULL, 0, &config), MBL_OK);
    double floor = config->balance.floor;
    mbl_config_free(config);
    return floor;
}

/* Whether the log of a run has these words. */
static bool logged(const char *name, const char *words) {
    char path[600], line[2000];
    bool found = false;
    snprintf(path, sizeof path, "%s/%s/log.txt", folder, name);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (!found && fgets(line, sizeof line, file))
        found = strstr(line, words) != NULL;
    fclose(file);
    return found;
}

static void settings_hold_from_the_next_step_on(void **state) {
    static const asked_t plan[] = {{2, 0, "train.lr=0.001"},      {3, 0, "balance.floor=0.25"},
                                   {3, 0, "rewards.0.min=0.5"},   {5, 0, "train.lr=0.002"},
                                   {5, 0, "balance.floor=0.125"}, {4, MBL_CONTROL_CHECKPOINT, NULL}};
    (void)state;
    watcher_t w = {.plan = plan, .n = sizeof plan / sizeof *plan};
    assert_int_equal(run("set", NULL, &w), MBL_OK);
    static const double lr[] = {0, 5e-4, 5e-4, 1e-3, 1e-3, 1e-3, 2e-3},
                        floor[] = {0, 0, 0, 0, .25, .25, .125};
    for (size_t step = 1; step <= STEPS; step++) {
        assert_near(w.lr[step], lr[step], 1e-15);
        assert_near(w.floor[step], floor[step], 0);
    }
    assert_int_equal(w.images, STEPS * 8 / (size_t)comm->size);
    assert_int_equal(w.evaluations, 1); /* the last */
    assert_true(w.table);
    assert_string_equal(w.seen, "EeRSiTsRSiTsRSiTsRSiTsCRSiTsRSiTsCEe");
    assert_int_equal(mbl_comm_barrier(comm), MBL_OK);
    assert_true(exists("set", 4) && exists("set", STEPS));
    assert_false(exists("set", 3) || exists("set", 5));
    assert_near(saved_floor("set", 4), 0.25, 0);
    assert_near(saved_floor("set", STEPS), 0.125, 0);
    assert_near(written_floor("set"), 0.125, 0);
    char said[400];
    said_settings("set", said, sizeof said);
    assert_string_equal(said, "3:train.lr=0.001 4:balance.floor=0.25 4:rewards.0.min=0.5 6:train.lr=0.002 "
                              "6:balance.floor=0.125 ");
    assert_true(logged("set",
                       "from step 4 on: balance.common: auto, which was offset with marble, is together "
                       "with marble, as a reward has a min"));
    /* with the limit, the average of other gradients is gone: it is what step 4 solved for */
    for (size_t k = 0; k < 3; k++)
        assert_near(w.mean[4][k], w.alpha[4][k], 1e-12);
    assert_true(fabs(w.mean[3][0] - w.alpha[3][0]) > 1e-9);
}

/* Cached weights are a solution under the rewards' weights and the floor of then: other ones make the next
 * step solve. */
static void another_weight_solves_anew(void **state) {
    static const asked_t plan[] = {{1, 0, "balance.refresh_every=9"},
                                   {2, 0, "rewards.0.weight=5"},
                                   {4, 0, "balance.floor=0.25"},
                                   {5, 0, "train.lr=0.001"}};
    static const bool solves[] = {false, true, false, true, false, true, false};
    (void)state;
    watcher_t w = {.plan = plan, .n = sizeof plan / sizeof *plan};
    assert_int_equal(run("weight", NULL, &w), MBL_OK);
    for (size_t step = 1; step <= STEPS; step++)
        assert_int_equal(w.solved[step], solves[step]);
    assert_false(logged("weight", "balance.common: auto, which was"));
}

/* As if no run had been interrupted: the weights that were steered away go on in the next. */
static void a_stop_is_resumed(void **state) {
    static const asked_t plan[] = {{1, MBL_CONTROL_EVALUATE, NULL}, {3, MBL_CONTROL_STOP, NULL}};
    (void)state;
    watcher_t first = {.plan = plan, .n = 2}, second = {.n = 0};
    assert_int_equal(run("stop", NULL, &first), MBL_ERR_STOPPED);
    assert_int_equal(first.evaluations, 1);
    assert_true(first.lr[3] > 0 && first.lr[4] == 0 && !first.table);
    assert_string_equal(first.seen, "EeRSiTsEeRSiTsRSiTsC");
    assert_int_equal(mbl_comm_barrier(comm), MBL_OK);
    assert_true(exists("stop", 3) && reported("stop"));
    assert_int_equal(run("stop", "auto", &second), MBL_OK);
    assert_string_equal(second.seen, "ERSiTsRSiTsRSiTsCEe"); /* the base model's are not shown again */
    assert_true(second.lr[3] == 0 && second.lr[4] > 0 && second.lr[STEPS] > 0 && second.table);
}

static void a_pause_waits(void **state) {
    static const asked_t plan[] = {{2, MBL_CONTROL_PAUSE, NULL}, {2, MBL_CONTROL_CHECKPOINT, NULL}};
    (void)state;
    watcher_t w = {.plan = plan, .n = 2};
    assert_int_equal(run("pause", NULL, &w), MBL_OK);
    assert_true(w.ended[3] - w.ended[2] > 0.6);
    assert_true(w.table);
    assert_int_equal(mbl_comm_barrier(comm), MBL_OK);
    assert_true(exists("pause", 2)); /* written while it waited */
}

static int make(void **state) {
    (void)state;
    if (comm->rank == 0)
        temporary_folder(folder);
    return mbl_comm_bcast(comm, folder, sizeof folder, 0) != MBL_OK;
}

static int drop(void **state) {
    (void)state;
    if (comm->rank == 0)
        remove_folder(folder);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(settings_hold_from_the_next_step_on),
        cmocka_unit_test(another_weight_solves_anew),
        cmocka_unit_test(a_stop_is_resumed),
        cmocka_unit_test(a_pause_waits),
    };
    comm = open_ranks();
    int failed = comm ? cmocka_run_group_tests_name("train_control", tests, make, drop) : 1;
    mbl_comm_close(comm);
    return failed;
}
