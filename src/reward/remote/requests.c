/* From jobs to scores: images are cut into tasks, tasks are sent as requests, and what comes back goes to the
 * job. */
#include "reward/remote/client_internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <math.h>
#include <stdio.h>

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

void mbl_remote_take_jobs(mbl_remote_t *remote, mbl_score_job_t *job) {
    for (mbl_score_job_t *next; job; job = next) {
        next = job->next; /* the job may be gone with its last image */
        cut_job(remote, job);
    }
}

/* ---- attempts ---- */

static void count_failure(mbl_remote_t *remote, size_t kind) {
    uv_mutex_lock(&remote->lock);
    remote->traffic.failed[kind]++;
    uv_mutex_unlock(&remote->lock);
}

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
    snprintf(remote->tasks[attempt->task].why, MBL_REMOTE_WHY, "%s: %.*s",
             remote->replicas[attempt->replica].shown, MBL_REMOTE_WHY - 80, text);
    mbl_remote_note_trouble(remote, attempt->replica, text);
}

void mbl_remote_attempt(mbl_remote_t *remote, const mbl_schedule_action_t *action) {
    exchange_t *attempt = &remote->attempts[action->attempt];
    attempt->task = action->task;
    uv_mutex_lock(&remote->lock);
    if (remote->busy_since <= 0)
        remote->busy_since = mbl_now();
    uv_mutex_unlock(&remote->lock);
    mbl_status_t status = make_request(remote, attempt);
    if (status == MBL_OK)
        status = mbl_remote_send(attempt);
    if (status != MBL_OK) {
        keep_why(remote, attempt, mbl_fail_message());
        mbl_schedule_report(remote->schedule, mbl_now(), action->attempt,
                            status == MBL_ERR_ARG ? MBL_SCHEDULE_REFUSED : MBL_SCHEDULE_FAILED, 0);
    }
}

/* A server that is busy: the log says once in a row of such answers that it is waited for, where that takes a
 * while; what is not waited for has its reason (see come_back in schedule.c). */
static void note_busy(mbl_remote_t *remote, exchange_t *attempt, const mbl_proto_error_t *error) {
    enum { NOTED = 3 }; /* without a time, pauses grow from a tenth of a second */
    replica_t *replica = &remote->replicas[attempt->replica];
    char text[MBL_REMOTE_WHY];
    double seconds = error->retry_after;
    replica->busy++;
    if (seconds > remote->deadline) {
        snprintf(text, sizeof text,
                 "%.160s; it asks to come back in %.0f s%s, longer than the deadline of %g s", error->text,
                 seconds, seconds < MBL_PROTO_RETRY_AFTER_MAX ? "" : " or more", remote->deadline);
        keep_why(remote, attempt, text);
    } else if (seconds >= 1 && replica->busy == 1)
        MBL_WARN("reward %s: %s is busy (%.250s); it asks to come back in %.0f s and gets nothing until then",
                 remote->name, replica->shown, error->text, seconds);
    else if (seconds < 1 && replica->busy == NOTED)
        MBL_WARN("reward %s: %s is busy (%.250s); it is asked again with growing pauses", remote->name,
                 replica->shown, error->text);
}

/* What a response is worth; *retry_after where the server says when to come back. */
static mbl_schedule_outcome_t read_response(mbl_remote_t *remote, exchange_t *attempt, double *retry_after) {
    mbl_proto_error_t error = {.kind = MBL_PROTO_ERROR_NONE};
    mbl_status_t status =
        mbl_proto_response(remote->replicas[attempt->replica].peer, remote->tasks[attempt->task].n,
                           mbl_http_response(attempt->call), &attempt->result, &error);
    if (status == MBL_OK) {
        remote->replicas[attempt->replica].busy = 0;
        return MBL_SCHEDULE_GOOD;
    }
    keep_why(remote, attempt, status == MBL_ERR_REWARD ? error.text : mbl_fail_message());
    count_failure(remote, mbl_traffic_of_error(error.kind));
    *retry_after = error.retry_after;
    if (error.kind == MBL_PROTO_ERROR_BUSY) {
        note_busy(remote, attempt, &error);
        return MBL_SCHEDULE_BUSY;
    }
    if (error.kind == MBL_PROTO_ERROR_DENIED && mbl_remote_token_renew(remote, attempt->token))
        return MBL_SCHEDULE_FAILED; /* and tried again */
    if (status != MBL_ERR_REWARD)   /* memory of our own */
        return MBL_SCHEDULE_FAILED;
    return mbl_proto_error_again(error.kind) ? MBL_SCHEDULE_ERROR : MBL_SCHEDULE_REFUSED;
}

void mbl_remote_attempt_ended(exchange_t *attempt) {
    mbl_remote_t *remote = attempt->remote;
    task_t *task = &remote->tasks[attempt->task];
    mbl_http_end_t end = mbl_http_end(attempt->call);
    mbl_schedule_outcome_t outcome = MBL_SCHEDULE_CANCELLED;
    double retry_after = 0, seconds = mbl_http_seconds(attempt->call);
    char text[MBL_PROTO_ERROR_TEXT];
    if (end == MBL_HTTP_ANSWERED) {
        outcome = read_response(remote, attempt, &retry_after);
    } else if (end != MBL_HTTP_CANCELLED) {
        outcome = MBL_SCHEDULE_FAILED;
        keep_why(remote, attempt, mbl_remote_no_answer(remote, attempt->call, text, sizeof text));
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

/* Where nobody was asked about a task: what is wrong with each replica. */
static const char *say_nobody(mbl_remote_t *remote, char *out, size_t size) {
    size_t used = (size_t)snprintf(out, size, "no server is of use");
    for (size_t r = 0; r < remote->n_replicas && used + 1 < size; r++) {
        mbl_remote_replica_t replica;
        mbl_remote_replica(remote, r, &replica);
        int n = snprintf(out + used, size - used, "%s %.80s: %.200s", r ? ";" : ":", replica.url,
                         replica.text[0] ? replica.text : "has not answered yet");
        used += n > 0 ? (size_t)n : 0;
    }
    return out;
}

void mbl_remote_finish_task(mbl_remote_t *remote, const mbl_schedule_action_t *action) {
    task_t *task = &remote->tasks[action->task];
    if (--remote->open_tasks == 0) {
        uv_mutex_lock(&remote->lock);
        remote->traffic.seconds += remote->busy_since > 0 ? mbl_now() - remote->busy_since : 0;
        remote->busy_since = 0;
        uv_mutex_unlock(&remote->lock);
    }
    char nobody[MBL_PROTO_ERROR_TEXT];
    if (!action->good)
        task->job->scored(task->job, task->first, task->n, NULL,
                          task->why[0] ? task->why : say_nobody(remote, nobody, sizeof nobody));
    task->job->done(task->job, task->n); /* the job may be gone after this */
}

/* At the end of time, every task is over. */
void mbl_remote_fail_jobs(mbl_remote_t *remote) {
    for (mbl_score_job_t *job = remote->first, *next; job; job = next) {
        size_t n = job->n;
        next = job->next;
        job->scored(job, 0, n, NULL, "the run ends");
        job->done(job, n);
    }
    while (remote->open_tasks > 0) {
        mbl_schedule_action_t action = mbl_schedule_next(remote->schedule, INFINITY);
        if (action.kind == MBL_SCHEDULE_FINISH)
            mbl_remote_finish_task(remote, &action);
    }
}
