/* A small HTTP server inside a test: a thread that accepts, one thread a connection, and a handler that says
 * what goes onto the wire, byte by byte if it likes. It closes nothing on its own but at its end. */
#ifndef MBL_TESTS_FAKE_SERVER_H
#define MBL_TESTS_FAKE_SERVER_H

#include "support.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { FAKE_HEAD = 64 << 10, FAKE_CONNECTIONS = 512 };

typedef struct fake_server fake_server_t;
typedef struct {
    fake_server_t *server;
    int fd;
    char method[16], path[1024];
    char *head; /* the request's lines */
    char *body;
    size_t body_bytes;
} fake_request_t;

/* Returns whether the connection stays open. */
typedef bool (*fake_handler_t)(fake_request_t *request, void *user);

struct fake_server {
    int listener, port;
    char url[128];
    fake_handler_t handler;
    void *user;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_t threads[FAKE_CONNECTIONS];
    int fds[FAKE_CONNECTIONS];
    size_t n;
    atomic_size_t connections, requests;
    atomic_bool closing;
};

/* Whether all of it went out. */
static inline bool fake_send(const fake_request_t *request, const void *data, size_t size) {
    const char *from = data;
    while (size > 0) {
        ssize_t n = send(request->fd, from, size, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        from += n;
        size -= (size_t)n;
    }
    return true;
}

static inline bool fake_say(const fake_request_t *request, const char *text) {
    return fake_send(request, text, strlen(text));
}

/* A whole response with more headers (each ending in \r\n). */
static inline bool fake_answer(const fake_request_t *request, int status, const char *headers,
                               const void *body, size_t bytes) {
    char head[2048];
    int n = snprintf(head, sizeof head, "HTTP/1.1 %d Whatever\r\nContent-Length: %zu\r\n%s\r\n", status,
                     bytes, headers);
    return fake_send(request, head, (size_t)n) && fake_send(request, body, bytes);
}

static inline bool fake_closing(const fake_request_t *request) {
    return atomic_load(&request->server->closing);
}

/* Waits until the server closes, the client goes, or the time is over. */
static inline void fake_hang(const fake_request_t *request, double seconds) {
    for (int i = 0; i < (int)(seconds * 100) && !fake_closing(request); i++) {
        struct pollfd poller = {.fd = request->fd, .events = POLLRDHUP};
        if (poll(&poller, 1, 10) > 0)
            return;
    }
}

/* The value of a header of the request, or NULL; free it. */
static inline char *fake_header(const fake_request_t *request, const char *name) {
    char *at = strcasestr(request->head, name);
    if (!at || at[strlen(name)] != ':')
        return NULL;
    at += strlen(name) + 1 + strspn(at + strlen(name) + 1, " ");
    return strndup(at, strcspn(at, "\r"));
}

static inline bool fake_read_request(fake_request_t *request, char *head) {
    size_t used = 0;
    char *end = NULL;
    while (used < FAKE_HEAD && !end) {
        ssize_t n = recv(request->fd, head + used, 1, 0); /* slow, and never into the body */
        if (n <= 0)
            return false;
        used += (size_t)n;
        head[used] = 0;
        end = used >= 4 && memcmp(head + used - 4, "\r\n\r\n", 4) == 0 ? head + used : NULL;
    }
    request->head = head;
    if (!end || sscanf(head, "%15s %1023s", request->method, request->path) != 2)
        return false;
    char *length = fake_header(request, "\nContent-Length");
    request->body_bytes = length ? strtoull(length, NULL, 10) : 0;
    free(length);
    request->body = malloc(request->body_bytes + 1);
    for (size_t got = 0; got < request->body_bytes;) {
        ssize_t n = recv(request->fd, request->body + got, request->body_bytes - got, 0);
        if (n <= 0)
            return false;
        got += (size_t)n;
    }
    request->body[request->body_bytes] = 0;
    return true;
}

static inline void *fake_serve(void *argument) {
    fake_request_t *request = argument;
    char *head = malloc(FAKE_HEAD + 1);
    bool open = true;
    while (open) {
        open = fake_read_request(request, head);
        if (open) {
            atomic_fetch_add(&request->server->requests, 1);
            open = request->server->handler(request, request->server->user);
        }
        free(request->body);
        request->body = NULL;
    }
    shutdown(request->fd, SHUT_RDWR);
    free(head);
    free(request);
    return NULL;
}

static inline void *fake_accept(void *argument) {
    fake_server_t *server = argument;
    for (;;) {
        int fd = accept(server->listener, NULL, NULL), on = 1;
        if (fd < 0 || atomic_load(&server->closing)) {
            if (fd >= 0)
                close(fd);
            return NULL;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        fake_request_t *request = calloc(1, sizeof *request);
        request->server = server;
        request->fd = fd;
        atomic_fetch_add(&server->connections, 1);
        pthread_mutex_lock(&server->lock);
        if (server->n == FAKE_CONNECTIONS)
            abort();
        server->fds[server->n] = fd;
        pthread_create(&server->threads[server->n++], NULL, fake_serve, request);
        pthread_mutex_unlock(&server->lock);
    }
}

static inline void fake_start(fake_server_t *server, int listener, fake_handler_t handler, void *user) {
    server->listener = listener;
    server->handler = handler;
    server->user = user;
    pthread_mutex_init(&server->lock, NULL);
    assert_int_equal(listen(listener, 64), 0);
    assert_int_equal(pthread_create(&server->thread, NULL, fake_accept, server), 0);
}

/* On a free port of 127.0.0.1 (port 0) or on that one; its address is in server->url. */
static inline void fake_open_port(fake_server_t *server, int port, fake_handler_t handler, void *user) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memset(server, 0, sizeof *server);
    address.sin_port = htons((uint16_t)port);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, size), 0);
    getsockname(listener, (struct sockaddr *)&address, &size);
    server->port = ntohs(address.sin_port);
    snprintf(server->url, sizeof server->url, "http://127.0.0.1:%d", server->port);
    fake_start(server, listener, handler, user);
}

static inline void fake_open(fake_server_t *server, fake_handler_t handler, void *user) {
    fake_open_port(server, 0, handler, user);
}

static inline void fake_open_socket(fake_server_t *server, const char *path, fake_handler_t handler,
                                    void *user) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memset(server, 0, sizeof *server);
    assert_true(strlen(path) < sizeof address.sun_path);
    memcpy(address.sun_path, path, strlen(path) + 1);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    snprintf(server->url, sizeof server->url, "unix:%.110s", path);
    fake_start(server, listener, handler, user);
}

/* Cuts every connection and waits for all threads. Twice is fine. */
static inline void fake_close(fake_server_t *server) {
    if (atomic_exchange(&server->closing, true))
        return;
    shutdown(server->listener, SHUT_RDWR);
    pthread_join(server->thread, NULL);
    close(server->listener);
    for (size_t i = 0; i < server->n; i++)
        shutdown(server->fds[i], SHUT_RDWR);
    for (size_t i = 0; i < server->n; i++) {
        pthread_join(server->threads[i], NULL);
        close(server->fds[i]);
    }
    pthread_mutex_destroy(&server->lock);
}

#endif
