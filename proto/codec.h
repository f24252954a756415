/* Protocols that reward servers speak, without a socket: bytes in, bytes out. A codec makes the HTTP requests
 * that score a batch of images and reads the responses; who sends them, and when, is not its affair
 * (proto/http.h, src/reward).
 *
 * For each replica: mbl_proto_open makes a peer, which is one server and what it has said. mbl_proto_ask and
 * mbl_proto_learn carry the questions about its metadata, before any work. Then mbl_proto_request makes one
 * HTTP request for a batch of at most mbl_proto_max_batch images, and mbl_proto_response reads the scores
 * from what comes back.
 *
 * Once it has learned, a peer does not change: any number of threads may make requests and read responses,
 * each with a request and a result of its own. Those keep their memory from call to call; release them with
 * their _free.
 *
 * A response that cannot be used is no failure of the program: it returns MBL_ERR_REWARD, logs nothing, fills
 * *error and leaves no score behind. Nothing that a server sends can crash, or take more memory than the
 * limits below allow. */
#ifndef MBL_PROTO_CODEC_H
#define MBL_PROTO_CODEC_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Limits, each stated here once. The reader of a socket stops at the first two. */
enum {
    MBL_PROTO_BODY_MAX = 16 << 20,        /* bytes of a response, uncompressed */
    MBL_PROTO_HEADERS_MAX = 64,           /* headers of a response that are looked at */
    MBL_PROTO_JSON_DEPTH = 32,            /* nesting of arrays and objects */
    MBL_PROTO_JSON_VALUES = 1 << 18,      /* values in one JSON text */
    MBL_PROTO_BATCH_MAX = 4096,           /* images of a request */
    MBL_PROTO_OUTPUTS_MAX = 64,           /* rewards from one call */
    MBL_PROTO_VOTES_MAX = 16,             /* answers that a judge averages */
    MBL_PROTO_TENSORS_MAX = 1024,         /* inputs, or outputs, that a model lists or answers with */
    MBL_PROTO_REASON_MAX = 1000,          /* bytes kept of a reason; the rest is cut off */
    MBL_PROTO_TEXT_MAX = 1 << 20,         /* bytes of a prompt, or of an image's metadata */
    MBL_PROTO_IMAGES_BYTES_MAX = 1 << 30, /* bytes of all images of a request, before base64 or JSON */
    MBL_PROTO_RETRY_AFTER_MAX = 3600      /* seconds; a server that asks for more is taken to ask for this */
};

/* ---- what the user asks for ---- */

/* name in run.yaml, enum, for --help */
#define MBL_PROTO_IMAGES_LIST(X)                                                                             \
    X("auto", AUTO, "as the server asks; raw where it does not say")                                         \
    X("raw", RAW, "a tensor of bytes [N, H, W, 3]")                                                          \
    X("jpeg", JPEG, "a JPEG file for each image")                                                            \
    X("png", PNG, "a PNG file for each image")
typedef enum {
#define MBL_PROTO_IMAGES_ENUM(name, id, help) MBL_PROTO_IMAGES_##id,
    MBL_PROTO_IMAGES_LIST(MBL_PROTO_IMAGES_ENUM)
#undef MBL_PROTO_IMAGES_ENUM
} mbl_proto_images_t;

typedef enum { MBL_PROTO_WIRE_AUTO, MBL_PROTO_WIRE_BINARY, MBL_PROTO_WIRE_JSON } mbl_proto_wire_t;

/* A vision-language model as a judge (codec chat). One of `pattern` and `schema` says how its answer is read.
 */
typedef struct {
    const char *question; /* {prompt} and {metadata} are replaced; the image goes before it */
    const char *system;   /* a system message, or NULL */
    /* Perl-compatible; group 1 of its first match is the score: "Final Score:\\s*([1-5])" */
    const char *pattern;
    const char *schema; /* JSON schema that the answer follows; the score is its property `field` */
    const char *field;  /* NULL: "score" */
    double low, high;   /* of the number that the model writes; outside: failed. Both 0: no range */
    double divide;      /* score = number / divide; 0: 1 */
    size_t votes;       /* answers to average; 0: 1. More than 1 need a temperature above 0 */
    double temperature; /* 0: always the likeliest answer */
    size_t max_tokens;  /* of an answer; 0: 512 */
} mbl_proto_judge_t;

