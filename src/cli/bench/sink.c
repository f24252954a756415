/* A reward server for benchmarks. */
#include "cli/bench/sink.h"
#include "base/mem.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { CONNECTIONS = 16, CHUNK = 1 << 20, HEAD = 8 << 10, ANSWER = 64 << 10 };

struct mbl_bench_sink {
    int listener;
    bool local;
    char url[160], folder[64], path[108];
    struct sockaddr_in address;
    pthread_t acceptor, workers[CONNECTIONS];
    int fds[CONNECTIONS];
    size_t n; /* connections so far; the acceptor's until it has been joined */
    char answer[ANSWER];
    size_t answer_bytes;
};

typedef struct {
    mbl_bench_sink_t *sink;
    size_t i;
} worker_t;

static bool send_all(int fd, const char *data, size_t size) {
    while (size) {
        ssize_t n = send(fd, data, size, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        data += n;
        size -= (size_t)n;
    }
    return true;
}

static bool answer(int fd, const char *body, size_t size) {
    char head[120];
    int n =
        snprintf(head, sizeof head,
                 "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n", size);
    return send_all(fd, head, (size_t)n) && send_all(fd, body, size);
}

/* Reads one request, whose body is thrown away, and answers it. */
static bool serve(mbl_bench_sink_t *sink, int fd, char *chunk) {
    size_t have = 0;
    char *end = NULL;
    while (!end) {
        ssize_t n = have < HEAD ? recv(fd, chunk + have, CHUNK - have - 1, 0) : -1;
        if (n <= 0)
            return false;
        have += (size_t)n;
        chunk[have] = 0;
        end = strstr(chunk, "\r\n\r\n");
    }
    size_t head = (size_t)(end - chunk) + 4;
    *end = 0;
    const char *length = strcasestr(chunk, "\r\ncontent-length:");
    size_t body = length ? strtoull(length + 17, NULL, 10) : 0, got = have - head;
    static const char server[] = "{\"name\":\"sink\",\"extensions\":[\"binary_tensor_data\"]}",
                      model[] = "{\"name\":\"m\"}";
    if (strcasestr(chunk, "\r\nexpect:") && !send_all(fd, "HTTP/1.1 100 Continue\r\n\r\n", 25))
        return false;
    bool infer = strncmp(chunk, "POST", 4) == 0, root = strncmp(chunk, "GET /v2 ", 8) == 0;
    while (got < body) {
        ssize_t n = recv(fd, chunk, body - got < CHUNK ? body - got : CHUNK, 0);
        if (n <= 0)
            return false;
        got += (size_t)n;
    }
    return infer ? answer(fd, sink->answer, sink->answer_bytes)
                 : answer(fd, root ? server : model, strlen(root ? server : model));
}

static void *run_worker(void *context) {
    worker_t *worker = context;
    int fd = worker->sink->fds[worker->i];
    char *chunk = mbl_calloc(CHUNK, 1);
    while (chunk && serve(worker->sink, fd, chunk)) {
    }
    shutdown(fd, SHUT_RDWR);
    mbl_free(chunk);
    mbl_free(worker);
    return NULL;
}

/* Until the listener is shut down. */
static void *run_acceptor(void *context) {
    mbl_bench_sink_t *sink = context;
    while (sink->n < CONNECTIONS) {
        int fd = accept(sink->listener, NULL, NULL), one = 1;
        if (fd < 0)
            break;
        if (!sink->local)
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        worker_t *worker = mbl_calloc(1, sizeof *worker);
        if (worker)
            *worker = (worker_t){sink, sink->n};
        sink->fds[sink->n] = fd;
        if (!worker || pthread_create(&sink->workers[sink->n], NULL, run_worker, worker) != 0) {
            mbl_free(worker);
            close(fd);
            break;
        }
        sink->n++;
    }
    return NULL;
}

static mbl_status_t listen_local(mbl_bench_sink_t *sink) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *folder = getenv("TMPDIR");
    snprintf(sink->folder, sizeof sink->folder, "%.40s/marble-bench-XXXXXX",
             folder && *folder ? folder : "/tmp");
    if (!mkdtemp(sink->folder)) {
        sink->folder[0] = 0;
        return MBL_FAIL(MBL_ERR_IO, "bench: no folder for a socket can be made in %s",
                        folder ? folder : "/tmp");
    }
    snprintf(sink->path, sizeof sink->path, "%s/socket", sink->folder);
    snprintf(sink->url, sizeof sink->url, "unix:%s", sink->path);
    memcpy(address.sun_path, sink->path, sizeof sink->path);
    sink->listener = socket(AF_UNIX, SOCK_STREAM, 0);
    if (sink->listener < 0 || bind(sink->listener, (struct sockaddr *)&address, sizeof address) != 0)
        return MBL_FAIL(MBL_ERR_IO, "bench: no socket at %s", sink->path);
    return MBL_OK;
}

