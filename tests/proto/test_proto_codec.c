/* proto/: what all codecs have in common: HTTP statuses, limits, text made fit to print, the failure of any
 * allocation. */
#include "proto_case.h"

#include "proto/text.h"

#include <pthread.h>

static mbl_proto_peer_t *plain_peer(void) {
    static const char *const bodies[] = {"{\"name\": \"x\"}", "", "{}"};
    return peer_of(&(mbl_proto_options_t){.model = "m"}, bodies);
}

static void test_table(void **state) {
    (void)state;
    static const char *const names[] = {"oip", "unirl", "chat"};
    for (size_t i = 0; i < 3; i++) {
        assert_string_equal(mbl_proto_name(i), names[i]);
        assert_true(strlen(mbl_proto_help(i)) > 20);
    }
    assert_null(mbl_proto_name(3));
    assert_null(mbl_proto_help(3));
    for (size_t kind = 0; kind < MBL_PROTO_ERROR_COUNT; kind++)
        assert_string_not_equal(mbl_proto_error_name((mbl_proto_error_kind_t)kind), "unknown");
    assert_true(mbl_proto_error_again(MBL_PROTO_ERROR_BUSY));
    assert_true(mbl_proto_error_again(MBL_PROTO_ERROR_SERVER));
    assert_false(mbl_proto_error_again(MBL_PROTO_ERROR_DENIED));
    mbl_proto_close(NULL);
}

static void test_statuses(void **state) {
    (void)state;
    static const struct {
        int status;
        const char *body, *retry, *text;
        mbl_proto_error_kind_t kind;
        double after;
    } cases[] = {
        {400, "{\"error\": \"unexpected shape\"}", NULL, "HTTP 400: unexpected shape",
         MBL_PROTO_ERROR_REFUSED, 0},
        {401, "", NULL, "HTTP 401", MBL_PROTO_ERROR_DENIED, 0},
        {403, "no", NULL, "HTTP 403: no", MBL_PROTO_ERROR_DENIED, 0},
        {404, "{\"detail\": \"Not Found\"}", NULL, "HTTP 404: Not Found", MBL_PROTO_ERROR_ABSENT, 0},
        {413, "", "5", "HTTP 413", MBL_PROTO_ERROR_REFUSED, 0},
        {422, "{\"detail\": [{\"loc\": [\"body\"]}]}", NULL, "HTTP 422: [{\"loc\":[\"body\"]}]",
         MBL_PROTO_ERROR_REFUSED, 0},
        {429, "{\"error\": {\"message\": \"slow down\", \"code\": 1}}", "7", "HTTP 429: slow down",
         MBL_PROTO_ERROR_BUSY, 7},
        {425, "", "1", "HTTP 425", MBL_PROTO_ERROR_BUSY, 1},
        {408, "{\"message\": \"late\"}", "99999999999999999999", "HTTP 408: late", MBL_PROTO_ERROR_BUSY,
         3600},
        {503, "{\"error\": ", "-1", "HTTP 503: {\"error\":", MBL_PROTO_ERROR_BUSY, 0},
        {503, "", "Wed, 21 Oct 2026 07:28:00 GMT", "HTTP 503", MBL_PROTO_ERROR_BUSY, 0},
        {500, "\033[31mred\n\xff", "2", "HTTP 500:  [31mred ?", MBL_PROTO_ERROR_SERVER, 2},
        {502, "{\"error\": 3}", NULL, "HTTP 502: 3", MBL_PROTO_ERROR_SERVER, 0},
        {501, "chunked", "2", "HTTP 501: chunked", MBL_PROTO_ERROR_REFUSED, 0},
        {301, "moved", NULL, "HTTP 301; expected 200", MBL_PROTO_ERROR_MALFORMED, 0},
        {204, "", NULL, "HTTP 204; expected 200", MBL_PROTO_ERROR_MALFORMED, 0},
        {0, "", NULL, "HTTP 0; expected 200", MBL_PROTO_ERROR_MALFORMED, 0},
    };
    mbl_proto_peer_t *peer = plain_peer();
    mbl_proto_result_t result = {0};
    mbl_proto_error_t error;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mbl_proto_header_t header = {"Retry-After", cases[i].retry};
        mbl_proto_response_t response = json_response(cases[i].body);
        response.status = cases[i].status;
        response.headers = &header;
        response.n_headers = cases[i].retry ? 1 : 0;
        assert_int_equal(mbl_proto_response(peer, 1, &response, &result, &error), MBL_ERR_REWARD);
        assert_string_equal(error.text, cases[i].text);
        assert_int_equal(error.kind, cases[i].kind);
        assert_int_equal(error.http_status, cases[i].status);
        assert_near(error.retry_after, cases[i].after, 0);
    }
    mbl_proto_result_free(&result);
    mbl_proto_close(peer);
}

