/* The client's thread runs a libuv loop, which watches libcurl's sockets and its one timer. Other threads
 * only put calls into a queue, mark them as cancelled, and wake the loop. */
#include "proto/http.h"

#include "base/clock.h"
#include "base/mem.h"

#include <curl/curl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

enum {
    BODY_FIRST = 16 << 10, /* bytes of a fresh response buffer; larger than KEPT are not kept for reuse */
    BODY_KEPT = 1 << 20,
    UPLOAD_BUFFER = 256 << 10,
    CONNECT_SECONDS_MAX = 10,
    TEXT = 320
};

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
    bool active, cancel, no_memory, oversize, in_headers;
    mbl_http_end_t end;
    char text[TEXT], error[CURL_ERROR_SIZE];
};

typedef struct {
    uv_poll_t poll;
    mbl_http_t *http;
    curl_socket_t socket;
} watch_t;

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

const char *mbl_http_end_name(mbl_http_end_t end) {
    static const char *const names[] = {
#define NAME(id, name, text) name,
        MBL_HTTP_END_LIST(NAME)
#undef NAME
    };
    return names[end];
}

mbl_http_end_t mbl_http_end(const mbl_http_call_t *call) {
    return call->end;
}

const mbl_proto_response_t *mbl_http_response(const mbl_http_call_t *call) {
    return &call->response;
}

double mbl_http_seconds(const mbl_http_call_t *call) {
    return call->seconds;
}

const char *mbl_http_text(const mbl_http_call_t *call) {
    return call->text;
}

/* ---- a URL ---- */

static const char *after(const char *text, const char *start) {
    size_t n = strlen(start);
    return strncmp(text, start, n) == 0 ? text + n : NULL;
}

bool mbl_http_url_valid(const char *url, const char **why) {
    const char *socket = after(url, "unix:"), *host = after(url, "http://");
    *why = NULL;
    host = host ? host : after(url, "https://");
    for (const char *c = url; *c; c++)
        if ((unsigned char)*c <= ' ' || *c == 127)
            *why = "holds a space or a control character";
    if (*why)
        return false;
    if (socket)
        *why = socket[0] == '/' ? NULL : "names no absolute path of a socket";
    else if (!host)
        *why = "begins with none of http://, https:// and unix:/";
    else if (!*host || *host == '/' || *host == ':' || *host == '?')
        *why = "names no host";
    else if (strpbrk(host, "?#"))
        *why = "holds a query or a fragment";
    else if (memchr(host, '@', strcspn(host, "/")))
        *why = "holds a user name, which belongs into a token";
    return !*why;
}

/* Proxies from the environment are for other machines. */
static bool is_local(const char *url) {
    static const char *const names[] = {"localhost", "127.", "[::1]"};
    const char *host = strstr(url, "://");
    for (size_t i = 0; host && i < sizeof names / sizeof *names; i++)
        if (after(host + 3, names[i]))
            return true;
    return !host;
}

/* ---- bytes in and out, on the client's thread ---- */

static size_t read_body(char *out, size_t size, size_t count, void *user) {
    mbl_http_call_t *call = user;
    size_t room = size * count, done = 0;
    while (done < room && call->piece < call->n_pieces) {
        const mbl_proto_piece_t *piece = &call->pieces[call->piece];
        size_t left = piece->bytes - call->offset, n = left < room - done ? left : room - done;
        if (n > 0)
            memcpy(out + done, (const char *)piece->data + call->offset, n);
        done += n;
        call->offset += n;
        if (call->offset == piece->bytes) {
            call->piece++;
            call->offset = 0;
        }
    }
    return done;
}

/* libcurl begins anew where a kept connection turned out to be closed. */
static int rewind_body(void *user, curl_off_t offset, int origin) {
    mbl_http_call_t *call = user;
    if (offset != 0 || origin != SEEK_SET)
        return CURL_SEEKFUNC_CANTSEEK;
    call->piece = call->offset = 0;
    return CURL_SEEKFUNC_OK;
}

static size_t write_body(char *data, size_t size, size_t count, void *user) {
    mbl_http_call_t *call = user;
    size_t n = size * count, used = call->response.body_bytes, capacity = call->body_capacity;
    if (n > MBL_PROTO_BODY_MAX - used) {
        call->oversize = true;
        return 0;
    }
    if (used + n > capacity) {
        capacity = capacity ? capacity : BODY_FIRST;
        while (capacity < used + n)
            capacity *= 2;
        char *body = mbl_realloc(call->body, call->body_capacity, capacity, 1);
        if (!body) {
            call->no_memory = true;
            return 0;
        }
        call->body = body;
        call->body_capacity = capacity;
    }
    memcpy(call->body + used, data, n);
    call->response.body_bytes += n;
    return n;
}

