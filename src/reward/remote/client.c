/* All state belongs to the client's thread, but for two lists under the lock: new jobs, and calls that
 * ended. */
#include "reward/remote/client.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "proto/http.h"
#include "reward/remote/encode.h"
#include "reward/remote/schedule.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

enum { WHY = 256, TOKEN_MAX = 16 << 10 };

/* A call under way: an attempt at a task, or a question to a replica. */
typedef struct exchange {
    struct exchange *next; /* among those that ended */
    mbl_remote_t *remote;
    size_t replica, task, question, token; /* token: which one it was sent with */
    bool probe;
    mbl_http_call_t *call; /* NULL: none is under way */
    mbl_proto_request_t request;
    mbl_proto_result_t result;
    mbl_encoded_t encoded;
    const uint8_t **rgb; /* [batch] for attempts */
    const char **prompts, **metadata;
} exchange_t;

typedef struct {
    char *url;
    mbl_http_server_t server;
    mbl_proto_peer_t *peer;
    exchange_t probe;
    bool hopeless; /* asking again is of no use */
    bool reported; /* that it is set aside */
    /* under the lock, for other threads */
    bool asked, ready;
    char why[MBL_PROTO_ERROR_TEXT]; /* the last trouble with it */
    char said[MBL_PROTO_ERROR_TEXT];
} replica_t;

typedef struct {
    mbl_score_job_t *job;
    size_t first, n;
    char why[WHY];
} task_t;

struct mbl_remote {
    char *name, *ca, *cert, *key, *token, *token_file;
    size_t batch, n_replicas, n_attempts;
    double deadline;
    replica_t *replicas;
    exchange_t *attempts;
    task_t *tasks;
    size_t task_capacity, open_tasks, under_way, n_tokens; /* under_way: calls; tokens so far */
    bool stopping;
    mbl_schedule_t *schedule;
    mbl_http_t *http;
    uv_thread_t thread;
    bool started;
    uv_mutex_t lock; /* guards all below */
    uv_cond_t wake, changed;
    mbl_score_job_t *first, *last;
    exchange_t *ended;
    mbl_traffic_t traffic;
    double busy_since;                     /* a request is under way since; 0: none */
    mbl_schedule_counts_t counts, counted; /* as of the thread's last look; and reported */
    size_t set_aside, hopeless;            /* replicas */
    bool opening, closing;
};

/* ---- the token ---- */

static mbl_status_t copy(const char *text, char **out) {
    if (text && !(*out = mbl_strdup(text)))
        return MBL_FAIL(MBL_ERR_MEM, "no memory for a text");
    return MBL_OK;
}

/* The token: one line of printable characters, so that it makes one header. */
static mbl_status_t read_token(const char *reward, const char *file, const char *variable, char **out) {
    const char *from = file ? file : variable;
    char *text = NULL;
    if (!from)
        return MBL_OK;
    if (file)
        MBL_TRY(mbl_file_read(file, TOKEN_MAX, &text, NULL));
    else if (getenv(variable))
        MBL_TRY(copy(getenv(variable), &text));
    else
        return MBL_FAIL(MBL_ERR_CONFIG,
                        "reward %s: token_env: the environment has no %s; expected the token in it", reward,
                        variable);
    size_t end = strlen(text), start = strspn(text, " \t\r\n");
    while (end > start && isspace((unsigned char)text[end - 1]))
        text[--end] = 0;
    memmove(text, text + start, end - start + 1);
    bool good = text[0] != 0;
    for (const char *c = text; *c; c++)
        good &= *c > ' ' && *c < 127;
    if (!good) {
        explicit_bzero(text, strlen(text));
        mbl_free(text);
        return MBL_FAIL(MBL_ERR_CONFIG, "reward %s: %s holds no token; expected one line of letters", reward,
                        from);
    }
    *out = text;
    return MBL_OK;
}

static void drop_token(char *token) {
    if (token)
        explicit_bzero(token, strlen(token));
    mbl_free(token);
}

