/* Routes, and the answers that are made of indexes and lines. */
#include "service/api.h"

#include "base/mem.h"
#include "service/api_internal.h"
#include "service/page.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const uint64_t LARGE = 9007199254740991; /* that every JSON reader knows exactly */

/* ---- lines ---- */

/* Which lines to send: all of [first, end), or `points` of them, spread evenly and with the last. */
static mbl_status_t choose(const mbl_lines_t *lines, size_t first, size_t end, size_t points,
                           mbl_answer_t *out) {
    size_t n = end - first, m = points && points < n ? points : n;
    MBL_ALLOC(out->parts, m + 1);
    for (size_t i = 0; i < m; i++)
        out->parts[i] = lines->items[m == n ? first + i : first + (i + 1) * n / m - 1];
    out->n_parts = m;
    return MBL_OK;
}

static mbl_status_t answer_lines(mbl_api_t *api, size_t run, const mbl_lines_t *lines,
                                 const mbl_query_t *keys, mbl_answer_t *out) {
    size_t first = mbl_lines_find(lines, keys[1].value), end = mbl_lines_find(lines, keys[2].value + 1);
    unsigned long long next = keys[1].value;
    end = end < first ? first : end;
    if (end > first)
        next = lines->items[end - 1].step + 1;
    (void)api;
    char *text = mbl_format("{\"run\":%zu,\"next\":%llu,\"total\":%zu,\"lines\":[", run, next, end - first);
    MBL_TRY(mbl_answer_text(out, "application/json", text, text ? strlen(text) : 0));
    out->end = "]}";
    if (end > first) {
        out->fd = dup(lines->fd);
        if (out->fd < 0)
            return MBL_FAIL(MBL_ERR_IO, "%s: no file can be opened", lines->name);
        MBL_TRY(choose(lines, first, end, keys[3].given ? (size_t)keys[3].value : 0, out));
    }
    mbl_answer_count(out);
    return MBL_OK;
}

static mbl_status_t get_metrics(mbl_api_t *api, size_t run, const mbl_query_t *keys, mbl_answer_t *out) {
    return answer_lines(api, run, &api->views[run].metrics, keys, out);
}

static mbl_status_t get_eval(mbl_api_t *api, size_t run, const mbl_query_t *keys, mbl_answer_t *out) {
    return answer_lines(api, run, &api->views[run].evals, keys, out);
}

static mbl_status_t get_gram(mbl_api_t *api, size_t run, const mbl_query_t *keys, mbl_answer_t *out) {
    return answer_lines(api, run, &api->views[run].gram, keys, out);
}

/* The steps there are, and the line of one. */
static mbl_status_t get_advantages(mbl_api_t *api, size_t run, const mbl_query_t *keys, mbl_answer_t *out) {
    const mbl_lines_t *lines = &api->views[run].advantages;
    size_t end = keys[1].given ? mbl_lines_find(lines, keys[1].value + 1) : lines->n;
    char *list, *at;
    MBL_ALLOC(list, 24 * lines->n + 96);
    at = list + sprintf(list, "{\"run\":%zu,\"steps\":[", run);
    for (size_t i = 0; i < lines->n; i++)
        at += sprintf(at, "%s%llu", i ? "," : "", (unsigned long long)lines->items[i].step);
    at += sprintf(at, "],\"line\":%s", end ? "" : "null");
    MBL_TRY(mbl_answer_text(out, "application/json", list, (size_t)(at - list)));
    out->end = "}";
    if (end) {
        out->fd = dup(lines->fd);
        if (out->fd < 0)
            return MBL_FAIL(MBL_ERR_IO, "%s: no file can be opened", lines->name);
        MBL_TRY(choose(lines, end - 1, end, 0, out));
    }
    mbl_answer_count(out);
    return MBL_OK;
}

/* ---- routes ---- */

static mbl_status_t get_health(mbl_api_t *api, size_t run, const mbl_query_t *keys, mbl_answer_t *out) {
    (void)api, (void)run, (void)keys;
    return mbl_answer_json(out, json_pack("{s:b}", "ok", 1));
}

static mbl_status_t get_page(mbl_api_t *api, size_t run, const mbl_query_t *keys, mbl_answer_t *out) {
    char *text = mbl_calloc(mbl_page_size + 1, 1);
    (void)api, (void)run, (void)keys;
    if (text)
        memcpy(text, mbl_page, mbl_page_size);
    return mbl_answer_text(out, "text/html; charset=utf-8", text, mbl_page_size);
}

typedef mbl_status_t (*get_t)(mbl_api_t *api, size_t run, const mbl_query_t *keys, mbl_answer_t *out);
enum { KEYS_MOST = 4 };

#define RUN                                                                                                  \
    { "run", 0, 1000, 0, false }
