/* /metrics in Prometheus's text format, version 0.0.4: of every run the last step, the last evaluation, and
 * counts over the whole run. Values that were not computed are left out. */
#include "base/mem.h"
#include "service/api_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A number of the last line of metrics.jsonl, or one by reward: key, name, help. */
static const struct {
    const char *key, *name, *help;
    bool by; /* an object by reward */
} gauges[] = {
    {"epoch", "epoch", "Rollouts so far", false},
    {"loss", "loss", "Mean policy loss over the rewards", false},
    {"kl", "kl", "Mean square between the velocities of the trained policy and the base model", false},
    {"lr", "learning_rate", "Learning rate of the step", false},
    {"grad_norm", "grad_norm", "Length of the step's direction before clipping", false},
    {"old_lag", "old_lag", "Share by which the rollout policy differs from the trained one", false},
    {"samples_per_s", "samples_per_second", "Images a second, rollout and scoring included", false},
    {"cos_min", "cos_min", "Least cosine of the direction with a reward's gradient", false},
    {"bytes_comm", "comm_bytes", "Bytes that rank 0 gave to collective calls in the step", false},
    {"reward", "reward", "Mean score of the step's images", true},
    {"alpha", "alpha", "Share of the direction", true},
    {"alpha_ema", "alpha_ema", "Average of that share", true},
    {"cos", "cos", "Cosine of the direction with the reward's gradient", true},
    {"grad_norm_by", "reward_grad_norm", "Length of the reward's gradient", true},
    {"advantage_std", "advantage_std", "Standard deviation of the advantages", true},
    {"flat_groups", "flat_groups", "Prompts whose images all have the same score", true},
};

static void head(FILE *out, const char *name, const char *type, const char *help) {
    fprintf(out, "# HELP marble_%s %s\n# TYPE marble_%s %s\n", name, help, name, type);
}

/* A label's value, escaped. */
static void put_label(FILE *out, const char *label, const char *value) {
    fprintf(out, "%s=\"", label);
    for (; *value; value++) {
        if (*value == '\n')
            fputs("\\n", out);
        else {
            if (*value == '"' || *value == '\\')
                fputc('\\', out);
            fputc(*value, out);
        }
    }
    fputc('"', out);
}

/* One value, with a second label where `label` is not NULL; nothing where it is no number. */
static void put(FILE *out, const char *name, const mbl_view_t *view, const char *label, const char *which,
                const json_t *value) {
    if (!json_is_number(value))
        return;
    fprintf(out, "marble_%s{", name);
    put_label(out, "run", view->name);
    if (label) {
        fputc(',', out);
        put_label(out, label, which);
    }
    fprintf(out, "} %.9g\n", json_number_value(value));
}

static void put_all(FILE *out, const char *name, const mbl_view_t *view, const char *label,
                    const json_t *values) {
    const char *which;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)values, which, value) put(out, name, view, label, which, value);
}

static void put_count(FILE *out, const char *name, const mbl_view_t *view, double value) {
    json_t *number = json_real(value);
    put(out, name, view, NULL, NULL, number);
    json_decref(number);
}

static void put_lines(const mbl_api_t *api, FILE *out) {
    for (size_t i = 0; i < sizeof gauges / sizeof *gauges; i++) {
        head(out, gauges[i].name, "gauge", gauges[i].help);
        for (size_t run = 0; run < api->n; run++) {
            const mbl_view_t *view = &api->views[run];
            const json_t *value = json_object_get(view->metrics.last, gauges[i].key);
            if (gauges[i].by)
                put_all(out, gauges[i].name, view, "reward", value);
            else
                put(out, gauges[i].name, view, NULL, NULL, value);
        }
    }
    head(out, "phase_seconds", "gauge", "Wall time of the step on rank 0 by phase");
    for (size_t run = 0; run < api->n; run++)
        put_all(out, "phase_seconds", &api->views[run], "phase",
                json_object_get(api->views[run].metrics.last, "seconds"));
    head(out, "alarm_steps_total", "counter", "Steps in which the alarm was found");
    for (size_t run = 0; run < api->n; run++)
        put_all(out, "alarm_steps_total", &api->views[run], "alarm", api->views[run].alarm_counts);
}

