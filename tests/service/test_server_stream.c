/* src/service/server_stream.c: a stream follows the run, is refused to those it is not for, and costs no
 * memory where its client takes nothing. */
#include "server_case.h"

#include "base/clock.h"
#include "service/stream.h"

static const char upgrade[] =
    "GET /api/stream%s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: "
    "Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Version: 13\r\n%s\r\n";

static int dial_stream(const char *query, const char *headers) {
    char request[512];
    int fd = dial(), n = snprintf(request, sizeof request, upgrade, query, headers);
    put(fd, request, (size_t)n);
    return fd;
}

static void exactly(int fd, void *out, size_t size) {
    for (size_t done = 0; done < size;) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        assert_int_equal(poll(&ready, 1, 5000), 1);
        ssize_t n = recv(fd, (char *)out + done, size - done, 0);
        assert_true(n > 0);
        done += (size_t)n;
    }
}

/* Past the answer's headers; fails unless it is 101. */
static void expect_upgrade(int fd) {
    char head[1024] = "";
    for (size_t n = 0; n < sizeof head - 1 && !strstr(head, "\r\n\r\n"); n++)
        exactly(fd, head + n, 1);
    assert_non_null(strstr(head, "101"));
}

/* The next message of one of these types. */
static json_t *next_message(int fd, const char *type) {
    for (;;) {
        unsigned char head[10];
        exactly(fd, head, 2);
        size_t size = head[1] & 127;
        assert_int_equal(head[0], 0x81); /* a whole text, not masked */
        if (size == 126) {
            exactly(fd, head, 2);
            size = (size_t)head[0] << 8 | head[1];
        } else if (size == 127) {
            exactly(fd, head, 8);
            size = 0;
            for (int i = 0; i < 8; i++)
                size = size << 8 | head[i];
        }
        char *text = malloc(size + 1);
        exactly(fd, text, size);
        json_t *message = json_loadb(text, size, 0, NULL);
        assert_true(json_is_object(message));
        free(text);
        if (strcmp(json_string_value(json_object_get(message, "type")), type) == 0)
            return message;
        json_decref(message);
    }
}

static void a_stream_follows_the_run(void **state) {
    (void)state;
    append_long_line();
    int fd = dial_stream("?run=0&from=5", "");
    expect_upgrade(fd);
    json_t *message = next_message(fd, "hello");
    assert_int_equal(strlen(json_string_value(json_object_get(message, "session"))), 16);
    json_decref(message);
    message = next_message(fd, "metrics");
    assert_int_equal(json_integer_value(json_object_get(json_object_get(message, "line"), "step")), 5);
    json_decref(message);
    json_decref(next_message(fd, "metrics")); /* the long one */
    append_metrics(run, 7, 7);
    mbl_server_wake(server);
    message = next_message(fd, "metrics");
    assert_int_equal(json_integer_value(json_object_get(json_object_get(message, "line"), "step")), 7);
    json_decref(message);
    mbl_server_phase(server, MBL_PHASE_TRAINING);
    do {
        message = next_message(fd, "status");
        const json_t *phase = json_object_get(json_object_get(message, "status"), "phase");
        if (strcmp(json_string_value(json_object_get(phase, "name")), "training") == 0)
            break;
        json_decref(message);
    } while (true);
    json_decref(message);
    append_text(run, "advantages.jsonl", "{\"step\": 7, \"prompt\": [], \"advantage\": {}}\n");
    mbl_server_wake(server);
    message = next_message(fd, "advantages");
    assert_int_equal(json_integer_value(json_object_get(message, "step")), 7);
    json_decref(message);
    append_text(run, "log.txt", "a line\n");
    mbl_server_wake(server);
    message = next_message(fd, "log");
    assert_string_equal(json_string_value(json_array_get(json_object_get(message, "lines"), 0)), "a line");
    json_decref(message);
    close(fd);
}

static void streams_that_are_refused(void **state) {
    static const char *const cases[][2] = {
        {"", "Origin: http://evil.example\r\n"}, {"?run=9", ""}, {"?from=x", ""}, {"/../control", ""}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t size;
        int fd = dial_stream(cases[i][0], cases[i][1]);
        char *all = take_all(fd, 3000, &size);
        assert_null(strstr(all, "101"));
        free(all);
        close(fd);
    }
    /* one that sends much is closed */
    int fd = dial_stream("", "");
    expect_upgrade(fd);
    for (int i = 0; i < 100; i++)
        put(fd, "\x81\x81\0\0\0\0x", 7);
    size_t size;
    double start = mbl_now();
    free(take_all(fd, 3000, &size));
    assert_true(mbl_now() - start < 2.5);
    close(fd);
}

/* A client that takes nothing costs no memory, and what it misses is counted. */
static void a_slow_client_misses_lines(void **state) {
    (void)state;
    mbl_api_t api;
    mbl_stream_t stream;
    const char *const folders[] = {run};
    size_t size, dropped = 0, lines = 0;
    assert_int_equal(mbl_api_open(folders, 1, &api), MBL_OK);
    mbl_stream_begin(&api, 0, false, 0, &stream);
    append_metrics(run, 8, 8 + MBL_STREAM_BEHIND + 9);
    assert_int_equal(mbl_view_refresh(&api.views[0]), MBL_OK);
    for (char *text; (text = mbl_stream_next(&api, &stream, 3, &size)); mbl_free(text)) {
        json_t *message = json_loadb(text + 3, size, 0, NULL);
        const char *type = json_string_value(json_object_get(message, "type"));
        lines += strcmp(type, "metrics") == 0;
        if (strcmp(type, "dropped") == 0)
            dropped += (size_t)json_integer_value(json_object_get(message, "lines"));
        json_decref(message);
    }
    assert_int_equal(dropped, 10);
    assert_int_equal(lines, MBL_STREAM_BEHIND);
    assert_int_equal(api.facts.dropped, 10);
    mbl_api_close(&api);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_follows_the_run),
        cmocka_unit_test(streams_that_are_refused),
        cmocka_unit_test(a_slow_client_misses_lines),
    };
    return cmocka_run_group_tests_name("server_stream", tests, make, drop);
}
