/* The API over HTTP: a libuv loop with libwebsockets on it, a listening socket, limits, and the streams.
 * Everything runs in the thread that calls mbl_server_run, but for the calls that say otherwise. */
#ifndef MBL_SERVICE_SERVER_H
#define MBL_SERVICE_SERVER_H

#include "run/control.h"
#include "service/api.h"

/* Limits of the service: bytes of a request's headers; connections; seconds in which a request has to come,
 * and without anything taken; requests a second. */
enum {
    MBL_SERVER_HEADERS = 8192,
    MBL_SERVER_CONNECTIONS = 64,
    MBL_SERVER_REQUEST_S = 10,
    MBL_SERVER_IDLE_S = 30,
    MBL_SERVER_RATE = 1000
};

typedef struct mbl_server mbl_server_t;

typedef struct {
    const char *listen;         /* "auto" (a free port of 127.0.0.1), HOST:PORT or unix:PATH */
    unsigned short port;        /* where any port will do: is tried first; 0: none is */
    const char *const *folders; /* of runs; the first is this process's where `live` */
    size_t n;
    bool live;
    int ranks;
    mbl_control_t *control; /* of a live run; NULL: nothing is taken */
    const char *token;      /* for /api/control */
} mbl_server_options_t;

/* Listens, but answers only in mbl_server_run. ERR_USAGE for a `listen` that is none, ERR_IO where the
 * address is not to be had, ERR_UNSUPPORTED where libwebsockets cannot run on libuv here. Close with
 * mbl_server_close.
 */
mbl_status_t mbl_server_open(const mbl_server_options_t *options, mbl_server_t **out);
/* Until mbl_server_stop. */
void mbl_server_run(mbl_server_t *server);
/* The next three from any thread: ends mbl_server_run; what the run is doing; that there is something new. */
void mbl_server_stop(mbl_server_t *server);
void mbl_server_phase(mbl_server_t *server, mbl_phase_t phase);
void mbl_server_wake(mbl_server_t *server);
/* Once it does not run any more. NULL does nothing. */
void mbl_server_close(mbl_server_t *server);

/* "http://127.0.0.1:40123" or "unix:PATH"; the port, 0 for a unix socket. */
const char *mbl_server_address(const mbl_server_t *server);
unsigned short mbl_server_port(const mbl_server_t *server);
/* Whether others than processes of this host can reach it. */
bool mbl_server_is_public(const mbl_server_t *server);

#endif
