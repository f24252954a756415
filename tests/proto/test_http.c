/* proto/http: requests in pieces, responses of every kind of server, limits, cancellation, TLS and the end of
 * a client with calls under way. */
#include "fake_server.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "proto/http.h"

#include <zlib.h>

/* ---- one call, waited for ---- */

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t ended;
    size_t n;
    mbl_http_call_t *call;
    bool keep; /* the waiter looks at the call */
} waiter_t;

static void note_end(void *user, mbl_http_call_t *call) {
    waiter_t *waiter = user;
    pthread_mutex_lock(&waiter->lock);
    waiter->call = call;
    waiter->n++;
    pthread_cond_signal(&waiter->ended);
    if (!waiter->keep)
        mbl_http_free(call);
    pthread_mutex_unlock(&waiter->lock);
}

static void wait_for(waiter_t *waiter, size_t n) {
    pthread_mutex_lock(&waiter->lock);
    while (waiter->n < n)
        pthread_cond_wait(&waiter->ended, &waiter->lock);
    pthread_mutex_unlock(&waiter->lock);
}

#define WAITER                                                                                               \
    { .lock = PTHREAD_MUTEX_INITIALIZER, .ended = PTHREAD_COND_INITIALIZER }

static mbl_http_t *open_client(void) {
    mbl_http_t *http = NULL;
    assert_int_equal(mbl_http_open(4, &http), MBL_OK);
    return http;
}

/* Calls and returns the ended call; mbl_http_free it. */
static mbl_http_call_t *call_server(mbl_http_t *http, const mbl_http_server_t *server,
                                    const mbl_proto_request_t *request, double deadline) {
    waiter_t waiter = WAITER;
    waiter.keep = true;
    assert_int_equal(mbl_http_submit(http, server, request, deadline, note_end, &waiter, NULL), MBL_OK);
    wait_for(&waiter, 1);
    return waiter.call;
}

static mbl_http_call_t *get(mbl_http_t *http, const char *url, const char *path, double deadline) {
    return call_server(http, &(mbl_http_server_t){.url = url},
                       &(mbl_proto_request_t){.method = "GET", .path = path}, deadline);
}

static void assert_end(const mbl_http_call_t *call, mbl_http_end_t end) {
    if (mbl_http_end(call) != end)
        fail_msg("ended as %s (%s), expected %s", mbl_http_end_name(mbl_http_end(call)), mbl_http_text(call),
                 mbl_http_end_name(end));
}

static const char *header_of(const mbl_http_call_t *call, const char *name) {
    const mbl_proto_response_t *response = mbl_http_response(call);
    for (size_t i = 0; i < response->n_headers; i++)
        if (strcasecmp(response->headers[i].name, name) == 0)
            return response->headers[i].value;
    return NULL;
}

/* ---- a server for all cases, by path ---- */

static bool drip(const fake_request_t *request) {
    fake_say(request, "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n");
    for (int i = 0; i < 100000 && !fake_closing(request) && fake_say(request, "x"); i++)
        usleep(20000);
    return false;
}

/* Headers, or 1xx responses, without end. */
static bool endless(const fake_request_t *request, const char *start, const char *again) {
    bool sent = fake_say(request, start);
    while (sent && !fake_closing(request))
        sent = fake_say(request, again);
    return false;
}

static bool gzipped(const fake_request_t *request, size_t bytes, char fill) {
    z_stream stream = {0};
    size_t room = bytes / 100 + 4096;
    char *plain = malloc(bytes), *packed = malloc(room);
    memset(plain, fill, bytes);
    deflateInit2(&stream, 9, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY);
    stream.next_in = (Bytef *)plain;
    stream.avail_in = (uInt)bytes;
    stream.next_out = (Bytef *)packed;
    stream.avail_out = (uInt)room;
    deflate(&stream, Z_FINISH);
    bool open = fake_answer(request, 200, "Content-Encoding: gzip\r\n", packed, stream.total_out);
    deflateEnd(&stream);
    free(plain);
    free(packed);
    return open;
}

static bool is(const fake_request_t *request, const char *path) {
    return strcmp(request->path, path) == 0;
}

