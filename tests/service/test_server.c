/* src/service/server.c, web.c, listen.c: a server on a real socket, asked by a client made of plain system
 * calls: answers, control, limits, and 10,000 malformed requests. */
#include "server_case.h"

#include "base/clock.h"

#include <errno.h>
#include <libwebsockets.h>
#include <sys/un.h>

/* ---- answers ---- */

static void the_api_over_http(void **state) {
    char *body, query[64];
    (void)state;
    assert_int_equal(get("/healthz", &body), 200);
    assert_string_equal(body, "{\"ok\":true}");
    free(body);
    assert_int_equal(get("/api/metrics?from=2&to=3&points=5", &body), 200);
    json_t *answer = json_loads(body, 0, NULL);
    assert_int_equal(json_array_size(json_object_get(answer, "lines")), 2);
    json_decref(answer);
    free(body);
    assert_int_equal(get("/api/samples/000004.png", &body), 200);
    assert_string_equal(body, "PNG sheet");
    free(body);
    assert_int_equal(get("/api/status?ru%6e=0", NULL), 200);
    assert_int_equal(get("/api/status?run=1", NULL), 404);
    assert_int_equal(get("/api/nothing", NULL), 404);
    assert_int_equal(get("/../../etc/passwd", NULL), 404);
    assert_int_equal(get("/api/samples/..%2f..%2frun.yaml", NULL), 404);
    assert_int_equal(get("/api/stream", NULL), 426);
    assert_int_equal(get("/api/control", NULL), 405);
    snprintf(query, sizeof query, "/api/log?lines=%d", 5000);
    assert_int_equal(get(query, NULL), 400);
}

/* A long history in pieces, over one connection after another request, and HEAD. */
static void kept_alive_and_long(void **state) {
    static const char two[] = "GET /api/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    static const char last[] = "HEAD /api/metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    size_t size, length;
    (void)state;
    append_long_line();
    int fd = dial();
    put(fd, two, sizeof two - 1);
    char *all = take_all(fd, 1000, &size), *end = strstr(all, "\r\n\r\n");
    assert_true(size > 900000);
    assert_non_null(strstr(all, "content-security-policy: default-src 'none'"));
    length = strtoul(strstr(all, "content-length: ") + 16, NULL, 10);
    assert_int_equal(all + size - end - 4, length);
    free(all);
    put(fd, last, sizeof last - 1);
    all = take_all(fd, 3000, &size);
    close(fd);
    assert_non_null(strstr(all, "HTTP/1.1 200"));
    assert_int_equal(strtoul(strstr(all, "content-length: ") + 16, NULL, 10), length);
    assert_string_equal(strstr(all, "\r\n\r\n"), "\r\n\r\n"); /* without a body */
    free(all);
}

/* Requests that are sent before the answers to those before them have been read: short answers come one after
 * the other; behind a long one libwebsockets 4.3 ends the connection, 4.0 and 4.1 go on. */
static void pipelined_requests(void **state) {
    static const char first[] = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
                      last[] = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
                      lengthy[] = "GET /api/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    char request[1024] = "";
    size_t size, found = 0;
    (void)state;
    for (int i = 0; i < 5; i++)
        strcat(request, first);
    strcat(request, last);
    int fd = dial();
    put(fd, request, strlen(request));
    char *all = take_all(fd, 3000, &size);
    for (const char *at = all; (at = strstr(at, "{\"ok\":true}")); at++)
        found++;
    assert_int_equal(found, 6);
    free(all);
    close(fd);
    snprintf(request, sizeof request, "%s%s", lengthy, last);
    fd = dial();
    put(fd, request, strlen(request));
    all = take_all(fd, 3000, &size);
    if (size > 900000)
        assert_non_null(strstr(all + 900000, "{\"ok\":true}"));
    else
        assert_true(LWS_LIBRARY_VERSION_NUMBER >= 4003000);
    free(all);
    close(fd);
    assert_int_equal(get("/healthz", NULL), 200);
}

