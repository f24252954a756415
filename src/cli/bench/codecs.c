/* marble bench codecs: what a request to a reward server costs before it is sent, and its response once it
 * has come, for 64 images of 512 x 512: processor time beside the network. */
#include "base/mem.h"
#include "cli/bench/bench.h"
#include "cli/bench/images.h"
#include "proto/codec.h"

#include <stdio.h>
#include <string.h>

enum { IMAGES = MBL_BENCH_IMAGES, FILE_BYTES = 400000, BODY = 64 << 10 };

/* A protocol with a server's answers about itself, and images in the form it takes. */
typedef struct {
    const char *name;
    mbl_proto_options_t options;
    const char *answers[3];
    size_t images;
} codec_case_t;

typedef struct {
    mbl_proto_peer_t *peer;
    mbl_proto_batch_t batch;
    mbl_proto_request_t request;
    mbl_proto_response_t response;
    mbl_proto_result_t result;
    mbl_proto_error_t error;
} exchange_t;

static mbl_status_t run_request(void *context) {
    exchange_t *exchange = context;
    return mbl_proto_request(exchange->peer, &exchange->batch, &exchange->request);
}

static mbl_status_t run_response(void *context) {
    exchange_t *exchange = context;
    mbl_status_t status =
        mbl_proto_response(exchange->peer, IMAGES, &exchange->response, &exchange->result, &exchange->error);
    return status == MBL_ERR_REWARD ? MBL_FAIL(MBL_ERR_INTERNAL, "bench codecs: %s", exchange->error.text)
                                    : status;
}

static mbl_status_t open_peer(const codec_case_t *one, mbl_proto_peer_t **out) {
    mbl_proto_error_t error;
    MBL_TRY(mbl_proto_open(&one->options, out));
    for (size_t q = 0; q < mbl_proto_questions(*out); q++) {
        mbl_proto_response_t response = {
            .status = 200, .body = one->answers[q], .body_bytes = strlen(one->answers[q])};
        mbl_status_t status = mbl_proto_learn(*out, q, &response, &error);
        if (status != MBL_OK)
            return status == MBL_ERR_REWARD ? MBL_FAIL(MBL_ERR_INTERNAL, "bench codecs: %s", error.text)
                                            : status;
    }
    return MBL_OK;
}

/* Bytes of a request that were written for it, instead of taken from where the images lie. */
static double copied(const exchange_t *exchange, const uint8_t *pixels) {
    size_t bytes = 0;
    for (size_t i = 0; i < exchange->request.n_pieces; i++) {
        const uint8_t *data = exchange->request.pieces[i].data;
        bool lies_there = data >= pixels && data < pixels + (size_t)IMAGES * MBL_BENCH_PIXELS;
        bytes += lies_there ? 0 : exchange->request.pieces[i].bytes;
    }
    return (double)bytes;
}

static mbl_status_t time_request(const mbl_bench_t *bench, const codec_case_t *one,
                                 const mbl_proto_batch_t *batch, const uint8_t *pixels) {
    exchange_t exchange = {.batch = *batch};
    mbl_bench_time_t time;
    mbl_status_t status;
    char what[60];
    exchange.batch.n = one->images;
    MBL_TRY_GOTO(open_peer(one, &exchange.peer), done);
    MBL_TRY_GOTO(mbl_bench_measure(bench, run_request, &exchange, &time), done);
    snprintf(what, sizeof what, "%s request", one->name);
    const mbl_bench_figure_t figures[] = {{.name = "images", .value = (double)one->images},
                                          {.name = "bytes", .value = (double)exchange.request.body_bytes},
                                          {.name = "bytes_copied", .value = copied(&exchange, pixels)}};
    status = mbl_bench_print(bench, "codecs", what, &time, figures, 3);
done:
    mbl_proto_request_free(&exchange.request);
    mbl_proto_close(exchange.peer);
    return status;
}