/* A token's file may get another one while the run goes on. Whether a request that was refused with the
 * sent-th token may be sent with another. */
static bool renew_token(mbl_remote_t *remote, size_t sent) {
    char *token = NULL;
    if (sent != remote->n_tokens)
        return true;
    if (!remote->token_file || read_token(remote->name, remote->token_file, NULL, &token) != MBL_OK)
        return false;
    bool renewed = strcmp(token, remote->token) != 0;
    if (renewed) {
        drop_token(remote->token);
        remote->token = token;
        remote->n_tokens++;
        for (size_t r = 0; r < remote->n_replicas; r++)
            remote->replicas[r].server.token = token;
    } else {
        drop_token(token);
    }
    return renewed;
}

/* ---- an exchange ---- */

/* On the HTTP client's thread. */
static void on_ended(void *user, mbl_http_call_t *call) {
    exchange_t *exchange = user;
    mbl_remote_t *remote = exchange->remote;
    (void)call; /* exchange->call */
    uv_mutex_lock(&remote->lock);
    exchange->next = remote->ended;
    remote->ended = exchange;
    uv_cond_signal(&remote->wake);
    uv_mutex_unlock(&remote->lock);
}

static mbl_status_t send_request(exchange_t *exchange) {
    mbl_remote_t *remote = exchange->remote;
    MBL_TRY(mbl_http_submit(remote->http, &remote->replicas[exchange->replica].server, &exchange->request,
                            remote->deadline, on_ended, exchange, &exchange->call));
    exchange->token = remote->n_tokens;
    remote->under_way++;
    return MBL_OK;
}

static void note_trouble(mbl_remote_t *remote, size_t r, const char *text) {
    uv_mutex_lock(&remote->lock);
    snprintf(remote->replicas[r].why, sizeof remote->replicas[r].why, "%s", text);
    uv_mutex_unlock(&remote->lock);
}

static void count_failure(mbl_remote_t *remote, size_t kind) {
    uv_mutex_lock(&remote->lock);
    remote->traffic.failed[kind]++;
    uv_mutex_unlock(&remote->lock);
}

/* ---- questions to a replica ---- */

static void probed(exchange_t *probe, bool good) {
    mbl_remote_t *remote = probe->remote;
    mbl_schedule_probed(remote->schedule, mbl_now(), probe->replica, good);
    uv_mutex_lock(&remote->lock);
    replica_t *replica = &remote->replicas[probe->replica];
    replica->asked = true;
    if (good)
        snprintf(replica->said, sizeof replica->said, "%s", mbl_proto_describe(replica->peer));
    uv_mutex_unlock(&remote->lock);
}

static void ask(exchange_t *probe) {
    replica_t *replica = &probe->remote->replicas[probe->replica];
    if (probe->question == mbl_proto_questions(replica->peer)) {
        probed(probe, true);
        return;
    }
    mbl_status_t status = mbl_proto_ask(replica->peer, probe->question, &probe->request);
    if (status == MBL_OK)
        status = send_request(probe);
    if (status != MBL_OK) {
        note_trouble(probe->remote, probe->replica, mbl_fail_message());
        probed(probe, false);
    }
}

static void start_probe(mbl_remote_t *remote, size_t r) {
    exchange_t *probe = &remote->replicas[r].probe;
    probe->question = 0;
    ask(probe);
}

