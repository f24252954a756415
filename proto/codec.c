/* The table of codecs, and what all of them have in common: checks, memory, HTTP statuses. */
#include "proto/codec.h"
#include "base/mem.h"
#include "base/suggest.h"
#include "proto/peer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const mbl_codec_t *const the_codecs[] = {&mbl_codec_oip, &mbl_codec_unirl, &mbl_codec_chat};
enum { CODECS = sizeof the_codecs / sizeof *the_codecs };

const char *mbl_proto_name(size_t i) {
    return i < CODECS ? the_codecs[i]->name : NULL;
}

const char *mbl_proto_help(size_t i) {
    return i < CODECS ? the_codecs[i]->help : NULL;
}

const char *mbl_proto_error_name(mbl_proto_error_kind_t kind) {
    static const char *const names[] = {
#define NAME(id, name, again, text) name,
        MBL_PROTO_ERROR_LIST(NAME)
#undef NAME
    };
    return (unsigned)kind < MBL_PROTO_ERROR_COUNT ? names[kind] : "unknown";
}

bool mbl_proto_error_again(mbl_proto_error_kind_t kind) {
    static const bool agains[] = {
#define AGAIN(id, name, again, text) again,
        MBL_PROTO_ERROR_LIST(AGAIN)
#undef AGAIN
    };
    return (unsigned)kind < MBL_PROTO_ERROR_COUNT && agains[kind];
}

/* ---- peers ---- */

static mbl_status_t find_codec(const char *name, const mbl_codec_t **out) {
    const char *near = NULL;
    size_t distance = 0;
    for (size_t i = 0; i < CODECS; i++) {
        if (!name || strcmp(name, the_codecs[i]->name) == 0) {
            *out = the_codecs[i];
            return MBL_OK;
        }
        mbl_suggest(name, the_codecs[i]->name, &near, &distance);
    }
    return MBL_FAIL(MBL_ERR_CONFIG, "protocol: %.60s; expected oip, unirl or chat%s%s%s", name,
                    near ? " (did you mean " : "", near ? near : "", near ? "?)" : "");
}

static mbl_status_t copy_outputs(const mbl_proto_options_t *options, mbl_proto_peer_t *peer) {
    static const char *const usual[] = {"scores"};
    const char *const *names = options->n_outputs ? options->outputs : usual;
    size_t n = options->n_outputs ? options->n_outputs : 1;
    if (n > MBL_PROTO_OUTPUTS_MAX)
        return MBL_FAIL(MBL_ERR_CONFIG, "outputs: %zu names; expected at most %d", n, MBL_PROTO_OUTPUTS_MAX);
    MBL_ALLOC(peer->outputs, n);
    for (size_t i = 0; i < n; i++) {
        if (!names[i] || !*names[i] || strlen(names[i]) > 200 ||
            !mbl_proto_is_utf8(names[i], strlen(names[i])))
            return MBL_FAIL(MBL_ERR_CONFIG,
                            "outputs: name %zu is empty, not UTF-8, or has over 200 bytes; expected a name",
                            i + 1);
        for (size_t j = 0; j < i; j++)
            if (strcmp(names[i], names[j]) == 0)
                return MBL_FAIL(MBL_ERR_CONFIG, "outputs: %s is named twice", names[i]);
        peer->outputs[i] = mbl_strdup(names[i]);
        if (!peer->outputs[i])
            return MBL_FAIL(MBL_ERR_MEM, "no memory for the names of outputs");
        peer->n_outputs = i + 1;
    }
    return MBL_OK;
}

mbl_status_t mbl_proto_open(const mbl_proto_options_t *options, mbl_proto_peer_t **out) {
    MBL_REQUIRE(options && out, "mbl_proto_open: no options, or nowhere to put the peer");
    const mbl_codec_t *codec = NULL;
    MBL_TRY(find_codec(options->codec, &codec));
    mbl_proto_peer_t *peer;
    MBL_ALLOC(peer, 1);
    peer->codec = codec;
    peer->wanted = options->images;
    peer->width = options->width;
    peer->height = options->height;
    mbl_status_t status;
    MBL_TRY_GOTO(copy_outputs(options, peer), fail);
    MBL_TRY_GOTO(codec->open(options, peer), fail);
    *out = peer;
    return MBL_OK;
fail:
    mbl_proto_close(peer);
    return status;
}

void mbl_proto_close(mbl_proto_peer_t *peer) {
    if (!peer)
        return;
    if (peer->self)
        peer->codec->close(peer->self);
    for (size_t i = 0; i < peer->n_outputs; i++)
        mbl_free(peer->outputs[i]);
    mbl_free(peer->outputs);
    mbl_free(peer);
}

size_t mbl_proto_questions(const mbl_proto_peer_t *peer) {
    return peer->codec->questions;
}

size_t mbl_proto_max_batch(const mbl_proto_peer_t *peer) {
    return peer->max_batch;
}

mbl_proto_images_t mbl_proto_images(const mbl_proto_peer_t *peer) {
    return peer->images;
}

const char *mbl_proto_describe(const mbl_proto_peer_t *peer) {
    return peer->description;
}

size_t mbl_proto_outputs(const mbl_proto_peer_t *peer) {
    return peer->n_outputs;
}

const char *mbl_proto_output(const mbl_proto_peer_t *peer, size_t i) {
    return i < peer->n_outputs ? peer->outputs[i] : NULL;
}

/* ---- HTTP ---- */

