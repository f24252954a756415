/* The client's thread runs a libuv loop, which watches libcurl's sockets and its one timer. Other threads
 * only put calls into a queue, mark them as cancelled, and wake the loop. */
#include "proto/http_internal.h"

#include "base/clock.h"
#include "base/mem.h"

enum { BODY_KEPT = 1 << 20 }; /* bytes; a response buffer that is larger is not kept for reuse */

/* ---- open and close ---- */

mbl_status_t mbl_http_open(size_t connections, mbl_http_t **out) {
    mbl_http_t *http;
    mbl_status_t status = MBL_OK;
    MBL_ALLOC(http, 1);
    CURLcode code = curl_global_init(CURL_GLOBAL_DEFAULT); /* counted */
    if (code != CURLE_OK) {
        mbl_free(http);
        return MBL_FAIL(MBL_ERR_MEM, "libcurl does not start: %s", curl_easy_strerror(code));
    }
    int error = uv_mutex_init(&http->lock);
    if (error) {
        status = MBL_FAIL(MBL_ERR_MEM, "the lock of an HTTP client: %s", uv_strerror(error));
        goto no_lock;
    }
    MBL_TRY_GOTO(mbl_http_loop_open(http, connections), no_loop);
    *out = http;
    return MBL_OK;
no_loop:
    uv_mutex_destroy(&http->lock);
no_lock:
    curl_global_cleanup();
    mbl_free(http);
    return status;
}

static void free_call(mbl_http_call_t *call) {
    curl_slist_free_all(call->sent_headers);
    curl_easy_cleanup(call->easy);
    mbl_free(call->body);
    mbl_free(call->head);
    mbl_free(call);
}

void mbl_http_close(mbl_http_t *http) {
    if (!http)
        return;
    mbl_http_loop_close(http);
    for (size_t i = 0; i < http->n_calls; i++)
        free_call(http->calls[i]);
    uv_mutex_destroy(&http->lock);
    curl_global_cleanup();
    mbl_free(http);
}

/* ---- submit ---- */

static mbl_status_t new_call(mbl_http_t *http, mbl_http_call_t **out) {
    mbl_http_call_t *call;
    mbl_status_t status = MBL_OK;
    MBL_ALLOC(call, 1);
    call->http = http;
    MBL_ALLOC_GOTO(call->head, MBL_HTTP_HEADER_BYTES_MAX + 1, failed);
    call->easy = curl_easy_init();
    if (!call->easy) {
        status = MBL_FAIL(MBL_ERR_MEM, "no memory for an HTTP request");
        goto failed;
    }
    *out = call;
    return MBL_OK;
failed:
    free_call(call);
    return status;
}

static mbl_status_t take_call(mbl_http_t *http, mbl_http_call_t **out) {
    uv_mutex_lock(&http->lock);
    mbl_http_call_t *call = http->free;
    if (call)
        http->free = call->next;
    uv_mutex_unlock(&http->lock);
    if (!call) {
        MBL_TRY(new_call(http, &call));
        uv_mutex_lock(&http->lock);
        bool room = http->n_calls < MBL_HTTP_CALLS_MAX;
        if (room)
            http->calls[http->n_calls++] = call;
        uv_mutex_unlock(&http->lock);
        if (!room) {
            free_call(call);
            return MBL_FAIL(MBL_ERR_ARG, "more than %d HTTP requests at once", MBL_HTTP_CALLS_MAX);
        }
    }
    *out = call;
    return MBL_OK;
}

void mbl_http_free(mbl_http_call_t *call) {
    mbl_http_t *http = call->http;
    if (call->body_capacity > BODY_KEPT) {
        mbl_free(call->body);
        call->body = NULL;
        call->body_capacity = 0;
    }
    uv_mutex_lock(&http->lock);
    call->next = http->free;
    http->free = call;
    uv_mutex_unlock(&http->lock);
}

mbl_status_t mbl_http_submit(mbl_http_t *http, const mbl_http_server_t *server,
                             const mbl_proto_request_t *request, double deadline, mbl_http_done_t done,
                             void *user, mbl_http_call_t **out) {
    const char *why;
    mbl_http_call_t *call = NULL;
    MBL_REQUIRE(mbl_http_url_valid(server->url, &why), "%s: %s", server->url, why);
    MBL_REQUIRE(deadline > 0 && deadline <= 86400, "a deadline of %g seconds; expected up to a day",
                deadline);
    MBL_TRY(take_call(http, &call));
    mbl_status_t status = mbl_http_prepare(call, server, request, deadline);
    if (status != MBL_OK) {
        curl_slist_free_all(call->sent_headers);
        call->sent_headers = NULL;
        mbl_http_free(call);
        return status;
    }
    call->done = done;
    call->user = user;
    call->start = mbl_now();
    call->next = NULL;
    uv_mutex_lock(&http->lock);
    if (out)
        *out = call;
    if (http->last)
        http->last->next = call;
    else
        http->first = call;
    http->last = call;
    uv_mutex_unlock(&http->lock);
    uv_async_send(&http->wake);
    return MBL_OK;
}

void mbl_http_cancel(mbl_http_call_t *call) {
    mbl_http_t *http = call->http;
    uv_mutex_lock(&http->lock);
    call->cancel = true;
    uv_mutex_unlock(&http->lock);
    uv_async_send(&http->wake);
}
