/* The mailbox of a run and its observers: what is asked of rank 0 reaches all ranks alike, settings are
 * checked when they are posted, observers are called in order.   ctest-ranks: 2 3 */
#include "ranks.h"

#include "base/mem.h"
#include "run/control.h"
#include "run/events.h"

#include <math.h>
#include <string.h>
#include <uv.h>

static mbl_comm_t *comm;

static const char config_text[] = "model: {path: .}\n"
                                  "prompts: {groups: 4, group_size: 2}\n"
                                  "rewards: [{name: ocr}, {name: jpeg, weight: 2}]\n"
                                  "balance: {floor: 0.1}\n";

static mbl_config_t *open_config(void) {
    mbl_config_t *config;
    assert_int_equal(mbl_config_parse(config_text, sizeof config_text - 1, "run.yaml", NULL, 0, &config),
                     MBL_OK);
    return config;
}

static mbl_control_t *open_control(const mbl_config_t *config) {
    mbl_control_t *control;
    assert_int_equal(mbl_control_new(&control), MBL_OK);
    mbl_control_config(control, config);
    return control;
}

static mbl_control_request_t read_now(mbl_control_t *control) {
    mbl_control_request_t request;
    memset(&request, 7, sizeof request);
    assert_int_equal(mbl_control_read(control, comm, 0, &request), MBL_OK);
    return request;
}

static void requests_reach_every_rank_once(void **state) {
    (void)state;
    mbl_control_t *control = open_control(NULL);
    mbl_control_request_t request = read_now(control);
    assert_false(request.checkpoint || request.evaluate || request.stop || request.paused || request.sets);
    mbl_control_verb_t verb = comm->rank == 0 ? MBL_CONTROL_CHECKPOINT : MBL_CONTROL_STOP;
    mbl_control_ask(control, verb); /* that of another rank is not read */
    if (comm->rank == 0) {
        mbl_control_ask(control, MBL_CONTROL_EVALUATE);
        mbl_control_ask(control, MBL_CONTROL_PAUSE);
    }
    request = read_now(control);
    assert_true(request.checkpoint && request.evaluate && request.paused && !request.stop);
    request = read_now(control); /* a pause lasts, the others are done */
    assert_true(!request.checkpoint && !request.evaluate && request.paused);
    if (comm->rank == 0) {
        mbl_control_ask(control, MBL_CONTROL_RESUME);
        mbl_control_ask(control, MBL_CONTROL_STOP);
    }
    request = read_now(control);
    assert_true(!request.paused && request.stop);
    mbl_control_free(control);
}

static void settings_make_a_configuration(void **state) {
    (void)state;
    mbl_config_t *config = open_config(), *made = NULL;
    mbl_control_t *control = open_control(config);
    if (comm->rank == 0) {
        assert_int_equal(mbl_control_set(control, "train.lr=0.125", 2), MBL_OK);
        assert_int_equal(mbl_control_set(control, "balance.floor=0.25", 2), MBL_OK);
        assert_int_equal(mbl_control_set(control, "rewards.1.weight=3", 2), MBL_OK);
        assert_int_equal(mbl_control_set(control, "train.lr=0.25", 2), MBL_OK); /* the last one holds */
    }
    mbl_control_request_t request = read_now(control);
    assert_int_equal(request.sets, 4);
    assert_int_equal(mbl_control_configure(comm, config, &request, &made), MBL_OK);
    assert_non_null(made);
    assert_near(made->train.lr, 0.25, 0);
    assert_near(made->balance.floor, 0.25, 0);
    assert_near(made->rewards.items[1].weight, 3, 0);
    assert_near(config->balance.floor, 0.1, 0);
    assert_int_equal(read_now(control).sets, 0);
    mbl_config_free(made);
    mbl_control_free(control);
    mbl_config_free(config);
}

/* With the reason, and nothing of it in the box. */
static void wrong_settings_are_refused_when_posted(void **state) {
    static const struct {
        const char *set, *reason;
    } wrong[] = {{"train.lr=-1", "train.lr"},
                 {"train.lr=fast", "train.lr"},
                 {"balance.floor=0.75", "0.75 with 2 rewards"},
                 {"rewards.7.weight=1", "rewards"},
                 {"rewards.1.weight=0", "weight"},
                 {"seed=3", "expected KEY=VALUE with train.lr"},
                 {"rewards.0.name=jpeg", "expected KEY=VALUE with train.lr"},
                 {"rewards..min=1", "expected KEY=VALUE with train.lr"},
                 {"train.lr", "expected KEY=VALUE with train.lr"},
                 {"", "expected KEY=VALUE with train.lr"}};
    (void)state;
    mbl_config_t *config = open_config();
    mbl_control_t *control = open_control(config);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(mbl_control_set(control, wrong[i].set, 2), MBL_ERR_CONFIG);
        if (!strstr(mbl_fail_message(), wrong[i].reason))
            fail_msg("%s: \"%s\" lacks \"%s\"", wrong[i].set, mbl_fail_message(), wrong[i].reason);
    }
    for (size_t i = 0; i < MBL_CONTROL_SETS; i++)
        assert_int_equal(mbl_control_set(control, "train.lr=0.5", 2), MBL_OK);
    assert_int_equal(mbl_control_set(control, "train.lr=0.5", 2), MBL_ERR_ARG);
    assert_int_equal(read_now(control).sets, MBL_CONTROL_SETS);
    mbl_control_config(control, NULL);
    assert_int_equal(mbl_control_set(control, "train.lr=0.5", 2), MBL_ERR_ARG);
    mbl_control_free(control);
    mbl_config_free(config);
}

