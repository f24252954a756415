/* What a run is and where it is. */
#include "base/clock.h"
#include "base/mem.h"
#include "service/api_internal.h"

#include <math.h>
#include <string.h>

/* In the order of mbl_phase_t. */
static const char *const phases[] = {"starting",   "rollout",    "scoring", "training",
                                     "evaluation", "checkpoint", "paused",  "done"};

static json_t *text_or_null(const char *text) {
    return text && text[0] ? json_string(text) : json_null();
}

static json_t *real_or_null(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

/* A new reference to what is there, or null. */
static json_t *found(const json_t *object, const char *key) {
    json_t *value = json_object_get(object, key);
    return value ? json_incref(value) : json_null();
}

static json_t *number_or_null(const json_t *object, const char *key) {
    return json_is_number(json_object_get(object, key)) ? found(object, key) : json_null();
}

static bool is_live(const mbl_api_t *api, size_t run) {
    return api->facts.live && run == 0;
}

const char *mbl_api_state(const mbl_api_t *api, size_t run) {
    static const char *const names[] = {"running", "finished", "ended", "unknown"};
    if (is_live(api, run) && api->facts.phase == MBL_PHASE_PAUSED)
        return "paused";
    return names[api->views[run].state];
}

static json_t *steps_of(const mbl_view_t *view) {
    uint64_t steps = mbl_view_steps(view);
    return steps ? json_integer((json_int_t)steps) : json_null();
}

mbl_status_t mbl_api_get_runs(mbl_api_t *api, size_t run, const mbl_query_t *keys, mbl_answer_t *out) {
    json_t *list = json_array();
    (void)run, (void)keys;
    for (size_t i = 0; i < api->n; i++) {
        const mbl_view_t *view = &api->views[i];
        json_array_append_new(list,
                              json_pack("{s:I,s:s,s:o,s:s,s:I,s:o}", "run", (json_int_t)i, "name", view->name,
                                        "id", text_or_null(view->id), "state", mbl_api_state(api, i), "step",
                                        (json_int_t)mbl_view_step(view), "steps", steps_of(view)));
    }
    return mbl_answer_json(out, json_pack("{s:o}", "runs", list));
}

static json_t *reward_of(const json_t *item) {
    return json_pack("{s:o,s:o,s:o,s:o,s:b,s:o}", "name", found(item, "name"), "type", found(item, "type"),
                     "weight", number_or_null(item, "weight"), "min", number_or_null(item, "min"), "monitor",
                     json_is_true(json_object_get(item, "monitor")), "group", found(item, "group"));
}

/* Those of run.yaml, in their order. */
static json_t *rewards_of(const mbl_view_t *view) {
    json_t *list = json_array(), *item;
    size_t i;
    json_array_foreach(json_object_get(view->config, "rewards"), i,
                       item) if (json_is_string(json_object_get(item, "name")))
        json_array_append_new(list, reward_of(item));
    return list;
}

static json_t *phase_of(const mbl_api_t *api, size_t run) {
    const mbl_api_facts_t *facts = &api->facts;
    return is_live(api, run)
               ? json_pack("{s:s,s:f}", "name", phases[facts->phase], "seconds", mbl_now() - facts->since)
               : json_null();
}

static json_t *counts_of(const mbl_view_t *view) {
    return json_pack("{s:I,s:I,s:I,s:I,s:I}", "metrics", (json_int_t)view->metrics.n, "eval",
                     (json_int_t)view->evals.n, "gram", (json_int_t)view->gram.n, "advantages",
                     (json_int_t)view->advantages.n, "samples", (json_int_t)view->n_samples);
}

json_t *mbl_api_status(const mbl_api_t *api, size_t run) {
    const mbl_view_t *view = &api->views[run];
    const mbl_api_facts_t *facts = &api->facts;
    uint64_t step = mbl_view_step(view), steps = mbl_view_steps(view);
    double pace = mbl_view_pace(view);
    bool going = steps >= step && (view->state == MBL_VIEW_RUNNING || is_live(api, run));
    json_t *status = json_pack(
        "{s:I,s:s,s:o,s:s,s:b,s:s,s:s,s:I,s:o,s:o,s:o}", "run", (json_int_t)run, "name", view->name, "id",
        text_or_null(view->id), "state", mbl_api_state(api, run), "live", is_live(api, run), "session",
        facts->session, "version", MBL_VERSION, "step", (json_int_t)step, "steps", steps_of(view), "epoch",
        number_or_null(view->metrics.last, "epoch"), "time", found(view->metrics.last, "time"));
    json_t *more = json_pack("{s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "seconds_left",
                             going ? real_or_null(pace * (double)(steps - step)) : json_null(),
                             "seconds_per_step", real_or_null(pace), "phase", phase_of(api, run), "ranks",
                             is_live(api, run) ? json_integer(facts->ranks) : json_null(), "host",
                             text_or_null(view->host), "rewards", rewards_of(view), "control",
                             json_pack("{s:b,s:b}", "allowed", is_live(api, run) && facts->control, "paused",
                                       is_live(api, run) && facts->asked_pause),
                             "lines", counts_of(view), "service",
                             json_pack("{s:I,s:I,s:I,s:I}", "clients", (json_int_t)facts->clients, "requests",
                                       (json_int_t)facts->requests, "refused", (json_int_t)facts->refused,
                                       "dropped", (json_int_t)facts->dropped));
    if (!status || !more || json_object_update(status, more) != 0) {
        json_decref(status);
        status = NULL;
    }
    json_decref(more);
    return status;
}

mbl_status_t mbl_api_get_status(mbl_api_t *api, size_t run, const mbl_query_t *keys, mbl_answer_t *out) {
    (void)keys;
    return mbl_answer_json(out, mbl_api_status(api, run));
}

mbl_status_t mbl_api_get_config(mbl_api_t *api, size_t run, const mbl_query_t *keys, mbl_answer_t *out) {
    const mbl_view_t *view = &api->views[run];
    json_t *yaml = view->yaml ? json_string(view->yaml) : NULL; /* NULL: not UTF-8 either */
    (void)keys;
    if (!yaml) /* no fault: a folder without one is shown, and a browser logs every 404 as an error */
        yaml = json_string("");
    return mbl_answer_json(out, json_pack("{s:I,s:o,s:o}", "run", (json_int_t)run, "yaml", yaml, "values",
                                          view->config ? json_incref(view->config) : json_null()));
}

mbl_status_t mbl_api_get_alarms(mbl_api_t *api, size_t run, const mbl_query_t *keys, mbl_answer_t *out) {
    const mbl_view_t *view = &api->views[run];
    (void)keys;
    return mbl_answer_json(out, json_pack("{s:I,s:O,s:O}", "run", (json_int_t)run, "counts",
                                          view->alarm_counts, "events", view->alarms));
}

/* The type that run.yaml has for a reward. */
static json_t *type_of(const mbl_view_t *view, const char *name) {
    json_t *item;
    size_t i;
    json_array_foreach(json_object_get(view->config, "rewards"), i, item) {
        const char *other = json_string_value(json_object_get(item, "name"));
        if (other && strcmp(other, name) == 0)
            return found(item, "type");
    }
    return json_null();
}

mbl_status_t mbl_api_get_scorers(mbl_api_t *api, size_t run, const mbl_query_t *keys, mbl_answer_t *out) {
    const mbl_view_t *view = &api->views[run];
    const json_t *remote = json_object_get(view->metrics.last, "remote");
    json_t *list = json_array(), *total;
    const char *name;
    (void)keys;
    json_object_foreach(view->totals, name, total) json_array_append_new(
        list, json_pack("{s:s,s:o,s:O,s:O,s:O,s:o}", "name", name, "type", type_of(view, name), "valid",
                        json_object_get(total, "valid"), "na", json_object_get(total, "na"), "failed",
                        json_object_get(total, "failed"), "last", found(remote, name)));
    return mbl_answer_json(out, json_pack("{s:I,s:o}", "run", (json_int_t)run, "scorers", list));
}

enum { LOG_BYTES = 1 << 18 };

/* The last lines of a text that may begin amid one; *size of it. */
static const char *last_lines(const char *text, size_t *size, size_t lines, bool whole) {
    size_t start = *size, seen = 0;
    if (start > 0 && text[start - 1] == '\n')
        start--;
    while (start > 0 && seen < lines) {
        start--;
        seen += text[start] == '\n';
    }
    start += seen == lines && text[start] == '\n';
    if (start == 0 && !whole) {
        const char *end = memchr(text, '\n', *size);
        start = end ? (size_t)(end + 1 - text) : *size;
    }
    *size -= start;
    return text + start;
}

mbl_status_t mbl_api_get_log(mbl_api_t *api, size_t run, const mbl_query_t *keys, mbl_answer_t *out) {
    size_t size = 0;
    json_t *list = json_array();
    char *text = mbl_view_text(&api->views[run], "log.txt", LOG_BYTES, &size);
    const char *at = text ? last_lines(text, &size, keys[1].value, size < LOG_BYTES) : NULL;
    while (at && size > 0) {
        const char *end = memchr(at, '\n', size);
        size_t length = end ? (size_t)(end - at) : size;
        json_t *line = json_stringn(at, length);
        json_array_append_new(list, line ? line : json_string("(a line that is not UTF-8)"));
        at += length + (end != NULL);
        size -= length + (end != NULL);
    }
    mbl_free(text);
    return mbl_answer_json(out, json_pack("{s:I,s:o}", "run", (json_int_t)run, "lines", list));
}