static mbl_status_t listen_tcp(mbl_bench_sink_t *sink) {
    socklen_t size = sizeof sink->address;
    sink->address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    sink->listener = socket(AF_INET, SOCK_STREAM, 0);
    if (sink->listener < 0 || bind(sink->listener, (struct sockaddr *)&sink->address, size) != 0 ||
        getsockname(sink->listener, (struct sockaddr *)&sink->address, &size) != 0)
        return MBL_FAIL(MBL_ERR_IO, "bench: no port of 127.0.0.1 can be had");
    snprintf(sink->url, sizeof sink->url, "http://127.0.0.1:%u", ntohs(sink->address.sin_port));
    return MBL_OK;
}

static void write_answer(mbl_bench_sink_t *sink, size_t images) {
    size_t n = (size_t)snprintf(
        sink->answer, ANSWER,
        "{\"outputs\":[{\"name\":\"scores\",\"datatype\":\"FP32\",\"shape\":[%zu],\"data\":[", images);
    for (size_t i = 0; i < images && n + 16 < ANSWER; i++)
        n += (size_t)snprintf(sink->answer + n, ANSWER - n, "%s0.5", i ? "," : "");
    n += (size_t)snprintf(sink->answer + n, ANSWER - n, "]}]}");
    sink->answer_bytes = n;
}

mbl_status_t mbl_bench_sink_open(bool local, size_t images, mbl_bench_sink_t **out) {
    mbl_bench_sink_t *sink;
    mbl_status_t status;
    MBL_ALLOC(sink, 1);
    sink->local = local;
    sink->listener = -1;
    write_answer(sink, images);
    MBL_TRY_GOTO(local ? listen_local(sink) : listen_tcp(sink), fail);
    if (listen(sink->listener, CONNECTIONS) != 0 ||
        pthread_create(&sink->acceptor, NULL, run_acceptor, sink) != 0) {
        status = MBL_FAIL(MBL_ERR_IO, "bench: %s cannot be listened on", sink->url);
        goto fail;
    }
    *out = sink;
    return MBL_OK;
fail:
    if (sink->listener >= 0)
        close(sink->listener);
    if (sink->folder[0])
        rmdir(sink->folder);
    mbl_free(sink);
    return status;
}

void mbl_bench_sink_close(mbl_bench_sink_t *sink) {
    if (!sink)
        return;
    shutdown(sink->listener, SHUT_RDWR);
    pthread_join(sink->acceptor, NULL);
    close(sink->listener);
    for (size_t i = 0; i < sink->n; i++) {
        shutdown(sink->fds[i], SHUT_RDWR);
        pthread_join(sink->workers[i], NULL);
        close(sink->fds[i]);
    }
    if (sink->folder[0]) {
        unlink(sink->path);
        rmdir(sink->folder);
    }
    mbl_free(sink);
}

const char *mbl_bench_sink_url(const mbl_bench_sink_t *sink) {
    return sink->url;
}

mbl_status_t mbl_bench_sink_connect(const mbl_bench_sink_t *sink, int *fd) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, sink->path, sizeof sink->path);
    int made = socket(sink->local ? AF_UNIX : AF_INET, SOCK_STREAM, 0), one = 1;
    int rc = made < 0      ? -1
             : sink->local ? connect(made, (struct sockaddr *)&address, sizeof address)
                           : connect(made, (const struct sockaddr *)&sink->address, sizeof sink->address);
    if (rc != 0) {
        if (made >= 0)
            close(made);
        return MBL_FAIL(MBL_ERR_IO, "bench: %s cannot be reached", sink->url);
    }
    if (!sink->local)
        setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    *fd = made;
    return MBL_OK;
}
