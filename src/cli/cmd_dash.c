/* marble dash: the page of finished runs, or of runs elsewhere on a shared disk, until it is interrupted. */
#include "base/log.h"
#include "base/mem.h"
#include "cli/args.h"
#include "cli/commands.h"
#include "service/server.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char about[] =
    "Serves the page of the runs in these folders, finished or at work, until Ctrl-C: the first one is "
    "shown,\n"
    "the others can be chosen or compared with it. It only reads, and nothing outside the folders; a run at\n"
    "work has a page of its own, which can steer it (service.listen). Without --listen only this computer\n"
    "reaches it, at a free port.\n"
    "    marble dash runs/first runs/second\n"
    "    marble dash runs/* --listen 127.0.0.1:8080";

enum { RUNS_MOST = 64 };

typedef struct {
    mbl_server_t *server;
    sigset_t signals;
} waiter_t;

/* Ends the service at the first signal. */
static void *wait_for_signal(void *self) {
    waiter_t *w = self;
    int signal;
    (void)sigwait(&w->signals, &signal);
    mbl_server_stop(w->server);
    return NULL;
}

/* How a browser elsewhere comes here, where the terminal is one over ssh. */
static void say_address(const mbl_server_t *server) {
    char host[256] = "HOST";
    unsigned port = mbl_server_port(server);
    printf("%s%s\n", mbl_server_address(server), port ? "/" : "");
    if (getenv("SSH_CONNECTION") && port && !mbl_server_is_public(server)) {
        (void)gethostname(host, sizeof host - 1);
        printf("from your computer: ssh -N -L %u:127.0.0.1:%u %s\n", port, port, host);
    }
    fflush(stdout);
    if (mbl_server_is_public(server))
        MBL_WARN("--listen: whoever reaches %s can see the prompts and images of these runs",
                 mbl_server_address(server));
}

static mbl_status_t serve(const mbl_arg_texts_t *folders, const char *listen) {
    mbl_server_options_t options = {.listen = listen, .folders = folders->items, .n = folders->count};
    waiter_t waiter;
    pthread_t thread;
    sigemptyset(&waiter.signals);
    sigaddset(&waiter.signals, SIGINT);
    sigaddset(&waiter.signals, SIGTERM);
    sigaddset(&waiter.signals, SIGHUP);
    if (pthread_sigmask(SIG_BLOCK, &waiter.signals, NULL) != 0)
        return MBL_FAIL(MBL_ERR_IO, "dash: signals cannot be blocked");
    MBL_TRY(mbl_server_open(&options, &waiter.server));
    if (pthread_create(&thread, NULL, wait_for_signal, &waiter) != 0) {
        mbl_server_close(waiter.server);
        return MBL_FAIL(MBL_ERR_MEM, "dash: no thread can be started to wait for signals");
    }
    say_address(waiter.server);
    mbl_server_run(waiter.server);
    (void)pthread_kill(thread, SIGTERM); /* where it ended by itself */
    (void)pthread_join(thread, NULL);
    mbl_server_close(waiter.server);
    return MBL_OK;
}

int mbl_cmd_dash(int argc, char **argv) {
    const char *listen = "auto";
    bool helped = false;
    mbl_arg_texts_t rest = {NULL, 0};
    const mbl_arg_t args[] = {{"listen", MBL_ARG_TEXT, &listen, "ADDRESS",
                               "HOST:PORT or unix:PATH; unless given a free port of 127.0.0.1", 0, 0, 0,
                               NULL}};
    const mbl_args_t spec = {"dash", "DIR...", about, args, sizeof args / sizeof *args, 1, RUNS_MOST};
    mbl_status_t status = mbl_args_parse(&spec, argc, argv, &rest, &helped);
    if (status != MBL_OK || helped)
        return mbl_status_exit_code(status);
    status = serve(&rest, listen);
    mbl_free(rest.items);
    return mbl_status_exit_code(status);
}
