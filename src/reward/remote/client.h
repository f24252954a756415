/* A client of one kind of server: a thread that cuts images into requests, sends them where the schedule
 * says, and hands out the scores in whatever order they come. */
#ifndef MBL_REWARD_REMOTE_CLIENT_H
#define MBL_REWARD_REMOTE_CLIENT_H

#include "reward/service.h"

typedef struct {
    const char *name;           /* of the reward, for messages */
    mbl_proto_options_t server; /* what is asked for */
    const char *const *urls;    /* [n_urls] replicas of the server */
    size_t n_urls;
    const char *ca, *cert, *key; /* PEM files, or NULL */
    const char *token_file;      /* the token is the content of this file, */
    const char *token_env;       /* or of this environment variable; both NULL: no token */
    size_t batch, in_flight, retries;
    double deadline, hedge; /* see schedule.h */
    double start;           /* seconds in which one replica has to be there; 0: whoever is there at once */
    const volatile sig_atomic_t *stop; /* nonzero ends waiting for a replica; NULL: never */
    uint64_t seed;
    bool optional; /* opens without a replica too: their scores fail until one is there */
    /* For a server that belongs to this process: what messages call it instead of the url; and whether it has
     * ended, so that waiting for it is of no use: how, or that it still starts, into text. NULL: another's.
     */
    const char *label;
    bool (*ended)(void *user, char *text, size_t size);
    void *ended_user;
} mbl_remote_options_t;

typedef struct mbl_remote mbl_remote_t;
/* Asks every replica what it serves, until one fits what is asked for or `start` seconds are over. Strings of
 * `options` need not stay. Errors: ERR_CONFIG for a bad option; ERR_REWARD where no replica is of use: says
 * what each one answered; ERR_STOPPED, with a line that says what it waited for. Close with mbl_remote_close.
 */
mbl_status_t mbl_remote_open(const mbl_remote_options_t *options, mbl_remote_t **out);
/* Cancels what is under way; jobs end with failed scores. NULL is fine. */
void mbl_remote_close(mbl_remote_t *remote);

void mbl_remote_submit(mbl_remote_t *remote, mbl_score_job_t *job);
/* Jobs that are not done, and all later ones, end with failed scores at once. */
void mbl_remote_abandon(mbl_remote_t *remote);

/* What was done since the last call. Local. */
void mbl_remote_traffic(mbl_remote_t *remote, mbl_traffic_t *out);

/* For ranks that share the replicas: see mbl_service_t. */
size_t mbl_remote_votes(mbl_remote_t *remote, double *against);
void mbl_remote_decide(mbl_remote_t *remote, const double *aside, bool mine);

/* The replicas, for people: what one said of itself, or what is wrong with it. */
typedef struct {
    const char *url;
    bool ready;
    char text[MBL_PROTO_ERROR_TEXT];
} mbl_remote_replica_t;
size_t mbl_remote_replicas(const mbl_remote_t *remote);
void mbl_remote_replica(mbl_remote_t *remote, size_t i, mbl_remote_replica_t *out);

#endif
