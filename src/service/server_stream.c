/* Streams over WebSockets. */
#include "service/server_internal.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

static const uint64_t LARGE = 9007199254740991;

int mbl_stream_accept(mbl_server_t *server, struct lws *wsi, client_t *client) {
    char path[64], query[256], fault[MBL_QUERY_FAULT];
    mbl_query_t keys[] = {{"run", 0, 1000, 0, false}, {"from", 0, LARGE, 0, false}};
    bool good = mbl_web_header(wsi, WSI_TOKEN_GET_URI, path, sizeof path) &&
                strcmp(path, "/api/stream") == 0 && mbl_web_query(wsi, query, sizeof query) &&
                mbl_query_read(query, keys, 2, fault) && keys[0].value < server->api.n;
    server->api.facts.requests++;
    if (!good || mbl_web_refuses(server, wsi) || !mbl_guard_take(&server->requests, mbl_now())) {
        server->api.facts.refused++;
        return -1;
    }
    mbl_stream_begin(&server->api, keys[0].value, keys[1].given, keys[1].value, &client->stream);
    return 0;
}

void mbl_stream_open(mbl_server_t *server, client_t *client) {
    client->streams = true;
    client->answer.fd = -1;
    client->received = (mbl_guard_rate_t){.rate = 10, .burst = 20, .left = 20, .at = mbl_now()};
    client->next = server->streams;
    server->streams = client;
    server->api.facts.clients++;
    client->asked_at = mbl_now();
    lws_callback_on_writable(client->wsi);
}

void mbl_stream_close(mbl_server_t *server, client_t *client) {
    client_t **at = &server->streams;
    while (*at && *at != client)
        at = &(*at)->next;
    if (!*at)
        return;
    *at = client->next;
    client->streams = false;
    server->api.facts.clients--;
}

int mbl_stream_write(mbl_server_t *server, client_t *client) {
    size_t size;
    client->asked_at = 0;
    mbl_fail_quiet(1);
    char *text = mbl_stream_next(&server->api, &client->stream, LWS_PRE, &size);
    mbl_fail_quiet(0);
    if (!text)
        return 0;
    int sent = lws_write(client->wsi, (unsigned char *)text + LWS_PRE, size, LWS_WRITE_TEXT);
    mbl_free(text);
    if (sent < 0)
        return -1;
    client->asked_at = mbl_now();
    lws_callback_on_writable(client->wsi);
    return 0;
}

void mbl_stream_all(mbl_server_t *server) {
    double now = mbl_now();
    for (client_t *client = server->streams; client; client = client->next) {
        if (client->asked_at > 0 && now - client->asked_at > MBL_SERVER_IDLE_S)
            lws_set_timeout(client->wsi, PENDING_TIMEOUT_CLOSE_SEND, LWS_TO_KILL_ASYNC);
        else if (client->asked_at <= 0) {
            client->asked_at = now;
            lws_callback_on_writable(client->wsi);
        }
    }
}
