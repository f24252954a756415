/* The client's thread: a libuv loop that watches libcurl's sockets and its one timer, begins the calls of the
 * queue and ends those that were cancelled. */
#include "proto/http_internal.h"

#include "base/mem.h"

#include <signal.h>
#include <stdio.h>

typedef struct {
    uv_poll_t poll;
    mbl_http_t *http;
    curl_socket_t socket;
} watch_t;

/* ---- the end of calls ---- */

/* Ends a call that libcurl has not ended. */
static void end_early(mbl_http_t *http, mbl_http_call_t *call, mbl_http_end_t end, const char *text) {
    if (call->active)
        curl_multi_remove_handle(http->multi, call->easy);
    call->active = false;
    call->end = end;
    snprintf(call->text, MBL_HTTP_TEXT, "%s", text);
    mbl_http_finish(call);
}

static void end_starved(mbl_http_t *http) {
    http->starved = false;
    for (size_t i = 0; i < MBL_HTTP_CALLS_MAX; i++) {
        uv_mutex_lock(&http->lock);
        mbl_http_call_t *call = i < http->n_calls ? http->calls[i] : NULL;
        uv_mutex_unlock(&http->lock);
        if (call && call->active)
            end_early(http, call, MBL_HTTP_LOCAL, "no memory for a socket");
    }
}

static void take_finished(mbl_http_t *http) {
    CURLMsg *message;
    int left;
    while ((message = curl_multi_info_read(http->multi, &left))) {
        mbl_http_call_t *call = NULL;
        CURLcode code = message->data.result;
        if (message->msg != CURLMSG_DONE)
            continue;
        CURL *easy = message->easy_handle;
        curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&call);
        mbl_http_set_end(call, code);
        curl_multi_remove_handle(http->multi, easy);
        call->active = false;
        mbl_http_finish(call);
    }
    if (http->starved)
        end_starved(http);
}

/* ---- libcurl's sockets and timer on the loop ---- */

static void free_watch(uv_handle_t *handle) {
    mbl_free(handle->data);
}

static void on_ready(uv_poll_t *poll, int status, int events) {
    watch_t *watch = poll->data;
    int flags = (events & UV_READABLE ? CURL_CSELECT_IN : 0) | (events & UV_WRITABLE ? CURL_CSELECT_OUT : 0) |
                (status < 0 ? CURL_CSELECT_ERR : 0);
    int running;
    mbl_http_t *http = watch->http; /* the watch may go */
    curl_multi_socket_action(http->multi, watch->socket, flags, &running);
    take_finished(http);
}

static watch_t *new_watch(mbl_http_t *http, curl_socket_t socket) {
    watch_t *watch = mbl_calloc(1, sizeof *watch);
    if (!watch)
        return NULL;
    if (uv_poll_init_socket(&http->loop, &watch->poll, socket)) {
        mbl_free(watch);
        return NULL;
    }
    watch->poll.data = watch;
    watch->http = http;
    watch->socket = socket;
    curl_multi_assign(http->multi, socket, watch);
    return watch;
}

static int on_socket(CURL *easy, curl_socket_t socket, int what, void *user, void *socket_user) {
    mbl_http_t *http = user;
    watch_t *watch = socket_user;
    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        curl_multi_assign(http->multi, socket, NULL);
        if (watch)
            uv_close((uv_handle_t *)&watch->poll, free_watch);
        return 0;
    }
    int events = (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
    watch = watch ? watch : new_watch(http, socket);
    if (!watch || uv_poll_start(&watch->poll, events, on_ready))
        http->starved = true;
    return 0;
}

