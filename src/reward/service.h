/* Rewards that somebody else computes: a service takes images as they come, works on them while the rollout
 * goes on, and hands back scores in any order. Several rewards may come from one call of it. */
#ifndef MBL_REWARD_SERVICE_H
#define MBL_REWARD_SERVICE_H

#include "proto/codec.h"
#include "reward/reward.h"
#include "reward/traffic.h"

/* Images to be scored. It stays the caller's and in place, with all it points at, until `done` has been
 * called for all n images. Both calls come from a thread of the service, whose failures are quiet. */
typedef struct mbl_score_job mbl_score_job_t;
struct mbl_score_job {
    mbl_score_job_t *next; /* the service's */
    const mbl_image_t *images;
    const mbl_prompt_t *const *prompts;
    size_t n;
    /* The scores of images first .. first + n, one output for each of the service's rewards. A NULL result:
     * nobody scored them, `why` says what happened last. Once for every image. */
    void (*scored)(mbl_score_job_t *job, size_t first, size_t n, const mbl_proto_result_t *result,
                   const char *why);
    /* n images are no longer looked at. The job may go with the last ones. */
    void (*done)(mbl_score_job_t *job, size_t n);
};

enum { MBL_SERVICE_REPLICAS_MAX = 32 };
struct mbl_service {
    /* Whether two rewards of this type share calls. */
    bool (*joins)(const mbl_reward_spec_t *a, const mbl_reward_spec_t *b);
    /* For rewards that share calls; `self` may be used when one replica at least is known to be of use.
     * Errors: ERR_CONFIG, ERR_REWARD, ERR_STOPPED once *stop is nonzero (NULL: never). */
    mbl_status_t (*open)(const mbl_reward_spec_t *const *specs, size_t n, const volatile sig_atomic_t *stop,
                         void **self);
    /* Jobs that are not done end as failed. */
    void (*close)(void *self);
    void (*submit)(void *self, mbl_score_job_t *job);
    /* Jobs that are not done, and all later ones, end as failed at once. */
    void (*abandon)(void *self);
    /* Since the last call. Local. */
    void (*traffic)(void *self, mbl_traffic_t *out);
    /* The i-th replica for people: its address, whether it is of use, and what it said or what is wrong with
     * it; false past the end. */
    bool (*replica)(void *self, size_t i, const char **url, bool *ready, char *text, size_t size);
    /* Replicas that all ranks share, in one order: against [the number of them, which is returned] is 1 for
     * each that this rank has set aside for what it saw itself, else 0. NULL slots: there are none. */
    size_t (*votes)(void *self, double *against);
    /* What rank 0 has decided: aside [n] is 1 for each that is set aside. mine: this is rank 0. */
    void (*decide)(void *self, const double *aside, bool mine);
};

#endif