static void probe_ended(exchange_t *probe) {
    mbl_remote_t *remote = probe->remote;
    replica_t *replica = &remote->replicas[probe->replica];
    mbl_proto_error_t error = {.kind = MBL_PROTO_ERROR_NONE};
    mbl_http_end_t end = mbl_http_end(probe->call);
    mbl_status_t status = MBL_ERR_REWARD;
    if (end != MBL_HTTP_ANSWERED)
        note_trouble(remote, probe->replica, mbl_http_text(probe->call));
    else
        status = mbl_proto_learn(replica->peer, probe->question, mbl_http_response(probe->call), &error);
    if (end == MBL_HTTP_ANSWERED && status != MBL_OK)
        note_trouble(remote, probe->replica, status == MBL_ERR_REWARD ? error.text : mbl_fail_message());
    if (error.kind == MBL_PROTO_ERROR_DENIED)
        (void)renew_token(remote, probe->token); /* for the next time */
    replica->hopeless =
        status == MBL_ERR_REWARD && end == MBL_HTTP_ANSWERED && !mbl_proto_error_again(error.kind);
    mbl_http_free(probe->call);
    probe->call = NULL;
    if (status != MBL_OK || remote->stopping) {
        probed(probe, false);
    } else {
        probe->question++;
        ask(probe);
    }
}

/* ---- attempts ---- */

static mbl_status_t make_request(mbl_remote_t *remote, exchange_t *attempt) {
    const task_t *task = &remote->tasks[attempt->task];
    const mbl_proto_peer_t *peer = remote->replicas[attempt->replica].peer;
    mbl_proto_batch_t batch = {.n = task->n,
                               .width = task->job->images[task->first].width,
                               .height = task->job->images[task->first].height,
                               .prompts = attempt->prompts,
                               .metadata = attempt->metadata};
    for (size_t i = 0; i < task->n; i++) {
        attempt->rgb[i] = task->job->images[task->first + i].rgb;
        attempt->prompts[i] = task->job->prompts[task->first + i]->text;
        attempt->metadata[i] = task->job->prompts[task->first + i]->metadata;
    }
    if (mbl_proto_images(peer) == MBL_PROTO_IMAGES_RAW)
        batch.rgb = attempt->rgb;
    else
        MBL_TRY(mbl_encode(&attempt->encoded, mbl_proto_images(peer), task->job->images + task->first,
                           task->n, &batch.encoded));
    return mbl_proto_request(peer, &batch, &attempt->request);
}

static void keep_why(mbl_remote_t *remote, exchange_t *attempt, const char *text) {
    snprintf(remote->tasks[attempt->task].why, WHY, "%s: %.*s", remote->replicas[attempt->replica].url,
             WHY - 80, text);
    note_trouble(remote, attempt->replica, text);
}

static void start_attempt(mbl_remote_t *remote, const mbl_schedule_action_t *action) {
    exchange_t *attempt = &remote->attempts[action->attempt];
    attempt->task = action->task;
    uv_mutex_lock(&remote->lock);
    if (remote->busy_since <= 0)
        remote->busy_since = mbl_now();
    uv_mutex_unlock(&remote->lock);
    mbl_status_t status = make_request(remote, attempt);
    if (status == MBL_OK)
        status = send_request(attempt);
    if (status != MBL_OK) {
        keep_why(remote, attempt, mbl_fail_message());
        mbl_schedule_report(remote->schedule, mbl_now(), action->attempt,
                            status == MBL_ERR_ARG ? MBL_SCHEDULE_REFUSED : MBL_SCHEDULE_FAILED, 0);
    }
}

/* What a response is worth; *retry_after where the server says when to come back. */
static mbl_schedule_outcome_t read_response(mbl_remote_t *remote, exchange_t *attempt, double *retry_after) {
    mbl_proto_error_t error = {.kind = MBL_PROTO_ERROR_NONE};
    mbl_status_t status =
        mbl_proto_response(remote->replicas[attempt->replica].peer, remote->tasks[attempt->task].n,
                           mbl_http_response(attempt->call), &attempt->result, &error);
    if (status == MBL_OK)
        return MBL_SCHEDULE_GOOD;
    keep_why(remote, attempt, status == MBL_ERR_REWARD ? error.text : mbl_fail_message());
    count_failure(remote, mbl_traffic_of_error(error.kind));
    *retry_after = error.retry_after;
    if (error.kind == MBL_PROTO_ERROR_BUSY)
        return MBL_SCHEDULE_BUSY;
    if (error.kind == MBL_PROTO_ERROR_DENIED && renew_token(remote, attempt->token))
        return MBL_SCHEDULE_FAILED; /* and tried again */
    return status != MBL_ERR_REWARD || mbl_proto_error_again(error.kind) ? MBL_SCHEDULE_FAILED
                                                                         : MBL_SCHEDULE_REFUSED;
}

