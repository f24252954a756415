/* marble bench requests: batches to a reward server and their scores back, through the codec and the HTTP
 * client that a run uses: to one that answers at once, beside the time that the bytes alone take there, and
 * to that of --url. */
#include "cli/bench/bench.h"
#include "cli/bench/images.h"
#include "cli/bench/sink.h"
#include "proto/http.h"

#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { IMAGES = MBL_BENCH_IMAGES, SIDE = MBL_BENCH_SIDE, IN_FLIGHT = 4, DEADLINE = 60 };

typedef struct {
    mbl_http_t *http;
    mbl_http_server_t server;
    mbl_proto_peer_t *peer;
    mbl_proto_batch_t batch;
    size_t in_flight;
    mbl_proto_request_t requests[IN_FLIGHT];
    mbl_proto_result_t result;
    sem_t done;
    int raw; /* a connection of its own, or -1 */
} client_t;

static void on_done(void *user, mbl_http_call_t *call) {
    (void)call;
    sem_post(user);
}

/* Sends, waits, and has `read` look at the response. */
static mbl_status_t
await(client_t *client, mbl_http_call_t *call,
      mbl_status_t (*read)(client_t *, size_t, const mbl_proto_response_t *, mbl_proto_error_t *), size_t q) {
    mbl_proto_error_t error;
    if (mbl_http_end(call) != MBL_HTTP_ANSWERED)
        return MBL_FAIL(MBL_ERR_REWARD, "bench requests: %s: %s", client->server.url, mbl_http_text(call));
    mbl_status_t status = read(client, q, mbl_http_response(call), &error);
    return status == MBL_ERR_REWARD
               ? MBL_FAIL(status, "bench requests: %s: %s", client->server.url, error.text)
               : status;
}

static mbl_status_t read_answer(client_t *client, size_t q, const mbl_proto_response_t *response,
                                mbl_proto_error_t *error) {
    return mbl_proto_learn(client->peer, q, response, error);
}

static mbl_status_t read_scores(client_t *client, size_t q, const mbl_proto_response_t *response,
                                mbl_proto_error_t *error) {
    (void)q;
    return mbl_proto_response(client->peer, client->batch.n, response, &client->result, error);
}

static mbl_status_t learn(client_t *client) {
    for (size_t q = 0; q < mbl_proto_questions(client->peer); q++) {
        mbl_http_call_t *call;
        MBL_TRY(mbl_proto_ask(client->peer, q, &client->requests[0]));
        MBL_TRY(mbl_http_submit(client->http, &client->server, &client->requests[0], DEADLINE, on_done,
                                &client->done, &call));
        sem_wait(&client->done);
        mbl_status_t status = await(client, call, read_answer, q);
        mbl_http_free(call);
        MBL_TRY(status);
    }
    return MBL_OK;
}

/* `in_flight` batches at a time, until all are back. */
static mbl_status_t run_batches(void *context) {
    client_t *client = context;
    mbl_http_call_t *calls[IN_FLIGHT];
    mbl_status_t status = MBL_OK;
    size_t sent = 0;
    for (; sent < client->in_flight && status == MBL_OK; sent += status == MBL_OK) {
        status = mbl_proto_request(client->peer, &client->batch, &client->requests[sent]);
        if (status == MBL_OK)
            status = mbl_http_submit(client->http, &client->server, &client->requests[sent], DEADLINE,
                                     on_done, &client->done, &calls[sent]);
    }
    for (size_t i = 0; i < sent; i++)
        sem_wait(&client->done);
    for (size_t i = 0; i < sent; i++) {
        if (status == MBL_OK)
            status = await(client, calls[i], read_scores, 0);
        mbl_http_free(calls[i]);
    }
    return status;
}

/* The same bytes as one batch, written to a socket by this thread and nothing else. */
static mbl_status_t run_raw(void *context) {
    client_t *client = context;
    const mbl_proto_request_t *request = &client->requests[0];
    char head[160], answer[16 << 10];
    int n = snprintf(head, sizeof head, "POST %.60s HTTP/1.1\r\nContent-Length: %zu\r\n\r\n", request->path,
                     request->body_bytes);
    bool good = send(client->raw, head, (size_t)n, MSG_NOSIGNAL) == n;
    for (size_t i = 0; i < request->n_pieces; i++)
        for (size_t at = 0; good && at < request->pieces[i].bytes;) {
            ssize_t k = send(client->raw, (const char *)request->pieces[i].data + at,
                             request->pieces[i].bytes - at, MSG_NOSIGNAL);
            good = k > 0;
            at += good ? (size_t)k : 0;
        }
    for (size_t got = 0; good && !(got >= 4 && memcmp(answer + got - 4, "]}]}", 4) == 0);) {
        ssize_t k = got < sizeof answer ? recv(client->raw, answer + got, sizeof answer - got, 0) : -1;
        good = k > 0;
        got += good ? (size_t)k : 0;
    }
    return good ? MBL_OK
                : MBL_FAIL(MBL_ERR_IO, "bench requests: the connection to %s broke", client->server.url);
}