/* A response with IMAGES scores, which are valid or not for a reason; returns its bytes. */
static size_t make_response(bool binary, char *body, char *header, size_t room) {
    static const char reason[] = "four red circles found";
    size_t n = 0;
    const char *forms[] = {"\"FP32\"", "\"BOOL\"", "\"BYTES\""}, *names[] = {"scores", "valid", "reason"};
    const size_t sizes[] = {4 * IMAGES, IMAGES, IMAGES * (4 + sizeof reason - 1)};
    n += (size_t)snprintf(body, BODY, "{\"model_name\":\"m\",\"model_version\":\"1\",\"outputs\":[");
    for (int t = 0; t < 3; t++) {
        n += (size_t)snprintf(body + n, BODY - n, "%s{\"name\":\"%s\",\"datatype\":%s,\"shape\":[%d],",
                              t ? "," : "", names[t], forms[t], IMAGES);
        if (binary) {
            n += (size_t)snprintf(body + n, BODY - n, "\"parameters\":{\"binary_data_size\":%zu}}", sizes[t]);
            continue;
        }
        n += (size_t)snprintf(body + n, BODY - n, "\"data\":[");
        for (int i = 0; i < IMAGES; i++)
            n += (size_t)(t == 0 ? snprintf(body + n, BODY - n, "%s%.6f", i ? "," : "", 0.013 * i)
                          : t == 1
                              ? snprintf(body + n, BODY - n, "%s%s", i ? "," : "", i % 4 ? "true" : "false")
                              : snprintf(body + n, BODY - n, "%s\"%s\"", i ? "," : "", reason));
        n += (size_t)snprintf(body + n, BODY - n, "]}");
    }
    n += (size_t)snprintf(body + n, BODY - n, "]}");
    snprintf(header, room, "%zu", n);
    for (int i = 0; binary && i < 4 * IMAGES; i++) /* 0.5 in FP32 */
        body[n++] = i % 4 == 3 ? 0x3f : 0;
    for (int i = 0; binary && i < IMAGES; i++)
        body[n++] = i % 4 != 0;
    for (int i = 0; binary && i < IMAGES; i++) {
        memcpy(body + n, (const char[]){sizeof reason - 1, 0, 0, 0}, 4);
        memcpy(body + n + 4, reason, sizeof reason - 1);
        n += 4 + sizeof reason - 1;
    }
    return n;
}

static mbl_status_t time_response(const mbl_bench_t *bench, const codec_case_t *one, bool binary) {
    exchange_t exchange = {.peer = NULL};
    mbl_bench_time_t time;
    mbl_status_t status;
    char what[60], length[24], *body = NULL;
    MBL_TRY_GOTO(open_peer(one, &exchange.peer), done);
    MBL_ALLOC_GOTO(body, BODY, done);
    size_t bytes = make_response(binary, body, length, sizeof length);
    mbl_proto_header_t header = {"Inference-Header-Content-Length", length};
    exchange.response = (mbl_proto_response_t){
        .status = 200, .headers = &header, .n_headers = binary, .body = body, .body_bytes = bytes};
    MBL_TRY_GOTO(mbl_bench_measure(bench, run_response, &exchange, &time), done);
    snprintf(what, sizeof what, "%s response", one->name);
    const mbl_bench_figure_t figures[] = {{.name = "images", .value = IMAGES},
                                          {.name = "bytes", .value = (double)bytes}};
    status = mbl_bench_print(bench, "codecs", what, &time, figures, 2);
done:
    mbl_free(body);
    mbl_proto_result_free(&exchange.result);
    mbl_proto_close(exchange.peer);
    return status;
}

mbl_status_t mbl_bench_codecs(const mbl_bench_t *bench) {
    static const char *const rewards[] = {"pickscore"};
    static const char binary_server[] = "{\"name\":\"x\",\"extensions\":[\"binary_tensor_data\"]}",
                      json_server[] = "{\"name\":\"x\"}";
    static const codec_case_t cases[] = {
        {"oip binary", {.codec = "oip", .model = "m"}, {binary_server, "", "{}"}, IMAGES},
        {"oip JSON", {.codec = "oip", .model = "m"}, {json_server, "", "{}"}, IMAGES},
        {"unirl",
         {.codec = "unirl", .outputs = rewards, .n_outputs = 1},
         {"{\"rewards\":[\"pickscore\"]}", NULL, NULL},
         IMAGES},
        {"chat",
         {.codec = "chat", .judge = {.question = "{prompt}", .pattern = "(\\d)"}},
         {"{\"data\":[{\"id\":\"m\"}]}", NULL, NULL},
         1},
    };
    mbl_bench_images_t images;
    mbl_proto_piece_t files[IMAGES];
    mbl_status_t status = MBL_OK;
    MBL_TRY(mbl_bench_images_make(&images));
    for (size_t i = 0; i < IMAGES; i++)
        files[i] = (mbl_proto_piece_t){images.rgb[i], FILE_BYTES};
    mbl_proto_batch_t batch = {.width = MBL_BENCH_SIDE,
                               .height = MBL_BENCH_SIDE,
                               .rgb = images.rgb,
                               .encoded = files,
                               .prompts = images.prompts};
    for (size_t i = 0; status == MBL_OK && i < sizeof cases / sizeof *cases; i++)
        status = time_request(bench, &cases[i], &batch, images.pixels);
    for (size_t i = 0; status == MBL_OK && i < 2; i++)
        status = time_response(bench, &cases[i], i == 0);
    mbl_bench_images_free(&images);
    return status;
}