static void attempt_ended(exchange_t *attempt) {
    mbl_remote_t *remote = attempt->remote;
    task_t *task = &remote->tasks[attempt->task];
    mbl_http_end_t end = mbl_http_end(attempt->call);
    mbl_schedule_outcome_t outcome = MBL_SCHEDULE_CANCELLED;
    double retry_after = 0, seconds = mbl_http_seconds(attempt->call);
    if (end == MBL_HTTP_ANSWERED) {
        outcome = read_response(remote, attempt, &retry_after);
    } else if (end != MBL_HTTP_CANCELLED) {
        outcome = MBL_SCHEDULE_FAILED;
        keep_why(remote, attempt, mbl_http_text(attempt->call));
        count_failure(remote, mbl_traffic_of_end((int)end));
    }
    mbl_http_free(attempt->call);
    attempt->call = NULL;
    if (mbl_schedule_report(remote->schedule, mbl_now(), (size_t)(attempt - remote->attempts), outcome,
                            retry_after)) {
        uv_mutex_lock(&remote->lock);
        mbl_traffic_add(&remote->traffic, seconds);
        remote->traffic.images += (double)task->n;
        uv_mutex_unlock(&remote->lock);
        task->job->scored(task->job, task->first, task->n, &attempt->result, NULL);
    }
}

static void finish_task(mbl_remote_t *remote, const mbl_schedule_action_t *action) {
    task_t *task = &remote->tasks[action->task];
    if (--remote->open_tasks == 0) {
        uv_mutex_lock(&remote->lock);
        remote->traffic.seconds += remote->busy_since > 0 ? mbl_now() - remote->busy_since : 0;
        remote->busy_since = 0;
        uv_mutex_unlock(&remote->lock);
    }
    if (!action->good)
        task->job->scored(task->job, task->first, task->n, NULL,
                          task->why[0] ? task->why : "no server is ready");
    task->job->done(task->job, task->n); /* the job may be gone after this */
}

/* ---- jobs ---- */

static size_t images_at_once(const mbl_remote_t *remote) {
    size_t most = remote->batch;
    for (size_t r = 0; r < remote->n_replicas; r++)
        if (mbl_schedule_is_ready(remote->schedule, r)) {
            size_t own = mbl_proto_max_batch(remote->replicas[r].peer);
            most = own < most ? own : most;
        }
    return most;
}

static mbl_status_t add_task(mbl_remote_t *remote, mbl_score_job_t *job, size_t first, size_t n) {
    size_t task;
    MBL_TRY(mbl_schedule_add(remote->schedule, mbl_now(), &task));
    if (task >= remote->task_capacity) {
        size_t capacity = 2 * task + 16;
        task_t *tasks = mbl_realloc(remote->tasks, remote->task_capacity, capacity, sizeof *tasks);
        if (!tasks) {
            mbl_schedule_drop(remote->schedule, task);
            return MBL_FAIL(MBL_ERR_MEM, "no memory for %zu requests", capacity);
        }
        remote->tasks = tasks;
        remote->task_capacity = capacity;
    }
    remote->tasks[task] = (task_t){.job = job, .first = first, .n = n};
    remote->open_tasks++;
    return MBL_OK;
}

