/* A loop, libwebsockets on it, and what reaches them from other threads. */
#include "service/server_internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "run/run_id.h"

#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TICK_MS = 1000, FDS_MORE = 16 };

/* ---- libwebsockets ---- */

static void close_client(mbl_server_t *server, client_t *client) {
    if (client->streams)
        mbl_stream_close(server, client);
    mbl_web_end(client);
}

/* What libwebsockets calls for every event of a connection; nonzero closes it. */
static int on_event(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t size) {
    struct lws_context *context = wsi ? lws_get_context(wsi) : NULL;
    mbl_server_t *server = context ? lws_context_user(context) : NULL;
    client_t *client = user;
    if (!server)
        return 0;
    if (client)
        client->wsi = wsi;
    switch (reason) {
    case LWS_CALLBACK_WSI_DESTROY:
        server->connections -= server->connections > 0;
        return 0;
    case LWS_CALLBACK_HTTP:
        return mbl_web_request(server, client, in);
    case LWS_CALLBACK_HTTP_BODY:
        return mbl_web_body(client, in, size);
    case LWS_CALLBACK_HTTP_BODY_COMPLETION:
        return mbl_web_body_end(server, client);
    case LWS_CALLBACK_HTTP_WRITEABLE:
        return mbl_web_write(client);
    case LWS_CALLBACK_CLOSED_HTTP:
    case LWS_CALLBACK_CLOSED:
        if (client)
            close_client(server, client);
        return 0;
    case LWS_CALLBACK_FILTER_PROTOCOL_CONNECTION:
        return client ? mbl_stream_accept(server, wsi, client) : -1;
    case LWS_CALLBACK_ESTABLISHED:
        mbl_stream_open(server, client);
        return 0;
    case LWS_CALLBACK_SERVER_WRITEABLE:
        return mbl_stream_write(server, client);
    case LWS_CALLBACK_RECEIVE:
        return mbl_guard_take(&client->received, mbl_now()) ? 0 : -1;
    default:
        return 0;
    }
}

static const struct lws_protocols protocols[] = {{.name = "marble",
                                                  .callback = on_event,
                                                  .per_session_data_size = sizeof(client_t),
                                                  .rx_buffer_size = 1024},
                                                 {.name = NULL}};

/* Its messages are about clients; none belongs into a run's log unless asked for. */
static void log_line(int level, const char *line) {
    size_t n = strcspn(line, "\n");
    (void)level;
    MBL_DEBUG("service: %.*s", (int)n, line);
}

/* Where libuv is a plugin of libwebsockets, the end of a context unloads it, while handles of the loop still
 * have to call back into it. It stays in the process. */