/* ---- limits ---- */

/* The kind of error that a body of `n` times `piece` between `begin` and `end` comes to. */
static mbl_proto_error_kind_t kind_of(const char *begin, const char *piece, size_t n, const char *end) {
    mbl_proto_text_t body = {0};
    mbl_proto_peer_t *peer = plain_peer();
    mbl_proto_result_t result = {0};
    mbl_proto_error_t error = {0};
    mbl_proto_puts(&body, begin);
    for (size_t i = 0; i < n; i++)
        mbl_proto_puts(&body, piece);
    mbl_proto_puts(&body, end);
    mbl_proto_response_t response = {.status = 200, .body = body.data, .body_bytes = body.size};
    mbl_proto_response(peer, 1, &response, &result, &error);
    mbl_proto_text_free(&body);
    mbl_proto_result_free(&result);
    mbl_proto_close(peer);
    return error.kind;
}

static void test_limits(void **state) {
    (void)state;
#define SCORE "\"outputs\": [{\"name\": \"scores\", \"datatype\": \"FP32\", \"shape\": [1], \"data\": [1]}]}"
    static const char begin[] = "{\"x\": 0", end[] = ", " SCORE;
    assert_int_equal(kind_of(begin, ", \"y\": []", 1, end), MBL_PROTO_ERROR_NONE);
    /* depth: { and 31 more are read, one more is not; brackets inside strings do not count */
    assert_int_equal(
        kind_of("{\"x\": ", "[", MBL_PROTO_JSON_DEPTH - 1, "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]], " SCORE),
        MBL_PROTO_ERROR_NONE);
    assert_int_equal(kind_of("{\"x\": ", "[", MBL_PROTO_JSON_DEPTH, ""), MBL_PROTO_ERROR_LIMIT);
    assert_int_equal(kind_of("{\"x\": ", "[", 1000000, ""), MBL_PROTO_ERROR_LIMIT);
    assert_int_equal(kind_of("{\"x\": \"", "[{\\\"", 100, "\", " SCORE), MBL_PROTO_ERROR_NONE);
    /* values */
    assert_int_equal(kind_of("{\"x\": [0", ",0", MBL_PROTO_JSON_VALUES / 2, "], " SCORE),
                     MBL_PROTO_ERROR_NONE);
    assert_int_equal(kind_of("{\"x\": [0", ",0", MBL_PROTO_JSON_VALUES, "], " SCORE), MBL_PROTO_ERROR_LIMIT);
    assert_int_equal(kind_of("{\"x\": [{}", ",{}", MBL_PROTO_JSON_VALUES, "], " SCORE),
                     MBL_PROTO_ERROR_LIMIT);
    /* bytes */
    assert_int_equal(kind_of("{\"x\": \"", "0123456789abcdef", MBL_PROTO_BODY_MAX / 16 - 20, "\", " SCORE),
                     MBL_PROTO_ERROR_NONE);
    assert_int_equal(kind_of("{\"x\": \"", "0123456789abcdef", MBL_PROTO_BODY_MAX / 16, "\", " SCORE),
                     MBL_PROTO_ERROR_LIMIT);
    /* outputs */
    assert_int_equal(kind_of("{\"outputs\": [{}", ",{}", MBL_PROTO_TENSORS_MAX, "]}"), MBL_PROTO_ERROR_LIMIT);
    /* headers past the limit are not looked at */
    static mbl_proto_header_t headers[MBL_PROTO_HEADERS_MAX + 1];
    for (size_t i = 0; i <= MBL_PROTO_HEADERS_MAX; i++)
        headers[i] =
            (mbl_proto_header_t){i < MBL_PROTO_HEADERS_MAX ? "x" : "inference-header-content-length", "1"};
    mbl_proto_peer_t *peer = plain_peer();
    mbl_proto_result_t result = {0};
    mbl_proto_error_t error;
    mbl_proto_response_t response = json_response("{" SCORE);
    response.headers = headers;
    response.n_headers = MBL_PROTO_HEADERS_MAX + 1;
    assert_int_equal(mbl_proto_response(peer, 1, &response, &result, &error), MBL_OK);
    mbl_proto_result_free(&result);
    mbl_proto_close(peer);
}