/* A job as tasks: images that follow one another and are of one size. */
static void cut_job(mbl_remote_t *remote, mbl_score_job_t *job) {
    size_t most = images_at_once(remote), n;
    for (size_t first = 0, total = job->n; first < total; first += n) {
        const mbl_image_t *image = &job->images[first];
        for (n = 1; n < most && first + n < total && image[n].width == image->width &&
                    image[n].height == image->height;)
            n++;
        if (add_task(remote, job, first, n) != MBL_OK) {
            job->scored(job, first, n, NULL, mbl_fail_message());
            job->done(job, n);
        }
    }
}

void mbl_remote_submit(mbl_remote_t *remote, mbl_score_job_t *job) {
    job->next = NULL;
    uv_mutex_lock(&remote->lock);
    if (remote->last)
        remote->last->next = job;
    else
        remote->first = job;
    remote->last = job;
    uv_cond_signal(&remote->wake);
    uv_mutex_unlock(&remote->lock);
}

/* ---- the thread ---- */

static void log_quarantine(mbl_remote_t *remote, const mbl_schedule_action_t *action) {
    replica_t *replica = &remote->replicas[action->replica];
    bool restored = action->kind == MBL_SCHEDULE_RESTORE;
    uv_mutex_lock(&remote->lock);
    bool quiet = remote->opening; /* opening reports by itself */
    uv_mutex_unlock(&remote->lock);
    quiet |= restored && !replica->reported;
    replica->reported = !restored && !quiet;
    if (quiet)
        return;
    if (restored)
        MBL_INFO("reward %s: %s answers again", remote->name, replica->url);
    else
        MBL_WARN("reward %s: %s is set aside and asked again from time to time: %s", remote->name,
                 replica->url, replica->why[0] ? replica->why : "it takes far longer than the others");
}

/* Does what is due; returns when it has to look again. */
static double act(mbl_remote_t *remote) {
    for (;;) {
        mbl_schedule_action_t action = mbl_schedule_next(remote->schedule, mbl_now());
        switch (action.kind) {
        case MBL_SCHEDULE_WAIT:
            return action.until;
        case MBL_SCHEDULE_START:
            start_attempt(remote, &action);
            break;
        case MBL_SCHEDULE_CANCEL:
            mbl_http_cancel(remote->attempts[action.attempt].call);
            break;
        case MBL_SCHEDULE_FINISH:
            finish_task(remote, &action);
            break;
        case MBL_SCHEDULE_PROBE:
            start_probe(remote, action.replica);
            break;
        case MBL_SCHEDULE_QUARANTINE:
        case MBL_SCHEDULE_RESTORE:
            log_quarantine(remote, &action);
            break;
        }
    }
}

static void take_ended(exchange_t *ended) {
    for (exchange_t *next; ended; ended = next) {
        next = ended->next;
        ended->remote->under_way--;
        (ended->probe ? probe_ended : attempt_ended)(ended);
    }
}

static void take_jobs(mbl_remote_t *remote, mbl_score_job_t *job) {
    for (mbl_score_job_t *next; job; job = next) {
        next = job->next; /* the job may be gone with its last image */
        cut_job(remote, job);
    }
}

/* What other threads may ask for, with the lock held. */
static void publish(mbl_remote_t *remote) {
    remote->counts = mbl_schedule_counts(remote->schedule);
    remote->set_aside = remote->hopeless = 0;
    for (size_t r = 0; r < remote->n_replicas; r++) {
        replica_t *replica = &remote->replicas[r];
        replica->ready = mbl_schedule_is_ready(remote->schedule, r);
        remote->set_aside += !replica->ready;
        remote->hopeless += replica->hopeless;
    }
    uv_cond_broadcast(&remote->changed);
}

/* Waits for news, at most until then; false: the client closes. */
static bool wait_for_news(mbl_remote_t *remote, double until) {
    while (!remote->ended && !remote->first && !remote->closing) {
        double seconds = until - mbl_now();
        if (seconds <= 0)
            break;
        if (seconds > 3600)
            uv_cond_wait(&remote->wake, &remote->lock);
        else
            uv_cond_timedwait(&remote->wake, &remote->lock, (uint64_t)(seconds * 1e9) + 1);
    }
    return !remote->closing;
}

