/* Requests and answers over HTTP. */
#include "service/server_internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { PIECE = 1 << 16, HEAD = 2048 };

bool mbl_web_header(struct lws *wsi, enum lws_token_indexes which, char *out, size_t size) {
    out[0] = 0;
    int length = lws_hdr_total_length(wsi, which);
    if (length <= 0)
        return true;
    return (size_t)length < size && lws_hdr_copy(wsi, out, (int)size, which) >= 0;
}

/* libwebsockets keeps the arguments one by one. */
bool mbl_web_query(struct lws *wsi, char *out, size_t size) {
    size_t used = 0;
    int n;
    out[0] = 0;
    for (int i = 0; i < 16; i++) {
        char one[256];
        n = lws_hdr_copy_fragment(wsi, one, sizeof one, WSI_TOKEN_HTTP_URI_ARGS, i);
        if (n < 0)
            return i > 0 || lws_hdr_total_length(wsi, WSI_TOKEN_HTTP_URI_ARGS) <= 0;
        int length = snprintf(out + used, size - used, "%s%s", i ? "&" : "", one);
        if (length < 0 || (size_t)length >= size - used)
            return false;
        used += (size_t)length;
    }
    return false;
}

const char *mbl_web_refuses(mbl_server_t *server, struct lws *wsi) {
    char host[300], origin[320];
    if (!mbl_web_header(wsi, WSI_TOKEN_HOST, host, sizeof host) || !host[0] ||
        (!server->listening.path[0] && !mbl_guard_host(host, server->listening.host)))
        return "Host: expected localhost, an IP address, or the name in service.listen";
    if (!mbl_web_header(wsi, WSI_TOKEN_ORIGIN, origin, sizeof origin) || !mbl_guard_origin(origin, host))
        return "Origin: expected a page of this service";
    return NULL;
}

/* ---- answers ---- */

static int add(struct lws *wsi, const char *name, const char *value, unsigned char **at, unsigned char *end) {
    return lws_add_http_header_by_name(wsi, (const unsigned char *)name, (const unsigned char *)value,
                                       (int)strlen(value), at, end);
}

/* What every answer says to a browser: to keep nothing, guess nothing, and run what is in the page alone. */
static int add_safety(struct lws *wsi, const mbl_answer_t *answer, const char *allow, unsigned char **at,
                      unsigned char *end) {
    return add(wsi, "cache-control:", answer->lasting ? "private, max-age=86400, immutable" : "no-store", at,
               end) ||
           add(wsi, "x-content-type-options:", "nosniff", at, end) ||
           add(wsi, "x-frame-options:", "DENY", at, end) ||
           add(wsi, "referrer-policy:", "no-referrer", at, end) ||
           add(wsi, "cross-origin-resource-policy:", "same-origin", at, end) ||
           add(wsi, "content-security-policy:",
               "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' "
               "blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
               at, end) ||
           (answer->code == 405 && add(wsi, "allow:", allow, at, end)) ||
           (answer->code == 401 && add(wsi, "www-authenticate:", "Bearer", at, end)) ||
           (answer->code == 429 && add(wsi, "retry-after:", "1", at, end)) ||
           (answer->code == 426 && add(wsi, "upgrade:", "websocket", at, end));
}

/* The status line and headers of the client's answer, and what fits into one piece at once: libwebsockets 4.3
 * closes a connection whose next request comes while the answer to the one before is under way. */
static int begin(client_t *client) {
    unsigned char room[LWS_PRE + HEAD], *start = room + LWS_PRE, *at = start, *end = room + sizeof room - 1;
    const mbl_answer_t *answer = &client->answer;
    struct lws *wsi = client->wsi;
    if (lws_add_http_common_headers(wsi, (unsigned int)answer->code, answer->type,
                                    (lws_filepos_t)answer->size, &at, end) ||
        add_safety(wsi, answer, client->allow, &at, end) ||
        lws_finalize_write_http_header(wsi, start, &at, end))
        return -1;
    client->answering = true;
    client->began_at = mbl_now();
    lws_set_timeout(wsi, PENDING_TIMEOUT_HTTP_CONTENT, MBL_SERVER_IDLE_S);
    if (answer->size <= PIECE)
        return mbl_web_write(client);
    lws_callback_on_writable(wsi);
    return 0;
}