/* All of it is copied by mbl_proto_open; NULL and 0 mean the default. */
typedef struct {
    const char *codec;   /* oip (default), unirl, chat */
    const char *model;   /* oip: required; chat: NULL takes the one model served; unirl: none */
    const char *version; /* oip: version of the model, or NULL */
    /* [n_outputs] oip: output tensors, default "scores"; tensors X_valid BOOL [N] and X_reason BYTES [N] go
     * with X where the server has them, else `valid` and `reason`. unirl: rewards, "name" or "name.metric".
     * chat: none, there is one score. */
    const char *const *outputs;
    size_t n_outputs;
    mbl_proto_wire_t wire; /* oip: binary or JSON tensors; auto: binary where the server has the extension */
    mbl_proto_images_t images;
    const char *image_input, *prompt_input, *metadata_input; /* oip: "images", "prompts", "metadata" */
    size_t width, height; /* of the run's images, to be checked against the server's metadata; 0: not known */
    mbl_proto_judge_t judge; /* chat */
} mbl_proto_options_t;

/* ---- HTTP, as bytes ---- */

typedef struct {
    const char *name, *value;
} mbl_proto_header_t;
typedef struct {
    const void *data;
    size_t bytes;
} mbl_proto_piece_t;

/* To send. Everything belongs to the request and lives until its next use, except pieces that point at the
 * caller's images and prompts, which must stay in place until it is sent. Set it to {0} before its first use.
 */
typedef struct mbl_proto_store mbl_proto_store_t;
typedef struct {
    const char *method; /* "GET" or "POST" */
    /* Begins with '/'; appended to the replica's URL without its trailing slashes. The URL of a chat server
     * ends in /v1, as in OpenAI's clients. */
    const char *path;
    /* Besides Host, Content-Length, Authorization and what concerns the connection. */
    const mbl_proto_header_t *headers;
    size_t n_headers;
    const mbl_proto_piece_t *pieces; /* the body, in order */
    size_t n_pieces, body_bytes;
    mbl_proto_store_t *store;
} mbl_proto_request_t;
void mbl_proto_request_free(mbl_proto_request_t *request);

/* Received. Header names in any case; of several with one name the first counts. */
typedef struct {
    int status;
    const mbl_proto_header_t *headers;
    size_t n_headers;
    const void *body; /* uncompressed */
    size_t body_bytes;
} mbl_proto_response_t;

/* ---- what can be wrong with a response ---- */

/* kind, name in metrics, whether the same request may succeed later or at another replica, what it means */
#define MBL_PROTO_ERROR_LIST(X)                                                                              \
    X(NONE, "none", false, "nothing is wrong")                                                               \
    X(REFUSED, "refused", false, "the server refuses such a request (other HTTP 4xx, 501, 505)")             \
    X(DENIED, "denied", false, "the server wants a token, or another one (HTTP 401, 403)")                   \
    X(ABSENT, "absent", false, "the server has no such address or model (HTTP 404)")                         \
    X(BUSY, "busy", true, "the server asks to come back later (HTTP 408, 425, 429, 503)")                    \
    X(SERVER, "server", true, "the server failed (other HTTP 5xx, or an error in its answer)")               \
    X(MALFORMED, "malformed", true, "the response is not what the protocol says")                            \
    X(MISMATCH, "mismatch", false, "the response is well formed, and not what was asked for")                \
    X(LIMIT, "limit", false, "the response is larger or deeper than marble reads")
typedef enum {
#define MBL_PROTO_ERROR_ENUM(kind, name, again, text) MBL_PROTO_ERROR_##kind,
    MBL_PROTO_ERROR_LIST(MBL_PROTO_ERROR_ENUM)
#undef MBL_PROTO_ERROR_ENUM
        MBL_PROTO_ERROR_COUNT
} mbl_proto_error_kind_t;

