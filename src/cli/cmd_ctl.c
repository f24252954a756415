/* marble ctl: asks a run at work something through its service. */
#include "base/log.h"
#include "base/mem.h"
#include "cli/args.h"
#include "cli/commands.h"
#include "service/request.h"
#include "service/service.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char about[] =
    "Asks a run at work something, through the service that it has where service.listen is not off. DIR is\n"
    "its folder, whose service.json has the address and the token; at a URL the token is in the\n"
    "environment's MARBLE_TOKEN.\n"
    "    marble ctl runs/run                            where it is\n"
    "    marble ctl runs/run address                    of its page, with the token that lets the page "
    "steer\n"
    "    marble ctl runs/run checkpoint evaluate        after this epoch\n"
    "    marble ctl runs/run pause                      before the next epoch, until resume; or stop\n"
    "    marble ctl runs/run train.lr=1e-4 rewards.ocr.weight=2\n"
    "                                                   from the next step on, on all ranks; also\n"
    "                                                   balance.floor, balance.refresh_every, "
    "rewards.NAME.min";

enum { WORDS_MOST = 32, ANSWER_MOST = 1 << 20, SECONDS = 10 };

/* What an answer's bytes are put into. */
typedef struct {
    char *text;
    size_t size;
} answer_t;

static size_t take(char *data, size_t one, size_t n, void *self) {
    answer_t *answer = self;
    if (n > ANSWER_MOST - answer->size)
        return 0;
    memcpy(answer->text + answer->size, data, n);
    answer->size += n;
    return one * n;
}

/* GET, or POST where there is a body; the answer's code, its JSON in *out. */
static mbl_status_t ask(const mbl_service_place_t *place, const char *path, const char *body, long *code,
                        json_t **out) {
    static const char prefix[] = "unix:";
    bool local = strncmp(place->address, prefix, sizeof prefix - 1) == 0;
    char url[640], bearer[128];
    answer_t answer = {mbl_calloc(ANSWER_MOST + 1, 1), 0};
    CURL *curl = curl_easy_init();
    struct curl_slist *headers = NULL;
    snprintf(url, sizeof url, "%s%s", local ? "http://localhost" : place->address, path);
    snprintf(bearer, sizeof bearer, "Authorization: Bearer %s", place->token);
    headers = curl_slist_append(headers, "Content-Type: application/json");
    if (place->token[0])
        headers = curl_slist_append(headers, bearer);
    if (!answer.text || !curl || !headers) {
        curl_slist_free_all(headers);
        curl_easy_cleanup(curl);
        mbl_free(answer.text);
        return MBL_FAIL(MBL_ERR_MEM, "ctl: no memory for a request");
    }
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, (long)SECONDS);
    curl_easy_setopt(curl, CURLOPT_NOPROXY, "*"); /* a token goes to no proxy */
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &answer);
    if (local)
        curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, place->address + sizeof prefix - 1);
    if (body)
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
    CURLcode failed = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, code);
    *out = failed ? NULL : json_loadb(answer.text, answer.size, 0, NULL);
    mbl_status_t status =
        failed ? MBL_FAIL(MBL_ERR_IO, "ctl: nobody answers at %s: %s; the run may have ended", place->address,
                          curl_easy_strerror(failed))
        : *out
            ? MBL_OK
            : MBL_FAIL(MBL_ERR_FORMAT, "ctl: %s answered with code %ld and no JSON", place->address, *code);
    explicit_bzero(bearer, sizeof bearer);
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
    mbl_free(answer.text);
    return status;
}

/* ---- what is asked ---- */

static bool is_verb(const char *word) {
    for (const char *const *verb = mbl_request_verbs(); *verb; verb++)
        if (strcmp(*verb, word) == 0)
            return true;
    return false;
}

/* KEY=VALUE into the object of settings. */
static mbl_status_t add_setting(json_t *set, const char *word) {
    const char *equals = strchr(word, '=');
    char key[128], *end;
    if (!equals || equals == word || (size_t)(equals - word) >= sizeof key)
        return MBL_FAIL(MBL_ERR_USAGE,
                        "ctl: \"%.60s\": expected checkpoint, evaluate, pause, resume, stop, address, or "
                        "KEY=VALUE such as train.lr=1e-4",
                        word);
    snprintf(key, sizeof key, "%.*s", (int)(equals - word), word);
    double value = strtod(equals + 1, &end);
    if (end == equals + 1 || *end)
        return MBL_FAIL(MBL_ERR_USAGE, "ctl: %.60s: expected a number behind the =", word);
    bool whole = strspn(equals + 1, "-0123456789") == strlen(equals + 1);
    json_object_set_new(set, key, whole ? json_integer(strtoll(equals + 1, NULL, 10)) : json_real(value));
    return MBL_OK;
}

