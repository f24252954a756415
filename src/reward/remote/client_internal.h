/* What the parts of a client share: client.c opens, closes and runs the thread, replicas.c asks servers what
 * they are, requests.c sends images and reads scores, token.c keeps the token. All state belongs to the
 * client's thread, but for what the lock guards. */
#ifndef MBL_REWARD_REMOTE_CLIENT_INTERNAL_H
#define MBL_REWARD_REMOTE_CLIENT_INTERNAL_H

#include "proto/http.h"
#include "reward/remote/client.h"
#include "reward/remote/encode.h"
#include "reward/remote/schedule.h"

#include <uv.h>

enum { MBL_REMOTE_WHY = 400 };

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
    char *url, *shown; /* shown: what messages call it */
    mbl_http_server_t server;
    mbl_proto_peer_t *peer;
    exchange_t probe;
    bool hopeless; /* asking again is of no use */
    bool reported; /* that it is set aside */
    size_t busy;   /* answers in a row that it is */
    /* under the lock, for other threads */
    bool asked, ready, against;     /* against: see mbl_schedule_votes_against */
    bool aside;                     /* as rank 0 has decided */
    char why[MBL_PROTO_ERROR_TEXT]; /* the last trouble with it */
    char said[MBL_PROTO_ERROR_TEXT];
} replica_t;

typedef struct {
    mbl_score_job_t *job;
    size_t first, n;
    char why[MBL_REMOTE_WHY];
} task_t;

struct mbl_remote {
    char *name, *ca, *cert, *key, *token, *token_file;
    size_t batch, n_replicas, n_attempts;
    double deadline;
    bool (*own_ended)(void *user, char *text, size_t size); /* see mbl_remote_options_t.ended */
    void *own_user;
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
    bool opening, closing, abandoned;
    bool decided, decided_here; /* there is a decision of rank 0, which this is */
};

/* ---- token.c ---- */

/* From a file or an environment variable, whichever is not NULL; neither: *out stays. */
mbl_status_t mbl_remote_token_read(const char *reward, const char *file, const char *variable, char **out);
/* Warns of a file that others may read; NULL is fine. */
void mbl_remote_token_check(const char *reward, const char *file);
/* Overwrites it first; NULL is fine. */
void mbl_remote_token_free(char *token);
/* A token's file may get another one while the run goes on. Whether a request that was refused with the
 * sent-th token may be sent with another. */
bool mbl_remote_token_renew(mbl_remote_t *remote, size_t sent);

/* ---- client.c ---- */

mbl_status_t mbl_remote_copy(const char *text, char **out); /* NULL stays NULL */
/* Sends the exchange's request to its replica. */
mbl_status_t mbl_remote_send(exchange_t *exchange);

/* ---- replicas.c ---- */

mbl_status_t mbl_remote_replica_open(mbl_remote_t *remote, const mbl_remote_options_t *options, size_t r);
/* Waits until it is known whether the run can begin with the replicas that are there. */
mbl_status_t mbl_remote_replicas_await(mbl_remote_t *remote, const mbl_remote_options_t *options);
void mbl_remote_note_trouble(mbl_remote_t *remote, size_t r, const char *text);
/* Why a call has no answer: of a server of our own that does not listen, what has become of it. */
const char *mbl_remote_no_answer(const mbl_remote_t *remote, const mbl_http_call_t *call, char *out,
                                 size_t size);
void mbl_remote_probe(mbl_remote_t *remote, size_t r);
void mbl_remote_probe_ended(exchange_t *probe);
/* Reports that a replica is set aside or restored. */
void mbl_remote_log_quarantine(mbl_remote_t *remote, const mbl_schedule_action_t *action);

/* ---- requests.c ---- */

/* Cuts jobs into tasks. */
void mbl_remote_take_jobs(mbl_remote_t *remote, mbl_score_job_t *jobs);
void mbl_remote_attempt(mbl_remote_t *remote, const mbl_schedule_action_t *action);
void mbl_remote_attempt_ended(exchange_t *attempt);
void mbl_remote_finish_task(mbl_remote_t *remote, const mbl_schedule_action_t *action);
/* Fails the jobs that are still there, with the thread gone and no call under way. */
void mbl_remote_fail_jobs(mbl_remote_t *remote);

#endif