/* Several are posted together or not at all; whether a pause is asked for can be seen, and that it holds. */
static void all_settings_or_none(void **state) {
    static const char *const good[] = {"train.lr=0.5", "balance.floor=0.2"}, *const bad[] = {
                                                                                 "train.lr=0.25",
                                                                                 "balance.floor=0.75"};
    (void)state;
    mbl_config_t *config = open_config();
    mbl_control_t *control = open_control(config);
    bool asked, waits;
    assert_int_equal(mbl_control_set_all(control, bad, 2, 2), MBL_ERR_CONFIG);
    assert_int_equal(read_now(control).sets, 0);
    assert_int_equal(mbl_control_set_all(control, good, 2, 2), MBL_OK);
    mbl_control_ask(control, MBL_CONTROL_PAUSE);
    mbl_control_pausing(control, &asked, &waits);
    assert_true(asked && !waits);
    mbl_control_request_t request;
    assert_int_equal(mbl_control_read(control, comm, 0.001, &request), MBL_OK);
    assert_int_equal(request.sets, comm->rank == 0 ? 2 : request.sets);
    mbl_control_pausing(control, &asked, &waits);
    assert_true(asked && (waits || comm->rank > 0));
    mbl_control_free(control);
    mbl_config_free(config);
}

/* What one rank refuses, no rank takes. */
static void a_rank_that_refuses_refuses_for_all(void **state) {
    (void)state;
    mbl_config_t *config = open_config(), *made = config;
    mbl_control_request_t request = {.sets = 1, .text = "train.lr=0.5"};
    if (comm->rank == comm->size - 1)
        strcpy(request.text, "train.lr=-0.5");
    assert_int_equal(mbl_control_configure(comm, config, &request, &made), MBL_OK);
    assert_null(made);
    mbl_config_free(config);
}

typedef struct {
    mbl_control_t *control;
    size_t times;
} poster_t;

static void post(void *argument) {
    poster_t *poster = argument;
    for (size_t i = 0; i < poster->times; i++) {
        assert_int_equal(mbl_control_set(poster->control, "train.lr=0.5", 2), MBL_OK);
        uv_sleep(2);
    }
    mbl_control_ask(poster->control, MBL_CONTROL_STOP);
}

/* From another thread: nothing is lost, and a reader that waits is woken long before its time is over. */
static void a_thread_posts(void **state) {
    (void)state;
    mbl_config_t *config = open_config();
    mbl_control_t *control = open_control(config);
    poster_t poster = {control, 12};
    uv_thread_t thread;
    mbl_control_request_t request;
    size_t sets = 0, reads = 0;
    uint64_t start = uv_hrtime();
    if (comm->rank == 0)
        assert_int_equal(uv_thread_create(&thread, post, &poster), 0);
    do {
        assert_int_equal(mbl_control_read(control, comm, 30, &request), MBL_OK);
        sets += request.sets;
        reads++;
    } while (!request.stop);
    assert_int_equal(sets, 12);
    assert_true(reads <= 13);
    assert_true(1e-9 * (double)(uv_hrtime() - start) < 25);
    if (comm->rank == 0)
        uv_thread_join(&thread);
    mbl_control_free(control);
    mbl_config_free(config);
}

/* ---- observers ---- */

typedef struct {
    char seen[64];
} notes_t;

static mbl_status_t note(notes_t *notes, const char *what) {
    strncat(notes->seen, what, sizeof notes->seen - strlen(notes->seen) - 1);
    return strcmp(what, "!") == 0 ? MBL_ERR_NUMERIC : MBL_OK;
}

static mbl_status_t note_step(void *self, const mbl_event_step_t *event) {
    return note(self, event->step == 3 ? "!" : "s");
}

static mbl_status_t note_epoch(void *self, const mbl_event_epoch_t *event) {
    return note(self, event->last ? "L" : "e");
}

static mbl_status_t note_other_step(void *self, const mbl_event_step_t *event) {
    (void)event;
    return note(self, "o");
}

static void observers_are_called_in_order(void **state) {
    static const mbl_observer_t first = {.name = "first", .step = note_step, .epoch = note_epoch},
                                second = {.name = "second", .step = note_other_step};
    (void)state;
    notes_t notes = {""};
    mbl_events_t events = {.n = 0};
    assert_int_equal(mbl_events_add(&events, &first, &notes), MBL_OK);
    assert_int_equal(mbl_events_add(&events, &second, &notes), MBL_OK);
    assert_int_equal(mbl_events_step(&events, &(mbl_event_step_t){.step = 1}), MBL_OK);
    assert_int_equal(mbl_events_epoch(&events, &(mbl_event_epoch_t){.now = 1}), MBL_OK);
    assert_int_equal(mbl_events_end(&events, &(mbl_event_end_t){NULL, NULL, NULL}), MBL_OK);
    assert_int_equal(mbl_events_step(&events, &(mbl_event_step_t){.step = 3}), MBL_ERR_NUMERIC);
    assert_int_equal(mbl_events_epoch(&events, &(mbl_event_epoch_t){.last = true}), MBL_OK);
    assert_string_equal(notes.seen, "soe!L"); /* a failure keeps the event from those behind */
    for (size_t i = 2; i < MBL_EVENTS_MOST; i++)
        assert_int_equal(mbl_events_add(&events, &second, &notes), MBL_OK);
    assert_int_equal(mbl_events_add(&events, &second, &notes), MBL_ERR_ARG);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_reach_every_rank_once),
        cmocka_unit_test(settings_make_a_configuration),
        cmocka_unit_test(wrong_settings_are_refused_when_posted),
        cmocka_unit_test(all_settings_or_none),
        cmocka_unit_test(a_rank_that_refuses_refuses_for_all),
        cmocka_unit_test(a_thread_posts),
        cmocka_unit_test(observers_are_called_in_order),
    };
    return RUN_ON_RANKS(&comm, tests);
}
