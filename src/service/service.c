/* The service of a run under way. */
#include "service/service.h"

#include "base/address.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/quote.h"
#include "base/screen.h"
#include "service/guard.h"
#include "service/server.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

struct mbl_service {
    mbl_control_t *control;
    mbl_server_t *server; /* NULL: it does not run */
    uv_thread_t thread;
};

enum { FILE_MOST = 4096 };
static const char file_name[] = "service.json";

bool mbl_service_wanted(const char *listen) {
    mbl_address_t address;
    return mbl_address_read(listen, &address) && address.kind != MBL_ADDRESS_OFF &&
           (address.kind != MBL_ADDRESS_AUTO || mbl_screen_there());
}

/* ---- service.json ---- */

static bool take(json_t *place, mbl_service_place_t *out) {
    const char *address = json_string_value(json_object_get(place, "address")),
               *token = json_string_value(json_object_get(place, "token"));
    json_int_t port = json_integer_value(json_object_get(place, "port"));
    if (!address || !token || strlen(address) >= sizeof out->address || strlen(token) != MBL_TOKEN - 1 ||
        strspn(token, "0123456789abcdef") != MBL_TOKEN - 1 || port < 0 || port > 65535)
        return false;
    snprintf(out->address, sizeof out->address, "%s", address);
    snprintf(out->token, sizeof out->token, "%s", token);
    out->port = (unsigned short)port;
    return true;
}

bool mbl_service_read(const char *folder, mbl_service_place_t *out) {
    char *path = mbl_format("%s/%s", folder, file_name), text[FILE_MOST];
    struct stat info;
    bool good = false;
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK) : -1;
    mbl_free(path);
    if (fd >= 0 && fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && (info.st_mode & 077) == 0 &&
        info.st_uid == geteuid()) {
        ssize_t n = read(fd, text, sizeof text);
        json_t *place = n > 0 ? json_loadb(text, (size_t)n, 0, NULL) : NULL;
        good = take(place, out);
        json_decref(place);
        explicit_bzero(text, sizeof text);
    }
    if (fd >= 0)
        close(fd);
    return good;
}

/* Under another name first; nobody else can read it at any moment. */
static mbl_status_t write_text(const char *folder, const char *text) {
    char *path = mbl_format("%s/%s", folder, file_name),
         *temporary = mbl_format("%s/%s.tmp", folder, file_name);
    mbl_status_t status = MBL_OK;
    if (!path || !temporary) {
        status = MBL_FAIL(MBL_ERR_MEM, "%s: no memory for %s", folder, file_name);
        goto done;
    }
    unlink(temporary);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    size_t size = strlen(text);
    bool good = fd >= 0 && write(fd, text, size) == (ssize_t)size;
    good = fd >= 0 && close(fd) == 0 && good && rename(temporary, path) == 0;
    if (!good) {
        status = MBL_FAIL(MBL_ERR_IO, "%s: cannot be written: %s", path, strerror(errno));
        unlink(temporary);
    }
done:
    mbl_free(path);
    mbl_free(temporary);
    return status;
}

static mbl_status_t write_place(const char *folder, const mbl_service_place_t *place) {
    char host[72] = "";
    gethostname(host, sizeof host - 1);
    json_t *json = json_pack("{s:s,s:i,s:s,s:s,s:I}", "address", place->address, "port", (int)place->port,
                             "token", place->token, "host", host, "pid", (json_int_t)getpid());
    char *text = json ? json_dumps(json, JSON_INDENT(1)) : NULL;
    json_decref(json);
    if (!text)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for %s", folder, file_name);
    mbl_status_t status = write_text(folder, text);
    explicit_bzero(text, strlen(text));
    free(text);
    return status;
}

/* ---- the thread ---- */

static void serve(void *self) {
    (void)pthread_setname_np(pthread_self(), "marble-service"); /* in top and in tests/bench/service.py */
    mbl_server_run(((mbl_service_t *)self)->server);
}

/* Signals are for the thread that trains (run/stop.h). */
static int start_thread(mbl_service_t *service) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = uv_thread_create(&service->thread, serve, service);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