/* One line, status lines included. Those of 1xx responses count for the limit and are forgotten with the
 * next status line. */
static size_t write_header(char *line, size_t size, size_t count, void *user) {
    mbl_http_call_t *call = user;
    size_t n = size * count, end = n;
    call->header_bytes += n;
    if (call->header_bytes > MBL_HTTP_HEADER_BYTES_MAX) {
        call->oversize = true;
        return 0;
    }
    const char *colon = memchr(line, ':', n);
    call->in_headers = line[0] != '\r' && line[0] != '\n';
    if (n >= 5 && memcmp(line, "HTTP/", 5) == 0)
        call->head_used = call->response.n_headers = 0;
    else if (colon && call->response.n_headers < MBL_PROTO_HEADERS_MAX) {
        size_t name = (size_t)(colon - line), value = name + 1;
        while (value < end && (line[value] == ' ' || line[value] == '\t'))
            value++;
        while (end > value && (unsigned char)line[end - 1] <= ' ')
            end--;
        char *to = call->head + call->head_used;
        memcpy(to, line, name);
        to[name] = 0;
        memcpy(to + name + 1, line + value, end - value);
        to[name + 1 + end - value] = 0;
        call->headers[call->response.n_headers++] = (mbl_proto_header_t){to, to + name + 1};
        call->head_used += name + 2 + end - value;
    }
    return n;
}

/* ---- the end of a call ---- */

static mbl_http_end_t end_of(const mbl_http_call_t *call, CURLcode code) {
    double connected = 0;
    if (call->oversize)
        return MBL_HTTP_OVERSIZE;
    if (call->no_memory)
        return MBL_HTTP_LOCAL;
    switch (code) {
    case CURLE_OK:
        return MBL_HTTP_ANSWERED;
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
        return MBL_HTTP_CONNECT;
    case CURLE_OPERATION_TIMEDOUT:
        curl_easy_getinfo(call->easy, CURLINFO_CONNECT_TIME, &connected);
        return connected > 0 ? MBL_HTTP_DEADLINE : MBL_HTTP_CONNECT;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_INVALIDCERTSTATUS:
        return MBL_HTTP_TLS;
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL: /* HTTP/0.9 */
    case CURLE_BAD_CONTENT_ENCODING:
    case CURLE_WRITE_ERROR: /* of a decoder */
        return MBL_HTTP_GARBAGE;
    case CURLE_OUT_OF_MEMORY: /* also libcurl's word for one endless header */
        return call->in_headers ? MBL_HTTP_OVERSIZE : MBL_HTTP_LOCAL;
    case CURLE_FAILED_INIT:
        return MBL_HTTP_LOCAL;
    default:
        return MBL_HTTP_CUT;
    }
}

static void describe_end(mbl_http_call_t *call, CURLcode code) {
    if (call->end == MBL_HTTP_OVERSIZE)
        snprintf(call->text, TEXT, "the response is longer than %d bytes, or its headers than %d",
                 MBL_PROTO_BODY_MAX, MBL_HTTP_HEADER_BYTES_MAX);
    else if (call->no_memory)
        snprintf(call->text, TEXT, "no memory for the response");
    else
        snprintf(call->text, TEXT, "%s", call->error[0] ? call->error : curl_easy_strerror(code));
    for (char *c = call->text; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127)
            *c = ' ';
}

static void finish(mbl_http_call_t *call) {
    long status = 0;
    call->seconds = mbl_now() - call->start;
    if (call->end == MBL_HTTP_ANSWERED) {
        curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
        call->response.status = (int)status;
        call->response.headers = call->headers;
        call->response.body = call->body;
    }
    curl_slist_free_all(call->sent_headers);
    call->sent_headers = NULL;
    call->done(call->user, call);
}

/* Ends a call that libcurl has not ended. */
static void end_early(mbl_http_t *http, mbl_http_call_t *call, mbl_http_end_t end, const char *text) {
    if (call->active)
        curl_multi_remove_handle(http->multi, call->easy);
    call->active = false;
    call->end = end;
    snprintf(call->text, TEXT, "%s", text);
    finish(call);
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
        call->end = end_of(call, code);
        if (call->end != MBL_HTTP_ANSWERED)
            describe_end(call, code);
        curl_multi_remove_handle(http->multi, easy);
        call->active = false;
        finish(call);
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
        status = failed("the lock", error);
        goto no_lock;
    }
    error = uv_loop_init(&http->loop);
    if (error) {
        status = failed("the loop", error);
        goto no_loop;
    }
    MBL_TRY_GOTO(start(http, connections), no_thread);
    *out = http;
    return MBL_OK;
