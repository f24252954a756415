/* One call: the bytes that go out and come in, how it ended, and what its owner may ask of it. */
#include "proto/http_internal.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

enum { BODY_FIRST = 16 << 10 }; /* bytes of a fresh response buffer */

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

void mbl_http_set_bytes(mbl_http_call_t *call, const mbl_proto_request_t *request) {
    CURL *easy = call->easy;
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, write_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, call);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, write_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, call);
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

static void describe_socket(mbl_http_call_t *call) {
    long why = 0;
    curl_easy_getinfo(call->easy, CURLINFO_OS_ERRNO, &why);
    snprintf(call->text, MBL_HTTP_TEXT, "nobody listens at this socket%s%s", why ? ": " : "",
             why ? strerror((int)why) : "");
}

/* Whether what a TLS library complains of (OpenSSL, GnuTLS) is that the answer is no TLS at all. */
static bool is_plain(const mbl_http_call_t *call) {
    return call->tls && call->end == MBL_HTTP_TLS &&
           (strstr(call->error, "wrong version number") || strstr(call->error, "unexpected TLS packet"));
}

/* Whether the server took the connection and not one byte of TLS came from it. */
static bool is_mute(const mbl_http_call_t *call, CURLcode code) {
    const char *reached = NULL;
    double agreed = 0;
    curl_easy_getinfo(call->easy, CURLINFO_PRIMARY_IP, &reached); /* CONNECT_TIME is that of both for some */
    curl_easy_getinfo(call->easy, CURLINFO_APPCONNECT_TIME, &agreed);
    return call->tls && reached && *reached && agreed <= 0 &&
           (code == CURLE_OPERATION_TIMEDOUT || code == CURLE_SSL_CONNECT_ERROR);
}

/* What the url may have wrong; "" where it has nothing to do with it. */
static const char *url_hint(const mbl_http_call_t *call, CURLcode code) {
    if (is_plain(call))
        return "; the server speaks http, not https; expected http:// in its url";
    if (is_mute(call, code))
        return "; no TLS came from it; if the server speaks http, expected http:// in its url";
    if (!call->tls && code == CURLE_UNSUPPORTED_PROTOCOL)
        return "; the answer is no HTTP; if the server speaks https, expected https:// in its url";
    return "";
}

static bool is_lasting(const mbl_http_call_t *call, CURLcode code) {
    return is_plain(call) || code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CERTPROBLEM ||
           code == CURLE_SSL_CACERT_BADFILE;
}

static void describe_end(mbl_http_call_t *call, CURLcode code) {
    if (call->end == MBL_HTTP_OVERSIZE)
        snprintf(call->text, MBL_HTTP_TEXT, "the response is longer than %d bytes, or its headers than %d",
                 MBL_PROTO_BODY_MAX, MBL_HTTP_HEADER_BYTES_MAX);
    else if (call->no_memory)
        snprintf(call->text, MBL_HTTP_TEXT, "no memory for the response");
    else if (call->local && code == CURLE_COULDNT_CONNECT) /* libcurl speaks of "localhost port 80" */
        describe_socket(call);
    else
        snprintf(call->text, MBL_HTTP_TEXT, "%.220s%s",
                 call->error[0] ? call->error : curl_easy_strerror(code), url_hint(call, code));
    call->lasting = is_lasting(call, code);
    for (char *c = call->text; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127)
            *c = ' ';
}

void mbl_http_set_end(mbl_http_call_t *call, CURLcode code) {
    call->end = end_of(call, code);
    if (call->end != MBL_HTTP_ANSWERED)
        describe_end(call, code);
}

/* The end of the header with the token, or NULL. */
static const char *sent_token(const mbl_http_call_t *call) {
    static const char before[] = "Authorization: Bearer ";
    for (const struct curl_slist *line = call->sent_headers; line; line = line->next)
        if (strncmp(line->data, before, sizeof before - 1) == 0)
            return line->data + sizeof before - 1;
    return NULL;
}

/* A server that repeats the token in what it says must not bring it into a log: it becomes stars. Short ones
 * are left alone, as they may be in a response by chance. */
static void hide(char *bytes, size_t size, const char *token) {
    enum { TOKEN_MIN = 8 };
    size_t n = strlen(token), at = 0;
    while (n >= TOKEN_MIN && at + n <= size) {
        const char *first = memchr(bytes + at, token[0], size - n + 1 - at);
        if (!first)
            return;
        at = (size_t)(first - bytes);
        if (memcmp(first, token, n) == 0)
            memset(bytes + at, '*', n);
        at++;
    }
}

void mbl_http_finish(mbl_http_call_t *call) {
    const char *token = sent_token(call);
    long status = 0;
    if (token) {
        hide(call->body, call->response.body_bytes, token);
        hide(call->head, call->head_used, token);
    }
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

/* ---- what its owner may ask ---- */

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

bool mbl_http_lasts(const mbl_http_call_t *call) {
    return call->end != MBL_HTTP_ANSWERED && call->lasting;
}
