/* proto/: exchanges recorded with real servers and clients, replayed: each request must be made again byte
 * for byte, and each response read to the scores that were recorded. With --speak this program is one end of
 * such a recording: tests/golden/make_proto.py gives it a case and carries its requests to a real server, one
 * line of JSON each way. */
#include "proto_case.h"

static json_t *base64_json(const void *bytes, size_t size) {
    char *text = malloc(BASE64_ENCODE_RAW_LENGTH(size) + 1);
    base64_encode_raw(text, size, bytes);
    json_t *json = json_stringn(text, BASE64_ENCODE_RAW_LENGTH(size));
    free(text);
    return json;
}

static json_t *request_json(const mbl_proto_request_t *request) {
    char *body = whole_body(request);
    json_t *headers = json_object();
    for (size_t i = 0; i < request->n_headers; i++)
        json_object_set_new(headers, request->headers[i].name, json_string(request->headers[i].value));
    json_t *json = json_pack("{s:s, s:s, s:o, s:o}", "method", request->method, "path", request->path,
                             "headers", headers, "body", base64_json(body, request->body_bytes));
    free(body);
    return json;
}

/* A recorded response; what it points to lives as long as `json` and `*body`. */
static mbl_proto_response_t response_of(const json_t *json, mbl_proto_header_t *headers, uint8_t **body) {
    mbl_proto_response_t out = {.status = (int)json_integer_value(json_object_get(json, "status")),
                                .headers = headers};
    const char *name;
    json_t *value;
    json_object_foreach(json_object_get(json, "headers"), name, value) {
        assert_true(out.n_headers < MBL_PROTO_HEADERS_MAX);
        headers[out.n_headers++] = (mbl_proto_header_t){name, json_string_value(value)};
    }
    *body = from_base64(text_or_null(json, "body"), &out.body_bytes);
    out.body = *body;
    return out;
}

static json_t *result_json(const mbl_proto_result_t *result) {
    json_t *scores = json_array(), *states = json_array(), *reasons = json_array();
    for (size_t i = 0; i < result->outputs * result->n; i++) {
        json_array_append_new(scores, json_real((double)result->scores[i]));
        json_array_append_new(states, json_integer(result->states[i]));
        json_array_append_new(reasons, result->reasons[i] ? json_string(result->reasons[i]) : json_null());
    }
    return json_pack("{s:o, s:o, s:o}", "scores", scores, "states", states, "reasons", reasons);
}

static json_t *error_json(const mbl_proto_error_t *error) {
    return json_pack("{s:s, s:s}", "error", mbl_proto_error_name(error->kind), "text", error->text);
}

/* Where requests of a case go and responses come from: a record, or whoever is at the other end of this
 * program. */
typedef const json_t *exchange_t(void *other, json_t *request);

/* All of a case; what came of it, as JSON. */
static json_t *run_case(proto_case_t *it, exchange_t *exchange, void *other) {
    mbl_proto_peer_t *peer;
    mbl_proto_request_t request = {0};
    mbl_proto_result_t result = {0};
    mbl_proto_error_t error = {0};
    mbl_proto_header_t headers[MBL_PROTO_HEADERS_MAX];
    uint8_t *body;
    json_t *out = NULL;
    assert_int_equal(mbl_proto_open(&it->options, &peer), MBL_OK);
    for (size_t q = 0; !out && q < mbl_proto_questions(peer); q++) {
        assert_int_equal(mbl_proto_ask(peer, q, &request), MBL_OK);
        mbl_proto_response_t response = response_of(exchange(other, request_json(&request)), headers, &body);
        if (mbl_proto_learn(peer, q, &response, &error) != MBL_OK)
            out = error_json(&error);
        free(body);
    }
    if (!out) {
        json_t *description = json_string(mbl_proto_describe(peer));
        assert_int_equal(mbl_proto_request(peer, &it->batch, &request), MBL_OK);
        mbl_proto_response_t response = response_of(exchange(other, request_json(&request)), headers, &body);
        if (mbl_proto_response(peer, it->batch.n, &response, &result, &error) != MBL_OK)
            out = error_json(&error);
        else
            out = result_json(&result);
        json_object_set_new(out, "description", description);
        free(body);
    }
    mbl_proto_request_free(&request);
    mbl_proto_result_free(&result);
    mbl_proto_close(peer);
    return out;
}

/* ---- replay ---- */

typedef struct {
    const char *name;
    const json_t *exchanges;
    size_t at;
} record_t;