enum { MBL_PROTO_ERROR_TEXT = 512 };
typedef struct {
    mbl_proto_error_kind_t kind;
    int http_status;    /* 0 when the status was not the trouble */
    double retry_after; /* seconds that the server asks for; 0: it does not say */
    /* What was found and what was expected, the server's message; one line of printable UTF-8. */
    char text[MBL_PROTO_ERROR_TEXT];
} mbl_proto_error_t;
const char *mbl_proto_error_name(mbl_proto_error_kind_t kind);
bool mbl_proto_error_again(mbl_proto_error_kind_t kind);

/* ---- a batch and its scores ---- */

typedef struct {
    size_t n;             /* 1 .. max_batch */
    size_t width, height; /* of every image */
    /* [n] pointers to [height, width, 3], where the peer wants RAW. Images that follow one another in memory
     * become one piece. */
    const uint8_t *const *rgb;
    const mbl_proto_piece_t *encoded; /* [n] files; where peer wants JPEG or PNG */
    const char *const *prompts;       /* [n] UTF-8 */
    const char *const *metadata; /* [n] JSON texts, NULL for none ("{}" is sent); or NULL for none at all */
} mbl_proto_batch_t;

/* As mbl_score_state_t of reward/reward.h, with the same values. */
typedef enum { MBL_PROTO_VALID = 0, MBL_PROTO_NA = 1, MBL_PROTO_FAILED = 2 } mbl_proto_state_t;

/* Set it to {0} before its first use. */
typedef struct {
    size_t n, outputs;
    const float *scores; /* [outputs, n]; finite, 0 unless valid */
    /* [outputs, n] mbl_proto_state_t: NaN, infinities and numbers beyond a float are failed. */
    const uint8_t *states;
    const char **reasons; /* [outputs, n] printable UTF-8, NULL where there is none */
    mbl_proto_store_t *store;
} mbl_proto_result_t;
void mbl_proto_result_free(mbl_proto_result_t *result);

/* ---- a peer ---- */

/* name, one line about it, for listings; NULL past the end */
const char *mbl_proto_name(size_t i);
const char *mbl_proto_help(size_t i);

typedef struct mbl_proto_peer mbl_proto_peer_t;
/* Errors: ERR_CONFIG with the option, what was found and what is expected. Close with mbl_proto_close; NULL
 * is fine there. */
mbl_status_t mbl_proto_open(const mbl_proto_options_t *options, mbl_proto_peer_t **out);
void mbl_proto_close(mbl_proto_peer_t *peer);

/* How many questions about the server's metadata there are, and the q-th of them. */
size_t mbl_proto_questions(const mbl_proto_peer_t *peer);
mbl_status_t mbl_proto_ask(const mbl_proto_peer_t *peer, size_t q, mbl_proto_request_t *request);
/* Its answer. The last question's answer completes the check of everything that was asked for against
 * everything the server has said: ERR_REWARD with *error says what the server wants. Asking again from
 * question 0 learns anew (a restarted server): no other thread may use the peer meanwhile, and no request can
 * be made until the last answer. */
mbl_status_t mbl_proto_learn(mbl_proto_peer_t *peer, size_t q, const mbl_proto_response_t *response,
                             mbl_proto_error_t *error);

/* After the last question. The most images of a request; what the batch must hold (never AUTO); one line
 * about the server and how it is spoken to. */
size_t mbl_proto_max_batch(const mbl_proto_peer_t *peer);
mbl_proto_images_t mbl_proto_images(const mbl_proto_peer_t *peer);
const char *mbl_proto_describe(const mbl_proto_peer_t *peer);
/* Scores of one image: n_outputs, or 1; the name of each. */
size_t mbl_proto_outputs(const mbl_proto_peer_t *peer);
const char *mbl_proto_output(const mbl_proto_peer_t *peer, size_t i);

/* The request that scores a batch. Errors: ERR_ARG for a batch that the peer cannot take (says which image or
 * prompt), ERR_MEM. */
mbl_status_t mbl_proto_request(const mbl_proto_peer_t *peer, const mbl_proto_batch_t *batch,
                               mbl_proto_request_t *request);
/* Reads the scores of n images. Errors: ERR_REWARD with *error, ERR_MEM. */
mbl_status_t mbl_proto_response(const mbl_proto_peer_t *peer, size_t n, const mbl_proto_response_t *response,
                                mbl_proto_result_t *result, mbl_proto_error_t *error);

#endif