static void keep_plugin(void) {
    void *plugin = dlopen("libwebsockets-evlib_uv.so", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (plugin)
        dlclose(plugin);
}

static mbl_status_t make_context(mbl_server_t *server) {
    void *loops[] = {&server->loop};
    struct lws_context_creation_info info = {.port = CONTEXT_PORT_NO_LISTEN_SERVER,
                                             .protocols = protocols,
                                             .options =
                                                 LWS_SERVER_OPTION_LIBUV | LWS_SERVER_OPTION_EXPLICIT_VHOSTS,
                                             .foreign_loops = loops,
                                             .pcontext = &server->context,
                                             .user = server,
                                             .max_http_header_data = MBL_SERVER_HEADERS,
                                             .max_http_header_pool = MBL_SERVER_CONNECTIONS,
                                             .fd_limit_per_thread = MBL_SERVER_CONNECTIONS + FDS_MORE,
                                             .timeout_secs = MBL_SERVER_REQUEST_S,
                                             .keepalive_timeout = MBL_SERVER_IDLE_S,
                                             .server_string = "marble",
                                             .count_threads = 1};
    struct sigaction pipes;
    keep_plugin();
    lws_set_log_level(LLL_ERR | LLL_WARN, log_line);
    sigaction(SIGPIPE, NULL, &pipes); /* of the whole process: it stays as it was */
    server->context = lws_create_context(&info);
    if (server->context) {
        info.vhost_name = "marble";
        server->vhost = lws_create_vhost(server->context, &info);
    }
    sigaction(SIGPIPE, &pipes, NULL);
    return server->context && server->vhost
               ? MBL_OK
               : MBL_FAIL(MBL_ERR_UNSUPPORTED,
                          "service: libwebsockets %s does not run on libuv here; expected its plugin, "
                          "libwebsockets-evlib-uv, installed with it",
                          LWS_LIBRARY_VERSION);
}

/* ---- the loop ---- */

/* A connection that may stay is libwebsockets' from here on. */
static void take_connection(mbl_server_t *server, int fd) {
    static const int on = 1, wait_ms = 1000 * MBL_SERVER_IDLE_S;
    if (server->connections >= MBL_SERVER_CONNECTIONS) {
        server->api.facts.refused++;
        close(fd);
        return;
    }
    if (!server->listening.path[0]) { /* best effort: a peer that is gone is noticed */
        (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &wait_ms, sizeof wait_ms);
    }
    server->connections++;
    /* Without TLS by name: lws_adopt_socket_vhost of libwebsockets 4.0 would wait for its first bytes. */
    if (!lws_adopt_descriptor_vhost(server->vhost, LWS_ADOPT_SOCKET | LWS_ADOPT_HTTP,
                                    (lws_sock_file_fd_type){.sockfd = fd}, NULL, NULL)) /* closed by now */
        server->api.facts.refused++;
}

static void on_connection(uv_poll_t *poll, int status, int events) {
    mbl_server_t *server = poll->data;
    (void)status, (void)events;
    for (int i = 0; i < MBL_SERVER_CONNECTIONS; i++) {
        int fd = accept4(server->listening.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
            return;
        take_connection(server, fd);
    }
}

/* Takes over what other threads have said. */
static void take_facts(mbl_server_t *server) {
    mbl_api_facts_t *facts = &server->api.facts;
    bool waits = facts->phase == MBL_PHASE_PAUSED;
    if (server->options.control)
        mbl_control_pausing(server->options.control, &facts->asked_pause, &waits);
    mbl_phase_t phase = waits ? MBL_PHASE_PAUSED : (mbl_phase_t)atomic_load(&server->phase);
    if (phase != facts->phase)
        facts->since = mbl_now();
    facts->phase = phase;
}

static void look(mbl_server_t *server) {
    take_facts(server);
    mbl_fail_quiet(1);
    for (size_t i = 0; i < server->api.n; i++)
        (void)mbl_view_refresh(&server->api.views[i]); /* the next look may go better */
    mbl_fail_quiet(0);
    mbl_stream_all(server);
}

static void on_tick(uv_timer_t *timer) {
    mbl_server_t *server = timer->data;
    if (server->streams)
        look(server);
    else
        take_facts(server);
}

static void on_wake(uv_async_t *wake) {
    mbl_server_t *server = wake->data;
    if (atomic_load(&server->stopping))
        uv_stop(&server->loop);
    else
        on_tick(&server->tick);
}

static mbl_status_t start_loop(mbl_server_t *server) {
    int error = uv_loop_init(&server->loop);
    server->loop_open = error == 0;
    if (!error && !(error = uv_async_init(&server->loop, &server->wake, on_wake)))
        server->waking = true;
    if (!error && !(error = uv_timer_init(&server->loop, &server->tick)))
        server->timing = true;
    if (!error && !(error = uv_poll_init(&server->loop, &server->accepting, server->listening.fd)))
        server->polling = true;
    if (!error) {
        server->wake.data = server->tick.data = server->accepting.data = server;
        error = uv_timer_start(&server->tick, on_tick, TICK_MS, TICK_MS);
    }
    if (!error)
        error = uv_poll_start(&server->accepting, UV_READABLE, on_connection);
    return error ? MBL_FAIL(MBL_ERR_IO, "service: no loop: %s", uv_strerror(error)) : MBL_OK;
}

/* ---- opening and closing ---- */

static mbl_status_t open_server(mbl_server_t *server, const mbl_server_options_t *options) {
    double now = mbl_now();
    MBL_TRY(mbl_listen_open(options->listen, options->port, &server->listening));
    MBL_TRY(mbl_api_open(options->folders, options->n, &server->api));
    MBL_TRY(mbl_run_id_make(server->api.facts.session));
    snprintf(server->token, sizeof server->token, "%s", options->token ? options->token : "");
    server->api.facts.live = options->live;
    server->api.facts.ranks = options->ranks;
    server->api.facts.control = options->control != NULL;
    server->requests = (mbl_guard_rate_t){MBL_SERVER_RATE, 2 * MBL_SERVER_RATE, 2 * MBL_SERVER_RATE, now};
    server->failures = (mbl_guard_rate_t){5, 20, 20, now};
    server->api.facts.since = now;
    MBL_TRY(start_loop(server));
    return make_context(server);
}

mbl_status_t mbl_server_open(const mbl_server_options_t *options, mbl_server_t **out) {
    mbl_server_t *server;
    MBL_ALLOC(server, 1);
    server->options = *options;
    server->options.token = server->options.listen = NULL;
    server->options.folders = NULL;
    server->listening.fd = -1;
    mbl_status_t status = open_server(server, options);
    if (status != MBL_OK) {
        mbl_server_close(server);
        return status;
    }
    *out = server;
    return MBL_OK;
}

void mbl_server_run(mbl_server_t *server) {
    take_facts(server);
    uv_run(&server->loop, UV_RUN_DEFAULT);
}

void mbl_server_stop(mbl_server_t *server) {
    atomic_store(&server->stopping, true);
    uv_async_send(&server->wake);
}

void mbl_server_phase(mbl_server_t *server, mbl_phase_t phase) {
    atomic_store(&server->phase, (int)phase);
    uv_async_send(&server->wake);
}

void mbl_server_wake(mbl_server_t *server) {
    uv_async_send(&server->wake);
}

/* libwebsockets takes its handles off the loop in turns of it, and then sets `context` to NULL. */
static void close_context(mbl_server_t *server) {
    if (server->context)
        lws_context_destroy(server->context);
    for (int i = 0; i < 1000 && server->context; i++) {
        uv_run(&server->loop, UV_RUN_NOWAIT);
        if (server->context)
            lws_context_destroy(server->context);
    }
}

void mbl_server_close(mbl_server_t *server) {
    if (!server)
        return;
    if (server->polling)
        uv_close((uv_handle_t *)&server->accepting, NULL);
    if (server->timing)
        uv_close((uv_handle_t *)&server->tick, NULL);
    if (server->waking)
        uv_close((uv_handle_t *)&server->wake, NULL);
    close_context(server);
    if (server->loop_open) {
        uv_run(&server->loop, UV_RUN_DEFAULT);
        uv_loop_close(&server->loop);
    }
    mbl_listen_close(&server->listening);
    mbl_api_close(&server->api);
    explicit_bzero(server->token, sizeof server->token);
    mbl_free(server);
}

const char *mbl_server_address(const mbl_server_t *server) {
    return server->listening.address;
}

unsigned short mbl_server_port(const mbl_server_t *server) {
    return server->listening.port;
}

bool mbl_server_is_public(const mbl_server_t *server) {
    return server->listening.is_public;
}