static bool answer_by_path(fake_request_t *request, void *user) {
    char headers[600];
    (void)user;
    if (is(request, "/echo"))
        return fake_answer(request, 200, "X-Kind:  echo \r\nx-empty:\r\n", request->body,
                           request->body_bytes);
    if (is(request, "/head"))
        return fake_answer(request, 200, "", request->head, strlen(request->head));
    if (is(request, "/busy"))
        return fake_answer(request, 503, "Retry-After: 7\r\n", "later", 5);
    if (is(request, "/redirect")) {
        snprintf(headers, sizeof headers, "Location: %s/redirect\r\n", request->server->url);
        return fake_answer(request, 307, headers, "", 0);
    }
    if (is(request, "/hang"))
        return fake_hang(request, 20), false;
    if (is(request, "/drip"))
        return drip(request);
    if (is(request, "/cut"))
        return fake_say(request, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), false;
    if (is(request, "/nothing"))
        return false;
    if (is(request, "/garbage"))
        return fake_say(request, "\x7f\x45LF hello\r\n\r\n"), false;
    if (is(request, "/headers"))
        return endless(request, "HTTP/1.1 200 OK\r\n",
                       "X-More: 0123456789012345678901234567890123456789\r\n");
    if (is(request, "/header"))
        return endless(request, "HTTP/1.1 200 OK\r\nX-Long: ", "0123456789012345678901234567890123456789");
    if (is(request, "/continue"))
        return endless(request, "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n");
    if (is(request, "/body"))
        return endless(request, "HTTP/1.1 200 OK\r\n\r\n", "0123456789012345678901234567890123456789");
    if (is(request, "/gzip"))
        return gzipped(request, 100000, 'z');
    if (is(request, "/bomb"))
        return gzipped(request, MBL_PROTO_BODY_MAX + 1, 'z');
    if (is(request, "/notgzip"))
        return fake_answer(request, 200, "Content-Encoding: gzip\r\n", "plain text, not gzip", 20);
    if (is(request, "/many")) {
        fake_say(request, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n");
        for (int i = 0; i < 200; i++) {
            snprintf(headers, sizeof headers, "X-%d: %d\r\n", i, i);
            fake_say(request, headers);
        }
        return fake_say(request, "\r\n");
    }
    return fake_answer(request, 404, "", "none", 4);
}

/* ---- tests ---- */

static void test_pieces_arrive_and_the_connection_stays(void **state) {
    (void)state;
    fake_server_t server;
    fake_open(&server, answer_by_path, NULL);
    mbl_http_t *http = open_client();
    size_t big = 3 << 20;
    char *bytes = malloc(big);
    for (size_t i = 0; i < big; i++)
        bytes[i] = (char)(i * 7 + i / 1000);
    mbl_proto_piece_t pieces[] = {{"abc", 3}, {NULL, 0}, {bytes, big}, {"", 0}, {"end", 3}};
    mbl_proto_request_t request = {
        .method = "POST", .path = "/echo", .pieces = pieces, .n_pieces = 5, .body_bytes = big + 6};
    for (int i = 0; i < 3; i++) {
        mbl_http_call_t *call = call_server(http, &(mbl_http_server_t){.url = server.url}, &request, 20);
        const mbl_proto_response_t *response = mbl_http_response(call);
        assert_end(call, MBL_HTTP_ANSWERED);
        assert_int_equal(response->status, 200);
        assert_int_equal(response->body_bytes, big + 6);
        assert_memory_equal(response->body, "abc", 3);
        assert_memory_equal((const char *)response->body + 3, bytes, big);
        assert_memory_equal((const char *)response->body + 3 + big, "end", 3);
        assert_string_equal(header_of(call, "x-kind"), "echo");
        assert_string_equal(header_of(call, "X-Empty"), "");
        assert_true(mbl_http_seconds(call) > 0 && mbl_http_seconds(call) < 20);
        mbl_http_free(call);
    }
    assert_int_equal(atomic_load(&server.connections), 1);
    mbl_http_close(http);
    free(bytes);
    fake_close(&server);
}

/* What a server closed between two requests is opened again, the body sent from its beginning. */
static void test_a_server_that_restarts_is_reached_again(void **state) {
    (void)state;
    fake_server_t server;
    fake_open(&server, answer_by_path, NULL);
    int port = server.port;
    mbl_http_t *http = open_client();
    mbl_proto_piece_t pieces[] = {{"again", 5}};
    mbl_proto_request_t request = {
        .method = "POST", .path = "/echo", .pieces = pieces, .n_pieces = 1, .body_bytes = 5};
    for (int i = 0; i < 2; i++) {
        mbl_http_call_t *call = call_server(http, &(mbl_http_server_t){.url = server.url}, &request, 10);
        assert_end(call, MBL_HTTP_ANSWERED);
        assert_int_equal(mbl_http_response(call)->body_bytes, 5);
        mbl_http_free(call);
        fake_close(&server);
        if (i == 0)
            fake_open_port(&server, port, answer_by_path, NULL);
    }
    mbl_http_close(http);
}

static void test_unix_socket_token_and_headers(void **state) {
    (void)state;
    char folder[256], path[300];
    fake_server_t server;
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/s", folder);
    fake_open_socket(&server, path, answer_by_path, NULL);
    mbl_http_t *http = open_client();
    mbl_proto_header_t headers[] = {{"Content-Type", "application/octet-stream"}, {"X-Size", "12"}};
    mbl_proto_request_t request = {.method = "GET", .path = "/head", .headers = headers, .n_headers = 2};
    mbl_http_call_t *call =
        call_server(http, &(mbl_http_server_t){.url = server.url, .token = "secret"}, &request, 10);
    assert_end(call, MBL_HTTP_ANSWERED);
    char *text = strndup(mbl_http_response(call)->body, mbl_http_response(call)->body_bytes);
    assert_non_null(strstr(text, "\r\nAuthorization: Bearer secret\r\n"));
    assert_non_null(strstr(text, "\r\nContent-Type: application/octet-stream\r\n"));
    assert_non_null(strstr(text, "\r\nX-Size: 12\r\n"));
    assert_non_null(strstr(text, "\r\nAccept-Encoding: "));
    assert_null(strstr(text, "\r\nExpect"));
    free(text);
    mbl_http_free(call);
    headers[1].value = "12\r\nX-Smuggled: 1";
    assert_int_equal(
        mbl_http_submit(http, &(mbl_http_server_t){.url = server.url}, &request, 10, note_end, NULL, NULL),
        MBL_ERR_ARG);
    mbl_http_close(http);
    fake_close(&server);
    remove_folder(folder);
}

/* "/head" answers with the request's head, as servers do that show it in their errors. */
static void test_a_token_that_is_sent_back_is_hidden(void **state) {
    (void)state;
    fake_server_t server;
    fake_open(&server, answer_by_path, NULL);
    mbl_http_t *http = open_client();
    mbl_proto_header_t twice = {"X-Copy", "ssecret-12 secret-1secret-123"};
    mbl_proto_request_t request = {.method = "GET", .path = "/head", .headers = &twice, .n_headers = 1};
    mbl_http_call_t *call =
        call_server(http, &(mbl_http_server_t){.url = server.url, .token = "secret-12"}, &request, 10);
    assert_end(call, MBL_HTTP_ANSWERED);
    char *text = strndup(mbl_http_response(call)->body, mbl_http_response(call)->body_bytes);
    assert_null(strstr(text, "secret-12"));
    assert_non_null(strstr(text, "\r\nAuthorization: Bearer *********\r\n"));
    assert_non_null(strstr(text, "\r\nX-Copy: s********* secret-1*********3\r\n"));
    free(text);
    mbl_http_free(call);
    mbl_http_close(http);
    fake_close(&server);
}

static void test_statuses_and_redirects_are_the_caller_s(void **state) {
    (void)state;
    fake_server_t server;
    fake_open(&server, answer_by_path, NULL);
    mbl_http_t *http = open_client();
    const struct {
        const char *path;
        int status;
        const char *header, *value;
    } cases[] = {{"/busy", 503, "retry-after", "7"},
                 {"/absent", 404, "retry-after", NULL},
                 {"/redirect", 307, "x", NULL}};
    for (size_t i = 0; i < 3; i++) {
        mbl_http_call_t *call = get(http, server.url, cases[i].path, 10);
        assert_end(call, MBL_HTTP_ANSWERED);
        assert_int_equal(mbl_http_response(call)->status, cases[i].status);
        if (cases[i].value)
            assert_string_equal(header_of(call, cases[i].header), cases[i].value);
        else
            assert_null(header_of(call, cases[i].header));
        mbl_http_free(call);
    }
    assert_int_equal(atomic_load(&server.requests), 3); /* none was followed */
    mbl_http_call_t *call = get(http, server.url, "/many", 10);
    assert_end(call, MBL_HTTP_ANSWERED);
    assert_int_equal(mbl_http_response(call)->n_headers, MBL_PROTO_HEADERS_MAX);
    mbl_http_free(call);
    call = get(http, server.url, "/gzip", 10);
    assert_end(call, MBL_HTTP_ANSWERED);
    assert_int_equal(mbl_http_response(call)->body_bytes, 100000);
    assert_int_equal(((const char *)mbl_http_response(call)->body)[99999], 'z');
    mbl_http_free(call);
    mbl_http_close(http);
    fake_close(&server);
}

/* Every bad server ends as what it is, soon, and the client works on. */
static void test_faults_end_as_what_they_are(void **state) {
    (void)state;
    fake_server_t server;
    fake_open(&server, answer_by_path, NULL);
    mbl_http_t *http = open_client();
    const struct {
        const char *path;
        double deadline;
        mbl_http_end_t end;
    } cases[] = {{"/hang", 0.2, MBL_HTTP_DEADLINE},  {"/drip", 0.2, MBL_HTTP_DEADLINE},
                 {"/cut", 10, MBL_HTTP_CUT},         {"/nothing", 10, MBL_HTTP_CUT},
                 {"/garbage", 10, MBL_HTTP_GARBAGE}, {"/headers", 10, MBL_HTTP_OVERSIZE},
                 {"/header", 10, MBL_HTTP_OVERSIZE}, {"/continue", 10, MBL_HTTP_OVERSIZE},
                 {"/body", 10, MBL_HTTP_OVERSIZE},   {"/bomb", 10, MBL_HTTP_OVERSIZE},
                 {"/notgzip", 10, MBL_HTTP_GARBAGE}, {"/echo", 10, MBL_HTTP_ANSWERED}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mbl_http_call_t *call = get(http, server.url, cases[i].path, cases[i].deadline);
        if (mbl_http_end(call) != cases[i].end)
            fail_msg("%s ended as %s (%s), expected %s", cases[i].path, mbl_http_end_name(mbl_http_end(call)),
                     mbl_http_text(call), mbl_http_end_name(cases[i].end));
        assert_true(cases[i].end == MBL_HTTP_ANSWERED || mbl_http_text(call)[0]);
        assert_true(mbl_http_seconds(call) < (cases[i].deadline < 1 ? 2 : 8));
        mbl_http_free(call);
    }
    fake_close(&server);
    mbl_http_call_t *call = get(http, server.url, "/echo", 5); /* nobody listens there now */
    assert_end(call, MBL_HTTP_CONNECT);
    mbl_http_free(call);
    call = get(http, "http://no-such-host.invalid", "/", 5);
    assert_end(call, MBL_HTTP_CONNECT);
    mbl_http_free(call);
    call = get(http, "unix:/nowhere/at/all", "/", 5);
    assert_end(call, MBL_HTTP_CONNECT);
    if (!strstr(mbl_http_text(call), "nobody listens at this socket") ||
        strstr(mbl_http_text(call), "port 80"))
        fail_msg("%s", mbl_http_text(call));
    mbl_http_free(call);
    mbl_http_close(http);
}

static void test_cancelled_calls_end_at_once(void **state) {
    (void)state;
    enum { N = 40 };
    fake_server_t server;
    waiter_t waiter = WAITER;
    mbl_http_call_t *calls[N];
    mbl_proto_request_t request = {.method = "GET", .path = "/hang"};
    fake_open(&server, answer_by_path, NULL);
    mbl_http_t *http = open_client();
    double start = mbl_now();
    waiter.keep = true;
    for (int i = 0; i < N; i++)
        assert_int_equal(mbl_http_submit(http, &(mbl_http_server_t){.url = server.url}, &request, 60,
                                         note_end, &waiter, &calls[i]),
                         MBL_OK);
    for (int i = 0; i < N / 2; i++)
        mbl_http_cancel(calls[i]);
    wait_for(&waiter, N / 2);
    usleep(20000); /* the rest are under way or waiting */
    assert_int_equal(waiter.n, N / 2);
    for (int i = 0; i < N / 2; i++)
        assert_end(calls[i], MBL_HTTP_CANCELLED);
    mbl_http_close(http); /* and the end of a client cancels the others */
    assert_int_equal(waiter.n, N);
    assert_true(mbl_now() - start < 10);
    fake_close(&server);
}

typedef struct {
    mbl_http_t *http;
    waiter_t waiter;
    mbl_http_server_t server;
    mbl_proto_request_t request;
    size_t left;
} chain_t;

static void call_again(void *user, mbl_http_call_t *call) {
    chain_t *chain = user;
    assert_end(call, MBL_HTTP_ANSWERED);
    mbl_http_free(call);
    if (chain->left-- > 0)
        assert_int_equal(
            mbl_http_submit(chain->http, &chain->server, &chain->request, 10, call_again, chain, NULL),
            MBL_OK);
    else
        note_end(&chain->waiter, NULL);
}

/* `done` may submit. Calls are used anew, so the second thousand takes no memory. */
static void test_calls_are_used_anew(void **state) {
    (void)state;
    fake_server_t server;
    fake_open(&server, answer_by_path, NULL);
    chain_t chain = {.http = open_client(),
                     .waiter = WAITER,
                     .server = {.url = server.url},
                     .request = {.method = "GET", .path = "/echo"},
                     .left = 50};
    chain.waiter.keep = true;
    size_t live = 0;
    for (size_t round = 1; round <= 2; round++) {
        assert_int_equal(
            mbl_http_submit(chain.http, &chain.server, &chain.request, 10, call_again, &chain, NULL), MBL_OK);
        wait_for(&chain.waiter, round);
        assert_true(round == 1 || mbl_mem_live() <= live + 2); /* watched sockets come and go */
        live = mbl_mem_live();
        chain.left = 50;
    }
    mbl_http_close(chain.http);
    fake_close(&server);
}

static void test_urls(void **state) {
    (void)state;
    const struct {
        const char *url, *why;
    } cases[] = {{"http://localhost:8000", NULL},
                 {"https://rewards.example.com/base/", NULL},
                 {"http://[::1]:80", NULL},
                 {"unix:/run/rewards.sock", NULL},
                 {"unix:rewards.sock", "names no absolute path of a socket"},
                 {"localhost:8000", "begins with none of http://, https:// and unix:/"},
                 {"file:///etc/passwd", "begins with none of http://, https:// and unix:/"},
                 {"http://", "names no host"},
                 {"http:///x", "names no host"},
                 {"http://a b", "holds a space or a control character"},
                 {"http://a/?x=1", "holds a query or a fragment"},
                 {"http://me:secret@host/", "holds a user name, which belongs into a token"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *why = "never set";
        assert_int_equal(mbl_http_url_valid(cases[i].url, &why), cases[i].why == NULL);
        if (cases[i].why)
            assert_string_equal(why, cases[i].why);
    }
}

/* Any allocation may fail: the call or the client fails, and nothing is lost. */
static void test_no_memory(void **state) {
    (void)state;
    fake_server_t server;
    fake_open(&server, answer_by_path, NULL);
    size_t before = mbl_mem_live(), answered = 0;
    mbl_log_set_level(MBL_LOG_OFF);
    for (size_t n = 1; n < 40 && !answered; n++) {
        mbl_http_t *http = NULL;
        waiter_t waiter = WAITER;
        mbl_proto_request_t request = {.method = "GET", .path = "/gzip"};
        waiter.keep = true;
        mbl_mem_fail_at(n);
        mbl_status_t status = mbl_http_open(4, &http);
        if (status == MBL_OK)
            status = mbl_http_submit(http, &(mbl_http_server_t){.url = server.url}, &request, 10, note_end,
                                     &waiter, NULL);
        if (status == MBL_OK) {
            wait_for(&waiter, 1);
            answered = mbl_http_end(waiter.call) == MBL_HTTP_ANSWERED;
        }
        mbl_mem_fail_at(0);
        mbl_http_close(http);
        assert_int_equal(mbl_mem_live(), before);
        assert_true(n > 5 || !answered);
    }
    mbl_log_set_level(MBL_LOG_INFO);
    assert_true(answered);
    fake_close(&server);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_urls),
        cmocka_unit_test(test_pieces_arrive_and_the_connection_stays),
        cmocka_unit_test(test_a_server_that_restarts_is_reached_again),
        cmocka_unit_test(test_unix_socket_token_and_headers),
        cmocka_unit_test(test_a_token_that_is_sent_back_is_hidden),
        cmocka_unit_test(test_statuses_and_redirects_are_the_caller_s),
        cmocka_unit_test(test_faults_end_as_what_they_are),
        cmocka_unit_test(test_cancelled_calls_end_at_once),
        cmocka_unit_test(test_calls_are_used_anew),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
