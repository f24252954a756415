/* A server of a run's folder on a real socket, and a client made of plain system calls. */
#ifndef MBL_TESTS_SERVER_CASE_H
#define MBL_TESTS_SERVER_CASE_H

#include "service_case.h"

#include "base/mem.h"
#include "service/server.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

static const char token[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
static char folder[256], run[512];
static mbl_server_t *server;
static mbl_control_t *control;
static uv_thread_t thread;

static inline void serve(void *self) {
    mbl_server_run(self);
}

static inline void open_server(const char *listen) {
    const char *const folders[] = {run};
    assert_int_equal(mbl_server_open(&(mbl_server_options_t){.listen = listen,
                                                             .folders = folders,
                                                             .n = 1,
                                                             .live = true,
                                                             .ranks = 1,
                                                             .control = control,
                                                             .token = token},
                                     &server),
                     MBL_OK);
    assert_int_equal(uv_thread_create(&thread, serve, server), 0);
}

static inline void close_server(void) {
    mbl_server_stop(server);
    uv_thread_join(&thread);
    mbl_server_close(server);
}

static inline int make(void **state) {
    (void)state;
    temporary_folder(folder);
    make_run(folder, "run", run, sizeof run);
    if (mbl_control_new(&control) != MBL_OK)
        return 1;
    open_server("auto");
    return 0;
}

static inline int drop(void **state) {
    (void)state;
    close_server();
    mbl_control_free(control);
    remove_folder(folder);
    return 0;
}

/* Step 6 of the run, in 900 kB. */
static inline void append_long_line(void) {
    char *line = mbl_format("{\"step\": 6, \"long\": \"%0900000d\"}\n", 0);
    append_text(run, "metrics.jsonl", line);
    mbl_free(line);
}

/* ---- the client ---- */

static inline int dial(void) {
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(mbl_server_port(server)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

static inline void put(int fd, const char *text, size_t size) {
    for (size_t done = 0; done < size;) {
        ssize_t n = send(fd, text + done, size - done, MSG_NOSIGNAL);
        if (n <= 0)
            return; /* refused already */
        done += (size_t)n;
    }
}

/* What comes until the other side closes or `wait` ms pass without anything. Free with free(). */
static inline char *take_all(int fd, int wait, size_t *size) {
    size_t room = 1 << 16, n = 0;
    char *all = malloc(room + 1);
    for (;;) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        if (n == room)
            all = realloc(all, (room *= 2) + 1);
        assert_non_null(all);
        if (poll(&ready, 1, wait) <= 0)
            break;
        ssize_t got = recv(fd, all + n, room - n, 0);
        if (got <= 0)
            break;
        n += (size_t)got;
    }
    all[n] = 0;
    *size = n;
    return all;
}

/* One request on a connection of its own; the status, and the body into *body (NULL: not wanted). */
static inline int ask(const char *request, char **body) {
    int fd = dial(), code = 0;
    size_t size;
    put(fd, request, strlen(request));
    char *all = take_all(fd, 3000, &size), *end = strstr(all, "\r\n\r\n");
    close(fd);
    sscanf(all, "HTTP/1.%*d %d", &code);
    if (body)
        *body = strdup(end ? end + 4 : "");
    free(all);
    return code;
}

#define HOST "Host: 127.0.0.1\r\nConnection: close\r\n"

static inline int get(const char *path, char **body) {
    char request[512];
    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\n" HOST "\r\n", path);
    return ask(request, body);
}

static inline int post(const char *headers, const char *text, char **body) {
    char *request = mbl_format("POST /api/control HTTP/1.1\r\n" HOST "%sContent-Length: %zu\r\n\r\n%s",
                               headers, strlen(text), text);
    int code = ask(request, body);
    mbl_free(request);
    return code;
}

#endif