no_thread:
    curl_multi_cleanup(http->multi);
    close_loop(http);
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
    uv_mutex_lock(&http->lock);
    http->closing = true;
    uv_mutex_unlock(&http->lock);
    uv_async_send(&http->wake);
    uv_thread_join(&http->thread);
    uv_loop_close(&http->loop);
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

static bool add_header(mbl_http_call_t *call, const char *name, const char *separator, const char *value) {
    char *line = mbl_format("%s%s%s", name, separator, value);
    struct curl_slist *list =
        line && !strpbrk(line, "\r\n") ? curl_slist_append(call->sent_headers, line) : NULL;
    mbl_free(line);
    if (list)
        call->sent_headers = list;
    return list;
}

static mbl_status_t set_headers(mbl_http_call_t *call, const char *token,
                                const mbl_proto_request_t *request) {
    /* without Expect a body of a megabyte does not wait for "100 Continue" first */
    bool added = add_header(call, "Expect", ":", "");
    for (size_t i = 0; i < request->n_headers && added; i++)
        added = add_header(call, request->headers[i].name, ": ", request->headers[i].value);
    if (added && token)
        added = add_header(call, "Authorization", ": Bearer ", token);
    return added ? MBL_OK : MBL_FAIL(MBL_ERR_ARG, "%s: a header cannot be sent", request->path);
}

/* What every request has. */
static void set_common(mbl_http_call_t *call, double deadline) {
    CURL *easy = call->easy;
    curl_easy_setopt(easy, CURLOPT_PRIVATE, call);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, call->error);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
#if LIBCURL_VERSION_NUM >= 0x075500
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
#else
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, ""); /* all that this libcurl knows */
    curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, (long)UPLOAD_BUFFER);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)ceil(deadline * 1000));
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)ceil(fmin(deadline, CONNECT_SECONDS_MAX) * 1000));
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, write_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, call);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, write_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, call);
}

static bool set_server(mbl_http_call_t *call, const mbl_http_server_t *server, const char *path) {
    CURL *easy = call->easy;
    const char *socket = after(server->url, "unix:");
    size_t base = strlen(server->url);
    while (base > 0 && server->url[base - 1] == '/')
        base--;
    char *url =
        socket ? mbl_format("http://localhost%s", path) : mbl_format("%.*s%s", (int)base, server->url, path);
    CURLcode code = url ? curl_easy_setopt(easy, CURLOPT_URL, url) : CURLE_OUT_OF_MEMORY;
    mbl_free(url);
    if (code == CURLE_OK && socket)
        code = curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, socket);
    if (code == CURLE_OK && is_local(server->url))
        code = curl_easy_setopt(easy, CURLOPT_PROXY, "");
    if (code == CURLE_OK && server->ca)
        code = curl_easy_setopt(easy, CURLOPT_CAINFO, server->ca);
    if (code == CURLE_OK && server->cert)
        code = curl_easy_setopt(easy, CURLOPT_SSLCERT, server->cert);
    if (code == CURLE_OK && server->key)
        code = curl_easy_setopt(easy, CURLOPT_SSLKEY, server->key);
    return code == CURLE_OK;
}

static void set_body(mbl_http_call_t *call, const mbl_proto_request_t *request) {
    CURL *easy = call->easy;
    call->pieces = request->pieces;
    call->n_pieces = request->n_pieces;
    call->piece = call->offset = 0;
    if (strcmp(request->method, "POST") != 0)
        return;
    curl_easy_setopt(easy, CURLOPT_POST, 1L);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body_bytes);
    curl_easy_setopt(easy, CURLOPT_READFUNCTION, read_body);
    curl_easy_setopt(easy, CURLOPT_READDATA, call);
    curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, rewind_body);
    curl_easy_setopt(easy, CURLOPT_SEEKDATA, call);
}

static mbl_status_t prepare(mbl_http_call_t *call, const mbl_http_server_t *server,
                            const mbl_proto_request_t *request, double deadline) {
    curl_easy_reset(call->easy);
    call->response = (mbl_proto_response_t){.status = 0};
    call->head_used = call->header_bytes = 0;
    call->cancel = call->no_memory = call->oversize = call->in_headers = false;
    call->text[0] = call->error[0] = 0;
    set_common(call, deadline);
    set_body(call, request);
    if (!set_server(call, server, request->path))
        return MBL_FAIL(MBL_ERR_MEM, "no memory for a request to %s", server->url);
    MBL_TRY(set_headers(call, server->token, request));
    curl_easy_setopt(call->easy, CURLOPT_HTTPHEADER, call->sent_headers);
    return MBL_OK;
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
    mbl_status_t status = prepare(call, server, request, deadline);
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