static void test_a_redirect(void **state) {
    (void)state;
    const mbl_proto_header_t headers[] = {{"location", "https://other.example/\x1b[2Jv2"}};
    mbl_proto_peer_t *peer = plain_peer();
    mbl_proto_error_t error;
    mbl_proto_result_t result = {0};
    mbl_proto_response_t response = {.status = 308, .headers = headers, .n_headers = 1};
    assert_int_equal(mbl_proto_response(peer, 1, &response, &result, &error), MBL_ERR_REWARD);
    assert_text(error.text, "HTTP 308: a redirect to https://other.example/ [2Jv2, which is not followed");
    assert_text(error.text, "as url");
    mbl_proto_result_free(&result);
    mbl_proto_close(peer);
}

/* ---- text ---- */

static void test_printable(void **state) {
    (void)state;
    static const struct {
        const char *in, *out;
        size_t room;
    } cases[] = {
        {"plain", "plain", 100},
        {"gr\xc3\xb6\xc3\x9f"
         "er",
         "gr\xc3\xb6\xc3\x9f"
         "er",
         100},
        {"gr\xc3\xb6\xc3\x9f"
         "er",
         "gr", 4}, /* no half character */
        {"gr\xc3\xb6\xc3\x9f"
         "er",
         "gr\xc3\xb6", 5},
        {"a\x1b[2J\r\nb\x7f", "a [2J  b", 100},
        {"\xe2\x80\xae"
         "evil",
         " evil", 100}, /* right-to-left override */
        {"\xc2\x9b"
         "31m",
         " 31m", 100}, /* a control of C1 */
        {"a\xef\xbf\xbd"
         "b",
         "a\xef\xbf\xbd"
         "b",
         100}, /* U+FFFD itself */
        {"a\xff\xc3", "a??", 100},
        {"\xed\xa0\x80", "???", 100}, /* a surrogate */
        {"end \n", "end", 100},
        {"", "", 1},
    };
    char out[100];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t n = mbl_proto_printable(cases[i].in, strlen(cases[i].in), out, cases[i].room);
        assert_string_equal(out, cases[i].out);
        assert_int_equal(n, strlen(cases[i].out));
        assert_true(n < cases[i].room);
    }
    assert_int_equal(mbl_proto_printable("a\0b", 3, out, sizeof out), 3);
    assert_string_equal(out, "a b");
    assert_true(mbl_proto_is_utf8("a\xef\xbf\xbd", 4));
    assert_false(mbl_proto_is_utf8("a\xef\xbf", 3));
}

static void test_text(void **state) {
    (void)state;
    mbl_proto_text_t text = {0};
    for (int i = 0; i < 3; i++) {
        mbl_proto_text_clear(&text);
        mbl_proto_puts(&text, "ab");
        mbl_proto_put_base64(&text, "\0\1\2\3", 4);
        mbl_proto_put_le32(&text, 0x01020304);
        mbl_proto_putf(&text, "%d", 7);
        mbl_proto_put_quoted(&text, "\"\n\\", 3);
        assert_false(text.failed);
        assert_int_equal(text.size, 2 + 8 + 4 + 1 + 8);
        assert_memory_equal(text.data,
                            "abAAECAw==\4\3\2\1"
                            "7\"\\\"\\n\\\\\"",
                            text.size);
    }
    char big[1200];
    memset(big, 'x', sizeof big);
    big[sizeof big - 1] = 0;
    mbl_proto_putf(&text, "%s", big);
    assert_true(text.failed); /* stays so until it is cleared */
    mbl_proto_text_clear(&text);
    mbl_proto_put_quoted(&text, "\xff", 1);
    assert_true(text.failed);
    mbl_proto_text_clear(&text);
    assert_null(mbl_proto_put_room(&text, SIZE_MAX));
    mbl_proto_text_free(&text);
}