static void on_timeout(uv_timer_t *timer) {
    mbl_http_t *http = timer->data;
    int running;
    curl_multi_socket_action(http->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    take_finished(http);
}

static int on_timer(CURLM *multi, long milliseconds, void *user) {
    mbl_http_t *http = user;
    (void)multi;
    if (milliseconds < 0)
        uv_timer_stop(&http->timer);
    else
        uv_timer_start(&http->timer, on_timeout, (uint64_t)milliseconds, 0);
    return 0;
}

/* ---- the queue ---- */

static void begin(mbl_http_t *http, mbl_http_call_t *call) {
    CURLMcode code = curl_multi_add_handle(http->multi, call->easy);
    call->active = code == CURLM_OK;
    if (!call->active)
        end_early(http, call, MBL_HTTP_LOCAL, curl_multi_strerror(code));
}

static mbl_http_call_t *next_submitted(mbl_http_t *http, bool *cancelled) {
    uv_mutex_lock(&http->lock);
    mbl_http_call_t *call = http->first;
    if (call) {
        http->first = call->next;
        if (!http->first)
            http->last = NULL;
        *cancelled = call->cancel || http->closing;
    }
    uv_mutex_unlock(&http->lock);
    return call;
}

/* One that is under way and was cancelled, or any when the client closes; NULL: none (left). */
static mbl_http_call_t *next_cancelled(mbl_http_t *http) {
    mbl_http_call_t *found = NULL;
    uv_mutex_lock(&http->lock);
    for (size_t i = 0; i < http->n_calls && !found; i++)
        if (http->calls[i]->active && (http->calls[i]->cancel || http->closing))
            found = http->calls[i];
    uv_mutex_unlock(&http->lock);
    return found;
}

static void close_handle(uv_handle_t *handle, void *unused) {
    (void)unused;
    if (!uv_is_closing(handle))
        uv_close(handle, handle->type == UV_POLL ? free_watch : NULL);
}

static void on_wake(uv_async_t *wake) {
    mbl_http_t *http = wake->data;
    mbl_http_call_t *call;
    bool cancelled = true;
    while ((call = next_submitted(http, &cancelled)) || (call = next_cancelled(http))) {
        if (cancelled)
            end_early(http, call, MBL_HTTP_CANCELLED, "cancelled");
        else
            begin(http, call);
        cancelled = true; /* `done` may have submitted more */
    }
    uv_mutex_lock(&http->lock);
    bool closing = http->closing;
    uv_mutex_unlock(&http->lock);
    if (closing) {
        curl_multi_cleanup(http->multi);
        http->multi = NULL;
        uv_walk(&http->loop, close_handle, NULL);
    }
}

static void run(void *user) {
    mbl_http_t *http = user;
    sigset_t all;
    sigfillset(&all); /* SIGPIPE of a cut TLS connection, and signals that are for the main thread */
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    uv_run(&http->loop, UV_RUN_DEFAULT);
}

/* ---- open and close ---- */

static void close_loop(mbl_http_t *http) {
    uv_walk(&http->loop, close_handle, NULL);
    uv_run(&http->loop, UV_RUN_DEFAULT);
    uv_loop_close(&http->loop);
}

static mbl_status_t open_multi(mbl_http_t *http, size_t connections) {
    http->multi = curl_multi_init();
    if (!http->multi)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for an HTTP client");
    curl_multi_setopt(http->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(http->multi, CURLMOPT_SOCKETDATA, http);
    curl_multi_setopt(http->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    curl_multi_setopt(http->multi, CURLMOPT_TIMERDATA, http);
    curl_multi_setopt(http->multi, CURLMOPT_MAXCONNECTS, (long)connections);
    return MBL_OK;
}

static mbl_status_t failed(const char *what, int error) {
    return MBL_FAIL(MBL_ERR_MEM, "%s of an HTTP client: %s", what, uv_strerror(error));
}

static mbl_status_t start(mbl_http_t *http, size_t connections) {
    int error = uv_async_init(&http->loop, &http->wake, on_wake);
    if (error)
        return failed("the loop", error);
    uv_timer_init(&http->loop, &http->timer);
    http->wake.data = http->timer.data = http;
    MBL_TRY(open_multi(http, connections));
    error = uv_thread_create(&http->thread, run, http);
    return error ? failed("the thread", error) : MBL_OK;
}

mbl_status_t mbl_http_loop_open(mbl_http_t *http, size_t connections) {
    int error = uv_loop_init(&http->loop);
    if (error)
        return failed("the loop", error);
    mbl_status_t status = start(http, connections);
    if (status != MBL_OK) {
        curl_multi_cleanup(http->multi);
        close_loop(http);
    }
    return status;
}

void mbl_http_loop_close(mbl_http_t *http) {
    uv_mutex_lock(&http->lock);
    http->closing = true;
    uv_mutex_unlock(&http->lock);
    uv_async_send(&http->wake);
    uv_thread_join(&http->thread);
    uv_loop_close(&http->loop);
}