static mbl_status_t print_case(const mbl_bench_t *bench, const client_t *client, const char *what,
                               const mbl_bench_time_t *time, const double *added) {
    char name[120];
    double bytes = (double)(client->in_flight * client->requests[0].body_bytes);
    snprintf(name, sizeof name, "%s %zu image%s, %zu in flight", what, client->batch.n,
             client->batch.n > 1 ? "s" : "", client->in_flight);
    const mbl_bench_figure_t figures[] = {{.name = "bytes", .value = bytes},
                                          {.name = "gb_per_s", .value = 1e-9 * bytes / time->median},
                                          {.name = "added_ms", .value = added ? 1e3 * *added : 0}};
    return mbl_bench_print(bench, "requests", name, time, figures, added ? 3 : 2);
}

/* Batches of n images; where there is a raw connection, beside the time that it takes, in turn. */
static mbl_status_t time_batches(const mbl_bench_t *bench, client_t *client, const char *what, size_t n,
                                 size_t in_flight) {
    mbl_bench_case_t cases[] = {{run_batches, client, NULL}, {run_raw, client, NULL}};
    mbl_status_t status;
    bool raw = client->raw >= 0 && in_flight == 1;
    client->batch.n = n;
    client->in_flight = in_flight;
    MBL_TRY(mbl_proto_request(client->peer, &client->batch, &client->requests[0]));
    MBL_TRY_GOTO(mbl_bench_alternate(bench, cases, raw ? 2 : 1), done);
    mbl_bench_time_t time = mbl_bench_time(cases[0].seconds, bench->runs);
    double added = 0;
    if (raw) {
        mbl_bench_time_t alone = mbl_bench_time(cases[1].seconds, bench->runs);
        added = time.min - alone.min; /* what neither saw of other processes */
    }
    status = print_case(bench, client, what, &time, raw ? &added : NULL);
done:
    mbl_bench_forget(cases, raw ? 2 : 1);
    return status;
}

static mbl_status_t open_client(const char *url, const char *model, const mbl_proto_batch_t *batch,
                                client_t *client) {
    mbl_proto_options_t options = {
        .codec = "oip", .model = model, .width = SIDE, .height = SIDE, .images = MBL_PROTO_IMAGES_RAW};
    client->server.url = url;
    client->batch = *batch;
    MBL_TRY(mbl_proto_open(&options, &client->peer));
    MBL_TRY(mbl_http_open(IN_FLIGHT, &client->http));
    return learn(client);
}

static void close_client(client_t *client) {
    mbl_http_close(client->http);
    for (size_t i = 0; i < IN_FLIGHT; i++)
        mbl_proto_request_free(&client->requests[i]);
    mbl_proto_result_free(&client->result);
    mbl_proto_close(client->peer);
    if (client->raw >= 0)
        close(client->raw);
    sem_destroy(&client->done);
}

/* Batches of so many images, one by one and, where they are large, several at a time. */
static mbl_status_t time_server(const mbl_bench_t *bench, const char *what, const char *url,
                                const char *model, const mbl_bench_sink_t *sink, size_t images,
                                const mbl_proto_batch_t *batch) {
    client_t client = {.raw = -1};
    mbl_status_t status;
    sem_init(&client.done, 0, 0);
    MBL_TRY_GOTO(open_client(url, model, batch, &client), done);
    if (sink)
        MBL_TRY_GOTO(mbl_bench_sink_connect(sink, &client.raw), done);
    MBL_TRY_GOTO(time_batches(bench, &client, what, images, 1), done);
    if (images > 1)
        status = time_batches(bench, &client, what, images, IN_FLIGHT);
done:
    close_client(&client);
    return status;
}

mbl_status_t mbl_bench_requests(const mbl_bench_t *bench) {
    mbl_bench_images_t images;
    mbl_status_t status = MBL_OK;
    MBL_TRY(mbl_bench_images_make(&images));
    mbl_proto_batch_t batch = {.width = SIDE, .height = SIDE, .rgb = images.rgb, .prompts = images.prompts};
    static const struct {
        const char *name;
        bool local;
        size_t images;
    } sinks[] = {{"tcp", false, IMAGES}, {"unix", true, IMAGES}, {"tcp", false, 1}, {"unix", true, 1}};
    for (size_t i = 0; i < sizeof sinks / sizeof *sinks && status == MBL_OK; i++) {
        mbl_bench_sink_t *sink = NULL;
        status = mbl_bench_sink_open(sinks[i].local, sinks[i].images, &sink);
        if (status == MBL_OK)
            status = time_server(bench, sinks[i].name, mbl_bench_sink_url(sink), "m", sink, sinks[i].images,
                                 &batch);
        mbl_bench_sink_close(sink);
    }
    if (status == MBL_OK && bench->url)
        status = time_server(bench, "url", bench->url, bench->model, NULL, IMAGES, &batch);
    mbl_bench_images_free(&images);
    return status;
}
