/* What the files of the server share: server.c opens and runs it, listen.c is the listening socket, web.c
 * answers requests, server_stream.c streams. */
#ifndef MBL_SERVICE_SERVER_INTERNAL_H
#define MBL_SERVICE_SERVER_INTERNAL_H

#include "service/guard.h"
#include "service/request.h"
#include "service/server.h"
#include "service/query.h"
#include "service/stream.h"

#include <libwebsockets.h>
#include <stdatomic.h>
#include <uv.h>

/* A connection, kept by libwebsockets and zeroed at its beginning. A connection makes one request after
 * another, or becomes a stream. */
typedef struct client {
    struct lws *wsi;
    bool counted; /* among the connections */
    mbl_answer_t answer;
    bool answering, head_only;
    const char *allow; /* methods of the path, for 405 */
    char *body;        /* of a request under way, [MBL_REQUEST_BODY] */
    size_t body_size;
    bool too_large, unread; /* unread: the request is refused without its body, which ends the connection */
    /* a stream */
    bool streams;
    struct client *next;
    mbl_stream_t stream;
    double asked_at; /* when it was asked for room to write in, by mbl_now; 0: it is not */
    double began_at; /* when the last answer or message moved on */
    mbl_guard_rate_t received;
} client_t;

/* The listening socket. */
typedef struct {
    int fd;
    char address[512], host[256]; /* as it is printed; the name in service.listen, "" for none */
    char path[256];               /* of a unix socket, "" for none */
    unsigned short port;
    bool is_public;
} listen_t;

struct mbl_server {
    mbl_server_options_t options; /* texts are copied but for the folders and listen, which are not kept */
    char token[MBL_TOKEN];
    mbl_api_t api;
    listen_t listening;
    uv_loop_t loop;
    bool loop_open, polling, timing, waking;
    uv_poll_t accepting;
    uv_timer_t tick;
    uv_async_t wake;
    struct lws_context *context; /* set to NULL by libwebsockets once it is gone */
    struct lws_vhost *vhost;
    size_t connections;
    client_t *streams;
    mbl_guard_rate_t requests, failures; /* failures: wrong tokens */
    /* set by other threads, which wait for nothing here */
    atomic_bool stopping;
    atomic_int phase; /* mbl_phase_t */
};

/* ---- listen.c ---- */

mbl_status_t mbl_listen_open(const char *listen, unsigned short port, listen_t *out);
void mbl_listen_close(listen_t *listening);

/* ---- web.c ---- */

/* A request's header, "" where there is none; false where it is too long for `out`. */
bool mbl_web_header(struct lws *wsi, enum lws_token_indexes which, char *out, size_t size);
/* The query of a request; false where it is too long. */
bool mbl_web_query(struct lws *wsi, char *out, size_t size);
/* What is wrong with where a request comes from; NULL: nothing. */
const char *mbl_web_refuses(mbl_server_t *server, struct lws *wsi);
/* Begins the answer to a request for `path`; nonzero closes the connection. */
int mbl_web_request(mbl_server_t *server, client_t *client, const char *path);
int mbl_web_body(client_t *client, const char *data, size_t size);
int mbl_web_body_end(mbl_server_t *server, client_t *client);
/* The next piece of the answer. */
int mbl_web_write(client_t *client);
void mbl_web_end(client_t *client);

/* ---- server_stream.c ---- */

/* Before a connection becomes a stream; nonzero refuses it. */
int mbl_stream_accept(mbl_server_t *server, struct lws *wsi, client_t *client);
void mbl_stream_open(mbl_server_t *server, client_t *client);
void mbl_stream_close(mbl_server_t *server, client_t *client);
int mbl_stream_write(mbl_server_t *server, client_t *client);
/* Something may be new for every stream; drops those that take nothing. */
void mbl_stream_all(mbl_server_t *server);

#endif
