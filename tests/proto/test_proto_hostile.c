/* proto/: thousands of hostile answers, made from good ones by a fixed seed: cut off, of wrong sizes, with
 * huge lengths, deep JSON, NaN, wrong types, foreign bytes. None may crash a codec, take much memory or time,
 * or leave anything behind that is not fit to use. */
#include "proto_case.h"

#include "proto_checks.h"

#include <time.h>

enum { PER_SET = 2000, SETS = 6, BIG = 20000 };

/* Options, what a good server answers about itself, and to a batch of two. */
typedef struct {
    mbl_proto_options_t options;
    const char *bodies[4];
    size_t questions;
    const char *binary; /* what follows the last body, and its length in JSON goes into the header */
    size_t binary_size;
} set_t;

#define TENSOR(name, datatype, shape)                                                                        \
    "{\"name\": \"" name "\", \"datatype\": \"" datatype "\", \"shape\": [" shape "]}"
#define OUTPUT(name, datatype, more)                                                                         \
    "{\"name\": \"" name "\", \"datatype\": \"" datatype "\", \"shape\": [2, 1], " more "}"
#define SERVER                                                                                               \
    "{\"name\": \"triton\", \"version\": \"2.51.0\", \"extensions\": [\"classification\", "                  \
    "\"binary_tensor_data\"]}"
#define MODEL                                                                                                                                  \
    "{\"name\": \"m\", \"versions\": [\"1\"], \"platform\": \"python\", \"inputs\": [" TENSOR("images", "UINT8", "-1, -1, -1, 3") ", " TENSOR( \
        "prompts", "BYTES",                                                                                                                    \
        "-1, 1") "], \"outputs\": [" TENSOR("scores", "FP32",                                                                                  \
                                            "-1, 1") ", " TENSOR("hps", "FP64",                                                                \
                                                                 "-1") ", " TENSOR("valid", "BOOL",                                            \
                                                                                   "-1") ", " TENSOR("reaso"                                   \
                                                                                                     "n",                                      \
                                                                                                     "BYTE"                                    \
                                                                                                     "S",                                      \
                                                                                                     "-1") "]}"

static const char *const two_outputs[] = {"scores", "hps"}, *const two_rewards[] = {"pickscore",
                                                                                    "video.overall"};
static const set_t the_sets[SETS] = {
    {{.codec = "oip", .model = "m"},
     {SERVER, "", MODEL,
      "{\"model_name\": \"m\", \"outputs\": [" OUTPUT(
          "scores", "FP32",
          "\"parameters\": {\"binary_data_size\": 8}") ", " OUTPUT("reason", "BYTES",
                                                                   "\"parameters\": {\"binary_data_size\": "
                                                                   "12}") "]}"},
     3,
     "\0\0\0\77\0\0\200\77\3\0\0\0red\1\0\0\0x",
     20},
    {{.codec = "oip", .model = "m", .outputs = two_outputs, .n_outputs = 2, .wire = MBL_PROTO_WIRE_JSON},
     {SERVER, "{\"name\": \"m\", \"ready\": true}", MODEL,
      "{\"model_name\": \"m\", \"outputs\": [" OUTPUT("scores", "FP32", "\"data\": [0.25, null]") ", " OUTPUT(
          "hps", "FP64",
          "\"data\": [[1], [2]]") ", " OUTPUT("valid", "BOOL",
                                              "\"data\": [true, false]") ", " OUTPUT("reason", "BYTES",
                                                                                     "\"data\": [\"red\", "
                                                                                     "\"\"]") "]}"},
     3,
     NULL,
     0},
    {{.codec = "unirl", .outputs = two_rewards, .n_outputs = 1},
     {"{\"rewards\": [\"pickscore\", \"video\"]}",
      "{\"results\": [{\"pickscore\": {\"pickscore\": 0.5}}, {}], \"errors\": [{}, {\"pickscore\": "
      "\"RuntimeError('CUDA out of memory')\"}]}"},
     1,
     NULL,
     0},
    {{.codec = "unirl", .outputs = two_rewards, .n_outputs = 2},
     {"{\"rewards\": [\"pickscore\", \"video\"]}",
      "{\"results\": [{\"pickscore\": {\"a\": 1}, \"video\": {\"overall\": 2, \"VQ\": 3}}, {\"pickscore\": "
      "{\"a\": null}, \"video\": {\"overall\": "
      "-1e3}}], \"errors\": [{}, {}]}"},
     1,
     NULL,
     0},
    {{.codec = "chat",
      .judge = {.question = "{prompt}", .pattern = "Final Score:\\s*([1-5](?:\\.\\d+)?)", .divide = 5}},
     {"{\"object\": \"list\", \"data\": [{\"id\": \"m\", \"object\": \"model\", \"created\": 1}]}",
      "{\"id\": \"1\", \"choices\": [{\"index\": 0, \"finish_reason\": \"stop\", \"message\": {\"role\": "
      "\"assistant\", \"content\": \"Well.\\nFinal "
      "Score: 4.5\"}}], \"usage\": {\"total_tokens\": 9}}"},
     1,
     NULL,
     0},
    {{.codec = "chat",
      .judge = {.question = "{prompt}",
                .schema = "{\"properties\": {\"score\": {\"type\": \"number\"}}}",
                .votes = 2,
                .temperature = 1}},
     {"{\"data\": [{\"id\": \"m\"}]}", "{\"choices\": [{\"message\": {\"content\": \"{\\\"score\\\": 3}\"}}, "
                                       "{\"message\": {\"content\": \"{\\\"score\\\": "
                                       "4}\"}}]}"},
     1,
     NULL,
     0},
};