/* Ends every call; nothing new is sent. */
static void stop(mbl_remote_t *remote) {
    remote->stopping = true;
    for (size_t i = 0; i < remote->n_attempts; i++)
        if (remote->attempts[i].call)
            mbl_http_cancel(remote->attempts[i].call);
    for (size_t r = 0; r < remote->n_replicas; r++)
        if (remote->replicas[r].probe.call)
            mbl_http_cancel(remote->replicas[r].probe.call);
    while (remote->under_way > 0) {
        uv_mutex_lock(&remote->lock);
        while (!remote->ended)
            uv_cond_wait(&remote->wake, &remote->lock);
        exchange_t *ended = remote->ended;
        remote->ended = NULL;
        uv_mutex_unlock(&remote->lock);
        take_ended(ended);
    }
}

static void work(void *user) {
    mbl_remote_t *remote = user;
    double until = 0;
    mbl_fail_quiet(1);
    uv_mutex_lock(&remote->lock);
    while (wait_for_news(remote, until)) {
        exchange_t *ended = remote->ended;
        mbl_score_job_t *jobs = remote->first;
        remote->ended = NULL;
        remote->first = remote->last = NULL;
        uv_mutex_unlock(&remote->lock);
        take_ended(ended);
        take_jobs(remote, jobs);
        until = act(remote);
        uv_mutex_lock(&remote->lock);
        publish(remote);
    }
    uv_mutex_unlock(&remote->lock);
    stop(remote);
}

/* ---- opening ---- */

static mbl_status_t open_replica(mbl_remote_t *remote, const mbl_remote_options_t *options, size_t r) {
    replica_t *replica = &remote->replicas[r];
    const char *why;
    if (!mbl_http_url_valid(options->urls[r], &why))
        return MBL_FAIL(
            MBL_ERR_CONFIG,
            "reward %s: url: \"%.200s\" %s; expected such as http://localhost:8000 or unix:/run/s.sock",
            options->name, options->urls[r], why);
    MBL_TRY(copy(options->urls[r], &replica->url));
    replica->server = (mbl_http_server_t){.url = replica->url,
                                          .ca = remote->ca,
                                          .cert = remote->cert,
                                          .key = remote->key,
                                          .token = remote->token};
    replica->probe = (exchange_t){.remote = remote, .replica = r, .probe = true};
    return mbl_proto_open(&options->server, &replica->peer);
}

static mbl_status_t open_attempts(mbl_remote_t *remote, size_t in_flight) {
    MBL_ALLOC(remote->attempts, remote->n_replicas * in_flight);
    while (remote->n_attempts < remote->n_replicas * in_flight) {
        exchange_t *attempt = &remote->attempts[remote->n_attempts];
        *attempt = (exchange_t){.remote = remote, .replica = remote->n_attempts++ / in_flight};
        MBL_ALLOC(attempt->rgb, remote->batch);
        MBL_ALLOC(attempt->prompts, remote->batch);
        MBL_ALLOC(attempt->metadata, remote->batch);
    }
    return MBL_OK;
}

static mbl_status_t fill(mbl_remote_t *remote, const mbl_remote_options_t *options) {
    MBL_TRY(copy(options->name, &remote->name));
    MBL_TRY(copy(options->ca, &remote->ca));
    MBL_TRY(copy(options->cert, &remote->cert));
    MBL_TRY(copy(options->key, &remote->key));
    MBL_TRY(copy(options->token_file, &remote->token_file));
    MBL_TRY(read_token(options->name, options->token_file, options->token_env, &remote->token));
    MBL_ALLOC(remote->replicas, options->n_urls);
    while (remote->n_replicas < options->n_urls)
        MBL_TRY(open_replica(remote, options, remote->n_replicas++));
    MBL_TRY(open_attempts(remote, options->in_flight));
    mbl_schedule_options_t schedule = {.replicas = options->n_urls,
                                       .in_flight = options->in_flight,
                                       .retries = options->retries,
                                       .deadline = options->deadline,
                                       .hedge = options->hedge,
                                       .seed = options->seed};
    MBL_TRY(mbl_schedule_open(&schedule, &remote->schedule));
    MBL_TRY(mbl_http_open(remote->n_attempts + remote->n_replicas, &remote->http));
    remote->opening = true;
    int error = uv_thread_create(&remote->thread, work, remote);
    if (error)
        return MBL_FAIL(MBL_ERR_MEM, "a thread for reward %s: %s", options->name, uv_strerror(error));
    remote->started = true;
    return MBL_OK;
}