/* What libwebsockets settles before any of the service is asked (tests/proofs/service.sh leaves it out). */
static void what_libwebsockets_answers_itself(void **state) {
    static const char trace[] = "TRACE /healthz HTTP/1.1\r\n" HOST "\r\n";
    (void)state;
    assert_int_equal(ask(trace, NULL), 403);
    int zero = get("/api/status?run=%00", NULL); /* closed; 4.3 hands it on */
    assert_true(zero == 0 || zero == 400);
    assert_int_equal(get("/api/status?run=%01", NULL), 400);
    assert_int_equal(get("/api/status?run=0", NULL), 200);
}

static void other_hosts_and_origins_are_refused(void **state) {
    static const struct {
        const char *headers;
        int code;
    } cases[] = {{"Host: 127.0.0.1:8080\r\n", 200},
                 {"Host: [::1]:8080\r\n", 200},
                 {"Host: LOCALHOST\r\n", 200},
                 {"Host: evil.example\r\n", 403},
                 {"Host: 127.0.0.1.evil.example\r\n", 403},
                 {"Host: localhost:80:80\r\n", 403},
                 {"Host: localhost\r\nOrigin: http://localhost\r\n", 200},
                 {"Host: localhost:81\r\nOrigin: http://localhost:81\r\n", 200},
                 {"Host: localhost\r\nOrigin: http://localhost:81\r\n", 403},
                 {"Host: localhost\r\nOrigin: null\r\n", 403},
                 {"Host: localhost\r\nOrigin: http://\r\n", 403},
                 {"Host: \r\nOrigin: http://\r\n", 403},
                 {"Host: localhost\r\nOrigin: http://evil.example\r\n", 403}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char request[400];
        snprintf(request, sizeof request, "GET /api/status HTTP/1.1\r\n%sConnection: close\r\n\r\n",
                 cases[i].headers);
        int code = ask(request, NULL);
        if (code != cases[i].code)
            print_error("%s: %d, expected %d\n", cases[i].headers, code, cases[i].code);
        assert_int_equal(code, cases[i].code);
    }
}

/* ---- control ---- */

static void control_needs_the_token(void **state) {
    static const char json[] = "Content-Type: application/json\r\n";
    static const struct {
        const char *authorization, *type, *body;
        int code;
    } cases[] = {
        {"", json, "{\"checkpoint\": true}", 401},
        {"Authorization: Bearer \r\n", json, "{\"checkpoint\": true}", 401},
        {"Authorization: Bearer 0123\r\n", json, "{\"checkpoint\": true}", 401},
        {"Authorization: Basic 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\r\n", json,
         "{\"checkpoint\": true}", 401},
        {"T", "Content-Type: text/plain\r\n", "{\"checkpoint\": true}", 415},
        {"T", "Content-Type: application/json+x\r\n", "{\"checkpoint\": true}", 415},
        {"T", "", "{\"checkpoint\": true}", 415},
        {"T", json, "", 400},
        {"T", json, "{", 400},
        {"T", json, "[]", 400},
        {"T", json, "{}", 400},
        {"T", json, "{\"checkpoint\": 1}", 400},
        {"T", json, "{\"checkpoint\": false}", 400},
        {"T", json, "{\"pause\": true, \"resume\": true}", 400},
        {"T", json, "{\"set\": {\"train.lr\": \"1\"}}", 400},
        {"T", json, "{\"set\": {\"rewards.none.min\": 1}}", 400},
        {"T", json, "{\"reboot\": true}", 400},
        {"T", json, "{\"set\": {\"train.steps\": 5}}", 422},
        {"T", json, "{\"set\": {\"train.lr\": 0.1}}", 409}, /* there is no configuration of a run */
        {"T", "Content-Type: application/json; charset=utf-8\r\n", "{\"checkpoint\": true, \"pause\": true}",
         202},
    };
    mbl_comm_t *comm;
    mbl_control_request_t request;
    (void)state;
    assert_int_equal(mbl_comm_open("self", 0, &comm), MBL_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char headers[400];
        char *body;
        if (strcmp(cases[i].authorization, "T") == 0)
            snprintf(headers, sizeof headers, "Authorization: Bearer %s\r\n%s", token, cases[i].type);
        else
            snprintf(headers, sizeof headers, "%s%s", cases[i].authorization, cases[i].type);
        int code = post(headers, cases[i].body, &body);
        if (code != cases[i].code)
            print_error("case %zu: %d %s, expected %d\n", i, code, body, cases[i].code);
        assert_int_equal(code, cases[i].code);
        json_t *answer = json_loads(body, 0, NULL);
        assert_true(json_is_object(answer));
        assert_null(strstr(body, token));
        json_decref(answer);
        free(body);
        assert_int_equal(mbl_control_read(control, comm, 0, &request), MBL_OK);
        assert_int_equal(request.checkpoint, code == 202); /* nothing of what was refused */
    }
    assert_true(request.paused);
    mbl_control_ask(control, MBL_CONTROL_RESUME);
    mbl_comm_close(comm);
}