/* What a person needs to look at the run; the token is not among it. */
static void announce(const mbl_server_t *server, const char *folder) {
    char host[72] = "", quoted[1200];
    unsigned short port = mbl_server_port(server);
    MBL_INFO("live page: %s (marble ctl %s steers the run)", mbl_server_address(server),
             mbl_quote(folder, quoted, sizeof quoted));
    if (getenv("SSH_CONNECTION") && port > 0 && !mbl_server_is_public(server)) {
        gethostname(host, sizeof host - 1);
        MBL_INFO("from your own machine: ssh -N -L %u:127.0.0.1:%u %s, then http://127.0.0.1:%u", port, port,
                 host, port);
    }
    if (mbl_server_is_public(server))
        MBL_WARN("service.listen: whoever reaches %s can see the run's prompts and images",
                 mbl_server_address(server));
}

static mbl_status_t start(mbl_service_t *service, const mbl_event_begin_t *event) {
    mbl_service_place_t place = {.port = 0};
    const char *const folders[] = {event->folder};
    if (!mbl_service_read(event->folder, &place) && !mbl_guard_make_token(place.token))
        return MBL_FAIL(MBL_ERR_IO, "service: the system gives no random numbers for a token");
    MBL_TRY(mbl_server_open(&(mbl_server_options_t){.listen = event->config->service.listen,
                                                    .port = place.port,
                                                    .folders = folders,
                                                    .n = 1,
                                                    .live = true,
                                                    .ranks = event->ranks,
                                                    .control = service->control,
                                                    .token = place.token},
                            &service->server));
    snprintf(place.address, sizeof place.address, "%s", mbl_server_address(service->server));
    place.port = mbl_server_port(service->server);
    mbl_status_t status = write_place(event->folder, &place);
    explicit_bzero(place.token, sizeof place.token);
    MBL_TRY(status);
    int error = start_thread(service);
    return error ? MBL_FAIL(MBL_ERR_MEM, "service: no thread: %s", uv_strerror(error)) : MBL_OK;
}

/* ---- the observer ---- */

static mbl_status_t begin(void *self, const mbl_event_begin_t *event) {
    mbl_service_t *service = self;
    if (event->rank != 0 || !mbl_service_wanted(event->config->service.listen))
        return MBL_OK;
    mbl_fail_quiet(1);
    mbl_status_t status = start(service, event);
    mbl_fail_quiet(0);
    if (status != MBL_OK) {
        MBL_WARN("%s; the run goes on without its live page", mbl_fail_message());
        mbl_server_close(service->server);
        service->server = NULL;
    } else
        announce(service->server, event->folder);
    return MBL_OK;
}

static void enter(void *self, mbl_phase_t phase) {
    const mbl_service_t *service = self;
    if (service->server)
        mbl_server_phase(service->server, phase);
}

static mbl_status_t step(void *self, const mbl_event_step_t *event) {
    const mbl_service_t *service = self;
    (void)event;
    if (service->server)
        mbl_server_wake(service->server);
    return MBL_OK;
}

static mbl_status_t evaluated(void *self, const mbl_event_eval_t *event) {
    const mbl_service_t *service = self;
    (void)event;
    if (service->server)
        mbl_server_wake(service->server);
    return MBL_OK;
}

static mbl_status_t end(void *self, const mbl_event_end_t *event) {
    (void)event;
    enter(self, MBL_PHASE_DONE);
    return MBL_OK;
}

const mbl_observer_t mbl_service_observer = {
    .name = "service", .begin = begin, .step = step, .evaluated = evaluated, .end = end, .phase = enter};

mbl_status_t mbl_service_new(mbl_control_t *control, mbl_service_t **out) {
    mbl_service_t *service;
    MBL_ALLOC(service, 1);
    service->control = control;
    *out = service;
    return MBL_OK;
}

void mbl_service_free(mbl_service_t *service) {
    if (!service)
        return;
    if (service->server) {
        mbl_server_stop(service->server);
        uv_thread_join(&service->thread);
        mbl_server_close(service->server);
    }
    mbl_free(service);
}
