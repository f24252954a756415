/* What the parts of the scorer pool share: scorer_pool.c opens and closes it, scorer_pool_workers.c is its
 * queues and threads, scorer_pool_services.c scores that somebody else computes, scorer_pool_submit.c
 * submitting, waiting and failures. */
#ifndef MBL_REWARD_SCORER_POOL_INTERNAL_H
#define MBL_REWARD_SCORER_POOL_INTERNAL_H

#include "reward/applies.h"
#include "reward/reward.h"
#include "reward/service.h"
#include "reward/spares.h"

#include <uv.h>

/* One submit, as it stands in one queue. */
typedef struct {
    mbl_spare_t spare; /* first; its next is the queue's */
    const mbl_image_t *images;
    const mbl_prompt_t *const *prompts;
    mbl_score_t *scores;
    size_t n, taken; /* images handed to workers */
    size_t first;    /* images submitted before */
    bool abandoned;  /* of a thread's copy: nobody wants the scores any more */
} batch_t;

typedef struct {
    const mbl_scorer_t *scorer;
    size_t queue;   /* of the scorer; a service's have none */
    size_t service; /* of the scorer; SIZE_MAX: none */
    char *name;
    mbl_on_failure_t on_failure;
    mbl_applies_t *applies; /* NULL: to all prompts */
    void *self;
    bool open;
    size_t failed;       /* scores, since opening */
    size_t stop_at;      /* the earliest failed image since the last wait; SIZE_MAX: none */
    char stop_text[768]; /* and what happened to it */
} reward_t;

/* The first is the workers'. */
typedef struct {
    mbl_scorer_pool_t *pool;
    batch_t *head, *tail;
    size_t chunk; /* images that a thread takes at once */
} queue_t;

/* A service, and the rewards [m] that come from its calls, in the order of its outputs. */
typedef struct {
    const mbl_service_t *table;
    void *self;
    bool open;
    size_t *rewards, m;
    size_t pending; /* images; */
    double done_at; /* when they last came to none */
} service_t;

/* One submit, as it stands at one service. */
typedef struct {
    mbl_spare_t spare; /* first */
    mbl_score_job_t job;
    mbl_scorer_pool_t *pool;
    service_t *service;
    mbl_score_t *scores;
    size_t first, left; /* images submitted before; not done */
} job_t;

struct mbl_scorer_pool {
    const volatile sig_atomic_t *stop; /* NULL: never */
    reward_t *rewards;
    size_t k;
    queue_t *queues; /* [1 + those of scorers with their own thread] */
    size_t n_queues;
    service_t *services;
    size_t n_services;
    uv_thread_t *threads;
    size_t threads_started;
    uv_mutex_t lock; /* guards all below, the queues and the counters of the rewards */
    uv_cond_t work, done;
    mbl_spares_t batches, jobs; /* ready for the next submits */
    double waiting_since;
    size_t images;              /* submitted, ever */
    size_t submitted, finished; /* images, ever, in all queues */
    bool closing, abandoned;    /* abandoned: a stop was asked for, what is missing fails unsaid */
};

bool mbl_scorer_pool_stops(const mbl_scorer_pool_t *pool);

/* ---- scorer_pool_workers.c ---- */

/* A queue for the workers and one for every scorer with a thread of its own. */
mbl_status_t mbl_scorer_pool_queues_open(mbl_scorer_pool_t *pool, const mbl_scorer_t *const *scorers,
                                         size_t k);
/* The workers, and a thread for every queue behind the first. */
mbl_status_t mbl_scorer_pool_threads_start(mbl_scorer_pool_t *pool, size_t workers);
/* Puts a batch into every queue, with the lock held; the pool has so many spare ones. */
void mbl_scorer_pool_queues_add(mbl_scorer_pool_t *pool, const batch_t *batch);

/* ---- scorer_pool_services.c ---- */

mbl_status_t mbl_scorer_pool_services_open(mbl_scorer_pool_t *pool, const mbl_reward_spec_t *specs);
void mbl_scorer_pool_services_close(mbl_scorer_pool_t *pool);
/* Hands a batch to every service; the pool has so many spare jobs. */
size_t mbl_scorer_pool_services_jobs(const mbl_scorer_pool_t *pool, const batch_t *batch); /* it makes */
void mbl_scorer_pool_services_submit(mbl_scorer_pool_t *pool, const batch_t *batch);
/* What services still have to score fails soon. */
void mbl_scorer_pool_services_abandon(mbl_scorer_pool_t *pool);

/* ---- scorer_pool_submit.c ---- */

/* Keeps what reward k said of an image as it counts; image: those submitted before. Where status is not OK,
 * mbl_fail_message says why; failures are counted, and the first is logged. */
void mbl_scorer_pool_keep_score(mbl_scorer_pool_t *pool, size_t k, mbl_status_t status, mbl_score_t said,
                                size_t image, const char *prompt, mbl_score_t *out);
/* Counts images of one queue or service as finished, with the lock held. */
void mbl_scorer_pool_finished(mbl_scorer_pool_t *pool, size_t n);

#endif