static void a_body_too_large_is_not_read(void **state) {
    char request[600];
    (void)state;
    snprintf(request, sizeof request,
             "POST /api/control HTTP/1.1\r\n" HOST "Authorization: Bearer %s\r\nContent-Type: "
             "application/json\r\nContent-Length: %d\r\n\r\n",
             token, 17 << 10);
    assert_int_equal(ask(request, NULL), 413);
    snprintf(request, sizeof request,
             "POST /api/control HTTP/1.1\r\n" HOST "Authorization: Bearer %s\r\nContent-Type: "
             "application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
             token);
    assert_int_equal(ask(request, NULL), 400);
}

/* ---- limits ---- */

static void connections_are_limited(void **state) {
    int fds[MBL_SERVER_CONNECTIONS + 8];
    size_t size, n = sizeof fds / sizeof *fds, refused = 0;
    (void)state;
    for (size_t i = 0; i < n; i++)
        fds[i] = dial();
    for (size_t i = n - 8; i < n; i++) { /* closed at once */
        double start = mbl_now();
        free(take_all(fds[i], 3000, &size));
        refused += size == 0 && mbl_now() - start < 2.5;
    }
    for (size_t i = 0; i < n; i++)
        close(fds[i]);
    assert_true(refused >= 7); /* one of an earlier test may have gone meanwhile */
    for (int i = 0; i < 50; i++)
        if (get("/healthz", NULL) == 200)
            return;
    fail_msg("no answer after the connections were closed");
}