static void put_scores(const mbl_api_t *api, FILE *out) {
    static const struct {
        const char *key, *name, *help;
    } counts[] = {{"valid", "images_scored_total", "Images that got a score"},
                  {"na", "images_not_applicable_total", "Images whose prompt the reward does not apply to"},
                  {"failed", "scores_failed_total", "Images whose scorer failed"}},
      evals[] = {{"mean", "eval_mean", "Mean score on held-out prompts at the last evaluation"},
                 {"ci95", "eval_ci95", "Half of its 95 % interval"},
                 {"change", "eval_change", "Mean difference to the base model"}};
    const char *name;
    json_t *item;
    for (size_t i = 0; i < 3; i++) {
        head(out, counts[i].name, "counter", counts[i].help);
        for (size_t run = 0; run < api->n; run++)
            json_object_foreach(api->views[run].totals, name, item) put(
                out, counts[i].name, &api->views[run], "reward", name, json_object_get(item, counts[i].key));
    }
    for (size_t i = 0; i < 3; i++) {
        head(out, evals[i].name, "gauge", evals[i].help);
        for (size_t run = 0; run < api->n; run++)
            json_object_foreach(json_object_get(api->views[run].evals.last, "rewards"), name, item) put(
                out, evals[i].name, &api->views[run], "reward", name, json_object_get(item, evals[i].key));
    }
}

static void put_steps(const mbl_api_t *api, FILE *out) {
    static const char *const states[] = {"running", "paused", "finished", "ended", "unknown"};
    head(out, "step", "gauge", "Optimizer steps done");
    for (size_t run = 0; run < api->n; run++)
        put_count(out, "step", &api->views[run], (double)mbl_view_step(&api->views[run]));
    head(out, "steps", "gauge", "Optimizer steps to do");
    for (size_t run = 0; run < api->n; run++)
        if (mbl_view_steps(&api->views[run]) > 0)
            put_count(out, "steps", &api->views[run], (double)mbl_view_steps(&api->views[run]));
    head(out, "state", "gauge", "1 for the state that the run is in");
    for (size_t run = 0; run < api->n; run++)
        for (size_t i = 0; i < sizeof states / sizeof *states; i++) {
            json_t *is = json_integer(strcmp(mbl_api_state(api, run), states[i]) == 0);
            put(out, "state", &api->views[run], "state", states[i], is);
            json_decref(is);
        }
}

static void put_service(const mbl_api_facts_t *facts, FILE *out) {
    head(out, "service_clients", "gauge", "Streams that are open");
    fprintf(out, "marble_service_clients %llu\n", (unsigned long long)facts->clients);
    head(out, "service_requests_total", "counter", "Requests answered");
    fprintf(out, "marble_service_requests_total %llu\n", (unsigned long long)facts->requests);
    head(out, "service_refused_total", "counter", "Requests and connections refused");
    fprintf(out, "marble_service_refused_total %llu\n", (unsigned long long)facts->refused);
    head(out, "service_dropped_total", "counter", "Lines left out for slow clients");
    fprintf(out, "marble_service_dropped_total %llu\n", (unsigned long long)facts->dropped);
}

mbl_status_t mbl_api_get_prometheus(mbl_api_t *api, size_t run, const mbl_query_t *keys, mbl_answer_t *out) {
    char *text = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);
    (void)run, (void)keys;
    if (!file)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for an answer");
    put_steps(api, file);
    put_lines(api, file);
    put_scores(api, file);
    put_service(&api->facts, file);
    char *copied = fclose(file) == 0 ? mbl_strdup(text) : NULL;
    free(text);
    return mbl_answer_text(out, "text/plain; version=0.0.4; charset=utf-8", copied, size);
}