const char *mbl_proto_header(const mbl_proto_response_t *response, const char *name) {
    size_t n = response->n_headers < MBL_PROTO_HEADERS_MAX ? response->n_headers : MBL_PROTO_HEADERS_MAX;
    for (size_t i = 0; i < n; i++)
        if (strcasecmp(response->headers[i].name, name) == 0)
            return response->headers[i].value;
    return NULL;
}

/* The message of an error body: "error" of the Open Inference Protocol, "detail" of FastAPI, "error":
 * {"message"} of chat completions, or how the body begins. */
static void server_message(const mbl_proto_response_t *response, char *out, size_t room) {
    mbl_proto_error_t ignored;
    json_t *json = NULL;
    mbl_proto_printable("", 0, out, room);
    if (mbl_proto_json(response->body, response->body_bytes, "the error", &json, &ignored) == MBL_OK &&
        json_is_object(json)) {
        static const char *const keys[] = {"error", "detail", "message"};
        const json_t *value = NULL;
        for (size_t i = 0; !value && i < sizeof keys / sizeof *keys; i++)
            value = json_object_get(json, keys[i]);
        const json_t *inner = json_object_get(value, "message");
        value = inner ? inner : value;
        if (json_is_string(value))
            mbl_proto_printable(json_string_value(value), json_string_length(value), out, room);
        else if (value)
            mbl_proto_json_show(value, out, room);
    }
    json_decref(json);
    if (!*out)
        mbl_proto_printable(response->body, response->body_bytes, out, room < 200 ? room : 200);
}

static mbl_proto_error_kind_t kind_of_status(int status) {
    switch (status) {
    case 401:
    case 403:
        return MBL_PROTO_ERROR_DENIED;
    case 404:
        return MBL_PROTO_ERROR_ABSENT;
    case 408:
    case 425:
    case 429:
    case 503:
        return MBL_PROTO_ERROR_BUSY;
    case 501: /* the server does not do such a thing, and will not */
    case 505:
        return MBL_PROTO_ERROR_REFUSED;
    default:
        return status >= 500   ? MBL_PROTO_ERROR_SERVER
               : status >= 400 ? MBL_PROTO_ERROR_REFUSED
                               : MBL_PROTO_ERROR_MALFORMED;
    }
}

/* Whole seconds; a date, the header's other form, counts as none. */
static double retry_after(const mbl_proto_response_t *response) {
    const char *value = mbl_proto_header(response, "retry-after");
    if (!value || !*value || strspn(value, "0123456789") != strlen(value))
        return 0;
    double seconds = strtod(value, NULL);
    return seconds > MBL_PROTO_RETRY_AFTER_MAX ? MBL_PROTO_RETRY_AFTER_MAX : seconds;
}

static mbl_status_t check_status(const mbl_proto_response_t *response, mbl_proto_error_t *error) {
    if (response->status == 200)
        return MBL_OK;
    char message[MBL_PROTO_ERROR_TEXT - 100];
    server_message(response, message, sizeof message);
    mbl_proto_error_kind_t kind = kind_of_status(response->status);
    error->http_status = response->status;
    error->retry_after =
        kind == MBL_PROTO_ERROR_BUSY || kind == MBL_PROTO_ERROR_SERVER ? retry_after(response) : 0;
    const char *elsewhere = mbl_proto_header(response, "location");
    if (response->status >= 300 && response->status < 400 && elsewhere) {
        mbl_proto_printable(elsewhere, strlen(elsewhere), message, 200);
        return mbl_proto_fault(error, kind,
                               "HTTP %d: a redirect to %s, which is not followed, so that a token goes to no "
                               "other server; expected the address of the server itself as url",
                               response->status, message);
    }
    if (kind == MBL_PROTO_ERROR_MALFORMED)
        return mbl_proto_fault(error, kind, "HTTP %d; expected 200", response->status);
    return mbl_proto_fault(error, kind, "HTTP %d%s%s", response->status, *message ? ": " : "", message);
}

/* Before any codec sees it: what is asked of every response. */
mbl_status_t mbl_proto_check(const mbl_proto_response_t *response, mbl_proto_error_t *error) {
    *error = (mbl_proto_error_t){0};
    if (response->body_bytes > MBL_PROTO_BODY_MAX)
        return mbl_proto_fault(error, MBL_PROTO_ERROR_LIMIT, "the response has %zu bytes; marble reads %d",
                               response->body_bytes, MBL_PROTO_BODY_MAX);
    return check_status(response, error);
}

mbl_status_t mbl_proto_learn(mbl_proto_peer_t *peer, size_t q, const mbl_proto_response_t *response,
                             mbl_proto_error_t *error) {
    MBL_REQUIRE(peer && response && error, "mbl_proto_learn: no peer, response or error");
    MBL_REQUIRE(q < peer->codec->questions && q <= peer->learned,
                "mbl_proto_learn: answer %zu after %zu of %zu", q, peer->learned, peer->codec->questions);
    peer->learned = q; /* until this one is read */
    mbl_status_t status = mbl_proto_check(response, error);
    if (status == MBL_ERR_REWARD && q == peer->codec->ready_question && response->status == 400)
        return mbl_proto_fault(error, MBL_PROTO_ERROR_BUSY,
                               "the model is not ready, or the server has none of that name (HTTP 400)");
    if (status == MBL_ERR_REWARD && q == 0 && response->status == 404)
        return mbl_proto_fault(error, MBL_PROTO_ERROR_ABSENT, "HTTP 404; %s", peer->codec->absent);
    MBL_TRY(status);
    MBL_TRY(peer->codec->learn(peer, q, response, error));
    peer->learned = q + 1;
    return MBL_OK;
}