static const json_t *replay(void *other, json_t *request) {
    record_t *record = other;
    const json_t *exchange = json_array_get(record->exchanges, record->at++);
    assert_non_null(exchange);
    const json_t *recorded = json_object_get(exchange, "request");
    if (!json_equal(request, recorded)) {
        char *a = json_dumps(request, JSON_SORT_KEYS), *b = json_dumps(recorded, JSON_SORT_KEYS);
        fail_msg("%s: request %zu is\n%s\nexpected\n%s", record->name, record->at, a, b);
    }
    json_decref(request);
    return json_object_get(exchange, "response");
}

/* What every recorded server computes, once more: the mean of each image's bytes / 255. */
static void check_means(const proto_case_t *it, const json_t *got) {
    const json_t *scores = json_object_get(got, "scores"), *states = json_object_get(got, "states");
    const char *codec = it->options.codec;
    size_t bytes = it->batch.width * it->batch.height * 3;
    if (!scores)
        return;
    for (size_t i = 0; i < it->batch.n; i++) {
        double sum = 0, score = json_number_value(json_array_get(scores, i));
        json_int_t wanted = strstr(it->prompts[i], "skip")  ? MBL_PROTO_NA
                            : strstr(it->prompts[i], "nan") ? MBL_PROTO_FAILED
                                                            : MBL_PROTO_VALID;
        for (size_t p = 0; p < bytes; p++)
            sum += it->rgb[i][p];
        if (strcmp(codec, "chat") ==
            0) { /* a judge's numbers have two digits, and it knows nothing of not applicable */
            double votes = it->options.judge.votes ? (double)it->options.judge.votes : 1,
                   divide = it->options.judge.divide;
            double number = 1 + 4 * sum / (double)bytes / 255 + (votes - 1) / 200;
            assert_int_equal(json_integer_value(json_array_get(states, i)), wanted);
            if (wanted == MBL_PROTO_VALID)
                assert_near(score, number / (divide > 0 ? divide : 1), 0.006);
            continue;
        }
        if (strcmp(codec, "unirl") == 0 && wanted == MBL_PROTO_NA)
            wanted = MBL_PROTO_FAILED;
        assert_int_equal(json_integer_value(json_array_get(states, i)), wanted);
        if (wanted == MBL_PROTO_VALID)
            assert_near(score, sum / (double)bytes / 255, 1e-6);
    }
}

static size_t replay_file(const char *folder, const char *name) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    size_t size, i;
    char *text = read_whole(path, &size);
    json_error_t where;
    json_t *file = json_loadb(text, size, 0, &where), *json;
    free(text);
    if (!file)
        fail_msg("%s: %s", path, where.text);
    json_array_foreach(json_object_get(file, "cases"), i, json) {
        proto_case_t it;
        record_t record = {.name = path, .exchanges = json_object_get(json, "exchanges")};
        json_t *expected = json_incref(json_object_get(json, "result"));
        assert_non_null(expected);
        case_open(json_incref(json), &it);
        json_t *got = run_case(&it, replay, &record);
        assert_int_equal(record.at, json_array_size(record.exchanges));
        if (!json_equal(got, expected)) {
            char *a = json_dumps(got, JSON_SORT_KEYS), *b = json_dumps(expected, JSON_SORT_KEYS);
            fail_msg("%s, case %zu: the result is\n%s\nexpected\n%s", path, i, a, b);
        }
        check_means(&it, got);
        json_decref(got);
        json_decref(expected);
        case_close(&it);
    }
    size_t n = json_array_size(json_object_get(file, "cases"));
    json_decref(file);
    return n;
}

static void test_recorded_servers(void **state) {
    (void)state;
    static const char *const names[] = {"triton.json", "mlserver.json", "kserve.json", "unirl.json",
                                        "chat.json"};
    const char *folder = MBL_SOURCE_DIR "/tests/golden/proto";
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t n = replay_file(folder, names[i]);
        printf("%s: %zu cases\n", names[i], n);
        assert_true(n >= 1);
    }
}

/* ---- the other clients' bytes ---- */

/* A request of tritonclient[http] for the same tensors: the same JSON but for the order of its members, the
 * same bytes after it. */