void mbl_web_end(client_t *client) {
    mbl_answer_free(&client->answer);
    mbl_free(client->body);
    client->body = NULL;
    client->body_size = 0;
    client->answering = client->head_only = client->too_large = client->unread = false;
}

/* An answer of this code, then headers. */
static int fault(client_t *client, int code, const char *text) {
    if (mbl_answer_fault(&client->answer, code, "%s", text) != MBL_OK)
        return -1;
    return begin(client);
}

int mbl_web_write(client_t *client) {
    struct lws *wsi = client->wsi;
    if (!client->answering)
        return 0;
    char *room = mbl_calloc(LWS_PRE + PIECE, 1);
    size_t n = 0;
    if (!room ||
        (!client->head_only && mbl_answer_read(&client->answer, room + LWS_PRE, PIECE, &n) != MBL_OK)) {
        mbl_free(room);
        return -1;
    }
    bool last = client->head_only || client->answer.at == client->answer.size;
    /* an empty body needs its end as well */
    int sent = client->head_only ? 0
                                 : lws_write(wsi, (unsigned char *)room + LWS_PRE, n,
                                             last ? LWS_WRITE_HTTP_FINAL : LWS_WRITE_HTTP);
    mbl_free(room);
    if (sent < 0 || (!client->head_only && (size_t)sent < n))
        return -1;
    client->began_at = mbl_now();
    if (!last) {
        lws_set_timeout(wsi, PENDING_TIMEOUT_HTTP_CONTENT, MBL_SERVER_IDLE_S);
        lws_callback_on_writable(wsi);
        return 0;
    }
    bool unread = client->unread;
    mbl_web_end(client);
    return lws_http_transaction_completed(wsi) || unread ? -1 : 0;
}

/* ---- requests ---- */

static int get(mbl_server_t *server, client_t *client, const char *path) {
    char query[1024];
    if (!mbl_web_query(client->wsi, query, sizeof query))
        return fault(client, 400, "query: too long");
    if (strcmp(path, "/api/stream") == 0)
        return fault(client, 426, "expected a WebSocket");
    if (strcmp(path, "/api/control") == 0)
        return fault(client, 405, "expected POST");
    mbl_fail_quiet(1);
    mbl_status_t status = mbl_api_get(&server->api, path, query, &client->answer);
    mbl_fail_quiet(0);
    if (status != MBL_OK)
        return fault(client, status == MBL_ERR_MEM ? 503 : 500, mbl_fail_message());
    return begin(client);
}

/* Whether a body is JSON by its type: what a form of another site cannot send without being asked. */
static bool is_json(struct lws *wsi) {
    static const char json[] = "application/json";
    char type[128];
    return mbl_web_header(wsi, WSI_TOKEN_HTTP_CONTENT_TYPE, type, sizeof type) &&
           strncasecmp(type, json, sizeof json - 1) == 0 &&
           (!type[sizeof json - 1] || strchr("; ", type[sizeof json - 1]));
}

/* What can be said before the body is there: 0, or the answer's code with its text. */
static int refuses_post(mbl_server_t *server, struct lws *wsi, const char *path, const char **why) {
    char authorization[256], length[32];
    bool bears = mbl_web_header(wsi, WSI_TOKEN_HTTP_AUTHORIZATION, authorization, sizeof authorization) &&
                 mbl_guard_token(authorization, server->token);
    explicit_bzero(authorization, sizeof authorization);
    *why = "";
    if (strcmp(path, "/api/control") != 0) {
        *why = "expected GET, or POST /api/control";
        return 405;
    }
    if (!bears) {
        bool again = mbl_guard_take(&server->failures, mbl_now());
        *why = again ? "expected Authorization: Bearer and the token in service.json of the run's folder"
                     : "too many wrong tokens; expected at most 5 a second";
        return again ? 401 : 429;
    }
    if (!server->options.control) {
        *why = "no run takes anything here: this serves folders";
        return 409;
    }
    if (!is_json(wsi)) {
        *why = "Content-Type: expected application/json";
        return 415;
    }
    if (!mbl_web_header(wsi, WSI_TOKEN_HTTP_CONTENT_LENGTH, length, sizeof length) || strlen(length) > 6 ||
        atoi(length) > MBL_REQUEST_BODY) {
        *why = "the body: expected at most 16 KiB";
        return 413;
    }
    if (atoi(length) <= 0) {
        *why = "the body: expected a JSON object, with its Content-Length";
        return 400;
    }
    return 0;
}

