/* HTTP for the codecs: requests go out and responses come back on a thread of its own. The one file with
 * sockets (libcurl's multi interface on a libuv loop).
 *
 * Bodies are sent from where they lie. A response is bounded in bytes, headers and time; redirects are not
 * followed, so that a body and a token reach the configured server and no other. */
#ifndef MBL_PROTO_HTTP_H
#define MBL_PROTO_HTTP_H

#include "proto/codec.h"

/* end, name in metrics, what it means */
#define MBL_HTTP_END_LIST(X)                                                                                 \
    X(ANSWERED, "answered", "a whole response, of any HTTP status")                                          \
    X(CONNECT, "connect", "the server cannot be reached")                                                    \
    X(TLS, "tls", "one side does not trust the other's certificate, or they agree on no encryption")         \
    X(DEADLINE, "deadline", "no whole response within the deadline")                                         \
    X(CUT, "cut", "the connection ended before the response did")                                            \
    X(OVERSIZE, "oversize", "the response is larger than marble reads")                                      \
    X(GARBAGE, "garbage", "the response is not HTTP")                                                        \
    X(CANCELLED, "cancelled", "marble itself took it back")                                                  \
    X(LOCAL, "local", "this side had no memory or no socket for it")
typedef enum {
#define MBL_HTTP_END_ENUM(id, name, text) MBL_HTTP_##id,
    MBL_HTTP_END_LIST(MBL_HTTP_END_ENUM)
#undef MBL_HTTP_END_ENUM
        MBL_HTTP_ENDS
} mbl_http_end_t;
const char *mbl_http_end_name(mbl_http_end_t end);

enum {
    MBL_HTTP_HEADER_BYTES_MAX = 64 << 10, /* of all headers of a response, those of 1xx included */
    MBL_HTTP_CALLS_MAX = 1024             /* under way in one client */
};

typedef struct mbl_http mbl_http_t;
typedef struct mbl_http_call mbl_http_call_t;

/* Whom to call. The strings stay the caller's and live as long as calls to it do. */
typedef struct {
    const char *url; /* http://HOST[:PORT][/BASE], https://..., or unix:/PATH/OF/SOCKET */
    const char *ca;  /* PEM file of certificates to trust instead of the system's; NULL: the system's */
    const char *cert, *key; /* PEM files of this side's own certificate and its key; NULL: none */
    const char *token;      /* sent as Authorization: Bearer; NULL: none. Never logged */
} mbl_http_server_t;

/* Whether a URL is one of the three kinds; if not, what is wrong with it ("has no host") goes to *why. */
bool mbl_http_url_valid(const char *url, const char **why);

/* Runs on the client's thread, once for every call that was submitted. It may look at the call, hand it to
 * another thread, submit others and cancel; it must not wait. */
typedef void (*mbl_http_done_t)(void *user, mbl_http_call_t *call);

/* A client with its thread. `connections`: how many are kept open for later. Close with mbl_http_close. */
mbl_status_t mbl_http_open(size_t connections, mbl_http_t **out);
/* Cancels what is under way, waits until every call's `done` has run, ends the thread and frees all calls.
 * NULL is fine. */
void mbl_http_close(mbl_http_t *http);

/* Sends a request. *request with its pieces, and what they point at, must stay in place until `done` runs;
 * the rest is copied. `deadline`: seconds until the whole response must be there. *out (NULL: not wanted)
 * stays valid until mbl_http_free. Errors: ERR_ARG for a bad url or header, ERR_MEM; then `done` never
 * runs. */
mbl_status_t mbl_http_submit(mbl_http_t *http, const mbl_http_server_t *server,
                             const mbl_proto_request_t *request, double deadline, mbl_http_done_t done,
                             void *user, mbl_http_call_t **out);
/* Asks for an early end: `done` still runs, with CANCELLED unless the call has ended otherwise by then. Only
 * after `done` may the memory of the request be used anew. */
void mbl_http_cancel(mbl_http_call_t *call);

/* What became of a call, once `done` runs; valid until mbl_http_free. */
mbl_http_end_t mbl_http_end(const mbl_http_call_t *call);
const mbl_proto_response_t *mbl_http_response(const mbl_http_call_t *call); /* where ANSWERED */
double mbl_http_seconds(const mbl_http_call_t *call);                       /* since it was submitted */
const char *mbl_http_text(const mbl_http_call_t *call); /* what is wrong, where not ANSWERED; one line */
/* Whether the same call would end so again: certificates that do not fit, a server that speaks no TLS. */
bool mbl_http_lasts(const mbl_http_call_t *call);

/* Gives the call back for reuse, any time after its `done` began. */
void mbl_http_free(mbl_http_call_t *call);

#endif