static void test_tritonclient(void **state) {
    (void)state;
    size_t size, theirs_size, i;
    char *text = read_whole(MBL_SOURCE_DIR "/tests/golden/proto/tritonclient.json", &size);
    json_t *file = json_loadb(text, size, 0, NULL), *json;
    free(text);
    assert_non_null(file);
    json_array_foreach(json_object_get(file, "cases"), i, json) {
        proto_case_t it;
        case_open(json_incref(json), &it);
        const char *bodies[] = {text_or_null(json, "server"), "", text_or_null(json, "metadata")};
        mbl_proto_peer_t *peer = peer_of(&it.options, bodies);
        mbl_proto_request_t request = {0};
        assert_int_equal(mbl_proto_request(peer, &it.batch, &request), MBL_OK);
        char *ours = whole_body(&request);
        uint8_t *theirs = from_base64(text_or_null(json, "body"), &theirs_size);
        size_t our_json = (size_t)atoi(request.headers[1].value),
               their_json = size_or_zero(json, "json_length");
        assert_string_equal(request.headers[1].name, "Inference-Header-Content-Length");
        json_t *a = json_loadb(ours, our_json, 0, NULL), *b = json_loadb((char *)theirs, their_json, 0, NULL);
        assert_non_null(a);
        assert_non_null(b);
        if (!json_equal(a, b))
            fail_msg("ours:\n%.*s\ntritonclient's:\n%.*s", (int)our_json, ours, (int)their_json,
                     (char *)theirs);
        assert_int_equal(request.body_bytes - our_json, theirs_size - their_json);
        assert_memory_equal(ours + our_json, theirs + their_json, theirs_size - their_json);
        json_decref(a);
        json_decref(b);
        free(ours);
        free(theirs);
        mbl_proto_request_free(&request);
        mbl_proto_close(peer);
        case_close(&it);
    }
    json_decref(file);
}

/* A request of OpenAI's Python client for the calls of DiffusionNFT's judge: the same JSON. */
static void test_openai_client(void **state) {
    (void)state;
    size_t i;
    char *text = read_whole(MBL_SOURCE_DIR "/tests/golden/proto/openai.json", NULL);
    json_t *file = json_loads(text, 0, NULL), *json;
    free(text);
    assert_non_null(file);
    assert_true(json_array_size(json_object_get(file, "cases")) >= 3);
    json_array_foreach(json_object_get(file, "cases"), i, json) {
        proto_case_t it;
        case_open(json_incref(json), &it);
        const char *bodies[] = {
            "{\"object\": \"list\", \"data\": [{\"id\": \"other\"}, {\"id\": \"judge\"}]}"};
        mbl_proto_peer_t *peer = peer_of(&it.options, bodies);
        mbl_proto_request_t request = {0};
        assert_int_equal(mbl_proto_request(peer, &it.batch, &request), MBL_OK);
        char *ours = whole_body(&request);
        const json_t *theirs = json_object_get(json, "request");
        json_t *a = json_loads(ours, 0, NULL), *b = json_object_get(theirs, "body");
        assert_non_null(a);
        if (!json_equal(a, b))
            fail_msg("ours:\n%s\nOpenAI's client's:\n%s", ours, json_dumps(b, 0));
        assert_string_equal(request.method, text_or_null(theirs, "method"));
        assert_string_equal(request.headers[0].value, text_or_null(theirs, "content-type"));
        assert_int_equal(strncmp(text_or_null(theirs, "path"), "/v1", 3), 0); /* which is part of our URL */
        assert_string_equal(request.path, text_or_null(theirs, "path") + 3);
        json_decref(a);
        free(ours);
        mbl_proto_request_free(&request);
        mbl_proto_close(peer);
        case_close(&it);
    }
    json_decref(file);
}

/* ---- speaking ---- */

static const json_t *speak(void *other, json_t *request) {
    json_t **last = other;
    json_dumpf(request, stdout, JSON_COMPACT);
    puts("");
    fflush(stdout);
    json_decref(request);
    json_decref(*last);
    *last = json_loadf(stdin, JSON_DISABLE_EOF_CHECK, NULL);
    if (!*last)
        exit(3);
    return *last;
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--speak") == 0) {
        proto_case_t it;
        json_t *last = NULL, *json = json_loadf(stdin, JSON_DISABLE_EOF_CHECK, NULL);
        if (!json)
            return 2;
        case_open(json, &it);
        json_t *result = run_case(&it, speak, &last);
        json_t *line = json_pack("{s:o}", "result", result);
        json_dumpf(line, stdout, JSON_COMPACT);
        puts("");
        json_decref(line);
        json_decref(last);
        case_close(&it);
        return 0;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_recorded_servers),
                                       cmocka_unit_test(test_tritonclient),
                                       cmocka_unit_test(test_openai_client)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
