/* What the codecs share: the table they fill, the peer, and how requests and results are put together. */
#ifndef MBL_PROTO_PEER_H
#define MBL_PROTO_PEER_H

#include "proto/codec.h"
#include "proto/json.h"
#include "proto/text.h"

enum { MBL_PROTO_REQUEST_HEADERS = 4, MBL_PROTO_DESCRIPTION = 512 };

/* Memory of a request or a result, kept from call to call. */
struct mbl_proto_store {
    mbl_proto_text_t text, path, scratch;
    mbl_proto_piece_t *pieces; /* data NULL: the next bytes of text that no earlier piece has */
    size_t n_pieces, pieces_room, text_in_pieces; /* bytes of text that pieces have */
    mbl_proto_header_t headers[MBL_PROTO_REQUEST_HEADERS];
    size_t n_headers;
    char header_length[24];
    bool failed;
    float *scores;
    uint8_t *states;
    const char **reasons;
    size_t *reason_at; /* [outputs, n] offset in text + 1; 0: none */
    size_t n, outputs, room;
};
typedef mbl_proto_store_t store_t;

/* A codec: how one protocol is spoken. Every slot is required. */
typedef struct {
    const char *name, *help;
    size_t questions;
    /* The question that a server which is not ready yet answers with HTTP 400, though it may become ready;
     * SIZE_MAX: none. */
    size_t ready_question;
    /* What the first question's HTTP 404 may come from: "expected ..." */
    const char *absent;
    /* Checks the options and makes peer->self, which `close` frees (NULL is fine there). */
    mbl_status_t (*open)(const mbl_proto_options_t *options, mbl_proto_peer_t *peer);
    void (*close)(void *self);
    /* Puts the path of question q, a GET. */
    void (*ask)(const mbl_proto_peer_t *peer, size_t q, mbl_proto_text_t *path);
    /* Reads a response of status 200. The last one sets max_batch, images and description. */
    mbl_status_t (*learn)(mbl_proto_peer_t *peer, size_t q, const mbl_proto_response_t *response,
                          mbl_proto_error_t *error);
    /* Puts path, headers and pieces of a batch that has been checked. */
    mbl_status_t (*request)(const mbl_proto_peer_t *peer, const mbl_proto_batch_t *batch, store_t *store);
    /* Fills a result of [outputs, n] that begins as all failed, from a response of status 200. */
    mbl_status_t (*response)(const mbl_proto_peer_t *peer, const mbl_proto_response_t *response,
                             store_t *result, mbl_proto_error_t *error);
} mbl_codec_t;
extern const mbl_codec_t mbl_codec_oip, mbl_codec_unirl, mbl_codec_chat;

struct mbl_proto_peer {
    const mbl_codec_t *codec;
    void *self;
    char **outputs; /* [n_outputs] */
    size_t n_outputs;
    mbl_proto_images_t wanted; /* as the user asks */
    size_t width, height;
    size_t learned; /* questions answered, in order */
    /* set by the last answer */
    size_t max_batch;
    mbl_proto_images_t images;
    char description[MBL_PROTO_DESCRIPTION];
};

/* The memory behind `slot`, made at its first use and emptied; NULL without memory. */
store_t *mbl_proto_store_of(store_t **slot);
void mbl_proto_store_free(store_t *store);

/* What is asked of every response: its size and status 200; *error begins clean. */
mbl_status_t mbl_proto_check(const mbl_proto_response_t *response, mbl_proto_error_t *error);

/* ---- requests ---- */

/* A header with a value that lives as long as the peer or the program. */
void mbl_proto_add_header(store_t *store, const char *name, const char *value);
/* All of text that is in no piece yet becomes one; then bytes of the caller's, joined to the last piece where
 * they follow it. */
void mbl_proto_add_text(store_t *store);
void mbl_proto_add_bytes(store_t *store, const void *data, size_t bytes);
/* `text` with all but letters, digits and - . _ ~ escaped, as a part of a path. */
void mbl_proto_put_path(mbl_proto_text_t *path, const char *text);

/* ---- results ---- */

/* Sets score i of output k: failed where `value` is not finite or beyond a float. */
void mbl_proto_set_score(store_t *result, size_t k, size_t i, double value);
void mbl_proto_set_na(store_t *result, size_t k, size_t i);
/* A reason beside the state that it has. */
void mbl_proto_set_reason(store_t *result, size_t k, size_t i, const char *text, size_t size);

/* The value of a header, NULL without it. */
const char *mbl_proto_header(const mbl_proto_response_t *response, const char *name);

#endif
