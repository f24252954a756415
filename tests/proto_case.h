/* Cases of the protocol tests: options and a batch from JSON, peers that have learned from given answers,
 * responses from text. */
#ifndef MBL_TESTS_PROTO_CASE_H
#define MBL_TESTS_PROTO_CASE_H

#include "support.h"

#include "base/mem.h"
#include "proto/codec.h"

#include <jansson.h>
#include <nettle/base64.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CASE_MAX = 80 };

/* Options and a batch, with what they point to. */
typedef struct {
    mbl_proto_options_t options;
    mbl_proto_batch_t batch;
    const char *outputs[CASE_MAX], *prompts[CASE_MAX], *metadata[CASE_MAX];
    const uint8_t *rgb[CASE_MAX];
    mbl_proto_piece_t encoded[CASE_MAX];
    uint8_t *pixels;
    json_t *json;
} proto_case_t;

static inline const char *text_or_null(const json_t *object, const char *key) {
    return json_string_value(json_object_get(object, key));
}

static inline size_t size_or_zero(const json_t *object, const char *key) {
    return (size_t)json_integer_value(json_object_get(object, key));
}

/* Fresh bytes of a text in base64; free with free(). */
static inline uint8_t *from_base64(const char *text, size_t *size) {
    struct base64_decode_ctx context;
    size_t length = strlen(text);
    uint8_t *bytes = malloc(BASE64_DECODE_LENGTH(length) + 1);
    assert_non_null(bytes);
    base64_decode_init(&context);
    *size = BASE64_DECODE_LENGTH(length);
    assert_true(base64_decode_update(&context, size, bytes, length, text));
    assert_true(base64_decode_final(&context));
    return bytes;
}

/* The images of all cases: byte c of pixel (x, y) of image i. make_proto.py has the same formula. */
static inline uint8_t case_pixel(size_t i, size_t y, size_t x, size_t c) {
    return (uint8_t)((i * 53 + y * 17 + x * 5 + c * 29) % 256);
}

static inline mbl_proto_images_t images_named(const char *name) {
    static const char *const names[] = {
#define CASE_NAME(text, id, help) text,
        MBL_PROTO_IMAGES_LIST(CASE_NAME)
#undef CASE_NAME
    };
    for (size_t i = 0; name && i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0)
            return (mbl_proto_images_t)i;
    return MBL_PROTO_IMAGES_AUTO;
}

static inline void read_judge(const json_t *json, mbl_proto_judge_t *judge) {
    *judge = (mbl_proto_judge_t){.question = text_or_null(json, "question"),
                                 .system = text_or_null(json, "system"),
                                 .pattern = text_or_null(json, "pattern"),
                                 .schema = text_or_null(json, "schema"),
                                 .field = text_or_null(json, "field"),
                                 .low = json_number_value(json_object_get(json, "low")),
                                 .high = json_number_value(json_object_get(json, "high")),
                                 .divide = json_number_value(json_object_get(json, "divide")),
                                 .votes = size_or_zero(json, "votes"),
                                 .temperature = json_number_value(json_object_get(json, "temperature")),
                                 .max_tokens = size_or_zero(json, "max_tokens")};
}

/* From {"options": {...}, "batch": {"n", "width", "height", "prompts", "metadata", "encoded"}}, which it
 * takes over. */