/* ---- no memory ---- */

/* Opens, learns, asks and reads with the n-th allocation failing, jansson's included; MBL_OK once none was
 * left to fail. */
static mbl_status_t whole_life(const proto_case_t *it, const char *const *bodies, const char *answer,
                               mbl_proto_error_t *error) {
    mbl_proto_peer_t *peer = NULL;
    mbl_proto_request_t request = {0};
    mbl_proto_result_t result = {0};
    mbl_status_t status;
    MBL_TRY_GOTO(mbl_proto_open(&it->options, &peer), done);
    for (size_t q = 0; q < mbl_proto_questions(peer); q++) {
        mbl_proto_response_t response = json_response(bodies[q]);
        MBL_TRY_GOTO(mbl_proto_ask(peer, q, &request), done);
        MBL_TRY_GOTO(mbl_proto_learn(peer, q, &response, error), done);
    }
    MBL_TRY_GOTO(mbl_proto_request(peer, &it->batch, &request), done);
    mbl_proto_response_t response = json_response(answer);
    MBL_TRY_GOTO(mbl_proto_response(peer, it->batch.n, &response, &result, error), done);
    assert_int_equal(result.states[0], MBL_PROTO_VALID);
done:
    mbl_proto_request_free(&request);
    mbl_proto_result_free(&result);
    mbl_proto_close(peer);
    return status;
}

static void test_no_memory(void **state) {
    (void)state;
#define BATCH                                                                                                \
    "\"batch\": {\"n\": 1, \"width\": 1, \"height\": 1, \"prompts\": [\"a\"], \"metadata\": [\"{}\"], "      \
    "\"encoded\": [\"aGFsbG8=\"]}}"
    static const struct {
        const char *it, *bodies[3], *answer;
    } cases[] = {
        {"{\"options\": {\"codec\": \"oip\", \"model\": \"m\"}, " BATCH,
         {"{\"name\": \"x\", \"extensions\": [\"binary_tensor_data\"]}", "{\"ready\": true}",
          "{\"inputs\": [{\"name\": \"images\", \"datatype\": \"UINT8\", \"shape\": [-1, -1, -1, 3]}, "
          "{\"name\": \"prompts\", \"datatype\": "
          "\"BYTES\", \"shape\": [-1]}], \"outputs\": [{\"name\": \"scores\", \"datatype\": \"FP32\", "
          "\"shape\": [-1]}]}"},
         "{\"outputs\": [{\"name\": \"scores\", \"datatype\": \"FP32\", \"shape\": [1], \"data\": [1]}, "
         "{\"name\": \"reason\", \"datatype\": "
         "\"BYTES\", \"shape\": [1], \"data\": [\"good\"]}]}"},
        {"{\"options\": {\"codec\": \"oip\", \"model\": \"m\", \"images\": \"png\"}, " BATCH,
         {"{\"name\": \"x\"}", "", "{}"},
         "{\"outputs\": [{\"name\": \"scores\", \"datatype\": \"FP32\", \"shape\": [1], \"data\": [1], "
         "\"more\": NaN}]}"},
        {"{\"options\": {\"codec\": \"unirl\", \"outputs\": [\"a.b\", \"c\"]}, " BATCH,
         {"{\"rewards\": [\"a\", \"c\"]}", NULL, NULL},
         "{\"results\": [{\"a\": {\"b\": 1}}], \"errors\": [{\"c\": \"broken\"}]}"},
        {"{\"options\": {\"codec\": \"chat\", \"judge\": {\"question\": \"{prompt}?\", \"system\": \"s\", "
         "\"pattern\": \"(\\\\d)\"}}, " BATCH,
         {"{\"data\": [{\"id\": \"m\"}]}", NULL, NULL},
         "{\"choices\": [{\"message\": {\"content\": \"3\"}}]}"},
        {"{\"options\": {\"codec\": \"chat\", \"model\": \"m\", \"judge\": {\"question\": \"{prompt}?\", "
         "\"schema\": \"{\\\"properties\\\": "
         "{\\\"score\\\": {\\\"type\\\": \\\"number\\\"}}}\"}}, " BATCH,
         {"{\"data\": [{\"id\": \"m\"}]}", NULL, NULL},
         "{\"choices\": [{\"message\": {\"content\": \"{\\\"score\\\": 1}\"}}]}"},
    };
    mbl_fail_quiet(1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        proto_case_t it;
        mbl_proto_error_t error = {0};
        mbl_status_t status = MBL_ERR_MEM;
        case_open_text(cases[i].it, &it);
        size_t live = mbl_mem_live(), n = 0;
        bool all = false;
        while (!all) {
            size_t before = mbl_mem_count();
            mbl_mem_fail_at(++n);
            status = whole_life(&it, cases[i].bodies, cases[i].answer, &error);
            all = mbl_mem_count() - before < n; /* none was left to fail */
            mbl_mem_fail_at(0);
            if (status != (all ? MBL_OK : MBL_ERR_MEM))
                fail_msg("case %zu, allocation %zu: %s (%s; %s)", i, n, mbl_status_name(status),
                         mbl_fail_message(), error.text);
            assert_int_equal(mbl_mem_live(), live);
        }
        printf("case %zu: %zu allocations\n", i, n - 1);
        assert_true(n > 10);
        case_close(&it);
    }
    mbl_fail_quiet(0);
}