static void headers_are_limited(void **state) {
    size_t size, room = 200 << 10;
    char *request = malloc(room);
    (void)state;
    int n = snprintf(request, room, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: ");
    memset(request + n, 'a', room - (size_t)n);
    int fd = dial();
    put(fd, request, room);
    char *all = take_all(fd, 12000, &size); /* closed within the time a request has */
    assert_null(strstr(all, " 200 "));
    free(all);
    close(fd);
    free(request);
}

/* Requests made from good ones by a fixed seed: bytes changed, left out, put in, cut. The server goes on, and
 * nothing was asked of the run. */
static void malformed_requests(void **state) {
    static const char *const good[] = {
        "GET /api/metrics?from=1&to=3 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        "POST /api/control HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x\r\nContent-Type: "
        "application/json\r\nContent-Length: 20\r\n\r\n{\"checkpoint\": true}",
        "GET /api/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n\x81\x85????hello",
        "GET /api/samples/000004/1?run=0 HTTP/1.0\r\nHost: [::1]\r\nRange: bytes=0-1\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"};
    enum { COUNT = 10000 };
    uint64_t random = 88172645463325252ULL;
    mbl_comm_t *comm;
    mbl_control_request_t request;
    (void)state;
    for (int i = 0; i < COUNT; i++) {
        char text[600];
        size_t n = strlen(good[i % 5]);
        memcpy(text, good[i % 5], n);
        for (int change = 0; change < 3; change++) {
            random ^= random << 13, random ^= random >> 7, random ^= random << 17;
            size_t at = (size_t)(random >> 8) % n, length = n - at;
            switch (random % 4) {
            case 0:
                text[at] = (char)(random >> 40);
                break;
            case 1:
                memmove(text + at, text + at + 1, length - 1);
                n--;
                break;
            case 2:
                memmove(text + at + 1, text + at, length);
                text[at] = (char)(random >> 40);
                n++;
                break;
            default:
                n = at > 4 ? at : n;
                break;
            }
        }
        int fd = dial();
        put(fd, text, n);
        if (i % 8 == 0) { /* let it answer; the others go away at once */
            char piece[256];
            struct pollfd ready = {.fd = fd, .events = POLLIN};
            shutdown(fd, SHUT_WR);
            if (poll(&ready, 1, 50) > 0)
                (void)!recv(fd, piece, sizeof piece, 0);
        }
        close(fd);
    }
    int code = 0;
    for (int i = 0; i < 100 && code != 200; i++) { /* past the limit of requests a second */
        uv_sleep(50);
        code = get("/api/status", NULL);
    }
    assert_int_equal(code, 200);
    assert_int_equal(mbl_comm_open("self", 0, &comm), MBL_OK);
    assert_int_equal(mbl_control_read(control, comm, 0, &request), MBL_OK);
    assert_false(request.checkpoint || request.stop || request.evaluate || request.paused || request.sets);
    mbl_comm_close(comm);
}

static void a_unix_socket_is_the_owners(void **state) {
    char listen[600];
    struct stat info;
    (void)state;
    mbl_server_t *before = server;
    uv_thread_t thread_before = thread;
    snprintf(listen, sizeof listen, "unix:%s/s", folder);
    open_server(listen);
    assert_int_equal(stat(listen + 5, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    snprintf(to.sun_path, sizeof to.sun_path, "%.100s", listen + 5);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    static const char request[] = "GET /healthz HTTP/1.1\r\nHost: anything\r\nConnection: close\r\n\r\n";
    size_t size;
    put(fd, request, sizeof request - 1);
    char *all = take_all(fd, 3000, &size);
    assert_non_null(strstr(all, "{\"ok\":true}"));
    free(all);
    close(fd);
    close_server();
    assert_int_not_equal(stat(listen + 5, &info), 0);
    server = before;
    thread = thread_before;
}

static void addresses(void **state) {
    mbl_server_t *none;
    const char *const folders[] = {run};
    char used[64];
    (void)state;
    snprintf(used, sizeof used, "127.0.0.1:%d", mbl_server_port(server));
    mbl_server_options_t options = {.listen = used, .folders = folders, .n = 1};
    assert_failed(mbl_server_open(&options, &none), MBL_ERR_IO, "cannot be listened on");
    options.listen = "nowhere";
    assert_failed(mbl_server_open(&options, &none), MBL_ERR_USAGE, "expected auto, HOST:PORT");
    assert_false(mbl_server_is_public(server));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_api_over_http),
        cmocka_unit_test(kept_alive_and_long),
        cmocka_unit_test(pipelined_requests),
        cmocka_unit_test(what_libwebsockets_answers_itself),
        cmocka_unit_test(other_hosts_and_origins_are_refused),
        cmocka_unit_test(control_needs_the_token),
        cmocka_unit_test(a_body_too_large_is_not_read),
        cmocka_unit_test(connections_are_limited),
        cmocka_unit_test(headers_are_limited),
        cmocka_unit_test(malformed_requests),
        cmocka_unit_test(a_unix_socket_is_the_owners),
        cmocka_unit_test(addresses),
    };
    return cmocka_run_group_tests_name("server", tests, make, drop);
}