static inline void case_open(json_t *json, proto_case_t *out) {
    *out = (proto_case_t){.json = json};
    const json_t *options = json_object_get(json, "options"), *batch = json_object_get(json, "batch");
    const json_t *outputs = json_object_get(options, "outputs");
    const char *wire = text_or_null(options, "wire");
    for (size_t i = 0; i < json_array_size(outputs); i++)
        out->outputs[i] = json_string_value(json_array_get(outputs, i));
    out->options = (mbl_proto_options_t){.codec = text_or_null(options, "codec"),
                                         .model = text_or_null(options, "model"),
                                         .version = text_or_null(options, "version"),
                                         .outputs = out->outputs,
                                         .n_outputs = json_array_size(outputs),
                                         .wire = !wire                       ? MBL_PROTO_WIRE_AUTO
                                                 : strcmp(wire, "json") == 0 ? MBL_PROTO_WIRE_JSON
                                                                             : MBL_PROTO_WIRE_BINARY,
                                         .images = images_named(text_or_null(options, "images")),
                                         .image_input = text_or_null(options, "image_input"),
                                         .width = size_or_zero(batch, "width"),
                                         .height = size_or_zero(batch, "height")};
    read_judge(json_object_get(options, "judge"), &out->options.judge);
    size_t n = size_or_zero(batch, "n"), width = out->options.width, height = out->options.height;
    assert_true(n <= CASE_MAX);
    out->pixels = malloc(n * width * height * 3 + 1);
    for (size_t i = 0; i < n; i++) {
        uint8_t *at = out->pixels + i * width * height * 3;
        out->rgb[i] = at;
        for (size_t p = 0; p < width * height; p++)
            for (size_t c = 0; c < 3; c++)
                at[3 * p + c] = case_pixel(i, p / width, p % width, c);
        out->prompts[i] = json_string_value(json_array_get(json_object_get(batch, "prompts"), i));
        out->metadata[i] = json_string_value(json_array_get(json_object_get(batch, "metadata"), i));
        const char *file = json_string_value(json_array_get(json_object_get(batch, "encoded"), i));
        if (file)
            out->encoded[i].data = from_base64(file, &out->encoded[i].bytes);
    }
    out->batch = (mbl_proto_batch_t){.n = n,
                                     .width = width,
                                     .height = height,
                                     .rgb = out->rgb,
                                     .encoded = out->encoded,
                                     .prompts = out->prompts,
                                     .metadata = json_object_get(batch, "metadata") ? out->metadata : NULL};
}

static inline void case_open_text(const char *text, proto_case_t *out) {
    json_error_t error;
    json_t *json = json_loads(text, 0, &error);
    if (!json)
        fail_msg("a case's JSON is wrong: %s", error.text);
    case_open(json, out);
}

static inline void case_close(proto_case_t *it) {
    for (size_t i = 0; i < it->batch.n; i++)
        free((void *)it->encoded[i].data);
    free(it->pixels);
    json_decref(it->json);
}

static inline mbl_proto_response_t json_response(const char *body) {
    return (mbl_proto_response_t){.status = 200, .body = body, .body_bytes = strlen(body)};
}

/* The body of a request in one piece (with a zero after it); free with free(). */
static inline char *whole_body(const mbl_proto_request_t *request) {
    char *body = malloc(request->body_bytes + 1);
    assert_non_null(body);
    size_t at = 0;
    for (size_t i = 0; i < request->n_pieces; i++) {
        memcpy(body + at, request->pieces[i].data, request->pieces[i].bytes);
        at += request->pieces[i].bytes;
    }
    assert_int_equal(at, request->body_bytes);
    body[at] = 0;
    return body;
}

static inline void assert_text(const char *text, const char *part) {
    if (!strstr(text, part))
        fail_msg("found \"%s\"; expected \"%s\" in it", text, part);
}

/* A peer that has learned from the given bodies, each of status 200. */
static inline mbl_proto_peer_t *peer_of(const mbl_proto_options_t *options, const char *const *bodies) {
    mbl_proto_peer_t *peer;
    mbl_proto_error_t error = {0};
    assert_int_equal(mbl_proto_open(options, &peer), MBL_OK);
    for (size_t q = 0; q < mbl_proto_questions(peer); q++) {
        mbl_proto_response_t response = json_response(bodies[q]);
        if (mbl_proto_learn(peer, q, &response, &error) != MBL_OK)
            fail_msg("answer %zu: %s", q, error.text);
    }
    return peer;
}

#endif
