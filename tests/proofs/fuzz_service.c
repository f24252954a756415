/* libFuzzer harness of what the service of a run takes from outside. As it stands: a request, whose first
 * byte chooses between a path with its query, a query's keys, the headers that say who asks, and the body of
 * POST /api/control with the settings it asks for. With FUZZ_FOLDER: any bytes as one of the files in the
 * folder of a run, of which everything is asked then. Answers must be whole, of the codes that the API
 * describes, JSON where they say so, and free of what lies outside the folder and of its token. */
#include "base/log.h"
#include "base/mem.h"
#include "service/guard.h"
#include "service/query.h"
#include "service/request.h"
#include "service/stream.h"
#include "service_case.h"

#include <math.h>

#define MUST(cond)                                                                                           \
    do {                                                                                                     \
        if (!(cond)) {                                                                                       \
            fprintf(stderr, "fuzz_service.c:%d: not so: %s\n", __LINE__, #cond);                             \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

static const char secret[] = "SECRET-f00d", host_of_page[] = "node.example";

typedef struct {
    char folder[256], run[512];
    mbl_api_t api;
    json_t *values; /* of run.yaml, as a request's settings may name its rewards */
    mbl_config_t *config;
    mbl_control_t *control;
    mbl_comm_t *comm;
} fixture_t;

static void make(fixture_t *f) {
    static const char yaml[] = "model: {path: .}\nprompts: {groups: 4, group_size: 2}\n"
                               "rewards: [{name: ocr}, {name: jpeg, weight: 2}]\nbalance: {floor: 0.1}\n";
    char text[200];
    setenv("TMPDIR", "/dev/shm", 1);
    mbl_log_set_level(MBL_LOG_OFF);
    temporary_folder(f->folder);
    make_run(f->folder, "run", f->run, sizeof f->run);
    snprintf(text, sizeof text, "{\"token\": \"%s\"}", secret);
    append_text(f->run, "service.json", text);
    append_text(f->folder, "outside.json", text);
    append_text(f->folder, "metrics.jsonl", text);
    const char *const folders[] = {f->run};
    MUST(mbl_api_open(folders, 1, &f->api) == MBL_OK);
    f->values = json_incref(f->api.views[0].config);
    MUST(mbl_config_parse(yaml, sizeof yaml - 1, "run.yaml", NULL, 0, &f->config) == MBL_OK);
    MUST(mbl_control_new(&f->control) == MBL_OK && mbl_comm_open("self", 0, &f->comm) == MBL_OK);
    mbl_control_config(f->control, f->config);
}

static bool is_shown(const char *text, size_t most) {
    size_t n = strlen(text);
    for (size_t i = 0; i < n; i++)
        if (text[i] < ' ' || text[i] > '~')
            return false;
    return n > 0 && n < most;
}

/* The answer, read whole in pieces of `room`; JSON where it says so. */
static void ask(fixture_t *f, const char *path, const char *query, size_t room) {
    mbl_answer_t answer;
    if (mbl_api_get(&f->api, path, query, &answer) != MBL_OK)
        return; /* a failure of this process: 500 */
    MUST(answer.code == 200 || answer.code == 400 || answer.code == 404);
    char *all = malloc(answer.size + room + 1);
    size_t done = 0, n = 1;
    MUST(all);
    while (n > 0) {
        MUST(mbl_answer_read(&answer, all + done, room, &n) == MBL_OK);
        done += n;
        MUST(done <= answer.size);
    }
    MUST(done == answer.size);
    MUST(!memmem(all, done, secret, sizeof secret - 1));
    if (strcmp(answer.type, "application/json") == 0) {
        json_t *json = json_loadb(all, done, JSON_ALLOW_NUL, NULL);
        MUST(json_is_object(json));
        MUST(answer.code == 200 || json_string_length(json_object_get(json, "error")) > 0);
        json_decref(json);
    }
    free(all);
    mbl_answer_free(&answer);
}

#ifdef FUZZ_FOLDER

/* The file that the first byte chooses, and all that is answered from it. */
static void try_folder(fixture_t *f, const uint8_t *data, size_t size) {
    static const char *const files[] = {"metrics.jsonl", "eval.jsonl",  "gram.jsonl",
                                        "run.yaml",      "rollout.tar", "samples/step-000004.json",
                                        "log.txt",       "RUN",         "advantages.jsonl"};
    static const char *const paths[] = {
        "/api/status",  "/api/runs",      "/api/config",           "/api/alarms",
        "/api/scorers", "/metrics",       "/api/samples",          "/api/samples/000004",
        "/api/rollout", "/api/rollout/0", "/api/samples/000004/1", "/api/log"};
    char path[700];
    snprintf(path, sizeof path, "%s/%s", f->run, files[data[0] % (sizeof files / sizeof *files)]);
    unlink(path); /* another inode: nothing that was read stays */
    write_whole(path, data + 1, size - 1);
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        ask(f, paths[i], "", 1 + size);
    mbl_stream_t stream;
    mbl_stream_begin(&f->api, 0, true, 0, &stream);
    for (int i = 0; i < 100; i++) {
        size_t length;
        mbl_free(mbl_stream_next(&f->api, &stream, 16, &length));
    }
    unlink(path);
}

#else

static void try_path(fixture_t *f, char *text) {
    char *query = strchr(text, '?');
    if (query)
        *query++ = 0;
    ask(f, text, query ? query : "", 97);
}

static void try_query(const char *text) {
    mbl_query_t keys[] = {{"run", 0, 1000, 0, false}, {"from", 5, 9007199254740991, 7, false}};
    char fault[MBL_QUERY_FAULT] = "";
    if (!mbl_query_read(text, keys, 2, fault)) {
        MUST(is_shown(fault, MBL_QUERY_FAULT));
        return;
    }
    for (size_t i = 0; i < 2; i++)
        MUST(keys[i].value >= keys[i].low && keys[i].value <= keys[i].high);
    MUST((keys[0].given || keys[0].value == 0) && (keys[1].given || keys[1].value == 7));
}

/* Host, Origin and Authorization, a line each. */
static void try_headers(char *text) {
    static const char token[] = "0123456789abcdef";
    char *origin = strchrnul(text, '\n'), *authorization;
    origin += *origin == '\n' ? (*origin = 0, 1) : 0;
    authorization = strchrnul(origin, '\n');
    authorization += *authorization == '\n' ? (*authorization = 0, 1) : 0;
    if (mbl_guard_host(text, "")) { /* an address or localhost, and nothing behind it but a port */
        MUST(strspn(text, "0123456789abcdefABCDEF.:[]") == strlen(text) ||
             strncasecmp(text, "localhost", 9) == 0);
        MUST(mbl_guard_host(text, host_of_page));
    } else if (mbl_guard_host(text, host_of_page))
        MUST(strncasecmp(text, host_of_page, sizeof host_of_page - 1) == 0);
    if (mbl_guard_origin(origin, text) && origin[0])
        MUST(strlen(origin) > 7 && strcasecmp(strstr(origin, "://") + 3, text) == 0);
    if (mbl_guard_token(authorization, token))
        MUST(strcmp(authorization + 7, token) == 0);
    MUST(!mbl_guard_token(authorization, ""));
}

/* What a body asks for must be fit for the mailbox; settings that are taken are those of the configuration.
 */
static void try_body(fixture_t *f, const char *body, size_t size) {
    static mbl_request_t request;
    mbl_control_request_t posted;
    const char *sets[MBL_CONTROL_SETS];
    char fault[MBL_REQUEST_FAULT] = "";
    if (!mbl_request_read(body, size, f->values, &request, fault)) {
        MUST(is_shown(fault, MBL_REQUEST_FAULT));
        return;
    }
    MUST(request.n_verbs + request.n_sets > 0 && request.n_sets <= MBL_CONTROL_SETS);
    json_t *asked = mbl_request_asked(&request);
    MUST(json_array_size(json_object_get(asked, "asked")) == request.n_verbs + request.n_sets);
    json_decref(asked);
    for (size_t i = 0; i < request.n_sets; i++) {
        sets[i] = request.sets[i];
        MUST(strchr(sets[i], '=') && isfinite(strtod(strrchr(sets[i], '=') + 1, NULL)));
    }
    if (request.n_sets == 0 || mbl_control_set_all(f->control, sets, request.n_sets, 1) != MBL_OK)
        return;
    MUST(mbl_control_read(f->control, f->comm, 0, &posted) == MBL_OK && posted.sets == request.n_sets);
    mbl_config_t *made = NULL;
    MUST(mbl_control_configure(f->comm, f->config, &posted, &made) == MBL_OK && made);
    MUST(made->train.lr > 0 && made->rewards.count == f->config->rewards.count);
    mbl_config_free(made);
}

static void try_request(fixture_t *f, const uint8_t *data, size_t size) {
    char *text = malloc(size); /* of exactly that room, ended where the bytes end */
    MUST(text);
    memcpy(text, data + 1, size - 1);
    text[size - 1] = 0;
    switch (data[0] % 4) {
    case 0:
        try_path(f, text);
        break;
    case 1:
        try_query(text);
        break;
    case 2:
        try_headers(text);
        break;
    default:
        try_body(f, text, size - 1);
    }
    free(text);
}

#endif

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static fixture_t fixture;
    if (!fixture.control)
        make(&fixture);
    if (size < 2 || memmem(data, size, secret, sizeof secret - 1)) /* an answer may repeat what was asked */
        return 0;
#ifdef FUZZ_FOLDER
    try_folder(&fixture, data, size);
#else
    try_request(&fixture, data, size);
#endif
    return 0;
}
