/* The scorers that are servers: remote (a model server), judge (a vision-language model over chat
 * completions), python (the user's functions in a process of their own). */
#include "reward/remote/child.h"
#include "reward/remote/options.h"
#include "reward/remote/schedule.h"
#include "reward/scorers.h"
#include "reward/service.h"

#include "base/mem.h"

#include <math.h>
#include <stdio.h>

typedef struct {
    mbl_remote_t *client;
    mbl_child_t *child; /* NULL: the server is somebody else's */
} server_t;

static void close_server(void *self) {
    server_t *server = self;
    mbl_remote_close(server->client);
    mbl_child_close(server->child);
    mbl_free(server);
}

static bool has_ended(void *user, char *text, size_t size) {
    return mbl_child_ended(user, text, size);
}

/* A function that never returns is ended in time for the scores of its file's other functions: two calls in a
 * row, after which the server does not call it for a while, and the calls of the others. */
enum { CALLS_A_DEADLINE = 3 };

/* The user's own server: its address is known once it has a folder. */
static mbl_status_t start_child(mbl_remote_parsed_t *parsed, mbl_child_t **child) {
    mbl_child_options_t options = {.name = parsed->client.name,
                                   .file = parsed->file,
                                   .python = parsed->python,
                                   .device = parsed->device,
                                   .workers = parsed->workers,
                                   .batch = parsed->client.batch,
                                   .seconds = parsed->client.deadline / CALLS_A_DEADLINE};
    MBL_ALLOC(parsed->urls, 1);
    MBL_TRY(mbl_child_open(&options, child));
    parsed->urls[0] = mbl_child_url(*child);
    parsed->client.urls = parsed->urls;
    parsed->client.n_urls = 1;
    parsed->client.server.model = "rewards";
    parsed->client.label = parsed->file;
    parsed->client.ended = has_ended;
    parsed->client.ended_user = *child;
    return MBL_OK;
}

static mbl_status_t open_server(const mbl_scorer_key_t *keys, const mbl_reward_spec_t *const *specs, size_t n,
                                const volatile sig_atomic_t *stop, void **self) {
    mbl_remote_parsed_t parsed = {.json = NULL};
    server_t *server;
    MBL_ALLOC(server, 1);
    mbl_status_t status = mbl_remote_parse(keys, specs, n, &parsed);
    if (status == MBL_OK && parsed.file)
        status = start_child(&parsed, &server->child);
    parsed.client.stop = stop;
    if (status == MBL_OK)
        status = mbl_remote_open(&parsed.client, &server->client);
    mbl_remote_parsed_free(&parsed);
    if (status != MBL_OK) {
        close_server(server);
        return status;
    }
    *self = server;
    return MBL_OK;
}

static mbl_status_t open_remote(const mbl_reward_spec_t *const *specs, size_t n,
                                const volatile sig_atomic_t *stop, void **self) {
    return open_server(mbl_remote_keys, specs, n, stop, self);
}

static mbl_status_t open_judge(const mbl_reward_spec_t *const *specs, size_t n,
                               const volatile sig_atomic_t *stop, void **self) {
    return open_server(mbl_judge_keys, specs, n, stop, self);
}

static mbl_status_t open_python(const mbl_reward_spec_t *const *specs, size_t n,
                                const volatile sig_atomic_t *stop, void **self) {
    return open_server(mbl_python_keys, specs, n, stop, self);
}

static bool never_joins(const mbl_reward_spec_t *a, const mbl_reward_spec_t *b) {
    (void)a;
    (void)b;
    return false;
}

static void submit(void *self, mbl_score_job_t *job) {
    mbl_remote_submit(((server_t *)self)->client, job);
}

static void abandon(void *self) {
    mbl_remote_abandon(((server_t *)self)->client);
}

static void traffic(void *self, mbl_traffic_t *out) {
    mbl_remote_traffic(((server_t *)self)->client, out);
}

static bool replica(void *self, size_t i, const char **url, bool *ready, char *text, size_t size) {
    mbl_remote_t *client = ((server_t *)self)->client;
    mbl_remote_replica_t shown;
    if (i >= mbl_remote_replicas(client))
        return false;
    mbl_remote_replica(client, i, &shown);
    *url = shown.url;
    *ready = shown.ready;
    snprintf(text, size, "%s", shown.text);
    return true;
}

_Static_assert((int)MBL_SCHEDULE_REPLICAS_MAX <= (int)MBL_SERVICE_REPLICAS_MAX, "more replicas than votes");
static size_t votes(void *self, double *against) {
    return mbl_remote_votes(((server_t *)self)->client, against);
}

static void decide(void *self, const double *aside, bool mine) {
    mbl_remote_decide(((server_t *)self)->client, aside, mine);
}

#define SERVICE(open_, joins_)                                                                               \
    {                                                                                                        \
        .joins = joins_, .open = open_, .close = close_server, .submit = submit, .abandon = abandon,         \
        .traffic = traffic, .replica = replica, .votes = votes, .decide = decide                             \
    }
static const mbl_service_t remote_service = SERVICE(open_remote, mbl_remote_same_calls),
                           judge_service = SERVICE(open_judge, never_joins),
                           python_service = SERVICE(open_python, mbl_remote_same_calls);

const mbl_scorer_t mbl_scorer_remote = {.name = "remote",
                                        .help = "a model behind a server, see proto/README.md",
                                        .low = -INFINITY,
                                        .high = INFINITY,
                                        .service = &remote_service,
                                        .keys = mbl_remote_keys};
const mbl_scorer_t mbl_scorer_judge = {
    .name = "judge",
    .help = "a vision-language model's answer to a question (chat completions)",
    .low = -INFINITY,
    .high = INFINITY,
    .service = &judge_service,
    .keys = mbl_judge_keys};
const mbl_scorer_t mbl_scorer_python = {.name = "python",
                                        .help = "functions of a Python file, run in a process of its own",
                                        .low = -INFINITY,
                                        .high = INFINITY,
                                        .service = &python_service,
                                        .keys = mbl_python_keys};
