/* What libcurl is asked for: the URL and how to reach it, the headers and the token, limits in time. */
#include "proto/http_internal.h"

#include "base/mem.h"

#include <math.h>
#include <string.h>
#include <sys/socket.h>

/* Upload buffer: libcurl copies a body through it, and each filling of it costs a round of its loop. */
enum { UPLOAD_BUFFER = 1 << 20, CONNECT_SECONDS_MAX = 10 };
/* A unix socket holds 208 KiB by default, and each time it is full the two sides wait for each other to wake
 * up. TCP's grows by itself. */
enum { SOCKET_BUFFER = 2 << 20 };

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

/* ---- headers and options ---- */

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
}

static int widen_socket(void *user, curl_socket_t socket, curlsocktype purpose) {
    int bytes = SOCKET_BUFFER;
    (void)user, (void)purpose;
    (void)setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes); /* as far as the system allows */
    return CURL_SOCKOPT_OK;
}

static bool set_server(mbl_http_call_t *call, const mbl_http_server_t *server, const char *path) {
    CURL *easy = call->easy;
    const char *socket = after(server->url, "unix:");
    call->local = socket;
    call->tls = after(server->url, "https://");
    size_t base = strlen(server->url);
    while (base > 0 && server->url[base - 1] == '/')
        base--;
    char *url =
        socket ? mbl_format("http://localhost%s", path) : mbl_format("%.*s%s", (int)base, server->url, path);
    CURLcode code = url ? curl_easy_setopt(easy, CURLOPT_URL, url) : CURLE_OUT_OF_MEMORY;
    mbl_free(url);
    if (code == CURLE_OK && socket)
        code = curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, socket);
    if (code == CURLE_OK && socket)
        code = curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, widen_socket);
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

mbl_status_t mbl_http_prepare(mbl_http_call_t *call, const mbl_http_server_t *server,
                              const mbl_proto_request_t *request, double deadline) {
    curl_easy_reset(call->easy);
    call->response = (mbl_proto_response_t){.status = 0};
    call->head_used = call->header_bytes = 0;
    call->cancel = call->no_memory = call->oversize = call->in_headers = call->lasting = false;
    call->text[0] = call->error[0] = 0;
    set_common(call, deadline);
    mbl_http_set_bytes(call, request);
    if (!set_server(call, server, request->path))
        return MBL_FAIL(MBL_ERR_MEM, "no memory for a request to %s", server->url);
    MBL_TRY(set_headers(call, server->token, request));
    curl_easy_setopt(call->easy, CURLOPT_HTTPHEADER, call->sent_headers);
    return MBL_OK;
}