#define LINES                                                                                                \
    RUN, {"from", 0, LARGE, 0, false}, {"to", 0, LARGE, LARGE, false}, {                                     \
        "points", 1, 1000000, 0, false                                                                       \
    }

static const struct {
    const char *path;
    get_t get;
    bool fresh; /* of what is in the folders now */
    size_t n;
    mbl_query_t keys[KEYS_MOST];
} routes[] = {
    {"/", get_page, false, 1, {RUN}}, /* its own links may name a run */
    {"/healthz", get_health, false, 0, {{0}}},
    {"/metrics", mbl_api_get_prometheus, true, 0, {{0}}},
    {"/api/runs", mbl_api_get_runs, true, 0, {{0}}},
    {"/api/status", mbl_api_get_status, true, 1, {RUN}},
    {"/api/metrics", get_metrics, true, 4, {LINES}},
    {"/api/eval", get_eval, true, 4, {LINES}},
    {"/api/gram", get_gram, true, 4, {LINES}},
    {"/api/advantages", get_advantages, true, 2, {RUN, {"step", 0, LARGE, 0, false}}},
    {"/api/rollout", mbl_api_get_rollout, false, 1, {RUN}},
    {"/api/samples", mbl_api_get_samples, true, 1, {RUN}},
    {"/api/config", mbl_api_get_config, true, 1, {RUN}},
    {"/api/alarms", mbl_api_get_alarms, true, 1, {RUN}},
    {"/api/scorers", mbl_api_get_scorers, true, 1, {RUN}},
    {"/api/log", mbl_api_get_log, false, 2, {RUN, {"lines", 1, 1000, 200, false}}},
};

/* Reads the keys and looks for the run; false where the fault is the answer. */
static bool read_keys(mbl_api_t *api, const char *query, mbl_query_t *keys, size_t n, mbl_answer_t *out,
                      mbl_status_t *status) {
    char fault[MBL_QUERY_FAULT];
    if (!mbl_query_read(query, keys, n, fault)) {
        *status = mbl_answer_fault(out, 400, "%s", fault);
        return false;
    }
    if (n > 0 && keys[0].value >= api->n) {
        *status = mbl_answer_fault(out, 404, "run %llu: there is none; expected less than %zu",
                                   (unsigned long long)keys[0].value, api->n);
        return false;
    }
    return true;
}

/* A path with a number in it: an image, or those of a sheet. */
static mbl_status_t get_image(mbl_api_t *api, const char *path, const char *query, mbl_answer_t *out) {
    mbl_query_t keys[] = {RUN};
    mbl_status_t status;
    if (!read_keys(api, query, keys, 1, out, &status))
        return status;
    return mbl_api_get_image(api, keys[0].value, path, out);
}

static mbl_status_t refresh(mbl_api_t *api) {
    for (size_t i = 0; i < api->n; i++)
        MBL_TRY(mbl_view_refresh(&api->views[i]));
    return MBL_OK;
}

static mbl_status_t answer(mbl_api_t *api, const char *path, const char *query, mbl_answer_t *out) {
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        mbl_query_t keys[KEYS_MOST];
        mbl_status_t status;
        if (strcmp(routes[i].path, path) != 0)
            continue;
        memcpy(keys, routes[i].keys, sizeof keys);
        if (!read_keys(api, query, keys, routes[i].n, out, &status))
            return status;
        if (routes[i].fresh)
            MBL_TRY(refresh(api));
        return routes[i].get(api, routes[i].n ? keys[0].value : 0, keys, out);
    }
    if (strncmp(path, "/api/samples/", 13) == 0 || strncmp(path, "/api/rollout/", 13) == 0)
        return get_image(api, path, query, out);
    return mbl_answer_fault(out, 404, "nothing is at this path; GET /api/status is one");
}

mbl_status_t mbl_api_get(mbl_api_t *api, const char *path, const char *query, mbl_answer_t *out) {
    *out = (mbl_answer_t){.fd = -1};
    mbl_status_t status = answer(api, path, query, out);
    if (status != MBL_OK)
        mbl_answer_free(out);
    return status;
}

mbl_status_t mbl_api_open(const char *const *folders, size_t n, mbl_api_t *out) {
    memset(out, 0, sizeof *out);
    MBL_ALLOC(out->views, n);
    for (; out->n < n; out->n++) {
        mbl_status_t status = mbl_view_open(folders[out->n], &out->views[out->n]);
        if (status != MBL_OK) {
            mbl_view_close(&out->views[out->n]);
            return status;
        }
    }
    return refresh(out);
}

void mbl_api_close(mbl_api_t *api) {
    for (size_t i = 0; i < api->n; i++)
        mbl_view_close(&api->views[i]);
    mbl_free(api->views);
    memset(api, 0, sizeof *api);
}