/* Whether waiting for replicas has an end, with the lock held; *ready: one is of use. */
static bool is_decided(const mbl_remote_t *remote, bool late, bool *ready) {
    bool asked = true;
    *ready = false;
    for (size_t r = 0; r < remote->n_replicas; r++) {
        asked &= remote->replicas[r].asked;
        *ready |= remote->replicas[r].ready;
    }
    return asked && (*ready || late || remote->hopeless == remote->n_replicas);
}

static mbl_status_t await_replicas(mbl_remote_t *remote, const mbl_remote_options_t *options) {
    char more[300] = "";
    double end = mbl_now() + options->start;
    bool ready = false;
    uv_mutex_lock(&remote->lock);
    while (!is_decided(remote, mbl_now() >= end, &ready) &&
           !(options->ended && options->ended(options->ended_user, more, sizeof more)))
        uv_cond_timedwait(&remote->changed, &remote->lock, 100000000);
    remote->opening = false;
    uv_mutex_unlock(&remote->lock);
    for (size_t r = 0; r < remote->n_replicas; r++) {
        mbl_remote_replica_t replica;
        mbl_remote_replica(remote, r, &replica);
        if (ready && replica.ready)
            MBL_INFO("reward %s: %s: %s", remote->name, replica.url, replica.text);
        else if (ready)
            MBL_WARN("reward %s: %s: %s; the run begins without it", remote->name, replica.url, replica.text);
    }
    if (!ready && options->optional) {
        MBL_WARN("reward %s: %s: %s%s; it is a monitor, so the run begins without it", remote->name,
                 remote->replicas[0].url, remote->replicas[0].why, more);
        return MBL_OK;
    }
    if (!ready)
        return MBL_FAIL(MBL_ERR_REWARD, "reward %s: %s: %s%s%s", remote->name, remote->replicas[0].url,
                        remote->replicas[0].why, more,
                        remote->n_replicas > 1 ? "; nor is another of its urls of use" : "");
    return MBL_OK;
}

static mbl_status_t open_locks(mbl_remote_t *remote) {
    int error = uv_mutex_init(&remote->lock);
    if (error)
        return MBL_FAIL(MBL_ERR_MEM, "a lock for rewards: %s", uv_strerror(error));
    error = uv_cond_init(&remote->wake);
    if (error) {
        uv_mutex_destroy(&remote->lock);
        return MBL_FAIL(MBL_ERR_MEM, "a lock for rewards: %s", uv_strerror(error));
    }
    error = uv_cond_init(&remote->changed);
    if (error) {
        uv_cond_destroy(&remote->wake);
        uv_mutex_destroy(&remote->lock);
        return MBL_FAIL(MBL_ERR_MEM, "a lock for rewards: %s", uv_strerror(error));
    }
    return MBL_OK;
}

mbl_status_t mbl_remote_open(const mbl_remote_options_t *options, mbl_remote_t **out) {
    mbl_remote_t *remote;
    MBL_REQUIRE(options->n_urls > 0 && options->batch > 0, "reward %s: no url or no batch", options->name);
    MBL_ALLOC(remote, 1);
    remote->batch = options->batch;
    remote->deadline = options->deadline;
    mbl_status_t status = open_locks(remote);
    if (status != MBL_OK) {
        mbl_free(remote);
        return status;
    }
    status = fill(remote, options);
    if (status == MBL_OK)
        status = await_replicas(remote, options);
    if (status != MBL_OK) {
        mbl_remote_close(remote);
        return status;
    }
    *out = remote;
    return MBL_OK;
}

