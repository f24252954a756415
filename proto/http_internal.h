/* What the parts of the HTTP client share: http.c opens, submits and closes, http_loop.c is the client's
 * thread, http_call.c the bytes of one call and how it ends, http_options.c what libcurl is asked for. */
#ifndef MBL_PROTO_HTTP_INTERNAL_H
#define MBL_PROTO_HTTP_INTERNAL_H

#include "proto/http.h"

#include <curl/curl.h>
#include <uv.h>

enum { MBL_HTTP_TEXT = 320 };

struct mbl_http_call {
    mbl_http_call_t *next; /* in the queue, or among the free ones */
    mbl_http_t *http;
    CURL *easy;
    struct curl_slist *sent_headers;
    const mbl_proto_piece_t *pieces;
    size_t n_pieces, piece, offset; /* where the body has been read up to */
    mbl_http_done_t done;
    void *user;
    double start, seconds;
    char *body;
    size_t body_capacity;
    char *head; /* [HEADER_BYTES_MAX + 1] names and values, zero-terminated */
    size_t head_used, header_bytes;
    mbl_proto_header_t headers[MBL_PROTO_HEADERS_MAX];
    mbl_proto_response_t response;
    bool active, cancel, no_memory, oversize, in_headers, local; /* local: at a unix socket */
    bool tls, lasting; /* https was asked for; the same call would end so again */
    mbl_http_end_t end;
    char text[MBL_HTTP_TEXT], error[CURL_ERROR_SIZE];
};

struct mbl_http {
    uv_loop_t loop;
    uv_async_t wake;
    uv_timer_t timer;
    CURLM *multi;
    uv_thread_t thread;
    uv_mutex_t lock;                            /* guards all below, and every call's cancel */
    mbl_http_call_t *calls[MBL_HTTP_CALLS_MAX]; /* all that were ever made */
    size_t n_calls;
    mbl_http_call_t *free, *first, *last; /* the queue of submitted ones */
    bool closing;
    bool starved; /* a socket could not be watched; the client's thread alone looks at it */
};

/* ---- http_loop.c ---- */

/* Opens the loop and starts the client's thread on it; closing ends every call first. */
mbl_status_t mbl_http_loop_open(mbl_http_t *http, size_t connections);
void mbl_http_loop_close(mbl_http_t *http);

/* ---- http_call.c ---- */

/* The body to send, and the functions that libcurl calls for bytes in both directions. */
void mbl_http_set_bytes(mbl_http_call_t *call, const mbl_proto_request_t *request);
/* What libcurl's code says about a call, as its end and text. */
void mbl_http_set_end(mbl_http_call_t *call, CURLcode code);
/* Hands an ended call to its owner. */
void mbl_http_finish(mbl_http_call_t *call);

/* ---- http_options.c ---- */

/* A call as if it were new, with all that libcurl has to know of it. */
mbl_status_t mbl_http_prepare(mbl_http_call_t *call, const mbl_http_server_t *server,
                              const mbl_proto_request_t *request, double deadline);

#endif