/* ---- threads ---- */

typedef struct {
    const mbl_proto_peer_t *peer;
    mbl_proto_batch_t batch;
    const char *answer;
    size_t bytes; /* of the request, the same every time */
    float score;
    bool fine;
} worker_t;

static void *work(void *context) {
    worker_t *worker = context;
    mbl_proto_request_t request = {0};
    mbl_proto_result_t result = {0};
    mbl_proto_error_t error;
    mbl_proto_response_t response = json_response(worker->answer);
    worker->fine = true;
    for (int i = 0; i < 200; i++) {
        worker->fine &= mbl_proto_request(worker->peer, &worker->batch, &request) == MBL_OK;
        worker->fine &=
            mbl_proto_response(worker->peer, 1, &response, &result, &error) == MBL_OK && result.n == 1;
        worker->fine &= i == 0 || (worker->bytes == request.body_bytes && worker->score == result.scores[0]);
        worker->bytes = request.body_bytes;
        worker->score = result.scores[0];
    }
    mbl_proto_request_free(&request);
    mbl_proto_result_free(&result);
    return NULL;
}

/* One peer, several threads, each with a request and a result of its own (ThreadSanitizer looks on where it
 * is built in). */
static void test_threads(void **state) {
    (void)state;
    static const char *const models[] = {"{\"data\": [{\"id\": \"m\"}]}"};
    enum { THREADS = 4 };
    mbl_proto_piece_t file = {"file", 4};
    static const char *const answers[THREADS] = {
        "{\"choices\": [{\"message\": {\"content\": \"about 1\"}}]}",
        "{\"choices\": [{\"message\": {\"content\": \"about 2\"}}]}",
        "{\"choices\": [{\"message\": {\"content\": \"about 3\"}}]}",
        "{\"choices\": [{\"message\": {\"content\": \"about 4\"}}]}"};
    static const char *const prompts[THREADS] = {"a", "bb", "ccc", "dddd"};
    mbl_proto_peer_t *peer = peer_of(
        &(mbl_proto_options_t){.codec = "chat", .judge = {.question = "{prompt}", .pattern = "about (\\d)"}},
        models);
    worker_t workers[THREADS];
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++) {
        workers[i] = (worker_t){
            .peer = peer, .batch = {.n = 1, .encoded = &file, .prompts = &prompts[i]}, .answer = answers[i]};
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_true(workers[i].fine);
        assert_near(workers[i].score, i + 1, 0);
        assert_int_equal(workers[i].bytes, workers[0].bytes + i);
    }
    mbl_proto_close(peer);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_table),     cmocka_unit_test(test_statuses),
                                       cmocka_unit_test(test_limits),    cmocka_unit_test(test_a_redirect),
                                       cmocka_unit_test(test_printable), cmocka_unit_test(test_text),
                                       cmocka_unit_test(test_no_memory), cmocka_unit_test(test_threads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
