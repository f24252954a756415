/* All state belongs to the client's thread, but for two lists under the lock: new jobs, and calls that
 * ended. */
#include "reward/remote/client_internal.h"

#include "base/clock.h"
#include "base/mem.h"
#include "reward/locks.h"

#include <stdio.h>

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

mbl_status_t mbl_remote_send(exchange_t *exchange) {
    mbl_remote_t *remote = exchange->remote;
    MBL_TRY(mbl_http_submit(remote->http, &remote->replicas[exchange->replica].server, &exchange->request,
                            remote->deadline, on_ended, exchange, &exchange->call));
    exchange->token = remote->n_tokens;
    remote->under_way++;
    return MBL_OK;
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

void mbl_remote_abandon(mbl_remote_t *remote) {
    uv_mutex_lock(&remote->lock);
    remote->abandoned = true;
    uv_cond_signal(&remote->wake);
    uv_mutex_unlock(&remote->lock);
}

/* ---- the thread ---- */

/* Does what is due; returns when it has to look again. */
static double act(mbl_remote_t *remote) {
    for (;;) {
        mbl_schedule_action_t action = mbl_schedule_next(remote->schedule, mbl_now());
        switch (action.kind) {
        case MBL_SCHEDULE_WAIT:
            return action.until;
        case MBL_SCHEDULE_START:
            mbl_remote_attempt(remote, &action);
            break;
        case MBL_SCHEDULE_CANCEL:
            mbl_http_cancel(remote->attempts[action.attempt].call);
            break;
        case MBL_SCHEDULE_FINISH:
            mbl_remote_finish_task(remote, &action);
            break;
        case MBL_SCHEDULE_PROBE:
            mbl_remote_probe(remote, action.replica);
            break;
        case MBL_SCHEDULE_QUARANTINE:
        case MBL_SCHEDULE_RESTORE:
            mbl_remote_log_quarantine(remote, &action);
            break;
        }
    }
}

static void take_ended(exchange_t *ended) {
    for (exchange_t *next; ended; ended = next) {
        next = ended->next;
        ended->remote->under_way--;
        (ended->probe ? mbl_remote_probe_ended : mbl_remote_attempt_ended)(ended);
    }
}

/* What other threads may ask for, with the lock held. */
static void publish(mbl_remote_t *remote) {
    remote->counts = mbl_schedule_counts(remote->schedule);
    remote->set_aside = remote->hopeless = 0;
    for (size_t r = 0; r < remote->n_replicas; r++) {
        replica_t *replica = &remote->replicas[r];
        replica->ready = mbl_schedule_is_ready(remote->schedule, r);
        replica->against = mbl_schedule_votes_against(remote->schedule, r);
        remote->set_aside += !replica->ready;
        remote->hopeless += replica->hopeless;
    }
    uv_cond_broadcast(&remote->changed);
}

/* Waits for news, at most until then; false: the client closes. */
static bool wait_for_news(mbl_remote_t *remote, double until) {
    while (!remote->ended && !remote->first && !remote->closing && !remote->decided &&
           !(remote->abandoned && remote->open_tasks > 0)) {
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

/* Rank 0's decision, with the lock held. */
static void take_decision(mbl_remote_t *remote) {
    for (size_t r = 0; remote->decided && r < remote->n_replicas; r++) {
        replica_t *replica = &remote->replicas[r];
        if (remote->decided_here && replica->aside && mbl_schedule_is_ready(remote->schedule, r))
            snprintf(replica->why, sizeof replica->why, "half of the ranks or more have set it aside");
        mbl_schedule_decide(remote->schedule, mbl_now(), r, replica->aside, remote->decided_here);
    }
    remote->decided = false;
}

static void work(void *user) {
    mbl_remote_t *remote = user;
    double until = 0;
    bool abandoned = false;
    mbl_fail_quiet(1);
    uv_mutex_lock(&remote->lock);
    while (wait_for_news(remote, until)) {
        exchange_t *ended = remote->ended;
        mbl_score_job_t *jobs = remote->first;
        remote->ended = NULL;
        remote->first = remote->last = NULL;
        take_decision(remote);
        abandoned = remote->abandoned;
        uv_mutex_unlock(&remote->lock);
        take_ended(ended);
        mbl_remote_take_jobs(remote, jobs);
        if (abandoned)
            mbl_schedule_give_up(remote->schedule);
        until = act(remote);
        uv_mutex_lock(&remote->lock);
        publish(remote);
    }
    uv_mutex_unlock(&remote->lock);
    stop(remote);
}

/* ---- opening ---- */

mbl_status_t mbl_remote_copy(const char *text, char **out) {
    if (text && !(*out = mbl_strdup(text)))
        return MBL_FAIL(MBL_ERR_MEM, "no memory for a text");
    return MBL_OK;
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
    MBL_TRY(mbl_remote_copy(options->name, &remote->name));
    MBL_TRY(mbl_remote_copy(options->ca, &remote->ca));
    MBL_TRY(mbl_remote_copy(options->cert, &remote->cert));
    MBL_TRY(mbl_remote_copy(options->key, &remote->key));
    MBL_TRY(mbl_remote_copy(options->token_file, &remote->token_file));
    MBL_TRY(mbl_remote_token_read(options->name, options->token_file, options->token_env, &remote->token));
    mbl_remote_token_check(options->name, options->token_file);
    MBL_ALLOC(remote->replicas, options->n_urls);
    while (remote->n_replicas < options->n_urls)
        MBL_TRY(mbl_remote_replica_open(remote, options, remote->n_replicas++));
    MBL_TRY(open_attempts(remote, options->in_flight));
    mbl_schedule_options_t schedule = {.replicas = options->n_urls,
                                       .in_flight = options->in_flight,
                                       .retries = options->retries,
                                       .deadline = options->deadline,
                                       .hedge = options->hedge,
                                       .optional = options->optional,
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

mbl_status_t mbl_remote_open(const mbl_remote_options_t *options, mbl_remote_t **out) {
    mbl_remote_t *remote;
    MBL_REQUIRE(options->n_urls > 0 && options->batch > 0, "reward %s: no url or no batch", options->name);
    MBL_ALLOC(remote, 1);
    remote->batch = options->batch;
    remote->deadline = options->deadline;
    remote->own_ended = options->ended;
    remote->own_user = options->ended_user;
    mbl_status_t status = mbl_reward_locks_open(&remote->lock, &remote->wake, &remote->changed);
    if (status != MBL_OK) {
        mbl_free(remote);
        return status;
    }
    status = fill(remote, options);
    if (status == MBL_OK)
        status = mbl_remote_replicas_await(remote, options);
    if (status != MBL_OK) {
        mbl_remote_close(remote);
        return status;
    }
    *out = remote;
    return MBL_OK;
}

/* ---- closing ---- */

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
        mbl_remote_fail_jobs(remote);
        mbl_fail_quiet(0);
    }
    mbl_http_close(remote->http);
    for (size_t i = 0; i < remote->n_attempts; i++)
        free_exchange(&remote->attempts[i]);
    for (size_t r = 0; r < remote->n_replicas; r++) {
        free_exchange(&remote->replicas[r].probe);
        mbl_proto_close(remote->replicas[r].peer);
        mbl_free(remote->replicas[r].url);
        mbl_free(remote->replicas[r].shown);
    }
    mbl_remote_token_free(remote->token);
    mbl_reward_locks_close(&remote->lock, &remote->wake, &remote->changed);
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

/* ---- what ranks agree on ---- */

/* With one replica there is nothing to decide; a Python server is this rank's own. */
size_t mbl_remote_votes(mbl_remote_t *remote, double *against) {
    if (remote->n_replicas == 1)
        return 0;
    uv_mutex_lock(&remote->lock);
    for (size_t r = 0; r < remote->n_replicas; r++)
        against[r] = remote->replicas[r].against;
    uv_mutex_unlock(&remote->lock);
    return remote->n_replicas;
}

void mbl_remote_decide(mbl_remote_t *remote, const double *aside, bool mine) {
    if (remote->n_replicas == 1)
        return;
    uv_mutex_lock(&remote->lock);
    for (size_t r = 0; r < remote->n_replicas; r++)
        remote->replicas[r].aside = aside[r] > 0;
    remote->decided = true;
    remote->decided_here = mine;
    uv_cond_signal(&remote->wake);
    uv_mutex_unlock(&remote->lock);
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