/* A body that nobody will read ends the connection after the answer. */
static int post(mbl_server_t *server, client_t *client, const char *path) {
    const char *why;
    int code = refuses_post(server, client->wsi, path, &why);
    client->unread = code != 0;
    if (code)
        return fault(client, code, why);
    client->body = mbl_calloc(MBL_REQUEST_BODY, 1);
    lws_set_timeout(client->wsi, PENDING_TIMEOUT_HTTP_CONTENT, MBL_SERVER_REQUEST_S);
    return client->body ? 0 : fault(client, 503, "no memory for the request");
}

int mbl_web_request(mbl_server_t *server, client_t *client, const char *path) {
    struct lws *wsi = client->wsi;
    const char *why = mbl_web_refuses(server, wsi);
    mbl_web_end(client);
    client->answer.fd = -1;
    client->allow = strcmp(path, "/api/control") == 0 ? "POST" : "GET, HEAD";
    bool is_get = lws_hdr_total_length(wsi, WSI_TOKEN_GET_URI) > 0;
    client->head_only = lws_hdr_total_length(wsi, WSI_TOKEN_HEAD_URI) > 0;
    bool is_post = lws_hdr_total_length(wsi, WSI_TOKEN_POST_URI) > 0;
    server->api.facts.requests++;
    if (!mbl_guard_take(&server->requests, mbl_now()) || why) {
        server->api.facts.refused++;
        return fault(client, why ? 403 : 429,
                     why ? why : "too many requests; expected at most 1000 a second");
    }
    if (is_get || client->head_only)
        return get(server, client, path);
    if (is_post)
        return post(server, client, path);
    return fault(client, 405, "expected GET, or POST /api/control");
}

int mbl_web_body(client_t *client, const char *data, size_t size) {
    if (!client->body)
        return 0; /* of a request that is refused */
    if (size > MBL_REQUEST_BODY - client->body_size) {
        client->too_large = true;
        return 0;
    }
    memcpy(client->body + client->body_size, data, size);
    client->body_size += size;
    return 0;
}

/* Posts what was asked to the run's mailbox; the answer's code. */
static int ask(mbl_server_t *server, const mbl_request_t *request, char why[MBL_REQUEST_FAULT]) {
    mbl_control_t *control = server->options.control;
    const char *sets[MBL_CONTROL_SETS];
    for (size_t i = 0; i < request->n_sets; i++)
        sets[i] = request->sets[i];
    if (request->n_sets > 0) {
        mbl_fail_quiet(1);
        mbl_status_t status =
            mbl_control_set_all(control, sets, request->n_sets, (size_t)server->options.ranks);
        mbl_fail_quiet(0);
        if (status != MBL_OK) {
            snprintf(why, MBL_REQUEST_FAULT, "%s", mbl_fail_message());
            return status == MBL_ERR_CONFIG ? 422 : status == MBL_ERR_MEM ? 503 : 409;
        }
    }
    for (size_t i = 0; i < request->n_verbs; i++)
        mbl_control_ask(control, request->verbs[i]);
    return 202;
}

int mbl_web_body_end(mbl_server_t *server, client_t *client) {
    mbl_request_t request;
    char why[MBL_REQUEST_FAULT];
    if (!client->body)
        return 0;
    if (client->too_large)
        return fault(client, 413, "the body: expected at most 16 KiB");
    if (!mbl_request_read(client->body, client->body_size, server->api.views[0].config, &request, why))
        return fault(client, 400, why);
    int code = ask(server, &request, why);
    if (code != 202)
        return fault(client, code, why);
    json_t *asked = mbl_request_asked(&request);
    char *text = asked ? json_dumps(asked, JSON_COMPACT) : NULL;
    MBL_INFO("asked over %s: %s", server->listening.address, text ? text : "");
    free(text);
    if (mbl_answer_json(&client->answer, asked) != MBL_OK)
        return -1;
    client->answer.code = 202;
    return begin(client);
}