/* The body of a request of these words. Release with json_decref, after a failure too. */
static mbl_status_t make_body(const char *const *words, size_t n, json_t **out) {
    json_t *body = *out = json_object(), *set = json_object();
    mbl_status_t status = MBL_OK;
    for (size_t i = 0; i < n && status == MBL_OK; i++)
        if (is_verb(words[i]))
            json_object_set_new(body, words[i], json_true());
        else
            status = add_setting(set, words[i]);
    if (json_object_size(set) > 0)
        json_object_set(body, "set", set);
    json_decref(set);
    return status;
}

static mbl_status_t control(const mbl_service_place_t *place, const char *const *words, size_t n) {
    json_t *body, *answer = NULL, *asked;
    long code = 0;
    size_t i;
    mbl_status_t status = make_body(words, n, &body);
    char *text = status == MBL_OK ? json_dumps(body, JSON_COMPACT) : NULL;
    json_decref(body);
    MBL_TRY(status);
    status =
        text ? ask(place, "/api/control", text, &code, &answer) : MBL_FAIL(MBL_ERR_MEM, "ctl: no memory");
    free(text);
    MBL_TRY(status);
    const char *error = json_string_value(json_object_get(answer, "error"));
    if (code != 202)
        status = MBL_FAIL(code == 400 || code == 422 ? MBL_ERR_USAGE : MBL_ERR_IO, "ctl: %s",
                          error ? error : "the run did not say why it refused");
    json_array_foreach(json_object_get(answer, "asked"), i, asked)
        printf("asked: %s\n", json_string_value(asked));
    json_decref(answer);
    return status;
}

static mbl_status_t show(const mbl_service_place_t *place, bool json) {
    json_t *status;
    long code;
    MBL_TRY(ask(place, "/api/status", NULL, &code, &status));
    const char *state = json_string_value(json_object_get(status, "state"));
    const json_t *phase = json_object_get(status, "phase");
    if (json) {
        char *text = json_dumps(status, JSON_COMPACT);
        puts(text ? text : "null");
        free(text);
    } else
        printf("%s: %s, step %lld of %lld, %s\n", place->address, state ? state : "?",
               (long long)json_integer_value(json_object_get(status, "step")),
               (long long)json_integer_value(json_object_get(status, "steps")),
               json_is_object(phase) ? json_string_value(json_object_get(phase, "name")) : "not live");
    json_decref(status);
    return MBL_OK;
}

/* Where the run's service is: a URL as it is given, or what a folder says. */
static mbl_status_t find(const char *target, mbl_service_place_t *out) {
    const char *token = getenv("MARBLE_TOKEN");
    memset(out, 0, sizeof *out);
    if (strncmp(target, "http://", 7) == 0 || strncmp(target, "https://", 8) == 0 ||
        strncmp(target, "unix:", 5) == 0) {
        size_t length = strlen(target);
        while (length > 0 && target[length - 1] == '/')
            length--;
        if (length >= sizeof out->address || (token && strlen(token) >= sizeof out->token))
            return MBL_FAIL(MBL_ERR_USAGE, "ctl: %.60s...: too long", target);
        snprintf(out->address, sizeof out->address, "%.*s", (int)length, target);
        snprintf(out->token, sizeof out->token, "%s", token ? token : "");
        return MBL_OK;
    }
    if (mbl_service_read(target, out))
        return MBL_OK;
    return MBL_FAIL(
        MBL_ERR_USAGE,
        "ctl: %s: it has no service.json that is yours alone (mode 600); expected the folder of a "
        "run at work whose service.listen is not off, or a URL",
        target);
}

int mbl_cmd_ctl(int argc, char **argv) {
    bool helped = false, json = false;
    mbl_arg_texts_t rest = {NULL, 0};
    const mbl_arg_t args[] = {{"json", MBL_ARG_FLAG, &json, NULL,
                               "the answer to a bare DIR as JSON (GET /api/status)", 0, 0, 0, NULL}};
    const mbl_args_t spec = {"ctl", "DIR|URL [WORD...]", about, args, sizeof args / sizeof *args,
                             1,     1 + WORDS_MOST};
    mbl_service_place_t place;
    mbl_status_t status = mbl_args_parse(&spec, argc, argv, &rest, &helped);
    if (status != MBL_OK || helped)
        return mbl_status_exit_code(status);
    status = find(rest.items[0], &place);
    if (status == MBL_OK && rest.count == 1)
        status = show(&place, json);
    else if (status == MBL_OK && rest.count == 2 && strcmp(rest.items[1], "address") == 0)
        printf("%s%s%s\n", place.address, place.port ? "/#token=" : "", place.port ? place.token : "");
    else if (status == MBL_OK)
        status = control(&place, rest.items + 1, rest.count - 1);
    explicit_bzero(&place, sizeof place);
    mbl_free(rest.items);
    return mbl_status_exit_code(status);
}