/* ---- closing ---- */

/* Jobs that are still there, with the thread gone and no call under way: at the end of time, every task is
 * over. */
static void fail_jobs(mbl_remote_t *remote) {
    for (mbl_score_job_t *job = remote->first, *next; job; job = next) {
        size_t n = job->n;
        next = job->next;
        job->scored(job, 0, n, NULL, "the run ends");
        job->done(job, n);
    }
    while (remote->open_tasks > 0) {
        mbl_schedule_action_t action = mbl_schedule_next(remote->schedule, INFINITY);
        if (action.kind == MBL_SCHEDULE_FINISH)
            finish_task(remote, &action);
    }
}

static void free_exchange(exchange_t *exchange) {
    mbl_proto_request_free(&exchange->request);
    mbl_proto_result_free(&exchange->result);
    mbl_encoded_free(&exchange->encoded);
    mbl_free(exchange->rgb);
    mbl_free(exchange->prompts);
    mbl_free(exchange->metadata);
}

void mbl_remote_close(mbl_remote_t *remote) {
    if (!remote)
        return;
    if (remote->started) {
        uv_mutex_lock(&remote->lock);
        remote->closing = true;
        uv_cond_signal(&remote->wake);
        uv_mutex_unlock(&remote->lock);
        uv_thread_join(&remote->thread);
        mbl_fail_quiet(1);
        fail_jobs(remote);
        mbl_fail_quiet(0);
    }
    mbl_http_close(remote->http);
    for (size_t i = 0; i < remote->n_attempts; i++)
        free_exchange(&remote->attempts[i]);
    for (size_t r = 0; r < remote->n_replicas; r++) {
        free_exchange(&remote->replicas[r].probe);
        mbl_proto_close(remote->replicas[r].peer);
        mbl_free(remote->replicas[r].url);
    }
    drop_token(remote->token);
    uv_cond_destroy(&remote->changed);
    uv_cond_destroy(&remote->wake);
    uv_mutex_destroy(&remote->lock);
    mbl_schedule_close(remote->schedule);
    mbl_free(remote->attempts);
    mbl_free(remote->replicas);
    mbl_free(remote->tasks);
    mbl_free(remote->token_file);
    mbl_free(remote->name);
    mbl_free(remote->ca);
    mbl_free(remote->cert);
    mbl_free(remote->key);
    mbl_free(remote);
}

/* ---- what it says ---- */

void mbl_remote_traffic(mbl_remote_t *remote, mbl_traffic_t *out) {
    double now = mbl_now();
    uv_mutex_lock(&remote->lock);
    if (remote->busy_since > 0) {
        remote->traffic.seconds += now - remote->busy_since;
        remote->busy_since = now;
    }
    *out = remote->traffic;
    out->retried = (double)(remote->counts.retried - remote->counted.retried);
    out->hedged = (double)(remote->counts.hedged - remote->counted.hedged);
    out->set_aside = (double)remote->set_aside;
    remote->counted = remote->counts;
    remote->traffic = (mbl_traffic_t){.images = 0};
    uv_mutex_unlock(&remote->lock);
}

size_t mbl_remote_replicas(const mbl_remote_t *remote) {
    return remote->n_replicas;
}

void mbl_remote_replica(mbl_remote_t *remote, size_t i, mbl_remote_replica_t *out) {
    replica_t *replica = &remote->replicas[i];
    uv_mutex_lock(&remote->lock);
    out->url = replica->url;
    out->ready = replica->ready;
    snprintf(out->text, sizeof out->text, "%s", replica->ready ? replica->said : replica->why);
    uv_mutex_unlock(&remote->lock);
}