/* ---- chance, the same on every machine ---- */

static uint64_t next_random(uint64_t *state) { /* splitmix64 */
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}
static size_t below(uint64_t *state, size_t n) {
    return n ? (size_t)(next_random(state) % n) : 0;
}

/* ---- mutations of JSON ---- */

static json_t *deep(size_t depth) {
    json_t *value = json_integer(1);
    for (size_t i = 0; i < depth; i++)
        value = i % 2 ? json_pack("[o]", value) : json_pack("{s:o}", "x", value);
    return value;
}

static json_t *hostile_value(uint64_t *random) {
    static const char *const texts[] = {"null",
                                        "true",
                                        "false",
                                        "-1",
                                        "0",
                                        "2",
                                        "3",
                                        "1e308",
                                        "-1e39",
                                        "9223372036854775807",
                                        "0.1",
                                        "\"\"",
                                        "\"NaN\"",
                                        "\"\\u0000\"",
                                        "\"\\ud83d\\ude00\\u202e\\u001b[2J\"",
                                        "[]",
                                        "{}",
                                        "[[]]",
                                        "[1, 2]",
                                        "[2, 1]",
                                        "[1, 2, 3]",
                                        "{\"message\": 3}",
                                        "{\"error\": \"x\"}",
                                        "[null, null]",
                                        "\"FP16\"",
                                        "\"INT8\"",
                                        "\"BYTES\"",
                                        "\"UINT8\"",
                                        "\"scores\"",
                                        "\"images\"",
                                        "[-1, 3, 64, 64]",
                                        "[-1]",
                                        "[8]",
                                        "4294967296",
                                        "\"Final Score: 9\""};
    size_t count = sizeof texts / sizeof *texts, at = below(random, count + 4);
    if (at < count)
        return json_loads(texts[at], JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    if (at == count)
        return deep(1 + below(random, 40));
    if (at == count + 1) { /* a long string */
        char *text = malloc(BIG + 1);
        memset(text, 'a', BIG);
        text[BIG] = 0;
        json_t *value = json_string(text);
        free(text);
        return value;
    }
    json_t *list = json_array(); /* a long list */
    for (size_t i = below(random, 600); i > 0; i--)
        json_array_append_new(list, at == count + 2 ? json_real(0.5) : json_pack("{s:s}", "name", "scores"));
    return list;
}

/* Replaces, removes or doubles a value at a random place below `json`. */
static void mutate_json(json_t *json, uint64_t *random) {
    size_t n = json_is_array(json) ? json_array_size(json) : json_object_size(json), at = below(random, n),
           i = 0;
    if (json_is_array(json) && n) {
        json_t *child = json_array_get(json, at);
        if ((json_is_array(child) || json_is_object(child)) && below(random, 4))
            mutate_json(child, random);
        else if (below(random, 3) == 0)
            json_array_remove(json, at);
        else if (below(random, 3) == 0)
            json_array_append(json, child);
        else
            json_array_set_new(json, at, hostile_value(random));
    } else if (n) {
        const char *key;
        json_t *child;
        void *next;
        json_object_foreach_safe(json, next, key, child) {
            if (i++ != at)
                continue;
            if ((json_is_array(child) || json_is_object(child)) && below(random, 4))
                mutate_json(child, random);
            else if (below(random, 4) == 0)
                json_object_del(json, key);
            else
                json_object_set_new(json, key, hostile_value(random));
            return;
        }
    }
}

/* ---- mutations of bytes ---- */

typedef struct {
    mbl_proto_text_t body;
    mbl_proto_header_t headers[MBL_PROTO_HEADERS_MAX + 40];
    size_t n_headers;
    char length[64];
    int status;
} made_t;

static void mutate_bytes(mbl_proto_text_t *body, uint64_t *random) {
    static const char *const words[] = {
        "NaN",  "-Infinity", "\"",   "\\", "{", "[[[[", "]", "1e999", "99999999999999999999999",
        "\xff", "\xc0\x80",  "\x01", ",",  "//"};
    size_t at = below(random, body->size + 1), kind = below(random, 6);
    if (kind == 0)
        body->size = at;
    else if (kind == 1 && body->size)
        for (size_t i = 1 + below(random, 4); i > 0; i--)
            body->data[below(random, body->size)] ^= (char)(1 << below(random, 8));
    else if (kind == 2 || kind == 3) { /* insert, or overwrite */
        const char *word = words[below(random, sizeof words / sizeof *words)];
        size_t n = strlen(word), tail = body->size - at;
        if (kind == 2 && mbl_proto_put_room(body, n))
            memmove(body->data + at + n, body->data + at, tail);
        if (at + n <= body->size)
            memcpy(body->data + at, word, n);
    } else if (kind == 4 && body->size) { /* a part of it again */
        size_t n = below(random, body->size - at + 1);
        char *more = mbl_proto_put_room(body, n);
        if (more && n)
            memcpy(more, body->data + at, n);
    } else
        for (size_t i = below(random, 3000); i > 0; i--)
            mbl_proto_put(body, at % 2 ? "[" : "\xf0", 1);
}

static void mutate_headers(made_t *made, uint64_t *random) {
    static const char *const values[] = {
        "0",  "-1", "1",    "7",       "9223372036854775807", "18446744073709551616", "0x10",
        " 5", "",   "five", "99999999"};
    size_t kind = below(random, 8);
    if (kind < 3)
        made->headers[made->n_headers++] = (mbl_proto_header_t){
            "Inference-Header-Content-Length", values[below(random, sizeof values / sizeof *values)]};
    else if (kind == 3)
        while (made->n_headers < MBL_PROTO_HEADERS_MAX + 20)
            made->headers[made->n_headers++] =
                (mbl_proto_header_t){"X-Endless", values[below(random, sizeof values / sizeof *values)]};
    else if (kind == 4) {
        static const int statuses[] = {0,   100, 204, 206, 301, 307, 400, 401, 404,
                                       418, 422, 429, 500, 502, 503, 599, 999, -1};
        made->status = statuses[below(random, sizeof statuses / sizeof *statuses)];
        made->headers[made->n_headers++] =
            (mbl_proto_header_t){"retry-after", values[below(random, sizeof values / sizeof *values)]};
    }
}

/* The answer q of a set, spoiled. */
static void spoil(const set_t *set, size_t q, uint64_t *random, made_t *made) {
    bool last = q == set->questions;
    mbl_proto_text_clear(&made->body);
    made->n_headers = 0;
    made->status = 200;
    json_t *json = json_loads(set->bodies[q], 0, NULL);
    for (size_t i = below(random, 4); json && i > 0; i--)
        mutate_json(json, random);
    char *text = json ? json_dumps(json, below(random, 2) ? JSON_COMPACT : 0) : NULL;
    mbl_proto_puts(&made->body, text ? text : set->bodies[q]);
    free(text);
    json_decref(json);
    if (last && set->binary && below(random, 10)) {
        snprintf(made->length, sizeof made->length, "%zu", made->body.size);
        mbl_proto_put(&made->body, set->binary, set->binary_size);
        if (below(random, 20))
            made->headers[made->n_headers++] =
                (mbl_proto_header_t){"inference-header-content-length", made->length};
    }
    for (size_t i = below(random, 2) * below(random, 3); i > 0; i--)
        mutate_bytes(&made->body, random);
    if (below(random, 4) == 0)
        mutate_headers(made, random);
    assert_false(made->body.failed);
}

/* ---- the test ---- */

static double cpu_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

typedef struct {
    size_t kinds[MBL_PROTO_ERROR_COUNT], count;
    double slowest;
} tally_t;

/* One spoiled answer to a peer that has heard the good ones before it. */
static void one(const set_t *set, mbl_proto_peer_t *peer, uint64_t *random, made_t *made,
                mbl_proto_result_t *result, tally_t *tally) {
    size_t q = below(random, 3) ? set->questions : below(random, set->questions);
    spoil(set, q, random, made);
    mbl_proto_response_t response = {.status = made->status,
                                     .headers = made->headers,
                                     .n_headers = made->n_headers,
                                     .body = made->body.data,
                                     .body_bytes = made->body.size};
    mbl_proto_error_t error = {0};
    size_t n = mbl_proto_max_batch(peer) > 1 ? 2 : 1;
    double begin = cpu_seconds();
    mbl_status_t status = q < set->questions ? mbl_proto_learn(peer, q, &response, &error)
                                             : mbl_proto_response(peer, n, &response, result, &error);
    double seconds = cpu_seconds() - begin;
    tally->slowest = seconds > tally->slowest ? seconds : tally->slowest;
    const char *trouble = error_trouble(status, &error);
    if (!trouble && q == set->questions)
        trouble = result_trouble(status, result, n, mbl_proto_outputs(peer));
    if (trouble)
        fail_msg("%s; answer %zu of %s, status %d: %.*s\n(%s)", trouble, q,
                 set->options.codec ? set->options.codec : "oip", made->status,
                 (int)(made->body.size < 2000 ? made->body.size : 2000), made->body.data, error.text);
    tally->kinds[error.kind]++;
    tally->count++;
    for (; q < set->questions; q++) { /* the good ones again, so that it stands as before */
        mbl_proto_response_t good = json_response(set->bodies[q]);
        assert_int_equal(mbl_proto_learn(peer, q, &good, &error), MBL_OK);
    }
}

static void test_hostile(void **state) {
    (void)state;
    tally_t tally = {0};
    static made_t made;
    mbl_proto_result_t result = {0};
    size_t live = mbl_mem_live(), peak = mbl_mem_peak();
    for (size_t s = 0; s < SETS; s++) {
        uint64_t random = 20260 + s;
        mbl_proto_peer_t *peer = peer_of(&the_sets[s].options, the_sets[s].bodies);
        for (size_t i = 0; i < PER_SET; i++)
            one(&the_sets[s], peer, &random, &made, &result, &tally);
        mbl_proto_close(peer);
    }
    mbl_proto_text_free(&made.body);
    mbl_proto_result_free(&result);
    printf("%zu hostile answers, slowest %.3f s:", tally.count, tally.slowest);
    for (size_t kind = 0; kind < MBL_PROTO_ERROR_COUNT; kind++)
        printf(" %s %zu", mbl_proto_error_name((mbl_proto_error_kind_t)kind), tally.kinds[kind]);
    printf("; memory +%zu MiB\n", (mbl_mem_peak() - peak) >> 20);
    assert_true(tally.count >= 5000);
    assert_int_equal(mbl_mem_live(), live);
    assert_true(tally.slowest < 2);
    /* Most are refused, some are harmless, and every kind of error was met with. */
    assert_in_range(tally.kinds[MBL_PROTO_ERROR_NONE], tally.count / 50, tally.count / 2);
    for (size_t kind = 0; kind < MBL_PROTO_ERROR_COUNT; kind++)
        assert_true(tally.kinds[kind] > 0);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    assert_true(mbl_mem_peak() - peak < (size_t)64 << 20);
#endif
}

/* The most that one response may hold, in the forms that cost jansson most: memory stays bounded. */
static void test_largest(void **state) {
    (void)state;
    static const struct {
        const char *begin, *piece, *end;
        size_t n;
    } cases[] = {{"[[]", ",[]", "]", MBL_PROTO_JSON_VALUES / 2 - 2},
                 {"[{}", ",{}", "]", MBL_PROTO_JSON_VALUES / 2 - 2},
                 {"[\"\"", ",\"\"", "]", MBL_PROTO_JSON_VALUES - 4},
                 {"[{\"a\":\"b\"}", ",{\"a\":\"b\"}", "]", MBL_PROTO_JSON_VALUES / 3 - 2},
                 {"[\"", "0123456789abcdef", "\"]", MBL_PROTO_BODY_MAX / 16 - 1}};
    mbl_proto_peer_t *peer = peer_of(&the_sets[1].options, the_sets[1].bodies);
    mbl_proto_result_t result = {0};
    mbl_proto_error_t error;
    size_t peak = mbl_mem_peak();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mbl_proto_text_t body = {0};
        mbl_proto_puts(&body, cases[i].begin);
        for (size_t k = 0; k < cases[i].n; k++)
            mbl_proto_puts(&body, cases[i].piece);
        mbl_proto_puts(&body, cases[i].end);
        mbl_proto_response_t response = {.status = 200, .body = body.data, .body_bytes = body.size};
        assert_int_equal(mbl_proto_response(peer, 2, &response, &result, &error), MBL_ERR_REWARD);
        if (error.kind != MBL_PROTO_ERROR_MALFORMED || !strstr(error.text, "expected a JSON object"))
            fail_msg("case %zu is %s: %s; expected to be parsed, and no object", i,
                     mbl_proto_error_name(error.kind), error.text);
        mbl_proto_text_free(&body);
    }
    printf("largest responses: memory +%zu MiB\n", (mbl_mem_peak() - peak) >> 20);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    assert_true(mbl_mem_peak() - peak < (size_t)192 << 20);
#endif
    mbl_proto_result_free(&result);
    mbl_proto_close(peer);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_hostile), cmocka_unit_test(test_largest)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
